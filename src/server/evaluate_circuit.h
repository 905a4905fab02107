/* Evaluators of circuits: modules with non-linearities. */
#ifndef HEMI_SERVER_EVALUATE_CIRCUIT_H
#define HEMI_SERVER_EVALUATE_CIRCUIT_H

#include "circuit/program.h"
#include "model/module.h"
#include "server/evaluate.h"
#include "wire/ckks.h"

/* Immutable after creation; shared between threads. */
typedef struct hemi_circuit_evaluator {
    hemi_circuit_plan *plan; /* the program's */
    hemi_circuit_program *program;
    hemi_circuit_io io;
} hemi_circuit_evaluator;

/* module: a circuit; not needed afterwards. ERR_STATE without weights; ERR_INTERNAL if the plan made of its circuit is not the one it
 * tells clients; ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_circuit_evaluator_new(hemi_circuit_evaluator **out, const hemi_module *module, hemi_team *team, hemi_error *err);
void hemi_circuit_evaluator_free(hemi_circuit_evaluator *evaluator);
size_t hemi_circuit_evaluator_working_bytes(const hemi_circuit_evaluator *evaluator);
size_t hemi_circuit_evaluator_bytes(const hemi_circuit_evaluator *evaluator);

/* That a request, and keys, are for this circuit exactly. ERR_PARAMS, ERR_FORMAT, ERR_SHAPE; ERR_KEY. */
HEMI_CHECK hemi_status hemi_circuit_evaluator_check(const hemi_circuit_evaluator *evaluator, const hemi_ckks_request *request, hemi_error *err);
HEMI_CHECK hemi_status hemi_circuit_evaluator_check_keys(const hemi_circuit_evaluator *evaluator, const hemi_server_keys *keys, hemi_error *err);
/* What the reply to a request says of itself (wire/ckks.h). */
hemi_ckks_request hemi_circuit_reply(const hemi_circuit_io *io, const hemi_ckks_request *request);
/* All of it: request and keys have been checked, reply has hemi_ckks_reply_bytes. options: but for threads. ERR_KEY, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_circuit_evaluator_run(const hemi_circuit_evaluator *evaluator, const hemi_ckks_keys *keys,
                                                  const hemi_ckks_request *request, const uint8_t *bytes, uint8_t *reply, hemi_team *team,
                                                  const hemi_evaluate_options *options, hemi_error *err);

#endif
