/* Clients' evaluation keys: as uploaded in the store, expanded in the cache in front of it. All that waits for the store is done on a worker. */
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "server/evaluate.h"
#include "server/exchange.h"
#include "wire/ckks.h"

/* Keys that are being read from the store: who needs the same ones waits, as expanding them takes memory and seconds. */
typedef struct loading {
    const uint8_t *slot;
    struct loading *next;
} loading;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t loaded = PTHREAD_COND_INITIALIZER;
static loading *first;

static bool is_loading(const uint8_t *slot) {
    for (const loading *l = first; l; l = l->next)
        if (memcmp(l->slot, slot, HEMI_KEY_ID_BYTES) == 0) return true;
    return false;
}

static void load_begin(loading *own, const uint8_t *slot) {
    own->slot = slot;
    pthread_mutex_lock(&lock);
    while (is_loading(slot)) pthread_cond_wait(&loaded, &lock);
    own->next = first;
    first = own;
    pthread_mutex_unlock(&lock);
}

static void load_end(loading *own) {
    pthread_mutex_lock(&lock);
    loading **at = &first;
    while (*at != own) at = &(*at)->next;
    *at = own->next;
    pthread_cond_broadcast(&loaded);
    pthread_mutex_unlock(&lock);
}

static bool is_kept(const hemi_service *s) { return s->store != NULL; }

/* That some module here uses keys of this set, and that there is room for them when they are expanded. */
static hemi_status check_use(hemi_exchange *x, const uint8_t *bytes, size_t count, hemi_error *err) {
    const hemi_service *s = x->service;
    const hemi_params *params;
    size_t entries, memory = 0; /* those for linear maps are small */
    uint32_t limbs;
    if (hemi_ckks_keys_is(bytes, count)) {
        HEMI_TRY(hemi_ckks_keys_read_header(bytes, count, &params, &limbs, &entries, err)); /* the rest: hemi_server_keys_load */
        memory = hemi_ckks_keys_memory(params, limbs, entries - 1);
    } else {
        HEMI_TRY(hemi_keys_check(bytes, count, &params, &entries, err));
    }
    if (!hemi_registry_has_params(x->registry, params))
        return hemi_fail(err, HEMI_ERR_PARAMS, "the keys are of set %s, which no module of this server uses", params->name);
    if (memory > s->keys_bytes_max)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE,
                         "these evaluation keys take %zu bytes of memory; this server keeps %zu for the keys of all clients (its operator "
                         "can raise --max-keys-bytes)",
                         memory, s->keys_bytes_max);
    return HEMI_OK;
}

/* Checked and expanded; those of circuits by all idle workers. */
static hemi_status expand(hemi_exchange *x, const uint8_t *bytes, size_t count, hemi_server_keys **keys, hemi_error *err) {
    *keys = NULL;
    HEMI_TRY(check_use(x, bytes, count, err));
    hemi_team *team = hemi_ckks_keys_is(bytes, count) ? hemi_team_new(hemi_compute_threads(x->service)) : NULL;
    const hemi_status status = hemi_server_keys_load(keys, bytes, count, x->slot, team, err);
    hemi_team_free(team);
    return status;
}

/* ---- put */

static hemi_status check_hash(const hemi_exchange *x, const hemi_upload *upload, hemi_error *err) {
    uint8_t hash[HEMI_KEY_ID_BYTES];
    (void)crypto_generichash(hash, sizeof hash, upload->bytes, upload->total, NULL, 0);
    if (memcmp(hash, x->key, sizeof hash) == 0) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_FORMAT, "the BLAKE2b-256 hash of these %zu bytes is not the one in the path: the upload was damaged", upload->total);
}

/* The store last, once it is sure that the keys are what they should be; then the cache, which is of this process. */
static hemi_status put(hemi_exchange *x, const hemi_upload *upload, bool *created, hemi_error *err) {
    hemi_service *s = x->service;
    hemi_server_keys *keys = NULL;
    bool cached = false;
    HEMI_TRY(check_hash(x, upload, err));
    HEMI_TRY(expand(x, upload->bytes, upload->total, &keys, err));
    hemi_status status = hemi_key_cache_fits(s->keys, keys, err);
    if (status == HEMI_OK && is_kept(s))
        status = hemi_store_key_put(s->store, x->tenant->name, x->key, upload->bytes, upload->total, s->tenant_keys_bytes, time(NULL), created, err);
    if (status != HEMI_OK) {
        hemi_server_keys_free(keys);
        return status;
    }
    HEMI_TRY(hemi_key_cache_put(s->keys, keys, &x->tenant->held[HEMI_HELD_KEYS], &cached, err));
    if (!is_kept(s)) *created = cached;
    return HEMI_OK;
}

static void put_keys(hemi_exchange *x) {
    hemi_error err = {0};
    bool created = false;
    const hemi_status status = put(x, x->upload, &created, &err);
    hemi_upload_free(x->upload);
    x->upload = NULL;
    if (status != HEMI_OK)
        hemi_answer_error(x, 0, status, "%s", err.message);
    else
        hemi_answer_empty(x, created ? MHD_HTTP_CREATED : MHD_HTTP_OK);
}

/* ---- use */

/* Into the cache. */
static hemi_status load(hemi_exchange *x, hemi_error *err) {
    hemi_service *s = x->service;
    hemi_server_keys *keys = NULL;
    uint8_t *bytes;
    size_t count;
    bool created;
    HEMI_TRY(hemi_store_key_get(s->store, x->tenant->name, x->key, time(NULL), &bytes, &count, err));
    hemi_status status = expand(x, bytes, count, &keys, err);
    free(bytes);
    if (status == HEMI_OK) status = hemi_key_cache_put(s->keys, keys, &x->tenant->held[HEMI_HELD_KEYS], &created, err);
    return status;
}

/* Another server, or the expiry, may have removed what is in our memory: seen within HEMI_SERVER_KEY_RECHECK_MS. A store that cannot be reached
 * takes nothing away from who has been using his keys. */
static bool is_gone(hemi_exchange *x) {
    hemi_service *s = x->service;
    hemi_error err = {0};
    bool has = true;
    if (!is_kept(s) || !hemi_key_cache_is_due(s->keys, x->slot, HEMI_SERVER_KEY_RECHECK_MS)) return false;
    if (hemi_store_key_touch(s->store, x->tenant->name, x->key, time(NULL), &has, &err) != HEMI_OK) {
        hemi_service_store_failed(s, &err);
        return false;
    }
    if (!has) hemi_keys_forget(s, x->slot);
    return !has;
}

const hemi_server_keys *hemi_keys_acquire(hemi_exchange *x) {
    hemi_service *s = x->service;
    hemi_error err = {.message = "this server does not have these evaluation keys (any more)"};
    hemi_status status = HEMI_ERR_KEY;
    loading own;
    const hemi_server_keys *keys = is_gone(x) ? NULL : hemi_key_cache_acquire(s->keys, x->slot);
    if (!keys && is_kept(s)) {
        load_begin(&own, x->slot);
        keys = hemi_key_cache_acquire(s->keys, x->slot); /* who had them read before */
        status = keys ? HEMI_OK : load(x, &err);
        if (!keys && status == HEMI_OK) keys = hemi_key_cache_acquire(s->keys, x->slot);
        load_end(&own);
        if (!keys && status == HEMI_OK) { /* pushed out at once by others */
            status = HEMI_ERR_BUSY;
            (void)hemi_fail(&err, status, "there is no room for the evaluation keys now");
        }
    }
    if (keys) return keys;
    if (status == HEMI_ERR_IO) hemi_service_store_failed(s, &err);
    hemi_answer_error(x, status == HEMI_ERR_IO ? MHD_HTTP_SERVICE_UNAVAILABLE : 0, status, status == HEMI_ERR_KEY ? "%s: put them at /v2/keys/{hash} and send the same request again" : "%s",
                      err.message);
    return NULL;
}

/* ---- HEAD and DELETE */

static void head(hemi_exchange *x) {
    hemi_service *s = x->service;
    hemi_error err = {0};
    size_t received, total;
    bool has = !is_gone(x) && hemi_key_cache_has(s->keys, x->slot);
    if (!has && is_kept(s)) {
        const hemi_status status = hemi_store_key_touch(s->store, x->tenant->name, x->key, time(NULL), &has, &err);
        if (status != HEMI_OK) {
            hemi_service_store_failed(s, &err);
            hemi_answer_error(x, MHD_HTTP_SERVICE_UNAVAILABLE, status, "%s", err.message);
            return;
        }
    }
    if (has) {
        hemi_answer_empty(x, MHD_HTTP_OK);
        return;
    }
    if (hemi_uploads_peek(s->uploads, x->slot, &received, &total)) hemi_answer_header(x, "Hemi-Received", "%zu", received);
    hemi_answer_error(x, 0, HEMI_ERR_KEY, "these evaluation keys are not here");
}

void hemi_keys_forget(hemi_service *s, const uint8_t slot[HEMI_KEY_ID_BYTES]) {
    hemi_key_cache_remove(s->keys, slot);
    hemi_prepared_forget(s->prepared, slot);
    hemi_upload_free(hemi_uploads_take(s->uploads, slot));
}

/* The store first: what is gone there is not read again. */
static void remove_keys(hemi_exchange *x) {
    hemi_service *s = x->service;
    hemi_error err = {0};
    bool removed;
    const hemi_status status = is_kept(s) ? hemi_store_key_remove(s->store, x->tenant->name, x->key, &removed, &err) : HEMI_OK;
    if (status != HEMI_OK) {
        hemi_service_store_failed(s, &err);
        hemi_answer_error(x, MHD_HTTP_SERVICE_UNAVAILABLE, status, "%s", err.message);
        return;
    }
    hemi_keys_forget(s, x->slot);
    hemi_answer_empty(x, MHD_HTTP_NO_CONTENT);
}

void hemi_key_work(hemi_exchange *x) {
    switch (x->method) {
    case HEMI_METHOD_PUT:
        put_keys(x);
        break;
    case HEMI_METHOD_HEAD:
        head(x);
        break;
    default:
        remove_keys(x);
        break;
    }
}
