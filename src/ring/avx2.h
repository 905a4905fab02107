/* What the AVX2 kernels share: arithmetic modulo p < 2^50 on doubles. Included by *_avx2.c only.
 *
 * Every double here holds an integer, and every step is exact, or is a quotient whose error is stated; so the
 * results do not depend on the machine. It takes rounding to nearest, the default of every thread, and code compiled
 * with -ffp-contract=off. "x <= B" below means |x| <= B p.
 *
 * The product, after Dekker: h = a w rounded, l = a w - h (one FMA, exact), q = the integer nearest to a (w / p), and
 * a w - q p = (h - q p) + l, both steps exact because the results are small integers. */
#ifndef HEMI_RING_AVX2_H
#define HEMI_RING_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/kernels.h"

#define HEMI_INLINE static inline __attribute__((always_inline))

typedef __m256d vf;
typedef __m256i vi;

/* Adding 1.5 2^52 rounds any |x| <= 2^51 to an integer, in one instruction instead of vroundpd's two. */
#define ROUNDER 0x1.8p52
#define TWO52   0x1p52

HEMI_INLINE vf all(double x) { return _mm256_set1_pd(x); }
HEMI_INLINE vf add(vf a, vf b) { return _mm256_add_pd(a, b); }
HEMI_INLINE vf sub(vf a, vf b) { return _mm256_sub_pd(a, b); }
HEMI_INLINE vf mul(vf a, vf b) { return _mm256_mul_pd(a, b); }
HEMI_INLINE vf fma_(vf a, vf b, vf c) { return _mm256_fmadd_pd(a, b, c); }   /* c + a b */
HEMI_INLINE vf fms_(vf a, vf b, vf c) { return _mm256_fmsub_pd(a, b, c); }   /* a b - c */
HEMI_INLINE vf fnma_(vf a, vf b, vf c) { return _mm256_fnmadd_pd(a, b, c); } /* c - a b */

HEMI_INLINE vf load(const void *p) { return _mm256_loadu_pd((const double *)p); }
HEMI_INLINE void store(void *p, vf x) { _mm256_storeu_pd((double *)p, x); }
HEMI_INLINE vi load_int(const void *p) { return _mm256_loadu_si256((const vi *)p); }
HEMI_INLINE void store_int(void *p, vi x) { _mm256_storeu_si256((vi *)p, x); }

/* a[index[i]]: four loads; on a processor whose microcode guards vpgatherqq, that takes four times as long. */
HEMI_INLINE vi gather(const uint64_t *a, const uint32_t *index) {
    return _mm256_set_epi64x((long long)a[index[3]], (long long)a[index[2]], (long long)a[index[1]],
                             (long long)a[index[0]]);
}

/* Unsigned integers below 2^52 to doubles and back: they are the low bits of 2^52 + x. */
HEMI_INLINE vf from_int(vi a) {
    return sub(_mm256_castsi256_pd(_mm256_or_si256(a, _mm256_castpd_si256(all(TWO52)))), all(TWO52));
}
HEMI_INLINE vi low_bits(vf x_plus_two52) { return _mm256_castpd_si256(_mm256_xor_pd(x_plus_two52, all(TWO52))); }
HEMI_INLINE vi to_int(vf x) { return low_bits(add(x, all(TWO52))); }

/* The integer nearest to a b, |a b| <= 2^51 (a tie, or a double that is just off one, may go either way). */
HEMI_INLINE vf nearest(vf a, vf b) { return sub(fma_(a, b, all(ROUNDER)), all(ROUNDER)); }

/* A prime, spread over the lanes. */
typedef struct prime_avx2 {
    vf p, inverse, half, back; /* p, 1/p rounded, (p-1)/2, 2^52 + (p-1)/2 */
} prime_avx2;

HEMI_INLINE prime_avx2 prime_of(const hemi_modulus *m) {
    const double half = (double)((m->p - 1) / 2);
    return (prime_avx2){all(m->value), all(m->inverse), all(half), all(TWO52 + half)};
}

/* x <= 4 to x <= 1/2 (plus one unit at most). */
HEMI_INLINE vf reduce(vf x, const prime_avx2 *m) { return fnma_(nearest(x, m->inverse), m->p, x); }

/* a w modulo p, for a <= 4, w <= 1/2 and its precomputed v = w / p rounded: q is off by at most
 * 1/2 + |a v| 2^-53, so a <= A gives a result <= 1/2 + A/16. |q| <= 2^51 is what limits a. */
HEMI_INLINE vf mul_by(vf a, vf w, vf v, vf p) {
    const vf q = nearest(a, v), h = mul(a, w), l = fms_(a, w, h);
    return add(fnma_(q, p, h), l);
}

/* The same without a precomputed quotient, |a b| < 2^100: q is off by at most 1/2 + 2^50 2^-52, so the result
 * is <= 3/4. */
HEMI_INLINE vf mul_any(vf a, vf b, const prime_avx2 *m) {
    const vf h = mul(a, b), l = fms_(a, b, h), q = nearest(h, m->inverse);
    return add(fnma_(q, m->p, h), l);
}

/* The canonical residue, as an integer, of any integer |x| < 2^52 - p/2. Let y = x - (p-1)/2. y/p is 1/(2p) or more
 * away from every tie, and |y| 2^-53 / p, the error of y inverse, is less: the quotient is exact, the remainder
 * in [-(p-1)/2, (p-1)/2], and (p-1)/2 more is congruent to x and in [0, p). */
HEMI_INLINE vi canonical_biased(vf y, const prime_avx2 *m) {
    return low_bits(add(fnma_(nearest(y, m->inverse), m->p, y), m->back));
}
HEMI_INLINE vi canonical(vf x, const prime_avx2 *m) { return canonical_biased(sub(x, m->half), m); }

/* The same for -p <= x < p. */
HEMI_INLINE vi canonical_near(vf x, vf p) {
    const vf negative = _mm256_cmp_pd(x, _mm256_setzero_pd(), _CMP_LT_OQ);
    return to_int(add(x, _mm256_and_pd(negative, p)));
}

/* Canonical to centred, -p/2 < x < p/2. */
HEMI_INLINE vf centred(vf x, const prime_avx2 *m) {
    return sub(x, _mm256_and_pd(_mm256_cmp_pd(x, m->half, _CMP_GT_OQ), m->p));
}

/* The parts of the table (kernels.h says what they do). */
size_t hemi_avx2_twiddle_bytes(uint32_t n);
void hemi_avx2_twiddle_init(hemi_limb *l);
void hemi_avx2_ntt(uint64_t *a, const hemi_limb *l);
void hemi_avx2_intt(uint64_t *r, const uint64_t *a, const hemi_limb *l);
void hemi_avx2_fix(uint64_t *w, const uint64_t *a, size_t n, const hemi_modulus *m);
void hemi_avx2_dot_right(uint8_t *w, const uint64_t *a, size_t n, const hemi_modulus *m);
void hemi_avx2_gadget_product(uint64_t *r0, uint64_t *r1, const uint64_t *d, size_t d_stride, const uint32_t *index,
                                const uint8_t *w0, const uint8_t *w1, size_t w_bytes, size_t digits, size_t n, const hemi_modulus *m);
void hemi_avx2_dot2(uint64_t *r0, uint64_t *r1, size_t r_stride, size_t sums, const uint64_t *x0, const uint64_t *x1,
                    size_t stride, const uint8_t *w, size_t count, size_t len, const hemi_modulus *m);
size_t hemi_avx2_int_right_bytes(const hemi_int_matrix *w, size_t count);
void hemi_avx2_int_right(void *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows, size_t count,
                        const hemi_int_matrix *w, const hemi_modulus *m);
void hemi_avx2_int_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                          const void *x, size_t count, const hemi_modulus *m);

#endif
