/* Univariate functions: what a chain of ONNX operators does to one number. */
#ifndef HEMI_CIRCUIT_FUNCTION_H
#define HEMI_CIRCUIT_FUNCTION_H

#include <stdbool.h>
#include <stddef.h>

#define HEMI_FUNCTION_STEPS_MAX 32
#define HEMI_FUNCTION_PARAMETERS 4
#define HEMI_FUNCTION_DEGREE_MAX 127 /* of what counts as a polynomial */

/* X(name of the operator in ONNX or our own, id, parameters, what the parameters are) */
#define HEMI_FUNCTION_LIST(X)                                                                                          \
    X("Affine", AFFINE, 2)           /* p0 x + p1: Add, Sub, Mul, Div with constants, Neg */                           \
    X("Abs", ABS, 0)                                                                                                   \
    X("Acos", ACOS, 0)                                                                                                 \
    X("Acosh", ACOSH, 0)                                                                                               \
    X("Asin", ASIN, 0)                                                                                                 \
    X("Asinh", ASINH, 0)                                                                                               \
    X("Atan", ATAN, 0)                                                                                                 \
    X("Atanh", ATANH, 0)                                                                                               \
    X("Celu", CELU, 1)               /* alpha */                                                                       \
    X("Clip", CLIP, 2)               /* min, max */                                                                    \
    X("Cos", COS, 0)                                                                                                   \
    X("Cosh", COSH, 0)                                                                                                 \
    X("Elu", ELU, 1)                 /* alpha */                                                                       \
    X("Erf", ERF, 0)                                                                                                   \
    X("Exp", EXP, 0)                                                                                                   \
    X("Floor", FLOOR, 0)                                                                                               \
    X("Ceil", CEIL, 0)                                                                                                 \
    X("Gelu", GELU, 1)               /* 1: the tanh approximation */                                                   \
    X("HardSigmoid", HARD_SIGMOID, 2) /* alpha, beta */                                                                \
    X("HardSwish", HARD_SWISH, 0)                                                                                      \
    X("LeakyRelu", LEAKY_RELU, 1)    /* alpha */                                                                       \
    X("Log", LOG, 0)                                                                                                   \
    X("Mish", MISH, 0)                                                                                                 \
    X("Pow", POW, 1)                 /* exponent */                                                                    \
    X("PowBase", POW_BASE, 1)        /* base ^ x */                                                                    \
    X("Reciprocal", RECIPROCAL, 1)   /* p0 / x */                                                                      \
    X("Relu", RELU, 0)                                                                                                 \
    X("Round", ROUND, 0)             /* halves to even */                                                              \
    X("Selu", SELU, 2)               /* alpha, gamma */                                                                \
    X("Sigmoid", SIGMOID, 0)                                                                                           \
    X("Sign", SIGN, 0)                                                                                                 \
    X("Sin", SIN, 0)                                                                                                   \
    X("Sinh", SINH, 0)                                                                                                 \
    X("Softplus", SOFTPLUS, 0)                                                                                         \
    X("Softsign", SOFTSIGN, 0)                                                                                         \
    X("Sqrt", SQRT, 0)                                                                                                 \
    X("Square", SQUARE, 0)                                                                                             \
    X("Tan", TAN, 0)                                                                                                   \
    X("Tanh", TANH, 0)                                                                                                 \
    X("ThresholdedRelu", THRESHOLDED_RELU, 1) /* alpha */                                                              \
    X("Greater", GREATER, 1)         /* x > p0: 1, otherwise 0; Less etc. by Affine around it */                       \
    X("GreaterOrEqual", GREATER_OR_EQUAL, 1)                                                                           \
    X("Quant", QUANT, 4)             /* scale, zero point, min, max of the integers; halves to even */                  \
    X("Mul", TIMES, 0)               /* this and what follows: two operands */                                 \
    X("Add", PLUS, 0)                                                                                                  \
    X("Sub", MINUS, 0)                                                                                                 \
    X("Div", DIVIDE, 0)

typedef enum hemi_function_id {
#define HEMI_FUNCTION_ENUM(name, id, parameters) HEMI_FUNCTION_##id,
    HEMI_FUNCTION_LIST(HEMI_FUNCTION_ENUM)
#undef HEMI_FUNCTION_ENUM
        HEMI_FUNCTIONS
} hemi_function_id;

/* Operands are numbered: 0 is the function's argument, j the result of step j - 1. A step with two operands (TIMES, PLUS, MINUS,
 * DIVIDE) makes one function of what shares an argument: x * Sigmoid(x), the tanh GELU as exporters write it, Where. */
typedef struct hemi_function_step {
    hemi_function_id id;
    unsigned of, with; /* with: of steps of two operands */
    double p[HEMI_FUNCTION_PARAMETERS];
} hemi_function_step;

/* The result is that of the last step; without steps it is the argument. */
typedef struct hemi_function {
    size_t steps;
    hemi_function_step step[HEMI_FUNCTION_STEPS_MAX];
} hemi_function;

const char *hemi_function_name(hemi_function_id id);
bool hemi_function_find(hemi_function_id *id, const char *name); /* by name, exactly */
bool hemi_function_is_binary(hemi_function_id id);
size_t hemi_function_parameters(hemi_function_id id);
/* NaN where the function is not defined. */
double hemi_function_value(const hemi_function *f, double x);
/* f(a x) = a f(x) for a > 0, as far as the steps say so: Relu, LeakyRelu, Abs, Affine with p1 = 0, their chains, sums and differences. */
bool hemi_function_is_homogeneous(const hemi_function *f);
/* An upper bound of the degree of what is a polynomial by its steps (Affine, Square, Pow, Mul, Add, Sub), at least 1; 0: it is none. */
unsigned hemi_function_degree(const hemi_function *f);

#endif
