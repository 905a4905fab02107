#include "rlwe/keyswitch.h"

#include <string.h>

#include "base/memory.h"

#define CHUNK 512 /* small values sampled at a time */

void hemi_keyswitch_digit(const hemi_context *ctx, uint64_t *d_p, const uint64_t *c1) {
    ctx->k->intt(d_p, c1, ctx->q);
    ctx->k->lift(d_p, d_p, ctx->n, &ctx->q->m, &ctx->special->m);
    ctx->k->ntt(d_p, ctx->special);
}

void hemi_keyswitch_product(const hemi_context *ctx, const hemi_galois_key *key, hemi_extended u0, hemi_extended u1,
                            const uint64_t *d_q, const uint64_t *d_p, hemi_extended e) {
    ctx->k->keyswitch_product(u0.q, u1.q, d_q, e.q, key->index, key->b_q, key->a_q, ctx->n, &ctx->q->m);
    ctx->k->keyswitch_product(u0.p, u1.p, d_p, e.p, key->index, key->b_p, key->a_p, ctx->n, &ctx->special->m);
}

void hemi_keyswitch_digits(const hemi_context *ctx, uint64_t *d_q, uint64_t *d_p, uint64_t *c1) {
    const size_t n = ctx->n;
    const unsigned digits = ctx->params->baby_digits, bits = ctx->params->digit_bits;
    const int64_t half = INT64_C(1) << (bits - 1), mask = (INT64_C(1) << bits) - 1;
    ctx->k->intt(c1, c1, ctx->q);
    for (size_t i = 0; i < n; i++) {
        int64_t v = hemi_mod_centre(c1[i], &ctx->q->m);
        for (unsigned d = 0; d < digits; d++) {
            const int64_t low = d + 1 < digits ? ((v + half) & mask) - half : v;
            d_q[d * n + i] = hemi_mod_from_signed(low, &ctx->q->m);
            d_p[d * n + i] = hemi_mod_from_signed(low, &ctx->special->m);
            v = (v - low) >> bits; /* exact */
        }
    }
    for (unsigned d = 0; d < digits; d++) {
        ctx->k->ntt(d_q + d * n, ctx->q);
        ctx->k->ntt(d_p + d * n, ctx->special);
    }
}

static void digits_product(const hemi_context *ctx, const hemi_limb *l, const hemi_galois_key *const *key, uint64_t *u0, uint64_t *u1,
                           const uint64_t *digit, const uint64_t *e, uint64_t *scratch) {
    const size_t n = ctx->n;
    const bool over_q = l == ctx->q;
    for (unsigned d = 0; d < ctx->params->baby_digits; d++) {
        uint64_t *r0 = d ? scratch : u0, *r1 = d ? scratch + n : u1;
        ctx->k->keyswitch_product(r0, r1, digit + d * n, d ? NULL : e, key[d]->index, over_q ? key[d]->b_q : key[d]->b_p,
                                  over_q ? key[d]->a_q : key[d]->a_p, n, &l->m);
        if (d == 0) continue;
        ctx->k->add(u0, u0, r0, n, &l->m);
        ctx->k->add(u1, u1, r1, n, &l->m);
    }
}

void hemi_keyswitch_digits_product(const hemi_context *ctx, const hemi_galois_key *const *key, hemi_extended u0, hemi_extended u1,
                                   const uint64_t *d_q, const uint64_t *d_p, hemi_extended e, uint64_t *scratch) {
    digits_product(ctx, ctx->q, key, u0.q, u1.q, d_q, e.q, scratch);
    digits_product(ctx, ctx->special, key, u0.p, u1.p, d_p, e.p, scratch);
}

void hemi_divide_by_special_begin(const hemi_context *ctx, hemi_extended u) {
    ctx->k->intt(u.p, u.p, ctx->special);
    ctx->k->lift(u.p, u.p, ctx->n, &ctx->special->m, &ctx->q->m);
    ctx->k->ntt(u.p, ctx->q);
}

void hemi_divide_by_special(const hemi_context *ctx, uint64_t *r, hemi_extended u) {
    hemi_divide_by_special_begin(ctx, u);
    ctx->k->sub_mul_scalar(r, u.q, u.p, ctx->special_inverse, ctx->n, &ctx->q->m);
}

void hemi_divide_by_special_to_coefficients(const hemi_context *ctx, uint64_t *r, hemi_extended u) {
    ctx->k->intt(u.p, u.p, ctx->special);
    ctx->k->lift(u.p, u.p, ctx->n, &ctx->special->m, &ctx->q->m);
    ctx->k->intt(u.q, u.q, ctx->q);
    ctx->k->sub_mul_scalar(r, u.q, u.p, ctx->special_inverse, ctx->n, &ctx->q->m);
}

void hemi_zero_product(const hemi_evaluation_keys *keys, uint64_t *z0, uint64_t *z1, hemi_stream *secret) {
    const hemi_context *ctx = keys->ctx;
    const hemi_modulus *m = &ctx->q->m;
    int8_t u[CHUNK];
    for (size_t i = 0; i < ctx->n; i += CHUNK) {
        const size_t count = ctx->n - i < CHUNK ? ctx->n - i : CHUNK;
        hemi_sample_ternary(u, count, secret);
        for (size_t j = 0; j < count; j++)
            z0[i + j] = (uint64_t)(int64_t)u[j] + (m->p & (uint64_t)((int64_t)u[j] >> 63));
    }
    hemi_wipe(u, sizeof u);
    ctx->k->ntt(z0, ctx->q);
    ctx->k->mul_fixed(z1, z0, keys->public_a, ctx->n, m);
    ctx->k->mul_fixed(z0, z0, keys->public_b, ctx->n, m);
}

void hemi_add_error(uint64_t *a, size_t n, const hemi_modulus *m, hemi_stream *secret) {
    int8_t e[CHUNK];
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t count = n - i < CHUNK ? n - i : CHUNK;
        hemi_sample_error(e, count, secret);
        for (size_t j = 0; j < count; j++) {
            const int64_t v = e[j];
            a[i + j] = hemi_mod_add(a[i + j], (uint64_t)v + (m->p & (uint64_t)(v >> 63)), m);
        }
    }
    hemi_wipe(e, sizeof e);
}
