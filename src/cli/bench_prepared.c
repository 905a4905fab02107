/* hemi bench prepared: calls whose batch was announced before (silent preparation), online and in all. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/bench_common.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/plain.h"
#include "cli/report.h"
#include "client/lot.h"
#include "ring/kernels.h"
#include "server/batches.h"

#define REPEAT 5 /* batches, when --repeat does not say */

enum { PADS, PREPARE, MASKS, ENCRYPT, SERVER, DECRYPT, STEPS, SERVER_CPU = STEPS, TIMES };
static const char *const step_names[STEPS] = {"pads_ms",    "prepare_ms", "masks_ms",
                                              "encrypt_ms", "server_ms",  "decrypt_ms"};

typedef struct bench {
    long inputs, outputs, slots, threads, repeat, weight_bits;
    const char *kernel;
    bool json;

    hemi_module *module;
    hemi_module_info info;
    hemi_evaluator *evaluator;
    hemi_keys *keys;
    hemi_server_keys *server_keys;
    hemi_prepared *prepared;
    cli_random random;
    float *x, *expected, *y;
    double *factor;
    uint8_t **request, **reply;
    double *times[TIMES];                 /* of each batch, or of each row of all batches */
    double medians[TIMES], server_ms_min; /* PADS to MASKS: of a batch */
    double cpu_ms, online_cpu_ms;         /* client and server, of a row: in all; once its batch is prepared */
    cli_plain plain;
    bool has_plain;
    size_t request_bytes, reply_bytes, announce_bytes, prepare_bytes, state_bytes;
    cli_errors errors;
} bench;

/* ---- one batch */

static hemi_status answer(bench *b, const uint8_t *request, size_t bytes, uint8_t **reply, size_t *reply_bytes,
                          hemi_error *err) {
    const hemi_evaluator *evaluator = b->evaluator;
    return hemi_batches_answer(b->prepared, NULL, &evaluator, 1, b->server_keys, request, bytes, (int)b->threads, NULL, reply,
                               reply_bytes, err);
}

/* Announces batch i: pads, the server's preparation, masks. */
static hemi_status announce(bench *b, size_t i, hemi_lot **out, hemi_error *err) {
    const hemi_module *module = b->module;
    uint8_t *request = NULL, *reply = NULL;
    size_t offset[1];
    double start = hemi_now_ms();
    HEMI_TRY(hemi_lot_new(out, b->keys, &module, 1, (uint32_t)b->slots, err));
    b->times[PADS][i] = hemi_now_ms() - start;
    HEMI_TRY(hemi_lot_header(*out, 0, &request, &b->announce_bytes, err));
    start = hemi_now_ms();
    hemi_status status = answer(b, request, b->announce_bytes, &reply, &b->prepare_bytes, err);
    b->times[PREPARE][i] = hemi_now_ms() - start;
    start = hemi_now_ms();
    if (status == HEMI_OK) status = hemi_lot_accept(*out, b->keys, reply, b->prepare_bytes, 0, offset, err);
    b->times[MASKS][i] = hemi_now_ms() - start;
    hemi_free(request);
    hemi_bytes_free(reply);
    return status;
}

static hemi_status encrypt_row(bench *b, hemi_lot *lot, size_t i, hemi_error *err) {
    hemi_batch_request r = lot->request;
    r.seconds = false;
    r.first = (uint32_t)i;
    r.rows = 1;
    b->request_bytes = hemi_batch_request_bytes(&r);
    b->request[i] = hemi_alloc(b->request_bytes, 1);
    if (!b->request[i]) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_batch_request_write_header(b->request[i], &r);
    return hemi_lot_encrypt(lot, b->module, (uint32_t)i, b->x + i * (size_t)b->inputs, 1, false, &b->factor[i],
                            b->request[i] + hemi_batch_rows_offset(&r), err);
}

static hemi_status decrypt_row(bench *b, const hemi_lot *lot, size_t i, hemi_error *err) {
    hemi_batch_frame frame = lot->frame[0];
    size_t offset;
    frame.seconds = false;
    frame.rows = 1;
    const size_t m = (size_t)b->outputs;
    double *b0 = hemi_alloc(m, sizeof *b0); /* no bias */
    if (!b0) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_status status =
        hemi_batch_reply_parse(b->reply[i], b->reply_bytes, lot->request.params, &frame, 1, &offset, err);
    if (status == HEMI_OK)
        status = hemi_lot_decrypt(lot, b->module, 0, (uint32_t)i, b->reply[i] + offset, 1, false, &b->factor[i], b0,
                                  b->y + i * m, err);
    hemi_free(b0);
    return status;
}

/* All rows of a batch, as a server sees them: all requests, then all replies, then all results. */
static hemi_status call_rows(bench *b, hemi_lot *lot, size_t first, hemi_error *err) {
    const size_t rows = (size_t)b->slots;
    for (size_t step = ENCRYPT; step <= DECRYPT; step++)
        for (size_t i = 0; i < rows; i++) {
            const double cpu = cli_process_cpu_ms(), start = hemi_now_ms();
            HEMI_TRY(step == ENCRYPT  ? encrypt_row(b, lot, i, err)
                     : step == SERVER ? answer(b, b->request[i], b->request_bytes, &b->reply[i], &b->reply_bytes, err)
                                      : decrypt_row(b, lot, i, err));
            b->times[step][first + i] = hemi_now_ms() - start;
            if (step == SERVER) b->times[SERVER_CPU][first + i] = cli_process_cpu_ms() - cpu;
        }
    return HEMI_OK;
}

static hemi_status one_batch(bench *b, size_t i, hemi_error *err) {
    hemi_lot *lot = NULL;
    const size_t rows = (size_t)b->slots, m = (size_t)b->outputs;
    cli_random_rows(&b->random, b->x, rows, (size_t)b->inputs);
    HEMI_TRY(hemi_module_run_clear(b->module, b->x, rows, b->expected, false, err));
    memset(b->request, 0, rows * sizeof *b->request);
    memset(b->reply, 0, rows * sizeof *b->reply);
    const double start = cli_process_cpu_ms();
    hemi_status status = announce(b, i, &lot, err);
    const double prepared = cli_process_cpu_ms();
    if (status == HEMI_OK) status = call_rows(b, lot, i * rows, err);
    const double end = cli_process_cpu_ms();
    b->cpu_ms += (end - start) / (double)(rows * (size_t)b->repeat);
    b->online_cpu_ms += (end - prepared) / (double)(rows * (size_t)b->repeat);
    if (status == HEMI_OK) cli_errors_add(&b->errors, b->y, b->expected, rows, m, b->info.predicted_error);
    for (size_t j = 0; j < rows; j++) {
        hemi_free(b->request[j]);
        hemi_bytes_free(b->reply[j]);
    }
    hemi_lot_free(lot);
    return status;
}

/* ---- the whole */

static hemi_status open_all(bench *b, hemi_error *err) {
    const hemi_prepared_limits limits = {.bytes = SIZE_MAX, .key_bytes = SIZE_MAX, .key_batches = 1, .expiry_ms = 1e12};
    const hemi_compile_options options = {.weight_bits = (int)b->weight_bits};
    uint8_t *bytes;
    size_t length;
    cli_random_rows(&b->random, b->x, (size_t)b->slots, (size_t)b->inputs);
    HEMI_TRY(cli_random_module(&b->module, &b->random, (uint32_t)b->inputs, (uint32_t)b->outputs, b->x,
                               (size_t)b->slots, options, err));
    hemi_module_get_info(b->module, &b->info);
    HEMI_TRY(hemi_evaluator_new(&b->evaluator, b->module, (int)b->threads, err));
    const hemi_module *module = b->module;
    if (!hemi_lot_possible(&module, 1) || !hemi_evaluator_batch(b->evaluator))
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "this shape has no form for batches of rows");
    b->prepared = hemi_prepared_new(&limits);
    if (!b->prepared) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    HEMI_TRY(hemi_keys_new(&b->keys, NULL, err));
    HEMI_TRY(hemi_keys_public(b->keys, hemi_params_by_name(HEMI_BATCH_SET), &bytes, &length, err));
    const hemi_status status = hemi_server_keys_new(&b->server_keys, bytes, length, err);
    hemi_bytes_release(bytes);
    return status;
}

static bool allocate(bench *b) {
    const size_t r = (size_t)b->slots, d = (size_t)b->inputs, m = (size_t)b->outputs, all = r * (size_t)b->repeat;
    bool enough = (b->x = hemi_alloc(r * d, sizeof *b->x)) != NULL;
    enough = (b->y = hemi_alloc(r * m, sizeof *b->y)) != NULL && enough;
    enough = (b->expected = hemi_alloc(r * m, sizeof *b->expected)) != NULL && enough;
    enough = (b->factor = hemi_alloc(r, sizeof *b->factor)) != NULL && enough;
    enough = (b->request = hemi_alloc(r, sizeof *b->request)) != NULL && enough;
    enough = (b->reply = hemi_alloc(r, sizeof *b->reply)) != NULL && enough;
    for (size_t i = 0; i < TIMES; i++) enough = (b->times[i] = hemi_alloc(all, sizeof **b->times)) != NULL && enough;
    return enough;
}

static hemi_status run(bench *b, hemi_error *err) {
    const size_t repeat = (size_t)b->repeat;
    if (!allocate(b)) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    HEMI_TRY(open_all(b, err));
    HEMI_TRY(one_batch(b, 0, err)); /* to warm up */
    b->errors = (cli_errors){0};
    b->cpu_ms = b->online_cpu_ms = 0;
    for (size_t i = 0; i < repeat; i++) {
        hemi_progress_bar(stderr, "batches", i, repeat);
        HEMI_TRY(one_batch(b, i, err));
    }
    hemi_progress_bar(stderr, "batches", repeat, repeat);
    for (size_t step = 0; step < TIMES; step++)
        b->medians[step] = cli_median(b->times[step], step < ENCRYPT ? repeat : repeat * (size_t)b->slots);
    b->server_ms_min = b->times[SERVER][0]; /* sorted by now */
    b->state_bytes = hemi_prepared_get_figures(b->prepared).bytes;
    b->has_plain = cli_plain_linear(&b->plain, (size_t)b->inputs, (size_t)b->outputs, 1);
    return HEMI_OK;
}

static void release(bench *b) {
    hemi_prepared_free(b->prepared);
    hemi_server_keys_free(b->server_keys);
    hemi_keys_free(b->keys);
    hemi_evaluator_free(b->evaluator);
    hemi_module_free(b->module);
    for (size_t i = 0; i < TIMES; i++) hemi_free(b->times[i]);
    hemi_free(b->x);
    hemi_free(b->y);
    hemi_free(b->expected);
    hemi_free(b->factor);
    hemi_free(b->request);
    hemi_free(b->reply);
}

/* ---- the report */

static json_t *to_json(const bench *b) {
    const double scale = cli_errors_scale(&b->errors);
    json_t *j = json_pack("{s:I,s:I,s:I,s:s,s:s,s:s,s:I,s:I}", "inputs", (json_int_t)b->inputs, "outputs",
                          (json_int_t)b->outputs, "slots", (json_int_t)b->slots, "set", HEMI_BATCH_SET, "kernel",
                          hemi_kernels_default()->name, "cpu", hemi_cpu_name(), "threads", (json_int_t)b->threads,
                          "repeat", (json_int_t)b->repeat);
    for (size_t i = 0; i < STEPS; i++) json_object_set_new(j, step_names[i], json_real(b->medians[i]));
    json_t *more =
        json_pack("{s:f,s:f,s:f,s:f,s:f,s:f}", "server_cpu_ms", b->medians[SERVER_CPU], "server_cpu_ms_min",
                  b->times[SERVER_CPU][0], "server_ms_min", b->server_ms_min, "prepare_row_ms",
                  b->medians[PREPARE] / (double)b->slots, "cpu_ms", b->cpu_ms, "online_cpu_ms", b->online_cpu_ms);
    json_t *sizes = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "upload_bytes", (json_int_t)b->request_bytes,
                              "download_bytes", (json_int_t)b->reply_bytes, "prepare_upload_bytes",
                              (json_int_t)b->announce_bytes, "prepare_download_bytes", (json_int_t)b->prepare_bytes,
                              "server_state_bytes", (json_int_t)b->state_bytes, "server_weight_bytes",
                              (json_int_t)hemi_batch_bytes(hemi_evaluator_batch(b->evaluator)));
    json_t *errors =
        json_pack("{s:f,s:f,s:f,s:I,s:I}", "error_std_over_max", cli_errors_std(&b->errors) / scale,
                  "error_max_over_max", b->errors.largest / scale, "predicted_error", b->info.predicted_error / scale,
                  "outputs_checked", (json_int_t)b->errors.outputs, "outputs_wrong", (json_int_t)b->errors.wrong);
    json_object_update_missing(j, more);
    json_object_update_missing(j, sizes);
    json_object_update_missing(j, errors);
    json_decref(more);
    cli_plain_json(j, &b->plain, b->has_plain);
    json_decref(sizes);
    json_decref(errors);
    return j;
}

static void print_table(const bench *b) {
    char up[24], down[24], first[24], state[24], by[64];
    const double scale = cli_errors_scale(&b->errors), *t = b->medians, slots = (double)b->slots;
    printf("prepared %ld -> %ld, batches of %ld rows, set %s\n", b->inputs, b->outputs, b->slots, HEMI_BATCH_SET);
    cli_line("processor", "%s, kernel %s, %ld thread%s", hemi_cpu_name(), hemi_kernels_default()->name, b->threads,
             b->threads == 1 ? "" : "s");
    cli_line("server", "%.4f ms a row (median of %ld; least %.4f)", t[SERVER], b->repeat * b->slots, b->server_ms_min);
    if (b->has_plain)
        cli_line("plain", "%.4f ms: float32 with %s; server takes %.2f times that", b->plain.ms,
                 cli_plain_by(by, &b->plain), t[SERVER_CPU] / b->plain.ms);
    cli_line("client", "encrypt %.4f, decrypt %.4f ms a row", t[ENCRYPT], t[DECRYPT]);
    cli_line("preparing", "%.1f ms a batch, %.4f a row; client %.1f + %.1f ms a batch", t[PREPARE], t[PREPARE] / slots,
             t[PADS], t[MASKS]);
    cli_line("processor time", "%.4f ms a row, client and server, preparing included; %.4f without", b->cpu_ms,
             b->online_cpu_ms);
    cli_line("bytes", "up %s, down %s; a batch: down %s, kept by the server %s", cli_bytes(up, b->request_bytes),
             cli_bytes(down, b->reply_bytes), cli_bytes(first, b->prepare_bytes), cli_bytes(state, b->state_bytes));
    cli_line("error", "2^%.1f of the largest output (predicted for calls of one row 2^%.1f), %zu outputs checked",
             log2(cli_errors_std(&b->errors) / scale), log2(b->info.predicted_error / scale), b->errors.outputs);
}

static int report(bench *b) {
    int code = 0;
    if (b->json)
        code = cli_print_json(to_json(b));
    else
        print_table(b);
    const int wrong = cli_errors_code(&b->errors, "bench prepared");
    return wrong ? wrong : code;
}

int bench_prepared(int argc, char **argv) {
    bench b = {.threads = 1, .weight_bits = 8, .slots = 256, .repeat = REPEAT, .random = {1}};
    const cli_option options[] = {
        {"inputs", 'd', "D", CLI_INT, &b.inputs, 1, HEMI_BATCH_INPUTS_MAX, "features of a row"},
        {"outputs", 'm', "M", CLI_INT, &b.outputs, 1, 65536, "outputs of a row"},
        {"slots", 's', "N", CLI_INT, &b.slots, 1, HEMI_BATCH_SLOTS_MAX, "rows of a batch (default 256)"},
        {"n-bits", 0, "B", CLI_INT, &b.weight_bits, 2, 16, "bits of a weight (default 8)"},
        {"threads", 't', "T", CLI_INT, &b.threads, 0, 1024, "threads for one product (default 1; 0: all)"},
        {"kernel", 'k', "NAME", CLI_TEXT, &b.kernel, 0, 0, "portable, avx2 or avx512 (default: the best here)"},
        {"repeat", 'n', "N", CLI_INT, &b.repeat, 1, 10000, "batches (default 5); each has all its rows called"},
        {0}};
    const cli_command command = {
        .name = "bench prepared",
        .summary = "Measures calls that were prepared: a batch of rows is announced, then each row is one call. Checks "
                   "every result.",
        .detail = "server: from the bytes of one row's request to the bytes of its reply. preparing: from the "
                  "announcement to its reply, on the\n"
                  "server, once per batch. processor time: of client and server together, what was prepared shared out "
                  "over the rows. Exits\n"
                  "with 20 when a result is wrong.",
        .options = options,
        .example = "  hemi bench prepared --inputs 768 --outputs 768\n"
                   "  hemi bench prepared --inputs 4096 --outputs 4096 --slots 64 --kernel avx2 --json",
        .json = &b.json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (b.inputs == 0 || b.outputs == 0) {
        fprintf(stderr, "hemi bench prepared: --inputs and --outputs are needed\n");
        return CLI_EXIT_USAGE;
    }
    hemi_error err = {0};
    hemi_status status = cli_choose_kernel(b.kernel, &err);
    if (status == HEMI_OK) status = run(&b, &err);
    int code = status == HEMI_OK ? report(&b) : cli_fail("bench prepared", b.json, status, &err);
    release(&b);
    return code;
}
