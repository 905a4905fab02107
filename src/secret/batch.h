/* The client's side of batches of rows (linear/batch.h). Constant time in secrets. What these functions give, but packed_b, is secret: the
 * caller keeps it in memory that is guarded, or wiped. */
#ifndef HEMI_SECRET_BATCH_H
#define HEMI_SECRET_BATCH_H

#include "secret/key.h"

/* The pads of rows 0 .. rows-1, 1 <= rows <= N, under a seed: pads[r * inputs + j] = (-a_j s + e_j)[r] mod q. Errors are fresh, never
 * of the seed, so two calls give different pads; both used would let errors be averaged. Each pad may hide one number, once.
 * ERR_ARGUMENT, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_secret_batch_pads(uint64_t *pads, const hemi_secret_key *key,
                                              const uint8_t seed[HEMI_SEED_BYTES], uint32_t inputs, uint32_t rows,
                                              hemi_error *err);
/* One row: packed_b gets `inputs` fields of b_bits, pad + delta x. pads: those of the row, which are wiped: they cannot be used again.
 * delta |x_j| < q/2. scratch: inputs words, wiped. */
void hemi_secret_batch_encrypt(uint8_t *packed_b, uint64_t *pads, const int32_t *x, uint32_t inputs, uint64_t delta,
                               unsigned b_bits, const hemi_context *ctx, uint64_t *scratch);
/* The masks of rows 0 .. rows-1 from the second components of a reply, outputs times N fields of a_bits, each output's padded to
 * whole bytes: masks[r * outputs + o] = (a'_o s)[r] mod q. ERR_ARGUMENT, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_secret_batch_masks(uint64_t *masks, const hemi_secret_key *key, const uint8_t *packed_a,
                                               unsigned a_bits, uint32_t outputs, uint32_t rows, hemi_error *err);
/* The phases (centred, modulo q) of one row of a reply, b + mask. masks: those of the row. scratch: outputs words, wiped. */
void hemi_secret_batch_decrypt(int64_t *phase, const uint8_t *packed_b, unsigned b_bits, const uint64_t *masks,
                               uint32_t outputs, const hemi_context *ctx, uint64_t *scratch);

#endif
