/* The course of a multiplication: keys, memory, units in groups. */
#include "linear/product.h"

#include "base/error.h"
#include "base/memory.h"
#include "linear/multiplication.h"
#include "linear/reply.h"

static hemi_status find_keys(hemi_keyring *found, const hemi_linear *linear, const hemi_evaluation_keys *keys, hemi_error *err) {
    const hemi_linear_layout *l = &linear->layout;
    *found = (hemi_keyring){.giant = NULL};
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
    size_t per_unit, per_digit, per_worker;
} needs;

static needs needs_of(const hemi_linear *const *maps, size_t count) {
    needs d = {.n = maps[0]->ctx->n};
    for (size_t i = 0; i < count; i++) {
        const hemi_linear_layout *l = &maps[i]->layout;
        const bool precise = maps[i]->precise;
        const size_t s = (size_t)l->in_blocks * hemi_linear_sources(l), g = precise ? 2 * (size_t)l->in_blocks * l->params->baby_digits : s;
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
    d.per_digit = d.expanded ? HEMI_LINEAR_EXPAND_POLYNOMIALS * d.n : 2 * d.n;
    d.per_worker = d.per_digit + 4 * d.n;
    return d;
}

/* Lays out the memory for the units at work. */
static void carve(hemi_multiplication *x, const needs *d, size_t units, size_t workers) {
    uint64_t *at = x->workspace->storage;
    const size_t n = d->n;
    x->sum_stride = d->sum_stride;
    for (size_t i = 0; i < units; i++) {
        hemi_unit *u = &x->unit[i];
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
        hemi_scratch *s = &x->scratch[w];
        uint64_t **polynomial[] = {&s->u0.q, &s->u0.p, &s->u1.q, &s->u1.p};
        s->digit = take_words(&at, d->per_digit);
        for (size_t j = 0; j < 4; j++) *polynomial[j] = take_words(&at, n);
    }
    x->expanded = (uint8_t *)at;
}


bool hemi_linear_same_input(const hemi_linear_layout *a, const hemi_linear_layout *b) {
    return a->params == b->params && a->inputs == b->inputs && a->s == b->s && a->rows == b->rows && a->fan == b->fan &&
           a->tile_y == b->tile_y && a->tile_x == b->tile_x && a->pitch == b->pitch && a->taps_y == b->taps_y && a->taps_x == b->taps_x;
}

static bool same_babies(const hemi_linear_layout *a, const hemi_linear_layout *b) {
    return a->babies == b->babies && a->direct == b->direct;
}

static size_t units_together(const needs *d, size_t units) {
    size_t together = HEMI_LINEAR_WORKSPACE_BYTES / (d->per_unit * sizeof(uint64_t));
    together = together < 1 ? 1 : together > HEMI_LINEAR_UNITS_AT_ONCE ? HEMI_LINEAR_UNITS_AT_ONCE : together;
    return together < units ? together : units;
}

static size_t words_of(const needs *d, size_t together, size_t slots) {
    const size_t slot_words = (slots * sizeof(hemi_scratch) / sizeof(uint64_t) + 15) / 8 * 8;
    return together * d->per_unit + slots * d->per_worker + d->expanded + slot_words;
}

size_t hemi_linear_working_bytes(const hemi_linear *linear, size_t units, size_t workers) {
    const needs d = needs_of(&linear, 1);
    return words_of(&d, units_together(&d, units), workers < 2 ? 2 : workers) * sizeof(uint64_t);
}

static hemi_status run(hemi_multiplication *x, const hemi_linear *const *maps, const hemi_keyring *keys, size_t count, const hemi_linear_output *out,
                       size_t units, hemi_error *err) {
    const needs d = needs_of(maps, count);
    const size_t workers = (size_t)hemi_team_size(x->team), slots = workers < 2 ? 2 : workers;
    const size_t together = units_together(&d, units);
    x->workspace = hemi_workspace_take(words_of(&d, together, slots));
    if (!x->workspace) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix product");
    x->scratch = (hemi_scratch *)(void *)(x->workspace->storage + together * d.per_unit + slots * d.per_worker + d.expanded);
    carve(x, &d, together, slots);
    for (x->first = 0; x->first < units; x->first += x->units) {
        x->units = units - x->first < together ? units - x->first : together;
        for (size_t i = 0; i < count; i++) {
            x->map = maps[i];
            x->keys = keys[i];
            x->out = out[i];
            if (i == 0 || !same_babies(&maps[i]->layout, &maps[i - 1]->layout)) hemi_multiplication_prepare_input(x);
            hemi_multiplication_make_results(x);
        }
    }
    hemi_workspace_give(x->workspace);
    return HEMI_OK;
}

static hemi_status check_and_run(hemi_multiplication *x, const hemi_linear *const *maps, size_t count, const hemi_evaluation_keys *keys,
                                 const hemi_linear_output *out, size_t units, hemi_error *err) {
    hemi_keyring found[HEMI_LINEAR_MAPS_MAX];
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
    hemi_multiplication x = {.evaluation = keys, .fresh = true, .in = in, .team = team};
    return check_and_run(&x, maps, count, keys, out, units, err);
}

hemi_status hemi_linear_multiply_bare(const hemi_linear *const *maps, size_t count, const hemi_evaluation_keys *keys, hemi_linear_input in,
                                      const hemi_linear_output *out, size_t units, hemi_team *team, hemi_error *err) {
    hemi_multiplication x = {.evaluation = keys, .in = in, .team = team};
    return check_and_run(&x, maps, count, keys, out, units, err);
}
