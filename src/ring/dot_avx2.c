/* The sum of products of the AVX2 table: p < 2^48, two sums that share one factor (arithmetic: avx2.h).
 *
 * Both factors are centred, so below 2^47. A sum is kept in two doubles. `high` starts at 1.5 2^100 and takes every product
 * with one FMA; it stays in [2^100, 2^101], where doubles are multiples of 2^48. `low` takes what the rounding dropped: the
 * difference of the old and the new `high` is exact, one more FMA adds the product to it, exactly, and what comes out is below
 * 2^47. That makes four instructions per product, half of them on the adders, none of them a multiplication of halves. After
 * GROUP products high is below 2^99 off its start and low below 2^52, and the two are brought back to one number modulo p:
 * (high - start) mod p is one more FMA because the number is a double.
 */
#include <string.h>

#include "ring/avx2.h"

#define GROUP 32       /* products before low may reach 2^53 */
#define START 0x1.8p100
#define BIAS  0x1p47   /* right factors are stored as w + 2^47, in 6 bytes */

void hemi_avx2_dot_right(uint8_t *w, const uint64_t *a, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) {
        const uint64_t v = (uint64_t)hemi_mod_centre(a[i], m) + (UINT64_C(1) << 47);
        memcpy(w + 6 * i, &v, 6); /* x86-64 is little-endian */
    }
}

/* Four right factors from 24 bytes. */
HEMI_INLINE vf load_right(const uint8_t *w) {
    const vi bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)w)),
                                             _mm_loadu_si128((const __m128i *)(const void *)(w + 8)), 1);
    const vi order = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, -1, -1, 6, 7, 8, 9, 10, 11, -1, -1, /* the second half is */
                                      4, 5, 6, 7, 8, 9, -1, -1, 10, 11, 12, 13, 14, 15, -1, -1); /* bytes 8 to 23 */
    const vi bits = _mm256_or_si256(_mm256_shuffle_epi8(bytes, order), _mm256_castpd_si256(all(TWO52)));
    return sub(_mm256_castsi256_pd(bits), all(TWO52 + BIAS));
}

typedef struct sum {
    vf high, low;
} sum;

HEMI_INLINE void accumulate(sum *s, vf x, vf w) {
    const vf high = fma_(x, w, s->high);
    s->low = add(s->low, fma_(x, w, sub(s->high, high)));
    s->high = high;
}

/* Everything in low, |low| <= p/2, and high at its start. */
HEMI_INLINE void normalise(sum *s, const prime_avx2 *m) {
    const vf high = sub(s->high, all(START));
    s->low = reduce(add(s->low, reduce(high, m)), m);
    s->high = all(START);
}

/* Eight coefficients: eight chains of dependent instructions. */
HEMI_INLINE void dot8(uint64_t *r0, uint64_t *r1, const uint64_t *x0, const uint64_t *x1, size_t stride, const uint8_t *w,
                      size_t count, size_t len, const prime_avx2 *m) {
    const sum zero = {all(START), all(0)};
    sum s[4] = {zero, zero, zero, zero};
    size_t k = 0;
    while (k < count) {
        const size_t end = count - k < GROUP ? count : k + GROUP;
        for (; k < end; k++, x0 += stride, x1 += stride, w += 6 * len) {
            const vf w0 = load_right(w), w1 = load_right(w + 24);
            accumulate(&s[0], load(x0), w0);
            accumulate(&s[1], load(x0 + 4), w1);
            accumulate(&s[2], load(x1), w0);
            accumulate(&s[3], load(x1 + 4), w1);
        }
        for (size_t i = 0; i < 4; i++) normalise(&s[i], m);
    }
    store_int(r0, canonical_near(s[0].low, m->p));
    store_int(r0 + 4, canonical_near(s[1].low, m->p));
    store_int(r1, canonical_near(s[2].low, m->p));
    store_int(r1 + 4, canonical_near(s[3].low, m->p));
}

void hemi_avx2_dot2(uint64_t *r0, uint64_t *r1, const uint64_t *x0, const uint64_t *x1, size_t stride, const uint8_t *w,
                    size_t count, size_t len, const hemi_modulus *m) {
    const prime_avx2 prime = prime_of(m);
    for (size_t i = 0; i < len; i += 8) dot8(r0 + i, r1 + i, x0 + i, x1 + i, stride, w + 6 * i, count, len, &prime);
}
