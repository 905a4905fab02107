#include "server/jobs.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cpu.h"

#define RETRY_AFTER_MAX_S 60.0
#define RECENT            0.1 /* weight of the last job in the mean */

/* A tenant's jobs in one lane; there while any wait or are worked on. */
typedef struct flow {
    const void *name;
    struct job *first, *last, *open; /* open: the first place that is not filled */
    size_t count;    /* waiting */
    size_t reserved; /* places that are taken and not filled */
    size_t busy;     /* being worked on */
    double spent_ms; /* of the workers' time, since it is here, from where it began */
    struct flow *next;
} flow;

typedef struct job {
    void *what;
    struct job *next;
} job;

typedef struct lane {
    flow *flows;
    size_t max, flow_max, count, reserved;
    size_t busy, busy_max; /* workers */
    double begun_ms;       /* where the flow of the last job was: who comes anew begins there at least */
    double mean_ms;        /* of a job, lately */
} lane;

struct hemi_jobs {
    pthread_mutex_t lock;
    pthread_cond_t more;
    hemi_job_fn run;
    lane lane[HEMI_LANES];
    bool quit;
    int threads;
    pthread_t *thread;
};

static _Thread_local int helpers_now; /* of the job of this worker */

static flow *find_flow(const lane *l, const void *name) {
    flow *f = l->flows;
    while (f && f->name != name) f = f->next;
    return f;
}

static flow *make_flow(lane *l, const void *name) {
    flow *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->name = name;
    f->spent_ms = l->begun_ms;
    f->next = l->flows;
    l->flows = f;
    return f;
}

static void drop_if_idle(lane *l, flow *f) {
    if (f->count + f->reserved + f->busy > 0) return;
    flow **at = &l->flows;
    while (*at != f) at = &(*at)->next;
    *at = f->next;
    free(f);
}

/* Of the flows with something to do, that with the least time. */
static flow *next_flow(const lane *l) {
    flow *best = NULL;
    for (flow *f = l->flows; f; f = f->next)
        if (f->count > 0 && (!best || f->spent_ms < best->spent_ms)) best = f;
    return best;
}

/* What is to be done next, if anything: the front first. */
static lane *next_lane(hemi_jobs *jobs) {
    for (int i = 0; i < HEMI_LANES; i++)
        if (jobs->lane[i].count > 0 && jobs->lane[i].busy < jobs->lane[i].busy_max) return &jobs->lane[i];
    return NULL;
}

static bool is_finished(const hemi_jobs *jobs) {
    size_t left = 0;
    for (int i = 0; i < HEMI_LANES; i++) left += jobs->lane[i].count + jobs->lane[i].reserved;
    return jobs->quit && left == 0;
}

static void *take_job(lane *l, flow *f) {
    job *j = f->first;
    void *what = j->what;
    f->first = j->next;
    if (!f->first) f->last = NULL;
    f->count--;
    f->busy++;
    l->count--;
    l->busy++;
    l->begun_ms = f->spent_ms;
    free(j);
    return what;
}

/* While it runs a job counts as long as the mean: otherwise a flow could begin many before the first is charged. */
static void run_job(hemi_jobs *jobs, lane *l, flow *f) {
    void *what = take_job(l, f);
    const double expected = l->mean_ms;
    f->spent_ms += expected;
    helpers_now = 0;
    pthread_mutex_unlock(&jobs->lock);
    const double start = hemi_now_ms();
    jobs->run(what);
    const double taken = (hemi_now_ms() - start) * (1 + helpers_now);
    pthread_mutex_lock(&jobs->lock);
    f->spent_ms += taken - expected;
    l->mean_ms += RECENT * (taken - l->mean_ms);
    f->busy--;
    l->busy--;
    drop_if_idle(l, f);
}

static void *worker(void *context) {
    hemi_jobs *jobs = context;
    pthread_mutex_lock(&jobs->lock);
    for (;;) {
        lane *l;
        while (!(l = next_lane(jobs)) && !is_finished(jobs)) pthread_cond_wait(&jobs->more, &jobs->lock);
        if (!l) break;
        run_job(jobs, l, next_flow(l));
        if (jobs->quit) pthread_cond_broadcast(&jobs->more); /* others may wait for this lane, or for the end */
    }
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

hemi_jobs *hemi_jobs_new(int threads, const size_t max[HEMI_LANES], const size_t flow_max[HEMI_LANES], hemi_job_fn run) {
    hemi_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs) return NULL;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->more, NULL);
    jobs->run = run;
    for (int i = 0; i < HEMI_LANES; i++) {
        lane *l = &jobs->lane[i];
        l->max = max[i];
        l->flow_max = flow_max[i];
        l->busy_max = (size_t)threads - (i == HEMI_LANE_BACKGROUND && threads > 1 ? 1 : 0);
    }
    jobs->thread = calloc((size_t)threads, sizeof *jobs->thread);
    if (jobs->thread)
        while (jobs->threads < threads && pthread_create(&jobs->thread[jobs->threads], NULL, worker, jobs) == 0)
            jobs->threads++;
    if (jobs->threads == threads) return jobs;
    hemi_jobs_free(jobs);
    return NULL;
}

void hemi_jobs_stop(hemi_jobs *jobs) {
    pthread_mutex_lock(&jobs->lock);
    jobs->quit = true;
    pthread_cond_broadcast(&jobs->more);
    pthread_mutex_unlock(&jobs->lock);
    for (int i = 0; i < jobs->threads; i++) pthread_join(jobs->thread[i], NULL);
    jobs->threads = 0;
}

void hemi_jobs_free(hemi_jobs *jobs) {
    if (!jobs) return;
    hemi_jobs_stop(jobs);
    pthread_cond_destroy(&jobs->more);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs->thread);
    free(jobs);
}

static hemi_place reserve_locked(hemi_jobs *jobs, lane *l, const void *name) {
    if (jobs->quit || l->count + l->reserved >= l->max) return HEMI_PLACE_NONE;
    flow *f = find_flow(l, name);
    if (f && f->count + f->reserved >= l->flow_max) return HEMI_PLACE_NONE_OF_FLOW;
    if (!f && !(f = make_flow(l, name))) return HEMI_PLACE_NONE;
    job *j = calloc(1, sizeof *j); /* now, as filling a place must not fail */
    if (!j) {
        drop_if_idle(l, f);
        return HEMI_PLACE_NONE;
    }
    *(f->last ? &f->last->next : &f->first) = j;
    f->last = j;
    if (!f->open) f->open = j;
    f->reserved++;
    l->reserved++;
    return HEMI_PLACE_TAKEN;
}

hemi_place hemi_jobs_reserve(hemi_jobs *jobs, hemi_lane which, const void *name) {
    pthread_mutex_lock(&jobs->lock);
    const hemi_place place = reserve_locked(jobs, &jobs->lane[which], name);
    pthread_mutex_unlock(&jobs->lock);
    return place;
}

void hemi_jobs_push(hemi_jobs *jobs, hemi_lane which, const void *name, void *what) {
    lane *l = &jobs->lane[which];
    pthread_mutex_lock(&jobs->lock);
    flow *f = find_flow(l, name);
    f->open->what = what;
    f->open = f->open->next;
    f->reserved--;
    f->count++;
    l->reserved--;
    l->count++;
    if (jobs->quit)
        pthread_cond_broadcast(&jobs->more);
    else
        pthread_cond_signal(&jobs->more);
    pthread_mutex_unlock(&jobs->lock);
}

void hemi_jobs_add_helpers(hemi_jobs *jobs, int helpers) {
    (void)jobs;
    helpers_now = helpers;
}

size_t hemi_jobs_waiting(hemi_jobs *jobs, hemi_lane which) {
    pthread_mutex_lock(&jobs->lock);
    const size_t n = jobs->lane[which].count;
    pthread_mutex_unlock(&jobs->lock);
    return n;
}

size_t hemi_jobs_busy(hemi_jobs *jobs) {
    size_t n = 0;
    pthread_mutex_lock(&jobs->lock);
    for (int i = 0; i < HEMI_LANES; i++) n += jobs->lane[i].busy;
    pthread_mutex_unlock(&jobs->lock);
    return n;
}

unsigned hemi_jobs_retry_after(hemi_jobs *jobs, hemi_lane which) {
    pthread_mutex_lock(&jobs->lock);
    const lane *l = &jobs->lane[which];
    const double seconds = l->mean_ms * 1e-3 * (double)(l->count + l->busy) / (double)l->busy_max;
    pthread_mutex_unlock(&jobs->lock);
    return (unsigned)ceil(fmin(fmax(seconds, 1), RETRY_AFTER_MAX_S));
}
