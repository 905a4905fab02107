/* ONNX files made by hand: a writer of protobuf bytes, and of graphs on top of it. */
#ifndef HEMI_TEST_ONNX_FIXTURE_H
#define HEMI_TEST_ONNX_FIXTURE_H

#include "test.h"

/* ---- protobuf */
typedef struct pb {
    uint8_t *data;
    size_t size, capacity;
} pb;

TEST_UNUSED static void pb_raw(pb *p, const void *bytes, size_t size) {
    if (p->size + size > p->capacity || p->data == NULL) {
        p->capacity = 2 * (p->size + size) + 64;
        p->data = realloc(p->data, p->capacity);
        assert_non_null(p->data);
    }
    if (size > 0) memcpy(p->data + p->size, bytes, size);
    p->size += size;
}

TEST_UNUSED static void pb_varint(pb *p, uint64_t v) {
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
        n++;
    } while (v != 0);
    pb_raw(p, bytes, n);
}

TEST_UNUSED static void pb_tag(pb *p, unsigned field, unsigned wire) { pb_varint(p, (uint64_t)field << 3 | wire); }

TEST_UNUSED static void pb_int(pb *p, unsigned field, int64_t v) {
    pb_tag(p, field, 0);
    pb_varint(p, (uint64_t)v);
}

TEST_UNUSED static void pb_float(pb *p, unsigned field, float v) {
    pb_tag(p, field, 5);
    pb_raw(p, &v, sizeof v);
}

TEST_UNUSED static void pb_bytes(pb *p, unsigned field, const void *bytes, size_t size) {
    pb_tag(p, field, 2);
    pb_varint(p, size);
    pb_raw(p, bytes, size);
}

TEST_UNUSED static void pb_string(pb *p, unsigned field, const char *s) { pb_bytes(p, field, s, strlen(s)); }

/* Takes the child. */
TEST_UNUSED static void pb_message(pb *p, unsigned field, pb child) {
    pb_bytes(p, field, child.data, child.size);
    free(child.data);
}

/* ---- tensors and attributes */
enum {
    ONNX_FLOAT = 1,
    ONNX_UINT8 = 2,
    ONNX_INT8 = 3,
    ONNX_INT32 = 6,
    ONNX_INT64 = 7,
    ONNX_STRING = 8,
    ONNX_BOOL = 9,
    ONNX_FLOAT16 = 10,
    ONNX_DOUBLE = 11,
    ONNX_BFLOAT16 = 16
};

TEST_UNUSED static pb tensor_raw(const char *name, int type, const int64_t *dims, size_t rank, const void *data,
                                 size_t bytes) {
    pb t = {0};
    for (size_t i = 0; i < rank; i++) pb_int(&t, 1, dims[i]);
    pb_int(&t, 2, type);
    pb_string(&t, 8, name);
    if (bytes > 0) pb_bytes(&t, 9, data, bytes);
    return t;
}

TEST_UNUSED static pb attribute(const char *name, int type) {
    pb a = {0};
    pb_string(&a, 1, name);
    pb_int(&a, 20, type);
    return a;
}

/* Attributes of a node, appended to it (field 5). */
TEST_UNUSED static void add_int(pb *node, const char *name, int64_t v) {
    pb a = attribute(name, 2);
    pb_int(&a, 3, v);
    pb_message(node, 5, a);
}

TEST_UNUSED static void add_float(pb *node, const char *name, float v) {
    pb a = attribute(name, 1);
    pb_float(&a, 2, v);
    pb_message(node, 5, a);
}

TEST_UNUSED static void add_ints(pb *node, const char *name, const int64_t *v, size_t count) {
    pb a = attribute(name, 7), packed = {0};
    for (size_t i = 0; i < count; i++) pb_varint(&packed, (uint64_t)v[i]);
    pb_message(&a, 8, packed);
    pb_message(node, 5, a);
}

TEST_UNUSED static void add_string(pb *node, const char *name, const char *v) {
    pb a = attribute(name, 3);
    pb_string(&a, 4, v);
    pb_message(node, 5, a);
}

TEST_UNUSED static void add_tensor(pb *node, const char *name, pb tensor) {
    pb a = attribute(name, 4);
    pb_message(&a, 5, tensor);
    pb_message(node, 5, a);
}

/* ---- graphs */

/* inputs: names separated by commas; a node to which attributes may be added before graph_node() takes it. */
TEST_UNUSED static pb new_node(const char *op, const char *name, const char *inputs, const char *output) {
    pb n = {0};
    while (*inputs != '\0') {
        const size_t length = strcspn(inputs, ",");
        pb_bytes(&n, 1, inputs, length);
        inputs += length + (inputs[length] == ',');
    }
    if (output != NULL) pb_string(&n, 2, output);
    pb_string(&n, 3, name);
    pb_string(&n, 4, op);
    return n;
}

TEST_UNUSED static void graph_node(pb *graph, pb node) { pb_message(graph, 1, node); }

TEST_UNUSED static void graph_op(pb *graph, const char *op, const char *inputs, const char *output) {
    char name[64];
    snprintf(name, sizeof name, "/m/%s", op);
    graph_node(graph, new_node(op, name, inputs, output));
}

TEST_UNUSED static void graph_tensor(pb *graph, pb tensor) { pb_message(graph, 5, tensor); }

TEST_UNUSED static void graph_floats(pb *graph, const char *name, const int64_t *dims, size_t rank, const float *data) {
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) count *= (size_t)dims[i];
    graph_tensor(graph, tensor_raw(name, ONNX_FLOAT, dims, rank, data, count * sizeof *data));
}

TEST_UNUSED static void graph_ints(pb *graph, const char *name, const int64_t *data, size_t count) {
    const int64_t dims[] = {(int64_t)count};
    graph_tensor(graph, tensor_raw(name, ONNX_INT64, dims, 1, data, count * sizeof *data));
}

/* dims: 0 is a name ("batch"). */
TEST_UNUSED static pb value_info(const char *name, const int64_t *dims, size_t rank) {
    pb shape = {0}, tensor = {0}, type = {0}, value = {0};
    for (size_t i = 0; i < rank; i++) {
        pb dim = {0};
        if (dims[i] != 0)
            pb_int(&dim, 1, dims[i]);
        else
            pb_string(&dim, 2, "batch");
        pb_message(&shape, 1, dim);
    }
    pb_int(&tensor, 1, ONNX_FLOAT);
    pb_message(&tensor, 2, shape);
    pb_message(&type, 1, tensor);
    pb_string(&value, 1, name);
    pb_message(&value, 2, type);
    return value;
}

TEST_UNUSED static void graph_input(pb *graph, const char *name, const int64_t *dims, size_t rank) {
    pb_message(graph, 11, value_info(name, dims, rank));
}

TEST_UNUSED static void graph_output(pb *graph, const char *name) { pb_message(graph, 12, value_info(name, NULL, 0)); }

/* Takes the graph. */
TEST_UNUSED static pb model_of(pb graph, int64_t opset) {
    pb model = {0}, set = {0};
    pb_int(&model, 1, 8);
    pb_string(&model, 2, "test");
    pb_message(&model, 7, graph);
    pb_int(&set, 2, opset);
    pb_message(&model, 8, set);
    return model;
}

#endif
