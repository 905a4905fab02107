#include "rlwe/noise.h"

#include <math.h>

#include "random/sample.h"

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

double hemi_noise_upload_variance(const hemi_params *p, unsigned b_bits) { return rounding(p, b_bits); }

double hemi_noise_zero_variance(const hemi_params *p) {
    return HEMI_ERROR_VARIANCE * (1 + 2 * degree(p) * HEMI_SECRET_VARIANCE);
}

double hemi_noise_download_variance(const hemi_params *p, unsigned a_bits, unsigned b_bits) {
    return degree(p) * HEMI_SECRET_VARIANCE * rounding(p, a_bits) + rounding(p, b_bits);
}
