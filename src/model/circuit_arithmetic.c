/* Operators on two values, either of which may be constant. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/circuit_tensor.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define refuse hemi_onnx_refuse

/* ---- constants */

bool hemi_circuit_is_scalar(operand v) { return v->is_constant && v->constant.count == 1; }

hemi_status hemi_circuit_floats(hemi_onnx_graph *g, const node_proto *node, const hemi_onnx_constant *c, float **out,
                                hemi_error *err) {
    (void)node;
    HEMI_TRY(hemi_onnx_block(g, out, c->count, 1, err));
    return hemi_onnx_constant_floats(c, *out, err);
}

hemi_status hemi_circuit_scalar(hemi_onnx_graph *g, const node_proto *node, operand v, double *out, hemi_error *err) {
    float f = 0;
    int64_t i = 0;
    size_t one = 0;
    (void)g;
    if (!hemi_circuit_is_scalar(v)) return refuse(node, "with a parameter that is not one constant number", err);
    if (hemi_onnx_constant_is_integer(&v->constant)) {
        HEMI_TRY(hemi_onnx_constant_integers(&v->constant, &i, 1, &one, err));
        *out = (double)i;
        return HEMI_OK;
    }
    HEMI_TRY(hemi_onnx_constant_numbers(&v->constant, &f, err));
    *out = (double)f;
    return HEMI_OK;
}

hemi_status hemi_circuit_scalar_input(hemi_onnx_graph *g, const node_proto *node, size_t i, double *out,
                                      hemi_error *err) {
    operand v = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, i, &v, err));
    return v == NULL ? HEMI_OK : hemi_circuit_scalar(g, node, v, out, err);
}

/* The dimensions that count: all of a sample, the last one of rows. */
static size_t view_of(const hemi_onnx_graph *g, operand v, int64_t dims[HEMI_ONNX_RANK_MAX]) {
    if (!g->samples) {
        dims[0] = (int64_t)v->features;
        return 1;
    }
    memcpy(dims, v->dims, v->rank * sizeof *dims);
    return v->rank;
}

/* from[n]: where number n of `rank` dims is in an array of `own` dimensions, matched from the last. They fit. */
static hemi_status repeat(hemi_onnx_graph *g, size_t own_rank, const int64_t *own, size_t rank, const int64_t *dims,
                          size_t count, size_t **from, hemi_error *err) {
    size_t stride[HEMI_ONNX_RANK_MAX] = {0}, place[HEMI_ONNX_RANK_MAX] = {0}, step = 1;
    void *block = NULL;
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof **from, err));
    *from = block;
    for (size_t i = 0; i < own_rank && i < rank; i++) {
        const size_t side = (size_t)own[own_rank - 1 - i];
        stride[rank - 1 - i] = side == 1 ? 0 : step;
        step *= side;
    }
    for (size_t n = 0; n < count; n++) {
        for (size_t i = 0; i < rank; i++) (*from)[n] += place[i] * stride[i];
        for (size_t i = rank; i-- > 0 && ++place[i] == (size_t)dims[i];) place[i] = 0;
    }
    return HEMI_OK;
}

static hemi_status bad_shape(const node_proto *node, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_SHAPE, "%s has inputs whose shapes do not fit each other",
                     hemi_onnx_label_of(node).s);
}

hemi_status hemi_circuit_spread(hemi_onnx_graph *g, const node_proto *node, operand constant, operand shape,
                                double **out, hemi_error *err) {
    const hemi_onnx_constant *c = &constant->constant;
    int64_t dims[HEMI_ONNX_RANK_MAX], own[HEMI_ONNX_RANK_MAX];
    const size_t rank = view_of(g, shape, dims);
    float *numbers = NULL;
    size_t *from = NULL;
    void *block = NULL;
    for (size_t i = 0; i < c->rank; i++) {
        const size_t after = c->rank - i; /* dimensions from here on */
        own[i] = (int64_t)c->dims[i];
        if (own[i] == 1) continue;
        if (after > rank && !g->samples) return hemi_circuit_want_samples(g, node, err);
        if (after > rank || own[i] != dims[rank - after]) return bad_shape(node, err);
    }
    HEMI_TRY(hemi_circuit_floats(g, node, c, &numbers, err));
    HEMI_TRY(repeat(g, c->rank, own, rank, dims, shape->features, &from, err));
    HEMI_TRY(hemi_circuit_bytes(g, &block, shape->features, sizeof **out, err));
    *out = block;
    for (size_t n = 0; n < shape->features; n++) (*out)[n] = (double)numbers[from[n]];
    return HEMI_OK;
}

/* ---- shapes of two inputs */

static void shape_of(operand v, size_t *rank, int64_t dims[HEMI_ONNX_RANK_MAX]) {
    *rank = v->is_constant ? v->constant.rank : v->rank;
    for (size_t i = 0; i < *rank; i++) dims[i] = v->is_constant ? (int64_t)v->constant.dims[i] : v->dims[i];
}

/* The dimensions of a result: where one input has 1 or nothing, those of the other. */
static hemi_status broadcast(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, size_t *rank,
                             int64_t *dims, hemi_error *err) {
    int64_t side[2][HEMI_ONNX_RANK_MAX];
    size_t ranks[2];
    shape_of(a, &ranks[0], side[0]);
    shape_of(b, &ranks[1], side[1]);
    *rank = ranks[0] > ranks[1] ? ranks[0] : ranks[1];
    for (size_t k = 0; k < 2; k++) {
        const operand v = k == 0 ? a : b;
        if (v->is_constant ? g->batched && ranks[k] == *rank && side[k][0] != 1 : ranks[k] != *rank && g->batched)
            return refuse(node, "has inputs of different dimensions, which would mix samples", err);
    }
    for (size_t i = 0; i < *rank; i++) {
        const size_t after = *rank - i;
        const int64_t x = ranks[0] >= after ? side[0][ranks[0] - after] : 1,
                      y = ranks[1] >= after ? side[1][ranks[1] - after] : 1;
        const bool feature = g->samples || after == 1;
        if (!feature && x != y && (a->is_constant ? x : b->is_constant ? y : 0) != 1)
            return hemi_circuit_want_samples(g, node, err);
        if (feature && x != y && x != 1 && y != 1) return bad_shape(node, err);
        dims[i] = x == 1 ? y : x;
    }
    return HEMI_OK;
}

hemi_status hemi_circuit_expand(hemi_onnx_graph *g, const node_proto *node, operand in, size_t rank,
                                const int64_t *dims, hemi_onnx_value *out, hemi_error *err) {
    const hemi_onnx_value from = *in; /* in may be out */
    const operand part = &from;
    int64_t own[HEMI_ONNX_RANK_MAX];
    const size_t own_rank = view_of(g, &from, own), first = g->samples ? 0 : rank - 1;
    size_t count = 1, *place = NULL;
    void *block = NULL;
    for (size_t i = first; i < rank; i++) {
        if (dims[i] < 1 || (uint64_t)dims[i] > HEMI_CIRCUIT_NUMBERS_MAX / count)
            return refuse(node, "repeats its input to more than 2^20 numbers", err);
        count *= (size_t)dims[i];
    }
    *out = from;
    out->rank = rank;
    memcpy(out->dims, dims, rank * sizeof *dims);
    if (count == from.features) return HEMI_OK;
    HEMI_TRY(repeat(g, own_rank, own, rank - first, dims + first, count, &place, err));
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof(hemi_circuit_pick), err));
    hemi_circuit_pick *pick = block;
    for (size_t n = 0; n < count; n++) pick[n].row = place[n];
    return hemi_circuit_gather(g, node, &part, 1, pick, count, out, err);
}

/* Both inputs in the shape of the result; a constant stays as it is. */
static hemi_status meet(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, hemi_onnx_value *left,
                        hemi_onnx_value *right, hemi_error *err) {
    int64_t dims[HEMI_ONNX_RANK_MAX];
    size_t rank = 0;
    *left = *a;
    *right = *b;
    if (a->is_constant && b->is_constant) return refuse(node, "of two constants: export with constant folding", err);
    HEMI_TRY(broadcast(g, node, a, b, &rank, dims, err));
    if (!a->is_constant) HEMI_TRY(hemi_circuit_expand(g, node, a, rank, dims, left, err));
    if (!b->is_constant) HEMI_TRY(hemi_circuit_expand(g, node, b, rank, dims, right, err));
    return HEMI_OK;
}

/* ---- sums, products, quotients */

hemi_status hemi_circuit_add(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, double sign,
                             hemi_onnx_value *out, hemi_error *err) {
    hemi_onnx_value left, right;
    const hemi_circuit_base *x = NULL, *y = NULL;
    hemi_circuit_base sum;
    double c = 0, *numbers = NULL;
    bool done = false;
    HEMI_TRY(meet(g, node, a, b, &left, &right, err));
    if (left.is_constant || right.is_constant) {
        const operand value = left.is_constant ? &right : &left, constant = left.is_constant ? &left : &right;
        const double scale = left.is_constant ? sign : 1, with = left.is_constant ? 1 : sign;
        if (hemi_circuit_is_scalar(constant)) {
            HEMI_TRY(hemi_circuit_scalar(g, node, constant, &c, err));
            return hemi_circuit_line(g, node, value, scale, with * c, out, err);
        }
        HEMI_TRY(hemi_circuit_spread(g, node, constant, value, &numbers, err));
        for (size_t i = 0; i < value->features; i++) numbers[i] *= with;
        if (scale != 1) HEMI_TRY(hemi_circuit_line(g, node, value, scale, 0, &right, err));
        return hemi_circuit_scale(g, node, scale != 1 ? &right : value, NULL, numbers, out, err);
    }
    /* functions that are values already cost nothing more */
    if (left.tensor->plain == NULL && right.tensor->plain == NULL)
        HEMI_TRY(hemi_circuit_fuse(g, node, &left, &right, sign < 0 ? HEMI_FUNCTION_MINUS : HEMI_FUNCTION_PLUS, out,
                                   &done, err));
    if (done) return HEMI_OK;
    HEMI_TRY(hemi_circuit_plain(g, node, &left, &x, err));
    HEMI_TRY(hemi_circuit_plain(g, node, &right, &y, err));
    HEMI_TRY(hemi_circuit_base_sum(g, node, &sum, x, y, (float)sign, err));
    *out = left;
    return hemi_circuit_give(g, &sum, out, err);
}

/* value times constant, or divided by it */
static hemi_status by_constant(hemi_onnx_graph *g, const node_proto *node, operand value, operand constant, bool divide,
                               hemi_onnx_value *out, hemi_error *err) {
    double c = 0, *numbers = NULL;
    if (hemi_circuit_is_scalar(constant)) {
        HEMI_TRY(hemi_circuit_scalar(g, node, constant, &c, err));
        return hemi_circuit_line(g, node, value, divide ? 1 / c : c, 0, out, err);
    }
    HEMI_TRY(hemi_circuit_spread(g, node, constant, value, &numbers, err));
    for (size_t i = 0; divide && i < value->features; i++) numbers[i] = 1 / numbers[i];
    return hemi_circuit_scale(g, node, value, numbers, NULL, out, err);
}

hemi_status hemi_circuit_multiply(hemi_onnx_graph *g, const node_proto *node, operand a, operand b,
                                  hemi_onnx_value *out, hemi_error *err) {
    hemi_onnx_value left, right;
    bool done = false;
    HEMI_TRY(meet(g, node, a, b, &left, &right, err));
    if (left.is_constant) return by_constant(g, node, &right, &left, false, out, err);
    if (right.is_constant) return by_constant(g, node, &left, &right, false, out, err);
    HEMI_TRY(hemi_circuit_fuse(g, node, &left, &right, HEMI_FUNCTION_TIMES, out, &done, err));
    return done ? HEMI_OK : hemi_circuit_product(g, node, &left, &right, out, err);
}

hemi_status hemi_circuit_divide(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, hemi_onnx_value *out,
                                hemi_error *err) {
    hemi_onnx_value left, right;
    bool done = false;
    double c = 1;
    HEMI_TRY(meet(g, node, a, b, &left, &right, err));
    if (right.is_constant) return by_constant(g, node, &left, &right, true, out, err);
    if (hemi_circuit_is_scalar(&left)) HEMI_TRY(hemi_circuit_scalar(g, node, &left, &c, err));
    if (!left.is_constant) HEMI_TRY(hemi_circuit_fuse(g, node, &left, &right, HEMI_FUNCTION_DIVIDE, out, &done, err));
    if (done) return HEMI_OK;
    HEMI_TRY(hemi_circuit_unary(g, node, &right, HEMI_FUNCTION_RECIPROCAL, &c, &right, err));
    if (hemi_circuit_is_scalar(&left)) {
        *out = right;
        return HEMI_OK;
    }
    return hemi_circuit_multiply(g, node, &left, &right, out, err);
}

/* ---- operators */

static hemi_status run_add(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    HEMI_TRY(hemi_onnx_operands(g, node, &a, &b, err));
    return hemi_circuit_add(g, node, a, b, strcmp(node->op_type, "Sub") == 0 ? -1 : 1, out, err);
}

static hemi_status run_mul(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    HEMI_TRY(hemi_onnx_operands(g, node, &a, &b, err));
    return hemi_circuit_multiply(g, node, a, b, out, err);
}

static hemi_status run_div(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    HEMI_TRY(hemi_onnx_operands(g, node, &a, &b, err));
    return hemi_circuit_divide(g, node, a, b, out, err);
}

static hemi_status run_sum(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    hemi_onnx_value sum;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    sum = *a;
    for (size_t i = 1; i < node->n_input; i++) {
        HEMI_TRY(hemi_onnx_input(g, node, i, &a, err));
        if (a == NULL) return hemi_onnx_bad(node, "list of inputs", err);
        HEMI_TRY(hemi_circuit_add(g, node, &sum, a, 1, &sum, err));
    }
    *out = sum;
    return HEMI_OK;
}

static hemi_status run_pow(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    double c = 0;
    HEMI_TRY(hemi_onnx_operands(g, node, &a, &b, err));
    if (a->is_constant == b->is_constant) return refuse(node, "needs a constant exponent, or a constant base", err);
    HEMI_TRY(hemi_circuit_scalar(g, node, a->is_constant ? a : b, &c, err));
    if (a->is_constant) return hemi_circuit_unary(g, node, b, HEMI_FUNCTION_POW_BASE, &c, out, err);
    if (c == 1) return hemi_circuit_line(g, node, a, 1, 0, out, err);
    return hemi_circuit_unary(g, node, a, c == 2 ? HEMI_FUNCTION_SQUARE : HEMI_FUNCTION_POW, &c, out, err);
}

static hemi_status clip(hemi_onnx_graph *g, const node_proto *node, operand a, double min, double max,
                        hemi_onnx_value *out, hemi_error *err) {
    const double most = (double)FLT_MAX, p[2] = {min < -most ? -most : min, max > most ? most : max};
    return hemi_circuit_unary(g, node, a, HEMI_FUNCTION_CLIP, p, out, err);
}

static hemi_status run_clip(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    double min = (double)hemi_onnx_attribute_float(node, "min", -FLT_MAX),
           max = (double)hemi_onnx_attribute_float(node, "max", FLT_MAX);
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_circuit_scalar_input(g, node, 1, &min, err));
    HEMI_TRY(hemi_circuit_scalar_input(g, node, 2, &max, err));
    return clip(g, node, a, min, max, out, err);
}

/* max(a, b) = b + Relu(a - b), min(a, b) = b - Relu(b - a); with one number it is a Clip. */
static hemi_status larger(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, bool min,
                          hemi_onnx_value *out, hemi_error *err) {
    const operand scalar = hemi_circuit_is_scalar(a) ? a : hemi_circuit_is_scalar(b) ? b : NULL;
    const operand value = scalar == a ? b : a;
    hemi_onnx_value r, keep = *b; /* b may be out */
    double c = 0;
    if (scalar != NULL && !value->is_constant) {
        HEMI_TRY(hemi_circuit_scalar(g, node, scalar, &c, err));
        return clip(g, node, value, min ? -(double)FLT_MAX : c, min ? c : (double)FLT_MAX, out, err);
    }
    HEMI_TRY(hemi_circuit_add(g, node, min ? b : a, min ? a : b, -1, &r, err));
    HEMI_TRY(hemi_circuit_unary(g, node, &r, HEMI_FUNCTION_RELU, NULL, &r, err));
    return hemi_circuit_add(g, node, &keep, &r, min ? -1 : 1, out, err);
}

static hemi_status run_max(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    hemi_onnx_value r;
    HEMI_TRY(hemi_onnx_input(g, node, 0, &a, err));
    if (a == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    r = *a;
    for (size_t i = 1; i < node->n_input; i++) {
        HEMI_TRY(hemi_onnx_input(g, node, i, &a, err));
        if (a == NULL) return hemi_onnx_bad(node, "list of inputs", err);
        HEMI_TRY(larger(g, node, &r, a, strcmp(node->op_type, "Min") == 0, &r, err));
    }
    if (r.is_constant) return refuse(node, "of constants: export with constant folding", err);
    *out = r;
    return HEMI_OK;
}

/* ---- what is true or false: 1 or 0 */

/* Greater, GreaterOrEqual, and Less as 1 - GreaterOrEqual. A value compared with one number is one function of it. */
static hemi_status compare(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, bool equal, bool less,
                           hemi_onnx_value *out, hemi_error *err) {
    hemi_onnx_value r = *a;
    double c = 0;
    const bool swap = hemi_circuit_is_scalar(a) && !b->is_constant; /* c > x is x < c */
    if (swap) return compare(g, node, b, a, equal, !less, out, err);
    if (hemi_circuit_is_scalar(b) && !a->is_constant)
        HEMI_TRY(hemi_circuit_scalar(g, node, b, &c, err));
    else
        HEMI_TRY(hemi_circuit_add(g, node, a, b, -1, &r, err));
    const hemi_function_id id = equal != less ? HEMI_FUNCTION_GREATER_OR_EQUAL : HEMI_FUNCTION_GREATER;
    HEMI_TRY(hemi_circuit_unary(g, node, &r, id, &c, &r, err));
    if (less) HEMI_TRY(hemi_circuit_line(g, node, &r, -1, 1, &r, err));
    r.tensor->truth = true;
    *out = r;
    return HEMI_OK;
}

static hemi_status run_compare(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    const char *op = node->op_type;
    HEMI_TRY(hemi_onnx_operands(g, node, &a, &b, err));
    return compare(g, node, a, b, strstr(op, "OrEqual") != NULL, strncmp(op, "Less", 4) == 0, out, err);
}

static hemi_status run_equal(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    hemi_onnx_value at_least, more;
    HEMI_TRY(hemi_onnx_operands(g, node, &a, &b, err));
    HEMI_TRY(compare(g, node, a, b, true, false, &at_least, err));
    HEMI_TRY(compare(g, node, a, b, false, false, &more, err));
    HEMI_TRY(hemi_circuit_add(g, node, &at_least, &more, -1, out, err));
    out->tensor->truth = true;
    return HEMI_OK;
}

/* And = a b, Or = a + b - a b, Xor = a + b - 2 a b */
static hemi_status run_logic(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, b = NULL;
    hemi_onnx_value sum, product;
    HEMI_TRY(hemi_onnx_operands(g, node, &a, &b, err));
    if (a->is_constant || b->is_constant) return refuse(node, "with a constant", err);
    HEMI_TRY(hemi_circuit_multiply(g, node, a, b, &product, err));
    if (strcmp(node->op_type, "And") != 0) {
        HEMI_TRY(hemi_circuit_add(g, node, a, b, 1, &sum, err));
        if (node->op_type[0] == 'X') HEMI_TRY(hemi_circuit_line(g, node, &product, 2, 0, &product, err));
        HEMI_TRY(hemi_circuit_add(g, node, &sum, &product, -1, &product, err));
    }
    *out = product;
    out->tensor->truth = true;
    return HEMI_OK;
}

static hemi_status run_not(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_circuit_line(g, node, a, -1, 1, out, err));
    out->tensor->truth = true;
    return HEMI_OK;
}

/* c (a - b) + b, or c a + (1 - c) b of two constants */
static hemi_status run_where(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand c = NULL, a = NULL, b = NULL;
    hemi_onnx_value first, second;
    HEMI_TRY(hemi_onnx_operands(g, node, &c, &a, err));
    HEMI_TRY(hemi_onnx_input(g, node, 2, &b, err));
    if (b == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    if (c->is_constant) return refuse(node, "with a constant condition: multiply by a mask of zeros and ones", err);
    if (a->is_constant && b->is_constant) {
        HEMI_TRY(hemi_circuit_multiply(g, node, c, a, &first, err));
        HEMI_TRY(hemi_circuit_line(g, node, c, -1, 1, &second, err));
        HEMI_TRY(hemi_circuit_multiply(g, node, &second, b, &second, err));
        return hemi_circuit_add(g, node, &first, &second, 1, out, err);
    }
    HEMI_TRY(hemi_circuit_add(g, node, a, b, -1, &first, err));
    HEMI_TRY(hemi_circuit_multiply(g, node, c, &first, &first, err));
    return hemi_circuit_add(g, node, &first, b, 1, out, err);
}

const hemi_onnx_entry hemi_circuit_arithmetic_operators[] = {{"Add", run_add},      {"Sub", run_add},
                                                             {"Mul", run_mul},      {"Div", run_div},
                                                             {"Sum", run_sum},      {"Pow", run_pow},
                                                             {"Clip", run_clip},    {"Max", run_max},
                                                             {"Min", run_max},      {"Greater", run_compare},
                                                             {"Less", run_compare}, {"GreaterOrEqual", run_compare},
                                                             {"Equal", run_equal},  {"LessOrEqual", run_compare},
                                                             {"And", run_logic},    {"Or", run_logic},
                                                             {"Xor", run_logic},    {"Not", run_not},
                                                             {"Where", run_where},  {NULL, NULL}};
