/* hemi-server: serves compiled modules over HTTP until it is told to stop. Holds no secret-key code. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
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
    const char *memory; /* "fast" or "small" */
    unsigned port, threads, key_expiry_days;
    bool json, help, version;
    char store[4096]; /* the default one */
} arguments;

static const char help[] =
    "usage: hemi-server FOLDER [options]        (also: hemi serve FOLDER [options])\n"
    "\n"
    "Serves compiled modules over HTTP. Clients send encrypted inputs and get encrypted outputs; this program never "
    "sees\n"
    "a secret key, an input or an output. It runs until it gets SIGINT (Ctrl-C) or SIGTERM, then answers the requests\n"
    "under way and ends. SIGHUP: it reads models, tenants and certificate anew; no request is lost.\n"
    "\n"
    "  FOLDER                    the compiled models: FOLDER/<model>/<module>/<po_..._pc>/server.zip; a folder that "
    "is\n"
    "                            itself a model (<module>/<po_..._pc>/server.zip) is served under its own name\n"
    "\n"
    "options:\n"
    "  -p, --port N              port to listen on (default 8000; 0: any free one)\n"
    "      --host ADDRESS        address to listen on (default 127.0.0.1: this machine only; 0.0.0.0: all networks)\n"
    "      --tenants FILE        who may use it: a file of hashes made by `hemi tenants add NAME --file FILE`; besides those in the store\n"
    "                            (`hemi tenants add NAME`). Without any it does not start\n"
    "      --no-auth             everyone who reaches it may use it; only on an address of this machine alone\n"
    "      --tls-cert FILE, --tls-key FILE\n"
    "                            certificate chain and key, PEM: https. Needed where other machines reach it, unless\n"
    "      --no-tls              something in front of it has TLS\n"
    "      --threads N           requests computed at once (default: all processors)\n"
    "      --memory fast|small   weights ready to be multiplied, 6 bytes a coefficient (default), or as small integers, which\n"
    "                            take less than half of that and two to five times the time (docs/performance.md)\n"
    "      --max-keys-bytes N    memory for clients' evaluation keys, with K, M or G (default 1G, or twice what keys for the\n"
    "                            served modules can take); the least recently used\n"
    "                            make room, and their clients upload them again by themselves\n"
    "      --store WHERE         what outlives it, keys of clients and counters: a file (default ~/.local/state/hemi/server.db, or in\n"
    "                            $STATE_DIRECTORY), postgresql://USER@HOST/DATABASE, which several servers can share, or 'memory'\n"
    "      --tenant-keys-bytes N keys of one tenant in the store, with K, M or G (default 4G); further ones are refused (429)\n"
    "      --key-expiry DAYS     keys that were not used for so long are removed (default 30)\n"
    "      --prepared-memory N   memory for what is computed of calls before they come, with K, M or G (default 512M; one\n"
    "                            client has at most half of it); what makes room is computed again when it is needed\n"
    "      --max-rows N          rows in one request (default 4096)\n"
    "      --max-queue N, --max-queue-per-tenant N\n"
    "                            requests that may wait, of all and of one tenant; further ones are told to come back (256, 128 or half)\n"
    "      --max-connections N, --max-per-address N, --max-per-tenant N\n"
    "                            connections of all, of one address, of one tenant (4096, 256, 512 or half)\n"
    "      --max-header-bytes N  request line and header fields (16384)\n"
    "      --max-body-bytes N    of a request, where the served modules would allow more\n"
    "      --max-memory N, --max-request-memory N\n"
    "                            of bodies, replies and what computing takes, of all requests and of one\n"
    "      --header-timeout S    seconds for the header of a request (default 10)\n"
    "      --body-rate N, --body-grace S\n"
    "                            bytes a second that bodies must make, after so many seconds (4096, 5)\n"
    "      --idle-timeout S      seconds between two requests of a connection (default 120)\n"
    "      --drain S             seconds that requests under way have when it stops (default 30)\n"
    "      --budget F            rows of a module / (inputs + 1) that one tenant may have; further ones are refused (default: only\n"
    "                            counted; `hemi audit` shows them)\n"
    "  -q, --quiet               no progress, no line per request on stderr\n"
    "      --json                when ready, print one line of JSON on stdout: port, url, models\n"
    "      --help, --version\n"
    "\n"
    "example:\n"
    "  hemi compile layer.onnx --name seq.0 --calibration x.npy -o models/mlp\n"
    "  hemi-server models --no-auth                          for yourself, on this machine\n"
    "  curl http://127.0.0.1:8000/v2/models\n"
    "  hemi tenants add alice                                for others:\n"
    "  hemi-server models --host 0.0.0.0 --port 443 --tls-cert fullchain.pem --tls-key privkey.pem\n"
    "\n"
    "Health: /v2/health/ready. Figures: /metrics, for operators. docs/operations.md is the whole story.\n"
    "exit status: 0, 64 for a mistake on the command line, else the error's number (include/hemi/status.h)\n";

/* ---- the command line: one table, from which getopt's and the values are taken */

typedef enum kind { TEXT, FLAG, COUNT, SIZE, SECONDS, FRACTION } kind;

/* COUNT and SIZE go to an unsigned or a size_t (`wide`), SECONDS as milliseconds to an unsigned, FRACTION to a double. */
typedef struct option_row {
    const char *name;
    kind kind;
    size_t offset; /* in arguments */
    bool wide;
    unsigned long long min, max;
    char letter; /* 0: none */
} option_row;

#define AT(field)  offsetof(arguments, field)
#define OPT(field) offsetof(arguments, options.field)
#define DAY_S      86400
#define BYTES_MAX  (SIZE_MAX / 2)

static const option_row rows[] = {
    {"port", COUNT, AT(port), false, 0, 65535, 'p'},
    {"host", TEXT, OPT(address), false, 0, 0, 0},
    {"threads", COUNT, AT(threads), false, 1, 1024, 0},
    {"memory", TEXT, AT(memory), false, 0, 0, 0},
    {"max-keys-bytes", SIZE, OPT(max_keys_bytes), true, 1, BYTES_MAX, 0},
    {"prepared-memory", SIZE, OPT(max_prepared_bytes), true, 1, BYTES_MAX, 0},
    {"max-rows", COUNT, OPT(max_request_rows), true, 1, HEMI_REQUEST_UNITS_MAX, 0},
    {"max-queue", COUNT, OPT(max_queue), false, 1, 1000000, 0},
    {"max-connections", COUNT, OPT(max_connections), false, 1, 1000000, 0},
    {"max-per-address", COUNT, OPT(max_connections_per_address), false, 1, 1000000, 0},
    {"header-timeout", SECONDS, OPT(header_timeout_ms), false, 1, DAY_S, 0},
    {"idle-timeout", SECONDS, OPT(idle_timeout_ms), false, 1, DAY_S, 0},
    {"body-grace", SECONDS, OPT(body_grace_ms), false, 1, DAY_S, 0},
    {"body-rate", SIZE, OPT(body_rate_min), false, 1, UINT32_MAX, 0},
    {"drain", SECONDS, OPT(drain_ms), false, 1, DAY_S, 0},
    {"max-queue-per-tenant", COUNT, OPT(max_queue_per_tenant), false, 1, 1000000, 0},
    {"max-per-tenant", COUNT, OPT(max_connections_per_tenant), false, 1, 1000000, 0},
    {"max-header-bytes", SIZE, OPT(max_header_bytes), false, 1024, HEMI_SERVER_HEADER_BYTES_MOST, 0},
    {"max-body-bytes", SIZE, OPT(max_body_bytes), true, 1, BYTES_MAX, 0},
    {"max-request-memory", SIZE, OPT(max_request_memory), true, 1, BYTES_MAX, 0},
    {"max-memory", SIZE, OPT(max_memory), true, 1, BYTES_MAX, 0},
    {"tenants", TEXT, OPT(tenants), false, 0, 0, 0},
    {"no-auth", FLAG, OPT(no_auth), false, 0, 0, 0},
    {"tls-cert", TEXT, OPT(tls_certificate), false, 0, 0, 0},
    {"tls-key", TEXT, OPT(tls_key), false, 0, 0, 0},
    {"no-tls", FLAG, OPT(no_tls), false, 0, 0, 0},
    {"store", TEXT, OPT(store), false, 0, 0, 0},
    {"tenant-keys-bytes", SIZE, OPT(tenant_keys_bytes), true, 1, BYTES_MAX, 0},
    {"key-expiry", COUNT, AT(key_expiry_days), false, 1, 3650, 0},
    {"budget", FRACTION, OPT(budget), false, 0, 0, 0},
    {"quiet", FLAG, OPT(quiet), false, 0, 0, 'q'},
    {"json", FLAG, AT(json), false, 0, 0, 0},
    {"help", FLAG, AT(help), false, 0, 0, 'h'},
    {"version", FLAG, AT(version), false, 0, 0, 0},
};

#define ROWS (sizeof rows / sizeof *rows)
enum { FIRST_LONG = 256 }; /* getopt's value of rows[i]: FIRST_LONG + i */

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

/* A number from 0 to 1000, such as 0.5. */
static bool parse_fraction(double *out, const char *name, const char *text) {
    char *end;
    const double v = strtod(text, &end);
    if (end != text && *end == 0 && v >= 0 && v <= 1000) {
        *out = v;
        return true;
    }
    fprintf(stderr, "hemi-server: --%s takes a number from 0 to 1000, such as 0.5, not '%s'\n", name, text);
    return false;
}

/* One option; false when its value makes no sense, which was said. */
static bool take_option(arguments *a, const option_row *row, const char *value) {
    void *at = (char *)a + row->offset;
    unsigned long long v = 0;
    switch (row->kind) {
    case TEXT:
        *(const char **)at = value;
        return true;
    case FLAG:
        return *(bool *)at = true;
    case FRACTION:
        return parse_fraction(at, row->name, value);
    default:
        break;
    }
    if (!parse_number(&v, row->name, value, row->min, row->max, row->kind == SIZE)) return false;
    if (row->wide)
        *(size_t *)at = (size_t)v;
    else
        *(unsigned *)at = (unsigned)v * (row->kind == SECONDS ? 1000 : 1);
    return true;
}

/* What follows from the options but is not their value. */
static bool set_options(arguments *a) {
    hemi_http_options *o = &a->options;
    o->port = (uint16_t)a->port;
    o->threads = (int)a->threads;
    o->key_expiry_s = a->key_expiry_days * DAY_S;
    o->small_memory = a->memory && strcmp(a->memory, "small") == 0;
    if (a->memory && !o->small_memory && strcmp(a->memory, "fast") != 0) {
        fprintf(stderr, "hemi-server: --memory takes 'fast' or 'small', not '%s'\n", a->memory);
        return false;
    }
    if (o->store) return true;
    hemi_error err = {0};
    o->store = a->store;
    if (hemi_store_default_location(a->store, sizeof a->store, &err) == HEMI_OK) return true;
    fprintf(stderr, "hemi-server: %s\n", err.message);
    return false;
}

static const option_row *find_row(int option) {
    for (size_t i = 0; i < ROWS; i++)
        if (option == FIRST_LONG + (int)i || (rows[i].letter && option == rows[i].letter)) return &rows[i];
    return NULL;
}

/* getopt's tables. */
static void make_tables(struct option longs[ROWS + 1], char shorts[2 * ROWS + 1]) {
    memset(longs, 0, (ROWS + 1) * sizeof *longs);
    for (size_t i = 0; i < ROWS; i++) {
        const int argument = rows[i].kind == FLAG ? no_argument : required_argument;
        longs[i] = (struct option){rows[i].name, argument, NULL, FIRST_LONG + (int)i};
        if (rows[i].letter) *shorts++ = rows[i].letter;
        if (rows[i].letter && argument == required_argument) *shorts++ = ':';
    }
    *shorts = 0;
}

/* -1: go on; otherwise the exit status. */
static int parse_arguments(arguments *a, int argc, char **argv) {
    static char own_name[] = "hemi-server";
    struct option longs[ROWS + 1];
    char shorts[2 * ROWS + 1];
    argv[0] = own_name; /* getopt's messages begin with it */
    a->port = HEMI_SERVER_PORT;
    make_tables(longs, shorts);
    for (int option; (option = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        const option_row *row = find_row(option);
        if (!row || !take_option(a, row, optarg)) {
            fputs("try: hemi-server --help\n", stderr);
            return EXIT_USAGE;
        }
        if (a->help || a->version) {
            fputs(a->help ? help : "hemi-server " HEMI_VERSION "\n", stdout);
            return 0;
        }
    }
    if (!set_options(a)) {
        fputs("try: hemi-server --help\n", stderr);
        return EXIT_USAGE;
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

/* A URL may hold a password. */
static const char *store_name(const arguments *a) {
    const char *store = a->options.store;
    return strstr(store, "://") ? "PostgreSQL" : strcmp(store, "memory") == 0 ? "memory: nothing outlives it" : store;
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
        fprintf(stderr, "hemi-server: ready on %s: %zu model%s, %zu compiled module%s, %d worker%s; keys and counters in %s; Ctrl-C stops it\n",
                url, s->registry->models, s->registry->models == 1 ? "" : "s", s->registry->modules,
                s->registry->modules == 1 ? "" : "s", s->workers, s->workers == 1 ? "" : "s", store_name(a));
}

/* Also when quiet: it was asked for. */
static void reload(hemi_http_server *server) {
    hemi_error err = {0};
    if (hemi_http_server_reload(server, &err) != HEMI_OK)
        fprintf(stderr, "hemi-server: not reloaded, what was served before is served on: %s\n", err.message);
    else
        fprintf(stderr, "hemi-server: reloaded: models, tenants, certificate\n");
}

int main(int argc, char **argv) {
    arguments a = {0};
    hemi_error err = {0};
    hemi_http_server *server = NULL;
    sigset_t stop;
    int caught;
    const int parsed = parse_arguments(&a, argc, argv);
    if (parsed >= 0) return parsed;
    sigemptyset(&stop);
    sigaddset(&stop, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &stop, NULL); /* one that comes before all is ready is heard afterwards */
    allow_connections(&a.options);
    signal(SIGPIPE, SIG_IGN);
    const hemi_status status =
        hemi_http_server_start(&server, &a.options, &err); /* until then Ctrl-C ends the program at once */
    if (status != HEMI_OK) return fail(&a, status, &err);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    announce(&a, server);
    while (sigwait(&stop, &caught) == 0 && caught == SIGHUP) reload(server);
    if (!a.options.quiet)
        fprintf(stderr, "hemi-server: stopping (%s); once more ends it at once\n",
                caught == SIGINT ? "SIGINT" : "SIGTERM");
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    hemi_http_server_stop(server);
    return 0;
}
