/* Hybrid key switching with several digits: decomposition, inner products with keys, division by P; and division by the last prime. What
 * belongs to one limb is done in one go, so that it stays in the second-level cache. */
#include <string.h>

#include "base/error.h"
#include "ckks/workspace.h"

#define BLOCK 1024 /* coefficients that pass through several kernels at once, in the first-level cache */

/* ---- mixed radix: x = w_0 + q_0 (w_1 + q_1 (w_2 + ...)), w_i centred modulo q_i, says which integer in about (-Q/2, Q/2) is meant, exactly. Digit i
 * is n words at i n, of ring limb limb[i], in the form that kernels lift from. */

typedef struct radix {
    uint32_t count, limb[HEMI_CKKS_DIGIT_MAX + 1];
} radix;

/* Coefficients modulo the primes to their digits, in place. */
static void to_mixed_radix(const hemi_ckks_context *ctx, uint64_t *x, const radix *b, uint64_t *scratch) {
    const size_t n = ctx->n, total = hemi_ckks_total(ctx), block = n < BLOCK ? n : BLOCK;
    for (size_t at = 0; at < n; at += block)
        for (uint32_t i = 1; i < b->count; i++)
            for (uint32_t j = 0; j < i; j++) {
                const hemi_modulus *from = &hemi_ckks_limb(ctx, b->limb[j])->m, *to = &hemi_ckks_limb(ctx, b->limb[i])->m;
                ctx->k->lift(scratch, x + j * n + at, block, from, to);
                ctx->k->sub_mul_scalar(x + i * n + at, x + i * n + at, scratch, ctx->prime_inverse[b->limb[j] * total + b->limb[i]], block, to);
            }
    for (uint32_t i = 0; i < b->count; i++) ctx->k->dot_left(x + i * n, x + i * n, n, &hemi_ckks_limb(ctx, b->limb[i])->m);
}

/* r = that integer modulo ring limb `to`. */
static void from_mixed_radix(const hemi_ckks_context *ctx, uint64_t *r, const uint64_t *x, const radix *b, uint32_t to) {
    const hemi_modulus *from[HEMI_CKKS_DIGIT_MAX + 1];
    for (uint32_t i = 0; i < b->count; i++) from[i] = &hemi_ckks_limb(ctx, b->limb[i])->m;
    ctx->k->lift_mixed(r, x, ctx->n, from, b->count, ctx->n, &hemi_ckks_limb(ctx, to)->m);
}

/* The primes of a digit, as far as there are any. */
static radix digit_radix(const hemi_params *p, uint32_t digit, uint32_t limbs) {
    radix b = {0};
    const uint32_t end = hemi_ckks_digit_first(p, digit + 1);
    for (uint32_t i = hemi_ckks_digit_first(p, digit); i < end && i < limbs; i++) b.limb[b.count++] = i;
    return b;
}

/* ---- switching */

typedef struct switching {
    hemi_ckks_workspace *w;
    const hemi_ckks_switching *s;
    uint32_t digits;
    radix rest; /* what is divided by: the special primes, and then perhaps the last one */
} switching;

static void digit_step(void *context, size_t d, size_t worker) {
    const switching *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    const radix b = digit_radix(ctx->params, (uint32_t)d, x->s->limbs);
    const size_t n = ctx->n, first = b.limb[0] * n;
    for (uint32_t i = 0; i < b.count; i++)
        ctx->k->intt(x->w->coefficient + first + i * n, x->s->c1 + first + i * n, hemi_ckks_limb(ctx, b.limb[i]));
    to_mixed_radix(ctx, x->w->coefficient + first, &b, hemi_ckks_scratch(x->w, worker));
}

/* All digits at one ring limb, into a worker's scratch. */
static void digits_at(const switching *x, uint32_t to, uint64_t *digit) {
    const hemi_ckks_context *ctx = x->w->ctx;
    const size_t n = ctx->n;
    for (uint32_t d = 0; d < x->digits; d++, digit += hemi_ckks_stride(ctx)) {
        const radix b = digit_radix(ctx->params, d, x->s->limbs);
        if (to >= b.limb[0] && to < b.limb[0] + b.count) {
            memcpy(digit, x->s->c1 + to * n, n * sizeof *digit);
            continue;
        }
        from_mixed_radix(ctx, digit, x->w->coefficient + b.limb[0] * n, &b, to);
        ctx->k->ntt(digit, hemi_ckks_limb(ctx, to));
    }
}

/* (r0, r1) = sum over digits of sigma(digit) key, at one ring limb. */
static void inner_product(const switching *x, const hemi_ckks_key *key, uint32_t to, uint64_t *r0, uint64_t *r1, const uint64_t *digit) {
    const hemi_ckks_context *ctx = x->w->ctx;
    const size_t at = hemi_ckks_key_at(x->s->keys, 0, to < ctx->chain ? to : x->s->keys->limbs + to - ctx->chain);
    ctx->k->gadget_product(r0, r1, digit, hemi_ckks_stride(ctx), key->index, key->b + at, key->a + at, hemi_ckks_key_stride(ctx), x->digits, ctx->n,
                           &hemi_ckks_limb(ctx, to)->m);
}

static uint64_t *rest_of(const switching *x, size_t i, size_t half) { return x->w->rest + (2 * i + half) * x->rest.count * x->w->ctx->n; }

/* At a prime that is divided by. */
static void rest_step(void *context, size_t index, size_t worker) {
    const switching *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    const size_t n = ctx->n;
    const uint32_t to = x->rest.limb[index];
    const hemi_modulus *m = &hemi_ckks_limb(ctx, to)->m;
    uint64_t *digit = hemi_ckks_scratch(x->w, worker), *scratch = digit + x->digits * hemi_ckks_stride(ctx);
    digits_at(x, to, digit);
    for (size_t i = 0; i < x->s->count; i++) {
        inner_product(x, x->s->key[i], to, rest_of(x, i, 0) + index * n, rest_of(x, i, 1) + index * n, digit);
        for (size_t half = 0; half < 2 && to < ctx->chain; half++) { /* the last prime */
            ctx->k->mul_scalar(scratch, x->s->plus[half] + to * n, ctx->special_product[to], n, m);
            ctx->k->add(rest_of(x, i, half) + index * n, rest_of(x, i, half) + index * n, scratch, n, m);
        }
    }
}

static void radix_step(void *context, size_t index, size_t worker) {
    const switching *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    uint64_t *rest = rest_of(x, index / 2, index % 2);
    for (size_t i = 0; i < x->rest.count; i++) ctx->k->intt(rest + i * ctx->n, rest + i * ctx->n, hemi_ckks_limb(ctx, x->rest.limb[i]));
    to_mixed_radix(ctx, rest, &x->rest, hemi_ckks_scratch(x->w, worker));
}

/* r = (u - rest) / divisor, rest in mixed radix, at one limb; remainder: n words. */
static void quotient(const hemi_ckks_context *ctx, uint64_t *r, const uint64_t *u, const uint64_t *rest, const radix *b, uint32_t to, uint64_t inverse,
                     uint64_t *remainder) {
    const hemi_limb *l = hemi_ckks_limb(ctx, to);
    from_mixed_radix(ctx, remainder, rest, b, to);
    ctx->k->ntt(remainder, l);
    ctx->k->sub_mul_scalar(r, u, remainder, inverse, ctx->n, &l->m);
}

/* At a limb of the result. */
static void limb_step(void *context, size_t index, size_t worker) {
    const switching *x = context;
    const hemi_ckks_switching *s = x->s;
    const hemi_ckks_context *ctx = x->w->ctx;
    const uint32_t to = (uint32_t)index;
    const size_t n = ctx->n, at = to * n;
    const hemi_modulus *m = &hemi_ckks_limb(ctx, to)->m;
    const size_t stride = hemi_ckks_stride(ctx);
    uint64_t *digit = hemi_ckks_scratch(x->w, worker), *u[2] = {digit + x->digits * stride, digit + (x->digits + 1) * stride}, *scratch = u[1] + stride;
    const uint64_t last_inverse = s->rescales ? ctx->prime_inverse[(s->limbs - 1) * hemi_ckks_total(ctx) + to] : 1;
    const uint64_t inverse = hemi_mod_mul(ctx->special_inverse[to], last_inverse, m);
    digits_at(x, to, digit);
    for (size_t i = 0; i < s->count; i++) {
        inner_product(x, s->key[i], to, u[0], u[1], digit);
        for (size_t half = 0; half < 2; half++) {
            const uint64_t *plus = s->plus[half] ? s->plus[half] + at : NULL;
            uint64_t *r = half ? s->r[i]->c1 + at : s->r[i]->c0 + at;
            quotient(ctx, plus ? u[half] : r, u[half], rest_of(x, i, half), &x->rest, to, inverse, scratch);
            if (!plus) continue;
            if (s->key[i]->index) ctx->k->permute(scratch, plus, s->key[i]->index, n), plus = scratch;
            if (s->rescales) ctx->k->mul_scalar(scratch, plus, last_inverse, n, m), plus = scratch;
            ctx->k->add(r, u[half], plus, n, m);
        }
    }
}

void hemi_ckks_switch(hemi_ckks_workspace *w, const hemi_ckks_switching *s) {
    switching x = {.w = w, .s = s, .digits = hemi_ckks_digits(w->ctx->params, s->limbs)};
    for (uint32_t i = 0; i < w->ctx->specials; i++) x.rest.limb[x.rest.count++] = w->ctx->chain + i;
    if (s->rescales) x.rest.limb[x.rest.count++] = s->limbs - 1;
    hemi_team_run(w->team, x.digits, digit_step, &x);
    hemi_team_run(w->team, x.rest.count, rest_step, &x);
    hemi_team_run(w->team, 2 * s->count, radix_step, &x);
    hemi_team_run(w->team, s->rescales ? s->limbs - 1 : s->limbs, limb_step, &x);
}

/* ---- rescaling */

typedef struct rescaling {
    hemi_ckks_workspace *w;
    hemi_ckks_cipher *r;
    const hemi_ckks_cipher *a;
    uint32_t limbs; /* of the result */
} rescaling;

static void last_step(void *context, size_t half, size_t worker) {
    const rescaling *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    uint64_t *rest = x->w->rest + half * ctx->n;
    (void)worker;
    ctx->k->intt(rest, (half ? x->a->c1 : x->a->c0) + x->limbs * (size_t)ctx->n, hemi_ckks_limb(ctx, x->limbs));
    to_mixed_radix(ctx, rest, &(radix){1, {x->limbs}}, NULL);
}

static void rescale_step(void *context, size_t index, size_t worker) {
    const rescaling *x = context;
    const hemi_ckks_context *ctx = x->w->ctx;
    const size_t n = ctx->n, half = index / x->limbs, to = index % x->limbs;
    const radix last = {1, {x->limbs}};
    quotient(ctx, (half ? x->r->c1 : x->r->c0) + to * n, (half ? x->a->c1 : x->a->c0) + to * n, x->w->rest + half * n, &last, (uint32_t)to,
             ctx->prime_inverse[x->limbs * hemi_ckks_total(ctx) + to], hemi_ckks_scratch(x->w, worker));
}

void hemi_ckks_rescale(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a) {
    rescaling x = {.w = w, .r = r, .a = a, .limbs = a->limbs - 1};
    hemi_team_run(w->team, 2, last_step, &x);
    hemi_team_run(w->team, 2 * (size_t)x.limbs, rescale_step, &x);
    r->scale = a->scale / (double)hemi_ckks_limb(w->ctx, x.limbs)->m.p;
    r->limbs = x.limbs;
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
    hemi_ckks_switching s = {.keys = keys, .c1 = a->c1, .plus = {a->c0, NULL}, .limbs = a->limbs};
    for (size_t i = 0; i < count; i++) {
        if (t[i] == 1) {
            copy(w, &r[i], a);
        } else {
            s.key[s.count] = hemi_ckks_keys_find(keys, t[i]);
            s.r[s.count++] = &r[i];
        }
        if (s.count == 0 || (s.count < HEMI_CKKS_TOGETHER && i + 1 < count)) continue;
        hemi_ckks_switch(w, &s);
        for (size_t j = 0; j < s.count; j++) s.r[j]->limbs = a->limbs, s.r[j]->scale = a->scale;
        s.count = 0;
    }
    return HEMI_OK;
}

hemi_status hemi_ckks_automorphism(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, uint32_t t,
                                   const hemi_ckks_keys *keys, hemi_error *err) {
    return hemi_ckks_automorphisms(w, r, a, &t, 1, keys, err);
}
