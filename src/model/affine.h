/* y = W x + b in float32: what an import gives and quantisation takes. */
#ifndef HEMI_MODEL_AFFINE_H
#define HEMI_MODEL_AFFINE_H

#include <stdint.h>

typedef struct hemi_affine {
    uint32_t inputs, outputs;
    float *weight; /* outputs x inputs, row-major */
    float *bias;   /* outputs, or NULL */
} hemi_affine;

void hemi_affine_free(hemi_affine *map); /* hemi_free of both; safe on a zeroed object */

#endif
