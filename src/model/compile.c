/* From a map and calibration data to a module. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "linear/units.h"
#include "model/circuit_import.h"
#include "model/circuit_module.h"
#include "model/module.h"
#include "model/onnx.h"
#include "model/plan.h"
#include "model/quantise.h"
#include "random/sample.h"
#include "rlwe/context.h"

#define DEFAULT_SET        "L4096"
#define DEFAULT_INPUT_BITS 16
#define INPUT_BITS_MIN     2
#define INPUT_BITS_MAX     16
#define B_BITS_MIN         8
/* The widths that weight_bits = 0 chooses from. */
#define CHOICE_BITS_MIN 6
#define CHOICE_BITS_MAX 14
#define CHOICE_ROWS     128        /* outputs looked at for the choice */
#define OUTPUT_ROWS     64         /* rows of one step of output_max, at most, */
#define OUTPUT_NUMBERS  (1u << 22) /* and about as many results */
#define OUTPUT_WORK     2e10       /* products of all steps: further samples are not looked at */
#define DENSE_TRY_MAX   (1u << 22) /* weights up to which a convolution is tried as a matrix of the sample */

typedef struct compilation {
    const hemi_compile_options *options; /* never NULL */
    hemi_affine map;
    const float *x;     /* may be NULL */
    size_t numbers;     /* of x */
    size_t rows;        /* or samples */
    double *moment;     /* mean square of each input of the map */
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
    HEMI_TRY(hemi_context_check(*params, err));
    const unsigned q_bits = 64u - (unsigned)__builtin_clzll((*params)->q);
    if (o->b_bits != 0 && (o->b_bits < B_BITS_MIN || o->b_bits > q_bits))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "b_bits is %u: %d to %u, or 0 to choose", o->b_bits, B_BITS_MIN,
                         q_bits);
    return HEMI_OK;
}

static hemi_status check_shape(const uint32_t *shape, size_t rank, size_t *numbers, hemi_error *err) {
    if (shape == NULL || rank < 1 || rank > HEMI_SHAPE_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the calibration data has %zu dimensions: 1 to %d", rank, HEMI_SHAPE_MAX);
    *numbers = 1;
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] == 0) return hemi_fail(err, HEMI_ERR_SHAPE, "dimension %zu of the calibration data is 0", i);
        if (shape[i] > SIZE_MAX / 16 / *numbers)
            return hemi_fail(err, HEMI_ERR_SHAPE, "the calibration data is too large");
        *numbers *= shape[i];
    }
    return HEMI_OK;
}

/* The shapes of one call, the first dimension 1. Rows: as they were calibrated, a lone row gets a dimension; the result's follows. */
static hemi_status set_shapes(hemi_module_info *info, const hemi_affine *map, const uint32_t *shape, size_t rank,
                              hemi_error *err) {
    const bool rows = map->kind == HEMI_AFFINE_ROWS;
    const size_t added = rows && rank > 1 ? 0 : 1, in_rank = rows ? rank : map->in_rank;
    if (in_rank + added > HEMI_SHAPE_MAX || map->out_rank + added > HEMI_SHAPE_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "a sample has %zu dimensions, its result %zu: at most %d", in_rank, map->out_rank,
                         HEMI_SHAPE_MAX - 1);
    info->shape_rank = in_rank + added;
    info->output_rank = map->out_rank + added;
    memcpy(info->shape + added, rows ? shape : map->in_shape, in_rank * sizeof *shape);
    memcpy(info->output_shape + added, map->out_shape, map->out_rank * sizeof *shape);
    info->shape[0] = info->output_shape[0] = 1;
    return HEMI_OK;
}

/* The input of the map that number j of a row or sample is: on a grid, the first of its channel. */
static size_t input_of(const hemi_affine *map, size_t j) {
    if (map->kind != HEMI_AFFINE_GRID) return j;
    return j / map->grid.in_height / map->grid.in_width * map->grid.in_step_y * map->grid.in_step_x;
}

/* Sums of squares to means; on a grid those of a channel go to all its inputs. */
static void finish_moments(compilation *c, bool known) {
    const hemi_affine *map = &c->map;
    const bool grid = map->kind == HEMI_AFFINE_GRID;
    const size_t steps = grid ? (size_t)map->grid.in_step_y * map->grid.in_step_x : 1;
    const double count = (double)c->rows * (grid ? (double)map->grid.in_height * map->grid.in_width : 1);
    for (size_t j = 0; j < map->inputs; j++)
        c->moment[j] = known ? c->moment[j / steps * steps] / (j % steps == 0 ? count : 1) : 1.0 / 3;
}

static hemi_status calibrate(compilation *c, hemi_error *err) {
    const size_t d = hemi_affine_inputs(&c->map), rows = c->x != NULL ? c->rows : 0;
    c->moment = hemi_alloc(c->map.inputs, sizeof *c->moment);
    if (c->moment == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u inputs", c->map.inputs);
    double peak = 0, peaks2 = 0;
    for (size_t i = 0; i < rows; i++) {
        double row_peak = 0;
        for (size_t j = 0; j < d; j++) {
            const double v = fabs((double)c->x[i * d + j]);
            if (!isfinite(v))
                return hemi_fail(err, HEMI_ERR_ARGUMENT,
                                 "row %zu of the calibration data holds a value that is infinite or not a number", i);
            if (v > row_peak) row_peak = v;
            c->moment[input_of(&c->map, j)] += v * v;
        }
        peaks2 += row_peak * row_peak;
        if (row_peak > peak) peak = row_peak;
    }
    finish_moments(c, peak > 0);
    const double input_max = (double)((1 << (c->input_bits - 1)) - 1);
    c->shrink = peak > 0 ? peaks2 / (peak * peak) / (double)rows : 1;
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
    const hemi_module *m = c->module;
    const hemi_plan_input input = {.layout = &m->layout,
                                   .packed = m->has_packed ? &m->packed : NULL,
                                   .norm2 = sums->norm2,
                                   .bound = sums->bound,
                                   .b_bits = c->options->b_bits,
                                   .delta_max = c->options->delta_max};
    const hemi_status status = hemi_plan_make(plan, &input, err);
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
    m->weights = hemi_alloc_large(hemi_module_weights(m), sizeof *m->weights);
    if (c->map.bias != NULL) m->bias = hemi_alloc(c->map.outputs, sizeof *m->bias);
    if (m->weights == NULL || (c->map.bias != NULL && m->bias == NULL))
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu weights", hemi_module_weights(m));
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
    const size_t wide = OUTPUT_NUMBERS / m->info.outputs, step = wide < 1 ? 1 : wide < OUTPUT_ROWS ? wide : OUTPUT_ROWS;
    const double each = (double)m->info.outputs * (double)hemi_module_row_weights(m);
    const size_t looked = each * (double)c->rows <= OUTPUT_WORK ? c->rows : 1 + (size_t)(OUTPUT_WORK / each);
    float *y = hemi_alloc(step * m->info.outputs, sizeof *y);
    if (y == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the calibration's outputs");
    hemi_status status = HEMI_OK;
    double largest = 0;
    for (size_t from = 0; from < looked && from < c->rows && status == HEMI_OK; from += step) {
        const size_t rows = c->rows - from < step ? c->rows - from : step;
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

/* ---- the layout */

static hemi_status choose_rows(compilation *c, hemi_linear_layout *layout, const hemi_params *params, hemi_error *err) {
    const hemi_linear_choice choice = {.s = c->options->layout, .babies = c->options->babies};
    return hemi_linear_layout_rows(layout, params, c->map.inputs, c->map.outputs, &choice, err);
}

/* A convolution, or a matrix of the sample where that costs less: small sides with many channels. */
static hemi_status choose_grid(compilation *c, hemi_linear_layout *layout, const hemi_params *params, hemi_error *err) {
    const hemi_linear_choice choice = {.s = c->options->layout, .babies = c->options->babies};
    const hemi_status status = hemi_linear_layout_grid(layout, params, &c->map.grid, &choice, err);
    const size_t inputs = hemi_affine_inputs(&c->map), outputs = hemi_affine_outputs(&c->map);
    hemi_linear_layout rows;
    if (choice.s != 0 || inputs > DENSE_TRY_MAX / outputs ||
        hemi_linear_layout_rows(&rows, params, (uint32_t)inputs, (uint32_t)outputs, &choice, NULL) != HEMI_OK)
        return status;
    const double units = status == HEMI_OK ? (double)hemi_units_of_sample(layout, &c->map.grid) : 0;
    if (status == HEMI_OK && units * hemi_linear_cost(layout) <= hemi_linear_cost(&rows)) return HEMI_OK;
    hemi_affine dense;
    if (!hemi_affine_dense(&dense, &c->map))
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix of %zu x %zu", outputs, inputs);
    hemi_affine_free(&c->map); /* of an import: the caller frees what is in it now */
    c->map = dense;
    *layout = rows;
    return HEMI_OK;
}

static hemi_status choose_layouts(compilation *c, const hemi_params *params, hemi_error *err) {
    hemi_module *m = c->module;
    HEMI_TRY(c->map.kind == HEMI_AFFINE_GRID ? choose_grid(c, &m->layout, params, err)
                                             : choose_rows(c, &m->layout, params, err));
    m->is_grid = c->map.kind == HEMI_AFFINE_GRID;
    m->is_dense = c->map.kind == HEMI_AFFINE_DENSE;
    m->grid = c->map.grid;
    return hemi_module_pack(m, err);
}

static hemi_status build(compilation *c, const hemi_params *params, const uint32_t *shape, size_t rank,
                         hemi_error *err) {
    hemi_module *m = c->module;
    HEMI_TRY(set_shapes(&m->info, &c->map, shape, rank, err));
    HEMI_TRY(choose_layouts(c, params, err));
    c->rows = c->numbers / hemi_affine_inputs(&c->map);
    HEMI_TRY(calibrate(c, err));
    HEMI_TRY(quantise(c, err));
    HEMI_TRY(hemi_module_finish(m, err));
    return find_output_max(c, err);
}

/* c->map is set and stays the caller's. */
static hemi_status compile_map(compilation *c, const hemi_params *params, const uint32_t *shape, size_t rank,
                               hemi_error *err) {
    if (hemi_random_init() != 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "the system gives no randomness");
    hemi_module *m = c->module = hemi_alloc(1, sizeof *m);
    if (m == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    c->input_bits = c->options->input_bits != 0 ? c->options->input_bits : DEFAULT_INPUT_BITS;
    uint8_t seed[HEMI_SEED_BYTES];
    hemi_seed_fresh(seed);
    memcpy(m->info.id, seed, sizeof m->info.id);
    m->info.has_input_group = c->options->input_group != NULL;
    if (m->info.has_input_group) memcpy(m->info.input_group, c->options->input_group, sizeof m->info.input_group);
    const hemi_status status = build(c, params, shape, rank, err);
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
    HEMI_TRY(check_shape(shape, rank, &c.numbers, err));
    if (shape[rank - 1] != inputs)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the calibration data has %u features, the weights are for %u",
                         shape[rank - 1], inputs);
    /* only read; freed by no one */
    c.map = (hemi_affine){
        .inputs = inputs, .outputs = outputs, .taps = 1, .weight = (float *)weight, .bias = (float *)bias};
    HEMI_TRY(compile_map(&c, params, shape, rank, err));
    *out = c.module;
    return HEMI_OK;
}

hemi_status hemi_module_from_conv(hemi_module **out, const float *weight, const float *bias, const hemi_conv *conv,
                                  const float *x, uint32_t samples, const hemi_compile_options *options,
                                  hemi_error *err) {
    compilation c = {.options = options != NULL ? options : &no_options, .x = x};
    const uint32_t shape[4] = {samples, conv->in_channels, conv->height, conv->width};
    const hemi_params *params = NULL;
    *out = NULL;
    if (weight == NULL) return hemi_fail(err, HEMI_ERR_ARGUMENT, "there are no weights");
    HEMI_TRY(check_options(c.options, &params, err));
    HEMI_TRY(check_shape(shape, 4, &c.numbers, err));
    HEMI_TRY(hemi_affine_from_conv(&c.map, conv, weight, bias, err));
    const hemi_status status = compile_map(&c, params, shape, 4, err);
    hemi_affine_free(&c.map);
    *out = c.module;
    return status;
}

hemi_status hemi_module_compile(hemi_module **out, const void *onnx, size_t onnx_bytes, const float *x,
                                const uint32_t *shape, size_t rank, const hemi_compile_options *options,
                                hemi_error *err) {
    compilation c = {.options = options != NULL ? options : &no_options, .x = x};
    const hemi_params *params = NULL;
    *out = NULL;
    if (onnx == NULL) return hemi_fail(err, HEMI_ERR_ARGUMENT, "there is no ONNX file");
    HEMI_TRY(check_shape(shape, rank, &c.numbers, err));
    if (c.options->force_circuit || hemi_circuit_is_needed(onnx, onnx_bytes)) {
        hemi_circuit *circuit = NULL;
        HEMI_TRY(hemi_circuit_import(&circuit, onnx, onnx_bytes, shape, rank, c.options->weight_bits, c.options->progress,
                                     c.options->progress_context, err));
        return hemi_module_from_circuit(out, circuit, x, shape, rank, c.options, err);
    }
    HEMI_TRY(check_options(c.options, &params, err));
    HEMI_TRY(
        hemi_onnx_import(&c.map, onnx, onnx_bytes, shape, rank, c.options->progress, c.options->progress_context, err));
    const hemi_status status = compile_map(&c, params, shape, rank, err);
    hemi_affine_free(&c.map);
    *out = c.module;
    return status;
}
