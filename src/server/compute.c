/* What requests for rows and requests for batches share, before and after what each computes. */
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
    return busy < s->workers ? s->workers - busy + 1 : 1;
}

void hemi_compute_progress(void *exchange, const char *what, size_t done, size_t total) {
    const hemi_exchange *x = exchange;
    (void)what;
    hemi_board_change(x->service->board, x->notice, done, total);
}

void hemi_compute_answer(hemi_exchange *x, uint8_t *reply, size_t bytes) {
    x->computed = true;
    if (x->route.id == HEMI_ROUTE_INFER) hemi_metrics_compute(&x->service->metrics, x->compute_ms);
    hemi_answer_header(x, "Hemi-Server-Ms", "%.4f", x->compute_ms);
    hemi_answer_header(x, "Server-Timing", "compute;dur=%.4f", x->compute_ms);
    hemi_answer_bytes(x, MHD_HTTP_OK, "application/octet-stream", reply, bytes, hemi_bytes_free);
}

void hemi_compute_count(hemi_exchange *x, hemi_served_shape *const *shape, size_t modules, size_t rows) {
    x->rows = rows;
    for (size_t i = 0; i < modules; i++) {
        atomic_fetch_add_explicit(&shape[i]->requests, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&shape[i]->rows, rows, memory_order_relaxed);
    }
}
