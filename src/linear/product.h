/* The encrypted matrix-vector product: weights made ready, and their product with an encrypted vector. */
#ifndef HEMI_LINEAR_PRODUCT_H
#define HEMI_LINEAR_PRODUCT_H

#include "base/threads.h"
#include "linear/layout.h"
#include "rlwe/context.h"

/* Immutable after creation, apart from a pool of workspaces behind a lock; shared between threads. */
typedef struct hemi_linear hemi_linear;

/* w: outputs x inputs integers, row-major. bias: NULL, or `outputs` numbers in units of the product; they are added
 * as round(bias * delta). Time O(N K log K) for K products. team: may be NULL. */
HEMI_CHECK hemi_status hemi_linear_new(hemi_linear **out, const hemi_context *ctx, const hemi_linear_layout *layout, const int16_t *w,
                                       const double *bias, uint64_t delta, hemi_team *team, hemi_error *err);
void hemi_linear_free(hemi_linear *linear);
size_t hemi_linear_bytes(const hemi_linear *linear);
const hemi_linear_layout *hemi_linear_get_layout(const hemi_linear *linear);

/* A ciphertext of a row as it comes in: a = expansion of the seed (NTT form), b = coefficients at
 * hemi_linear_input_positions, of b_bits bits each. */
typedef struct hemi_linear_input {
    const uint8_t *seed;
    const uint8_t *packed_b;
    unsigned b_bits;
} hemi_linear_input;

/* The result, switched down: packed_a gets N fields of a_bits, packed_b one field of b_bits per output. ring_switch: in the ring of
 * degree N/2 (rlwe/ringswitch.h), so that packed_a gets N/2 fields. */
typedef struct hemi_linear_output {
    uint8_t *packed_a, *packed_b;
    unsigned a_bits, b_bits;
    bool ring_switch;
} hemi_linear_output;

/* ERR_KEY if keys lacks an automorphism the layout needs, or the ring-switching key where it is; ERR_MEMORY. The result is re-randomised under the public key. */
HEMI_CHECK hemi_status hemi_linear_multiply(const hemi_linear *linear, const hemi_evaluation_keys *keys, hemi_linear_input in,
                                            hemi_linear_output out, hemi_team *team, hemi_error *err);

/* The same without re-randomisation: for measuring noise and for showing what an attack on such replies gets. Never
 * used by the server. */
HEMI_CHECK hemi_status hemi_linear_multiply_bare(const hemi_linear *linear, const hemi_evaluation_keys *keys, hemi_linear_input in,
                                                 hemi_linear_output out, hemi_team *team, hemi_error *err);

#endif
