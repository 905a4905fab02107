/* Predicted noise of levelled sets, as variances. Heuristic (errors taken as independent), as in Costache, Curtis, Hales, Murphy, Ogilvie and
 * Player, "On the precision loss in approximate homomorphic encryption" (2022); every formula is tested against measurement
 * (tests/test_ckks_noise.c). The secret is uniform ternary: variance 2/3 per coefficient. */
#ifndef HEMI_CKKS_NOISE_H
#define HEMI_CKKS_NOISE_H

#include "hemi/params.h"

/* ---- of a coefficient of the phase c0 + c1 s, in units of 1: what an operation adds. */

/* Encoding: coefficients are rounded, 1/12. */
#define HEMI_CKKS_NOISE_ENCODING (1.0 / 12)
/* A fresh ciphertext: sigma^2, and its encoding. */
double hemi_ckks_noise_fresh(void);
/* One key switch of a ciphertext of `limbs` limbs (a rotation, or the relinearisation of a product): sum over digits of N (Q_d^2/12) sigma^2 / P^2 from
 * the keys' errors, Q_d the product of digit d's primes as far as there are any; (1 + N Var(s)) / 12 from the rounding. */
double hemi_ckks_noise_keyswitch(const hemi_params *params, uint32_t limbs);
/* A division by a prime: (1 + N Var(s)) / 12, in units of 1 after it. */
double hemi_ckks_noise_rescaling(const hemi_params *params);
/* Re-randomisation: an encryption of zero under the public key, over q_0: sigma^2 (1 + 2 N Var(s)). */
double hemi_ckks_noise_zero(const hemi_params *params);

/* ---- of the real (or the imaginary) part of a slot, in units of what slots hold. Over all slots: under one key, the share of a single slot
 * in what is rounded goes with |s(zeta)|^2. */

/* Of slots whose coefficients have this variance at this scale: N variance / (2 scale^2). */
double hemi_ckks_noise_slots(const hemi_params *params, double variance, double scale);
/* A product a b of slots, in the mean |a|^2 b_variance + |b|^2 a_variance + 2 a_variance b_variance; a_square, b_square: mean squares of absolute values.
 * Plaintexts have the noise of their encoding; a product of ciphertexts adds a key switch at the scale of the product. */
double hemi_ckks_noise_product(double a_square, double a_variance, double b_square, double b_variance);

#endif
