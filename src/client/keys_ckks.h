/* Evaluation keys of one levelled set: what they must serve, and those that were made. Internal to the room. */
#ifndef HEMI_CLIENT_KEYS_CKKS_H
#define HEMI_CLIENT_KEYS_CKKS_H

#include "base/progress.h"
#include "circuit/io.h"
#include "secret/ckks.h"
#include "wire/ckks.h"

/* What keys must serve: ciphertexts of at most so many limbs, and these entries beside the public key. */
typedef struct hemi_ckks_need {
    uint32_t limbs;
    size_t count;
    uint32_t t[HEMI_CKKS_KEYS_MAX - 1]; /* increasing */
} hemi_ckks_need;

/* Makes it serve a circuit too; *more: it did not. ERR_LIMIT, and nothing is changed, when that takes too many entries. */
HEMI_CHECK hemi_status hemi_ckks_need_add(hemi_ckks_need *need, const hemi_circuit_io *io, bool *more, hemi_error *err);

/* Entries that were made, kept so that the same request gives the same bytes. All are for ciphertexts of `limbs` limbs: those for fewer are
 * cut from them, and dropped when more are asked for. One user at a time. */
typedef struct hemi_ckks_store {
    uint32_t limbs;
    size_t count;
    struct hemi_ckks_entry *entry;
} hemi_ckks_store;

void hemi_ckks_store_clear(hemi_ckks_store *store);
/* Evaluation keys (wire/ckks.h) that serve `need`, freed with hemi_free. What is missing is made by all processors; progress (may be NULL) is
 * called by this thread: "make keys". */
HEMI_CHECK hemi_status hemi_ckks_store_keys(hemi_ckks_store *store, const hemi_ckks_secret *secret, const hemi_ckks_need *need,
                                            hemi_progress_fn progress, void *context, uint8_t **bytes, size_t *length, hemi_error *err);

#endif
