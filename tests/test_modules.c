/* Modules of samples from ONNX to results: the product in the clear against arithmetic number by number, the encrypted one against it
 * with the error that was predicted, files and back, options. */
#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "client_fixture.h"
#include "net_fixture.h"

#include "client/codec.h"
#include "linear/product.h"
#include "linear/units.h"
#include "model/module.h"

#define SAMPLES 3 /* of calibration */

static hemi_module *compile_net(net *n, const hemi_compile_options *options) {
    const sample in = n->input;
    const size_t numbers = sample_count(&in);
    const uint32_t shape2[] = {SAMPLES, (uint32_t)in.c, (uint32_t)in.h, (uint32_t)in.w},
                   shape1[] = {SAMPLES, (uint32_t)in.c, (uint32_t)in.w};
    float *x = malloc(SAMPLES * numbers * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < SAMPLES * numbers; i++) x[i] = (float)test_real(&n->rng);
    for (size_t i = 0; i < numbers; i++) x[i] = (float)in.v[i];
    pb model = net_model(n);
    hemi_module *m = NULL;
    ASSERT_OK(
        hemi_module_compile(&m, model.data, model.size, x, in.dims == 1 ? shape1 : shape2, in.dims + 2, options, ERR));
    free(model.data);
    free(x);
    return m;
}

static float *input_of(const net *n) {
    float *x = malloc(sample_count(&n->input) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < sample_count(&n->input); i++) x[i] = (float)n->input.v[i];
    return x;
}

/* rms of the error of the quantised product over rms of the result. */
static double clear_error(const net *n, const hemi_module *m, bool noise) {
    const size_t outputs = sample_count(&n->now);
    float *x = input_of(n), *y = malloc(outputs * sizeof *y);
    double error = 0, size = 0;
    hemi_module_info info;
    hemi_module_get_info(m, &info);
    assert_int_equal(info.inputs, sample_count(&n->input));
    assert_int_equal(info.outputs, outputs);
    ASSERT_OK(hemi_module_run_clear(m, x, 1, y, noise, ERR));
    for (size_t i = 0; i < outputs; i++) {
        error += ((double)y[i] - n->now.v[i]) * ((double)y[i] - n->now.v[i]);
        size += n->now.v[i] * n->now.v[i];
    }
    free(x);
    free(y);
    return sqrt(error / size);
}

/* Encrypts, evaluates and decrypts samples; the errors must have about the predicted size. Returns their rms over it. */
static double encrypted_error(const net *n, const hemi_module *m, size_t samples) {
    const size_t inputs = sample_count(&n->input), outputs = sample_count(&n->now);
    float *x = malloc(samples * inputs * sizeof *x), *y = malloc(samples * outputs * sizeof *y),
          *expected = malloc(samples * outputs * sizeof *y);
    hemi_module_info info;
    hemi_module_get_info(m, &info);
    float peak = 0;
    for (size_t i = 0; i < inputs; i++) peak = fmaxf(peak, fabsf((float)n->input.v[i]));
    /* as large as the calibration data's largest, so that a factor changes nothing */
    for (size_t i = 0; i < samples * inputs; i++) x[i] = (float)n->input.v[i % inputs];
    hemi_keys *keys = NULL;
    hemi_evaluator *evaluator = NULL;
    hemi_server_keys *server_keys = NULL;
    uint8_t *bytes = NULL, *reply = NULL;
    size_t count = 0;
    double error = 0, first_scale = 0, factor = 1;
    assert_true(hemi_module_scale(m, x, inputs, &first_scale, &factor));
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_evaluator_new(&evaluator, m, 2, ERR));
    ASSERT_OK(hemi_keys_evaluation(keys, &m, 1, &bytes, &count, ERR));
    assert_int_equal(count, info.evaluation_key_bytes);
    ASSERT_OK(hemi_server_keys_new(&server_keys, bytes, count, ERR));
    hemi_bytes_release(bytes);
    for (int call = 0; call < 2; call++) { /* the first learns the bias */
        hemi_pending *pending = NULL;
        ASSERT_OK(hemi_encrypt(m, keys, x, samples, &pending, &bytes, &count, ERR));
        if (call == 1 && samples == 1) assert_int_equal(count, info.upload_bytes);
        const hemi_evaluator *evaluators[] = {evaluator};
        size_t reply_bytes = 0;
        ASSERT_OK(hemi_evaluate(evaluators, 1, server_keys, bytes, count, 2, &reply, &reply_bytes, ERR));
        if (call == 1 && samples == 1) assert_int_equal(reply_bytes, info.download_bytes);
        ASSERT_OK(hemi_decrypt(m, keys, pending, reply, reply_bytes, y, ERR));
        hemi_bytes_release(bytes);
        hemi_bytes_free(reply);
        hemi_pending_free(pending);
    }
    ASSERT_OK(hemi_module_run_clear(m, x, samples, expected, false, ERR));
    for (size_t i = 0; i < samples * outputs; i++)
        error += ((double)y[i] - (double)expected[i]) * ((double)y[i] - (double)expected[i]);
    hemi_server_keys_free(server_keys);
    hemi_evaluator_free(evaluator);
    hemi_keys_free(keys);
    free(x);
    free(y);
    free(expected);
    return sqrt(error / (double)(samples * outputs)) / (info.predicted_error / factor);
}

/* Written, read and asked again: the same. */
static void check_files(const hemi_module *m, const float *x) {
    char folder[256];
    hemi_module *read[2] = {NULL, NULL};
    hemi_module_info info, again;
    test_folder_new(folder);
    ASSERT_OK(hemi_module_save(m, folder, ERR));
    ASSERT_OK(hemi_module_open(&read[0], folder, true, ERR));
    ASSERT_OK(hemi_module_open(&read[1], folder, false, ERR));
    hemi_module_get_info(m, &info);
    for (size_t i = 0; i < 2; i++) {
        hemi_module_get_info(read[i], &again);
        assert_string_equal(info.operation, again.operation);
        assert_string_equal(hemi_module_client_json(m), hemi_module_client_json(read[i]));
        assert_int_equal(info.units, again.units);
        assert_int_equal(info.output_rank, again.output_rank);
        assert_memory_equal(info.output_shape, again.output_shape, sizeof info.output_shape);
        assert_memory_equal(&m->layout, &read[i]->layout, sizeof m->layout);
        assert_int_equal(m->has_packed, read[i]->has_packed);
    }
    float *y = malloc(info.outputs * sizeof *y), *z = malloc(info.outputs * sizeof *z);
    ASSERT_OK(hemi_module_run_clear(m, x, 1, y, false, ERR));
    ASSERT_OK(hemi_module_run_clear(read[0], x, 1, z, false, ERR));
    assert_memory_equal(y, z, info.outputs * sizeof *y);
    assert_status(hemi_module_run_clear(read[1], x, 1, z, false, ERR), HEMI_ERR_STATE);
    free(y);
    free(z);
    hemi_module_free(read[0]);
    hemi_module_free(read[1]);
    test_folder_remove(folder);
}

static const window same3 = {.k = 3, .stride = 1, .dilation = 1, .begin = 1, .end = 1, .groups = 1},
                    strided = {.k = 3, .stride = 2, .dilation = 1, .begin = 1, .end = 1, .groups = 1},
                    wide = {.k = 3, .stride = 1, .dilation = 2, .begin = 2, .end = 2, .groups = 1},
                    up2 = {.k = 3, .stride = 2, .dilation = 1, .begin = 1, .end = 1, .groups = 1, .output_padding = 1};

static net build(size_t which) {
    net n;
    switch (which) {
    case 0:
        n = net_new(1, 2, 3, 8, 8);
        net_conv(&n, 8, same3);
        return n;
    case 1:
        n = net_new(2, 2, 8, 9, 11);
        net_conv(&n, 16, strided);
        net_batchnorm(&n);
        return n;
    case 2:
        n = net_new(3, 2, 6, 5, 7);
        net_conv_transpose(&n, 4, up2);
        return n;
    case 3:
        n = net_new(4, 2, 12, 10, 10);
        net_conv(&n, 12, (window){.k = 3, .stride = 1, .dilation = 1, .begin = 1, .end = 1, .groups = 12});
        return n;
    case 4:
        n = net_new(5, 1, 16, 1, 100);
        net_conv(&n, 20, wide);
        return n;
    case 5:
        n = net_new(6, 2, 3, 8, 8);
        net_conv(&n, 8, strided);
        net_flatten(&n);
        net_linear(&n, 10);
        return n;
    case 6:
        n = net_new(7, 2, 16, 20, 20); /* several tiles */
        net_conv(&n, 24, same3);
        return n;
    case 7:
        n = net_new(8, 2, 10, 12, 12);
        net_average(&n, (window){.k = 2, .stride = 2, .dilation = 1, .groups = 1}, false, false);
        return n;
    case 8:
        n = net_new(10, 2, 16, 9, 12);
        net_conv(&n, 24, (window){.k = 1, .stride = 2, .dilation = 1, .groups = 1});
        return n;
    default:
        n = net_new(9, 2, 64, 8, 8);
        net_conv(&n, 64, same3);
        return n;
    }
}

static const char *const operations[] = {"conv", "conv", "conv", "conv", "conv", "dense", "conv", NULL, "conv", "conv"};

static void nets_are_computed(void **state) {
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(operations); i++) {
        net n = build(i);
        hemi_module *m = compile_net(&n, &(hemi_compile_options){.weight_bits = 8});
        hemi_module_info info;
        hemi_module_get_info(m, &info);
        if (operations[i] != NULL) assert_string_equal(info.operation, operations[i]);
        const double error = clear_error(&n, m, false), noisy = clear_error(&n, m, true);
        const bool few = info.outputs < 100; /* then one sample says little */
        const double ratio = encrypted_error(&n, m, 1), more = encrypted_error(&n, m, few ? 40 : 2);
        printf("  %s %u -> %u, %u taps, S %u, %u units, %u products: clear %.2e, noisy %.2e; measured / predicted "
               "%.2f, %.2f\n",
               info.operation, info.map_inputs, info.map_outputs, info.taps, info.layout, info.units, info.products,
               error, noisy, ratio, more);
        assert_true(error < 0.012);
        assert_true(noisy < 0.013 && noisy >= 0.9 * error);
        assert_true(few ? ratio > 0.1 && ratio < 3 : ratio > 1 / 1.6 && ratio < 1.5);
        assert_true(more > 1 / 1.6 && more < 1.5);
        float *x = input_of(&n);
        check_files(m, x);
        free(x);
        hemi_module_free(m);
        net_free(&n);
    }
}

/* Every bit of the weights halves the error, until noise is all there is. */
static void widths(void **state) {
    (void)state;
    double before = 1;
    for (int bits = 4; bits <= 12; bits += 2) {
        net n = build(1);
        hemi_module *m = compile_net(&n, &(hemi_compile_options){.weight_bits = bits});
        const double error = clear_error(&n, m, false);
        assert_true(error < before / 2.5);
        before = error;
        hemi_module_free(m);
        net_free(&n);
    }
    net n = build(0);
    hemi_module *m = compile_net(&n, NULL);
    const double error = clear_error(&n, m, true);
    printf("  chosen: %d bits, error %.1e\n", m->info.weight_bits, error);
    assert_true(error < 0.002);
    hemi_module_free(m);
    net_free(&n);
}

/* Many channels at few positions: a matrix of the sample costs less. */
static void small_sides_become_a_matrix(void **state) {
    (void)state;
    net n = net_new(1, 2, 128, 2, 2);
    net_conv(&n, 128, same3);
    hemi_module *m = compile_net(&n, &(hemi_compile_options){.weight_bits = 10});
    hemi_linear_layout grid;
    const hemi_grid g = {128, 2, 2, 128, 2, 2, 1, 1, 1, 1, 3, 3, -1, -1, 1, 1};
    ASSERT_OK(hemi_linear_layout_grid(&grid, m->layout.params, &g, NULL, ERR));
    assert_string_equal(m->info.operation, "dense");
    assert_true(hemi_linear_cost(&m->layout) < hemi_linear_cost(&grid) * (double)hemi_units_of_sample(&grid, &g));
    const double error = clear_error(&n, m, false);
    assert_true(error < 0.003);
    const uint32_t out[] = {1, 128, 2, 2};
    assert_memory_equal(m->info.output_shape, out, sizeof out);
    hemi_module_free(m);
    net_free(&n);
}

static void shapes_are_stated(void **state) {
    (void)state;
    net n = build(1);
    hemi_module *m = compile_net(&n, NULL);
    const uint32_t in[] = {1, 8, 9, 11}, out[] = {1, 16, 5, 6};
    assert_int_equal(m->info.shape_rank, 4);
    assert_int_equal(m->info.output_rank, 4);
    assert_memory_equal(m->info.shape, in, sizeof in);
    assert_memory_equal(m->info.output_shape, out, sizeof out);
    assert_int_equal(m->info.units, hemi_module_units(m, HEMI_FORM_SINGLE, 1));
    hemi_module_free(m);
    net_free(&n);
    n = build(5);
    m = compile_net(&n, NULL);
    const uint32_t classes[] = {1, 10};
    assert_int_equal(m->info.output_rank, 2);
    assert_memory_equal(m->info.output_shape, classes, sizeof classes);
    assert_int_equal(m->info.units, 1);
    hemi_module_free(m);
    net_free(&n);
}

/* Modules that share an input: one delta, one S, as many babies. */
static void options_for_shared_inputs(void **state) {
    (void)state;
    enum { D = 96, M = 160, ROWS = 4 };
    const uint32_t shape[] = {ROWS, D};
    test_rng rng = test_rng_new();
    float *w = malloc(M * D * sizeof *w), *x = malloc(ROWS * D * sizeof *x);
    for (size_t i = 0; i < M * D; i++) w[i] = (float)test_normal(&rng);
    for (size_t i = 0; i < ROWS * D; i++) x[i] = (float)test_normal(&rng);
    hemi_module *a = NULL, *b = NULL;
    ASSERT_OK(hemi_module_from_linear(&a, w, NULL, M, D, x, shape, 2,
                                      &(hemi_compile_options){.weight_bits = 8, .babies = 2}, ERR));
    assert_int_equal(a->info.babies, 2);
    const hemi_compile_options same = {.weight_bits = 4,
                                       .layout = a->info.layout,
                                       .babies = 2,
                                       .b_bits = a->info.b_bits,
                                       .delta_max = a->info.delta / 2};
    ASSERT_OK(hemi_module_from_linear(&b, w, NULL, M / 2, D, x, shape, 2, &same, ERR));
    assert_true(b->info.delta == a->info.delta / 2);
    assert_int_equal(b->info.babies, 2);
    assert_true(hemi_linear_same_input(&a->layout, &b->layout));
    hemi_module_free(b);
    assert_status(hemi_module_from_linear(&b, w, NULL, M, D, x, shape, 2, &(hemi_compile_options){.babies = 3}, ERR),
                  HEMI_ERR_ARGUMENT);
    assert_status(
        hemi_module_from_linear(&b, w, NULL, M, D, x, shape, 2, &(hemi_compile_options){.delta_max = 100}, ERR),
        HEMI_ERR_UNSUPPORTED);
    hemi_module_free(a);
    free(w);
    free(x);
}

/* 8 bits: one byte a weight where channels are alike; guard bits where they are not. */
static void bytes_where_channels_are_alike(void **state) {
    (void)state;
    enum { D = 200, M = 100 };
    const uint32_t shape[] = {1, D};
    test_rng rng = test_rng_new();
    float *w = malloc(M * D * sizeof *w);
    for (int spread = 1; spread <= 4; spread *= 2) {
        for (size_t i = 0; i < M * D; i++) w[i] = (float)(test_real(&rng) * (i / D == 7 ? 1.0 / (spread - 0.05) : 1));
        for (size_t o = 0; o < M; o++) w[o * D] = o == 7 ? 1 / ((float)spread - 0.05f) : 1;
        for (int bits = 7; bits <= 9; bits++) {
            hemi_module *m = NULL;
            ASSERT_OK(hemi_module_from_linear(&m, w, NULL, M, D, NULL, shape, 2,
                                              &(hemi_compile_options){.weight_bits = bits}, ERR));
            if (bits == 8 && spread <= 2) assert_true(m->weight_max <= 127 && m->weight_max >= 115);
            if (bits == 8 && spread > 2) assert_true(m->weight_max >= 127 * 3.9);
            if (bits != 8) assert_true(m->weight_max >= (1 << (bits - 1)) - 1);
            hemi_module_free(m);
        }
    }
    free(w);
}

/* The width that is chosen, with the noise that encryption adds: what the project promises of Gaussian weights. */
static void chosen_widths_keep_the_promise(void **state) {
    (void)state;
    static const struct {
        uint32_t size;
        double error;
    } cases[] = {{768, 0.002}, {4096, 0.005}};
    for (size_t i = 0; i < (test_quick() ? 1 : 2); i++) {
        enum { ROWS = 4 };
        const uint32_t d = cases[i].size, shape[] = {ROWS, d};
        test_rng rng = test_rng_new();
        float *w = malloc((size_t)d * d * sizeof *w), *x = malloc(ROWS * d * sizeof *x),
              *y = malloc(ROWS * d * sizeof *y);
        for (size_t j = 0; j < (size_t)d * d; j++) w[j] = (float)(0.02 * test_normal(&rng));
        for (size_t j = 0; j < ROWS * d; j++) x[j] = (float)test_normal(&rng);
        hemi_module *m = NULL;
        ASSERT_OK(hemi_module_from_linear(&m, w, NULL, d, d, x, shape, 2, NULL, ERR));
        ASSERT_OK(hemi_module_run_clear(m, x, ROWS, y, true, ERR));
        double error = 0, size = 0;
        for (size_t r = 0; r < ROWS; r++)
            for (size_t o = 0; o < d; o++) {
                double exact = 0;
                for (size_t j = 0; j < d; j++) exact += (double)w[o * d + j] * (double)x[r * d + j];
                error += (exact - (double)y[r * d + o]) * (exact - (double)y[r * d + o]);
                size += exact * exact;
            }
        printf("  %u x %u: %d bits, error %.2f %%\n", d, d, m->info.weight_bits, 100 * sqrt(error / size));
        assert_true(sqrt(error / size) < cases[i].error);
        hemi_module_free(m);
        free(w);
        free(x);
        free(y);
    }
}

/* ---- descriptions of grids */

static void grids_are_checked(void **state) {
    (void)state;
    static const struct {
        const char *name, *field, *value;
    } cases[] = {{"grid", "input", "[8, 9]"},
                 {"grid", "input", "[8, 9, 12]"},
                 {"grid", "input", "[0, 9, 11]"},
                 {"grid", "output", "[16, 5, 65537]"},
                 {"grid", "input_step", "[0, 2]"},
                 {"grid", "input_step", "[65536, 65536]"},
                 {"grid", "input_skip", "[0, 1]"},
                 {"grid", "input_skip", "[1, 65537]"},
                 {"grid", "taps", "[65536, 65536]"},
                 {"grid", "taps", "\"2\""},
                 {"grid", "origin", "[-1]"},
                 {"grid", "origin", "[-65537, 0]"},
                 {"grid", "origin", "[0.5, 0]"},
                 {"grid", "output_step", "[1, 1, 1]"},
                 {"layout", "tile_y", "0"},
                 {"layout", "tile_y", "4096"},
                 {"layout", "tile_x", "-1"},
                 {"layout", "s", "3"},
                 {"layout", "s", "16"},
                 {"layout", "groups", "[4]"},
                 {NULL, "grid", "[]"},
                 {NULL, "packed", "{}"},
                 {NULL, "inputs", "793"},
                 {NULL, "outputs", "481"},
                 {NULL, "operation", "\"linear\""},
                 {NULL, "operation", "\"dense\""},
                 {NULL, "output_shape", "[1, 16, 5, 7]"},
                 {NULL, "input_shape", "[1, 8, 9, 11, 2]"},
                 {NULL, "input_shape", "[1, 4294967295, 4294967295, 4294967295]"}};
    net n = build(1);
    hemi_module *m = compile_net(&n, &(hemi_compile_options){.weight_bits = 8}), *read = NULL;
    ASSERT_OK(hemi_module_from_client_json(&read, hemi_module_client_json(m), strlen(hemi_module_client_json(m)), ERR));
    hemi_module_free(read);
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        json_t *j = json_loads(hemi_module_client_json(m), 0, NULL),
               *value = json_loads(cases[i].value, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        json_object_set_new(cases[i].name != NULL ? json_object_get(j, cases[i].name) : j, cases[i].field, value);
        char *text = json_dumps(j, JSON_REAL_PRECISION(17));
        memset(ERR, 0, sizeof *ERR);
        const hemi_status status = hemi_module_from_client_json(&read, text, strlen(text), ERR);
        if (status != HEMI_ERR_FORMAT)
            fail_msg("%s = %s: %s %s", cases[i].field, cases[i].value, hemi_status_name(status), ERR->message);
        free(text);
        json_decref(j);
    }
    hemi_module_free(m);
    net_free(&n);
}

/* Memory for packed rows is given back as it was counted: otherwise no module gets any more of it. The precise set's plaintexts take
 * twice as much, and its keys a little more. */
static void memory_is_counted(void **state) {
    (void)state;
    float weights[100 * 40], x[2 * 100], y[2 * 40];
    const uint32_t shape[] = {2, 100};
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < TEST_COUNT(weights); i++) weights[i] = (float)test_real(&rng);
    for (size_t i = 0; i < TEST_COUNT(x); i++) x[i] = (float)test_real(&rng);
    for (size_t round = 0; round < 3; round++) { /* the third: one set after the other */
        hemi_module *m = NULL;
        hemi_keys *keys = NULL;
        hemi_evaluator *evaluator = NULL;
        hemi_server_keys *server_keys = NULL;
        hemi_pending *pending = NULL;
        uint8_t *bytes = NULL, *reply = NULL;
        size_t count = 0, reply_bytes = 0;
        ASSERT_OK(hemi_module_from_linear(&m, weights, NULL, 40, 100, x, shape, 2,
                                          &(hemi_compile_options){.set = round < 2 ? "precise" : NULL}, ERR));
        ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
        ASSERT_OK(hemi_evaluator_new(&evaluator, m, 2, ERR));
        ASSERT_OK(hemi_keys_evaluation(keys, (const hemi_module *const[]){m}, 1, &bytes, &count, ERR));
        ASSERT_OK(hemi_server_keys_new(&server_keys, bytes, count, ERR));
        hemi_bytes_release(bytes);
        if (round < 2) /* of each key four polynomials, and a permutation */
            assert_true(hemi_server_keys_bytes(server_keys) >= m->info.automorphisms * m->layout.n * (4 * sizeof(uint64_t) + sizeof(uint32_t)));
        ASSERT_OK(hemi_encrypt_as(m, keys, HEMI_FORM_PACKED, x, 2, &pending, &bytes, &count, ERR));
        ASSERT_OK(hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, server_keys, bytes, count, 1, &reply, &reply_bytes, ERR));
        ASSERT_OK(hemi_decrypt(m, keys, pending, reply, reply_bytes, y, ERR));
        hemi_bytes_release(bytes);
        hemi_bytes_free(reply);
        hemi_pending_free(pending);
        hemi_server_keys_free(server_keys);
        hemi_evaluator_free(evaluator);
        hemi_keys_free(keys);
        hemi_module_free(m);
    }
}

typedef struct encrypting {
    const hemi_module *module;
    hemi_keys *keys;
    const float *x;
    atomic_bool stop;
    atomic_size_t calls, failures;
} encrypting;

static void *keep_encrypting(void *context) {
    encrypting *e = context;
    while (!atomic_load(&e->stop)) {
        hemi_pending *pending = NULL;
        uint8_t *bytes = NULL;
        size_t count = 0;
        if (hemi_encrypt(e->module, e->keys, e->x, 1, &pending, &bytes, &count, NULL) != HEMI_OK) atomic_fetch_add(&e->failures, 1);
        hemi_bytes_release(bytes);
        hemi_pending_free(pending);
        atomic_fetch_add(&e->calls, 1);
    }
    return NULL;
}

/* A key is not taken from under a thread that encrypts (the sanitizers look), and a reply to a request under the old key is refused: under
 * the new one it would be noise. */
static void a_key_replaced_meanwhile(void **state) {
    (void)state;
    float weights[10 * 10], x[10], y[10];
    const uint32_t shape[] = {1, 10};
    for (size_t i = 0; i < TEST_COUNT(weights); i++) weights[i] = (float)i - 50;
    for (size_t i = 0; i < TEST_COUNT(x); i++) x[i] = (float)i;
    hemi_module *m = NULL;
    hemi_keys *keys = NULL;
    hemi_evaluator *evaluator = NULL;
    hemi_server_keys *server_keys = NULL;
    hemi_pending *pending = NULL;
    uint8_t *bytes = NULL, *reply = NULL;
    size_t count = 0, reply_bytes = 0;
    ASSERT_OK(hemi_module_from_linear(&m, weights, NULL, 10, 10, x, shape, 2, NULL, ERR));
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_evaluator_new(&evaluator, m, 1, ERR));
    ASSERT_OK(hemi_keys_evaluation(keys, (const hemi_module *const[]){m}, 1, &bytes, &count, ERR));
    ASSERT_OK(hemi_server_keys_new(&server_keys, bytes, count, ERR));
    hemi_bytes_release(bytes);
    ASSERT_OK(hemi_encrypt(m, keys, x, 1, &pending, &bytes, &count, ERR));
    ASSERT_OK(hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, server_keys, bytes, count, 1, &reply, &reply_bytes, ERR));
    ASSERT_OK(hemi_decrypt(m, keys, pending, reply, reply_bytes, y, ERR));

    encrypting e = {.module = m, .keys = keys, .x = x};
    pthread_t thread[3];
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&thread[i], NULL, keep_encrypting, &e), 0);
    for (int i = 0; i < 50; i++) ASSERT_OK(hemi_keys_generate(keys, m->info.params, true, ERR));
    while (atomic_load(&e.calls) == 0) sched_yield();
    atomic_store(&e.stop, true);
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(atomic_load(&e.failures), 0);
    ASSERT_FAILS(HEMI_ERR_STATE, "replaced", hemi_decrypt(m, keys, pending, reply, reply_bytes, y, ERR));
    for (size_t i = 0; i < TEST_COUNT(y); i++) assert_true(y[i] == 0);

    hemi_bytes_release(bytes);
    hemi_bytes_free(reply);
    hemi_pending_free(pending);
    hemi_server_keys_free(server_keys);
    hemi_evaluator_free(evaluator);
    hemi_keys_free(keys);
    hemi_module_free(m);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_replaced_meanwhile),
        cmocka_unit_test(nets_are_computed),
        cmocka_unit_test(widths),
        cmocka_unit_test(small_sides_become_a_matrix),
        cmocka_unit_test(shapes_are_stated),
        cmocka_unit_test(options_for_shared_inputs),
        cmocka_unit_test(bytes_where_channels_are_alike),
        cmocka_unit_test(chosen_widths_keep_the_promise),
        cmocka_unit_test(grids_are_checked),
        cmocka_unit_test(memory_is_counted),
    };
    return TEST_RUN("modules", tests);
}
