/* Contexts and evaluation keys; the noise of encryption, key switching, re-randomisation and modulus switching, measured
 * against the formulas of rlwe/noise.h. */
#include <pthread.h>

#include "crypto.h"
#include "linear/layout.h"
#include "rlwe/keyswitch.h"
#include "rlwe/noise.h"
#include "secret/cipher.h"

static uint64_t *words(size_t count) {
    uint64_t *w = hemi_alloc(count, sizeof *w);
    assert_non_null(w);
    return w;
}

/* a(X) s(X) over limb `limb`, a in NTT form; the result in coefficients. */
static void times_secret(const hemi_secret_key *sk, size_t limb, uint64_t *a) {
    const hemi_context *ctx = sk->ctx;
    const hemi_limb *l = &ctx->ring->limb[limb];
    ctx->k->mul_fixed(a, a, limb == 0 ? sk->s_q : sk->s_p, ctx->n, &l->m);
    ctx->k->intt(a, a, l);
}

/* ---- contexts */

static void contexts_refuse_bad_rows(void **state) {
    (void)state;
    const hemi_params good = test_params(4, TEST_Q, TEST_P);
    struct {
        uint32_t log2_n;
        uint64_t q, special;
    } bad[] = {
        {0, TEST_Q, TEST_P},
        {1, TEST_Q, TEST_P},
        {17, TEST_Q, TEST_P},
        {UINT32_MAX, TEST_Q, TEST_P},
        {4, 0, TEST_P},
        {4, 1, TEST_P},
        {4, 2, TEST_P},
        {4, TEST_Q + 2, TEST_P},
        {4, TEST_Q - 1, 0},
        {4, TEST_Q, TEST_P + 64},
        {4, TEST_Q, 3},
        {4, TEST_Q, TEST_Q * 3},
        {4, 48879731, 0} /* no prime */,
        {4, 19, 0} /* prime, not 1 modulo 32 */,
        {4, (UINT64_C(1) << 50) + 1, 0},
        {4, UINT64_MAX, TEST_P},
        {4, TEST_Q, UINT64_MAX},
        {4, UINT64_C(0x4000000120001), 0} /* above 2^50 */,
    };
    hemi_context *ctx;
    ASSERT_OK(hemi_context_new(&ctx, &good, test_table(), ERR));
    hemi_context_free(ctx);
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        const hemi_params p = test_params(bad[i].log2_n, bad[i].q, bad[i].special);
        ctx = (hemi_context *)&test_err;
        assert_status(hemi_context_new(&ctx, &p, test_table(), ERR), HEMI_ERR_ARGUMENT);
        assert_null(ctx);
    }
    hemi_context_free(NULL);
}

static bool of_the_family(const hemi_context *ctx, uint32_t t) {
    uint32_t family[HEMI_FAMILY_MAX];
    const size_t count = test_family(ctx, family);
    for (size_t i = 0; i < count; i++)
        if (family[i] == t) return true;
    return false;
}

static void automorphisms_of_the_family_and_no_others(void **state) {
    (void)state;
    for (uint32_t log2_n = HEMI_RING_LOG2_N_MIN; log2_n <= 8; log2_n++) {
        const hemi_params p = test_params(log2_n, TEST_Q, TEST_P), none = test_params(log2_n, TEST_Q, 0);
        hemi_context *ctx, *bare;
        ASSERT_OK(hemi_context_new(&ctx, &p, test_table(), ERR));
        ASSERT_OK(hemi_context_new(&bare, &none, test_table(), ERR));
        assert_null(bare->special);
        assert_int_equal(ctx->n, 1u << log2_n);
        uint32_t index[256];
        for (uint32_t t = 0; t < 8 * ctx->n; t++) {
            const uint32_t *found = hemi_context_automorphism(ctx, t);
            hemi_evaluation_keys *keys;
            assert_null(hemi_context_automorphism(bare, t));
            assert_status(hemi_evaluation_keys_new(&keys, bare, &t, 1, ERR), HEMI_ERR_KEY);
            if (of_the_family(ctx, t)) {
                assert_non_null(found);
                hemi_ring_automorphism_index(index, log2_n, t);
                assert_memory_equal(found, index, ctx->n * sizeof *index);
            } else {
                assert_null(found);
                assert_status(hemi_evaluation_keys_new(&keys, ctx, &t, 1, ERR), HEMI_ERR_KEY);
                assert_null(keys);
            }
        }
        hemi_context_free(ctx);
        hemi_context_free(bare);
    }
}

static void *shared(void *params) {
    const hemi_context *ctx;
    return hemi_context_shared(&ctx, params, NULL) == HEMI_OK ? (void *)(uintptr_t)ctx : NULL;
}

static void one_shared_context_per_set(void **state) {
    (void)state;
    pthread_t thread[4];
    const hemi_params *a = hemi_params_at(0), *b = hemi_params_at(1);
    for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&thread[i], NULL, shared, (void *)(uintptr_t)a), 0);
    const hemi_context *ctx, *other;
    ASSERT_OK(hemi_context_shared(&ctx, a, ERR));
    ASSERT_OK(hemi_context_shared(&other, b, ERR));
    assert_ptr_not_equal(ctx, other);
    for (size_t i = 0; i < 4; i++) {
        void *seen;
        assert_int_equal(pthread_join(thread[i], &seen), 0);
        assert_ptr_equal(seen, ctx);
    }
    assert_ptr_equal(ctx->params, a);
    assert_ptr_equal(ctx->k, test_table());
}

static void keys_are_found(void **state) {
    (void)state;
    party p = {.own = test_params(5, TEST_Q, TEST_P)};
    party_open(&p, NULL, test_table());
    const uint32_t t[] = {3, 9, 63};
    hemi_evaluation_keys *keys = test_keys(p.sk, t, 3), *public_only = test_keys(p.sk, NULL, 0);
    for (uint32_t i = 0; i < 130; i++) {
        const hemi_galois_key *key = hemi_evaluation_keys_find(keys, i);
        assert_true((key != NULL) == (i == 3 || i == 9 || i == 63));
        if (key) assert_int_equal(key->t, i);
        assert_null(hemi_evaluation_keys_find(public_only, i));
    }
    hemi_evaluation_keys_free(keys);
    hemi_evaluation_keys_free(public_only);
    hemi_evaluation_keys_free(NULL);
    party_close(&p);
}

/* ---- fresh encryptions */

/* Phase minus message of every coefficient that was sent, gathered over fresh encryptions of random rows. */
static void gather_fresh(moments *m, const hemi_params *params, unsigned b_bits, size_t samples) {
    party p;
    test_rng rng = test_rng_new();
    party_open(&p, params, test_table());
    const size_t n = p.ctx->n;
    const hemi_modulus *q = &p.ctx->q->m;
    const uint64_t delta = q->p >> 18;
    uint64_t *b = words(n), *a = words(n);
    uint8_t *packed = hemi_alloc(n, 8), seed[HEMI_SEED_BYTES];
    uint32_t *positions = hemi_alloc(n, sizeof *positions);
    int32_t *x = hemi_alloc(n, sizeof *x);
    for (uint32_t i = 0; i < n; i++) positions[i] = i;
    for (*m = (moments){0}; m->count < samples;) {
        const size_t inputs = 1 + test_below(&rng, n);
        for (size_t i = 0; i < inputs; i++) x[i] = (int32_t)test_below(&rng, 131071) - 65535;
        ASSERT_OK(hemi_secret_encrypt(p.sk, x, inputs, delta, positions, n, b_bits, seed, packed, ERR));
        hemi_unpack(b, packed, n, b_bits);
        p.ctx->k->switch_up(b, b, n, b_bits, q);
        hemi_sample_uniform_vartime(a, n, q->p, seed, HEMI_DOMAIN_CIPHERTEXT, 0);
        times_secret(p.sk, 0, a);
        for (size_t i = 0; i < n; i++) {
            const uint64_t phase = hemi_mod_add(b[i], a[i], q);
            const int64_t message = i < inputs ? x[i] * (int64_t)delta : 0;
            moments_add(m, (double)hemi_mod_centre(hemi_mod_sub(phase, hemi_mod_from_signed(message, q), q), q));
        }
    }
    hemi_free(b);
    hemi_free(a);
    hemi_free(packed);
    hemi_free(positions);
    hemi_free(x);
    party_close(&p);
}

static void fresh_encryption_noise(void **state) {
    (void)state;
    const size_t samples = test_quick() ? 8192 : 120000;
    moments m;
    for (size_t i = 0; i < test_linear_sets(); i++) {
        const hemi_params *p = hemi_params_at(i);
        gather_fresh(&m, p, 48, samples); /* q is below 2^48: nothing is cut off */
        moments_check(&m, HEMI_ERROR_VARIANCE, 0, "fresh encryption, every bit sent");
        assert_true(m.largest <= HEMI_ERROR_ETA);
        assert_true(hemi_noise_upload_variance(p, 48) == 0 && hemi_noise_upload_variance(p, 50) == 0);
    }
    const unsigned bits[] = {32, 28, 40};
    const hemi_params *p = hemi_params_by_name("L4096");
    for (size_t i = 0; i < TEST_COUNT(bits); i++) {
        const double rounding = hemi_noise_upload_variance(p, bits[i]);
        gather_fresh(&m, p, bits[i], samples);
        moments_check(&m, HEMI_ERROR_VARIANCE + rounding, 0,
                      bits[i] == 32   ? "fresh encryption, 32 bits sent"
                      : bits[i] == 28 ? "28 bits"
                                      : "40 bits");
        assert_true(m.largest <= HEMI_ERROR_ETA + 0.5 + 0.5 * (double)p->q / ldexp(1, (int)bits[i]));
    }
}

/* ---- key switching */

/* (u0 + u1 s) - sigma_t(c1) s(X^t) for uniform c1: the noise of one key switch, in every coefficient. */
static void gather_keyswitch(moments *m, const party *p, const hemi_galois_key *key, test_rng *rng) {
    const hemi_context *ctx = p->ctx;
    const size_t n = ctx->n;
    const hemi_modulus *q = &ctx->q->m;
    uint64_t *w = words(8 * n), *c1 = w, *digit = w + n, *target = w + 2 * n, *rotated = w + 3 * n;
    const hemi_extended u0 = {w + 4 * n, w + 5 * n}, u1 = {w + 6 * n, w + 7 * n};
    test_residues(c1, n, q->p, rng);
    hemi_keyswitch_digit(ctx, digit, c1);
    hemi_keyswitch_product(ctx, key, u0, u1, c1, digit, (hemi_extended){NULL, NULL});
    if (test_below(rng, 2) == 0) {
        hemi_divide_by_special(ctx, u0.q, u0);
        ctx->k->intt(u0.q, u0.q, ctx->q);
    } else {
        hemi_divide_by_special_to_coefficients(ctx, u0.q, u0);
    }
    hemi_divide_by_special(ctx, u1.q, u1);
    times_secret(p->sk, 0, u1.q);
    memcpy(target, c1, n * sizeof *c1);
    times_secret(p->sk, 0, target); /* sigma_t(c1 s) = sigma_t(c1) s(X^t) */
    hemi_ring_automorphism(rotated, target, key->t, ctx->q);
    for (size_t i = 0; i < n; i++)
        moments_add(m, (double)hemi_mod_centre(hemi_mod_sub(hemi_mod_add(u0.q[i], u1.q[i], q), rotated[i], q), q));
    hemi_free(w);
}

static double keyswitch_ratio(uint32_t log2_n, uint64_t q, uint64_t special, size_t samples, const char *what) {
    moments m = {0};
    test_rng rng = test_rng_new();
    const hemi_params *listed = log2_n == 12 && q == TEST_Q && special == TEST_P ? hemi_params_by_name("L4096") : NULL;
    const hemi_params row = test_params(log2_n, q, special);
    while (m.count < samples) { /* a new secret key for every round of the family */
        party p = {.own = row};
        uint32_t t[HEMI_FAMILY_MAX];
        party_open(&p, listed, test_table());
        const size_t count = test_family(p.ctx, t);
        hemi_evaluation_keys *keys = test_keys(p.sk, t, count);
        for (size_t i = 0; i < count; i++) gather_keyswitch(&m, &p, &keys->key[i], &rng);
        hemi_evaluation_keys_free(keys);
        party_close(&p);
    }
    return moments_check(&m, hemi_noise_keyswitch_variance(&row), 0.05, what);
}

static void keyswitch_noise(void **state) {
    (void)state;
    const double ratio = keyswitch_ratio(12, TEST_Q, TEST_P, test_quick() ? 50000 : 100000, "key switching, L4096");
    assert_true(ratio > 0.9 && ratio < 1.1);
    static const struct {
        uint32_t log2_n;
        unsigned q, special;
        const char *what;
    } other[] = {{10, 30, 49, "key switching, N = 1024, q 30 bits, P 49"},
                 {10, 50, 48, "N = 1024, q 50, P 48"},
                 {11, 50, 49, "N = 2048, q 50, P 49"},
                 {11, 45, 40, "N = 2048, q 45, P 40"},
                 {13, 48, 49, "N = 8192, q 48, P 49"},
                 {12, 40, 50, "N = 4096, q 40, P 50"}};
    for (size_t i = 0; i < TEST_COUNT(other) && !(test_quick() && i == 2); i++)
        (void)keyswitch_ratio(other[i].log2_n, test_prime(other[i].q), test_prime(other[i].special),
                              test_quick() ? 10000 : 100000, other[i].what);
    const hemi_params without = test_params(10, TEST_Q, 0);
    assert_true(hemi_noise_keyswitch_variance(&without) == 0);
}

/* Division by P, coefficient by coefficient, against 128-bit arithmetic: the unique r with |u - r P| < P/2, for a number
 * |u| < qP/2 given by its residues. */
static void division_is_exact(void **state) {
    (void)state;
    const hemi_params row = test_params(6, TEST_Q, TEST_P);
    test_rng rng = test_rng_new();
    hemi_context *ctx;
    ASSERT_OK(hemi_context_new(&ctx, &row, test_table(), ERR));
    const size_t n = ctx->n;
    uint64_t *w = words(5 * n), *r = w + 4 * n;
    for (int round = 0; round < 40; round++) {
        int64_t quotient[64], rest[64];
        for (size_t i = 0; i < n; i++) {
            quotient[i] = (int64_t)test_below(&rng, TEST_Q) - (int64_t)(TEST_Q / 2);
            rest[i] = (int64_t)test_below(&rng, TEST_P) - (int64_t)(TEST_P / 2);
            if (round < 3) rest[i] = round == 0 ? 0 : round == 1 ? (int64_t)(TEST_P / 2) : -(int64_t)(TEST_P / 2);
            w[i] = hemi_mod_add(
                hemi_mod_mul(hemi_mod_from_signed(quotient[i], &ctx->q->m), ctx->special_mod_q, &ctx->q->m),
                hemi_mod_from_signed(rest[i], &ctx->q->m), &ctx->q->m);
            w[n + i] = hemi_mod_from_signed(rest[i], &ctx->special->m);
        }
        ctx->k->ntt(w, ctx->q);
        ctx->k->ntt(w + n, ctx->special);
        memcpy(w + 2 * n, w, 2 * n * sizeof *w);
        hemi_divide_by_special(ctx, r, (hemi_extended){w, w + n});
        ctx->k->intt(r, r, ctx->q);
        for (size_t i = 0; i < n; i++) assert_true(r[i] == hemi_mod_from_signed(quotient[i], &ctx->q->m));
        hemi_divide_by_special_to_coefficients(ctx, w + 2 * n, (hemi_extended){w + 2 * n, w + 3 * n});
        assert_memory_equal(w + 2 * n, r, n * sizeof *r);
    }
    hemi_free(w);
    hemi_context_free(ctx);
}

/* ---- encryptions of zero */

static void zero_product_noise(void **state) {
    (void)state;
    for (size_t set = 0; set < test_linear_sets(); set++) {
        const hemi_params *row = hemi_params_at(set);
        moments m = {0};
        const size_t samples = test_quick() ? 20000 : 120000;
        while (m.count < samples) { /* four of each key: no two alike */
            party p;
            party_open(&p, row, test_table());
            const size_t n = p.ctx->n;
            const hemi_modulus *q = &p.ctx->q->m;
            hemi_evaluation_keys *keys = test_keys(p.sk, NULL, 0);
            uint64_t *z = words(2 * n), *last = words(n);
            hemi_stream secret;
            hemi_stream_init_fresh(&secret);
            for (int round = 0; round < 4; round++) {
                hemi_zero_product(keys, z, z + n, &secret);
                size_t same = 0;
                for (size_t i = 0; i < n; i++) same += z[n + i] == last[i];
                assert_true(same < 3);
                memcpy(last, z + n, n * sizeof *z);
                p.ctx->k->intt(z, z, p.ctx->q);
                p.ctx->k->intt(z + n, z + n, p.ctx->q);
                hemi_add_error(z, n, q, &secret);
                hemi_add_error(z + n, n, q, &secret);
                p.ctx->k->ntt(z + n, p.ctx->q);
                times_secret(p.sk, 0, z + n);
                for (size_t i = 0; i < n; i++)
                    moments_add(&m, (double)hemi_mod_centre(hemi_mod_add(z[i], z[n + i], q), q));
            }
            hemi_stream_wipe(&secret);
            hemi_free(z);
            hemi_free(last);
            hemi_evaluation_keys_free(keys);
            party_close(&p);
        }
        (void)moments_check(&m, hemi_noise_zero_variance(row), 0.05, "encryption of zero under the public key");
    }
}

/* hemi_add_error adds errors of the right size, to every coefficient and nothing beyond. */
static void added_errors(void **state) {
    (void)state;
    hemi_modulus q;
    assert_true(hemi_modulus_init(&q, TEST_Q));
    test_rng rng = test_rng_new();
    moments m = {0};
    hemi_stream secret;
    hemi_stream_init_fresh(&secret);
    uint64_t a[1100], before[1100];
    const size_t counts[] = {0, 1, 2, 511, 512, 513, 1024, 1025};
    for (int round = 0; round < (test_quick() ? 3 : 40); round++)
        for (size_t c = 0; c < TEST_COUNT(counts); c++) {
            test_residues(before, 1100, TEST_Q, &rng);
            before[0] = 0;
            before[1] = TEST_Q - 1;
            memcpy(a, before, sizeof a);
            hemi_add_error(a, counts[c], &q, &secret);
            for (size_t i = 0; i < counts[c]; i++) {
                const double e = (double)hemi_mod_centre(hemi_mod_sub(a[i], before[i], &q), &q);
                assert_true(a[i] < TEST_Q && fabs(e) <= HEMI_ERROR_ETA);
                moments_add(&m, e);
            }
            for (size_t i = counts[c]; i < 1100; i++) assert_true(a[i] == before[i]);
        }
    hemi_stream_wipe(&secret);
    (void)moments_check(&m, HEMI_ERROR_VARIANCE, 0, "errors added to a polynomial");
}

/* ---- switching a result down */

static void gather_switch_down(moments *m, const party *p, unsigned a_bits, unsigned b_bits, test_rng *rng) {
    const hemi_context *ctx = p->ctx;
    const size_t n = ctx->n;
    const hemi_modulus *q = &ctx->q->m;
    uint64_t *w = words(3 * n), *a = w, *b = w + n, *exact = w + 2 * n;
    uint8_t *packed_a = hemi_alloc(n, 8), *packed_b = hemi_alloc(n, 8);
    uint32_t *positions = hemi_alloc(n, sizeof *positions);
    int64_t *phase = hemi_alloc(n, sizeof *phase);
    for (uint32_t i = 0; i < n; i++) positions[i] = i;
    test_residues(a, n, q->p, rng);
    memcpy(exact, a, n * sizeof *a);
    ctx->k->ntt(exact, ctx->q);
    times_secret(p->sk, 0, exact); /* a s */
    for (size_t i = 0; i < n; i++) b[i] = hemi_mod_sub(test_below(rng, q->p), exact[i], q);
    for (size_t i = 0; i < n; i++) exact[i] = hemi_mod_add(exact[i], b[i], q);
    ctx->k->switch_down(a, a, n, a_bits, q);
    ctx->k->switch_down(b, b, n, b_bits, q);
    hemi_pack(packed_a, a, n, a_bits);
    hemi_pack(packed_b, b, n, b_bits);
    ASSERT_OK(hemi_secret_decrypt(p->sk, packed_a, a_bits, packed_b, b_bits, positions, n, phase, ERR));
    for (size_t i = 0; i < n; i++)
        moments_add(m, (double)hemi_mod_centre(hemi_mod_sub(hemi_mod_from_signed(phase[i], q), exact[i], q), q));
    hemi_free(w);
    hemi_free(packed_a);
    hemi_free(packed_b);
    hemi_free(positions);
    hemi_free(phase);
}

static void switch_down_noise(void **state) {
    (void)state;
    static const struct {
        unsigned a_bits, b_bits;
        const char *what;
    } cases[] = {{25, 21, "switched down to 25 and 21 bits"},
                 {24, 20, "24 and 20 bits"},
                 {34, 20, "34 and 20 bits: b alone counts"},
                 {20, 48, "20 and 48 bits"}};
    for (size_t set = 0; set < test_linear_sets(); set++)
        for (size_t c = 0; c < TEST_COUNT(cases); c++) {
            moments m = {0};
            test_rng rng = test_rng_new();
            const size_t samples = test_quick() ? 10000 : 100000;
            while (m.count < samples) {
                party p;
                party_open(&p, hemi_params_at(set), test_table());
                for (int round = 0; round < 4; round++)
                    gather_switch_down(&m, &p, cases[c].a_bits, cases[c].b_bits, &rng);
                party_close(&p);
            }
            const double predicted =
                hemi_noise_download_variance(hemi_params_at(set), cases[c].a_bits, cases[c].b_bits);
            (void)moments_check(&m, predicted, 0.03, cases[c].what);
        }
    assert_true(hemi_noise_download_variance(hemi_params_at(0), 48, 48) == 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(contexts_refuse_bad_rows),
        cmocka_unit_test(automorphisms_of_the_family_and_no_others),
        cmocka_unit_test(one_shared_context_per_set),
        cmocka_unit_test(keys_are_found),
        cmocka_unit_test(fresh_encryption_noise),
        cmocka_unit_test(keyswitch_noise),
        cmocka_unit_test(division_is_exact),
        cmocka_unit_test(zero_product_noise),
        cmocka_unit_test(added_errors),
        cmocka_unit_test(switch_down_noise),
    };
    return TEST_RUN_PER_TABLE("rlwe", tests);
}
