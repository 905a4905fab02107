/* The quantised product in the clear: what the encrypted one computes, in integers. */
#include <math.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "model/module.h"
#include "random/sample.h"

#define OUTPUTS_PER_STEP 64
#define ROWS_PER_BLOCK   16         /* rows that one pass over the weights serves */
#define WORK_FOR_THREADS (1u << 24) /* multiplications below which threads do not pay */
#define NARROW_TERMS_MIN 16         /* products that must fit an int32 for the narrow loop to pay */

typedef struct run {
    const hemi_module *module;
    const int16_t *x; /* rows x inputs, of this block */
    const double *factor;
    size_t rows;
    size_t terms; /* products whose sum surely fits an int32 */
    float *y;
} run;

static int64_t dot(const int16_t *a, const int16_t *b, size_t n, size_t terms) {
    int64_t sum = 0;
    if (terms < NARROW_TERMS_MIN) {
        for (size_t j = 0; j < n; j++) sum += (int32_t)a[j] * b[j];
        return sum;
    }
    for (size_t from = 0; from < n; from += terms) {
        const size_t end = n - from < terms ? n : from + terms;
        int32_t part = 0;
        for (size_t j = from; j < end; j++) part += (int32_t)a[j] * b[j];
        sum += part;
    }
    return sum;
}

static void run_outputs(void *context, size_t index, size_t worker) {
    const run *r = context;
    const hemi_module *m = r->module;
    const size_t inputs = m->info.inputs, outputs = m->info.outputs, from = index * OUTPUTS_PER_STEP;
    const size_t end = outputs - from < OUTPUTS_PER_STEP ? outputs : from + OUTPUTS_PER_STEP;
    (void)worker;
    for (size_t o = from; o < end; o++) {
        const double bias = m->bias != NULL ? m->bias[o] * m->info.output_scale : 0;
        for (size_t i = 0; i < r->rows; i++) {
            const int64_t y = dot(m->weights + o * inputs, r->x + i * inputs, inputs, r->terms);
            r->y[i * outputs + o] = (float)((double)y * m->info.output_scale / r->factor[i] + bias);
        }
    }
}

/* Two independent Gaussians of variance 1. */
static void gaussian_pair(hemi_stream *s, double out[2]) {
    uint8_t bytes[16];
    hemi_stream_bytes(s, bytes, sizeof bytes);
    uint64_t u = 0, v = 0;
    for (int i = 0; i < 8; i++) {
        u = u << 8 | bytes[i];
        v = v << 8 | bytes[8 + i];
    }
    const double radius = sqrt(-2 * log(((double)(u >> 11) + 0.5) * 0x1p-53)),
                 angle = 6.283185307179586 * ((double)(v >> 11) * 0x1p-53);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

static void fill_gaussian(hemi_stream *s, double *out, size_t count, double deviation) {
    for (size_t i = 0; i < count; i += 2) {
        double pair[2];
        gaussian_pair(s, pair);
        out[i] = pair[0] * deviation;
        if (i + 1 < count) out[i + 1] = pair[1] * deviation;
    }
}

/* A client divides a row's own error by its factor; with a bias it first takes off, and then adds, its copy of the bias, which
 * has an error of its own. */
static void add_noise(const run *r, hemi_stream *s, const double *bias_error, double *error) {
    const hemi_module_info *info = &r->module->info;
    for (size_t i = 0; i < r->rows; i++) {
        fill_gaussian(s, error, info->outputs, info->predicted_error);
        for (size_t o = 0; o < info->outputs; o++) {
            const double b0 = info->has_bias ? bias_error[o] : 0;
            float *y = &r->y[i * info->outputs + o];
            *y = (float)((double)*y + (error[o] - b0) / r->factor[i] + b0);
        }
    }
}

/* Buffers of one call. */
typedef struct buffers {
    int32_t *row;
    int16_t *x;
    double *factor, *bias_error, *error;
} buffers;

static hemi_status run_blocks(const hemi_module *m, const float *x, size_t rows, float *y, bool noise, const buffers *b,
                              hemi_team *team, hemi_stream *stream, hemi_error *err) {
    const size_t inputs = m->info.inputs, outputs = m->info.outputs;
    const int64_t largest = (int64_t)hemi_module_input_max(m) * (m->weight_max > 0 ? m->weight_max : 1);
    if (noise) fill_gaussian(stream, b->bias_error, outputs, m->info.predicted_error);
    for (size_t from = 0; from < rows; from += ROWS_PER_BLOCK) {
        run r = {.module = m,
                 .x = b->x,
                 .factor = b->factor,
                 .y = y + from * outputs,
                 .terms = (size_t)(INT32_MAX / largest)};
        r.rows = rows - from < ROWS_PER_BLOCK ? rows - from : ROWS_PER_BLOCK;
        for (size_t i = 0; i < r.rows; i++) {
            if (!hemi_module_quantise_row(m, x + (from + i) * inputs, b->row, &b->factor[i]))
                return hemi_fail(err, HEMI_ERR_ARGUMENT,
                                 "row %zu of the input holds a value that is infinite or not a number", from + i);
            for (size_t j = 0; j < inputs; j++) b->x[i * inputs + j] = (int16_t)b->row[j];
        }
        hemi_team_run(team, (outputs + OUTPUTS_PER_STEP - 1) / OUTPUTS_PER_STEP, run_outputs, &r);
        if (noise) add_noise(&r, stream, b->bias_error, b->error);
    }
    return HEMI_OK;
}

hemi_status hemi_module_run_clear(const hemi_module *m, const float *x, size_t rows, float *y, bool noise,
                                  hemi_error *err) {
    if (m->weights == NULL)
        return hemi_fail(err, HEMI_ERR_STATE, "this module was opened without its weights: they are in server.zip");
    if (noise && hemi_random_init() != 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "the system gives no randomness");
    const size_t inputs = m->info.inputs, outputs = m->info.outputs;
    const buffers b = {.row = hemi_alloc(inputs, sizeof *b.row),
                       .x = hemi_alloc(ROWS_PER_BLOCK * inputs, sizeof *b.x),
                       .factor = hemi_alloc(ROWS_PER_BLOCK, sizeof *b.factor),
                       .bias_error = hemi_alloc(outputs, sizeof *b.bias_error),
                       .error = hemi_alloc(outputs, sizeof *b.error)};
    hemi_status status = HEMI_OK;
    if (b.row == NULL || b.x == NULL || b.factor == NULL || b.bias_error == NULL || b.error == NULL) {
        status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory to run a module");
    } else {
        hemi_team *team = (double)rows * (double)inputs * (double)outputs >= WORK_FOR_THREADS ? hemi_team_new(0) : NULL;
        hemi_stream stream = {.block = 0};
        if (noise) hemi_stream_init_fresh(&stream);
        status = run_blocks(m, x, rows, y, noise, &b, team, &stream, err);
        hemi_stream_wipe(&stream);
        hemi_team_free(team);
    }
    hemi_free(b.row);
    hemi_free(b.x);
    hemi_free(b.factor);
    hemi_free(b.bias_error);
    hemi_free(b.error);
    return status;
}
