/* The encrypted linear map: weights made ready, and their products with encrypted units. */
#ifndef HEMI_LINEAR_PRODUCT_H
#define HEMI_LINEAR_PRODUCT_H

#include "base/threads.h"
#include "linear/layout.h"
#include "rlwe/context.h"

#define HEMI_LINEAR_MAPS_MAX 16 /* maps that share an input in one call */

/* Immutable after creation; shared between threads. */
typedef struct hemi_linear hemi_linear;

/* How the weights are held: ready to be multiplied, 6 bytes a coefficient; or as small integers, 2 bytes (4 where they are larger),
 * transformed anew in every call. */
typedef enum hemi_linear_memory { HEMI_LINEAR_FAST, HEMI_LINEAR_SMALL } hemi_linear_memory;

/* w: outputs x taps x inputs integers, row-major. bias: NULL, or `outputs` numbers in units of the product; they are added
 * as round(bias * delta). Time O(N K log K) for K products. team: may be NULL. */
HEMI_CHECK hemi_status hemi_linear_new(hemi_linear **out, const hemi_context *ctx, const hemi_linear_layout *layout, const int16_t *w,
                                       const double *bias, uint64_t delta, hemi_linear_memory memory, hemi_team *team, hemi_error *err);
void hemi_linear_free(hemi_linear *linear);
size_t hemi_linear_bytes(const hemi_linear *linear);
const hemi_linear_layout *hemi_linear_get_layout(const hemi_linear *linear);

/* Units as they come in: ciphertext i of unit u is at ciphertexts + (u in_blocks + i) stride: a seed of HEMI_SEED_BYTES, of which a is the
 * expansion (NTT form), then the coefficients of b at hemi_linear_input_positions, b_bits each, packed. */
typedef struct hemi_linear_input {
    const uint8_t *ciphertexts;
    size_t stride;
    unsigned b_bits;
} hemi_linear_input;

/* Results, switched down: ciphertext o of unit u is at ciphertexts + (u out_blocks + o) stride: N fields of a_bits, padded to whole
 * bytes, then one field of b_bits for each of hemi_linear_output_positions. ring_switch: in the ring of degree N/2 (rlwe/ringswitch.h), so
 * that there are N/2 fields of a_bits. */
typedef struct hemi_linear_output {
    uint8_t *ciphertexts;
    size_t stride;
    unsigned a_bits, b_bits;
    bool ring_switch;
} hemi_linear_output;

/* Units at a time are as many as fit in so much memory, at least one. */
#define HEMI_LINEAR_WORKSPACE_BYTES ((size_t)64 << 20)
/* Memory of a multiplication besides its result. */
size_t hemi_linear_working_bytes(const hemi_linear *linear, size_t units, size_t workers);

/* `units` units through one map, or through several that read the same input (same set, inputs and places: hemi_linear_same_input);
 * out has an entry for each. Rotations of the input are shared by maps of equally many babies. Results are re-randomised under the public
 * key. ERR_KEY if keys lacks an automorphism that a layout needs, or the ring-switching key where it is; ERR_ARGUMENT if the inputs differ; ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_linear_multiply(const hemi_linear *const *maps, size_t count, const hemi_evaluation_keys *keys,
                                            hemi_linear_input in, const hemi_linear_output *out, size_t units, hemi_team *team,
                                            hemi_error *err);
/* The same without re-randomisation: for measuring noise and for showing what an attack on such replies gets. Never
 * used by the server. */
HEMI_CHECK hemi_status hemi_linear_multiply_bare(const hemi_linear *const *maps, size_t count, const hemi_evaluation_keys *keys,
                                                 hemi_linear_input in, const hemi_linear_output *out, size_t units, hemi_team *team,
                                                 hemi_error *err);
/* Whether units encrypted for one layout can be given to the other. */
bool hemi_linear_same_input(const hemi_linear_layout *a, const hemi_linear_layout *b);

#endif
