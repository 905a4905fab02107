/* ONNX import: a graph of linear operators to one affine map. */
#ifndef HEMI_MODEL_ONNX_H
#define HEMI_MODEL_ONNX_H

#include <stddef.h>

#include "base/progress.h"
#include "hemi/status.h"
#include "model/affine.h"

#define HEMI_ONNX_BYTES_MAX ((size_t)1 << 30)

/* The graph must map its one input, of the calibration data's shape, to its one output by linear operators, which are multiplied out. What
 * works on the last dimension alone becomes rows, for any other dimensions; the rest a map of samples (the first dimension counts them, or,
 * where the graph has a dimension less, there is none; data with a dimension less than the graph is one sample).
 * ERR_UNSUPPORTED names the operator, its node and what to do; ERR_FORMAT, ERR_SHAPE, ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_onnx_import(hemi_affine *out, const void *bytes, size_t count, const uint32_t *shape, size_t rank,
                                        hemi_progress_fn progress, void *progress_context, hemi_error *err);

#endif
