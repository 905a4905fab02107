/* A live table of a server, from its /metrics. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "client/http.h"

#define PAGE_BYTES_MAX ((size_t)16 << 20)
#define BOUNDS_MAX     64
#define TENANTS_SHOWN  20
#define MODULES_SHOWN  20

/* One reading of /metrics; line[i] points into text. */
typedef struct page {
    char *text;
    char **line;
    size_t lines;
    double when_ms;
} page;

typedef struct top {
    const char *url, *token_file, *ca_file;
    double interval;
    bool once, json;
    page now, before;
} top;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

/* ---- reading */

static void page_free(page *p) {
    hemi_free(p->text);
    hemi_free(p->line);
    *p = (page){0};
}

static hemi_status page_read(page *p, hemi_http *http, hemi_error *err) {
    const hemi_http_request request = {.method = "GET", .path = "/metrics", .reply_bytes_max = PAGE_BYTES_MAX};
    hemi_http_reply reply;
    *p = (page){.when_ms = hemi_now_ms()};
    HEMI_TRY(hemi_http_send(http, &request, &reply, err));
    hemi_status status = reply.status == 200 && reply.body ? HEMI_OK : hemi_http_reply_fail(http, &request, &reply, err);
    if (status == HEMI_OK) {
        p->text = hemi_strdup((const char *)reply.body);
        p->line = hemi_alloc(reply.bytes + 1, sizeof *p->line);
        if (!p->text || !p->line) status = hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    }
    hemi_http_reply_clear(&reply);
    char *at = status == HEMI_OK ? p->text : NULL;
    for (char *next; at && *at; at = next) {
        next = strchr(at, '\n');
        if (next) *next++ = 0;
        if (*at != '#') p->line[p->lines++] = at;
    }
    return status;
}

/* The value of a line if it is of this metric; labels: where its labels begin, or NULL. */
static bool line_is(const char *line, const char *name, const char **labels, double *value) {
    const size_t n = strlen(name);
    if (strncmp(line, name, n) != 0 || (line[n] != '{' && line[n] != ' ')) return false;
    const char *end = line[n] == '{' ? strrchr(line, '}') : line + n - 1;
    if (!end) return false;
    if (labels) *labels = line[n] == '{' ? line + n : NULL;
    *value = strtod(end + 1, NULL);
    return true;
}

/* The value of a label: label names are not parts of others here. */
static void label_of(char *out, size_t size, const char *labels, const char *name) {
    char wanted[32];
    out[0] = 0;
    snprintf(wanted, sizeof wanted, "%s=\"", name);
    const char *at = labels ? strstr(labels, wanted) : NULL;
    if (!at) return;
    at += strlen(wanted);
    snprintf(out, size, "%.*s", (int)strcspn(at, "\""), at);
}

/* Of all lines of a metric, those that hold `part` in their labels (NULL: all). */
static double sum(const page *p, const char *name, const char *part) {
    double total = 0, value;
    const char *labels;
    for (size_t i = 0; i < p->lines; i++)
        if (line_is(p->line[i], name, &labels, &value) && (!part || (labels && strstr(labels, part)))) total += value;
    return total;
}

static double rate(const top *t, const char *name, const char *part) {
    const double seconds = (t->now.when_ms - t->before.when_ms) * 1e-3;
    return t->before.text && seconds > 0 ? fmax(0, (sum(&t->now, name, part) - sum(&t->before, name, part)) / seconds) : 0;
}

/* The q-quantile of a histogram since the reading before, in ms: the upper bound of its bucket. NaN without requests. */
static double quantile(const top *t, const char *name, const char *part, double q) {
    double bound[BOUNDS_MAX], count[BOUNDS_MAX], value;
    size_t n = 0;
    const char *labels;
    for (size_t i = 0; i < t->now.lines && n < BOUNDS_MAX; i++) {
        char le[32];
        if (!line_is(t->now.line[i], name, &labels, &value) || (part && !strstr(labels, part))) continue;
        label_of(le, sizeof le, labels, "le");
        bound[n] = strcmp(le, "+Inf") == 0 ? INFINITY : strtod(le, NULL);
        count[n++] = value;
    }
    for (size_t i = 0, k = 0; i < t->before.lines && k < n; i++)
        if (line_is(t->before.line[i], name, &labels, &value) && (!part || strstr(labels, part))) count[k++] -= value;
    if (n == 0 || count[n - 1] <= 0) return NAN;
    for (size_t i = 0; i < n; i++)
        if (count[i] >= q * count[n - 1]) return 1e3 * bound[i];
    return NAN;
}

/* ---- showing */

static const char *milliseconds(char out[24], double ms) {
    if (isnan(ms))
        strcpy(out, "-");
    else if (isinf(ms))
        strcpy(out, "> 120 s");
    else if (ms >= 1000)
        snprintf(out, 24, "<= %g s", ms * 1e-3);
    else
        snprintf(out, 24, "<= %g ms", ms);
    return out;
}

static double one(const top *t, const char *name) { return sum(&t->now, name, NULL); }

static void show_head(const top *t) {
    char a[24], b[24], c[24], d[24];
    const char *infer = "route=\"/v2/models/{model}/infer\"";
    printf("%s  up %.0f s\n", t->url, one(t, "hemi_uptime_seconds"));
    cli_line("requests", "%.1f /s   rows %.1f /s   in %s/s   out %s/s", rate(t, "hemi_requests_total", NULL), rate(t, "hemi_tenant_rows_total", NULL),
             cli_bytes(a, (size_t)rate(t, "hemi_request_body_bytes_total", NULL)), cli_bytes(b, (size_t)rate(t, "hemi_reply_body_bytes_total", NULL)));
    cli_line("infer", "p50 %s   p99 %s   compute p50 %s   p99 %s", milliseconds(a, quantile(t, "hemi_request_seconds_bucket", infer, 0.5)),
             milliseconds(b, quantile(t, "hemi_request_seconds_bucket", infer, 0.99)), milliseconds(c, quantile(t, "hemi_compute_seconds_bucket", NULL, 0.5)),
             milliseconds(d, quantile(t, "hemi_compute_seconds_bucket", NULL, 0.99)));
    cli_line("work", "workers %.0f of %.0f busy   waiting %.0f   connections %.0f   refused %.1f /s   errors %.1f /s", one(t, "hemi_workers_busy"), one(t, "hemi_workers"),
             one(t, "hemi_queue_length"), one(t, "hemi_connections"), rate(t, "hemi_requests_total", "status=\"503\"") + rate(t, "hemi_requests_total", "status=\"429\""),
             rate(t, "hemi_requests_total", "status=\"500\""));
    cli_line("memory", "keys %.0f: %s of %s   prepared %s of %s   bodies %.0f bytes", one(t, "hemi_keys"), cli_bytes(a, (size_t)one(t, "hemi_keys_bytes")),
             cli_bytes(b, (size_t)one(t, "hemi_keys_bytes_max")), cli_bytes(c, (size_t)one(t, "hemi_prepared_bytes")), cli_bytes(d, (size_t)one(t, "hemi_prepared_bytes_max")),
             one(t, "hemi_bodies_bytes"));
    printf("\n");
}

/* Every tenant that asked for something. */
static void show_tenants(const top *t) {
    static const char *const headings[] = {"tenant", "requests", "/s", "rows", "rows/s", "connections"};
    cli_table table;
    double value;
    const char *labels;
    size_t shown = 0;
    cli_table_start(&table, 6, headings);
    for (size_t i = 0; i < t->now.lines && shown < TENANTS_SHOWN; i++) {
        char name[80], part[96];
        if (!line_is(t->now.line[i], "hemi_tenant_requests_total", &labels, &value) || value == 0) continue;
        label_of(name, sizeof name, labels, "tenant");
        snprintf(part, sizeof part, "tenant=\"%s\"", name);
        cli_table_cell(&table, "%s", name);
        cli_table_cell(&table, "%.0f", value);
        cli_table_cell(&table, "%.1f", rate(t, "hemi_tenant_requests_total", part));
        cli_table_cell(&table, "%.0f", sum(&t->now, "hemi_tenant_rows_total", part));
        cli_table_cell(&table, "%.1f", rate(t, "hemi_tenant_rows_total", part));
        cli_table_cell(&table, "%.0f", sum(&t->now, "hemi_tenant_connections", part));
        shown++;
    }
    if (shown)
        cli_table_print(&table);
    else
        cli_table_release(&table);
}

static void show_modules(const top *t) {
    static const char *const headings[] = {"tenant", "module", "rows", "rows / (inputs + 1)"};
    cli_table table;
    double value;
    const char *labels;
    size_t shown = 0;
    cli_table_start(&table, 4, headings);
    for (size_t i = 0; i < t->now.lines && shown < MODULES_SHOWN; i++) {
        char tenant[80], module[280], part[400];
        if (!line_is(t->now.line[i], "hemi_budget_fraction", &labels, &value)) continue;
        label_of(tenant, sizeof tenant, labels, "tenant");
        label_of(module, sizeof module, labels, "module");
        snprintf(part, sizeof part, "tenant=\"%s\",module=\"%s\"", tenant, module);
        cli_table_cell(&table, "%s", tenant);
        cli_table_cell(&table, "%s", module);
        cli_table_cell(&table, "%.0f", sum(&t->now, "hemi_budget_rows", part));
        cli_table_cell(&table, "%.4g", value);
        shown++;
    }
    if (shown) printf("\n");
    if (shown)
        cli_table_print(&table);
    else
        cli_table_release(&table);
}

static int show_json(const top *t) {
    const char *infer = "route=\"/v2/models/{model}/infer\"";
    const double p50 = quantile(t, "hemi_request_seconds_bucket", infer, 0.5), p99 = quantile(t, "hemi_request_seconds_bucket", infer, 0.99);
    json_t *j = json_pack("{s:s,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "url", t->url, "uptime_s", one(t, "hemi_uptime_seconds"), "requests", one(t, "hemi_requests_total"),
                          "rows", one(t, "hemi_tenant_rows_total"), "requests_per_s", rate(t, "hemi_requests_total", NULL), "rows_per_s",
                          rate(t, "hemi_tenant_rows_total", NULL), "queue", one(t, "hemi_queue_length"), "workers_busy", one(t, "hemi_workers_busy"), "connections",
                          one(t, "hemi_connections"), "keys_bytes", one(t, "hemi_keys_bytes"));
    if (j && isfinite(p50)) json_object_set_new(j, "infer_p50_ms", json_real(p50));
    if (j && isfinite(p99)) json_object_set_new(j, "infer_p99_ms", json_real(p99));
    const int code = cli_print_json(j);
    fflush(stdout);
    return code;
}

static void show(const top *t) {
    if (t->json) {
        (void)show_json(t);
        return;
    }
    if (!t->once && isatty(STDOUT_FILENO)) printf("\033[H\033[J"); /* in the same place */
    show_head(t);
    show_tenants(t);
    show_modules(t);
    if (!t->once) printf("\n");
    fflush(stdout);
}

/* ---- */

static void pause_s(double seconds) {
    struct timespec t = {.tv_sec = (time_t)seconds};
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    (void)nanosleep(&t, NULL); /* an interrupt ends it */
}

static hemi_status run(top *t, hemi_error *err) {
    hemi_http *http = NULL;
    char *token = NULL;
    HEMI_TRY(cli_read_token(&token, t->token_file, err));
    const hemi_http_settings settings = {.token = token, .ca_file = t->ca_file, .timeout_ms = 20000};
    hemi_status status = hemi_http_new(&http, t->url, &settings, err);
    hemi_free(token); /* wiped */
    if (status == HEMI_OK) status = page_read(&t->before, http, err);
    while (status == HEMI_OK && !interrupted) {
        pause_s(t->interval);
        if (interrupted) break;
        status = page_read(&t->now, http, err);
        if (status == HEMI_OK) show(t);
        page_free(&t->before);
        t->before = t->now;
        t->now = (page){0};
        if (t->once) break;
    }
    page_free(&t->before);
    page_free(&t->now);
    hemi_http_free(http);
    return status;
}

int cmd_top(int argc, char **argv) {
    top t = {.interval = 2};
    const cli_positional positionals[] = {{"URL", &t.url, "of the server: http://127.0.0.1:8000"}, {0}};
    const cli_option options[] = {{"interval", 'i', "S", CLI_REAL, &t.interval, 0, 3600, "seconds between two tables (default 2)"},
                                  {"once", '1', NULL, CLI_FLAG, &t.once, 0, 0, "one table, after one interval"},
                                  CLI_TOKEN_OPTIONS(t.token_file, t.ca_file),
                                  {0}};
    const cli_command command = {.name = "top",
                                 .summary = "A live table of a server: requests, rows, latency, queue, memory, and who is how near to knowing which module.",
                                 .detail = "Reads /metrics; of a server with tenants that takes an operator's token (`hemi tenants add NAME --operator`). Ctrl-C ends it.",
                                 .positionals = positionals,
                                 .options = options,
                                 .example = "  hemi top http://127.0.0.1:8000",
                                 .json = &t.json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    const struct sigaction action = {.sa_handler = on_interrupt};
    (void)sigaction(SIGINT, &action, NULL);
    hemi_error err = {0};
    const hemi_status status = run(&t, &err);
    return status == HEMI_OK ? 0 : cli_fail("top", t.json, status, &err);
}
