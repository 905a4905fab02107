/* A connection to a database: what SQLite and PostgreSQL have in common, so that the store is written once. SQL is what both read; parameters
 * are $1, $2, ... in the order of their first use. One thread at a time (the caller locks). */
#ifndef HEMI_STORE_DB_H
#define HEMI_STORE_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#define HEMI_DB_VALUES_MAX 8

typedef enum hemi_db_kind { HEMI_DB_INT, HEMI_DB_TEXT, HEMI_DB_BLOB } hemi_db_kind;

typedef struct hemi_db_value {
    hemi_db_kind kind;
    int64_t number;    /* INT */
    const void *bytes; /* TEXT (NUL-terminated), BLOB */
    size_t count;
} hemi_db_value;

static inline hemi_db_value hemi_db_int(int64_t number) { return (hemi_db_value){.kind = HEMI_DB_INT, .number = number}; }
static inline hemi_db_value hemi_db_text(const char *text) { return (hemi_db_value){.kind = HEMI_DB_TEXT, .bytes = text}; }
static inline hemi_db_value hemi_db_blob(const void *bytes, size_t count) {
    return (hemi_db_value){.kind = HEMI_DB_BLOB, .bytes = bytes, .count = count};
}

typedef struct hemi_db hemi_db;
typedef struct hemi_db_row hemi_db_row; /* one row of a result, while the function that got it runs */

typedef struct hemi_db_ops {
    void (*close)(hemi_db *db);
    /* Runs one statement. each (may be NULL) is called with every row of the result; what it returns other than OK ends the statement. *changed
     * (may be NULL): rows that were inserted, updated or deleted. */
    hemi_status (*run)(hemi_db *db, const char *sql, const hemi_db_value *values, size_t count,
                       hemi_status (*each)(void *context, const hemi_db_row *row, hemi_error *err), void *context, size_t *changed, hemi_error *err);
    int64_t (*column_int)(const hemi_db_row *row, int column);
    const void *(*column_bytes)(const hemi_db_row *row, int column, size_t *count); /* of TEXT: NUL-terminated */
    const char *begin; /* a transaction that writes */
    const char *schema_lock, *schema_version, *schema_version_set, *lock_tenant; /* NULL where it is not needed */
    bool (*is_lost)(const hemi_db *db);                     /* the connection broke: what ran was undone, or its end is not known */
    hemi_status (*connect)(hemi_db *db, hemi_error *err); /* again */
} hemi_db_ops;

struct hemi_db {
    const hemi_db_ops *ops;
};

/* path NULL: in memory. */
HEMI_CHECK hemi_status hemi_db_open_sqlite(hemi_db **out, const char *path, hemi_error *err);
/* url: "postgresql://..." */
HEMI_CHECK hemi_status hemi_db_open_postgres(hemi_db **out, const char *url, hemi_error *err);

#endif
