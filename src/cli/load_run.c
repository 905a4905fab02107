#include "cli/load_run.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"

#define WARM_UPS 3

/* All begin when the last one is ready; `failed` lets nobody wait for one that never will be. */
typedef struct gate {
    pthread_mutex_t lock;
    pthread_cond_t open;
    size_t ready, wanted;
    double until;
} gate;

typedef struct worker {
    pthread_t thread;
    const cli_load *load;
    gate *gate;
    cli_worker_figures *figures;
    /* over HTTP */
    hemi_client *client;
    hemi_remote *remote;
    /* without */
    hemi_keys *keys;
    hemi_server_keys *server_keys;
    hemi_pending *pending;
    uint8_t *request;
    size_t request_bytes;
    float *y;
    size_t calls;
    double cpu_ms, end;
    hemi_status status;
    hemi_error err;
} worker;

static void pass(gate *g, double seconds) {
    pthread_mutex_lock(&g->lock);
    if (++g->ready == g->wanted) {
        g->until = hemi_now_ms() + seconds * 1e3;
        pthread_cond_broadcast(&g->open);
    }
    while (g->ready < g->wanted) pthread_cond_wait(&g->open, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

/* ---- one client */

static hemi_status open_worker(worker *w, hemi_error *err) {
    const cli_load *l = w->load;
    const hemi_client_options options = {.prepare = l->prepare ? 1 : -1};
    hemi_module_info info;
    hemi_module_get_info(l->module, &info);
    w->y = hemi_alloc(info.outputs, sizeof *w->y);
    if (!w->y) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    if (l->url) {
        HEMI_TRY(hemi_client_new(&w->client, l->url, NULL, &options, err));
        return hemi_remote_open(&w->remote, w->client, l->model, l->name, NULL, err);
    }
    uint8_t *bytes;
    size_t length;
    HEMI_TRY(hemi_keys_new(&w->keys, NULL, err));
    HEMI_TRY(hemi_keys_evaluation(w->keys, &l->module, 1, &bytes, &length, err));
    const hemi_status status = hemi_server_keys_new(&w->server_keys, bytes, length, err);
    hemi_bytes_release(bytes);
    HEMI_TRY(status);
    return hemi_encrypt(l->module, w->keys, l->x, 1, &w->pending, &w->request, &w->request_bytes, err);
}

static void close_worker(worker *w) {
    hemi_remote_free(w->remote);
    hemi_client_free(w->client);
    hemi_pending_free(w->pending);
    hemi_bytes_release(w->request);
    hemi_server_keys_free(w->server_keys);
    hemi_keys_free(w->keys);
    hemi_free(w->y);
}

static void check(worker *w) {
    hemi_module_info info;
    hemi_module_get_info(w->load->module, &info);
    for (size_t o = 0; o < info.outputs; o++)
        if (!(fabs((double)w->y[o] - (double)w->load->expected[o]) <= CLI_WRONG_SIGMAS * info.predicted_error))
            w->figures->wrong++;
}

static hemi_status call(worker *w, bool look, hemi_error *err) {
    const cli_load *l = w->load;
    if (l->url) {
        HEMI_TRY(hemi_remote_call(w->remote, l->x, 1, w->y, NULL, err));
        check(w);
        return HEMI_OK;
    }
    uint8_t *reply;
    size_t bytes;
    HEMI_TRY(hemi_evaluate(&l->evaluator, 1, w->server_keys, w->request, w->request_bytes, 1, &reply, &bytes, err));
    hemi_status status = HEMI_OK;
    if (look) {
        status = hemi_decrypt(l->module, w->keys, w->pending, reply, bytes, w->y, err);
        check(w);
    }
    hemi_bytes_free(reply);
    return status;
}

static void note(cli_worker_figures *f, double ms) {
    if (f->calls == f->capacity) {
        const size_t capacity = f->capacity ? 2 * f->capacity : 4096;
        double *grown = realloc(f->latency, capacity * sizeof *grown);
        if (!grown) return;
        f->latency = grown;
        f->capacity = capacity;
    }
    f->latency[f->calls++] = ms;
}

static hemi_status work(worker *w, hemi_error *err) {
    hemi_status status = open_worker(w, err);
    for (int i = 0; i < WARM_UPS && status == HEMI_OK; i++) status = call(w, true, err);
    pass(w->gate, w->load->seconds); /* also when something failed: the others wait */
    const double cpu = cli_thread_cpu_ms();
    double now = hemi_now_ms();
    while (status == HEMI_OK && now < w->gate->until) {
        const double start = now;
        status = call(w, false, err);
        now = hemi_now_ms();
        note(w->figures, now - start);
        w->calls++;
    }
    w->cpu_ms = cli_thread_cpu_ms() - cpu;
    w->end = now;
    return status;
}

static void *begin(void *context) {
    worker *w = context;
    w->status = work(w, &w->err);
    close_worker(w);
    return NULL;
}

/* ---- a round */

hemi_status cli_load_round(const cli_load *load, size_t clients, cli_worker_figures *figures, double *rate,
                           double *server_cpu_ms, hemi_error *err) {
    worker *w = hemi_alloc(clients, sizeof *w);
    gate g = {.lock = PTHREAD_MUTEX_INITIALIZER, .open = PTHREAD_COND_INITIALIZER, .wanted = clients + 1};
    if (!w) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    size_t started = 0;
    for (; started < clients; started++) {
        w[started] = (worker){.load = load, .gate = &g, .figures = &figures[started]};
        if (pthread_create(&w[started].thread, NULL, begin, &w[started]) != 0) break;
    }
    hemi_status status =
        started == clients ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "cannot start %zu threads", clients);
    pthread_mutex_lock(&g.lock);
    g.wanted = started + 1;
    pthread_mutex_unlock(&g.lock);
    pass(&g, load->seconds);
    const double start = g.until - load->seconds * 1e3, cpu = cli_process_cpu_ms();
    double client_ms = 0, end = start, calls = 0;
    for (size_t i = 0; i < started; i++) {
        pthread_join(w[i].thread, NULL);
        if (status == HEMI_OK && w[i].status != HEMI_OK) {
            status = w[i].status;
            if (err) *err = w[i].err;
        }
        figures[i].cpu_ms += w[i].cpu_ms;
        client_ms += w[i].cpu_ms;
        calls += (double)w[i].calls;
        end = fmax(end, w[i].end);
    }
    *server_cpu_ms += cli_process_cpu_ms() - cpu - client_ms;
    *rate = calls / fmax(end - start, 1e-3) * 1e3;
    hemi_free(w);
    return status;
}
