/* Convolutions, pools and sums over whole dimensions: of samples. What a window does not reach, in the padding, has no entry. */
#include <string.h>

#include "base/error.h"
#include "model/circuit_tensor.h"
#include "model/onnx_window.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;
typedef hemi_onnx_window window;

#define refuse hemi_onnx_refuse

/* Along one axis: output position i reads at[e] with tap[e] for e of from[i] ... from[i + 1] - 1, in order of positions. */
typedef struct taps {
    size_t out;
    uint32_t *from, *at, *tap;
} taps;

static hemi_status new_taps(hemi_onnx_graph *g, const node_proto *node, taps *t, const window *w, size_t axis,
                            size_t out, hemi_error *err) {
    void *block = NULL;
    const size_t most = (size_t)(w->kernel[axis] < w->in[axis] ? w->kernel[axis] : w->in[axis]);
    if (out > HEMI_CIRCUIT_NUMBERS_MAX || out > HEMI_CIRCUIT_WEIGHTS_MAX / (size_t)w->kernel[axis])
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s is too large: choose a smaller layer",
                         hemi_onnx_label_of(node).s);
    HEMI_TRY(hemi_circuit_bytes(g, &block, out + 1 + 2 * out * most, sizeof *t->from, err));
    t->out = out;
    t->from = block;
    t->at = t->from + out + 1;
    t->tap = t->at + out * most;
    return HEMI_OK;
}

static void push(taps *t, uint32_t *count, int64_t at, int64_t tap) {
    t->at[*count] = (uint32_t)at;
    t->tap[(*count)++] = (uint32_t)tap;
}

static hemi_status reading_taps(hemi_onnx_graph *g, const node_proto *node, taps *t, const window *w, size_t axis,
                                bool ceiling, hemi_error *err) {
    hemi_stencil_axis s;
    uint32_t count = 0;
    if (!hemi_onnx_window_reading(&s, w, axis, ceiling)) return hemi_onnx_no_output(node, err);
    HEMI_TRY(new_taps(g, node, t, w, axis, s.out, err));
    for (size_t i = 0; i < t->out; i++, t->from[i] = count) {
        const int64_t base = (int64_t)i * w->stride[axis] - w->begin[axis];
        for (int64_t k = 0; k < w->kernel[axis]; k++) {
            const int64_t at = base + k * w->dilation[axis];
            if (at >= 0 && at < w->in[axis]) push(t, &count, at, k);
        }
    }
    return HEMI_OK;
}

static hemi_status writing_taps(hemi_onnx_graph *g, const node_proto *node, taps *t, const window *w, size_t axis,
                                int64_t padding, hemi_error *err) {
    hemi_stencil_axis s;
    uint32_t count = 0;
    if (!hemi_onnx_window_writing(&s, w, axis, padding)) return hemi_onnx_no_output(node, err);
    HEMI_TRY(new_taps(g, node, t, w, axis, s.out, err));
    for (size_t i = 0; i < t->out; i++, t->from[i] = count)
        for (int64_t k = w->kernel[axis]; k-- > 0;) { /* larger taps write what comes from further left */
            const int64_t at = (int64_t)i + w->begin[axis] - k * w->dilation[axis];
            if (at >= 0 && at % w->stride[axis] == 0 && at / w->stride[axis] < w->in[axis])
                push(t, &count, at / w->stride[axis], k);
        }
    return HEMI_OK;
}

/* What an output channel reads, and where the weight of (output, input of its group, ky, kx) is. */
typedef struct kernel {
    size_t out_channels, in_group, out_group; /* channels; of one group */
    const float *w;
    bool in_out; /* [input][output of its group], otherwise [output][input of its group] */
} kernel;

static float kernel_weight(const kernel *k, const window *w, size_t o, size_t c, size_t ky, size_t kx) {
    const size_t pair =
        k->in_out ? (o / k->out_group * k->in_group + c) * k->out_group + o % k->out_group : o * k->in_group + c;
    return k->w == NULL ? 1 : k->w[(pair * (size_t)w->kernel[0] + ky) * (size_t)w->kernel[1] + kx];
}

/* The map of a window; the columns of a row come in order: channels, then y, then x. */
static hemi_status make_map(hemi_onnx_graph *g, const node_proto *node, hemi_sparse *op, const window *w,
                            const kernel *k, const taps *ty, const taps *tx, hemi_error *err) {
    void *block = NULL;
    const size_t area = ty->out * tx->out, in_area = (size_t)(w->in[0] * w->in[1]);
    if (area > HEMI_CIRCUIT_NUMBERS_MAX / k->out_channels || in_area > HEMI_CIRCUIT_NUMBERS_MAX / w->channels)
        return refuse(node, "has more than 2^20 numbers", err);
    const size_t rows = k->out_channels * area;
    HEMI_TRY(hemi_circuit_bytes(g, &block, rows + 1, sizeof(uint64_t), err));
    uint64_t *start = block;
    for (size_t r = 0; r < rows; r++) {
        const size_t y = r % area / tx->out, x = r % tx->out;
        start[r + 1] =
            start[r] + (uint64_t)k->in_group * (ty->from[y + 1] - ty->from[y]) * (tx->from[x + 1] - tx->from[x]);
    }
    HEMI_TRY(hemi_sparse_new(g, node, op, rows, w->channels * in_area, start, err));
    for (size_t r = 0; r < rows; r++) {
        const size_t o = r / area, y = r % area / tx->out, x = r % tx->out;
        uint64_t e = start[r];
        for (size_t c = 0; c < k->in_group; c++)
            for (uint32_t i = ty->from[y]; i < ty->from[y + 1]; i++)
                for (uint32_t j = tx->from[x]; j < tx->from[x + 1]; j++, e++) {
                    const size_t channel = o / k->out_group * k->in_group + c;
                    op->weight[e] = kernel_weight(k, w, o, c, ty->tap[i], tx->tap[j]);
                    if (op->column != NULL)
                        op->column[e] = (uint32_t)(channel * in_area + ty->at[i] * (size_t)w->in[1] + tx->at[j]);
                }
    }
    return HEMI_OK;
}

static hemi_status apply(hemi_onnx_graph *g, const node_proto *node, operand a, const hemi_sparse *op,
                         const double *bias, size_t channels, const taps *ty, const taps *tx, hemi_onnx_value *out,
                         hemi_error *err) {
    hemi_onnx_value r = *a;
    r.dims[1] = (int64_t)channels;
    if (r.rank == 4) r.dims[2] = (int64_t)ty->out;
    r.dims[r.rank - 1] = (int64_t)tx->out;
    HEMI_TRY(hemi_circuit_apply(g, node, a, op, bias, &r, err));
    *out = r;
    return HEMI_OK;
}

/* ---- convolutions */

static hemi_status read_bias(hemi_onnx_graph *g, const node_proto *node, size_t channels, size_t area, double **out,
                             hemi_error *err) {
    operand bias = NULL;
    float *numbers = NULL;
    void *block = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, 2, &bias, err));
    *out = NULL;
    if (bias == NULL) return HEMI_OK;
    if (!bias->is_constant) return refuse(node, "with a computed bias: write it as an Add", err);
    if (bias->constant.count != channels)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s has a bias of %zu numbers for %zu channels",
                         hemi_onnx_label_of(node).s, bias->constant.count, channels);
    HEMI_TRY(hemi_circuit_floats(g, node, &bias->constant, &numbers, err));
    HEMI_TRY(hemi_circuit_bytes(g, &block, channels * area, sizeof **out, err));
    *out = block;
    for (size_t i = 0; i < channels * area; i++) (*out)[i] = (double)numbers[i / area];
    return HEMI_OK;
}

/* The weights rounded for each output channel, which is the second dimension of a transposed convolution's. */
static void round_weights(const hemi_onnx_graph *g, const hemi_onnx_constant *c, float *w, bool transposed,
                          size_t groups, float *scratch) {
    const size_t area = c->count / (c->dims[0] * c->dims[1]), inputs = c->dims[0] / groups, share = c->dims[1];
    if (!transposed) {
        hemi_circuit_round_weights(g, c, w, c->dims[0], c->count / c->dims[0]);
        return;
    }
    for (size_t o = 0; o < groups * share; o++) {
        float *first = w + (o / share * inputs * share + o % share) * area;
        for (size_t i = 0; i < inputs; i++) memcpy(scratch + i * area, first + i * share * area, area * sizeof *w);
        hemi_circuit_round_weights(g, c, scratch, 1, inputs * area);
        for (size_t i = 0; i < inputs; i++) memcpy(first + i * share * area, scratch + i * area, area * sizeof *w);
    }
}

static hemi_status read_kernel(hemi_onnx_graph *g, const node_proto *node, operand a, bool transposed, window *w,
                               kernel *k, hemi_error *err) {
    const hemi_onnx_constant *c = NULL;
    float *numbers = NULL, *scratch = NULL;
    int64_t groups = 1;
    if (!g->samples) return hemi_circuit_want_samples(g, node, err);
    HEMI_TRY(hemi_onnx_window_sides(node, a, w, err));
    HEMI_TRY(hemi_onnx_window_weights(g, node, w, &groups, &c, &numbers, err));
    HEMI_TRY(hemi_onnx_window_read(node, w, true, err));
    const size_t n = (size_t)groups, inputs = transposed ? c->dims[0] : c->dims[1] * n;
    if (inputs != w->channels || c->dims[0] % n != 0 || c->dims[1] > HEMI_CIRCUIT_NUMBERS_MAX / n)
        return hemi_onnx_wrong_channels(node, w, err);
    if (transposed) HEMI_TRY(hemi_onnx_block(g, &scratch, c->count / c->dims[1], 1, err));
    round_weights(g, c, numbers, transposed, n, scratch);
    k->out_channels = transposed ? c->dims[1] * n : c->dims[0];
    k->in_group = inputs / n;
    k->out_group = k->out_channels / n;
    k->w = numbers;
    k->in_out = transposed;
    return HEMI_OK;
}

static hemi_status finish(hemi_onnx_graph *g, const node_proto *node, operand a, const window *w, const kernel *k,
                          const taps *ty, const taps *tx, hemi_onnx_value *out, hemi_error *err) {
    hemi_sparse op;
    double *bias = NULL;
    HEMI_TRY(make_map(g, node, &op, w, k, ty, tx, err));
    HEMI_TRY(read_bias(g, node, k->out_channels, ty->out * tx->out, &bias, err));
    return apply(g, node, a, &op, bias, k->out_channels, ty, tx, out, err);
}

static hemi_status run_conv(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    window w = {0};
    kernel k = {0};
    taps ty, tx;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(read_kernel(g, node, a, false, &w, &k, err));
    HEMI_TRY(hemi_onnx_window_auto_pad(node, &w, err));
    HEMI_TRY(reading_taps(g, node, &ty, &w, 0, false, err));
    HEMI_TRY(reading_taps(g, node, &tx, &w, 1, false, err));
    return finish(g, node, a, &w, &k, &ty, &tx, out, err);
}

static hemi_status run_conv_transpose(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out,
                                      hemi_error *err) {
    operand a = NULL;
    window w = {0};
    kernel k = {0};
    taps ty, tx;
    int64_t padding[2] = {0, 0};
    const Hemi__Onnx__AttributeProto *pad = hemi_onnx_attribute(node, "auto_pad");
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(read_kernel(g, node, a, true, &w, &k, err));
    HEMI_TRY(hemi_onnx_window_list(node, "output_padding", w.dims, 0, 0, padding + 2 - w.dims, err));
    if (hemi_onnx_attribute(node, "output_shape") != NULL ||
        (pad != NULL && pad->s.len > 0 && !hemi_onnx_text_is(pad, "NOTSET") && !hemi_onnx_text_is(pad, "VALID")))
        return refuse(node, "has its padding chosen by output_shape or auto_pad: export it with pads", err);
    HEMI_TRY(writing_taps(g, node, &ty, &w, 0, padding[0], err));
    HEMI_TRY(writing_taps(g, node, &tx, &w, 1, padding[1], err));
    return finish(g, node, a, &w, &k, &ty, &tx, out, err);
}

/* ---- averages */

static hemi_status run_average(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    window w = {0};
    taps ty, tx;
    hemi_sparse op;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    if (!g->samples) return hemi_circuit_want_samples(g, node, err);
    HEMI_TRY(hemi_onnx_window_sides(node, a, &w, err));
    HEMI_TRY(hemi_onnx_window_read(node, &w, false, err));
    HEMI_TRY(hemi_onnx_window_auto_pad(node, &w, err));
    const bool ceiling = hemi_onnx_attribute_int(node, "ceil_mode", 0) != 0,
               with_padding = hemi_onnx_attribute_int(node, "count_include_pad", 0) != 0;
    const kernel k = {.out_channels = w.channels, .in_group = 1, .out_group = 1};
    HEMI_TRY(reading_taps(g, node, &ty, &w, 0, ceiling, err));
    HEMI_TRY(reading_taps(g, node, &tx, &w, 1, ceiling, err));
    HEMI_TRY(make_map(g, node, &op, &w, &k, &ty, &tx, err));
    for (size_t r = 0; r < op.rows; r++) {
        const int64_t y = (int64_t)(r / tx.out % ty.out), x = (int64_t)(r % tx.out);
        const int64_t n =
            hemi_onnx_window_counted(&w, 0, y, with_padding) * hemi_onnx_window_counted(&w, 1, x, with_padding);
        for (uint64_t e = hemi_sparse_from(&op, r); e < hemi_sparse_end(&op, r); e++) op.weight[e] = 1 / (float)n;
    }
    return apply(g, node, a, &op, NULL, w.channels, &ty, &tx, out, err);
}

/* ---- sums over dimensions */

/* key[n]: the output that number n is summed into. */
static hemi_status sum_by_key(hemi_onnx_graph *g, const node_proto *node, operand a, const uint32_t *key,
                              size_t outputs, float weight, hemi_onnx_value *out, hemi_error *err) {
    void *starts = NULL, *ends = NULL;
    hemi_sparse op;
    HEMI_TRY(hemi_circuit_bytes(g, &starts, outputs + 1, sizeof(uint64_t), err));
    HEMI_TRY(hemi_circuit_bytes(g, &ends, outputs + 1, sizeof(uint64_t), err));
    uint64_t *start = starts, *next = ends;
    for (size_t n = 0; n < a->features; n++) start[key[n] + 1]++;
    for (size_t i = 0; i < outputs; i++) start[i + 1] += start[i];
    memcpy(next, start, outputs * sizeof *next);
    HEMI_TRY(hemi_sparse_new(g, node, &op, outputs, a->features, start, err));
    for (uint32_t n = 0; n < a->features; n++) {
        const uint64_t e = next[key[n]]++;
        op.weight[e] = weight;
        if (op.column != NULL) op.column[e] = n;
    }
    return hemi_circuit_apply(g, node, a, &op, NULL, out, err);
}

/* Sums over the dimensions marked; keep: they stay, as 1. */
static hemi_status reduce(hemi_onnx_graph *g, const node_proto *node, operand a, const bool *over, bool keep, bool mean,
                          hemi_onnx_value *out, hemi_error *err) {
    size_t place[HEMI_ONNX_RANK_MAX] = {0}, stride[HEMI_ONNX_RANK_MAX] = {0}, outputs = 1;
    void *block = NULL;
    hemi_onnx_value r = *a;
    HEMI_TRY(hemi_circuit_bytes(g, &block, a->features, sizeof(uint32_t), err));
    uint32_t *key = block;
    for (size_t i = a->rank; i-- > 0;) {
        if (over[i]) continue;
        stride[i] = outputs;
        outputs *= (size_t)a->dims[i];
    }
    for (size_t n = 0; n < a->features; n++) {
        for (size_t i = 0; i < a->rank; i++) key[n] += (uint32_t)(place[i] * stride[i]);
        for (size_t i = a->rank; i-- > 0 && ++place[i] == (size_t)a->dims[i];) place[i] = 0;
    }
    r.rank = 0;
    for (size_t i = 0; i < a->rank; i++)
        if (keep || !over[i]) r.dims[r.rank++] = over[i] ? 1 : a->dims[i];
    if (r.rank == 0) return refuse(node, "leaves no dimension: keep one with keepdims", err);
    const float weight = mean ? (float)outputs / (float)a->features : 1;
    HEMI_TRY(sum_by_key(g, node, a, key, outputs, weight, &r, err));
    *out = r;
    return HEMI_OK;
}

/* Of rows: over the features, which become one. */
static hemi_status reduce_row(hemi_onnx_graph *g, const node_proto *node, operand a, bool keep, bool mean,
                              hemi_onnx_value *out, hemi_error *err) {
    void *block = NULL;
    hemi_onnx_value r = *a;
    if (!keep) return hemi_circuit_want_samples(g, node, err);
    HEMI_TRY(hemi_circuit_bytes(g, &block, a->features, sizeof(uint32_t), err));
    r.dims[r.rank - 1] = 1;
    HEMI_TRY(sum_by_key(g, node, a, block, 1, mean ? 1 / (float)a->features : 1, &r, err));
    *out = r;
    return HEMI_OK;
}

static hemi_status run_reduce(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t axes[HEMI_ONNX_RANK_MAX];
    size_t count = 0;
    bool over[HEMI_ONNX_RANK_MAX] = {false};
    const bool keep = hemi_onnx_attribute_int(node, "keepdims", 1) != 0,
               mean = strcmp(node->op_type, "ReduceMean") == 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_ints(g, node, 1, "axes", axes, HEMI_ONNX_RANK_MAX, &count, err));
    if (count == 0) return refuse(node, "over all dimensions, which mixes samples: name the axes", err);
    for (size_t i = 0; i < count; i++) {
        hemi_circuit_axis axis;
        HEMI_TRY(hemi_circuit_axis_of(g, node, a, axes[i], &axis, err));
        over[axis.at] = true;
    }
    return g->samples ? reduce(g, node, a, over, keep, mean, out, err) : reduce_row(g, node, a, keep, mean, out, err);
}

static hemi_status run_global_average(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out,
                                      hemi_error *err) {
    operand a = NULL;
    bool over[HEMI_ONNX_RANK_MAX] = {false};
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    if (!g->samples) return hemi_circuit_want_samples(g, node, err);
    for (size_t i = 2; i < a->rank; i++) over[i] = true;
    return reduce(g, node, a, over, true, true, out, err);
}

const hemi_onnx_entry hemi_circuit_window_operators[] = {{"Conv", run_conv},
                                                         {"ConvTranspose", run_conv_transpose},
                                                         {"AveragePool", run_average},
                                                         {"GlobalAveragePool", run_global_average},
                                                         {"ReduceMean", run_reduce},
                                                         {"ReduceSum", run_reduce},
                                                         {NULL, NULL}};
