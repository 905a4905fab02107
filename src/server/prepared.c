#include "server/prepared.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "base/bits.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "server/limits.h"

#define BUCKETS      1024 /* tags are keyed hashes: their first bytes spread well, whatever a client sends */
#define SECRET_BYTES 32

typedef struct entry {
    uint8_t tag[HEMI_BATCH_TAG_BYTES], key[HEMI_KEY_ID_BYTES];
    hemi_batch_state *state;
    size_t bytes, users;
    size_t *held; /* its tenant's bytes here */
    double used_ms;
    bool listed; /* in the table; otherwise it is freed by its last user */
    struct entry *newer, *older;
    struct entry *next; /* in the bucket, or in the list of those removed while in use */
} entry;

struct hemi_prepared {
    pthread_mutex_t lock;
    hemi_prepared_limits limits;
    uint8_t tag_secret[SECRET_BYTES], zero_secret[SECRET_BYTES];
    hemi_prepared_figures figures;
    size_t held; /* of nobody in particular */
    entry *newest, *oldest, *removed;
    entry *bucket[BUCKETS];
    struct {
        uint8_t key[HEMI_KEY_ID_BYTES];
        size_t count; /* 0: free */
    } announced[HEMI_SERVER_PREPARES_MAX];
};

hemi_prepared *hemi_prepared_new(const hemi_prepared_limits *limits) {
    hemi_prepared *p = hemi_random_init() == 0 ? hemi_alloc(1, sizeof *p) : NULL;
    if (!p) return NULL;
    pthread_mutex_init(&p->lock, NULL);
    p->limits = *limits;
    p->figures.bytes_max = limits->bytes;
    hemi_seed_fresh(p->tag_secret);
    hemi_seed_fresh(p->zero_secret);
    return p;
}

/* ---- names and tags */

void hemi_batch_name(uint8_t name[HEMI_BATCH_NAME_BYTES], const uint8_t key[HEMI_KEY_ID_BYTES],
                     const hemi_batch_request *r, size_t module) {
    uint8_t *at = name;
    memcpy(at, key, HEMI_KEY_ID_BYTES);
    at += HEMI_KEY_ID_BYTES;
    memcpy(at, r->module[module].id, HEMI_MODULE_ID_BYTES);
    at += HEMI_MODULE_ID_BYTES;
    memcpy(at, r->seed, HEMI_SEED_BYTES);
    hemi_store32(at + HEMI_SEED_BYTES, r->slots);
}

void hemi_prepared_tag(const hemi_prepared *p, uint8_t tag[HEMI_BATCH_TAG_BYTES],
                       const uint8_t name[HEMI_BATCH_NAME_BYTES]) {
    (void)crypto_generichash(tag, HEMI_BATCH_TAG_BYTES, name, HEMI_BATCH_NAME_BYTES, p->tag_secret, SECRET_BYTES);
}

const uint8_t *hemi_prepared_secret(const hemi_prepared *p) { return p->zero_secret; }

/* ---- the table */

static entry **bucket_of(hemi_prepared *p, const uint8_t *tag) { return &p->bucket[(tag[0] | tag[1] << 8) % BUCKETS]; }

static entry *find(hemi_prepared *p, const uint8_t *tag) {
    entry *e = *bucket_of(p, tag);
    while (e && memcmp(e->tag, tag, HEMI_BATCH_TAG_BYTES) != 0) e = e->next;
    return e;
}

static void entry_free(entry *e) {
    hemi_batch_state_free(e->state);
    hemi_free(e);
}

static void unlink_use(hemi_prepared *p, entry *e) {
    *(e->newer ? &e->newer->older : &p->newest) = e->older;
    *(e->older ? &e->older->newer : &p->oldest) = e->newer;
    e->newer = e->older = NULL;
}

static void link_newest(hemi_prepared *p, entry *e) {
    e->used_ms = hemi_now_ms();
    e->older = p->newest;
    *(e->older ? &e->older->newer : &p->oldest) = e;
    p->newest = e;
}

static void unlink_from(entry **head, entry *e) {
    while (*head != e) head = &(*head)->next;
    *head = e->next;
    e->next = NULL;
}

/* Out of the table; memory goes now, or with the last user. */
static void take_out(hemi_prepared *p, entry *e) {
    unlink_from(bucket_of(p, e->tag), e);
    unlink_use(p, e);
    p->figures.bytes -= e->bytes;
    p->figures.batches--;
    *e->held -= e->bytes;
    e->listed = false;
    if (e->users == 0) {
        entry_free(e);
        return;
    }
    e->next = p->removed;
    p->removed = e;
}

void hemi_prepared_free(hemi_prepared *p) {
    if (!p) return;
    while (p->oldest) take_out(p, p->oldest);
    pthread_mutex_destroy(&p->lock);
    hemi_free(p); /* wipes */
}

hemi_status hemi_prepared_fits(const hemi_prepared *p, size_t bytes, hemi_error *err) {
    const size_t most = p->limits.key_bytes < p->limits.bytes ? p->limits.key_bytes : p->limits.bytes;
    if (bytes <= most && sizeof(entry) <= most - bytes) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_LIMIT,
                     "preparing this batch takes %zu bytes; this server keeps %zu for one client: announce fewer rows "
                     "(its operator can raise --prepared-memory)",
                     bytes, most);
}

/* The oldest of the tenant that holds the most. */
static entry *first_to_go(const hemi_prepared *p) {
    entry *first = p->oldest;
    for (entry *e = first; e; e = e->newer)
        if (*e->held > *first->held) first = e;
    return first;
}

/* The client's own go first, the oldest of them before the others, then those of the tenant with the most. */
static void make_room(hemi_prepared *p, const uint8_t *key, size_t bytes) {
    size_t own_bytes = 0, own = 0;
    for (const entry *e = p->oldest; e; e = e->newer)
        if (memcmp(e->key, key, HEMI_KEY_ID_BYTES) == 0) {
            own_bytes += e->bytes;
            own++;
        }
    for (entry *e = p->oldest, *newer; e && (own >= p->limits.key_batches || own_bytes + bytes > p->limits.key_bytes);
         e = newer) {
        newer = e->newer;
        if (memcmp(e->key, key, HEMI_KEY_ID_BYTES) != 0) continue;
        own_bytes -= e->bytes;
        own--;
        take_out(p, e);
        p->figures.evicted++;
    }
    while (p->oldest && p->figures.bytes + bytes > p->limits.bytes) {
        take_out(p, first_to_go(p));
        p->figures.evicted++;
    }
}

static void list(hemi_prepared *p, entry *e) {
    entry **bucket = bucket_of(p, e->tag);
    e->listed = true;
    e->next = *bucket;
    *bucket = e;
    link_newest(p, e);
    p->figures.bytes += e->bytes;
    p->figures.batches++;
}

const hemi_batch_state *hemi_prepared_put(hemi_prepared *p, const uint8_t key[HEMI_KEY_ID_BYTES],
                                          const uint8_t tag[HEMI_BATCH_TAG_BYTES], hemi_batch_state *state, size_t *held) {
    entry *e = hemi_alloc(1, sizeof *e);
    if (!e) {
        hemi_batch_state_free(state);
        return NULL;
    }
    memcpy(e->tag, tag, sizeof e->tag);
    memcpy(e->key, key, sizeof e->key);
    e->state = state;
    e->held = held ? held : &p->held;
    e->bytes = sizeof *e + hemi_batch_state_bytes(state);
    pthread_mutex_lock(&p->lock);
    entry *there = find(p, tag);
    if (there) { /* computed twice at the same time: they are equal */
        unlink_use(p, there);
        link_newest(p, there);
    } else if (e->bytes > p->limits.bytes || e->bytes > p->limits.key_bytes || p->limits.key_batches == 0) {
        e->next = p->removed; /* for this one use */
        p->removed = e;
    } else {
        *e->held += e->bytes;
        make_room(p, key, e->bytes);
        list(p, e);
    }
    entry *used = there ? there : e;
    used->users++;
    const hemi_batch_state *result = used->state;
    pthread_mutex_unlock(&p->lock);
    if (there) entry_free(e);
    return result;
}

const hemi_batch_state *hemi_prepared_acquire(hemi_prepared *p, const uint8_t tag[HEMI_BATCH_TAG_BYTES]) {
    pthread_mutex_lock(&p->lock);
    entry *e = find(p, tag);
    if (e) {
        e->users++;
        unlink_use(p, e);
        link_newest(p, e);
        p->figures.hits++;
    } else {
        p->figures.misses++;
    }
    const hemi_batch_state *state = e ? e->state : NULL;
    pthread_mutex_unlock(&p->lock);
    return state;
}

void hemi_prepared_release(hemi_prepared *p, const hemi_batch_state *state) {
    if (!state) return;
    pthread_mutex_lock(&p->lock);
    entry *e = p->newest; /* it was used just now: near the front */
    while (e && e->state != state) e = e->older;
    if (!e)
        for (e = p->removed; e->state != state;) e = e->next;
    if (--e->users == 0 && !e->listed) {
        unlink_from(&p->removed, e);
        entry_free(e);
    }
    pthread_mutex_unlock(&p->lock);
}

void hemi_prepared_forget(hemi_prepared *p, const uint8_t key[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&p->lock);
    for (entry *e = p->oldest, *newer; e; e = newer) {
        newer = e->newer;
        if (memcmp(e->key, key, HEMI_KEY_ID_BYTES) == 0) take_out(p, e);
    }
    pthread_mutex_unlock(&p->lock);
}

void hemi_prepared_expire(hemi_prepared *p) {
    pthread_mutex_lock(&p->lock);
    const double before = hemi_now_ms() - p->limits.expiry_ms;
    while (p->oldest && p->oldest->used_ms < before) {
        take_out(p, p->oldest);
        p->figures.expired++;
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- announcements under way */

static size_t place_of(const hemi_prepared *p, const uint8_t *key) {
    size_t i = 0, free_place = HEMI_SERVER_PREPARES_MAX;
    for (; i < HEMI_SERVER_PREPARES_MAX; i++) {
        if (p->announced[i].count == 0)
            free_place = i;
        else if (memcmp(p->announced[i].key, key, HEMI_KEY_ID_BYTES) == 0)
            return i;
    }
    return free_place;
}

bool hemi_prepared_begin(hemi_prepared *p, const uint8_t key[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&p->lock);
    const size_t i = place_of(p, key);
    const bool room = i < HEMI_SERVER_PREPARES_MAX && p->announced[i].count < HEMI_SERVER_PREPARES_PER_KEY_MAX;
    if (room) {
        memcpy(p->announced[i].key, key, HEMI_KEY_ID_BYTES);
        p->announced[i].count++;
        p->figures.announced++;
    }
    pthread_mutex_unlock(&p->lock);
    return room;
}

void hemi_prepared_end(hemi_prepared *p, const uint8_t key[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&p->lock);
    p->announced[place_of(p, key)].count--;
    p->figures.announced--;
    pthread_mutex_unlock(&p->lock);
}

hemi_prepared_figures hemi_prepared_get_figures(hemi_prepared *p) {
    pthread_mutex_lock(&p->lock);
    const hemi_prepared_figures f = p->figures;
    pthread_mutex_unlock(&p->lock);
    return f;
}
