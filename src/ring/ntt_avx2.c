/* The number-theoretic transforms of the AVX2 table (arithmetic, and the notation "x <= B": avx2.h).
 *
 * Forward: Cooley-Tukey with psi merged into the twiddles, two layers per pass over memory. A layer takes x and y to
 * x + w y and x - w y, and bounds B to 17/16 B + 1/2 or, where x is reduced first, to 1 + B/16:
 *   input                 1     (canonical, not centred)
 *   first pass            2.17  (one or two layers)
 *   passes in turn        3.47, then 1.80 (first layer reduced), 3.06, 1.77 (reduced), 3.03, ...
 * What is multiplied is below 4, as mul_by needs, and the results below 3.5, as canonical_biased does.
 *
 * Inverse: decimation in time on the bit-reversed slots, with twiddles that depend on the position only. Its first two
 * layers multiply by nothing but psi^(-n/2); in exchange coefficient j needs a factor n^-1 psi^-j at the end, half of
 * which merges with the twiddles of the last pass. (Merging psi as the forward transform does leaves sums x + y
 * that no multiplication reduces; this way takes a tenth fewer instructions.)
 *   first pass            2     (4 where only sums meet, which is reduced)
 *   a single layer        1.13  (reduced; if the number of layers is odd)
 *   passes in turn        3.29, then 1.80 (first layer reduced), 3.06, ...
 *   last pass             everything is multiplied first: sums 3, before the factors 2.1
 *
 * Large transforms go depth first: once a block fits the first-level cache, all its layers are done. The layers inside
 * a vector have a pass of their own, for two reasons: a block of 16 that stays in registers for four layers is one
 * chain of instructions longer than the processor looks ahead (a third slower than two passes), and transposing by
 * loads and stores of half vectors spares the one port that can move data across halves. */
#include <string.h>

#include <stdalign.h>

#include "ring/avx2.h"

#define SHORTEST    32    /* below, the portable functions */
#define CACHE_BLOCK 4096u /* coefficients */

/* ---- tables: w and w / p */
typedef struct pair {
    double w, v;
} pair;
typedef struct pair4 {
    double w[4], v[4];
} pair4;

/* Node k = len + i of the forward network is block i of the layer of len blocks. */
typedef struct forward_node {
    pair one, two, three; /* psi_powers[k], [2k], [2k + 1] */
} forward_node;
typedef struct forward_last { /* the two layers from nodes k .. k + 3 on */
    pair4 group, even, odd;   /* psi_powers[k + g], [2 (k + g)], [2 (k + g) + 1], g = 0..3 */
} forward_last;

/* With w(m) = psi^(-2n/m), the inverse root of order m: */
typedef struct inverse_step { /* four positions j of blocks of 4t: w(2t)^j, w(4t)^j, w(4t)^(j + t) */
    pair4 a, b, c;
} inverse_step;
typedef struct inverse_last { /* four positions j < n/4: f = n^-1 psi^-j, and f times a = w(n/2)^j, b = w(n)^j, a b */
    pair4 f, fa, fb, fab;
} inverse_last;
typedef struct tables {
    alignas(64) pair4 order8;   /* w(8)^j */
    pair order4, factor[4];     /* w(4); psi^(-k n/4) */
    forward_last *last;         /* n/16 */
    inverse_last *inverse_last; /* n/16 */
    inverse_step *step;         /* n/32: those of blocks of 4t begin at t/4 */
    forward_node *node;         /* n/8 */
} tables;

size_t hemi_avx2_twiddle_bytes(uint32_t n) {
    if (n < SHORTEST) return hemi_kernels_portable.twiddle_bytes(n);
    return sizeof(tables) + n / 16 * (sizeof(forward_last) + sizeof(inverse_last)) + n / 32 * sizeof(inverse_step) +
           n / 8 * sizeof(forward_node);
}

static pair pair_of(uint64_t w, const hemi_modulus *m) {
    const double centred_w = (double)hemi_mod_centre(w, m);
    return (pair){centred_w, centred_w / m->value};
}

static void put(pair4 *r, size_t lane, uint64_t w, const hemi_modulus *m) {
    const pair c = pair_of(w, m);
    r->w[lane] = c.w;
    r->v[lane] = c.v;
}

static void forward_init(const tables *t, const hemi_limb *l) {
    const uint64_t *psi = l->psi_powers;
    for (size_t k = 1; k < l->n / 8; k++)
        t->node[k] = (forward_node){pair_of(psi[k], &l->m), pair_of(psi[2 * k], &l->m), pair_of(psi[2 * k + 1], &l->m)};
    for (size_t k = l->n / 4, g = 0; k < l->n / 2; k++, g++) {
        forward_last *r = &t->last[g / 4];
        put(&r->group, g % 4, psi[k], &l->m);
        put(&r->even, g % 4, psi[2 * k], &l->m);
        put(&r->odd, g % 4, psi[2 * k + 1], &l->m);
    }
}

/* psi^-e, e < 2n. */
static uint64_t inverse_power(const hemi_limb *l, size_t e) {
    size_t reversed = 0;
    for (unsigned i = 0; i < l->log2_n; i++) reversed |= ((e >> i) & 1) << (l->log2_n - 1 - i);
    const uint64_t r = l->psi_inverse_powers[reversed];
    return e < l->n ? r : hemi_mod_neg(r, &l->m);
}

/* w(order)^j */
static uint64_t root_power(const hemi_limb *l, size_t order, size_t j) {
    return inverse_power(l, j * (2 * l->n / order));
}

static void inverse_init(tables *t, const hemi_limb *l) {
    const hemi_modulus *m = &l->m;
    for (size_t j = 0; j < 4; j++) {
        put(&t->order8, j, root_power(l, 8, j), m);
        t->factor[j] = pair_of(inverse_power(l, j * (l->n / 4)), m);
    }
    t->order4 = pair_of(root_power(l, 4, 1), m);
    for (size_t s = l->log2_n % 2 ? 8 : 4; s <= l->n / 16; s *= 4)
        for (size_t j = 0; j < s; j++) {
            inverse_step *r = &t->step[(s + j) / 4];
            put(&r->a, j % 4, root_power(l, 2 * s, j), m);
            put(&r->b, j % 4, root_power(l, 4 * s, j), m);
            put(&r->c, j % 4, root_power(l, 4 * s, j + s), m);
        }
    for (size_t j = 0; j < l->n / 4; j++) {
        inverse_last *r = &t->inverse_last[j / 4];
        const uint64_t f = hemi_mod_mul(l->n_inverse, inverse_power(l, j), m);
        const uint64_t a = root_power(l, l->n / 2, j), fb = hemi_mod_mul(f, root_power(l, l->n, j), m);
        put(&r->f, j % 4, f, m);
        put(&r->fa, j % 4, hemi_mod_mul(f, a, m), m);
        put(&r->fb, j % 4, fb, m);
        put(&r->fab, j % 4, hemi_mod_mul(fb, a, m), m);
    }
}

void hemi_avx2_twiddle_init(hemi_limb *l) {
    if (l->n < SHORTEST) {
        hemi_kernels_portable.twiddle_init(l);
        return;
    }
    tables *t = l->twiddles;
    t->last = (forward_last *)(t + 1);
    t->inverse_last = (inverse_last *)(t->last + l->n / 16);
    t->step = (inverse_step *)(t->inverse_last + l->n / 16);
    t->node = (forward_node *)(t->step + l->n / 32);
    forward_init(t, l);
    inverse_init(t, l);
}

/* ---- butterflies */
HEMI_INLINE vf by(vf a, const pair *c, vf p) {
    return mul_by(a, _mm256_broadcast_sd(&c->w), _mm256_broadcast_sd(&c->v), p);
}
HEMI_INLINE vf by4(vf a, const pair4 *c, vf p) { return mul_by(a, load(c->w), load(c->v), p); }

/* x, y -> x + y, x - y */
HEMI_INLINE void cross(vf *x, vf *y) {
    const vf s = add(*x, *y), d = sub(*x, *y);
    *x = s;
    *y = d;
}

/* Lanes 0 and 2, or 1 and 3, of x and y in turn. As integers: unpack_pd has one port, unpack_epi64 two. */
HEMI_INLINE vf even_lanes(vf x, vf y) {
    return _mm256_castsi256_pd(_mm256_unpacklo_epi64(_mm256_castpd_si256(x), _mm256_castpd_si256(y)));
}
HEMI_INLINE vf odd_lanes(vf x, vf y) {
    return _mm256_castsi256_pd(_mm256_unpackhi_epi64(_mm256_castpd_si256(x), _mm256_castpd_si256(y)));
}

/* 4 x 4 transposes: element i of row k is lane k of x[i]. */
HEMI_INLINE vf halves(const uint64_t *low, const uint64_t *high) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd((const double *)(const void *)low)),
                                _mm_loadu_pd((const double *)(const void *)high), 1);
}
HEMI_INLINE void load_transposed(vf x[4], const uint64_t *a) {
    const vf r0 = halves(a, a + 8), r1 = halves(a + 4, a + 12), r2 = halves(a + 2, a + 10), r3 = halves(a + 6, a + 14);
    x[0] = even_lanes(r0, r1);
    x[1] = odd_lanes(r0, r1);
    x[2] = even_lanes(r2, r3);
    x[3] = odd_lanes(r2, r3);
}
HEMI_INLINE void store_halves(uint64_t *low, uint64_t *high, vf x) {
    _mm_storeu_pd((double *)(void *)low, _mm256_castpd256_pd128(x));
    _mm_storeu_pd((double *)(void *)high, _mm256_extractf128_pd(x, 1));
}
HEMI_INLINE void store_transposed(uint64_t *a, const vf x[4]) {
    store_halves(a, a + 8, even_lanes(x[0], x[1]));
    store_halves(a + 4, a + 12, odd_lanes(x[0], x[1]));
    store_halves(a + 2, a + 10, even_lanes(x[2], x[3]));
    store_halves(a + 6, a + 14, odd_lanes(x[2], x[3]));
}

/* ---- forward */

/* Two layers on four vectors. */
HEMI_INLINE void forward4(vf x[4], const forward_node *w, const prime_avx2 *m, bool reduced) {
    if (reduced) {
        x[0] = reduce(x[0], m);
        x[1] = reduce(x[1], m);
    }
    x[2] = by(x[2], &w->one, m->p);
    x[3] = by(x[3], &w->one, m->p);
    cross(&x[0], &x[2]);
    cross(&x[1], &x[3]);
    x[1] = by(x[1], &w->two, m->p);
    x[3] = by(x[3], &w->three, m->p);
    cross(&x[0], &x[1]);
    cross(&x[2], &x[3]);
}

enum { PLAIN, REDUCED, FIRST };

/* Two layers on `blocks` blocks of 4t, from node w on. FIRST: the input is integers. */
HEMI_INLINE void forward_pass_as(int kind, uint64_t *a, const forward_node *w, size_t blocks, size_t t,
                                 const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, w++, a += 4 * t)
        for (size_t j = 0; j < t; j += 4) {
            vf x[4];
            for (size_t k = 0; k < 4; k++)
                x[k] = kind == FIRST ? from_int(load_int(a + k * t + j)) : load(a + k * t + j);
            forward4(x, w, m, kind == REDUCED);
            for (size_t k = 0; k < 4; k++) store(a + k * t + j, x[k]);
        }
}

static void forward_pass(int kind, uint64_t *a, const forward_node *w, size_t blocks, size_t t, const prime_avx2 *m) {
    if (kind == FIRST)
        forward_pass_as(FIRST, a, w, blocks, t, m);
    else if (kind == PLAIN)
        forward_pass_as(PLAIN, a, w, blocks, t, m);
    else
        forward_pass_as(REDUCED, a, w, blocks, t, m);
}

/* One layer, the first. */
static void forward_first2(uint64_t *a, const forward_node *w, size_t t, const prime_avx2 *m) {
    for (size_t j = 0; j < t; j += 4) {
        vf x = from_int(load_int(a + j)), y = by(from_int(load_int(a + t + j)), &w->one, m->p);
        cross(&x, &y);
        store(a + j, x);
        store(a + t + j, y);
    }
}

/* The last two layers, on groups of four coefficients, and the canonical residues. */
HEMI_INLINE void forward_last_as(bool reduced, uint64_t *a, const forward_last *w, size_t blocks, const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, w++, a += 16) {
        vf x[4];
        load_transposed(x, a);
        if (reduced) {
            x[0] = reduce(x[0], m);
            x[1] = reduce(x[1], m);
        }
        x[2] = by4(x[2], &w->group, m->p);
        x[3] = by4(x[3], &w->group, m->p);
        cross(&x[0], &x[2]);
        cross(&x[1], &x[3]);
        x[1] = by4(x[1], &w->even, m->p);
        x[3] = by4(x[3], &w->odd, m->p);
        x[0] = sub(x[0], m->half);
        x[2] = sub(x[2], m->half);
        cross(&x[0], &x[1]);
        cross(&x[2], &x[3]);
        for (size_t k = 0; k < 4; k++) x[k] = _mm256_castsi256_pd(canonical_biased(x[k], m));
        store_transposed(a, x);
    }
}

static void forward_last2(int kind, uint64_t *a, const forward_last *w, size_t blocks, const prime_avx2 *m) {
    if (kind == PLAIN)
        forward_last_as(false, a, w, blocks, m);
    else
        forward_last_as(true, a, w, blocks, m);
}

void hemi_avx2_ntt(uint64_t *a, const hemi_limb *l) {
    if (l->n < SHORTEST) {
        hemi_kernels_portable.ntt(a, l);
        return;
    }
    const tables *t = l->twiddles;
    const prime_avx2 m = prime_of(&l->m);
    size_t len = l->log2_n % 2 ? 2 : 4, size = l->n / len; /* blocks, and their size */
    if (len == 2)
        forward_first2(a, &t->node[1], size, &m);
    else
        forward_pass(FIRST, a, &t->node[1], 1, size, &m);
    int kind = PLAIN;
    for (; size > CACHE_BLOCK; len *= 4, size /= 4, kind ^= REDUCED)
        forward_pass(kind, a, &t->node[len], len, size / 4, &m);
    for (size_t b = 0; b < len; b++) {
        uint64_t *block = a + b * size;
        int inner_kind = kind;
        for (size_t inner = 1, s = size; s > 4; inner *= 4, s /= 4, inner_kind ^= REDUCED)
            forward_pass(inner_kind, block, &t->node[inner * (len + b)], inner, s / 4, &m);
        forward_last2(inner_kind, block, &t->last[b * size / 16], size / 16, &m);
    }
}

/* ---- inverse */

/* The first two layers, on groups of four coefficients. */
static void inverse_first2(uint64_t *a, const tables *w, size_t blocks, const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, a += 16) {
        vf x[4];
        load_transposed(x, a);
        for (size_t k = 0; k < 4; k++) x[k] = from_int(_mm256_castpd_si256(x[k]));
        cross(&x[0], &x[1]);
        cross(&x[2], &x[3]);
        x[3] = by(x[3], &w->order4, m->p);
        cross(&x[0], &x[2]);
        cross(&x[1], &x[3]);
        x[0] = reduce(x[0], m);
        store_transposed(a, x);
    }
}

/* The third layer, where their number is odd. */
static void inverse_single(uint64_t *a, const pair4 *w, size_t blocks, const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, a += 8) {
        vf x = reduce(load(a), m), y = by4(load(a + 4), w, m->p);
        cross(&x, &y);
        store(a, x);
        store(a + 4, y);
    }
}

/* Two layers on blocks of 4t. */
HEMI_INLINE void inverse_pass_as(bool reduced, uint64_t *a, const inverse_step *w, size_t blocks, size_t t,
                                 const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, a += 4 * t)
        for (size_t j = 0; j < t; j += 4) {
            vf x[4];
            for (size_t k = 0; k < 4; k++) x[k] = load(a + k * t + j);
            if (reduced) {
                x[0] = reduce(x[0], m);
                x[2] = reduce(x[2], m);
            }
            x[1] = by4(x[1], &w[j / 4].a, m->p);
            x[3] = by4(x[3], &w[j / 4].a, m->p);
            cross(&x[0], &x[1]);
            cross(&x[2], &x[3]);
            x[2] = by4(x[2], &w[j / 4].b, m->p);
            x[3] = by4(x[3], &w[j / 4].c, m->p);
            cross(&x[0], &x[2]);
            cross(&x[1], &x[3]);
            for (size_t k = 0; k < 4; k++) store(a + k * t + j, x[k]);
        }
}

static void inverse_pass(bool reduced, uint64_t *a, const inverse_step *w, size_t blocks, size_t t,
                         const prime_avx2 *m) {
    if (reduced)
        inverse_pass_as(true, a, w, blocks, t, m);
    else
        inverse_pass_as(false, a, w, blocks, t, m);
}

/* The last two layers, the factors n^-1 psi^-j, and the canonical residues. */
static void inverse_last2(uint64_t *a, const tables *c, size_t t, const prime_avx2 *m) {
    const inverse_last *w = c->inverse_last;
    for (size_t j = 0; j < t; j += 4, w++) {
        vf x[4] = {by4(load(a + j), &w->f, m->p), by4(load(a + t + j), &w->fa, m->p),
                   by4(load(a + 2 * t + j), &w->fb, m->p), by4(load(a + 3 * t + j), &w->fab, m->p)};
        cross(&x[0], &x[1]);
        cross(&x[2], &x[3]);
        x[3] = by(x[3], &c->order4, m->p);
        cross(&x[0], &x[2]);
        cross(&x[1], &x[3]);
        store_int(a + j, canonical(x[0], m));
        for (size_t k = 1; k < 4; k++) store_int(a + k * t + j, canonical_near(by(x[k], &c->factor[k], m->p), m->p));
    }
}

void hemi_avx2_intt(uint64_t *r, const uint64_t *a, const hemi_limb *l) {
    if (l->n < SHORTEST) {
        hemi_kernels_portable.intt(r, a, l);
        return;
    }
    const tables *t = l->twiddles;
    const prime_avx2 m = prime_of(&l->m);
    const size_t n = l->n, odd = l->log2_n % 2;
    const size_t block = n < CACHE_BLOCK ? n : CACHE_BLOCK >> odd;
    bool reduced = false;
    size_t s = 0;
    for (uint64_t *b = r; b < r + n; b += block) {
        if (r != a) memcpy(b, a + (b - r), block * sizeof *b);
        inverse_first2(b, t, block / 16, &m);
        if (odd) inverse_single(b, &t->order8, block / 8, &m);
        reduced = false;
        for (s = odd ? 8 : 4; 4 * s <= block && 16 * s <= n; s *= 4, reduced = !reduced)
            inverse_pass(reduced, b, &t->step[s / 4], block / (4 * s), s, &m);
    }
    for (; 16 * s <= n; s *= 4, reduced = !reduced) inverse_pass(reduced, r, &t->step[s / 4], n / (4 * s), s, &m);
    inverse_last2(r, t, n / 4, &m);
}
