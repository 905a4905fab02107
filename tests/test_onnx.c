/* ONNX import: what is accepted gives the right map, what is not is refused with a reason, hostile
 * graphs harm nothing. Bytes are in test_protobuf.c. */
#include "onnx_fixture.h"

#include "base/memory.h"
#include "model/onnx.h"

#define D 3
#define M 2

static const float w_out_in[M * D] = {1, 2, 3, -4, 5, 0.5f}; /* outputs x inputs */
static const float w_in_out[D * M] = {1, -4, 2, 5, 3, 0.5f}; /* the same, transposed */
static const float bias[M] = {10, -20};
static const int64_t dims_out_in[] = {M, D}, dims_in_out[] = {D, M}, dims_m[] = {M}, dims_x[] = {1, D},
                     dims_batch[] = {0, D};

static hemi_status import_taking(pb model, uint32_t inputs, hemi_affine *map, hemi_error *err) {
    const uint32_t shape[] = {1, inputs};
    const hemi_status status = hemi_onnx_import(map, model.data, model.size, shape, 2, NULL, NULL, err);
    free(model.data);
    return status;
}

/* The graph, which is taken, maps 3 features to 2 by scale * w and b (NULL: none). */
static void check_map(pb graph, const float *w, float scale, const float *b) {
    hemi_affine map;
    hemi_error err = {0};
    assert_ok(import_taking(model_of(graph, 13), D, &map, &err), &err);
    assert_int_equal(map.inputs, D);
    assert_int_equal(map.outputs, M);
    for (size_t i = 0; i < M * D; i++) assert_true(map.weight[i] == scale * w[i]);
    assert_int_equal(map.bias != NULL, b != NULL);
    for (size_t i = 0; b != NULL && i < M; i++) assert_true(map.bias[i] == b[i]);
    hemi_affine_free(&map);
}

static pb graph_with(const int64_t *input, size_t rank) {
    pb g = {0};
    graph_input(&g, "x", input, rank);
    graph_output(&g, "y");
    return g;
}

static void weights(pb *g) {
    graph_floats(g, "w", dims_out_in, 2, w_out_in);
    graph_floats(g, "v", dims_in_out, 2, w_in_out);
    graph_floats(g, "b", dims_m, 1, bias);
}

/* A node of Gemm with transB. */
static pb gemm(const char *inputs, const char *output) {
    pb n = new_node("Gemm", "/m/Gemm", inputs, output);
    add_int(&n, "transB", 1);
    return n;
}

/* ---- accepted */

static void gemm_in_its_forms(void **state) {
    (void)state;
    pb g = graph_with(dims_batch, 2);
    weights(&g);
    graph_node(&g, gemm("x,w,b", "y"));
    check_map(g, w_out_in, 1, bias);

    g = graph_with(dims_x, 2);
    weights(&g);
    graph_op(&g, "Gemm", "x,v", "y");
    check_map(g, w_out_in, 1, NULL);

    g = graph_with(dims_x, 2);
    weights(&g);
    pb n = gemm("x,w,b", "y");
    add_float(&n, "alpha", 2);
    add_float(&n, "beta", -0.5f);
    graph_node(&g, n);
    check_map(g, w_out_in, 2, (const float[]){-5, 10});

    const int64_t row[] = {1, M};
    g = graph_with(dims_x, 2);
    weights(&g);
    graph_floats(&g, "c", row, 2, bias);
    graph_floats(&g, "scalar", NULL, 0, (const float[]){7});
    graph_node(&g, gemm("x,w,c", "z"));
    graph_op(&g, "Add", "scalar,z", "y");
    check_map(g, w_out_in, 1, (const float[]){17, -13});
}

static void matmul_and_add(void **state) {
    (void)state;
    const int64_t x3[] = {1, 4, D};
    for (int order = 0; order < 2; order++) {
        pb g = graph_with(x3, 3);
        weights(&g);
        graph_op(&g, "MatMul", "x,v", "z");
        graph_op(&g, "Add", order == 0 ? "z,b" : "b,z", "y");
        check_map(g, w_out_in, 1, bias);
    }
    pb g = graph_with(x3, 3); /* the weight stored as the layer has it */
    weights(&g);
    graph_op(&g, "Transpose", "w", "t");
    graph_op(&g, "MatMul", "x,t", "z");
    graph_op(&g, "Sub", "z,b", "y");
    check_map(g, w_out_in, 1, (const float[]){-10, 20});

    g = graph_with(dims_x, 2); /* b - x W */
    weights(&g);
    graph_op(&g, "MatMul", "x,v", "z");
    graph_op(&g, "Sub", "b,z", "y");
    check_map(g, w_out_in, -1, bias);
}

static void scaling(void **state) {
    (void)state;
    pb g = graph_with(dims_x, 2);
    weights(&g);
    graph_floats(&g, "two", NULL, 0, (const float[]){2});
    graph_node(&g, gemm("x,w,b", "p"));
    graph_op(&g, "Mul", "two,p", "q");
    graph_op(&g, "Div", "q,two", "r");
    graph_op(&g, "Mul", "r,two", "s");
    graph_op(&g, "Neg", "s", "y");
    check_map(g, w_out_in, -2, (const float[]){-20, 40});

    g = graph_with(dims_x, 2); /* before the layer */
    weights(&g);
    graph_floats(&g, "two", NULL, 0, (const float[]){2});
    graph_op(&g, "Mul", "x,two", "p");
    graph_op(&g, "Add", "p,two", "q");
    graph_node(&g, gemm("q,w,b", "y"));
    check_map(g, w_out_in, 2, (const float[]){10 + 12, -20 + 3});
}

static void layers_in_sequence(void **state) {
    (void)state;
    static const float first[D * D] = {1, 0, 2, 0, 1, 0, 0, 3, 1}, first_b[D] = {1, 2, 3};
    float product[M * D], b[M];
    for (size_t o = 0; o < M; o++) {
        b[o] = bias[o];
        for (size_t k = 0; k < D; k++) b[o] += w_out_in[o * D + k] * first_b[k];
        for (size_t j = 0; j < D; j++) {
            product[o * D + j] = 0;
            for (size_t k = 0; k < D; k++) product[o * D + j] += w_out_in[o * D + k] * first[k * D + j];
        }
    }
    const int64_t square[] = {D, D}, vector[] = {D};
    pb g = graph_with(dims_x, 2);
    weights(&g);
    graph_floats(&g, "first", square, 2, first);
    graph_floats(&g, "first_b", vector, 1, first_b);
    graph_node(&g, gemm("x,first,first_b", "h"));
    graph_op(&g, "Dropout", "h", "i");
    graph_op(&g, "Identity", "i", "j");
    graph_node(&g, gemm("j,w,b", "y"));
    check_map(g, product, 1, b);

    /* x + first x, then the layer: a residual connection is linear */
    float residual[D * D];
    for (size_t i = 0; i < D * D; i++) residual[i] = first[i] + (i % (D + 1) == 0);
    for (size_t i = 0; i < M * D; i++) product[i] = 0;
    for (size_t o = 0; o < M; o++)
        for (size_t k = 0; k < D; k++)
            for (size_t j = 0; j < D; j++) product[o * D + j] += w_out_in[o * D + k] * residual[k * D + j];
    g = graph_with(dims_x, 2);
    weights(&g);
    graph_floats(&g, "first", square, 2, first);
    graph_floats(&g, "first_b", vector, 1, first_b);
    graph_node(&g, gemm("x,first,first_b", "h"));
    graph_op(&g, "Add", "x,h", "i");
    graph_node(&g, gemm("i,w,b", "y"));
    check_map(g, product, 1, b);
}

static void shapes_that_keep_the_features(void **state) {
    (void)state;
    const int64_t x3[] = {0, 1, D}, to2[] = {-1, D}, axis[] = {1}, last[] = {0, -1};
    pb g = graph_with(x3, 3);
    weights(&g);
    graph_ints(&g, "to2", to2, 2);
    graph_ints(&g, "axis", axis, 1);
    graph_ints(&g, "last", last, 2);
    graph_op(&g, "Reshape", "x,to2", "a");
    graph_op(&g, "Unsqueeze", "a,axis", "b1");
    graph_op(&g, "Squeeze", "b1,axis", "c");
    graph_op(&g, "Flatten", "c", "d");
    graph_op(&g, "Reshape", "d,last", "e");
    pb cast = new_node("Cast", "/m/Cast", "e", "f");
    add_int(&cast, "to", ONNX_FLOAT);
    graph_node(&g, cast);
    pb squeeze = new_node("Squeeze", "/m/Squeeze", "h", "y"); /* axes as an attribute, as before operator set 13 */
    add_ints(&squeeze, "axes", (const int64_t[]){0}, 1);
    pb unsqueeze = new_node("Unsqueeze", "/m/Unsqueeze", "z", "h");
    add_ints(&unsqueeze, "axes", (const int64_t[]){0}, 1);
    graph_node(&g, gemm("f,w,b", "z"));
    graph_node(&g, unsqueeze);
    graph_node(&g, squeeze);
    check_map(g, w_out_in, 1, bias);

    /* Conv1D of transformers, for a fixed number of rows: more than there are features */
    const int64_t rows3[] = {1, 20, D}, back[] = {1, 20, M};
    g = graph_with(rows3, 3);
    weights(&g);
    graph_ints(&g, "to2", to2, 2);
    graph_ints(&g, "back", back, 3);
    graph_op(&g, "Reshape", "x,to2", "a");
    graph_node(&g, gemm("a,w,b", "z"));
    graph_op(&g, "Reshape", "z,back", "y");
    check_map(g, w_out_in, 1, bias);

    g = graph_with(x3, 3); /* Flatten of (batch, 1, features) */
    weights(&g);
    graph_op(&g, "Flatten", "x", "z");
    graph_node(&g, gemm("z,w,b", "y"));
    check_map(g, w_out_in, 1, bias);
}

static void constants_in_every_form(void **state) {
    (void)state;
    /* as nodes */
    pb g = graph_with(dims_x, 2);
    pb n = new_node("Constant", "/m/Constant", "", "w");
    add_tensor(&n, "value", tensor_raw("", ONNX_FLOAT, dims_out_in, 2, w_out_in, sizeof w_out_in));
    graph_node(&g, n);
    n = new_node("Constant", "/m/Constant_1", "", "half");
    add_float(&n, "value_float", 0.5f);
    graph_node(&g, n);
    graph_node(&g, gemm("x,w", "z"));
    graph_op(&g, "Mul", "z,half", "y");
    check_map(g, w_out_in, 0.5f, NULL);
    /* as an old file has it: the weight is an input, too; float_data */
    g = graph_with(dims_x, 2);
    graph_input(&g, "w", dims_out_in, 2);
    pb t = tensor_raw("w", ONNX_FLOAT, dims_out_in, 2, NULL, 0), packed = {0};
    pb_raw(&packed, w_out_in, sizeof w_out_in);
    pb_message(&t, 4, packed);
    graph_tensor(&g, t);
    graph_node(&g, gemm("x,w", "y"));
    check_map(g, w_out_in, 1, NULL);
    /* not packed */
    g = graph_with(dims_x, 2);
    t = tensor_raw("w", ONNX_FLOAT, dims_out_in, 2, NULL, 0);
    for (size_t i = 0; i < M * D; i++) pb_float(&t, 4, w_out_in[i]);
    graph_tensor(&g, t);
    graph_node(&g, gemm("x,w", "y"));
    check_map(g, w_out_in, 1, NULL);
    /* other types: 1, 2, 3, -4, 5, 0.5 */
    static const double f64[] = {1, 2, 3, -4, 5, 0.5};
    static const uint16_t f16[] = {0x3c00, 0x4000, 0x4200, 0xc400, 0x4500, 0x3800};
    static const uint16_t bf16[] = {0x3f80, 0x4000, 0x4040, 0xc080, 0x40a0, 0x3f00};
    const struct {
        int type;
        const void *data;
        size_t bytes;
    } types[] = {{ONNX_DOUBLE, f64, sizeof f64}, {ONNX_FLOAT16, f16, sizeof f16}, {ONNX_BFLOAT16, bf16, sizeof bf16}};
    for (size_t i = 0; i < TEST_COUNT(types); i++) {
        g = graph_with(dims_x, 2);
        graph_tensor(&g, tensor_raw("w", types[i].type, dims_out_in, 2, types[i].data, types[i].bytes));
        graph_node(&g, gemm("x,w", "y"));
        check_map(g, w_out_in, 1, NULL);
    }
}

static void half_precision_values(void **state) {
    (void)state;
    static const uint16_t bits[] = {0x0000, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x8001};
    static const float values[] = {0, 0x1p-24f, 1023 * 0x1p-24f, 0x1p-14f, 65504, -0x1p-24f};
    const int64_t dims[] = {6, 1}, x[] = {1, 1};
    pb g = graph_with(x, 2);
    graph_tensor(&g, tensor_raw("w", ONNX_FLOAT16, dims, 2, bits, sizeof bits));
    graph_node(&g, gemm("x,w", "y"));
    hemi_affine map;
    hemi_error err = {0};
    assert_ok(import_taking(model_of(g, 13), 1, &map, &err), &err);
    for (size_t i = 0; i < 6; i++) assert_true(map.weight[i] == values[i]);
    hemi_affine_free(&map);
}

static void large_product_of_matrices(void **state) {
    (void)state;
    enum { A = 70, B = 600, C = 33 }; /* inputs, hidden, outputs: strips and their ends */
    test_rng rng = test_rng_new();
    float *u = hemi_alloc(B * A, 4), *v = hemi_alloc(C * B, 4);
    for (size_t i = 0; i < B * A; i++) u[i] = (float)test_real(&rng);
    for (size_t i = 0; i < C * B; i++) v[i] = (float)test_real(&rng);
    const int64_t du[] = {B, A}, dv[] = {C, B}, x[] = {1, A};
    pb g = graph_with(x, 2);
    graph_floats(&g, "u", du, 2, u);
    graph_floats(&g, "v", dv, 2, v);
    graph_node(&g, gemm("x,u", "h"));
    graph_node(&g, gemm("h,v", "y"));
    hemi_affine map;
    hemi_error err = {0};
    assert_ok(import_taking(model_of(g, 13), A, &map, &err), &err);
    for (size_t o = 0; o < C; o++)
        for (size_t j = 0; j < A; j++) {
            double sum = 0;
            for (size_t k = 0; k < B; k++) sum += (double)v[o * B + k] * (double)u[k * A + j];
            assert_true(fabs(sum - (double)map.weight[o * A + j]) < 1e-5);
        }
    hemi_affine_free(&map);
    hemi_free(u);
    hemi_free(v);
}

/* ---- refused */

static void refused(pb graph, hemi_status status, const char *text) {
    hemi_affine map;
    hemi_error err = {0};
    const hemi_status got = import_taking(model_of(graph, 13), D, &map, &err);
    if (got != status || strstr(err.message, text) == NULL)
        fail_msg("%s \"%s\", not %s with \"%s\"", hemi_status_name(got), err.message, hemi_status_name(status), text);
    assert_null(map.weight);
}

/* One node between x and y. */
static pb one_op(const char *op, const char *inputs) {
    pb g = graph_with(dims_x, 2);
    weights(&g);
    graph_op(&g, op, inputs, "y");
    return g;
}

static void what_is_not_linear(void **state) {
    (void)state;
    static const char *const not_linear[] = {"Relu",    "Sigmoid",           "Tanh", "Gelu", "Softmax", "Erf", "Clip",
                                             "MaxPool", "LayerNormalization"};
    for (size_t i = 0; i < TEST_COUNT(not_linear); i++) {
        char text[128];
        snprintf(text, sizeof text,
                 "%s (node '/m/%s') is not linear: choose the Linear modules around it, such as seq.0 and seq.2",
                 not_linear[i], not_linear[i]);
        refused(one_op(not_linear[i], "x"), HEMI_ERR_UNSUPPORTED, text);
    }
    static const char *const unknown[] = {"Conv3D", "If", "Loop", "LSTM", "Gather", "", "Gemm2", "gemm", "%s%s%n"};
    for (size_t i = 0; i < TEST_COUNT(unknown); i++)
        refused(one_op(unknown[i], "x"), HEMI_ERR_UNSUPPORTED, "is not supported");
    refused(one_op("MatMul", "x,x"), HEMI_ERR_UNSUPPORTED, "is not linear");
    refused(one_op("Mul", "x,x"), HEMI_ERR_UNSUPPORTED, "is not linear");
    refused(one_op("Div", "b,x"), HEMI_ERR_UNSUPPORTED, "is not linear");
    refused(one_op("MatMul", "w,x"), HEMI_ERR_UNSUPPORTED, "mixes rows");
    refused(one_op("Gemm", "w,x"), HEMI_ERR_UNSUPPORTED, "on the left");
    refused(one_op("Identity", "x"), HEMI_ERR_UNSUPPORTED, "no weights");
    refused(one_op("Identity", "w"), HEMI_ERR_UNSUPPORTED, "no weights");
    refused(one_op("Add", "w,v"), HEMI_ERR_UNSUPPORTED, "two constants");
    refused(one_op("Neg", "w"), HEMI_ERR_UNSUPPORTED, "of a constant");
    pb g = graph_with(dims_x, 2);
    pb n = new_node("Gemm", "n", "x,w", "y");
    pb_string(&n, 7, "com.example");
    graph_node(&g, n);
    weights(&g);
    refused(g, HEMI_ERR_UNSUPPORTED, "Gemm (node 'n') is not supported");
}

static void names_are_made_printable(void **state) {
    (void)state;
    pb g = graph_with(dims_x, 2);
    graph_node(
        &g,
        new_node("Re\nlu\x1b[31m",
                 "a\xff\xfe"
                 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
                 "x", "y"));
    refused(g, HEMI_ERR_UNSUPPORTED, "Re?lu?[31m (node 'a??bbbb");
}

static void what_changes_rows_or_shapes(void **state) {
    (void)state;
    /* the second when the last dimensions are a sample: the graph has as many as the calibration data */
    const char *feature_changes = "changes which numbers make a row", *sample_changes = "changes which numbers make a sample";
    const int64_t x3[] = {1, 2, D}, bad_shape[] = {D, 1}, two_open[] = {-1, -1}, huge[] = {INT64_C(1) << 40, -1},
                  negative[] = {-2, D};
    const struct {
        const char *op;
        const int64_t *x;
        size_t rank;
        const int64_t *list;
        size_t count;
        const char *text;
    } cases[] = {
        {"Flatten", x3, 3, NULL, 0, feature_changes},     {"Reshape", dims_x, 2, bad_shape, 2, sample_changes},
        {"Reshape", dims_x, 2, two_open, 2, "bad shape"}, {"Reshape", dims_x, 2, huge, 2, "bad shape"},
        {"Reshape", dims_x, 2, negative, 2, "bad shape"}, {"Transpose", dims_x, 2, NULL, 0, sample_changes},
        {"Squeeze", dims_x, 2, dims_m, 1, "bad axis"},    {"Unsqueeze", dims_x, 2, dims_m, 1, "two dimensions"},
        {"Squeeze", dims_x, 2, negative, 2, "bad axis"},  {"Unsqueeze", dims_x, 2, huge, 1, "bad axis"}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        pb g = graph_with(cases[i].x, cases[i].rank);
        weights(&g);
        if (cases[i].list != NULL) graph_ints(&g, "list", cases[i].list, cases[i].count);
        graph_op(&g, cases[i].op, cases[i].list != NULL ? "x,list" : "x", "z");
        graph_node(&g, gemm("z,w", "y"));
        const bool format = strncmp(cases[i].text, "bad", 3) == 0;
        refused(g, format ? HEMI_ERR_FORMAT : HEMI_ERR_UNSUPPORTED, cases[i].text);
    }
    pb g = graph_with(dims_x, 2);
    weights(&g);
    pb n = gemm("x,w", "y");
    add_int(&n, "transA", 1);
    graph_node(&g, n);
    refused(g, HEMI_ERR_UNSUPPORTED, "transA");
    g = graph_with(x3, 3);
    weights(&g);
    graph_node(&g, gemm("x,w", "y"));
    refused(g, HEMI_ERR_UNSUPPORTED, "two dimensions");
    const int64_t to2[] = {-1, D}, too_many[] = {INT64_C(1) << 40, 2, D};
    g = graph_with(x3, 3);
    weights(&g);
    graph_ints(&g, "to2", to2, 2);
    graph_ints(&g, "many", too_many, 3);
    graph_op(&g, "Reshape", "x,to2", "a");
    graph_op(&g, "Reshape", "a,many", "c");
    graph_op(&g, "MatMul", "c,wt", "y");
    refused(g, HEMI_ERR_FORMAT, "bad shape");
}

static void wrong_sizes(void **state) {
    (void)state;
    refused(one_op("Gemm", "x,w"), HEMI_ERR_SHAPE, "weights for 2 features, its input has 3");
    refused(one_op("MatMul", "x,w"), HEMI_ERR_SHAPE, "weights for 2 features");
    refused(one_op("Add", "x,b"), HEMI_ERR_SHAPE, "2 numbers for 3 features");
    refused(one_op("MatMul", "x,b"), HEMI_ERR_UNSUPPORTED, "not a matrix");
    refused(one_op("Add", "x,v"), HEMI_ERR_SHAPE, "does not fit its input");
    const int64_t x4[] = {1, 4};
    pb g = graph_with(x4, 2);
    weights(&g);
    graph_node(&g, gemm("x,w", "y"));
    refused(g, HEMI_ERR_SHAPE, "inputs of 4 features, the calibration data has 3");
}

static void missing_and_cyclic(void **state) {
    (void)state;
    refused(one_op("Gemm", "x,missing"), HEMI_ERR_FORMAT, "'missing', which nothing before it gives");
    refused(one_op("Gemm", "x"), HEMI_ERR_FORMAT, "fewer than two inputs");
    refused(one_op("Gemm", ""), HEMI_ERR_FORMAT, "fewer than two inputs");
    refused(one_op("Relu", ""), HEMI_ERR_UNSUPPORTED, "Relu");
    refused(one_op("Identity", "y"), HEMI_ERR_FORMAT, "cycle");
    pb g = graph_with(dims_x, 2);
    graph_op(&g, "Add", "x,q", "p");
    graph_op(&g, "Identity", "p", "q");
    refused(g, HEMI_ERR_FORMAT, "'q', which nothing before it gives (a missing weight, or a cycle)");
    g = one_op("Identity", "x");
    graph_op(&g, "Identity", "x", "y");
    refused(g, HEMI_ERR_FORMAT, "'y' is given twice");
    g = one_op("Identity", "x");
    weights(&g);
    refused(g, HEMI_ERR_FORMAT, "'w' is given twice");
    g = (pb){0};
    graph_input(&g, "x", dims_x, 2);
    graph_output(&g, "nothing");
    refused(g, HEMI_ERR_FORMAT, "nothing gives");
    g = (pb){0};
    graph_output(&g, "y");
    refused(g, HEMI_ERR_FORMAT, "no input");
    g = (pb){0};
    graph_input(&g, "x", dims_x, 2);
    refused(g, HEMI_ERR_FORMAT, "0 outputs");
    g = graph_with(dims_x, 2);
    graph_output(&g, "z");
    refused(g, HEMI_ERR_UNSUPPORTED, "2 outputs");
    g = graph_with(dims_x, 2);
    graph_input(&g, "x2", dims_x, 2);
    refused(g, HEMI_ERR_UNSUPPORTED, "several inputs");
    g = graph_with(dims_x, 2);
    graph_node(&g, new_node("Identity", "n", "x", NULL));
    refused(g, HEMI_ERR_FORMAT, "no output");
}

static void bad_tensors(void **state) {
    (void)state;
    const int64_t negative[] = {-1, D}, zero[] = {0, D}, huge[] = {INT64_MAX, INT64_MAX},
                  overflow[] = {INT64_C(1) << 32, INT64_C(1) << 32};
    const int64_t nine[] = {1, 1, 1, 1, 1, 1, 1, M, D};
    const struct {
        int type;
        const int64_t *dims;
        size_t rank, bytes;
        hemi_status status;
        const char *text;
    } cases[] = {{ONNX_FLOAT, negative, 2, 24, HEMI_ERR_FORMAT, "dimension of -1"},
                 {ONNX_FLOAT, zero, 2, 0, HEMI_ERR_FORMAT, "dimension of 0"},
                 {ONNX_FLOAT, huge, 2, 24, HEMI_ERR_FORMAT, "too large"},
                 {ONNX_FLOAT, overflow, 2, 24, HEMI_ERR_FORMAT, "too large"},
                 {ONNX_FLOAT, dims_out_in, 2, 23, HEMI_ERR_FORMAT, "5 numbers where its dimensions ask for 6"},
                 {ONNX_FLOAT, dims_out_in, 2, 20, HEMI_ERR_FORMAT, "5 numbers"},
                 {ONNX_FLOAT, dims_out_in, 2, 0, HEMI_ERR_FORMAT, "0 numbers"},
                 {ONNX_DOUBLE, dims_out_in, 2, 24, HEMI_ERR_FORMAT, "3 numbers"},
                 {ONNX_FLOAT, nine, 9, 24, HEMI_ERR_UNSUPPORTED, "9 dimensions"},
                 {ONNX_UINT8, dims_out_in, 2, 6, HEMI_ERR_UNSUPPORTED, "holds integers"},
                 {ONNX_STRING, dims_out_in, 2, 6, HEMI_ERR_UNSUPPORTED, "data type 8"},
                 {-1, dims_out_in, 2, 6, HEMI_ERR_UNSUPPORTED, "data type -1"},
                 {ONNX_INT32, dims_out_in, 2, 24, HEMI_ERR_UNSUPPORTED, "holds integers"}};
    static const uint8_t data[64];
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        pb g = graph_with(dims_x, 2);
        graph_tensor(&g, tensor_raw("w", cases[i].type, cases[i].dims, cases[i].rank, data, cases[i].bytes));
        graph_node(&g, gemm("x,w", "y"));
        refused(g, cases[i].status, cases[i].text);
    }
    pb g = graph_with(dims_x, 2), t = tensor_raw("w", ONNX_FLOAT, dims_out_in, 2, NULL, 0);
    pb_int(&t, 14, 1);
    graph_tensor(&g, t);
    graph_node(&g, gemm("x,w", "y"));
    refused(g, HEMI_ERR_UNSUPPORTED, "in another file");
    g = graph_with(dims_x, 2);
    pb n = new_node("Constant", "n", "", "w");
    add_int(&n, "value_strings", 1);
    graph_node(&g, n);
    refused(g, HEMI_ERR_UNSUPPORTED, "not a tensor of numbers");
}

static void bad_input_shapes(void **state) {
    (void)state;
    const int64_t negative[] = {-5, D}, huge[] = {INT64_C(1) << 39, 4, D}, nine[] = {1, 1, 1, 1, 1, 1, 1, 1, D};
    pb g = graph_with(negative, 2);
    refused(g, HEMI_ERR_FORMAT, "dimension of -5");
    g = graph_with(huge, 3);
    refused(g, HEMI_ERR_FORMAT, "dimension of");
    g = graph_with(nine, 9);
    refused(g, HEMI_ERR_UNSUPPORTED, "9 dimensions");
}

static void bad_models(void **state) {
    (void)state;
    hemi_affine map;
    hemi_error err = {0};
    const uint32_t shape[] = {1, D}, no_features[] = {1, 0};
    assert_status(hemi_onnx_import(&map, "", 0, shape, 2, NULL, NULL, &err), HEMI_ERR_FORMAT);
    assert_status(hemi_onnx_import(&map, "PK\3\4", 4, shape, 2, NULL, NULL, &err), HEMI_ERR_FORMAT);
    assert_status(hemi_onnx_import(&map, "", HEMI_ONNX_BYTES_MAX + 1, shape, 2, NULL, NULL, &err), HEMI_ERR_TOO_LARGE);
    assert_status(hemi_onnx_import(&map, "", 0, no_features, 2, NULL, NULL, &err), HEMI_ERR_SHAPE);
    pb m = {0};
    pb_int(&m, 1, 8);
    assert_status(import_taking(m, D, &map, &err), HEMI_ERR_FORMAT); /* no graph */
    assert_status(import_taking(model_of(one_op("Identity", "x"), 6), D, &map, &err), HEMI_ERR_VERSION);
    m = (pb){0};
    pb_message(&m, 7, one_op("Identity", "x"));
    assert_status(import_taking(m, D, &map, &err), HEMI_ERR_FORMAT); /* no operator set */
    m = model_of(one_op("Identity", "x"), 13);
    pb_message(&m, 7, one_op("Identity", "x"));
    assert_status(import_taking(m, D, &map, &err), HEMI_ERR_FORMAT);
    assert_non_null(strstr(err.message, "graph of ModelProto is there twice"));
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_in_its_forms),
        cmocka_unit_test(matmul_and_add),
        cmocka_unit_test(scaling),
        cmocka_unit_test(layers_in_sequence),
        cmocka_unit_test(shapes_that_keep_the_features),
        cmocka_unit_test(constants_in_every_form),
        cmocka_unit_test(half_precision_values),
        cmocka_unit_test(large_product_of_matrices),
        cmocka_unit_test(what_is_not_linear),
        cmocka_unit_test(names_are_made_printable),
        cmocka_unit_test(what_changes_rows_or_shapes),
        cmocka_unit_test(wrong_sizes),
        cmocka_unit_test(missing_and_cyclic),
        cmocka_unit_test(bad_tensors),
        cmocka_unit_test(bad_input_shapes),
        cmocka_unit_test(bad_models),
    };
    return TEST_RUN("onnx", tests);
}
