/* Progress of requests: the board by itself, and over HTTP, from waiting to computing to gone. */
#include "server_fixture.h"

#include "server/board.h"

static const uint8_t ids[4][HEMI_SERVER_PROGRESS_ID_BYTES] = {{1}, {2}, {3}, {0}};

static void test_board(void **state) {
    (void)state;
    hemi_board *board = hemi_board_new(2);
    hemi_notice_text t;
    assert_non_null(board);
    assert_false(hemi_board_read(board, ids[3], &t)); /* an empty place has no id */
    hemi_notice *a = hemi_board_put(board, ids[0]);
    assert_non_null(a);
    assert_null(hemi_board_put(board, ids[0]));
    assert_true(hemi_board_read(board, ids[0], &t) && t.done == 0 && t.total == 1 && !t.computing);
    hemi_board_change(board, a, 3, 7);
    assert_true(hemi_board_read(board, ids[0], &t) && t.done == 3 && t.total == 7 && t.computing);
    hemi_board_change(board, a, 0, 0);
    assert_true(hemi_board_read(board, ids[0], &t) && t.total == 1);
    hemi_notice *b = hemi_board_put(board, ids[1]);
    assert_non_null(b);
    assert_null(hemi_board_put(board, ids[2])); /* full */
    hemi_board_remove(board, a);
    assert_false(hemi_board_read(board, ids[0], &t));
    assert_true(hemi_board_read(board, ids[1], &t));
    assert_non_null(hemi_board_put(board, ids[2]));
    hemi_board_change(board, NULL, 1, 2);
    hemi_board_remove(board, NULL);
    hemi_board_free(board);
    hemi_board_free(NULL);
}

static void put_keys(const party *p) { expect_reply(ask(world.port, "PUT", p->path, NULL, p->bytes, p->length), 201, NULL); }

/* The state of a request, or "" when it is not there. */
static const char *state_of(const char *id) {
    static char text[16];
    char path[96];
    snprintf(path, sizeof path, "/v2/progress/%s", id);
    reply r = ask(world.port, "GET", path, NULL, NULL, 0);
    text[0] = 0;
    if (r.status == 200) {
        json_t *root = json_loadb((const char *)r.body, r.bytes, 0, NULL);
        const json_int_t done = json_integer_value(json_object_get(root, "done")), total = json_integer_value(json_object_get(root, "total"));
        assert_int_equal(json_object_size(root), 3);
        assert_true(done >= 0 && total >= 1 && done <= total);
        snprintf(text, sizeof text, "%s", json_string_value(json_object_get(root, "state")));
        json_decref(root);
        expect_reply(r, 200, NULL);
    } else {
        expect_reply(r, 404, "HEMI_ERR_NOT_FOUND");
    }
    return text;
}

/* One worker and three requests, of which the last two bring ids: each is seen to wait, then to be computed, then it is gone. */
static void test_over_http(void **state) {
    (void)state;
    static const char *const id[3] = {NULL, "11112222333344445555666677778888", "aaaabbbbccccddddeeeeffff00001111"};
    const hemi_http_options one = {.threads = 1};
    const hemi_module *modules[] = {world.wide};
    bool waited[3] = {0}, computed[3] = {0};
    char head[512];
    int fd[3];
    party p;
    site_stop();
    site_start(&one);
    party_open(&p, modules, 1);
    put_keys(&p);
    call c = call_new(&p, world.wide, 400);
    for (size_t i = 0; i < 3; i++) {
        fd[i] = dial(world.port);
        int n = snprintf(head, sizeof head, "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n", p.header, c.bytes);
        if (id[i]) n += snprintf(head + n, sizeof head - (size_t)n, "Hemi-Progress: %s\r\n", id[i]);
        snprintf(head + n, sizeof head - (size_t)n, "\r\n");
        assert_true(send_text(fd[i], head) && send_bytes(fd[i], c.request, c.bytes));
    }
    for (int tries = 0; tries < 20000 && !(computed[1] && computed[2]); tries++, usleep(500))
        for (size_t i = 1; i < 3; i++) {
            const char *now = state_of(id[i]);
            waited[i] |= strcmp(now, "waiting") == 0;
            computed[i] |= strcmp(now, "computing") == 0;
        }
    assert_true(waited[1] && waited[2] && computed[1] && computed[2]);
    for (size_t i = 0; i < 3; i++) {
        expect_reply(receive(fd[i], false), 200, NULL);
        close(fd[i]);
    }
    for (size_t i = 1; i < 3; i++) assert_string_equal(state_of(id[i]), "");
    call_free(&c);
    party_close(&p);
}

static void test_ids(void **state) {
    (void)state;
    static const char *const bad[] = {"", "1", "1111222233334444555566667777888", "111122223333444455556666777788889", "1111222233334444555566667777888G",
                                      "AAAABBBBCCCCDDDDEEEEFFFF00001111"};
    char path[96], lines[256];
    const hemi_module *modules[] = {world.small};
    party p;
    party_open(&p, modules, 1);
    put_keys(&p);
    call c = call_new(&p, world.small, 1);
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        snprintf(path, sizeof path, "/v2/progress/%s", bad[i]);
        expect_reply(ask(world.port, "GET", path, NULL, NULL, 0), 404, "HEMI_ERR_NOT_FOUND");
        snprintf(lines, sizeof lines, "%sHemi-Progress: %s\r\n", p.header, bad[i]);
        expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", lines, c.request, c.bytes), 400, "HEMI_ERR_ARGUMENT");
    }
    snprintf(lines, sizeof lines, "%sHemi-Progress: 11112222333344445555666677778888\r\n", p.header);
    expect_product(&p, &c, world.small, ask(world.port, "POST", "/v2/models/demo/infer", lines, c.request, c.bytes));
    assert_string_equal(state_of("11112222333344445555666677778888"), "");
    call_free(&c);
    party_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_board), cmocka_unit_test(test_over_http), cmocka_unit_test(test_ids)};
    return cmocka_run_group_tests_name("server progress", tests, site_open, site_close) != 0;
}
