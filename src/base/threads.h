/* A fixed team of threads for loops whose steps are independent. */
#ifndef HEMI_BASE_THREADS_H
#define HEMI_BASE_THREADS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct hemi_team hemi_team;
typedef void (*hemi_step)(void *context, size_t index, size_t worker);

/* A team of `threads` workers, the caller of hemi_team_run included; 0: one per processor. NULL without memory.
 * A NULL team is a valid team of one. */
hemi_team *hemi_team_new(int threads);
void hemi_team_free(hemi_team *team);
int hemi_team_size(const hemi_team *team);
/* Calls step(context, i, worker) for each i < count, in any order, on any worker (worker < team size), and
 * returns when all are done. Callers on different threads take turns. */
void hemi_team_run(hemi_team *team, size_t count, hemi_step step, void *context);

/* From now on, when *stop becomes true (from any thread; NULL: never), the steps that were not begun are left out: what loops give is void
 * then, and whoever uses it asks hemi_team_is_stopped first. stop outlives the team, or another call of this. Not while a loop runs. */
void hemi_team_stop_on(hemi_team *team, const atomic_bool *stop);
bool hemi_team_is_stopped(const hemi_team *team); /* takes NULL: false */

#endif
