/* From the bytes of a batch request to the bytes of its reply (wire/batch.h). */
#ifndef HEMI_SERVER_BATCHES_H
#define HEMI_SERVER_BATCHES_H

#include "server/evaluate.h"
#include "server/prepared.h"

/* held: what the tenant has of what is prepared (identity.h; or NULL). modules: the evaluators the request may name. threads: for one large product (0: all). *reply is freed with hemi_bytes_free.
 * ERR_FORMAT, ERR_VERSION, ERR_PARAMS, ERR_SHAPE, ERR_CONFLICT (no such module id), ERR_KEY (keys of another set), ERR_STATE (a tag is not
 * of this process: what was announced is gone), ERR_LIMIT (more than may be prepared for one client), ERR_UNSUPPORTED (a module that has
 * no rows), ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_batches_answer(hemi_prepared *prepared, size_t *held, const hemi_evaluator *const *modules,
                                           size_t module_count, const hemi_server_keys *keys, const void *request,
                                           size_t request_bytes, int threads, const atomic_bool *stop, uint8_t **reply, size_t *reply_bytes,
                                           hemi_error *err);

#endif
