#include "linear/units.h"

size_t hemi_units_of_rows(const hemi_linear_layout *l, size_t rows) { return rows / l->rows + (rows % l->rows != 0); }

static uint32_t tiles_across(const hemi_linear_layout *l, const hemi_grid *g) {
    return (hemi_grid_columns(g) + l->tile_x - 1) / l->tile_x;
}

size_t hemi_units_of_sample(const hemi_linear_layout *l, const hemi_grid *g) {
    return (size_t)((hemi_grid_rows(g) + l->tile_y - 1) / l->tile_y) * tiles_across(l, g);
}

static void inputs_of_rows(size_t *index, const hemi_linear_layout *l, size_t rows, size_t unit, uint32_t first) {
    const uint32_t places = hemi_linear_input_places(l);
    for (uint32_t u = 0; u < places; u++) {
        const size_t row = unit * l->rows + u / l->fan;
        const bool there = u % l->fan == 0 && u / l->fan < l->rows && row < rows;
        for (uint32_t j = 0; j < l->block_inputs; j++)
            *index++ = there && first + j < l->inputs ? row * l->inputs + first + j : HEMI_UNIT_NOTHING;
    }
}

/* One axis of a tensor that is seen coarsely: position i holds rows (i step + p) skip, p < step, of `side`. */
typedef struct axis {
    uint32_t step, skip, side;
} axis;

/* Number `c` of coarse position (y, x): where it is in a tensor of the sides given, if it is in it. */
static size_t place_in(uint32_t c, int64_t y, int64_t x, axis vertical, axis horizontal) {
    const uint32_t step = vertical.step * horizontal.step, channel = c / step;
    const int64_t i = (y * vertical.step + c % step / horizontal.step) * vertical.skip;
    const int64_t j = (x * horizontal.step + c % horizontal.step) * horizontal.skip;
    if (i < 0 || j < 0 || i >= vertical.side || j >= horizontal.side) return HEMI_UNIT_NOTHING;
    return ((size_t)channel * vertical.side + (size_t)i) * horizontal.side + (size_t)j;
}

static uint32_t skip_of(uint32_t stated) { return stated ? stated : 1; }

static void inputs_of_grid(size_t *index, const hemi_linear_layout *l, const hemi_grid *g, size_t unit, uint32_t first) {
    const uint32_t places = hemi_linear_input_places(l), across = tiles_across(l, g);
    const int64_t top = (int64_t)(unit / across) * l->tile_y + g->origin_y, left = (int64_t)(unit % across) * l->tile_x + g->origin_x;
    const axis vertical = {g->in_step_y, skip_of(g->in_skip_y), g->in_height}, horizontal = {g->in_step_x, skip_of(g->in_skip_x), g->in_width};
    for (uint32_t u = 0; u < places; u++)
        for (uint32_t j = 0; j < l->block_inputs; j++)
            *index++ = first + j < l->inputs ? place_in(first + j, top + u / l->pitch, left + u % l->pitch, vertical, horizontal)
                                             : HEMI_UNIT_NOTHING;
}

void hemi_unit_inputs(size_t *index, const hemi_linear_layout *l, const hemi_grid *g, size_t rows, size_t unit, uint32_t block) {
    if (g)
        inputs_of_grid(index, l, g, unit, block * l->block_inputs);
    else
        inputs_of_rows(index, l, rows, unit, block * l->block_inputs);
}

static void outputs_of_rows(size_t *index, const hemi_linear_layout *l, size_t rows, size_t unit, uint32_t first) {
    for (uint32_t r = 0; r < l->rows; r++) {
        const size_t row = unit * l->rows + r;
        for (uint32_t o = 0; o < l->block_outputs; o++)
            *index++ = row < rows && first + o < l->outputs ? row * l->outputs + first + o : HEMI_UNIT_NOTHING;
    }
}

static void outputs_of_grid(size_t *index, const hemi_linear_layout *l, const hemi_grid *g, size_t unit, uint32_t first) {
    const uint32_t across = tiles_across(l, g), places = hemi_linear_places(l);
    const int64_t top = (int64_t)(unit / across) * l->tile_y, left = (int64_t)(unit % across) * l->tile_x;
    const axis vertical = {g->out_step_y, 1, g->out_height}, horizontal = {g->out_step_x, 1, g->out_width};
    for (uint32_t p = 0; p < places; p++)
        for (uint32_t o = 0; o < l->block_outputs; o++)
            *index++ = first + o < l->outputs ? place_in(first + o, top + p / l->tile_x, left + p % l->tile_x, vertical, horizontal)
                                              : HEMI_UNIT_NOTHING;
}

void hemi_unit_outputs(size_t *index, const hemi_linear_layout *l, const hemi_grid *g, size_t rows, size_t unit, uint32_t block) {
    if (g)
        outputs_of_grid(index, l, g, unit, block * l->block_outputs);
    else
        outputs_of_rows(index, l, rows, unit, block * l->block_outputs);
}
