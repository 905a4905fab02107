/* Circuits on the client's side: keys, requests, replies. The evaluator runs in this process. */
#include "client_fixture.h"

#include "circuit_module.h"
#include "client/codec.h"
#include "client/keys.h"
#include "client/lot.h"
#include "hemi/server.h"

enum { SMALL, SHALLOW, WIDE, MODULES }; /* SHALLOW: fewer levels of the same set; WIDE: units of several ciphertexts */
#define ROWS 4 /* of a unit of SMALL */

static hemi_module *module[MODULES], *linear;
static hemi_evaluator *evaluator[MODULES];
static hemi_keys *keys;

static int open_all(void **state) {
    (void)state;
    module[SMALL] = circuit_module_mlp(10, 32, 10, 3, ROWS, 0x11);
    module[SHALLOW] = circuit_module_mlp(10, 16, 4, 1, 1, 0x22);
    module[WIDE] = circuit_module_mlp(5000, 4, 3, 3, 1, 0x33);
    linear = fixture_module(10, 10, true, 5);
    for (size_t i = 0; i < MODULES; i++) ASSERT_OK(hemi_evaluator_new(&evaluator[i], module[i], 2, ERR));
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    assert_true(module[SHALLOW]->io.limbs < module[SMALL]->io.limbs && module[WIDE]->io.in_blocks > 1 && module[SMALL]->io.rows == ROWS);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    for (size_t i = 0; i < MODULES; i++) {
        hemi_evaluator_free(evaluator[i]);
        circuit_module_free(module[i]);
    }
    hemi_module_free(linear);
    hemi_keys_free(keys);
    return 0;
}

/* ---- a call, step by step */

typedef struct call {
    const hemi_module *m;
    hemi_keys *keys;
    size_t rows;
    float *x, *y;
    hemi_pending *pending;
    uint8_t *request;
    size_t bytes;
} call;

static call call_new(hemi_keys *k, const hemi_module *m, size_t rows) {
    call c = {.m = m, .keys = k, .rows = rows, .x = fixture_rows(rows, m->io.inputs), .y = malloc(rows * m->io.outputs * sizeof(float))};
    assert_non_null(c.y);
    memset(c.y, 0x55, rows * m->io.outputs * sizeof(float));
    return c;
}

static void encrypt(call *c) { ASSERT_OK(hemi_encrypt(c->m, c->keys, c->x, c->rows, &c->pending, &c->request, &c->bytes, ERR)); }

static void call_free(call *c) {
    hemi_pending_free(c->pending);
    hemi_bytes_release(c->request);
    free(c->x);
    free(c->y);
}

static uint8_t *evaluate(const call *c, const uint8_t *key_bytes, size_t key_length, size_t *bytes) {
    hemi_server_keys *k;
    uint8_t *reply;
    const hemi_evaluator *const all[MODULES] = {evaluator[0], evaluator[1], evaluator[2]};
    ASSERT_OK(hemi_server_keys_new(&k, key_bytes, key_length, ERR));
    ASSERT_OK(hemi_evaluate(all, MODULES, k, c->request, c->bytes, 2, &reply, bytes, ERR));
    assert_int_equal(*bytes, hemi_pending_reply_bytes(c->m, c->pending));
    hemi_server_keys_free(k);
    return reply;
}

static void check_call(hemi_keys *k, const hemi_module *m, size_t rows, const uint8_t *key_bytes, size_t key_length) {
    call c = call_new(k, m, rows);
    size_t bytes;
    encrypt(&c);
    uint8_t *reply = evaluate(&c, key_bytes, key_length, &bytes);
    ASSERT_OK(hemi_decrypt(m, k, c.pending, reply, bytes, c.y, ERR));
    circuit_check(m, c.x, rows, c.y);
    assert_int_equal(hemi_pending_out_of_range(c.pending), 0);
    hemi_bytes_free(reply);
    call_free(&c);
}

static void make_keys(hemi_keys *k, uint32_t which, uint8_t **bytes, size_t *length) {
    const hemi_module *all[MODULES];
    size_t count = 0;
    for (size_t i = 0; i < MODULES; i++)
        if (which >> i & 1) all[count++] = module[i];
    ASSERT_OK(hemi_keys_evaluation(k, all, count, bytes, length, ERR));
}

static void rows_of_any_number(void **state) {
    static const size_t rows[] = {1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS};
    uint8_t *bytes;
    size_t length;
    (void)state;
    make_keys(keys, 7, &bytes, &length);
    for (size_t i = 0; i < TEST_COUNT(rows); i++) check_call(keys, module[SMALL], rows[i], bytes, length);
    check_call(keys, module[SHALLOW], 2, bytes, length);
    check_call(keys, module[WIDE], 1, bytes, length);
    check_call(keys, module[WIDE], 3, bytes, length);
    hemi_bytes_release(bytes);
}

static void too_few_and_too_many(void **state) {
    call c = call_new(keys, module[SHALLOW], 1);
    const size_t most = (size_t)HEMI_CKKS_UNITS_MAX * module[SHALLOW]->io.rows;
    (void)state;
    ASSERT_FAILS(HEMI_ERR_SHAPE, "0 rows", hemi_encrypt(c.m, keys, c.x, 0, &c.pending, &c.request, &c.bytes, ERR));
    ASSERT_FAILS(HEMI_ERR_SHAPE, "holds 1 to", hemi_encrypt(c.m, keys, c.x, most + 1, &c.pending, &c.request, &c.bytes, ERR));
    ASSERT_FAILS(HEMI_ERR_SHAPE, "holds 1 to", hemi_encrypt(c.m, keys, c.x, SIZE_MAX, &c.pending, &c.request, &c.bytes, ERR));
    assert_true(!c.pending && !c.request && c.bytes == 0);
    assert_int_equal(hemi_circuit_rows_at_once(module[SMALL], SIZE_MAX, 16), 16 * ROWS);
    assert_int_equal(hemi_circuit_rows_at_once(module[SMALL], 1, 16), ROWS);
    call_free(&c);
}

static void requests_are_fresh(void **state) {
    call a = call_new(keys, module[SMALL], ROWS + 1), b = call_new(keys, module[SMALL], ROWS + 1);
    (void)state;
    encrypt(&a);
    encrypt(&b);
    assert_int_equal(a.bytes, b.bytes);
    hemi_ckks_request r;
    ASSERT_OK(hemi_ckks_request_parse(&r, a.request, a.bytes, ERR));
    assert_int_equal(r.units, 2);
    const size_t first = hemi_ckks_request_ciphertext_offset(&r, 0), second = hemi_ckks_request_ciphertext_offset(&r, 1);
    assert_memory_not_equal(a.request + first, a.request + second, HEMI_SEED_BYTES);
    assert_memory_not_equal(a.request + first, b.request + first, HEMI_SEED_BYTES);
    call_free(&a);
    call_free(&b);
}

static void numbers_that_are_none(void **state) {
    call c = call_new(keys, module[SMALL], ROWS + 2);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        c.x[(ROWS + 1) * 10 + 7] = bad[i];
        ASSERT_FAILS(HEMI_ERR_ARGUMENT, "row 5 ", hemi_encrypt(c.m, keys, c.x, c.rows, &c.pending, &c.request, &c.bytes, ERR));
        assert_non_null(strstr(fixture_error.message, "number 7"));
        assert_true(!c.pending && !c.request);
    }
    c.x[(ROWS + 1) * 10 + 7] = 1e30f; /* is one: clipped, and told */
    encrypt(&c);
    assert_int_equal(hemi_pending_out_of_range(c.pending), 1);
    call_free(&c);
}

/* ---- what is beyond what was calibrated */

/* A reply of one ciphertext a unit that holds these slots: an encryption of them, put into the other form. */
static uint8_t *reply_with(const call *c, const double *slots, size_t *bytes) {
    const hemi_circuit_io *io = &c->m->io;
    const hemi_ckks_secret *sk;
    uint64_t generation;
    ASSERT_OK(hemi_keys_hold_ckks(c->keys, io->params, &sk, &generation, ERR));
    const hemi_limb *l = hemi_ckks_limb(sk->ctx, 0);
    hemi_ckks_request r = circuit_header(c->m, circuit_units(c->m, c->rows));
    r.limbs = 1;
    r.ciphertexts = 1;
    *bytes = hemi_ckks_reply_bytes(&r);
    uint8_t *reply = calloc(*bytes, 1), *one = malloc(hemi_ckks_ciphertext_bytes(io->params, 1));
    uint64_t *a = hemi_alloc(sk->ctx->n, sizeof *a);
    assert_true(reply && one && a);
    hemi_ckks_reply_write_header(reply, &r);
    uint8_t *at = reply + HEMI_CKKS_REPLY_HEADER_BYTES;
    for (size_t u = 0; u < r.units; u++) {
        ASSERT_OK(hemi_ckks_secret_encrypt(sk, slots + u * sk->ctx->slots, io->out_scale, 1, one, ERR));
        hemi_sample_uniform_vartime(a, sk->ctx->n, l->m.p, one, HEMI_DOMAIN_CIPHERTEXT, 0);
        sk->ctx->k->intt(a, a, l);
        hemi_pack(at, a, sk->ctx->n, l->m.bits);
        at += hemi_ckks_poly_bytes(io->params, 1);
        memcpy(at, one + HEMI_SEED_BYTES, hemi_ckks_poly_bytes(io->params, 1));
        at += hemi_ckks_poly_bytes(io->params, 1);
    }
    hemi_keys_let_go(c->keys);
    hemi_free(a);
    free(one);
    return reply;
}

static void inputs_out_of_range(void **state) {
    call c = call_new(keys, module[SMALL], ROWS + 2);
    double *slots = calloc(2u << (c.m->io.params->log2_n - 1), sizeof *slots);
    size_t bytes;
    (void)state;
    assert_non_null(slots);
    c.x[1 * 10 + 3] = (float)(1.01 * c.m->io.in_norm);
    c.x[5 * 10 + 9] = (float)(-1.01 * c.m->io.in_norm);
    encrypt(&c);
    uint8_t *reply = reply_with(&c, slots, &bytes);
    ASSERT_OK(hemi_decrypt(c.m, keys, c.pending, reply, bytes, c.y, ERR));
    assert_int_equal(hemi_pending_out_of_range(c.pending), 2);
    free(reply);
    free(slots);
    call_free(&c);
}

/* Rows share a ciphertext: one that is far out is told, and the others are right. */
static void a_row_out_of_range_spoils_no_other(void **state) {
    call c = call_new(keys, module[SMALL], ROWS);
    uint8_t *key_bytes;
    size_t length, bytes;
    (void)state;
    for (size_t j = 0; j < 10; j++) c.x[j] = j % 2 ? 1e6f : -1e20f;
    make_keys(keys, 7, &key_bytes, &length);
    encrypt(&c);
    uint8_t *reply = evaluate(&c, key_bytes, length, &bytes);
    ASSERT_OK(hemi_decrypt(c.m, keys, c.pending, reply, bytes, c.y, ERR));
    assert_int_equal(hemi_pending_out_of_range(c.pending), 1);
    circuit_check(c.m, c.x + 10, ROWS - 1, c.y + c.m->io.outputs);
    hemi_bytes_free(reply);
    hemi_bytes_release(key_bytes);
    call_free(&c);
}

static void results_out_of_range(void **state) {
    const uint32_t slots_of_unit = 1u << (module[SMALL]->io.params->log2_n - 1);
    double *slots = calloc(2 * (size_t)slots_of_unit, sizeof *slots);
    size_t bytes;
    (void)state;
    assert_non_null(slots);
    for (int stray = 0; stray < 2; stray++) {
        call c = call_new(keys, module[SMALL], 2 * ROWS);
        slots[0] = 0.5;                                 /* row 0, number 0 */
        slots[3 * ROWS + 2] = HEMI_CIRCUIT_OUT_OF_RANGE + 0.01; /* row 2, number 3 */
        slots[slots_of_unit + ROWS - 1] = -0.25;        /* row 7, number 0 */
        if (stray) slots[slots_of_unit + 12 * ROWS] = 0.5; /* number 12 of row 4, which has 10: nothing of this ciphertext is believed */
        encrypt(&c);
        assert_int_equal(hemi_pending_out_of_range(c.pending), 0);
        uint8_t *reply = reply_with(&c, slots, &bytes);
        ASSERT_OK(hemi_decrypt(c.m, keys, c.pending, reply, bytes, c.y, ERR));
        assert_int_equal(hemi_pending_out_of_range(c.pending), stray ? 1 + ROWS : 1);
        assert_near((double)c.y[0], 0.5 * c.m->io.out_norm, 1e-2);
        assert_near((double)c.y[7 * 10], -0.25 * c.m->io.out_norm, 1e-2);
        free(reply);
        call_free(&c);
    }
    free(slots);
}

/* ---- replies that are not what was asked for */

static void refused(call *c, const uint8_t *reply, size_t bytes, const char *what) {
    memset(c->y, 0x55, c->rows * c->m->io.outputs * sizeof *c->y);
    if (hemi_decrypt(c->m, keys, c->pending, reply, bytes, c->y, ERR) == HEMI_OK) fail_msg("accepted: %s", what);
    assert_true(fixture_error.message[0] != 0);
    for (size_t i = 0; i < c->rows * c->m->io.outputs; i++) assert_true(c->y[i] == 0);
}

static void hostile_replies(void **state) {
    call c = call_new(keys, module[SMALL], ROWS + 1), other = call_new(keys, module[SHALLOW], 1);
    double *slots = calloc(2u << (c.m->io.params->log2_n - 1), sizeof *slots);
    size_t bytes;
    (void)state;
    assert_non_null(slots);
    encrypt(&c);
    encrypt(&other);
    uint8_t *reply = reply_with(&c, slots, &bytes), *copy = calloc(bytes + 1, 1);
    assert_non_null(copy);
    memcpy(copy, reply, bytes);
    const size_t short_by[] = {1, bytes / 2, bytes - HEMI_CKKS_REPLY_HEADER_BYTES, bytes - HEMI_CKKS_REPLY_HEADER_BYTES + 1, bytes - 1, bytes};
    for (size_t i = 0; i < TEST_COUNT(short_by); i++) refused(&c, copy, bytes - short_by[i], "a shorter one");
    refused(&c, copy, bytes + 1, "a longer one");
    for (size_t bit = 0; bit < 8 * HEMI_CKKS_REPLY_HEADER_BYTES; bit++) { /* the module's id among them */
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        refused(&c, copy, bytes, "another header");
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t i = 0; i < 4; i++) { /* each polynomial */
        const size_t each = hemi_ckks_poly_bytes(c.m->io.params, 1), at = HEMI_CKKS_REPLY_HEADER_BYTES + i * each;
        memset(copy + at + each - 8, 0xff, 8);
        refused(&c, copy, bytes, "not canonical");
        memcpy(copy + at, reply + at, each);
    }
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "another module", hemi_decrypt(c.m, keys, other.pending, copy, bytes, c.y, ERR));
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "another module", hemi_decrypt(linear, keys, c.pending, copy, bytes, c.y, ERR));
    ASSERT_OK(hemi_decrypt(c.m, keys, c.pending, copy, bytes, c.y, ERR));
    free(reply);
    free(copy);
    free(slots);
    call_free(&c);
    call_free(&other);
}

/* ---- keys */

static void a_replaced_key(void **state) {
    hemi_keys *k;
    uint8_t *before, *after;
    size_t length, bytes;
    (void)state;
    ASSERT_OK(hemi_keys_new(&k, NULL, ERR));
    make_keys(k, 1, &before, &length);
    call c = call_new(k, module[SMALL], 2);
    encrypt(&c);
    uint8_t *reply = evaluate(&c, before, length, &bytes);
    const hemi_params *p = c.m->io.params;
    ASSERT_OK(hemi_keys_generate(k, p, false, ERR)); /* changes nothing */
    ASSERT_OK(hemi_decrypt(c.m, k, c.pending, reply, bytes, c.y, ERR));
    ASSERT_OK(hemi_keys_generate(k, p, true, ERR));
    ASSERT_FAILS(HEMI_ERR_STATE, "anew", hemi_decrypt(c.m, k, c.pending, reply, bytes, c.y, ERR));
    for (size_t i = 0; i < 2 * c.m->io.outputs; i++) assert_true(c.y[i] == 0);
    make_keys(k, 1, &after, &length);
    assert_memory_not_equal(before, after, length);
    check_call(k, module[SMALL], 2, after, length);
    hemi_bytes_release(before);
    hemi_bytes_release(after);
    hemi_bytes_free(reply);
    call_free(&c);
    hemi_keys_free(k);
}

static void check_header(const uint8_t *bytes, size_t length, uint32_t limbs, size_t entries) {
    const hemi_params *p;
    uint32_t found;
    size_t count;
    ASSERT_OK(hemi_ckks_keys_check(bytes, length, &p, &found, &count, ERR));
    assert_ptr_equal(p, module[SMALL]->io.params);
    assert_int_equal(found, limbs);
    assert_int_equal(count, entries);
}

static void the_same_keys_twice(void **state) {
    hemi_keys *k;
    uint8_t *bytes[3];
    size_t length[3];
    const hemi_circuit_io *io = &module[SMALL]->io;
    (void)state;
    ASSERT_OK(hemi_keys_new(&k, NULL, ERR));
    make_keys(k, 1u << SMALL, &bytes[0], &length[0]);
    check_header(bytes[0], length[0], io->limbs, io->automorphisms + 1);
    make_keys(k, 1u << SMALL | 1u << WIDE, &bytes[1], &length[1]); /* more entries, of as many limbs: those that were there stay */
    assert_true(length[1] > length[0] && module[WIDE]->io.limbs <= io->limbs);
    make_keys(k, 1u << SMALL, &bytes[2], &length[2]);
    assert_int_equal(length[0], length[2]);
    assert_memory_equal(bytes[0], bytes[2], length[0]);
    check_call(k, module[SMALL], 3, bytes[1], length[1]);
    check_call(k, module[WIDE], 1, bytes[1], length[1]);
    for (size_t i = 0; i < 3; i++) hemi_bytes_release(bytes[i]);
    hemi_keys_free(k);
}

/* Keys for fewer limbs, made first, give way; made again, they are cut from the larger ones. */
static void keys_for_fewer_limbs(void **state) {
    hemi_keys *k;
    uint8_t *bytes[4];
    size_t length[4];
    const hemi_circuit_io *io = &module[SHALLOW]->io;
    (void)state;
    ASSERT_OK(hemi_keys_new(&k, NULL, ERR));
    make_keys(k, 1u << SHALLOW, &bytes[0], &length[0]);
    check_header(bytes[0], length[0], io->limbs, io->automorphisms + 1);
    check_call(k, module[SHALLOW], 2, bytes[0], length[0]);
    make_keys(k, 1u << SHALLOW | 1u << SMALL, &bytes[1], &length[1]);
    check_call(k, module[SHALLOW], 2, bytes[1], length[1]);
    check_call(k, module[SMALL], 2, bytes[1], length[1]);
    make_keys(k, 1u << SHALLOW, &bytes[2], &length[2]);
    make_keys(k, 1u << SHALLOW, &bytes[3], &length[3]);
    assert_int_equal(length[2], length[0]);
    assert_memory_equal(bytes[2], bytes[3], length[2]);
    check_header(bytes[2], length[2], io->limbs, io->automorphisms + 1);
    check_call(k, module[SHALLOW], 2, bytes[2], length[2]);
    for (size_t i = 0; i < 4; i++) hemi_bytes_release(bytes[i]);
    hemi_keys_free(k);
}

static void keys_that_cannot_be(void **state) {
    const hemi_module *mixed[2] = {module[SMALL], linear};
    const hemi_ckks_secret *levelled;
    const hemi_secret_key *other;
    uint64_t generation;
    uint8_t *bytes;
    size_t length;
    bool more;
    (void)state;
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "each set on its own", hemi_keys_evaluation(keys, mixed, 2, &bytes, &length, ERR));
    mixed[0] = linear, mixed[1] = module[SMALL];
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "each set on its own", hemi_keys_evaluation(keys, mixed, 2, &bytes, &length, ERR));
    ASSERT_FAILS(HEMI_ERR_PARAMS, "circuits", hemi_keys_hold(keys, module[SMALL]->io.params, &other, &generation, ERR));
    ASSERT_FAILS(HEMI_ERR_PARAMS, "linear", hemi_keys_hold_ckks(keys, linear->info.params, &levelled, &generation, ERR));
    ASSERT_FAILS(HEMI_ERR_PARAMS, "circuits", hemi_keys_public(keys, module[SMALL]->io.params, &bytes, &length, ERR));
    hemi_ckks_need need = {0};
    uint32_t t[HEMI_CKKS_KEYS_MAX];
    for (uint32_t i = 0; i < HEMI_CKKS_KEYS_MAX; i++) t[i] = 2 * i + 3;
    hemi_circuit_io io = {.limbs = 3, .automorphisms = 2, .automorphism = t + 4};
    ASSERT_OK(hemi_ckks_need_add(&need, &io, &more, ERR));
    assert_true(more && need.limbs == 3 && need.count == 2);
    ASSERT_OK(hemi_ckks_need_add(&need, &io, &more, ERR));
    assert_false(more);
    io = (hemi_circuit_io){.limbs = 2, .automorphisms = 3, .automorphism = t + 3};
    ASSERT_OK(hemi_ckks_need_add(&need, &io, &more, ERR));
    assert_true(more && need.limbs == 3 && need.count == 3 && need.t[0] == t[3] && need.t[2] == t[5]);
    io = (hemi_circuit_io){.limbs = 9, .automorphisms = HEMI_CKKS_KEYS_MAX, .automorphism = t};
    ASSERT_FAILS(HEMI_ERR_LIMIT, "256", hemi_ckks_need_add(&need, &io, &more, ERR));
    assert_true(!more && need.limbs == 3 && need.count == 3);
}

static void copy_secret(hemi_keys *k, int8_t *s, size_t n) {
    const hemi_ckks_secret *sk;
    uint64_t generation;
    ASSERT_OK(hemi_keys_hold_ckks(k, module[SMALL]->io.params, &sk, &generation, ERR));
    assert_true(s != NULL && n == sk->ctx->n);
    memcpy(s, sk->s, n);
    hemi_keys_let_go(k);
}

static void key_files(void **state) {
    char folder[256], path[512];
    hemi_keys *first, *second;
    uint8_t *bytes;
    size_t length, reply_bytes;
    (void)state;
    test_folder_new(folder);
    ASSERT_OK(hemi_keys_new(&first, folder, ERR));
    make_keys(first, 1, &bytes, &length);
    call c = call_new(first, module[SMALL], 2);
    encrypt(&c);
    uint8_t *reply = evaluate(&c, bytes, length, &reply_bytes);
    snprintf(path, sizeof path, "%s/%s.key", folder, module[SMALL]->io.params->name);
    assert_int_equal(access(path, R_OK), 0);
    hemi_keys_free(first);
    ASSERT_OK(hemi_keys_new(&second, folder, ERR)); /* the same secret key; generations count from the start in each */
    ASSERT_OK(hemi_decrypt(c.m, second, c.pending, reply, reply_bytes, c.y, ERR));
    circuit_check(c.m, c.x, 2, c.y);
    const uint32_t n = 1u << c.m->io.params->log2_n;
    int8_t *s[3] = {malloc(n), malloc(n), malloc(n)};
    copy_secret(second, s[0], n);
    ASSERT_OK(hemi_keys_generate(second, c.m->io.params, true, ERR));
    copy_secret(second, s[1], n);
    hemi_keys_free(second);
    ASSERT_OK(hemi_keys_new(&second, folder, ERR));
    copy_secret(second, s[2], n);
    assert_memory_not_equal(s[0], s[1], n);
    assert_memory_equal(s[1], s[2], n);
    hemi_keys_free(second);
    for (int i = 0; i < 3; i++) free(s[i]);
    hemi_bytes_release(bytes);
    hemi_bytes_free(reply);
    call_free(&c);
    test_folder_remove(folder);
}

static void what_circuits_do_not_do(void **state) {
    const hemi_module *two[2] = {module[SMALL], module[SHALLOW]}, *mixed[2] = {linear, module[SMALL]};
    (void)state;
    assert_false(hemi_lot_possible(two, 1));
    assert_false(hemi_lot_possible(mixed, 2));
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "one by one", hemi_modules_share(two, 2, ERR));
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "one by one", hemi_modules_share(mixed, 2, ERR));
    assert_false(hemi_codec_needs_zero_unit(module[SMALL], keys));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_of_any_number),    cmocka_unit_test(too_few_and_too_many),
                                       cmocka_unit_test(requests_are_fresh),    cmocka_unit_test(numbers_that_are_none),
                                       cmocka_unit_test(inputs_out_of_range),   cmocka_unit_test(a_row_out_of_range_spoils_no_other),
                                       cmocka_unit_test(results_out_of_range),
                                       cmocka_unit_test(hostile_replies),       cmocka_unit_test(a_replaced_key),
                                       cmocka_unit_test(the_same_keys_twice),   cmocka_unit_test(keys_for_fewer_limbs),
                                       cmocka_unit_test(keys_that_cannot_be),   cmocka_unit_test(key_files),
                                       cmocka_unit_test(what_circuits_do_not_do)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
