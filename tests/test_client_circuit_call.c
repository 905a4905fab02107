/* Calls of circuits through a server that is made up: what goes up, in which parts, and what is told meanwhile. */
#include "client_fixture.h"

#include <sodium.h>

#include "circuit_module.h"
#include "client/circuit_call.h"
#include "fake_server.h"
#include "hemi/server.h"

enum { SMALL, WIDE, MODULES };
#define ROWS 4
#define MIB  ((size_t)1 << 20)

static hemi_module *module[MODULES];

/* ---- a server that keeps uploads and computes */

enum { KEEPS, LOSES_PARTS, REFUSES, KNOWS_A_PART };

static struct {
    int how;
    pthread_mutex_t lock;
    uint8_t *keys; /* as they come */
    size_t total, received, cuts, cut_after; /* cuts: 1: every second PUT is cut after so many bytes, beginning with the first; 2: every one */
    bool complete;
    size_t whole_puts;
    char path[160]; /* of the last upload */
    atomic_int polls, slow_until; /* an answer to POST waits for so many polls */
    char id[33];                  /* of the last POST */
    bool wrong_poll, has_id, knows_progress;
} site = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void site_reset(int how) {
    free(site.keys);
    site.keys = NULL;
    site.total = site.received = site.cuts = site.cut_after = site.whole_puts = 0;
    site.how = how;
    site.complete = site.wrong_poll = site.has_id = site.knows_progress = false;
    site.polls = site.slow_until = 0;
    site.id[0] = 0;
}

static bool range_of(const char *head, size_t *first, size_t *last, size_t *total) {
    const char *field = strcasestr(head, "content-range: bytes ");
    return field && sscanf(field + 21, "%zu-%zu/%zu", first, last, total) == 3;
}

/* Before a body is read: is it one to be cut? */
static size_t patience_of(fake *f, const char *head, size_t length) {
    return is(head, "PUT") && (site.cuts == 2 || (site.cuts == 1 && f->puts % 2 == 0)) ? site.cut_after : length;
}

static void keep(const uint8_t *body, size_t bytes, size_t first, size_t total) {
    if (!site.keys || first == 0) {
        free(site.keys);
        site.keys = calloc(total, 1);
        site.total = total;
        site.received = 0;
    }
    if (site.keys && first == site.received && bytes <= total - first) {
        memcpy(site.keys + first, body, bytes);
        site.received += bytes;
    }
    site.complete = site.received == site.total;
}

static void answer_put(fake *f, int fd, const char *head) {
    char fields[64];
    size_t first = 0, last = f->keys_bytes - 1, total = f->keys_bytes;
    const bool part = range_of(head, &first, &last, &total);
    if (fd < 0) { /* what came is kept */
        if (part && first == site.received && f->keys_bytes > 0) keep(f->keys, f->keys_bytes, first, total);
        return;
    }
    (void)sscanf(head, "PUT %159s", site.path);
    if (site.how == REFUSES) {
        send_json(fd, "400 Bad Request", "{\"error\":{\"code\":\"HEMI_ERR_FORMAT\",\"message\":\"no\"}}");
        return;
    }
    if (!part) site.whole_puts++;
    if (part && site.how == LOSES_PARTS && first == 0) {
        snprintf(fields, sizeof fields, "Hemi-Received: %zu\r\n", last + 1);
        send_with(fd, "202 Accepted", fields, NULL, 0);
        return;
    }
    if (part && first != site.received) {
        snprintf(fields, sizeof fields, "Hemi-Received: %zu\r\n", site.received);
        send_with(fd, "409 Conflict", fields, "{}", 2);
        return;
    }
    keep(f->keys, f->keys_bytes, first, total);
    snprintf(fields, sizeof fields, "Hemi-Received: %zu\r\n", site.received);
    if (site.complete)
        send_reply(fd, "201 Created", NULL, 0);
    else
        send_with(fd, "202 Accepted", fields, NULL, 0);
}

static void answer_head(int fd) {
    char fields[64];
    snprintf(fields, sizeof fields, "Hemi-Received: %zu\r\n", site.received);
    send_with(fd, site.complete ? "200 OK" : "404 Not Found", site.received > 0 && !site.complete ? fields : "", NULL, 0);
}

static void answer_post(fake *f, int fd, const char *head) {
    const char *id = strcasestr(head, "hemi-progress: ");
    hemi_server_keys *keys = NULL;
    hemi_evaluator *all[MODULES] = {NULL};
    uint8_t *reply = NULL;
    size_t bytes = 0;
    hemi_error err = {0};
    pthread_mutex_lock(&site.lock);
    site.has_id = id && strspn(id + 15, "0123456789abcdef") == 32 && id[47] == '\r';
    if (site.has_id) memcpy(site.id, id + 15, 32);
    pthread_mutex_unlock(&site.lock);
    for (int i = 0; i < 400 && site.polls < site.slow_until; i++) usleep(10000);
    bool ok = hemi_server_keys_new(&keys, site.keys, site.total, &err) == HEMI_OK;
    for (size_t i = 0; i < MODULES && ok; i++) ok = hemi_evaluator_new(&all[i], module[i], 1, &err) == HEMI_OK;
    ok = ok && hemi_evaluate((const hemi_evaluator *const *)all, MODULES, keys, f->body, f->body_bytes, 1, &reply, &bytes, &err) == HEMI_OK;
    if (ok)
        send_reply(fd, "200 OK", reply, bytes);
    else
        send_json(fd, "500 Internal Server Error", "{\"error\":{\"code\":\"HEMI_ERR_INTERNAL\",\"message\":\"it does not compute\"}}");
    if (ok) hemi_bytes_free(reply);
    for (size_t i = 0; i < MODULES; i++) hemi_evaluator_free(all[i]);
    hemi_server_keys_free(keys);
}

static void answer_poll(int fd, const char *head) {
    char want[64], json[96];
    pthread_mutex_lock(&site.lock);
    snprintf(want, sizeof want, "GET /v2/progress/%s ", site.id);
    pthread_mutex_unlock(&site.lock);
    if (!is(head, want)) site.wrong_poll = true;
    const int polls = ++site.polls;
    if (!site.knows_progress) {
        send_json(fd, "404 Not Found", "{\"error\":{\"code\":\"HEMI_ERR_NOT_FOUND\",\"message\":\"no such route\"}}");
        return;
    }
    snprintf(json, sizeof json, "{\"done\":%d,\"total\":10,\"state\":\"computing\"}", polls < 10 ? polls : 10);
    send_json(fd, "200 OK", polls == 2 ? "{\"done\":11,\"total\":-1}" : json); /* one of them is nonsense */
}

static void answer(fake *f, int fd, const char *head) {
    if (is(head, "PUT"))
        answer_put(f, fd, head);
    else if (is(head, "HEAD"))
        answer_head(fd);
    else if (is(head, "GET"))
        answer_poll(fd, head);
    else
        answer_post(f, fd, head);
}

static void site_start(size_t threads) {
    fake_listen(answer);
    server.patience = patience_of;
    fake_run(threads);
}

/* ---- calls */

typedef struct told {
    size_t calls, last, total;
    bool backwards;
} told;

typedef struct listener {
    told keys, upload, infer, other;
} listener;

static void listen_to(void *context, const char *what, size_t done, size_t total) {
    listener *l = context;
    told *t = strcmp(what, "make keys") == 0 ? &l->keys : strcmp(what, "upload keys") == 0 ? &l->upload : strcmp(what, "infer") == 0 ? &l->infer : &l->other;
    if (done > total || (t->calls > 0 && t->total == total && done < t->last)) t->backwards = true;
    t->calls++;
    t->last = done;
    t->total = total;
}

static hemi_status try_call(hemi_client *client, const hemi_module *m, size_t rows, float first, hemi_call_stats *stats) {
    hemi_remote *remote;
    float *x = fixture_rows(rows, m->io.inputs), *y = malloc(rows * m->io.outputs * sizeof *y);
    assert_non_null(y);
    memset(y, 0x55, rows * m->io.outputs * sizeof *y);
    if (first != 0) x[0] = first;
    ASSERT_OK(hemi_remote_open_with(&remote, client, "m", "c", m, ERR));
    const hemi_status s = hemi_remote_call(remote, x, rows, y, stats, ERR);
    if (s == HEMI_OK && first == 0) circuit_check(m, x, rows, y);
    for (size_t i = 0; s != HEMI_OK && i < rows * m->io.outputs; i++) assert_true(y[i] == 0);
    hemi_remote_free(remote);
    free(x);
    free(y);
    return s;
}

static hemi_client *client_with(listener *l, hemi_keys *keys) {
    const hemi_client_options options = {.connect_timeout_ms = 2000, .timeout_ms = 20000, .progress = l ? listen_to : NULL, .progress_context = l};
    hemi_client *client;
    if (l) *l = (listener){0};
    ASSERT_OK(hemi_client_new(&client, url, keys, &options, ERR));
    return client;
}

static void check_upload(void) {
    uint8_t hash[32];
    char path[160] = "/v2/keys/";
    assert_true(site.complete);
    crypto_generichash(hash, sizeof hash, site.keys, site.total, NULL, 0);
    sodium_bin2hex(path + 9, 65, hash, sizeof hash);
    assert_string_equal(path, site.path);
}

static void calls_in_several_requests(void **state) {
    hemi_call_stats stats;
    const size_t at_once = ROWS * HEMI_CIRCUIT_CALL_UNITS;
    (void)state;
    site_reset(KEEPS);
    site_start(1);
    hemi_client *client = client_with(NULL, NULL);
    ASSERT_OK(try_call(client, module[SMALL], 1, 0, &stats));
    assert_int_equal(server.posts, 1);
    assert_int_equal(stats.evaluation_key_bytes, site.total);
    assert_int_equal(stats.rows_out_of_range, 0);
    assert_true(stats.upload_bytes > 0 && stats.download_bytes > 0 && stats.encrypt_ms > 0 && stats.decrypt_ms > 0 && stats.server_ms > 0);
    assert_false(site.has_id); /* nobody wants to know */
    check_upload();
    ASSERT_OK(try_call(client, module[SMALL], at_once + 3, 0, &stats));
    assert_int_equal(server.posts, 3);
    assert_int_equal(stats.evaluation_key_bytes, 0);
    ASSERT_OK(try_call(client, module[SMALL], at_once + 3, (float)(1.01 * module[SMALL]->io.in_norm), &stats));
    assert_true(stats.rows_out_of_range >= 1);
    hemi_client_free(client);
    fake_stop();
}

/* A module that needs more: other keys go up, once, and serve both. */
static void keys_that_grow(void **state) {
    hemi_call_stats stats;
    (void)state;
    site_reset(KEEPS);
    site_start(1);
    hemi_client *client = client_with(NULL, NULL);
    ASSERT_OK(try_call(client, module[SMALL], 1, 0, &stats));
    const size_t before = site.total;
    site.complete = false;
    site.received = 0;
    ASSERT_OK(try_call(client, module[WIDE], 2, 0, &stats));
    assert_true(site.total > before && stats.evaluation_key_bytes == site.total);
    ASSERT_OK(try_call(client, module[SMALL], 1, 0, &stats));
    assert_int_equal(stats.evaluation_key_bytes, 0);
    assert_true(site.total > HEMI_CLIENT_UPLOAD_CHUNK && client->set[0].bytes == NULL && client->set[0].on_server);
    hemi_client_free(client);
    fake_stop();
}

static void what_circuits_cannot(void **state) {
    hemi_remote *r[2];
    float x[10] = {0}, y[2][10], *both[2] = {y[0], y[1]};
    (void)state;
    site_reset(KEEPS);
    site_start(1);
    hemi_client *client = client_with(NULL, NULL);
    ASSERT_OK(hemi_remote_open_with(&r[0], client, "m", "c", module[SMALL], ERR));
    ASSERT_OK(hemi_remote_open_with(&r[1], client, "m", "d", module[SMALL], ERR));
    ASSERT_FAILS(HEMI_ERR_UNSUPPORTED, "batches of rows", hemi_remote_prepare(r[0], 5, ERR));
    assert_int_equal(hemi_remote_prepared(r[0]), 0);
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "one by one", hemi_remote_call_many(r, 2, x, 1, both, NULL, ERR));
    ASSERT_OK(hemi_remote_call(r[0], NULL, 0, NULL, NULL, ERR)); /* no rows: nothing to do */
    x[3] = NAN;
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "number 3", hemi_remote_call(r[0], x, 1, y[0], NULL, ERR));
    assert_int_equal(server.posts + server.puts, 0);
    hemi_remote_free(r[0]);
    hemi_remote_free(r[1]);
    hemi_client_free(client);
    fake_stop();
}

/* ---- uploads */

static void an_upload_in_parts(void **state) {
    listener l;
    (void)state;
    site_reset(KEEPS);
    site_start(1);
    hemi_client *client = client_with(&l, NULL);
    ASSERT_OK(try_call(client, module[WIDE], 1, 0, NULL));
    const int parts = (int)((site.total + HEMI_CLIENT_UPLOAD_CHUNK - 1) / HEMI_CLIENT_UPLOAD_CHUNK);
    assert_true(parts > 1);
    assert_int_equal(server.puts, parts);
    assert_int_equal(server.heads, 1);
    assert_int_equal(site.whole_puts, 0);
    check_upload();
    assert_true(l.keys.calls >= 2 && l.keys.last == l.keys.total && l.keys.total == module[WIDE]->io.automorphisms + 1);
    assert_true(l.upload.calls >= 3 && l.upload.last == site.total && l.upload.total == site.total);
    assert_true(l.infer.calls >= 1 && l.infer.last == l.infer.total && l.other.calls == 0);
    assert_false(l.keys.backwards || l.upload.backwards || l.infer.backwards);
    hemi_client_free(client);
    fake_stop();
}

/* Connections break in the middle of parts: on from where the server is. */
static void an_upload_that_is_cut(void **state) {
    static const size_t after[] = {0, 1, 3 * MIB, HEMI_CLIENT_UPLOAD_CHUNK - 1};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(after); i++) {
        hemi_call_stats stats;
        site_reset(KEEPS);
        site.cuts = 1;
        site.cut_after = after[i];
        site_start(1);
        hemi_client *client = client_with(NULL, NULL);
        ASSERT_OK(try_call(client, module[WIDE], 1, 0, &stats));
        assert_int_equal(stats.evaluation_key_bytes, site.total);
        assert_true(server.heads > 1);
        check_upload();
        hemi_client_free(client);
        fake_stop();
    }
}

/* One that was begun before, by another client with the same keys. */
static void an_upload_that_was_begun(void **state) {
    hemi_keys *keys;
    hemi_call_stats stats;
    uint8_t *bytes;
    size_t length;
    (void)state;
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_keys_evaluation(keys, (const hemi_module *const[]){module[WIDE]}, 1, &bytes, &length, ERR));
    site_reset(KEEPS);
    keep(bytes, 5 * MIB + 7, 0, length);
    site_start(1);
    hemi_client *client = client_with(NULL, keys);
    ASSERT_OK(try_call(client, module[WIDE], 1, 0, &stats));
    assert_int_equal(stats.evaluation_key_bytes, length - 5 * MIB - 7);
    check_upload();
    assert_memory_equal(site.keys, bytes, length);
    hemi_client_free(client);
    hemi_bytes_release(bytes);
    hemi_keys_free(keys);
    fake_stop();
}

static void servers_that_keep_no_parts(void **state) {
    (void)state;
    site_reset(LOSES_PARTS);
    site_start(1);
    hemi_client *client = client_with(NULL, NULL);
    ASSERT_OK(try_call(client, module[WIDE], 1, 0, NULL));
    assert_int_equal(site.whole_puts, 1);
    assert_int_equal(server.puts, 3);
    check_upload();
    hemi_client_free(client);
    fake_stop();
}

static void uploads_that_fail(void **state) {
    (void)state;
    site_reset(REFUSES);
    site_start(1);
    hemi_client *client = client_with(NULL, NULL);
    if (try_call(client, module[WIDE], 1, 0, NULL) == HEMI_OK) fail_msg("a refused upload is none");
    assert_non_null(strstr(fixture_error.message, "uploading the evaluation keys"));
    assert_int_equal(server.puts, 1);
    hemi_client_free(client);
    fake_stop();
    site_reset(KEEPS);
    site.cuts = 2; /* all of them */
    site_start(1);
    client = client_with(NULL, NULL);
    assert_int_equal(try_call(client, module[WIDE], 1, 0, NULL), HEMI_ERR_NETWORK);
    assert_int_equal(server.puts, HEMI_CLIENT_UPLOAD_RETRIES + 1);
    hemi_client_free(client);
    fake_stop();
}

/* ---- progress of a computation */

static void progress_is_told(void **state) {
    listener l;
    (void)state;
    for (int knows = 0; knows < 2; knows++) {
        site_reset(KEEPS);
        site.knows_progress = knows;
        site.slow_until = 4;
        site_start(2);
        hemi_client *client = client_with(&l, NULL);
        ASSERT_OK(try_call(client, module[SMALL], 1, 0, NULL));
        assert_true(site.has_id && !site.wrong_poll && site.polls >= 4);
        assert_false(l.infer.backwards);
        assert_int_equal(l.infer.total, knows ? 10 : 1);
        assert_int_equal(l.infer.last, l.infer.total);
        assert_true(knows ? l.infer.calls >= 3 : l.infer.calls == 1);
        hemi_client_free(client);
        fake_stop();
    }
}

static int open_all(void **state) {
    (void)state;
    module[SMALL] = circuit_module_mlp(10, 32, 10, 3, ROWS, 0x11);
    module[WIDE] = circuit_module_mlp(5000, 4, 3, 3, 1, 0x33);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    free(site.keys);
    for (size_t i = 0; i < MODULES; i++) circuit_module_free(module[i]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(calls_in_several_requests), cmocka_unit_test(keys_that_grow),
                                       cmocka_unit_test(what_circuits_cannot),      cmocka_unit_test(an_upload_in_parts),
                                       cmocka_unit_test(an_upload_that_is_cut),     cmocka_unit_test(an_upload_that_was_begun),
                                       cmocka_unit_test(servers_that_keep_no_parts), cmocka_unit_test(uploads_that_fail),
                                       cmocka_unit_test(progress_is_told)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
