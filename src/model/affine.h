/* y = W x + b in float32: what an import gives and quantisation takes. */
#ifndef HEMI_MODEL_AFFINE_H
#define HEMI_MODEL_AFFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/model.h"
#include "linear/grid.h"
#include "model/stencil.h"

#define HEMI_AFFINE_RANK_MAX 8

typedef enum hemi_affine_kind {
    HEMI_AFFINE_ROWS, /* a matrix on the last dimension, whatever the others are */
    HEMI_AFFINE_GRID, /* the same at every position of a grid, with its neighbours: a convolution */
    HEMI_AFFINE_DENSE /* a matrix of a whole sample, its numbers in row-major order */
} hemi_affine_kind;

typedef struct hemi_affine {
    hemi_affine_kind kind;
    uint32_t inputs, outputs; /* of the matrix, or of a position: hemi_grid_inputs, hemi_grid_outputs */
    uint32_t taps;            /* positions that an output reads; 1 without a grid */
    hemi_grid grid;
    float *weight; /* outputs x taps x inputs, row-major */
    float *bias;   /* outputs, or NULL */
    /* Of one sample, without the batch; rows: empty. */
    size_t in_rank, out_rank;
    uint32_t in_shape[HEMI_AFFINE_RANK_MAX], out_shape[HEMI_AFFINE_RANK_MAX];
} hemi_affine;

void hemi_affine_free(hemi_affine *map); /* hemi_free of both; safe on a zeroed object */

/* Numbers of a row, or of a sample. */
size_t hemi_affine_inputs(const hemi_affine *map);
size_t hemi_affine_outputs(const hemi_affine *map);
/* y = W x + b of one row or sample, in double precision. */
void hemi_affine_apply(double *y, const hemi_affine *map, const float *x);

/* Where output number o of coarse position (i, j) is in a sample, and number c of it in the input; SIZE_MAX if it is outside. */
size_t hemi_grid_output_place(const hemi_grid *grid, uint32_t o, int64_t i, int64_t j);
size_t hemi_grid_input_place(const hemi_grid *grid, uint32_t c, int64_t i, int64_t j);

/* The same map as a matrix of the whole sample. False, and nothing written, without memory. */
bool hemi_affine_dense(hemi_affine *out, const hemi_affine *map);

/* The same of a stencil: kind, numbers, grid and weights of `out`, which is zeroed otherwise. Taps at the edges that are zero everywhere are left out.
 * ERR_SHAPE; ERR_UNSUPPORTED: too many weights; ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_affine_from_stencil(hemi_affine *out, const hemi_stencil *stencil, hemi_error *err);
/* And of a convolution, with bias and shapes. On error nothing is held. */
HEMI_CHECK hemi_status hemi_affine_from_conv(hemi_affine *out, const hemi_conv *conv, const float *weight, const float *bias,
                                             hemi_error *err);

#endif
