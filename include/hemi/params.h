/* Parameter sets: the rows of one table, each with its security estimate. A set that is not in the
 * table is refused by client and server.
 *
 * Secret: uniform ternary. Error: centred binomial, eta = 21 (standard deviation sqrt(21/2) = 3.24).
 * Estimates: lattice estimator (commit 27a581b), classical, cost model MATZOV, minimum over uSVP, BDD and
 * dual-hybrid, unlimited samples. log2 of the product of ALL primes, special ones included, counts. */
#ifndef HEMI_PARAMS_H
#define HEMI_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hemi_params {
    uint32_t id;            /* on the wire and in files */
    const char *name;       /* "L4096" */
    uint32_t log2_n;        /* ring degree N = 2^log2_n */
    uint64_t q;             /* ciphertext modulus: a prime, = 1 mod 2N */
    uint64_t special;       /* special prime P of key switching, = 1 mod 2N; 0: the set has no key switching */
    double log2_modulus;    /* of the product of all primes */
    double security_bits;   /* the estimate */
    const struct hemi_params *reply; /* the row of degree N/2 that replies of few outputs may be switched to; NULL: none */
    bool reply_only;        /* this is such a row: no modules, requests or keys of its own */
    unsigned baby_digits;   /* rotations of inputs are kept over qP, from digits of digit_bits bits each, every one by keys of its own; */
    unsigned digit_bits;    /* 0: over q, from one another, by one digit */
    /* Levelled sets (CKKS), for modules with non-linearities; of other sets chain = 0. q is prime[0], special is prime[chain]. */
    uint32_t chain;         /* primes of ciphertexts: the base, then one for each level */
    uint32_t specials;      /* special primes */
    uint32_t digit_limbs;   /* primes of a digit of key switching (the base is a digit of its own) */
    unsigned scale_bits;    /* primes of levels are about 2^scale_bits, and so are scales */
    const uint64_t *prime;  /* chain + specials of them */
} hemi_params;

#define HEMI_PARAMS_PRIMES_MAX 64

#define HEMI_SECURITY_BITS_MIN 128.0

HEMI_API size_t hemi_params_count(void);
/* NULL if there is no such row. The rows live for ever. "precise" is another name of "L4096P". */
HEMI_API const hemi_params *hemi_params_at(size_t i);
HEMI_API const hemi_params *hemi_params_by_id(uint32_t id);
HEMI_API const hemi_params *hemi_params_by_name(const char *name);

#ifdef __cplusplus
}
#endif
#endif
