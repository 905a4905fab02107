/* Tenants in a file of hashes, for one machine or a mounted secret. A line for each:
 *
 *   NAME tenant|operator HASH CREATED REVOKED
 *
 * HASH: BLAKE2b-256 of the token, in hexadecimal; CREATED, REVOKED: seconds since 1970, 0: not revoked. '#' begins a comment line. The file is
 * read as a whole and written by rename, mode 0600; a second writer waits. */
#ifndef HEMI_STORE_TENANT_FILE_H
#define HEMI_STORE_TENANT_FILE_H

#include "store/store.h"

/* *tenants is freed with free(). ERR_NOT_FOUND, ERR_FORMAT (with the number of the line), ERR_IO, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_tenant_file_read(const char *path, hemi_store_tenant **tenants, size_t *count, hemi_error *err);
/* As hemi_store_tenant_add and _revoke; the file is made where it is missing. */
HEMI_CHECK hemi_status hemi_tenant_file_add(const char *path, const hemi_store_tenant *tenant, hemi_error *err);
HEMI_CHECK hemi_status hemi_tenant_file_revoke(const char *path, const char *name, int64_t now, hemi_error *err);

/* [A-Za-z0-9._-], 1 to HEMI_TENANT_NAME_BYTES_MAX of them, the first not '.'. */
bool hemi_tenant_name_is_valid(const char *name);

#define HEMI_TOKEN_PREFIX "hemi_"
#define HEMI_TOKEN_CHARACTERS (sizeof HEMI_TOKEN_PREFIX - 1 + 64)

/* A token and its hash. 256 random bits: nothing slower than a hash is needed to keep the token from who reads the hash. */
void hemi_token_new(char token[HEMI_TOKEN_CHARACTERS + 1], uint8_t hash[HEMI_STORE_TOKEN_HASH_BYTES]);
void hemi_token_hash(uint8_t hash[HEMI_STORE_TOKEN_HASH_BYTES], const char *token);

#endif
