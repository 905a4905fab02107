#include "model/affine.h"

#include "base/memory.h"

void hemi_affine_free(hemi_affine *map) {
    hemi_free(map->weight);
    hemi_free(map->bias);
    *map = (hemi_affine){0};
}

/* Number p of position i of an axis, whose rows are looked at every `skip`-th. */
static int64_t side_of(int64_t i, uint32_t step, uint32_t p, uint32_t skip) {
    return (i * (int64_t)step + p) * (skip != 0 ? skip : 1);
}

static size_t place(uint32_t channel, int64_t y, int64_t x, uint32_t height, uint32_t width) {
    if (y < 0 || x < 0 || y >= (int64_t)height || x >= (int64_t)width) return SIZE_MAX;
    return ((size_t)channel * height + (size_t)y) * width + (size_t)x;
}

size_t hemi_grid_output_place(const hemi_grid *g, uint32_t o, int64_t i, int64_t j) {
    return place(o / g->out_step_y / g->out_step_x, side_of(i, g->out_step_y, o / g->out_step_x % g->out_step_y, 1),
                 side_of(j, g->out_step_x, o % g->out_step_x, 1), g->out_height, g->out_width);
}

size_t hemi_grid_input_place(const hemi_grid *g, uint32_t c, int64_t i, int64_t j) {
    return place(c / g->in_step_y / g->in_step_x,
                 side_of(i, g->in_step_y, c / g->in_step_x % g->in_step_y, g->in_skip_y),
                 side_of(j, g->in_step_x, c % g->in_step_x, g->in_skip_x), g->in_height, g->in_width);
}

size_t hemi_affine_inputs(const hemi_affine *m) {
    return m->kind == HEMI_AFFINE_GRID ? (size_t)m->grid.in_channels * m->grid.in_height * m->grid.in_width : m->inputs;
}

size_t hemi_affine_outputs(const hemi_affine *m) {
    return m->kind == HEMI_AFFINE_GRID ? (size_t)m->grid.out_channels * m->grid.out_height * m->grid.out_width
                                       : m->outputs;
}

static double position(const hemi_affine *m, const float *x, uint32_t o, int64_t i, int64_t j) {
    const hemi_grid *g = &m->grid;
    const float *w = m->weight + (size_t)o * m->taps * m->inputs;
    double sum = 0;
    for (int64_t ty = 0; ty < (int64_t)g->taps_y; ty++)
        for (int64_t tx = 0; tx < (int64_t)g->taps_x; tx++)
            for (uint32_t c = 0; c < m->inputs; c++, w++) {
                const size_t at = hemi_grid_input_place(g, c, i + ty + g->origin_y, j + tx + g->origin_x);
                if (at != SIZE_MAX) sum += (double)*w * (double)x[at];
            }
    return sum;
}

void hemi_affine_apply(double *y, const hemi_affine *m, const float *x) {
    if (m->kind == HEMI_AFFINE_GRID) {
        for (uint32_t o = 0; o < m->outputs; o++)
            for (uint32_t i = 0; i < hemi_grid_rows(&m->grid); i++)
                for (uint32_t j = 0; j < hemi_grid_columns(&m->grid); j++) {
                    const size_t at = hemi_grid_output_place(&m->grid, o, i, j);
                    if (at != SIZE_MAX) y[at] = position(m, x, o, i, j) + (m->bias != NULL ? (double)m->bias[o] : 0);
                }
        return;
    }
    for (size_t o = 0; o < m->outputs; o++) {
        const float *w = m->weight + o * m->inputs;
        double sum = m->bias != NULL ? (double)m->bias[o] : 0;
        for (size_t j = 0; j < m->inputs; j++) sum += (double)w[j] * (double)x[j];
        y[o] = sum;
    }
}

/* Weights of output o at position (i, j), each to its input. */
static void spread(float *row, const hemi_affine *m, uint32_t o, int64_t i, int64_t j) {
    const hemi_grid *g = &m->grid;
    const float *w = m->weight + (size_t)o * m->taps * m->inputs;
    for (int64_t ty = 0; ty < (int64_t)g->taps_y; ty++)
        for (int64_t tx = 0; tx < (int64_t)g->taps_x; tx++)
            for (uint32_t c = 0; c < m->inputs; c++, w++) {
                const size_t at = hemi_grid_input_place(g, c, i + ty + g->origin_y, j + tx + g->origin_x);
                if (at != SIZE_MAX) row[at] = *w;
            }
}

bool hemi_affine_dense(hemi_affine *out, const hemi_affine *m) {
    const size_t inputs = hemi_affine_inputs(m), outputs = hemi_affine_outputs(m);
    float *weight = hemi_alloc(inputs * outputs, sizeof *weight);
    float *bias = m->bias != NULL ? hemi_alloc(outputs, sizeof *bias) : NULL;
    if (weight == NULL || (m->bias != NULL && bias == NULL)) {
        hemi_free(weight);
        hemi_free(bias);
        return false;
    }
    for (uint32_t o = 0; o < m->outputs; o++)
        for (uint32_t i = 0; i < hemi_grid_rows(&m->grid); i++)
            for (uint32_t j = 0; j < hemi_grid_columns(&m->grid); j++) {
                const size_t at = hemi_grid_output_place(&m->grid, o, i, j);
                if (at == SIZE_MAX) continue;
                spread(weight + at * inputs, m, o, i, j);
                if (bias != NULL) bias[at] = m->bias[o];
            }
    *out = *m;
    out->kind = HEMI_AFFINE_DENSE;
    out->inputs = (uint32_t)inputs;
    out->outputs = (uint32_t)outputs;
    out->taps = 1;
    out->weight = weight;
    out->bias = bias;
    return true;
}
