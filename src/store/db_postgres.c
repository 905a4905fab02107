/* PostgreSQL by libpq, parameters and results in binary (https://www.postgresql.org/docs/15/libpq-exec.html). */
#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "store/db.h"

/* In a URL these names are there already where the operator chose. */
#define CONNECT_TIMEOUT_S    "5"
#define STATEMENT_TIMEOUT    "-c statement_timeout=60s -c client_min_messages=warning"
#define TCP_USER_TIMEOUT_MS  "15000"
#define OID_BYTEA            17
#define OID_INT8             20
#define OID_TEXT             25

typedef struct postgres_db {
    hemi_db base;
    char *url;
    PGconn *connection;
} postgres_db;

struct hemi_db_row {
    const PGresult *result;
    int number;
};

/* One line of what libpq says; it never repeats parameters, and of a password says only that it is wrong. */
static hemi_status fail(const char *message, hemi_error *err) {
    char line[300];
    snprintf(line, sizeof line, "%s", message && message[0] ? message : "the connection was lost");
    line[strcspn(line, "\n")] = 0;
    return hemi_fail(err, HEMI_ERR_IO, "the store (PostgreSQL): %s", line);
}

static uint64_t swap(int64_t number) {
    const uint64_t v = (uint64_t)number;
    uint64_t out;
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(v >> (56 - 8 * i));
    memcpy(&out, bytes, sizeof out);
    return out;
}

static hemi_status run(hemi_db *base, const char *sql, const hemi_db_value *values, size_t count,
                       hemi_status (*each)(void *, const hemi_db_row *, hemi_error *), void *context, size_t *changed, hemi_error *err) {
    const postgres_db *db = (const postgres_db *)base;
    Oid type[HEMI_DB_VALUES_MAX];
    const char *at[HEMI_DB_VALUES_MAX];
    int length[HEMI_DB_VALUES_MAX], format[HEMI_DB_VALUES_MAX];
    uint64_t number[HEMI_DB_VALUES_MAX];
    for (size_t i = 0; i < count; i++) {
        const hemi_db_value *v = &values[i];
        number[i] = swap(v->number);
        type[i] = v->kind == HEMI_DB_INT ? OID_INT8 : v->kind == HEMI_DB_TEXT ? OID_TEXT : OID_BYTEA;
        at[i] = v->kind == HEMI_DB_INT ? (const char *)&number[i] : v->bytes;
        length[i] = v->kind == HEMI_DB_INT ? 8 : v->kind == HEMI_DB_TEXT ? (int)strlen(v->bytes) : (int)v->count;
        format[i] = 1;
    }
    PGresult *result = PQexecParams(db->connection, sql, (int)count, type, at, length, format, 1);
    const ExecStatusType what = PQresultStatus(result);
    hemi_status status = HEMI_OK;
    if (what != PGRES_COMMAND_OK && what != PGRES_TUPLES_OK) status = fail(result ? PQresultErrorMessage(result) : PQerrorMessage(db->connection), err);
    hemi_db_row row = {.result = result};
    for (; each && status == HEMI_OK && row.number < PQntuples(result); row.number++) status = each(context, &row, err);
    if (changed) {
        const char *text = status == HEMI_OK ? PQcmdTuples(result) : "";
        *changed = 0;
        for (; *text >= '0' && *text <= '9'; text++) *changed = *changed * 10 + (size_t)(*text - '0');
    }
    PQclear(result);
    return status;
}

static int64_t column_int(const hemi_db_row *row, int column) {
    int64_t raw = 0;
    if (PQgetlength(row->result, row->number, column) == sizeof raw) memcpy(&raw, PQgetvalue(row->result, row->number, column), sizeof raw);
    return (int64_t)swap(raw);
}

static const void *column_bytes(const hemi_db_row *row, int column, size_t *count) {
    if (count) *count = (size_t)PQgetlength(row->result, row->number, column);
    return PQgetvalue(row->result, row->number, column); /* libpq puts a NUL behind it */
}

static bool is_lost(const hemi_db *base) { return PQstatus(((const postgres_db *)base)->connection) != CONNECTION_OK; }

static hemi_status connect_again(hemi_db *base, hemi_error *err) {
    /* dbname may be a URL, whose own values come last and so count. */
    static const char *const names[] = {"connect_timeout", "tcp_user_timeout", "application_name", "options", "client_encoding", "dbname", NULL};
    postgres_db *db = (postgres_db *)base;
    const char *const values[] = {CONNECT_TIMEOUT_S, TCP_USER_TIMEOUT_MS, "hemi", STATEMENT_TIMEOUT, "UTF8", db->url, NULL};
    PQfinish(db->connection);
    db->connection = PQconnectdbParams(names, values, 1);
    if (PQstatus(db->connection) != CONNECTION_OK) return fail(PQerrorMessage(db->connection), err);
    return HEMI_OK;
}

static void close_db(hemi_db *base) {
    postgres_db *db = (postgres_db *)base;
    PQfinish(db->connection);
    hemi_free(db->url); /* may hold a password: wiped */
    hemi_free(db);
}

static const hemi_db_ops ops = {.close = close_db,
                                .run = run,
                                .column_int = column_int,
                                .column_bytes = column_bytes,
                                .begin = "BEGIN",
                                .schema_lock = "SELECT pg_advisory_xact_lock(727469)", /* of two servers that start at once one makes the tables */
                                .schema_version = "SELECT coalesce(max(version), 0)::bigint FROM hemi_schema",
                                .schema_version_set = "INSERT INTO hemi_schema VALUES (1)",
                                .lock_tenant = "SELECT pg_advisory_xact_lock(727470, hashtext($1))",
                                .is_lost = is_lost,
                                .connect = connect_again};

hemi_status hemi_db_open_postgres(hemi_db **out, const char *url, hemi_error *err) {
    postgres_db *db = hemi_alloc(1, sizeof *db);
    *out = NULL;
    if (db) db->url = hemi_strdup(url);
    if (!db || !db->url) {
        hemi_free(db);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a store");
    }
    db->base.ops = &ops;
    PQconninfoOption *parsed = PQconninfoParse(url, NULL);
    /* What libpq says of such a URL repeats parts of it. */
    hemi_status status = parsed ? HEMI_OK : hemi_fail(err, HEMI_ERR_ARGUMENT, "the URL of the store is not one of PostgreSQL: postgresql://USER@HOST/DATABASE");
    PQconninfoFree(parsed);
    if (status == HEMI_OK) status = connect_again(&db->base, err);
    if (status != HEMI_OK) {
        close_db(&db->base);
        return status;
    }
    *out = &db->base;
    return HEMI_OK;
}
