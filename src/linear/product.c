/* The course of a multiplication: units in, rotations, sums of products, giants and traces, results out. */
#include "linear/product.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "linear/internal.h"
#include "linear/reply.h"

/* A ciphertext on its way: c0 as e / P, e over qP; c1 over q. NTT form. */
typedef struct running {
    hemi_extended e;
    uint64_t *c1;
} running;

/* Memory of one worker: a key switch under way. */
typedef struct scratch {
    uint64_t *digit; /* 2 n words */
    hemi_extended u0, u1;
} scratch;

/* Memory of one unit. Polynomials of n words; baby b of input ciphertext i is number i B + b. */
typedef struct unit {
    uint64_t *source;        /* (P c0, c1) of babies below B/2 (at least one), direct: (c0, c1); canonical, NTT form */
    uint64_t *digit;         /* their digits */
    uint64_t *left0, *left1; /* all babies in dot_left form: block of coefficients, term */
    uint64_t *sum0, *sum1;   /* one per giant of the largest group, sum_stride apart */
    uint64_t *left0_p, *left1_p, *sum0_p, *sum1_p; /* of precise maps: the same over P */
    running first, second;   /* one per group */
} unit;

/* The keys of a multiplication, looked up once. */
typedef struct keyring {
    const hemi_galois_key *baby[32], *giant, *trace[32]; /* baby: one per bit; of precise maps one per baby and digit */
} keyring;

typedef struct multiplication {
    const hemi_linear *map; /* the one at work */
    keyring keys;
    const hemi_evaluation_keys *evaluation;
    bool fresh; /* results are re-randomised */
    hemi_linear_input in;
    hemi_linear_output out;
    size_t first, units; /* those at work */
    hemi_workspace *workspace;
    unit unit[HEMI_LINEAR_UNITS_AT_ONCE];
    scratch *scratch;    /* per worker */
    uint8_t *expanded;   /* plaintexts of a giant, of a small map */
    size_t sum_stride;   /* not a power of two: blocks of all giants would meet in one cache set */
    hemi_team *team;
    /* of the loop under way */
    unsigned bit;
    size_t group;
    uint32_t out_block, giant;
} multiplication;

static uint32_t sources(const hemi_linear_layout *l) { return l->babies > 1 ? l->babies / 2 : 1; }

static hemi_status find_keys(keyring *found, const hemi_linear *linear, const hemi_evaluation_keys *keys, hemi_error *err) {
    const hemi_linear_layout *l = &linear->layout;
    *found = (keyring){.giant = NULL};
    if (keys->ctx->params != linear->ctx->params)
        return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys are of set %s, the module needs %s", keys->ctx->params->name,
                         linear->ctx->params->name);
    for (size_t i = 0; i < linear->automorphisms; i++)
        if (!hemi_evaluation_keys_find(keys, linear->automorphism[i]))
            return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys lack automorphism %u, which the module needs", linear->automorphism[i]);
    if (l->direct) return HEMI_OK;
    const unsigned digits = l->params->baby_digits;
    for (uint32_t b = 0; digits && b < digits * l->babies; b++) /* those of baby 0 are not there, and not asked for */
        found->baby[b] = hemi_evaluation_keys_find(keys, HEMI_KEY_NUMBER(hemi_linear_gamma(l, b / digits), b % digits));
    for (unsigned bit = 0; !digits && 1u << bit < l->babies; bit++) found->baby[bit] = hemi_evaluation_keys_find(keys, hemi_linear_family(l, bit));
    found->giant = hemi_evaluation_keys_find(keys, hemi_linear_giant(l));
    for (size_t g = 0; g < l->groups; g++)
        for (unsigned j = 0; j < hemi_linear_trace_steps(l, g); j++) found->trace[j] = hemi_evaluation_keys_find(keys, (l->n >> j) + 1);
    return HEMI_OK;
}

/* ---- the input and its rotations */

/* Baby 0 of input ciphertext i, the input, into its place among the left factors: block of coefficients, term. */
static void place_input(const hemi_linear *map, uint64_t *left, uint32_t i, const uint64_t *a) {
    const uint32_t n = map->layout.n, len = map->block;
    left += (size_t)i * map->layout.babies * len;
    for (uint32_t at = 0; at < n; at += len, left += (size_t)map->terms * len) map->ctx->k->dot_left(left, a + at, len, &map->ctx->q->m);
}

/* A precise map's baby 0 is (P c0, P c1) over qP, 0 modulo P; the digits of c1, which is overwritten, serve all other babies. */
static void load_precise(const hemi_linear *map, unit *u, size_t i, uint64_t *c1, uint64_t *tmp) {
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
    multiplication *x = context;
    const hemi_linear *map = x->map;
    const hemi_context *ctx = map->ctx;
    const hemi_kernels *k = ctx->k;
    const size_t n = ctx->n, i = index % map->layout.in_blocks;
    unit *u = &x->unit[index / map->layout.in_blocks];
    const uint8_t *seed = x->in.ciphertexts + (x->first * map->layout.in_blocks + index) * x->in.stride;
    uint64_t *c0 = u->source + 2 * i * sources(&map->layout) * n, *c1 = c0 + n, *b = x->scratch[worker].digit;
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
    if (map->layout.babies > 1) hemi_keyswitch_digit(ctx, u->digit + i * sources(&map->layout) * n, c1);
}

/* Baby b of input ciphertext i from its key switch (u0, u1), block by block: (u.q - u.p) / P into its place; c0 stays multiplied by P, as
 * the steps that follow want it. A baby that is rotated further is kept as it is, too. */
static void finish_baby(const hemi_linear *map, unit *u, const scratch *s, size_t i, uint32_t b) {
    const hemi_context *ctx = map->ctx;
    const hemi_kernels *k = ctx->k;
    const hemi_modulus *m = &ctx->q->m;
    const uint32_t n = ctx->n, len = map->block, babies = map->layout.babies;
    uint64_t *kept = b < babies / 2 ? u->source + 2 * (i * sources(&map->layout) + b) * n : NULL;
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
    multiplication *x = context;
    const hemi_linear *map = x->map;
    const hemi_context *ctx = map->ctx;
    const size_t n = ctx->n, count = sources(&map->layout), blocks = map->layout.in_blocks;
    const uint32_t b0 = (uint32_t)(index & ((1u << x->bit) - 1)), b = b0 + (1u << x->bit);
    const size_t i = (index >> x->bit) % blocks;
    unit *u = &x->unit[(index >> x->bit) / blocks];
    const scratch *s = &x->scratch[worker];
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
    multiplication *x = context;
    const hemi_linear *map = x->map;
    const hemi_context *ctx = map->ctx;
    const size_t n = ctx->n, len = map->block, digits = ctx->params->baby_digits, others = map->layout.babies - 1;
    const size_t b = 1 + index % others, i = index / others % map->layout.in_blocks;
    unit *u = &x->unit[index / others / map->layout.in_blocks];
    const scratch *s = &x->scratch[worker];
    const uint64_t *digit = u->digit + i * 2 * digits * n;
    hemi_keyswitch_digits_product(ctx, x->keys.baby + b * digits, s->u0, s->u1, digit, digit + digits * n,
                                  (hemi_extended){u->source + 2 * i * sources(&map->layout) * n, NULL}, s->digit);
    for (size_t at = 0; at < n; at += len) {
        const size_t place = at * map->terms + (i * map->layout.babies + b) * len;
        ctx->k->dot_left(u->left0 + place, s->u0.q + at, len, &ctx->q->m);
        ctx->k->dot_left(u->left1 + place, s->u1.q + at, len, &ctx->q->m);
        ctx->k->dot_left(u->left0_p + place, s->u0.p + at, len, &ctx->special->m);
        ctx->k->dot_left(u->left1_p + place, s->u1.p + at, len, &ctx->special->m);
    }
}

static void prepare_input(multiplication *x) {
    const hemi_linear_layout *l = &x->map->layout;
    hemi_team_run(x->team, x->units * l->in_blocks, load_step, x);
    if (x->map->precise) {
        hemi_team_run(x->team, x->units * l->in_blocks * (l->babies - 1), precise_baby_step, x);
        return;
    }
    for (x->bit = 0; 1u << x->bit < l->babies; x->bit++) hemi_team_run(x->team, x->units * l->in_blocks << x->bit, baby_step, x);
}

/* ---- sums of products */

/* Sums of `sums` giants from the plaintexts of one block of coefficients, unit after unit, while those are in the cache; at: the
 * block's first coefficient; w and w_p (precise maps): its plaintexts; giant: the first. */
static void dot_block(const multiplication *x, size_t at, const uint8_t *w, const uint8_t *w_p, size_t giant, size_t sums) {
    const hemi_linear *map = x->map;
    const hemi_kernels *k = map->ctx->k;
    const size_t left = at * map->terms, sum = giant * x->sum_stride + at;
    for (size_t i = 0; i < x->units; i++) {
        const unit *u = &x->unit[i];
        k->dot2(u->sum0 + sum, u->sum1 + sum, x->sum_stride, sums, u->left0 + left, u->left1 + left, map->block, w, map->terms, map->block,
                &map->ctx->q->m);
        if (w_p)
            k->dot2(u->sum0_p + sum, u->sum1_p + sum, x->sum_stride, sums, u->left0_p + left, u->left1_p + left, map->block, w_p,
                    map->terms, map->block, &map->ctx->special->m);
    }
}

static void dot_step(void *context, size_t index, size_t worker) {
    const multiplication *x = context;
    const hemi_linear *map = x->map;
    const size_t at = index * map->block, giants = map->layout.group[x->group].giants;
    const size_t first = (hemi_linear_plaintext_index(map, x->out_block, x->group) * map->layout.n + at * map->terms * giants) * HEMI_DOT_BYTES;
    (void)worker;
    dot_block(x, at, map->plaintexts + first, map->precise ? map->plaintexts_p + first : NULL, 0, giants);
}

/* The same for one giant, whose plaintexts have been made for this call. */
static void dot_small_step(void *context, size_t index, size_t worker) {
    const multiplication *x = context;
    const hemi_linear *map = x->map;
    const size_t at = index * map->block, bytes = at * map->terms * HEMI_DOT_BYTES;
    (void)worker;
    dot_block(x, at, x->expanded + bytes, map->precise ? x->expanded + map->terms * map->layout.n * HEMI_DOT_BYTES + bytes : NULL, x->giant, 1);
}

static void sum_products(multiplication *x, size_t group) {
    const hemi_linear *map = x->map;
    const size_t blocks = map->layout.n / map->block;
    x->group = group;
    if (map->plaintexts) {
        hemi_team_run(x->team, blocks, dot_step, x);
        return;
    }
    const size_t stride = (size_t)(x->scratch[1].digit - x->scratch[0].digit);
    for (x->giant = 0; x->giant < map->layout.group[group].giants; x->giant++) {
        uint8_t *at = x->expanded;
        hemi_linear_expand_giant(map, at, map->ctx->q, x->out_block, group, x->giant, x->scratch[0].digit, stride, x->team);
        at += map->terms * (size_t)map->layout.n * HEMI_DOT_BYTES;
        if (map->precise)
            hemi_linear_expand_giant(map, at, map->ctx->special, x->out_block, group, x->giant, x->scratch[0].digit, stride, x->team);
        hemi_team_run(x->team, blocks, dot_small_step, x);
    }
}

/* ---- giants and traces */

/* What is added to a ciphertext over qP; p NULL: nothing modulo P. */
static void add_extended(const hemi_context *ctx, hemi_extended r, const uint64_t *q, const uint64_t *p) {
    ctx->k->add(r.q, r.q, q, ctx->n, &ctx->q->m);
    if (p) ctx->k->add(r.p, r.p, p, ctx->n, &ctx->special->m);
}

/* One automorphism of a running ciphertext: e' = sigma(e) + u0, c1' = u1 / P. keep: a trace step, the ciphertext itself
 * stays: it and its image are added. */
static void rotate(const hemi_context *ctx, const hemi_galois_key *key, scratch *s, running *r, bool keep) {
    hemi_keyswitch_digit(ctx, s->digit, r->c1);
    hemi_keyswitch_product(ctx, key, s->u0, s->u1, r->c1, s->digit, r->e);
    hemi_divide_by_special(ctx, s->u1.q, s->u1);
    if (keep) {
        add_extended(ctx, r->e, s->u0.q, s->u0.p);
        ctx->k->add(r->c1, r->c1, s->u1.q, ctx->n, &ctx->q->m);
    } else {
        const running old = *r;
        *r = (running){s->u0, s->u1.q};
        s->u0 = old.e;
        s->u1.q = old.c1;
    }
}

/* The sum over the giants of a group, in Horner form. */
static void sum_giants(const multiplication *x, const unit *u, scratch *s, size_t group, running *r) {
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
static void sum_precise_giants(const multiplication *x, const unit *u, scratch *s, size_t group, running *r) {
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

static void sum_group(const multiplication *x, const unit *u, scratch *s, size_t group, running *r) {
    if (x->map->precise)
        sum_precise_giants(x, u, s, group, r);
    else
        sum_giants(x, u, s, group, r);
}

/* The second group, shifted half way between the outputs of the first, joins it: with M = X^offset times it, and sigma the
 * last trace step of the first group, sigma(X^offset) = -X^offset, so that (1 + sigma)(A) + X^offset (1 + sigma)(B) =
 * (A + M) + sigma(A - M). The steps that remain are those of both. */
static void join_groups(const multiplication *x, unit *u, scratch *s, unsigned last) {
    const hemi_context *ctx = x->map->ctx;
    const hemi_kernels *k = ctx->k;
    const uint32_t n = ctx->n;
    running *a = &u->first, *b = &u->second;
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
    multiplication *x = context;
    const hemi_linear_layout *l = &x->map->layout;
    unit *u = &x->unit[index];
    sum_group(x, u, &x->scratch[worker], 1, &u->second);
    for (unsigned j = hemi_linear_trace_steps(l, 0); j < hemi_linear_trace_steps(l, 1); j++)
        rotate(x->map->ctx, x->keys.trace[j], &x->scratch[worker], &u->second, true);
}

/* ---- the result */

/* Adds the zero product to the result and makes coefficients of it, c0 in e.q, c1 in c1. Until then c0 is over qP (direct: over q,
 * undivided): keeping it so saves two NTTs in every step, and its rounding errors. */
static void finish(const multiplication *x, running *r, scratch *s, hemi_stream *secret) {
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

static void store(const multiplication *x, size_t index, running *r, scratch *s, hemi_stream *secret) {
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
    multiplication *x = context;
    const hemi_linear_layout *l = &x->map->layout;
    unit *u = &x->unit[index];
    scratch *s = &x->scratch[worker];
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

static void make_results(multiplication *x) {
    const hemi_linear_layout *l = &x->map->layout;
    for (x->out_block = 0; x->out_block < l->out_blocks; x->out_block++) {
        if (l->groups == 2) {
            sum_products(x, 1);
            hemi_team_run(x->team, x->units, second_group_step, x);
        }
        sum_products(x, 0);
        hemi_team_run(x->team, x->units, result_step, x);
    }
}

/* ---- memory */

static uint64_t *take_words(uint64_t **at, size_t words) {
    uint64_t *p = *at;
    *at += words;
    return p;
}

/* The largest numbers of the maps that share a call. */
typedef struct needs {
    size_t n, terms, digits, sources, giants, sum_stride, expanded; /* digits: polynomials; expanded: words */
    bool precise;
    size_t per_unit, per_worker;
} needs;

static needs needs_of(const hemi_linear *const *maps, size_t count) {
    needs d = {.n = maps[0]->ctx->n};
    for (size_t i = 0; i < count; i++) {
        const hemi_linear_layout *l = &maps[i]->layout;
        const bool precise = maps[i]->precise;
        const size_t s = (size_t)l->in_blocks * sources(l), g = precise ? 2 * (size_t)l->in_blocks * l->params->baby_digits : s;
        const size_t e = maps[i]->plaintexts ? 0 : maps[i]->terms * d.n * HEMI_DOT_BYTES / sizeof(uint64_t) * (precise ? 2 : 1);
        d.precise |= precise;
        if (g > d.digits) d.digits = g;
        if (maps[i]->terms > d.terms) d.terms = maps[i]->terms;
        if (s > d.sources) d.sources = s;
        if (l->group[0].giants > d.giants) d.giants = l->group[0].giants;
        if (e > d.expanded) d.expanded = e;
    }
    d.sum_stride = d.n + 3 * HEMI_ALIGNMENT / sizeof(uint64_t);
    const size_t limbs = d.precise ? 2 : 1;
    d.per_unit = (2 * d.sources + d.digits + 2 * limbs * d.terms + 6) * d.n + 2 * limbs * d.giants * d.sum_stride;
    d.per_worker = 6 * d.n;
    return d;
}

/* Lays out the memory for the units at work. */
static void carve(multiplication *x, const needs *d, size_t units, size_t workers) {
    uint64_t *at = x->workspace->storage;
    const size_t n = d->n;
    x->sum_stride = d->sum_stride;
    for (size_t i = 0; i < units; i++) {
        unit *u = &x->unit[i];
        u->source = take_words(&at, 2 * d->sources * n);
        u->digit = take_words(&at, d->digits * n);
        uint64_t **left[] = {&u->left0, &u->left1, &u->left0_p, &u->left1_p}, **sum[] = {&u->sum0, &u->sum1, &u->sum0_p, &u->sum1_p};
        for (size_t j = 0; j < (d->precise ? 4 : 2); j++) {
            *left[j] = take_words(&at, d->terms * n);
            *sum[j] = take_words(&at, d->giants * d->sum_stride);
        }
        uint64_t **polynomial[] = {&u->first.e.q,  &u->first.e.p,  &u->first.c1,
                                   &u->second.e.q, &u->second.e.p, &u->second.c1};
        for (size_t j = 0; j < 6; j++) *polynomial[j] = take_words(&at, n);
    }
    for (size_t w = 0; w < workers; w++) {
        scratch *s = &x->scratch[w];
        uint64_t **polynomial[] = {&s->u0.q, &s->u0.p, &s->u1.q, &s->u1.p};
        s->digit = take_words(&at, 2 * n);
        for (size_t j = 0; j < 4; j++) *polynomial[j] = take_words(&at, n);
    }
    x->expanded = (uint8_t *)at;
}

/* ---- */

bool hemi_linear_same_input(const hemi_linear_layout *a, const hemi_linear_layout *b) {
    return a->params == b->params && a->inputs == b->inputs && a->s == b->s && a->rows == b->rows && a->fan == b->fan &&
           a->tile_y == b->tile_y && a->tile_x == b->tile_x && a->pitch == b->pitch && a->taps_y == b->taps_y && a->taps_x == b->taps_x;
}

static bool same_babies(const hemi_linear_layout *a, const hemi_linear_layout *b) {
    return a->babies == b->babies && a->direct == b->direct;
}

static hemi_status run(multiplication *x, const hemi_linear *const *maps, const keyring *keys, size_t count, const hemi_linear_output *out,
                       size_t units, hemi_error *err) {
    const needs d = needs_of(maps, count);
    const size_t workers = (size_t)hemi_team_size(x->team), slots = workers < 2 ? 2 : workers;
    size_t together = HEMI_LINEAR_WORKSPACE_BYTES / (d.per_unit * sizeof(uint64_t));
    together = together < 1 ? 1 : together > HEMI_LINEAR_UNITS_AT_ONCE ? HEMI_LINEAR_UNITS_AT_ONCE : together;
    if (together > units) together = units;
    const size_t slot_words = (slots * sizeof(scratch) / sizeof(uint64_t) + 15) / 8 * 8;
    x->workspace = hemi_workspace_take(together * d.per_unit + slots * d.per_worker + d.expanded + slot_words);
    if (!x->workspace) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix product");
    x->scratch = (scratch *)(void *)(x->workspace->storage + together * d.per_unit + slots * d.per_worker + d.expanded);
    carve(x, &d, together, slots);
    for (x->first = 0; x->first < units; x->first += x->units) {
        x->units = units - x->first < together ? units - x->first : together;
        for (size_t i = 0; i < count; i++) {
            x->map = maps[i];
            x->keys = keys[i];
            x->out = out[i];
            if (i == 0 || !same_babies(&maps[i]->layout, &maps[i - 1]->layout)) prepare_input(x);
            make_results(x);
        }
    }
    hemi_workspace_give(x->workspace);
    return HEMI_OK;
}

static hemi_status check_and_run(multiplication *x, const hemi_linear *const *maps, size_t count, const hemi_evaluation_keys *keys,
                                 const hemi_linear_output *out, size_t units, hemi_error *err) {
    keyring found[HEMI_LINEAR_MAPS_MAX];
    if (count == 0 || count > HEMI_LINEAR_MAPS_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "%zu maps in one call: 1 to %d can share an input", count, HEMI_LINEAR_MAPS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (!hemi_linear_same_input(&maps[0]->layout, &maps[i]->layout))
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "the modules of one request read inputs of different layouts");
        HEMI_TRY(find_keys(&found[i], maps[i], keys, err));
        HEMI_TRY(hemi_linear_reply_check(&maps[i]->layout, keys, &out[i], err));
    }
    return run(x, maps, found, count, out, units, err);
}

hemi_status hemi_linear_multiply(const hemi_linear *const *maps, size_t count, const hemi_evaluation_keys *keys, hemi_linear_input in,
                                 const hemi_linear_output *out, size_t units, hemi_team *team, hemi_error *err) {
    multiplication x = {.evaluation = keys, .fresh = true, .in = in, .team = team};
    return check_and_run(&x, maps, count, keys, out, units, err);
}

hemi_status hemi_linear_multiply_bare(const hemi_linear *const *maps, size_t count, const hemi_evaluation_keys *keys, hemi_linear_input in,
                                      const hemi_linear_output *out, size_t units, hemi_team *team, hemi_error *err) {
    multiplication x = {.evaluation = keys, .in = in, .team = team};
    return check_and_run(&x, maps, count, keys, out, units, err);
}
