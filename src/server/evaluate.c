/* From request bytes to reply bytes. */
#include <sodium.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "hemi/server.h"
#include "linear/batch.h"
#include "linear/product.h"
#include "model/module.h"
#include "server/evaluate.h"
#include "wire/batch.h"

struct hemi_evaluator {
    hemi_module_info info; /* numbers only: its pointers are not used */
    hemi_linear *linear;
    hemi_batch *batch; /* the matrix for batches of rows; NULL if the module has none */
};

struct hemi_server_keys {
    hemi_evaluation_keys *keys;
    uint8_t id[HEMI_KEY_ID_BYTES];
};

/* Rows of modules whose q is that of the set for batches can come in batches too: delta is then the same. */
static hemi_status make_batch(hemi_evaluator *e, const hemi_module *module, hemi_error *err) {
    const hemi_params *params = hemi_params_by_name(HEMI_BATCH_SET);
    const hemi_context *ctx;
    if (params->q != module->layout.params->q || module->info.inputs > HEMI_BATCH_INPUTS_MAX) return HEMI_OK;
    HEMI_TRY(hemi_context_shared(&ctx, params, err));
    return hemi_batch_new(&e->batch, ctx, module->info.inputs, module->info.outputs, module->weights, module->bias, module->info.delta, err);
}

hemi_status hemi_evaluator_new(hemi_evaluator **out, const hemi_module *module, int threads, hemi_error *err) {
    const hemi_context *ctx;
    *out = NULL;
    if (!module->weights) return hemi_fail(err, HEMI_ERR_STATE, "this module was read without its weights: open its server.zip");
    HEMI_TRY(hemi_context_shared(&ctx, module->layout.params, err));
    hemi_evaluator *e = hemi_alloc(1, sizeof *e);
    hemi_team *team = hemi_team_new(threads);
    if (!e || !team) {
        hemi_free(e);
        hemi_team_free(team);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    }
    e->info = module->info;
    hemi_status s =
        hemi_linear_new(&e->linear, ctx, &module->layout, module->weights, module->bias, module->info.delta, team, err);
    hemi_team_free(team);
    if (s == HEMI_OK) s = make_batch(e, module, err);
    if (s != HEMI_OK) {
        hemi_evaluator_free(e);
        return s;
    }
    *out = e;
    return HEMI_OK;
}

void hemi_evaluator_free(hemi_evaluator *e) {
    if (!e) return;
    hemi_linear_free(e->linear);
    hemi_batch_free(e->batch);
    hemi_free(e);
}

size_t hemi_evaluator_bytes(const hemi_evaluator *e) {
    return hemi_linear_bytes(e->linear) + (e->batch ? hemi_batch_bytes(e->batch) : 0);
}

const hemi_module_info *hemi_evaluator_info(const hemi_evaluator *e) { return &e->info; }

const hemi_batch *hemi_evaluator_batch(const hemi_evaluator *e) { return e->batch; }

const hemi_evaluation_keys *hemi_server_keys_expanded(const hemi_server_keys *k) { return k->keys; }

const uint8_t *hemi_evaluator_id(const hemi_evaluator *e) { return e->info.id; }

static hemi_status expand_keys(hemi_evaluation_keys *keys, const hemi_context *ctx, const uint8_t *bytes, size_t entries, hemi_error *err) {
    const size_t n = ctx->n;
    uint64_t *b = hemi_alloc(2 * n, sizeof *b);
    if (!b) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for evaluation keys");
    const uint8_t *at = bytes + HEMI_KEYS_HEADER_BYTES;
    for (size_t i = 0; i < entries; i++) {
        const uint32_t t = hemi_load32(at);
        const uint8_t *packed = at + HEMI_KEY_ENTRY_HEADER_BYTES;
        hemi_unpack(b, packed, n, ctx->q->m.bits);
        if (t != 0) hemi_unpack(b + n, packed + hemi_packed_bytes(n, ctx->q->m.bits), n, ctx->special->m.bits);
        hemi_evaluation_keys_set(keys, i, at + 8, b, t != 0 ? b + n : NULL);
        at += hemi_key_entry_bytes(ctx->params, t);
    }
    hemi_free(b);
    return HEMI_OK;
}

hemi_status hemi_server_keys_new(hemi_server_keys **out, const void *bytes, size_t count, hemi_error *err) {
    const hemi_params *params;
    const hemi_context *ctx;
    size_t entries;
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    *out = NULL;
    HEMI_TRY(hemi_keys_check(bytes, count, &params, &entries, err));
    HEMI_TRY(hemi_context_shared(&ctx, params, err));
    for (size_t i = 1; i < entries; i++)
        t[i - 1] = hemi_load32((const uint8_t *)bytes + HEMI_KEYS_HEADER_BYTES + hemi_key_entry_bytes(params, 0) +
                               (i - 1) * hemi_key_entry_bytes(params, 1));
    hemi_server_keys *k = hemi_alloc(1, sizeof *k);
    if (!k) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for evaluation keys");
    hemi_status s = hemi_evaluation_keys_new(&k->keys, ctx, t, entries - 1, err);
    if (s == HEMI_OK) s = expand_keys(k->keys, ctx, bytes, entries, err);
    if (s != HEMI_OK) {
        hemi_server_keys_free(k);
        return s;
    }
    (void)crypto_generichash(k->id, sizeof k->id, bytes, count, NULL, 0);
    *out = k;
    return HEMI_OK;
}

void hemi_server_keys_free(hemi_server_keys *k) {
    if (!k) return;
    hemi_evaluation_keys_free(k->keys);
    hemi_free(k);
}

const uint8_t *hemi_server_keys_id(const hemi_server_keys *k) { return k->id; }

size_t hemi_server_keys_bytes(const hemi_server_keys *k) { return sizeof *k + k->keys->bytes; }

static const hemi_evaluator *find(const hemi_evaluator *const *modules, size_t count, const uint8_t *id) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(modules[i]->info.id, id, HEMI_MODULE_ID_BYTES) == 0) return modules[i];
    return NULL;
}

/* The request must be for this module exactly. */
static hemi_status check_fit(const hemi_request *r, const hemi_evaluator *e, hemi_error *err) {
    const hemi_module_info *m = &e->info;
    if (r->params != m->params)
        return hemi_fail(err, HEMI_ERR_PARAMS, "the request is of set %s, the module of %s", r->params->name, m->params->name);
    if (r->inputs != m->inputs)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the request has %u inputs, the module %u", r->inputs, m->inputs);
    if (r->layout != m->layout || r->b_bits != m->b_bits)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the request has layout %u with %u bits, the module %u with %u: fetch its description anew",
                         r->layout, r->b_bits, m->layout, m->b_bits);
    return HEMI_OK;
}

typedef struct row_job {
    const hemi_linear *linear;
    const hemi_evaluation_keys *keys;
    const hemi_request *request;
    const uint8_t *in;
    uint8_t *out; /* the frame's first ciphertext */
    size_t a_bytes, b_bytes;
    unsigned a_bits, b_bits;
    hemi_team *inner; /* for one large product; NULL when rows are shared out */
    hemi_status *status;
    hemi_error *error; /* one each */
} row_job;

static void row_step(void *context, size_t row, size_t worker) {
    const row_job *j = context;
    const uint8_t *c = j->in + hemi_request_ciphertext_offset(j->request, row);
    uint8_t *o = j->out + row * (j->a_bytes + j->b_bytes);
    (void)worker;
    j->status[row] = hemi_linear_multiply(j->linear, j->keys, (hemi_linear_input){c, c + HEMI_SEED_BYTES, j->request->b_bits},
                                          (hemi_linear_output){o, o + j->a_bytes, j->a_bits, j->b_bits}, j->inner, &j->error[row]);
}

static hemi_status run_rows(row_job *j, size_t rows, hemi_team *team, hemi_error *err) {
    hemi_status s = HEMI_OK;
    j->status = hemi_alloc(rows, sizeof *j->status);
    j->error = hemi_alloc(rows, sizeof *j->error);
    if (j->status && j->error) {
        if (rows < (size_t)hemi_team_size(team)) {
            j->inner = team;
            for (size_t i = 0; i < rows; i++) row_step(j, i, 0);
        } else {
            hemi_team_run(team, rows, row_step, j);
        }
        for (size_t i = 0; i < rows && s == HEMI_OK; i++)
            if (j->status[i] != HEMI_OK) s = hemi_fail(err, j->status[i], "%s", j->error[i].message);
    } else {
        s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rows", rows);
    }
    hemi_free(j->status);
    hemi_free(j->error);
    return s;
}

static hemi_reply_frame frame_of(const hemi_evaluator *e, const hemi_request *r) {
    hemi_reply_frame f = {.rows = r->rows,
                          .outputs = e->info.outputs,
                          .ciphertexts = r->ciphertexts,
                          .a_bits = e->info.reply_a_bits,
                          .b_bits = e->info.reply_b_bits};
    memcpy(f.module_id, e->info.id, sizeof f.module_id);
    return f;
}

static hemi_status evaluate_module(const hemi_evaluator *e, const hemi_server_keys *keys, const hemi_request *r, const uint8_t *request,
                                   hemi_team *team, uint8_t *out, hemi_error *err) {
    const hemi_reply_frame f = frame_of(e, r);
    hemi_reply_frame_write_header(out, r->params, &f);
    row_job j = {.linear = e->linear,
                 .keys = keys->keys,
                 .request = r,
                 .in = request,
                 .out = out + HEMI_REPLY_FRAME_BYTES,
                 .a_bytes = hemi_packed_bytes((size_t)1 << r->params->log2_n, f.a_bits),
                 .b_bytes = hemi_packed_bytes(f.outputs, f.b_bits),
                 .a_bits = f.a_bits,
                 .b_bits = f.b_bits};
    return run_rows(&j, r->rows, team, err);
}

hemi_status hemi_evaluate(const hemi_evaluator *const *modules, size_t module_count, const hemi_server_keys *keys, const void *request,
                          size_t request_bytes, int threads, uint8_t **reply, size_t *reply_bytes, hemi_error *err) {
    hemi_request r;
    const hemi_evaluator *named[HEMI_REQUEST_MODULES_MAX];
    *reply = NULL;
    *reply_bytes = 0;
    HEMI_TRY(hemi_request_parse(&r, request, request_bytes, err));
    size_t total = HEMI_REPLY_HEADER_BYTES;
    for (size_t i = 0; i < r.modules; i++) {
        named[i] = find(modules, module_count, r.module_id[i]);
        if (!named[i])
            return hemi_fail(err, HEMI_ERR_CONFLICT,
                             "the model has no module with this id: it was compiled anew since the client fetched its description; fetch it again");
        HEMI_TRY(check_fit(&r, named[i], err));
        const hemi_reply_frame f = frame_of(named[i], &r);
        total += hemi_reply_frame_bytes(r.params, &f);
    }
    if (keys->keys->ctx->params != r.params)
        return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys are of set %s, the request of %s", keys->keys->ctx->params->name,
                         r.params->name);
    if (total > UINT32_MAX) return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the reply would have %zu bytes: send fewer rows", total);
    uint8_t *out = hemi_alloc(total, 1);
    hemi_team *team = threads == 1 ? NULL : hemi_team_new(threads);
    hemi_status s = out ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a reply of %zu bytes", total);
    if (s == HEMI_OK) {
        hemi_reply_write_header(out, r.params, r.modules, total);
        uint8_t *at = out + HEMI_REPLY_HEADER_BYTES;
        for (size_t i = 0; i < r.modules && s == HEMI_OK; i++) {
            const hemi_reply_frame f = frame_of(named[i], &r);
            s = evaluate_module(named[i], keys, &r, request, team, at, err);
            at += hemi_reply_frame_bytes(r.params, &f);
        }
    }
    hemi_team_free(team);
    if (s != HEMI_OK) {
        hemi_free(out);
        return s;
    }
    *reply = out;
    *reply_bytes = total;
    return HEMI_OK;
}

void hemi_bytes_free(void *bytes) { hemi_free(bytes); }
