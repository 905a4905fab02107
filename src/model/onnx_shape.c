/* The operators that leave the numbers alone. Of rows, every one must keep the last dimension, the features, as it is. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/onnx_sample.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define DATA_TYPE_FLOAT   1
#define DATA_TYPE_FLOAT16 10
#define DATA_TYPE_DOUBLE  11

#define refuse hemi_onnx_refuse

/* A new view of `a`: rows keep their last dimension, samples all their numbers, and the batch its place. */
static hemi_status view(hemi_onnx_graph *g, const node_proto *node, operand a, hemi_onnx_value *out, hemi_error *err) {
    if (!g->samples) {
        if (out->rank > 0 && out->dims[out->rank - 1] == (int64_t)a->features) return HEMI_OK;
        g->wants_samples = true;
        return refuse(node,
                      "changes which numbers make a row: keep it outside the module, before or after the Linear layers",
                      err);
    }
    if (out->rank == 0) return refuse(node, "to a single number", err);
    if (g->batched && out->dims[0] != 1) return refuse(node, "changes which numbers make a sample", err);
    int64_t total = 1;
    for (size_t i = 0; i < out->rank; i++) {
        if (out->dims[i] < 1 || out->dims[i] > (int64_t)a->features / total) return hemi_onnx_bad(node, "shape", err);
        total *= out->dims[i];
    }
    return total == (int64_t)a->features ? HEMI_OK : hemi_onnx_bad(node, "shape", err);
}

static hemi_status one_input(const hemi_onnx_graph *g, const node_proto *node, operand *a, hemi_error *err) {
    HEMI_TRY(hemi_onnx_input(g, node, 0, a, err));
    return *a != NULL ? HEMI_OK : hemi_fail(err, HEMI_ERR_FORMAT, "%s has no input", hemi_onnx_label_of(node).s);
}

static hemi_status run_identity(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(one_input(g, node, &a, err));
    *out = *a;
    return HEMI_OK;
}

static hemi_status run_dropout(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand training = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, 2, &training, err));
    if (training != NULL && !(training->is_constant && hemi_onnx_constant_is_false(&training->constant)))
        return refuse(node, "is in training mode: call eval() before exporting", err);
    return run_identity(g, node, out, err);
}

static hemi_status run_cast(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    const int64_t to = hemi_onnx_attribute_int(node, "to", 0);
    if (to != DATA_TYPE_FLOAT && to != DATA_TYPE_FLOAT16 && to != DATA_TYPE_DOUBLE)
        return refuse(node, "is not to a floating-point type", err);
    return run_identity(g, node, out, err);
}

static hemi_status run_constant(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    (void)g;
    if (node->n_attribute != 1) return refuse(node, "should have one value", err);
    out->is_constant = true;
    return hemi_onnx_constant_from_attribute(&out->constant, node->attribute[0],
                                             node->n_output > 0 ? node->output[0] : "", err);
}

/* Samples: numbers that stay in their order only look different; others take a matrix. */
static hemi_status transpose_value(hemi_onnx_graph *g, const node_proto *node, operand a,
                                   const Hemi__Onnx__AttributeProto *perm, hemi_onnx_value *out, hemi_error *err) {
    size_t from[HEMI_ONNX_RANK_MAX] = {0}, place[HEMI_ONNX_RANK_MAX] = {0}, *order = NULL;
    int64_t last = -1;
    bool same = true;
    for (size_t i = 0; i < a->rank; i++) {
        from[i] = perm != NULL ? (size_t)perm->ints[i] : a->rank - 1 - i;
        out->dims[i] = a->dims[from[i]];
        if (a->dims[from[i]] == 1) continue;
        same &= (int64_t)from[i] > last;
        last = (int64_t)from[i];
    }
    if (!g->samples) {
        g->wants_samples = true;
        return refuse(node,
                      "changes which numbers make a row: keep it outside the module, before or after the Linear layers",
                      err);
    }
    if (g->batched && from[0] != 0) return refuse(node, "changes which numbers make a sample", err);
    if (same) return HEMI_OK;
    size_t stride[HEMI_ONNX_RANK_MAX], step = 1;
    for (size_t i = a->rank; i-- > 0; step *= (size_t)a->dims[i]) stride[i] = step;
    order = hemi_alloc(a->features, sizeof *order);
    if (order == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a permutation");
    for (size_t n = 0; n < a->features; n++) {
        for (size_t i = 0; i < a->rank; i++) order[n] += place[i] * stride[from[i]];
        for (size_t i = a->rank; i-- > 0 && ++place[i] == (size_t)out->dims[i];) place[i] = 0;
    }
    const hemi_status status = g->reader->permute(g, node, a, order, out, err);
    hemi_free(order);
    return status;
}

static hemi_status run_transpose(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(one_input(g, node, &a, err));
    const size_t rank = a->is_constant ? a->constant.rank : a->rank;
    const Hemi__Onnx__AttributeProto *perm = hemi_onnx_attribute(node, "perm");
    if (perm != NULL && perm->n_ints != rank)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s permutes %zu dimensions of %zu", hemi_onnx_label_of(node).s,
                         perm->n_ints, rank);
    bool same = true;
    uint64_t seen = 0;
    for (size_t i = 0; i < rank; i++) {
        const int64_t from = perm != NULL ? perm->ints[i] : (int64_t)(rank - 1 - i);
        if (from < 0 || from >= (int64_t)rank || (seen >> from & 1) != 0)
            return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad permutation", hemi_onnx_label_of(node).s);
        seen |= UINT64_C(1) << from;
        same = same && from == (int64_t)i;
    }
    *out = *a;
    if (same) return HEMI_OK;
    if (!a->is_constant) return transpose_value(g, node, a, perm, out, err);
    if (rank != 2) return refuse(node, "of a constant that is not a matrix", err);
    hemi_onnx_constant_transpose(&out->constant);
    return HEMI_OK;
}

/* Dimensions not known count as one: the rows of one call. */
static int64_t known(int64_t dim) { return dim > 0 ? dim : 1; }

static hemi_status run_flatten(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    const int64_t rank = (int64_t)a->rank;
    int64_t axis = hemi_onnx_attribute_int(node, "axis", 1);
    if (axis < 0) axis += rank;
    if (axis < 0 || axis > rank) return hemi_onnx_bad(node, "axis", err);
    *out = *a;
    out->rank = 2;
    out->dims[0] = g->samples ? 1 : -1;
    out->dims[1] = 1;
    for (int64_t i = 0; i < rank; i++) {
        if (g->samples)
            out->dims[i >= axis] *= a->dims[i];
        else if (i >= axis && out->dims[1] > 0)
            out->dims[1] = a->dims[i] > 0 ? out->dims[1] * a->dims[i] : -1;
    }
    return view(g, node, a, out, err);
}

static hemi_status run_reshape(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t shape[HEMI_ONNX_RANK_MAX];
    size_t rank = 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_ints(g, node, 1, "shape", shape, HEMI_ONNX_RANK_MAX, &rank, err));
    if (rank == 0) return refuse(node, "to a single number", err);
    if (hemi_onnx_attribute_int(node, "allowzero", 0) != 0) return refuse(node, "with allowzero", err);
    int64_t total = 1, others = 1;
    size_t open = 0;
    bool counted = true; /* whether it is known how many rows there are */
    for (size_t i = 0; i < a->rank; i++) {
        total *= known(a->dims[i]); /* < 2^63 */
        counted &= a->dims[i] > 0;
    }
    const int64_t most = counted || shape[rank - 1] == -1 ? total : HEMI_ONNX_NUMBERS_MAX;
    *out = *a;
    out->rank = rank;
    for (size_t i = 0; i < rank; i++) {
        int64_t dim = shape[i];
        if (dim == -1) open++;
        if (dim < -1 || open > 1 || (dim == 0 && i >= a->rank)) return hemi_onnx_bad(node, "shape", err);
        if (dim == 0) dim = a->dims[i];
        out->dims[i] = dim;
        if ((g->samples || i + 1 < rank) && shape[i] != -1) {
            if (known(dim) > most / others) return hemi_onnx_bad(node, "shape", err);
            others *= known(dim);
        }
    }
    for (size_t i = 0; i < rank; i++)
        if (shape[i] == -1 && (g->samples || i + 1 == rank)) out->dims[i] = total / others;
    return view(g, node, a, out, err);
}

static hemi_status run_squeeze(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t axes[HEMI_ONNX_RANK_MAX];
    size_t count = 0;
    bool drop[HEMI_ONNX_RANK_MAX] = {false};
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_ints(g, node, 1, "axes", axes, HEMI_ONNX_RANK_MAX, &count, err));
    for (size_t i = 0; count == 0 && i < a->rank; i++) drop[i] = a->dims[i] == 1;
    for (size_t i = 0; i < count; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + (int64_t)a->rank : axes[i];
        if (axis < 0 || axis >= (int64_t)a->rank || a->dims[axis] > 1) return hemi_onnx_bad(node, "axis", err);
        drop[axis] = true;
    }
    *out = *a;
    out->rank = 0;
    if (g->samples && g->batched && drop[0]) return refuse(node, "changes which numbers make a sample", err);
    for (size_t i = 0; i < a->rank; i++)
        if (!drop[i]) out->dims[out->rank++] = a->dims[i];
    if (!g->samples && drop[a->rank - 1]) out->rank = 0; /* the features are gone, whatever comes last now */
    return view(g, node, a, out, err);
}

static hemi_status run_unsqueeze(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t axes[HEMI_ONNX_RANK_MAX];
    size_t count = 0;
    bool added[HEMI_ONNX_RANK_MAX] = {false};
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_ints(g, node, 1, "axes", axes, HEMI_ONNX_RANK_MAX, &count, err));
    const size_t rank = a->rank + count;
    if (rank > HEMI_ONNX_RANK_MAX) return refuse(node, "gives too many dimensions", err);
    for (size_t i = 0; i < count; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + (int64_t)rank : axes[i];
        if (axis < 0 || axis >= (int64_t)rank || added[axis]) return hemi_onnx_bad(node, "axis", err);
        added[axis] = true;
    }
    *out = *a;
    out->rank = rank;
    for (size_t i = 0, from = 0; i < rank; i++) out->dims[i] = added[i] ? 1 : a->dims[from++];
    if (!g->samples && added[rank - 1]) out->rank = 0;
    if (g->samples && g->batched && added[0]) return refuse(node, "changes which numbers make a sample", err);
    return view(g, node, a, out, err);
}

const hemi_onnx_entry hemi_onnx_shape_operators[] = {{"Identity", run_identity},   {"Dropout", run_dropout},
                                                     {"Cast", run_cast},           {"Constant", run_constant},
                                                     {"Transpose", run_transpose}, {"Flatten", run_flatten},
                                                     {"Reshape", run_reshape},     {"Squeeze", run_squeeze},
                                                     {"Unsqueeze", run_unsqueeze}, {NULL, NULL}};
