/* ONNX import: a graph of linear operators to one affine map. */
#ifndef HEMI_MODEL_ONNX_H
#define HEMI_MODEL_ONNX_H

#include <stddef.h>

#include "base/progress.h"
#include "hemi/status.h"
#include "model/affine.h"

#define HEMI_ONNX_BYTES_MAX ((size_t)1 << 30)

/* The graph must map its one input (last dimension `inputs`) to its one output by linear operators, which are multiplied out.
 * ERR_UNSUPPORTED names the operator, its node and what to do; ERR_FORMAT, ERR_SHAPE, ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_onnx_import(hemi_affine *out, const void *bytes, size_t count, uint32_t inputs,
                                        hemi_progress_fn progress, void *progress_context, hemi_error *err);

#endif
