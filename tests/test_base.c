/* The base room: packing at every width, allocations, files, teams, errors. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/threads.h"

#define GUARD 0xA5

/* ---- bits */
static void numbers_are_little_endian(void **state) {
    (void)state;
    uint8_t b[8];
    hemi_store64(b, UINT64_C(0x0807060504030201));
    for (uint8_t i = 0; i < 8; i++) assert_int_equal(b[i], i + 1);
    assert_true(hemi_load64(b) == UINT64_C(0x0807060504030201));
    assert_int_equal(hemi_load32(b + 1), 0x05040302);
    assert_int_equal(hemi_load16(b + 3), 0x0504);
    hemi_store32(b + 1, 0xDDCCBBAA);
    hemi_store16(b + 6, 0xFFEE);
    const uint8_t wanted[8] = {1, 0xAA, 0xBB, 0xCC, 0xDD, 6, 0xEE, 0xFF};
    assert_memory_equal(b, wanted, 8);
}

/* The definition, bit by bit. */
static void pack_by_definition(uint8_t *out, const uint64_t *v, size_t count, unsigned bits) {
    memset(out, 0, (count * bits + 7) / 8);
    for (size_t i = 0; i < count * bits; i++)
        out[i / 8] = (uint8_t)(out[i / 8] | ((v[i / bits] >> (i % bits) & 1) << (i % 8)));
}

/* Every width, lengths around the groups of eight: equal to the definition, and back. The strings are blocks of exactly
 * the stated size (a sanitizer sees one byte more), with guards inside a larger one. */
static void packing_at_every_width(void **state) {
    (void)state;
    enum { MOST = 83 };
    test_rng rng = test_rng_new();
    for (unsigned bits = 1; bits <= 56; bits++)
        for (size_t count = 0; count <= MOST; count++) {
            const size_t bytes = hemi_packed_bytes(count, bits);
            assert_int_equal(bytes, (count * bits + 7) / 8);
            uint64_t v[MOST + 1], back[MOST + 2];
            for (size_t i = 0; i < count; i++) v[i] = test_u64(&rng) >> (64 - bits);
            if (count > 2) v[1] = 0, v[2] = UINT64_MAX >> (64 - bits);
            uint8_t wanted[MOST * 7 + 1], *exact = malloc(bytes ? bytes : 1), guarded[MOST * 7 + 32];
            assert_non_null(exact);
            pack_by_definition(wanted, v, count, bits);
            memset(guarded, GUARD, sizeof guarded);
            hemi_pack(guarded + 16, v, count, bits);
            hemi_pack(exact, v, count, bits);
            assert_memory_equal(exact, wanted, bytes);
            assert_memory_equal(guarded + 16, wanted, bytes);
            for (size_t i = 0; i < 16; i++) {
                assert_int_equal(guarded[i], GUARD);
                assert_int_equal(guarded[16 + bytes + i], GUARD);
            }
            memset(back, GUARD, sizeof back);
            hemi_unpack(back, exact, count, bits);
            if (count) assert_memory_equal(back, v, count * sizeof *v);
            assert_true(back[count] == UINT64_C(0xA5A5A5A5A5A5A5A5));
            free(exact);
        }
}

static void long_strings_pack(void **state) {
    (void)state;
    enum { COUNT = 4096 };
    static uint64_t v[COUNT], back[COUNT];
    static uint8_t bytes[COUNT * 7], wanted[COUNT * 7];
    test_rng rng = test_rng_new();
    for (unsigned bits = 1; bits <= 56; bits++) {
        for (size_t i = 0; i < COUNT; i++) v[i] = test_u64(&rng) >> (64 - bits);
        hemi_pack(bytes, v, COUNT, bits);
        pack_by_definition(wanted, v, COUNT, bits);
        assert_memory_equal(bytes, wanted, hemi_packed_bytes(COUNT, bits));
        hemi_unpack(back, bytes, COUNT, bits);
        assert_memory_equal(back, v, sizeof v);
    }
}

static void packed_bytes_of_huge_counts(void **state) {
    (void)state;
    assert_true(hemi_packed_bytes(SIZE_MAX, 8) == SIZE_MAX);
    assert_true(hemi_packed_bytes(SIZE_MAX / 2, 16) == SIZE_MAX - 1);
    assert_int_equal(hemi_packed_bytes(0, 56), 0);
}

/* ---- memory */
static void assert_fresh(const uint8_t *block, size_t bytes, size_t alignment) {
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % alignment, 0);
    for (size_t i = 0; i < bytes; i++)
        if (block[i] != 0) fail_msg("byte %zu of a new block is not zero", i);
}

static void blocks_are_aligned_and_zero(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 100000};
    for (size_t k = 0; k < TEST_COUNT(sizes); k++) {
        uint8_t *a = hemi_alloc(sizes[k], 1), *b = hemi_alloc_large(sizes[k], 1), *c = hemi_secure_alloc(sizes[k], 1);
        assert_fresh(a, sizes[k], HEMI_ALIGNMENT);
        assert_fresh(b, sizes[k], HEMI_ALIGNMENT);
        assert_fresh(c, sizes[k], HEMI_ALIGNMENT);
        if (sizes[k]) a[sizes[k] - 1] = b[sizes[k] - 1] = c[sizes[k] - 1] = 1;
        hemi_free(a);
        hemi_free(b);
        hemi_secure_free(c);
    }
    const size_t large = ((size_t)2 << 20) + 5;
    uint8_t *block = hemi_alloc_large(1, large);
    assert_fresh(block, large, (size_t)2 << 20);
    hemi_free(block);
    hemi_free(NULL);
    hemi_secure_free(NULL);
}

static void impossible_allocations_are_null(void **state) {
    (void)state;
    static const size_t pairs[][2] = {{SIZE_MAX, 2},     {SIZE_MAX / 2, 3}, {(size_t)1 << 32, (size_t)1 << 32},
                                      {SIZE_MAX, 1},     {SIZE_MAX - 62, 1}, {PTRDIFF_MAX, 1},
                                      {2, SIZE_MAX / 2}, {SIZE_MAX / 8 + 1, 8}};
    for (size_t i = 0; i < TEST_COUNT(pairs); i++) {
        assert_null(hemi_alloc(pairs[i][0], pairs[i][1]));
        assert_null(hemi_alloc_large(pairs[i][0], pairs[i][1]));
        assert_null(hemi_secure_alloc(pairs[i][0], pairs[i][1]));
    }
}

static void wiping_and_copying(void **state) {
    (void)state;
    uint8_t b[40];
    memset(b, GUARD, sizeof b);
    hemi_wipe(b + 1, 38);
    hemi_wipe(b, 0);
    assert_int_equal(b[0], GUARD);
    assert_int_equal(b[39], GUARD);
    for (int i = 1; i < 39; i++) assert_int_equal(b[i], 0);
    char *copy = hemi_strdup("half"), *empty = hemi_strdup("");
    assert_string_equal(copy, "half");
    assert_string_equal(empty, "");
    hemi_free(copy);
    hemi_free(empty);
}

/* ---- errors */
static void every_status_has_its_texts(void **state) {
    (void)state;
#define CHECK(name, value, http, text)                                 \
    assert_int_equal(HEMI_##name, value);                              \
    assert_string_equal(hemi_status_name(HEMI_##name), "HEMI_" #name); \
    assert_string_equal(hemi_status_text(HEMI_##name), text);          \
    assert_int_equal(hemi_status_http(HEMI_##name), http);
    HEMI_STATUS_LIST(CHECK)
#undef CHECK
    assert_string_equal(hemi_status_name((hemi_status)-12345), "HEMI_ERR_INTERNAL");
    assert_int_equal(hemi_status_http((hemi_status)7), 500);
}

static void messages_are_cut_not_overrun(void **state) {
    (void)state;
    hemi_error err;
    char longest[2 * HEMI_ERROR_MESSAGE_BYTES + 1];
    for (size_t i = 0; i + 1 < sizeof longest; i += 2) memcpy(longest + i, "\xC3\xA9", 2); /* two bytes a letter */
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(hemi_fail(&err, HEMI_ERR_SHAPE, "%s", longest), HEMI_ERR_SHAPE);
    assert_int_equal(err.status, HEMI_ERR_SHAPE);
    assert_int_equal(strlen(err.message), (HEMI_ERROR_MESSAGE_BYTES - 1) / 2 * 2); /* whole letters */
    assert_int_equal(hemi_fail(&err, HEMI_ERR_IO, "%d of %s", 3, "x"), HEMI_ERR_IO);
    assert_string_equal(err.message, "3 of x");
    assert_int_equal(hemi_fail_in(&err, HEMI_ERR_FORMAT, "file %s", "f"), HEMI_ERR_IO);
    assert_string_equal(err.message, "file f: 3 of x");
    assert_int_equal(hemi_fail(&err, HEMI_ERR_IO, "again %s", err.message), HEMI_ERR_IO);
    assert_string_equal(err.message, "again file f: 3 of x");
    assert_int_equal(hemi_fail_in(&err, HEMI_ERR_IO, "%s", longest), HEMI_ERR_IO);
    assert_true(strlen(err.message) < HEMI_ERROR_MESSAGE_BYTES);
    assert_int_equal(hemi_fail(NULL, HEMI_ERR_KEY, "nobody listens"), HEMI_ERR_KEY);
    assert_int_equal(hemi_fail_in(NULL, HEMI_ERR_KEY, "nobody listens"), HEMI_ERR_KEY);
}

/* ---- files */
static int names_in(const char *folder) {
    char command[300];
    int count = -1;
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &count), 1);
    pclose(f);
    return count;
}

static void files_are_written_by_rename(void **state) {
    (void)state;
    hemi_error err;
    char folder[256];
    test_folder_new(folder);
    char *path = hemi_path_join(folder, "key.bin");
    assert_ok(hemi_file_write(path, "first", 5, 0600, &err), &err);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(names_in(folder), 1); /* no temporary file is left */

    const int old = open(path, O_RDONLY); /* a reader of the old content keeps it */
    assert_true(old >= 0);
    assert_ok(hemi_file_write(path, "second!", 7, 0600, &err), &err);
    char content[8] = {0};
    assert_int_equal(read(old, content, 7), 5);
    assert_string_equal(content, "first");
    close(old);

    uint8_t *data;
    size_t bytes;
    assert_ok(hemi_file_read(&data, &bytes, path, 7, &err), &err);
    assert_int_equal(bytes, 7);
    assert_string_equal((char *)data, "second!"); /* a NUL follows */
    hemi_free(data);
    assert_ok(hemi_file_write(path, NULL, 0, 0600, &err), &err);
    assert_ok(hemi_file_read(&data, &bytes, path, 0, &err), &err);
    assert_int_equal(bytes, 0);
    assert_int_equal(data[0], 0);
    hemi_free(data);
    hemi_free(path);
    test_folder_remove(folder);
}

static void what_cannot_be_read_or_written_says_so(void **state) {
    (void)state;
    hemi_error err;
    uint8_t *data = NULL;
    size_t bytes;
    char folder[256];
    test_folder_new(folder);
    char *path = hemi_path_join(folder, "a"), *absent = hemi_path_join(folder, "absent"), *below = hemi_path_join(path, "b");
    assert_ok(hemi_file_write(path, "12345678", 8, 0644, &err), &err);
    assert_status(hemi_file_read(&data, &bytes, path, 7, &err), HEMI_ERR_TOO_LARGE);
    assert_non_null(strstr(err.message, "7 bytes"));
    assert_status(hemi_file_read(&data, &bytes, absent, 7, &err), HEMI_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, absent));
    assert_status(hemi_file_read(&data, &bytes, folder, 7, &err), HEMI_ERR_IO);
    assert_status(hemi_file_read(&data, &bytes, below, 7, NULL), HEMI_ERR_NOT_FOUND);
    assert_status(hemi_file_write(below, "x", 1, 0644, &err), HEMI_ERR_IO);
    assert_status(hemi_file_write(folder, "x", 1, 0644, &err), HEMI_ERR_IO); /* rename onto a folder */
    assert_int_equal(names_in(folder), 1);
    assert_null(data);
    hemi_free(path);
    hemi_free(absent);
    hemi_free(below);
    test_folder_remove(folder);
}

static void pipes_are_read_to_their_end(void **state) {
    (void)state;
    hemi_error err;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    (void)fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    static uint8_t sent[200000];
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < sizeof sent; i++) sent[i] = (uint8_t)test_u64(&rng);
    assert_int_equal(write(ends[1], sent, sizeof sent), sizeof sent);
    close(ends[1]);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
    uint8_t *data;
    size_t bytes;
    assert_ok(hemi_file_read(&data, &bytes, path, sizeof sent, &err), &err);
    assert_int_equal(bytes, sizeof sent);
    assert_memory_equal(data, sent, sizeof sent);
    assert_int_equal(data[bytes], 0);
    hemi_free(data);
    close(ends[0]);
    assert_status(hemi_file_read(&data, &bytes, "/dev/zero", 100000, &err), HEMI_ERR_TOO_LARGE);
}

static void folders_and_paths(void **state) {
    (void)state;
    hemi_error err;
    char folder[256];
    test_folder_new(folder);
    char *deep = hemi_path_join(folder, "a/b//c/"), *file = hemi_path_join(folder, "f"), *below = hemi_path_join(file, "x");
    assert_ok(hemi_folder_create(deep, &err), &err);
    assert_true(hemi_path_is_folder(deep));
    assert_ok(hemi_folder_create(deep, &err), &err); /* twice is no error */
    assert_ok(hemi_file_write(file, "x", 1, 0644, &err), &err);
    assert_true(hemi_path_exists(file));
    assert_false(hemi_path_is_folder(file));
    assert_false(hemi_path_exists(below));
    assert_status(hemi_folder_create(below, &err), HEMI_ERR_IO);
    assert_status(hemi_folder_create(file, &err), HEMI_ERR_IO);
    assert_status(hemi_folder_create("", &err), HEMI_ERR_ARGUMENT);
    assert_ok(hemi_folder_create("/", &err), &err);
    hemi_free(deep);
    hemi_free(file);
    hemi_free(below);
    test_folder_remove(folder);

    static const char *const joins[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < TEST_COUNT(joins); i++) {
        char *path = hemi_path_join(joins[i][0], joins[i][1]);
        assert_string_equal(path, joins[i][2]);
        hemi_free(path);
    }
}

/* ---- teams */
#define STEPS 5000
typedef struct loop {
    atomic_uint calls[STEPS];
    atomic_size_t wrong_worker;
    size_t workers;
} loop;

static void count_step(void *context, size_t index, size_t worker) {
    loop *l = context;
    atomic_fetch_add(&l->calls[index], 1);
    if (worker >= l->workers) atomic_fetch_add(&l->wrong_worker, 1);
}

static void assert_once_each(loop *l, size_t count, unsigned times) {
    for (size_t i = 0; i < STEPS; i++) assert_int_equal(atomic_load(&l->calls[i]), i < count ? times : 0);
    assert_int_equal(atomic_load(&l->wrong_worker), 0);
}

static void a_team_runs_every_index_once(void **state) {
    (void)state;
    static const size_t counts[] = {0, 1, 2, 3, 7, 100, STEPS};
    static loop l;
    for (int threads = 0; threads <= 5; threads++) {
        hemi_team *team = hemi_team_new(threads);
        assert_non_null(team);
        assert_int_equal(hemi_team_size(team), threads ? threads : hemi_cpu_count());
        for (size_t k = 0; k < TEST_COUNT(counts); k++) {
            memset(&l, 0, sizeof l);
            l.workers = (size_t)hemi_team_size(team);
            hemi_team_run(team, counts[k], count_step, &l);
            assert_once_each(&l, counts[k], 1);
        }
        for (int i = 0; i < 2000; i++) { /* short loops, one after the other */
            memset(&l, 0, 8 * sizeof l.calls[0]);
            hemi_team_run(team, 8, count_step, &l);
            for (int j = 0; j < 8; j++) assert_int_equal(atomic_load(&l.calls[j]), 1);
        }
        hemi_team_free(team);
    }
    memset(&l, 0, sizeof l);
    l.workers = 1;
    hemi_team_run(NULL, 9, count_step, &l);
    assert_once_each(&l, 9, 1);
    assert_int_equal(hemi_team_size(NULL), 1);
    hemi_team_free(NULL);
}

/* Several threads share a team; each worker number is used by one thread at a time. */
typedef struct shared {
    hemi_team *team;
    atomic_int inside[8];
    atomic_size_t clashes, steps;
} shared;

static void exclusive_step(void *context, size_t index, size_t worker) {
    shared *s = context;
    (void)index;
    if (atomic_fetch_add(&s->inside[worker], 1) != 0) atomic_fetch_add(&s->clashes, 1);
    for (volatile int i = 0; i < 200; i++) {}
    atomic_fetch_sub(&s->inside[worker], 1);
    atomic_fetch_add(&s->steps, 1);
}

static void *run_loops(void *argument) {
    shared *s = argument;
    for (size_t i = 0; i < 200; i++) hemi_team_run(s->team, i % 7, exclusive_step, s);
    return NULL;
}

static void callers_take_turns(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        shared s = {.team = hemi_team_new(threads)};
        pthread_t callers[4];
        size_t wanted = 0;
        for (size_t i = 0; i < 200; i++) wanted += i % 7;
        for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&callers[i], NULL, run_loops, &s), 0);
        for (size_t i = 0; i < 4; i++) pthread_join(callers[i], NULL);
        assert_int_equal(atomic_load(&s.clashes), 0);
        assert_int_equal(atomic_load(&s.steps), 4 * wanted);
        hemi_team_free(s.team);
    }
}

/* ---- processor, clock, progress */
static void the_processor_answers(void **state) {
    (void)state;
    assert_true(hemi_cpu_count() >= 1);
    assert_true(strlen(hemi_cpu_name()) > 0);
    assert_true(hemi_cpu_has_avx2_fma() || !hemi_cpu_has_avx512_ifma());
    const double before = hemi_now_ms();
    usleep(2000);
    assert_true(hemi_now_ms() - before >= 1.9);
}

static void no_bar_without_a_terminal(void **state) {
    (void)state;
    FILE *f = tmpfile();
    assert_non_null(f);
    for (size_t i = 0; i <= 3; i++) hemi_progress_bar(f, "loading", i, 3);
    assert_int_equal(ftell(f), 0);
    fclose(f);
    hemi_progress_bar(NULL, "loading", 1, 2);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(numbers_are_little_endian),
    cmocka_unit_test(packing_at_every_width),
    cmocka_unit_test(long_strings_pack),
    cmocka_unit_test(packed_bytes_of_huge_counts),
    cmocka_unit_test(blocks_are_aligned_and_zero),
    cmocka_unit_test(impossible_allocations_are_null),
    cmocka_unit_test(wiping_and_copying),
    cmocka_unit_test(every_status_has_its_texts),
    cmocka_unit_test(messages_are_cut_not_overrun),
    cmocka_unit_test(files_are_written_by_rename),
    cmocka_unit_test(what_cannot_be_read_or_written_says_so),
    cmocka_unit_test(pipes_are_read_to_their_end),
    cmocka_unit_test(folders_and_paths),
    cmocka_unit_test(a_team_runs_every_index_once),
    cmocka_unit_test(callers_take_turns),
    cmocka_unit_test(the_processor_answers),
    cmocka_unit_test(no_bar_without_a_terminal),
};

int main(void) { return TEST_RUN("base", tests); }
