#include "model/onnx.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/onnx_sample.h"

static bool is_one_of(const char *op, const char *const *list) {
    for (; *list != NULL; list++)
        if (strcmp(op, *list) == 0) return true;
    return false;
}

static hemi_status unsupported(const Hemi__Onnx__NodeProto *node, hemi_error *err) {
    static const char *const not_linear[] = {"Abs",
                                             "Acos",
                                             "Asin",
                                             "Atan",
                                             "Celu",
                                             "Ceil",
                                             "Clip",
                                             "Cos",
                                             "Elu",
                                             "Erf",
                                             "Exp",
                                             "Floor",
                                             "Gelu",
                                             "HardSigmoid",
                                             "HardSwish",
                                             "LeakyRelu",
                                             "Log",
                                             "LogSoftmax",
                                             "Max",
                                             "Min",
                                             "Mish",
                                             "Mod",
                                             "PRelu",
                                             "Pow",
                                             "Reciprocal",
                                             "Relu",
                                             "Round",
                                             "Selu",
                                             "Sigmoid",
                                             "Sign",
                                             "Sin",
                                             "Softmax",
                                             "Softplus",
                                             "Softsign",
                                             "Sqrt",
                                             "Tan",
                                             "Tanh",
                                             "ThresholdedRelu",
                                             "Where",
                                             "Greater",
                                             "GreaterOrEqual",
                                             "Less",
                                             "LessOrEqual",
                                             "Equal",
                                             "Not",
                                             "And",
                                             "Or",
                                             "ArgMax",
                                             "MaxPool",
                                             "LpPool",
                                             "GlobalMaxPool",
                                             "ReduceMax",
                                             "ReduceL2",
                                             "InstanceNormalization",
                                             "GroupNormalization",
                                             "LayerNormalization",
                                             NULL};
    const hemi_onnx_label label = hemi_onnx_label_of(node);
    if (is_one_of(node->op_type, not_linear))
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "%s is not linear: choose the Linear modules around it, such as seq.0 and seq.2", label.s);
    return hemi_fail(
        err, HEMI_ERR_UNSUPPORTED,
        "%s is not supported: choose modules of linear layers and convolutions only, or a smaller part of this one",
        label.s);
}

static hemi_onnx_operator find(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node) {
    if (!hemi_onnx_is_standard(node)) return NULL;
    const char *op = node->op_type;
    hemi_onnx_operator run = hemi_onnx_integer_operator(g, node);
    if (run == NULL) run = hemi_onnx_find_operator(hemi_onnx_shape_operators, op);
    if (run == NULL)
        run = hemi_onnx_find_operator(g->samples ? hemi_onnx_sample_operators : hemi_onnx_rows_operators, op);
    if (run == NULL && g->samples) run = hemi_onnx_find_operator(hemi_onnx_window_operators, op);
    if (run == NULL && !g->samples)
        g->wants_samples |= strcmp(op, "Shape") == 0 ||
                            hemi_onnx_find_operator(hemi_onnx_sample_operators, op) != NULL ||
                            hemi_onnx_find_operator(hemi_onnx_window_operators, op) != NULL;
    return run;
}

/* ---- the result */

static hemi_status take_matrix(hemi_affine *out, const hemi_onnx_graph *g, const hemi_onnx_value *result,
                               hemi_error *err) {
    const size_t count = (size_t)result->features * g->inputs;
    out->inputs = g->inputs;
    out->outputs = result->features;
    out->taps = 1;
    out->weight = hemi_alloc(count, sizeof *out->weight);
    if (out->weight == NULL)
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix of %u x %u", result->features, g->inputs);
    if (!g->samples || result->map == HEMI_ONNX_DENSE) {
        memcpy(out->weight, result->w, count * sizeof *out->weight);
        return HEMI_OK;
    }
    const hemi_stencil *s = &result->stencil;
    const size_t area = (size_t)s->y.in * s->x.in;
    for (size_t o = 0; o < out->outputs; o++) {
        hemi_stencil_reader r = hemi_stencil_read(s, o);
        const float *w = NULL;
        size_t place = 0;
        while (hemi_stencil_next(&r, &w, &place))
            for (size_t c = 0; c < s->in_channels; c++) out->weight[o * g->inputs + c * area + place] = w[c];
    }
    return HEMI_OK;
}

static hemi_status take_bias(hemi_affine *out, const hemi_onnx_value *result, hemi_error *err) {
    if (result->b == NULL) return HEMI_OK;
    out->bias = hemi_alloc(out->outputs, sizeof *out->bias);
    if (out->bias == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a bias of %u numbers", out->outputs);
    for (uint32_t o = 0; o < out->outputs; o++) {
        /* at the first position of a grid, as at the others */
        const size_t place = out->kind == HEMI_AFFINE_GRID ? hemi_grid_output_place(&out->grid, o, 0, 0) : o;
        if (place != SIZE_MAX) out->bias[o] = result->b[place];
    }
    return HEMI_OK;
}

/* Whether every position of a stencil has the same bias. */
static bool even_bias(const hemi_onnx_value *v) {
    const hemi_stencil *s = &v->stencil;
    const float *b = v->b;
    if (b == NULL) return true;
    for (size_t o = 0; o < s->out_channels; o++, b += (size_t)s->y.out * s->x.out)
        for (size_t y = 0; y < s->y.out; y++)
            for (size_t x = 0; x < s->x.out; x++)
                if (b[y * s->x.out + x] != b[y % s->y.out_step * s->x.out + x % s->x.out_step]) return false;
    return true;
}

static hemi_status take_shapes(hemi_affine *out, const hemi_onnx_graph *g, const hemi_onnx_value *result,
                               hemi_error *err) {
    const size_t skip = g->batched ? 1 : 0;
    if (result->rank <= skip) return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the graph's output has no dimensions");
    out->out_rank = result->rank - skip;
    out->in_rank = g->input_rank - skip;
    for (size_t i = 0; i < out->in_rank; i++) out->in_shape[i] = g->shape[g->shape_rank - out->in_rank + i];
    for (size_t i = 0; i < out->out_rank; i++) out->out_shape[i] = (uint32_t)result->dims[skip + i];
    return HEMI_OK;
}

/* Copies the result out of the graph's blocks. */
static hemi_status take(hemi_onnx_graph *g, const hemi_onnx_value *result, hemi_error *err) {
    hemi_affine *out = g->target;
    if (g->samples ? result->map == HEMI_ONNX_IDENTITY : result->w == NULL)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "the graph multiplies its input by no weights: there is nothing to run on a server");
    *out = (hemi_affine){.kind = HEMI_AFFINE_ROWS};
    if (!g->samples) {
        HEMI_TRY(take_matrix(out, g, result, err));
        return take_bias(out, result, err);
    }
    const hemi_stencil *s = &result->stencil;
    const bool small = g->inputs <= HEMI_ONNX_FEATURES_MAX && result->features <= HEMI_ONNX_FEATURES_MAX &&
                       result->features <= HEMI_ONNX_DENSE_MAX / g->inputs;
    const bool stencil = result->map == HEMI_ONNX_STENCIL, even = !stencil || even_bias(result);
    /* all outputs at one position of the grid */
    const bool lone = stencil && s->y.out <= s->y.out_step && s->x.out <= s->x.out_step;
    if (!even && !small)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "what is added to the result differs between positions (a bias or a normalisation before "
                         "padding), and as a "
                         "matrix of the whole sample the graph would have more than 2^26 weights: cut before the "
                         "padded layer, into two "
                         "remote modules");
    HEMI_TRY(take_shapes(out, g, result, err));
    if (!stencil || !even || (lone && small)) {
        const bool row = g->batched && out->in_rank == 1 && out->out_rank == 1; /* the batch counts rows */
        out->kind = row ? HEMI_AFFINE_ROWS : HEMI_AFFINE_DENSE;
        if (row) out->in_rank = out->out_rank = 0;
        HEMI_TRY(take_matrix(out, g, result, err));
    } else {
        HEMI_TRY(hemi_affine_from_stencil(out, &result->stencil, err));
    }
    return take_bias(out, result, err);
}

static void drop(hemi_onnx_graph *g) { hemi_affine_free(g->target); }

hemi_status hemi_onnx_import(hemi_affine *out, const void *bytes, size_t count, const uint32_t *shape, size_t rank,
                             hemi_progress_fn progress, void *progress_context, hemi_error *err) {
    static const hemi_onnx_reader reader = {.find = find,
                                            .unsupported = unsupported,
                                            .permute = hemi_onnx_sample_permute,
                                            .take = take,
                                            .drop = drop};
    *out = (hemi_affine){0};
    return hemi_onnx_read(&reader, out, bytes, count, shape, rank, progress, progress_context, err);
}
