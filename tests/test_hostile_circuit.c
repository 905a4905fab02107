/* Descriptions of circuits as a hostile server might give them, and files as a careless owner might: any number changed. They are refused, or what
 * follows from them stays within its bounds: slots, requests, replies of random bytes; plans, evaluators, results in the clear. */
#include <jansson.h>

#include "client_fixture.h"
#include "circuit_kinds.h"

#include "client/codec.h"
#include "model/description.h"
#include "wire/ckks.h"

#define CIPHERTEXTS_MAX 3 /* of a module that is tried in full */

static hemi_keys *keys;

static int open_keys(void **state) {
    (void)state;
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    return 0;
}

static int close_keys(void **state) {
    (void)state;
    hemi_keys_free(keys);
    return 0;
}

/* One number somewhere below v, taken by another. */
static void change_number(json_t *v, test_rng *rng) {
    static const int64_t others[] = {-1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 1024, 2048, 4096, 8192, 65536, 1 << 20, INT32_MAX, UINT32_MAX, INT64_MAX};
    static const double reals[] = {-1e200, -1, 0, 1e-200, 1e-30, 0.5, 1, 3, 1e6, 1e30, 1e200, 0x1p60, 1024};
    while (json_is_object(v) || json_is_array(v)) {
        const size_t count = json_is_object(v) ? json_object_size(v) : json_array_size(v);
        if (count == 0) return;
        size_t at = test_below(rng, count);
        if (json_is_array(v)) {
            v = json_array_get(v, at);
            continue;
        }
        void *i = json_object_iter(v);
        while (at-- > 0) i = json_object_iter_next(v, i);
        v = json_object_iter_value(i);
    }
    const int64_t old = json_integer_value(v);
    const size_t way = test_below(rng, 4);
    if (json_is_integer(v)) json_integer_set(v, way == 0 ? others[test_below(rng, TEST_COUNT(others))] : way == 1 || old > INT32_MAX ? old / 3 : way == 2 ? 2 * old : old + 1);
    if (json_is_real(v)) json_real_set(v, way < 2 ? reals[test_below(rng, TEST_COUNT(reals))] : json_real_value(v) * (way == 2 ? 1.5 : 0.5));
}

static char *changed(const char *text, test_rng *rng) {
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    for (size_t changes = 1 + test_below(rng, 3); changes > 0; changes--) change_number(j, rng);
    char *out = json_dumps(j, JSON_REAL_PRECISION(17));
    json_decref(j);
    return out;
}

/* A reply of random bytes under the right header: residues that are not canonical are refused, others read. */
static void try_reply(const hemi_module *m, hemi_pending *pending, size_t units, float *y, test_rng *rng) {
    const size_t length = hemi_pending_reply_bytes(m, pending);
    uint8_t *reply = malloc(length);
    hemi_ckks_request r = {.params = m->io.params, .limbs = 1, .units = (uint32_t)units, .ciphertexts = m->io.out_blocks};
    assert_non_null(reply);
    memcpy(r.module_id, m->info.id, sizeof r.module_id);
    assert_int_equal(length, hemi_ckks_reply_bytes(&r));
    for (size_t i = 0; i < length; i++) reply[i] = (uint8_t)test_u64(rng);
    hemi_ckks_reply_write_header(reply, &r);
    const hemi_status status = hemi_decrypt(m, keys, pending, reply, length, y, ERR);
    assert_true(status == HEMI_OK || status == HEMI_ERR_FORMAT);
    ASSERT_FAILS(HEMI_ERR_FORMAT, "bytes", hemi_decrypt(m, keys, pending, reply, length - 1, y, ERR));
    free(reply);
}

/* Whatever was accepted: in full, where it is small enough for a test. */
static bool try_client(const hemi_module *m, test_rng *rng) {
    const size_t rows = 1 + test_below(rng, m->io.rows < 5 ? m->io.rows + 2 : 5), units = (rows + m->io.rows - 1) / m->io.rows;
    if (units * m->io.in_blocks > CIPHERTEXTS_MAX || units * m->io.out_blocks > CIPHERTEXTS_MAX) return false;
    float *x = fixture_rows(rows, m->io.inputs), *y = malloc(rows * m->io.outputs * sizeof *y);
    hemi_pending *pending = NULL;
    uint8_t *request = NULL;
    size_t bytes = 0;
    assert_non_null(y);
    const hemi_status status = hemi_encrypt(m, keys, x, rows, &pending, &request, &bytes, ERR); /* numbers may be too large for their scale */
    if (status == HEMI_OK) try_reply(m, pending, units, y, rng);
    hemi_bytes_release(request);
    hemi_pending_free(pending);
    free(x);
    free(y);
    return status == HEMI_OK;
}

static void any_client_description(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    size_t made = 0, accepted = 0, tried = 0;
    for (kind k = 0; k < KINDS; k++) {
        hemi_module *m = kind_module(k);
        assert_true(try_client(m, &rng));
        for (size_t i = 0; i < (test_quick() ? 60u : 400u); i++) {
            hemi_module *read = NULL;
            char *text = changed(m->client_json, &rng);
            made++;
            if (hemi_module_from_client_json(&read, text, strlen(text), ERR) == HEMI_OK) {
                accepted++;
                tried += try_client(read, &rng);
            }
            hemi_module_free(read);
            free(text);
        }
        hemi_module_free(m);
    }
    print_message("%zu descriptions, %zu of them accepted, %zu tried in full\n", made, accepted, tried);
    assert_true(accepted > made / 10 && tried > made / 20);
}

/* As a server opens it. */
static hemi_module *read_server(const char *text, const uint8_t *tensors, size_t bytes) {
    hemi_module *m = hemi_alloc(1, sizeof *m);
    assert_non_null(m);
    hemi_status s = hemi_description_read(m, text, strlen(text), HEMI_SERVER_DESCRIPTION, ERR);
    if (s == HEMI_OK && m->is_circuit) s = hemi_circuit_tensors_read(m->circuit, tensors, bytes, ERR);
    if (s == HEMI_OK && m->is_circuit) s = hemi_circuit_module_complete(m, ERR);
    if (s == HEMI_OK && m->is_circuit) s = hemi_module_finish(m, ERR);
    if (s == HEMI_OK && m->is_circuit) return m;
    hemi_module_free(m);
    return NULL;
}

static void try_server(const hemi_module *m) {
    float *x = fixture_rows(2, m->io.inputs), *y = malloc(2 * m->io.outputs * sizeof *y);
    hemi_evaluator *e = NULL;
    assert_non_null(y);
    ASSERT_OK(hemi_module_run_clear(m, x, 2, y, false, ERR));
    ASSERT_OK(hemi_module_run_clear(m, x, 2, y, true, ERR));
    const hemi_status status = hemi_evaluator_new(&e, m, 1, ERR); /* weights may be too large for their norm */
    if (status != HEMI_OK && fixture_error.message[0] == 0) fail_msg("%s without a reason", hemi_status_name(status));
    hemi_evaluator_free(e);
    free(x);
    free(y);
}

static void any_server_description(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    size_t made = 0, accepted = 0;
    for (kind k = 0; k < KINDS; k++) {
        hemi_module *m = kind_module(k);
        uint8_t *tensors = NULL;
        char *text = NULL;
        size_t bytes = 0;
        ASSERT_OK(hemi_circuit_tensors_write(&tensors, &bytes, m->circuit, ERR));
        ASSERT_OK(hemi_description_write(&text, m, HEMI_SERVER_DESCRIPTION, ERR));
        for (size_t i = 0; i < (test_quick() ? 150u : 1000u); i++) {
            char *other = changed(text, &rng);
            hemi_module *read = read_server(other, tensors, bytes);
            made++;
            accepted += read != NULL;
            if (read) try_server(read);
            hemi_module_free(read);
            free(other);
        }
        hemi_free(text);
        hemi_free(tensors);
        hemi_module_free(m);
    }
    print_message("%zu descriptions, %zu of them accepted\n", made, accepted);
    assert_true(accepted > made / 20);
}

/* Numbers that stay finite, but are of any size. */
static void any_numbers(void **state) {
    (void)state;
    static const double sizes[] = {0, 1e-300, 1e-30, 1e6, 1e30, 1e200, -1e300};
    size_t evaluators = 0;
    for (kind k = 0; k < KINDS; k++) {
        hemi_module *m = kind_module(k);
        for (size_t i = 0; i < 2 * TEST_COUNT(sizes); i++) {
            hemi_circuit_value *v = &m->circuit->value[1];
            const double size = sizes[i / 2];
            double *coefficient = v->polynomial.coefficient;
            float *w = v->a.term->map.weight;
            const float old = *w;
            const double before = coefficient ? *coefficient : 0;
            if (i & 1 && coefficient)
                *coefficient = size;
            else
                *w = (float)(fabs(size) < 1e38 ? size : copysign(1e38, size));
            hemi_evaluator *e = NULL;
            const hemi_status status = hemi_evaluator_new(&e, m, 1, ERR);
            if (status != HEMI_OK && fixture_error.message[0] == 0) fail_msg("%s without a reason", hemi_status_name(status));
            evaluators += status == HEMI_OK;
            hemi_evaluator_free(e);
            *w = old;
            if (coefficient) *coefficient = before;
        }
        hemi_module_free(m);
    }
    print_message("%zu evaluators\n", evaluators);
    assert_true(evaluators > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_client_description), cmocka_unit_test(any_server_description), cmocka_unit_test(any_numbers)};
    return cmocka_run_group_tests_name("hostile circuits", tests, open_keys, close_keys) != 0;
}
