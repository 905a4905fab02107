/* The layout of an encrypted matrix-vector product y = W x (docs/cryptography.md, "Matrix products").
 *
 * d inputs, m outputs, ring degree N, S a power of two with d <= S <= N:
 *   x(X) = sum_j x_j X^j;  row polynomial k holds N/S outputs, spaced S apart.
 * Row polynomials are gathered in groups; a group of K (a power of two) places output (k, r) at coefficient
 * offset + S r + k S/K after K products and a trace over log2(S/K) automorphisms. When m S <= N, one product and
 * no automorphism ("direct"): output r at coefficient S r. */
#ifndef HEMI_LINEAR_LAYOUT_H
#define HEMI_LINEAR_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/params.h"

#define HEMI_LINEAR_GROUPS_MAX 2
#define HEMI_AUTOMORPHISMS_MAX 32

typedef struct hemi_linear_group {
    uint32_t first;  /* its first row polynomial */
    uint32_t k;      /* row polynomials, a power of two; those past the last output are zero */
    uint32_t giants; /* k / babies */
    uint32_t offset; /* coefficients its outputs are shifted by */
} hemi_linear_group;

typedef struct hemi_linear_layout {
    const hemi_params *params;
    uint32_t n, log2_n;
    uint32_t inputs, outputs, s;
    bool direct;      /* m S <= N */
    uint32_t babies;  /* rotations of the input, a power of two; 1 when direct */
    size_t groups;
    hemi_linear_group group[HEMI_LINEAR_GROUPS_MAX];
} hemi_linear_layout;

/* More key-switching keys than this make an upload that users would notice (50 KB each at N = 4096): the choice of a
 * layout avoids it. Few outputs of many inputs need more whatever the layout (1024 x 5: 10), since nearly all they do is the trace. */
#define HEMI_LINEAR_KEYS_SOFT_MAX 9

/* The layout for inputs x outputs; s = 0: the default S for speed. ERR_SHAPE if it does not fit the ring (inputs or outputs above N),
 * ERR_ARGUMENT for a bad s, ERR_PARAMS if the set has no key switching and the shape needs it. */
HEMI_CHECK hemi_status hemi_linear_layout_init(hemi_linear_layout *layout, const hemi_params *params, uint32_t inputs,
                                               uint32_t outputs, uint32_t s, hemi_error *err);
/* The layout that a file states: s, babies and the k of each group (everything else follows). The same errors, and ERR_FORMAT
 * when the numbers do not make a layout of this shape. A layout of an older file stays readable when the choice above
 * changes. */
HEMI_CHECK hemi_status hemi_linear_layout_restore(hemi_linear_layout *layout, const hemi_params *params, uint32_t inputs,
                                                  uint32_t outputs, uint32_t s, uint32_t babies, const uint32_t *k, size_t groups,
                                                  hemi_error *err);
/* Products: plaintexts of all groups. */
uint32_t hemi_linear_products(const hemi_linear_layout *layout);
/* Coefficients of b that a request carries: inputs * N / S, in increasing order of position; positions may be NULL. */
size_t hemi_linear_input_positions(const hemi_linear_layout *layout, uint32_t *positions);
/* Coefficient of output o, for o < outputs. */
void hemi_linear_output_positions(const hemi_linear_layout *layout, uint32_t *positions);
/* Whether a reply may be switched to the ring of half the degree: the set has one, and all outputs are at even coefficients. */
bool hemi_linear_outputs_halve(const hemi_linear_layout *layout);
/* The automorphisms that need a key, increasing; returns how many (<= HEMI_AUTOMORPHISMS_MAX). t may be NULL. */
size_t hemi_linear_automorphisms(const hemi_linear_layout *layout, uint32_t *t);

/* gamma_i = the product over the bits l of i of family element l, modulo 2N; element l of the family of S. */
uint32_t hemi_linear_family(const hemi_linear_layout *layout, unsigned bit);
uint32_t hemi_linear_gamma(const hemi_linear_layout *layout, uint32_t i);
/* The giant step: babies' next family element, whose powers G^c are the giants of a group. */
uint32_t hemi_linear_giant(const hemi_linear_layout *layout);
/* Trace of a group: number of steps log2(S/K); step j uses the automorphism t = N / 2^j + 1. */
unsigned hemi_linear_trace_steps(const hemi_linear_layout *layout, size_t group);

/* Predicted noise of a result, as a variance in units of 1 (of q), per output, before the switch down.
 * weight_norm2: mean over the outputs of sum_j W[o][j]^2; b_bits: bits of an uploaded coefficient. */
double hemi_linear_noise_variance(const hemi_linear_layout *layout, double weight_norm2, unsigned b_bits);
/* Variance added by switching the reply down to a_bits and b_bits. */
double hemi_linear_switch_variance(const hemi_linear_layout *layout, unsigned a_bits, unsigned b_bits);

#endif
