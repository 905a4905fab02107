/* Who a request is from: tenants, known by their tokens. */
#ifndef HEMI_SERVER_IDENTITY_H
#define HEMI_SERVER_IDENTITY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hemi/server.h"
#include "store/store.h"

/* A tenant lives, at one address, until the server ends: what is counted of it is in its members. */
typedef struct hemi_tenant {
    char name[HEMI_TENANT_NAME_BYTES_MAX + 1];
    bool is_operator; /* may read /metrics and what is counted of all tenants */
    atomic_ullong requests, rows, bytes_in, bytes_out;
    atomic_size_t connections, exchanges; /* open; under way */
} hemi_tenant;

/* The name under which this process keeps something of a tenant that is named by an id of the client's choice (keys, uploads, what is prepared,
 * progress): BLAKE2b over tenant and id, so that the same id of two tenants names two things. */
void hemi_tenant_slot(uint8_t *slot, size_t slot_bytes, const hemi_tenant *tenant, const uint8_t *id, size_t id_bytes);

#endif
