#include <pthread.h>

#include "base/memory.h"
#include "linear/internal.h"

static struct {
    pthread_mutex_t lock;
    size_t users;
    hemi_workspace *idle;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

hemi_workspace *hemi_workspace_take(size_t words) {
    hemi_workspace *found = NULL;
    pthread_mutex_lock(&pool.lock);
    hemi_workspace **best = NULL; /* the smallest that is large enough */
    for (hemi_workspace **at = &pool.idle; *at; at = &(*at)->next)
        if ((*at)->words >= words && (!best || (*at)->words < (*best)->words)) best = at;
    if (best) {
        found = *best;
        *best = found->next;
    }
    pthread_mutex_unlock(&pool.lock);
    if (found) return found;
    found = hemi_alloc(1, sizeof *found);
    if (!found) return NULL;
    found->words = words;
    found->storage = hemi_alloc_large(words, sizeof *found->storage);
    if (found->storage) return found;
    hemi_free(found);
    return NULL;
}

static void release(hemi_workspace *w) {
    hemi_free(w->storage);
    hemi_free(w);
}

void hemi_workspace_give(hemi_workspace *w) {
    if (!w) return;
    pthread_mutex_lock(&pool.lock);
    const bool keep = pool.users > 0;
    if (keep) {
        w->next = pool.idle;
        pool.idle = w;
    }
    pthread_mutex_unlock(&pool.lock);
    if (!keep) release(w);
}

void hemi_workspace_open(void) {
    pthread_mutex_lock(&pool.lock);
    pool.users++;
    pthread_mutex_unlock(&pool.lock);
}

void hemi_workspace_close(void) {
    hemi_workspace *w = NULL;
    pthread_mutex_lock(&pool.lock);
    if (--pool.users == 0) {
        w = pool.idle;
        pool.idle = NULL;
    }
    pthread_mutex_unlock(&pool.lock);
    for (hemi_workspace *next; w; w = next) {
        next = w->next;
        release(w);
    }
}
