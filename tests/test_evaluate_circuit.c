/* hemi_evaluate on circuits: from request bytes to reply bytes. What is refused, with which status; that replies are right, of several units
 * and ciphertexts, and fresh. */
#include "client_fixture.h"

#include "circuit_module.h"
#include "server/evaluate.h"

enum { SMALL, SHALLOW, WIDE, LINEAR, MODULES }; /* SHALLOW: fewer levels of the same set; WIDE: units of several ciphertexts, and rotations of its own */

static struct {
    hemi_module *module[MODULES];
    hemi_evaluator *evaluator[MODULES];
    const hemi_ckks_context *ctx;
    hemi_ckks_secret *sk;
    hemi_server_keys *keys; /* of all circuits */
    uint32_t t[HEMI_CIRCUIT_AUTOMORPHISMS_MAX];
    size_t entries;
} w;

static void add_entries(const hemi_circuit_io *io) {
    for (size_t i = 0; i < io->automorphisms; i++) {
        size_t at = 0;
        while (at < w.entries && w.t[at] < io->automorphism[i]) at++;
        if (at < w.entries && w.t[at] == io->automorphism[i]) continue;
        memmove(w.t + at + 1, w.t + at, (w.entries++ - at) * sizeof *w.t);
        w.t[at] = io->automorphism[i];
    }
}

static hemi_server_keys *load_keys(uint32_t limbs, const uint32_t *t, size_t count) {
    size_t bytes;
    uint8_t *wire = circuit_keys(w.sk, limbs, t, count, &bytes);
    hemi_server_keys *keys;
    ASSERT_OK(hemi_server_keys_new(&keys, wire, bytes, ERR));
    assert_true(hemi_server_keys_bytes(keys) >= bytes);
    assert_true(hemi_server_keys_params(keys) == w.ctx->params && !hemi_server_keys_expanded(keys));
    hemi_free(wire);
    return keys;
}

static int open_all(void **state) {
    (void)state;
    w.module[SMALL] = circuit_module_mlp(10, 32, 10, 3, 2, 0x11);
    w.module[SHALLOW] = circuit_module_mlp(10, 16, 4, 1, 1, 0x22);
    w.module[WIDE] = circuit_module_mlp(5000, 4, 3, 3, 1, 0x33);
    w.module[LINEAR] = fixture_module(10, 10, true, 5);
    for (size_t i = 0; i < MODULES; i++) ASSERT_OK(hemi_evaluator_new(&w.evaluator[i], w.module[i], 2, ERR));
    ASSERT_OK(hemi_ckks_context_shared(&w.ctx, w.module[SMALL]->io.params, ERR));
    ASSERT_OK(hemi_ckks_secret_new(&w.sk, w.ctx, ERR));
    for (size_t i = 0; i < LINEAR; i++) {
        const hemi_circuit_io *io = &w.module[i]->io;
        print_message("  %s, %u limbs, %u rows, %u in, %u out, %zu automorphisms\n", io->params->name, io->limbs, io->rows, io->in_blocks,
                      io->out_blocks, io->automorphisms);
        assert_true(io->params == w.ctx->params);
        assert_memory_equal(hemi_evaluator_id(w.evaluator[i]), w.module[i]->info.id, HEMI_MODULE_ID_BYTES);
        assert_true(hemi_evaluator_bytes(w.evaluator[i]) > 0 && !hemi_evaluator_batch(w.evaluator[i]));
        add_entries(io);
    }
    assert_true(w.module[SHALLOW]->io.limbs < w.module[SMALL]->io.limbs && w.module[WIDE]->io.in_blocks > 1);
    w.keys = load_keys(w.module[SMALL]->io.limbs, w.t, w.entries);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    for (size_t i = 0; i < MODULES; i++) {
        hemi_evaluator_free(w.evaluator[i]);
        if (i == LINEAR)
            hemi_module_free(w.module[i]);
        else
            circuit_module_free(w.module[i]);
    }
    hemi_server_keys_free(w.keys);
    hemi_ckks_secret_free(w.sk);
    return 0;
}

/* Inputs well inside of the calibrated range. */
static float *inputs(const hemi_module *m, size_t rows) {
    float *x = fixture_rows(rows, m->io.inputs);
    return x;
}

static hemi_status evaluate(const hemi_server_keys *keys, const uint8_t *request, size_t bytes, uint8_t **reply, size_t *reply_bytes) {
    uint8_t *copy = malloc(bytes ? bytes : 1); /* of exactly that length */
    assert_non_null(copy);
    memcpy(copy, request, bytes);
    memset(ERR, 0, sizeof *ERR);
    *reply = (uint8_t *)1;
    const hemi_status status = hemi_evaluate((const hemi_evaluator *const *)w.evaluator, MODULES, keys, copy, bytes, 2, reply, reply_bytes, ERR);
    if (status != HEMI_OK) {
        assert_null(*reply);
        assert_int_equal(*reply_bytes, 0);
        assert_true(strlen(ERR->message) > 0);
    }
    free(copy);
    return status;
}

static hemi_status outcome(const hemi_server_keys *keys, const uint8_t *request, size_t bytes) {
    uint8_t *reply;
    size_t reply_bytes;
    const hemi_status status = evaluate(keys, request, bytes, &reply, &reply_bytes);
    hemi_bytes_free(reply);
    return status;
}

static void replies_are_right(void **state) {
    (void)state;
    static const size_t rows[LINEAR] = {5, 2, 1}; /* three units of two rows, the last one half empty; two of one; one */
    for (size_t i = 0; i < LINEAR; i++) {
        const hemi_module *m = w.module[i];
        size_t bytes, reply_bytes;
        float *x = inputs(m, rows[i]), *y = calloc(rows[i] * m->io.outputs, sizeof *y);
        uint8_t *request = circuit_request(w.sk, m, x, rows[i], &bytes), *reply;
        ASSERT_OK(evaluate(w.keys, request, bytes, &reply, &reply_bytes));
        circuit_decrypt(w.sk, m, reply, reply_bytes, rows[i], y);
        circuit_check(m, x, rows[i], y);
        hemi_bytes_free(reply);
        free(request), free(x), free(y);
    }
}

/* The same request twice: other ciphertexts, the same results. */
static void replies_are_fresh(void **state) {
    (void)state;
    const hemi_module *m = w.module[SHALLOW];
    const size_t each = hemi_ckks_poly_bytes(m->io.params, 1);
    size_t bytes, reply_bytes, same[2] = {0};
    float *x = inputs(m, 1), y[2][4];
    uint8_t *request = circuit_request(w.sk, m, x, 1, &bytes), *reply[2];
    for (int i = 0; i < 2; i++) {
        ASSERT_OK(evaluate(w.keys, request, bytes, &reply[i], &reply_bytes));
        circuit_decrypt(w.sk, m, reply[i], reply_bytes, 1, y[i]);
        circuit_check(m, x, 1, y[i]);
    }
    for (size_t part = 0; part < 2; part++)
        for (size_t i = 0; i < each; i++)
            same[part] += reply[0][HEMI_CKKS_REPLY_HEADER_BYTES + part * each + i] == reply[1][HEMI_CKKS_REPLY_HEADER_BYTES + part * each + i];
    for (size_t part = 0; part < 2; part++)
        if (same[part] > each / 128) fail_msg("part %zu: %zu of %zu bytes are the same", part, same[part], each);
    for (int i = 0; i < 2; i++) hemi_bytes_free(reply[i]);
    free(request), free(x);
}

static void requests_that_do_not_fit(void **state) {
    (void)state;
    const hemi_module *m = w.module[SMALL];
    static const struct {
        const char *what;
        int limbs, units, ciphertexts, id; /* more or fewer than it should be; whose id: -1 nobody's */
        hemi_status wanted;
    } cases[] = {
        {"as it should be", 0, 0, 0, SMALL, HEMI_OK},
        {"two units", 0, 1, 0, SMALL, HEMI_OK},
        {"one limb less", -1, 0, 0, SMALL, HEMI_ERR_FORMAT},
        {"the limbs of another module", 0, 0, 0, SHALLOW, HEMI_ERR_FORMAT},
        {"no unit", 0, -1, 0, SMALL, HEMI_ERR_SHAPE},
        {"too many units", 0, HEMI_CKKS_UNITS_MAX, 0, SMALL, HEMI_ERR_SHAPE},
        {"one ciphertext more", 0, 0, 1, SMALL, HEMI_ERR_SHAPE},
        {"no ciphertext", 0, 0, -1, SMALL, HEMI_ERR_SHAPE},
        {"one ciphertext less", 0, 0, 0, WIDE, HEMI_ERR_SHAPE},
        {"a linear module", 0, 0, 0, LINEAR, HEMI_ERR_PARAMS},
        {"no such module", 0, 0, 0, -1, HEMI_ERR_CONFLICT},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        hemi_ckks_request r = circuit_header(m, (size_t)(1 + cases[i].units));
        r.limbs = (uint32_t)((int)r.limbs + cases[i].limbs);
        r.ciphertexts = (uint32_t)((int)r.ciphertexts + cases[i].ciphertexts);
        memset(r.module_id, 0x77, sizeof r.module_id);
        if (cases[i].id >= 0) memcpy(r.module_id, w.module[cases[i].id]->info.id, sizeof r.module_id);
        const size_t length = hemi_ckks_request_bytes(&r);
        uint8_t *body = calloc(length, 1); /* zeros are a ciphertext like any other */
        hemi_ckks_request_write_header(body, &r);
        const hemi_status found = outcome(w.keys, body, length);
        if (found != cases[i].wanted) fail_msg("%s: %s (%s)", cases[i].what, hemi_status_name(found), ERR->message);
        free(body);
    }
    uint8_t *reply;
    size_t bytes, reply_bytes;
    float *x = inputs(m, 1);
    uint8_t *request = circuit_request(w.sk, m, x, 1, &bytes);
    assert_status(hemi_evaluate(NULL, 0, w.keys, request, bytes, 1, &reply, &reply_bytes, ERR), HEMI_ERR_CONFLICT);
    for (size_t length = 0; length < bytes; length += length < 64 ? 1 : 9973) assert_status(outcome(w.keys, request, length), HEMI_ERR_FORMAT);
    assert_status(outcome(w.keys, request, bytes - 1), HEMI_ERR_FORMAT);
    memset(request + HEMI_CKKS_REQUEST_HEADER_BYTES + HEMI_SEED_BYTES, 0xff, 64); /* residues that are none */
    assert_status(outcome(w.keys, request, bytes), HEMI_ERR_FORMAT);
    free(request), free(x);
}

static void keys_that_do_not_fit(void **state) {
    (void)state;
    const hemi_module *m = w.module[SMALL];
    size_t bytes, linear_bytes, count;
    float *x = inputs(m, 1);
    uint8_t *request = circuit_request(w.sk, m, x, 1, &bytes), *linear_request, *wire;
    hemi_keys *client;
    hemi_pending *pending;
    hemi_server_keys *linear;
    /* of the other kind, in both directions */
    ASSERT_OK(hemi_keys_new(&client, NULL, ERR));
    const hemi_module *of[] = {w.module[LINEAR]};
    ASSERT_OK(hemi_keys_evaluation(client, of, 1, &wire, &count, ERR));
    ASSERT_OK(hemi_server_keys_new(&linear, wire, count, ERR));
    assert_status(outcome(linear, request, bytes), HEMI_ERR_KEY);
    assert_true(strstr(ERR->message, "L4096") != NULL && strstr(ERR->message, w.ctx->params->name) != NULL);
    ASSERT_OK(hemi_encrypt(w.module[LINEAR], client, x, 1, &pending, &linear_request, &linear_bytes, ERR));
    assert_status(outcome(linear, linear_request, linear_bytes), HEMI_OK);
    assert_status(outcome(w.keys, linear_request, linear_bytes), HEMI_ERR_KEY);
    assert_true(strstr(ERR->message, "L4096") != NULL && strstr(ERR->message, w.ctx->params->name) != NULL);
    /* without one rotation; the public key alone; of too few limbs */
    hemi_server_keys *one_less = load_keys(m->io.limbs, m->io.automorphism, m->io.automorphisms - 1);
    assert_status(outcome(one_less, request, bytes), HEMI_ERR_KEY);
    assert_non_null(strstr(ERR->message, "automorphism"));
    hemi_server_keys *none = load_keys(m->io.limbs, NULL, 0), *few = load_keys(m->io.limbs - 1, w.t, w.entries);
    assert_status(outcome(none, request, bytes), HEMI_ERR_KEY);
    assert_status(outcome(few, request, bytes), HEMI_ERR_KEY);
    assert_non_null(strstr(ERR->message, "limbs"));
    hemi_server_keys_free(one_less), hemi_server_keys_free(none), hemi_server_keys_free(few), hemi_server_keys_free(linear);
    hemi_pending_free(pending);
    hemi_bytes_release(linear_request), hemi_bytes_release(wire);
    hemi_keys_free(client);
    free(request), free(x);
}

/* Keys for more limbs and of more entries than a module takes serve it as well; damaged ones are refused. */
static void keys_of_several_modules(void **state) {
    (void)state;
    const hemi_module *m = w.module[SHALLOW];
    size_t bytes, count;
    float *x = inputs(m, 1);
    uint8_t *request = circuit_request(w.sk, m, x, 1, &bytes), *wire;
    hemi_server_keys *own = load_keys(m->io.limbs, m->io.automorphism, m->io.automorphisms), *bad;
    assert_status(outcome(own, request, bytes), HEMI_OK);
    assert_status(outcome(w.keys, request, bytes), HEMI_OK);
    wire = circuit_keys(w.sk, 2, w.t, 1, &count);
    for (size_t length = 0; length < count; length += length < 80 ? 1 : 9973)
        assert_status(hemi_server_keys_new(&bad, wire, length, ERR), HEMI_ERR_FORMAT);
    wire[20] ^= 3;
    assert_status(hemi_server_keys_new(&bad, wire, count, ERR), HEMI_ERR_FORMAT);
    assert_null(bad);
    hemi_server_keys_free(own);
    hemi_free(wire);
    free(request), free(x);
}

typedef struct seen {
    size_t calls, last, total;
} seen;

static void count_progress(void *context, const char *what, size_t done, size_t total) {
    seen *s = context;
    assert_non_null(what);
    assert_true(done < total && (s->calls == 0 || (done > s->last && total == s->total)));
    s->calls++, s->last = done, s->total = total;
}

static void progress_is_told(void **state) {
    (void)state;
    const hemi_module *m = w.module[SMALL];
    seen s = {0};
    size_t bytes, reply_bytes;
    float *x = inputs(m, 4);
    uint8_t *request = circuit_request(w.sk, m, x, 4, &bytes), *reply;
    const hemi_evaluate_options options = {.threads = 1, .progress = count_progress, .progress_context = &s};
    ASSERT_OK(hemi_evaluate_with((const hemi_evaluator *const *)w.evaluator, MODULES, w.keys, request, bytes, &options, &reply, &reply_bytes, ERR));
    assert_int_equal(s.calls, s.total);
    assert_int_equal(s.total, 2 * 2); /* units, values */
    hemi_bytes_free(reply);
    free(request), free(x);
}

/* In the middle: after the first value of the first unit; and before anything. Afterwards the same request is computed as ever. */
static atomic_bool leave;

static void leave_now(void *context, const char *what, size_t done, size_t total) {
    (void)context, (void)what, (void)total;
    if (done == 1) atomic_store(&leave, true);
}

static void is_given_up(void **state) {
    (void)state;
    const hemi_module *m = w.module[SMALL];
    size_t bytes, reply_bytes;
    float *x = inputs(m, 4);
    uint8_t *request = circuit_request(w.sk, m, x, 4, &bytes), *reply = NULL;
    hemi_evaluate_options options = {.threads = 2, .progress = leave_now, .stop = &leave};
    for (int before = 0; before < 2; before++) {
        atomic_store(&leave, before == 1);
        ASSERT_FAILS(HEMI_ERR_NETWORK, "given up", hemi_evaluate_with((const hemi_evaluator *const *)w.evaluator, MODULES, w.keys, request, bytes, &options, &reply, &reply_bytes, ERR));
        assert_null(reply);
    }
    atomic_store(&leave, false);
    options.progress = NULL;
    ASSERT_OK(hemi_evaluate_with((const hemi_evaluator *const *)w.evaluator, MODULES, w.keys, request, bytes, &options, &reply, &reply_bytes, ERR));
    hemi_bytes_free(reply);
    free(request), free(x);
}

static void evaluators_need_weights(void **state) {
    (void)state;
    hemi_module bare = *w.module[SMALL];
    hemi_evaluator *e = (hemi_evaluator *)1;
    bare.circuit = NULL;
    bare.plan = NULL;
    assert_status(hemi_evaluator_new(&e, &bare, 1, ERR), HEMI_ERR_STATE);
    assert_null(e);
    bare = *w.module[SMALL];
    bare.io.limbs++; /* not what the circuit makes */
    assert_status(hemi_evaluator_new(&e, &bare, 1, ERR), HEMI_ERR_INTERNAL);
    assert_null(e);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_right),       cmocka_unit_test(replies_are_fresh),      cmocka_unit_test(requests_that_do_not_fit),
        cmocka_unit_test(keys_that_do_not_fit),    cmocka_unit_test(keys_of_several_modules), cmocka_unit_test(progress_is_told), cmocka_unit_test(is_given_up),
        cmocka_unit_test(evaluators_need_weights),
    };
    return cmocka_run_group_tests_name("evaluate circuits", tests, open_all, close_all) != 0;
}
