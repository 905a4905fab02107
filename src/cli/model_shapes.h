/* The layers of a model, for benchmarks: shapes only. */
#ifndef HEMI_CLI_MODEL_SHAPES_H
#define HEMI_CLI_MODEL_SHAPES_H

#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#define CLI_SHAPES_MAX 64
#define CLI_NAME_BYTES 64

typedef struct cli_shape {
    char name[CLI_NAME_BYTES];
    uint32_t inputs, outputs;
    size_t count;  /* how many such layers there are */
    size_t source; /* whose input it reads: an earlier shape's, layer by layer, or its own */
} cli_shape;

typedef struct cli_shapes {
    char name[CLI_NAME_BYTES];
    size_t count;
    cli_shape shape[CLI_SHAPES_MAX];
} cli_shapes;

/* "gpt2", "llama-3.2-1b", or a file: a JSON list of {"name", "inputs", "outputs", "count" (default 1), "shared_with" (the name of an earlier entry
 * with the same inputs and count)}. ERR_NOT_FOUND, ERR_FORMAT. */
HEMI_CHECK hemi_status cli_shapes_read(cli_shapes *shapes, const char *what, hemi_error *err);
/* Numbers of layers and of weights. */
size_t cli_shapes_layers(const cli_shapes *shapes);
size_t cli_shapes_weights(const cli_shapes *shapes);

#endif
