/* What numbers reach on calibration data, and the interval on which a polynomial takes a function's place. */
#ifndef HEMI_CIRCUIT_RANGE_H
#define HEMI_CIRCUIT_RANGE_H

#include "circuit/lanes.h"

typedef struct hemi_range {
    double low, high; /* of what hemi_circuit_value has low and high of */
    double a, b;      /* PRODUCT: of |a| and |b| */
    size_t samples;
    double sum[2], squares[2]; /* over samples, of the squares of the lowest number (below 0) and of the highest (above 0) */
} hemi_range;

void hemi_range_reset(hemi_range *range); /* to nothing */
void hemi_range_add(hemi_range *range, const hemi_lanes *batch, size_t value);
/* Counts of a function's arguments in equal parts of [low, high]; what lies outside is not counted. */
void hemi_range_histogram(double *count, size_t bins, const hemi_lanes *batch, size_t value, double low, double high);

/* How much is added below and above. margin: so many times as wide; 0: as HEMI_CIRCUIT_MARGIN says, and as samples differ. */
void hemi_range_margins(double more[2], const hemi_range *range, double margin);
/* The interval for f: what was reached by the circuit with functions, and seen with polynomials, with margins, but no further than f
 * is defined and of a size with what it is on the data; about 0 where that costs little, since then odd and even functions need
 * half of the coefficients. False if f is not defined on all of what was reached. */
bool hemi_range_interval(double *low, double *high, const hemi_range *reached, const hemi_range *seen, const hemi_function *f,
                         double margin);
/* The same where there is no function. */
void hemi_range_widen(double *low, double *high, const hemi_range *range, double margin);

#endif
