#include "model/onnx_sample.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"

typedef Hemi__Onnx__NodeProto node_proto;
typedef const hemi_onnx_value *operand;

hemi_onnx_sides hemi_onnx_sides_of(operand v) {
    const size_t skip = v->rank > 1 && v->dims[0] == 1 ? 1 : 0;
    hemi_onnx_sides sides = {1, 1, 1};
    for (size_t i = skip; i < v->rank; i++) {
        uint32_t *side = i == skip ? &sides.channels : i + 1 == v->rank ? &sides.width : &sides.height;
        *side *= (uint32_t)v->dims[i];
    }
    return sides;
}

static hemi_status too_large(const node_proto *node, size_t outputs, size_t inputs, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                     "%s does not make one convolution with what comes before it, and as a matrix of the whole sample "
                     "they would have "
                     "%zu x %zu weights, more than 2^26: make what comes before it and the rest two remote modules",
                     hemi_onnx_label_of(node).s, outputs, inputs);
}

hemi_status hemi_onnx_stencil_block(hemi_onnx_graph *g, const node_proto *node, hemi_stencil *s, float **w,
                                    hemi_error *err) {
    if (!hemi_stencil_fits(s))
        return hemi_onnx_refuse(node, "takes more than 2^26 weights: choose a smaller layer", err);
    HEMI_TRY(hemi_onnx_block(g, w, hemi_stencil_rows(s), hemi_stencil_row(s), err));
    s->w = *w;
    return HEMI_OK;
}

/* ---- matrices */

struct matrix_job {
    float *out;
    size_t inputs;
    const hemi_stencil *op;
    operand in;
    double *scratch; /* inputs for each worker */
};

/* sum += factor times the weights of number `index` of a value */
static void add_number(double *sum, operand in, size_t inputs, size_t index, double factor) {
    if (in->map == HEMI_ONNX_IDENTITY) {
        sum[index] += factor;
    } else if (in->map == HEMI_ONNX_DENSE) {
        const float *row = in->w + index * inputs;
        for (size_t j = 0; j < inputs; j++) sum[j] += factor * (double)row[j];
    } else {
        const hemi_stencil *s = &in->stencil;
        const size_t area = (size_t)s->y.in * s->x.in;
        hemi_stencil_reader r = hemi_stencil_read(s, index);
        const float *w = NULL;
        size_t place = 0;
        while (hemi_stencil_next(&r, &w, &place))
            for (size_t c = 0; c < s->in_channels; c++) sum[c * area + place] += factor * (double)w[c];
    }
}

static void matrix_row(void *context, size_t row, size_t worker) {
    const struct matrix_job *job = context;
    double *sum = job->scratch + worker * job->inputs;
    const size_t area = (size_t)job->op->y.in * job->op->x.in;
    hemi_stencil_reader r = hemi_stencil_read(job->op, row);
    const float *w = NULL;
    size_t place = 0;
    memset(sum, 0, job->inputs * sizeof *sum);
    while (hemi_stencil_next(&r, &w, &place))
        for (size_t c = 0; c < job->op->in_channels; c++)
            if (w[c] != 0) add_number(sum, job->in, job->inputs, c * area + place, (double)w[c]);
    for (size_t j = 0; j < job->inputs; j++) job->out[row * job->inputs + j] = (float)sum[j];
}

/* The matrix of op after in. */
static hemi_status multiply(hemi_onnx_graph *g, const node_proto *node, operand in, const hemi_stencil *op,
                            hemi_onnx_value *out, hemi_error *err) {
    const size_t outputs = hemi_stencil_outputs(op), inputs = g->inputs;
    const double each = in->map == HEMI_ONNX_IDENTITY  ? 1
                        : in->map == HEMI_ONNX_STENCIL ? (double)hemi_stencil_row(&in->stencil)
                                                       : (double)inputs;
    if (inputs > HEMI_ONNX_FEATURES_MAX || outputs > HEMI_ONNX_FEATURES_MAX ||
        outputs > HEMI_ONNX_DENSE_MAX / inputs)
        return too_large(node, outputs, inputs, err);
    if ((double)outputs * (double)hemi_stencil_row(op) * each > HEMI_ONNX_WORK_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s is too much to be multiplied out: export fewer layers together",
                         hemi_onnx_label_of(node).s);
    float *w = NULL;
    HEMI_TRY(hemi_onnx_block(g, &w, outputs, inputs, err));
    if (g->team == NULL) g->team = hemi_team_new(0);
    struct matrix_job job = {.out = w, .inputs = inputs, .op = op, .in = in};
    job.scratch = hemi_alloc((size_t)hemi_team_size(g->team) * inputs, sizeof *job.scratch);
    if (job.scratch == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu inputs", inputs);
    hemi_team_run(g->team, outputs, matrix_row, &job);
    hemi_free(job.scratch);
    out->map = HEMI_ONNX_DENSE;
    out->w = w;
    return HEMI_OK;
}

/* The same value as a matrix; `out` keeps its bias and shape. */
static hemi_status to_matrix(hemi_onnx_graph *g, const node_proto *node, operand in, hemi_onnx_value *out,
                             hemi_error *err) {
    static const float one = 1;
    hemi_stencil nothing = hemi_stencil_pointwise(1, 1, 1, in->features);
    nothing.w = &one;
    const hemi_onnx_value from = *in; /* in may be out */
    *out = from;
    return from.map == HEMI_ONNX_DENSE ? HEMI_OK : multiply(g, node, &from, &nothing, out, err);
}

/* ---- one operator after the others */

struct compose_job {
    float *w;
    const hemi_stencil *out, *first, *second;
    double *scratch;
};

static void compose_row(void *context, size_t row, size_t worker) {
    const struct compose_job *job = context;
    const size_t count = hemi_stencil_row(job->out);
    hemi_stencil_compose_row(job->w + row * count, job->scratch + worker * count, row, job->out, job->first,
                             job->second);
}

static hemi_status compose(hemi_onnx_graph *g, const node_proto *node, operand in, const hemi_stencil *op,
                           hemi_stencil *out, hemi_error *err) {
    float *w = NULL;
    const double work =
        (double)hemi_stencil_rows(out) * (double)hemi_stencil_row(op) * (double)hemi_stencil_row(&in->stencil);
    if (work > HEMI_ONNX_WORK_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s is too much to be multiplied out: export fewer layers together",
                         hemi_onnx_label_of(node).s);
    HEMI_TRY(hemi_onnx_stencil_block(g, node, out, &w, err));
    if (g->team == NULL) g->team = hemi_team_new(0);
    struct compose_job job = {.w = w, .out = out, .first = &in->stencil, .second = op};
    job.scratch = hemi_alloc((size_t)hemi_team_size(g->team) * hemi_stencil_row(out), sizeof *job.scratch);
    if (job.scratch == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a row of weights");
    hemi_team_run(g->team, hemi_stencil_rows(out), compose_row, &job);
    hemi_free(job.scratch);
    return HEMI_OK;
}

struct bias_job {
    const hemi_stencil *op;
    const float *in;
    float *out;
};

static void bias_number(void *context, size_t index, size_t worker) {
    const struct bias_job *job = context;
    const size_t area = (size_t)job->op->y.in * job->op->x.in;
    hemi_stencil_reader r = hemi_stencil_read(job->op, index);
    const float *w = NULL;
    size_t place = 0;
    double sum = 0;
    (void)worker;
    while (hemi_stencil_next(&r, &w, &place))
        for (size_t c = 0; c < job->op->in_channels; c++) sum += (double)w[c] * (double)job->in[c * area + place];
    job->out[index] = (float)sum;
}

/* Where the samples agree, or are only seen differently at one position: channels x 1 x 1. */
static bool same_middle(const hemi_stencil *a, const hemi_stencil *op) {
    return a->out_channels == op->in_channels && a->y.out == op->y.in && a->x.out == op->x.in;
}

hemi_status hemi_onnx_sample_apply(hemi_onnx_graph *g, const node_proto *node, operand in, const hemi_stencil *op,
                                   hemi_onnx_value *out, hemi_error *err) {
    const size_t outputs = hemi_stencil_outputs(op);
    const hemi_onnx_value from = *in; /* in may be out */
    if (hemi_stencil_inputs(op) != from.features)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%s takes %zu numbers, its input has %u", hemi_onnx_label_of(node).s,
                         hemi_stencil_inputs(op), from.features);
    out->features = (uint32_t)outputs; /* at most 2^26 */
    out->b = NULL;
    if (from.b != NULL) {
        float *b = NULL;
        if ((double)outputs * (double)hemi_stencil_row(op) > HEMI_ONNX_WORK_MAX)
            return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s is too large", hemi_onnx_label_of(node).s);
        HEMI_TRY(hemi_onnx_block(g, &b, outputs, 1, err));
        if (g->team == NULL) g->team = hemi_team_new(0);
        struct bias_job job = {.op = op, .in = from.b, .out = b};
        hemi_team_run(g->team, outputs, bias_number, &job);
        out->b = b;
    }
    bool outside = false;
    if (from.map == HEMI_ONNX_IDENTITY) {
        out->stencil = *op;
    } else if (from.map == HEMI_ONNX_DENSE || !same_middle(&from.stencil, op) ||
               !hemi_stencil_compose_shape(&out->stencil, &outside, &from.stencil, op)) {
        return multiply(g, node, &from, op, out, err);
    } else {
        HEMI_TRY(compose(g, node, &from, op, &out->stencil, err));
    }
    out->map = HEMI_ONNX_STENCIL;
    return HEMI_OK;
}

/* ---- number by number */

hemi_status hemi_onnx_sample_shift(hemi_onnx_graph *g, operand in, const float *c, float sign, hemi_onnx_value *out,
                                   hemi_error *err) {
    float *b = NULL;
    const float *before = in->b;
    HEMI_TRY(hemi_onnx_block(g, &b, in->features, 1, err));
    for (size_t i = 0; i < in->features; i++) b[i] = (before != NULL ? before[i] : 0) + sign * c[i];
    *out = *in;
    out->b = b;
    return HEMI_OK;
}

/* The factor of each row of a stencil; false if it differs between positions. */
static bool row_factors(float *row, const hemi_stencil *s, const float *factor) {
    const size_t oy = s->y.out_step, ox = s->x.out_step;
    for (size_t o = 0; o < s->out_channels; o++)
        for (size_t y = 0; y < s->y.out; y++)
            for (size_t x = 0; x < s->x.out; x++, factor++) {
                float *f = &row[(o * oy + y % oy) * ox + x % ox];
                if (y < oy && x < ox)
                    *f = *factor;
                else if (*f != *factor)
                    return false;
            }
    return true;
}

static hemi_status scale_stencil(hemi_onnx_graph *g, const node_proto *node, const hemi_stencil *s, const float *factor,
                                 bool *done, hemi_stencil *out, hemi_error *err) {
    float *row = NULL, *w = NULL;
    const size_t rows = hemi_stencil_rows(s), count = hemi_stencil_row(s);
    HEMI_TRY(hemi_onnx_block(g, &row, rows, 1, err));
    *done = row_factors(row, s, factor);
    if (!*done) return HEMI_OK;
    *out = *s;
    HEMI_TRY(hemi_onnx_stencil_block(g, node, out, &w, err));
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < count; j++) w[i * count + j] = s->w[i * count + j] * row[i];
    return HEMI_OK;
}

/* A value that is not a matrix as a stencil: the identity becomes one on the sides given. False if that has too many weights. */
static hemi_status to_stencil(hemi_onnx_graph *g, const node_proto *node, operand in, hemi_onnx_sides sides, bool *fits,
                              hemi_stencil *out, hemi_error *err) {
    *fits = in->map == HEMI_ONNX_STENCIL;
    *out = in->stencil;
    if (in->map != HEMI_ONNX_IDENTITY) return HEMI_OK;
    *out = hemi_stencil_pointwise(sides.channels, sides.channels, sides.height, sides.width);
    *fits = hemi_stencil_fits(out);
    if (!*fits) return HEMI_OK;
    float *w = NULL;
    HEMI_TRY(hemi_onnx_stencil_block(g, node, out, &w, err));
    for (size_t c = 0; c < sides.channels; c++) w[c * sides.channels + c] = 1;
    return HEMI_OK;
}

hemi_status hemi_onnx_sample_scale(hemi_onnx_graph *g, const node_proto *node, operand in, const float *factor,
                                   hemi_onnx_value *out, hemi_error *err) {
    const hemi_onnx_value from = *in;
    hemi_stencil s;
    bool done = false;
    float *b = NULL, *w = NULL;
    if (from.b != NULL) {
        HEMI_TRY(hemi_onnx_block(g, &b, from.features, 1, err));
        for (size_t i = 0; i < from.features; i++) b[i] = from.b[i] * factor[i];
    }
    *out = from;
    out->b = b;
    HEMI_TRY(to_stencil(g, node, &from, hemi_onnx_sides_of(&from), &done, &s, err));
    if (done) HEMI_TRY(scale_stencil(g, node, &s, factor, &done, &out->stencil, err));
    if (done) {
        out->map = HEMI_ONNX_STENCIL;
        return HEMI_OK;
    }
    HEMI_TRY(to_matrix(g, node, &from, out, err));
    HEMI_TRY(hemi_onnx_block(g, &w, from.features, g->inputs, err));
    for (size_t i = 0; i < from.features; i++)
        for (size_t j = 0; j < g->inputs; j++) w[i * g->inputs + j] = out->w[i * g->inputs + j] * factor[i];
    out->w = w;
    out->b = b;
    return HEMI_OK;
}

static hemi_onnx_sides sides_out(const hemi_stencil *s) {
    return (hemi_onnx_sides){s->out_channels, s->y.out, s->x.out};
}

hemi_status hemi_onnx_sample_add(hemi_onnx_graph *g, const node_proto *node, operand a, operand b, float sign,
                                 hemi_onnx_value *out, hemi_error *err) {
    /* the identity is seen as the other one sees the sample */
    const hemi_onnx_sides sides = a->map == HEMI_ONNX_STENCIL   ? sides_out(&a->stencil)
                                  : b->map == HEMI_ONNX_STENCIL ? sides_out(&b->stencil)
                                                                : hemi_onnx_sides_of(a);
    hemi_stencil left, right, both;
    bool left_fits = false, right_fits = false;
    HEMI_TRY(to_stencil(g, node, a, sides, &left_fits, &left, err));
    HEMI_TRY(to_stencil(g, node, b, sides, &right_fits, &right, err));
    hemi_onnx_value sum = *a;
    if (left_fits && right_fits && hemi_stencil_unite_shape(&both, &left, &right)) {
        float *w = NULL;
        HEMI_TRY(hemi_onnx_stencil_block(g, node, &both, &w, err));
        hemi_stencil_accumulate(w, &both, &left, 1);
        hemi_stencil_accumulate(w, &both, &right, sign);
        sum.map = HEMI_ONNX_STENCIL;
        sum.stencil = both;
    } else {
        hemi_onnx_value second;
        float *w = NULL;
        HEMI_TRY(to_matrix(g, node, a, &sum, err));
        HEMI_TRY(to_matrix(g, node, b, &second, err));
        HEMI_TRY(hemi_onnx_block(g, &w, a->features, g->inputs, err));
        for (size_t i = 0; i < (size_t)a->features * g->inputs; i++) w[i] = sum.w[i] + sign * second.w[i];
        sum.w = w;
    }
    *out = sum;
    return b->b != NULL ? hemi_onnx_sample_shift(g, &sum, b->b, sign, out, err) : HEMI_OK;
}

hemi_status hemi_onnx_sample_permute(hemi_onnx_graph *g, const node_proto *node, operand in, const size_t *order,
                                     hemi_onnx_value *out, hemi_error *err) {
    hemi_onnx_value matrix;
    float *w = NULL, *b = NULL;
    HEMI_TRY(to_matrix(g, node, in, &matrix, err));
    HEMI_TRY(hemi_onnx_block(g, &w, in->features, g->inputs, err));
    for (size_t i = 0; i < in->features; i++)
        memcpy(w + i * g->inputs, matrix.w + order[i] * g->inputs, g->inputs * sizeof *w);
    if (in->b != NULL) {
        HEMI_TRY(hemi_onnx_block(g, &b, in->features, 1, err));
        for (size_t i = 0; i < in->features; i++) b[i] = in->b[order[i]];
    }
    out->map = HEMI_ONNX_DENSE;
    out->w = w;
    out->b = b;
    return HEMI_OK;
}
