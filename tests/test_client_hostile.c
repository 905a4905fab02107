/* The client against a server that answers nonsense: an error every time, never a crash, and never other bytes sent again. */
#include "client_fixture.h"

#include "fake_server.h"

static hemi_module *module;

static const hemi_client_options patience = {.connect_timeout_ms = 2000, .timeout_ms = 4000};

/* ---- opening a module: every answer is nonsense */

static void answer_script(fake *f, int fd, const char *line) {
    (void)line;
    (void)send_all(fd, f->script, f->script_bytes);
}

static const char *const nonsense[] = {
    "",
    "\r\n\r\n",
    "garbage\r\n\r\n",
    "\x16\x03\x01\x02",
    "HTTP/9.9 200 OK\r\n\r\n",
    "HTTP/1.1\r\n\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html>hello!</html>\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nNot Found",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\n{\"error\": 5}\n",
    "HTTP/1.1 500 Oops\r\nContent-Length: 40\r\n\r\n{\"error\":{\"code\":5,\"message\":[\"a\",\"b\"]}}",
    "HTTP/1.1 200 OK\r\nHemi-Server-Ms: nan\r\nRetry-After: -1\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 503 Busy\r\nRetry-After: 100000\r\nContent-Length: 0\r\n\r\n",
};

static void test_nonsense_instead_of_a_description(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        fake_start(answer_script, nonsense[i], strlen(nonsense[i]));
        hemi_client *client = NULL;
        hemi_remote *remote = NULL;
        hemi_error err = {0};
        ASSERT_OK(hemi_client_new(&client, url, NULL, &patience, ERR));
        hemi_status status = hemi_remote_open(&remote, client, "m", "fc", NULL, &err);
        if (status == HEMI_OK || remote) fail_msg("nonsense %zu was accepted", i);
        if (!strstr(err.message, url))
            fail_msg("nonsense %zu: the message does not name the server: %s", i, err.message);
        if (server.gets > HEMI_HTTP_ATTEMPTS) fail_msg("nonsense %zu: %d requests", i, (int)server.gets);
        hemi_client_free(client);
        fake_stop();
    }
}

static void test_an_endless_body_is_cut(void **state) {
    (void)state;
    size_t bytes = HEMI_HTTP_JSON_MAX + 4096u;
    static const char head[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    char *script = malloc(bytes);
    assert_non_null(script);
    memset(script, ' ', bytes);
    memcpy(script, head, sizeof head - 1);
    fake_start(answer_script, script, bytes);
    hemi_client *client = NULL;
    hemi_remote *remote = NULL;
    ASSERT_OK(hemi_client_new(&client, url, NULL, &patience, ERR));
    ASSERT_FAILS(HEMI_ERR_REMOTE, "more than", hemi_remote_open(&remote, client, "m", "fc", NULL, ERR));
    hemi_client_free(client);
    fake_stop();
    free(script);
}

/* What a server says is shown, but cannot steer the terminal that shows it. */
static void test_messages_are_made_printable(void **state) {
    (void)state;
    static const char script[] =
        "HTTP/1.1 404 Not Found\r\nContent-Length: 82\r\n\r\n"
        "{\"error\":{\"code\":\"HEMI_ERR_NOT_FOUND\",\"message\":\"a\\u001b[2Jb\\nc\\u0007d\\u009b\"   }}   \r\n";
    fake_start(answer_script, script, sizeof script - 1);
    hemi_client *client = NULL;
    hemi_remote *remote = NULL;
    ASSERT_OK(hemi_client_new(&client, url, NULL, &patience, ERR));
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "HEMI_ERR_NOT_FOUND", hemi_remote_open(&remote, client, "m", "fc", NULL, ERR));
    for (const char *p = fixture_error.message; *p; p++)
        if ((unsigned char)*p < 32 || (unsigned char)*p > 126) fail_msg("byte %d in: %s", *p, fixture_error.message);
    hemi_client_free(client);
    fake_stop();
}

/* ---- calls: keys are taken, the answer to POST is nonsense */

static void answer_to_posts(fake *f, int fd, const char *line) {
    if (is(line, "POST"))
        answer_script(f, fd, line);
    else
        send_reply(fd, is(line, "HEAD") ? "404 Not Found" : "201 Created", NULL, 0);
}

static hemi_status call(hemi_client **client, hemi_error *err) {
    hemi_remote *remote = NULL;
    hemi_module_info info;
    hemi_module_get_info(module, &info);
    float *x = fixture_rows(2, info.inputs), *y = calloc(2 * info.outputs, sizeof *y);
    assert_non_null(y);
    ASSERT_OK(hemi_client_new(client, url, NULL, &patience, ERR));
    ASSERT_OK(hemi_remote_open_with(&remote, *client, "m", "fc", module, ERR));
    hemi_status status = hemi_remote_call(remote, x, 2, y, NULL, err);
    if (status == HEMI_OK)
        fixture_check(module, x, 2, y);
    else
        for (size_t i = 0; i < 2 * info.outputs; i++) assert_true(y[i] == 0);
    hemi_remote_free(remote);
    free(x);
    free(y);
    return status;
}

static void test_nonsense_instead_of_a_reply(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        fake_start(answer_to_posts, nonsense[i], strlen(nonsense[i]));
        hemi_client *client = NULL;
        hemi_error err = {0};
        hemi_status status = call(&client, &err);
        if (status == HEMI_OK) fail_msg("nonsense %zu was accepted", i);
        if (!err.message[0]) fail_msg("nonsense %zu: no message", i);
        if (server.posts > HEMI_HTTP_ATTEMPTS || server.puts != 1 || server.bodies_differ)
            fail_msg("nonsense %zu: %d posts, %d uploads, bodies %s", i, (int)server.posts, (int)server.puts,
                     server.bodies_differ ? "differ" : "agree");
        hemi_client_free(client);
        fake_stop();
    }
}

/* ---- a server that computes, and then spoils its reply */

static int spoil; /* which way */
enum {
    SPOIL_NOTHING,
    SPOIL_SHORT,
    SPOIL_LONG,
    SPOIL_BIT,
    SPOIL_BUSY,
    SPOIL_CUT,
    SPOIL_KEYS_GONE,
    SPOIL_KEYS_ALWAYS_GONE,
    SPOIL_NOT_PACKED
};
static size_t spoil_at;

static void compute(fake *f, uint8_t **reply, size_t *bytes) {
    hemi_server_keys *keys = NULL;
    hemi_error err = {0};
    *reply = NULL;
    if (!f->evaluator && hemi_evaluator_new(&f->evaluator, module, 1, &err) != HEMI_OK) return;
    const hemi_evaluator *evaluator = f->evaluator;
    if (!f->keys || hemi_server_keys_new(&keys, f->keys, f->keys_bytes, &err) != HEMI_OK) return;
    if (hemi_evaluate(&evaluator, 1, keys, f->body, f->body_bytes, 1, reply, bytes, &err) != HEMI_OK) *reply = NULL;
    hemi_server_keys_free(keys);
}

static void answer_spoilt(fake *f, int fd, const char *line) {
    static const char gone[] = "{\"error\":{\"code\":\"HEMI_ERR_KEY\",\"message\":\"no such keys\"}}";
    if (!is(line, "POST")) {
        send_reply(fd, is(line, "HEAD") ? "404 Not Found" : "201 Created", NULL, 0);
        return;
    }
    if (spoil == SPOIL_BUSY && f->posts < 3) {
        send_json(fd, "503 Service Unavailable", "{\"error\":{\"code\":\"HEMI_ERR_BUSY\",\"message\":\"later\"}}");
        return;
    }
    if (spoil == SPOIL_CUT && f->posts < 3) return;
    if (spoil == SPOIL_NOT_PACKED && f->posts < 2) {
        send_json(fd, "422 Unprocessable", "{\"error\":{\"code\":\"HEMI_ERR_UNSUPPORTED\",\"message\":\"one by one\"}}");
        return;
    }
    if (spoil == SPOIL_KEYS_ALWAYS_GONE || (spoil == SPOIL_KEYS_GONE && f->posts < 2)) {
        send_json(fd, "404 Not Found", gone);
        return;
    }
    uint8_t *reply;
    size_t bytes = 0;
    compute(f, &reply, &bytes);
    if (!reply) {
        send_json(fd, "500 Internal Server Error", "{}");
        return;
    }
    uint8_t *sent = malloc(bytes + 16);
    if (sent) {
        memset(sent, 0, bytes + 16);
        memcpy(sent, reply, bytes);
        if (spoil == SPOIL_BIT) sent[spoil_at / 8] ^= (uint8_t)(1u << (spoil_at % 8));
        send_reply(fd, "200 OK", sent, spoil == SPOIL_SHORT ? bytes - 1 : spoil == SPOIL_LONG ? bytes + 1 : bytes);
    }
    free(sent);
    hemi_bytes_free(reply);
}

static hemi_status spoilt_call(int how, size_t at, hemi_error *err) {
    hemi_client *client = NULL;
    spoil = how;
    spoil_at = at;
    fake_start(answer_spoilt, NULL, 0);
    hemi_status status = call(&client, err);
    hemi_client_free(client);
    return status;
}

static void test_spoilt_replies(void **state) {
    (void)state;
    hemi_error err = {0};
    assert_int_equal(spoilt_call(SPOIL_NOTHING, 0, &err), HEMI_OK);
    fake_stop();
    assert_int_not_equal(spoilt_call(SPOIL_SHORT, 0, &err), HEMI_OK);
    fake_stop();
    assert_int_not_equal(spoilt_call(SPOIL_LONG, 0, &err), HEMI_OK);
    fake_stop();
    for (size_t bit = 0; bit < 8 * 24; bit += 5) { /* every field of the header */
        if (spoilt_call(SPOIL_BIT, bit, &err) == HEMI_OK) fail_msg("bit %zu of the header may be wrong", bit);
        fake_stop();
    }
}

/* Retries and keys that were evicted: the very same bytes every time. */
static void test_what_is_sent_again(void **state) {
    (void)state;
    hemi_error err = {0};
    assert_int_equal(spoilt_call(SPOIL_BUSY, 0, &err), HEMI_OK);
    assert_int_equal(server.posts, 3);
    assert_int_equal(server.puts, 1);
    assert_false(server.bodies_differ);
    fake_stop();
    assert_int_equal(spoilt_call(SPOIL_CUT, 0, &err), HEMI_OK);
    assert_int_equal(server.posts, 3);
    assert_false(server.bodies_differ);
    fake_stop();
    assert_int_equal(spoilt_call(SPOIL_KEYS_GONE, 0, &err), HEMI_OK);
    assert_int_equal(server.posts, 2);
    assert_int_equal(server.puts, 2);
    assert_int_equal(server.heads, 1);
    assert_false(server.bodies_differ);
    fake_stop();
    assert_int_equal(spoilt_call(SPOIL_KEYS_ALWAYS_GONE, 0, &err), HEMI_ERR_KEY);
    assert_int_equal(server.posts, 2);
    assert_int_equal(server.puts, 2);
    assert_false(server.bodies_differ);
    fake_stop();
}

static void answer_never(fake *f, int fd, const char *line) {
    (void)line;
    for (int i = 0; i < 100 && !f->stop; i++) {
        struct pollfd p = {.fd = fd, .events = POLLRDHUP};
        if (poll(&p, 1, 20) != 0) return;
    }
}

/* A server that does not hold the module for packed rows gets the rows one by one: another request, under seeds of its own. */
static void test_rows_one_by_one(void **state) {
    (void)state;
    hemi_error err = {0};
    assert_int_equal(spoilt_call(SPOIL_NOT_PACKED, 0, &err), HEMI_OK);
    assert_int_equal(server.posts, 2);
    assert_true(server.bodies_differ);
    fake_stop();
}

static void test_time_out(void **state) {
    (void)state;
    const hemi_client_options quick = {.connect_timeout_ms = 200, .timeout_ms = 200};
    fake_start(answer_never, NULL, 0);
    hemi_client *client = NULL;
    hemi_remote *remote = NULL;
    ASSERT_OK(hemi_client_new(&client, url, NULL, &quick, ERR));
    ASSERT_FAILS(HEMI_ERR_NETWORK, "200 ms", hemi_remote_open(&remote, client, "m", "fc", NULL, ERR));
    assert_int_equal(server.gets, 1); /* a time-out is not tried again */
    hemi_client_free(client);
    fake_stop();
}

static int setup(void **state) {
    (void)state;
    module = fixture_module(10, 10, false, 3);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    hemi_module_free(module);
    return 0;
}

/* ---- what is tried again */

typedef struct trouble {
    const char *status, *fields, *json; /* of the first two answers */
    int posts;                          /* that come of it */
    hemi_status expected;
} trouble;

static const trouble *present;

static void answer_trouble(fake *f, int fd, const char *line) {
    if (is(line, "POST") && f->posts < 3)
        send_with(fd, present->status, present->fields, present->json, strlen(present->json));
    else
        answer_spoilt(f, fd, line);
}

#define ERROR_DOCUMENT(code) "{\"error\":{\"code\":\"" code "\",\"message\":\"why\",\"request_id\":\"r-17\"}}"

static void test_what_is_tried_again(void **state) {
    static const trouble troubles[] = {
        {"503 Service Unavailable", "", ERROR_DOCUMENT("HEMI_ERR_BUSY"), 3, HEMI_OK},
        {"503 Service Unavailable", "Retry-After: 1\r\n", ERROR_DOCUMENT("HEMI_ERR_BUSY"), 3, HEMI_OK},
        {"503 Service Unavailable", "Retry-After: 100\r\n", ERROR_DOCUMENT("HEMI_ERR_BUSY"), 1, HEMI_ERR_BUSY}, /* not waited for */
        {"429 Too Many Requests", "Retry-After: 1\r\n", ERROR_DOCUMENT("HEMI_ERR_LIMIT"), 3, HEMI_OK},
        {"429 Too Many Requests", "", ERROR_DOCUMENT("HEMI_ERR_BUDGET"), 1, HEMI_ERR_BUDGET}, /* would be the same again */
        {"429 Too Many Requests", "", ERROR_DOCUMENT("HEMI_ERR_LIMIT"), 1, HEMI_ERR_LIMIT},
        {"502 Bad Gateway", "", "<html>nginx</html>", 3, HEMI_OK}, /* a proxy whose server is just gone */
        {"504 Gateway Timeout", "", "<html>nginx</html>", 3, HEMI_OK},
        {"401 Unauthorized", "", ERROR_DOCUMENT("HEMI_ERR_AUTH"), 1, HEMI_ERR_AUTH},
        {"401 Unauthorized", "", "<html>a proxy</html>", 1, HEMI_ERR_AUTH},
        {"403 Forbidden", "", ERROR_DOCUMENT("HEMI_ERR_FORBIDDEN"), 1, HEMI_ERR_FORBIDDEN},
        {"500 Internal Server Error", "", ERROR_DOCUMENT("HEMI_ERR_INTERNAL"), 1, HEMI_ERR_REMOTE},
        {"400 Bad Request", "", ERROR_DOCUMENT("HEMI_ERR_FORMAT"), 1, HEMI_ERR_REMOTE},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(troubles); i++) {
        hemi_client *client = NULL;
        hemi_error err = {0};
        present = &troubles[i];
        spoil = SPOIL_NOTHING;
        fake_start(answer_trouble, NULL, 0);
        const hemi_status status = call(&client, &err);
        if (status != present->expected) fail_msg("%zu: %s instead of %s: %s", i, hemi_status_name(status), hemi_status_name(present->expected), err.message);
        if (server.posts != present->posts) fail_msg("%zu: %d requests instead of %d", i, (int)server.posts, present->posts);
        assert_false(server.bodies_differ); /* a seed encrypts one message */
        if (status != HEMI_OK && present->json[0] == '{') assert_non_null(strstr(err.message, "(request r-17)"));
        hemi_client_free(client);
        fake_stop();
    }
}

/* A call that failed for good, and the next: nothing of the one is in the other. */
static void test_seeds_are_not_used_again(void **state) {
    static const trouble gone = {"500 Internal Server Error", "", ERROR_DOCUMENT("HEMI_ERR_INTERNAL"), 1, HEMI_ERR_REMOTE};
    (void)state;
    hemi_client *client = NULL;
    hemi_error err = {0};
    uint8_t *before;
    present = &gone;
    fake_start(answer_trouble, NULL, 0);
    assert_int_equal(call(&client, &err), HEMI_ERR_REMOTE);
    const size_t bytes = server.body_bytes;
    before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, server.body, bytes);
    hemi_client_free(client);
    assert_int_equal(call(&client, &err), HEMI_ERR_REMOTE); /* the same rows */
    assert_int_equal(server.body_bytes, bytes);
    size_t same = 0;
    for (size_t i = 0; i < bytes; i++) same += before[i] == server.body[i];
    assert_true(same < bytes / 4 + 200); /* headers, and what is alike by chance */
    hemi_client_free(client);
    free(before);
    fake_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nonsense_instead_of_a_description),
        cmocka_unit_test(test_an_endless_body_is_cut),
        cmocka_unit_test(test_messages_are_made_printable),
        cmocka_unit_test(test_nonsense_instead_of_a_reply),
        cmocka_unit_test(test_spoilt_replies),
        cmocka_unit_test(test_what_is_sent_again),
        cmocka_unit_test(test_rows_one_by_one),
        cmocka_unit_test(test_time_out),
        cmocka_unit_test(test_what_is_tried_again),
        cmocka_unit_test(test_seeds_are_not_used_again),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
