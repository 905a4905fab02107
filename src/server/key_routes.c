/* /v2/keys/{hash}: clients' evaluation keys. The hash is that of the bytes, so whoever puts the same bytes again changes
 * nothing, and an upload that was interrupted can go on where it stopped:
 *   PUT without Content-Range             all bytes
 *   PUT with Content-Range: bytes a-b/n   a part; a must be what the server already has (Hemi-Received says), or 0
 *   HEAD                                  200: the keys are there; 404: not, with Hemi-Received if a part of them is */
#include "server/exchange.h"

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
    if (total > x->registry->key_bytes_max) {
        hemi_answer_error(x, 0, HEMI_ERR_TOO_LARGE, "evaluation keys for this server have at most %zu bytes",
                          x->registry->key_bytes_max);
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
    x->upload = hemi_upload_new(x->slot, total, &x->tenant->held[HEMI_HELD_UPLOADS]);
    if (!x->upload) hemi_answer_error(x, 0, HEMI_ERR_MEMORY, "no memory for evaluation keys");
}

void hemi_key_begin(hemi_exchange *x) {
    hemi_service *s = x->service;
    if (!hemi_exchange_set_key(x, x->route.argument[0]))
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT,
                          "a key is named by the BLAKE2b-256 hash of its bytes: 64 hexadecimal digits in lower case");
    else if (x->method == HEMI_METHOD_PUT && hemi_key_cache_has(s->keys, x->slot))
        hemi_answer_empty(x, MHD_HTTP_OK); /* the body is not needed. What is in the store alone is seen when the body is there */
    else if (x->method == HEMI_METHOD_PUT)
        begin_put(x);
}

bool hemi_key_complete(hemi_exchange *x) {
    hemi_service *s = x->service;
    if (x->method != HEMI_METHOD_PUT || x->upload->received == x->upload->total) return false; /* keys.c, on a worker */
    hemi_answer_header(x, "Hemi-Received", "%zu", x->upload->received);
    hemi_answer_empty(x, MHD_HTTP_ACCEPTED);
    hemi_uploads_keep(s->uploads, x->upload);
    x->upload = NULL;
    return true;
}
