/* Circuits: from rows to units of ciphertexts, and from replies to rows. A unit is io.rows rows, in io.in_blocks ciphertexts. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "ckks/encoder.h"
#include "client/codec.h"
#include "client/keys.h"
#include "client/pending.h"

static hemi_ckks_request request_of(const hemi_module *m, const hemi_pending *p) {
    hemi_ckks_request r = {.params = m->io.params, .limbs = m->io.limbs, .units = (uint32_t)p->units, .ciphertexts = m->io.in_blocks};
    memcpy(r.module_id, m->info.id, sizeof r.module_id);
    return r;
}

static hemi_ckks_request reply_of(const hemi_module *m, const hemi_pending *p) {
    hemi_ckks_request r = request_of(m, p);
    r.limbs = 1;
    r.ciphertexts = m->io.out_blocks;
    return r;
}

size_t hemi_circuit_reply_bytes(const hemi_module *m, const hemi_pending *p) {
    const hemi_ckks_request r = reply_of(m, p);
    return hemi_ckks_reply_bytes(&r);
}

size_t hemi_circuit_rows_at_once(const hemi_module *m, size_t bytes, size_t units) {
    const size_t fit = bytes / (m->io.in_blocks * hemi_ckks_ciphertext_bytes(m->io.params, m->io.limbs));
    return (fit < 1 ? 1 : fit < units ? fit : units) * m->io.rows;
}

/* Independent pieces of a message: ciphertexts of a request, units of a reply. The first failure is told. */
typedef struct work {
    const hemi_module *module;
    const hemi_ckks_secret *secret;
    const hemi_pending *pending;
    hemi_ckks_request message;
    const float *x;
    float *y;
    uint8_t *out;
    const uint8_t *in;
    double *memory; /* words for each worker: plaintext */
    size_t words;
    atomic_bool failed;
    hemi_error *err; /* of whoever failed first */
} work;

static void fail_first(work *w, const hemi_error *why) {
    if (!atomic_exchange(&w->failed, true)) *w->err = *why;
}

static size_t rows_of_unit(const work *w, size_t unit) {
    const size_t first = unit * w->module->io.rows, left = w->pending->rows - first;
    return left < w->module->io.rows ? left : w->module->io.rows;
}

static hemi_status run(work *w, size_t count, hemi_step step, hemi_error *err) {
    hemi_error first = {.status = HEMI_ERR_INTERNAL};
    const size_t cpus = (size_t)hemi_cpu_count(), most = cpus < HEMI_CIRCUIT_THREADS_MAX ? cpus : HEMI_CIRCUIT_THREADS_MAX;
    hemi_team *team = count > 1 && most > 1 ? hemi_team_new((int)(count < most ? count : most)) : NULL;
    w->err = &first;
    w->memory = hemi_alloc((size_t)hemi_team_size(team) * w->words, sizeof *w->memory);
    if (w->memory) hemi_team_run(team, count, step, w);
    hemi_team_free(team);
    const bool memory = w->memory != NULL;
    hemi_free(w->memory); /* which wipes */
    if (!memory) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for ciphertexts of %u slots", w->secret->ctx->slots);
    return atomic_load(&w->failed) ? hemi_fail(err, first.status, "%s", first.message) : HEMI_OK;
}

/* ---- encryption */

static void encrypt_step(void *context, size_t i, size_t worker) {
    work *w = context;
    const hemi_circuit_io *io = &w->module->io;
    const size_t unit = i / io->in_blocks, first = unit * io->rows, count = rows_of_unit(w, unit);
    const uint32_t block = (uint32_t)(i % io->in_blocks);
    double *slots = w->memory + worker * w->words;
    hemi_error why = {0};
    if (atomic_load(&w->failed)) return;
    /* Numbers are finite: the caller has looked. Every block looks at all of a row: one of them says so. */
    bool *in_range = block == 0 ? w->pending->in_range + first : NULL;
    hemi_status s = hemi_circuit_io_pack(slots, io, block, w->x + first * io->inputs, count, in_range)
                        ? HEMI_OK
                        : hemi_fail(&why, HEMI_ERR_ARGUMENT, "not a number");
    if (s == HEMI_OK)
        s = hemi_ckks_secret_encrypt(w->secret, slots, io->in_scale, io->limbs, w->out + hemi_ckks_request_ciphertext_offset(&w->message, i), &why);
    if (s == HEMI_OK) return;
    (void)hemi_fail_in(&why, s, "rows %zu to %zu of the input", first, first + count - 1);
    fail_first(w, &why);
}

static hemi_status check_finite(const hemi_module *m, const float *x, size_t rows, hemi_error *err) {
    const size_t inputs = m->io.inputs;
    for (size_t i = 0; i < rows * inputs; i++)
        if (!isfinite(x[i]))
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "row %zu of the input holds a value that is infinite or not a number: number %zu",
                             i / inputs, i % inputs);
    return HEMI_OK;
}

static hemi_status pending_new(hemi_pending **out, const hemi_module *m, size_t rows, hemi_error *err) {
    const size_t units = rows / m->io.rows + (rows % m->io.rows != 0);
    *out = NULL;
    if (rows == 0 || units > HEMI_CKKS_UNITS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%zu rows: a request holds 1 to %zu rows of this module", rows,
                         (size_t)HEMI_CKKS_UNITS_MAX * m->io.rows);
    hemi_pending *p = hemi_alloc(1, sizeof *p);
    if (p) p->in_range = hemi_alloc(rows, sizeof *p->in_range);
    if (!p || !p->in_range) {
        hemi_pending_free(p);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rows", rows);
    }
    memcpy(p->id, m->info.id, sizeof p->id);
    p->rows = rows;
    p->units = units;
    for (size_t i = 0; i < rows; i++) p->in_range[i] = true;
    *out = p;
    return HEMI_OK;
}

hemi_status hemi_circuit_encrypt(const hemi_module *m, hemi_keys *keys, const float *x, size_t rows, hemi_pending **pending,
                                 uint8_t **request, size_t *request_bytes, hemi_error *err) {
    work w = {.module = m, .x = x};
    hemi_pending *p;
    *pending = NULL;
    *request = NULL;
    *request_bytes = 0;
    HEMI_TRY(pending_new(&p, m, rows, err));
    w.pending = p;
    w.message = request_of(m, p);
    const size_t bytes = hemi_ckks_request_bytes(&w.message);
    hemi_status s = check_finite(m, x, rows, err);
    if (s == HEMI_OK) s = hemi_keys_hold_ckks(keys, m->io.params, &w.secret, &p->key_generation, err);
    if (s == HEMI_OK) {
        w.words = w.secret->ctx->slots;
        w.out = hemi_alloc(bytes, 1);
        if (w.out) hemi_ckks_request_write_header(w.out, &w.message);
        s = w.out ? run(&w, p->units * m->io.in_blocks, encrypt_step, err)
                  : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a request of %zu bytes", bytes);
        hemi_keys_let_go(keys);
    }
    if (s != HEMI_OK) {
        hemi_free(w.out);
        hemi_pending_free(p);
        return s;
    }
    *pending = p;
    *request = w.out;
    *request_bytes = bytes;
    return HEMI_OK;
}

/* ---- decryption */

/* A unit, block after block: they share its rows' verdicts. */
static void decrypt_step(void *context, size_t unit, size_t worker) {
    work *w = context;
    const hemi_circuit_io *io = &w->module->io;
    const hemi_ckks_context *ctx = w->secret->ctx;
    const size_t n = ctx->n, first = unit * io->rows, each = hemi_ckks_poly_bytes(io->params, 1);
    const unsigned bits = hemi_ckks_limb(ctx, 0)->m.bits;
    double *re = w->memory + worker * w->words, *im = re + ctx->slots, *scratch = im + ctx->slots;
    int64_t *phase = (int64_t *)(scratch + n);
    uint64_t *c0 = (uint64_t *)(phase + n), *c1 = c0 + n;
    hemi_error why = {0};
    for (uint32_t b = 0; b < io->out_blocks && !atomic_load(&w->failed); b++) {
        const uint8_t *at = w->in + HEMI_CKKS_REPLY_HEADER_BYTES + (unit * io->out_blocks + b) * 2 * each;
        hemi_unpack(c1, at, n, bits);
        hemi_unpack(c0, at + each, n, bits);
        if (hemi_ckks_secret_decrypt(w->secret, c0, c1, phase, &why) != HEMI_OK) {
            fail_first(w, &why);
            return;
        }
        hemi_ckks_unembed(re, im, ctx->encoder, io->out_scale, phase, scratch);
        hemi_circuit_io_unpack(w->y + first * io->outputs, io, b, re, im, rows_of_unit(w, unit), w->pending->in_range + first);
    }
}

static hemi_status decrypt_reply(work *w, hemi_keys *keys, const void *reply, size_t reply_bytes, hemi_error *err) {
    const hemi_module *m = w->module;
    const hemi_pending *p = w->pending;
    uint64_t generation;
    if (!p->in_range || memcmp(p->id, m->info.id, sizeof p->id) != 0)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "this reply's request was made for another module");
    w->message = reply_of(m, p);
    HEMI_TRY(hemi_ckks_reply_check(reply, reply_bytes, &w->message, err));
    HEMI_TRY(hemi_keys_hold_ckks(keys, m->io.params, &w->secret, &generation, err));
    w->words = 5 * (size_t)w->secret->ctx->n;
    const hemi_status s = generation == p->key_generation
                              ? run(w, p->units, decrypt_step, err)
                              : hemi_fail(err, HEMI_ERR_STATE, "the secret key was replaced between request and reply: send the request anew");
    hemi_keys_let_go(keys);
    return s;
}

hemi_status hemi_circuit_decrypt(const hemi_module *m, hemi_keys *keys, hemi_pending *p, const void *reply, size_t reply_bytes, float *y,
                                 hemi_error *err) {
    work w = {.module = m, .pending = p, .in = reply, .y = y};
    const hemi_status s = decrypt_reply(&w, keys, reply, reply_bytes, err);
    if (s != HEMI_OK) memset(y, 0, p->rows * m->io.outputs * sizeof *y);
    return s;
}
