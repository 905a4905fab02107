/* Variances of slots (the real part), from value to value:
 *   affine   sum over terms of mean_rows(sum w^2) (v + depth k), then, after folds at a scale that makes nothing of their key switches, r
 *   function mean(p'(u)^2) v + what the polynomial's own rescalings add
 *   product  mean(a^2) v_b + mean(b^2) v_a + k' + r
 * where r is a rescaling, k and k' are key switches. The noise of plaintexts' encoding, 1/12 a coefficient where a rescaling has (1 + 2N/3)/12, is
 * left out. */
#include "circuit/noise.h"

#include <math.h>

#include "circuit/calibrate.h"
#include "ckks/chebyshev.h"
#include "ckks/noise.h"

#define SPREAD 0.25 /* of numbers in [-1, 1] */
#define POINTS 64

static double square(double x) { return x * x; }

/* The mean over rows of the sum of squares of weights. */
static double mean_square(const hemi_sparse *map) {
    const uint64_t count = hemi_sparse_count(map);
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) sum += square((double)map->weight[i]);
    return sum / map->rows;
}

/* Rotations one after the other, on average, that a baby has been through. */
static double mean_depth(const hemi_circuit_diagonals *d) {
    double sum = 0;
    for (size_t b = 0; b < d->babies; b++)
        for (size_t node = d->node[b]; node > 0; node = d->tree.parent[node]) sum++;
    return sum / (double)d->babies;
}

/* (sum - middle) / norm over `limbs` limbs at a scale, by program.c: products with the source's rotations, giants, rescaling, folds. */
static double affine_noise(const hemi_circuit_plan *plan, const double *variance, const hemi_circuit_affine *a, const hemi_circuit_diagonals *d,
                           double norm, uint32_t limbs, double scale) {
    const hemi_params *p = plan->params;
    const double rescaling = hemi_ckks_noise_slots(p, hemi_ckks_noise_rescaling(p), scale);
    double sum = 0;
    for (size_t i = 0; i < a->terms; i++) {
        const hemi_value_plan *from = &plan->value[a->term[i].source];
        const double rotation = hemi_ckks_noise_slots(p, hemi_ckks_noise_keyswitch(p, limbs + 1), from->scale);
        const double factor = square(from->norm / norm) * mean_square(&a->term[i].map);
        sum += factor * (variance[a->term[i].source] + mean_depth(&d[i]) * rotation);
        sum += rescaling; /* rotations of giants and folds come before it, at a scale that makes nothing of them */
    }
    return sum;
}

/* The mean of p'(u)^2 and of the polynomial's own noise, both of p / norm. */
static double function_noise(const hemi_circuit_polynomial *f, double u_variance, double norm, uint32_t levels, double rescaling) {
    double sum = 0, weights = 0, c[HEMI_CIRCUIT_DEGREE_MAX + 1];
    for (uint32_t i = 0; i <= f->degree; i++) c[i] = f->coefficient[i] / norm;
    for (int i = 1; i < POINTS; i++) {
        const double u = 2.0 * i / POINTS - 1, step = 1e-4, weight = exp(-square(u / SPREAD) / 2);
        const double slope = (hemi_chebyshev_value(c, f->degree, u + step) - hemi_chebyshev_value(c, f->degree, u - step)) / (2 * step);
        sum += weight * (square(slope) * u_variance + hemi_ckks_chebyshev_noise(c, f->degree, levels, u, rescaling));
        weights += weight;
    }
    return sum / weights;
}

static double value_noise(const hemi_circuit *c, const hemi_circuit_plan *plan, const double *variance, size_t i) {
    const hemi_params *p = plan->params;
    const hemi_circuit_value *v = &c->value[i];
    const hemi_value_plan *vp = &plan->value[i];
    const uint32_t limbs = vp->limbs + vp->levels; /* after the affine map */
    const double scale = ldexp(1, (int)p->scale_bits), rescaling = hemi_ckks_noise_slots(p, hemi_ckks_noise_rescaling(p), vp->scale);
    if (v->kind == HEMI_CIRCUIT_AFFINE) return affine_noise(plan, variance, &v->a, vp->a, vp->norm, limbs, vp->scale);
    if (v->kind == HEMI_CIRCUIT_FUNCTION) {
        const double u = affine_noise(plan, variance, &v->a, vp->a, v->polynomial.radius, limbs, scale);
        return function_noise(&v->polynomial, u, vp->norm, vp->levels, rescaling);
    }
    const double b_norm = vp->norm / v->a_high; /* so that a product of slots is a slot */
    const double a = affine_noise(plan, variance, &v->a, vp->a, v->a_high, limbs, scale);
    const double b = affine_noise(plan, variance, &v->b, vp->b, b_norm, limbs, scale);
    return hemi_ckks_noise_product(square(SPREAD), a, square(SPREAD * v->b_high / b_norm), b) + rescaling;
}

double hemi_circuit_predict_noise(const hemi_circuit *c, const hemi_circuit_plan *plan) {
    double variance[HEMI_CIRCUIT_VALUES_MAX];
    variance[0] = hemi_ckks_noise_slots(plan->params, hemi_ckks_noise_fresh(), plan->value[0].scale);
    for (size_t i = 1; i < c->values; i++) variance[i] = value_noise(c, plan, variance, i);
    return sqrt(variance[c->values - 1]) * plan->value[c->values - 1].norm;
}

double hemi_circuit_reply_noise(const hemi_circuit_plan *plan) {
    const hemi_value_plan *out = &plan->value[plan->values - 1];
    return sqrt(hemi_ckks_noise_slots(plan->params, hemi_ckks_noise_zero(plan->params), out->scale)) * out->norm;
}
