/* Hybrid key switching with several digits: decomposition, inner product with a key, division by P; and division by the last prime. */
#include <string.h>

#include "base/error.h"
#include "ckks/workspace.h"

/* Coefficients modulo the primes of a digit (a run of ring limbs, n words each) to mixed radix, in place:
 *   x = w_0 + q_0 (w_1 + q_1 (w_2 + ...)), w_i centred modulo q_i,
 * which says which integer in about (-Q/2, Q/2) is meant, exactly. scratch: n words. */
static void to_mixed_radix(const hemi_ckks_context *ctx, uint64_t *x, uint32_t first, uint32_t count, uint64_t *scratch) {
    const size_t n = ctx->n, total = hemi_ckks_total(ctx);
    for (uint32_t i = 1; i < count; i++)
        for (uint32_t j = 0; j < i; j++) {
            const hemi_modulus *from = &hemi_ckks_limb(ctx, first + j)->m, *to = &hemi_ckks_limb(ctx, first + i)->m;
            ctx->k->lift(scratch, x + j * n, n, from, to);
            ctx->k->sub_mul_scalar(x + i * n, x + i * n, scratch, ctx->prime_inverse[(first + j) * total + first + i], n, to);
        }
}

/* r = that integer modulo ring limb `to`. scratch: n words. */
static void from_mixed_radix(const hemi_ckks_context *ctx, uint64_t *r, const uint64_t *x, uint32_t first, uint32_t count, uint32_t to,
                             uint64_t *scratch) {
    const size_t n = ctx->n, total = hemi_ckks_total(ctx);
    const hemi_modulus *m = &hemi_ckks_limb(ctx, to)->m;
    ctx->k->lift(r, x + (count - 1) * n, n, &hemi_ckks_limb(ctx, first + count - 1)->m, m);
    for (uint32_t i = count - 1; i-- > 0;) {
        ctx->k->mul_scalar(r, r, ctx->prime[(first + i) * total + to], n, m);
        ctx->k->lift(scratch, x + i * n, n, &hemi_ckks_limb(ctx, first + i)->m, m);
        ctx->k->add(r, r, scratch, n, m);
    }
}

/* ---- digits */

typedef struct decomposition {
    hemi_ckks_workspace *w;
    const uint64_t *c1;
    uint32_t limbs, digits;
} decomposition;

static uint32_t digit_count(const hemi_params *p, uint32_t digit, uint32_t limbs) {
    const uint32_t first = hemi_ckks_digit_first(p, digit), size = digit == 0 ? 1 : p->digit_limbs;
    return first + size <= limbs ? size : limbs - first;
}

static void digit_step(void *context, size_t d, size_t worker) {
    const decomposition *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    const uint32_t first = hemi_ckks_digit_first(ctx->params, (uint32_t)d), count = digit_count(ctx->params, (uint32_t)d, x->limbs);
    uint64_t *to = x->w->coefficient + (size_t)first * ctx->n;
    for (uint32_t i = 0; i < count; i++)
        ctx->k->intt(to + (size_t)i * ctx->n, x->c1 + (size_t)(first + i) * ctx->n, hemi_ckks_limb(ctx, first + i));
    to_mixed_radix(ctx, to, first, count, hemi_ckks_scratch(x->w, worker));
}

/* All digits at one limb. */
static void target_step(void *context, size_t j, size_t worker) {
    const decomposition *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    const size_t n = ctx->n;
    const uint32_t to = hemi_ckks_ring_limb(ctx, x->limbs, (uint32_t)j);
    for (uint32_t d = 0; d < x->digits; d++) {
        const uint32_t first = hemi_ckks_digit_first(ctx->params, d), count = digit_count(ctx->params, d, x->limbs);
        uint64_t *r = x->w->digit + (j * x->digits + d) * n;
        if (j >= first && j < first + count) {
            memcpy(r, x->c1 + j * n, n * sizeof *r);
            continue;
        }
        from_mixed_radix(ctx, r, x->w->coefficient + first * n, first, count, to, hemi_ckks_scratch(x->w, worker));
        ctx->k->ntt(r, hemi_ckks_limb(ctx, to));
    }
}

void hemi_ckks_decompose(hemi_ckks_workspace *w, const uint64_t *c1, uint32_t limbs) {
    decomposition x = {.w = w, .c1 = c1, .limbs = limbs, .digits = hemi_ckks_digits(w->ctx->params, limbs)};
    hemi_team_run(w->team, x.digits, digit_step, &x);
    hemi_team_run(w->team, limbs + w->ctx->specials, target_step, &x);
}

/* ---- the product with a key */

typedef struct key_product {
    hemi_ckks_workspace *w;
    const hemi_ckks_key *key;
    uint32_t limbs, digits, key_limbs;
} key_product;

static void key_step(void *context, size_t j, size_t worker) {
    const key_product *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    const size_t n = ctx->n, stride = (x->key_limbs + ctx->specials) * n;
    const size_t part = (j < x->limbs ? j : x->key_limbs + j - x->limbs) * n;
    (void)worker;
    ctx->k->gadget_product(x->w->extended0 + j * n, x->w->extended1 + j * n, x->w->digit + j * x->digits * n, n, x->key->index,
                           x->key->b + part, x->key->a + part, stride, x->digits, n,
                           &hemi_ckks_limb(ctx, hemi_ckks_ring_limb(ctx, x->limbs, (uint32_t)j))->m);
}

void hemi_ckks_gadget_product(hemi_ckks_workspace *w, const hemi_ckks_key *key, const hemi_ckks_keys *keys, uint32_t limbs) {
    key_product x = {.w = w, .key = key, .limbs = limbs, .digits = hemi_ckks_digits(w->ctx->params, limbs), .key_limbs = keys->limbs};
    hemi_team_run(w->team, limbs + w->ctx->specials, key_step, &x);
}

/* ---- divisions */

typedef struct division {
    hemi_ckks_workspace *w;
    const uint64_t *u[2];    /* limbs that are kept, NTT form */
    uint64_t *rest[2];       /* the ring limbs first .. that are divided by: NTT form, then mixed radix */
    uint64_t *r[2];
    const uint64_t *plus[2]; /* NULL: nothing */
    const uint32_t *index;
    uint32_t limbs, first, count;
    bool special;
} division;

static void rest_step(void *context, size_t i, size_t worker) {
    const division *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    for (uint32_t j = 0; j < x->count; j++)
        ctx->k->intt(x->rest[i] + (size_t)j * ctx->n, x->rest[i] + (size_t)j * ctx->n, hemi_ckks_limb(ctx, x->first + j));
    to_mixed_radix(ctx, x->rest[i], x->first, x->count, hemi_ckks_scratch(x->w, worker));
}

static void quotient_step(void *context, size_t index, size_t worker) {
    const division *x = context;
    hemi_ckks_workspace *w = x->w;
    const hemi_ckks_context *ctx = w->ctx;
    const size_t n = ctx->n, half = index / x->limbs, j = index % x->limbs;
    const hemi_limb *l = hemi_ckks_limb(ctx, (uint32_t)j);
    uint64_t *scratch = hemi_ckks_scratch(w, worker), *remainder = scratch + n, *r = x->r[half] + j * n;
    from_mixed_radix(ctx, remainder, x->rest[half], x->first, x->count, (uint32_t)j, scratch);
    ctx->k->ntt(remainder, l);
    const uint64_t inverse = x->special ? ctx->special_inverse[j] : ctx->prime_inverse[x->first * hemi_ckks_total(ctx) + j];
    const uint64_t *plus = x->plus[half] ? x->plus[half] + j * n : NULL;
    if (plus && x->index) {
        ctx->k->permute(remainder + n, plus, x->index, n);
        plus = remainder + n;
    }
    if (!plus) {
        ctx->k->sub_mul_scalar(r, x->u[half] + j * n, remainder, inverse, n, &l->m);
        return;
    }
    ctx->k->sub_mul_scalar(remainder, x->u[half] + j * n, remainder, inverse, n, &l->m);
    ctx->k->add(r, remainder, plus, n, &l->m);
}

static void divide(division *x) {
    hemi_team_run(x->w->team, 2, rest_step, x);
    hemi_team_run(x->w->team, 2 * (size_t)x->limbs, quotient_step, x);
}

void hemi_ckks_divide_by_special(hemi_ckks_workspace *w, uint64_t *r0, uint64_t *r1, const uint64_t *plus0, const uint64_t *plus1,
                                 const uint32_t *index, uint32_t limbs) {
    const size_t n = w->ctx->n;
    divide(&(division){.w = w,
                       .u = {w->extended0, w->extended1},
                       .rest = {w->extended0 + limbs * n, w->extended1 + limbs * n},
                       .r = {r0, r1},
                       .plus = {plus0, plus1},
                       .index = index,
                       .limbs = limbs,
                       .first = w->ctx->chain,
                       .count = w->ctx->specials,
                       .special = true});
}

void hemi_ckks_rescale(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a) {
    const size_t n = w->ctx->n;
    const uint32_t limbs = a->limbs - 1;
    memcpy(w->extended0, a->c0 + limbs * n, n * sizeof(uint64_t));
    memcpy(w->extended1, a->c1 + limbs * n, n * sizeof(uint64_t));
    divide(&(division){.w = w,
                       .u = {a->c0, a->c1},
                       .rest = {w->extended0, w->extended1},
                       .r = {r->c0, r->c1},
                       .limbs = limbs,
                       .first = limbs,
                       .count = 1});
    r->scale = a->scale / (double)hemi_ckks_limb(w->ctx, limbs)->m.p;
    r->limbs = limbs;
}

/* ---- automorphisms */

static hemi_status find_keys(const hemi_ckks_keys *keys, const uint32_t *t, size_t count, hemi_error *err) {
    for (size_t i = 0; i < count; i++)
        if (t[i] != 1 && !hemi_ckks_keys_find(keys, t[i]))
            return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys have none for automorphism %u", t[i]);
    return HEMI_OK;
}

static void copy(const hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a) {
    if (r == a) return;
    r->limbs = a->limbs;
    r->scale = a->scale;
    memcpy(r->c0, a->c0, (size_t)a->limbs * w->ctx->n * sizeof *a->c0);
    memcpy(r->c1, a->c1, (size_t)a->limbs * w->ctx->n * sizeof *a->c1);
}

hemi_status hemi_ckks_automorphisms(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const uint32_t *t,
                                    size_t count, const hemi_ckks_keys *keys, hemi_error *err) {
    HEMI_TRY(find_keys(keys, t, count, err));
    for (size_t i = 0, made = SIZE_MAX; i < count; i++) {
        if (t[i] == 1) {
            copy(w, &r[i], a);
            continue;
        }
        const hemi_ckks_key *key = hemi_ckks_keys_find(keys, t[i]);
        if (made == SIZE_MAX) hemi_ckks_decompose(w, a->c1, a->limbs), made = i;
        hemi_ckks_gadget_product(w, key, keys, a->limbs);
        const uint32_t limbs = a->limbs;
        const double scale = a->scale;
        hemi_ckks_divide_by_special(w, r[i].c0, r[i].c1, a->c0, NULL, key->index, limbs);
        r[i].limbs = limbs;
        r[i].scale = scale;
    }
    return HEMI_OK;
}

hemi_status hemi_ckks_automorphism(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, uint32_t t,
                                   const hemi_ckks_keys *keys, hemi_error *err) {
    return hemi_ckks_automorphisms(w, r, a, &t, 1, keys, err);
}
