/* Bytes that pretend to be ONNX: walked against the schema, unpacked with a cap, cut off and changed anywhere. */
#include "onnx_fixture.h"

#include "model/onnx.h"
#include "model/protobuf.h"
#include "onnx.pb-c.h"

#define D 3

static const uint32_t shape[] = {1, D};
#define M 2

static const ProtobufCMessageDescriptor *schema(void) { return &hemi__onnx__model_proto__descriptor; }

static void wire_format_is_checked(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {{"\x08", 1},                                          /* no value */
               {"\x08\xff", 2},                                      /* a number that goes on */
               {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11}, /* more than 64 bits */
               {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12},
               {"\x00\x00", 2},                                      /* field 0 */
               {"\x3a\x05\x0a", 3},                                  /* a graph of 5 bytes of which one is there */
               {"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}, /* of 2^64 - 1 */
               {"\x3a\x02\x0a\x05", 4},                              /* a node longer than its graph */
               {"\x3b\x3c", 2},                                      /* groups */
               {"\x0b\x0c", 2},
               {"\x0e\x00", 2},                      /* wire type 6 */
               {"\x38\x01", 2},                      /* the graph as a number */
               {"\x0a\x01\x00", 3},                  /* a number as a string */
               {"\x0d\x00\x00\x00\x00", 5},          /* a number as 32 bits */
               {"\x79\x00\x00\x00", 4},              /* an unknown field of 64 bits, cut off */
               {"\x08\x01\x08\x01", 4},              /* twice */
               {"\xf8\xff\xff\xff\xff\x01\x00", 7}}; /* field number above 2^29 */
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        hemi_error err = {0};
        const hemi_status status = hemi_protobuf_check(bad[i].bytes, bad[i].size, schema(), &err);
        if (status != HEMI_ERR_FORMAT) fail_msg("case %zu: %s", i, hemi_status_name(status));
    }
    static const char good[] =
        "\x08\x01\x12\x01p\x3a\x00\x79\x00\x00\x00\x00\x00\x00\x00\x00"; /* unknown fields are stepped over */
    assert_status(hemi_protobuf_check(good, sizeof good - 1, schema(), NULL), HEMI_OK);
    static const char ragged[] = "\x3a\x07\x2a\x05\x22\x03\x00\x00\x00"; /* packed floats of 3 bytes */
    assert_status(hemi_protobuf_check(ragged, sizeof ragged - 1, schema(), NULL), HEMI_ERR_FORMAT);
}

static pb small_model(void) {
    pb g = {0}, gemm = new_node("Gemm", "/m/Gemm", "a,w,b", "y");
    const int64_t dims_w[] = {M, D}, dims_b[] = {M}, dims_x[] = {0, D};
    static const float numbers[M * D] = {1, 2, 3, -4, 5, 0.5f};
    graph_input(&g, "x", dims_x, 2);
    graph_output(&g, "y");
    graph_floats(&g, "w", dims_w, 2, numbers);
    graph_floats(&g, "b", dims_b, 1, numbers);
    const int64_t to2[] = {-1, D};
    graph_ints(&g, "to2", to2, 2);
    graph_op(&g, "Reshape", "x,to2", "a");
    add_int(&gemm, "transB", 1);
    graph_node(&g, gemm);
    return model_of(g, 13);
}

static void memory_is_capped(void **state) {
    (void)state;
    pb m = small_model();
    hemi_error err = {0};
    bool read = false;
    for (size_t limit = 0; !read && limit < 100000; limit += 7) { /* every allocation fails once */
        hemi_protobuf file;
        const hemi_status status = hemi_protobuf_read(&file, m.data, m.size, schema(), limit, &err);
        read = status == HEMI_OK;
        if (!read) assert_status(status, HEMI_ERR_TOO_LARGE);
        assert_true(file.used <= limit);
        hemi_protobuf_free(&file);
        assert_int_equal(file.used, 0);
    }
    assert_true(read);
    free(m.data);
    pb g = {0}; /* a bomb: two bytes for a node that takes hundreds */
    for (size_t i = 0; i < HEMI_PROTOBUF_FIELDS_MAX + 1; i++) pb_raw(&g, "\x0a\x00", 2);
    m = model_of(g, 13);
    hemi_affine map;
    assert_status(hemi_onnx_import(&map, m.data, m.size, shape, 2, NULL, NULL, &err), HEMI_ERR_TOO_LARGE);
    free(m.data);
}

static void cut_and_flipped_bytes(void **state) {
    (void)state;
    pb m = small_model();
    hemi_affine map;
    hemi_error err;
    for (size_t size = 0; size < m.size; size++) {
        uint8_t *copy = malloc(size + 1); /* of its own size: a read beyond it shows */
        memcpy(copy, m.data, size);
        if (hemi_onnx_import(&map, copy, size, shape, 2, NULL, NULL, &err) == HEMI_OK) hemi_affine_free(&map);
        free(copy);
    }
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
    for (size_t at = 0; at < m.size; at++) {
        const uint8_t before = m.data[at];
        for (size_t i = 0; i < 8 + TEST_COUNT(values); i++) {
            m.data[at] = values[i < 8 ? 0 : i - 8];
            if (i < 8) m.data[at] = (uint8_t)(before ^ (1u << i));
            err = (hemi_error){0};
            const hemi_status status = hemi_onnx_import(&map, m.data, m.size, shape, 2, NULL, NULL, &err);
            assert_true(status == HEMI_OK || err.message[0] != '\0');
            if (status == HEMI_OK) hemi_affine_free(&map);
        }
        m.data[at] = before;
    }
    test_rng rng = test_rng_new();
    for (size_t round = 0; round < test_repeat(20000); round++) {
        uint8_t *copy = malloc(m.size);
        memcpy(copy, m.data, m.size);
        for (size_t i = 0, n = 1 + test_below(&rng, 6); i < n; i++)
            copy[test_below(&rng, m.size)] = (uint8_t)test_u64(&rng);
        if (hemi_onnx_import(&map, copy, m.size, shape, 2, NULL, NULL, NULL) == HEMI_OK) hemi_affine_free(&map);
        free(copy);
    }
    free(m.data);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(wire_format_is_checked),
        cmocka_unit_test(memory_is_capped),
        cmocka_unit_test(cut_and_flipped_bytes),
    };
    return TEST_RUN("protobuf", tests);
}
