/* safetensors, zip, npy: what is written is read back, what is damaged or hostile is refused with the right status. */
#include <zip.h>

#include "base/bits.h"
#include "base/file.h"
#include "base/memory.h"
#include "model/archive.h"
#include "model/npy.h"
#include "model/safetensors.h"
#include "test.h"

static char *path_in(const char *folder, const char *name) {
    char *path = hemi_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static uint8_t *read_file(const char *folder, const char *name, size_t *bytes) {
    char *path = path_in(folder, name);
    uint8_t *data = NULL;
    hemi_error err = {0};
    assert_ok(hemi_file_read(&data, bytes, path, (size_t)1 << 30, &err), &err);
    hemi_free(path);
    return data;
}

/* ---- safetensors */

/* A file from a header's text and so many bytes of data. */
static uint8_t *tensors_file(const char *header, size_t data, size_t *bytes) {
    const size_t length = strlen(header);
    *bytes = 8 + length + data;
    uint8_t *file = malloc(*bytes);
    hemi_store64(file, length);
    memcpy(file + 8, header, length);
    memset(file + 8 + length, 1, data);
    return file;
}

static void tensors_come_back(void **state) {
    (void)state;
    static const uint8_t data[32] = {1, 2, 3};
    const hemi_tensor in[] = {{.name = "b", .dtype = "F64", .rank = 1, .dims = {2}, .data = data, .bytes = 16},
                              {.name = "a", .dtype = "I16", .rank = 2, .dims = {2, 3}, .data = data + 16, .bytes = 12},
                              {.name = "scalar", .dtype = "U8", .rank = 0, .data = data, .bytes = 1}};
    hemi_tensor out[HEMI_SAFETENSORS_COUNT_MAX];
    uint8_t *file = NULL;
    size_t bytes = 0, count = 0;
    hemi_error err = {0};
    assert_ok(hemi_safetensors_write(&file, &bytes, in, 3, &err), &err);
    assert_int_equal(hemi_load64(file) % 8, 0);
    assert_ok(hemi_safetensors_read(out, &count, file, bytes, &err), &err);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(out[i].name, in[i].name);
        assert_string_equal(out[i].dtype, in[i].dtype);
        assert_int_equal(out[i].rank, in[i].rank);
        assert_memory_equal(out[i].dims, in[i].dims, in[i].rank * sizeof(size_t));
        assert_int_equal(out[i].bytes, in[i].bytes);
        assert_memory_equal(out[i].data, in[i].data, in[i].bytes);
    }
    for (size_t n = 0; n < bytes; n++) { /* cut off anywhere */
        uint8_t *cut = malloc(n + 1);
        memcpy(cut, file, n);
        assert_status(hemi_safetensors_read(out, &count, cut, n, &err), HEMI_ERR_FORMAT);
        assert_int_equal(count, 0);
        free(cut);
    }
    hemi_free(file);
    file = tensors_file(
        "{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ", 8,
        &bytes);
    assert_ok(hemi_safetensors_read(out, &count, file, bytes, &err), &err);
    assert_int_equal(count, 1);
    free(file);
    file = tensors_file("{}", 0, &bytes);
    assert_ok(hemi_safetensors_read(out, &count, file, bytes, &err), &err);
    assert_int_equal(count, 0);
    free(file);
}

static void hostile_tensors(void **state) {
    (void)state;
#define T(name, dtype, shape, offsets)                                                                                 \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        " {}",
        "{\"a\":1}",
        "{\"a\":{}}",
        "{\"a\":{\"dtype\":\"I16\",\"shape\":[4]}}",
        "{\"a\":{\"dtype\":\"I16\",\"data_offsets\":[0,8]}}",
        "{\"a\":{\"shape\":[4],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"I16\",\"shape\":[4],\"data_offsets\":[0,8],\"x\":1}}",
        "{" T("a", "I17", "[4]", "[0,8]") "}",
        "{" T("a", "", "[4]", "[0,8]") "}",
        "{" T("a", "i16", "[4]", "[0,8]") "}",
        "{" T("a", "VERYLONGDTYPENAME", "[4]", "[0,8]") "}",
        "{" T("a", "I16", "4", "[0,8]") "}",
        "{" T("a", "I16", "[-4]", "[0,8]") "}",
        "{" T("a", "I16", "[0]", "[0,0]") "}",
        "{" T("a", "I16", "[4.0]", "[0,8]") "}",
        "{" T("a", "I16", "[3]", "[0,8]") "}",
        "{" T("a", "I16", "[5]", "[0,8]") "}",
        "{" T("a", "I16", "[2,4294967298]", "[0,8]") "}",
        "{" T("a", "I16", "[4294967296,4294967296,2]", "[0,8]") "}",
        "{" T("a", "I16", "[9223372036854775807]", "[0,8]") "}",
        "{" T("a", "I16", "[1,1,1,1,1,1,1,1,4]", "[0,8]") "}",
        "{" T("a", "I16", "[4]", "[0]") "}",
        "{" T("a", "I16", "[4]", "[0,8,8]") "}",
        "{" T("a", "I16", "[4]", "[8,0]") "}",
        "{" T("a", "I16", "[4]", "[-8,0]") "}",
        "{" T("a", "I16", "[4]", "[8,16]") "}",
        "{" T("a", "I16", "[4]", "[0,9]") "}",
        "{" T("a", "I16", "[4]", "[18446744073709551608,0]") "}",
        "{" T("a", "I16", "[3]", "[0,6]") "}",                                   /* data after it */
        "{" T("a", "I16", "[3]", "[2,8]") "}",                                   /* a hole before it */
        "{" T("a", "I16", "[2]", "[0,4]") "," T("b", "I16", "[1]", "[6,8]") "}", /* between */
        "{" T("a", "I16", "[3]", "[0,6]") "," T("b", "I16", "[2]", "[4,8]") "}", /* overlap */
        "{" T("a", "I16", "[4]", "[0,8]") "," T("b", "I16", "[4]", "[0,8]") "}",
        "{" T("a", "I16", "[2]", "[0,4]") "," T("a", "I16", "[2]", "[4,8]") "}", /* twice */
        "{" T("a", "I16", "[4]", "[0,8]") "}x",
    };
#undef T
    hemi_tensor out[HEMI_SAFETENSORS_COUNT_MAX];
    size_t count = 0, bytes = 0;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        hemi_error err = {0};
        uint8_t *file = tensors_file(bad[i], 8, &bytes);
        const hemi_status status = hemi_safetensors_read(out, &count, file, bytes, &err);
        if (status != HEMI_ERR_FORMAT) fail_msg("%s: %s", bad[i], hemi_status_name(status));
        assert_int_equal(count, 0);
        free(file);
    }
    static const uint64_t lengths[] = {
        HEMI_SAFETENSORS_HEADER_MAX + 1, UINT64_MAX, UINT64_MAX - 7, UINT64_C(1) << 63, 9, 1};
    for (size_t i = 0; i < TEST_COUNT(lengths); i++) {
        uint8_t file[16] = {0};
        hemi_store64(file, lengths[i]);
        file[8] = '{';
        const hemi_status status = hemi_safetensors_read(out, &count, file, sizeof file, NULL);
        assert_int_equal(status, lengths[i] > HEMI_SAFETENSORS_HEADER_MAX ? HEMI_ERR_TOO_LARGE : HEMI_ERR_FORMAT);
    }
    char *many = calloc(1, 65536), *at = many; /* too many tensors, and one with too long a name */
    at += sprintf(at, "{");
    for (size_t i = 0; i < HEMI_SAFETENSORS_COUNT_MAX + 1; i++)
        at += sprintf(at, "%s\"t%zu\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}", i > 0 ? "," : "", i,
                      i, i + 1);
    sprintf(at, "}");
    uint8_t *file = tensors_file(many, HEMI_SAFETENSORS_COUNT_MAX + 1, &bytes);
    assert_status(hemi_safetensors_read(out, &count, file, bytes, NULL), HEMI_ERR_TOO_LARGE);
    free(file);
    sprintf(many, "{\"%0200d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    file = tensors_file(many, 1, &bytes);
    assert_status(hemi_safetensors_read(out, &count, file, bytes, NULL), HEMI_ERR_FORMAT);
    free(file);
    free(many);
}

/* ---- zip */

/* An archive by libzip itself: entries "name=content", compressed or not. */
static uint8_t *zip_of(const char *const *entries, size_t count, zip_int32_t method, bool encrypted, size_t *bytes) {
    zip_source_t *source = zip_source_buffer_create(NULL, 0, 0, NULL);
    zip_t *archive = zip_open_from_source(source, ZIP_TRUNCATE, NULL);
    assert_non_null(archive);
    zip_source_keep(source);
    for (size_t i = 0; i < count; i++) {
        const char *content = strchr(entries[i], '=') + 1;
        char name[64] = {0};
        memcpy(name, entries[i], (size_t)(content - 1 - entries[i]));
        const zip_int64_t index =
            zip_file_add(archive, name, zip_source_buffer(archive, content, strlen(content), 0), 0);
        assert_true(index >= 0);
        assert_int_equal(zip_set_file_compression(archive, (zip_uint64_t)index, method, 0), 0);
        if (encrypted)
            assert_int_equal(zip_file_set_encryption(archive, (zip_uint64_t)index, ZIP_EM_TRAD_PKWARE, "pw"), 0);
    }
    assert_int_equal(zip_close(archive), 0);
    zip_stat_t info;
    assert_int_equal(zip_source_stat(source, &info), 0);
    uint8_t *data = malloc(info.size);
    *bytes = info.size;
    assert_int_equal(zip_source_open(source), 0);
    assert_int_equal(zip_source_read(source, data, info.size), info.size);
    zip_source_close(source);
    zip_source_free(source);
    return data;
}

static hemi_status read_a(const uint8_t *zip, size_t bytes, hemi_archive_entry *entry) {
    hemi_error err = {0};
    *entry = (hemi_archive_entry){.name = "a", .max_bytes = 100};
    const hemi_status status = hemi_archive_read(entry, 1, zip, bytes, &err);
    if (status != HEMI_OK) assert_true(entry->data == NULL && err.message[0] != '\0');
    return status;
}

static void archives_come_back(void **state) {
    (void)state;
    hemi_archive_entry in[2] = {{.name = "a", .data = (uint8_t *)"hello", .bytes = 5},
                                {.name = "b", .data = (uint8_t *)"", .bytes = 0}};
    hemi_archive_entry out[2] = {{.name = "b", .max_bytes = 5}, {.name = "a", .max_bytes = 5}};
    uint8_t *zip = NULL, *again = NULL;
    size_t bytes = 0, again_bytes = 0;
    hemi_error err = {0};
    assert_ok(hemi_archive_write(&zip, &bytes, in, 2, &err), &err);
    assert_ok(hemi_archive_write(&again, &again_bytes, in, 2, &err), &err);
    assert_int_equal(bytes, again_bytes);
    assert_memory_equal(zip, again, bytes); /* no time, no name of a machine */
    assert_ok(hemi_archive_read(out, 2, zip, bytes, &err), &err);
    assert_true(out[0].bytes == 0 && out[1].bytes == 5);
    assert_memory_equal(out[1].data, "hello", 6);
    hemi_free(out[0].data);
    hemi_free(out[1].data);
    hemi_free(zip);
    hemi_free(again);
}

static void hostile_archives(void **state) {
    (void)state;
    static const struct {
        const char *entries[3];
        size_t count;
        zip_int32_t method;
        bool encrypted;
        hemi_status status;
    } cases[] = {
        {{"a=hello"}, 1, ZIP_CM_STORE, false, HEMI_OK},
        {{"b=hello"}, 1, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"A=hello"}, 1, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"./a=hello"}, 1, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"../a=hello"}, 1, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"/a=hello"}, 1, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"x/a=hello"}, 1, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"a/=hello"}, 1, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"a=hello", "b=x"}, 2, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"b=x", "c=y", "a=z"}, 3, ZIP_CM_STORE, false, HEMI_ERR_FORMAT},
        {{"a=hellohellohellohellohellohellohellohello"}, 1, ZIP_CM_DEFLATE, false, HEMI_ERR_FORMAT},
        {{"a=hello"}, 1, ZIP_CM_STORE, true, HEMI_ERR_FORMAT},
        {{"a=01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"},
         1,
         ZIP_CM_STORE,
         false,
         HEMI_ERR_TOO_LARGE}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        size_t bytes = 0;
        hemi_archive_entry entry;
        uint8_t *zip = zip_of(cases[i].entries, cases[i].count, cases[i].method, cases[i].encrypted, &bytes);
        const hemi_status status = read_a(zip, bytes, &entry);
        if (status != cases[i].status) fail_msg("case %zu: %s", i, hemi_status_name(status));
        hemi_free(entry.data);
        free(zip);
    }
    hemi_archive_entry entry;
    assert_status(read_a((const uint8_t *)"", 0, &entry), HEMI_ERR_FORMAT);
    assert_status(read_a((const uint8_t *)"PK\3\4", 4, &entry), HEMI_ERR_FORMAT);
    static const uint8_t empty[22] = {'P', 'K', 5, 6}; /* an archive of nothing */
    assert_status(read_a(empty, sizeof empty, &entry), HEMI_ERR_FORMAT);
    static const uint8_t zeros[300];
    assert_status(read_a(zeros, sizeof zeros, &entry), HEMI_ERR_FORMAT);
}

static void cut_and_flipped_archives(void **state) {
    (void)state;
    const char *content = "a=some content";
    size_t bytes = 0;
    uint8_t *zip = zip_of(&content, 1, ZIP_CM_STORE, false, &bytes);
    hemi_archive_entry entry;
    for (size_t n = 0; n < bytes; n++) {
        uint8_t *cut = malloc(n + 1);
        memcpy(cut, zip, n);
        assert_true(read_a(cut, n, &entry) != HEMI_OK);
        free(cut);
    }
    for (size_t at = 0; at < bytes; at++)
        for (int bit = 0; bit < 8; bit++) {
            zip[at] ^= (uint8_t)(1 << bit);
            if (read_a(zip, bytes, &entry) == HEMI_OK) { /* a date, a version: the content never */
                assert_int_equal(entry.bytes, 12);
                assert_memory_equal(entry.data, "some content", 13);
            }
            hemi_free(entry.data);
            zip[at] ^= (uint8_t)(1 << bit);
        }
    free(zip);
}

/* ---- npy */

#define HEADER(descr, order, shape) "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }"

static hemi_status parse_npy(unsigned major, const char *header, const void *data, size_t bytes, float **out,
                             uint32_t *shape, size_t *rank) {
    const size_t length = strlen(header), start = major == 1 ? 10 : 12;
    uint8_t *file = malloc(start + length + bytes);
    memcpy(file, "\x93NUMPY", 6);
    file[6] = (uint8_t)major;
    file[7] = 0;
    if (major == 1)
        hemi_store16(file + 8, (uint16_t)length);
    else
        hemi_store32(file + 8, (uint32_t)length);
    memcpy(file + start, header, length);
    if (bytes > 0) memcpy(file + start + length, data, bytes);
    hemi_error err = {0};
    const hemi_status status = hemi_npy_parse(out, shape, rank, file, start + length + bytes, &err);
    if (status != HEMI_OK) assert_true(*out == NULL && err.message[0] != '\0');
    free(file);
    return status;
}

static void arrays_come_back(void **state) {
    (void)state;
    static const float numbers[6] = {1, -2, 3.5f, 0, 1e30f, -1e-30f};
    static const double doubles[6] = {1, -2, 3.5, 0, 1e30, -1e-30};
    float *out = NULL;
    uint32_t shape[HEMI_NPY_RANK_MAX];
    size_t rank = 0;
    for (unsigned major = 1; major <= 3; major++) {
        assert_status(parse_npy(major, HEADER("<f4", "False", "(2, 3)") "      \n", numbers, 24, &out, shape, &rank),
                      HEMI_OK);
        assert_true(rank == 2 && shape[0] == 2 && shape[1] == 3);
        assert_memory_equal(out, numbers, 24);
        hemi_free(out);
    }
    assert_status(
        parse_npy(1, "{\"shape\":(6,),\"descr\":\"<f8\",\"fortran_order\":True}", doubles, 48, &out, shape, &rank),
        HEMI_OK);
    assert_true(rank == 1 && shape[0] == 6);
    assert_memory_equal(out, numbers, 24);
    hemi_free(out);
    char folder[256];
    test_folder_new(folder);
    char *path = path_in(folder, "x.npy");
    hemi_error err = {0};
    const uint32_t shapes[][HEMI_NPY_RANK_MAX] = {{6}, {3, 2}, {1, 1, 6}, {1, 1, 1, 1, 1, 2, 1, 3}};
    static const size_t ranks[] = {1, 2, 3, 8};
    for (size_t i = 0; i < 4; i++) {
        size_t bytes = 0;
        assert_ok(hemi_npy_write(path, numbers, shapes[i], ranks[i], &err), &err);
        assert_ok(hemi_npy_read(&out, shape, &rank, path, &err), &err);
        assert_int_equal(rank, ranks[i]);
        assert_memory_equal(shape, shapes[i], rank * sizeof *shape);
        assert_memory_equal(out, numbers, 24);
        hemi_free(out);
        uint8_t *file = read_file(folder, "x.npy", &bytes);
        assert_int_equal((bytes - 24) % 64, 0);
        for (size_t n = 0; n < bytes; n++) {
            uint8_t *cut = malloc(n + 1);
            memcpy(cut, file, n);
            assert_status(hemi_npy_parse(&out, shape, &rank, cut, n, &err), HEMI_ERR_FORMAT);
            free(cut);
        }
        hemi_free(file);
    }
    const uint32_t zero[] = {0, 3};
    assert_status(hemi_npy_write(path, numbers, zero, 2, &err), HEMI_ERR_SHAPE);
    assert_status(hemi_npy_write(path, numbers, zero, 0, &err), HEMI_ERR_SHAPE);
    hemi_free(path);
    path = path_in(folder, "none.npy");
    assert_status(hemi_npy_read(&out, shape, &rank, path, &err), HEMI_ERR_NOT_FOUND);
    hemi_free(path);
    test_folder_remove(folder);
}

static void hostile_arrays(void **state) {
    (void)state;
    static const struct {
        const char *header;
        hemi_status status;
    } cases[] = {
        {HEADER("<f4", "False", "(2, 3)") "x", HEMI_ERR_FORMAT},
        {"", HEMI_ERR_FORMAT},
        {"{", HEMI_ERR_FORMAT},
        {"{}", HEMI_ERR_FORMAT},
        {"[]", HEMI_ERR_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False}", HEMI_ERR_FORMAT},
        {"{'descr': '<f4', 'shape': (6,)}", HEMI_ERR_FORMAT},
        {"{'fortran_order': False, 'shape': (6,)}", HEMI_ERR_FORMAT},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6,)}", HEMI_ERR_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}", HEMI_ERR_FORMAT},
        {"{'descr': '<f4 'fortran_order': False, 'shape': (6,)}", HEMI_ERR_FORMAT},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (6,)}", HEMI_ERR_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 6}", HEMI_ERR_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6)}", HEMI_ERR_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,", HEMI_ERR_FORMAT},
        {"{'descr': '<f4aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'fortran_order': False, 'shape': (6,)}", HEMI_ERR_FORMAT},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", HEMI_ERR_FORMAT},
        {HEADER("<f4", "False", "(-6,)"), HEMI_ERR_FORMAT},
        {HEADER("<f4", "False", "(5,)"), HEMI_ERR_FORMAT},
        {HEADER("<f4", "False", "(7,)"), HEMI_ERR_FORMAT},
        {HEADER("<f8", "False", "(6,)"), HEMI_ERR_FORMAT},
        {HEADER("<f4", "False", "(4294967302,)"), HEMI_ERR_FORMAT},
        {HEADER("<f4", "False", "(99999999999999999999999999,)"), HEMI_ERR_FORMAT},
        {HEADER("<f4", "False", "(4294967295, 4294967295, 4294967295)"), HEMI_ERR_FORMAT},
        {HEADER("<f4", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 6)"), HEMI_ERR_FORMAT},
        {HEADER("<f4", "False", "()"), HEMI_ERR_SHAPE},
        {HEADER("<f4", "False", "(0, 6)"), HEMI_ERR_SHAPE},
        {HEADER("<f4", "True", "(2, 3)"), HEMI_ERR_UNSUPPORTED},
        {HEADER(">f4", "False", "(6,)"), HEMI_ERR_UNSUPPORTED},
        {HEADER("<f2", "False", "(12,)"), HEMI_ERR_UNSUPPORTED},
        {HEADER("<i8", "False", "(3,)"), HEMI_ERR_UNSUPPORTED},
        {HEADER("|O", "False", "(3,)"), HEMI_ERR_UNSUPPORTED},
        {HEADER("<c8", "False", "(3,)"), HEMI_ERR_UNSUPPORTED}};
    static const float numbers[6] = {1, 2, 3, 4, 5, 6};
    float *out = NULL;
    uint32_t shape[HEMI_NPY_RANK_MAX];
    size_t rank = 0;
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        const hemi_status status = parse_npy(1, cases[i].header, numbers, sizeof numbers, &out, shape, &rank);
        if (status != cases[i].status) fail_msg("%s: %s", cases[i].header, hemi_status_name(status));
    }
    assert_status(parse_npy(4, HEADER("<f4", "False", "(6,)"), numbers, 24, &out, shape, &rank), HEMI_ERR_VERSION);
    assert_status(parse_npy(0, HEADER("<f4", "False", "(6,)"), numbers, 24, &out, shape, &rank), HEMI_ERR_VERSION);
    static const uint8_t long_header[16] = {0x93, 'N', 'U', 'M', 'P', 'Y', 2, 0, 0xff, 0xff, 0xff, 0xff};
    hemi_error err;
    assert_status(hemi_npy_parse(&out, shape, &rank, long_header, 16, &err), HEMI_ERR_FORMAT);
    assert_status(hemi_npy_parse(&out, shape, &rank, (const uint8_t *)"PK\3\4aaaaaaaaaa", 14, &err), HEMI_ERR_FORMAT);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_back),        cmocka_unit_test(hostile_tensors),
        cmocka_unit_test(archives_come_back),       cmocka_unit_test(hostile_archives),
        cmocka_unit_test(cut_and_flipped_archives), cmocka_unit_test(arrays_come_back),
        cmocka_unit_test(hostile_arrays),
    };
    return TEST_RUN("formats", tests);
}
