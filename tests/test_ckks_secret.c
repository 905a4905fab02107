/* The client's side of levelled sets: key files, evaluation keys checked under the secret key, encryption and decryption; nothing is used
 * twice. */
#include <sodium.h>

#include "ckks.h"

#define KEY_HEADER 32
#define KEY_HASH   32

/* ---- secret keys and their files */

static void secrets_are_ternary(void **state) {
    (void)state;
    ckks_party p;
    size_t count[3] = {0};
    double third[3];
    ckks_open(&p, hemi_params_by_name("C8192"), test_table());
    for (uint32_t i = 0; i < p.ctx->n; i++) {
        assert_in_range(p.sk->s[i] + 1, 0, 2);
        count[p.sk->s[i] + 1]++;
    }
    for (size_t i = 0; i < 3; i++) third[i] = (double)p.ctx->n / 3;
    assert_true(test_chi_square(count, third, 3) < test_chi_square_limit(2));
    int8_t *s = hemi_alloc(p.ctx->n, 1);
    for (int v = -128; v <= 127; v++) {
        hemi_ckks_secret *key = (hemi_ckks_secret *)&test_err;
        s[4711] = (int8_t)v;
        const hemi_status status = hemi_ckks_secret_from(&key, p.ctx, s, ERR);
        assert_status(status, v >= -1 && v <= 1 ? HEMI_OK : HEMI_ERR_FORMAT);
        if (status == HEMI_OK)
            assert_memory_equal(key->s, s, p.ctx->n);
        else
            assert_null(key);
        hemi_ckks_secret_free(key);
    }
    hemi_ckks_secret_free(NULL);
    hemi_free(s);
    ckks_close(&p);
}

static void refused(const hemi_ckks_context *ctx, const uint8_t *file, size_t bytes, hemi_status wanted) {
    hemi_ckks_secret *key = (hemi_ckks_secret *)&test_err;
    assert_status(hemi_ckks_secret_import(&key, ctx, file, bytes, ERR), wanted);
    assert_null(key);
}

static void sign_file(uint8_t *file, size_t bytes) {
    assert_int_equal(crypto_generichash(file + bytes - KEY_HASH, KEY_HASH, file, bytes - KEY_HASH, NULL, 0), 0);
}

static void key_files(void **state) {
    (void)state;
    ckks_party p;
    ckks_open(&p, hemi_params_by_name("C8192"), test_table());
    const size_t n = p.ctx->n, bytes = hemi_ckks_secret_file_bytes(p.ctx->params);
    assert_int_equal(bytes, KEY_HEADER + n / 4 + KEY_HASH);
    uint8_t *file = hemi_alloc(bytes + 1, 1), *bad = hemi_alloc(bytes + 1, 1);
    hemi_ckks_secret_export(file, p.sk);
    const uint8_t header[KEY_HEADER] = {'H', 'E', 'M', 'I', 2, 0, 4, 0, 16};
    assert_memory_equal(file, header, sizeof header);
    for (size_t i = 0; i < n; i++) assert_int_equal((file[KEY_HEADER + i / 4] >> (2 * (i % 4)) & 3) - 1, p.sk->s[i]);
    hemi_ckks_secret *key;
    ASSERT_OK(hemi_ckks_secret_import(&key, p.ctx, file, bytes, ERR));
    assert_memory_equal(key->s, p.sk->s, n);
    assert_memory_equal(key->s_ntt, p.sk->s_ntt, hemi_ckks_total(p.ctx) * n * sizeof *key->s_ntt);
    hemi_ckks_secret_free(key);
    for (size_t i = 0; i < bytes; i += test_quick() && i > KEY_HEADER ? 7 : 1) { /* damage */
        memcpy(bad, file, bytes);
        bad[i] ^= (uint8_t)(1u << i % 8);
        refused(p.ctx, bad, bytes, i == 4 || i == 5 ? HEMI_ERR_VERSION : HEMI_ERR_FORMAT);
        if (i >= KEY_HEADER) continue;
        sign_file(bad, bytes);
        refused(p.ctx, bad, bytes, i == 4 || i == 5 ? HEMI_ERR_VERSION : HEMI_ERR_FORMAT);
    }
    for (size_t i = 0; i <= bytes + 1; i += i < 2 * KEY_HEADER || i > bytes - KEY_HASH - 2 ? 1 : 37)
        if (i != bytes) refused(p.ctx, file, i, HEMI_ERR_FORMAT);
    memcpy(bad, file, bytes); /* the fourth value that two bits have */
    bad[KEY_HEADER + n / 8] |= 3;
    sign_file(bad, bytes);
    refused(p.ctx, bad, bytes, HEMI_ERR_FORMAT);
    hemi_free(file);
    hemi_free(bad);
    ckks_close(&p);
}

/* Of two sets of the same degree, and of the same key format. */
static void key_files_of_another_set(void **state) {
    (void)state;
    ckks_party a, b;
    ckks_open(&a, hemi_params_by_name("C16384"), test_table());
    ckks_open(&b, hemi_params_by_name("C16384D"), test_table());
    const size_t bytes = hemi_ckks_secret_file_bytes(a.ctx->params);
    uint8_t *file = hemi_alloc(bytes, 1);
    hemi_ckks_secret_export(file, a.sk);
    refused(b.ctx, file, bytes, HEMI_ERR_FORMAT);
    hemi_ckks_secret_export(file, b.sk);
    refused(a.ctx, file, bytes, HEMI_ERR_FORMAT);
    hemi_free(file);
    ckks_close(&a);
    ckks_close(&b);
}

/* ---- evaluation keys, under the secret */

/* r += a b modulo X^n + 1, schoolbook; b small. */
static void add_product(int64_t *r, const uint64_t *a, const int64_t *b, size_t n, uint64_t p) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            const __int128 v = (__int128)a[i] * b[j] % (int64_t)p;
            r[(i + j) % n] = (int64_t)((r[(i + j) % n] + (i + j < n ? v : -v)) % (int64_t)p);
        }
}

static int64_t centred(int64_t v, uint64_t p) {
    const int64_t r = v % (int64_t)p;
    return r > (int64_t)(p / 2) ? r - (int64_t)p : r < -(int64_t)(p / 2) ? r + (int64_t)p : r;
}

/* The integers of s': s^2, or s(X^t). */
static void target_of(int64_t *r, const int8_t *s, uint32_t t, size_t n) {
    memset(r, 0, n * sizeof *r);
    for (size_t i = 0; i < n; i++) {
        if (t != HEMI_CKKS_KEY_PRODUCT) {
            const size_t e = i * t % (2 * n);
            r[e % n] = e >= n ? -s[i] : s[i];
            continue;
        }
        for (size_t j = 0; j < n; j++) r[(i + j) % n] += i + j < n ? s[i] * s[j] : -s[i] * s[j];
    }
}

/* Every part of a key of a small ring, by schoolbook: b + a s - [j in digit] P s' is small, and the same integers over all primes. */
static void check_key(const ckks_party *p, uint32_t limbs, uint32_t t, const uint8_t *entry) {
    const hemi_params *row = p->ctx->params;
    const size_t n = p->ctx->n;
    const uint32_t digits = t == 0 ? 1 : hemi_ckks_digits(row, limbs), each = t == 0 ? 1 : limbs + row->specials;
    int64_t e[64], first[64], s[64], s2[64];
    uint64_t a[64], b[64];
    assert_true(hemi_load32(entry) == t && hemi_load32(entry + 4) == 0);
    const uint8_t *at = entry + HEMI_KEY_ENTRY_HEADER_BYTES;
    for (size_t i = 0; i < n; i++) s[i] = p->sk->s[i];
    target_of(s2, p->sk->s, t, n);
    for (uint32_t d = 0; d < digits; d++)
        for (uint32_t j = 0; j < each; j++) {
            const uint32_t ring_limb = j < limbs ? j : row->chain + j - limbs;
            const hemi_limb *l = hemi_ckks_limb(p->ctx, ring_limb);
            const uint64_t q = l->m.p, special = (uint64_t)((unsigned __int128)(row->prime[row->chain] % q) * (row->prime[row->chain + 1] % q) % q);
            const bool in_digit = t != 0 && j < limbs && (d == 0 ? j == 0 : j > 0 && (j - 1) / row->digit_limbs == d - 1);
            hemi_unpack(b, at, n, l->m.bits);
            at += hemi_packed_bytes(n, l->m.bits);
            hemi_sample_uniform_vartime(a, n, q, entry + 8, 0x10000000 + t, d * 64 + ring_limb); /* the rule of docs/wire-format.md */
            p->ctx->k->intt(a, a, l);
            p->ctx->k->intt(b, b, l);
            for (size_t i = 0; i < n; i++) e[i] = (int64_t)b[i];
            add_product(e, a, s, n, q);
            for (size_t i = 0; i < n; i++) {
                const int64_t gadget = in_digit ? (int64_t)((__int128)special * s2[i] % (int64_t)q) : 0;
                e[i] = centred(centred(e[i], q) - centred(gadget, q), q);
                assert_true(e[i] >= -HEMI_ERROR_ETA && e[i] <= HEMI_ERROR_ETA);
            }
            if (j == 0) {
                if (d > 0 && n >= 32) assert_memory_not_equal(e, first, n * sizeof *e); /* each digit has its own */
                memcpy(first, e, sizeof first);
            }
            assert_memory_equal(e, first, n * sizeof *e);
        }
    assert_int_equal(at - entry, hemi_ckks_key_entry_bytes(row, limbs, t));
}

static void keys_hold_what_they_should(void **state) {
    (void)state;
    for (uint32_t log2_n = 2; log2_n <= 6; log2_n += 2)
        for (uint32_t width = 1; width <= HEMI_CKKS_DIGIT_MAX; width++) {
            ckks_party p = {.own = test_ckks_params(log2_n, width)};
            ckks_open(&p, NULL, test_table());
            const uint32_t n = p.ctx->n, t[] = {0, 1, 3, 5, hemi_ckks_rotation(p.ctx, -1), 2 * n - 1};
            uint8_t *entry = hemi_alloc(hemi_ckks_key_entry_bytes(&p.own, TEST_CKKS_CHAIN, 1), 1);
            for (uint32_t limbs = 1; limbs <= TEST_CKKS_CHAIN; limbs += test_quick() ? 3 : 1)
                for (size_t i = 0; i < TEST_COUNT(t); i++) {
                    ASSERT_OK(hemi_ckks_secret_make_key(p.sk, limbs, t[i], entry, ERR));
                    check_key(&p, limbs, t[i], entry);
                }
            const uint32_t none[] = {2, 4, n, 2 * n, 2 * n + 1, UINT32_MAX};
            for (size_t i = 0; i < TEST_COUNT(none); i++) assert_status(hemi_ckks_secret_make_key(p.sk, 3, none[i], entry, ERR), HEMI_ERR_KEY);
            assert_status(hemi_ckks_secret_make_key(p.sk, 0, 3, entry, ERR), HEMI_ERR_ARGUMENT);
            assert_status(hemi_ckks_secret_make_key(p.sk, TEST_CKKS_CHAIN + 1, 3, entry, ERR), HEMI_ERR_ARGUMENT);
            hemi_free(entry);
            ckks_close(&p);
        }
}

/* The phase of (b, a) over one limb, b in NTT form or coefficients, with the library's own products; coefficients, centred. */
static void phase_of(int64_t *r, const ckks_party *p, uint32_t ring_limb, uint64_t *b, bool b_ntt, uint64_t *a) {
    const hemi_limb *l = hemi_ckks_limb(p->ctx, ring_limb);
    const size_t n = p->ctx->n;
    p->ctx->k->mul_fixed(a, a, p->sk->s_ntt + ring_limb * n, n, &l->m);
    if (b_ntt) p->ctx->k->intt(b, b, l);
    p->ctx->k->intt(a, a, l);
    for (size_t i = 0; i < n; i++) r[i] = hemi_mod_centre(hemi_mod_add(b[i], a[i], &l->m), &l->m);
}

/* Real sets: what a key holds over the special primes is its errors alone; they have the variance they should. */
static void errors_of_keys(void **state) {
    (void)state;
    static const char *const sets[] = {"C8192", "C16384"};
    for (size_t k = 0; k < TEST_COUNT(sets); k++) {
        ckks_party p;
        moments m = {0};
        ckks_open(&p, hemi_params_by_name(sets[k]), test_table());
        const hemi_params *row = p.ctx->params;
        const size_t n = p.ctx->n, bytes = hemi_ckks_key_entry_bytes(row, row->chain, 1);
        uint8_t *entry = hemi_alloc(bytes, 1);
        uint64_t *b = hemi_alloc(2 * n, sizeof *b), *a = b + n;
        int64_t *e = hemi_alloc(2 * n, sizeof *e), *first = e + n;
        const uint32_t t[] = {1, 5};
        for (size_t i = 0; i < TEST_COUNT(t); i++) {
            ASSERT_OK(hemi_ckks_secret_make_key(p.sk, row->chain, t[i], entry, ERR));
            const uint8_t *at = entry + HEMI_KEY_ENTRY_HEADER_BYTES;
            for (uint32_t d = 0; d < hemi_ckks_digits(row, row->chain); d++)
                for (uint32_t j = 0; j < hemi_ckks_total(p.ctx); j++) {
                    const hemi_modulus *q = &hemi_ckks_limb(p.ctx, j)->m;
                    hemi_unpack(b, at, n, q->bits);
                    at += hemi_packed_bytes(n, q->bits);
                    if (j < row->chain) continue;
                    hemi_ckks_key_expand_a(a, p.ctx, t[i], d, j, entry + 8);
                    phase_of(e, &p, j, b, true, a);
                    if (j > row->chain) assert_memory_equal(e, first, n * sizeof *e);
                    memcpy(first, e, n * sizeof *e);
                    if (j > row->chain) continue;
                    for (size_t c = 0; c < n; c++) moments_add(&m, (double)e[c]);
                }
            assert_int_equal(at - entry, bytes);
        }
        (void)moments_check(&m, HEMI_ERROR_VARIANCE, 0, "errors of key-switching keys");
        assert_true(m.largest <= HEMI_ERROR_ETA);
        hemi_free(entry);
        hemi_free(b);
        hemi_free(e);
        ckks_close(&p);
    }
}

/* ---- encryption */

/* The errors of a fresh ciphertext of message m, which must be the same integers modulo every prime. */
static void errors_of_ciphertext(int64_t *e, const ckks_party *p, uint32_t limbs, const uint8_t *bytes, const int64_t *m) {
    const size_t n = p->ctx->n;
    uint64_t *c0 = hemi_alloc(2 * n, sizeof *c0), *a = c0 + n;
    int64_t *again = hemi_alloc(n, sizeof *again);
    const uint8_t *at = bytes + HEMI_SEED_BYTES;
    for (uint32_t i = 0; i < limbs; i++) {
        const hemi_modulus *q = &hemi_ckks_limb(p->ctx, i)->m;
        hemi_unpack(c0, at, n, q->bits);
        for (size_t j = 0; j < n; j++) assert_true(c0[j] < q->p);
        at += hemi_packed_bytes(n, q->bits);
        hemi_sample_uniform_vartime(a, n, q->p, bytes, 1, i); /* the rule of docs/wire-format.md */
        phase_of(again, p, i, c0, false, a);
        for (size_t j = 0; j < n; j++) again[j] = centred(again[j] - m[j] % (int64_t)q->p, q->p);
        if (i > 0) assert_memory_equal(again, e, n * sizeof *e);
        memcpy(e, again, n * sizeof *e);
    }
    assert_int_equal(at - bytes, hemi_ckks_ciphertext_bytes(p->ctx->params, limbs));
    hemi_free(c0);
    hemi_free(again);
}

/* There and back at every number of limbs; errors and their variance; two encryptions of the same have nothing in common. */
static void round_trip(void **state) {
    (void)state;
    static const char *const sets[] = {"C8192", "C16384D"};
    test_rng rng = test_rng_new();
    for (size_t k = 0; k < TEST_COUNT(sets); k++) {
        ckks_party p;
        moments m = {0}, sums = {0};
        ckks_open(&p, hemi_params_by_name(sets[k]), test_table());
        const hemi_params *row = p.ctx->params;
        const size_t n = p.ctx->n;
        const double scale = ldexp(1, (int)row->scale_bits);
        uint8_t *bytes[2] = {hemi_alloc(hemi_ckks_ciphertext_bytes(row, row->chain), 1), hemi_alloc(hemi_ckks_ciphertext_bytes(row, row->chain), 1)};
        double *x = hemi_alloc(3 * n, sizeof *x), *back = x + n, *work = x + 2 * n;
        int64_t *message = hemi_alloc(4 * n, sizeof *message), *e[2] = {message + n, message + 2 * n}, *phase = message + 3 * n;
        uint64_t *c0 = hemi_alloc(2 * n, sizeof *c0), *c1 = c0 + n;
        for (size_t i = 0; i < n / 2; i++) x[i] = 8 * test_real(&rng);
        assert_true(hemi_ckks_embed(message, p.ctx->encoder, scale, x, NULL, work));
        for (uint32_t limbs = row->chain; limbs > 0; limbs -= test_quick() && limbs > 1 ? limbs - 1 : 1) {
            for (int i = 0; i < 2; i++) {
                ASSERT_OK(hemi_ckks_secret_encrypt(p.sk, x, scale, limbs, bytes[i], ERR));
                errors_of_ciphertext(e[i], &p, limbs, bytes[i], message);
            }
            size_t same = 0;
            for (size_t i = 0; i < n; i++) {
                moments_add(&m, (double)e[0][i]);
                moments_add(&sums, (double)(e[0][i] + e[1][i]));
                same += e[0][i] == e[1][i];
            }
            assert_memory_not_equal(bytes[0], bytes[1], HEMI_SEED_BYTES);
            assert_true(same < n / 4); /* about one in eleven */
            const hemi_limb *l = hemi_ckks_limb(p.ctx, 0);
            hemi_unpack(c0, bytes[0] + HEMI_SEED_BYTES, n, l->m.bits);
            hemi_sample_uniform_vartime(c1, n, l->m.p, bytes[0], HEMI_DOMAIN_CIPHERTEXT, 0);
            p.ctx->k->intt(c1, c1, l);
            ASSERT_OK(hemi_ckks_secret_decrypt(p.sk, c0, c1, phase, ERR));
            for (size_t i = 0; i < n; i++) assert_int_equal(phase[i], message[i] + e[0][i]);
            hemi_ckks_unembed(back, NULL, p.ctx->encoder, scale, phase, work);
            for (size_t i = 0; i < n / 2; i++) assert_true(fabs(back[i] - x[i]) < 8 * sqrt((double)n * HEMI_ERROR_VARIANCE) / scale);
        }
        (void)moments_check(&m, HEMI_ERROR_VARIANCE, 0, "errors of fresh ciphertexts");
        (void)moments_check(&sums, 2 * HEMI_ERROR_VARIANCE, 0, "sums of two");
        assert_true(m.largest <= HEMI_ERROR_ETA);
        hemi_free(bytes[0]);
        hemi_free(bytes[1]);
        hemi_free(x);
        hemi_free(message);
        hemi_free(c0);
        ckks_close(&p);
    }
}

static void what_cannot_be_encrypted(void **state) {
    (void)state;
    ckks_party p = {.own = test_ckks_params(5, 2)};
    ckks_open(&p, NULL, test_table());
    const uint32_t slots = p.ctx->slots;
    const double scale = 0x1p38, q = (double)test_ckks_primes[0];
    uint8_t *bytes = hemi_alloc(hemi_ckks_ciphertext_bytes(&p.own, TEST_CKKS_CHAIN), 1);
    double x[16];
    const double wrong[] = {NAN, INFINITY, -INFINITY, 0x1p63, -0x1p63, 0x1p40, 1e300};
    for (size_t i = 0; i < TEST_COUNT(wrong); i++)
        for (uint32_t at = 0; at < slots; at += 5) {
            for (uint32_t j = 0; j < slots; j++) x[j] = j == at ? wrong[i] : 1;
            assert_status(hemi_ckks_secret_encrypt(p.sk, x, scale, 3, bytes, ERR), HEMI_ERR_ARGUMENT);
        }
    /* all slots alike: the constant polynomial. Over one prime it must not wrap; over two there is room */
    const double edge[] = {q / 2 - 100, q / 2 + 100, -q / 2 + 100, -q / 2 - 100};
    for (size_t i = 0; i < TEST_COUNT(edge); i++) {
        for (uint32_t j = 0; j < slots; j++) x[j] = edge[i] / scale;
        assert_status(hemi_ckks_secret_encrypt(p.sk, x, scale, 1, bytes, ERR), i % 2 ? HEMI_ERR_ARGUMENT : HEMI_OK);
        ASSERT_OK(hemi_ckks_secret_encrypt(p.sk, x, scale, 2, bytes, ERR));
    }
    const double scales[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < TEST_COUNT(scales); i++)
        assert_status(hemi_ckks_secret_encrypt(p.sk, x, scales[i], 3, bytes, ERR), HEMI_ERR_ARGUMENT);
    assert_status(hemi_ckks_secret_encrypt(p.sk, x, scale, 0, bytes, ERR), HEMI_ERR_ARGUMENT);
    assert_status(hemi_ckks_secret_encrypt(p.sk, x, scale, TEST_CKKS_CHAIN + 1, bytes, ERR), HEMI_ERR_ARGUMENT);
    hemi_free(bytes);
    ckks_close(&p);
}

static int compare_seeds(const void *a, const void *b) { return memcmp(a, b, HEMI_SEED_BYTES); }

/* One message encrypted again and again, keys made again and again: every seed is new. */
static void nothing_is_used_twice(void **state) {
    (void)state;
    ckks_party p = {.own = test_ckks_params(4, 2)};
    ckks_open(&p, NULL, test_table());
    const size_t rounds = test_repeat(300), each = 4;
    uint8_t *seeds = hemi_alloc(each * rounds, HEMI_SEED_BYTES);
    uint8_t *bytes = hemi_alloc(hemi_ckks_key_entry_bytes(&p.own, TEST_CKKS_CHAIN, 1), 1);
    const double x[8] = {1, 2, 3};
    for (size_t i = 0; i < rounds; i++) {
        uint8_t *at = seeds + each * i * HEMI_SEED_BYTES;
        ASSERT_OK(hemi_ckks_secret_encrypt(p.sk, x, 0x1p38, 3, bytes, ERR));
        memcpy(at, bytes, HEMI_SEED_BYTES);
        for (uint32_t k = 1; k < each; k++) {
            ASSERT_OK(hemi_ckks_secret_make_key(p.sk, 3, k == 1 ? 0 : k == 2 ? 1 : 5, bytes, ERR));
            memcpy(at + k * HEMI_SEED_BYTES, bytes + 8, HEMI_SEED_BYTES);
        }
    }
    qsort(seeds, each * rounds, HEMI_SEED_BYTES, compare_seeds);
    for (size_t i = 1; i < each * rounds; i++)
        assert_true(compare_seeds(seeds + (i - 1) * HEMI_SEED_BYTES, seeds + i * HEMI_SEED_BYTES) < 0);
    hemi_free(seeds);
    hemi_free(bytes);
    ckks_close(&p);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_ternary),
        cmocka_unit_test(key_files),
        cmocka_unit_test(key_files_of_another_set),
        cmocka_unit_test(keys_hold_what_they_should),
        cmocka_unit_test(errors_of_keys),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(what_cannot_be_encrypted),
        cmocka_unit_test(nothing_is_used_twice),
    };
    return TEST_RUN_PER_TABLE("levelled secret", tests);
}
