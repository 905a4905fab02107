/* Every kernel of every table against its equation in kernels.h, written here with 128-bit division; the transforms
 * against the portable table, which test_ring holds to their definition. Operands: all pairs of residues at the ends
 * and the middle of the range, residues that put a rounding on its edge, and random ones; lengths from 1 on. */
#include "test.h"

#include "base/memory.h"
#include "ring/ring.h"

#define P48 UINT64_C(0xfffffffa0001)
#define P50 UINT64_C(0x3ffffffd20001)
#define R50 UINT64_C(0x3ffffffb80001)

__extension__ typedef unsigned __int128 u128;

#define LENGTH 2048
#define GUARD  UINT64_C(0xdeadbeef01234567)

/* Each width from tiny to the largest below 2^50. */
static const uint64_t primes[] = {3,
                                  5,
                                  17,
                                  257,
                                  12289,
                                  65537,
                                  67108859,
                                  UINT64_C(2147483647),
                                  UINT64_C(8589934583),
                                  UINT64_C(1099511627689),
                                  P48,
                                  UINT64_C(281474976710597),
                                  R50,
                                  P50,
                                  UINT64_C(1125899906842597)};

/* Vectors of one length, r with a guard behind it. */
static struct {
    uint64_t *a, *b, *c, *w, *v, *r, *s;
    uint32_t *index;
} x;

static uint64_t *vector(size_t n) {
    uint64_t *v = hemi_alloc(n, sizeof *v);
    assert_non_null(v);
    return v;
}

static int set_up(void **state) {
    (void)state;
    uint64_t **const all[] = {&x.a, &x.b, &x.c, &x.w, &x.v, &x.r, &x.s};
    for (size_t i = 0; i < TEST_COUNT(all); i++) *all[i] = vector(LENGTH + 1);
    x.index = hemi_alloc(LENGTH, sizeof *x.index);
    assert_non_null(x.index);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    uint64_t **const all[] = {&x.a, &x.b, &x.c, &x.w, &x.v, &x.r, &x.s};
    for (size_t i = 0; i < TEST_COUNT(all); i++) hemi_free(*all[i]);
    hemi_free(x.index);
    return 0;
}

static hemi_modulus modulus(uint64_t p) {
    hemi_modulus m;
    if (!hemi_modulus_init(&m, p)) fail_msg("%llu is not a modulus", (unsigned long long)p);
    return m;
}

static uint64_t extreme(size_t i, uint64_t p) {
    const uint64_t e[] = {0, 1, p - 1, p / 2, p / 2 + 1, p - 2, 2 % p, p / 3};
    return e[i % 8];
}

/* a, b, c: first all triples of extremes, then random. */
static void fill(size_t n, uint64_t p, test_rng *rng) {
    for (size_t i = 0; i < n; i++) {
        const bool corner = n >= 512 && i < 512;
        x.a[i] = corner ? extreme(i, p) : test_below(rng, p);
        x.b[i] = corner ? extreme(i / 8, p) : test_below(rng, p);
        x.c[i] = corner ? extreme(i / 64, p) : test_below(rng, p);
    }
    x.a[n] = x.b[n] = x.c[n] = x.r[n] = x.s[n] = x.w[n] = x.v[n] = GUARD;
}

static void shuffle(uint32_t *index, size_t n, test_rng *rng) {
    for (size_t i = 0; i < n; i++) index[i] = (uint32_t)i;
    for (size_t i = n - 1; i > 0; i--) {
        const size_t j = test_below(rng, i + 1);
        const uint32_t t = index[i];
        index[i] = index[j];
        index[j] = t;
    }
}

static const size_t lengths[] = {LENGTH, 4, 8, 16, 32, 1, 2, 3, 5, 6, 7, 9, 15, 17, 31, 48, 80};

/* Runs the body for every prime and length, with a, b and c filled. */
#define EACH_CASE(...)                                                                                                 \
    do {                                                                                                               \
        test_rng rng = test_rng_new();                                                                                 \
        for (size_t pi = 0; pi < TEST_COUNT(primes); pi++)                                                             \
            for (size_t li = 0; li < TEST_COUNT(lengths); li++) {                                                      \
                const uint64_t p = primes[pi];                                                                         \
                const size_t n = lengths[li];                                                                          \
                const hemi_modulus m = modulus(p);                                                                     \
                fill(n, p, &rng);                                                                                      \
                __VA_ARGS__                                                                                            \
            }                                                                                                          \
    } while (0)

#define assert_slots(result, expected)                                                                                 \
    do {                                                                                                               \
        for (size_t i = 0; i < n; i++)                                                                                 \
            if ((result)[i] != (uint64_t)(expected))                                                                   \
                fail_msg("p %llu, length %zu, slot %zu: %llu, not %llu", (unsigned long long)p, n, i,                  \
                         (unsigned long long)(result)[i], (unsigned long long)(expected));                             \
        if ((result)[n] != GUARD) fail_msg("p %llu, length %zu: written beyond the end", (unsigned long long)p, n);    \
    } while (0)

static uint64_t times(uint64_t a, uint64_t b, uint64_t p) { return (uint64_t)((u128)a * b % p); }

static void copy(uint64_t *r, const uint64_t *a, size_t n) { memcpy(r, a, (n + 1) * sizeof *r); }

/* ---- slot by slot */

static void sums_and_differences(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    EACH_CASE({
        k->add(x.r, x.a, x.b, n, &m);
        assert_slots(x.r, (x.a[i] + x.b[i]) % p);
        copy(x.r, x.a, n);
        k->add(x.r, x.r, x.b, n, &m);
        assert_slots(x.r, (x.a[i] + x.b[i]) % p);
        k->sub(x.r, x.a, x.b, n, &m);
        assert_slots(x.r, (x.a[i] + p - x.b[i]) % p);
        copy(x.r, x.b, n);
        k->sub(x.r, x.a, x.r, n, &m);
        assert_slots(x.r, (x.a[i] + p - x.b[i]) % p);
        k->add(x.r, x.a, x.a, n, &m);
        assert_slots(x.r, 2 * x.a[i] % p);
    });
}

static void products(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    EACH_CASE({
        k->mul(x.r, x.a, x.b, n, &m);
        assert_slots(x.r, times(x.a[i], x.b[i], p));
        copy(x.r, x.b, n);
        k->mul(x.r, x.a, x.r, n, &m);
        assert_slots(x.r, times(x.a[i], x.b[i], p));
        copy(x.r, x.c, n);
        k->mul_add(x.r, x.a, x.b, n, &m);
        assert_slots(x.r, ((u128)x.a[i] * x.b[i] + x.c[i]) % p);
        copy(x.r, x.a, n);
        k->mul_add(x.r, x.r, x.b, n, &m);
        assert_slots(x.r, ((u128)x.a[i] * x.b[i] + x.a[i]) % p);
        for (size_t e = 0; e < 9; e++) {
            const uint64_t s = e < 8 ? extreme(e, p) : test_below(&rng, p);
            k->mul_scalar(x.r, x.a, s, n, &m);
            assert_slots(x.r, times(x.a[i], s, p));
            k->sub_mul_scalar(x.r, x.a, x.b, s, n, &m);
            assert_slots(x.r, times((x.a[i] + p - x.b[i]) % p, s, p));
            copy(x.r, x.a, n);
            copy(x.s, x.b, n);
            k->sub_mul_scalar(x.r, x.r, x.b, s, n, &m);
            k->sub_mul_scalar(x.s, x.a, x.s, s, n, &m);
            assert_slots(x.s, x.r[i]);
            k->mul_scalar(x.s, x.s, s, n, &m);
            assert_slots(x.s, times(x.r[i], s, p));
        }
    });
}

static void products_with_fixed_operands(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    EACH_CASE({
        k->fix(x.w, x.b, n, &m);
        assert_int_equal(x.w[n], GUARD);
        copy(x.v, x.c, n);
        k->fix(x.v, x.v, n, &m); /* in place */
        k->mul_fixed(x.r, x.a, x.w, n, &m);
        assert_slots(x.r, times(x.a[i], x.b[i], p));
        copy(x.r, x.a, n);
        k->mul_fixed(x.r, x.r, x.v, n, &m);
        assert_slots(x.r, times(x.a[i], x.c[i], p));
        copy(x.r, x.c, n);
        k->mul_add_fixed(x.r, x.a, x.w, n, &m);
        assert_slots(x.r, ((u128)x.a[i] * x.b[i] + x.c[i]) % p);
    });
}

static void permutations(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    EACH_CASE({
        for (size_t automorphism = 0; automorphism < 2; automorphism++) {
            if (automorphism == 0)
                shuffle(x.index, n, &rng);
            else if (n >= 4 && (n & (n - 1)) == 0) /* what it is used for, should a table treat it apart */
                hemi_ring_automorphism_index(x.index, (uint32_t)__builtin_ctzll(n), 5);
            k->permute(x.r, x.a, x.index, n);
            assert_slots(x.r, x.a[x.index[i]]);
            k->fix(x.w, x.b, n, &m);
            k->fix(x.v, x.c, n, &m);
            x.r[n] = x.s[n] = GUARD;
            k->keyswitch_product(x.r, x.s, x.a, NULL, x.index, x.w, x.v, n, &m);
            assert_slots(x.r, times(x.a[x.index[i]], x.b[i], p));
            assert_slots(x.s, times(x.a[x.index[i]], x.c[i], p));
            k->keyswitch_product(x.r, x.s, x.a, x.c, x.index, x.w, x.v, n, &m);
            assert_slots(x.r, (times(x.a[x.index[i]], x.b[i], p) + x.c[x.index[i]]) % p);
            assert_slots(x.s, times(x.a[x.index[i]], x.c[i], p));
        }
    });
}

static void lifts_between_primes(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    EACH_CASE({
        for (size_t to = 0; to < TEST_COUNT(primes); to++) {
            const uint64_t q = primes[to];
            const hemi_modulus mq = modulus(q);
            k->lift(x.r, x.a, n, &m, &mq);
            assert_slots(x.r, x.a[i] > p / 2 ? (q - (p - x.a[i]) % q) % q : x.a[i] % q);
            copy(x.s, x.a, n);
            k->lift(x.s, x.s, n, &m, &mq);
            assert_slots(x.s, x.r[i]);
        }
    });
}

/* The integer modulo `to`, digit by digit from the top, in 128 bits. */
static uint64_t mixed_value(const uint64_t *a, size_t stride, const hemi_modulus *const *from, size_t count, uint64_t to) {
    u128 sum = 0;
    for (size_t j = count; j-- > 0;) {
        const uint64_t f = from[j]->p, d = a[j * stride], digit = d > f / 2 ? (to - (f - d) % to) % to : d % to;
        sum = (sum * (f % to) + digit) % to;
    }
    return (uint64_t)sum;
}

/* Digits at the ends and the middle of their ranges, and random ones; bases and moduli of every width, in every order. */
static void mixed_radix(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    test_rng rng = test_rng_new();
    static const size_t sizes[] = {64, 16, 1, 7, 9, 4, 40, 3};
    for (size_t to = 0; to < TEST_COUNT(primes); to++)
        for (size_t count = 1; count <= HEMI_MIXED_MAX; count++)
            for (size_t round = 0; round < 40; round++) {
                const size_t n = sizes[round % TEST_COUNT(sizes)], stride = n + 8 * (round % 2);
                const hemi_modulus m = modulus(primes[to]);
                hemi_modulus f[HEMI_MIXED_MAX];
                const hemi_modulus *from[HEMI_MIXED_MAX];
                uint64_t *a = vector(count * stride), *form = vector(count * stride), *r = vector(n + 1);
                for (size_t j = 0; j < count; j++) {
                    f[j] = modulus(primes[round < TEST_COUNT(primes) ? round : test_below(&rng, TEST_COUNT(primes))]);
                    from[j] = &f[j];
                    for (size_t i = 0; i < stride; i++)
                        a[j * stride + i] = round % 3 == 0 ? extreme(test_below(&rng, 8), f[j].p) : test_below(&rng, f[j].p);
                    k->dot_left(form + j * stride, a + j * stride, stride, &f[j]);
                }
                r[n] = GUARD;
                k->lift_mixed(r, form, stride, from, count, n, &m);
                for (size_t i = 0; i < n; i++)
                    if (r[i] != mixed_value(a + i, stride, from, count, m.p))
                        fail_msg("to %llu, %zu digits, length %zu: slot %zu", (unsigned long long)m.p, count, n, i);
                assert_true(r[n] == GUARD);
                hemi_free(a), hemi_free(form), hemi_free(r);
            }
}

/* ---- modulus switching */

static uint64_t inverse_of(uint64_t a, uint64_t p) {
    const hemi_modulus m = modulus(p);
    return hemi_mod_inverse(a % p, &m);
}

static void switches_down(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    EACH_CASE({
        for (unsigned bits = 1; bits <= 50; bits++) {
            const uint64_t mask = (UINT64_C(1) << bits) - 1;
            const uint64_t shrink = inverse_of((mask + 1) % p, p);
            for (size_t j = 0; j < n; j++) {
                /* a 2^bits a little off p/2 and off 0 modulo p: there the rounding changes, and the estimate of it is
                 * worst */
                const uint64_t off = (j & 1 ? p / 2 : 0) + p - 4 % p + j / 2 % 9;
                if (j >= 512 || n < 512) x.a[j] = j % 4 == 3 ? test_below(&rng, p) : times(off % p, shrink, p);
            }
            k->switch_down(x.r, x.a, n, bits, &m);
            assert_slots(x.r, ((((u128)x.a[i] << bits) + (p - 1) / 2) / p) & mask);
            copy(x.s, x.a, n);
            k->switch_down(x.s, x.s, n, bits, &m);
            assert_slots(x.s, x.r[i]);
        }
    });
}

static void switches_up(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    EACH_CASE({
        for (unsigned bits = 1; bits <= 50; bits++) {
            const uint64_t mask = (UINT64_C(1) << bits) - 1, half = UINT64_C(1) << (bits - 1);
            for (size_t j = 0; j < n; j++) {
                const uint64_t edge[] = {0, 1, mask, half, half - 1, half + 1, mask - 1};
                /* a p a little off the middle modulo 2^bits */
                x.a[j] = mask & (j < 7 ? edge[j] : j % 2 == 1 ? (half - 4 + j / 2 % 9) * m.inverse64 : test_u64(&rng));
            }
            k->switch_up(x.r, x.a, n, bits, &m);
            assert_slots(x.r, (((u128)x.a[i] * p + half) >> bits) % p);
            copy(x.s, x.a, n);
            k->switch_up(x.s, x.s, n, bits, &m);
            assert_slots(x.s, x.r[i]);
        }
    });
}

static void small_integers(void **state) {
    (void)state;
    const hemi_kernels *k = test_table();
    static int16_t a[4096];
    EACH_CASE({
        const int64_t most = p > 32768 ? 32768 : (int64_t)p - 1;
        if (n > TEST_COUNT(a)) continue;
        for (size_t j = 0; j < n; j++)
            a[j] = (int16_t)(j == 0 ? -most : j == 1 ? (most < 32767 ? most : 32767) : (int64_t)test_below(&rng, 2 * (uint64_t)most) - most);
        k->from_int16(x.r, a, n, &m);
        assert_slots(x.r, a[i] < 0 ? p - (uint64_t)-a[i] : (uint64_t)a[i]);
    });
}

/* ---- the sum of products */

enum { ALL_RANDOM, ALL_LARGEST, ALL_MIDDLE, ALL_PAST_MIDDLE, OPPOSITE, ONE_WAY, PATTERNS };

/* The largest sums, for tables that compute with residues in [0, p) and for those that centre them; ONE_WAY: products
 * that are 2^46 - 1 modulo 2^47, so that a sum in doubles around 2^99 is rounded down by that much each time. */
static uint64_t dot_operand(int pattern, bool left, uint64_t p, test_rng *rng) {
    const uint64_t w = UINT64_C(0x2f0123456789) % (p / 2 + 1) | 1, half = UINT64_C(1) << 46;
    switch (pattern) {
    case ALL_LARGEST:
        return p - 1;
    case ALL_MIDDLE:
        return p / 2;
    case ALL_PAST_MIDDLE:
        return p / 2 + 1;
    case OPPOSITE:
        return left ? p / 2 : p / 2 + 1;
    case ONE_WAY: {
        uint64_t inverse = w; /* modulo 2^64, by Newton's iteration */
        for (int i = 0; i < 6; i++) inverse *= 2 - w * inverse;
        const uint64_t x47 = inverse * (half - 1) % (2 * half);
        return left ? (p + (x47 < half ? x47 : x47 - 2 * half)) % p : w % p;
    }
    default:
        return test_below(rng, p);
    }
}

static void one_dot(uint64_t p, size_t sums, size_t count, size_t len, size_t gap, int pattern, test_rng *rng) {
    const hemi_kernels *k = test_table();
    const hemi_modulus m = modulus(p);
    const size_t stride = len + gap, total = stride * count;
    uint64_t *a0 = vector(total), *a1 = vector(total), *x0 = vector(total), *x1 = vector(total),
             *b = vector(sums * len * count);
    const size_t r_stride = len + 8;
    uint64_t *r0 = vector(sums * r_stride), *r1 = vector(sums * r_stride);
    uint8_t *w = hemi_alloc(sums * len * count, 6); /* exactly what is used: nothing behind it may be read */
    assert_non_null(w);
    for (size_t i = 0; i < total; i++) a0[i] = dot_operand(pattern, true, p, rng);
    for (size_t i = 0; i < total; i++) a1[i] = dot_operand(pattern == OPPOSITE ? ALL_LARGEST : pattern, true, p, rng);
    for (size_t i = 0; i < sums * len * count; i++) b[i] = dot_operand(pattern, false, p, rng);
    k->dot_left(x0, a0, total, &m);
    memcpy(x1, a1, total * sizeof *x1);
    k->dot_left(x1, x1, total, &m); /* in place */
    for (size_t j = 0; j < sums * count; j++) k->dot_right(w + 6 * len * j, b + len * j, len, &m);
    for (size_t i = 0; i < sums * r_stride; i++) r0[i] = r1[i] = GUARD;
    k->dot2(r0, r1, r_stride, sums, x0, x1, stride, w, count, len, &m);
    for (size_t c = 0; c < sums; c++) {
        for (size_t i = 0; i < len; i++) {
            u128 s0 = 0, s1 = 0;
            for (size_t j = 0; j < count; j++) {
                s0 += (u128)a0[j * stride + i] * b[len * (c * count + j) + i] % p;
                s1 += (u128)a1[j * stride + i] * b[len * (c * count + j) + i] % p;
            }
            if (r0[c * r_stride + i] != s0 % p || r1[c * r_stride + i] != s1 % p)
                fail_msg("p %llu, sum %zu of %zu, %zu products, length %zu, pattern %d: slot %zu",
                         (unsigned long long)p, c, sums, count, len, pattern, i);
        }
        for (size_t i = len; i < r_stride; i++)
            assert_true(r0[c * r_stride + i] == GUARD && r1[c * r_stride + i] == GUARD);
    }
    uint64_t *const all[] = {a0, a1, x0, x1, b, r0, r1};
    for (size_t i = 0; i < TEST_COUNT(all); i++) hemi_free(all[i]);
    hemi_free(w);
}

static void sums_of_products(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static const struct {
        size_t count, len, gap;
    } shape[] = {{1, 8, 0},   {2, 16, 8},     {3, 24, 0},  {8, 8, 8},    {15, 16, 0},  {16, 256, 0}, {17, 8, 24},
                 {31, 8, 0},  {32, 40, 0},    {33, 8, 8},  {47, 8, 0},   {48, 16, 0},  {64, 64, 0},  {65, 8, 0},
                 {100, 8, 0}, {16, 256, 768}, {511, 8, 0}, {1024, 8, 0}, {1023, 16, 8}};
    for (size_t pi = 0; pi < TEST_COUNT(primes); pi++)
        for (size_t s = 0; primes[pi] >> 48 == 0 && s < TEST_COUNT(shape); s++)
            for (int pattern = 0; pattern < PATTERNS; pattern++)
                one_dot(primes[pi], 1 + (s + pi) % 5, shape[s].count, shape[s].len, shape[s].gap, pattern, &rng);
}

/* ---- the product of key switching with several digits */

/* LARGEST sums, and sums that lose the most on the way: products that are 2^s - 1 modulo 2^(s+1), where doubles in reach of the sums are
 * multiples of 2^(s+1). */
static uint64_t gadget_operand(int pattern, size_t i, bool left, uint64_t p, test_rng *rng) {
    const uint64_t w = UINT64_C(0x2f0123456789) % (p / 2 + 1) | 1, half = UINT64_C(1) << 47;
    if (pattern == ONE_WAY) {
        uint64_t inverse = w;
        for (int k = 0; k < 6; k++) inverse *= 2 - w * inverse;
        return (left ? inverse * (half - 1) % (2 * half) : w) % p;
    }
    if (pattern == ALL_RANDOM && i % 3 == 0) return extreme(test_below(rng, 8), p);
    return dot_operand(pattern, left, p, rng);
}

static void one_gadget(uint64_t p, size_t digits, size_t n, int pattern, test_rng *rng) {
    const hemi_kernels *k = test_table();
    const hemi_modulus m = modulus(p);
    const size_t d_stride = n + 3, w_bytes = 6 * n + (digits % 2 ? 48 : 5);
    uint64_t *d = vector(digits * d_stride), *b = vector(2 * digits * n), *r0 = vector(n + 1), *r1 = vector(n + 1), *b1 = b + digits * n;
    uint8_t *w = malloc(2 * digits * w_bytes); /* exactly so much: a sanitizer sees what is read beyond */
    uint32_t *index = hemi_alloc(n, sizeof *index);
    assert_true(w && index);
    for (size_t i = 0; i < digits * d_stride; i++) d[i] = gadget_operand(pattern, i, true, p, rng);
    for (size_t i = 0; i < 2 * digits * n; i++) b[i] = gadget_operand(pattern, i, false, p, rng);
    for (size_t i = 0; i < 2 * digits; i++) k->dot_right(w + i * w_bytes, b + i * n, n, &m);
    for (int kind = 0; kind < 3; kind++) { /* no index, any index, that of an automorphism */
        if (kind == 2 && (n & (n - 1)) != 0) continue;
        for (size_t i = 0; i < n; i++) index[i] = (uint32_t)i;
        if (kind == 1) shuffle(index, n, rng);
        if (kind == 2) hemi_ring_automorphism_index(index, (uint32_t)__builtin_ctzll(n), 5);
        r0[n] = r1[n] = GUARD;
        k->gadget_product(r0, r1, d, d_stride, kind ? index : NULL, w, w + digits * w_bytes, w_bytes, digits, n, &m);
        for (size_t i = 0; i < n; i++) {
            u128 s0 = 0, s1 = 0;
            for (size_t j = 0; j < digits; j++) {
                s0 += (u128)d[j * d_stride + index[i]] * b[j * n + i];
                s1 += (u128)d[j * d_stride + index[i]] * b1[j * n + i];
            }
            if (r0[i] != s0 % p || r1[i] != s1 % p)
                fail_msg("p %llu, %zu digits, length %zu, pattern %d, index %d: slot %zu", (unsigned long long)p, digits, n, pattern, kind, i);
        }
        assert_true(r0[n] == GUARD && r1[n] == GUARD);
    }
    uint64_t *const all[] = {d, b, r0, r1};
    for (size_t i = 0; i < TEST_COUNT(all); i++) hemi_free(all[i]);
    free(w);
    hemi_free(index);
}

static void gadget_products(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static const size_t n[] = {64, 16, 8, 32, 40, 128, 24};
    for (size_t pi = 0; pi < TEST_COUNT(primes); pi++)
        for (size_t digits = 1; primes[pi] > 16 && primes[pi] >> 48 == 0 && digits <= HEMI_GADGET_DIGITS_MAX; digits += digits < 48 ? 1 : 8)
            for (int pattern = 0; pattern < PATTERNS; pattern++) {
                one_gadget(primes[pi], digits, 16, pattern, &rng);
                one_gadget(primes[pi], digits, n[(digits + (size_t)pattern) % TEST_COUNT(n)], pattern, &rng);
            }
}

/* ---- integer matrices */

enum { W_RANDOM, W_LEAST, W_MOST, W_SIGNS, W_PATTERNS };

static int16_t int_entry(int pattern, int limit, test_rng *rng) {
    switch (pattern) {
    case W_LEAST:
        return (int16_t)-limit;
    case W_MOST:
        return (int16_t)(limit - 1);
    case W_SIGNS:
        return (int16_t)(test_below(rng, 2) ? -limit : limit - 1);
    default:
        return (int16_t)((int)test_below(rng, 2 * (uint64_t)limit) - limit);
    }
}

/* Residues whose limbs are all as large as they get, in every form that a table might choose. */
static uint64_t int_residue(size_t pattern, uint64_t p, test_rng *rng) {
    const uint64_t of[] = {p - 1,
                           0,
                           p / 2,
                           p / 2 + 1,
                           UINT64_C(0x7fff7fff7fff) % p,
                           UINT64_C(0x7ff7ff7ff7ff) % p,
                           (2 * p - UINT64_C(0x800080008000) % p) % p,
                           (2 * p - UINT64_C(0x800800800800) % p) % p,
                           UINT64_C(0x7fffffffffff) % p,
                           UINT64_C(0xfeffffffffff) % p};
    return pattern < TEST_COUNT(of) ? of[pattern] : test_below(rng, p);
}
enum { INT_RESIDUES = 10 };

static uint64_t int_expected(const int16_t *w, const uint64_t *a, size_t stride, size_t columns, uint64_t p) {
    __extension__ __int128 sum = 0;
    for (size_t j = 0; j < columns; j++) sum += (__int128)w[j] * (int64_t)a[j * stride];
    const __int128 r = sum % (__int128)p;
    return (uint64_t)(r < 0 ? r + (__int128)p : r);
}

/* A right side brought in as one piece or in several, the product of rows first .. rows-1. */
static void int_one(uint64_t p, uint32_t rows, uint32_t columns, size_t count, int limit, int wp, size_t rp, test_rng *rng) {
    const hemi_kernels *k = test_table();
    const hemi_modulus m = modulus(p);
    const size_t stride = count + 3, r_stride = count + 2;
    int16_t *w = hemi_alloc((size_t)rows * columns, sizeof *w);
    uint64_t *a = vector(columns * stride), *r = vector(rows * r_stride);
    assert_non_null(w);
    for (size_t i = 0; i < (size_t)rows * columns; i++) w[i] = int_entry(wp, limit, rng);
    if (wp == W_RANDOM) w[0] = (int16_t)-limit; /* the width follows from the largest */
    for (size_t i = 0; i < columns * stride; i++) a[i] = int_residue(rp, p, rng);
    for (size_t i = 0; i < rows * r_stride; i++) r[i] = GUARD;
    hemi_int_matrix matrix;
    assert_ok(hemi_int_matrix_init(&matrix, rows, columns, w, NULL), NULL);
    assert_int_equal(matrix.width, limit <= 128 ? 1 : 2);
    void *right = hemi_alloc(k->int_right_bytes(&matrix, count), 1);
    assert_non_null(right);
    const uint32_t piece = count == 1 || columns < 8 ? columns : (columns / 2 + 3) / 4 * 4;
    for (uint32_t j = 0; j < columns; j += piece)
        k->int_right(right, a + j * stride, stride, j, columns - j < piece ? columns - j : piece, count, &matrix, &m);
    const uint32_t first = rows > 2 ? 1 : 0;
    k->int_product(r + first * r_stride, r_stride, &matrix, first, rows - first, right, count, &m);
    for (size_t i = 0; i < rows; i++)
        for (size_t c = 0; c < r_stride; c++) {
            const uint64_t expected =
                i < first || c >= count ? GUARD : int_expected(w + i * columns, a + c, stride, columns, p);
            if (r[i * r_stride + c] != expected)
                fail_msg("p %llu, %u x %u, %zu columns, entries up to %d (pattern %d), residues %zu: row %zu, column %zu: %llu, not %llu",
                         (unsigned long long)p, rows, columns, count, limit, wp, rp, i, c,
                         (unsigned long long)r[i * r_stride + c], (unsigned long long)expected);
        }
    hemi_int_matrix_clear(&matrix);
    hemi_free(right);
    hemi_free(w);
    hemi_free(a);
    hemi_free(r);
}

static const int int_limits[] = {128, 2048, 32768, 300};

static void integer_products(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static const struct {
        uint32_t rows, columns;
        size_t count;
    } shape[] = {{1, 1, 1},     {1, 1, 2},    {2, 3, 1},     {3, 2, 3},   {5, 7, 33},   {4, 64, 1},   {7, 65, 16},
                 {13, 129, 31}, {64, 63, 32}, {65, 100, 1},  {130, 5, 2}, {12, 31, 64}, {25, 48, 65}, {6, 511, 5},
                 {3, 1023, 7},  {9, 4097, 1}, {14, 1030, 17}};
    for (size_t pi = 0; pi < TEST_COUNT(primes); pi++)
        for (size_t s = 0; primes[pi] >> 32 != 0 && primes[pi] >> 48 == 0 && s < TEST_COUNT(shape); s++)
            for (size_t l = 0; l < TEST_COUNT(int_limits); l++)
                int_one(primes[pi], shape[s].rows, shape[s].columns, shape[s].count, int_limits[l], W_RANDOM, INT_RESIDUES, &rng);
}

/* Sums that are as large as they get, on the longest row there may be too. */
static void integer_products_at_their_bounds(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t l = 0; l < TEST_COUNT(int_limits); l++)
        for (int wp = W_LEAST; wp < W_PATTERNS; wp++)
            for (size_t rp = 0; rp <= INT_RESIDUES; rp++)
                for (size_t count = 1; count <= 2; count++) {
                    int_one(rp % 2 ? P48 : UINT64_C(281474976710597), 2, 8200, count, int_limits[l], wp, rp, &rng);
                    if (!test_quick() || rp % 4 == 0)
                        int_one(P48, 1, HEMI_INT_COLUMNS_MAX, count, int_limits[l], wp, rp, &rng);
                }
    hemi_int_matrix matrix;
    const int16_t w[1] = {0};
    assert_status(hemi_int_matrix_init(&matrix, 1, HEMI_INT_COLUMNS_MAX + 1, w, NULL), HEMI_ERR_ARGUMENT);
    assert_status(hemi_int_matrix_init(&matrix, 0, 1, w, NULL), HEMI_ERR_ARGUMENT);
    assert_status(hemi_int_matrix_init(&matrix, 1, 0, w, NULL), HEMI_ERR_ARGUMENT);
    hemi_int_matrix_clear(&matrix);
}

/* ---- transforms */

static uint64_t transform_operand(size_t pattern, size_t i, uint64_t p, test_rng *rng) {
    switch (pattern) {
    case 0:
        return p - 1;
    case 1:
        return p / 2;
    case 2:
        return p / 2 + 1;
    case 3:
        return i & 1 ? p - 1 : 0;
    case 4:
        return __builtin_parityll(i) ? p / 2 : p / 2 + 1;
    case 5:
        return extreme(test_below(rng, 8), p);
    case 6:
        return i == 1 ? p - 1 : 0;
    default:
        return test_below(rng, p);
    }
}

static void transforms_are_those_of_the_portable_table(void **state) {
    (void)state;
    const hemi_kernels *k = test_table(), *portable = &hemi_kernels_portable;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = HEMI_RING_LOG2_N_MIN; log2_n <= HEMI_RING_LOG2_N_MAX; log2_n++) {
        const size_t n = (size_t)1 << log2_n;
        uint64_t p[] = {0, 0, UINT64_C(1) << 31, UINT64_C(1) << 40, P48, P50, R50, UINT64_C(1) << 50};
        uint64_t *a = vector(n + 1), *b = vector(n + 1), *from = vector(n), *kept = vector(n);
        for (size_t pi = 0; pi < TEST_COUNT(p); pi++) {
            /* the two least, the largest below 2^31, 2^40 and 2^50, and those in use */
            if (pi < 2)
                p[pi] = pi == 0 ? 2 * n + 1 : p[0] + 2 * n;
            else if ((p[pi] & 1) == 0)
                p[pi] -= 2 * n - 1;
            while (!hemi_is_prime(p[pi])) p[pi] = pi < 2 ? p[pi] + 2 * n : p[pi] - 2 * n;
            hemi_ring *fast, *plain;
            assert_ok(hemi_ring_new(&fast, log2_n, &p[pi], 1, k, NULL), NULL);
            assert_ok(hemi_ring_new(&plain, log2_n, &p[pi], 1, portable, NULL), NULL);
            for (size_t r = 0; r < 8 + (n < 4096 ? 8 : 2); r++)
                for (size_t what = 0; what < 3; what++) { /* ntt, intt in place, intt from elsewhere */
                    for (size_t i = 0; i < n; i++)
                        a[i] = b[i] = from[i] = kept[i] = transform_operand(r, i, p[pi], &rng);
                    a[n] = b[n] = GUARD;
                    if (what == 0) {
                        k->ntt(a, fast->limb);
                        portable->ntt(b, plain->limb);
                    } else {
                        if (what == 2) memset(a, 0xee, n * sizeof *a);
                        k->intt(a, what == 1 ? a : from, fast->limb);
                        portable->intt(b, b, plain->limb);
                    }
                    if (memcmp(a, b, (n + 1) * sizeof *a) != 0 || memcmp(from, kept, n * sizeof *from) != 0)
                        fail_msg("transform %zu, n %zu, p %llu, operand %zu", what, n, (unsigned long long)p[pi], r);
                }
            hemi_ring_free(fast);
            hemi_ring_free(plain);
        }
        hemi_free(a);
        hemi_free(b);
        hemi_free(from);
        hemi_free(kept);
    }
}

/* The largest ring with primes of 31, 34 and 48 bits, as levelled parameter sets have them: all that their operations use. */
static void large_rings_of_small_primes(void **state) {
    (void)state;
    enum { LOG2_N = HEMI_RING_LOG2_N_MAX, N = 1 << LOG2_N, PRIMES = 3 };
    const hemi_kernels *k = test_table(), *portable = &hemi_kernels_portable;
    const uint64_t p[PRIMES] = {UINT64_C(2147352577), UINT64_C(17176854529), P48};
    test_rng rng = test_rng_new();
    hemi_ring *fast, *plain;
    assert_ok(hemi_ring_new(&fast, LOG2_N, p, PRIMES, k, NULL), NULL);
    assert_ok(hemi_ring_new(&plain, LOG2_N, p, PRIMES, portable, NULL), NULL);
    uint64_t *a = vector(N), *b = vector(N), *c = vector(N), *w = vector(N), *v = vector(N), *r = vector(N), *s = vector(N);
    const size_t bytes = N * sizeof *a;
    for (size_t i = 0; i < PRIMES; i++)
        for (size_t operand = 0; operand < 9; operand += operand == 0 ? 5 : 1) {
            const hemi_limb *l = &fast->limb[i], *q = &plain->limb[i];
            for (size_t j = 0; j < N; j++) {
                a[j] = transform_operand(operand, j, p[i], &rng);
                b[j] = transform_operand(5, j, p[i], &rng);
                c[j] = transform_operand(7, j, p[i], &rng);
            }
            const uint64_t factor = test_below(&rng, p[i]);
            k->fix(w, b, N, &l->m);
            portable->fix(v, b, N, &q->m);
#define SAME(call_r, call_s)                                                                                           \
    do {                                                                                                               \
        memcpy(r, c, bytes);                                                                                           \
        memcpy(s, c, bytes);                                                                                           \
        k->call_r;                                                                                                     \
        portable->call_s;                                                                                              \
        if (memcmp(r, s, bytes) != 0) fail_msg("p %llu, operand %zu: " #call_r, (unsigned long long)p[i], operand);    \
    } while (0)
            SAME(ntt(memcpy(r, a, bytes), l), ntt(memcpy(s, a, bytes), q));
            SAME(intt(r, a, l), intt(s, a, q));
            for (size_t to = 0; to < PRIMES; to++)
                SAME(lift(r, a, N, &l->m, &fast->limb[to].m), lift(s, a, N, &q->m, &plain->limb[to].m));
            SAME(sub_mul_scalar(r, a, b, factor, N, &l->m), sub_mul_scalar(s, a, b, factor, N, &q->m));
            SAME(mul_scalar(r, a, factor, N, &l->m), mul_scalar(s, a, factor, N, &q->m));
            SAME(mul_add(r, a, b, N, &l->m), mul_add(s, a, b, N, &q->m));
            SAME(mul_fixed(r, a, w, N, &l->m), mul_fixed(s, a, v, N, &q->m));
            SAME(mul_add_fixed(r, a, w, N, &l->m), mul_add_fixed(s, a, v, N, &q->m));
#undef SAME
        }
    uint64_t *const all[] = {a, b, c, w, v, r, s};
    for (size_t i = 0; i < TEST_COUNT(all); i++) hemi_free(all[i]);
    hemi_ring_free(fast);
    hemi_ring_free(plain);
}

/* ---- choosing a table */

static void tables_are_found_by_name(void **state) {
    (void)state;
    const hemi_kernels *k, *last = NULL;
    size_t i = 0;
    for (; (k = hemi_kernels_at(i)) != NULL; last = k, i++) assert_ptr_equal(hemi_kernels_by_name(k->name), k);
    assert_ptr_equal(hemi_kernels_at(0), &hemi_kernels_portable);
    assert_null(hemi_kernels_at(i + 1));
    assert_null(hemi_kernels_by_name("avx"));
    assert_ptr_equal(hemi_kernels_default(), test_table()); /* HEMI_KERNEL names it */
#if defined(__x86_64__)
    assert_true((hemi_kernels_by_name("avx2") != NULL) == hemi_cpu_has_avx2_fma());
    assert_true((hemi_kernels_by_name("avx512") != NULL) == hemi_cpu_has_avx512_ifma());
#endif
    char *name = hemi_strdup(getenv("HEMI_KERNEL"));
    assert_non_null(name);
    setenv("HEMI_KERNEL", "no such table", 1);
    assert_ptr_equal(hemi_kernels_default(), last);
    unsetenv("HEMI_KERNEL");
    assert_ptr_equal(hemi_kernels_default(), last);
    setenv("HEMI_KERNEL", name, 1);
    hemi_free(name);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(sums_and_differences, set_up, tear_down),
    cmocka_unit_test_setup_teardown(products, set_up, tear_down),
    cmocka_unit_test_setup_teardown(products_with_fixed_operands, set_up, tear_down),
    cmocka_unit_test_setup_teardown(permutations, set_up, tear_down),
    cmocka_unit_test_setup_teardown(lifts_between_primes, set_up, tear_down),
    cmocka_unit_test(mixed_radix),
    cmocka_unit_test_setup_teardown(switches_down, set_up, tear_down),
    cmocka_unit_test_setup_teardown(switches_up, set_up, tear_down),
    cmocka_unit_test_setup_teardown(small_integers, set_up, tear_down),
    cmocka_unit_test(sums_of_products),
    cmocka_unit_test(gadget_products),
    cmocka_unit_test(integer_products),
    cmocka_unit_test(integer_products_at_their_bounds),
    cmocka_unit_test(transforms_are_those_of_the_portable_table),
    cmocka_unit_test(large_rings_of_small_primes),
    cmocka_unit_test(tables_are_found_by_name),
};

int main(void) { return TEST_RUN_PER_TABLE("kernels", tests); }
