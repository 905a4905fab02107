/* Modules that are circuits. Internal to the room, and for tests. */
#ifndef HEMI_MODEL_CIRCUIT_MODULE_H
#define HEMI_MODEL_CIRCUIT_MODULE_H

#include <jansson.h>

#include "model/fields.h"
#include "model/module.h"

/* Calibrates and plans: x: numbers of shape (its first dimension counts samples; of circuit->rows all but the last count rows). Takes the circuit,
 * in every case. */
HEMI_CHECK hemi_status hemi_module_from_circuit(hemi_module **out, hemi_circuit *circuit, const float *x, const uint32_t *shape, size_t rank,
                                                const hemi_compile_options *options, hemi_error *err);
/* Derived numbers of info, from io, circuit and plan. */
void hemi_circuit_module_finish(hemi_module *module);
hemi_status hemi_circuit_module_run_clear(const hemi_module *module, const float *x, size_t rows, float *y, bool noise, hemi_error *err);
/* run_clear.c: adds independent Gaussian errors. */
void hemi_clear_noise(float *y, size_t count, double deviation);
void hemi_circuit_module_clear(hemi_module *module);

/* The fields of a description that circuits have and others have not (docs/file-format.md). What is read is checked; server: also the values'
 * structure, for hemi_circuit_tensors_read, after which hemi_circuit_module_complete makes the plan. */
HEMI_CHECK hemi_status hemi_circuit_description_write(json_t *object, const hemi_module *module, bool server, hemi_error *err);
void hemi_circuit_description_read(hemi_fields *r, hemi_module *module, bool server);
/* The numbers of a circuit: weights.safetensors. */
HEMI_CHECK hemi_status hemi_circuit_tensors_write(uint8_t **file, size_t *bytes, const hemi_circuit *circuit, hemi_error *err);
HEMI_CHECK hemi_status hemi_circuit_tensors_read(hemi_circuit *circuit, const uint8_t *file, size_t bytes, hemi_error *err);
/* The plan, by the choice that was stored; ERR_FORMAT unless it is the one that module->io describes. */
HEMI_CHECK hemi_status hemi_circuit_module_complete(hemi_module *module, hemi_error *err);

#endif
