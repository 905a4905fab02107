/* A levelled parameter set at work: CKKS (Cheon, Kim, Kim and Song, "Homomorphic encryption for arithmetic of approximate numbers",
 * 2017) in residue number system (Cheon, Han, Kim, Kim and Song, 2018), with hybrid key switching of several digits (Han and Ki, 2020).
 *
 * A set has a chain of primes q_0 (the base) ... q_L and special primes P = p_0 ... p_(k-1). A ciphertext of `limbs` limbs is over
 * q_0 ... q_(limbs-1); its level is limbs - 1: how often it can still be rescaled. Limb i of the ring is q_i, limb chain + j is p_j. */
#ifndef HEMI_CKKS_CONTEXT_H
#define HEMI_CKKS_CONTEXT_H

#include "hemi/params.h"
#include "random/sample.h"
#include "ring/ring.h"

#define HEMI_CKKS_CHAIN_MAX   (HEMI_PARAMS_PRIMES_MAX)
#define HEMI_CKKS_DIGIT_MAX   4 /* primes of one digit, and special primes */

typedef struct hemi_ckks_encoder hemi_ckks_encoder;

/* Immutable after creation; shared between threads. */
typedef struct hemi_ckks_context {
    const hemi_params *params;
    uint32_t n, log2_n, slots; /* slots = n / 2 */
    uint32_t chain, specials;  /* primes of each */
    hemi_ring *ring;           /* chain + specials limbs */
    const hemi_kernels *k;
    /* Of ring limbs i, j: residues modulo j. product: p_0 ... p_(k-1) */
    uint64_t *prime;           /* [i * total + j]: prime i mod prime j */
    uint64_t *prime_inverse;   /* [i * total + j]: its inverse (i != j) */
    uint64_t *special_product; /* [j]: P mod prime j, and ... */
    uint64_t *special_inverse; /* [j]: its inverse, j < chain */
    hemi_ckks_encoder *encoder;
} hemi_ckks_context;

/* ERR_PARAMS if the set is not levelled. kernels: NULL for the default table. */
HEMI_CHECK hemi_status hemi_ckks_context_new(hemi_ckks_context **out, const hemi_params *params, const hemi_kernels *kernels,
                                             hemi_error *err);
void hemi_ckks_context_free(hemi_ckks_context *ctx);
/* One context per set and default table, made when first asked for, living as long as the process. */
HEMI_CHECK hemi_status hemi_ckks_context_shared(const hemi_ckks_context **out, const hemi_params *params, hemi_error *err);

static inline uint32_t hemi_ckks_total(const hemi_ckks_context *ctx) { return ctx->chain + ctx->specials; }
static inline const hemi_limb *hemi_ckks_limb(const hemi_ckks_context *ctx, uint32_t i) { return &ctx->ring->limb[i]; }

/* Digits of key switching: digit 0 is q_0 alone, digit d > 0 the params->digit_limbs primes from 1 + (d - 1) digit_limbs on, as far as there
 * are any. */
static inline uint32_t hemi_ckks_digit_first(const hemi_params *p, uint32_t digit) { return digit == 0 ? 0 : 1 + (digit - 1) * p->digit_limbs; }
static inline uint32_t hemi_ckks_digits(const hemi_params *p, uint32_t limbs) {
    return 1 + (limbs - 1 + p->digit_limbs - 1) / p->digit_limbs;
}

/* The rotation of slots by r to the left (slot i of the result is slot i + r), any r, as an automorphism X -> X^t: t = 5^r mod 2n. */
uint32_t hemi_ckks_rotation(const hemi_ckks_context *ctx, int64_t r);
/* Complex conjugation of slots. */
static inline uint32_t hemi_ckks_conjugation(uint32_t n) { return 2 * n - 1; }

#endif
