/* What outlives a server: evaluation keys as they were uploaded, counters of rows, tenants. One interface, two backends: SQLite (WAL) in a
 * file, for one machine, and PostgreSQL, which servers on several machines share.
 *
 * Every function is one transaction: after a crash at any moment it has happened wholly or not at all. All are thread-safe, wait for the disk
 * or the network, and so are called on workers, never on the thread of the connections. ERR_IO names the backend's own message; what the
 * backend reports never holds key bytes or tokens. Times are seconds since 1970 (UTC), and are given by the caller. */
#ifndef HEMI_STORE_STORE_H
#define HEMI_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#define HEMI_STORE_KEY_ID_BYTES     32
#define HEMI_STORE_TOKEN_HASH_BYTES 32
#define HEMI_TENANT_NAME_BYTES_MAX  64  /* [A-Za-z0-9._-], does not begin with '.' */
#define HEMI_STORE_SUBJECT_BYTES_MAX 260 /* "model/module" */

typedef struct hemi_store hemi_store;

#define HEMI_STORE_FILE        "server.db"
#define HEMI_STORE_KEYS_SUFFIX ".keys" /* keys are in a file beside it, so that writing them does not hold up what is counted */

/* The file of a server that was not told another: $STATE_DIRECTORY/server.db, $XDG_STATE_HOME/hemi/server.db or ~/.local/state/hemi/server.db. */
HEMI_CHECK hemi_status hemi_store_default_location(char *out, size_t size, hemi_error *err);
/* location: NULL or "memory" (nothing outlives it), a path or "sqlite:PATH", "postgresql://..." (or "postgres://..."). Makes what is missing:
 * the file (0600), the tables. ERR_ARGUMENT, ERR_IO, ERR_VERSION (made by a later version), ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_store_open(hemi_store **out, const char *location, hemi_error *err);
void hemi_store_close(hemi_store *store); /* takes NULL */
const char *hemi_store_kind(const hemi_store *store); /* "memory", "sqlite", "postgresql" */

/* ---- evaluation keys: named by their id within a tenant; what another tenant has is never seen */

/* Keeps a copy. *created: false when they were there already. quota: bytes that all keys of this tenant may have (0: no bound): ERR_LIMIT says
 * how many there are, and nothing changes. */
HEMI_CHECK hemi_status hemi_store_key_put(hemi_store *store, const char *tenant, const uint8_t id[HEMI_STORE_KEY_ID_BYTES], const void *bytes,
                                          size_t count, size_t quota, int64_t now, bool *created, hemi_error *err);
/* *bytes is freed with free(). Notes the use (at most once an hour for the same keys). ERR_KEY when they are not there. */
HEMI_CHECK hemi_status hemi_store_key_get(hemi_store *store, const char *tenant, const uint8_t id[HEMI_STORE_KEY_ID_BYTES], int64_t now,
                                          uint8_t **bytes, size_t *count, hemi_error *err);
/* Are they there? Notes the use, too: for keys that are in a server's memory. */
HEMI_CHECK hemi_status hemi_store_key_touch(hemi_store *store, const char *tenant, const uint8_t id[HEMI_STORE_KEY_ID_BYTES], int64_t now,
                                            bool *has, hemi_error *err);
HEMI_CHECK hemi_status hemi_store_key_remove(hemi_store *store, const char *tenant, const uint8_t id[HEMI_STORE_KEY_ID_BYTES], bool *removed,
                                             hemi_error *err);
/* Removes what was last used before. */
HEMI_CHECK hemi_status hemi_store_keys_expire(hemi_store *store, int64_t before, size_t *removed, hemi_error *err);
/* Of one tenant, or (NULL) of all. */
HEMI_CHECK hemi_status hemi_store_keys_usage(hemi_store *store, const char *tenant, size_t *keys, uint64_t *bytes, hemi_error *err);

/* ---- tenants: the token itself is nowhere, only its hash */

typedef struct hemi_store_tenant {
    char name[HEMI_TENANT_NAME_BYTES_MAX + 1];
    uint8_t token_hash[HEMI_STORE_TOKEN_HASH_BYTES]; /* BLAKE2b-256 */
    bool is_operator;                                /* may read /metrics, and what is counted of all tenants */
    int64_t created, revoked;                        /* revoked 0: not */
} hemi_store_tenant;

/* ERR_STATE when there is one of this name that was not revoked. One that was revoked gets a new token, and what was counted stays. */
HEMI_CHECK hemi_status hemi_store_tenant_add(hemi_store *store, const hemi_store_tenant *tenant, hemi_error *err);
/* ERR_NOT_FOUND. Its keys are removed with it. */
HEMI_CHECK hemi_status hemi_store_tenant_revoke(hemi_store *store, const char *name, int64_t now, hemi_error *err);
/* Removes all keys of a tenant. */
HEMI_CHECK hemi_status hemi_store_tenant_keys_remove(hemi_store *store, const char *name, hemi_error *err);
/* All, revoked ones too, in the order of their names; *tenants is freed with free(). */
HEMI_CHECK hemi_status hemi_store_tenants(hemi_store *store, hemi_store_tenant **tenants, size_t *count, hemi_error *err);

/* ---- rows served: per tenant and subject ("model/module") */

typedef struct hemi_store_count {
    char tenant[HEMI_TENANT_NAME_BYTES_MAX + 1];
    char subject[HEMI_STORE_SUBJECT_BYTES_MAX + 1];
    uint64_t rows;   /* served, and reserved to be served */
    uint64_t inputs; /* unknowns of one output: a linear map is known after inputs + 1 rows */
} hemi_store_count;

/* Reserves up to `rows`, as many as `limit` in all allows (UINT64_MAX: no limit), but none if these are fewer than `least`; *granted: how many. *total: the rows
 * reserved by now. */
HEMI_CHECK hemi_status hemi_store_rows_reserve(hemi_store *store, const char *tenant, const char *subject, uint64_t inputs, uint64_t rows,
                                               uint64_t least, uint64_t limit, uint64_t *granted, uint64_t *total, hemi_error *err);
/* Gives back what was reserved and not served (at a clean end; after a crash it counts as served). */
HEMI_CHECK hemi_status hemi_store_rows_return(hemi_store *store, const char *tenant, const char *subject, uint64_t rows, hemi_error *err);
/* In the order of tenants and subjects; tenant NULL: of all. *counts is freed with free(). */
HEMI_CHECK hemi_status hemi_store_counts(hemi_store *store, const char *tenant, hemi_store_count **counts, size_t *count, hemi_error *err);
/* Begins anew at 0, of what the operator knows that it is another map by now. ERR_NOT_FOUND. */
HEMI_CHECK hemi_status hemi_store_rows_reset(hemi_store *store, const char *tenant, const char *subject, hemi_error *err);

#endif
