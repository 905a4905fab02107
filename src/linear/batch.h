/* The encrypted product of many rows with one matrix, as an integer product (docs/cryptography.md, "Batches of rows").
 *
 * A batch is up to N rows under one 32-byte seed: input j of all rows is one ciphertext (b_j, a_j), row r at coefficient r, a_j the expansion of
 * (seed, HEMI_DOMAIN_BATCH, j) as coefficients... see below. Output o of all rows is then
 *     (sum_j W[o][j] b_j,  sum_j W[o][j] a_j)  +  an encryption of zero (z0_o, z1_o) under the client's public key,
 * without key switching. The second components and z0 do not depend on the data: they may be computed before it arrives
 * ("silent preparation"); what is then left of a row is sum_j W[o][j] b_j[r] + z0_o[r], a product of the matrix with one vector.
 *
 * Coefficient r of the b_j is sent when row r is known: every coefficient hides one number, once, under a_j s + e_j of its own. A row number
 * must never be used for two different messages (src/client keeps that; see docs/threat-model.md).
 *
 * Bits: b_bits as elsewhere; a reply's a_bits and b_bits as elsewhere. Parameter set: one without key switching (L2048). */
#ifndef HEMI_LINEAR_BATCH_H
#define HEMI_LINEAR_BATCH_H

#include "base/threads.h"
#include "rlwe/context.h"

/* A matrix made ready. Immutable; shared between threads. */
typedef struct hemi_batch hemi_batch;

/* w: outputs x inputs integers, row-major. bias: NULL, or `outputs` numbers in units of the product, added as round(bias delta).
 * Memory: one byte a weight if all fit, two otherwise. ERR_PARAMS, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_batch_new(hemi_batch **out, const hemi_context *ctx, uint32_t inputs, uint32_t outputs, const int16_t *w,
                                      const double *bias, uint64_t delta, hemi_error *err);
void hemi_batch_free(hemi_batch *batch);
size_t hemi_batch_bytes(const hemi_batch *batch);

/* What is known of a batch before its data: the second components, as they are sent, and the corrections z0_o[r] (with bias). */
typedef struct hemi_batch_state hemi_batch_state;

/* For rows 0 .. rows-1 of the batch under this seed and the client's public key. packed_a: outputs times N fields of a_bits, each output's
 * padded to whole bytes; may be NULL (they were sent before). secret: 32 bytes of the server's, of which the encryptions of zero are derived
 * together with module id, seed and key id (all in `context`, hashed): the same call gives the same state again. ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_batch_prepare(hemi_batch_state **out, uint8_t *packed_a, unsigned a_bits, const hemi_batch *batch,
                                          const hemi_evaluation_keys *keys, const uint8_t seed[HEMI_SEED_BYTES],
                                          const uint8_t secret[32], const void *context, size_t context_bytes, uint32_t rows,
                                          hemi_team *team, hemi_error *err);
void hemi_batch_state_free(hemi_batch_state *state);
size_t hemi_batch_state_bytes(const hemi_batch_state *state);
uint32_t hemi_batch_state_rows(const hemi_batch_state *state);

/* Rows first .. first+count-1: packed_in holds count rows of `inputs` fields of in_bits, each row padded to whole bytes, row i at
 * i hemi_packed_bytes(inputs, in_bits); packed_out likewise count rows of `outputs` fields of out_bits. Uses one byte of memory per ...:
 * allocates scratch only for many rows. ERR_ARGUMENT if the rows are not of the state; ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_batch_rows(const hemi_batch *batch, const hemi_batch_state *state, uint32_t first, uint32_t count,
                                       const uint8_t *packed_in, unsigned in_bits, uint8_t *packed_out, unsigned out_bits,
                                       hemi_team *team, hemi_error *err);

/* Predicted variance of a result before the switch down, in units of 1 of q. */
double hemi_batch_noise_variance(const hemi_params *params, double weight_norm2, unsigned b_bits);

#endif
