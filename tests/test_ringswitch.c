/* Replies in the ring of half the degree: every result of tiny rings exact, noise as predicted, what the key holds under the secret,
 * agreement of the tables of kernels, and what is refused. The words of docs/wire-format.md are checked by test_golden.c. */
#include "base/file.h"
#include "hemi/client.h"
#include "hemi/server.h"
#include "product.h"


/* ---- tiny rings: every result exact after rounding */

static void check_exact(ring_keys *r, const hemi_linear_layout *l, test_rng *rng) {
    product p;
    const bool bias = test_below(rng, 2), bare = test_below(rng, 4) == 0;
    product_open(&p, l, bias);
    p.ring_switch = true;
    p.in_bits = p.a_bits = p.b_bits = 44;
    product_uniform_weights(&p, rng);
    product_load(&p, r->p.ctx, 127, NULL);
    product_random_input(&p, 127, rng);
    product_encrypt(&p, r->p.sk);
    product_multiply(&p, r->keys, bare, NULL);
    product_decrypt(&p, r->p.sk);
    product_check_exact(&p);
    product_close(&p);
}

/* Whether the layout is said to fit is checked against the positions themselves. */
static bool halves(const hemi_linear_layout *l) {
    uint32_t at[64];
    bool even = true;
    hemi_linear_output_positions(l, at);
    for (uint32_t o = 0; o < l->outputs; o++) even = even && at[o] % 2 == 0;
    if (hemi_linear_outputs_halve(l)) assert_true(even);
    /* it may say no where only the unused places of a group are odd, never where every place is used */
    if (even && l->outputs == hemi_linear_products(l) * (l->n / l->s) && l->s > 1)
        assert_true(hemi_linear_outputs_halve(l));
    return hemi_linear_outputs_halve(l);
}

static void every_layout_of_tiny_rings(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    size_t layouts = 0, refused = 0, direct = 0;
    for (uint32_t log2_n = 3; log2_n <= 6; log2_n++) {
        ring_keys r;
        ring_open(&r, log2_n, true);
        const uint32_t n = 1u << log2_n, step = n / 16 * (test_quick() ? 5 : 3) + 1;
        for (uint32_t d = 1; d <= n; d += step)
            for (uint32_t m = 1; m <= n; m += step)
                for (uint32_t s = 0; s <= n; s = s == 0 ? 1 : 2 * s) {
                    hemi_linear_layout l;
                    if (s != 0 && s < d) continue;
                    ASSERT_OK(test_layout(&l, &r.p.own, d, m, s, ERR));
                    if (!halves(&l)) {
                        refused++;
                        continue;
                    }
                    check_exact(&r, &l, &rng);
                    layouts++;
                    direct += l.direct;
                }
        ring_close(&r);
    }
    printf("  %zu layouts, %zu direct; %zu do not fit\n", layouts, direct, refused);
    assert_true(test_quick() || (layouts > 200 && direct > 50 && refused > 100));
}

/* In two groups, every choice of babies and numbers of products. */
static void stated_layouts_in_two_groups(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    size_t layouts = 0, refused = 0;
    ring_open(&r, 6, true);
    for (uint32_t s = 8; s <= 64; s *= 2)
        for (uint32_t k = 2; k <= s / 2; k *= 2)
            for (uint32_t last = 1; last < k; last *= 2)
                for (uint32_t babies = 1; babies <= last; babies *= test_quick() ? 4 : 2) {
                    const uint32_t ks[] = {k, last}, d = 1 + (uint32_t)test_below(&rng, s),
                                   most = (k + last) * (64 / s);
                    hemi_linear_layout l;
                    if (test_layout_restore(&l, &r.p.own, d, most > 64 ? 64 : most, s, babies, ks, 2, ERR) !=
                        HEMI_OK)
                        continue;
                    const bool fits = halves(&l);
                    assert_true(fits == (s / k >= 4)); /* the second group stands half way between */
                    if (fits) check_exact(&r, &l, &rng);
                    layouts += fits;
                    refused += !fits;
                }
    printf("  %zu layouts; %zu do not fit\n", layouts, refused);
    assert_true(layouts > 10 && refused > 5);
    ring_close(&r);
}

/* ---- noise */

static void client_open(party *p, hemi_evaluation_keys **keys, const uint32_t *t, size_t count) {
    uint32_t with[HEMI_AUTOMORPHISMS_MAX + 1] = {HEMI_KEY_RING_SWITCH};
    if (count > 0) memcpy(with + 1, t, count * sizeof *t);
    party_open(p, hemi_params_by_name("L4096"), test_table());
    *keys = test_keys(p->sk, with, count + 1);
}

/* (m - c1 s, c1) for uniform c1 and m, switched: what is left of its phase beside m Q / q. */
static void noise_of_the_switch_alone(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    moments m = {0};
    for (size_t key = 0; key < (test_quick() ? 2 : 6); key++) {
        party p;
        hemi_evaluation_keys *keys;
        client_open(&p, &keys, NULL, 0);
        const hemi_context *ctx = p.ctx, *small = ctx->reply;
        const size_t n = ctx->n, half = small->n;
        const double ratio = (double)small->q->m.p / (double)ctx->q->m.p;
        uint64_t *c0 = hemi_alloc(7 * n, sizeof *c0), *c1 = c0 + n, *message = c0 + 2 * n, *u0 = c0 + 3 * n,
                 *u1 = u0 + half, *digits = c0 + 4 * n, *as = c0 + 6 * n;
        for (size_t round = 0; round < 4; round++) {
            test_residues(c1, n, ctx->q->m.p, &rng);
            test_residues(message, n, ctx->q->m.p, &rng);
            if (round == 0) c1[0] = 0, c1[1] = 1, c1[2] = ctx->q->m.p - 1, c1[3] = ctx->q->m.p / 2;
            memcpy(as, c1, n * sizeof *as);
            ctx->k->ntt(as, ctx->q);
            ctx->k->mul_fixed(as, as, p.sk->s_q, n, &ctx->q->m);
            ctx->k->intt(as, as, ctx->q);
            ctx->k->sub(c0, message, as, n, &ctx->q->m);
            hemi_ringswitch(keys, u0, u1, c1, digits);
            hemi_ringswitch_scale(ctx, c0, c0, n);
            small->k->ntt(u1, small->q);
            small->k->mul_fixed(u1, u1, p.sk->reply->s_q, half, &small->q->m);
            small->k->intt(u1, u1, small->q);
            for (size_t i = 0; i < half; i++) {
                const uint64_t phase = hemi_mod_add(hemi_mod_add(c0[2 * i], u0[i], &small->q->m), u1[i], &small->q->m);
                const double e = remainder((double)phase - (double)message[2 * i] * ratio, (double)small->q->m.p);
                moments_add(&m, e / ratio);
            }
        }
        hemi_free(c0);
        hemi_evaluation_keys_free(keys);
        party_close(&p);
    }
    (void)moments_check(&m, hemi_noise_ringswitch_variance(hemi_params_by_name("L4096")), 0.04, "ring switch alone");
}

/* Whole products at the bits of a reply: few, so that rounding is what is seen, and many. */
static void noise_of_replies(void **state) {
    (void)state;
    static const struct {
        uint32_t inputs, outputs, s;
        unsigned a_bits, b_bits;
    } cases[] = {{128, 128, 0, 25, 21}, {384, 384, 0, 24, 20},  {768, 768, 0, 24, 20},   {768, 768, 4096, 25, 21},
                 {64, 100, 0, 23, 18},  {1000, 10, 0, 44, 44},  {2048, 2048, 0, 24, 20}, {300, 300, 1024, 22, 30},
                 {10, 10, 0, 26, 22},   {1024, 2048, 0, 30, 26}};
    test_rng rng = test_rng_new();
    moments all = {0};
    for (size_t i = 0; i < TEST_COUNT(cases) - (test_quick() ? 4 : 0); i++) {
        hemi_linear_layout l;
        hemi_evaluation_keys *keys;
        uint32_t t[HEMI_AUTOMORPHISMS_MAX];
        moments m = {0};
        party p;
        product y;
        ASSERT_OK(test_layout(&l, hemi_params_by_name("L4096"), cases[i].inputs, cases[i].outputs,
                                          cases[i].s, ERR));
        assert_true(hemi_linear_outputs_halve(&l));
        client_open(&p, &keys, t, hemi_linear_automorphisms(&l, t));
        product_open(&y, &l, test_below(&rng, 2));
        y.ring_switch = true;
        y.a_bits = cases[i].a_bits;
        y.b_bits = cases[i].b_bits;
        product_random_weights(&y, 127, &rng);
        product_load(&y, p.ctx, 127, NULL);
        const double predicted = product_predicted(&y);
        for (size_t round = 0; round < (test_quick() ? 40 : 400) / l.outputs + 1; round++) {
            product_random_input(&y, 127, &rng);
            product_encrypt(&y, p.sk);
            product_multiply(&y, keys, false, NULL);
            product_decrypt(&y, p.sk);
            for (uint32_t o = 0; o < l.outputs; o++) {
                const double e = ((double)y.phase[o] - (double)y.delta * product_expected(&y, o)) / predicted;
                moments_add(&m, e);
                moments_add(&all, e);
            }
        }
        const double ratio = sqrt(moments_variance(&m));
        printf("  %4u x %4u  S %4u  %u and %u bits: std %.4f of predicted, largest %.2f\n", l.inputs, l.outputs, l.s,
               y.a_bits, y.b_bits, ratio, m.largest);
        if (m.largest > PRODUCT_SIGMAS) fail_msg("an error of %.2f predicted standard deviations", m.largest);
        if (m.count >= 400 && (ratio > 1.25 || ratio < 1 / 1.25))
            fail_msg("standard deviation %.3f of the predicted one", ratio);
        product_close(&y);
        hemi_evaluation_keys_free(keys);
        party_close(&p);
    }
    assert_true(test_quick() || (sqrt(moments_variance(&all)) > 0.95 && sqrt(moments_variance(&all)) < 1.05));
}

/* ---- the key, under the secrets */

/* e_j = b_j + a_j s' - g 2^(14 i) f, by schoolbook multiplication. */
static void the_key_holds_what_it_should(void **state) {
    (void)state;
    __extension__ typedef __int128 wide;
    ring_keys r;
    moments m = {0};
    ring_open(&r, 9, true);
    const size_t n = 256;
    const int64_t q = (int64_t)TEST_R;
    const hemi_limb *limb = r.p.ctx->reply->q;
    const size_t bytes = hemi_key_entry_bytes(&r.p.own, HEMI_KEY_RING_SWITCH), sample = n * 46 / 8;
    assert_int_equal(bytes, 40 + 4 * sample);
    uint8_t *entry = hemi_alloc(bytes, 1), *again = hemi_alloc(bytes, 1);
    const int8_t *s = r.p.sk->s, *small = r.p.sk->reply->s;
    uint64_t a[256], b[256];
    for (size_t round = 0; round < 20; round++) {
        ASSERT_OK(hemi_secret_make_key(r.p.sk, HEMI_KEY_RING_SWITCH, entry, ERR));
        assert_int_equal(hemi_load32(entry), 1);
        assert_int_equal(hemi_load32(entry + 4), 0);
        assert_memory_not_equal(entry + 8, again + 8, HEMI_SEED_BYTES); /* a fresh seed each time */
        memcpy(again, entry, bytes);
        for (size_t j = 0; j < 4; j++) {
            hemi_unpack(b, entry + 40 + j * sample, n, 46);
            for (size_t i = 0; i < n; i++) assert_true(b[i] < TEST_R);
            hemi_sample_uniform_vartime(a, n, TEST_R, entry + 8, 0x10000001, (uint32_t)j);
            r.p.ctx->k->intt(a, a, limb);
            r.p.ctx->k->intt(b, b, limb);
            const int64_t gadget = (int64_t)((TEST_R - 1) >> 28) << (j >= 2 ? 14 : 0);
            for (size_t i = 0; i < n; i++) {
                wide sum = (wide)b[i];
                for (size_t u = 0; u < n; u++) sum += (wide)(u <= i ? small[u] : -small[u]) * (wide)a[(i + n - u) % n];
                const int f = j % 2 == 0 ? s[2 * i] : i == 0 ? -s[2 * n - 1] : s[2 * i - 1];
                int64_t e = (int64_t)((sum - (wide)gadget * f) % q);
                if (e > q / 2) e -= q;
                if (e < -q / 2) e += q;
                moments_add(&m, (double)e);
            }
        }
    }
    assert_true(m.largest <= HEMI_ERROR_ETA);
    (void)moments_check(&m, HEMI_ERROR_VARIANCE, 0, "errors of ring-switching keys");
    hemi_free(entry);
    hemi_free(again);
    ring_close(&r);
}

/* s' is drawn on its own: no more like s than chance. */
static void the_secrets_are_independent(void **state) {
    (void)state;
    double sum[3] = {0}, count = 0;
    for (size_t key = 0; key < 20; key++) {
        party p;
        party_open(&p, hemi_params_by_name("L4096"), test_table());
        const int8_t *s = p.sk->s, *small = p.sk->reply->s;
        for (size_t i = 0; i < 2048; i++, count++) {
            assert_in_range(small[i] + 1, 0, 2);
            sum[0] += s[i] * small[i];
            sum[1] += s[2 * i] * small[i];
            sum[2] += s[i + 2048] * small[i];
        }
        party_close(&p);
    }
    for (size_t i = 0; i < 3; i++) assert_true(fabs(sum[i]) < TEST_SIGMAS * sqrt(count * 4 / 9));
}

/* ---- the same bytes by every table */

static void tables_agree(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    party p;
    uint64_t *reference = NULL;
    const uint32_t t[] = {HEMI_KEY_RING_SWITCH};
    const hemi_kernels *table;
    party_open(&p, hemi_params_by_name("L4096"), NULL);
    const size_t n = p.ctx->n;
    uint8_t *bytes = test_key_bytes(p.sk, t, 1);
    uint64_t *c = hemi_alloc(2 * n, sizeof *c), *w = hemi_alloc(5 * n, sizeof *w);
    reference = hemi_alloc(2 * n, sizeof *reference);
    for (size_t round = 0; round < 4; round++) {
        test_residues(c, 2 * n, TEST_Q, &rng);
        for (size_t i = 0; round == 0 && i < n; i++)
            c[i] = i % 4 == 0 ? TEST_Q - 1 : i % 4 == 1 ? 0 : i % 4 == 2 ? TEST_Q / 2 : 1;
        for (size_t k = 0; (table = hemi_kernels_at(k)) != NULL; k++) {
            hemi_context *ctx;
            ASSERT_OK(hemi_context_new(&ctx, p.ctx->params, table, ERR));
            hemi_evaluation_keys *keys = test_keys_from(ctx, bytes, t, 1);
            memcpy(w, c, 2 * n * sizeof *w);
            hemi_ringswitch(keys, w + 2 * n, w + 2 * n + n / 2, w, w + 3 * n);
            hemi_ringswitch_scale(ctx, w + 3 * n, w + n, n);
            for (size_t i = 0; i < 2 * n; i++) assert_true(w[2 * n + i] < TEST_R);
            if (k == 0) memcpy(reference, w + 2 * n, 2 * n * sizeof *reference);
            assert_memory_equal(w + 2 * n, reference, 2 * n * sizeof *reference);
            hemi_evaluation_keys_free(keys);
            hemi_context_free(ctx);
        }
    }
    hemi_free(bytes);
    hemi_free(c);
    hemi_free(w);
    hemi_free(reference);
    party_close(&p);
}

/* ---- what is refused */

static void rows_that_hold_no_replies(void **state) {
    (void)state;
    hemi_params reply[] = {test_reply_params(4), test_reply_params(2), test_reply_params(3), test_reply_params(3),
                           test_reply_params(3)};
    reply[2].special = TEST_P;
    reply[3].q = TEST_Q; /* a prime, not 1 modulo 2^28 */
    reply[4].reply = &reply[1];
    for (size_t i = 0; i < TEST_COUNT(reply); i++) {
        hemi_params p = test_params(4, TEST_Q, TEST_P);
        hemi_context *ctx = (hemi_context *)&test_err;
        p.reply = &reply[i];
        assert_status(hemi_context_new(&ctx, &p, test_table(), ERR), HEMI_ERR_PARAMS);
        assert_null(ctx);
    }
    hemi_linear_layout l;
    hemi_params own = test_reply_params(4);
    assert_status(test_layout(&l, &own, 2, 2, 0, ERR), HEMI_ERR_PARAMS);
    assert_status(test_layout(&l, hemi_params_by_name("R2048"), 2, 2, 0, ERR), HEMI_ERR_PARAMS);
}

static void keys_and_layouts_that_do_not_fit(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    hemi_linear_layout l;
    product p;
    uint32_t t[HEMI_AUTOMORPHISMS_MAX + 1] = {HEMI_KEY_RING_SWITCH};
    ring_open(&r, 6, true);
    ASSERT_OK(test_layout(&l, &r.p.own, 32, 16, 32, ERR));
    product_open(&p, &l, false);
    product_random_weights(&p, 127, &rng);
    product_load(&p, r.p.ctx, 127, NULL);
    product_encrypt(&p, r.p.sk);
    const size_t count = hemi_linear_automorphisms(&l, t + 1);
    hemi_evaluation_keys *enough = test_keys(r.p.sk, t, count + 1), *lacking = test_keys(r.p.sk, t + 1, count);
    assert_null(lacking->ring_switch);
    assert_true(enough->bytes == lacking->bytes + 8 * 32 * sizeof(uint64_t));
    for (int bare = 0; bare < 2; bare++) {
        p.ring_switch = true;
        assert_status(product_multiply_into(&p, enough, bare, p.reply_a, p.reply_b, NULL), HEMI_OK);
        assert_status(product_multiply_into(&p, lacking, bare, p.reply_a, p.reply_b, NULL), HEMI_ERR_KEY);
        p.ring_switch = false; /* the set's own ring needs no such key */
        assert_status(product_multiply_into(&p, lacking, bare, p.reply_a, p.reply_b, NULL), HEMI_OK);
    }
    product_close(&p);
    ASSERT_OK(test_layout(&l, &r.p.own, 32, 64, 32, ERR)); /* an output at every coefficient */
    product_open(&p, &l, false);
    product_load(&p, r.p.ctx, 127, NULL);
    product_encrypt(&p, r.p.sk);
    p.ring_switch = true;
    assert_status(product_multiply_into(&p, r.keys, false, p.reply_a, p.reply_b, NULL), HEMI_ERR_ARGUMENT);
    product_close(&p);
    hemi_evaluation_keys_free(enough);
    hemi_evaluation_keys_free(lacking);
    ring_close(&r);
}

/* ---- client and server, with keys in a folder */

enum { INPUTS = 100, OUTPUTS = 60 };

static hemi_module *random_module(void) {
    static float weight[INPUTS * OUTPUTS], bias[OUTPUTS], x[INPUTS];
    static const uint32_t shape[] = {1, INPUTS};
    test_rng rng = test_rng_new();
    hemi_module *m;
    for (size_t i = 0; i < TEST_COUNT(weight); i++) weight[i] = (float)test_normal(&rng);
    for (size_t i = 0; i < OUTPUTS; i++) bias[i] = (float)test_normal(&rng);
    for (size_t i = 0; i < INPUTS; i++) x[i] = (float)test_normal(&rng);
    ASSERT_OK(hemi_module_from_linear(&m, weight, bias, OUTPUTS, INPUTS, x, shape, 2, NULL, ERR));
    return m;
}

/* What one process asks for another can read: s' is kept with s. */
static void secrets_are_kept_in_the_folder(void **state) {
    (void)state;
    char folder[256], path[300];
    hemi_keys *keys;
    hemi_server_keys *server_keys;
    hemi_evaluator *evaluator;
    hemi_pending *pending;
    uint8_t *bytes, *request, *reply;
    size_t count, request_bytes, reply_bytes;
    float x[INPUTS], y[OUTPUTS], expected[OUTPUTS];
    hemi_module *m = random_module();
    const hemi_module *of[] = {m};
    hemi_module_info info;
    hemi_module_get_info(m, &info);
    assert_int_equal(info.reply_ring, 2048);
    test_folder_new(folder);
    snprintf(path, sizeof path, "%s/L4096.key", folder);
    for (size_t i = 0; i < INPUTS; i++) x[i] = (float)((double)i / INPUTS - 0.4);
    ASSERT_OK(hemi_module_run_clear(m, x, 1, expected, false, ERR));

    ASSERT_OK(hemi_keys_new(&keys, folder, ERR));
    ASSERT_OK(hemi_keys_evaluation(keys, of, 1, &bytes, &count, ERR));
    assert_int_equal(count, info.evaluation_key_bytes);
    ASSERT_OK(hemi_server_keys_new(&server_keys, bytes, count, ERR));
    ASSERT_OK(hemi_evaluator_new(&evaluator, m, 1, ERR));
    ASSERT_OK(hemi_encrypt(m, keys, x, 1, &pending, &request, &request_bytes, ERR));
    const hemi_evaluator *const served[] = {evaluator};
    ASSERT_OK(hemi_evaluate(served, 1, server_keys, request, request_bytes, 1, &reply, &reply_bytes, ERR));
    /* two rows, the second for the bias; one frame */
    assert_int_equal(reply_bytes - info.download_bytes, info.download_bytes - 24 - 48);
    hemi_keys_free(keys);

    ASSERT_OK(hemi_keys_new(&keys, folder, ERR)); /* the other process */
    ASSERT_OK(hemi_decrypt(m, keys, pending, reply, reply_bytes, y, ERR));
    for (size_t o = 0; o < OUTPUTS; o++)
        assert_true(fabs((double)y[o] - (double)expected[o]) < 3 * PRODUCT_SIGMAS * info.predicted_error);
    static const uint32_t rings[] = {0, 1024, 4096, 0x80000800}; /* the frame's field says another ring */
    for (size_t i = 0; i < TEST_COUNT(rings); i++) {
        hemi_store32(reply + 24 + 44, rings[i]);
        assert_status(hemi_decrypt(m, keys, pending, reply, reply_bytes, y, ERR), HEMI_ERR_FORMAT);
    }
    assert_status(hemi_keys_generate(keys, hemi_params_by_name("R2048"), false, ERR), HEMI_ERR_PARAMS);
    hemi_keys_free(keys);
    hemi_pending_free(pending);
    hemi_bytes_release(bytes);
    hemi_bytes_release(request);
    hemi_bytes_free(reply);

    ASSERT_OK(hemi_file_read(&bytes, &count, path, 1 << 20, ERR)); /* a file of before: refused by its version, named */
    bytes[4] = 1;
    ASSERT_OK(hemi_file_write(path, bytes, count - 512, 0600, ERR));
    ASSERT_OK(hemi_keys_new(&keys, folder, ERR));
    assert_status(hemi_encrypt(m, keys, x, 1, &pending, &request, &request_bytes, ERR), HEMI_ERR_VERSION);
    assert_non_null(strstr(test_err.message, "L4096.key"));
    hemi_keys_free(keys);
    hemi_free(bytes);
    hemi_server_keys_free(server_keys);
    hemi_evaluator_free(evaluator);
    hemi_module_free(m);
    test_folder_remove(folder);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_of_tiny_rings),
        cmocka_unit_test(stated_layouts_in_two_groups),
        cmocka_unit_test(noise_of_the_switch_alone),
        cmocka_unit_test(noise_of_replies),
        cmocka_unit_test(the_key_holds_what_it_should),
        cmocka_unit_test(the_secrets_are_independent),
        cmocka_unit_test(tables_agree),
        cmocka_unit_test(secrets_are_kept_in_the_folder),
        cmocka_unit_test(rows_that_hold_no_replies),
        cmocka_unit_test(keys_and_layouts_that_do_not_fit),
    };
    return TEST_RUN_PER_TABLE("ring switch", tests);
}
