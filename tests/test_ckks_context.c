/* Levelled sets at work: constants, rotations, evaluation keys in memory; what is for linear maps refuses these sets and the other way
 * round. */
#include "ckks.h"
#include "client/keys.h"
#include "linear/layout.h"

static void constants(void **state) {
    (void)state;
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        if (p->chain == 0) continue;
        const hemi_ckks_context *ctx, *again;
        ASSERT_OK(hemi_ckks_context_shared(&ctx, p, ERR));
        ASSERT_OK(hemi_ckks_context_shared(&again, p, ERR));
        assert_ptr_equal(ctx, again);
        assert_true(ctx->params == p && ctx->n == 1u << p->log2_n && ctx->slots == ctx->n / 2 && ctx->encoder != NULL);
        const uint32_t total = hemi_ckks_total(ctx);
        for (uint32_t j = 0; j < total; j++) {
            const hemi_modulus *m = &hemi_ckks_limb(ctx, j)->m;
            unsigned __int128 product = 1;
            assert_true(m->p == p->prime[j]);
            for (uint32_t k = 0; k < p->specials; k++) product = product * (p->prime[p->chain + k] % m->p) % m->p;
            assert_true(ctx->special_product[j] == product && (product == 0) == (j >= p->chain));
            if (j < p->chain) assert_int_equal(product * ctx->special_inverse[j] % m->p, 1);
            for (uint32_t k = 0; k < total; k++) {
                assert_true(ctx->prime[k * total + j] == p->prime[k] % m->p);
                if (k != j) assert_int_equal((unsigned __int128)ctx->prime[k * total + j] * ctx->prime_inverse[k * total + j] % m->p, 1);
            }
        }
    }
}

/* Digits take every prime of the chain once. */
static void digits(void **state) {
    (void)state;
    for (uint32_t width = 1; width <= HEMI_CKKS_DIGIT_MAX; width++) {
        const hemi_params p = test_ckks_params(4, width);
        for (uint32_t limbs = 1; limbs <= p.chain; limbs++) {
            const uint32_t count = hemi_ckks_digits(&p, limbs);
            assert_true(hemi_ckks_digit_first(&p, count - 1) < limbs && hemi_ckks_digit_first(&p, count) >= limbs);
            assert_int_equal(hemi_ckks_digit_first(&p, 0), 0);
            for (uint32_t d = 1; d <= count; d++)
                assert_int_equal(hemi_ckks_digit_first(&p, d) - hemi_ckks_digit_first(&p, d - 1), d == 1 ? 1 : width);
        }
    }
}

/* Slot i of a(X^t) is slot i + r of a; and the conjugation. */
static void rotations(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const uint32_t log2_n[] = {2, 3, 4, 6, 10};
    for (size_t c = 0; c < TEST_COUNT(log2_n); c++) {
        ckks_party p = {.own = test_ckks_params(log2_n[c], 2)};
        ASSERT_OK(hemi_ckks_context_new(&p.ctx, &p.own, test_table(), ERR));
        const uint32_t n = p.ctx->n, slots = p.ctx->slots;
        const hemi_limb *l = hemi_ckks_limb(p.ctx, 0);
        double *re = hemi_alloc(6 * n, sizeof *re), *im = re + n, *turned_re = im + n, *turned_im = turned_re + n, *work = turned_im + n;
        int64_t *a = hemi_alloc(n, sizeof *a);
        uint64_t *r = hemi_alloc(2 * n, sizeof *r);
        for (uint32_t i = 0; i < n; i++) a[i] = (int64_t)test_below(&rng, 2000001) - 1000000;
        hemi_ckks_unembed(re, im, p.ctx->encoder, 1, a, work);
        const int64_t by[] = {0, 1, -1, 2, slots - 1, slots, -(int64_t)slots - 1, 3, INT64_MAX, INT64_MIN};
        for (size_t k = 0; k <= TEST_COUNT(by); k++) {
            const bool conjugation = k == TEST_COUNT(by);
            const uint32_t t = conjugation ? hemi_ckks_conjugation(n) : hemi_ckks_rotation(p.ctx, by[k]);
            const uint64_t turn = conjugation ? 0 : (uint64_t)by[k];
            assert_true(t % 2 == 1 && t < 2 * n && (conjugation || t % 4 == 1));
            for (uint32_t i = 0; i < n; i++) r[n + i] = hemi_mod_from_signed(a[i], &l->m);
            hemi_ring_automorphism(r, r + n, t, l);
            int64_t *turned = (int64_t *)(r + n);
            for (uint32_t i = 0; i < n; i++) turned[i] = hemi_mod_centre(r[i], &l->m);
            hemi_ckks_unembed(turned_re, turned_im, p.ctx->encoder, 1, turned, work);
            for (uint32_t i = 0; i < slots; i++) {
                const uint32_t from = (uint32_t)((i + turn) % slots);
                assert_true(fabs(turned_re[i] - re[from]) < 1e-3);
                assert_true(fabs(turned_im[i] - (conjugation ? -im[from] : im[from])) < 1e-3);
            }
        }
        hemi_free(re);
        hemi_free(a);
        hemi_free(r);
        hemi_ckks_context_free(p.ctx);
    }
}

/* ---- evaluation keys in memory */

static void keys_as_they_were_set(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const uint32_t t[] = {1, 3, 5, 31};
    for (uint32_t limbs = 1; limbs <= TEST_CKKS_CHAIN; limbs += 3) {
        ckks_party p = {.own = test_ckks_params(4, 2)};
        hemi_ckks_keys *keys;
        ASSERT_OK(hemi_ckks_context_new(&p.ctx, &p.own, test_table(), ERR));
        const size_t n = p.ctx->n;
        ASSERT_OK(hemi_ckks_keys_new(&keys, p.ctx, limbs, t, TEST_COUNT(t), ERR));
        assert_true(keys->count == 4 && keys->limbs == limbs && keys->bytes > 0);
        assert_true(keys->bytes <= hemi_ckks_keys_memory(&p.own, limbs, 4) && keys->bytes > hemi_ckks_keys_memory(&p.own, limbs, 3));
        uint8_t seed[HEMI_SEED_BYTES] = {7};
        uint64_t b[16], kept[16], expected[16], found[16], one[16], x[16];
        for (size_t i = 0; i < n; i++) one[i] = 1;
        for (size_t i = 0; i <= TEST_COUNT(t); i++)
            for (uint32_t digit = 0; digit < (i ? hemi_ckks_digits(&p.own, limbs) : 1); digit++)
                for (uint32_t j = 0; j < (i ? limbs + 2 : 1); j++) {
                    const uint32_t ring_limb = hemi_ckks_ring_limb(p.ctx, limbs, j), number = i ? t[i - 1] : 0;
                    const hemi_modulus *m = &hemi_ckks_limb(p.ctx, ring_limb)->m;
                    assert_true(ring_limb == (j < limbs ? j : TEST_CKKS_CHAIN + j - limbs));
                    test_residues(b, n, m->p, &rng);
                    memcpy(kept, b, sizeof b);
                    hemi_ckks_keys_set(keys, i, digit, j, seed, b);
                    hemi_sample_uniform_vartime(expected, n, m->p, seed, 0x10000000 + number, digit * 64 + ring_limb); /* the page's rule */
                    if (i == 0) {
                        assert_memory_equal(keys->public_b, kept, sizeof kept);
                        assert_memory_equal(keys->public_a, expected, sizeof expected);
                        continue;
                    }
                    const hemi_ckks_key *key = hemi_ckks_keys_find(keys, t[i - 1]);
                    assert_ptr_equal(key, &keys->key[i - 1]);
                    const size_t at = hemi_ckks_key_at(keys, digit, j);
                    p.ctx->k->gadget_product(found, x, one, n, NULL, key->b + at, key->a + at, 6 * n, 1, n, m);
                    assert_memory_equal(found, kept, sizeof kept);
                    assert_memory_equal(x, expected, sizeof expected);
                }
        uint32_t index[16];
        assert_null(keys->key[0].index);
        for (size_t i = 1; i < TEST_COUNT(t); i++) {
            hemi_ring_automorphism_index(index, 4, t[i]);
            assert_memory_equal(keys->key[i].index, index, sizeof index);
        }
        const uint32_t none[] = {0, 2, 4, 7, 29, 32, 33, UINT32_MAX};
        for (size_t i = 0; i < TEST_COUNT(none); i++) assert_null(hemi_ckks_keys_find(keys, none[i]));
        hemi_ckks_keys_free(keys);
        hemi_ckks_context_free(p.ctx);
    }
}

static void keys_that_cannot_be(void **state) {
    (void)state;
    ckks_party p = {.own = test_ckks_params(4, 2)};
    ASSERT_OK(hemi_ckks_context_new(&p.ctx, &p.own, test_table(), ERR));
    const uint32_t wrong[][2] = {{0, 3}, {2, 3}, {3, 3}, {5, 3}, {3, 32}, {3, 33}, {1, 1}, {3, 1}, {3, 6}};
    hemi_ckks_keys *keys = (hemi_ckks_keys *)&test_err;
    for (size_t i = 0; i < TEST_COUNT(wrong); i++) {
        assert_status(hemi_ckks_keys_new(&keys, p.ctx, 3, wrong[i], 2, ERR), HEMI_ERR_KEY);
        assert_null(keys);
    }
    const uint32_t good[] = {1, 31};
    ckks_party tiny = {.own = test_ckks_params(2, 2)};
    ASSERT_OK(hemi_ckks_context_new(&tiny.ctx, &tiny.own, test_table(), ERR));
    assert_status(hemi_ckks_keys_new(&keys, tiny.ctx, 3, NULL, 0, ERR), HEMI_ERR_PARAMS);
    hemi_ckks_context_free(tiny.ctx);
    assert_status(hemi_ckks_keys_new(&keys, p.ctx, 0, good, 2, ERR), HEMI_ERR_ARGUMENT);
    assert_status(hemi_ckks_keys_new(&keys, p.ctx, TEST_CKKS_CHAIN + 1, good, 2, ERR), HEMI_ERR_ARGUMENT);
    ASSERT_OK(hemi_ckks_keys_new(&keys, p.ctx, 3, NULL, 0, ERR));
    assert_null(hemi_ckks_keys_find(keys, 1));
    hemi_ckks_keys_free(keys);
    hemi_ckks_keys_free(NULL);
    for (uint32_t t = 0; t < 40; t++) assert_int_equal(hemi_ckks_key_is_known(&p.own, t), t == 0 || (t % 2 == 1 && t < 32));
    assert_false(hemi_ckks_key_is_known(hemi_params_by_name("L4096"), 3));
    hemi_ckks_context_free(p.ctx);
}

/* ---- sets in the wrong place */

static void linear_maps_refuse_levelled_sets(void **state) {
    (void)state;
    hemi_keys *keys;
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    for (size_t i = test_linear_sets(); i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        hemi_context *ctx = (hemi_context *)&test_err;
        const hemi_context *shared;
        hemi_linear_layout l;
        uint8_t *bytes;
        size_t length;
        assert_status(hemi_context_new(&ctx, p, test_table(), ERR), HEMI_ERR_PARAMS);
        assert_null(ctx);
        assert_non_null(strstr(test_err.message, p->name));
        assert_status(hemi_context_shared(&shared, p, ERR), HEMI_ERR_PARAMS);
        assert_status(test_layout(&l, p, 8, 8, 0, ERR), HEMI_ERR_PARAMS);
        for (int again = 0; again < 2; again++) /* nothing is left behind */
            assert_status(hemi_keys_public(keys, p, &bytes, &length, ERR), HEMI_ERR_PARAMS);
    }
    hemi_keys_free(keys);
}

static void contexts_that_cannot_be(void **state) {
    (void)state;
    hemi_ckks_context *ctx = (hemi_ckks_context *)&test_err;
    for (size_t i = 0; i < test_linear_sets(); i++) {
        const hemi_ckks_context *shared;
        assert_status(hemi_ckks_context_new(&ctx, hemi_params_at(i), test_table(), ERR), HEMI_ERR_PARAMS);
        assert_null(ctx);
        assert_status(hemi_ckks_context_shared(&shared, hemi_params_at(i), ERR), HEMI_ERR_PARAMS);
    }
    static const uint64_t twice[] = {0xfffffffa0001, 0x3fffe80001, 0x3fffe80001, 0xffffe80001};
    hemi_params p[7];
    for (size_t i = 0; i < 7; i++) p[i] = test_ckks_params(4, 2);
    p[0].specials = 0, p[1].specials = HEMI_CKKS_DIGIT_MAX + 1, p[2].digit_limbs = 0, p[3].digit_limbs = HEMI_CKKS_DIGIT_MAX + 1;
    p[4].chain = HEMI_PARAMS_PRIMES_MAX + 1, p[5].chain = HEMI_PARAMS_PRIMES_MAX - 1;
    p[6].chain = 3, p[6].specials = 1, p[6].prime = twice;
    for (size_t i = 0; i < 7; i++) assert_status(hemi_ckks_context_new(&ctx, &p[i], test_table(), ERR), HEMI_ERR_PARAMS);
    hemi_params composite = test_ckks_params(17, 2); /* no such degree */
    assert_status(hemi_ckks_context_new(&ctx, &composite, test_table(), ERR), HEMI_ERR_ARGUMENT);
    hemi_ckks_context_free(NULL);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(constants),
        cmocka_unit_test(digits),
        cmocka_unit_test(rotations),
        cmocka_unit_test(keys_as_they_were_set),
        cmocka_unit_test(keys_that_cannot_be),
        cmocka_unit_test(linear_maps_refuse_levelled_sets),
        cmocka_unit_test(contexts_that_cannot_be),
    };
    return TEST_RUN_PER_TABLE("levelled sets", tests);
}
