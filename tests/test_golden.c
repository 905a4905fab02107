/* docs/wire-format.md by value: a fixed seed, request and layer give fixed bytes. Everything is computed twice: by the library,
 * and here, slowly, from the words of that page, with nothing of the library but the packing of bits. */
#include <sodium.h>

#include "product.h"
#include "rlwe/keyswitch.h"
#include "rlwe/ringswitch.h"

__extension__ typedef unsigned __int128 u128;

static const uint8_t seed[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

static uint64_t mul(uint64_t a, uint64_t b, uint64_t p) { return (uint64_t)((u128)a * b % p); }

static uint64_t power(uint64_t a, uint64_t e, uint64_t p) {
    uint64_t r = 1;
    for (; e; e /= 2, a = mul(a, a, p))
        if (e % 2) r = mul(r, a, p);
    return r;
}

/* g^((p-1)/2N) for the least g >= 2 for which its N-th power is -1. */
static uint64_t find_psi(uint64_t p, uint64_t n) {
    for (uint64_t g = 2;; g++) {
        const uint64_t psi = power(g, (p - 1) / (2 * n), p);
        if (power(psi, n, p) == p - 1) return psi;
    }
}

/* "Expanding a seed". */
static void expand(uint64_t *r, size_t n, uint64_t p, uint32_t domain, uint32_t index) {
    uint8_t input[16 + 4 + 4 + 32] = "hemi-stream-v1", key[32];
    static const uint8_t nonce[8] = {0};
    const size_t bytes = 16 * n; /* more than enough */
    for (int i = 0; i < 4; i++) {
        input[16 + i] = (uint8_t)(domain >> (8 * i));
        input[20 + i] = (uint8_t)(index >> (8 * i));
    }
    memcpy(input + 24, seed, 32);
    assert_int_equal(crypto_generichash_blake2b(key, 32, input, sizeof input, NULL, 0), 0);
    uint8_t *stream = calloc(bytes, 1);
    assert_non_null(stream);
    assert_int_equal(crypto_stream_chacha20(stream, bytes, nonce, key), 0);
    uint64_t mask = 1;
    while (mask < p) mask = 2 * mask + 1;
    size_t k = 0;
    for (size_t at = 0; k < n; at += 8) {
        uint64_t v = 0;
        assert_true(at < bytes);
        for (size_t i = 8; i-- > 0;) v = v << 8 | stream[at + i];
        if ((v & mask) < p) r[k++] = v & mask;
    }
    free(stream);
}

static void seeds_expand_as_pinned(void **state) {
    (void)state;
    static const struct {
        uint32_t domain, index;
        uint64_t prime, first[3], last;
    } pinned[] = {
        {1, 0, TEST_Q, {0xd6d9087bd485, 0x2098ae937110, 0xaff275d0da55}, 0x32c890ca3889}, /* a of a ciphertext */
        {4, 1, TEST_Q, {0x6389ab11241f, 0x96f04851c857, 0xf65aef89d41e}, 0xdf863d048193}, /* of input 1 of a batch of rows */
        {0x10000000,
         0,
         TEST_Q,
         {0xa68c456f1dcf, 0xd0a540288cee, 0xcd02f77d3d7},
         0x93959111eb03}, /* of the public key */
        {0x10000003,
         0,
         TEST_Q,
         {0x3533606ce528, 0x648b91f89dd3, 0xaddf760b23dd},
         0xc9b2577c02d4}, /* of the key of t = 3, over q */
        {0x10000003, 1, TEST_P, {0x3d7a3824ef847, 0x48dff45c7e27, 0x378273b216f86}, 0x2661283db3392}, /* and over P */
        {0x10000001,
         2,
         TEST_R,
         {0x2e326be7bc77, 0x3882345db786, 0x288160b5dba4},
         0x1c35064e356}, /* sample 2 of the ring-switching key */
    };
    uint64_t *a = malloc(4096 * sizeof *a), *b = malloc(4096 * sizeof *b);
    assert_true(a && b);
    for (size_t i = 0; i < TEST_COUNT(pinned); i++) {
        const size_t n = pinned[i].prime == TEST_R ? 2048 : 4096;
        expand(a, n, pinned[i].prime, pinned[i].domain, pinned[i].index);
        hemi_sample_uniform_vartime(b, n, pinned[i].prime, seed, pinned[i].domain, pinned[i].index);
        assert_memory_equal(a, b, n * sizeof *a);
        assert_memory_equal(a, pinned[i].first, sizeof pinned[i].first);
        assert_true(a[n - 1] == pinned[i].last);
    }
    free(a);
    free(b);
}

static void roots_are_as_pinned(void **state) {
    (void)state;
    static const struct {
        uint64_t prime;
        uint32_t n;
        uint64_t psi;
    } pinned[] = {{TEST_Q, 4096, 0x570cb1f0d088},
                  {TEST_P, 4096, 0x214dbac3f7e66},
                  {TEST_Q, 2048, 0x8b7f50d9bea8},
                  {TEST_R, 2048, 0xcf71a1c9a84}};
    for (size_t i = 0; i < TEST_COUNT(pinned); i++) {
        hemi_modulus m;
        assert_true(hemi_modulus_init(&m, pinned[i].prime));
        assert_true(find_psi(pinned[i].prime, pinned[i].n) == pinned[i].psi);
        assert_true(hemi_mod_root(&m, pinned[i].n) == pinned[i].psi);
    }
}

/* ---- the ring, by definition */

static uint32_t reverse(uint32_t i, uint32_t n) {
    uint32_t r = 0;
    for (uint32_t bit = 1; bit < n; bit *= 2, i /= 2) r = 2 * r + i % 2;
    return r;
}

/* Coefficients of the polynomial whose value at psi^(2 brv(i) + 1) is slot[i]. */
static void coefficients(uint64_t *a, const uint64_t *slot, uint32_t n, uint64_t p) {
    const uint64_t inverse_psi = power(find_psi(p, n), p - 2, p), inverse_n = power(n, p - 2, p);
    uint64_t *powers = malloc(2 * n * sizeof *powers);
    assert_non_null(powers);
    for (uint32_t i = 0; i < 2 * n; i++) powers[i] = i == 0 ? 1 : mul(powers[i - 1], inverse_psi, p);
    for (uint32_t j = 0; j < n; j++) {
        u128 sum = 0; /* 4096 products below 2^100 */
        for (uint32_t i = 0; i < n; i++) sum += (u128)slot[i] * powers[(uint64_t)j * (2 * reverse(i, n) + 1) % (2 * n)];
        a[j] = mul((uint64_t)(sum % p), inverse_n, p);
    }
    free(powers);
}

/* r += c X^e a modulo X^n + 1, for any e and small or large c. */
static void add_product(uint64_t *r, const uint64_t *a, int64_t c, int64_t e, uint32_t n, uint64_t p) {
    const uint64_t factor = (uint64_t)(c < 0 ? -c : c) % p;
    const uint32_t shift = (uint32_t)(((e % (2 * (int64_t)n)) + 2 * n) % (2 * n));
    for (uint32_t i = 0; i < n && factor; i++) {
        const uint32_t at = (i + shift) % (2 * n);
        const uint64_t v = mul(a[i], factor, p);
        uint64_t *to = &r[at % n];
        *to = (c < 0) != (at >= n) ? (*to + p - v) % p : (*to + v) % p;
    }
}

static uint64_t down(uint64_t x, unsigned w, uint64_t q) {
    return (uint64_t)((((u128)x << w) + (q - 1) / 2) / q) & ((UINT64_C(1) << w) - 1);
}
static uint64_t up(uint64_t y, unsigned w, uint64_t q) {
    return (uint64_t)(((u128)y * q + ((u128)1 << (w - 1))) >> w) % q;
}

/* ---- a reply of a small layer */

#define D      10
#define M      10
#define LAYOUT 256
#define B_BITS 32

typedef struct layer {
    hemi_linear_layout l;
    int16_t w[M * D];
    double bias[M];
    uint64_t delta;
    uint8_t request[M * D * 32 * B_BITS];
} layer;

static void make_layer(layer *y) {
    test_rng rng = {2024};
    ASSERT_OK(test_layout(&y->l, hemi_params_by_id(1), D, M, 0, ERR));
    assert_int_equal(y->l.s, LAYOUT);
    for (size_t i = 0; i < M * D; i++) y->w[i] = (int16_t)((int)test_below(&rng, 255) - 127);
    for (size_t i = 0; i < M; i++) y->bias[i] = (double)((int)test_below(&rng, 20001) - 10000) / 8;
    y->delta = 123456789;
    for (size_t i = 0; i < hemi_packed_bytes(D * 4096 / LAYOUT, B_BITS); i++) y->request[i] = (uint8_t)test_u64(&rng);
}

static void direct_replies_as_pinned(void **state) {
    (void)state;
    static layer y;
    const uint32_t n = 4096, blocks = n / LAYOUT;
    const uint64_t q = TEST_Q;
    make_layer(&y);
    uint64_t *slots = calloc(5 * n, sizeof *slots), *a = slots + n, *b = slots + 2 * n, *ra = slots + 3 * n,
             *rb = slots + 4 * n;
    assert_non_null(slots);
    /* the request */
    expand(slots, n, q, 1, 0);
    coefficients(a, slots, n, q);
    hemi_unpack(slots, y.request, D * blocks, B_BITS);
    for (uint32_t u = 0; u < blocks; u++)
        for (uint32_t j = 0; j < D; j++) b[u * LAYOUT + j] = up(slots[u * D + j], B_BITS, q);
    /* times sum_r sum_j W[r][j] X^(S r - j) */
    for (int64_t r = 0; r < M; r++)
        for (int64_t j = 0; j < D; j++) {
            add_product(ra, a, y.w[r * D + j], LAYOUT * r - j, n, q);
            add_product(rb, b, y.w[r * D + j], LAYOUT * r - j, n, q);
        }
    uint64_t wanted[M];
    for (uint32_t r = 0; r < M; r++) {
        const int64_t bias = llrint(y.bias[r] * (double)y.delta);
        wanted[r] = down((rb[LAYOUT * r] + (uint64_t)((bias % (int64_t)q + (int64_t)q)) % q) % q, 21, q);
    }
    for (uint32_t i = 0; i < n; i++) ra[i] = down(ra[i], 25, q);
    uint8_t *reply = calloc(1, n * 25 / 8 + 27), *found = calloc(1, n * 25 / 8 + 27), hash[32];
    assert_true(reply && found);
    hemi_pack(reply, ra, n, 25);
    hemi_pack(reply + n * 25 / 8, wanted, M, 21);

    const hemi_kernels *table;
    for (size_t k = 0; (table = hemi_kernels_at(k)) != NULL; k++) {
        hemi_context *ctx;
        hemi_linear *linear;
        hemi_evaluation_keys *none;
        ASSERT_OK(hemi_context_new(&ctx, hemi_params_by_id(1), table, ERR));
        ASSERT_OK(hemi_linear_new(&linear, ctx, &y.l, y.w, y.bias, y.delta, HEMI_LINEAR_FAST, NULL, ERR));
        ASSERT_OK(hemi_evaluation_keys_new(&none, ctx, NULL, 0, ERR));
        const hemi_linear *map = linear;
        uint8_t sent[HEMI_SEED_BYTES + D * 4096 / LAYOUT * B_BITS / 8]; /* as in a request */
        memcpy(sent, seed, HEMI_SEED_BYTES);
        memcpy(sent + HEMI_SEED_BYTES, y.request, sizeof sent - HEMI_SEED_BYTES);
        const hemi_linear_output out = {found, n * 25 / 8 + 27, 25, 21, false};
        ASSERT_OK(hemi_linear_multiply_bare(&map, 1, none, (hemi_linear_input){sent, sizeof sent, B_BITS}, &out, 1, NULL, ERR));
        assert_memory_equal(found, reply, n * 25 / 8 + 27);
        hemi_evaluation_keys_free(none);
        hemi_linear_free(linear);
        hemi_context_free(ctx);
    }
    assert_int_equal(crypto_generichash_blake2b(hash, sizeof hash, reply, n * 25 / 8 + 27, NULL, 0), 0);
    static const uint8_t pinned[32] = {0xde, 0x48, 0x2a, 0x6b, 0x02, 0x1c, 0xe9, 0x28, 0xe2, 0x13, 0xb8,
                                       0x18, 0xa9, 0xa9, 0xd6, 0x21, 0x89, 0x7e, 0x16, 0x39, 0x22, 0xa9,
                                       0x63, 0x57, 0x10, 0xe9, 0x4a, 0xed, 0x0a, 0x7d, 0xf0, 0x4d};
    assert_memory_equal(hash, pinned, sizeof hash);
    free(slots);
    free(reply);
    free(found);
}

/* ---- decryption: up(b) + (up(a) s), centred */

static void decryption_by_the_page(void **state) {
    (void)state;
    test_rng rng = {99};
    const uint32_t n = 64;
    const hemi_params row = test_params(6, TEST_Q, TEST_P);
    const hemi_kernels *table;
    int8_t s[64];
    uint64_t a[64], b[64], as[64] = {0};
    uint32_t positions[64];
    int64_t phase[64];
    uint8_t packed_a[64 * 4], packed_b[64 * 3];
    for (uint32_t i = 0; i < n; i++) {
        s[i] = (int8_t)((int)test_below(&rng, 3) - 1);
        a[i] = test_u64(&rng) >> 39;
        b[i] = test_u64(&rng) >> 43;
        positions[i] = (i * 37 + 5) % n;
    }
    a[0] = (1 << 25) - 1; /* rounds up to q, which is 0 */
    hemi_pack(packed_a, a, n, 25);
    hemi_pack(packed_b, b, n, 21);
    for (uint32_t i = 0; i < n; i++) a[i] = up(a[i], 25, TEST_Q);
    for (uint32_t i = 0; i < n; i++) add_product(as, a, s[i], i, n, TEST_Q);
    for (size_t k = 0; (table = hemi_kernels_at(k)) != NULL; k++) {
        hemi_context *ctx;
        hemi_secret_key *key;
        ASSERT_OK(hemi_context_new(&ctx, &row, table, ERR));
        ASSERT_OK(hemi_secret_key_from(&key, ctx, s, ERR));
        ASSERT_OK(hemi_secret_decrypt(key, packed_a, 25, packed_b, 21, positions, n, phase, ERR));
        for (uint32_t i = 0; i < n; i++) {
            const uint64_t sum = (up(b[i], 21, TEST_Q) + as[positions[i]]) % TEST_Q;
            assert_true(phase[i] == (sum > TEST_Q / 2 ? (int64_t)sum - (int64_t)TEST_Q : (int64_t)sum));
        }
        hemi_secret_key_free(key);
        hemi_context_free(ctx);
    }
}

/* ---- key switching: lift, product over q P, division by P */

/* The centred residue of v modulo p, as a residue modulo to. */
static uint64_t centred_mod(uint64_t v, uint64_t p, uint64_t to) {
    return v > p / 2 ? (to - (p - v) % to) % to : v % to;
}

/* r = sigma_t(d) key, d and key in coefficients. */
static void rotated_product(uint64_t *r, const uint64_t *d, uint32_t t, const uint64_t *key, uint32_t n, uint64_t p) {
    uint64_t rotated[64] = {0};
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t e = i * t % (2 * n);
        rotated[e % n] = e >= n ? (p - d[i]) % p : d[i];
    }
    memset(r, 0, n * sizeof *r);
    for (uint32_t i = 0; i < n; i++) add_product(r, key, (int64_t)rotated[i], i, n, p);
}

static void keyswitch_by_the_page(void **state) {
    (void)state;
    test_rng rng = {5};
    const uint32_t n = 16;
    const uint64_t q = TEST_Q, special = TEST_P, inverse = power(special % q, q - 2, q);
    const hemi_params row = test_params(4, q, special);
    const hemi_kernels *table;
    for (size_t k = 0; (table = hemi_kernels_at(k)) != NULL; k++) {
        uint32_t t[HEMI_FAMILY_MAX];
        hemi_context *ctx;
        hemi_evaluation_keys *keys;
        ASSERT_OK(hemi_context_new(&ctx, &row, table, ERR));
        const size_t count = test_family(ctx, t);
        ASSERT_OK(hemi_evaluation_keys_new(&keys, ctx, t, count, ERR));
        uint64_t *w = hemi_alloc(8 * n, sizeof *w), *b_q = hemi_alloc(2 * n, sizeof *b_q), *b_p = b_q + n;
        assert_true(w && b_q);
        for (size_t i = 1; i <= count; i++) {
            uint64_t part[2][2][16], c1[16], d_p[16], u[2][16], result[2][16]; /* part: [limb][b, a], coefficients */
            for (size_t limb = 0; limb < 2; limb++) {
                const uint64_t p = limb ? special : q;
                uint64_t slots[16];
                test_residues(limb ? b_p : b_q, n, p, &rng);
                coefficients(part[limb][0], limb ? b_p : b_q, n, p);
                expand(slots, n, p, 0x10000000 + t[i - 1], (uint32_t)limb);
                coefficients(part[limb][1], slots, n, p);
            }
            hemi_evaluation_keys_set(keys, i, seed, b_q, b_p);
            test_residues(w, n, q, &rng); /* c1, NTT form */
            if (i == 1) w[0] = 0, w[1] = q - 1;
            coefficients(c1, w, n, q);
            for (uint32_t j = 0; j < n; j++) d_p[j] = centred_mod(c1[j], q, special);
            for (size_t c = 0; c < 2; c++) {
                rotated_product(u[0], c1, t[i - 1], part[0][c], n, q);
                rotated_product(u[1], d_p, t[i - 1], part[1][c], n, special);
                for (uint32_t j = 0; j < n; j++)
                    result[c][j] = mul((u[0][j] + q - centred_mod(u[1][j], special, q)) % q, inverse, q);
            }
            const hemi_extended u0 = {w + 2 * n, w + 3 * n}, u1 = {w + 4 * n, w + 5 * n};
            hemi_keyswitch_digit(ctx, w + n, w);
            hemi_keyswitch_product(ctx, &keys->key[i - 1], u0, u1, w, w + n, (hemi_extended){NULL, NULL});
            hemi_divide_by_special(ctx, u0.q, u0);
            hemi_divide_by_special_to_coefficients(ctx, u1.q, u1);
            ctx->k->intt(u0.q, u0.q, ctx->q);
            assert_memory_equal(u0.q, result[0], sizeof result[0]);
            assert_memory_equal(u1.q, result[1], sizeof result[1]);
        }
        hemi_free(w);
        hemi_free(b_q);
        hemi_evaluation_keys_free(keys);
        hemi_context_free(ctx);
    }
}

/* ---- ring switching: rounding to 28 bits, digits, products of half the degree */

/* Digit i of c, in [-2^13, 2^13): c = d_0 + 2^14 d_1 modulo 2^28. */
static int64_t digit(uint64_t c, unsigned i) {
    int64_t rest = (int64_t)c;
    for (unsigned at = 0;; at++) {
        int64_t d = ((rest % 16384) + 16384) % 16384;
        if (d >= 8192) d -= 16384;
        if (at == i) return d;
        rest = (rest - d) / 16384;
    }
}

static void ring_switch_by_the_page(void **state) {
    (void)state;
    test_rng rng = {6};
    enum { N = 32, HALF = N / 2 };
    const uint64_t q = TEST_Q, r = TEST_R;
    const hemi_params reply = test_reply_params(4);
    hemi_params row = test_params(5, q, TEST_P);
    row.reply = &reply;
    const uint32_t entry[] = {HEMI_KEY_RING_SWITCH};
    const hemi_kernels *table;
    for (size_t k = 0; (table = hemi_kernels_at(k)) != NULL; k++) {
        hemi_context *ctx;
        hemi_evaluation_keys *keys;
        ASSERT_OK(hemi_context_new(&ctx, &row, table, ERR));
        ASSERT_OK(hemi_evaluation_keys_new(&keys, ctx, entry, 1, ERR));
        uint64_t *b = hemi_alloc(4 * HALF, sizeof *b), *scratch = hemi_alloc(3 * N, sizeof *scratch), slots[HALF];
        uint64_t part[4][2][HALF], c[N], c0[N], wanted[2][HALF] = {{0}}, wanted_c0[N];
        assert_true(b && scratch);
        for (uint32_t j = 0; j < 4; j++) {
            test_residues(b + j * HALF, HALF, r, &rng);
            coefficients(part[j][0], b + j * HALF, HALF, r);
            expand(slots, HALF, r, 0x10000001, j);
            coefficients(part[j][1], slots, HALF, r);
        }
        hemi_ringswitch_key_set(keys, seed, b, scratch);
        test_residues(c, N, q, &rng);
        test_residues(c0, N, q, &rng);
        c[0] = 0, c[1] = q - 1, c[2] = q / 2, c[3] = 1, c[4] = q / 2 + 1, c0[0] = 0, c0[1] = q - 1;
        for (uint32_t i = 0; i < N; i++) {
            const uint64_t v = down(c[i], 28, q);
            wanted_c0[i] = up(down(c0[i], 50, q), 50, r);
            for (unsigned d = 0; d < 2; d++) /* coefficient i/2 of the even or odd part, times sample 2 d + i mod 2 */
                for (size_t h = 0; h < 2; h++) add_product(wanted[h], part[2 * d + i % 2][h], digit(v, d), i / 2, HALF, r);
        }
        uint64_t *work = hemi_alloc(2 * N, sizeof *work), *u = work + N;
        assert_non_null(work);
        memcpy(work, c, sizeof c);
        hemi_ringswitch(keys, u, u + HALF, work, scratch);
        assert_memory_equal(u, wanted, sizeof wanted);
        memcpy(work, c0, sizeof c0);
        hemi_ringswitch_scale(ctx, work, work, N);
        assert_memory_equal(work, wanted_c0, sizeof wanted_c0);
        hemi_free(work);
        hemi_free(b);
        hemi_free(scratch);
        hemi_evaluation_keys_free(keys);
        hemi_context_free(ctx);
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_expand_as_pinned),   cmocka_unit_test(roots_are_as_pinned),
        cmocka_unit_test(direct_replies_as_pinned), cmocka_unit_test(decryption_by_the_page),
        cmocka_unit_test(keyswitch_by_the_page),    cmocka_unit_test(ring_switch_by_the_page),
    };
    return TEST_RUN("golden", tests);
}
