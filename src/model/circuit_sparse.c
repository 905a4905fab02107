/* Sparse maps of a circuit in the making. Which entries there are follows from which entries the operands have, never from their weights. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/circuit_tensor.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_sparse *sparse;

hemi_status hemi_circuit_bytes(hemi_onnx_graph *g, void **out, size_t count, size_t size, hemi_error *err) {
    float *block = NULL;
    const size_t numbers = (size + sizeof *block - 1) / sizeof *block;
    *out = NULL;
    HEMI_TRY(hemi_onnx_block(g, &block, count > 0 ? count : 1, numbers, err)); /* aligned as hemi_alloc is */
    *out = block;
    return HEMI_OK;
}

static hemi_status too_large(const node_proto *node, hemi_error *err) {
    return hemi_fail(
        err, HEMI_ERR_TOO_LARGE,
        "%s and the linear operators before it, multiplied out, have more than 2^27 weights: make what comes "
        "before it and the rest two remote modules",
        hemi_onnx_label_of(node).s);
}

hemi_status hemi_sparse_new(hemi_onnx_graph *g, const node_proto *node, hemi_sparse *m, size_t rows, size_t columns,
                            uint64_t *start, hemi_error *err) {
    void *block = NULL;
    const uint64_t count = start[rows];
    if (rows > HEMI_CIRCUIT_NUMBERS_MAX || columns > HEMI_CIRCUIT_NUMBERS_MAX || count > HEMI_CIRCUIT_WEIGHTS_MAX)
        return too_large(node, err);
    *m = (hemi_sparse){.rows = (uint32_t)rows, .columns = (uint32_t)columns};
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof *m->weight, err));
    m->weight = block;
    if (count == (uint64_t)rows * columns) return HEMI_OK;
    m->start = start;
    HEMI_TRY(hemi_circuit_bytes(g, &block, count, sizeof *m->column, err));
    m->column = block;
    return HEMI_OK;
}

/* ---- one after the other */

struct compose_job {
    sparse second, first;
    hemi_sparse *out;  /* of the second pass */
    uint64_t *counts;  /* of the first */
    uint32_t *marks;   /* first->columns for each worker: the row that a column was last seen in, plus 1 */
    uint32_t *columns; /* the same: those seen */
    double *sums;      /* the same */
};

static int by_number(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The columns of a row, in the order they are met; `sums` may be NULL. */
static size_t gather_row(const struct compose_job *job, size_t row, size_t worker, double *sums) {
    const size_t width = job->first->columns;
    uint32_t *marks = job->marks + worker * width, *columns = job->columns + worker * width;
    size_t count = 0;
    for (uint64_t e = hemi_sparse_from(job->second, row); e < hemi_sparse_end(job->second, row); e++) {
        const uint32_t middle = hemi_sparse_column(job->second, row, e);
        const double w = (double)job->second->weight[e];
        for (uint64_t i = hemi_sparse_from(job->first, middle); i < hemi_sparse_end(job->first, middle); i++) {
            const uint32_t column = hemi_sparse_column(job->first, middle, i);
            if (marks[column] != row + 1) {
                marks[column] = (uint32_t)row + 1;
                columns[count++] = column;
                if (sums != NULL) sums[column] = 0;
            }
            if (sums != NULL) sums[column] += w * (double)job->first->weight[i];
        }
    }
    return count;
}

static void count_row(void *context, size_t row, size_t worker) {
    const struct compose_job *job = context;
    job->counts[row] = gather_row(job, row, worker, NULL);
}

static void fill_row(void *context, size_t row, size_t worker) {
    const struct compose_job *job = context;
    const size_t width = job->first->columns;
    uint32_t *columns = job->columns + worker * width;
    double *sums = job->sums + worker * width;
    const size_t count = gather_row(job, row, worker, sums);
    const uint64_t from = hemi_sparse_from(job->out, row);
    if (job->out->column == NULL) {
        for (size_t i = 0; i < count; i++) job->out->weight[from + i] = (float)sums[i];
        return;
    }
    qsort(columns, count, sizeof *columns, by_number);
    for (size_t i = 0; i < count; i++) {
        job->out->column[from + i] = columns[i];
        job->out->weight[from + i] = (float)sums[columns[i]];
    }
}

/* A dense map after a dense one: rows of numbers. */
static void dense_row(void *context, size_t row, size_t worker) {
    const struct compose_job *job = context;
    const size_t width = job->first->columns, inner = job->second->columns;
    double *sums = job->sums + worker * width;
    memset(sums, 0, width * sizeof *sums);
    for (size_t k = 0; k < inner; k++) {
        const double w = (double)job->second->weight[row * inner + k];
        const float *from = job->first->weight + k * width;
        for (size_t j = 0; j < width; j++) sums[j] += w * (double)from[j];
    }
    for (size_t j = 0; j < width; j++) job->out->weight[row * width + j] = (float)sums[j];
}

static hemi_status compose(hemi_onnx_graph *g, const node_proto *node, struct compose_job *job, hemi_sparse *out,
                           hemi_error *err) {
    const size_t rows = job->second->rows;
    void *block = NULL;
    HEMI_TRY(hemi_circuit_bytes(g, &block, rows + 1, sizeof(uint64_t), err));
    uint64_t *start = block;
    const bool dense = job->second->column == NULL && job->first->column == NULL;
    job->counts = start + 1;
    job->out = out;
    if (dense)
        for (size_t i = 0; i < rows; i++) start[i + 1] = job->first->columns;
    else
        hemi_team_run(g->team, rows, count_row, job);
    for (size_t i = 0; i < rows; i++) start[i + 1] += start[i];
    HEMI_TRY(hemi_sparse_new(g, node, out, rows, job->first->columns, start, err));
    memset(job->marks, 0, (size_t)hemi_team_size(g->team) * job->first->columns * sizeof *job->marks);
    hemi_team_run(g->team, rows, dense ? dense_row : fill_row, job);
    return HEMI_OK;
}

hemi_status hemi_sparse_compose(hemi_onnx_graph *g, const node_proto *node, hemi_sparse *out, sparse second,
                                sparse first, hemi_error *err) {
    if (hemi_sparse_is_identity(second) || hemi_sparse_is_identity(first)) {
        *out = hemi_sparse_is_identity(second) ? *first : *second;
        return HEMI_OK;
    }
    double work = 0;
    for (size_t i = 0; i < second->rows; i++)
        for (uint64_t e = hemi_sparse_from(second, i); e < hemi_sparse_end(second, i); e++) {
            const uint32_t middle = hemi_sparse_column(second, i, e);
            work += (double)(hemi_sparse_end(first, middle) - hemi_sparse_from(first, middle));
        }
    if (work > HEMI_ONNX_WORK_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s is too much to be multiplied out: export fewer layers together",
                         hemi_onnx_label_of(node).s);
    if (g->team == NULL) g->team = hemi_team_new(0);
    const size_t scratch = (size_t)hemi_team_size(g->team) * first->columns;
    struct compose_job job = {.second = second, .first = first};
    job.marks = hemi_alloc(scratch, sizeof *job.marks);
    job.columns = hemi_alloc(scratch, sizeof *job.columns);
    job.sums = hemi_alloc(scratch, sizeof *job.sums);
    const hemi_status status = job.marks == NULL || job.columns == NULL || job.sums == NULL
                                   ? hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a row of weights")
                                   : compose(g, node, &job, out, err);
    hemi_free(job.marks);
    hemi_free(job.columns);
    hemi_free(job.sums);
    return status;
}

/* ---- one beside the other */

/* The entries of a row of a + sign b, in order; out NULL: only how many. */
static uint64_t sum_row(const hemi_sparse *out, sparse a, sparse b, float sign, size_t row) {
    uint64_t i = hemi_sparse_from(a, row), j = hemi_sparse_from(b, row), count = 0;
    const uint64_t a_end = hemi_sparse_end(a, row), b_end = hemi_sparse_end(b, row);
    const uint64_t from = out != NULL ? hemi_sparse_from(out, row) : 0;
    for (; i < a_end || j < b_end; count++) {
        const uint32_t left = i < a_end ? hemi_sparse_column(a, row, i) : UINT32_MAX,
                       right = j < b_end ? hemi_sparse_column(b, row, j) : UINT32_MAX;
        float w = 0;
        if (left <= right) w += hemi_sparse_weight(a, i++);
        if (right <= left) w += sign * hemi_sparse_weight(b, j++);
        if (out == NULL) continue;
        out->weight[from + count] = w;
        if (out->column != NULL) out->column[from + count] = left < right ? left : right;
    }
    return count;
}

hemi_status hemi_sparse_sum(hemi_onnx_graph *g, const node_proto *node, hemi_sparse *out, sparse a, sparse b,
                            float sign, hemi_error *err) {
    void *block = NULL;
    hemi_sparse sum; /* out may be a or b */
    HEMI_TRY(hemi_circuit_bytes(g, &block, (size_t)a->rows + 1, sizeof(uint64_t), err));
    uint64_t *start = block;
    for (size_t i = 0; i < a->rows; i++) start[i + 1] = start[i] + sum_row(NULL, a, b, sign, i);
    HEMI_TRY(hemi_sparse_new(g, node, &sum, a->rows, a->columns, start, err));
    for (size_t i = 0; i < a->rows; i++) (void)sum_row(&sum, a, b, sign, i);
    *out = sum;
    return HEMI_OK;
}

hemi_status hemi_sparse_scale(hemi_onnx_graph *g, const node_proto *node, hemi_sparse *out, sparse in,
                              const double *factor, hemi_error *err) {
    void *block = NULL;
    hemi_sparse scaled = *in; /* shares where its entries are */
    if (hemi_sparse_is_identity(in)) {
        HEMI_TRY(hemi_circuit_bytes(g, &block, (size_t)in->rows + 1, sizeof(uint64_t), err));
        uint64_t *start = block;
        for (size_t i = 0; i <= in->rows; i++) start[i] = i;
        HEMI_TRY(hemi_sparse_new(g, node, &scaled, in->rows, in->columns, start, err));
        for (uint32_t i = 0; scaled.column != NULL && i < in->rows; i++) scaled.column[i] = i;
    } else {
        HEMI_TRY(hemi_circuit_bytes(g, &block, hemi_sparse_from(in, in->rows), sizeof *scaled.weight, err));
        scaled.weight = block;
    }
    for (size_t i = 0; i < in->rows; i++)
        for (uint64_t e = hemi_sparse_from(in, i); e < hemi_sparse_end(in, i); e++)
            scaled.weight[e] = (float)((double)hemi_sparse_weight(in, e) * factor[i]);
    *out = scaled;
    return HEMI_OK;
}
