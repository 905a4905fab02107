/* The sums of products of the AVX2 table: two sums that share one factor (arithmetic: avx2.h). dot2: p < 2^48.
 *
 * Both factors are centred, below 2^47. A sum is kept in two doubles. `high` starts at 1.5 2^99 and takes every product
 * with one FMA; it stays in [2^99, 2^100], where doubles are multiples of 2^47. `low` takes what the rounding dropped:
 * the difference of the old and the new `high` is exact, one more FMA adds the product to it, exactly, and what comes
 * out is at most 2^46. So a product costs four instructions, two on the multipliers and two on the adders. After GROUP
 * products high is less than 2^98 off its start and low has grown by 2^50 at most; then (high - start) mod p, one more
 * FMA, goes to low.
 *
 * Eight coefficients of the right factor are 48 bytes that one load of 32, one broadcast of 16 and three shuffles turn
 * into doubles, without reading further:
 *   0-11 c0, c1;  12-19 the upper halves (16 bits) of c4 ... c7;  20-31 c2, c3;  32-47 the lower 32 bits of c4 ... c7.
 *
 * Nanoseconds per coefficient of both sums, 16 products, blocks of 64 and 256, one processor at 4 GHz: this 0.35 and
 * 0.38; halves of 24 bits in integers (vpmuludq) 0.51 and 0.53, with Karatsuba's products 0.46 and 0.49. Finishing the
 * sums of many coefficients together, unrolling, and unpacking one step ahead gained nothing. */
#include <string.h>

#include "ring/avx2.h"

#define GROUP    16 /* products before `high` may leave its range */
#define START    0x1.8p99
#define BIAS     47 /* right factors are stored as w + 2^47, in 48 bits */
#define PREFETCH 8192

static uint64_t biased(uint64_t a, const hemi_modulus *m) {
    return (uint64_t)hemi_mod_centre(a, m) + (UINT64_C(1) << BIAS);
}

void hemi_avx2_dot_right(uint8_t *w, const uint64_t *a, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i += 8, a += 8, w += 48) /* x86-64 is little-endian */
        for (size_t k = 0; k < 4; k++) {
            const uint64_t first = biased(a[k], m), second = biased(a[4 + k], m), upper = second >> 32;
            memcpy(w + 6 * k + (k < 2 ? 0 : 8), &first, 6);
            memcpy(w + 12 + 2 * k, &upper, 2);
            memcpy(w + 32 + 4 * k, &second, 4);
        }
}

HEMI_INLINE vf unbiased(vi bits) {
    const vf two52_more = _mm256_castsi256_pd(_mm256_or_si256(bits, _mm256_castpd_si256(all(TWO52))));
    return sub(two52_more, all(TWO52 + 0x1p47));
}

HEMI_INLINE void load_right(vf *w0, vf *w1, const uint8_t *w) {
    const vi order0 = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, -1, -1, 6, 7, 8, 9, 10, 11, -1, -1, /* the second half is */
                                       4, 5, 6, 7, 8, 9, -1, -1, 10, 11, 12, 13, 14, 15, -1, -1); /* bytes 16 to 31 */
    const vi order1 = _mm256_setr_epi8(0, 1, 2, 3, 12, 13, -1, -1, 4, 5, 6, 7, 14, 15, -1, -1, 8, 9, 10, 11, 0, 1, -1,
                                       -1, 12, 13, 14, 15, 2, 3, -1, -1);
    const vi first = load_int(w);
    const vi last = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(w + 32)));
    *w0 = unbiased(_mm256_shuffle_epi8(first, order0));
    *w1 = unbiased(_mm256_shuffle_epi8(_mm256_blend_epi32(last, first, 0x18), order1)); /* bytes 12 to 19 of first */
}

typedef struct sum {
    vf high, low;
} sum;

/* In a register: the compiler would load it twice, which costs a tenth of all the time. */
HEMI_INLINE vf load_once(const uint64_t *a) {
    vf x = load(a);
    __asm__("" : "+x"(x));
    return x;
}

HEMI_INLINE void accumulate(sum *s, vf x, vf w) {
    const vf high = fma_(x, w, s->high);
    s->low = add(s->low, fma_(x, w, sub(s->high, high)));
    s->high = high;
}

/* high back to its start: low grows by 3/4 p at most. */
HEMI_INLINE void fold(sum *s, vf start, const prime_avx2 *m) {
    s->low = add(s->low, reduce(sub(s->high, start), m));
    s->high = start;
}

/* Eight coefficients: eight chains of dependent instructions. low starts at -(p-1)/2, as canonical_biased wants it, and
 * stays below 2^51 + 2^50, being reduced after every other group. */
HEMI_INLINE void dot8(uint64_t *r0, uint64_t *r1, const uint64_t *x0, const uint64_t *x1, size_t stride,
                      const uint8_t *w, size_t count, size_t len, const prime_avx2 *m) {
    const sum start = {all(START), sub(_mm256_setzero_pd(), m->half)};
    sum s[4] = {start, start, start, start};
    for (size_t k = 0; k < count;) {
        const size_t end = count - k < GROUP ? count : k + GROUP;
        if (k > 0 && k % (2 * GROUP) == 0)
            for (size_t i = 0; i < 4; i++) s[i].low = reduce(s[i].low, m);
        for (; k < end; k++, x0 += stride, x1 += stride, w += 6 * len) {
            vf w0, w1;
            load_right(&w0, &w1, w);
            accumulate(&s[0], load_once(x0), w0);
            accumulate(&s[1], load_once(x0 + 4), w1);
            accumulate(&s[2], load_once(x1), w0);
            accumulate(&s[3], load_once(x1 + 4), w1);
        }
        for (size_t i = 0; i < 4; i++) fold(&s[i], all(START), m);
    }
    store_int(r0, canonical_biased(s[0].low, m));
    store_int(r0 + 4, canonical_biased(s[1].low, m));
    store_int(r1, canonical_biased(s[2].low, m));
    store_int(r1 + 4, canonical_biased(s[3].low, m));
}

static void dot_one(uint64_t *r0, uint64_t *r1, const uint64_t *x0, const uint64_t *x1, size_t stride, const uint8_t *w,
                    size_t count, size_t len, const prime_avx2 *prime) {
    /* The right factors of the next sum follow these. The rows of one sum are read side by side, which the processor does
     * not foresee; asking for the next ones in order halves the time where they come from memory. */
    uintptr_t next = (uintptr_t)w + 6 * len * count + PREFETCH;
    for (size_t i = 0; i < len; i += 8) {
        for (const uintptr_t end = next + 48 * count; next < end; next += 64)
            _mm_prefetch((const char *)next, _MM_HINT_T1);
        dot8(r0 + i, r1 + i, x0 + i, x1 + i, stride, w + 6 * i, count, len, prime);
    }
}

void hemi_avx2_dot2(uint64_t *r0, uint64_t *r1, size_t r_stride, size_t sums, const uint64_t *x0, const uint64_t *x1,
                    size_t stride, const uint8_t *w, size_t count, size_t len, const hemi_modulus *m) {
    const prime_avx2 prime = prime_of(m);
    for (size_t c = 0; c < sums; c++, w += 6 * len * count)
        dot_one(r0 + c * r_stride, r1 + c * r_stride, x0, x1, stride, w, count, len, &prime);
}

/* ---- the product of key switching with several digits. Here only w is centred: a sum starts at 1.5 2^100, 16 products below 2^95 each; doubles in
 * [2^100, 2^101] are multiples of 2^48. A group is off the start by less than half of it and (high - start) / p, a quotient, by at most 2^51;
 * what is dropped adds up to 2^51 at most, and with the 3/4 p of a fold and the p/2 that low begins with, low stays below 2^52 - 3/4 p,
 * as canonical_biased wants. Four instructions for a product; Barrett's reduction of each, seven, takes a sixth longer where all is in the caches. */
#define GADGET_START 0x1.8p100

typedef struct gadget {
    const uint64_t *d;
    const uint8_t *w0, *w1;
    const uint32_t *index;
    size_t d_stride, w_bytes, digits;
    prime_avx2 m;
} gadget;

/* How the index takes slots: not at all; aligned groups of four to such groups, as automorphisms do; or any way. It is public. */
enum { IN_ORDER, BY_FOURS, ANY_WAY, GADGET_VECTORS = 2 };

HEMI_INLINE bool by_fours(const uint32_t *index) {
    const __m128i at = _mm_loadu_si128((const __m128i *)(const void *)index);
    return _mm_testz_si128(_mm_xor_si128(at, _mm_set1_epi32((int)(index[0] & ~3u))), _mm_set1_epi32(~3));
}
/* For the permutation of 32-bit words that takes word 2 (index mod 4) and the next to words 2 i, 2 i + 1. */
HEMI_INLINE vi halves_of(const uint32_t *index) {
    const vi at = _mm256_cvtepu32_epi64(_mm_loadu_si128((const __m128i *)(const void *)index)), twice = _mm256_slli_epi64(at, 1);
    return _mm256_or_si256(twice, _mm256_slli_epi64(_mm256_or_si256(twice, _mm256_set1_epi64x(1)), 32));
}

/* Eight slots: a group of dot_right. */
HEMI_INLINE void gadget_slots(uint64_t *r0, uint64_t *r1, size_t i, int kind, const gadget *g) {
    const prime_avx2 m = g->m;
    const sum first = {all(GADGET_START), sub(_mm256_setzero_pd(), m.half)};
    sum s0[GADGET_VECTORS] = {first, first}, s1[GADGET_VECTORS] = {first, first};
    const uint32_t *index = kind == IN_ORDER ? NULL : g->index + i;
    const uint64_t *d[GADGET_VECTORS];
    const uint8_t *w0 = g->w0 + 6 * i, *w1 = g->w1 + 6 * i;
    vi halves[GADGET_VECTORS];
#pragma GCC unroll 2
    for (unsigned v = 0; v < GADGET_VECTORS; v++) {
        d[v] = g->d + (kind == IN_ORDER ? i + 4 * v : kind == BY_FOURS ? index[4 * v] & ~3u : 0);
        halves[v] = kind == BY_FOURS ? halves_of(index + 4 * v) : _mm256_setzero_si256();
    }
    for (size_t k = 0; k < g->digits;) {
        const size_t end = g->digits - k < GROUP ? g->digits : k + GROUP;
#pragma GCC unroll 2
        for (unsigned v = 0; v < GADGET_VECTORS; v++) {
            if (k == 0) continue;
            s0[v].low = reduce(s0[v].low, &m);
            s1[v].low = reduce(s1[v].low, &m);
        }
        for (; k < end; k++, w0 += g->w_bytes, w1 += g->w_bytes) {
            vf a[GADGET_VECTORS], b[GADGET_VECTORS];
            load_right(&a[0], &a[1], w0);
            load_right(&b[0], &b[1], w1);
#pragma GCC unroll 2
            for (unsigned v = 0; v < GADGET_VECTORS; v++) {
                const vi x = kind == ANY_WAY ? gather(d[v], index + 4 * v) : load_int(d[v]);
                const vf y = from_int(kind == BY_FOURS ? _mm256_permutevar8x32_epi32(x, halves[v]) : x);
                d[v] += g->d_stride;
                accumulate(&s0[v], y, a[v]);
                accumulate(&s1[v], y, b[v]);
            }
        }
#pragma GCC unroll 2
        for (unsigned v = 0; v < GADGET_VECTORS; v++) {
            fold(&s0[v], all(GADGET_START), &m);
            fold(&s1[v], all(GADGET_START), &m);
        }
    }
#pragma GCC unroll 2
    for (unsigned v = 0; v < GADGET_VECTORS; v++) {
        store_int(r0 + i + 4 * v, canonical_biased(s0[v].low, &m));
        store_int(r1 + i + 4 * v, canonical_biased(s1[v].low, &m));
    }
}

void hemi_avx2_gadget_product(uint64_t *r0, uint64_t *r1, const uint64_t *d, size_t d_stride, const uint32_t *index,
                              const uint8_t *w0, const uint8_t *w1, size_t w_bytes, size_t digits, size_t n, const hemi_modulus *m) {
    const gadget g = {d, w0, w1, index, d_stride, w_bytes, digits, prime_of(m)};
    for (size_t i = 0; i < n; i += 4 * GADGET_VECTORS)
        if (!index)
            gadget_slots(r0, r1, i, IN_ORDER, &g);
        else if (by_fours(index + i) && by_fours(index + i + 4))
            gadget_slots(r0, r1, i, BY_FOURS, &g);
        else
            gadget_slots(r0, r1, i, ANY_WAY, &g);
}
