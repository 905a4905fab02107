/* Whole files. Writing is by a temporary file and rename: a reader sees the old or the new content. */
#ifndef HEMI_BASE_FILE_H
#define HEMI_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

/* Reads the file into a new block (freed with hemi_free) with a NUL after its last byte. ERR_NOT_FOUND,
 * ERR_TOO_LARGE if it has more than max_bytes, ERR_IO. */
HEMI_CHECK hemi_status hemi_file_read(uint8_t **data, size_t *bytes, const char *path, size_t max_bytes, hemi_error *err);
/* Writes by rename in the same folder, with fsync; mode as for open(2): 0600 for secrets. */
HEMI_CHECK hemi_status hemi_file_write(const char *path, const void *data, size_t bytes, int mode, hemi_error *err);
/* mkdir -p. */
HEMI_CHECK hemi_status hemi_folder_create(const char *path, hemi_error *err);
bool hemi_path_is_folder(const char *path);
bool hemi_path_exists(const char *path);
/* "a/b" as a new string (hemi_free), NULL without memory. */
char *hemi_path_join(const char *a, const char *b);

#endif
