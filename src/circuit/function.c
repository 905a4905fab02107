#include "circuit/function.h"

#include <math.h>
#include <string.h>

#define SQRT_HALF       0.70710678118654752440
#define SQRT_2_OVER_PI  0.79788456080286535588
#define GELU_TANH_CUBIC 0.044715

/* Without overflow on either side. */
static double softplus(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }
static double sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static double clip(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
static double gelu(double x, bool approximate) {
    return approximate ? 0.5 * x * (1 + tanh(SQRT_2_OVER_PI * (x + GELU_TANH_CUBIC * x * x * x)))
                       : 0.5 * x * erfc(-x * SQRT_HALF);
}
static double quant(double x, const double p[4]) { return (clip(rint(x / p[0] + p[1]), p[2], p[3]) - p[1]) * p[0]; }
/* Poles are outside the domain too: they give NaN, not infinity. */
static double power(double x, double exponent) { return x == 0 && exponent < 0 ? NAN : pow(x, exponent); }

/* x: the first operand, y: the second, p: the parameters. */
#define VALUE(id, expression)                                                                                          \
    static double value_##id(double x, double y, const double *p) {                                                    \
        (void)y, (void)p;                                                                                              \
        return expression;                                                                                             \
    }
VALUE(AFFINE, p[0] * x + p[1])
VALUE(ABS, fabs(x))
VALUE(ACOS, acos(x))
VALUE(ACOSH, acosh(x))
VALUE(ASIN, asin(x))
VALUE(ASINH, asinh(x))
VALUE(ATAN, atan(x))
VALUE(ATANH, fabs(x) < 1 ? atanh(x) : NAN)
VALUE(CELU, x > 0 ? x : p[0] * expm1(x / p[0]))
VALUE(CLIP, clip(x, p[0], p[1]))
VALUE(COS, cos(x))
VALUE(COSH, cosh(x))
VALUE(ELU, x > 0 ? x : p[0] * expm1(x))
VALUE(ERF, erf(x))
VALUE(EXP, exp(x))
VALUE(FLOOR, floor(x))
VALUE(CEIL, ceil(x))
VALUE(GELU, gelu(x, p[0] == 1))
VALUE(HARD_SIGMOID, clip(p[0] * x + p[1], 0, 1))
VALUE(HARD_SWISH, x *clip(x / 6 + 0.5, 0, 1))
VALUE(LEAKY_RELU, x < 0 ? p[0] * x : x)
VALUE(LOG, x > 0 ? log(x) : NAN)
VALUE(MISH, x *tanh(softplus(x)))
VALUE(POW, power(x, p[0]))
VALUE(POW_BASE, p[0] == 0 && x < 0 ? NAN : pow(p[0], x))
VALUE(RECIPROCAL, x != 0 ? p[0] / x : NAN)
VALUE(RELU, x < 0 ? 0 : x) /* a NaN stays one */
VALUE(ROUND, rint(x))
VALUE(SELU, p[1] * (x > 0 ? x : p[0] * expm1(x)))
VALUE(SIGMOID, sigmoid(x))
VALUE(SIGN, x > 0 ? 1 : x < 0 ? -1 : x)
VALUE(SIN, sin(x))
VALUE(SINH, sinh(x))
VALUE(SOFTPLUS, softplus(x))
VALUE(SOFTSIGN, x / (1 + fabs(x)))
VALUE(SQRT, x >= 0 ? sqrt(x) : NAN)
VALUE(SQUARE, x *x)
VALUE(TAN, tan(x))
VALUE(TANH, tanh(x))
VALUE(THRESHOLDED_RELU, x > p[0] ? x : isnan(x) ? x : 0)
VALUE(GREATER, isnan(x) ? x : x > p[0])
VALUE(GREATER_OR_EQUAL, isnan(x) ? x : x >= p[0])
VALUE(QUANT, quant(x, p))
VALUE(TIMES, x *y)
VALUE(PLUS, x + y)
VALUE(MINUS, x - y)
VALUE(DIVIDE, y != 0 ? x / y : NAN)

static const struct {
    const char *name;
    size_t parameters;
    double (*value)(double x, double y, const double *p);
} table[HEMI_FUNCTIONS] = {
#define ROW(name, id, parameters) {name, parameters, value_##id},
    HEMI_FUNCTION_LIST(ROW)
#undef ROW
};

const char *hemi_function_name(hemi_function_id id) { return table[id].name; }
bool hemi_function_is_binary(hemi_function_id id) { return id >= HEMI_FUNCTION_TIMES && id < HEMI_FUNCTIONS; }
size_t hemi_function_parameters(hemi_function_id id) { return table[id].parameters; }

bool hemi_function_find(hemi_function_id *id, const char *name) {
    for (int i = 0; i < HEMI_FUNCTIONS; i++)
        if (strcmp(table[i].name, name) == 0) {
            *id = (hemi_function_id)i;
            return true;
        }
    return false;
}

double hemi_function_value(const hemi_function *f, double x) {
    double operand[HEMI_FUNCTION_STEPS_MAX + 1];
    operand[0] = x;
    for (size_t i = 0; i < f->steps; i++) {
        const hemi_function_step *s = &f->step[i];
        const double y = hemi_function_is_binary(s->id) ? operand[s->with] : 0;
        operand[i + 1] = table[s->id].value(operand[s->of], y, s->p);
    }
    return operand[f->steps];
}

static bool step_is_homogeneous(const hemi_function_step *s, const bool *operand) {
    switch (s->id) {
    case HEMI_FUNCTION_RELU:
    case HEMI_FUNCTION_LEAKY_RELU:
    case HEMI_FUNCTION_ABS: return operand[s->of];
    case HEMI_FUNCTION_AFFINE: return operand[s->of] && s->p[1] == 0;
    case HEMI_FUNCTION_PLUS:
    case HEMI_FUNCTION_MINUS: return operand[s->of] && operand[s->with];
    default: return false;
    }
}

bool hemi_function_is_homogeneous(const hemi_function *f) {
    bool operand[HEMI_FUNCTION_STEPS_MAX + 1] = {true};
    for (size_t i = 0; i < f->steps; i++) operand[i + 1] = step_is_homogeneous(&f->step[i], operand);
    return operand[f->steps];
}

/* 0: not a polynomial. A polynomial of degree 0 counts as one of degree 1. */
static unsigned step_degree(const hemi_function_step *s, const unsigned *operand) {
    const unsigned a = operand[s->of], b = hemi_function_is_binary(s->id) ? operand[s->with] : a;
    if (a == 0 || b == 0) return 0;
    switch (s->id) {
    case HEMI_FUNCTION_AFFINE: return a;
    case HEMI_FUNCTION_SQUARE: return 2 * a;
    case HEMI_FUNCTION_POW: return s->p[0] >= 1 && s->p[0] <= HEMI_FUNCTION_DEGREE_MAX && s->p[0] == rint(s->p[0]) ? a * (unsigned)s->p[0] : 0;
    case HEMI_FUNCTION_TIMES: return a + b;
    case HEMI_FUNCTION_PLUS:
    case HEMI_FUNCTION_MINUS: return a > b ? a : b;
    default: return 0;
    }
}

unsigned hemi_function_degree(const hemi_function *f) {
    unsigned operand[HEMI_FUNCTION_STEPS_MAX + 1] = {1};
    for (size_t i = 0; i < f->steps; i++) {
        const unsigned degree = step_degree(&f->step[i], operand);
        operand[i + 1] = degree <= HEMI_FUNCTION_DEGREE_MAX ? degree : 0;
    }
    return operand[f->steps];
}
