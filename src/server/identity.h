/* Who a request is from: tenants, known by their tokens. */
#ifndef HEMI_SERVER_IDENTITY_H
#define HEMI_SERVER_IDENTITY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hemi/server.h"
#include "store/store.h"

/* What all tenants share and is bounded in bytes. Where room is needed it is made by the tenant that holds the most, whose oldest goes: what others do
 * takes nothing from who holds little. */
typedef enum hemi_held { HEMI_HELD_KEYS, HEMI_HELD_UPLOADS, HEMI_HELD_PREPARED, HEMI_HELD_KINDS } hemi_held;

/* A tenant lives, at one address, until the server ends: what is counted of it is in its members. */
typedef struct hemi_tenant {
    char name[HEMI_TENANT_NAME_BYTES_MAX + 1];
    atomic_bool is_operator; /* may read /metrics and what is counted of all tenants */
    atomic_bool is_revoked;
    atomic_ullong requests, rows, bytes_in, bytes_out;
    atomic_size_t connections; /* open, whose first request was this tenant's */
    atomic_size_t memory;      /* reserved by its requests */
    size_t held[HEMI_HELD_KINDS]; /* bytes, guarded by the lock of what holds them */
} hemi_tenant;

/* Of requests without a token: no name that a tenant can have. */
#define HEMI_TENANT_ANYONE ".anyone"

typedef struct hemi_identity hemi_identity;

/* Reads the tenants of a file (NULL: none) and of a store (NULL: none; both are borrowed). */
HEMI_CHECK hemi_status hemi_identity_new(hemi_identity **out, const char *file, hemi_store *store, hemi_error *err);
void hemi_identity_free(hemi_identity *identity);
/* Reads them anew; where that fails all stays as it was. Keys of tenants that were revoked are removed from the store. Waits for the disk. */
HEMI_CHECK hemi_status hemi_identity_reload(hemi_identity *identity, hemi_error *err);
/* By the value of the header Authorization; NULL: no tenant's. */
hemi_tenant *hemi_identity_find(hemi_identity *identity, const char *authorization);
size_t hemi_identity_count(hemi_identity *identity); /* with a token that is valid */
/* Calls each tenant there was since start, for metrics. */
void hemi_identity_each(hemi_identity *identity, void (*call)(void *context, const hemi_tenant *tenant), void *context);

/* The name under which this process keeps something of a tenant that is named by an id of the client's choice (keys, uploads, what is prepared,
 * progress): BLAKE2b over tenant and id, so that the same id of two tenants names two things. */
void hemi_tenant_slot(uint8_t *slot, size_t slot_bytes, const hemi_tenant *tenant, const uint8_t *id, size_t id_bytes);

#endif
