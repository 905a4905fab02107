/* The input of a multiplication and its rotations. */
#include <string.h>

#include "base/bits.h"
#include "linear/multiplication.h"

/* Baby 0 of input ciphertext i, the input, into its place among the left factors: block of coefficients, term. */
static void place_input(const hemi_linear *map, uint64_t *left, uint32_t i, const uint64_t *a) {
    const uint32_t n = map->layout.n, len = map->block;
    left += (size_t)i * map->layout.babies * len;
    for (uint32_t at = 0; at < n; at += len, left += (size_t)map->terms * len) map->ctx->k->dot_left(left, a + at, len, &map->ctx->q->m);
}

/* A precise map's baby 0 is (P c0, P c1) over qP, 0 modulo P; the digits of c1, which is overwritten, serve all other babies. */
static void load_precise(const hemi_linear *map, hemi_unit *u, size_t i, uint64_t *c1, uint64_t *tmp) {
    const hemi_context *ctx = map->ctx;
    const size_t n = ctx->n, digits = ctx->params->baby_digits;
    ctx->k->mul_scalar(tmp, c1, ctx->special_mod_q, n, &ctx->q->m);
    place_input(map, u->left1, (uint32_t)i, tmp);
    memset(tmp, 0, n * sizeof *tmp);
    place_input(map, u->left0_p, (uint32_t)i, tmp);
    place_input(map, u->left1_p, (uint32_t)i, tmp);
    uint64_t *digit = u->digit + i * 2 * digits * n;
    hemi_keyswitch_digits(ctx, digit, digit + digits * n, c1);
}

static void load_step(void *context, size_t index, size_t worker) {
    hemi_multiplication *x = context;
    const hemi_linear *map = x->map;
    const hemi_context *ctx = map->ctx;
    const hemi_kernels *k = ctx->k;
    const size_t n = ctx->n, i = index % map->layout.in_blocks;
    hemi_unit *u = &x->unit[index / map->layout.in_blocks];
    const uint8_t *seed = x->in.ciphertexts + (x->first * map->layout.in_blocks + index) * x->in.stride;
    uint64_t *c0 = u->source + 2 * i * hemi_linear_sources(&map->layout) * n, *c1 = c0 + n, *b = x->scratch[worker].digit;
    hemi_unpack(b, seed + HEMI_SEED_BYTES, map->sent, x->in.b_bits);
    k->switch_up(b, b, map->sent, x->in.b_bits, &ctx->q->m);
    memset(c0, 0, n * sizeof *c0);
    for (size_t j = 0; j < map->sent; j++) c0[map->input_positions[j]] = b[j];
    k->ntt(c0, ctx->q);
    hemi_sample_uniform_vartime(c1, n, ctx->q->m.p, seed, HEMI_DOMAIN_CIPHERTEXT, 0);
    if (!map->layout.direct) { /* 1/S first: the fresh error then comes back as it is; c0 is kept over qP, times P */
        k->mul_scalar(c0, c0, hemi_mod_mul(map->scale, ctx->special_mod_q, &ctx->q->m), n, &ctx->q->m);
        k->mul_scalar(c1, c1, map->scale, n, &ctx->q->m);
    }
    place_input(map, u->left0, (uint32_t)i, c0);
    if (map->precise) {
        load_precise(map, u, i, c1, b);
        return;
    }
    place_input(map, u->left1, (uint32_t)i, c1);
    if (map->layout.babies > 1) hemi_keyswitch_digit(ctx, u->digit + i * hemi_linear_sources(&map->layout) * n, c1);
}

/* Baby b of input ciphertext i from its key switch (u0, u1), block by block: (u.q - u.p) / P into its place; c0 stays multiplied by P, as
 * the steps that follow want it. A baby that is rotated further is kept as it is, too. */
static void finish_baby(const hemi_linear *map, hemi_unit *u, const hemi_scratch *s, size_t i, uint32_t b) {
    const hemi_context *ctx = map->ctx;
    const hemi_kernels *k = ctx->k;
    const hemi_modulus *m = &ctx->q->m;
    const uint32_t n = ctx->n, len = map->block, babies = map->layout.babies;
    uint64_t *kept = b < babies / 2 ? u->source + 2 * (i * hemi_linear_sources(&map->layout) + b) * n : NULL;
    for (uint32_t at = 0; at < n; at += len) {
        const size_t place = (size_t)at * map->terms + (i * babies + b) * len;
        uint64_t *left0 = u->left0 + place, *left1 = u->left1 + place;
        uint64_t *r0 = kept ? kept + at : left0, *r1 = kept ? kept + n + at : left1;
        k->sub(r0, s->u0.q + at, s->u0.p + at, len, m);
        k->sub_mul_scalar(r1, s->u1.q + at, s->u1.p + at, ctx->special_inverse, len, m);
        k->dot_left(left0, r0, len, m);
        k->dot_left(left1, r1, len, m);
    }
}

/* Baby b0 + 2^bit from baby b0 < 2^bit: one step for each of those, of every input ciphertext and unit. The digit of b0 serves all of
 * its rotations. */
static void baby_step(void *context, size_t index, size_t worker) {
    hemi_multiplication *x = context;
    const hemi_linear *map = x->map;
    const hemi_context *ctx = map->ctx;
    const size_t n = ctx->n, count = hemi_linear_sources(&map->layout), blocks = map->layout.in_blocks;
    const uint32_t b0 = (uint32_t)(index & ((1u << x->bit) - 1)), b = b0 + (1u << x->bit);
    const size_t i = (index >> x->bit) % blocks;
    hemi_unit *u = &x->unit[(index >> x->bit) / blocks];
    const hemi_scratch *s = &x->scratch[worker];
    const uint64_t *c0 = u->source + 2 * (i * count + b0) * n, *c1 = c0 + n;
    hemi_keyswitch_product(ctx, x->keys.baby[x->bit], s->u0, s->u1, c1, u->digit + (i * count + b0) * n, (hemi_extended){(uint64_t *)(uintptr_t)c0, NULL});
    hemi_divide_by_special_begin(ctx, s->u0);
    hemi_divide_by_special_begin(ctx, s->u1);
    finish_baby(map, u, s, i, b);
    if (b < map->layout.babies / 2)
        hemi_keyswitch_digit(ctx, u->digit + (i * count + b) * n, u->source + 2 * (i * count + b) * n + n);
}

/* Baby b > 0 of a precise map, of every input ciphertext and unit, from the input's digits. It stays over qP. */
static void precise_baby_step(void *context, size_t index, size_t worker) {
    hemi_multiplication *x = context;
    const hemi_linear *map = x->map;
    const hemi_context *ctx = map->ctx;
    const size_t n = ctx->n, len = map->block, digits = ctx->params->baby_digits, others = map->layout.babies - 1;
    const size_t b = 1 + index % others, i = index / others % map->layout.in_blocks;
    hemi_unit *u = &x->unit[index / others / map->layout.in_blocks];
    const hemi_scratch *s = &x->scratch[worker];
    const uint64_t *digit = u->digit + i * 2 * digits * n;
    hemi_keyswitch_digits_product(ctx, x->keys.baby + b * digits, s->u0, s->u1, digit, digit + digits * n,
                                  (hemi_extended){u->source + 2 * i * hemi_linear_sources(&map->layout) * n, NULL}, s->digit);
    for (size_t at = 0; at < n; at += len) {
        const size_t place = at * map->terms + (i * map->layout.babies + b) * len;
        ctx->k->dot_left(u->left0 + place, s->u0.q + at, len, &ctx->q->m);
        ctx->k->dot_left(u->left1 + place, s->u1.q + at, len, &ctx->q->m);
        ctx->k->dot_left(u->left0_p + place, s->u0.p + at, len, &ctx->special->m);
        ctx->k->dot_left(u->left1_p + place, s->u1.p + at, len, &ctx->special->m);
    }
}

void hemi_multiplication_prepare_input(hemi_multiplication *x) {
    const hemi_linear_layout *l = &x->map->layout;
    hemi_team_run(x->team, x->units * l->in_blocks, load_step, x);
    if (x->map->precise) {
        hemi_team_run(x->team, x->units * l->in_blocks * (l->babies - 1), precise_baby_step, x);
        return;
    }
    for (x->bit = 0; 1u << x->bit < l->babies; x->bit++) hemi_team_run(x->team, x->units * l->in_blocks << x->bit, baby_step, x);
}
