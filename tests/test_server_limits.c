/* Limits of memory, of bodies and of tenants' queues: each acts, says so, and lets go of what it held. */
#include "server_fixture.h"

#include <malloc.h>

#include "server/evaluate.h"
#include "store/tenant_file.h"

static party owner;

static void start(const hemi_http_options *o) {
    site_start(o);
    expect_reply(ask(world.port, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
}

static reply infer(const call *c) { return ask(world.port, "POST", "/v2/models/demo/infer", owner.header, c->request, c->bytes); }

static size_t held(void) { return atomic_load(&hemi_http_server_service(world.server)->bodies_bytes); }

static void expect_nothing_held(void) {
    for (int i = 0; i < 500 && held() > 0; i++) usleep(1000); /* the end of an exchange is a moment after its answer */
    assert_int_equal(held(), 0);
}

static void test_memory_of_a_request(void **state) {
    call c = call_new(&owner, world.wide, 1);
    const hemi_evaluator *e = hemi_http_server_service(world.server)->registry->model[0].evaluator[0];
    (void)state;
    assert_true(hemi_evaluator_working_bytes(e, 1, 2) > 100000);
    site_stop();
    const hemi_http_options little = {.max_request_memory = 100000, .threads = 2};
    site_start(&little);
    expect_reply(ask(world.port, "PUT", owner.path, NULL, owner.bytes, owner.length), 413, "HEMI_ERR_TOO_LARGE"); /* keys of 1 MB */
    site_stop();
    const hemi_http_options some = {.max_request_memory = owner.length, .threads = 2};
    start(&some);
    reply r = infer(&c);
    assert_non_null(strstr((const char *)r.body, "for computing it"));
    expect_reply(r, 413, "HEMI_ERR_TOO_LARGE");
    expect_nothing_held();
    site_stop();
    const hemi_http_options enough = {.max_request_memory = 256 << 20, .threads = 2};
    start(&enough);
    expect_reply(infer(&c), 200, NULL);
    expect_nothing_held();
    call_free(&c);
}

static void test_memory_of_all(void **state) {
    call c = call_new(&owner, world.wide, 1);
    (void)state;
    site_stop();
    const hemi_http_options o = {.max_memory = 64 << 20, .threads = 2};
    start(&o);
    expect_reply(infer(&c), 200, NULL);
    expect_nothing_held();
    /* others have it */
    hemi_service *s = (hemi_service *)(uintptr_t)hemi_http_server_service(world.server);
    atomic_fetch_add(&s->bodies_bytes, (64u << 20) - 50000);
    reply r = infer(&c);
    assert_string_not_equal(header_of(&r, "Retry-After"), "");
    expect_reply(r, 503, "HEMI_ERR_BUSY");
    atomic_fetch_sub(&s->bodies_bytes, (64u << 20) - 50000);
    expect_nothing_held();
    expect_reply(infer(&c), 200, NULL);
    call_free(&c);
}

static void test_headers(void **state) {
    char line[4096];
    (void)state;
    memset(line, 'a', sizeof line);
    memcpy(line, "X-Filler: ", 10);
    strcpy(line + 3000, "\r\n");
    expect_reply(ask(world.port, "GET", "/v2/models", line, NULL, 0), 200, NULL);
    site_stop();
    const hemi_http_options o = {.max_header_bytes = 2048};
    site_start(&o);
    expect_reply(ask(world.port, "GET", "/v2/models", line, NULL, 0), 431, "HEMI_ERR_TOO_LARGE");
    strcpy(line + 1000, "\r\n");
    expect_reply(ask(world.port, "GET", "/v2/models", line, NULL, 0), 200, NULL);
}

static void test_body(void **state) {
    call c = call_new(&owner, world.wide, 1), d = call_new(&owner, world.wide, 3);
    (void)state;
    site_stop();
    const hemi_http_options o = {.max_body_bytes = owner.length > c.bytes ? owner.length : c.bytes};
    start(&o);
    expect_reply(infer(&c), 200, NULL);
    char line[300];
    snprintf(line, sizeof line, "%sContent-Length: %zu\r\n", owner.header, owner.length + 1);
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", line, NULL, 0), 413, "HEMI_ERR_TOO_LARGE");
    call_free(&c);
    call_free(&d);
}

/* What computing takes is at most what was reserved for it. */
static void test_working_memory_is_bounded(void **state) {
    hemi_server_keys *keys;
    hemi_evaluator *e;
    uint8_t *out;
    size_t bytes;
    call c = call_new(&owner, world.wide, 1); /* one: what packed rows need besides is made once, and kept with the module */
    (void)state;
    ASSERT_OK(hemi_server_keys_new(&keys, owner.bytes, owner.length, ERR));
    ASSERT_OK(hemi_evaluator_new(&e, world.wide, 1, ERR));
    const size_t bound = hemi_evaluator_working_bytes(e, 1, 1);
    const struct mallinfo2 before = mallinfo2();
    ASSERT_OK(hemi_evaluate((const hemi_evaluator *const[]){e}, 1, keys, c.request, c.bytes, 1, &out, &bytes, ERR));
    const struct mallinfo2 after = mallinfo2(); /* workspaces are kept for the next */
    const size_t taken = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    printf("working memory: %zu bytes, reserved %zu\n", taken - bytes, bound);
    if (after.uordblks > 0) /* a sanitizer's allocator does not count */
        assert_in_range(taken, bound / 2, bound + bytes + 65536); /* less than half would be a bound of something else */
    hemi_bytes_free(out);
    hemi_evaluator_free(e);
    hemi_server_keys_free(keys);
    call_free(&c);
}

/* A server with two tenants, whose keys are there: the header lines of their requests. */
typedef struct pair {
    char folder[256], tenants[300], token[2][HEMI_TOKEN_CHARACTERS + 1], lines[2][500];
} pair;

static void pair_open(pair *p, hemi_http_options o) {
    test_folder_new(p->folder);
    snprintf(p->tenants, sizeof p->tenants, "%s/tenants", p->folder);
    for (int i = 0; i < 2; i++) {
        hemi_store_tenant t = {.created = 1};
        strcpy(t.name, i ? "bob" : "alice");
        hemi_token_new(p->token[i], t.token_hash);
        ASSERT_OK(hemi_tenant_file_add(p->tenants, &t, ERR));
    }
    site_stop();
    o.tenants = p->tenants;
    site_start(&o);
    for (int i = 0; i < 2; i++) {
        snprintf(p->lines[i], sizeof p->lines[i], "Authorization: Bearer %s\r\n%s", p->token[i], owner.header);
        expect_reply(ask(world.port, "PUT", owner.path, p->lines[i], owner.bytes, owner.length), 201, NULL);
    }
}

static void pair_close(const pair *p) {
    site_stop();
    site_start(NULL);
    test_folder_remove(p->folder);
}

/* One tenant's requests take all they may: 503 for it, and there is memory left for another. */
static void test_memory_of_a_tenant(void **state) {
    pair p;
    char bearer[100];
    (void)state;
    pair_open(&p, (hemi_http_options){.max_memory = 256 << 20, .threads = 1});
    const hemi_service *s = hemi_http_server_service(world.server);
    snprintf(bearer, sizeof bearer, "Bearer %s", p.token[0]);
    hemi_tenant *alice = hemi_identity_find(s->identity, bearer);
    assert_non_null(alice);
    expect_nothing_held();
    assert_int_equal(atomic_load(&alice->memory), 0);
    call c = call_new(&owner, world.wide, 1);
    atomic_fetch_add(&alice->memory, 192u << 20); /* three quarters */
    reply r = ask(world.port, "POST", "/v2/models/demo/infer", p.lines[0], c.request, c.bytes);
    assert_string_not_equal(header_of(&r, "Retry-After"), "");
    expect_reply(r, 503, "HEMI_ERR_BUSY");
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", p.lines[1], c.request, c.bytes), 200, NULL);
    atomic_fetch_sub(&alice->memory, 192u << 20);
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", p.lines[0], c.request, c.bytes), 200, NULL);
    expect_nothing_held();
    assert_int_equal(atomic_load(&alice->memory), 0);
    call_free(&c);
    pair_close(&p);
}

/* One tenant's queue is full: 429 for it, and another is served. */
static void test_queue_of_a_tenant(void **state) {
    pair p;
    char head[600];
    int fd[4];
    (void)state;
    pair_open(&p, (hemi_http_options){.threads = 1, .max_queue_per_tenant = 2});
    call c = call_new(&owner, world.wide, 300);
    int refused = 0;
    for (int i = 0; i < 4; i++) { /* one is computed, two wait, one is too much */
        fd[i] = dial(world.port);
        snprintf(head, sizeof head, "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n", p.lines[0], c.bytes);
        assert_true(send_text(fd[i], head) && send_bytes(fd[i], c.request, c.bytes));
        usleep(30000);
    }
    call one = call_new(&owner, world.wide, 1);
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", p.lines[1], one.request, one.bytes), 200, NULL);
    for (int i = 0; i < 4; i++) {
        reply r = receive(fd[i], false);
        if (r.status == 429) {
            refused++;
            assert_string_not_equal(header_of(&r, "Retry-After"), "");
        } else {
            assert_int_equal(r.status, 200);
        }
        reply_clear(&r);
        close(fd[i]);
    }
    assert_int_equal(refused, 1);
    call_free(&c);
    call_free(&one);
    pair_close(&p);
}

static int make(void **state) {
    const hemi_module *modules[] = {NULL};
    site_open(state);
    modules[0] = world.wide;
    party_open(&owner, modules, 1);
    return 0;
}

static int done(void **state) {
    party_close(&owner);
    return site_close(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_working_memory_is_bounded) /* before any other product: workspaces are kept */, cmocka_unit_test(test_memory_of_a_request),
                                       cmocka_unit_test(test_memory_of_all), cmocka_unit_test(test_headers), cmocka_unit_test(test_body), cmocka_unit_test(test_memory_of_a_tenant), cmocka_unit_test(test_queue_of_a_tenant)};
    return cmocka_run_group_tests_name("limits", tests, make, done) != 0;
}
