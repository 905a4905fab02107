/* From the size of a quantised layer to the numbers that fix its precision: delta and the bits of what is sent. */
#ifndef HEMI_MODEL_PLAN_H
#define HEMI_MODEL_PLAN_H

#include "hemi/status.h"
#include "linear/layout.h"

#define HEMI_DELTA_MIN 256
#define HEMI_GRID_STEPS                                                                                                \
    8 /* scales and delta are powers of 2^(1/8), or the integer below: they say little about the weights */

typedef struct hemi_plan {
    uint64_t delta;
    unsigned b_bits;                     /* upload */
    unsigned reply_a_bits, reply_b_bits; /* download */
    uint32_t reply_ring;                 /* degree of the ring that the reply is switched to; 0: the set's own */
    double variance;                     /* of a result of `layout`, in units of 1 of q: everything */
} hemi_plan;

typedef struct hemi_plan_input {
    const hemi_linear_layout *layout;
    const hemi_linear_layout *packed; /* must do with the same numbers; NULL: there is none */
    double norm2;                     /* mean over the outputs of the sum of squares of all weights of an output */
    double bound;                     /* the largest |result|, >= 1 */
    unsigned b_bits;                  /* 0: to be chosen */
    uint64_t delta_max;               /* 0: none */
} hemi_plan_input;

/* The largest grid power of two steps that is at most x > 0. */
double hemi_grid_floor(double x);

/*   delta  = floor(grid_floor(q / (2 * 1.02 * bound))), or delta_max
 *   b_bits: the least of 24, 28, 32, 40, 48 that makes the noise's variance at most 1.5 times as large, or a quarter of the floor's
 *   reply_a_bits: the least that keeps the standard deviation below 1.3 times the noise, or below the floor
 *   reply_b_bits: the least that adds at most a tenth to the variance
 *   reply_ring: N/2 where the layout's outputs fit that ring, the product has keys anyway, and the reply is shorter with bits by the same
 *     rule, where what the switch adds counts towards the limit, and a standard deviation of at most 1.3 times that in the set's own
 *     ring
 * where the floor is 2^-19.1 (sets with baby_digits: 2^-27) of delta * bound: what is below it is good enough. The noise is that of the noisier layout.
 * ERR_UNSUPPORTED: no delta leaves room for the noise. */
HEMI_CHECK hemi_status hemi_plan_make(hemi_plan *plan, const hemi_plan_input *input, hemi_error *err);

#endif
