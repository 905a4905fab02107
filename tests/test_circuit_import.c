/* ONNX to circuits: functions and what is fused, rows, refusals, hostile graphs. Bytes are in test_protobuf.c. */
#include "circuit_fixture.h"

/* ---- univariate */

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

/* ---- refused */

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

static pb many_products(int count) {
    pb g = graph_of(dims_image, 4);
    char from[16] = "x", to[16], product[16], both[40];
    for (int i = 0; i < count; i++) {
        snprintf(product, sizeof product, "p%d", i);
        snprintf(to, sizeof to, i + 1 == count ? "y" : "v%d", i);
        snprintf(both, sizeof both, "%s,%s", from, product);
        pb n = new_node("ReduceSum", "n", from, product);
        add_ints(&n, "axes", (const int64_t[]){1}, 1);
        graph_node(&g, n);
        graph_op(&g, "Mul", both, to);
        memcpy(from, to, sizeof to);
    }
    return g;
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
    hemi_circuit *c = import(many_products(200), dims_image, 4);
    assert_int_equal(c->values, 202);
    hemi_circuit_free(c);
    refused_on(many_products(300), dims_image, 4, HEMI_ERR_TOO_LARGE, "256 values");
}

static void bad_quantisers(void **state) {
    (void)state;
    static const struct {
        float scale, zero, bits;
        const char *text;
    } cases[] = {{0, 0, 4, "bad scale"},  {-1, 0, 4, "bad scale"},       {NAN, 0, 4, "bad scale"},
                 {1, 0.5f, 4, "integer"}, {1, 0, 0, "bad bit width"},    {1, 0, 2.5f, "bad bit width"},
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
    static const char *const yes[][2] = {{"Relu", "x"},     {"Mul", "x,x"},   {"Div", "c,x"},    {"Slice", "x"},
                                         {"MatMul", "x,x"}, {"MaxPool", "x"}, {"Gather", "x,c"}, {"Unknown", "x"}};
    for (size_t i = 0; i < TEST_COUNT(yes); i++) assert_true(needed(one_op(yes[i][0], yes[i][1])));
    static const char *const no[][2] = {
        {"Mul", "x,c"}, {"Conv", "x,v"}, {"Shape", "x"}, {"AveragePool", "x"}, {"Add", "x,x"}};
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
        cmocka_unit_test(refusals),
        cmocka_unit_test(numbers_that_are_not_finite),
        cmocka_unit_test(hostile_sizes),
        cmocka_unit_test(bad_quantisers),
        cmocka_unit_test(need_of_a_circuit),
    };
    return TEST_RUN("circuit_import", tests);
}
