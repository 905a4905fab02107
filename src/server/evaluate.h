/* What is in an evaluator and in a client's keys, for this room. */
#ifndef HEMI_SERVER_EVALUATE_H
#define HEMI_SERVER_EVALUATE_H

#include "hemi/server.h"
#include "linear/batch.h"

const hemi_module_info *hemi_evaluator_info(const hemi_evaluator *evaluator);
/* The matrix for batches of rows; NULL if the module has none. */
const hemi_batch *hemi_evaluator_batch(const hemi_evaluator *evaluator);
const hemi_evaluation_keys *hemi_server_keys_expanded(const hemi_server_keys *keys);

#endif
