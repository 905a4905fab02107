/* POST /prepare, and batches at /infer, as HTTP: statuses, limits, metrics, priorities. */
#include "server_fixture.h"

#include "base/memory.h"
#include "client/lot.h"
#include "server/limits.h"

static party owner; /* keys of the set for batches */

static int open_all(void **state) {
    site_open(state);
    ASSERT_OK(hemi_keys_new(&owner.keys, NULL, ERR));
    ASSERT_OK(hemi_keys_public(owner.keys, hemi_params_by_name(HEMI_BATCH_SET), &owner.bytes, &owner.length, ERR));
    name_keys(&owner);
    return 0;
}

static int close_all(void **state) {
    party_close(&owner);
    return site_close(state);
}

static void put_keys(void) {
    reply r = ask(world.port, "PUT", owner.path, NULL, owner.bytes, owner.length);
    assert_true(r.status == 200 || r.status == 201);
    reply_clear(&r);
}

static hemi_lot *lot_new(const hemi_module *module, uint32_t slots, uint8_t **request, size_t *bytes) {
    hemi_lot *lot;
    ASSERT_OK(hemi_lot_new(&lot, owner.keys, &module, 1, slots, ERR));
    ASSERT_OK(hemi_lot_header(lot, 0, request, bytes, ERR));
    return lot;
}

static reply prepare(const uint8_t *request, size_t bytes) {
    return ask(world.port, "POST", "/v2/models/demo/prepare", owner.header, request, bytes);
}
static reply infer(const uint8_t *request, size_t bytes) {
    return ask(world.port, "POST", "/v2/models/demo/infer", owner.header, request, bytes);
}

/* Announces, and accepts the reply. */
static hemi_lot *announced(const hemi_module *module, uint32_t slots) {
    uint8_t *request;
    size_t bytes, offset[1];
    hemi_lot *lot = lot_new(module, slots, &request, &bytes);
    reply r = prepare(request, bytes);
    if (r.status != 200) fail_msg("status %d: %s", r.status, r.body ? (const char *)r.body : "");
    assert_true(atof(header_of(&r, "Hemi-Server-Ms")) > 0);
    ASSERT_OK(hemi_lot_accept(lot, owner.keys, r.body, r.bytes, 0, offset, ERR));
    reply_clear(&r);
    hemi_free(request);
    return lot;
}

/* A request for one row. */
static uint8_t *row_request(hemi_lot *lot, const hemi_module *module, uint32_t first, const float *x, size_t *bytes) {
    double factor;
    hemi_batch_request r = lot->request;
    r.seconds = false;
    r.first = first;
    r.rows = 1;
    *bytes = hemi_batch_request_bytes(&r);
    uint8_t *request = calloc(*bytes, 1);
    hemi_batch_request_write_header(request, &r);
    ASSERT_OK(hemi_lot_encrypt(lot, module, first, x, 1, false, &factor, request + hemi_batch_rows_offset(&r), ERR));
    return request;
}

static double metric(const char *name) {
    char line[128];
    reply r = ask(world.port, "GET", "/metrics", NULL, NULL, 0);
    assert_int_equal(r.status, 200);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr((const char *)r.body, line);
    if (!at) fail_msg("no %s in the metrics", name);
    const double value = strtod(at + strlen(line), NULL);
    reply_clear(&r);
    return value;
}

static void test_rows_and_metrics(void **state) {
    (void)state;
    put_keys();
    hemi_lot *lot = announced(world.wide, 32);
    float *x = fixture_rows(1, 300);
    size_t bytes;
    uint8_t *request = row_request(lot, world.wide, 0, x, &bytes);
    assert_true(metric("hemi_prepared_batches") == 1);
    assert_true(metric("hemi_prepared_bytes") >= 32 * 200 * 4);
    assert_true(metric("hemi_prepared_announced") == 0);
    const double hits = metric("hemi_prepared_hits_total"), misses = metric("hemi_prepared_misses_total");
    const double before =
        metric("hemi_module_rows_total{model=\"demo\",module=\"wide\",shape=\"po_1_300_pc\",inputs=\"300\"}");
    reply a = infer(request, bytes);
    assert_int_equal(a.status, 200);
    assert_true(metric("hemi_prepared_hits_total") == hits + 1);
    assert_true(metric("hemi_module_rows_total{model=\"demo\",module=\"wide\",shape=\"po_1_300_pc\",inputs=\"300\"}") ==
                before + 1);
    expect_reply(ask(world.port, "DELETE", owner.path, NULL, NULL, 0), 204,
                 NULL); /* and what was prepared under them */
    assert_true(metric("hemi_prepared_batches") == 0);
    expect_reply(infer(request, bytes), 404, "HEMI_ERR_KEY");
    put_keys();
    reply b = infer(request, bytes); /* a miss: the same again */
    assert_int_equal(b.status, 200);
    assert_true(metric("hemi_prepared_misses_total") == misses + 1);
    assert_int_equal(a.bytes, b.bytes);
    assert_memory_equal(a.body, b.body, a.bytes);
    reply_clear(&a);
    reply_clear(&b);
    free(request);
    free(x);
    hemi_lot_free(lot);
}

static void test_refusals(void **state) {
    (void)state;
    put_keys();
    uint8_t *announcement;
    size_t bytes, row_bytes;
    hemi_lot *lot = lot_new(world.wide, 32, &announcement, &bytes), *known = announced(world.wide, 32);
    float *x = fixture_rows(1, 300);
    uint8_t *row = row_request(known, world.wide, 0, x, &row_bytes);
    const char *path = "/v2/models/demo/prepare";
    expect_reply(ask(world.port, "POST", path, NULL, announcement, bytes), 400, "HEMI_ERR_ARGUMENT");
    expect_reply(infer(announcement, bytes), 400, "HEMI_ERR_FORMAT");
    expect_reply(prepare(announcement, bytes - 1), 400, "HEMI_ERR_FORMAT");
    expect_reply(prepare((const uint8_t *)"x", 1), 400, "HEMI_ERR_FORMAT");
    expect_reply(prepare(row, row_bytes), 413, "HEMI_ERR_TOO_LARGE"); /* an announcement has no rows */
    expect_reply(ask(world.port, "POST", "/v2/models/other/prepare", owner.header, announcement, bytes), 409,
                 "HEMI_ERR_CONFLICT");
    expect_reply(ask(world.port, "POST", "/v2/models/none/prepare", owner.header, announcement, bytes), 404,
                 "HEMI_ERR_NOT_FOUND");
    row[40] ^= 1;
    expect_reply(infer(row, row_bytes), 410, "HEMI_ERR_STATE");
    free(row);
    free(x);
    hemi_free(announcement);
    hemi_lot_free(lot);
    hemi_lot_free(known);
    site_stop();
    const hemi_http_options tight = {.max_prepared_bytes = 10000, .max_request_rows = 20};
    site_start(&tight);
    put_keys();
    lot = lot_new(world.wide, 32, &announcement, &bytes);
    expect_reply(prepare(announcement, bytes), 429, "HEMI_ERR_LIMIT");
    hemi_free(announcement);
    ASSERT_OK(hemi_lot_header(lot, 32, &announcement, &bytes, ERR));
    expect_reply(infer(announcement, bytes), 413, "HEMI_ERR_TOO_LARGE");
    hemi_free(announcement);
    hemi_lot_free(lot);
    site_stop();
    site_start(NULL);
}

/* One client may not have all the workers' time: more than a few announcements at once get 429; and rows pass them by. */
static void test_many_announcements(void **state) {
    (void)state;
    enum { COUNT = 12 };
    int fd[COUNT], refused = 0, answered = 0;
    put_keys();
    hemi_lot *known = announced(world.wide, 32);
    for (size_t i = 0; i < COUNT; i++) {
        char head[512];
        uint8_t *request;
        size_t bytes;
        hemi_lot *lot = lot_new(world.wide, 32, &request, &bytes);
        snprintf(head, sizeof head, "POST /v2/models/demo/prepare HTTP/1.1\r\nHost: t\r\n%sContent-Length: %zu\r\n\r\n",
                 owner.header, bytes);
        fd[i] = dial(world.port);
        assert_true(send_text(fd[i], head) && send_bytes(fd[i], request, bytes));
        hemi_free(request);
        hemi_lot_free(lot);
    }
    float *x = fixture_rows(1, 300);
    size_t bytes;
    uint8_t *row = row_request(known, world.wide, 0, x, &bytes);
    expect_reply(infer(row, bytes), 200, NULL);
    for (size_t i = 0; i < COUNT; i++) {
        reply r = receive(fd[i], false);
        if (r.status == 429)
            refused++;
        else if (r.status == 200)
            answered++;
        else
            fail_msg("status %d", r.status);
        reply_clear(&r);
        close(fd[i]);
    }
    assert_int_equal(refused + answered, COUNT);
    assert_true(answered >= (int)HEMI_SERVER_PREPARES_PER_KEY_MAX);
    for (int i = 0; i < 2000 && metric("hemi_prepared_announced") > 0; i++) usleep(1000);
    assert_true(metric("hemi_prepared_announced") == 0); /* those refused are not counted for ever */
    free(row);
    free(x);
    hemi_lot_free(known);
}

/* Clients that leave while they wait give their place back. */
static void test_clients_that_leave(void **state) {
    (void)state;
    put_keys();
    for (size_t i = 0; i < 8; i++) {
        char head[512];
        uint8_t *request;
        size_t bytes;
        const int fd = dial(world.port);
        hemi_lot *lot = lot_new(world.wide, 32, &request, &bytes);
        snprintf(head, sizeof head, "POST /v2/models/demo/prepare HTTP/1.1\r\nHost: t\r\n%sContent-Length: %zu\r\n\r\n",
                 owner.header, bytes);
        assert_true(send_text(fd, head) && send_bytes(fd, request, bytes));
        close(fd);
        hemi_free(request);
        hemi_lot_free(lot);
    }
    for (int i = 0; i < 5000 && metric("hemi_prepared_announced") > 0; i++) usleep(1000);
    assert_true(metric("hemi_prepared_announced") == 0);
    hemi_lot_free(announced(world.wide, 32));
}

/* Nor do those take places who announce under keys that are nowhere and never send the body. */
static void test_bodies_held_back(void **state) {
    (void)state;
    int fd[HEMI_SERVER_PREPARES_MAX + 1];
    put_keys();
    for (size_t i = 0; i < HEMI_SERVER_PREPARES_MAX + 1; i++) {
        char head[512];
        fd[i] = dial(world.port);
        snprintf(head, sizeof head,
                 "POST /v2/models/demo/prepare HTTP/1.1\r\nHost: t\r\nHemi-Key: %064zx\r\nContent-Length: 100\r\n\r\n",
                 i);
        assert_true(send_text(fd[i], head));
    }
    expect_alive();
    usleep(200000); /* the headers have been read */
    assert_true(metric("hemi_prepared_announced") == 0);
    hemi_lot_free(announced(world.wide, 32));
    for (size_t i = 0; i < HEMI_SERVER_PREPARES_MAX + 1; i++) close(fd[i]);
}

/* What could not be held is not computed: here 60000 units through one module, named four times. */
static void test_replies_too_large(void **state) {
    (void)state;
    enum { UNITS = 60000, NAMES = 4 };
    const hemi_http_options many = {.max_request_rows = UNITS};
    site_stop();
    site_start(&many);
    party p;
    party_open(&p, (const hemi_module *const[]){world.small}, 1);
    expect_reply(ask(world.port, "PUT", p.path, NULL, p.bytes, p.length), 201, NULL);
    hemi_request r = hemi_module_request(world.small, HEMI_FORM_SINGLE, UNITS);
    r.modules = NAMES;
    for (size_t i = 1; i < NAMES; i++) memcpy(r.module_id[i], r.module_id[0], HEMI_MODULE_ID_BYTES);
    const size_t bytes = hemi_request_bytes(&r);
    const hemi_reply_frame f = hemi_module_frame(world.small, HEMI_FORM_SINGLE, UNITS);
    assert_true(NAMES * hemi_reply_frame_bytes(r.params, &f) > HEMI_SERVER_BODIES_BYTES_MAX);
    uint8_t *request = calloc(bytes, 1);
    assert_non_null(request);
    hemi_request_write_header(request, &r);
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", p.header, request, bytes), 413, "HEMI_ERR_TOO_LARGE");
    free(request);
    party_close(&p);
    site_stop();
    site_start(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_and_metrics),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_many_announcements), cmocka_unit_test(test_clients_that_leave),
        cmocka_unit_test(test_bodies_held_back),   cmocka_unit_test(test_replies_too_large)};
    return cmocka_run_group_tests_name("prepare", tests, open_all, close_all) != 0;
}
