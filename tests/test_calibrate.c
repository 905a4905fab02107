/* Calibration of small random circuits: tolerances are met, on other data too; exact polynomials stay exact; what cannot be is refused. */
#include "circuit.h"

#include "circuit/calibrate.h"

#define INPUTS  10
#define OUTPUTS 10
#define HIDDEN  32
#define SAMPLES 500
#define HELD_OUT 1.5 /* times the tolerance, on other data */

static hemi_circuit *mlp(hemi_function f, size_t layers, test_rng *rng) {
    hemi_circuit *c = test_circuit_new(INPUTS);
    uint32_t v = 0;
    for (size_t l = 0; l < layers; l++) v = test_circuit_function(c, v, HIDDEN, f, 1.4, "Hidden (node '/1')", rng);
    test_circuit_output(c, v, OUTPUTS, rng);
    return c;
}

/* The rms of the error on new samples, relative to the report's. */
static double held_out_error(const hemi_circuit *c, const hemi_calibration_report *report, test_rng *rng) {
    const uint32_t inputs = c->value[0].size, outputs = c->value[c->values - 1].size;
    double x[64], y[64], z[64], sum = 0;
    assert_true(inputs <= 64 && outputs <= 64);
    for (size_t s = 0; s < SAMPLES; s++) {
        for (uint32_t i = 0; i < inputs; i++) x[i] = test_normal(rng);
        assert_ok(hemi_circuit_run(c, x, y, false, NULL), NULL);
        assert_ok(hemi_circuit_run(c, x, z, true, NULL), NULL);
        for (uint32_t i = 0; i < outputs; i++) sum += (y[i] - z[i]) * (y[i] - z[i]);
    }
    return sqrt(sum / (SAMPLES * outputs)) / report->output_rms;
}

static void calibrate(hemi_circuit *c, const hemi_calibration *options, hemi_calibration_report *report, test_rng *rng) {
    hemi_error err = {0};
    hemi_team *team = hemi_team_new(2);
    float *x = test_samples(SAMPLES, c->value[0].size, rng);
    assert_ok(hemi_circuit_calibrate(c, x, SAMPLES, options, report, team, &err), &err);
    hemi_free(x);
    hemi_team_free(team);
}

static void tolerances_are_met(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const hemi_function f[] = {TEST_F0(RELU), TEST_F(GELU, 0), TEST_F0(SIGMOID), TEST_F0(TANH)};
    const double tolerance[] = {0.05, 0.01, 0.002};
    for (size_t i = 0; i < TEST_COUNT(f); i++) {
        uint32_t last = 0;
        for (size_t t = 0; t < TEST_COUNT(tolerance); t++) {
            if (i == 0 && t == 2) continue; /* beyond what Relu allows */
            test_rng same = rng;
            hemi_circuit *c = mlp(f[i], 1, &same);
            hemi_calibration_report report;
            calibrate(c, &(hemi_calibration){.tolerance = tolerance[t]}, &report, &same);
            assert_true(report.error_rms <= tolerance[t] && report.error_rms > tolerance[t] / 100);
            assert_true(held_out_error(c, &report, &same) <= HELD_OUT * tolerance[t]);
            assert_true(c->value[1].polynomial.degree > last);
            last = c->value[1].polynomial.degree;
            hemi_circuit_free(c);
        }
    }
}

/* Ranges hold what the data reaches, and are what the polynomial is for. */
static void ranges_hold_the_data(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = mlp(TEST_F(GELU, 0), 2, &rng);
    float *x = test_samples(SAMPLES, INPUTS, &rng);
    assert_ok(hemi_circuit_calibrate(c, x, SAMPLES, NULL, NULL, NULL, NULL), NULL);
    double least = 0, most = 0;
    for (size_t i = 0; i < SAMPLES * INPUTS; i++) least = fmin(least, (double)x[i]), most = fmax(most, (double)x[i]);
    assert_true(c->value[0].low < 1.2 * least && c->value[0].high > 1.2 * most);
    assert_true(c->value[0].low > 2 * least && c->value[0].high < 2 * most);
    for (size_t v = 1; v <= 2; v++) {
        const hemi_circuit_polynomial *p = &c->value[v].polynomial;
        assert_near(p->middle - p->radius, c->value[v].low, 1e-12);
        assert_near(p->middle + p->radius, c->value[v].high, 1e-12);
    }
    for (size_t s = 0; s < SAMPLES; s++) {
        double in[INPUTS], out[OUTPUTS];
        for (size_t i = 0; i < INPUTS; i++) in[i] = (double)x[s * INPUTS + i];
        assert_ok(hemi_circuit_run(c, in, out, true, NULL), NULL);
        for (size_t i = 0; i < OUTPUTS; i++) assert_true(out[i] > c->value[3].low && out[i] < c->value[3].high);
    }
    hemi_free(x);
    hemi_circuit_free(c);
}

static void residual_and_product(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(INPUTS);
    const uint32_t first = test_circuit_function(c, 0, HIDDEN, TEST_F0(RELU), 1, "first", &rng);
    const uint32_t second = test_circuit_value(c, HEMI_CIRCUIT_FUNCTION, HIDDEN, "second");
    c->value[second].function = TEST_F0(SIGMOID);
    test_circuit_dense(c, &c->value[second].a, 0, HIDDEN, 1, 0, &rng); /* a residual: of the input and of `first` */
    test_circuit_identity(c, &c->value[second].a, first, 0.5);
    const uint32_t product = test_circuit_value(c, HEMI_CIRCUIT_PRODUCT, HIDDEN, "product");
    test_circuit_identity(c, &c->value[product].a, second, 2);
    test_circuit_dense(c, &c->value[product].b, first, HIDDEN, 1, 0.1, &rng);
    test_circuit_output(c, product, OUTPUTS, &rng);
    hemi_calibration_report report;
    calibrate(c, &(hemi_calibration){.tolerance = 0.01}, &report, &rng);
    assert_true(report.error_rms <= 0.01 && report.error_max < report.output_max);
    assert_true(held_out_error(c, &report, &rng) <= HELD_OUT * 0.01);
    assert_true(c->value[product].a_high > 1.8 && c->value[product].a_high < 4); /* 2 Sigmoid */
    assert_true(c->value[product].b_high * c->value[product].a_high >= fmax(c->value[product].high, -c->value[product].low));
    hemi_circuit_free(c);
}

static void polynomials_stay_what_they_are(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const hemi_function f[] = {TEST_F(AFFINE, 2, 1), TEST_F0(SQUARE), TEST_F(POW, 3)};
    for (size_t i = 0; i < TEST_COUNT(f); i++) {
        hemi_circuit *c = mlp(f[i], 1, &rng);
        hemi_calibration_report report;
        calibrate(c, &(hemi_calibration){.tolerance = 0.5}, &report, &rng);
        assert_int_equal(c->value[1].polynomial.degree, i + 1);
        assert_true(report.error_rms < 1e-12);
        assert_true(held_out_error(c, &report, &rng) < 1e-12);
        hemi_circuit_free(c);
    }
}

static void a_given_degree(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = mlp(TEST_F0(RELU), 2, &rng);
    hemi_calibration_report report;
    calibrate(c, &(hemi_calibration){.degree = 9}, &report, &rng);
    for (size_t v = 1; v <= 2; v++) assert_int_equal(c->value[v].polynomial.degree, 9);
    assert_true(report.error_rms > 0.01 && report.error_rms < 0.5);
    calibrate(c, &(hemi_calibration){.degree = 31}, &report, &rng); /* again: takes the place of the first */
    assert_int_equal(c->value[1].polynomial.degree, 31);
    hemi_circuit_free(c);
}

/* A team of any size gives the same; so does the order of threads. */
static void threads_do_not_matter(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c[2];
    for (size_t i = 0; i < 2; i++) {
        test_rng same = rng;
        c[i] = mlp(TEST_F0(TANH), 2, &same);
        float *x = test_samples(100, INPUTS, &same);
        hemi_team *team = hemi_team_new(i == 0 ? 1 : 3);
        assert_ok(hemi_circuit_calibrate(c[i], x, 100, NULL, NULL, team, NULL), NULL);
        hemi_team_free(team);
        hemi_free(x);
    }
    for (size_t v = 1; v <= 2; v++) {
        const hemi_circuit_polynomial *p = &c[0]->value[v].polynomial, *q = &c[1]->value[v].polynomial;
        assert_int_equal(p->degree, q->degree);
        assert_memory_equal(p->coefficient, q->coefficient, (p->degree + 1) * sizeof *p->coefficient);
    }
    hemi_circuit_free(c[0]);
    hemi_circuit_free(c[1]);
}

/* f(scale x + shift) of one number between -1 and 1. */
static hemi_status one_number(hemi_function f, float scale, double shift, const hemi_calibration *options, hemi_circuit **out, hemi_error *err) {
    hemi_circuit *c = test_circuit_new(1);
    test_rng rng = test_rng_new();
    float x[100];
    for (size_t i = 0; i < TEST_COUNT(x); i++) x[i] = (float)i / 49.5F - 1;
    const uint32_t v = test_circuit_function(c, 0, 1, f, 1, "Log (node '/x/Log')", &rng);
    c->value[v].a.term[0].map.weight[0] = scale;
    c->value[v].a.bias[0] = shift;
    test_circuit_output(c, v, 1, &rng);
    const hemi_status status = hemi_circuit_calibrate(c, x, TEST_COUNT(x), options, NULL, NULL, err);
    if (out != NULL) *out = c;
    else hemi_circuit_free(c);
    return status;
}

static void margins_stop_where_functions_do(void **state) {
    (void)state;
    hemi_circuit *c;
    hemi_error err = {0};
    assert_ok(one_number(TEST_F0(LOG), 1, 1.25, NULL, &c, &err), &err); /* 0.25 to 2.25 */
    assert_true(c->value[1].low > 0 && c->value[1].low < 0.25 && c->value[1].high > 2.4);
    hemi_circuit_free(c);
    assert_ok(one_number(TEST_F(RECIPROCAL, 1), 1, 1.25, NULL, &c, &err), &err);
    assert_true(c->value[1].low > 0 && c->value[1].low < 0.25);
    hemi_circuit_free(c);
    assert_ok(one_number(TEST_F0(SIGMOID), 0, 3, NULL, &c, &err), &err); /* a constant */
    assert_near(c->value[1].polynomial.radius, 1, 0);
    assert_near(c->value[1].polynomial.middle, 3, 0);
    hemi_circuit_free(c);
    assert_ok(one_number(TEST_F(GELU, 0), 1, 2, NULL, &c, &err), &err); /* not about 0 */
    assert_true(c->value[1].low > 0 && c->value[1].low < 1);
    hemi_circuit_free(c);
}

static void what_cannot_be_is_refused(void **state) {
    (void)state;
    hemi_error err = {0};
    assert_status(one_number(TEST_F0(LOG), 1, 0, NULL, NULL, &err), HEMI_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "Log (node '/x/Log')"));
    assert_status(one_number(TEST_F0(SIGN), 1, 0, NULL, NULL, &err), HEMI_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "degree 127"));
    assert_status(one_number(TEST_F0(RELU), 1, 0, &(hemi_calibration){.degree_max = 5}, NULL, &err), HEMI_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "degree 5"));
    assert_status(one_number(TEST_F0(RELU), 1, 0, &(hemi_calibration){.degree_max = 128}, NULL, &err), HEMI_ERR_ARGUMENT);
    assert_status(one_number(TEST_F0(RELU), 1, 0, &(hemi_calibration){.margin = 0.5}, NULL, &err), HEMI_ERR_ARGUMENT);
    assert_status(one_number(TEST_F0(RELU), 1, 0, &(hemi_calibration){.tolerance = -1}, NULL, &err), HEMI_ERR_ARGUMENT);
    test_rng rng = test_rng_new();
    hemi_circuit *c = mlp(TEST_F0(RELU), 1, &rng);
    float *x = test_samples(4, INPUTS, &rng);
    assert_status(hemi_circuit_calibrate(c, x, 0, NULL, NULL, NULL, &err), HEMI_ERR_ARGUMENT);
    x[12] = NAN;
    assert_status(hemi_circuit_calibrate(c, x, 4, NULL, NULL, NULL, &err), HEMI_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "number 2 of sample 1"));
    assert_null(c->value[1].polynomial.coefficient);
    hemi_free(x);
    hemi_circuit_free(c);
}

/* The input's quantiser is part of the circuit. */
static void inputs_are_quantised(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = mlp(TEST_F0(SQUARE), 1, &rng);
    c->input_step = 0.25;
    c->input_low = -1;
    c->input_high = 0.75;
    hemi_calibration_report report;
    calibrate(c, &(hemi_calibration){.margin = 1}, &report, &rng);
    assert_near(c->value[0].low, -1, 0);
    assert_near(c->value[0].high, 0.75, 0);
    const double x[INPUTS] = {0.3, 5, -5}, rounded[INPUTS] = {0.25, 0.75, -1};
    double y[OUTPUTS], z[OUTPUTS];
    assert_ok(hemi_circuit_run(c, x, y, true, NULL), NULL);
    assert_ok(hemi_circuit_run(c, rounded, z, true, NULL), NULL);
    assert_memory_equal(y, z, sizeof y);
    hemi_circuit_free(c);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(tolerances_are_met), cmocka_unit_test(ranges_hold_the_data), cmocka_unit_test(residual_and_product),
        cmocka_unit_test(polynomials_stay_what_they_are), cmocka_unit_test(a_given_degree), cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(margins_stop_where_functions_do), cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(inputs_are_quantised),
    };
    return TEST_RUN("calibration", tests);
}
