/* What requests for rows and requests for batches share, before and after what each computes. */
#include <stdio.h>
#include <string.h>

#include "server/exchange.h"

hemi_served_shape *hemi_compute_shape(hemi_exchange *x, const uint8_t id[HEMI_MODULE_ID_BYTES]) {
    hemi_served_shape *shape = hemi_served_model_shape(x->model, id);
    if (!shape)
        hemi_answer_error(x, 0, HEMI_ERR_CONFLICT,
                          "the model %s has no module with this id: it was compiled anew since the client "
                          "fetched its description; fetch it again",
                          x->model->name);
    return shape;
}

int hemi_compute_threads(hemi_service *s) {
    const int busy = (int)hemi_jobs_busy(s->jobs); /* the caller's worker included */
    const int threads = busy < s->workers ? s->workers - busy + 1 : 1;
    hemi_jobs_add_helpers(s->jobs, threads - 1);
    return threads;
}

void hemi_compute_progress(void *exchange, const char *what, size_t done, size_t total) {
    const hemi_exchange *x = exchange;
    (void)what;
    hemi_board_change(x->service->board, x->notice, done, total);
}

void hemi_compute_failed(hemi_exchange *x, unsigned http, hemi_status status, const hemi_error *err) {
    if (status == HEMI_ERR_NETWORK && atomic_load(&x->service->stopping)) {
        hemi_answer_error(x, 0, HEMI_ERR_BUSY, "the server is stopping");
        return;
    }
    if (status == HEMI_ERR_NETWORK) atomic_fetch_add_explicit(&x->service->metrics.cancelled, 1, memory_order_relaxed);
    hemi_answer_error(x, http, status, "%s", err->message);
}

void hemi_compute_answer(hemi_exchange *x, uint8_t *reply, size_t bytes) {
    x->computed = true;
    if (x->route.id == HEMI_ROUTE_INFER) hemi_metrics_compute(&x->service->metrics, x->compute_ms);
    hemi_answer_header(x, "Hemi-Server-Ms", "%.4f", x->compute_ms);
    hemi_answer_header(x, "Server-Timing", "compute;dur=%.4f", x->compute_ms);
    hemi_answer_bytes(x, MHD_HTTP_OK, "application/octet-stream", reply, bytes, hemi_bytes_free);
}

/* Unknowns of one output: those of a row, or, of a convolution, of one position of its kernel (at most: where the stride is more than 1, zeros at
 * its edges count too). */
static uint64_t unknowns(const hemi_module_info *info) {
    return strcmp(info->operation, "conv") == 0 ? (uint64_t)info->map_inputs * info->taps : info->inputs;
}

static const char *module_name(const hemi_served_model *model, const hemi_served_shape *shape) {
    for (size_t i = 0; i < model->modules; i++)
        if (shape >= model->module[i].shape && shape < model->module[i].shape + model->module[i].shapes) return model->module[i].name;
    return "";
}

bool hemi_compute_charge(hemi_exchange *x, hemi_charge *charge, hemi_served_shape *const *shape, size_t modules, size_t rows) {
    hemi_error err = {0};
    uint8_t context[HEMI_KEY_ID_BYTES + 1];
    charge->tenant = x->tenant->name;
    charge->modules = modules;
    charge->rows = rows;
    for (size_t i = 0; i < modules; i++) { /* the shapes of a module have the same weights: one account */
        snprintf(charge->module[i].subject, sizeof charge->module[i].subject, "%s/%s", x->model->name, module_name(x->model, shape[i]));
        charge->module[i].inputs = unknowns(&shape[i]->info);
    }
    memcpy(context, x->slot, HEMI_KEY_ID_BYTES);
    context[HEMI_KEY_ID_BYTES] = (uint8_t)x->route.id;
    hemi_budget_digest(x->service->budget, charge->digest, x->tenant->name, context, sizeof context, x->body, x->received);
    const hemi_status status = hemi_budget_take(x->service->budget, charge, &err);
    if (status == HEMI_OK) return true;
    if (status == HEMI_ERR_IO) hemi_service_store_failed(x->service, &err);
    hemi_answer_error(x, status == HEMI_ERR_IO ? MHD_HTTP_SERVICE_UNAVAILABLE : 0, status, "%s", err.message);
    return false;
}

void hemi_compute_settle(hemi_exchange *x, const hemi_charge *charge, hemi_served_shape *const *shape) {
    hemi_budget_settle(x->service->budget, charge, x->computed);
    if (!x->computed) return;
    x->rows = charge->rows;
    for (size_t i = 0; i < charge->modules; i++) {
        atomic_fetch_add_explicit(&shape[i]->requests, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&shape[i]->rows, charge->rows, memory_order_relaxed);
    }
}
