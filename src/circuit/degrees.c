#include "circuit/degrees.h"

#include <math.h>

#include "base/error.h"
#include "base/memory.h"

#define LANES HEMI_LANES
#define FITS  (HEMI_CIRCUIT_DEGREE_MAX + 1) /* for each value */

hemi_status hemi_degrees_new(hemi_degrees *d, const hemi_circuit *circuit, hemi_lanes *batch, hemi_error *err) {
    const size_t values = circuit->values;
    *d = (hemi_degrees){.circuit = circuit, .batch = batch, .degree_max = HEMI_CIRCUIT_DEGREE_MAX};
    d->degree = hemi_alloc(2 * values, sizeof *d->degree);
    d->low = hemi_alloc((2 + HEMI_DEGREES_BINS) * values, sizeof *d->low);
    d->chosen = hemi_alloc(values, sizeof *d->chosen);
    d->fitted = hemi_alloc(values * FITS, sizeof *d->fitted);
    if (d->degree == NULL || d->low == NULL || d->chosen == NULL || d->fitted == NULL) {
        hemi_degrees_clear(d);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the polynomials of %zu values", values);
    }
    d->fixed = d->degree + values;
    d->high = d->low + values;
    d->histogram = d->high + values;
    return HEMI_OK;
}

void hemi_degrees_forget(hemi_degrees *d) {
    if (d->fitted == NULL) return;
    for (size_t i = 0; i < d->circuit->values; i++) {
        for (size_t k = 0; k < FITS; k++) {
            hemi_free(d->fitted[i * FITS + k].coefficient);
            d->fitted[i * FITS + k] = (hemi_circuit_polynomial){0};
        }
        if (d->circuit->value[i].kind == HEMI_CIRCUIT_FUNCTION) hemi_lanes_touch(d->batch, i);
    }
}

void hemi_degrees_clear(hemi_degrees *d) {
    if (d->batch != NULL && d->batch->stale != NULL) hemi_degrees_forget(d);
    hemi_free(d->degree);
    hemi_free(d->low);
    hemi_free(d->chosen);
    hemi_free(d->fitted);
    *d = (hemi_degrees){0};
}

/* ---- errors */
/* NULL: see d->status. */
static const hemi_circuit_polynomial *fitted(hemi_degrees *d, size_t i, uint32_t degree) {
    hemi_circuit_polynomial *p = &d->fitted[i * FITS + degree];
    if (p->coefficient != NULL) return p;
    double *c = hemi_alloc((size_t)degree + 1, sizeof *c);
    const double middle = (d->low[i] + d->high[i]) / 2, radius = (d->high[i] - d->low[i]) / 2;
    if (c == NULL || !hemi_chebyshev_fit(c, degree, &d->circuit->value[i].function, middle, radius,
                                         d->histogram + i * HEMI_DEGREES_BINS, HEMI_DEGREES_BINS)) {
        d->status = c == NULL ? HEMI_ERR_MEMORY : HEMI_ERR_UNSUPPORTED;
        hemi_free(c);
        return NULL;
    }
    *p = (hemi_circuit_polynomial){degree, c, middle, radius};
    return p;
}

bool hemi_degrees_choose(hemi_degrees *d) {
    for (size_t i = 0; i < d->circuit->values; i++) {
        d->chosen[i] = d->degree[i] != 0 ? fitted(d, i, d->degree[i]) : NULL;
        if (d->degree[i] != 0 && d->chosen[i] == NULL) return false;
    }
    return true;
}

void hemi_degrees_compare(double *squares, double *largest, const hemi_lanes *batch, const double *truth) {
    const size_t last = batch->circuit->values - 1, size = batch->circuit->value[last].size;
    const double *y = batch->value[last];
    for (size_t g = 0; g < batch->groups; g++) {
        const size_t rest = batch->samples - g * LANES, lanes = rest < LANES ? rest : LANES;
        for (size_t i = g * size; i < (g + 1) * size; i++)
            for (size_t k = 0; k < lanes; k++) {
                const double error = y[i * LANES + k] - truth[i * LANES + k];
                *squares += error * error;
                if (!(fabs(error) <= *largest)) *largest = fabs(error);
            }
    }
}

double hemi_degrees_error(hemi_degrees *d) {
    if (!hemi_degrees_choose(d)) return INFINITY;
    hemi_lanes_run(d->batch, d->chosen);
    double squares = 0, largest = 0;
    hemi_degrees_compare(&squares, &largest, d->batch, d->truth);
    const double count = (double)d->batch->samples * (double)d->circuit->value[d->circuit->values - 1].size;
    return isfinite(squares) ? sqrt(squares / count) / d->scale : INFINITY;
}

/* ---- the search */
static bool is_free(const hemi_degrees *d, size_t i) {
    return d->circuit->value[i].kind == HEMI_CIRCUIT_FUNCTION && d->fixed[i] == 0;
}

/* Sets all degrees: of free functions to `degree`, of others to what they have. */
static void set_all(hemi_degrees *d, uint32_t degree) {
    for (size_t i = 0; i < d->circuit->values; i++) d->degree[i] = is_free(d, i) ? degree : d->fixed[i];
}

/* Whether the outputs are within the tolerance with another degree of one function; if so it stays. */
static bool lower(hemi_degrees *d, size_t i, uint32_t degree, double tolerance) {
    const uint32_t before = d->degree[i];
    d->degree[i] = degree;
    if (hemi_degrees_error(d) <= tolerance) return true;
    d->degree[i] = before;
    return false;
}

/* The largest degree of one level less; 0 at one level. */
static uint32_t level_below(uint32_t degree) {
    uint32_t below = 1;
    while (2 * below + 1 < degree) below = 2 * below + 1;
    return degree > 1 ? below : 0;
}

/* One level less for as many functions as can be, those first that mind it least. */
static bool lower_levels(hemi_degrees *d, double tolerance) {
    const size_t values = d->circuit->values;
    double error[HEMI_CIRCUIT_VALUES_MAX];
    bool any = false;
    for (size_t i = 0; i < values; i++) {
        const uint32_t before = d->degree[i], below = is_free(d, i) ? level_below(before) : 0;
        error[i] = INFINITY;
        if (below == 0) continue;
        d->degree[i] = below;
        error[i] = hemi_degrees_error(d);
        d->degree[i] = before;
    }
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i < values; i++)
            if (error[i] < error[best]) best = i;
        if (!(error[best] <= tolerance)) return any;
        error[best] = INFINITY;
        any |= lower(d, best, level_below(d->degree[best]), tolerance);
    }
}

/* Within its level; one that is a level lower was tried before. */
static void lower_degree(hemi_degrees *d, size_t i, double tolerance) {
    uint32_t least = level_below(d->degree[i]) + 1;
    while (least < d->degree[i]) {
        const uint32_t middle = (least + d->degree[i]) / 2;
        if (!lower(d, i, middle, tolerance)) least = middle + 1;
    }
}

/* What is left of the tolerance is shared out evenly, in squares. The last function comes first: its errors are computed the fastest. */
static void lower_degrees(hemi_degrees *d, double tolerance) {
    size_t count = 0, done = 0;
    for (size_t i = 0; i < d->circuit->values; i++) count += is_free(d, i);
    const double error = hemi_degrees_error(d), rest = tolerance * tolerance - error * error;
    for (size_t i = d->circuit->values; i-- > 0;) {
        if (!is_free(d, i)) continue;
        if (d->progress != NULL) d->progress(d->progress_context, "degrees", done, count);
        done++;
        lower_degree(d, i, done == count ? tolerance : sqrt(error * error + rest * (double)done / (double)count));
    }
    if (d->progress != NULL) d->progress(d->progress_context, "degrees", count, count);
}

bool hemi_degrees_search(hemi_degrees *d, double tolerance) {
    for (uint32_t degree = 1;; degree = 2 * degree + 1) {
        const bool last = degree >= d->degree_max;
        set_all(d, last ? d->degree_max : degree);
        if (hemi_degrees_error(d) <= tolerance) break;
        if (last || d->status != HEMI_OK) return false;
    }
    while (lower_levels(d, tolerance)) {}
    lower_degrees(d, tolerance);
    return d->status == HEMI_OK;
}

size_t hemi_degrees_worst(hemi_degrees *d, double *error) {
    size_t worst = 0;
    *error = 0;
    for (size_t i = 0; i < d->circuit->values; i++) {
        if (!is_free(d, i)) continue;
        for (size_t j = 0; j < d->circuit->values; j++) d->degree[j] = 0;
        d->degree[i] = d->degree_max;
        const double e = hemi_degrees_error(d);
        if (worst != 0 && e <= *error) continue;
        worst = i;
        *error = e;
    }
    return worst;
}
