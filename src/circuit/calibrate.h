/* From functions to polynomials: ranges on calibration data, and for each function the least degree that keeps the module's output within a
 * tolerance. */
#ifndef HEMI_CIRCUIT_CALIBRATE_H
#define HEMI_CIRCUIT_CALIBRATE_H

#include "base/progress.h"
#include "base/threads.h"
#include "circuit/graph.h"

#define HEMI_CIRCUIT_DEGREE_MAX 127
/* Of ranges, over what the calibration data reaches: outside its interval a polynomial soon means nothing, and a wider one costs little (a
 * tenth more width, about a tenth more degree). Where samples differ so much that about one in HEMI_CIRCUIT_OUTSIDE would be outside, the
 * margin is larger, but at most HEMI_CIRCUIT_MARGIN_MAX. */
#define HEMI_CIRCUIT_MARGIN     1.25
#define HEMI_CIRCUIT_MARGIN_MAX 1.60
#define HEMI_CIRCUIT_OUTSIDE    1e6

typedef struct hemi_calibration {
    double tolerance;       /* rms of the error of an output, relative to the rms of outputs; 0: the default, 4 % */
    double margin;          /* 0: HEMI_CIRCUIT_MARGIN, or more as samples differ */
    uint32_t degree_max;    /* 0: HEMI_CIRCUIT_DEGREE_MAX */
    uint32_t degree;        /* not 0: this degree for every function, whatever the error */
    hemi_progress_fn progress;
    void *progress_context;
} hemi_calibration;

/* What was reached, on all of the calibration data. */
typedef struct hemi_calibration_report {
    double error_rms;       /* of the outputs with polynomials against those with functions, relative to output_rms */
    double error_max;       /* absolute */
    double output_rms, output_max; /* of the outputs with functions; rms: about the mean of each output (with few samples: about 0) */
} hemi_calibration_report;

/* The least c[0 .. degree] in the Chebyshev basis on [-1, 1] of f(middle + radius u): weighted least squares at Chebyshev nodes. histogram: NULL
 * (all of [-1, 1] alike), or `bins` weights of equal parts of [-1, 1], to which a floor is added, so that the fit is good where the
 * data is and sane everywhere. False if f is not finite somewhere there. */
bool hemi_chebyshev_fit(double *c, uint32_t degree, const hemi_function *f, double middle, double radius, const double *histogram, size_t bins);
double hemi_chebyshev_value(const double *c, uint32_t degree, double u); /* Clenshaw */

/* Sets low, high and polynomial of every value. x: samples x value[0].size numbers. Values after a function are ranged with the
 * polynomials before them in place. ERR_ARGUMENT (a number that is not finite; no samples), ERR_UNSUPPORTED (a function that is not defined
 * on its range, or that no degree approximates within the tolerance: names the node, the error reached, and what can be done),
 * ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_circuit_calibrate(hemi_circuit *circuit, const float *x, size_t samples, const hemi_calibration *options,
                                              hemi_calibration_report *report, hemi_team *team, hemi_error *err);

#endif
