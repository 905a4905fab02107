/* The quantised product in the clear: what the encrypted one computes, in integers. */
#include <math.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "model/affine.h"
#include "model/circuit_module.h"
#include "model/module.h"
#include "random/sample.h"

#define OUTPUTS_PER_STEP 64
#define ROWS_PER_BLOCK   16         /* rows that one pass over the weights serves */
#define WORK_FOR_THREADS (1u << 24) /* multiplications below which threads do not pay */
#define NARROW_TERMS_MIN 16         /* products that must fit an int32 for the narrow loop to pay */

/* Places of a result: rows, or the positions of a grid in one sample. What each reads lies in a row of x. */
typedef struct run {
    const hemi_module *module;
    const int16_t *x;     /* rows x width, of this block */
    size_t width;         /* weights of an output: taps x inputs */
    const double *factor; /* of each row */
    size_t first, rows;   /* places: on a grid counted in a sample */
    size_t terms;         /* products whose sum surely fits an int32 */
    float *y;             /* of the row `first`; of the sample */
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

/* Where output o of place i of this block goes; SIZE_MAX outside a sample. */
static size_t place_of(const run *r, size_t o, size_t i) {
    const hemi_module *m = r->module;
    if (!m->is_grid) return i * m->layout.outputs + o;
    const uint32_t columns = hemi_grid_columns(&m->grid);
    const size_t at = r->first + i;
    return hemi_grid_output_place(&m->grid, (uint32_t)o, (int64_t)(at / columns), (int64_t)(at % columns));
}

static void run_outputs(void *context, size_t index, size_t worker) {
    const run *r = context;
    const hemi_module *m = r->module;
    const size_t outputs = m->layout.outputs, from = index * OUTPUTS_PER_STEP;
    const size_t end = outputs - from < OUTPUTS_PER_STEP ? outputs : from + OUTPUTS_PER_STEP;
    (void)worker;
    for (size_t o = from; o < end; o++) {
        const double bias = m->bias != NULL ? m->bias[o] * m->info.output_scale : 0;
        for (size_t i = 0; i < r->rows; i++) {
            const size_t at = place_of(r, o, i);
            if (at == SIZE_MAX) continue;
            const int64_t y = dot(m->weights + o * r->width, r->x + i * r->width, r->width, r->terms);
            r->y[at] = (float)((double)y * m->info.output_scale / r->factor[i] + bias);
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

void hemi_clear_noise(float *y, size_t count, double deviation) {
    hemi_stream stream;
    hemi_stream_init_fresh(&stream);
    for (size_t i = 0; i < count; i += 2) {
        double pair[2];
        gaussian_pair(&stream, pair);
        for (size_t j = 0; j < 2 && i + j < count; j++) y[i + j] = (float)((double)y[i + j] + pair[j] * deviation);
    }
    hemi_stream_wipe(&stream);
}

/* A client divides a row's own error by its factor; with a bias it first takes off, and then adds, its copy of the bias, which
 * has an error of its own. */
static void add_noise(const run *r, hemi_stream *s, const double *bias_error, double *error) {
    const hemi_module_info *info = &r->module->info;
    for (size_t i = 0; i < r->rows; i++) {
        fill_gaussian(s, error, info->map_outputs, info->predicted_error);
        for (size_t o = 0; o < info->map_outputs; o++) {
            const size_t at = place_of(r, o, i);
            if (at == SIZE_MAX) continue;
            const double b0 = info->has_bias ? bias_error[o] : 0;
            r->y[at] = (float)((double)r->y[at] + (error[o] - b0) / r->factor[i] + b0);
        }
    }
}

/* Buffers of one call. */
typedef struct buffers {
    int32_t *row; /* of a whole row or sample */
    int16_t *x;
    double *factor, *bias_error, *error;
} buffers;

static void run_block(run *r, const buffers *b, bool noise, hemi_team *team, hemi_stream *stream) {
    hemi_team_run(team, (r->module->layout.outputs + OUTPUTS_PER_STEP - 1) / OUTPUTS_PER_STEP, run_outputs, r);
    if (noise) add_noise(r, stream, b->bias_error, b->error);
}

static hemi_status not_finite(size_t row, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_ARGUMENT, "row %zu of the input holds a value that is infinite or not a number",
                     row);
}

static hemi_status run_rows(run *r, const float *x, size_t rows, float *y, bool noise, const buffers *b,
                            hemi_team *team, hemi_stream *stream, hemi_error *err) {
    const hemi_module *m = r->module;
    for (size_t from = 0; from < rows; from += ROWS_PER_BLOCK) {
        r->rows = rows - from < ROWS_PER_BLOCK ? rows - from : ROWS_PER_BLOCK;
        r->y = y + from * m->info.outputs;
        for (size_t i = 0; i < r->rows; i++) {
            if (!hemi_module_quantise_row(m, x + (from + i) * r->width, b->row, &b->factor[i]))
                return not_finite(from + i, err);
            for (size_t j = 0; j < r->width; j++) b->x[i * r->width + j] = (int16_t)b->row[j];
        }
        run_block(r, b, noise, team, stream);
    }
    return HEMI_OK;
}

/* What position (i, j) of a grid reads. */
static void gather(int16_t *out, const hemi_grid *g, uint32_t inputs, const int32_t *sample, int64_t i, int64_t j) {
    for (uint32_t ty = 0; ty < g->taps_y; ty++)
        for (uint32_t tx = 0; tx < g->taps_x; tx++)
            for (uint32_t c = 0; c < inputs; c++) {
                const size_t at = hemi_grid_input_place(g, c, i + ty + g->origin_y, j + tx + g->origin_x);
                *out++ = at != SIZE_MAX ? (int16_t)sample[at] : 0;
            }
}

static hemi_status run_samples(run *r, const float *x, size_t samples, float *y, bool noise, const buffers *b,
                               hemi_team *team, hemi_stream *stream, hemi_error *err) {
    const hemi_module *m = r->module;
    const hemi_grid *g = &m->grid;
    const size_t columns = hemi_grid_columns(g), positions = hemi_grid_rows(g) * columns;
    for (size_t n = 0; n < samples; n++) {
        double factor = 1;
        if (!hemi_module_quantise_row(m, x + n * m->info.inputs, b->row, &factor)) return not_finite(n, err);
        r->y = y + n * m->info.outputs;
        for (size_t i = 0; i < ROWS_PER_BLOCK; i++) b->factor[i] = factor;
        for (r->first = 0; r->first < positions; r->first += ROWS_PER_BLOCK) {
            r->rows = positions - r->first < ROWS_PER_BLOCK ? positions - r->first : ROWS_PER_BLOCK;
            for (size_t i = 0; i < r->rows; i++)
                gather(b->x + i * r->width, g, m->layout.inputs, b->row, (int64_t)((r->first + i) / columns),
                       (int64_t)((r->first + i) % columns));
            run_block(r, b, noise, team, stream);
        }
    }
    return HEMI_OK;
}

static hemi_status run_all(const hemi_module *m, const float *x, size_t rows, float *y, bool noise, const buffers *b,
                           hemi_team *team, hemi_error *err) {
    const int64_t largest = (int64_t)hemi_module_input_max(m) * (m->weight_max > 0 ? m->weight_max : 1);
    run r = {.module = m,
             .x = b->x,
             .factor = b->factor,
             .width = hemi_module_row_weights(m),
             .terms = (size_t)(INT32_MAX / largest)};
    hemi_stream stream = {.block = 0};
    if (noise) {
        hemi_stream_init_fresh(&stream);
        /* the client's copy of the bias is the mean over the places of a unit */
        fill_gaussian(&stream, b->bias_error, m->layout.outputs,
                      m->info.predicted_error / sqrt(hemi_linear_places(&m->layout)));
    }
    const hemi_status status = m->is_grid ? run_samples(&r, x, rows, y, noise, b, team, &stream, err)
                                          : run_rows(&r, x, rows, y, noise, b, team, &stream, err);
    hemi_stream_wipe(&stream);
    return status;
}

hemi_status hemi_module_run_clear(const hemi_module *m, const float *x, size_t rows, float *y, bool noise,
                                  hemi_error *err) {
    if (m->is_circuit) return hemi_circuit_module_run_clear(m, x, rows, y, noise, err);
    if (m->weights == NULL)
        return hemi_fail(err, HEMI_ERR_STATE, "this module was opened without its weights: they are in server.zip");
    if (noise && hemi_random_init() != 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "the system gives no randomness");
    const size_t width = hemi_module_row_weights(m), outputs = m->layout.outputs;
    const buffers b = {.row = hemi_alloc(m->info.inputs, sizeof *b.row),
                       .x = hemi_alloc(ROWS_PER_BLOCK * width, sizeof *b.x),
                       .factor = hemi_alloc(ROWS_PER_BLOCK, sizeof *b.factor),
                       .bias_error = hemi_alloc(outputs, sizeof *b.bias_error),
                       .error = hemi_alloc(outputs, sizeof *b.error)};
    hemi_status status = HEMI_OK;
    if (b.row == NULL || b.x == NULL || b.factor == NULL || b.bias_error == NULL || b.error == NULL) {
        status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory to run a module");
    } else {
        const double work = (double)rows * (double)m->info.outputs * (double)width;
        hemi_team *team = work >= WORK_FOR_THREADS ? hemi_team_new(0) : NULL;
        status = run_all(m, x, rows, y, noise, &b, team, err);
        hemi_team_free(team);
    }
    hemi_free(b.row);
    hemi_free(b.x);
    hemi_free(b.factor);
    hemi_free(b.bias_error);
    hemi_free(b.error);
    return status;
}
