/* What `hemi bench linear` and `hemi bench conv2d` do: one encrypted product, from the bytes of a request to the bytes of its reply, and
 * everything around it. */
#ifndef HEMI_CLI_BENCH_PRODUCT_H
#define HEMI_CLI_BENCH_PRODUCT_H

#include <stdbool.h>

#include "cli/bench_common.h"
#include "cli/options.h"
#include "cli/plain.h"
#include "cli/report.h"
#include "hemi/client.h"
#include "hemi/server.h"

#define CLI_REPEAT_MIN 15

typedef struct cli_product {
    /* by the command */
    const char *command;
    size_t inputs, outputs;                                                         /* of a row or sample */
    hemi_status (*make)(struct cli_product *b, hemi_module **out, hemi_error *err); /* calibrated with b->x */
    long rows, layout, threads, repeat, keys_count, weight_bits;
    const char *set, *kernel, *memory;
    bool json;
    cli_random random;
    cli_plain plain;
    bool has_plain;

    hemi_module *module; /* with weights */
    hemi_module_info info;
    hemi_evaluator *evaluator;
    float *x, *y, *expected;
    double keygen_ms, load_ms, key_load_ms, encrypt_ms, server_ms, server_ms_min, server_cpu_ms, server_cpu_ms_min, decrypt_ms;
    size_t upload_bytes, download_bytes, evaluation_key_bytes, server_key_bytes;
    cli_errors errors; /* over all replies */
    double *times[4];  /* encrypt, evaluate, decrypt; processor time of evaluating */
} cli_product;

/* What every option is before the command line says otherwise. */
#define CLI_PRODUCT_DEFAULTS .rows = 1, .threads = 1, .keys_count = 10, .weight_bits = 8, .random = {1}
/* Options that both have. */
#define CLI_PRODUCT_OPTIONS(b)                                                                                         \
    {                                                                                                                  \
        "layout",     0, "S",   CLI_INT,                                                                               \
        &(b)->layout, 0, 65536, "layout S, a power of two; 0 (default): the compiler's choice"},                       \
        {"set", 0, "NAME", CLI_TEXT, &(b)->set, 0, 0, "parameter set"},                                                \
        {"weight-bits", 0, "B", CLI_INT, &(b)->weight_bits, 2, 16, "bits of a weight (default 8)"},                    \
        {"memory",     0, "KIND", CLI_TEXT,                                                                            \
         &(b)->memory, 0, 0,      "fast (default), or small: weights in less than half of it"},                       \
        {"threads", 't', "T", CLI_INT, &(b)->threads, 0, 1024, "threads for one product (default 1; 0: all)"},         \
        {"kernel", 'k', "NAME", CLI_TEXT, &(b)->kernel, 0, 0, "portable, avx2 or avx512 (default: the best here)"},    \
        {"repeat",     'n',                                                                                            \
         "N",          CLI_INT,                                                                                        \
         &(b)->repeat, CLI_REPEAT_MIN,                                                                                 \
         1000000,      "timed calls (default: about 1.5 s of them, 15 to 1000)"},                                      \
    {                                                                                                                  \
        "keys-count", 0, "N", CLI_INT, &(b)->keys_count, 1, 100000,                                                    \
            "keys over which the error is measured (default 10)"                                                       \
    }

/* Everything but `plain`. */
HEMI_CHECK hemi_status cli_product_run(cli_product *b, hemi_error *err);
/* Prints the figures (the text's first line is the command's) and returns the exit code. more: further JSON, which is released; or NULL. */
int cli_product_report(const cli_product *b, json_t *more);
void cli_product_release(cli_product *b);

#endif
