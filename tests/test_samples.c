/* ONNX import of maps of samples: every operator and combination against arithmetic number by number; which form comes out; what is
 * refused. */
#include "net_fixture.h"

#include "base/memory.h"
#include "model/onnx.h"

#define ANY 100 /* whatever form */

static hemi_status import_shape(pb model, const uint32_t *shape, size_t rank, hemi_affine *map, hemi_error *err) {
    const hemi_status status = hemi_onnx_import(map, model.data, model.size, shape, rank, NULL, NULL, err);
    free(model.data);
    return status;
}

/* Imports a net for a batch of 3, and compares; takes it. */
static hemi_affine check_net(net *n, int kind) {
    hemi_affine map;
    hemi_error err = {0};
    const sample in = n->input, out = n->now;
    const uint32_t shape2[] = {3, (uint32_t)in.c, (uint32_t)in.h, (uint32_t)in.w},
                   shape1[] = {3, (uint32_t)in.c, (uint32_t)in.w};
    assert_ok(import_shape(net_model(n), in.dims == 1 ? shape1 : shape2, in.dims + 2, &map, &err), &err);
    if (kind != ANY) assert_int_equal(map.kind, kind);
    const size_t inputs = sample_count(&in), outputs = sample_count(&out);
    assert_int_equal(hemi_affine_inputs(&map), inputs);
    assert_int_equal(hemi_affine_outputs(&map), outputs);
    assert_int_equal(map.in_rank, in.dims + 1);
    size_t product = 1;
    for (size_t i = 0; i < map.out_rank; i++) product *= map.out_shape[i];
    assert_int_equal(product, outputs);
    if (!n->flat) {
        assert_int_equal(map.out_rank, in.dims + 1);
        assert_int_equal(map.out_shape[0], out.c);
        assert_int_equal(map.out_shape[in.dims], out.w);
    }
    float *x = malloc(inputs * sizeof *x);
    double *y = malloc(outputs * sizeof *y), scale = 0;
    for (size_t i = 0; i < inputs; i++) x[i] = (float)in.v[i];
    for (size_t i = 0; i < inputs; i++) assert_true(fabs((double)x[i] - in.v[i]) < 1e-7);
    hemi_affine_apply(y, &map, x);
    for (size_t i = 0; i < outputs; i++) scale = fmax(scale, fabs(out.v[i]));
    for (size_t i = 0; i < outputs; i++)
        if (!(fabs(y[i] - out.v[i]) <= 3e-6 * scale + 1e-6))
            fail_msg("output %zu of %zu: %g, not %g", i, outputs, y[i], out.v[i]);
    free(x);
    free(y);
    net_free(n);
    return map;
}

static void check_free(net *n, int kind) {
    hemi_affine map = check_net(n, kind);
    hemi_affine_free(&map);
}

static void refuse_net(net *n, hemi_status status, const char *text) {
    hemi_affine map;
    hemi_error err = {0};
    const sample in = n->input;
    const uint32_t shape2[] = {3, (uint32_t)in.c, (uint32_t)in.h, (uint32_t)in.w},
                   shape1[] = {3, (uint32_t)in.c, (uint32_t)in.w};
    const hemi_status got = import_shape(net_model(n), in.dims == 1 ? shape1 : shape2, in.dims + 2, &map, &err);
    if (got != status || strstr(err.message, text) == NULL)
        fail_msg("%s \"%s\", not %s with \"%s\"", hemi_status_name(got), err.message, hemi_status_name(status), text);
    assert_null(map.weight);
    net_free(n);
}

static size_t pick(test_rng *rng, size_t from, size_t to) { return from + (size_t)test_below(rng, to - from + 1); }

static net random_net(test_rng *rng, uint64_t seed) {
    const size_t dims = pick(rng, 1, 2);
    return net_new(seed, dims, pick(rng, 1, 4), pick(rng, 3, 9), pick(rng, 3, 9));
}

static size_t smaller_side(const sample *x) { return x->dims == 1 || x->w < x->h ? x->w : x->h; }

/* A window that fits. */
static window random_window(test_rng *rng, const sample *x) {
    const size_t side = smaller_side(x);
    window w = {.k = pick(rng, 1, 3), .stride = pick(rng, 1, 3), .dilation = pick(rng, 1, 2), .groups = 1};
    w.begin = pick(rng, 0, 2);
    w.end = pick(rng, 0, 2);
    if ((w.k - 1) * w.dilation + 1 > side + w.begin + w.end) w.k = 1;
    return w;
}

/* ---- one operator */

static void convolutions(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < test_repeat(200); i++) {
        net n = random_net(&rng, i);
        window w = random_window(&rng, &n.now);
        if (i % 3 == 0) w.groups = n.now.c; /* depthwise */
        w.no_bias = i % 5 == 0;
        net_conv(&n, w.groups * pick(&rng, 1, 3), w);
        check_free(&n, ANY);
    }
}

static void transposed_convolutions(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < test_repeat(200); i++) {
        net n = random_net(&rng, i);
        window w = {.k = pick(&rng, 1, 4), .stride = pick(&rng, 1, 4), .dilation = pick(&rng, 1, 2), .groups = 1};
        w.begin = pick(&rng, 0, w.k - 1);
        w.end = pick(&rng, 0, w.k - 1);
        w.output_padding = w.stride > 1 ? pick(&rng, 0, w.stride - 1) : 0;
        if (i % 3 == 0) w.groups = n.now.c;
        if ((smaller_side(&n.now) - 1) * w.stride + (w.k - 1) * w.dilation + w.output_padding < w.begin + w.end)
            w.begin = w.end = 0; /* would leave nothing */
        net_conv_transpose(&n, w.groups * pick(&rng, 1, 3), w);
        check_free(&n, ANY);
    }
}

static void averages(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < test_repeat(200); i++) {
        net n = random_net(&rng, i);
        window w = {.k = pick(&rng, 1, 3), .stride = pick(&rng, 1, 3), .dilation = 1, .groups = 1};
        w.begin = pick(&rng, 0, w.k / 2);
        w.end = pick(&rng, 0, w.k / 2);
        net_average(&n, w, i % 2 == 0, i % 4 < 2);
        check_free(&n, ANY);
    }
    net n = net_new(1, 2, 4, 6, 6); /* the usual one stays a convolution */
    net_average(&n, (window){.k = 2, .stride = 2, .dilation = 1}, false, false);
    hemi_affine map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.taps, 1);
    assert_int_equal(map.inputs, 16);
    hemi_affine_free(&map);
    n = net_new(1, 2, 3, 4, 5);
    net_global_average(&n);
    check_free(&n, HEMI_AFFINE_DENSE);
}

static void automatic_padding(void **state) {
    (void)state;
    static const char *const modes[] = {"SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"};
    for (size_t m = 0; m < 4; m++)
        for (int64_t stride = 1; stride < 4; stride++)
            for (int64_t k = 1; k < 5; k++) {
                const int64_t in = 7, out = m < 2 ? (in + stride - 1) / stride : (in - k) / stride + 1;
                const int64_t missing = m < 2 && (out - 1) * stride + k > in ? (out - 1) * stride + k - in : 0;
                const int64_t begin = m == 1 ? missing - missing / 2 : missing / 2, dims[] = {1, 1, k},
                              x[] = {1, 1, in};
                float w[4] = {1, 10, 100, 1000};
                pb g = {0}, a = attribute("auto_pad", 3);
                graph_input(&g, "x", x, 3);
                graph_output(&g, "y");
                graph_floats(&g, "w", dims, 3, w);
                pb node = new_node("Conv", "n", "x,w", "y");
                add_ints(&node, "strides", &stride, 1);
                pb_string(&a, 4, modes[m]);
                pb_message(&node, 5, a);
                graph_node(&g, node);
                hemi_affine map;
                hemi_error err = {0};
                assert_ok(import_shape(model_of(g, 13), (const uint32_t[]){1, 1, 7}, 3, &map, &err), &err);
                assert_int_equal(hemi_affine_outputs(&map), out);
                const float input[] = {1, 2, 3, 4, 5, 6, 7};
                double y[8];
                hemi_affine_apply(y, &map, input);
                for (int64_t i = 0; i < out; i++) {
                    double sum = 0;
                    for (int64_t j = 0; j < k; j++) {
                        const int64_t at = i * stride + j - begin;
                        if (at >= 0 && at < in) sum += (double)(w[j] * input[at]);
                    }
                    assert_true(fabs(sum - y[i]) < 1e-9);
                }
                hemi_affine_free(&map);
            }
}

/* ---- several */

static const window same3 = {.k = 3, .stride = 1, .dilation = 1, .begin = 1, .end = 1, .groups = 1},
                    valid3 = {.k = 3, .stride = 1, .dilation = 1, .groups = 1},
                    one = {.k = 1, .stride = 1, .dilation = 1, .groups = 1},
                    strided = {.k = 3, .stride = 2, .dilation = 1, .begin = 1, .end = 1, .groups = 1},
                    up2 = {.k = 2, .stride = 2, .dilation = 1, .groups = 1};

static void random_chains(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < test_repeat(300); i++) {
        net n = random_net(&rng, 1000 + i);
        char branch[32] = "";
        bool weights = false;
        sample value = {.v = NULL};
        for (size_t j = pick(&rng, 2, 4); j > 0; j--) {
            if (pick(&rng, 0, 5) == 0 && !value.v) {
                value = sample_copy(&n.now);
                memcpy(branch, n.last, sizeof branch);
            }
            const size_t op = pick(&rng, 0, 8);
            weights |= op < 2 || op == 7;
            switch (op) {
            case 0:
            case 1: {
                window w = random_window(&rng, &n.now);
                net_conv(&n, pick(&rng, 1, 4), w);
                break;
            }
            case 2:
                if (n.now.w < 12) net_conv_transpose(&n, pick(&rng, 1, 3), up2);
                break;
            case 3:
                net_batchnorm(&n);
                break;
            case 4:
                net_constant(&n, pick(&rng, 0, 1) ? "Add" : "Sub", (int)pick(&rng, 0, 2));
                break;
            case 5:
                net_constant(&n, pick(&rng, 0, 1) ? "Mul" : "Div", (int)pick(&rng, 0, 2));
                break;
            case 6: {
                const size_t begin = pick(&rng, 0, 2), end = pick(&rng, 0, 3); /* one more than what is added */
                net_pad(&n, (int64_t)begin, (int64_t)(smaller_side(&n.now) + begin + end > 1 ? end : end + 1) - 1);
                break;
            }
            case 7:
                net_conv(&n, n.now.c, one);
                break;
            default: {
                const bool room = n.now.w > 1 && (n.now.dims == 1 || n.now.h > 1);
                net_average(&n, (window){.k = room ? 2 : 1, .stride = 1, .dilation = 1}, false, false);
            }
            }
        }
        if (value.v && value.c == n.now.c && value.h == n.now.h && value.w == n.now.w)
            net_add(&n, branch, &value);
        else if (value.v && value.h == n.now.h && value.w == n.now.w)
            net_concat(&n, branch, &value);
        else
            free(value.v);
        if (!weights) net_conv(&n, 2, one);
        bool wild = false;
        for (size_t k = 0; k < sample_count(&n.now); k++)
            wild |= fabs(n.now.v[k]) > 1e6; /* divided by next to nothing */
        if (pick(&rng, 0, 3) == 0) {
            net_flatten(&n);
            net_linear(&n, 5);
        }
        if (n.nodes == 0 || wild) {
            free(net_model(&n).data);
            net_free(&n);
            continue;
        }
        check_free(&n, ANY);
    }
}

/* What is one convolution stays one. */
static void compositions(void **state) {
    (void)state;
    net n = net_new(1, 2, 3, 8, 8); /* 3 x 3, then 1 x 1 */
    net_conv(&n, 5, same3);
    net_conv(&n, 4, one);
    hemi_affine map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.taps, 9);
    hemi_affine_free(&map);

    n = net_new(2, 2, 3, 8, 8); /* the second reads no zeros: 5 x 5 */
    net_conv(&n, 5, same3);
    net_conv(&n, 4, valid3);
    map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.taps, 25);
    hemi_affine_free(&map);
}

static void compositions_without_padding(void **state) {
    (void)state;
    net n = net_new(2, 2, 3, 8, 9);
    net_conv(&n, 5, valid3);
    net_conv(&n, 4, valid3);
    hemi_affine map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.taps, 25);
    hemi_affine_free(&map);

    window plain = one;
    plain.no_bias = true;
    n = net_new(3, 2, 3, 8, 8); /* 1 x 1, then padding */
    net_conv(&n, 5, plain);
    net_conv(&n, 4, same3);
    map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.taps, 9);
    hemi_affine_free(&map);

    n = net_new(3, 2, 3, 8, 8); /* with a bias, which then differs at the border */
    net_conv(&n, 5, one);
    net_conv(&n, 4, same3);
    check_free(&n, HEMI_AFFINE_DENSE);

    n = net_new(4, 2, 3, 8, 8); /* twice 3 x 3 with padding is none */
    net_conv(&n, 5, same3);
    net_conv(&n, 4, same3);
    check_free(&n, HEMI_AFFINE_DENSE);

    n = net_new(5, 2, 3, 9, 9); /* zeros first */
    net_pad(&n, 2, 1);
    net_conv(&n, 4, strided);
    check_free(&n, HEMI_AFFINE_GRID);

    n = net_new(6, 2, 3, 9, 9); /* folded */
    net_conv(&n, 4, strided);
    net_batchnorm(&n);
    net_constant(&n, "Mul", 1);
    net_constant(&n, "Add", 1);
    map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.taps, 4); /* of pairs of rows and columns */
    assert_int_equal(map.inputs, 12);
    hemi_affine_free(&map);

    n = net_new(7, 2, 4, 6, 7); /* up and down again */
    net_conv_transpose(&n, 3, up2);
    net_average(&n, (window){.k = 2, .stride = 2, .dilation = 1}, false, false);
    map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.taps, 1);
    assert_int_equal(map.inputs, 4);
    hemi_affine_free(&map);
}

/* Rows and columns that no weight reads are not part of the map. */
static void skipped_rows(void **state) {
    (void)state;
    net n = net_new(1, 2, 3, 9, 10);
    net_conv(&n, 4, (window){.k = 1, .stride = 2, .dilation = 1, .groups = 1});
    hemi_affine map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.inputs, 3);
    assert_int_equal(map.grid.in_skip_y, 2);
    assert_int_equal(map.grid.in_skip_x, 2);
    hemi_affine_free(&map);

    n = net_new(2, 1, 3, 1, 23); /* every second of every second */
    net_conv(&n, 4, (window){.k = 2, .stride = 4, .dilation = 2, .groups = 1});
    map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.grid.in_skip_x, 2);
    assert_int_equal(map.grid.in_step_x, 2);
    assert_int_equal(map.inputs, 6);
    hemi_affine_free(&map);

    n = net_new(3, 2, 3, 9, 10); /* odd rows: nothing is skipped */
    net_conv(&n, 4, (window){.k = 1, .stride = 2, .dilation = 1, .begin = 1, .end = 1, .groups = 1});
    map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.grid.in_skip_y, 1);
    hemi_affine_free(&map);
}

static void branches(void **state) {
    (void)state;
    net n = net_new(1, 2, 4, 8, 8);
    sample x = sample_copy(&n.now);
    net_conv(&n, 4, same3);
    net_add(&n, "x", &x);
    hemi_affine map = check_net(&n, HEMI_AFFINE_GRID);
    assert_int_equal(map.taps, 9);
    hemi_affine_free(&map);

    n = net_new(2, 2, 4, 8, 8); /* two strides on the way, one step beside it */
    x = sample_copy(&n.now);
    net_conv(&n, 6, strided);
    net_conv_transpose(&n, 4, up2);
    net_add(&n, "x", &x);
    check_free(&n, HEMI_AFFINE_GRID);

    n = net_new(3, 1, 4, 1, 12);
    x = sample_copy(&n.now);
    net_conv(&n, 3, same3);
    net_concat(&n, "x", &x);
    check_free(&n, HEMI_AFFINE_GRID);
}

static void whole_samples(void **state) {
    (void)state;
    net n = net_new(1, 2, 3, 4, 5);
    net_flatten(&n);
    net_linear(&n, 7);
    hemi_affine map = check_net(&n, HEMI_AFFINE_DENSE);
    assert_int_equal(map.inputs, 60);
    assert_int_equal(map.out_rank, 1);
    hemi_affine_free(&map);

    n = net_new(2, 2, 3, 8, 8);
    net_conv(&n, 8, strided);
    net_batchnorm(&n);
    net_flatten(&n);
    net_constant(&n, "Mul", 2);
    net_linear(&n, 10);
    net_constant(&n, "Add", 0);
    check_free(&n, HEMI_AFFINE_DENSE);

    n = net_new(3, 2, 3, 8, 8);
    net_conv(&n, 8, same3);
    net_global_average(&n);
    net_flatten(&n);
    net_linear(&n, 10);
    check_free(&n, HEMI_AFFINE_DENSE);

    /* the matrix in between would be 16384 x 3072: only the product is kept */
    n = net_new(4, 2, 3, 32, 32);
    net_conv(&n, 16, same3);
    net_flatten(&n);
    net_linear(&n, 4);
    check_free(&n, HEMI_AFFINE_DENSE);
}

static void views(void **state) {
    (void)state;
    const int64_t x[] = {1, 2, 3, 4}, to[] = {0, 6, -1}, swap[] = {0, 2, 1}, dims[] = {5, 4, 1};
    pb g = {0};
    graph_input(&g, "x", x, 4);
    graph_output(&g, "y");
    graph_ints(&g, "to", to, 3);
    graph_op(&g, "Reshape", "x,to", "a"); /* 1 x 6 x 4 */
    pb t = new_node("Transpose", "t", "a", "b");
    add_ints(&t, "perm", swap, 3);
    graph_node(&g, t); /* 1 x 4 x 6 */
    float w[20];
    for (size_t i = 0; i < 20; i++) w[i] = (float)(i + 1);
    graph_floats(&g, "w", dims, 3, w);
    graph_op(&g, "Conv", "b,w", "y"); /* 1 x 5 x 6 */
    hemi_affine map;
    hemi_error err = {0};
    assert_ok(import_shape(model_of(g, 13), (const uint32_t[]){2, 2, 3, 4}, 4, &map, &err), &err);
    assert_int_equal(map.kind, HEMI_AFFINE_DENSE);
    float in[24];
    double y[30];
    for (size_t i = 0; i < 24; i++) in[i] = (float)(i * i % 7);
    hemi_affine_apply(y, &map, in);
    for (size_t o = 0; o < 5; o++)
        for (size_t j = 0; j < 6; j++) {
            double sum = 0;
            for (size_t c = 0; c < 4; c++) sum += (double)(w[o * 4 + c] * in[j * 4 + c]);
            assert_true(y[o * 6 + j] == sum);
        }
    hemi_affine_free(&map);
}

/* torch takes C x H x W too: a graph with Unsqueeze and Squeeze, with or without a batch in the calibration data. */
static void without_a_batch(void **state) {
    (void)state;
    const int64_t x[] = {2, 5, 5}, dims[] = {3, 2, 3, 3}, axis[] = {0};
    float w[54], in[50];
    for (size_t i = 0; i < 54; i++) w[i] = (float)i;
    for (size_t i = 0; i < 50; i++) in[i] = (float)i;
    for (size_t rank = 3; rank <= 4; rank++) {
        pb g = {0};
        graph_input(&g, "x", x, 3);
        graph_output(&g, "y");
        graph_ints(&g, "axis", axis, 1);
        graph_floats(&g, "w", dims, 4, w);
        graph_op(&g, "Unsqueeze", "x,axis", "a");
        graph_op(&g, "Conv", "a,w", "b");
        graph_op(&g, "Squeeze", "b,axis", "y");
        hemi_affine map;
        hemi_error err = {0};
        assert_ok(import_shape(model_of(g, 13), (const uint32_t[]){7, 2, 5, 5} + (4 - rank), rank, &map, &err), &err);
        assert_int_equal(map.kind, HEMI_AFFINE_GRID);
        assert_int_equal(map.in_rank, 3);
        assert_int_equal(map.out_rank, 3);
        assert_int_equal(map.out_shape[0], 3);
        double y[27];
        hemi_affine_apply(y, &map, in);
        double sum = 0;
        for (size_t c = 0; c < 2; c++)
            for (size_t k = 0; k < 9; k++) sum += (double)(w[c * 9 + k] * in[c * 25 + k / 3 * 5 + k % 3]);
        assert_true(y[0] == sum);
        hemi_affine_free(&map);
    }
}

/* The other way about: data of one sample for a graph with a batch. */
static void a_sample_alone(void **state) {
    (void)state;
    net n = net_new(1, 2, 3, 5, 6);
    net_conv(&n, 4, same3);
    hemi_affine map;
    hemi_error err = {0};
    assert_ok(import_shape(net_model(&n), (const uint32_t[]){3, 5, 6}, 3, &map, &err), &err);
    assert_int_equal(map.kind, HEMI_AFFINE_GRID);
    assert_int_equal(map.in_rank, 3);
    assert_int_equal(map.in_shape[0], 3);
    assert_int_equal(map.out_shape[0], 4);
    hemi_affine_free(&map);
    net_free(&n);
}

/* BatchNorm1d of rows is a map of rows. */
static void normalised_rows(void **state) {
    (void)state;
    const int64_t x[] = {0, 3}, dims[] = {2, 3}, two[] = {2};
    const float w[] = {1, 2, 3, 4, 5, 6}, ones[] = {1, 1}, var[] = {0.25f, 4};
    pb g = {0};
    graph_input(&g, "x", x, 2);
    graph_output(&g, "y");
    graph_floats(&g, "w", dims, 2, w);
    graph_floats(&g, "ones", two, 1, ones);
    graph_floats(&g, "var", two, 1, var);
    pb n = new_node("Gemm", "n", "x,w", "a");
    add_int(&n, "transB", 1);
    graph_node(&g, n);
    n = new_node("BatchNormalization", "b", "a,ones,ones,ones,var", "y");
    add_float(&n, "epsilon", 0);
    graph_node(&g, n);
    hemi_affine map;
    hemi_error err = {0};
    assert_ok(import_shape(model_of(g, 13), (const uint32_t[]){9, 3}, 2, &map, &err), &err);
    assert_int_equal(map.kind, HEMI_AFFINE_ROWS);
    assert_true(map.weight[0] == 2 && map.weight[5] == 3 && map.bias[0] == -1 && map.bias[1] == 0.5f);
    hemi_affine_free(&map);
}

/* ---- shapes that a graph computes */

static const int64_t list_one[] = {1}, list_zero[] = {0}, list_minus[] = {-1}, list_least[] = {-INT64_MAX};

/* As torch writes a padding of (1, 2, 0, 1) for an input of four dimensions. */
static void computed_padding(void **state) {
    (void)state;
    const int64_t pairs[] = {1, 2, 0, 1}, four[] = {4}, two[] = {-1, 2}, dims[] = {1, 2, 1, 1};
    const float w[] = {1, 10};
    net n = net_new(1, 2, 2, 4, 5);
    graph_ints(&n.graph, "pairs", pairs, 4);
    graph_ints(&n.graph, "four", four, 1);
    graph_ints(&n.graph, "two", two, 2);
    graph_ints(&n.graph, "zero", list_zero, 1);
    graph_ints(&n.graph, "minus", list_minus, 1);
    graph_ints(&n.graph, "least", list_least, 1);
    graph_floats(&n.graph, "w", dims, 4, w);
    pb node = new_node("ConstantOfShape", "n1", "four", "rest");
    add_tensor(&node, "value", tensor_raw("", ONNX_INT64, list_one, 1, list_zero, 8));
    graph_node(&n.graph, node);
    node = new_node("Concat", "n2", "pairs,rest", "all");
    add_int(&node, "axis", 0);
    graph_node(&n.graph, node);
    graph_op(&n.graph, "Reshape", "all,two", "matrix");
    graph_op(&n.graph, "Slice", "matrix,minus,least,zero,minus", "turned");
    node = new_node("Transpose", "n3", "turned", "columns");
    add_ints(&node, "perm", (const int64_t[]){1, 0}, 2);
    graph_node(&n.graph, node);
    graph_op(&n.graph, "Reshape", "columns,minus", "flat");
    node = new_node("Cast", "n4", "flat", "pads");
    add_int(&node, "to", ONNX_INT64);
    graph_node(&n.graph, node);
    graph_op(&n.graph, "Pad", "x,pads", "padded");
    graph_op(&n.graph, "Conv", "padded,w", "v");
    snprintf(n.last, sizeof n.last, "v");
    sample y = sample_new(2, 1, 5, 8); /* one row below, one column before and two after */
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 5; j++) y.v[i * 8 + 1 + j] = n.now.v[i * 5 + j] + 10 * n.now.v[20 + i * 5 + j];
    net_set(&n, y);
    check_free(&n, HEMI_AFFINE_GRID);
}

/* x.view(x.size(0), -1) of exporters that do not fold it. */
static void computed_view(void **state) {
    (void)state;
    net n = net_new(2, 2, 2, 3, 3);
    graph_ints(&n.graph, "first", list_zero, 1);
    graph_ints(&n.graph, "minus", list_minus, 1);
    graph_op(&n.graph, "Shape", "x", "shape");
    graph_op(&n.graph, "Gather", "shape,first", "batch");
    pb node = new_node("Concat", "n", "batch,minus", "to");
    add_int(&node, "axis", 0);
    graph_node(&n.graph, node);
    graph_op(&n.graph, "Reshape", "x,to", "v");
    snprintf(n.last, sizeof n.last, "v");
    n.flat = true;
    net_linear(&n, 4);
    check_free(&n, HEMI_AFFINE_DENSE);
}

static void bad_integers(void **state) {
    (void)state;
    static const struct {
        const char *op, *inputs;
        int64_t a[4], b[4], c[4];
        size_t na, nb, nc;
    } cases[] = {{"ConstantOfShape", "a", {1000}, {0}, {0}, 1, 1, 1},
                 {"ConstantOfShape", "a", {8, 8, 8}, {0}, {0}, 3, 1, 1},
                 {"ConstantOfShape", "a", {-1}, {0}, {0}, 1, 1, 1},
                 {"Reshape", "a,b", {1, 2, 3}, {2, 2}, {0}, 3, 2, 1},
                 {"Reshape", "a,b", {1, 2, 3}, {-1, 2}, {0}, 3, 2, 1},
                 {"Reshape", "a,b", {1, 2, 3}, {-1, -1}, {0}, 3, 2, 1},
                 {"Reshape", "a,b", {1, 2, 3}, {0}, {0}, 3, 1, 1},
                 {"Reshape", "a,b", {1, 2, 3}, {INT64_MAX, 2}, {0}, 3, 2, 1},
                 {"Slice", "a,b", {1, 2, 3}, {0}, {0}, 3, 1, 1},
                 {"Slice", "a,b,c,c,c", {1, 2, 3}, {0}, {0}, 3, 1, 1},         /* a step of 0 */
                 {"Slice", "a,b,c,b,c", {1, 2, 3}, {7}, {INT64_MIN}, 3, 1, 1}, /* axis 7 */
                 {"Slice", "a,b,c", {1, 2, 3}, {3}, {INT64_MAX}, 3, 1, 1},     /* nothing */
                 {"Slice", "a,b,c", {1, 2, 3}, {0, 1}, {1}, 3, 2, 1},
                 {"Transpose", "a", {1, 2, 3}, {0}, {0}, 3, 1, 1},
                 {"Gather", "a,b", {1, 2, 3}, {3}, {0}, 3, 1, 1},
                 {"Gather", "a,b", {1, 2, 3}, {INT64_MIN}, {0}, 3, 1, 1},
                 {"Squeeze", "a", {1, 2, 3}, {0}, {0}, 3, 1, 1},
                 {"Cast", "a", {1}, {0}, {0}, 1, 1, 1},
                 {"Concat", "a,missing", {1}, {0}, {0}, 1, 1, 1}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        net n = net_new(i, 2, 2, 3, 3);
        graph_ints(&n.graph, "a", cases[i].a, cases[i].na);
        graph_ints(&n.graph, "b", cases[i].b, cases[i].nb);
        graph_ints(&n.graph, "c", cases[i].c, cases[i].nc);
        pb node = new_node(cases[i].op, "n", cases[i].inputs, "i");
        if (strcmp(cases[i].op, "ConstantOfShape") == 0)
            add_tensor(&node, "value", tensor_raw("", ONNX_INT64, list_one, 1, list_zero, 8));
        graph_node(&n.graph, node);
        graph_op(&n.graph, "GlobalAveragePool", "x", "v");
        snprintf(n.last, sizeof n.last, "v");
        hemi_affine map;
        hemi_error err = {0};
        const hemi_status got = import_shape(net_model(&n), (const uint32_t[]){1, 2, 3, 3}, 4, &map, &err);
        if ((got != HEMI_ERR_FORMAT && got != HEMI_ERR_UNSUPPORTED) || err.message[0] == '\0')
            fail_msg("case %zu (%s): %s", i, cases[i].op, hemi_status_name(got));
        net_free(&n);
    }
}

/* ---- refused */

/* One node of an operator on a 3 x 8 x 8 sample, with weights of 4 x 3 x 3 x 3. */
typedef struct bad {
    const char *op, *attribute;
    int64_t list[6];
    size_t count; /* 0: an integer */
    hemi_status status;
    const char *text;
} bad;

static void bad_attributes(void **state) {
    (void)state;
    static const bad cases[] = {
        {"Conv", "pads", {-1, 0, 0, 0}, 4, HEMI_ERR_FORMAT, "pads of -1"},
        {"Conv", "pads", {1, 1}, 2, HEMI_ERR_FORMAT, "2 pads, expected 4"},
        {"Conv", "strides", {0, 1}, 2, HEMI_ERR_FORMAT, "strides of 0"},
        {"Conv", "strides", {INT64_MAX, 1}, 2, HEMI_ERR_FORMAT, "strides of"},
        {"Conv", "dilations", {1, -2}, 2, HEMI_ERR_FORMAT, "dilations of -2"},
        {"Conv", "dilations", {65536, 65536}, 2, HEMI_ERR_SHAPE, "larger than its input"},
        {"Conv", "dilations", {4, 4}, 2, HEMI_ERR_SHAPE, "larger than its input"},
        {"Conv", "kernel_shape", {5, 5}, 2, HEMI_ERR_FORMAT, "kernel_shape"},
        {"Conv", "group", {3}, 0, HEMI_ERR_SHAPE, "do not fit an input of 3 channels"},
        {"Conv", "group", {0}, 0, HEMI_ERR_FORMAT, "bad group"},
        {"Conv", "group", {INT64_MIN}, 0, HEMI_ERR_FORMAT, "bad group"},
        {"ConvTranspose", "strides", {65536, 65536}, 2, HEMI_ERR_UNSUPPORTED, "2^26"},
        {"ConvTranspose", "output_shape", {9, 9}, 2, HEMI_ERR_UNSUPPORTED, "output_shape"},
        {"ConvTranspose", "pads", {65536, 65536, 65536, 65536}, 4, HEMI_ERR_SHAPE, "larger than its input"},
        {"ConvTranspose", "output_padding", {-1, 0}, 2, HEMI_ERR_FORMAT, "output_padding of -1"},
        {"AveragePool", "strides", {1, 1}, 2, HEMI_ERR_FORMAT, "kernel_shape"},
        {"AveragePool", "kernel_shape", {9, 1}, 2, HEMI_ERR_SHAPE, "larger than its input"},
        {"AveragePool", "kernel_shape", {1, 1, 1}, 3, HEMI_ERR_FORMAT, "3 kernel_shape, expected 2"},
        {"AveragePool", "kernel_shape", {0, 1}, 2, HEMI_ERR_FORMAT, "kernel_shape of 0"},
        {"Pad", "pads", {0, 0, 1, 1}, 4, HEMI_ERR_FORMAT, "bad pads"},
        {"Concat", "axis", {2}, 0, HEMI_ERR_UNSUPPORTED, "not along the channels"},
        {"ReduceMean", "axes", {1, 2, 3}, 3, HEMI_ERR_UNSUPPORTED, "not over all sides"},
        {"ReduceMean", "axes", {7}, 1, HEMI_ERR_FORMAT, "bad axis"},
        {"MaxPool", "kernel_shape", {2, 2}, 2, HEMI_ERR_UNSUPPORTED, "MaxPool (node 'n') is not linear"},
        {"InstanceNormalization", "axis", {1}, 0, HEMI_ERR_UNSUPPORTED, "is not linear"},
        {"BatchNormalization", "training_mode", {1}, 0, HEMI_ERR_UNSUPPORTED, "call eval()"},
        {"BatchNormalization", "nothing", {1}, 0, HEMI_ERR_UNSUPPORTED, "computed statistics"},
        {"Reshape", "shape", {-1, 8, 8}, 3, HEMI_ERR_UNSUPPORTED, "changes which numbers make a sample"},
        {"Transpose", "perm", {1, 0, 2, 3}, 4, HEMI_ERR_UNSUPPORTED, "changes which numbers make a sample"},
        {"Squeeze", "axes", {0}, 1, HEMI_ERR_UNSUPPORTED, "changes which numbers make a sample"},
        {"Unsqueeze", "axes", {0}, 1, HEMI_ERR_UNSUPPORTED, "changes which numbers make a sample"}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        const bad *b = &cases[i];
        net n = net_new(i, 2, 3, 8, 8);
        const int64_t dims[] = {strcmp(b->op, "ConvTranspose") == 0 ? 3 : 4,
                                strcmp(b->op, "ConvTranspose") == 0 ? 4 : 3, 3, 3};
        free(net_floats(&n, "w", dims, 4));
        const bool weights = strncmp(b->op, "Conv", 4) == 0;
        pb node = new_node(b->op, "n", weights ? "x,w" : "x", "v");
        if (b->count > 0)
            add_ints(&node, b->attribute, b->list, b->count);
        else
            add_int(&node, b->attribute, b->list[0]);
        graph_node(&n.graph, node);
        /* after something that only samples have */
        graph_op(&n.graph, "GlobalAveragePool", "v", "p");
        snprintf(n.last, sizeof n.last, "p");
        refuse_net(&n, b->status, b->text);
    }
}

static void too_large(void **state) {
    (void)state;
    net m = net_new(1, 2, 16, 40, 40);
    net_batchnorm(&m);
    net_conv(&m, 16, same3);
    refuse_net(&m, HEMI_ERR_UNSUPPORTED, "differs between positions");
    net n = net_new(1, 2, 16, 40, 40); /* two padded ones: 25600^2 weights */
    net_conv(&n, 16, same3);
    net_conv(&n, 16, same3);
    refuse_net(&n, HEMI_ERR_UNSUPPORTED,
               "Conv (node '/1/Conv') does not make one convolution with what comes before it");
    n = net_new(1, 2, 16, 40, 40);
    net_conv(&n, 16, same3);
    net_constant(&n, "Mul", 2);
    refuse_net(&n, HEMI_ERR_UNSUPPORTED, "make what comes before it and the rest two remote modules");
    n = net_new(1, 1, 4, 1, 60000);
    net_flatten(&n);
    net_constant(&n, "Mul", 2);
    refuse_net(&n, HEMI_ERR_UNSUPPORTED, "2^26");
}

/* Files that are not what they were: nothing may be read or written out of bounds, and nothing large be made of little. */
static void damaged_graphs(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const uint32_t shape[] = {2, 3, 6, 7};
    net n = net_new(1, 2, 3, 6, 7);
    sample x = sample_copy(&n.now);
    net_conv(&n, 3, same3);
    net_add(&n, "x", &x);
    net_batchnorm(&n);
    net_conv_transpose(&n, 2, up2);
    net_average(&n, (window){.k = 2, .stride = 2, .dilation = 1, .begin = 1, .end = 1}, true, false);
    net_pad(&n, 1, 0);
    net_flatten(&n);
    net_linear(&n, 3);
    pb model = net_model(&n);
    uint8_t *copy = malloc(model.size);
    size_t taken = 0;
    for (size_t i = 0; i < test_repeat(4000); i++) {
        hemi_affine map;
        memcpy(copy, model.data, model.size);
        for (size_t k = 0, changes = 1 + test_below(&rng, 3); k < changes; k++) {
            const size_t at = test_below(&rng, model.size);
            const unsigned other =
                test_below(&rng, 2) ? (unsigned)test_below(&rng, 256) : copy[at] ^ 1u << test_below(&rng, 8);
            copy[at] = (uint8_t)other;
        }
        if (hemi_onnx_import(&map, copy, model.size, shape, 4, NULL, NULL, NULL) == HEMI_OK) taken++;
        hemi_affine_free(&map);
    }
    printf("  %zu of the damaged graphs are graphs\n", taken);
    free(copy);
    free(model.data);
    net_free(&n);
}

static void ranks(void **state) {
    (void)state;
    hemi_affine map;
    hemi_error err = {0};
    const int64_t five[] = {1, 2, 3, 4, 5}, two[] = {1, 6}, dims[] = {1, 2, 1, 1, 1}, wrong[] = {1, 2, 9, 9};
    float w[2] = {1, 2};
    const struct {
        const int64_t *x;
        size_t rank;
        uint32_t shape[5];
        size_t shape_rank;
        const char *text;
        hemi_status status;
    } cases[] = {{five, 5, {4, 2, 3, 4, 5}, 5, "5 dimensions: N x C x H x W and N x C x L", HEMI_ERR_UNSUPPORTED},
                 {two, 2, {4, 6}, 2, "2 dimensions", HEMI_ERR_UNSUPPORTED},
                 {wrong, 4, {4, 2, 9, 8}, 4, "inputs of 9 features, the calibration data has 8", HEMI_ERR_SHAPE},
                 {wrong, 4, {4, 9}, 2, "not supported", HEMI_ERR_UNSUPPORTED},
                 {wrong, 4, {65536, 65536, 65536, 9}, 4, "dimension 1", HEMI_ERR_SHAPE}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        pb g = {0};
        graph_input(&g, "x", cases[i].x, cases[i].rank);
        graph_output(&g, "y");
        graph_floats(&g, "w", dims, 4, w);
        graph_op(&g, "Conv", "x,w", "y");
        const hemi_status got = import_shape(model_of(g, 13), cases[i].shape, cases[i].shape_rank, &map, &err);
        if (got != cases[i].status || strstr(err.message, cases[i].text) == NULL)
            fail_msg("case %zu: %s", i, err.message);
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(averages),
        cmocka_unit_test(automatic_padding),
        cmocka_unit_test(random_chains),
        cmocka_unit_test(compositions),
        cmocka_unit_test(compositions_without_padding),
        cmocka_unit_test(skipped_rows),
        cmocka_unit_test(branches),
        cmocka_unit_test(whole_samples),
        cmocka_unit_test(views),
        cmocka_unit_test(without_a_batch),
        cmocka_unit_test(a_sample_alone),
        cmocka_unit_test(normalised_rows),
        cmocka_unit_test(computed_padding),
        cmocka_unit_test(computed_view),
        cmocka_unit_test(bad_integers),
        cmocka_unit_test(bad_attributes),
        cmocka_unit_test(too_large),
        cmocka_unit_test(damaged_graphs),
        cmocka_unit_test(ranks),
    };
    return TEST_RUN("samples", tests);
}
