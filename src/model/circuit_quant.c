/* Quantisers as Brevitas and QONNX export them: q = clip(round(x / scale + zero point)), and (q - zero point) scale is the result. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/circuit_tensor.h"
#include "model/onnx_window.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define refuse    hemi_onnx_refuse
#define BITS_MAX  32
#define VIEWS_MAX 16 /* between the graph's input and its quantiser */

typedef struct quantiser {
    operand scale;
    double zero, min, max; /* of the integers */
    hemi_function_id rounding;
    bool to_zero;
} quantiser;

/* ROUND, CEIL, FLOOR, ROUND_TO_ZERO */
static hemi_status read_rounding(const node_proto *node, quantiser *q, hemi_error *err) {
    const Hemi__Onnx__AttributeProto *mode = hemi_onnx_attribute(node, "rounding_mode");
    q->rounding = HEMI_FUNCTION_ROUND;
    q->to_zero = hemi_onnx_text_is(mode, "ROUND_TO_ZERO");
    if (hemi_onnx_text_is(mode, "CEIL")) q->rounding = HEMI_FUNCTION_CEIL;
    if (hemi_onnx_text_is(mode, "FLOOR")) q->rounding = HEMI_FUNCTION_FLOOR;
    if (mode == NULL || q->to_zero || q->rounding != HEMI_FUNCTION_ROUND || hemi_onnx_text_is(mode, "ROUND") ||
        hemi_onnx_text_is(mode, "HALF_EVEN"))
        return HEMI_OK;
    return refuse(node, "has a rounding mode that is not supported: use ROUND", err);
}

static hemi_status read_quantiser(hemi_onnx_graph *g, const node_proto *node, quantiser *q, hemi_error *err) {
    double bits = 0;
    *q = (quantiser){.scale = NULL};
    HEMI_TRY(hemi_onnx_input(g, node, 1, &q->scale, err));
    HEMI_TRY(hemi_circuit_scalar_input(g, node, 2, &q->zero, err));
    HEMI_TRY(hemi_circuit_scalar_input(g, node, 3, &bits, err));
    if (q->scale == NULL || !q->scale->is_constant) return refuse(node, "with a computed scale", err);
    if (!(bits >= 1 && bits <= BITS_MAX) || bits != floor(bits)) return hemi_onnx_bad(node, "bit width", err);
    const bool narrow = hemi_onnx_attribute_int(node, "narrow", 0) != 0;
    const double count = ldexp(1, (int)bits);
    if (hemi_onnx_attribute_int(node, "signed", 1) != 0) {
        q->min = -count / 2 + (narrow ? 1 : 0);
        q->max = count / 2 - 1;
    } else {
        q->max = count - (narrow ? 2 : 1);
    }
    if (!(q->max > q->min)) return hemi_onnx_bad(node, "bit width", err);
    if (q->zero != floor(q->zero)) return refuse(node, "has a zero point that is not an integer", err);
    return read_rounding(node, q, err);
}

static float rounded(const quantiser *q, float x) {
    if (q->to_zero) return truncf(x);
    return q->rounding == HEMI_FUNCTION_CEIL    ? ceilf(x)
           : q->rounding == HEMI_FUNCTION_FLOOR ? floorf(x)
                                                : nearbyintf(x);
}

/* Of weights: computed here, in float32 as it was in training. */
static hemi_status quantise_constant(hemi_onnx_graph *g, const node_proto *node, operand a, const quantiser *q,
                                     hemi_onnx_value *out, hemi_error *err) {
    const hemi_onnx_constant *c = &a->constant;
    hemi_onnx_value shape = {.features = (uint32_t)c->count, .rank = c->rank};
    double *scale = NULL;
    float *numbers = NULL;
    if (c->count > HEMI_CIRCUIT_WEIGHTS_MAX) return refuse(node, "has more than 2^27 weights", err);
    for (size_t i = 0; i < c->rank; i++) shape.dims[i] = (int64_t)c->dims[i];
    HEMI_TRY(hemi_circuit_floats(g, node, c, &numbers, err));
    const bool samples = g->samples;
    g->samples = true; /* all of its dimensions count */
    const hemi_status status = hemi_circuit_spread(g, node, q->scale, &shape, &scale, err);
    g->samples = samples;
    if (status != HEMI_OK) return status;
    const float zero = (float)q->zero, min = (float)q->min, max = (float)q->max;
    for (size_t i = 0; i < c->count; i++) {
        const float s = (float)scale[i], n = rounded(q, numbers[i] / s + zero);
        numbers[i] = ((n < min ? min : n > max ? max : n) - zero) * s;
    }
    *out = hemi_circuit_quantised(c, numbers);
    return HEMI_OK;
}

/* The steps of the function: one, or those of the other roundings. */
static hemi_status quantise_chain(hemi_onnx_graph *g, const node_proto *node, operand a, const quantiser *q,
                                  double scale, hemi_onnx_value *out, hemi_error *err) {
    const double p[4] = {scale, q->zero, q->min, q->max};
    if (q->rounding == HEMI_FUNCTION_ROUND) return hemi_circuit_unary(g, node, a, HEMI_FUNCTION_QUANT, p, out, err);
    hemi_onnx_value r;
    HEMI_TRY(hemi_circuit_line(g, node, a, 1 / scale, q->zero, &r, err));
    HEMI_TRY(hemi_circuit_unary(g, node, &r, q->rounding, NULL, &r, err));
    HEMI_TRY(hemi_circuit_unary(g, node, &r, HEMI_FUNCTION_CLIP, p + 2, &r, err));
    return hemi_circuit_line(g, node, &r, scale, -q->zero * scale, out, err);
}

hemi_status hemi_circuit_run_quant(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    const hemi_circuit_build *build = g->target;
    operand a = NULL;
    quantiser q;
    double scale = 0, *scales = NULL;
    hemi_onnx_value r;
    HEMI_TRY(hemi_onnx_input(g, node, 0, &a, err));
    if (a == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    HEMI_TRY(read_quantiser(g, node, &q, err));
    if (a->is_constant) return quantise_constant(g, node, a, &q, out, err);
    if (q.to_zero) return refuse(node, "rounds to zero: use the rounding mode ROUND", err);
    if (!hemi_circuit_is_scalar(q.scale)) { /* a scale per channel: in units of it, and back */
        HEMI_TRY(hemi_circuit_spread(g, node, q.scale, a, &scales, err));
        for (size_t i = 0; i < a->features; i++) scales[i] = 1 / scales[i];
        HEMI_TRY(hemi_circuit_scale(g, node, a, scales, NULL, &r, err));
        HEMI_TRY(quantise_chain(g, node, &r, &q, 1, &r, err));
        for (size_t i = 0; i < a->features; i++) scales[i] = 1 / scales[i];
        return hemi_circuit_scale(g, node, &r, scales, NULL, out, err);
    }
    HEMI_TRY(hemi_circuit_scalar(g, node, q.scale, &scale, err));
    if (!(scale > 0)) return hemi_onnx_bad(node, "scale", err);
    if (node != build->input_quantiser || q.rounding != HEMI_FUNCTION_ROUND)
        return quantise_chain(g, node, a, &q, scale, out, err);
    build->circuit->input_step = scale;
    build->circuit->input_low = (q.min - q.zero) * scale;
    build->circuit->input_high = (q.max - q.zero) * scale;
    *out = *a;
    return HEMI_OK;
}

/* The only node that takes a value, if the value is not the graph's output; NULL otherwise. */
static const node_proto *only_user(const Hemi__Onnx__GraphProto *p, const char *name) {
    const node_proto *user = NULL;
    for (size_t i = 0; i < p->n_output; i++)
        if (strcmp(p->output[i]->name, name) == 0) return NULL;
    for (size_t i = 0; i < p->n_node; i++)
        for (size_t j = 0; j < p->node[i]->n_input; j++) {
            if (strcmp(p->node[i]->input[j], name) != 0) continue;
            if (user != NULL || j != 0) return NULL;
            user = p->node[i];
        }
    return user;
}

const node_proto *hemi_circuit_find_input_quantiser(const hemi_onnx_graph *g, const char *input) {
    static const char *const views[] = {"Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze"};
    for (int n = 0; n < VIEWS_MAX; n++) {
        const node_proto *user = only_user(g->proto, input);
        if (user == NULL) return NULL;
        if (strcmp(user->op_type, "Quant") == 0 || strcmp(user->op_type, "QuantizeLinear") == 0) return user;
        bool view = false;
        for (size_t i = 0; i < sizeof views / sizeof *views; i++) view |= strcmp(user->op_type, views[i]) == 0;
        if (!view || user->n_output == 0) return NULL;
        input = user->output[0];
    }
    return NULL;
}
