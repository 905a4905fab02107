#include "ckks/noise.h"

#include <math.h>

#include "ckks/context.h"
#include "random/sample.h"
#include "rlwe/noise.h"

static double degree(const hemi_params *p) { return ldexp(1.0, (int)p->log2_n); }

double hemi_ckks_noise_fresh(void) { return HEMI_ERROR_VARIANCE + HEMI_CKKS_NOISE_ENCODING; }

/* Q_d / P. */
static double digit_over_special(const hemi_params *p, uint32_t digit, uint32_t limbs) {
    double ratio = 1;
    for (uint32_t i = hemi_ckks_digit_first(p, digit); i < limbs && i < hemi_ckks_digit_first(p, digit + 1); i++) ratio *= (double)p->prime[i];
    for (uint32_t i = 0; i < p->specials; i++) ratio /= (double)p->prime[p->chain + i];
    return ratio;
}

double hemi_ckks_noise_keyswitch(const hemi_params *p, uint32_t limbs) {
    double sum = 0;
    for (uint32_t d = 0; d < hemi_ckks_digits(p, limbs); d++) {
        const double ratio = digit_over_special(p, d, limbs);
        sum += ratio * ratio;
    }
    return degree(p) * sum / 12 * HEMI_ERROR_VARIANCE + hemi_ckks_noise_rescaling(p);
}

double hemi_ckks_noise_rescaling(const hemi_params *p) { return (1 + degree(p) * HEMI_SECRET_VARIANCE) / 12; }

double hemi_ckks_noise_zero(const hemi_params *p) { return HEMI_ERROR_VARIANCE * (1 + 2 * degree(p) * HEMI_SECRET_VARIANCE); }

double hemi_ckks_noise_slots(const hemi_params *p, double variance, double scale) { return degree(p) * variance / (2 * scale * scale); }

double hemi_ckks_noise_product(double a_square, double a_variance, double b_square, double b_variance) {
    return a_square * b_variance + b_square * a_variance + 2 * a_variance * b_variance;
}
