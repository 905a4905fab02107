#include "server/key_store.h"

#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

#define BUCKETS 1024 /* ids are hashes: their first bytes spread well */

typedef struct entry {
    hemi_server_keys *keys;
    size_t bytes, users;
    bool listed; /* in the table; otherwise it is freed by its last user */
    struct entry *newer, *older;
    struct entry *next; /* in the bucket, or in the list of those removed while in use */
} entry;

struct hemi_key_store {
    pthread_mutex_t lock;
    size_t bytes, bytes_max, count;
    unsigned long long evicted;
    entry *newest, *oldest, *removed;
    entry *bucket[BUCKETS];
};

hemi_key_store *hemi_key_store_new(size_t bytes_max) {
    hemi_key_store *store = hemi_alloc(1, sizeof *store);
    if (!store) return NULL;
    pthread_mutex_init(&store->lock, NULL);
    store->bytes_max = bytes_max;
    return store;
}

static entry **bucket_of(hemi_key_store *store, const uint8_t *id) {
    return &store->bucket[(id[0] | id[1] << 8) % BUCKETS];
}

static entry *find(hemi_key_store *store, const uint8_t *id) {
    entry *e = *bucket_of(store, id);
    while (e && memcmp(hemi_server_keys_id(e->keys), id, HEMI_KEY_ID_BYTES) != 0) e = e->next;
    return e;
}

static void entry_free(entry *e) {
    hemi_server_keys_free(e->keys);
    hemi_free(e);
}

static void unlink_use(hemi_key_store *store, entry *e) {
    *(e->newer ? &e->newer->older : &store->newest) = e->older;
    *(e->older ? &e->older->newer : &store->oldest) = e->newer;
    e->newer = e->older = NULL;
}

static void link_newest(hemi_key_store *store, entry *e) {
    e->older = store->newest;
    *(e->older ? &e->older->newer : &store->oldest) = e;
    store->newest = e;
}

/* Takes e out of the list that begins at *head. */
static void unlink_from(entry **head, entry *e) {
    while (*head != e) head = &(*head)->next;
    *head = e->next;
    e->next = NULL;
}

/* Out of the table; memory goes now, or with the last user. */
static void take_out(hemi_key_store *store, entry *e) {
    unlink_from(bucket_of(store, hemi_server_keys_id(e->keys)), e);
    unlink_use(store, e);
    store->bytes -= e->bytes;
    store->count--;
    e->listed = false;
    if (e->users == 0) {
        entry_free(e);
        return;
    }
    e->next = store->removed;
    store->removed = e;
}

void hemi_key_store_free(hemi_key_store *store) {
    if (!store) return;
    while (store->oldest) take_out(store, store->oldest);
    pthread_mutex_destroy(&store->lock);
    hemi_free(store);
}

static void put_locked(hemi_key_store *store, entry *e) {
    while (store->oldest && store->bytes > store->bytes_max - e->bytes) {
        take_out(store, store->oldest);
        store->evicted++;
    }
    entry **bucket = bucket_of(store, hemi_server_keys_id(e->keys));
    e->listed = true;
    e->next = *bucket;
    *bucket = e;
    link_newest(store, e);
    store->bytes += e->bytes;
    store->count++;
}

hemi_status hemi_key_store_put(hemi_key_store *store, hemi_server_keys *keys, bool *created, hemi_error *err) {
    const size_t bytes = hemi_server_keys_bytes(keys);
    *created = false;
    entry *e = bytes <= store->bytes_max ? hemi_alloc(1, sizeof *e) : NULL;
    if (!e) {
        hemi_server_keys_free(keys);
        if (bytes <= store->bytes_max) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for evaluation keys");
        return hemi_fail(err, HEMI_ERR_TOO_LARGE,
                         "these evaluation keys take %zu bytes of memory; this server keeps %zu for the "
                         "keys of all clients (its operator can raise --max-keys-bytes)",
                         bytes, store->bytes_max);
    }
    e->keys = keys;
    e->bytes = bytes;
    pthread_mutex_lock(&store->lock);
    entry *there = find(store, hemi_server_keys_id(keys));
    if (there) {
        unlink_use(store, there);
        link_newest(store, there);
    } else {
        put_locked(store, e);
        *created = true;
    }
    pthread_mutex_unlock(&store->lock);
    if (there) entry_free(e);
    return HEMI_OK;
}

const hemi_server_keys *hemi_key_store_acquire(hemi_key_store *store, const uint8_t id[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&store->lock);
    entry *e = find(store, id);
    if (e) {
        e->users++;
        unlink_use(store, e);
        link_newest(store, e);
    }
    pthread_mutex_unlock(&store->lock);
    return e ? e->keys : NULL;
}

void hemi_key_store_release(hemi_key_store *store, const hemi_server_keys *keys) {
    if (!keys) return;
    pthread_mutex_lock(&store->lock);
    entry *e = find(store, hemi_server_keys_id(keys));
    if (!e || e->keys != keys) /* removed, perhaps uploaded again since */
        for (e = store->removed; e->keys != keys;) e = e->next;
    if (--e->users == 0 && !e->listed) {
        unlink_from(&store->removed, e);
        entry_free(e);
    }
    pthread_mutex_unlock(&store->lock);
}

bool hemi_key_store_has(hemi_key_store *store, const uint8_t id[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&store->lock);
    const bool found = find(store, id) != NULL;
    pthread_mutex_unlock(&store->lock);
    return found;
}

bool hemi_key_store_remove(hemi_key_store *store, const uint8_t id[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&store->lock);
    entry *e = find(store, id);
    if (e) take_out(store, e);
    pthread_mutex_unlock(&store->lock);
    return e != NULL;
}

hemi_key_store_figures hemi_key_store_get_figures(hemi_key_store *store) {
    pthread_mutex_lock(&store->lock);
    const hemi_key_store_figures f = {.keys = store->count, .bytes = store->bytes, .evicted = store->evicted};
    pthread_mutex_unlock(&store->lock);
    return f;
}
