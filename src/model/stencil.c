#include "model/stencil.h"

#include "base/memory.h"

#define CHECKS_MAX                                                                                                     \
    (UINT64_C(1)                                                                                                       \
     << 32) /* outputs, their taps, and the taps of each of those: what a composition may look at on an axis */

hemi_stencil hemi_stencil_pointwise(uint32_t in_channels, uint32_t out_channels, uint32_t height, uint32_t width) {
    return (hemi_stencil){.in_channels = in_channels,
                          .out_channels = out_channels,
                          .y = {.in = height, .out = height, .in_step = 1, .out_step = 1, .size = 1},
                          .x = {.in = width, .out = width, .in_step = 1, .out_step = 1, .size = 1}};
}

size_t hemi_stencil_row(const hemi_stencil *s) { return (size_t)s->y.size * s->x.size * s->in_channels; }
size_t hemi_stencil_rows(const hemi_stencil *s) { return (size_t)s->out_channels * s->y.out_step * s->x.out_step; }
size_t hemi_stencil_weights(const hemi_stencil *s) { return hemi_stencil_row(s) * hemi_stencil_rows(s); }
size_t hemi_stencil_inputs(const hemi_stencil *s) { return (size_t)s->in_channels * s->y.in * s->x.in; }
size_t hemi_stencil_outputs(const hemi_stencil *s) { return (size_t)s->out_channels * s->y.out * s->x.out; }

/* Whether a product of sides, each from 1 to HEMI_STENCIL_SIDE_MAX, is at most HEMI_STENCIL_WEIGHTS_MAX. */
static bool product_fits(const uint32_t *side, size_t count) {
    uint64_t product = 1;
    for (size_t i = 0; i < count; i++) {
        if (side[i] == 0 || side[i] > HEMI_STENCIL_SIDE_MAX) return false;
        product *= side[i]; /* < 2^52 */
        if (product > HEMI_STENCIL_WEIGHTS_MAX) return false;
    }
    return true;
}

bool hemi_stencil_fits(const hemi_stencil *s) {
    const int64_t far = 4 * (int64_t)HEMI_STENCIL_SIDE_MAX;
    return product_fits((const uint32_t[]){s->in_channels, s->y.in, s->x.in}, 3) &&
           product_fits((const uint32_t[]){s->out_channels, s->y.out, s->x.out}, 3) &&
           product_fits(
               (const uint32_t[]){s->in_channels, s->y.size, s->x.size, s->out_channels, s->y.out_step, s->x.out_step},
               6) &&
           product_fits((const uint32_t[]){s->in_channels, s->y.in_step, s->x.in_step}, 3) && s->y.first >= -far &&
           s->y.first <= far && s->x.first >= -far && s->x.first <= far;
}

static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

static uint64_t gcd(uint64_t a, uint64_t b) {
    while (b != 0) {
        const uint64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* ---- which taps of an axis are used: used[q size + k], any weight other than zero */

static void find_used(bool *used_y, bool *used_x, const hemi_stencil *s) {
    const float *w = s->w;
    for (size_t o = 0; o < s->out_channels; o++)
        for (size_t qy = 0; qy < s->y.out_step; qy++)
            for (size_t qx = 0; qx < s->x.out_step; qx++)
                for (size_t ky = 0; ky < s->y.size; ky++)
                    for (size_t kx = 0; kx < s->x.size; kx++, w += s->in_channels) {
                        bool any = false;
                        for (size_t c = 0; c < s->in_channels; c++) any |= w[c] != 0;
                        used_y[qy * s->y.size + ky] |= any;
                        used_x[qx * s->x.size + kx] |= any;
                    }
}

/* Of each of the two axes; NULL without memory. */
typedef struct used {
    bool *y, *x;
} used;

static used used_new(const hemi_stencil *s) {
    used u = {.y = hemi_alloc((size_t)s->y.out_step * s->y.size, sizeof(bool)),
              .x = hemi_alloc((size_t)s->x.out_step * s->x.size, sizeof(bool))};
    if (u.y != NULL && u.x != NULL) find_used(u.y, u.x, s);
    return u;
}

static void used_free(used *u) {
    hemi_free(u->y);
    hemi_free(u->x);
}

/* ---- one after the other */

static bool compose_axis(hemi_stencil_axis *out, const hemi_stencil_axis *a, const hemi_stencil_axis *b) {
    const uint64_t period = a->out_step / gcd(a->out_step, b->in_step) * b->in_step; /* of the middle sample; < 2^52 */
    const uint64_t in_step = a->in_step * (period / a->out_step), out_step = b->out_step * (period / b->in_step);
    const int64_t last = (int64_t)period - (int64_t)b->in_step + b->first + (int64_t)b->size - 1;
    const int64_t from = floor_div(b->first, a->out_step) * (int64_t)a->in_step + a->first;
    const int64_t end = floor_div(last, a->out_step) * (int64_t)a->in_step + a->first + (int64_t)a->size;
    if (a->out != b->in || in_step > HEMI_STENCIL_SIDE_MAX || out_step > HEMI_STENCIL_SIDE_MAX ||
        end - from > (int64_t)HEMI_STENCIL_SIDE_MAX)
        return false;
    *out = (hemi_stencil_axis){.in = a->in,
                               .out = b->out,
                               .in_step = (uint32_t)in_step,
                               .out_step = (uint32_t)out_step,
                               .size = (uint32_t)(end - from),
                               .first = from};
    return true;
}

/* Whether `a` would give something at position m, which is outside its output. */
static bool gives(const hemi_stencil_axis *a, const bool *used_a, int64_t m) {
    const int64_t i = floor_div(m, a->out_step);
    const bool *row = used_a + (m - i * (int64_t)a->out_step) * (int64_t)a->size;
    const int64_t base = i * (int64_t)a->in_step + a->first;
    for (int64_t k = base < 0 ? -base : 0; k < (int64_t)a->size && base + k < (int64_t)a->in; k++)
        if (row[k]) return true;
    return false;
}

static bool exact(const hemi_stencil_axis *a, const bool *used_a, const hemi_stencil_axis *b, const bool *used_b,
                  bool *reads_outside) {
    if ((uint64_t)b->out * b->size > CHECKS_MAX / a->size) return false; /* < 2^52 */
    for (int64_t y = 0; y < (int64_t)b->out; y++) {
        const int64_t i = y / b->out_step, base = i * (int64_t)b->in_step + b->first;
        const bool *row = used_b + (y - i * (int64_t)b->out_step) * (int64_t)b->size;
        for (int64_t k = 0; k < (int64_t)b->size; k++) {
            const int64_t m = base + k;
            if (!row[k] || (m >= 0 && m < (int64_t)a->out)) continue;
            *reads_outside = true;
            if (gives(a, used_a, m)) return false;
        }
    }
    return true;
}

bool hemi_stencil_compose_shape(hemi_stencil *out, bool *reads_outside, const hemi_stencil *first,
                                const hemi_stencil *second) {
    *reads_outside = false;
    *out = (hemi_stencil){.in_channels = first->in_channels, .out_channels = second->out_channels};
    if (first->out_channels != second->in_channels || !compose_axis(&out->y, &first->y, &second->y) ||
        !compose_axis(&out->x, &first->x, &second->x) || !hemi_stencil_fits(out))
        return false;
    used a = used_new(first), b = used_new(second);
    const bool fits = a.y != NULL && a.x != NULL && b.y != NULL && b.x != NULL &&
                      exact(&first->y, a.y, &second->y, b.y, reads_outside) &&
                      exact(&first->x, a.x, &second->x, b.x, reads_outside);
    used_free(&a);
    used_free(&b);
    return fits;
}

/* Where position `tap` of the second, for its output phase `phase`, reads the first: the phase there, and the first tap in `out`. */
static size_t middle(const hemi_stencil_axis *out, const hemi_stencil_axis *a, const hemi_stencil_axis *b, size_t phase,
                     size_t tap, size_t *tap_out) {
    const int64_t m = (int64_t)(phase / b->out_step * b->in_step) + b->first + (int64_t)tap;
    const int64_t i = floor_div(m, a->out_step);
    *tap_out = (size_t)(i * (int64_t)a->in_step + a->first - out->first);
    return (size_t)(m - i * (int64_t)a->out_step);
}

void hemi_stencil_compose_row(float *w, double *scratch, size_t row, const hemi_stencil *out, const hemi_stencil *a,
                              const hemi_stencil *b) {
    const size_t qx = row % out->x.out_step, qy = row / out->x.out_step % out->y.out_step,
                 o = row / out->x.out_step / out->y.out_step, count = hemi_stencil_row(out);
    const size_t width = (size_t)a->x.size * a->in_channels, pitch = (size_t)out->x.size * out->in_channels;
    const float *wb =
        b->w + ((o * b->y.out_step + qy % b->y.out_step) * b->x.out_step + qx % b->x.out_step) * hemi_stencil_row(b);
    for (size_t i = 0; i < count; i++) scratch[i] = 0;
    for (size_t ky = 0; ky < b->y.size; ky++)
        for (size_t kx = 0; kx < b->x.size; kx++) {
            size_t ty = 0, tx = 0;
            const size_t py = middle(&out->y, &a->y, &b->y, qy, ky, &ty),
                         px = middle(&out->x, &a->x, &b->x, qx, kx, &tx);
            for (size_t c = 0; c < b->in_channels; c++) {
                const double factor = (double)*wb++;
                if (factor == 0) continue; /* groups, dilation */
                const float *wa = a->w + ((c * a->y.out_step + py) * a->x.out_step + px) * hemi_stencil_row(a);
                for (size_t jy = 0; jy < a->y.size; jy++) {
                    double *to = scratch + (ty + jy) * pitch + tx * out->in_channels;
                    for (size_t j = 0; j < width; j++) to[j] += factor * (double)wa[jy * width + j];
                }
            }
        }
    for (size_t i = 0; i < count; i++) w[i] = (float)scratch[i];
}

/* ---- one beside the other */

/* first and end of the taps of an axis whose steps are `times` as large. */
static int64_t axis_end(const hemi_stencil_axis *a, uint64_t times) {
    return a->first + (int64_t)((times - 1) * a->in_step) + (int64_t)a->size;
}

static bool unite_axis(hemi_stencil_axis *out, const hemi_stencil_axis *a, const hemi_stencil_axis *b) {
    const uint64_t step = a->in_step / gcd(a->in_step, b->in_step) * b->in_step; /* < 2^52 */
    const uint64_t times_a = step / a->in_step, times_b = step / b->in_step;
    if (a->in != b->in || a->out != b->out || step > HEMI_STENCIL_SIDE_MAX ||
        times_a * a->out_step != times_b * b->out_step || times_a * a->out_step > HEMI_STENCIL_SIDE_MAX)
        return false;
    const int64_t first = a->first < b->first ? a->first : b->first;
    const int64_t end_a = axis_end(a, times_a), end_b = axis_end(b, times_b), end = end_a > end_b ? end_a : end_b;
    if (end - first > (int64_t)HEMI_STENCIL_SIDE_MAX) return false;
    *out = (hemi_stencil_axis){.in = a->in,
                               .out = a->out,
                               .in_step = (uint32_t)step,
                               .out_step = (uint32_t)(times_a * a->out_step),
                               .size = (uint32_t)(end - first),
                               .first = first};
    return true;
}

bool hemi_stencil_unite_shape(hemi_stencil *out, const hemi_stencil *a, const hemi_stencil *b) {
    *out = (hemi_stencil){.in_channels = a->in_channels, .out_channels = a->out_channels};
    return a->in_channels == b->in_channels && a->out_channels == b->out_channels &&
           unite_axis(&out->y, &a->y, &b->y) && unite_axis(&out->x, &a->x, &b->x) && hemi_stencil_fits(out);
}

/* The taps of `s` that lie in `out` begin here, for output phase `phase` of `out`; may be before it, when taps are left out. */
static int64_t shift_of(const hemi_stencil_axis *out, const hemi_stencil_axis *s, size_t phase) {
    return (int64_t)(phase / s->out_step * s->in_step) + s->first - out->first;
}

void hemi_stencil_accumulate(float *w, const hemi_stencil *out, const hemi_stencil *s, float factor) {
    const size_t channels = s->in_channels;
    for (size_t o = 0; o < out->out_channels; o++)
        for (size_t qy = 0; qy < out->y.out_step; qy++)
            for (size_t qx = 0; qx < out->x.out_step; qx++, w += hemi_stencil_row(out)) {
                const float *from =
                    s->w + ((o * s->y.out_step + qy % s->y.out_step) * s->x.out_step + qx % s->x.out_step) *
                               hemi_stencil_row(s);
                const int64_t ty = shift_of(&out->y, &s->y, qy), tx = shift_of(&out->x, &s->x, qx);
                for (int64_t ky = 0; ky < (int64_t)s->y.size; ky++)
                    for (int64_t kx = 0; kx < (int64_t)s->x.size; kx++, from += channels) {
                        const int64_t y = ty + ky, x = tx + kx;
                        if (y < 0 || x < 0 || y >= (int64_t)out->y.size || x >= (int64_t)out->x.size) continue;
                        float *to = w + ((size_t)y * out->x.size + (size_t)x) * channels;
                        for (size_t c = 0; c < channels; c++) to[c] += factor * from[c];
                    }
            }
}

static void trim_axis(hemi_stencil_axis *out, const hemi_stencil_axis *s, const bool *used_s) {
    size_t begin = s->size, end = 0;
    for (size_t q = 0; q < s->out_step; q++)
        for (size_t k = 0; k < s->size; k++)
            if (used_s[q * s->size + k]) {
                begin = k < begin ? k : begin;
                end = k + 1 > end ? k + 1 : end;
            }
    if (begin >= end) begin = 0, end = 1; /* all are zero: one stays */
    out->first = s->first + (int64_t)begin;
    out->size = (uint32_t)(end - begin);
}

void hemi_stencil_trim_shape(hemi_stencil *out, const hemi_stencil *s) {
    *out = *s;
    out->w = NULL;
    used u = used_new(s);
    if (u.y != NULL && u.x != NULL) {
        trim_axis(&out->y, &s->y, u.y);
        trim_axis(&out->x, &s->x, u.x);
    }
    used_free(&u);
}

/* ---- number by number */

/* Taps k with base + k inside the sample. */
static void clip(uint32_t *begin, uint32_t *end, const hemi_stencil_axis *a, int64_t base) {
    const int64_t from = base < 0 ? -base : 0, left = (int64_t)a->in - base;
    *end = left <= 0 ? 0 : left < (int64_t)a->size ? (uint32_t)left : a->size;
    *begin = from < (int64_t)*end ? (uint32_t)from : *end;
}

hemi_stencil_reader hemi_stencil_read(const hemi_stencil *s, size_t index) {
    const size_t x = index % s->x.out, y = index / s->x.out % s->y.out, o = index / s->x.out / s->y.out;
    const size_t row = (o * s->y.out_step + y % s->y.out_step) * s->x.out_step + x % s->x.out_step;
    hemi_stencil_reader r = {.stencil = s, .w = s->w + row * hemi_stencil_row(s)};
    r.top = (int64_t)(y / s->y.out_step * s->y.in_step) + s->y.first;
    r.left = (int64_t)(x / s->x.out_step * s->x.in_step) + s->x.first;
    clip(&r.ky, &r.ky_end, &s->y, r.top);
    clip(&r.kx_begin, &r.kx_end, &s->x, r.left);
    r.kx = r.kx_begin;
    if (r.kx_begin == r.kx_end) r.ky = r.ky_end;
    return r;
}

bool hemi_stencil_next(hemi_stencil_reader *r, const float **w, size_t *place) {
    if (r->ky == r->ky_end) return false;
    const hemi_stencil *s = r->stencil;
    *w = r->w + ((size_t)r->ky * s->x.size + r->kx) * s->in_channels;
    *place = (size_t)(r->top + (int64_t)r->ky) * s->x.in + (size_t)(r->left + (int64_t)r->kx);
    if (++r->kx == r->kx_end) {
        r->kx = r->kx_begin;
        r->ky++;
    }
    return true;
}

/* ---- the grid */

/* The largest step such that all rows read are multiples of it: 2 of a 1 x 1 convolution with a stride of 2. Divides in_step. */
static uint32_t skip_of(const hemi_stencil_axis *a, const bool *used_a) {
    uint64_t skip = a->in_step;
    for (size_t q = 0; q < a->out_step; q++)
        for (size_t k = 0; k < a->size && skip > 1; k++) {
            const int64_t at = a->first + (int64_t)k;
            if (used_a[q * a->size + k]) skip = gcd(skip, (uint64_t)(at < 0 ? -at : at));
        }
    return (uint32_t)skip;
}

static void grid_axis(int32_t *origin, uint32_t *taps, uint32_t *step, uint32_t *skip, const hemi_stencil_axis *a,
                      const bool *used_a) {
    *skip = used_a != NULL ? skip_of(a, used_a) : 1;
    *step = a->in_step / *skip;
    const int64_t from = floor_div(a->first, a->in_step), last = floor_div(a->first + (int64_t)a->size - 1, a->in_step);
    *origin = (int32_t)from; /* |first| <= 2^28 */
    *taps = (uint32_t)(last - from + 1);
}

hemi_status hemi_stencil_grid(hemi_grid *g, const hemi_stencil *s, hemi_error *err) {
    *g = (hemi_grid){.in_channels = s->in_channels,
                     .in_height = s->y.in,
                     .in_width = s->x.in,
                     .out_channels = s->out_channels,
                     .out_height = s->y.out,
                     .out_width = s->x.out,
                     .out_step_y = s->y.out_step,
                     .out_step_x = s->x.out_step};
    used u = used_new(s);
    grid_axis(&g->origin_y, &g->taps_y, &g->in_step_y, &g->in_skip_y, &s->y, u.x != NULL ? u.y : NULL);
    grid_axis(&g->origin_x, &g->taps_x, &g->in_step_x, &g->in_skip_x, &s->x, u.y != NULL ? u.x : NULL);
    used_free(&u);
    return hemi_grid_check(g, err);
}

/* Row `k` of the taps of an axis, counted from the first row that the first tap of the grid reads, skipped ones left out; SIZE_MAX if it is
 * such a one: its weights are zero. */
static size_t grid_row(const hemi_stencil_axis *a, size_t k, int32_t origin, uint32_t skip) {
    const size_t at = (size_t)(a->first - (int64_t)origin * (int64_t)a->in_step) + k;
    return at % skip == 0 ? at / skip : SIZE_MAX;
}

void hemi_stencil_grid_weights(float *w, const hemi_grid *g, const hemi_stencil *s) {
    const size_t rows = hemi_stencil_rows(s), steps = (size_t)g->in_step_y * g->in_step_x,
                 inputs = steps * s->in_channels;
    const float *from = s->w;
    for (size_t row = 0; row < rows; row++, w += (size_t)g->taps_y * g->taps_x * inputs)
        for (size_t ky = 0; ky < s->y.size; ky++)
            for (size_t kx = 0; kx < s->x.size; kx++, from += s->in_channels) {
                const size_t y = grid_row(&s->y, ky, g->origin_y, g->in_skip_y),
                             x = grid_row(&s->x, kx, g->origin_x, g->in_skip_x);
                if (y == SIZE_MAX || x == SIZE_MAX) continue;
                float *to = w + (y / g->in_step_y * g->taps_x + x / g->in_step_x) * inputs +
                            y % g->in_step_y * g->in_step_x + x % g->in_step_x;
                for (size_t c = 0; c < s->in_channels; c++) to[c * steps] = from[c];
            }
}
