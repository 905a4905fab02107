#include "linear/grid.h"

#include "base/error.h"

#define NUMBERS_MAX (UINT64_C(1) << 31) /* of a sample */

static hemi_status check_side(uint32_t v, const char *what, hemi_error *err) {
    if (v >= 1 && v <= HEMI_GRID_SIDE_MAX) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_SHAPE, "%s of %u: expected 1 to %u", what, v, HEMI_GRID_SIDE_MAX);
}

hemi_status hemi_grid_check(const hemi_grid *g, hemi_error *err) {
    const struct {
        uint32_t v;
        const char *what;
    } sides[] = {{g->in_channels, "input channels"},   {g->in_height, "an input height"}, {g->in_width, "an input width"},
                 {g->out_channels, "output channels"}, {g->out_height, "an output height"}, {g->out_width, "an output width"},
                 {g->in_step_y, "a step"},             {g->in_step_x, "a step"},          {g->out_step_y, "a step"},
                 {g->out_step_x, "a step"},            {g->taps_y, "a number of taps"},   {g->taps_x, "a number of taps"}};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) HEMI_TRY(check_side(sides[i].v, sides[i].what, err));
    if (g->in_skip_y > HEMI_GRID_SIDE_MAX || g->in_skip_x > HEMI_GRID_SIDE_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "rows and columns skipped by %u and %u: expected at most %u", g->in_skip_y, g->in_skip_x,
                         HEMI_GRID_SIDE_MAX);
    const int32_t far = (int32_t)HEMI_GRID_SIDE_MAX;
    if (g->origin_y < -far || g->origin_y > far || g->origin_x < -far || g->origin_x > far)
        return hemi_fail(err, HEMI_ERR_SHAPE, "an origin of (%d, %d): expected -%d to %d", g->origin_y, g->origin_x, far, far);
    const uint64_t in = (uint64_t)g->in_channels * g->in_height, out = (uint64_t)g->out_channels * g->out_height;
    if (in * g->in_width > NUMBERS_MAX || out * g->out_width > NUMBERS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "a sample has more than 2^31 numbers");
    const uint64_t inputs = (uint64_t)g->in_step_y * g->in_step_x, outputs = (uint64_t)g->out_step_y * g->out_step_x;
    if (inputs * g->in_channels > NUMBERS_MAX || outputs * g->out_channels > NUMBERS_MAX ||
        (uint64_t)g->taps_y * g->taps_x > NUMBERS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "a position of the grid has more than 2^31 numbers");
    return HEMI_OK;
}

uint32_t hemi_grid_inputs(const hemi_grid *g) { return g->in_channels * g->in_step_y * g->in_step_x; }
uint32_t hemi_grid_outputs(const hemi_grid *g) { return g->out_channels * g->out_step_y * g->out_step_x; }
uint32_t hemi_grid_rows(const hemi_grid *g) { return (g->out_height + g->out_step_y - 1) / g->out_step_y; }
uint32_t hemi_grid_columns(const hemi_grid *g) { return (g->out_width + g->out_step_x - 1) / g->out_step_x; }
