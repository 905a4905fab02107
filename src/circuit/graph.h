/* A module as a circuit: values that follow from one another by affine maps, univariate functions and products. Value 0 is the
 * input of one sample (or row), its numbers in row-major order; the last one is the output, and affine. All linear operators between two
 * non-linear ones are one sparse map. What is structurally there stays there, also where a weight happens to be zero: nothing of
 * the course of a computation follows from single weights. */
#ifndef HEMI_CIRCUIT_GRAPH_H
#define HEMI_CIRCUIT_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "circuit/function.h"
#include "hemi/status.h"

#define HEMI_CIRCUIT_VALUES_MAX  256
#define HEMI_CIRCUIT_RANK_MAX    8
#define HEMI_CIRCUIT_NUMBERS_MAX (1u << 20) /* of one value */
#define HEMI_CIRCUIT_WEIGHTS_MAX (UINT64_C(1) << 27)
#define HEMI_CIRCUIT_NAME_BYTES  96

/* Rows of (column, weight) pairs: row i has entries start[i] ... start[i + 1] - 1, in increasing order of columns, each column once. */
typedef struct hemi_sparse {
    uint32_t rows, columns;
    uint64_t *start;  /* rows + 1 */
    uint32_t *column; /* NULL: every row has all columns, in order (a dense matrix; start is NULL too) */
    float *weight;
} hemi_sparse;

size_t hemi_sparse_count(const hemi_sparse *m); /* entries */
void hemi_sparse_clear(hemi_sparse *m);
/* y += M x, in double precision. */
void hemi_sparse_apply(double *y, const hemi_sparse *m, const double *x);

/* sum over terms of map * value[source], plus bias. */
typedef struct hemi_circuit_term {
    uint32_t source; /* the number of an earlier value */
    hemi_sparse map; /* outputs x size of the source */
} hemi_circuit_term;

typedef struct hemi_circuit_affine {
    size_t terms; /* each source once, increasing */
    hemi_circuit_term *term;
    double *bias; /* `size` numbers, or NULL */
} hemi_circuit_affine;

void hemi_circuit_affine_clear(hemi_circuit_affine *a);

typedef enum hemi_circuit_kind {
    HEMI_CIRCUIT_INPUT,
    HEMI_CIRCUIT_FUNCTION, /* f(a) of every number */
    HEMI_CIRCUIT_PRODUCT,  /* a b, number by number */
    HEMI_CIRCUIT_AFFINE    /* a: the output */
} hemi_circuit_kind;

/* A polynomial in the Chebyshev basis for u in [-1, 1], sum_i coefficient[i] T_i(u), u = (v - middle) / radius. */
typedef struct hemi_circuit_polynomial {
    uint32_t degree; /* coefficient has degree + 1 numbers; hemi_free */
    double *coefficient;
    double middle, radius;
} hemi_circuit_polynomial;

typedef struct hemi_circuit_value {
    hemi_circuit_kind kind;
    char name[HEMI_CIRCUIT_NAME_BYTES]; /* of the node it comes from: "Relu (node '/seq/1/Relu')" */
    uint32_t size;                      /* numbers: the product of dims */
    size_t rank;
    uint32_t dims[HEMI_CIRCUIT_RANK_MAX]; /* of one sample, without the batch */
    hemi_circuit_affine a, b;           /* b: of PRODUCT alone */
    hemi_function function;             /* FUNCTION */
    /* Set by calibration: */
    double low, high;                   /* of a (FUNCTION: of what the function is taken of; otherwise of the value itself), margin included */
    double a_high, b_high;              /* PRODUCT: of |a| and |b|, margin included */
    hemi_circuit_polynomial polynomial; /* FUNCTION; its interval is [low, high] */
} hemi_circuit_value;

typedef struct hemi_circuit {
    bool rows;     /* what works on the last dimension: samples are rows, their other dimensions do not matter */
    size_t values; /* at least 2 */
    hemi_circuit_value *value;
    /* The input is rounded to multiples of input_step and clipped to [input_low, input_high] by the client: the module begins with a
     * quantiser. input_step = 0: it does not. */
    double input_step, input_low, input_high;
} hemi_circuit;

void hemi_circuit_free(hemi_circuit *circuit); /* the struct too; takes NULL */

/* What the circuit is given for a number x of its input: x, or what the quantiser makes of it. */
double hemi_circuit_input_value(const hemi_circuit *circuit, double x);
double hemi_circuit_quantise(double step, double low, double high, double x); /* step 0: x itself */

/* One sample in the clear: x has value[0].size numbers, y those of the last. polynomials: with the functions' polynomials (which are there),
 * otherwise with the functions themselves. ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_circuit_run(const hemi_circuit *circuit, const double *x, double *y, bool polynomials, hemi_error *err);

#endif
