/* What the files of this room share. */
#ifndef HEMI_LINEAR_INTERNAL_H
#define HEMI_LINEAR_INTERNAL_H

#include <pthread.h>

#include "linear/product.h"
#include "rlwe/keyswitch.h"

/* Coefficients of a block: the babies' share of it stays in the first-level cache while the plaintexts stream by. */
#define HEMI_LINEAR_BLOCK_MIN 8
#define HEMI_LINEAR_BLOCK_MAX 64
#define HEMI_LINEAR_BLOCK_BYTES 16384
#define HEMI_DOT_BYTES 6      /* per coefficient of a plaintext (ring/kernels.h) */

/* A ciphertext on its way: c0 as e / P, e over qP; c1 over q. NTT form. */
typedef struct hemi_running {
    hemi_extended e;
    uint64_t *c1;
} hemi_running;

/* Memory of one multiplication, kept between calls: the hot path allocates nothing. Polynomials of n words. */
typedef struct hemi_workspace {
    struct hemi_workspace *next;
    uint64_t *storage;
    uint64_t *source;         /* (P c0, c1) of babies below babies/2 (at least one), direct: (c0, c1); canonical, NTT form */
    uint64_t *left0, *left1;  /* all babies in dot_left form: block of coefficients, baby */
    uint64_t *sum0, *sum1;    /* one per giant of the largest group, sum_stride apart */
    size_t sum_stride;        /* not a power of two: blocks of all giants would meet in one cache set */
    uint64_t *digit;
    hemi_extended u0, u1;        /* of the key switch under way */
    hemi_running first, second;  /* one per group */
} hemi_workspace;

struct hemi_linear {
    const hemi_context *ctx;
    hemi_linear_layout layout;
    uint32_t block;
    uint64_t scale;         /* 1/S mod q */
    uint8_t *plaintexts;    /* dot_right form */
    uint64_t *monomial_q, *monomial_p; /* X^offset of the second group, fixed form; NULL with one group */
    uint64_t *bias;         /* outputs: round(bias delta) mod q; NULL without */
    uint32_t *input_positions, *output_positions;
    uint32_t automorphism[HEMI_AUTOMORPHISMS_MAX];
    size_t automorphisms, bytes;
    pthread_mutex_t lock;   /* of the pool */
    hemi_workspace *idle;
};

hemi_workspace *hemi_workspace_take(const hemi_linear *linear); /* NULL without memory */
void hemi_workspace_give(const hemi_linear *linear, hemi_workspace *w);

#endif
