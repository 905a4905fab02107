/* What the operators with windows read of their nodes, whatever is made of them. */
#ifndef HEMI_MODEL_ONNX_WINDOW_H
#define HEMI_MODEL_ONNX_WINDOW_H

#include "model/onnx_graph.h"

#define HEMI_ONNX_WINDOW_MAX 65536 /* kernel, stride, dilation, padding */

/* What moves over a sample: y and x; of a sequence only x, and y is a lone row. */
typedef struct hemi_onnx_window {
    size_t dims; /* 1 or 2 */
    uint32_t channels;
    int64_t in[2], kernel[2], stride[2], dilation[2], begin[2], end[2]; /* end: padding after the last */
} hemi_onnx_window;

/* Channels and sides of an input of batch 1. ERR_UNSUPPORTED. */
HEMI_CHECK hemi_status hemi_onnx_window_sides(const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *a, hemi_onnx_window *w,
                                              hemi_error *err);
/* The weights, whose dimensions are [of_first][of_second] and the kernel; sets the kernel of the window. */
HEMI_CHECK hemi_status hemi_onnx_window_weights(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_onnx_window *w,
                                                int64_t *groups, const hemi_onnx_constant **c, float **numbers,
                                                hemi_error *err);
/* Strides, dilations and pads. kernel[] is set (of the weights) or read (of a pool). ERR_FORMAT. */
HEMI_CHECK hemi_status hemi_onnx_window_read(const Hemi__Onnx__NodeProto *node, hemi_onnx_window *w, bool has_kernel,
                                             hemi_error *err);
/* Pads where auto_pad chooses them. */
HEMI_CHECK hemi_status hemi_onnx_window_auto_pad(const Hemi__Onnx__NodeProto *node, hemi_onnx_window *w, hemi_error *err);
/* An attribute of `count` integers from min to HEMI_ONNX_WINDOW_MAX; absent: all `otherwise`. */
HEMI_CHECK hemi_status hemi_onnx_window_list(const Hemi__Onnx__NodeProto *node, const char *name, size_t count, int64_t min,
                                             int64_t otherwise, int64_t *out, hemi_error *err);
/* The axis of a window that reads; `ceiling`: a window that begins inside counts. False if none fits. */
bool hemi_onnx_window_reading(hemi_stencil_axis *axis, const hemi_onnx_window *w, size_t i, bool ceiling);
/* y[i stride + k dilation - begin] gets w[k] x[i] */
bool hemi_onnx_window_writing(hemi_stencil_axis *axis, const hemi_onnx_window *w, size_t i, int64_t padding);
/* How many taps of the window at position i count: those inside the sample, or inside its padding too. */
int64_t hemi_onnx_window_counted(const hemi_onnx_window *w, size_t axis, int64_t i, bool with_padding);
/* Two for each dimension, and the number that is put there. */
HEMI_CHECK hemi_status hemi_onnx_read_pads(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, size_t rank,
                                           int64_t *pads, float *value, hemi_error *err);
bool hemi_onnx_text_is(const Hemi__Onnx__AttributeProto *a, const char *text); /* false of NULL */
/* ERR_SHAPE */
hemi_status hemi_onnx_no_output(const Hemi__Onnx__NodeProto *node, hemi_error *err);
hemi_status hemi_onnx_wrong_channels(const Hemi__Onnx__NodeProto *node, const hemi_onnx_window *w, hemi_error *err);

#endif
