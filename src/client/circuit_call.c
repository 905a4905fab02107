#include "client/circuit_call.h"

#include "base/cpu.h"
#include "base/error.h"
#include "client/codec.h"

static hemi_status exchange(const hemi_circuit_call *c, hemi_pending *pending, const uint8_t *request, size_t bytes, size_t part, size_t parts,
                            float *y, hemi_error *err) {
    hemi_http_reply reply;
    const hemi_post post = {.path = c->path,
                            .name = c->name,
                            .params = c->module->info.params,
                            .body = request,
                            .bytes = bytes,
                            .reply_bytes_max = hemi_pending_reply_bytes(c->module, pending),
                            .part = part,
                            .parts = parts};
    HEMI_TRY(hemi_client_post(c->client, &post, &reply, c->stats, err));
    c->stats->upload_bytes += bytes;
    c->stats->download_bytes += reply.bytes;
    const double start = hemi_now_ms();
    const hemi_status status = hemi_decrypt(c->module, c->client->keys, pending, reply.body, reply.bytes, y, err);
    c->stats->decrypt_ms += hemi_now_ms() - start;
    hemi_http_reply_clear(&reply);
    if (status != HEMI_OK) return hemi_fail_in(err, status, "the reply of %.120s to %s", hemi_http_url(c->client->http), c->name);
    c->stats->rows_out_of_range += hemi_pending_out_of_range(pending);
    return HEMI_OK;
}

hemi_status hemi_circuit_call_all(const hemi_circuit_call *c, hemi_error *err) {
    const size_t most = hemi_circuit_rows_at_once(c->module, HEMI_CIRCUIT_CALL_BYTES, HEMI_CIRCUIT_CALL_UNITS);
    const size_t parts = c->rows / most + (c->rows % most != 0);
    for (size_t i = 0; i < parts; i++) {
        const size_t from = i * most, rows = c->rows - from < most ? c->rows - from : most;
        hemi_pending *pending;
        uint8_t *request;
        size_t bytes;
        const double start = hemi_now_ms();
        HEMI_TRY(hemi_encrypt(c->module, c->client->keys, c->x + from * c->module->io.inputs, rows, &pending, &request, &bytes, err));
        c->stats->encrypt_ms += hemi_now_ms() - start;
        const hemi_status status = exchange(c, pending, request, bytes, i, parts, c->y + from * c->module->io.outputs, err);
        hemi_bytes_release(request);
        hemi_pending_free(pending);
        if (status != HEMI_OK) return status;
    }
    return HEMI_OK;
}
