#include "cli/circuit_shapes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

#define VALUES_MAX  4
#define BIAS        0.1  /* standard deviation */
#define GPT2_WEIGHT 0.02 /* the same, of GPT-2's initialisation; its biases are 0 */
#define SIDE        8    /* of images */
#define STROKES     3    /* of one */
#define PEN         0.7  /* its width, in pixels */
#define GREYS       16

/* ---- circuits. What cannot be allocated leaves the last value without its map: make sees that */

static hemi_circuit_value *add_value(hemi_circuit *c, hemi_circuit_kind kind, const char *name, const uint32_t *dims, size_t rank) {
    hemi_circuit_value *v = &c->value[c->values++];
    *v = (hemi_circuit_value){.kind = kind, .size = 1, .rank = rank};
    for (size_t i = 0; i < rank; i++) v->size *= v->dims[i] = dims[i];
    (void)snprintf(v->name, sizeof v->name, "%s", name);
    return v;
}

/* A map from the value before v, without entries, and biases of that deviation (0: none). NULL without memory. */
static hemi_sparse *add_map(hemi_circuit *c, hemi_circuit_value *v, uint64_t entries, bool dense, double bias, cli_random *random) {
    const uint32_t source = (uint32_t)c->values - 2;
    v->a = (hemi_circuit_affine){.terms = 1, .term = hemi_alloc(1, sizeof *v->a.term)};
    if (bias != 0) v->a.bias = hemi_alloc(v->size, sizeof *v->a.bias);
    if (!v->a.term || (bias != 0 && !v->a.bias)) return NULL;
    for (uint32_t i = 0; bias != 0 && i < v->size; i++) v->a.bias[i] = bias * (double)cli_random_gaussian(random);
    hemi_sparse *m = &v->a.term->map;
    v->a.term->source = source;
    m->rows = v->size;
    m->columns = c->value[source].size;
    m->weight = hemi_alloc_large(entries, sizeof *m->weight);
    if (!dense) {
        m->start = hemi_alloc((size_t)m->rows + 1, sizeof *m->start);
        m->column = hemi_alloc(entries, sizeof *m->column);
    }
    return m->weight && (dense || (m->start && m->column)) ? m : NULL;
}

static hemi_status no_memory(hemi_error *err) { return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a circuit"); }

/* deviation 0: He's initialisation. */
static hemi_status add_dense(hemi_circuit *c, hemi_circuit_kind kind, const char *name, uint32_t outputs, hemi_function_id f, double parameter,
                             double deviation, cli_random *random, hemi_error *err) {
    const uint32_t inputs = c->value[c->values - 1].size;
    hemi_circuit_value *v = add_value(c, kind, name, &outputs, 1);
    if (kind == HEMI_CIRCUIT_FUNCTION) v->function = (hemi_function){1, {{f, 0, 0, {parameter}}}};
    hemi_sparse *m = add_map(c, v, (uint64_t)inputs * outputs, true, deviation > 0 ? 0 : BIAS, random);
    if (!m) return no_memory(err);
    const double gain = deviation > 0 ? deviation : sqrt(2.0 / inputs);
    for (size_t i = 0; i < (size_t)inputs * outputs; i++) m->weight[i] = (float)(gain * (double)cli_random_gaussian(random));
    return HEMI_OK;
}

static hemi_status add_relu(hemi_circuit *c, uint32_t outputs, cli_random *random, hemi_error *err) {
    return add_dense(c, HEMI_CIRCUIT_FUNCTION, "Relu", outputs, HEMI_FUNCTION_RELU, 0, 0, random, err);
}

static hemi_status add_output(hemi_circuit *c, uint32_t outputs, cli_random *random, hemi_error *err) {
    return add_dense(c, HEMI_CIRCUIT_AFFINE, "output", outputs, HEMI_FUNCTION_AFFINE, 0, 0, random, err);
}

/* Entries of one output of a convolution with padding 1, and for each of them where its weight is in the kernel. */
static uint64_t window(uint32_t *column, uint32_t *tap, uint32_t channels, uint32_t y, uint32_t x) {
    uint64_t n = 0;
    for (uint32_t k = 0; k < channels * 9; k++) {
        const uint32_t sy = y + k / 3 % 3 - 1, sx = x + k % 3 - 1; /* wraps around below 0 */
        if (sy >= SIDE || sx >= SIDE) continue;
        if (column) column[n] = (k / 9 * SIDE + sy) * SIDE + sx;
        if (tap) tap[n] = k;
        n++;
    }
    return n;
}

/* A convolution 3 x 3 with padding 1, and ReLU. */
static hemi_status add_conv(hemi_circuit *c, uint32_t outputs, cli_random *random, hemi_error *err) {
    const uint32_t channels = c->value[c->values - 1].dims[0], dims[3] = {outputs, SIDE, SIDE};
    uint64_t entries = 0, n = 0;
    for (uint32_t i = 0; i < SIDE * SIDE; i++) entries += outputs * window(NULL, NULL, channels, i / SIDE, i % SIDE);
    hemi_circuit_value *v = add_value(c, HEMI_CIRCUIT_FUNCTION, "Relu", dims, 3);
    v->function = (hemi_function){1, {{HEMI_FUNCTION_RELU, 0, 0, {0}}}};
    hemi_sparse *m = add_map(c, v, entries, false, BIAS, random);
    float *kernel = cli_random_weights(random, (size_t)channels * 9);
    uint32_t *tap = hemi_alloc((size_t)channels * 9, sizeof *tap);
    const hemi_status status = m && kernel && tap ? HEMI_OK : no_memory(err);
    const double gain = sqrt(2.0 / (channels * 9));
    for (uint32_t o = 0; status == HEMI_OK && o < v->size; o++) {
        if (o % (SIDE * SIDE) == 0) /* one kernel and one bias for each output channel */
            for (uint32_t k = 0; k < channels * 9; k++) kernel[k] = (float)(gain * (double)cli_random_gaussian(random));
        v->a.bias[o] = v->a.bias[o - o % (SIDE * SIDE)];
        const uint64_t count = window(m->column + n, tap, channels, o / SIDE % SIDE, o % SIDE);
        for (uint64_t e = 0; e < count; e++) m->weight[n + e] = kernel[tap[e]];
        m->start[o + 1] = n += count;
    }
    hemi_free(kernel);
    hemi_free(tap);
    return status;
}

/* The mean of 2 x 2 of a value of 8 x 8, and a dense layer of what that leaves, as one map. */
static hemi_status add_pooled_output(hemi_circuit *c, uint32_t outputs, cli_random *random, hemi_error *err) {
    const uint32_t half = SIDE / 2, channels = c->value[c->values - 1].dims[0];
    HEMI_TRY(add_output(c, outputs, random, err));
    hemi_sparse *m = &c->value[c->values - 1].a.term->map;
    for (uint32_t o = 0; o < outputs; o++)
        for (uint32_t p = 0; p < channels * half * half; p++) {
            float *first = m->weight + (size_t)o * m->columns + (p / half) * 2 * SIDE + p % half * 2;
            const float w = *first / 2; /* 4 times the variance, and then a quarter */
            first[0] = first[1] = first[SIDE] = first[SIDE + 1] = w;
        }
    return HEMI_OK;
}

/* ---- models */

static hemi_status make_mlp_10(hemi_circuit *c, cli_random *random, hemi_error *err) {
    HEMI_TRY(add_relu(c, 32, random, err));
    return add_output(c, 10, random, err);
}

static hemi_status make_mlp_64(hemi_circuit *c, cli_random *random, hemi_error *err) {
    HEMI_TRY(add_relu(c, 128, random, err));
    HEMI_TRY(add_relu(c, 64, random, err));
    return add_output(c, 10, random, err);
}

static hemi_status make_cnn_1(hemi_circuit *c, cli_random *random, hemi_error *err) {
    HEMI_TRY(add_conv(c, 8, random, err));
    return add_pooled_output(c, 10, random, err);
}

static hemi_status make_cnn_2(hemi_circuit *c, cli_random *random, hemi_error *err) {
    HEMI_TRY(add_conv(c, 8, random, err));
    HEMI_TRY(add_conv(c, 16, random, err));
    return add_output(c, 10, random, err);
}

static hemi_status make_gpt2(hemi_circuit *c, cli_random *random, hemi_error *err) {
    HEMI_TRY(add_dense(c, HEMI_CIRCUIT_FUNCTION, "Gelu", 3072, HEMI_FUNCTION_GELU, 1, GPT2_WEIGHT, random, err));
    return add_dense(c, HEMI_CIRCUIT_AFFINE, "output", 768, HEMI_FUNCTION_AFFINE, 0, GPT2_WEIGHT, random, err);
}

static const cli_circuit_shape shapes[] = {
    {"mlp-10-32-10", "Linear 10 -> 32, ReLU, Linear 32 -> 10", 1, {10}, 1000, false, make_mlp_10},
    {"mlp-64-128-64-10", "Linear 64 -> 128, ReLU, Linear 128 -> 64, ReLU, Linear 64 -> 10", 1, {64}, 1000, true, make_mlp_64},
    {"cnn-1", "Conv 3 x 3 1 -> 8 on 8 x 8, padding 1, ReLU, AvgPool 2, Linear 128 -> 10", 3, {1, SIDE, SIDE}, 1000, true, make_cnn_1},
    {"cnn-2", "Conv 3 x 3 1 -> 8 and 8 -> 16 on 8 x 8, padding 1, stride 1, ReLU after each, Linear 1024 -> 10", 3, {1, SIDE, SIDE}, 1000, true, make_cnn_2},
    {"gpt2-block", "Linear 768 -> 3072, GELU (tanh), Linear 3072 -> 768", 1, {768}, 256, false, make_gpt2}};
#define SHAPES (sizeof shapes / sizeof *shapes)

const cli_circuit_shape *cli_circuit_shape_find(const char *name, hemi_error *err) {
    char names[256] = "";
    for (size_t i = 0; i < SHAPES; i++) {
        if (strcmp(shapes[i].name, name) == 0) return &shapes[i];
        const size_t used = strlen(names);
        (void)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", shapes[i].name);
    }
    (void)hemi_fail(err, HEMI_ERR_ARGUMENT, "there is no model '%.40s' to measure: %s", name, names);
    return NULL;
}

uint32_t cli_circuit_shape_inputs(const cli_circuit_shape *shape) {
    uint32_t inputs = 1;
    for (size_t i = 0; i < shape->rank; i++) inputs *= shape->shape[i];
    return inputs;
}

hemi_status cli_circuit_make(hemi_circuit **out, const cli_circuit_shape *shape, cli_random *random, hemi_error *err) {
    hemi_circuit *c = hemi_alloc(1, sizeof *c);
    if (c) c->value = hemi_alloc(VALUES_MAX, sizeof *c->value);
    *out = NULL;
    if (!c || !c->value) {
        hemi_circuit_free(c);
        return no_memory(err);
    }
    c->rows = shape->rank == 1;
    (void)add_value(c, HEMI_CIRCUIT_INPUT, "input", shape->shape, shape->rank);
    const hemi_status status = shape->make(c, random, err);
    if (status == HEMI_OK)
        *out = c;
    else
        hemi_circuit_free(c);
    return status;
}

/* ---- inputs */

static double square_distance(double x, double y, const double *from, const double *to) {
    const double dx = to[0] - from[0], dy = to[1] - from[1], length = dx * dx + dy * dy;
    const double along = length > 0 ? fmin(fmax(((x - from[0]) * dx + (y - from[1]) * dy) / length, 0), 1) : 0;
    const double ex = from[0] + along * dx - x, ey = from[1] + along * dy - y;
    return ex * ex + ey * ey;
}

/* Strokes of a pen, in sixteen greys: much like a scanned digit. */
static void draw(float *x, cli_random *random) {
    double point[STROKES + 1][2];
    for (size_t i = 0; i <= STROKES; i++)
        for (size_t k = 0; k < 2; k++) point[i][k] = 1 + (SIDE - 3) * cli_random_unit(random);
    for (size_t i = 0; i < SIDE * SIDE; i++) {
        double nearest = INFINITY;
        for (size_t s = 0; s < STROKES; s++) nearest = fmin(nearest, square_distance((double)(i % SIDE), (double)(i / SIDE), point[s], point[s + 1]));
        x[i] = (float)(rint(GREYS * fmin(1.2 * exp(-nearest / (2 * PEN * PEN)), 1)) / GREYS);
    }
}

void cli_circuit_samples(float *x, const cli_circuit_shape *shape, size_t samples, cli_random *random) {
    const size_t inputs = cli_circuit_shape_inputs(shape);
    for (size_t s = 0; shape->images && s < samples; s++) draw(x + s * inputs, random);
    for (size_t i = 0; !shape->images && i < samples * inputs; i++) x[i] = cli_random_gaussian(random);
}
