/* hemi-server: serves compiled modules over HTTP until it is told to stop. Holds no secret-key code. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/error.h"
#include "hemi/status.h"
#include "server/http.h"
#include "wire/wire.h"

#define EXIT_USAGE  64
#define FILES_SPARE 64 /* open files besides connections */

typedef struct arguments {
    hemi_http_options options;
    bool json;
} arguments;

static const char help[] =
    "usage: hemi-server FOLDER [options]        (also: hemi serve FOLDER [options])\n"
    "\n"
    "Serves compiled modules over HTTP. Clients send encrypted inputs and get encrypted outputs; this program never "
    "sees\n"
    "a secret key, an input or an output. It runs until it gets SIGINT (Ctrl-C) or SIGTERM, then answers the requests\n"
    "under way and ends.\n"
    "\n"
    "  FOLDER                    the compiled models: FOLDER/<model>/<module>/<po_..._pc>/server.zip; a folder that "
    "is\n"
    "                            itself a model (<module>/<po_..._pc>/server.zip) is served under its own name\n"
    "\n"
    "options:\n"
    "  -p, --port N              port to listen on (default 8000; 0: any free one)\n"
    "      --host ADDRESS        address to listen on (default 127.0.0.1: this machine only; 0.0.0.0: all networks)\n"
    "      --threads N           requests computed at once (default: all processors)\n"
    "      --memory fast|small   weights ready to be multiplied, 6 bytes a coefficient (default), or as small integers, which\n"
    "                            take less than half of that and two to five times the time (docs/performance.md)\n"
    "      --max-keys-bytes N    memory for clients' evaluation keys, with K, M or G (default 1G, or twice what keys for the\n"
    "                            served modules can take); the least recently used\n"
    "                            make room, and their clients upload them again by themselves\n"
    "      --prepared-memory N   memory for what is computed of calls before they come, with K, M or G (default 512M; one\n"
    "                            client has at most half of it); what makes room is computed again when it is needed\n"
    "      --max-rows N          rows in one request (default 4096)\n"
    "      --max-queue N         requests that may wait; further ones are told to come back (default 256)\n"
    "      --max-connections N   (default 1000)    --max-per-address N   connections of one address (default 256)\n"
    "      --header-timeout S    seconds for the header of a request (default 10)\n"
    "      --idle-timeout S      seconds between two requests of a connection (default 120)\n"
    "  -q, --quiet               no progress, no line per request on stderr\n"
    "      --json                when ready, print one line of JSON on stdout: port, url, models\n"
    "      --help, --version\n"
    "\n"
    "example:\n"
    "  hemi compile layer.onnx --name seq.0 --calibration x.npy -o models/mlp\n"
    "  hemi-server models --port 8000\n"
    "  curl http://127.0.0.1:8000/v2/models\n"
    "\n"
    "Health: /v2/health/ready. Figures: /metrics. There is no TLS and no authentication yet: beyond this machine, put "
    "a\n"
    "reverse proxy in front (docs/operations.md).\n"
    "exit status: 0, 64 for a mistake on the command line, else the error's number (include/hemi/status.h)\n";

/* ---- the command line */

enum {
    KEYS_BYTES = 256,
    MEMORY,
    PREPARED_BYTES,
    ROWS,
    THREADS,
    QUEUE,
    CONNECTIONS,
    PER_ADDRESS,
    HEADER_TIMEOUT,
    IDLE_TIMEOUT,
    HOST,
    JSON,
    HELP,
    VERSION
};

static const struct option longs[] = {{"port", required_argument, NULL, 'p'},
                                      {"host", required_argument, NULL, HOST},
                                      {"threads", required_argument, NULL, THREADS},
                                      {"memory", required_argument, NULL, MEMORY},
                                      {"max-keys-bytes", required_argument, NULL, KEYS_BYTES},
                                      {"prepared-memory", required_argument, NULL, PREPARED_BYTES},
                                      {"max-rows", required_argument, NULL, ROWS},
                                      {"max-queue", required_argument, NULL, QUEUE},
                                      {"max-connections", required_argument, NULL, CONNECTIONS},
                                      {"max-per-address", required_argument, NULL, PER_ADDRESS},
                                      {"header-timeout", required_argument, NULL, HEADER_TIMEOUT},
                                      {"idle-timeout", required_argument, NULL, IDLE_TIMEOUT},
                                      {"quiet", no_argument, NULL, 'q'},
                                      {"json", no_argument, NULL, JSON},
                                      {"help", no_argument, NULL, HELP},
                                      {"version", no_argument, NULL, VERSION},
                                      {NULL, 0, NULL, 0}};

static int usage_error(const char *format, const char *text) {
    fputs("hemi-server: ", stderr);
    fprintf(stderr, format, text);
    fputs("\ntry: hemi-server --help\n", stderr);
    return EXIT_USAGE;
}

/* A whole number from min to max, where `units` with K, M or G behind it. */
static bool parse_number(unsigned long long *out, const char *name, const char *text, unsigned long long min,
                         unsigned long long max, bool units) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    bool ok = errno == 0 && end != text && text[0] >= '0' && text[0] <= '9';
    if (ok && units && *end) {
        const char *all = "KMG", *unit = strchr(all, *end);
        const unsigned shift = unit ? 10u * (unsigned)(unit - all + 1) : 0;
        ok = unit && end[1] == 0 && v <= ULLONG_MAX >> shift;
        v <<= shift;
    } else {
        ok = ok && *end == 0;
    }
    if (ok && v >= min && v <= max) {
        *out = v;
        return true;
    }
    fprintf(stderr, "hemi-server: --%s takes a whole number from %llu to %llu%s, not '%s'\n", name, min, max,
            units ? " (1500000, 64M, 2G)" : "", text);
    return false;
}

/* One option; false when its value makes no sense, which was said. */
static bool take_option(arguments *a, int option, const char *name, const char *value) {
    unsigned long long v = 0;
    hemi_http_options *o = &a->options;
    const unsigned long long most_ms = 86400;
    switch (option) {
    case HOST:
        o->address = value;
        return true;
    case 'q':
        return o->quiet = true;
    case JSON:
        return a->json = true;
    case 'p':
        return parse_number(&v, name, value, 0, 65535, false) && (o->port = (uint16_t)v, true);
    case THREADS:
        return parse_number(&v, name, value, 1, 1024, false) && (o->threads = (int)v, true);
    case MEMORY:
        o->small_memory = strcmp(value, "small") == 0;
        if (o->small_memory || strcmp(value, "fast") == 0) return true;
        fprintf(stderr, "hemi-server: --memory takes 'fast' or 'small', not '%s'\n", value);
        return false;
    case KEYS_BYTES:
        return parse_number(&v, name, value, 1, SIZE_MAX / 2, true) && (o->max_keys_bytes = (size_t)v, true);
    case PREPARED_BYTES:
        return parse_number(&v, name, value, 1, SIZE_MAX / 2, true) && (o->max_prepared_bytes = (size_t)v, true);
    case ROWS:
        return parse_number(&v, name, value, 1, HEMI_REQUEST_UNITS_MAX, false) &&
               (o->max_request_rows = (size_t)v, true);
    case QUEUE:
        return parse_number(&v, name, value, 1, 1000000, false) && (o->max_queue = (unsigned)v, true);
    case CONNECTIONS:
        return parse_number(&v, name, value, 1, 1000000, false) && (o->max_connections = (unsigned)v, true);
    case PER_ADDRESS:
        return parse_number(&v, name, value, 1, 1000000, false) && (o->max_connections_per_address = (unsigned)v, true);
    case HEADER_TIMEOUT:
        return parse_number(&v, name, value, 1, most_ms, false) && (o->header_timeout_ms = (unsigned)v * 1000, true);
    case IDLE_TIMEOUT:
        return parse_number(&v, name, value, 1, most_ms, false) && (o->idle_timeout_ms = (unsigned)v * 1000, true);
    default:
        return false;
    }
}

/* -1: go on; otherwise the exit status. */
static int parse_arguments(arguments *a, int argc, char **argv) {
    static char own_name[] = "hemi-server";
    int index = 0;
    argv[0] = own_name; /* getopt's messages begin with it */
    a->options.port = HEMI_SERVER_PORT;
    for (int option; index = -1, (option = getopt_long(argc, argv, "p:qh", longs, &index)) != -1;) {
        if (option == HELP || option == 'h') {
            fputs(help, stdout);
            return 0;
        }
        if (option == VERSION) {
            puts("hemi-server " HEMI_VERSION);
            return 0;
        }
        if (!take_option(a, option, index >= 0 ? longs[index].name : "port", optarg)) {
            fputs("try: hemi-server --help\n", stderr);
            return EXIT_USAGE;
        }
    }
    if (optind >= argc) return usage_error("%s is missing: the folder with the compiled models", "FOLDER");
    if (optind + 1 < argc) return usage_error("'%s' is one argument too many", argv[optind + 1]);
    a->options.folder = argv[optind];
    return -1;
}

/* ---- running */

/* A connection is an open file: the soft limit is raised as far as one may. */
static void allow_connections(const hemi_http_options *o) {
    struct rlimit limit;
    const rlim_t wanted = (o->max_connections ? o->max_connections : HEMI_SERVER_CONNECTIONS_MAX) + FILES_SPARE;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int fail(const arguments *a, hemi_status status, const hemi_error *err) {
    fprintf(stderr, "hemi-server: %s\n", err->message);
    if (a->json) {
        json_t *root = json_pack("{s:{s:s, s:s}}", "error", "code", hemi_status_name(status), "message", err->message);
        if (root && json_dumpf(root, stdout, JSON_COMPACT) == 0) putchar('\n');
        json_decref(root);
    }
    return -(int)status;
}

static void announce(const arguments *a, const hemi_http_server *server) {
    const hemi_service *s = hemi_http_server_service(server);
    const char *url = hemi_http_server_url(server);
    if (a->json) {
        json_t *models = json_loads(s->registry->json, 0, NULL);
        json_t *root = json_pack("{s:i, s:s, s:s, s:O?}", "port", hemi_http_server_port(server), "url", url, "version",
                                 HEMI_VERSION, "models", json_object_get(models, "models"));
        if (root && json_dumpf(root, stdout, JSON_COMPACT) == 0) putchar('\n');
        json_decref(root);
        json_decref(models);
        fflush(stdout);
    }
    if (!a->options.quiet)
        fprintf(stderr, "hemi-server: ready on %s: %zu model%s, %zu compiled module%s, %d worker%s; Ctrl-C stops it\n",
                url, s->registry->models, s->registry->models == 1 ? "" : "s", s->registry->modules,
                s->registry->modules == 1 ? "" : "s", s->workers, s->workers == 1 ? "" : "s");
}

int main(int argc, char **argv) {
    arguments a = {0};
    hemi_error err = {0};
    hemi_http_server *server = NULL;
    sigset_t stop;
    int caught;
    const int parsed = parse_arguments(&a, argc, argv);
    if (parsed >= 0) return parsed;
    allow_connections(&a.options);
    signal(SIGPIPE, SIG_IGN);
    const hemi_status status =
        hemi_http_server_start(&server, &a.options, &err); /* until then Ctrl-C ends the program at once */
    if (status != HEMI_OK) return fail(&a, status, &err);
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    announce(&a, server);
    sigwait(&stop, &caught);
    if (!a.options.quiet)
        fprintf(stderr, "hemi-server: stopping (%s); once more ends it at once\n",
                caught == SIGINT ? "SIGINT" : "SIGTERM");
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    hemi_http_server_stop(server);
    return 0;
}
