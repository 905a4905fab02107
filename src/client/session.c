#include "client/session.h"

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "client/keys.h"
#include "client/pool.h"
#include "client/watch.h"
#include "model/module.h"
#include "random/sample.h"

hemi_status hemi_client_new(hemi_client **out, const char *url, hemi_keys *keys, const hemi_client_options *options,
                            hemi_error *err) {
    *out = NULL;
    if (hemi_random_init() != 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "libsodium does not start");
    hemi_client *client = hemi_alloc(1, sizeof *client);
    if (!client) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    pthread_mutex_init(&client->lock, NULL);
    client->keys = keys;
    hemi_client_options none = {0};
    if (!options) options = &none;
    client->circuit_timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : HEMI_HTTP_CIRCUIT_TIMEOUT_MS;
    client->progress = options->progress;
    client->progress_context = options->progress_context;
    const hemi_http_settings settings = {.connect_timeout_ms = options->connect_timeout_ms,
                                         .timeout_ms = options->timeout_ms,
                                         .token = options->token,
                                         .ca_file = options->ca_file,
                                         .allow_plain_token = options->allow_plain_token};
    hemi_status status = hemi_http_new(&client->http, url, &settings, err);
    if (status == HEMI_OK && !keys) {
        client->own_keys = true;
        status = hemi_keys_new(&client->keys, NULL, err);
    }
    if (status == HEMI_OK)
        status = hemi_pools_new(&client->pools, client->http, client->keys, options, err);
    if (status != HEMI_OK) {
        hemi_client_free(client);
        return status;
    }
    *out = client;
    return HEMI_OK;
}

void hemi_client_free(hemi_client *client) {
    if (!client) return;
    hemi_pools_free(client->pools); /* its thread uses the keys */
    for (size_t i = 0; i < client->sets; i++) {
        for (size_t j = 0; j < client->set[i].count; j++) hemi_module_free(client->set[i].module[j]);
        hemi_bytes_release(client->set[i].bytes);
    }
    for (size_t i = 0; i < client->models; i++) hemi_free(client->model[i]);
    if (client->own_keys) hemi_keys_free(client->keys);
    hemi_http_free(client->http);
    pthread_mutex_destroy(&client->lock);
    hemi_free(client);
}

/* ---- what the keys must serve */

static hemi_key_set *find_set(hemi_client *client, const hemi_params *params) {
    for (size_t i = 0; i < client->sets; i++)
        if (client->set[i].params == params) return &client->set[i];
    return NULL;
}

/* Adds the key entries that a module needs (automorphisms, ring switch) to those of the set; returns how many are new. */
static size_t add_automorphisms(hemi_key_set *set, const hemi_module *module) {
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    size_t count = hemi_module_key_entries(module, t), added = 0;
    for (size_t i = 0; i < count; i++) {
        size_t j = 0;
        while (j < set->automorphisms && set->t[j] != t[i]) j++;
        if (j == set->automorphisms && j < HEMI_AUTOMORPHISMS_MAX) {
            set->t[set->automorphisms++] = t[i];
            added++;
        }
    }
    return added;
}

static hemi_status provide_set(hemi_client *client, const hemi_params *params, hemi_key_set **out, hemi_error *err) {
    hemi_key_set *set = find_set(client, params);
    if (!set) {
        if (client->sets == HEMI_CLIENT_SETS_MAX)
            return hemi_fail(err, HEMI_ERR_LIMIT, "one client serves modules of at most %d parameter sets",
                             HEMI_CLIENT_SETS_MAX);
        set = &client->set[client->sets++];
        set->params = params;
    }
    *out = set;
    return HEMI_OK;
}

/* What was made does not serve all that is needed any more. */
static void forget_bytes(hemi_key_set *set) {
    hemi_bytes_release(set->bytes);
    set->bytes = NULL;
    set->length = 0;
    set->on_server = false;
}

hemi_status hemi_client_add_module(hemi_client *client, const hemi_module *module, hemi_error *err) {
    hemi_key_set *set = NULL;
    HEMI_TRY(provide_set(client, module->info.params, &set, err));
    if (module->is_circuit) {
        bool more;
        HEMI_TRY(hemi_ckks_need_add(&set->need, &module->io, &more, err));
        if (more) forget_bytes(set);
        return HEMI_OK;
    }
    size_t known = set->automorphisms;
    if (add_automorphisms(set, module) == 0 && set->count > 0) return HEMI_OK;
    const char *json = hemi_module_client_json(module);
    hemi_module *copy = NULL;
    hemi_status status = set->count == HEMI_CLIENT_MODULES_MAX
                             ? hemi_fail(err, HEMI_ERR_LIMIT, "too many modules for one client")
                             : hemi_module_from_client_json(&copy, json, strlen(json), err);
    if (status != HEMI_OK) {
        set->automorphisms = known;
        return status;
    }
    set->module[set->count++] = copy;
    forget_bytes(set);
    return HEMI_OK;
}

/* ---- descriptions */

static hemi_status path_for(char *path, const char *model, const char *module, const char *shape, hemi_error *err) {
    if (!model || !model[0] || (module && !module[0]))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "an empty name of a model or a module");
    strcpy(path, "/v2/models/");
    bool ok = hemi_http_path_append(path, model);
    if (ok && module) {
        ok = strlen(path) + 32 < HEMI_HTTP_PATH_MAX;
        if (ok) strcat(path, "/modules/");
        ok = ok && hemi_http_path_append(path, module) && strlen(path) + 32 < HEMI_HTTP_PATH_MAX;
        if (ok) strcat(path, "/client");
    }
    if (ok && shape && (ok = strlen(path) + 32 < HEMI_HTTP_PATH_MAX)) {
        strcat(path, "?shape=");
        ok = hemi_http_path_append(path, shape);
    }
    return ok ? HEMI_OK : hemi_fail(err, HEMI_ERR_ARGUMENT, "the name of a model, a module or a shape is too long");
}

static hemi_status get(hemi_client *client, const char *path, hemi_http_reply *reply, hemi_error *err) {
    hemi_http_request request = {.method = "GET", .path = path, .reply_bytes_max = HEMI_HTTP_JSON_MAX};
    HEMI_TRY(hemi_http_send(client->http, &request, reply, err));
    if (hemi_http_reply_status(reply) == HEMI_OK) return HEMI_OK;
    hemi_status status = hemi_http_reply_fail(client->http, &request, reply, err);
    hemi_http_reply_clear(reply);
    return status;
}

hemi_status hemi_client_describe(hemi_client *client, hemi_module **out, const char *model, const char *module,
                                 const char *shape, hemi_error *err) {
    char path[HEMI_HTTP_PATH_MAX];
    hemi_http_reply reply;
    HEMI_TRY(path_for(path, model, module, shape, err));
    HEMI_TRY(get(client, path, &reply, err));
    hemi_status status =
        hemi_module_from_client_json(out, reply.body ? (const char *)reply.body : "", reply.bytes, err);
    hemi_http_reply_clear(&reply);
    if (status == HEMI_OK) return HEMI_OK;
    return hemi_fail_in(err, status, "GET %.120s%.120s: the description of the module", hemi_http_url(client->http),
                        path);
}

hemi_status hemi_client_list(hemi_client *client, const char *model, uint8_t **json, size_t *length, hemi_error *err) {
    char path[HEMI_HTTP_PATH_MAX];
    hemi_http_reply reply;
    *json = NULL;
    *length = 0;
    HEMI_TRY(path_for(path, model, NULL, NULL, err));
    pthread_mutex_lock(&client->lock);
    hemi_status status = get(client, path, &reply, err);
    pthread_mutex_unlock(&client->lock);
    if (status != HEMI_OK) return status;
    *json = hemi_alloc(reply.bytes + 1, 1);
    *length = reply.bytes;
    if (*json && reply.bytes > 0) memcpy(*json, reply.body, reply.bytes);
    hemi_http_reply_clear(&reply);
    return *json ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
}

/* ---- gathering */

static bool holds(const hemi_key_set *set, json_int_t t) {
    const bool levelled = set->params->chain > 0;
    const uint32_t *all = levelled ? set->need.t : set->t;
    const size_t count = levelled ? set->need.count : set->automorphisms;
    for (size_t i = 0; i < count; i++)
        if ((json_int_t)all[i] == t) return true;
    return false;
}

/* Does the set serve this module of the list already? Of circuits it says how many levels they take, which is limbs less one. */
static bool covered(hemi_client *client, const hemi_params *params, const json_t *entry) {
    const hemi_key_set *set = find_set(client, params);
    const json_t *list = json_object_get(entry, "automorphisms"), *levels = json_object_get(entry, "levels"), *item;
    size_t i;
    if (!set || !json_is_array(list)) return false;
    if (params->chain > 0 && (!json_is_integer(levels) || json_integer_value(levels) >= (json_int_t)set->need.limbs)) return false;
    json_array_foreach(list, i, item) if (!holds(set, json_integer_value(item))) return false;
    return true;
}

/* One compiled module of the server's list. Only where it needs more than the others is its description fetched: what is
 * believed is that, checked by our own table, not the list. A description that this client cannot read (another version, an
 * unknown set) is left out: it matters when that module is opened, which then says so. */
static hemi_status gather_one(hemi_client *client, const char *model, const json_t *entry, size_t *fetched,
                              hemi_error *err) {
    const char *name = json_string_value(json_object_get(entry, "name")),
               *shape = json_string_value(json_object_get(entry, "shape"));
    const char *set = json_string_value(json_object_get(entry, "set"));
    const hemi_params *params = set ? hemi_params_by_name(set) : NULL;
    if (!name || !name[0] || !params || covered(client, params, entry))
        return HEMI_OK;
    if ((*fetched)++ >= HEMI_CLIENT_FETCH_MAX) return HEMI_OK;
    hemi_module *module = NULL;
    hemi_status status = hemi_client_describe(client, &module, model, name, shape, err);
    if (status == HEMI_OK) status = hemi_client_add_module(client, module, err);
    hemi_module_free(module);
    return status == HEMI_ERR_NETWORK || status == HEMI_ERR_MEMORY ? status : HEMI_OK;
}

static hemi_status gather_all(hemi_client *client, const char *model, const json_t *root, hemi_error *err) {
    const json_t *modules = json_object_get(root, "modules"), *entry;
    size_t i, fetched = 0;
    if (!json_is_array(modules))
        return hemi_fail(err, HEMI_ERR_REMOTE, "the server's list of modules has not the expected form");
    json_array_foreach(modules, i, entry) HEMI_TRY(gather_one(client, model, entry, &fetched, err));
    return HEMI_OK;
}

hemi_status hemi_client_gather(hemi_client *client, const char *model, hemi_error *err) {
    for (size_t i = 0; i < client->models; i++)
        if (strcmp(client->model[i], model) == 0) return HEMI_OK;
    if (client->models == HEMI_CLIENT_MODELS_MAX)
        return hemi_fail(err, HEMI_ERR_LIMIT, "one client opens at most %d models", HEMI_CLIENT_MODELS_MAX);
    char path[HEMI_HTTP_PATH_MAX];
    hemi_http_reply reply;
    HEMI_TRY(path_for(path, model, NULL, NULL, err));
    HEMI_TRY(get(client, path, &reply, err));
    json_t *root = json_loadb(reply.body ? (const char *)reply.body : "", reply.bytes, JSON_REJECT_DUPLICATES, NULL);
    hemi_http_reply_clear(&reply);
    char *name = hemi_strdup(model);
    hemi_status status = name ? gather_all(client, model, root, err) : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    if (status == HEMI_ERR_REMOTE)
        status = hemi_fail_in(err, status, "GET %.120s%.120s", hemi_http_url(client->http), path);
    if (status == HEMI_OK) {
        client->model[client->models++] = name;
        name = NULL;
    }
    json_decref(root);
    hemi_free(name);
    return status;
}

/* ---- keys */

static hemi_status make_keys(hemi_client *client, hemi_key_set *set, hemi_error *err) {
    if (set->bytes) return HEMI_OK;
    if (set->params->chain > 0)
        HEMI_TRY(hemi_keys_levelled(client->keys, set->params, &set->need, client->progress, client->progress_context, &set->bytes,
                                    &set->length, err));
    else if (set->count == 0) /* for batches of rows alone */
        HEMI_TRY(hemi_keys_public(client->keys, set->params, &set->bytes, &set->length, err));
    else
        HEMI_TRY(hemi_keys_evaluation(client->keys, (const hemi_module *const *)set->module, set->count, &set->bytes,
                                      &set->length, err));
    uint8_t hash[32]; /* BLAKE2b-256 */
    crypto_generichash(hash, sizeof hash, set->bytes, set->length, NULL, 0);
    sodium_bin2hex(set->id, sizeof set->id, hash, sizeof hash);
    return HEMI_OK;
}

/* What was made before the application made a new secret key is of no use any more. */
static void drop_old_keys(hemi_client *client, hemi_key_set *set) {
    const uint64_t generation = hemi_keys_generation(client->keys);
    if (set->generation == generation) return;
    forget_bytes(set);
    set->generation = generation;
}

hemi_status hemi_client_ensure_keys(hemi_client *client, const hemi_params *params, bool again,
                                    const hemi_key_set **out, size_t *uploaded, hemi_error *err) {
    hemi_key_set *set = NULL;
    HEMI_TRY(provide_set(client, params, &set, err));
    *out = set;
    drop_old_keys(client, set);
    if (again) set->on_server = false;
    if (set->on_server) return HEMI_OK;
    HEMI_TRY(make_keys(client, set, err));
    char path[96];
    snprintf(path, sizeof path, "/v2/keys/%s", set->id);
    size_t from = 0;
    if (!again) HEMI_TRY(hemi_client_ask_for_keys(client, set, path, &from, err));
    if (!set->on_server) {
        HEMI_TRY(hemi_client_put_keys(client, set, path, from, err));
        *uploaded += set->length - from;
    }
    if (set->length > HEMI_CLIENT_UPLOAD_CHUNK) { /* made again, of the same entries, if need be */
        hemi_bytes_release(set->bytes);
        set->bytes = NULL;
    }
    return HEMI_OK;
}

void hemi_client_keys_seen(hemi_client *client, const hemi_params *params, const char *id) {
    hemi_key_set *set = NULL;
    hemi_error ignored = {0};
    if (provide_set(client, params, &set, &ignored) != HEMI_OK) return;
    drop_old_keys(client, set);
    if (set->on_server) return;
    if (make_keys(client, set, &ignored) == HEMI_OK) set->on_server = strcmp(set->id, id) == 0;
}

/* Sends it once, and tells about progress while the server computes. */
static hemi_status send_post(hemi_client *client, const hemi_post *post, const char *key_id, hemi_http_request *request, hemi_http_reply *reply,
                             hemi_error *err) {
    hemi_watch *watch = post->parts > 0 && client->progress
                            ? hemi_watch_start(client->http, key_id, client->progress, client->progress_context, post->part, post->parts)
                            : NULL;
    *request = (hemi_http_request){.method = "POST",
                                   .path = post->path,
                                   .body = post->body,
                                   .body_bytes = post->bytes,
                                   .key_id = key_id,
                                   .reply_bytes_max = post->reply_bytes_max,
                                   .progress_id = watch ? hemi_watch_id(watch) : NULL,
                                   .timeout_ms = post->parts > 0 ? client->circuit_timeout_ms : 0};
    const hemi_status status = hemi_http_send(client->http, request, reply, err);
    hemi_watch_stop(watch, status == HEMI_OK && hemi_http_reply_status(reply) == HEMI_OK);
    request->progress_id = NULL;
    return status;
}

hemi_status hemi_client_post(hemi_client *client, const hemi_post *post, hemi_http_reply *reply, hemi_call_stats *stats,
                             hemi_error *err) {
    const hemi_key_set *keys;
    HEMI_TRY(hemi_client_ensure_keys(client, post->params, false, &keys, &stats->evaluation_key_bytes, err));
    for (int i = 0;; i++) {
        hemi_http_request request;
        HEMI_TRY(send_post(client, post, keys->id, &request, reply, err));
        stats->network_ms += reply->elapsed_ms > reply->server_ms ? reply->elapsed_ms - reply->server_ms : 0;
        stats->server_ms += reply->server_ms;
        hemi_status said = hemi_http_reply_status(reply);
        if (said == HEMI_OK) return HEMI_OK;
        hemi_status status = hemi_http_reply_fail(client->http, &request, reply, err);
        hemi_http_reply_clear(reply);
        if (said == HEMI_ERR_CONFLICT)
            return hemi_fail_in(err, status,
                                "%s has changed on the server since this client fetched its description: open it again",
                                post->name);
        if (said != HEMI_ERR_KEY || i > 0) return status;
        HEMI_TRY(hemi_client_ensure_keys(client, post->params, true, &keys, &stats->evaluation_key_bytes, err));
    }
}
