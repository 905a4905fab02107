/* From a result's coefficients to the bytes of a reply: in its own ring, or switched to that of half the degree. */
#ifndef HEMI_LINEAR_REPLY_H
#define HEMI_LINEAR_REPLY_H

#include "linear/product.h"

/* ERR_KEY if a switch to the small ring is asked for and keys hold no key for it, ERR_ARGUMENT if the layout's outputs do not fit that
 * ring. */
HEMI_CHECK hemi_status hemi_linear_reply_check(const hemi_linear_layout *layout, const hemi_evaluation_keys *keys,
                                               const hemi_linear_output *out, hemi_error *err);
/* One ciphertext, to the bytes at `at`. c0: the coefficients at positions, `count` of them; c1: all N; modulo q, errors added; both are
 * overwritten. u: N words, digits: 2 N words of scratch, used by a ring switch alone. */
void hemi_linear_reply_store(uint8_t *at, const hemi_linear_output *out, const hemi_evaluation_keys *keys, const uint32_t *positions,
                             size_t count, uint64_t *c0, uint64_t *c1, uint64_t *u, uint64_t *digits);

#endif
