/* Worker threads behind two bounded queues: what computes never runs on the thread that serves the connections. What is in the second
 * queue, the background, is begun only when nothing waits in the first, and takes at most all workers but one (of one worker: that one). */
#ifndef HEMI_SERVER_JOBS_H
#define HEMI_SERVER_JOBS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hemi_jobs hemi_jobs;
typedef void (*hemi_job_fn)(void *job);

typedef enum hemi_lane { HEMI_LANE_FRONT, HEMI_LANE_BACKGROUND, HEMI_LANES } hemi_lane;

/* threads >= 1 workers call run(job) on what is pushed, in order. max: places of each queue. NULL when the threads cannot be had. */
hemi_jobs *hemi_jobs_new(int threads, const size_t max[HEMI_LANES], hemi_job_fn run);
/* Runs what is still in the queues, then ends the workers. No place can be taken any more. */
void hemi_jobs_stop(hemi_jobs *jobs);
void hemi_jobs_free(hemi_jobs *jobs); /* takes NULL */

/* Takes a place in the queue; false when it is full or stopped. A place that was taken must be filled by hemi_jobs_push. */
bool hemi_jobs_reserve(hemi_jobs *jobs, hemi_lane lane);
void hemi_jobs_push(hemi_jobs *jobs, hemi_lane lane, void *job);

size_t hemi_jobs_waiting(hemi_jobs *jobs, hemi_lane lane); /* in the queue */
size_t hemi_jobs_busy(hemi_jobs *jobs);                    /* workers at work, in the background too */

#endif
