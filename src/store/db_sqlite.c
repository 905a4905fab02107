/* SQLite, with a write-ahead log: readers do not wait for a writer, and what was committed is there after a crash of the program or the machine
 * (synchronous=FULL: https://www.sqlite.org/pragma.html#pragma_synchronous). */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "store/db.h"

#define BUSY_MS 20000 /* another process of this machine writes */

typedef struct sqlite_db {
    hemi_db base;
    sqlite3 *handle;
    char *path; /* NULL: in memory */
} sqlite_db;

struct hemi_db_row {
    sqlite3_stmt *statement;
};

static hemi_status fail(const sqlite_db *db, int code, hemi_error *err) {
    const char *where = db->path ? db->path : "memory";
    switch (code & 0xFF) {
    case SQLITE_NOMEM:
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the store %s", where);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return hemi_fail(err, HEMI_ERR_FORMAT, "the store %s is not an SQLite database, or damaged (%s): put a backup in its place, or move it away",
                         where, sqlite3_errmsg(db->handle));
    case SQLITE_FULL:
        return hemi_fail(err, HEMI_ERR_IO, "the store %s cannot grow: its disk is full", where);
    default:
        return hemi_fail(err, HEMI_ERR_IO, "the store %s: %s", where, db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(code));
    }
}

static int bind(sqlite3_stmt *s, const hemi_db_value *values, size_t count) {
    static const char *const names[HEMI_DB_VALUES_MAX] = {"$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8"};
    int code = SQLITE_OK;
    for (size_t i = 0; i < count && code == SQLITE_OK; i++) {
        const hemi_db_value *v = &values[i];
        const int at = sqlite3_bind_parameter_index(s, names[i]);
        if (v->kind == HEMI_DB_INT)
            code = sqlite3_bind_int64(s, at, v->number);
        else if (v->kind == HEMI_DB_TEXT)
            code = sqlite3_bind_text(s, at, v->bytes, -1, SQLITE_STATIC);
        else
            code = sqlite3_bind_blob64(s, at, v->bytes, v->count, SQLITE_STATIC);
    }
    return code;
}

static hemi_status run(hemi_db *base, const char *sql, const hemi_db_value *values, size_t count,
                       hemi_status (*each)(void *, const hemi_db_row *, hemi_error *), void *context, size_t *changed, hemi_error *err) {
    sqlite_db *db = (sqlite_db *)base;
    hemi_db_row row = {0};
    hemi_status status = HEMI_OK;
    int code = sqlite3_prepare_v2(db->handle, sql, -1, &row.statement, NULL);
    if (code == SQLITE_OK) code = bind(row.statement, values, count);
    if (code == SQLITE_OK)
        while (status == HEMI_OK && (code = sqlite3_step(row.statement)) == SQLITE_ROW)
            if (each) status = each(context, &row, err);
    if (status == HEMI_OK && code != SQLITE_DONE) status = fail(db, code, err);
    if (changed) *changed = status == HEMI_OK ? (size_t)sqlite3_changes64(db->handle) : 0;
    (void)sqlite3_finalize(row.statement);
    return status;
}

static int64_t column_int(const hemi_db_row *row, int column) { return sqlite3_column_int64(row->statement, column); }

static const void *column_bytes(const hemi_db_row *row, int column, size_t *count) {
    const bool text = sqlite3_column_type(row->statement, column) == SQLITE_TEXT;
    const void *bytes = text ? (const void *)sqlite3_column_text(row->statement, column) : sqlite3_column_blob(row->statement, column);
    if (count) *count = (size_t)sqlite3_column_bytes(row->statement, column);
    return bytes;
}

/* The file is made by us and not by SQLite, which would let others read it. */
static hemi_status make_file(const sqlite_db *db, hemi_error *err) {
    const int fd = open(db->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat s;
    if (fd < 0 || fstat(fd, &s) != 0) {
        const int reason = errno;
        if (fd >= 0) close(fd);
        return hemi_fail(err, HEMI_ERR_IO, "cannot open the store %s: %s", db->path, strerror(reason));
    }
    close(fd);
    if (s.st_mode & 077)
        return hemi_fail(err, HEMI_ERR_IO, "the store %s can be read or written by other users: chmod 600 %s", db->path, db->path);
    return HEMI_OK;
}

static hemi_status connect_again(hemi_db *base, hemi_error *err) {
    static const char *const settings[] = {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON",
                                           "PRAGMA trusted_schema=OFF",
                                           "PRAGMA journal_size_limit=67108864"}; /* after keys of hundreds of megabytes the log is cut to this */
    sqlite_db *db = (sqlite_db *)base;
    if (db->path) HEMI_TRY(make_file(db, err));
    const int code = sqlite3_open_v2(db->path ? db->path : ":memory:", &db->handle,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (code != SQLITE_OK) return fail(db, code, err);
    (void)sqlite3_busy_timeout(db->handle, BUSY_MS);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) HEMI_TRY(run(base, settings[i], NULL, 0, NULL, NULL, NULL, err));
    return HEMI_OK;
}

static void close_db(hemi_db *base) {
    sqlite_db *db = (sqlite_db *)base;
    (void)sqlite3_close(db->handle);
    hemi_free(db->path);
    hemi_free(db);
}

static bool is_lost(const hemi_db *db) {
    (void)db;
    return false;
}

static const hemi_db_ops ops = {.close = close_db,
                                .run = run,
                                .column_int = column_int,
                                .column_bytes = column_bytes,
                                .begin = "BEGIN IMMEDIATE",
                                .schema_version = "PRAGMA user_version",
                                .schema_version_set = "PRAGMA user_version = 1",
                                .is_lost = is_lost,
                                .connect = connect_again};

hemi_status hemi_db_open_sqlite(hemi_db **out, const char *path, hemi_error *err) {
    sqlite_db *db = hemi_alloc(1, sizeof *db);
    *out = NULL;
    if (db && path) db->path = hemi_strdup(path);
    if (!db || (path && !db->path)) {
        hemi_free(db);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a store");
    }
    db->base.ops = &ops;
    const hemi_status status = connect_again(&db->base, err);
    if (status != HEMI_OK) {
        close_db(&db->base);
        return status;
    }
    *out = &db->base;
    return HEMI_OK;
}
