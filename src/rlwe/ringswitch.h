/* Ring switching: from a ciphertext modulo q in degree N under s to one modulo Q in degree N/2 under an independent s', for messages at
 * even coefficients (Gentry, Halevi, Peikert and Smart, "Ring switching in BGV-style homomorphic encryption", 2012).
 *
 * With Y = X^2, c1 = c1e(Y) + X c1o(Y) and s likewise, the even coefficients of c0 + c1 s are c0e + c1e se + Y c1o so: products in the
 * small ring alone. c1 is rounded to w = 28 bits, c = round(c1 2^w / q) mod 2^w, and written in D = 2 signed digits of 14 bits, c =
 * sum_i d_i 2^(14 i). Sample j = 2 i + h of the key is RLWE of degree N/2 modulo the prime Q, with g = (Q - 1) / 2^w:
 *     b_j = -a_j s' + e_j + g 2^(14 i) f_h,    f_0 = se, f_1 = Y so
 * so that (sum of d_ih b_j + round(c0e Q / q), sum of d_ih a_j) has the old phase, times Q / q. 2^w divides Q - 1, so what is lost when
 * c wraps round 2^w is a multiple of 1, not of 2^w. */
#ifndef HEMI_RLWE_RINGSWITCH_H
#define HEMI_RLWE_RINGSWITCH_H

#include "rlwe/context.h"

#define HEMI_RINGSWITCH_DIGITS     2
#define HEMI_RINGSWITCH_DIGIT_BITS 14
#define HEMI_RINGSWITCH_BITS       (HEMI_RINGSWITCH_DIGITS * HEMI_RINGSWITCH_DIGIT_BITS)
#define HEMI_RINGSWITCH_SAMPLES    (2 * HEMI_RINGSWITCH_DIGITS)

/* The context of params->reply. ERR_PARAMS if that row does not fit: degree N/2, q = 1 mod 2^w, no special prime. */
HEMI_CHECK hemi_status hemi_ringswitch_context(hemi_context **out, const hemi_params *params,
                                               const hemi_kernels *kernels, hemi_error *err);

/* Words of a key: for each sample b, then a, in NTT form, fixed. */
size_t hemi_ringswitch_key_words(const hemi_context *ctx);
/* g 2^(14 digit) mod Q. */
uint64_t hemi_ringswitch_gadget(const hemi_context *ctx, size_t digit);
/* The a-part of a sample, the same expansion on both sides. N/2 residues. */
void hemi_ringswitch_expand_a(uint64_t *a, const hemi_context *ctx, size_t sample, const uint8_t seed[HEMI_SEED_BYTES]);
/* b: of all samples, one after the other, canonical in NTT form. scratch: N/2 words. keys has room for the entry. */
void hemi_ringswitch_key_set(hemi_evaluation_keys *keys, const uint8_t seed[HEMI_SEED_BYTES], const uint64_t *b,
                             uint64_t *scratch);

/* u0 and u1, N/2 coefficients modulo Q each: the sums of products above. c1: N coefficients modulo q, overwritten. digits: 2 N words of
 * scratch. keys holds a ring-switching key. */
void hemi_ringswitch(const hemi_evaluation_keys *keys, uint64_t *u0, uint64_t *u1, uint64_t *c1, uint64_t *digits);
/* r = round(c0 Q / q) modulo Q, up to 1; r may be c0. */
void hemi_ringswitch_scale(const hemi_context *ctx, uint64_t *r, const uint64_t *c0, size_t count);

#endif
