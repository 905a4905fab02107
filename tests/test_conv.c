/* Modules made from a convolution in memory, against the sum written out; what is refused. */
#include "test.h"

#include "hemi/model.h"

static uint32_t one_if_zero(uint32_t v) { return v == 0 ? 1 : v; }

/* One output number of a sample, by the definition. */
static double by_definition(const hemi_conv *c, const float *w, const float *x, uint32_t o, size_t i, size_t j) {
    const size_t groups = one_if_zero(c->groups), in = c->in_channels / groups,
                 first = o / (c->out_channels / groups) * in;
    double sum = 0;
    for (size_t ch = 0; ch < in; ch++)
        for (size_t ky = 0; ky < c->kernel[0]; ky++)
            for (size_t kx = 0; kx < c->kernel[1]; kx++) {
                const int64_t y =
                    (int64_t)(i * one_if_zero(c->stride[0]) + ky * one_if_zero(c->dilation[0])) - c->padding[0];
                const int64_t z =
                    (int64_t)(j * one_if_zero(c->stride[1]) + kx * one_if_zero(c->dilation[1])) - c->padding[1];
                if (y < 0 || z < 0 || y >= c->height || z >= c->width) continue;
                sum += (double)w[((o * in + ch) * c->kernel[0] + ky) * c->kernel[1] + kx] *
                       (double)x[((first + ch) * c->height + (size_t)y) * c->width + (size_t)z];
            }
    return sum;
}

static void fill(test_rng *rng, float *v, size_t count, size_t span) {
    for (size_t i = 0; i < count; i++) v[i] = (float)test_below(rng, 2 * span + 1) - (float)span;
}

/* Small whole numbers: 4 bits hold the weights of a convolution exactly. A matrix of the sample has rows of its own, which end at the border: more bits,
 * and half a step of each weight. */
static void check_conv(test_rng *rng, const hemi_conv *c, const char *operation, int bits) {
    uint32_t sides[2];
    assert_true(hemi_conv_sides(c, sides));
    const size_t inputs = (size_t)c->in_channels * c->height * c->width, area = (size_t)sides[0] * sides[1],
                 outputs = c->out_channels * area, samples = 2;
    const size_t weights =
        (size_t)c->out_channels * (c->in_channels / one_if_zero(c->groups)) * c->kernel[0] * c->kernel[1];
    float *w = malloc(weights * sizeof *w), *x = malloc(samples * inputs * sizeof *x),
          *y = malloc(samples * outputs * sizeof *y);
    float *bias = malloc(c->out_channels * sizeof *bias);
    fill(rng, w, weights, 7); /* the largest of 4 bits, in every channel: steps of 1 */
    for (size_t o = 0; o < c->out_channels; o++) w[o * (weights / c->out_channels)] = 7;
    fill(rng, bias, c->out_channels, 50);
    fill(rng, x, samples * inputs, 127);
    x[0] = x[inputs] = 127;
    const hemi_compile_options options = {.weight_bits = bits, .input_bits = 8};
    const double tolerance = 1e-3 + (bits == 4 ? 0 : 127 * 7.0 / exp2(bits) * (double)(weights / c->out_channels));
    hemi_module *module;
    hemi_module_info info;
    hemi_error err = {0};
    assert_ok(hemi_module_from_conv(&module, w, bias, c, x, (uint32_t)samples, &options, &err), &err);
    hemi_module_get_info(module, &info);
    if (operation) assert_string_equal(info.operation, operation);
    assert_int_equal(info.inputs, inputs);
    assert_int_equal(info.outputs, outputs);
    const uint32_t in_shape[] = {1, c->in_channels, c->height, c->width},
                   out_shape[] = {1, c->out_channels, sides[0], sides[1]};
    assert_int_equal(info.shape_rank, 4);
    assert_int_equal(info.output_rank, 4);
    assert_memory_equal(info.shape, in_shape, sizeof in_shape);
    assert_memory_equal(info.output_shape, out_shape, sizeof out_shape);
    assert_ok(hemi_module_run_clear(module, x, samples, y, false, &err), &err);
    for (size_t s = 0; s < samples; s++)
        for (size_t k = 0; k < outputs; k++) {
            const size_t o = k / area;
            const double expected =
                (double)bias[o] + by_definition(c, w, x + s * inputs, (uint32_t)o, k % area / sides[1], k % sides[1]);
            if (!(fabs((double)y[s * outputs + k] - expected) <= tolerance))
                fail_msg("sample %zu, output %zu: %g, not %g", s, k, (double)y[s * outputs + k], expected);
        }
    hemi_module_free(module);
    free(w);
    free(x);
    free(y);
    free(bias);
}

static void chosen_convolutions(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static const hemi_conv list[] = {
        {8, 6, 1, 6, 7, {3, 3}, {1, 1}, {1, 1}, {1, 1}},    {3, 8, 0, 16, 16, {7, 7}, {2, 2}, {0, 0}, {3, 3}},
        {12, 12, 12, 9, 8, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, {4, 4, 2, 10, 11, {3, 2}, {2, 1}, {2, 3}, {2, 0}},
        {16, 8, 1, 5, 5, {1, 1}, {0, 0}, {0, 0}, {0, 0}},
    };
    for (size_t i = 0; i < TEST_COUNT(list); i++) check_conv(&rng, &list[i], "conv", 4);
    const hemi_conv whole = {6, 4, 1, 3, 3, {3, 3}, {1, 1}, {1, 1}, {0, 0}}; /* all of the sample: one position */
    check_conv(&rng, &whole, NULL, 4);
}

static uint32_t pick(test_rng *rng, uint32_t from, uint32_t to) {
    return from + (uint32_t)test_below(rng, to - from + 1);
}

static void random_convolutions(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < test_repeat(40);) {
        const uint32_t groups = pick(&rng, 1, 3);
        hemi_conv c = {.in_channels = groups * pick(&rng, 1, 3),
                       .out_channels = groups * pick(&rng, 1, 3),
                       .groups = groups,
                       .height = pick(&rng, 2, 9),
                       .width = pick(&rng, 2, 9)};
        for (size_t a = 0; a < 2; a++) {
            c.kernel[a] = pick(&rng, 1, 4);
            c.stride[a] = pick(&rng, 0, 3);
            c.dilation[a] = pick(&rng, 0, 2);
            c.padding[a] = pick(&rng, 0, 2);
        }
        uint32_t sides[2];
        if (!hemi_conv_sides(&c, sides)) continue;
        check_conv(&rng, &c, NULL, 14);
        i++;
    }
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        hemi_conv conv;
        hemi_status status;
    } cases[] = {
        {{4, 4, 3, 8, 8, {3, 3}, {1, 1}, {1, 1}, {0, 0}}, HEMI_ERR_SHAPE},          /* groups */
        {{4, 4, 1, 2, 8, {3, 3}, {1, 1}, {1, 1}, {0, 0}}, HEMI_ERR_SHAPE},          /* window */
        {{4, 4, 1, 8, 8, {3, 3}, {1, 1}, {4, 4}, {0, 0}}, HEMI_ERR_SHAPE},          /* dilated window */
        {{4, 4, 1, 8, 8, {0, 3}, {1, 1}, {1, 1}, {0, 0}}, HEMI_ERR_SHAPE},          /* no window */
        {{0, 4, 1, 8, 8, {3, 3}, {1, 1}, {1, 1}, {0, 0}}, HEMI_ERR_SHAPE},          /* no channels */
        {{4, 4, 1, 8, 8, {3, 3}, {70000, 1}, {1, 1}, {0, 0}}, HEMI_ERR_SHAPE},      /* stride */
        {{4, 4, 1, 8, 8, {3, 3}, {1, 1}, {1, 1}, {UINT32_MAX, 0}}, HEMI_ERR_SHAPE}, /* padding */
        {{60000, 60000, 1, 1, 1, {1, 1}, {1, 1}, {1, 1}, {0, 0}}, HEMI_ERR_UNSUPPORTED},
    };
    const float zeros[2000] = {0};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        hemi_module *module;
        hemi_error err = {0};
        assert_int_equal(hemi_module_from_conv(&module, zeros, NULL, &cases[i].conv, NULL, 1, NULL, &err),
                         cases[i].status);
        assert_null(module);
        assert_true(err.message[0] != 0);
    }
    hemi_module *module;
    const hemi_conv good = {4, 4, 1, 8, 8, {3, 3}, {1, 1}, {1, 1}, {0, 0}};
    assert_int_equal(hemi_module_from_conv(&module, NULL, NULL, &good, NULL, 1, NULL, NULL), HEMI_ERR_ARGUMENT);
    assert_null(module);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(chosen_convolutions),
    cmocka_unit_test(random_convolutions),
    cmocka_unit_test(refusals),
};

int main(void) { return TEST_RUN("conv", tests); }
