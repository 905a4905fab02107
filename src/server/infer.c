/* POST /v2/models/{model}/infer: from an encrypted input to an encrypted output. */
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "server/evaluate.h"
#include "server/evaluate_circuit.h"
#include "server/exchange.h"

void hemi_infer_begin(hemi_exchange *x) {
    const char *key = hemi_exchange_header(x, "Hemi-Key"), *progress = hemi_exchange_header(x, "Hemi-Progress");
    if (!hemi_exchange_set_key(x, key)) {
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT,
                          "the header Hemi-Key must hold the BLAKE2b-256 hash of evaluation keys that were put at "
                          "/v2/keys/{hash}: 64 hexadecimal digits in lower case");
        return;
    }
    x->has_progress = progress && x->route.id == HEMI_ROUTE_INFER;
    if (x->has_progress && !hemi_hex_parse(x->progress, sizeof x->progress, progress)) {
        x->has_progress = false;
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT,
                          "the header Hemi-Progress must hold %u hexadecimal digits in lower case, drawn at random",
                          2 * HEMI_SERVER_PROGRESS_ID_BYTES);
        return;
    }
    x->body = malloc(x->body_bytes ? x->body_bytes : 1); /* the system gives pages as they are filled */
    if (!x->body) hemi_answer_error(x, 0, HEMI_ERR_MEMORY, "no memory for a request of %zu bytes", x->body_bytes);
}

void hemi_infer_complete(hemi_exchange *x) {
    if (!x->has_progress) return;
    uint8_t slot[HEMI_SERVER_PROGRESS_ID_BYTES];
    hemi_tenant_slot(slot, sizeof slot, x->tenant, x->progress, sizeof x->progress);
    x->notice = hemi_board_put(x->service->board, slot);
}

static bool rows_are_few(hemi_exchange *x, const hemi_module *module, hemi_form form, size_t units, size_t rows) {
    if (units <= hemi_served_units_max(module, form, x->service->max_rows)) return true;
    hemi_answer_error(x, 0, HEMI_ERR_TOO_LARGE, "%zu rows in one request: this server takes %zu", rows, x->service->max_rows);
    return false;
}

/* The modules that the request names, and how many rows. */
static bool find_shapes(hemi_exchange *x, const hemi_request *r, hemi_served_shape *shape[HEMI_REQUEST_MODULES_MAX],
                        size_t *products, size_t *rows) {
    *products = 0;
    *rows = 0;
    for (size_t i = 0; i < r->modules; i++) {
        shape[i] = hemi_compute_shape(x, r->module_id[i]);
        if (!shape[i]) return false;
        if (shape[i]->module->is_circuit) {
            hemi_answer_error(x, 0, HEMI_ERR_PARAMS, "the request is of set %s, the module of %s", r->params->name, shape[i]->info.params->name);
            return false;
        }
        const hemi_linear_layout *l = hemi_module_layout(shape[i]->module, r->form);
        if (!l) {
            hemi_answer_error(x, 0, HEMI_ERR_FORMAT, "the request is of form %d, which the module does not have", (int)r->form);
            return false;
        }
        *products += r->units * hemi_linear_products(l);
        *rows = (size_t)r->units * hemi_linear_places(l);
        if (!rows_are_few(x, shape[i]->module, r->form, r->units, *rows)) return false;
    }
    return true;
}

static size_t reply_bytes(const hemi_request *r, hemi_served_shape *const *shape) {
    size_t bytes = HEMI_REPLY_HEADER_BYTES;
    for (size_t i = 0; i < r->modules; i++) {
        const hemi_reply_frame f = hemi_module_frame(shape[i]->module, r->form, r->units);
        bytes += hemi_reply_frame_bytes(r->params, &f);
    }
    return bytes;
}

/* Modules of one request are computed one after the other. */
static size_t working_bytes(const hemi_service *s, hemi_served_shape *const *shape, size_t modules, size_t units) {
    size_t most = 0;
    for (size_t i = 0; i < modules; i++) {
        const size_t bytes = hemi_evaluator_working_bytes(shape[i]->evaluator, units, (size_t)s->workers);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* Large work takes the workers that are idle along; small work would wait longer for them than it runs. */
static int threads_for(hemi_service *s, size_t products) {
    return products < HEMI_SERVER_PARALLEL_PRODUCTS ? 1 : hemi_compute_threads(s);
}

static void evaluate(hemi_exchange *x, const hemi_server_keys *keys, int threads) {
    hemi_error err = {0};
    uint8_t *reply = NULL;
    size_t bytes = 0;
    const double start = hemi_now_ms();
    const hemi_evaluate_options options = {.threads = threads, .progress = hemi_compute_progress, .progress_context = x, .stop = hemi_peer_gone(x->peer)};
    const hemi_status status = hemi_evaluate_with(x->model->evaluator, x->model->evaluators, keys, x->body, x->received,
                                                  &options, &reply, &bytes, &err);
    x->compute_ms = hemi_now_ms() - start;
    if (status != HEMI_OK)
        hemi_compute_failed(x, 0, status, &err);
    else
        hemi_compute_answer(x, reply, bytes);
}

/* With the client's keys; counted for the modules if all went well. */
static void compute(hemi_exchange *x, size_t products, hemi_served_shape *const *shape, size_t modules, size_t rows) {
    hemi_charge charge;
    const hemi_server_keys *keys = hemi_keys_acquire(x);
    if (!keys) return;
    if (hemi_compute_charge(x, &charge, shape, modules, rows)) {
        evaluate(x, keys, threads_for(x->service, products));
        hemi_compute_settle(x, &charge, shape);
    }
    hemi_key_cache_release(x->service->keys, keys);
}

static void infer_linear(hemi_exchange *x) {
    hemi_request r;
    hemi_error err = {0};
    hemi_served_shape *shape[HEMI_REQUEST_MODULES_MAX];
    size_t products, rows;
    const hemi_status status = hemi_request_parse(&r, x->body, x->received, &err);
    if (status != HEMI_OK) {
        hemi_answer_error(x, 0, status, "%s", err.message);
        return;
    }
    if (!find_shapes(x, &r, shape, &products, &rows) || !hemi_exchange_hold_reply(x, reply_bytes(&r, shape), working_bytes(x->service, shape, r.modules, r.units))) return;
    compute(x, products, shape, r.modules, rows);
}

/* Places for rows are counted, as the server cannot see which are empty. */
static void infer_circuit(hemi_exchange *x) {
    hemi_ckks_request r;
    hemi_error err = {0};
    const hemi_status status = hemi_ckks_request_read_header(&r, x->body, x->received, &err); /* its numbers: hemi_evaluate_with */
    if (status != HEMI_OK) {
        hemi_answer_error(x, 0, status, "%s", err.message);
        return;
    }
    hemi_served_shape *shape = hemi_compute_shape(x, r.module_id);
    if (!shape) return;
    if (!shape->module->is_circuit) {
        hemi_answer_error(x, 0, HEMI_ERR_PARAMS, "the request is of set %s, the module of %s", r.params->name, shape->info.params->name);
        return;
    }
    const hemi_circuit_io *io = &shape->module->io;
    const size_t rows = (size_t)r.units * io->rows;
    const hemi_ckks_request reply = hemi_circuit_reply(io, &r);
    if (!rows_are_few(x, shape->module, HEMI_FORM_SINGLE, r.units, rows) || !hemi_exchange_hold_reply(x, hemi_ckks_reply_bytes(&reply), working_bytes(x->service, &shape, 1, r.units))) return;
    compute(x, SIZE_MAX, &shape, 1, rows); /* however small: by all idle workers */
}

void hemi_infer_work(hemi_exchange *x) {
    if (hemi_ckks_request_is(x->body, x->received))
        infer_circuit(x);
    else
        infer_linear(x);
}
