/* Operators on samples that work number by number, or with one matrix. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/onnx_sample.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define refuse hemi_onnx_refuse

/* ---- constants, spread over a sample */

/* The constant's number for each number of the value: dimensions are matched from the last, those that are 1 or missing are repeated. */
static hemi_status spread(hemi_onnx_graph *g, const node_proto *node, operand constant, operand value, float **out,
                          hemi_error *err) {
    const hemi_onnx_constant *c = &constant->constant;
    size_t stride[HEMI_ONNX_RANK_MAX] = {0}, place[HEMI_ONNX_RANK_MAX] = {0}, step = 1;
    bool fits = c->rank <= value->rank;
    for (size_t i = 0; fits && i < c->rank; i++) {
        const size_t from = c->rank - 1 - i, to = value->rank - 1 - i;
        fits = c->dims[from] == 1 || c->dims[from] == (size_t)value->dims[to];
        stride[to] = c->dims[from] == 1 ? 0 : step;
        step *= c->dims[from];
    }
    if (!fits)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s has a constant of a shape that does not fit its input",
                         hemi_onnx_label_of(node).s);
    float *numbers = NULL;
    HEMI_TRY(hemi_onnx_block(g, &numbers, c->count, 1, err));
    HEMI_TRY(hemi_onnx_constant_floats(c, numbers, err));
    HEMI_TRY(hemi_onnx_block(g, out, value->features, 1, err));
    for (size_t n = 0; n < value->features; n++) {
        size_t from = 0;
        for (size_t i = 0; i < value->rank; i++) from += place[i] * stride[i];
        (*out)[n] = numbers[from];
        for (size_t i = value->rank; i-- > 0 && ++place[i] == (size_t)value->dims[i];) place[i] = 0;
    }
    return HEMI_OK;
}

static hemi_status scale_all(hemi_onnx_graph *g, const node_proto *node, operand in, float factor, hemi_onnx_value *out,
                             hemi_error *err) {
    float *f = NULL;
    HEMI_TRY(hemi_onnx_block(g, &f, in->features, 1, err));
    for (size_t i = 0; i < in->features; i++) f[i] = factor;
    return hemi_onnx_sample_scale(g, node, in, f, out, err);
}

static bool same_shape(operand a, operand b) {
    return a->rank == b->rank && memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) == 0;
}

static hemi_status run_add(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    float *numbers = NULL;
    HEMI_TRY(hemi_onnx_operands_computed(g, node, &a, &b, err));
    const bool subtract = strcmp(node->op_type, "Sub") == 0;
    if (!a->is_constant && !b->is_constant) {
        if (!same_shape(a, b)) return refuse(node, "of two values of different shapes", err);
        return hemi_onnx_sample_add(g, node, a, b, subtract ? -1 : 1, out, err);
    }
    hemi_onnx_value value = a->is_constant ? *b : *a;
    HEMI_TRY(spread(g, node, a->is_constant ? a : b, &value, &numbers, err));
    if (subtract && a->is_constant) HEMI_TRY(scale_all(g, node, b, -1, &value, err));
    return hemi_onnx_sample_shift(g, &value, numbers, subtract && b->is_constant ? -1 : 1, out, err);
}

static hemi_status run_mul(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    float *numbers = NULL;
    HEMI_TRY(hemi_onnx_operands_computed(g, node, &a, &b, err));
    const bool divide = strcmp(node->op_type, "Div") == 0;
    if ((!a->is_constant && !b->is_constant) || (divide && a->is_constant))
        return refuse(node, "by a computed value is not linear: choose the modules around it", err);
    const operand value = a->is_constant ? b : a;
    HEMI_TRY(spread(g, node, a->is_constant ? a : b, value, &numbers, err));
    for (size_t i = 0; divide && i < value->features; i++) numbers[i] = 1 / numbers[i];
    return hemi_onnx_sample_scale(g, node, value, numbers, out, err);
}

static hemi_status run_neg(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    return scale_all(g, node, a, -1, out, err);
}

/* One vector of as many numbers as there are channels. */
static hemi_status read_channels(hemi_onnx_graph *g, const node_proto *node, size_t input, size_t channels, float **out,
                                 hemi_error *err) {
    const hemi_onnx_constant *c;
    HEMI_TRY(hemi_onnx_channels(g, node, input, channels, &c, err));
    HEMI_TRY(hemi_onnx_block(g, out, channels, 1, err));
    return hemi_onnx_constant_floats(c, *out, err);
}

/* y = (x - mean) scale / sqrt(variance + epsilon) + shift, of each channel: the second dimension. */
static hemi_status run_batchnorm(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    float *v[4] = {NULL}, *factor = NULL, *shift = NULL;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    if (hemi_onnx_attribute_int(node, "training_mode", 0) != 0)
        return refuse(node, "is in training mode: call eval() before exporting", err);
    if (a->rank < 2 || a->dims[0] != 1) return refuse(node, "needs an input of batch, channels, ...", err);
    const size_t channels = (size_t)a->dims[1], area = a->features / channels;
    for (size_t i = 0; i < 4; i++) HEMI_TRY(read_channels(g, node, 1 + i, channels, &v[i], err));
    const double epsilon = (double)hemi_onnx_attribute_float(node, "epsilon", 1e-5f);
    HEMI_TRY(hemi_onnx_block(g, &factor, a->features, 1, err));
    HEMI_TRY(hemi_onnx_block(g, &shift, a->features, 1, err));
    for (size_t i = 0; i < a->features; i++) {
        const size_t c = i / area;
        const double f = (double)v[0][c] / sqrt((double)v[3][c] + epsilon);
        factor[i] = (float)f;
        shift[i] = (float)((double)v[1][c] - (double)v[2][c] * f);
    }
    HEMI_TRY(hemi_onnx_sample_scale(g, node, a, factor, out, err));
    return hemi_onnx_sample_shift(g, out, shift, 1, out, err);
}

/* ---- matrices on the last dimension */

/* The constant, inputs x outputs (or the other way about), on a last dimension of `inputs`, repeated `times`. */
static hemi_status read_matrix(hemi_onnx_graph *g, const node_proto *node, operand constant, bool out_in, size_t inputs,
                               size_t times, float alpha, hemi_stencil *op, hemi_error *err) {
    hemi_onnx_constant c = constant->constant;
    while (c.rank > 2 && c.dims[0] == 1) memmove(c.dims, c.dims + 1, --c.rank * sizeof *c.dims);
    if (c.rank != 2) return refuse(node, "with weights that are not a matrix", err);
    if (!out_in) hemi_onnx_constant_transpose(&c);
    if (c.dims[1] != inputs)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s has weights for %zu features, its input has %zu",
                         hemi_onnx_label_of(node).s, c.dims[1], inputs);
    if (c.dims[0] > HEMI_STENCIL_SIDE_MAX / times) return refuse(node, "has more than 2^26 outputs", err);
    const uint32_t d = (uint32_t)inputs, m = (uint32_t)c.dims[0];
    *op = hemi_stencil_pointwise(d, m, 1, 1);
    if (times > 1) { /* the same at each of several rows, features side by side */
        *op = hemi_stencil_pointwise(1, 1, (uint32_t)times, 1);
        op->x = (hemi_stencil_axis){.in = d, .out = m, .in_step = d, .out_step = m, .size = d};
    }
    float *w = NULL;
    HEMI_TRY(hemi_onnx_stencil_block(g, node, op, &w, err));
    HEMI_TRY(hemi_onnx_constant_floats(&c, w, err));
    for (size_t i = 0; alpha != 1 && i < c.count; i++) w[i] *= alpha;
    return HEMI_OK;
}

static hemi_status apply_matrix(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, bool out_in,
                                float alpha, hemi_onnx_value *out, hemi_error *err) {
    hemi_stencil op;
    if (a->is_constant) return refuse(node, "with the weights on the left mixes rows: only x W is supported", err);
    if (!b->is_constant) return refuse(node, "of two computed values is not linear", err);
    if (a->rank < 2) return refuse(node, "needs an input of two dimensions", err);
    const size_t inputs = (size_t)a->dims[a->rank - 1];
    HEMI_TRY(read_matrix(g, node, b, out_in, inputs, a->features / inputs, alpha, &op, err));
    HEMI_TRY(hemi_onnx_sample_apply(g, node, a, &op, out, err));
    out->rank = a->rank;
    memcpy(out->dims, a->dims, sizeof out->dims);
    out->dims[out->rank - 1] = (int64_t)(out->features / (a->features / inputs));
    return HEMI_OK;
}

static hemi_status run_matmul(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    HEMI_TRY(hemi_onnx_operands_computed(g, node, &a, &b, err));
    if (b->is_constant && b->constant.rank > a->rank)
        return refuse(node, "with weights of more dimensions than its input", err);
    return apply_matrix(g, node, a, b, false, 1, out, err);
}

static hemi_status run_gemm(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL, c = NULL;
    float *numbers = NULL;
    HEMI_TRY(hemi_onnx_operands_computed(g, node, &a, &b, err));
    HEMI_TRY(hemi_onnx_input(g, node, 2, &c, err));
    if (hemi_onnx_attribute_int(node, "transA", 0) != 0) return refuse(node, "with transA mixes rows", err);
    if (!a->is_constant && a->rank != 2) return refuse(node, "needs an input of two dimensions", err);
    HEMI_TRY(apply_matrix(g, node, a, b, hemi_onnx_attribute_int(node, "transB", 0) != 0,
                          hemi_onnx_attribute_float(node, "alpha", 1), out, err));
    if (c == NULL) return HEMI_OK;
    if (!c->is_constant) return refuse(node, "with a computed bias: write it as MatMul and Add", err);
    HEMI_TRY(spread(g, node, c, out, &numbers, err));
    return hemi_onnx_sample_shift(g, out, numbers, hemi_onnx_attribute_float(node, "beta", 1), out, err);
}

const hemi_onnx_entry hemi_onnx_sample_operators[] = {
    {"Gemm", run_gemm}, {"MatMul", run_matmul}, {"Add", run_add}, {"Sub", run_add},
    {"Mul", run_mul},   {"Div", run_mul},       {"Neg", run_neg}, {"BatchNormalization", run_batchnorm},
    {NULL, NULL}};
