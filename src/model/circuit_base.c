/* Affine images of the values of a circuit in the making. */
#include <string.h>

#include "base/error.h"
#include "model/circuit_tensor.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_circuit_base *base;

static hemi_status new_terms(hemi_onnx_graph *g, hemi_circuit_base *out, size_t count, hemi_error *err) {
    void *block = NULL;
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof *out->term, err));
    out->term = block;
    return HEMI_OK;
}

static hemi_status new_bias(hemi_onnx_graph *g, double **bias, size_t count, hemi_error *err) {
    void *block = NULL;
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof **bias, err));
    *bias = block;
    return HEMI_OK;
}

hemi_status hemi_circuit_base_apply(hemi_onnx_graph *g, const node_proto *node, hemi_circuit_base *out,
                                    const hemi_sparse *op, base in, hemi_error *err) {
    hemi_circuit_base r = {.size = op->rows, .terms = in->terms};
    if (op->columns != in->size)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s takes %u numbers, its input has %u", hemi_onnx_label_of(node).s,
                         op->columns, in->size);
    HEMI_TRY(new_terms(g, &r, in->terms, err));
    for (size_t t = 0; t < in->terms; t++) {
        r.term[t].source = in->term[t].source;
        HEMI_TRY(hemi_sparse_compose(g, node, &r.term[t].map, op, &in->term[t].map, err));
    }
    if (in->bias != NULL) {
        double *bias = NULL;
        HEMI_TRY(new_bias(g, &bias, r.size, err));
        for (size_t i = 0; i < r.size; i++)
            for (uint64_t e = hemi_sparse_from(op, i); e < hemi_sparse_end(op, i); e++)
                bias[i] += (double)hemi_sparse_weight(op, e) * in->bias[hemi_sparse_column(op, i, e)];
        r.bias = bias;
    }
    *out = r;
    return HEMI_OK;
}

hemi_status hemi_circuit_base_scale(hemi_onnx_graph *g, const node_proto *node, hemi_circuit_base *out, base in,
                                    const double *factor, const double *shift, hemi_error *err) {
    hemi_circuit_base r = *in;
    if (factor != NULL) {
        HEMI_TRY(new_terms(g, &r, in->terms, err));
        for (size_t t = 0; t < in->terms; t++) {
            r.term[t].source = in->term[t].source;
            HEMI_TRY(hemi_sparse_scale(g, node, &r.term[t].map, &in->term[t].map, factor, err));
        }
    }
    if (in->bias != NULL || shift != NULL) {
        double *bias = NULL;
        HEMI_TRY(new_bias(g, &bias, r.size, err));
        for (size_t i = 0; i < r.size; i++)
            bias[i] = (in->bias != NULL ? in->bias[i] : 0) * (factor != NULL ? factor[i] : 1) +
                      (shift != NULL ? shift[i] : 0);
        r.bias = bias;
    }
    *out = r;
    return HEMI_OK;
}

/* A term of the one that has it, or of both. */
static hemi_status sum_terms(hemi_onnx_graph *g, const node_proto *node, hemi_circuit_term *out,
                             const hemi_circuit_term *a, const hemi_circuit_term *b, float sign, const double *signs,
                             hemi_error *err) {
    *out = a != NULL ? *a : *b;
    if (a != NULL && b != NULL) return hemi_sparse_sum(g, node, &out->map, &a->map, &b->map, sign, err);
    if (b != NULL && sign != 1) return hemi_sparse_scale(g, node, &out->map, &b->map, signs, err);
    return HEMI_OK;
}

hemi_status hemi_circuit_base_sum(hemi_onnx_graph *g, const node_proto *node, hemi_circuit_base *out, base a, base b,
                                  float sign, hemi_error *err) {
    hemi_circuit_base r = {.size = a->size};
    double *bias = NULL, *signs = NULL;
    HEMI_TRY(new_terms(g, &r, a->terms + b->terms, err));
    HEMI_TRY(new_bias(g, &signs, r.size, err));
    for (size_t i = 0; i < r.size; i++) signs[i] = (double)sign;
    for (size_t i = 0, j = 0; i < a->terms || j < b->terms; r.terms++) {
        const uint32_t left = i < a->terms ? a->term[i].source : UINT32_MAX,
                       right = j < b->terms ? b->term[j].source : UINT32_MAX;
        const hemi_circuit_term *p = left <= right ? &a->term[i++] : NULL, *q = right <= left ? &b->term[j++] : NULL;
        HEMI_TRY(sum_terms(g, node, &r.term[r.terms], p, q, sign, signs, err));
    }
    if (a->bias != NULL || b->bias != NULL) {
        HEMI_TRY(new_bias(g, &bias, r.size, err));
        for (size_t i = 0; i < r.size; i++)
            bias[i] = (a->bias != NULL ? a->bias[i] : 0) + (double)sign * (b->bias != NULL ? b->bias[i] : 0);
        r.bias = bias;
    }
    *out = r;
    return HEMI_OK;
}

/* ---- rows of several */

static const hemi_sparse *find_map(base b, uint32_t source) {
    for (size_t t = 0; t < b->terms; t++)
        if (b->term[t].source == source) return &b->term[t].map;
    return NULL;
}

static hemi_status gather_map(hemi_onnx_graph *g, const node_proto *node, hemi_sparse *out, uint32_t source,
                              base const *parts, const hemi_sparse **maps, size_t count, const hemi_circuit_pick *pick,
                              size_t size, hemi_error *err) {
    void *block = NULL;
    HEMI_TRY(hemi_circuit_bytes(g, &block, size + 1, sizeof(uint64_t), err));
    uint64_t *start = block;
    uint32_t columns = 0;
    for (size_t p = 0; p < count; p++) {
        maps[p] = find_map(parts[p], source);
        if (maps[p] != NULL) columns = maps[p]->columns;
    }
    for (size_t i = 0; i < size; i++) {
        const hemi_sparse *m = pick[i].part != SIZE_MAX ? maps[pick[i].part] : NULL;
        start[i + 1] = start[i];
        if (m != NULL) start[i + 1] += hemi_sparse_end(m, pick[i].row) - hemi_sparse_from(m, pick[i].row);
    }
    HEMI_TRY(hemi_sparse_new(g, node, out, size, columns, start, err));
    for (size_t i = 0; i < size; i++) {
        const hemi_sparse *m = pick[i].part != SIZE_MAX ? maps[pick[i].part] : NULL;
        if (m == NULL) continue;
        const uint64_t from = hemi_sparse_from(m, pick[i].row), length = start[i + 1] - start[i];
        for (uint64_t e = 0; e < length; e++) {
            out->weight[start[i] + e] = hemi_sparse_weight(m, from + e);
            if (out->column != NULL) out->column[start[i] + e] = hemi_sparse_column(m, pick[i].row, from + e);
        }
    }
    return HEMI_OK;
}

static hemi_status gather_bias(hemi_onnx_graph *g, hemi_circuit_base *out, base const *parts,
                               const hemi_circuit_pick *pick, size_t size, hemi_error *err) {
    double *bias = NULL;
    bool any = false;
    HEMI_TRY(new_bias(g, &bias, size, err));
    for (size_t i = 0; i < size; i++) {
        const hemi_circuit_pick *p = &pick[i];
        bias[i] = p->part == SIZE_MAX ? p->constant : parts[p->part]->bias == NULL ? 0 : parts[p->part]->bias[p->row];
        any |= p->part != SIZE_MAX ? parts[p->part]->bias != NULL : p->constant != 0;
    }
    out->bias = any ? bias : NULL;
    return HEMI_OK;
}

hemi_status hemi_circuit_base_gather(hemi_onnx_graph *g, const node_proto *node, hemi_circuit_base *out,
                                     base const *parts, size_t count, const hemi_circuit_pick *pick, size_t size,
                                     hemi_error *err) {
    bool seen[HEMI_CIRCUIT_VALUES_MAX] = {false};
    size_t sources = 0;
    void *block = NULL;
    hemi_circuit_base r = {.size = (uint32_t)size};
    if (size == 0 || size > HEMI_CIRCUIT_NUMBERS_MAX) return hemi_onnx_refuse(node, "has more than 2^20 numbers", err);
    for (size_t p = 0; p < count; p++)
        for (size_t t = 0; t < parts[p]->terms; t++) seen[parts[p]->term[t].source] = true;
    for (size_t s = 0; s < HEMI_CIRCUIT_VALUES_MAX; s++) sources += seen[s];
    HEMI_TRY(new_terms(g, &r, sources, err));
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof(hemi_sparse *), err));
    for (uint32_t s = 0; s < HEMI_CIRCUIT_VALUES_MAX; s++) {
        if (!seen[s]) continue;
        hemi_circuit_term *term = &r.term[r.terms];
        term->source = s;
        HEMI_TRY(gather_map(g, node, &term->map, s, parts, block, count, pick, size, err));
        /* what nothing is taken of is left out, but for the last: a value depends on something */
        if (hemi_sparse_from(&term->map, size) > 0 || (r.terms == 0 && --sources == 0)) r.terms++;
    }
    HEMI_TRY(gather_bias(g, &r, parts, pick, size, err));
    *out = r;
    return HEMI_OK;
}

/* ---- chains of functions */

bool hemi_chain_step(hemi_function *f, hemi_function_id id, unsigned of, unsigned with, const double *p) {
    if (f->steps == HEMI_FUNCTION_STEPS_MAX) return false;
    hemi_function_step *s = &f->step[f->steps++];
    *s = (hemi_function_step){.id = id, .of = of, .with = with};
    if (p != NULL) memcpy(s->p, p, hemi_function_parameters(id) * sizeof *p);
    return true;
}

bool hemi_chain_unary(hemi_function *f, hemi_function_id id, const double *p) {
    hemi_function_step *last = f->steps > 0 ? &f->step[f->steps - 1] : NULL;
    if (id == HEMI_FUNCTION_AFFINE && last != NULL && last->id == HEMI_FUNCTION_AFFINE) { /* nothing else reads it */
        last->p[0] *= p[0];
        last->p[1] = last->p[1] * p[0] + p[1];
        return true;
    }
    return hemi_chain_step(f, id, (unsigned)f->steps, 0, p);
}

static bool same_step(const hemi_function_step *a, const hemi_function_step *b) {
    bool same = a->id == b->id && a->of == b->of && a->with == b->with;
    for (size_t i = 0; same && i < hemi_function_parameters(a->id); i++) same = a->p[i] == b->p[i];
    return same;
}

bool hemi_chain_merge(hemi_function *f, const hemi_function *other, unsigned *at) {
    unsigned place[HEMI_FUNCTION_STEPS_MAX + 1] = {0}; /* of other's operands in f */
    for (size_t i = 0; i < other->steps; i++) {
        hemi_function_step s = other->step[i];
        s.of = place[s.of];
        s.with = hemi_function_is_binary(s.id) ? place[s.with] : 0;
        size_t j = 0;
        while (j < f->steps && !same_step(&f->step[j], &s)) j++;
        if (j == f->steps && !hemi_chain_step(f, s.id, s.of, s.with, s.p)) return false;
        place[i + 1] = (unsigned)j + 1;
    }
    *at = place[other->steps];
    return true;
}

bool hemi_chain_is_affine(const hemi_function *f, double *scale, double *shift) {
    double a[HEMI_FUNCTION_STEPS_MAX + 1] = {1}, b[HEMI_FUNCTION_STEPS_MAX + 1] = {0};
    bool line[HEMI_FUNCTION_STEPS_MAX + 1] = {true};
    for (size_t i = 0; i < f->steps; i++) {
        const hemi_function_step *s = &f->step[i];
        const double sign = s->id == HEMI_FUNCTION_MINUS ? -1 : 1;
        line[i + 1] = false;
        if (s->id == HEMI_FUNCTION_AFFINE) {
            line[i + 1] = line[s->of];
            a[i + 1] = s->p[0] * a[s->of];
            b[i + 1] = s->p[0] * b[s->of] + s->p[1];
        } else if (s->id == HEMI_FUNCTION_PLUS || s->id == HEMI_FUNCTION_MINUS) {
            line[i + 1] = line[s->of] && line[s->with];
            a[i + 1] = a[s->of] + sign * a[s->with];
            b[i + 1] = b[s->of] + sign * b[s->with];
        }
    }
    *scale = a[f->steps];
    *shift = b[f->steps];
    return line[f->steps];
}

hemi_onnx_value hemi_circuit_quantised(const hemi_onnx_constant *constant, const float *numbers) {
    hemi_onnx_value v = {.is_constant = true, .constant = *constant};
    v.constant.tensor = NULL;
    v.constant.attribute = NULL;
    v.constant.numbers = numbers;
    v.constant.transposed = false; /* as it is seen */
    v.constant.quantised = true;
    return v;
}
