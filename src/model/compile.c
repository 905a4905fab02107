/* From a map and calibration data to a module. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/module.h"
#include "model/onnx.h"
#include "model/plan.h"
#include "model/quantise.h"
#include "random/sample.h"

#define DEFAULT_SET        "L4096"
#define DEFAULT_INPUT_BITS 16
#define INPUT_BITS_MIN     2
#define INPUT_BITS_MAX     16
#define B_BITS_MIN         8
/* The widths that weight_bits = 0 chooses from. */
#define CHOICE_BITS_MIN 6
#define CHOICE_BITS_MAX 14
#define CHOICE_ROWS     128 /* outputs looked at for the choice */
#define OUTPUT_ROWS     64  /* rows of one step of output_max */

typedef struct compilation {
    const hemi_compile_options *options; /* never NULL */
    hemi_affine map;
    const float *x; /* may be NULL */
    size_t rows;
    double *moment;     /* mean square of each input */
    double input_scale; /* largest |x| / input_max */
    double
        shrink; /* mean square of a row's largest input over the largest of all: rows are scaled up, their noise down */
    int input_bits;
    hemi_weight_range range;
    hemi_module *module;
} compilation;

static void report(const compilation *c, const char *what, size_t done, size_t total) {
    if (c->options->progress != NULL) c->options->progress(c->options->progress_context, what, done, total);
}

static hemi_status check_options(const hemi_compile_options *o, const hemi_params **params, hemi_error *err) {
    if (o->weight_bits != 0 && (o->weight_bits < HEMI_WEIGHT_BITS_MIN || o->weight_bits > HEMI_WEIGHT_BITS_MAX))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "weight_bits is %d: %d to %d, or 0 to choose", o->weight_bits,
                         HEMI_WEIGHT_BITS_MIN, HEMI_WEIGHT_BITS_MAX);
    if (o->input_bits != 0 && (o->input_bits < INPUT_BITS_MIN || o->input_bits > INPUT_BITS_MAX))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "input_bits is %d: %d to %d, or 0 for %d", o->input_bits,
                         INPUT_BITS_MIN, INPUT_BITS_MAX, DEFAULT_INPUT_BITS);
    const char *set = o->set != NULL ? o->set : DEFAULT_SET;
    *params = hemi_params_by_name(set);
    if (*params == NULL)
        return hemi_fail(err, HEMI_ERR_PARAMS, "there is no parameter set '%.40s'; the default is %s", set,
                         DEFAULT_SET);
    const unsigned q_bits = 64u - (unsigned)__builtin_clzll((*params)->q);
    if (o->b_bits != 0 && (o->b_bits < B_BITS_MIN || o->b_bits > q_bits))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "b_bits is %u: %d to %u, or 0 to choose", o->b_bits, B_BITS_MIN,
                         q_bits);
    return HEMI_OK;
}

static hemi_status check_shape(const uint32_t *shape, size_t rank, size_t *rows, hemi_error *err) {
    if (shape == NULL || rank < 1 || rank > HEMI_SHAPE_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the calibration data has %zu dimensions: 1 to %d", rank, HEMI_SHAPE_MAX);
    *rows = 1;
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] == 0) return hemi_fail(err, HEMI_ERR_SHAPE, "dimension %zu of the calibration data is 0", i);
        if (i + 1 < rank && shape[i] > SIZE_MAX / 16 / shape[rank - 1] / *rows)
            return hemi_fail(err, HEMI_ERR_SHAPE, "the calibration data is too large");
        if (i + 1 < rank) *rows *= shape[i];
    }
    return HEMI_OK;
}

/* The shape of one call: the first dimension is 1; a lone row gets one. */
static void set_shape(hemi_module_info *info, const uint32_t *shape, size_t rank) {
    const size_t added = rank == 1 ? 1 : 0;
    info->shape_rank = rank + added;
    memcpy(info->shape + added, shape, rank * sizeof *shape);
    info->shape[0] = 1;
}

static hemi_status calibrate(compilation *c, hemi_error *err) {
    const size_t d = c->map.inputs, rows = c->x != NULL ? c->rows : 0;
    c->moment = hemi_alloc(d, sizeof *c->moment);
    if (c->moment == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu inputs", d);
    double peak = 0, peaks2 = 0;
    for (size_t i = 0; i < rows; i++) {
        double row_peak = 0;
        for (size_t j = 0; j < d; j++) {
            const double v = fabs((double)c->x[i * d + j]);
            if (!isfinite(v))
                return hemi_fail(err, HEMI_ERR_ARGUMENT,
                                 "row %zu of the calibration data holds a value that is infinite or not a number", i);
            if (v > row_peak) row_peak = v;
            c->moment[j] += v * v;
        }
        peaks2 += row_peak * row_peak;
        if (row_peak > peak) peak = row_peak;
    }
    const double input_max = (double)((1 << (c->input_bits - 1)) - 1);
    c->shrink = peak > 0 ? peaks2 / (peak * peak) / (double)rows : 1;
    for (size_t j = 0; j < d; j++) c->moment[j] = peak > 0 ? c->moment[j] / (double)rows : 1.0 / 3;
    c->input_scale = (peak > 0 ? peak : 1) / input_max;
    return HEMI_OK;
}

/* Quantises with so many bits; into the module if weights, otherwise only looks at some of the rows. */
static hemi_status try_bits(const compilation *c, int bits, int16_t *weights, hemi_weight_sums *sums, hemi_plan *plan,
                            double *scale, hemi_error *err) {
    const double input_max = (double)((1 << (c->input_bits - 1)) - 1);
    const size_t step = weights != NULL ? 1 : (c->map.outputs + CHOICE_ROWS - 1) / CHOICE_ROWS;
    *scale = hemi_weight_scale(&c->map, &c->range, bits);
    hemi_weight_quantise(sums, weights, &c->map, *scale, *scale * c->input_scale, input_max, c->moment, step);
    const hemi_status status =
        hemi_plan_make(plan, &c->module->layout, sums->norm2, sums->bound, c->options->b_bits,
                       c->options->delta_max, err);
    if (status == HEMI_ERR_UNSUPPORTED && sums->bias > sums->bound / 2)
        return hemi_fail(
            err, status,
            "the bias is out of proportion to the weights and inputs: leave it out and add it on the client");
    return status;
}

/* The width with the least error of a result: that of the rounded weights on the calibration data, and the noise. */
static hemi_status choose_bits(const compilation *c, int *bits, hemi_error *err) {
    double best = INFINITY;
    hemi_status status = HEMI_OK;
    *bits = 0;
    for (int b = CHOICE_BITS_MIN; b <= CHOICE_BITS_MAX; b++) {
        hemi_weight_sums sums;
        hemi_plan plan;
        double scale = 0;
        report(c, "choose weight_bits", (size_t)(b - CHOICE_BITS_MIN), CHOICE_BITS_MAX - CHOICE_BITS_MIN + 1);
        const hemi_status tried = try_bits(c, b, NULL, &sums, &plan, &scale, *bits == 0 ? err : NULL);
        if (tried != HEMI_OK) {
            status = tried;
            break;
        }
        const double unit = scale * c->input_scale / (double)plan.delta;
        const double error = sums.error2 + plan.variance * c->shrink * unit * unit;
        if (error < best) {
            best = error;
            *bits = b;
        }
    }
    return *bits != 0 ? HEMI_OK : status;
}

static hemi_status quantise(compilation *c, hemi_error *err) {
    hemi_module *m = c->module;
    hemi_weight_sums sums;
    hemi_plan plan;
    double scale = 0;
    int bits = c->options->weight_bits;
    HEMI_TRY(hemi_weight_range_of(&c->range, &c->map, err));
    if (bits == 0) HEMI_TRY(choose_bits(c, &bits, err));
    report(c, "quantise", 0, 1);
    m->weights = hemi_alloc_large((size_t)c->map.outputs * c->map.inputs, sizeof *m->weights);
    if (c->map.bias != NULL) m->bias = hemi_alloc(c->map.outputs, sizeof *m->bias);
    if (m->weights == NULL || (c->map.bias != NULL && m->bias == NULL))
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u x %u weights", c->map.outputs, c->map.inputs);
    HEMI_TRY(try_bits(c, bits, m->weights, &sums, &plan, &scale, err));
    m->weight_max = sums.largest;
    m->info.weight_bits = bits;
    m->info.input_bits = c->input_bits;
    m->info.input_scale = c->input_scale;
    m->info.output_scale = scale * c->input_scale;
    m->info.has_bias = c->map.bias != NULL;
    for (size_t o = 0; m->bias != NULL && o < c->map.outputs; o++)
        m->bias[o] = (double)c->map.bias[o] / m->info.output_scale;
    m->info.delta = plan.delta;
    m->info.b_bits = plan.b_bits;
    m->info.reply_a_bits = plan.reply_a_bits;
    m->info.reply_b_bits = plan.reply_b_bits;
    m->info.reply_ring = plan.reply_ring;
    m->info.predicted_error = sqrt(plan.variance) / (double)plan.delta * m->info.output_scale;
    return HEMI_OK;
}

static hemi_status find_output_max(compilation *c, hemi_error *err) {
    hemi_module *m = c->module;
    if (c->x == NULL) return HEMI_OK;
    float *y = hemi_alloc((size_t)OUTPUT_ROWS * m->info.outputs, sizeof *y);
    if (y == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the calibration's outputs");
    hemi_status status = HEMI_OK;
    double largest = 0;
    for (size_t from = 0; from < c->rows && status == HEMI_OK; from += OUTPUT_ROWS) {
        const size_t rows = c->rows - from < OUTPUT_ROWS ? c->rows - from : OUTPUT_ROWS;
        report(c, "calibrate", from, c->rows);
        status = hemi_module_run_clear(m, c->x + from * m->info.inputs, rows, y, false, err);
        for (size_t i = 0; status == HEMI_OK && i < rows * m->info.outputs; i++)
            largest = fmax(largest, fabs((double)y[i]));
    }
    m->info.output_max = isfinite(largest) ? largest : 0;
    report(c, "calibrate", c->rows, c->rows);
    hemi_free(y);
    return status;
}

/* c->map is set and stays the caller's. */
static hemi_status compile_map(compilation *c, const hemi_params *params, const uint32_t *shape, size_t rank,
                               hemi_error *err) {
    if (hemi_random_init() != 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "the system gives no randomness");
    hemi_module *m = c->module = hemi_alloc(1, sizeof *m);
    if (m == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    c->input_bits = c->options->input_bits != 0 ? c->options->input_bits : DEFAULT_INPUT_BITS;
    const hemi_linear_choice choice = {.s = c->options->layout};
    hemi_status status = hemi_linear_layout_rows(&m->layout, params, c->map.inputs, c->map.outputs, &choice, err);
    uint8_t seed[HEMI_SEED_BYTES];
    hemi_seed_fresh(seed);
    memcpy(m->info.id, seed, sizeof m->info.id);
    m->info.has_input_group = c->options->input_group != NULL;
    if (m->info.has_input_group) memcpy(m->info.input_group, c->options->input_group, sizeof m->info.input_group);
    set_shape(&m->info, shape, rank);
    if (status == HEMI_OK) status = calibrate(c, err);
    if (status == HEMI_OK) status = quantise(c, err);
    if (status == HEMI_OK) status = hemi_module_finish(m, err);
    if (status == HEMI_OK) status = find_output_max(c, err);
    hemi_free(c->moment);
    if (status != HEMI_OK) {
        hemi_module_free(m);
        c->module = NULL;
    }
    return status;
}

static const hemi_compile_options no_options = {0};

hemi_status hemi_module_from_linear(hemi_module **out, const float *weight, const float *bias, uint32_t outputs,
                                    uint32_t inputs, const float *x, const uint32_t *shape, size_t rank,
                                    const hemi_compile_options *options, hemi_error *err) {
    compilation c = {.options = options != NULL ? options : &no_options, .x = x};
    const hemi_params *params = NULL;
    *out = NULL;
    if (weight == NULL) return hemi_fail(err, HEMI_ERR_ARGUMENT, "there are no weights");
    HEMI_TRY(check_options(c.options, &params, err));
    HEMI_TRY(check_shape(shape, rank, &c.rows, err));
    if (shape[rank - 1] != inputs)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the calibration data has %u features, the weights are for %u",
                         shape[rank - 1], inputs);
    /* only read; freed by no one */
    c.map = (hemi_affine){.inputs = inputs, .outputs = outputs, .weight = (float *)weight, .bias = (float *)bias};
    HEMI_TRY(compile_map(&c, params, shape, rank, err));
    *out = c.module;
    return HEMI_OK;
}

hemi_status hemi_module_compile(hemi_module **out, const void *onnx, size_t onnx_bytes, const float *x,
                                const uint32_t *shape, size_t rank, const hemi_compile_options *options,
                                hemi_error *err) {
    compilation c = {.options = options != NULL ? options : &no_options, .x = x};
    const hemi_params *params = NULL;
    *out = NULL;
    if (onnx == NULL) return hemi_fail(err, HEMI_ERR_ARGUMENT, "there is no ONNX file");
    HEMI_TRY(check_options(c.options, &params, err));
    HEMI_TRY(check_shape(shape, rank, &c.rows, err));
    HEMI_TRY(hemi_onnx_import(&c.map, onnx, onnx_bytes, shape[rank - 1], c.options->progress,
                              c.options->progress_context, err));
    const hemi_status status = compile_map(&c, params, shape, rank, err);
    hemi_affine_free(&c.map);
    *out = c.module;
    return status;
}
