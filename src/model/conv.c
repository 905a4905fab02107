/* Stencils and convolutions as maps. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/affine.h"

/* ---- stencils */

static hemi_status take_grid(hemi_affine *out, const hemi_stencil *s, hemi_error *err) {
    HEMI_TRY(hemi_stencil_grid(&out->grid, s, err));
    out->kind = HEMI_AFFINE_GRID;
    out->inputs = hemi_grid_inputs(&out->grid);
    out->outputs = hemi_grid_outputs(&out->grid);
    out->taps = out->grid.taps_y * out->grid.taps_x;
    if (out->outputs > HEMI_STENCIL_WEIGHTS_MAX / out->taps / out->inputs)
        return hemi_fail(
            err, HEMI_ERR_UNSUPPORTED,
            "a convolution of %u outputs that reads %u positions of %u numbers has more than 2^26 weights: choose a "
            "smaller layer",
            out->outputs, out->taps, out->inputs);
    out->weight = hemi_alloc_large((size_t)out->outputs * out->taps * out->inputs, sizeof *out->weight);
    if (out->weight == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a convolution's weights");
    hemi_stencil_grid_weights(out->weight, &out->grid, s);
    return HEMI_OK;
}

hemi_status hemi_affine_from_stencil(hemi_affine *out, const hemi_stencil *stencil, hemi_error *err) {
    hemi_stencil trimmed;
    hemi_stencil_trim_shape(&trimmed, stencil);
    float *w = hemi_alloc_large(hemi_stencil_rows(&trimmed) * hemi_stencil_row(&trimmed), sizeof *w);
    if (w == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a convolution's weights");
    hemi_stencil_accumulate(w, &trimmed, stencil, 1);
    trimmed.w = w;
    const hemi_status status = take_grid(out, &trimmed, err);
    hemi_free(w);
    return status;
}

/* ---- convolutions */

static uint32_t one_if_zero(uint32_t v) { return v == 0 ? 1 : v; }

/* False if no window fits, or a number is out of range. */
static bool axis_of(hemi_stencil_axis *axis, const hemi_conv *c, size_t i) {
    const uint64_t in = i == 0 ? c->height : c->width, kernel = c->kernel[i], padding = c->padding[i];
    const uint64_t stride = one_if_zero(c->stride[i]), dilation = one_if_zero(c->dilation[i]);
    if (in == 0 || kernel == 0 || in > HEMI_GRID_SIDE_MAX || kernel > HEMI_GRID_SIDE_MAX ||
        padding > HEMI_GRID_SIDE_MAX || stride > HEMI_GRID_SIDE_MAX || dilation > HEMI_GRID_SIDE_MAX)
        return false;
    const uint64_t extent = (kernel - 1) * dilation + 1;
    if (extent > in + 2 * padding || extent > HEMI_STENCIL_SIDE_MAX) return false;
    *axis = (hemi_stencil_axis){.in = (uint32_t)in,
                                .out = (uint32_t)((in + 2 * padding - extent) / stride + 1),
                                .in_step = (uint32_t)stride,
                                .out_step = 1,
                                .size = (uint32_t)extent,
                                .first = -(int64_t)padding};
    return true;
}

bool hemi_conv_sides(const hemi_conv *conv, uint32_t out[2]) {
    hemi_stencil_axis axis;
    for (size_t i = 0; i < 2; i++) {
        if (!axis_of(&axis, conv, i)) return false;
        out[i] = axis.out;
    }
    return true;
}

static hemi_status stencil_of(hemi_stencil *s, const hemi_conv *c, hemi_error *err) {
    const uint32_t groups = one_if_zero(c->groups);
    if (c->in_channels == 0 || c->out_channels == 0 || c->in_channels > HEMI_GRID_SIDE_MAX ||
        c->out_channels > HEMI_GRID_SIDE_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "a convolution from %u to %u channels: 1 to %u", c->in_channels,
                         c->out_channels, HEMI_GRID_SIDE_MAX);
    if (c->in_channels % groups != 0 || c->out_channels % groups != 0)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u groups do not divide %u and %u channels", groups, c->in_channels,
                         c->out_channels);
    *s = (hemi_stencil){.in_channels = c->in_channels, .out_channels = c->out_channels};
    if (!axis_of(&s->y, c, 0) || !axis_of(&s->x, c, 1))
        return hemi_fail(err, HEMI_ERR_SHAPE,
                         "a window of %u x %u does not fit a sample of %u x %u, or a number is out of range",
                         c->kernel[0], c->kernel[1], c->height, c->width);
    if (!hemi_stencil_fits(s))
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "the convolution has more than 2^26 weights, or numbers in a sample");
    return HEMI_OK;
}

static void fill_stencil(float *to, const hemi_stencil *s, const hemi_conv *c, const float *weight) {
    const size_t groups = one_if_zero(c->groups), inputs = c->in_channels / groups, share = c->out_channels / groups;
    for (size_t o = 0; o < c->out_channels; o++)
        for (size_t i = 0; i < inputs; i++)
            for (size_t ky = 0; ky < c->kernel[0]; ky++)
                for (size_t kx = 0; kx < c->kernel[1]; kx++) {
                    const size_t y = ky * one_if_zero(c->dilation[0]), x = kx * one_if_zero(c->dilation[1]);
                    to[((o * s->y.size + y) * s->x.size + x) * c->in_channels + o / share * inputs + i] = *weight++;
                }
}

static hemi_status take_bias(hemi_affine *out, const hemi_conv *c, const float *bias, hemi_error *err) {
    if (bias == NULL) return HEMI_OK;
    out->bias = hemi_alloc(c->out_channels, sizeof *out->bias); /* out_step is 1: a number of a position is a channel */
    if (out->bias == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a bias");
    memcpy(out->bias, bias, c->out_channels * sizeof *bias);
    return HEMI_OK;
}

hemi_status hemi_affine_from_conv(hemi_affine *out, const hemi_conv *c, const float *weight, const float *bias,
                                  hemi_error *err) {
    hemi_stencil s;
    *out = (hemi_affine){0};
    HEMI_TRY(stencil_of(&s, c, err));
    float *w = hemi_alloc_large(hemi_stencil_weights(&s), sizeof *w);
    if (w == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a convolution's weights");
    fill_stencil(w, &s, c, weight);
    s.w = w;
    hemi_status status = hemi_affine_from_stencil(out, &s, err);
    hemi_free(w);
    if (status == HEMI_OK) status = take_bias(out, c, bias, err);
    if (status != HEMI_OK) {
        hemi_affine_free(out);
        return status;
    }
    out->in_rank = out->out_rank = 3;
    memcpy(out->in_shape, (const uint32_t[]){s.in_channels, s.y.in, s.x.in}, 3 * sizeof *out->in_shape);
    memcpy(out->out_shape, (const uint32_t[]){s.out_channels, s.y.out, s.x.out}, 3 * sizeof *out->out_shape);
    return HEMI_OK;
}
