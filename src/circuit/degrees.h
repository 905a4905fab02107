/* The search for degrees: which polynomial for each function, so that the outputs stay within a tolerance. */
#ifndef HEMI_CIRCUIT_DEGREES_H
#define HEMI_CIRCUIT_DEGREES_H

#include "circuit/lanes.h"
#include "circuit/calibrate.h"

#define HEMI_DEGREES_BINS 64 /* of histograms */

typedef struct hemi_degrees {
    const hemi_circuit *circuit;
    hemi_lanes *batch;   /* with the samples that count */
    const double *truth; /* their outputs with functions, as they lie in the batch */
    double scale;        /* to which errors are relative */
    uint32_t degree_max;
    hemi_progress_fn progress;
    void *progress_context;
    /* For each value: */
    uint32_t *degree, *fixed;                 /* in use; not 0: of a function that is a polynomial */
    double *low, *high, *histogram;           /* of the argument */
    const hemi_circuit_polynomial **chosen;   /* by degree; NULL: the function itself, and where there is none */
    hemi_circuit_polynomial *fitted;          /* values x (HEMI_CIRCUIT_DEGREE_MAX + 1), made when first needed */
    hemi_status status;                       /* of fits */
} hemi_degrees;

HEMI_CHECK hemi_status hemi_degrees_new(hemi_degrees *d, const hemi_circuit *circuit, hemi_lanes *batch, hemi_error *err);
void hemi_degrees_clear(hemi_degrees *d);
void hemi_degrees_forget(hemi_degrees *d); /* fits: the intervals or the samples have changed */
/* Applies d->degree to d->chosen; 0 leaves the function. False, with d->status: a fit failed. */
bool hemi_degrees_choose(hemi_degrees *d);
/* The error of the outputs with d->degree, relative to the scale; infinite if a polynomial left its interval. */
double hemi_degrees_error(hemi_degrees *d);
/* The error between outputs as they lie in a batch: sum of squares, and the largest. */
void hemi_degrees_compare(double *squares, double *largest, const hemi_lanes *batch, const double *truth);
/* Sets d->degree: few levels first, then few multiplications. False: the largest degrees, which are not enough. */
bool hemi_degrees_search(hemi_degrees *d, double tolerance);
/* The function whose polynomial of the largest degree, alone, disturbs the outputs most; and by how much. */
size_t hemi_degrees_worst(hemi_degrees *d, double *error);

#endif
