/* What was computed of clients' batches before their rows came (linear/batch.h): a cache by tag, bounded in bytes, in bytes and number of
 * each client's, and in time. What is not there is computed anew from the same numbers, with the same result: losing it costs time only. */
#ifndef HEMI_SERVER_PREPARED_H
#define HEMI_SERVER_PREPARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/server.h"
#include "linear/batch.h"
#include "wire/batch.h"

/* What the state of a batch follows from, apart from the secrets of the server and the module's weights: key id, module id, seed,
 * LE32 of the rows in use. */
#define HEMI_BATCH_NAME_BYTES (HEMI_KEY_ID_BYTES + HEMI_MODULE_ID_BYTES + HEMI_SEED_BYTES + 4)

typedef struct hemi_prepared_limits {
    size_t bytes, key_bytes; /* of all clients; of one */
    size_t key_batches;      /* of one client */
    double expiry_ms;        /* since it was last used */
} hemi_prepared_limits;

typedef struct hemi_prepared hemi_prepared;

/* NULL without memory. Two secrets of this process are drawn: without them neither a tag nor an encryption of zero can be foreseen. */
hemi_prepared *hemi_prepared_new(const hemi_prepared_limits *limits);
/* No state may be in use any more. */
void hemi_prepared_free(hemi_prepared *prepared);

void hemi_batch_name(uint8_t name[HEMI_BATCH_NAME_BYTES], const uint8_t key[HEMI_KEY_ID_BYTES],
                     const hemi_batch_request *r, size_t module);
/* BLAKE2b of the name under a secret: an earlier process, or another server, gives another tag. */
void hemi_prepared_tag(const hemi_prepared *prepared, uint8_t tag[HEMI_BATCH_TAG_BYTES],
                       const uint8_t name[HEMI_BATCH_NAME_BYTES]);
/* For hemi_batch_prepare: what encryptions of zero are derived from, together with the name. */
const uint8_t *hemi_prepared_secret(const hemi_prepared *prepared);

/* Would a state of this size be kept? ERR_LIMIT says what is allowed. */
HEMI_CHECK hemi_status hemi_prepared_fits(const hemi_prepared *prepared, size_t bytes, hemi_error *err);
/* NULL if it is not there. Given back with hemi_prepared_release; it outlives eviction until then. */
const hemi_batch_state *hemi_prepared_acquire(hemi_prepared *prepared, const uint8_t tag[HEMI_BATCH_TAG_BYTES]);
/* Takes over a state and gives back one to use, the same or one that came earlier: to be released. Where it does not fit, others make
 * room: the client's own first, then those of the tenant that holds the most (*held: bytes that this client's has here, identity.h; NULL: nobody's in
 * particular). NULL: no memory (the state is freed). */
const hemi_batch_state *hemi_prepared_put(hemi_prepared *prepared, const uint8_t key[HEMI_KEY_ID_BYTES],
                                          const uint8_t tag[HEMI_BATCH_TAG_BYTES], hemi_batch_state *state, size_t *held);
void hemi_prepared_release(hemi_prepared *prepared, const hemi_batch_state *state);
/* All of a client's. */
void hemi_prepared_forget(hemi_prepared *prepared, const uint8_t key[HEMI_KEY_ID_BYTES]);
void hemi_prepared_expire(hemi_prepared *prepared);

/* Announcements under way: false when this client has too many. */
bool hemi_prepared_begin(hemi_prepared *prepared, const uint8_t key[HEMI_KEY_ID_BYTES]);
void hemi_prepared_end(hemi_prepared *prepared, const uint8_t key[HEMI_KEY_ID_BYTES]);

typedef struct hemi_prepared_figures {
    size_t batches, bytes, bytes_max, announced;       /* announced: under way */
    unsigned long long hits, misses, evicted, expired; /* since start */
} hemi_prepared_figures;
hemi_prepared_figures hemi_prepared_get_figures(hemi_prepared *prepared);

#endif
