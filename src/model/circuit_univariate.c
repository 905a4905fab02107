/* Operators that do the same to every number. */
#include <float.h>
#include <string.h>

#include "base/error.h"
#include "model/circuit_tensor.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

#define DATA_BOOL 9

/* Those whose parameters, if any, are attributes. */
static const struct univariate {
    const char *name;
    hemi_function_id id;
    struct {
        const char *name;
        float otherwise;
    } attribute[2];
} functions[] = {
    {"Abs", HEMI_FUNCTION_ABS, {{NULL, 0}}},
    {"Acos", HEMI_FUNCTION_ACOS, {{NULL, 0}}},
    {"Acosh", HEMI_FUNCTION_ACOSH, {{NULL, 0}}},
    {"Asin", HEMI_FUNCTION_ASIN, {{NULL, 0}}},
    {"Asinh", HEMI_FUNCTION_ASINH, {{NULL, 0}}},
    {"Atan", HEMI_FUNCTION_ATAN, {{NULL, 0}}},
    {"Atanh", HEMI_FUNCTION_ATANH, {{NULL, 0}}},
    {"Ceil", HEMI_FUNCTION_CEIL, {{NULL, 0}}},
    {"Celu", HEMI_FUNCTION_CELU, {{"alpha", 1}}},
    {"Cos", HEMI_FUNCTION_COS, {{NULL, 0}}},
    {"Cosh", HEMI_FUNCTION_COSH, {{NULL, 0}}},
    {"Elu", HEMI_FUNCTION_ELU, {{"alpha", 1}}},
    {"Erf", HEMI_FUNCTION_ERF, {{NULL, 0}}},
    {"Exp", HEMI_FUNCTION_EXP, {{NULL, 0}}},
    {"Floor", HEMI_FUNCTION_FLOOR, {{NULL, 0}}},
    {"HardSigmoid", HEMI_FUNCTION_HARD_SIGMOID, {{"alpha", 0.2f}, {"beta", 0.5f}}},
    {"HardSwish", HEMI_FUNCTION_HARD_SWISH, {{NULL, 0}}},
    {"LeakyRelu", HEMI_FUNCTION_LEAKY_RELU, {{"alpha", 0.01f}}},
    {"Log", HEMI_FUNCTION_LOG, {{NULL, 0}}},
    {"Mish", HEMI_FUNCTION_MISH, {{NULL, 0}}},
    {"Relu", HEMI_FUNCTION_RELU, {{NULL, 0}}},
    {"Round", HEMI_FUNCTION_ROUND, {{NULL, 0}}},
    {"Selu", HEMI_FUNCTION_SELU, {{"alpha", 1.67326319217681884765625f}, {"gamma", 1.05070102214813232421875f}}},
    {"Sigmoid", HEMI_FUNCTION_SIGMOID, {{NULL, 0}}},
    {"Sign", HEMI_FUNCTION_SIGN, {{NULL, 0}}},
    {"Sin", HEMI_FUNCTION_SIN, {{NULL, 0}}},
    {"Sinh", HEMI_FUNCTION_SINH, {{NULL, 0}}},
    {"Softplus", HEMI_FUNCTION_SOFTPLUS, {{NULL, 0}}},
    {"Softsign", HEMI_FUNCTION_SOFTSIGN, {{NULL, 0}}},
    {"Sqrt", HEMI_FUNCTION_SQRT, {{NULL, 0}}},
    {"Tan", HEMI_FUNCTION_TAN, {{NULL, 0}}},
    {"Tanh", HEMI_FUNCTION_TANH, {{NULL, 0}}},
    {"ThresholdedRelu", HEMI_FUNCTION_THRESHOLDED_RELU, {{"alpha", 1}}}};

static hemi_status run_function(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    double p[2] = {0, 0};
    size_t i = 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    while (strcmp(functions[i].name, node->op_type) != 0) i++; /* the table of operators has no others */
    for (size_t j = 0; j < 2 && functions[i].attribute[j].name != NULL; j++)
        p[j] = (double)hemi_onnx_attribute_float(node, functions[i].attribute[j].name,
                                                 functions[i].attribute[j].otherwise);
    return hemi_circuit_unary(g, node, a, functions[i].id, p, out, err);
}

static hemi_status run_neg(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    return hemi_circuit_line(g, node, a, -1, 0, out, err);
}

static hemi_status run_reciprocal(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    const double one = 1;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    return hemi_circuit_unary(g, node, a, HEMI_FUNCTION_RECIPROCAL, &one, out, err);
}

static hemi_status run_gelu(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    const Hemi__Onnx__AttributeProto *how = hemi_onnx_attribute(node, "approximate");
    const double tanh_form = how != NULL && how->s.len == 4 && memcmp(how->s.data, "tanh", 4) == 0 ? 1 : 0;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    return hemi_circuit_unary(g, node, a, HEMI_FUNCTION_GELU, &tanh_form, out, err);
}

/* a x + (1 - a) Relu(x) where slopes differ: one function of all channels. */
static hemi_status run_prelu(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL, slope = NULL;
    hemi_onnx_value x, relu;
    double one = 0, *slopes = NULL;
    HEMI_TRY(hemi_onnx_operand(g, node, &a, err));
    HEMI_TRY(hemi_onnx_input(g, node, 1, &slope, err));
    if (slope == NULL || !slope->is_constant) return hemi_onnx_refuse(node, "with computed slopes", err);
    if (hemi_circuit_is_scalar(slope)) {
        HEMI_TRY(hemi_circuit_scalar(g, node, slope, &one, err));
        return hemi_circuit_unary(g, node, a, HEMI_FUNCTION_LEAKY_RELU, &one, out, err);
    }
    HEMI_TRY(hemi_circuit_spread(g, node, slope, a, &slopes, err));
    HEMI_TRY(hemi_circuit_scale(g, node, a, slopes, NULL, &x, err));
    HEMI_TRY(hemi_circuit_unary(g, node, a, HEMI_FUNCTION_RELU, NULL, &relu, err));
    for (size_t i = 0; i < a->features; i++) slopes[i] = 1 - slopes[i];
    HEMI_TRY(hemi_circuit_scale(g, node, &relu, slopes, NULL, &relu, err));
    return hemi_circuit_add(g, node, &x, &relu, 1, out, err);
}

/* What is true or false is 1 or 0 already. */
static hemi_status run_cast(hemi_onnx_graph *g, const node_proto *node, hemi_onnx_value *out, hemi_error *err) {
    operand a = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, 0, &a, err));
    if (a == NULL || a->is_constant || !a->tensor->truth || hemi_onnx_attribute_int(node, "to", 0) != DATA_BOOL)
        return hemi_onnx_find_operator(hemi_onnx_shape_operators, "Cast")(g, node, out, err);
    *out = *a;
    return HEMI_OK;
}

const hemi_onnx_entry hemi_circuit_univariate_operators[] = {{"Abs", run_function},
                                                             {"Acos", run_function},
                                                             {"Acosh", run_function},
                                                             {"Asin", run_function},
                                                             {"Asinh", run_function},
                                                             {"Atan", run_function},
                                                             {"Atanh", run_function},
                                                             {"Cast", run_cast},
                                                             {"Ceil", run_function},
                                                             {"Celu", run_function},
                                                             {"Cos", run_function},
                                                             {"Cosh", run_function},
                                                             {"Elu", run_function},
                                                             {"Erf", run_function},
                                                             {"Exp", run_function},
                                                             {"Floor", run_function},
                                                             {"Gelu", run_gelu},
                                                             {"HardSigmoid", run_function},
                                                             {"HardSwish", run_function},
                                                             {"LeakyRelu", run_function},
                                                             {"Log", run_function},
                                                             {"Mish", run_function},
                                                             {"Neg", run_neg},
                                                             {"PRelu", run_prelu},
                                                             {"Reciprocal", run_reciprocal},
                                                             {"Relu", run_function},
                                                             {"Round", run_function},
                                                             {"Selu", run_function},
                                                             {"Sigmoid", run_function},
                                                             {"Sign", run_function},
                                                             {"Sin", run_function},
                                                             {"Sinh", run_function},
                                                             {"Softplus", run_function},
                                                             {"Softsign", run_function},
                                                             {"Sqrt", run_function},
                                                             {"Tan", run_function},
                                                             {"Tanh", run_function},
                                                             {"ThresholdedRelu", run_function},
                                                             {NULL, NULL}};
