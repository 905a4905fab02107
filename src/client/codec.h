/* Requests of a given form (hemi/client.h has the functions that choose one). */
#ifndef HEMI_CLIENT_CODEC_H
#define HEMI_CLIENT_CODEC_H

#include "hemi/client.h"
#include "model/module.h"

/* The form that costs the server least for so many rows. */
hemi_form hemi_form_for(const hemi_module *module, size_t rows);
/* hemi_encrypt, in that form. */
HEMI_CHECK hemi_status hemi_encrypt_as(const hemi_module *module, hemi_keys *keys, hemi_form form, const float *x, size_t rows,
                                       hemi_pending **pending, uint8_t **request, size_t *request_bytes, hemi_error *err);
/* The reply that belongs to a pending request, in bytes. */
size_t hemi_pending_reply_bytes(const hemi_module *module, const hemi_pending *pending);

#endif
