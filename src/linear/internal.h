/* What the files of this room share. */
#ifndef HEMI_LINEAR_INTERNAL_H
#define HEMI_LINEAR_INTERNAL_H

#include "linear/product.h"
#include "rlwe/keyswitch.h"

/* Coefficients of a block: the babies' share of it stays in the first-level cache while the plaintexts stream by. */
#define HEMI_LINEAR_BLOCK_MIN   8
#define HEMI_LINEAR_BLOCK_MAX   64
#define HEMI_LINEAR_BLOCK_BYTES 16384
#define HEMI_DOT_BYTES          6 /* per coefficient of a plaintext (ring/kernels.h) */

/* Terms of a small map that are expanded together, and what that takes of a worker's memory, in polynomials. */
#define HEMI_LINEAR_EXPAND_TERMS 8
#define HEMI_LINEAR_EXPAND_POLYNOMIALS (1 + HEMI_LINEAR_EXPAND_TERMS * HEMI_DOT_BYTES / sizeof(uint64_t))

/* Units computed together, which share one pass over the plaintexts; fewer where their workspaces would take more than this. */
#define HEMI_LINEAR_UNITS_AT_ONCE   4 /* and HEMI_LINEAR_WORKSPACE_BYTES, linear/product.h */

struct hemi_linear {
    const hemi_context *ctx;
    hemi_linear_layout layout;
    uint32_t block, terms;  /* coefficients of a block; terms of a sum: in_blocks * babies */
    uint64_t scale;         /* 1/S mod q */
    bool precise;           /* babies over qP: so plaintexts, too */
    uint8_t *plaintexts;    /* fast: dot_right form; out block, group, block of coefficients, giant, term */
    uint8_t *plaintexts_p;  /* the same over P, of precise maps */
    void *coefficients;     /* small: signed coefficients; out block, group, giant, term, coefficient */
    bool wide;              /* of 32 bits, not 16 */
    uint64_t *monomial_q, *monomial_p; /* X^offset of the second group, fixed form; NULL with one group */
    uint64_t *bias;         /* outputs: round(bias delta) mod q; NULL without */
    uint32_t *input_positions, *output_positions;
    size_t sent, kept; /* how many of each */
    uint32_t automorphism[HEMI_AUTOMORPHISMS_MAX];
    size_t automorphisms, bytes;
};

/* Where the plaintexts of (out block, group) begin, in polynomials. */
size_t hemi_linear_plaintext_index(const hemi_linear *linear, uint32_t out_block, size_t group);
/* The plaintexts of one giant of a small map, made ready for dot2 over a limb (q or P): block of coefficients, term. scratch:
 * HEMI_LINEAR_EXPAND_POLYNOMIALS n words per worker, at scratch + worker scratch_stride. */
void hemi_linear_expand_giant(const hemi_linear *linear, uint8_t *out, const hemi_limb *limb, uint32_t out_block, size_t group, uint32_t giant, uint64_t *scratch,
                              size_t scratch_stride, hemi_team *team);

/* Blocks of memory kept between calls, so that the hot path allocates nothing. They are not cleared. */
typedef struct hemi_workspace {
    struct hemi_workspace *next;
    uint64_t *storage;
    size_t words;
} hemi_workspace;

hemi_workspace *hemi_workspace_take(size_t words); /* NULL without memory */
void hemi_workspace_give(hemi_workspace *w);       /* takes NULL */
/* Maps in use: when the last one is gone, so is what was kept. */
void hemi_workspace_open(void);
void hemi_workspace_close(void);

#endif
