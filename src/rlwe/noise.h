/* Predicted noise: variances in units of 1, of a ciphertext modulo q. Heuristic (errors taken as independent), as in
 * Costache, Curtis, Hales, Murphy, Ogilvie and Player, "On the precision loss in approximate homomorphic encryption" (2022); every formula is
 * tested against measurement. The secret is uniform ternary: variance 2/3 per coefficient. */
#ifndef HEMI_RLWE_NOISE_H
#define HEMI_RLWE_NOISE_H

#include "hemi/params.h"

#define HEMI_SECRET_VARIANCE (2.0 / 3.0)

/* One key switch: N (q^2/12) sigma^2 / P^2 from the keys' errors, (1 + N Var(s)) / 12 from the rounding. */
double hemi_noise_keyswitch_variance(const hemi_params *params);
/* One rotation from digits, kept over qP: digits N (2^(2 digit_bits) / 12) sigma^2 / P^2; nothing is rounded. */
double hemi_noise_digits_variance(const hemi_params *params);
/* b rounded to b_bits bits: (q / 2^b_bits)^2 / 12 per coefficient; 0 when nothing is cut off. */
double hemi_noise_upload_variance(const hemi_params *params, unsigned b_bits);
/* The encryption of zero under the public key: sigma^2 (1 + 2 N Var(s)). */
double hemi_noise_zero_variance(const hemi_params *params);
/* A result switched down to a_bits and b_bits: N Var(s) (q/2^a_bits)^2 / 12 + (q/2^b_bits)^2 / 12. */
double hemi_noise_download_variance(const hemi_params *params, unsigned a_bits, unsigned b_bits);
/* A result switched to the ring of half the degree (rlwe/ringswitch.h), before it is switched down: c1 rounded to w = 28 bits,
 * N Var(s) (q/2^w)^2 / 12, and D = 2 digits of d = 14 bits times the key's errors, D N (2^2d / 12) sigma^2 (q/Q)^2. */
double hemi_noise_ringswitch_variance(const hemi_params *params);
/* That, and its reply switched down: (N/2) Var(s) (q/2^a_bits)^2 / 12 + (q/2^b_bits)^2 / 12. */
double hemi_noise_switched_download_variance(const hemi_params *params, unsigned a_bits, unsigned b_bits);

#endif
