/* The server: libmicrohttpd on one thread for the connections, workers for what computes, one thread for the clocks. */
#include "server/http.h"

#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "server/listen.h"
#include "server/tls.h"
#include "wire/wire.h"

struct hemi_http_server {
    hemi_service service;
    struct MHD_Daemon *daemon;
    int socket;
    uint16_t port;
    char url[280];
    pthread_t sweeper;
    bool sweeping;
    pthread_t keeper;
    bool keeping;
    unsigned key_expiry_s;
    bool tls;
    hemi_http_options options; /* those that count later, too; its strings are the server's own */
    char *folder, *tenants;
    pthread_mutex_t lock; /* guards quit */
    pthread_cond_t wake;
    bool quit;
    long sweep_ms;
};

static unsigned either(unsigned value, unsigned otherwise) { return value ? value : otherwise; }

/* What one tenant may have where nothing is said: the usual, and no more than half of all, which an option may have made few. */
static unsigned share(unsigned value, unsigned usual, unsigned all) {
    const unsigned half = all - all / 2;
    return either(value, usual < half ? usual : half);
}

/* ---- called by libmicrohttpd, all on its thread */

static enum MHD_Result on_accept(void *cls, const struct sockaddr *address, socklen_t length) {
    hemi_http_server *server = cls;
    (void)length;
    const unsigned most = either(server->options.max_connections_per_address, HEMI_SERVER_CONNECTIONS_PER_ADDRESS_MAX);
    return hemi_peers_have_room(server->service.peers, address, most) ? MHD_YES : MHD_NO;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what) {
    hemi_service *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        const union MHD_ConnectionInfo *from = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        *context = hemi_peer_add(s->peers, info->connect_fd, from->client_addr);
    } else {
        hemi_peer_remove(s->peers, *context);
        *context = NULL;
    }
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info->socket_context ? hemi_exchange_new(cls, connection, info->socket_context, uri) : NULL;
}

/* The request is complete: answer it here, or suspend the connection and let a worker do it. */
static enum MHD_Result on_complete(hemi_exchange *x) {
    hemi_jobs *jobs = x->service->jobs;
    if (hemi_exchange_complete(x)) return hemi_answer_send(x);
    const hemi_lane lane = hemi_exchange_lane(x);
    const hemi_place place = hemi_jobs_reserve(jobs, lane, x->tenant);
    if (place != HEMI_PLACE_TAKEN) {
        atomic_fetch_add_explicit(&x->service->metrics.refused_busy, 1, memory_order_relaxed);
        hemi_answer_header(x, MHD_HTTP_HEADER_RETRY_AFTER, "%u", hemi_jobs_retry_after(jobs, lane));
        if (place == HEMI_PLACE_NONE)
            hemi_answer_error(x, 0, HEMI_ERR_BUSY, "too many requests are waiting; try again later");
        else
            hemi_answer_error(x, 0, HEMI_ERR_LIMIT, "too many requests of this tenant are waiting; try again later");
        return hemi_answer_send(x);
    }
    x->stage = HEMI_STAGE_WORKING;
    hemi_peer_enter_work(x->service->peers, x->peer);
    MHD_suspend_connection(x->connection);
    hemi_jobs_push(jobs, lane, x->tenant, x);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *data, size_t *bytes, void **context) {
    hemi_exchange *x = *context;
    (void)cls;
    (void)connection;
    (void)version;
    if (!x) return MHD_NO; /* no memory */
    switch (x->stage) {
    case HEMI_STAGE_NEW:
        hemi_exchange_begin(x, path, method);
        /* An answer now means that the rest of the request is not read, which ends the connection. */
        return x->answer.status && x->answer.close ? hemi_answer_send(x) : MHD_YES;
    case HEMI_STAGE_RECEIVING:
        if (*bytes == 0) return on_complete(x);
        hemi_exchange_receive(x, data, *bytes);
        *bytes = 0;
        return MHD_YES;
    case HEMI_STAGE_WORKING:
        return hemi_answer_send(x);
    default:
        return MHD_NO;
    }
}

static void on_end(void *cls, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode why) {
    (void)cls;
    (void)connection;
    hemi_exchange *x = *context;
    if (x) hemi_exchange_end(x, x->stage == HEMI_STAGE_ANSWERED && why == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    *context = NULL;
}

/* ---- other threads */

static void run_job(void *job) {
    hemi_exchange *x = job;
    hemi_exchange_work(x);
    MHD_resume_connection(x->connection);
}

/* False: the end. */
static bool wait_ms(hemi_http_server *server, long ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&server->lock);
    while (!server->quit && pthread_cond_timedwait(&server->wake, &server->lock, &until) == 0) {
    }
    const bool go_on = !server->quit;
    pthread_mutex_unlock(&server->lock);
    return go_on;
}

/* The clocks: nothing here waits for a disk. */
static void *sweep(void *context) {
    hemi_http_server *server = context;
    while (wait_ms(server, server->sweep_ms)) {
        hemi_peers_sweep(server->service.peers);
        hemi_uploads_expire(server->service.uploads);
        hemi_prepared_expire(server->service.prepared);
    }
    return NULL;
}

/* What waits for the store, in the background. */
static void *keep(void *context) {
    hemi_http_server *server = context;
    hemi_service *s = &server->service;
    double expired_ms = -1e300, read_ms = hemi_now_ms();
    while (wait_ms(server, HEMI_SERVER_KEEP_MS)) {
        hemi_error err = {0};
        size_t removed;
        if (s->identity && hemi_now_ms() - read_ms > HEMI_SERVER_TENANTS_REFRESH_MS) {
            read_ms = hemi_now_ms();
            if (hemi_identity_reload(s->identity, &err) != HEMI_OK) hemi_service_store_failed(s, &err);
        }
        if (s->store && hemi_now_ms() - expired_ms > HEMI_SERVER_EXPIRE_EVERY_S * 1e3) {
            expired_ms = hemi_now_ms();
            if (hemi_store_keys_expire(s->store, time(NULL) - server->key_expiry_s, &removed, &err) != HEMI_OK) hemi_service_store_failed(s, &err);
        }
    }
    return NULL;
}

void hemi_service_store_failed(hemi_service *s, const hemi_error *err) {
    atomic_fetch_add_explicit(&s->store_errors, 1, memory_order_relaxed);
    fprintf(stderr, "hemi-server: %s\n", err->message);
}

/* ---- start */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Keys of circuits have hundreds of megabytes: what is served says how much must fit. */
static void set_room(hemi_http_server *server, const hemi_registry *r) {
    hemi_service *s = &server->service;
    const hemi_http_options *o = &server->options;
    const size_t keys = o->max_keys_bytes ? o->max_keys_bytes : larger(HEMI_SERVER_KEYS_BYTES_MAX, HEMI_SERVER_KEYS_LARGEST * r->key_memory_max);
    atomic_store(&s->keys_bytes_max, keys);
    const size_t bodies = larger(HEMI_SERVER_BODIES_BYTES_MAX, HEMI_SERVER_BODIES_LARGEST * r->key_bytes_max);
    atomic_store(&s->bodies_bytes_max, o->max_memory ? o->max_memory : bodies + HEMI_SERVER_REQUEST_MODULES * (size_t)s->workers * r->working_bytes_max);
    hemi_key_cache_set_max(s->keys, keys);
    hemi_uploads_set_max(s->uploads, larger(HEMI_SERVER_UPLOADS_BYTES_MAX, HEMI_SERVER_KEYS_LARGEST * r->key_bytes_max));
}

static hemi_status start_service(hemi_http_server *server, const hemi_http_options *o, hemi_error *err) {
    hemi_service *s = &server->service;
    const hemi_peers_clock clock = {.header_ms = either(o->header_timeout_ms, HEMI_SERVER_HEADER_TIMEOUT_MS),
                                    .idle_ms = either(o->idle_timeout_ms, HEMI_SERVER_IDLE_TIMEOUT_MS),
                                    .grace_ms = either(o->body_grace_ms, HEMI_SERVER_BODY_GRACE_MS),
                                    .rate = either(o->body_rate_min, HEMI_SERVER_BODY_RATE_MIN),
                                    .crowd = (size_t)either(o->max_connections, HEMI_SERVER_CONNECTIONS_MAX) * HEMI_SERVER_CROWD_EIGHTHS / 8,
                                    .crowd_ms = HEMI_SERVER_CROWD_MS};
    s->header_bytes_max = either(o->max_header_bytes, HEMI_SERVER_HEADER_BYTES_MAX);
    s->body_bytes_max = o->max_body_bytes ? o->max_body_bytes : SIZE_MAX;
    s->request_memory_max = o->max_request_memory ? o->max_request_memory : SIZE_MAX;
    s->max_rows = o->max_request_rows ? o->max_request_rows : HEMI_SERVER_ROWS_MAX;
    s->workers = o->threads > 0 ? o->threads : hemi_cpu_count();
    s->quiet = o->quiet;
    s->started_ms = hemi_now_ms();
    const double shortest = clock.header_ms < clock.idle_ms ? clock.header_ms : clock.idle_ms;
    server->sweep_ms = shortest < 4 * HEMI_SERVER_SWEEP_MS ? (long)(shortest / 4) + 1 : (long)HEMI_SERVER_SWEEP_MS;
    s->keys = hemi_key_cache_new(0);
    s->uploads = hemi_uploads_new(0, HEMI_SERVER_UPLOADS_MAX, HEMI_SERVER_UPLOAD_EXPIRY_MS);
    s->peers = hemi_peers_new(&clock, &s->metrics);
    const size_t prepared = o->max_prepared_bytes ? o->max_prepared_bytes : HEMI_SERVER_PREPARED_BYTES_MAX;
    const hemi_prepared_limits limits = {.bytes = prepared,
                                         .key_bytes = prepared - prepared / 2,
                                         .key_batches = HEMI_SERVER_PREPARED_PER_KEY_MAX,
                                         .expiry_ms = either(o->prepared_expiry_ms, HEMI_SERVER_PREPARED_EXPIRY_MS)};
    const unsigned queue = either(o->max_queue, HEMI_SERVER_QUEUE_MAX);
    const size_t places[HEMI_LANES] = {queue, HEMI_SERVER_PREPARES_MAX};
    const size_t of_tenant[HEMI_LANES] = {o->no_auth ? SIZE_MAX : share(o->max_queue_per_tenant, HEMI_SERVER_QUEUE_PER_TENANT_MAX, queue), /* without tokens all are one */
                                          o->no_auth ? SIZE_MAX : HEMI_SERVER_PREPARES_PER_TENANT_MAX};
    s->prepared = hemi_prepared_new(&limits);
    s->board = hemi_board_new(HEMI_SERVER_PROGRESS_MAX);
    s->jobs = hemi_jobs_new(s->workers, places, of_tenant, run_job);
    if (!s->prepared || !s->board || !s->keys || !s->uploads || !s->peers || !s->jobs)
        return hemi_fail(err, HEMI_ERR_MEMORY, "cannot start %d worker threads: too little memory, or too many threads",
                         s->workers);
    set_room(server, s->registry);
    if (pthread_create(&server->sweeper, NULL, sweep, server) != 0)
        return hemi_fail(err, HEMI_ERR_MEMORY, "cannot start a thread");
    server->sweeping = true;
    if (pthread_create(&server->keeper, NULL, keep, server) != 0) return hemi_fail(err, HEMI_ERR_MEMORY, "cannot start a thread");
    server->keeping = true;
    return HEMI_OK;
}

static hemi_status open_store(hemi_http_server *server, const hemi_http_options *o, hemi_error *err) {
    hemi_service *s = &server->service;
    s->tenant_keys_bytes = o->tenant_keys_bytes ? o->tenant_keys_bytes : HEMI_SERVER_TENANT_KEYS_BYTES;
    server->key_expiry_s = either(o->key_expiry_s, HEMI_SERVER_KEY_EXPIRY_S);
    strcpy(s->anyone.name, HEMI_TENANT_ANYONE);
    if (o->store && strcmp(o->store, "memory") != 0) HEMI_TRY(hemi_store_open(&s->store, o->store, err));
    if (!(o->budget >= 0)) return hemi_fail(err, HEMI_ERR_ARGUMENT, "the budget is a number of rows / (inputs + 1), not negative");
    return hemi_budget_new(&s->budget, s->store, o->budget, err);
}

static hemi_status open_identity(hemi_http_server *server, const hemi_http_options *o, hemi_error *err) {
    hemi_service *s = &server->service;
    s->tenant_connections_max =
        share(o->max_connections_per_tenant, HEMI_SERVER_CONNECTIONS_PER_TENANT_MAX, either(o->max_connections, HEMI_SERVER_CONNECTIONS_MAX));
    HEMI_TRY(hemi_identity_new(&s->identity, server->tenants, s->store, err));
    if (hemi_identity_count(s->identity) > 0) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_ARGUMENT,
                     "nobody could use this server: it has no tenants. Make one with `hemi tenants add NAME` (--file or --store as for this server); or, where only this "
                     "machine can reach it, start it with --no-auth");
}

/* What is not for strangers is not shown to them, unless by an option that says so. */
static hemi_status check_exposure(const hemi_http_server *server, const hemi_http_options *o, hemi_error *err) {
    const char *address = o->address ? o->address : "127.0.0.1";
    if (!o->tls_certificate != !o->tls_key) return hemi_fail(err, HEMI_ERR_ARGUMENT, "--tls-cert and --tls-key go together: one of them is missing");
    if (hemi_bound_to_loopback(server->socket)) return HEMI_OK;
    if (o->no_auth)
        return hemi_fail(err, HEMI_ERR_ARGUMENT,
                         "--no-auth is for addresses of this machine alone (127.0.0.1), and %s is not one: everyone could use the models. Make tenants with "
                         "`hemi tenants add NAME`",
                         address);
    if (o->tls_certificate || o->no_tls) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_ARGUMENT,
                     "on %s tokens and inputs' sizes would cross the network in the clear: give a certificate (--tls-cert FILE --tls-key FILE), or say --no-tls where a "
                     "proxy in front of this server has TLS",
                     address);
}

/* libmicrohttpd reads its options to the first END: those of TLS are there or not. */
static hemi_status start_daemon(hemi_http_server *server, const hemi_http_options *o, hemi_error *err) {
    hemi_service *s = &server->service;
    /* Its own time-out is for what the sweep does not see, so it is the longest. */
    const unsigned timeout_s = either(o->idle_timeout_ms, HEMI_SERVER_IDLE_TIMEOUT_MS) / 1000 + 60;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_CERT_CALLBACK, 0, NULL}, {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)HEMI_TLS_PRIORITIES}, {MHD_OPTION_END, 0, NULL}},
                          none[] = {{MHD_OPTION_END, 0, NULL}};
    tls[0].ptr_value = (void *)(intptr_t)hemi_tls_retrieve;
    /* clang-format off */
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | (server->tls ? MHD_USE_TLS : 0), server->port, on_accept, server, on_request, s,
        MHD_OPTION_LISTEN_SOCKET, (MHD_socket)server->socket,
        MHD_OPTION_NOTIFY_COMPLETED, on_end, s,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
        MHD_OPTION_URI_LOG_CALLBACK, on_uri, s,
        MHD_OPTION_CONNECTION_LIMIT, either(o->max_connections, HEMI_SERVER_CONNECTIONS_MAX),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, HEMI_SERVER_CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_MEMORY_INCREMENT, HEMI_SERVER_CONNECTION_INCREMENT,
        MHD_OPTION_CONNECTION_TIMEOUT, timeout_s,
        MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_ARRAY, server->tls ? tls : none,
        MHD_OPTION_END);
    /* clang-format on */
    if (!server->daemon)
        return hemi_fail(
            err, HEMI_ERR_NETWORK,
            "libmicrohttpd does not start: is the limit of open files (ulimit -n) below the number of connections?");
    return HEMI_OK;
}

/* Its threads leave signals to the program they are in. */
static hemi_status start_threads(hemi_http_server *server, const hemi_http_options *o, hemi_error *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    hemi_status status = start_service(server, o, err);
    if (status == HEMI_OK) status = start_daemon(server, o, err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

static void init_wake(hemi_http_server *server) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

static hemi_status open_registry(const hemi_http_server *server, hemi_registry **out, const hemi_registry *before, hemi_error *err) {
    const hemi_http_options *o = &server->options;
    const hemi_evaluator_options evaluators = {.small_memory = o->small_memory};
    return hemi_registry_open(out, o->folder, o->max_request_rows ? o->max_request_rows : HEMI_SERVER_ROWS_MAX, &evaluators, o->quiet, before, err);
}

/* What is needed after the start. */
static hemi_status keep_options(hemi_http_server *server, const hemi_http_options *o, hemi_error *err) {
    server->options = *o;
    server->options.folder = server->folder = hemi_strdup(o->folder);
    server->options.tenants = server->tenants = o->tenants ? hemi_strdup(o->tenants) : NULL;
    return server->folder && (server->tenants || !o->tenants) ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory");
}

hemi_registry *hemi_service_registry(hemi_service *s) {
    pthread_mutex_lock(&s->registry_lock);
    hemi_registry *registry = hemi_registry_hold(s->registry);
    pthread_mutex_unlock(&s->registry_lock);
    return registry;
}

static hemi_status reload_models(hemi_http_server *server, hemi_error *err) {
    hemi_service *s = &server->service;
    hemi_registry *before = hemi_service_registry(s), *registry;
    const hemi_status status = open_registry(server, &registry, before, err);
    if (status == HEMI_OK) {
        pthread_mutex_lock(&s->registry_lock);
        hemi_registry *old = s->registry;
        s->registry = registry;
        pthread_mutex_unlock(&s->registry_lock);
        set_room(server, registry);
        hemi_registry_release(old);
    }
    hemi_registry_release(before);
    return status;
}

hemi_status hemi_http_server_reload(hemi_http_server *server, hemi_error *err) {
    hemi_service *s = &server->service;
    hemi_error later = {0};
    hemi_status status = reload_models(server, err), one = s->identity ? hemi_identity_reload(s->identity, &later) : HEMI_OK;
    if (status == HEMI_OK && one != HEMI_OK) status = hemi_fail(err, one, "%s", later.message);
    one = server->tls ? hemi_tls_reload(&later) : HEMI_OK;
    if (status == HEMI_OK && one != HEMI_OK) status = hemi_fail(err, one, "%s", later.message);
    return status;
}

hemi_status hemi_http_server_start(hemi_http_server **out, const hemi_http_options *o, hemi_error *err) {
    *out = NULL;
    if (!o || !o->folder) return hemi_fail(err, HEMI_ERR_ARGUMENT, "no folder to serve was given");
    if (o->threads < 0 || o->max_request_rows > HEMI_REQUEST_UNITS_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "threads must not be negative, and max_request_rows at most %d",
                         HEMI_REQUEST_UNITS_MAX);
    if (o->max_header_bytes > HEMI_SERVER_HEADER_BYTES_MOST)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "max_header_bytes may be at most %u", HEMI_SERVER_HEADER_BYTES_MOST);
    if (sodium_init() < 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "libsodium does not start");
    hemi_http_server *server = hemi_alloc(1, sizeof *server);
    if (!server) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory");
    server->socket = -1;
    server->port = o->port;
    init_wake(server);
    /* The port first: if it is taken, one learns so at once, and not after the loading. Connections are accepted when all is ready. */
    pthread_mutex_init(&server->service.registry_lock, NULL);
    hemi_status status = keep_options(server, o, err);
    if (status == HEMI_OK) status = hemi_bind(&server->socket, o->address ? o->address : "127.0.0.1", &server->port, o->tls_certificate ? "https" : "http",
                                   server->url, sizeof server->url, err);
    if (status == HEMI_OK) status = check_exposure(server, o, err);
    if (status == HEMI_OK && o->tls_certificate) {
        status = hemi_tls_start(o->tls_certificate, o->tls_key, err);
        server->tls = status == HEMI_OK;
    }
    if (status == HEMI_OK) status = open_store(server, o, err);
    if (status == HEMI_OK && !o->no_auth) status = open_identity(server, o, err);
    if (status == HEMI_OK) status = open_registry(server, &server->service.registry, NULL, err);
    if (status == HEMI_OK) status = hemi_listen(server->socket, server->port, err);
    if (status == HEMI_OK) status = start_threads(server, o, err);
    if (status != HEMI_OK) {
        hemi_http_server_stop(server);
        return status;
    }
    *out = server;
    return HEMI_OK;
}

/* ---- what there is to know, and the end */

uint16_t hemi_http_server_port(const hemi_http_server *server) { return server->port; }
const char *hemi_http_server_url(const hemi_http_server *server) { return server->url; }
const hemi_service *hemi_http_server_service(const hemi_http_server *server) { return &server->service; }

/* No new connections; the requests under way get their answers, the slow ones up to a limit. */
static void drain(hemi_http_server *server) {
    const double start = hemi_now_ms();
    const struct timespec pause = {.tv_nsec = 2000000};
    const double most = either(server->options.drain_ms, HEMI_SERVER_DRAIN_MS);
    hemi_service *s = &server->service;
    atomic_store(&s->stopping, true);
    (void)MHD_quiesce_daemon(server->daemon);
    while (atomic_load(&s->exchanges) > 0 && hemi_now_ms() - start < most) nanosleep(&pause, NULL);
    hemi_peers_give_up(s->peers); /* what is still computed is answered with 503 */
    while (hemi_jobs_busy(s->jobs) + hemi_jobs_waiting(s->jobs, HEMI_LANE_FRONT) > 0 && hemi_now_ms() - start < most + HEMI_SERVER_GIVE_UP_MS) nanosleep(&pause, NULL);
    const double idle = hemi_now_ms(); /* the workers' last answers are on their way, by the daemon's thread */
    while (atomic_load(&s->exchanges) > 0 && hemi_now_ms() - idle < HEMI_SERVER_LAST_ANSWERS_MS) nanosleep(&pause, NULL);
}

void hemi_http_server_stop(hemi_http_server *server) {
    if (!server) return;
    hemi_service *s = &server->service;
    if (server->daemon) drain(server);
    if (s->jobs) hemi_jobs_stop(s->jobs); /* runs what is queued: no connection stays suspended */
    if (server->daemon) MHD_stop_daemon(server->daemon);
    if (server->socket >= 0) close(server->socket);
    pthread_mutex_lock(&server->lock);
    server->quit = true;
    pthread_cond_broadcast(&server->wake);
    pthread_mutex_unlock(&server->lock);
    if (server->sweeping) pthread_join(server->sweeper, NULL);
    if (server->keeping) pthread_join(server->keeper, NULL);
    hemi_jobs_free(s->jobs);
    hemi_peers_free(s->peers);
    hemi_uploads_free(s->uploads);
    hemi_prepared_free(s->prepared);
    hemi_board_free(s->board);
    hemi_key_cache_free(s->keys);
    hemi_registry_release(s->registry);
    pthread_mutex_destroy(&s->registry_lock);
    hemi_budget_free(s->budget);
    hemi_identity_free(s->identity);
    hemi_store_close(s->store);
    if (server->tls) hemi_tls_stop();
    pthread_cond_destroy(&server->wake);
    pthread_mutex_destroy(&server->lock);
    hemi_free(server->folder);
    hemi_free(server->tenants);
    hemi_free(server);
}
