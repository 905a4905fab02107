/* A matrix of small integers, made ready for products with residues (kernels.h: int_product). */
#ifndef HEMI_RING_INT_MATRIX_H
#define HEMI_RING_INT_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#define HEMI_INT_COLUMNS_MAX 65536 /* what the sums of the kernels are dimensioned for */
#define HEMI_INT_ALIGNMENT   64    /* entries: a row is padded with zeros to a multiple of it */

/* Row-major: one layout for a vector, read once, and for many columns. Immutable after creation. */
typedef struct hemi_int_matrix {
    uint32_t rows, columns;
    uint32_t stride;  /* entries from row to row */
    uint32_t width;   /* bytes of an entry: 1 (int8_t) if all fit, otherwise 2 (int16_t) */
    uint32_t largest; /* no |entry| exceeds it; at most 32768 */
    void *entries;
} hemi_int_matrix;

/* w: rows x columns integers, row-major; 1 <= columns <= HEMI_INT_COLUMNS_MAX, rows >= 1. ERR_ARGUMENT, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_int_matrix_init(hemi_int_matrix *matrix, uint32_t rows, uint32_t columns, const int16_t *w,
                                            hemi_error *err);
void hemi_int_matrix_clear(hemi_int_matrix *matrix); /* of one that is all zero too */
size_t hemi_int_matrix_bytes(const hemi_int_matrix *matrix);

#endif
