/* The random room: the pinned rules against libsodium called directly and against numbers from an independent program
 * (ChaCha20 and the rules written anew in another language), and the distributions. */
#include "test.h"

#include <sodium.h>

#include "random/sample.h"

static void seed_counting(uint8_t seed[HEMI_SEED_BYTES]) {
    for (uint8_t i = 0; i < HEMI_SEED_BYTES; i++) seed[i] = i;
}

/* ---- streams */
static void streams_are_the_pinned_ones(void **state) {
    (void)state;
    static const uint8_t key[4] = {0xdd, 0x9b, 0x9b, 0xb1};
    static const uint8_t bytes[16] = {0x85, 0xd4, 0x7b, 0x08, 0xd9, 0xd6, 0xd8, 0x09,
                                      0x10, 0x71, 0x93, 0xae, 0x98, 0x20, 0x47, 0x3d};
    uint8_t seed[HEMI_SEED_BYTES], out[16];
    hemi_stream s;
    seed_counting(seed);
    hemi_stream_init(&s, seed, 1, 0);
    assert_memory_equal(s.key, key, sizeof key);
    hemi_stream_bytes(&s, out, sizeof out);
    assert_memory_equal(out, bytes, sizeof bytes);
}

/* The first `bytes` bytes of a stream, by libsodium alone. */
static void reference_stream(uint8_t *out, size_t bytes, const uint8_t seed[32], uint32_t domain, uint32_t index) {
    const uint8_t numbers[8] = {(uint8_t)domain, (uint8_t)(domain >> 8), (uint8_t)(domain >> 16), (uint8_t)(domain >> 24),
                                (uint8_t)index,  (uint8_t)(index >> 8),  (uint8_t)(index >> 16),  (uint8_t)(index >> 24)};
    static const uint8_t nonce[8] = {0};
    uint8_t key[32];
    crypto_generichash_state h;
    crypto_generichash_init(&h, NULL, 0, 32);
    crypto_generichash_update(&h, (const uint8_t *)"hemi-stream-v1\0", 16);
    crypto_generichash_update(&h, numbers, 8);
    crypto_generichash_update(&h, seed, 32);
    crypto_generichash_final(&h, key, 32);
    crypto_stream_chacha20(out, bytes, nonce, key);
}

static void calls_take_whole_blocks(void **state) {
    (void)state;
    uint8_t seed[HEMI_SEED_BYTES], whole[64 * 40], part[300];
    seed_counting(seed);
    reference_stream(whole, sizeof whole, seed, 0xFEDCBA98, 0x01020304);
    hemi_stream s;
    hemi_stream_init(&s, seed, 0xFEDCBA98, 0x01020304);
    static const size_t takes[] = {1, 64, 65, 0, 128, 300, 63};
    size_t at = 0;
    for (size_t i = 0; i < TEST_COUNT(takes); i++) {
        hemi_stream_bytes(&s, part, takes[i]);
        if (takes[i]) assert_memory_equal(part, whole + 64 * at, takes[i]);
        at += (takes[i] + 63) / 64;
        assert_true(s.block == at);
    }
    hemi_stream_wipe(&s);
    static const hemi_stream zero;
    assert_memory_equal(&s, &zero, sizeof s);
}

static void streams_differ(void **state) {
    (void)state;
    enum { COUNT = 7 };
    uint8_t seeds[2][HEMI_SEED_BYTES], out[COUNT][32];
    seed_counting(seeds[0]);
    seed_counting(seeds[1]);
    seeds[1][31] ^= 1;
    const struct {
        int seed;
        uint32_t domain, index;
    } of[COUNT - 2] = {{0, HEMI_DOMAIN_CIPHERTEXT, 0}, {0, HEMI_DOMAIN_PUBLIC_KEY, 0}, {0, HEMI_DOMAIN_CIPHERTEXT, 1},
                       {0, HEMI_DOMAIN_KEY + 1, 0},    {1, HEMI_DOMAIN_CIPHERTEXT, 0}};
    hemi_stream s;
    for (int i = 0; i < COUNT - 2; i++) {
        hemi_stream_init(&s, seeds[of[i].seed], of[i].domain, of[i].index);
        hemi_stream_bytes(&s, out[i], 32);
    }
    for (int i = COUNT - 2; i < COUNT; i++) {
        hemi_stream_init_fresh(&s);
        assert_true(s.block == 0);
        hemi_stream_bytes(&s, out[i], 32);
    }
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < i; j++) assert_memory_not_equal(out[i], out[j], 32);
    hemi_seed_fresh(out[0]);
    hemi_seed_fresh(out[1]);
    assert_memory_not_equal(out[0], out[1], 32);
    assert_int_equal(hemi_random_init(), 0);
}

/* By the definition, and different for whatever differs. */
static void derived_seeds(void **state) {
    (void)state;
    enum { COUNT = 6 };
    uint8_t secret[HEMI_SEED_BYTES], other[HEMI_SEED_BYTES], out[COUNT][HEMI_SEED_BYTES], expected[HEMI_SEED_BYTES];
    uint8_t input[16 + 4 + 5] = "hemi-derive-v1";
    seed_counting(secret);
    seed_counting(other);
    other[0] ^= 0x80;
    hemi_seed_derive(out[0], secret, HEMI_DOMAIN_ZERO, "hello", 5);
    hemi_seed_derive(out[1], secret, HEMI_DOMAIN_BATCH, "hello", 5);
    hemi_seed_derive(out[2], secret, HEMI_DOMAIN_ZERO, "hello", 4);
    hemi_seed_derive(out[3], secret, HEMI_DOMAIN_ZERO, "hellp", 5);
    hemi_seed_derive(out[4], other, HEMI_DOMAIN_ZERO, "hello", 5);
    hemi_seed_derive(out[5], secret, HEMI_DOMAIN_ZERO, NULL, 0);
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < i; j++) assert_memory_not_equal(out[i], out[j], HEMI_SEED_BYTES);
    input[16] = HEMI_DOMAIN_ZERO;
    memcpy(input + 20, "hello", 5);
    assert_int_equal(crypto_generichash(expected, sizeof expected, input, sizeof input, secret, sizeof secret), 0);
    assert_memory_equal(out[0], expected, sizeof expected);
}

/* ---- uniform */
static void uniform_known_answers(void **state) {
    (void)state;
    static const struct {
        uint64_t p, first[3], last; /* last: number 999 */
    } answers[] = {
        {(UINT64_C(1) << 50) - 27, {0xe73c04f2ec06, 0x1ff00d537cb4b, 0x29fbe52f968cf}, 0x24b2cec7b357f},
        {(UINT64_C(1) << 50) - 16383, {0xe73c04f2ec06, 0x1ff00d537cb4b, 0x29fbe52f968cf}, 0x24b2cec7b357f},
        {65537, {0xec06, 0x589b, 0x2985}, 0xd35c},
        {(UINT64_C(1) << 55) + 3, {0x49ff00d537cb4b, 0x3450f143102985, 0x745f973b98f42a}, 0x6b5e5ba79fdba7},
    };
    uint8_t seed[HEMI_SEED_BYTES];
    static uint64_t r[1000];
    seed_counting(seed);
    for (size_t i = 0; i < TEST_COUNT(answers); i++) {
        hemi_sample_uniform_vartime(r, 1000, answers[i].p, seed, 7, 9);
        for (size_t j = 0; j < 3; j++) assert_true(r[j] == answers[i].first[j]);
        assert_true(r[999] == answers[i].last);
    }
}

static uint64_t word_at(const uint8_t *bytes, size_t i) {
    uint64_t v = 0;
    for (size_t k = 0; k < 8; k++) v |= (uint64_t)bytes[8 * i + k] << (8 * k);
    return v;
}

static void uniform_by_the_rule(void **state) {
    (void)state;
    enum { MOST = 5000, STREAM = 8 * 3 * MOST };
    static const size_t counts[] = {0, 1, 7, 8, 9, 511, 512, 513, 4096, MOST};
    static const uint64_t primes[] = {2, 3, 17, 255, 256, 257, (UINT64_C(1) << 49) + 1, (UINT64_C(1) << 50) - 27,
                                      UINT64_C(1) << 50, (UINT64_C(1) << 56) - 1};
    static uint8_t stream[STREAM];
    static uint64_t r[MOST + 1];
    uint8_t seed[HEMI_SEED_BYTES];
    seed_counting(seed);
    for (size_t a = 0; a < TEST_COUNT(primes); a++)
        for (size_t b = 0; b < TEST_COUNT(counts); b++) {
            const uint64_t p = primes[a];
            uint64_t mask = 1;
            while (mask < p) mask = 2 * mask + 1; /* 2^(bit length of p) - 1 */
            reference_stream(stream, STREAM, seed, 5, (uint32_t)a);
            r[counts[b]] = UINT64_MAX; /* a guard */
            hemi_sample_uniform_vartime(r, counts[b], p, seed, 5, (uint32_t)a);
            assert_true(r[counts[b]] == UINT64_MAX);
            size_t word = 0;
            for (size_t i = 0; i < counts[b]; i++) {
                while ((word_at(stream, word) & mask) >= p) word++;
                assert_true(8 * word < STREAM);
                assert_true(r[i] == (word_at(stream, word++) & mask));
            }
        }
}

static void assert_chi_square(const size_t *count, const double *expected, size_t bins, const char *what) {
    const double chi = test_chi_square(count, expected, bins), limit = test_chi_square_limit(bins - 1);
    if (chi > limit) fail_msg("%s: chi-square %.1f of %zu bins exceeds %.1f", what, chi, bins, limit);
}

static void uniform_is_uniform(void **state) {
    (void)state;
    enum { COUNT = 200000, BINS = 97 };
    static uint64_t r[COUNT];
    static const uint64_t primes[] = {BINS, (UINT64_C(1) << 50) - 27, (UINT64_C(1) << 49) + 12345};
    for (size_t k = 0; k < TEST_COUNT(primes); k++) {
        uint8_t seed[HEMI_SEED_BYTES];
        size_t high[BINS] = {0}, low[BINS] = {0};
        double expected[BINS];
        hemi_seed_fresh(seed);
        hemi_sample_uniform_vartime(r, COUNT, primes[k], seed, 1, 0);
        for (size_t i = 0; i < COUNT; i++) {
            assert_true(r[i] < primes[k]);
            high[(unsigned __int128)r[i] * BINS / primes[k]]++;
            low[r[i] % BINS]++;
        }
        for (size_t i = 0; i < BINS; i++) expected[i] = (double)COUNT / BINS;
        assert_chi_square(high, expected, BINS, "high part");
        assert_chi_square(low, expected, BINS, "low part");
    }
}

/* ---- ternary */
static void ternary_by_the_rule(void **state) {
    (void)state;
    enum { MOST = 5000 };
    static const int8_t first[32] = {-1, -1, -1, -1, 0, 0,  -1, 1, 0, -1, -1, 0, 0, 1,  1,  -1,
                                     -1, 0,  -1, 1,  1, -1, -1, 1, 1, 1,  -1, 1, -1, -1, -1, 0};
    static const size_t counts[] = {0, 1, 3, 4, 5, 31, 32, 33, 2047, 2048, 2049, 4096, MOST};
    static uint8_t stream[8 * MOST];
    static int8_t r[MOST + 1];
    uint8_t seed[HEMI_SEED_BYTES];
    seed_counting(seed);
    reference_stream(stream, sizeof stream, seed, 3, 5);
    for (size_t k = 0; k < TEST_COUNT(counts); k++) {
        hemi_stream s;
        hemi_stream_init(&s, seed, 3, 5);
        r[counts[k]] = 99;
        hemi_sample_ternary(r, counts[k], &s);
        assert_int_equal(r[counts[k]], 99);
        assert_true(s.block == (counts[k] + 31) / 32); /* 32 values a block */
        for (size_t i = 0; i < counts[k]; i++) {
            /* digit i mod 4 of floor(81 x / 2^61), most significant first */
            const uint64_t x = word_at(stream, i / 4) & ((UINT64_C(1) << 61) - 1);
            const unsigned all = (unsigned)(((unsigned __int128)x * 81) >> 61);
            static const unsigned weight[4] = {27, 9, 3, 1};
            assert_int_equal(r[i], (int)(all / weight[i % 4] % 3) - 1);
            if (i < 32) assert_int_equal(r[i], first[i]);
        }
    }
}

static void ternary_is_uniform(void **state) {
    (void)state;
    enum { COUNT = 1 << 19, BINS = 81 };
    static int8_t r[COUNT];
    hemi_stream s;
    hemi_stream_init_fresh(&s);
    hemi_sample_ternary(r, COUNT, &s);
    size_t one[3] = {0}, four[BINS] = {0}, across[BINS] = {0};
    double expected_one[3], expected_four[BINS];
    for (size_t i = 0; i < COUNT; i++) {
        assert_in_range(r[i] + 1, 0, 2);
        one[r[i] + 1]++;
        if (i % 4 == 0) four[27 * (r[i] + 1) + 9 * (r[i + 1] + 1) + 3 * (r[i + 2] + 1) + r[i + 3] + 1]++;
        if (i % 4 == 2 && i + 3 < COUNT) across[27 * (r[i] + 1) + 9 * (r[i + 1] + 1) + 3 * (r[i + 2] + 1) + r[i + 3] + 1]++;
    }
    for (size_t i = 0; i < 3; i++) expected_one[i] = COUNT / 3.0;
    for (size_t i = 0; i < BINS; i++) expected_four[i] = COUNT / 4.0 / BINS;
    assert_chi_square(one, expected_one, 3, "single values");
    assert_chi_square(four, expected_four, BINS, "the four of a word");
    assert_chi_square(across, expected_four, BINS, "four across words");
}

/* ---- error */
static int bit(const uint8_t *string, size_t i) { return string[i / 8] >> (i % 8) & 1; }

static void error_by_the_rule(void **state) {
    (void)state;
    enum { MOST = 3000, BLOCK_BYTES = 42 * 32 };
    static const int8_t first[16] = {2, -1, 0, -3, -4, 0, 3, 6, -2, -1, -4, 1, -1, -1, 5, -3};
    static const size_t counts[] = {0, 1, 7, 255, 256, 257, 1023, 1024, 1025, MOST};
    static uint8_t stream[(MOST / 256 + 1) * BLOCK_BYTES];
    static int8_t r[MOST + 1];
    uint8_t seed[HEMI_SEED_BYTES];
    seed_counting(seed);
    reference_stream(stream, sizeof stream, seed, 3, 5);
    for (size_t k = 0; k < TEST_COUNT(counts); k++) {
        hemi_stream s;
        hemi_stream_init(&s, seed, 3, 5);
        r[counts[k]] = 99;
        hemi_sample_error(r, counts[k], &s);
        assert_int_equal(r[counts[k]], 99);
        assert_true(s.block == (counts[k] + 255) / 256 * 21);
        for (size_t i = 0; i < counts[k]; i++) {
            int wanted = 0;
            for (size_t j = 0; j < 42; j++) wanted += bit(stream + i / 256 * BLOCK_BYTES + 32 * j, i % 256) * (j < 21 ? 1 : -1);
            assert_int_equal(r[i], wanted);
            if (i < 16) assert_int_equal(r[i], first[i]);
        }
    }
}

/* Every bound is 6 standard deviations of the estimate. Moments of the sum of 2 eta independent +-1/2:
 * variance v = eta/2, kurtosis 3 - 1/eta. */
static void error_is_centred_binomial(void **state) {
    (void)state;
    enum { COUNT = 1 << 20, MOST = HEMI_ERROR_ETA, BINS = 2 * MOST + 1 };
    static int8_t r[COUNT];
    hemi_stream s;
    hemi_stream_init_fresh(&s);
    hemi_sample_error(r, COUNT, &s);
    size_t count[BINS] = {0};
    double m1 = 0, m2 = 0, m4 = 0, neighbours = 0;
    for (size_t i = 0; i < COUNT; i++) {
        const double x = r[i];
        assert_in_range(r[i] + MOST, 0, 2 * MOST);
        count[r[i] + MOST]++;
        m1 += x / COUNT;
        m2 += x * x / COUNT;
        m4 += x * x * x * x / COUNT;
        if (i > 0) neighbours += x * r[i - 1] / COUNT;
    }
    const double v = HEMI_ERROR_VARIANCE, root = sqrt(COUNT);
    assert_true(fabs(m1) < TEST_SIGMAS * sqrt(v) / root);
    assert_true(fabs(m2 - v) < TEST_SIGMAS * v * sqrt(2) / root);
    assert_true(fabs(m4 / (m2 * m2) - (3 - 1.0 / HEMI_ERROR_ETA)) < TEST_SIGMAS * sqrt(24) / root);
    assert_true(fabs(neighbours) < TEST_SIGMAS * v / root);

    /* against the binomial probabilities, the ends gathered so that each bin expects at least 50 */
    size_t bin[BINS] = {0}, bins = 0;
    double expected[BINS] = {0}, p = ldexp(1, -2 * MOST);
    for (size_t i = 0; i < BINS; i++) {
        bin[bins] += count[i];
        expected[bins] += p * COUNT;
        p = p * (double)(2 * MOST - i) / (double)(i + 1);
        if (expected[bins] >= 50 && i + 1 < BINS) bins++;
    }
    bin[bins - 1] += bin[bins]; /* what is left beyond the last full bin */
    expected[bins - 1] += expected[bins];
    assert_true(bins > 20);
    assert_chi_square(bin, expected, bins, "centred binomial");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(streams_are_the_pinned_ones), cmocka_unit_test(calls_take_whole_blocks),
    cmocka_unit_test(streams_differ),              cmocka_unit_test(derived_seeds),
    cmocka_unit_test(uniform_known_answers),
    cmocka_unit_test(uniform_by_the_rule),         cmocka_unit_test(uniform_is_uniform),
    cmocka_unit_test(ternary_by_the_rule),         cmocka_unit_test(ternary_is_uniform),
    cmocka_unit_test(error_by_the_rule),           cmocka_unit_test(error_is_centred_binomial),
};

int main(void) { return TEST_RUN("random", tests); }
