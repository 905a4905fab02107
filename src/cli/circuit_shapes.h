/* Models with non-linearities, for benchmarks: circuits with random weights, and inputs like those that such a model would see. */
#ifndef HEMI_CLI_CIRCUIT_SHAPES_H
#define HEMI_CLI_CIRCUIT_SHAPES_H

#include "circuit/graph.h"
#include "cli/bench_common.h"

#define CLI_CIRCUIT_RANK_MAX 4

typedef struct cli_circuit_shape cli_circuit_shape;
struct cli_circuit_shape {
    const char *name, *what;                /* "cnn-1"; its layers, in words */
    size_t rank;
    uint32_t shape[CLI_CIRCUIT_RANK_MAX];   /* of samples, without the dimension that counts them */
    uint32_t samples;                       /* of calibration */
    bool images;                            /* inputs: drawn, in [0, 1]; otherwise Gaussian of variance 1 */
    hemi_status (*make)(hemi_circuit *c, cli_random *random, hemi_error *err);
};

/* NULL, with what there is in *err, if there is none of that name. */
const cli_circuit_shape *cli_circuit_shape_find(const char *name, hemi_error *err);
uint32_t cli_circuit_shape_inputs(const cli_circuit_shape *shape);
/* hemi_circuit_free. */
HEMI_CHECK hemi_status cli_circuit_make(hemi_circuit **out, const cli_circuit_shape *shape, cli_random *random, hemi_error *err);
void cli_circuit_samples(float *x, const cli_circuit_shape *shape, size_t samples, cli_random *random);

#endif
