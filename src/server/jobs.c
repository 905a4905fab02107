#include "server/jobs.h"

#include <pthread.h>
#include <stdlib.h>

struct hemi_jobs {
    pthread_mutex_t lock;
    pthread_cond_t more;
    hemi_job_fn run;
    void **queue;                             /* a ring of queue_max places */
    size_t queue_max, first, count, reserved; /* reserved: taken, not yet filled */
    size_t busy;
    bool quit;
    int threads;
    pthread_t *thread;
};

static void *worker(void *context) {
    hemi_jobs *jobs = context;
    pthread_mutex_lock(&jobs->lock);
    for (;;) {
        while (jobs->count == 0 && (!jobs->quit || jobs->reserved > 0)) pthread_cond_wait(&jobs->more, &jobs->lock);
        if (jobs->count == 0) break;
        void *job = jobs->queue[jobs->first];
        jobs->first = (jobs->first + 1) % jobs->queue_max;
        jobs->count--;
        jobs->busy++;
        pthread_mutex_unlock(&jobs->lock);
        jobs->run(job);
        pthread_mutex_lock(&jobs->lock);
        jobs->busy--;
    }
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

hemi_jobs *hemi_jobs_new(int threads, size_t queue_max, hemi_job_fn run) {
    hemi_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs) return NULL;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->more, NULL);
    jobs->run = run;
    jobs->queue_max = queue_max;
    jobs->queue = calloc(queue_max, sizeof *jobs->queue);
    jobs->thread = calloc((size_t)threads, sizeof *jobs->thread);
    if (jobs->queue && jobs->thread)
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
    free(jobs->queue);
    free(jobs->thread);
    free(jobs);
}

bool hemi_jobs_reserve(hemi_jobs *jobs) {
    pthread_mutex_lock(&jobs->lock);
    const bool room = !jobs->quit && jobs->count + jobs->reserved < jobs->queue_max;
    if (room) jobs->reserved++;
    pthread_mutex_unlock(&jobs->lock);
    return room;
}

void hemi_jobs_push(hemi_jobs *jobs, void *job) {
    pthread_mutex_lock(&jobs->lock);
    jobs->reserved--;
    jobs->queue[(jobs->first + jobs->count++) % jobs->queue_max] = job;
    if (jobs->quit)
        pthread_cond_broadcast(&jobs->more);
    else
        pthread_cond_signal(&jobs->more);
    pthread_mutex_unlock(&jobs->lock);
}

size_t hemi_jobs_waiting(hemi_jobs *jobs) {
    pthread_mutex_lock(&jobs->lock);
    const size_t n = jobs->count;
    pthread_mutex_unlock(&jobs->lock);
    return n;
}

size_t hemi_jobs_busy(hemi_jobs *jobs) {
    pthread_mutex_lock(&jobs->lock);
    const size_t n = jobs->busy;
    pthread_mutex_unlock(&jobs->lock);
    return n;
}
