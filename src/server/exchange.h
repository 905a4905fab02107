/* One request and its answer. Created when the request line is there, on the thread of the connections; computed on a
 * worker where that is needed; ended when the answer has been sent or the connection was lost. Only one thread at a time has it. */
#ifndef HEMI_SERVER_EXCHANGE_H
#define HEMI_SERVER_EXCHANGE_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/board.h"
#include "server/budget.h"
#include "server/identity.h"
#include "server/jobs.h"
#include "server/key_cache.h"
#include "server/metrics.h"
#include "server/peers.h"
#include "server/prepared.h"
#include "server/registry.h"
#include "server/route.h"
#include "server/uploads.h"

/* What requests share. */
typedef struct hemi_service {
    pthread_mutex_t registry_lock; /* guards what follows: hemi_service_registry */
    hemi_registry *registry;
    hemi_store *store; /* NULL: nothing outlives this process, and keys are in the cache alone */
    hemi_budget *budget;
    hemi_key_cache *keys;
    hemi_uploads *uploads;
    hemi_prepared *prepared;
    hemi_board *board;
    hemi_peers *peers;
    hemi_jobs *jobs;
    hemi_identity *identity; /* NULL: no_auth ... */
    hemi_tenant anyone;      /* ... and whose requests are without a token */
    size_t tenant_connections_max;
    hemi_metrics metrics;
    size_t header_bytes_max, max_rows, tenant_keys_bytes, body_bytes_max, request_memory_max; /* the last two: SIZE_MAX where nothing was said */
    atomic_size_t keys_bytes_max, bodies_bytes_max; /* follow from what is served */
    atomic_ullong store_errors;
    int workers;
    bool quiet;
    double started_ms;
    atomic_size_t bodies_bytes; /* of all exchanges */
    atomic_size_t exchanges;    /* under way */
    atomic_bool stopping;
} hemi_service;

typedef enum hemi_stage {
    HEMI_STAGE_NEW,       /* the request line is there */
    HEMI_STAGE_RECEIVING, /* the headers are there */
    HEMI_STAGE_WORKING,   /* on a worker, the connection suspended */
    HEMI_STAGE_ANSWERED   /* the answer is queued */
} hemi_stage;

#define HEMI_ANSWER_HEADERS 6

typedef struct hemi_answer {
    unsigned status;  /* HTTP; 0: none yet */
    const char *type; /* Content-Type; NULL without a body */
    void *body;
    size_t bytes;
    void (*release)(void *body); /* NULL: the body lives on */
    struct {
        const char *name;
        char value[80];
    } header[HEMI_ANSWER_HEADERS];
    size_t headers;
    bool close; /* without reading the rest of the request */
} hemi_answer;

typedef struct hemi_exchange {
    hemi_service *service;
    struct MHD_Connection *connection;
    hemi_peer *peer;
    hemi_stage stage;
    double started_ms;

    char id[HEMI_SERVER_REQUEST_ID_BYTES_MAX + 1]; /* of this request, in the log and the answer */
    bool clean_uri;
    size_t uri_bytes;
    hemi_method method;
    hemi_route route;
    hemi_registry *registry; /* as it was when the request began */
    const hemi_served_model *model;

    hemi_tenant *tenant; /* whose request it is */
    bool has_key;        /* key: from the path or the header */
    uint8_t key[HEMI_KEY_ID_BYTES];
    uint8_t slot[HEMI_KEY_ID_BYTES]; /* under which this process keeps what belongs to the tenant's key (identity.h) */

    bool has_length;
    size_t body_bytes, received; /* Content-Length, and what came of it */
    uint8_t *body;               /* of /infer */
    hemi_upload *upload;         /* of PUT /v2/keys: the body goes to its end */
    size_t held_bytes;           /* what this exchange has of bodies_bytes, ... */
    size_t working_bytes;        /* ... and of that, for computing */

    bool announced; /* counted by hemi_prepared_begin */
    bool has_progress; /* the header Hemi-Progress of /infer: */
    uint8_t progress[HEMI_SERVER_PROGRESS_ID_BYTES];
    hemi_notice *notice; /* while it waits or is computed */
    size_t rows;
    double compute_ms;
    bool computed;
    hemi_answer answer;
} hemi_exchange;

/* http.c: what is served now, for hemi_registry_release. */
hemi_registry *hemi_service_registry(hemi_service *service);
/* Counts, and says on stderr why. */
void hemi_service_store_failed(hemi_service *service, const hemi_error *err);

/* exchange.c: the course of a request. All on the thread of the connections, but for _work. */
hemi_exchange *hemi_exchange_new(hemi_service *service, struct MHD_Connection *connection, hemi_peer *peer,
                                 const char *uri);
/* The headers are there: finds the route, checks everything that can be checked now, makes room for the body. */
void hemi_exchange_begin(hemi_exchange *x, const char *path, const char *method);
void hemi_exchange_receive(hemi_exchange *x, const void *data, size_t bytes);
/* The request is complete. True: it is answered; false: hemi_exchange_work is to be called, on a worker. */
bool hemi_exchange_complete(hemi_exchange *x);
/* The queue it waits in. */
hemi_lane hemi_exchange_lane(const hemi_exchange *x);
void hemi_exchange_work(hemi_exchange *x);
/* Counts, logs, frees. completed: the answer was sent. */
void hemi_exchange_end(hemi_exchange *x, bool completed);
/* Takes the id of keys, 64 hexadecimal digits in lower case; false when they are not that. */
bool hemi_exchange_set_key(hemi_exchange *x, const char *hex);
/* Reserves memory for a body; false when all bodies together have too much. */
bool hemi_exchange_hold(hemi_exchange *x, size_t bytes);
/* The same for a reply, and for what computing it takes, before it is computed; false: answered. The latter until hemi_exchange_let_go. */
bool hemi_exchange_hold_reply(hemi_exchange *x, size_t reply, size_t working);
void hemi_exchange_let_go(hemi_exchange *x);
/* The value of a request header field or of a query parameter; NULL if it is not there. */
const char *hemi_exchange_header(const hemi_exchange *x, const char *name);
const char *hemi_exchange_query(const hemi_exchange *x, const char *name);

/* answer.c: what is answered. The first answer counts; a later one is dropped, with its body. */
void hemi_answer_bytes(hemi_exchange *x, unsigned http, const char *type, void *body, size_t bytes,
                       void (*release)(void *));
void hemi_answer_empty(hemi_exchange *x, unsigned http);
/* {"error": {"code": ..., "message": ...}}; http 0: the status's own. */
void hemi_answer_error(hemi_exchange *x, unsigned http, hemi_status status, const char *format, ...) HEMI_PRINTF(4, 5);
/* format NULL: the header becomes `value` itself. */
void hemi_answer_header(hemi_exchange *x, const char *name, const char *format, ...) HEMI_PRINTF(3, 4);
void hemi_answer_release(hemi_answer *answer);
/* Hands the answer over to libmicrohttpd. */
enum MHD_Result hemi_answer_send(hemi_exchange *x);

/* views.c: answers to GET. */
void hemi_view_health(hemi_exchange *x);
void hemi_view_metrics(hemi_exchange *x);
void hemi_view_models(hemi_exchange *x);
void hemi_view_client(hemi_exchange *x);
void hemi_view_progress(hemi_exchange *x);

/* compute.c: for infer.c and prepare.c, on a worker. */
/* The module of this id; NULL: answered. */
hemi_served_shape *hemi_compute_shape(hemi_exchange *x, const uint8_t id[HEMI_MODULE_ID_BYTES]);
/* The caller's worker and those that are idle. */
int hemi_compute_threads(hemi_service *service);
/* How far the request is (a hemi_progress_fn). */
void hemi_compute_progress(void *exchange, const char *what, size_t done, size_t total);
/* It was not: http as for hemi_answer_error. ERR_NETWORK: it was given up, as the client left, or the server ends. */
void hemi_compute_failed(hemi_exchange *x, unsigned http, hemi_status status, const hemi_error *err);
/* The reply was computed, in x->compute_ms. Takes reply. */
void hemi_compute_answer(hemi_exchange *x, uint8_t *reply, size_t bytes);
/* Counts rows of these modules, if the tenant may have them (false: answered); afterwards, always, whether they were served. */
bool hemi_compute_charge(hemi_exchange *x, hemi_charge *charge, hemi_served_shape *const *shape, size_t modules, size_t rows);
void hemi_compute_settle(hemi_exchange *x, const hemi_charge *charge, hemi_served_shape *const *shape);

/* infer.c */
void hemi_infer_begin(hemi_exchange *x); /* of an announcement, too */
void hemi_infer_complete(hemi_exchange *x); /* from now on it waits */
void hemi_infer_work(hemi_exchange *x);

/* prepare.c */
bool hemi_prepare_complete(hemi_exchange *x); /* true: answered. Only now is an announcement counted: who holds back a body holds no place */
void hemi_batch_work(hemi_exchange *x); /* also of /infer, where the body is a batch request */

/* key_routes.c */
void hemi_key_begin(hemi_exchange *x);
bool hemi_key_complete(hemi_exchange *x); /* true: answered */

/* keys.c: what /v2/keys/{hash} asks for, on a worker; and the keys that a request names, from the cache or else the store, for
 * hemi_key_cache_release (NULL: answered). */
void hemi_key_work(hemi_exchange *x);
const hemi_server_keys *hemi_keys_acquire(hemi_exchange *x);
/* Out of this process's memory, with all that belongs to them. */
void hemi_keys_forget(hemi_service *service, const uint8_t slot[HEMI_KEY_ID_BYTES]);

#endif
