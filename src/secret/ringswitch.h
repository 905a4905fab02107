/* The client's side of ring switching (rlwe/ringswitch.h). Constant time in secrets. */
#ifndef HEMI_SECRET_RINGSWITCH_H
#define HEMI_SECRET_RINGSWITCH_H

#include "secret/key.h"

/* The entry of evaluation keys, in wire form: from s to s'. The key's set has a ring of replies. Fresh seed, fresh errors. */
HEMI_CHECK hemi_status hemi_secret_make_ringswitch_key(const hemi_secret_key *key, uint8_t *out, hemi_error *err);
/* hemi_secret_decrypt of a reply that was switched: packed_a holds N/2 fields; positions are those before the switch, all even. The
 * phases are scaled back to units of 1 of q. */
HEMI_CHECK hemi_status hemi_secret_decrypt_switched(const hemi_secret_key *key, const uint8_t *packed_a,
                                                    unsigned a_bits, const uint8_t *packed_b, unsigned b_bits,
                                                    const uint32_t *positions, size_t count, int64_t *phase,
                                                    hemi_error *err);

#endif
