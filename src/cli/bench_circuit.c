/* hemi bench circuit: a module with non-linearities, from the bytes of a request to the bytes of its reply, and everything around it. */
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/circuit_shapes.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "hemi/client.h"
#include "model/circuit_module.h"
#include "model/npy.h"
#include "ring/kernels.h"

#define ONNX_BYTES_MAX ((size_t)2 << 30)
#define REPEAT_MIN    3
#define REPEAT_MAX    1000
#define REPEAT_BUDGET 5000.0 /* ms of server time, when --repeat does not say */
#define CLEAR_SAMPLES 64     /* for the approximation error */
#define LEAST_ERROR   0x1p-15 /* of the largest output: a deviation that is no error, whatever was predicted: noise grows where polynomials are steep */

enum { ENCRYPT, SERVER, CPU, DECRYPT, TIMES };

typedef struct bench {
    const char *what, *calibration, *set, *kernel;
    long threads, rows, repeat;
    double tolerance;
    bool json;
    char name[64];
    const cli_circuit_shape *shape; /* NULL: a file, and samples of another: */
    float *data;
    size_t samples, calibrating, next; /* of data: all; those that calibrate; the one that comes next, of the others */
    cli_random random;
    hemi_module *made, *module; /* compiled; as read from its files */
    hemi_module_info info;
    hemi_evaluator *evaluator;
    float *x, *y, *expected;
    double *clear; /* scratch: a sample's inputs, its outputs */
    double *times[TIMES], median[TIMES], least[TIMES];
    double compile_ms, load_ms, keygen_ms, key_load_ms, approximation;
    size_t upload_bytes, download_bytes, evaluation_key_bytes, server_key_bytes, resident_before, peak, out_of_range;
    cli_errors errors;
} bench;

/* ---- memory: what the system says */

static size_t status_bytes(const char *name) {
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0) (void)sscanf(line + strlen(name), ": %llu", &kib);
    if (f) (void)fclose(f);
    return (size_t)kib << 10;
}

/* The peak is what it is now. */
static void reset_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    (void)fputs("5", f);
    (void)fclose(f);
}

/* ---- the module */

static hemi_compile_options options_of(const bench *b) {
    return (hemi_compile_options){.set = b->set, .tolerance = b->tolerance, .rows = (uint32_t)b->rows, .force_circuit = true,
                                  .progress = hemi_progress_bar, .progress_context = stderr};
}

/* Of random weights. */
static hemi_status compile_shape(bench *b, hemi_error *err) {
    const size_t inputs = cli_circuit_shape_inputs(b->shape);
    uint32_t shape[CLI_CIRCUIT_RANK_MAX + 1] = {b->shape->samples};
    const hemi_compile_options options = options_of(b);
    hemi_circuit *circuit = NULL;
    memcpy(shape + 1, b->shape->shape, b->shape->rank * sizeof *shape);
    float *x = hemi_alloc(b->shape->samples * inputs, sizeof *x);
    if (!x) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for samples");
    cli_circuit_samples(x, b->shape, b->shape->samples, &b->random);
    hemi_status status = cli_circuit_make(&circuit, b->shape, &b->random, err);
    if (status == HEMI_OK) status = hemi_module_from_circuit(&b->made, circuit, x, shape, b->shape->rank + 1, &options, err);
    hemi_free(x);
    return status;
}

/* Three quarters of the samples calibrate. Where the network takes rows, samples are rows, whatever their shape. */
static hemi_status compile_file(bench *b, hemi_error *err) {
    const hemi_compile_options options = options_of(b);
    uint8_t *onnx = NULL;
    size_t bytes = 0, rank = 0;
    uint32_t shape[HEMI_NPY_RANK_MAX];
    HEMI_TRY(hemi_file_read(&onnx, &bytes, b->what, ONNX_BYTES_MAX, err));
    hemi_status status = hemi_npy_read(&b->data, shape, &rank, b->calibration, err);
    if (status == HEMI_OK && (rank < 2 || shape[0] < 2))
        status = hemi_fail(err, HEMI_ERR_SHAPE, "%.200s does not hold several samples: some calibrate, the others are sent", b->calibration);
    if (status == HEMI_OK) {
        b->samples = shape[0];
        b->next = b->calibrating = b->samples - (b->samples + 3) / 4;
        shape[0] = (uint32_t)b->calibrating;
        status = hemi_module_compile(&b->made, onnx, bytes, b->data, shape, rank, &options, err);
        if (status == HEMI_ERR_SHAPE) {
            for (size_t i = 2; i < rank; i++) shape[1] *= shape[i];
            status = hemi_module_compile(&b->made, onnx, bytes, b->data, shape, 2, &options, err);
        }
    }
    hemi_free(onnx);
    return status;
}

static hemi_status compile(bench *b, hemi_error *err) {
    const double start = hemi_now_ms();
    HEMI_TRY(b->shape ? compile_shape(b, err) : compile_file(b, err));
    b->compile_ms = hemi_now_ms() - start;
    return HEMI_OK;
}

/* New ones: none that calibrated. */
static void take_samples(bench *b, float *x, size_t count) {
    if (b->shape) cli_circuit_samples(x, b->shape, count, &b->random);
    for (size_t i = 0; !b->shape && i < count; i++) {
        memcpy(x + i * b->info.inputs, b->data + b->next * b->info.inputs, b->info.inputs * sizeof *x);
        b->next = b->next + 1 < b->samples ? b->next + 1 : b->calibrating;
    }
}

static hemi_status open_module(bench *b, hemi_error *err) {
    const hemi_evaluator_options options = {.threads = (int)b->threads};
    (void)malloc_trim(0);
    reset_peak();
    b->resident_before = status_bytes("VmRSS");
    HEMI_TRY(cli_through_files(b->made, &options, 1, &b->module, &b->evaluator, &b->load_ms, err));
    hemi_module_get_info(b->module, &b->info);
    const size_t rows = b->info.packed_rows, numbers = (size_t)b->info.inputs + b->info.outputs;
    b->x = hemi_alloc(rows * b->info.inputs, sizeof *b->x);
    b->y = hemi_alloc(2 * rows * b->info.outputs, sizeof *b->y);
    b->clear = hemi_alloc(numbers, sizeof *b->clear);
    if (!b->x || !b->y || !b->clear) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rows", rows);
    b->expected = b->y + rows * b->info.outputs;
    return HEMI_OK;
}

/* ---- results in the clear: of polynomials, of functions */

static hemi_status run_clear(const bench *b, const float *x, bool polynomials, hemi_error *err) {
    for (size_t i = 0; i < b->info.inputs; i++) b->clear[i] = (double)x[i];
    return hemi_circuit_run(b->module->circuit, b->clear, b->clear + b->info.inputs, polynomials, err);
}

/* The rms of what polynomials add to outputs on new samples, relative to the rms of outputs about their means. */
static hemi_status measure_approximation(bench *b, hemi_error *err) {
    const size_t inputs = b->info.inputs, outputs = b->info.outputs;
    const double *y = b->clear + inputs;
    double error = 0, spread = 0;
    float *x = hemi_alloc(CLEAR_SAMPLES * inputs, sizeof *x);
    double *truth = hemi_alloc(CLEAR_SAMPLES * outputs, sizeof *truth);
    hemi_status status = x && truth ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for samples");
    if (x) take_samples(b, x, CLEAR_SAMPLES);
    for (size_t s = 0; s < CLEAR_SAMPLES && status == HEMI_OK; s++) {
        status = run_clear(b, x + s * inputs, false, err);
        memcpy(truth + s * outputs, y, outputs * sizeof *y);
        if (status == HEMI_OK) status = run_clear(b, x + s * inputs, true, err);
        for (size_t i = 0; i < outputs; i++) error += (y[i] - truth[s * outputs + i]) * (y[i] - truth[s * outputs + i]);
    }
    for (size_t i = 0; i < outputs && status == HEMI_OK; i++) {
        double mean = 0;
        for (size_t s = 0; s < CLEAR_SAMPLES; s++) mean += truth[s * outputs + i] / CLEAR_SAMPLES;
        for (size_t s = 0; s < CLEAR_SAMPLES; s++) spread += (truth[s * outputs + i] - mean) * (truth[s * outputs + i] - mean);
    }
    b->approximation = spread > 0 ? sqrt(error / spread) : 0;
    hemi_free(x);
    hemi_free(truth);
    return status;
}

static double deviation(const bench *b) {
    return fmax(b->info.predicted_error, LEAST_ERROR * b->info.output_max);
}

static hemi_status check(bench *b, hemi_error *err) {
    const size_t rows = b->info.packed_rows, inputs = b->info.inputs, outputs = b->info.outputs;
    for (size_t r = 0; r < rows; r++) {
        HEMI_TRY(run_clear(b, b->x + r * inputs, true, err));
        for (size_t i = 0; i < outputs; i++) b->expected[r * outputs + i] = (float)b->clear[inputs + i];
    }
    cli_errors_add(&b->errors, b->y, b->expected, rows, outputs, deviation(b));
    return HEMI_OK;
}

/* ---- calls: one ciphertext (or, of large samples, those of one), all of its rows used */

static hemi_status exchange(bench *b, hemi_keys *keys, const hemi_server_keys *server_keys, size_t at, hemi_pending **pending, uint8_t **request,
                            uint8_t **reply, hemi_error *err) {
    const hemi_evaluator *evaluator = b->evaluator;
    double start = hemi_now_ms();
    HEMI_TRY(hemi_encrypt(b->module, keys, b->x, b->info.packed_rows, pending, request, &b->upload_bytes, err));
    b->times[ENCRYPT][at] = hemi_now_ms() - start;
    const double cpu = cli_process_cpu_ms();
    start = hemi_now_ms();
    HEMI_TRY(hemi_evaluate(&evaluator, 1, server_keys, *request, b->upload_bytes, (int)b->threads, reply, &b->download_bytes, err));
    b->times[SERVER][at] = hemi_now_ms() - start;
    b->times[CPU][at] = cli_process_cpu_ms() - cpu;
    start = hemi_now_ms();
    HEMI_TRY(hemi_decrypt(b->module, keys, *pending, *reply, b->download_bytes, b->y, err));
    b->times[DECRYPT][at] = hemi_now_ms() - start;
    b->out_of_range += hemi_pending_out_of_range(*pending);
    return check(b, err);
}

static hemi_status call(bench *b, hemi_keys *keys, const hemi_server_keys *server_keys, size_t at, hemi_error *err) {
    hemi_pending *pending = NULL;
    uint8_t *request = NULL, *reply = NULL;
    take_samples(b, b->x, b->info.packed_rows);
    const hemi_status status = exchange(b, keys, server_keys, at, &pending, &request, &reply, err);
    hemi_bytes_release(request);
    hemi_bytes_free(reply);
    hemi_pending_free(pending);
    return status;
}

/* The first call warms up. */
static hemi_status measure(bench *b, hemi_keys *keys, const hemi_server_keys *server_keys, hemi_error *err) {
    HEMI_TRY(call(b, keys, server_keys, 0, err));
    const double fit = REPEAT_BUDGET / fmax(b->times[SERVER][0], 1);
    if (b->repeat == 0) b->repeat = fit < REPEAT_MIN ? REPEAT_MIN : fit > REPEAT_MAX ? REPEAT_MAX : (long)fit;
    const size_t count = (size_t)b->repeat;
    for (size_t i = 0; i < count; i++) {
        hemi_progress_bar(stderr, "calls", i, count);
        HEMI_TRY(call(b, keys, server_keys, i, err));
    }
    hemi_progress_bar(stderr, "calls", count, count);
    for (size_t t = 0; t < TIMES; t++) {
        b->median[t] = cli_median(b->times[t], count);
        b->least[t] = b->times[t][0]; /* sorted by now */
    }
    b->peak = status_bytes("VmHWM");
    return HEMI_OK;
}

static hemi_status with_keys(bench *b, hemi_error *err) {
    hemi_keys *keys = NULL;
    hemi_server_keys *server_keys = NULL;
    uint8_t *bytes = NULL;
    const hemi_module *module = b->module;
    const double t0 = hemi_now_ms();
    hemi_status status = hemi_keys_new(&keys, NULL, err);
    if (status == HEMI_OK) status = hemi_keys_evaluation(keys, &module, 1, &bytes, &b->evaluation_key_bytes, err);
    const double t1 = hemi_now_ms();
    if (status == HEMI_OK) status = hemi_server_keys_new(&server_keys, bytes, b->evaluation_key_bytes, err);
    b->key_load_ms = hemi_now_ms() - t1;
    b->keygen_ms = t1 - t0;
    if (status == HEMI_OK) b->server_key_bytes = hemi_server_keys_bytes(server_keys);
    hemi_bytes_release(bytes);
    if (status == HEMI_OK) status = measure(b, keys, server_keys, err);
    hemi_server_keys_free(server_keys);
    hemi_keys_free(keys);
    return status;
}

static bool is_file(const char *what) {
    const size_t n = strlen(what);
    return n > 5 && strcmp(what + n - 5, ".onnx") == 0;
}

static hemi_status find_model(bench *b, hemi_error *err) {
    const char *slash = strrchr(b->what, '/'), *name = slash ? slash + 1 : b->what;
    const bool file = is_file(b->what);
    (void)snprintf(b->name, sizeof b->name, "%.*s", (int)(strlen(name) - (file ? 5 : 0)), name);
    if (!file) b->shape = cli_circuit_shape_find(b->what, err);
    return file || b->shape ? HEMI_OK : HEMI_ERR_ARGUMENT;
}

static hemi_status run(bench *b, hemi_error *err) {
    HEMI_TRY(find_model(b, err));
    HEMI_TRY(cli_choose_kernel(b->kernel, err));
    for (size_t t = 0; t < TIMES; t++) {
        b->times[t] = hemi_alloc(REPEAT_MAX, sizeof **b->times);
        if (!b->times[t]) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    }
    HEMI_TRY(compile(b, err));
    HEMI_TRY(open_module(b, err));
    HEMI_TRY(with_keys(b, err));
    return measure_approximation(b, err);
}

static void release(bench *b) {
    for (size_t t = 0; t < TIMES; t++) hemi_free(b->times[t]);
    hemi_free(b->data);
    hemi_free(b->x);
    hemi_free(b->y);
    hemi_free(b->clear);
    hemi_evaluator_free(b->evaluator);
    hemi_module_free(b->module);
    hemi_module_free(b->made);
}

/* ---- the report */

static json_t *to_json(const bench *b) {
    const hemi_module_info *info = &b->info;
    const double largest = cli_errors_scale(&b->errors);
    json_t *j = cli_module_json(info, b->module);
    json_t *parts[] = {
        json_pack("{s:s,s:b,s:I,s:I,s:s,s:s,s:I,s:I}", "model", b->name, "from_file", b->shape == NULL, "ring", (json_int_t)1 << info->params->log2_n, "rows_per_ciphertext",
                  (json_int_t)info->packed_rows, "kernel", hemi_kernels_default()->name, "cpu", hemi_cpu_name(), "threads", (json_int_t)b->threads,
                  "repeat", (json_int_t)b->repeat),
        json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "server_ms", b->median[SERVER], "server_ms_min", b->least[SERVER], "server_cpu_ms",
                  b->median[CPU], "server_cpu_ms_min", b->least[CPU], "ms_per_row", b->median[SERVER] / info->packed_rows, "encrypt_ms",
                  b->median[ENCRYPT], "decrypt_ms", b->median[DECRYPT], "compile_ms", b->compile_ms),
        json_pack("{s:f,s:f,s:f,s:I,s:I,s:I}", "load_ms", b->load_ms, "keygen_ms", b->keygen_ms, "key_load_ms", b->key_load_ms, "upload_bytes",
                  (json_int_t)b->upload_bytes, "download_bytes", (json_int_t)b->download_bytes, "evaluation_key_bytes",
                  (json_int_t)b->evaluation_key_bytes),
        json_pack("{s:I,s:I,s:I}", "server_bytes", (json_int_t)hemi_evaluator_bytes(b->evaluator), "server_key_bytes",
                  (json_int_t)b->server_key_bytes, "server_peak_bytes", (json_int_t)(b->peak - b->resident_before)),
        json_pack("{s:f,s:f,s:f,s:f,s:I,s:I,s:I}", "error_std_over_max", cli_errors_std(&b->errors) / largest, "error_max_over_max",
                  b->errors.largest / largest, "predicted_error_over_max", info->predicted_error / largest, "approximation_error_measured",
                  b->approximation, "outputs_checked", (json_int_t)b->errors.outputs, "outputs_wrong", (json_int_t)b->errors.wrong,
                  "rows_out_of_range", (json_int_t)b->out_of_range)};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        json_object_update(j, parts[i]);
        json_decref(parts[i]);
    }
    return j;
}

static void print_table(const bench *b) {
    const hemi_module_info *info = &b->info;
    const double largest = cli_errors_scale(&b->errors);
    char up[24], down[24], keys[24], memory[24], predicted[40] = "";
    if (info->predicted_error > 0) (void)snprintf(predicted, sizeof predicted, " (predicted 2^%.2f)", log2(info->predicted_error / largest));
    if (b->shape)
        printf("%s: %s\n", b->name, b->shape->what);
    else
        printf("%s: calibrated with %zu samples of %s, of %zu\n", b->name, b->calibrating, b->calibration, b->samples);
    cli_line("processor", "%s, kernel %s, %ld thread%s", hemi_cpu_name(), hemi_kernels_default()->name, b->threads, b->threads == 1 ? "" : "s");
    cli_line("encryption", "set %s, ring %u, %.1f bits of security, %u of %u levels", info->params->name, 1u << info->params->log2_n,
             info->params->security_bits, info->levels, info->params->chain - 1);
    cli_line("server", "%.1f ms (median of %ld; least %.1f; processor time %.1f)", b->median[SERVER], b->repeat, b->least[SERVER], b->median[CPU]);
    cli_line("rows", "%u in a ciphertext: %.3f ms a row", info->packed_rows, b->median[SERVER] / info->packed_rows);
    cli_line("client", "encrypt %.1f ms, decrypt %.1f ms", b->median[ENCRYPT], b->median[DECRYPT]);
    cli_line("once", "compile %.0f ms, load module %.0f ms, make keys %.0f ms, load keys %.0f ms", b->compile_ms, b->load_ms, b->keygen_ms,
             b->key_load_ms);
    cli_line("bytes", "up %s, down %s, evaluation keys %s", cli_bytes(up, b->upload_bytes), cli_bytes(down, b->download_bytes),
             cli_bytes(keys, b->evaluation_key_bytes));
    cli_line("server memory", "%s for the module, %s for the keys; at most %s more than before, all in all",
             cli_bytes(memory, hemi_evaluator_bytes(b->evaluator)), cli_bytes(keys, b->server_key_bytes), cli_bytes(up, b->peak - b->resident_before));
    cli_line("error", "2^%.2f of the largest output, %zu outputs%s", log2(cli_errors_std(&b->errors) / largest), b->errors.outputs, predicted);
    cli_line("polynomials", "add %.2g %% of the outputs' rms on new samples (%.2g %% on the calibration data)", 100 * b->approximation,
             100 * info->approximation_error);
    if (b->out_of_range > 0) cli_line("out of range", "%zu rows", b->out_of_range);
    cli_print_activations(b->module);
}

static int report(const bench *b) {
    int code = 0;
    if (b->json)
        code = cli_print_json(to_json(b));
    else
        print_table(b);
    const int wrong = cli_errors_code(&b->errors, "bench circuit");
    return wrong ? wrong : code;
}

int bench_circuit(int argc, char **argv) {
    bench b = {.threads = 1, .random = {1}};
    const cli_positional positionals[] = {{"MODEL", &b.what, "mlp-10-32-10, mlp-64-128-64-10, cnn-1, cnn-2, gpt2-block, or a file that ends in .onnx"}, {0}};
    const cli_option options[] = {
        {"calibration", 'c', "X.npy", CLI_TEXT, &b.calibration, 0, 0, "inputs of a file: three quarters of them calibrate, the others are sent"},
        {"threads", 't', "T", CLI_INT, &b.threads, 0, 1024, "threads for one request (default 1; 0: all)"},
        {"rows", 'r', "R", CLI_INT, &b.rows, 0, 32768, "rows, or samples, of a ciphertext: a power of two (default 0: the compiler's choice)"},
        {"set", 0, "NAME", CLI_TEXT, &b.set, 0, 0, "parameter set (default: the cheapest that fits)"},
        {"tolerance", 0, "E", CLI_REAL, &b.tolerance, 0, 1, "error of polynomials, relative to the outputs' rms (default 0: the library's)"},
        {"kernel", 'k', "NAME", CLI_TEXT, &b.kernel, 0, 0, "portable, avx2 or avx512 (default: the best here)"},
        {"repeat", 'n', "N", CLI_INT, &b.repeat, 1, REPEAT_MAX, "timed calls (default: about 5 s of them, 3 to 1000)"},
        {0}};
    const cli_command command = {
        .name = "bench circuit",
        .summary = "Measures one request to a module with non-linearities on this machine, and checks every result of it.",
        .detail = "Named models have random weights, and inputs as such a model would see. server: from the bytes of the request to the bytes of the reply, all rows of\n"
                  "a ciphertext used. error: of decrypted outputs against the polynomials in the clear, as a standard deviation over a row's largest\n"
                  "output (mean over rows); what polynomials add to the functions is told apart. Exits with 20 when a result is wrong.",
        .positionals = positionals,
        .options = options,
        .example = "  hemi bench circuit mlp-10-32-10 --threads 2\n"
                   "  hemi bench circuit bench/models/cnn-2.onnx --calibration bench/models/digits.npy --threads 2 --kernel avx2 --json",
        .json = &b.json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (is_file(b.what) != (b.calibration != NULL)) {
        fprintf(stderr, "hemi bench circuit: --calibration X.npy goes with an ONNX file\n");
        return CLI_EXIT_USAGE;
    }
    hemi_error err = {0};
    const hemi_status status = run(&b, &err);
    const int code = status == HEMI_OK ? report(&b) : cli_fail("bench circuit", b.json, status, &err);
    release(&b);
    return code;
}
