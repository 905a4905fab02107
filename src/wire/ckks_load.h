/* Between the formats of levelled sets (wire/ckks.h) and what is computed with. Bytes have been checked. */
#ifndef HEMI_WIRE_CKKS_LOAD_H
#define HEMI_WIRE_CKKS_LOAD_H

#include "base/threads.h"
#include "ckks/cipher.h"
#include "wire/ckks.h"

/* Checks evaluation keys and expands them. team may be NULL. */
HEMI_CHECK hemi_status hemi_ckks_keys_load(hemi_ckks_keys **out, const uint8_t *bytes, size_t count, hemi_team *team, hemi_error *err);
/* A ciphertext of a request, `limbs` limbs: c (room for them) gets it in NTT form, and the scale. */
void hemi_ckks_ciphertext_load(hemi_ckks_cipher *c, const hemi_ckks_context *ctx, const uint8_t *bytes, uint32_t limbs, double scale, hemi_team *team);
/* A ciphertext of a reply: one limb, which is overwritten with its coefficients. */
void hemi_ckks_ciphertext_store(uint8_t *bytes, const hemi_ckks_context *ctx, hemi_ckks_cipher *c);

#endif
