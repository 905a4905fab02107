/* Counters, and the text that GET /metrics answers (Prometheus exposition format 0.0.4). */
#ifndef HEMI_SERVER_METRICS_H
#define HEMI_SERVER_METRICS_H

#include <stdatomic.h>
#include <stddef.h>

#include "server/budget.h"
#include "server/identity.h"
#include "server/key_cache.h"
#include "server/prepared.h"
#include "server/registry.h"
#include "server/route.h"

/* The HTTP statuses this server sends; 0: the connection ended before the answer. */
#define HEMI_METRICS_STATUSES                                                                                          \
    { 0, 200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 410, 411, 413, 414, 422, 429, 431, 500, 501, 502, 503 }
#define HEMI_METRICS_STATUS_COUNT 22

/* Upper bounds of the histograms, in seconds. */
#define HEMI_METRICS_BOUNDS                                                                                            \
    { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0 }
#define HEMI_METRICS_BOUND_COUNT 18

/* Why the server ended a connection. */
typedef enum hemi_cut {
    HEMI_CUT_IDLE,
    HEMI_CUT_HEADERS,
    HEMI_CUT_BODY,
    HEMI_CUT_REPLY,
    HEMI_CUT_GONE,
    HEMI_CUT_ADDRESS, /* not accepted: its address has too many */
    HEMI_CUTS
} hemi_cut;

typedef struct hemi_histogram {
    atomic_ullong bucket[HEMI_METRICS_BOUND_COUNT + 1]; /* not cumulative */
    atomic_ullong us;
} hemi_histogram;

typedef struct hemi_metrics {
    atomic_ullong requests[HEMI_ROUTES][HEMI_METRICS_STATUS_COUNT];
    atomic_ullong bytes_in, bytes_out; /* bodies */
    atomic_ullong cut[HEMI_CUTS];
    atomic_ullong refused_busy;                          /* queue full */
    atomic_ullong cancelled;                             /* clients that left while their request was computed */
    hemi_histogram compute, latency[HEMI_ROUTES];
} hemi_metrics;

/* ms: from the request line to the end of the answer. */
void hemi_metrics_request(hemi_metrics *metrics, hemi_route_id route, unsigned status, size_t bytes_in,
                          size_t bytes_out, double ms);
void hemi_metrics_compute(hemi_metrics *metrics, double ms);

/* What is read off elsewhere at the moment of asking. */
typedef struct hemi_gauges {
    hemi_key_cache_figures keys;
    hemi_prepared_figures prepared;
    size_t keys_bytes_max, uploads, uploads_bytes;
    size_t queue_length, workers, workers_busy;
    size_t connections, bodies_bytes, bodies_bytes_max;
    unsigned long long store_errors;
    hemi_identity *identity;   /* NULL: there is only `anyone` */
    const hemi_tenant *anyone;
    hemi_budget *budget;
    double uptime_s;
} hemi_gauges;

/* NUL-terminated, freed with free(); NULL without memory. */
char *hemi_metrics_text(const hemi_metrics *metrics, const hemi_gauges *gauges, const hemi_registry *registry,
                        size_t *length);

#endif
