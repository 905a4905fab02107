/* Operators that move numbers: of rows along the features, of samples along any dimension but the batch. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/circuit_tensor.h"
#include "model/onnx_window.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define refuse hemi_onnx_refuse

static hemi_status new_picks(hemi_onnx_graph *g, const node_proto *node, size_t count, hemi_circuit_pick **out,
                             hemi_error *err) {
    void *block = NULL;
    if (count == 0) return refuse(node, "gives no numbers", err);
    if (count > HEMI_CIRCUIT_NUMBERS_MAX) return refuse(node, "gives more than 2^20 numbers", err);
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof **out, err));
    *out = block;
    return HEMI_OK;
}

/* Positions from[0 .. count - 1] along an axis; SIZE_MAX is the number `fill`. */
static hemi_status take_along(hemi_onnx_graph *g, const node_proto *node, operand a, const hemi_circuit_axis *axis,
                              const size_t *from, size_t count, double fill, hemi_onnx_value *out, hemi_error *err) {
    hemi_circuit_pick *pick = NULL;
    hemi_onnx_value r = *a;
    const size_t rest = axis->outer * axis->inner;
    if (count > HEMI_CIRCUIT_NUMBERS_MAX / rest) return refuse(node, "gives more than 2^20 numbers", err);
    HEMI_TRY(new_picks(g, node, rest * count, &pick, err));
    for (size_t o = 0, n = 0; o < axis->outer; o++)
        for (size_t k = 0; k < count; k++)
            for (size_t i = 0; i < axis->inner; i++, n++)
                pick[n] = from[k] == SIZE_MAX
                              ? (hemi_circuit_pick){.part = SIZE_MAX, .constant = fill}
                              : (hemi_circuit_pick){.row = (o * axis->side + from[k]) * axis->inner + i};
    r.dims[axis->at] = (int64_t)count;
    HEMI_TRY(hemi_circuit_gather(g, node, &a, 1, pick, rest * count, &r, err));
    *out = r;
    return HEMI_OK;
}

static hemi_status new_places(hemi_onnx_graph *g, size_t count, size_t **out, hemi_error *err) {
    void *block = NULL;
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof **out, err));
    *out = block;
    return HEMI_OK;
}

/* ---- parts of one */

static int64_t clamp(int64_t v, int64_t min, int64_t max) { return v < min ? min : v > max ? max : v; }

/* From the end if negative; ends beyond the side are its ends. */
static int64_t place_on(int64_t v, int64_t side, int64_t min, int64_t max) {
    return clamp(v < 0 ? (v < -side ? -1 : v + side) : v, min, max);
}

static hemi_status slice_along(hemi_onnx_graph *g, const node_proto *node, operand a, int64_t at, int64_t start,
                               int64_t end, int64_t step, hemi_onnx_value *out, hemi_error *err) {
    hemi_circuit_axis axis;
    size_t *from = NULL, count = 0;
    HEMI_TRY(hemi_circuit_axis_of(g, node, a, at, &axis, err));
    const int64_t side = (int64_t)axis.side, low = step > 0 ? 0 : -1, high = step > 0 ? side : side - 1;
    if (step == 0) return hemi_onnx_bad(node, "step", err);
    start = place_on(start, side, low, high);
    end = place_on(end, side, low, high);
    step = clamp(step, -side - 1, side + 1);
    HEMI_TRY(new_places(g, axis.side, &from, err));
    for (int64_t i = start; step > 0 ? i < end : i > end; i += step) from[count++] = (size_t)i;
    if (count == axis.side && step == 1) {
        *out = *a;
        return HEMI_OK;
    }
    return take_along(g, node, a, &axis, from, count, 0, out, err);
}

/* starts, ends, axes, steps */
static hemi_status run_slice(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    static const char *const names[] = {"starts", "ends", "axes", "steps"};
    operand a = NULL;
    int64_t list[4][HEMI_ONNX_RANK_MAX];
    size_t count[4];
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    for (size_t i = 0; i < 4; i++)
        HEMI_TRY(hemi_onnx_ints(g, node, 1 + i, names[i], list[i], HEMI_ONNX_RANK_MAX, &count[i], err));
    if (count[0] == 0 || count[1] != count[0] || (count[2] != 0 && count[2] != count[0]) ||
        (count[3] != 0 && count[3] != count[0]))
        return hemi_onnx_bad(node, "list of starts, ends, axes or steps", err);
    hemi_onnx_value r = *a;
    for (size_t i = 0; i < count[0]; i++)
        HEMI_TRY(slice_along(g, node, &r, count[2] > 0 ? list[2][i] : (int64_t)i, list[0][i], list[1][i],
                             count[3] > 0 ? list[3][i] : 1, &r, err));
    *out = r;
    return HEMI_OK;
}

static hemi_status run_gather(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, indices = NULL;
    hemi_circuit_axis axis;
    size_t *from = NULL, count = 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_input(g, node, 1, &indices, err));
    if (indices == NULL || !indices->is_constant)
        return refuse(node, "with indices that are computed: keep it on the client", err);
    HEMI_TRY(hemi_circuit_axis_of(g, node, a, hemi_onnx_attribute_int(node, "axis", 0), &axis, err));
    const hemi_onnx_constant *c = &indices->constant;
    if (c->count > HEMI_CIRCUIT_NUMBERS_MAX || a->rank + c->rank > HEMI_ONNX_RANK_MAX + 1)
        return refuse(node, "has too many indices", err);
    HEMI_TRY(new_places(g, c->count, &from, err));
    int64_t *at = (int64_t *)(void *)from;
    HEMI_TRY(hemi_onnx_constant_integers(c, at, c->count, &count, err));
    for (size_t i = 0; i < count; i++) {
        const int64_t place = at[i] < 0 ? at[i] + (int64_t)axis.side : at[i];
        if (place < 0 || place >= (int64_t)axis.side) return hemi_onnx_bad(node, "index", err);
        from[i] = (size_t)place;
    }
    if (c->rank != 1 && !g->samples) return hemi_circuit_want_samples(g, node, err);
    hemi_onnx_value r;
    HEMI_TRY(take_along(g, node, a, &axis, from, count, 0, &r, err));
    r.rank = 0; /* the indices' dimensions in place of the axis */
    for (size_t i = 0; i < a->rank; i++) {
        if (i != axis.at) r.dims[r.rank++] = a->dims[i];
        for (size_t j = 0; i == axis.at && j < c->rank; j++) r.dims[r.rank++] = (int64_t)c->dims[j];
    }
    if (r.rank == 0) return refuse(node, "gives a single number", err);
    *out = r;
    return HEMI_OK;
}

/* All outputs but the first are defined here. */
static hemi_status run_split(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    hemi_circuit_axis axis;
    int64_t sizes[64];
    size_t count = 0, at = 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_circuit_axis_of(g, node, a, hemi_onnx_attribute_int(node, "axis", 0), &axis, err));
    if (node->n_output > 64) return refuse(node, "has more than 64 outputs", err);
    HEMI_TRY(hemi_onnx_ints(g, node, 1, "split", sizes, 64, &count, err));
    const size_t each = (axis.side + node->n_output - 1) / node->n_output;
    if (count != 0 && count != node->n_output) return hemi_onnx_bad(node, "split", err);
    const hemi_onnx_value from = *a; /* defining values does not move them, but this does not depend on it */
    for (size_t i = 0; i < node->n_output; i++) {
        const size_t left = axis.side - at;
        if (count != 0 && (sizes[i] < 1 || (uint64_t)sizes[i] > left)) return hemi_onnx_bad(node, "split", err);
        const size_t size = count != 0 ? (size_t)sizes[i] : each < left ? each : left;
        hemi_onnx_value part;
        HEMI_TRY(slice_along(g, node, &from, (int64_t)axis.at, (int64_t)at, (int64_t)(at + size), 1, &part, err));
        at += size;
        if (i == 0)
            *out = part;
        else if (node->output[i][0] != '\0')
            HEMI_TRY(hemi_onnx_define(g, node->output[i], part, err));
    }
    return at == axis.side ? HEMI_OK : hemi_onnx_bad(node, "split", err);
}

static hemi_status run_pad(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t pads[2 * HEMI_ONNX_RANK_MAX];
    float value = 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_read_pads(g, node, a->rank, pads, &value, err));
    hemi_onnx_value r = *a;
    for (size_t i = 0; i < r.rank; i++) {
        const int64_t begin = pads[i], end = pads[r.rank + i];
        hemi_circuit_axis axis;
        size_t *from = NULL;
        if (begin == 0 && end == 0) continue;
        HEMI_TRY(hemi_circuit_axis_of(g, node, &r, (int64_t)i, &axis, err));
        const int64_t side = (int64_t)axis.side, count = side + begin + end; /* < 2^21 */
        if (count < 1) return hemi_onnx_no_output(node, err);
        HEMI_TRY(new_places(g, (size_t)count, &from, err));
        for (int64_t k = 0; k < count; k++) from[k] = k >= begin && k < begin + side ? (size_t)(k - begin) : SIZE_MAX;
        HEMI_TRY(take_along(g, node, &r, &axis, from, (size_t)count, (double)value, &r, err));
    }
    *out = r;
    return HEMI_OK;
}

/* ---- one from several */

/* The inputs along the axis; constants are numbers alone. */
static hemi_status concat(hemi_onnx_graph *g, const node_proto *node, operand first, const hemi_circuit_axis *axis,
                          size_t total, hemi_onnx_value *out, hemi_error *err) {
    void *block = NULL;
    hemi_circuit_pick *pick = NULL;
    size_t at = 0;
    const size_t rest = axis->outer * axis->inner;
    HEMI_TRY(new_picks(g, node, rest * total, &pick, err));
    HEMI_TRY(hemi_circuit_bytes(g, &block, node->n_input, sizeof(operand), err));
    operand *parts = block;
    size_t count = 0;
    for (size_t p = 0; p < node->n_input; p++) {
        operand a = NULL;
        float *numbers = NULL;
        HEMI_TRY(hemi_onnx_input(g, node, p, &a, err));
        if (a->is_constant)
            HEMI_TRY(hemi_circuit_floats(g, node, &a->constant, &numbers, err));
        else
            parts[count++] = a;
        const size_t run = (a->is_constant ? a->constant.count : a->features) / axis->outer; /* of one outer position */
        for (size_t n = 0; n < axis->outer * run; n++)
            pick[n / run * axis->inner * total + at * axis->inner + n % run] =
                a->is_constant ? (hemi_circuit_pick){.part = SIZE_MAX, .constant = (double)numbers[n]}
                               : (hemi_circuit_pick){.part = count - 1, .row = n};
        at += run / axis->inner;
    }
    hemi_onnx_value r = *first;
    r.dims[axis->at] = (int64_t)total;
    HEMI_TRY(hemi_circuit_gather(g, node, parts, count, pick, rest * total, &r, err));
    *out = r;
    return HEMI_OK;
}

static hemi_status run_concat(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, first = NULL;
    hemi_circuit_axis axis;
    size_t total = 0;
    for (size_t i = 0; i < node->n_input; i++) {
        HEMI_TRY(hemi_onnx_input(g, node, i, &a, err));
        if (a == NULL) return hemi_onnx_bad(node, "list of inputs", err);
        if (first == NULL && !a->is_constant) first = a;
    }
    if (first == NULL) return refuse(node, "of constants: export with constant folding", err);
    HEMI_TRY(hemi_circuit_axis_of(g, node, first, hemi_onnx_attribute_int(node, "axis", 0), &axis, err));
    for (size_t i = 0; i < node->n_input; i++) {
        HEMI_TRY(hemi_onnx_input(g, node, i, &a, err));
        bool same = (a->is_constant ? a->constant.rank : a->rank) == first->rank;
        for (size_t j = 0; same && j < first->rank; j++) {
            const int64_t side = a->is_constant ? (int64_t)a->constant.dims[j] : a->dims[j];
            same = j == axis.at || side == first->dims[j] || (!g->samples && a->is_constant && side == 1);
            if (j == axis.at) total += (size_t)side;
        }
        if (!same)
            return hemi_fail(err, HEMI_ERR_SHAPE, "%s has inputs of different sides", hemi_onnx_label_of(node).s);
        if (total > HEMI_CIRCUIT_NUMBERS_MAX / (axis.outer * axis.inner))
            return refuse(node, "gives more than 2^20 numbers", err);
    }
    return concat(g, node, first, &axis, total, out, err);
}

static hemi_status run_expand(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t dims[HEMI_ONNX_RANK_MAX];
    size_t rank = 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    if (!g->samples) return hemi_circuit_want_samples(g, node, err);
    HEMI_TRY(hemi_onnx_ints(g, node, 1, "shape", dims, HEMI_ONNX_RANK_MAX, &rank, err));
    if (rank < a->rank || (g->batched && (rank != a->rank || dims[0] != 1)))
        return refuse(node, "changes which numbers make a sample", err);
    for (size_t i = 0; i < rank; i++) {
        const int64_t side = i + a->rank < rank ? 1 : a->dims[i + a->rank - rank];
        if (dims[i] < 1 || (dims[i] != 1 && side != 1 && dims[i] != side)) return hemi_onnx_bad(node, "shape", err);
        if (dims[i] == 1) dims[i] = side;
    }
    return hemi_circuit_expand(g, node, a, rank, dims, out, err);
}

const hemi_onnx_entry hemi_circuit_shape_operators[] = {
    {"Slice", run_slice},   {"Gather", run_gather}, {"Split", run_split}, {"Pad", run_pad},
    {"Concat", run_concat}, {"Expand", run_expand}, {NULL, NULL}};
