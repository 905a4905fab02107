#include "circuit/range.h"

#include <math.h>

#include "circuit/calibrate.h"

#define LANES      HEMI_LANES
#define GRID       1024  /* places where a function is looked at */
#define GROWTH     10.0  /* how far beyond the data's values a function may rise within the margin */
#define OFF_CENTRE 0.125 /* of the radius: with a middle nearer to 0 the interval is made symmetric */
#define CONSTANT   1e-9  /* of the larger end: narrower is a constant */
#define EULER      0.57721566490153286061

void hemi_range_reset(hemi_range *range) { *range = (hemi_range){.low = INFINITY, .high = -INFINITY}; }

/* Of the samples of one group. */
static void add_group(hemi_range *range, const double *x, size_t size, size_t samples) {
    double low[LANES], high[LANES];
    for (size_t k = 0; k < LANES; k++) low[k] = INFINITY, high[k] = -INFINITY;
    for (size_t i = 0; i < size; i++)
        for (size_t k = 0; k < LANES; k++) {
            const double v = x[i * LANES + k];
            low[k] = v < low[k] ? v : low[k];
            high[k] = v > high[k] ? v : high[k];
        }
    for (size_t k = 0; k < LANES && k < samples; k++) {
        range->low = fmin(range->low, low[k]);
        range->high = fmax(range->high, high[k]);
        const double square[2] = {low[k] < 0 ? low[k] * low[k] : 0, high[k] > 0 ? high[k] * high[k] : 0};
        for (int side = 0; side < 2; side++) {
            range->sum[side] += square[side];
            range->squares[side] += square[side] * square[side];
        }
        range->samples++;
    }
}

void hemi_range_add(hemi_range *range, const hemi_lanes *batch, size_t value) {
    const hemi_circuit_value *v = &batch->circuit->value[value];
    const size_t count = batch->groups * v->size * LANES;
    const double *x = v->kind == HEMI_CIRCUIT_FUNCTION ? batch->a[value] : batch->value[value];
    for (size_t g = 0; g < batch->groups; g++) add_group(range, x + g * v->size * LANES, v->size, batch->samples - g * LANES);
    if (v->kind != HEMI_CIRCUIT_PRODUCT) return;
    for (size_t i = 0; i < count; i++) {
        range->a = fmax(range->a, fabs(batch->a[value][i]));
        range->b = fmax(range->b, fabs(batch->b[value][i]));
    }
}

/* What one sample in HEMI_CIRCUIT_OUTSIDE exceeds on that side if the squares of the samples' extremes follow Gumbel's law, as those of
 * normal numbers nearly do, whichever of the numbers vary most. */
static double rare(const hemi_range *range, int side) {
    const double mean = range->sum[side] / (double)range->samples;
    const double variance = fmax(range->squares[side] / (double)range->samples - mean * mean, 0);
    return sqrt(fmax(mean + sqrt(6 * variance) / acos(-1.0) * (log(HEMI_CIRCUIT_OUTSIDE) - EULER), 0));
}

static bool is_constant(double low, double high) { return high - low <= CONSTANT * fmax(fabs(low), fabs(high)); }

void hemi_range_margins(double more[2], const hemi_range *range, double margin) {
    const double width = range->high - range->low, most = (HEMI_CIRCUIT_MARGIN_MAX - 1) / 2 * width;
    const double least = ((margin != 0 ? margin : HEMI_CIRCUIT_MARGIN) - 1) / 2 * width;
    more[0] = more[1] = is_constant(range->low, range->high) ? 0 : least;
    if (margin != 0 || is_constant(range->low, range->high)) return;
    if (range->low < 0) more[0] = fmin(fmax(least, range->low + rare(range, 0)), most);
    if (range->high > 0) more[1] = fmin(fmax(least, rare(range, 1) - range->high), most);
}

void hemi_range_histogram(double *count, size_t bins, const hemi_lanes *batch, size_t value, double low, double high) {
    const size_t numbers = batch->groups * batch->circuit->value[value].size * LANES;
    for (size_t i = 0; i < bins; i++) count[i] = 0;
    for (size_t i = 0; i < numbers; i++) {
        const double at = (batch->a[value][i] - low) / (high - low) * (double)bins;
        if (at >= 0 && at < (double)bins) count[(size_t)at]++;
    }
}

/* The part of the way from `from` to from + by that f can be taken: to half of where it first leaves [-limit, limit]. */
static double reach(const hemi_function *f, double from, double by, double limit) {
    for (size_t i = 1; i <= GRID; i++)
        if (!(fabs(hemi_function_value(f, from + by * (double)i / GRID)) <= limit)) return (double)(i - 1) / (2 * GRID);
    return 1;
}

static double extension(const hemi_function *f, double from, double to, double limit) {
    return from == to ? from : from + (to - from) * reach(f, from, to - from, limit);
}

bool hemi_range_interval(double *low, double *high, const hemi_range *reached, const hemi_range *seen, const hemi_function *f,
                         double margin) {
    const double from = reached->low, to = reached->high;
    double largest = 0;
    for (size_t i = 0; i <= GRID; i++) {
        const double value = hemi_function_value(f, i < GRID ? from + (to - from) * (double)i / GRID : to);
        if (!isfinite(value)) return false;
        largest = fmax(largest, fabs(value));
    }
    hemi_range all = *reached;
    all.low = fmin(from, seen->low);
    all.high = fmax(to, seen->high);
    const bool constant = is_constant(all.low, all.high);
    double more[2] = {1, 1};
    if (!constant) hemi_range_margins(more, &all, margin);
    const double limit = GROWTH * (largest + (constant ? 1 : all.high - all.low));
    double begin = extension(f, from, all.low - more[0], limit), end = extension(f, to, all.high + more[1], limit);
    const double middle = (begin + end) / 2, radius = (end - begin) / 2;
    if (!constant && middle != 0 && fabs(middle) <= OFF_CENTRE * radius) {
        const double wide = fmax(-begin, end);
        if (reach(f, begin, -wide - begin, limit) == 1 && reach(f, end, wide - end, limit) == 1) begin = -wide, end = wide;
    }
    *low = begin;
    *high = end;
    return end > begin;
}

void hemi_range_widen(double *low, double *high, const hemi_range *range, double margin) {
    double more[2];
    hemi_range_margins(more, range, margin);
    *low = range->low - more[0];
    *high = range->high + more[1];
}
