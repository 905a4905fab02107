/* The AVX-512 kernels that work slot by slot, and their table. Bounds: avx512.h.
 *
 * Fixed form: w = a 2^52 mod p (Montgomery). */
#include "ring/avx512.h"

/* Runs the body for i = 0, 8, ... with `lanes` the elements present: the last step may have fewer than 8. */
#define EACH_VECTOR(n, ...)                                                                                            \
    do {                                                                                                               \
        size_t i = 0;                                                                                                  \
        for (; i + 8 <= (n); i += 8) {                                                                                 \
            const bool whole = true;                                                                                   \
            const __mmask8 lanes = 0xff;                                                                               \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
        if (i < (n)) {                                                                                                 \
            const bool whole = false;                                                                                  \
            const __mmask8 lanes = (__mmask8)((1u << ((n)-i)) - 1);                                                    \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    } while (0)
#define GET(p)    (whole ? load((p) + i) : _mm512_maskz_loadu_epi64(lanes, (p) + i))
#define PUT(p, x) (whole ? store((p) + i, x) : _mm512_mask_storeu_epi64((p) + i, lanes, x))

static void add_(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    const prime_avx512 c = prime_of(m);
    EACH_VECTOR(n, PUT(r, below_p(add(GET(a), GET(b)), &c)););
}

/* a - b mod p; negative numbers are the larger ones */
HEMI_INLINE vi difference(vi a, vi b, const prime_avx512 *c) {
    const vi d = sub(a, b);
    return smaller(d, add(d, c->p));
}

static void sub_(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    const prime_avx512 c = prime_of(m);
    EACH_VECTOR(n, PUT(r, difference(GET(a), GET(b), &c)););
}

/* Barrett, for factors that are not known beforehand. With 2^(s-1) < p < 2^s, u = floor(a b / 2^(s-2)) < 2^52 and
 * M = floor(2^(s+50) / p), 2^50 < M < 2^51, q = floor(u M / 2^52) is short of a b / p by less than
 * M / 2^52 + u / 2^52 + 1 < 5/2. The remainder a b - q p + c, c < p, is in [0, 7/2). */
typedef struct barrett {
    prime_avx512 c;
    vi twice_p, reciprocal, shift;
} barrett;

HEMI_INLINE barrett barrett_of(const hemi_modulus *m) {
    /* floor(2^128 / p) / 2^(78-s) */
    const hemi_u128 reciprocal = (hemi_u128)m->barrett_hi << 64 | m->barrett_lo;
    return (barrett){prime_of(m), all(2 * m->p), all((uint64_t)(reciprocal >> (78 - m->bits))), all(52 - m->bits)};
}

HEMI_INLINE vi mul_barrett(vi a, vi b, vi addend, const barrett *k) {
    const vi u = hi(zero(), _mm512_sllv_epi64(a, k->shift), _mm512_slli_epi64(b, 2));
    const vi r = low52(lo(lo(addend, a, b), hi(zero(), u, k->reciprocal), k->c.minus_p));
    return below_p(smaller(r, sub(r, k->twice_p)), &k->c);
}

static void mul_(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    const barrett k = barrett_of(m);
    EACH_VECTOR(n, PUT(r, mul_barrett(GET(a), GET(b), zero(), &k)););
}

static void mul_add_(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    const barrett k = barrett_of(m);
    EACH_VECTOR(n, PUT(r, mul_barrett(GET(a), GET(b), GET(r), &k)););
}

static void mul_scalar_(uint64_t *r, const uint64_t *a, uint64_t s, size_t n, const hemi_modulus *m) {
    const prime_avx512 c = prime_of(m);
    const vi w = all(s), v = all(quotient52(s, m));
    EACH_VECTOR(n, PUT(r, mul_by(GET(a), w, v, &c)););
}

static void sub_mul_scalar_(uint64_t *r, const uint64_t *a, const uint64_t *b, uint64_t s, size_t n,
                            const hemi_modulus *m) {
    const prime_avx512 c = prime_of(m);
    const vi w = all(s), v = all(quotient52(s, m));
    EACH_VECTOR(n, PUT(r, mul_by(add(sub(GET(a), GET(b)), c.p), w, v, &c)););
}

static void fix_(uint64_t *w, const uint64_t *a, size_t n, const hemi_modulus *m) { mul_scalar_(w, a, m->r52, n, m); }

/* Montgomery: with u = a w mod 2^52 and t = u / p mod 2^52, a w - t p is 2^52 (hi(a w) - hi(t p)) exactly. */
typedef struct montgomery {
    vi p, inverse; /* 1/p mod 2^52 */
} montgomery;

HEMI_INLINE montgomery montgomery_of(const hemi_modulus *m) {
    return (montgomery){all(m->p), all(m->inverse64 & MASK52)};
}

/* addend + a w, in (-p, p) if addend is 0, in (-p, 2p) if it is below p; a w < 2^52 p */
HEMI_INLINE vi mul_montgomery(vi a, vi w, vi addend, const montgomery *k) {
    const vi t = lo(zero(), lo(zero(), a, w), k->inverse);
    return sub(hi(addend, a, w), hi(zero(), t, k->p));
}
HEMI_INLINE vi nonnegative(vi x, const montgomery *k) { return smaller(x, add(x, k->p)); }

static void mul_fixed_(uint64_t *r, const uint64_t *a, const uint64_t *w, size_t n, const hemi_modulus *m) {
    const montgomery k = montgomery_of(m);
    EACH_VECTOR(n, PUT(r, nonnegative(mul_montgomery(GET(a), GET(w), zero(), &k), &k)););
}

static void mul_add_fixed_(uint64_t *r, const uint64_t *a, const uint64_t *w, size_t n, const hemi_modulus *m) {
    const montgomery k = montgomery_of(m);
    const prime_avx512 c = prime_of(m);
    EACH_VECTOR(n, PUT(r, below_p(nonnegative(mul_montgomery(GET(a), GET(w), GET(r), &k), &k), &c)););
}

/* a[index[i]] for 8 indices. An automorphism takes aligned groups of 8 slots to such groups (their numbers differ in the
 * leading bits of the exponent only): one load and a permutation; any other index is gathered. The index is public. */
HEMI_INLINE vi pick(const uint64_t *a, const uint32_t *index) {
    const __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)index);
    const uint32_t group = index[0] & ~7u;
    const __m256i other = _mm256_xor_si256(at, _mm256_set1_epi32((int)group));
    if (__builtin_expect(_mm256_test_epi32_mask(other, _mm256_set1_epi32(~7)) != 0, 0))
        return _mm512_i32gather_epi64(at, (const void *)a, 8);
    return _mm512_permutexvar_epi64(_mm512_cvtepu32_epi64(at), load(a + group));
}
HEMI_INLINE vi pick_some(const uint64_t *a, const uint32_t *index, __mmask8 lanes) {
    const __m256i at = _mm256_maskz_loadu_epi32(lanes, index);
    return _mm512_mask_i32gather_epi64(zero(), lanes, at, (const void *)a, 8);
}
#define PICK(a, index) (whole ? pick(a, (index) + i) : pick_some(a, (index) + i, lanes))

static void permute_(uint64_t *r, const uint64_t *a, const uint32_t *index, size_t n) {
    EACH_VECTOR(n, PUT(r, PICK(a, index)););
}

/* Loads come before stores: all these arrays lie at the same place of their pages, and a load waits for an earlier store to
 * the same place of another page. Keys come from the second-level cache at best. */
enum { KEY_AHEAD = 1024 }; /* bytes */

static void keyswitch_product_(uint64_t *r0, uint64_t *r1, const uint64_t *d, const uint64_t *e, const uint32_t *index,
                               const uint64_t *w0, const uint64_t *w1, size_t n, const hemi_modulus *m) {
    const montgomery k = montgomery_of(m);
    const prime_avx512 c = prime_of(m);
    if (e)
        EACH_VECTOR(n, {
            const vi v = PICK(d, index), x = mul_montgomery(v, GET(w0), PICK(e, index), &k);
            const vi y = mul_montgomery(v, GET(w1), zero(), &k);
            _mm_prefetch((const char *)((uintptr_t)(w0 + i) + KEY_AHEAD), _MM_HINT_T0);
            _mm_prefetch((const char *)((uintptr_t)(w1 + i) + KEY_AHEAD), _MM_HINT_T0);
            PUT(r0, below_p(nonnegative(x, &k), &c));
            PUT(r1, nonnegative(y, &k));
        });
    else
        EACH_VECTOR(n, {
            const vi v = PICK(d, index), x = mul_montgomery(v, GET(w0), zero(), &k);
            const vi y = mul_montgomery(v, GET(w1), zero(), &k);
            _mm_prefetch((const char *)((uintptr_t)(w0 + i) + KEY_AHEAD), _MM_HINT_T0);
            _mm_prefetch((const char *)((uintptr_t)(w1 + i) + KEY_AHEAD), _MM_HINT_T0);
            PUT(r0, nonnegative(x, &k));
            PUT(r1, nonnegative(y, &k));
        });
}

/* A negative centred residue is a - from; the least multiple of `to` that is not less than `from`, below 2^51, makes it
 * nonnegative, below 2^52. */
static void lift_(uint64_t *r, const uint64_t *a, size_t n, const hemi_modulus *from, const hemi_modulus *to) {
    const prime_avx512 c = prime_of(to);
    const vi half = all(from->p / 2), shift = all((from->p + to->p - 1) / to->p * to->p - from->p);
    EACH_VECTOR(n, {
        const vi x = GET(a);
        PUT(r, canonical(_mm512_mask_add_epi64(x, _mm512_cmpgt_epu64_mask(x, half), x, shift), &c));
    });
}

/* With u_j = x_j + (f_j - 1)/2, in [0, f_j), and w_j what is before x_j, in Montgomery's form: start + u_0 + sum of u_j w_j. A step of
 * Montgomery's on the sum of products, as in dot_avx512.c: start, in [p, 2p), less than 2^50 and 4 times p/4 are below 2^52. */
typedef struct mixed {
    prime_avx512 c;
    vi inverse_of_p, start, half[HEMI_MIXED_MAX], from[HEMI_MIXED_MAX], w[HEMI_MIXED_MAX];
} mixed;

HEMI_INLINE vi nonnegative_digit(vi x, size_t j, const mixed *k) {
    const vi u = add(x, k->half[j]);
    return smaller(u, sub(u, k->from[j]));
}

HEMI_INLINE void lift_digits(uint64_t *r, const uint64_t *x, size_t stride, size_t count, size_t n, const mixed *k) {
    EACH_VECTOR(n, {
        vi low = zero(), high = add(k->start, nonnegative_digit(GET(x), 0, k));
        for (size_t j = 1; j < count; j++) {
            const vi u = nonnegative_digit(GET(x + j * stride), j, k);
            low = lo(low, u, k->w[j]);
            high = hi(high, u, k->w[j]);
        }
        const vi t = lo(zero(), low, k->inverse_of_p);
        PUT(r, canonical(sub(add(high, _mm512_srli_epi64(low, 52)), hi(zero(), t, k->c.p)), &k->c));
    });
}

static void lift_mixed_(uint64_t *r, const uint64_t *x, size_t stride, const hemi_modulus *const *from, size_t count, size_t n,
                        const hemi_modulus *to) {
    mixed k = {.c = prime_of(to), .inverse_of_p = all(to->inverse64 & MASK52)};
    uint64_t before = 1 % to->p, halves = 0;
    for (size_t j = 0; j < count; j++) {
        const uint64_t half = (from[j]->p - 1) / 2;
        k.half[j] = all(half);
        k.from[j] = all(from[j]->p);
        k.w[j] = all(hemi_mod_mul(before, to->r52, to));
        halves = hemi_mod_add(halves, hemi_mod_mul(before, half % to->p, to), to);
        before = hemi_mod_mul(before, from[j]->p % to->p, to);
    }
    k.start = all(to->p + hemi_mod_neg(halves, to));
    if (count == 1)
        lift_(r, x, n, from[0], to);
    else if (count == 2)
        lift_digits(r, x, stride, 2, n, &k);
    else
        lift_digits(r, x, stride, count, n, &k);
}

/* 2^bits = W p + w: floor((a 2^bits + h) / p) = a W + floor((a w + h) / p), and the quotient q of a w is short by at most 1,
 * its remainder in [0, 2), to which h = (p-1)/2 is added. */
static void switch_down_(uint64_t *r, const uint64_t *a, size_t n, unsigned bits, const hemi_modulus *m) {
    const uint64_t power = UINT64_C(1) << bits;
    const prime_avx512 c = prime_of(m);
    const vi w = all(power % m->p), v = all(quotient52(power % m->p, m)), whole_part = all(power / m->p);
    const vi to_p = all(m->p - m->p / 2), to_2p = all(2 * m->p - m->p / 2), kept = all(power - 1), one = all(1);
    EACH_VECTOR(n, {
        const vi x = GET(a);
        const vi q = hi(zero(), x, v);
        const vi rest = low52(lo(lo(zero(), x, w), q, c.minus_p));
        vi y = lo(q, x, whole_part);
        y = _mm512_mask_add_epi64(y, _mm512_cmpge_epu64_mask(rest, to_p), y, one);
        y = _mm512_mask_add_epi64(y, _mm512_cmpge_epu64_mask(rest, to_2p), y, one);
        PUT(r, _mm512_and_si512(y, kept));
    });
}

/* a p = 2^52 high + low; bits <= 50, so 2^52 high / 2^bits is an integer. The result is at most p. */
static void from_int16_(uint64_t *r, const int16_t *a, size_t n, const hemi_modulus *m) {
    const vi p = all(m->p);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const vi v = _mm512_cvtepi16_epi64(_mm_loadu_si128((const __m128i *)(const void *)(a + i)));
        store(r + i, _mm512_mask_add_epi64(v, _mm512_movepi64_mask(v), v, p));
    }
    if (i < n) hemi_kernels_portable.from_int16(r + i, a + i, n - i, m);
}

static void switch_up_(uint64_t *r, const uint64_t *a, size_t n, unsigned bits, const hemi_modulus *m) {
    const prime_avx512 c = prime_of(m);
    const vi half = all(UINT64_C(1) << (bits - 1)), down = all(bits), up = all(52 - bits);
    EACH_VECTOR(n, {
        const vi x = GET(a);
        const vi low = _mm512_srlv_epi64(lo(half, x, c.p), down);
        PUT(r, below_p(add(_mm512_sllv_epi64(hi(zero(), x, c.p), up), low), &c));
    });
}

const hemi_kernels hemi_kernels_avx512 = {
    .name = "avx512",
    .twiddle_bytes = hemi_avx512_twiddle_bytes,
    .twiddle_init = hemi_avx512_twiddle_init,
    .ntt = hemi_avx512_ntt,
    .intt = hemi_avx512_intt,
    .add = add_,
    .sub = sub_,
    .mul = mul_,
    .mul_add = mul_add_,
    .mul_scalar = mul_scalar_,
    .fix = fix_,
    .mul_fixed = mul_fixed_,
    .mul_add_fixed = mul_add_fixed_,
    .permute = permute_,
    .keyswitch_product = keyswitch_product_,
    .gadget_product = hemi_avx512_gadget_product,
    .lift = lift_,
    .lift_mixed = lift_mixed_,
    .sub_mul_scalar = sub_mul_scalar_,
    .switch_down = switch_down_,
    .from_int16 = from_int16_,
    .switch_up = switch_up_,
    .dot_left = hemi_avx512_dot_left,
    .dot_right = hemi_avx512_dot_right,
    .dot2 = hemi_avx512_dot2,
    .int_right_bytes = hemi_avx512_int_right_bytes,
    .int_right = hemi_avx512_int_right,
    .int_product = hemi_avx512_int_product,
};
