/* Integer matrix times residues, AVX2: 16-bit limbs, vpmaddwd, sums in 32 bits that are moved to 64 before they can
 * overflow (int_limbs.h). */
#include "ring/avx2.h"
#include "ring/int_limbs.h"

HEMI_INLINE int_form form_of(const hemi_int_matrix *w) { return w->width == 1 ? INT_WORDS16 : INT_WORDS12; }

/* sum += products of pairs, in every lane. Written as an instruction, the sums stay in registers, each in its own; the compiler by itself
 * moves and spills them. */
HEMI_INLINE void step(vi *sum, vi w, vi x) {
    const vi products = _mm256_madd_epi16(w, x);
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(products));
}

/* ---- sums to residues */

/* Sums |s| <= 2^42 as doubles. */
HEMI_INLINE vf from_signed(const int64_t *s) {
    return sub(_mm256_castsi256_pd(_mm256_add_epi64(load_int(s), _mm256_castpd_si256(all(ROUNDER)))), all(ROUNDER));
}

/* r[i] = sum_k sums[k stride + i] 2^(bits k). A sum times a power of two is exact and at most 2^78; p > 2^32, so its quotient is below 2^46
 * and off by less than 1/2 + 2^-6, and the remainder is exact. All together: |y| < 2^42 + 3 (1/2 + 2^-6) 2^48 < 2^50. sums is
 * readable up to a multiple of 4. */
HEMI_INLINE void finish(uint64_t *r, const int64_t *sums, size_t stride, size_t n, unsigned limbs, unsigned bits,
                        const hemi_modulus *m) {
    const prime_avx2 c = prime_of(m);
    for (size_t i = 0; i < n; i += 4) {
        vf y = sub(from_signed(sums + i), c.half);
#pragma GCC unroll 4
        for (unsigned k = 1; k < limbs; k++) {
            const vf s = mul(from_signed(sums + k * stride + i), all((double)(UINT64_C(1) << (bits * k))));
            y = add(y, fnma_(nearest(s, c.inverse), c.p, s));
        }
        if (n - i >= 4) {
            store_int(r + i, canonical_biased(y, &c));
        } else {
            uint64_t out[4];
            store_int(out, canonical_biased(y, &c));
            memcpy(r + i, out, (n - i) * sizeof *out);
        }
    }
}

/* ---- one column */

enum { VECTOR_ROWS = 4, BLOCK = 64 }; /* rows side by side, rows whose sums are kept */

HEMI_INLINE vi entries16(const void *w, unsigned width, size_t at) {
    return width == 1 ? _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)((const int8_t *)w + at)))
                      : load_int((const int16_t *)w + at);
}

HEMI_INLINE int64_t total(vi a) {
    const vi wide = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(a)),
                                     _mm256_cvtepi32_epi64(_mm256_extracti128_si256(a, 1)));
    const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    return _mm_cvtsi128_si64(half) + _mm_extract_epi64(half, 1);
}

/* `rows` rows from entry `at` on: sums[k BLOCK + i]. */
HEMI_INLINE void vector_rows(int64_t *sums, const hemi_int_matrix *w, size_t at, const uint8_t *x, unsigned rows,
                             unsigned width, int_form f) {
    const size_t stride = w->stride, flush = 32 * (int_flush(f, w) / 2); /* entries: two steps a block of x */
    const uint8_t *row[VECTOR_ROWS];
    for (unsigned i = 0; i < rows; i++) row[i] = (const uint8_t *)w->entries + (at + i * stride) * width;
    for (size_t j = 0; j < stride;) {
        const size_t end = stride - j < flush ? stride : j + flush;
        vi acc[VECTOR_ROWS][4];
#pragma GCC unroll 4
        for (unsigned i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (unsigned k = 0; k < f.limbs; k++) acc[i][k] = _mm256_setzero_si256();
        for (; j < end; j += 32, x += 64 * f.limbs)
#pragma GCC unroll 2
            for (unsigned half = 0; half < 2; half++)
#pragma GCC unroll 4
                for (unsigned i = 0; i < rows; i++) {
                    const vi v = entries16(row[i], width, j + 16 * half);
#pragma GCC unroll 4
                    for (unsigned k = 0; k < f.limbs; k++) step(&acc[i][k], v, load_int(x + 64 * k + 32 * half));
                }
#pragma GCC unroll 4
        for (unsigned i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (unsigned k = 0; k < f.limbs; k++) sums[k * BLOCK + i] += total(acc[i][k]);
    }
}

HEMI_INLINE void vector_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                                const uint8_t *x, unsigned together, unsigned width, int_form f,
                                const hemi_modulus *m) {
    for (uint32_t i = 0; i < rows; i += BLOCK) {
        const uint32_t count = rows - i < BLOCK ? rows - i : BLOCK;
        int64_t sums[4 * BLOCK] = {0};
        uint64_t out[BLOCK];
        uint32_t k = 0;
        for (; k + together <= count; k += together)
            vector_rows(sums + k, w, (size_t)(first + i + k) * w->stride, x, together, width, f);
        for (; k < count; k++) vector_rows(sums + k, w, (size_t)(first + i + k) * w->stride, x, 1, width, f);
        finish(out, sums, BLOCK, count, f.limbs, f.bits, m);
        for (k = 0; k < count; k++) r[(i + k) * r_stride] = out[k];
    }
}

/* ---- many columns: a tile is ROWS x PANEL results. Its entries are widened once for CHUNK columns of the matrix and all limbs. */

enum { ROWS = 6, PANEL = 16, CHUNK = 512, TILE_STRIDE = CHUNK + 32 };

typedef struct tile {
    int16_t entries[ROWS * TILE_STRIDE] __attribute__((aligned(64)));
    int64_t sums[4 * ROWS * PANEL] __attribute__((aligned(64))); /* limb, row, column */
} tile;

/* Entries from column j on; rows that are missing stay what they were: their sums are not used. */
static void tile_load(tile *t, const hemi_int_matrix *w, size_t row, size_t rows, size_t j) {
    const size_t count = w->stride - j < CHUNK ? w->stride - j : CHUNK;
    for (size_t i = 0; i < rows; i++) {
        const size_t at = (row + i) * w->stride + j;
        for (size_t c = 0; c < count; c += 16)
            store_int(t->entries + i * TILE_STRIDE + c, entries16(w->entries, w->width, at + c));
    }
}

HEMI_INLINE void flush_to(int64_t *s, vi a) {
    store_int(s, _mm256_add_epi64(load_int(s), _mm256_cvtepi32_epi64(_mm256_castsi256_si128(a))));
    store_int(s + 4, _mm256_add_epi64(load_int(s + 4), _mm256_cvtepi32_epi64(_mm256_extracti128_si256(a, 1))));
}

/* steps groups of one limb: sums += entries x. */
static void tile_add(int64_t *sums, const int16_t *entries, const uint8_t *x, size_t steps) {
    vi acc[ROWS][2];
#pragma GCC unroll 6
    for (unsigned i = 0; i < ROWS; i++) acc[i][0] = acc[i][1] = _mm256_setzero_si256();
    for (size_t g = 0; g < steps; g++, x += 4 * PANEL, entries += 2) {
        const vi x0 = load_int(x), x1 = load_int(x + 32);
#pragma GCC unroll 6
        for (unsigned i = 0; i < ROWS; i++) {
            int32_t pair;
            memcpy(&pair, entries + i * TILE_STRIDE, sizeof pair);
            const vi v = _mm256_set1_epi32(pair);
            step(&acc[i][0], v, x0);
            step(&acc[i][1], v, x1);
        }
    }
#pragma GCC unroll 6
    for (unsigned i = 0; i < ROWS; i++) {
        flush_to(sums + i * PANEL, acc[i][0]);
        flush_to(sums + i * PANEL + 8, acc[i][1]);
    }
}

HEMI_INLINE void tile_product(tile *t, const hemi_int_matrix *w, size_t row, size_t rows, const uint8_t *x,
                              int_form f) {
    const size_t groups = int_groups(w, f), flush = int_flush(f, w);
    memset(t->sums, 0, sizeof t->sums);
    for (size_t begin = 0; begin < groups; begin += CHUNK / 2) {
        const size_t end = groups - begin < CHUNK / 2 ? groups : begin + CHUNK / 2;
        tile_load(t, w, row, rows, 2 * begin);
        for (unsigned k = 0; k < f.limbs; k++)
            for (size_t g = begin; g < end; g += flush)
                tile_add(t->sums + k * ROWS * PANEL, t->entries + 2 * (g - begin), x + (k * groups + g) * 4 * PANEL,
                         end - g < flush ? end - g : flush);
    }
}

HEMI_INLINE void panels_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                                const uint8_t *x, size_t count, int_form f, const hemi_modulus *m) {
    const size_t panel_bytes = f.limbs * int_groups(w, f) * 4 * PANEL;
    tile t;
    memset(&t, 0, sizeof t);
    for (size_t c = 0; c < count; c += PANEL, x += panel_bytes)
        for (size_t i = 0; i < rows; i += ROWS) {
            const size_t here = rows - i < ROWS ? rows - i : ROWS;
            tile_product(&t, w, first + i, here, x, f);
            for (size_t k = 0; k < here; k++)
                finish(r + (i + k) * r_stride + c, t.sums + k * PANEL, ROWS * PANEL,
                       count - c < PANEL ? count - c : PANEL, f.limbs, f.bits, m);
        }
}

/* ---- the parts of the table */

size_t hemi_avx2_int_right_bytes(const hemi_int_matrix *w, size_t count) {
    return count == 1 ? int_vector_bytes(w, form_of(w)) : int_panels_bytes(w, count, PANEL, form_of(w));
}

void hemi_avx2_int_right(void *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows, size_t count,
                         const hemi_int_matrix *w, const hemi_modulus *m) {
    if (count == 1 && w->width == 1) int_vector(x, a, stride, w, INT_WORDS16, m->p);
    if (count == 1 && w->width == 2) int_vector(x, a, stride, w, INT_WORDS12, m->p);
    if (count > 1 && w->width == 1) int_panels(x, a, stride, first, rows, count, PANEL, w, INT_WORDS16, m->p);
    if (count > 1 && w->width == 2) int_panels(x, a, stride, first, rows, count, PANEL, w, INT_WORDS12, m->p);
}

void hemi_avx2_int_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                           const void *x, size_t count, const hemi_modulus *m) {
    if (count == 1 && w->width == 1)
        vector_product(r, r_stride, w, first, rows, x, VECTOR_ROWS, 1, INT_WORDS16, m);
    else if (count == 1)
        vector_product(r, r_stride, w, first, rows, x, 2, 2, INT_WORDS12, m);
    else if (w->width == 1)
        panels_product(r, r_stride, w, first, rows, x, count, INT_WORDS16, m);
    else
        panels_product(r, r_stride, w, first, rows, x, count, INT_WORDS12, m);
}
