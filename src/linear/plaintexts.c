#include "linear/plaintexts.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"

/* Which ciphertexts a plaintext lies between. */
typedef struct place {
    uint32_t in_block, out_block;
} place;

/* Row polynomial k of an output block: sum_f sum_tap sum_c W[k F + f][tap][c] X^(S (f - offset(tap)) - c), X^-e = -X^(N-e). */
static void row_polynomial(int32_t *w_k, const hemi_linear_layout *l, place at, uint32_t k, const int16_t *w) {
    const uint32_t taps = l->taps_y * l->taps_x, first = at.in_block * l->block_inputs;
    const uint32_t count = l->inputs - first < l->block_inputs ? l->inputs - first : l->block_inputs;
    memset(w_k, 0, l->n * sizeof *w_k);
    for (uint32_t f = 0; f < l->fan; f++) {
        const uint64_t in_block = (uint64_t)k * l->fan + f, o = at.out_block * (uint64_t)l->block_outputs + in_block;
        if (in_block >= l->block_outputs || o >= l->outputs) return;
        for (uint32_t tap = 0; tap < taps; tap++) {
            const int16_t *row = w + (o * taps + tap) * l->inputs + first;
            const uint32_t back = l->s * (tap / l->taps_x * l->pitch + tap % l->taps_x), ahead = l->s * f; /* f = 0 where there are taps */
            for (uint32_t j = 0; j < count; j++) {
                if (ahead >= back + j)
                    w_k[ahead - back - j] = row[j];
                else
                    w_k[ahead + l->n - back - j] = -row[j];
            }
        }
    }
}

/* r = a(X^t), gathered: coefficient i of r is +-coefficient i t^-1 of a. inverse = t^-1 mod 2N. */
static void automorphism(int32_t *r, const int32_t *a, uint32_t inverse, uint32_t n) {
    for (uint32_t i = 0, e = 0; i < n; i++, e = (e + inverse) & (2 * n - 1)) {
        const int32_t sign = -(int32_t)(e >= n), v = a[e & (n - 1)];
        r[i] = (v ^ sign) - sign;
    }
}

/* t^-1 mod 2N: t is odd and 2N a power of two, so the inverse modulo 2^32 will do. */
static uint32_t inverse_odd(uint32_t t, uint32_t n) {
    uint32_t x = 1;
    for (int i = 0; i < 5; i++) x *= 2 - t * x;
    return x & (2 * n - 1);
}

/* Coefficient i of X^shift b is +-coefficient i - shift of b. */
static void butterfly(int32_t *sum, int32_t *difference, const int32_t *a, const int32_t *b, uint32_t shift, uint32_t n) {
    for (uint32_t i = 0; i < shift; i++) {
        const int32_t u = a[i], v = -b[n - shift + i];
        sum[i] = u + v;
        difference[i] = u - v;
    }
    for (uint32_t i = shift; i < n; i++) {
        const int32_t u = a[i], v = b[i - shift];
        sum[i] = u + v;
        difference[i] = u - v;
    }
}

typedef struct pass {
    int32_t *pt, *scratch; /* scratch: 2 n per worker */
    const hemi_linear_layout *layout;
    uint32_t length, inverse; /* of the blocks that come out; inverse of the family element */
} pass;

/* pt_i = A_i + X^(S/K) B_i,  pt_(i + K/2) = gamma_(K/2)(A_i - X^(S/K) B_i) (design: the plaintexts come from a recursion);
 * A and B, the even and odd row polynomials, lie in the halves of a block. */
static void pass_step(void *context, size_t index, size_t worker) {
    const pass *p = context;
    const uint32_t n = p->layout->n, half = p->length / 2;
    const size_t block = index / half, i = index % half;
    int32_t *a = p->pt + (block * p->length + i) * n, *b = a + (size_t)half * n;
    int32_t *sum = p->scratch + worker * 2 * n, *difference = sum + n;
    butterfly(sum, difference, a, b, p->layout->s / p->length, n);
    memcpy(a, sum, n * sizeof *a);
    automorphism(b, difference, p->inverse, n);
}

static uint32_t reverse(uint32_t x, uint32_t count) {
    uint32_t r = 0;
    for (; count > 1; count /= 2, x /= 2) r = 2 * r + (x & 1);
    return r;
}

/* From gamma_i, products of family elements, to gamma_b G^c: the same cosets in another order, and other elements of them. */
static void rearrange(int32_t *pt, uint32_t *from, const hemi_linear_layout *l, uint32_t k, uint32_t *coset, int32_t *scratch) {
    const uint32_t two_n = 2 * l->n, modulus = two_n / (l->s / k); /* H = {t = 1 mod modulus} */
    const uint32_t unit = two_n / l->s;                            /* G_S = {t = 1 mod unit} (S = N: all odd t) */
    const uint32_t giant = hemi_linear_giant(l);
    uint64_t g = 1;
    for (uint32_t i = 0; i < k; i++) coset[hemi_linear_gamma(l, i) % modulus / unit] = i;
    for (uint32_t c = 0; c < k / l->babies; c++, g = g * giant % two_n)
        for (uint32_t b = 0; b < l->babies; b++) {
            const uint32_t gamma = hemi_linear_gamma(l, b), i = coset[gamma * g % modulus / unit];
            from[c * l->babies + b] = i;
            /* G^-c h0 (pt_i), h0 = gamma_b G^c / gamma_i */
            const uint32_t u = (uint32_t)((uint64_t)gamma * inverse_odd(hemi_linear_gamma(l, i), l->n) % two_n);
            automorphism(scratch, pt + (size_t)i * l->n, inverse_odd(u, l->n), l->n);
            memcpy(pt + (size_t)i * l->n, scratch, l->n * sizeof *pt);
        }
}

typedef struct fill {
    int32_t *pt;
    const hemi_linear_layout *layout;
    const hemi_linear_group *group;
    place at;
    const int16_t *w;
} fill;

static void fill_step(void *context, size_t index, size_t worker) {
    const fill *f = context;
    (void)worker;
    const uint32_t k = reverse((uint32_t)index, f->group->k);
    row_polynomial(f->pt + index * f->layout->n, f->layout, f->at, f->group->first + k, f->w);
}

hemi_status hemi_linear_plaintexts(int32_t *pt, uint32_t *from, const hemi_linear_layout *l, uint32_t in_block, uint32_t out_block,
                                   size_t group, const int16_t *w, hemi_team *team, hemi_error *err) {
    const hemi_linear_group *g = &l->group[group];
    const size_t workers = (size_t)hemi_team_size(team);
    int32_t *scratch = hemi_alloc(2 * workers * l->n, sizeof *scratch);
    uint32_t *coset = hemi_alloc(g->k, sizeof *coset);
    hemi_status status = HEMI_OK;
    if (scratch && coset) {
        fill f = {pt, l, g, {in_block, out_block}, w};
        hemi_team_run(team, g->k, fill_step, &f);
        pass p = {.pt = pt, .scratch = scratch, .layout = l};
        unsigned bit = 0;
        for (p.length = 2; p.length <= g->k; p.length *= 2, bit++) {
            p.inverse = inverse_odd(hemi_linear_family(l, bit), l->n);
            hemi_team_run(team, g->k / 2, pass_step, &p);
        }
        rearrange(pt, from, l, g->k, coset, scratch);
    } else {
        status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory to transform weights");
    }
    hemi_free(scratch);
    hemi_free(coset);
    return status;
}
