/* What the operations share. Internal to the room. */
#ifndef HEMI_CKKS_WORKSPACE_H
#define HEMI_CKKS_WORKSPACE_H

#include "ckks/cipher.h"

struct hemi_ckks_workspace {
    const hemi_ckks_context *ctx;
    hemi_team *team;
    uint32_t limbs; /* of the largest ciphertext */
    size_t workers;
    uint64_t *coefficient;      /* limbs: the polynomial that is switched, in mixed radix, digit by digit */
    uint64_t *digit;            /* digit d at ring limb j: (part(j) digits + d) n, NTT form */
    uint64_t *extended0, *extended1; /* limbs + specials: sums of a key's products */
    uint64_t *scratch;          /* of each worker: 3 n */
    uint64_t *product[3];       /* limbs each: of two ciphertexts */
    void *storage;
    size_t bytes, blocks, room;
    struct hemi_ckks_block *block; /* what is lent, or was and waits for the next */
};

typedef struct hemi_ckks_block {
    uint64_t *words;
    size_t count;
    bool lent;
} hemi_ckks_block;

static inline uint64_t *hemi_ckks_scratch(const hemi_ckks_workspace *w, size_t worker) { return w->scratch + 3 * worker * w->ctx->n; }

/* The digits of c1 (`limbs` limbs, NTT form) at all limbs and special primes, into w->digit. */
void hemi_ckks_decompose(hemi_ckks_workspace *w, const uint64_t *c1, uint32_t limbs);
/* (extended0, extended1) = sum over digits of sigma(digit) key, over `limbs` and the special primes. */
void hemi_ckks_gadget_product(hemi_ckks_workspace *w, const hemi_ckks_key *key, const hemi_ckks_keys *keys, uint32_t limbs);
/* r = round(extended / P) + plus(index), limb by limb; plus may be NULL; index NULL: plus itself. */
void hemi_ckks_divide_by_special(hemi_ckks_workspace *w, uint64_t *r0, uint64_t *r1, const uint64_t *plus0, const uint64_t *plus1,
                                 const uint32_t *index, uint32_t limbs);

#endif
