/* Batches of rows over HTTP: POST /v2/models/{model}/prepare announces one; POST .../infer takes rows of it, or a whole one. */
#include "base/cpu.h"
#include "server/batches.h"
#include "server/evaluate.h"
#include "server/exchange.h"

bool hemi_prepare_complete(hemi_exchange *x) {
    x->announced = hemi_prepared_begin(x->service->prepared, x->slot);
    if (!x->announced)
        hemi_answer_error(
            x, 0, HEMI_ERR_LIMIT,
            "%u batches of this client are being prepared already: announce the next one when there is an "
            "answer, or call without",
            HEMI_SERVER_PREPARES_PER_KEY_MAX);
    return !x->announced;
}

/* The modules that the request names. */
static bool find_shapes(hemi_exchange *x, const hemi_batch_request *r, hemi_served_shape **shape, size_t *work) {
    *work = 0;
    if (r->rows > x->service->max_rows + 1) { /* one more, of zeros, for the bias */
        hemi_answer_error(x, 0, HEMI_ERR_TOO_LARGE, "%u rows in one request: this server takes %zu", r->rows,
                          x->service->max_rows);
        return false;
    }
    for (size_t i = 0; i < r->modules; i++) {
        shape[i] = hemi_compute_shape(x, r->module[i].id);
        if (!shape[i]) return false;
        if (shape[i]->module->is_circuit) {
            hemi_answer_error(x, 0, HEMI_ERR_UNSUPPORTED,
                              "this module is a circuit: its rows are sent to /infer in requests of their own kind, and not in batches");
            return false;
        }
        *work += (r->seconds ? HEMI_BATCH_SLOTS_MAX : r->rows) * (size_t)shape[i]->info.inputs * shape[i]->info.outputs;
    }
    return true;
}

static size_t reply_bytes(const hemi_batch_request *r, hemi_served_shape *const *shape) {
    size_t bytes = HEMI_BATCH_REPLY_BYTES;
    for (size_t i = 0; i < r->modules; i++) {
        const hemi_module_info *m = &shape[i]->info;
        const hemi_batch_frame f = {.rows = r->rows,
                                    .outputs = m->outputs,
                                    .a_bits = m->reply_a_bits,
                                    .b_bits = m->reply_b_bits,
                                    .seconds = r->seconds};
        bytes += hemi_batch_frame_bytes(r->params, &f);
    }
    return bytes;
}

/* Of rows that were announced what is there already, and little more. */
static size_t working_bytes(const hemi_batch_request *r, hemi_served_shape *const *shape) {
    size_t most = 0;
    for (size_t i = 0; i < r->modules; i++) {
        const size_t bytes = hemi_evaluator_batch_working_bytes(shape[i]->evaluator, r->slots);
        if (r->seconds && bytes > most) most = bytes;
    }
    return most;
}

/* An announcement keeps to its own worker; other large work takes those along that are idle. */
static int threads_for(const hemi_exchange *x, size_t work) {
    return x->route.id == HEMI_ROUTE_PREPARE || work < HEMI_SERVER_PARALLEL_BATCH ? 1 : hemi_compute_threads(x->service);
}

static void compute(hemi_exchange *x, const hemi_server_keys *keys, int threads) {
    hemi_error err = {0};
    uint8_t *reply = NULL;
    size_t bytes = 0;
    const double start = hemi_now_ms();
    const hemi_status status = hemi_batches_answer(x->service->prepared, &x->tenant->held[HEMI_HELD_PREPARED], x->model->evaluator, x->model->evaluators, keys,
                                                   x->body, x->received, threads, hemi_peer_gone(x->peer), &reply, &bytes, &err);
    x->compute_ms = hemi_now_ms() - start;
    if (status != HEMI_OK)
        hemi_compute_failed(x, status == HEMI_ERR_STATE ? MHD_HTTP_GONE : 0, status, &err);
    else
        hemi_compute_answer(x, reply, bytes);
}

static bool has_place(hemi_exchange *x, const hemi_batch_request *r) {
    const bool announcement = r->rows == 0;
    if (announcement == (x->route.id == HEMI_ROUTE_PREPARE)) return true;
    hemi_answer_error(x, 0, HEMI_ERR_FORMAT,
                      announcement ? "a batch without rows is announced at /prepare" : "rows are sent to /infer");
    return false;
}

void hemi_batch_work(hemi_exchange *x) {
    hemi_service *s = x->service;
    hemi_batch_request r;
    hemi_error err = {0};
    hemi_served_shape *shape[HEMI_REQUEST_MODULES_MAX];
    size_t work;
    hemi_charge charge;
    const hemi_status status = hemi_batch_request_parse(&r, x->body, x->received, &err);
    if (status != HEMI_OK) {
        hemi_answer_error(x, 0, status, "%s", err.message);
        return;
    }
    if (!has_place(x, &r) || !find_shapes(x, &r, shape, &work) || !hemi_exchange_hold_reply(x, reply_bytes(&r, shape), working_bytes(&r, shape)))
        return;
    const hemi_server_keys *keys = hemi_keys_acquire(x);
    if (!keys) return;
    if (r.rows == 0) { /* announced: what is served are the rows that come later */
        compute(x, keys, threads_for(x, work));
    } else if (hemi_compute_charge(x, &charge, shape, r.modules, r.rows)) {
        compute(x, keys, threads_for(x, work));
        hemi_compute_settle(x, &charge, shape);
    }
    hemi_key_cache_release(s->keys, keys);
}
