/* Holds the server to docs/openapi.yaml: the same routes and methods as its own table; every operation is called, well and
 * badly, and answers with statuses that the file lists for it. Each status it lists, but those named below, was seen. */
#include "net_fixture.h"
#include "server_fixture.h"

#include "client/keys.h"
#include "store/tenant_file.h"
#include "wire/batch.h"

#define OPERATIONS_MAX 32
#define STATUSES_MAX   16

typedef struct operation {
    char path[96], method[8];
    int status[STATUSES_MAX];
    bool seen[STATUSES_MAX];
    size_t statuses;
} operation;

static operation operations[OPERATIONS_MAX];
static size_t count;
static party owner;
static hemi_module *conv; /* of samples: it has no rows, and so no batches of them */

static hemi_module *conv_module(void) {
    const uint32_t shape[] = {1, 3, 8, 8};
    net n = net_new(1, 2, 3, 8, 8);
    net_conv(&n, 8, (window){.k = 3, .stride = 1, .dilation = 1, .begin = 1, .end = 1, .groups = 1});
    float *x = fixture_rows(1, 192);
    pb model = net_model(&n);
    hemi_module *module = NULL;
    ASSERT_OK(hemi_module_compile(&module, model.data, model.size, x, shape, 4, NULL, ERR));
    free(model.data);
    free(x);
    net_free(&n);
    return module;
}

/* ---- the file, by its indentation */

static void read_line(const char *line, char path[96], bool *in_responses) {
    static const char *const methods[] = {"get", "put", "post", "delete", "head", "patch"};
    const size_t indent = strspn(line, " ");
    const char *text = line + indent;
    if (indent == 2 && text[0] == '/') {
        snprintf(path, 96, "%.*s", (int)strcspn(text, ":"), text);
    } else if (indent == 4 && path[0]) {
        for (size_t i = 0; i < TEST_COUNT(methods); i++)
            if (strncmp(text, methods[i], strlen(methods[i])) == 0 && text[strlen(methods[i])] == ':') {
                assert_true(count < OPERATIONS_MAX);
                operation *o = &operations[count++];
                snprintf(o->path, sizeof o->path, "%s", path);
                for (size_t j = 0; methods[i][j]; j++) o->method[j] = (char)(methods[i][j] - 'a' + 'A');
            }
    } else if (indent == 6 && path[0]) {
        *in_responses = strncmp(text, "responses:", 10) == 0;
    } else if (indent == 8 && text[0] == '"' && *in_responses) {
        operation *o = &operations[count - 1];
        assert_true(o->statuses < STATUSES_MAX);
        o->status[o->statuses++] = atoi(text + 1);
    }
}

static void read_file(void) {
    char line[1024], path[96] = "";
    bool in_paths = false, in_responses = false;
    FILE *f = fopen("docs/openapi.yaml", "r");
    if (!f) fail_msg("docs/openapi.yaml is not there: tests run from the root of the project");
    while (fgets(line, sizeof line, f)) {
        if (line[0] != ' ' && line[0] != '#') in_paths = strncmp(line, "paths:", 6) == 0;
        if (in_paths) read_line(line, path, &in_responses);
    }
    fclose(f);
}

static operation *find(const char *path, const char *method) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(operations[i].path, path) == 0 && strcmp(operations[i].method, method) == 0) return &operations[i];
    return NULL;
}

static int open_all(void **state) {
    site_make(state);
    char folder[512];
    conv = conv_module();
    snprintf(folder, sizeof folder, "%s/demo/conv", world.folder);
    ASSERT_OK(hemi_module_save(conv, folder, ERR));
    site_start(NULL);
    const hemi_module *modules[] = {world.small, world.wide};
    party_open(&owner, modules, 2);
    read_file();
    return 0;
}

static int close_all(void **state) {
    party_close(&owner);
    hemi_module_free(conv);
    return site_close(state);
}

/* ---- the routes are the same */

static void test_same_routes(void **state) {
    (void)state;
    assert_true(count >= HEMI_ROUTE_UNKNOWN);
    for (int r = 0; r < HEMI_ROUTE_UNKNOWN; r++)
        for (unsigned bit = HEMI_METHOD_GET; bit <= HEMI_METHOD_DELETE; bit <<= 1) {
            const char *pattern = hemi_route_pattern((hemi_route_id)r), *method = hemi_method_name((hemi_method)bit);
            const unsigned methods = hemi_route_methods((hemi_route_id)r);
            const bool implied = bit == HEMI_METHOD_HEAD && (methods & HEMI_METHOD_GET); /* every GET answers HEAD */
            if (implied) continue;
            const bool served = (methods & bit) != 0, described = find(pattern, method) != NULL;
            if (served != described)
                fail_msg("%s %s is %s", method, pattern,
                         served ? "served but not in the file" : "in the file but not served");
        }
    for (size_t i = 0; i < count; i++) {
        int r = 0;
        while (r < HEMI_ROUTE_UNKNOWN && strcmp(hemi_route_pattern((hemi_route_id)r), operations[i].path) != 0) r++;
        if (r == HEMI_ROUTE_UNKNOWN) fail_msg("%s is in the file but not served", operations[i].path);
    }
}

/* ---- every operation answers as described */

/* A path from a pattern: {model} and so on replaced. */
static void fill(char path[256], const char *pattern, const char *model, const char *module, const char *hash) {
    path[0] = 0;
    for (const char *p = pattern; *p; p++) {
        const size_t n = strlen(path);
        const char *value = strncmp(p, "{model}", 7) == 0    ? model
                            : strncmp(p, "{module}", 8) == 0 ? module
                            : strncmp(p, "{hash}", 6) == 0   ? hash
                            : strncmp(p, "{id}", 4) == 0     ? hash
                                                             : NULL;
        if (value) p = strchr(p, '}');
        if (value)
            snprintf(path + n, 256 - n, "%s", value);
        else
            snprintf(path + n, 256 - n, "%c", *p);
    }
}

/* Calls an operation; what it answers must be among its statuses. */
static int check(const char *pattern, const char *method, const char *model, const char *module, const char *hash,
                 const char *lines, const void *body, size_t bytes) {
    char path[256];
    operation *o = find(pattern, method);
    if (!o) fail_msg("%s %s is not in the file", method, pattern);
    fill(path, pattern, model, module, hash);
    reply r = ask(world.port, method, path, lines, body, bytes);
    size_t i = 0;
    while (i < o->statuses && o->status[i] != r.status) i++;
    if (i == o->statuses)
        fail_msg("%s %s answers %d, which the file does not list: %s", method, path, r.status,
                 r.body ? (const char *)r.body : "");
    o->seen[i] = true;
    const int status = r.status;
    if (status >= 400 && strcmp(method, "HEAD") != 0) {
        char code[32];
        json_t *root = json_loadb((const char *)r.body, r.bytes, 0, NULL);
        const char *name = json_string_value(json_object_get(json_object_get(root, "error"), "code"));
        snprintf(code, sizeof code, "%s", name ? name : "");
        json_decref(root);
        if (strncmp(code, "HEMI_ERR_", 9) != 0) fail_msg("%s %s: %d without a code", method, path, status);
    }
    reply_clear(&r);
    return status;
}

static void test_views(void **state) {
    (void)state;
    const char *client = "/v2/models/{model}/modules/{module}/client";
    for (size_t i = 0; i < count; i++) {
        if (strcmp(operations[i].method, "GET") != 0 || strstr(operations[i].path, "{id}")) continue;
        assert_int_equal(check(operations[i].path, "GET", "demo", "seq.0", NULL, NULL, NULL, 0), 200);
        if (strstr(operations[i].path, "{model}"))
            assert_int_equal(check(operations[i].path, "GET", "none", "seq.0", NULL, NULL, NULL, 0), 404);
    }
    assert_int_equal(check(client, "GET", "demo", "none", NULL, NULL, NULL, 0), 404);
    assert_int_equal(check(client, "GET", "demo", "seq.2", NULL, NULL, NULL, 0), 400);
}

static void test_key_routes(void **state) {
    (void)state;
    const char *keys = "/v2/keys/{hash}", *id = owner.id;
    char range[96];
    const size_t n = owner.length;
    assert_int_equal(check(keys, "HEAD", NULL, NULL, id, NULL, NULL, 0), 404);
    assert_int_equal(check(keys, "HEAD", NULL, NULL, "xyz", NULL, NULL, 0), 400);
    assert_int_equal(check(keys, "PUT", NULL, NULL, "xyz", NULL, owner.bytes, n), 400);
    assert_int_equal(check(keys, "PUT", NULL, NULL, id, NULL, owner.bytes, n - 1), 400);
    assert_int_equal(check(keys, "PUT", NULL, NULL, id, NULL, NULL, 0), 411);
    assert_int_equal(check(keys, "PUT", NULL, NULL, id, "Content-Length: 99999999999\r\n", NULL, 0), 413);
    snprintf(range, sizeof range, "Content-Range: bytes 1000-%zu/%zu\r\n", n - 1, n);
    assert_int_equal(check(keys, "PUT", NULL, NULL, id, range, owner.bytes + 1000, n - 1000), 409);
    snprintf(range, sizeof range, "Content-Range: bytes 0-999/%zu\r\n", n);
    assert_int_equal(check(keys, "PUT", NULL, NULL, id, range, owner.bytes, 1000), 202);
    assert_int_equal(check(keys, "PUT", NULL, NULL, id, NULL, owner.bytes, n), 201);
    assert_int_equal(check(keys, "PUT", NULL, NULL, id, NULL, owner.bytes, n), 200);
    assert_int_equal(check(keys, "HEAD", NULL, NULL, id, NULL, NULL, 0), 200);
    assert_int_equal(check(keys, "DELETE", NULL, NULL, id, NULL, NULL, 0), 204);
    assert_int_equal(check(keys, "DELETE", NULL, NULL, "xyz", NULL, NULL, 0), 400);
}

static void test_infer(void **state) {
    (void)state;
    const char *infer = "/v2/models/{model}/infer", *line = owner.header;
    call c = call_new(&owner, world.small, 1);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, line, c.request, c.bytes), 404);
    assert_int_equal(check("/v2/keys/{hash}", "PUT", NULL, NULL, owner.id, NULL, owner.bytes, owner.length), 201);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, line, c.request, c.bytes), 200);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, NULL, c.request, c.bytes), 400);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, line, c.request, c.bytes - 1), 400);
    assert_int_equal(check(infer, "POST", "other", NULL, NULL, line, c.request, c.bytes), 409);
    assert_int_equal(check(infer, "POST", "none", NULL, NULL, line, c.request, c.bytes), 404);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, line, NULL, 0), 411);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, "Content-Length: 99999999999\r\n", NULL, 0), 413);
    call_free(&c);
}

/* Two requests, one worker: the second one waits. */
static void test_progress(void **state) {
    (void)state;
    const char *progress = "/v2/progress/{id}", *infer = "/v2/models/{model}/infer", *id = "00112233445566778899aabbccddeeff";
    char head[512], bad[256];
    int fd[2], found = 404;
    site_stop();
    const hemi_http_options one = {.threads = 1};
    site_start(&one);
    call c = call_new(&owner, world.wide, 200);
    assert_int_equal(check("/v2/keys/{hash}", "PUT", NULL, NULL, owner.id, NULL, owner.bytes, owner.length), 201);
    assert_int_equal(check(progress, "GET", NULL, NULL, id, NULL, NULL, 0), 404);
    snprintf(bad, sizeof bad, "%sHemi-Progress: xyz\r\n", owner.header);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, bad, c.request, c.bytes), 400);
    for (size_t i = 0; i < 2; i++) {
        fd[i] = dial(world.port);
        snprintf(head, sizeof head, "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n%s%s%s\r\n", owner.header, c.bytes,
                 i ? "Hemi-Progress: " : "", i ? id : "", i ? "\r\n" : "");
        assert_true(send_text(fd[i], head) && send_bytes(fd[i], c.request, c.bytes));
    }
    for (int i = 0; i < 2000 && found == 404; i++, usleep(1000)) found = check(progress, "GET", NULL, NULL, id, NULL, NULL, 0);
    assert_int_equal(found, 200);
    for (size_t i = 0; i < 2; i++) {
        expect_reply(receive(fd[i], false), 200, NULL);
        close(fd[i]);
    }
    assert_int_equal(check(progress, "GET", NULL, NULL, id, NULL, NULL, 0), 404);
    call_free(&c);
    site_stop();
    site_start(NULL);
    assert_int_equal(check("/v2/keys/{hash}", "PUT", NULL, NULL, owner.id, NULL, owner.bytes, owner.length), 201);
}

/* Batches: a request without rows for /prepare, one with for /infer; what is in the rows does not matter here. */
static void test_batches(void **state) {
    (void)state;
    const char *infer = "/v2/models/{model}/infer", *prepare = "/v2/models/{model}/prepare";
    hemi_module_info info;
    party p = {0};
    ASSERT_OK(hemi_keys_new(&p.keys, NULL, ERR));
    ASSERT_OK(hemi_keys_public(p.keys, hemi_params_by_name(HEMI_BATCH_SET), &p.bytes, &p.length, ERR));
    name_keys(&p);
    hemi_module_get_info(world.small, &info);
    hemi_batch_request r = {.params = hemi_params_by_name(HEMI_BATCH_SET),
                            .inputs = info.inputs,
                            .b_bits = info.b_bits,
                            .seconds = true,
                            .slots = 8,
                            .modules = 1};
    uint8_t a[1024] = {0}, rows[1024] = {0}; /* an announcement, and rows that nobody announced */
    memcpy(r.module[0].id, info.id, sizeof info.id);
    const size_t n = hemi_batch_request_bytes(&r);
    hemi_batch_request_write_header(a, &r);
    assert_int_equal(check(prepare, "POST", "demo", NULL, NULL, p.header, a, n), 404);
    assert_int_equal(check("/v2/keys/{hash}", "PUT", NULL, NULL, p.id, NULL, p.bytes, p.length), 201);
    assert_int_equal(check(prepare, "POST", "demo", NULL, NULL, p.header, a, n), 200);
    assert_int_equal(check(prepare, "POST", "demo", NULL, NULL, NULL, a, n), 400);
    assert_int_equal(check(prepare, "POST", "demo", NULL, NULL, p.header, a, n - 1), 400);
    assert_int_equal(check(prepare, "POST", "none", NULL, NULL, p.header, a, n), 404);
    assert_int_equal(check(prepare, "POST", "other", NULL, NULL, p.header, a, n), 409);
    assert_int_equal(check(prepare, "POST", "demo", NULL, NULL, p.header, NULL, 0), 411);
    assert_int_equal(check(prepare, "POST", "demo", NULL, NULL, p.header, a, 1024), 413);
    r.seconds = false;
    r.rows = 1;
    hemi_batch_request_write_header(rows, &r);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, p.header, rows, hemi_batch_request_bytes(&r)), 410);
    hemi_module_get_info(conv, &info);
    assert_string_equal(info.operation, "conv");
    memcpy(r.module[0].id, info.id, sizeof info.id);
    r.b_bits = info.b_bits;
    hemi_batch_request_write_header(rows, &r);
    assert_int_equal(check(infer, "POST", "demo", NULL, NULL, p.header, rows, hemi_batch_request_bytes(&r)), 422);
    memcpy(a + HEMI_BATCH_HEADER_BYTES, info.id, sizeof info.id);
    assert_int_equal(check(prepare, "POST", "demo", NULL, NULL, p.header, a, n), 422);
    site_stop();
    const hemi_http_options tight = {.max_prepared_bytes = 1};
    site_start(&tight);
    assert_int_equal(check("/v2/keys/{hash}", "PUT", NULL, NULL, p.id, NULL, p.bytes, p.length), 201);
    hemi_module_get_info(world.small, &info);
    memcpy(a + HEMI_BATCH_HEADER_BYTES, info.id, sizeof info.id);
    assert_int_equal(check(prepare, "POST", "demo", NULL, NULL, p.header, a, n), 429);
    party_close(&p);
}

/* With tenants: without a token, with one that is no operator's, beyond a quota and a budget. */
static void test_tenants(void **state) {
    (void)state;
    char folder[256], tenants[300], store[300], token[HEMI_TOKEN_CHARACTERS + 1], line[400];
    hemi_store_tenant t = {.name = "alice", .created = 1};
    test_folder_new(folder);
    snprintf(tenants, sizeof tenants, "%s/tenants", folder);
    snprintf(store, sizeof store, "%s/store.db", folder);
    hemi_token_new(token, t.token_hash);
    ASSERT_OK(hemi_tenant_file_add(tenants, &t, ERR));
    site_stop();
    const hemi_http_options few = {.tenants = tenants, .store = store, .budget = 0.01};
    site_start(&few);
    for (size_t i = 0; i < count; i++) {
        const operation *o = &operations[i];
        const bool body = strcmp(o->method, "PUT") == 0 || strcmp(o->method, "POST") == 0;
        if (strncmp(o->path, "/v2/health", 10) != 0) assert_int_equal(check(o->path, o->method, "demo", "seq.0", owner.id, NULL, body ? "x" : NULL, body), 401);
    }
    snprintf(line, sizeof line, "Authorization: Bearer %s\r\n%s", token, owner.header);
    assert_int_equal(check("/metrics", "GET", NULL, NULL, NULL, line, NULL, 0), 403);
    assert_int_equal(check("/v2/keys/{hash}", "PUT", NULL, NULL, owner.id, line, owner.bytes, owner.length), 201);
    call c = call_new(&owner, world.small, 1);
    assert_int_equal(check("/v2/models/{model}/infer", "POST", "demo", NULL, NULL, line, c.request, c.bytes), 429);
    assert_int_equal(check("/v2/keys/{hash}", "DELETE", NULL, NULL, owner.id, line, NULL, 0), 204);
    site_stop();
    const hemi_http_options less = {.tenants = tenants, .store = store, .tenant_keys_bytes = 1};
    site_start(&less);
    assert_int_equal(check("/v2/keys/{hash}", "PUT", NULL, NULL, owner.id, line, owner.bytes, owner.length), 429);
    call_free(&c);
    site_stop();
    test_folder_remove(folder);
    site_start(NULL);
}

/* 503 is seen in test_server_keys (a full queue); everything else was seen above. */
static void test_nothing_is_only_on_paper(void **state) {
    (void)state;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < operations[i].statuses; j++)
            if (!operations[i].seen[j] && operations[i].status[j] != 503)
                fail_msg("%s %s never answered %d", operations[i].method, operations[i].path, operations[i].status[j]);
}

/* Methods that the file does not have are refused with the list of those it has. */
static void test_other_methods(void **state) {
    (void)state;
    static const char *const all[] = {"GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"};
    char path[256];
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < TEST_COUNT(all); j++) {
            if (find(operations[i].path, all[j])) continue;
            fill(path, operations[i].path, "demo", "seq.0", owner.id);
            reply r = ask(world.port, all[j], path, NULL, NULL, 0);
            if (r.status != 405 || !strstr(header_of(&r, "Allow"), operations[i].method))
                fail_msg("%s %s: %d, Allow: %s", all[j], path, r.status, header_of(&r, "Allow"));
            reply_clear(&r);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_routes),  cmocka_unit_test(test_views),
        cmocka_unit_test(test_key_routes),   cmocka_unit_test(test_infer),
        cmocka_unit_test(test_progress),     cmocka_unit_test(test_batches),
        cmocka_unit_test(test_tenants), cmocka_unit_test(test_nothing_is_only_on_paper),
        cmocka_unit_test(test_other_methods)};
    return cmocka_run_group_tests_name("openapi", tests, open_all, close_all) != 0;
}
