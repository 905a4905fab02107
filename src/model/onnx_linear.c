/* The operators that change the map of rows. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/onnx_graph.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

/* ---- products of matrices */

struct product {
    float *out;
    const float *left, *right;
    size_t inner, columns; /* left is rows x inner, right inner x columns */
};

#define PRODUCT_COLUMNS 512 /* a strip of doubles that stays in the first cache */

static void product_row(void *context, size_t row, size_t worker) {
    const struct product *p = context;
    (void)worker;
    for (size_t from = 0; from < p->columns; from += PRODUCT_COLUMNS) {
        const size_t width = p->columns - from < PRODUCT_COLUMNS ? p->columns - from : PRODUCT_COLUMNS;
        double sum[PRODUCT_COLUMNS] = {0};
        for (size_t k = 0; k < p->inner; k++) {
            const double w = (double)p->left[row * p->inner + k];
            const float *right = p->right + k * p->columns + from;
            for (size_t j = 0; j < width; j++) sum[j] += w * (double)right[j];
        }
        for (size_t j = 0; j < width; j++) p->out[row * p->columns + from + j] = (float)sum[j];
    }
}

static hemi_status multiply(hemi_onnx_graph *g, float **out, const float *left, const float *right, size_t rows,
                            size_t inner, size_t columns, hemi_error *err) {
    if ((double)rows * (double)inner * (double)columns > HEMI_ONNX_WORK_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE,
                         "multiplying out %zu x %zu by %zu x %zu is too much: export fewer layers together", rows,
                         inner, inner, columns);
    HEMI_TRY(hemi_onnx_block(g, out, rows, columns, err));
    if (g->team == NULL) g->team = hemi_team_new(0);
    struct product p = {.out = *out, .left = left, .right = right, .inner = inner, .columns = columns};
    hemi_team_run(g->team, rows, product_row, &p);
    return HEMI_OK;
}

/* out = matrix . in, where matrix is features x in->features; the shape is the caller's. */
static hemi_status apply(hemi_onnx_graph *g, operand in, const float *matrix, size_t features, hemi_onnx_value *out,
                         hemi_error *err) {
    float *w = NULL, *b = NULL;
    out->features = (uint32_t)features;
    out->w = matrix;
    if (in->w != NULL) {
        HEMI_TRY(multiply(g, &w, matrix, in->w, features, in->features, g->inputs, err));
        out->w = w;
    }
    if (in->b != NULL) HEMI_TRY(multiply(g, &b, matrix, in->b, features, in->features, 1, err));
    out->b = b;
    return HEMI_OK;
}

/* The constant as a matrix of outputs x inputs; it is seen as that (transposed false) or as inputs x outputs. */
static hemi_status read_matrix(hemi_onnx_graph *g, const node_proto *node, operand constant, bool transposed,
                               uint32_t inputs, float **matrix, size_t *features, hemi_error *err) {
    hemi_onnx_constant c = constant->constant;
    while (c.rank > 2 && c.dims[0] == 1) { /* leading ones only batch */
        memmove(c.dims, c.dims + 1, --c.rank * sizeof *c.dims);
    }
    if (c.rank != 2) return hemi_onnx_refuse(node, "with weights that are not a matrix", err);
    if (transposed) hemi_onnx_constant_transpose(&c);
    if (c.dims[1] != inputs)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s has weights for %zu features, its input has %u",
                         hemi_onnx_label_of(node).s, c.dims[1], inputs);
    if (c.dims[0] > HEMI_ONNX_FEATURES_MAX) return hemi_onnx_refuse(node, "has more than 2^20 outputs", err);
    HEMI_TRY(hemi_onnx_block(g, matrix, c.dims[0], c.dims[1], err));
    *features = c.dims[0];
    return hemi_onnx_constant_floats(&c, *matrix, err);
}

/* ---- elementwise, with a constant that is one number or one per feature */

static hemi_status read_vector(hemi_onnx_graph *g, const node_proto *node, operand constant, operand in, float **out,
                               hemi_error *err) {
    const hemi_onnx_constant *c = &constant->constant;
    const size_t last = c->rank > 0 ? c->dims[c->rank - 1] : 1;
    if (c->count != last || c->rank > in->rank) {
        g->wants_samples = true;
        return hemi_onnx_refuse(node, "with a constant that differs between rows", err);
    }
    if (last != 1 && last != in->features)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s has a constant of %zu numbers for %u features",
                         hemi_onnx_label_of(node).s, last, in->features);
    HEMI_TRY(hemi_onnx_block(g, out, in->features, 1, err));
    HEMI_TRY(hemi_onnx_constant_floats(c, *out, err));
    for (size_t i = 1; last == 1 && i < in->features; i++) (*out)[i] = (*out)[0];
    return HEMI_OK;
}

/* out = sign in + beta c, per feature */
static hemi_status add_vector(hemi_onnx_graph *g, operand in, const float *c, float beta, hemi_onnx_value *out,
                              hemi_error *err) {
    float *b = NULL;
    const float *before = in->b; /* in may be out */
    HEMI_TRY(hemi_onnx_block(g, &b, in->features, 1, err));
    for (size_t i = 0; i < in->features; i++) b[i] = (before != NULL ? before[i] : 0) + beta * c[i];
    *out = *in;
    out->b = b;
    return HEMI_OK;
}

static hemi_status scale_by_vector(hemi_onnx_graph *g, operand in, const float *factor, hemi_onnx_value *out,
                                   hemi_error *err) {
    float *w = NULL, *b = NULL;
    const size_t rows = in->features, columns = g->inputs;
    HEMI_TRY(hemi_onnx_block(g, &w, rows, columns, err));
    for (size_t i = 0; i < rows; i++) {
        if (in->w == NULL)
            w[i * columns + i] = factor[i];
        else
            for (size_t j = 0; j < columns; j++) w[i * columns + j] = in->w[i * columns + j] * factor[i];
    }
    if (in->b != NULL) {
        HEMI_TRY(hemi_onnx_block(g, &b, rows, 1, err));
        for (size_t i = 0; i < rows; i++) b[i] = in->b[i] * factor[i];
    }
    *out = *in;
    out->w = w;
    out->b = b;
    return HEMI_OK;
}

static hemi_status scale(hemi_onnx_graph *g, operand in, float factor, hemi_onnx_value *out, hemi_error *err) {
    float *f = NULL;
    HEMI_TRY(hemi_onnx_block(g, &f, in->features, 1, err));
    for (size_t i = 0; i < in->features; i++) f[i] = factor;
    return scale_by_vector(g, in, f, out, err);
}

/* out = a + sign b, both images of the input */
static hemi_status add_values(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, float sign,
                              hemi_onnx_value *out, hemi_error *err) {
    if (a->features != b->features || a->rank != b->rank || memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) != 0)
        return hemi_onnx_refuse(node, "of two values of different shapes", err);
    hemi_onnx_value left = *a, right = {0};
    if (a->w == NULL) HEMI_TRY(scale(g, a, 1, &left, err));
    HEMI_TRY(scale(g, b, sign, &right, err));
    float *w = NULL;
    const size_t count = (size_t)a->features * g->inputs;
    HEMI_TRY(hemi_onnx_block(g, &w, a->features, g->inputs, err));
    for (size_t i = 0; i < count; i++) w[i] = left.w[i] + right.w[i];
    left.w = w;
    *out = left;
    return right.b != NULL ? add_vector(g, &left, right.b, 1, out, err) : HEMI_OK;
}

/* ---- operators */

static hemi_status run_gemm(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL, c = NULL;
    HEMI_TRY(hemi_onnx_operands_computed(g, node, &a, &b, err));
    HEMI_TRY(hemi_onnx_input(g, node, 2, &c, err));
    if (a->is_constant) return hemi_onnx_refuse(node, "with the weights on the left: only x W is supported", err);
    if (!b->is_constant) return hemi_onnx_refuse(node, "of two computed values is not linear", err);
    if (hemi_onnx_attribute_int(node, "transA", 0) != 0) return hemi_onnx_refuse(node, "with transA mixes rows", err);
    if (a->rank != 2) return hemi_onnx_refuse(node, "needs an input of two dimensions", err);
    float *matrix = NULL, *vector = NULL;
    size_t features = 0;
    const bool stored_out_in = hemi_onnx_attribute_int(node, "transB", 0) != 0;
    HEMI_TRY(read_matrix(g, node, b, !stored_out_in, a->features, &matrix, &features, err));
    const float alpha = hemi_onnx_attribute_float(node, "alpha", 1);
    for (size_t i = 0; alpha != 1 && i < features * a->features; i++) matrix[i] *= alpha;
    *out = (hemi_onnx_value){.rank = 2, .dims = {a->dims[0], (int64_t)features}};
    HEMI_TRY(apply(g, a, matrix, features, out, err));
    if (c == NULL) return HEMI_OK;
    if (!c->is_constant) return hemi_onnx_refuse(node, "with a computed bias: write it as MatMul and Add", err);
    HEMI_TRY(read_vector(g, node, c, out, &vector, err));
    return add_vector(g, out, vector, hemi_onnx_attribute_float(node, "beta", 1), out, err);
}

static hemi_status run_matmul(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    HEMI_TRY(hemi_onnx_operands_computed(g, node, &a, &b, err));
    if (a->is_constant)
        return hemi_onnx_refuse(node, "with the weights on the left mixes rows: only x W is supported", err);
    if (!b->is_constant) return hemi_onnx_refuse(node, "of two computed values is not linear", err);
    if (b->constant.rank > a->rank && a->rank >= 2)
        return hemi_onnx_refuse(node, "with weights of more dimensions than its input", err);
    float *matrix = NULL;
    size_t features = 0;
    HEMI_TRY(read_matrix(g, node, b, true, a->features, &matrix, &features, err));
    *out = *a;
    out->dims[out->rank - 1] = (int64_t)features;
    return apply(g, a, matrix, features, out, err);
}

static hemi_status run_add(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    float *vector = NULL;
    HEMI_TRY(hemi_onnx_operands_computed(g, node, &a, &b, err));
    const bool subtract = strcmp(node->op_type, "Sub") == 0;
    if (!a->is_constant && !b->is_constant) return add_values(g, node, a, b, subtract ? -1 : 1, out, err);
    hemi_onnx_value value = a->is_constant ? *b : *a;
    HEMI_TRY(read_vector(g, node, a->is_constant ? a : b, &value, &vector, err));
    if (subtract && a->is_constant) HEMI_TRY(scale(g, b, -1, &value, err));
    return add_vector(g, &value, vector, subtract && b->is_constant ? -1 : 1, out, err);
}

static hemi_status run_mul(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    float *vector = NULL;
    HEMI_TRY(hemi_onnx_operands_computed(g, node, &a, &b, err));
    const bool divide = strcmp(node->op_type, "Div") == 0;
    if ((!a->is_constant && !b->is_constant) || (divide && a->is_constant))
        return hemi_onnx_refuse(node, "by a computed value is not linear: choose the Linear modules around it", err);
    const operand value = a->is_constant ? b : a;
    HEMI_TRY(read_vector(g, node, a->is_constant ? a : b, value, &vector, err));
    for (size_t i = 0; divide && i < value->features; i++) vector[i] = 1 / vector[i];
    return scale_by_vector(g, value, vector, out, err);
}

static hemi_status run_neg(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, 0, &a, err));
    if (a == NULL || a->is_constant) return hemi_onnx_refuse(node, "of a constant: export with constant folding", err);
    return scale(g, a, -1, out, err);
}

const hemi_onnx_entry hemi_onnx_rows_operators[] = {
    {"Gemm", run_gemm}, {"MatMul", run_matmul}, {"Add", run_add}, {"Sub", run_add},
    {"Mul", run_mul},   {"Div", run_mul},       {"Neg", run_neg}, {NULL, NULL}};
