/* Small circuits for tests: dense maps with random weights. */
#ifndef HEMI_TEST_CIRCUIT_H
#define HEMI_TEST_CIRCUIT_H

#include "test.h"

#include "base/memory.h"
#include "circuit/graph.h"

#define TEST_F0(name)    ((hemi_function){1, {{HEMI_FUNCTION_##name, 0, 0, {0}}}})
#define TEST_F(name, ...) ((hemi_function){1, {{HEMI_FUNCTION_##name, 0, 0, {__VA_ARGS__}}}})

#define assert_near(x, y, tolerance)                                                                        \
    do {                                                                                                    \
        const double test_x_ = (x), test_y_ = (y);                                                          \
        if (!(fabs(test_x_ - test_y_) <= (tolerance))) fail_msg("%.17g is not near %.17g", test_x_, test_y_); \
    } while (0)

TEST_UNUSED static hemi_circuit *test_circuit_new(uint32_t inputs) {
    hemi_circuit *c = hemi_alloc(1, sizeof *c);
    assert_non_null(c);
    c->value = hemi_alloc(HEMI_CIRCUIT_VALUES_MAX, sizeof *c->value);
    assert_non_null(c->value);
    c->values = 1;
    c->value[0] = (hemi_circuit_value){.kind = HEMI_CIRCUIT_INPUT, .name = "input", .size = inputs, .rank = 1, .dims = {inputs}};
    return c;
}

/* Another value; its maps follow by test_circuit_dense and so on. */
TEST_UNUSED static uint32_t test_circuit_value(hemi_circuit *c, hemi_circuit_kind kind, uint32_t size, const char *name) {
    assert_true(c->values < HEMI_CIRCUIT_VALUES_MAX);
    hemi_circuit_value *v = &c->value[c->values];
    *v = (hemi_circuit_value){.kind = kind, .size = size, .rank = 1, .dims = {size}};
    snprintf(v->name, sizeof v->name, "%s", name);
    return (uint32_t)c->values++;
}

TEST_UNUSED static hemi_sparse *test_circuit_term(hemi_circuit_affine *a, uint32_t source, uint32_t rows, uint32_t columns) {
    hemi_circuit_term *term = hemi_alloc(a->terms + 1, sizeof *term);
    assert_non_null(term);
    for (size_t t = 0; t < a->terms; t++) term[t] = a->term[t];
    hemi_free(a->term);
    a->term = term;
    term[a->terms].source = source;
    hemi_sparse *map = &term[a->terms++].map;
    map->rows = rows;
    map->columns = columns;
    return map;
}

/* Weights of variance gain^2 / columns, biases of variance bias^2 (0: none). */
TEST_UNUSED static void test_circuit_dense(hemi_circuit *c, hemi_circuit_affine *a, uint32_t source, uint32_t rows, double gain, double bias,
                                           test_rng *rng) {
    const uint32_t columns = c->value[source].size;
    hemi_sparse *m = test_circuit_term(a, source, rows, columns);
    m->weight = hemi_alloc((size_t)rows * columns, sizeof *m->weight);
    assert_non_null(m->weight);
    for (size_t i = 0; i < (size_t)rows * columns; i++) m->weight[i] = (float)(gain / sqrt(columns) * test_normal(rng));
    if (bias == 0) return;
    a->bias = hemi_alloc(rows, sizeof *a->bias);
    assert_non_null(a->bias);
    for (size_t i = 0; i < rows; i++) a->bias[i] = bias * test_normal(rng);
}

/* weight times the identity, sparse. */
TEST_UNUSED static void test_circuit_identity(hemi_circuit *c, hemi_circuit_affine *a, uint32_t source, double weight) {
    const uint32_t size = c->value[source].size;
    hemi_sparse *m = test_circuit_term(a, source, size, size);
    m->start = hemi_alloc((size_t)size + 1, sizeof *m->start);
    m->column = hemi_alloc(size, sizeof *m->column);
    m->weight = hemi_alloc(size, sizeof *m->weight);
    assert_true(m->start != NULL && m->column != NULL && m->weight != NULL);
    for (uint32_t i = 0; i < size; i++) {
        m->start[i + 1] = i + 1;
        m->column[i] = i;
        m->weight[i] = (float)weight;
    }
}

/* f(W value[source] + bias), and its number. */
TEST_UNUSED static uint32_t test_circuit_function(hemi_circuit *c, uint32_t source, uint32_t size, hemi_function f, double gain,
                                                  const char *name, test_rng *rng) {
    const uint32_t i = test_circuit_value(c, HEMI_CIRCUIT_FUNCTION, size, name);
    c->value[i].function = f;
    test_circuit_dense(c, &c->value[i].a, source, size, gain, 0.3, rng);
    return i;
}

TEST_UNUSED static void test_circuit_output(hemi_circuit *c, uint32_t source, uint32_t size, test_rng *rng) {
    const uint32_t i = test_circuit_value(c, HEMI_CIRCUIT_AFFINE, size, "output");
    test_circuit_dense(c, &c->value[i].a, source, size, 1, 0.3, rng);
}

TEST_UNUSED static float *test_samples(size_t samples, size_t size, test_rng *rng) {
    float *x = hemi_alloc(samples * size, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < samples * size; i++) x[i] = (float)test_normal(rng);
    return x;
}

#endif
