/* Values of the reading by samples (onnx_graph.h): what operators are made of. Shapes (rank, dims) are the caller's, except where said. */
#ifndef HEMI_MODEL_ONNX_SAMPLE_H
#define HEMI_MODEL_ONNX_SAMPLE_H

#include "model/onnx_graph.h"

/* channels x height x width of a value as it is seen, a leading 1 left out. Dimensions between channels and the last count as height. */
typedef struct hemi_onnx_sides {
    uint32_t channels, height, width;
} hemi_onnx_sides;
hemi_onnx_sides hemi_onnx_sides_of(const hemi_onnx_value *value);

/* A zeroed block for the weights of a stencil, which must fit. ERR_UNSUPPORTED if it is too large, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_onnx_stencil_block(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_stencil *s,
                                               float **w, hemi_error *err);
/* out = op after in; the numbers of `in` are those that op reads. As a stencil where that is exact, as a matrix where it is not and is small
 * enough; otherwise ERR_UNSUPPORTED says where to cut. */
HEMI_CHECK hemi_status hemi_onnx_sample_apply(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                              const hemi_onnx_value *in, const hemi_stencil *op, hemi_onnx_value *out,
                                              hemi_error *err);
/* out[i] = factor[i] in[i]; out may be in. Keeps the shape. */
HEMI_CHECK hemi_status hemi_onnx_sample_scale(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                              const hemi_onnx_value *in, const float *factor, hemi_onnx_value *out,
                                              hemi_error *err);
/* out[i] = in[i] + sign c[i]; out may be in. Keeps the shape. */
HEMI_CHECK hemi_status hemi_onnx_sample_shift(hemi_onnx_graph *g, const hemi_onnx_value *in, const float *c, float sign,
                                              hemi_onnx_value *out, hemi_error *err);
/* out = a + sign b, of as many numbers. Keeps the shape of a. */
HEMI_CHECK hemi_status hemi_onnx_sample_add(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                            const hemi_onnx_value *a, const hemi_onnx_value *b, float sign,
                                            hemi_onnx_value *out, hemi_error *err);
/* out[i] = in[order[i]] */
HEMI_CHECK hemi_status hemi_onnx_sample_permute(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                                const hemi_onnx_value *in, const size_t *order, hemi_onnx_value *out,
                                                hemi_error *err);

#endif
