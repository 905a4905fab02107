/* Several modules that share one input: compiled together, called with one encryption and one request. */
#include "client_fixture.h"

#include "base/bits.h"
#include "client/codec.h"
#include "wire/wire.h"

#define MODULES 3
#define INPUTS  300
static const uint32_t outputs[MODULES] = {200, 64, 310};
static const bool biases[MODULES] = {true, false, true};
static const char *const names[MODULES] = {"q", "k", "v"};
static const uint8_t group[HEMI_MODULE_ID_BYTES] = {1, 2, 3, 250};

static char folder[256], url[64];
static hemi_module *module[MODULES], *alone; /* alone: of the same shape as k, compiled by itself with larger weights */
static hemi_http_server *server;

static hemi_module *compile(size_t i, float size, const hemi_compile_options *options) {
    float *w = malloc((size_t)INPUTS * outputs[i] * sizeof *w), *b = malloc(outputs[i] * sizeof *b),
          *x = fixture_rows(4, INPUTS);
    assert_non_null(w);
    assert_non_null(b);
    for (size_t j = 0; j < (size_t)INPUTS * outputs[i]; j++) w[j] = size * fixture_number(j + 5 * i);
    for (size_t j = 0; j < outputs[i]; j++) b[j] = 3 * fixture_number(j + i + 1000);
    const uint32_t shape[2] = {4, INPUTS};
    hemi_module *m = NULL;
    ASSERT_OK(hemi_module_from_linear(&m, w, biases[i] ? b : NULL, outputs[i], INPUTS, x, shape, 2, options, ERR));
    free(w);
    free(b);
    free(x);
    return m;
}

static int setup(void **state) {
    (void)state;
    hemi_module_info info;
    test_folder_new(folder);
    hemi_compile_options options = {.layout = 1024, .b_bits = 32, .input_group = group, .delta_max = UINT64_MAX};
    for (size_t i = 0; i < MODULES; i++) { /* once to learn the smallest delta, once with it */
        hemi_module *first = compile(i, 1, &options);
        hemi_module_get_info(first, &info);
        if (info.delta < options.delta_max) options.delta_max = info.delta;
        hemi_module_free(first);
    }
    for (size_t i = 0; i < MODULES; i++) {
        module[i] = compile(i, 1, &options);
        fixture_save(folder, "demo", names[i], module[i]);
    }
    alone = compile(1, 40, &(hemi_compile_options){.layout = 1024, .b_bits = 28});
    fixture_save(folder, "demo", "alone", alone);
    fixture_save(folder, "other", "alone", alone);
    const hemi_http_options http = {.folder = folder, .threads = 2, .quiet = true, .no_auth = true};
    ASSERT_OK(hemi_http_server_start(&server, &http, ERR));
    snprintf(url, sizeof url, "http://127.0.0.1:%u", hemi_http_server_port(server));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    hemi_http_server_stop(server);
    for (size_t i = 0; i < MODULES; i++) hemi_module_free(module[i]);
    hemi_module_free(alone);
    test_folder_remove(folder);
    return 0;
}

static void test_compiled_together(void **state) {
    (void)state;
    hemi_module_info first, info;
    hemi_module_get_info(module[0], &first);
    for (size_t i = 0; i < MODULES; i++) {
        hemi_module *read = NULL;
        const char *json = hemi_module_client_json(module[i]);
        ASSERT_OK(hemi_module_from_client_json(&read, json, strlen(json), ERR));
        hemi_module_get_info(read, &info);
        assert_true(info.delta == first.delta && info.has_input_group);
        assert_memory_equal(info.input_group, group, sizeof group);
        hemi_module_free(read);
    }
    ASSERT_OK(hemi_modules_share((const hemi_module *const *)module, MODULES, ERR));
    hemi_module_get_info(alone, &info);
    assert_false(info.has_input_group);
    assert_null(strstr(hemi_module_client_json(alone), "input_group"));
    /* a group that is not 128 bits is refused */
    char *json = strdup(hemi_module_client_json(module[0])), *at = strstr(json, "010203fa");
    assert_non_null(at);
    *at = 'x';
    hemi_module *read = NULL;
    ASSERT_FAILS(HEMI_ERR_FORMAT, "input_group", hemi_module_from_client_json(&read, json, strlen(json), ERR));
    free(json);
}

/* A smaller delta costs accuracy, not correctness: it is what was asked for, and never larger than the results allow. */
static void test_delta_max(void **state) {
    (void)state;
    hemi_module_info free_info, info;
    hemi_module *m = compile(0, 1, NULL);
    hemi_module_get_info(m, &free_info);
    hemi_module_free(m);
    m = compile(0, 1, &(hemi_compile_options){.delta_max = free_info.delta / 4});
    hemi_module_get_info(m, &info);
    assert_true(info.delta == free_info.delta / 4);
    assert_true(info.predicted_error > 3 * free_info.predicted_error);
    hemi_module_free(m);
    m = compile(0, 1, &(hemi_compile_options){.delta_max = free_info.delta * 4});
    hemi_module_get_info(m, &info);
    assert_true(info.delta == free_info.delta);
    hemi_module_free(m);
    const uint32_t shape[2] = {1, 1};
    const float one = 1;
    ASSERT_FAILS(
        HEMI_ERR_UNSUPPORTED, "room",
        hemi_module_from_linear(&m, &one, NULL, 1, 1, &one, shape, 2, &(hemi_compile_options){.delta_max = 1}, ERR));
}

static void open_all(hemi_client **client, hemi_remote *remote[MODULES + 1]) {
    ASSERT_OK(hemi_client_new(client, url, NULL, NULL, ERR));
    for (size_t i = 0; i < MODULES; i++) ASSERT_OK(hemi_remote_open(&remote[i], *client, "demo", names[i], NULL, ERR));
    ASSERT_OK(hemi_remote_open(&remote[MODULES], *client, "demo", "alone", NULL, ERR));
}

static void close_all(hemi_client *client, hemi_remote *remote[MODULES + 1]) {
    for (size_t i = 0; i <= MODULES; i++) hemi_remote_free(remote[i]);
    hemi_client_free(client);
}

static void many(hemi_remote *const *remotes, const size_t *which, size_t count, size_t rows, hemi_call_stats *stats) {
    float *x = fixture_rows(rows, INPUTS), *y[MODULES] = {NULL};
    hemi_remote *chosen[MODULES];
    for (size_t i = 0; i < count; i++) {
        chosen[i] = remotes[which[i]];
        y[i] = calloc(rows * outputs[which[i]], sizeof **y);
        assert_non_null(y[i]);
    }
    ASSERT_OK(hemi_remote_call_many(chosen, count, x, rows, y, stats, ERR));
    for (size_t i = 0; i < count; i++) {
        fixture_check(module[which[i]], x, rows, y[i]);
        free(y[i]);
    }
    free(x);
}

static void test_one_request_for_all(void **state) {
    (void)state;
    hemi_client *client;
    hemi_remote *remote[MODULES + 1];
    hemi_call_stats stats = {0};
    hemi_module_info info;
    open_all(&client, remote);
    hemi_module_get_info(module[0], &info);
    many(remote, (const size_t[]){0, 1, 2}, 3, 2, &stats);
    const size_t row = info.upload_bytes - HEMI_REQUEST_HEADER_BYTES - HEMI_MODULE_ID_BYTES;
    const size_t header = HEMI_REQUEST_HEADER_BYTES + MODULES * HEMI_MODULE_ID_BYTES;
    assert_int_equal(stats.upload_bytes,
                     header + 3 * row); /* two rows, and the zeros that the biases are learnt from */
    assert_true(stats.evaluation_key_bytes > 0 && stats.server_ms > 0 && stats.encrypt_ms > 0 && stats.decrypt_ms > 0);
    many(remote, (const size_t[]){0, 1, 2}, 3, 2, &stats);
    assert_int_equal(stats.upload_bytes, header + 2 * row);
    many(remote, (const size_t[]){2, 0}, 2, 1, &stats);
    many(remote, (const size_t[]){0, 1, 2}, 3, 9, &stats); /* rows side by side */
    assert_true(stats.upload_bytes < header + 9 * row);
    many(remote, (const size_t[]){1}, 1, 520, &stats); /* more than one request holds */
    float *x = fixture_rows(1, INPUTS), *y = calloc(outputs[0], sizeof *y);
    ASSERT_OK(hemi_remote_call(remote[0], x, 1, y, &stats, ERR)); /* the bias is known to a call of one module too */
    fixture_check(module[0], x, 1, y);
    assert_int_equal(stats.upload_bytes, info.upload_bytes);
    free(x);
    free(y);
    close_all(client, remote);
}

/* Some of the biases known, others not; the module without one first. */
static void test_biases_are_learnt_where_missing(void **state) {
    (void)state;
    hemi_client *client;
    hemi_remote *remote[MODULES + 1];
    open_all(&client, remote);
    many(remote, (const size_t[]){0}, 1, 1, NULL);
    many(remote, (const size_t[]){1, 0, 2}, 3, 3, NULL);
    many(remote, (const size_t[]){2, 1}, 2, 1, NULL);
    close_all(client, remote);
}

/* Slots that were prepared for several modules, and a batch of many rows, serve all of them at once. */
static void test_batches_for_all(void **state) {
    (void)state;
    const hemi_client_options options = {.prepare = 1, .prepare_rows = 32};
    hemi_client *client;
    hemi_remote *remote[MODULES];
    hemi_call_stats stats = {0};
    hemi_module_info info;
    const size_t all[] = {0, 1, 2};
    ASSERT_OK(hemi_client_new(&client, url, NULL, &options, ERR));
    for (size_t i = 0; i < MODULES; i++) ASSERT_OK(hemi_remote_open(&remote[i], client, "demo", names[i], NULL, ERR));
    for (size_t i = 0; i < 2000 && stats.prepared_rows == 0; i++) {
        many(remote, all, 3, 1, &stats);
        usleep(2000);
    }
    assert_int_equal(stats.prepared_rows, 1);
    hemi_module_get_info(module[0], &info);
    assert_true(stats.upload_bytes < 100 + 32 * MODULES + INPUTS * info.b_bits / 8);
    many(remote, all, 3, 2, &stats);
    assert_int_equal(stats.prepared_rows, 2);
    assert_int_equal(hemi_remote_prepared(remote[0]), 0); /* those of each module alone are others */
    many(remote, all, 3, 150, &stats);
    assert_int_equal(stats.prepared_rows, 0);
    assert_true(stats.upload_bytes < 200 + 152 * INPUTS * info.b_bits / 8);
    for (size_t i = 0; i < MODULES; i++) hemi_remote_free(remote[i]);
    hemi_client_free(client);
}

static void test_what_is_refused(void **state) {
    (void)state;
    hemi_client *client, *second = NULL;
    hemi_remote *remote[MODULES + 1], *elsewhere = NULL, *foreign = NULL;
    float x[INPUTS] = {0}, y0[310], y1[310], *y[2] = {y0, y1};
    open_all(&client, remote);
    ASSERT_OK(hemi_client_new(&second, url, NULL, NULL, ERR));
    ASSERT_OK(hemi_remote_open(&elsewhere, second, "demo", "k", NULL, ERR));
    ASSERT_OK(hemi_remote_open(&foreign, client, "other", "alone", NULL, ERR));
#define REFUSED(text, a, b)                                                                                            \
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, text, hemi_remote_call_many((hemi_remote *[]){a, b}, 2, x, 1, y, NULL, ERR))
    REFUSED("differ in b_bits", remote[0], remote[MODULES]);
    REFUSED("are the same", remote[0], remote[0]);
    REFUSED("one model and client", remote[0], elsewhere);
    REFUSED("one model and client", remote[MODULES], foreign);
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "0 modules", hemi_remote_call_many(remote, 0, x, 1, y, NULL, ERR));
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "17 modules", hemi_remote_call_many(remote, 17, x, 1, y, NULL, ERR));
    x[7] = NAN;
    y0[0] = y1[0] = 5;
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "not a number", hemi_remote_call_many(remote, 2, x, 1, y, NULL, ERR));
    assert_true(y0[0] == 0 && y1[0] == 0); /* nothing is left in the outputs */
    hemi_remote_free(elsewhere);
    hemi_remote_free(foreign);
    hemi_client_free(second);
    close_all(client, remote);
}

/* A reply with any byte of its headers changed, cut, or with parts in another order is refused, and the outputs are zeros. */
static void test_hostile_replies(void **state) {
    (void)state;
    const hemi_module *const *modules = (const hemi_module *const *)module;
    hemi_keys *keys = NULL;
    hemi_server_keys *server_keys = NULL;
    hemi_evaluator *e[MODULES];
    hemi_pending *pending[MODULES];
    uint8_t *request = NULL, *reply = NULL, *bytes = NULL;
    size_t request_bytes, reply_bytes, length;
    float *x = fixture_rows(1, INPUTS), *y[MODULES];
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_keys_evaluation(keys, modules, MODULES, &bytes, &length, ERR));
    ASSERT_OK(hemi_server_keys_new(&server_keys, bytes, length, ERR));
    for (size_t i = 0; i < MODULES; i++) {
        ASSERT_OK(hemi_evaluator_new(&e[i], module[i], 1, ERR));
        y[i] = calloc(outputs[i], sizeof **y);
    }
    ASSERT_OK(
        hemi_encrypt_many(modules, MODULES, keys, HEMI_FORM_SINGLE, x, 1, pending, &request, &request_bytes, ERR));
    ASSERT_OK(hemi_evaluate((const hemi_evaluator *const *)e, MODULES, server_keys, request, request_bytes, 1, &reply,
                            &reply_bytes, ERR));
    size_t at = HEMI_REPLY_HEADER_BYTES;
    for (size_t i = 0; i <= MODULES; i++) { /* the reply's header, then each part's */
        const size_t start = i == 0 ? 0 : at, end = i == 0 ? at : at + HEMI_REPLY_FRAME_BYTES;
        for (size_t b = start; b < end; b++) {
            y[0][0] = 5;
            reply[b] ^= 0x11;
            if (hemi_decrypt_many(modules, MODULES, keys, pending, reply, reply_bytes, y, ERR) == HEMI_OK)
                fail_msg("byte %zu was not looked at", b);
            for (size_t j = 0; j < MODULES; j++) assert_true(y[j][0] == 0);
            reply[b] ^= 0x11;
        }
        if (i > 0) at += (size_t)hemi_load64(reply + at + 32);
    }
    assert_int_equal(at, reply_bytes);
    for (size_t cut = 0; cut < reply_bytes; cut += cut < 200 ? 1 : 997) {
        uint8_t *shorter = malloc(cut + 1); /* a block of its own: a read past the end is seen */
        memcpy(shorter, reply, cut);
        if (cut >= HEMI_REPLY_HEADER_BYTES) hemi_store32(shorter + 20, (uint32_t)cut);
        assert_true(hemi_decrypt_many(modules, MODULES, keys, pending, shorter, cut, y, ERR) != HEMI_OK);
        free(shorter);
    }
    const hemi_module *swapped[MODULES] = {module[1], module[0], module[2]};
    hemi_pending *order[MODULES] = {pending[1], pending[0], pending[2]};
    ASSERT_FAILS(
        HEMI_ERR_FORMAT, "part",
        hemi_decrypt_many(swapped, MODULES, keys, order, reply, reply_bytes, (float *[]){y[1], y[0], y[2]}, ERR));
    ASSERT_OK(hemi_decrypt_many(modules, MODULES, keys, pending, reply, reply_bytes, y, ERR));
    for (size_t i = 0; i < MODULES; i++) {
        fixture_check(module[i], x, 1, y[i]);
        hemi_evaluator_free(e[i]);
        hemi_pending_free(pending[i]);
        free(y[i]);
    }
    free(x);
    hemi_bytes_release(request);
    hemi_bytes_free(reply);
    hemi_bytes_release(bytes);
    hemi_server_keys_free(server_keys);
    hemi_keys_free(keys);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compiled_together),   cmocka_unit_test(test_delta_max),
        cmocka_unit_test(test_one_request_for_all), cmocka_unit_test(test_biases_are_learnt_where_missing),
        cmocka_unit_test(test_batches_for_all),   cmocka_unit_test(test_what_is_refused),     cmocka_unit_test(test_hostile_replies),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
