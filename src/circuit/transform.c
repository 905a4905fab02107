#include "circuit/transform.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "ckks/encoder.h"
#include "circuit/diagonals.h"

#define BLOCK     256
#define DOT_BYTES 6

void hemi_transform_clear(hemi_transform *t) {
    hemi_free(t->plaintexts);
    *t = (hemi_transform){0};
}

/* ---- plaintexts */

/* The weight from number `column` to number `row`; 0 where the map has no entry. */
static double weight(const hemi_sparse *map, uint32_t row, uint32_t column) {
    if (!map->column) return (double)map->weight[(size_t)row * map->columns + column];
    uint64_t from = map->start[row], to = map->start[row + 1];
    while (from < to) {
        const uint64_t middle = from + (to - from) / 2;
        if (map->column[middle] < column)
            from = middle + 1;
        else
            to = middle;
    }
    return from < map->start[row + 1] && map->column[from] == column ? (double)map->weight[from] : 0;
}

typedef struct making {
    hemi_transform *t;
    const hemi_sparse *map;
    size_t source, target;
    double factor;
    double *numbers; /* for each worker: slots of a plaintext, and as much scratch */
    int64_t *coefficients;
    uint64_t *residues;
    atomic_bool failed;
} making;

/* D_(giant + baby), rotated back by giant: at virtual slot v, the weight from what slot v + baby holds to what slot v - giant does. */
static void fill(double *z, const making *x, uint32_t out, int32_t giant, uint32_t in, int32_t baby, bool is_diagonal) {
    const hemi_circuit_plan *plan = x->t->plan;
    const hemi_value_plan *source = &plan->value[x->source], *target = &plan->value[x->target];
    const uint32_t mask = plan->slots - 1;
    for (uint32_t v = 0; v < plan->slots; v++) {
        const uint32_t place = hemi_circuit_content(plan, x->source, in, (v + (uint32_t)baby) & mask);
        const uint32_t p = out * target->period + (((v - (uint32_t)giant) & mask) & (target->period - 1));
        const uint32_t from = place == HEMI_CIRCUIT_NO_PLACE ? place : source->element[place], to = target->element[p];
        const bool there = is_diagonal && from != HEMI_CIRCUIT_NO_PLACE && to != HEMI_CIRCUIT_NO_PLACE;
        const double value = there ? x->factor * weight(x->map, to, from) : 0;
        for (uint32_t r = 0; r < plan->rows; r++) z[(size_t)v * plan->rows + r] = value;
    }
}

static bool is_diagonal(const hemi_circuit_diagonals *d, int32_t by) {
    size_t from = 0, to = d->count;
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        if (d->diagonal[middle] < by)
            from = middle + 1;
        else
            to = middle;
    }
    return from < d->count && d->diagonal[from] == by;
}

static size_t terms(const hemi_transform *t) { return t->in_blocks * t->d->babies; }

/* Where the plaintext is, at the first coefficient of block `block` of a limb. */
static size_t offset(const hemi_transform *t, size_t out, size_t limb, size_t block, size_t giant, size_t term) {
    const size_t blocks = t->ctx->n / t->block;
    return ((((out * t->limbs + limb) * blocks + block) * t->d->giants + giant) * terms(t) + term) * t->block * DOT_BYTES;
}

static void make_step(void *context, size_t index, size_t worker) {
    making *x = context;
    const hemi_transform *t = x->t;
    const hemi_ckks_context *ctx = t->ctx;
    const size_t n = ctx->n, term = index % terms(t), giant = index / terms(t) % t->d->giants, out = index / terms(t) / t->d->giants;
    const size_t in = term / t->d->babies, baby = term % t->d->babies;
    double *z = x->numbers + 2 * worker * n;
    int64_t *c = x->coefficients + worker * n;
    uint64_t *r = x->residues + worker * n;
    const int32_t by = t->d->giant[giant] + t->d->baby[baby];
    fill(z, x, (uint32_t)out, t->d->giant[giant], (uint32_t)in, t->d->baby[baby], is_diagonal(t->d, by));
    if (!hemi_ckks_embed(c, ctx->encoder, t->scale, z, NULL, z + n)) atomic_store(&x->failed, true);
    for (uint32_t i = 0; i < t->limbs; i++) {
        const hemi_limb *l = hemi_ckks_limb(ctx, i);
        hemi_ckks_residues(r, c, l, ctx->k);
        for (size_t b = 0; b < n / t->block; b++)
            ctx->k->dot_right(t->plaintexts + offset(t, out, i, b, giant, term), r + b * t->block, t->block, &l->m);
    }
}

hemi_status hemi_transform_make(hemi_transform *t, const hemi_ckks_context *ctx, const hemi_circuit_plan *plan, const hemi_circuit_diagonals *d,
                                const hemi_sparse *map, size_t source, size_t target, double factor, uint32_t limbs, double scale,
                                hemi_team *team, hemi_error *err) {
    const size_t n = ctx->n, workers = (size_t)hemi_team_size(team);
    *t = (hemi_transform){.ctx = ctx, .plan = plan, .d = d, .limbs = limbs, .in_blocks = plan->value[source].blocks,
                          .out_blocks = plan->value[target].blocks, .block = n < BLOCK ? (uint32_t)n : BLOCK, .scale = scale};
    if (terms(t) > HEMI_TRANSFORM_TERMS_MAX)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "a map takes %zu rotations of its input: at most %d", terms(t), HEMI_TRANSFORM_TERMS_MAX);
    const size_t count = t->out_blocks * d->giants * terms(t);
    t->bytes = count * limbs * n * DOT_BYTES;
    t->plaintexts = hemi_alloc_large(t->bytes, 1);
    making x = {.t = t, .map = map, .source = source, .target = target, .factor = factor,
                .numbers = hemi_alloc(2 * workers * n, sizeof(double)),
                .coefficients = hemi_alloc(workers * n, sizeof(int64_t)),
                .residues = hemi_alloc(workers * n, sizeof(uint64_t))};
    const bool memory = t->plaintexts && x.numbers && x.coefficients && x.residues;
    if (memory) hemi_team_run(team, count, make_step, &x);
    hemi_free(x.numbers);
    hemi_free(x.coefficients);
    hemi_free(x.residues);
    if (memory && !x.failed) return HEMI_OK;
    hemi_transform_clear(t);
    return memory ? hemi_fail(err, HEMI_ERR_FORMAT, "a weight is too large, or not a number")
                  : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu plaintexts", count);
}

hemi_status hemi_slots_encode(uint64_t *pt, const hemi_ckks_context *ctx, const hemi_circuit_plan *plan, size_t target, uint32_t block,
                              const double *values, uint32_t limbs, double scale, hemi_error *err) {
    const hemi_value_plan *p = &plan->value[target];
    const size_t n = ctx->n;
    double *z = hemi_alloc(2 * n, sizeof *z);
    int64_t *c = hemi_alloc(n, sizeof *c);
    hemi_status s = z && c ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory to encode numbers");
    for (size_t i = 0; s == HEMI_OK && i < ctx->slots; i++) {
        const uint32_t e = p->element[block * p->period + (i / plan->rows) % p->period];
        z[i] = e == HEMI_CIRCUIT_NO_PLACE ? 0 : values[e];
    }
    if (s == HEMI_OK && !hemi_ckks_embed(c, ctx->encoder, scale, z, NULL, z + n))
        s = hemi_fail(err, HEMI_ERR_FORMAT, "a bias is too large, or not a number");
    for (uint32_t i = 0; s == HEMI_OK && i < limbs; i++) hemi_ckks_residues(pt + i * n, c, hemi_ckks_limb(ctx, i), ctx->k);
    hemi_free(z);
    hemi_free(c);
    return s;
}

/* ---- products */

typedef struct application {
    const hemi_transform *t;
    hemi_ckks_cipher *node; /* of one source ciphertext */
    uint64_t *left0, *left1; /* limb, term, coefficient */
    uint64_t *sum0, *sum1;   /* giant, limb, coefficient */
    size_t in, out;
} application;

/* The rotations of a source ciphertext, node by node; those that follow from the same one share its digits. */
static hemi_status rotate(const application *x, hemi_ckks_workspace *w, const hemi_ckks_keys *keys, const hemi_ckks_cipher *in, hemi_error *err) {
    const hemi_transform *t = x->t;
    const hemi_rotation_tree *tree = &t->d->tree;
    hemi_ckks_cipher child[64];
    uint32_t automorphism[64];
    const hemi_ckks_cipher whole = {.limbs = t->limbs, .scale = in->scale, .c0 = in->c0, .c1 = in->c1};
    for (size_t i = 0; i < tree->count; i++) {
        size_t count = 0;
        for (size_t j = i + 1; j < tree->count; j++) {
            if (tree->parent[j] != i) continue;
            child[count] = x->node[j];
            automorphism[count++] = hemi_ckks_rotation(t->ctx, (int64_t)hemi_rotation_edge(tree, j) * t->plan->rows);
            if (count < 64 && j + 1 < tree->count) continue;
            HEMI_TRY(hemi_ckks_automorphisms(w, child, i == 0 ? &whole : &x->node[i], automorphism, count, keys, err));
            count = 0;
        }
        if (count > 0) HEMI_TRY(hemi_ckks_automorphisms(w, child, i == 0 ? &whole : &x->node[i], automorphism, count, keys, err));
    }
    return HEMI_OK;
}

static void left_step(void *context, size_t limb, size_t worker) {
    const application *x = context;
    const hemi_transform *t = x->t;
    const size_t n = t->ctx->n;
    const hemi_modulus *m = &hemi_ckks_limb(t->ctx, (uint32_t)limb)->m;
    (void)worker;
    for (size_t b = 0; b < t->d->babies; b++) {
        const hemi_ckks_cipher *c = &x->node[t->d->node[b]];
        const size_t at = (limb * terms(t) + x->in * t->d->babies + b) * n;
        t->ctx->k->dot_left(x->left0 + at, c->c0 + limb * n, n, m);
        t->ctx->k->dot_left(x->left1 + at, c->c1 + limb * n, n, m);
    }
}

static void sum_step(void *context, size_t index, size_t worker) {
    const application *x = context;
    const hemi_transform *t = x->t;
    const size_t n = t->ctx->n, blocks = n / t->block, limb = index / blocks, block = index % blocks, at = block * t->block;
    const size_t left = limb * terms(t) * n + at, sum = limb * n + at;
    (void)worker;
    t->ctx->k->dot2(x->sum0 + sum, x->sum1 + sum, t->limbs * n, t->d->giants, x->left0 + left, x->left1 + left, n,
                    t->plaintexts + offset(t, x->out, limb, block, 0, 0), terms(t), t->block, &hemi_ckks_limb(t->ctx, (uint32_t)limb)->m);
}

/* Horner: from the largest giant down, rotated by the difference to the next. */
static hemi_status gather(const application *x, hemi_ckks_workspace *w, const hemi_ckks_keys *keys, hemi_ckks_cipher *r, double scale, hemi_error *err) {
    const hemi_transform *t = x->t;
    const size_t words = t->limbs * (size_t)t->ctx->n;
    for (size_t g = 0; g < t->d->giants; g++) {
        const hemi_ckks_cipher sum = {.limbs = t->limbs, .scale = scale, .c0 = x->sum0 + g * words, .c1 = x->sum1 + g * words};
        if (g == 0) {
            memcpy(r->c0, sum.c0, words * sizeof *r->c0);
            memcpy(r->c1, sum.c1, words * sizeof *r->c1);
            r->limbs = t->limbs;
            r->scale = scale;
        } else {
            hemi_ckks_add(w, r, r, &sum);
        }
        int32_t steps[32];
        const size_t count = hemi_diagonals_giant_steps(steps, t->d, g);
        for (size_t i = 0; i < count; i++)
            HEMI_TRY(hemi_ckks_automorphism(w, r, r, hemi_ckks_rotation(t->ctx, (int64_t)steps[i] * t->plan->rows), keys, err));
    }
    return HEMI_OK;
}

static hemi_status apply(application *x, hemi_ckks_workspace *w, hemi_team *team, const hemi_ckks_keys *keys, const hemi_ckks_cipher *in,
                         hemi_ckks_cipher *r, hemi_error *err) {
    const hemi_transform *t = x->t;
    for (x->in = 0; x->in < t->in_blocks; x->in++) {
        x->node[0] = in[x->in];
        HEMI_TRY(rotate(x, w, keys, &in[x->in], err));
        hemi_team_run(team, t->limbs, left_step, x);
    }
    for (x->out = 0; x->out < t->out_blocks; x->out++) {
        hemi_team_run(team, t->limbs * (size_t)(t->ctx->n / t->block), sum_step, x);
        HEMI_TRY(gather(x, w, keys, &r[x->out], in->scale * t->scale, err));
    }
    return HEMI_OK;
}

hemi_status hemi_transform_apply(const hemi_transform *t, hemi_ckks_workspace *w, hemi_team *team, const hemi_ckks_keys *keys,
                                 const hemi_ckks_cipher *in, hemi_ckks_cipher *r, hemi_error *err) {
    const size_t words = t->limbs * (size_t)t->ctx->n, nodes = t->d->tree.count;
    application x = {.t = t};
    uint64_t *memory = hemi_ckks_lend(w, (2 * (nodes - 1) + 2 * terms(t) + 2 * t->d->giants) * words), *at = memory;
    x.node = hemi_alloc(nodes, sizeof *x.node);
    hemi_status s = memory && x.node ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rotations", nodes);
    if (s == HEMI_OK) {
        for (size_t i = 1; i < nodes; i++, at += 2 * words) x.node[i] = (hemi_ckks_cipher){.limbs = t->limbs, .c0 = at, .c1 = at + words};
        x.left0 = at;
        x.left1 = at += terms(t) * words;
        x.sum0 = at += terms(t) * words;
        x.sum1 = at + t->d->giants * words;
        s = apply(&x, w, team, keys, in, r, err);
    }
    hemi_ckks_give_back(w, memory);
    hemi_free(x.node);
    return s;
}

hemi_status hemi_transform_fold(const hemi_transform *t, hemi_ckks_workspace *w, const hemi_ckks_keys *keys, hemi_ckks_cipher *r, hemi_error *err) {
    hemi_ckks_cipher turned;
    if (t->d->folds == 0) return HEMI_OK;
    HEMI_TRY(hemi_ckks_cipher_lend(&turned, w, r->limbs, err));
    hemi_status s = HEMI_OK;
    for (size_t i = 0; i < t->d->folds && s == HEMI_OK; i++) {
        s = hemi_ckks_automorphism(w, &turned, r, hemi_ckks_rotation(t->ctx, (int64_t)t->d->fold[i] * t->plan->rows), keys, err);
        if (s == HEMI_OK) hemi_ckks_add(w, r, r, &turned);
    }
    hemi_ckks_cipher_give_back(&turned, w);
    return s;
}
