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

/* (2^52 high + low) / 2^52 mod p. With low = 2^52 e + l and t = l / p mod 2^52, l - t p is -2^52 hi(t p), so the quotient is
 * y = high + e - hi(t p); sums begin with high = p, and y is not negative. For up to 128 terms, high < 2^51 + p and e < 2^10 leave
 * y below 2^52. For more, y < 2^54 + 2^49 is split at bit 51: (y mod 2^51) + floor(y / 2^51) (2^51 mod p) < 2^51 + 8 * 2^48 = 2^52. */
enum { FEW = 128 };

typedef struct finish {
    prime_avx512 c;
    vi inverse_of_p, r51, mask51;
    bool many;
} finish;

HEMI_INLINE finish finish_of(const hemi_modulus *m, size_t count) {
    const uint64_t two51 = UINT64_C(1) << 51;
    const bool many = count > FEW;
    return (finish){prime_of(m), all(m->inverse64 & MASK52), all(many ? two51 % m->p : 0), all(two51 - 1), many};
}

HEMI_INLINE vi finished(vi low, vi high, const finish *f) {
    const vi t = lo(zero(), low, f->inverse_of_p);
    vi y = sub(add(high, _mm512_srli_epi64(low, 52)), hi(zero(), t, f->c.p));
    if (f->many) y = lo(_mm512_and_si512(y, f->mask51), _mm512_srli_epi64(y, 51), f->r51);
    return canonical(y, &f->c);
}

/* Two sums at a time: half the loads of the left factors, and two streams of right factors, which come from memory faster than one.
 * They are asked for AHEAD bytes before they are wanted: about a round on the blocks of linear/sums.c. At 4096 x 4096: 16.5 ms with one sum
 * and no prefetch, 13.2 with one, 12.4 with four and none, 11.4 with four, 10.6 with two. All projections of GPT-2, from memory: 150 ms with 12288,
 * 152 to 170 with twice as much, 168 with half. */
enum { SUMS = 2, GROUPS = 2, AHEAD = 12288 };

/* What sums have in common. */
typedef struct shape {
    size_t stride, row_bytes, sum_bytes, count, r_stride;
} shape;

typedef struct sum {
    vi low, high;
} sum;

/* One term. A group is read with the 16 bytes that follow it, unless it is the end of all. */
HEMI_INLINE void term(sum *s0, sum *s1, const uint64_t *x0, const uint64_t *x1, const uint8_t *w, unsigned sums,
                      unsigned groups, bool end, const shape *d) {
#pragma GCC unroll 4
    for (unsigned g = 0; g < groups; g++) {
        const vi a = load(x0 + GROUP * g), b = load(x1 + GROUP * g);
#pragma GCC unroll 4
        for (unsigned c = 0; c < sums; c++) {
            const uint8_t *at = w + c * d->sum_bytes + GROUP_BYTES * g;
            const unsigned j = c * groups + g;
            _mm_prefetch((const char *)((uintptr_t)at + AHEAD), _MM_HINT_T0);
            const vi v =
                unpack(end && g == groups - 1 && c == sums - 1 ? _mm512_maskz_loadu_epi8(PACK_MASK, at) : load(at));
            s0[j].low = lo(s0[j].low, a, v);
            s0[j].high = hi(s0[j].high, a, v);
            s1[j].low = lo(s1[j].low, b, v);
            s1[j].high = hi(s1[j].high, b, v);
        }
    }
}

/* `sums` sums of `groups` groups of 8 places, all terms: sums * groups <= 4. w is at the places' bytes of the first sum's first
 * term; last: nothing follows them. */
HEMI_INLINE void strip(uint64_t *r0, uint64_t *r1, const uint64_t *x0, const uint64_t *x1, const uint8_t *w,
                       unsigned sums, unsigned groups, bool last, const shape *d, const finish *f) {
    sum s0[4], s1[4];
#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; j++) s0[j] = s1[j] = (sum){zero(), f->c.p};
    for (size_t k = last ? 1 : 0; k < d->count; k++, x0 += d->stride, x1 += d->stride, w += d->row_bytes)
        term(s0, s1, x0, x1, w, sums, groups, false, d);
    if (last) term(s0, s1, x0, x1, w, sums, groups, true, d);
#pragma GCC unroll 4
    for (unsigned c = 0; c < sums; c++)
#pragma GCC unroll 4
        for (unsigned g = 0; g < groups; g++) {
            const unsigned j = c * groups + g;
            store(r0 + c * d->r_stride + GROUP * g, finished(s0[j].low, s0[j].high, f));
            store(r1 + c * d->r_stride + GROUP * g, finished(s1[j].low, s1[j].high, f));
        }
}

/* All places of `sums` sums. */
HEMI_INLINE void strips(uint64_t *r0, uint64_t *r1, const uint64_t *x0, const uint64_t *x1, const uint8_t *w,
                        size_t len, unsigned sums, unsigned groups, bool last, const shape *d, const finish *f) {
    size_t i = 0;
    for (; i + groups * GROUP <= len; i += groups * GROUP)
        strip(r0 + i, r1 + i, x0 + i, x1 + i, w + 6 * i, sums, groups, last && i + groups * GROUP == len, d, f);
    for (; i < len; i += GROUP)
        strip(r0 + i, r1 + i, x0 + i, x1 + i, w + 6 * i, sums, 1, last && i + GROUP == len, d, f);
}

void hemi_avx512_dot2(uint64_t *r0, uint64_t *r1, size_t r_stride, size_t sums, const uint64_t *x0, const uint64_t *x1,
                      size_t stride, const uint8_t *w, size_t count, size_t len, const hemi_modulus *m) {
    const finish f = finish_of(m, count);
    const shape d = {stride, 6 * len, 6 * len * count, count, r_stride};
    size_t c = 0;
    for (; c + SUMS <= sums; c += SUMS)
        strips(r0 + c * r_stride, r1 + c * r_stride, x0, x1, w + c * d.sum_bytes, len, SUMS, GROUPS, c + SUMS == sums,
               &d, &f);
    for (; c < sums; c++)
        strips(r0 + c * r_stride, r1 + c * r_stride, x0, x1, w + c * d.sum_bytes, len, 1, 4, c + 1 == sums, &d, &f);
}

/* ---- the product of key switching with several digits, the factors of the right in Montgomery's form: 64 products below p^2, p < 2^48.
 * Low halves add up to less than 2^58, high ones, which begin with p, to 5 p; y, the quotient by 2^52 as above, is below 5 p + 64 < 2^52. */
typedef struct gadget {
    const uint64_t *d;
    const uint8_t *w0, *w1;
    const uint32_t *index;
    size_t d_stride, w_bytes, digits;
    finish f;
} gadget;

/* How the index takes slots: not at all; aligned groups of eight to such groups, as automorphisms do; or any way. It is public. */
enum { IN_ORDER, BY_EIGHTS, ANY_WAY };

HEMI_INLINE bool by_eights(const uint32_t *index) {
    const __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)index);
    const __m256i other = _mm256_xor_si256(at, _mm256_set1_epi32((int)(index[0] & ~7u)));
    return _mm256_test_epi32_mask(other, _mm256_set1_epi32(~7)) == 0;
}

/* Keys are read once, from memory, which is what this waits for: N = 16384, 11 limbs of 5 digits, eight keys in turn, 0.61 ms; in words of
 * 64 bits 0.94 ms. Two vectors at a time; asked for ahead. */
enum { GADGET_VECTORS = 2, GADGET_AHEAD = 768 };

HEMI_INLINE vi key_factor(const uint8_t *w) {
    _mm_prefetch((const char *)((uintptr_t)w + GADGET_AHEAD), _MM_HINT_T1);
    return unpack(_mm512_maskz_loadu_epi8(PACK_MASK, w));
}

/* `vectors` vectors of slots from i on. */
HEMI_INLINE void gadget_slots(uint64_t *r0, uint64_t *r1, size_t i, unsigned vectors, int kind, const gadget *g) {
    sum s0[GADGET_VECTORS], s1[GADGET_VECTORS];
    __m256i at[GADGET_VECTORS];
    vi lane[GADGET_VECTORS];
    size_t group[GADGET_VECTORS];
    const uint64_t *d = g->d;
    const uint8_t *w0 = g->w0 + 6 * i, *w1 = g->w1 + 6 * i;
#pragma GCC unroll 2
    for (unsigned v = 0; v < vectors; v++) {
        s0[v] = s1[v] = (sum){zero(), g->f.c.p};
        at[v] = kind == IN_ORDER ? _mm256_setzero_si256() : _mm256_loadu_si256((const __m256i *)(const void *)(g->index + i + 8 * v));
        lane[v] = _mm512_cvtepu32_epi64(at[v]); /* a permutation sees the low three bits */
        group[v] = kind == BY_EIGHTS ? g->index[i + 8 * v] & ~7u : i + 8 * v;
    }
    for (size_t k = 0; k < g->digits; k++, d += g->d_stride, w0 += g->w_bytes, w1 += g->w_bytes)
#pragma GCC unroll 2
        for (unsigned v = 0; v < vectors; v++) {
            const vi x = kind == ANY_WAY   ? _mm512_i32gather_epi64(at[v], (const void *)d, 8)
                         : kind == IN_ORDER ? load(d + group[v])
                                            : _mm512_permutexvar_epi64(lane[v], load(d + group[v]));
            const vi a = key_factor(w0 + GROUP_BYTES * v), b = key_factor(w1 + GROUP_BYTES * v);
            s0[v] = (sum){lo(s0[v].low, x, a), hi(s0[v].high, x, a)};
            s1[v] = (sum){lo(s1[v].low, x, b), hi(s1[v].high, x, b)};
        }
#pragma GCC unroll 2
    for (unsigned v = 0; v < vectors; v++) {
        store(r0 + i + 8 * v, finished(s0[v].low, s0[v].high, &g->f));
        store(r1 + i + 8 * v, finished(s1[v].low, s1[v].high, &g->f));
    }
}

void hemi_avx512_gadget_product(uint64_t *r0, uint64_t *r1, const uint64_t *d, size_t d_stride, const uint32_t *index,
                                const uint8_t *w0, const uint8_t *w1, size_t w_bytes, size_t digits, size_t n, const hemi_modulus *m) {
    const gadget g = {d, w0, w1, index, d_stride, w_bytes, digits, finish_of(m, digits)};
    size_t i = 0;
    for (; i + 8 * GADGET_VECTORS <= n; i += 8 * GADGET_VECTORS)
        if (!index)
            gadget_slots(r0, r1, i, GADGET_VECTORS, IN_ORDER, &g);
        else if (by_eights(index + i) && by_eights(index + i + 8))
            gadget_slots(r0, r1, i, GADGET_VECTORS, BY_EIGHTS, &g);
        else
            gadget_slots(r0, r1, i, GADGET_VECTORS, ANY_WAY, &g);
    if (i < n) gadget_slots(r0, r1, i, 1, index ? ANY_WAY : IN_ORDER, &g);
}
