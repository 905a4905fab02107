/* hemi bench rows: many rows in one request, in each form that there is for them. */
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

#define REPEAT_MAX 100
#define BUDGET_MS  6000.0 /* of each form, when --repeat does not say */

enum { CLIENT_BEFORE, SERVER, CLIENT_AFTER, SERVER_CPU, ALL_CPU, STEPS };

/* What is measured of a form: medians of whole requests. */
typedef struct form_result {
    bool possible;
    double ms[STEPS], server_ms_min;
    size_t upload_bytes, download_bytes, repeat;
} form_result;

typedef struct bench {
    long inputs, outputs, rows, threads, repeat, weight_bits;
    const char *kernel;
    bool json;

    hemi_module *module;
    hemi_module_info info;
    hemi_evaluator *evaluator;
    hemi_keys *keys;
    hemi_server_keys *own_keys, *batch_keys; /* of the module's set, and of that for batches */
    hemi_prepared *prepared;
    cli_random random;
    float *x, *expected, *y;
    double *factor, *b0;
    cli_plain plain;
    bool has_plain;
    cli_errors errors;
} bench;

/* ---- forms: one request each, its three times and its bytes */

/* As hemi_encrypt makes it: the rows in ciphertexts of the module's own layout. */
static hemi_status by_ciphertexts(bench *b, double ms[STEPS], form_result *f, hemi_error *err) {
    const hemi_evaluator *evaluator = b->evaluator;
    hemi_pending *pending = NULL;
    uint8_t *request = NULL, *reply = NULL;
    const double t0 = hemi_now_ms();
    HEMI_TRY(hemi_encrypt(b->module, b->keys, b->x, (size_t)b->rows, &pending, &request, &f->upload_bytes, err));
    const double cpu = cli_process_cpu_ms(), t1 = hemi_now_ms();
    hemi_status status = hemi_evaluate(&evaluator, 1, b->own_keys, request, f->upload_bytes, (int)b->threads, &reply,
                                       &f->download_bytes, err);
    const double t2 = hemi_now_ms();
    ms[SERVER_CPU] = cli_process_cpu_ms() - cpu;
    if (status == HEMI_OK) status = hemi_decrypt(b->module, b->keys, pending, reply, f->download_bytes, b->y, err);
    ms[CLIENT_BEFORE] = t1 - t0;
    ms[SERVER] = t2 - t1;
    ms[CLIENT_AFTER] = hemi_now_ms() - t2;
    hemi_pending_free(pending);
    hemi_bytes_release(request);
    hemi_bytes_free(reply);
    return status;
}

/* A whole batch: second components and rows in one reply. */
static hemi_status exchange_batch(bench *b, hemi_lot *lot, double ms[STEPS], form_result *f, hemi_error *err) {
    const hemi_evaluator *evaluator = b->evaluator;
    const uint32_t rows = (uint32_t)b->rows;
    uint8_t *request = NULL, *reply = NULL;
    size_t offset[1];
    double start = hemi_now_ms();
    HEMI_TRY(hemi_lot_header(lot, rows, &request, &f->upload_bytes, err));
    hemi_status status = hemi_lot_encrypt(lot, b->module, 0, b->x, rows, false, b->factor,
                                          request + hemi_batch_rows_offset(&lot->request), err);
    ms[CLIENT_BEFORE] += hemi_now_ms() - start;
    const double cpu = cli_process_cpu_ms();
    start = hemi_now_ms();
    if (status == HEMI_OK)
        status = hemi_batches_answer(b->prepared, NULL, &evaluator, 1, b->batch_keys, request, f->upload_bytes,
                                     (int)b->threads, NULL, &reply, &f->download_bytes, err);
    ms[SERVER] = hemi_now_ms() - start;
    ms[SERVER_CPU] = cli_process_cpu_ms() - cpu;
    start = hemi_now_ms();
    if (status == HEMI_OK) status = hemi_lot_accept(lot, b->keys, reply, f->download_bytes, rows, offset, err);
    if (status == HEMI_OK)
        status = hemi_lot_decrypt(lot, b->module, 0, 0, reply + offset[0], rows, false, b->factor, b->b0, b->y, err);
    ms[CLIENT_AFTER] = hemi_now_ms() - start;
    hemi_free(request);
    hemi_bytes_free(reply);
    return status;
}

static hemi_status by_batch(bench *b, double ms[STEPS], form_result *f, hemi_error *err) {
    const hemi_module *module = b->module;
    hemi_lot *lot = NULL;
    const double start = hemi_now_ms();
    HEMI_TRY(hemi_lot_new(&lot, b->keys, &module, 1, (uint32_t)b->rows, err));
    ms[CLIENT_BEFORE] = hemi_now_ms() - start;
    const hemi_status status = exchange_batch(b, lot, ms, f, err);
    hemi_lot_free(lot);
    return status;
}

static bool has_batches(const bench *b) {
    const hemi_module *module = b->module;
    return b->rows <= HEMI_BATCH_SLOTS_MAX && hemi_lot_possible(&module, 1) && hemi_evaluator_batch(b->evaluator);
}
static bool always(const bench *b) {
    (void)b;
    return true;
}

static const struct {
    const char *name;
    bool (*possible)(const bench *);
    hemi_status (*run)(bench *, double ms[STEPS], form_result *, hemi_error *);
} forms[] = {{"ciphertexts", always, by_ciphertexts}, {"batch", has_batches, by_batch}};
#define FORMS (sizeof forms / sizeof *forms)

static hemi_status measure(bench *b, size_t which, form_result *f, hemi_error *err) {
    double times[STEPS][REPEAT_MAX];
    const double begin = hemi_now_ms();
    f->possible = forms[which].possible(b);
    for (long i = 0; f->possible && i < REPEAT_MAX; i++) {
        if (b->repeat > 0 ? i == b->repeat : i >= 3 && hemi_now_ms() - begin > BUDGET_MS) break;
        double ms[STEPS] = {0};
        hemi_progress_bar(stderr, forms[which].name, (size_t)i, b->repeat > 0 ? (size_t)b->repeat : REPEAT_MAX);
        const double cpu = cli_process_cpu_ms();
        HEMI_TRY(forms[which].run(b, ms, f, err));
        ms[ALL_CPU] = cli_process_cpu_ms() - cpu;
        for (size_t s = 0; s < STEPS; s++) times[s][i] = ms[s];
        cli_errors_add(&b->errors, b->y, b->expected, (size_t)b->rows, (size_t)b->outputs, b->info.predicted_error);
        f->repeat = (size_t)i + 1;
    }
    for (size_t s = 0; s < STEPS; s++) f->ms[s] = cli_median(times[s], f->repeat);
    f->server_ms_min = f->repeat > 0 ? times[SERVER][0] : 0; /* sorted by now */
    return HEMI_OK;
}

/* ---- the whole */

static hemi_status make_keys(bench *b, hemi_error *err) {
    const hemi_module *module = b->module;
    uint8_t *bytes;
    size_t length;
    HEMI_TRY(hemi_keys_new(&b->keys, NULL, err));
    HEMI_TRY(hemi_keys_evaluation(b->keys, &module, 1, &bytes, &length, err));
    hemi_status status = hemi_server_keys_new(&b->own_keys, bytes, length, err);
    hemi_bytes_release(bytes);
    HEMI_TRY(status);
    HEMI_TRY(hemi_keys_public(b->keys, hemi_params_by_name(HEMI_BATCH_SET), &bytes, &length, err));
    status = hemi_server_keys_new(&b->batch_keys, bytes, length, err);
    hemi_bytes_release(bytes);
    return status;
}

static hemi_status run(bench *b, form_result results[FORMS], hemi_error *err) {
    const size_t r = (size_t)b->rows, d = (size_t)b->inputs, m = (size_t)b->outputs;
    const hemi_prepared_limits limits = {.bytes = 1, .key_bytes = 1, .key_batches = 1, .expiry_ms = 1e12};
    const hemi_compile_options options = {.weight_bits = (int)b->weight_bits};
    b->x = hemi_alloc(r * d, sizeof *b->x);
    b->y = hemi_alloc(r * m, sizeof *b->y);
    b->expected = hemi_alloc(r * m, sizeof *b->expected);
    b->factor = hemi_alloc(r, sizeof *b->factor);
    b->b0 = hemi_alloc(m, sizeof *b->b0);
    b->prepared = hemi_prepared_new(&limits);
    if (!b->x || !b->y || !b->expected || !b->factor || !b->b0 || !b->prepared)
        return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    cli_random_rows(&b->random, b->x, r, d);
    HEMI_TRY(cli_random_module(&b->module, &b->random, (uint32_t)d, (uint32_t)m, b->x, r, options, err));
    hemi_module_get_info(b->module, &b->info);
    HEMI_TRY(hemi_evaluator_new(&b->evaluator, b->module, (int)b->threads, err));
    HEMI_TRY(make_keys(b, err));
    HEMI_TRY(hemi_module_run_clear(b->module, b->x, r, b->expected, false, err));
    for (size_t i = 0; i < FORMS; i++) HEMI_TRY(measure(b, i, &results[i], err));
    b->has_plain = cli_plain_linear(&b->plain, d, m, r);
    return HEMI_OK;
}

static void release(bench *b) {
    hemi_prepared_free(b->prepared);
    hemi_server_keys_free(b->own_keys);
    hemi_server_keys_free(b->batch_keys);
    hemi_keys_free(b->keys);
    hemi_evaluator_free(b->evaluator);
    hemi_module_free(b->module);
    hemi_free(b->x);
    hemi_free(b->y);
    hemi_free(b->expected);
    hemi_free(b->factor);
    hemi_free(b->b0);
}

/* ---- the report */

/* By the time of the server. */
static size_t best_of(const form_result *results) {
    size_t best = 0;
    for (size_t i = 1; i < FORMS; i++)
        if (results[i].possible && results[i].ms[SERVER] < results[best].ms[SERVER]) best = i;
    return best;
}

static json_t *to_json(const bench *b, const form_result *results) {
    const double rows = (double)b->rows, scale = cli_errors_scale(&b->errors);
    const size_t best = best_of(results);
    json_t *list = json_object();
    for (size_t i = 0; i < FORMS; i++) {
        const form_result *f = &results[i];
        if (!f->possible) continue;
        json_t *one = json_pack(
            "{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:I,s:I}", "server_row_ms_min", f->server_ms_min / rows, "cpu_row_ms",
            f->ms[ALL_CPU] / rows, "server_cpu_ms", f->ms[SERVER_CPU], "server_row_cpu_ms", f->ms[SERVER_CPU] / rows,
            "server_ms", f->ms[SERVER], "server_row_ms", f->ms[SERVER] / rows, "encrypt_ms", f->ms[CLIENT_BEFORE],
            "decrypt_ms", f->ms[CLIENT_AFTER], "upload_bytes", (json_int_t)f->upload_bytes, "download_bytes",
            (json_int_t)f->download_bytes, "repeat", (json_int_t)f->repeat);
        json_object_set_new(list, forms[i].name, one);
    }
    json_t *j = json_pack("{s:I,s:I,s:I,s:s,s:s,s:I,s:s,s:f,s:f,s:f,s:f,s:I,s:I,s:o}", "inputs", (json_int_t)b->inputs,
                          "outputs", (json_int_t)b->outputs, "rows", (json_int_t)b->rows, "kernel",
                          hemi_kernels_default()->name, "cpu", hemi_cpu_name(), "threads", (json_int_t)b->threads,
                          "best", forms[best].name, "server_ms", results[best].ms[SERVER], "server_row_ms",
                          results[best].ms[SERVER] / rows, "error_std_over_max", cli_errors_std(&b->errors) / scale,
                          "predicted_error", b->info.predicted_error / scale, "outputs_checked",
                          (json_int_t)b->errors.outputs, "outputs_wrong", (json_int_t)b->errors.wrong, "forms", list);
    cli_plain_json(j, &b->plain, b->has_plain);
    return j;
}

static void print_table(const bench *b, const form_result *results) {
    static const char *const headings[] = {"form",           "server ms/row", "least",  "cpu",     "encrypt ms/row",
                                           "decrypt ms/row", "all told, ms",  "up/row", "down/row"};
    const double rows = (double)b->rows, scale = cli_errors_scale(&b->errors);
    cli_table table;
    char bytes[24], by[64];
    printf("rows %ld -> %ld, %ld rows in one request\n", b->inputs, b->outputs, b->rows);
    cli_line("processor", "%s, kernel %s, %ld thread%s", hemi_cpu_name(), hemi_kernels_default()->name, b->threads,
             b->threads == 1 ? "" : "s");
    cli_table_start(&table, sizeof headings / sizeof *headings, headings);
    for (size_t i = 0; i < FORMS; i++) {
        const form_result *f = &results[i];
        if (!f->possible) continue;
        cli_table_cell(&table, "%s", forms[i].name);
        cli_table_cell(&table, "%.4f", f->ms[SERVER] / rows);
        cli_table_cell(&table, "%.4f", f->server_ms_min / rows);
        cli_table_cell(&table, "%.4f", f->ms[SERVER_CPU] / rows);
        cli_table_cell(&table, "%.4f", f->ms[CLIENT_BEFORE] / rows);
        cli_table_cell(&table, "%.4f", f->ms[CLIENT_AFTER] / rows);
        cli_table_cell(&table, "%.1f", f->ms[SERVER] + f->ms[CLIENT_BEFORE] + f->ms[CLIENT_AFTER]);
        cli_table_cell(&table, "%s", cli_bytes(bytes, f->upload_bytes / (size_t)b->rows));
        cli_table_cell(&table, "%s", cli_bytes(bytes, f->download_bytes / (size_t)b->rows));
    }
    cli_table_print(&table);
    if (b->has_plain)
        cli_line("plain", "%.4f ms/row: float32 with %s, one thread", b->plain.ms / rows, cli_plain_by(by, &b->plain));
    cli_line("error", "2^%.1f of the largest output (predicted 2^%.1f), %zu outputs checked",
             log2(cli_errors_std(&b->errors) / scale), log2(b->info.predicted_error / scale), b->errors.outputs);
}

static int report(const bench *b, const form_result *results) {
    int code = 0;
    if (b->json)
        code = cli_print_json(to_json(b, results));
    else
        print_table(b, results);
    const int wrong = cli_errors_code(&b->errors, "bench rows");
    return wrong ? wrong : code;
}

int bench_rows(int argc, char **argv) {
    bench b = {.threads = 1, .weight_bits = 8, .rows = 1024, .random = {1}};
    form_result results[FORMS] = {0};
    const cli_option options[] = {
        {"inputs", 'd', "D", CLI_INT, &b.inputs, 1, HEMI_BATCH_INPUTS_MAX, "features of a row"},
        {"outputs", 'm', "M", CLI_INT, &b.outputs, 1, 65536, "outputs of a row"},
        {"rows", 'r', "R", CLI_INT, &b.rows, 1, 4096, "rows of the request (default 1024; a batch has at most 2048)"},
        {"n-bits", 0, "B", CLI_INT, &b.weight_bits, 2, 16, "bits of a weight (default 8)"},
        {"threads", 't', "T", CLI_INT, &b.threads, 0, 1024, "threads for one request (default 1; 0: all)"},
        {"kernel", 'k', "NAME", CLI_TEXT, &b.kernel, 0, 0, "portable, avx2 or avx512 (default: the best here)"},
        {"repeat", 'n', "N", CLI_INT, &b.repeat, 1, REPEAT_MAX, "requests in each form (default: about 6 s of them)"},
        {0}};
    const cli_command command = {
        .name = "bench rows",
        .summary = "Measures one request with many rows, in each form that there is for them, and checks every result.",
        .detail =
            "ciphertexts: the rows in ciphertexts of the module's layout. batch: one integer product for all rows; its "
            "reply begins with\n"
            "second components that do not depend on the number of rows. Exits with 20 when a result is wrong.",
        .options = options,
        .example = "  hemi bench rows --inputs 768 --outputs 768 --rows 1024\n"
                   "  hemi bench rows --inputs 768 --outputs 768 --rows 64 --kernel avx2 --json",
        .json = &b.json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (b.inputs == 0 || b.outputs == 0) {
        fprintf(stderr, "hemi bench rows: --inputs and --outputs are needed\n");
        return CLI_EXIT_USAGE;
    }
    hemi_error err = {0};
    hemi_status status = cli_choose_kernel(b.kernel, &err);
    if (status == HEMI_OK) status = run(&b, results, &err);
    int code = status == HEMI_OK ? report(&b, results) : cli_fail("bench rows", b.json, status, &err);
    release(&b);
    return code;
}
