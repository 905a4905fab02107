#include "client/batch_call.h"

#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"

/* One call at work. */
typedef struct work {
    const hemi_batch_call *call;
    const hemi_module *const *module;
    size_t modules;
    bool zero_row;  /* after the caller's rows, one of zeros: its results are the biases */
    uint32_t count; /* rows of the batch: those of the caller, and that one */
    double *factor; /* secret */
    double *b0[HEMI_REQUEST_MODULES_MAX];
    bool unknown[HEMI_REQUEST_MODULES_MAX]; /* b0 is to be read off the row of zeros */
} work;

static void end(work *w) {
    hemi_free(w->factor); /* which wipes */
    for (size_t i = 0; i < w->modules; i++) hemi_free(w->b0[i]);
}

static hemi_status begin(work *w, const hemi_batch_call *call, hemi_error *err) {
    *w = (work){.call = call};
    w->module = hemi_pool_modules(call->pool, &w->modules);
    w->factor = hemi_alloc(call->rows, sizeof *w->factor);
    bool enough = w->factor != NULL;
    for (size_t i = 0; i < w->modules && enough; i++) {
        const hemi_module_info *m = &w->module[i]->info;
        w->b0[i] = hemi_alloc(m->outputs, sizeof *w->b0[i]);
        enough = w->b0[i] != NULL;
        w->unknown[i] = enough && m->has_bias && !hemi_keys_bias_get(call->client->keys, m->id, w->b0[i], m->outputs);
        w->zero_row |= w->unknown[i];
    }
    w->count = (uint32_t)call->rows + (w->zero_row ? 1 : 0);
    if (enough) return HEMI_OK;
    end(w);
    return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rows", call->rows);
}

/* offset[i]: where the rows of module i are in the reply. */
static hemi_status decrypt(work *w, const hemi_lot *lot, uint32_t first, const uint8_t *reply, const size_t *offset,
                           hemi_error *err) {
    const hemi_batch_call *c = w->call;
    const double start = hemi_now_ms();
    for (size_t i = 0; i < w->modules; i++) {
        const hemi_module_info *m = &w->module[i]->info;
        HEMI_TRY(hemi_lot_decrypt(lot, w->module[i], i, first, reply + offset[i], c->rows, w->unknown[i], w->factor,
                                  w->b0[i], c->y[i], err));
        if (w->unknown[i]) HEMI_TRY(hemi_keys_bias_put(c->client->keys, m->id, w->b0[i], m->outputs, err));
    }
    c->stats->decrypt_ms += hemi_now_ms() - start;
    return HEMI_OK;
}

static hemi_status send(const work *w, const uint8_t *body, size_t length, size_t bound, hemi_http_reply *reply,
                        hemi_error *err) {
    const hemi_batch_call *c = w->call;
    const hemi_post post = {.path = c->path,
                            .name = c->name,
                            .params = hemi_params_by_name(HEMI_BATCH_SET),
                            .body = body,
                            .bytes = length,
                            .reply_bytes_max = bound};
    HEMI_TRY(hemi_client_post(c->client, &post, reply, c->stats, err));
    c->stats->upload_bytes += length;
    c->stats->download_bytes += reply->bytes;
    return HEMI_OK;
}

static hemi_status fail_in(const work *w, hemi_status status, hemi_error *err) {
    return hemi_fail_in(err, status, "the reply of %.120s to %s", hemi_http_url(w->call->client->http), w->call->name);
}

/* ---- a batch of its own */

size_t hemi_batch_call_rows(hemi_pool *pool, size_t rows) {
    size_t modules, outputs = 0;
    const hemi_module *const *module = hemi_pool_modules(pool, &modules);
    for (size_t i = 0; i < modules; i++) outputs += module[i]->info.outputs;
    if (rows < HEMI_WHOLE_ROWS_LEAST || rows < outputs / HEMI_WHOLE_OUTPUTS_PER_ROW) return 0;
    size_t most = HEMI_WHOLE_MEMORY / hemi_lot_row_bytes(module, modules);
    if (most > HEMI_BATCH_SLOTS_MAX) most = HEMI_BATCH_SLOTS_MAX;
    if (most < HEMI_WHOLE_ROWS_LEAST) most = HEMI_WHOLE_ROWS_LEAST;
    most--; /* for a row of zeros */
    const size_t parts = (rows + most - 1) / most;
    return (rows + parts - 1) / parts;
}

static hemi_status encrypt_whole(work *w, hemi_lot *lot, uint8_t **body, size_t *length, hemi_error *err) {
    const hemi_batch_call *c = w->call;
    HEMI_TRY(hemi_lot_header(lot, w->count, body, length, err));
    const hemi_status status = hemi_lot_encrypt(lot, w->module[0], 0, c->x, c->rows, w->zero_row, w->factor,
                                                *body + hemi_batch_rows_offset(&lot->request), err);
    if (status == HEMI_OK) return status;
    hemi_free(*body);
    return status;
}

static hemi_status exchange_whole(work *w, hemi_lot *lot, hemi_error *err) {
    uint8_t *body;
    size_t length, offset[HEMI_REQUEST_MODULES_MAX];
    hemi_http_reply reply = {0};
    const double start = hemi_now_ms();
    HEMI_TRY(encrypt_whole(w, lot, &body, &length, err));
    w->call->stats->encrypt_ms += hemi_now_ms() - start;
    hemi_status status = send(w, body, length, hemi_lot_reply_bytes(lot, true, w->count), &reply, err);
    hemi_free(body);
    HEMI_TRY(status);
    const double arrived = hemi_now_ms();
    status = hemi_lot_accept(lot, w->call->client->keys, reply.body, reply.bytes, w->count, offset, err);
    w->call->stats->decrypt_ms += hemi_now_ms() - arrived;
    if (status == HEMI_OK) status = decrypt(w, lot, 0, reply.body, offset, err);
    hemi_http_reply_clear(&reply);
    return status == HEMI_OK ? status : fail_in(w, status, err);
}

hemi_status hemi_batch_call_whole(const hemi_batch_call *call, hemi_error *err) {
    work w;
    hemi_lot *lot = NULL;
    HEMI_TRY(begin(&w, call, err));
    const double start = hemi_now_ms();
    hemi_status status = hemi_lot_new(&lot, call->client->keys, w.module, w.modules, w.count, err);
    call->stats->encrypt_ms += hemi_now_ms() - start;
    if (status == HEMI_OK) status = exchange_whole(&w, lot, err);
    hemi_lot_free(lot);
    end(&w);
    return status;
}

/* ---- prepared slots */

static hemi_status encrypt_prepared(work *w, hemi_lot *lot, uint32_t first, uint8_t **body, size_t *length,
                                    hemi_error *err) {
    const hemi_batch_call *c = w->call;
    hemi_batch_request r = lot->request;
    r.seconds = false;
    r.first = first;
    r.rows = w->count;
    *length = hemi_batch_request_bytes(&r);
    *body = hemi_alloc(*length, 1);
    if (!*body) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a request of %zu bytes", *length);
    hemi_batch_request_write_header(*body, &r);
    const hemi_status status = hemi_lot_encrypt(lot, w->module[0], first, c->x, c->rows, w->zero_row, w->factor,
                                                *body + hemi_batch_rows_offset(&r), err);
    if (status == HEMI_OK) return status;
    hemi_free(*body);
    return status;
}

static hemi_status decrypt_prepared(work *w, const hemi_lot *lot, uint32_t first, const hemi_http_reply *reply,
                                    hemi_error *err) {
    hemi_batch_frame frame[HEMI_REQUEST_MODULES_MAX];
    size_t offset[HEMI_REQUEST_MODULES_MAX];
    for (size_t i = 0; i < w->modules; i++) {
        frame[i] = lot->frame[i];
        frame[i].seconds = false;
        frame[i].rows = w->count;
    }
    HEMI_TRY(hemi_batch_reply_parse(reply->body, reply->bytes, lot->request.params, frame, w->modules, offset, err));
    return decrypt(w, lot, first, reply->body, offset, err);
}

static hemi_status exchange_prepared(work *w, hemi_lot *lot, uint32_t first, bool *gone, hemi_error *err) {
    uint8_t *body;
    size_t length;
    hemi_http_reply reply = {0};
    const double start = hemi_now_ms();
    HEMI_TRY(encrypt_prepared(w, lot, first, &body, &length, err));
    w->call->stats->encrypt_ms += hemi_now_ms() - start;
    hemi_client_keys_seen(w->call->client, lot->request.params, lot->key_id);
    hemi_status status = send(w, body, length, hemi_lot_reply_bytes(lot, false, w->count), &reply, err);
    hemi_free(body);
    *gone = status == HEMI_ERR_STATE;
    HEMI_TRY(status);
    status = decrypt_prepared(w, lot, first, &reply, err);
    hemi_http_reply_clear(&reply);
    return status == HEMI_OK ? status : fail_in(w, status, err);
}

hemi_status hemi_batch_call_prepared(const hemi_batch_call *call, bool *done, hemi_error *err) {
    work w;
    hemi_lot *lot;
    uint32_t first;
    *done = false;
    if (call->rows >= HEMI_BATCH_SLOTS_MAX || hemi_pool_slots(call->pool) < call->rows) return HEMI_OK;
    HEMI_TRY(begin(&w, call, err));
    hemi_status status = HEMI_OK;
    if (hemi_pool_take(call->pool, w.count, &lot, &first)) {
        bool gone = false;
        status = exchange_prepared(&w, lot, first, &gone, err);
        *done = !gone;
        if (status == HEMI_OK) call->stats->prepared_rows += call->rows;
        if (gone) status = HEMI_OK;
        hemi_pool_done(call->pool, lot, gone);
    }
    end(&w);
    return status;
}
