/* The table of kernels: one per instruction set, chosen at start, all with bit-identical results.
 *
 * Every polynomial is an array of n canonical residues (uint64_t in [0, p)), aligned to 64 bytes, in
 * and out; how a kernel computes in between is its own affair. Transforms take a power of two
 * from 4 on and call the portable function where that is too short for their vectors; what works slot by slot takes any n.
 *
 * "Fixed" operands are private to a table: `fix` turns canonical residues into the form that `*_fixed`
 * functions and the dot product want. They never leave the process. */
#ifndef HEMI_RING_KERNELS_H
#define HEMI_RING_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/int_matrix.h"
#include "ring/modulus.h"

/* One prime of a ring, with its tables. */
typedef struct hemi_limb {
    hemi_modulus m;
    uint32_t n, log2_n;
    uint64_t psi; /* pinned primitive 2n-th root of unity */
    uint64_t n_inverse;
    const uint64_t *psi_powers;         /* n: psi^brv(i), canonical; i = 1.. are the forward twiddles */
    const uint64_t *psi_inverse_powers; /* n: psi^-brv(i) */
    void *twiddles;                     /* private to the table */
} hemi_limb;

typedef struct hemi_kernels {
    const char *name; /* "portable", "avx2", "avx512" */

    /* Bytes of, and filling in of, limb->twiddles (aligned to 64 bytes); psi_powers etc. are set before. */
    size_t (*twiddle_bytes)(uint32_t n);
    void (*twiddle_init)(hemi_limb *limb);

    /* Negacyclic NTT, in place. Slot i of the output is the value at psi^(2 brv(i) + 1). intt is its inverse
     * (multiplied by n^-1); r may be a. */
    void (*ntt)(uint64_t *a, const hemi_limb *l);
    void (*intt)(uint64_t *r, const uint64_t *a, const hemi_limb *l);

    /* r = a + b, a - b, a * b, r + a * b, a * s (slot by slot); r may be a or b. */
    void (*add)(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m);
    void (*sub)(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m);
    void (*mul)(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m);
    void (*mul_add)(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m);
    void (*mul_scalar)(uint64_t *r, const uint64_t *a, uint64_t s, size_t n, const hemi_modulus *m);

    /* w = fixed form of a (may be in place). r = a * w;  r = r + a * w, for w in fixed form. */
    void (*fix)(uint64_t *w, const uint64_t *a, size_t n, const hemi_modulus *m);
    void (*mul_fixed)(uint64_t *r, const uint64_t *a, const uint64_t *w, size_t n, const hemi_modulus *m);
    void (*mul_add_fixed)(uint64_t *r, const uint64_t *a, const uint64_t *w, size_t n, const hemi_modulus *m);

    /* r[i] = a[index[i]]; r is not a. */
    void (*permute)(uint64_t *r, const uint64_t *a, const uint32_t *index, size_t n);
    /* Key switching's product: r0[i] = d[index[i]] * w0[i] + e[index[i]], r1[i] = d[index[i]] * w1[i], w0 and w1 fixed; e may be
     * NULL: zeros. r0 and r1 are neither d nor e. */
    void (*keyswitch_product)(uint64_t *r0, uint64_t *r1, const uint64_t *d, const uint64_t *e, const uint32_t *index,
                              const uint64_t *w0, const uint64_t *w1, size_t n, const hemi_modulus *m);
    /* The same with several digits, for 16 < p < 2^48:
     *   r0[i] = sum_(k<digits) d[k d_stride + index[i]] * w0_k[i],  r1[i] likewise with w1,
     * w0_k the 6 n bytes of w0 from k w_bytes on, in `dot_right` form (keys come from memory). digits <= HEMI_GADGET_DIGITS_MAX, n a
     * multiple of 8; index may be NULL: i itself. r0 and r1 are not d. */
    void (*gadget_product)(uint64_t *r0, uint64_t *r1, const uint64_t *d, size_t d_stride, const uint32_t *index,
                           const uint8_t *w0, const uint8_t *w1, size_t w_bytes, size_t digits, size_t n, const hemi_modulus *m);

    /* Small signed integers, |a| < p, to canonical residues. */
    void (*from_int16)(uint64_t *r, const int16_t *a, size_t n, const hemi_modulus *m);
    /* r = the centred representative of a (mod from) taken mod to. Any two primes. r may be a. */
    void (*lift)(uint64_t *r, const uint64_t *a, size_t n, const hemi_modulus *from, const hemi_modulus *to);
    /* Numbers in mixed radix, x_0 + f_0 (x_1 + f_1 (x_2 + ...)), x_j = x[j stride + i] centred modulo f_j = from[j], taken mod to. x in
     * `dot_left` form; 1 <= count <= HEMI_MIXED_MAX; any primes. r is not x. */
    void (*lift_mixed)(uint64_t *r, const uint64_t *x, size_t stride, const hemi_modulus *const *from, size_t count, size_t n,
                       const hemi_modulus *to);
    /* r = (a - b) * s; r may be a or b. The second half of a division by a special prime. */
    void (*sub_mul_scalar)(uint64_t *r, const uint64_t *a, const uint64_t *b, uint64_t s, size_t n,
                           const hemi_modulus *m);

    /* Modulus switch to a power of two: r = round(a 2^bits / p) mod 2^bits = floor((a 2^bits + (p-1)/2) / p) mod 2^bits, exactly;
     * 1 <= bits <= 50. The inverse direction, exactly: r = round(a p / 2^bits) = floor((a p + 2^(bits-1)) / 2^bits) mod p, a < 2^bits. r may be a. */
    void (*switch_down)(uint64_t *r, const uint64_t *a, size_t n, unsigned bits, const hemi_modulus *m);
    void (*switch_up)(uint64_t *r, const uint64_t *a, size_t n, unsigned bits, const hemi_modulus *m);

    /* The sums of products of an encrypted matrix product, for p < 2^48: for c < sums and i < len
     *   r0[c r_stride + i] = sum_(k<count) x0[k stride + i] w_(c,k)[i],  r1[c r_stride + i] = sum_(k<count) x1[k stride + i] w_(c,k)[i],
     * x in `dot_left` form, w_(c,k) = the 6 len bytes of w from 6 len (c count + k) on, in `dot_right` form. count <= 1024, len
     * a multiple of 8. dot_left (x may be a; any p) and dot_right convert canonical residues; dot_right writes 6 n bytes. */
    void (*dot_left)(uint64_t *x, const uint64_t *a, size_t n, const hemi_modulus *m);
    void (*dot_right)(uint8_t *w, const uint64_t *a, size_t n, const hemi_modulus *m);
    void (*dot2)(uint64_t *r0, uint64_t *r1, size_t r_stride, size_t sums, const uint64_t *x0, const uint64_t *x1,
                 size_t stride, const uint8_t *w, size_t count, size_t len, const hemi_modulus *m);

    /* The product of a matrix of small integers with residues, for 2^32 < p < 2^48: for i < rows and c < count
     *   r[i r_stride + c] = sum_(j < w->columns) w[first + i][j] a[j][c].
     * The right side is first brought into a form of the table's (and of w's width): int_right_bytes(w, count) bytes, aligned to 64.
     * int_right does so for rows first .. first+rows-1 of a, row `first` at a, the next `stride` words on; `first` is a multiple of
     * HEMI_INT_GROUP, and so is `rows` unless they are the last. Calls for different rows may run side by side. With count = 1, one
     * call takes all rows. One column is bound by the reading of w, many by arithmetic; fewer than HEMI_INT_FEW are faster one by one. */
    size_t (*int_right_bytes)(const hemi_int_matrix *w, size_t count);
    void (*int_right)(void *x, const uint64_t *a, size_t stride, uint32_t first, uint32_t rows, size_t count,
                      const hemi_int_matrix *w, const hemi_modulus *m);
    void (*int_product)(uint64_t *r, size_t r_stride, const hemi_int_matrix *w, uint32_t first, uint32_t rows,
                        const void *x, size_t count, const hemi_modulus *m);
} hemi_kernels;

#define HEMI_GADGET_DIGITS_MAX    64
#define HEMI_MIXED_MAX            5
#define HEMI_DOT_MODULUS_BITS_MAX 48
#define HEMI_DOT_COUNT_MAX        1024
#define HEMI_INT_MODULUS_BITS_MAX 48
#define HEMI_INT_GROUP            4
#define HEMI_INT_FEW              12

extern const hemi_kernels hemi_kernels_portable;
extern const hemi_kernels hemi_kernels_avx2;   /* defined on x86-64 only */
extern const hemi_kernels hemi_kernels_avx512; /* defined on x86-64 only */

/* The best table this processor can run, or the one named in the environment variable HEMI_KERNEL
 * (if it can run here; otherwise the best). */
const hemi_kernels *hemi_kernels_default(void);
/* A table by name; NULL if unknown or if this processor cannot run it. */
const hemi_kernels *hemi_kernels_by_name(const char *name);
/* The tables that can run here, best last; i from 0; NULL after the last. */
const hemi_kernels *hemi_kernels_at(size_t i);

#endif
