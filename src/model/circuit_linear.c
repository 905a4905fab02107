/* Matrices and normalisation. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/circuit_tensor.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define refuse hemi_onnx_refuse

hemi_status hemi_circuit_want_samples(hemi_onnx_graph *g, const node_proto *node, hemi_error *err) {
    g->wants_samples = true;
    return refuse(node, "does not work on the last dimension alone", err);
}

hemi_status hemi_circuit_axis_of(hemi_onnx_graph *g, const node_proto *node, operand a, int64_t axis,
                                 hemi_circuit_axis *out, hemi_error *err) {
    if (axis < 0) axis += (int64_t)a->rank;
    if (axis < 0 || axis >= (int64_t)a->rank) return hemi_onnx_bad(node, "axis", err);
    *out = (hemi_circuit_axis){.at = (size_t)axis, .outer = 1, .side = a->features, .inner = 1};
    if (!g->samples) return axis + 1 == (int64_t)a->rank ? HEMI_OK : hemi_circuit_want_samples(g, node, err);
    if (g->batched && axis == 0) return refuse(node, "is along the batch: it would mix samples", err);
    out->side = (size_t)a->dims[axis];
    for (size_t i = 0; i < a->rank; i++) {
        if (i < out->at) out->outer *= (size_t)a->dims[i];
        if (i > out->at) out->inner *= (size_t)a->dims[i];
    }
    return HEMI_OK;
}

void hemi_circuit_round_weights(const hemi_onnx_graph *g, const hemi_onnx_constant *constant, float *w, size_t rows,
                                size_t each) {
    const int bits = ((const hemi_circuit_build *)g->target)->weight_bits;
    if (bits == 0 || constant->quantised) return;
    const double most = (double)((1 << (bits - 1)) - 1);
    for (size_t r = 0; r < rows; r++, w += each) {
        float max = 0;
        for (size_t i = 0; i < each; i++) max = fabsf(w[i]) > max ? fabsf(w[i]) : max;
        const double s = (double)max / most;
        for (size_t i = 0; s > 0 && i < each; i++) w[i] = (float)(s * nearbyint((double)w[i] / s));
    }
}

/* ---- matrices */

/* The constant as outputs x inputs, rounded; out_in: it is stored as that. */
static hemi_status read_matrix(hemi_onnx_graph *g, const node_proto *node, operand constant, bool out_in,
                               hemi_sparse *m, hemi_error *err) {
    hemi_onnx_constant c = constant->constant;
    while (c.rank > 2 && c.dims[0] == 1) memmove(c.dims, c.dims + 1, --c.rank * sizeof *c.dims); /* these only batch */
    if (c.rank != 2) return refuse(node, "with weights that are not a matrix", err);
    if (!out_in) hemi_onnx_constant_transpose(&c);
    if (c.dims[0] > HEMI_CIRCUIT_NUMBERS_MAX || c.dims[1] > HEMI_CIRCUIT_NUMBERS_MAX)
        return refuse(node, "has more than 2^20 inputs or outputs", err);
    *m = (hemi_sparse){.rows = (uint32_t)c.dims[0], .columns = (uint32_t)c.dims[1]};
    HEMI_TRY(hemi_circuit_floats(g, node, &c, &m->weight, err));
    hemi_circuit_round_weights(g, &c, m->weight, m->rows, m->columns);
    return HEMI_OK;
}

/* The same matrix at each of `times` rows that make one sample; dense where that is one. */
static hemi_status at_rows(hemi_onnx_graph *g, const node_proto *node, const hemi_sparse *m, size_t times,
                           hemi_sparse *out, hemi_error *err) {
    void *block = NULL;
    const size_t rows = times * m->rows, d = m->columns;
    *out = *m;
    if (times == 1) return HEMI_OK;
    if (rows > HEMI_CIRCUIT_NUMBERS_MAX) return refuse(node, "has more than 2^20 outputs", err);
    HEMI_TRY(hemi_circuit_bytes(g, &block, rows + 1, sizeof(uint64_t), err));
    uint64_t *start = block;
    for (size_t i = 0; i <= rows; i++) start[i] = i * d;
    HEMI_TRY(hemi_sparse_new(g, node, out, rows, times * d, start, err));
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < d; j++) {
            out->weight[i * d + j] = m->weight[i % m->rows * d + j];
            out->column[i * d + j] = (uint32_t)(i / m->rows * d + j);
        }
    return HEMI_OK;
}

static hemi_status apply_matrix(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, bool out_in,
                                double alpha, hemi_onnx_value *out, hemi_error *err) {
    hemi_sparse m, op;
    if (a->is_constant) return refuse(node, "with the weights on the left mixes rows: only x W is supported", err);
    if (!b->is_constant)
        return refuse(node,
                      "of two computed values (attention) is not supported: keep it on the client, and choose the "
                      "modules around it",
                      err);
    HEMI_TRY(read_matrix(g, node, b, out_in, &m, err));
    const size_t inputs = (size_t)a->dims[a->rank - 1]; /* of rows: the features */
    if (m.columns != inputs)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s has weights for %u features, its input has %zu",
                         hemi_onnx_label_of(node).s, m.columns, inputs);
    for (size_t i = 0; alpha != 1 && i < (size_t)m.rows * m.columns; i++) m.weight[i] *= (float)alpha;
    HEMI_TRY(at_rows(g, node, &m, a->features / inputs, &op, err));
    hemi_onnx_value r = *a;
    HEMI_TRY(hemi_circuit_apply(g, node, a, &op, NULL, &r, err));
    r.dims[r.rank - 1] = (int64_t)m.rows;
    *out = r;
    return HEMI_OK;
}

static hemi_status run_matmul(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, 0, &a, err));
    HEMI_TRY(hemi_onnx_input(g, node, 1, &b, err));
    if (a == NULL || b == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    if (!a->is_constant && b->is_constant && b->constant.rank > a->rank && a->rank >= 2)
        return refuse(node, "with weights of more dimensions than its input", err);
    return apply_matrix(g, node, a, b, false, 1, out, err);
}

static hemi_status run_gemm(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL, c = NULL;
    hemi_onnx_value r;
    HEMI_TRY(hemi_onnx_input(g, node, 0, &a, err));
    HEMI_TRY(hemi_onnx_input(g, node, 1, &b, err));
    HEMI_TRY(hemi_onnx_input(g, node, 2, &c, err));
    if (a == NULL || b == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    if (hemi_onnx_attribute_int(node, "transA", 0) != 0) return refuse(node, "with transA mixes rows", err);
    if (!a->is_constant && a->rank != 2) return refuse(node, "needs an input of two dimensions", err);
    HEMI_TRY(apply_matrix(g, node, a, b, hemi_onnx_attribute_int(node, "transB", 0) != 0,
                          (double)hemi_onnx_attribute_float(node, "alpha", 1), &r, err));
    const double beta = (double)hemi_onnx_attribute_float(node, "beta", 1);
    if (c != NULL && c->is_constant && c->constant.count > 1) {
        double *numbers = NULL;
        HEMI_TRY(hemi_circuit_spread(g, node, c, &r, &numbers, err));
        for (size_t i = 0; i < r.features; i++) numbers[i] *= beta;
        HEMI_TRY(hemi_circuit_scale(g, node, &r, NULL, numbers, &r, err));
    } else if (c != NULL) {
        HEMI_TRY(hemi_circuit_add(g, node, &r, c, beta, &r, err));
    }
    *out = r;
    return HEMI_OK;
}

/* ---- normalisation with constants */

/* y = (x - mean) scale / sqrt(variance + epsilon) + shift, of each channel: the second dimension. */
static hemi_status run_batchnorm(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    float *v[4] = {NULL};
    void *block = NULL;
    hemi_circuit_axis axis;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    if (hemi_onnx_attribute_int(node, "training_mode", 0) != 0)
        return refuse(node, "is in training mode: call eval() before exporting", err);
    HEMI_TRY(hemi_circuit_axis_of(g, node, a, 1, &axis, err));
    for (size_t i = 0; i < 4; i++) {
        const hemi_onnx_constant *c;
        HEMI_TRY(hemi_onnx_channels(g, node, 1 + i, axis.side, &c, err));
        HEMI_TRY(hemi_circuit_floats(g, node, c, &v[i], err));
    }
    const double epsilon = (double)hemi_onnx_attribute_float(node, "epsilon", 1e-5f);
    HEMI_TRY(hemi_circuit_bytes(g, &block, a->features, 2 * sizeof(double), err));
    double *factor = block, *shift = factor + a->features;
    for (size_t i = 0; i < a->features; i++) {
        const size_t c = i / axis.inner % axis.side;
        factor[i] = (double)v[0][c] / sqrt((double)v[3][c] + epsilon);
        shift[i] = (double)v[1][c] - (double)v[2][c] * factor[i];
    }
    return hemi_circuit_scale(g, node, a, factor, shift, out, err);
}

const hemi_onnx_entry hemi_circuit_linear_operators[] = {
    {"Gemm", run_gemm}, {"MatMul", run_matmul}, {"BatchNormalization", run_batchnorm}, {NULL, NULL}};
