/* The reading of an ONNX graph as a circuit: what operators are made of. Private to circuit_*.c.
 *
 * A tensor has one number for each number of a row or a sample, f(base): the base is an affine image of values of the circuit,
 * the function a chain of univariate operators that is not yet a value of its own. Operators that are affine make it one ("plain") and go on from
 * there; univariate ones, and those of two tensors with the same base, make the chain longer. Memory is the graph's blocks. */
#ifndef HEMI_MODEL_CIRCUIT_TENSOR_H
#define HEMI_MODEL_CIRCUIT_TENSOR_H

#include "circuit/graph.h"
#include "model/onnx_graph.h"

/* What hemi_onnx_graph.target points to. */
typedef struct hemi_circuit_build {
    hemi_circuit *circuit; /* values: HEMI_CIRCUIT_VALUES_MAX are allocated */
    int weight_bits;
    const Hemi__Onnx__NodeProto *input_quantiser; /* the client does what it says; or NULL */
} hemi_circuit_build;

/* ---- sparse maps; those of a build may also be the identity: weight is NULL. Not changed once they are made. */
static inline bool hemi_sparse_is_identity(const hemi_sparse *m) { return m->weight == NULL; }
/* Entries of a row: from ... end - 1. */
static inline uint64_t hemi_sparse_from(const hemi_sparse *m, size_t row) {
    return hemi_sparse_is_identity(m) ? row : m->column == NULL ? (uint64_t)row * m->columns : m->start[row];
}
static inline uint64_t hemi_sparse_end(const hemi_sparse *m, size_t row) { return hemi_sparse_from(m, row + 1); }
static inline uint32_t hemi_sparse_column(const hemi_sparse *m, size_t row, uint64_t entry) {
    return hemi_sparse_is_identity(m) ? (uint32_t)row
           : m->column == NULL        ? (uint32_t)(entry - (uint64_t)row * m->columns)
                                      : m->column[entry];
}
static inline float hemi_sparse_weight(const hemi_sparse *m, uint64_t entry) {
    return hemi_sparse_is_identity(m) ? 1 : m->weight[entry];
}

/* `bytes` of memory, zeroed, freed with the graph. */
HEMI_CHECK hemi_status hemi_circuit_bytes(hemi_onnx_graph *g, void **out, size_t count, size_t size, hemi_error *err);
/* A map for entries start[0 .. rows], which it keeps unless the map is dense. ERR_TOO_LARGE. */
HEMI_CHECK hemi_status hemi_sparse_new(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_sparse *m, size_t rows,
                                       size_t columns, uint64_t *start, hemi_error *err);
/* second after first */
HEMI_CHECK hemi_status hemi_sparse_compose(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_sparse *out,
                                           const hemi_sparse *second, const hemi_sparse *first, hemi_error *err);
/* a + sign b */
HEMI_CHECK hemi_status hemi_sparse_sum(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_sparse *out,
                                       const hemi_sparse *a, const hemi_sparse *b, float sign, hemi_error *err);
/* Row i times factor[i]. */
HEMI_CHECK hemi_status hemi_sparse_scale(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_sparse *out,
                                         const hemi_sparse *in, const double *factor, hemi_error *err);

/* ---- affine images of values */
typedef struct hemi_circuit_base {
    uint32_t size;
    size_t terms;
    hemi_circuit_term *term; /* in order of their sources */
    const double *bias;      /* or NULL */
} hemi_circuit_base;

/* Row i of what is gathered is row `row` of part `part`; part SIZE_MAX: the number `constant` alone. */
typedef struct hemi_circuit_pick {
    size_t part, row;
    double constant;
} hemi_circuit_pick;

HEMI_CHECK hemi_status hemi_circuit_base_apply(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_circuit_base *out,
                                               const hemi_sparse *op, const hemi_circuit_base *in, hemi_error *err);
HEMI_CHECK hemi_status hemi_circuit_base_sum(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_circuit_base *out,
                                             const hemi_circuit_base *a, const hemi_circuit_base *b, float sign, hemi_error *err);
/* factor[i] in[i] + shift[i]; either may be NULL */
HEMI_CHECK hemi_status hemi_circuit_base_scale(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_circuit_base *out,
                                               const hemi_circuit_base *in, const double *factor, const double *shift,
                                               hemi_error *err);
HEMI_CHECK hemi_status hemi_circuit_base_gather(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_circuit_base *out,
                                                const hemi_circuit_base *const *parts, size_t count,
                                                const hemi_circuit_pick *pick, size_t size, hemi_error *err);

/* ---- chains of functions. False: no more steps. */
bool hemi_chain_step(hemi_function *f, hemi_function_id id, unsigned of, unsigned with, const double *p);
bool hemi_chain_unary(hemi_function *f, hemi_function_id id, const double *p);
/* f followed by the steps of `other` on the same argument that it does not have; *at: the operand that is other's result. */
bool hemi_chain_merge(hemi_function *f, const hemi_function *other, unsigned *at);
/* Whether f(x) = scale x + shift by its structure alone. */
bool hemi_chain_is_affine(const hemi_function *f, double *scale, double *shift);

/* ---- tensors */
typedef struct hemi_circuit_tensor {
    const hemi_circuit_base *base;
    hemi_function f;
    bool truth;                        /* of 0 and 1 */
    const Hemi__Onnx__NodeProto *node; /* the first one of the chain that is not affine */
    struct hemi_circuit_tensor *plain; /* the same without a function, once it was asked for */
} hemi_circuit_tensor;

/* A tensor of a base, as the map of a value whose features, rank and dims are the caller's. */
HEMI_CHECK hemi_status hemi_circuit_tensor_new(hemi_onnx_graph *g, hemi_circuit_tensor **out, const hemi_circuit_base *base,
                                               hemi_error *err);
/* The base of a value without a function: a function that is not affine becomes a value of the circuit. ERR_TOO_LARGE: too many. */
HEMI_CHECK hemi_status hemi_circuit_plain(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *value,
                                          const hemi_circuit_base **out, hemi_error *err);
/* A base as the value `out`; its features are set, its rank and dims are the caller's. */
HEMI_CHECK hemi_status hemi_circuit_give(hemi_onnx_graph *g, const hemi_circuit_base *base, hemi_onnx_value *out, hemi_error *err);

/* The circuit's input, which the value becomes; its output. */
HEMI_CHECK hemi_status hemi_circuit_input(hemi_onnx_graph *g, hemi_onnx_value *input, hemi_error *err);
HEMI_CHECK hemi_status hemi_circuit_output(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *result,
                                           hemi_error *err);

/* out may be an input in all that follow. */

/* A linear operator, outputs x inputs, and what is added; the shape is the caller's. */
HEMI_CHECK hemi_status hemi_circuit_apply(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *in,
                                          const hemi_sparse *op, const double *bias, hemi_onnx_value *out, hemi_error *err);
/* factor[i] in[i] + shift[i]; either may be NULL. Keeps the shape. */
HEMI_CHECK hemi_status hemi_circuit_scale(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *in,
                                          const double *factor, const double *shift, hemi_onnx_value *out, hemi_error *err);
/* A univariate function of a value; p: its parameters, or NULL. Keeps the shape. */
HEMI_CHECK hemi_status hemi_circuit_unary(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *in,
                                          hemi_function_id id, const double *p, hemi_onnx_value *out, hemi_error *err);
/* scale in + shift. Keeps the shape. */
HEMI_CHECK hemi_status hemi_circuit_line(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *in,
                                         double scale, double shift, hemi_onnx_value *out, hemi_error *err);
/* a + sign b, a b, a / b of two values, either of which may be constant. Dimensions of 1 are repeated. */
HEMI_CHECK hemi_status hemi_circuit_add(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *a,
                                        const hemi_onnx_value *b, double sign, hemi_onnx_value *out, hemi_error *err);
HEMI_CHECK hemi_status hemi_circuit_multiply(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *a,
                                             const hemi_onnx_value *b, hemi_onnx_value *out, hemi_error *err);
HEMI_CHECK hemi_status hemi_circuit_divide(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *a,
                                           const hemi_onnx_value *b, hemi_onnx_value *out, hemi_error *err);
/* A step of two values of the same shape as one function of the base they share. Not done: they do not, or it would be too long. */
HEMI_CHECK hemi_status hemi_circuit_fuse(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *a,
                                         const hemi_onnx_value *b, hemi_function_id id, hemi_onnx_value *out, bool *done,
                                         hemi_error *err);
/* a b of two values of the same shape, as a value of the circuit. */
HEMI_CHECK hemi_status hemi_circuit_product(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *a,
                                            const hemi_onnx_value *b, hemi_onnx_value *out, hemi_error *err);
/* out[i] = in[order[i]]; the shape is the caller's. */
HEMI_CHECK hemi_status hemi_circuit_permute(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *in,
                                            const size_t *order, hemi_onnx_value *out, hemi_error *err);
/* Numbers `pick` of one or more values; the shape is the caller's. */
HEMI_CHECK hemi_status hemi_circuit_gather(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                           const hemi_onnx_value *const *parts, size_t count, const hemi_circuit_pick *pick,
                                           size_t size, hemi_onnx_value *out, hemi_error *err);
/* `in` repeated to the dimensions given. */
HEMI_CHECK hemi_status hemi_circuit_expand(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *in,
                                           size_t rank, const int64_t *dims, hemi_onnx_value *out, hemi_error *err);

/* ---- constants */
bool hemi_circuit_is_scalar(const hemi_onnx_value *v); /* a constant of one number */
/* The one number of a constant, of any type. */
HEMI_CHECK hemi_status hemi_circuit_scalar(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *v,
                                           double *out, hemi_error *err);
/* Input `i`, a constant of one number; absent: *out stays. ERR_UNSUPPORTED. */
HEMI_CHECK hemi_status hemi_circuit_scalar_input(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, size_t i, double *out,
                                                 hemi_error *err);
/* The constant's number for each number of a shape: dimensions are matched from the last, those that are 1 or missing are repeated. */
HEMI_CHECK hemi_status hemi_circuit_spread(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                           const hemi_onnx_value *constant, const hemi_onnx_value *shape, double **out,
                                           hemi_error *err);
/* All numbers of a constant of floats. */
HEMI_CHECK hemi_status hemi_circuit_floats(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                           const hemi_onnx_constant *constant, float **out, hemi_error *err);
/* A constant that a quantiser made of another: of its shape, with these numbers (a block of the graph). */
hemi_onnx_value hemi_circuit_quantised(const hemi_onnx_constant *constant, const float *numbers);
/* Weights rounded to the build's width, each of `rows` rows on its own. */
void hemi_circuit_round_weights(const hemi_onnx_graph *g, const hemi_onnx_constant *constant, float *w, size_t rows, size_t each);

/* ---- axes: what is outside, along and inside; in rows only the last one can be worked on */
typedef struct hemi_circuit_axis {
    size_t at, outer, side, inner;
} hemi_circuit_axis;
HEMI_CHECK hemi_status hemi_circuit_axis_of(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value *a,
                                            int64_t axis, hemi_circuit_axis *out, hemi_error *err);
/* Refuses: the operator needs the reading by samples, which is tried next. */
hemi_status hemi_circuit_want_samples(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_error *err);

/* ---- operators, ended by a NULL */
extern const hemi_onnx_entry hemi_circuit_arithmetic_operators[], hemi_circuit_univariate_operators[],
    hemi_circuit_linear_operators[], hemi_circuit_shape_operators[], hemi_circuit_window_operators[],
    hemi_circuit_integer_operators[];
hemi_status hemi_circuit_run_quant(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_onnx_value *out, hemi_error *err);
/* A Quant or QuantizeLinear that is all that is done to the graph's input, or NULL. */
const Hemi__Onnx__NodeProto *hemi_circuit_find_input_quantiser(const hemi_onnx_graph *g, const char *input);

#endif
