/* The client against the real server, in this process. */
#include "client_fixture.h"

#include <jansson.h>
#include <sys/wait.h>

#include "client/session.h"

static char folder[256];
static hemi_module *fc, *wide; /* fc: 10 -> 10 with a bias; wide: 300 -> 200, needs key switching */
static hemi_http_server *server;
static char url[64];

static void start_server(uint16_t port) {
    const hemi_http_options options = {.folder = folder, .port = port, .threads = 2, .quiet = true, .no_auth = true};
    ASSERT_OK(hemi_http_server_start(&server, &options, ERR));
    snprintf(url, sizeof url, "http://127.0.0.1:%u", hemi_http_server_port(server));
}

static int setup(void **state) {
    (void)state;
    test_folder_new(folder);
    fc = fixture_module(10, 10, true, 5);
    wide = fixture_module(300, 200, false, 9);
    fixture_save(folder, "demo", "seq.0", fc);
    fixture_save(folder, "demo", "wide", wide);
    start_server(0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    hemi_http_server_stop(server);
    hemi_module_free(fc);
    hemi_module_free(wide);
    test_folder_remove(folder);
    return 0;
}

static hemi_client *connect_to(const char *address) {
    hemi_client *client = NULL;
    ASSERT_OK(hemi_client_new(&client, address, NULL, NULL, ERR));
    return client;
}

static hemi_remote *open_module(hemi_client *client, const char *name) {
    hemi_remote *remote = NULL;
    ASSERT_OK(hemi_remote_open(&remote, client, "demo", name, NULL, ERR));
    return remote;
}

static void call_and_check(hemi_remote *remote, const hemi_module *module, size_t rows, hemi_call_stats *stats) {
    hemi_module_info info;
    hemi_module_get_info(hemi_remote_module(remote), &info);
    float *x = fixture_rows(rows, info.inputs), *y = calloc(rows * info.outputs, sizeof *y);
    assert_non_null(y);
    ASSERT_OK(hemi_remote_call(remote, x, rows, y, stats, ERR));
    fixture_check(module, x, rows, y);
    free(x);
    free(y);
}

/* A request of our own, beside the client's. */
static long status_of(const char *method, const char *path) {
    hemi_http *http = NULL;
    hemi_http_reply reply;
    const hemi_http_request request = {.method = method, .path = path, .reply_bytes_max = HEMI_HTTP_JSON_MAX};
    ASSERT_OK(hemi_http_new(&http, url, NULL, ERR));
    ASSERT_OK(hemi_http_send(http, &request, &reply, ERR));
    long status = reply.status;
    hemi_http_reply_clear(&reply);
    hemi_http_free(http);
    return status;
}

static void test_calls(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = open_module(client, "seq.0");
    hemi_call_stats stats = {0};
    call_and_check(remote, fc, 1, &stats);
    assert_true(stats.evaluation_key_bytes > 0);
    assert_true(stats.upload_bytes > 0 && stats.download_bytes > 0);
    assert_true(stats.encrypt_ms > 0 && stats.decrypt_ms > 0 && stats.network_ms > 0 && stats.server_ms > 0);
    call_and_check(remote, fc, 3, &stats);
    assert_int_equal(stats.evaluation_key_bytes, 0);
    call_and_check(remote, fc, 1, NULL);
    ASSERT_OK(hemi_remote_call(remote, NULL, 0, NULL, &stats, ERR)); /* no rows: nothing to do */
    assert_int_equal(stats.upload_bytes, 0);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

static void test_rows_beyond_one_request(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = open_module(client, "seq_0"); /* the server accepts the alias */
    hemi_call_stats stats = {0};
    call_and_check(remote, fc, 1100, &stats);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* The keys of the small module serve the wide one too: gathered when the model was first opened. */
static void test_keys_go_up_once(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *small = open_module(client, "seq.0"), *large = open_module(client, "wide");
    hemi_call_stats stats = {0};
    call_and_check(small, fc, 1, &stats);
    hemi_module_info info;
    hemi_module_get_info(wide, &info);
    assert_int_equal(stats.evaluation_key_bytes, info.evaluation_key_bytes);
    call_and_check(large, wide, 2, &stats);
    assert_int_equal(stats.evaluation_key_bytes, 0);
    hemi_remote_free(small);
    hemi_remote_free(large);
    hemi_client_free(client);
}

static void test_shared_keys_are_found(void **state) {
    (void)state;
    hemi_keys *keys = NULL;
    hemi_client *first = NULL, *second = NULL;
    hemi_call_stats stats = {0};
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_client_new(&first, url, keys, NULL, ERR));
    ASSERT_OK(hemi_client_new(&second, url, keys, NULL, ERR));
    hemi_remote *a = open_module(first, "seq.0"), *b = open_module(second, "seq.0");
    call_and_check(a, fc, 1, &stats);
    assert_true(stats.evaluation_key_bytes > 0);
    call_and_check(b, fc, 1, &stats); /* HEAD says that they are there */
    assert_int_equal(stats.evaluation_key_bytes, 0);
    hemi_remote_free(a);
    hemi_remote_free(b);
    hemi_client_free(first);
    hemi_client_free(second);
    hemi_keys_free(keys);
}

static void test_a_new_secret_key_is_noticed(void **state) {
    (void)state;
    hemi_keys *keys = NULL;
    hemi_client *client = NULL;
    hemi_call_stats stats = {0};
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_client_new(&client, url, keys, NULL, ERR));
    hemi_remote *remote = open_module(client, "wide");
    call_and_check(remote, wide, 1, &stats);
    ASSERT_OK(hemi_keys_generate(keys, client->set[0].params, true, ERR));
    call_and_check(remote, wide, 1, &stats);
    assert_true(stats.evaluation_key_bytes > 0);
    hemi_remote_free(remote);
    hemi_client_free(client);
    hemi_keys_free(keys);
}

static void test_evicted_keys_are_put_back(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = open_module(client, "wide");
    hemi_call_stats stats = {0};
    call_and_check(remote, wide, 1, &stats);
    char path[128];
    snprintf(path, sizeof path, "/v2/keys/%s", client->set[0].id);
    long status = status_of("DELETE", path);
    assert_true(status >= 200 && status <= 299);
    assert_int_equal(status_of("HEAD", path), 404);
    call_and_check(remote, wide, 1, &stats);
    assert_int_equal(stats.evaluation_key_bytes, client->set[0].length);
    call_and_check(remote, wide, 1, &stats);
    assert_int_equal(stats.evaluation_key_bytes, 0);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

static void test_description_from_a_file(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = NULL;
    hemi_module *described = NULL;
    const char *json = hemi_module_client_json(wide);
    ASSERT_OK(hemi_module_from_client_json(&described, json, strlen(json), ERR));
    ASSERT_OK(hemi_remote_open_with(&remote, client, "demo", "wide", described, ERR));
    assert_ptr_equal(hemi_remote_module(remote), described);
    call_and_check(remote, wide, 1, NULL);
    hemi_remote_free(remote);
    hemi_module_free(described);
    hemi_client_free(client);
}

/* The server was started again with a module that was compiled again: other id, no keys. */
static void test_a_changed_module_is_a_conflict(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = open_module(client, "seq.0"), *other = open_module(client, "wide");
    float x[10] = {1}, y[10];
    call_and_check(remote, fc, 1, NULL);
    hemi_module *again = fixture_module(10, 10, true, 50);
    fixture_save(folder, "demo", "seq.0", again);
    uint16_t port = hemi_http_server_port(server);
    hemi_http_server_stop(server);
    start_server(port);
    hemi_call_stats stats = {0};
    call_and_check(other, wide, 1, &stats); /* unchanged: goes on, after a new upload of the keys */
    assert_true(stats.evaluation_key_bytes > 0);
    y[0] = 5;
    ASSERT_FAILS(HEMI_ERR_CONFLICT, "open it again", hemi_remote_call(remote, x, 1, y, NULL, ERR));
    assert_true(y[0] == 0); /* nothing is left in the output */
    hemi_remote_free(remote);
    remote = open_module(client, "seq.0");
    call_and_check(remote, again, 2, &stats);
    hemi_remote_free(remote);
    hemi_remote_free(other);
    hemi_client_free(client);
    hemi_module_free(fc);
    fc = again;
}

static void test_unknown_names(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = NULL;
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "404", hemi_remote_open(&remote, client, "no-model", "fc", NULL, ERR));
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "404", hemi_remote_open(&remote, client, "demo", "no-module", NULL, ERR));
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "404", hemi_remote_open(&remote, client, "demo", "seq.0", "po_1_11_pc", ERR));
    ASSERT_OK(hemi_remote_open(&remote, client, "demo", "seq.0", "po_1_10_pc", ERR));
    hemi_remote_free(remote);
    static const char *const odd[] = {"../demo", "..", "a b", "\xc3\xa9", "demo?x=1", "demo#x", "%2e%2e", "a/b", "\n"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        hemi_status status = hemi_remote_open(&remote, client, odd[i], "seq.0", NULL, ERR);
        if (status != HEMI_ERR_NOT_FOUND && status != HEMI_ERR_REMOTE)
            fail_msg("'%s': %s", odd[i], hemi_status_name(status));
    }
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "empty", hemi_remote_open(&remote, client, "", "fc", NULL, ERR));
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "description", hemi_remote_open_with(&remote, client, "demo", "fc", NULL, ERR));
    hemi_client_free(client);
}

static void test_list(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    uint8_t *json = NULL;
    size_t length = 0;
    ASSERT_OK(hemi_client_list(client, "demo", &json, &length, ERR));
    json_t *root = json_loadb((const char *)json, length, JSON_REJECT_DUPLICATES, NULL);
    const json_t *modules = json_object_get(root, "modules");
    assert_int_equal(json_array_size(modules), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(modules, 1), "shape")), "po_1_300_pc");
    json_decref(root);
    hemi_bytes_release(json);
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "404", hemi_client_list(client, "no-model", &json, &length, ERR));
    assert_null(json);
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "empty", hemi_client_list(client, "", &json, &length, ERR));
    hemi_client_free(client);
}

static void test_bad_numbers(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = open_module(client, "seq.0");
    float x[10] = {1, 2, NAN}, y[10];
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "", hemi_remote_call(remote, x, 1, y, NULL, ERR));
    x[2] = INFINITY;
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "", hemi_remote_call(remote, x, 1, y, NULL, ERR));
    x[2] = 3;
    ASSERT_OK(hemi_remote_call(remote, x, 1, y, NULL, ERR));
    fixture_check(fc, x, 1, y);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

static void test_bad_addresses(void **state) {
    (void)state;
    hemi_client *client = NULL;
    static const char *const bad[] = {"",
                                      "127.0.0.1:8000",
                                      "localhost:8000",
                                      "ftp://127.0.0.1",
                                      "file:///etc/passwd",
                                      "http://",
                                      "http://a:b@127.0.0.1:8000",
                                      "http://127.0.0.1:8000/?q=1",
                                      "http://127.0.0.1:8000/#f",
                                      "http://127.0.0.1:99999",
                                      "http://a b",
                                      "gopher://x",
                                      "scp://x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        hemi_status status = hemi_client_new(&client, bad[i], NULL, NULL, ERR);
        if (status != HEMI_ERR_ARGUMENT || client) fail_msg("'%s': %s", bad[i], hemi_status_name(status));
    }
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "http://localhost:8000",
                 hemi_client_new(&client, "localhost:8000", NULL, NULL, ERR));
    assert_int_equal(hemi_client_new(&client, NULL, NULL, NULL, NULL), HEMI_ERR_ARGUMENT);
    const hemi_client_options negative = {.timeout_ms = -1};
    assert_int_equal(hemi_client_new(&client, url, NULL, &negative, ERR), HEMI_ERR_ARGUMENT);
    char slash[80];
    snprintf(slash, sizeof slash, "%s//", url); /* slashes at the end do no harm */
    client = connect_to(slash);
    hemi_remote *remote = open_module(client, "seq.0");
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* Threads that share keys, and two that share a client (it takes their calls one after the other). */
typedef struct job {
    hemi_remote *remote;
    pthread_t thread;
    size_t wrong;
} job;

static void *job_run(void *context) {
    job *j = context;
    float x[2 * 300], y[2 * 200], expected[2 * 200];
    hemi_module_info info;
    hemi_module_get_info(wide, &info);
    for (size_t i = 0; i < 2 * 300; i++) x[i] = fixture_number(i + (size_t)j->remote);
    hemi_status status = hemi_module_run_clear(wide, x, 2, expected, false, NULL);
    for (int call = 0; call < 5; call++) {
        if (status == HEMI_OK) status = hemi_remote_call(j->remote, x, 2, y, NULL, NULL);
        for (size_t i = 0; i < 2 * 200; i++)
            j->wrong += !(fabsf(y[i] - expected[i]) <= 16 * (float)info.predicted_error);
    }
    if (status != HEMI_OK) j->wrong++;
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    hemi_keys *keys = NULL;
    hemi_client *client[3] = {NULL};
    job jobs[4];
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    for (size_t i = 0; i < 3; i++) ASSERT_OK(hemi_client_new(&client[i], url, keys, NULL, ERR));
    for (size_t i = 0; i < 4; i++) jobs[i] = (job){.remote = open_module(client[i % 3], "wide")};
    for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&jobs[i].thread, NULL, job_run, &jobs[i]), 0);
    for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_join(jobs[i].thread, NULL), 0);
    for (size_t i = 0; i < 4; i++) assert_int_equal(jobs[i].wrong, 0);
    for (size_t i = 0; i < 4; i++) hemi_remote_free(jobs[i].remote);
    for (size_t i = 0; i < 3; i++) hemi_client_free(client[i]);
    hemi_keys_free(keys);
}

/* A forked child must not write into its parent's connection. */
static void test_fork(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = open_module(client, "seq.0");
    float x[10] = {1}, y[10] = {0};
    call_and_check(remote, fc, 1, NULL);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) _exit(hemi_remote_call(remote, x, 1, y, NULL, NULL) == HEMI_OK ? 0 : 1);
    for (int i = 0; i < 20; i++) call_and_check(remote, fc, 1, NULL);
    int result = -1;
    assert_int_equal(waitpid(pid, &result, 0), pid);
    assert_int_equal(result, 0);
    call_and_check(remote, fc, 1, NULL);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* The last test: the server goes away. */
static void test_a_server_that_is_gone(void **state) {
    (void)state;
    hemi_client *client = connect_to(url);
    hemi_remote *remote = open_module(client, "seq.0");
    call_and_check(remote, fc, 1, NULL);
    hemi_http_server_stop(server);
    server = NULL;
    float x[10] = {1}, y[10];
    ASSERT_FAILS(HEMI_ERR_NETWORK, "hemi serve", hemi_remote_call(remote, x, 1, y, NULL, ERR));
    assert_non_null(strstr(fixture_error.message, url));
    hemi_remote_free(remote);
    ASSERT_FAILS(HEMI_ERR_NETWORK, "Is the server running?",
                 hemi_remote_open(&remote, client, "demo", "seq.0", NULL, ERR));
    hemi_client_free(client);
}

/* A token goes in the clear to this machine alone, and not to a name that looks like it. */
static void test_tokens_in_the_clear(void **state) {
    const struct {
        const char *url;
        hemi_status status;
    } row[] = {{"http://127.0.0.1:8000", HEMI_OK},          {"http://127.8.9.10", HEMI_OK},
               {"http://localhost:8000/hemi", HEMI_OK},     {"http://[::1]:8000", HEMI_OK},
               {"https://hemi.example", HEMI_OK},           {"http://hemi.example", HEMI_ERR_ARGUMENT},
               {"http://127.example", HEMI_ERR_ARGUMENT},   {"http://127.0.0.1.example:8000", HEMI_ERR_ARGUMENT},
               {"http://localhost.example", HEMI_ERR_ARGUMENT}, {"http://192.0.2.1", HEMI_ERR_ARGUMENT}};
    const hemi_http_settings with_token = {.token = "secret"};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(row); i++) {
        hemi_http *http;
        const hemi_status status = hemi_http_new(&http, row[i].url, &with_token, ERR);
        if (status != row[i].status) fail_msg("%s: %d", row[i].url, (int)status);
        hemi_http_free(http);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens_in_the_clear), cmocka_unit_test(test_calls),
        cmocka_unit_test(test_rows_beyond_one_request),
        cmocka_unit_test(test_keys_go_up_once),
        cmocka_unit_test(test_shared_keys_are_found),
        cmocka_unit_test(test_a_new_secret_key_is_noticed),
        cmocka_unit_test(test_evicted_keys_are_put_back),
        cmocka_unit_test(test_description_from_a_file),
        cmocka_unit_test(test_a_changed_module_is_a_conflict),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_bad_numbers),
        cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_a_server_that_is_gone),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
