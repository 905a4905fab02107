#include "server/identity.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "store/tenant_file.h"

typedef struct entry {
    uint8_t hash[HEMI_STORE_TOKEN_HASH_BYTES];
    hemi_tenant *tenant;
} entry;

struct hemi_identity {
    const char *file;
    hemi_store *store;
    pthread_mutex_t lock; /* guards what follows */
    hemi_tenant **tenant; /* all there were since start */
    size_t tenants, room;
    entry *entry; /* of valid tokens, in the order of their hashes */
    size_t entries;
};

void hemi_tenant_slot(uint8_t *slot, size_t slot_bytes, const hemi_tenant *tenant, const uint8_t *id, size_t id_bytes) {
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, slot_bytes);
    (void)crypto_generichash_update(&state, (const uint8_t *)tenant->name, strlen(tenant->name) + 1); /* a name holds no NUL */
    (void)crypto_generichash_update(&state, id, id_bytes);
    (void)crypto_generichash_final(&state, slot, slot_bytes);
}

static int compare(const void *a, const void *b) { return memcmp(((const entry *)a)->hash, ((const entry *)b)->hash, HEMI_STORE_TOKEN_HASH_BYTES); }

/* The tenant of this name, made where it is new; NULL without memory. */
static hemi_tenant *tenant_of(hemi_identity *identity, const char *name) {
    for (size_t i = 0; i < identity->tenants; i++)
        if (strcmp(identity->tenant[i]->name, name) == 0) return identity->tenant[i];
    if (identity->tenants == identity->room) {
        const size_t room = identity->room ? 2 * identity->room : 16;
        hemi_tenant **more = realloc(identity->tenant, room * sizeof *more);
        if (!more) return NULL;
        identity->tenant = more;
        identity->room = room;
    }
    hemi_tenant *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    strcpy(t->name, name);
    identity->tenant[identity->tenants++] = t;
    return t;
}

typedef struct source {
    hemi_store_tenant *tenants;
    size_t count;
} source;

static hemi_status take(hemi_identity *identity, const source *sources, entry *entries, size_t *count, hemi_error *err) {
    for (size_t s = 0; s < 2; s++)
        for (size_t i = 0; i < sources[s].count; i++) {
            hemi_tenant *t = tenant_of(identity, sources[s].tenants[i].name);
            if (!t) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for tenants");
            if (sources[s].tenants[i].revoked) continue;
            memcpy(entries[*count].hash, sources[s].tenants[i].token_hash, sizeof entries->hash);
            entries[(*count)++].tenant = t;
            atomic_store(&t->is_operator, sources[s].tenants[i].is_operator);
        }
    return HEMI_OK;
}

/* Of the tenants without a valid token, those that had one, or were never looked at: *gone is freed by the caller. */
static size_t find_revoked(const hemi_identity *identity, hemi_tenant **gone) {
    size_t count = 0;
    for (size_t i = 0; i < identity->tenants; i++) {
        hemi_tenant *t = identity->tenant[i];
        bool valid = false;
        for (size_t j = 0; j < identity->entries && !valid; j++) valid = identity->entry[j].tenant == t;
        if (atomic_exchange(&t->is_revoked, !valid) != !valid && !valid) gone[count++] = t;
    }
    return count;
}

static hemi_status replace(hemi_identity *identity, const source *sources, hemi_error *err) {
    entry *entries = calloc(sources[0].count + sources[1].count + 1, sizeof *entries);
    hemi_tenant **gone = NULL;
    size_t count = 0, revoked = 0;
    if (!entries) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for tenants");
    pthread_mutex_lock(&identity->lock);
    hemi_status status = take(identity, sources, entries, &count, err);
    if (status == HEMI_OK && !(gone = calloc(identity->tenants + 1, sizeof *gone))) status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for tenants");
    if (status == HEMI_OK) {
        entry *old = identity->entry;
        qsort(entries, count, sizeof *entries, compare);
        identity->entry = entries;
        identity->entries = count;
        entries = old;
        revoked = find_revoked(identity, gone);
    }
    pthread_mutex_unlock(&identity->lock);
    free(entries);
    for (size_t i = 0; i < revoked && identity->store; i++) {
        const hemi_status removed = hemi_store_tenant_keys_remove(identity->store, gone[i]->name, err);
        if (removed != HEMI_OK) {
            atomic_store(&gone[i]->is_revoked, false); /* once more the next time */
            status = removed;
        }
    }
    free(gone);
    return status;
}

hemi_status hemi_identity_reload(hemi_identity *identity, hemi_error *err) {
    source sources[2] = {{NULL, 0}, {NULL, 0}};
    hemi_status status = identity->file ? hemi_tenant_file_read(identity->file, &sources[0].tenants, &sources[0].count, err) : HEMI_OK;
    if (status == HEMI_OK && identity->store) status = hemi_store_tenants(identity->store, &sources[1].tenants, &sources[1].count, err);
    if (status == HEMI_OK) status = replace(identity, sources, err);
    free(sources[0].tenants);
    free(sources[1].tenants);
    return status;
}

hemi_status hemi_identity_new(hemi_identity **out, const char *file, hemi_store *store, hemi_error *err) {
    *out = NULL;
    hemi_identity *identity = calloc(1, sizeof *identity);
    if (!identity) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for tenants");
    identity->file = file;
    identity->store = store;
    pthread_mutex_init(&identity->lock, NULL);
    const hemi_status status = hemi_identity_reload(identity, err);
    if (status != HEMI_OK) {
        hemi_identity_free(identity);
        return status;
    }
    *out = identity;
    return HEMI_OK;
}

void hemi_identity_free(hemi_identity *identity) {
    if (!identity) return;
    for (size_t i = 0; i < identity->tenants; i++) free(identity->tenant[i]);
    free(identity->tenant);
    free(identity->entry);
    pthread_mutex_destroy(&identity->lock);
    free(identity);
}

/* Hashes are compared, whose values nobody can choose: what their comparison takes of time says nothing of a token. */
hemi_tenant *hemi_identity_find(hemi_identity *identity, const char *authorization) {
    static const char scheme[] = "Bearer ";
    entry wanted;
    if (strncasecmp(authorization, scheme, sizeof scheme - 1) != 0) return NULL;
    const char *token = authorization + sizeof scheme - 1;
    token += strspn(token, " ");
    if (strlen(token) != HEMI_TOKEN_CHARACTERS) return NULL;
    hemi_token_hash(wanted.hash, token);
    pthread_mutex_lock(&identity->lock);
    const entry *found = identity->entries ? bsearch(&wanted, identity->entry, identity->entries, sizeof wanted, compare) : NULL;
    hemi_tenant *tenant = found ? found->tenant : NULL;
    pthread_mutex_unlock(&identity->lock);
    return tenant;
}

size_t hemi_identity_count(hemi_identity *identity) {
    pthread_mutex_lock(&identity->lock);
    const size_t count = identity->entries;
    pthread_mutex_unlock(&identity->lock);
    return count;
}

void hemi_identity_each(hemi_identity *identity, void (*call)(void *, const hemi_tenant *), void *context) {
    pthread_mutex_lock(&identity->lock);
    for (size_t i = 0; i < identity->tenants; i++) call(context, identity->tenant[i]);
    pthread_mutex_unlock(&identity->lock);
}
