/* A connection with the evaluation keys that its server needs: one key file per parameter set, for all modules of all
 * models that were opened, uploaded when the server lacks it. */
#ifndef HEMI_CLIENT_SESSION_H
#define HEMI_CLIENT_SESSION_H

#include <pthread.h>

#include "client/http.h"
#include "client/keys_ckks.h"
#include "hemi/client.h"
#include "linear/layout.h"

#define HEMI_CLIENT_SETS_MAX    8
#define HEMI_CLIENT_MODULES_MAX 64 /* descriptions kept per set: those that need an automorphism no other one does */
#define HEMI_CLIENT_MODELS_MAX  256
#define HEMI_CLIENT_FETCH_MAX   64 /* descriptions fetched for one model */
#define HEMI_CLIENT_UPLOAD_CHUNK   ((size_t)8 << 20) /* larger keys go up in parts: what was sent is not lost with a connection */
#define HEMI_CLIENT_UPLOAD_RETRIES 8 /* of one upload: connections that broke, and parts that did not arrive whole */

/* The keys of one parameter set. */
typedef struct hemi_key_set {
    const hemi_params *params;
    size_t count;
    hemi_module *module[HEMI_CLIENT_MODULES_MAX]; /* own copies, the first of all included */
    size_t automorphisms;
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    hemi_ckks_need need; /* of a levelled set, whose modules need no copies */
    uint8_t *bytes; /* NULL until made, and again when another automorphism is needed; large ones are let go when they are on the server */
    size_t length;
    char id[65];    /* BLAKE2b-256 in hexadecimal */
    uint64_t generation; /* of the secret keys that bytes were made from */
    bool on_server; /* seen there, or put there, by this client */
} hemi_key_set;

struct hemi_client {
    hemi_http *http;
    hemi_keys *keys;
    bool own_keys;
    long circuit_timeout_ms;
    hemi_progress_fn progress; /* may be NULL */
    void *progress_context;
    pthread_mutex_t lock; /* one call at a time, also when the application forgets that */
    size_t sets;
    hemi_key_set set[HEMI_CLIENT_SETS_MAX];
    struct hemi_pools *pools; /* what was prepared of coming calls: pool.h */
    size_t models;
    char *model[HEMI_CLIENT_MODELS_MAX]; /* whose modules were gathered */
};

/* All of these are called with the lock held. */

/* Fetches client.json of a module (shape may be NULL). */
HEMI_CHECK hemi_status hemi_client_describe(hemi_client *client, hemi_module **out, const char *model,
                                            const char *module, const char *shape, hemi_error *err);
/* Asks the server for the modules of a model, once, and gathers what their keys need. */
HEMI_CHECK hemi_status hemi_client_gather(hemi_client *client, const char *model, hemi_error *err);
/* Makes the keys of the module's set serve this module too. */
HEMI_CHECK hemi_status hemi_client_add_module(hemi_client *client, const hemi_module *module, hemi_error *err);
/* The keys of a set: makes them, and puts them on the server if they are not there. again: the server said that they are
 * gone. *uploaded grows by the bytes sent. */
HEMI_CHECK hemi_status hemi_client_ensure_keys(hemi_client *client, const hemi_params *params, bool again,
                                               const hemi_key_set **out, size_t *uploaded, hemi_error *err);

/* session_keys.c: puts the set's bytes on the server, which has `from` of them already, at path. */
HEMI_CHECK hemi_status hemi_client_put_keys(hemi_client *client, hemi_key_set *set, const char *path, size_t from, hemi_error *err);
/* HEAD: sets on_server, or *from: how many bytes the server has of an upload that was interrupted. */
HEMI_CHECK hemi_status hemi_client_ask_for_keys(hemi_client *client, hemi_key_set *set, const char *path, size_t *from, hemi_error *err);

/* The evaluation keys with this id are on the server: nobody needs to ask. */
void hemi_client_keys_seen(hemi_client *client, const hemi_params *params, const char *id);

/* A POST under the keys of a set. */
typedef struct hemi_post {
    const char *path, *name; /* name: of the module, for messages */
    const hemi_params *params;
    const void *body;
    size_t bytes, reply_bytes_max;
    size_t part, parts; /* of a circuit: which of so many requests, for progress; otherwise 0 */
} hemi_post;
/* Sends it; when the server says that it does not have the keys, they are put there and the very same bytes are sent once more. Times are
 * added to stats. */
HEMI_CHECK hemi_status hemi_client_post(hemi_client *client, const hemi_post *post, hemi_http_reply *reply, hemi_call_stats *stats,
                                        hemi_error *err);

#endif
