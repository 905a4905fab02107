/* Shapes that a graph computes from constants, as exporters write the padding of a Pad: a few integers, at once. */
#include <string.h>

#include "base/error.h"
#include "model/onnx_sample.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define INTEGERS_MAX 64
#define DATA_INT32   6
#define DATA_INT64   7
#define LIST_OF_ONE  1

/* An array of rank at most HEMI_ONNX_RANK_MAX. */
typedef struct integers {
    size_t rank, count;
    int64_t dims[HEMI_ONNX_RANK_MAX];
    int64_t v[INTEGERS_MAX];
} integers;

static hemi_status read_array(const node_proto *node, operand a, integers *out, hemi_error *err) {
    const hemi_onnx_constant *c = &a->constant;
    if (!a->is_constant) return hemi_onnx_refuse(node, "has a shape that is computed: export with fixed shapes", err);
    HEMI_TRY(hemi_onnx_constant_integers(c, out->v, INTEGERS_MAX, &out->count, err));
    out->rank = c->rank;
    for (size_t i = 0; i < c->rank; i++) out->dims[i] = (int64_t)c->dims[i];
    return HEMI_OK;
}

static hemi_status read_input(const hemi_onnx_graph *g, const node_proto *node, size_t i, integers *out,
                              hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, i, &a, err));
    if (a == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    return read_array(node, a, out, err);
}

/* The result as a constant of the graph. */
static hemi_status give(hemi_onnx_graph *g, const node_proto *node, const integers *in, hemi_onnx_value *out,
                        hemi_error *err) {
    float *block = NULL;
    if (in->count == 0 || in->count > INTEGERS_MAX)
        return hemi_onnx_refuse(node, "computes more integers than a shape has", err);
    HEMI_TRY(hemi_onnx_block(g, &block, in->count, sizeof *in->v / sizeof *block, err)); /* aligned as hemi_alloc is */
    memcpy(block, in->v, in->count * sizeof *in->v);
    out->is_constant = true;
    out->constant =
        (hemi_onnx_constant){.integers = block, .name = node->output[0], .rank = in->rank, .count = in->count};
    for (size_t i = 0; i < in->rank; i++) out->constant.dims[i] = (size_t)in->dims[i];
    return HEMI_OK;
}

static hemi_status run_shape(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    integers r = {.rank = LIST_OF_ONE};
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    for (size_t i = 0; i < a->rank; i++) r.v[i] = a->dims[i];
    r.dims[0] = (int64_t)(r.count = a->rank);
    return give(g, node, &r, out, err);
}

static hemi_status run_fill(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers shape, r = {.count = 1};
    hemi_onnx_constant value;
    size_t one = 0;
    int64_t v = 0;
    const Hemi__Onnx__AttributeProto *a = hemi_onnx_attribute(node, "value");
    HEMI_TRY(read_input(g, node, 0, &shape, err));
    if (a == NULL || a->t == NULL) return hemi_onnx_refuse(node, "does not make integers", err);
    HEMI_TRY(hemi_onnx_constant_init(&value, a->t, "value", err));
    HEMI_TRY(hemi_onnx_constant_ints(&value, &v, 1, &one, err));
    if (shape.rank > 1 || shape.count > HEMI_ONNX_RANK_MAX) return hemi_onnx_bad(node, "shape", err);
    r.rank = shape.count;
    for (size_t i = 0; i < shape.count; i++) {
        if (shape.v[i] < 1 || shape.v[i] > INTEGERS_MAX / (int64_t)r.count) return hemi_onnx_bad(node, "shape", err);
        r.dims[i] = shape.v[i];
        r.count *= (size_t)shape.v[i];
    }
    for (size_t i = 0; i < r.count; i++) r.v[i] = v;
    return give(g, node, &r, out, err);
}

static hemi_status run_concat(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers part, r = {.rank = LIST_OF_ONE};
    const int64_t axis = hemi_onnx_attribute_int(node, "axis", 0);
    for (size_t i = 0; i < node->n_input; i++) {
        HEMI_TRY(read_input(g, node, i, &part, err));
        if (part.rank != 1 || (axis != 0 && axis != -1))
            return hemi_onnx_refuse(node, "of integers that are no lists", err);
        if (part.count > INTEGERS_MAX - r.count)
            return hemi_onnx_refuse(node, "computes more integers than a shape has", err);
        memcpy(r.v + r.count, part.v, part.count * sizeof *part.v);
        r.count += part.count;
    }
    r.dims[0] = (int64_t)r.count;
    return give(g, node, &r, out, err);
}

static hemi_status run_reshape(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers r, shape;
    size_t others = 1, open = SIZE_MAX;
    HEMI_TRY(read_input(g, node, 0, &r, err));
    HEMI_TRY(read_input(g, node, 1, &shape, err));
    if (shape.rank != 1 || shape.count > HEMI_ONNX_RANK_MAX) return hemi_onnx_bad(node, "shape", err);
    r.rank = shape.count;
    for (size_t i = 0; i < shape.count; i++) {
        const int64_t dim = shape.v[i];
        if (dim == -1 && open == SIZE_MAX) {
            open = i;
            continue;
        }
        if (dim < 1 || dim > INTEGERS_MAX / (int64_t)others) return hemi_onnx_bad(node, "shape", err);
        r.dims[i] = dim;
        others *= (size_t)dim;
    }
    if (open != SIZE_MAX) r.dims[open] = (int64_t)(r.count / others);
    if ((open != SIZE_MAX ? r.count % others : r.count - others) != 0) return hemi_onnx_bad(node, "shape", err);
    return give(g, node, &r, out, err);
}

static int64_t clamp(int64_t v, int64_t min, int64_t max) { return v < min ? min : v > max ? max : v; }

/* From the end if negative; ends beyond the array are its ends. */
static int64_t place_on(int64_t v, int64_t side, int64_t min, int64_t max) {
    return clamp(v < 0 ? (v < -side ? -1 : v + side) : v, min, max);
}

/* Along one axis. */
static hemi_status run_slice(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers in, r, list[4] = {{.v = {0}}, {.v = {0}}, {.v = {0}}, {.v = {1}}}; /* starts, ends, axes, steps */
    HEMI_TRY(read_input(g, node, 0, &in, err));
    for (size_t i = 0; i < 4 && 1 + i < node->n_input; i++) {
        HEMI_TRY(read_input(g, node, 1 + i, &list[i], err));
        if (list[i].count != 1) return hemi_onnx_refuse(node, "of integers is along more than one axis", err);
    }
    const int64_t step = list[3].v[0], axis = list[2].v[0] < 0 ? list[2].v[0] + (int64_t)in.rank : list[2].v[0];
    if (node->n_input < 3 || axis < 0 || axis >= (int64_t)in.rank || step == 0)
        return hemi_onnx_bad(node, "axis or step", err);
    const int64_t side = in.dims[axis];
    const int64_t from = step > 0 ? place_on(list[0].v[0], side, 0, side) : place_on(list[0].v[0], side, -1, side - 1);
    const int64_t end = step > 0 ? place_on(list[1].v[0], side, 0, side) : place_on(list[1].v[0], side, -1, side - 1);
    const int64_t pace = clamp(step, -side - 1, side + 1);
    size_t inner = 1, outer = 1;
    for (size_t i = 0; i < in.rank; i++)
        *((int64_t)i < axis ? &outer : &inner) *= (size_t)((int64_t)i == axis ? 1 : in.dims[i]);
    r = in;
    r.count = 0;
    for (size_t o = 0; o < outer; o++)
        for (int64_t i = from; step > 0 ? i < end : i > end; i += pace, r.count += inner)
            memcpy(r.v + r.count, in.v + (o * (size_t)side + (size_t)i) * inner, inner * sizeof *r.v);
    r.dims[axis] = (int64_t)(r.count / (outer * inner));
    return give(g, node, &r, out, err);
}

static hemi_status run_transpose(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers in, r;
    const Hemi__Onnx__AttributeProto *perm = hemi_onnx_attribute(node, "perm");
    HEMI_TRY(read_input(g, node, 0, &in, err));
    if (in.rank != 2 || (perm != NULL && (perm->n_ints != 2 || perm->ints[0] != 1 || perm->ints[1] != 0)))
        return hemi_onnx_refuse(node, "of integers is not that of a matrix", err);
    r = in;
    r.dims[0] = in.dims[1];
    r.dims[1] = in.dims[0];
    const size_t rows = (size_t)in.dims[0], columns = (size_t)in.dims[1];
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) r.v[j * rows + i] = in.v[i * columns + j];
    return give(g, node, &r, out, err);
}

static hemi_status run_cast(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers r;
    const int64_t to = hemi_onnx_attribute_int(node, "to", 0);
    if (to != DATA_INT32 && to != DATA_INT64) return hemi_onnx_refuse(node, "of integers is to another type", err);
    HEMI_TRY(read_input(g, node, 0, &r, err));
    return give(g, node, &r, out, err);
}

static hemi_status run_gather(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers in, at;
    HEMI_TRY(read_input(g, node, 0, &in, err));
    HEMI_TRY(read_input(g, node, 1, &at, err));
    if (in.rank != 1 || hemi_onnx_attribute_int(node, "axis", 0) != 0)
        return hemi_onnx_refuse(node, "of integers that are no list", err);
    for (size_t i = 0; i < at.count; i++) {
        const int64_t from = at.v[i] < 0 ? at.v[i] + (int64_t)in.count : at.v[i];
        if (from < 0 || from >= (int64_t)in.count) return hemi_onnx_bad(node, "index", err);
        at.v[i] = in.v[from];
    }
    return give(g, node, &at, out, err);
}

/* A number becomes a list of one, or the other way about. */
static hemi_status run_wrap(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers r;
    HEMI_TRY(read_input(g, node, 0, &r, err));
    if (r.count != 1 || r.rank > 1) return hemi_onnx_refuse(node, "of integers that are a list", err);
    r.rank = strcmp(node->op_type, "Unsqueeze") == 0 ? 1 : 0;
    r.dims[0] = 1;
    return give(g, node, &r, out, err);
}

/* ---- arithmetic, as shapes that are computed are written: chunk, expand */

static bool calculate(char op, int64_t a, int64_t b, int64_t *out) {
    switch (op) {
    case 'A':
        return !__builtin_add_overflow(a, b, out);
    case 'S':
        return !__builtin_sub_overflow(a, b, out);
    case 'M':
        return !__builtin_mul_overflow(a, b, out);
    case 'E':
        *out = a == b;
        return true;
    default:
        if (b == 0 || (a == INT64_MIN && b == -1)) return false;
        *out = a / b;
        return true;
    }
}

/* Of lists of the same length, or of one number. */
static hemi_status run_arithmetic(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers a, b;
    HEMI_TRY(read_input(g, node, 0, &a, err));
    HEMI_TRY(read_input(g, node, 1, &b, err));
    integers r = a.rank > b.rank || (a.rank == b.rank && a.count > b.count) ? a : b;
    if (a.rank > 1 || b.rank > 1 || (a.count != b.count && a.count != 1 && b.count != 1))
        return hemi_onnx_refuse(node, "of integers that are no lists of the same length", err);
    for (size_t i = 0; i < r.count; i++)
        if (!calculate(node->op_type[0], a.v[a.count == 1 ? 0 : i], b.v[b.count == 1 ? 0 : i], &r.v[i]))
            return hemi_onnx_bad(node, "operand", err);
    return give(g, node, &r, out, err);
}

static hemi_status run_where(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    integers c, a, b;
    HEMI_TRY(read_input(g, node, 0, &c, err));
    HEMI_TRY(read_input(g, node, 1, &a, err));
    HEMI_TRY(read_input(g, node, 2, &b, err));
    if (a.count != c.count || b.count != c.count) return hemi_onnx_refuse(node, "of lists of different lengths", err);
    for (size_t i = 0; i < c.count; i++) c.v[i] = c.v[i] != 0 ? a.v[i] : b.v[i];
    return give(g, node, &c, out, err);
}

static bool all_integers(const hemi_onnx_graph *g, const node_proto *node) {
    for (size_t i = 0; i < node->n_input; i++) {
        operand a = NULL;
        if (hemi_onnx_input(g, node, i, &a, NULL) != HEMI_OK || a == NULL || !a->is_constant ||
            !hemi_onnx_constant_is_integer(&a->constant))
            return false;
    }
    return true;
}

hemi_onnx_operator hemi_onnx_integer_operator(const hemi_onnx_graph *g, const node_proto *node) {
    static const hemi_onnx_entry table[] = {{"ConstantOfShape", run_fill}, {"Concat", run_concat},
                                            {"Reshape", run_reshape},      {"Slice", run_slice},
                                            {"Transpose", run_transpose},  {"Cast", run_cast},
                                            {"Gather", run_gather},        {"Unsqueeze", run_wrap},
                                            {"Squeeze", run_wrap},         {NULL, NULL}};
    static const hemi_onnx_entry arithmetic[] = {{"Add", run_arithmetic},
                                                 {"Sub", run_arithmetic},
                                                 {"Mul", run_arithmetic},
                                                 {"Div", run_arithmetic},
                                                 {"Equal", run_arithmetic},
                                                 {"Where", run_where},
                                                 {NULL, NULL}};
    operand a = NULL;
    if (g->samples && strcmp(node->op_type, "Shape") == 0) return run_shape;
    if (hemi_onnx_input(g, node, 0, &a, NULL) != HEMI_OK || a == NULL || !a->is_constant ||
        !hemi_onnx_constant_is_integer(&a->constant))
        return NULL;
    const hemi_onnx_operator run = hemi_onnx_find_operator(table, node->op_type);
    if (run != NULL) return run;
    return all_integers(g, node) ? hemi_onnx_find_operator(arithmetic, node->op_type) : NULL;
}
