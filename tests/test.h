/* What every C test needs: cmocka, tables of kernels, a seeded generator, limits for statistics.
 *
 *   static const struct CMUnitTest tests[] = {cmocka_unit_test(...), ...};
 *   int main(void) { return TEST_RUN("ring", tests); }                the group once
 *   int main(void) { return TEST_RUN_PER_TABLE("ring", tests); }      the group once per table of kernels
 *
 * In a group run per table, test_table() is the table, and hemi_kernels_default() gives the same one.
 * HEMI_TEST_QUICK=1 (sanitizers): test_quick() is true, tests may take fewer samples. HEMI_TEST_LONG=1: test_long().
 * HEMI_TEST_SEED=n gives test_rng_new() another seed than 1. */
#ifndef HEMI_TEST_H
#define HEMI_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "hemi/status.h"
#include "ring/kernels.h"

#define TEST_UNUSED __attribute__((unused))
#define TEST_COUNT(array) (sizeof(array) / sizeof *(array))

TEST_UNUSED static bool test_quick(void) { return getenv("HEMI_TEST_QUICK") != NULL; }
TEST_UNUSED static bool test_long(void) { return getenv("HEMI_TEST_LONG") != NULL; }
/* Samples or repetitions: `usual`, a tenth of it (at least 1) when quick, ten times as many when long. */
TEST_UNUSED static size_t test_repeat(size_t usual) {
    return test_quick() ? usual / 10 + (usual < 10) : test_long() ? 10 * usual : usual;
}

/* ---- tables of kernels */
static const hemi_kernels *test_present_table;

TEST_UNUSED static const hemi_kernels *test_table(void) {
    return test_present_table ? test_present_table : hemi_kernels_default();
}

TEST_UNUSED static int test_run_group(const char *name, const struct CMUnitTest *tests, size_t count) {
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* what a crash leaves in the log */
    printf("%s: kernels %s on %s\n", name, test_table()->name, hemi_cpu_name());
    char group[64];
    snprintf(group, sizeof group, "%s (%s)", name, test_table()->name);
    return _cmocka_run_group_tests(group, tests, count, NULL, NULL);
}

TEST_UNUSED static int test_run_group_per_table(const char *name, const struct CMUnitTest *tests, size_t count) {
    const hemi_kernels *table;
    int failed = 0;
    for (size_t i = 0; (table = hemi_kernels_at(i)) != NULL; i++) {
        setenv("HEMI_KERNEL", table->name, 1);
        test_present_table = table;
        failed += test_run_group(name, tests, count);
    }
    return failed;
}

#define TEST_RUN(name, tests) (test_run_group((name), (tests), TEST_COUNT(tests)) != 0)
#define TEST_RUN_PER_TABLE(name, tests) (test_run_group_per_table((name), (tests), TEST_COUNT(tests)) != 0)

/* ---- calls that must succeed or fail: assert_ok(f(..., &err), &err) */
#define assert_ok(call, err_pointer)                                                                      \
    do {                                                                                                  \
        const hemi_status test_status_ = (call);                                                          \
        const hemi_error *test_error_ = (err_pointer);                                                    \
        if (test_status_ != HEMI_OK)                                                                      \
            fail_msg("%s: %s", hemi_status_name(test_status_), test_error_ ? test_error_->message : ""); \
    } while (0)

#define assert_status(call, wanted)                                                                       \
    do {                                                                                                  \
        const hemi_status test_status_ = (call), test_wanted_ = (wanted);                                 \
        if (test_status_ != test_wanted_)                                                                 \
            fail_msg("%s, not %s", hemi_status_name(test_status_), hemi_status_name(test_wanted_));       \
    } while (0)

/* ---- a generator for tests (SplitMix64): the same numbers in every run */
typedef struct test_rng {
    uint64_t state;
} test_rng;

TEST_UNUSED static test_rng test_rng_new(void) {
    const char *seed = getenv("HEMI_TEST_SEED");
    return (test_rng){seed ? strtoull(seed, NULL, 0) : 1};
}

TEST_UNUSED static uint64_t test_u64(test_rng *rng) {
    uint64_t z = rng->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Uniform below `bound` up to a bias of bound / 2^64. */
TEST_UNUSED static uint64_t test_below(test_rng *rng, uint64_t bound) {
    return (uint64_t)(((unsigned __int128)test_u64(rng) * bound) >> 64);
}

/* Uniform in [-1, 1). */
TEST_UNUSED static double test_real(test_rng *rng) { return (double)(int64_t)test_u64(rng) * 0x1p-63; }

/* Normal, mean 0, standard deviation 1 (Box and Muller). */
TEST_UNUSED static double test_normal(test_rng *rng) {
    const double u = ((double)(test_u64(rng) >> 11) + 0.5) * 0x1p-53, v = (double)(test_u64(rng) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

TEST_UNUSED static void test_residues(uint64_t *r, size_t n, uint64_t p, test_rng *rng) {
    for (size_t i = 0; i < n; i++) r[i] = test_below(rng, p);
}

/* ---- statistics on fresh randomness: a right program exceeds these once in about 10^9 tests */
#define TEST_SIGMAS 6.0

/* The chi-square statistic of `bins` counts against expected counts. */
TEST_UNUSED static double test_chi_square(const size_t *count, const double *expected, size_t bins) {
    double sum = 0;
    for (size_t i = 0; i < bins; i++) sum += ((double)count[i] - expected[i]) * ((double)count[i] - expected[i]) / expected[i];
    return sum;
}

/* What chi-square with that many degrees of freedom exceeds with probability 10^-9 (Wilson and Hilferty). */
TEST_UNUSED static double test_chi_square_limit(size_t degrees) {
    const double k = (double)degrees, c = 2 / (9 * k), root = 1 - c + TEST_SIGMAS * sqrt(c);
    return k * root * root * root;
}

/* ---- folders: a new one under $TMPDIR, and removal of a folder with all that is in it */
TEST_UNUSED static void test_folder_new(char path[256]) {
    const char *parent = getenv("TMPDIR");
    snprintf(path, 256, "%s/hemi-test-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(path)) fail_msg("cannot create %s", path);
}

TEST_UNUSED static void test_folder_remove(const char *path) {
    char command[300];
    if (strstr(path, "/hemi-test-") == NULL || strchr(path, '\'') != NULL) fail_msg("%s is no folder of a test", path);
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0) fail_msg("cannot remove %s", path);
}

/* Layouts of one row, as most tests want them; s = 0: chosen. */
#include "linear/layout.h"

TEST_UNUSED static hemi_status test_layout(hemi_linear_layout *l, const hemi_params *params, uint32_t inputs, uint32_t outputs, uint32_t s,
                                           hemi_error *err) {
    const hemi_linear_choice choice = {.s = s};
    return hemi_linear_layout_rows(l, params, inputs, outputs, &choice, err);
}

TEST_UNUSED static hemi_status test_layout_restore(hemi_linear_layout *l, const hemi_params *params, uint32_t inputs, uint32_t outputs,
                                                   uint32_t s, uint32_t babies, const uint32_t *k, size_t groups, hemi_error *err) {
    hemi_linear_choice choice = {.s = s, .babies = babies, .groups = groups};
    for (size_t g = 0; g < groups && g < HEMI_LINEAR_GROUPS_MAX; g++) choice.k[g] = k[g];
    return hemi_linear_layout_rows(l, params, inputs, outputs, &choice, err);
}

#endif
