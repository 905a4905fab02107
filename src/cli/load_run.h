/* Several clients at work at the same time, for `hemi bench serve`: in a server's process they are threads here, so that each one's processor time
 * is known. */
#ifndef HEMI_CLI_LOAD_RUN_H
#define HEMI_CLI_LOAD_RUN_H

#include <stdbool.h>

#include "cli/bench_common.h"
#include "hemi/client.h"
#include "hemi/server.h"

#define CLI_CLIENTS_MAX 64

/* What one client did, in all rounds. */
typedef struct cli_worker_figures {
    double *latency; /* ms of each call */
    size_t calls, capacity;
    double cpu_ms;
    size_t wrong;
} cli_worker_figures;

/* What they do: calls over HTTP, or, with url NULL, hemi_evaluate with requests made before. */
typedef struct cli_load {
    const char *url, *model, *name;
    bool prepare;
    const hemi_module *module; /* with weights */
    const hemi_evaluator *evaluator;
    const float *x, *expected; /* one row */
    double seconds;
} cli_load;

/* One round of `clients` at once. figures: one for each, added to. *rate: calls per second of all; *cpu_ms: processor time of the process less that
 * of the clients' threads. */
HEMI_CHECK hemi_status cli_load_round(const cli_load *load, size_t clients, cli_worker_figures *figures, double *rate,
                                      double *server_cpu_ms, hemi_error *err);

#endif
