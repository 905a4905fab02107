/* Worker threads behind two bounded queues: what computes never runs on the thread that serves the connections. What is in the second
 * queue, the background, is begun only when nothing waits in the first, and takes at most all workers but one (of one worker: that one).
 *
 * Within a queue the flows (tenants) share the workers fairly: next comes the flow that has had the least of the workers' time, and of its jobs the
 * oldest (start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM 1996, with the time taken charged when it is known). A flow that was idle begins where
 * the least of the others is: it cannot save up. */
#ifndef HEMI_SERVER_JOBS_H
#define HEMI_SERVER_JOBS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hemi_jobs hemi_jobs;
typedef void (*hemi_job_fn)(void *job);

typedef enum hemi_lane { HEMI_LANE_FRONT, HEMI_LANE_BACKGROUND, HEMI_LANES } hemi_lane;
typedef enum hemi_place { HEMI_PLACE_TAKEN, HEMI_PLACE_NONE, HEMI_PLACE_NONE_OF_FLOW } hemi_place;

/* threads >= 1 workers call run(job) on what is pushed. max: places of each queue; flow_max: of those, one flow's in each. NULL when the threads cannot be
 * had. */
hemi_jobs *hemi_jobs_new(int threads, const size_t max[HEMI_LANES], const size_t flow_max[HEMI_LANES], hemi_job_fn run);
/* Runs what is still in the queues, then ends the workers. No place can be taken any more. */
void hemi_jobs_stop(hemi_jobs *jobs);
void hemi_jobs_free(hemi_jobs *jobs); /* takes NULL */

/* Takes a place in the queue, for a flow that is named by any address; a stopped queue has none. A place that was taken must be filled by
 * hemi_jobs_push. */
hemi_place hemi_jobs_reserve(hemi_jobs *jobs, hemi_lane lane, const void *flow);
void hemi_jobs_push(hemi_jobs *jobs, hemi_lane lane, const void *flow, void *job);
/* Other workers help with the present job of this worker: their time is its flow's, too. */
void hemi_jobs_add_helpers(hemi_jobs *jobs, int helpers);

size_t hemi_jobs_waiting(hemi_jobs *jobs, hemi_lane lane); /* in the queue */
size_t hemi_jobs_busy(hemi_jobs *jobs);                    /* workers at work, in the background too */
/* Seconds, at least 1, until what waits now will have been worked off, as the latest jobs went: for Retry-After. */
unsigned hemi_jobs_retry_after(hemi_jobs *jobs, hemi_lane lane);

#endif
