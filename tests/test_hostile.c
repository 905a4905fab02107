/* Hostile files of every format that comes from outside: what is done to a good one, and the status that comes of it. At least 24 of each; those of encrypted secret
 * key files are in test_seal.c, those of tenants' files in test_identity.c. */
#include "server_fixture.h"

#include "base/memory.h"
#include "model/archive.h"
#include "model/onnx.h"
#include "model/safetensors.h"
#include "onnx_fixture.h"
#include "secret/file.h"
#include "wire/batch.h"
#include "wire/ckks.h"

typedef struct blob {
    uint8_t *bytes;
    size_t count;
} blob;

enum { SET, CUT, GROW }; /* bytes at a place become a value, little-endian; the file ends at a place (or, negative, so many before its end); grows */

typedef struct hostile {
    const char *what;
    int how;
    long at; /* negative: from the end */
    int bytes;
    uint64_t value;
    hemi_status expected;
} hostile;

typedef hemi_status (*reader)(const uint8_t *bytes, size_t count, hemi_error *err);

/* The good file is accepted, every other has its status, a message, and is read within its bounds (the copy has exactly its size: the sanitizers). */
static void run(const char *format, const blob *good, reader read, const hostile *all, size_t count) {
    hemi_error err = {0};
    const hemi_status fine = read(good->bytes, good->count, &err);
    if (fine != HEMI_OK) fail_msg("%s: the good one: %s", format, err.message);
    for (size_t i = 0; i < count; i++) {
        const hostile *h = &all[i];
        const size_t at = h->at < 0 ? good->count - (size_t)-h->at : (size_t)h->at, size = h->how == CUT ? at : h->how == GROW ? good->count + (size_t)h->at : good->count;
        uint8_t *copy = calloc(size ? size : 1, 1);
        assert_non_null(copy);
        memcpy(copy, good->bytes, size < good->count ? size : good->count);
        if (h->how == SET)
            for (int b = 0; b < h->bytes; b++) copy[at + (size_t)b] = (uint8_t)(h->value >> (8 * b));
        memset(&err, 0, sizeof err);
        const hemi_status found = read(copy, size, &err);
        free(copy);
        if (found != h->expected) fail_msg("%s, %s: %s, expected %s (%s)", format, h->what, hemi_status_name(found), hemi_status_name(h->expected), err.message);
        if (!err.message[0]) fail_msg("%s, %s: no message", format, h->what);
    }
    printf("hostile fixtures, %s: %zu\n", format, count);
    assert_true(count >= 24);
}

#define RUN(format, good, read, all) run((format), (good), (read), (all), TEST_COUNT(all))

/* What every format of ours begins with. */
#define HEADER(id)                                                          \
    {"empty", CUT, 0, 0, 0, HEMI_ERR_FORMAT},                               \
    {"one byte", CUT, 1, 0, 0, HEMI_ERR_FORMAT},                            \
    {"the magic alone", CUT, 4, 0, 0, HEMI_ERR_FORMAT},                     \
    {"half a header", CUT, 9, 0, 0, HEMI_ERR_FORMAT},                       \
    {"a header alone", CUT, 16, 0, 0, HEMI_ERR_FORMAT},                     \
    {"one byte short", CUT, -1, 0, 0, HEMI_ERR_FORMAT},                     \
    {"one byte more", GROW, 1, 0, 0, HEMI_ERR_FORMAT},                      \
    {"a page more", GROW, 4096, 0, 0, HEMI_ERR_FORMAT},                     \
    {"no magic", SET, 0, 4, 0, HEMI_ERR_FORMAT},                            \
    {"lower case", SET, 0, 4, 0x696D6568, HEMI_ERR_FORMAT},                 \
    {"version 0", SET, 4, 2, 0, HEMI_ERR_VERSION},                          \
    {"version 99", SET, 4, 2, 99, HEMI_ERR_VERSION},                        \
    {"version 65535", SET, 4, 2, 65535, HEMI_ERR_VERSION},                  \
    {"kind 0", SET, 6, 2, 0, HEMI_ERR_FORMAT},                              \
    {"kind 65535", SET, 6, 2, 65535, HEMI_ERR_FORMAT},                      \
    {"a secret key's kind", SET, 6, 2, 4, HEMI_ERR_FORMAT},                 \
    {"no such set", SET, 8, 4, 0, HEMI_ERR_PARAMS},                         \
    {"a set of the far future", SET, 8, 4, 0xFFFFFFFF, HEMI_ERR_PARAMS}

/* ---- evaluation keys */

static hemi_status read_keys(const uint8_t *bytes, size_t count, hemi_error *err) {
    hemi_server_keys *keys = NULL;
    const hemi_status status = hemi_server_keys_new(&keys, bytes, count, err);
    hemi_server_keys_free(keys);
    return status;
}

static void test_linear_keys(void **state) {
    static const hostile all[] = {HEADER(1),
                                  {"no entries", SET, 16, 4, 0, HEMI_ERR_FORMAT},
                                  {"an entry more than there is", SET, 16, 4, 99, HEMI_ERR_FORMAT},
                                  {"four thousand million entries", SET, 16, 4, 0xFFFFFFFF, HEMI_ERR_FORMAT},
                                  {"flags", SET, 12, 4, 1, HEMI_ERR_FORMAT},
                                  {"reserved bytes", SET, 20, 4, 1, HEMI_ERR_FORMAT},
                                  {"the first is not the public key", SET, 24, 4, 3, HEMI_ERR_FORMAT},
                                  {"an automorphism of nothing", SET, 24, 4, 0xFFFFFFFF, HEMI_ERR_FORMAT},
                                  {"reserved bytes of an entry", SET, 28, 4, 1, HEMI_ERR_FORMAT},
                                  {"a residue beyond its prime", SET, 64, 8, UINT64_MAX, HEMI_ERR_FORMAT},
                                  {"the last residue beyond its prime", SET, -8, 8, UINT64_MAX, HEMI_ERR_FORMAT},
                                  {"the header of a request", SET, 6, 2, 1, HEMI_ERR_FORMAT}};
    party p;
    const hemi_module *modules[] = {world.wide};
    (void)state;
    party_open(&p, modules, 1);
    const blob good = {p.bytes, p.length};
    RUN("evaluation keys, linear", &good, read_keys, all);
    party_close(&p);
}

/* Zeros are residues: keys that nobody made, and that are well formed. */
static void test_circuit_keys(void **state) {
    static const hostile all[] = {HEADER(16),
                                  {"no limbs", SET, 16, 4, 0, HEMI_ERR_FORMAT},
                                  {"more limbs than the set has", SET, 16, 4, 6, HEMI_ERR_FORMAT},
                                  {"four thousand million limbs", SET, 16, 4, 0xFFFFFFFF, HEMI_ERR_FORMAT},
                                  {"no entries", SET, 20, 4, 0, HEMI_ERR_FORMAT},
                                  {"257 entries", SET, 20, 4, 257, HEMI_ERR_FORMAT},
                                  {"an entry more than there is", SET, 20, 4, 3, HEMI_ERR_FORMAT},
                                  {"flags", SET, 12, 4, 1, HEMI_ERR_FORMAT},
                                  {"the first is not the public key", SET, 24, 4, 5, HEMI_ERR_FORMAT},
                                  {"reserved bytes of an entry", SET, 28, 4, 7, HEMI_ERR_FORMAT},
                                  {"a residue beyond its prime", SET, 64, 8, UINT64_MAX, HEMI_ERR_FORMAT},
                                  {"the last residue beyond its prime", SET, -8, 8, UINT64_MAX, HEMI_ERR_FORMAT}};
    const hemi_params *params = hemi_params_by_name("C8192");
    blob good = {.count = hemi_ckks_keys_bytes(params, 2, 2)};
    (void)state;
    good.bytes = calloc(good.count, 1);
    assert_non_null(good.bytes);
    hemi_ckks_keys_write_header(good.bytes, params, 2, 2);
    hemi_store32(good.bytes + 24 + hemi_ckks_key_entry_bytes(params, 2, 0), 1); /* the second entry: from s^2 to s */
    RUN("evaluation keys, of circuits", &good, read_keys, all);
    free(good.bytes);
}

/* ---- requests */

static hemi_status read_request(const uint8_t *bytes, size_t count, hemi_error *err) {
    hemi_request r;
    return hemi_request_parse(&r, bytes, count, err);
}

static void test_requests(void **state) {
    static const hostile all[] = {HEADER(1),
                                  {"no modules", SET, 16, 2, 0, HEMI_ERR_FORMAT},
                                  {"17 modules", SET, 16, 2, 17, HEMI_ERR_FORMAT},
                                  {"7 bits", SET, 18, 2, 7, HEMI_ERR_FORMAT},
                                  {"51 bits", SET, 18, 2, 51, HEMI_ERR_FORMAT},
                                  {"a layout that is no power of two", SET, 20, 4, 3, HEMI_ERR_FORMAT},
                                  {"a layout beyond N", SET, 20, 4, 1 << 20, HEMI_ERR_FORMAT},
                                  {"no units", SET, 24, 4, 0, HEMI_ERR_SHAPE},
                                  {"too many units", SET, 24, 4, 65537, HEMI_ERR_SHAPE},
                                  {"no ciphertexts", SET, 28, 4, 0, HEMI_ERR_FORMAT},
                                  {"four thousand million ciphertexts", SET, 28, 4, 0xFFFFFFFF, HEMI_ERR_FORMAT},
                                  {"no coefficients", SET, 32, 4, 0, HEMI_ERR_SHAPE},
                                  {"more coefficients than N", SET, 32, 4, 4097, HEMI_ERR_SHAPE},
                                  {"form 2", SET, 36, 4, 2, HEMI_ERR_FORMAT},
                                  {"flags", SET, 12, 4, 1, HEMI_ERR_FORMAT}};
    party p;
    const hemi_module *modules[] = {world.small};
    (void)state;
    party_open(&p, modules, 1);
    call c = call_new(&p, world.small, 1);
    const blob good = {c.request, c.bytes};
    RUN("ciphertexts: request", &good, read_request, all);
    call_free(&c);
    party_close(&p);
}

static hemi_status read_batch(const uint8_t *bytes, size_t count, hemi_error *err) {
    hemi_batch_request r;
    return hemi_batch_request_parse(&r, bytes, count, err);
}

static void test_batch_requests(void **state) {
    static const hostile all[] = {HEADER(1),
                                  {"no modules", SET, 16, 2, 0, HEMI_ERR_FORMAT},
                                  {"17 modules", SET, 16, 2, 17, HEMI_ERR_FORMAT},
                                  {"7 bits", SET, 18, 2, 7, HEMI_ERR_FORMAT},
                                  {"51 bits", SET, 18, 2, 51, HEMI_ERR_FORMAT},
                                  {"no inputs", SET, 20, 4, 0, HEMI_ERR_SHAPE},
                                  {"65537 inputs", SET, 20, 4, 65537, HEMI_ERR_SHAPE},
                                  {"an announcement that begins in the middle", SET, 24, 4, 1, HEMI_ERR_FORMAT},
                                  {"rows that are not there", SET, 28, 4, 1, HEMI_ERR_FORMAT},
                                  {"no slots", SET, 32, 4, 0, HEMI_ERR_SHAPE},
                                  {"2049 slots", SET, 32, 4, 2049, HEMI_ERR_SHAPE},
                                  {"flags", SET, 36, 4, 2, HEMI_ERR_FORMAT},
                                  {"a tag of what was not announced", SET, 88, 4, 1, HEMI_ERR_FORMAT},
                                  {"flags of the header", SET, 12, 4, 1, HEMI_ERR_FORMAT}};
    hemi_batch_request r = {.params = hemi_params_by_name("L2048"), .modules = 1, .b_bits = 30, .inputs = 10, .slots = 64, .seconds = true};
    blob good = {.count = hemi_batch_request_bytes(&r)};
    (void)state;
    good.bytes = calloc(good.count, 1);
    assert_non_null(good.bytes);
    hemi_batch_request_write_header(good.bytes, &r);
    RUN("ciphertexts: batch request", &good, read_batch, all);
    free(good.bytes);
}

static hemi_status read_circuit_request(const uint8_t *bytes, size_t count, hemi_error *err) {
    hemi_ckks_request r;
    return hemi_ckks_request_parse(&r, bytes, count, err);
}

static void test_circuit_requests(void **state) {
    static const hostile all[] = {HEADER(16),
                                  {"no limbs", SET, 16, 4, 0, HEMI_ERR_FORMAT},
                                  {"more limbs than the set has", SET, 16, 4, 6, HEMI_ERR_FORMAT},
                                  {"no units", SET, 20, 4, 0, HEMI_ERR_SHAPE},
                                  {"1025 units", SET, 20, 4, 1025, HEMI_ERR_SHAPE},
                                  {"no ciphertexts", SET, 24, 4, 0, HEMI_ERR_SHAPE},
                                  {"4097 ciphertexts", SET, 24, 4, 4097, HEMI_ERR_SHAPE},
                                  {"reserved bytes", SET, 28, 4, 1, HEMI_ERR_FORMAT},
                                  {"flags", SET, 12, 4, 1, HEMI_ERR_FORMAT},
                                  {"a residue beyond its prime", SET, 80, 8, UINT64_MAX, HEMI_ERR_FORMAT},
                                  {"the last residue beyond its prime", SET, -8, 8, UINT64_MAX, HEMI_ERR_FORMAT}};
    const hemi_ckks_request r = {.params = hemi_params_by_name("C8192"), .limbs = 2, .units = 1, .ciphertexts = 1};
    blob good = {.count = hemi_ckks_request_bytes(&r)};
    (void)state;
    good.bytes = calloc(good.count, 1);
    assert_non_null(good.bytes);
    hemi_ckks_request_write_header(good.bytes, &r);
    RUN("ciphertexts: request of a circuit", &good, read_circuit_request, all);
    free(good.bytes);
}

/* ---- replies, as the client reads them */

static party client;
static call sent;

static hemi_status read_reply(const uint8_t *bytes, size_t count, hemi_error *err) {
    float y[10];
    return hemi_decrypt(world.small, client.keys, sent.pending, bytes, count, y, err);
}

static void test_replies(void **state) {
    static const hostile all[] = {{"empty", CUT, 0, 0, 0, HEMI_ERR_FORMAT},
                                  {"one byte", CUT, 1, 0, 0, HEMI_ERR_FORMAT},
                                  {"the magic alone", CUT, 4, 0, 0, HEMI_ERR_FORMAT},
                                  {"half a header", CUT, 9, 0, 0, HEMI_ERR_FORMAT},
                                  {"a header alone", CUT, 24, 0, 0, HEMI_ERR_FORMAT},
                                  {"no frame", CUT, 72, 0, 0, HEMI_ERR_FORMAT},
                                  {"one byte short", CUT, -1, 0, 0, HEMI_ERR_FORMAT},
                                  {"one byte more", GROW, 1, 0, 0, HEMI_ERR_FORMAT},
                                  {"a page more", GROW, 4096, 0, 0, HEMI_ERR_FORMAT},
                                  {"no magic", SET, 0, 4, 0, HEMI_ERR_FORMAT},
                                  {"version 99", SET, 4, 2, 99, HEMI_ERR_VERSION},
                                  {"a request", SET, 6, 2, 1, HEMI_ERR_FORMAT},
                                  {"kind 65535", SET, 6, 2, 65535, HEMI_ERR_FORMAT},
                                  {"another set", SET, 8, 4, 2, HEMI_ERR_PARAMS},
                                  {"no such set", SET, 8, 4, 0, HEMI_ERR_PARAMS},
                                  {"flags", SET, 12, 4, 1, HEMI_ERR_FORMAT},
                                  {"no modules", SET, 16, 2, 0, HEMI_ERR_FORMAT},
                                  {"two modules", SET, 16, 2, 2, HEMI_ERR_FORMAT},
                                  {"another length", SET, 20, 4, 0, HEMI_ERR_FORMAT},
                                  {"another module", SET, 24, 4, 0, HEMI_ERR_FORMAT},
                                  {"no units", SET, 40, 4, 0, HEMI_ERR_FORMAT},
                                  {"other results", SET, 44, 4, 9999, HEMI_ERR_FORMAT},
                                  {"other ciphertexts", SET, 48, 4, 0xFFFFFFFF, HEMI_ERR_FORMAT},
                                  {"other a_bits", SET, 52, 2, 1, HEMI_ERR_FORMAT},
                                  {"other b_bits", SET, 54, 2, 64, HEMI_ERR_FORMAT},
                                  {"another length of the frame", SET, 56, 8, UINT64_MAX, HEMI_ERR_FORMAT},
                                  {"flags of the frame", SET, 64, 4, 1, HEMI_ERR_FORMAT},
                                  {"another ring", SET, 68, 4, 1024, HEMI_ERR_FORMAT}};
    const hemi_module *modules[] = {world.small};
    hemi_server_keys *keys;
    hemi_evaluator *evaluator;
    blob good;
    (void)state;
    party_open(&client, modules, 1);
    sent = call_new(&client, world.small, 1);
    ASSERT_OK(hemi_server_keys_new(&keys, client.bytes, client.length, ERR));
    ASSERT_OK(hemi_evaluator_new(&evaluator, world.small, 1, ERR));
    ASSERT_OK(hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, keys, sent.request, sent.bytes, 1, &good.bytes, &good.count, ERR));
    RUN("ciphertexts: reply", &good, read_reply, all);
    hemi_bytes_free(good.bytes);
    hemi_evaluator_free(evaluator);
    hemi_server_keys_free(keys);
    call_free(&sent);
    party_close(&client);
}

/* ---- plain secret key files */

static hemi_status read_secret(const uint8_t *bytes, size_t count, hemi_error *err) {
    const hemi_params *params = hemi_params_by_name("L4096");
    int8_t *s = NULL;
    hemi_status status = hemi_secret_file_read(&s, params, bytes, count, err);
    if (status == HEMI_OK) status = hemi_secret_check_ternary(s, hemi_secret_file_coefficients(params), err);
    hemi_secure_free(s);
    return status;
}

static void test_secret_files(void **state) {
    static const hostile all[] = {{"empty", CUT, 0, 0, 0, HEMI_ERR_FORMAT},
                                  {"one byte", CUT, 1, 0, 0, HEMI_ERR_FORMAT},
                                  {"the magic alone", CUT, 4, 0, 0, HEMI_ERR_FORMAT},
                                  {"eight bytes", CUT, 8, 0, 0, HEMI_ERR_FORMAT},
                                  {"a header alone", CUT, 32, 0, 0, HEMI_ERR_FORMAT},
                                  {"half of it", CUT, 500, 0, 0, HEMI_ERR_FORMAT},
                                  {"no hash", CUT, -32, 0, 0, HEMI_ERR_FORMAT},
                                  {"half a hash", CUT, -16, 0, 0, HEMI_ERR_FORMAT},
                                  {"one byte short", CUT, -1, 0, 0, HEMI_ERR_FORMAT},
                                  {"one byte more", GROW, 1, 0, 0, HEMI_ERR_FORMAT},
                                  {"no magic", SET, 0, 4, 0, HEMI_ERR_FORMAT},
                                  {"version 0", SET, 4, 2, 0, HEMI_ERR_VERSION},
                                  {"version 1", SET, 4, 2, 1, HEMI_ERR_VERSION},
                                  {"version 3", SET, 4, 2, 3, HEMI_ERR_VERSION},
                                  {"evaluation keys", SET, 6, 2, 3, HEMI_ERR_FORMAT},
                                  {"an encrypted one", SET, 6, 2, 10, HEMI_ERR_FORMAT},
                                  {"kind 65535", SET, 6, 2, 65535, HEMI_ERR_FORMAT},
                                  {"another set", SET, 8, 4, 2, HEMI_ERR_FORMAT},
                                  {"no such set", SET, 8, 4, 0xFFFFFFFF, HEMI_ERR_FORMAT},
                                  {"flags", SET, 12, 4, 1, HEMI_ERR_FORMAT},
                                  {"reserved bytes", SET, 28, 4, 1, HEMI_ERR_FORMAT},
                                  {"another first coefficient", SET, 32, 1, 0x55, HEMI_ERR_FORMAT},
                                  {"another last coefficient", SET, -33, 1, 0x11, HEMI_ERR_FORMAT},
                                  {"another hash", SET, -32, 4, 0, HEMI_ERR_FORMAT},
                                  {"another end of the hash", SET, -4, 4, 0, HEMI_ERR_FORMAT}};
    const hemi_params *params = hemi_params_by_name("L4096");
    const size_t n = hemi_secret_file_coefficients(params);
    blob good = {.count = hemi_secret_file_bytes(params)};
    int8_t *s = calloc(n, 1);
    (void)state;
    good.bytes = calloc(good.count, 1);
    assert_true(s && good.bytes);
    for (size_t i = 0; i < n; i++) s[i] = (int8_t)((int)(i % 3) - 1);
    hemi_secret_file_end(good.bytes, hemi_secret_file_pack(hemi_secret_file_begin(good.bytes, params), s, n));
    RUN("secret key file", &good, read_secret, all);
    free(s);
    free(good.bytes);
}

/* ---- texts: safetensors, descriptions of modules, HTTP */

typedef struct text_case {
    const char *what, *text;
    hemi_status expected;
} text_case;

static void test_safetensors(void **state) {
#define TENSOR(dtype, shape, from, to) "\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"
    static const text_case all[] = {{"no header", "", HEMI_ERR_FORMAT},
                                    {"no JSON", "{{{{", HEMI_ERR_FORMAT},
                                    {"a list", "[]", HEMI_ERR_FORMAT},
                                    {"a number", "17", HEMI_ERR_FORMAT},
                                    {"no end", "{\"a\":", HEMI_ERR_FORMAT},
                                    {"a tensor that is a number", "{\"a\":1}", HEMI_ERR_FORMAT},
                                    {"no dtype", "{\"a\":{\"shape\":[4],\"data_offsets\":[0,64]}}", HEMI_ERR_FORMAT},
                                    {"no shape", "{\"a\":{\"dtype\":\"I16\",\"data_offsets\":[0,64]}}", HEMI_ERR_FORMAT},
                                    {"no offsets", "{\"a\":{\"dtype\":\"I16\",\"shape\":[32]}}", HEMI_ERR_FORMAT},
                                    {"an unknown dtype", "{" TENSOR("X16", "[32]", "0", "64") "}", HEMI_ERR_FORMAT},
                                    {"a dtype that is a number", "{\"a\":{\"dtype\":16,\"shape\":[32],\"data_offsets\":[0,64]}}", HEMI_ERR_FORMAT},
                                    {"a shape that is a number", "{" TENSOR("I16", "32", "0", "64") "}", HEMI_ERR_FORMAT},
                                    {"a negative dimension", "{" TENSOR("I16", "[-32]", "0", "64") "}", HEMI_ERR_FORMAT},
                                    {"a dimension of 0", "{" TENSOR("I16", "[0]", "0", "0") "}", HEMI_ERR_FORMAT},
                                    {"a fraction", "{" TENSOR("I16", "[32.5]", "0", "64") "}", HEMI_ERR_FORMAT},
                                    {"a product that overflows", "{" TENSOR("I16", "[4294967296,4294967296,4294967296]", "0", "64") "}", HEMI_ERR_FORMAT},
                                    {"nine dimensions", "{" TENSOR("I16", "[1,1,1,1,1,1,1,1,32]", "0", "64") "}", HEMI_ERR_FORMAT},
                                    {"too few bytes", "{" TENSOR("I16", "[32]", "0", "62") "}", HEMI_ERR_FORMAT},
                                    {"more than there is", "{" TENSOR("I16", "[64]", "0", "128") "}", HEMI_ERR_FORMAT},
                                    {"offsets the wrong way", "{" TENSOR("I16", "[32]", "64", "0") "}", HEMI_ERR_FORMAT},
                                    {"negative offsets", "{" TENSOR("I16", "[32]", "-64", "0") "}", HEMI_ERR_FORMAT},
                                    {"three offsets", "{\"a\":{\"dtype\":\"I16\",\"shape\":[32],\"data_offsets\":[0,64,64]}}", HEMI_ERR_FORMAT},
                                    {"a hole", "{" TENSOR("I16", "[16]", "32", "64") "}", HEMI_ERR_FORMAT},
                                    {"bytes of nobody", "{" TENSOR("I16", "[16]", "0", "32") "}", HEMI_ERR_FORMAT},
                                    {"the same name twice", "{" TENSOR("I16", "[16]", "0", "32") "," TENSOR("I16", "[16]", "32", "64") "}", HEMI_ERR_FORMAT},
                                    {"two that overlap", "{" TENSOR("I16", "[32]", "0", "64") ",\"b\":{\"dtype\":\"I16\",\"shape\":[16],\"data_offsets\":[0,32]}}", HEMI_ERR_FORMAT},
                                    {"a further field", "{\"a\":{\"dtype\":\"I16\",\"shape\":[32],\"data_offsets\":[0,64],\"x\":1}}", HEMI_ERR_FORMAT}};
    hemi_tensor tensors[HEMI_SAFETENSORS_COUNT_MAX];
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        const size_t length = strlen(all[i].text), count = 8 + length + 64;
        uint8_t *file = calloc(count, 1);
        size_t found;
        hemi_error err = {0};
        hemi_store64(file, length);
        memcpy(file + 8, all[i].text, length);
        const hemi_status status = hemi_safetensors_read(tensors, &found, file, count, &err);
        free(file);
        if (status != all[i].expected) fail_msg("safetensors, %s: %s (%s)", all[i].what, hemi_status_name(status), err.message);
        assert_true(err.message[0]);
    }
    printf("hostile fixtures, safetensors: %zu\n", TEST_COUNT(all));
    assert_true(TEST_COUNT(all) >= 24);
}

/* A field of the description of a module, with another value; or without it (NULL). */
static void test_modules(void **state) {
    static const struct {
        const char *field, *value;
    } all[] = {{"format", "99"}, {"format", "\"x\""}, {"format", NULL}, {"id", "\"00\""}, {"id", "5"}, {"id", NULL}, {"params", "\"L1\""}, {"params", "7"}, {"params", NULL}, {"inputs", "0"},
               {"inputs", "-1"}, {"inputs", "1e99"}, {"inputs", "4294967296"}, {"inputs", "\"10\""}, {"inputs", NULL}, {"outputs", "0"}, {"outputs", "4294967295"}, {"outputs", NULL}, {"shape", "[]"},
               {"shape", "[1,11]"}, {"shape", "\"x\""}, {"shape", NULL}, {"weight_bits", "0"}, {"weight_bits", "99"}, {"input_bits", "0"}, {"input_bits", "-3"}, {"b_bits", "7"}, {"b_bits", "51"},
               {"input_scale", "0"}, {"input_scale", "-1.5"}, {"input_scale", "\"NaN\""}, {"output_scale", "0"}, {"delta", "0"}, {"delta", "-1"}};
    const char *json = hemi_module_client_json(world.small);
    size_t tried = 0;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        json_t *root = json_loads(json, 0, NULL), *value = all[i].value ? json_loads(all[i].value, JSON_DECODE_ANY, NULL) : NULL;
        if (!json_object_get(root, all[i].field)) {
            json_decref(root);
            json_decref(value);
            continue;
        }
        if (value)
            json_object_set_new(root, all[i].field, value);
        else
            json_object_del(root, all[i].field);
        char *text = json_dumps(root, JSON_COMPACT);
        hemi_module *module = NULL;
        hemi_error err = {0};
        const hemi_status status = hemi_module_from_client_json(&module, text, strlen(text), &err);
        if (status == HEMI_OK || module) fail_msg("a module with %s = %s is accepted", all[i].field, all[i].value ? all[i].value : "nothing");
        if (status != HEMI_ERR_FORMAT && status != HEMI_ERR_VERSION && status != HEMI_ERR_PARAMS && status != HEMI_ERR_SHAPE && status != HEMI_ERR_TOO_LARGE)
            fail_msg("a module with %s = %s: %s", all[i].field, all[i].value ? all[i].value : "nothing", hemi_status_name(status));
        if (!strstr(err.message, all[i].field) && status == HEMI_ERR_FORMAT && all[i].value == NULL) fail_msg("a module without %s: %s", all[i].field, err.message);
        free(text);
        json_decref(root);
        tried++;
    }
    printf("hostile fixtures, description of a module: %zu\n", tried);
    assert_true(tried >= 20);
}

/* The zip around it. */
static hemi_status read_zip(const uint8_t *bytes, size_t count, hemi_error *err) {
    hemi_archive_entry entry = {.name = "client.json", .max_bytes = 1 << 20};
    const hemi_status status = hemi_archive_read(&entry, 1, bytes, count, err);
    if (status == HEMI_OK) hemi_bytes_free(entry.data);
    return status;
}

static void test_zips(void **state) {
    static const hostile all[] = {{"empty", CUT, 0, 0, 0, HEMI_ERR_FORMAT},
                                  {"one byte", CUT, 1, 0, 0, HEMI_ERR_FORMAT},
                                  {"the local header alone", CUT, 30, 0, 0, HEMI_ERR_FORMAT},
                                  {"no directory", CUT, 60, 0, 0, HEMI_ERR_FORMAT},
                                  {"one byte short", CUT, -1, 0, 0, HEMI_ERR_FORMAT},
                                  {"no end", CUT, -22, 0, 0, HEMI_ERR_FORMAT},
                                  {"another end", SET, -22, 4, 0, HEMI_ERR_FORMAT},
                                  {"two entries of one", SET, -12, 2, 2, HEMI_ERR_FORMAT},
                                  {"no entries of one", SET, -12, 2, 0, HEMI_ERR_FORMAT},
                                  {"65535 entries", SET, -12, 2, 65535, HEMI_ERR_FORMAT},
                                  {"a directory of another size", SET, -10, 4, 1, HEMI_ERR_FORMAT},
                                  {"a directory beyond the file", SET, -6, 4, 0xFFFFFFF0, HEMI_ERR_FORMAT},
                                  {"a directory at 0", SET, -6, 4, 0, HEMI_ERR_FORMAT},
                                  {"a comment that is not there", SET, -2, 2, 99, HEMI_ERR_FORMAT},
                                  {"another name", SET, 30, 1, 'x', HEMI_ERR_FORMAT},
                                  {"other contents", SET, 45, 4, 0xFFFFFFFF, HEMI_ERR_FORMAT}};
    static const struct {
        const char *what, *name;
    } names[] = {{"another entry", "other.json"}, {"a path", "../client.json"}, {"an absolute path", "/client.json"}, {"upper case", "CLIENT.JSON"},
                 {"a folder", "client.json/"},    {"an empty name", ""},         {"a name with a zero", "client"},    {"a longer name", "client.json.bak"}};
    blob good;
    size_t named = 0;
    (void)state;
    const hemi_archive_entry entry = {.name = "client.json", .data = (uint8_t *)"{\"a\": 1}", .bytes = 8};
    ASSERT_OK(hemi_archive_write(&good.bytes, &good.count, &entry, 1, ERR));
    hemi_error err = {0};
    assert_int_equal(read_zip(good.bytes, good.count, &err), HEMI_OK);
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        const hostile *h = &all[i];
        const size_t at = h->at < 0 ? good.count - (size_t)-h->at : (size_t)h->at, size = h->how == CUT ? at : good.count;
        uint8_t *copy = calloc(size ? size : 1, 1);
        memcpy(copy, good.bytes, size < good.count ? size : good.count);
        for (int b = 0; h->how == SET && b < h->bytes; b++) copy[at + (size_t)b] = (uint8_t)(h->value >> (8 * b));
        const hemi_status status = read_zip(copy, size, &err);
        free(copy);
        if (status != h->expected) fail_msg("zip, %s: %s", h->what, hemi_status_name(status));
    }
    for (size_t i = 0; i < TEST_COUNT(names); i++) {
        const hemi_archive_entry other = {.name = names[i].name, .data = (uint8_t *)"{\"a\": 1}", .bytes = 8};
        blob bad;
        if (hemi_archive_write(&bad.bytes, &bad.count, &other, 1, &err) != HEMI_OK) {
            named++; /* not even written */
            continue;
        }
        const hemi_status status = read_zip(bad.bytes, bad.count, &err);
        hemi_bytes_free(bad.bytes);
        if (status != HEMI_ERR_FORMAT) fail_msg("zip, %s: %s", names[i].what, hemi_status_name(status));
        named++;
    }
    hemi_bytes_free(good.bytes);
    printf("hostile fixtures, zip of a compiled module: %zu\n", TEST_COUNT(all) + named);
    assert_true(TEST_COUNT(all) + named >= 24);
}

/* ---- ONNX: the bytes; what graphs mean is in test_onnx.c */

static hemi_status read_onnx(const uint8_t *bytes, size_t count, hemi_error *err) {
    static const uint32_t shape[2] = {4, 2};
    hemi_affine map;
    const hemi_status status = hemi_onnx_import(&map, bytes, count, shape, 2, NULL, NULL, err);
    if (status == HEMI_OK) hemi_affine_free(&map);
    return status;
}

static void test_onnx_bytes(void **state) {
    static const struct {
        const char *what, *hex;
        hemi_status expected;
    } all[] = {{"empty", "", HEMI_ERR_FORMAT},
               {"a zero", "00", HEMI_ERR_FORMAT},
               {"field number 0", "0001", HEMI_ERR_FORMAT},
               {"half a number", "80", HEMI_ERR_FORMAT},
               {"a number of eleven bytes", "08ffffffffffffffffffff01", HEMI_ERR_FORMAT},
               {"a length beyond the end", "3a7f", HEMI_ERR_FORMAT},
               {"a length of 2^63", "3affffffffffffffffff01", HEMI_ERR_FORMAT},
               {"a group", "0b", HEMI_ERR_FORMAT},
               {"the end of a group", "0c", HEMI_ERR_FORMAT},
               {"wire type 6", "0e", HEMI_ERR_FORMAT},
               {"wire type 7", "0f", HEMI_ERR_FORMAT},
               {"half a double", "0900000000", HEMI_ERR_FORMAT},
               {"half a float", "0d0000", HEMI_ERR_FORMAT},
               {"a number where a graph is", "3801", HEMI_ERR_FORMAT},
               {"a version alone", "0808", HEMI_ERR_FORMAT},
               {"no graph", "08084204" "0a00100d", HEMI_ERR_FORMAT},
               {"an empty graph", "08083a004204" "0a00100d", HEMI_ERR_FORMAT},
               {"no operator set", "08083a00", HEMI_ERR_FORMAT},
               {"an old operator set", "08083a0042040a001001", HEMI_ERR_VERSION},
               {"text", "7b22612e", HEMI_ERR_FORMAT},
               {"a zip", "504b0304", HEMI_ERR_FORMAT},
               {"an ELF file", "7f454c46", HEMI_ERR_FORMAT},
               {"a graph in a graph that ends early", "08083a050a03120101", HEMI_ERR_FORMAT},
               {"a name of bytes that are no text", "08083a041202fffe42040a00100d", HEMI_ERR_FORMAT},
               {"a field of the far future", "faffffff0f00", HEMI_ERR_FORMAT}};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        uint8_t bytes[64];
        size_t count = 0;
        hemi_error err = {0};
        assert_int_equal(sodium_hex2bin(bytes, sizeof bytes, all[i].hex, strlen(all[i].hex), NULL, &count, NULL), 0);
        uint8_t *exact = malloc(count ? count : 1);
        memcpy(exact, bytes, count);
        const hemi_status status = read_onnx(exact, count, &err);
        free(exact);
        if (status != all[i].expected) fail_msg("ONNX, %s: %s (%s)", all[i].what, hemi_status_name(status), err.message);
        assert_true(err.message[0]);
    }
    printf("hostile fixtures, ONNX: %zu\n", TEST_COUNT(all));
    assert_true(TEST_COUNT(all) >= 24);
}

/* ---- HTTP */

#define KEY "0000000000000000000000000000000000000000000000000000000000000000"

static void test_http(void **state) {
    static const struct {
        const char *what, *text;
        int expected; /* 0: the connection ends, or 400 */
    } all[] = {{"no method", " /v2/models HTTP/1.1\r\nHost: x\r\n\r\n", 0},
               {"no path", "GET\r\n\r\n", 0},
               {"binary", "\x16\x03\x01\x02\x01\r\n\r\n", 0},
               {"another protocol", "GET /v2/models FTP/9.9\r\nHost: x\r\n\r\n", 0},
               {"no such route", "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 404},
               {"a path upwards", "GET /v2/models/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404},
               {"a path upwards, encoded", "GET /v2/models/%2e%2e%2f%2e%2e HTTP/1.1\r\nHost: x\r\n\r\n", 404},
               {"a hidden name", "GET /v2/models/.git HTTP/1.1\r\nHost: x\r\n\r\n", 404},
               {"a zero in the path", "GET /v2/models/a%00b HTTP/1.1\r\nHost: x\r\n\r\n", 400},
               {"a fragment", "GET /v2/models#x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
               {"another method", "PATCH /v2/models HTTP/1.1\r\nHost: x\r\n\r\n", 405},
               {"a method for another route", "DELETE /v2/models HTTP/1.1\r\nHost: x\r\n\r\n", 405},
               {"TRACE", "TRACE /v2/models HTTP/1.1\r\nHost: x\r\n\r\n", 405},
               {"CONNECT", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n", 0},
               {"no length", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\n\r\n", 411},
               {"chunks", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
               {"a length that is no number", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400},
               {"a negative length", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
               {"a length of 2^64", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n", 413},
               {"two lengths", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400},
               {"a terabyte", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n", 413},
               {"a GET with a body", "GET /v2/models HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx", 400},
               {"no key", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx", 400},
               {"a short key", "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nHemi-Key: 00\r\nContent-Length: 2\r\n\r\nxx", 400},
               {"a key that is no number", "HEAD /v2/keys/xyz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
               {"an upper-case key", "HEAD /v2/keys/A000000000000000000000000000000000000000000000000000000000000000 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
               {"an empty upload", "PUT /v2/keys/" KEY " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 400},
               {"a range the wrong way", "PUT /v2/keys/" KEY " HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 9-2/10\r\nContent-Length: 2\r\n\r\nxx", 400},
               {"a range of another length", "PUT /v2/keys/" KEY " HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 2\r\n\r\nxx", 400},
               {"a range of what is not there", "PUT /v2/keys/" KEY " HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 5-6/10\r\nContent-Length: 2\r\n\r\nxx", 409},
               {"rubbish as keys", "PUT /v2/keys/" KEY " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx", 400},
               {"a progress id that is none", "GET /v2/progress/xyz HTTP/1.1\r\nHost: x\r\n\r\n", 404}};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        const int fd = dial(world.port);
        assert_true(send_text(fd, all[i].text));
        reply r = receive(fd, strncmp(all[i].text, "HEAD", 4) == 0);
        const bool fine = all[i].expected ? r.status == all[i].expected : r.status == 0 || (r.status >= 400 && r.status < 500);
        if (!fine) fail_msg("HTTP, %s: status %d, expected %d", all[i].what, r.status, all[i].expected);
        reply_clear(&r);
        close(fd);
    }
    expect_alive();
    printf("hostile fixtures, HTTP: %zu\n", TEST_COUNT(all));
    assert_true(TEST_COUNT(all) >= 24);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear_keys),    cmocka_unit_test(test_circuit_keys),     cmocka_unit_test(test_requests),
                                       cmocka_unit_test(test_batch_requests), cmocka_unit_test(test_circuit_requests), cmocka_unit_test(test_replies),
                                       cmocka_unit_test(test_secret_files),   cmocka_unit_test(test_safetensors),      cmocka_unit_test(test_modules),
                                       cmocka_unit_test(test_zips),           cmocka_unit_test(test_onnx_bytes),       cmocka_unit_test(test_http)};
    return cmocka_run_group_tests_name("hostile files", tests, site_open, site_close) != 0;
}
