/* Circuits called by the client through the real server, in this process. */
#include "client_fixture.h"

#include "circuit_module.h"
#include "client/session.h"
#include "hemi/server.h"
#include "model/circuit_module.h"

enum { MLP, SHALLOW, WIDE, MODULES };
static const char *const names[MODULES] = {"mlp", "shallow", "wide"};
static hemi_module *module[MODULES], *linear;
static char folder[256], url[64];
static hemi_http_server *server;

/* C8192 for all, whatever fits better, so that they share keys. */
static hemi_module *compile(uint32_t in, uint32_t hidden, uint32_t out, double tolerance, uint32_t rows) {
    const uint32_t shape[] = {256, in};
    const hemi_compile_options options = {.tolerance = tolerance, .rows = rows, .set = "C8192"};
    test_rng rng = {in};
    hemi_circuit *c = test_circuit_new(in);
    c->rows = true;
    test_circuit_output(c, test_circuit_function(c, 0, hidden, TEST_F0(RELU), 1, "Relu", &rng), out, &rng);
    float *x = test_samples(shape[0], in, &rng);
    hemi_module *m;
    ASSERT_OK(hemi_module_from_circuit(&m, c, x, shape, 2, &options, ERR));
    hemi_free(x);
    return m;
}

static int open_all(void **state) {
    (void)state;
    test_folder_new(folder);
    module[MLP] = compile(12, 24, 10, 0.3, 2);
    module[SHALLOW] = compile(100, 8, 3, 10, 1);
    module[WIDE] = compile(5000, 4, 3, 0.3, 1);
    linear = fixture_module(10, 10, true, 5);
    for (size_t i = 0; i < MODULES; i++) fixture_save(folder, "net", names[i], module[i]);
    fixture_save(folder, "net", "linear", linear);
    const hemi_http_options options = {.folder = folder, .threads = 2, .quiet = true, .no_auth = true};
    ASSERT_OK(hemi_http_server_start(&server, &options, ERR));
    snprintf(url, sizeof url, "http://127.0.0.1:%u", hemi_http_server_port(server));
    return 0;
}

static int close_all(void **state) {
    (void)state;
    hemi_http_server_stop(server);
    for (size_t i = 0; i < MODULES; i++) hemi_module_free(module[i]);
    hemi_module_free(linear);
    test_folder_remove(folder);
    return 0;
}

static void call(hemi_client *client, size_t which, size_t rows, hemi_call_stats *stats) {
    hemi_remote *remote;
    const hemi_module *m = module[which];
    float *x = fixture_rows(rows, m->io.inputs), *y = malloc(rows * m->io.outputs * sizeof *y);
    assert_non_null(y);
    ASSERT_OK(hemi_remote_open(&remote, client, "net", names[which], NULL, ERR));
    assert_null(hemi_remote_module(remote)->circuit);
    ASSERT_OK(hemi_remote_call(remote, x, rows, y, stats, ERR));
    circuit_check(m, x, rows, y);
    assert_int_equal(stats->rows_out_of_range, 0);
    hemi_remote_free(remote);
    free(x);
    free(y);
}

static void count_infer(void *context, const char *what, size_t done, size_t total) {
    size_t *count = context;
    *count += strcmp(what, "infer") == 0 && done == total;
}

/* One upload, in parts, serves all circuits of a model; another one its linear modules. */
static void one_upload_for_a_model(void **state) {
    size_t count = 0;
    const hemi_client_options options = {.progress = count_infer, .progress_context = &count};
    hemi_client *client;
    hemi_call_stats stats;
    (void)state;
    ASSERT_OK(hemi_client_new(&client, url, NULL, &options, ERR));
    call(client, SHALLOW, 2, &stats);
    const size_t keys = stats.evaluation_key_bytes;
    assert_true(keys > HEMI_CLIENT_UPLOAD_CHUNK && module[SHALLOW]->info.evaluation_key_bytes < keys);
    call(client, MLP, 5, &stats);
    assert_int_equal(stats.evaluation_key_bytes, 0);
    call(client, WIDE, 2, &stats);
    assert_int_equal(stats.evaluation_key_bytes, 0);
    call(client, MLP, 2 * 16 + 1, &stats); /* two requests */
    assert_int_equal(stats.evaluation_key_bytes, 0);
    assert_true(count >= 4);
    hemi_remote *remote;
    float *x = fixture_rows(3, 10), y[30];
    ASSERT_OK(hemi_remote_open(&remote, client, "net", "linear", NULL, ERR));
    ASSERT_OK(hemi_remote_call(remote, x, 3, y, &stats, ERR));
    fixture_check(linear, x, 3, y);
    assert_true(stats.evaluation_key_bytes > 0);
    hemi_remote_free(remote);
    hemi_client_free(client);
    free(x);
}

/* Another secret key, and keys that the server lost: they go up again. */
static void keys_that_change(void **state) {
    hemi_keys *keys;
    hemi_client *client;
    hemi_call_stats stats;
    char path[96];
    (void)state;
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_client_new(&client, url, keys, NULL, ERR));
    call(client, MLP, 1, &stats);
    const size_t length = stats.evaluation_key_bytes;
    ASSERT_OK(hemi_keys_generate(keys, module[MLP]->io.params, true, ERR));
    call(client, MLP, 1, &stats);
    assert_int_equal(stats.evaluation_key_bytes, length);
    snprintf(path, sizeof path, "/v2/keys/%s", client->set[0].id);
    const hemi_http_request request = {.method = "DELETE", .path = path, .reply_bytes_max = 1024};
    hemi_http_reply reply;
    ASSERT_OK(hemi_http_send(client->http, &request, &reply, ERR));
    hemi_http_reply_clear(&reply);
    char id[65];
    memcpy(id, client->set[0].id, sizeof id);
    call(client, MLP, 1, &stats);
    assert_int_equal(stats.evaluation_key_bytes, length);
    assert_string_equal(id, client->set[0].id); /* the very same bytes */
    hemi_client_free(client);
    hemi_keys_free(keys);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_upload_for_a_model), cmocka_unit_test(keys_that_change)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
