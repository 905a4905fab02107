/* A circuit made ready for ciphertexts: plaintexts of all its maps. */
#ifndef HEMI_CIRCUIT_PROGRAM_H
#define HEMI_CIRCUIT_PROGRAM_H

#include "base/progress.h"
#include "base/threads.h"
#include "circuit/plan.h"
#include "ckks/cipher.h"

/* Immutable after creation; shared between threads. */
typedef struct hemi_circuit_program hemi_circuit_program;

/* circuit: with polynomials; not needed afterwards. plan: one of this circuit; borrowed, and to live as long as the program. */
HEMI_CHECK hemi_status hemi_circuit_program_new(hemi_circuit_program **out, const hemi_circuit *circuit, const hemi_circuit_plan *plan,
                                                hemi_team *team, hemi_progress_fn progress, void *progress_context, hemi_error *err);
void hemi_circuit_program_free(hemi_circuit_program *program);
size_t hemi_circuit_program_bytes(const hemi_circuit_program *program);
/* Memory of one evaluation, besides input and output: the most that one took; before the first an estimate from the plan, of all values at once. */
size_t hemi_circuit_program_working_bytes(const hemi_circuit_program *program);

/* input: the blocks of value 0, plan->limbs limbs, scale plan->value[0].scale. output: the blocks of the last value, room for two limbs each:
 * one limb, its scale. Not re-randomised. progress: "value" and how many are done; may be NULL. ERR_KEY, ERR_MEMORY; ERR_NETWORK
 * when the team was stopped. */
HEMI_CHECK hemi_status hemi_circuit_evaluate(const hemi_circuit_program *program, const hemi_ckks_keys *keys, const hemi_ckks_cipher *input,
                                             hemi_ckks_cipher *output, hemi_team *team, hemi_progress_fn progress, void *progress_context,
                                             hemi_error *err);

#endif
