/* The queues of the server: places, order, and that flows share the workers fairly. */
#include "client_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "server/jobs.h"

#define JOBS_MAX 400

typedef struct job {
    int flow, ms;
} job;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int order[JOBS_MAX]; /* the flows of jobs, as they ended */
static size_t ended;
static atomic_bool held; /* jobs wait as long as it is set */
static const int names[4];

static void run(void *context) {
    const job *j = context;
    while (atomic_load(&held)) usleep(500);
    if (j->ms > 0) usleep((unsigned)j->ms * 1000);
    pthread_mutex_lock(&lock);
    order[ended++] = j->flow;
    pthread_mutex_unlock(&lock);
}

static hemi_jobs *jobs;

static void start(int threads, size_t front, size_t flow_max) {
    const size_t max[HEMI_LANES] = {front, 4}, of_flow[HEMI_LANES] = {flow_max, 3};
    ended = 0;
    jobs = hemi_jobs_new(threads, max, of_flow, run);
    assert_non_null(jobs);
}

static void push(job *j) {
    assert_int_equal(hemi_jobs_reserve(jobs, HEMI_LANE_FRONT, &names[j->flow]), HEMI_PLACE_TAKEN);
    hemi_jobs_push(jobs, HEMI_LANE_FRONT, &names[j->flow], j);
}

static void push_new(job *j, int flow, int ms) {
    *j = (job){.flow = flow, .ms = ms};
    push(j);
}

static void stop(void) {
    atomic_store(&held, false);
    hemi_jobs_stop(jobs);
    hemi_jobs_free(jobs);
}

/* A floods; B comes later with a few: they need not wait for what A has waiting. */
static void test_flood(void **state) {
    static job a[100], b[5];
    (void)state;
    atomic_store(&held, true);
    start(1, 300, 300);
    for (int i = 0; i < 100; i++) push_new(&a[i], 0, 1);
    for (int i = 0; i < 5; i++) push_new(&b[i], 1, 1);
    stop();
    assert_int_equal(ended, 105);
    int last = 0;
    for (int i = 0; i < 105; i++)
        if (order[i] == 1) last = i;
    assert_in_range(last, 5, 14); /* in turns: 5 of B among about as many of A */
}

/* By time, and not by number: C's jobs take five times as long. */
static void test_time(void **state) {
    static job a[150], c[150];
    int of[3] = {0};
    (void)state;
    atomic_store(&held, true);
    start(1, 400, 400);
    for (int i = 0; i < 150; i++) push_new(&a[i], 0, 1);
    for (int i = 0; i < 150; i++) push_new(&c[i], 2, 6);
    atomic_store(&held, false);
    for (size_t n = 0; n < 90; usleep(1000)) {
        pthread_mutex_lock(&lock);
        n = ended;
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 90; i++) of[order[i]]++;
    pthread_mutex_unlock(&lock);
    assert_true(of[0] > 2 * of[2]); /* alike by number would be 45 : 45 */
    assert_true(of[2] >= 5);
    stop();
}

/* In order within a flow: they end as they came. */
static void test_places(void **state) {
    static job a[8] = {{0}}, announced[3] = {{0}};
    (void)state;
    atomic_store(&held, true);
    start(1, 6, 3);
    push(&a[0]);
    usleep(50000); /* being worked on: waits no more */
    for (int i = 1; i < 4; i++) push(&a[i]);
    assert_int_equal(hemi_jobs_reserve(jobs, HEMI_LANE_FRONT, &names[0]), HEMI_PLACE_NONE_OF_FLOW);
    for (int i = 4; i < 7; i++) push_new(&a[i], 1, 0);
    assert_int_equal(hemi_jobs_reserve(jobs, HEMI_LANE_FRONT, &names[2]), HEMI_PLACE_NONE);
    for (int i = 0; i < 3; i++) { /* the background has places, and a bound for each flow, of its own: one is left for others */
        assert_int_equal(hemi_jobs_reserve(jobs, HEMI_LANE_BACKGROUND, &names[0]), HEMI_PLACE_TAKEN);
        hemi_jobs_push(jobs, HEMI_LANE_BACKGROUND, &names[0], &announced[i]);
    }
    assert_int_equal(hemi_jobs_reserve(jobs, HEMI_LANE_BACKGROUND, &names[0]), HEMI_PLACE_NONE_OF_FLOW);
    assert_int_equal(hemi_jobs_waiting(jobs, HEMI_LANE_FRONT), 6);
    assert_int_equal(hemi_jobs_busy(jobs), 1);
    assert_true(hemi_jobs_retry_after(jobs, HEMI_LANE_FRONT) >= 1);
    stop();
    assert_int_equal(ended, 10);
}

/* A flow that did nothing for a while has no more than those that worked. */
static void test_no_savings(void **state) {
    static job a[60], b[60];
    (void)state;
    start(1, 400, 400);
    for (int i = 0; i < 30; i++) push_new(&a[i], 0, 2);
    for (size_t n = 0; n < 30; usleep(1000)) {
        pthread_mutex_lock(&lock);
        n = ended;
        pthread_mutex_unlock(&lock);
    }
    atomic_store(&held, true);
    for (int i = 30; i < 50; i++) push_new(&a[i], 0, 2);
    for (int i = 0; i < 20; i++) push_new(&b[i], 1, 2);
    stop();
    int of_a = 0; /* in the first half of what followed both had their turns */
    for (int i = 30; i < 50; i++) of_a += order[i] == 0;
    assert_in_range(of_a, 6, 14);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flood), cmocka_unit_test(test_time), cmocka_unit_test(test_places), cmocka_unit_test(test_no_savings)};
    return cmocka_run_group_tests_name("queues of the server", tests, NULL, NULL) != 0;
}
