/* Encryption and decryption of rows for matrix products. */
#ifndef HEMI_SECRET_CIPHER_H
#define HEMI_SECRET_CIPHER_H

#include "linear/layout.h"
#include "secret/key.h"

/* Encrypts sum_(i<inputs) delta x_i X^positions[i] under a fresh seed: writes the seed and the coefficients of b at all positions (< n),
 * b_bits each, packed; those from `inputs` on hold no message. inputs <= count; delta |x_i| < q/2. */
HEMI_CHECK hemi_status hemi_secret_encrypt(const hemi_secret_key *key, const int32_t *x, size_t inputs, uint64_t delta,
                                           const uint32_t *positions, size_t count, unsigned b_bits,
                                           uint8_t seed[HEMI_SEED_BYTES], uint8_t *packed_b, hemi_error *err);
/* The phases (centred, modulo q) of a reply's coefficients at positions: b + a s. */
HEMI_CHECK hemi_status hemi_secret_decrypt(const hemi_secret_key *key, const uint8_t *packed_a, unsigned a_bits, const uint8_t *packed_b,
                                           unsigned b_bits, const uint32_t *positions, size_t count, int64_t *phase, hemi_error *err);

#endif
