/* What the operations share. Internal to the room. */
#ifndef HEMI_CKKS_WORKSPACE_H
#define HEMI_CKKS_WORKSPACE_H

#include "ckks/cipher.h"

#define HEMI_CKKS_TOGETHER 8 /* automorphisms from the same digits; more take them again */

struct hemi_ckks_workspace {
    const hemi_ckks_context *ctx;
    hemi_team *team;
    uint32_t limbs; /* of the largest ciphertext */
    size_t workers;
    uint64_t *coefficient; /* limbs: the polynomial that is switched, in mixed radix, digit by digit */
    uint64_t *rest;        /* HEMI_CKKS_TOGETHER times both components at the primes that are divided by: specials + 1 at most */
    uint64_t *product[3];  /* limbs each: of two ciphertexts */
    uint64_t *scratch;     /* of each worker: hemi_ckks_scratch */
    size_t scratch_words;
    void *storage;
    size_t bytes, blocks, room;
    struct hemi_ckks_block *block; /* what is lent, or was and waits for the next */
};

typedef struct hemi_ckks_block {
    uint64_t *words;
    size_t count;
    bool lent;
} hemi_ckks_block;

/* Words from polynomial to polynomial where several are read side by side: they begin at different places of their pages. */
static inline size_t hemi_ckks_stride(const hemi_ckks_context *ctx) { return (size_t)ctx->n + 72; }
/* All digits at one limb and three polynomials more, hemi_ckks_stride apart. */
static inline uint64_t *hemi_ckks_scratch(const hemi_ckks_workspace *w, size_t worker) { return w->scratch + worker * w->scratch_words; }

/* Key switching of c1 (`limbs` limbs, NTT form): r[i] (room for limbs) = (plus0, plus1) + the switched c1, over P rounded, both permuted by key i's index.
 * plus1 may be NULL: nothing. rescales: divided by the last prime too, in the same rounding: r[i] has a limb less. count at most
 * HEMI_CKKS_TOGETHER. c1 and plus may lie in r[0] where count is 1. */
typedef struct hemi_ckks_switching {
    const hemi_ckks_keys *keys;
    const hemi_ckks_key *key[HEMI_CKKS_TOGETHER];
    hemi_ckks_cipher *r[HEMI_CKKS_TOGETHER];
    size_t count;
    const uint64_t *c1, *plus[2];
    uint32_t limbs;
    bool rescales;
} hemi_ckks_switching;

void hemi_ckks_switch(hemi_ckks_workspace *w, const hemi_ckks_switching *s);

#endif
