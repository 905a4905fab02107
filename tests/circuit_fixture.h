/* Circuits made of graphs by hand, and what they give. */
#ifndef HEMI_TEST_CIRCUIT_FIXTURE_H
#define HEMI_TEST_CIRCUIT_FIXTURE_H

#include "onnx_fixture.h"

#include "base/memory.h"
#include "model/circuit_import.h"

#define NUMBERS_MAX 4096

TEST_UNUSED static pb graph_of(const int64_t *dims, size_t rank) {
    pb g = {0};
    graph_input(&g, "x", dims, rank);
    graph_output(&g, "y");
    return g;
}

/* The graph, which is taken, on data of its input's shape. */
TEST_UNUSED static hemi_circuit *import_bits(pb graph, const int64_t *dims, size_t rank, int bits) {
    uint32_t shape[8];
    hemi_circuit *c = NULL;
    hemi_error err = {0};
    for (size_t i = 0; i < rank; i++) shape[i] = (uint32_t)dims[i];
    pb model = model_of(graph, 13);
    assert_ok(hemi_circuit_import(&c, model.data, model.size, shape, rank, bits, NULL, NULL, &err), &err);
    free(model.data);
    return c;
}

TEST_UNUSED static hemi_circuit *import(pb graph, const int64_t *dims, size_t rank) {
    return import_bits(graph, dims, rank, 0);
}

TEST_UNUSED static void run(const hemi_circuit *c, const double *x, double *y) {
    hemi_error err = {0};
    assert_ok(hemi_circuit_run(c, x, y, false, &err), &err);
}

TEST_UNUSED static void numbers(double *x, size_t count) {
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < count; i++) x[i] = (double)(float)(2 * test_real(&rng));
}

TEST_UNUSED static void floats(float *w, size_t count, uint64_t seed) {
    test_rng rng = {seed};
    for (size_t i = 0; i < count; i++) w[i] = (float)test_real(&rng);
}

TEST_UNUSED static void near(double got, double wanted) {
    if (!(fabs(got - wanted) <= 1e-5 * (1 + fabs(wanted)))) fail_msg("%.9g, not %.9g", got, wanted);
}

TEST_UNUSED static const hemi_circuit_value *last_of(const hemi_circuit *c) { return &c->value[c->values - 1]; }

/* Values of a kind. */
TEST_UNUSED static size_t count_kind(const hemi_circuit *c, hemi_circuit_kind kind) {
    size_t count = 0;
    for (size_t i = 0; i < c->values; i++) count += c->value[i].kind == kind;
    return count;
}

#define D 6
TEST_UNUSED static const int64_t dims_d[] = {1, D};

TEST_UNUSED static void scalar(pb *g, const char *name, float v) { graph_floats(g, name, NULL, 0, &v); }

TEST_UNUSED static double f_sigmoid(double x) { return 1 / (1 + exp(-x)); }
TEST_UNUSED static double f_relu(double x) { return x > 0 ? x : 0; }

#define H 8
#define M 3
TEST_UNUSED static float w1[H * D], w2[M * H], b1[H], b2[M];

TEST_UNUSED static void layers(pb *g) {
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

TEST_UNUSED static pb gemm(const char *inputs, const char *output) {
    pb n = new_node("Gemm", "/m/Gemm", inputs, output);
    add_int(&n, "transB", 1);
    return n;
}

TEST_UNUSED static void matrix(double *y, const float *w, const float *b, size_t rows, size_t columns,
                               const double *x) {
    for (size_t i = 0; i < rows; i++) {
        y[i] = b != NULL ? (double)b[i] : 0;
        for (size_t j = 0; j < columns; j++) y[i] += (double)w[i * columns + j] * x[j];
    }
}

TEST_UNUSED static void refused_on(pb graph, const int64_t *dims, size_t rank, hemi_status status, const char *text) {
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

TEST_UNUSED static pb quant(const char *inputs, const char *output, bool is_signed) {
    pb n = new_node("Quant", "/m/Quant", inputs, output);
    pb_string(&n, 7, "onnx.brevitas");
    add_int(&n, "signed", is_signed);
    add_int(&n, "narrow", 1);
    add_string(&n, "rounding_mode", "ROUND");
    return n;
}

#endif
