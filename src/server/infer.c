/* POST /v2/models/{model}/infer: from an encrypted input to an encrypted output. */
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "model/module.h"
#include "server/exchange.h"
#include "wire/wire.h"

void hemi_infer_begin(hemi_exchange *x) {
    const char *key = hemi_exchange_header(x, "Hemi-Key");
    x->has_key = key && hemi_hex_parse(x->key, sizeof x->key, key);
    if (!x->has_key) {
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT,
                          "the header Hemi-Key must hold the BLAKE2b-256 hash of evaluation keys that were put at "
                          "/v2/keys/{hash}: 64 hexadecimal digits in lower case");
        return;
    }
    x->body = malloc(x->body_bytes ? x->body_bytes : 1); /* the system gives pages as they are filled */
    if (!x->body) hemi_answer_error(x, 0, HEMI_ERR_MEMORY, "no memory for a request of %zu bytes", x->body_bytes);
}

/* The modules that the request names, and how many rows. */
static bool find_shapes(hemi_exchange *x, const hemi_request *r, hemi_served_shape *shape[HEMI_REQUEST_MODULES_MAX],
                        size_t *products, size_t *rows) {
    *products = 0;
    *rows = 0;
    for (size_t i = 0; i < r->modules; i++) {
        shape[i] = hemi_served_model_shape(x->model, r->module_id[i]);
        if (!shape[i]) {
            hemi_answer_error(x, 0, HEMI_ERR_CONFLICT,
                              "the model %s has no module with this id: it was compiled anew since the client "
                              "fetched its description; fetch it again",
                              x->model->name);
            return false;
        }
        const hemi_linear_layout *l = hemi_module_layout(shape[i]->module, r->form);
        if (!l) {
            hemi_answer_error(x, 0, HEMI_ERR_FORMAT, "the request is of form %d, which the module does not have", (int)r->form);
            return false;
        }
        *products += r->units * hemi_linear_products(l);
        *rows = (size_t)r->units * hemi_linear_places(l);
        if (r->units > hemi_served_units_max(shape[i]->module, r->form, x->service->max_rows)) {
            hemi_answer_error(x, 0, HEMI_ERR_TOO_LARGE, "%zu rows in one request: this server takes %zu", *rows, x->service->max_rows);
            return false;
        }
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

/* Large work takes the workers that are idle along; small work would wait longer for them than it runs. */
static int threads_for(hemi_service *s, size_t products) {
    if (products < HEMI_SERVER_PARALLEL_PRODUCTS) return 1;
    const int busy = (int)hemi_jobs_busy(s->jobs); /* this one included */
    return busy < s->workers ? s->workers - busy + 1 : 1;
}

static void evaluate(hemi_exchange *x, const hemi_server_keys *keys, int threads) {
    hemi_service *s = x->service;
    hemi_error err = {0};
    uint8_t *reply = NULL;
    size_t bytes = 0;
    const double start = hemi_now_ms();
    const hemi_status status = hemi_evaluate(x->model->evaluator, x->model->evaluators, keys, x->body, x->received,
                                             threads, &reply, &bytes, &err);
    x->compute_ms = hemi_now_ms() - start;
    if (status != HEMI_OK) {
        hemi_answer_error(x, 0, status, "%s", err.message);
        return;
    }
    x->computed = true;
    hemi_metrics_compute(&s->metrics, x->compute_ms);
    hemi_answer_header(x, "Hemi-Server-Ms", "%.4f", x->compute_ms);
    hemi_answer_header(x, "Server-Timing", "compute;dur=%.4f", x->compute_ms);
    hemi_answer_bytes(x, MHD_HTTP_OK, "application/octet-stream", reply, bytes, hemi_bytes_free);
}

void hemi_infer_work(hemi_exchange *x) {
    hemi_service *s = x->service;
    hemi_request r;
    hemi_error err = {0};
    hemi_served_shape *shape[HEMI_REQUEST_MODULES_MAX];
    size_t products, rows;
    const hemi_status status = hemi_request_parse(&r, x->body, x->received, &err);
    if (status != HEMI_OK) {
        hemi_answer_error(x, 0, status, "%s", err.message);
        return;
    }
    if (!find_shapes(x, &r, shape, &products, &rows) || !hemi_exchange_hold_reply(x, reply_bytes(&r, shape))) return;
    const hemi_server_keys *keys = hemi_key_store_acquire(s->keys, x->key);
    if (!keys) {
        hemi_answer_error(x, 0, HEMI_ERR_KEY,
                          "this server does not have these evaluation keys (any more): put them at /v2/keys/{hash} and "
                          "send the same request again");
        return;
    }
    evaluate(x, keys, threads_for(s, products));
    hemi_key_store_release(s->keys, keys);
    if (!x->computed) return;
    x->rows = rows;
    for (size_t i = 0; i < r.modules; i++) {
        atomic_fetch_add_explicit(&shape[i]->requests, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&shape[i]->rows, rows, memory_order_relaxed);
    }
}
