/* How an encrypted linear map lies in ciphertexts (docs/cryptography.md, "Matrix products"). Pure functions of public shapes, so that
 * client, server and compiler agree.
 *
 * A map sends `inputs` numbers to `outputs` numbers, the same way at many places: at each row of a matrix (Linear), or at each
 * position of a grid, where it reads the neighbours too (Conv). Ring degree N, S a power of two:
 *
 *   input    number c of place u is coefficient u S + c, c < S; more than S numbers lie in several ciphertexts (in_blocks)
 *   weights  row polynomial k:  w_k(X) = sum_(f<F) sum_tap sum_c W[k F + f][tap][c] X^(S f - S offset(tap) - c),   X^-e = -X^(N-e)
 *   output   kF + f at place u is coefficient offset_g + S (u + f) + k S/K; more of them lie in several ciphertexts (out_blocks)
 *
 * F ("fan") outputs share a row polynomial. Row polynomials are gathered in groups of K (a power of two), which take K products
 * and a trace over log2(S/K) automorphisms. Where one row polynomial suffices: one product, no automorphism ("direct").
 *
 * What is encrypted, computed and sent together is a unit: in_blocks ciphertexts in, out_blocks ciphertexts out, for `rows` rows, or
 * for a tile of tile_y x tile_x positions of a grid. */
#ifndef HEMI_LINEAR_LAYOUT_H
#define HEMI_LINEAR_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/params.h"
#include "linear/grid.h"

#define HEMI_LINEAR_GROUPS_MAX 2
#define HEMI_AUTOMORPHISMS_MAX 256 /* of a client's keys; a layout needs fewer */
#define HEMI_LINEAR_PRECISE_BABIES_MAX 16 /* of sets with baby_digits: each takes that many keys of its own */

typedef struct hemi_linear_group {
    uint32_t first;  /* its first row polynomial */
    uint32_t k;      /* row polynomials, a power of two; those past the last output are zero */
    uint32_t giants; /* k / babies */
    uint32_t offset; /* coefficients its outputs are shifted by */
} hemi_linear_group;

typedef struct hemi_linear_layout {
    const hemi_params *params;
    uint32_t n, log2_n;
    uint32_t inputs, outputs;       /* of the map: numbers of a row, or of a position (steps of the grid included) */
    uint32_t s, fan;
    uint32_t rows;                  /* rows of a unit, fan places apart; 0: a grid */
    uint32_t tile_y, tile_x, pitch; /* grids: positions of a tile; position (y, x) is place y pitch + x. Rows: 1, rows, 0 */
    uint32_t taps_y, taps_x;        /* tap (y, x) reads place u + y pitch + x; rows: 1, 1 */
    uint32_t in_blocks, block_inputs;   /* numbers of each ciphertext of the input (the last may hold fewer) */
    uint32_t out_blocks, block_outputs; /* outputs of each ciphertext of the result (the last may hold fewer) */
    bool direct;
    uint32_t babies; /* rotations of each input ciphertext, a power of two; 1 when direct */
    size_t groups;
    hemi_linear_group group[HEMI_LINEAR_GROUPS_MAX];
} hemi_linear_layout;

/* More key-switching keys than this make an upload that users would notice (50 KB each at N = 4096): the choice of a
 * layout avoids it. Few outputs of many inputs need more whatever the layout (1024 x 5: 10), since nearly all they do is the trace. */
#define HEMI_LINEAR_KEYS_SOFT_MAX 9
#define HEMI_LINEAR_FEATURES_MAX  (1u << 20) /* inputs, outputs of a map */
#define HEMI_LINEAR_BLOCKS_MAX    256u       /* ciphertexts of a unit, each way */

/* The numbers that, with the shape, make a layout: what a file states. 0 (and an empty group): to be chosen. */
typedef struct hemi_linear_choice {
    uint32_t s, fan, rows, tile_y, tile_x, babies;
    size_t groups;
    uint32_t k[HEMI_LINEAR_GROUPS_MAX];
} hemi_linear_choice;

/* A layout for rows of inputs x outputs. choice (may be NULL): what is given in it is kept; what is 0 is chosen for speed: rows = 0 gives
 * one row a unit, and as many as fit with rows = HEMI_LINEAR_ROWS_FULL. ERR_SHAPE if it does not fit the ring, ERR_ARGUMENT for a bad s,
 * ERR_PARAMS if the set has no key switching and the shape needs it, ERR_FORMAT when given numbers do not make a layout. */
#define HEMI_LINEAR_ROWS_FULL UINT32_MAX
HEMI_CHECK hemi_status hemi_linear_layout_rows(hemi_linear_layout *layout, const hemi_params *params, uint32_t inputs,
                                               uint32_t outputs, const hemi_linear_choice *choice, hemi_error *err);
/* A layout for a grid: the tile that costs least for the whole sample. The same errors. */
HEMI_CHECK hemi_status hemi_linear_layout_grid(hemi_linear_layout *layout, const hemi_params *params, const hemi_grid *grid,
                                               const hemi_linear_choice *choice, hemi_error *err);
/* The choice that restores this layout. */
hemi_linear_choice hemi_linear_layout_choice(const hemi_linear_layout *layout);

/* Row polynomials of an output block; products: plaintexts of a unit, in_blocks out_blocks K. */
uint32_t hemi_linear_polynomials(const hemi_linear_layout *layout);
size_t hemi_linear_products(const hemi_linear_layout *layout);
/* What a unit costs a server, in units of one NTT: measured ratios. */
double hemi_linear_cost(const hemi_linear_layout *layout);
/* Places of a unit: rows, or positions of a tile; where one is, as a number of S coefficients. */
uint32_t hemi_linear_places(const hemi_linear_layout *layout);
uint32_t hemi_linear_place(const hemi_linear_layout *layout, uint32_t i);

/* Coefficients of b that each ciphertext of a request carries: every one that a kept output reads, also those that hold no message.
 * Number c of place u is entry u block_inputs + c: the places read are 0 .. hemi_linear_input_places - 1. positions may be NULL. Returns
 * how many coefficients. */
size_t hemi_linear_input_positions(const hemi_linear_layout *layout, uint32_t *positions);
uint32_t hemi_linear_input_places(const hemi_linear_layout *layout);
/* Coefficients of each ciphertext of a result that are kept: output o (of the block) at the i-th place is entry
 * i block_outputs + o. positions may be NULL. Returns how many. */
size_t hemi_linear_output_positions(const hemi_linear_layout *layout, uint32_t *positions);
/* Whether a reply may be switched to the ring of half the degree: the set has one, and all outputs are at even coefficients. */
bool hemi_linear_outputs_halve(const hemi_linear_layout *layout);
/* The keys that are needed (numbers, rlwe/context.h; of the family alone: automorphisms), increasing; returns how many (<= HEMI_AUTOMORPHISMS_MAX). t may be NULL. */
size_t hemi_linear_automorphisms(const hemi_linear_layout *layout, uint32_t *t);

/* gamma_i = the product over the bits l of i of family element l, modulo 2N; element l of the family of S. */
uint32_t hemi_linear_family(const hemi_linear_layout *layout, unsigned bit);
uint32_t hemi_linear_gamma(const hemi_linear_layout *layout, uint32_t i);
/* The giant step: babies' next family element, whose powers G^c are the giants of a group. */
uint32_t hemi_linear_giant(const hemi_linear_layout *layout);
/* Trace of a group: number of steps log2(S/K); step j uses the automorphism t = N / 2^j + 1. */
unsigned hemi_linear_trace_steps(const hemi_linear_layout *layout, size_t group);

/* Predicted noise of a result, as a variance in units of 1 (of q), per output, before the switch down.
 * weight_norm2: mean over the outputs of the sum of the squares of all weights of an output (all taps and inputs); b_bits: bits of
 * an uploaded coefficient. */
double hemi_linear_noise_variance(const hemi_linear_layout *layout, double weight_norm2, unsigned b_bits);
/* Variance added by switching the reply down to a_bits and b_bits. */
double hemi_linear_switch_variance(const hemi_linear_layout *layout, unsigned a_bits, unsigned b_bits);

#endif
