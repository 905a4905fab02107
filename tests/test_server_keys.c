/* Evaluation keys and encrypted calls over HTTP: uploads whole, in pieces and interrupted; hostile bodies; many clients. */
#include "server_fixture.h"

#include "server/key_cache.h"
#include "server/uploads.h"

static const hemi_module *both[2];

static int open_all(void **state) {
    site_open(state);
    both[0] = world.small;
    both[1] = world.wide;
    return 0;
}

static void put_keys(const party *p) {
    expect_reply(ask(world.port, "PUT", p->path, NULL, p->bytes, p->length), 201, NULL);
}
static int head_status(const party *p) {
    reply r = ask(world.port, "HEAD", p->path, NULL, NULL, 0);
    const int status = r.status;
    reply_clear(&r);
    return status;
}
static reply infer(const party *p, const char *model, const void *body, size_t bytes) {
    char path[96];
    snprintf(path, sizeof path, "/v2/models/%s/infer", model);
    return ask(world.port, "POST", path, p->header, body, bytes);
}

/* ---- calls */

static void test_call(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 2);
    call small = call_new(&p, world.small, 1), wide = call_new(&p, world.wide, 3);
    expect_reply(infer(&p, "demo", small.request, small.bytes), 404, "HEMI_ERR_KEY"); /* not there yet */
    put_keys(&p);
    expect_product(&p, &small, world.small, infer(&p, "demo", small.request, small.bytes));
    expect_product(&p, &wide, world.wide, infer(&p, "demo", wide.request, wide.bytes));
    expect_reply(infer(&p, "other", small.request, small.bytes), 409,
                 "HEMI_ERR_CONFLICT"); /* a module of another model */
    expect_reply(infer(&p, "none", small.request, small.bytes), 404, "HEMI_ERR_NOT_FOUND");
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", NULL, small.request, small.bytes), 400,
                 "HEMI_ERR_ARGUMENT");
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", "Hemi-Key: zz\r\n", small.request, small.bytes), 400,
                 "HEMI_ERR_ARGUMENT");
    reply r =
        ask(world.port, "GET", "/metrics", NULL, NULL, 0); /* the small one's first call carries a row of zeros too */
    assert_non_null(
        strstr((const char *)r.body, "{model=\"demo\",module=\"wide\",shape=\"po_1_300_pc\",inputs=\"300\"} 3"));
    assert_non_null(strstr((const char *)r.body, "hemi_compute_seconds_count 2"));
    expect_reply(r, 200, NULL);
    call_free(&small);
    call_free(&wide);
    party_close(&p);
}

/* Keys for the small module alone lack the automorphisms that the wide one needs. */
static void test_keys_that_do_not_fit(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 1);
    call wide = call_new(&p, world.wide, 1);
    put_keys(&p);
    expect_reply(infer(&p, "demo", wide.request, wide.bytes), 404, "HEMI_ERR_KEY");
    call_free(&wide);
    party_close(&p);
}

static void test_calls_on_one_connection(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 1);
    put_keys(&p);
    const int fd = dial(world.port);
    for (int i = 0; i < 50; i++) {
        call c = call_new(&p, world.small, 1);
        expect_product(&p, &c, world.small, ask_on(fd, "POST", "/v2/models/demo/infer", p.header, c.request, c.bytes));
        call_free(&c);
    }
    close(fd);
    party_close(&p);
}

/* ---- keys */

static void test_put_head_delete(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 1);
    assert_int_equal(head_status(&p), 404);
    put_keys(&p);
    assert_int_equal(head_status(&p), 200);
    expect_reply(ask(world.port, "PUT", p.path, NULL, p.bytes, p.length), 200, NULL); /* again: nothing changes */
    expect_reply(ask(world.port, "PUT", p.path, NULL, p.bytes, p.length), 200, NULL);
    for (int i = 0; i < 2; i++) {
        expect_reply(ask(world.port, "DELETE", p.path, NULL, NULL, 0), 204, NULL);
        assert_int_equal(head_status(&p), 404);
    }
    put_keys(&p);
    expect_reply(ask(world.port, "DELETE", p.path, NULL, NULL, 0), 204, NULL);
    static const char *const bad[] = {"/v2/keys/abc", "/v2/keys/", "/v2/keys/..",
                                      "/v2/keys/0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF"};
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        reply r = ask(world.port, "PUT", bad[i], NULL, p.bytes, p.length);
        if (r.status != 400 && r.status != 404) fail_msg("PUT %s: %d", bad[i], r.status);
        reply_clear(&r);
    }
    party_close(&p);
}

/* Puts what is in p under the hash that it now has. */
static reply put_changed(party *p) {
    name_keys(p);
    return ask(world.port, "PUT", p->path, NULL, p->bytes, p->length);
}

static void test_hostile_keys(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 2);
    uint8_t *original = malloc(p.length);
    const size_t length = p.length;
    assert_non_null(original);
    memcpy(original, p.bytes, length);
    /* another hash than the body's */
    char path[96];
    snprintf(path, sizeof path, "%s", p.path);
    path[20] = path[20] == 'a' ? 'b' : 'a';
    expect_reply(ask(world.port, "PUT", path, NULL, p.bytes, p.length), 400, "HEMI_ERR_FORMAT");
    expect_reply(ask(world.port, "PUT", p.path, NULL, "", 0), 400, "HEMI_ERR_FORMAT");
    /* truncated, with the right hash of what is left */
    static const size_t lengths[] = {1, 15, 16, 23, 24, 63, 64, 1000};
    for (size_t i = 0; i < TEST_COUNT(lengths); i++) {
        p.length = lengths[i];
        expect_reply(put_changed(&p), 400, "HEMI_ERR_FORMAT");
        p.length = length - lengths[i];
        expect_reply(put_changed(&p), 400, "HEMI_ERR_FORMAT");
    }
    p.length = length;
    /* fields of the header: magic, version, kind, set, flags, entries */
    static const struct {
        size_t at;
        const char *code;
    } fields[] = {{0, "HEMI_ERR_FORMAT"},  {4, "HEMI_ERR_VERSION"}, {6, NULL}, /* one bit makes it keys of circuits */ {8, NULL},
                  {12, "HEMI_ERR_FORMAT"}, {16, "HEMI_ERR_FORMAT"}, {20, "HEMI_ERR_FORMAT"}, {24, "HEMI_ERR_FORMAT"}};
    for (size_t i = 0; i < TEST_COUNT(fields); i++)
        for (int bit = 0; bit < 8; bit++) {
            p.bytes[fields[i].at] ^= (uint8_t)(1 << bit);
            expect_reply(put_changed(&p), 400, fields[i].code);
            memcpy(p.bytes, original, length);
        }
    /* a coefficient that is not below its prime */
    memset(p.bytes + HEMI_KEYS_HEADER_BYTES + HEMI_KEY_ENTRY_HEADER_BYTES, 0xff, 64);
    expect_reply(put_changed(&p), 400, "HEMI_ERR_FORMAT");
    memcpy(p.bytes, original, length);
    put_keys((name_keys(&p), &p));
    free(original);
    party_close(&p);
}

/* ---- uploads in pieces */

static reply put_part(const party *p, size_t first, size_t last, size_t total) {
    char range[96];
    snprintf(range, sizeof range, "Content-Range: bytes %zu-%zu/%zu\r\n", first, last, total);
    return ask(world.port, "PUT", p->path, range, p->bytes + first, last - first + 1);
}

static size_t received(const party *p) {
    reply r = ask(world.port, "HEAD", p->path, NULL, NULL, 0);
    assert_int_equal(r.status, 404);
    reply_clear(&r);
    return (size_t)strtoull(header_of(&r, "Hemi-Received"), NULL, 10);
}

static void test_upload_in_pieces(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 1);
    const size_t n = p.length, third = n / 3;
    expect_reply(put_part(&p, third, 2 * third - 1, n), 409, "HEMI_ERR_STATE"); /* nothing is there yet */
    reply r = put_part(&p, 0, third - 1, n);
    assert_int_equal(strtoull(header_of(&r, "Hemi-Received"), NULL, 10), third);
    expect_reply(r, 202, NULL);
    assert_int_equal(received(&p), third);
    expect_reply(put_part(&p, third + 1, 2 * third, n), 409, "HEMI_ERR_STATE");     /* a gap */
    expect_reply(put_part(&p, third - 1, 2 * third, n), 409, "HEMI_ERR_STATE");     /* an overlap */
    expect_reply(put_part(&p, third, 2 * third - 1, n + 1), 409, "HEMI_ERR_STATE"); /* another total */
    assert_int_equal(received(&p), third);
    expect_reply(put_part(&p, third, 2 * third - 1, n), 202, NULL);
    expect_reply(put_part(&p, 2 * third, n - 1, n), 201, NULL);
    assert_int_equal(head_status(&p), 200);
    call c = call_new(&p, world.small, 1);
    expect_product(&p, &c, world.small, infer(&p, "demo", c.request, c.bytes));
    call_free(&c);
    expect_reply(ask(world.port, "DELETE", p.path, NULL, NULL, 0), 204, NULL);
    /* one byte at a time at the end, and a damaged piece: all is dropped, and one begins anew */
    expect_reply(put_part(&p, 0, n - 4, n), 202, NULL);
    p.bytes[n - 1] ^= 1;
    for (size_t i = n - 3; i < n - 1; i++) expect_reply(put_part(&p, i, i, n), 202, NULL);
    expect_reply(put_part(&p, n - 1, n - 1, n), 400, "HEMI_ERR_FORMAT");
    p.bytes[n - 1] ^= 1;
    assert_int_equal(received(&p), 0);
    expect_reply(put_part(&p, 0, n - 1, n), 201, NULL);
    party_close(&p);
}

static void test_bad_ranges(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 1);
    static const char *const ranges[] = {"bytes 0-9",
                                         "bytes 0-9/*",
                                         "bytes */10",
                                         "bytes 9-0/10",
                                         "bytes 0-10/10",
                                         "bytes 0-8/10",
                                         "bytes 1-11/12",
                                         "bytes -1-9/10",
                                         "bytes  0-9/10",
                                         "items 0-9/10",
                                         "bytes 0-9/99999999999999999999",
                                         "bytes 0x0-9/10",
                                         ""};
    for (size_t i = 0; i < TEST_COUNT(ranges); i++) {
        char line[128];
        snprintf(line, sizeof line, "Content-Range: %s\r\n", ranges[i]);
        reply r = ask(world.port, "PUT", p.path, line, p.bytes, 10);
        if (r.status < 400 || r.status >= 500) fail_msg("'%s': %d", ranges[i], r.status);
        reply_clear(&r);
    }
    reply r = put_part(&p, 0, 9, hemi_http_server_service(world.server)->registry->key_bytes_max + 1);
    expect_reply(r, 413, "HEMI_ERR_TOO_LARGE");
    party_close(&p);
}

/* The connection breaks in the middle: what came is kept, and the rest is sent later. */
static void test_interrupted_upload(void **state) {
    (void)state;
    party p;
    char head[256];
    party_open(&p, both, 2);
    const size_t half = p.length / 2;
    const int fd = dial(world.port);
    snprintf(head, sizeof head, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", p.path, p.length);
    assert_true(send_text(fd, head) && send_bytes(fd, p.bytes, half));
    usleep(100000);
    close(fd);
    size_t there = 0;
    for (int i = 0; i < 100 && there == 0; i++, usleep(10000)) there = received(&p);
    assert_true(there > 0 && there <= half);
    expect_reply(put_part(&p, there, p.length - 1, p.length), 201, NULL);
    party_close(&p);
}

/* ---- hostile requests */

static void test_hostile_requests(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 2);
    put_keys(&p);
    call c = call_new(&p, world.wide, 2);
    uint8_t *bytes = malloc(c.bytes + 64);
    assert_non_null(bytes);
    memset(bytes, 0, c.bytes + 64);
    const int fd = dial(world.port); /* all on one connection: the server stays up, and so does that */
    const char *path = "/v2/models/demo/infer";
    for (size_t i = 0; i < HEMI_REQUEST_HEADER_BYTES + HEMI_MODULE_ID_BYTES; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(bytes, c.request, c.bytes);
            bytes[i] ^= (uint8_t)(1 << bit);
            reply r = ask_on(fd, "POST", path, p.header, bytes, c.bytes);
            if (i == 36 && bit == 0 && r.status == 200) { /* the other form, whose units look alike: it is another ciphertext */
                expect_reply(r, 200, NULL);
                continue;
            }
            if (r.status < 400 || r.status > 499) fail_msg("bit %d of byte %zu: %d", bit, i, r.status);
            expect_reply(r, r.status, i >= HEMI_REQUEST_HEADER_BYTES ? "HEMI_ERR_CONFLICT" : NULL);
        }
    memcpy(bytes, c.request, c.bytes);
    static const size_t lengths[] = {0, 1, 4, 15, 16, 39, 40, 55, 56, 88, 1000};
    for (size_t i = 0; i < TEST_COUNT(lengths); i++)
        expect_reply(ask_on(fd, "POST", path, p.header, bytes, lengths[i]), 400, "HEMI_ERR_FORMAT");
    expect_reply(ask_on(fd, "POST", path, p.header, bytes, c.bytes - 1), 400, "HEMI_ERR_FORMAT");
    expect_reply(ask_on(fd, "POST", path, p.header, bytes, c.bytes + 1), 400, "HEMI_ERR_FORMAT");
    expect_reply(ask_on(fd, "POST", path, p.header, p.bytes, 2000), 400,
                 "HEMI_ERR_FORMAT"); /* keys where a request is expected */
    /* bits flipped in the ciphertext make no error: it is another one */
    bytes[c.bytes - 1] ^= 0x10;
    expect_reply(ask_on(fd, "POST", path, p.header, bytes, c.bytes), 200, NULL);
    expect_product(&p, &c, world.wide, ask_on(fd, "POST", path, p.header, c.request, c.bytes));
    close(fd);
    free(bytes);
    call_free(&c);
    party_close(&p);
}

static void test_too_many_rows(void **state) {
    (void)state;
    const hemi_http_options few = {.max_request_rows = 4};
    party p;
    site_stop();
    site_start(&few);
    party_open(&p, both, 2);
    put_keys(&p);
    /* the largest body that is let in is that of the widest module, so the small one gets to the check of rows */
    call c = call_new(&p, world.small, 200), fits = call_new(&p, world.small, 3);
    expect_reply(infer(&p, "demo", c.request, c.bytes), 413, "HEMI_ERR_TOO_LARGE");
    expect_product(&p, &fits, world.small, infer(&p, "demo", fits.request, fits.bytes));
    call_free(&c);
    call_free(&fits);
    party_close(&p);
    site_stop();
    site_start(NULL);
}

/* ---- many at once */

#define CLIENTS 8

typedef struct client {
    pthread_t thread;
    size_t calls;
    unsigned salt;
    atomic_int good, busy, other;
} client;

/* Threads may not use cmocka's assertions: results are counted. */
static void *run_client(void *context) {
    client *c = context;
    hemi_error err;
    hemi_client *http = NULL;
    hemi_remote *remote = NULL;
    hemi_module_info info;
    char url[64];
    const hemi_module *module = c->salt % 2 ? world.wide : world.small;
    hemi_module_get_info(module, &info);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", world.port);
    float *x = calloc(info.inputs, sizeof *x), *y = calloc(info.outputs, sizeof *y),
          *expected = calloc(info.outputs, sizeof *expected);
    for (size_t i = 0; i < info.inputs; i++) x[i] = fixture_number(i + c->salt);
    hemi_status status = hemi_module_run_clear(module, x, 1, expected, false, &err);
    if (status == HEMI_OK) status = hemi_client_new(&http, url, NULL, NULL, &err);
    if (status == HEMI_OK) status = hemi_remote_open(&remote, http, "demo", c->salt % 2 ? "wide" : "seq.0", NULL, &err);
    for (size_t i = 0; i < c->calls && status == HEMI_OK; i++) {
        status = hemi_remote_call(remote, x, 1, y, NULL, &err);
        for (size_t j = 0; j < info.outputs && status == HEMI_OK; j++)
            if (fabs((double)y[j] - (double)expected[j]) > 16 * info.predicted_error + 1e-5) status = HEMI_ERR_INTERNAL;
        if (status == HEMI_OK) c->good++;
    }
    if (status != HEMI_OK) c->other++;
    hemi_remote_free(remote);
    hemi_client_free(http);
    free(x);
    free(y);
    free(expected);
    return NULL;
}

static void test_concurrent_clients(void **state) {
    (void)state;
    client c[CLIENTS] = {0};
    for (unsigned i = 0; i < CLIENTS; i++) {
        c[i].salt = i;
        c[i].calls = test_repeat(40);
        assert_int_equal(pthread_create(&c[i].thread, NULL, run_client, &c[i]), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(c[i].thread, NULL);
        assert_int_equal(c[i].other, 0);
        assert_int_equal(c[i].good, c[i].calls);
    }
    expect_alive();
}

/* Memory for one client's keys only: each pushes the other's out, and both get along by uploading again. */
static void test_keys_make_room(void **state) {
    (void)state;
    party a, b;
    party_open(&a, both, 2);
    party_open(&b, both, 2);
    hemi_server_keys *keys = NULL;
    ASSERT_OK(hemi_server_keys_new(&keys, a.bytes, a.length, ERR));
    const hemi_http_options tight = {.max_keys_bytes = hemi_server_keys_bytes(keys) * 3 / 2};
    const hemi_http_options none = {.max_keys_bytes = 1000};
    hemi_server_keys_free(keys);
    site_stop();
    site_start(&tight);
    put_keys(&a);
    put_keys(&b);
    assert_int_equal(head_status(&a), 404);
    assert_int_equal(head_status(&b), 200);
    assert_int_equal(hemi_key_cache_get_figures(hemi_http_server_service(world.server)->keys).evicted, 1);
    client c[2] = {{.salt = 0, .calls = 10}, {.salt = 1, .calls = 10}};
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&c[i].thread, NULL, run_client, &c[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(c[i].thread, NULL);
    site_stop();
    site_start(&none);
    expect_reply(ask(world.port, "PUT", a.path, NULL, a.bytes, a.length), 413, "HEMI_ERR_TOO_LARGE");
    site_stop();
    site_start(NULL);
    party_close(&a);
    party_close(&b);
}

/* One worker, a queue of one: what is too much is told to come back, and nothing is lost. */
static void test_busy(void **state) {
    (void)state;
    const hemi_http_options narrow = {.threads = 1, .max_queue = 1};
    party p;
    int fd[12], good = 0, busy = 0;
    site_stop();
    site_start(&narrow);
    party_open(&p, both, 2);
    put_keys(&p);
    call c = call_new(&p, world.wide, 64);
    char head[256];
    snprintf(head, sizeof head, "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n",
             p.header, c.bytes);
    for (size_t i = 0; i < TEST_COUNT(fd); i++) {
        fd[i] = dial(world.port);
        assert_true(send_text(fd[i], head) && send_bytes(fd[i], c.request, c.bytes));
    }
    for (size_t i = 0; i < TEST_COUNT(fd); i++) {
        reply r = receive(fd[i], false);
        good += r.status == 200;
        busy += r.status == 503;
        if (r.status == 503) {
            assert_string_equal(header_of(&r, "Retry-After"), "1");
            expect_reply(r, 503, "HEMI_ERR_BUSY");
        } else {
            reply_clear(&r);
        }
        close(fd[i]);
    }
    assert_int_equal(good + busy, TEST_COUNT(fd));
    assert_true(good >= 1 && busy >= 1);
    call_free(&c);
    party_close(&p);
    site_stop();
    site_start(NULL);
}

/* Requests under way when the server is told to stop get their answers. */
static void *stop_soon(void *context) {
    (void)context;
    usleep(30000);
    site_stop();
    return NULL;
}

static void test_stop_finishes_what_is_under_way(void **state) {
    (void)state;
    party p;
    pthread_t stopper;
    int fd[4];
    party_open(&p, both, 2);
    put_keys(&p);
    call c = call_new(&p, world.wide, 200);
    char head[256];
    snprintf(head, sizeof head, "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n",
             p.header, c.bytes);
    for (size_t i = 0; i < TEST_COUNT(fd); i++) {
        fd[i] = dial(world.port);
        assert_true(send_text(fd[i], head) && send_bytes(fd[i], c.request, c.bytes));
    }
    hemi_jobs *jobs = hemi_http_server_service(world.server)->jobs; /* all four have been read: */
    for (int i = 0; i < 5000 && hemi_jobs_busy(jobs) + hemi_jobs_waiting(jobs, HEMI_LANE_FRONT) < TEST_COUNT(fd); i++) usleep(1000);
    assert_int_equal(pthread_create(&stopper, NULL, stop_soon, NULL), 0);
    for (size_t i = 0; i < TEST_COUNT(fd); i++) {
        expect_reply(receive(fd[i], false), 200, NULL);
        close(fd[i]);
    }
    pthread_join(stopper, NULL);
    call_free(&c);
    party_close(&p);
    site_start(NULL);
}

/* Clients that leave in the middle, in every way. */
static void test_clients_that_leave(void **state) {
    (void)state;
    party p;
    party_open(&p, both, 2);
    put_keys(&p);
    call c = call_new(&p, world.wide, 8);
    char head[256];
    const int length =
        snprintf(head, sizeof head, "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n",
                 p.header, c.bytes);
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < test_repeat(100); i++) {
        const int fd = dial(world.port);
        const size_t most = (size_t)length + c.bytes, send_now = i % 2 ? most : test_below(&rng, most);
        send_bytes(fd, head, send_now < (size_t)length ? send_now : (size_t)length);
        if (send_now > (size_t)length) send_bytes(fd, c.request, send_now - (size_t)length);
        const struct linger reset = {.l_onoff = 1};
        if (i % 3 == 0) setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        if (i % 5 == 0) shutdown(fd, SHUT_RDWR);
        close(fd);
    }
    const hemi_service *s = hemi_http_server_service(world.server);
    for (int i = 0; i < 500; i++) { /* an address may not have more connections until the server has seen these leave */
        reply r = ask(world.port, "GET", "/v2/health/ready", NULL, NULL, 0);
        const int status = r.status;
        reply_clear(&r);
        if (status != 0 && atomic_load(&s->exchanges) == 0) break;
        usleep(10000);
    }
    expect_alive();
    for (int i = 0; i < 500 && atomic_load(&s->exchanges) > 0; i++) usleep(10000);
    assert_int_equal(atomic_load(&s->exchanges), 0);
    assert_int_equal(atomic_load(&s->bodies_bytes), 0);
    expect_product(&p, &c, world.wide, infer(&p, "demo", c.request, c.bytes));
    call_free(&c);
    party_close(&p);
}

/* ---- the store by itself */

static void test_store(void **state) {
    (void)state;
    hemi_server_keys *keys[4];
    uint8_t id[4][HEMI_KEY_ID_BYTES];
    size_t bytes = 0;
    bool created;
    party p[4];
    for (int i = 0; i < 4; i++) {
        party_open(&p[i], both, 1);
        ASSERT_OK(hemi_server_keys_new(&keys[i], p[i].bytes, p[i].length, ERR));
        memcpy(id[i], hemi_server_keys_id(keys[i]), sizeof id[i]);
        bytes = hemi_server_keys_bytes(keys[i]);
    }
    hemi_key_cache *store = hemi_key_cache_new(2 * bytes + bytes / 2);
    ASSERT_OK(hemi_key_cache_put(store, keys[0], NULL, &created, ERR));
    ASSERT_OK(hemi_key_cache_put(store, keys[1], NULL, &created, ERR));
    assert_true(created);
    const hemi_server_keys *used = hemi_key_cache_acquire(store, id[0]); /* 1 is now the least recently used */
    assert_non_null(used);
    ASSERT_OK(hemi_key_cache_put(store, keys[2], NULL, &created, ERR));
    assert_true(hemi_key_cache_has(store, id[0]) && !hemi_key_cache_has(store, id[1]) &&
                hemi_key_cache_has(store, id[2]));
    assert_true(hemi_key_cache_remove(store, id[0]) && !hemi_key_cache_remove(store, id[0]));
    assert_memory_equal(hemi_server_keys_id(used), id[0], sizeof id[0]); /* still there for its user */
    ASSERT_OK(hemi_server_keys_new(&keys[0], p[0].bytes, p[0].length, ERR));
    ASSERT_OK(hemi_key_cache_put(store, keys[0], NULL, &created, ERR)); /* uploaded again meanwhile */
    hemi_key_cache_release(store, used);
    assert_true(hemi_key_cache_has(store, id[0]));
    ASSERT_OK(hemi_server_keys_new(&keys[1], p[0].bytes, p[0].length, ERR));
    ASSERT_OK(hemi_key_cache_put(store, keys[1], NULL, &created, ERR));
    assert_false(created);
    assert_int_equal(hemi_key_cache_get_figures(store).keys, 2);
    assert_int_equal(hemi_key_cache_get_figures(store).bytes, 2 * bytes);
    hemi_server_keys_free(keys[3]);
    hemi_key_cache_free(store);
    for (int i = 0; i < 4; i++) party_close(&p[i]);
}

/* Who brings many keys pushes out his own, and not those of another tenant, who has few and has not used them for longer. */
static void test_store_is_shared(void **state) {
    (void)state;
    hemi_server_keys *keys[5];
    uint8_t id[5][HEMI_KEY_ID_BYTES];
    size_t bytes = 0, few = 0, many = 0;
    bool created;
    party p[5];
    for (int i = 0; i < 5; i++) {
        party_open(&p[i], both, 1);
        ASSERT_OK(hemi_server_keys_new(&keys[i], p[i].bytes, p[i].length, ERR));
        memcpy(id[i], hemi_server_keys_id(keys[i]), sizeof id[i]);
        bytes = hemi_server_keys_bytes(keys[i]);
    }
    hemi_key_cache *store = hemi_key_cache_new(3 * bytes + bytes / 2);
    for (int i = 0; i < 5; i++) ASSERT_OK(hemi_key_cache_put(store, keys[i], i == 0 ? &few : &many, &created, ERR));
    const bool expected[5] = {true, false, false, true, true};
    for (int i = 0; i < 5; i++) assert_int_equal(hemi_key_cache_has(store, id[i]), expected[i]);
    assert_int_equal(few, bytes);
    assert_int_equal(many, 2 * bytes);
    assert_true(hemi_key_cache_remove(store, id[3]));
    assert_int_equal(many, bytes);
    hemi_key_cache_free(store);
    assert_int_equal(few + many, 0);
    for (int i = 0; i < 5; i++) party_close(&p[i]);
}

/* In bytes, and in number. */
static void test_uploads_are_shared(void **state) {
    (void)state;
    size_t few = 0, many = 0, got, total, count, bytes;
    const struct {
        size_t bytes_max, count_max, each;
    } row[] = {{10000, 100, 1500}, {10000, 10, 1}};
    for (size_t r = 0; r < sizeof row / sizeof *row; r++) {
        hemi_uploads *uploads = hemi_uploads_new(row[r].bytes_max, row[r].count_max, 1e6);
        uint8_t id[HEMI_KEY_ID_BYTES] = {0};
        hemi_upload *u = hemi_upload_new(id, 4000, &few);
        u->received = 1;
        hemi_uploads_keep(uploads, u);
        for (id[0] = 1; id[0] < 30; id[0]++) {
            u = hemi_upload_new(id, row[r].each, &many);
            u->received = 1;
            hemi_uploads_keep(uploads, u);
        }
        id[0] = 0;
        assert_true(hemi_uploads_peek(uploads, id, &got, &total) && total == 4000);
        hemi_uploads_figures(uploads, &count, &bytes);
        assert_in_range(count, 5, 10);
        assert_true(bytes <= row[r].bytes_max);
        hemi_uploads_free(uploads);
        many = few = 0;
    }
}

static void test_uploads_store(void **state) {
    (void)state;
    uint8_t id[4][HEMI_KEY_ID_BYTES] = {{1}, {2}, {3}, {4}};
    size_t got, total, count, bytes;
    hemi_uploads *uploads = hemi_uploads_new(2500, 3, 50);
    for (size_t i = 0; i < 3; i++) {
        hemi_upload *u = hemi_upload_new(id[i], 1000, NULL);
        u->received = 10 * (i + 1);
        hemi_uploads_keep(uploads, u); /* the third pushes the first out */
    }
    hemi_uploads_figures(uploads, &count, &bytes);
    assert_int_equal(count, 2);
    assert_int_equal(bytes, 2000);
    assert_false(hemi_uploads_peek(uploads, id[0], &got, &total));
    assert_true(hemi_uploads_peek(uploads, id[1], &got, &total) && got == 20 && total == 1000);
    hemi_upload *less = hemi_upload_new(id[1], 1000, NULL);
    less->received = 5;
    hemi_uploads_keep(uploads, less); /* less than what is there */
    assert_true(hemi_uploads_peek(uploads, id[1], &got, &total) && got == 20);
    hemi_upload *taken = hemi_uploads_take(uploads, id[1]);
    assert_non_null(taken);
    assert_null(hemi_uploads_take(uploads, id[1]));
    hemi_upload_free(taken);
    hemi_uploads_keep(uploads, hemi_upload_new(id[3], 3000, NULL)); /* more than all may have */
    assert_false(hemi_uploads_peek(uploads, id[3], &got, &total));
    usleep(80000);
    hemi_uploads_expire(uploads);
    hemi_uploads_figures(uploads, &count, &bytes);
    assert_int_equal(count + bytes, 0);
    hemi_uploads_free(uploads);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_call),
                                       cmocka_unit_test(test_keys_that_do_not_fit),
                                       cmocka_unit_test(test_calls_on_one_connection),
                                       cmocka_unit_test(test_put_head_delete),
                                       cmocka_unit_test(test_hostile_keys),
                                       cmocka_unit_test(test_upload_in_pieces),
                                       cmocka_unit_test(test_bad_ranges),
                                       cmocka_unit_test(test_interrupted_upload),
                                       cmocka_unit_test(test_hostile_requests),
                                       cmocka_unit_test(test_too_many_rows),
                                       cmocka_unit_test(test_concurrent_clients),
                                       cmocka_unit_test(test_keys_make_room),
                                       cmocka_unit_test(test_busy),
                                       cmocka_unit_test(test_stop_finishes_what_is_under_way),
                                       cmocka_unit_test(test_clients_that_leave),
                                       cmocka_unit_test(test_store_is_shared),
                                       cmocka_unit_test(test_uploads_are_shared),
                                       cmocka_unit_test(test_store),
                                       cmocka_unit_test(test_uploads_store)};
    return cmocka_run_group_tests_name("server keys", tests, open_all, site_close) != 0;
}
