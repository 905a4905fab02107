/* Compiled modules: server.zip (bit 1 of byte 0 not set), client.zip, and the description alone. What is accepted is made ready, and used. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "fuzz.h"

static char folder[64], server_zip[128], client_zip[128];
static uint8_t *zip[2];
static size_t bytes[2];

void fuzz_start(void) {
    hemi_module *module = fuzz_module(6, 3);
    snprintf(folder, sizeof folder, "/dev/shm/hemi-fuzz-%d", (int)getpid());
    FUZZ_OK(hemi_module_save(module, folder, FUZZ_ERR));
    hemi_module_free(module);
    snprintf(server_zip, sizeof server_zip, "%s/server.zip", folder);
    snprintf(client_zip, sizeof client_zip, "%s/client.zip", folder);
    FUZZ_OK(hemi_file_read(&zip[0], &bytes[0], server_zip, 1 << 20, FUZZ_ERR));
    FUZZ_OK(hemi_file_read(&zip[1], &bytes[1], client_zip, 1 << 20, FUZZ_ERR));
}

static void put(const char *path, const fuzz_file *f) {
    const int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, f->bytes, f->count) == (ssize_t)f->count);
    close(fd);
}

/* A module that was accepted is evaluated by its own client. */
static void use(const hemi_module *module) {
    hemi_error err = {0};
    hemi_module_info info;
    hemi_evaluator *evaluator = NULL;
    hemi_module_get_info(module, &info);
    if (info.inputs > 64 || info.outputs > 64 || strcmp(info.operation, "linear") != 0) return;
    if (hemi_evaluator_new(&evaluator, module, 1, &err) != HEMI_OK) return;
    hemi_keys *keys;
    hemi_pending *pending = NULL;
    hemi_server_keys *server_keys = NULL;
    uint8_t *evaluation = NULL, *request = NULL, *reply = NULL;
    size_t evaluation_bytes, request_bytes, reply_bytes;
    float x[64], y[64];
    for (size_t i = 0; i < 64; i++) x[i] = fuzz_number(i);
    FUZZ_OK(hemi_keys_new(&keys, NULL, FUZZ_ERR));
    if (hemi_keys_evaluation(keys, &module, 1, &evaluation, &evaluation_bytes, &err) == HEMI_OK &&
        hemi_encrypt(module, keys, x, 1, &pending, &request, &request_bytes, &err) == HEMI_OK &&
        hemi_server_keys_new(&server_keys, evaluation, evaluation_bytes, &err) == HEMI_OK &&
        hemi_evaluate((const hemi_evaluator *const[]){evaluator}, 1, server_keys, request, request_bytes, 1, &reply, &reply_bytes, &err) == HEMI_OK)
        (void)!hemi_decrypt(module, keys, pending, reply, reply_bytes, y, &err);
    hemi_bytes_free(reply);
    hemi_server_keys_free(server_keys);
    hemi_pending_free(pending);
    hemi_bytes_release(request);
    hemi_bytes_release(evaluation);
    hemi_keys_free(keys);
    hemi_evaluator_free(evaluator);
}

void fuzz_one(const uint8_t *data, size_t size) {
    const int which = size > 0 ? data[0] >> 1 & 1 : 0;
    fuzz_file f = fuzz_make(data, size, zip[which], bytes[which]);
    hemi_error err = {0};
    hemi_module *module = NULL;
    put(which ? client_zip : server_zip, &f);
    hemi_status status = hemi_module_open(&module, folder, which == 0, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == HEMI_OK) == (module != NULL));
    if (module && which == 0) use(module);
    hemi_module_free(module);
    module = NULL;
    status = hemi_module_from_client_json(&module, f.bytes, f.count, &err);
    fuzz_check_error(status, &err);
    hemi_module_free(module);
    free(f.bytes);
}
