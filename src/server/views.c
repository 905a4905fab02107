/* Answers to GET: from what is there, without work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "server/exchange.h"

#define JSON_TYPE "application/json"

/* `text` lives as long as the request at least. */
static void answer_text(hemi_exchange *x, const char *type, const char *text) {
    hemi_answer_bytes(x, MHD_HTTP_OK, type, (void *)(uintptr_t)text, strlen(text), NULL);
}

void hemi_view_health(hemi_exchange *x) {
    if (x->route.id == HEMI_ROUTE_LIVE)
        answer_text(x, JSON_TYPE, "{\"live\":true}");
    else if (atomic_load(&x->service->stopping))
        hemi_answer_error(x, 0, HEMI_ERR_BUSY, "the server is stopping");
    else
        answer_text(x, JSON_TYPE, "{\"ready\":true}"); /* connections are only accepted when all modules are ready */
}

void hemi_view_metrics(hemi_exchange *x) {
    hemi_service *s = x->service;
    hemi_gauges g = {.keys = hemi_key_cache_get_figures(s->keys),
                     .keys_bytes_max = s->keys_bytes_max,
                     .prepared = hemi_prepared_get_figures(s->prepared),
                     .queue_length = hemi_jobs_waiting(s->jobs, HEMI_LANE_FRONT),
                     .workers = (size_t)s->workers,
                     .workers_busy = hemi_jobs_busy(s->jobs),
                     .connections = hemi_peers_count(s->peers),
                     .bodies_bytes = atomic_load(&s->bodies_bytes),
                     .bodies_bytes_max = s->bodies_bytes_max,
                     .store_errors = atomic_load(&s->store_errors),
                     .identity = s->identity,
                     .anyone = &s->anyone,
                     .budget = s->budget,
                     .uptime_s = (hemi_now_ms() - s->started_ms) * 1e-3};
    size_t length = 0;
    hemi_uploads_figures(s->uploads, &g.uploads, &g.uploads_bytes);
    char *text = hemi_metrics_text(&s->metrics, &g, x->registry, &length);
    if (!text)
        hemi_answer_error(x, 0, HEMI_ERR_MEMORY, "no memory for the metrics");
    else
        hemi_answer_bytes(x, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, length, free);
}

void hemi_view_models(hemi_exchange *x) {
    answer_text(x, JSON_TYPE, x->model ? x->model->json : x->registry->json);
}

void hemi_view_progress(hemi_exchange *x) {
    hemi_notice_text t;
    uint8_t id[HEMI_SERVER_PROGRESS_ID_BYTES], slot[HEMI_SERVER_PROGRESS_ID_BYTES];
    char text[128], *copy;
    const bool is_id = hemi_hex_parse(id, sizeof id, x->route.argument[0]);
    if (is_id) hemi_tenant_slot(slot, sizeof slot, x->tenant, id, sizeof id);
    if (!is_id || !hemi_board_read(x->service->board, slot, &t)) {
        hemi_answer_error(x, 0, HEMI_ERR_NOT_FOUND, "no request with this id (Hemi-Progress) waits or is computed here (any more)");
        return;
    }
    snprintf(text, sizeof text, "{\"done\":%zu,\"total\":%zu,\"state\":\"%s\"}", t.done, t.total, t.computing ? "computing" : "waiting");
    copy = strdup(text);
    if (!copy)
        hemi_answer_error(x, 0, HEMI_ERR_MEMORY, "no memory for an answer");
    else
        hemi_answer_bytes(x, MHD_HTTP_OK, JSON_TYPE, copy, strlen(copy), free);
}

/* "po_1_10_pc, po_1_20_pc" */
static void list_shapes(char *text, size_t size, const hemi_served_module *module) {
    size_t n = 0;
    text[0] = 0;
    for (size_t i = 0; i < module->shapes && n + 1 < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%s", i ? ", " : "", module->shape[i].name);
}

void hemi_view_client(hemi_exchange *x) {
    const hemi_served_module *module = hemi_served_model_module(x->model, x->route.argument[1]);
    const char *wanted = hemi_exchange_query(x, "shape");
    char shapes[256];
    if (!module) {
        hemi_answer_error(x, 0, HEMI_ERR_NOT_FOUND,
                          "the model %s has no module %s, or several that are written so with '_' for '.'; "
                          "GET /v2/models/%s lists them",
                          x->model->name, x->route.argument[1], x->model->name);
        return;
    }
    list_shapes(shapes, sizeof shapes, module);
    if (!wanted && module->shapes > 1) {
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT,
                          "the module %s was compiled for %zu shapes; add ?shape= with one of: %s", module->name,
                          module->shapes, shapes);
        return;
    }
    for (size_t i = 0; i < module->shapes; i++)
        if (!wanted || strcmp(module->shape[i].name, wanted) == 0) {
            answer_text(x, JSON_TYPE, hemi_module_client_json(module->shape[i].module));
            return;
        }
    hemi_answer_error(x, 0, HEMI_ERR_NOT_FOUND, "the module %s was not compiled for this shape; there is: %s",
                      module->name, shapes);
}
