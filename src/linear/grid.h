/* What a convolution-like map does to one sample (an image, a sequence), and how samples are cut into units. Public: part of client.json.
 *
 * The input, channels x height x width, is seen as a coarse grid whose position (i, j) holds in_step_y in_step_x channels for each
 * channel (space to depth): number (c in_step_y + py) in_step_x + px of position (i, j) is x[c][i in_step_y + py][j in_step_x + px] (of the
 * rows and columns that are looked at: every one, or every in_skip_y-th and in_skip_x-th, as a strided 1 x 1 convolution does). The
 * output likewise (depth to space): number (o out_step_y + qy) out_step_x + qx of position (i, j) is y[o][i out_step_y + qy][j out_step_x + qx].
 *
 *   out(i, j)[o] = sum over ty < taps_y, tx < taps_x, c of  W[o][ty taps_x + tx][c]  in(i + ty + origin_y, j + tx + origin_x)[c]
 *
 * Outside the sample the input is zero (so padding needs no word); outputs outside it do not exist. With this a strided convolution is
 * one with in_step = stride, a transposed one has out_step = stride, a dilated one has taps that are zero, a 1-D one has height 1. */
#ifndef HEMI_LINEAR_GRID_H
#define HEMI_LINEAR_GRID_H

#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#define HEMI_GRID_SIDE_MAX (1u << 16) /* height, width, channels, steps, taps: of a sample */

typedef struct hemi_grid {
    uint32_t in_channels, in_height, in_width;
    uint32_t out_channels, out_height, out_width;
    uint32_t in_step_y, in_step_x, out_step_y, out_step_x; /* >= 1 */
    uint32_t taps_y, taps_x;                               /* >= 1 */
    int32_t origin_y, origin_x;                            /* grid positions; padding p of stride 1: -p */
    uint32_t in_skip_y, in_skip_x;                         /* 0 or 1: every row, every column */
} hemi_grid;

/* ERR_SHAPE if a number is out of range, or products of them are. */
HEMI_CHECK hemi_status hemi_grid_check(const hemi_grid *grid, hemi_error *err);
/* Numbers at one position of the coarse grid: what a linear map is of. */
uint32_t hemi_grid_inputs(const hemi_grid *grid);
uint32_t hemi_grid_outputs(const hemi_grid *grid);
/* Positions of the coarse output grid: ceil(out_height / out_step_y), ... */
uint32_t hemi_grid_rows(const hemi_grid *grid);
uint32_t hemi_grid_columns(const hemi_grid *grid);

#endif
