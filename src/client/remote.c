/* A module on a server: encrypt, send, decrypt. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "client/batch_call.h"
#include "client/circuit_call.h"
#include "client/codec.h"
#include "wire/wire.h"

#define UNITS_PER_REQUEST 512 /* more are sent in several requests: what is held in memory stays bounded */

struct hemi_remote {
    hemi_client *client;
    hemi_module *own; /* NULL when the caller gave the description */
    const hemi_module *module;
    hemi_module_info info;
    hemi_pool *pool; /* of batches of rows; NULL where they are not possible */
    bool units_only;  /* the server does not hold this module for batches of rows */
    bool single_only; /* the server does not hold this module for packed rows */
    char *model;
    char *name;                    /* "module 'seq.0' of model 'm'": for messages */
    char path[HEMI_HTTP_PATH_MAX]; /* of its infer route */
};

static hemi_status set_names(hemi_remote *remote, const char *model, const char *name, hemi_error *err) {
    char text[256];
    if (!model || !model[0] || !name || !name[0])
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "an empty name of a model or a module");
    snprintf(text, sizeof text, "module '%.80s' of model '%.80s'", name, model);
    remote->name = hemi_strdup(text);
    remote->model = hemi_strdup(model);
    if (!remote->name || !remote->model) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    strcpy(remote->path, "/v2/models/");
    if (!hemi_http_path_append(remote->path, model) || strlen(remote->path) + 8 > HEMI_HTTP_PATH_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "the name of the model is too long");
    strcat(remote->path, "/infer");
    return HEMI_OK;
}

/* with: the description, or NULL to fetch it and to gather those of the whole model. */
static hemi_status open_locked(hemi_remote *remote, const char *model, const char *name, const char *shape,
                               const hemi_module *with, hemi_error *err) {
    HEMI_TRY(set_names(remote, model, name, err));
    if (!with) HEMI_TRY(hemi_client_describe(remote->client, &remote->own, model, name, shape, err));
    remote->module = with ? with : remote->own;
    hemi_module_get_info(remote->module, &remote->info);
    HEMI_TRY(hemi_client_add_module(remote->client, remote->module, err));
    HEMI_TRY(hemi_pools_get(remote->client->pools, &remote->pool, model, &remote->module, 1, err));
    return with ? HEMI_OK : hemi_client_gather(remote->client, model, err);
}

static hemi_status open_remote(hemi_remote **out, hemi_client *client, const char *model, const char *name,
                               const char *shape, const hemi_module *with, hemi_error *err) {
    *out = NULL;
    hemi_remote *remote = hemi_alloc(1, sizeof *remote);
    if (!remote) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    remote->client = client;
    pthread_mutex_lock(&client->lock);
    hemi_status status = open_locked(remote, model, name, shape, with, err);
    pthread_mutex_unlock(&client->lock);
    if (status != HEMI_OK) {
        hemi_remote_free(remote);
        return status;
    }
    *out = remote;
    return HEMI_OK;
}

hemi_status hemi_remote_open(hemi_remote **out, hemi_client *client, const char *model, const char *module,
                             const char *shape, hemi_error *err) {
    return open_remote(out, client, model, module, shape, NULL, err);
}

hemi_status hemi_remote_open_with(hemi_remote **out, hemi_client *client, const char *model, const char *name,
                                  const hemi_module *module, hemi_error *err) {
    *out = NULL;
    if (!module) return hemi_fail(err, HEMI_ERR_ARGUMENT, "no description of the module was given");
    return open_remote(out, client, model, name, NULL, module, err);
}

const hemi_module *hemi_remote_module(const hemi_remote *remote) { return remote->module; }

void hemi_remote_free(hemi_remote *remote) {
    if (!remote) return;
    hemi_module_free(remote->own);
    hemi_free(remote->name);
    hemi_free(remote->model);
    hemi_free(remote);
}

/* ---- a call: of one module, or of several that share an input */

typedef struct shared_call {
    hemi_remote *const *remotes;
    size_t count;
    hemi_pool *pool; /* of these modules; NULL where batches are not possible */
    const hemi_module *module[HEMI_CALL_MODULES_MAX];
    hemi_pending *pending[HEMI_CALL_MODULES_MAX];
    float *y[HEMI_CALL_MODULES_MAX]; /* of the present rows */
    hemi_call_stats *stats;
} shared_call;

static hemi_status exchange(shared_call *c, const uint8_t *request, size_t request_bytes, hemi_error *err) {
    hemi_remote *first = c->remotes[0];
    hemi_http_reply reply;
    size_t bound = 0;
    for (size_t i = 0; i < c->count; i++) bound += hemi_pending_reply_bytes(c->module[i], c->pending[i]);
    const hemi_post post = {.path = first->path,
                            .name = first->name,
                            .params = first->info.params,
                            .body = request,
                            .bytes = request_bytes,
                            .reply_bytes_max = bound};
    HEMI_TRY(hemi_client_post(first->client, &post, &reply, c->stats, err));
    c->stats->upload_bytes += request_bytes;
    c->stats->download_bytes += reply.bytes;
    double start = hemi_now_ms();
    hemi_status status = hemi_decrypt_many(c->module, c->count, first->client->keys, c->pending, reply.body, reply.bytes, c->y, err);
    c->stats->decrypt_ms += hemi_now_ms() - start;
    hemi_http_reply_clear(&reply);
    return status == HEMI_OK ? status
                             : hemi_fail_in(err, status, "the reply of %.120s to %s%s", hemi_http_url(first->client->http),
                                            first->name, c->count > 1 ? " and others" : "");
}

static hemi_status call_as(shared_call *c, hemi_form form, const float *x, size_t rows, hemi_error *err) {
    uint8_t *request = NULL;
    size_t request_bytes = 0;
    double start = hemi_now_ms();
    HEMI_TRY(hemi_encrypt_many(c->module, c->count, c->remotes[0]->client->keys, form, x, rows, c->pending, &request, &request_bytes, err));
    c->stats->encrypt_ms += hemi_now_ms() - start;
    hemi_status status = exchange(c, request, request_bytes, err);
    hemi_bytes_release(request);
    for (size_t i = 0; i < c->count; i++) hemi_pending_free(c->pending[i]);
    return status;
}

/* A server that does not hold a module for packed rows says so; then rows are encrypted anew, one in each unit, and it is not asked
 * again. */
static hemi_status call_units(shared_call *c, const float *x, size_t rows, hemi_error *err) {
    bool single_only = false;
    for (size_t i = 0; i < c->count; i++) single_only |= c->remotes[i]->single_only;
    const hemi_form form = single_only ? HEMI_FORM_SINGLE : hemi_form_for_all(c->module, c->count, rows);
    const hemi_status status = call_as(c, form, x, rows, err);
    if (status != HEMI_ERR_UNSUPPORTED || form == HEMI_FORM_SINGLE) return status;
    for (size_t i = 0; i < c->count; i++) c->remotes[i]->single_only = true;
    return call_as(c, HEMI_FORM_SINGLE, x, rows, err);
}

/* The next rows of a call, in the best form; how many they are goes to *part. */
static hemi_status call_part(shared_call *c, const float *x, size_t rows, size_t *part, hemi_error *err) {
    hemi_remote *first = c->remotes[0];
    bool done = false;
    hemi_batch_call call = {.client = first->client,
                            .pool = c->pool,
                            .path = first->path,
                            .name = first->name,
                            .x = x,
                            .rows = rows,
                            .y = c->y,
                            .stats = c->stats};
    *part = rows;
    if (c->pool) HEMI_TRY(hemi_batch_call_prepared(&call, &done, err));
    if (done) return HEMI_OK;
    const size_t whole = c->pool && !first->units_only ? hemi_batch_call_rows(c->pool, rows) : 0;
    if (whole > 0) {
        *part = call.rows = whole;
        const hemi_status status = hemi_batch_call_whole(&call, err);
        if (status != HEMI_ERR_UNSUPPORTED) return status;
        first->units_only = true;
        *part = rows;
    }
    const size_t units = hemi_module_units(first->module, HEMI_FORM_SINGLE, 1);
    const size_t at_once = units < UNITS_PER_REQUEST ? UNITS_PER_REQUEST / units : 1;
    if (rows > at_once) *part = at_once;
    const hemi_status status = call_units(c, x, *part, err);
    if (c->pool) hemi_pool_done(c->pool, NULL, false);
    return status;
}

hemi_status hemi_remote_prepare(hemi_remote *remote, size_t rows, hemi_error *err) {
    hemi_client *client = remote->client;
    if (!remote->pool)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "%s cannot be called by batches of rows, and so not be prepared",
                         remote->name);
    if (rows == 0 || rows > HEMI_BATCH_SLOTS_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "%zu rows cannot be prepared at once: 1 to %d can", rows,
                         HEMI_BATCH_SLOTS_MAX);
    pthread_mutex_lock(&client->lock);
    const hemi_status status = hemi_pool_fill(remote->pool, client->http, (uint32_t)rows, err);
    pthread_mutex_unlock(&client->lock);
    return status;
}

size_t hemi_remote_prepared(hemi_remote *remote) { return remote->pool ? hemi_pool_slots(remote->pool) : 0; }

static hemi_status check_shared(const shared_call *c, size_t rows, hemi_error *err) {
    if (c->count < 1 || c->count > HEMI_CALL_MODULES_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "%zu modules in one call: 1 to %d", c->count, HEMI_CALL_MODULES_MAX);
    for (size_t i = 0; i < c->count; i++) {
        const hemi_remote *r = c->remotes[i];
        if (r->client != c->remotes[0]->client || strcmp(r->path, c->remotes[0]->path) != 0)
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "%s and %s are not of one model and client", c->remotes[0]->name, r->name);
        if (rows > SIZE_MAX / sizeof(float) / ((size_t)r->info.inputs + r->info.outputs))
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "%zu rows are too many", rows);
    }
    return HEMI_OK;
}

static hemi_status call_circuit(const hemi_remote *r, const float *x, size_t rows, float *y, hemi_call_stats *stats, hemi_error *err) {
    const hemi_circuit_call call = {
        .client = r->client, .module = r->module, .path = r->path, .name = r->name, .x = x, .rows = rows, .y = y, .stats = stats};
    pthread_mutex_lock(&r->client->lock);
    const hemi_status status = hemi_circuit_call_all(&call, err);
    pthread_mutex_unlock(&r->client->lock);
    return status;
}

/* Of modules that share their input, in as many parts as it takes. */
static hemi_status call_rows(shared_call *c, const float *x, size_t rows, float *const *y, hemi_error *err) {
    hemi_remote *first = c->remotes[0];
    hemi_client *client = first->client;
    const size_t inputs = first->info.inputs;
    HEMI_TRY(hemi_modules_share(c->module, c->count, err));
    pthread_mutex_lock(&client->lock);
    hemi_status status = c->count == 1 ? HEMI_OK : hemi_pools_get(client->pools, &c->pool, first->model, c->module, c->count, err);
    if (c->count == 1) c->pool = first->pool;
    for (size_t from = 0, part; from < rows && status == HEMI_OK; from += part) {
        for (size_t i = 0; i < c->count; i++) c->y[i] = y[i] + from * c->remotes[i]->info.outputs;
        status = call_part(c, x + from * inputs, rows - from, &part, err);
    }
    pthread_mutex_unlock(&client->lock);
    return status;
}

hemi_status hemi_remote_call_many(hemi_remote *const *remotes, size_t count, const float *x, size_t rows,
                                  float *const *y, hemi_call_stats *stats, hemi_error *err) {
    hemi_call_stats total = {0};
    shared_call c = {.remotes = remotes, .count = count, .stats = &total};
    HEMI_TRY(check_shared(&c, rows, err));
    for (size_t i = 0; i < count; i++) c.module[i] = remotes[i]->module;
    const hemi_status status = count == 1 && c.module[0]->is_circuit ? call_circuit(remotes[0], x, rows, y[0], &total, err)
                                                                     : call_rows(&c, x, rows, y, err);
    for (size_t i = 0; status != HEMI_OK && rows > 0 && i < count; i++) hemi_wipe(y[i], rows * remotes[i]->info.outputs * sizeof *y[i]);
    if (stats) *stats = total;
    return status;
}

hemi_status hemi_remote_call(hemi_remote *remote, const float *x, size_t rows, float *y, hemi_call_stats *stats,
                             hemi_error *err) {
    return hemi_remote_call_many(&remote, 1, x, rows, &y, stats, err);
}
