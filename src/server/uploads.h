/* Key uploads that were interrupted, or that come in pieces: a body that is not yet complete. While a request adds to
 * an upload it owns it alone; in between it is kept here, bounded in bytes and number, and expires. Of the tenant
 * that holds the most the oldest make room. */
#ifndef HEMI_SERVER_UPLOADS_H
#define HEMI_SERVER_UPLOADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/server.h"

typedef struct hemi_upload {
    uint8_t id[HEMI_KEY_ID_BYTES]; /* the hash that the complete bytes must have */
    uint8_t *bytes;                /* total, of which the first `received` are there */
    size_t total, received;
    double kept_ms; /* when it was put here */
    size_t *held;   /* its tenant's here (identity.h): bytes, and something for each upload, as their number is bounded too */
    size_t weight;  /* what it added there */
    struct hemi_upload *next;
} hemi_upload;

typedef struct hemi_uploads hemi_uploads;

hemi_uploads *hemi_uploads_new(size_t bytes_max, size_t count_max, double expiry_ms); /* NULL without memory */
void hemi_uploads_set_max(hemi_uploads *uploads, size_t bytes_max);
void hemi_uploads_free(hemi_uploads *uploads);

/* A new upload of which nothing is there; NULL without memory. held: its tenant's; NULL: nobody's in particular. */
hemi_upload *hemi_upload_new(const uint8_t id[HEMI_KEY_ID_BYTES], size_t total, size_t *held);
void hemi_upload_free(hemi_upload *upload);

/* Hands over the upload kept under id (the caller owns it), or NULL. */
hemi_upload *hemi_uploads_take(hemi_uploads *uploads, const uint8_t id[HEMI_KEY_ID_BYTES]);
/* Keeps an upload (takes it over). An upload under the same id with less received gives way; otherwise this one does. */
void hemi_uploads_keep(hemi_uploads *uploads, hemi_upload *upload);
/* How much of id is there; false if nothing. */
bool hemi_uploads_peek(hemi_uploads *uploads, const uint8_t id[HEMI_KEY_ID_BYTES], size_t *received, size_t *total);
void hemi_uploads_expire(hemi_uploads *uploads);
void hemi_uploads_figures(hemi_uploads *uploads, size_t *count, size_t *bytes);

#endif
