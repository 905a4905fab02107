/* Where the numbers of a tensor are in the ciphertexts of a unit. Used by the client (and by tests). */
#ifndef HEMI_LINEAR_UNITS_H
#define HEMI_LINEAR_UNITS_H

#include "linear/layout.h"

#define HEMI_UNIT_NOTHING SIZE_MAX /* no number of the tensor: zero, or not kept */

/* Units that hold `rows` rows (a layout of rows), or one sample (a grid). */
size_t hemi_units_of_rows(const hemi_linear_layout *layout, size_t rows);
size_t hemi_units_of_sample(const hemi_linear_layout *layout, const hemi_grid *grid);

/* For ciphertext `block` of unit `unit`: index[i], for every entry of hemi_linear_input_positions, is the place of its number in the tensor
 * (rows x inputs; or the sample, channels x height x width), or HEMI_UNIT_NOTHING. grid NULL: rows. */
void hemi_unit_inputs(size_t *index, const hemi_linear_layout *layout, const hemi_grid *grid, size_t rows, size_t unit, uint32_t block);
/* The same of hemi_linear_output_positions, in the output tensor. */
void hemi_unit_outputs(size_t *index, const hemi_linear_layout *layout, const hemi_grid *grid, size_t rows, size_t unit, uint32_t block);

#endif
