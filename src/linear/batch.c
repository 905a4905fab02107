#include "linear/batch.h"

#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "rlwe/keyswitch.h"
#include "rlwe/noise.h"

#define CORRECTION_BITS 32 /* of z0 that are kept: q / 2^32 is what b is rounded to anyway */
#define OUTPUTS_BLOCK   48 /* outputs whose second components are computed together: rows of 12 and of 6 in the kernels */
#define ROWS_BLOCK      64 /* rows multiplied together: two columns of vectors of the widest kernel */
#define ROWS_FEW        HEMI_INT_FEW
#define ROWS_TURN       8   /* rows transposed together: a cache line */
#define OUTPUTS_STEP    128 /* outputs of few rows that a thread takes at a time */

struct hemi_batch {
    const hemi_context *ctx;
    hemi_int_matrix w;
    uint64_t *bias; /* round(bias delta) modulo q; NULL: none */
};

struct hemi_batch_state {
    uint32_t rows, outputs;
    uint32_t *correction; /* rows x outputs */
};

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

hemi_status hemi_batch_new(hemi_batch **out, const hemi_context *ctx, uint32_t inputs, uint32_t outputs,
                           const int16_t *w, const double *bias, uint64_t delta, hemi_error *err) {
    *out = NULL;
    if (ctx->q->m.bits > HEMI_INT_MODULUS_BITS_MAX || ctx->q->m.bits <= CORRECTION_BITS)
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s does not serve batches of rows", ctx->params->name);
    hemi_batch *batch = hemi_alloc(1, sizeof *batch);
    if (!batch) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a matrix");
    batch->ctx = ctx;
    hemi_status s = hemi_int_matrix_init(&batch->w, outputs, inputs, w, err);
    if (s == HEMI_OK && bias) {
        batch->bias = hemi_alloc(outputs, sizeof *batch->bias);
        if (!batch->bias) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u biases", outputs);
        for (uint32_t o = 0; batch->bias && o < outputs; o++)
            batch->bias[o] = hemi_mod_from_signed(llrint(bias[o] * (double)delta), &ctx->q->m);
    }
    if (s != HEMI_OK) {
        hemi_batch_free(batch);
        return s;
    }
    *out = batch;
    return HEMI_OK;
}

void hemi_batch_weights(int16_t *w, const hemi_batch *batch) {
    const hemi_int_matrix *m = &batch->w;
    for (size_t i = 0; i < m->rows; i++)
        for (size_t j = 0; j < m->columns; j++) {
            const size_t at = i * m->stride + j;
            w[i * m->columns + j] = m->width == 1 ? ((const int8_t *)m->entries)[at] : ((const int16_t *)m->entries)[at];
        }
}

void hemi_batch_free(hemi_batch *batch) {
    if (!batch) return;
    hemi_int_matrix_clear(&batch->w);
    hemi_free(batch->bias);
    hemi_free(batch);
}

size_t hemi_batch_bytes(const hemi_batch *batch) {
    return hemi_int_matrix_bytes(&batch->w) + (batch->bias ? batch->w.rows * sizeof *batch->bias : 0);
}

/* ---- preparation */

typedef struct preparation {
    const hemi_batch *batch;
    const hemi_evaluation_keys *keys;
    hemi_batch_state *state;
    const uint8_t *seed;           /* of the a_j */
    uint8_t zero[HEMI_SEED_BYTES]; /* of the encryptions of zero */
    uint8_t *packed_a;             /* NULL: not asked for */
    unsigned a_bits;
    void *right;     /* the a_j, the right side of the product */
    uint64_t *words; /* scratch: words_each per worker */
    size_t words_each;
} preparation;

/* HEMI_INT_GROUP of the a_j. */
static void expand_step(void *context, size_t index, size_t worker) {
    const preparation *p = context;
    const hemi_context *ctx = p->batch->ctx;
    const hemi_int_matrix *w = &p->batch->w;
    const size_t n = ctx->n;
    const uint32_t first = (uint32_t)index * HEMI_INT_GROUP;
    const uint32_t count = (uint32_t)smaller(w->columns - first, HEMI_INT_GROUP);
    uint64_t *a = p->words + worker * p->words_each;
    for (uint32_t i = 0; i < count; i++)
        hemi_sample_uniform_vartime(a + i * n, n, ctx->q->m.p, p->seed, HEMI_DOMAIN_BATCH, first + i);
    ctx->k->int_right(p->right, a, n, first, count, n, w, &ctx->q->m);
}

/* The encryption of zero of output o. a holds sum_j W[o][j] a_j in NTT form, unless it is not asked for; it is used up. z0: n words, of
 * which `rows` corrections come out, 32 bits each. The two streams of an output do not depend on `rows` or on what is asked for. */
static void finish_output(const preparation *p, uint32_t o, uint64_t *a, uint64_t *z0, uint64_t *z1) {
    const hemi_context *ctx = p->batch->ctx;
    const hemi_modulus *m = &ctx->q->m;
    const uint32_t n = ctx->n, rows = p->state->rows;
    hemi_stream secret;
    hemi_stream_init(&secret, p->zero, HEMI_DOMAIN_ZERO, 2 * o);
    hemi_zero_product(p->keys, z0, z1, &secret);
    if (p->packed_a) {
        ctx->k->add(a, a, z1, n, m);
        ctx->k->intt(a, a, ctx->q);
        hemi_add_error(a, n, m, &secret);
        ctx->k->switch_down(a, a, n, p->a_bits, m);
        hemi_pack(p->packed_a + o * hemi_packed_bytes(n, p->a_bits), a, n, p->a_bits);
    }
    hemi_stream_init(&secret, p->zero, HEMI_DOMAIN_ZERO, 2 * o + 1);
    ctx->k->intt(z0, z0, ctx->q);
    hemi_add_error(z0, rows, m, &secret);
    hemi_stream_wipe(&secret);
    for (uint32_t r = 0; p->batch->bias && r < rows; r++) z0[r] = hemi_mod_add(z0[r], p->batch->bias[o], m);
    ctx->k->switch_down(z0, z0, rows, CORRECTION_BITS, m);
}

/* Words of a worker in outputs_step: second components of a block, z0 and z1, and the block's corrections. */
static size_t outputs_words(uint32_t n, uint32_t rows) {
    return (size_t)(OUTPUTS_BLOCK + 2) * n + (size_t)OUTPUTS_BLOCK * rows / 2;
}

static void outputs_step(void *context, size_t index, size_t worker) {
    const preparation *p = context;
    const hemi_context *ctx = p->batch->ctx;
    const hemi_int_matrix *w = &p->batch->w;
    const size_t n = ctx->n, rows = p->state->rows;
    const uint32_t first = (uint32_t)index * OUTPUTS_BLOCK;
    const uint32_t count = (uint32_t)smaller(w->rows - first, OUTPUTS_BLOCK);
    uint64_t *a = p->words + worker * p->words_each, *z0 = a + OUTPUTS_BLOCK * n, *z1 = z0 + n;
    uint32_t *block = (uint32_t *)(void *)(z1 + n), *to = p->state->correction + first;
    if (p->packed_a) ctx->k->int_product(a, n, w, first, count, p->right, n, &ctx->q->m);
    for (uint32_t i = 0; i < count; i++) {
        finish_output(p, first + i, a + i * n, z0, z1);
        for (size_t r = 0; r < rows; r++) block[i * rows + r] = (uint32_t)z0[r];
    }
    for (size_t r = 0; r < rows; r++, to += w->rows)
        for (uint32_t i = 0; i < count; i++) to[i] = block[i * rows + r];
}

static hemi_status prepare(preparation *p, hemi_team *team, hemi_error *err) {
    const hemi_context *ctx = p->batch->ctx;
    const hemi_int_matrix *w = &p->batch->w;
    const uint32_t n = ctx->n;
    p->words_each = outputs_words(n, p->state->rows);
    p->words = hemi_alloc_large((size_t)hemi_team_size(team) * p->words_each, sizeof *p->words);
    if (p->packed_a) p->right = hemi_alloc_large(ctx->k->int_right_bytes(w, n), 1);
    if (!p->words || (p->packed_a && !p->right)) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to prepare a batch");
    if (p->packed_a) hemi_team_run(team, ((size_t)w->columns + HEMI_INT_GROUP - 1) / HEMI_INT_GROUP, expand_step, p);
    hemi_team_run(team, ((size_t)w->rows + OUTPUTS_BLOCK - 1) / OUTPUTS_BLOCK, outputs_step, p);
    return HEMI_OK;
}

hemi_status hemi_batch_prepare(hemi_batch_state **out, uint8_t *packed_a, unsigned a_bits, const hemi_batch *batch,
                               const hemi_evaluation_keys *keys, const uint8_t seed[HEMI_SEED_BYTES],
                               const uint8_t secret[HEMI_SEED_BYTES], const void *context, size_t context_bytes,
                               uint32_t rows, hemi_team *team, hemi_error *err) {
    *out = NULL;
    if (rows == 0 || rows > batch->ctx->n)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "a batch has 1 to %u rows, not %u", batch->ctx->n, rows);
    if (keys->ctx != batch->ctx)
        return hemi_fail(err, HEMI_ERR_KEY, "the keys are not of set %s", batch->ctx->params->name);
    hemi_batch_state *state = hemi_alloc(1, sizeof *state);
    if (state) state->correction = hemi_alloc_large((size_t)rows * batch->w.rows, sizeof *state->correction);
    if (!state || !state->correction) {
        hemi_batch_state_free(state);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the state of a batch");
    }
    state->rows = rows;
    state->outputs = batch->w.rows;
    preparation p = {
        .batch = batch, .keys = keys, .state = state, .seed = seed, .packed_a = packed_a, .a_bits = a_bits};
    hemi_seed_derive(p.zero, secret, HEMI_DOMAIN_ZERO, context, context_bytes);
    hemi_seed_derive(p.zero, p.zero, HEMI_DOMAIN_BATCH, seed, HEMI_SEED_BYTES);
    const hemi_status s = prepare(&p, team, err);
    hemi_free(p.right);
    hemi_free(p.words);
    hemi_wipe(&p, sizeof p);
    if (s != HEMI_OK) {
        hemi_batch_state_free(state);
        return s;
    }
    *out = state;
    return HEMI_OK;
}

void hemi_batch_state_free(hemi_batch_state *state) {
    if (!state) return;
    hemi_free(state->correction);
    hemi_free(state);
}

size_t hemi_batch_state_bytes_for(uint32_t outputs, uint32_t rows) {
    return sizeof(hemi_batch_state) + (size_t)rows * outputs * sizeof(uint32_t);
}
size_t hemi_batch_state_bytes(const hemi_batch_state *state) {
    return hemi_batch_state_bytes_for(state->outputs, state->rows);
}
uint32_t hemi_batch_state_rows(const hemi_batch_state *state) { return state->rows; }

/* ---- rows */

/* Words for a row, of inputs or of outputs: whole cache lines. */
static size_t longer_side(const hemi_int_matrix *w) {
    return ((size_t)(w->rows > w->columns ? w->rows : w->columns) + 7) / 8 * 8;
}

typedef struct rows_job {
    const hemi_batch *batch;
    const hemi_batch_state *state;
    uint32_t first, count;
    const uint8_t *in;
    uint8_t *out;
    unsigned in_bits, out_bits;
    size_t right_bytes;
    uint8_t *right;  /* few rows: of each; many: of each worker */
    uint64_t *words; /* words_each per row (its results), or per worker */
    size_t words_each;
} rows_job;

static void load_row(const rows_job *j, uint32_t row, uint64_t *b) {
    const hemi_context *ctx = j->batch->ctx;
    const size_t inputs = j->batch->w.columns;
    hemi_unpack(b, j->in + row * hemi_packed_bytes(inputs, j->in_bits), inputs, j->in_bits);
    ctx->k->switch_up(b, b, inputs, j->in_bits, &ctx->q->m);
}

/* y: the products of a row; used up. */
static void store_row(const rows_job *j, uint32_t row, uint64_t *y, uint64_t *scratch) {
    const hemi_context *ctx = j->batch->ctx;
    const hemi_modulus *m = &ctx->q->m;
    const size_t outputs = j->batch->w.rows;
    const uint32_t *correction = j->state->correction + (size_t)(j->first + row) * outputs;
    for (size_t o = 0; o < outputs; o++) scratch[o] = correction[o];
    ctx->k->switch_up(scratch, scratch, outputs, CORRECTION_BITS, m);
    ctx->k->add(y, y, scratch, outputs, m);
    ctx->k->switch_down(y, y, outputs, j->out_bits, m);
    hemi_pack(j->out + row * hemi_packed_bytes(outputs, j->out_bits), y, outputs, j->out_bits);
}

/* Few rows: some outputs of all. */
static void few_step(void *context, size_t index, size_t worker) {
    (void)worker;
    const rows_job *j = context;
    const hemi_context *ctx = j->batch->ctx;
    const hemi_int_matrix *w = &j->batch->w;
    const uint32_t first = (uint32_t)index * OUTPUTS_STEP;
    const uint32_t count = (uint32_t)smaller(w->rows - first, OUTPUTS_STEP);
    for (uint32_t row = 0; row < j->count; row++)
        ctx->k->int_product(j->words + row * j->words_each + first, 1, w, first, count, j->right + row * j->right_bytes,
                            1, &ctx->q->m);
}

static void few_rows(rows_job *j, uint64_t *scratch, hemi_team *team) {
    const hemi_context *ctx = j->batch->ctx;
    const hemi_int_matrix *w = &j->batch->w;
    for (uint32_t row = 0; row < j->count; row++) {
        load_row(j, row, scratch);
        ctx->k->int_right(j->right + row * j->right_bytes, scratch, 1, 0, w->columns, 1, w, &ctx->q->m);
    }
    hemi_team_run(team, ((size_t)w->rows + OUTPUTS_STEP - 1) / OUTPUTS_STEP, few_step, j);
    for (uint32_t row = 0; row < j->count; row++) store_row(j, row, j->words + row * j->words_each, scratch);
}

/* Words of a worker in many_step: inputs and results, a column a row; ROWS_TURN rows as they are packed, and one more. */
static size_t many_words(const hemi_int_matrix *w) {
    return ROWS_BLOCK * ((size_t)w->columns + w->rows) + (ROWS_TURN + 1) * longer_side(w);
}

/* Many rows: all outputs of a block of them. */
static void many_step(void *context, size_t index, size_t worker) {
    const rows_job *j = context;
    const hemi_context *ctx = j->batch->ctx;
    const hemi_int_matrix *w = &j->batch->w;
    const uint32_t first = (uint32_t)index * ROWS_BLOCK;
    const uint32_t count = (uint32_t)smaller(j->count - first, ROWS_BLOCK);
    const size_t side = longer_side(w);
    uint64_t *x = j->words + worker * j->words_each, *y = x + (size_t)ROWS_BLOCK * w->columns;
    uint64_t *turned = y + (size_t)ROWS_BLOCK * w->rows, *scratch = turned + ROWS_TURN * side;
    uint8_t *right = j->right + worker * j->right_bytes;
    for (uint32_t i = 0; i < count; i += ROWS_TURN) {
        const uint32_t turn = (uint32_t)smaller(count - i, ROWS_TURN);
        for (uint32_t t = 0; t < turn; t++) load_row(j, first + i + t, turned + t * side);
        for (size_t c = 0; c < w->columns; c++)
            for (uint32_t t = 0; t < turn; t++) x[c * ROWS_BLOCK + i + t] = turned[t * side + c];
    }
    ctx->k->int_right(right, x, ROWS_BLOCK, 0, w->columns, count, w, &ctx->q->m);
    ctx->k->int_product(y, ROWS_BLOCK, w, 0, w->rows, right, count, &ctx->q->m);
    for (uint32_t i = 0; i < count; i += ROWS_TURN) {
        const uint32_t turn = (uint32_t)smaller(count - i, ROWS_TURN);
        for (size_t o = 0; o < w->rows; o++)
            for (uint32_t t = 0; t < turn; t++) turned[t * side + o] = y[o * ROWS_BLOCK + i + t];
        for (uint32_t t = 0; t < turn; t++) store_row(j, first + i + t, turned + t * side, scratch);
    }
}

hemi_status hemi_batch_rows(const hemi_batch *batch, const hemi_batch_state *state, uint32_t first, uint32_t count,
                            const uint8_t *packed_in, unsigned in_bits, uint8_t *packed_out, unsigned out_bits,
                            hemi_team *team, hemi_error *err) {
    const hemi_int_matrix *w = &batch->w;
    const bool few = count < ROWS_FEW;
    if (count == 0 || first > state->rows || count > state->rows - first || state->outputs != w->rows)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "rows %u to %u are not of this batch of %u", first, first + count - 1,
                         state->rows);
    const size_t workers = few ? count : (size_t)hemi_team_size(team);
    rows_job j = {.batch = batch,
                  .state = state,
                  .first = first,
                  .count = count,
                  .in = packed_in,
                  .out = packed_out,
                  .in_bits = in_bits,
                  .out_bits = out_bits};
    j.right_bytes = batch->ctx->k->int_right_bytes(w, few ? 1 : smaller(count, ROWS_BLOCK));
    j.words_each = few ? longer_side(w) : many_words(w);
    const size_t words = workers * j.words_each + (few ? longer_side(w) : 0);
    uint8_t *memory = hemi_alloc_large(workers * j.right_bytes + words * sizeof *j.words, 1);
    if (!memory) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u rows", count);
    j.right = memory; /* its pieces are multiples of 64 bytes */
    j.words = (uint64_t *)(void *)(memory + workers * j.right_bytes);
    if (few)
        few_rows(&j, j.words + workers * j.words_each, team);
    else
        hemi_team_run(team, ((size_t)count + ROWS_BLOCK - 1) / ROWS_BLOCK, many_step, &j);
    hemi_free(memory);
    return HEMI_OK;
}

double hemi_batch_noise_variance(const hemi_params *params, double weight_norm2, unsigned b_bits) {
    return weight_norm2 * (HEMI_ERROR_VARIANCE + hemi_noise_upload_variance(params, b_bits)) +
           hemi_noise_zero_variance(params) + hemi_noise_upload_variance(params, CORRECTION_BITS);
}
