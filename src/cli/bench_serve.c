/* hemi bench serve: a server under the load of 1, 2, ... clients, over HTTP; and the same requests evaluated without HTTP. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/load_run.h"
#include "cli/options.h"
#include "cli/report.h"
#include "ring/kernels.h"

#define LEVELS_MAX 7 /* 1, 2, 4, ... clients */
#define ROUNDS_MAX 100
#define MODEL      "bench"
#define MODULE     "fc"

typedef struct level {
    size_t clients;
    cli_worker_figures figures[CLI_CLIENTS_MAX];
    double rate[ROUNDS_MAX], median_rate, server_cpu_ms,
        speedup; /* speedup: over one client, median of the rounds' ratios */
} level;

typedef struct bench {
    long inputs, outputs, clients, seconds, rounds, threads, weight_bits;
    const char *kernel;
    bool json, prepare;

    hemi_module *module;
    hemi_evaluator *evaluator;
    hemi_http_server *server;
    cli_random random;
    float *x, *expected;
    char folder[CLI_FOLDER_MAX], url[64];
    size_t levels;
    level http[LEVELS_MAX], direct[LEVELS_MAX];
} bench;

/* ---- the server */

/* The folder itself, the model's, the module's, the shape's. */
static void path_of(char path[1024], const bench *b, int depth, const char *file) {
    char shape[128];
    hemi_module_info info;
    hemi_module_get_info(b->module, &info);
    cli_shape_name(shape, info.shape, info.shape_rank);
    snprintf(path, 1024, "%s%s%s%s%s%s", b->folder, depth > 0 ? "/" MODEL : "", depth > 1 ? "/" MODULE : "",
             depth > 2 ? "/" : "", depth > 2 ? shape : "", file);
}

static hemi_status start_server(bench *b, hemi_error *err) {
    const hemi_http_options options = {.folder = b->folder, .threads = (int)b->threads, .no_auth = true, .quiet = true};
    char path[1024];
    path_of(path, b, 3, "");
    HEMI_TRY(hemi_folder_create(path, err));
    HEMI_TRY(hemi_module_save(b->module, path, err));
    HEMI_TRY(hemi_http_server_start(&b->server, &options, err));
    snprintf(b->url, sizeof b->url, "http://127.0.0.1:%u", (unsigned)hemi_http_server_port(b->server));
    return HEMI_OK;
}

static void remove_files(const bench *b) {
    static const char *const files[] = {"/server.zip", "/client.zip"};
    char path[1024];
    if (!b->folder[0]) return;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        path_of(path, b, 3, files[i]);
        unlink(path);
    }
    for (int depth = 3; depth >= 0; depth--) {
        path_of(path, b, depth, "");
        rmdir(path);
    }
}

static hemi_status prepare(bench *b, hemi_error *err) {
    const size_t d = (size_t)b->inputs, m = (size_t)b->outputs;
    const hemi_compile_options options = {.weight_bits = (int)b->weight_bits};
    b->x = hemi_alloc(d, sizeof *b->x);
    b->expected = hemi_alloc(m, sizeof *b->expected);
    if (!b->x || !b->expected) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    cli_random_rows(&b->random, b->x, 1, d);
    HEMI_TRY(cli_random_module(&b->module, &b->random, (uint32_t)d, (uint32_t)m, b->x, 1, options, err));
    HEMI_TRY(hemi_module_run_clear(b->module, b->x, 1, b->expected, false, err));
    HEMI_TRY(hemi_evaluator_new(&b->evaluator, b->module, (int)b->threads, err));
    HEMI_TRY(cli_temporary_folder(b->folder, err));
    return start_server(b, err);
}

/* ---- rounds */

static void finish(level *levels, size_t count, size_t rounds) {
    for (size_t i = 0; i < count; i++) {
        double ratio[ROUNDS_MAX], rates[ROUNDS_MAX];
        for (size_t r = 0; r < rounds; r++) ratio[r] = levels[i].rate[r] / levels[0].rate[r];
        memcpy(rates, levels[i].rate, rounds * sizeof *rates);
        levels[i].speedup = cli_median(ratio, rounds);
        levels[i].median_rate = cli_median(rates, rounds);
    }
}

/* Levels take turns, so that what else the machine does falls on all of them. */
static hemi_status run(bench *b, hemi_error *err) {
    const size_t rounds = (size_t)b->rounds;
    HEMI_TRY(cli_choose_kernel(b->kernel, err));
    HEMI_TRY(prepare(b, err));
    const cli_load http = {b->url,       MODEL, MODULE,      b->prepare,        b->module,
                           b->evaluator, b->x,  b->expected, (double)b->seconds};
    cli_load direct = http;
    direct.url = NULL;
    for (size_t n = 1; n <= (size_t)b->clients && b->levels < LEVELS_MAX; n *= 2)
        b->http[b->levels].clients = b->direct[b->levels].clients = n, b->levels++;
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < b->levels; i++) {
            level *l[2] = {&b->http[i], &b->direct[i]};
            hemi_progress_bar(stderr, "rounds", r * b->levels + i, rounds * b->levels);
            HEMI_TRY(cli_load_round(&http, l[0]->clients, l[0]->figures, &l[0]->rate[r], &l[0]->server_cpu_ms, err));
            HEMI_TRY(cli_load_round(&direct, l[1]->clients, l[1]->figures, &l[1]->rate[r], &l[1]->server_cpu_ms, err));
        }
    hemi_progress_bar(stderr, "rounds", rounds * b->levels, rounds * b->levels);
    finish(b->http, b->levels, rounds);
    finish(b->direct, b->levels, rounds);
    return HEMI_OK;
}

static void release(bench *b) {
    hemi_http_server_stop(b->server);
    remove_files(b);
    hemi_evaluator_free(b->evaluator);
    hemi_module_free(b->module);
    hemi_free(b->x);
    hemi_free(b->expected);
    for (size_t i = 0; i < b->levels; i++)
        for (size_t j = 0; j < CLI_CLIENTS_MAX; j++) {
            free(b->http[i].figures[j].latency);
            free(b->direct[i].figures[j].latency);
        }
}

/* ---- the report */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* latency sorted */
static double quantile(const cli_worker_figures *f, double q) {
    return f->calls ? f->latency[(size_t)(q * (double)(f->calls - 1))] : 0;
}

typedef struct summary {
    double calls, client_cpu_ms, p50, p99, fewest,
        most; /* p50, p99: the worst client's; fewest, most: calls of a client */
    size_t wrong;
} summary;

static summary summarise(level *l) {
    summary s = {.fewest = INFINITY};
    for (size_t i = 0; i < l->clients; i++) {
        const cli_worker_figures *f = &l->figures[i];
        qsort(f->latency, f->calls, sizeof *f->latency, by_value);
        s.calls += (double)f->calls;
        s.client_cpu_ms += f->cpu_ms;
        s.p50 = fmax(s.p50, quantile(f, 0.5));
        s.p99 = fmax(s.p99, quantile(f, 0.99));
        s.fewest = fmin(s.fewest, (double)f->calls);
        s.most = fmax(s.most, (double)f->calls);
        s.wrong += f->wrong;
    }
    return s;
}

static json_t *level_json(level *l, bool http) {
    const summary s = summarise(l);
    const double calls = fmax(s.calls, 1);
    json_t *each = json_array();
    for (size_t i = 0; i < l->clients; i++)
        json_array_append_new(each, json_pack("{s:I,s:f,s:f}", "calls", (json_int_t)l->figures[i].calls, "p50_ms",
                                              quantile(&l->figures[i], 0.5), "p99_ms", quantile(&l->figures[i], 0.99)));
    json_t *j = json_pack("{s:I,s:f,s:f,s:f,s:f,s:o}", "clients", (json_int_t)l->clients, "calls_per_second",
                          l->median_rate, "speedup", l->speedup, "p50_ms", s.p50, "p99_ms", s.p99, "each", each);
    if (http) { /* without HTTP the client's thread is the server's */
        json_object_set_new(j, "client_cpu_ms", json_real(s.client_cpu_ms / calls));
        json_object_set_new(j, "server_cpu_ms", json_real(l->server_cpu_ms / calls));
    }
    return j;
}

static size_t wrong_of(bench *b) {
    size_t wrong = 0;
    for (size_t i = 0; i < b->levels; i++) wrong += summarise(&b->http[i]).wrong + summarise(&b->direct[i]).wrong;
    return wrong;
}

static json_t *to_json(bench *b) {
    json_t *http = json_array(), *direct = json_array();
    for (size_t i = 0; i < b->levels; i++) {
        json_array_append_new(http, level_json(&b->http[i], true));
        json_array_append_new(direct, level_json(&b->direct[i], false));
    }
    return json_pack("{s:I,s:I,s:s,s:s,s:I,s:I,s:I,s:I,s:b,s:I,s:o,s:o}", "inputs", (json_int_t)b->inputs, "outputs",
                     (json_int_t)b->outputs, "kernel", hemi_kernels_default()->name, "cpu", hemi_cpu_name(),
                     "processors", (json_int_t)hemi_cpu_count(), "server_threads", (json_int_t)b->threads, "seconds",
                     (json_int_t)b->seconds, "rounds", (json_int_t)b->rounds, "prepare", (int)b->prepare,
                     "outputs_wrong", (json_int_t)wrong_of(b), "http", http, "evaluate", direct);
}

static void print_table(bench *b) {
    static const char *const headings[] = {"clients",       "calls/s",       "times one",
                                           "p50 ms",        "p99 ms",        "calls of a client",
                                           "server CPU ms", "client CPU ms", "calls/s without HTTP",
                                           "times one"};
    cli_table table;
    printf("serve %ld -> %ld, one row a call%s\n", b->inputs, b->outputs,
           b->prepare ? ", prepared where possible" : "");
    cli_line("processor", "%s, kernel %s, %d processors for server and clients", hemi_cpu_name(),
             hemi_kernels_default()->name, hemi_cpu_count());
    cli_table_start(&table, sizeof headings / sizeof *headings, headings);
    for (size_t i = 0; i < b->levels; i++) {
        level *l = &b->http[i];
        const summary s = summarise(l);
        cli_table_cell(&table, "%zu", l->clients);
        cli_table_cell(&table, "%.0f", l->median_rate);
        cli_table_cell(&table, "%.2f", l->speedup);
        cli_table_cell(&table, "%.2f", s.p50);
        cli_table_cell(&table, "%.2f", s.p99);
        cli_table_cell(&table, "%.0f to %.0f", s.fewest, s.most);
        cli_table_cell(&table, "%.3f", l->server_cpu_ms / fmax(s.calls, 1));
        cli_table_cell(&table, "%.3f", s.client_cpu_ms / fmax(s.calls, 1));
        cli_table_cell(&table, "%.0f", b->direct[i].median_rate);
        cli_table_cell(&table, "%.2f", b->direct[i].speedup);
    }
    cli_table_print(&table);
}

static int report(bench *b) {
    int code = 0;
    if (b->json)
        code = cli_print_json(to_json(b));
    else
        print_table(b);
    const cli_errors errors = {.wrong = wrong_of(b)};
    const int wrong = cli_errors_code(&errors, "bench serve");
    return wrong ? wrong : code;
}

int bench_serve(int argc, char **argv) {
    static bench b = {
        .inputs = 768, .outputs = 768, .clients = 8, .seconds = 2, .rounds = 3, .weight_bits = 8, .random = {1}};
    const cli_option options[] = {
        {"inputs", 'd', "D", CLI_INT, &b.inputs, 1, 65536, "features of a row (default 768)"},
        {"outputs", 'm', "M", CLI_INT, &b.outputs, 1, 65536, "outputs of a row (default 768)"},
        {"clients", 'c', "N", CLI_INT, &b.clients, 1, CLI_CLIENTS_MAX, "1, 2, 4, ... up to N at once (default 8)"},
        {"seconds", 's', "N", CLI_INT, &b.seconds, 1, 3600, "of each round (default 2)"},
        {"rounds", 'n', "N", CLI_INT, &b.rounds, 1, ROUNDS_MAX, "of each number of clients, in turn (default 3)"},
        {"threads", 't', "T", CLI_INT, &b.threads, 0, 1024, "workers of the server (default 0: all processors)"},
        {"prepare", 0, NULL, CLI_FLAG, &b.prepare, 0, 0, "with silent preparation (default: without)"},
        {"weight-bits", 0, "B", CLI_INT, &b.weight_bits, 2, 16, "bits of a weight (default 8)"},
        {"kernel", 'k', "NAME", CLI_TEXT, &b.kernel, 0, 0, "portable, avx2 or avx512 (default: the best here)"},
        {0}};
    const cli_command command = {
        .name = "bench serve",
        .summary =
            "Measures a server under load: calls per second and latencies of 1, 2, 4, ... clients at once. Checks "
            "every result.",
        .detail =
            "Server and clients are threads of this process and share its processors, calls go over loopback HTTP. The "
            "processor time of a\n"
            "call is told apart. Beside it: the same number of threads evaluating requests, without HTTP and clients. "
            "p50 and p99: of the\n"
            "client that fares worst. Exits with 20 when a result is wrong.",
        .options = options,
        .example = "  hemi bench serve\n"
                   "  hemi bench serve --clients 2 --rounds 9 --kernel avx2 --json",
        .json = &b.json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    const hemi_status status = run(&b, &err);
    const int code = status == HEMI_OK ? report(&b) : cli_fail("bench serve", b.json, status, &err);
    release(&b);
    return code;
}
