/* Many samples through a circuit at once, for calibration. Numbers lie in groups of HEMI_LANES samples: number i of a value of `size`
 * numbers, sample s, is at ((s / LANES) size + i) LANES + s % LANES, so that a weight, dense or sparse, is one multiplication of LANES numbers. */
#ifndef HEMI_CIRCUIT_LANES_H
#define HEMI_CIRCUIT_LANES_H

#include "base/threads.h"
#include "circuit/graph.h"

#define HEMI_LANES 16

typedef struct hemi_lanes {
    const hemi_circuit *circuit;
    hemi_team *team;
    size_t samples, groups; /* loaded; the rest of the last group repeats the last sample */
    size_t most;            /* groups there is room for */
    double **value, **a, **b; /* for each value; a: of FUNCTION and PRODUCT, b: of PRODUCT, otherwise NULL */
    double *block;
    const hemi_circuit_polynomial **with; /* by what each function was computed; NULL: itself */
    bool *stale;                          /* values that do not follow from those before them any more */
} hemi_lanes;

size_t hemi_lanes_numbers(const hemi_circuit *circuit); /* doubles for each sample */
HEMI_CHECK hemi_status hemi_lanes_new(hemi_lanes *batch, const hemi_circuit *circuit, size_t samples, hemi_team *team, hemi_error *err);
void hemi_lanes_clear(hemi_lanes *batch);
/* Samples first, first + span / count, ... (rounded down) of x become the input, through the circuit's quantiser. */
void hemi_lanes_load(hemi_lanes *batch, const float *x, size_t first, size_t span, size_t count);
/* Computes what is stale or follows from it, functions by polynomial[i] or, where that is NULL, as they are. */
void hemi_lanes_run(hemi_lanes *batch, const hemi_circuit_polynomial *const *polynomial);
/* That a polynomial has changed in place. */
void hemi_lanes_touch(hemi_lanes *batch, size_t value);

#endif
