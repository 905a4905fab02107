/* OpenBLAS, for comparison: found at run time, so that no program depends on it. */
#ifndef HEMI_CLI_BLAS_H
#define HEMI_CLI_BLAS_H

#include <stdbool.h>
#include <stddef.h>

/* On one thread from the first call on. False when there is no OpenBLAS. */
bool cli_blas_possible(void);
/* y = x W^T; x: rows x inputs, w: outputs x inputs, y: rows x outputs, where a row of y is `stride` floats after the last. */
void cli_blas_product(float *y, size_t stride, const float *w, const float *x, size_t inputs, size_t outputs,
                      size_t rows);
/* The processor that its kernels were chosen for: "SkylakeX"; "" if it does not say. */
const char *cli_blas_core(void);

#endif
