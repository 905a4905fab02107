/* The number-theoretic transforms of the AVX2 table (arithmetic, and the notation "x <= B": avx2.h).
 *
 * Forward: Cooley-Tukey with psi merged into the twiddles, two layers per pass over memory, the last four layers in
 * registers on blocks of 16. A layer x, y -> x + w y, x - w y takes bounds B to 17/16 B + 1/2 or, where x is reduced first,
 * to 1 + B/16:
 *   input                 1     (canonical, not centred)
 *   first pass            2.17  (one or two layers)
 *   passes in turn        3.47, then 1.80 (first layer reduced), 3.06, 1.77 (reduced), ...
 *   last pass             3.06  (first layer reduced)
 * What is multiplied is below 4, as mul_by needs, and the results below 3.5, as canonical_biased does.
 *
 * Inverse: decimation in time on the bit-reversed slots, with twiddles that depend on the position only. Its first two
 * layers multiply by nothing but psi^(-n/2); in exchange coefficient j needs a factor n^-1 psi^-j at the end, half of
 * which merges with the twiddles of the last pass. (Merging psi as the forward transform does leaves sums x + y
 * that no multiplication reduces; this way is a tenth shorter.)
 *   first two layers      4 where only sums meet, reduced; 2
 *   first pass            3.29  (four layers)
 *   passes in turn        1.79  (first layer reduced), 3.04, 1.77 (reduced), ...
 *   last pass             everything is multiplied first: sums 3, before the factors 2.1
 *
 * Large transforms go depth first: once a block fits the first-level cache, all its layers are done. */
#include <stdalign.h>

#include "ring/avx2.h"

#define SHORTEST    64   /* below, the portable functions */
#define CACHE_BLOCK 4096u/* coefficients */

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
typedef struct forward_last { /* the four layers from node k on */
    forward_node node;
    pair unused;
    pair4 group, even, odd; /* psi_powers[4k + g], [8k + 2g], [8k + 2g + 1], g = 0..3 */
} forward_last;

/* With w(m) = psi^(-2n/m), the inverse root of order m: */
typedef struct inverse_step { /* four positions j of blocks of 4t: w(2t)^j, w(4t)^j, w(4t)^(j + t) */
    pair4 a, b, c;
} inverse_step;
typedef struct inverse_last { /* four positions j < n/4: f = n^-1 psi^-j, and f times a = w(n/2)^j, b = w(n)^j, a b */
    pair4 f, fa, fb, fab;
} inverse_last;
typedef struct inverse_first { /* w(8)^j, w(16)^j, w(32)^j by position, w(4), and psi^(-k n/4) */
    pair4 order8, order16[2], order32[4];
    pair order4, factor[4];
} inverse_first;

typedef struct tables {
    alignas(64) inverse_first first;
    forward_last *last;         /* n/16 */
    inverse_last *inverse_last; /* n/16 */
    inverse_step *step;         /* n/32: those of blocks of 4t begin at t/4 */
    forward_node *node;         /* n/32 */
} tables;

size_t hemi_avx2_twiddle_bytes(uint32_t n) {
    if (n < SHORTEST) return hemi_kernels_portable.twiddle_bytes(n);
    return sizeof(tables) + n / 16 * (sizeof(forward_last) + sizeof(inverse_last)) +
           n / 32 * (sizeof(inverse_step) + sizeof(forward_node));
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

static forward_node node_of(const hemi_limb *l, size_t k) {
    return (forward_node){pair_of(l->psi_powers[k], &l->m), pair_of(l->psi_powers[2 * k], &l->m),
                          pair_of(l->psi_powers[2 * k + 1], &l->m)};
}

static void forward_init(const tables *t, const hemi_limb *l) {
    for (size_t k = 1; k < l->n / 32; k++) t->node[k] = node_of(l, k);
    for (size_t i = 0; i < l->n / 16; i++) {
        forward_last *r = &t->last[i];
        const size_t k = l->n / 16 + i;
        r->node = node_of(l, k);
        for (size_t g = 0; g < 4; g++) {
            put(&r->group, g, l->psi_powers[4 * k + g], &l->m);
            put(&r->even, g, l->psi_powers[8 * k + 2 * g], &l->m);
            put(&r->odd, g, l->psi_powers[8 * k + 2 * g + 1], &l->m);
        }
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
static uint64_t root_power(const hemi_limb *l, size_t order, size_t j) { return inverse_power(l, j * (2 * l->n / order)); }

static void inverse_init(tables *t, const hemi_limb *l) {
    const hemi_modulus *m = &l->m;
    inverse_first *first = &t->first;
    for (size_t j = 0; j < 16; j++) {
        if (j < 4) put(&first->order8, j, root_power(l, 8, j), m);
        if (j < 8) put(&first->order16[j / 4], j % 4, root_power(l, 16, j), m);
        put(&first->order32[j / 4], j % 4, root_power(l, 32, j), m);
    }
    first->order4 = pair_of(root_power(l, 4, 1), m);
    for (size_t k = 0; k < 4; k++) first->factor[k] = pair_of(inverse_power(l, k * (l->n / 4)), m);
    for (size_t s = l->log2_n % 2 ? 32 : 16; s <= l->n / 16; s *= 4)
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
HEMI_INLINE vf by(vf a, const pair *c, vf p) { return mul_by(a, _mm256_broadcast_sd(&c->w), _mm256_broadcast_sd(&c->v), p); }
HEMI_INLINE vf by4(vf a, const pair4 *c, vf p) { return mul_by(a, load(c->w), load(c->v), p); }

/* x, y -> x + y, x - y */
HEMI_INLINE void cross(vf *x, vf *y) {
    const vf s = add(*x, *y), d = sub(*x, *y);
    *x = s;
    *y = d;
}

/* x[j] becomes lane j of ... : the 4 x 4 transpose. */
HEMI_INLINE void transpose(vf x[4]) {
    const vf a = _mm256_unpacklo_pd(x[0], x[1]), b = _mm256_unpackhi_pd(x[0], x[1]);
    const vf c = _mm256_unpacklo_pd(x[2], x[3]), d = _mm256_unpackhi_pd(x[2], x[3]);
    x[0] = _mm256_permute2f128_pd(a, c, 0x20);
    x[1] = _mm256_permute2f128_pd(b, d, 0x20);
    x[2] = _mm256_permute2f128_pd(a, c, 0x31);
    x[3] = _mm256_permute2f128_pd(b, d, 0x31);
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
HEMI_INLINE void forward_pass_as(int kind, uint64_t *a, const forward_node *w, size_t blocks, size_t t, const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, w++, a += 4 * t)
        for (size_t j = 0; j < t; j += 4) {
            vf x[4];
            for (size_t k = 0; k < 4; k++) x[k] = kind == FIRST ? from_int(load_int(a + k * t + j)) : load(a + k * t + j);
            forward4(x, w, m, kind == REDUCED);
            for (size_t k = 0; k < 4; k++) store(a + k * t + j, x[k]);
        }
}

static void forward_pass(int kind, uint64_t *a, const forward_node *w, size_t blocks, size_t t, const prime_avx2 *m) {
    if (kind == FIRST) forward_pass_as(FIRST, a, w, blocks, t, m);
    else if (kind == PLAIN) forward_pass_as(PLAIN, a, w, blocks, t, m);
    else forward_pass_as(REDUCED, a, w, blocks, t, m);
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

/* Four layers and the canonical residues, on blocks of 16. Transposed, lane g of x[e] is element e of group g. */
static void forward_last4(uint64_t *a, const forward_last *w, size_t blocks, const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, w++, a += 16) {
        vf x[4] = {load(a), load(a + 4), load(a + 8), load(a + 12)};
        forward4(x, &w->node, m, true);
        transpose(x);
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
        vf r[4];
        for (size_t k = 0; k < 4; k++) r[k] = _mm256_castsi256_pd(canonical_biased(x[k], m));
        transpose(r);
        for (size_t k = 0; k < 4; k++) store(a + 4 * k, r[k]);
    }
}

void hemi_avx2_ntt(uint64_t *a, const hemi_limb *l) {
    if (l->n < SHORTEST) {
        hemi_kernels_portable.ntt(a, l);
        return;
    }
    const tables *t = l->twiddles;
    const prime_avx2 m = prime_of(&l->m);
    size_t len = l->log2_n % 2 ? 2 : 4, size = l->n / len; /* blocks, and their size */
    if (len == 2) forward_first2(a, &t->node[1], size, &m);
    else forward_pass(FIRST, a, &t->node[1], 1, size, &m);
    int kind = PLAIN;
    for (; size > CACHE_BLOCK; len *= 4, size /= 4, kind ^= REDUCED) forward_pass(kind, a, &t->node[len], len, size / 4, &m);
    for (size_t b = 0; b < len; b++) {
        uint64_t *block = a + b * size;
        int inner_kind = kind;
        for (size_t inner = 1, s = size; s > 16; inner *= 4, s /= 4, inner_kind ^= REDUCED)
            forward_pass(inner_kind, block, &t->node[inner * (len + b)], inner, s / 4, &m);
        forward_last4(block, &t->last[b * size / 16], size / 16, &m);
    }
}

/* ---- inverse */

/* Four layers on blocks of 16. */
static void inverse_first4(uint64_t *a, const inverse_first *w, size_t blocks, const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, a += 16) {
        vf x[4];
        for (size_t k = 0; k < 4; k++) x[k] = from_int(load_int(a + 4 * k));
        transpose(x);
        cross(&x[0], &x[1]);
        cross(&x[2], &x[3]);
        x[3] = by(x[3], &w->order4, m->p);
        cross(&x[0], &x[2]);
        cross(&x[1], &x[3]);
        x[0] = reduce(x[0], m);
        transpose(x);
        x[1] = by4(x[1], &w->order8, m->p);
        x[3] = by4(x[3], &w->order8, m->p);
        cross(&x[0], &x[1]);
        cross(&x[2], &x[3]);
        x[2] = by4(x[2], &w->order16[0], m->p);
        x[3] = by4(x[3], &w->order16[1], m->p);
        cross(&x[0], &x[2]);
        cross(&x[1], &x[3]);
        for (size_t k = 0; k < 4; k++) store(a + 4 * k, x[k]);
    }
}

/* The fifth layer, where the number of layers is odd. */
static void inverse_pass2(uint64_t *a, const pair4 *w, size_t blocks, const prime_avx2 *m) {
    for (size_t i = 0; i < blocks; i++, a += 32)
        for (size_t j = 0; j < 4; j++) {
            vf x = reduce(load(a + 4 * j), m), y = by4(load(a + 16 + 4 * j), &w[j], m->p);
            cross(&x, &y);
            store(a + 4 * j, x);
            store(a + 16 + 4 * j, y);
        }
}

/* Two layers on blocks of 4t. */
HEMI_INLINE void inverse_pass_as(bool reduced, uint64_t *a, const inverse_step *w, size_t blocks, size_t t, const prime_avx2 *m) {
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

static void inverse_pass(bool reduced, uint64_t *a, const inverse_step *w, size_t blocks, size_t t, const prime_avx2 *m) {
    if (reduced) inverse_pass_as(true, a, w, blocks, t, m);
    else inverse_pass_as(false, a, w, blocks, t, m);
}

/* The last two layers, the factors n^-1 psi^-j, and the canonical residues. */
static void inverse_last2(uint64_t *a, const inverse_first *c, const inverse_last *w, size_t t, const prime_avx2 *m) {
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

void hemi_avx2_intt(uint64_t *a, const hemi_limb *l) {
    if (l->n < SHORTEST) {
        hemi_kernels_portable.intt(a, l);
        return;
    }
    const tables *t = l->twiddles;
    const prime_avx2 m = prime_of(&l->m);
    const size_t n = l->n, odd = l->log2_n % 2;
    const size_t block = n < CACHE_BLOCK ? n : CACHE_BLOCK >> odd;
    bool reduced = true;
    size_t s = 0;
    for (uint64_t *b = a; b < a + n; b += block) {
        inverse_first4(b, &t->first, block / 16, &m);
        if (odd) inverse_pass2(b, t->first.order32, block / 32, &m);
        reduced = true;
        for (s = odd ? 32 : 16; 4 * s <= block && 16 * s <= n; s *= 4, reduced = !reduced)
            inverse_pass(reduced, b, &t->step[s / 4], block / (4 * s), s, &m);
    }
    for (; 16 * s <= n; s *= 4, reduced = !reduced) inverse_pass(reduced, a, &t->step[s / 4], n / (4 * s), s, &m);
    inverse_last2(a, &t->first, t->inverse_last, n / 4, &m);
}
