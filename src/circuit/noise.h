/* The noise of a circuit under encryption, predicted from its plan and its weights. */
#ifndef HEMI_CIRCUIT_NOISE_H
#define HEMI_CIRCUIT_NOISE_H

#include "circuit/plan.h"

/* The standard deviation of what hemi_circuit_evaluate adds to an output, over outputs, in their units. circuit: with polynomials. Variances are
 * taken from value to value, errors as independent (ckks/noise.h), numbers as about normal with a fourth of their range as standard
 * deviation; tests hold measured noise to within a factor of two (tests/test_circuit.c). */
double hemi_circuit_predict_noise(const hemi_circuit *circuit, const hemi_circuit_plan *plan);
/* What the re-randomisation of a reply adds to that, independent of it: squares are summed. */
double hemi_circuit_reply_noise(const hemi_circuit_plan *plan);

#endif
