/* Integer matrix times residues, the readable statement (kernels.h). The right side is kept as it is, row by row. */
#include "ring/int_portable.h"

#include <string.h>

size_t hemi_portable_int_right_bytes(const hemi_int_matrix *w, size_t count) {
    return ((size_t)w->columns * count * sizeof(uint64_t) + 63) / 64 * 64;
}

void hemi_portable_int_right(void *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows, size_t count,
                             const hemi_int_matrix *w, const hemi_modulus *m) {
    (void)w, (void)m;
    for (uint32_t j = 0; j < rows; j++)
        memcpy((uint64_t *)x + (size_t)(first + j) * count, a + j * stride, count * sizeof *a);
}

#define BLOCK 64 /* columns whose sums are kept */

static inline int64_t entry(const hemi_int_matrix *w, size_t at) {
    return w->width == 1 ? ((const int8_t *)w->entries)[at] : ((const int16_t *)w->entries)[at];
}

/* a = high 2^24 + low, and |w| <= 2^15, so sums of 2^16 products with either half are at most 2^55. */
static void block(uint64_t *r, const hemi_int_matrix *w, size_t row, const uint64_t *x, size_t stride, size_t count,
                  const hemi_modulus *m) {
    int64_t low[BLOCK] = {0}, high[BLOCK] = {0};
    for (size_t j = 0; j < w->columns; j++, x += stride) {
        const int64_t v = entry(w, row * w->stride + j);
        for (size_t c = 0; c < count; c++) {
            low[c] += v * (int64_t)(x[c] & 0xFFFFFF);
            high[c] += v * (int64_t)(x[c] >> 24);
        }
    }
    for (size_t c = 0; c < count; c++) {
        const uint64_t h = hemi_mod_from_signed(high[c], m), l = hemi_mod_from_signed(low[c], m);
        r[c] = hemi_mod_reduce128(((hemi_u128)h << 24) + l, m);
    }
}

void hemi_portable_int_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                               const void *x, size_t count, const hemi_modulus *m) {
    for (size_t c = 0; c < count; c += BLOCK)
        for (size_t i = 0; i < rows; i++)
            block(r + i * r_stride + c, w, first + i, (const uint64_t *)x + c, count,
                  count - c < BLOCK ? count - c : BLOCK, m);
}
