/* From the sums of products to the bytes of the results. */
#include <string.h>

#include "base/bits.h"
#include "linear/multiplication.h"
#include "linear/reply.h"

/* ---- giants and traces */

/* What is added to a ciphertext over qP; p NULL: nothing modulo P. */
static void add_extended(const hemi_context *ctx, hemi_extended r, const uint64_t *q, const uint64_t *p) {
    ctx->k->add(r.q, r.q, q, ctx->n, &ctx->q->m);
    if (p) ctx->k->add(r.p, r.p, p, ctx->n, &ctx->special->m);
}

/* One automorphism of a running ciphertext: e' = sigma(e) + u0, c1' = u1 / P. keep: a trace step, the ciphertext itself
 * stays: it and its image are added. */
static void rotate(const hemi_context *ctx, const hemi_galois_key *key, hemi_scratch *s, hemi_running *r, bool keep) {
    hemi_keyswitch_digit(ctx, s->digit, r->c1);
    hemi_keyswitch_product(ctx, key, s->u0, s->u1, r->c1, s->digit, r->e);
    hemi_divide_by_special(ctx, s->u1.q, s->u1);
    if (keep) {
        add_extended(ctx, r->e, s->u0.q, s->u0.p);
        ctx->k->add(r->c1, r->c1, s->u1.q, ctx->n, &ctx->q->m);
    } else {
        const hemi_running old = *r;
        *r = (hemi_running){s->u0, s->u1.q};
        s->u0 = old.e;
        s->u1.q = old.c1;
    }
}

/* The sum over the giants of a group, in Horner form. */
static void sum_giants(const hemi_multiplication *x, const hemi_unit *u, hemi_scratch *s, size_t group, hemi_running *r) {
    const hemi_context *ctx = x->map->ctx;
    const size_t n = ctx->n, bytes = n * sizeof(uint64_t);
    const uint32_t giants = x->map->layout.group[group].giants;
    if (!x->map->layout.direct) memset(r->e.p, 0, bytes);
    for (uint32_t c = giants; c-- > 0;) {
        const uint64_t *s0 = u->sum0 + c * x->sum_stride, *s1 = u->sum1 + c * x->sum_stride;
        if (c + 1 == giants) {
            memcpy(r->e.q, s0, bytes);
            memcpy(r->c1, s1, bytes);
            continue;
        }
        rotate(ctx, x->keys.giant, s, r, false);
        add_extended(ctx, r->e, s0, NULL);
        ctx->k->add(r->c1, r->c1, s1, n, &ctx->q->m);
    }
}

/* The same where the sums are over qP: that of c1 is divided by P together with the rotation it is added to. */
static void sum_precise_giants(const hemi_multiplication *x, const hemi_unit *u, hemi_scratch *s, size_t group, hemi_running *r) {
    const hemi_context *ctx = x->map->ctx;
    const size_t bytes = ctx->n * sizeof(uint64_t);
    const uint32_t giants = x->map->layout.group[group].giants;
    for (uint32_t c = giants; c-- > 0;) {
        const size_t at = c * x->sum_stride;
        if (c + 1 == giants) {
            memcpy(r->e.q, u->sum0 + at, bytes);
            memcpy(r->e.p, u->sum0_p + at, bytes);
            memcpy(s->u1.q, u->sum1 + at, bytes);
            memcpy(s->u1.p, u->sum1_p + at, bytes);
        } else {
            hemi_keyswitch_digit(ctx, s->digit, r->c1);
            hemi_keyswitch_product(ctx, x->keys.giant, s->u0, s->u1, r->c1, s->digit, r->e);
            add_extended(ctx, s->u0, u->sum0 + at, u->sum0_p + at);
            add_extended(ctx, s->u1, u->sum1 + at, u->sum1_p + at);
            const hemi_extended old = r->e;
            r->e = s->u0;
            s->u0 = old;
        }
        hemi_divide_by_special(ctx, r->c1, s->u1);
    }
}

static void sum_group(const hemi_multiplication *x, const hemi_unit *u, hemi_scratch *s, size_t group, hemi_running *r) {
    if (x->map->precise)
        sum_precise_giants(x, u, s, group, r);
    else
        sum_giants(x, u, s, group, r);
}

/* The second group, shifted half way between the outputs of the first, joins it: with M = X^offset times it, and sigma the
 * last trace step of the first group, sigma(X^offset) = -X^offset, so that (1 + sigma)(A) + X^offset (1 + sigma)(B) =
 * (A + M) + sigma(A - M). The steps that remain are those of both. */
static void join_groups(const hemi_multiplication *x, hemi_unit *u, hemi_scratch *s, unsigned last) {
    const hemi_context *ctx = x->map->ctx;
    const hemi_kernels *k = ctx->k;
    const uint32_t n = ctx->n;
    hemi_running *a = &u->first, *b = &u->second;
    struct {
        uint64_t *a, *b;
        const uint64_t *monomial;
        const hemi_modulus *m;
    } part[] = {{a->e.q, b->e.q, x->map->monomial_q, &ctx->q->m},
                {a->e.p, b->e.p, x->map->monomial_p, &ctx->special->m},
                {a->c1, b->c1, x->map->monomial_q, &ctx->q->m}};
    for (size_t i = 0; i < 3; i++) {
        uint64_t *tmp = s->digit;
        k->mul_fixed(tmp, part[i].b, part[i].monomial, n, part[i].m);
        k->sub(part[i].b, part[i].a, tmp, n, part[i].m);
        k->add(part[i].a, part[i].a, tmp, n, part[i].m);
    }
    rotate(ctx, x->keys.trace[last], s, b, false);
    add_extended(ctx, a->e, b->e.q, b->e.p);
    k->add(a->c1, a->c1, b->c1, n, &ctx->q->m);
}

/* The second group by itself, up to where it joins the first. */
static void second_group_step(void *context, size_t index, size_t worker) {
    hemi_multiplication *x = context;
    const hemi_linear_layout *l = &x->map->layout;
    hemi_unit *u = &x->unit[index];
    sum_group(x, u, &x->scratch[worker], 1, &u->second);
    for (unsigned j = hemi_linear_trace_steps(l, 0); j < hemi_linear_trace_steps(l, 1); j++)
        rotate(x->map->ctx, x->keys.trace[j], &x->scratch[worker], &u->second, true);
}

/* ---- the result */

/* Adds the zero product to the result and makes coefficients of it, c0 in e.q, c1 in c1. Until then c0 is over qP (direct: over q,
 * undivided): keeping it so saves two NTTs in every step, and its rounding errors. */
static void finish(const hemi_multiplication *x, hemi_running *r, hemi_scratch *s, hemi_stream *secret) {
    const hemi_context *ctx = x->map->ctx;
    const hemi_kernels *k = ctx->k;
    const uint32_t n = ctx->n;
    const bool direct = x->map->layout.direct;
    if (x->fresh) {
        uint64_t *z0 = s->u0.q, *z1 = s->u1.q;
        hemi_zero_product(x->evaluation, z0, z1, secret);
        if (!direct) k->mul_scalar(z0, z0, ctx->special_mod_q, n, &ctx->q->m);
        k->add(r->e.q, r->e.q, z0, n, &ctx->q->m);
        k->add(r->c1, r->c1, z1, n, &ctx->q->m);
    }
    if (direct)
        k->intt(r->e.q, r->e.q, ctx->q);
    else
        hemi_divide_by_special_to_coefficients(ctx, r->e.q, r->e);
    k->intt(r->c1, r->c1, ctx->q);
}

static void store(const hemi_multiplication *x, size_t index, hemi_running *r, hemi_scratch *s, hemi_stream *secret) {
    const hemi_linear *map = x->map;
    const hemi_context *ctx = map->ctx;
    const hemi_modulus *m = &ctx->q->m;
    const hemi_linear_layout *l = &map->layout;
    const uint32_t first = x->out_block * l->block_outputs;
    uint64_t *b = s->digit;
    for (size_t i = 0; i < map->kept; i++) {
        const uint64_t v = r->e.q[map->output_positions[i]], o = first + i % l->block_outputs;
        b[i] = map->bias && o < l->outputs ? hemi_mod_add(v, map->bias[o], m) : v;
    }
    if (x->fresh) {
        hemi_add_error(b, map->kept, m, secret);
        hemi_add_error(r->c1, ctx->n, m, secret);
    }
    uint8_t *at = x->out.ciphertexts + ((x->first + index) * l->out_blocks + x->out_block) * x->out.stride;
    hemi_linear_reply_store(at, &x->out, x->evaluation, map->output_positions, map->kept, b, r->c1, s->u0.q,
                            x->unit[index].source);
}

/* From the sums of the first group (and the second group's end) to the bytes of the result. */
static void result_step(void *context, size_t index, size_t worker) {
    hemi_multiplication *x = context;
    const hemi_linear_layout *l = &x->map->layout;
    hemi_unit *u = &x->unit[index];
    hemi_scratch *s = &x->scratch[worker];
    unsigned steps = hemi_linear_trace_steps(l, 0);
    hemi_stream secret;
    if (x->fresh) hemi_stream_init_fresh(&secret);
    sum_group(x, u, s, 0, &u->first);
    if (l->groups == 2) join_groups(x, u, s, --steps);
    for (unsigned j = 0; j < steps; j++) rotate(x->map->ctx, x->keys.trace[j], s, &u->first, true);
    finish(x, &u->first, s, &secret);
    store(x, index, &u->first, s, &secret);
    if (x->fresh) hemi_stream_wipe(&secret);
}

void hemi_multiplication_make_results(hemi_multiplication *x) {
    const hemi_linear_layout *l = &x->map->layout;
    for (x->out_block = 0; x->out_block < l->out_blocks; x->out_block++) {
        if (l->groups == 2) {
            hemi_multiplication_sum_products(x, 1);
            hemi_team_run(x->team, x->units, second_group_step, x);
        }
        hemi_multiplication_sum_products(x, 0);
        hemi_team_run(x->team, x->units, result_step, x);
    }
}
