#include "linear/product.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "linear/internal.h"
#include "linear/plaintexts.h"
#include "linear/reply.h"

/* Coefficients of a block: both components of all babies should fill less than half of the first-level cache. */
static uint32_t block_length(const hemi_linear_layout *l) {
    uint32_t len = HEMI_LINEAR_BLOCK_MAX;
    while (len > HEMI_LINEAR_BLOCK_MIN && l->babies * len * 16 > HEMI_LINEAR_BLOCK_BYTES) len /= 2;
    return l->n < len ? l->n : len;
}

/* Plaintexts lie in the order in which they are read: group, block of coefficients, giant, baby. */
static size_t plaintext_offset(const hemi_linear *linear, size_t group, uint32_t block, uint32_t giant, uint32_t baby) {
    const hemi_linear_layout *l = &linear->layout;
    const hemi_linear_group *g = &l->group[group];
    const size_t in_group = ((size_t)block * g->giants + giant) * l->babies + baby;
    return ((size_t)g->first * l->n + in_group * linear->block) * HEMI_DOT_BYTES;
}

typedef struct transform {
    const hemi_linear *linear;
    const hemi_context *ctx;
    size_t group;
    const int32_t *pt;
    const uint32_t *from;
    uint64_t *scratch; /* n per worker */
} transform;

static void transform_step(void *context, size_t index, size_t worker) {
    const transform *t = context;
    const hemi_context *ctx = t->ctx;
    const hemi_linear_layout *l = &t->linear->layout;
    const uint32_t giant = (uint32_t)index / l->babies, baby = (uint32_t)index % l->babies;
    const int32_t *pt = t->pt + (size_t)t->from[index] * l->n;
    uint64_t *a = t->scratch + worker * l->n;
    for (uint32_t i = 0; i < l->n; i++) a[i] = hemi_mod_from_signed(pt[i], &ctx->q->m);
    ctx->k->ntt(a, ctx->q);
    for (uint32_t block = 0; block < l->n / t->linear->block; block++)
        ctx->k->dot_right(t->linear->plaintexts + plaintext_offset(t->linear, t->group, block, giant, baby),
                          a + (size_t)block * t->linear->block, t->linear->block, &ctx->q->m);
}

static hemi_status transform_group(hemi_linear *linear, size_t group, const int16_t *w, hemi_team *team,
                                   hemi_error *err) {
    const hemi_linear_layout *l = &linear->layout;
    const uint32_t k = l->group[group].k;
    const size_t workers = (size_t)hemi_team_size(team);
    int32_t *pt = hemi_alloc_large((size_t)k * l->n, sizeof *pt);
    uint32_t *from = hemi_alloc(k, sizeof *from);
    uint64_t *scratch = hemi_alloc(workers * l->n, sizeof *scratch);
    hemi_status s = HEMI_OK;
    if (!pt || !from || !scratch) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory to transform the weights of a module");
    if (s == HEMI_OK) s = hemi_linear_plaintexts(pt, from, l, group, w, team, err);
    if (s == HEMI_OK) {
        transform t = {linear, linear->ctx, group, pt, from, scratch};
        hemi_team_run(team, k, transform_step, &t);
    }
    hemi_free(pt);
    hemi_free(from);
    hemi_free(scratch);
    return s;
}

/* round(bias delta) modulo q. */
static uint64_t scaled_bias(double bias, uint64_t delta, const hemi_modulus *m) {
    return hemi_mod_from_signed(llrint(bias * (double)delta), m);
}

/* X^offset of the second group, in NTT form, fixed. */
static hemi_status make_monomials(hemi_linear *linear, hemi_error *err) {
    const hemi_context *ctx = linear->ctx;
    const uint32_t n = ctx->n, offset = linear->layout.group[1].offset;
    linear->monomial_q = hemi_alloc(2 * (size_t)n, sizeof *linear->monomial_q);
    if (!linear->monomial_q) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    linear->monomial_p = linear->monomial_q + n;
    for (size_t i = 0; i < 2; i++) {
        const hemi_limb *limb = i == 0 ? ctx->q : ctx->special;
        uint64_t *x = linear->monomial_q + i * n;
        x[offset] = 1;
        ctx->k->ntt(x, limb);
        ctx->k->fix(x, x, n, &limb->m);
    }
    return HEMI_OK;
}

hemi_status hemi_linear_new(hemi_linear **out, const hemi_context *ctx, const hemi_linear_layout *layout,
                            const int16_t *w, const double *bias, uint64_t delta, hemi_team *team, hemi_error *err) {
    *out = NULL;
    if (ctx->params != layout->params || ctx->q->m.bits > HEMI_DOT_MODULUS_BITS_MAX ||
        layout->n % 8 != 0) /* ring/kernels.h, dot2 */
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s does not serve matrix products of this layout",
                         ctx->params->name);
    hemi_linear *linear = hemi_alloc(1, sizeof *linear);
    const uint32_t products = hemi_linear_products(layout), n = layout->n;
    if (linear) {
        (void)pthread_mutex_init(&linear->lock, NULL);
        linear->ctx = ctx;
        linear->layout = *layout;
        linear->block = block_length(layout);
        linear->scale = layout->direct ? 1 : hemi_mod_inverse(layout->s % ctx->q->m.p, &ctx->q->m);
        linear->plaintexts = hemi_alloc_large((size_t)products * n, HEMI_DOT_BYTES);
        linear->bias = bias ? hemi_alloc(layout->outputs, sizeof *linear->bias) : NULL;
        linear->input_positions = hemi_alloc(hemi_linear_input_positions(layout, NULL), sizeof(uint32_t));
        linear->output_positions = hemi_alloc(layout->outputs, sizeof(uint32_t));
        linear->bytes = (size_t)products * n * HEMI_DOT_BYTES;
    }
    if (!linear || !linear->plaintexts || (bias && !linear->bias) || !linear->input_positions ||
        !linear->output_positions) {
        hemi_linear_free(linear);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u plaintexts of %u coefficients", products, n);
    }
    (void)hemi_linear_input_positions(layout, linear->input_positions);
    hemi_linear_output_positions(layout, linear->output_positions);
    linear->automorphisms = hemi_linear_automorphisms(layout, linear->automorphism);
    for (uint32_t o = 0; bias && o < layout->outputs; o++) linear->bias[o] = scaled_bias(bias[o], delta, &ctx->q->m);
    hemi_status s = layout->groups == 2 ? make_monomials(linear, err) : HEMI_OK;
    for (size_t g = 0; g < layout->groups && s == HEMI_OK; g++) s = transform_group(linear, g, w, team, err);
    if (s != HEMI_OK) {
        hemi_linear_free(linear);
        return s;
    }
    *out = linear;
    return HEMI_OK;
}

void hemi_linear_free(hemi_linear *linear) {
    if (!linear) return;
    for (hemi_workspace *w = linear->idle, *next; w; w = next) {
        next = w->next;
        hemi_free(w->storage);
        hemi_free(w);
    }
    hemi_free(linear->plaintexts);
    hemi_free(linear->monomial_q);
    hemi_free(linear->bias);
    hemi_free(linear->input_positions);
    hemi_free(linear->output_positions);
    (void)pthread_mutex_destroy(&linear->lock);
    hemi_free(linear);
}

size_t hemi_linear_bytes(const hemi_linear *linear) { return linear->bytes; }

const hemi_linear_layout *hemi_linear_get_layout(const hemi_linear *linear) { return &linear->layout; }

/* The keys of a multiplication, looked up once. */
typedef struct keyring {
    const hemi_galois_key *baby[32], *giant, *trace[32];
} keyring;

static hemi_status find_keys(keyring *found, const hemi_linear *linear, const hemi_evaluation_keys *keys,
                             hemi_error *err) {
    const hemi_linear_layout *l = &linear->layout;
    *found = (keyring){.giant = NULL};
    if (keys->ctx->params != linear->ctx->params)
        return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys are of set %s, the module needs %s",
                         keys->ctx->params->name, linear->ctx->params->name);
    for (size_t i = 0; i < linear->automorphisms; i++)
        if (!hemi_evaluation_keys_find(keys, linear->automorphism[i]))
            return hemi_fail(err, HEMI_ERR_KEY,
                             "the evaluation keys lack automorphism %u: make keys for all the modules of the model",
                             linear->automorphism[i]);
    for (unsigned bit = 0; 1u << bit < l->babies; bit++)
        found->baby[bit] = hemi_evaluation_keys_find(keys, hemi_linear_family(l, bit));
    found->giant = hemi_evaluation_keys_find(keys, hemi_linear_giant(l));
    for (size_t g = 0; g < l->groups; g++)
        for (unsigned j = 0; j < hemi_linear_trace_steps(l, g); j++)
            found->trace[j] = hemi_evaluation_keys_find(keys, (l->n >> j) + 1);
    return HEMI_OK;
}

/* Baby 0, the input, into its place among the left factors: block of coefficients, baby. */
static void place_input(const hemi_linear *linear, uint64_t *left, const uint64_t *a) {
    const uint32_t n = linear->layout.n, len = linear->block;
    for (uint32_t i = 0; i < n; i += len)
        linear->ctx->k->dot_left(left + (size_t)i * linear->layout.babies, a + i, len, &linear->ctx->q->m);
}

/* Baby b from its key switch (u0, u1), block by block: (u.q - u.p) / P into its place; c0 stays multiplied by P, as the steps
 * that follow want it. A baby that is rotated further is kept as it is, too. */
static void finish_baby(const hemi_linear *linear, hemi_workspace *w, uint32_t b) {
    const hemi_context *ctx = linear->ctx;
    const hemi_kernels *k = ctx->k;
    const hemi_modulus *m = &ctx->q->m;
    const uint32_t n = ctx->n, len = linear->block, babies = linear->layout.babies;
    uint64_t *kept = b < babies / 2 ? w->source + (size_t)2 * b * n : NULL;
    for (uint32_t i = 0; i < n; i += len) {
        uint64_t *left0 = w->left0 + (size_t)i * babies + (size_t)b * len, *left1 = w->left1 + (left0 - w->left0);
        uint64_t *r0 = kept ? kept + i : left0, *r1 = kept ? kept + n + i : left1;
        k->sub(r0, w->u0.q + i, w->u0.p + i, len, m);
        k->sub_mul_scalar(r1, w->u1.q + i, w->u1.p + i, ctx->special_inverse, len, m);
        k->dot_left(left0, r0, len, m);
        k->dot_left(left1, r1, len, m);
    }
}

/* Babies b0 + 2^l for all 2^l > b0, by rotations of baby b0, which share its digit. */
static void babies_of(const hemi_linear *linear, const keyring *keys, hemi_workspace *w, uint32_t b0) {
    const hemi_context *ctx = linear->ctx;
    uint64_t *c0 = w->source + (size_t)2 * b0 * ctx->n, *c1 = c0 + ctx->n;
    hemi_keyswitch_digit(ctx, w->digit, c1);
    for (unsigned bit = 0; 1u << bit < linear->layout.babies; bit++) {
        if (1u << bit <= b0) continue;
        hemi_keyswitch_product(ctx, keys->baby[bit], w->u0, w->u1, c1, w->digit, (hemi_extended){c0, NULL});
        hemi_divide_by_special_begin(ctx, w->u0);
        hemi_divide_by_special_begin(ctx, w->u1);
        finish_baby(linear, w, b0 + (1u << bit));
    }
}

typedef struct dot_job {
    const hemi_linear *linear;
    const hemi_workspace *w;
    size_t group;
} dot_job;

/* One block of coefficients: all giants' sums over the babies. */
static void dot_step(void *context, size_t index, size_t worker) {
    const dot_job *job = context;
    const hemi_linear *linear = job->linear;
    const hemi_linear_layout *l = &linear->layout;
    const hemi_workspace *w = job->w;
    const size_t at = index * linear->block, left = at * l->babies;
    (void)worker;
    linear->ctx->k->dot2(w->sum0 + at, w->sum1 + at, w->sum_stride, l->group[job->group].giants, w->left0 + left,
                         w->left1 + left, linear->block,
                         linear->plaintexts + plaintext_offset(linear, job->group, (uint32_t)index, 0, 0), l->babies,
                         linear->block, &linear->ctx->q->m);
}

/* One automorphism of a running ciphertext: e' = sigma(e) + u0, c1' = u1 / P. keep: a trace step, the ciphertext itself
 * stays: it and its image are added. */
static void rotate(const hemi_context *ctx, const hemi_galois_key *key, hemi_workspace *w, hemi_running *r, bool keep) {
    const hemi_kernels *k = ctx->k;
    const uint32_t n = ctx->n;
    hemi_keyswitch_digit(ctx, w->digit, r->c1);
    hemi_keyswitch_product(ctx, key, w->u0, w->u1, r->c1, w->digit, r->e);
    hemi_divide_by_special(ctx, w->u1.q, w->u1);
    if (keep) {
        k->add(r->e.q, r->e.q, w->u0.q, n, &ctx->q->m);
        k->add(r->e.p, r->e.p, w->u0.p, n, &ctx->special->m);
        k->add(r->c1, r->c1, w->u1.q, n, &ctx->q->m);
    } else {
        const hemi_running old = *r;
        *r = (hemi_running){w->u0, w->u1.q};
        w->u0 = old.e;
        w->u1.q = old.c1;
    }
}

/* The group's sums over the babies, and their sum over the giants, in Horner form. */
static void sum_group(const hemi_linear *linear, const keyring *keys, hemi_workspace *w, size_t group, hemi_running *r,
                      hemi_team *team) {
    const hemi_context *ctx = linear->ctx;
    const hemi_kernels *k = ctx->k;
    const uint32_t n = ctx->n, giants = linear->layout.group[group].giants;
    dot_job job = {linear, w, group};
    hemi_team_run(team, n / linear->block, dot_step, &job);
    if (linear->layout.direct) {
        memcpy(r->e.q, w->sum0, n * sizeof(uint64_t));
        memcpy(r->c1, w->sum1, n * sizeof(uint64_t));
        return;
    }
    memset(r->e.p, 0, n * sizeof(uint64_t));
    for (uint32_t c = giants; c-- > 0;) {
        const uint64_t *s0 = w->sum0 + c * w->sum_stride, *s1 = w->sum1 + c * w->sum_stride;
        if (c + 1 == giants) {
            memcpy(r->e.q, s0, n * sizeof(uint64_t));
            memcpy(r->c1, s1, n * sizeof(uint64_t));
            continue;
        }
        rotate(ctx, keys->giant, w, r, false);
        k->add(r->e.q, r->e.q, s0, n, &ctx->q->m);
        k->add(r->c1, r->c1, s1, n, &ctx->q->m);
    }
}

/* The second group, shifted half way between the outputs of the first, joins it: with M = X^offset times it, and sigma the
 * last trace step of the first group, sigma(X^offset) = -X^offset, so that (1 + sigma)(A) + X^offset (1 + sigma)(B) =
 * (A + M) + sigma(A - M). The steps that remain are those of both. */
static void join_groups(const hemi_linear *linear, const keyring *keys, hemi_workspace *w, unsigned last) {
    const hemi_context *ctx = linear->ctx;
    const hemi_kernels *k = ctx->k;
    const uint32_t n = ctx->n;
    hemi_running *a = &w->first, *b = &w->second;
    struct {
        uint64_t *a, *b;
        const uint64_t *monomial;
        const hemi_modulus *m;
    } part[] = {{a->e.q, b->e.q, linear->monomial_q, &ctx->q->m},
                {a->e.p, b->e.p, linear->monomial_p, &ctx->special->m},
                {a->c1, b->c1, linear->monomial_q, &ctx->q->m}};
    for (size_t i = 0; i < 3; i++) {
        uint64_t *tmp = w->digit;
        k->mul_fixed(tmp, part[i].b, part[i].monomial, n, part[i].m);
        k->sub(part[i].b, part[i].a, tmp, n, part[i].m);
        k->add(part[i].a, part[i].a, tmp, n, part[i].m);
    }
    rotate(ctx, keys->trace[last], w, b, false);
    k->add(a->e.q, a->e.q, b->e.q, n, &ctx->q->m);
    k->add(a->e.p, a->e.p, b->e.p, n, &ctx->special->m);
    k->add(a->c1, a->c1, b->c1, n, &ctx->q->m);
}

/* All products, giants and traces: the result in w->first, e over qP (direct: over q, undivided) and c1. Keeping c0 over qP
 * until the end saves two NTTs in every step, and its rounding errors. */
static void combine(const hemi_linear *linear, const keyring *keys, hemi_workspace *w, hemi_team *team) {
    const hemi_linear_layout *l = &linear->layout;
    unsigned steps = hemi_linear_trace_steps(l, 0);
    if (l->groups == 2) {
        sum_group(linear, keys, w, 1, &w->second, team);
        for (unsigned j = steps; j < hemi_linear_trace_steps(l, 1); j++)
            rotate(linear->ctx, keys->trace[j], w, &w->second, true);
    }
    sum_group(linear, keys, w, 0, &w->first, team);
    if (l->groups == 2) join_groups(linear, keys, w, --steps);
    for (unsigned j = 0; j < steps; j++) rotate(linear->ctx, keys->trace[j], w, &w->first, true);
}

static void load_input(const hemi_linear *linear, hemi_workspace *w, hemi_linear_input in) {
    const hemi_context *ctx = linear->ctx;
    const size_t n = ctx->n, count = hemi_linear_input_positions(&linear->layout, NULL);
    uint64_t *c0 = w->source, *c1 = c0 + n;
    hemi_unpack(w->digit, in.packed_b, count, in.b_bits);
    ctx->k->switch_up(w->digit, w->digit, count, in.b_bits, &ctx->q->m);
    memset(c0, 0, n * sizeof *c0);
    for (size_t i = 0; i < count; i++) c0[linear->input_positions[i]] = w->digit[i];
    ctx->k->ntt(c0, ctx->q);
    hemi_sample_uniform_vartime(c1, n, ctx->q->m.p, in.seed, HEMI_DOMAIN_CIPHERTEXT, 0);
    if (!linear->layout.direct) { /* 1/S first: the fresh error then comes back as it is; c0 is kept over qP, times P */
        ctx->k->mul_scalar(c0, c0, hemi_mod_mul(linear->scale, ctx->special_mod_q, &ctx->q->m), n, &ctx->q->m);
        ctx->k->mul_scalar(c1, c1, linear->scale, n, &ctx->q->m);
    }
    place_input(linear, w->left0, c0);
    place_input(linear, w->left1, c1);
}

/* Adds the zero product to the result and makes coefficients of it, c0 in e.q, c1 in c1. zero: NULL to leave it out. */
static void finish(const hemi_linear *linear, hemi_workspace *w, const hemi_evaluation_keys *zero,
                   hemi_stream *secret) {
    const hemi_context *ctx = linear->ctx;
    const hemi_kernels *k = ctx->k;
    const uint32_t n = ctx->n;
    hemi_running *r = &w->first;
    if (zero) {
        uint64_t *z0 = w->u0.q, *z1 = w->u1.q;
        hemi_zero_product(zero, z0, z1, secret);
        if (!linear->layout.direct) k->mul_scalar(z0, z0, ctx->special_mod_q, n, &ctx->q->m);
        k->add(r->e.q, r->e.q, z0, n, &ctx->q->m);
        k->add(r->c1, r->c1, z1, n, &ctx->q->m);
    }
    if (linear->layout.direct)
        k->intt(r->e.q, r->e.q, ctx->q);
    else
        hemi_divide_by_special_to_coefficients(ctx, r->e.q, r->e);
    k->intt(r->c1, r->c1, ctx->q);
}

static void store_output(const hemi_linear *linear, const hemi_evaluation_keys *keys, hemi_workspace *w, hemi_linear_output out,
                         bool zero, hemi_stream *secret) {
    const hemi_context *ctx = linear->ctx;
    const hemi_modulus *m = &ctx->q->m;
    const uint32_t outputs = linear->layout.outputs;
    uint64_t *b = w->digit, *r0 = w->first.e.q, *r1 = w->first.c1;
    for (uint32_t o = 0; o < outputs; o++) {
        const uint64_t v = r0[linear->output_positions[o]];
        b[o] = linear->bias ? hemi_mod_add(v, linear->bias[o], m) : v;
    }
    if (zero) {
        hemi_add_error(b, outputs, m, secret);
        hemi_add_error(r1, ctx->n, m, secret);
    }
    hemi_linear_reply_store(keys, linear->output_positions, outputs, b, r1, out, w->u0.q, w->source);
}

static void multiply(const hemi_linear *linear, const keyring *found, const hemi_evaluation_keys *keys, bool zero, hemi_workspace *w,
                     hemi_linear_input in, hemi_linear_output out, hemi_team *team) {
    const hemi_linear_layout *l = &linear->layout;
    hemi_stream secret;
    if (zero) hemi_stream_init_fresh(&secret);
    load_input(linear, w, in);
    for (uint32_t b0 = 0; b0 < l->babies / 2; b0++) babies_of(linear, found, w, b0);
    combine(linear, found, w, team);
    finish(linear, w, zero ? keys : NULL, &secret);
    store_output(linear, keys, w, out, zero, &secret);
    if (zero) hemi_stream_wipe(&secret);
}

static hemi_status run(const hemi_linear *linear, const hemi_evaluation_keys *keys, bool zero, hemi_linear_input in,
                       hemi_linear_output out, hemi_team *team, hemi_error *err) {
    keyring found;
    HEMI_TRY(find_keys(&found, linear, keys, err));
    HEMI_TRY(hemi_linear_reply_check(&linear->layout, keys, out, err));
    hemi_workspace *w = hemi_workspace_take(linear);
    if (!w) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix product");
    multiply(linear, &found, keys, zero, w, in, out, team);
    hemi_workspace_give(linear, w);
    return HEMI_OK;
}

hemi_status hemi_linear_multiply(const hemi_linear *linear, const hemi_evaluation_keys *keys, hemi_linear_input in,
                                 hemi_linear_output out, hemi_team *team, hemi_error *err) {
    return run(linear, keys, true, in, out, team, err);
}

hemi_status hemi_linear_multiply_bare(const hemi_linear *linear, const hemi_evaluation_keys *keys, hemi_linear_input in,
                                      hemi_linear_output out, hemi_team *team, hemi_error *err) {
    return run(linear, keys, false, in, out, team, err);
}
