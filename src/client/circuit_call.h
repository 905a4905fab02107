/* Calls of modules with non-linearities: rows in requests of bounded size. */
#ifndef HEMI_CLIENT_CIRCUIT_CALL_H
#define HEMI_CLIENT_CIRCUIT_CALL_H

#include "client/session.h"

/* Of one request: what is held in memory, and lost when it fails, stays bounded. */
#define HEMI_CIRCUIT_CALL_BYTES ((size_t)64 << 20)
#define HEMI_CIRCUIT_CALL_UNITS 16

typedef struct hemi_circuit_call {
    hemi_client *client;
    const hemi_module *module;
    const char *path, *name; /* of the infer route; of the module, for messages */
    const float *x;
    size_t rows;
    float *y;
    hemi_call_stats *stats;
} hemi_circuit_call;

/* All rows. The client's lock is held. */
HEMI_CHECK hemi_status hemi_circuit_call_all(const hemi_circuit_call *call, hemi_error *err);

#endif
