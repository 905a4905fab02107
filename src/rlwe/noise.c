#include "rlwe/noise.h"

#include <math.h>

#include "random/sample.h"
#include "rlwe/ringswitch.h"

static double degree(const hemi_params *p) { return ldexp(1.0, (int)p->log2_n); }

static double rounding(const hemi_params *p, unsigned bits) {
    const double unit = (double)p->q / ldexp(1.0, (int)bits);
    return unit > 1 ? unit * unit / 12 : 0;
}

double hemi_noise_keyswitch_variance(const hemi_params *p) {
    if (p->special == 0) return 0;
    const double ratio = (double)p->q / (double)p->special, n = degree(p);
    return n * ratio * ratio / 12 * HEMI_ERROR_VARIANCE + (1 + n * HEMI_SECRET_VARIANCE) / 12;
}

double hemi_noise_digits_variance(const hemi_params *p) {
    const double digit = ldexp(1.0, (int)p->digit_bits) / (double)p->special;
    return p->baby_digits * degree(p) * digit * digit / 12 * HEMI_ERROR_VARIANCE;
}

double hemi_noise_upload_variance(const hemi_params *p, unsigned b_bits) { return rounding(p, b_bits); }

double hemi_noise_zero_variance(const hemi_params *p) {
    return HEMI_ERROR_VARIANCE * (1 + 2 * degree(p) * HEMI_SECRET_VARIANCE);
}

double hemi_noise_download_variance(const hemi_params *p, unsigned a_bits, unsigned b_bits) {
    return degree(p) * HEMI_SECRET_VARIANCE * rounding(p, a_bits) + rounding(p, b_bits);
}

double hemi_noise_ringswitch_variance(const hemi_params *p) {
    const double n = degree(p), ratio = (double)p->q / (double)p->reply->q;
    const double digit = ldexp(1.0, 2 * HEMI_RINGSWITCH_DIGIT_BITS) / 12;
    return n * HEMI_SECRET_VARIANCE * rounding(p, HEMI_RINGSWITCH_BITS) +
           HEMI_RINGSWITCH_DIGITS * n * digit * HEMI_ERROR_VARIANCE * ratio * ratio;
}

double hemi_noise_switched_download_variance(const hemi_params *p, unsigned a_bits, unsigned b_bits) {
    const double ratio = (double)p->q / (double)p->reply->q; /* from units of Q to units of q */
    return hemi_noise_ringswitch_variance(p) + ratio * ratio * hemi_noise_download_variance(p->reply, a_bits, b_bits);
}
