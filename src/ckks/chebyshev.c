#include "ckks/chebyshev.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "ckks/workspace.h"

#define BABIES_LOG2_MAX 5
#define SPLITS_MAX      8 /* the degree falls below a power of two each time */

/* w NULL: only counts. */
typedef struct evaluation {
    hemi_ckks_workspace *w;
    const hemi_ckks_keys *keys;
    uint32_t limbs;      /* of u */
    uint32_t direct_max; /* degrees up to this are sums of constants times powers, where levels allow it */
    uint32_t products;   /* relinearisations */
    bool made[HEMI_CKKS_DEGREE_MAX + 1];
    hemi_ckks_cipher power[HEMI_CKKS_DEGREE_MAX + 1]; /* T_i(u); power[1] is u itself */
} evaluation;

static uint32_t ceil_log2(uint32_t x) { return x <= 1 ? 0 : 32u - (uint32_t)__builtin_clz(x - 1); }
static uint32_t floor_power(uint32_t x) { return UINT32_C(1) << (31 - __builtin_clz(x)); }

uint32_t hemi_ckks_chebyshev_levels(uint32_t degree) { return ceil_log2(degree + 1); }

static double prime_value(const evaluation *e, uint32_t limb) { return (double)hemi_ckks_limb(e->w->ctx, limb)->m.p; }

/* T_i: 2 T_(i/2)^2 - 1, or 2 T_a T_b - T_(a-b) with a the largest power of two below i. It has limbs - ceil(log2 i) limbs. */
static hemi_status make_power(evaluation *e, uint32_t i, hemi_error *err) {
    if (e->made[i]) return HEMI_OK;
    const uint32_t a = i == floor_power(i) ? i / 2 : floor_power(i), b = i - a;
    HEMI_TRY(make_power(e, a, err));
    HEMI_TRY(make_power(e, b, err));
    if (a != b) HEMI_TRY(make_power(e, a - b, err));
    e->made[i] = true;
    e->products++;
    if (!e->w) return HEMI_OK;
    hemi_ckks_cipher *r = &e->power[i];
    const hemi_ckks_cipher *ta = &e->power[a], *tb = &e->power[b], *td = &e->power[a - b];
    hemi_ckks_sum sum = hemi_ckks_sum_begin(e->w, ta->limbs < tb->limbs ? ta->limbs : tb->limbs, ta->scale * tb->scale);
    HEMI_TRY(hemi_ckks_cipher_lend(r, e->w, sum.limbs, err));
    hemi_ckks_sum_product(&sum, ta, tb, true);
    if (a != b) hemi_ckks_sum_multiple(&sum, td, -1);
    HEMI_TRY(hemi_ckks_sum_end(&sum, r, e->keys, err));
    if (a == b) hemi_ckks_add_constant(e->w, r, -1);
    return HEMI_OK;
}

/* p = q T_g + r: q_0 = p_g, q_i = 2 p_(g+i); r_(g-i) = p_(g-i) - p_(g+i). */
static void split(const double *p, uint32_t degree, uint32_t g, double *q, double *r) {
    memcpy(r, p, g * sizeof *r);
    q[0] = p[g];
    for (uint32_t i = 1; g + i <= degree; i++) {
        q[i] = 2 * p[g + i];
        r[g - i] -= p[g + i];
    }
}

static uint32_t trimmed(const double *c, uint32_t degree) {
    while (degree > 0 && c[degree] == 0) degree--;
    return degree;
}

static bool is_direct(const evaluation *e, const double *c, uint32_t degree, uint32_t limbs) {
    if (degree > e->direct_max) return false;
    uint32_t depth = 0;
    for (uint32_t i = 1; i <= degree; i++)
        if (c[i] != 0 && ceil_log2(i) > depth) depth = ceil_log2(i);
    return e->limbs - depth >= limbs + 1;
}

/* What a polynomial is the sum of: quotients times powers g, and multiples of powers. */
typedef struct terms {
    size_t count;
    uint32_t g[SPLITS_MAX];
    hemi_ckks_cipher q[SPLITS_MAX];
    double multiple[HEMI_CKKS_DEGREE_MAX + 1];
} terms;

static hemi_status evaluate(evaluation *e, hemi_ckks_cipher *r, const double *c, uint32_t degree, uint32_t limbs, double scale, hemi_error *err);

/* Quotients at limbs + 1, so that they times T_g have sum_scale. A quotient that is a constant is no product of ciphertexts. */
static hemi_status find_terms(evaluation *e, terms *t, const double *c, uint32_t degree, uint32_t limbs, double sum_scale, hemi_error *err) {
    memcpy(t->multiple, c, (degree + 1) * sizeof *c);
    while (!is_direct(e, t->multiple, degree, limbs)) {
        double p[HEMI_CKKS_DEGREE_MAX + 1], q[HEMI_CKKS_DEGREE_MAX + 1] = {0};
        const uint32_t g = floor_power(degree), q_degree = degree - g;
        memcpy(p, t->multiple, (degree + 1) * sizeof *p);
        memset(t->multiple + g, 0, (degree + 1 - g) * sizeof *p);
        split(p, degree, g, q, t->multiple);
        HEMI_TRY(make_power(e, g, err));
        if (q_degree > 0) {
            hemi_ckks_cipher *to = &t->q[t->count];
            t->g[t->count++] = g;
            if (e->w) HEMI_TRY(hemi_ckks_cipher_lend(to, e->w, e->limbs, err));
            HEMI_TRY(evaluate(e, to, q, q_degree, limbs + 1, e->w ? sum_scale / e->power[g].scale : 0, err));
        }
        degree = trimmed(t->multiple, g - 1);
        if (q_degree == 0) t->multiple[g] = q[0];
    }
    for (uint32_t i = 1; i <= degree; i++)
        if (t->multiple[i] != 0) HEMI_TRY(make_power(e, i, err));
    return HEMI_OK;
}

static hemi_status add_terms(evaluation *e, hemi_ckks_cipher *r, const terms *t, uint32_t limbs, double scale, double sum_scale, hemi_error *err) {
    hemi_ckks_sum sum = hemi_ckks_sum_begin(e->w, limbs + 1, sum_scale);
    for (size_t i = 0; i < t->count; i++) hemi_ckks_sum_product(&sum, &t->q[i], &e->power[t->g[i]], false);
    for (uint32_t i = 1; i <= HEMI_CKKS_DEGREE_MAX; i++)
        if (t->multiple[i] != 0) hemi_ckks_sum_multiple(&sum, &e->power[i], t->multiple[i]);
    HEMI_TRY(hemi_ckks_sum_end(&sum, r, e->keys, err));
    r->scale = scale; /* up to the rounding of a double */
    hemi_ckks_add_constant(e->w, r, t->multiple[0]);
    return HEMI_OK;
}

/* One relinearisation and one rescaling. */
static hemi_status evaluate(evaluation *e, hemi_ckks_cipher *r, const double *c, uint32_t degree, uint32_t limbs, double scale, hemi_error *err) {
    const double sum_scale = e->w ? scale * prime_value(e, limbs) : 0;
    terms t = {0};
    hemi_status s = find_terms(e, &t, c, degree, limbs, sum_scale, err);
    if (t.count > 0) e->products++;
    if (s == HEMI_OK && e->w) s = add_terms(e, r, &t, limbs, scale, sum_scale, err);
    for (size_t i = 0; i < t.count; i++) hemi_ckks_cipher_give_back(&t.q[i], e->w);
    return s;
}

/* The number of babies with the fewest products. */
static uint32_t choose(const double *c, uint32_t degree, uint32_t levels, uint32_t *products) {
    uint32_t best = 0;
    *products = UINT32_MAX;
    for (uint32_t b = 0; b <= BABIES_LOG2_MAX; b++) {
        evaluation e = {.limbs = levels + 1, .direct_max = (1u << b) - 1 > 0 ? (1u << b) - 1 : 1};
        e.made[0] = e.made[1] = true;
        if (evaluate(&e, NULL, c, degree, 1, 0, NULL) == HEMI_OK && e.products < *products) {
            *products = e.products;
            best = e.direct_max;
        }
    }
    return best;
}

uint32_t hemi_ckks_chebyshev_products(const double *c, uint32_t degree) {
    uint32_t products;
    degree = trimmed(c, degree);
    (void)choose(c, degree, degree == 0 ? 1 : hemi_ckks_chebyshev_levels(degree), &products);
    return products;
}

/* ---- noise: the same course, with variances in place of ciphertexts, errors taken as independent */

typedef struct noise {
    evaluation *e;
    double u, rescaling;
    double power[HEMI_CKKS_DEGREE_MAX + 1];
} noise;

static double value(double u, const double *c, uint32_t degree) {
    double sum = 0;
    for (uint32_t i = 0; i <= degree; i++) sum += c[i] * cos(i * acos(u));
    return sum;
}

static double square(double x) { return x * x; }

static double power_noise(noise *x, uint32_t i) {
    if (x->e->made[i]) return x->power[i];
    const uint32_t a = i == floor_power(i) ? i / 2 : floor_power(i), b = i - a;
    const double t = acos(x->u), va = power_noise(x, a), vb = power_noise(x, b), vd = a == b ? 0 : power_noise(x, a - b);
    x->e->made[i] = true;
    x->power[i] = x->rescaling + (a == b ? 16 * square(cos(a * t)) * va : 4 * (square(cos(a * t)) * vb + square(cos(b * t)) * va) + vd);
    return x->power[i];
}

static double sum_noise(noise *x, const double *c, uint32_t degree, uint32_t limbs) {
    double p[HEMI_CKKS_DEGREE_MAX + 1] = {0}, sum = x->rescaling;
    memcpy(p, c, (degree + 1) * sizeof *p);
    while (!is_direct(x->e, p, degree, limbs)) {
        double q[HEMI_CKKS_DEGREE_MAX + 1] = {0}, rest[HEMI_CKKS_DEGREE_MAX + 1] = {0};
        const uint32_t g = floor_power(degree);
        split(p, degree, g, q, rest);
        sum += square(value(x->u, q, degree - g)) * power_noise(x, g);
        if (degree > g) sum += square(cos(g * acos(x->u))) * sum_noise(x, q, degree - g, limbs + 1);
        degree = trimmed(rest, g - 1);
        memcpy(p, rest, (degree + 1) * sizeof *p);
    }
    for (uint32_t i = 1; i <= degree; i++)
        if (p[i] != 0) sum += square(p[i]) * power_noise(x, i);
    return sum;
}

double hemi_ckks_chebyshev_noise(const double *c, uint32_t degree, uint32_t levels, double u, double rescaling) {
    uint32_t products;
    degree = trimmed(c, degree);
    evaluation e = {.limbs = levels + 1, .direct_max = choose(c, degree, levels, &products)};
    noise x = {.e = &e, .u = u, .rescaling = rescaling};
    e.made[0] = e.made[1] = true;
    return sum_noise(&x, c, degree, 1);
}

/* ---- evaluation */

hemi_status hemi_ckks_chebyshev(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *u, const double *c, uint32_t degree,
                                uint32_t limbs, double scale, const hemi_ckks_keys *keys, hemi_error *err) {
    if (degree > HEMI_CKKS_DEGREE_MAX) return hemi_fail(err, HEMI_ERR_ARGUMENT, "a polynomial of degree %u: at most %d", degree, HEMI_CKKS_DEGREE_MAX);
    degree = trimmed(c, degree);
    const uint32_t levels = degree == 0 ? 1 : hemi_ckks_chebyshev_levels(degree);
    if (limbs == 0 || u->limbs < limbs + levels)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "degree %u takes %u levels, from %u limbs to %u", degree, levels, u->limbs, limbs);
    uint32_t products;
    evaluation e = {.w = w, .keys = keys, .limbs = u->limbs};
    e.direct_max = choose(c, degree, u->limbs - limbs, &products);
    e.products = 0;
    e.made[0] = e.made[1] = true;
    e.power[1] = *u;
    const hemi_status s = evaluate(&e, r, c, degree, limbs, scale, err);
    for (uint32_t i = 2; i <= degree; i++) hemi_ckks_cipher_give_back(&e.power[i], w);
    return s;
}
