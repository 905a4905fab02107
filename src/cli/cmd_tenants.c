#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "store/tenant_file.h"

/* Where tenants are: a file of hashes, or a store. */
typedef struct place {
    const char *file, *store;
    char standard[4096];
    hemi_store *open;
} place;

#define PLACE_OPTIONS(p)                                                                                                     \
    {"file", 0, "FILE", CLI_TEXT, &(p).file, 0, 0, "a file of hashes, for `hemi-server --tenants FILE`"},                      \
    {"store", 0, "WHERE", CLI_TEXT, &(p).store, 0, 0, "the server's store: a file, or postgresql://... (default: as the server's)"}

static hemi_status place_open(place *p, hemi_error *err) {
    if (p->file && p->store) return hemi_fail(err, HEMI_ERR_ARGUMENT, "--file and --store: tenants are in one of them");
    if (p->file) return HEMI_OK;
    if (!p->store) {
        HEMI_TRY(hemi_store_default_location(p->standard, sizeof p->standard, err));
        p->store = p->standard;
    }
    if (strcmp(p->store, "memory") == 0) return hemi_fail(err, HEMI_ERR_ARGUMENT, "a store in memory is gone with this command: give a file, or --file");
    return hemi_store_open(&p->open, p->store, err);
}

/* A URL may hold a password. */
static const char *place_name(const place *p) { return p->file ? p->file : strstr(p->store, "://") ? "PostgreSQL" : p->store; }

/* ---- add */

static hemi_status add(place *p, const hemi_store_tenant *t, hemi_error *err) {
    return p->file ? hemi_tenant_file_add(p->file, t, err) : hemi_store_tenant_add(p->open, t, err);
}

static int tenants_add(int argc, char **argv) {
    bool json = false, is_operator = false;
    const char *name = NULL;
    place p = {0};
    const cli_positional positionals[] = {{"NAME", &name, "of the tenant: letters, digits, '.', '_' and '-'"}, {0}};
    const cli_option options[] = {PLACE_OPTIONS(p), {"operator", 0, NULL, CLI_FLAG, &is_operator, 0, 0, "may also read /metrics, the figures of all tenants"}, {0}};
    const cli_command command = {.name = "tenants add",
                                 .summary = "Makes a tenant of a server, and prints its token, once: only a hash of it is kept.",
                                 .detail = "A running server knows of it within seconds. Give the token to the client: HEMI_TOKEN, --token-file, or token= in Python.",
                                 .positionals = positionals,
                                 .options = options,
                                 .example = "  hemi tenants add alice > alice.token",
                                 .json = &json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    hemi_store_tenant t = {.is_operator = is_operator, .created = time(NULL)};
    char token[HEMI_TOKEN_CHARACTERS + 1];
    hemi_status status = hemi_tenant_name_is_valid(name) ? place_open(&p, &err)
                                                         : hemi_fail(&err, HEMI_ERR_ARGUMENT,
                                                                     "'%.80s' is no name of a tenant: 1 to %d letters, digits, '.', '_' and '-', and no '.' first", name,
                                                                     HEMI_TENANT_NAME_BYTES_MAX);
    if (status == HEMI_OK) {
        strcpy(t.name, name);
        hemi_token_new(token, t.token_hash);
        status = add(&p, &t, &err);
    }
    hemi_store_close(p.open);
    if (status != HEMI_OK) return cli_fail("tenants add", json, status, &err);
    if (json) return cli_print_json(json_pack("{s:s,s:s,s:s,s:s}", "tenant", name, "role", is_operator ? "operator" : "tenant", "token", token, "kept_in", place_name(&p)));
    fprintf(stderr, "hemi tenants add: %s is in %s. This is its token; it is not shown again:\n", name, place_name(&p));
    puts(token);
    return 0;
}

/* ---- list */

static hemi_status read_all(place *p, hemi_store_tenant **all, size_t *count, hemi_error *err) {
    return p->file ? hemi_tenant_file_read(p->file, all, count, err) : hemi_store_tenants(p->open, all, count, err);
}

static void write_time(char out[32], int64_t when) {
    const time_t t = (time_t)when;
    struct tm tm;
    strcpy(out, "-");
    if (when != 0 && gmtime_r(&t, &tm)) strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static hemi_status usage(place *p, const char *name, size_t *keys, uint64_t *bytes, hemi_error *err) {
    *keys = 0;
    *bytes = 0;
    return p->open ? hemi_store_keys_usage(p->open, name, keys, bytes, err) : HEMI_OK;
}

static hemi_status show(place *p, const hemi_store_tenant *t, cli_table *table, json_t *list, hemi_error *err) {
    char created[32], revoked[32], size[24];
    size_t keys;
    uint64_t bytes;
    HEMI_TRY(usage(p, t->name, &keys, &bytes, err));
    write_time(created, t->created);
    write_time(revoked, t->revoked);
    json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s?,s:I,s:I}", "tenant", t->name, "role", t->is_operator ? "operator" : "tenant", "created", created, "revoked",
                                          t->revoked ? revoked : NULL, "keys", (json_int_t)keys, "key_bytes", (json_int_t)bytes));
    cli_table_cell(table, "%s", t->name);
    cli_table_cell(table, "%s", t->is_operator ? "operator" : "tenant");
    cli_table_cell(table, "%s", created);
    cli_table_cell(table, "%s", revoked);
    cli_table_cell(table, "%zu", keys);
    cli_table_cell(table, "%s", cli_bytes(size, (size_t)bytes));
    return HEMI_OK;
}

static int tenants_list(int argc, char **argv) {
    static const char *const headings[] = {"tenant", "role", "created", "revoked", "keys", "of"};
    bool json = false;
    place p = {0};
    const cli_option options[] = {PLACE_OPTIONS(p), {0}};
    const cli_command command = {.name = "tenants list",
                                 .summary = "Lists the tenants of a server, and what evaluation keys each has there.",
                                 .options = options,
                                 .example = "  hemi tenants list",
                                 .json = &json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    hemi_store_tenant *all = NULL;
    size_t count = 0;
    cli_table table;
    json_t *list = json_array();
    cli_table_start(&table, 6, headings);
    hemi_status status = place_open(&p, &err);
    if (status == HEMI_OK) status = read_all(&p, &all, &count, &err);
    for (size_t i = 0; i < count && status == HEMI_OK; i++) status = show(&p, &all[i], &table, list, &err);
    free(all);
    hemi_store_close(p.open);
    if (status != HEMI_OK || json || count == 0)
        cli_table_release(&table);
    else
        cli_table_print(&table);
    if (status == HEMI_OK && json) return cli_print_json(json_pack("{s:s,s:o}", "kept_in", place_name(&p), "tenants", list));
    json_decref(list);
    if (status != HEMI_OK) return cli_fail("tenants list", json, status, &err);
    if (count == 0) printf("no tenants in %s; make one with: hemi tenants add NAME\n", place_name(&p));
    return 0;
}

/* ---- revoke */

static int tenants_revoke(int argc, char **argv) {
    bool json = false;
    const char *name = NULL;
    place p = {0};
    const cli_positional positionals[] = {{"NAME", &name, "of the tenant"}, {0}};
    const cli_option options[] = {PLACE_OPTIONS(p), {0}};
    const cli_command command = {.name = "tenants revoke",
                                 .summary = "Makes a tenant's token void, and removes its evaluation keys. What was counted of it stays.",
                                 .detail = "A running server knows of it within seconds. `hemi tenants add` of the same name gives it a new token.",
                                 .positionals = positionals,
                                 .options = options,
                                 .example = "  hemi tenants revoke alice",
                                 .json = &json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    const int64_t now = time(NULL);
    hemi_status status = place_open(&p, &err);
    if (status == HEMI_OK) status = p.file ? hemi_tenant_file_revoke(p.file, name, now, &err) : hemi_store_tenant_revoke(p.open, name, now, &err);
    hemi_store_close(p.open);
    if (status != HEMI_OK) return cli_fail("tenants revoke", json, status, &err);
    if (json) return cli_print_json(json_pack("{s:s,s:s}", "revoked", name, "kept_in", place_name(&p)));
    printf("%s is revoked in %s\n", name, place_name(&p));
    return 0;
}

int cmd_tenants(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } verbs[] = {{"add", tenants_add}, {"list", tenants_list}, {"revoke", tenants_revoke}};
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(argv[1], verbs[i].name) == 0) return verbs[i].run(argc - 1, argv + 1);
    const bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    FILE *stream = help ? stdout : stderr;
    if (argc > 1 && !help) fprintf(stream, "hemi tenants: there is no '%s'\n", argv[1]);
    fprintf(stream, "usage: hemi tenants add NAME [options]       makes a tenant of a server, and its token\n"
                    "       hemi tenants list [options]           lists them\n"
                    "       hemi tenants revoke NAME [options]    makes a token void\n\n"
                    "`hemi tenants add --help` and so on explain them.\n");
    return help ? 0 : CLI_EXIT_USAGE;
}
