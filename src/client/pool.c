#include "client/pool.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"

struct hemi_pool {
    hemi_pool *next;
    hemi_pools *pools;
    char path[HEMI_HTTP_PATH_MAX]; /* of the model's route prepare */
    hemi_module *module[HEMI_REQUEST_MODULES_MAX];
    size_t modules;
    hemi_lot *lots; /* the oldest first */
    size_t count;
    uint32_t next_slots; /* of the next lot; 0: not chosen yet */
    unsigned calls;      /* until the first lot is wanted */
    bool wanted, off;
    double not_before_ms; /* the next announcement */
};

struct hemi_pools {
    pthread_mutex_t lock; /* guards everything but http, stop and wake; taken inside the gate only */
    hemi_keys *keys;
    hemi_http *http; /* the thread's */
    const hemi_http *like;
    int mode; /* as hemi_client_options.prepare */
    uint32_t rows;
    size_t bytes, bytes_max; /* of lots, those being made included */
    hemi_pool *pool;
    char there[65]; /* the evaluation keys that were seen on the server last */
    hemi_lot *making;
    pthread_t thread;
    sem_t wake;
    bool running;
    atomic_bool stop;
    pid_t pid;
    unsigned forks;
};

/* ---- fork
 *
 * A child has the parent's memory but not its threads: what a thread of ours had locked would stay locked there for ever. So all of
 * them work inside a gate, which fork waits for, and leave it when they wait for the network. */

static pthread_rwlock_t gate;
static unsigned forks; /* how many times this process, and those before it, are a child; read inside the gate */
static pthread_once_t gate_once = PTHREAD_ONCE_INIT;

static void gate_init(void) {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&gate, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

static void before_fork(void) { pthread_rwlock_wrlock(&gate); }
static void in_parent(void) { pthread_rwlock_unlock(&gate); }
static void in_child(void) {
    gate_init(); /* its owner, by number, is a thread of the parent */
    forks++;
}
static void gate_start(void) {
    gate_init();
    (void)pthread_atfork(before_fork, in_parent, in_child);
}

static void enter(void) { pthread_rwlock_rdlock(&gate); }
static void leave(void) { pthread_rwlock_unlock(&gate); }

static void drop_lots(hemi_pool *pool) {
    while (pool->lots) {
        hemi_lot *lot = pool->lots;
        pool->lots = lot->next;
        pool->pools->bytes -= lot->bytes;
        hemi_lot_free(lot);
    }
    pool->count = 0;
}

/* In a child: nothing of the parent's is used, neither its slots nor its connection. */
static void empty_after_fork(hemi_pools *s) {
    if (s->forks == forks && s->pid == getpid()) return;
    for (hemi_pool *p = s->pool; p; p = p->next) {
        drop_lots(p);
        p->wanted = false;
    }
    hemi_lot_free(s->making);
    s->making = NULL;
    s->bytes = 0;
    s->running = false; /* the thread stayed with the parent */
    s->http = NULL;     /* so did its connection: left alone */
    sem_init(&s->wake, 0, 0);
    s->forks = forks;
    s->pid = getpid();
}

/* Every function below works between these two. */
static void lock(hemi_pools *s) {
    enter();
    pthread_mutex_lock(&s->lock);
    empty_after_fork(s);
}
static void unlock(hemi_pools *s) {
    pthread_mutex_unlock(&s->lock);
    leave();
}

/* ---- the object */

hemi_status hemi_pools_new(hemi_pools **out, const hemi_http *like, hemi_keys *keys, const hemi_client_options *options,
                           hemi_error *err) {
    *out = NULL;
    pthread_once(&gate_once, gate_start);
    if (options->prepare < -1 || options->prepare > 1 || options->prepare_rows > HEMI_BATCH_SLOTS_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "prepare is -1, 0 or 1, and prepare_rows at most %d",
                         HEMI_BATCH_SLOTS_MAX);
    hemi_pools *s = hemi_alloc(1, sizeof *s);
    if (!s) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    s->keys = keys;
    s->mode = options->prepare;
    s->rows = options->prepare_rows;
    s->bytes_max = options->prepare_bytes ? options->prepare_bytes : HEMI_POOL_MEMORY;
    s->like = like;
    s->pid = getpid();
    enter();
    s->forks = forks;
    leave();
    pthread_mutex_init(&s->lock, NULL);
    sem_init(&s->wake, 0, 0);
    *out = s;
    return HEMI_OK;
}

void hemi_pools_free(hemi_pools *s) {
    if (!s) return;
    lock(s);
    const bool running = s->running;
    unlock(s);
    if (running) {
        atomic_store(&s->stop, true);
        sem_post(&s->wake);
        pthread_join(s->thread, NULL);
    }
    hemi_http_free(s->http);
    for (hemi_pool *p = s->pool, *next; p; p = next) {
        next = p->next;
        drop_lots(p);
        for (size_t i = 0; i < p->modules; i++) hemi_module_free(p->module[i]);
        hemi_free(p);
    }
    sem_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    hemi_free(s);
}

/* By all that is stated of them: ids are the server's to choose, and what two modules of one id say may differ in everything, the sizes
 * of the caller's memory included. */
static bool same_modules(const hemi_pool *p, const hemi_module *const *modules, size_t count) {
    if (p->modules != count) return false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(hemi_module_client_json(p->module[i]), hemi_module_client_json(modules[i])) != 0) return false;
    return true;
}

static hemi_status make_pool(hemi_pool **out, hemi_pools *s, const char *path, const hemi_module *const *modules,
                             size_t count, hemi_error *err) {
    hemi_pool *p = hemi_alloc(1, sizeof *p);
    hemi_status status = p ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < count && status == HEMI_OK; i++) {
        const char *json = hemi_module_client_json(modules[i]);
        status = hemi_module_from_client_json(&p->module[i], json, strlen(json), err);
        if (status == HEMI_OK) p->modules++;
    }
    if (status != HEMI_OK) {
        for (size_t i = 0; p && i < p->modules; i++) hemi_module_free(p->module[i]);
        hemi_free(p);
        return status;
    }
    p->pools = s;
    snprintf(p->path, sizeof p->path, "%s", path);
    *out = p;
    return HEMI_OK;
}

hemi_status hemi_pools_get(hemi_pools *s, hemi_pool **out, const char *model, const hemi_module *const *modules,
                           size_t count, hemi_error *err) {
    char path[HEMI_HTTP_PATH_MAX] = "/v2/models/";
    *out = NULL;
    if (!hemi_lot_possible(modules, count)) return HEMI_OK;
    if (!hemi_http_path_append(path, model) || strlen(path) + 10 > HEMI_HTTP_PATH_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "the name of the model is too long");
    strcat(path, "/prepare");
    lock(s);
    hemi_status status = HEMI_OK;
    hemi_pool *p = s->pool;
    while (p && !(strcmp(p->path, path) == 0 && same_modules(p, modules, count))) p = p->next;
    if (!p) {
        status = make_pool(&p, s, path, modules, count, err);
        if (status == HEMI_OK) {
            p->next = s->pool;
            s->pool = p;
        }
    }
    unlock(s);
    if (status == HEMI_OK) *out = p;
    return status;
}

const hemi_module *const *hemi_pool_modules(const hemi_pool *p, size_t *count) {
    *count = p->modules;
    return (const hemi_module *const *)p->module;
}

/* ---- slots */

static size_t slots_left(const hemi_pool *p) {
    size_t left = 0;
    for (const hemi_lot *lot = p->lots; lot; lot = lot->next) left += lot->request.slots - lot->taken;
    return left;
}

static void remove_lot(hemi_pool *p, hemi_lot *lot) {
    hemi_lot **at = &p->lots;
    while (*at && *at != lot) at = &(*at)->next;
    if (!*at) return; /* it went with a fork, or with its key */
    *at = lot->next;
    p->count--;
    p->pools->bytes -= lot->bytes;
    hemi_lot_free(lot);
}

/* The application made a new key: what the server answers to lots of the old one would be under that. */
static void drop_stale(hemi_pool *p, uint64_t generation) {
    for (hemi_lot *l = p->lots, *next; l; l = next) {
        next = l->next;
        if (l->key_generation != generation) remove_lot(p, l);
    }
}

size_t hemi_pool_slots(hemi_pool *p) {
    const uint64_t generation = hemi_keys_generation(p->pools->keys);
    size_t left = 0;
    lock(p->pools);
    for (const hemi_lot *l = p->lots; l; l = l->next) /* only counted: another thread may be using one */
        if (l->key_generation == generation) left += l->request.slots - l->taken;
    unlock(p->pools);
    return left;
}

bool hemi_pool_take(hemi_pool *p, uint32_t rows, hemi_lot **lot, uint32_t *first) {
    const uint64_t generation = hemi_keys_generation(p->pools->keys);
    *lot = NULL;
    lock(p->pools);
    drop_stale(p, generation);
    hemi_lot *l = p->lots;
    while (l && l->request.slots - l->taken < rows) l = l->next;
    if (l) {
        *lot = l;
        *first = l->taken;
        l->taken += rows;
    }
    unlock(p->pools);
    return *lot != NULL;
}

/* How many slots the next lot shall have: 0 if none. */
static uint32_t choose_slots(const hemi_pool *p) {
    const hemi_pools *s = p->pools;
    const hemi_module *const *modules = (const hemi_module *const *)p->module;
    const size_t row = hemi_lot_row_bytes(modules, p->modules);
    size_t room = s->bytes_max > s->bytes ? s->bytes_max - s->bytes : 0, slots = s->rows;
    if (s->mode == 0) {
        if (hemi_lot_seconds_bytes(modules, p->modules) > HEMI_POOL_SECONDS_BYTES) return 0;
        if (room > s->bytes_max / HEMI_POOL_SHARE) room = s->bytes_max / HEMI_POOL_SHARE;
    }
    if (slots == 0) slots = p->next_slots ? p->next_slots : HEMI_POOL_SLOTS;
    if (slots > room / row) slots = room / row;
    const size_t least = s->rows && s->rows < HEMI_POOL_SLOTS_LEAST ? s->rows : HEMI_POOL_SLOTS_LEAST;
    return slots < least ? 0 : (uint32_t)slots;
}

static bool start_thread(hemi_pools *s);

/* Wakes the thread where a lot is wanted: none left, or half of the last one. */
static void want(hemi_pool *p) {
    hemi_pools *s = p->pools;
    const hemi_lot *last = p->lots;
    if (s->mode < 0 || p->off || p->wanted || p->count == HEMI_POOL_LOTS_MAX) return;
    if (p->calls < (s->mode > 0 ? 1 : HEMI_POOL_CALLS) || hemi_now_ms() < p->not_before_ms) return;
    while (last && last->next) last = last->next;
    if (last && slots_left(p) > last->request.slots / 2) return;
    if (choose_slots(p) == 0 || !start_thread(s)) return;
    p->wanted = true;
    sem_post(&s->wake);
}

void hemi_pool_done(hemi_pool *p, hemi_lot *lot, bool gone) {
    const uint64_t generation = hemi_keys_generation(p->pools->keys);
    lock(p->pools);
    if (p->calls < HEMI_POOL_CALLS) p->calls++;
    hemi_lot *found = p->lots;
    while (found && found != lot) found = found->next;
    if (found && (gone || found->taken == found->request.slots)) {
        if (!gone && found->request.slots < HEMI_POOL_SLOTS_MOST) p->next_slots = 2 * found->request.slots;
        remove_lot(p, found);
    }
    drop_stale(p, generation);
    want(p);
    unlock(p->pools);
}

/* ---- announcing */

/* HEAD, and PUT where they are not there. */
static hemi_status put_keys(hemi_pools *s, hemi_http *http, char id[65], hemi_error *err) {
    uint8_t *bytes, hash[32];
    size_t length;
    char path[96];
    hemi_http_reply reply;
    enter();
    hemi_status status = hemi_keys_public(s->keys, hemi_params_by_name(HEMI_BATCH_SET), &bytes, &length, err);
    leave();
    HEMI_TRY(status);
    crypto_generichash(hash, sizeof hash, bytes, length, NULL, 0);
    sodium_bin2hex(id, 65, hash, sizeof hash);
    lock(s);
    const bool there = strcmp(s->there, id) == 0;
    unlock(s);
    snprintf(path, sizeof path, "/v2/keys/%s", id);
    hemi_http_request request = {.method = "HEAD", .path = path};
    if (!there) status = hemi_http_send(http, &request, &reply, err);
    if (status == HEMI_OK && !there) {
        const bool missing = reply.status == 404;
        hemi_http_reply_clear(&reply);
        request = (hemi_http_request){.method = "PUT",
                                      .path = path,
                                      .body = bytes,
                                      .body_bytes = length,
                                      .reply_bytes_max = HEMI_HTTP_ERROR_BODY_MAX};
        if (missing) status = hemi_http_send(http, &request, &reply, err);
        if (status == HEMI_OK && missing) {
            if (hemi_http_reply_status(&reply) != HEMI_OK) status = hemi_http_reply_fail(http, &request, &reply, err);
            hemi_http_reply_clear(&reply);
        }
    }
    hemi_bytes_release(bytes);
    if (status != HEMI_OK) return status;
    lock(s);
    memcpy(s->there, id, sizeof s->there);
    unlock(s);
    return HEMI_OK;
}

/* The very same announcement may be sent again: it holds nothing but public numbers. */
static hemi_status announce(hemi_pool *p, hemi_lot *lot, hemi_http *http, hemi_http_reply *reply, hemi_error *err) {
    hemi_pools *s = p->pools;
    uint8_t *body;
    size_t length;
    HEMI_TRY(hemi_lot_header(lot, 0, &body, &length, err));
    const hemi_http_request request = {.method = "POST",
                                       .path = p->path,
                                       .body = body,
                                       .body_bytes = length,
                                       .key_id = lot->key_id,
                                       .reply_bytes_max = hemi_lot_reply_bytes(lot, true, 0)};
    hemi_status status = HEMI_OK;
    for (int i = 0; i < 2; i++) {
        status = put_keys(s, http, lot->key_id, err);
        if (status == HEMI_OK) status = hemi_http_send(http, &request, reply, err);
        if (status != HEMI_OK || hemi_http_reply_status(reply) == HEMI_OK) break;
        const bool again = hemi_http_reply_status(reply) == HEMI_ERR_KEY;
        status = hemi_http_reply_fail(http, &request, reply, err);
        hemi_http_reply_clear(reply);
        if (!again) break;
        lock(s);
        s->there[0] = 0;
        unlock(s);
    }
    hemi_free(body);
    return status;
}

static void add_lot(hemi_pool *p, hemi_lot *lot) {
    hemi_lot **at = &p->lots;
    while (*at) at = &(*at)->next;
    *at = lot;
    p->count++;
}

static hemi_status exchange(hemi_pool *p, hemi_lot *lot, hemi_http *http, hemi_error *err) {
    size_t offset[HEMI_REQUEST_MODULES_MAX];
    hemi_http_reply reply = {0};
    HEMI_TRY(announce(p, lot, http, &reply, err));
    enter();
    hemi_status status = hemi_lot_accept(lot, p->pools->keys, reply.body, reply.bytes, 0, offset, err);
    leave();
    hemi_http_reply_clear(&reply);
    if (status != HEMI_OK)
        status = hemi_fail_in(err, status, "the reply of %.120s to %.120s", hemi_http_url(http), p->path);
    return status;
}

/* One lot, from its seed to its place in the pool. */
static hemi_status fetch(hemi_pool *p, uint32_t slots, hemi_http *http, bool thread, hemi_error *err) {
    hemi_pools *s = p->pools;
    const size_t bytes = slots * hemi_lot_row_bytes((const hemi_module *const *)p->module, p->modules);
    hemi_lot *lot;
    enter();
    hemi_status status = hemi_lot_new(&lot, s->keys, (const hemi_module *const *)p->module, p->modules, slots, err);
    pthread_mutex_lock(&s->lock);
    if (status == HEMI_OK) s->bytes += bytes;
    if (thread) s->making = lot;
    pthread_mutex_unlock(&s->lock);
    leave();
    HEMI_TRY(status);
    status = exchange(p, lot, http, err);
    lock(s);
    if (thread) s->making = NULL;
    if (status == HEMI_OK) {
        add_lot(p, lot);
    } else {
        s->bytes -= bytes;
        hemi_lot_free(lot);
    }
    unlock(s);
    return status;
}

hemi_status hemi_pool_fill(hemi_pool *p, hemi_http *http, uint32_t rows, hemi_error *err) {
    if (rows == 0 || rows > HEMI_BATCH_SLOTS_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "%u rows: a batch has 1 to %d", rows, HEMI_BATCH_SLOTS_MAX);
    const uint64_t generation = hemi_keys_generation(p->pools->keys);
    lock(p->pools);
    drop_stale(p, generation);
    const size_t left = slots_left(p);
    const uint32_t usual = choose_slots(p);
    const bool room = p->count < HEMI_POOL_LOTS_MAX;
    unlock(p->pools);
    if (left >= rows) return HEMI_OK;
    if (!room)
        return hemi_fail(err, HEMI_ERR_LIMIT, "%d batches of this module are prepared already", HEMI_POOL_LOTS_MAX);
    return fetch(p, usual > rows ? usual : rows, http, false, err);
}

/* What a failure means for the next time. */
static void learn(hemi_pool *p, hemi_status status, uint32_t slots) {
    switch (status) {
    case HEMI_OK:
    case HEMI_ERR_STATE: /* a new secret key came in between */
        return;
    case HEMI_ERR_BUSY:
    case HEMI_ERR_NETWORK:
    case HEMI_ERR_MEMORY:
        break;
    case HEMI_ERR_LIMIT: /* too large, or too many at once */
        p->next_slots = slots / 2 > HEMI_POOL_SLOTS_LEAST ? slots / 2 : HEMI_POOL_SLOTS_LEAST;
        break;
    default: /* the server does not prepare, or not this module */
        p->off = true;
    }
    p->not_before_ms = hemi_now_ms() + HEMI_POOL_PAUSE_MS;
}

static void *run(void *context) {
    hemi_pools *s = context;
    for (;;) {
        while (sem_wait(&s->wake) != 0) {
        }
        if (atomic_load(&s->stop)) return NULL;
        lock(s);
        hemi_pool *p = s->pool;
        while (p && !p->wanted) p = p->next;
        const uint32_t slots = p ? choose_slots(p) : 0;
        hemi_error err = {0};
        hemi_status status = HEMI_OK;
        if (p && !s->http) {
            status = hemi_http_new_like(&s->http, s->like, 0, &err);
            if (status == HEMI_OK) hemi_http_stop_on(s->http, &s->stop);
        }
        unlock(s);
        if (!p) continue;
        if (status == HEMI_OK && slots > 0) status = fetch(p, slots, s->http, true, &err);
        lock(s);
        p->wanted = false;
        learn(p, status, slots);
        unlock(s);
    }
}

static bool start_thread(hemi_pools *s) {
    sigset_t all, before;
    if (s->running) return true;
    sigfillset(&all); /* signals are the application's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    s->running = pthread_create(&s->thread, NULL, run, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return s->running;
}
