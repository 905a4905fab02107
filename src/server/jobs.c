#include "server/jobs.h"

#include <pthread.h>
#include <stdlib.h>

/* A ring of `max` places. */
typedef struct lane {
    void **queue;
    size_t max, first, count, reserved; /* reserved: taken, not yet filled */
    size_t busy, busy_max;              /* workers */
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

static void *worker(void *context) {
    hemi_jobs *jobs = context;
    pthread_mutex_lock(&jobs->lock);
    for (;;) {
        lane *l;
        while (!(l = next_lane(jobs)) && !is_finished(jobs)) pthread_cond_wait(&jobs->more, &jobs->lock);
        if (!l) break;
        void *job = l->queue[l->first];
        l->first = (l->first + 1) % l->max;
        l->count--;
        l->busy++;
        pthread_mutex_unlock(&jobs->lock);
        jobs->run(job);
        pthread_mutex_lock(&jobs->lock);
        l->busy--;
        if (jobs->quit) pthread_cond_broadcast(&jobs->more); /* others may wait for this lane, or for the end */
    }
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

hemi_jobs *hemi_jobs_new(int threads, const size_t max[HEMI_LANES], hemi_job_fn run) {
    hemi_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs) return NULL;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->more, NULL);
    jobs->run = run;
    bool room = (jobs->thread = calloc((size_t)threads, sizeof *jobs->thread)) != NULL;
    for (int i = 0; i < HEMI_LANES; i++) {
        lane *l = &jobs->lane[i];
        l->max = max[i];
        l->busy_max = (size_t)threads - (i == HEMI_LANE_BACKGROUND && threads > 1 ? 1 : 0);
        room = (l->queue = calloc(l->max, sizeof *l->queue)) != NULL && room;
    }
    if (room)
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
    for (int i = 0; i < HEMI_LANES; i++) free(jobs->lane[i].queue);
    free(jobs->thread);
    free(jobs);
}

bool hemi_jobs_reserve(hemi_jobs *jobs, hemi_lane which) {
    lane *l = &jobs->lane[which];
    pthread_mutex_lock(&jobs->lock);
    const bool room = !jobs->quit && l->count + l->reserved < l->max;
    if (room) l->reserved++;
    pthread_mutex_unlock(&jobs->lock);
    return room;
}

void hemi_jobs_push(hemi_jobs *jobs, hemi_lane which, void *job) {
    lane *l = &jobs->lane[which];
    pthread_mutex_lock(&jobs->lock);
    l->reserved--;
    l->queue[(l->first + l->count++) % l->max] = job;
    if (jobs->quit)
        pthread_cond_broadcast(&jobs->more);
    else
        pthread_cond_signal(&jobs->more);
    pthread_mutex_unlock(&jobs->lock);
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
