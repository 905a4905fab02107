#include "server/metrics.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "hemi/status.h"

static const unsigned statuses[HEMI_METRICS_STATUS_COUNT] = HEMI_METRICS_STATUSES;
static const double bounds[HEMI_METRICS_BOUND_COUNT] = HEMI_METRICS_BOUNDS;
static const char *const cuts[HEMI_CUTS] = {"idle", "headers", "body", "reply", "gone", "address"};

static void add(atomic_ullong *counter, unsigned long long n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}
static unsigned long long get(const atomic_ullong *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static size_t status_slot(unsigned status) {
    for (size_t i = 0; i < HEMI_METRICS_STATUS_COUNT; i++)
        if (statuses[i] == status) return i;
    return 0;
}

static void observe(hemi_histogram *h, double ms) {
    size_t i = 0;
    while (i < HEMI_METRICS_BOUND_COUNT && ms * 1e-3 > bounds[i]) i++;
    add(&h->bucket[i], 1);
    add(&h->us, (unsigned long long)(ms * 1e3));
}

void hemi_metrics_request(hemi_metrics *metrics, hemi_route_id route, unsigned status, size_t bytes_in,
                          size_t bytes_out, double ms) {
    add(&metrics->requests[route][status_slot(status)], 1);
    add(&metrics->bytes_in, bytes_in);
    add(&metrics->bytes_out, bytes_out);
    observe(&metrics->latency[route], ms);
}

void hemi_metrics_compute(hemi_metrics *metrics, double ms) { observe(&metrics->compute, ms); }

static void head(FILE *f, const char *name, const char *type, const char *help) {
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(FILE *f, const char *name, const char *type, const char *help, double value) {
    head(f, name, type, help);
    fprintf(f, "%s %.15g\n", name, value);
}

static void write_requests(FILE *f, const hemi_metrics *m) {
    head(f, "hemi_requests_total", "counter",
         "Requests by route and HTTP status; status 0: the connection ended before the answer.");
    for (int r = 0; r < HEMI_ROUTES; r++)
        for (size_t s = 0; s < HEMI_METRICS_STATUS_COUNT; s++) {
            const unsigned long long n = get(&m->requests[r][s]);
            if (n > 0)
                fprintf(f, "hemi_requests_total{route=\"%s\",status=\"%u\"} %llu\n",
                        hemi_route_pattern((hemi_route_id)r), statuses[s], n);
        }
    one(f, "hemi_request_body_bytes_total", "counter", "Bytes of request bodies received.", (double)get(&m->bytes_in));
    one(f, "hemi_reply_body_bytes_total", "counter", "Bytes of reply bodies.", (double)get(&m->bytes_out));
    one(f, "hemi_requests_refused_busy_total", "counter", "Requests answered 503 because too many were waiting.",
        (double)get(&m->refused_busy));
    one(f, "hemi_requests_cancelled_total", "counter", "Requests whose client left while they were computed.", (double)get(&m->cancelled));
    head(f, "hemi_connections_cut_total", "counter",
         "Connections ended by the server: too slow in that phase, gone in the middle of a request, or (address) one too many of its address.");
    for (int i = 0; i < HEMI_CUTS; i++)
        fprintf(f, "hemi_connections_cut_total{phase=\"%s\"} %llu\n", cuts[i], get(&m->cut[i]));
}

/* labels: "" or `route="..."`. */
static void write_histogram(FILE *f, const char *name, const char *labels, const hemi_histogram *h) {
    unsigned long long sum = 0;
    const char *comma = labels[0] ? "," : "";
    for (size_t i = 0; i < HEMI_METRICS_BOUND_COUNT; i++) {
        sum += get(&h->bucket[i]);
        fprintf(f, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, labels, comma, bounds[i], sum);
    }
    sum += get(&h->bucket[HEMI_METRICS_BOUND_COUNT]);
    fprintf(f, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, comma, sum);
    const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
    fprintf(f, "%s_sum%s%s%s %.6f\n%s_count%s%s%s %llu\n", name, open, labels, close, (double)get(&h->us) * 1e-6, name, open, labels, close, sum);
}

static void write_times(FILE *f, const hemi_metrics *m) {
    char label[96];
    head(f, "hemi_compute_seconds", "histogram", "Time to compute one encrypted reply.");
    write_histogram(f, "hemi_compute_seconds", "", &m->compute);
    head(f, "hemi_request_seconds", "histogram", "Time from the request line to the end of the answer, by route.");
    for (int r = 0; r < HEMI_ROUTES; r++) {
        snprintf(label, sizeof label, "route=\"%s\"", hemi_route_pattern((hemi_route_id)r));
        write_histogram(f, "hemi_request_seconds", label, &m->latency[r]);
    }
}

/* ---- tenants: names are [A-Za-z0-9._-] */

typedef struct tenant_page {
    FILE *f;
    int which;
} tenant_page;

static void write_tenant(void *context, const hemi_tenant *t) {
    const tenant_page *p = context;
    const struct {
        const char *name;
        unsigned long long value;
    } of[] = {{"hemi_tenant_requests_total", get(&t->requests)},
              {"hemi_tenant_rows_total", get(&t->rows)},
              {"hemi_tenant_request_bytes_total", get(&t->bytes_in)},
              {"hemi_tenant_reply_bytes_total", get(&t->bytes_out)},
              {"hemi_tenant_connections", (unsigned long long)atomic_load(&t->connections)}};
    fprintf(p->f, "%s{tenant=\"%s\"} %llu\n", of[p->which].name, t->name, of[p->which].value);
}

static void write_tenants(FILE *f, const hemi_gauges *g) {
    static const char *const titles[][3] = {{"hemi_tenant_requests_total", "counter", "Requests, by tenant; .anyone: without a token."},
                                            {"hemi_tenant_rows_total", "counter", "Rows computed on, by tenant."},
                                            {"hemi_tenant_request_bytes_total", "counter", "Bytes of request bodies, by tenant."},
                                            {"hemi_tenant_reply_bytes_total", "counter", "Bytes of reply bodies, by tenant."},
                                            {"hemi_tenant_connections", "gauge", "Open connections, by tenant."}};
    for (int i = 0; i < (int)(sizeof titles / sizeof *titles); i++) {
        tenant_page page = {.f = f, .which = i};
        head(f, titles[i][0], titles[i][1], titles[i][2]);
        write_tenant(&page, g->anyone);
        if (g->identity) hemi_identity_each(g->identity, write_tenant, &page);
    }
}

static void write_budget_rows(void *context, const hemi_budget_line *l) {
    fprintf(context, "hemi_budget_rows{tenant=\"%s\",module=\"%s\",inputs=\"%llu\"} %llu\n", l->tenant, l->subject, (unsigned long long)l->inputs,
            (unsigned long long)l->rows);
}

static void write_budget_fraction(void *context, const hemi_budget_line *l) {
    fprintf(context, "hemi_budget_fraction{tenant=\"%s\",module=\"%s\"} %.9g\n", l->tenant, l->subject, (double)l->rows / ((double)l->inputs + 1));
}

static void write_budget(FILE *f, hemi_budget *budget) {
    head(f, "hemi_budget_rows", "gauge", "Rows served of a module to a tenant, by all servers of the store, those reserved by others included.");
    hemi_budget_each(budget, write_budget_rows, f);
    head(f, "hemi_budget_fraction", "gauge", "The same divided by inputs + 1: a linear module is known from 1 on, if its client chose the rows for it.");
    hemi_budget_each(budget, write_budget_fraction, f);
    one(f, "hemi_budget_limit", "gauge", "What that may come to (--budget); 0: it is counted and not refused.", hemi_budget_fraction(budget));
}

/* Per compiled module. Names are [A-Za-z0-9._-], so labels need no escaping. */
static void write_modules(FILE *f, const hemi_registry *registry) {
    const char *const titles[2] = {"hemi_module_requests_total", "hemi_module_rows_total"};
    head(f, titles[0], "counter", "Encrypted inputs computed on, by module.");
    for (int which = 0; which < 2; which++) {
        if (which)
            head(f, titles[1], "counter", "Rows computed on, by module. A linear map is known after inputs + 1 rows.");
        for (size_t i = 0; i < registry->models; i++)
            for (size_t j = 0; j < registry->model[i].modules; j++)
                for (size_t k = 0; k < registry->model[i].module[j].shapes; k++) {
                    const hemi_served_module *module = &registry->model[i].module[j];
                    const hemi_served_shape *shape = &module->shape[k];
                    fprintf(f, "%s{model=\"%s\",module=\"%s\",shape=\"%s\",inputs=\"%u\"} %llu\n", titles[which],
                            registry->model[i].name, module->name, shape->name, shape->info.inputs,
                            get(which ? &shape->rows : &shape->requests));
                }
    }
}

static void write_prepared(FILE *f, const hemi_prepared_figures *p) {
    one(f, "hemi_prepared_batches", "gauge", "Batches of rows prepared ahead and kept.", (double)p->batches);
    one(f, "hemi_prepared_bytes", "gauge", "Memory they take.", (double)p->bytes);
    one(f, "hemi_prepared_bytes_max", "gauge", "Memory they may take.", (double)p->bytes_max);
    one(f, "hemi_prepared_announced", "gauge", "Announcements that wait or are being worked on.", (double)p->announced);
    one(f, "hemi_prepared_hits_total", "counter", "Requests for rows that found what was prepared.", (double)p->hits);
    one(f, "hemi_prepared_misses_total", "counter", "Requests for rows for which it had to be computed again.",
        (double)p->misses);
    one(f, "hemi_prepared_evicted_total", "counter", "Prepared batches that had to make room for others.",
        (double)p->evicted);
    one(f, "hemi_prepared_expired_total", "counter", "Prepared batches that were not used for too long.",
        (double)p->expired);
}

static void write_gauges(FILE *f, const hemi_gauges *g) {
    one(f, "hemi_keys", "gauge", "Evaluation keys held.", (double)g->keys.keys);
    one(f, "hemi_keys_bytes", "gauge", "Memory of the evaluation keys held.", (double)g->keys.bytes);
    one(f, "hemi_keys_bytes_max", "gauge", "Memory that evaluation keys may take.", (double)g->keys_bytes_max);
    one(f, "hemi_keys_evicted_total", "counter", "Evaluation keys that had to make room for others.",
        (double)g->keys.evicted);
    one(f, "hemi_uploads", "gauge", "Key uploads that are not complete.", (double)g->uploads);
    one(f, "hemi_uploads_bytes", "gauge", "Memory reserved for them.", (double)g->uploads_bytes);
    one(f, "hemi_queue_length", "gauge", "Requests that wait for a worker.", (double)g->queue_length);
    one(f, "hemi_workers", "gauge", "Worker threads.", (double)g->workers);
    one(f, "hemi_workers_busy", "gauge", "Worker threads at work.", (double)g->workers_busy);
    one(f, "hemi_connections", "gauge", "Open connections.", (double)g->connections);
    one(f, "hemi_bodies_bytes", "gauge", "Memory of request and reply bodies.", (double)g->bodies_bytes);
    one(f, "hemi_bodies_bytes_max", "gauge", "Memory that they may take.", (double)g->bodies_bytes_max);
    one(f, "hemi_store_errors_total", "counter", "What the store did not do; the server's log says why.", (double)g->store_errors);
    one(f, "hemi_uptime_seconds", "gauge", "Time since the server started.", g->uptime_s);
}

char *hemi_metrics_text(const hemi_metrics *metrics, const hemi_gauges *gauges, const hemi_registry *registry,
                        size_t *length) {
    char *text = NULL;
    FILE *f = open_memstream(&text, length);
    if (!f) return NULL;
    head(f, "hemi_build_info", "gauge", "The version of this server.");
    fprintf(f, "hemi_build_info{version=\"%s\"} 1\n", HEMI_VERSION);
    write_requests(f, metrics);
    write_modules(f, registry);
    write_times(f, metrics);
    write_tenants(f, gauges);
    write_budget(f, gauges->budget);
    write_gauges(f, gauges);
    write_prepared(f, &gauges->prepared);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
