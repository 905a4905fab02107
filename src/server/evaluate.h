/* What is in an evaluator and in a client's keys, for this room. */
#ifndef HEMI_SERVER_EVALUATE_H
#define HEMI_SERVER_EVALUATE_H

#include "base/progress.h"
#include "base/threads.h"
#include "circuit/io.h"
#include "ckks/cipher.h"
#include "hemi/server.h"
#include "linear/batch.h"

const hemi_module_info *hemi_evaluator_info(const hemi_evaluator *evaluator);
/* One more who frees it. */
hemi_evaluator *hemi_evaluator_hold(hemi_evaluator *evaluator);
/* Memory of computing one request, besides its body and its reply (an upper bound of linear modules; of circuits, once one was computed, what it took). */
size_t hemi_evaluator_working_bytes(const hemi_evaluator *evaluator, size_t units, size_t workers);
/* The same of a batch of rows that is announced, or comes whole. */
size_t hemi_evaluator_batch_working_bytes(const hemi_evaluator *evaluator, size_t slots);
/* The matrix for batches of rows; NULL if the module has none. */
const hemi_batch *hemi_evaluator_batch(const hemi_evaluator *evaluator);

/* server_keys.c: keys are for linear maps or for circuits, according to their set; what asks for the other kind gets NULL. */
const hemi_evaluation_keys *hemi_server_keys_expanded(const hemi_server_keys *keys);
const hemi_ckks_keys *hemi_server_keys_levelled(const hemi_server_keys *keys);
const hemi_params *hemi_server_keys_params(const hemi_server_keys *keys);
/* ERR_KEY, which names both sets, unless they are of this one. */
HEMI_CHECK hemi_status hemi_server_keys_check_set(const hemi_server_keys *keys, const hemi_params *params, hemi_error *err);
/* hemi_server_keys_new, where those for circuits are expanded by a team (NULL: alone). id: their hash, where it is known; NULL: made here. */
HEMI_CHECK hemi_status hemi_server_keys_load(hemi_server_keys **out, const uint8_t *bytes, size_t count, const uint8_t *id, hemi_team *team,
                                             hemi_error *err);

/* hemi_evaluate that tells how far it is: progress (may be NULL) is called on the calling thread; of circuits alone. */
typedef struct hemi_evaluate_options {
    int threads;
    hemi_progress_fn progress;
    void *progress_context;
    const atomic_bool *stop; /* may be NULL; when it becomes true, from any thread, the computation is given up soon: ERR_NETWORK */
} hemi_evaluate_options;
HEMI_CHECK hemi_status hemi_evaluate_with(const hemi_evaluator *const *modules, size_t module_count, const hemi_server_keys *keys,
                                          const void *request, size_t request_bytes, const hemi_evaluate_options *options, uint8_t **reply,
                                          size_t *reply_bytes, hemi_error *err);

#endif
