#include "server/key_cache.h"

#include <pthread.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"

#define BUCKETS 1024 /* ids are hashes: their first bytes spread well */

typedef struct entry {
    hemi_server_keys *keys;
    size_t bytes, users;
    size_t *held; /* its tenant's bytes here */
    double asked_ms; /* when the cache was last asked whether it still has them */
    bool listed; /* in the table; otherwise it is freed by its last user */
    struct entry *newer, *older;
    struct entry *next; /* in the bucket, or in the list of those removed while in use */
} entry;

struct hemi_key_cache {
    pthread_mutex_t lock;
    size_t bytes, bytes_max, count;
    size_t held; /* of nobody in particular */
    unsigned long long evicted;
    entry *newest, *oldest, *removed;
    entry *bucket[BUCKETS];
};

hemi_key_cache *hemi_key_cache_new(size_t bytes_max) {
    hemi_key_cache *cache = hemi_alloc(1, sizeof *cache);
    if (!cache) return NULL;
    pthread_mutex_init(&cache->lock, NULL);
    cache->bytes_max = bytes_max;
    return cache;
}

void hemi_key_cache_set_max(hemi_key_cache *cache, size_t bytes_max) {
    pthread_mutex_lock(&cache->lock);
    cache->bytes_max = bytes_max;
    pthread_mutex_unlock(&cache->lock);
}

static entry **bucket_of(hemi_key_cache *cache, const uint8_t *id) {
    return &cache->bucket[(id[0] | id[1] << 8) % BUCKETS];
}

static entry *find(hemi_key_cache *cache, const uint8_t *id) {
    entry *e = *bucket_of(cache, id);
    while (e && memcmp(hemi_server_keys_id(e->keys), id, HEMI_KEY_ID_BYTES) != 0) e = e->next;
    return e;
}

static void entry_free(entry *e) {
    hemi_server_keys_free(e->keys);
    hemi_free(e);
}

static void unlink_use(hemi_key_cache *cache, entry *e) {
    *(e->newer ? &e->newer->older : &cache->newest) = e->older;
    *(e->older ? &e->older->newer : &cache->oldest) = e->newer;
    e->newer = e->older = NULL;
}

static void link_newest(hemi_key_cache *cache, entry *e) {
    e->older = cache->newest;
    *(e->older ? &e->older->newer : &cache->oldest) = e;
    cache->newest = e;
}

/* Takes e out of the list that begins at *head. */
static void unlink_from(entry **head, entry *e) {
    while (*head != e) head = &(*head)->next;
    *head = e->next;
    e->next = NULL;
}

/* Out of the table; memory goes now, or with the last user. */
static void take_out(hemi_key_cache *cache, entry *e) {
    unlink_from(bucket_of(cache, hemi_server_keys_id(e->keys)), e);
    unlink_use(cache, e);
    cache->bytes -= e->bytes;
    *e->held -= e->bytes;
    cache->count--;
    e->listed = false;
    if (e->users == 0) {
        entry_free(e);
        return;
    }
    e->next = cache->removed;
    cache->removed = e;
}

void hemi_key_cache_free(hemi_key_cache *cache) {
    if (!cache) return;
    while (cache->oldest) take_out(cache, cache->oldest);
    pthread_mutex_destroy(&cache->lock);
    hemi_free(cache);
}

/* The oldest of the tenant that holds the most. */
static entry *first_to_go(const hemi_key_cache *cache) {
    entry *first = cache->oldest;
    for (entry *e = first; e; e = e->newer)
        if (*e->held > *first->held) first = e;
    return first;
}

static void put_locked(hemi_key_cache *cache, entry *e) {
    *e->held += e->bytes;
    while (cache->oldest && cache->bytes + e->bytes > cache->bytes_max) {
        take_out(cache, first_to_go(cache));
        cache->evicted++;
    }
    entry **bucket = bucket_of(cache, hemi_server_keys_id(e->keys));
    e->listed = true;
    e->next = *bucket;
    *bucket = e;
    link_newest(cache, e);
    cache->bytes += e->bytes;
    cache->count++;
}

hemi_status hemi_key_cache_fits(const hemi_key_cache *cache, const hemi_server_keys *keys, hemi_error *err) {
    const size_t bytes = hemi_server_keys_bytes(keys);
    if (bytes <= cache->bytes_max) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_TOO_LARGE,
                     "these evaluation keys take %zu bytes of memory; this server keeps %zu for the "
                     "keys of all clients (its operator can raise --max-keys-bytes)",
                     bytes, cache->bytes_max);
}

bool hemi_key_cache_is_due(hemi_key_cache *cache, const uint8_t id[HEMI_KEY_ID_BYTES], double every_ms) {
    const double now = hemi_now_ms();
    pthread_mutex_lock(&cache->lock);
    entry *e = find(cache, id);
    const bool due = e && now - e->asked_ms > every_ms;
    if (due) e->asked_ms = now;
    pthread_mutex_unlock(&cache->lock);
    return due;
}

hemi_status hemi_key_cache_put(hemi_key_cache *cache, hemi_server_keys *keys, size_t *held, bool *created, hemi_error *err) {
    const hemi_status fits = hemi_key_cache_fits(cache, keys, err);
    *created = false;
    entry *e = fits == HEMI_OK ? hemi_alloc(1, sizeof *e) : NULL;
    if (!e) {
        hemi_server_keys_free(keys);
        return fits == HEMI_OK ? hemi_fail(err, HEMI_ERR_MEMORY, "no memory for evaluation keys") : fits;
    }
    e->keys = keys;
    e->bytes = hemi_server_keys_bytes(keys);
    e->held = held ? held : &cache->held;
    e->asked_ms = hemi_now_ms();
    pthread_mutex_lock(&cache->lock);
    entry *there = find(cache, hemi_server_keys_id(keys));
    if (there) {
        unlink_use(cache, there);
        link_newest(cache, there);
    } else {
        put_locked(cache, e);
        *created = true;
    }
    pthread_mutex_unlock(&cache->lock);
    if (there) entry_free(e);
    return HEMI_OK;
}

const hemi_server_keys *hemi_key_cache_acquire(hemi_key_cache *cache, const uint8_t id[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&cache->lock);
    entry *e = find(cache, id);
    if (e) {
        e->users++;
        unlink_use(cache, e);
        link_newest(cache, e);
    }
    pthread_mutex_unlock(&cache->lock);
    return e ? e->keys : NULL;
}

void hemi_key_cache_release(hemi_key_cache *cache, const hemi_server_keys *keys) {
    if (!keys) return;
    pthread_mutex_lock(&cache->lock);
    entry *e = find(cache, hemi_server_keys_id(keys));
    if (!e || e->keys != keys) /* removed, perhaps uploaded again since */
        for (e = cache->removed; e->keys != keys;) e = e->next;
    if (--e->users == 0 && !e->listed) {
        unlink_from(&cache->removed, e);
        entry_free(e);
    }
    pthread_mutex_unlock(&cache->lock);
}

bool hemi_key_cache_has(hemi_key_cache *cache, const uint8_t id[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&cache->lock);
    const bool found = find(cache, id) != NULL;
    pthread_mutex_unlock(&cache->lock);
    return found;
}

bool hemi_key_cache_remove(hemi_key_cache *cache, const uint8_t id[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&cache->lock);
    entry *e = find(cache, id);
    if (e) take_out(cache, e);
    pthread_mutex_unlock(&cache->lock);
    return e != NULL;
}

hemi_key_cache_figures hemi_key_cache_get_figures(hemi_key_cache *cache) {
    pthread_mutex_lock(&cache->lock);
    const hemi_key_cache_figures f = {.keys = cache->count, .bytes = cache->bytes, .evicted = cache->evicted};
    pthread_mutex_unlock(&cache->lock);
    return f;
}
