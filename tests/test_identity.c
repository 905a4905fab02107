/* Tenants of a server: who gets in, and that one sees nothing of another. */
#include "server_fixture.h"

#include "store/tenant_file.h"

static char folder[256], tenants_path[300], store_path[300];
static const hemi_http_options usual = {.tenants = tenants_path, .store = store_path, .max_connections_per_tenant = 3};
static char alice[HEMI_TOKEN_CHARACTERS + 1], bob[HEMI_TOKEN_CHARACTERS + 1], boss[HEMI_TOKEN_CHARACTERS + 1];

static void add_tenant(const char *name, bool is_operator, char *token) {
    hemi_store_tenant t = {.is_operator = is_operator, .created = 1};
    strcpy(t.name, name);
    hemi_token_new(token, t.token_hash);
    ASSERT_OK(hemi_tenant_file_add(tenants_path, &t, ERR));
}

static int open_all(void **state) {
    site_make(state);
    test_folder_new(folder);
    snprintf(tenants_path, sizeof tenants_path, "%s/tenants", folder);
    snprintf(store_path, sizeof store_path, "%s/store.db", folder);
    add_tenant("alice", false, alice);
    add_tenant("bob", false, bob);
    add_tenant("boss", true, boss);
    site_start(&usual);
    return 0;
}

static int close_all(void **state) {
    site_close(state);
    test_folder_remove(folder);
    return 0;
}

/* With a token, and perhaps further header lines. */
static reply ask_as(const char *token, const char *method, const char *path, const char *lines, const void *body, size_t bytes) {
    char all[600];
    snprintf(all, sizeof all, "Authorization: Bearer %s\r\n%s", token, lines ? lines : "");
    return ask(world.port, method, path, all, body, bytes);
}

/* ---- who gets in */

static void expect_refused(const char *lines, const char *method, const char *path) {
    reply r = ask(world.port, method, path, lines, strcmp(method, "PUT") == 0 || strcmp(method, "POST") == 0 ? "x" : NULL, 1);
    assert_string_equal(header_of(&r, "WWW-Authenticate"), "Bearer");
    expect_reply(r, 401, strcmp(method, "HEAD") == 0 ? NULL : "HEMI_ERR_AUTH");
}

static void test_without_a_token(void **state) {
    char key[96];
    (void)state;
    snprintf(key, sizeof key, "/v2/keys/%064d", 7);
    expect_alive(); /* health is for everyone */
    expect_reply(ask(world.port, "GET", "/v2/health/live", NULL, NULL, 0), 200, NULL);
    const char *const gets[] = {"/metrics", "/v2/models", "/v2/models/demo", "/v2/models/none", "/v2/models/demo/modules/seq.0/client", "/v2/progress/00000000000000000000000000000000", "/nothing/here"};
    for (size_t i = 0; i < TEST_COUNT(gets); i++) {
        expect_refused(NULL, "GET", gets[i]);
        expect_refused(NULL, "HEAD", gets[i]);
    }
    expect_refused(NULL, "POST", "/v2/models/demo/infer");
    expect_refused(NULL, "POST", "/v2/models/none/infer");
    expect_refused(NULL, "POST", "/v2/models/demo/prepare");
    expect_refused(NULL, "PUT", key);
    expect_refused(NULL, "HEAD", key);
    expect_refused(NULL, "DELETE", key);
    expect_refused(NULL, "PATCH", "/v2/models");
}

static void test_tokens(void **state) {
    char line[1200], token[1000];
    (void)state;
    const char *const wrong[] = {"Authorization: Bearer\r\n", "Authorization: Bearer \r\n", "Authorization: Basic YTpi\r\n", "Authorization:\r\n",
                                 "Authorization: Bearer hemi_0000000000000000000000000000000000000000000000000000000000000000\r\n"};
    for (size_t i = 0; i < TEST_COUNT(wrong); i++) expect_refused(wrong[i], "GET", "/v2/models");
    memset(token, 'a', sizeof token - 1);
    token[sizeof token - 1] = 0;
    const char *const formats[] = {"Authorization: Bearer %sx\r\n", "Authorization: Bearer x%s\r\n", "Authorization: Basic %s\r\n", "Authorization: %s\r\n", "Authorization: Bearer %s %s\r\n"};
    for (size_t i = 0; i < TEST_COUNT(formats); i++) {
        snprintf(line, sizeof line, formats[i], alice, alice);
        expect_refused(line, "GET", "/v2/models");
    }
    snprintf(line, sizeof line, "Authorization: Bearer %s\r\n", token);
    expect_refused(line, "GET", "/v2/models");
    snprintf(line, sizeof line, "Authorization: Bearer %s\r\nAuthorization: Bearer %s\r\n", alice, alice);
    expect_refused(line, "GET", "/v2/models");
    token[0] = 0; /* every digit counts */
    for (size_t i = 0; i < HEMI_TOKEN_CHARACTERS; i += 7) {
        strcpy(token, alice);
        token[i] = token[i] == '1' ? '2' : '1';
        snprintf(line, sizeof line, "Authorization: Bearer %s\r\n", token);
        expect_refused(line, "GET", "/v2/models");
    }
    snprintf(line, sizeof line, "authorization: bearer   %s\r\n", alice);
    expect_reply(ask(world.port, "GET", "/v2/models", line, NULL, 0), 200, NULL);
    expect_reply(ask_as(bob, "GET", "/v2/models", NULL, NULL, 0), 200, NULL);
}

static void test_operators(void **state) {
    (void)state;
    expect_reply(ask_as(alice, "GET", "/metrics", NULL, NULL, 0), 403, "HEMI_ERR_FORBIDDEN");
    reply r = ask_as(boss, "GET", "/metrics", NULL, NULL, 0);
    assert_int_equal(r.status, 200);
    assert_null(strstr((const char *)r.body, boss));
    reply_clear(&r);
}

/* A large body is not waited for. */
static void test_body_is_not_read(void **state) {
    (void)state;
    const int fd = dial(world.port);
    assert_true(send_text(fd, "PUT /v2/keys/0000000000000000000000000000000000000000000000000000000000000000 HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n"));
    expect_reply(receive(fd, false), 401, "HEMI_ERR_AUTH");
    close(fd);
}

/* ---- one sees nothing of another */

static void test_keys_belong_to_a_tenant(void **state) {
    const hemi_module *modules[] = {world.small};
    party owner;
    char infer[64] = "/v2/models/demo/infer", part[200];
    (void)state;
    party_open(&owner, modules, 1);
    call c = call_new(&owner, world.small, 1);
    expect_reply(ask_as(alice, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
    expect_reply(ask_as(alice, "PUT", owner.path, NULL, owner.bytes, owner.length), 200, NULL);
    expect_reply(ask_as(alice, "HEAD", owner.path, NULL, NULL, 0), 200, NULL);
    expect_product(&owner, &c, world.small, ask_as(alice, "POST", infer, owner.header, c.request, c.bytes));
    /* bob knows the id: neither to be seen, nor used, nor deleted */
    expect_reply(ask_as(bob, "HEAD", owner.path, NULL, NULL, 0), 404, NULL);
    expect_reply(ask_as(bob, "POST", infer, owner.header, c.request, c.bytes), 404, "HEMI_ERR_KEY");
    expect_reply(ask_as(bob, "DELETE", owner.path, NULL, NULL, 0), 204, NULL);
    expect_reply(ask_as(alice, "HEAD", owner.path, NULL, NULL, 0), 200, NULL);
    /* nor is it known from a part of the bytes that they are there */
    snprintf(part, sizeof part, "Content-Range: bytes 0-99/%zu\r\n", owner.length);
    reply r = ask_as(bob, "PUT", owner.path, part, owner.bytes, 100);
    assert_string_equal(header_of(&r, "Hemi-Received"), "100");
    expect_reply(r, 202, NULL);
    r = ask_as(alice, "DELETE", owner.path, NULL, NULL, 0); /* that upload is not hers */
    expect_reply(r, 204, NULL);
    r = ask_as(bob, "HEAD", owner.path, NULL, NULL, 0);
    assert_string_equal(header_of(&r, "Hemi-Received"), "100");
    expect_reply(r, 404, NULL);
    r = ask_as(alice, "HEAD", owner.path, NULL, NULL, 0);
    assert_string_equal(header_of(&r, "Hemi-Received"), "");
    expect_reply(r, 404, NULL);
    expect_reply(ask_as(bob, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
    expect_reply(ask_as(alice, "POST", infer, owner.header, c.request, c.bytes), 404, "HEMI_ERR_KEY");
    expect_reply(ask_as(bob, "DELETE", owner.path, NULL, NULL, 0), 204, NULL);
    call_free(&c);
    party_close(&owner);
}

/* Three connections of one tenant are served, the fourth is refused, another tenant is served all the same; until they end. */
static void expect_three_connections(void) {
    char request[300];
    int fd[4];
    snprintf(request, sizeof request, "GET /v2/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", alice);
    for (int i = 0; i < 4; i++) {
        fd[i] = dial(world.port);
        assert_true(send_text(fd[i], request));
        expect_reply(receive(fd[i], false), i < 3 ? 200 : 429, i < 3 ? NULL : "HEMI_ERR_LIMIT");
    }
    expect_reply(ask_as(bob, "GET", "/v2/models", NULL, NULL, 0), 200, NULL);
    for (int i = 0; i < 4; i++) close(fd[i]);
    for (int i = 0; i < 100; i++) { /* the end of a connection is noticed soon */
        reply r = ask_as(alice, "GET", "/v2/models", NULL, NULL, 0);
        const int status = r.status;
        reply_clear(&r);
        if (status == 200) return;
        usleep(20000);
    }
    fail_msg("closed connections still count");
}

static void test_connections_of_a_tenant(void **state) {
    (void)state;
    expect_three_connections();
}

/* Few connections in all, and nothing said of a tenant's: it has half of them, not all. */
static void test_half_the_connections(void **state) {
    (void)state;
    const hemi_http_options few = {.tenants = tenants_path, .store = store_path, .max_connections = 6};
    site_stop();
    site_start(&few);
    expect_three_connections();
    site_stop();
    site_start(&usual);
}

/* ---- changes while it runs */

static int status_soon(const char *token, const char *path, int wanted) {
    int status = 0;
    for (int i = 0; i < 150 && status != wanted; i++) {
        reply r = ask_as(token, "HEAD", path, NULL, NULL, 0);
        status = r.status;
        reply_clear(&r);
        if (status != wanted) usleep(100000);
    }
    return status;
}

static void test_added_and_revoked(void **state) {
    const hemi_module *modules[] = {world.small};
    char carol[HEMI_TOKEN_CHARACTERS + 1], again[HEMI_TOKEN_CHARACTERS + 1];
    party owner;
    (void)state;
    add_tenant("carol", false, carol);
    assert_int_equal(status_soon(carol, "/v2/models", 200), 200);
    party_open(&owner, modules, 1);
    expect_reply(ask_as(carol, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
    ASSERT_OK(hemi_tenant_file_revoke(tenants_path, "carol", 2, ERR));
    assert_int_equal(status_soon(carol, "/v2/models", 401), 401);
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "no tenant carol", hemi_tenant_file_revoke(tenants_path, "carol", 2, ERR));
    add_tenant("carol", false, again);
    assert_int_equal(status_soon(again, "/v2/models", 200), 200);
    assert_int_equal(status_soon(carol, "/v2/models", 401), 401);
    assert_int_equal(status_soon(again, owner.path, 404), 404); /* keys went with the token */
    party_close(&owner);
}

/* A file that is broken for a moment locks nobody out. */
static void test_broken_file(void **state) {
    char kept[400];
    (void)state;
    snprintf(kept, sizeof kept, "%s.kept", tenants_path);
    assert_int_equal(rename(tenants_path, kept), 0);
    FILE *f = fopen(tenants_path, "w");
    assert_non_null(f);
    fputs("alice tenant\n", f);
    fclose(f);
    usleep(6500000); /* longer than between two readings */
    expect_reply(ask_as(bob, "GET", "/v2/models", NULL, NULL, 0), 200, NULL);
    assert_int_equal(rename(kept, tenants_path), 0);
}

/* ---- the file */

static void expect_bad_line(const char *line, const char *why) {
    char path[300], all[700];
    hemi_store_tenant *tenants;
    size_t count;
    snprintf(path, sizeof path, "%s/bad", folder);
    snprintf(all, sizeof all, "# comment\n\n%s\n", line);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(all, f);
    fclose(f);
    ASSERT_FAILS(HEMI_ERR_FORMAT, why, hemi_tenant_file_read(path, &tenants, &count, ERR));
    assert_null(tenants);
}

#define H "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_lines(void **state) {
    (void)state;
    expect_bad_line("alice tenant", "line 3: five words");
    expect_bad_line("alice tenant " H " 1 0 0", "five words");
    expect_bad_line("alice tenant " H " 1", "five words");
    expect_bad_line(".alice tenant " H " 1 0", "the name");
    expect_bad_line("al/ice tenant " H " 1 0", "the name");
    expect_bad_line("aliceaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa tenant " H " 1 0", "the name");
    expect_bad_line("alice boss " H " 1 0", "'tenant' or 'operator'");
    expect_bad_line("alice tenant " H "00 1 0", "64 hexadecimal digits");
    expect_bad_line("alice tenant 0123 1 0", "64 hexadecimal digits");
    expect_bad_line("alice tenant x123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 1 0", "64 hexadecimal digits");
    expect_bad_line("alice tenant " H " -1 0", "seconds since 1970");
    expect_bad_line("alice tenant " H " 1 x", "seconds since 1970");
    expect_bad_line("alice tenant " H " 99999999999999999999 0", "seconds since 1970");
    expect_bad_line("alice tenant " H " 1 0\nalice tenant " H " 1 0", "twice");
}

static void expect_start_fails(const hemi_http_options *options, hemi_status status, const char *message) {
    hemi_http_server *none;
    hemi_http_options o = *options;
    o.folder = world.folder;
    o.quiet = true;
    ASSERT_FAILS(status, message, hemi_http_server_start(&none, &o, ERR));
    assert_null(none);
}

/* What would be open to strangers does not start. */
static void test_exposure(void **state) {
    char bad[300];
    (void)state;
    snprintf(bad, sizeof bad, "%s/none", folder);
    expect_start_fails(&(const hemi_http_options){0}, HEMI_ERR_ARGUMENT, "no tenants");
    expect_start_fails(&(const hemi_http_options){.tenants = bad}, HEMI_ERR_NOT_FOUND, bad);
    expect_start_fails(&(const hemi_http_options){.address = "0.0.0.0", .no_auth = true}, HEMI_ERR_ARGUMENT, "--no-auth is for addresses of this machine alone");
    expect_start_fails(&(const hemi_http_options){.address = "0.0.0.0", .no_auth = true, .no_tls = true}, HEMI_ERR_ARGUMENT, "--no-auth");
    expect_start_fails(&(const hemi_http_options){.address = "::", .no_auth = true}, HEMI_ERR_ARGUMENT, "--no-auth");
    expect_start_fails(&(const hemi_http_options){.address = "0.0.0.0", .tenants = tenants_path}, HEMI_ERR_ARGUMENT, "--tls-cert");
    expect_start_fails(&(const hemi_http_options){.tenants = tenants_path, .tls_key = bad}, HEMI_ERR_ARGUMENT, "go together");
    expect_start_fails(&(const hemi_http_options){.tenants = tenants_path, .tls_key = bad, .tls_certificate = bad}, HEMI_ERR_NOT_FOUND, bad);
    expect_start_fails(&(const hemi_http_options){.tenants = tenants_path, .tls_key = tenants_path, .tls_certificate = tenants_path}, HEMI_ERR_FORMAT, "PEM");
    hemi_http_server *server;
    const hemi_http_options open = {.folder = world.folder, .quiet = true, .address = "0.0.0.0", .no_tls = true, .tenants = tenants_path};
    ASSERT_OK(hemi_http_server_start(&server, &open, ERR));
    hemi_http_server_stop(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_without_a_token), cmocka_unit_test(test_tokens),        cmocka_unit_test(test_operators),
                                       cmocka_unit_test(test_body_is_not_read), cmocka_unit_test(test_keys_belong_to_a_tenant),
                                       cmocka_unit_test(test_connections_of_a_tenant), cmocka_unit_test(test_half_the_connections), cmocka_unit_test(test_added_and_revoked), cmocka_unit_test(test_broken_file),
                                       cmocka_unit_test(test_lines), cmocka_unit_test(test_exposure)};
    return cmocka_run_group_tests_name("tenants", tests, open_all, close_all) != 0;
}
