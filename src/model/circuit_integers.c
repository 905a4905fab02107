/* QuantizeLinear and DequantizeLinear: q = clip(round(x / scale) + zero point) to 8 bits, x = (q - zero point) scale. Of weights they are
 * computed, of values a function and a line; scales for each channel are those of weights. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/circuit_tensor.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define refuse hemi_onnx_refuse

typedef struct scales {
    float *scale, *zero; /* zero: NULL if there is none */
    size_t count;        /* of both: 1, or the side of the axis */
    size_t inner;        /* numbers for each position of the axis */
    double min, max;     /* of the integers */
} scales;

static hemi_status read_numbers(hemi_onnx_graph *g, const node_proto *node, size_t i, float **out, size_t *count,
                                operand *constant, hemi_error *err) {
    HEMI_TRY(hemi_onnx_input(g, node, i, constant, err));
    *out = NULL;
    if (*constant == NULL) return HEMI_OK;
    if (!(*constant)->is_constant) return refuse(node, "with a computed scale or zero point", err);
    *count = (*constant)->constant.count;
    HEMI_TRY(hemi_onnx_block(g, out, *count, 1, err));
    return hemi_onnx_constant_numbers(&(*constant)->constant, *out, err);
}

/* `of` may be constant. */
static hemi_status read_scales(hemi_onnx_graph *g, const node_proto *node, operand of, scales *s, hemi_error *err) {
    operand scale = NULL, zero = NULL;
    size_t zeros = 0;
    *s = (scales){.min = 0, .max = 255};
    HEMI_TRY(read_numbers(g, node, 1, &s->scale, &s->count, &scale, err));
    HEMI_TRY(read_numbers(g, node, 2, &s->zero, &zeros, &zero, err));
    if (scale == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    for (size_t i = 0; i < s->count; i++)
        if (!(s->scale[i] > 0)) return hemi_onnx_bad(node, "scale", err);
    if (zero != NULL) (void)hemi_onnx_constant_range(&zero->constant, &s->min, &s->max);
    if (zero != NULL && zeros != s->count) return hemi_onnx_bad(node, "number of zero points", err);
    s->inner = 1;
    if (s->count == 1) return HEMI_OK;
    if (!of->is_constant) return refuse(node, "has a scale for each channel of a computed value: use one for all", err);
    const hemi_onnx_constant *c = &of->constant;
    int64_t axis = hemi_onnx_attribute_int(node, "axis", 1);
    if (axis < 0) axis += (int64_t)c->rank;
    if (axis < 0 || axis >= (int64_t)c->rank || c->dims[axis] != s->count) return hemi_onnx_bad(node, "axis", err);
    for (size_t i = (size_t)axis + 1; i < c->rank; i++) s->inner *= c->dims[i];
    return HEMI_OK;
}

static hemi_status of_constant(hemi_onnx_graph *g, const node_proto *node, operand a, const scales *s, bool to_integers,
                               hemi_onnx_value *out, hemi_error *err) {
    float *numbers = NULL;
    const hemi_onnx_constant *c = &a->constant;
    (void)node;
    HEMI_TRY(hemi_onnx_block(g, &numbers, c->count, 1, err));
    HEMI_TRY(hemi_onnx_constant_numbers(c, numbers, err));
    for (size_t i = 0; i < c->count; i++) {
        const size_t k = i / s->inner % s->count;
        const float scale = s->scale[k], zero = s->zero != NULL ? s->zero[k] : 0;
        const float q = nearbyintf(numbers[i] / scale) + zero, min = (float)s->min, max = (float)s->max;
        numbers[i] = to_integers ? q < min ? min : q > max ? max : q : (numbers[i] - zero) * scale;
    }
    *out = hemi_circuit_quantised(c, numbers);
    return HEMI_OK;
}

static hemi_status run_quantize(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    const hemi_circuit_build *build = g->target;
    operand a = NULL;
    scales s;
    HEMI_TRY(hemi_onnx_input(g, node, 0, &a, err));
    if (a == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    HEMI_TRY(read_scales(g, node, a, &s, err));
    if (a->is_constant) return of_constant(g, node, a, &s, true, out, err);
    const double zero = s.zero != NULL ? (double)s.zero[0] : 0, scale = (double)s.scale[0],
                 p[4] = {scale, zero, s.min, s.max};
    hemi_onnx_value r = *a;
    if (node == build->input_quantiser) {
        build->circuit->input_step = scale;
        build->circuit->input_low = (s.min - zero) * scale;
        build->circuit->input_high = (s.max - zero) * scale;
    } else {
        HEMI_TRY(hemi_circuit_unary(g, node, a, HEMI_FUNCTION_QUANT, p, &r, err));
    }
    return hemi_circuit_line(g, node, &r, 1 / scale, zero, out, err);
}

static hemi_status run_dequantize(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    scales s;
    HEMI_TRY(hemi_onnx_input(g, node, 0, &a, err));
    if (a == NULL) return hemi_onnx_bad(node, "list of inputs", err);
    HEMI_TRY(read_scales(g, node, a, &s, err));
    if (a->is_constant) return of_constant(g, node, a, &s, false, out, err);
    const double zero = s.zero != NULL ? (double)s.zero[0] : 0, scale = (double)s.scale[0];
    return hemi_circuit_line(g, node, a, scale, -zero * scale, out, err);
}

const hemi_onnx_entry hemi_circuit_integer_operators[] = {
    {"QuantizeLinear", run_quantize}, {"DequantizeLinear", run_dequantize}, {NULL, NULL}};
