/* The state of an ONNX import: the values computed so far, in the order of the nodes. Private to onnx*.c.
 *
 * A value is a constant or an affine image of the graph's input, of which only the last dimension counts (the others are rows):
 * value = W x + b, with W = NULL for the identity. */
#ifndef HEMI_MODEL_ONNX_GRAPH_H
#define HEMI_MODEL_ONNX_GRAPH_H

#include "base/progress.h"
#include "base/threads.h"
#include "model/onnx_constant.h"

#define HEMI_ONNX_NODES_MAX    1024
#define HEMI_ONNX_TENSORS_MAX  4096
#define HEMI_ONNX_BLOCKS_MAX   (4 * HEMI_ONNX_NODES_MAX)
#define HEMI_ONNX_FEATURES_MAX 65536
#define HEMI_ONNX_NUMBERS_MAX  (INT64_C(1) << 40) /* of one input */
#define HEMI_ONNX_MEMORY_MAX   ((size_t)1 << 31)  /* bytes of all matrices together */
#define HEMI_ONNX_WORK_MAX     1e12               /* multiplications of one product of matrices */

typedef struct hemi_onnx_value {
    const char *name;
    bool is_constant;
    hemi_onnx_constant constant;
    const float *w; /* features x graph.inputs, or NULL: the identity */
    const float *b; /* features, or NULL */
    uint32_t features;
    size_t rank;
    int64_t dims[HEMI_ONNX_RANK_MAX]; /* -1: not known; the last is `features` */
} hemi_onnx_value;

typedef struct hemi_onnx_graph {
    uint32_t inputs;
    const Hemi__Onnx__GraphProto *proto;
    hemi_onnx_value *values;
    size_t value_count, value_capacity;
    void *blocks[HEMI_ONNX_BLOCKS_MAX]; /* what values point to */
    size_t block_count, block_bytes;
    hemi_team *team;
    hemi_progress_fn progress; /* may be NULL */
    void *progress_context;
} hemi_onnx_graph;

/* "Gemm (node '/seq.0/Gemm')" */
typedef struct hemi_onnx_label {
    char s[2 * HEMI_ONNX_TEXT_MAX + 16];
} hemi_onnx_label;
hemi_onnx_label hemi_onnx_label_of(const Hemi__Onnx__NodeProto *node);

/* A block of count numbers, zeroed, freed with the graph. ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_onnx_block(hemi_onnx_graph *g, float **out, size_t rows, size_t columns, hemi_error *err);
/* The value that is input i of a node; NULL for an optional one left out. ERR_FORMAT if it is not there (yet). */
HEMI_CHECK hemi_status hemi_onnx_input(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, size_t i,
                                       const hemi_onnx_value **out, hemi_error *err);
const Hemi__Onnx__AttributeProto *hemi_onnx_attribute(const Hemi__Onnx__NodeProto *node, const char *name);
int64_t hemi_onnx_attribute_int(const Hemi__Onnx__NodeProto *node, const char *name, int64_t otherwise);
float hemi_onnx_attribute_float(const Hemi__Onnx__NodeProto *node, const char *name, float otherwise);

/* Computes a node's first output. The ops of onnx_linear.c change the map, those of onnx_shape.c only its shape. */
typedef hemi_status (*hemi_onnx_operator)(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_onnx_value *out,
                                          hemi_error *err);
/* NULL if there is no such operator here. */
hemi_onnx_operator hemi_onnx_linear_operator(const char *op_type);
hemi_onnx_operator hemi_onnx_shape_operator(const char *op_type);

#endif
