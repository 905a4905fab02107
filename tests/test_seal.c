/* Secret key files: who may read them, and under a passphrase. */
#include "client_fixture.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/file.h"
#include "hemi/params.h"
#include "secret/seal.h"

#define PLAIN 200

static char folder[256], path[300];
static const hemi_params *params;

/* ---- the format: small, and quick to open */

static uint8_t plain[PLAIN], sealed[PLAIN + HEMI_SEAL_OVERHEAD], out[PLAIN];

static void seal_quickly(void) {
    for (size_t i = 0; i < PLAIN; i++) plain[i] = (uint8_t)(i * 7);
    ASSERT_OK(hemi_seal(sealed, params, plain, PLAIN, "correct horse", 1, 8, ERR));
}

static void test_round_trip(void **state) {
    uint8_t again[sizeof sealed];
    (void)state;
    seal_quickly();
    assert_true(hemi_seal_is(sealed, sizeof sealed));
    ASSERT_OK(hemi_seal_open(out, params, sealed, sizeof sealed, "correct horse", ERR));
    assert_memory_equal(out, plain, PLAIN);
    memcpy(again, sealed, sizeof again);
    seal_quickly(); /* salt and nonce are new */
    assert_memory_not_equal(again + 20, sealed + 20, 16);
    assert_memory_not_equal(again + 36, sealed + 36, 24);
    for (size_t i = 0; i + 8 < sizeof sealed; i++) assert_memory_not_equal(sealed + i, plain + 16, 8); /* nothing of it is to be seen */
}

static void test_wrong_passphrase(void **state) {
    (void)state;
    seal_quickly();
    static const char *const wrong[] = {"", "correct hors", "correct horse ", "Correct horse"};
    for (size_t i = 0; i < TEST_COUNT(wrong); i++) {
        memset(out, 1, sizeof out);
        ASSERT_FAILS(HEMI_ERR_AUTH, "passphrase", hemi_seal_open(out, params, sealed, sizeof sealed, wrong[i], ERR));
        assert_true(sodium_is_zero(out, sizeof out));
    }
}

/* Hostile files: what is done to a good one, and what comes of it. */
typedef struct hostile {
    const char *what;
    size_t at, bytes;     /* these bytes ... */
    uint32_t value;       /* ... become this */
    size_t cut;           /* or the file has so many bytes less */
    hemi_status expected;
} hostile;

static const hostile files[] = {
    {"empty", 0, 0, 0, sizeof sealed, HEMI_ERR_FORMAT},
    {"seven bytes", 0, 0, 0, sizeof sealed - 7, HEMI_ERR_FORMAT},
    {"half a header", 0, 0, 0, sizeof sealed - 30, HEMI_ERR_FORMAT},
    {"a header alone", 0, 0, 0, sizeof sealed - HEMI_SEAL_HEADER_BYTES, HEMI_ERR_FORMAT},
    {"header and half a tag", 0, 0, 0, sizeof sealed - HEMI_SEAL_HEADER_BYTES - 8, HEMI_ERR_FORMAT},
    {"nothing but a tag", 0, 0, 0, sizeof sealed - HEMI_SEAL_OVERHEAD, HEMI_ERR_AUTH},
    {"one byte short", 0, 0, 0, 1, HEMI_ERR_AUTH},
    {"no magic", 0, 4, 0, 0, HEMI_ERR_FORMAT},
    {"another magic", 0, 4, 0x464C457F, 0, HEMI_ERR_FORMAT},
    {"version 0", 4, 2, 0, 0, HEMI_ERR_VERSION},
    {"version 2", 4, 2, 2, 0, HEMI_ERR_VERSION},
    {"version 65535", 4, 2, 65535, 0, HEMI_ERR_VERSION},
    {"kind: a plain key", 6, 2, 4, 0, HEMI_ERR_FORMAT},
    {"kind: a request", 6, 2, 1, 0, HEMI_ERR_FORMAT},
    {"kind: unknown", 6, 2, 999, 0, HEMI_ERR_FORMAT},
    {"another set", 8, 4, 0xFFFFFFFF, 0, HEMI_ERR_FORMAT},
    {"set 0", 8, 4, 0, 0, HEMI_ERR_FORMAT},
    {"no passes", 12, 4, 0, 0, HEMI_ERR_FORMAT},
    {"21 passes", 12, 4, 21, 0, HEMI_ERR_FORMAT},
    {"four thousand million passes", 12, 4, 0xFFFFFFFF, 0, HEMI_ERR_FORMAT},
    {"another number of passes", 12, 4, 2, 0, HEMI_ERR_AUTH},
    {"no memory", 16, 4, 0, 0, HEMI_ERR_FORMAT},
    {"7 KiB", 16, 4, 7, 0, HEMI_ERR_FORMAT},
    {"more than 1 GiB", 16, 4, HEMI_SEAL_MEMORY_KIB_MAX + 1, 0, HEMI_ERR_FORMAT},
    {"4 TiB", 16, 4, 0xFFFFFFFF, 0, HEMI_ERR_FORMAT},
    {"another amount of memory", 16, 4, 16, 0, HEMI_ERR_AUTH},
    {"another salt", 20, 4, 0, 0, HEMI_ERR_AUTH},
    {"another nonce", 40, 4, 0, 0, HEMI_ERR_AUTH},
    {"another first byte", HEMI_SEAL_HEADER_BYTES, 4, 0x12345678, 0, HEMI_ERR_AUTH},
    {"another tag", PLAIN + HEMI_SEAL_OVERHEAD - 4, 4, 0, 0, HEMI_ERR_AUTH},
};

static void test_hostile_files(void **state) {
    uint8_t bytes[sizeof sealed];
    (void)state;
    seal_quickly();
    for (size_t i = 0; i < TEST_COUNT(files); i++) {
        const hostile *h = &files[i];
        memcpy(bytes, sealed, sizeof bytes);
        for (size_t b = 0; b < h->bytes; b++) bytes[h->at + b] = (uint8_t)(h->value >> (8 * b));
        hemi_error err = {0};
        const hemi_status found = hemi_seal_open(out, params, bytes, sizeof bytes - h->cut, "correct horse", &err);
        if (found != h->expected) fail_msg("%s: %s, expected %s (%s)", h->what, hemi_status_name(found), hemi_status_name(h->expected), err.message);
        assert_true(err.message[0]);
    }
    printf("hostile fixtures, encrypted secret key file: %zu\n", TEST_COUNT(files));
}

static void test_every_bit(void **state) {
    (void)state;
    seal_quickly();
    for (size_t i = 0; i < sizeof sealed * 8; i += test_quick() ? 97 : 3) {
        if (i / 8 >= 12 && i / 8 < 20) continue; /* what it costs: above */
        sealed[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_not_equal(hemi_seal_open(out, params, sealed, sizeof sealed, "correct horse", NULL), HEMI_OK);
        sealed[i / 8] ^= (uint8_t)(1u << i % 8);
    }
}

/* ---- a folder of keys */

static hemi_status open_key(const char *passphrase, uint8_t **bytes, size_t *length, const hemi_module *module) {
    hemi_keys *keys;
    const hemi_keys_options options = {.folder = folder, .passphrase = passphrase};
    const hemi_status opened = hemi_keys_new_with(&keys, &options, ERR);
    if (opened != HEMI_OK) return opened;
    const hemi_status status = module ? hemi_keys_evaluation(keys, &module, 1, bytes, length, ERR) : hemi_keys_generate(keys, params, false, ERR);
    hemi_keys_free(keys);
    return status;
}

static mode_t mode_of(void) {
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    return s.st_mode & 0777;
}

static bool is_sealed(void) {
    uint8_t *bytes;
    size_t count;
    ASSERT_OK(hemi_file_read(&bytes, &count, path, 1 << 20, ERR));
    const bool sealed_now = hemi_seal_is(bytes, count);
    hemi_bytes_release(bytes);
    return sealed_now;
}

static void protect(const char *before, const char *after) {
    hemi_keys *keys;
    const hemi_keys_options options = {.folder = folder, .passphrase = before};
    ASSERT_OK(hemi_keys_new_with(&keys, &options, ERR));
    ASSERT_OK(hemi_keys_protect(keys, params, after, ERR));
    hemi_keys_free(keys);
}

/* What was encrypted under a key is read with it after every change of its file. */
static void test_folder(void **state) {
    hemi_module *module = fixture_module(10, 10, false, 4);
    hemi_keys *keys;
    hemi_pending *pending;
    uint8_t *request, *reply, *evaluation;
    size_t request_bytes, reply_bytes, evaluation_bytes;
    float x[10], y[10];
    hemi_evaluator *evaluator;
    hemi_server_keys *server_keys;
    (void)state;
    params = hemi_params_by_name("L4096");
    hemi_module_info info;
    hemi_module_get_info(module, &info);
    params = info.params;
    snprintf(path, sizeof path, "%s/%s.key", folder, params->name);
    assert_int_equal(open_key("first", NULL, NULL, NULL), HEMI_OK); /* made */
    assert_int_equal(mode_of(), 0600);
    assert_true(is_sealed());
    assert_int_equal(open_key("second", NULL, NULL, NULL), HEMI_ERR_AUTH);
    assert_non_null(strstr(fixture_error.message, path));
    assert_int_equal(open_key(NULL, NULL, NULL, NULL), HEMI_ERR_STATE);
    assert_int_equal(open_key("", NULL, NULL, NULL), HEMI_ERR_ARGUMENT);
    const hemi_keys_options options = {.folder = folder, .passphrase = "first"};
    ASSERT_OK(hemi_keys_new_with(&keys, &options, ERR));
    for (size_t i = 0; i < 10; i++) x[i] = fixture_number(i);
    ASSERT_OK(hemi_keys_evaluation(keys, (const hemi_module *const[]){module}, 1, &evaluation, &evaluation_bytes, ERR));
    ASSERT_OK(hemi_encrypt(module, keys, x, 1, &pending, &request, &request_bytes, ERR));
    hemi_keys_free(keys);
    ASSERT_OK(hemi_server_keys_new(&server_keys, evaluation, evaluation_bytes, ERR));
    ASSERT_OK(hemi_evaluator_new(&evaluator, module, 1, ERR));
    ASSERT_OK(hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, server_keys, request, request_bytes, 1, &reply, &reply_bytes, ERR));
    protect("first", "second");
    assert_int_equal(open_key("first", NULL, NULL, NULL), HEMI_ERR_AUTH);
    assert_int_equal(open_key("second", NULL, NULL, NULL), HEMI_OK);
    protect("second", NULL);
    assert_false(is_sealed());
    assert_int_equal(mode_of(), 0600);
    assert_int_equal(open_key("second", NULL, NULL, NULL), HEMI_ERR_STATE);
    ASSERT_OK(hemi_keys_new(&keys, folder, ERR));
    ASSERT_OK(hemi_keys_generate(keys, params, false, ERR));
    ASSERT_OK(hemi_decrypt(module, keys, pending, reply, reply_bytes, y, ERR));
    fixture_check(module, x, 1, y);
    hemi_keys_free(keys);
    hemi_evaluator_free(evaluator);
    hemi_server_keys_free(server_keys);
    hemi_pending_free(pending);
    hemi_bytes_release(request);
    hemi_bytes_free(reply);
    hemi_bytes_release(evaluation);
    hemi_module_free(module);
}

static void test_permissions(void **state) {
    (void)state;
    static const mode_t open_modes[] = {0640, 0604, 0660, 0666, 0610};
    for (size_t i = 0; i < TEST_COUNT(open_modes); i++) {
        assert_int_equal(chmod(path, open_modes[i]), 0);
        assert_int_equal(open_key(NULL, NULL, NULL, NULL), HEMI_ERR_IO);
        assert_non_null(strstr(fixture_error.message, "chmod 600"));
    }
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(open_key(NULL, NULL, NULL, NULL), HEMI_OK);
    assert_int_equal(chmod(path, 0600), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_wrong_passphrase), cmocka_unit_test(test_hostile_files),
                                       cmocka_unit_test(test_every_bit), cmocka_unit_test(test_folder), cmocka_unit_test(test_permissions)};
    test_folder_new(folder);
    params = hemi_params_by_name("L4096");
    const int failed = cmocka_run_group_tests_name("secret key files", tests, NULL, NULL);
    test_folder_remove(folder);
    return failed != 0;
}
