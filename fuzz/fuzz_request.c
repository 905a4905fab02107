/* Requests as the server takes them: rows, batches of rows, circuits. What is accepted is computed. */
#include "fuzz.h"
#include "server/batches.h"
#include "wire/batch.h"
#include "wire/ckks.h"

static hemi_module *module[2];
static hemi_evaluator *evaluator[2];
static hemi_server_keys *server_keys;
static hemi_prepared *prepared;
static uint8_t *request;
static size_t request_bytes;

void fuzz_start(void) {
    hemi_keys *own;
    hemi_pending *pending;
    uint8_t *keys;
    size_t key_bytes;
    float x[20];
    const hemi_prepared_limits limits = {.bytes = 64 << 20, .key_bytes = 64 << 20, .key_batches = 64, .expiry_ms = 1e9};
    for (size_t i = 0; i < 20; i++) x[i] = fuzz_number(i);
    module[0] = fuzz_module(10, 6);
    module[1] = fuzz_module(10, 3);
    for (int i = 0; i < 2; i++) FUZZ_OK(hemi_evaluator_new(&evaluator[i], module[i], 1, FUZZ_ERR));
    FUZZ_OK(hemi_keys_new(&own, NULL, FUZZ_ERR));
    FUZZ_OK(hemi_keys_evaluation(own, (const hemi_module *const *)module, 2, &keys, &key_bytes, FUZZ_ERR));
    FUZZ_OK(hemi_encrypt(module[0], own, x, 2, &pending, &request, &request_bytes, FUZZ_ERR));
    FUZZ_OK(hemi_server_keys_new(&server_keys, keys, key_bytes, FUZZ_ERR));
    prepared = hemi_prepared_new(&limits);
    hemi_pending_free(pending);
    hemi_bytes_release(keys);
    hemi_keys_free(own);
    if (!prepared) abort();
}

/* The module id is random: edits of it make a request for nothing, so it is put back where the header is otherwise whole. */
void fuzz_one(const uint8_t *data, size_t size) {
    fuzz_file f = fuzz_make(data, size, request, request_bytes);
    const hemi_evaluator *const *all = (const hemi_evaluator *const *)evaluator;
    hemi_error err = {0};
    hemi_ckks_request circuit;
    uint8_t *reply = NULL;
    size_t reply_bytes = 0;
    hemi_status status;
    if (hemi_batch_request_is(f.bytes, f.count))
        status = hemi_batches_answer(prepared, NULL, all, 2, server_keys, f.bytes, f.count, 1, NULL, &reply, &reply_bytes, &err);
    else
        status = hemi_evaluate(all, 2, server_keys, f.bytes, f.count, 1, &reply, &reply_bytes, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == HEMI_OK) == (reply != NULL));
    hemi_bytes_free(reply);
    if (hemi_ckks_request_is(f.bytes, f.count)) {
        (void)!hemi_ckks_request_parse(&circuit, f.bytes, f.count, &err);
        (void)!hemi_ckks_request_read_header(&circuit, f.bytes, f.count, &err);
    }
    free(f.bytes);
}
