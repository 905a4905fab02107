#include "model/onnx_graph.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/onnx.h"
#include "model/protobuf.h"

#define OPSET_MIN 7
/* What protobuf-c may take: the data once more, and a fixed allowance for structure. */
#define MEMORY_PER_BYTE  2
#define MEMORY_ALLOWANCE ((size_t)256 << 20)

hemi_onnx_label hemi_onnx_label_of(const Hemi__Onnx__NodeProto *node) {
    hemi_onnx_label label;
    const bool named = node->name != NULL && node->name[0] != '\0';
    const char *name = named ? node->name : node->n_output > 0 ? node->output[0] : "";
    (void)snprintf(label.s, sizeof label.s, "%s (%s '%s')", hemi_onnx_printable(node->op_type).s,
                   named ? "node" : "output", hemi_onnx_printable(name).s);
    return label;
}

hemi_status hemi_onnx_refuse(const Hemi__Onnx__NodeProto *node, const char *why, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "%s %s", hemi_onnx_label_of(node).s, why);
}

hemi_status hemi_onnx_bad(const Hemi__Onnx__NodeProto *node, const char *what, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_FORMAT, "%s has a bad %s", hemi_onnx_label_of(node).s, what);
}

hemi_status hemi_onnx_block(hemi_onnx_graph *g, float **out, size_t rows, size_t columns, hemi_error *err) {
    *out = NULL;
    const size_t left = (HEMI_ONNX_MEMORY_MAX - g->block_bytes) / sizeof(float);
    if (g->block_count == HEMI_ONNX_BLOCKS_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the graph has too many operators: export fewer layers together");
    if (rows == 0 || columns == 0 || rows > left / columns)
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

hemi_status hemi_onnx_operand(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value **a,
                              hemi_error *err) {
    HEMI_TRY(hemi_onnx_input(g, node, 0, a, err));
    if (*a == NULL) return hemi_fail(err, HEMI_ERR_FORMAT, "%s has no input", hemi_onnx_label_of(node).s);
    return (*a)->is_constant ? hemi_onnx_refuse(node, "of a constant: export with constant folding", err) : HEMI_OK;
}

hemi_status hemi_onnx_operands(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, const hemi_onnx_value **a,
                               const hemi_onnx_value **b, hemi_error *err) {
    HEMI_TRY(hemi_onnx_input(g, node, 0, a, err));
    HEMI_TRY(hemi_onnx_input(g, node, 1, b, err));
    if (*a == NULL || *b == NULL)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s has fewer than two inputs", hemi_onnx_label_of(node).s);
    return HEMI_OK;
}

hemi_status hemi_onnx_operands_computed(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node,
                                        const hemi_onnx_value **a, const hemi_onnx_value **b, hemi_error *err) {
    HEMI_TRY(hemi_onnx_operands(g, node, a, b, err));
    if (!(*a)->is_constant || !(*b)->is_constant) return HEMI_OK;
    return hemi_onnx_refuse(node, "of two constants: export with constant folding", err);
}

hemi_status hemi_onnx_channels(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, size_t i, size_t channels,
                               const hemi_onnx_constant **out, hemi_error *err) {
    const hemi_onnx_value *c = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, i, &c, err));
    if (c == NULL || !c->is_constant)
        return hemi_onnx_refuse(node, "with computed statistics: call eval() before exporting", err);
    if (c->constant.count != channels)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s is of %zu channels, its input has %zu", hemi_onnx_label_of(node).s,
                         c->constant.count, channels);
    *out = &c->constant;
    return HEMI_OK;
}

hemi_status hemi_onnx_ints(const hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, size_t i, const char *attribute,
                           int64_t *ints, size_t max, size_t *count, hemi_error *err) {
    const hemi_onnx_value *list = NULL;
    HEMI_TRY(hemi_onnx_input(g, node, i, &list, err));
    *count = 0;
    if (list != NULL && !list->is_constant)
        return hemi_onnx_refuse(node, "has a shape that is computed: export with fixed shapes", err);
    if (list != NULL) return hemi_onnx_constant_ints(&list->constant, ints, max, count, err);
    const Hemi__Onnx__AttributeProto *a = hemi_onnx_attribute(node, attribute);
    if (a == NULL) return HEMI_OK;
    if (a->n_ints > max) return hemi_onnx_refuse(node, "has too many dimensions", err);
    *count = a->n_ints;
    if (*count > 0) memcpy(ints, a->ints, *count * sizeof *ints);
    return HEMI_OK;
}

hemi_status hemi_onnx_define(hemi_onnx_graph *g, const char *name, hemi_onnx_value value, hemi_error *err) {
    if (name[0] == '\0') return hemi_fail(err, HEMI_ERR_FORMAT, "the graph has a value without a name");
    if (g->value_count == g->value_capacity) return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the graph has too many values");
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
        HEMI_TRY(hemi_onnx_define(g, t->name, value, err));
    }
    return HEMI_OK;
}

/* The one input that is not an initialiser (old files list those, too). */
static hemi_status find_input(const hemi_onnx_graph *g, const Hemi__Onnx__ValueInfoProto **input, hemi_error *err) {
    *input = NULL;
    for (size_t i = 0; i < g->proto->n_input; i++) {
        const Hemi__Onnx__ValueInfoProto *candidate = g->proto->input[i];
        if (find_value(g, candidate->name) != NULL) continue;
        if (*input != NULL)
            return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                             "the graph has several inputs ('%s', '%s'): choose a module with one",
                             hemi_onnx_printable((*input)->name).s, hemi_onnx_printable(candidate->name).s);
        *input = candidate;
    }
    return *input != NULL ? HEMI_OK : hemi_fail(err, HEMI_ERR_FORMAT, "the graph has no input");
}

/* What the file says of its shape: -1 where a dimension is a name; rank 0 where it says nothing. */
static hemi_status read_shape(const Hemi__Onnx__ValueInfoProto *input, size_t *rank, int64_t dims[HEMI_ONNX_RANK_MAX],
                              hemi_error *err) {
    const Hemi__Onnx__TypeProto__Tensor *type = input->type != NULL ? input->type->tensor_type : NULL;
    const Hemi__Onnx__TensorShapeProto *shape = type != NULL ? type->shape : NULL;
    int64_t total = 1;
    *rank = 0;
    if (shape == NULL) return HEMI_OK;
    if (shape->n_dim == 0 || shape->n_dim > HEMI_ONNX_RANK_MAX)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the graph's input has %zu dimensions: 1 to %d are read",
                         shape->n_dim, HEMI_ONNX_RANK_MAX);
    *rank = shape->n_dim;
    for (size_t i = 0; i < *rank; i++) {
        const Hemi__Onnx__TensorShapeProto__Dimension *d = shape->dim[i];
        const bool numbered = d->value_case == HEMI__ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        const int64_t dim = numbered ? d->dim_value : 0; /* 0 where it is a name */
        if (dim < 0 || dim > HEMI_ONNX_NUMBERS_MAX / total)
            return hemi_fail(err, HEMI_ERR_FORMAT, "the graph's input has a dimension of %lld", (long long)dim);
        dims[i] = dim > 0 ? dim : -1;
        total *= dim > 0 ? dim : 1;
    }
    return HEMI_OK;
}

static hemi_status define_rows(hemi_onnx_graph *g, const char *name, size_t rank, const int64_t *dims,
                               hemi_error *err) {
    hemi_onnx_value value = {.features = g->inputs, .rank = 2, .dims = {-1, g->inputs}};
    if (rank > 0) {
        value.rank = rank;
        memcpy(value.dims, dims, rank * sizeof *dims);
        int64_t *last = &value.dims[rank - 1];
        if (*last != -1 && *last != g->inputs)
            return hemi_fail(err, HEMI_ERR_SHAPE,
                             "the graph takes inputs of %lld features, the calibration data has %u", (long long)*last,
                             g->inputs);
        *last = g->inputs;
    }
    return hemi_onnx_define(g, name, value, err);
}

/* The calibration data's shape, with a batch of 1; without one, the last dimensions of it, as many as the graph's input has. */
static hemi_status define_sample(hemi_onnx_graph *g, const char *name, size_t rank, const int64_t *dims,
                                 hemi_error *err) {
    hemi_onnx_value value = {.features = 1, .rank = rank > 0 ? rank : g->shape_rank};
    const size_t skip = g->shape_rank - value.rank; /* 0 or 1: by hemi_onnx_import */
    for (size_t i = 0; i < value.rank; i++) {
        const uint32_t side = i == 0 && g->batched ? 1 : g->shape[skip + i];
        if (rank > 0 && dims[i] != -1 && dims[i] != side && !(i == 0 && g->batched))
            return hemi_fail(err, HEMI_ERR_SHAPE,
                             "dimension %zu of the graph's input is %lld, the calibration data has %u", i,
                             (long long)dims[i], side);
        if (side > HEMI_STENCIL_SIDE_MAX / value.features)
            return hemi_fail(err, HEMI_ERR_TOO_LARGE, "a sample of the calibration data has more than 2^26 numbers");
        value.dims[i] = side;
        value.features *= side;
    }
    g->inputs = value.features;
    return hemi_onnx_define(g, name, value, err);
}

static hemi_status run_node(hemi_onnx_graph *g, const Hemi__Onnx__NodeProto *node, hemi_error *err) {
    const hemi_onnx_operator run = g->reader->find(g, node);
    if (run == NULL) return g->reader->unsupported(node, err);
    if (node->n_output == 0 || node->output[0][0] == '\0')
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s has no output", hemi_onnx_label_of(node).s);
    hemi_onnx_value out = {0};
    HEMI_TRY(run(g, node, &out, err));
    return hemi_onnx_define(g, node->output[0], out, err);
}

hemi_onnx_operator hemi_onnx_find_operator(const hemi_onnx_entry *list, const char *op_type) {
    for (; list->name != NULL; list++)
        if (strcmp(op_type, list->name) == 0) return list->run;
    return NULL;
}

bool hemi_onnx_is_standard(const Hemi__Onnx__NodeProto *node) {
    return node->domain[0] == '\0' || strcmp(node->domain, "ai.onnx") == 0;
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
    g->value_capacity = p->n_initializer + 1;
    for (size_t i = 0; i < p->n_node; i++) /* a node without outputs is refused later */
        g->value_capacity += p->node[i]->n_output < HEMI_ONNX_TENSORS_MAX ? p->node[i]->n_output : HEMI_ONNX_TENSORS_MAX;
    if (g->value_capacity > 4 * HEMI_ONNX_TENSORS_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the graph has more than %d values", 4 * HEMI_ONNX_TENSORS_MAX);
    g->values = hemi_alloc(g->value_capacity, sizeof *g->values);
    if (g->values == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a graph");
    const Hemi__Onnx__ValueInfoProto *input = NULL;
    int64_t dims[HEMI_ONNX_RANK_MAX];
    size_t rank = 0;
    HEMI_TRY(define_initialisers(g, err));
    HEMI_TRY(find_input(g, &input, err));
    HEMI_TRY(read_shape(input, &rank, dims, err));
    if (rank > 0) g->input_rank = rank; /* 0: the graph does not say; then read_graph does */
    HEMI_TRY(g->samples ? define_sample(g, input->name, rank, dims, err)
                        : define_rows(g, input->name, rank, dims, err));
    if (g->reader->begin != NULL) HEMI_TRY(g->reader->begin(g, &g->values[g->value_count - 1], err));
    for (size_t i = 0; i < p->n_node; i++) {
        HEMI_TRY(run_node(g, p->node[i], err));
        if (g->progress != NULL) g->progress(g->progress_context, "import", i + 1, p->n_node);
    }
    *result = find_value(g, p->output[0]->name);
    if (*result == NULL)
        return hemi_fail(err, HEMI_ERR_FORMAT, "nothing gives the graph's output '%s'",
                         hemi_onnx_printable(p->output[0]->name).s);
    if ((*result)->is_constant)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "the graph multiplies its input by no weights: there is nothing to run on a server");
    return HEMI_OK;
}

/* ---- one reading after the other */

typedef struct reading {
    bool samples, batched;
} reading;

static hemi_status read_as(const Hemi__Onnx__ModelProto *model, hemi_onnx_graph *g, reading how,
                           hemi_error *err) {
    const hemi_onnx_value *result = NULL;
    g->proto = model->graph;
    g->samples = how.samples;
    g->batched = how.batched;
    g->inputs = g->shape[g->shape_rank - 1];
    g->values = NULL;
    g->value_count = 0;
    hemi_status status = check_opset(model, err);
    if (status == HEMI_OK) status = run_graph(g, &result, err);
    if (status == HEMI_OK) status = g->reader->take(g, result, err);
    if (status != HEMI_OK) g->reader->drop(g);
    for (size_t i = 0; i < g->block_count; i++) hemi_free(g->blocks[i]);
    g->block_count = g->block_bytes = 0;
    hemi_free(g->values);
    hemi_team_free(g->team);
    g->team = NULL;
    return status;
}

/* By samples: with a batch, or without. */
static hemi_status read_samples(const Hemi__Onnx__ModelProto *model, hemi_onnx_graph *g, size_t rank,
                                hemi_error *err) {
    hemi_error second = {.status = HEMI_OK};
    hemi_status status = HEMI_ERR_UNSUPPORTED;
    const bool batch = rank == g->shape_rank && rank >= 2, lone = rank <= g->shape_rank && rank + 1 >= g->shape_rank;
    if (batch) status = read_as(model, g, (reading){true, true}, err);
    if (lone && status != HEMI_OK) {
        const hemi_status unbatched = read_as(model, g, (reading){true, false}, &second);
        if (unbatched == HEMI_OK || !batch) {
            status = unbatched;
            if (err != NULL) *err = second;
        }
    }
    return status;
}

static hemi_status read_graph(const Hemi__Onnx__ModelProto *model, hemi_onnx_graph *g,
                              hemi_error *err) {
    if (model->graph == NULL) return hemi_fail(err, HEMI_ERR_FORMAT, "this is not an ONNX model: it has no graph");
    const hemi_status rows = read_as(model, g, (reading){false, false}, err);
    if (rows != HEMI_ERR_UNSUPPORTED || !g->wants_samples) return rows;
    const size_t rank = g->input_rank == 0 ? g->shape_rank : g->input_rank;
    g->input_rank = rank;
    if (rank <= g->shape_rank) return read_samples(model, g, rank, err);
    /* the data may be one sample, without the dimension that counts them */
    uint32_t sample[HEMI_ONNX_RANK_MAX] = {1};
    hemi_error other = {.status = HEMI_OK};
    if (rank != g->shape_rank + 1) return rows;
    memcpy(sample + 1, g->shape, g->shape_rank * sizeof *sample); /* rank is at most HEMI_ONNX_RANK_MAX */
    g->shape = sample;
    g->shape_rank = rank;
    const hemi_status status = read_samples(model, g, rank, &other);
    if (status != HEMI_OK && status != HEMI_ERR_UNSUPPORTED) return rows; /* it is not */
    if (err != NULL && status != HEMI_OK) *err = other;
    return status;
}

hemi_status hemi_onnx_open(hemi_protobuf *file, const void *bytes, size_t count, hemi_error *err) {
    if (count == 0) return hemi_fail(err, HEMI_ERR_FORMAT, "the ONNX file is empty");
    if (count > HEMI_ONNX_BYTES_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the ONNX file has %zu bytes, more than %zu", count,
                         HEMI_ONNX_BYTES_MAX);
    const hemi_status status = hemi_protobuf_read(file, bytes, count, &hemi__onnx__model_proto__descriptor,
                                                  MEMORY_PER_BYTE * count + MEMORY_ALLOWANCE, err);
    return status == HEMI_OK ? HEMI_OK : hemi_fail_in(err, status, "ONNX");
}

hemi_status hemi_onnx_read(const hemi_onnx_reader *reader, void *target, const void *bytes, size_t count,
                           const uint32_t *shape, size_t rank, hemi_progress_fn progress, void *progress_context,
                           hemi_error *err) {
    if (rank == 0 || rank > HEMI_ONNX_RANK_MAX || shape[rank - 1] == 0 || shape[rank - 1] > HEMI_ONNX_FEATURES_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u features: 1 to %d are supported", rank > 0 ? shape[rank - 1] : 0,
                         HEMI_ONNX_FEATURES_MAX);
    hemi_protobuf file = {0};
    HEMI_TRY(hemi_onnx_open(&file, bytes, count, err));
    hemi_status status = HEMI_OK;
    hemi_onnx_graph *g = hemi_alloc(1, sizeof *g);
    if (g == NULL) {
        status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a graph");
    } else {
        g->reader = reader;
        g->target = target;
        g->shape = shape;
        g->shape_rank = rank;
        g->progress = progress;
        g->progress_context = progress_context;
        status = read_graph((const Hemi__Onnx__ModelProto *)file.message, g, err);
    }
    hemi_free(g);
    hemi_protobuf_free(&file);
    return status == HEMI_OK ? HEMI_OK : hemi_fail_in(err, status, "ONNX");
}
