/* The state of an ONNX import: the values computed so far, in the order of the nodes. Private to onnx*.c and circuit_*.c, two readers of the
 * same graphs: one multiplies linear operators out, the other makes a circuit.
 *
 * A value is a constant or an affine image of the graph's input, in one of two readings of the graph:
 *   rows     only the last dimension counts, the others are rows: value = W x + b, with W = NULL for the identity
 *   samples  the first dimension counts samples and is 1 here; the rest, all known, is one sample. A value is a list of numbers in row-major
 *            order, so that a new shape is only another view: dims. Its map is the identity, a stencil, or a matrix.
 * Rows are tried first: they make the better module. An operator that cannot work on rows asks for samples. */
#ifndef HEMI_MODEL_ONNX_GRAPH_H
#define HEMI_MODEL_ONNX_GRAPH_H

#include "base/progress.h"
#include "base/threads.h"
#include "model/onnx_constant.h"
#include "model/protobuf.h"
#include "model/stencil.h"

#define HEMI_ONNX_NODES_MAX    1024
#define HEMI_ONNX_TENSORS_MAX  4096
#define HEMI_ONNX_BLOCKS_MAX   (16 * HEMI_ONNX_NODES_MAX)
#define HEMI_ONNX_FEATURES_MAX (1 << 20)
#define HEMI_ONNX_NUMBERS_MAX  (INT64_C(1) << 40)  /* of one input */
#define HEMI_ONNX_MEMORY_MAX   ((size_t)1 << 31)   /* bytes of all matrices together */
#define HEMI_ONNX_WORK_MAX     1e12                /* multiplications of one product of matrices */
#define HEMI_ONNX_DENSE_MAX    (UINT64_C(1) << 26) /* weights of a matrix of the whole sample */

typedef enum hemi_onnx_map { HEMI_ONNX_IDENTITY, HEMI_ONNX_STENCIL, HEMI_ONNX_DENSE } hemi_onnx_map;

typedef struct hemi_onnx_value {
    const char *name;
    bool is_constant;
    hemi_onnx_constant constant;
    const float *w;       /* features x graph.inputs, or NULL: the identity. Samples: of HEMI_ONNX_DENSE only */
    const float *b;       /* features numbers, or NULL */
    uint32_t features;    /* the last dimension; samples: all numbers of a sample */
    hemi_onnx_map map;    /* samples */
    hemi_stencil stencil; /* HEMI_ONNX_STENCIL */
    struct hemi_circuit_tensor *tensor; /* of a circuit, in place of the map */
    size_t rank;
    int64_t dims[HEMI_ONNX_RANK_MAX]; /* -1: not known */
} hemi_onnx_value;

typedef struct hemi_onnx_graph hemi_onnx_graph;
struct hemi_onnx_graph {
    const struct hemi_onnx_reader *reader;
    void *target;          /* what the reader fills in */
    uint32_t inputs;       /* features of a row, numbers of a sample */
    bool samples;          /* the reading */
    bool batched;          /* samples: the first dimension of every value is that of the batch */
    bool wants_samples;    /* rows: why it failed */
    const uint32_t *shape; /* of the calibration data; its first dimension is not looked at, unless !batched */
    size_t shape_rank;
    size_t input_rank; /* dimensions of the graph's input; 0: the file does not say */
    const Hemi__Onnx__GraphProto *proto;
    hemi_onnx_value *values;
    size_t value_count, value_capacity;
    void *blocks[HEMI_ONNX_BLOCKS_MAX]; /* what values point to */
    size_t block_count, block_bytes;
    hemi_team *team;
    hemi_progress_fn progress; /* may be NULL */
    void *progress_context;
};

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

/* "Conv (node '/0/Conv') `why`": ERR_UNSUPPORTED, ERR_FORMAT. */
hemi_status hemi_onnx_refuse(const Hemi__Onnx__NodeProto *node, const char *why, hemi_error *err);
hemi_status hemi_onnx_bad(const Hemi__Onnx__NodeProto *node, const char *what, hemi_error *err);
/* The first input, which must not be constant. */
HEMI_CHECK hemi_status hemi_onnx_operand(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                         const hemi_onnx_value **a, hemi_error *err);
/* The first two inputs, both of which must be there; of the second kind one must be computed. */
HEMI_CHECK hemi_status hemi_onnx_operands(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                          const hemi_onnx_value **a, const hemi_onnx_value **b, hemi_error *err);
HEMI_CHECK hemi_status hemi_onnx_operands_computed(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                                   const hemi_onnx_value **a, const hemi_onnx_value **b,
                                                   hemi_error *err);
/* Input `i` as a constant of as many numbers as there are channels. */
HEMI_CHECK hemi_status hemi_onnx_channels(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, size_t i,
                                          size_t channels, const hemi_onnx_constant **out, hemi_error *err);
/* The integers of input `i`, or of the attribute that older operator sets have instead; count 0: there are none. */
HEMI_CHECK hemi_status hemi_onnx_ints(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, size_t i,
                                      const char *attribute, int64_t *ints, size_t max, size_t *count, hemi_error *err);

/* Computes a node's first output. */
typedef hemi_status (*hemi_onnx_operator)(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_onnx_value *out,
                                          hemi_error *err);
typedef struct hemi_onnx_entry {
    const char *name;
    hemi_onnx_operator run;
} hemi_onnx_entry;
/* Operators, ended by a NULL: those that change the map of rows, those that change only the shape (in both readings), those that
 * change the map of samples: number by number and matrices, and windows. */
hemi_onnx_operator hemi_onnx_find_operator(const hemi_onnx_entry *list, const char *op_type); /* NULL: not there */
bool hemi_onnx_is_standard(const Hemi__Onnx__NodeProto *node);                               /* of ONNX's own domain */
extern const hemi_onnx_entry hemi_onnx_rows_operators[], hemi_onnx_shape_operators[], hemi_onnx_sample_operators[],
    hemi_onnx_window_operators[];

/* What is made of a graph. */
typedef struct hemi_onnx_reader {
    hemi_onnx_operator (*find)(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node); /* NULL: not supported, in this reading */
    hemi_status (*unsupported)(const Hemi__Onnx__NodeProto *node, hemi_error *err);
    hemi_status (*begin)(hemi_onnx_graph *g, hemi_onnx_value *input, hemi_error *err); /* of a reading; may be NULL */
    /* out[i] = in[order[i]] */
    hemi_status (*permute)(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *in,
                           const size_t *order, hemi_onnx_value *out, hemi_error *err);
    hemi_status (*take)(hemi_onnx_graph *g, const hemi_onnx_value *result, hemi_error *err);
    void (*drop)(hemi_onnx_graph *g); /* after an error */
} hemi_onnx_reader;

/* Reads the graph, one reading after the other, on calibration data of a shape. ERR_UNSUPPORTED, ERR_FORMAT, ERR_SHAPE, ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_onnx_read(const hemi_onnx_reader *reader, void *target, const void *bytes, size_t count,
                                      const uint32_t *shape, size_t rank, hemi_progress_fn progress,
                                      void *progress_context, hemi_error *err);
/* The file as a ModelProto. ERR_FORMAT, ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_onnx_open(hemi_protobuf *file, const void *bytes, size_t count, hemi_error *err);
/* Another value of the graph, which no value is named as yet. ERR_FORMAT. */
HEMI_CHECK hemi_status hemi_onnx_define(hemi_onnx_graph *g, const char *name, hemi_onnx_value value, hemi_error *err);

/* Of integers: an operator that is computed at once, where the first input is a constant of integers (or what Shape is of); otherwise NULL. */
hemi_onnx_operator hemi_onnx_integer_operator(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node);

#endif
