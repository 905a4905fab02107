/* Silent preparation: lots (lot.h) that a thread of the client announces ahead, and their row numbers ("slots"), each of which is handed
 * out once. The rules that this file keeps (docs/threat-model.md, "Slots"):
 *   - a seed comes from this process's generator, lives in memory only, and is announced once;
 *   - a slot is taken under a lock before anything is encrypted with it, and never comes back, whatever becomes of the request;
 *   - in a forked child there are none: what the parent announced stays the parent's alone;
 *   - a new secret key, or a server that no longer knows the lot, ends it. */
#ifndef HEMI_CLIENT_POOL_H
#define HEMI_CLIENT_POOL_H

#include "client/http.h"
#include "client/lot.h"

#define HEMI_POOL_CALLS         2    /* calls of a module before its first lot is announced, in mode auto */
#define HEMI_POOL_SLOTS         256u /* of the first lot; doubled each time that one is used up */
#define HEMI_POOL_SLOTS_MOST    1024u
#define HEMI_POOL_SLOTS_LEAST   16u                 /* fewer are not worth a download of second components */
#define HEMI_POOL_MEMORY        ((size_t)256 << 20) /* pads and masks of all lots of a client */
#define HEMI_POOL_SHARE         8                   /* one lot has at most this part of it, in mode auto */
#define HEMI_POOL_SECONDS_BYTES ((size_t)32 << 20)  /* of a lot: where they are larger, mode auto does not announce */
#define HEMI_POOL_LOTS_MAX      3                   /* of one pool */
#define HEMI_POOL_PAUSE_MS      5000.0              /* after an announcement that failed */

typedef struct hemi_pools hemi_pools; /* those of one client */
typedef struct hemi_pool hemi_pool;   /* of one module, or of several with the same input */

/* Has a connection of its own, like `like` (borrowed, as keys are). options: prepare, prepare_rows, prepare_bytes. */
HEMI_CHECK hemi_status hemi_pools_new(hemi_pools **out, const hemi_http *like, hemi_keys *keys,
                                      const hemi_client_options *options, hemi_error *err);
void hemi_pools_free(hemi_pools *pools); /* ends the thread; takes NULL */

/* The pool of these modules of a model, made when first asked for; lives as long as pools. NULL in *out where batches are not possible. */
HEMI_CHECK hemi_status hemi_pools_get(hemi_pools *pools, hemi_pool **out, const char *model,
                                      const hemi_module *const *modules, size_t count, hemi_error *err);
/* Its copies of the modules. */
const hemi_module *const *hemi_pool_modules(const hemi_pool *pool, size_t *count);

/* `rows` slots next to each other, for good: *first of *lot; false when there are none. One caller at a time uses a pool's lots. */
bool hemi_pool_take(hemi_pool *pool, uint32_t rows, hemi_lot **lot, uint32_t *first);
/* After a call. lot: one it took slots of, and is done with, or NULL; gone: the server no longer knows it. Sees to it that there is a next lot. */
void hemi_pool_done(hemi_pool *pool, hemi_lot *lot, bool gone);
size_t hemi_pool_slots(hemi_pool *pool); /* left */
/* Announces a lot with at least `rows` slots now, unless there are as many already; on `http`. By the caller that uses the pool's lots. */
HEMI_CHECK hemi_status hemi_pool_fill(hemi_pool *pool, hemi_http *http, uint32_t rows, hemi_error *err);

#endif
