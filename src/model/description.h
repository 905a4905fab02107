/* client.json and server.json (docs/file-format.md). */
#ifndef HEMI_MODEL_DESCRIPTION_H
#define HEMI_MODEL_DESCRIPTION_H

#include "model/module.h"

#define HEMI_DESCRIPTION_VERSION   2
#define HEMI_DESCRIPTION_BYTES_MAX 65536
#define HEMI_SERVER_DESCRIPTION_BYTES_MAX (1 << 20)

typedef enum hemi_description_kind { HEMI_CLIENT_DESCRIPTION, HEMI_SERVER_DESCRIPTION } hemi_description_kind;

/* NUL-terminated, freed with hemi_free. */
HEMI_CHECK hemi_status hemi_description_write(char **text, const hemi_module *module, hemi_description_kind kind,
                                              hemi_error *err);
/* Fills in info, grid and layouts of a zeroed module; every field is checked. ERR_FORMAT, ERR_VERSION, ERR_PARAMS, ERR_UNSUPPORTED (an
 * operation that this release does not know), ERR_TOO_LARGE. */
HEMI_CHECK hemi_status hemi_description_read(hemi_module *module, const void *text, size_t bytes,
                                             hemi_description_kind kind, hemi_error *err);

#endif
