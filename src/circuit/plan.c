#include "circuit/plan.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "ckks/chebyshev.h"
#include "circuit/calibrate.h"
#include "circuit/diagonals.h"

#define OUTPUT_HEADROOM_BITS 5    /* of outputs beyond the calibrated range, before they wrap around q_0 */
#define ROWS_MEMORY          1.25 /* the same of memory for plaintexts, */
#define ROWS_MEMORY_FREE     0x1p28 /* beyond so many bytes */
#define PLAINTEXT_BYTES      6 /* of a coefficient */
#define ROWS_COST            1.5 /* what one row may cost more for the sake of several in a ciphertext */
#define SEARCH_WEIGHTS       (UINT64_C(1) << 25) /* maps beyond this are not looked at again and again */
#define NORM_POINTS          1024
#define PLAINTEXT_COST       0.35 /* of a product with a plaintext, both components, in transforms */

static uint32_t power_from(uint32_t x) { return x <= 1 ? 1 : UINT32_C(1) << (32 - __builtin_clz(x - 1)); }

void hemi_circuit_plan_free(hemi_circuit_plan *plan) {
    if (!plan) return;
    for (size_t i = 0; i < plan->values; i++) {
        hemi_value_plan *v = &plan->value[i];
        hemi_free(v->place);
        hemi_free(v->element);
        for (size_t half = 0; half < 2; half++) {
            hemi_circuit_diagonals *d = half ? v->b : v->a;
            for (size_t j = 0; d && j < (half ? v->b_terms : v->a_terms); j++) hemi_diagonals_clear(&d[j]);
            hemi_free(d);
        }
    }
    hemi_free(plan->value);
    hemi_free(plan->skew);
    hemi_free(plan->automorphism);
    hemi_free(plan);
}

uint32_t hemi_circuit_content(const hemi_circuit_plan *plan, size_t value, uint32_t block, uint32_t v) {
    const hemi_value_plan *p = &plan->value[value];
    const uint32_t place = hemi_circuit_place(p->period, value == 0 ? plan->copies : 1, plan->stride, plan->skew, v);
    return place == HEMI_CIRCUIT_NO_PLACE ? place : block * p->period + place;
}

/* ---- levels */

static uint32_t levels_of(const hemi_circuit_value *v) {
    if (v->kind == HEMI_CIRCUIT_PRODUCT) return 1;
    if (v->kind != HEMI_CIRCUIT_FUNCTION) return 0;
    return v->polynomial.degree == 0 ? 1 : hemi_ckks_chebyshev_levels(v->polynomial.degree);
}

static void need(uint32_t *limbs, const hemi_circuit_affine *a, uint32_t at) {
    for (size_t i = 0; i < a->terms; i++)
        if (limbs[a->term[i].source] < at) limbs[a->term[i].source] = at;
}

/* From the output, which has one limb, backwards: an affine map takes a level, and then a function its own. Returns the input's limbs. */
static uint32_t set_limbs(uint32_t limbs[HEMI_CIRCUIT_VALUES_MAX], const hemi_circuit *c) {
    memset(limbs, 0, HEMI_CIRCUIT_VALUES_MAX * sizeof *limbs);
    limbs[c->values - 1] = 1;
    for (size_t i = c->values - 1; i > 0; i--) {
        if (limbs[i] == 0) limbs[i] = 1; /* nobody reads it */
        const uint32_t at = limbs[i] + levels_of(&c->value[i]) + 1;
        need(limbs, &c->value[i].a, at);
        need(limbs, &c->value[i].b, at);
    }
    return limbs[0] == 0 ? 1 : limbs[0];
}

uint32_t hemi_circuit_levels(const hemi_circuit *circuit) {
    uint32_t limbs[HEMI_CIRCUIT_VALUES_MAX];
    return set_limbs(limbs, circuit) - 1;
}

/* The first value that a module of `chain` limbs could begin after. */
static hemi_status too_deep(const hemi_circuit *c, const hemi_params *params, hemi_error *err) {
    uint32_t limbs[HEMI_CIRCUIT_VALUES_MAX];
    const uint32_t needed = set_limbs(limbs, c) - 1;
    size_t cut = c->values - 1;
    while (cut > 1 && limbs[cut - 1] <= params->chain) cut--;
    const size_t first = cut < c->values - 1 ? cut : c->values - 1;
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                     "the module takes %u levels, set %s has %u: cut it into two remote modules, the second one from what follows %s on (it takes %u "
                     "levels); or raise the tolerance, so that activations take polynomials of lower degree",
                     needed, params->name, params->chain - 1, c->value[first].name, limbs[first] - 1);
}

static hemi_status too_many_rows(const hemi_circuit *c, const hemi_circuit_choice *choice, hemi_error *err) {
    size_t widest = 0;
    for (size_t i = 1; i < c->values; i++)
        if (c->value[i].size > c->value[widest].size) widest = i;
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "a ciphertext of set %s has %u slots: no room for %u rows, of which each has %u numbers at %s",
                     choice->params->name, UINT32_C(1) << (choice->params->log2_n - 1), choice->rows, c->value[widest].size, c->value[widest].name);
}

/* ---- layouts */

static void natural_strides(uint32_t *stride, const hemi_circuit_value *v) {
    uint32_t step = 1;
    for (size_t i = v->rank; i-- > 0; step *= v->dims[i]) stride[i] = step;
}

static uint64_t span(const uint32_t *stride, const hemi_circuit_value *v) {
    uint64_t last = 0;
    for (size_t i = 0; i < v->rank; i++) last += (uint64_t)(v->dims[i] - 1) * stride[i];
    return last + 1;
}

/* The source's strides, times how many times it is larger, channels (the first dimension) as they are. False where numbers would meet. */
static bool inherited_strides(uint32_t *stride, const hemi_circuit_value *v, const hemi_circuit_value *source, const hemi_value_plan *sp) {
    if (v->rank < 2 || source->rank != v->rank) return false;
    uint64_t inner = 0;
    for (size_t i = v->rank; i-- > 1;) {
        const uint32_t times = (source->dims[i] + v->dims[i] / 2) / v->dims[i];
        stride[i] = sp->stride[i] * (times > 0 ? times : 1);
        if (stride[i] <= inner) return false;
        inner += (uint64_t)(v->dims[i] - 1) * stride[i];
    }
    stride[0] = sp->stride[0];
    return stride[0] > inner;
}

static hemi_status set_places(hemi_value_plan *p, const hemi_circuit_value *v, bool natural, uint32_t slots, const hemi_circuit_plan *plan,
                              hemi_error *err) {
    const uint64_t places = natural ? v->size : span(p->stride, v);
    if (places > slots && !natural) return HEMI_ERR_UNSUPPORTED;
    p->period = places > slots ? slots : power_from((uint32_t)places);
    p->blocks = (uint32_t)((places + p->period - 1) / p->period);
    if (p->blocks > HEMI_CIRCUIT_BLOCKS_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s has %u numbers, %u ciphertexts of set %s: at most %d. Cut the module there, or choose a smaller one",
                         v->name, v->size, p->blocks, plan->params->name, HEMI_CIRCUIT_BLOCKS_MAX);
    const size_t all = (size_t)p->blocks * p->period;
    hemi_free(p->element);
    hemi_free(p->place);
    p->place = natural ? NULL : hemi_alloc(v->size, sizeof *p->place);
    p->element = hemi_alloc(all, sizeof *p->element);
    if (!p->element || (!natural && !p->place)) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a plan");
    memset(p->element, 0xff, all * sizeof *p->element);
    for (uint32_t e = 0; e < v->size; e++) {
        uint32_t place = natural ? e : 0, rest = e;
        for (size_t i = v->rank; !natural && i-- > 0; rest /= v->dims[i]) place += rest % v->dims[i] * p->stride[i];
        if (!natural) p->place[e] = place;
        p->element[place] = e;
    }
    return HEMI_OK;
}

/* ---- costs */

static double switch_cost(const hemi_params *p, uint32_t limbs) {
    const double l = limbs, k = p->specials, digits = hemi_ckks_digits(p, limbs);
    return 1.2 * digits * (l + k) + 2 * (l + k);
}

static double affine_cost(const hemi_circuit_plan *plan, const hemi_circuit_affine *a, const hemi_circuit_diagonals *d, uint32_t blocks, uint32_t limbs) {
    double cost = 0;
    for (size_t i = 0; i < a->terms; i++) {
        const uint32_t from = plan->value[a->term[i].source].blocks;
        int32_t steps[32];
        size_t giants = 0;
        for (size_t g = 0; g < d[i].giants; g++) giants += hemi_diagonals_giant_steps(steps, &d[i], g);
        cost += switch_cost(plan->params, limbs) * ((double)(d[i].tree.count - 1) * from + (double)giants * blocks);
        cost += PLAINTEXT_COST * limbs * (double)d[i].count * from * blocks;
        cost += blocks * (2.0 * limbs + (double)d[i].folds * switch_cost(plan->params, limbs > 1 ? limbs - 1 : 1));
    }
    return cost;
}

static double value_cost(const hemi_circuit_plan *plan, const hemi_circuit_value *v, const hemi_value_plan *p) {
    const uint32_t at = p->limbs + p->levels + 1;
    double cost = affine_cost(plan, &v->a, p->a, p->blocks, at) + affine_cost(plan, &v->b, p->b, p->blocks, at);
    const double products = v->kind == HEMI_CIRCUIT_FUNCTION  ? hemi_ckks_chebyshev_products(v->polynomial.coefficient, v->polynomial.degree)
                            : v->kind == HEMI_CIRCUIT_PRODUCT ? 1
                                                              : 0;
    return cost + p->blocks * products * (switch_cost(plan->params, p->limbs + p->levels / 2 + 1) + 2.0 * p->limbs);
}

/* ---- values */

static hemi_status map_all(hemi_circuit_diagonals **out, size_t *terms, hemi_circuit_plan *plan, const hemi_circuit_affine *a, const hemi_value_plan *p,
                           hemi_error *err) {
    if (*out)
        for (size_t i = 0; i < *terms; i++) hemi_diagonals_clear(&(*out)[i]);
    hemi_free(*out);
    *terms = a->terms;
    *out = hemi_alloc(a->terms, sizeof **out);
    if (!*out) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a plan");
    for (size_t i = 0; i < a->terms; i++)
        HEMI_TRY(hemi_diagonals_make(&(*out)[i], plan, &a->term[i].map, &plan->value[a->term[i].source], p,
                                     a->term[i].source == 0 ? plan->copies : 1, err));
    return HEMI_OK;
}

static hemi_status lay_out(hemi_circuit_plan *plan, const hemi_circuit *c, size_t i, uint32_t layout, hemi_error *err) {
    const hemi_circuit_value *v = &c->value[i];
    hemi_value_plan *p = &plan->value[i];
    p->layout = layout;
    if (layout == 0) natural_strides(p->stride, v);
    if (layout > 0 && (layout > i || !inherited_strides(p->stride, v, &c->value[layout - 1], &plan->value[layout - 1]))) return HEMI_ERR_UNSUPPORTED;
    HEMI_TRY(set_places(p, v, layout == 0, plan->slots, plan, err));
    HEMI_TRY(map_all(&p->a, &p->a_terms, plan, &v->a, p, err));
    return map_all(&p->b, &p->b_terms, plan, &v->b, p, err);
}

/* The output keeps its order; others take a source's strides where that costs less. */
static hemi_status choose_layout(hemi_circuit_plan *plan, const hemi_circuit *c, size_t i, hemi_error *err) {
    const hemi_circuit_value *v = &c->value[i];
    uint32_t best = 0;
    HEMI_TRY(lay_out(plan, c, i, 0, err));
    if (i + 1 == c->values || i == 0) return HEMI_OK;
    double cost = value_cost(plan, v, &plan->value[i]);
    uint32_t last = 0;
    for (size_t half = 0; half < 2; half++) {
        const hemi_circuit_affine *a = half ? &v->b : &v->a;
        for (size_t j = 0; j < a->terms; j++) {
            const uint32_t layout = a->term[j].source + 1;
            last = layout;
            if (lay_out(plan, c, i, layout, NULL) != HEMI_OK || value_cost(plan, v, &plan->value[i]) >= cost) continue;
            cost = value_cost(plan, v, &plan->value[i]);
            best = layout;
        }
    }
    return best == last ? HEMI_OK : lay_out(plan, c, i, best, err);
}

/* The next 2^(k/8), k an integer. By a table, so that every machine finds the same. */
static double coarse(double x) {
    static const double half_eighths[8] = {0.5, 0.54525386633262884, 0.59460355750136051, 0.64841977732550480,
                                           0.70710678118654757, 0.77110541270397037, 0.84089641525371450, 0.91700404320467120};
    int exponent;
    const double mantissa = frexp(x, &exponent);
    for (size_t k = 0; k < 8; k++)
        if (mantissa <= half_eighths[k]) return ldexp(half_eighths[k], exponent);
    return ldexp(1, exponent);
}

/* The largest number there is, so that slots are in [-1, 1]: of a function, of its polynomial. is_public: clients are told, and what they are told of the
 * calibration data and the outputs is coarse. */
static void set_norm(hemi_value_plan *p, const hemi_circuit_value *v, bool is_public) {
    double largest = fmax(fabs(v->low), fabs(v->high));
    if (v->kind == HEMI_CIRCUIT_FUNCTION) {
        const hemi_circuit_polynomial *f = &v->polynomial;
        largest = 0;
        for (int i = 0; i <= NORM_POINTS; i++)
            largest = fmax(largest, fabs(hemi_chebyshev_value(f->coefficient, f->degree, 2.0 * i / NORM_POINTS - 1)));
    }
    p->norm = !(largest > 0 && isfinite(largest)) ? 1 : is_public ? coarse(largest) : largest;
}

static hemi_status set_value(hemi_circuit_plan *plan, const hemi_circuit *c, size_t i, const hemi_circuit_choice *choice, hemi_error *err) {
    const bool last = i + 1 == c->values;
    const int q_bits = 64 - __builtin_clzll(plan->params->q);
    hemi_value_plan *p = &plan->value[i];
    p->scale = ldexp(1, last ? q_bits - 2 - OUTPUT_HEADROOM_BITS : (int)plan->params->scale_bits);
    p->levels = levels_of(&c->value[i]);
    set_norm(p, &c->value[i], i == 0 || last);
    const hemi_status s = choice->layout ? lay_out(plan, c, i, choice->layout[i], err) : choose_layout(plan, c, i, err);
    if (s != HEMI_OK) return s;
    plan->cost += value_cost(plan, &c->value[i], p);
    return HEMI_OK;
}

/* ---- automorphisms */

static hemi_status add_automorphism(hemi_circuit_plan *plan, const hemi_ckks_context *ctx, int64_t by, hemi_error *err) {
    const uint32_t t = by == 0 ? HEMI_CIRCUIT_KEY_PRODUCT : hemi_ckks_rotation(ctx, by * plan->rows);
    size_t at = 0;
    while (at < plan->automorphisms && plan->automorphism[at] < t) at++;
    if (at < plan->automorphisms && plan->automorphism[at] == t) return HEMI_OK;
    if (plan->automorphisms == HEMI_CIRCUIT_AUTOMORPHISMS_MAX)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the module takes more than %d different rotations: cut it into smaller ones",
                         HEMI_CIRCUIT_AUTOMORPHISMS_MAX);
    memmove(plan->automorphism + at + 1, plan->automorphism + at, (plan->automorphisms - at) * sizeof *plan->automorphism);
    plan->automorphism[at] = t;
    plan->automorphisms++;
    return HEMI_OK;
}

static hemi_status add_map(hemi_circuit_plan *plan, const hemi_ckks_context *ctx, const hemi_circuit_diagonals *d, hemi_error *err) {
    int32_t steps[32];
    for (size_t i = 1; i < d->tree.count; i++) HEMI_TRY(add_automorphism(plan, ctx, hemi_rotation_edge(&d->tree, i), err));
    for (size_t g = 0; g < d->giants; g++) {
        const size_t count = hemi_diagonals_giant_steps(steps, d, g);
        for (size_t i = 0; i < count; i++) HEMI_TRY(add_automorphism(plan, ctx, steps[i], err));
    }
    for (size_t i = 0; i < d->folds; i++) HEMI_TRY(add_automorphism(plan, ctx, d->fold[i], err));
    return HEMI_OK;
}

static hemi_status set_automorphisms(hemi_circuit_plan *plan, const hemi_circuit *c, hemi_error *err) {
    const hemi_ckks_context *ctx;
    HEMI_TRY(hemi_ckks_context_shared(&ctx, plan->params, err));
    plan->automorphism = hemi_alloc(HEMI_CIRCUIT_AUTOMORPHISMS_MAX, sizeof *plan->automorphism);
    if (!plan->automorphism) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a plan");
    for (size_t i = 1; i < plan->values; i++) {
        const hemi_value_plan *p = &plan->value[i];
        const bool multiplies = c->value[i].kind == HEMI_CIRCUIT_PRODUCT ||
                                (c->value[i].kind == HEMI_CIRCUIT_FUNCTION && c->value[i].polynomial.degree > 1);
        if (multiplies) HEMI_TRY(add_automorphism(plan, ctx, 0, err));
        for (size_t j = 0; j < p->a_terms; j++) HEMI_TRY(add_map(plan, ctx, &p->a[j], err));
        for (size_t j = 0; j < p->b_terms; j++) HEMI_TRY(add_map(plan, ctx, &p->b[j], err));
    }
    return HEMI_OK;
}

/* ---- plans */

static hemi_status build(hemi_circuit_plan **out, const hemi_circuit *c, const hemi_circuit_choice *choice, hemi_error *err) {
    uint32_t limbs[HEMI_CIRCUIT_VALUES_MAX];
    hemi_status s = HEMI_OK;
    *out = NULL;
    hemi_circuit_plan *plan = hemi_alloc(1, sizeof *plan);
    if (plan) {
        plan->value = hemi_alloc(c->values, sizeof *plan->value);
        plan->skew = hemi_alloc(choice->copies, sizeof *plan->skew);
    }
    if (!plan || !plan->value || !plan->skew) {
        hemi_circuit_plan_free(plan);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a plan");
    }
    plan->params = choice->params;
    plan->rows = choice->rows;
    plan->copies = choice->copies;
    plan->slots = (UINT32_C(1) << (choice->params->log2_n - 1)) / choice->rows;
    plan->values = c->values;
    plan->limbs = set_limbs(limbs, c);
    if (plan->limbs > choice->params->chain) s = too_deep(c, choice->params, err);
    for (size_t i = 0; i < c->values && s == HEMI_OK; i++) {
        plan->value[i].limbs = i == 0 ? plan->limbs : limbs[i];
        s = set_value(plan, c, i, choice, err);
        if (s == HEMI_OK && choice->rows > 1 && plan->value[i].blocks > 1) s = too_many_rows(c, choice, err);
    }
    if (s != HEMI_OK) {
        hemi_circuit_plan_free(plan);
        return s;
    }
    *out = plan;
    return HEMI_OK;
}

static uint64_t weights_of(const hemi_circuit *c) {
    uint64_t sum = 0;
    for (size_t i = 0; i < c->values; i++) {
        for (size_t j = 0; j < c->value[i].a.terms; j++) sum += hemi_sparse_count(&c->value[i].a.term[j].map);
        for (size_t j = 0; j < c->value[i].b.terms; j++) sum += hemi_sparse_count(&c->value[i].b.term[j].map);
    }
    return sum;
}

/* Whether the input is read by one map alone: then it may be laid out for that one. */
static bool input_is_read_once(const hemi_circuit *c) {
    size_t readers = 0;
    for (size_t i = 1; i < c->values; i++) {
        for (size_t j = 0; j < c->value[i].a.terms; j++) readers += c->value[i].a.term[j].source == 0;
        for (size_t j = 0; j < c->value[i].b.terms; j++) readers += c->value[i].b.term[j].source == 0;
    }
    return readers == 1;
}

/* The best number of copies, for a number of rows. Replaces *best by what is cheaper than `below`. */
static hemi_status try_copies(hemi_circuit_plan **best, const hemi_circuit *c, hemi_circuit_choice choice, double below, hemi_error *err) {
    const bool search = input_is_read_once(c) && weights_of(c) <= SEARCH_WEIGHTS;
    const uint32_t slots = (UINT32_C(1) << (choice.params->log2_n - 1)) / choice.rows;
    const uint32_t given = choice.copies, most = given ? given : search && slots > c->value[0].size ? HEMI_CIRCUIT_COPIES_MAX : 1;
    for (choice.copies = given ? given : 1; choice.copies <= most && choice.copies <= slots; choice.copies *= 2) {
        hemi_circuit_plan *plan;
        const hemi_status s = build(&plan, c, &choice, choice.copies == 1 || given ? err : NULL);
        if (s != HEMI_OK && (choice.copies == 1 || given)) return s;
        if (s == HEMI_ERR_MEMORY) return hemi_fail(err, s, "no memory to lay out a circuit"); /* and not a plan that is worse than it need be */
        if (s != HEMI_OK) continue;
        if (plan->cost < below) {
            hemi_circuit_plan_free(*best);
            *best = plan;
            below = plan->cost;
        } else {
            hemi_circuit_plan_free(plan);
        }
    }
    return HEMI_OK;
}

/* Memory for plaintexts, about. */
static double plaintext_bytes(const hemi_circuit_plan *plan, const hemi_circuit *c) {
    double bytes = 0;
    for (size_t i = 1; i < c->values; i++) {
        const hemi_value_plan *p = &plan->value[i];
        for (size_t half = 0; half < 2; half++) {
            const hemi_circuit_affine *a = half ? &c->value[i].b : &c->value[i].a;
            const hemi_circuit_diagonals *d = half ? p->b : p->a;
            for (size_t j = 0; j < a->terms; j++)
                bytes += (double)d[j].babies * (double)d[j].giants * p->blocks * plan->value[a->term[j].source].blocks * (p->limbs + p->levels + 1);
        }
    }
    return bytes * ldexp(PLAINTEXT_BYTES, (int)plan->params->log2_n);
}

/* As many rows in a ciphertext as one row pays no more for than ROWS_COST in time, nor, where that counts, ROWS_MEMORY. */
static hemi_status try_rows(hemi_circuit_plan **best, const hemi_circuit *c, hemi_circuit_choice choice, hemi_error *err) {
    const uint32_t given = choice.rows;
    choice.rows = given ? given : 1;
    if (given > UINT32_C(1) << (choice.params->log2_n - 1)) return too_many_rows(c, &choice, err);
    HEMI_TRY(try_copies(best, c, choice, INFINITY, err));
    if (given || weights_of(c) > SEARCH_WEIGHTS) return HEMI_OK;
    const double single = (*best)->cost, memory = plaintext_bytes(*best, c);
    uint32_t largest = 1;
    for (size_t i = 0; i < c->values; i++)
        if ((*best)->value[i].period * (*best)->value[i].blocks > largest) largest = (*best)->value[i].period * (*best)->value[i].blocks;
    const uint32_t slots = UINT32_C(1) << (choice.params->log2_n - 1);
    for (choice.rows = slots > largest ? slots / largest : 1; choice.rows > 1; choice.rows /= 2) {
        hemi_circuit_plan *plan = NULL;
        const hemi_status s = try_copies(&plan, c, choice, single * ROWS_COST, NULL);
        if (s == HEMI_ERR_MEMORY) {
            hemi_circuit_plan_free(plan);
            return hemi_fail(err, s, "no memory to lay out a circuit");
        }
        if (s != HEMI_OK || !plan) continue;
        const double bytes = plaintext_bytes(plan, c);
        if (bytes > ROWS_MEMORY_FREE && bytes > ROWS_MEMORY * memory) {
            hemi_circuit_plan_free(plan);
            continue;
        }
        hemi_circuit_plan_free(*best);
        *best = plan;
        break;
    }
    return HEMI_OK;
}

hemi_status hemi_circuit_plan_make(hemi_circuit_plan **out, const hemi_circuit *c, const hemi_circuit_choice *choice, hemi_error *err) {
    *out = NULL;
    hemi_status s = HEMI_OK;
    const hemi_params *deepest = NULL;
    for (size_t i = 0; i < hemi_params_count(); i++) {
        hemi_circuit_choice with = *choice;
        hemi_circuit_plan *plan = NULL;
        with.params = hemi_params_at(i);
        if (with.params->chain == 0 || (choice->params && with.params != choice->params)) continue;
        if (!deepest || with.params->chain > deepest->chain) deepest = with.params;
        if (hemi_circuit_levels(c) + 1 > with.params->chain) continue;
        s = try_rows(&plan, c, with, err);
        if (s == HEMI_ERR_MEMORY) {
            hemi_circuit_plan_free(plan);
            hemi_circuit_plan_free(*out);
            *out = NULL;
            return s;
        }
        if (s != HEMI_OK) continue;
        /* transforms of twice the degree take a little more than twice the time */
        plan->cost *= ldexp(1, (int)with.params->log2_n - 12) * with.params->log2_n / 12;
        if (*out && (*out)->cost <= plan->cost) {
            hemi_circuit_plan_free(plan);
            continue;
        }
        hemi_circuit_plan_free(*out);
        *out = plan;
    }
    if (*out) return set_automorphisms(*out, c, err) == HEMI_OK ? HEMI_OK : (hemi_circuit_plan_free(*out), *out = NULL, err ? err->status : HEMI_ERR_MEMORY);
    if (s != HEMI_OK) return s;
    return deepest ? too_deep(c, deepest, err) : hemi_fail(err, HEMI_ERR_PARAMS, "set %s is not one for circuits", choice->params->name);
}

hemi_status hemi_circuit_plan_again(hemi_circuit_plan **out, const hemi_circuit *circuit, const hemi_circuit_plan *plan, hemi_error *err) {
    uint32_t layout[HEMI_CIRCUIT_VALUES_MAX];
    for (size_t i = 0; i < circuit->values; i++) layout[i] = plan->value[i].layout;
    const hemi_circuit_choice choice = {.params = plan->params, .rows = plan->rows, .copies = plan->copies, .layout = layout};
    return hemi_circuit_plan_make(out, circuit, &choice, err);
}
