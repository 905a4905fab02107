/* /v2/keys/{hash}: clients' evaluation keys. The hash is that of the bytes, so whoever puts the same bytes again changes
 * nothing, and an upload that was interrupted can go on where it stopped:
 *   PUT without Content-Range             all bytes
 *   PUT with Content-Range: bytes a-b/n   a part; a must be what the server already has (Hemi-Received says), or 0
 *   HEAD                                  200: the keys are there; 404: not, with Hemi-Received if a part of them is */
#include <sodium.h>
#include <string.h>

#include "base/error.h"
#include "server/evaluate.h"
#include "server/exchange.h"
#include "wire/ckks.h"

static void refuse_range(hemi_exchange *x, size_t received) {
    hemi_answer_header(x, "Hemi-Received", "%zu", received);
    hemi_answer_error(x, 0, HEMI_ERR_STATE, "%zu bytes of these keys are here: go on there, or begin again at 0",
                      received);
}

/* Finds or makes the upload that this body belongs to. */
static void begin_put(hemi_exchange *x) {
    hemi_service *s = x->service;
    uint64_t first = 0, last = x->body_bytes - 1, total = x->body_bytes;
    const char *range = hemi_exchange_header(x, MHD_HTTP_HEADER_CONTENT_RANGE);
    if (x->body_bytes == 0) {
        hemi_answer_error(x, 0, HEMI_ERR_FORMAT, "the body is empty: evaluation keys are expected");
        return;
    }
    if (range && (!hemi_content_range_parse(&first, &last, &total, range) || last - first != x->body_bytes - 1)) {
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT,
                          "Content-Range must be 'bytes a-b/total' with b - a + 1 = Content-Length");
        return;
    }
    if (total > s->registry->key_bytes_max) {
        hemi_answer_error(x, 0, HEMI_ERR_TOO_LARGE, "evaluation keys for this server have at most %zu bytes",
                          s->registry->key_bytes_max);
        return;
    }
    if (first > 0) {
        x->upload = hemi_uploads_take(s->uploads, x->slot);
        const size_t received = x->upload ? x->upload->received : 0;
        if (x->upload && x->upload->total == total && received == first) return;
        if (x->upload) hemi_uploads_keep(s->uploads, x->upload);
        x->upload = NULL;
        refuse_range(x, received);
        return;
    }
    x->upload = hemi_upload_new(x->slot, total);
    if (!x->upload) hemi_answer_error(x, 0, HEMI_ERR_MEMORY, "no memory for evaluation keys");
}

void hemi_key_begin(hemi_exchange *x) {
    hemi_service *s = x->service;
    if (!hemi_exchange_set_key(x, x->route.argument[0]))
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT,
                          "a key is named by the BLAKE2b-256 hash of its bytes: 64 hexadecimal digits in lower case");
    else if (x->method == HEMI_METHOD_PUT && hemi_key_store_has(s->keys, x->slot))
        hemi_answer_empty(x, MHD_HTTP_OK); /* the body is not needed */
    else if (x->method == HEMI_METHOD_PUT)
        begin_put(x);
}

static void head(hemi_exchange *x) {
    size_t received, total;
    if (hemi_key_store_has(x->service->keys, x->slot)) {
        hemi_answer_empty(x, MHD_HTTP_OK);
        return;
    }
    if (hemi_uploads_peek(x->service->uploads, x->slot, &received, &total))
        hemi_answer_header(x, "Hemi-Received", "%zu", received);
    hemi_answer_error(x, 0, HEMI_ERR_KEY, "these evaluation keys are not here");
}

bool hemi_key_complete(hemi_exchange *x) {
    hemi_service *s = x->service;
    if (x->method == HEMI_METHOD_PUT) {
        if (x->upload->received == x->upload->total) return false; /* to be checked, by a worker */
        hemi_answer_header(x, "Hemi-Received", "%zu", x->upload->received);
        hemi_answer_empty(x, MHD_HTTP_ACCEPTED);
        hemi_uploads_keep(s->uploads, x->upload);
        x->upload = NULL;
        return true;
    }
    if (x->method == HEMI_METHOD_HEAD) {
        head(x);
        return true;
    }
    hemi_key_store_remove(s->keys, x->slot);
    hemi_prepared_forget(s->prepared, x->slot);
    hemi_upload_free(hemi_uploads_take(s->uploads, x->slot));
    hemi_answer_empty(x, MHD_HTTP_NO_CONTENT);
    return true;
}

/* That some module here uses keys of this set, and that there is room for them when they are expanded. */
static hemi_status check_use(const hemi_service *s, const uint8_t *bytes, size_t count, hemi_error *err) {
    const hemi_params *params;
    size_t entries, memory = 0; /* those for linear maps are small */
    uint32_t limbs;
    if (hemi_ckks_keys_is(bytes, count)) {
        HEMI_TRY(hemi_ckks_keys_read_header(bytes, count, &params, &limbs, &entries, err)); /* the rest: hemi_server_keys_load */
        memory = hemi_ckks_keys_memory(params, limbs, entries - 1);
    } else {
        HEMI_TRY(hemi_keys_check(bytes, count, &params, &entries, err));
    }
    if (!hemi_registry_has_params(s->registry, params))
        return hemi_fail(err, HEMI_ERR_PARAMS, "the keys are of set %s, which no module of this server uses", params->name);
    if (memory > s->keys_bytes_max)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE,
                         "these evaluation keys take %zu bytes of memory; this server keeps %zu for the keys of all clients (its operator "
                         "can raise --max-keys-bytes)",
                         memory, s->keys_bytes_max);
    return HEMI_OK;
}

/* Those of circuits by all idle workers. */
static hemi_status expand(hemi_server_keys **keys, hemi_service *s, const hemi_upload *upload, const uint8_t *id, hemi_error *err) {
    hemi_team *team = hemi_ckks_keys_is(upload->bytes, upload->total) ? hemi_team_new(hemi_compute_threads(s)) : NULL;
    const hemi_status status = hemi_server_keys_load(keys, upload->bytes, upload->total, id, team, err);
    hemi_team_free(team);
    return status;
}

static void check_and_put(hemi_exchange *x, const hemi_upload *upload) {
    hemi_service *s = x->service;
    hemi_error err = {0};
    hemi_server_keys *keys = NULL;
    uint8_t hash[HEMI_KEY_ID_BYTES];
    bool created = false;
    (void)crypto_generichash(hash, sizeof hash, upload->bytes, upload->total, NULL, 0);
    if (memcmp(hash, x->key, sizeof hash) != 0) {
        hemi_answer_error(x, 0, HEMI_ERR_FORMAT,
                          "the BLAKE2b-256 hash of these %zu bytes is not the one in the path: the upload was damaged",
                          upload->total);
        return;
    }
    hemi_status status = check_use(s, upload->bytes, upload->total, &err);
    if (status == HEMI_OK) status = expand(&keys, s, upload, x->slot, &err);
    if (status == HEMI_OK) status = hemi_key_store_put(s->keys, keys, &created, &err);
    if (status != HEMI_OK)
        hemi_answer_error(x, 0, status, "%s", err.message);
    else
        hemi_answer_empty(x, created ? MHD_HTTP_CREATED : MHD_HTTP_OK);
}

void hemi_key_work(hemi_exchange *x) {
    check_and_put(x, x->upload);
    hemi_upload_free(x->upload);
    x->upload = NULL;
}
