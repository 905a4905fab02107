/* ONNX to a circuit (circuit/graph.h). */
#ifndef HEMI_MODEL_CIRCUIT_IMPORT_H
#define HEMI_MODEL_CIRCUIT_IMPORT_H

#include "base/progress.h"
#include "circuit/graph.h"

/* shape: of the calibration data, its first dimension the number of samples. First as rows (everything works on the last dimension
 * alone), then as samples of shape[1 ..]. weight_bits: weights of Gemm, MatMul and Conv are rounded to so many bits for each output
 * channel, symmetrically (2 ... 16); 0: they are not. Weights that went through a Quant operator are what it made of them. ERR_UNSUPPORTED names the
 * operator (and node) that cannot be encrypted and what to do. ERR_SHAPE, ERR_FORMAT, ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_circuit_import(hemi_circuit **out, const void *onnx, size_t onnx_bytes, const uint32_t *shape, size_t rank,
                                           int weight_bits, hemi_progress_fn progress, void *progress_context, hemi_error *err);
/* Whether an ONNX file needs a circuit: false if it is linear (model/onnx.h imports it), or cannot be read at all. */
bool hemi_circuit_is_needed(const void *onnx, size_t onnx_bytes);

#endif
