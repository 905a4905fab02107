/* Arrays as NumPy saves them (.npy, versions 1.0 to 3.0): float32 or float64, little-endian, C order. */
#ifndef HEMI_MODEL_NPY_H
#define HEMI_MODEL_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#define HEMI_NPY_RANK_MAX   8
#define HEMI_NPY_HEADER_MAX 4096
#define HEMI_NPY_FILE_MAX   ((size_t)1 << 32)

/* The numbers as float32 in a new block (hemi_free), and the shape: 1 to HEMI_NPY_RANK_MAX dimensions, each at least 1. ERR_FORMAT;
 * ERR_UNSUPPORTED for another dtype or Fortran order, saying what to do; ERR_SHAPE. */
HEMI_CHECK hemi_status hemi_npy_parse(float **data, uint32_t shape[HEMI_NPY_RANK_MAX], size_t *rank,
                                      const uint8_t *file, size_t bytes, hemi_error *err);
/* The same from a file. Also ERR_NOT_FOUND, ERR_TOO_LARGE, ERR_IO. */
HEMI_CHECK hemi_status hemi_npy_read(float **data, uint32_t shape[HEMI_NPY_RANK_MAX], size_t *rank, const char *path,
                                     hemi_error *err);
/* Writes float32, version 1.0, by rename. */
HEMI_CHECK hemi_status hemi_npy_write(const char *path, const float *data, const uint32_t *shape, size_t rank,
                                      hemi_error *err);

#endif
