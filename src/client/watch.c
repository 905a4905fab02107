#include "client/watch.h"

#include <jansson.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <time.h>

#include "base/memory.h"

#define REPLY_MAX ((size_t)4096)
#define TOTAL_MAX ((json_int_t)1 << 30)

struct hemi_watch {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_bool stop;
    hemi_http *http;
    hemi_progress_fn progress;
    void *context;
    size_t part, parts, total; /* total: as the server last said */
    char id[33], path[64], key_id[65]; /* with the key id a proxy finds the server that computes */
};

const char *hemi_watch_id(const hemi_watch *w) { return w->id; }

static void tell(const hemi_watch *w, size_t done) { w->progress(w->context, "infer", w->part * w->total + done, w->parts * w->total); }

static void ask(hemi_watch *w) {
    const hemi_http_request request = {.method = "GET", .path = w->path, .key_id = w->key_id, .reply_bytes_max = REPLY_MAX, .once = true};
    hemi_http_reply reply;
    if (hemi_http_send(w->http, &request, &reply, NULL) != HEMI_OK) return;
    json_t *root = reply.status == 200 && reply.bytes > 0 ? json_loadb((const char *)reply.body, reply.bytes, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const json_t *d = json_object_get(root, "done"), *t = json_object_get(root, "total");
    const json_int_t done = json_integer_value(d), total = json_integer_value(t);
    if (json_is_integer(d) && total > 0 && total <= TOTAL_MAX && done >= 0 && done <= total && !atomic_load(&w->stop)) {
        w->total = (size_t)total;
        tell(w, (size_t)done);
    }
    json_decref(root);
    hemi_http_reply_clear(&reply);
}

/* False: it is to end. */
static bool wait_ms(hemi_watch *w, long ms) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&w->lock);
    while (!atomic_load(&w->stop) && pthread_cond_timedwait(&w->wake, &w->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&w->lock);
    return !atomic_load(&w->stop);
}

static void *watch_main(void *argument) {
    hemi_watch *w = argument;
    for (long ms = HEMI_WATCH_FIRST_MS; wait_ms(w, ms); ms = HEMI_WATCH_EVERY_MS) ask(w);
    return NULL;
}

static void clear(hemi_watch *w) {
    hemi_http_free(w->http);
    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_mutex_destroy(&w->lock);
    hemi_free(w);
}

hemi_watch *hemi_watch_start(const hemi_http *like, const char *key_id, hemi_progress_fn progress, void *context, size_t part, size_t parts) {
    uint8_t id[16];
    pthread_condattr_t attributes;
    hemi_watch *w = hemi_alloc(1, sizeof *w);
    if (!w) return NULL;
    w->progress = progress;
    w->context = context;
    w->part = part;
    w->parts = parts;
    w->total = 1;
    randombytes_buf(id, sizeof id);
    sodium_bin2hex(w->id, sizeof w->id, id, sizeof id);
    snprintf(w->key_id, sizeof w->key_id, "%s", key_id);
    snprintf(w->path, sizeof w->path, "/v2/progress/%s", w->id);
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    bool ok = hemi_http_new_like(&w->http, like, HEMI_WATCH_TIMEOUT_MS, NULL) == HEMI_OK;
    if (ok) hemi_http_stop_on(w->http, &w->stop);
    if (!ok || pthread_create(&w->thread, NULL, watch_main, w) != 0) {
        clear(w);
        return NULL;
    }
    return w;
}

void hemi_watch_stop(hemi_watch *w, bool done) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    atomic_store(&w->stop, true);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->thread, NULL);
    if (done) tell(w, w->total);
    clear(w);
}
