/* Quantisation, the plan of precision, compilation, the product in the clear. */
#include "onnx_fixture.h"

#include "base/memory.h"
#include "model/module.h"
#include "model/plan.h"
#include "model/quantise.h"
#include "rlwe/noise.h"
#include "wire/wire.h"

/* ---- helpers */

typedef struct layer {
    uint32_t inputs, outputs, rows;
    float *w, *b, *x;
} layer;

/* Gaussian weights, biases and inputs. */
static layer layer_new(uint32_t inputs, uint32_t outputs, uint32_t rows, uint64_t seed) {
    layer l = {.inputs = inputs, .outputs = outputs, .rows = rows};
    test_rng rng = {seed};
    l.w = hemi_alloc((size_t)inputs * outputs, sizeof *l.w);
    l.b = hemi_alloc(outputs, sizeof *l.b);
    l.x = hemi_alloc((size_t)rows * inputs, sizeof *l.x);
    assert_true(l.w != NULL && l.b != NULL && l.x != NULL);
    for (size_t i = 0; i < (size_t)inputs * outputs; i++) l.w[i] = (float)(0.05 * test_normal(&rng));
    for (size_t i = 0; i < outputs; i++) l.b[i] = (float)test_normal(&rng);
    for (size_t i = 0; i < (size_t)rows * inputs; i++) l.x[i] = (float)(2 * test_normal(&rng));
    return l;
}

static void layer_free(layer *l) {
    hemi_free(l->w);
    hemi_free(l->b);
    hemi_free(l->x);
}

static hemi_module *compile(const layer *l, bool bias, const hemi_compile_options *options) {
    const uint32_t shape[] = {l->rows, l->inputs};
    hemi_module *m = NULL;
    hemi_error err = {0};
    assert_ok(
        hemi_module_from_linear(&m, l->w, bias ? l->b : NULL, l->outputs, l->inputs, l->x, shape, 2, options, &err),
        &err);
    return m;
}

static double exact(const layer *l, bool bias, const float *x, size_t o) {
    double y = bias ? (double)l->b[o] : 0;
    for (size_t j = 0; j < l->inputs; j++) y += (double)l->w[o * l->inputs + j] * (double)x[j];
    return y;
}

static bool on_grid(double x) {
    const double k = HEMI_GRID_STEPS * log2(x);
    return fabs(k - rint(k)) < 1e-9;
}

/* ---- quantisation */

static void every_channel_keeps_its_bits(void **state) {
    (void)state;
    for (int bits = 2; bits <= 16; bits++) {
        layer l = layer_new(50, 40, 1, 3);
        for (size_t o = 0; o < l.outputs; o++) /* channels that differ by up to 8, less than the guard */
            for (size_t j = 0; j < l.inputs; j++) l.w[o * l.inputs + j] *= (float)exp2(3.0 * (double)o / 40);
        const hemi_affine map = {.inputs = 50, .outputs = 40, .taps = 1, .weight = l.w};
        hemi_weight_range range;
        hemi_error err = {0};
        assert_ok(hemi_weight_range_of(&range, &map, &err), &err);
        const double s = hemi_weight_scale(&map, &range, bits), steps = (1 << (bits - 1)) - 1;
        assert_true(on_grid(s));
        int16_t w[50 * 40];
        hemi_weight_sums sums;
        hemi_weight_quantise(&sums, w, &map, s, s, 100, NULL, 1);
        const bool int16_limits = range.max / 32767 > range.min_channel_max / steps * 0.9;
        for (size_t o = 0; o < l.outputs; o++) {
            double largest = 0;
            for (size_t j = 0; j < l.inputs; j++) largest = fmax(largest, fabs((double)l.w[o * l.inputs + j]));
            if (!int16_limits) assert_true(s <= largest / steps * (1 + 1e-12));
            for (size_t j = 0; j < l.inputs; j++)
                assert_true(fabs((double)l.w[o * l.inputs + j] - s * w[o * l.inputs + j]) <= s / 2 * (1 + 1e-9));
        }
        assert_true(sums.largest <= 32767);
        layer_free(&l);
    }
}

static void guard_bits_are_limited(void **state) {
    (void)state;
    layer l = layer_new(30, 20, 1, 4);
    for (size_t j = 0; j < l.inputs; j++) l.w[j] *= 1e-6f; /* one channel is tiny */
    for (size_t j = 0; j < l.inputs; j++) l.w[l.inputs + j] = 0;
    hemi_module *m = compile(&l, false, &(hemi_compile_options){.weight_bits = 8});
    assert_true(m->weight_max <= 127 * 16 * 1.1);
    assert_true(m->weight_max >= 127 * 16);
    for (size_t j = 0; j < 2 * l.inputs; j++) assert_int_equal(m->weights[j], 0);
    hemi_module_free(m);
    layer_free(&l);
}

static void trained_grids_lose_nothing(void **state) {
    (void)state;
    layer l = layer_new(64, 16, 4, 5);
    test_rng rng = test_rng_new();
    const float step = 0.0037f;
    for (size_t o = 0; o < l.outputs; o++)
        for (size_t j = 0; j < l.inputs; j++) {
            const int v = j == 0 ? 127 : (int)test_below(&rng, 255) - 127;
            l.w[o * l.inputs + j] = (float)v * step;
        }
    hemi_module *m = compile(&l, false, &(hemi_compile_options){.weight_bits = 8});
    for (size_t i = 0; i < (size_t)l.inputs * l.outputs; i++)
        assert_int_equal(m->weights[i], lrint((double)(l.w[i] / step)));
    assert_true(fabs(m->info.output_scale / m->info.input_scale / (double)step - 1) < 1e-6);
    hemi_module_free(m);
    layer_free(&l);
}

/* The smallest channel's largest weight would be visible in output_scale / input_scale if that were not coarse. */
static void scales_say_little(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        layer l = layer_new(1 + (uint32_t)seed, 5, 2, seed + 100);
        hemi_module *m = compile(&l, true, NULL);
        assert_true(on_grid(m->info.output_scale / m->info.input_scale));
        const double k = ceil(HEMI_GRID_STEPS * log2((double)m->info.delta) - 1e-9);
        assert_true(floor(exp2(k / HEMI_GRID_STEPS)) == (double)m->info.delta);
        hemi_module_free(m);
        layer_free(&l);
    }
}

static void zero_weights(void **state) {
    (void)state;
    layer l = layer_new(8, 3, 2, 6);
    memset(l.w, 0, (size_t)l.inputs * l.outputs * sizeof *l.w);
    float y[6];
    hemi_error err = {0};
    for (int bias = 0; bias < 2; bias++) {
        hemi_module *m = compile(&l, bias, NULL);
        assert_ok(hemi_module_run_clear(m, l.x, 2, y, false, &err), &err);
        for (size_t i = 0; i < 6; i++) assert_true(fabs((double)(y[i] - (bias ? l.b[i % 3] : 0))) < 1e-6);
        hemi_module_free(m);
    }
    layer_free(&l);
}

static void bad_numbers_are_refused(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const uint32_t shape[] = {2, 8};
    hemi_error err;
    hemi_module *m = NULL;
    for (size_t i = 0; i < 3; i++) {
        layer l = layer_new(8, 3, 2, 6);
        l.w[5] = bad[i];
        assert_status(hemi_module_from_linear(&m, l.w, l.b, 3, 8, l.x, shape, 2, NULL, &err), HEMI_ERR_ARGUMENT);
        l.w[5] = 1;
        l.b[2] = bad[i];
        assert_status(hemi_module_from_linear(&m, l.w, l.b, 3, 8, l.x, shape, 2, NULL, &err), HEMI_ERR_ARGUMENT);
        l.b[2] = 1;
        l.x[15] = bad[i];
        assert_status(hemi_module_from_linear(&m, l.w, l.b, 3, 8, l.x, shape, 2, NULL, &err), HEMI_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "row 1"));
        l.x[15] = 1;
        assert_status(hemi_module_from_linear(&m, l.w, l.b, 3, 8, l.x, shape, 2, NULL, &err), HEMI_OK);
        l.x[0] = bad[i];
        float y[6];
        assert_status(hemi_module_run_clear(m, l.x, 2, y, false, &err), HEMI_ERR_ARGUMENT);
        hemi_module_free(m);
        layer_free(&l);
    }
}

/* ---- the plan */

static void grid_floor(void **state) {
    (void)state;
    assert_true(hemi_grid_floor(1) == 1);
    assert_true(hemi_grid_floor(4096) == 4096);
    assert_true(hemi_grid_floor(4095) < 4095 && hemi_grid_floor(4095) > 4095 / 1.0906);
    for (double x = 1e-30; x < 1e30; x *= 1.37) {
        const double g = hemi_grid_floor(x);
        assert_true(g <= x && g * exp2(1.001 / HEMI_GRID_STEPS) > x);
    }
}

static void plans_keep_their_promises(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1}, {10, 10}, {64, 128}, {128, 10}, {768, 768}, {768, 3072}, {4096, 4096}};
    const hemi_params *params = hemi_params_by_name("L4096");
    for (size_t i = 0; i < TEST_COUNT(shapes); i++)
        for (double weight = 1; weight <= 4096; weight *= 4) {
            hemi_linear_layout l;
            hemi_plan p;
            hemi_error err = {0};
            assert_ok(test_layout(&l, params, shapes[i][0], shapes[i][1], 0, &err), &err);
            const double norm2 = weight * weight * shapes[i][0], bound = weight * 32767 * shapes[i][0];
            const hemi_plan_input input = {.layout = &l, .norm2 = norm2, .bound = bound};
            if (hemi_plan_make(&p, &input, &err) != HEMI_OK) {
                assert_int_equal(err.status, HEMI_ERR_UNSUPPORTED);
                assert_true(bound > 0x1p38);
                continue;
            }
            assert_true(p.delta >= HEMI_DELTA_MIN && (double)p.delta * bound * 2 <= (double)params->q);
            assert_true((double)p.delta * bound * 2 >= (double)params->q / 1.02 / 1.1);
            const double noise = hemi_linear_noise_variance(&l, norm2, p.b_bits);
            const double total =
                noise + (p.reply_ring != 0 ? hemi_noise_switched_download_variance(params, p.reply_a_bits, p.reply_b_bits)
                                           : hemi_linear_switch_variance(&l, p.reply_a_bits, p.reply_b_bits));
            assert_int_equal(p.reply_ring, !l.direct && hemi_linear_outputs_halve(&l) ? 2048 : 0);
            assert_true(fabs(total / p.variance - 1) < 1e-12);
            const double floor_std = (double)p.delta * bound * exp2(-19.1);
            assert_true(sqrt(total) <= 1.05 * fmax(1.3 * sqrt(noise), floor_std));
            assert_true(noise <= 1.5001 * hemi_linear_noise_variance(&l, norm2, 48) ||
                        sqrt(noise) <= floor_std * 0.5001);
            assert_true(p.reply_a_bits >= 20 && p.reply_a_bits <= 25);
            assert_true(p.reply_b_bits >= 14 && p.reply_b_bits <= 32);
        }
}

/* A ring of replies that would add more noise than the limit is left alone: its modulus is too small for the key's errors. */
static void noisy_rings_of_replies_are_not_used(void **state) {
    (void)state;
    const hemi_params *real = hemi_params_by_name("L4096");
    static const struct {
        uint64_t q;
        uint32_t ring;
    } cases[] = {{0xc0000001, 0}, {0x2e0000001, 0}, {0x1fff60000001, 2048}, {0x3fffa0000001, 2048}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        hemi_params reply = *real->reply, params = *real;
        hemi_linear_layout l;
        hemi_plan p, before;
        hemi_error err = {0};
        reply.q = cases[i].q;
        params.reply = &reply;
        assert_ok(test_layout(&l, &params, 768, 768, 0, &err), &err);
        const hemi_plan_input input = {.layout = &l, .norm2 = 768 * 32 * 32, .bound = 768 * 26 * 127};
        assert_ok(hemi_plan_make(&p, &input, &err), &err);
        assert_int_equal(p.reply_ring, cases[i].ring);
        params.reply = NULL;
        assert_ok(hemi_plan_make(&before, &input, &err), &err);
        assert_int_equal(before.reply_ring, 0);
        const uint32_t was = 4096 * before.reply_a_bits + 768 * before.reply_b_bits;
        if (p.reply_ring != 0) {
            assert_true(2048 * p.reply_a_bits + 768 * p.reply_b_bits < was * 2 / 3);
            assert_true(p.variance <= 1.69001 * before.variance); /* 1.3 in standard deviation */
        } else {
            assert_true(p.variance == before.variance && p.reply_a_bits == before.reply_a_bits);
        }
    }
}

/* Sizes and errors that the project promises, with Gaussian weights of 8 bits and uniform inputs. */
static void promised_sizes_and_errors(void **state) {
    (void)state;
    static const struct {
        uint32_t inputs, outputs, layout;
        size_t upload, download, keys;
        double log2_error;
    } cases[] = {{10, 10, 0, 1000, 13000, 60000, -15.5},
                 {768, 768, 0, 12800, 9500, 530000, -15.5},
                 {768, 768, 4096, 3300, 9500, 530000, -15},
                 {768, 3072, 0, 12800, 22000, 480000, -15},
                 {4096, 4096, 0, 16600, 25000, 800000, -12.5}};
    for (size_t i = 0; i < TEST_COUNT(cases) - (test_quick() ? 1 : 0); i++) {
        layer l = layer_new(cases[i].inputs, cases[i].outputs, 4, i + 1);
        test_rng rng = test_rng_new();
        for (size_t j = 0; j < 4 * (size_t)l.inputs; j++) l.x[j] = (float)test_below(&rng, 255) - 127;
        hemi_module *m =
            compile(&l, false, &(hemi_compile_options){.weight_bits = 8, .input_bits = 8, .layout = cases[i].layout});
        const hemi_module_info *info = &m->info;
        assert_true(info->upload_bytes < cases[i].upload);
        assert_true(info->download_bytes < cases[i].download);
        assert_true(info->evaluation_key_bytes < cases[i].keys);
        const double error = log2(info->predicted_error / info->output_max);
        printf("  %u x %u, S %u: %zu bytes up, %zu down (%u bits of a, %u of b, ring %u), 2^%.2f\n", l.inputs, l.outputs, info->layout,
               info->upload_bytes, info->download_bytes, info->reply_a_bits, info->reply_b_bits, info->reply_ring, error);
        if (error >= cases[i].log2_error) fail_msg("%u x %u: 2^%.2f", l.inputs, l.outputs, error);
        hemi_module_free(m);
        layer_free(&l);
    }
}

/* ---- compilation */

static void info_is_complete(void **state) {
    (void)state;
    layer l = layer_new(20, 30, 6, 8);
    const uint32_t shape[] = {2, 3, 20};
    hemi_module *m = NULL;
    hemi_module_info info;
    hemi_error err = {0};
    assert_ok(hemi_module_from_linear(&m, l.w, l.b, 30, 20, l.x, shape, 3, NULL, &err), &err);
    hemi_module_get_info(m, &info);
    assert_string_equal(info.operation, "linear");
    assert_string_equal(info.params->name, "L4096");
    assert_true(info.inputs == 20 && info.outputs == 30 && info.layout == 128 && info.products == 1);
    assert_true(info.shape_rank == 3 && info.shape[0] == 1 && info.shape[1] == 3 && info.shape[2] == 20);
    assert_true(info.input_bits == 16 && info.has_bias && info.has_weights && info.automorphisms == 0);
    double peak = 0, largest = 0;
    for (size_t i = 0; i < 6 * 20; i++) peak = fmax(peak, fabs((double)l.x[i]));
    assert_true(fabs(info.input_scale * 32767 / peak - 1) < 1e-12);
    for (size_t r = 0; r < 6; r++)
        for (size_t o = 0; o < 30; o++) largest = fmax(largest, fabs(exact(&l, true, l.x + r * 20, o)));
    assert_true(fabs(info.output_max / largest - 1) < 0.02);
    const hemi_request request = {.params = info.params,
                                  .layout = 128,
                                  .coefficients = 20 * 32,
                                  .units = 1,
                                  .ciphertexts = 1,
                                  .b_bits = info.b_bits,
                                  .modules = 1};
    assert_int_equal(info.upload_bytes, hemi_request_bytes(&request));
    assert_int_equal(info.evaluation_key_bytes, hemi_keys_total_bytes(info.params, 0));
    hemi_module *again = NULL;
    assert_ok(hemi_module_from_linear(&again, l.w, l.b, 30, 20, l.x, shape, 3, NULL, &err), &err);
    assert_memory_not_equal(again->info.id, info.id, sizeof info.id);
    hemi_module_free(again);
    hemi_module_free(m);
    layer_free(&l);
}

static void shapes_and_missing_data(void **state) {
    (void)state;
    layer l = layer_new(20, 4, 1, 9);
    hemi_module *m = NULL;
    hemi_error err = {0};
    const uint32_t one[] = {20}, zero[] = {0, 20}, other[] = {1, 21}, huge[] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, 20};
    assert_ok(hemi_module_from_linear(&m, l.w, NULL, 4, 20, NULL, one, 1, NULL, &err), &err);
    assert_true(m->info.shape_rank == 2 && m->info.shape[0] == 1 && m->info.shape[1] == 20);
    assert_true(m->info.input_scale == 1.0 / 32767 && m->info.output_max == 0 && !m->info.has_bias);
    hemi_module_free(m);
    assert_status(hemi_module_from_linear(&m, l.w, NULL, 4, 20, NULL, zero, 2, NULL, &err), HEMI_ERR_SHAPE);
    assert_null(m);
    assert_status(hemi_module_from_linear(&m, l.w, NULL, 4, 20, NULL, other, 2, NULL, &err), HEMI_ERR_SHAPE);
    assert_status(hemi_module_from_linear(&m, l.w, NULL, 4, 20, NULL, huge, 4, NULL, &err), HEMI_ERR_SHAPE);
    assert_status(hemi_module_from_linear(&m, l.w, NULL, 4, 20, NULL, one, 0, NULL, &err), HEMI_ERR_SHAPE);
    assert_status(hemi_module_from_linear(&m, l.w, NULL, 4, 20, NULL, one, 9, NULL, &err), HEMI_ERR_SHAPE);
    assert_status(hemi_module_from_linear(&m, NULL, NULL, 4, 20, NULL, one, 1, NULL, &err), HEMI_ERR_ARGUMENT);
    assert_status(hemi_module_from_linear(&m, l.w, NULL, 0, 20, NULL, one, 1, NULL, &err), HEMI_ERR_SHAPE);
    assert_status(hemi_module_from_linear(&m, l.w, NULL, (1 << 20) + 1, 20, NULL, one, 1, NULL, &err), HEMI_ERR_SHAPE);
    memset(l.x, 0, 20 * sizeof *l.x); /* all zero */
    assert_ok(hemi_module_from_linear(&m, l.w, NULL, 4, 20, l.x, one, 1, NULL, &err), &err);
    assert_true(m->info.input_scale == 1.0 / 32767);
    hemi_module_free(m);
    layer_free(&l);
}

static void options_are_checked(void **state) {
    (void)state;
    layer l = layer_new(20, 4, 1, 9);
    const uint32_t shape[] = {1, 20};
    hemi_module *m = NULL;
    hemi_error err;
    static const struct {
        hemi_compile_options options;
        hemi_status status;
    } cases[] = {{{.weight_bits = 1}, HEMI_ERR_ARGUMENT},
                 {{.weight_bits = 17}, HEMI_ERR_ARGUMENT},
                 {{.weight_bits = -8}, HEMI_ERR_ARGUMENT},
                 {{.input_bits = 1}, HEMI_ERR_ARGUMENT},
                 {{.input_bits = 17}, HEMI_ERR_ARGUMENT},
                 {{.b_bits = 7}, HEMI_ERR_ARGUMENT},
                 {{.b_bits = 49}, HEMI_ERR_ARGUMENT},
                 {{.set = "L1024"}, HEMI_ERR_PARAMS},
                 {{.set = ""}, HEMI_ERR_PARAMS},
                 {{.set = "R2048"}, HEMI_ERR_PARAMS},
                 {{.set = "C16384"}, HEMI_ERR_PARAMS},
                 {{.set = "C8192", .b_bits = 40}, HEMI_ERR_PARAMS},
                 {{.layout = 16}, HEMI_ERR_ARGUMENT},
                 {{.layout = 33}, HEMI_ERR_ARGUMENT},
                 {{.layout = 8192}, HEMI_ERR_ARGUMENT},
                 {{.weight_bits = 2}, HEMI_OK},
                 {{.weight_bits = 16}, HEMI_OK},
                 {{.input_bits = 2}, HEMI_OK},
                 {{.b_bits = 48}, HEMI_OK},
                 {{.layout = 4096}, HEMI_OK},
                 {{.set = "L2048"}, HEMI_OK}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        assert_status(hemi_module_from_linear(&m, l.w, l.b, 4, 20, l.x, shape, 2, &cases[i].options, &err),
                      cases[i].status);
        if (m == NULL) continue;
        if (cases[i].options.weight_bits != 0) assert_int_equal(m->info.weight_bits, cases[i].options.weight_bits);
        if (cases[i].options.b_bits != 0) assert_int_equal(m->info.b_bits, cases[i].options.b_bits);
        if (cases[i].options.layout != 0) assert_int_equal(m->info.layout, cases[i].options.layout);
        hemi_module_free(m);
    }
    layer_free(&l);
}

static void too_many_bits_say_so(void **state) {
    (void)state;
    layer l = layer_new(4096, 2, 1, 10);
    for (size_t i = 0; i < 2 * 4096; i++) l.w[i] = 1.0f + (float)(i % 7); /* a large sum */
    const uint32_t shape[] = {1, 4096};
    hemi_module *m = NULL;
    hemi_error err;
    const hemi_compile_options wide = {.weight_bits = 16}, choose = {.weight_bits = 0};
    assert_status(hemi_module_from_linear(&m, l.w, NULL, 2, 4096, l.x, shape, 2, &wide, &err), HEMI_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "use fewer weight_bits or input_bits"));
    assert_ok(hemi_module_from_linear(&m, l.w, NULL, 2, 4096, l.x, shape, 2, &choose, &err), &err);
    hemi_module_free(m);
    const float bias[] = {3e38f, 0}; /* out of all proportion */
    assert_status(hemi_module_from_linear(&m, l.w, bias, 2, 4096, l.x, shape, 2, &choose, &err), HEMI_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "bias"));
    layer_free(&l);
}

/* weight_bits = 0 is about as good as the best single width. */
static void chosen_width_is_good(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{10, 10}, {64, 128}, {300, 500}};
    for (size_t i = 0; i < TEST_COUNT(shapes); i++) {
        layer l = layer_new(shapes[i][0], shapes[i][1], 16, i + 20);
        double best = INFINITY, chosen = INFINITY;
        float *y = hemi_alloc((size_t)16 * l.outputs, sizeof *y);
        for (int bits = 5; bits <= 14; bits++) {
            hemi_module *m = compile(&l, false, &(hemi_compile_options){.weight_bits = bits == 5 ? 0 : bits});
            hemi_error err = {0};
            double error = 0;
            assert_ok(hemi_module_run_clear(m, l.x, 16, y, true, &err), &err);
            for (size_t r = 0; r < 16; r++)
                for (size_t o = 0; o < l.outputs; o++)
                    error += pow((double)y[r * l.outputs + o] - exact(&l, false, l.x + r * l.inputs, o), 2);
            if (bits == 5)
                chosen = error;
            else
                best = fmin(best, error);
            hemi_module_free(m);
        }
        assert_true(sqrt(chosen) <= 1.5 * sqrt(best));
        hemi_free(y);
        layer_free(&l);
    }
}

static void count_progress(void *context, const char *what, size_t done, size_t total) {
    assert_non_null(what);
    assert_true(done <= total);
    ++*(size_t *)context;
}

static void onnx_end_to_end(void **state) {
    (void)state;
    layer l = layer_new(12, 7, 5, 11);
    const int64_t dims_w[] = {7, 12}, dims_b[] = {7}, dims_x[] = {1, 12};
    pb g = {0};
    graph_input(&g, "x", dims_x, 2);
    graph_output(&g, "y");
    graph_floats(&g, "w", dims_w, 2, l.w);
    graph_floats(&g, "b", dims_b, 1, l.b);
    pb n = new_node("Gemm", "n", "x,w,b", "y");
    add_int(&n, "transB", 1);
    graph_node(&g, n);
    pb model = model_of(g, 14);
    const uint32_t shape[] = {5, 12}, wrong[] = {5, 13};
    size_t calls = 0;
    const hemi_compile_options options = {.weight_bits = 12, .progress = count_progress, .progress_context = &calls};
    hemi_module *m = NULL;
    hemi_error err = {0};
    assert_ok(hemi_module_compile(&m, model.data, model.size, l.x, shape, 2, &options, &err), &err);
    assert_true(calls >= 3);
    float y[35];
    assert_ok(hemi_module_run_clear(m, l.x, 5, y, false, &err), &err);
    for (size_t r = 0; r < 5; r++)
        for (size_t o = 0; o < 7; o++)
            assert_true(fabs((double)y[r * 7 + o] - exact(&l, true, l.x + r * 12, o)) < 2e-3);
    hemi_module_free(m);
    assert_status(hemi_module_compile(&m, model.data, model.size, l.x, wrong, 2, &options, &err), HEMI_ERR_SHAPE);
    assert_null(m);
    assert_status(hemi_module_compile(&m, NULL, 0, l.x, shape, 2, &options, &err), HEMI_ERR_ARGUMENT);
    assert_status(hemi_module_compile(&m, model.data, model.size - 1, l.x, shape, 2, &options, &err), HEMI_ERR_FORMAT);
    free(model.data);
    layer_free(&l);
}

/* ---- the product in the clear */

/* |y - exact| is at most what rounding weights by s/2 and inputs by half a step can make. */
static void clear_run_is_near_the_float(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1}, {3, 65}, {17, 5}, {127, 129}, {1000, 70}};
    static const int widths[] = {2, 8, 16};
    for (size_t i = 0; i < TEST_COUNT(shapes); i++)
        for (size_t k = 0; k < TEST_COUNT(widths); k++)
            for (int bias = 0; bias < 2; bias++) {
                layer l = layer_new(shapes[i][0], shapes[i][1], 19, i + 40);
                hemi_module *m =
                    compile(&l, bias, &(hemi_compile_options){.weight_bits = widths[k], .input_bits = k == 0 ? 8 : 0});
                float *y = hemi_alloc((size_t)19 * l.outputs, sizeof *y);
                hemi_error err = {0};
                for (size_t j = 0; j < l.inputs; j++) l.x[18 * l.inputs + j] *= 1000; /* far outside the calibration */
                for (size_t j = 0; j < l.inputs; j++) l.x[17 * l.inputs + j] = 0;
                assert_ok(hemi_module_run_clear(m, l.x, 19, y, false, &err), &err);
                const double s = m->info.output_scale / m->info.input_scale;
                for (size_t r = 0; r < 19; r++) {
                    const float *x = l.x + r * l.inputs;
                    double peak = 0, sum = 0;
                    for (size_t j = 0; j < l.inputs; j++) {
                        peak = fmax(peak, fabs((double)x[j]));
                        sum += fabs((double)x[j]);
                    }
                    for (size_t o = 0; o < l.outputs; o++) {
                        double w = 0;
                        for (size_t j = 0; j < l.inputs; j++) w += abs(m->weights[o * l.inputs + j]) * s;
                        const double y_exact = exact(&l, bias, x, o);
                        const double limit =
                            s / 2 * sum + w * peak / hemi_module_input_max(m) / 2 + 1e-6 * (fabs(y_exact) + sum);
                        assert_true(fabs((double)y[r * l.outputs + o] - y_exact) <= limit);
                    }
                }
                hemi_free(y);
                hemi_module_free(m);
                layer_free(&l);
            }
}

/* The same integers as the definition in module.h, and the sum of products never overflows. */
static void clear_run_is_exact(void **state) {
    (void)state;
    layer l = layer_new(513, 67, 2, 12);
    for (size_t i = 0; i < 513 * 67; i++) l.w[i] = i % 2 == 0 ? 1 : 0.999f; /* all sums as large as can be */
    for (size_t i = 0; i < 513; i++) l.x[i] = l.x[0];
    for (int bits = 2; bits <= 14; bits += 3) {
        hemi_module *m = compile(&l, true, &(hemi_compile_options){.weight_bits = bits});
        float y[2 * 67];
        int32_t x[513];
        double factor;
        hemi_error err = {0};
        assert_ok(hemi_module_run_clear(m, l.x, 2, y, false, &err), &err);
        for (size_t r = 0; r < 2; r++) {
            assert_true(hemi_module_quantise_row(m, l.x + r * 513, x, &factor));
            int32_t largest = 0;
            for (size_t j = 0; j < 513; j++) largest = abs(x[j]) > largest ? abs(x[j]) : largest;
            assert_int_equal(largest, hemi_module_input_max(m));
            for (size_t o = 0; o < 67; o++) {
                int64_t sum = 0;
                for (size_t j = 0; j < 513; j++) sum += (int64_t)m->weights[o * 513 + j] * x[j];
                assert_true((fabs((double)sum) + fabs(m->bias[o])) * (double)m->info.delta * 2 <
                            (double)m->info.params->q);
                const double value = (double)sum * m->info.output_scale / factor + (double)l.b[o];
                assert_true(fabs((double)y[r * 67 + o] - value) <= 1e-6 * fabs(value));
            }
        }
        hemi_module_free(m);
    }
    layer_free(&l);
}

static void noise_has_the_predicted_size(void **state) {
    (void)state;
    enum { ROWS = 64, OUTPUTS = 400 };
    layer l = layer_new(40, OUTPUTS, 1, 13);
    float *x = hemi_alloc(ROWS * 40, sizeof *x), *y = hemi_alloc(ROWS * OUTPUTS, sizeof *y),
          *z = hemi_alloc(ROWS * OUTPUTS, sizeof *z);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t j = 0; j < 40; j++) x[r * 40 + j] = l.x[j] * (r < ROWS / 2 ? 1.0f : 0.125f); /* factors 1 and 8 */
    for (int bias = 0; bias < 2; bias++) {
        hemi_module *m = compile(&l, bias, NULL);
        hemi_error err = {0};
        assert_ok(hemi_module_run_clear(m, x, ROWS, y, false, &err), &err);
        assert_ok(hemi_module_run_clear(m, x, ROWS, z, true, &err), &err);
        double near = 0, far = 0;
        for (size_t i = 0; i < ROWS / 2 * OUTPUTS; i++) {
            near += pow((double)z[i] - (double)y[i], 2);
            far += pow((double)z[i + ROWS / 2 * OUTPUTS] - (double)y[i + ROWS / 2 * OUTPUTS], 2);
        }
        near = sqrt(near / (ROWS / 2 * OUTPUTS)) / m->info.predicted_error;
        far = sqrt(far / (ROWS / 2 * OUTPUTS)) / m->info.predicted_error;
        assert_true(fabs(near - 1) < 0.05);
        /* a scaled row: its own error over 8, and with a bias 7/8 of the error of the client's copy */
        assert_true(fabs(far - (bias ? hypot(0.125, 0.875) : 0.125)) < 0.1 * (bias ? 1 : 0.125));
        hemi_module_free(m);
    }
    hemi_free(x);
    hemi_free(y);
    hemi_free(z);
    layer_free(&l);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_channel_keeps_its_bits),
        cmocka_unit_test(guard_bits_are_limited),
        cmocka_unit_test(trained_grids_lose_nothing),
        cmocka_unit_test(scales_say_little),
        cmocka_unit_test(zero_weights),
        cmocka_unit_test(bad_numbers_are_refused),
        cmocka_unit_test(grid_floor),
        cmocka_unit_test(plans_keep_their_promises),
        cmocka_unit_test(noisy_rings_of_replies_are_not_used),
        cmocka_unit_test(promised_sizes_and_errors),
        cmocka_unit_test(info_is_complete),
        cmocka_unit_test(shapes_and_missing_data),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(too_many_bits_say_so),
        cmocka_unit_test(chosen_width_is_good),
        cmocka_unit_test(onnx_end_to_end),
        cmocka_unit_test(clear_run_is_near_the_float),
        cmocka_unit_test(clear_run_is_exact),
        cmocka_unit_test(noise_has_the_predicted_size),
    };
    return TEST_RUN("model", tests);
}
