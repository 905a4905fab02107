/* One map on slots, made ready: its plaintexts, and their products with ciphertexts. Internal to the room. */
#ifndef HEMI_CIRCUIT_TRANSFORM_H
#define HEMI_CIRCUIT_TRANSFORM_H

#include "base/threads.h"
#include "circuit/plan.h"
#include "ckks/cipher.h"

#define HEMI_TRANSFORM_TERMS_MAX HEMI_DOT_COUNT_MAX /* babies of all source ciphertexts */

/* Immutable after creation. */
typedef struct hemi_transform {
    const hemi_ckks_context *ctx;
    const hemi_circuit_plan *plan;
    const hemi_circuit_diagonals *d;
    uint32_t limbs;             /* of its products */
    uint32_t in_blocks, out_blocks, block; /* block: coefficients that are summed at once */
    double scale;               /* of plaintexts */
    uint8_t *plaintexts;        /* in the order: target ciphertext, limb, block of coefficients, giant, source ciphertext, baby */
    size_t bytes;
} hemi_transform;

/* The map from value `source` to value `target`, each weight times `factor`, as plaintexts of a scale. */
HEMI_CHECK hemi_status hemi_transform_make(hemi_transform *out, const hemi_ckks_context *ctx, const hemi_circuit_plan *plan,
                                           const hemi_circuit_diagonals *d, const hemi_sparse *map, size_t source, size_t target, double factor,
                                           uint32_t limbs, double scale, hemi_team *team, hemi_error *err);
void hemi_transform_clear(hemi_transform *t);
/* Numbers of each target ciphertext at a scale, n words a limb: values: size of the target. */
HEMI_CHECK hemi_status hemi_slots_encode(uint64_t *pt, const hemi_ckks_context *ctx, const hemi_circuit_plan *plan, size_t target, uint32_t block,
                                         const double *values, uint32_t limbs, double scale, hemi_error *err);
/* r[out_blocks]: ciphertexts of limbs limbs (room for them). in[in_blocks]: of at least as many limbs and one scale. */
HEMI_CHECK hemi_status hemi_transform_apply(const hemi_transform *t, hemi_ckks_workspace *w, hemi_team *team, const hemi_ckks_keys *keys,
                                            const hemi_ckks_cipher *in, hemi_ckks_cipher *r, hemi_error *err);
/* r += rotations of r, folded. */
HEMI_CHECK hemi_status hemi_transform_fold(const hemi_transform *t, hemi_ckks_workspace *w, const hemi_ckks_keys *keys, hemi_ckks_cipher *r,
                                           hemi_error *err);

#endif
