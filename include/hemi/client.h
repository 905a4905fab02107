/* The client's side: secret keys, encryption and decryption, and calls to a server. Link libhemi-client and
 * libhemi-core. The secret key never leaves the process, except into a key file if one is asked for.
 *
 * Do not send decrypted values, or anything that depends on their errors, back to the server: see docs/threat-model.md. */
#ifndef HEMI_CLIENT_H
#define HEMI_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Secret keys, one per parameter set, made when first needed. Thread-safe. */
typedef struct hemi_keys hemi_keys;

/* folder NULL: keys live in memory only. Otherwise they are read from and kept in folder/<set>.key, mode 0600: ERR_IO
 * where others can read it. */
HEMI_API HEMI_CHECK hemi_status hemi_keys_new(hemi_keys **out, const char *folder, hemi_error *err);
HEMI_API void hemi_keys_free(hemi_keys *keys); /* wipes */
typedef struct hemi_keys_options {
    const char *folder;     /* as above */
    const char *passphrase; /* copied, and wiped at the end. Key files are encrypted under it (Argon2id, XChaCha20-Poly1305). NULL: they are plain. What is
                             * there in the other form is refused: ERR_STATE; ERR_AUTH: the passphrase is another */
} hemi_keys_options;
HEMI_API HEMI_CHECK hemi_status hemi_keys_new_with(hemi_keys **out, const hemi_keys_options *options, hemi_error *err);
/* Writes the key file of a set anew, under another passphrase (NULL: plain); the key stays the same. keys: as hemi_keys_new_with read it. */
HEMI_API HEMI_CHECK hemi_status hemi_keys_protect(hemi_keys *keys, const hemi_params *params, const char *passphrase, hemi_error *err);
/* Makes the secret key of a set now (otherwise: when first needed). force: makes a new one even if there is one;
 * requests under way can then no longer be read: hemi_decrypt fails with HEMI_ERR_STATE, they are to be sent anew. */
HEMI_API HEMI_CHECK hemi_status hemi_keys_generate(hemi_keys *keys, const hemi_params *params, bool force, hemi_error *err);
/* Evaluation keys that serve all the given modules of one set, for hemi_server_keys_new or PUT /v2/keys: *bytes is freed
 * with hemi_bytes_release. The same request gives the same bytes again within a process. */
HEMI_API HEMI_CHECK hemi_status hemi_keys_evaluation(hemi_keys *keys, const hemi_module *const *modules, size_t count,
                                                     uint8_t **bytes, size_t *length, hemi_error *err);
HEMI_API void hemi_bytes_release(void *bytes);

/* What is needed to read the reply to one request: row factors. Secret; freed (and wiped) by hemi_pending_free. */
typedef struct hemi_pending hemi_pending;

/* Quantises and encrypts rows x inputs float32 values: request bytes for the server. Every row is scaled by a factor of its own,
 * which stays here; nothing is clipped. ERR_ARGUMENT if a value is NaN or infinite. */
HEMI_API HEMI_CHECK hemi_status hemi_encrypt(const hemi_module *module, hemi_keys *keys, const float *x, size_t rows,
                                             hemi_pending **pending, uint8_t **request, size_t *request_bytes, hemi_error *err);
/* Decrypts the reply into rows x outputs float32 values. The first request of a module with a bias carries one more row, of zeros, whose
 * reply (the bias) is remembered in keys: see docs/cryptography.md. On error y is zeros. */
HEMI_API HEMI_CHECK hemi_status hemi_decrypt(const hemi_module *module, hemi_keys *keys, hemi_pending *pending, const void *reply,
                                             size_t reply_bytes, float *y, hemi_error *err);
/* Of modules with non-linearities, after decryption: rows of which a number, or a result, is beyond what was calibrated, so that their results
 * are not to be relied on. 0 of linear modules. */
HEMI_API size_t hemi_pending_out_of_range(const hemi_pending *pending);
HEMI_API void hemi_pending_free(hemi_pending *pending);

/* A connection to a server: keep-alive, keys uploaded when the server lacks them. One call at a time per client; more
 * clients may share one hemi_keys. */
typedef struct hemi_client hemi_client;
typedef struct hemi_client_options {
    long connect_timeout_ms; /* 0: 10 s */
    long timeout_ms;         /* of one request: 0: 300 s, and an hour where a module with non-linearities is computed, which takes long */
    const char *token;      /* of a server with tenants; copied, and wiped at the end; NULL: none */
    const char *ca_file;    /* PEM: certificates that are trusted with https; NULL: those of the system. There is no option to trust any */
    bool allow_plain_token; /* send the token by http to another machine, where the network between is one's own; otherwise ERR_ARGUMENT */
    /* Silent preparation: batches of rows announced ahead, on a thread and a connection of their own, so that a call is one small message
     * each way and one integer product on the server. */
    int prepare;           /* 0: where it helps; 1: always; -1: never */
    uint32_t prepare_rows; /* rows of a batch; 0: chosen by memory and use */
    size_t prepare_bytes;  /* memory for rows that are ready; 0: 256 MiB */
    /* Called, where not NULL, during what may take long: "make keys", "upload keys" (done and total: bytes) and, of modules with non-linearities,
     * "infer". By the thread that makes the call or, "infer", by another one while that waits; never twice at once, and not after the call.
     * It must not use the client or its keys. */
    void (*progress)(void *context, const char *what, size_t done, size_t total);
    void *progress_context;
} hemi_client_options;

/* url: "http://127.0.0.1:8000". keys is borrowed, or NULL: the client makes its own, in memory. options may be NULL. */
HEMI_API HEMI_CHECK hemi_status hemi_client_new(hemi_client **out, const char *url, hemi_keys *keys,
                                                const hemi_client_options *options, hemi_error *err);
HEMI_API void hemi_client_free(hemi_client *client);

typedef struct hemi_call_stats {
    double encrypt_ms, network_ms, server_ms, decrypt_ms; /* network: the round trip without the server's own time */
    size_t upload_bytes, download_bytes;                  /* bodies */
    size_t evaluation_key_bytes;                          /* uploaded in this call; 0 when the server had them */
    size_t prepared_rows;                                 /* that used what was prepared before */
    /* Of circuits: rows of which a number, or a result, is beyond what was calibrated: their results are not to be relied on. */
    size_t rows_out_of_range;
} hemi_call_stats;

/* What the server has of a model: the bytes of GET /v2/models/{model} (JSON), freed with hemi_bytes_release. */
HEMI_API HEMI_CHECK hemi_status hemi_client_list(hemi_client *client, const char *model, uint8_t **json, size_t *length, hemi_error *err);

/* A module of a model on that server. shape: NULL or "po_1_768_pc" where a module was compiled for several. The module
 * description is fetched once; automorphisms of all the model's modules are gathered so that keys are uploaded once. */
typedef struct hemi_remote hemi_remote;
HEMI_API HEMI_CHECK hemi_status hemi_remote_open(hemi_remote **out, hemi_client *client, const char *model, const char *module,
                                                 const char *shape, hemi_error *err);
/* The same, where the description comes from a file the owner gave: no description is fetched. `module` is copied by reference: it
 * must outlive the remote. */
HEMI_API HEMI_CHECK hemi_status hemi_remote_open_with(hemi_remote **out, hemi_client *client, const char *model, const char *name,
                                                      const hemi_module *module, hemi_error *err);
HEMI_API const hemi_module *hemi_remote_module(const hemi_remote *remote);
/* x: rows x inputs; y: rows x outputs; stats may be NULL. */
HEMI_API HEMI_CHECK hemi_status hemi_remote_call(hemi_remote *remote, const float *x, size_t rows, float *y, hemi_call_stats *stats,
                                                 hemi_error *err);
/* Prepares the coming calls now, for at least `rows` rows (up to 2048), and waits for it; calls do so by themselves, ahead, where it helps.
 * ERR_UNSUPPORTED where the module, or the server, cannot. */
HEMI_API HEMI_CHECK hemi_status hemi_remote_prepare(hemi_remote *remote, size_t rows, hemi_error *err);
/* Rows that are prepared and not used yet. */
HEMI_API size_t hemi_remote_prepared(hemi_remote *remote);
/* Several modules of one model receive the same x (q, k and v projections): one encryption, one request. All are of one client and
 * model, and were compiled with the same set, layout, inputs, b_bits, delta, input_bits and input scale (ERR_ARGUMENT names what
 * differs), as modules of one input_group are. y[i]: rows x outputs of remotes[i]. count: 1 to HEMI_CALL_MODULES_MAX. */
#define HEMI_CALL_MODULES_MAX 16
HEMI_API HEMI_CHECK hemi_status hemi_remote_call_many(hemi_remote *const *remotes, size_t count, const float *x, size_t rows,
                                                      float *const *y, hemi_call_stats *stats, hemi_error *err);
HEMI_API void hemi_remote_free(hemi_remote *remote);

#ifdef __cplusplus
}
#endif
#endif
