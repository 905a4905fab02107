/* The AVX-512 negacyclic NTT and its inverse, N >= 128 (below that, the portable ones). Arithmetic: avx512.h.
 *
 * Both are made of the butterfly (x, y) -> (x + w y, x - w y), five instructions,
 *     q = hi(1, y, w'),  X = lo(lo(x, y, w), q, -p),  Y = 2x - X       X and Y within [x - 1, x + 1].
 * Where x must be brought back to a short interval first, two more reduce it, or three multiply it:
 *     q = hi(-k, x, I),   x = lo(x, q, -p)                             x in [k, k + 1 + f)
 *     q = hi(-k, x, s'),  x = lo(lo(0, x, s), q, -p)                   x s in [k, k + 2)
 * Two schedules keep every number in [0, 2^52) = [0, I + f):
 *   tight (p < 2^50, I >= 4): x is reduced in every layer, k = 1, and the outputs are in [0, 3 + f), or [0, 4) after a product;
 *   wide  (p < 2^48, I >= 16): x is reduced, or multiplied, often enough that [a, b) may grow to [a - 1, b + 1) in each other
 *         layer; the intervals are noted where they begin.
 * In the last layer x is multiplied by a number that holds the factor -2^52; X and Y are in [0, 4) then, and a Montgomery step,
 * which divides by -2^52, makes them canonical in two instructions:
 *     t = lo(0, X, 1/p),  (X - t p) / 2^52 = -hi(0, t, p), and hi(0, t, p) is in [0, p).
 *
 * A pass is up to four layers on 2 ... 16 registers, each element read and written once. Where elements less than 16
 * apart meet, registers hold the same element of 8 blocks of 16: blocks are transposed on the way to memory, where stores of
 * parts of registers do half of the work. Element i of the 8 blocks is at word 16 (i mod 8) + 8 [i >= 8] of their 128 words,
 * so that each half of the blocks is transposed in place.
 *
 * Forward: Cooley-Tukey with psi merged into the twiddles (Longa and Naehrig): a block of every layer has one twiddle.
 * Inverse: the cyclic transform, decimation in time, whose first layers need few products; then slot j is multiplied by
 * psi^-j / n, which the last pass does on the way. Here the twiddle depends on the place in the block. */
#include "ring/avx512.h"

enum { BLOCK = 16, GROUP = 128, WIDE_BITS = 48 };

/* ---- tables. Of every twiddle w its quotient w' as well; a vector of 8 twiddles is followed by that of their quotients. */
typedef struct tables {
    uint64_t *pass;          /* for each forward pass, for each of its blocks: twiddles by layers */
    uint64_t *group;         /* for each group of 8 blocks: 15 vectors of twiddles by layers */
    uint64_t *inverse_group; /* twiddles of the places 1; 1 ... 3; 0 ... 7 of the layers of distance 2, 4, 8 */
    uint64_t
        *scale; /* -2^52; psi^(-n/2); psi^(-c stride) (-2^52) / n for the rows c of half of the last inverse pass */
    uint64_t *inverse_pass; /* for each inverse pass, for each vector of places: vectors of twiddles by layers */
} tables;

enum { GROUP_WORDS = 15 * 16, INVERSE_GROUP_WORDS = 24, SCALE_WORDS = 24 };

static tables tables_of(const hemi_limb *l) {
    tables t;
    t.group = l->twiddles;
    t.inverse_group = t.group + (size_t)l->n / GROUP * GROUP_WORDS;
    t.scale = t.inverse_group + INVERSE_GROUP_WORDS;
    t.inverse_pass = t.scale + SCALE_WORDS;
    t.pass = t.inverse_pass + 3 * (size_t)l->n;
    return t;
}

size_t hemi_avx512_twiddle_bytes(uint32_t n) {
    if (n < GROUP) return hemi_kernels_portable.twiddle_bytes(n);
    return ((size_t)n / GROUP * GROUP_WORDS + INVERSE_GROUP_WORDS + SCALE_WORDS + 3 * (size_t)n +
            2 * (size_t)n / BLOCK) *
           sizeof(uint64_t);
}

/* The first forward and the last inverse pass take 1 ... 4 layers so that the others take 4. */
static unsigned odd_pass(uint32_t log2_n) { return (log2_n - 5) % 4 + 1; }

static uint32_t reversed(uint32_t x, unsigned bits) {
    uint32_t r = 0;
    for (unsigned i = 0; i < bits; i++) r |= ((x >> i) & 1u) << (bits - 1 - i);
    return r;
}

static uint64_t *put(uint64_t *out, uint64_t w, const hemi_limb *l) {
    out[0] = w;
    out[1] = quotient52(w, &l->m);
    return out + 2;
}
static uint64_t *put8(uint64_t *out, const uint64_t *w, const hemi_limb *l) {
    for (unsigned i = 0; i < 8; i++) {
        out[i] = w[i];
        out[8 + i] = quotient52(w[i], &l->m);
    }
    return out + 16;
}

/* -2^52 mod p */
static uint64_t minus_r(const hemi_modulus *m) { return hemi_mod_neg(m->r52, m); }

static void forward_init(const hemi_limb *l) {
    const tables t = tables_of(l);
    uint64_t *out = t.pass, w[8];
    unsigned k = odd_pass(l->log2_n);
    for (uint32_t blocks = 1; blocks < l->n / BLOCK; blocks <<= k, k = 4)
        for (uint32_t i = 0; i < blocks; i++)
            for (unsigned layer = 0; layer < k; layer++)
                for (uint32_t b = 0; b < UINT32_C(1) << layer; b++)
                    out = put(out, l->psi_powers[((blocks + i) << layer) + b], l);
    out = t.group;
    for (uint32_t i = l->n / BLOCK; i < 2 * (l->n / BLOCK); i += 8)
        for (unsigned layer = 0; layer < 4; layer++)
            for (uint32_t b = 0; b < UINT32_C(1) << layer; b++) {
                for (uint32_t lane = 0; lane < 8; lane++) {
                    w[lane] = l->psi_powers[((i + lane) << layer) + b];
                    if (layer == 3) w[lane] = hemi_mod_mul(w[lane], minus_r(&l->m), &l->m);
                }
                out = put8(out, w, l);
            }
}

/* psi^-e, e < n */
static uint64_t psi_inverse_power(const hemi_limb *l, uint32_t e) {
    return l->psi_inverse_powers[reversed(e, l->log2_n)];
}
/* The twiddle of the inverse layer of distance t at place j < t: a 2t-th root of unity to the -j. */
static uint64_t inverse_twiddle(const hemi_limb *l, uint32_t t, uint32_t j) {
    return psi_inverse_power(l, j * (l->n / t));
}

static void inverse_init(const hemi_limb *l) {
    const tables t = tables_of(l);
    uint64_t *out = t.inverse_group, w[8], factor[8];
    for (uint32_t distance = 2; distance <= 8; distance *= 2)
        for (uint32_t j = distance < 8; j < distance; j++) out = put(out, inverse_twiddle(l, distance, j), l);
    /* Slot j = c stride + i, with c the row in the last pass, is multiplied by psi^-i in that pass's first layer and by
     * psi^(-c stride) times the scale in its last (half of the rows; the others are left with psi^(-n/2)). */
    const uint64_t scale = hemi_mod_mul(l->n_inverse, minus_r(&l->m), &l->m);
    const unsigned last = odd_pass(l->log2_n);
    out = put(put(t.scale, minus_r(&l->m), l), psi_inverse_power(l, l->n / 2), l);
    for (uint32_t c = 0; c < UINT32_C(1) << (last - 1); c++)
        out = put(out, hemi_mod_mul(psi_inverse_power(l, c * (l->n >> last)), scale, &l->m), l);
    out = t.inverse_pass;
    unsigned left = l->log2_n - 4, k;
    for (uint32_t s = BLOCK; left > 0; s <<= k, left -= k) {
        k = left > 4 ? 4 : left;
        for (uint32_t j = 0; j < s; j += 8) {
            for (uint32_t i = 0; i < 8; i++) {
                factor[i] = psi_inverse_power(l, j + i);
                if (k == 1) factor[i] = hemi_mod_mul(factor[i], scale, &l->m);
            }
            if (left == k) out = put8(out, factor, l);
            for (unsigned layer = 0; layer < k; layer++)
                for (uint32_t c = 0; c < UINT32_C(1) << layer; c++) {
                    for (uint32_t i = 0; i < 8; i++) {
                        w[i] = inverse_twiddle(l, s << layer, c * s + j + i);
                        if (left == k && layer == 0) w[i] = hemi_mod_mul(w[i], factor[i], &l->m);
                        if (left == layer + 1 && layer > 0) w[i] = hemi_mod_mul(w[i], t.scale[4 + 2 * c], &l->m);
                    }
                    out = put8(out, w, l);
                }
        }
    }
}

void hemi_avx512_twiddle_init(hemi_limb *l) {
    if (l->n < GROUP) {
        hemi_kernels_portable.twiddle_init(l);
        return;
    }
    forward_init(l);
    inverse_init(l);
}

/* ---- butterflies */

enum schedule { TIGHT, WIDE };

typedef struct context {
    prime_avx512 m;
    vi one, inverse_of_p; /* 1/p mod 2^52 */
} context;

HEMI_INLINE context context_of(const hemi_modulus *m) {
    return (context){prime_of(m), all(1), all(m->inverse64 & MASK52)};
}

HEMI_INLINE void butterfly(vi *x, vi *y, vi w, vi v, const context *c) {
    const vi q = hi(c->one, *y, v), twice = add(*x, *x);
    *x = lo(lo(*x, *y, w), q, c->m.minus_p);
    *y = sub(twice, *x);
}

/* x meant in [0, 2^52) to [k, k + 1 + f) */
HEMI_INLINE vi reduced(vi x, uint64_t k, const context *c) {
    return lo(x, hi(all(0 - k), x, c->m.inverse), c->m.minus_p);
}
/* x w in [k, k + 2) */
HEMI_INLINE vi product(vi x, vi w, vi v, uint64_t k, const context *c) {
    return lo(lo(zero(), x, w), hi(all(0 - k), x, v), c->m.minus_p);
}
/* -x / 2^52 mod p, canonical */
HEMI_INLINE vi montgomery(vi x, const context *c) { return hi(zero(), lo(zero(), x, c->inverse_of_p), c->m.p); }

/* How x enters a layer of a forward pass that is not the first. Wide: from [3, 12), [0, 15) after three layers, to [3, 6 + f). */
HEMI_INLINE vi enter(vi x, unsigned layer, int schedule, const context *c) {
    if (schedule == TIGHT) return reduced(x, 1, c);
    return layer == 3 ? reduced(x, 4, c) : x;
}

/* Transposed: word r of the four registers to words 0 ... 3 of row r, for 8 rows that are 16 words apart. */
HEMI_INLINE void store_rows(uint64_t *a, vi x0, vi x1, vi x2, vi x3) {
    const vi even01 = _mm512_unpacklo_epi64(x0, x1), odd01 = _mm512_unpackhi_epi64(x0, x1);
    const vi even23 = _mm512_unpacklo_epi64(x2, x3), odd23 = _mm512_unpackhi_epi64(x2, x3);
    const vi low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    const vi rows02 = _mm512_permutex2var_epi64(even01, low, even23),
             rows46 = _mm512_permutex2var_epi64(even01, high, even23);
    const vi rows13 = _mm512_permutex2var_epi64(odd01, low, odd23),
             rows57 = _mm512_permutex2var_epi64(odd01, high, odd23);
    _mm256_storeu_si256((__m256i *)(void *)a, _mm512_castsi512_si256(rows02));
    _mm256_storeu_si256((__m256i *)(void *)(a + 16), _mm512_castsi512_si256(rows13));
    _mm256_storeu_si256((__m256i *)(void *)(a + 32), _mm512_extracti64x4_epi64(rows02, 1));
    _mm256_storeu_si256((__m256i *)(void *)(a + 48), _mm512_extracti64x4_epi64(rows13, 1));
    _mm256_storeu_si256((__m256i *)(void *)(a + 64), _mm512_castsi512_si256(rows46));
    _mm256_storeu_si256((__m256i *)(void *)(a + 80), _mm512_castsi512_si256(rows57));
    _mm256_storeu_si256((__m256i *)(void *)(a + 96), _mm512_extracti64x4_epi64(rows46, 1));
    _mm256_storeu_si256((__m256i *)(void *)(a + 112), _mm512_extracti64x4_epi64(rows57, 1));
}
/* Word r of x and of y to words 0 and 1 of row r, for 8 rows that are 16 words apart. */
HEMI_INLINE void store_pair(uint64_t *a, vi x, vi y) {
    const vi even = _mm512_unpacklo_epi64(x, y), odd = _mm512_unpackhi_epi64(x, y);
    _mm_storeu_si128((__m128i *)(void *)a, _mm512_castsi512_si128(even));
    _mm_storeu_si128((__m128i *)(void *)(a + 16), _mm512_castsi512_si128(odd));
    _mm_storeu_si128((__m128i *)(void *)(a + 32), _mm512_extracti64x2_epi64(even, 1));
    _mm_storeu_si128((__m128i *)(void *)(a + 48), _mm512_extracti64x2_epi64(odd, 1));
    _mm_storeu_si128((__m128i *)(void *)(a + 64), _mm512_extracti64x2_epi64(even, 2));
    _mm_storeu_si128((__m128i *)(void *)(a + 80), _mm512_extracti64x2_epi64(odd, 2));
    _mm_storeu_si128((__m128i *)(void *)(a + 96), _mm512_extracti64x2_epi64(even, 3));
    _mm_storeu_si128((__m128i *)(void *)(a + 112), _mm512_extracti64x2_epi64(odd, 3));
}

/* Where element i of the transposed blocks of a group is. */
HEMI_INLINE unsigned slot(unsigned i) { return 16 * (i & 7) + (i & 8); }

/* Rows of a pass: e stride bytes from the first, e < 16 a constant. Odd multiples in registers, hidden from the compiler, which
 * would find sixteen pointers instead, and they scaled by the address: that is all that fits. */
typedef struct rows {
    size_t step, step3, step5, step7;
} rows;

HEMI_INLINE rows rows_of(size_t stride) {
    rows r = {8 * stride, 24 * stride, 40 * stride, 56 * stride};
    __asm__("" : "+r"(r.step), "+r"(r.step3), "+r"(r.step5), "+r"(r.step7));
    return r;
}

/* The same pointer, but the compiler does not know: it computes addresses anew rather than keep sixteen. */
HEMI_INLINE uint64_t *hidden(uint64_t *a) {
    __asm__("" : "+r"(a));
    return a;
}
/* A load into a register, once. */
HEMI_INLINE vi fetch(const void *p) {
    vi x = load(p);
    __asm__("" : "+v"(x));
    return x;
}

HEMI_INLINE uint64_t *row(uint64_t *a, const rows *r, unsigned e) {
    char *p = (char *)a;
    if (e & 8) p += 8 * r->step;
    switch (e & 7) {
    case 0:
        break;
    case 1:
        p += r->step;
        break;
    case 2:
        p += 2 * r->step;
        break;
    case 3:
        p += r->step3;
        break;
    case 4:
        p += 4 * r->step;
        break;
    case 5:
        p += r->step5;
        break;
    case 6:
        p += 2 * r->step3;
        break;
    default:
        p += r->step7;
        break;
    }
    return (uint64_t *)(void *)p;
}

/* ---- forward */

/* The order of the butterflies of a pass: those that a butterfly waits for should come well before it, and the outputs of
 * a full pass in two halves, so that its stores do not come all at once. */
HEMI_INLINE unsigned layer_of(unsigned step, unsigned k) {
    return k == 4 && step >= 16 ? 2 + step / 4 % 2 : step >> (k - 1);
}
/* The register of the butterfly's x. */
HEMI_INLINE unsigned register_of(unsigned step, unsigned k) {
    const unsigned layer = layer_of(step, k), e = step & ((1u << (k - 1)) - 1);
    if (k == 4 && step >= 16) return (step & 8) + (layer == 2 ? (e & 2) * 2 + (e & 1) : 2 * (e & 3));
    const unsigned r = (e >> layer) << (layer + 1) | (e & ((1u << layer) - 1)); /* bits reversed */
    return ((r & 1) << 3 | (r & 2) << 1 | (r & 4) >> 1 | (r & 8) >> 3) >> (4 - k);
}

HEMI_INLINE void forward_pass(uint64_t *a, uint32_t n, uint32_t blocks, const uint64_t *w, unsigned k, int schedule,
                              bool first, bool transposed, const hemi_modulus *m) {
    const context c = context_of(m);
    /* for canonical x. Wide: [3, 4 + 2k) after this pass, so that three layers later it is [0, 7 + 2k) */
    const vi room = all(schedule == TIGHT ? m->p : (k + 3) * m->p);
    const uint32_t size = n / blocks, stride = transposed ? BLOCK : size >> k;
    const rows r = rows_of(stride);
    for (uint32_t i = 0; i < blocks; i++, a += size, w += 2 * ((1u << k) - 1))
        for (uint32_t j = 0; j < stride; j += 8) {
            vi x[16];
#pragma GCC unroll 16
            for (unsigned e = 0; e < 1u << k; e++) x[e] = fetch(row(a + j, &r, e));
#pragma GCC unroll 32
            for (unsigned step = 0; step < k << (k - 1); step++) {
                const unsigned layer = layer_of(step, k), at = register_of(step, k), half = (1u << k) >> (layer + 1);
                const uint64_t *t = w + 2 * ((1u << layer) - 1 + at / (2 * half));
                if (first && layer == 0)
                    x[at] = add(x[at], room);
                else if (!first || schedule == TIGHT)
                    x[at] = enter(x[at], layer, schedule, &c);
                butterfly(&x[at], &x[at + half], all(t[0]), all(t[1]), &c);
                if (layer == k - 1 && transposed) store_pair(a + j + at / 8 * GROUP + at % 8, x[at], x[at + 1]);
            }
            if (transposed) continue;
            uint64_t *out = hidden(a + j);
#pragma GCC unroll 16
            for (unsigned e = 0; e < 1u << k; e++) store(row(out, &r, e), x[e]);
        }
}

HEMI_INLINE void forward_groups(uint64_t *a, uint32_t n, const uint64_t *w, const uint64_t *scale, int schedule,
                                const hemi_modulus *m) {
    const context c = context_of(m);
    const vi r = all(scale[0]), r_quotient = all(scale[1]);
    for (uint32_t i = 0; i < n; i += GROUP, a += GROUP, w += GROUP_WORDS) {
        vi x[16];
#pragma GCC unroll 16
        for (unsigned e = 0; e < 16; e++) x[e] = fetch(a + slot(e));
#pragma GCC unroll 32
        for (unsigned step = 0; step < 32; step++) {
            const unsigned layer = layer_of(step, 4), at = register_of(step, 4), half = 8 >> layer;
            const uint64_t *t = w + 16 * ((1u << layer) - 1 + at / (2 * half));
            x[at] = layer == 3 ? product(x[at], r, r_quotient, 1, &c) : enter(x[at], layer, schedule, &c);
            butterfly(&x[at], &x[at + half], load(t), load(t + 8), &c);
            if (layer == 3) store_pair(a + at, montgomery(x[at], &c), montgomery(x[at + 1], &c));
        }
    }
}

/* Each kind of pass is a function of its own: together they would not find enough registers. */
#define SEPARATE static __attribute__((noinline)) void

typedef void forward_pass_fn(uint64_t *a, uint32_t n, uint32_t blocks, const uint64_t *w, const hemi_modulus *m);
#define FORWARD_PASS(name, k, schedule, first, transposed)                                                             \
    SEPARATE name(uint64_t *a, uint32_t n, uint32_t blocks, const uint64_t *w, const hemi_modulus *m) {                \
        forward_pass(a, n, blocks, w, k, schedule, first, transposed, m);                                              \
    }
#define FORWARD(name, schedule)                                                                                        \
    FORWARD_PASS(name##_first1, 1, schedule, true, false)                                                              \
    FORWARD_PASS(name##_first2, 2, schedule, true, false)                                                              \
    FORWARD_PASS(name##_first3, 3, schedule, true, false)                                                              \
    FORWARD_PASS(name##_first4, 4, schedule, true, false)                                                              \
    FORWARD_PASS(name##_only3, 3, schedule, true, true)                                                                \
    FORWARD_PASS(name##_only4, 4, schedule, true, true)                                                                \
    FORWARD_PASS(name##_middle, 4, schedule, false, false)                                                             \
    FORWARD_PASS(name##_last, 4, schedule, false, true)                                                                \
    SEPARATE name##_groups(uint64_t *a, uint32_t n, const uint64_t *w, const uint64_t *scale, const hemi_modulus *m) { \
        forward_groups(a, n, w, scale, schedule, m);                                                                   \
    }                                                                                                                  \
    static void name(uint64_t *a, const hemi_limb *l) {                                                                \
        static forward_pass_fn *const first[] = {name##_first1, name##_first2, name##_first3, name##_first4};          \
        const tables t = tables_of(l);                                                                                 \
        const unsigned k = odd_pass(l->log2_n);                                                                        \
        (l->n == 128 ? name##_only3 : l->n == 256 ? name##_only4 : first[k - 1])(a, l->n, 1, t.pass, &l->m);           \
        /* blocks - 1 twiddles have been used when a layer of so many blocks begins */                                 \
        for (uint32_t blocks = UINT32_C(1) << k; blocks < l->n / BLOCK; blocks *= 16)                                  \
            (blocks * 256 < l->n ? name##_middle : name##_last)(a, l->n, blocks, t.pass + 2 * ((size_t)blocks - 1),    \
                                                                &l->m);                                                \
        name##_groups(a, l->n, t.group, t.scale, &l->m);                                                               \
    }
FORWARD(forward_tight, TIGHT)
FORWARD(forward_wide, WIDE)

void hemi_avx512_ntt(uint64_t *a, const hemi_limb *l) {
    if (l->n < GROUP)
        hemi_kernels_portable.ntt(a, l);
    else if (l->m.bits <= WIDE_BITS)
        forward_wide(a, l);
    else
        forward_tight(a, l);
}

/* ---- inverse */

/* The butterfly with w = 1, y < k. */
HEMI_INLINE void sum_difference(vi *x, vi *y, vi k_p) {
    const vi sum = add(*x, *y);
    *y = add(sub(*x, *y), k_p);
    *x = sum;
}

/* Quarter i of the transposition of a group: half of the rows of half of the words. */
HEMI_INLINE void transpose_quarter(uint64_t *to, const uint64_t *a, unsigned i) {
    a += 64 * (i % 2) + 8 * (i / 2);
    store_rows(to + 4 * (i % 2) + 8 * (i / 2), load(a), load(a + 16), load(a + 32), load(a + 48));
}

/* The layers of distance 1, 2, 4, 8 of a group of transposed blocks. Canonical numbers are in [0, 2) after the first and in
 * [0, 4) after the second layer, where place 0 has w = 1, the others x + p. Wide: in the third layer, place 0 comes to [0, 8) in
 * the same way, the others to [0, 6); in the fourth, place 0 is reduced and the others get x + 5p: [4, 12). */
HEMI_INLINE void inverse_group(uint64_t *a, const uint64_t *ahead, const uint64_t *from, uint64_t *next,
                               const uint64_t *w, int schedule, const hemi_modulus *m) {
    const context c = context_of(m);
    const vi twice_p = all(2 * m->p), room = all(5 * m->p);
    vi x[16];
#pragma GCC unroll 16
    for (unsigned e = 0; e < 16; e++) x[e] = load(from + slot(e));
#pragma GCC unroll 8
    for (unsigned e = 0; e < 16; e += 2) {
        sum_difference(&x[e], &x[e + 1], c.m.p);
        if (e == 8 && next) transpose_quarter(next, ahead, 0);
    }
#pragma GCC unroll 4
    for (unsigned e = 0; e < 16; e += 4) {
        sum_difference(&x[e], &x[e + 2], twice_p);
        x[e + 1] = add(x[e + 1], c.m.p);
        butterfly(&x[e + 1], &x[e + 3], all(w[0]), all(w[1]), &c);
        if (e == 8 && next) transpose_quarter(next, ahead, 1);
    }
#pragma GCC unroll 8
    for (unsigned e = 0; e < 8; e++) {
        const unsigned place = e % 4, at = e / 4 * 8 + place;
        if (place == 0 && schedule == WIDE) {
            sum_difference(&x[at], &x[at + 4], all(4 * m->p));
        } else if (place == 0) { /* the product by 1 is in [-1, 1) */
            x[at] = reduced(x[at], 1, &c);
            butterfly(&x[at], &x[at + 4], c.one, c.m.inverse, &c);
        } else {
            x[at] = schedule == WIDE ? add(x[at], c.m.p) : reduced(x[at], 1, &c);
            butterfly(&x[at], &x[at + 4], all(w[2 * place]), all(w[2 * place + 1]), &c);
        }
        if (e == 3 && next) transpose_quarter(next, ahead, 2);
        if (e == 7 && next) transpose_quarter(next, ahead, 3);
    }
#pragma GCC unroll 8
    for (unsigned e = 0; e < 8; e++) {
        x[e] = schedule == TIGHT ? reduced(x[e], 1, &c) : e == 0 ? reduced(x[e], 5, &c) : add(x[e], room);
        butterfly(&x[e], &x[e + 8], all(w[8 + 2 * e]), all(w[9 + 2 * e]), &c);
        if (e % 4 < 3) continue;
        store_rows(a + e - 3, x[e - 3], x[e - 2], x[e - 1], x[e]);
        store_rows(a + e + 5, x[e + 5], x[e + 6], x[e + 7], x[e + 8]);
    }
}

/* Groups are transposed into one of two buffers while the one before is at work: whole registers cannot be had from
 * quarters still on their way. */
HEMI_INLINE void inverse_groups(uint64_t *r, const uint64_t *a, uint32_t n, const uint64_t *w, int schedule,
                                const hemi_modulus *m) {
    uint64_t buffer[2][GROUP] __attribute__((aligned(64)));
    for (unsigned i = 0; i < 4; i++) transpose_quarter(buffer[0], a, i);
    uint32_t i = 0;
    for (; i + GROUP < n; i += GROUP)
        inverse_group(r + i, a + i + GROUP, buffer[i / GROUP % 2], buffer[(i / GROUP + 1) % 2], w, schedule, m);
    inverse_group(r + i, NULL, buffer[i / GROUP % 2], NULL, w, schedule, m);
}

/* The last pass begins with products, and the one before need not reduce. Wide: a pass begins with [4, 12), which four layers
 * make [0, 16), or, with a reduction in the fourth, [4, 7 + f); in the last pass [3, 5) becomes [0, 8) before the last layer. */
HEMI_INLINE void inverse_pass(uint64_t *a, uint32_t n, uint32_t stride, const uint64_t *w, unsigned k, int schedule,
                              bool before_last, bool last, const uint64_t *scale, const hemi_modulus *m) {
    const context c = context_of(m);
    const vi upper = all(scale[2]), upper_quotient = all(scale[3]);
    const rows r = rows_of(stride);
    const uint32_t size = stride << k, words = 16 * ((1u << k) - (last ? 0 : 1));
    for (uint32_t i = 0; i < n; i += size, a += size)
        for (uint32_t j = 0; j < stride; j += 8) {
            const uint64_t *t = w + (size_t)words * (j / 8), *factor = t;
            vi x[16];
            if (last) t += 16;
#pragma GCC unroll 16
            for (unsigned e = 0; e < 1u << k; e++) x[e] = fetch(row(a + j, &r, e));
#pragma GCC unroll 4
            for (unsigned layer = 0; layer < k; layer++) {
                const unsigned half = 1u << layer;
#pragma GCC unroll 8
                for (unsigned e = 0; e < 1u << (k - 1); e++) {
                    const unsigned block = layer < 2 ? e / half : e & ((1u << (k - 1 - layer)) - 1);
                    const unsigned place = layer < 2 ? e % half : e >> (k - 1 - layer), at = block * 2 * half + place;
                    const uint64_t *u = t + 16 * (half - 1 + place), *s = scale + 4 + 2 * place;
                    if (last && layer == 0)
                        x[at] = product(x[at], load(factor), load(factor + 8), schedule == TIGHT || k == 1 ? 1 : 3, &c);
                    else if (last && layer == k - 1)
                        x[at] = product(x[at], all(s[0]), all(s[1]), 1, &c);
                    else if (schedule == TIGHT || (!last && !before_last && layer == 3))
                        x[at] = reduced(x[at], schedule == TIGHT ? 1 : 5, &c);
                    butterfly(&x[at], &x[at + half], load(u), load(u + 8), &c);
                    if (!last || layer < k - 1) continue;
                    x[at] = montgomery(x[at], &c);
                    x[at + half] = montgomery(product(x[at + half], upper, upper_quotient, 0, &c), &c);
                }
            }
            uint64_t *out = hidden(a + j);
#pragma GCC unroll 16
            for (unsigned e = 0; e < 1u << k; e++) store(row(out, &r, e), x[e]);
        }
}

typedef void inverse_pass_fn(uint64_t *a, uint32_t n, uint32_t stride, const uint64_t *w, const uint64_t *scale,
                             const hemi_modulus *m);
#define INVERSE_PASS(name, k, schedule, before_last, last)                                                             \
    SEPARATE name(uint64_t *a, uint32_t n, uint32_t stride, const uint64_t *w, const uint64_t *scale,                  \
                  const hemi_modulus *m) {                                                                             \
        inverse_pass(a, n, stride, w, k, schedule, before_last, last, scale, m);                                       \
    }
#define INVERSE(name, schedule)                                                                                        \
    INVERSE_PASS(name##_last1, 1, schedule, false, true)                                                               \
    INVERSE_PASS(name##_last2, 2, schedule, false, true)                                                               \
    INVERSE_PASS(name##_last3, 3, schedule, false, true)                                                               \
    INVERSE_PASS(name##_last4, 4, schedule, false, true)                                                               \
    INVERSE_PASS(name##_middle, 4, schedule, false, false)                                                             \
    INVERSE_PASS(name##_before_last, 4, schedule, true, false)                                                         \
    SEPARATE name##_groups(uint64_t *r, const uint64_t *a, uint32_t n, const uint64_t *w, const hemi_modulus *m) {     \
        inverse_groups(r, a, n, w, schedule, m);                                                                       \
    }                                                                                                                  \
    static void name(uint64_t *r, const uint64_t *a, const hemi_limb *l) {                                             \
        static inverse_pass_fn *const last[] = {name##_last1, name##_last2, name##_last3, name##_last4};               \
        const tables t = tables_of(l);                                                                                 \
        const unsigned k = odd_pass(l->log2_n);                                                                        \
        name##_groups(r, a, l->n, t.inverse_group, &l->m);                                                             \
        /* 2 (stride - 16) words of twiddles have been used when a pass of that stride begins */                       \
        for (uint32_t stride = BLOCK; stride < l->n; stride *= 16)                                                     \
            (stride << k == l->n ? last[k - 1]                                                                         \
             : stride << (k + 4) == l->n                                                                               \
                 ? name##_before_last                                                                                  \
                 : name##_middle)(r, l->n, stride, t.inverse_pass + 2 * (stride - BLOCK), t.scale, &l->m);             \
    }
INVERSE(inverse_tight, TIGHT)
INVERSE(inverse_wide, WIDE)

void hemi_avx512_intt(uint64_t *r, const uint64_t *a, const hemi_limb *l) {
    if (l->n < GROUP)
        hemi_kernels_portable.intt(r, a, l);
    else if (l->m.bits <= WIDE_BITS)
        inverse_wide(r, a, l);
    else
        inverse_tight(r, a, l);
}
