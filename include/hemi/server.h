/* The server's side: evaluating compiled modules on encrypted inputs. Holds no secret-key code. Link libhemi-server
 * and libhemi-core. */
#ifndef HEMI_SERVER_H
#define HEMI_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HEMI_KEY_ID_BYTES 32 /* BLAKE2b-256 of the key bytes */

/* A module made ready to be evaluated: plaintexts transformed. Immutable; shared between threads. */
typedef struct hemi_evaluator hemi_evaluator;
/* A client's evaluation keys, expanded. Immutable; shared between threads. */
typedef struct hemi_server_keys hemi_server_keys;

/* module: with weights; not needed afterwards. threads: used for the transformation (0: all). ERR_STATE, ERR_MEMORY. */
HEMI_API HEMI_CHECK hemi_status hemi_evaluator_new(hemi_evaluator **out, const hemi_module *module, int threads, hemi_error *err);
typedef struct hemi_evaluator_options {
    int threads;       /* used for the transformation (0: all) */
    bool small_memory; /* weights as small integers, transformed anew in every call: less than half of the memory, two to five times the time. Circuits
                        * do without */
} hemi_evaluator_options;
HEMI_API HEMI_CHECK hemi_status hemi_evaluator_new_with(hemi_evaluator **out, const hemi_module *module,
                                                        const hemi_evaluator_options *options, hemi_error *err);
HEMI_API void hemi_evaluator_free(hemi_evaluator *evaluator);
HEMI_API size_t hemi_evaluator_bytes(const hemi_evaluator *evaluator); /* memory it holds */
HEMI_API const uint8_t *hemi_evaluator_id(const hemi_evaluator *evaluator); /* the module id */

/* Bytes as made by hemi_keys_evaluation (client.h). Everything is checked before anything is expanded. */
HEMI_API HEMI_CHECK hemi_status hemi_server_keys_new(hemi_server_keys **out, const void *bytes, size_t count, hemi_error *err);
HEMI_API void hemi_server_keys_free(hemi_server_keys *keys);
HEMI_API const uint8_t *hemi_server_keys_id(const hemi_server_keys *keys); /* HEMI_KEY_ID_BYTES */
HEMI_API size_t hemi_server_keys_bytes(const hemi_server_keys *keys);      /* memory they hold */

/* From request bytes to reply bytes. modules: the evaluators the request may name (those of one model); the request
 * names one or several by id. threads: for one large product (0: all). *reply is freed with hemi_bytes_free.
 * ERR_FORMAT, ERR_VERSION, ERR_PARAMS, ERR_SHAPE, ERR_CONFLICT (no such module id), ERR_KEY (keys do not fit). */
HEMI_API HEMI_CHECK hemi_status hemi_evaluate(const hemi_evaluator *const *modules, size_t module_count, const hemi_server_keys *keys,
                                              const void *request, size_t request_bytes, int threads, uint8_t **reply,
                                              size_t *reply_bytes, hemi_error *err);
HEMI_API void hemi_bytes_free(void *bytes);

/* The HTTP server, in this process. */
typedef struct hemi_http_server hemi_http_server;
typedef struct hemi_http_options {
    const char *folder;  /* each sub-folder is a model; a folder that is itself a model is served under its own name */
    const char *address; /* NULL: 127.0.0.1 */
    uint16_t port;       /* 0: any free port */
    int threads;         /* workers; 0: all processors */
    bool small_memory;        /* weights as small integers: hemi_evaluator_options */
    size_t max_keys_bytes;    /* memory for clients' keys; 0: the default, 1 GiB, or twice what keys for the served modules can take */
    size_t max_prepared_bytes; /* memory for batches of rows that were announced; 0: the default, 512 MiB; one client has half */
    size_t max_request_rows;  /* 0: the default, 4096 */
    bool quiet;               /* no line per request */
    /* Who may use it (docs/operations.md). A server without tenants and without no_auth does not start: ERR_ARGUMENT. */
    const char *tenants;         /* file of hashes of tokens, made by `hemi tenants`; NULL: the tenants are those in the store */
    bool no_auth;                /* all are one tenant, without a token; refused but on a loopback address */
    const char *tls_certificate; /* PEM files, both or neither: the chain, the server's own first ... */
    const char *tls_key;         /* ... and its key */
    bool no_tls;                 /* off loopback without TLS all the same: what is in front of it has TLS */
    /* What outlives it: evaluation keys, counters of rows, tenants */
    const char *store;        /* NULL: nothing outlives it; a file (SQLite); "postgresql://...", which several servers can share */
    size_t tenant_keys_bytes; /* evaluation keys kept for one tenant, as uploaded; further ones are refused; 0: the default */
    unsigned key_expiry_s;    /* since keys were last used; 0: the default */
    double budget;            /* rows of a module for one tenant / (inputs + 1), beyond which it is refused; 0: counted only */
    /* Limits; 0: the default of src/server/limits.h. */
    unsigned max_queue;            /* requests that wait for a worker; further ones get 503 */
    unsigned max_queue_per_tenant; /* of one tenant, by default at most half; further ones get 429 */
    unsigned max_connections, max_connections_per_address, max_connections_per_tenant; /* of one tenant by default at most half */
    unsigned max_header_bytes;     /* request line and header fields; at most 49152 */
    size_t max_body_bytes;         /* of a request, where the served modules would allow more */
    size_t max_request_memory;     /* of one request: its body, its reply and what computing it takes */
    size_t max_memory;             /* of all requests together */
    unsigned prepared_expiry_ms;   /* of a batch that is not used */
    unsigned header_timeout_ms;    /* until the header fields of a request must be complete */
    unsigned idle_timeout_ms;      /* between two requests of a connection */
    unsigned body_rate_min, body_grace_ms; /* bytes per second that a body must make, after a time of grace */
    unsigned drain_ms;             /* what is under way when it stops has so long to be answered */
} hemi_http_options;

HEMI_API HEMI_CHECK hemi_status hemi_http_server_start(hemi_http_server **out, const hemi_http_options *options, hemi_error *err);
HEMI_API uint16_t hemi_http_server_port(const hemi_http_server *server);
/* Reads models, tenants and certificate anew, while it serves. Requests under way go on with what they began with; what cannot be read stays as it
 * was, and the error says why. One caller at a time. */
HEMI_API HEMI_CHECK hemi_status hemi_http_server_reload(hemi_http_server *server, hemi_error *err);
HEMI_API void hemi_http_server_stop(hemi_http_server *server); /* finishes the requests under way; takes NULL */

#ifdef __cplusplus
}
#endif
#endif
