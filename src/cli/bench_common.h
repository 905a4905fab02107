/* What the benchmarks of products share: numbers from a fixed seed, modules of them, and the judging of results. */
#ifndef HEMI_CLI_BENCH_COMMON_H
#define HEMI_CLI_BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/model.h"
#include "hemi/server.h"

#define CLI_INPUT_BITS   8
#define CLI_FOLDER_MAX   512
#define CLI_WRONG_SIGMAS 8 /* an output further off than this many predicted deviations is wrong */

/* A run can be repeated. */
typedef struct cli_random {
    uint64_t state;
} cli_random;

uint64_t cli_random_next(cli_random *random); /* splitmix64 */
double cli_random_unit(cli_random *random);   /* uniform in (0, 1) */
float cli_random_gaussian(cli_random *random); /* of variance 1 */
/* Uniform whole numbers of 8 bits; one of each row is the largest, so that rows keep their scale. */
void cli_random_rows(cli_random *random, float *x, size_t rows, size_t inputs);
/* Gaussian weights, no bias; 8-bit inputs like x. options: weight_bits, layout, set; the rest is filled in. */
HEMI_CHECK hemi_status cli_random_module(hemi_module **out, cli_random *random, uint32_t inputs, uint32_t outputs,
                                         const float *x, size_t rows, hemi_compile_options options, hemi_error *err);

/* Gaussian: freed with hemi_free; NULL without memory. */
float *cli_random_weights(cli_random *random, size_t count);
/* As a server does at start: a module is written to a temporary folder, server.zip is read, and the plaintexts are transformed; `loads` times,
 * *load_ms gets the median of reading and transforming. module gets what was read, with weights. */
HEMI_CHECK hemi_status cli_through_files(const hemi_module *made, const hemi_evaluator_options *options, int loads,
                                         hemi_module **module, hemi_evaluator **evaluator, double *load_ms,
                                         hemi_error *err);

/* Makes a folder under $TMPDIR (or /tmp); *folder is empty on error. */
HEMI_CHECK hemi_status cli_temporary_folder(char folder[CLI_FOLDER_MAX], hemi_error *err);

/* Errors of results against the product of the quantised values. */
typedef struct cli_errors {
    double squares, largest, row_max_sum;
    size_t outputs, rows, wrong;
} cli_errors;

void cli_errors_add(cli_errors *errors, const float *y, const float *expected, size_t rows, size_t outputs,
                    double predicted);
double cli_errors_scale(const cli_errors *errors); /* the largest output of a row, on average */
double cli_errors_std(const cli_errors *errors);
/* The exit code; says how many are wrong. */
int cli_errors_code(const cli_errors *errors, const char *command);


/* --kernel: ERR_ARGUMENT where this processor cannot run it. */
HEMI_CHECK hemi_status cli_choose_kernel(const char *name, hemi_error *err);
/* --memory: "small", "fast" or NULL. ERR_ARGUMENT for anything else. */
HEMI_CHECK hemi_status cli_choose_memory(const char *name, bool *small, hemi_error *err);
/* Processor time of this process, of this thread. */
double cli_process_cpu_ms(void);
double cli_thread_cpu_ms(void);

#endif
