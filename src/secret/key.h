/* Secret keys: the only room with secret-key code. Everything here is constant time in secrets. */
#ifndef HEMI_SECRET_KEY_H
#define HEMI_SECRET_KEY_H

#include "rlwe/context.h"
#include "secret/file.h"

/* s uniform ternary, in guarded memory, wiped when freed. Immutable; shared between threads. */
typedef struct hemi_secret_key {
    struct hemi_secret_key *reply; /* s', independent, of the ring that replies may be switched to (ctx->reply); NULL: the set has none */
    const hemi_context *ctx;
    int8_t *s;               /* n coefficients in {-1, 0, 1} */
    uint64_t *s_q, *s_p;     /* NTT form over q and P (NULL without P), fixed form */
    uint64_t *storage;
} hemi_secret_key;

HEMI_CHECK hemi_status hemi_secret_key_new(hemi_secret_key **out, const hemi_context *ctx, hemi_error *err);
/* For tests and for key files: from given coefficients, which must be ternary: n of s, then, where the set has a ring of replies, n/2 of
 * s'. */
HEMI_CHECK hemi_status hemi_secret_key_from(hemi_secret_key **out, const hemi_context *ctx, const int8_t *s, hemi_error *err);
void hemi_secret_key_free(hemi_secret_key *key);

/* Key files (secret/file.h), of s and of s'. The caller wipes the buffer. */
size_t hemi_secret_key_file_bytes(const hemi_params *params);
void hemi_secret_key_export(uint8_t *out, const hemi_secret_key *key);
HEMI_CHECK hemi_status hemi_secret_key_import(hemi_secret_key **out, const hemi_context *ctx, const uint8_t *bytes, size_t count,
                                              hemi_error *err);

/* One entry of evaluation keys, in wire form (hemi_key_entry_bytes(params, t) bytes): the public key for t = 0, the ring-
 * switching key from s to s' for HEMI_KEY_RING_SWITCH, otherwise the key-switching key from s(X^t) to s. Fresh seed, fresh error. */
HEMI_CHECK hemi_status hemi_secret_make_key(const hemi_secret_key *key, uint32_t t, uint8_t *out, hemi_error *err);

#endif
