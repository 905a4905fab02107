/* The AVX-512 negacyclic NTT and its inverse, N >= 32 (below that, the portable ones). Bounds: avx512.h.
 *
 * Both use the butterfly (x, a) -> (x + w a, x - w a): five instructions,
 *     q = hi(1, a, w'),  X = lo(lo(x, a, w), q, -p),  Y = 2x - X,      X and Y within [x - 1, x + 1],
 * and, where x must be brought back to a short interval first, two more:
 *     q = hi(-k, x, I),  x = lo(x, q, -p)                              x in [k, k + 1 + f).
 * Two schedules keep every number in [0, 2^52) = [0, I + f):
 *   tight (p < 2^50, I >= 4): x is reduced in every layer, k = 1, and the outputs are in [0, 3 + f);
 *   wide  (p < 2^48, I >= 16): x is reduced in the first layer of a pass only, with k the number of layers of the
 *         pass (at most 4), and the outputs are in [0, 2k + 1 + f).
 * A pass is up to four layers on 2 ... 16 registers, each element read and written once. Elements less than 16 apart
 * are reached by four layers within pairs of registers, with permutations between.
 *
 * Forward: Cooley-Tukey with psi merged into the twiddles (Longa and Naehrig); a block of every layer has one twiddle.
 * Inverse: the cyclic transform, decimation in time, whose first layers need few or no products; then slot j is
 * multiplied by psi^-j / n, which also makes it canonical. Here the twiddle depends on the place in the block. */
#include "ring/avx512.h"

enum { BLOCK = 16, SMALLEST = 32, WIDE_BITS = 48 };

/* The tables: first the forward passes, the forward blocks of 16, then the inverse ones. */
typedef struct tables {
    uint64_t *pass, *block, *inverse_block, *inverse_pass;
} tables;

static unsigned layers_before_blocks(uint32_t log2_n) { return log2_n - 4; }
/* The first (forward) or last (inverse) pass takes 1 to 4 layers so that the others have 4. */
static unsigned odd_pass(uint32_t log2_n) { return (layers_before_blocks(log2_n) - 1) % 4 + 1; }

static size_t forward_pass_words(uint32_t n) { return 2 * ((size_t)n / BLOCK); }
static size_t forward_block_words(uint32_t n) { return 32 * ((size_t)n / BLOCK); }
enum { INVERSE_BLOCK_WORDS = 6 * 8 };
static size_t inverse_pass_words(uint32_t n) { return 2 * (size_t)n + 2 * (size_t)n; }

static size_t round8(size_t words) { return (words + 7) / 8 * 8; }

static tables tables_of(const hemi_limb *l) {
    tables t;
    t.pass = l->twiddles;
    t.block = t.pass + round8(forward_pass_words(l->n));
    t.inverse_block = t.block + forward_block_words(l->n);
    t.inverse_pass = t.inverse_block + INVERSE_BLOCK_WORDS;
    return t;
}

size_t hemi_avx512_twiddle_bytes(uint32_t n) {
    if (n < SMALLEST) return hemi_kernels_portable.twiddle_bytes(n);
    return sizeof(uint64_t) *
           (round8(forward_pass_words(n)) + forward_block_words(n) + INVERSE_BLOCK_WORDS + inverse_pass_words(n));
}

static uint32_t reversed(uint32_t x, unsigned bits) {
    uint32_t r = 0;
    for (unsigned i = 0; i < bits; i++) r |= ((x >> i) & 1u) << (bits - 1 - i);
    return r;
}

/* psi^-e, e < n */
static uint64_t psi_inverse_power(const hemi_limb *l, uint32_t e) { return l->psi_inverse_powers[reversed(e, l->log2_n)]; }
/* The twiddle of the inverse layer with blocks of 2 t at place j < t: the 2t-th root of unity to the -j. */
static uint64_t inverse_twiddle(const hemi_limb *l, uint32_t t, uint32_t j) { return psi_inverse_power(l, j * (l->n / t)); }

static void forward_init(const hemi_limb *l) {
    const tables t = tables_of(l);
    uint64_t *out = t.pass;
    /* for each pass, for each block i of it: the twiddles of its layers, in order of use */
    unsigned k = odd_pass(l->log2_n);
    for (uint32_t blocks = 1; blocks < l->n / BLOCK; blocks <<= k, k = 4)
        for (uint32_t i = 0; i < blocks; i++)
            for (unsigned layer = 0; layer < k; layer++)
                for (uint32_t b = 0; b < UINT32_C(1) << layer; b++) {
                    const uint64_t w = l->psi_powers[((blocks + i) << layer) + b];
                    *out++ = w;
                    *out++ = quotient52(w, &l->m);
                }
    /* for each block of 16: 8, 4, 2 and 1 twiddles of the last, ..., fourth last layer, each followed by their quotients */
    const uint32_t blocks = l->n / BLOCK;
    for (uint32_t i = 0; i < blocks; i++) {
        out = t.block + (size_t)32 * i;
        for (unsigned layer = 4; layer-- > 0;) {
            const uint32_t count = UINT32_C(1) << layer;
            for (uint32_t b = 0; b < count; b++) {
                out[b] = l->psi_powers[((blocks + i) << layer) + b];
                out[count + b] = quotient52(out[b], &l->m);
            }
            out += 2 * (size_t)count;
        }
        out[0] = out[1] = 0;
    }
}

static void put8(uint64_t **out, const uint64_t *w, const hemi_limb *l) {
    for (unsigned i = 0; i < 8; i++) {
        (*out)[i] = w[i];
        (*out)[8 + i] = quotient52(w[i], &l->m);
    }
    *out += 16;
}

static void inverse_init(const hemi_limb *l) {
    const tables t = tables_of(l);
    uint64_t *out = t.inverse_block, w[8];
    /* the order of lanes that inverse_blocks has in the layers 2, 4 and 8 */
    for (uint32_t i = 0; i < 8; i++) w[i] = inverse_twiddle(l, 2, i / 4);
    put8(&out, w, l);
    for (uint32_t i = 0; i < 8; i++) w[i] = inverse_twiddle(l, 4, i / 2);
    put8(&out, w, l);
    for (uint32_t i = 0; i < 8; i++) w[i] = inverse_twiddle(l, 8, i);
    put8(&out, w, l);
    /* for each pass, for each place j of a register in its blocks: the twiddles of its layers; in the last pass
     * then the factors psi^-j / n */
    out = t.inverse_pass;
    unsigned remaining = layers_before_blocks(l->log2_n);
    for (uint32_t s = BLOCK; s < l->n;) {
        const unsigned k = remaining > 4 ? 4 : remaining;
        for (uint32_t j = 0; j < s; j += 8) {
            for (unsigned layer = 0; layer < k; layer++)
                for (uint32_t c = 0; c < UINT32_C(1) << layer; c++) {
                    for (uint32_t i = 0; i < 8; i++) w[i] = inverse_twiddle(l, s << layer, c * s + j + i);
                    put8(&out, w, l);
                }
            for (uint32_t c = 0; k == remaining && c < UINT32_C(1) << k; c++) {
                for (uint32_t i = 0; i < 8; i++)
                    w[i] = hemi_mod_mul(psi_inverse_power(l, c * s + j + i), l->n_inverse, &l->m);
                put8(&out, w, l);
            }
        }
        remaining -= k;
        s <<= k;
    }
}

void hemi_avx512_twiddle_init(hemi_limb *l) {
    if (l->n < SMALLEST) {
        hemi_kernels_portable.twiddle_init(l);
        return;
    }
    forward_init(l);
    inverse_init(l);
}

/* ---- butterflies */

enum { TIGHT, WIDE };

typedef struct context {
    prime_avx512 m;
    vi one;
} context;

HEMI_INLINE context context_of(const hemi_modulus *m) { return (context){prime_of(m), all(1)}; }

HEMI_INLINE void butterfly(vi *x, vi *y, vi w, vi v, const context *c) {
    const vi q = hi(c->one, *y, v), twice = add(*x, *x);
    *x = lo(lo(*x, *y, w), q, c->m.minus_p);
    *y = sub(twice, *x);
}

/* x meant in [0, 2^52) to [k, k + 1 + f). */
HEMI_INLINE vi reduced(vi x, uint64_t k, const context *c) {
    return lo(x, hi(all(0 - k), x, c->m.inverse), c->m.minus_p);
}

/* How x enters a layer of a pass of k layers. */
HEMI_INLINE vi enter(vi x, unsigned layer, unsigned k, int schedule, const context *c) {
    if (schedule == TIGHT) return reduced(x, 1, c);
    return layer == 0 ? reduced(x, k, c) : x;
}

/* ---- forward */

HEMI_INLINE void forward_pass(uint64_t *a, uint32_t n, uint32_t blocks, const uint64_t *w, unsigned k, int schedule,
                              bool fresh, const hemi_modulus *m) {
    const context c = context_of(m);
    const vi room = all(schedule == TIGHT ? m->p : k * m->p); /* for canonical x */
    const uint32_t size = n / blocks, stride = size >> k;
    for (uint32_t i = 0; i < blocks; i++, a += size, w += 2 * ((1u << k) - 1))
        for (uint32_t j = 0; j < stride; j += 8) {
            vi x[16];
#pragma GCC unroll 16
            for (unsigned e = 0; e < 1u << k; e++) x[e] = load(a + j + (size_t)e * stride);
#pragma GCC unroll 4
            for (unsigned layer = 0; layer < k; layer++) {
                const unsigned half = (1u << k) >> (layer + 1);
#pragma GCC unroll 8
                for (unsigned e = 0; e < 1u << (k - 1); e++) {
                    const unsigned b = e / half, at = b * 2 * half + e % half;
                    const uint64_t *t = w + 2 * ((1u << layer) - 1 + b);
                    x[at] = fresh && layer == 0 ? add(x[at], room) : enter(x[at], layer, k, schedule, &c);
                    butterfly(&x[at], &x[at + half], all(t[0]), all(t[1]), &c);
                }
            }
#pragma GCC unroll 16
            for (unsigned e = 0; e < 1u << k; e++) store(a + j + (size_t)e * stride, x[e]);
        }
}

/* Elements of a block of 16 in its two registers: in the layer of distance 8 they are 0 ... 7 and 8 ... 15. The perfect
 * shuffle takes them to the order of distance 4, and on to 2, 1 and back to 8:
 *   0 8 1 9 2 10 3 11     0 4 8 12 1 5 9 13      0 2 4 6 8 10 12 14
 *   4 12 5 13 6 14 7 15   2 6 10 14 3 7 11 15    1 3 5 7 9 11 13 15
 * always with the partners one above the other, and the 2, 4 or 8 twiddles of the block in their order, repeated. */
HEMI_INLINE void shuffle(vi *x, vi *y) {
    const vi u = *x, v = *y;
    *x = _mm512_permutex2var_epi64(u, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), v);
    *y = _mm512_permutex2var_epi64(u, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), v);
}
HEMI_INLINE void unshuffle(vi *x, vi *y) {
    const vi u = *x, v = *y;
    *x = _mm512_permutex2var_epi64(u, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), v);
    *y = _mm512_permutex2var_epi64(u, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), v);
}
/* 2 or 4 words, repeated */
HEMI_INLINE vi repeat2(const uint64_t *w) { return _mm512_broadcast_i64x2(_mm_loadu_si128((const __m128i *)(const void *)w)); }
HEMI_INLINE vi repeat4(const uint64_t *w) { return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)w)); }

enum { TOGETHER = 2 }; /* blocks that are interleaved */
#define EACH_BLOCK _Pragma("GCC unroll 4") for (unsigned b = 0; b < TOGETHER; b++)

HEMI_INLINE void forward_blocks(uint64_t *a, uint32_t n, const uint64_t *w, int schedule, const hemi_modulus *m) {
    const context c = context_of(m);
    for (uint32_t i = 0; i < n; i += TOGETHER * BLOCK, a += TOGETHER * BLOCK, w += TOGETHER * 32) {
        vi x[TOGETHER], y[TOGETHER];
        EACH_BLOCK {
            x[b] = enter(load(a + BLOCK * b), 0, 4, schedule, &c);
            y[b] = load(a + BLOCK * b + 8);
            butterfly(&x[b], &y[b], all(w[32 * b + 28]), all(w[32 * b + 29]), &c);
        }
        EACH_BLOCK {
            shuffle(&x[b], &y[b]);
            x[b] = enter(x[b], 1, 4, schedule, &c);
            butterfly(&x[b], &y[b], repeat2(w + 32 * b + 24), repeat2(w + 32 * b + 26), &c);
        }
        EACH_BLOCK {
            shuffle(&x[b], &y[b]);
            x[b] = enter(x[b], 2, 4, schedule, &c);
            butterfly(&x[b], &y[b], repeat4(w + 32 * b + 16), repeat4(w + 32 * b + 20), &c);
        }
        EACH_BLOCK {
            shuffle(&x[b], &y[b]);
            x[b] = enter(x[b], 3, 4, schedule, &c);
            butterfly(&x[b], &y[b], load(w + 32 * b), load(w + 32 * b + 8), &c);
        }
        EACH_BLOCK {
            x[b] = canonical(x[b], &c.m);
            y[b] = canonical(y[b], &c.m);
            shuffle(&x[b], &y[b]);
            store(a + BLOCK * b, x[b]);
            store(a + BLOCK * b + 8, y[b]);
        }
    }
}

HEMI_INLINE void forward(uint64_t *a, const hemi_limb *l, int schedule) {
    const tables t = tables_of(l);
    const unsigned k = odd_pass(l->log2_n);
    switch (k) {
    case 1: forward_pass(a, l->n, 1, t.pass, 1, schedule, true, &l->m); break;
    case 2: forward_pass(a, l->n, 1, t.pass, 2, schedule, true, &l->m); break;
    case 3: forward_pass(a, l->n, 1, t.pass, 3, schedule, true, &l->m); break;
    default: forward_pass(a, l->n, 1, t.pass, 4, schedule, true, &l->m); break;
    }
    /* blocks - 1 twiddles have been used when a layer of so many blocks begins */
    for (uint32_t blocks = UINT32_C(1) << k; blocks < l->n / BLOCK; blocks *= 16)
        forward_pass(a, l->n, blocks, t.pass + 2 * ((size_t)blocks - 1), 4, schedule, false, &l->m);
    forward_blocks(a, l->n, t.block, schedule, &l->m);
}

static void forward_tight(uint64_t *a, const hemi_limb *l) { forward(a, l, TIGHT); }
static void forward_wide(uint64_t *a, const hemi_limb *l) { forward(a, l, WIDE); }

void hemi_avx512_ntt(uint64_t *a, const hemi_limb *l) {
    if (l->n < SMALLEST)
        hemi_kernels_portable.ntt(a, l);
    else if (l->m.bits <= WIDE_BITS)
        forward_wide(a, l);
    else
        forward_tight(a, l);
}

/* ---- inverse */

/* The layers of distance 1, 2, 4, 8. Twiddles of the first are 1: the outputs are in [0, 2), and room enough for the layers
 * up to the next reduction is added to x at once. */
HEMI_INLINE void inverse_blocks(uint64_t *a, uint32_t n, const uint64_t *w, int schedule, const hemi_modulus *m) {
    const context c = context_of(m);
    const vi room = all(schedule == TIGHT ? m->p : 3 * m->p);
    const vi w2 = load(w), v2 = load(w + 8), w4 = load(w + 16), v4 = load(w + 24), w8 = load(w + 32), v8 = load(w + 40);
    for (uint32_t i = 0; i < n; i += TOGETHER * BLOCK, a += TOGETHER * BLOCK) {
        vi x[TOGETHER], y[TOGETHER];
        EACH_BLOCK {
            x[b] = load(a + BLOCK * b);
            y[b] = load(a + BLOCK * b + 8);
            unshuffle(&x[b], &y[b]);
            const vi sum = add(x[b], y[b]);
            y[b] = add(sub(x[b], y[b]), c.m.p);
            x[b] = sum;
        }
        EACH_BLOCK {
            unshuffle(&x[b], &y[b]);
            x[b] = add(x[b], room);
            butterfly(&x[b], &y[b], w2, v2, &c);
        }
        EACH_BLOCK {
            unshuffle(&x[b], &y[b]);
            if (schedule == TIGHT) x[b] = reduced(x[b], 1, &c);
            butterfly(&x[b], &y[b], w4, v4, &c);
        }
        EACH_BLOCK {
            unshuffle(&x[b], &y[b]);
            if (schedule == TIGHT) x[b] = reduced(x[b], 1, &c);
            butterfly(&x[b], &y[b], w8, v8, &c);
            store(a + BLOCK * b, x[b]);
            store(a + BLOCK * b + 8, y[b]);
        }
    }
}

HEMI_INLINE void inverse_pass(uint64_t *a, uint32_t n, uint32_t stride, const uint64_t *w, unsigned k, int schedule,
                              bool last, const hemi_modulus *m) {
    const context c = context_of(m);
    const uint32_t size = stride << k, words = 16 * ((1u << k) - 1 + (last ? 1u << k : 0));
    for (uint32_t i = 0; i < n; i += size, a += size)
        for (uint32_t j = 0; j < stride; j += 8) {
            const uint64_t *t = w + (size_t)words * (j / 8);
            vi x[16];
#pragma GCC unroll 16
            for (unsigned e = 0; e < 1u << k; e++) x[e] = load(a + j + (size_t)e * stride);
#pragma GCC unroll 4
            for (unsigned layer = 0; layer < k; layer++) {
                const unsigned half = 1u << layer;
#pragma GCC unroll 8
                for (unsigned e = 0; e < 1u << (k - 1); e++) {
                    const unsigned place = e % half, at = e / half * 2 * half + place;
                    const uint64_t *u = t + 16 * (half - 1 + place);
                    x[at] = enter(x[at], layer, k, schedule, &c);
                    butterfly(&x[at], &x[at + half], load(u), load(u + 8), &c);
                }
            }
#pragma GCC unroll 16
            for (unsigned e = 0; e < 1u << k; e++) {
                const uint64_t *u = t + 16 * ((1u << k) - 1 + e);
                store(a + j + (size_t)e * stride, last ? mul_by(x[e], load(u), load(u + 8), &c.m) : x[e]);
            }
        }
}

HEMI_INLINE void inverse(uint64_t *a, const hemi_limb *l, int schedule) {
    const tables t = tables_of(l);
    const unsigned k = odd_pass(l->log2_n);
    inverse_blocks(a, l->n, t.inverse_block, schedule, &l->m);
    uint32_t stride = BLOCK;
    /* 2 (stride - 16) words of twiddles have been used when a pass of that stride begins */
    for (; stride << k < l->n; stride *= 16)
        inverse_pass(a, l->n, stride, t.inverse_pass + 2 * ((size_t)stride - BLOCK), 4, schedule, false, &l->m);
    const uint64_t *w = t.inverse_pass + 2 * ((size_t)stride - BLOCK);
    switch (k) {
    case 1: inverse_pass(a, l->n, stride, w, 1, schedule, true, &l->m); break;
    case 2: inverse_pass(a, l->n, stride, w, 2, schedule, true, &l->m); break;
    case 3: inverse_pass(a, l->n, stride, w, 3, schedule, true, &l->m); break;
    default: inverse_pass(a, l->n, stride, w, 4, schedule, true, &l->m); break;
    }
}

static void inverse_tight(uint64_t *a, const hemi_limb *l) { inverse(a, l, TIGHT); }
static void inverse_wide(uint64_t *a, const hemi_limb *l) { inverse(a, l, WIDE); }

void hemi_avx512_intt(uint64_t *a, const hemi_limb *l) {
    if (l->n < SMALLEST)
        hemi_kernels_portable.intt(a, l);
    else if (l->m.bits <= WIDE_BITS)
        inverse_wide(a, l);
    else
        inverse_tight(a, l);
}
