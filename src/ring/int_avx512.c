/* Integer matrix times residues, AVX-512 VNNI: int8_t entries meet byte limbs (vpdpbusd), int16_t entries 12-bit limbs
 * (vpdpwssd); both add products to 32-bit sums, which int_limbs.h keeps from overflowing. A processor that has all other
 * instructions of this table but not these (there was one) takes the AVX2 functions: the forms are a table's own. */
#include "ring/avx512.h"

#include "base/cpu.h"
#include "ring/int_limbs.h"

size_t hemi_avx2_int_right_bytes(const hemi_int_matrix *w, size_t count);
void hemi_avx2_int_right(void *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows, size_t count,
                         const hemi_int_matrix *w, const hemi_modulus *m);
void hemi_avx2_int_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                           const void *x, size_t count, const hemi_modulus *m);

HEMI_INLINE int_form form_of(const hemi_int_matrix *w) { return w->width == 1 ? INT_BYTES : INT_WORDS12; }

/* sum += products of a group of entries and limbs, in every lane. The bytes of x are unsigned, those of w signed. The empty statement
 * keeps the sums in registers, which the compiler by itself does not manage. */
HEMI_INLINE void step(vi *sum, vi x, vi w, unsigned width) {
    vi s = width == 1 ? _mm512_dpbusd_epi32(*sum, x, w) : _mm512_dpwssd_epi32(*sum, x, w);
    __asm__("" : "+v"(s));
    *sum = s;
}

/* ---- sums to residues */

/* r[i] = sum_k sums[k stride + i] 2^(bits k). Three byte limbs make one of 24 bits, below 2^31 (1 + 2^8 + 2^16) < 2^48. Then Horner's
 * rule: with `shift`, the least multiple of p from 2^48 on, sum + shift is in [0, 2^49 + p), plus [0, 2p) in [0, 2^52). sums is readable
 * up to a multiple of 8. */
HEMI_INLINE void finish(uint64_t *r, const int64_t *sums, size_t stride, size_t n, int_form f, const hemi_modulus *m) {
    const prime_avx512 c = prime_of(m);
    const uint64_t w = (UINT64_C(1) << (f.bits == 8 ? 24 : f.bits)) % m->p;
    const vi power = all(w), quotient = all(quotient52(w, m)), shift = all(((UINT64_C(1) << 48) / m->p + 1) * m->p);
    const unsigned parts = f.bits == 8 ? 2 : f.limbs;
    for (size_t i = 0; i < n; i += 8) {
        vi y = zero();
        for (unsigned k = parts; k-- > 0;) {
            vi s = load(sums + (f.bits == 8 ? 3 * k : k) * stride + i);
            if (f.bits == 8) {
                s = add(s, _mm512_slli_epi64(load(sums + (3 * k + 1) * stride + i), 8));
                s = add(s, _mm512_slli_epi64(load(sums + (3 * k + 2) * stride + i), 16));
            }
            const vi q = hi(zero(), y, quotient);
            y = canonical(lo(lo(add(s, shift), y, power), q, c.minus_p), &c);
        }
        _mm512_mask_storeu_epi64(r + i, n - i < 8 ? (__mmask8)((1u << (n - i)) - 1) : 0xFF, y);
    }
}

/* ---- one column */

enum { VECTOR_ROWS = 4, BLOCK = 64 }; /* rows side by side, rows whose sums are kept */

/* The sums of the lanes of four. In 32 bits: with byte limbs a whole sum is below 2^31. */
HEMI_INLINE __m256i totals32(const vi a[4]) {
    const vi t0 = _mm512_add_epi32(_mm512_unpacklo_epi32(a[0], a[1]), _mm512_unpackhi_epi32(a[0], a[1]));
    const vi t1 = _mm512_add_epi32(_mm512_unpacklo_epi32(a[2], a[3]), _mm512_unpackhi_epi32(a[2], a[3]));
    const vi u = _mm512_add_epi32(_mm512_unpacklo_epi64(t0, t1), _mm512_unpackhi_epi64(t0, t1));
    const __m256i v = _mm256_add_epi32(_mm512_castsi512_si256(u), _mm512_extracti64x4_epi64(u, 1));
    return _mm256_cvtepi32_epi64(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

HEMI_INLINE vi widened(vi a) {
    return add(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(a)),
               _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(a, 1)));
}

/* The same in 64 bits, where a flush may leave up to 2^31 in every lane. */
HEMI_INLINE __m256i totals64(const vi a[4]) {
    int64_t s[4];
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) s[i] = _mm512_reduce_add_epi64(widened(a[i]));
    return _mm256_loadu_si256((const __m256i *)s);
}

/* Four rows, `rows` of which exist, from entry `at` on: sums[k BLOCK + i]; four sums are written. */
HEMI_INLINE void vector_rows(int64_t *sums, const hemi_int_matrix *w, size_t at, const uint8_t *x, unsigned rows,
                             unsigned width, int_form f) {
    const size_t bytes = (size_t)w->stride * width, flush = width == 1 ? bytes : 64 * int_flush(f, w);
    const uint8_t *row[VECTOR_ROWS];
    for (unsigned i = 0; i < VECTOR_ROWS; i++)
        row[i] = (const uint8_t *)w->entries + at * width + (i < rows ? i : 0) * bytes;
    for (size_t j = 0; j < bytes;) {
        const size_t end = bytes - j < flush ? bytes : j + flush;
        vi acc[HEMI_INT_LIMBS_MAX][VECTOR_ROWS];
#pragma GCC unroll 6
        for (unsigned k = 0; k < f.limbs; k++)
#pragma GCC unroll 4
            for (unsigned i = 0; i < VECTOR_ROWS; i++) acc[k][i] = zero();
        for (; j < end; j += 64, x += 64 * f.limbs) {
            vi v[VECTOR_ROWS];
#pragma GCC unroll 4
            for (unsigned i = 0; i < VECTOR_ROWS; i++) v[i] = load(row[i] + j);
#pragma GCC unroll 6
            for (unsigned k = 0; k < f.limbs; k++) {
                const vi limb = load(x + 64 * k);
#pragma GCC unroll 4
                for (unsigned i = 0; i < VECTOR_ROWS; i++) step(&acc[k][i], limb, v[i], width);
            }
        }
#pragma GCC unroll 6
        for (unsigned k = 0; k < f.limbs; k++) {
            __m256i *s = (__m256i *)(void *)(sums + k * BLOCK);
            const __m256i t = width == 1 ? totals32(acc[k]) : totals64(acc[k]);
            _mm256_storeu_si256(s, _mm256_add_epi64(_mm256_loadu_si256(s), t));
        }
    }
}

HEMI_INLINE void vector_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                                const uint8_t *x, unsigned width, int_form f, const hemi_modulus *m) {
    for (uint32_t i = 0; i < rows; i += BLOCK) {
        const uint32_t count = rows - i < BLOCK ? rows - i : BLOCK;
        int64_t sums[HEMI_INT_LIMBS_MAX * BLOCK] = {0};
        uint64_t out[BLOCK];
        for (uint32_t k = 0; k < count; k += VECTOR_ROWS)
            vector_rows(sums + k, w, (size_t)(first + i + k) * w->stride, x,
                        count - k < VECTOR_ROWS ? count - k : VECTOR_ROWS, width, f);
        finish(out, sums, BLOCK, count, f, m);
        for (uint32_t k = 0; k < count; k++) r[(i + k) * r_stride] = out[k];
    }
}

/* ---- many columns: a tile is ROWS x PANEL results. Its entries are copied for CHUNK bytes of a row and all limbs, to where rows do
 * not lie a power of two apart. */

enum { ROWS = 12, PANEL = 32, CHUNK = 1024, TILE_STRIDE = CHUNK + 64 };
#define AHEAD 1024 /* bytes of the right side asked for ahead: 46 Gmac/s at 768 x 768 x 2048, 43 without */

typedef struct tile {
    uint8_t entries[ROWS * TILE_STRIDE] __attribute__((aligned(64)));
    int64_t sums[HEMI_INT_LIMBS_MAX * ROWS * PANEL] __attribute__((aligned(64))); /* limb, row, column */
} tile;

HEMI_INLINE void flush_to(int64_t *s, vi a) {
    store(s, add(load(s), _mm512_cvtepi32_epi64(_mm512_castsi512_si256(a))));
    store(s + 8, add(load(s + 8), _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(a, 1))));
}

HEMI_INLINE vi broadcast(const uint8_t *group) {
    int32_t v;
    memcpy(&v, group, sizeof v);
    return _mm512_set1_epi32(v);
}

/* steps groups of one limb: sums += entries x. */
HEMI_INLINE void tile_add(int64_t *sums, const uint8_t *entries, const uint8_t *x, size_t steps, unsigned width) {
    vi acc[ROWS][2];
#pragma GCC unroll 12
    for (unsigned i = 0; i < ROWS; i++) acc[i][0] = acc[i][1] = zero();
    for (size_t g = 0; g < steps; g++, x += 4 * PANEL, entries += 4) {
        const vi x0 = load(x), x1 = load(x + 64);
        _mm_prefetch((const char *)((uintptr_t)x + AHEAD), _MM_HINT_T0);
        _mm_prefetch((const char *)((uintptr_t)x + AHEAD + 64), _MM_HINT_T0);
#pragma GCC unroll 12
        for (unsigned i = 0; i < ROWS; i++) {
            const vi v = broadcast(entries + i * TILE_STRIDE);
            step(&acc[i][0], x0, v, width);
            step(&acc[i][1], x1, v, width);
        }
    }
#pragma GCC unroll 12
    for (unsigned i = 0; i < ROWS; i++) {
        flush_to(sums + i * PANEL, acc[i][0]);
        flush_to(sums + i * PANEL + 16, acc[i][1]);
    }
}

/* Rows that are missing stay what they were: their sums are not used. count is a multiple of 64, as rows are padded. */
static void tile_load(tile *t, const uint8_t *from, size_t rows, size_t stride, size_t count) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < count; j += 64) store(t->entries + i * TILE_STRIDE + j, load(from + i * stride + j));
}

HEMI_INLINE void tile_product(tile *t, const hemi_int_matrix *w, size_t row, size_t rows, const uint8_t *x,
                              unsigned width, int_form f) {
    const size_t groups = int_groups(w, f), flush = int_flush(f, w), bytes = (size_t)w->stride * width;
    memset(t->sums, 0, sizeof t->sums);
    for (size_t begin = 0; begin < groups; begin += CHUNK / 4) {
        const size_t end = groups - begin < CHUNK / 4 ? groups : begin + CHUNK / 4;
        tile_load(t, (const uint8_t *)w->entries + row * bytes + 4 * begin, rows, bytes,
                  bytes - 4 * begin < CHUNK ? bytes - 4 * begin : CHUNK);
        for (unsigned k = 0; k < f.limbs; k++)
            for (size_t g = begin; g < end; g += flush)
                tile_add(t->sums + k * ROWS * PANEL, t->entries + 4 * (g - begin), x + (k * groups + g) * 4 * PANEL,
                         end - g < flush ? end - g : flush, width);
    }
}

HEMI_INLINE void panels_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                                const uint8_t *x, size_t count, unsigned width, int_form f, const hemi_modulus *m) {
    const size_t panel_bytes = f.limbs * int_groups(w, f) * 4 * PANEL;
    tile t;
    memset(t.entries, 0, sizeof t.entries);
    for (size_t c = 0; c < count; c += PANEL, x += panel_bytes)
        for (size_t i = 0; i < rows; i += ROWS) {
            const size_t here = rows - i < ROWS ? rows - i : ROWS;
            tile_product(&t, w, first + i, here, x, width, f);
            for (size_t k = 0; k < here; k++)
                finish(r + (i + k) * r_stride + c, t.sums + k * PANEL, ROWS * PANEL,
                       count - c < PANEL ? count - c : PANEL, f, m);
        }
}

/* ---- the parts of the table */

size_t hemi_avx512_int_right_bytes(const hemi_int_matrix *w, size_t count) {
    if (!hemi_cpu_has_avx512_vnni()) return hemi_avx2_int_right_bytes(w, count);
    return count == 1 ? int_vector_bytes(w, form_of(w)) : int_panels_bytes(w, count, PANEL, form_of(w));
}

void hemi_avx512_int_right(void *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows, size_t count,
                           const hemi_int_matrix *w, const hemi_modulus *m) {
    if (!hemi_cpu_has_avx512_vnni())
        hemi_avx2_int_right(x, a, stride, first, rows, count, w, m);
    else if (count == 1 && w->width == 1)
        int_vector(x, a, stride, w, INT_BYTES, m->p);
    else if (count == 1)
        int_vector(x, a, stride, w, INT_WORDS12, m->p);
    else if (w->width == 1)
        int_panels(x, a, stride, first, rows, count, PANEL, w, INT_BYTES, m->p);
    else
        int_panels(x, a, stride, first, rows, count, PANEL, w, INT_WORDS12, m->p);
}

void hemi_avx512_int_product(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                             const void *x, size_t count, const hemi_modulus *m) {
    if (!hemi_cpu_has_avx512_vnni())
        hemi_avx2_int_product(r, r_stride, w, first, rows, x, count, m);
    else if (count == 1 && w->width == 1)
        vector_product(r, r_stride, w, first, rows, x, 1, INT_BYTES, m);
    else if (count == 1)
        vector_product(r, r_stride, w, first, rows, x, 2, INT_WORDS12, m);
    else if (w->width == 1)
        panels_product(r, r_stride, w, first, rows, x, count, 1, INT_BYTES, m);
    else
        panels_product(r, r_stride, w, first, rows, x, count, 2, INT_WORDS12, m);
}
