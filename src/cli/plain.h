/* The same products in float32, in the clear, on one thread: what encrypted ones are compared with. The better of OpenBLAS and of a loop
 * of our own (OpenBLAS may have been built, or told by its environment, to do worse than the processor can). */
#ifndef HEMI_CLI_PLAIN_H
#define HEMI_CLI_PLAIN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "hemi/model.h"

typedef struct cli_plain {
    double ms; /* the lesser of: */
    double blas_ms,
        loop_ms; /* medians of processor time, which others on the machine do not add to; blas_ms is 0 where there is no OpenBLAS */
} cli_plain;

/* y = x W^T, x: rows x inputs, W: outputs x inputs. False without memory. */
bool cli_plain_linear(cli_plain *plain, size_t inputs, size_t outputs, size_t rows);
/* One sample through a convolution: im2col, then a product for each group. */
bool cli_plain_conv(cli_plain *plain, const hemi_conv *conv);
/* One row through `count` of each of these layers, one after another. Their weights lie one after another in memory (from 512 MB on the
 * same memory again), as those of a model do: they come from memory, not from a cache, unless all of them fit one. */
typedef struct cli_plain_layer {
    size_t inputs, outputs, count;
} cli_plain_layer;
bool cli_plain_layers(cli_plain *plain, const cli_plain_layer *layer, size_t layers);

/* "OpenBLAS (SkylakeX)" or "a loop". Returns text. */
const char *cli_plain_by(char text[64], const cli_plain *plain);
/* Adds plain_ms, plain_by, plain_openblas_ms, plain_loop_ms; has false: all null. */
void cli_plain_json(json_t *object, const cli_plain *plain, bool has);

#endif
