/* Operators on samples that move a window over channels x height x width, or channels x length. */
#include <string.h>

#include "base/error.h"
#include "model/onnx_sample.h"
#include "model/onnx_window.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define refuse   hemi_onnx_refuse
#define SIDE_MAX HEMI_ONNX_WINDOW_MAX

typedef hemi_onnx_window window;

hemi_status hemi_onnx_window_sides(const node_proto *node, operand a, window *w, hemi_error *err) {
    if (a->rank != 3 && a->rank != 4)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "%s has an input of %zu dimensions: N x C x H x W and N x C x L are supported",
                         hemi_onnx_label_of(node).s, a->rank);
    if (a->dims[0] != 1)
        return refuse(
            node, "needs an input of batch, channels and sides: nothing may be folded into the first dimension", err);
    w->dims = a->rank - 2;
    w->channels = (uint32_t)a->dims[1];
    w->in[0] = w->dims == 2 ? a->dims[2] : 1;
    w->in[1] = a->dims[a->rank - 1];
    return HEMI_OK;
}

/* An attribute of `count` integers from min to SIDE_MAX; absent: all `otherwise`. */
hemi_status hemi_onnx_window_list(const node_proto *node, const char *name, size_t count, int64_t min,
                                  int64_t otherwise, int64_t *out, hemi_error *err) {
    const Hemi__Onnx__AttributeProto *a = hemi_onnx_attribute(node, name);
    for (size_t i = 0; i < count; i++) out[i] = otherwise;
    if (a == NULL || a->n_ints == 0) return HEMI_OK;
    if (a->n_ints != count)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s has %zu %s, expected %zu", hemi_onnx_label_of(node).s, a->n_ints,
                         name, count);
    for (size_t i = 0; i < count; i++) {
        if (a->ints[i] < min || a->ints[i] > SIDE_MAX)
            return hemi_fail(err, HEMI_ERR_FORMAT, "%s has %s of %lld: %lld to %d are read", hemi_onnx_label_of(node).s,
                             name, (long long)a->ints[i], (long long)min, SIDE_MAX);
        out[i] = a->ints[i];
    }
    return HEMI_OK;
}

bool hemi_onnx_text_is(const Hemi__Onnx__AttributeProto *a, const char *text) {
    return a != NULL && a->s.len == strlen(text) && memcmp(a->s.data, text, a->s.len) == 0;
}

static int64_t extent(const window *w, size_t i) { return (w->kernel[i] - 1) * w->dilation[i] + 1; }

/* kernel[] is set (of the weights) or read (of a pool). */
hemi_status hemi_onnx_window_read(const node_proto *node, window *w, bool has_kernel, hemi_error *err) {
    int64_t list[4];
    const size_t first = 2 - w->dims;
    w->stride[0] = w->dilation[0] = 1;
    w->begin[0] = w->end[0] = 0;
    if (!has_kernel) w->kernel[0] = 1;
    HEMI_TRY(hemi_onnx_window_list(node, "kernel_shape", w->dims, 1, has_kernel ? 0 : -1, list, err));
    for (size_t i = 0; i < w->dims; i++) {
        if (!has_kernel) w->kernel[first + i] = list[i];
        if (list[i] == -1 || (list[i] != 0 && list[i] != w->kernel[first + i]))
            return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad kernel_shape", hemi_onnx_label_of(node).s);
    }
    HEMI_TRY(hemi_onnx_window_list(node, "strides", w->dims, 1, 1, w->stride + first, err));
    HEMI_TRY(hemi_onnx_window_list(node, "dilations", w->dims, 1, 1, w->dilation + first, err));
    HEMI_TRY(hemi_onnx_window_list(node, "pads", 2 * w->dims, 0, 0, list, err));
    memcpy(w->begin + first, list, w->dims * sizeof *list);
    memcpy(w->end + first, list + w->dims, w->dims * sizeof *list);
    return HEMI_OK;
}

hemi_status hemi_onnx_window_auto_pad(const node_proto *node, window *w, hemi_error *err) {
    const Hemi__Onnx__AttributeProto *a = hemi_onnx_attribute(node, "auto_pad");
    const bool upper = hemi_onnx_text_is(a, "SAME_UPPER"), lower = hemi_onnx_text_is(a, "SAME_LOWER"),
               valid = hemi_onnx_text_is(a, "VALID");
    if (a == NULL || a->s.len == 0 || hemi_onnx_text_is(a, "NOTSET")) return HEMI_OK;
    if (!upper && !lower && !valid)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad auto_pad", hemi_onnx_label_of(node).s);
    for (size_t i = 2 - w->dims; i < 2; i++) {
        const int64_t out = (w->in[i] + w->stride[i] - 1) / w->stride[i];
        const int64_t missing = (out - 1) * w->stride[i] + extent(w, i) - w->in[i];
        const int64_t pad = valid || missing < 0 ? 0 : missing;
        w->begin[i] = lower ? (pad + 1) / 2 : pad / 2;
        w->end[i] = pad - w->begin[i];
    }
    return HEMI_OK;
}

/* The axis of a window that reads; `ceiling`: a window that begins inside counts. False if none fits. */
bool hemi_onnx_window_reading(hemi_stencil_axis *axis, const window *w, size_t i, bool ceiling) {
    const int64_t room = w->in[i] + w->begin[i] + w->end[i] - extent(w, i);
    if (room < 0) return false;
    int64_t out = (room + (ceiling ? w->stride[i] - 1 : 0)) / w->stride[i] + 1;
    if (ceiling && (out - 1) * w->stride[i] >= w->in[i] + w->begin[i])
        out--; /* would begin in the padding at the end */
    if (out < 1 || out > (int64_t)HEMI_STENCIL_SIDE_MAX || extent(w, i) > (int64_t)HEMI_STENCIL_SIDE_MAX) return false;
    *axis = (hemi_stencil_axis){.in = (uint32_t)w->in[i],
                                .out = (uint32_t)out,
                                .in_step = (uint32_t)w->stride[i],
                                .out_step = 1,
                                .size = (uint32_t)extent(w, i),
                                .first = -w->begin[i]};
    return true;
}

hemi_status hemi_onnx_no_output(const node_proto *node, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_SHAPE, "%s has a window that is larger than its input", hemi_onnx_label_of(node).s);
}

static hemi_status apply(hemi_onnx_graph *g, const node_proto *node, operand a, const hemi_stencil *op,
                         hemi_onnx_value *out, hemi_error *err) {
    const size_t rank = a->rank;
    HEMI_TRY(hemi_onnx_sample_apply(g, node, a, op, out, err));
    out->rank = rank;
    out->dims[0] = 1;
    out->dims[1] = op->out_channels;
    if (rank == 4) out->dims[2] = op->y.out;
    out->dims[rank - 1] = op->x.out;
    return HEMI_OK;
}

/* ---- convolutions */

/* The weights, whose dimensions are [of_first][of_second] and the kernel; sets the kernel of the window. */
hemi_status hemi_onnx_window_weights(hemi_onnx_graph *g, const node_proto *node, window *w, int64_t *groups,
                                     const hemi_onnx_constant **c, float **numbers, hemi_error *err) {
    operand weights = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, 1, &weights, err));
    if (weights == NULL)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s has fewer than two inputs", hemi_onnx_label_of(node).s);
    if (!weights->is_constant) return refuse(node, "with computed weights is not linear", err);
    *c = &weights->constant;
    if ((*c)->rank != w->dims + 2)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s has weights of %zu dimensions for an input of %zu",
                         hemi_onnx_label_of(node).s, (*c)->rank, w->dims + 2);
    for (size_t i = 0; i < w->dims + 2; i++)
        if ((*c)->dims[i] > SIDE_MAX) return refuse(node, "has a side of more than 65536", err);
    w->kernel[0] = 1;
    for (size_t i = 0; i < w->dims; i++) w->kernel[2 - w->dims + i] = (int64_t)(*c)->dims[2 + i];
    *groups = hemi_onnx_attribute_int(node, "group", 1);
    if (*groups < 1 || *groups > SIDE_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad group", hemi_onnx_label_of(node).s);
    HEMI_TRY(hemi_onnx_block(g, numbers, (*c)->count, 1, err));
    return hemi_onnx_constant_floats(*c, *numbers, err);
}

hemi_status hemi_onnx_wrong_channels(const node_proto *node, const window *w, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_SHAPE, "%s has weights that do not fit an input of %u channels",
                     hemi_onnx_label_of(node).s, w->channels);
}

static hemi_status add_bias(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand bias = NULL;
    float *numbers = NULL, *all = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, 2, &bias, err));
    if (bias == NULL) return HEMI_OK;
    if (!bias->is_constant) return refuse(node, "with a computed bias: write it as an Add", err);
    const size_t channels = (size_t)out->dims[1], area = out->features / channels;
    if (bias->constant.count != channels)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s has a bias of %zu numbers for %zu channels",
                         hemi_onnx_label_of(node).s, bias->constant.count, channels);
    HEMI_TRY(hemi_onnx_block(g, &numbers, channels, 1, err));
    HEMI_TRY(hemi_onnx_constant_floats(&bias->constant, numbers, err));
    HEMI_TRY(hemi_onnx_block(g, &all, out->features, 1, err));
    for (size_t i = 0; i < out->features; i++) all[i] = numbers[i / area];
    return hemi_onnx_sample_shift(g, out, all, 1, out, err);
}

static hemi_status run_conv(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    window w = {0};
    const hemi_onnx_constant *c = NULL;
    float *numbers = NULL, *to = NULL;
    int64_t groups = 1;
    hemi_stencil op = {.out_channels = 0};
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_window_sides(node, a, &w, err));
    HEMI_TRY(hemi_onnx_window_weights(g, node, &w, &groups, &c, &numbers, err));
    HEMI_TRY(hemi_onnx_window_read(node, &w, true, err));
    HEMI_TRY(hemi_onnx_window_auto_pad(node, &w, err));
    const size_t outputs = c->dims[0], inputs = c->dims[1], share = outputs / (size_t)groups;
    if (inputs * (size_t)groups != w.channels || outputs % (size_t)groups != 0)
        return hemi_onnx_wrong_channels(node, &w, err);
    op.in_channels = w.channels;
    op.out_channels = (uint32_t)outputs;
    if (!hemi_onnx_window_reading(&op.y, &w, 0, false) || !hemi_onnx_window_reading(&op.x, &w, 1, false))
        return hemi_onnx_no_output(node, err);
    HEMI_TRY(hemi_onnx_stencil_block(g, node, &op, &to, err));
    const float *from = numbers;
    for (size_t o = 0; o < outputs; o++)
        for (size_t i = 0; i < inputs; i++)
            for (size_t ky = 0; ky < (size_t)w.kernel[0]; ky++)
                for (size_t kx = 0; kx < (size_t)w.kernel[1]; kx++) {
                    const size_t y = ky * (size_t)w.dilation[0], x = kx * (size_t)w.dilation[1];
                    to[((o * op.y.size + y) * op.x.size + x) * w.channels + o / share * inputs + i] = *from++;
                }
    HEMI_TRY(apply(g, node, a, &op, out, err));
    return add_bias(g, node, out, err);
}

static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

/* y[i stride + k dilation - begin] gets w[k] x[i] */
bool hemi_onnx_window_writing(hemi_stencil_axis *axis, const window *w, size_t i, int64_t padding) {
    const int64_t out = (w->in[i] - 1) * w->stride[i] + padding + extent(w, i) - w->begin[i] - w->end[i];
    if (out < 1 || out > (int64_t)HEMI_STENCIL_SIDE_MAX) return false;
    const int64_t first = floor_div(w->begin[i] - (w->kernel[i] - 1) * w->dilation[i], w->stride[i]);
    const int64_t last = floor_div(w->stride[i] - 1 + w->begin[i], w->stride[i]);
    *axis = (hemi_stencil_axis){.in = (uint32_t)w->in[i],
                                .out = (uint32_t)out,
                                .in_step = 1,
                                .out_step = (uint32_t)w->stride[i],
                                .size = (uint32_t)(last - first + 1),
                                .first = first};
    return true;
}

/* Tap k of an axis that writes: the phase of the output it goes to, and the tap of the stencil that reads there. */
static size_t written(const hemi_stencil_axis *axis, const window *w, size_t i, size_t k, size_t *phase) {
    const int64_t to = (int64_t)k * w->dilation[i] - w->begin[i], t = w->stride[i];
    const int64_t q = to - floor_div(to, t) * t;
    *phase = (size_t)q;
    return (size_t)((q - to) / t - axis->first);
}

static hemi_status run_conv_transpose(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out,
                                      hemi_error *err) {
    operand a = NULL;
    window w = {0};
    const hemi_onnx_constant *c = NULL;
    float *numbers = NULL, *to = NULL;
    int64_t groups = 1, padding[2] = {0, 0};
    hemi_stencil op = {.out_channels = 0};
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_window_sides(node, a, &w, err));
    HEMI_TRY(hemi_onnx_window_weights(g, node, &w, &groups, &c, &numbers, err));
    HEMI_TRY(hemi_onnx_window_read(node, &w, true, err));
    HEMI_TRY(hemi_onnx_window_list(node, "output_padding", w.dims, 0, 0, padding + 2 - w.dims, err));
    const Hemi__Onnx__AttributeProto *pad = hemi_onnx_attribute(node, "auto_pad");
    if (hemi_onnx_attribute(node, "output_shape") != NULL ||
        (pad != NULL && pad->s.len > 0 && !hemi_onnx_text_is(pad, "NOTSET") && !hemi_onnx_text_is(pad, "VALID")))
        return refuse(node, "has its padding chosen by output_shape or auto_pad: export it with pads", err);
    const size_t inputs = c->dims[0], share = c->dims[1], per_group = inputs / (size_t)groups;
    if (inputs != w.channels || inputs % (size_t)groups != 0) return hemi_onnx_wrong_channels(node, &w, err);
    if (share > SIDE_MAX / (size_t)groups) return refuse(node, "has more than 65536 output channels", err);
    op.in_channels = w.channels;
    op.out_channels = (uint32_t)(share * (size_t)groups);
    if (!hemi_onnx_window_writing(&op.y, &w, 0, padding[0]) || !hemi_onnx_window_writing(&op.x, &w, 1, padding[1]))
        return hemi_onnx_no_output(node, err);
    HEMI_TRY(hemi_onnx_stencil_block(g, node, &op, &to, err));
    const float *from = numbers;
    for (size_t i = 0; i < inputs; i++)
        for (size_t j = 0; j < share; j++)
            for (size_t ky = 0; ky < (size_t)w.kernel[0]; ky++)
                for (size_t kx = 0; kx < (size_t)w.kernel[1]; kx++) {
                    size_t qy = 0, qx = 0;
                    const size_t y = written(&op.y, &w, 0, ky, &qy), x = written(&op.x, &w, 1, kx, &qx);
                    const size_t o = i / per_group * share + j, row = (o * op.y.out_step + qy) * op.x.out_step + qx;
                    to[((row * op.y.size + y) * op.x.size + x) * w.channels + i] = *from++;
                }
    HEMI_TRY(apply(g, node, a, &op, out, err));
    return add_bias(g, node, out, err);
}

/* ---- averages */

/* The sum of each channel over a window. */
static hemi_status apply_sum(hemi_onnx_graph *g, const node_proto *node, operand a, const window *w, hemi_stencil *op,
                             hemi_onnx_value *out, hemi_error *err) {
    float *to = NULL;
    op->in_channels = op->out_channels = w->channels;
    HEMI_TRY(hemi_onnx_stencil_block(g, node, op, &to, err));
    for (size_t c = 0; c < w->channels; c++)
        for (size_t ky = 0; ky < (size_t)w->kernel[0]; ky++)
            for (size_t kx = 0; kx < (size_t)w->kernel[1]; kx++) {
                const size_t y = ky * (size_t)w->dilation[0], x = kx * (size_t)w->dilation[1];
                to[((c * op->y.size + y) * op->x.size + x) * w->channels + c] = 1;
            }
    return apply(g, node, a, op, out, err);
}

/* The least k >= 0 with base + k dilation >= at, at most `kernel`. */
static int64_t tap_from(int64_t base, int64_t dilation, int64_t at, int64_t kernel) {
    const int64_t k = at <= base ? 0 : (at - base + dilation - 1) / dilation;
    return k < kernel ? k : kernel;
}

/* How many taps of the window at position i count: those inside the sample, or inside its padding too. */
int64_t hemi_onnx_window_counted(const window *w, size_t axis, int64_t i, bool with_padding) {
    const int64_t from = with_padding ? -w->begin[axis] : 0, end = w->in[axis] + (with_padding ? w->end[axis] : 0);
    const int64_t base = i * w->stride[axis] - w->begin[axis];
    return tap_from(base, w->dilation[axis], end, w->kernel[axis]) -
           tap_from(base, w->dilation[axis], from, w->kernel[axis]);
}

static hemi_status run_average(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    window w = {0};
    float *factor = NULL;
    hemi_stencil op = {.out_channels = 0};
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_window_sides(node, a, &w, err));
    HEMI_TRY(hemi_onnx_window_read(node, &w, false, err));
    HEMI_TRY(hemi_onnx_window_auto_pad(node, &w, err));
    const bool ceiling = hemi_onnx_attribute_int(node, "ceil_mode", 0) != 0,
               with_padding = hemi_onnx_attribute_int(node, "count_include_pad", 0) != 0;
    if (!hemi_onnx_window_reading(&op.y, &w, 0, ceiling) || !hemi_onnx_window_reading(&op.x, &w, 1, ceiling))
        return hemi_onnx_no_output(node, err);
    HEMI_TRY(apply_sum(g, node, a, &w, &op, out, err));
    HEMI_TRY(hemi_onnx_block(g, &factor, out->features, 1, err));
    const size_t height = op.y.out, width = op.x.out;
    for (size_t x = 0; x < width; x++) {
        const int64_t columns = hemi_onnx_window_counted(&w, 1, (int64_t)x, with_padding);
        for (size_t y = 0; y < height; y++) factor[y * width + x] = 1 / (float)columns;
    }
    for (size_t y = 0; y < height; y++) {
        const float rows = 1 / (float)hemi_onnx_window_counted(&w, 0, (int64_t)y, with_padding);
        for (size_t x = 0; x < width; x++) factor[y * width + x] *= rows;
    }
    for (size_t i = height * width; i < out->features; i++) factor[i] = factor[i - height * width];
    return hemi_onnx_sample_scale(g, node, out, factor, out, err);
}

/* Of whole channels. */
static hemi_status average_all(hemi_onnx_graph *g, const node_proto *node, operand a, bool mean, hemi_onnx_value *out,
                               hemi_error *err) {
    window w = {.stride = {1, 1}, .dilation = {1, 1}};
    float *factor = NULL;
    hemi_stencil op = {.out_channels = 0};
    HEMI_TRY(hemi_onnx_window_sides(node, a, &w, err));
    memcpy(w.kernel, w.in, sizeof w.in);
    if (!hemi_onnx_window_reading(&op.y, &w, 0, false) || !hemi_onnx_window_reading(&op.x, &w, 1, false))
        return hemi_onnx_no_output(node, err);
    HEMI_TRY(apply_sum(g, node, a, &w, &op, out, err));
    HEMI_TRY(hemi_onnx_block(g, &factor, out->features, 1, err));
    for (size_t i = 0; i < out->features; i++) factor[i] = mean ? 1 / (float)(w.in[0] * w.in[1]) : 1;
    return hemi_onnx_sample_scale(g, node, out, factor, out, err);
}

static hemi_status run_global_average(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out,
                                      hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    return average_all(g, node, a, true, out, err);
}

/* Over all sides of every channel, as x.mean((2, 3)) is written. */
static hemi_status run_reduce(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    int64_t axes[HEMI_ONNX_RANK_MAX];
    size_t count = 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_ints(g, node, 1, "axes", axes, HEMI_ONNX_RANK_MAX, &count, err));
    uint64_t seen = 0;
    for (size_t i = 0; i < count; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + (int64_t)a->rank : axes[i];
        if (axis < 0 || axis >= (int64_t)a->rank) return hemi_onnx_bad(node, "axis", err);
        seen |= UINT64_C(1) << axis;
    }
    if ((a->rank != 3 && a->rank != 4) || seen != (a->rank == 3 ? 4 : 12))
        return refuse(node, "is not over all sides of each channel: keep it outside the module", err);
    HEMI_TRY(average_all(g, node, a, strcmp(node->op_type, "ReduceMean") == 0, out, err));
    if (hemi_onnx_attribute_int(node, "keepdims", 1) == 0) out->rank = 2;
    return HEMI_OK;
}

/* ---- zeros around, and one beside the other */

hemi_status hemi_onnx_read_pads(const hemi_onnx_graph *g, const node_proto *node, size_t rank, int64_t *pads,
                                float *value, hemi_error *err) {
    operand computed = NULL, axes = NULL;
    size_t count = 0;
    const Hemi__Onnx__AttributeProto *mode = hemi_onnx_attribute(node, "mode");
    if (mode != NULL && mode->s.len > 0 && !hemi_onnx_text_is(mode, "constant"))
        return refuse(node, "repeats or mirrors the edge: pad outside the module, or with zeros", err);
    HEMI_TRY(hemi_onnx_ints(g, node, 1, "pads", pads, 2 * HEMI_ONNX_RANK_MAX, &count, err));
    HEMI_TRY(hemi_onnx_input(g, node, 2, &computed, err));
    HEMI_TRY(hemi_onnx_input(g, node, 3, &axes, err));
    if (axes != NULL) return refuse(node, "names its axes: export with operator set 17 or earlier", err);
    if (count != 2 * rank) return hemi_fail(err, HEMI_ERR_FORMAT, "%s has bad pads", hemi_onnx_label_of(node).s);
    *value = hemi_onnx_attribute_float(node, "value", 0);
    if (computed != NULL) {
        if (!computed->is_constant || computed->constant.count != 1) return refuse(node, "with a computed value", err);
        HEMI_TRY(hemi_onnx_constant_floats(&computed->constant, value, err));
    }
    for (size_t i = 0; i < count; i++)
        if (pads[i] < -SIDE_MAX || pads[i] > SIDE_MAX) return hemi_onnx_bad(node, "pads", err);
    return HEMI_OK;
}

static hemi_status run_pad(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    window w = {0};
    int64_t pads[2 * HEMI_ONNX_RANK_MAX];
    float *to = NULL, value = 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_window_sides(node, a, &w, err));
    HEMI_TRY(hemi_onnx_read_pads(g, node, a->rank, pads, &value, err));
    if (value != 0) return refuse(node, "with something other than zeros: pad outside the module", err);
    if (pads[0] != 0 || pads[1] != 0 || pads[a->rank] != 0 || pads[a->rank + 1] != 0)
        return refuse(node, "pads the batch or the channels: only sides are supported", err);
    hemi_stencil op = hemi_stencil_pointwise(w.channels, w.channels, (uint32_t)w.in[0], (uint32_t)w.in[1]);
    for (size_t i = 2 - w.dims; i < 2; i++) {
        hemi_stencil_axis *axis = i == 0 ? &op.y : &op.x;
        const int64_t begin = pads[a->rank - 2 + i], end = pads[2 * a->rank - 2 + i];
        if (w.in[i] + begin + end < 1) return hemi_onnx_no_output(node, err);
        axis->first = -begin;
        axis->out = (uint32_t)(w.in[i] + begin + end); /* < 2^27 */
    }
    HEMI_TRY(hemi_onnx_stencil_block(g, node, &op, &to, err));
    for (size_t c = 0; c < w.channels; c++) to[c * w.channels + c] = 1;
    return apply(g, node, a, &op, out, err);
}

/* A value becomes channels first .. of `channels`; the others are zero. */
static hemi_status place_channels(hemi_onnx_graph *g, const node_proto *node, operand a, uint32_t first,
                                  uint32_t channels, hemi_onnx_value *out, hemi_error *err) {
    const hemi_onnx_sides sides = hemi_onnx_sides_of(a);
    float *to = NULL;
    hemi_stencil op = hemi_stencil_pointwise(sides.channels, channels, sides.height, sides.width);
    HEMI_TRY(hemi_onnx_stencil_block(g, node, &op, &to, err));
    for (size_t c = 0; c < sides.channels; c++) to[(first + c) * sides.channels + c] = 1;
    HEMI_TRY(hemi_onnx_sample_apply(g, node, a, &op, out, err));
    out->rank = a->rank;
    memcpy(out->dims, a->dims, sizeof out->dims);
    out->dims[1] = channels;
    return HEMI_OK;
}

static hemi_status run_concat(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, first = NULL;
    int64_t channels = 0, axis = hemi_onnx_attribute_int(node, "axis", 1);
    HEMI_TRY(hemi_onnx_operand(g, node, &first, err));
    if (axis < 0) axis += (int64_t)first->rank;
    if (axis != 1 || first->rank < 2 || first->rank > 4 || first->dims[0] != 1)
        return refuse(node, "is not along the channels: keep it outside the module", err);
    for (size_t i = 0; i < node->n_input; i++) {
        HEMI_TRY(hemi_onnx_input(g, node, i, &a, err));
        if (a == NULL || a->is_constant) return refuse(node, "with a constant", err);
        bool same = a->rank == first->rank && a->dims[0] == 1;
        for (size_t j = 2; same && j < a->rank; j++) same = a->dims[j] == first->dims[j];
        if (!same)
            return hemi_fail(err, HEMI_ERR_SHAPE, "%s has inputs of different sides", hemi_onnx_label_of(node).s);
        channels += a->dims[1]; /* at most 2^26 each, and as many inputs as bytes in the file */
        if (channels > (int64_t)HEMI_STENCIL_SIDE_MAX) return refuse(node, "has more than 2^26 channels", err);
    }
    uint32_t at = 0;
    for (size_t i = 0; i < node->n_input; i++) {
        hemi_onnx_value part = {0};
        HEMI_TRY(hemi_onnx_input(g, node, i, &a, err));
        HEMI_TRY(place_channels(g, node, a, at, (uint32_t)channels, &part, err));
        at += (uint32_t)a->dims[1];
        if (i == 0)
            *out = part;
        else
            HEMI_TRY(hemi_onnx_sample_add(g, node, out, &part, 1, out, err));
    }
    return HEMI_OK;
}

const hemi_onnx_entry hemi_onnx_window_operators[] = {{"Conv", run_conv},
                                                      {"ConvTranspose", run_conv_transpose},
                                                      {"AveragePool", run_average},
                                                      {"GlobalAveragePool", run_global_average},
                                                      {"ReduceMean", run_reduce},
                                                      {"ReduceSum", run_reduce},
                                                      {"Pad", run_pad},
                                                      {"Concat", run_concat},
                                                      {NULL, NULL}};
