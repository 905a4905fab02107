/* Secret keys: distribution, files, refusals; evaluation keys checked under the secret key; nothing is used twice. */
#include <sodium.h>

#include "crypto.h"
#include "linear/layout.h"
#include "secret/cipher.h"

#define KEY_HEADER 32
#define KEY_HASH   32

/* ---- the secret */

static void secrets_are_uniform_ternary(void **state) {
    (void)state;
    const size_t keys = test_repeat(40) + 4;
    party p = {.ctx = NULL};
    size_t count[3] = {0}, pairs[9] = {0};
    ASSERT_OK(hemi_context_new(&p.ctx, hemi_params_by_name("L4096"), test_table(), ERR));
    int8_t *last = hemi_alloc(p.ctx->n, 1);
    for (size_t k = 0; k < keys; k++) {
        ASSERT_OK(hemi_secret_key_new(&p.sk, p.ctx, ERR));
        size_t same = 0;
        for (uint32_t i = 0; i < p.ctx->n; i++) {
            const int8_t s = p.sk->s[i];
            assert_in_range(s + 1, 0, 2);
            count[s + 1]++;
            if (i % 2) pairs[3 * (p.sk->s[i - 1] + 1) + s + 1]++;
            same += s == last[i];
        }
        assert_true(same < p.ctx->n / 2); /* about a third */
        memcpy(last, p.sk->s, p.ctx->n);
        hemi_secret_key_free(p.sk);
    }
    const double total = (double)(keys * p.ctx->n);
    double third[3], ninth[9];
    for (size_t i = 0; i < 3; i++) third[i] = total / 3;
    for (size_t i = 0; i < 9; i++) ninth[i] = total / 18;
    printf("  %.0f coefficients: %zu, %zu, %zu\n", total, count[0], count[1], count[2]);
    assert_true(test_chi_square(count, third, 3) < test_chi_square_limit(2));
    assert_true(test_chi_square(pairs, ninth, 9) < test_chi_square_limit(8));
    hemi_free(last);
    hemi_context_free(p.ctx);
}

static void secrets_must_be_ternary(void **state) {
    (void)state;
    const hemi_params row = test_params(4, TEST_Q, TEST_P);
    hemi_context *ctx;
    ASSERT_OK(hemi_context_new(&ctx, &row, test_table(), ERR));
    const uint32_t places[] = {0, 1, 7, 15};
    for (int v = -128; v <= 127; v++)
        for (size_t i = 0; i < TEST_COUNT(places); i++) {
            int8_t s[16] = {0, 1, -1, 1, 0};
            hemi_secret_key *key = (hemi_secret_key *)&test_err;
            s[places[i]] = (int8_t)v;
            const hemi_status status = hemi_secret_key_from(&key, ctx, s, ERR);
            assert_status(status, v >= -1 && v <= 1 ? HEMI_OK : HEMI_ERR_FORMAT);
            if (status == HEMI_OK)
                assert_memory_equal(key->s, s, sizeof s);
            else
                assert_null(key);
            hemi_secret_key_free(key);
        }
    hemi_secret_key_free(NULL);
    hemi_context_free(ctx);
}

/* ---- its file */

static void same_key(const hemi_secret_key *a, const hemi_secret_key *b) {
    const size_t n = a->ctx->n;
    assert_memory_equal(a->s, b->s, n);
    assert_memory_equal(a->s_q, b->s_q, n * sizeof *a->s_q);
    assert_true((a->s_p == NULL) == (b->s_p == NULL));
    if (a->s_p) assert_memory_equal(a->s_p, b->s_p, n * sizeof *a->s_p);
    assert_true((a->reply == NULL) == (b->reply == NULL));
    if (a->reply) same_key(a->reply, b->reply);
}

static void refused(const hemi_context *ctx, const uint8_t *file, size_t bytes) {
    hemi_secret_key *key = (hemi_secret_key *)&test_err;
    const bool version = bytes >= 8 && memcmp(file, "HEMI", 4) == 0 && hemi_load16(file + 4) != 2 && hemi_load16(file + 6) == 4;
    assert_status(hemi_secret_key_import(&key, ctx, file, bytes, ERR), version ? HEMI_ERR_VERSION : HEMI_ERR_FORMAT);
    assert_null(key);
}

static void sign_file(uint8_t *file, size_t bytes) {
    assert_int_equal(crypto_generichash(file + bytes - KEY_HASH, KEY_HASH, file, bytes - KEY_HASH, NULL, 0), 0);
}

static void key_files(void **state) {
    (void)state;
    const size_t sets = test_linear_sets();
    for (size_t set = 0; set < sets; set++) {
        party p;
        party_open(&p, hemi_params_at(set), test_table());
        const size_t own = p.ctx->n, n = own + (set == 0 ? own / 2 : 0); /* L4096: s, then s' */
        const size_t bytes = hemi_secret_key_file_bytes(p.ctx->params);
        assert_int_equal(bytes, KEY_HEADER + n / 4 + KEY_HASH);
        uint8_t *file = hemi_alloc(bytes + 1, 1), *bad = hemi_alloc(bytes + 1, 1);
        hemi_secret_key_export(file, p.sk);

        const uint8_t header[KEY_HEADER] = {'H', 'E', 'M', 'I', 2, 0, 4, 0, (uint8_t)p.ctx->params->id};
        assert_memory_equal(file, header, sizeof header);
        for (size_t i = 0; i < n; i++)
            assert_int_equal((file[KEY_HEADER + i / 4] >> (2 * (i % 4)) & 3) - 1,
                             i < own ? p.sk->s[i] : p.sk->reply->s[i - own]);
        memcpy(bad, file, bytes);
        sign_file(bad, bytes);
        assert_memory_equal(bad, file, bytes);

        hemi_secret_key *key;
        ASSERT_OK(hemi_secret_key_import(&key, p.ctx, file, bytes, ERR));
        same_key(key, p.sk);
        hemi_secret_key_free(key);

        for (size_t i = 0; i < bytes; i++) { /* every byte: one bit, and all of them */
            memcpy(bad, file, bytes);
            bad[i] ^= (uint8_t)(1u << i % 8);
            refused(p.ctx, bad, bytes);
            bad[i] = (uint8_t)~file[i];
            refused(p.ctx, bad, bytes);
        }
        memcpy(bad, file, bytes);
        for (size_t i = 0; i < bytes; i += i < 2 * KEY_HEADER ? 1 : 37) refused(p.ctx, bad, i);
        refused(p.ctx, bad, bytes - 1);
        refused(p.ctx, bad, bytes + 1);
        for (size_t i = 0; i < KEY_HEADER; i++) { /* a header that is not this set's, with a hash that is right */
            memcpy(bad, file, bytes);
            bad[i]++;
            sign_file(bad, bytes);
            refused(p.ctx, bad, bytes);
        }
        memcpy(bad, file, bytes); /* the version before there was s': told apart, whatever its length */
        bad[4] = 1;
        for (size_t cut = 0; cut <= own / 8; cut += own / 8) {
            hemi_secret_key *old = (hemi_secret_key *)&test_err;
            sign_file(bad, bytes - cut);
            assert_status(hemi_secret_key_import(&old, p.ctx, bad, bytes - cut, ERR), HEMI_ERR_VERSION);
            assert_null(old);
        }
        for (size_t i = 0; i < n; i += n / 8 - 1) { /* the fourth value that two bits have */
            memcpy(bad, file, bytes);
            bad[KEY_HEADER + i / 4] |= (uint8_t)(3u << (2 * (i % 4)));
            sign_file(bad, bytes);
            refused(p.ctx, bad, bytes);
        }
        hemi_context *other;
        ASSERT_OK(hemi_context_new(&other, hemi_params_at((set + 1) % sets), test_table(), ERR));
        refused(other, file, bytes);
        hemi_context_free(other);
        hemi_free(file);
        hemi_free(bad);
        party_close(&p);
    }
}

/* ---- evaluation keys, under the secret */

/* r = a s, schoolbook: s is ternary. Coefficients; shares nothing with the library but the modulus. */
static void schoolbook(int64_t *r, const uint64_t *a, const int8_t *s, size_t n, uint64_t p) {
    __extension__ typedef __int128 wide;
    wide *sum = calloc(n, sizeof *sum);
    assert_non_null(sum);
    for (size_t j = 0; j < n; j++) {
        if (s[j] == 0) continue;
        for (size_t i = 0; i < n - j; i++) sum[i + j] += s[j] > 0 ? (wide)a[i] : -(wide)a[i];
        for (size_t i = n - j; i < n; i++) sum[i + j - n] -= s[j] > 0 ? (wide)a[i] : -(wide)a[i];
    }
    for (size_t i = 0; i < n; i++) r[i] = (int64_t)(sum[i] % (wide)p); /* in (-p, p) */
    free(sum);
}

/* Coefficient i of s(X^t). */
static void rotate_secret(int8_t *r, const int8_t *s, uint32_t t, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const size_t e = i * t % (2 * n);
        r[e % n] = (int8_t)(e >= n ? -s[i] : s[i]);
    }
}

static int64_t centred(int64_t v, uint64_t p) {
    int64_t r = v % (int64_t)p;
    if (r > (int64_t)(p / 2)) r -= (int64_t)p;
    if (r < -(int64_t)(p / 2)) r += (int64_t)p;
    return r;
}

/* e = b + a s - g, b at `packed`, over one limb. */
static void key_error(int64_t *e, const party *p, const uint8_t *packed, const uint8_t *seed, uint32_t t, size_t limb,
                      const int64_t *g) {
    const hemi_context *ctx = p->ctx;
    const hemi_limb *l = &ctx->ring->limb[limb];
    const size_t n = ctx->n;
    uint64_t *b = hemi_alloc(2 * n, sizeof *b), *a = b + n;
    hemi_unpack(b, packed, n, l->m.bits);
    for (size_t i = 0; i < n; i++) assert_true(b[i] < l->m.p);
    hemi_sample_uniform_vartime(a, n, l->m.p, seed, 0x10000000 + t,
                                (uint32_t)limb); /* the rule of docs/wire-format.md */
    ctx->k->intt(a, a, l);
    ctx->k->intt(b, b, l);
    schoolbook(e, a, p->sk->s, n, l->m.p);
    for (size_t i = 0; i < n; i++) e[i] = centred(centred(e[i] + (int64_t)b[i], l->m.p) - g[i], l->m.p);
    hemi_free(b);
}

static void evaluation_keys_hold_what_they_should(void **state) {
    (void)state;
    party p;
    moments m = {0};
    uint32_t t[HEMI_FAMILY_MAX + 1] = {0};
    party_open(&p, hemi_params_by_name("L4096"), test_table());
    const hemi_params *row = p.ctx->params;
    const size_t n = p.ctx->n, count = test_quick() ? 3 : 1 + test_family(p.ctx, t + 1);
    if (test_quick()) t[1] = 3, t[2] = 2 * p.ctx->n - 1;
    uint8_t *bytes = hemi_alloc(hemi_key_entry_bytes(row, 3), 1);
    int64_t *e = hemi_alloc(3 * n, sizeof *e), *e_p = e + n, *g = e + 2 * n;
    int8_t *rotated = hemi_alloc(n, 1);
    for (size_t k = 0; k < count; k++) {
        ASSERT_OK(hemi_secret_make_key(p.sk, t[k], bytes, ERR));
        assert_int_equal(hemi_load32(bytes), t[k]);
        assert_int_equal(hemi_load32(bytes + 4), 0);
        const uint8_t *seed = bytes + 8, *packed = bytes + HEMI_KEY_ENTRY_HEADER_BYTES;
        rotate_secret(rotated, p.sk->s, t[k], n);
        for (size_t i = 0; i < n; i++)
            g[i] = t[k] == 0 ? 0 : centred((int64_t)(row->special % row->q) * rotated[i], row->q);
        key_error(e, &p, packed, seed, t[k], 0, g);
        if (t[k] != 0) { /* over P the term P s(X^t) is gone, and the error is the same integer */
            memset(g, 0, n * sizeof *g);
            key_error(e_p, &p, packed + hemi_packed_bytes(n, p.ctx->q->m.bits), seed, t[k], 1, g);
            assert_memory_equal(e, e_p, n * sizeof *e);
        }
        for (size_t i = 0; i < n; i++) moments_add(&m, (double)e[i]);
        assert_true(m.largest <= HEMI_ERROR_ETA);
    }
    (void)moments_check(&m, HEMI_ERROR_VARIANCE, 0, "errors of evaluation keys");
    const uint32_t none[] = {2, 4, 6, 7, 4096, 4098, 8190, 8192, 8193, 8195, UINT32_MAX};
    for (size_t i = 0; i < TEST_COUNT(none); i++)
        assert_status(hemi_secret_make_key(p.sk, none[i], bytes, ERR), HEMI_ERR_KEY);
    party small;
    party_open(&small, hemi_params_by_name("L2048"), test_table());
    assert_status(hemi_secret_make_key(small.sk, 3, bytes, ERR), HEMI_ERR_KEY);
    assert_status(hemi_secret_make_key(small.sk, 1, bytes, ERR), HEMI_ERR_KEY);
    ASSERT_OK(hemi_secret_make_key(small.sk, 0, bytes, ERR));
    party_close(&small);
    hemi_free(bytes);
    hemi_free(e);
    hemi_free(rotated);
    party_close(&p);
}

/* ---- encryption */

/* The phase of a fresh ciphertext by schoolbook multiplication: only coefficients asked for are sent, at any of their places. */
static void encryption_by_schoolbook(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const uint32_t log2_n[] = {2, 3, 4, 6, 11};
    for (size_t c = 0; c < TEST_COUNT(log2_n); c++) {
        party p = {.own = test_params(log2_n[c], TEST_Q, TEST_P)};
        party_open(&p, NULL, test_table());
        const size_t n = p.ctx->n;
        const uint64_t q = p.own.q;
        int32_t *x = hemi_alloc(n, sizeof *x);
        uint32_t *positions = hemi_alloc(n, sizeof *positions);
        uint64_t *b = hemi_alloc(2 * n, sizeof *b), *a = b + n;
        int64_t *as = hemi_alloc(n, sizeof *as);
        uint8_t seed[HEMI_SEED_BYTES], *packed = hemi_alloc(n, 8);
        for (int round = 0; round < 12; round++) {
            size_t count = 0;
            for (uint32_t i = 0; i < n; i++)
                if (round < 2 || test_below(&rng, 3) == 0) positions[count++] = i;
            const size_t inputs = round == 0 ? n : round == 1 ? 1 + test_below(&rng, n) : test_below(&rng, count + 1);
            for (size_t i = 0; i < inputs; i++) x[i] = (int32_t)test_below(&rng, 65535) - 32767;
            const uint64_t delta =
                round == 1 ? (q - 1) / 2 / 32767 : 1 + test_below(&rng, q / 2 / 32768); /* up to the edge */
            if (round == 1) x[0] = 32767, x[inputs - 1] = -32767;
            ASSERT_OK(hemi_secret_encrypt(p.sk, x, inputs, delta, positions, count, 48, seed, packed, ERR));
            hemi_unpack(b, packed, count, 48);
            p.ctx->k->switch_up(b, b, n, 48, &p.ctx->q->m);
            hemi_sample_uniform_vartime(a, n, q, seed, HEMI_DOMAIN_CIPHERTEXT, 0);
            p.ctx->k->intt(a, a, p.ctx->q);
            schoolbook(as, a, p.sk->s, n, q);
            for (size_t i = 0; i < count; i++) {
                const uint32_t at = positions[i];
                const int64_t message = i < inputs ? x[i] * (int64_t)delta : 0;
                const int64_t e = centred(centred((int64_t)b[i] + as[at], q) - message, q);
                assert_true(e >= -HEMI_ERROR_ETA && e <= HEMI_ERROR_ETA);
            }
        }
        hemi_free(x);
        hemi_free(positions);
        hemi_free(b);
        hemi_free(as);
        hemi_free(packed);
        party_close(&p);
    }
}

static int compare_seeds(const void *a, const void *b) { return memcmp(a, b, HEMI_SEED_BYTES); }

/* One row encrypted again and again, one key made again and again: every seed is new, and so is every b. */
static void nothing_is_used_twice(void **state) {
    (void)state;
    party p;
    party_open(&p, hemi_params_by_name("L4096"), test_table());
    const size_t n = p.ctx->n, rounds = test_repeat(200), each = 3;
    uint8_t *seeds = hemi_alloc(each * rounds, HEMI_SEED_BYTES), *packed = hemi_alloc(2 * n, 4);
    uint8_t *key = hemi_alloc(hemi_key_entry_bytes(p.ctx->params, 3), 1);
    uint64_t *b = hemi_alloc(2 * n, sizeof *b), *before = b + n;
    uint32_t *positions = hemi_alloc(n, sizeof *positions);
    const int32_t x[3] = {1, -2, 3};
    for (uint32_t i = 0; i < n; i++) positions[i] = i;
    for (size_t i = 0; i < rounds; i++) {
        uint8_t *at = seeds + each * i * HEMI_SEED_BYTES;
        ASSERT_OK(hemi_secret_encrypt(p.sk, x, 3, 1 << 20, positions, n, 32, at, packed, ERR));
        hemi_unpack(b, packed, n, 32);
        size_t same = 0;
        for (size_t j = 0; j < n; j++) same += b[j] == before[j];
        assert_true(same < 3);
        memcpy(before, b, n * sizeof *b);
        ASSERT_OK(hemi_secret_make_key(p.sk, i % 2 ? 3 : 5, key, ERR));
        memcpy(at + HEMI_SEED_BYTES, key + 8, HEMI_SEED_BYTES);
        ASSERT_OK(hemi_secret_make_key(p.sk, 0, key, ERR));
        memcpy(at + 2 * HEMI_SEED_BYTES, key + 8, HEMI_SEED_BYTES);
    }
    qsort(seeds, each * rounds, HEMI_SEED_BYTES, compare_seeds);
    for (size_t i = 1; i < each * rounds; i++)
        assert_true(compare_seeds(seeds + (i - 1) * HEMI_SEED_BYTES, seeds + i * HEMI_SEED_BYTES) < 0);
    hemi_free(seeds);
    hemi_free(packed);
    hemi_free(key);
    hemi_free(b);
    hemi_free(positions);
    party_close(&p);
}

/* Every table reads what any other wrote: keys and ciphertexts carry no trace of the kernels. */
static void tables_agree_on_files_and_ciphertexts(void **state) {
    (void)state;
    party p;
    const hemi_kernels *table;
    party_open(&p, hemi_params_by_name("L4096"), test_table());
    const size_t n = p.ctx->n, bytes = hemi_secret_key_file_bytes(p.ctx->params);
    test_rng rng = test_rng_new();
    uint64_t *a = hemi_alloc(n, sizeof *a), *b = hemi_alloc(n, sizeof *b);
    uint8_t *file = hemi_alloc(bytes, 1), *again = hemi_alloc(bytes, 1), *packed_a = hemi_alloc(n, 8),
            *packed_b = hemi_alloc(n, 8);
    uint32_t positions[100];
    int64_t phase[100], other[100];
    for (uint32_t i = 0; i < 100; i++) positions[i] = 41 * i;
    for (size_t i = 0; i < n; i++) a[i] = test_u64(&rng) >> 39, b[i] = test_u64(&rng) >> 43;
    hemi_pack(packed_a, a, n, 25);
    hemi_pack(packed_b, b, 100, 21);
    hemi_secret_key_export(file, p.sk);
    ASSERT_OK(hemi_secret_decrypt(p.sk, packed_a, 25, packed_b, 21, positions, 100, phase, ERR));
    for (size_t i = 0; (table = hemi_kernels_at(i)) != NULL; i++) {
        hemi_context *ctx;
        hemi_secret_key *key;
        ASSERT_OK(hemi_context_new(&ctx, p.ctx->params, table, ERR));
        ASSERT_OK(hemi_secret_key_import(&key, ctx, file, bytes, ERR));
        hemi_secret_key_export(again, key);
        assert_memory_equal(again, file, bytes);
        ASSERT_OK(hemi_secret_decrypt(key, packed_a, 25, packed_b, 21, positions, 100, other, ERR));
        assert_memory_equal(other, phase, sizeof phase);
        hemi_secret_key_free(key);
        hemi_context_free(ctx);
    }
    hemi_free(a);
    hemi_free(b);
    hemi_free(file);
    hemi_free(again);
    hemi_free(packed_a);
    hemi_free(packed_b);
    party_close(&p);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_uniform_ternary),
        cmocka_unit_test(secrets_must_be_ternary),
        cmocka_unit_test(key_files),
        cmocka_unit_test(evaluation_keys_hold_what_they_should),
        cmocka_unit_test(encryption_by_schoolbook),
        cmocka_unit_test(nothing_is_used_twice),
        cmocka_unit_test(tables_agree_on_files_and_ciphertexts),
    };
    return TEST_RUN_PER_TABLE("secret", tests);
}
