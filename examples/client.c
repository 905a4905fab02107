/* Calls a module that runs on a server, with the input encrypted all the way. Build: `make`; then
 *
 *   build/bin/hemi serve models --port 8000 &
 *   build/examples/client http://127.0.0.1:8000 demo fc 0.5 -1 2
 *
 * Numbers that are not given are 0. In a program of your own: cc yours.c $(pkg-config --cflags --libs hemi) */
#include <hemi/client.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s URL MODEL MODULE [NUMBER ...]\n", argv[0]);
        return 64;
    }
    hemi_error err = {0}; /* filled in by the function that fails */
    hemi_client *client = NULL;
    hemi_remote *remote = NULL;
    float *x = NULL, *y = NULL;

    /* A connection. NULL: a secret key of its own, made now, never written anywhere, gone when the client is freed. */
    hemi_status status = hemi_client_new(&client, argv[1], NULL, NULL, &err);
    /* The module's description: shapes and scales. The weights stay on the server. */
    if (status == HEMI_OK) status = hemi_remote_open(&remote, client, argv[2], argv[3], NULL, &err);
    if (status == HEMI_OK) {
        hemi_module_info info;
        hemi_module_get_info(hemi_remote_module(remote), &info);
        x = calloc(info.inputs, sizeof *x);
        y = calloc(info.outputs, sizeof *y);
        for (uint32_t i = 0; x && i < info.inputs && i + 4 < (uint32_t)argc; i++) x[i] = strtof(argv[i + 4], NULL);

        /* Encrypts x, sends it, decrypts the answer into y. The first call also uploads the evaluation keys, with which the
         * server can compute but not decrypt. More rows at once: x and y row after row. */
        hemi_call_stats stats = {0};
        if (x && y) status = hemi_remote_call(remote, x, 1, y, &stats, &err);
        if (status == HEMI_OK && x && y) {
            for (uint32_t i = 0; i < info.outputs; i++) printf("%g\n", (double)y[i]);
            fprintf(stderr, "%zu bytes up, %zu down, server %.2f ms\n", stats.upload_bytes, stats.download_bytes,
                    stats.server_ms);
        }
    }
    if (status != HEMI_OK) fprintf(stderr, "%s: %s\n", hemi_status_name(status), err.message);
    free(x);
    free(y);
    hemi_remote_free(remote);
    hemi_client_free(client); /* wipes the secret key */
    return status == HEMI_OK ? 0 : 1;
}
