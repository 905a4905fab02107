#include "ring/int_matrix.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"

hemi_status hemi_int_matrix_init(hemi_int_matrix *matrix, uint32_t rows, uint32_t columns, const int16_t *w,
                                 hemi_error *err) {
    const uint32_t stride = (columns + HEMI_INT_ALIGNMENT - 1) / HEMI_INT_ALIGNMENT * HEMI_INT_ALIGNMENT;
    const size_t count = (size_t)rows * columns;
    int least = 0, most = 0;
    *matrix = (hemi_int_matrix){0};
    if (rows == 0 || columns == 0 || columns > HEMI_INT_COLUMNS_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "an integer matrix of %u x %u is not supported", rows, columns);
    for (size_t i = 0; i < count; i++) {
        if (w[i] < least) least = w[i];
        if (w[i] > most) most = w[i];
    }
    const uint32_t width = least >= INT8_MIN && most <= INT8_MAX ? 1 : 2;
    void *entries = hemi_alloc_large((size_t)rows * stride, width);
    if (!entries) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix of %u x %u", rows, columns);
    for (uint32_t i = 0; i < rows; i++) {
        const int16_t *from = w + (size_t)i * columns;
        int8_t *narrow = (int8_t *)entries + (size_t)i * stride;
        if (width == 2) memcpy((int16_t *)entries + (size_t)i * stride, from, columns * sizeof *from);
        for (uint32_t j = 0; width == 1 && j < columns; j++) narrow[j] = (int8_t)from[j];
    }
    *matrix = (hemi_int_matrix){rows, columns, stride, width, (uint32_t)(-least > most ? -least : most), entries};
    return HEMI_OK;
}

void hemi_int_matrix_clear(hemi_int_matrix *matrix) {
    hemi_free(matrix->entries);
    *matrix = (hemi_int_matrix){0};
}

size_t hemi_int_matrix_bytes(const hemi_int_matrix *matrix) {
    return (size_t)matrix->rows * matrix->stride * matrix->width;
}
