/* safetensors (github.com/huggingface/safetensors): 8 bytes of header length, a JSON header, the data of the tensors. */
#ifndef HEMI_MODEL_SAFETENSORS_H
#define HEMI_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#define HEMI_SAFETENSORS_HEADER_MAX 65536
#define HEMI_SAFETENSORS_COUNT_MAX  64
#define HEMI_SAFETENSORS_RANK_MAX   8
#define HEMI_SAFETENSORS_NAME_MAX   128

typedef struct hemi_tensor {
    char name[HEMI_SAFETENSORS_NAME_MAX];
    char dtype[8]; /* "I16", "F64", ... */
    size_t rank;
    size_t dims[HEMI_SAFETENSORS_RANK_MAX]; /* each at least 1 */
    const uint8_t *data;                    /* little-endian, row-major; borrowed */
    size_t bytes;
} hemi_tensor;

/* Views into file, in the order of their data. Refused: what does not lie in the file, overlaps, holes, names or fields twice, sizes that
 * overflow or do not follow from dtype and shape, unknown dtypes. ERR_FORMAT, ERR_TOO_LARGE (header, count). */
HEMI_CHECK hemi_status hemi_safetensors_read(hemi_tensor tensors[HEMI_SAFETENSORS_COUNT_MAX], size_t *count,
                                             const uint8_t *file, size_t bytes, hemi_error *err);
/* The file as a new block (hemi_free); the data begins at a multiple of 8. */
HEMI_CHECK hemi_status hemi_safetensors_write(uint8_t **file, size_t *bytes, const hemi_tensor *tensors, size_t count,
                                              hemi_error *err);

#endif
