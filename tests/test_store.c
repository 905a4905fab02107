/* The store: the same tests in memory, in a file and, where HEMI_TEST_STORE names one (tests/python/test_replicas.py), in PostgreSQL. */
#include "client_fixture.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/store.h"

#define DAY 86400

static char folder[256], location[300];
static hemi_store *store;
static unsigned round_number; /* in PostgreSQL what earlier tests left is there: every test has tenants of its own */

static const char *name_of(const char *what) {
    static char names[8][64];
    static unsigned next;
    char *name = names[next++ % 8];
    snprintf(name, sizeof names[0], "%s-%u-%d", what, round_number, (int)getpid());
    return name;
}

static void open_store(void) { ASSERT_OK(hemi_store_open(&store, location, ERR)); }

static void reopen(void) {
    if (strcmp(location, "memory") == 0) return;
    hemi_store_close(store);
    open_store();
}

static int before(void **state) {
    (void)state;
    round_number++;
    open_store();
    return 0;
}

static int after(void **state) {
    (void)state;
    hemi_store_close(store);
    store = NULL;
    return 0;
}

static uint8_t *bytes_of(size_t count, unsigned seed) {
    uint8_t *bytes = malloc(count ? count : 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
    return bytes;
}

static void put(const char *tenant, uint8_t first, size_t count, size_t quota, int64_t now, bool is_new) {
    uint8_t id[HEMI_STORE_KEY_ID_BYTES] = {first}, *bytes = bytes_of(count, first);
    bool created;
    ASSERT_OK(hemi_store_key_put(store, tenant, id, bytes, count, quota, now, &created, ERR));
    assert_int_equal(created, is_new);
    free(bytes);
}

static void expect_key(const char *tenant, uint8_t first, size_t count, int64_t now) {
    uint8_t id[HEMI_STORE_KEY_ID_BYTES] = {first}, *bytes = bytes_of(count, first), *got;
    size_t length;
    ASSERT_OK(hemi_store_key_get(store, tenant, id, now, &got, &length, ERR));
    assert_int_equal(length, count);
    assert_memory_equal(got, bytes, count);
    free(got);
    free(bytes);
}

static void expect_no_key(const char *tenant, uint8_t first) {
    uint8_t id[HEMI_STORE_KEY_ID_BYTES] = {first}, *got;
    size_t length;
    bool has;
    ASSERT_FAILS(HEMI_ERR_KEY, "not here", hemi_store_key_get(store, tenant, id, 0, &got, &length, ERR));
    assert_null(got);
    ASSERT_OK(hemi_store_key_touch(store, tenant, id, 0, &has, ERR));
    assert_false(has);
}

static void expect_usage(const char *tenant, size_t keys, uint64_t bytes) {
    size_t n;
    uint64_t total;
    ASSERT_OK(hemi_store_keys_usage(store, tenant, &n, &total, ERR));
    assert_int_equal(n, keys);
    assert_int_equal(total, bytes);
}

/* ---- keys */

static void test_keys_of_all_sizes(void **state) {
    static const size_t sizes[] = {1, 1000, 1 << 20, (1 << 20) + 1, 5 << 20};
    const char *a = name_of("a");
    (void)state;
    for (uint8_t i = 0; i < 5; i++) put(a, i, sizes[i], 0, 1000, true);
    for (uint8_t i = 0; i < 5; i++) put(a, i, sizes[i], 0, 1000, false);
    reopen();
    for (uint8_t i = 0; i < 5; i++) expect_key(a, i, sizes[i], 1000);
    expect_usage(a, 5, 1 + 1000 + (1 << 20) + (1 << 20) + 1 + (5 << 20));
}

static void test_tenants_do_not_see_each_other(void **state) {
    const char *a = name_of("a"), *b = name_of("b");
    uint8_t id[HEMI_STORE_KEY_ID_BYTES] = {7};
    bool removed;
    (void)state;
    put(a, 7, 3000, 0, 1000, true);
    expect_no_key(b, 7);
    ASSERT_OK(hemi_store_key_remove(store, b, id, &removed, ERR));
    assert_false(removed);
    put(b, 7, 3000, 0, 1000, true); /* that a has it is not to be seen */
    expect_usage(b, 1, 3000);
    ASSERT_OK(hemi_store_key_remove(store, b, id, &removed, ERR));
    assert_true(removed);
    expect_no_key(b, 7);
    expect_key(a, 7, 3000, 1000);
}

static void test_quota(void **state) {
    const char *a = name_of("a"), *b = name_of("b");
    uint8_t id[HEMI_STORE_KEY_ID_BYTES] = {3}, *bytes = bytes_of(1000, 3);
    bool created, removed;
    (void)state;
    put(a, 1, 1000, 2500, 1000, true);
    put(a, 2, 1000, 2500, 1000, true);
    ASSERT_FAILS(HEMI_ERR_LIMIT, "2000 of 2500 bytes", hemi_store_key_put(store, a, id, bytes, 1000, 2500, 1000, &created, ERR));
    assert_false(created);
    expect_no_key(a, 3);
    expect_usage(a, 2, 2000);
    put(a, 2, 1000, 2500, 1000, false); /* is there already */
    put(b, 3, 1000, 2500, 1000, true);  /* of another tenant */
    id[0] = 1;
    ASSERT_OK(hemi_store_key_remove(store, a, id, &removed, ERR));
    put(a, 3, 1000, 2500, 1000, true);
    free(bytes);
}

static void test_expiry(void **state) {
    const char *a = name_of("a");
    uint8_t id[HEMI_STORE_KEY_ID_BYTES] = {2};
    size_t removed;
    bool has;
    const int64_t long_ago = 10 * DAY; /* before whatever another test uses */
    (void)state;
    ASSERT_OK(hemi_store_keys_expire(store, 30 * DAY, &removed, ERR));
    for (uint8_t i = 1; i <= 3; i++) put(a, i, 2 << 20, 0, long_ago, true);
    ASSERT_OK(hemi_store_key_touch(store, a, id, long_ago + 100, &has, ERR)); /* not noted: too soon */
    assert_true(has);
    expect_key(a, 3, 2 << 20, 40 * DAY);
    ASSERT_OK(hemi_store_keys_expire(store, long_ago, &removed, ERR));
    assert_int_equal(removed, 0);
    ASSERT_OK(hemi_store_key_touch(store, a, id, 40 * DAY, &has, ERR));
    ASSERT_OK(hemi_store_keys_expire(store, 30 * DAY, &removed, ERR));
    assert_int_equal(removed, 1);
    expect_no_key(a, 1);
    expect_key(a, 2, 2 << 20, 40 * DAY);
    expect_key(a, 3, 2 << 20, 40 * DAY);
    ASSERT_OK(hemi_store_keys_expire(store, 50 * DAY, &removed, ERR));
    assert_int_equal(removed, 2);
    expect_usage(a, 0, 0);
}

/* ---- tenants */

static hemi_store_tenant tenant_of(const char *name, uint8_t first) {
    hemi_store_tenant t = {.token_hash = {first}, .is_operator = first % 2 == 1, .created = 1000 + first};
    snprintf(t.name, sizeof t.name, "%s", name);
    return t;
}

static hemi_store_tenant find(const char *name) {
    hemi_store_tenant *all, found = {0};
    size_t count;
    ASSERT_OK(hemi_store_tenants(store, &all, &count, ERR));
    for (size_t i = 0; i < count; i++)
        if (strcmp(all[i].name, name) == 0) found = all[i];
    for (size_t i = 1; i < count; i++) assert_true(strcmp(all[i - 1].name, all[i].name) < 0);
    free(all);
    return found;
}

static void test_tenants(void **state) {
    const char *a = name_of("a"), *b = name_of("b");
    hemi_store_tenant t = tenant_of(a, 5), other = tenant_of(b, 6);
    (void)state;
    ASSERT_OK(hemi_store_tenant_add(store, &t, ERR));
    ASSERT_OK(hemi_store_tenant_add(store, &other, ERR));
    ASSERT_FAILS(HEMI_ERR_STATE, "already", hemi_store_tenant_add(store, &t, ERR));
    put(a, 1, 100, 0, 1000, true);
    put(b, 1, 100, 0, 1000, true);
    reopen();
    hemi_store_tenant found = find(a);
    assert_memory_equal(found.token_hash, t.token_hash, sizeof t.token_hash);
    assert_true(found.is_operator && found.created == 1005 && found.revoked == 0);
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "no tenant", hemi_store_tenant_revoke(store, "nobody", 2000, ERR));
    ASSERT_OK(hemi_store_tenant_revoke(store, a, 2000, ERR));
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "no tenant", hemi_store_tenant_revoke(store, a, 2000, ERR));
    assert_int_equal(find(a).revoked, 2000);
    assert_int_equal(find(b).revoked, 0);
    expect_no_key(a, 1); /* its keys went with it */
    expect_key(b, 1, 100, 1000);
    t = tenant_of(a, 8);
    ASSERT_OK(hemi_store_tenant_add(store, &t, ERR)); /* a new token */
    found = find(a);
    assert_true(found.token_hash[0] == 8 && found.revoked == 0 && !found.is_operator);
}

/* ---- rows */

static void expect_count(const char *tenant, const char *subject, uint64_t rows, uint64_t inputs) {
    hemi_store_count *all;
    size_t count;
    bool found = false;
    ASSERT_OK(hemi_store_counts(store, tenant, &all, &count, ERR));
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(all[i].tenant, tenant);
        if (strcmp(all[i].subject, subject) != 0) continue;
        found = true;
        assert_int_equal(all[i].rows, rows);
        assert_int_equal(all[i].inputs, inputs);
    }
    assert_true(found);
    free(all);
}

static void reserve(const char *tenant, const char *subject, uint64_t rows, uint64_t limit, uint64_t expected, uint64_t total) {
    uint64_t granted, sum;
    ASSERT_OK(hemi_store_rows_reserve(store, tenant, subject, 768, rows, 0, limit, &granted, &sum, ERR));
    assert_int_equal(granted, expected);
    assert_int_equal(sum, total);
}

static void test_rows(void **state) {
    const char *a = name_of("a"), *b = name_of("b");
    (void)state;
    reserve(a, "m/x", 100, UINT64_MAX, 100, 100);
    reserve(a, "m/x", 100, 250, 100, 200);
    reserve(a, "m/x", 100, 250, 50, 250);
    reserve(a, "m/x", 100, 250, 0, 250);
    reserve(a, "m/x", 100, 10, 0, 250); /* the limit was lowered */
    reserve(a, "m/y", 7, 250, 7, 7);
    reserve(b, "m/x", 100, 250, 100, 100);
    uint64_t granted, total; /* fewer than at least so many: none */
    ASSERT_OK(hemi_store_rows_reserve(store, b, "m/x", 768, 200, 151, 250, &granted, &total, ERR));
    assert_int_equal(granted, 0);
    assert_int_equal(total, 100);
    ASSERT_OK(hemi_store_rows_reserve(store, b, "m/z", 768, 200, 150, 150, &granted, &total, ERR));
    assert_int_equal(granted, 150);
    ASSERT_OK(hemi_store_rows_return(store, a, "m/x", 30, ERR));
    reopen();
    expect_count(a, "m/x", 220, 768);
    expect_count(a, "m/y", 7, 768);
    expect_count(b, "m/x", 100, 768);
    ASSERT_OK(hemi_store_rows_return(store, a, "m/y", 30, ERR));
    expect_count(a, "m/y", 0, 768);
    ASSERT_OK(hemi_store_rows_reset(store, a, "m/x", ERR));
    expect_count(a, "m/x", 0, 768);
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "nothing is counted", hemi_store_rows_reset(store, a, "m/z", ERR));
}

#define THREADS 4
#define TIMES   25
#define LIMIT   777

static atomic_uint_least64_t granted_in_all;

static void *reserve_often(void *tenant) {
    uint64_t granted, total;
    for (int i = 0; i < TIMES; i++) {
        if (hemi_store_rows_reserve(store, tenant, "m/x", 10, 13, 0, LIMIT, &granted, &total, NULL) != HEMI_OK) return "failed";
        atomic_fetch_add(&granted_in_all, granted);
    }
    return NULL;
}

/* Threads of one store, and a process with a store of its own: never more than the limit, and all of it. */
static void test_rows_at_once(void **state) {
    char tenant[64];
    pthread_t thread[THREADS];
    (void)state;
    snprintf(tenant, sizeof tenant, "%s", name_of("a"));
    atomic_store(&granted_in_all, 0);
    const bool processes = strcmp(location, "memory") != 0;
    int pipes[2] = {-1, -1};
    pid_t child = -1;
    assert_int_equal(pipe(pipes), 0);
    if (processes && (child = fork()) == 0) {
        uint64_t sum = 0;
        if (hemi_store_open(&store, location, NULL) != HEMI_OK || reserve_often(tenant) != NULL) _exit(1);
        sum = atomic_load(&granted_in_all);
        _exit(write(pipes[1], &sum, sizeof sum) == sizeof sum ? 0 : 1);
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, reserve_often, tenant), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
    uint64_t sum = atomic_load(&granted_in_all), other = 0;
    if (processes) {
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_int_equal(read(pipes[0], &other, sizeof other), sizeof other);
    }
    close(pipes[0]);
    close(pipes[1]);
    assert_int_equal(sum + other, LIMIT);
    expect_count(tenant, "m/x", LIMIT, 10);
}

/* ---- the same keys put, read and removed by several servers */

#define RACE_MS    1500
#define RACE_BYTES ((size_t)1000)

static atomic_bool race_over;
static const uint8_t race_id[HEMI_STORE_KEY_ID_BYTES] = {77};

/* Each with a connection of its own: NULL when all went well, otherwise what did not. */
static const char *race(const char *tenant, const char *(*step)(hemi_store *, const char *, unsigned)) {
    hemi_store *own;
    const char *failed = NULL;
    if (hemi_store_open(&own, location, NULL) != HEMI_OK) return "a store did not open";
    for (unsigned i = 0; !failed && !atomic_load(&race_over); i++) failed = step(own, tenant, i);
    hemi_store_close(own);
    return failed;
}

/* Of a time that the expiry reaches and one that it does not. */
static const char *race_put(hemi_store *own, const char *tenant, unsigned i) {
    static uint8_t *bytes;
    bool created;
    if (!bytes) bytes = bytes_of(RACE_BYTES, 77);
    return hemi_store_key_put(own, tenant, race_id, bytes, RACE_BYTES, 0, i % 2 ? DAY : 3 * DAY, &created, NULL) == HEMI_OK ? NULL : "a put failed";
}

static const char *race_get(hemi_store *own, const char *tenant, unsigned i) {
    uint8_t *got;
    size_t count;
    const hemi_status status = hemi_store_key_get(own, tenant, race_id, i % 2 ? 2 * DAY : 4 * DAY, &got, &count, NULL);
    if (status == HEMI_ERR_KEY) return NULL;
    if (status != HEMI_OK) return "a get failed";
    uint8_t *bytes = bytes_of(RACE_BYTES, 77);
    const bool same = count == RACE_BYTES && memcmp(got, bytes, count) == 0;
    free(got), free(bytes);
    return same ? NULL : "other bytes";
}

static const char *race_remove(hemi_store *own, const char *tenant, unsigned i) {
    bool removed;
    size_t count;
    usleep(i % 3 * 700); /* or it would tidy up what it had left half */
    const hemi_status status = i % 2 ? hemi_store_key_remove(own, tenant, race_id, &removed, NULL) : hemi_store_keys_expire(own, 2 * DAY, &count, NULL);
    return status == HEMI_OK ? NULL : "a removal failed";
}

static void *run_put(void *tenant) { return (void *)(uintptr_t)race(tenant, race_put); }
static void *run_get(void *tenant) { return (void *)(uintptr_t)race(tenant, race_get); }
static void *run_remove(void *tenant) { return (void *)(uintptr_t)race(tenant, race_remove); }

static void test_keys_at_once(void **state) {
    void *(*const part[])(void *) = {run_put, run_put, run_get, run_remove};
    pthread_t thread[4];
    char tenant[64];
    void *failed[4];
    (void)state;
    if (strcmp(location, "memory") == 0) return; /* each would have its own */
    snprintf(tenant, sizeof tenant, "%s", name_of("a"));
    atomic_store(&race_over, false);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&thread[i], NULL, part[i], tenant), 0);
    usleep(1000 * RACE_MS);
    atomic_store(&race_over, true);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], &failed[i]);
    for (int i = 0; i < 4; i++)
        if (failed[i]) fail_msg("%s", (const char *)failed[i]);
    /* What is there now is whole, and can be put where it is not. */
    bool created;
    uint8_t *bytes = bytes_of(RACE_BYTES, 77), *got;
    size_t count;
    ASSERT_OK(hemi_store_key_put(store, tenant, race_id, bytes, RACE_BYTES, 0, DAY, &created, ERR));
    ASSERT_OK(hemi_store_key_get(store, tenant, race_id, DAY, &got, &count, ERR));
    assert_int_equal(count, RACE_BYTES);
    assert_memory_equal(got, bytes, count);
    free(got);
    free(bytes);
}

/* ---- what cannot be opened */

static void test_locations(void **state) {
    hemi_store *none;
    char path[300], inside[400];
    struct stat s;
    sqlite3 *db;
    (void)state;
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "is not a store", hemi_store_open(&none, "http://localhost/x", ERR));
    assert_null(none);
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "is not a store", hemi_store_open(&none, "sqlite:", ERR));
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "not one of PostgreSQL", hemi_store_open(&none, "postgresql://user:secret@host:port:99/%zz", ERR));
    assert_null(strstr(fixture_error.message, "secret"));
    ASSERT_FAILS(HEMI_ERR_IO, "PostgreSQL", hemi_store_open(&none, "postgresql://hemi@127.0.0.1:1/hemi", ERR));
    /* not a database */
    snprintf(path, sizeof path, "%s/text", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 200; i++) fputs("this is no database\n", f);
    fclose(f);
    ASSERT_FAILS(HEMI_ERR_IO, "chmod 600", hemi_store_open(&none, path, ERR));
    assert_int_equal(chmod(path, 0600), 0);
    ASSERT_FAILS(HEMI_ERR_FORMAT, "not an SQLite database", hemi_store_open(&none, path, ERR));
    snprintf(inside, sizeof inside, "%s/x", path);
    ASSERT_FAILS(HEMI_ERR_IO, "the folder of the store", hemi_store_open(&none, inside, ERR));
    /* made by a later version */
    snprintf(path, sizeof path, "%s/deep/er/later.db", folder);
    ASSERT_OK(hemi_store_open(&none, path, ERR));
    hemi_store_close(none);
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0600);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 2", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    ASSERT_FAILS(HEMI_ERR_VERSION, "version 2", hemi_store_open(&none, path, ERR));
}

static int run_all(const char *title) {
#define T(f) cmocka_unit_test_setup_teardown(f, before, after)
    const struct CMUnitTest tests[] = {T(test_keys_of_all_sizes), T(test_tenants_do_not_see_each_other), T(test_quota), T(test_expiry), T(test_tenants), T(test_rows), T(test_rows_at_once),
                                       T(test_keys_at_once)};
    return cmocka_run_group_tests_name(title, tests, NULL, NULL);
}

int main(void) {
    const struct CMUnitTest opening[] = {cmocka_unit_test(test_locations)};
    const char *other = getenv("HEMI_TEST_STORE");
    int failed = 0;
    if (other) {
        snprintf(location, sizeof location, "%s", other);
        return run_all("store in PostgreSQL") != 0;
    }
    test_folder_new(folder);
    strcpy(location, "memory");
    failed += run_all("store in memory");
    snprintf(location, sizeof location, "%s/store.db", folder);
    failed += run_all("store in a file");
    failed += cmocka_run_group_tests_name("stores that cannot be opened", opening, NULL, NULL);
    test_folder_remove(folder);
    return failed != 0;
}
