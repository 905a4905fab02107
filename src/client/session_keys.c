/* Evaluation keys on their way to the server: small ones at once, large ones in parts, and on from where the server is after a connection broke. */
#include <stdio.h>

#include "base/error.h"
#include "client/session.h"

#define HTTP_ACCEPTED 202 /* a part arrived; Hemi-Received says how much is there */
#define HTTP_CONFLICT 409 /* a part that does not fit to what is there; so does this */

static void report(const hemi_client *client, size_t done, size_t total) {
    if (client->progress) client->progress(client->progress_context, "upload keys", done, total);
}

hemi_status hemi_client_ask_for_keys(hemi_client *client, hemi_key_set *set, const char *path, size_t *from, hemi_error *err) {
    hemi_http_request request = {.method = "HEAD", .path = path};
    hemi_http_reply reply;
    *from = 0;
    HEMI_TRY(hemi_http_send(client->http, &request, &reply, err));
    hemi_status status = HEMI_OK;
    if (reply.status >= 200 && reply.status <= 299)
        set->on_server = true;
    else if (reply.status != 404)
        status = hemi_http_reply_fail(client->http, &request, &reply, err);
    else if (reply.has_received && set->length > HEMI_CLIENT_UPLOAD_CHUNK && reply.received < set->length)
        *from = reply.received;
    hemi_http_reply_clear(&reply);
    return status;
}

/* All bytes, or some. *next: where the server wants to go on, if it does not have all. */
static hemi_status put(hemi_client *client, hemi_key_set *set, const char *path, size_t first, size_t bytes, size_t *next, hemi_error *err) {
    const bool part = bytes < set->length;
    hemi_http_request request = {.method = "PUT",
                                 .path = path,
                                 .body = set->bytes + first,
                                 .body_bytes = bytes,
                                 .reply_bytes_max = HEMI_HTTP_ERROR_BODY_MAX,
                                 .range_first = first,
                                 .range_total = part ? set->length : 0,
                                 .once = part};
    hemi_http_reply reply;
    hemi_status status = HEMI_OK;
    HEMI_TRY(hemi_http_send(client->http, &request, &reply, err));
    if (part && reply.has_received && reply.received < set->length && (reply.status == HTTP_ACCEPTED || reply.status == HTTP_CONFLICT))
        *next = reply.received;
    else if (reply.status >= 200 && reply.status <= 299 && reply.status != HTTP_ACCEPTED)
        set->on_server = true;
    else if (reply.status == HTTP_ACCEPTED)
        status = hemi_fail(err, HEMI_ERR_REMOTE, "the server says that it has not all of %zu bytes, and not what it lacks", set->length);
    else
        status = hemi_http_reply_fail(client->http, &request, &reply, err);
    hemi_http_reply_clear(&reply);
    return status;
}

/* A server that keeps no part of what is as large says so by having none of it when the second part comes: then all is sent at once. */
static hemi_status put_parts(hemi_client *client, hemi_key_set *set, const char *path, size_t at, hemi_error *err) {
    size_t most = HEMI_CLIENT_UPLOAD_CHUNK;
    for (int retries = 0; !set->on_server;) {
        const size_t left = set->length - at, bytes = left < most ? left : most;
        size_t next = at;
        hemi_status status = put(client, set, path, at, bytes, &next, err);
        if (set->on_server) break;
        if (status != HEMI_OK && status != HEMI_ERR_NETWORK) return status;
        if (status != HEMI_OK || next != at + bytes) {
            if (retries++ == HEMI_CLIENT_UPLOAD_RETRIES)
                return status != HEMI_OK ? status : hemi_fail(err, HEMI_ERR_REMOTE, "the server lost parts of an upload again and again");
            if (status == HEMI_OK && next == 0 && at > 0) most = set->length;
            /* not reached even now: the next part will say so, or get through */
            if (status != HEMI_OK && (status = hemi_client_ask_for_keys(client, set, path, &next, err)) == HEMI_ERR_NETWORK) continue;
            if (status != HEMI_OK) return status;
        }
        at = next;
        report(client, at, set->length);
    }
    return HEMI_OK;
}

hemi_status hemi_client_put_keys(hemi_client *client, hemi_key_set *set, const char *path, size_t from, hemi_error *err) {
    size_t next;
    report(client, from, set->length);
    const hemi_status status = set->length > HEMI_CLIENT_UPLOAD_CHUNK ? put_parts(client, set, path, from, err)
                                                                      : put(client, set, path, 0, set->length, &next, err);
    if (status != HEMI_OK) return hemi_fail_in(err, status, "uploading the evaluation keys");
    report(client, set->length, set->length);
    return HEMI_OK;
}
