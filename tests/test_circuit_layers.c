/* ONNX to circuits: windows, shapes and quantisers against direct computations, structure that does not follow from weights. */
#include "circuit_fixture.h"

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
        assert_int_equal(height,
                         (s.h - 1) * l->stride[0] + (l->kernel[0] - 1) * l->dilation[0] + 1 - l->pads[0] - l->pads[2]);
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
    pb g = graph_of(dims, 4), n; /* over channels, as an input */
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

static const int64_t dims_network[] = {1, 2, 4, 4};

/* conv, norm, Relu, pool, Flatten, Gemm, plus a residual; with the weights given, at least 36 */
static pb network(const float *w) {
    const int64_t kernel[] = {2, 2, 3, 3}, channels[] = {2}, fc[] = {3, 8}, pads[] = {1, 1, 1, 1}, two[] = {2, 2};
    pb g = graph_of(dims_network, 4);
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
    return g;
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
    hemi_circuit *a = import(network(w), dims_network, 4), *b = import(network(zeros), dims_network, 4);
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

static void damaged_graphs(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const uint32_t shape[] = {3, 2, 4, 4};
    float w[36];
    floats(w, 36, 12);
    pb model = model_of(network(w), 13);
    uint8_t *copy = malloc(model.size);
    size_t taken = 0;
    for (size_t i = 0; i < test_repeat(4000); i++) {
        hemi_circuit *c = NULL;
        double x[32] = {1}, y[64];
        memcpy(copy, model.data, model.size);
        for (size_t k = 0, changes = 1 + test_below(&rng, 3); k < changes; k++) {
            const size_t at = test_below(&rng, model.size);
            const unsigned other =
                test_below(&rng, 2) ? (unsigned)test_below(&rng, 256) : copy[at] ^ 1u << test_below(&rng, 8);
            copy[at] = (uint8_t)other;
        }
        if (hemi_circuit_import(&c, copy, model.size, shape, 4, 0, NULL, NULL, NULL) == HEMI_OK) {
            taken++;
            if (last_of(c)->size <= 64) run(c, x, y);
        }
        hemi_circuit_free(c);
        (void)hemi_circuit_is_needed(copy, model.size);
    }
    printf("  %zu of the damaged graphs are graphs\n", taken);
    free(copy);
    free(model.data);
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
    for (size_t i = 0; i < 12; i++) near(y[i], x[i / 4] * (double)w[i % 4] + x[3 + i / 4] * (double)w[4 + i % 4]);
    hemi_circuit_free(c);
}

/* ---- quantisers */

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
    static const char *const inputs[] = {"x,scale,zero,bits", "r,scale,zero,bits", "x,per,zero,bits",
                                         "x,scale,zero,bits", "x,scale,zero,bits"};
    for (int form = 0; form < 5; form++) { /* the input; after Relu; a scale for each; twice used; FLOOR */
        pb g = graph_of(dims_d, 2), n = quant(inputs[form], form == 3 ? "q" : "y", form != 1);
        scalar(&g, "scale", 0.25f);
        scalar(&g, "zero", 0);
        scalar(&g, "bits", 3);
        graph_floats(&g, "per", vector, 1, per);
        if (form == 1) graph_op(&g, "Relu", "x", "r");
        if (form == 4) {
            free(n.data);
            n = new_node("Quant", "n", inputs[form], "y");
            pb_string(&n, 7, "qonnx.custom_op.general");
            add_string(&n, "rounding_mode", "FLOOR");
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

/* QuantizeLinear and DequantizeLinear: of the input, of weights with a scale for each output, of a bias, after Relu. */
static void eight_bits(void **state) {
    (void)state;
    const int64_t d1[] = {2, D}, outputs[] = {2};
    static const int8_t w[2 * D] = {1, -2, 3, 4, 5, -6, 7, 8, -9, 127, -128, 12};
    static const int8_t zeros[2] = {0, 1};
    static const int32_t b[2] = {100, -200};
    const uint8_t ten = 10;
    pb g = graph_of(dims_d, 2);
    scalar(&g, "s", 0.125f);
    graph_floats(&g, "ws", outputs, 1, (const float[]){0.5f, 0.25f});
    graph_tensor(&g, tensor_raw("w", ONNX_INT8, d1, 2, w, sizeof w));
    graph_tensor(&g, tensor_raw("wz", ONNX_INT8, outputs, 1, zeros, sizeof zeros));
    graph_tensor(&g, tensor_raw("z", ONNX_UINT8, NULL, 0, &ten, 1));
    graph_tensor(&g, tensor_raw("b", ONNX_INT32, outputs, 1, b, sizeof b));
    graph_op(&g, "QuantizeLinear", "x,s,z", "q");
    graph_op(&g, "DequantizeLinear", "q,s,z", "a");
    pb n = new_node("DequantizeLinear", "n", "w,ws,wz", "v");
    add_int(&n, "axis", 0);
    graph_node(&g, n);
    graph_op(&g, "DequantizeLinear", "b,s", "c");
    graph_node(&g, gemm("a,v,c", "h"));
    graph_op(&g, "Relu", "h", "r");
    graph_op(&g, "QuantizeLinear", "r,s", "rq");
    graph_op(&g, "DequantizeLinear", "rq,s", "y");
    hemi_circuit *c = import_bits(g, dims_d, 2, 2);
    const double x[D] = {-9, -0.3, 0.1, 0.43, 0.7, 90};
    double y[2];
    run(c, x, y);
    assert_int_equal(c->values, 3);
    near(c->input_step, 0.125);
    near(c->input_low, -1.25);
    near(c->input_high, 245 * 0.125);
    for (size_t o = 0; o < 2; o++) {
        double sum = 0.125 * b[o];
        for (size_t i = 0; i < D; i++)
            sum += fmin(fmax(rint(x[i] / 0.125), -10), 245) * 0.125 * (o == 0 ? 0.5 * w[i] : 0.25 * (w[D + i] - 1));
        near(y[o], 0.125 * fmin(fmax(rint(sum / 0.125), 0), 255));
    }
    hemi_circuit_free(c);
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
            near((double)c->value[1].a.term[0].map.weight[o * D + j],
                 rint((double)w1[o * D + j] / (max / 3)) * max / 3 / 2);
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
                 (double)(rounded[i * 3 + o] == 0 ? 0
                                                  : largest[o] * (fabsf(w[i * 3 + o]) * 2 > largest[o] ? 1.0f : 0.0f)));
        }
    hemi_circuit_free(c);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),      cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(averages),          cmocka_unit_test(zeros_keep_their_place),
        cmocka_unit_test(damaged_graphs),    cmocka_unit_test(what_the_output_does_not_need),
        cmocka_unit_test(numbers_that_move), cmocka_unit_test(rows_that_are_cut),
        cmocka_unit_test(what_is_repeated),  cmocka_unit_test(quantised_weights),
        cmocka_unit_test(quantised_values),  cmocka_unit_test(eight_bits),
        cmocka_unit_test(rounded_weights),
    };
    return TEST_RUN("circuit_layers", tests);
}
