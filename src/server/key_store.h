/* Clients' evaluation keys, expanded, in memory: a table by key id, bounded in bytes. The least recently used make room;
 * a client whose key is gone gets ERR_KEY and uploads it again. */
#ifndef HEMI_SERVER_KEY_STORE_H
#define HEMI_SERVER_KEY_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/server.h"

typedef struct hemi_key_store hemi_key_store;

/* NULL without memory. */
hemi_key_store *hemi_key_store_new(size_t bytes_max);
/* No key may be in use any more. */
void hemi_key_store_free(hemi_key_store *store);

/* Takes over `keys` in every case. *created: false when these keys were there already. ERR_TOO_LARGE when they alone are
 * more than the store may hold; ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_key_store_put(hemi_key_store *store, hemi_server_keys *keys, bool *created,
                                          hemi_error *err);
/* NULL if there are none under this id. Given back with hemi_key_store_release; they outlive deletion and eviction until then. */
const hemi_server_keys *hemi_key_store_acquire(hemi_key_store *store, const uint8_t id[HEMI_KEY_ID_BYTES]);
void hemi_key_store_release(hemi_key_store *store, const hemi_server_keys *keys);
bool hemi_key_store_has(hemi_key_store *store, const uint8_t id[HEMI_KEY_ID_BYTES]);
/* True if they were there. */
bool hemi_key_store_remove(hemi_key_store *store, const uint8_t id[HEMI_KEY_ID_BYTES]);

typedef struct hemi_key_store_figures {
    size_t keys, bytes;
    unsigned long long evicted; /* since start */
} hemi_key_store_figures;
hemi_key_store_figures hemi_key_store_get_figures(hemi_key_store *store);

#endif
