/* A multiplication under way: what the files that carry it out share. Private to the room. */
#ifndef HEMI_LINEAR_MULTIPLICATION_H
#define HEMI_LINEAR_MULTIPLICATION_H

#include "linear/internal.h"

/* A ciphertext on its way: c0 as e / P, e over qP; c1 over q. NTT form. */
typedef struct hemi_running {
    hemi_extended e;
    uint64_t *c1;
} hemi_running;

/* Memory of one worker: a key switch under way. */
typedef struct hemi_scratch {
    uint64_t *digit; /* 2 n words; with small maps HEMI_LINEAR_EXPAND_POLYNOMIALS n */
    hemi_extended u0, u1;
} hemi_scratch;

/* Memory of one unit. Polynomials of n words; baby b of input ciphertext i is number i B + b. */
typedef struct hemi_unit {
    uint64_t *source;        /* (P c0, c1) of babies below B/2 (at least one), direct: (c0, c1); canonical, NTT form */
    uint64_t *digit;         /* their digits */
    uint64_t *left0, *left1; /* all babies in dot_left form: block of coefficients, term */
    uint64_t *sum0, *sum1;   /* one per giant of the largest group, sum_stride apart */
    uint64_t *left0_p, *left1_p, *sum0_p, *sum1_p; /* of precise maps: the same over P */
    hemi_running first, second;   /* one per group */
} hemi_unit;

/* The keys of a multiplication, looked up once. */
typedef struct hemi_keyring {
    const hemi_galois_key *baby[32], *giant, *trace[32]; /* baby: one per bit; of precise maps one per baby and digit */
} hemi_keyring;

typedef struct hemi_multiplication {
    const hemi_linear *map; /* the one at work */
    hemi_keyring keys;
    const hemi_evaluation_keys *evaluation;
    bool fresh; /* results are re-randomised */
    hemi_linear_input in;
    hemi_linear_output out;
    size_t first, units; /* those at work */
    hemi_workspace *workspace;
    hemi_unit unit[HEMI_LINEAR_UNITS_AT_ONCE];
    hemi_scratch *scratch;    /* per worker */
    uint8_t *expanded;   /* plaintexts of a giant, of a small map */
    size_t sum_stride;   /* not a power of two: blocks of all giants would meet in one cache set */
    hemi_team *team;
    /* of the loop under way */
    unsigned bit;
    size_t group;
    uint32_t out_block, giant;
} hemi_multiplication;

/* Babies that others are made from, with the input itself. */
static inline uint32_t hemi_linear_sources(const hemi_linear_layout *l) { return l->babies > 1 ? l->babies / 2 : 1; }

/* babies.c: reads the units at work and makes all rotations of their ciphertexts. */
void hemi_multiplication_prepare_input(hemi_multiplication *x);
/* sums.c: the sums over all terms, of every giant of a group, between the input and x->out_block. */
void hemi_multiplication_sum_products(hemi_multiplication *x, size_t group);
/* results.c: giants, traces, re-randomisation; the bytes of the results of all output blocks. */
void hemi_multiplication_make_results(hemi_multiplication *x);

#endif
