/* How a circuit is computed: where numbers are in slots, which rotations a map takes, levels and scales. Nothing in a plan follows from
 * single weights: it is made from shapes and from where maps have entries.
 *
 * Slots. `rows` samples share a ciphertext: virtual slot v of sample r is slot v rows + r, and there are n / 2 / rows virtual slots. A value's
 * number e has a place, < blocks * period; place p is in ciphertext p / period, at every virtual slot v = p mod period ("period": a
 * power of two; what is not a place holds something harmless). Rotations are by virtual slots.
 *
 * A map from period T to period U: w = min(T, U); an entry from place q to place p is on diagonal (q - p) mod w. The sum over
 * diagonals d of D_d * rot(x, d), split as d = giant + baby, and then, where U < T, over the T / U groups of a period ("folds": Juvekar,
 * Vaikuntanathan and Chandrakasan, "Gazelle", 2018; Halevi and Shoup, 2014).
 *
 * Copies. Where there are more virtual slots than a value's maps need, the client lays c copies of the input out, copy k shifted by
 * skew[k], so that one product takes c diagonals, and c more groups are folded. */
#ifndef HEMI_CIRCUIT_PLAN_H
#define HEMI_CIRCUIT_PLAN_H

#include "circuit/graph.h"
#include "ckks/context.h"

#define HEMI_CIRCUIT_FOLDS_MAX  16
#define HEMI_CIRCUIT_BLOCKS_MAX 64
#define HEMI_CIRCUIT_COPIES_MAX 4096
#define HEMI_CIRCUIT_NO_PLACE   UINT32_MAX
#define HEMI_CIRCUIT_AUTOMORPHISMS_MAX 128
#define HEMI_CIRCUIT_KEY_PRODUCT 1 /* ckks/cipher.h */

/* Rotations by every element of a set, one from another, each step by a power of two. */
typedef struct hemi_rotation_tree {
    size_t count; /* nodes, in an order in which every node comes after its parent; node 0 is "no rotation" */
    int32_t *by;
    uint32_t *parent;
} hemi_rotation_tree;

/* The rotations of one map. */
typedef struct hemi_circuit_diagonals {
    uint32_t w;                /* diagonals are numbers modulo w */
    size_t count;
    int32_t *diagonal;         /* as rotations, increasing; hemi_free */
    uint32_t step;             /* babies are diagonals modulo step (a power of two), */
    bool centred;              /* in (-step / 2, step / 2], otherwise in [0, step) */
    size_t babies, giants;
    int32_t *baby;             /* increasing */
    int32_t *giant;            /* decreasing */
    hemi_rotation_tree tree;   /* with all babies among its nodes */
    uint32_t *node;            /* of each baby */
    size_t folds;
    uint32_t fold[HEMI_CIRCUIT_FOLDS_MAX]; /* after the products: x += rot(x, fold) */
} hemi_circuit_diagonals;

typedef struct hemi_value_plan {
    uint32_t period, blocks;
    uint32_t stride[HEMI_CIRCUIT_RANK_MAX]; /* places from number to number along each dimension */
    uint32_t *place;   /* of each number; NULL: e itself */
    uint32_t *element; /* blocks * period: the number at a place, or HEMI_CIRCUIT_NO_PLACE */
    uint32_t limbs;    /* of its ciphertexts when they are there */
    uint32_t levels;   /* of what comes after the affine map: 0 for AFFINE, 1 for PRODUCT, those of a polynomial */
    uint32_t layout;   /* as chosen: hemi_circuit_choice */
    double norm;       /* slots hold number / norm */
    double scale;
    size_t a_terms, b_terms;
    hemi_circuit_diagonals *a, *b; /* of each term of the affine maps */
} hemi_value_plan;

typedef struct hemi_circuit_plan {
    const hemi_params *params;
    uint32_t rows, slots; /* virtual */
    uint32_t limbs;       /* of the input */
    uint32_t copies;      /* of the input; 1: it is periodic */
    uint32_t stride;      /* virtual slots of a copy */
    uint32_t *skew;       /* copies of them: copy k holds place (v + skew[k]) mod period at v = 0 .. stride - 1 of it, or, NO_PLACE, nothing */
    size_t values;
    hemi_value_plan *value;
    size_t automorphisms;
    uint32_t *automorphism; /* increasing; HEMI_CIRCUIT_KEY_PRODUCT first where there are products */
    double cost;            /* in number-theoretic transforms */
} hemi_circuit_plan;

/* Decisions that fix a plan, given a circuit: what a compiled module stores. Zeros: to be chosen. */
typedef struct hemi_circuit_choice {
    const hemi_params *params;
    uint32_t rows;
    uint32_t copies;
    uint32_t *layout; /* of each value: 0: numbers one after the other; k > 0: with the strides of value k - 1, a source of it, so that windows
                       * stay windows. NULL: to be chosen */
} hemi_circuit_choice;

/* ERR_UNSUPPORTED when it does not fit: names the node, the levels needed and there, and where to cut. Polynomials are there. */
HEMI_CHECK hemi_status hemi_circuit_plan_make(hemi_circuit_plan **out, const hemi_circuit *circuit, const hemi_circuit_choice *choice,
                                              hemi_error *err);
void hemi_circuit_plan_free(hemi_circuit_plan *plan);
/* By the decisions that another plan was made by: params, rows, copies and its values' layouts are all that is read of it. */
HEMI_CHECK hemi_status hemi_circuit_plan_again(hemi_circuit_plan **out, const hemi_circuit *circuit, const hemi_circuit_plan *plan,
                                               hemi_error *err);

/* The place that virtual slot v holds, not counting those of ciphertexts before it: of a periodic value, or (copies > 1) of copies side by side. */
static inline uint32_t hemi_circuit_place(uint32_t period, uint32_t copies, uint32_t stride, const uint32_t *skew, uint32_t v) {
    if (copies <= 1) return v % period;
    const uint32_t by = skew[v / stride % copies];
    return by == HEMI_CIRCUIT_NO_PLACE ? by : (v + by) % period;
}

/* The place that virtual slot v of block `block` of a value's ciphertexts holds, or NO_PLACE. */
uint32_t hemi_circuit_content(const hemi_circuit_plan *plan, size_t value, uint32_t block, uint32_t v);
/* Levels that the whole circuit takes: limbs of the input less one. */
uint32_t hemi_circuit_levels(const hemi_circuit *circuit);

/* rotations.c */
HEMI_CHECK hemi_status hemi_rotation_tree_make(hemi_rotation_tree *tree, const int32_t *by, size_t count, hemi_error *err);
void hemi_rotation_tree_clear(hemi_rotation_tree *tree);
/* The rotation of a node from its parent's: plus or minus a power of two. */
static inline int32_t hemi_rotation_edge(const hemi_rotation_tree *t, size_t node) { return t->by[node] - t->by[t->parent[node]]; }
/* The powers of two, with signs, whose sum is r, fewest; returns how many (at most 32). */
size_t hemi_rotation_steps(int32_t steps[32], int32_t r);

#endif
