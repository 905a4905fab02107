/* Worker threads behind a bounded queue: what computes never runs on the thread that serves the connections. */
#ifndef HEMI_SERVER_JOBS_H
#define HEMI_SERVER_JOBS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hemi_jobs hemi_jobs;
typedef void (*hemi_job_fn)(void *job);

/* threads >= 1 workers call run(job) on what is pushed, in order. NULL when the threads cannot be had. */
hemi_jobs *hemi_jobs_new(int threads, size_t queue_max, hemi_job_fn run);
/* Runs what is still in the queue, then ends the workers. No place can be taken any more. */
void hemi_jobs_stop(hemi_jobs *jobs);
void hemi_jobs_free(hemi_jobs *jobs); /* takes NULL */

/* Takes a place in the queue; false when it is full or stopped. A place that was taken must be filled by hemi_jobs_push. */
bool hemi_jobs_reserve(hemi_jobs *jobs);
void hemi_jobs_push(hemi_jobs *jobs, void *job);

size_t hemi_jobs_waiting(hemi_jobs *jobs); /* in the queue */
size_t hemi_jobs_busy(hemi_jobs *jobs);    /* workers at work */

#endif
