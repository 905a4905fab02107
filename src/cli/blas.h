/* The product in float32 with OpenBLAS, for comparison: found at run time, so that no program depends on it. */
#ifndef HEMI_CLI_BLAS_H
#define HEMI_CLI_BLAS_H

#include <stdbool.h>
#include <stddef.h>

/* Median time in ms of y = x W^T on one thread (x: rows x inputs, W: outputs x inputs); false when there is no OpenBLAS. */
bool cli_blas_product_ms(double *ms, size_t inputs, size_t outputs, size_t rows);

/* Median of count values, which are sorted. */
double cli_median(double *values, size_t count);

#endif
