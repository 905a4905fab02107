/* The AVX-512 sum of products, p < 2^48. Bounds: avx512.h.
 *
 * dot_left form: canonical residues. dot_right form: w = a 2^52 mod p in 6 bytes, so that eight of them are 48 bytes,
 * spread over the lanes by one byte permutation. The 52-bit halves of the 96-bit products are summed apart, 1024 of
 * them: low halves below 2^62, high halves below 2^54. One Montgomery step at the end divides by 2^52. */
#include <string.h>

#include "ring/avx512.h"

enum { GROUP = 8, GROUP_BYTES = 48 };

/* Bytes 6 i ... 6 i + 5 to lane i, and back. The upper two bytes of a lane are masked off. */
#define LANE(i) 6 * (i), 6 * (i) + 1, 6 * (i) + 2, 6 * (i) + 3, 6 * (i) + 4, 6 * (i) + 5, 0, 0
static const uint8_t unpack_index[64]
    __attribute__((aligned(64))) = {LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7)};
#define BYTES(i) 8 * (i), 8 * (i) + 1, 8 * (i) + 2, 8 * (i) + 3, 8 * (i) + 4, 8 * (i) + 5
static const uint8_t pack_index[64]
    __attribute__((aligned(64))) = {BYTES(0), BYTES(1), BYTES(2), BYTES(3), BYTES(4), BYTES(5), BYTES(6), BYTES(7)};
#define LANE_MASK UINT64_C(0x3f3f3f3f3f3f3f3f)
#define PACK_MASK ((UINT64_C(1) << GROUP_BYTES) - 1)

HEMI_INLINE vi unpack(vi bytes) { return _mm512_maskz_permutexvar_epi8(LANE_MASK, load(unpack_index), bytes); }

void hemi_avx512_dot_left(uint64_t *x, const uint64_t *a, size_t n, const hemi_modulus *m) {
    (void)m;
    if (x != a) memcpy(x, a, n * sizeof *x);
}

void hemi_avx512_dot_right(uint8_t *w, const uint64_t *a, size_t n, const hemi_modulus *m) {
    const prime_avx512 c = prime_of(m);
    const vi r = all(m->r52), v = all(quotient52(m->r52, m));
    for (size_t i = 0; i < n; i += GROUP, w += GROUP_BYTES) {
        const size_t present = n - i < GROUP ? n - i : GROUP;
        const vi x = mul_by(_mm512_maskz_loadu_epi64((__mmask8)((1u << present) - 1), a + i), r, v, &c);
        _mm512_mask_storeu_epi8(w, PACK_MASK >> (GROUP_BYTES - 6 * present),
                                _mm512_permutexvar_epi8(load(pack_index), x));
    }
}

typedef struct sums {
    vi low, high;
} sums;

/* (2^52 high + low) / 2^52 mod p, high < 2^54, low < 2^62. With low = 2^52 e + l and t = -l / p mod 2^52, l + t p is a multiple
 * of 2^52: 2^52 (hi(t p) + 1), or 0 if l is. y = high + e + hi(t p) + (l != 0) < 2^54 + 2^49 is split at bit 51:
 * (y mod 2^51) + floor(y / 2^51) (2^51 mod p) < 2^51 + 8 * 2^48 = 2^52. */
typedef struct finish {
    prime_avx512 c;
    vi mont, r51, mask51;
} finish;

HEMI_INLINE finish finish_of(const hemi_modulus *m) {
    const uint64_t two51 = UINT64_C(1) << 51;
    return (finish){prime_of(m), all(m->mont52), all(two51 % m->p), all(two51 - 1)};
}

HEMI_INLINE vi finished(const sums *s, const finish *f) {
    const vi t = lo(zero(), s->low, f->mont);
    vi y = hi(add(s->high, _mm512_srli_epi64(s->low, 52)), t, f->c.p);
    y = _mm512_mask_add_epi64(y, _mm512_test_epi64_mask(s->low, all(MASK52)), y, all(1));
    y = lo(_mm512_and_si512(y, f->mask51), _mm512_srli_epi64(y, 51), f->r51);
    return canonical(y, &f->c);
}

/* Calls follow each other through the right factors, so what is AHEAD bytes further on is wanted soon: as far as two calls
 * on the blocks of linear/product.c. Measured at 4096 x 4096, where they come from memory: 16.5 ms without, 13.9 with. */
#define AHEAD 12288

/* One strip of `groups` groups of 8 places, all terms. `w` is at the strip's bytes of the first term; `end` is the end of
 * the whole array: a group is read with the 16 bytes that follow it, unless they are beyond that. */
HEMI_INLINE void strip(uint64_t *r0, uint64_t *r1, const uint64_t *x0, const uint64_t *x1, size_t stride,
                       const uint8_t *w, size_t row_bytes, size_t count, unsigned groups, bool last, const finish *f) {
    sums s0[4], s1[4];
#pragma GCC unroll 4
    for (unsigned g = 0; g < groups; g++) s0[g] = s1[g] = (sums){zero(), zero()};
    for (size_t k = 0; k < count; k++, x0 += stride, x1 += stride, w += row_bytes) {
#pragma GCC unroll 4
        for (unsigned g = 0; g < groups; g++) {
            const uint8_t *at = w + GROUP_BYTES * g;
            _mm_prefetch((const char *)((uintptr_t)at + AHEAD), _MM_HINT_T0);
            const vi v =
                unpack(last && g == groups - 1 && k == count - 1 ? _mm512_maskz_loadu_epi8(PACK_MASK, at) : load(at));
            const vi a = load(x0 + GROUP * g), b = load(x1 + GROUP * g);
            s0[g].low = lo(s0[g].low, a, v);
            s0[g].high = hi(s0[g].high, a, v);
            s1[g].low = lo(s1[g].low, b, v);
            s1[g].high = hi(s1[g].high, b, v);
        }
    }
#pragma GCC unroll 4
    for (unsigned g = 0; g < groups; g++) {
        store(r0 + GROUP * g, finished(&s0[g], f));
        store(r1 + GROUP * g, finished(&s1[g], f));
    }
}

void hemi_avx512_dot2(uint64_t *r0, uint64_t *r1, const uint64_t *x0, const uint64_t *x1, size_t stride,
                      const uint8_t *w, size_t count, size_t len, const hemi_modulus *m) {
    const finish f = finish_of(m);
    size_t i = 0;
    for (; i + 4 * GROUP <= len; i += 4 * GROUP)
        strip(r0 + i, r1 + i, x0 + i, x1 + i, stride, w + 6 * i, 6 * len, count, 4, i + 4 * GROUP == len, &f);
    for (; i + 2 * GROUP <= len; i += 2 * GROUP)
        strip(r0 + i, r1 + i, x0 + i, x1 + i, stride, w + 6 * i, 6 * len, count, 2, i + 2 * GROUP == len, &f);
    for (; i + GROUP <= len; i += GROUP)
        strip(r0 + i, r1 + i, x0 + i, x1 + i, stride, w + 6 * i, 6 * len, count, 1, i + GROUP == len, &f);
}
