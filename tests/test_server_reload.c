/* Models read anew while the server serves, requests whose client left, and the end under load. */
#include "server_fixture.h"

#include <sys/stat.h>

#define CLIENTS 3
#define RELOADS 20

#define LARGE_ROWS (test_quick() ? 96u : 256u) /* takes a second or so: the sweep that looks for clients comes every quarter of one */

static hemi_module *large;
static atomic_bool over;

typedef struct caller {
    pthread_t thread;
    party owner;
    call one;
    size_t calls, wrong;
} caller;

static void *call_on(void *context) {
    caller *c = context;
    const int fd = dial(world.port);
    while (!atomic_load(&over)) {
        reply r = ask_on(fd, "POST", "/v2/models/demo/infer", c->owner.header, c->one.request, c->one.bytes);
        c->calls++;
        c->wrong += r.status != 200;
        reply_clear(&r);
    }
    close(fd);
    return NULL;
}

static void callers_start(caller *callers) {
    const hemi_module *modules[] = {world.small};
    atomic_store(&over, false);
    for (int i = 0; i < CLIENTS; i++) {
        callers[i] = (caller){0};
        party_open(&callers[i].owner, modules, 1);
        callers[i].one = call_new(&callers[i].owner, world.small, 1);
        expect_reply(ask(world.port, "PUT", callers[i].owner.path, NULL, callers[i].owner.bytes, callers[i].owner.length), 201, NULL);
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_on, &callers[i]), 0);
    }
}

static void callers_stop(caller *callers) {
    atomic_store(&over, true);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(callers[i].thread, NULL);
        assert_true(callers[i].calls > 0);
        assert_int_equal(callers[i].wrong, 0);
        call_free(&callers[i].one);
        party_close(&callers[i].owner);
    }
}

static unsigned long long metric(const char *name) {
    reply r = ask(world.port, "GET", "/metrics", NULL, NULL, 0);
    const char *at = r.body ? strstr((const char *)r.body, name) : NULL;
    if (!at) fail_msg("no metric %s", name);
    const unsigned long long value = strtoull(at + strlen(name), NULL, 10);
    reply_clear(&r);
    return value;
}

static void test_reload_under_load(void **state) {
    caller callers[CLIENTS];
    char folder[600];
    (void)state;
    site_start(NULL);
    const size_t memory = hemi_evaluator_bytes(hemi_http_server_service(world.server)->registry->model[0].evaluator[0]);
    const void *evaluator = hemi_http_server_service(world.server)->registry->model[0].evaluator[0];
    callers_start(callers);
    for (int i = 0; i < RELOADS; i++) {
        if (i == 10) site_save("third", "seq.0", 10, 10);
        if (i == 12) {
            snprintf(folder, sizeof folder, "%s/other", world.folder);
            test_folder_remove(folder);
        }
        ASSERT_OK(hemi_http_server_reload(world.server, ERR));
        expect_reply(ask(world.port, "GET", "/v2/models/third", NULL, NULL, 0), i < 10 ? 404 : 200, NULL);
        expect_reply(ask(world.port, "GET", "/v2/models/other", NULL, NULL, 0), i < 12 ? 200 : 404, NULL);
    }
    const unsigned long long rows = metric("hemi_module_rows_total{model=\"demo\",module=\"seq.0\",shape=\"po_1_10_pc\",inputs=\"10\"} ");
    callers_stop(callers);
    assert_true(rows > RELOADS); /* counted on across reloads */
    /* what did not change was not made twice */
    assert_ptr_equal(hemi_http_server_service(world.server)->registry->model[0].evaluator[0], evaluator);
    assert_int_equal(hemi_evaluator_bytes(evaluator), memory);
    site_stop();
}

/* Of a module that was compiled anew the old id is a conflict, and the others go on. */
static void test_recompiled(void **state) {
    const hemi_module *modules[] = {world.small};
    party owner;
    (void)state;
    site_start(NULL);
    party_open(&owner, modules, 1);
    call c = call_new(&owner, world.small, 1);
    expect_reply(ask(world.port, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
    expect_product(&owner, &c, world.small, ask(world.port, "POST", "/v2/models/demo/infer", owner.header, c.request, c.bytes));
    hemi_module *again = fixture_module(10, 10, true, 6);
    fixture_save(world.folder, "demo", "seq.0", again);
    ASSERT_OK(hemi_http_server_reload(world.server, ERR));
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", owner.header, c.request, c.bytes), 409, "HEMI_ERR_CONFLICT");
    call d = call_new(&owner, again, 1);
    expect_product(&owner, &d, again, ask(world.port, "POST", "/v2/models/demo/infer", owner.header, d.request, d.bytes));
    fixture_save(world.folder, "demo", "seq.0", world.small);
    ASSERT_OK(hemi_http_server_reload(world.server, ERR));
    call_free(&c);
    call_free(&d);
    hemi_module_free(again);
    party_close(&owner);
    site_stop();
}

/* What cannot be read leaves all as it was. */
static void test_broken_file(void **state) {
    char path[700], kept[720];
    (void)state;
    site_start(NULL);
    snprintf(path, sizeof path, "%s/demo/seq.0/po_1_10_pc/server.zip", world.folder);
    snprintf(kept, sizeof kept, "%s.kept", path);
    assert_int_equal(rename(path, kept), 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("not a zip", f);
    fclose(f);
    ASSERT_FAILS(HEMI_ERR_FORMAT, "server.zip", hemi_http_server_reload(world.server, ERR));
    expect_reply(ask(world.port, "GET", "/v2/models/demo/modules/seq.0/client", NULL, NULL, 0), 200, NULL);
    assert_int_equal(rename(kept, path), 0);
    ASSERT_OK(hemi_http_server_reload(world.server, ERR));
    site_stop();
}

/* The worker of the request before this one is at rest a moment after its answer. */
static void wait_for_rest(void) {
    for (int i = 0; i < 2000 && metric("\nhemi_workers_busy ") > 0; i++) usleep(1000);
}

static void wait_for_work(void) {
    for (int i = 0; i < 2000 && metric("\nhemi_workers_busy ") == 0; i++) usleep(1000);
    assert_int_equal(metric("\nhemi_workers_busy "), 1);
}

/* ---- clients that leave */

/* A large product, of which nobody will read the result. */
static void test_client_leaves(void **state) {
    const hemi_module *modules[] = {large};
    party owner;
    (void)state;
    const hemi_http_options o = {.threads = 1};
    site_start(&o);
    party_open(&owner, modules, 1);
    call c = call_new(&owner, large, LARGE_ROWS);
    expect_reply(ask(world.port, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
    double start = hemi_now_ms();
    reply r = ask(world.port, "POST", "/v2/models/large/infer", owner.header, c.request, c.bytes);
    const double whole = hemi_now_ms() - start;
    assert_int_equal(r.status, 200);
    reply_clear(&r);
    wait_for_rest();
    const int fd = dial(world.port);
    char head[400];
    c.request[c.bytes - 1] ^= 1; /* other bytes: not a retry */
    snprintf(head, sizeof head, "POST /v2/models/large/infer HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n", owner.header, c.bytes);
    assert_true(send_text(fd, head) && send_bytes(fd, c.request, c.bytes));
    wait_for_work();
    close(fd);
    start = hemi_now_ms();
    while (metric("\nhemi_workers_busy ") > 0 && hemi_now_ms() - start < 60000) usleep(5000);
    const double noticed = hemi_now_ms() - start;
    printf("the whole product takes %.0f ms; given up %.0f ms after its client left\n", whole, noticed);
    assert_int_equal(metric("\nhemi_requests_cancelled_total "), 1);
    assert_true(noticed < whole);
    const unsigned long long rows = metric("hemi_budget_rows{tenant=\".anyone\",module=\"large/seq.0\",inputs=\"1024\"} ");
    assert_int_equal(rows, metric("hemi_module_rows_total{model=\"large\",module=\"seq.0\",shape=\"po_1_1024_pc\",inputs=\"1024\"} ")); /* not counted */
    call_free(&c);
    party_close(&owner);
    site_stop();
}

/* At the end what takes longer than it may is given up, and told so. */
static void *ask_large(void *context) {
    caller *c = context;
    reply r = ask(world.port, "POST", "/v2/models/large/infer", c->owner.header, c->one.request, c->one.bytes);
    c->calls = (size_t)r.status;
    reply_clear(&r);
    return NULL;
}

static void test_end_under_load(void **state) {
    const hemi_module *modules[] = {large};
    caller c = {0};
    (void)state;
    const hemi_http_options o = {.threads = 1, .drain_ms = 50};
    site_start(&o);
    party_open(&c.owner, modules, 1);
    c.one = call_new(&c.owner, large, LARGE_ROWS);
    expect_reply(ask(world.port, "PUT", c.owner.path, NULL, c.owner.bytes, c.owner.length), 201, NULL);
    wait_for_rest();
    assert_int_equal(pthread_create(&c.thread, NULL, ask_large, &c), 0);
    wait_for_work();
    site_stop();
    pthread_join(c.thread, NULL);
    assert_int_equal(c.calls, 503);
    call_free(&c.one);
    party_close(&c.owner);
}

/* With time enough it is answered. */
static void test_end_waits(void **state) {
    (void)state;
    site_start(NULL);
    const hemi_module *modules[] = {large};
    caller c = {0};
    party_open(&c.owner, modules, 1);
    c.one = call_new(&c.owner, large, LARGE_ROWS);
    expect_reply(ask(world.port, "PUT", c.owner.path, NULL, c.owner.bytes, c.owner.length), 201, NULL);
    wait_for_rest();
    assert_int_equal(pthread_create(&c.thread, NULL, ask_large, &c), 0);
    wait_for_work();
    site_stop();
    pthread_join(c.thread, NULL);
    assert_int_equal(c.calls, 200);
    call_free(&c.one);
    party_close(&c.owner);
}

static int make(void **state) {
    site_make(state);
    large = fixture_module(1024, 1024, false, 3);
    fixture_save(world.folder, "large", "seq.0", large);
    return 0;
}

static int done(void **state) {
    hemi_module_free(large);
    return site_close(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recompiled), cmocka_unit_test(test_broken_file), cmocka_unit_test(test_client_leaves), cmocka_unit_test(test_end_under_load),
                                       cmocka_unit_test(test_end_waits), cmocka_unit_test(test_reload_under_load)};
    return cmocka_run_group_tests_name("reload, leave, end", tests, make, done) != 0;
}
