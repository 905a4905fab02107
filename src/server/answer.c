#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/exchange.h"

void hemi_answer_release(hemi_answer *answer) {
    if (answer->release && answer->body) answer->release(answer->body);
    answer->body = NULL;
    answer->release = NULL;
}

void hemi_answer_bytes(hemi_exchange *x, unsigned http, const char *type, void *body, size_t bytes,
                       void (*release)(void *)) {
    if (x->answer.status) {
        if (release && body) release(body);
        return;
    }
    x->answer.status = http;
    x->answer.type = type;
    x->answer.body = body;
    x->answer.bytes = bytes;
    x->answer.release = release;
}

void hemi_answer_empty(hemi_exchange *x, unsigned http) { hemi_answer_bytes(x, http, NULL, NULL, 0, NULL); }

static bool has_header(const hemi_answer *answer, const char *name) {
    for (size_t i = 0; i < answer->headers; i++)
        if (strcmp(answer->header[i].name, name) == 0) return true;
    return false;
}

void hemi_answer_error(hemi_exchange *x, unsigned http, hemi_status status, const char *format, ...) {
    char message[HEMI_ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    json_t *root = json_pack("{s:{s:s, s:s, s:s}}", "error", "code", hemi_status_name(status), "message", message, "request_id", x->id);
    if (!root)
        root =
            json_pack("{s:{s:s, s:s}}", "error", "code", hemi_status_name(status), "message", hemi_status_text(status));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (http == 0) http = (unsigned)hemi_status_http(status);
    if (x->answer.status == 0 && http == MHD_HTTP_SERVICE_UNAVAILABLE && !has_header(&x->answer, MHD_HTTP_HEADER_RETRY_AFTER))
        hemi_answer_header(x, "Retry-After", "%u", HEMI_SERVER_RETRY_AFTER_S);
    hemi_answer_bytes(x, http, "application/json", text, text ? strlen(text) : 0, free);
}

void hemi_answer_header(hemi_exchange *x, const char *name, const char *format, ...) {
    hemi_answer *answer = &x->answer;
    if (answer->headers == HEMI_ANSWER_HEADERS) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(answer->header[answer->headers].value, sizeof answer->header->value, format, arguments);
    va_end(arguments);
    answer->header[answer->headers++].name = name;
}

static struct MHD_Response *make_response(hemi_answer *answer) {
    if (!answer->body || answer->bytes == 0) {
        hemi_answer_release(answer);
        return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    }
    struct MHD_Response *response =
        answer->release
            ? MHD_create_response_from_buffer_with_free_callback(answer->bytes, answer->body, answer->release)
            : MHD_create_response_from_buffer(answer->bytes, answer->body, MHD_RESPMEM_PERSISTENT);
    if (!response) hemi_answer_release(answer);
    answer->body = NULL; /* the response's now */
    answer->release = NULL;
    return response;
}

enum MHD_Result hemi_answer_send(hemi_exchange *x) {
    hemi_answer *answer = &x->answer;
    struct MHD_Response *response = make_response(answer);
    if (!response) return MHD_NO;
    if (answer->type) MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type);
    for (size_t i = 0; i < answer->headers; i++)
        MHD_add_response_header(response, answer->header[i].name, answer->header[i].value);
    if (answer->close) MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    hemi_peer_enter_reply(x->service->peers, x->peer, answer->bytes);
    x->stage = HEMI_STAGE_ANSWERED;
    const enum MHD_Result queued = MHD_queue_response(x->connection, answer->status, response);
    MHD_destroy_response(response);
    return queued;
}
