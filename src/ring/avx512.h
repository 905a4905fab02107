/* What the AVX-512 kernels share: arithmetic modulo p < 2^50 in 64-bit lanes, on the 52-bit multiplier (IFMA).
 * Included by *_avx512.c only.
 *
 * lo(c, a, b) and hi(c, a, b) add the low and the high 52 bits of the 104-bit product of the low 52 bits of a and b
 * to c. Numbers are kept *modulo 2^52*: the upper 12 bits of a lane are dirt, which sums carry along and products
 * do not see. So a product costs three multiplications and no masking,
 *     q = hi(k, a, w'),   r = lo(lo(x, a, w), q, 2^52 - p) = x + a w - q p,        w' = floor(2^52 w / p),
 * as long as what is meant lies in [0, 2^52): that is the bound each step has to keep. The a that enters q must be meant
 * to lie there; x + r may be any number in a window of length 2^52.
 *     a w / p - a w' / 2^52 is in [0, a / 2^52), so a w - (q - k) p is in [0, p + p a / 2^52), within [0, 2p).
 * "x in [0, 3)" below means [0, 3p). 2^52 = (I + f) p, I = floor(2^52 / p) >= 4, 0 < f < 1. */
#ifndef HEMI_RING_AVX512_H
#define HEMI_RING_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/kernels.h"

#define HEMI_INLINE static inline __attribute__((always_inline))
#define MASK52      ((UINT64_C(1) << 52) - 1)

typedef __m512i vi;

HEMI_INLINE vi all(uint64_t x) { return _mm512_set1_epi64((long long)x); }
HEMI_INLINE vi zero(void) { return _mm512_setzero_si512(); }
HEMI_INLINE vi add(vi a, vi b) { return _mm512_add_epi64(a, b); }
HEMI_INLINE vi sub(vi a, vi b) { return _mm512_sub_epi64(a, b); }
HEMI_INLINE vi lo(vi c, vi a, vi b) { return _mm512_madd52lo_epu64(c, a, b); }
HEMI_INLINE vi hi(vi c, vi a, vi b) { return _mm512_madd52hi_epu64(c, a, b); }
HEMI_INLINE vi smaller(vi a, vi b) { return _mm512_min_epu64(a, b); }
HEMI_INLINE vi low52(vi a) { return _mm512_and_si512(a, all(MASK52)); }
HEMI_INLINE vi load(const void *p) { return _mm512_loadu_si512(p); }
HEMI_INLINE void store(void *p, vi x) { _mm512_storeu_si512(p, x); }

/* A prime, spread over the lanes. */
typedef struct prime_avx512 {
    vi p, minus_p, inverse; /* p, 2^52 - p, I = floor(2^52 / p) */
} prime_avx512;

HEMI_INLINE prime_avx512 prime_of(const hemi_modulus *m) {
    /* floor(2^128 / p) / 2^76, rounded down twice, is rounded down once */
    return (prime_avx512){all(m->p), all(MASK52 + 1 - m->p), all(m->barrett_hi >> 12)};
}

/* floor(2^52 w / p), w < p. */
HEMI_INLINE uint64_t quotient52(uint64_t w, const hemi_modulus *m) { return (uint64_t)(((hemi_u128)w << 52) / m->p); }

/* [0, 2) (or any x < 2p, clean) to [0, 1). */
HEMI_INLINE vi below_p(vi x, const prime_avx512 *m) { return smaller(x, sub(x, m->p)); }

/* Any x meant in [0, 2^52) to its canonical residue. x / p - x I / 2^52 < x / 2^52, hence [0, 2) before the last step. */
HEMI_INLINE vi canonical(vi x, const prime_avx512 *m) {
    return below_p(low52(lo(x, hi(zero(), x, m->inverse), m->minus_p)), m);
}

/* a w, for a meant in [0, 2^52), w with its quotient v: canonical. */
HEMI_INLINE vi mul_by(vi a, vi w, vi v, const prime_avx512 *m) {
    return below_p(low52(lo(lo(zero(), a, w), hi(zero(), a, v), m->minus_p)), m);
}

/* The parts of the table (kernels.h says what they do). */
size_t hemi_avx512_twiddle_bytes(uint32_t n);
void hemi_avx512_twiddle_init(hemi_limb *l);
void hemi_avx512_ntt(uint64_t *a, const hemi_limb *l);
void hemi_avx512_intt(uint64_t *r, const uint64_t *a, const hemi_limb *l);
void hemi_avx512_dot_left(uint64_t *x, const uint64_t *a, size_t n, const hemi_modulus *m);
void hemi_avx512_dot_right(uint8_t *w, const uint64_t *a, size_t n, const hemi_modulus *m);
void hemi_avx512_gadget_product(uint64_t *r0, uint64_t *r1, const uint64_t *d, size_t d_stride, const uint32_t *index,
                                const uint8_t *w0, const uint8_t *w1, size_t w_bytes, size_t digits, size_t n, const hemi_modulus *m);
void hemi_avx512_dot2(uint64_t *r0, uint64_t *r1, size_t r_stride, size_t sums, const uint64_t *x0, const uint64_t *x1,
                      size_t stride, const uint8_t *w, size_t count, size_t len, const hemi_modulus *m);
size_t hemi_avx512_int_right_bytes(const hemi_int_matrix *w, size_t count);
void hemi_avx512_int_right(void *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows, size_t count,
                          const hemi_int_matrix *w, const hemi_modulus *m);
void hemi_avx512_int_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                            const void *x, size_t count, const hemi_modulus *m);

#endif
