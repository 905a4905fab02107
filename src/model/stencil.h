/* A linear map between samples (channels x height x width) that does the same everywhere: the form in which an import multiplies
 * convolutions out, before they become a hemi_grid.
 *
 * On each axis output Y = i out_step + q, q < out_step, reads inputs i in_step + first + k, k < size; outside the sample they are zero:
 *
 *   y[o][Y][X] = sum over ky, kx, c of  w[(o out_step_y + qy) out_step_x + qx][ky][kx][c]  x[c][iy in_step_y + first_y + ky][ix in_step_x + first_x + kx] */
#ifndef HEMI_MODEL_STENCIL_H
#define HEMI_MODEL_STENCIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"
#include "linear/grid.h"

#define HEMI_STENCIL_SIDE_MAX    (1u << 26) /* numbers of an axis, channels, taps, steps */
#define HEMI_STENCIL_WEIGHTS_MAX (UINT64_C(1) << 26)

typedef struct hemi_stencil_axis {
    uint32_t in, out; /* sides of the samples */
    uint32_t in_step, out_step, size;
    int64_t first;
} hemi_stencil_axis;

typedef struct hemi_stencil {
    uint32_t in_channels, out_channels;
    hemi_stencil_axis y, x;
    const float *w; /* borrowed */
} hemi_stencil;

/* One position read and written: channels only. */
hemi_stencil hemi_stencil_pointwise(uint32_t in_channels, uint32_t out_channels, uint32_t height, uint32_t width);

/* Weights of one output number, numbers of an output position, and the product; of a sample in and out. */
size_t hemi_stencil_row(const hemi_stencil *s);
size_t hemi_stencil_rows(const hemi_stencil *s);
size_t hemi_stencil_weights(const hemi_stencil *s);
size_t hemi_stencil_inputs(const hemi_stencil *s);
size_t hemi_stencil_outputs(const hemi_stencil *s);
/* Every side and product in range: at most HEMI_STENCIL_WEIGHTS_MAX weights, and as many numbers in a sample. What follows takes
 * stencils that passed. */
bool hemi_stencil_fits(const hemi_stencil *s);

/* out = second after first, without weights yet. False if that is no stencil: samples that do not fit, too many weights, or zeros beside the
 * middle sample that the composition would replace by what `first` gives there. reads_outside: whether `second` reads beside it at all (then a
 * bias of `first` counts for less at the border). Both must have their weights, which decide what is read. */
bool hemi_stencil_compose_shape(hemi_stencil *out, bool *reads_outside, const hemi_stencil *first,
                                const hemi_stencil *second);
/* Row `row` of the weights of that, hemi_stencil_row(out) numbers: sums of products, for `scratch` of as many doubles. */
void hemi_stencil_compose_row(float *w, double *scratch, size_t row, const hemi_stencil *out, const hemi_stencil *first,
                              const hemi_stencil *second);

/* out, without weights yet, has the steps and taps of both. False if they differ in their samples or in what a step is, or there would be too
 * many weights. */
bool hemi_stencil_unite_shape(hemi_stencil *out, const hemi_stencil *a, const hemi_stencil *b);
/* w (those of `out`, whose steps are a multiple of s's) += factor s */
void hemi_stencil_accumulate(float *w, const hemi_stencil *out, const hemi_stencil *s, float factor);

/* What output number `index` of the sample is: its weights are the runs of in_channels from `w`, each to be applied at one position. */
typedef struct hemi_stencil_reader {
    const hemi_stencil *stencil;
    const float *w;
    int64_t top, left;
    uint32_t ky, kx, ky_end, kx_begin, kx_end;
} hemi_stencil_reader;
hemi_stencil_reader hemi_stencil_read(const hemi_stencil *s, size_t index);
/* The next position inside the sample: its weights, one a channel, and its place in channel 0. False at the end. */
bool hemi_stencil_next(hemi_stencil_reader *r, const float **w, size_t *place);

/* Leaves out taps at the edges that are zero everywhere: geometry only, into `out`; hemi_stencil_accumulate moves the weights. */
void hemi_stencil_trim_shape(hemi_stencil *out, const hemi_stencil *s);

/* The grid of a stencil, whose samples are at most HEMI_GRID_SIDE_MAX wide. ERR_SHAPE. */
HEMI_CHECK hemi_status hemi_stencil_grid(hemi_grid *grid, const hemi_stencil *s, hemi_error *err);
/* The weights as the grid has them: outputs x taps x inputs, zeroed before. */
void hemi_stencil_grid_weights(float *w, const hemi_grid *grid, const hemi_stencil *s);

#endif
