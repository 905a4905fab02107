/* Parts of the portable table. */
#ifndef HEMI_RING_INT_PORTABLE_H
#define HEMI_RING_INT_PORTABLE_H

#include "ring/kernels.h"

size_t hemi_portable_int_right_bytes(const hemi_int_matrix *w, size_t count);
void hemi_portable_int_right(void *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows, size_t count,
                             const hemi_int_matrix *w, const hemi_modulus *m);
void hemi_portable_int_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                               const void *x, size_t count, const hemi_modulus *m);

#endif
