/* Key switching, hybrid with one special prime (Gentry, Halevi and Smart, "Homomorphic evaluation of the AES circuit", 2012; one
 * digit). All polynomials in NTT form over q or P. */
#ifndef HEMI_RLWE_KEYSWITCH_H
#define HEMI_RLWE_KEYSWITCH_H

#include "rlwe/context.h"

/* The digit of c1: over q it is c1 itself; d_p gets its centred lift over P. Two NTTs. The automorphism is applied
 * afterwards (it commutes), so one digit serves several ("hoisting": Halevi and Shoup, 2018). */
void hemi_keyswitch_digit(const hemi_context *ctx, uint64_t *d_p, const uint64_t *c1);

/* The digits of c1 (centred, of digit_bits bits each, the last one taking what is left) for sets with baby_digits: digit d over q at
 * d_q + d n, over P at d_p + d n. c1 is overwritten with its coefficients. */
void hemi_keyswitch_digits(const hemi_context *ctx, uint64_t *d_q, uint64_t *d_p, uint64_t *c1);

/* A pair over qP, before division by P. */
typedef struct hemi_extended {
    uint64_t *q, *p;
} hemi_extended;

/* (u0, u1) = sigma_t(d) (b, a) + (sigma_t(e), 0) over qP. e.q and e.p: c0, times P; e.p may be NULL, for 0. */
void hemi_keyswitch_product(const hemi_context *ctx, const hemi_galois_key *key, hemi_extended u0, hemi_extended u1,
                            const uint64_t *d_q, const uint64_t *d_p, hemi_extended e);

/* The same from digits: (u0, u1) = sum_d sigma_t(digit d) key[d] + (sigma_t(e), 0). scratch: 2 n words. */
void hemi_keyswitch_digits_product(const hemi_context *ctx, const hemi_galois_key *const *key, hemi_extended u0, hemi_extended u1,
                                   const uint64_t *d_q, const uint64_t *d_p, hemi_extended e, uint64_t *scratch);

/* r = round(u / P) modulo q, rounding by the centred residue modulo P. Two NTTs. u.p is overwritten; r may be u.q. */
void hemi_divide_by_special(const hemi_context *ctx, uint64_t *r, hemi_extended u);
/* The first half of it: u.p becomes the NTT form modulo q of the centred residue; the result is (u.q - u.p) P^-1, slot by slot,
 * which a caller may take in blocks (hemi_context's special_inverse). */
void hemi_divide_by_special_begin(const hemi_context *ctx, hemi_extended u);
/* The same, giving coefficients: u.q and u.p are overwritten. Two inverse NTTs. */
void hemi_divide_by_special_to_coefficients(const hemi_context *ctx, uint64_t *r, hemi_extended u);

/* An encryption of zero under the public key, without its errors: z0 = b u, z1 = a u in NTT form for fresh uniform ternary u.
 * The caller adds an error to each coefficient of both that it lets out. */
void hemi_zero_product(const hemi_evaluation_keys *keys, uint64_t *z0, uint64_t *z1, hemi_stream *secret);
/* a += fresh error, coefficient by coefficient, n of them. */
void hemi_add_error(uint64_t *a, size_t n, const hemi_modulus *m, hemi_stream *secret);

#endif
