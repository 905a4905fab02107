/* Evaluation keys as the server takes them, linear ones and those of circuits. What is accepted is used: in a product. */
#include "fuzz.h"

static hemi_module *module;
static hemi_evaluator *evaluator;
static uint8_t *keys, *request;
static size_t key_bytes, request_bytes;

void fuzz_start(void) {
    hemi_keys *own;
    hemi_pending *pending;
    float x[10];
    module = fuzz_module(10, 6);
    for (size_t i = 0; i < 10; i++) x[i] = fuzz_number(i);
    FUZZ_OK(hemi_keys_new(&own, NULL, FUZZ_ERR));
    FUZZ_OK(hemi_keys_evaluation(own, (const hemi_module *const[]){module}, 1, &keys, &key_bytes, FUZZ_ERR));
    FUZZ_OK(hemi_encrypt(module, own, x, 1, &pending, &request, &request_bytes, FUZZ_ERR));
    FUZZ_OK(hemi_evaluator_new(&evaluator, module, 1, FUZZ_ERR));
    hemi_pending_free(pending);
    hemi_keys_free(own);
}

void fuzz_one(const uint8_t *data, size_t size) {
    fuzz_file f = fuzz_make(data, size, keys, key_bytes);
    hemi_error err = {0};
    hemi_server_keys *server_keys = NULL;
    const hemi_status status = hemi_server_keys_new(&server_keys, f.bytes, f.count, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == HEMI_OK) == (server_keys != NULL));
    if (server_keys) {
        uint8_t *reply;
        size_t reply_bytes;
        const hemi_status computed = hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, server_keys, request, request_bytes, 1, &reply, &reply_bytes, &err);
        fuzz_check_error(computed, &err);
        if (computed == HEMI_OK) hemi_bytes_free(reply);
    }
    hemi_server_keys_free(server_keys);
    free(f.bytes);
}
