#include "model/circuit_tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

/* ---- values of the circuit */

hemi_status hemi_circuit_tensor_new(hemi_onnx_graph *g, hemi_circuit_tensor **out, const hemi_circuit_base *base,
                                    hemi_error *err) {
    void *tensor = NULL, *copy = NULL;
    HEMI_TRY(hemi_circuit_bytes(g, &tensor, 1, sizeof **out, err));
    HEMI_TRY(hemi_circuit_bytes(g, &copy, 1, sizeof *base, err));
    memcpy(copy, base, sizeof *base);
    *out = tensor;
    (*out)->base = copy;
    return HEMI_OK;
}

hemi_status hemi_circuit_give(hemi_onnx_graph *g, const hemi_circuit_base *base, hemi_onnx_value *out,
                              hemi_error *err) {
    out->features = base->size;
    out->is_constant = false;
    return hemi_circuit_tensor_new(g, &out->tensor, base, err);
}

/* The circuit's next value, with the dimensions of `shape` but for the batch. */
static hemi_status new_value(hemi_onnx_graph *g, const char *name, operand shape, hemi_circuit_value **out,
                             hemi_error *err) {
    hemi_circuit *c = ((hemi_circuit_build *)g->target)->circuit;
    if (c->values == HEMI_CIRCUIT_VALUES_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the graph makes more than %d values: export fewer layers together",
                         HEMI_CIRCUIT_VALUES_MAX);
    hemi_circuit_value *v = &c->value[c->values++];
    *v = (hemi_circuit_value){.size = shape->features, .rank = 1, .dims = {shape->features}};
    (void)snprintf(v->name, sizeof v->name, "%s", name);
    const size_t skip = g->batched ? 1 : 0;
    if (g->samples && shape->rank > skip) {
        v->rank = shape->rank - skip;
        for (size_t i = 0; i < v->rank; i++) v->dims[i] = (uint32_t)shape->dims[skip + i];
    }
    *out = v;
    return HEMI_OK;
}

static hemi_status copy_block(void **out, const void *from, size_t count, size_t size, hemi_error *err) {
    *out = hemi_alloc_large(count, size);
    if (*out == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu weights", count);
    if (count > 0) memcpy(*out, from, count * size);
    return HEMI_OK;
}

static hemi_status copy_map(hemi_sparse *to, const hemi_sparse *from, hemi_error *err) {
    void *block = NULL;
    *to = (hemi_sparse){.rows = from->rows, .columns = from->columns};
    const size_t count = hemi_sparse_from(from, from->rows);
    if (!hemi_sparse_is_identity(from)) {
        HEMI_TRY(copy_block(&block, from->weight, count, sizeof *to->weight, err));
        to->weight = block;
        if (from->column == NULL) return HEMI_OK;
        HEMI_TRY(copy_block(&block, from->column, count, sizeof *to->column, err));
        to->column = block;
        HEMI_TRY(copy_block(&block, from->start, (size_t)from->rows + 1, sizeof *to->start, err));
        to->start = block;
        return HEMI_OK;
    }
    to->weight = hemi_alloc(count, sizeof *to->weight);
    to->column = hemi_alloc(count, sizeof *to->column);
    to->start = hemi_alloc(count + 1, sizeof *to->start);
    if (to->weight == NULL || to->column == NULL || to->start == NULL)
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu weights", count);
    for (uint32_t i = 0; i < count; i++) {
        to->weight[i] = 1;
        to->start[i] = to->column[i] = i;
    }
    to->start[count] = count;
    return HEMI_OK;
}

/* What may overflow, or be wrong in the file, is looked at once, here. */
static bool is_finite(const hemi_circuit_base *b) {
    bool finite = true;
    for (size_t i = 0; b->bias != NULL && i < b->size; i++) finite &= b->bias[i] - b->bias[i] == 0;
    for (size_t t = 0; t < b->terms; t++) {
        const hemi_sparse *m = &b->term[t].map;
        const uint64_t count = hemi_sparse_is_identity(m) ? 0 : hemi_sparse_from(m, m->rows);
        for (uint64_t e = 0; e < count; e++) finite &= m->weight[e] - m->weight[e] == 0;
    }
    return finite;
}

static uint64_t weights_of(const hemi_circuit_affine *a) {
    uint64_t count = 0;
    for (size_t t = 0; t < a->terms; t++) count += hemi_sparse_from(&a->term[t].map, a->term[t].map.rows);
    return count;
}

/* A base out of the graph's blocks, into a value of the circuit. */
static hemi_status copy_base(hemi_onnx_graph *g, hemi_circuit_affine *to, const hemi_circuit_base *from,
                             hemi_error *err) {
    const hemi_circuit *c = ((hemi_circuit_build *)g->target)->circuit;
    uint64_t weights = 0;
    void *block = NULL;
    for (size_t v = 0; v < c->values; v++) weights += weights_of(&c->value[v].a) + weights_of(&c->value[v].b);
    for (size_t t = 0; t < from->terms; t++) weights += hemi_sparse_from(&from->term[t].map, from->size);
    if (weights > HEMI_CIRCUIT_WEIGHTS_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE,
                         "the circuit has more than 2^27 weights: make several remote modules of it");
    if (!is_finite(from))
        return hemi_fail(err, HEMI_ERR_FORMAT, "the weights before %s are not all finite numbers",
                         c->value[c->values - 1].name);
    to->term = hemi_alloc(from->terms, sizeof *to->term);
    if (to->term == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a circuit");
    for (size_t t = 0; t < from->terms; t++) {
        to->term[t].source = from->term[t].source;
        to->terms = t + 1;
        HEMI_TRY(copy_map(&to->term[t].map, &from->term[t].map, err));
    }
    if (from->bias == NULL) return HEMI_OK;
    HEMI_TRY(copy_block(&block, from->bias, from->size, sizeof *from->bias, err));
    to->bias = block;
    return HEMI_OK;
}

/* The numbers of the circuit's last value. */
static hemi_status whole_value(hemi_onnx_graph *g, hemi_circuit_base *out, hemi_error *err) {
    const hemi_circuit *c = ((hemi_circuit_build *)g->target)->circuit;
    const uint32_t size = c->value[c->values - 1].size;
    void *block = NULL;
    HEMI_TRY(hemi_circuit_bytes(g, &block, 1, sizeof *out->term, err));
    *out = (hemi_circuit_base){.size = size, .terms = 1, .term = block};
    out->term[0] = (hemi_circuit_term){.source = (uint32_t)c->values - 1, .map = {.rows = size, .columns = size}};
    return HEMI_OK;
}

hemi_status hemi_circuit_input(hemi_onnx_graph *g, hemi_onnx_value *input, hemi_error *err) {
    hemi_circuit *c = ((hemi_circuit_build *)g->target)->circuit;
    hemi_circuit_value *v = NULL;
    hemi_circuit_base base;
    HEMI_TRY(new_value(g, "input", input, &v, err));
    c->rows = !g->samples;
    HEMI_TRY(whole_value(g, &base, err));
    return hemi_circuit_give(g, &base, input, err);
}

hemi_status hemi_circuit_output(hemi_onnx_graph *g, const node_proto *node, operand result, hemi_error *err) {
    const hemi_circuit_base *base = NULL;
    hemi_circuit_value *v = NULL;
    HEMI_TRY(hemi_circuit_plain(g, node, result, &base, err));
    HEMI_TRY(new_value(g, hemi_onnx_label_of(node).s, result, &v, err));
    v->kind = HEMI_CIRCUIT_AFFINE;
    return copy_base(g, &v->a, base, err);
}

static hemi_status realise(hemi_onnx_graph *g, const node_proto *node, operand value, hemi_circuit_base *out,
                           hemi_error *err) {
    const hemi_circuit_tensor *t = value->tensor;
    hemi_circuit_value *v = NULL;
    double scale = 1, shift = 0, *factors = NULL, *shifts = NULL;
    void *block = NULL;
    if (hemi_chain_is_affine(&t->f, &scale, &shift)) {
        HEMI_TRY(hemi_circuit_bytes(g, &block, value->features, 2 * sizeof *factors, err));
        factors = block;
        shifts = factors + value->features;
        for (size_t i = 0; i < value->features; i++) factors[i] = scale, shifts[i] = shift;
        return hemi_circuit_base_scale(g, node, out, t->base, factors, shift != 0 ? shifts : NULL, err);
    }
    HEMI_TRY(new_value(g, hemi_onnx_label_of(t->node != NULL ? t->node : node).s, value, &v, err));
    v->kind = HEMI_CIRCUIT_FUNCTION;
    v->function = t->f;
    HEMI_TRY(copy_base(g, &v->a, t->base, err));
    return whole_value(g, out, err);
}

hemi_status hemi_circuit_plain(hemi_onnx_graph *g, const node_proto *node, operand value, const hemi_circuit_base **out,
                               hemi_error *err) {
    hemi_circuit_tensor *t = value->tensor;
    hemi_circuit_base base;
    if (t->f.steps > 0 && t->plain == NULL) {
        HEMI_TRY(realise(g, node, value, &base, err));
        HEMI_TRY(hemi_circuit_tensor_new(g, &t->plain, &base, err));
    }
    *out = t->f.steps > 0 ? t->plain->base : t->base;
    return HEMI_OK;
}

/* ---- operators on one value */

hemi_status hemi_circuit_apply(hemi_onnx_graph *g, const node_proto *node, operand in, const hemi_sparse *op,
                               const double *bias, hemi_onnx_value *out, hemi_error *err) {
    const hemi_circuit_base *from = NULL;
    hemi_circuit_base r;
    HEMI_TRY(hemi_circuit_plain(g, node, in, &from, err));
    HEMI_TRY(hemi_circuit_base_apply(g, node, &r, op, from, err));
    if (bias != NULL) HEMI_TRY(hemi_circuit_base_scale(g, node, &r, &r, NULL, bias, err));
    return hemi_circuit_give(g, &r, out, err);
}

hemi_status hemi_circuit_scale(hemi_onnx_graph *g, const node_proto *node, operand in, const double *factor,
                               const double *shift, hemi_onnx_value *out, hemi_error *err) {
    const hemi_circuit_base *from = NULL;
    hemi_circuit_base r;
    HEMI_TRY(hemi_circuit_plain(g, node, in, &from, err));
    HEMI_TRY(hemi_circuit_base_scale(g, node, &r, from, factor, shift, err));
    *out = *in;
    return hemi_circuit_give(g, &r, out, err);
}

/* The same tensor with a chain of its own; what is no longer true of it is left out. */
static hemi_status extend(hemi_onnx_graph *g, const node_proto *node, const hemi_circuit_tensor *from,
                          const hemi_function *f, hemi_circuit_tensor **out, hemi_error *err) {
    double scale = 0, shift = 0;
    HEMI_TRY(hemi_circuit_tensor_new(g, out, from->base, err));
    (*out)->base = from->base; /* the same one: it is how tensors of one base know each other */
    (*out)->f = *f;
    (*out)->node = from->node != NULL || hemi_chain_is_affine(f, &scale, &shift) ? from->node : node;
    return HEMI_OK;
}

hemi_status hemi_circuit_unary(hemi_onnx_graph *g, const node_proto *node, operand in, hemi_function_id id,
                               const double *p, hemi_onnx_value *out, hemi_error *err) {
    hemi_function f = in->tensor->f;
    hemi_circuit_tensor *t = in->tensor;
    const hemi_circuit_base *plain = NULL;
    for (size_t i = 0; p != NULL && i < hemi_function_parameters(id); i++)
        if (!(p[i] - p[i] == 0)) return hemi_onnx_bad(node, "parameter: it is not a finite number", err);
    if (!hemi_chain_unary(&f, id, p)) { /* too long: a value, and from there */
        HEMI_TRY(hemi_circuit_plain(g, node, in, &plain, err));
        t = t->plain;
        f = (hemi_function){0};
        (void)hemi_chain_unary(&f, id, p);
    }
    *out = *in;
    return extend(g, node, t, &f, &out->tensor, err);
}

hemi_status hemi_circuit_line(hemi_onnx_graph *g, const node_proto *node, operand in, double scale, double shift,
                              hemi_onnx_value *out, hemi_error *err) {
    const double p[2] = {scale, shift};
    return hemi_circuit_unary(g, node, in, HEMI_FUNCTION_AFFINE, p, out, err);
}

/* One function of the base that two tensors share. False: they do not, or it would be too long. */
hemi_status hemi_circuit_fuse(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, hemi_function_id id,
                              hemi_onnx_value *out, bool *done, hemi_error *err) {
    const hemi_circuit_tensor *left = a->tensor, *right = b->tensor;
    hemi_function f = left->f;
    unsigned with = 0;
    *done = left->base == right->base && hemi_chain_merge(&f, &right->f, &with) &&
            hemi_chain_step(&f, id, (unsigned)left->f.steps, with, NULL);
    if (!*done) return HEMI_OK;
    hemi_onnx_value r = *a;
    HEMI_TRY(extend(g, node, left->node != NULL ? left : right, &f, &r.tensor, err));
    *out = r;
    return HEMI_OK;
}

hemi_status hemi_circuit_product(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, hemi_onnx_value *out,
                                 hemi_error *err) {
    const hemi_circuit_base *left = NULL, *right = NULL;
    hemi_circuit_base r;
    hemi_circuit_value *v = NULL;
    HEMI_TRY(hemi_circuit_plain(g, node, a, &left, err));
    HEMI_TRY(hemi_circuit_plain(g, node, b, &right, err));
    hemi_onnx_value shape = *a;
    HEMI_TRY(new_value(g, hemi_onnx_label_of(node).s, &shape, &v, err));
    v->kind = HEMI_CIRCUIT_PRODUCT;
    HEMI_TRY(copy_base(g, &v->a, left, err));
    HEMI_TRY(copy_base(g, &v->b, right, err));
    HEMI_TRY(whole_value(g, &r, err));
    HEMI_TRY(hemi_circuit_give(g, &r, &shape, err));
    *out = shape;
    return HEMI_OK;
}

hemi_status hemi_circuit_gather(hemi_onnx_graph *g, const node_proto *node, operand const *parts, size_t count,
                                const hemi_circuit_pick *pick, size_t size, hemi_onnx_value *out, hemi_error *err) {
    void *block = NULL;
    hemi_circuit_base r;
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof(hemi_circuit_base *), err));
    const hemi_circuit_base **bases = block;
    for (size_t i = 0; i < count; i++) HEMI_TRY(hemi_circuit_plain(g, node, parts[i], &bases[i], err));
    HEMI_TRY(hemi_circuit_base_gather(g, node, &r, bases, count, pick, size, err));
    return hemi_circuit_give(g, &r, out, err);
}

/* A permutation of what is not a value yet leaves its function for later. */
hemi_status hemi_circuit_permute(hemi_onnx_graph *g, const node_proto *node, operand in, const size_t *order,
                                 hemi_onnx_value *out, hemi_error *err) {
    void *block = NULL;
    const hemi_circuit_tensor *t = in->tensor;
    const bool later = t->f.steps > 0 && t->plain == NULL;
    const hemi_circuit_base *base = t->base;
    hemi_circuit_base r;
    HEMI_TRY(hemi_circuit_bytes(g, &block, in->features, sizeof(hemi_circuit_pick), err));
    hemi_circuit_pick *pick = block;
    for (size_t i = 0; i < in->features; i++) pick[i].row = order[i];
    if (!later) HEMI_TRY(hemi_circuit_plain(g, node, in, &base, err));
    HEMI_TRY(hemi_circuit_base_gather(g, node, &r, &base, 1, pick, in->features, err));
    HEMI_TRY(hemi_circuit_give(g, &r, out, err));
    if (!later) return HEMI_OK;
    out->tensor->f = t->f;
    out->tensor->node = t->node;
    out->tensor->truth = t->truth;
    return HEMI_OK;
}
