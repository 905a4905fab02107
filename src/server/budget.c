#include "server/budget.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "base/error.h"
#include "server/limits.h"

#define BUCKETS 1024

/* What is known of one tenant and module. */
typedef struct account {
    char tenant[HEMI_TENANT_NAME_BYTES_MAX + 1], subject[HEMI_STORE_SUBJECT_BYTES_MAX + 1];
    uint64_t inputs;
    uint64_t left;     /* reserved, not served */
    uint64_t total;    /* reserved by all, as the store last said */
    uint64_t block;    /* how many are reserved at a time */
    double renewed_ms, used_ms; /* when it last was; when a request last took rows */
    bool wanted, asking, exhausted; /* asking: a thread waits for the store; exhausted: it had less than was asked for */
    struct account *next;
} account;

/* A request that was answered, or is being. */
typedef struct answered {
    uint8_t digest[HEMI_BUDGET_DIGEST_BYTES];
    size_t open; /* requests under way with these bytes */
    bool used, served;
    struct answered *next; /* in its bucket */
} answered;

struct hemi_budget {
    hemi_store *store;
    double fraction;
    uint8_t secret[32];
    pthread_mutex_t lock;
    pthread_cond_t more, asked; /* for the thread that renews; for who waits for what another asks */
    pthread_t renewer;
    bool renewing, quit;
    account *bucket[BUCKETS];
    answered *ring;
    size_t ring_at;
    answered *answer[BUCKETS];
};

/* ---- accounts */

static size_t bucket_of(const char *tenant, const char *subject) {
    size_t h = 5381;
    for (; *tenant; tenant++) h = h * 33 + (unsigned char)*tenant;
    for (; *subject; subject++) h = h * 33 + (unsigned char)*subject;
    return h % BUCKETS;
}

/* So little of what makes a module known that it does not matter whether it was served or only reserved. */
static uint64_t little_of(const account *a) { return a->inputs / HEMI_SERVER_BUDGET_SHARE + 1; }

static void begin_small(account *a) { a->block = little_of(a) < HEMI_SERVER_BUDGET_BLOCK_MAX ? little_of(a) : HEMI_SERVER_BUDGET_BLOCK_MAX; }

/* Found or made; NULL without memory. */
static account *account_of(hemi_budget *b, const char *tenant, const char *subject, uint64_t inputs) {
    account **at = &b->bucket[bucket_of(tenant, subject)];
    for (account *a = *at; a; a = a->next)
        if (strcmp(a->tenant, tenant) == 0 && strcmp(a->subject, subject) == 0) {
            a->inputs = inputs;
            return a;
        }
    account *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    snprintf(a->tenant, sizeof a->tenant, "%s", tenant);
    snprintf(a->subject, sizeof a->subject, "%s", subject);
    a->inputs = inputs;
    begin_small(a);
    a->next = *at;
    *at = a;
    return a;
}

static uint64_t limit_of(const hemi_budget *b, const account *a) {
    const double rows = b->fraction * ((double)a->inputs + 1);
    return b->fraction <= 0 || rows > 1e18 ? UINT64_MAX : (uint64_t)floor(rows);
}

/* What nobody has reserved of a budget, as the store last said. */
static uint64_t unreserved(const hemi_budget *b, const account *a) {
    const uint64_t limit = limit_of(b, a);
    return a->total < limit ? limit - a->total : 0;
}

/* Of a budget that is nearly used up only little is taken at a time: it may be other servers' too. */
static uint64_t block_of(const hemi_budget *b, const account *a) {
    if (limit_of(b, a) == UINT64_MAX) return a->block;
    const uint64_t share = unreserved(b, a) / HEMI_SERVER_BUDGET_SHARE + 1;
    return share < a->block ? share : a->block;
}

/* Asks the store for at least `needed` more, or none: what is too little for one request is for smaller ones, of other servers too. The lock is not held meanwhile. Of several who want the same one asks. */
static hemi_status renew(hemi_budget *b, account *a, uint64_t needed, hemi_error *err) {
    uint64_t granted = 0, total = 0, wanted = block_of(b, a);
    const uint64_t limit = limit_of(b, a), inputs = a->inputs;
    const double now = hemi_now_ms();
    if (needed > wanted) wanted = needed;
    if (a->asking) {
        while (a->asking) pthread_cond_wait(&b->asked, &b->lock);
        return HEMI_OK;
    }
    if (!b->store) {
        const uint64_t most = unreserved(b, a);
        granted = most < needed ? 0 : wanted < most ? wanted : most;
        total = a->total + granted;
    } else {
        a->asking = true;
        pthread_mutex_unlock(&b->lock);
        const hemi_status status = hemi_store_rows_reserve(b->store, a->tenant, a->subject, inputs, wanted, needed, limit, &granted, &total, err);
        pthread_mutex_lock(&b->lock);
        a->asking = false;
        pthread_cond_broadcast(&b->asked);
        if (status != HEMI_OK) return status;
    }
    if (now - a->renewed_ms < 1000 && a->block < HEMI_SERVER_BUDGET_BLOCK_MAX) a->block *= 2; /* used up within a second */
    a->renewed_ms = now;
    a->left += granted;
    a->total = total;
    a->exhausted = granted < wanted;
    a->wanted = false;
    return HEMI_OK;
}

static account *next_wanted(hemi_budget *b) {
    for (size_t i = 0; i < BUCKETS; i++)
        for (account *a = b->bucket[i]; a; a = a->next)
            if (a->wanted && !a->asking) return a;
    return NULL;
}

/* Of accounts that nobody uses all but a little goes back: other servers have it, and who audits sees what was served. */
static void give_back_idle(hemi_budget *b) {
    const double now = hemi_now_ms();
    for (size_t i = 0; i < BUCKETS; i++)
        for (account *a = b->bucket[i]; a && !b->quit; a = a->next) {
            const uint64_t little = little_of(a);
            if (a->asking || a->left <= little || now - a->used_ms < HEMI_SERVER_BUDGET_IDLE_MS) continue;
            const uint64_t back = a->left - little;
            a->left = little;
            a->asking = true;
            pthread_mutex_unlock(&b->lock);
            const hemi_status status = b->store ? hemi_store_rows_return(b->store, a->tenant, a->subject, back, NULL) : HEMI_OK;
            pthread_mutex_lock(&b->lock);
            a->asking = false;
            pthread_cond_broadcast(&b->asked);
            if (status == HEMI_OK) {
                a->total -= back;
                begin_small(a);
            } else {
                a->left += back; /* and again next time */
            }
        }
}

static void *renew_all(void *context) {
    hemi_budget *b = context;
    double looked_ms = hemi_now_ms();
    pthread_mutex_lock(&b->lock);
    while (!b->quit) {
        account *a = next_wanted(b);
        if (a) {
            a->wanted = false;
            (void)renew(b, a, 0, NULL); /* a store that does not answer is noticed by who needs it */
        } else if (hemi_now_ms() - looked_ms >= HEMI_SERVER_BUDGET_IDLE_MS) {
            give_back_idle(b);
            looked_ms = hemi_now_ms();
        } else {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += HEMI_SERVER_BUDGET_IDLE_MS / 1000;
            pthread_cond_timedwait(&b->more, &b->lock, &until);
        }
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* ---- requests with the same bytes */

void hemi_budget_digest(const hemi_budget *b, uint8_t digest[HEMI_BUDGET_DIGEST_BYTES], const char *tenant, const void *context, size_t context_bytes,
                        const void *body, size_t bytes) {
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, b->secret, sizeof b->secret, HEMI_BUDGET_DIGEST_BYTES);
    (void)crypto_generichash_update(&state, (const uint8_t *)tenant, strlen(tenant) + 1);
    (void)crypto_generichash_update(&state, context, context_bytes);
    (void)crypto_generichash_update(&state, body, bytes);
    (void)crypto_generichash_final(&state, digest, HEMI_BUDGET_DIGEST_BYTES);
}

static answered **answer_bucket(hemi_budget *b, const uint8_t *digest) { return &b->answer[(size_t)(digest[0] | digest[1] << 8) % BUCKETS]; }

static answered *find_answer(hemi_budget *b, const uint8_t *digest) {
    answered *a = *answer_bucket(b, digest);
    while (a && memcmp(a->digest, digest, HEMI_BUDGET_DIGEST_BYTES) != 0) a = a->next;
    return a;
}

static void forget_answer(hemi_budget *b, answered *a) {
    answered **at = answer_bucket(b, a->digest);
    while (*at != a) at = &(*at)->next;
    *at = a->next;
    a->used = false;
}

/* In the place of the oldest. One that is under way is not given up: then this one is not remembered. */
static void remember_answer(hemi_budget *b, const uint8_t *digest) {
    answered *a = &b->ring[b->ring_at], **at = answer_bucket(b, digest);
    b->ring_at = (b->ring_at + 1) % HEMI_SERVER_RETRIES_REMEMBERED;
    if (a->used && a->open > 0) return;
    if (a->used) forget_answer(b, a);
    *a = (answered){.open = 1, .used = true, .next = *at};
    memcpy(a->digest, digest, sizeof a->digest);
    *at = a;
}

/* ---- charges */

static hemi_status refuse(const hemi_budget *b, const account *a, uint64_t rows, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_BUDGET,
                     "the budget of %s is used up: %" PRIu64 " rows were served to this tenant of at most %" PRIu64 " (%.3g x (%" PRIu64 " inputs + 1), as from enough rows "
                     "a linear module could be computed), and this request has %" PRIu64 ". The operator of the server can raise it (--budget, `hemi audit`)",
                     a->subject, a->total - a->left, limit_of(b, a), b->fraction, a->inputs, rows);
}

/* Makes sure that each account has enough; the lock may have been released in between. */
static hemi_status provide(hemi_budget *b, account *const *a, size_t count, uint64_t rows, hemi_error *err) {
    for (size_t i = 0; i < count; i++)
        while (a[i]->left < rows) {
            /* Who asks again and again for what he may not have does not make the store work each time. */
            if (a[i]->exhausted && rows - a[i]->left > unreserved(b, a[i]) && hemi_now_ms() - a[i]->renewed_ms < HEMI_SERVER_BUDGET_ASK_MS) return refuse(b, a[i], rows, err);
            const bool was_asking = a[i]->asking;
            HEMI_TRY(renew(b, a[i], rows - a[i]->left, err));
            if (!was_asking && a[i]->left < rows && a[i]->exhausted) return refuse(b, a[i], rows, err);
            i = 0; /* others may have taken of the earlier ones meanwhile */
        }
    return HEMI_OK;
}

static hemi_status take_rows(hemi_budget *b, hemi_charge *charge, hemi_error *err) {
    account *a[HEMI_BUDGET_MODULES_MAX];
    for (size_t i = 0; i < charge->modules; i++) {
        a[i] = account_of(b, charge->tenant, charge->module[i].subject, charge->module[i].inputs);
        if (!a[i]) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to count rows");
    }
    HEMI_TRY(provide(b, a, charge->modules, charge->rows, err));
    for (size_t i = 0; i < charge->modules; i++) {
        a[i]->left -= charge->rows;
        a[i]->used_ms = hemi_now_ms();
        if (a[i]->left < a[i]->block / 2 && !a[i]->exhausted && !a[i]->wanted) {
            a[i]->wanted = true;
            pthread_cond_signal(&b->more);
        }
    }
    return HEMI_OK;
}

static void give_rows(hemi_budget *b, const hemi_charge *charge) {
    for (size_t i = 0; i < charge->modules; i++) {
        account *a = account_of(b, charge->tenant, charge->module[i].subject, charge->module[i].inputs);
        if (a) a->left += charge->rows;
    }
}

/* While the store was asked a request with the same bytes may have come, and been counted. */
static void remember_or_join(hemi_budget *b, hemi_charge *charge) {
    answered *twin = find_answer(b, charge->digest);
    if (!twin) {
        remember_answer(b, charge->digest);
        return;
    }
    twin->open++;
    charge->counted = false;
    give_rows(b, charge);
}

hemi_status hemi_budget_take(hemi_budget *b, hemi_charge *charge, hemi_error *err) {
    pthread_mutex_lock(&b->lock);
    answered *same = find_answer(b, charge->digest);
    hemi_status status = HEMI_OK;
    charge->counted = !same;
    if (same)
        same->open++;
    else if ((status = take_rows(b, charge, err)) == HEMI_OK)
        remember_or_join(b, charge);
    pthread_mutex_unlock(&b->lock);
    return status;
}

/* Rows of requests that nobody had an answer to are there again, once none of those with these bytes is under way. */
void hemi_budget_settle(hemi_budget *b, const hemi_charge *charge, bool served) {
    pthread_mutex_lock(&b->lock);
    answered *a = find_answer(b, charge->digest);
    bool give_back = !a && charge->counted && !served;
    if (a) {
        a->served |= served;
        if (a->open > 0) a->open--;
        if (a->open == 0 && !a->served) {
            give_back = true;
            forget_answer(b, a);
        }
    }
    if (give_back) give_rows(b, charge);
    pthread_mutex_unlock(&b->lock);
}

/* ---- the object */

hemi_status hemi_budget_new(hemi_budget **out, hemi_store *store, double fraction, hemi_error *err) {
    *out = NULL;
    hemi_budget *b = calloc(1, sizeof *b);
    if (b) b->ring = calloc(HEMI_SERVER_RETRIES_REMEMBERED, sizeof *b->ring);
    if (!b || !b->ring) {
        free(b);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to count rows");
    }
    b->store = store;
    b->fraction = fraction;
    randombytes_buf(b->secret, sizeof b->secret);
    pthread_mutex_init(&b->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&b->more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&b->asked, NULL);
    b->renewing = pthread_create(&b->renewer, NULL, renew_all, b) == 0;
    if (!b->renewing) {
        hemi_budget_free(b);
        return hemi_fail(err, HEMI_ERR_MEMORY, "cannot start a thread");
    }
    *out = b;
    return HEMI_OK;
}

void hemi_budget_free(hemi_budget *b) {
    if (!b) return;
    pthread_mutex_lock(&b->lock);
    b->quit = true;
    pthread_cond_broadcast(&b->more);
    pthread_mutex_unlock(&b->lock);
    if (b->renewing) pthread_join(b->renewer, NULL);
    for (size_t i = 0; i < BUCKETS; i++)
        for (account *a = b->bucket[i], *next; a; a = next) {
            hemi_error err = {0};
            next = a->next;
            if (b->store && a->left > 0 && hemi_store_rows_return(b->store, a->tenant, a->subject, a->left, &err) != HEMI_OK)
                fprintf(stderr, "hemi-server: %s: %" PRIu64 " rows of %s that were not served stay counted\n", err.message, a->left, a->subject);
            free(a);
        }
    free(b->ring);
    pthread_cond_destroy(&b->more);
    pthread_cond_destroy(&b->asked);
    pthread_mutex_destroy(&b->lock);
    sodium_memzero(b->secret, sizeof b->secret);
    free(b);
}

double hemi_budget_fraction(const hemi_budget *b) { return b->fraction; }

void hemi_budget_each(hemi_budget *b, void (*call)(void *, const hemi_budget_line *), void *context) {
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < BUCKETS; i++)
        for (const account *a = b->bucket[i]; a; a = a->next) {
            const hemi_budget_line line = {.tenant = a->tenant, .subject = a->subject, .rows = a->total - a->left, .inputs = a->inputs};
            call(context, &line);
        }
    pthread_mutex_unlock(&b->lock);
}
