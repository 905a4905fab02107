/* hemi_evaluate: from request bytes to reply bytes. What is refused, with which status; that any ciphertext gets a reply; that replies
 * are right, for several rows and modules, and fresh. */
#include "hemi/server.h"
#include "model/module.h"
#include "product.h"

/* A, B and D share their input; C is of another set; the replies of D are switched to the ring of half the degree */
enum { A, B, C, D, MODULES };

typedef struct service {
    party client[2]; /* of L4096 and L2048 */
    product layer[MODULES];
    hemi_module module[MODULES];
    hemi_evaluator *evaluator[MODULES];
    hemi_server_keys *keys[2];
} service;

static const struct {
    const char *set;
    uint32_t inputs, outputs, s;
    bool bias;
} layers[MODULES] = {{"L4096", 100, 60, 128, true}, {"L4096", 100, 7, 128, false}, {"L2048", 20, 20, 64, true},
                       {"L4096", 100, 40, 128, true}};

/* Keys of the party as the client sends them. */
static hemi_server_keys *server_keys(const party *p, const uint32_t *t, size_t count) {
    const size_t bytes = test_key_total(p->ctx->params, t, count);
    uint8_t *entries = test_key_bytes(p->sk, t, count), *all = malloc(bytes);
    hemi_server_keys *keys;
    assert_non_null(all);
    hemi_keys_write_header(all, p->ctx->params, count + 1);
    memcpy(all + HEMI_KEYS_HEADER_BYTES, entries, bytes - HEMI_KEYS_HEADER_BYTES);
    ASSERT_OK(hemi_server_keys_new(&keys, all, bytes, ERR));
    hemi_free(entries);
    free(all);
    return keys;
}

static int open_service(void **state) {
    service *s = calloc(1, sizeof *s);
    test_rng rng = test_rng_new();
    uint32_t t[HEMI_AUTOMORPHISMS_MAX + 1] = {HEMI_KEY_RING_SWITCH};
    *state = s;
    party_open(&s->client[0], hemi_params_by_name("L4096"), test_table());
    party_open(&s->client[1], hemi_params_by_name("L2048"), test_table());
    for (size_t i = 0; i < MODULES; i++) {
        product *p = &s->layer[i];
        hemi_linear_layout l;
        ASSERT_OK(test_layout(&l, hemi_params_by_name(layers[i].set), layers[i].inputs, layers[i].outputs,
                                          layers[i].s, ERR));
        product_open(p, &l, layers[i].bias);
        product_random_weights(p, 127, &rng);
        product_load(p, s->client[i == C].ctx, 127, NULL);
        if (i == B || i == D) p->delta = s->layer[A].delta; /* the input is encrypted once: the same delta */
        s->module[i] = (hemi_module){.info = {.params = l.params,
                                              .inputs = l.inputs,
                                              .outputs = l.outputs,
                                              .layout = l.s,
                                              .b_bits = 32,
                                              .reply_a_bits = i == B ? 24 : 25,
                                              .reply_b_bits = i == B ? 20 : 21,
                                              .reply_ring = i == D ? 2048 : 0,
                                              .has_bias = layers[i].bias,
                                              .delta = p->delta},
                                     .layout = l,
                                     .weights = p->w,
                                     .bias = p->bias};
        memset(s->module[i].info.id, (int)(0x11 * (i + 1)), HEMI_MODULE_ID_BYTES);
        s->module[i].info.weight_bits = s->module[i].info.input_bits = 8;
        s->module[i].info.input_scale = s->module[i].info.output_scale = 1;
        s->module[i].info.shape_rank = 2;
        s->module[i].info.shape[0] = 1;
        s->module[i].info.shape[1] = l.inputs;
        ASSERT_OK(hemi_module_finish(&s->module[i], ERR));
        ASSERT_OK(hemi_evaluator_new(&s->evaluator[i], &s->module[i], 2, ERR));
        assert_memory_equal(hemi_evaluator_id(s->evaluator[i]), s->module[i].info.id, HEMI_MODULE_ID_BYTES);
        assert_true(hemi_evaluator_bytes(s->evaluator[i]) >= (size_t)l.n * hemi_linear_products(&l));
    }
    s->keys[0] = server_keys(&s->client[0], t, 1 + hemi_linear_automorphisms(&s->layer[A].l, t + 1));
    s->keys[1] = server_keys(&s->client[1], NULL, 0);
    return 0;
}

static int close_service(void **state) {
    service *s = *state;
    for (size_t i = 0; i < MODULES; i++) {
        hemi_evaluator_free(s->evaluator[i]);
        product_close(&s->layer[i]);
        hemi_free(s->module[i].client_json);
    }
    for (size_t i = 0; i < 2; i++) {
        hemi_server_keys_free(s->keys[i]);
        party_close(&s->client[i]);
    }
    hemi_evaluator_free(NULL);
    hemi_server_keys_free(NULL);
    free(s);
    return 0;
}

/* A request for the listed modules, which share their input, with `rows` random rows; x gets them. */
static uint8_t *request_for(service *s, const int *named, size_t count, uint32_t rows, int32_t *x, size_t *bytes) {
    product *p = &s->layer[named[0]];
    test_rng rng = {rows};
    hemi_request r = {.params = p->l.params,
                      .layout = p->l.s,
                      .coefficients = (uint32_t)p->sent,
                      .units = rows,
                      .ciphertexts = rows,
                      .b_bits = 32,
                      .modules = count};
    for (size_t i = 0; i < count; i++) memcpy(r.module_id[i], s->module[named[i]].info.id, HEMI_MODULE_ID_BYTES);
    *bytes = hemi_request_bytes(&r);
    uint8_t *out = malloc(*bytes);
    assert_non_null(out);
    hemi_request_write_header(out, &r);
    for (uint32_t row = 0; row < rows; row++) {
        uint8_t *at = out + hemi_request_ciphertext_offset(&r, row);
        product_random_input(p, 127, &rng);
        product_encrypt(p, s->client[named[0] == C].sk);
        memcpy(at, p->seed, HEMI_SEED_BYTES);
        memcpy(at + HEMI_SEED_BYTES, p->request, p->request_bytes);
        if (x) memcpy(x + row * p->l.inputs, p->x, p->l.inputs * sizeof *x);
    }
    return out;
}

static hemi_status evaluate(service *s, const hemi_server_keys *keys, const uint8_t *request, size_t bytes,
                            uint8_t **reply, size_t *reply_bytes) {
    uint8_t *copy = malloc(bytes ? bytes : 1); /* of exactly that length */
    assert_non_null(copy);
    memcpy(copy, request, bytes);
    *reply = (uint8_t *)1;
    const hemi_status status = hemi_evaluate((const hemi_evaluator *const *)s->evaluator, MODULES, keys, copy, bytes, 1,
                                             reply, reply_bytes, ERR);
    if (status != HEMI_OK) {
        assert_null(*reply);
        assert_int_equal(*reply_bytes, 0);
        assert_true(strlen(test_err.message) > 0);
    }
    free(copy);
    return status;
}

static hemi_status outcome(service *s, const hemi_server_keys *keys, const uint8_t *request, size_t bytes) {
    uint8_t *reply;
    size_t reply_bytes;
    const hemi_status status = evaluate(s, keys, request, bytes, &reply, &reply_bytes);
    hemi_bytes_free(reply);
    return status;
}

/* Decrypts a reply and compares every row of every module. */
static void check_reply(service *s, const int *named, size_t count, uint32_t rows, const int32_t *x,
                        const uint8_t *reply, size_t bytes) {
    hemi_reply_frame frames[4];
    size_t offset[4];
    for (size_t i = 0; i < count; i++) {
        const hemi_module_info *m = &s->module[named[i]].info;
        frames[i] = (hemi_reply_frame){.units = rows,
                                       .coefficients = m->outputs,
                                       .ciphertexts = rows,
                                       .a_bits = m->reply_a_bits,
                                       .b_bits = m->reply_b_bits,
                                       .ring = m->reply_ring};
        memcpy(frames[i].module_id, m->id, HEMI_MODULE_ID_BYTES);
    }
    ASSERT_OK(hemi_reply_parse(reply, bytes, s->module[named[0]].info.params, frames, count, offset, ERR));
    for (size_t i = 0; i < count; i++) {
        product *p = &s->layer[named[i]];
        p->a_bits = frames[i].a_bits;
        p->b_bits = frames[i].b_bits;
        p->ring_switch = frames[i].ring != 0;
        const size_t a_bytes = hemi_packed_bytes(p->ring_switch ? p->l.n / 2 : p->l.n, p->a_bits),
                     b_bytes = hemi_packed_bytes(p->l.outputs, p->b_bits);
        const double allowed = PRODUCT_SIGMAS * product_predicted(p);
        for (uint32_t row = 0; row < rows; row++) {
            const uint8_t *at = reply + offset[i] + row * (a_bytes + b_bytes);
            memcpy(p->reply_a, at, a_bytes);
            memcpy(p->reply_b, at + a_bytes, b_bytes);
            memcpy(p->x, x + row * p->l.inputs, p->l.inputs * sizeof *x);
            product_decrypt(p, s->client[named[i] == C].sk);
            for (uint32_t o = 0; o < p->l.outputs; o++)
                assert_true(fabs((double)p->phase[o] - (double)p->delta * product_expected(p, o)) < allowed);
        }
    }
}

static void replies_are_right(void **state) {
    service *s = *state;
    static const struct {
        int named[4];
        size_t count;
        uint32_t rows;
    } cases[] = {{{A}, 1, 1},  {{B}, 1, 1},    {{C}, 1, 1},    {{A}, 1, 3},
                 {{C}, 1, 17}, {{A, B}, 2, 1}, {{B, A}, 2, 4}, {{B, B, A, A}, 4, 2},
                 {{D}, 1, 1},  {{A, D}, 2, 3},  {{D, B, D}, 3, 2}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++)
        for (int threads = 0; threads <= 3; threads++) {
            int32_t x[17 * 100];
            size_t bytes, reply_bytes;
            uint8_t *reply, *request = request_for(s, cases[i].named, cases[i].count, cases[i].rows, x, &bytes);
            ASSERT_OK(hemi_evaluate((const hemi_evaluator *const *)s->evaluator, MODULES,
                                    s->keys[cases[i].named[0] == C], request, bytes, threads, &reply, &reply_bytes,
                                    ERR));
            check_reply(s, cases[i].named, cases[i].count, cases[i].rows, x, reply, reply_bytes);
            hemi_bytes_free(reply);
            free(request);
        }
}

static void replies_are_fresh(void **state) {
    service *s = *state;
    for (int named = A; named < MODULES; named++) {
        size_t bytes, reply_bytes[2];
        const uint32_t n = named == D ? 2048 : s->layer[named].l.n;
        const unsigned a_bits = s->module[named].info.reply_a_bits;
        uint8_t *reply[2], *request = request_for(s, &named, 1, 1, NULL, &bytes);
        uint64_t *a = malloc(2 * n * sizeof *a);
        for (size_t i = 0; i < 2; i++) { /* the very same bytes */
            ASSERT_OK(evaluate(s, s->keys[named == C], request, bytes, &reply[i], &reply_bytes[i]));
            hemi_unpack(a + i * n, reply[i] + HEMI_REPLY_HEADER_BYTES + HEMI_REPLY_FRAME_BYTES, n, a_bits);
        }
        assert_int_equal(reply_bytes[0], reply_bytes[1]);
        size_t same = 0;
        for (uint32_t i = 0; i < n; i++) same += a[i] == a[n + i];
        assert_true(same < 4);
        for (size_t i = 0; i < 2; i++) hemi_bytes_free(reply[i]);
        free(a);
        free(request);
    }
}

static void put(uint8_t *at, unsigned width, uint64_t v) {
    for (unsigned i = 0; i < width; i++, v >>= 8) at[i] = (uint8_t)v;
}

/* A request that is well-formed but not for this module. */
static void requests_that_do_not_fit(void **state) {
    service *s = *state;
    const int named[] = {A};
    size_t bytes;
    uint8_t *request = request_for(s, named, 1, 1, NULL, &bytes);
    assert_status(outcome(s, s->keys[0], request, bytes), HEMI_OK);
    static const struct {
        const char *what;
        uint32_t set, layout, inputs, rows;
        unsigned b_bits;
        int id; /* module whose id is named; -1: nobody's */
        hemi_status wanted;
    } cases[] = {
        {"as it should be", 1, 128, 100, 1, 32, A, HEMI_OK},
        {"two rows", 1, 128, 100, 2, 32, A, HEMI_OK},
        {"another set", 2, 128, 100, 1, 32, A, HEMI_ERR_PARAMS},
        {"the set of another module", 1, 64, 20, 1, 32, C, HEMI_ERR_PARAMS},
        {"smaller layout", 1, 64, 60, 1, 32, A, HEMI_ERR_FORMAT},
        {"larger layout", 1, 256, 100, 1, 32, A, HEMI_ERR_FORMAT},
        {"largest layout", 1, 4096, 100, 1, 32, A, HEMI_ERR_FORMAT},
        {"one bit less", 1, 128, 100, 1, 31, A, HEMI_ERR_FORMAT},
        {"one bit more", 1, 128, 100, 1, 33, A, HEMI_ERR_FORMAT},
        {"all bits", 1, 128, 100, 1, 50, A, HEMI_ERR_FORMAT},
        {"one input less", 1, 128, 99, 1, 32, A, HEMI_ERR_SHAPE},
        {"one input more", 1, 128, 101, 1, 32, A, HEMI_ERR_SHAPE},
        {"all inputs", 1, 128, 128, 1, 32, A, HEMI_ERR_SHAPE},
        {"no such module", 1, 128, 100, 1, 32, -1, HEMI_ERR_CONFLICT},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        hemi_request r = {.params = hemi_params_by_id(cases[i].set),
                          .layout = cases[i].layout,
                          .coefficients = cases[i].inputs * ((1u << hemi_params_by_id(cases[i].set)->log2_n) / cases[i].layout),
                          .units = cases[i].rows,
                          .ciphertexts = cases[i].rows,
                          .b_bits = cases[i].b_bits,
                          .modules = 1};
        if (cases[i].id >= 0) memcpy(r.module_id[0], s->module[cases[i].id].info.id, HEMI_MODULE_ID_BYTES);
        const size_t length = hemi_request_bytes(&r);
        uint8_t *body = calloc(length, 1);
        hemi_request_write_header(body, &r);
        const hemi_status found = outcome(s, s->keys[0], body, length);
        if (found != cases[i].wanted) fail_msg("%s: %s", cases[i].what, hemi_status_name(found));
        free(body);
    }
    for (size_t bit = 0; bit < 128; bit += 13) { /* an id one bit off */
        request[40 + bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_status(outcome(s, s->keys[0], request, bytes), HEMI_ERR_CONFLICT);
        request[40 + bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    static const struct {
        size_t offset;
        unsigned width;
        uint64_t value;
        hemi_status wanted;
    } headers[] = {
        {0, 1, 'h', HEMI_ERR_FORMAT},  {4, 2, 0, HEMI_ERR_VERSION},         {4, 2, 2, HEMI_ERR_VERSION},
        {6, 2, 2, HEMI_ERR_FORMAT},    {8, 4, 99, HEMI_ERR_PARAMS},         {12, 4, 1, HEMI_ERR_FORMAT},
        {16, 2, 0, HEMI_ERR_FORMAT},   {16, 2, 2, HEMI_ERR_FORMAT},         {18, 2, 0, HEMI_ERR_FORMAT},
        {20, 4, 127, HEMI_ERR_FORMAT}, {24, 4, 0, HEMI_ERR_SHAPE},          {24, 4, UINT32_MAX, HEMI_ERR_SHAPE},
        {28, 4, 2, HEMI_ERR_FORMAT},   {32, 4, UINT32_MAX, HEMI_ERR_SHAPE}, {36, 4, 2, HEMI_ERR_FORMAT}};
    for (size_t i = 0; i < TEST_COUNT(headers); i++) {
        uint8_t *bad = malloc(bytes);
        memcpy(bad, request, bytes);
        put(bad + headers[i].offset, headers[i].width, headers[i].value);
        assert_status(outcome(s, s->keys[0], bad, bytes), headers[i].wanted);
        free(bad);
    }
    for (size_t length = 0; length < bytes; length += length < 64 ? 1 : 997)
        assert_status(outcome(s, s->keys[0], request, length), HEMI_ERR_FORMAT);
    assert_status(outcome(s, s->keys[0], request, bytes - 1), HEMI_ERR_FORMAT);
    uint8_t *longer = calloc(bytes + 1, 1);
    memcpy(longer, request, bytes);
    assert_status(outcome(s, s->keys[0], longer, bytes + 1), HEMI_ERR_FORMAT);
    free(longer);

    uint8_t *reply; /* a model without modules */
    size_t reply_bytes;
    assert_status(hemi_evaluate(NULL, 0, s->keys[0], request, bytes, 1, &reply, &reply_bytes, ERR), HEMI_ERR_CONFLICT);
    free(request);
}

static void keys_that_do_not_fit(void **state) {
    service *s = *state;
    const int a[] = {A}, b[] = {B}, c[] = {C}, d[] = {D}, both[] = {B, A};
    size_t bytes;
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    const size_t needed = hemi_linear_automorphisms(&s->layer[A].l, t);
    uint8_t *request = request_for(s, a, 1, 1, NULL, &bytes);
    assert_status(outcome(s, s->keys[1], request, bytes), HEMI_ERR_KEY); /* of another set */
    hemi_server_keys *public_only = server_keys(&s->client[0], NULL, 0);
    assert_status(outcome(s, public_only, request, bytes), HEMI_ERR_KEY);
    hemi_server_keys *one_less = server_keys(&s->client[0], t, needed - 1);
    assert_status(outcome(s, one_less, request, bytes), HEMI_ERR_KEY);
    assert_non_null(strstr(test_err.message, "automorphism"));
    free(request);
    request = request_for(s, b, 1, 3, NULL, &bytes); /* which needs no automorphism */
    assert_status(outcome(s, public_only, request, bytes), HEMI_OK);
    free(request);
    request = request_for(s, both, 2, 2, NULL, &bytes); /* the second module does */
    assert_status(outcome(s, public_only, request, bytes), HEMI_ERR_KEY);
    free(request);
    request = request_for(s, d, 1, 1, NULL, &bytes); /* the same automorphisms as A, and the ring-switching key */
    hemi_server_keys *no_switch = server_keys(&s->client[0], t, needed);
    assert_status(outcome(s, no_switch, request, bytes), HEMI_ERR_KEY);
    assert_non_null(strstr(test_err.message, "ring-switching"));
    assert_true(hemi_server_keys_bytes(s->keys[0]) == hemi_server_keys_bytes(no_switch) + 8 * 2048 * sizeof(uint64_t));
    assert_status(outcome(s, s->keys[0], request, bytes), HEMI_OK);
    hemi_server_keys_free(no_switch);
    free(request);
    request = request_for(s, c, 1, 1, NULL, &bytes);
    assert_status(outcome(s, s->keys[0], request, bytes), HEMI_ERR_KEY);
    hemi_server_keys_free(public_only);
    hemi_server_keys_free(one_less);
    free(request);
}

/* Evaluation keys that were damaged on the way: refused, or (the seeds, residues that stay below their prime) taken for
 * other keys. */
static void damaged_keys(void **state) {
    service *s = *state;
    test_rng rng = test_rng_new();
    const uint32_t t[] = {HEMI_KEY_RING_SWITCH, 3};
    const hemi_params *p = s->client[0].ctx->params;
    const size_t bytes = test_key_total(p, t, 2);
    uint8_t *entries = test_key_bytes(s->client[0].sk, t, 2), *all = malloc(bytes);
    size_t accepted = 0;
    hemi_keys_write_header(all, p, 3);
    memcpy(all + HEMI_KEYS_HEADER_BYTES, entries, bytes - HEMI_KEYS_HEADER_BYTES);
    hemi_server_keys *keys, *good;
    ASSERT_OK(hemi_server_keys_new(&good, all, bytes, ERR));
    for (size_t i = 0; i < (test_quick() ? 40u : 400u); i++) {
        const size_t at = i < 64 ? i : test_below(&rng, bytes);
        const uint8_t kept = all[at];
        all[at] ^= (uint8_t)(1u << test_below(&rng, 8));
        const hemi_status status = hemi_server_keys_new(&keys, all, bytes, ERR);
        if (status == HEMI_OK) {
            assert_memory_not_equal(hemi_server_keys_id(keys), hemi_server_keys_id(good), HEMI_KEY_ID_BYTES);
            assert_int_equal(hemi_server_keys_bytes(keys), hemi_server_keys_bytes(good));
            hemi_server_keys_free(keys);
            accepted++;
        } else {
            assert_null(keys);
            assert_true(status == HEMI_ERR_FORMAT || status == HEMI_ERR_VERSION || status == HEMI_ERR_PARAMS);
        }
        assert_true(at >= HEMI_KEYS_HEADER_BYTES + 8 || status != HEMI_OK);
        all[at] = kept;
    }
    for (size_t length = 0; length < bytes; length += length < 80 ? 1 : 4999) {
        uint8_t *part = malloc(length + 1);
        memcpy(part, all, length);
        assert_status(hemi_server_keys_new(&keys, part, length, ERR), HEMI_ERR_FORMAT);
        free(part);
    }
    printf("  %zu of the damaged keys are keys of someone else\n", accepted);
    hemi_server_keys_free(good);
    hemi_free(entries);
    free(all);
}

/* Any ciphertext is one: whatever bits a body has, it gets a reply of the stated length. */
static void any_ciphertext_gets_a_reply(void **state) {
    service *s = *state;
    test_rng rng = test_rng_new();
    for (int named = A; named < MODULES; named++) {
        size_t bytes, reply_bytes, wanted = 0;
        uint8_t *request = request_for(s, &named, 1, 2, NULL, &bytes), *changed = malloc(bytes), *reply;
        const size_t body = HEMI_REQUEST_HEADER_BYTES + HEMI_MODULE_ID_BYTES;
        for (size_t i = 0; i < (test_quick() ? 8u : 80u); i++) {
            memcpy(changed, request, bytes);
            if (i == 1) memset(changed + body, 0, bytes - body);
            if (i == 2) memset(changed + body, 0xff, bytes - body);
            if (i == 3)
                for (size_t j = body; j < bytes; j++) changed[j] = (uint8_t)test_u64(&rng);
            for (size_t flips = i > 3 ? 1 + test_below(&rng, 40) : 0; flips > 0; flips--)
                changed[body + test_below(&rng, bytes - body)] ^= (uint8_t)(1u << test_below(&rng, 8));
            ASSERT_OK(evaluate(s, s->keys[named == C], changed, bytes, &reply, &reply_bytes));
            if (i == 0) wanted = reply_bytes;
            assert_int_equal(reply_bytes, wanted);
            hemi_bytes_free(reply);
        }
        free(request);
        free(changed);
    }
}

/* Bytes changed anywhere, lengths too: an answer, never a crash. */
static void hostile_requests(void **state) {
    service *s = *state;
    test_rng rng = test_rng_new();
    const int named[] = {A, B};
    size_t bytes, accepted = 0;
    uint8_t *request = request_for(s, named, 2, 1, NULL, &bytes), *changed = malloc(bytes + 64);
    const size_t header = HEMI_REQUEST_HEADER_BYTES + 2 * HEMI_MODULE_ID_BYTES;
    for (size_t i = 0; i < (test_quick() ? 300u : 5000u); i++) {
        memset(changed, 0, bytes + 64);
        memcpy(changed, request, bytes);
        for (size_t changes = 1 + test_below(&rng, 4); changes > 0; changes--) {
            const size_t at = test_below(&rng, header);
            changed[at] = (uint8_t)(test_below(&rng, 2) ? test_u64(&rng) : changed[at] ^ (1u << test_below(&rng, 8)));
        }
        const size_t length = test_below(&rng, 4) ? bytes : test_below(&rng, bytes + 64);
        accepted += outcome(s, s->keys[0], changed, length) == HEMI_OK;
    }
    printf("  %zu were still requests\n", accepted);
    free(request);
    free(changed);
}

static void evaluators_need_weights(void **state) {
    service *s = *state;
    hemi_module bare = s->module[A];
    hemi_evaluator *e = (hemi_evaluator *)1;
    bare.weights = NULL;
    bare.bias = NULL;
    assert_status(hemi_evaluator_new(&e, &bare, 1, ERR), HEMI_ERR_STATE);
    assert_null(e);
}

int main(void) {
#define SERVED(test) cmocka_unit_test_setup_teardown(test, open_service, close_service)
    static const struct CMUnitTest tests[] = {
        SERVED(replies_are_right),
        SERVED(replies_are_fresh),
        SERVED(requests_that_do_not_fit),
        SERVED(keys_that_do_not_fit),
        SERVED(damaged_keys),
        SERVED(any_ciphertext_gets_a_reply),
        SERVED(hostile_requests),
        SERVED(evaluators_need_weights),
    };
    return TEST_RUN_PER_TABLE("evaluate", tests);
}
