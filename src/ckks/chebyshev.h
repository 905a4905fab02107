/* Polynomials in the Chebyshev basis, sum_i c_i T_i(u), |u| <= 1, by splitting at powers of two (Paterson and Stockmeyer, 1973; for
 * Chebyshev polynomials and levels: Chen, Chillotti and Song, 2019; Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, 2021):
 *   p = q T_g + r,  T_a T_b = (T_(a+b) + T_(a-b)) / 2.
 * A polynomial of degree d takes ceil(log2(d + 1)) levels. Scales are exact: the result has the scale that is asked for. */
#ifndef HEMI_CKKS_CHEBYSHEV_H
#define HEMI_CKKS_CHEBYSHEV_H

#include "ckks/cipher.h"

#define HEMI_CKKS_DEGREE_MAX 255

uint32_t hemi_ckks_chebyshev_levels(uint32_t degree);
/* Products of ciphertexts that an evaluation takes; what is summed before it is relinearised counts as one. Coefficients that are zero cost nothing: which are (every other one of an odd function)
 * is part of the circuit's structure. */
uint32_t hemi_ckks_chebyshev_products(const double *c, uint32_t degree);
/* The variance of what the evaluation itself adds to p(u), in `levels` levels, where every rescaling adds `rescaling`; u is
 * taken as exact, errors as independent (of high degrees and steep functions up to a fifth off, as a standard deviation). */
double hemi_ckks_chebyshev_noise(const double *c, uint32_t degree, uint32_t levels, double u, double rescaling);
/* r, which has room for u.limbs limbs and is not u, gets `limbs` limbs, u.limbs - levels at most, and this scale. |c_i| < 2^20. */
HEMI_CHECK hemi_status hemi_ckks_chebyshev(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *u, const double *c,
                                           uint32_t degree, uint32_t limbs, double scale, const hemi_ckks_keys *keys, hemi_error *err);

#endif
