/* A team: the caller and size - 1 threads that sleep between loops. The steps of a loop are drawn from one counter, so
 * slow steps balance themselves. A step must not run a loop on its own team. */
#include "base/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cpu.h"
#include "base/memory.h"

#define THREADS_MAX 1024
#define SPINS       2000 /* some dozens of microseconds */

static inline void hemi_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

typedef struct worker {
    pthread_t thread;
    hemi_team *team;
    size_t number; /* 1 .. size - 1; the caller of hemi_team_run is worker 0 */
} worker;

struct hemi_team {
    pthread_mutex_t turn; /* held by the caller of hemi_team_run */
    pthread_mutex_t lock; /* guards what follows, up to size; loop is also looked at without it */
    pthread_cond_t start, finish;
    atomic_uint_fast64_t loop; /* counts loops: a worker that sees a new number joins it, while it is open */
    bool open;
    size_t busy; /* workers that are in the present loop */
    bool quit;
    hemi_step step; /* of the present loop */
    void *context;
    size_t count;
    atomic_size_t next;
    const atomic_bool *stop; /* NULL: never */
    int size;
    worker *workers; /* size - 1 */
};

void hemi_team_stop_on(hemi_team *team, const atomic_bool *stop) {
    pthread_mutex_lock(&team->turn);
    team->stop = stop;
    pthread_mutex_unlock(&team->turn);
}

bool hemi_team_is_stopped(const hemi_team *team) { return team && team->stop && atomic_load_explicit(team->stop, memory_order_relaxed); }

static void work(hemi_team *team, size_t number) {
    for (;;) {
        const size_t i = atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed);
        if (i >= team->count || hemi_team_is_stopped(team)) return;
        team->step(team->context, i, number);
    }
}

/* Loops follow one another within microseconds in the middle of a computation: a worker looks out for the next one for a while before it
 * sleeps, which takes longer to wake from than many a loop runs. */
static bool next_comes_soon(const hemi_team *team, uint64_t seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&team->loop, memory_order_relaxed) != seen) return true;
        hemi_pause();
    }
    return false;
}

static void *worker_main(void *argument) {
    const worker *w = argument;
    hemi_team *team = w->team;
    uint64_t seen = 0;
    pthread_mutex_lock(&team->lock);
    while (!team->quit) {
        if (team->loop == seen) {
            pthread_mutex_unlock(&team->lock);
            const bool soon = next_comes_soon(team, seen);
            pthread_mutex_lock(&team->lock);
            while (!soon && !team->quit && team->loop == seen) pthread_cond_wait(&team->start, &team->lock);
            continue;
        }
        seen = team->loop;
        if (!team->open) continue; /* too late: nothing is left of that loop, and nobody waits */
        team->busy++;
        pthread_mutex_unlock(&team->lock);
        work(team, w->number);
        pthread_mutex_lock(&team->lock);
        if (--team->busy == 0) pthread_cond_signal(&team->finish);
    }
    pthread_mutex_unlock(&team->lock);
    return NULL;
}

hemi_team *hemi_team_new(int threads) {
    if (threads <= 0) threads = hemi_cpu_count();
    if (threads > THREADS_MAX) threads = THREADS_MAX;
    hemi_team *team = hemi_alloc(1, sizeof *team);
    worker *workers = hemi_alloc((size_t)threads, sizeof *workers);
    if (!team || !workers) {
        hemi_free(team);
        hemi_free(workers);
        return NULL;
    }
    pthread_mutex_init(&team->turn, NULL);
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->start, NULL);
    pthread_cond_init(&team->finish, NULL);
    atomic_init(&team->next, 0);
    team->workers = workers;
    team->size = 1;
    for (; team->size < threads; team->size++) { /* a system that grants fewer threads gives a smaller team */
        worker *w = &workers[team->size - 1];
        *w = (worker){.team = team, .number = (size_t)team->size};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) break;
    }
    return team;
}

void hemi_team_free(hemi_team *team) {
    if (!team) return;
    pthread_mutex_lock(&team->lock);
    team->quit = true;
    pthread_cond_broadcast(&team->start);
    pthread_mutex_unlock(&team->lock);
    for (int i = 0; i < team->size - 1; i++) pthread_join(team->workers[i].thread, NULL);
    pthread_cond_destroy(&team->start);
    pthread_cond_destroy(&team->finish);
    pthread_mutex_destroy(&team->lock);
    pthread_mutex_destroy(&team->turn);
    hemi_free(team->workers);
    hemi_free(team);
}

int hemi_team_size(const hemi_team *team) { return team ? team->size : 1; }

void hemi_team_run(hemi_team *team, size_t count, hemi_step step, void *context) {
    if (team) pthread_mutex_lock(&team->turn);
    if (!team || team->size == 1 || count <= 1) { /* not worth waking anybody */
        for (size_t i = 0; i < count && !hemi_team_is_stopped(team); i++) step(context, i, 0);
        if (team) pthread_mutex_unlock(&team->turn);
        return;
    }
    pthread_mutex_lock(&team->lock);
    team->step = step;
    team->context = context;
    team->count = count;
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    team->open = true;
    atomic_fetch_add_explicit(&team->loop, 1, memory_order_relaxed);
    pthread_cond_broadcast(&team->start);
    pthread_mutex_unlock(&team->lock);
    work(team, 0);
    pthread_mutex_lock(&team->lock);
    team->open = false; /* who has not begun by now need not */
    while (team->busy > 0) pthread_cond_wait(&team->finish, &team->lock);
    pthread_mutex_unlock(&team->lock);
    pthread_mutex_unlock(&team->turn);
}
