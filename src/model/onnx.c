#include "model/onnx.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/onnx_graph.h"
#include "model/protobuf.h"

#define OPSET_MIN 7
/* What protobuf-c may take: the data once more, and a fixed allowance for structure. */
#define MEMORY_PER_BYTE  2
#define MEMORY_ALLOWANCE ((size_t)256 << 20)

void hemi_affine_free(hemi_affine *map) {
    hemi_free(map->weight);
    hemi_free(map->bias);
    *map = (hemi_affine){0};
}

hemi_onnx_label hemi_onnx_label_of(const Hemi__Onnx__NodeProto *node) {
    hemi_onnx_label label;
    const bool named = node->name != NULL && node->name[0] != '\0';
    const char *name = named ? node->name : node->n_output > 0 ? node->output[0] : "";
    (void)snprintf(label.s, sizeof label.s, "%s (%s '%s')", hemi_onnx_printable(node->op_type).s,
                   named ? "node" : "output", hemi_onnx_printable(name).s);
    return label;
}

hemi_status hemi_onnx_block(hemi_onnx_graph *g, float **out, size_t rows, size_t columns, hemi_error *err) {
    *out = NULL;
    const size_t left = (HEMI_ONNX_MEMORY_MAX - g->block_bytes) / sizeof(float);
    if (rows == 0 || columns == 0 || rows > left / columns || g->block_count == HEMI_ONNX_BLOCKS_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE,
                         "the matrices of this graph need more than %zu MiB: export fewer layers together",
                         HEMI_ONNX_MEMORY_MAX >> 20);
    float *block = hemi_alloc(rows * columns, sizeof *block);
    if (block == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix of %zu x %zu", rows, columns);
    g->blocks[g->block_count++] = block;
    g->block_bytes += rows * columns * sizeof *block;
    *out = block;
    return HEMI_OK;
}

static const hemi_onnx_value *find_value(const hemi_onnx_graph *g, const char *name) {
    for (size_t i = g->value_count; i-- > 0;)
        if (strcmp(g->values[i].name, name) == 0) return &g->values[i];
    return NULL;
}

hemi_status hemi_onnx_input(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, size_t i,
                            const hemi_onnx_value **out, hemi_error *err) {
    *out = NULL;
    if (i >= node->n_input || node->input[i][0] == '\0') return HEMI_OK;
    *out = find_value(g, node->input[i]);
    if (*out != NULL) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_FORMAT,
                     "%s takes '%s', which nothing before it gives (a missing weight, or a cycle)",
                     hemi_onnx_label_of(node).s, hemi_onnx_printable(node->input[i]).s);
}

const Hemi__Onnx__AttributeProto *hemi_onnx_attribute(const Hemi__Onnx__NodeProto *node, const char *name) {
    for (size_t i = 0; i < node->n_attribute; i++)
        if (strcmp(node->attribute[i]->name, name) == 0) return node->attribute[i];
    return NULL;
}

int64_t hemi_onnx_attribute_int(const Hemi__Onnx__NodeProto *node, const char *name, int64_t otherwise) {
    const Hemi__Onnx__AttributeProto *a = hemi_onnx_attribute(node, name);
    return a != NULL ? a->i : otherwise;
}

float hemi_onnx_attribute_float(const Hemi__Onnx__NodeProto *node, const char *name, float otherwise) {
    const Hemi__Onnx__AttributeProto *a = hemi_onnx_attribute(node, name);
    return a != NULL ? a->f : otherwise;
}

static hemi_status define(hemi_onnx_graph *g, const char *name, hemi_onnx_value value, hemi_error *err) {
    if (name[0] == '\0') return hemi_fail(err, HEMI_ERR_FORMAT, "the graph has a value without a name");
    if (find_value(g, name) != NULL)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the value '%s' is given twice", hemi_onnx_printable(name).s);
    value.name = name;
    g->values[g->value_count++] = value;
    return HEMI_OK;
}

static hemi_status define_initialisers(hemi_onnx_graph *g, hemi_error *err) {
    for (size_t i = 0; i < g->proto->n_initializer; i++) {
        hemi_onnx_value value = {.is_constant = true};
        const Hemi__Onnx__TensorProto *t = g->proto->initializer[i];
        HEMI_TRY(hemi_onnx_constant_init(&value.constant, t, t->name, err));
        HEMI_TRY(define(g, t->name, value, err));
    }
    return HEMI_OK;
}

/* The one input that is not an initialiser (old files list those, too). */
static hemi_status define_input(hemi_onnx_graph *g, hemi_error *err) {
    const Hemi__Onnx__ValueInfoProto *input = NULL;
    for (size_t i = 0; i < g->proto->n_input; i++) {
        const Hemi__Onnx__ValueInfoProto *candidate = g->proto->input[i];
        if (find_value(g, candidate->name) != NULL) continue;
        if (input != NULL)
            return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                             "the graph has several inputs ('%s', '%s'): choose a module with one",
                             hemi_onnx_printable(input->name).s, hemi_onnx_printable(candidate->name).s);
        input = candidate;
    }
    if (input == NULL) return hemi_fail(err, HEMI_ERR_FORMAT, "the graph has no input");
    hemi_onnx_value value = {.features = g->inputs, .rank = 2, .dims = {-1, g->inputs}};
    const Hemi__Onnx__TypeProto__Tensor *type = input->type != NULL ? input->type->tensor_type : NULL;
    const Hemi__Onnx__TensorShapeProto *shape = type != NULL ? type->shape : NULL;
    if (shape != NULL) {
        if (shape->n_dim == 0 || shape->n_dim > HEMI_ONNX_RANK_MAX)
            return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the graph's input has %zu dimensions: 1 to %d are read",
                             shape->n_dim, HEMI_ONNX_RANK_MAX);
        value.rank = shape->n_dim;
        int64_t total = 1;
        for (size_t i = 0; i < value.rank; i++) {
            const Hemi__Onnx__TensorShapeProto__Dimension *d = shape->dim[i];
            const bool numbered = d->value_case == HEMI__ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            const int64_t dim = numbered ? d->dim_value : 0; /* 0 where it is a name */
            if (dim < 0 || dim > HEMI_ONNX_NUMBERS_MAX / total)
                return hemi_fail(err, HEMI_ERR_FORMAT, "the graph's input has a dimension of %lld", (long long)dim);
            value.dims[i] = dim > 0 ? dim : -1;
            total *= dim > 0 ? dim : 1;
        }
        int64_t *last = &value.dims[value.rank - 1];
        if (*last != -1 && *last != g->inputs)
            return hemi_fail(err, HEMI_ERR_SHAPE,
                             "the graph takes inputs of %lld features, the calibration data has %u", (long long)*last,
                             g->inputs);
        *last = g->inputs;
    }
    return define(g, input->name, value, err);
}

static bool is_one_of(const char *op, const char *const *list) {
    for (; *list != NULL; list++)
        if (strcmp(op, *list) == 0) return true;
    return false;
}

static hemi_status unsupported(const Hemi__Onnx__NodeProto *node, hemi_error *err) {
    static const char *const not_linear[] = {"Abs",
                                             "Acos",
                                             "Asin",
                                             "Atan",
                                             "Celu",
                                             "Ceil",
                                             "Clip",
                                             "Cos",
                                             "Elu",
                                             "Erf",
                                             "Exp",
                                             "Floor",
                                             "Gelu",
                                             "HardSigmoid",
                                             "HardSwish",
                                             "LeakyRelu",
                                             "Log",
                                             "LogSoftmax",
                                             "Max",
                                             "Min",
                                             "Mish",
                                             "Mod",
                                             "PRelu",
                                             "Pow",
                                             "Reciprocal",
                                             "Relu",
                                             "Round",
                                             "Selu",
                                             "Sigmoid",
                                             "Sign",
                                             "Sin",
                                             "Softmax",
                                             "Softplus",
                                             "Softsign",
                                             "Sqrt",
                                             "Tan",
                                             "Tanh",
                                             "ThresholdedRelu",
                                             "Where",
                                             "Greater",
                                             "GreaterOrEqual",
                                             "Less",
                                             "LessOrEqual",
                                             "Equal",
                                             "Not",
                                             "And",
                                             "Or",
                                             "ArgMax",
                                             "MaxPool",
                                             "LayerNormalization",
                                             NULL};
    const hemi_onnx_label label = hemi_onnx_label_of(node);
    if (is_one_of(node->op_type, not_linear))
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "%s is not linear: choose the Linear modules around it, such as seq.0 and seq.2", label.s);
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                     "%s is not supported: choose modules of Linear layers only, or a smaller part of this one",
                     label.s);
}

static hemi_status run_node(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_error *err) {
    const bool standard = node->domain[0] == '\0' || strcmp(node->domain, "ai.onnx") == 0;
    hemi_onnx_operator run = NULL;
    if (standard) run = hemi_onnx_linear_operator(node->op_type);
    if (standard && run == NULL) run = hemi_onnx_shape_operator(node->op_type);
    if (run == NULL) return unsupported(node, err);
    if (node->n_output == 0 || node->output[0][0] == '\0')
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s has no output", hemi_onnx_label_of(node).s);
    hemi_onnx_value out = {0};
    HEMI_TRY(run(g, node, &out, err));
    return define(g, node->output[0], out, err);
}

static hemi_status check_opset(const Hemi__Onnx__ModelProto *model, hemi_error *err) {
    for (size_t i = 0; i < model->n_opset_import; i++) {
        const Hemi__Onnx__OperatorSetIdProto *set = model->opset_import[i];
        if (set->domain[0] != '\0' && strcmp(set->domain, "ai.onnx") != 0) continue;
        if (set->version >= OPSET_MIN) return HEMI_OK;
        return hemi_fail(err, HEMI_ERR_VERSION,
                         "operator set %lld is too old: export with opset %d or later (13 is a good choice)",
                         (long long)set->version, OPSET_MIN);
    }
    return hemi_fail(err, HEMI_ERR_FORMAT, "this is not an ONNX model: it names no operator set");
}

static hemi_status run_graph(hemi_onnx_graph *g, const hemi_onnx_value **result, hemi_error *err) {
    const Hemi__Onnx__GraphProto *p = g->proto;
    if (p->n_node > HEMI_ONNX_NODES_MAX || p->n_initializer > HEMI_ONNX_TENSORS_MAX ||
        p->n_input > HEMI_ONNX_TENSORS_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE,
                         "the graph has %zu nodes, %zu weights and %zu inputs: more than is read", p->n_node,
                         p->n_initializer, p->n_input);
    if (p->n_output != 1)
        return hemi_fail(err, p->n_output == 0 ? HEMI_ERR_FORMAT : HEMI_ERR_UNSUPPORTED,
                         "the graph has %zu outputs: choose a module with one", p->n_output);
    g->values = hemi_alloc(p->n_node + p->n_initializer + 1, sizeof *g->values);
    if (g->values == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a graph");
    HEMI_TRY(define_initialisers(g, err));
    HEMI_TRY(define_input(g, err));
    for (size_t i = 0; i < p->n_node; i++) {
        HEMI_TRY(run_node(g, p->node[i], err));
        if (g->progress != NULL) g->progress(g->progress_context, "import", i + 1, p->n_node);
    }
    *result = find_value(g, p->output[0]->name);
    if (*result == NULL)
        return hemi_fail(err, HEMI_ERR_FORMAT, "nothing gives the graph's output '%s'",
                         hemi_onnx_printable(p->output[0]->name).s);
    if ((*result)->is_constant || (*result)->w == NULL)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "the graph multiplies its input by no weights: there is nothing to run on a server");
    return HEMI_OK;
}

/* Copies the result out of the graph's blocks. */
static hemi_status take(hemi_affine *out, const hemi_onnx_graph *g, const hemi_onnx_value *result, hemi_error *err) {
    const size_t count = (size_t)result->features * g->inputs;
    *out = (hemi_affine){.inputs = g->inputs, .outputs = result->features};
    out->weight = hemi_alloc(count, sizeof *out->weight);
    if (result->b != NULL) out->bias = hemi_alloc(result->features, sizeof *out->bias);
    if (out->weight == NULL || (result->b != NULL && out->bias == NULL)) {
        hemi_affine_free(out);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix of %u x %u", result->features, g->inputs);
    }
    memcpy(out->weight, result->w, count * sizeof *out->weight);
    if (out->bias != NULL) memcpy(out->bias, result->b, result->features * sizeof *out->bias);
    return HEMI_OK;
}

hemi_status hemi_onnx_import(hemi_affine *out, const void *bytes, size_t count, uint32_t inputs,
                             hemi_progress_fn progress, void *progress_context, hemi_error *err) {
    *out = (hemi_affine){0};
    if (inputs == 0 || inputs > HEMI_ONNX_FEATURES_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u features: 1 to %d are supported", inputs, HEMI_ONNX_FEATURES_MAX);
    if (count == 0) return hemi_fail(err, HEMI_ERR_FORMAT, "the ONNX file is empty");
    if (count > HEMI_ONNX_BYTES_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the ONNX file has %zu bytes, more than %zu", count,
                         HEMI_ONNX_BYTES_MAX);
    hemi_protobuf file = {0};
    hemi_status status = hemi_protobuf_read(&file, bytes, count, &hemi__onnx__model_proto__descriptor,
                                            MEMORY_PER_BYTE * count + MEMORY_ALLOWANCE, err);
    if (status != HEMI_OK) return hemi_fail_in(err, status, "ONNX");
    const Hemi__Onnx__ModelProto *model = (const Hemi__Onnx__ModelProto *)file.message;
    hemi_onnx_graph *g = hemi_alloc(1, sizeof *g);
    const hemi_onnx_value *result = NULL;
    if (g == NULL) {
        status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a graph");
    } else if (model->graph == NULL) {
        status = hemi_fail(err, HEMI_ERR_FORMAT, "this is not an ONNX model: it has no graph");
    } else {
        g->inputs = inputs;
        g->proto = model->graph;
        g->progress = progress;
        g->progress_context = progress_context;
        status = check_opset(model, err);
        if (status == HEMI_OK) status = run_graph(g, &result, err);
        if (status == HEMI_OK) status = take(out, g, result, err);
        for (size_t i = 0; i < g->block_count; i++) hemi_free(g->blocks[i]);
        hemi_free(g->values);
        hemi_team_free(g->team);
    }
    hemi_free(g);
    hemi_protobuf_free(&file);
    return status == HEMI_OK ? HEMI_OK : hemi_fail_in(err, status, "ONNX");
}
