#include "cli/plain.h"

#include <math.h>
#include <stdio.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "base/cpu.h"
#include "base/memory.h"
#include "cli/bench_common.h"
#include "cli/blas.h"
#include "cli/report.h"

#define SAMPLES         51
#define WARM_UPS        3
#define BUDGET_MS       1500
#define LAYER_NUMBERS   ((size_t)1 << 27) /* weights of layers in memory: 512 MB of them */
#define OUTPUTS_AT_ONCE 4

/* ---- our own loop: four dot products at a time */

typedef void (*dots_fn)(float y[OUTPUTS_AT_ONCE], const float *w, const float *x, size_t n);

static void dots_portable(float y[OUTPUTS_AT_ONCE], const float *w, const float *x, size_t n) {
    for (size_t o = 0; o < OUTPUTS_AT_ONCE; o++) {
        float s[8] = {0};
        for (size_t j = 0; j < n; j++) s[j % 8] += w[o * n + j] * x[j];
        y[o] = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    }
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void dots_avx2(float y[OUTPUTS_AT_ONCE], const float *w, const float *x,
                                                          size_t n) {
    __m256 s[OUTPUTS_AT_ONCE][2] = {{_mm256_setzero_ps()}};
    size_t j = 0;
    for (; j + 16 <= n; j += 16)
        for (size_t o = 0; o < OUTPUTS_AT_ONCE; o++) {
            s[o][0] = _mm256_fmadd_ps(_mm256_loadu_ps(w + o * n + j), _mm256_loadu_ps(x + j), s[o][0]);
            s[o][1] = _mm256_fmadd_ps(_mm256_loadu_ps(w + o * n + j + 8), _mm256_loadu_ps(x + j + 8), s[o][1]);
        }
    for (size_t o = 0; o < OUTPUTS_AT_ONCE; o++) {
        float part[8], sum = 0;
        _mm256_storeu_ps(part, _mm256_add_ps(s[o][0], s[o][1]));
        for (size_t i = 0; i < 8; i++) sum += part[i];
        for (size_t i = j; i < n; i++) sum += w[o * n + i] * x[i];
        y[o] = sum;
    }
}

__attribute__((target("avx512f"))) static void dots_avx512(float y[OUTPUTS_AT_ONCE], const float *w, const float *x,
                                                           size_t n) {
    __m512 s[OUTPUTS_AT_ONCE][2] = {{_mm512_setzero_ps()}};
    size_t j = 0;
    for (; j + 32 <= n; j += 32)
        for (size_t o = 0; o < OUTPUTS_AT_ONCE; o++) {
            s[o][0] = _mm512_fmadd_ps(_mm512_loadu_ps(w + o * n + j), _mm512_loadu_ps(x + j), s[o][0]);
            s[o][1] = _mm512_fmadd_ps(_mm512_loadu_ps(w + o * n + j + 16), _mm512_loadu_ps(x + j + 16), s[o][1]);
        }
    for (size_t o = 0; o < OUTPUTS_AT_ONCE; o++) {
        float sum = _mm512_reduce_add_ps(_mm512_add_ps(s[o][0], s[o][1]));
        for (size_t i = j; i < n; i++) sum += w[o * n + i] * x[i];
        y[o] = sum;
    }
}
#endif

static dots_fn best_dots(void) {
#ifdef __x86_64__
    if (hemi_cpu_has_avx512_ifma()) return dots_avx512;
    if (hemi_cpu_has_avx2_fma()) return dots_avx2;
#endif
    return dots_portable;
}

static void loop_product(float *y, size_t stride, const float *w, const float *x, size_t inputs, size_t outputs,
                         size_t rows) {
    const dots_fn dots = best_dots();
    size_t o = 0;
    for (; o + OUTPUTS_AT_ONCE <= outputs; o += OUTPUTS_AT_ONCE)
        for (size_t r = 0; r < rows; r++) dots(y + r * stride + o, w + o * inputs, x + r * inputs, inputs);
    for (; o < outputs; o++)
        for (size_t r = 0; r < rows; r++) {
            float sum = 0;
            for (size_t j = 0; j < inputs; j++) sum += w[o * inputs + j] * x[r * inputs + j];
            y[r * stride + o] = sum;
        }
}

/* ---- timing */

typedef void (*product_fn)(float *y, size_t stride, const float *w, const float *x, size_t inputs, size_t outputs,
                           size_t rows);

typedef struct work {
    void (*run)(struct work *, product_fn product);
    float *w, *x, *y, *columns;
    size_t inputs, outputs, rows;
    const hemi_conv *conv;
    uint32_t sides[2];
    const cli_plain_layer *layer;
    size_t layers;
} work;

static double median_ms(work *k, product_fn product) {
    double samples[SAMPLES];
    size_t count = 0;
    const double begin = hemi_now_ms();
    for (int i = -WARM_UPS; i < SAMPLES && (count < 3 || hemi_now_ms() - begin < BUDGET_MS); i++) {
        const double start = cli_thread_cpu_ms();
        k->run(k, product);
        if (i >= 0) samples[count++] = cli_thread_cpu_ms() - start;
    }
    return cli_median(samples, count);
}

static void fill(float *a, size_t count) {
    for (size_t i = 0; i < count; i++) a[i] = (float)((i * 2654435761u) % 255) - 127.0f;
}

/* Fills and measures, and releases what it was given. */
static bool compare(cli_plain *plain, work *k, size_t weights, size_t numbers_in, size_t numbers_out, size_t columns) {
    *plain = (cli_plain){0};
    k->w = hemi_alloc_large(weights, sizeof *k->w);
    k->x = hemi_alloc(numbers_in, sizeof *k->x);
    k->y = hemi_alloc(numbers_out, sizeof *k->y);
    k->columns = hemi_alloc(columns, sizeof *k->columns);
    const bool enough = k->w && k->x && k->y && k->columns;
    if (enough) {
        fill(k->w, weights);
        fill(k->x, numbers_in);
        plain->loop_ms = plain->ms = median_ms(k, loop_product);
        if (cli_blas_possible()) {
            plain->blas_ms = median_ms(k, cli_blas_product);
            plain->ms = fmin(plain->ms, plain->blas_ms);
        }
    }
    hemi_free(k->w);
    hemi_free(k->x);
    hemi_free(k->y);
    hemi_free(k->columns);
    return enough;
}

/* ---- rows */

static void run_linear(work *k, product_fn product) {
    product(k->y, k->outputs, k->w, k->x, k->inputs, k->outputs, k->rows);
}

bool cli_plain_linear(cli_plain *plain, size_t inputs, size_t outputs, size_t rows) {
    work k = {.run = run_linear, .inputs = inputs, .outputs = outputs, .rows = rows};
    return compare(plain, &k, outputs * inputs, rows * inputs, rows * outputs, 0);
}

static void run_layers(work *k, product_fn product) {
    size_t at = 0;
    for (size_t i = 0; i < k->layers; i++)
        for (size_t j = 0; j < k->layer[i].count; j++) {
            const size_t size = k->layer[i].inputs * k->layer[i].outputs;
            if (at + size > k->rows) at = 0; /* rows: weights that there are */
            product(k->y, k->layer[i].outputs, k->w + at, k->x, k->layer[i].inputs, k->layer[i].outputs, 1);
            at += size;
        }
}

bool cli_plain_layers(cli_plain *plain, const cli_plain_layer *layer, size_t layers) {
    size_t all = 0, largest = 1, in = 1, out = 1;
    for (size_t i = 0; i < layers; i++) {
        const size_t size = layer[i].inputs * layer[i].outputs;
        all += size * layer[i].count;
        largest = size > largest ? size : largest;
        in = layer[i].inputs > in ? layer[i].inputs : in;
        out = layer[i].outputs > out ? layer[i].outputs : out;
    }
    size_t held = all < LAYER_NUMBERS ? all : LAYER_NUMBERS;
    held = held < largest ? largest : held;
    work k = {.run = run_layers, .rows = held, .layer = layer, .layers = layers};
    return compare(plain, &k, held, in, out, 0);
}

/* ---- convolutions */

static uint32_t one_if_zero(uint32_t v) { return v == 0 ? 1 : v; }

/* One row of columns for each position of the result: channels c0 .. c0+count-1, kernel rows, kernel columns. */
static void im2col(const work *k, size_t c0, size_t count) {
    const hemi_conv *c = k->conv;
    const size_t sy = one_if_zero(c->stride[0]), sx = one_if_zero(c->stride[1]), dy = one_if_zero(c->dilation[0]),
                 dx = one_if_zero(c->dilation[1]);
    float *to = k->columns;
    for (size_t i = 0; i < k->sides[0]; i++)
        for (size_t j = 0; j < k->sides[1]; j++)
            for (size_t ch = c0; ch < c0 + count; ch++)
                for (size_t ky = 0; ky < c->kernel[0]; ky++) {
                    const size_t y = i * sy + ky * dy - c->padding[0]; /* negative: huge */
                    const bool inside = y < c->height;
                    const float *row = inside ? k->x + (ch * c->height + y) * c->width : NULL;
                    for (size_t kx = 0; kx < c->kernel[1]; kx++) {
                        const size_t x = j * sx + kx * dx - c->padding[1];
                        *to++ = inside && x < c->width ? row[x] : 0;
                    }
                }
}

static void run_conv(work *k, product_fn product) {
    const size_t groups = one_if_zero(k->conv->groups), in = k->conv->in_channels / groups,
                 out = k->conv->out_channels / groups;
    for (size_t g = 0; g < groups; g++) {
        im2col(k, g * in, in);
        product(k->y + g * out, k->conv->out_channels, k->w + g * out * k->inputs, k->columns, k->inputs, out, k->rows);
    }
}

bool cli_plain_conv(cli_plain *plain, const hemi_conv *c) {
    work k = {.run = run_conv, .conv = c};
    if (!hemi_conv_sides(c, k.sides)) return false;
    k.rows = (size_t)k.sides[0] * k.sides[1];
    k.inputs = (size_t)c->in_channels / one_if_zero(c->groups) * c->kernel[0] * c->kernel[1];
    return compare(plain, &k, c->out_channels * k.inputs, (size_t)c->in_channels * c->height * c->width,
                   c->out_channels * k.rows, k.rows * k.inputs);
}

/* ---- reporting */

const char *cli_plain_by(char text[64], const cli_plain *plain) {
    if (plain->blas_ms > 0 && plain->blas_ms <= plain->loop_ms)
        snprintf(text, 64, "OpenBLAS%s%.40s%s", *cli_blas_core() ? " (" : "", cli_blas_core(),
                 *cli_blas_core() ? ")" : "");
    else
        snprintf(text, 64, "a loop");
    return text;
}

void cli_plain_json(json_t *j, const cli_plain *plain, bool has) {
    char text[64];
    json_object_set_new(j, "plain_ms", has ? json_real(plain->ms) : json_null());
    json_object_set_new(j, "plain_by", has ? json_string(cli_plain_by(text, plain)) : json_null());
    json_object_set_new(j, "plain_openblas_ms", has && plain->blas_ms > 0 ? json_real(plain->blas_ms) : json_null());
    json_object_set_new(j, "plain_loop_ms", has ? json_real(plain->loop_ms) : json_null());
}
