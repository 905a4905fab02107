/* In rounds: intervals of all functions; degrees, on some samples; then, on all samples, what the values reach with the polynomials in place,
 * and the error. A round follows if an interval must grow, or if the error on all samples is larger than on those of the search. */
#include "circuit/calibrate.h"

#include <math.h>

#include "base/error.h"
#include "base/memory.h"
#include "circuit/degrees.h"
#include "circuit/range.h"

#define TOLERANCE      0.04
#define ROUNDS         5
#define SEARCH_SAMPLES 512
#define SEARCH_LEAST   32                  /* samples, though they be slow */
#define NUMBERS_MOST   (UINT64_C(1) << 25) /* in memory */
#define WORK_MOST      (UINT64_C(1) << 32) /* weights times samples */
#define SPREAD_SAMPLES 8                   /* fewer say nothing about the mean of an output */
#define SPREAD_LEAST   1e-6                /* of the rms: outputs that spread less are constant */
#define SHIFT          0.02                /* of the width: a growth of an interval that is worth a new fit */
#define STRAY          0.5                 /* of the width: how far beyond it a polynomial may widen a range in one round */
#define TIGHTER        0.9                 /* the tolerance of the next search, of what would have been right */

typedef struct calibration {
    hemi_circuit *circuit;
    const float *x;
    size_t samples, search; /* all; at once, and of the search */
    hemi_calibration options;
    hemi_lanes batch;
    hemi_degrees degrees;
    hemi_range *reached, *seen; /* with functions; with polynomials */
    double *truth, *first, *sum, *squares; /* outputs of a batch; of the first sample; sums, less the first */
    hemi_calibration_report report;
} calibration;

static bool is_function(const calibration *c, size_t i) { return c->circuit->value[i].kind == HEMI_CIRCUIT_FUNCTION; }
static size_t last_of(const calibration *c) { return c->circuit->values - 1; }
static uint32_t outputs_of(const calibration *c) { return c->circuit->value[last_of(c)].size; }

/* ---- passes over all samples */
static void keep_truth(calibration *c) {
    const size_t count = c->batch.groups * outputs_of(c) * HEMI_LANES;
    for (size_t i = 0; i < count; i++) c->truth[i] = c->batch.value[last_of(c)][i];
}

static void add_outputs(calibration *c, bool first) {
    const size_t outputs = outputs_of(c);
    for (size_t s = 0; s < c->batch.samples; s++)
        for (size_t i = 0; i < outputs; i++) {
            const double y = c->batch.value[last_of(c)][(s / HEMI_LANES * outputs + i) * HEMI_LANES + s % HEMI_LANES];
            if (first && s == 0) c->first[i] = y;
            c->sum[i] += y - c->first[i];
            c->squares[i] += (y - c->first[i]) * (y - c->first[i]);
            c->report.output_max = fmax(c->report.output_max, fabs(y));
        }
}

/* The rms of the outputs about their means. */
static double output_scale(const calibration *c) {
    const double samples = (double)c->samples;
    double plain = 0, spread = 0;
    for (size_t i = 0; i < outputs_of(c); i++) {
        const double mean = c->sum[i] / samples, variance = fmax(c->squares[i] / samples - mean * mean, 0);
        spread += variance;
        plain += variance + (c->first[i] + mean) * (c->first[i] + mean);
    }
    plain = sqrt(plain / outputs_of(c));
    spread = sqrt(spread / outputs_of(c));
    const double scale = c->samples < SPREAD_SAMPLES || spread < SPREAD_LEAST * plain ? plain : spread;
    return scale > 0 ? scale : 1;
}

/* polynomials false: what is reached, and the scale of outputs; true: what is seen, and the errors. */
static void pass(calibration *c, bool polynomials) {
    double squares = 0, largest = 0;
    for (size_t i = 0; i < c->circuit->values; i++) hemi_range_reset(polynomials ? &c->seen[i] : &c->reached[i]);
    for (size_t at = 0; at < c->samples; at += c->search) {
        const size_t count = c->samples - at < c->search ? c->samples - at : c->search;
        if (c->options.progress != NULL) c->options.progress(c->options.progress_context, "ranges", at, c->samples);
        hemi_lanes_load(&c->batch, c->x, at, count, count);
        hemi_lanes_run(&c->batch, NULL);
        if (polynomials) {
            keep_truth(c);
            hemi_lanes_run(&c->batch, c->degrees.chosen);
            hemi_degrees_compare(&squares, &largest, &c->batch, c->truth);
        } else {
            add_outputs(c, at == 0);
        }
        for (size_t i = 0; i < c->circuit->values; i++) hemi_range_add(polynomials ? &c->seen[i] : &c->reached[i], &c->batch, i);
    }
    if (c->options.progress != NULL) c->options.progress(c->options.progress_context, "ranges", c->samples, c->samples);
    if (!polynomials) {
        c->report.output_rms = output_scale(c);
        return;
    }
    c->report.error_rms = sqrt(squares / ((double)c->samples * outputs_of(c))) / c->report.output_rms;
    c->report.error_max = largest;
}

/* ---- rounds */
/* A polynomial that strays far (or to what is not a number) moves a range by a limited step only. */
static void limit_stray(hemi_range *seen, const hemi_range *reached, double low, double high) {
    const double most = STRAY * (high - low);
    if (!(seen->low >= fmin(low, reached->low) - most)) seen->low = fmin(low, reached->low) - most;
    if (!(seen->high <= fmax(high, reached->high) + most)) seen->high = fmax(high, reached->high) + most;
}

static hemi_status undefined(const calibration *c, size_t i, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                     "%s is not defined on all that the calibration data reaches, %.6g to %.6g; change what comes before it, or "
                     "leave it out of the module",
                     c->circuit->value[i].name, c->reached[i].low, c->reached[i].high);
}

/* Sets the intervals of all functions; *changed: whether one is not what it was, beyond a trifle. */
static hemi_status set_intervals(calibration *c, bool *changed, hemi_error *err) {
    hemi_degrees *d = &c->degrees;
    *changed = false;
    for (size_t i = 0; i < c->circuit->values; i++) {
        if (!is_function(c, i)) continue;
        double low, high;
        if (!isfinite(c->reached[i].low) || !isfinite(c->reached[i].high)) return undefined(c, i, err);
        if (d->high[i] > d->low[i]) limit_stray(&c->seen[i], &c->reached[i], d->low[i], d->high[i]);
        if (!hemi_range_interval(&low, &high, &c->reached[i], &c->seen[i], &c->circuit->value[i].function, c->options.margin))
            return undefined(c, i, err);
        const double shift = SHIFT * (d->high[i] - d->low[i]);
        if (low >= d->low[i] - shift && high <= d->high[i] + shift && shift > 0) continue;
        d->low[i] = shift > 0 ? fmin(low, d->low[i]) : low;
        d->high[i] = shift > 0 ? fmax(high, d->high[i]) : high;
        *changed = true;
    }
    return HEMI_OK;
}

/* The samples of the search, their outputs with functions, and the histograms. */
static void prepare_search(calibration *c) {
    hemi_degrees *d = &c->degrees;
    hemi_degrees_forget(d);
    hemi_lanes_load(&c->batch, c->x, 0, c->samples, c->search);
    hemi_lanes_run(&c->batch, NULL);
    keep_truth(c);
    for (size_t i = 0; i < c->circuit->values; i++)
        if (is_function(c, i))
            hemi_range_histogram(d->histogram + i * HEMI_DEGREES_BINS, HEMI_DEGREES_BINS, &c->batch, i, d->low[i], d->high[i]);
}

static hemi_status too_far(calibration *c, double error, hemi_error *err) {
    double alone;
    prepare_search(c);
    const size_t worst = hemi_degrees_worst(&c->degrees, &alone);
    const hemi_degrees *d = &c->degrees;
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                     "%s: no polynomial of degree %u or less is close enough on %.4g to %.4g: the error of the outputs is %.3g of their "
                     "rms (by this function alone %.3g), the tolerance is %.3g. Raise the tolerance, normalise before it (a smaller "
                     "range), or train with a smooth activation (GELU, SiLU)",
                     c->circuit->value[worst].name, d->degree_max, d->low[worst], d->high[worst], error, alone, c->options.tolerance);
}

static hemi_status fit_failed(const calibration *c, hemi_error *err) {
    if (c->degrees.status == HEMI_ERR_MEMORY) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for polynomials");
    for (size_t i = 0; i < c->circuit->values; i++)
        if (is_function(c, i) && c->degrees.degree[i] != 0 && c->degrees.chosen[i] == NULL) return undefined(c, i, err);
    return hemi_fail(err, c->degrees.status, "a function is not defined on its range");
}

/* Degrees as the options want them. *enough: within the tolerance on the samples of the search. */
static hemi_status choose_degrees(calibration *c, double tolerance, bool *enough, hemi_error *err) {
    hemi_degrees *d = &c->degrees;
    prepare_search(c);
    d->scale = c->report.output_rms;
    *enough = true;
    if (c->options.degree == 0) *enough = hemi_degrees_search(d, tolerance);
    for (size_t i = 0; c->options.degree != 0 && i < c->circuit->values; i++)
        if (is_function(c, i)) d->degree[i] = d->fixed[i] != 0 ? d->fixed[i] : c->options.degree;
    if (d->status != HEMI_OK || !hemi_degrees_choose(d)) return fit_failed(c, err);
    return HEMI_OK;
}

static hemi_status run_rounds(calibration *c, hemi_error *err) {
    double tolerance = c->options.tolerance;
    bool changed, enough, search = true;
    pass(c, false);
    for (size_t i = 0; i < c->circuit->values; i++) c->seen[i] = c->reached[i];
    HEMI_TRY(set_intervals(c, &changed, err));
    for (int round = 0; round < ROUNDS && search; round++) {
        HEMI_TRY(choose_degrees(c, tolerance, &enough, err));
        if (!enough && tolerance == c->options.tolerance) return too_far(c, hemi_degrees_error(&c->degrees), err);
        pass(c, true);
        const double error = c->report.error_rms;
        const bool good = c->options.degree != 0 || error <= c->options.tolerance;
        HEMI_TRY(set_intervals(c, &changed, err));
        search = changed || (!good && enough);
        if (!good && isfinite(error)) tolerance *= TIGHTER * c->options.tolerance / error;
    }
    if (c->options.degree == 0 && !(c->report.error_rms <= c->options.tolerance)) return too_far(c, c->report.error_rms, err);
    return HEMI_OK;
}

/* ---- in and out */
static hemi_status check(const calibration *c, hemi_error *err) {
    const hemi_circuit *circuit = c->circuit;
    const hemi_calibration *o = &c->options;
    if (circuit->values < 2 || circuit->values > HEMI_CIRCUIT_VALUES_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "a circuit has 2 to %d values, not %zu", HEMI_CIRCUIT_VALUES_MAX, circuit->values);
    if (!(o->tolerance > 0 && isfinite(o->tolerance)) || (o->margin != 0 && !(o->margin >= 1 && isfinite(o->margin))))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "the tolerance must be positive, the margin at least 1");
    if (o->degree_max > HEMI_CIRCUIT_DEGREE_MAX || o->degree > HEMI_CIRCUIT_DEGREE_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "a polynomial has degree 1 to %d", HEMI_CIRCUIT_DEGREE_MAX);
    if (c->samples == 0) return hemi_fail(err, HEMI_ERR_ARGUMENT, "there are no samples to calibrate with");
    const size_t size = circuit->value[0].size;
    for (size_t i = 0; i < c->samples * size; i++)
        if (!isfinite(c->x[i]))
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "number %zu of sample %zu of the calibration data is infinite or not a number",
                             i % size, i / size);
    return HEMI_OK;
}

/* As many as memory and time allow. */
static size_t search_samples(const calibration *c) {
    uint64_t weights = 1, most = SEARCH_SAMPLES;
    for (size_t i = 0; i < c->circuit->values; i++) {
        const hemi_circuit_value *v = &c->circuit->value[i];
        for (size_t t = 0; t < v->a.terms; t++) weights += hemi_sparse_count(&v->a.term[t].map);
        for (size_t t = 0; t < v->b.terms; t++) weights += hemi_sparse_count(&v->b.term[t].map);
    }
    if (most > WORK_MOST / weights) most = WORK_MOST / weights > SEARCH_LEAST ? WORK_MOST / weights : SEARCH_LEAST;
    const uint64_t fit = NUMBERS_MOST / hemi_lanes_numbers(c->circuit);
    if (most > fit) most = fit;
    if (most > HEMI_LANES) most -= most % HEMI_LANES;
    if (most == 0) most = 1;
    return c->samples < most ? c->samples : (size_t)most;
}

static hemi_status prepare(calibration *c, hemi_team *team, hemi_error *err) {
    const size_t values = c->circuit->values, outputs = outputs_of(c);
    c->search = search_samples(c);
    HEMI_TRY(hemi_lanes_new(&c->batch, c->circuit, c->search, team, err));
    HEMI_TRY(hemi_degrees_new(&c->degrees, c->circuit, &c->batch, err));
    c->reached = hemi_alloc(2 * values, sizeof *c->reached);
    c->first = hemi_alloc(3 * outputs, sizeof *c->first);
    c->truth = hemi_alloc(c->batch.most * outputs, HEMI_LANES * sizeof *c->truth);
    if (c->reached == NULL || c->first == NULL || c->truth == NULL)
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to calibrate a module with %zu outputs", outputs);
    c->seen = c->reached + values;
    c->sum = c->first + outputs;
    c->squares = c->sum + outputs;
    hemi_degrees *d = &c->degrees;
    d->truth = c->truth;
    d->degree_max = c->options.degree_max;
    d->progress = c->options.progress;
    d->progress_context = c->options.progress_context;
    const uint32_t most = c->options.degree != 0 ? c->options.degree : c->options.degree_max;
    for (size_t i = 0; i < values; i++) {
        const uint32_t exact = is_function(c, i) ? hemi_function_degree(&c->circuit->value[i].function) : 0;
        d->fixed[i] = exact < most ? exact : most;
    }
    return HEMI_OK;
}

static void finish(calibration *c) {
    for (size_t i = 0; i < c->circuit->values; i++) {
        hemi_circuit_value *v = &c->circuit->value[i];
        if (!is_function(c, i)) {
            hemi_range_widen(&v->low, &v->high, &c->seen[i], c->options.margin);
            const double margin = c->options.margin != 0 ? c->options.margin : HEMI_CIRCUIT_MARGIN;
            v->a_high = c->seen[i].a * margin;
            v->b_high = c->seen[i].b * margin;
            continue;
        }
        hemi_circuit_polynomial *p = &c->degrees.fitted[i * (HEMI_CIRCUIT_DEGREE_MAX + 1) + c->degrees.degree[i]];
        hemi_free(v->polynomial.coefficient);
        v->polynomial = *p;
        p->coefficient = NULL; /* it has moved */
        v->low = v->polynomial.middle - v->polynomial.radius;
        v->high = v->polynomial.middle + v->polynomial.radius;
    }
}

hemi_status hemi_circuit_calibrate(hemi_circuit *circuit, const float *x, size_t samples, const hemi_calibration *options,
                                   hemi_calibration_report *report, hemi_team *team, hemi_error *err) {
    calibration c = {.circuit = circuit, .x = x, .samples = samples};
    if (options != NULL) c.options = *options;
    if (c.options.tolerance == 0) c.options.tolerance = TOLERANCE;
    if (c.options.degree_max == 0) c.options.degree_max = HEMI_CIRCUIT_DEGREE_MAX;
    hemi_status status = check(&c, err);
    if (status == HEMI_OK) status = prepare(&c, team, err);
    if (status == HEMI_OK) status = run_rounds(&c, err);
    if (status == HEMI_OK) finish(&c);
    if (status == HEMI_OK && report != NULL) *report = c.report;
    hemi_degrees_clear(&c.degrees);
    hemi_lanes_clear(&c.batch);
    hemi_free(c.reached);
    hemi_free(c.first);
    hemi_free(c.truth);
    return status;
}
