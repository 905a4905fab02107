/* Every allocation, file operation and start of the random generator that fails, in turn: an error with a message, nothing lost or half done, and all is well
 * afterwards. That nothing leaks the sanitizers say (tests/run.sh sanitizers). */
#include "server_fixture.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "faults.h"
#include "model/circuit_import.h"
#include "model/onnx.h"
#include "store/store.h"
#include "store/tenant_file.h"

static bool random_fails;
int __real_sodium_init(void);
int __wrap_sodium_init(void);
int __wrap_sodium_init(void) { return random_fails ? -1 : __real_sodium_init(); }

/* What the scenarios work on: made once, before any fault. */
static char folder[256];
static hemi_keys *keys;
static uint8_t *evaluation, *request, *answer_bytes;
static size_t evaluation_bytes, request_bytes, reply_bytes;
static hemi_server_keys *server_keys;
static hemi_evaluator *evaluator;
static hemi_pending *pending;
static float x[20], y[20];

typedef hemi_status (*scenario_fn)(hemi_error *err);

/* ---- the scenarios */

static hemi_status make_keys(hemi_error *err) {
    hemi_keys *k;
    const hemi_module *modules[] = {world.small};
    uint8_t *bytes;
    size_t count;
    HEMI_TRY(hemi_keys_new(&k, NULL, err));
    const hemi_status status = hemi_keys_evaluation(k, modules, 1, &bytes, &count, err);
    if (status == HEMI_OK) hemi_bytes_release(bytes);
    hemi_keys_free(k);
    return status;
}

static hemi_status key_file(const char *passphrase, hemi_error *err) {
    hemi_keys *k;
    const hemi_keys_options o = {.folder = folder, .passphrase = passphrase};
    HEMI_TRY(hemi_keys_new_with(&k, &o, err));
    const hemi_status status = hemi_keys_generate(k, hemi_params_by_name("L4096"), true, err);
    hemi_keys_free(k);
    return status;
}
static hemi_status save_key(hemi_error *err) { return key_file(NULL, err); }

static hemi_status load_key(hemi_error *err) {
    hemi_keys *k;
    HEMI_TRY(hemi_keys_new(&k, folder, err));
    const hemi_status status = hemi_keys_generate(k, hemi_params_by_name("L4096"), false, err);
    hemi_keys_free(k);
    return status;
}

static hemi_status encrypt(hemi_error *err) {
    hemi_pending *p = NULL;
    uint8_t *bytes = NULL;
    size_t count;
    HEMI_TRY(hemi_encrypt(world.small, keys, x, 2, &p, &bytes, &count, err));
    hemi_pending_free(p);
    hemi_bytes_release(bytes);
    return HEMI_OK;
}

static hemi_status decrypt(hemi_error *err) {
    memset(y, 1, sizeof y);
    const hemi_status status = hemi_decrypt(world.small, keys, pending, answer_bytes, reply_bytes, y, err);
    for (size_t i = 0; status != HEMI_OK && i < 20; i++) assert_true(y[i] == 0);
    return status;
}

static hemi_status expand(hemi_error *err) {
    hemi_server_keys *k = NULL;
    HEMI_TRY(hemi_server_keys_new(&k, evaluation, evaluation_bytes, err));
    hemi_server_keys_free(k);
    return HEMI_OK;
}

static hemi_status make_evaluator(hemi_error *err) {
    hemi_evaluator *e = NULL;
    HEMI_TRY(hemi_evaluator_new(&e, world.wide, 1, err));
    hemi_evaluator_free(e);
    return HEMI_OK;
}

static hemi_status evaluate(hemi_error *err) {
    uint8_t *bytes = NULL;
    size_t count;
    HEMI_TRY(hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, server_keys, request, request_bytes, 1, &bytes, &count, err));
    hemi_bytes_free(bytes);
    return HEMI_OK;
}

static hemi_status compile(hemi_error *err) {
    static const float w[60], in[40];
    static const uint32_t shape[2] = {4, 10};
    hemi_module *m = NULL;
    HEMI_TRY(hemi_module_from_linear(&m, w, NULL, 6, 10, in, shape, 2, NULL, err));
    hemi_module_free(m);
    return HEMI_OK;
}

/* Graphs of the fuzzer's corpus, behind its first byte. */
static uint8_t *gemm, *relu;
static size_t gemm_bytes, relu_bytes;
static const uint32_t graph_shape[2] = {4, 8};

static hemi_status import_linear(hemi_error *err) {
    hemi_affine map;
    HEMI_TRY(hemi_onnx_import(&map, gemm + 1, gemm_bytes - 1, graph_shape, 2, NULL, NULL, err));
    hemi_affine_free(&map);
    return HEMI_OK;
}

static hemi_status import_circuit(hemi_error *err) {
    hemi_circuit *circuit = NULL;
    HEMI_TRY(hemi_circuit_import(&circuit, relu + 1, relu_bytes - 1, graph_shape, 2, 8, NULL, NULL, err));
    hemi_circuit_free(circuit);
    return HEMI_OK;
}

/* Of a network: compiled, made ready, called. Takes long, and so with every tenth fault unless there is much time. */
static hemi_module *network;
static hemi_evaluator *network_evaluator;
static hemi_server_keys *network_keys;
static uint8_t *network_request;
static size_t network_request_bytes;
static float graph_x[32];

static hemi_status compile_circuit(hemi_error *err) {
    hemi_module *m = NULL;
    HEMI_TRY(hemi_module_compile(&m, relu + 1, relu_bytes - 1, graph_x, graph_shape, 2, NULL, err));
    hemi_module_free(m);
    return HEMI_OK;
}

static hemi_status make_circuit_evaluator(hemi_error *err) {
    hemi_evaluator *e = NULL;
    HEMI_TRY(hemi_evaluator_new(&e, network, 1, err));
    hemi_evaluator_free(e);
    return HEMI_OK;
}

static hemi_status evaluate_circuit(hemi_error *err) {
    uint8_t *bytes = NULL;
    size_t count;
    HEMI_TRY(hemi_evaluate((const hemi_evaluator *const[]){network_evaluator}, 1, network_keys, network_request, network_request_bytes, 1, &bytes, &count, err));
    hemi_bytes_free(bytes);
    return HEMI_OK;
}

static char module_folder[300];
static hemi_status save_module(hemi_error *err) { return hemi_module_save(world.small, module_folder, err); }
static hemi_status open_module(hemi_error *err) {
    hemi_module *m = NULL;
    HEMI_TRY(hemi_module_open(&m, module_folder, true, err));
    hemi_module_free(m);
    return HEMI_OK;
}

static char tenants[300];
static int added;
static hemi_status add_tenant(hemi_error *err) {
    hemi_store_tenant t = {.created = 1};
    snprintf(t.name, sizeof t.name, "t%d", added++);
    return hemi_tenant_file_add(tenants, &t, err);
}

static hemi_status use_store(hemi_error *err) {
    hemi_store *store;
    hemi_store_count *counts;
    uint64_t granted, total;
    size_t n;
    bool created;
    uint8_t id[32] = {1}, *bytes;
    char path[300];
    snprintf(path, sizeof path, "%s/store.db", folder);
    HEMI_TRY(hemi_store_open(&store, path, err));
    hemi_status status = hemi_store_key_put(store, "a", id, x, sizeof x, 0, 1, &created, err);
    if (status == HEMI_OK) status = hemi_store_rows_reserve(store, "a", "m/x", 10, 5, 0, UINT64_MAX, &granted, &total, err);
    if (status == HEMI_OK) status = hemi_store_key_get(store, "a", id, 1, &bytes, &n, err);
    if (status == HEMI_OK) {
        assert_memory_equal(bytes, x, sizeof x);
        free(bytes);
        status = hemi_store_counts(store, NULL, &counts, &n, err);
        if (status == HEMI_OK) free(counts);
    }
    hemi_store_close(store);
    return status;
}

static hemi_status start_server(hemi_error *err) {
    hemi_http_server *server = NULL;
    const hemi_http_options o = {.folder = world.folder, .quiet = true, .threads = 1, .no_auth = true};
    HEMI_TRY(hemi_http_server_start(&server, &o, err));
    assert_int_equal(hemi_http_server_service(server)->registry->modules, 5); /* all of them */
    hemi_http_server_stop(server);
    return HEMI_OK;
}

static hemi_status call_server(hemi_error *err) {
    hemi_client *client = NULL;
    hemi_remote *remote = NULL;
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u", world.port);
    const hemi_client_options o = {.prepare = -1};
    HEMI_TRY(hemi_client_new(&client, url, keys, &o, err));
    hemi_status status = hemi_remote_open(&remote, client, "demo", "seq.0", NULL, err);
    if (status == HEMI_OK) status = hemi_remote_call(remote, x, 2, y, NULL, err);
    hemi_remote_free(remote);
    hemi_client_free(client);
    return status;
}

/* ---- one after the other */

typedef struct scenario {
    const char *name;
    scenario_fn run;
    fault_kind kind;
    const char *file; /* NULL, or: afterwards it is there, wholly old or wholly new (its reader says so) */
    scenario_fn reader;
    long step; /* 0: every fault */
} scenario;

static size_t faults, harmless;

/* With the n-th call failing, for n = 1, 2, ... until there is no n-th. */
static void run_scenario(const scenario *s) {
    long n = 1;
    size_t failed = 0;
    hemi_error err;
    assert_int_equal(s->run(&err), HEMI_OK);
    size_t count = 0;
    for (;; n += s->step ? s->step : 1) {
        memset(&err, 0, sizeof err);
        fault_arm(s->kind, n, false);
        const hemi_status status = s->run(&err);
        if (!fault_disarm()) {
            assert_int_equal(status, HEMI_OK);
            break;
        }
        count++;
        failed += status != HEMI_OK;
        if (status != HEMI_OK && !err.message[0]) fail_msg("%s, fault %ld: %s without a message", s->name, n, hemi_status_name(status));
        if (s->reader && s->reader(&err) != HEMI_OK) fail_msg("%s, fault %ld: afterwards: %s", s->name, n, err.message);
        if (n > 5000) fail_msg("%s: no end of faults", s->name);
    }
    const hemi_status after = s->run(&err);
    if (after != HEMI_OK) fail_msg("%s: after all faults: %s", s->name, err.message);
    printf("%s: %zu faults, of which %zu gave an error\n", s->name, count, failed);
    /* Without memory one thing may be left out: that the folder of a new file is on the disk. All else would be a result that is less than it should be. */
    if (s->kind == FAULT_MEMORY && count - failed > (s->file ? 2u : 0u)) fail_msg("%s: %zu faults were passed over", s->name, count - failed);
    faults += count;
    harmless += count - failed;
    assert_true(n > 1);
}

static void run_all(const scenario *all, size_t count) {
    for (size_t i = 0; i < count; i++) run_scenario(&all[i]);
}

static void test_memory(void **state) {
    static const scenario all[] = {{"memory: keys", make_keys, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: a key file written", save_key, FAULT_MEMORY, "L4096.key", load_key, 0},
                                   {"memory: a key file read", load_key, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: encryption", encrypt, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: decryption", decrypt, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: evaluation keys expanded", expand, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: a module made ready", make_evaluator, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: evaluation", evaluate, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: a module compiled", compile, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: a module saved", save_module, FAULT_MEMORY, "server.zip", open_module, 0},
                                   {"memory: a module opened", open_module, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: a tenant added", add_tenant, FAULT_MEMORY, "tenants", NULL, 0},
                                   {"memory: a store", use_store, FAULT_MEMORY, NULL, NULL, 0},
                                   {"memory: a server started", start_server, FAULT_MEMORY, NULL, NULL, 0}};
    (void)state;
    run_all(all, TEST_COUNT(all));
}

static void test_files(void **state) {
    static const scenario all[] = {{"files: a key file written", save_key, FAULT_FILE, "L4096.key", load_key, 0},
                                   {"files: a key file read", load_key, FAULT_FILE, NULL, NULL, 0},
                                   {"files: a module saved", save_module, FAULT_FILE, "server.zip", open_module, 0},
                                   {"files: a module opened", open_module, FAULT_FILE, NULL, NULL, 0},
                                   {"files: a tenant added", add_tenant, FAULT_FILE, NULL, NULL, 0},
                                   {"files: a server started", start_server, FAULT_FILE, NULL, NULL, 0}};
    (void)state;
    run_all(all, TEST_COUNT(all));
}

static void test_circuits(void **state) {
    const long step = test_long() ? 1 : test_quick() ? 50 : 10;
    const scenario all[] = {{"memory: an ONNX graph imported", import_linear, FAULT_MEMORY, NULL, NULL, 0},
                            {"memory: an ONNX graph imported as a circuit", import_circuit, FAULT_MEMORY, NULL, NULL, 0},
                            {"memory: a circuit compiled", compile_circuit, FAULT_MEMORY, NULL, NULL, step},
                            {"memory: a circuit made ready", make_circuit_evaluator, FAULT_MEMORY, NULL, NULL, step},
                            {"memory: a circuit evaluated", evaluate_circuit, FAULT_MEMORY, NULL, NULL, step}};
    hemi_pending *p;
    uint8_t *bytes;
    size_t count;
    (void)state;
    ASSERT_OK(hemi_file_read(&gemm, &gemm_bytes, "fuzz/corpus/onnx/seed-gemm", 1 << 20, ERR));
    ASSERT_OK(hemi_file_read(&relu, &relu_bytes, "fuzz/corpus/onnx/seed-relu", 1 << 20, ERR));
    for (size_t i = 0; i < 32; i++) graph_x[i] = fixture_number(i);
    ASSERT_OK(hemi_module_compile(&network, relu + 1, relu_bytes - 1, graph_x, graph_shape, 2, NULL, ERR));
    ASSERT_OK(hemi_keys_evaluation(keys, (const hemi_module *const[]){network}, 1, &bytes, &count, ERR));
    ASSERT_OK(hemi_server_keys_new(&network_keys, bytes, count, ERR));
    ASSERT_OK(hemi_evaluator_new(&network_evaluator, network, 1, ERR));
    ASSERT_OK(hemi_encrypt(network, keys, graph_x, 1, &p, &network_request, &network_request_bytes, ERR));
    run_all(all, TEST_COUNT(all));
    hemi_pending_free(p);
    hemi_bytes_release(bytes);
    hemi_bytes_release(network_request);
    hemi_evaluator_free(network_evaluator);
    hemi_server_keys_free(network_keys);
    hemi_module_free(network);
    hemi_bytes_release(gemm);
    hemi_bytes_release(relu);
}

/* Reads and writes that do less than they were asked are no errors. */
static void test_short_reads_and_writes(void **state) {
    static const scenario all[] = {{"short: a key file written", save_key, FAULT_SHORT, "L4096.key", load_key, 0}, {"short: a key file read", load_key, FAULT_SHORT, NULL, NULL, 0},
                                   {"short: a module saved", save_module, FAULT_SHORT, "server.zip", open_module, 0}, {"short: a module opened", open_module, FAULT_SHORT, NULL, NULL, 0},
                                   {"short: a tenant added", add_tenant, FAULT_SHORT, NULL, NULL, 0}};
    (void)state;
    const size_t before = harmless, all_before = faults;
    run_all(all, TEST_COUNT(all));
    assert_int_equal(harmless - before, faults - all_before);
}

/* Without randomness nothing goes on. */
static void test_random(void **state) {
    hemi_error err = {0};
    (void)state;
    static const scenario_fn all[] = {make_keys, save_key, call_server};
    random_fails = true;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        err = (hemi_error){0};
        assert_int_not_equal(all[i](&err), HEMI_OK);
        assert_true(err.message[0]);
    }
    random_fails = false;
    assert_int_equal(make_keys(&err), HEMI_OK);
    printf("random: %zu scenarios that do not begin\n", TEST_COUNT(all));
}

/* The client of a server that is well. */
static void test_client(void **state) {
    static const scenario s = {"memory: a client's call", call_server, FAULT_MEMORY, NULL, NULL, 0};
    (void)state;
    run_scenario(&s);
}

/* The server's own threads: a request is answered, with 200 or an error, or its connection ends; the next is served. */
static void test_server(void **state) {
    party owner;
    const hemi_module *modules[] = {world.small};
    size_t statuses[600] = {0};
    long n = 1;
    (void)state;
    party_open(&owner, modules, 1);
    call c = call_new(&owner, world.small, 1);
    expect_reply(ask(world.port, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
    for (int quiet = 0; quiet < 3; n++) {
        fault_arm(FAULT_MEMORY, n, true);
        reply r = ask(world.port, "POST", "/v2/models/demo/infer", owner.header, c.request, c.bytes);
        reply p = ask(world.port, "PUT", owner.path, NULL, owner.bytes, owner.length);
        reply m = ask(world.port, "GET", "/metrics", NULL, NULL, 0);
        usleep(2000); /* what ends with the connection */
        quiet = fault_disarm() ? 0 : quiet + 1;
        if (r.status != 0 && r.status != 200 && r.status < 500) fail_msg("fault %ld: status %d: %s", n, r.status, r.body ? (const char *)r.body : "");
        statuses[r.status]++;
        reply_clear(&r);
        reply_clear(&p);
        reply_clear(&m);
        if (n > 2000) fail_msg("no end of faults");
    }
    expect_product(&owner, &c, world.small, ask(world.port, "POST", "/v2/models/demo/infer", owner.header, c.request, c.bytes));
    printf("memory: requests to a server: %ld faults; infer answered %zu times 200, %zu times 503, %zu times 500, %zu times not\n", n - 1, statuses[200], statuses[503], statuses[500], statuses[0]);
    faults += (size_t)n - 1;
    call_free(&c);
    party_close(&owner);
}

static int make(void **state) {
    const hemi_module *modules[] = {NULL};
    site_open(state);
    test_folder_new(folder);
    snprintf(module_folder, sizeof module_folder, "%s/module", folder);
    snprintf(tenants, sizeof tenants, "%s/tenants", folder);
    for (size_t i = 0; i < 20; i++) x[i] = fixture_number(i);
    modules[0] = world.small;
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_keys_evaluation(keys, modules, 1, &evaluation, &evaluation_bytes, ERR));
    ASSERT_OK(hemi_server_keys_new(&server_keys, evaluation, evaluation_bytes, ERR));
    ASSERT_OK(hemi_evaluator_new(&evaluator, world.small, 1, ERR));
    ASSERT_OK(hemi_encrypt(world.small, keys, x, 2, &pending, &request, &request_bytes, ERR));
    ASSERT_OK(hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, server_keys, request, request_bytes, 1, &answer_bytes, &reply_bytes, ERR));
    return 0;
}

static int done(void **state) {
    printf("%zu faults in all, %zu of them harmless\n", faults, harmless);
    hemi_pending_free(pending);
    hemi_bytes_release(evaluation);
    hemi_bytes_release(request);
    hemi_bytes_free(answer_bytes);
    hemi_server_keys_free(server_keys);
    hemi_evaluator_free(evaluator);
    hemi_keys_free(keys);
    test_folder_remove(folder);
    return site_close(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory), cmocka_unit_test(test_files), cmocka_unit_test(test_circuits), cmocka_unit_test(test_short_reads_and_writes),
                                       cmocka_unit_test(test_random), cmocka_unit_test(test_client), cmocka_unit_test(test_server)};
    return cmocka_run_group_tests_name("faults", tests, make, done) != 0;
}
