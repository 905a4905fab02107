#include "model/circuit_import.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/circuit_tensor.h"

typedef Hemi__Onnx__NodeProto node_proto;

/* ---- operators */

static bool is_quant(const node_proto *node) {
    static const char *const domains[] = {"onnx.brevitas", "qonnx.custom_op.general"};
    bool known = false;
    for (size_t i = 0; i < sizeof domains / sizeof *domains; i++) known |= strcmp(node->domain, domains[i]) == 0;
    return known && strcmp(node->op_type, "Quant") == 0;
}

static const hemi_onnx_entry *const tables[] = {hemi_circuit_univariate_operators, hemi_circuit_arithmetic_operators,
                                                hemi_circuit_linear_operators,     hemi_circuit_window_operators,
                                                hemi_circuit_shape_operators,      hemi_circuit_integer_operators,
                                                hemi_onnx_shape_operators};

static hemi_onnx_operator find(hemi_onnx_graph *g, const node_proto *node) {
    if (is_quant(node)) return hemi_circuit_run_quant;
    if (!hemi_onnx_is_standard(node)) return NULL;
    hemi_onnx_operator run = hemi_onnx_integer_operator(g, node);
    for (size_t i = 0; run == NULL && i < sizeof tables / sizeof *tables; i++)
        run = hemi_onnx_find_operator(tables[i], node->op_type);
    if (run == NULL && !g->samples) g->wants_samples |= strcmp(node->op_type, "Shape") == 0;
    return run;
}

static hemi_status unsupported(const node_proto *node, hemi_error *err) {
    static const struct {
        const char *op, *why;
    } reasons[] = {
        {"MaxPool",
         "compares numbers: use AvgPool, or a convolution with stride; or keep the layer on the client by choosing the "
         "sub-modules around it"},
        {"GlobalMaxPool",
         "compares numbers: use AdaptiveAvgPool; or keep the layer on the client by choosing the sub-modules "
         "around it"},
        {"Softmax", "divides by a sum of exponentials, which has no bounds: keep it on the client"},
        {"LogSoftmax", "divides by a sum of exponentials, which has no bounds: keep it on the client"},
        {"ArgMax", "compares numbers: keep it on the client"},
        {"TopK", "compares numbers: keep it on the client"},
        {"ReduceMax", "compares numbers: keep it on the client"},
        {"ReduceMin", "compares numbers: keep it on the client"},
        {"LayerNormalization",
         "divides by a standard deviation of its input: use BatchNorm, or keep it on the client by choosing "
         "the sub-modules around it"},
        {"InstanceNormalization",
         "divides by a standard deviation of its input: use BatchNorm, or keep it on the client by "
         "choosing the sub-modules around it"},
        {"GroupNormalization",
         "divides by a standard deviation of its input: use BatchNorm, or keep it on the client by "
         "choosing the sub-modules around it"},
        {"LSTM", "is recurrent: keep it on the client, and choose the Linear modules around it"},
        {"GRU", "is recurrent: keep it on the client, and choose the Linear modules around it"},
        {"RNN", "is recurrent: keep it on the client, and choose the Linear modules around it"}};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (strcmp(node->op_type, reasons[i].op) == 0) return hemi_onnx_refuse(node, reasons[i].why, err);
    return hemi_onnx_refuse(node, "is not supported: keep it on the client by choosing the sub-modules around it", err);
}

/* ---- a reading */

static void drop(hemi_onnx_graph *g) {
    hemi_circuit_build *build = g->target;
    hemi_circuit_free(build->circuit);
    build->circuit = NULL;
}

static hemi_status begin(hemi_onnx_graph *g, hemi_onnx_value *input, hemi_error *err) {
    hemi_circuit_build *build = g->target;
    if (input->features > HEMI_CIRCUIT_NUMBERS_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "a sample of the calibration data has more than 2^20 numbers");
    build->circuit = hemi_alloc(1, sizeof *build->circuit);
    if (build->circuit != NULL)
        build->circuit->value = hemi_alloc(HEMI_CIRCUIT_VALUES_MAX, sizeof *build->circuit->value);
    if (build->circuit == NULL || build->circuit->value == NULL)
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a circuit");
    build->input_quantiser = hemi_circuit_find_input_quantiser(g, input->name);
    return hemi_circuit_input(g, input, err);
}

/* ---- the result */

static void mark(bool *used, const hemi_circuit_affine *a) {
    for (size_t t = 0; t < a->terms; t++) used[a->term[t].source] = true;
}

static void renumber(hemi_circuit_affine *a, const uint32_t *number) {
    for (size_t t = 0; t < a->terms; t++) a->term[t].source = number[a->term[t].source];
}

/* Leaves out what the output does not depend on: values come after those that they are made of. */
static void prune(hemi_circuit *c) {
    bool used[HEMI_CIRCUIT_VALUES_MAX] = {true};
    uint32_t number[HEMI_CIRCUIT_VALUES_MAX] = {0}, count = 0;
    used[c->values - 1] = true;
    for (size_t v = c->values; v-- > 0;) {
        if (!used[v]) continue;
        mark(used, &c->value[v].a);
        mark(used, &c->value[v].b);
    }
    for (size_t v = 0; v < c->values; v++) {
        if (!used[v]) {
            hemi_circuit_affine_clear(&c->value[v].a);
            hemi_circuit_affine_clear(&c->value[v].b);
            continue;
        }
        number[v] = count;
        renumber(&c->value[v].a, number);
        renumber(&c->value[v].b, number);
        if (count != v) c->value[count] = c->value[v];
        count++;
    }
    c->values = count; /* what is above was moved, or cleared */
}

/* The node that gives the graph's output. */
static const node_proto *last_node(const hemi_onnx_graph *g) {
    for (size_t i = g->proto->n_node; i-- > 0;)
        for (size_t j = 0; j < g->proto->node[i]->n_output; j++)
            if (strcmp(g->proto->node[i]->output[j], g->proto->output[0]->name) == 0) return g->proto->node[i];
    return NULL;
}

static hemi_status take(hemi_onnx_graph *g, const hemi_onnx_value *result, hemi_error *err) {
    hemi_circuit *c = ((hemi_circuit_build *)g->target)->circuit;
    const node_proto *node = last_node(g);
    if (node == NULL)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "the graph gives its input back: there is nothing to run on a server");
    if (result->rank <= (g->batched ? 1 : 0))
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the graph's output has no dimensions");
    HEMI_TRY(hemi_circuit_output(g, node, result, err));
    /* samples of one dimension are rows */
    c->rows |= g->batched && c->value[0].rank == 1 && c->value[c->values - 1].rank == 1;
    prune(c);
    return HEMI_OK;
}

hemi_status hemi_circuit_import(hemi_circuit **out, const void *onnx, size_t onnx_bytes, const uint32_t *shape,
                                size_t rank, int weight_bits, hemi_progress_fn progress, void *progress_context,
                                hemi_error *err) {
    static const hemi_onnx_reader reader = {.find = find,
                                            .unsupported = unsupported,
                                            .begin = begin,
                                            .permute = hemi_circuit_permute,
                                            .take = take,
                                            .drop = drop};
    hemi_circuit_build build = {.weight_bits = weight_bits};
    *out = NULL;
    if (weight_bits != 0 && (weight_bits < 2 || weight_bits > 16))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "weights of %d bits: 2 to 16 are supported, or 0", weight_bits);
    HEMI_TRY(hemi_onnx_read(&reader, &build, onnx, onnx_bytes, shape, rank, progress, progress_context, err));
    *out = build.circuit;
    return HEMI_OK;
}

/* ---- whether there is need of one */

typedef struct names {
    const char **name;
    size_t count;
} names;

static bool is_among(const names *list, const char *name) {
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->name[i], name) == 0) return true;
    return false;
}

/* Whether the linear importer has no such operator. computed: how many inputs depend on the graph's; inputs after the first do: second. */
static bool needs_circuit(const node_proto *node, size_t computed, bool second) {
    static const hemi_onnx_entry *const linear[] = {hemi_onnx_shape_operators, hemi_onnx_rows_operators,
                                                    hemi_onnx_sample_operators, hemi_onnx_window_operators};
    static const char *const of_two[] = {"Mul", "MatMul", "Gemm", "Conv", "ConvTranspose"};
    const char *op = node->op_type;
    if (!hemi_onnx_is_standard(node)) return true;
    if (strcmp(op, "Div") == 0 && second) return true;
    for (size_t i = 0; computed > 1 && i < sizeof of_two / sizeof *of_two; i++)
        if (strcmp(op, of_two[i]) == 0) return true;
    if (strcmp(op, "Shape") == 0) return false;
    for (size_t i = 0; i < sizeof linear / sizeof *linear; i++)
        if (hemi_onnx_find_operator(linear[i], op) != NULL) return false;
    return computed > 0 || hemi_onnx_find_operator(hemi_circuit_integer_operators, op) != NULL;
}

static bool scan(const Hemi__Onnx__GraphProto *p, names *from_input) {
    for (size_t i = 0; i < p->n_input; i++) {
        bool weight = false;
        for (size_t j = 0; !weight && j < p->n_initializer; j++)
            weight = strcmp(p->initializer[j]->name, p->input[i]->name) == 0;
        if (!weight) from_input->name[from_input->count++] = p->input[i]->name;
    }
    for (size_t i = 0; i < p->n_node; i++) {
        const node_proto *node = p->node[i];
        size_t computed = 0;
        bool second = false;
        for (size_t j = 0; j < node->n_input; j++) {
            const bool is = is_among(from_input, node->input[j]);
            computed += is;
            second |= is && j == 1;
        }
        if (needs_circuit(node, computed, second)) return true;
        if (computed > 0 && strcmp(node->op_type, "Shape") != 0 && node->n_output > 0)
            from_input->name[from_input->count++] = node->output[0];
    }
    return false;
}

bool hemi_circuit_is_needed(const void *onnx, size_t onnx_bytes) {
    hemi_protobuf file = {0};
    bool needed = false;
    if (hemi_onnx_open(&file, onnx, onnx_bytes, NULL) != HEMI_OK) return false;
    const Hemi__Onnx__GraphProto *p = ((const Hemi__Onnx__ModelProto *)file.message)->graph;
    if (p != NULL && p->n_node <= HEMI_ONNX_NODES_MAX && p->n_input <= HEMI_ONNX_TENSORS_MAX &&
        p->n_initializer <= HEMI_ONNX_TENSORS_MAX) {
        names from_input = {.name = hemi_alloc(p->n_node + p->n_input, sizeof(char *))};
        needed = from_input.name != NULL && scan(p, &from_input);
        hemi_free(from_input.name);
    }
    hemi_protobuf_free(&file);
    return needed;
}
