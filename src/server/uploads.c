#include "server/uploads.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"

struct hemi_uploads {
    pthread_mutex_t lock;
    hemi_upload *first; /* the most recently kept first */
    size_t count, bytes, count_max, bytes_max;
    double expiry_ms;
    size_t held; /* of nobody in particular */
};

hemi_uploads *hemi_uploads_new(size_t bytes_max, size_t count_max, double expiry_ms) {
    hemi_uploads *uploads = calloc(1, sizeof *uploads);
    if (!uploads) return NULL;
    pthread_mutex_init(&uploads->lock, NULL);
    uploads->bytes_max = bytes_max;
    uploads->count_max = count_max;
    uploads->expiry_ms = expiry_ms;
    return uploads;
}

void hemi_uploads_set_max(hemi_uploads *uploads, size_t bytes_max) {
    pthread_mutex_lock(&uploads->lock);
    uploads->bytes_max = bytes_max;
    pthread_mutex_unlock(&uploads->lock);
}

hemi_upload *hemi_upload_new(const uint8_t id[HEMI_KEY_ID_BYTES], size_t total, size_t *held) {
    hemi_upload *upload = calloc(1, sizeof *upload);
    uint8_t *bytes = malloc(total ? total : 1); /* the system gives pages as they are filled */
    if (!upload || !bytes) {
        free(upload);
        free(bytes);
        return NULL;
    }
    memcpy(upload->id, id, HEMI_KEY_ID_BYTES);
    upload->bytes = bytes;
    upload->total = total;
    upload->held = held;
    return upload;
}

void hemi_upload_free(hemi_upload *upload) {
    if (!upload) return;
    free(upload->bytes);
    free(upload);
}

void hemi_uploads_free(hemi_uploads *uploads) {
    if (!uploads) return;
    for (hemi_upload *next; uploads->first; uploads->first = next) {
        next = uploads->first->next;
        hemi_upload_free(uploads->first);
    }
    pthread_mutex_destroy(&uploads->lock);
    free(uploads);
}

static hemi_upload **find(hemi_uploads *uploads, const uint8_t *id) {
    hemi_upload **at = &uploads->first;
    while (*at && memcmp((*at)->id, id, HEMI_KEY_ID_BYTES) != 0) at = &(*at)->next;
    return at;
}

static hemi_upload *detach(hemi_uploads *uploads, hemi_upload **at) {
    hemi_upload *upload = *at;
    if (!upload) return NULL;
    *at = upload->next;
    upload->next = NULL;
    uploads->count--;
    uploads->bytes -= upload->total;
    *upload->held -= upload->weight;
    return upload;
}

/* The oldest of the tenant that holds the most: the last in the list. */
static void drop_one(hemi_uploads *uploads) {
    hemi_upload **at = &uploads->first;
    for (hemi_upload **other = at; *other; other = &(*other)->next)
        if (*(*other)->held >= *(*at)->held) at = other;
    hemi_upload_free(detach(uploads, at));
}

hemi_upload *hemi_uploads_take(hemi_uploads *uploads, const uint8_t id[HEMI_KEY_ID_BYTES]) {
    pthread_mutex_lock(&uploads->lock);
    hemi_upload *upload = detach(uploads, find(uploads, id));
    pthread_mutex_unlock(&uploads->lock);
    return upload;
}

void hemi_uploads_keep(hemi_uploads *uploads, hemi_upload *upload) {
    pthread_mutex_lock(&uploads->lock);
    hemi_upload **there = find(uploads, upload->id);
    if (upload->total > uploads->bytes_max || (*there && (*there)->received >= upload->received)) {
        pthread_mutex_unlock(&uploads->lock);
        hemi_upload_free(upload);
        return;
    }
    hemi_upload_free(detach(uploads, there));
    upload->weight = upload->total + uploads->bytes_max / uploads->count_max;
    if (!upload->held) upload->held = &uploads->held;
    *upload->held += upload->weight;
    while (uploads->count > 0 &&
           (uploads->count >= uploads->count_max || uploads->bytes + upload->total > uploads->bytes_max))
        drop_one(uploads);
    upload->kept_ms = hemi_now_ms();
    upload->next = uploads->first;
    uploads->first = upload;
    uploads->count++;
    uploads->bytes += upload->total;
    pthread_mutex_unlock(&uploads->lock);
}

bool hemi_uploads_peek(hemi_uploads *uploads, const uint8_t id[HEMI_KEY_ID_BYTES], size_t *received, size_t *total) {
    pthread_mutex_lock(&uploads->lock);
    const hemi_upload *upload = *find(uploads, id);
    if (upload) {
        *received = upload->received;
        *total = upload->total;
    }
    pthread_mutex_unlock(&uploads->lock);
    return upload != NULL;
}

void hemi_uploads_expire(hemi_uploads *uploads) {
    const double now = hemi_now_ms();
    pthread_mutex_lock(&uploads->lock);
    for (hemi_upload **at = &uploads->first; *at;)
        if (now - (*at)->kept_ms > uploads->expiry_ms)
            hemi_upload_free(detach(uploads, at));
        else
            at = &(*at)->next;
    pthread_mutex_unlock(&uploads->lock);
}

void hemi_uploads_figures(hemi_uploads *uploads, size_t *count, size_t *bytes) {
    pthread_mutex_lock(&uploads->lock);
    *count = uploads->count;
    *bytes = uploads->bytes;
    pthread_mutex_unlock(&uploads->lock);
}
