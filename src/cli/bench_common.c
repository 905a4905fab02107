#include "cli/bench_common.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/report.h"
#include "ring/kernels.h"

#define LOADS_MAX 16
#define INPUT_MAX 127.0f /* 8-bit inputs */

uint64_t cli_random_next(cli_random *random) {
    uint64_t z = (random->state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

double cli_random_unit(cli_random *random) { return ((double)(cli_random_next(random) >> 11) + 0.5) * 0x1p-53; }

float cli_random_gaussian(cli_random *random) {
    double radius = sqrt(-2 * log(cli_random_unit(random)));
    return (float)(radius * cos(6.283185307179586 * cli_random_unit(random)));
}

void cli_random_rows(cli_random *random, float *x, size_t rows, size_t inputs) {
    for (size_t i = 0; i < rows * inputs; i++) x[i] = (float)(cli_random_next(random) % 255) - INPUT_MAX;
    for (size_t r = 0; r < rows; r++) x[r * inputs + cli_random_next(random) % inputs] = INPUT_MAX;
}

float *cli_random_weights(cli_random *random, size_t count) {
    float *weights = hemi_alloc_large(count, sizeof *weights);
    for (size_t i = 0; weights && i < count; i++) weights[i] = cli_random_gaussian(random);
    return weights;
}

hemi_status cli_random_module(hemi_module **out, cli_random *random, uint32_t inputs, uint32_t outputs, const float *x,
                              size_t rows, hemi_compile_options options, hemi_error *err) {
    const size_t count = (size_t)inputs * outputs;
    const uint32_t shape[2] = {(uint32_t)rows, inputs};
    float *weights = cli_random_weights(random, count);
    *out = NULL;
    if (!weights) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu weights", count);
    options.input_bits = CLI_INPUT_BITS;
    options.progress = hemi_progress_bar;
    options.progress_context = stderr;
    const hemi_status status = hemi_module_from_linear(out, weights, NULL, outputs, inputs, x, shape, 2, &options, err);
    hemi_free(weights);
    return status;
}

/* ---- as a server opens it */

static void remove_files(const char *folder) {
    static const char *const names[] = {"server.zip", "client.zip"};
    for (size_t i = 0; i < 2; i++) {
        char *path = hemi_path_join(folder, names[i]);
        if (path) unlink(path);
        hemi_free(path);
    }
    rmdir(folder);
}

static hemi_status load(const char *folder, const hemi_evaluator_options *options, int loads, hemi_module **module,
                        hemi_evaluator **evaluator, double *load_ms, hemi_error *err) {
    double times[LOADS_MAX];
    for (int i = 0; i < loads; i++) {
        hemi_evaluator_free(*evaluator);
        hemi_module_free(*module);
        *evaluator = NULL;
        *module = NULL;
        const double start = hemi_now_ms();
        HEMI_TRY(hemi_module_open(module, folder, true, err));
        HEMI_TRY(hemi_evaluator_new_with(evaluator, *module, options, err));
        times[i] = hemi_now_ms() - start;
    }
    *load_ms = cli_median(times, (size_t)loads);
    return HEMI_OK;
}

hemi_status cli_temporary_folder(char folder[CLI_FOLDER_MAX], hemi_error *err) {
    const char *parent = getenv("TMPDIR");
    if (!parent || !parent[0]) parent = "/tmp";
    snprintf(folder, CLI_FOLDER_MAX, "%.400s/hemi-bench-XXXXXX", parent);
    if (mkdtemp(folder)) return HEMI_OK;
    folder[0] = 0;
    return hemi_fail(err, HEMI_ERR_IO, "no temporary folder can be made in %.400s: set TMPDIR to a folder that can be written", parent);
}

hemi_status cli_through_files(const hemi_module *made, const hemi_evaluator_options *options, int loads,
                              hemi_module **module, hemi_evaluator **evaluator, double *load_ms, hemi_error *err) {
    char folder[CLI_FOLDER_MAX];
    *module = NULL;
    *evaluator = NULL;
    loads = loads > LOADS_MAX ? LOADS_MAX : loads;
    HEMI_TRY(cli_temporary_folder(folder, err));
    hemi_status status = hemi_module_save(made, folder, err);
    if (status == HEMI_OK) status = load(folder, options, loads, module, evaluator, load_ms, err);
    remove_files(folder);
    return status;
}

/* ---- errors */

void cli_errors_add(cli_errors *e, const float *y, const float *expected, size_t rows, size_t outputs,
                    double predicted) {
    for (size_t r = 0; r < rows; r++) {
        double largest = 0;
        for (size_t i = r * outputs; i < (r + 1) * outputs; i++) {
            double error = (double)y[i] - (double)expected[i];
            largest = fmax(largest, fabs((double)expected[i]));
            e->squares += error * error;
            e->largest = fmax(e->largest, fabs(error));
            if (!(fabs(error) <= CLI_WRONG_SIGMAS * predicted)) e->wrong++;
        }
        e->row_max_sum += largest;
    }
    e->outputs += rows * outputs;
    e->rows += rows;
}

double cli_errors_scale(const cli_errors *e) { return e->row_max_sum / (double)e->rows; }
double cli_errors_std(const cli_errors *e) { return sqrt(e->squares / (double)e->outputs); }

int cli_errors_code(const cli_errors *e, const char *command) {
    if (e->wrong == 0) return 0;
    fprintf(stderr, "hemi %s: WRONG: %zu of %zu outputs are off by more than %d predicted deviations\n", command,
            e->wrong, e->outputs, CLI_WRONG_SIGMAS);
    return -HEMI_ERR_INTERNAL;
}

hemi_status cli_choose_kernel(const char *name, hemi_error *err) {
    if (!name) return HEMI_OK;
    if (!hemi_kernels_by_name(name))
        return hemi_fail(err, HEMI_ERR_ARGUMENT,
                         "this processor cannot run a kernel '%s'; `hemi version --json` lists those it can", name);
    return setenv("HEMI_KERNEL", name, 1) == 0 ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
}

hemi_status cli_choose_memory(const char *name, bool *small, hemi_error *err) {
    *small = name && strcmp(name, "small") == 0;
    if (!name || *small || strcmp(name, "fast") == 0) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_ARGUMENT, "--memory takes small or fast, not '%.40s'", name);
}

static double clock_ms(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}
double cli_process_cpu_ms(void) { return clock_ms(CLOCK_PROCESS_CPUTIME_ID); }
double cli_thread_cpu_ms(void) { return clock_ms(CLOCK_THREAD_CPUTIME_ID); }
