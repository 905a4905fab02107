#include "model/quantise.h"

#include <math.h>

#include "base/error.h"
#include "model/plan.h"

#define INT16_LARGEST 32767.0
#define INT8_LARGEST  127.0
#define BYTE_BITS     8
#define EVIDENCE      8 /* weights, besides the largest of their rows, that must lie on a grid before it is believed */

static size_t weights_of_row(const hemi_affine *map) { return (size_t)map->taps * map->inputs; }

hemi_status hemi_weight_range_of(hemi_weight_range *range, const hemi_affine *map, hemi_error *err) {
    *range = (hemi_weight_range){0};
    const size_t count = weights_of_row(map);
    for (size_t o = 0; o < map->outputs; o++) {
        const float *row = map->weight + o * count;
        double largest = 0;
        bool finite = map->bias == NULL || isfinite(map->bias[o]);
        for (size_t j = 0; j < count; j++) {
            const double v = fabs((double)row[j]);
            finite &= isfinite(v) != 0;
            if (v > largest) largest = v;
        }
        if (!finite)
            return hemi_fail(err, HEMI_ERR_ARGUMENT,
                             "the weights of output %zu hold a number that is infinite or not a number", o);
        range->max = fmax(range->max, largest);
        if (largest > 0 && (range->min_channel_max == 0 || largest < range->min_channel_max))
            range->min_channel_max = largest;
    }
    return HEMI_OK;
}

/* Whether every weight is a multiple of s, up to the rounding of float32. */
static bool on_grid(const hemi_affine *map, double s) {
    const size_t count = weights_of_row(map);
    size_t evidence = 0;
    for (size_t o = 0; o < map->outputs; o++) {
        const float *row = map->weight + o * count;
        double largest = 0;
        size_t others = 0;
        for (size_t j = 0; j < count; j++) {
            const double v = fabs((double)row[j]) / s;
            if (fabs(v - rint(v)) > 1e-3 + 3e-7 * v) return false;
            if (v > largest) largest = v;
            others += v > 0.5;
        }
        evidence += others > 0 ? others - 1 : 0;
    }
    return evidence >= EVIDENCE;
}

double hemi_weight_scale(const hemi_affine *map, const hemi_weight_range *range, int bits) {
    if (range->max == 0) return 1;
    const double steps = (double)((1 << (bits - 1)) - 1);
    const double wanted = fmax(range->min_channel_max, range->max / HEMI_GUARD_FACTOR) / steps;
    const double least = range->max / (INT16_LARGEST + 0.49); /* the largest weight still rounds to 32767 */
    const double s = fmax(wanted, least);
    if (on_grid(map, s)) return s;
    if (bits == BYTE_BITS && range->max <= HEMI_BYTE_FACTOR * range->min_channel_max) {
        const double byte = range->max / (INT8_LARGEST + 0.49), below = hemi_grid_floor(byte);
        return below >= byte ? below : below * exp2(1.0 / HEMI_GRID_STEPS);
    }
    const double rounded = hemi_grid_floor(s);
    return rounded >= least ? rounded : rounded * exp2(1.0 / HEMI_GRID_STEPS);
}

void hemi_weight_quantise(hemi_weight_sums *sums, int16_t *weights, const hemi_affine *map, double scale,
                          double output_scale, double input_max, const double *moment, size_t step) {
    const double inverse = 1 / scale;
    const size_t count = weights_of_row(map);
    size_t rows = 0;
    *sums = (hemi_weight_sums){.bound = input_max};
    for (size_t o = 0; o < map->outputs; o += step, rows++) {
        const float *row = map->weight + o * count;
        double sum = 0, squares = 0, error = 0, largest = 0;
        for (size_t j = 0, input = 0; j < count; j++, input = input + 1 < map->inputs ? input + 1 : 0) {
            const double exact = (double)row[j] * inverse, v = rint(exact);
            if (weights != NULL) weights[o * count + j] = (int16_t)v;
            sum += fabs(v);
            squares += v * v;
            if (fabs(v) > largest) largest = fabs(v);
            if (moment != NULL) error += (exact - v) * (exact - v) * moment[input];
        }
        const double bias = map->bias != NULL ? fabs((double)map->bias[o]) / output_scale : 0;
        sums->bound = fmax(sums->bound, sum * input_max + bias);
        sums->bias = fmax(sums->bias, bias);
        sums->norm2 += squares;
        sums->error2 += error * scale * scale;
        sums->largest = (int32_t)fmax(sums->largest, largest);
    }
    sums->norm2 /= (double)rows;
    sums->error2 /= (double)rows;
}
