/* The canonical embedding: n/2 complex numbers ("slots") as one integer polynomial, and back. Slot i is the value at
 * exp(pi i 5^i / n) of the polynomial divided by the scale, so that X -> X^(5^r) rotates slots by r to the left and X -> X^-1 conjugates. */
#ifndef HEMI_CKKS_ENCODER_H
#define HEMI_CKKS_ENCODER_H

#include "ckks/context.h"

/* Tables for a degree; immutable. NULL without memory. */
hemi_ckks_encoder *hemi_ckks_encoder_new(uint32_t log2_n);
void hemi_ckks_encoder_free(hemi_ckks_encoder *encoder);

/* Coefficients round(scale * embedding^-1(re + i im)), n of them. im may be NULL (zeros). work: n doubles, overwritten. False if one
 * is 2^62 or more, or not a number. Error of each coefficient: at most 1/2 from rounding and about 2^-52 log2(n) of the largest. */
bool hemi_ckks_embed(int64_t *coefficients, const hemi_ckks_encoder *encoder, double scale, const double *re, const double *im, double *work);
/* The inverse: slots of coefficients / scale; re and im have n/2 numbers each, im may be NULL. work: n doubles. */
void hemi_ckks_unembed(double *re, double *im, const hemi_ckks_encoder *encoder, double scale, const int64_t *coefficients, double *work);

/* Signed coefficients to canonical residues modulo limb's prime, in NTT form. |coefficient| < 2^62. Constant time. */
void hemi_ckks_residues(uint64_t *r, const int64_t *coefficients, const hemi_limb *limb, const hemi_kernels *k);

#endif
