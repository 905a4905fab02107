#include "circuit/program.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "ckks/chebyshev.h"
#include "circuit/transform.h"

#define IDLE_MAX 4

/* sum of maps + bias: over `limbs` limbs, and of `scale`, when it has been rescaled. */
typedef struct affine {
    size_t terms;
    uint32_t *source;
    hemi_transform *transform;
    uint32_t blocks, limbs;
    double scale;
    uint64_t *bias; /* of each block: limbs polynomials; NULL: none */
    size_t bias_bytes;
} affine;

typedef struct step {
    hemi_circuit_kind kind;
    affine a, b;
    uint32_t degree;
    double *coefficient; /* of slots, by norm */
    uint32_t last_use;   /* the last value that reads this one */
} step;

struct hemi_circuit_program {
    const hemi_ckks_context *ctx;
    const hemi_circuit_plan *plan;
    size_t values;
    step *step;
    /* Workspaces of computations that are done: what they hold is used again. */
    pthread_mutex_t lock;
    hemi_ckks_workspace *idle[IDLE_MAX];
    atomic_size_t working_bytes; /* the most that an evaluation took; 0: there was none */
};

/* ---- making */

static void affine_clear(affine *a) {
    for (size_t i = 0; a->transform && i < a->terms; i++) hemi_transform_clear(&a->transform[i]);
    hemi_free(a->transform);
    hemi_free(a->source);
    hemi_free(a->bias);
}

void hemi_circuit_program_free(hemi_circuit_program *p) {
    if (!p) return;
    for (size_t i = 0; p->step && i < p->values; i++) {
        affine_clear(&p->step[i].a);
        affine_clear(&p->step[i].b);
        hemi_free(p->step[i].coefficient);
    }
    for (size_t i = 0; i < IDLE_MAX; i++) hemi_ckks_workspace_free(p->idle[i]);
    (void)pthread_mutex_destroy(&p->lock);
    hemi_free(p->step);
    hemi_free(p);
}

size_t hemi_circuit_program_bytes(const hemi_circuit_program *p) {
    size_t bytes = sizeof *p + p->values * sizeof *p->step;
    for (size_t i = 0; i < p->values; i++)
        for (size_t half = 0; half < 2; half++) {
            const affine *a = half ? &p->step[i].b : &p->step[i].a;
            bytes += a->bias_bytes;
            for (size_t j = 0; j < a->terms; j++) bytes += a->transform[j].bytes;
        }
    return bytes;
}

/* (bias - middle) / norm at all places of value i. */
static hemi_status make_bias(affine *a, const hemi_circuit_program *p, const hemi_circuit_affine *map, size_t i, uint32_t size, double middle,
                             double norm, hemi_error *err) {
    const size_t n = p->ctx->n;
    if (!map->bias && middle == 0) return HEMI_OK;
    double *numbers = hemi_alloc(size, sizeof *numbers);
    a->bias_bytes = a->blocks * (size_t)a->limbs * n * sizeof *a->bias;
    a->bias = hemi_alloc(a->bias_bytes, 1);
    hemi_status s = numbers && a->bias ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a bias");
    for (uint32_t e = 0; s == HEMI_OK && e < size; e++) numbers[e] = ((map->bias ? map->bias[e] : 0) - middle) / norm;
    for (uint32_t b = 0; s == HEMI_OK && b < a->blocks; b++)
        s = hemi_slots_encode(a->bias + b * (size_t)a->limbs * n, p->ctx, p->plan, i, b, numbers, a->limbs, a->scale, err);
    hemi_free(numbers);
    return s;
}

/* The map of value i, (sum - middle) / norm, at a scale. */
static hemi_status make_affine(affine *a, const hemi_circuit_program *p, const hemi_circuit_affine *map, const hemi_circuit_diagonals *d, size_t i,
                               uint32_t size, double middle, double norm, double scale, hemi_team *team, hemi_error *err) {
    const hemi_value_plan *v = &p->plan->value[i];
    const uint32_t limbs = v->limbs + v->levels; /* after rescaling */
    *a = (affine){.terms = map->terms, .blocks = v->blocks, .limbs = limbs, .scale = scale};
    a->source = hemi_alloc(map->terms, sizeof *a->source);
    a->transform = hemi_alloc(map->terms, sizeof *a->transform);
    if (!a->source || !a->transform) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a map");
    const double prime = (double)hemi_ckks_limb(p->ctx, limbs)->m.p;
    for (size_t j = 0; j < map->terms; j++) {
        const hemi_value_plan *from = &p->plan->value[map->term[j].source];
        a->source[j] = map->term[j].source;
        HEMI_TRY(hemi_transform_make(&a->transform[j], p->ctx, p->plan, &d[j], &map->term[j].map, map->term[j].source, i, from->norm / norm,
                                     limbs + 1, scale * prime / from->scale, team, err));
    }
    return make_bias(a, p, map, i, size, middle, norm, err);
}

static hemi_status make_step(hemi_circuit_program *p, const hemi_circuit *c, size_t i, hemi_team *team, hemi_error *err) {
    const hemi_circuit_value *v = &c->value[i];
    const hemi_value_plan *plan = &p->plan->value[i];
    const double scale = ldexp(1, (int)p->plan->params->scale_bits);
    step *s = &p->step[i];
    s->kind = v->kind;
    if (v->kind == HEMI_CIRCUIT_AFFINE)
        return make_affine(&s->a, p, &v->a, plan->a, i, v->size, 0, plan->norm, plan->scale, team, err);
    if (v->kind == HEMI_CIRCUIT_PRODUCT) { /* the scale of the product, rescaled, is the value's */
        const double other = plan->scale * (double)hemi_ckks_limb(p->ctx, plan->limbs)->m.p / scale;
        HEMI_TRY(make_affine(&s->a, p, &v->a, plan->a, i, v->size, 0, v->a_high, scale, team, err));
        return make_affine(&s->b, p, &v->b, plan->b, i, v->size, 0, plan->norm / v->a_high, other, team, err);
    }
    const hemi_circuit_polynomial *f = &v->polynomial;
    s->degree = f->degree;
    s->coefficient = hemi_alloc(f->degree + 1, sizeof *s->coefficient);
    if (!s->coefficient) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a polynomial");
    for (uint32_t j = 0; j <= f->degree; j++) s->coefficient[j] = f->coefficient[j] / plan->norm;
    return make_affine(&s->a, p, &v->a, plan->a, i, v->size, f->middle, f->radius, scale, team, err);
}

static void set_last_uses(hemi_circuit_program *p) {
    for (size_t i = 0; i < p->values; i++) {
        for (size_t j = 0; j < p->step[i].a.terms; j++) p->step[p->step[i].a.source[j]].last_use = (uint32_t)i;
        for (size_t j = 0; j < p->step[i].b.terms; j++) p->step[p->step[i].b.source[j]].last_use = (uint32_t)i;
    }
}

hemi_status hemi_circuit_program_new(hemi_circuit_program **out, const hemi_circuit *c, const hemi_circuit_plan *plan, hemi_team *team,
                                     hemi_progress_fn progress, void *progress_context, hemi_error *err) {
    hemi_circuit_program *p = hemi_alloc(1, sizeof *p);
    *out = NULL;
    if (p) {
        (void)pthread_mutex_init(&p->lock, NULL);
        p->step = hemi_alloc(c->values, sizeof *p->step);
    }
    hemi_status s = p && p->step ? hemi_ckks_context_shared(&p->ctx, plan->params, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a circuit");
    if (s == HEMI_OK) p->plan = plan, p->values = c->values;
    for (size_t i = 1; s == HEMI_OK && i < c->values; i++) {
        if (progress) progress(progress_context, "plaintexts", i - 1, c->values - 1);
        s = make_step(p, c, i, team, err);
    }
    if (s != HEMI_OK) {
        hemi_circuit_program_free(p);
        return s;
    }
    if (progress) progress(progress_context, "plaintexts", c->values - 1, c->values - 1);
    set_last_uses(p);
    *out = p;
    return HEMI_OK;
}

/* ---- computing */

typedef struct run {
    const hemi_circuit_program *p;
    const hemi_ckks_keys *keys;
    hemi_ckks_workspace *w;
    hemi_team *team;
    hemi_ckks_cipher **value; /* blocks of each that is there; value[0] is the caller's */
} run;

static void clear_blocks(const run *x, hemi_ckks_cipher *c, uint32_t blocks) {
    for (uint32_t i = 0; c && i < blocks; i++) hemi_ckks_cipher_give_back(&c[i], x->w);
    hemi_free(c);
}

static hemi_status new_blocks(hemi_ckks_cipher **out, const run *x, uint32_t blocks, uint32_t limbs, hemi_error *err) {
    *out = hemi_alloc(blocks, sizeof **out);
    if (!*out) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u ciphertexts", blocks);
    for (uint32_t i = 0; i < blocks; i++) {
        const hemi_status s = hemi_ckks_cipher_lend(&(*out)[i], x->w, limbs, err);
        if (s == HEMI_OK) continue;
        clear_blocks(x, *out, blocks);
        *out = NULL;
        return s;
    }
    return HEMI_OK;
}

/* One map's part of r, rescaled and folded; r has room for limbs + 1. */
static hemi_status add_term(const run *x, const affine *a, size_t j, hemi_ckks_cipher *r, hemi_error *err) {
    const hemi_transform *t = &a->transform[j];
    HEMI_TRY(hemi_transform_apply(t, x->w, x->team, x->keys, x->value[a->source[j]], r, err));
    for (uint32_t b = 0; b < a->blocks; b++) {
        HEMI_TRY(hemi_transform_fold(t, x->w, x->keys, &r[b], err));
        hemi_ckks_rescale(x->w, &r[b], &r[b]);
    }
    return HEMI_OK;
}

static hemi_status apply_affine(const run *x, const affine *a, hemi_ckks_cipher **out, hemi_error *err) {
    hemi_ckks_cipher *more = NULL;
    hemi_status s = new_blocks(out, x, a->blocks, a->limbs + 1, err);
    if (s == HEMI_OK && a->terms > 1) s = new_blocks(&more, x, a->blocks, a->limbs + 1, err);
    for (size_t j = 0; s == HEMI_OK && j < a->terms; j++) {
        s = add_term(x, a, j, j == 0 ? *out : more, err);
        for (uint32_t b = 0; s == HEMI_OK && j > 0 && b < a->blocks; b++) hemi_ckks_add(x->w, &(*out)[b], &(*out)[b], &more[b]);
    }
    for (uint32_t b = 0; s == HEMI_OK && b < a->blocks; b++) {
        (*out)[b].scale = a->scale; /* up to the rounding of doubles */
        if (a->bias) hemi_ckks_add_plain(x->w, &(*out)[b], a->bias + b * (size_t)a->limbs * x->p->ctx->n);
    }
    clear_blocks(x, more, a->blocks);
    if (s == HEMI_OK) return s;
    clear_blocks(x, *out, a->blocks);
    *out = NULL;
    return s;
}

/* Polynomials take an argument's ciphertexts one by one. */
static hemi_status apply_function(const run *x, const step *st, const hemi_value_plan *v, hemi_ckks_cipher **out, hemi_error *err) {
    hemi_ckks_cipher *u = NULL;
    HEMI_TRY(apply_affine(x, &st->a, &u, err));
    hemi_status s = new_blocks(out, x, v->blocks, v->limbs + v->levels, err);
    for (uint32_t b = 0; s == HEMI_OK && b < v->blocks; b++)
        s = hemi_ckks_chebyshev(x->w, &(*out)[b], &u[b], st->coefficient, st->degree, v->limbs, v->scale, x->keys, err);
    clear_blocks(x, u, v->blocks);
    return s;
}

static hemi_status apply_product(const run *x, const step *st, const hemi_value_plan *v, hemi_ckks_cipher **out, hemi_error *err) {
    hemi_ckks_cipher *other = NULL;
    HEMI_TRY(apply_affine(x, &st->a, out, err));
    hemi_status s = apply_affine(x, &st->b, &other, err);
    for (uint32_t b = 0; s == HEMI_OK && b < v->blocks; b++) {
        hemi_ckks_cipher *r = &(*out)[b];
        s = hemi_ckks_mul_rescale(x->w, r, r, &other[b], x->keys, err);
        r->scale = v->scale;
    }
    clear_blocks(x, other, v->blocks);
    return s;
}

static hemi_status compute(run *x, size_t i, hemi_error *err) {
    const step *st = &x->p->step[i];
    const hemi_value_plan *v = &x->p->plan->value[i];
    if (st->kind == HEMI_CIRCUIT_FUNCTION) return apply_function(x, st, v, &x->value[i], err);
    if (st->kind == HEMI_CIRCUIT_PRODUCT) return apply_product(x, st, v, &x->value[i], err);
    return apply_affine(x, &st->a, &x->value[i], err);
}

static void drop_unread(run *x, size_t done) {
    for (size_t i = 1; i < done; i++)
        if (x->value[i] && x->p->step[i].last_use <= done) {
            clear_blocks(x, x->value[i], x->p->plan->value[i].blocks);
            x->value[i] = NULL;
        }
}

/* Swaps the last value into the caller's ciphertexts. */
static void hand_over(run *x, hemi_ckks_cipher *output) {
    const size_t last = x->p->values - 1, bytes = x->p->ctx->n * sizeof *output->c0;
    for (uint32_t b = 0; b < x->p->plan->value[last].blocks; b++) {
        const hemi_ckks_cipher *from = &x->value[last][b];
        memcpy(output[b].c0, from->c0, bytes);
        memcpy(output[b].c1, from->c1, bytes);
        output[b].limbs = 1;
        output[b].scale = from->scale;
    }
}

static hemi_status take_workspace(hemi_ckks_workspace **out, const hemi_circuit_program *p, hemi_team *team, hemi_error *err) {
    hemi_circuit_program *guarded = (hemi_circuit_program *)(uintptr_t)p; /* what is behind the lock may change */
    *out = NULL;
    pthread_mutex_lock(&guarded->lock);
    for (size_t i = 0; i < IDLE_MAX && !*out; i++)
        if (p->idle[i] && hemi_ckks_workspace_workers(p->idle[i]) >= (size_t)hemi_team_size(team)) {
            *out = p->idle[i];
            guarded->idle[i] = NULL;
        }
    pthread_mutex_unlock(&guarded->lock);
    if (!*out) return hemi_ckks_workspace_new(out, p->ctx, p->plan->limbs, team, err);
    hemi_ckks_workspace_use(*out, team);
    return HEMI_OK;
}

static void keep_workspace(const hemi_circuit_program *p, hemi_ckks_workspace *w) {
    hemi_circuit_program *guarded = (hemi_circuit_program *)(uintptr_t)p;
    const size_t taken = hemi_ckks_workspace_bytes(w);
    pthread_mutex_lock(&guarded->lock);
    if (taken > atomic_load_explicit(&p->working_bytes, memory_order_relaxed)) atomic_store_explicit(&guarded->working_bytes, taken, memory_order_relaxed);
    for (size_t i = 0; i < IDLE_MAX && w; i++)
        if (!p->idle[i]) {
            guarded->idle[i] = w;
            w = NULL;
        }
    pthread_mutex_unlock(&guarded->lock);
    hemi_ckks_workspace_free(w);
}

size_t hemi_circuit_program_working_bytes(const hemi_circuit_program *p) {
    const size_t seen = atomic_load_explicit(&p->working_bytes, memory_order_relaxed), limb = 2 * p->ctx->n * sizeof(uint64_t);
    size_t estimate = 4 * p->plan->limbs * limb;
    if (seen) return seen;
    for (size_t i = 1; i < p->values; i++) { /* its ciphertexts, and about as many again while it is made */
        const hemi_value_plan *v = &p->plan->value[i];
        estimate += 2 * (size_t)v->blocks * (v->limbs + v->levels + 1) * limb;
    }
    return estimate;
}

hemi_status hemi_circuit_evaluate(const hemi_circuit_program *p, const hemi_ckks_keys *keys, const hemi_ckks_cipher *input, hemi_ckks_cipher *output,
                                  hemi_team *team, hemi_progress_fn progress, void *progress_context, hemi_error *err) {
    run x = {.p = p, .keys = keys, .team = team};
    if (keys->limbs < p->plan->limbs)
        return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys are for %u limbs, the module takes %u", keys->limbs, p->plan->limbs);
    HEMI_TRY(take_workspace(&x.w, p, team, err));
    x.value = hemi_alloc(p->values, sizeof *x.value);
    hemi_status s = x.value ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a circuit's values");
    if (x.value) x.value[0] = (hemi_ckks_cipher *)(uintptr_t)input; /* only read */
    for (size_t i = 1; s == HEMI_OK && i < p->values; i++) {
        if (progress) progress(progress_context, "values", i - 1, p->values - 1);
        s = compute(&x, i, err);
        if (s == HEMI_OK && hemi_team_is_stopped(team)) s = hemi_fail(err, HEMI_ERR_NETWORK, "given up: nobody waits for the result");
        if (s == HEMI_OK && i + 1 < p->values) drop_unread(&x, i);
    }
    if (s == HEMI_OK) hand_over(&x, output);
    for (size_t i = 1; x.value && i < p->values; i++)
        if (x.value[i]) clear_blocks(&x, x.value[i], p->plan->value[i].blocks);
    hemi_free(x.value);
    keep_workspace(p, x.w);
    return s;
}
