/* Clients' evaluation keys, expanded, in memory: a table by id (of the tenant and the key: identity.h), bounded in bytes. Of the
 * tenant that holds the most the least recently used make room; they are read from the store again, or, where there is none, uploaded again by their client. */
#ifndef HEMI_SERVER_KEY_CACHE_H
#define HEMI_SERVER_KEY_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/server.h"

typedef struct hemi_key_cache hemi_key_cache;

/* NULL without memory. */
hemi_key_cache *hemi_key_cache_new(size_t bytes_max);
/* Another bound; what is too much by it goes when the next keys come. */
void hemi_key_cache_set_max(hemi_key_cache *cache, size_t bytes_max);
/* No key may be in use any more. */
void hemi_key_cache_free(hemi_key_cache *cache);

/* ERR_TOO_LARGE when they alone are more than the cache may hold. */
HEMI_CHECK hemi_status hemi_key_cache_fits(const hemi_key_cache *cache, const hemi_server_keys *keys, hemi_error *err);
/* Is it `every_ms` since it was last asked of these keys? Then it counts as asked. */
bool hemi_key_cache_is_due(hemi_key_cache *cache, const uint8_t id[HEMI_KEY_ID_BYTES], double every_ms);
/* Takes over `keys` in every case. *held: bytes that their tenant has here (identity.h), which outlives the cache; NULL: nobody's in particular. *created: false when these keys were there already. ERR_TOO_LARGE when they alone are
 * more than the store may hold; ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_key_cache_put(hemi_key_cache *cache, hemi_server_keys *keys, size_t *held, bool *created,
                                          hemi_error *err);
/* NULL if there are none under this id. Given back with hemi_key_cache_release; they outlive deletion and eviction until then. */
const hemi_server_keys *hemi_key_cache_acquire(hemi_key_cache *cache, const uint8_t id[HEMI_KEY_ID_BYTES]);
void hemi_key_cache_release(hemi_key_cache *cache, const hemi_server_keys *keys);
bool hemi_key_cache_has(hemi_key_cache *cache, const uint8_t id[HEMI_KEY_ID_BYTES]);
/* True if they were there. */
bool hemi_key_cache_remove(hemi_key_cache *cache, const uint8_t id[HEMI_KEY_ID_BYTES]);

typedef struct hemi_key_cache_figures {
    size_t keys, bytes;
    unsigned long long evicted; /* since start */
} hemi_key_cache_figures;
hemi_key_cache_figures hemi_key_cache_get_figures(hemi_key_cache *cache);

#endif
