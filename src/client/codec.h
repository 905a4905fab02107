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

/* ---- circuits (codec_circuit.c): what hemi_encrypt and hemi_decrypt do on them */

#define HEMI_CIRCUIT_THREADS_MAX 16 /* that ciphertexts are made and read by, where there are several */

HEMI_CHECK hemi_status hemi_circuit_encrypt(const hemi_module *module, hemi_keys *keys, const float *x, size_t rows, hemi_pending **pending,
                                            uint8_t **request, size_t *request_bytes, hemi_error *err);
HEMI_CHECK hemi_status hemi_circuit_decrypt(const hemi_module *module, hemi_keys *keys, hemi_pending *pending, const void *reply,
                                            size_t reply_bytes, float *y, hemi_error *err);
size_t hemi_circuit_reply_bytes(const hemi_module *module, const hemi_pending *pending);
/* Rows that one request takes: as many units as have these bytes, or so many, and at least one. */
size_t hemi_circuit_rows_at_once(const hemi_module *module, size_t bytes, size_t units);

/* ---- one encryption for several modules that receive the same input (codec_many.c) */

/* ERR_ARGUMENT, naming the difference, unless one encryption of an input serves all these modules, in the form SINGLE. */
HEMI_CHECK hemi_status hemi_modules_share(const hemi_module *const *modules, size_t count, hemi_error *err);
/* hemi_form_for, for modules that share. */
hemi_form hemi_form_for_all(const hemi_module *const *modules, size_t count, size_t rows);
/* Like hemi_encrypt_as: a request that names all the modules (hemi_modules_share), and a pending for each of them, of which pending[i]
 * reads part i of the reply. */
HEMI_CHECK hemi_status hemi_encrypt_many(const hemi_module *const *modules, size_t count, hemi_keys *keys, hemi_form form, const float *x,
                                         size_t rows, hemi_pending **pending, uint8_t **request, size_t *request_bytes, hemi_error *err);
/* y[i]: rows x outputs of module i. On error all y are zeros. */
HEMI_CHECK hemi_status hemi_decrypt_many(const hemi_module *const *modules, size_t count, hemi_keys *keys, hemi_pending *const *pending,
                                         const void *reply, size_t reply_bytes, float *const *y, hemi_error *err);

/* Whether the module has a bias that is not known yet: a request must then carry a unit of zeros. */
bool hemi_codec_needs_zero_unit(const hemi_module *module, hemi_keys *keys);
/* hemi_encrypt_as, with such a unit or without. */
HEMI_CHECK hemi_status hemi_codec_encrypt(const hemi_module *module, hemi_keys *keys, hemi_form form, bool zero_unit, const float *x,
                                          size_t rows, hemi_pending **pending, uint8_t **request, size_t *request_bytes, hemi_error *err);
/* What reads the same request's reply of another module that shares its input. */
HEMI_CHECK hemi_status hemi_pending_copy(hemi_pending **out, const hemi_pending *pending, const hemi_module *module, hemi_error *err);
size_t hemi_pending_rows(const hemi_pending *pending);

#endif
