/* The right side of an integer product as limbs. Included by int_*.c of the vector tables only, each compiling it for
 * its instructions.
 *
 * A residue x < p < 2^48 becomes sum_k limb_k 2^(bits k), in one of three forms:
 *   BYTES     6 limbs of 8 bits in [0, 256)               for int8_t entries and vpdpbusd, four products a lane
 *   WORDS16   3 limbs of 16 bits in [-2^15, 2^15)         for int8_t entries and vpmaddwd, two products a lane
 *   WORDS12   4 limbs of 12 bits in [-2^11, 2^11)         for int16_t entries
 * For the signed ones, t = x + offset, offset = sum_k 2^(bits k + bits - 1), less p where t >= 2^48: then 0 <= t < 2^48, and
 * limb_k is digit k of t less 2^(bits - 1).
 *
 * Sums of products in 32 bits: a step adds group products to a lane, so that `flush` = floor((2^31 - 1) / (group w limb)) steps are
 * safe, w and limb being the largest of each. BYTES: 255 * 128 * 65536 < 2^31, no bound for any matrix. WORDS16: 2 * 128 * 2^15, 255
 * steps. WORDS12: 2 * 2^11 * w, 255 steps for w = 2048 and 15 for w = 32768. Whole sums: at most 2^16 * 2^15 * 2^11 = 2^42. */
#ifndef HEMI_RING_INT_LIMBS_H
#define HEMI_RING_INT_LIMBS_H

#include <string.h>

#include "ring/kernels.h"

#define HEMI_INT_LIMBS_MAX 6

typedef struct int_form {
    unsigned limbs, bits, group; /* group: entries in 32 bits */
    uint64_t offset;
} int_form;

#define INT_BYTES   ((int_form){6, 8, 4, 0})
#define INT_WORDS16 ((int_form){3, 16, 2, UINT64_C(0x800080008000)})
#define INT_WORDS12 ((int_form){4, 12, 2, UINT64_C(0x800800800800)})

/* The three, handed as constants, so that loops over limbs are unrolled. */
#define INT_SPECIALISED static inline __attribute__((always_inline))

INT_SPECIALISED size_t int_flush(int_form f, const hemi_int_matrix *w) {
    const uint64_t limb = f.offset ? UINT64_C(1) << (f.bits - 1) : 255, largest = w->largest ? w->largest : 1;
    return (size_t)(INT32_MAX / (f.group * limb * largest));
}

INT_SPECIALISED uint64_t int_biased(uint64_t x, int_form f, uint64_t p) {
    const uint64_t t = x + f.offset;
    return f.offset ? t - (p & (0 - (t >> 48))) : t;
}

/* Limb k as its 8 or 16 bits. */
INT_SPECIALISED uint32_t int_limb(uint64_t t, int_form f, unsigned k) {
    const uint32_t digit = (uint32_t)(t >> (f.bits * k)) & ((1u << f.bits) - 1);
    return f.offset ? (digit - (1u << (f.bits - 1))) & 0xFFFF : digit;
}

/* ---- one column: blocks of 64 bytes of each limb side by side, zeros behind the last entry. */
INT_SPECIALISED size_t int_vector_bytes(const hemi_int_matrix *w, int_form f) {
    return (size_t)w->stride * f.limbs * (4 / f.group);
}

INT_SPECIALISED void int_vector(uint8_t *x, const uint64_t *a, size_t stride, const hemi_int_matrix *w, int_form f,
                                uint64_t p) {
    enum { AT_ONCE = HEMI_INT_ALIGNMENT };
    for (size_t j = 0; j < w->columns; j += AT_ONCE) {
        const size_t count = w->columns - j < AT_ONCE ? w->columns - j : AT_ONCE;
        uint64_t t[AT_ONCE];
        uint8_t bytes[AT_ONCE];
        uint16_t words[AT_ONCE];
        for (size_t i = 0; i < count; i++) t[i] = int_biased(a[(j + i) * stride], f, p);
        for (size_t i = count; i < AT_ONCE; i++) t[i] = f.offset;
        for (unsigned k = 0; k < f.limbs; k++, x += 64) {
            if (f.group == 4) {
                for (unsigned i = 0; i < AT_ONCE; i++) bytes[i] = (uint8_t)int_limb(t[i], f, k);
                memcpy(x, bytes, 64);
            } else {
                for (unsigned i = 0; i < AT_ONCE; i++) words[i] = (uint16_t)int_limb(t[i], f, k);
                memcpy(x, words, 64);
                memcpy(x + 64 * f.limbs, words + 32, 64);
            }
        }
        if (f.group == 2) x += 64 * f.limbs;
    }
}

/* ---- many: panels of `panel` columns; in each, limb by limb, for every group of entries and column 32 bits. */
INT_SPECIALISED size_t int_groups(const hemi_int_matrix *w, int_form f) {
    return ((size_t)w->columns + f.group - 1) / f.group;
}

INT_SPECIALISED size_t int_panels_bytes(const hemi_int_matrix *w, size_t count, size_t panel, int_form f) {
    return (count + panel - 1) / panel * f.limbs * int_groups(w, f) * panel * 4;
}

/* One group in one panel: rows of a that are missing, and columns from `count` on, are zeros. */
INT_SPECIALISED void int_panel_group(uint8_t *x, size_t limb_stride, const uint64_t *a, size_t stride, uint32_t rows,
                                     size_t count, size_t panel, int_form f, uint64_t p) {
    uint64_t t[4][32]; /* group rows, panel columns */
    for (unsigned i = 0; i < f.group; i++) {
        const uint64_t *row = i < rows ? a + i * stride : NULL;
        if (row && count == panel) {
            for (size_t c = 0; c < panel; c++) t[i][c] = int_biased(row[c], f, p);
        } else {
            for (size_t c = 0; c < panel; c++) t[i][c] = int_biased(row && c < count ? row[c] : 0, f, p);
        }
    }
    for (unsigned k = 0; k < f.limbs; k++) {
        uint32_t *out = (uint32_t *)(void *)(x + k * limb_stride);
        for (size_t c = 0; c < panel; c++) {
            uint32_t v = 0;
            for (unsigned i = 0; i < f.group; i++) v |= int_limb(t[i][c], f, k) << (32 / f.group * i);
            out[c] = v;
        }
    }
}

INT_SPECIALISED void int_panels(uint8_t *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows,
                                size_t count, size_t panel, const hemi_int_matrix *w, int_form f, uint64_t p) {
    const size_t limb_stride = int_groups(w, f) * panel * 4;
    for (size_t c = 0; c < count; c += panel, x += f.limbs * limb_stride)
        for (uint32_t j = 0; j < rows; j += f.group)
            int_panel_group(x + (first + j) / f.group * panel * 4, limb_stride, a + j * stride + c, stride, rows - j,
                            count - c < panel ? count - c : panel, panel, f, p);
}

#endif
