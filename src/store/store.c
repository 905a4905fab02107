#include "store/store.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "store/db.h"

#define SCHEMA_VERSION 1
#define PART_BYTES     ((size_t)1 << 20) /* of a key: PostgreSQL and SQLite hold values in memory as a whole */
#define USE_NOTED_S    3600              /* when keys were last used is noted once in so long */
#define ROWS_MAX       ((uint64_t)1 << 62)

/* One connection, and who has it. */
typedef struct channel {
    pthread_mutex_t lock;
    hemi_db *db;
} channel;

/* Two, and with SQLite two files: a key of hundreds of megabytes that is written does not hold up what is counted. */
struct hemi_store {
    const char *kind;
    channel books, keys;
};

#define WITH(c) ((c)->db->ops)

static hemi_status run(channel *c, const char *sql, const hemi_db_value *values, size_t count, hemi_error *err) {
    return WITH(c)->run(c->db, sql, values, count, NULL, NULL, NULL, err);
}

static hemi_status run_counted(channel *c, const char *sql, const hemi_db_value *values, size_t count, size_t *changed, hemi_error *err) {
    return WITH(c)->run(c->db, sql, values, count, NULL, NULL, changed, err);
}

#define VALUES(...) (const hemi_db_value[]){__VA_ARGS__}, sizeof((const hemi_db_value[]){__VA_ARGS__}) / sizeof(hemi_db_value)

/* ---- results of one row */

typedef struct numbers {
    const hemi_db_ops *ops;
    int64_t value[4];
    int columns;
    bool found;
} numbers;

static hemi_status read_numbers(void *context, const hemi_db_row *row, hemi_error *err) {
    numbers *n = context;
    (void)err;
    n->found = true;
    for (int i = 0; i < n->columns; i++) n->value[i] = n->ops->column_int(row, i);
    return HEMI_OK;
}

/* The first `columns` columns of the last row; found: there was one. */
static hemi_status ask(channel *c, numbers *n, int columns, const char *sql, const hemi_db_value *values, size_t count, hemi_error *err) {
    *n = (numbers){.ops = WITH(c), .columns = columns};
    return WITH(c)->run(c->db, sql, values, count, read_numbers, n, NULL, err);
}

/* ---- transactions */

typedef hemi_status (*work_fn)(channel *c, void *context, hemi_error *err);

static hemi_status attempt(channel *c, work_fn work, void *context, hemi_error *err) {
    hemi_status status = run(c, WITH(c)->begin, NULL, 0, err);
    if (status == HEMI_OK) status = work(c, context, err);
    if (status == HEMI_OK) status = run(c, "COMMIT", NULL, 0, err);
    if (status != HEMI_OK) (void)run(c, "ROLLBACK", NULL, 0, NULL);
    return status;
}

/* A connection that broke is made anew once, and the work done from its beginning. Of work whose end is not known that means twice: keys and tenants
 * are the same afterwards, rows are reserved once more than needed. */
static hemi_status in_transaction(channel *c, work_fn work, void *context, hemi_error *err) {
    pthread_mutex_lock(&c->lock);
    hemi_status status = attempt(c, work, context, err);
    if (status != HEMI_OK && WITH(c)->is_lost(c->db)) {
        status = WITH(c)->connect(c->db, err);
        if (status == HEMI_OK) status = attempt(c, work, context, err);
    }
    pthread_mutex_unlock(&c->lock);
    return status;
}

/* ---- the tables: the types are PostgreSQL's names; SQLite takes any */

static const char *const tables[] = {
    "CREATE TABLE IF NOT EXISTS tenants (name TEXT PRIMARY KEY, hash BYTEA NOT NULL, operator BIGINT NOT NULL, created BIGINT NOT NULL, "
    "revoked BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS served (tenant TEXT NOT NULL, subject TEXT NOT NULL, inputs BIGINT NOT NULL, total BIGINT NOT NULL, "
    "PRIMARY KEY (tenant, subject))",
    "CREATE TABLE IF NOT EXISTS eval_keys (tenant TEXT NOT NULL, id BYTEA NOT NULL, size BIGINT NOT NULL, created BIGINT NOT NULL, "
    "used BIGINT NOT NULL, PRIMARY KEY (tenant, id))",
    /* Parts go with their keys in one statement: of two another server's could come in between, and leave half. */
    "CREATE TABLE IF NOT EXISTS eval_key_parts (tenant TEXT NOT NULL, id BYTEA NOT NULL, part BIGINT NOT NULL, data BYTEA NOT NULL, "
    "PRIMARY KEY (tenant, id, part), FOREIGN KEY (tenant, id) REFERENCES eval_keys (tenant, id) ON DELETE CASCADE)",
    "CREATE INDEX IF NOT EXISTS eval_keys_used ON eval_keys (used)",
};

static hemi_status make_tables(channel *c, void *context, hemi_error *err) {
    numbers n;
    (void)context;
    if (WITH(c)->schema_lock) {
        HEMI_TRY(run(c, WITH(c)->schema_lock, NULL, 0, err));
        HEMI_TRY(run(c, "CREATE TABLE IF NOT EXISTS hemi_schema (version BIGINT NOT NULL)", NULL, 0, err));
    }
    HEMI_TRY(ask(c, &n, 1, WITH(c)->schema_version, NULL, 0, err));
    if (n.value[0] > SCHEMA_VERSION)
        return hemi_fail(err, HEMI_ERR_VERSION, "the store has version %" PRId64 ", this program reads %d: it was made by a later one", n.value[0], SCHEMA_VERSION);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) HEMI_TRY(run(c, tables[i], NULL, 0, err));
    return n.value[0] == SCHEMA_VERSION ? HEMI_OK : run(c, WITH(c)->schema_version_set, NULL, 0, err);
}

/* ---- opening */

static hemi_status open_channel(channel *c, bool postgres, const char *location, hemi_error *err) {
    pthread_mutex_init(&c->lock, NULL);
    HEMI_TRY(postgres ? hemi_db_open_postgres(&c->db, location, err) : hemi_db_open_sqlite(&c->db, location, err));
    return in_transaction(c, make_tables, NULL, err);
}

static hemi_status make_parent(const char *path, hemi_error *err) {
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path) return HEMI_OK;
    char *folder = hemi_strdup(path);
    if (!folder) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a store");
    folder[slash - path] = 0;
    const hemi_status status = hemi_folder_create(folder, err);
    hemi_free(folder);
    return status == HEMI_OK ? HEMI_OK : hemi_fail_in(err, status, "the folder of the store %s", path);
}

static hemi_status open_both(hemi_store *store, const char *location, hemi_error *err) {
    char keys[4096];
    if (!location || strcmp(location, "memory") == 0) {
        store->kind = "memory";
        HEMI_TRY(open_channel(&store->books, false, NULL, err));
        return open_channel(&store->keys, false, NULL, err);
    }
    if (strncmp(location, "postgresql://", 13) == 0 || strncmp(location, "postgres://", 11) == 0) {
        store->kind = "postgresql";
        HEMI_TRY(open_channel(&store->books, true, location, err));
        return open_channel(&store->keys, true, location, err);
    }
    store->kind = "sqlite";
    if (strncmp(location, "sqlite:", 7) == 0) location += 7;
    if (!location[0] || strstr(location, "://") || snprintf(keys, sizeof keys, "%s" HEMI_STORE_KEYS_SUFFIX, location) >= (int)sizeof keys)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "'%.80s' is not a store: a file, 'memory', or postgresql://USER@HOST/DATABASE is", location);
    HEMI_TRY(make_parent(location, err));
    HEMI_TRY(open_channel(&store->books, false, location, err));
    return open_channel(&store->keys, false, keys, err);
}

hemi_status hemi_store_open(hemi_store **out, const char *location, hemi_error *err) {
    *out = NULL;
    hemi_store *store = hemi_alloc(1, sizeof *store);
    if (!store) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a store");
    const hemi_status status = open_both(store, location, err);
    if (status != HEMI_OK) {
        hemi_store_close(store);
        return status;
    }
    *out = store;
    return HEMI_OK;
}

static void close_channel(channel *c) {
    if (!c->db) return;
    WITH(c)->close(c->db);
    pthread_mutex_destroy(&c->lock);
}

void hemi_store_close(hemi_store *store) {
    if (!store) return;
    close_channel(&store->books);
    close_channel(&store->keys);
    hemi_free(store);
}

const char *hemi_store_kind(const hemi_store *store) { return store->kind; }

hemi_status hemi_store_default_location(char *out, size_t size, hemi_error *err) {
    const char *state = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (state && state[0] == '/')
        n = snprintf(out, size, "%.*s/" HEMI_STORE_FILE, (int)strcspn(state, ":"), state);
    else if (xdg && xdg[0] == '/')
        n = snprintf(out, size, "%s/hemi/" HEMI_STORE_FILE, xdg);
    else if (home && home[0] == '/')
        n = snprintf(out, size, "%s/.local/state/hemi/" HEMI_STORE_FILE, home);
    if (n >= 0 && (size_t)n < size) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_ARGUMENT, "there is no home folder to keep a store in: say where with --store FILE, or --store memory");
}

/* ---- evaluation keys */

typedef struct key_work {
    const char *tenant;
    const uint8_t *id;
    const uint8_t *bytes; /* to be put */
    size_t count, quota;
    int64_t now;
    bool done; /* created, removed, there */
    uint8_t *out;
    size_t out_count, at;
} key_work;

#define KEY(w) hemi_db_text((w)->tenant), hemi_db_blob((w)->id, HEMI_STORE_KEY_ID_BYTES)

static hemi_status usage_of(channel *c, const char *tenant, int64_t *bytes, hemi_error *err) {
    numbers n;
    HEMI_TRY(ask(c, &n, 1, "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM eval_keys WHERE tenant = $1", VALUES(hemi_db_text(tenant)), err));
    *bytes = n.value[0];
    return HEMI_OK;
}

static hemi_status put_key(channel *c, void *context, hemi_error *err) {
    key_work *w = context;
    int64_t used = 0;
    size_t changed = 0;
    if (WITH(c)->lock_tenant) HEMI_TRY(run(c, WITH(c)->lock_tenant, VALUES(hemi_db_text(w->tenant)), err));
    HEMI_TRY(run_counted(c, "INSERT INTO eval_keys (tenant, id, size, created, used) VALUES ($1, $2, $3, $4, $4) ON CONFLICT (tenant, id) DO NOTHING",
                         VALUES(KEY(w), hemi_db_int((int64_t)w->count), hemi_db_int(w->now)), &changed, err));
    w->done = changed > 0;
    if (!w->done) return HEMI_OK;
    if (w->quota) HEMI_TRY(usage_of(c, w->tenant, &used, err)); /* with these */
    if (w->quota && (uint64_t)used > w->quota)
        return hemi_fail(err, HEMI_ERR_LIMIT,
                         "evaluation keys of %zu bytes do not fit: this tenant has %" PRId64 " of %zu bytes in use. DELETE /v2/keys/{hash} frees those that are not needed "
                         "any more; others expire by themselves",
                         w->count, used - (int64_t)w->count, w->quota);
    for (size_t at = 0, part = 0; at < w->count; at += PART_BYTES, part++) {
        const size_t bytes = w->count - at < PART_BYTES ? w->count - at : PART_BYTES;
        HEMI_TRY(run(c, "INSERT INTO eval_key_parts (tenant, id, part, data) VALUES ($1, $2, $3, $4)",
                     VALUES(KEY(w), hemi_db_int((int64_t)part), hemi_db_blob(w->bytes + at, bytes)), err));
    }
    return HEMI_OK;
}

hemi_status hemi_store_key_put(hemi_store *store, const char *tenant, const uint8_t id[HEMI_STORE_KEY_ID_BYTES], const void *bytes, size_t count,
                               size_t quota, int64_t now, bool *created, hemi_error *err) {
    key_work w = {.tenant = tenant, .id = id, .bytes = bytes, .count = count, .quota = quota, .now = now};
    const hemi_status status = in_transaction(&store->keys, put_key, &w, err);
    *created = status == HEMI_OK && w.done;
    return status;
}

static hemi_status note_use(channel *c, const key_work *w, hemi_error *err) {
    return run(c, "UPDATE eval_keys SET used = $3 WHERE tenant = $1 AND id = $2 AND used < $4",
               VALUES(KEY(w), hemi_db_int(w->now), hemi_db_int(w->now - USE_NOTED_S)), err);
}

typedef struct part_reader {
    const hemi_db_ops *ops;
    key_work *w;
} part_reader;

static hemi_status read_part(void *context, const hemi_db_row *row, hemi_error *err) {
    const part_reader *r = context;
    key_work *w = r->w;
    size_t count;
    const void *bytes = r->ops->column_bytes(row, 0, &count);
    if (count > w->out_count - w->at) return hemi_fail(err, HEMI_ERR_FORMAT, "the store holds evaluation keys that are longer than it says");
    if (count > 0) memcpy(w->out + w->at, bytes, count);
    w->at += count;
    return HEMI_OK;
}

static hemi_status get_key(channel *c, void *context, hemi_error *err) {
    key_work *w = context;
    numbers n;
    part_reader reader = {.ops = WITH(c), .w = w};
    free(w->out); /* of an attempt that was lost */
    w->out = NULL;
    w->at = 0;
    HEMI_TRY(ask(c, &n, 1, "SELECT size FROM eval_keys WHERE tenant = $1 AND id = $2", VALUES(KEY(w)), err));
    if (!n.found) return hemi_fail(err, HEMI_ERR_KEY, "these evaluation keys are not here");
    w->out_count = (size_t)n.value[0];
    w->out = malloc(w->out_count ? w->out_count : 1);
    if (!w->out) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for evaluation keys of %zu bytes", w->out_count);
    for (int64_t part = 0; w->at < w->out_count; part++) {
        const size_t before = w->at;
        HEMI_TRY(WITH(c)->run(c->db, "SELECT data FROM eval_key_parts WHERE tenant = $1 AND id = $2 AND part = $3", VALUES(KEY(w), hemi_db_int(part)), read_part,
                              &reader, NULL, err));
        if (w->at == before) return hemi_fail(err, HEMI_ERR_KEY, "these evaluation keys were just deleted");
    }
    return note_use(c, w, err);
}

hemi_status hemi_store_key_get(hemi_store *store, const char *tenant, const uint8_t id[HEMI_STORE_KEY_ID_BYTES], int64_t now, uint8_t **bytes,
                               size_t *count, hemi_error *err) {
    key_work w = {.tenant = tenant, .id = id, .now = now};
    const hemi_status status = in_transaction(&store->keys, get_key, &w, err);
    if (status != HEMI_OK) {
        free(w.out);
        w.out = NULL;
    }
    *bytes = w.out;
    *count = w.out ? w.out_count : 0;
    return status;
}

static hemi_status touch_key(channel *c, void *context, hemi_error *err) {
    key_work *w = context;
    numbers n;
    HEMI_TRY(ask(c, &n, 1, "SELECT used FROM eval_keys WHERE tenant = $1 AND id = $2", VALUES(KEY(w)), err));
    w->done = n.found;
    return n.found && n.value[0] < w->now - USE_NOTED_S ? note_use(c, w, err) : HEMI_OK;
}

hemi_status hemi_store_key_touch(hemi_store *store, const char *tenant, const uint8_t id[HEMI_STORE_KEY_ID_BYTES], int64_t now, bool *has,
                                 hemi_error *err) {
    key_work w = {.tenant = tenant, .id = id, .now = now};
    const hemi_status status = in_transaction(&store->keys, touch_key, &w, err);
    *has = status == HEMI_OK && w.done;
    return status;
}

static hemi_status remove_key(channel *c, void *context, hemi_error *err) {
    key_work *w = context;
    size_t changed = 0;
    HEMI_TRY(run_counted(c, "DELETE FROM eval_keys WHERE tenant = $1 AND id = $2", VALUES(KEY(w)), &changed, err));
    w->done = changed > 0;
    return HEMI_OK;
}

hemi_status hemi_store_key_remove(hemi_store *store, const char *tenant, const uint8_t id[HEMI_STORE_KEY_ID_BYTES], bool *removed, hemi_error *err) {
    key_work w = {.tenant = tenant, .id = id};
    const hemi_status status = in_transaction(&store->keys, remove_key, &w, err);
    *removed = status == HEMI_OK && w.done;
    return status;
}

typedef struct sweep_work {
    const char *sql;
    hemi_db_value value;
    size_t removed;
} sweep_work;

static hemi_status remove_keys(channel *c, void *context, hemi_error *err) {
    sweep_work *w = context;
    return run_counted(c, w->sql, &w->value, 1, &w->removed, err);
}

hemi_status hemi_store_keys_expire(hemi_store *store, int64_t before, size_t *removed, hemi_error *err) {
    sweep_work w = {.sql = "DELETE FROM eval_keys WHERE used < $1", .value = hemi_db_int(before)};
    const hemi_status status = in_transaction(&store->keys, remove_keys, &w, err);
    *removed = status == HEMI_OK ? w.removed : 0;
    return status;
}

typedef struct usage_work {
    const char *tenant;
    numbers n;
} usage_work;

static hemi_status read_usage(channel *c, void *context, hemi_error *err) {
    usage_work *w = context;
    return ask(c, &w->n, 2,
               "SELECT CAST(count(*) AS BIGINT), CAST(coalesce(sum(size), 0) AS BIGINT) FROM eval_keys WHERE $1 = '' OR tenant = $1",
               VALUES(hemi_db_text(w->tenant ? w->tenant : "")), err);
}

hemi_status hemi_store_keys_usage(hemi_store *store, const char *tenant, size_t *keys, uint64_t *bytes, hemi_error *err) {
    usage_work w = {.tenant = tenant};
    const hemi_status status = in_transaction(&store->keys, read_usage, &w, err);
    *keys = status == HEMI_OK ? (size_t)w.n.value[0] : 0;
    *bytes = status == HEMI_OK ? (uint64_t)w.n.value[1] : 0;
    return status;
}

/* ---- lists */

typedef struct list {
    const hemi_db_ops *ops;
    const char *tenant;
    uint8_t *items;
    size_t item_bytes, count, room;
    void (*read)(const hemi_db_ops *ops, const hemi_db_row *row, void *item);
} list;

static hemi_status read_item(void *context, const hemi_db_row *row, hemi_error *err) {
    list *l = context;
    if (l->count == l->room) {
        const size_t room = l->room ? 2 * l->room : 16;
        uint8_t *more = realloc(l->items, room * l->item_bytes);
        if (!more) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for what the store has");
        l->items = more;
        l->room = room;
    }
    uint8_t *item = l->items + l->item_bytes * l->count++;
    memset(item, 0, l->item_bytes);
    l->read(l->ops, row, item);
    return HEMI_OK;
}

static void copy_text(char *out, size_t size, const hemi_db_ops *ops, const hemi_db_row *row, int column) {
    const char *text = ops->column_bytes(row, column, NULL);
    snprintf(out, size, "%s", text ? text : "");
}

static hemi_status read_list(channel *c, list *l, const char *sql, hemi_error *err) {
    l->ops = WITH(c);
    l->count = 0;
    return WITH(c)->run(c->db, sql, VALUES(hemi_db_text(l->tenant ? l->tenant : "")), read_item, l, NULL, err);
}

static hemi_status give_list(list *l, hemi_status status, void *out, size_t *count) {
    if (status != HEMI_OK) {
        free(l->items);
        l->items = NULL;
        l->count = 0;
    }
    memcpy(out, &l->items, sizeof l->items);
    *count = l->count;
    return status;
}

/* ---- tenants */

static hemi_status add_tenant(channel *c, void *context, hemi_error *err) {
    const hemi_store_tenant *t = context;
    size_t changed = 0;
    HEMI_TRY(run_counted(c,
                         "INSERT INTO tenants (name, hash, operator, created, revoked) VALUES ($1, $2, $3, $4, 0) ON CONFLICT (name) DO UPDATE SET "
                         "hash = excluded.hash, operator = excluded.operator, created = excluded.created, revoked = 0 WHERE tenants.revoked <> 0",
                         VALUES(hemi_db_text(t->name), hemi_db_blob(t->token_hash, sizeof t->token_hash), hemi_db_int(t->is_operator), hemi_db_int(t->created)),
                         &changed, err));
    if (changed > 0) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_STATE, "there is a tenant %s already: revoke it first to give it a new token", t->name);
}

hemi_status hemi_store_tenant_add(hemi_store *store, const hemi_store_tenant *tenant, hemi_error *err) {
    hemi_store_tenant copy = *tenant;
    return in_transaction(&store->books, add_tenant, &copy, err);
}

hemi_status hemi_store_tenant_keys_remove(hemi_store *store, const char *name, hemi_error *err) {
    sweep_work w = {.sql = "DELETE FROM eval_keys WHERE tenant = $1", .value = hemi_db_text(name)};
    return in_transaction(&store->keys, remove_keys, &w, err);
}

typedef struct revoke_work {
    const char *name;
    int64_t now;
} revoke_work;

static hemi_status revoke_tenant(channel *c, void *context, hemi_error *err) {
    const revoke_work *w = context;
    size_t changed = 0;
    HEMI_TRY(run_counted(c, "UPDATE tenants SET revoked = $2 WHERE name = $1 AND revoked = 0", VALUES(hemi_db_text(w->name), hemi_db_int(w->now)), &changed, err));
    return changed > 0 ? HEMI_OK : hemi_fail(err, HEMI_ERR_NOT_FOUND, "there is no tenant %s that is not revoked; `hemi tenants list` shows them", w->name);
}

hemi_status hemi_store_tenant_revoke(hemi_store *store, const char *name, int64_t now, hemi_error *err) {
    revoke_work w = {.name = name, .now = now};
    HEMI_TRY(in_transaction(&store->books, revoke_tenant, &w, err));
    return hemi_store_tenant_keys_remove(store, name, err);
}

static void read_tenant(const hemi_db_ops *ops, const hemi_db_row *row, void *item) {
    hemi_store_tenant *t = item;
    size_t count;
    copy_text(t->name, sizeof t->name, ops, row, 0);
    const void *hash = ops->column_bytes(row, 1, &count);
    if (count == sizeof t->token_hash) memcpy(t->token_hash, hash, count);
    t->is_operator = ops->column_int(row, 2) != 0;
    t->created = ops->column_int(row, 3);
    t->revoked = ops->column_int(row, 4);
}

static hemi_status list_tenants(channel *c, void *context, hemi_error *err) {
    return read_list(c, context, "SELECT name, hash, operator, created, revoked FROM tenants WHERE $1 = '' ORDER BY name", err);
}

hemi_status hemi_store_tenants(hemi_store *store, hemi_store_tenant **tenants, size_t *count, hemi_error *err) {
    list l = {.item_bytes = sizeof **tenants, .read = read_tenant};
    return give_list(&l, in_transaction(&store->books, list_tenants, &l, err), tenants, count);
}

/* ---- rows served */

typedef struct rows_work {
    const char *tenant, *subject;
    uint64_t inputs, rows, least, limit, granted, total;
} rows_work;

#define SUBJECT(w) hemi_db_text((w)->tenant), hemi_db_text((w)->subject)

static hemi_status reserve_rows(channel *c, void *context, hemi_error *err) {
    rows_work *w = context;
    numbers n;
    /* With this the row is ours until the end of the transaction, in PostgreSQL too. */
    HEMI_TRY(run(c,
                 "INSERT INTO served (tenant, subject, inputs, total) VALUES ($1, $2, $3, 0) ON CONFLICT (tenant, subject) DO UPDATE SET inputs = excluded.inputs",
                 VALUES(SUBJECT(w), hemi_db_int((int64_t)w->inputs)), err));
    HEMI_TRY(ask(c, &n, 1, "SELECT total FROM served WHERE tenant = $1 AND subject = $2", VALUES(SUBJECT(w)), err));
    const uint64_t before = (uint64_t)n.value[0], limit = w->limit < ROWS_MAX ? w->limit : ROWS_MAX, left = before < limit ? limit - before : 0;
    w->granted = left < w->least ? 0 : w->rows < left ? w->rows : left;
    w->total = before + w->granted;
    return run(c, "UPDATE served SET total = $3 WHERE tenant = $1 AND subject = $2", VALUES(SUBJECT(w), hemi_db_int((int64_t)w->total)), err);
}

hemi_status hemi_store_rows_reserve(hemi_store *store, const char *tenant, const char *subject, uint64_t inputs, uint64_t rows, uint64_t least, uint64_t limit,
                                    uint64_t *granted, uint64_t *total, hemi_error *err) {
    rows_work w = {.tenant = tenant, .subject = subject, .inputs = inputs < ROWS_MAX ? inputs : ROWS_MAX, .rows = rows, .least = least, .limit = limit};
    const hemi_status status = in_transaction(&store->books, reserve_rows, &w, err);
    *granted = status == HEMI_OK ? w.granted : 0;
    *total = status == HEMI_OK ? w.total : 0;
    return status;
}

static hemi_status return_rows(channel *c, void *context, hemi_error *err) {
    const rows_work *w = context;
    return run(c, "UPDATE served SET total = CASE WHEN total > $3 THEN total - $3 ELSE 0 END WHERE tenant = $1 AND subject = $2",
               VALUES(SUBJECT(w), hemi_db_int((int64_t)w->rows)), err);
}

hemi_status hemi_store_rows_return(hemi_store *store, const char *tenant, const char *subject, uint64_t rows, hemi_error *err) {
    rows_work w = {.tenant = tenant, .subject = subject, .rows = rows < ROWS_MAX ? rows : ROWS_MAX};
    return in_transaction(&store->books, return_rows, &w, err);
}

static hemi_status reset_rows(channel *c, void *context, hemi_error *err) {
    const rows_work *w = context;
    size_t changed = 0;
    HEMI_TRY(run_counted(c, "UPDATE served SET total = 0 WHERE tenant = $1 AND subject = $2", VALUES(SUBJECT(w)), &changed, err));
    return changed > 0 ? HEMI_OK : hemi_fail(err, HEMI_ERR_NOT_FOUND, "nothing is counted of tenant %s and module %s", w->tenant, w->subject);
}

hemi_status hemi_store_rows_reset(hemi_store *store, const char *tenant, const char *subject, hemi_error *err) {
    rows_work w = {.tenant = tenant, .subject = subject};
    return in_transaction(&store->books, reset_rows, &w, err);
}

static void read_count(const hemi_db_ops *ops, const hemi_db_row *row, void *item) {
    hemi_store_count *n = item;
    copy_text(n->tenant, sizeof n->tenant, ops, row, 0);
    copy_text(n->subject, sizeof n->subject, ops, row, 1);
    n->inputs = (uint64_t)ops->column_int(row, 2);
    n->rows = (uint64_t)ops->column_int(row, 3);
}

static hemi_status list_counts(channel *c, void *context, hemi_error *err) {
    return read_list(c, context, "SELECT tenant, subject, inputs, total FROM served WHERE $1 = '' OR tenant = $1 ORDER BY tenant, subject", err);
}

hemi_status hemi_store_counts(hemi_store *store, const char *tenant, hemi_store_count **counts, size_t *count, hemi_error *err) {
    list l = {.tenant = tenant, .item_bytes = sizeof **counts, .read = read_count};
    return give_list(&l, in_transaction(&store->books, list_counts, &l, err), counts, count);
}
