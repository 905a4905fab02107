/* Replies as a client reads them: whatever a server sends. */
#include "fuzz.h"

static hemi_module *module;
static hemi_keys *keys;
static hemi_pending *pending;
static uint8_t *reply;
static size_t reply_bytes;

void fuzz_start(void) {
    uint8_t *evaluation, *request;
    size_t evaluation_bytes, request_bytes;
    hemi_server_keys *server_keys;
    hemi_evaluator *evaluator;
    float x[20];
    for (size_t i = 0; i < 20; i++) x[i] = fuzz_number(i);
    module = fuzz_module(10, 6);
    FUZZ_OK(hemi_keys_new(&keys, NULL, FUZZ_ERR));
    FUZZ_OK(hemi_keys_evaluation(keys, (const hemi_module *const[]){module}, 1, &evaluation, &evaluation_bytes, FUZZ_ERR));
    FUZZ_OK(hemi_encrypt(module, keys, x, 2, &pending, &request, &request_bytes, FUZZ_ERR));
    FUZZ_OK(hemi_server_keys_new(&server_keys, evaluation, evaluation_bytes, FUZZ_ERR));
    FUZZ_OK(hemi_evaluator_new(&evaluator, module, 1, FUZZ_ERR));
    FUZZ_OK(hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, server_keys, request, request_bytes, 1, &reply, &reply_bytes, FUZZ_ERR));
    hemi_evaluator_free(evaluator);
    hemi_server_keys_free(server_keys);
    hemi_bytes_release(request);
    hemi_bytes_release(evaluation);
}

void fuzz_one(const uint8_t *data, size_t size) {
    fuzz_file f = fuzz_make(data, size, reply, reply_bytes);
    hemi_error err = {0};
    float y[12];
    memset(y, 1, sizeof y);
    const hemi_status status = hemi_decrypt(module, keys, pending, f.bytes, f.count, y, &err);
    fuzz_check_error(status, &err);
    for (int i = 0; i < 12 && status != HEMI_OK; i++) FUZZ_CHECK(y[i] == 0); /* nothing is left of what was spoilt */
    free(f.bytes);
}
