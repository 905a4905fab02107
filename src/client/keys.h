/* Secret keys by parameter set, and what is remembered with them. Internal to the room. */
#ifndef HEMI_CLIENT_KEYS_H
#define HEMI_CLIENT_KEYS_H

#include "client/keys_ckks.h"
#include "hemi/client.h"
#include "secret/key.h"

/* The secret key of a set, made or read if need be; owned by keys. Until hemi_keys_let_go, hemi_keys_generate waits: no thread uses a key
 * that another replaces. Not twice at once by one thread: a replacer may wait in between. *generation: of the key. */
HEMI_CHECK hemi_status hemi_keys_hold(hemi_keys *keys, const hemi_params *params, const hemi_secret_key **out, uint64_t *generation,
                                      hemi_error *err);
/* The same of a levelled set. */
HEMI_CHECK hemi_status hemi_keys_hold_ckks(hemi_keys *keys, const hemi_params *params, const hemi_ckks_secret **out, uint64_t *generation,
                                           hemi_error *err);
void hemi_keys_let_go(hemi_keys *keys);
/* Evaluation keys with the public key alone, for a set or a use that needs no automorphism: the bytes that hemi_keys_evaluation gives
 * for modules of a set without key switching. */
HEMI_CHECK hemi_status hemi_keys_public(hemi_keys *keys, const hemi_params *params, uint8_t **bytes, size_t *length, hemi_error *err);
/* Evaluation keys of a levelled set. progress (may be NULL) is called by this thread while keys are made; it must not use `keys`. */
HEMI_CHECK hemi_status hemi_keys_levelled(hemi_keys *keys, const hemi_params *params, const hemi_ckks_need *need, hemi_progress_fn progress,
                                          void *context, uint8_t **bytes, size_t *length, hemi_error *err);

/* Grows whenever hemi_keys_generate replaces a key: evaluation keys made before are of no use then. */
uint64_t hemi_keys_generation(hemi_keys *keys);

/* Replies to zero rows (a module's bias as the server adds it), remembered by module id. get: false if there is none;
 * b0 has `outputs` numbers, or is NULL. */
bool hemi_keys_bias_get(hemi_keys *keys, const uint8_t id[HEMI_MODULE_ID_BYTES], double *b0, size_t outputs);
HEMI_CHECK hemi_status hemi_keys_bias_put(hemi_keys *keys, const uint8_t id[HEMI_MODULE_ID_BYTES], const double *b0, size_t outputs,
                                          hemi_error *err);

#endif
