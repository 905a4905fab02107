/* hemi bench linear: one encrypted matrix product, from request bytes to reply bytes, and everything around it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/bench_common.h"
#include "cli/blas.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "hemi/client.h"
#include "hemi/server.h"
#include "ring/kernels.h"

#define REPEAT_MIN    15
#define REPEAT_MAX    1000
#define REPEAT_BUDGET 1500.0 /* ms of server time, when --repeat does not say */
#define WARM_UPS      3
#define LOADS         3
#define BATCH         16 /* calls, but fewer where they have many rows: */
#define BATCH_ROWS    512

typedef struct bench {
    long inputs, outputs, rows, layout, threads, repeat, keys_count, weight_bits;
    const char *set, *kernel, *memory;
    bool json;

    hemi_module *module; /* with weights */
    hemi_module_info info;
    hemi_evaluator *evaluator;
    float *x, *y, *expected;
    cli_random random;

    double keygen_ms, load_ms, key_load_ms, encrypt_ms, server_ms, server_ms_min, decrypt_ms, plain_ms;
    bool has_plain;
    size_t upload_bytes, download_bytes, evaluation_key_bytes, server_key_bytes;
    cli_errors errors; /* over all replies */
    double *times[3]; /* encrypt, evaluate, decrypt */
} bench;

/* ---- the module */

static hemi_status make_module(bench *b, hemi_module **out, hemi_error *err) {
    const hemi_compile_options options = {
        .weight_bits = (int)b->weight_bits, .layout = (uint32_t)b->layout, .set = b->set};
    cli_random_rows(&b->random, b->x, (size_t)b->rows, (size_t)b->inputs);
    return cli_random_module(out, &b->random, (uint32_t)b->inputs, (uint32_t)b->outputs, b->x, (size_t)b->rows, options,
                             err);
}

static void remove_files(const char *folder) {
    static const char *const names[] = {"server.zip", "client.zip"};
    for (size_t i = 0; i < 2; i++) {
        char *path = hemi_path_join(folder, names[i]);
        if (path) unlink(path);
        hemi_free(path);
    }
    rmdir(folder);
}

/* As a server does at start: reads server.zip, transforms the plaintexts. */
static hemi_status load(bench *b, const char *folder, hemi_error *err) {
    double times[LOADS];
    for (int i = 0; i < LOADS; i++) {
        hemi_evaluator_free(b->evaluator);
        hemi_module_free(b->module);
        b->evaluator = NULL;
        b->module = NULL;
        double start = hemi_now_ms();
        HEMI_TRY(hemi_module_open(&b->module, folder, true, err));
        const hemi_evaluator_options options = {.threads = (int)b->threads, .small_memory = strcmp(b->memory, "small") == 0};
        HEMI_TRY(hemi_evaluator_new_with(&b->evaluator, b->module, &options, err));
        times[i] = hemi_now_ms() - start;
    }
    b->load_ms = cli_median(times, LOADS);
    hemi_module_get_info(b->module, &b->info);
    return HEMI_OK;
}

static hemi_status prepare(bench *b, hemi_error *err) {
    hemi_module *made = NULL;
    HEMI_TRY(make_module(b, &made, err));
    const char *parent = getenv("TMPDIR");
    char folder[512];
    snprintf(folder, sizeof folder, "%.400s/hemi-bench-XXXXXX", parent && parent[0] ? parent : "/tmp");
    hemi_status status = mkdtemp(folder) ? hemi_module_save(made, folder, err)
                                         : hemi_fail(err, HEMI_ERR_IO, "no temporary folder can be made as %s", folder);
    hemi_module_free(made);
    if (status == HEMI_OK) status = load(b, folder, err);
    remove_files(folder);
    return status;
}

/* ---- calls */

/* Calls are made in batches, as a server sees them: all requests, then all replies, then all results. */
typedef struct exchange {
    hemi_pending *pending;
    uint8_t *request, *reply;
    size_t request_bytes, reply_bytes;
} exchange;

static hemi_status call_each(bench *b, hemi_keys *keys, const hemi_server_keys *server_keys, exchange *e, size_t count,
                             double *const times[3], hemi_error *err) {
    for (size_t i = 0; i < count; i++) {
        double start = hemi_now_ms();
        HEMI_TRY(hemi_encrypt(b->module, keys, b->x, (size_t)b->rows, &e[i].pending, &e[i].request, &e[i].request_bytes,
                              err));
        times[0][i] = hemi_now_ms() - start;
    }
    const hemi_evaluator *evaluator = b->evaluator;
    for (size_t i = 0; i < count; i++) {
        double start = hemi_now_ms();
        HEMI_TRY(hemi_evaluate(&evaluator, 1, server_keys, e[i].request, e[i].request_bytes, (int)b->threads,
                               &e[i].reply, &e[i].reply_bytes, err));
        times[1][i] = hemi_now_ms() - start;
    }
    for (size_t i = 0; i < count; i++) {
        double start = hemi_now_ms();
        HEMI_TRY(hemi_decrypt(b->module, keys, e[i].pending, e[i].reply, e[i].reply_bytes, b->y, err));
        times[2][i] = hemi_now_ms() - start;
        cli_errors_add(&b->errors, b->y, b->expected, (size_t)b->rows, (size_t)b->outputs, b->info.predicted_error);
    }
    b->upload_bytes = e[0].request_bytes;
    b->download_bytes = e[0].reply_bytes;
    return HEMI_OK;
}

/* count calls; their times go to times[0 (encrypt), 1 (evaluate), 2 (decrypt)][first ...]. */
static hemi_status call(bench *b, hemi_keys *keys, const hemi_server_keys *server_keys, size_t first, size_t count,
                        hemi_error *err) {
    hemi_status status = HEMI_OK;
    size_t batch = (size_t)b->rows < BATCH_ROWS / BATCH ? BATCH
                   : (size_t)b->rows < BATCH_ROWS       ? BATCH_ROWS / (size_t)b->rows
                                                        : 1;
    for (size_t done = 0; done < count && status == HEMI_OK;) {
        exchange e[BATCH] = {0};
        size_t part = count - done < batch ? count - done : batch;
        double *const times[3] = {b->times[0] + first + done, b->times[1] + first + done, b->times[2] + first + done};
        status = call_each(b, keys, server_keys, e, part, times, err);
        for (size_t i = 0; i < part; i++) {
            hemi_bytes_release(e[i].request);
            hemi_bytes_free(e[i].reply);
            hemi_pending_free(e[i].pending);
        }
        done += part;
    }
    return status;
}

/* How many timed calls: as told, or as many as fit the budget, by the time of the last warm-up. */
static size_t repetitions(const bench *b, double one_ms) {
    if (b->repeat > 0) return (size_t)b->repeat;
    double fit = REPEAT_BUDGET / fmax(one_ms, 1e-3);
    return fit < REPEAT_MIN ? REPEAT_MIN : fit > REPEAT_MAX ? REPEAT_MAX : (size_t)fit;
}

static hemi_status measure(bench *b, hemi_keys *keys, const hemi_server_keys *server_keys, hemi_error *err) {
    HEMI_TRY(call(b, keys, server_keys, 0, WARM_UPS, err));
    size_t count = repetitions(b, b->times[1][WARM_UPS - 1]);
    HEMI_TRY(call(b, keys, server_keys, 0, count, err));
    b->repeat = (long)count;
    b->encrypt_ms = cli_median(b->times[0], count);
    b->server_ms = cli_median(b->times[1], count);
    b->server_ms_min = b->times[1][0]; /* sorted by now */
    b->decrypt_ms = cli_median(b->times[2], count);
    return HEMI_OK;
}

/* A client of its own: new keys, new inputs, one checked call; the last one is measured as well. */
static hemi_status with_new_keys(bench *b, double *keygen_ms, double *key_load_ms, bool last, hemi_error *err) {
    hemi_keys *keys = NULL;
    hemi_server_keys *server_keys = NULL;
    uint8_t *bytes = NULL;
    const hemi_module *module = b->module;
    cli_random_rows(&b->random, b->x, (size_t)b->rows, (size_t)b->inputs);
    HEMI_TRY(hemi_module_run_clear(b->module, b->x, (size_t)b->rows, b->expected, false, err));
    double t0 = hemi_now_ms();
    hemi_status status = hemi_keys_new(&keys, NULL, err);
    if (status == HEMI_OK) status = hemi_keys_evaluation(keys, &module, 1, &bytes, &b->evaluation_key_bytes, err);
    double t1 = hemi_now_ms();
    if (status == HEMI_OK) status = hemi_server_keys_new(&server_keys, bytes, b->evaluation_key_bytes, err);
    double t2 = hemi_now_ms();
    *keygen_ms = t1 - t0;
    *key_load_ms = t2 - t1;
    if (status == HEMI_OK) b->server_key_bytes = hemi_server_keys_bytes(server_keys);
    if (status == HEMI_OK) status = call(b, keys, server_keys, 0, 1, err);
    if (status == HEMI_OK && last) status = measure(b, keys, server_keys, err);
    hemi_bytes_release(bytes);
    hemi_server_keys_free(server_keys);
    hemi_keys_free(keys);
    return status;
}

static hemi_status run(bench *b, hemi_error *err) {
    size_t d = (size_t)b->inputs, m = (size_t)b->outputs, r = (size_t)b->rows, keys = (size_t)b->keys_count;
    size_t samples = b->repeat > REPEAT_MAX ? (size_t)b->repeat : REPEAT_MAX;
    double *keygen = hemi_alloc(keys, sizeof *keygen), *key_load = hemi_alloc(keys, sizeof *key_load);
    b->x = hemi_alloc(r * d, sizeof *b->x);
    b->y = hemi_alloc(r * m, sizeof *b->y);
    b->expected = hemi_alloc(r * m, sizeof *b->expected);
    for (size_t i = 0; i < 3; i++) b->times[i] = hemi_alloc(samples, sizeof **b->times);
    bool enough = keygen && key_load && b->x && b->y && b->expected && b->times[0] && b->times[1] && b->times[2];
    hemi_status status = enough ? prepare(b, err) : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < keys && status == HEMI_OK; i++) {
        hemi_progress_bar(stderr, "keys and calls", i, keys);
        status = with_new_keys(b, &keygen[i], &key_load[i], i + 1 == keys, err);
    }
    if (status == HEMI_OK) {
        hemi_progress_bar(stderr, "keys and calls", keys, keys);
        b->keygen_ms = cli_median(keygen, keys);
        b->key_load_ms = cli_median(key_load, keys);
        b->has_plain = cli_blas_product_ms(&b->plain_ms, d, m, r);
    }
    hemi_free(keygen);
    hemi_free(key_load);
    return status;
}

static void release(bench *b) {
    for (size_t i = 0; i < 3; i++) hemi_free(b->times[i]);
    hemi_free(b->x);
    hemi_free(b->y);
    hemi_free(b->expected);
    hemi_evaluator_free(b->evaluator);
    hemi_module_free(b->module);
}

/* ---- the report */

static json_t *to_json(const bench *b) {
    double largest = cli_errors_scale(&b->errors);
    json_t *j = json_pack("{s:I,s:I,s:I,s:s,s:I,s:I,s:s,s:s,s:I,s:I,s:I}", "inputs", (json_int_t)b->inputs, "outputs",
                          (json_int_t)b->outputs, "rows", (json_int_t)b->rows, "set", b->info.params->name, "layout",
                          (json_int_t)b->info.layout, "products", (json_int_t)b->info.products, "kernel",
                          hemi_kernels_default()->name, "cpu", hemi_cpu_name(), "threads", (json_int_t)b->threads,
                          "repeat", (json_int_t)b->repeat, "keys_count", (json_int_t)b->keys_count);
    json_t *times = json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:o}", "server_ms", b->server_ms, "server_ms_min",
                              b->server_ms_min, "encrypt_ms", b->encrypt_ms, "decrypt_ms", b->decrypt_ms, "keygen_ms",
                              b->keygen_ms, "key_load_ms", b->key_load_ms, "load_ms", b->load_ms, "plain_ms",
                              b->has_plain ? json_real(b->plain_ms) : json_null());
    json_t *sizes =
        json_pack("{s:I,s:I,s:I,s:I,s:I}", "upload_bytes", (json_int_t)b->upload_bytes, "download_bytes",
                  (json_int_t)b->download_bytes, "evaluation_key_bytes", (json_int_t)b->evaluation_key_bytes,
                  "server_weight_bytes", (json_int_t)hemi_evaluator_bytes(b->evaluator), "server_key_bytes",
                  (json_int_t)b->server_key_bytes);
    json_t *errors = json_pack("{s:f,s:f,s:f,s:I,s:I,s:f}", "error_std_over_max", cli_errors_std(&b->errors) / largest,
                               "error_max_over_max", b->errors.largest / largest, "predicted_error",
                               b->info.predicted_error / largest, "outputs_checked", (json_int_t)b->errors.outputs,
                               "outputs_wrong", (json_int_t)b->errors.wrong, "security_bits", b->info.params->security_bits);
    json_object_update_missing(j, times);
    json_object_update_missing(j, sizes);
    json_object_update_missing(j, errors);
    json_decref(times);
    json_decref(sizes);
    json_decref(errors);
    return j;
}

static void print_table(const bench *b) {
    char up[24], down[24], keys[24], weights[24];
    double largest = cli_errors_scale(&b->errors);
    printf("linear %ld -> %ld, %ld row%s, set %s, layout %u, %u products\n", b->inputs, b->outputs, b->rows,
           b->rows == 1 ? "" : "s", b->info.params->name, b->info.layout, b->info.products);
    cli_line("processor", "%s, kernel %s, %ld thread%s", hemi_cpu_name(), hemi_kernels_default()->name, b->threads,
             b->threads == 1 ? "" : "s");
    cli_line("server", "%.3f ms (median of %ld; least %.3f)", b->server_ms, b->repeat, b->server_ms_min);
    if (b->has_plain) cli_line("plain", "%.4f ms (the same product in float32, OpenBLAS, one thread)", b->plain_ms);
    cli_line("client", "encrypt %.3f ms, decrypt %.3f ms", b->encrypt_ms, b->decrypt_ms);
    cli_line("once", "make keys %.1f ms, load keys %.1f ms, load module %.1f ms", b->keygen_ms, b->key_load_ms,
             b->load_ms);
    cli_line("bytes", "up %s, down %s, evaluation keys %s", cli_bytes(up, b->upload_bytes),
             cli_bytes(down, b->download_bytes), cli_bytes(keys, b->evaluation_key_bytes));
    cli_line("server memory", "%s for the module", cli_bytes(weights, hemi_evaluator_bytes(b->evaluator)));
    cli_line("error", "2^%.2f of the largest output (predicted 2^%.2f), %zu outputs under %ld keys",
             log2(cli_errors_std(&b->errors) / largest), log2(b->info.predicted_error / largest), b->errors.outputs, b->keys_count);
    cli_line("security", "%.1f bits", b->info.params->security_bits);
}

static int report(bench *b) {
    int code = 0;
    if (b->json)
        code = cli_print_json(to_json(b));
    else
        print_table(b);
    const int wrong = cli_errors_code(&b->errors, "bench linear");
    return wrong ? wrong : code;
}

int bench_linear(int argc, char **argv) {
    bench b = {.rows = 1, .threads = 1, .keys_count = 10, .weight_bits = 8, .memory = "fast", .random = {1}};
    const cli_option options[] = {
        {"inputs", 'd', "D", CLI_INT, &b.inputs, 1, 65536, "features of a row"},
        {"outputs", 'm', "M", CLI_INT, &b.outputs, 1, 65536, "outputs of a row"},
        {"rows", 'r', "R", CLI_INT, &b.rows, 1, 4096, "rows in one request (default 1)"},
        {"layout", 0, "S", CLI_INT, &b.layout, 0, 65536,
         "layout S, a power of two; 0 (default): the compiler's choice"},
        {"set", 0, "NAME", CLI_TEXT, &b.set, 0, 0, "parameter set"},
        {"weight-bits", 0, "B", CLI_INT, &b.weight_bits, 2, 16, "bits of a weight (default 8)"},
        {"threads", 't', "T", CLI_INT, &b.threads, 0, 1024, "threads for one product (default 1; 0: all)"},
        {"memory", 0, "WAY", CLI_TEXT, &b.memory, 0, 0, "fast (default) or small: how a server holds weights (hemi serve --help)"},
        {"kernel", 'k', "NAME", CLI_TEXT, &b.kernel, 0, 0, "portable, avx2 or avx512 (default: the best here)"},
        {"repeat", 'n', "N", CLI_INT, &b.repeat, REPEAT_MIN, 1000000,
         "timed calls (default: about 1.5 s of them, 15 to 1000)"},
        {"keys-count", 0, "N", CLI_INT, &b.keys_count, 1, 100000, "keys over which the error is measured (default 10)"},
        {0}};
    const cli_command command = {
        .name = "bench linear",
        .summary = "Measures one encrypted matrix product on this machine, and checks every result of it.",
        .detail = "server: from the bytes of the request to the bytes of the reply. error: of the decrypted reply "
                  "against the product of the\n"
                  "quantised values, Gaussian weights and uniform 8-bit inputs, as a standard deviation over a row's "
                  "largest output\n"
                  "(mean over rows). predicted_error is in the same unit. Exits with 20 when a result is wrong.",
        .options = options,
        .example = "  hemi bench linear --inputs 768 --outputs 768\n"
                   "  hemi bench linear --inputs 768 --outputs 768 --layout 4096 --kernel avx2 --json",
        .json = &b.json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (b.inputs == 0 || b.outputs == 0) {
        fprintf(stderr, "hemi bench linear: --inputs and --outputs are needed\n");
        return CLI_EXIT_USAGE;
    }
    if (strcmp(b.memory, "fast") != 0 && strcmp(b.memory, "small") != 0) {
        fprintf(stderr, "hemi bench linear: --memory takes 'fast' or 'small', not '%s'\n", b.memory);
        return CLI_EXIT_USAGE;
    }
    hemi_error err = {0};
    hemi_status status = cli_choose_kernel(b.kernel, &err);
    if (status == HEMI_OK) status = run(&b, &err);
    int code = status == HEMI_OK ? report(&b) : cli_fail("bench linear", b.json, status, &err);
    release(&b);
    return code;
}
