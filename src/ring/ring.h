/* Z_Q[X]/(X^N + 1) in residue number system: N = 4 ... 65536, Q a product of primes p = 1 mod 2N, p < 2^50. */
#ifndef HEMI_RING_RING_H
#define HEMI_RING_RING_H

#include "hemi/status.h"
#include "ring/kernels.h"

#define HEMI_RING_LOG2_N_MIN 2
#define HEMI_RING_LOG2_N_MAX 16
#define HEMI_RING_LIMBS_MAX  64

/* Immutable after creation; shared freely between threads. */
typedef struct hemi_ring {
    uint32_t n, log2_n;
    size_t limbs;
    hemi_limb *limb; /* limbs */
    const hemi_kernels *k;
    void *storage;
} hemi_ring;

/* kernels: NULL for the default table. ERR_ARGUMENT for a bad degree or prime, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_ring_new(hemi_ring **out, uint32_t log2_n, const uint64_t *primes, size_t limbs,
                                     const hemi_kernels *kernels, hemi_error *err);
void hemi_ring_free(hemi_ring *ring);

/* The automorphism X -> X^t, t odd, in NTT form: slot i of the result is slot index[i] of the operand. Does not depend
 * on the prime. index has n entries. */
void hemi_ring_automorphism_index(uint32_t *index, uint32_t log2_n, uint32_t t);
/* The same on coefficients: r = a(X^t), r is not a. Constant time in the values. */
void hemi_ring_automorphism(uint64_t *r, const uint64_t *a, uint32_t t, const hemi_limb *l);
/* Small signed coefficients to canonical residues. Constant time. */
void hemi_ring_from_int8(uint64_t *r, const int8_t *a, const hemi_limb *l);

#endif
