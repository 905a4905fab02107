/* The operators that leave the numbers alone: every one must keep the last dimension, the features, as it is. */
#include <string.h>

#include "base/error.h"
#include "model/onnx_graph.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define DATA_TYPE_FLOAT   1
#define DATA_TYPE_FLOAT16 10
#define DATA_TYPE_DOUBLE  11

static hemi_status refuse(const node_proto *node, const char *why, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "%s %s", hemi_onnx_label_of(node).s, why);
}

static hemi_status changes_features(const node_proto *node, hemi_error *err) {
    return refuse(
        node, "changes which numbers make a row: keep it outside the module, before or after the Linear layers", err);
}

static hemi_status one_input(const hemi_onnx_graph *g, const node_proto *node, operand *a, hemi_error *err) {
    HEMI_TRY(hemi_onnx_input(g, node, 0, a, err));
    return *a != NULL ? HEMI_OK : hemi_fail(err, HEMI_ERR_FORMAT, "%s has no input", hemi_onnx_label_of(node).s);
}

/* As one_input, for operators that are not folded when their input is constant. */
static hemi_status one_value(const hemi_onnx_graph *g, const node_proto *node, operand *a, hemi_error *err) {
    HEMI_TRY(one_input(g, node, a, err));
    return (*a)->is_constant ? refuse(node, "of a constant: export with constant folding", err) : HEMI_OK;
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
    if (!a->is_constant) return changes_features(node, err);
    if (rank != 2) return refuse(node, "of a constant that is not a matrix", err);
    hemi_onnx_constant_transpose(&out->constant);
    return HEMI_OK;
}

/* Dimensions not known count as one: the rows of one call. */
static int64_t known(int64_t dim) { return dim > 0 ? dim : 1; }

static hemi_status run_flatten(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(one_value(g, node, &a, err));
    const int64_t rank = (int64_t)a->rank;
    int64_t axis = hemi_onnx_attribute_int(node, "axis", 1);
    if (axis < 0) axis += rank;
    if (axis < 0 || axis > rank)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad axis", hemi_onnx_label_of(node).s);
    if (axis == rank) return changes_features(node, err);
    *out = *a;
    out->rank = 2;
    out->dims[0] = -1;
    out->dims[1] = a->features;
    for (int64_t i = axis; i + 1 < rank; i++)
        if (a->dims[i] != 1) return changes_features(node, err);
    return HEMI_OK;
}

/* The integers of an optional second input, or of the attribute that older operator sets have instead. */
static hemi_status read_ints(const hemi_onnx_graph *g, const node_proto *node, const char *attribute, int64_t *ints,
                             size_t *count, hemi_error *err) {
    operand list = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, 1, &list, err));
    *count = 0;
    if (list != NULL && !list->is_constant)
        return refuse(node, "has a shape that is computed: export with fixed shapes", err);
    if (list != NULL) return hemi_onnx_constant_ints(&list->constant, ints, HEMI_ONNX_RANK_MAX, count, err);
    const Hemi__Onnx__AttributeProto *a = hemi_onnx_attribute(node, attribute);
    if (a == NULL) return HEMI_OK;
    if (a->n_ints > HEMI_ONNX_RANK_MAX) return refuse(node, "has too many dimensions", err);
    *count = a->n_ints;
    if (*count > 0) memcpy(ints, a->ints, *count * sizeof *ints);
    return HEMI_OK;
}

static hemi_status run_reshape(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t shape[HEMI_ONNX_RANK_MAX];
    size_t rank = 0;
    HEMI_TRY(one_value(g, node, &a, err));
    HEMI_TRY(read_ints(g, node, "shape", shape, &rank, err));
    if (rank == 0) return refuse(node, "to a single number", err);
    if (hemi_onnx_attribute_int(node, "allowzero", 0) != 0) return refuse(node, "with allowzero", err);
    int64_t total = 1, others = 1;
    size_t open = 0;
    for (size_t i = 0; i < a->rank; i++) total *= known(a->dims[i]); /* < 2^63 */
    *out = *a;
    out->rank = rank;
    for (size_t i = 0; i < rank; i++) {
        int64_t dim = shape[i];
        if (dim == -1) open++;
        if (dim < -1 || open > 1 || (dim == 0 && i >= a->rank))
            return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad shape", hemi_onnx_label_of(node).s);
        if (dim == 0) dim = a->dims[i];
        out->dims[i] = dim;
        if (i + 1 < rank && shape[i] != -1) {
            if (known(dim) > total / others)
                return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad shape", hemi_onnx_label_of(node).s);
            others *= known(dim);
        }
    }
    int64_t *last = &out->dims[rank - 1];
    if (shape[rank - 1] == -1) *last = total / others;
    if (*last != a->features) return changes_features(node, err);
    return HEMI_OK;
}

static hemi_status bad_axis(const node_proto *node, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad axis", hemi_onnx_label_of(node).s);
}

static hemi_status run_squeeze(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t axes[HEMI_ONNX_RANK_MAX];
    size_t count = 0;
    bool drop[HEMI_ONNX_RANK_MAX] = {false};
    HEMI_TRY(one_value(g, node, &a, err));
    HEMI_TRY(read_ints(g, node, "axes", axes, &count, err));
    for (size_t i = 0; count == 0 && i < a->rank; i++) drop[i] = a->dims[i] == 1;
    for (size_t i = 0; i < count; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + (int64_t)a->rank : axes[i];
        if (axis < 0 || axis >= (int64_t)a->rank || a->dims[axis] > 1) return bad_axis(node, err);
        drop[axis] = true;
    }
    if (drop[a->rank - 1]) return changes_features(node, err);
    *out = *a;
    out->rank = 0;
    for (size_t i = 0; i < a->rank; i++)
        if (!drop[i]) out->dims[out->rank++] = a->dims[i];
    return HEMI_OK;
}

static hemi_status run_unsqueeze(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t axes[HEMI_ONNX_RANK_MAX];
    size_t count = 0;
    bool added[HEMI_ONNX_RANK_MAX] = {false};
    HEMI_TRY(one_value(g, node, &a, err));
    HEMI_TRY(read_ints(g, node, "axes", axes, &count, err));
    const size_t rank = a->rank + count;
    if (rank > HEMI_ONNX_RANK_MAX) return refuse(node, "gives too many dimensions", err);
    for (size_t i = 0; i < count; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + (int64_t)rank : axes[i];
        if (axis < 0 || axis >= (int64_t)rank || added[axis]) return bad_axis(node, err);
        added[axis] = true;
    }
    if (added[rank - 1]) return changes_features(node, err);
    *out = *a;
    out->rank = rank;
    for (size_t i = 0, from = 0; i < rank; i++) out->dims[i] = added[i] ? 1 : a->dims[from++];
    return HEMI_OK;
}

hemi_onnx_operator hemi_onnx_shape_operator(const char *op_type) {
    static const struct {
        const char *name;
        hemi_onnx_operator run;
    } table[] = {{"Identity", run_identity}, {"Dropout", run_dropout},     {"Cast", run_cast},
                 {"Constant", run_constant}, {"Transpose", run_transpose}, {"Flatten", run_flatten},
                 {"Reshape", run_reshape},   {"Squeeze", run_squeeze},     {"Unsqueeze", run_unsqueeze}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(op_type, table[i].name) == 0) return table[i].run;
    return NULL;
}
