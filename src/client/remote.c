/* A module on a server: encrypt, send, decrypt. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "client/codec.h"
#include "client/session.h"
#include "hemi/client.h"
#include "wire/wire.h"

#define UNITS_PER_REQUEST 512 /* more are sent in several requests: what is held in memory stays bounded */

struct hemi_remote {
    hemi_client *client;
    hemi_module *own; /* NULL when the caller gave the description */
    const hemi_module *module;
    hemi_module_info info;
    bool single_only; /* the server does not hold this module for packed rows */
    char *name;                    /* "module 'seq.0' of model 'm'": for messages */
    char path[HEMI_HTTP_PATH_MAX]; /* of its infer route */
};

static hemi_status set_names(hemi_remote *remote, const char *model, const char *name, hemi_error *err) {
    char text[256];
    if (!model || !model[0] || !name || !name[0])
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "an empty name of a model or a module");
    snprintf(text, sizeof text, "module '%.80s' of model '%.80s'", name, model);
    remote->name = hemi_strdup(text);
    if (!remote->name) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
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
    hemi_free(remote);
}

/* ---- a call */

/* Sends the request; when the server says that it does not have the keys, they are put there and the very same bytes are
 * sent once more. */
static hemi_status post(hemi_remote *remote, const void *body, size_t bytes, size_t bound, hemi_http_reply *reply,
                        hemi_call_stats *stats, hemi_error *err) {
    hemi_client *client = remote->client;
    const hemi_key_set *keys;
    HEMI_TRY(hemi_client_ensure_keys(client, remote->info.params, false, &keys, &stats->evaluation_key_bytes, err));
    for (int i = 0;; i++) {
        hemi_http_request request = {.method = "POST",
                                     .path = remote->path,
                                     .body = body,
                                     .body_bytes = bytes,
                                     .key_id = keys->id,
                                     .reply_bytes_max = bound};
        HEMI_TRY(hemi_http_send(client->http, &request, reply, err));
        stats->network_ms += reply->elapsed_ms > reply->server_ms ? reply->elapsed_ms - reply->server_ms : 0;
        stats->server_ms += reply->server_ms;
        hemi_status said = hemi_http_reply_status(reply);
        if (said == HEMI_OK) return HEMI_OK;
        hemi_status status = hemi_http_reply_fail(client->http, &request, reply, err);
        hemi_http_reply_clear(reply);
        if (said == HEMI_ERR_CONFLICT)
            return hemi_fail_in(err, status,
                                "%s has changed on the server since this client fetched its description: open it again",
                                remote->name);
        if (said != HEMI_ERR_KEY || i > 0) return status;
        HEMI_TRY(hemi_client_ensure_keys(client, remote->info.params, true, &keys, &stats->evaluation_key_bytes, err));
    }
}

static hemi_status exchange(hemi_remote *remote, hemi_pending *pending, const uint8_t *request, size_t request_bytes,
                            float *y, hemi_call_stats *stats, hemi_error *err) {
    hemi_http_reply reply;
    HEMI_TRY(post(remote, request, request_bytes, hemi_pending_reply_bytes(remote->module, pending), &reply, stats, err));
    stats->upload_bytes += request_bytes;
    stats->download_bytes += reply.bytes;
    double start = hemi_now_ms();
    hemi_status status = hemi_decrypt(remote->module, remote->client->keys, pending, reply.body, reply.bytes, y, err);
    stats->decrypt_ms += hemi_now_ms() - start;
    hemi_http_reply_clear(&reply);
    return status == HEMI_OK ? status
                             : hemi_fail_in(err, status, "the reply of %.120s to %s",
                                            hemi_http_url(remote->client->http), remote->name);
}

static hemi_status call_as(hemi_remote *remote, hemi_form form, const float *x, size_t rows, float *y, hemi_call_stats *stats,
                           hemi_error *err) {
    hemi_pending *pending = NULL;
    uint8_t *request = NULL;
    size_t request_bytes = 0;
    double start = hemi_now_ms();
    HEMI_TRY(hemi_encrypt_as(remote->module, remote->client->keys, form, x, rows, &pending, &request, &request_bytes, err));
    stats->encrypt_ms += hemi_now_ms() - start;
    hemi_status status = exchange(remote, pending, request, request_bytes, y, stats, err);
    hemi_bytes_release(request);
    hemi_pending_free(pending);
    return status;
}

/* A server that does not hold a module for packed rows says so; then rows are encrypted anew, one in each unit, and it is not asked
 * again. */
static hemi_status call_rows(hemi_remote *remote, const float *x, size_t rows, float *y, hemi_call_stats *stats, hemi_error *err) {
    const hemi_form form = remote->single_only ? HEMI_FORM_SINGLE : hemi_form_for(remote->module, rows);
    const hemi_status status = call_as(remote, form, x, rows, y, stats, err);
    if (status != HEMI_ERR_UNSUPPORTED || form == HEMI_FORM_SINGLE) return status;
    remote->single_only = true;
    return call_as(remote, HEMI_FORM_SINGLE, x, rows, y, stats, err);
}

hemi_status hemi_remote_call(hemi_remote *remote, const float *x, size_t rows, float *y, hemi_call_stats *stats,
                             hemi_error *err) {
    hemi_call_stats total = {0};
    hemi_status status = HEMI_OK;
    const size_t inputs = hemi_module_row_inputs(remote->module), outputs = hemi_module_row_outputs(remote->module);
    const size_t units = hemi_module_units(remote->module, HEMI_FORM_SINGLE, 1);
    const size_t at_once = units < UNITS_PER_REQUEST ? UNITS_PER_REQUEST / units : 1;
    if (rows > SIZE_MAX / sizeof(float) / (inputs + outputs)) return hemi_fail(err, HEMI_ERR_ARGUMENT, "%zu rows are too many", rows);
    pthread_mutex_lock(&remote->client->lock);
    for (size_t i = 0; i < rows && status == HEMI_OK; i += at_once) {
        size_t part = rows - i < at_once ? rows - i : at_once;
        status = call_rows(remote, x + i * inputs, part, y + i * outputs, &total, err);
    }
    pthread_mutex_unlock(&remote->client->lock);
    if (status != HEMI_OK && rows > 0) hemi_wipe(y, rows * outputs * sizeof *y);
    if (stats) *stats = total;
    return status;
}

/* ---- several modules that share an input */

typedef struct shared_call {
    hemi_remote *const *remotes;
    size_t count;
    const hemi_module *module[HEMI_CALL_MODULES_MAX];
    hemi_pending *pending[HEMI_CALL_MODULES_MAX];
    float *y[HEMI_CALL_MODULES_MAX]; /* of the present rows */
} shared_call;

static hemi_status shared_exchange(shared_call *c, const uint8_t *request, size_t request_bytes, hemi_call_stats *stats,
                                   hemi_error *err) {
    hemi_remote *first = c->remotes[0];
    hemi_http_reply reply;
    size_t bound = 0;
    for (size_t i = 0; i < c->count; i++) bound += hemi_pending_reply_bytes(c->module[i], c->pending[i]);
    HEMI_TRY(post(first, request, request_bytes, bound, &reply, stats, err));
    stats->upload_bytes += request_bytes;
    stats->download_bytes += reply.bytes;
    double start = hemi_now_ms();
    hemi_status status =
        hemi_decrypt_many(c->module, c->count, first->client->keys, c->pending, reply.body, reply.bytes, c->y, err);
    stats->decrypt_ms += hemi_now_ms() - start;
    hemi_http_reply_clear(&reply);
    return status == HEMI_OK ? status
                             : hemi_fail_in(err, status, "the reply of %.120s to %s and others",
                                            hemi_http_url(first->client->http), first->name);
}

static hemi_status shared_as(shared_call *c, hemi_form form, const float *x, size_t rows, hemi_call_stats *stats, hemi_error *err) {
    uint8_t *request = NULL;
    size_t request_bytes = 0;
    double start = hemi_now_ms();
    HEMI_TRY(hemi_encrypt_many(c->module, c->count, c->remotes[0]->client->keys, form, x, rows, c->pending, &request,
                               &request_bytes, err));
    stats->encrypt_ms += hemi_now_ms() - start;
    hemi_status status = shared_exchange(c, request, request_bytes, stats, err);
    hemi_bytes_release(request);
    for (size_t i = 0; i < c->count; i++) hemi_pending_free(c->pending[i]);
    return status;
}

/* As call_rows: packed rows only where the server holds all these modules for them. */
static hemi_status shared_rows(shared_call *c, const float *x, size_t rows, hemi_call_stats *stats, hemi_error *err) {
    bool single_only = false;
    for (size_t i = 0; i < c->count; i++) single_only |= c->remotes[i]->single_only;
    const hemi_form form = single_only ? HEMI_FORM_SINGLE : hemi_form_for_all(c->module, c->count, rows);
    const hemi_status status = shared_as(c, form, x, rows, stats, err);
    if (status != HEMI_ERR_UNSUPPORTED || form == HEMI_FORM_SINGLE) return status;
    for (size_t i = 0; i < c->count; i++) c->remotes[i]->single_only = true;
    return shared_as(c, HEMI_FORM_SINGLE, x, rows, stats, err);
}

static hemi_status check_shared(const shared_call *c, size_t rows, hemi_error *err) {
    if (c->count < 1 || c->count > HEMI_CALL_MODULES_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "%zu modules in one call: 1 to %d", c->count, HEMI_CALL_MODULES_MAX);
    for (size_t i = 0; i < c->count; i++) {
        const hemi_remote *r = c->remotes[i];
        if (r->client != c->remotes[0]->client || strcmp(r->path, c->remotes[0]->path) != 0)
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "%s and %s are not of one model and client", c->remotes[0]->name, r->name);
        if (rows > SIZE_MAX / sizeof(float) / (r->info.inputs + (size_t)r->info.outputs))
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "%zu rows are too many", rows);
    }
    return HEMI_OK;
}

hemi_status hemi_remote_call_many(hemi_remote *const *remotes, size_t count, const float *x, size_t rows,
                                  float *const *y, hemi_call_stats *stats, hemi_error *err) {
    hemi_call_stats total = {0};
    shared_call c = {.remotes = remotes, .count = count};
    hemi_status status = HEMI_OK;
    HEMI_TRY(check_shared(&c, rows, err));
    for (size_t i = 0; i < count; i++) c.module[i] = remotes[i]->module;
    HEMI_TRY(hemi_modules_share(c.module, count, err));
    pthread_mutex_lock(&remotes[0]->client->lock);
    for (size_t from = 0; from < rows && status == HEMI_OK; from += UNITS_PER_REQUEST) {
        size_t part = rows - from < UNITS_PER_REQUEST ? rows - from : UNITS_PER_REQUEST;
        for (size_t i = 0; i < count; i++) c.y[i] = y[i] + from * remotes[i]->info.outputs;
        status = shared_rows(&c, x + from * remotes[0]->info.inputs, part, &total, err);
    }
    pthread_mutex_unlock(&remotes[0]->client->lock);
    for (size_t i = 0; status != HEMI_OK && rows > 0 && i < count; i++)
        hemi_wipe(y[i], rows * remotes[i]->info.outputs * sizeof *y[i]);
    if (stats) *stats = total;
    return status;
}
