/* Circuits over HTTP: what the server says of them, their large keys whole, in parts and interrupted, calls, progress, and what is refused. */
#include "server_fixture.h"

#include "circuit_module.h"
#include "client/keys.h"
#include "model/circuit_module.h"
#include "wire/batch.h"

static hemi_module *mlp, *sum; /* model "net": two and one level for the activation; of one set */

static hemi_module *compile(uint32_t in, uint32_t hidden, uint32_t out, double tolerance) {
    const uint32_t shape[] = {256, in};
    const hemi_compile_options options = {.tolerance = tolerance, .rows = 2};
    test_rng rng = {in};
    hemi_circuit *c = test_circuit_new(in);
    c->rows = true;
    test_circuit_output(c, test_circuit_function(c, 0, hidden, TEST_F0(RELU), 1, "Relu", &rng), out, &rng);
    float *x = test_samples(shape[0], in, &rng);
    hemi_module *m;
    ASSERT_OK(hemi_module_from_circuit(&m, c, x, shape, 2, &options, ERR));
    hemi_free(x);
    print_message("  %s, %u limbs, %u rows, keys %.1f MB\n", m->io.params->name, m->io.limbs, m->io.rows, (double)m->info.evaluation_key_bytes / 1e6);
    return m;
}

static int open_all(void **state) {
    site_make(state);
    mlp = compile(12, 24, 10, 0.3);
    sum = compile(100, 8, 3, 10);
    fixture_save(world.folder, "net", "mlp", mlp);
    fixture_save(world.folder, "net", "sum", sum);
    site_start(NULL);
    return 0;
}

static int close_all(void **state) {
    hemi_module_free(mlp);
    hemi_module_free(sum);
    return site_close(state);
}

static reply put_keys(const party *p) { return ask(world.port, "PUT", p->path, NULL, p->bytes, p->length); }
static reply put_part(const party *p, size_t first, size_t last) {
    char range[96];
    snprintf(range, sizeof range, "Content-Range: bytes %zu-%zu/%zu\r\n", first, last, p->length);
    return ask(world.port, "PUT", p->path, range, p->bytes + first, last - first + 1);
}
static reply infer(const party *p, const void *body, size_t bytes) { return ask(world.port, "POST", "/v2/models/net/infer", p->header, body, bytes); }

static void expect_circuit(party *p, call *c, const hemi_module *m, reply r) {
    if (r.status != 200) fail_msg("status %d: %s", r.status, r.body ? (const char *)r.body : "");
    float *y = calloc(c->rows * m->io.outputs, sizeof *y);
    assert_non_null(y);
    ASSERT_OK(hemi_decrypt(m, p->keys, c->pending, r.body, r.bytes, y, ERR));
    circuit_check(m, c->x, c->rows, y);
    assert_true(atof(header_of(&r, "Hemi-Server-Ms")) > 0);
    free(y);
    reply_clear(&r);
}

/* ---- what it says */

static void test_description(void **state) {
    (void)state;
    reply r = ask(world.port, "GET", "/v2/models/net", NULL, NULL, 0);
    json_t *root = json_loadb((const char *)r.body, r.bytes, 0, NULL), *m = json_array_get(json_object_get(root, "modules"), 0);
    assert_string_equal(json_string_value(json_object_get(m, "name")), "mlp");
    assert_string_equal(json_string_value(json_object_get(m, "operation")), "circuit");
    assert_string_equal(json_string_value(json_object_get(m, "set")), mlp->io.params->name);
    assert_int_equal(json_integer_value(json_object_get(m, "levels")), mlp->io.limbs - 1);
    assert_int_equal(json_integer_value(json_object_get(m, "packed_rows")), mlp->io.rows);
    assert_int_equal(json_array_size(json_object_get(m, "automorphisms")), mlp->io.automorphisms);
    assert_int_equal(json_integer_value(json_object_get(m, "evaluation_key_bytes")), mlp->info.evaluation_key_bytes);
    json_decref(root);
    expect_reply(r, 200, NULL);
    r = ask(world.port, "GET", "/v2/models/net/modules/mlp/client", NULL, NULL, 0);
    assert_string_equal((const char *)r.body, hemi_module_client_json(mlp));
    expect_reply(r, 200, NULL);
}

/* Limits follow from what is served: the keys of all circuits together, and no more. */
static void test_limits(void **state) {
    (void)state;
    const hemi_service *s = hemi_http_server_service(world.server);
    const hemi_module *modules[] = {mlp, sum};
    party p;
    party_open(&p, modules, 2);
    assert_int_equal(s->registry->key_bytes_max, p.length);
    assert_true(s->registry->key_memory_max > p.length);
    assert_true(s->bodies_bytes_max >= 3 * p.length && s->keys_bytes_max >= 2 * s->registry->key_memory_max);
    p.length++;
    expect_reply(ask(world.port, "PUT", p.path, "Expect: 100-continue\r\n", p.bytes, p.length), 413, "HEMI_ERR_TOO_LARGE");
    p.length--;
    const size_t rows = s->max_rows, units = hemi_served_units_max(mlp, HEMI_FORM_SINGLE, rows);
    assert_true(units >= 1 && units <= HEMI_CKKS_UNITS_MAX && units <= (rows + mlp->io.rows - 1) / mlp->io.rows);
    const hemi_ckks_request most = circuit_header(mlp, units);
    assert_true(hemi_ckks_request_bytes(&most) <= HEMI_SERVER_CIRCUIT_REQUEST_BYTES_MAX);
    assert_true(hemi_registry_model(s->registry, "net")->request_bytes_max >= hemi_ckks_request_bytes(&most));
    party_close(&p);
}

/* ---- keys and calls */

static void test_call(void **state) {
    (void)state;
    const hemi_module *modules[] = {mlp, sum};
    party p;
    party_open(&p, modules, 2);
    call a = call_new(&p, mlp, 5), b = call_new(&p, sum, 1);
    expect_reply(infer(&p, a.request, a.bytes), 404, "HEMI_ERR_KEY");
    expect_reply(put_keys(&p), 201, NULL);
    expect_reply(put_keys(&p), 200, NULL);
    expect_circuit(&p, &a, mlp, infer(&p, a.request, a.bytes));
    expect_circuit(&p, &b, sum, infer(&p, b.request, b.bytes));
    reply r = ask(world.port, "GET", "/metrics", NULL, NULL, 0); /* three units of two rows */
    assert_non_null(strstr((const char *)r.body, "{model=\"net\",module=\"mlp\",shape=\"po_1_12_pc\",inputs=\"12\"} 6"));
    expect_reply(r, 200, NULL);
    expect_reply(ask(world.port, "DELETE", p.path, NULL, NULL, 0), 204, NULL);
    expect_reply(infer(&p, a.request, a.bytes), 404, "HEMI_ERR_KEY");
    call_free(&a);
    call_free(&b);
    party_close(&p);
}

static size_t received(const party *p) {
    reply r = ask(world.port, "HEAD", p->path, NULL, NULL, 0);
    assert_int_equal(r.status, 404);
    reply_clear(&r);
    return (size_t)strtoull(header_of(&r, "Hemi-Received"), NULL, 10);
}

static void test_keys_in_parts(void **state) {
    (void)state;
    const hemi_service *s = hemi_http_server_service(world.server);
    const hemi_module *modules[] = {mlp};
    const size_t part = 1 << 20;
    size_t at = 0, count, bytes;
    party p;
    char head[256];
    party_open(&p, modules, 1);
    for (; at < p.length / 2; at += part) expect_reply(put_part(&p, at, at + part - 1), 202, NULL);
    assert_int_equal(received(&p), at);
    expect_reply(put_part(&p, at + 1, p.length - 1), 409, "HEMI_ERR_STATE");
    /* the connection breaks in a part, and one goes on where it stopped */
    const int fd = dial(world.port);
    snprintf(head, sizeof head, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\nContent-Range: bytes %zu-%zu/%zu\r\n\r\n", p.path, p.length - at, at,
             p.length - 1, p.length);
    assert_true(send_text(fd, head) && send_bytes(fd, p.bytes + at, part));
    usleep(100000);
    close(fd);
    size_t there = 0;
    for (int i = 0; i < 200 && there <= at; i++, usleep(10000)) there = received(&p);
    assert_true(there > at && there <= at + part);
    expect_reply(put_part(&p, there, p.length - 1), 201, NULL);
    hemi_uploads_figures(s->uploads, &count, &bytes); /* gone: what is expanded is not kept a second time */
    assert_int_equal(count + bytes, 0);
    for (int i = 0; i < 500 && atomic_load(&s->bodies_bytes) > 0; i++) usleep(1000);
    assert_int_equal(atomic_load(&s->bodies_bytes), 0);
    call c = call_new(&p, mlp, 1);
    expect_circuit(&p, &c, mlp, infer(&p, c.request, c.bytes));
    call_free(&c);
    party_close(&p);
}

static void test_keys_that_are_refused(void **state) {
    (void)state;
    const hemi_module *modules[] = {mlp, sum};
    const hemi_http_options little = {.max_keys_bytes = 1 << 20};
    party own, both;
    party_open(&own, modules + 1, 1);
    party_open(&both, modules, 2);
    expect_reply(put_keys(&own), 201, NULL);
    call c = call_new(&own, mlp, 1); /* which takes more limbs, and other rotations */
    expect_reply(infer(&own, c.request, c.bytes), 404, "HEMI_ERR_KEY");
    call_free(&c);
    for (size_t i = 0; i < 24; i++) { /* fields of the header, with the right hash */
        both.bytes[i] ^= 4;
        name_keys(&both);
        reply r = put_keys(&both);
        if (r.status != 400) fail_msg("byte %zu: %d", i, r.status);
        reply_clear(&r);
        both.bytes[i] ^= 4;
    }
    memset(both.bytes + HEMI_CKKS_KEYS_HEADER_BYTES + HEMI_KEY_ENTRY_HEADER_BYTES, 0xff, 64); /* a residue that is none */
    name_keys(&both);
    expect_reply(put_keys(&both), 400, "HEMI_ERR_FORMAT");
    site_stop();
    site_start(&little); /* refused before they are expanded */
    expect_reply(put_keys(&own), 413, "HEMI_ERR_TOO_LARGE");
    site_stop();
    site_start(NULL);
    party_close(&own);
    party_close(&both);
}

/* Some hundred megabytes in one body, by --long alone: PUT, a call, and what the server counts meanwhile. */
static void test_large_keys(void **state) {
    (void)state;
    if (!test_long()) skip();
    const hemi_compile_options options = {.tolerance = 0.03, .set = "C32768"};
    const uint32_t shape[] = {256, 64};
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(64);
    const uint32_t hidden = test_circuit_function(c, 0, 64, TEST_F0(RELU), 1, "Relu", &rng);
    test_circuit_output(c, test_circuit_function(c, hidden, 64, TEST_F0(RELU), 1, "Relu", &rng), 10, &rng);
    float *x = test_samples(shape[0], 64, &rng);
    hemi_module *m;
    ASSERT_OK(hemi_module_from_circuit(&m, c, x, shape, 2, &options, ERR));
    hemi_free(x);
    print_message("  %u limbs, keys %.1f MB\n", m->io.limbs, (double)m->info.evaluation_key_bytes / 1e6);
    fixture_save(world.folder, "large", "mlp", m);
    site_stop();
    site_start(NULL);
    const hemi_module *modules[] = {m};
    party p;
    party_open(&p, modules, 1);
    expect_reply(put_keys(&p), 201, NULL);
    call a = call_new(&p, m, 1);
    expect_circuit(&p, &a, m, ask(world.port, "POST", "/v2/models/large/infer", p.header, a.request, a.bytes));
    call_free(&a);
    party_close(&p);
    hemi_module_free(m);
}

/* ---- requests */

static void test_requests_that_are_refused(void **state) {
    (void)state;
    const hemi_module *modules[] = {mlp}, *linear[] = {world.small};
    party p, l;
    party_open(&p, modules, 1);
    party_open(&l, linear, 1);
    expect_reply(put_keys(&p), 201, NULL);
    expect_reply(put_keys(&l), 201, NULL);
    call c = call_new(&p, mlp, 1), d = call_new(&l, world.small, 1);
    expect_reply(infer(&p, c.request, c.bytes - 1), 400, "HEMI_ERR_FORMAT");
    expect_reply(infer(&l, c.request, c.bytes), 404, "HEMI_ERR_KEY");       /* keys of the other kind */
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", p.header, d.request, d.bytes), 404, "HEMI_ERR_KEY");
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", p.header, c.request, c.bytes), 409, "HEMI_ERR_CONFLICT"); /* of another model */
    memcpy(d.request + HEMI_REQUEST_HEADER_BYTES, mlp->info.id, HEMI_MODULE_ID_BYTES); /* a linear request that names a circuit */
    expect_reply(infer(&l, d.request, d.bytes), 400, "HEMI_ERR_PARAMS");
    memcpy(c.request + 32, world.small->info.id, HEMI_MODULE_ID_BYTES); /* and the other way round */
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", p.header, c.request, c.bytes), 400, "HEMI_ERR_PARAMS");
    c.request[32] ^= 1;
    expect_reply(infer(&p, c.request, c.bytes), 409, "HEMI_ERR_CONFLICT");
    call_free(&c);
    call_free(&d);
    party_close(&l);
    party_close(&p);
}

static void test_no_batches(void **state) {
    (void)state;
    const hemi_params *set = hemi_params_by_name(HEMI_BATCH_SET);
    party p = {0};
    ASSERT_OK(hemi_keys_new(&p.keys, NULL, ERR));
    ASSERT_OK(hemi_keys_public(p.keys, set, &p.bytes, &p.length, ERR));
    name_keys(&p);
    expect_reply(put_keys(&p), 201, NULL);
    hemi_batch_request r = {.params = set, .inputs = mlp->info.inputs, .b_bits = 20, .seconds = true, .slots = 8, .modules = 1};
    uint8_t body[1024] = {0};
    memcpy(r.module[0].id, mlp->info.id, HEMI_MODULE_ID_BYTES);
    hemi_batch_request_write_header(body, &r);
    reply a = ask(world.port, "POST", "/v2/models/net/prepare", p.header, body, hemi_batch_request_bytes(&r));
    assert_non_null(strstr((const char *)a.body, "circuit"));
    expect_reply(a, 422, "HEMI_ERR_UNSUPPORTED");
    r.rows = 1;
    r.seconds = false;
    hemi_batch_request_write_header(body, &r);
    expect_reply(infer(&p, body, hemi_batch_request_bytes(&r)), 422, "HEMI_ERR_UNSUPPORTED");
    party_close(&p);
}

static void test_too_many_rows(void **state) {
    (void)state;
    const hemi_module *modules[] = {mlp};
    const hemi_http_options few = {.max_request_rows = 4};
    party p;
    site_stop();
    site_start(&few);
    party_open(&p, modules, 1);
    expect_reply(put_keys(&p), 201, NULL);
    call fits = call_new(&p, mlp, 4), c = call_new(&p, mlp, 5);
    expect_circuit(&p, &fits, mlp, infer(&p, fits.request, fits.bytes));
    expect_reply(infer(&p, c.request, c.bytes), 413, "HEMI_ERR_TOO_LARGE");
    call_free(&c);
    call_free(&fits);
    party_close(&p);
    site_stop();
    site_start(NULL);
}

/* ---- progress: it goes up, in parts of all units, and ends */

static void test_progress(void **state) {
    (void)state;
    const hemi_module *modules[] = {mlp};
    const size_t rows = 64, total = rows / 2 * 2; /* units of two rows, of two values each */
    char head[512];
    long long last = -1, steps = 0;
    party p;
    party_open(&p, modules, 1);
    expect_reply(put_keys(&p), 201, NULL);
    call c = call_new(&p, mlp, rows);
    const int fd = dial(world.port), watch = dial(world.port);
    snprintf(head, sizeof head, "POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\n%sHemi-Progress: 00000000000000000000000000000001\r\nContent-Length: %zu\r\n\r\n",
             p.header, c.bytes);
    assert_true(send_text(fd, head) && send_bytes(fd, c.request, c.bytes));
    for (int i = 0; i < 100000; i++, usleep(200)) {
        reply r = ask_on(watch, "GET", "/v2/progress/00000000000000000000000000000001", NULL, NULL, 0);
        json_t *root = json_loadb((const char *)r.body, r.bytes, 0, NULL);
        const long long done = json_integer_value(json_object_get(root, "done")), all = json_integer_value(json_object_get(root, "total"));
        json_decref(root);
        reply_clear(&r);
        if (r.status == 404 && last >= 0) break;
        if (r.status == 404 || all == 1) continue;
        assert_int_equal(all, total);
        assert_true(done >= last && done < all);
        steps += done > last;
        last = done;
    }
    assert_true(steps > 3);
    expect_circuit(&p, &c, mlp, receive(fd, false));
    close(fd);
    close(watch);
    call_free(&c);
    party_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_description),   cmocka_unit_test(test_limits),
        cmocka_unit_test(test_call),          cmocka_unit_test(test_keys_in_parts),
        cmocka_unit_test(test_keys_that_are_refused), cmocka_unit_test(test_requests_that_are_refused),
        cmocka_unit_test(test_no_batches),    cmocka_unit_test(test_too_many_rows),
        cmocka_unit_test(test_progress),      cmocka_unit_test(test_large_keys)};
    return cmocka_run_group_tests_name("server circuits", tests, open_all, close_all) != 0;
}
