/* The encrypted product of many rows with one matrix, as an integer product (docs/cryptography.md, "Batches of rows").
 *
 * A batch is up to N rows under one 32-byte seed. Input j of all of them is one ciphertext (b_j, a_j), row r at coefficient r; a_j is the
 * expansion of the seed, stream (HEMI_DOMAIN_BATCH, j), in NTT form. Output o of all rows is
 *     (sum_j W[o][j] b_j,  sum_j W[o][j] a_j)  +  an encryption of zero (z0_o, z1_o) under the client's public key:
 * an integer combination, without key switching. The second components and z0 do not depend on the data, so they may be computed before it
 * arrives ("silent preparation"). What is then left of row r is sum_j W[o][j] b_j[r] + z0_o[r]: the matrix times one vector.
 *
 * The coefficients r of all b_j are sent when row r is known: each hides one number, once. A row number must never be used for two
 * messages (secret/batch.h wipes the pads of a row that is used).
 *
 * Any parameter set with 2^32 < q < 2^48; key switching is not needed: L2048. */
#ifndef HEMI_LINEAR_BATCH_H
#define HEMI_LINEAR_BATCH_H

#include "base/threads.h"
#include "rlwe/context.h"

/* A matrix made ready. Immutable; shared between threads. */
typedef struct hemi_batch hemi_batch;

/* w: outputs x inputs integers, row-major. bias: NULL, or `outputs` numbers in units of the product, added as round(bias delta).
 * Memory: one byte a weight if all are in [-128, 127], two otherwise. ERR_PARAMS, ERR_ARGUMENT (inputs > 65536), ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_batch_new(hemi_batch **out, const hemi_context *ctx, uint32_t inputs, uint32_t outputs,
                                      const int16_t *w, const double *bias, uint64_t delta, hemi_error *err);
void hemi_batch_free(hemi_batch *batch);
/* The matrix again, outputs x inputs. */
void hemi_batch_weights(int16_t *w, const hemi_batch *batch);
size_t hemi_batch_bytes(const hemi_batch *batch);

/* The first components of the encryptions of zero, bias included, at the rows of a batch: four bytes for each row and output, their top
 * 32 bits. Immutable; shared between threads. */
typedef struct hemi_batch_state hemi_batch_state;

/* For rows 0 .. rows-1, 1 <= rows <= N, of the batch under this seed and the client's public key. packed_a gets the second components as
 * they are sent, outputs times N fields of a_bits, each output's padded to whole bytes; NULL when they were sent before, which saves
 * most of the time. The encryptions of zero are derived from `secret`, which is the server's, from the seed and from `context`, which must
 * name everything else: module, weights, public key. So the same call gives the same again, and with fewer rows the first of them; and
 * two different products must never share secret, seed and context, or their difference would be laid open. Memory on the way: 6 to
 * 8 bytes times inputs times N, and about 1.2 MB a thread. ERR_ARGUMENT, ERR_KEY (keys of another context), ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_batch_prepare(hemi_batch_state **out, uint8_t *packed_a, unsigned a_bits,
                                          const hemi_batch *batch, const hemi_evaluation_keys *keys,
                                          const uint8_t seed[HEMI_SEED_BYTES], const uint8_t secret[HEMI_SEED_BYTES],
                                          const void *context, size_t context_bytes, uint32_t rows, hemi_team *team,
                                          hemi_error *err);
void hemi_batch_state_free(hemi_batch_state *state);
size_t hemi_batch_state_bytes(const hemi_batch_state *state);
uint32_t hemi_batch_state_rows(const hemi_batch_state *state);
/* The same without data: what a state will take. */
size_t hemi_batch_state_bytes_for(uint32_t outputs, uint32_t rows);

/* The first components of rows first .. first+count-1. packed_in: `inputs` fields of in_bits a row, row i at
 * i hemi_packed_bytes(inputs, in_bits); packed_out: `outputs` fields of out_bits a row, likewise. A team shares the outputs of few rows, or
 * the rows of many. ERR_ARGUMENT if the state does not have the rows, or is of another batch's shape; ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_batch_rows(const hemi_batch *batch, const hemi_batch_state *state, uint32_t first,
                                       uint32_t count, const uint8_t *packed_in, unsigned in_bits, uint8_t *packed_out,
                                       unsigned out_bits, hemi_team *team, hemi_error *err);

/* Predicted variance of a result before it is switched down, in units of 1 of q; weight_norm2: mean over the outputs of sum_j W[o][j]^2. */
double hemi_batch_noise_variance(const hemi_params *params, double weight_norm2, unsigned b_bits);

#endif
