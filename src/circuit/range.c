#include "circuit/range.h"

#include <math.h>

#define LANES      HEMI_LANES
#define GRID       1024  /* places where a function is looked at */
#define GROWTH     10.0  /* how far beyond the data's values a function may rise within the margin */
#define OFF_CENTRE 0.125 /* of the radius: with a middle nearer to 0 the interval is made symmetric */
#define CONSTANT   1e-9  /* of the larger end: narrower is a constant */

void hemi_range_reset(hemi_range *range) { *range = (hemi_range){INFINITY, -INFINITY, 0, 0}; }

void hemi_range_add(hemi_range *range, const hemi_lanes *batch, size_t value) {
    const hemi_circuit_value *v = &batch->circuit->value[value];
    const size_t count = batch->groups * v->size * LANES;
    const double *x = v->kind == HEMI_CIRCUIT_FUNCTION ? batch->a[value] : batch->value[value];
    for (size_t i = 0; i < count; i++) {
        if (x[i] < range->low) range->low = x[i];
        if (x[i] > range->high) range->high = x[i];
    }
    if (v->kind != HEMI_CIRCUIT_PRODUCT) return;
    for (size_t i = 0; i < count; i++) {
        range->a = fmax(range->a, fabs(batch->a[value][i]));
        range->b = fmax(range->b, fabs(batch->b[value][i]));
    }
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

static bool is_constant(double low, double high) { return high - low <= CONSTANT * fmax(fabs(low), fabs(high)); }

bool hemi_range_interval(double *low, double *high, const hemi_range *reached, const hemi_range *seen, const hemi_function *f,
                         double margin) {
    const double from = reached->low, to = reached->high;
    double largest = 0;
    for (size_t i = 0; i <= GRID; i++) {
        const double value = hemi_function_value(f, i < GRID ? from + (to - from) * (double)i / GRID : to);
        if (!isfinite(value)) return false;
        largest = fmax(largest, fabs(value));
    }
    const double least = fmin(from, seen->low), most = fmax(to, seen->high), width = most - least;
    const bool constant = is_constant(least, most);
    const double more = constant ? 1 : (margin - 1) / 2 * width, limit = GROWTH * (largest + (constant ? 1 : width));
    double begin = extension(f, from, least - more, limit), end = extension(f, to, most + more, limit);
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
    const double more = is_constant(range->low, range->high) ? 0 : (margin - 1) / 2 * (range->high - range->low);
    *low = range->low - more;
    *high = range->high + more;
}
