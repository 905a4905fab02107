/* Weights to integers. One scale for the whole layer, so that nothing of single channels is visible to a client:
 *   s_o = max |W[o]| / (2^(bits-1) - 1)                   what `bits` per channel would be
 *   s   = max(min_o s_o, max_o s_o / 16, max|W| / 32767)  at most 4 guard bits for channels that differ
 * s is rounded down to the grid of plan.h, unless the weights are multiples of it already (trained that way): then it is kept and
 * nothing is lost. W_int = round(W / s): no channel gets a coarser step than its own s_o, as long as the guard bits suffice.
 * With 8 bits, and max_o s_o at most 2.5 min_o s_o, s is max_o s_o (rounded up) instead: the smallest channel loses 1.3 bits, and all weights fit a
 * byte. An output has taps x inputs weights. */
#ifndef HEMI_MODEL_QUANTISE_H
#define HEMI_MODEL_QUANTISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"
#include "model/affine.h"

#define HEMI_WEIGHT_BITS_MIN 2
#define HEMI_WEIGHT_BITS_MAX 16
#define HEMI_GUARD_FACTOR    16.0
#define HEMI_BYTE_FACTOR     2.5 /* largest over smallest channel, up to which 8-bit weights are made to fit a byte */

/* What the choice needs to know of a layer, found in one pass. */
typedef struct hemi_weight_range {
    double max, min_channel_max; /* of channels that are not zero; both 0 if all are */
} hemi_weight_range;

/* ERR_ARGUMENT if a weight or bias is NaN or infinite. */
HEMI_CHECK hemi_status hemi_weight_range_of(hemi_weight_range *range, const hemi_affine *map, hemi_error *err);
/* The scale s for a number of bits; 1 if all weights are zero. */
double hemi_weight_scale(const hemi_affine *map, const hemi_weight_range *range, int bits);

/* Sums over the rows of the quantised matrix. */
typedef struct hemi_weight_sums {
    double norm2;    /* mean over the rows of sum W_int^2 */
    double bound;    /* max over the rows of input_max sum |W_int| + |bias_int|; at least input_max */
    double error2;   /* mean over the rows of sum_j (W - s W_int)^2 moment[j], j the input */
    double bias;     /* max |bias_int| */
    int32_t largest; /* max |W_int| */
} hemi_weight_sums;

/* Row `first`, and every `step`-th after it. moment may be NULL (error2 = 0); weights too, otherwise it gets the integers (step 1). */
void hemi_weight_quantise(hemi_weight_sums *sums, int16_t *weights, const hemi_affine *map, double scale,
                          double output_scale, double input_max, const double *moment, size_t step);

#endif
