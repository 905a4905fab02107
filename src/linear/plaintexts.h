/* The plaintext polynomials of a layout, from its weights. Internal to the room; open to tests. */
#ifndef HEMI_LINEAR_PLAINTEXTS_H
#define HEMI_LINEAR_PLAINTEXTS_H

#include "base/threads.h"
#include "linear/layout.h"

/* Between ciphertext in_block of the input and out_block of the result. pt: group.k polynomials of n signed coefficients; on return
 * polynomial from[c * babies + b] is
 *   G^-c ( sum_k X^(k S/K) gamma(w_k) ),   gamma = gamma_b G^c,
 * to be multiplied by gamma_b(x) and summed over b, the sums being combined as sum_c G^c(...). |coefficient| <= K max|w|.
 * w: the map's outputs x taps x inputs integers. ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_linear_plaintexts(int32_t *pt, uint32_t *from, const hemi_linear_layout *layout, uint32_t in_block,
                                              uint32_t out_block, size_t group, const int16_t *w, hemi_team *team, hemi_error *err);

#endif
