/* Constants of an ONNX graph: an initialiser, or the attribute of a Constant node. Only a view: numbers are converted where they
 * are used, so that what is not used costs nothing. */
#ifndef HEMI_MODEL_ONNX_CONSTANT_H
#define HEMI_MODEL_ONNX_CONSTANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"
#include "onnx.pb-c.h"

#define HEMI_ONNX_RANK_MAX 8
#define HEMI_ONNX_TEXT_MAX 72

/* A name from the file, fit for a message: printable ASCII, cut to HEMI_ONNX_TEXT_MAX bytes. */
typedef struct hemi_onnx_text {
    char s[HEMI_ONNX_TEXT_MAX];
} hemi_onnx_text;
hemi_onnx_text hemi_onnx_printable(const char *name);

typedef struct hemi_onnx_constant {
    const Hemi__Onnx__TensorProto *tensor;       /* one of the four */
    const Hemi__Onnx__AttributeProto *attribute; /* value_float(s), value_int(s) */
    const void *integers;                        /* int64_t: computed */
    const float *numbers;                        /* computed, in the order of the file's tensor */
    bool quantised;                              /* numbers: by a quantiser of the graph */
    bool transposed;                             /* of rank 2 */
    const char *name;
    size_t rank;
    size_t dims[HEMI_ONNX_RANK_MAX]; /* as they are seen, after the transposition */
    size_t count;                    /* their product */
} hemi_onnx_constant;

/* Checks dimensions, data type and that the data is all there, in this file. ERR_FORMAT, ERR_UNSUPPORTED, ERR_TOO_LARGE. */
HEMI_CHECK hemi_status hemi_onnx_constant_init(hemi_onnx_constant *c, const Hemi__Onnx__TensorProto *tensor,
                                               const char *name, hemi_error *err);
HEMI_CHECK hemi_status hemi_onnx_constant_from_attribute(hemi_onnx_constant *c,
                                                         const Hemi__Onnx__AttributeProto *attribute, const char *name,
                                                         hemi_error *err);
/* Swaps the two dimensions of a matrix. */
void hemi_onnx_constant_transpose(hemi_onnx_constant *c);

/* The numbers as float32, count of them, row-major in the dimensions seen. ERR_UNSUPPORTED unless FLOAT, DOUBLE, FLOAT16 or BFLOAT16. */
HEMI_CHECK hemi_status hemi_onnx_constant_floats(const hemi_onnx_constant *c, float *out, hemi_error *err);
/* The same of tensors of any type that is read. */
HEMI_CHECK hemi_status hemi_onnx_constant_numbers(const hemi_onnx_constant *c, float *out, hemi_error *err);
/* The range of a type of few integers: INT8, UINT8. */
bool hemi_onnx_constant_range(const hemi_onnx_constant *c, double *min, double *max);
/* A vector or a scalar of integers, at most `max`. ERR_UNSUPPORTED unless INT64 or INT32. */
HEMI_CHECK hemi_status hemi_onnx_constant_ints(const hemi_onnx_constant *c, int64_t *out, size_t max, size_t *count,
                                               hemi_error *err);
/* The same of an array of any rank, in its own order. */
HEMI_CHECK hemi_status hemi_onnx_constant_integers(const hemi_onnx_constant *c, int64_t *out, size_t max, size_t *count,
                                                   hemi_error *err);
bool hemi_onnx_constant_is_integer(const hemi_onnx_constant *c);
/* One BOOL, false. */
bool hemi_onnx_constant_is_false(const hemi_onnx_constant *c);

#endif
