/* For tests of files: a compiled circuit of every kind. Include after client_fixture.h. */
#ifndef HEMI_TESTS_CIRCUIT_KINDS_H
#define HEMI_TESTS_CIRCUIT_KINDS_H

#include "circuit.h"

#include "model/circuit_module.h"

#define KIND_SAMPLES 24

typedef enum kind { KIND_FUNCTION, KIND_PRODUCT, KIND_RESIDUAL, KIND_CONV, KIND_COPIES, KIND_QUANTISER, KIND_ROWS, KIND_STEPS, KINDS } kind;
static const char *const kind_names[KINDS] = {"function", "product", "residual", "convolutions", "copies", "quantiser", "rows", "steps"};

/* A convolution 3 x 3, padding 1, of value `source`, side x side, to `channels` of side / stride; sparse. */
TEST_UNUSED static void kind_conv(hemi_circuit *c, hemi_circuit_value *v, uint32_t source, uint32_t channels, uint32_t stride, test_rng *rng) {
    const uint32_t in = c->value[source].dims[0], side = c->value[source].dims[1], out = side / stride;
    v->rank = 3;
    v->dims[0] = channels, v->dims[1] = v->dims[2] = out;
    v->size = channels * out * out;
    hemi_sparse *m = test_circuit_term(&v->a, source, v->size, c->value[source].size);
    m->start = hemi_alloc((size_t)v->size + 1, sizeof *m->start);
    m->column = hemi_alloc((size_t)v->size * in * 9, sizeof *m->column);
    m->weight = hemi_alloc((size_t)v->size * in * 9, sizeof *m->weight);
    assert_true(m->start != NULL && m->column != NULL && m->weight != NULL);
    uint64_t n = 0;
    for (uint32_t o = 0; o < v->size; o++) {
        for (uint32_t k = 0; k < in * 9; k++) {
            const uint32_t y = o / out % out * stride + k / 3 % 3 - 1, x = o % out * stride + k % 3 - 1; /* below 0 wraps around */
            if (y >= side || x >= side) continue;
            m->column[n] = (k / 9 * side + y) * side + x;
            m->weight[n++] = (float)(test_normal(rng) / sqrt(9.0 * in));
        }
        m->start[o + 1] = n;
    }
}

TEST_UNUSED static hemi_circuit *kind_circuit(kind k, hemi_compile_options *o, test_rng *rng) {
    hemi_circuit *c = test_circuit_new(k == KIND_CONV ? 64 : 6);
    uint32_t last = 0;
    c->rows = k != KIND_CONV;
    if (k == KIND_PRODUCT) {
        last = test_circuit_value(c, HEMI_CIRCUIT_PRODUCT, 5, "Mul (node 'gate')");
        test_circuit_dense(c, &c->value[last].a, 0, 5, 1, 0.2, rng);
        test_circuit_dense(c, &c->value[last].b, 0, 5, 1, 0, rng);
    } else if (k == KIND_CONV) {
        c->value[0].rank = 3;
        c->value[0].dims[0] = 1, c->value[0].dims[1] = c->value[0].dims[2] = 8;
        for (uint32_t i = 0; i < 2; i++) {
            last = test_circuit_value(c, HEMI_CIRCUIT_FUNCTION, 1, "Square");
            c->value[last].function = TEST_F0(SQUARE);
            kind_conv(c, &c->value[last], last - 1, 3, 2, rng);
        }
    } else if (k == KIND_STEPS) {
        const hemi_function swish = {3, {{HEMI_FUNCTION_AFFINE, 0, 0, {1, 0.5}}, {HEMI_FUNCTION_SIGMOID, 1, 0, {0}}, {HEMI_FUNCTION_TIMES, 0, 2, {0}}}};
        last = test_circuit_function(c, 0, 7, swish, 1, "Mul (node 'swish')", rng);
    } else {
        last = test_circuit_function(c, 0, 7, TEST_F0(SQUARE), 1, "Pow (node '/1/Pow')", rng);
    }
    test_circuit_output(c, last, k == KIND_RESIDUAL ? 6 : 3, rng);
    if (k == KIND_RESIDUAL) { /* the input comes first: sources increase */
        hemi_circuit_affine *a = &c->value[c->values - 1].a;
        test_circuit_identity(c, a, 0, 0.5);
        const hemi_circuit_term swap = a->term[0];
        a->term[0] = a->term[1];
        a->term[1] = swap;
    }
    if (k == KIND_QUANTISER) {
        c->input_step = 0.125;
        c->input_low = -2;
        c->input_high = 1.875;
    }
    if (k == KIND_COPIES || k == KIND_CONV) o->rows = 1;
    if (k == KIND_ROWS) o->rows = 4;
    return c;
}

TEST_UNUSED static hemi_module *kind_module(kind k) {
    test_rng rng = {(uint64_t)k + 1};
    hemi_compile_options o = {.tolerance = 0.05};
    hemi_circuit *c = kind_circuit(k, &o, &rng);
    const uint32_t flat[] = {KIND_SAMPLES, 6}, image[] = {KIND_SAMPLES, 1, 8, 8};
    float *x = test_samples(KIND_SAMPLES, c->value[0].size, &rng);
    hemi_module *m = NULL;
    ASSERT_OK(hemi_module_from_circuit(&m, c, x, k == KIND_CONV ? image : flat, k == KIND_CONV ? 4 : 2, &o, ERR));
    hemi_free(x);
    return m;
}

#endif
