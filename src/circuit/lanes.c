#include "circuit/lanes.h"

#include "base/error.h"
#include "base/memory.h"
#include "circuit/calibrate.h"

#define LANES HEMI_LANES
#define ROWS  16 /* of a map in one step of a loop: their weights stay in the cache from group to group */
#define CHUNK 256 /* numbers of a value in one step of a loop */

static size_t blocks_of(const hemi_circuit_value *v) {
    return v->kind == HEMI_CIRCUIT_PRODUCT ? 3 : v->kind == HEMI_CIRCUIT_FUNCTION ? 2 : 1;
}

size_t hemi_lanes_numbers(const hemi_circuit *circuit) {
    size_t total = 0;
    for (size_t i = 0; i < circuit->values; i++) total += blocks_of(&circuit->value[i]) * circuit->value[i].size;
    return total;
}

hemi_status hemi_lanes_new(hemi_lanes *batch, const hemi_circuit *circuit, size_t samples, hemi_team *team, hemi_error *err) {
    const size_t values = circuit->values, most = (samples + LANES - 1) / LANES, total = hemi_lanes_numbers(circuit);
    *batch = (hemi_lanes){.circuit = circuit, .team = team, .most = most};
    batch->value = hemi_alloc(3 * values, sizeof *batch->value);
    batch->with = hemi_alloc(values, sizeof *batch->with);
    batch->stale = hemi_alloc(values, sizeof *batch->stale);
    batch->block = hemi_alloc_large(total * most, LANES * sizeof *batch->block);
    if (batch->value == NULL || batch->with == NULL || batch->stale == NULL || batch->block == NULL) {
        hemi_lanes_clear(batch);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to calibrate with %zu samples of %zu numbers", samples, total);
    }
    batch->a = batch->value + values;
    batch->b = batch->a + values;
    double *next = batch->block;
    for (size_t i = 0; i < values; i++) {
        const size_t numbers = most * circuit->value[i].size * LANES, blocks = blocks_of(&circuit->value[i]);
        batch->value[i] = next;
        batch->a[i] = blocks > 1 ? next + numbers : NULL;
        batch->b[i] = blocks > 2 ? next + 2 * numbers : NULL;
        next += blocks * numbers;
    }
    return HEMI_OK;
}

void hemi_lanes_clear(hemi_lanes *batch) {
    hemi_free(batch->value);
    hemi_free(batch->with);
    hemi_free(batch->stale);
    hemi_free(batch->block);
    *batch = (hemi_lanes){0};
}

void hemi_lanes_load(hemi_lanes *batch, const float *x, size_t first, size_t span, size_t count) {
    const size_t size = batch->circuit->value[0].size;
    batch->samples = count;
    batch->groups = (count + LANES - 1) / LANES;
    for (size_t s = 0; s < batch->groups * LANES; s++) {
        const size_t sample = s < count ? s : count - 1;
        const float *from = x + (first + sample * span / count) * size;
        double *to = batch->value[0] + s / LANES * size * LANES + s % LANES;
        for (size_t i = 0; i < size; i++) to[i * LANES] = hemi_circuit_input_value(batch->circuit, (double)from[i]);
    }
    for (size_t i = 0; i < batch->circuit->values; i++) batch->stale[i] = true;
}

void hemi_lanes_touch(hemi_lanes *batch, size_t value) { batch->stale[value] = true; }

/* ---- affine maps */
typedef struct affine_job {
    const hemi_lanes *batch;
    const hemi_circuit_affine *a;
    uint32_t size;
    double *out;
} affine_job;

static inline void add_lanes(double sum[LANES], double weight, const double *x) {
    for (size_t k = 0; k < LANES; k++) sum[k] += weight * x[k];
}

/* sum += row i of m times x. The sum is a local array: it stays in registers. */
static void add_row(double *sum, const hemi_sparse *m, size_t i, const double *x) {
    double local[LANES];
    for (size_t k = 0; k < LANES; k++) local[k] = sum[k];
    if (m->column == NULL) {
        const float *row = m->weight + i * m->columns;
        for (size_t j = 0; j < m->columns; j++) add_lanes(local, (double)row[j], x + j * LANES);
    } else {
        for (uint64_t e = m->start[i]; e < m->start[i + 1]; e++)
            add_lanes(local, (double)m->weight[e], x + (size_t)m->column[e] * LANES);
    }
    for (size_t k = 0; k < LANES; k++) sum[k] = local[k];
}

static void affine_step(void *context, size_t index, size_t worker) {
    (void)worker;
    const affine_job *job = context;
    const size_t begin = index * ROWS, end = begin + ROWS < job->size ? begin + ROWS : job->size;
    for (size_t g = 0; g < job->batch->groups; g++) {
        double *out = job->out + (g * job->size + begin) * LANES;
        for (size_t i = begin; i < end; i++)
            for (size_t k = 0; k < LANES; k++)
                out[(i - begin) * LANES + k] = job->a->bias != NULL ? job->a->bias[i] : 0;
        for (size_t t = 0; t < job->a->terms; t++) {
            const hemi_circuit_term *term = &job->a->term[t];
            const double *x = job->batch->value[term->source] + g * term->map.columns * LANES;
            for (size_t i = begin; i < end; i++) add_row(out + (i - begin) * LANES, &term->map, i, x);
        }
    }
}

static void affine_run(const hemi_lanes *batch, double *out, const hemi_circuit_affine *a, uint32_t size) {
    affine_job job = {batch, a, size, out};
    hemi_team_run(batch->team, (size + ROWS - 1) / ROWS, affine_step, &job);
}

/* ---- functions and products */
typedef struct point_job {
    size_t count; /* numbers times groups */
    double *out;
    const double *a, *b; /* b: of a product */
    const hemi_function *function;
    const hemi_circuit_polynomial *polynomial; /* NULL: the function */
} point_job;

/* hemi_chebyshev_value, LANES at once. */
static void polynomial_lanes(double *out, const double *x, const hemi_circuit_polynomial *p) {
    double u[LANES], next[LANES] = {0}, last[LANES] = {0};
    for (size_t k = 0; k < LANES; k++) u[k] = (x[k] - p->middle) / p->radius;
    for (uint32_t i = p->degree; i > 0; i--)
        for (size_t k = 0; k < LANES; k++) {
            const double b = p->coefficient[i] + 2 * u[k] * next[k] - last[k];
            last[k] = next[k];
            next[k] = b;
        }
    for (size_t k = 0; k < LANES; k++) out[k] = p->coefficient[0] + u[k] * next[k] - last[k];
}

static void point_step(void *context, size_t index, size_t worker) {
    (void)worker;
    const point_job *job = context;
    const size_t end = (index + 1) * CHUNK < job->count ? (index + 1) * CHUNK : job->count;
    for (size_t i = index * CHUNK; i < end; i++) {
        double *out = job->out + i * LANES;
        const double *a = job->a + i * LANES;
        if (job->polynomial != NULL) {
            polynomial_lanes(out, a, job->polynomial);
            continue;
        }
        for (size_t k = 0; k < LANES; k++)
            out[k] = job->b != NULL ? a[k] * job->b[i * LANES + k] : hemi_function_value(job->function, a[k]);
    }
}

static bool follows_from_stale(const bool *stale, const hemi_circuit_affine *a) {
    for (size_t t = 0; t < a->terms; t++)
        if (stale[a->term[t].source]) return true;
    return false;
}

void hemi_lanes_run(hemi_lanes *batch, const hemi_circuit_polynomial *const *polynomial) {
    const size_t values = batch->circuit->values;
    for (size_t i = 1; i < values; i++) {
        const hemi_circuit_value *v = &batch->circuit->value[i];
        const bool first = batch->stale[0]; /* just loaded: everything is new, constants too */
        const bool a = first || follows_from_stale(batch->stale, &v->a), b = first || follows_from_stale(batch->stale, &v->b);
        const hemi_circuit_polynomial *with = polynomial != NULL ? polynomial[i] : NULL;
        batch->stale[i] |= a || b || (v->kind == HEMI_CIRCUIT_FUNCTION && with != batch->with[i]);
        if (!batch->stale[i]) continue;
        batch->with[i] = with;
        if (a) affine_run(batch, batch->a[i] != NULL ? batch->a[i] : batch->value[i], &v->a, v->size);
        if (b && batch->b[i] != NULL) affine_run(batch, batch->b[i], &v->b, v->size);
        if (batch->a[i] == NULL) continue;
        const size_t count = batch->groups * v->size;
        point_job job = {count, batch->value[i], batch->a[i], batch->b[i], &v->function, with};
        hemi_team_run(batch->team, (count + CHUNK - 1) / CHUNK, point_step, &job);
    }
    for (size_t i = 0; i < values; i++) batch->stale[i] = false;
}
