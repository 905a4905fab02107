/* One encryption for several modules that receive the same input. Internal to the room. */
#ifndef HEMI_CLIENT_CODEC_H
#define HEMI_CLIENT_CODEC_H

#include "hemi/client.h"

/* ERR_ARGUMENT, naming the difference, unless one encryption of an input serves all these modules. */
HEMI_CHECK hemi_status hemi_modules_share(const hemi_module *const *modules, size_t count, hemi_error *err);
/* Like hemi_encrypt: a request that names all the modules (hemi_modules_share), and a pending for each of them, of which pending[i]
 * reads part i of the reply. */
HEMI_CHECK hemi_status hemi_encrypt_many(const hemi_module *const *modules, size_t count, hemi_keys *keys,
                                         const float *x, size_t rows, hemi_pending **pending, uint8_t **request,
                                         size_t *request_bytes, hemi_error *err);
/* y[i]: rows x outputs of module i. On error all y are zeros. */
HEMI_CHECK hemi_status hemi_decrypt_many(const hemi_module *const *modules, size_t count, hemi_keys *keys,
                                         hemi_pending *const *pending, const void *reply, size_t reply_bytes,
                                         float *const *y, hemi_error *err);

/* ---- between codec.c and codec_many.c */

/* Whether the module has a bias that is not known yet: a request must then carry a row of zeros. */
bool hemi_codec_needs_zero_row(const hemi_module *module, hemi_keys *keys);
HEMI_CHECK hemi_status hemi_codec_encrypt(const hemi_module *module, hemi_keys *keys, const float *x, size_t rows,
                                          bool zero_row, hemi_pending **pending, uint8_t **request,
                                          size_t *request_bytes, hemi_error *err);
/* What reads the same request's reply of another module that shares its input. */
HEMI_CHECK hemi_status hemi_pending_copy(hemi_pending **out, const hemi_pending *pending, const hemi_module *module,
                                         hemi_error *err);
size_t hemi_pending_rows(const hemi_pending *pending);

#endif
