#include "cli/bench_product.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "ring/kernels.h"

#define REPEAT_MIN    CLI_REPEAT_MIN
#define REPEAT_MAX    1000
#define REPEAT_BUDGET 1500.0 /* ms of server time, when --repeat does not say */
#define WARM_UPS      3
#define LOADS         3
#define BATCH         16 /* calls, but fewer where they have many rows: */
#define BATCH_ROWS    512

/* ---- the module, as a server opens it */

static hemi_status open_module(cli_product *b, hemi_error *err) {
    hemi_module *made = NULL;
    hemi_evaluator_options options = {.threads = (int)b->threads};
    HEMI_TRY(cli_choose_memory(b->memory, &options.small_memory, err));
    cli_random_rows(&b->random, b->x, (size_t)b->rows, b->inputs);
    HEMI_TRY(b->make(b, &made, err));
    const hemi_status status = cli_through_files(made, &options, LOADS, &b->module, &b->evaluator, &b->load_ms, err);
    hemi_module_free(made);
    if (status == HEMI_OK) hemi_module_get_info(b->module, &b->info);
    return status;
}

/* ---- calls */

/* Calls are made in batches, as a server sees them: all requests, then all replies, then all results. */
typedef struct exchange {
    hemi_pending *pending;
    uint8_t *request, *reply;
    size_t request_bytes, reply_bytes;
} exchange;

static hemi_status call_each(cli_product *b, hemi_keys *keys, const hemi_server_keys *server_keys, exchange *e,
                             size_t count, double *const times[4], hemi_error *err) {
    for (size_t i = 0; i < count; i++) {
        double start = hemi_now_ms();
        HEMI_TRY(hemi_encrypt(b->module, keys, b->x, (size_t)b->rows, &e[i].pending, &e[i].request, &e[i].request_bytes,
                              err));
        times[0][i] = hemi_now_ms() - start;
    }
    const hemi_evaluator *evaluator = b->evaluator;
    for (size_t i = 0; i < count; i++) {
        double cpu = cli_process_cpu_ms(), start = hemi_now_ms();
        HEMI_TRY(hemi_evaluate(&evaluator, 1, server_keys, e[i].request, e[i].request_bytes, (int)b->threads,
                               &e[i].reply, &e[i].reply_bytes, err));
        times[1][i] = hemi_now_ms() - start;
        times[3][i] = cli_process_cpu_ms() - cpu;
    }
    for (size_t i = 0; i < count; i++) {
        double start = hemi_now_ms();
        HEMI_TRY(hemi_decrypt(b->module, keys, e[i].pending, e[i].reply, e[i].reply_bytes, b->y, err));
        times[2][i] = hemi_now_ms() - start;
        cli_errors_add(&b->errors, b->y, b->expected, (size_t)b->rows, b->outputs, b->info.predicted_error);
    }
    b->upload_bytes = e[0].request_bytes;
    b->download_bytes = e[0].reply_bytes;
    return HEMI_OK;
}

/* count calls; their times go to times[0 (encrypt), 1 (evaluate), 2 (decrypt)][first ...]. */
static hemi_status call(cli_product *b, hemi_keys *keys, const hemi_server_keys *server_keys, size_t first,
                        size_t count, hemi_error *err) {
    hemi_status status = HEMI_OK;
    size_t batch = (size_t)b->rows < BATCH_ROWS / BATCH ? BATCH
                   : (size_t)b->rows < BATCH_ROWS       ? BATCH_ROWS / (size_t)b->rows
                                                        : 1;
    for (size_t done = 0; done < count && status == HEMI_OK;) {
        exchange e[BATCH] = {0};
        size_t part = count - done < batch ? count - done : batch;
        double *const times[4] = {b->times[0] + first + done, b->times[1] + first + done, b->times[2] + first + done,
                                  b->times[3] + first + done};
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
static size_t repetitions(const cli_product *b, double one_ms) {
    if (b->repeat > 0) return (size_t)b->repeat;
    double fit = REPEAT_BUDGET / fmax(one_ms, 1e-3);
    return fit < REPEAT_MIN ? REPEAT_MIN : fit > REPEAT_MAX ? REPEAT_MAX : (size_t)fit;
}

static hemi_status measure(cli_product *b, hemi_keys *keys, const hemi_server_keys *server_keys, hemi_error *err) {
    HEMI_TRY(call(b, keys, server_keys, 0, WARM_UPS, err));
    size_t count = repetitions(b, b->times[1][WARM_UPS - 1]);
    HEMI_TRY(call(b, keys, server_keys, 0, count, err));
    b->repeat = (long)count;
    b->encrypt_ms = cli_median(b->times[0], count);
    b->server_ms = cli_median(b->times[1], count);
    b->server_ms_min = b->times[1][0]; /* sorted by now */
    b->decrypt_ms = cli_median(b->times[2], count);
    b->server_cpu_ms = cli_median(b->times[3], count);
    b->server_cpu_ms_min = b->times[3][0];
    return HEMI_OK;
}

/* A client of its own: new keys, new inputs, one checked call; the last one is measured as well. */
static hemi_status with_new_keys(cli_product *b, double *keygen_ms, double *key_load_ms, bool last, hemi_error *err) {
    hemi_keys *keys = NULL;
    hemi_server_keys *server_keys = NULL;
    uint8_t *bytes = NULL;
    const hemi_module *module = b->module;
    cli_random_rows(&b->random, b->x, (size_t)b->rows, b->inputs);
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

static hemi_status allocate(cli_product *b, hemi_error *err) {
    const size_t r = (size_t)b->rows, samples = b->repeat > REPEAT_MAX ? (size_t)b->repeat : REPEAT_MAX;
    bool enough = (b->x = hemi_alloc(r * b->inputs, sizeof *b->x)) != NULL;
    enough = (b->y = hemi_alloc(r * b->outputs, sizeof *b->y)) != NULL && enough;
    enough = (b->expected = hemi_alloc(r * b->outputs, sizeof *b->expected)) != NULL && enough;
    for (size_t i = 0; i < 4; i++) enough = (b->times[i] = hemi_alloc(samples, sizeof **b->times)) != NULL && enough;
    return enough ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
}

static hemi_status measure_all(cli_product *b, double *keygen, double *key_load, hemi_error *err) {
    const size_t keys = (size_t)b->keys_count;
    for (size_t i = 0; i < keys; i++) {
        hemi_progress_bar(stderr, "keys and calls", i, keys);
        HEMI_TRY(with_new_keys(b, &keygen[i], &key_load[i], i + 1 == keys, err));
    }
    hemi_progress_bar(stderr, "keys and calls", keys, keys);
    b->keygen_ms = cli_median(keygen, keys);
    b->key_load_ms = cli_median(key_load, keys);
    return HEMI_OK;
}

hemi_status cli_product_run(cli_product *b, hemi_error *err) {
    const size_t keys = (size_t)b->keys_count;
    HEMI_TRY(cli_choose_kernel(b->kernel, err));
    HEMI_TRY(allocate(b, err));
    HEMI_TRY(open_module(b, err));
    double *keygen = hemi_alloc(keys, sizeof *keygen), *key_load = hemi_alloc(keys, sizeof *key_load);
    const hemi_status status =
        keygen && key_load ? measure_all(b, keygen, key_load, err) : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_free(keygen);
    hemi_free(key_load);
    return status;
}

void cli_product_release(cli_product *b) {
    for (size_t i = 0; i < 4; i++) hemi_free(b->times[i]);
    hemi_free(b->x);
    hemi_free(b->y);
    hemi_free(b->expected);
    hemi_evaluator_free(b->evaluator);
    hemi_module_free(b->module);
}

/* ---- the report */

static json_t *memory_json(const cli_product *b) {
    return json_pack("{s:I,s:I,s:s}", "server_weight_bytes", (json_int_t)hemi_evaluator_bytes(b->evaluator),
                     "server_key_bytes", (json_int_t)b->server_key_bytes, "memory", b->memory ? b->memory : "fast");
}

static json_t *to_json(const cli_product *b) {
    const double largest = cli_errors_scale(&b->errors);
    json_t *j =
        json_pack("{s:I,s:I,s:I,s:s,s:I,s:I,s:I,s:s,s:s,s:I,s:I,s:I}", "inputs", (json_int_t)b->inputs, "outputs",
                  (json_int_t)b->outputs, "rows", (json_int_t)b->rows, "set", b->info.params->name, "layout",
                  (json_int_t)b->info.layout, "products", (json_int_t)b->info.products, "units",
                  (json_int_t)b->info.units, "kernel", hemi_kernels_default()->name, "cpu", hemi_cpu_name(), "threads",
                  (json_int_t)b->threads, "repeat", (json_int_t)b->repeat, "keys_count", (json_int_t)b->keys_count);
    json_t *times = json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "server_cpu_ms", b->server_cpu_ms,
                              "server_cpu_ms_min", b->server_cpu_ms_min, "server_ms", b->server_ms, "server_ms_min",
                              b->server_ms_min, "encrypt_ms", b->encrypt_ms, "decrypt_ms", b->decrypt_ms, "keygen_ms",
                              b->keygen_ms, "key_load_ms", b->key_load_ms, "load_ms", b->load_ms);
    json_t *sizes =
        json_pack("{s:I,s:I,s:I}", "upload_bytes", (json_int_t)b->upload_bytes, "download_bytes",
                  (json_int_t)b->download_bytes, "evaluation_key_bytes", (json_int_t)b->evaluation_key_bytes);
    json_t *errors = json_pack("{s:f,s:f,s:f,s:I,s:I,s:f,s:s}", "error_std_over_max",
                               cli_errors_std(&b->errors) / largest, "error_max_over_max", b->errors.largest / largest,
                               "predicted_error", b->info.predicted_error / largest, "outputs_checked",
                               (json_int_t)b->errors.outputs, "outputs_wrong", (json_int_t)b->errors.wrong,
                               "security_bits", b->info.params->security_bits, "operation", b->info.operation);
    json_t *parts[] = {times, sizes, memory_json(b), errors};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        json_object_update_missing(j, parts[i]);
        json_decref(parts[i]);
    }
    cli_plain_json(j, &b->plain, b->has_plain);
    return j;
}

static void print_table(const cli_product *b) {
    char up[24], down[24], keys[24], weights[24], by[64];
    const double largest = cli_errors_scale(&b->errors);
    cli_line("processor", "%s, kernel %s, %ld thread%s", hemi_cpu_name(), hemi_kernels_default()->name, b->threads,
             b->threads == 1 ? "" : "s");
    cli_line("server", "%.3f ms (median of %ld; least %.3f; processor time %.3f)", b->server_ms, b->repeat,
             b->server_ms_min, b->server_cpu_ms);
    if (b->has_plain)
        cli_line("plain", "%.4f ms (the same in float32, %s, one thread)", b->plain.ms, cli_plain_by(by, &b->plain));
    cli_line("client", "encrypt %.3f ms, decrypt %.3f ms", b->encrypt_ms, b->decrypt_ms);
    cli_line("once", "make keys %.1f ms, load keys %.1f ms, load module %.1f ms", b->keygen_ms, b->key_load_ms,
             b->load_ms);
    cli_line("bytes", "up %s, down %s, evaluation keys %s", cli_bytes(up, b->upload_bytes),
             cli_bytes(down, b->download_bytes), cli_bytes(keys, b->evaluation_key_bytes));
    cli_line("server memory", "%s for the module", cli_bytes(weights, hemi_evaluator_bytes(b->evaluator)));
    cli_line("error", "2^%.2f of the largest output (predicted 2^%.2f), %zu outputs under %ld keys",
             log2(cli_errors_std(&b->errors) / largest), log2(b->info.predicted_error / largest), b->errors.outputs,
             b->keys_count);
    cli_line("security", "%.1f bits", b->info.params->security_bits);
}

int cli_product_report(const cli_product *b, json_t *more) {
    int code = 0;
    if (b->json) {
        json_t *j = to_json(b);
        if (more) json_object_update(j, more);
        code = cli_print_json(j);
    } else {
        print_table(b);
    }
    json_decref(more);
    const int wrong = cli_errors_code(&b->errors, b->command);
    return wrong ? wrong : code;
}
