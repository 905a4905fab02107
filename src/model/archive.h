/* The zip files of a module: stored entries of known names, in memory. Paths are never taken from an archive. */
#ifndef HEMI_MODEL_ARCHIVE_H
#define HEMI_MODEL_ARCHIVE_H

#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

typedef struct hemi_archive_entry {
    const char *name;
    size_t max_bytes; /* reading: what is larger is refused */
    uint8_t *data;    /* reading: a new block (hemi_free), with a NUL after it; writing: borrowed */
    size_t bytes;
} hemi_archive_entry;

/* The archive as a new block (hemi_free). Entries are stored, dated 1980-01-01. */
HEMI_CHECK hemi_status hemi_archive_write(uint8_t **zip, size_t *bytes, const hemi_archive_entry *entries, size_t count,
                                          hemi_error *err);
/* The archive must hold exactly these entries, stored. On error nothing is left to free. ERR_FORMAT, ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_archive_read(hemi_archive_entry *entries, size_t count, const uint8_t *zip, size_t bytes,
                                         hemi_error *err);

#endif
