/* ONNX to circuits: operators against direct computations, what is fused, structure that does not follow from weights, refusals, hostile
 * graphs. Bytes are in test_protobuf.c. */
#include "onnx_fixture.h"

#include "base/memory.h"
#include "model/circuit_import.h"

#define NUMBERS_MAX 4096

static pb graph_of(const int64_t *dims, size_t rank) {
    pb g = {0};
    graph_input(&g, "x", dims, rank);
    graph_output(&g, "y");
    return g;
}

/* The graph, which is taken, on data of its input's shape. */
static hemi_circuit *import_bits(pb graph, const int64_t *dims, size_t rank, int bits) {
    uint32_t shape[8];
    hemi_circuit *c = NULL;
    hemi_error err = {0};
    for (size_t i = 0; i < rank; i++) shape[i] = (uint32_t)dims[i];
    pb model = model_of(graph, 13);
    assert_ok(hemi_circuit_import(&c, model.data, model.size, shape, rank, bits, NULL, NULL, &err), &err);
    free(model.data);
    return c;
}

static hemi_circuit *import(pb graph, const int64_t *dims, size_t rank) { return import_bits(graph, dims, rank, 0); }

static void run(const hemi_circuit *c, const double *x, double *y) {
    hemi_error err = {0};
    assert_ok(hemi_circuit_run(c, x, y, false, &err), &err);
}

static void numbers(double *x, size_t count) {
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < count; i++) x[i] = (double)(float)(2 * test_real(&rng));
}

static void floats(float *w, size_t count, uint64_t seed) {
    test_rng rng = {seed};
    for (size_t i = 0; i < count; i++) w[i] = (float)test_real(&rng);
}

static void near(double got, double wanted) {
    if (!(fabs(got - wanted) <= 1e-5 * (1 + fabs(wanted)))) fail_msg("%.9g, not %.9g", got, wanted);
}

static const hemi_circuit_value *last_of(const hemi_circuit *c) { return &c->value[c->values - 1]; }

/* Values of a kind. */
static size_t count_kind(const hemi_circuit *c, hemi_circuit_kind kind) {
    size_t count = 0;
    for (size_t i = 0; i < c->values; i++) count += c->value[i].kind == kind;
    return count;
}

/* ---- univariate */

#define D 6
static const int64_t dims_d[] = {1, D};

/* y = f(x) as one function, whose name says `op`. Takes the graph. */
static void check_function(pb g, const char *op, double (*f)(double), double from, double to) {
    hemi_circuit *c = import(g, dims_d, 2);
    double x[D], y[D];
    for (size_t i = 0; i < D; i++) x[i] = from + (to - from) * (double)i / (D - 1);
    assert_int_equal(c->values, 3);
    assert_true(c->rows);
    assert_int_equal(c->value[1].kind, HEMI_CIRCUIT_FUNCTION);
    assert_int_equal(last_of(c)->kind, HEMI_CIRCUIT_AFFINE);
    if (strncmp(c->value[1].name, op, strlen(op)) != 0) fail_msg("%s is not of %s", c->value[1].name, op);
    run(c, x, y);
    for (size_t i = 0; i < D; i++) near(y[i], f(x[i]));
    hemi_circuit_free(c);
}

static double f_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double f_relu(double x) { return x > 0 ? x : 0; }
static double f_leaky(double x) { return x > 0 ? x : 0.1 * x; }
static double f_leaky_default(double x) { return x > 0 ? x : 0.01 * x; }
static double f_elu(double x) { return x > 0 ? x : 2 * (exp(x) - 1); }
static double f_celu(double x) { return x > 0 ? x : 2 * (exp(x / 2) - 1); }
static double f_selu(double x) { return 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * (exp(x) - 1)); }
static double f_hard_sigmoid(double x) { return fmin(fmax(0.2 * x + 0.5, 0), 1); }
static double f_hard_swish(double x) { return x * fmin(fmax(x / 6 + 0.5, 0), 1); }
static double f_softplus(double x) { return log(1 + exp(x)); }
static double f_softsign(double x) { return x / (1 + fabs(x)); }
static double f_mish(double x) { return x * tanh(f_softplus(x)); }
static double f_gelu(double x) { return 0.5 * x * (1 + erf(x / sqrt(2))); }
static double f_gelu_tanh(double x) { return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }
static double f_silu(double x) { return x * f_sigmoid(x); }
static double f_sign(double x) { return (x > 0) - (x < 0); }
static double f_inverse(double x) { return 1 / x; }
static double f_threshold(double x) { return x > 1 ? x : 0; }
static double f_negative(double x) { return -x; }

static void univariate(void **state) {
    (void)state;
    static const struct {
        const char *op;
        double (*f)(double);
        double from, to;
        const char *attribute;
        float value;
    } cases[] = {{"Abs", fabs, -2, 2, NULL, 0},
                 {"Acos", acos, -0.9, 0.9, NULL, 0},
                 {"Acosh", acosh, 1.1, 3, NULL, 0},
                 {"Asin", asin, -0.9, 0.9, NULL, 0},
                 {"Asinh", asinh, -2, 2, NULL, 0},
                 {"Atan", atan, -2, 2, NULL, 0},
                 {"Atanh", atanh, -0.9, 0.9, NULL, 0},
                 {"Ceil", ceil, -2, 2, NULL, 0},
                 {"Celu", f_celu, -2, 2, "alpha", 2},
                 {"Cos", cos, -2, 2, NULL, 0},
                 {"Cosh", cosh, -2, 2, NULL, 0},
                 {"Elu", f_elu, -2, 2, "alpha", 2},
                 {"Erf", erf, -2, 2, NULL, 0},
                 {"Exp", exp, -2, 2, NULL, 0},
                 {"Floor", floor, -2, 2, NULL, 0},
                 {"Gelu", f_gelu, -2, 2, NULL, 0},
                 {"HardSigmoid", f_hard_sigmoid, -4, 4, NULL, 0},
                 {"HardSwish", f_hard_swish, -4, 4, NULL, 0},
                 {"LeakyRelu", f_leaky, -2, 2, "alpha", 0.1f},
                 {"LeakyRelu", f_leaky_default, -2, 2, NULL, 0},
                 {"Log", log, 0.1, 2, NULL, 0},
                 {"Mish", f_mish, -2, 2, NULL, 0},
                 {"Reciprocal", f_inverse, 0.5, 2, NULL, 0},
                 {"Relu", f_relu, -2, 2, NULL, 0},
                 {"Round", rint, -2.2, 2, NULL, 0},
                 {"Selu", f_selu, -2, 2, NULL, 0},
                 {"Sigmoid", f_sigmoid, -2, 2, NULL, 0},
                 {"Sign", f_sign, -2, 2, NULL, 0},
                 {"Sin", sin, -2, 2, NULL, 0},
                 {"Sinh", sinh, -2, 2, NULL, 0},
                 {"Softplus", f_softplus, -2, 2, NULL, 0},
                 {"Softsign", f_softsign, -2, 2, NULL, 0},
                 {"Sqrt", sqrt, 0.1, 2, NULL, 0},
                 {"Tan", tan, -1, 1, NULL, 0},
                 {"Tanh", tanh, -2, 2, NULL, 0},
                 {"ThresholdedRelu", f_threshold, -2, 2, NULL, 0}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        pb g = graph_of(dims_d, 2), n = new_node(cases[i].op, "n", "x", "y");
        if (cases[i].attribute != NULL) add_float(&n, cases[i].attribute, cases[i].value);
        graph_node(&g, n);
        check_function(g, cases[i].op, cases[i].f, cases[i].from, cases[i].to);
    }
    pb g = graph_of(dims_d, 2), n = new_node("Gelu", "n", "x", "y");
    add_string(&n, "approximate", "tanh");
    graph_node(&g, n);
    check_function(g, "Gelu", f_gelu_tanh, -3, 3);
}

/* ---- what is one function */

static void scalar(pb *g, const char *name, float v) { graph_floats(g, name, NULL, 0, &v); }

static pb gelu_erf(bool half_last) {
    pb g = graph_of(dims_d, 2);
    scalar(&g, "root", 1.4142135f);
    scalar(&g, "one", 1);
    scalar(&g, "half", 0.5f);
    graph_op(&g, "Div", "x,root", "a");
    graph_op(&g, "Erf", "a", "b");
    graph_op(&g, "Add", "b,one", "c");
    graph_op(&g, "Mul", half_last ? "x,c" : "x,half", "d");
    graph_op(&g, "Mul", half_last ? "d,half" : "d,c", "y");
    return g;
}

static void fused(void **state) {
    (void)state;
    pb g = graph_of(dims_d, 2);
    graph_op(&g, "Sigmoid", "x", "s");
    graph_op(&g, "Mul", "x,s", "y");
    check_function(g, "Sigmoid (node '/m/Sigmoid')", f_silu, -4, 4);
    check_function(gelu_erf(true), "Erf", f_gelu, -4, 4);
    check_function(gelu_erf(false), "Erf", f_gelu, -4, 4);

    g = graph_of(dims_d, 2); /* tanh, as it is exported */
    scalar(&g, "three", 3);
    scalar(&g, "cubic", 0.044715f);
    scalar(&g, "root", 0.79788456f);
    scalar(&g, "one", 1);
    scalar(&g, "half", 0.5f);
    graph_op(&g, "Pow", "x,three", "a");
    graph_op(&g, "Mul", "cubic,a", "b");
    graph_op(&g, "Add", "x,b", "c");
    graph_op(&g, "Mul", "root,c", "d");
    graph_op(&g, "Tanh", "d", "e");
    graph_op(&g, "Add", "one,e", "f");
    graph_op(&g, "Mul", "half,x", "h");
    graph_op(&g, "Mul", "h,f", "y");
    check_function(g, "Pow", f_gelu_tanh, -4, 4);

    g = graph_of(dims_d, 2); /* hard swish without its operator */
    scalar(&g, "three", 3);
    scalar(&g, "zero", 0);
    scalar(&g, "six", 6);
    graph_op(&g, "Add", "x,three", "a");
    graph_op(&g, "Clip", "a,zero,six", "b");
    graph_op(&g, "Mul", "x,b", "c");
    graph_op(&g, "Div", "c,six", "y");
    check_function(g, "Clip", f_hard_swish, -4, 4);

    g = graph_of(dims_d, 2); /* Where */
    scalar(&g, "zero", 0);
    scalar(&g, "tenth", 0.1f);
    graph_op(&g, "Greater", "x,zero", "a");
    graph_op(&g, "Mul", "x,tenth", "b");
    graph_op(&g, "Where", "a,x,b", "y");
    check_function(g, "Greater", f_leaky, -2, 2);

    g = graph_of(dims_d, 2); /* Max and Min are clips; a chain through a shape */
    scalar(&g, "zero", 0);
    graph_op(&g, "Max", "x,zero", "a");
    graph_ints(&g, "shape", (const int64_t[]){-1, D}, 2);
    graph_op(&g, "Reshape", "a,shape", "b");
    graph_op(&g, "Neg", "b", "c");
    graph_op(&g, "Min", "zero,c", "d");
    graph_op(&g, "Neg", "d", "y");
    check_function(g, "Max", f_relu, -2, 2);

    g = graph_of(dims_d, 2);
    graph_op(&g, "Neg", "x", "n");
    graph_op(&g, "Sub", "n,x", "p");
    graph_op(&g, "Add", "p,x", "y");
    hemi_circuit *c = import(g, dims_d, 2); /* no function at all */
    assert_int_equal(c->values, 2);
    double x[D], y[D];
    numbers(x, D);
    run(c, x, y);
    for (size_t i = 0; i < D; i++) near(y[i], f_negative(x[i]));
    hemi_circuit_free(c);
}

static void chains_longer_than_a_function(void **state) {
    (void)state;
    pb g = graph_of(dims_d, 2);
    char from[16] = "x", to[16];
    for (int i = 0; i < 80; i++) {
        snprintf(to, sizeof to, i == 79 ? "y" : "v%d", i);
        graph_op(&g, "Sin", from, to);
        memcpy(from, to, sizeof to);
    }
    hemi_circuit *c = import(g, dims_d, 2);
    assert_int_equal(c->values, 5); /* 32, 32, 16 */
    double x[D], y[D];
    numbers(x, D);
    run(c, x, y);
    for (size_t i = 0; i < D; i++) {
        for (int k = 0; k < 80; k++) x[i] = sin(x[i]);
        near(y[i], x[i]);
    }
    hemi_circuit_free(c);
}

/* ---- comparisons */

static void true_and_false(void **state) {
    (void)state;
    static const char *const ops[] = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"};
    const int64_t vector[] = {D};
    const float c[D] = {-1, 0, 0.5f, 1, 1, 2};
    for (size_t k = 0; k < TEST_COUNT(ops); k++)
        for (int form = 0; form < 3; form++) { /* x op 0.5, 0.5 op x, x op c */
            pb g = graph_of(dims_d, 2);
            scalar(&g, "half", 0.5f);
            graph_floats(&g, "c", vector, 1, c);
            graph_op(&g, ops[k], form == 0 ? "x,half" : form == 1 ? "half,x" : "x,c", "b");
            pb cast = new_node("Cast", "n", "b", "y");
            add_int(&cast, "to", ONNX_FLOAT);
            graph_node(&g, cast);
            hemi_circuit *circuit = import(g, dims_d, 2);
            const double x[D] = {-1, 0.5, 0.25, 1.5, 1, 0.5};
            double y[D];
            run(circuit, x, y);
            for (size_t i = 0; i < D; i++) {
                const double a = form == 1 ? 0.5 : x[i], b = form == 0 ? 0.5 : form == 1 ? x[i] : (double)c[i];
                const bool is[] = {a > b, a >= b, a < b, a <= b, a == b};
                assert_true(y[i] == (is[k] ? 1 : 0));
            }
            hemi_circuit_free(circuit);
        }
    pb g = graph_of(dims_d, 2);
    scalar(&g, "half", 0.5f);
    scalar(&g, "one", 1);
    graph_op(&g, "Greater", "x,half", "a");
    graph_op(&g, "Less", "x,one", "b");
    graph_op(&g, "And", "a,b", "c");
    graph_op(&g, "Not", "c", "d");
    graph_op(&g, "Or", "d,a", "e");
    graph_op(&g, "Xor", "e,b", "f");
    pb cast = new_node("Cast", "n", "f", "h"); /* to BOOL, which it is */
    add_int(&cast, "to", ONNX_BOOL);
    graph_node(&g, cast);
    graph_op(&g, "Where", "h,one,half", "y");
    hemi_circuit *circuit = import(g, dims_d, 2);
    const double x[D] = {-1, 0.5, 0.75, 1.5, 1, 0.6};
    double y[D];
    run(circuit, x, y);
    assert_int_equal(circuit->values, 3);
    for (size_t i = 0; i < D; i++) {
        const bool a = x[i] > 0.5, b = x[i] < 1;
        near(y[i], ((!(a && b) || a) != b) ? 1 : 0.5);
    }
    hemi_circuit_free(circuit);
}

/* ---- layers on rows */

#define H 8
#define M 3
static float w1[H * D], w2[M * H], b1[H], b2[M];

static void layers(pb *g) {
    const int64_t d1[] = {H, D}, d2[] = {M, H}, db1[] = {H}, db2[] = {M};
    floats(w1, H * D, 1);
    floats(w2, M * H, 2);
    floats(b1, H, 3);
    floats(b2, M, 4);
    graph_floats(g, "w1", d1, 2, w1);
    graph_floats(g, "w2", d2, 2, w2);
    graph_floats(g, "b1", db1, 1, b1);
    graph_floats(g, "b2", db2, 1, b2);
}

static pb gemm(const char *inputs, const char *output) {
    pb n = new_node("Gemm", "/m/Gemm", inputs, output);
    add_int(&n, "transB", 1);
    return n;
}

static void matrix(double *y, const float *w, const float *b, size_t rows, size_t columns, const double *x) {
    for (size_t i = 0; i < rows; i++) {
        y[i] = b != NULL ? (double)b[i] : 0;
        for (size_t j = 0; j < columns; j++) y[i] += (double)w[i * columns + j] * x[j];
    }
}

static void linear_relu_linear(void **state) {
    (void)state;
    const int64_t dims[3][3] = {{1, D}, {4, D}, {1, 5, D}};
    for (size_t k = 0; k < 3; k++) {
        const size_t rank = k < 2 ? 2 : 3;
        pb g = graph_of(dims[k], rank);
        layers(&g);
        if (k < 2) {
            graph_node(&g, gemm("x,w1,b1", "h"));
            graph_op(&g, "Relu", "h", "r");
            graph_node(&g, gemm("r,w2,b2", "y"));
        } else {
            graph_op(&g, "Transpose", "w1", "v1");
            graph_op(&g, "Transpose", "w2", "v2");
            graph_op(&g, "MatMul", "x,v1", "a");
            graph_op(&g, "Add", "b1,a", "h");
            graph_op(&g, "Relu", "h", "r");
            graph_op(&g, "MatMul", "r,v2", "c");
            graph_op(&g, "Add", "c,b2", "y");
        }
        hemi_circuit *c = import(g, dims[k], rank);
        assert_true(c->rows);
        assert_int_equal(c->values, 3);
        assert_string_equal(c->value[1].name, "Relu (node '/m/Relu')");
        for (size_t v = 1; v < 3; v++) { /* dense, without an index */
            assert_int_equal(c->value[v].a.terms, 1);
            assert_null(c->value[v].a.term[0].map.column);
            assert_null(c->value[v].a.term[0].map.start);
            assert_int_equal(c->value[v].rank, 1);
        }
        double x[D], y[M], h[H], wanted[M];
        numbers(x, D);
        run(c, x, y);
        matrix(h, w1, b1, H, D, x);
        for (size_t i = 0; i < H; i++) h[i] = f_relu(h[i]);
        matrix(wanted, w2, b2, M, H, h);
        for (size_t i = 0; i < M; i++) near(y[i], wanted[i]);
        hemi_circuit_free(c);
    }
}

static void linear_after_linear(void **state) {
    (void)state;
    const int64_t vector[] = {H};
    pb g = graph_of(dims_d, 2), n = gemm("x,w1,b1", "h");
    float s[H], t[H], mean[H], variance[H];
    layers(&g);
    floats(s, H, 5);
    floats(t, H, 6);
    floats(mean, H, 7);
    for (size_t i = 0; i < H; i++) variance[i] = 0.5f + (float)i;
    graph_floats(&g, "s", vector, 1, s);
    graph_floats(&g, "t", vector, 1, t);
    graph_floats(&g, "mean", vector, 1, mean);
    graph_floats(&g, "variance", vector, 1, variance);
    add_float(&n, "alpha", 2);
    add_float(&n, "beta", -1);
    graph_node(&g, n);
    pb norm = new_node("BatchNormalization", "n", "h,s,t,mean,variance", "k");
    add_float(&norm, "epsilon", 0.25f);
    graph_node(&g, norm);
    graph_op(&g, "Mul", "k,s", "l");
    graph_op(&g, "Div", "l,variance", "m");
    graph_op(&g, "Sub", "t,m", "o");
    graph_node(&g, gemm("o,w2,b2", "y"));
    hemi_circuit *c = import(g, dims_d, 2);
    double x[D], y[M], h[H], wanted[M];
    numbers(x, D);
    run(c, x, y);
    assert_int_equal(c->values, 2);
    assert_null(c->value[1].a.term[0].map.column);
    matrix(h, w1, NULL, H, D, x);
    for (size_t i = 0; i < H; i++) {
        h[i] = 2 * h[i] - (double)b1[i];
        h[i] = (h[i] - (double)mean[i]) / sqrt((double)variance[i] + 0.25) * (double)s[i] + (double)t[i];
        h[i] = (double)t[i] - h[i] * (double)s[i] / (double)variance[i];
    }
    matrix(wanted, w2, b2, M, H, h);
    for (size_t i = 0; i < M; i++) near(y[i], wanted[i]);
    hemi_circuit_free(c);
}

static void residuals(void **state) {
    (void)state;
    const int64_t square[] = {D, D};
    float u[D * D], v[D * D];
    floats(u, D * D, 8);
    floats(v, D * D, 9);
    pb g = graph_of(dims_d, 2);
    graph_floats(&g, "u", square, 2, u);
    graph_floats(&g, "v", square, 2, v);
    graph_node(&g, gemm("x,u", "a"));
    graph_op(&g, "Relu", "a", "b");
    graph_node(&g, gemm("b,v", "c"));
    graph_op(&g, "Add", "c,x", "d"); /* of the input */
    graph_op(&g, "Tanh", "d", "e");
    graph_op(&g, "Sub", "e,b", "f"); /* of a function: the same value as before */
    graph_op(&g, "Add", "f,x", "y");
    hemi_circuit *c = import(g, dims_d, 2);
    double x[D], y[D], a[D], b[D];
    numbers(x, D);
    run(c, x, y);
    assert_int_equal(c->values, 4);
    assert_int_equal(last_of(c)->a.terms, 3);
    for (size_t t = 0; t < 3; t++) assert_int_equal(last_of(c)->a.term[t].source, t);
    matrix(a, u, NULL, D, D, x);
    for (size_t i = 0; i < D; i++) a[i] = f_relu(a[i]);
    matrix(b, v, NULL, D, D, a);
    for (size_t i = 0; i < D; i++) near(y[i], tanh(b[i] + x[i]) - a[i] + x[i]);
    hemi_circuit_free(c);
}

static void products(void **state) {
    (void)state;
    pb g = graph_of(dims_d, 2); /* a gated layer */
    const int64_t square[] = {D, D};
    float u[D * D], v[D * D];
    floats(u, D * D, 8);
    floats(v, D * D, 9);
    graph_floats(&g, "u", square, 2, u);
    graph_floats(&g, "v", square, 2, v);
    graph_node(&g, gemm("x,u", "a"));
    graph_node(&g, gemm("x,v", "b"));
    graph_op(&g, "Sigmoid", "a", "s");
    graph_op(&g, "Mul", "a,s", "c");
    graph_op(&g, "Mul", "c,b", "d");
    graph_op(&g, "Exp", "b", "e");
    graph_op(&g, "Div", "d,e", "y");
    hemi_circuit *c = import(g, dims_d, 2);
    double x[D], y[D], a[D], b[D];
    numbers(x, D);
    run(c, x, y);
    assert_int_equal(count_kind(c, HEMI_CIRCUIT_FUNCTION), 2);
    assert_int_equal(count_kind(c, HEMI_CIRCUIT_PRODUCT), 2);
    matrix(a, u, NULL, D, D, x);
    matrix(b, v, NULL, D, D, x);
    for (size_t i = 0; i < D; i++) near(y[i], f_silu(a[i]) * b[i] / exp(b[i]));
    hemi_circuit_free(c);
    /* Max and Min of two */
    g = graph_of(dims_d, 2);
    graph_floats(&g, "u", square, 2, u);
    graph_floats(&g, "v", square, 2, v);
    graph_node(&g, gemm("x,u", "a"));
    graph_node(&g, gemm("x,v", "b"));
    graph_op(&g, "Max", "a,b", "c");
    graph_op(&g, "Min", "c,a,x", "y");
    c = import(g, dims_d, 2);
    run(c, x, y);
    for (size_t i = 0; i < D; i++) near(y[i], fmin(fmin(fmax(a[i], b[i]), a[i]), x[i]));
    hemi_circuit_free(c);
}

static void slopes_of_channels(void **state) {
    (void)state;
    const int64_t vector[] = {D};
    const float slope[D] = {0.1f, 0.2f, 0, 1, -0.5f, 2};
    pb g = graph_of(dims_d, 2);
    graph_floats(&g, "s", vector, 1, slope);
    graph_op(&g, "PRelu", "x,s", "y");
    hemi_circuit *c = import(g, dims_d, 2);
    double x[D], y[D];
    for (int sign = -1; sign <= 1; sign += 2) {
        for (size_t i = 0; i < D; i++) x[i] = sign * (1 + (double)i);
        run(c, x, y);
        for (size_t i = 0; i < D; i++) near(y[i], x[i] > 0 ? x[i] : (double)slope[i] * x[i]);
    }
    assert_int_equal(c->values, 3);
    assert_int_equal(last_of(c)->a.terms, 2);
    hemi_circuit_free(c);
}

/* ---- windows */

typedef struct sample {
    int64_t n, c, h, w;
} sample;

typedef struct layer {
    int64_t outputs, kernel[2], stride[2], dilation[2], pads[4], group;
    bool flat; /* one dimension: h is 1 */
} layer;

static pb window_node(const char *op, const char *inputs, const layer *l) {
    pb n = new_node(op, "/m/window", inputs, "y");
    const size_t first = l->flat ? 1 : 0, count = 2 - first;
    const int64_t flat_pads[] = {l->pads[1], l->pads[3]};
    add_ints(&n, "kernel_shape", l->kernel + first, count);
    add_ints(&n, "strides", l->stride + first, count);
    add_ints(&n, "dilations", l->dilation + first, count);
    add_ints(&n, "pads", l->flat ? flat_pads : l->pads, 2 * count);
    if (strncmp(op, "Conv", 4) == 0) add_int(&n, "group", l->group);
    return n;
}

static hemi_circuit *import_window(const char *op, const sample *s, const layer *l, const float *w, const float *b,
                                   bool transposed) {
    const int64_t x4[] = {1, s->c, s->h, s->w}, x3[] = {1, s->c, s->w};
    int64_t dims[4] = {l->outputs, s->c / l->group, l->kernel[0], l->kernel[1]}, one[1] = {l->outputs};
    if (transposed) dims[0] = s->c, dims[1] = l->outputs / l->group;
    if (l->flat) dims[2] = dims[3];
    pb g = graph_of(l->flat ? x3 : x4, l->flat ? 3 : 4);
    if (w != NULL) graph_floats(&g, "w", dims, l->flat ? 3 : 4, w);
    if (b != NULL) graph_floats(&g, "b", one, 1, b);
    graph_node(&g, window_node(op, w == NULL ? "x" : b == NULL ? "x,w" : "x,w,b", l));
    return import(g, l->flat ? x3 : x4, l->flat ? 3 : 4);
}

static const layer conv_layers[] = {
    {4, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, 1, false}, {6, {2, 3}, {2, 1}, {1, 2}, {0, 2, 1, 0}, 2, false},
    {2, {1, 1}, {1, 1}, {1, 1}, {0, 0, 0, 0}, 1, false}, {2, {3, 3}, {2, 2}, {2, 2}, {2, 2, 2, 2}, 2, false},
    {4, {1, 3}, {1, 2}, {1, 1}, {0, 1, 0, 1}, 1, true},  {2, {5, 6}, {1, 1}, {1, 1}, {0, 0, 0, 0}, 1, false}};

static void convolutions(void **state) {
    (void)state;
    static double x[NUMBERS_MAX], y[NUMBERS_MAX];
    static float w[NUMBERS_MAX], b[64];
    numbers(x, NUMBERS_MAX);
    floats(w, NUMBERS_MAX, 10);
    floats(b, 64, 11);
    for (size_t k = 0; k < TEST_COUNT(conv_layers); k++) {
        const layer *l = &conv_layers[k];
        const sample s = {1, 2, l->flat ? 1 : 5, 6};
        hemi_circuit *c = import_window("Conv", &s, l, w, b, false);
        const int64_t per = s.c / l->group, height = l->flat ? 1 : last_of(c)->dims[1],
                      width = last_of(c)->dims[last_of(c)->rank - 1];
        uint64_t entries = 0;
        assert_false(c->rows);
        assert_int_equal(c->value[0].rank, l->flat ? 2 : 3);
        assert_int_equal(last_of(c)->dims[0], l->outputs);
        run(c, x, y);
        for (int64_t o = 0; o < l->outputs; o++)
            for (int64_t i = 0; i < height; i++)
                for (int64_t j = 0; j < width; j++) {
                    double sum = (double)b[o];
                    for (int64_t q = 0; q < per; q++)
                        for (int64_t u = 0; u < l->kernel[0]; u++)
                            for (int64_t v = 0; v < l->kernel[1]; v++) {
                                const int64_t yy = i * l->stride[0] + u * l->dilation[0] - l->pads[0],
                                              xx = j * l->stride[1] + v * l->dilation[1] - l->pads[1],
                                              in = o / (l->outputs / l->group) * per + q;
                                if (yy < 0 || yy >= s.h || xx < 0 || xx >= s.w) continue;
                                sum += (double)w[((o * per + q) * l->kernel[0] + u) * l->kernel[1] + v] *
                                       x[(in * s.h + yy) * s.w + xx];
                                entries++;
                            }
                    near(y[(o * height + i) * width + j], sum);
                }
        assert_int_equal(hemi_sparse_count(&last_of(c)->a.term[0].map), entries);
        hemi_circuit_free(c);
    }
}

static void transposed_convolutions(void **state) {
    (void)state;
    static double x[NUMBERS_MAX], y[NUMBERS_MAX], wanted[NUMBERS_MAX];
    static float w[NUMBERS_MAX], b[64];
    numbers(x, NUMBERS_MAX);
    floats(w, NUMBERS_MAX, 10);
    floats(b, 64, 11);
    for (size_t k = 0; k + 1 < TEST_COUNT(conv_layers); k++) {
        const layer *l = &conv_layers[k];
        const sample s = {1, 2, l->flat ? 1 : 5, 6};
        hemi_circuit *c = import_window("ConvTranspose", &s, l, w, b, true);
        const int64_t per = s.c / l->group, share = l->outputs / l->group, height = l->flat ? 1 : last_of(c)->dims[1],
                      width = last_of(c)->dims[last_of(c)->rank - 1];
        assert_int_equal(height, (s.h - 1) * l->stride[0] + (l->kernel[0] - 1) * l->dilation[0] + 1 - l->pads[0] - l->pads[2]);
        run(c, x, y);
        for (int64_t i = 0; i < l->outputs * height * width; i++) wanted[i] = (double)b[i / (height * width)];
        for (int64_t in = 0; in < s.c; in++)
            for (int64_t i = 0; i < s.h * s.w; i++)
                for (int64_t o = 0; o < share; o++)
                    for (int64_t u = 0; u < l->kernel[0] * l->kernel[1]; u++) {
                        const int64_t yy = i / s.w * l->stride[0] + u / l->kernel[1] * l->dilation[0] - l->pads[0],
                                      xx = i % s.w * l->stride[1] + u % l->kernel[1] * l->dilation[1] - l->pads[1];
                        if (yy < 0 || yy >= height || xx < 0 || xx >= width) continue;
                        wanted[((in / per * share + o) * height + yy) * width + xx] +=
                            (double)w[(in * share + o) * l->kernel[0] * l->kernel[1] + u] * x[in * s.h * s.w + i];
                    }
        for (int64_t i = 0; i < l->outputs * height * width; i++) near(y[i], wanted[i]);
        hemi_circuit_free(c);
    }
}

static void averages(void **state) {
    (void)state;
    static double x[NUMBERS_MAX], y[NUMBERS_MAX];
    numbers(x, NUMBERS_MAX);
    const sample s = {1, 3, 5, 6};
    const int64_t dims[] = {1, 3, 5, 6};
    for (int with = 0; with < 2; with++) {
        const layer l = {3, {2, 3}, {2, 2}, {1, 1}, {1, 1, 0, 1}, 1, false};
        pb g = graph_of(dims, 4), n = window_node("AveragePool", "x", &l);
        add_int(&n, "count_include_pad", with);
        graph_node(&g, n);
        hemi_circuit *c = import(g, dims, 4);
        const int64_t height = last_of(c)->dims[1], width = last_of(c)->dims[2];
        run(c, x, y);
        for (int64_t o = 0; o < 3 * height * width; o++) {
            const int64_t i = o / width % height, j = o % width;
            double sum = 0, count = 0;
            for (int64_t u = 0; u < 6; u++) {
                const int64_t yy = i * 2 + u / 3 - 1, xx = j * 2 + u % 3 - 1;
                if (yy < 0 || yy >= s.h || xx < 0 || xx >= s.w) continue;
                sum += x[(o / (height * width) * s.h + yy) * s.w + xx];
                count++;
            }
            near(y[o], sum / (with ? 6 : count));
        }
        hemi_circuit_free(c);
    }
    static const char *const ops[] = {"GlobalAveragePool", "ReduceMean", "ReduceSum"};
    for (size_t k = 0; k < 3; k++) {
        pb g = graph_of(dims, 4), n = new_node(ops[k], "n", "x", "p");
        if (k > 0) add_ints(&n, "axes", (const int64_t[]){2, -1}, 2);
        graph_node(&g, n);
        graph_op(&g, "Flatten", "p", "y");
        hemi_circuit *c = import(g, dims, 4);
        run(c, x, y);
        assert_int_equal(last_of(c)->rank, 1);
        for (size_t o = 0; o < 3; o++) {
            double sum = 0;
            for (size_t i = 0; i < 30; i++) sum += x[o * 30 + i];
            near(y[o], k < 2 ? sum / 30 : sum);
        }
        hemi_circuit_free(c);
    }
    pb g = graph_of(dims, 4), n = new_node("ReduceSum", "n", "x", "y"); /* over channels, as an input; rows: over features */
    graph_ints(&g, "axes", (const int64_t[]){1}, 1);
    graph_node(&g, n);
    free(g.data);
    g = graph_of(dims, 4);
    graph_ints(&g, "axes", (const int64_t[]){1}, 1);
    n = new_node("ReduceSum", "n", "x,axes", "y");
    add_int(&n, "keepdims", 0);
    graph_node(&g, n);
    hemi_circuit *c = import(g, dims, 4);
    run(c, x, y);
    assert_int_equal(last_of(c)->size, 30);
    for (size_t i = 0; i < 30; i++) near(y[i], x[i] + x[30 + i] + x[60 + i]);
    hemi_circuit_free(c);
    g = graph_of(dims_d, 2);
    n = new_node("ReduceMean", "n", "x", "m");
    add_ints(&n, "axes", (const int64_t[]){-1}, 1);
    graph_node(&g, n);
    graph_op(&g, "Sub", "x,m", "y");
    c = import(g, dims_d, 2);
    assert_true(c->rows);
    run(c, x, y);
    for (size_t i = 0; i < D; i++) near(y[i], x[i] - (x[0] + x[1] + x[2] + x[3] + x[4] + x[5]) / 6);
    hemi_circuit_free(c);
}

/* ---- structure */

/* conv, norm, Relu, pool, Flatten, Gemm, plus a residual; with the weights given */
static hemi_circuit *import_network(const float *w, size_t count) {
    const int64_t dims[] = {1, 2, 4, 4}, kernel[] = {2, 2, 3, 3}, channels[] = {2}, fc[] = {3, 8}, pads[] = {1, 1, 1, 1},
                  two[] = {2, 2};
    pb g = graph_of(dims, 4);
    assert_true(count >= 36);
    graph_floats(&g, "w", kernel, 4, w);
    graph_floats(&g, "s", channels, 1, w);
    graph_floats(&g, "one", channels, 1, (const float[]){1, 1});
    graph_floats(&g, "f", fc, 2, w);
    pb n = new_node("Conv", "conv", "x,w,s", "a");
    add_ints(&n, "pads", pads, 4);
    graph_node(&g, n);
    graph_op(&g, "BatchNormalization", "a,s,s,s,one", "b");
    graph_op(&g, "Add", "b,x", "c");
    graph_op(&g, "Relu", "c", "d");
    n = new_node("AveragePool", "pool", "d", "e");
    add_ints(&n, "kernel_shape", two, 2);
    add_ints(&n, "strides", two, 2);
    graph_node(&g, n);
    graph_op(&g, "Flatten", "e", "f1");
    graph_node(&g, gemm("f1,f", "y"));
    return import(g, dims, 4);
}

static void same_map(const hemi_sparse *a, const hemi_sparse *b) {
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->columns, b->columns);
    assert_int_equal(a->column == NULL, b->column == NULL);
    assert_int_equal(hemi_sparse_count(a), hemi_sparse_count(b));
    if (a->column == NULL) return;
    assert_memory_equal(a->start, b->start, (a->rows + 1) * sizeof *a->start);
    assert_memory_equal(a->column, b->column, hemi_sparse_count(a) * sizeof *a->column);
    for (uint32_t i = 0; i < a->rows; i++)
        for (uint64_t e = a->start[i] + 1; e < a->start[i + 1]; e++) assert_true(a->column[e - 1] < a->column[e]);
}

static void zeros_keep_their_place(void **state) {
    (void)state;
    float w[36], zeros[36] = {0};
    floats(w, 36, 12);
    hemi_circuit *a = import_network(w, 36), *b = import_network(zeros, 36);
    assert_int_equal(a->values, 3);
    assert_int_equal(a->values, b->values);
    for (size_t v = 0; v < a->values; v++) {
        assert_int_equal(a->value[v].a.terms, b->value[v].a.terms);
        assert_int_equal(a->value[v].a.bias == NULL, b->value[v].a.bias == NULL);
        for (size_t t = 0; t < a->value[v].a.terms; t++)
            same_map(&a->value[v].a.term[t].map, &b->value[v].a.term[t].map);
    }
    assert_int_equal(hemi_sparse_count(&a->value[1].a.term[0].map), 2 * 2 * (4 * 4 + 8 * 6 + 4 * 9));
    hemi_circuit_free(a);
    hemi_circuit_free(b);
}

static void what_the_output_does_not_need(void **state) {
    (void)state;
    pb g = graph_of(dims_d, 2);
    const int64_t square[] = {D, D};
    float u[D * D];
    floats(u, D * D, 8);
    graph_floats(&g, "u", square, 2, u);
    graph_op(&g, "Relu", "x", "a");
    graph_node(&g, gemm("a,u", "unused"));
    graph_op(&g, "Tanh", "unused", "b");
    graph_node(&g, gemm("b,u", "unused2"));
    graph_op(&g, "Sigmoid", "x", "c");
    graph_node(&g, gemm("c,u", "y"));
    hemi_circuit *c = import(g, dims_d, 2);
    assert_int_equal(c->values, 3);
    assert_int_equal(last_of(c)->a.term[0].source, 1);
    assert_non_null(strstr(c->value[1].name, "Sigmoid"));
    hemi_circuit_free(c);
}

/* ---- shapes */

static void numbers_that_move(void **state) {
    (void)state;
    const int64_t dims[] = {1, 2, 3, 4}, perm[] = {0, 3, 1, 2};
    static double x[NUMBERS_MAX], y[NUMBERS_MAX];
    numbers(x, NUMBERS_MAX);
    pb g = graph_of(dims, 4), n = new_node("Transpose", "t", "r", "t"); /* Relu stays one function on both sides */
    add_ints(&n, "perm", perm, 4);
    graph_op(&g, "Relu", "x", "r");
    graph_node(&g, n);
    graph_op(&g, "Neg", "t", "u");
    graph_op(&g, "Exp", "u", "y");
    hemi_circuit *c = import(g, dims, 4);
    assert_int_equal(c->values, 3);
    assert_int_equal(last_of(c)->dims[0], 4);
    run(c, x, y);
    for (size_t i = 0; i < 24; i++) near(y[i], exp(-f_relu(x[i % 6 * 4 + i / 6])));
    hemi_circuit_free(c);

    g = graph_of(dims, 4); /* Slice from the end with steps, Gather, Pad, Concat with a constant, Split */
    graph_ints(&g, "starts", (const int64_t[]){INT64_MAX, -2}, 2);
    graph_ints(&g, "ends", (const int64_t[]){INT64_MIN, INT64_MAX}, 2);
    graph_ints(&g, "axes", (const int64_t[]){3, 2}, 2);
    graph_ints(&g, "steps", (const int64_t[]){-2, 1}, 2);
    graph_op(&g, "Slice", "x,starts,ends,axes,steps", "a"); /* 2 x 2 x 2: rows 1, 2, columns 3, 1 */
    graph_ints(&g, "at", (const int64_t[]){-1, 0, 1}, 3);
    n = new_node("Gather", "g", "a,at", "b");
    add_int(&n, "axis", 1);
    graph_node(&g, n); /* 3 x 2 x 2 */
    graph_ints(&g, "pads", (const int64_t[]){0, 0, 0, 1, 0, 0, 0, 0}, 8);
    scalar(&g, "seven", 7);
    graph_op(&g, "Pad", "b,pads,seven", "c"); /* 3 x 2 x 3 */
    const int64_t more[] = {1, 1, 2, 3};
    const float row[] = {1, 2, 3, 4, 5, 6};
    graph_floats(&g, "row", more, 4, row);
    n = new_node("Concat", "c", "c,row", "d");
    add_int(&n, "axis", 1);
    graph_node(&g, n); /* 4 x 2 x 3 */
    n = new_node("Split", "s", "d", "e");
    pb_string(&n, 2, "y");
    add_int(&n, "axis", 1);
    add_ints(&n, "split", (const int64_t[]){1, 3}, 2);
    graph_node(&g, n);
    c = import(g, dims, 4);
    run(c, x, y);
    assert_int_equal(last_of(c)->size, 18);
    for (size_t i = 0; i < 18; i++) {
        const size_t channel = i / 6, u = i / 3 % 2, v = i % 3;
        near(y[i], channel == 2 ? (double)row[i % 6] : v == 0 ? 7 : x[channel * 12 + (1 + u) * 4 + (v == 1 ? 3 : 1)]);
    }
    hemi_circuit_free(c);
}

static void rows_that_are_cut(void **state) {
    (void)state;
    const int64_t dims[] = {1, 5, D};
    pb g = graph_of(dims, 3), n = new_node("Split", "s", "x", "a");
    pb_string(&n, 2, "b");
    add_int(&n, "axis", -1);
    graph_node(&g, n);
    graph_op(&g, "Sigmoid", "b", "c");
    graph_op(&g, "Mul", "a,c", "d");
    n = new_node("Concat", "c", "d,x", "y");
    add_int(&n, "axis", 2);
    graph_node(&g, n);
    hemi_circuit *c = import(g, dims, 3);
    double x[D], y[D + D / 2];
    numbers(x, D);
    run(c, x, y);
    assert_true(c->rows);
    for (size_t i = 0; i < 3; i++) near(y[i], x[i] * f_sigmoid(x[3 + i]));
    for (size_t i = 0; i < D; i++) near(y[3 + i], x[i]);
    hemi_circuit_free(c);
}

/* One number per channel beside a sample, both ways; a matrix at every row. */
static void what_is_repeated(void **state) {
    (void)state;
    const int64_t dims[] = {1, 2, 3}, column[] = {2, 1}, target[] = {1, 2, 3};
    const float v[] = {10, 20};
    static double x[NUMBERS_MAX], y[NUMBERS_MAX];
    numbers(x, NUMBERS_MAX);
    pb g = graph_of(dims, 3), n = new_node("ReduceMean", "n", "x", "m");
    add_ints(&n, "axes", (const int64_t[]){2}, 1);
    graph_node(&g, n);
    graph_floats(&g, "v", column, 2, v);
    graph_ints(&g, "target", target, 3);
    graph_op(&g, "Add", "m,v", "a");
    graph_op(&g, "Expand", "m,target", "b");
    graph_op(&g, "Mul", "a,x", "c");
    graph_op(&g, "Add", "b,c", "y");
    hemi_circuit *c = import(g, dims, 3);
    run(c, x, y);
    for (size_t i = 0; i < 6; i++) {
        const size_t k = i / 3;
        const double mean = (x[3 * k] + x[3 * k + 1] + x[3 * k + 2]) / 3;
        near(y[i], mean + (mean + (double)v[k]) * x[i]);
    }
    hemi_circuit_free(c);
    const int64_t w_dims[] = {2, 4};
    float w[8];
    floats(w, 8, 13);
    g = graph_of(dims, 3);
    graph_floats(&g, "w", w_dims, 2, w);
    n = new_node("Transpose", "t", "x", "t");
    add_ints(&n, "perm", (const int64_t[]){0, 2, 1}, 3);
    graph_node(&g, n);
    graph_op(&g, "MatMul", "t,w", "y"); /* 3 rows of 2 to 3 rows of 4 */
    c = import(g, dims, 3);
    run(c, x, y);
    assert_int_equal(hemi_sparse_count(&last_of(c)->a.term[0].map), 24);
    for (size_t i = 0; i < 12; i++)
        near(y[i], x[i / 4] * (double)w[i % 4] + x[3 + i / 4] * (double)w[4 + i % 4]);
    hemi_circuit_free(c);
}

/* ---- quantisers */

static pb quant(const char *inputs, const char *output, bool is_signed) {
    pb n = new_node("Quant", "/m/Quant", inputs, output);
    pb_string(&n, 7, "onnx.brevitas");
    add_int(&n, "signed", is_signed);
    add_int(&n, "narrow", 1);
    add_string(&n, "rounding_mode", "ROUND");
    return n;
}

static void quantised_weights(void **state) {
    (void)state;
    const int64_t d1[] = {H, D}, per[] = {H, 1};
    float scales[H];
    for (size_t i = 0; i < H; i++) scales[i] = 0.05f + 0.01f * (float)i;
    for (int bits = 0; bits <= 2; bits += 2) { /* already quantised: not rounded once more */
        pb g = graph_of(dims_d, 2);
        floats(w1, H * D, 1);
        graph_floats(&g, "w1", d1, 2, w1);
        graph_floats(&g, "scale", per, 2, scales);
        scalar(&g, "zero", 0);
        scalar(&g, "bits", 4);
        graph_node(&g, quant("w1,scale,zero,bits", "q", true));
        graph_op(&g, "Transpose", "q", "t");
        graph_op(&g, "MatMul", "x,t", "h");
        graph_op(&g, "Relu", "h", "y");
        hemi_circuit *c = import_bits(g, dims_d, 2, bits);
        const hemi_sparse *m = &c->value[1].a.term[0].map;
        for (size_t i = 0; i < H * D; i++) {
            const float s = scales[i / D], q = fminf(fmaxf(nearbyintf(w1[i] / s), -7), 7);
            assert_true(m->weight[i] == q * s);
        }
        hemi_circuit_free(c);
    }
}

static void quantised_values(void **state) {
    (void)state;
    const float per[D] = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f};
    const int64_t vector[] = {D};
    for (int form = 0; form < 5; form++) { /* the input; after Relu; a scale for each; twice used; FLOOR */
        pb g = graph_of(dims_d, 2), n = quant(form == 0 || form == 3 ? "x,scale,zero,bits" : form == 2 ? "x,per,zero,bits" : "r,scale,zero,bits",
                                              form == 3 ? "q" : "y", form == 0 || form >= 2);
        scalar(&g, "scale", 0.25f);
        scalar(&g, "zero", 0);
        scalar(&g, "bits", 3);
        graph_floats(&g, "per", vector, 1, per);
        if (form == 4) {
            free(n.data);
            n = new_node("Quant", "n", "r,scale,zero,bits", "y");
            pb_string(&n, 7, "qonnx.custom_op.general");
            add_string(&n, "rounding_mode", "FLOOR");
        }
        graph_op(&g, form == 4 ? "Identity" : "Relu", "x", "r");
        if (form == 4) {
            free(g.data);
            g = graph_of(dims_d, 2);
            scalar(&g, "scale", 0.25f);
            scalar(&g, "zero", 0);
            scalar(&g, "bits", 3);
            graph_op(&g, "Identity", "x", "r");
        }
        if (form == 0) { /* nothing else may take the input */
            free(g.data);
            g = graph_of(dims_d, 2);
            scalar(&g, "scale", 0.25f);
            scalar(&g, "zero", 0);
            scalar(&g, "bits", 3);
        }
        graph_node(&g, n);
        if (form == 3) graph_op(&g, "Add", "q,x", "y");
        hemi_circuit *c = import(g, dims_d, 2);
        const double x[D] = {-3, -0.31, 0.1, 0.43, 0.7, 3};
        double y[D];
        run(c, x, y);
        assert_int_equal(c->values, form == 0 ? 2 : 3);
        assert_int_equal(c->input_step != 0, form == 0);
        if (form == 0) {
            near(c->input_step, 0.25);
            near(c->input_low, -0.75);
            near(c->input_high, 0.75);
        }
        for (size_t i = 0; i < D; i++) {
            const double s = form == 2 ? (double)per[i] : 0.25, v = form == 1 ? f_relu(x[i]) : x[i];
            const double low = form == 1 ? 0 : form == 4 ? -4 : -3, high = form == 1 ? 6 : 3;
            const double q = s * fmin(fmax(form == 4 ? floor(v / s) : rint(v / s), low), high);
            near(y[i], form == 3 ? q + x[i] : q);
        }
        hemi_circuit_free(c);
    }
}

static void rounded_weights(void **state) {
    (void)state;
    pb g = graph_of(dims_d, 2), n = gemm("x,w1,b1", "h");
    layers(&g);
    add_float(&n, "alpha", 0.5f);
    graph_node(&g, n);
    graph_op(&g, "Relu", "h", "y");
    hemi_circuit *c = import_bits(g, dims_d, 2, 3);
    for (size_t o = 0; o < H; o++) {
        double max = 0;
        for (size_t j = 0; j < D; j++) max = fmax(max, fabs((double)w1[o * D + j]));
        for (size_t j = 0; j < D; j++)
            near((double)c->value[1].a.term[0].map.weight[o * D + j], rint((double)w1[o * D + j] / (max / 3)) * max / 3 / 2);
        assert_true(c->value[1].a.bias[o] == (double)b1[o]);
    }
    hemi_circuit_free(c);
    /* of a transposed convolution, output channels are the second dimension */
    const int64_t dims[] = {1, 2, 1, 1}, kernel[] = {2, 3, 1, 1};
    const float w[] = {1, 0.3f, 2, 0.3f, 10, 0.9f};
    const float rounded[] = {1, 0, 2, 0, 10, 1}; /* in units of the largest of each channel; 2 bits: -1, 0, 1 */
    g = graph_of(dims, 4);
    graph_floats(&g, "w", kernel, 4, w);
    graph_op(&g, "ConvTranspose", "x,w", "y");
    c = import_bits(g, dims, 4, 2);
    for (size_t i = 0; i < 2; i++)
        for (size_t o = 0; o < 3; o++) {
            const float largest[] = {1, 10, 2};
            near((double)c->value[1].a.term[0].map.weight[o * 2 + i],
                 (double)(rounded[i * 3 + o] == 0 ? 0 : largest[o] * (fabsf(w[i * 3 + o]) * 2 > largest[o] ? 1.0f : 0.0f)));
        }
    hemi_circuit_free(c);
}

/* ---- refused */

static void refused_on(pb graph, const int64_t *dims, size_t rank, hemi_status status, const char *text) {
    uint32_t shape[8];
    hemi_circuit *c = NULL;
    hemi_error err = {0};
    for (size_t i = 0; i < rank; i++) shape[i] = (uint32_t)dims[i];
    pb model = model_of(graph, 13);
    const hemi_status got = hemi_circuit_import(&c, model.data, model.size, shape, rank, 0, NULL, NULL, &err);
    free(model.data);
    if (got != status || strstr(err.message, text) == NULL)
        fail_msg("%s \"%s\", not %s with \"%s\"", hemi_status_name(got), err.message, hemi_status_name(status), text);
    assert_null(c);
}

static const int64_t dims_image[] = {1, 2, 4, 4};

static pb one_op(const char *op, const char *inputs) {
    const int64_t vector[] = {4};
    pb g = graph_of(dims_image, 4);
    graph_floats(&g, "v", vector, 1, (const float[]){1, 2, 3, 4});
    graph_floats(&g, "five", (const int64_t[]){5}, 1, (const float[]){1, 2, 3, 4, 5});
    scalar(&g, "c", 2);
    graph_ints(&g, "i", (const int64_t[]){1}, 1);
    graph_op(&g, op, inputs, "y");
    return g;
}

static void refused(const char *op, const char *inputs, hemi_status status, const char *text) {
    refused_on(one_op(op, inputs), dims_image, 4, status, text);
}

static void refusals(void **state) {
    (void)state;
    refused("MaxPool", "x", HEMI_ERR_UNSUPPORTED, "MaxPool (node '/m/MaxPool') compares numbers: use AvgPool");
    refused("Softmax", "x", HEMI_ERR_UNSUPPORTED, "keep it on the client");
    refused("LayerNormalization", "x", HEMI_ERR_UNSUPPORTED, "use BatchNorm");
    refused("Nothing", "x", HEMI_ERR_UNSUPPORTED, "Nothing (node '/m/Nothing') is not supported");
    refused("MatMul", "x,x", HEMI_ERR_UNSUPPORTED, "two computed values");
    refused("MatMul", "v,x", HEMI_ERR_UNSUPPORTED, "on the left");
    refused("Pow", "x,x", HEMI_ERR_UNSUPPORTED, "constant exponent");
    refused("Where", "c,x,x", HEMI_ERR_UNSUPPORTED, "constant condition");
    refused("Add", "c,v", HEMI_ERR_UNSUPPORTED, "two constants");
    refused("Relu", "v", HEMI_ERR_UNSUPPORTED, "of a constant");
    refused("Add", "x,five", HEMI_ERR_SHAPE, "do not fit");
    refused("Gather", "x,x", HEMI_ERR_UNSUPPORTED, "computed");
    refused("Gather", "x,i", HEMI_ERR_UNSUPPORTED, "along the batch");
    refused("Conv", "x,v", HEMI_ERR_SHAPE, "weights of 1 dimensions");
    refused("Conv", "x", HEMI_ERR_FORMAT, "fewer than two inputs");
    refused("Relu", "nothing", HEMI_ERR_FORMAT, "nothing before it gives");
    refused("Relu", "", HEMI_ERR_FORMAT, "has no input");
    refused("Max", "", HEMI_ERR_FORMAT, "list of inputs");
    refused("Identity", "v", HEMI_ERR_UNSUPPORTED, "nothing to run");
    refused("Slice", "x", HEMI_ERR_FORMAT, "bad list");
    refused("ReduceSum", "x", HEMI_ERR_UNSUPPORTED, "mixes samples");
    refused("Clip", "x,v", HEMI_ERR_UNSUPPORTED, "not one constant number");
    refused("Div", "x,zero", HEMI_ERR_FORMAT, "gives");
    pb g = one_op("Identity", "x"), n = new_node("Relu", "n", "x", "z");
    pb_string(&n, 7, "com.example");
    graph_node(&g, n);
    refused_on(g, dims_image, 4, HEMI_ERR_UNSUPPORTED, "Relu (node 'n') is not supported");
    g = one_op("Identity", "x");
    n = new_node("Cast", "n", "x", "z");
    add_int(&n, "to", ONNX_BOOL);
    graph_node(&g, n);
    refused_on(g, dims_image, 4, HEMI_ERR_UNSUPPORTED, "floating-point");
}

static void numbers_that_are_not_finite(void **state) {
    (void)state;
    const float bad[] = {1, INFINITY, NAN, 0};
    for (size_t i = 1; i < 4; i++) {
        pb g = graph_of(dims_d, 2);
        scalar(&g, "s", bad[i]);
        graph_op(&g, i == 3 ? "Div" : "Mul", "x,s", "y");
        refused_on(g, dims_d, 2, HEMI_ERR_FORMAT, "not a finite number");
        g = graph_of(dims_d, 2);
        const float v[D] = {1, 1, bad[i], 1, 1, 1};
        graph_floats(&g, "s", (const int64_t[]){D}, 1, v);
        graph_op(&g, i == 3 ? "Div" : "Mul", "x,s", "y");
        refused_on(g, dims_d, 2, HEMI_ERR_FORMAT, "not all finite");
    }
}

static void hostile_sizes(void **state) {
    (void)state;
    const int64_t big[] = {1, 1 << 20}, huge[] = {1, 4, 1 << 10, 1 << 9};
    pb g = graph_of(huge, 4); /* 2^21 numbers */
    graph_op(&g, "GlobalAveragePool", "x", "y");
    refused_on(g, huge, 4, HEMI_ERR_TOO_LARGE, "2^20");
    g = graph_of(big, 2);
    graph_ints(&g, "shape", (const int64_t[]){1, 1 << 20, 2}, 3);
    graph_ints(&g, "axes", (const int64_t[]){2}, 1);
    graph_op(&g, "Unsqueeze", "x,axes", "u");
    graph_op(&g, "Expand", "u,shape", "y");
    refused_on(g, big, 2, HEMI_ERR_UNSUPPORTED, "more than 2^20");
    g = graph_of(dims_image, 4); /* a kernel that only pads */
    pb n = new_node("AveragePool", "n", "x", "y");
    add_ints(&n, "kernel_shape", (const int64_t[]){65536, 65536}, 2);
    add_ints(&n, "pads", (const int64_t[]){65536, 65536, 65536, 65536}, 4);
    graph_node(&g, n);
    refused_on(g, dims_image, 4, HEMI_ERR_TOO_LARGE, "too large");
    static const int64_t lists[][4] = {{0, 0, 0, -65537}, {0, 0, 0, INT64_MAX}, {INT64_MIN, 0, 0, 0}};
    for (size_t i = 0; i < TEST_COUNT(lists); i++) {
        g = graph_of(dims_image, 4);
        int64_t pads[8] = {0};
        memcpy(pads + 4, lists[i], sizeof lists[i]);
        graph_ints(&g, "p", pads, 8);
        graph_op(&g, "Pad", "x,p", "y");
        refused_on(g, dims_image, 4, HEMI_ERR_FORMAT, "bad pads");
    }
    for (int64_t index = -5; index <= 4; index += 9) {
        g = graph_of(dims_image, 4);
        graph_ints(&g, "i", &index, 1);
        n = new_node("Gather", "n", "x,i", "y");
        add_int(&n, "axis", 3);
        graph_node(&g, n);
        refused_on(g, dims_image, 4, HEMI_ERR_FORMAT, "bad index");
    }
    g = graph_of(dims_image, 4); /* more values than a circuit has */
    char from[16] = "x", to[16], product[16];
    for (int i = 0; i < 200; i++) {
        snprintf(product, sizeof product, "p%d", i);
        snprintf(to, sizeof to, i == 199 ? "y" : "v%d", i);
        n = new_node("ReduceSum", "n", from, product);
        add_ints(&n, "axes", (const int64_t[]){1}, 1);
        graph_node(&g, n);
        char both[40];
        snprintf(both, sizeof both, "%s,%s", from, product);
        graph_op(&g, "Mul", both, to);
        memcpy(from, to, sizeof to);
    }
    hemi_circuit *c = import(g, dims_image, 4);
    assert_int_equal(c->values, 202);
    hemi_circuit_free(c);
    g = graph_of(dims_image, 4);
    memcpy(from, "x", 2);
    for (int i = 0; i < 300; i++) {
        snprintf(product, sizeof product, "p%d", i);
        snprintf(to, sizeof to, i == 299 ? "y" : "v%d", i);
        n = new_node("ReduceSum", "n", from, product);
        add_ints(&n, "axes", (const int64_t[]){1}, 1);
        graph_node(&g, n);
        char both[40];
        snprintf(both, sizeof both, "%s,%s", from, product);
        graph_op(&g, "Mul", both, to);
        memcpy(from, to, sizeof to);
    }
    refused_on(g, dims_image, 4, HEMI_ERR_TOO_LARGE, "256 values");
}

static void bad_quantisers(void **state) {
    (void)state;
    static const struct {
        float scale, zero, bits;
        const char *text;
    } cases[] = {{0, 0, 4, "bad scale"},  {-1, 0, 4, "bad scale"},      {NAN, 0, 4, "bad scale"},
                 {1, 0.5f, 4, "integer"}, {1, 0, 0, "bad bit width"},   {1, 0, 2.5f, "bad bit width"},
                 {1, 0, NAN, "bad bit"},  {1, 0, 1e30f, "bad bit width"}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        pb g = graph_of(dims_d, 2);
        scalar(&g, "scale", cases[i].scale);
        scalar(&g, "zero", cases[i].zero);
        scalar(&g, "bits", cases[i].bits);
        graph_node(&g, quant("x,scale,zero,bits", "y", true));
        const bool format = strncmp(cases[i].text, "bad", 3) == 0;
        refused_on(g, dims_d, 2, format ? HEMI_ERR_FORMAT : HEMI_ERR_UNSUPPORTED, cases[i].text);
    }
}

/* ---- whether there is need of a circuit */

static bool needed(pb graph) {
    pb model = model_of(graph, 13);
    const bool is = hemi_circuit_is_needed(model.data, model.size);
    free(model.data);
    return is;
}

static void need_of_a_circuit(void **state) {
    (void)state;
    pb g = graph_of(dims_d, 2);
    layers(&g);
    graph_op(&g, "Transpose", "w1", "t");
    graph_op(&g, "MatMul", "x,t", "h");
    graph_op(&g, "Add", "h,b1", "i");
    graph_op(&g, "Mul", "i,b1", "j");
    graph_op(&g, "Div", "j,b1", "y");
    assert_false(needed(g));
    static const char *const yes[][2] = {{"Relu", "x"},   {"Mul", "x,x"},  {"Div", "c,x"},   {"Slice", "x"},
                                         {"MatMul", "x,x"}, {"MaxPool", "x"}, {"Gather", "x,c"}, {"Unknown", "x"}};
    for (size_t i = 0; i < TEST_COUNT(yes); i++) assert_true(needed(one_op(yes[i][0], yes[i][1])));
    static const char *const no[][2] = {{"Mul", "x,c"}, {"Conv", "x,v"}, {"Shape", "x"}, {"AveragePool", "x"}, {"Add", "x,x"}};
    for (size_t i = 0; i < TEST_COUNT(no); i++) assert_false(needed(one_op(no[i][0], no[i][1])));
    g = one_op("Identity", "x");
    graph_op(&g, "Shape", "x", "s"); /* integers of a shape are no reason */
    graph_op(&g, "Gather", "s,i", "t");
    assert_false(needed(g));
    g = graph_of(dims_d, 2);
    layers(&g);
    graph_node(&g, quant("w1,c,c,c", "q", true));
    graph_node(&g, gemm("x,q", "y"));
    assert_true(needed(g));
    assert_false(hemi_circuit_is_needed("PK", 2));
    assert_false(hemi_circuit_is_needed("", 0));
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(univariate),
        cmocka_unit_test(fused),
        cmocka_unit_test(chains_longer_than_a_function),
        cmocka_unit_test(true_and_false),
        cmocka_unit_test(linear_relu_linear),
        cmocka_unit_test(linear_after_linear),
        cmocka_unit_test(residuals),
        cmocka_unit_test(products),
        cmocka_unit_test(slopes_of_channels),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(averages),
        cmocka_unit_test(zeros_keep_their_place),
        cmocka_unit_test(what_the_output_does_not_need),
        cmocka_unit_test(numbers_that_move),
        cmocka_unit_test(rows_that_are_cut),
        cmocka_unit_test(what_is_repeated),
        cmocka_unit_test(quantised_weights),
        cmocka_unit_test(quantised_values),
        cmocka_unit_test(rounded_weights),
        cmocka_unit_test(refusals),
        cmocka_unit_test(numbers_that_are_not_finite),
        cmocka_unit_test(hostile_sizes),
        cmocka_unit_test(bad_quantisers),
        cmocka_unit_test(need_of_a_circuit),
    };
    return TEST_RUN("circuit_import", tests);
}
