/* Univariate functions against formulas and published constants, what follows from their steps, and their fits. */
#include "circuit.h"

#include "circuit/calibrate.h"

#define TOLERANCE 1e-14

typedef struct known {
    hemi_function f;
    double x, y; /* y NaN: not defined there */
} known;

static const double E = 2.71828182845904523536, PI = 3.14159265358979323846;

static void values_are_the_known_ones(void **state) {
    (void)state;
    const known table[] = {
        {TEST_F(AFFINE, 3, -1), 2, 5}, {TEST_F0(ABS), -2.5, 2.5}, {TEST_F0(ACOS), -1, PI}, {TEST_F0(ACOS), 1.5, NAN},
        {TEST_F0(ACOSH), 1, 0}, {TEST_F0(ACOSH), 0.5, NAN}, {TEST_F0(ASIN), 0.5, PI / 6}, {TEST_F0(ASIN), -2, NAN},
        {TEST_F0(ASINH), 1, 0.88137358701954302523}, {TEST_F0(ATAN), 1, PI / 4}, {TEST_F0(ATANH), 0.5, 0.54930614433405484570},
        {TEST_F0(ATANH), 1, NAN}, {TEST_F(CELU, 2), -2, 2 * (1 / E - 1)}, {TEST_F(CELU, 2), 3, 3}, {TEST_F(CLIP, -1, 2), 5, 2},
        {TEST_F(CLIP, -1, 2), -5, -1}, {TEST_F(CLIP, -1, 2), 0.5, 0.5}, {TEST_F0(COS), PI / 3, 0.5}, {TEST_F0(COSH), 1, (E + 1 / E) / 2},
        {TEST_F(ELU, 0.5), -1, 0.5 * (1 / E - 1)}, {TEST_F(ELU, 0.5), 2, 2}, {TEST_F0(ERF), 1, 0.84270079294971486934},
        {TEST_F0(EXP), 1, E}, {TEST_F0(FLOOR), -1.5, -2}, {TEST_F0(CEIL), -1.5, -1}, {TEST_F(GELU, 0), 1, 0.84134474606854294859},
        {TEST_F(GELU, 0), -1, -0.15865525393145705141}, {TEST_F(GELU, 1), 1, 0.84119199060827670},
        {TEST_F(GELU, 0), -1000, 0}, {TEST_F(GELU, 1), 1000, 1000},
        {TEST_F(HARD_SIGMOID, 0.2, 0.5), 1, 0.7}, {TEST_F(HARD_SIGMOID, 0.2, 0.5), -9, 0}, {TEST_F(HARD_SIGMOID, 0.2, 0.5), 9, 1},
        {TEST_F0(HARD_SWISH), 1, 2.0 / 3}, {TEST_F0(HARD_SWISH), 4, 4}, {TEST_F0(HARD_SWISH), -4, 0},
        {TEST_F(LEAKY_RELU, 0.1), -2, -0.2}, {TEST_F(LEAKY_RELU, 0.1), 2, 2}, {TEST_F0(LOG), E, 1}, {TEST_F0(LOG), 0, NAN},
        {TEST_F0(LOG), -1, NAN}, {TEST_F0(MISH), 1, 0.86509838826731034612}, {TEST_F(POW, 3), -2, -8}, {TEST_F(POW, 0.5), -1, NAN},
        {TEST_F(POW, -1), 0, NAN}, {TEST_F(POW_BASE, 2), 10, 1024}, {TEST_F(POW_BASE, -2), 0.5, NAN}, {TEST_F(RECIPROCAL, 3), 2, 1.5},
        {TEST_F(RECIPROCAL, 3), 0, NAN}, {TEST_F0(RELU), -1, 0}, {TEST_F0(RELU), 2, 2}, {TEST_F0(ROUND), 2.5, 2}, {TEST_F0(ROUND), 3.5, 4},
        {TEST_F(SELU, 1.6732632, 1.0507010), -1, 1.0507010 * 1.6732632 * (1 / E - 1)}, {TEST_F(SELU, 1.6732632, 1.0507010), 1, 1.0507010},
        {TEST_F0(SIGMOID), 1, E / (1 + E)}, {TEST_F0(SIGMOID), -1000, 0}, {TEST_F0(SIGMOID), 1000, 1}, {TEST_F0(SIGN), -3, -1},
        {TEST_F0(SIGN), 0, 0}, {TEST_F0(SIN), PI / 6, 0.5}, {TEST_F0(SINH), 1, (E - 1 / E) / 2}, {TEST_F0(SOFTPLUS), 0, log(2)},
        {TEST_F0(SOFTPLUS), 1000, 1000}, {TEST_F0(SOFTPLUS), -1000, 0}, {TEST_F0(SOFTSIGN), -3, -0.75}, {TEST_F0(SQRT), 2, sqrt(2)},
        {TEST_F0(SQRT), -1, NAN}, {TEST_F0(SQUARE), -3, 9}, {TEST_F0(TAN), PI / 4, 1}, {TEST_F0(TANH), 1, 0.76159415595576488812},
        {TEST_F(THRESHOLDED_RELU, 1), 1, 0}, {TEST_F(THRESHOLDED_RELU, 1), 1.5, 1.5}, {TEST_F(GREATER, 1), 1, 0}, {TEST_F(GREATER, 1), 2, 1},
        {TEST_F(GREATER_OR_EQUAL, 1), 1, 1}, {TEST_F(GREATER_OR_EQUAL, 1), 0, 0}, {TEST_F(QUANT, 0.5, 0, -8, 7), 1.25, 1},
        {TEST_F(QUANT, 0.5, 0, -8, 7), 1.8, 2}, {TEST_F(QUANT, 0.5, 0, -8, 7), 100, 3.5}, {TEST_F(QUANT, 0.5, 3, 0, 15), -100, -1.5},
    };
    bool seen[HEMI_FUNCTIONS] = {false};
    for (size_t i = 0; i < TEST_COUNT(table); i++) {
        const double y = hemi_function_value(&table[i].f, table[i].x);
        const char *name = hemi_function_name(table[i].f.step[0].id);
        seen[table[i].f.step[0].id] = true;
        if (isnan(table[i].y) ? !isnan(y) : !(fabs(y - table[i].y) <= TOLERANCE * fmax(1, fabs(y))))
            fail_msg("%s(%g) = %.17g, not %.17g", name, table[i].x, y, table[i].y);
        assert_true(isnan(hemi_function_value(&table[i].f, NAN)) || table[i].f.step[0].id == HEMI_FUNCTION_POW);
    }
    for (size_t i = 0; i < HEMI_FUNCTIONS; i++) assert_true(seen[i] || hemi_function_is_binary((hemi_function_id)i));
}

static void names_are_found(void **state) {
    (void)state;
    hemi_function_id id;
    for (int i = 0; i < HEMI_FUNCTIONS; i++) {
        assert_true(hemi_function_find(&id, hemi_function_name((hemi_function_id)i)));
        assert_int_equal(id, i);
        assert_true(hemi_function_parameters(id) <= HEMI_FUNCTION_PARAMETERS);
    }
    assert_false(hemi_function_find(&id, "relu"));
    assert_false(hemi_function_find(&id, ""));
    assert_int_equal(hemi_function_parameters(HEMI_FUNCTION_QUANT), 4);
}

/* x Sigmoid(x), and x without steps. */
static void steps_share_an_argument(void **state) {
    (void)state;
    const hemi_function silu = {2, {{HEMI_FUNCTION_SIGMOID, 0, 0, {0}}, {HEMI_FUNCTION_TIMES, 0, 1, {0}}}}, none = {0};
    const hemi_function divided = {3, {{HEMI_FUNCTION_AFFINE, 0, 0, {1, 1}}, {HEMI_FUNCTION_MINUS, 1, 0, {0}}, {HEMI_FUNCTION_DIVIDE, 2, 0, {0}}}};
    assert_near(hemi_function_value(&silu, 2), 2 / (1 + exp(-2)), 1e-15);
    assert_true(hemi_function_value(&none, 7) == 7);
    assert_true(hemi_function_value(&divided, 4) == 0.25);
    assert_true(isnan(hemi_function_value(&divided, 0)));
}

static void homogeneous_chains(void **state) {
    (void)state;
    const hemi_function yes[] = {
        {0}, TEST_F0(RELU), TEST_F(LEAKY_RELU, 0.1), TEST_F0(ABS), TEST_F(AFFINE, -2, 0),
        {3, {{HEMI_FUNCTION_AFFINE, 0, 0, {-2, 0}}, {HEMI_FUNCTION_RELU, 1, 0, {0}}, {HEMI_FUNCTION_MINUS, 0, 2, {0}}}}};
    const hemi_function no[] = {
        TEST_F(AFFINE, 1, 1), TEST_F0(SIGMOID), TEST_F0(SQUARE), TEST_F(CLIP, 0, 6),
        {2, {{HEMI_FUNCTION_RELU, 0, 0, {0}}, {HEMI_FUNCTION_TIMES, 0, 1, {0}}}},
        {2, {{HEMI_FUNCTION_AFFINE, 0, 0, {1, 1}}, {HEMI_FUNCTION_RELU, 1, 0, {0}}}}};
    for (size_t i = 0; i < TEST_COUNT(yes); i++) {
        assert_true(hemi_function_is_homogeneous(&yes[i]));
        for (double x = -2; x <= 2; x += 0.25)
            assert_near(hemi_function_value(&yes[i], 3 * x), 3 * hemi_function_value(&yes[i], x), 1e-14);
    }
    for (size_t i = 0; i < TEST_COUNT(no); i++) assert_false(hemi_function_is_homogeneous(&no[i]));
}

static void degrees_of_polynomials(void **state) {
    (void)state;
    const hemi_function cubic = {3, {{HEMI_FUNCTION_SQUARE, 0, 0, {0}}, {HEMI_FUNCTION_TIMES, 0, 1, {0}}, {HEMI_FUNCTION_PLUS, 2, 1, {0}}}};
    const hemi_function large = {4, {{HEMI_FUNCTION_POW, 0, 0, {8}}, {HEMI_FUNCTION_POW, 1, 0, {8}}, {HEMI_FUNCTION_SQUARE, 2, 0, {0}},
                                     {HEMI_FUNCTION_PLUS, 3, 0, {0}}}};
    assert_int_equal(hemi_function_degree(&(hemi_function){0}), 1);
    assert_int_equal(hemi_function_degree(&TEST_F0(SQUARE)), 2);
    assert_int_equal(hemi_function_degree(&TEST_F(POW, 3)), 3);
    assert_int_equal(hemi_function_degree(&TEST_F(POW, 2.5)), 0);
    assert_int_equal(hemi_function_degree(&TEST_F(POW, -1)), 0);
    assert_int_equal(hemi_function_degree(&TEST_F(POW, 1e300)), 0);
    assert_int_equal(hemi_function_degree(&TEST_F0(RELU)), 0);
    assert_int_equal(hemi_function_degree(&cubic), 3);
    assert_int_equal(hemi_function_degree(&large), 0);
}

/* ---- fits */
static double worst_error(const double *c, uint32_t degree, const hemi_function *f, double middle, double radius) {
    double worst = 0;
    for (double u = -1; u <= 1; u += 1.0 / 4096)
        worst = fmax(worst, fabs(hemi_chebyshev_value(c, degree, u) - hemi_function_value(f, middle + radius * u)));
    return worst;
}

static void clenshaw_is_the_sum(void **state) {
    (void)state;
    const double c[] = {0.5, -1, 2, 0.25, 3};
    for (double u = -1.25; u <= 1.25; u += 0.125) {
        const double t[] = {1, u, 2 * u * u - 1, 4 * u * u * u - 3 * u, 8 * u * u * u * u - 8 * u * u + 1};
        double sum = 0;
        for (uint32_t d = 0; d <= 4; d++) {
            sum += c[d] * t[d];
            assert_near(hemi_chebyshev_value(c, d, u), sum, 1e-13);
        }
    }
}

/* The best approximation of |x| on [-1, 1] by degree n is 0.28 / n away (Bernstein), that of Relu half of it. */
static void relu_is_near_the_best(void **state) {
    (void)state;
    double c[128];
    const hemi_function relu = TEST_F0(RELU);
    for (uint32_t n = 7; n <= 127; n = 2 * n + 1) {
        assert_true(hemi_chebyshev_fit(c, n, &relu, 0, 1, NULL, 0));
        const double error = worst_error(c, n, &relu, 0, 1);
        assert_true(error > 0.9 * 0.14 / n && error < 3 * 0.14 / n);
        for (uint32_t i = 3; i <= n; i += 2) assert_true(c[i] == 0);
    }
}

static void errors_decrease_and_polynomials_are_exact(void **state) {
    (void)state;
    const hemi_function smooth[] = {TEST_F(GELU, 0), TEST_F0(SIGMOID), TEST_F0(TANH), TEST_F0(SOFTPLUS), TEST_F0(ERF), TEST_F0(MISH)};
    double c[128], histogram[64];
    for (int b = 0; b < 64; b++) histogram[b] = exp(-(b - 31.5) * (b - 31.5) / 2 / 64);
    for (size_t i = 0; i < TEST_COUNT(smooth); i++) {
        double last = 1e3;
        for (uint32_t n = 3; n <= 63; n = 2 * n + 1) {
            assert_true(hemi_chebyshev_fit(c, n, &smooth[i], 0, 4, NULL, 0));
            const double plain = worst_error(c, n, &smooth[i], 0, 4);
            assert_true(plain < last / 2 || plain < 1e-12);
            last = plain;
            assert_true(hemi_chebyshev_fit(c, n, &smooth[i], 0, 4, histogram, 64));
            assert_true(worst_error(c, n, &smooth[i], 0, 4) < 3.5 * plain + 1e-12);
        }
    }
    const hemi_function cube = TEST_F(POW, 3);
    for (uint32_t n = 3; n <= 9; n += 3) {
        assert_true(hemi_chebyshev_fit(c, n, &cube, 0.5, 2, histogram, 64));
        assert_true(worst_error(c, n, &cube, 0.5, 2) < 1e-13);
        for (uint32_t i = 4; i <= n; i++) assert_true(c[i] == 0);
    }
}

/* Odd functions have no even terms (but c[0] of Sigmoid), with lopsided data too. */
static void symmetry_gives_zeros(void **state) {
    (void)state;
    const hemi_function odd[] = {TEST_F0(TANH), TEST_F0(ERF), TEST_F0(SIN), TEST_F0(SIGMOID)}, even[] = {TEST_F0(ABS), TEST_F0(COS), TEST_F(GELU, 0)};
    double c[32], histogram[16];
    for (int b = 0; b < 16; b++) histogram[b] = b;
    for (size_t i = 0; i < TEST_COUNT(odd); i++) {
        assert_true(hemi_chebyshev_fit(c, 21, &odd[i], 0, 3, histogram, 16));
        for (uint32_t k = 2; k <= 21; k += 2) assert_true(c[k] == 0);
        assert_true((c[0] == 0) == (i < 3));
    }
    for (size_t i = 0; i < TEST_COUNT(even); i++) {
        assert_true(hemi_chebyshev_fit(c, 21, &even[i], 0, 3, histogram, 16));
        for (uint32_t k = 3; k <= 21; k += 2) assert_true(c[k] == 0);
    }
}

/* Where the data is, a weighted fit is better than a plain one. */
static void weights_help_where_the_data_is(void **state) {
    (void)state;
    double weighted[16], plain[16], histogram[64], sum[2] = {0, 0};
    const hemi_function relu = TEST_F0(RELU);
    for (int b = 0; b < 64; b++) histogram[b] = exp(-pow(((b + 0.5) / 32 - 1) * 4.4, 2) / 2);
    assert_true(hemi_chebyshev_fit(weighted, 15, &relu, 0, 4.4, histogram, 64));
    assert_true(hemi_chebyshev_fit(plain, 15, &relu, 0, 4.4, NULL, 0));
    for (double u = -1; u <= 1; u += 1.0 / 1024) {
        const double density = exp(-u * u * 4.4 * 4.4 / 2), f = hemi_function_value(&relu, 4.4 * u);
        sum[0] += density * pow(hemi_chebyshev_value(weighted, 15, u) - f, 2);
        sum[1] += density * pow(hemi_chebyshev_value(plain, 15, u) - f, 2);
    }
    assert_true(sum[0] < 0.75 * sum[1]);
}

static void undefined_is_refused(void **state) {
    (void)state;
    double c[8];
    assert_false(hemi_chebyshev_fit(c, 7, &TEST_F0(LOG), 0, 1, NULL, 0));
    assert_false(hemi_chebyshev_fit(c, 7, &TEST_F0(SQRT), 0.9, 1, NULL, 0));
    assert_true(hemi_chebyshev_fit(c, 7, &TEST_F0(SQRT), 1, 1, NULL, 0));
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_the_known_ones), cmocka_unit_test(names_are_found), cmocka_unit_test(steps_share_an_argument),
        cmocka_unit_test(homogeneous_chains), cmocka_unit_test(degrees_of_polynomials), cmocka_unit_test(clenshaw_is_the_sum),
        cmocka_unit_test(relu_is_near_the_best), cmocka_unit_test(errors_decrease_and_polynomials_are_exact),
        cmocka_unit_test(symmetry_gives_zeros), cmocka_unit_test(weights_help_where_the_data_is), cmocka_unit_test(undefined_is_refused),
    };
    return TEST_RUN("circuit functions", tests);
}
