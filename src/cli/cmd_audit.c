#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "store/store.h"

#define BAR_WIDTH 20

typedef struct audit {
    const char *store, *tenant, *reset;
    double budget; /* 0: none */
    bool json;
    char standard[4096];
    hemi_store_count *counts;
    size_t count;
} audit;

static double fraction(const hemi_store_count *c) { return (double)c->rows / ((double)c->inputs + 1); }

/* The nearest first. */
static int compare(const void *a, const void *b) {
    const double x = fraction(a), y = fraction(b);
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Full at the budget, or where there is none at 1. */
static void bar(char out[BAR_WIDTH + 1], double part) {
    const int full = part >= 1 ? BAR_WIDTH : (int)(part * BAR_WIDTH + 0.5);
    for (int i = 0; i < BAR_WIDTH; i++) out[i] = i < full ? '#' : '.';
    out[BAR_WIDTH] = 0;
}

static int show(const audit *a) {
    static const char *const headings[] = {"tenant", "module", "rows", "inputs", "rows / (inputs + 1)", "", "state"};
    cli_table table;
    json_t *list = json_array();
    cli_table_start(&table, 7, headings);
    for (size_t i = 0; i < a->count; i++) {
        const hemi_store_count *c = &a->counts[i];
        const double f = fraction(c), full = a->budget > 0 ? a->budget : 1;
        char text[BAR_WIDTH + 1];
        const char *state = a->budget > 0 && f >= a->budget ? "used up" : f >= 1 ? "enough to know a linear module" : "";
        bar(text, f / full);
        json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:I,s:f}", "tenant", c->tenant, "module", c->subject, "rows", (json_int_t)c->rows, "inputs", (json_int_t)c->inputs,
                                              "fraction", f));
        cli_table_cell(&table, "%s", c->tenant);
        cli_table_cell(&table, "%s", c->subject);
        cli_table_cell(&table, "%" PRIu64, c->rows);
        cli_table_cell(&table, "%" PRIu64, c->inputs);
        cli_table_cell(&table, "%.4g", f);
        cli_table_cell(&table, "%s", text);
        cli_table_cell(&table, "%s", state);
    }
    if (a->json || a->count == 0)
        cli_table_release(&table);
    else
        cli_table_print(&table);
    if (a->json) return cli_print_json(json_pack("{s:o,s:f}", "counts", list, "budget", a->budget));
    json_decref(list);
    if (a->count == 0) printf("nothing has been served yet\n");
    return 0;
}

static hemi_status run(audit *a, hemi_error *err) {
    hemi_store *store;
    if (a->reset && !a->tenant) return hemi_fail(err, HEMI_ERR_ARGUMENT, "--reset MODULE needs --tenant NAME: whose rows begin anew");
    if (!a->store) {
        HEMI_TRY(hemi_store_default_location(a->standard, sizeof a->standard, err));
        a->store = a->standard;
    }
    HEMI_TRY(hemi_store_open(&store, a->store, err));
    hemi_status status = a->reset ? hemi_store_rows_reset(store, a->tenant, a->reset, err) : HEMI_OK;
    if (status == HEMI_OK) status = hemi_store_counts(store, a->tenant, &a->counts, &a->count, err);
    hemi_store_close(store);
    return status;
}

int cmd_audit(int argc, char **argv) {
    audit a = {0};
    const cli_option options[] = {{"store", 0, "WHERE", CLI_TEXT, &a.store, 0, 0, "the server's store: a file, or postgresql://... (default: as the server's)"},
                                  {"tenant", 0, "NAME", CLI_TEXT, &a.tenant, 0, 0, "of this tenant alone (.anyone: requests without a token)"},
                                  {"budget", 0, "F", CLI_REAL, &a.budget, 0, 1000, "the server's --budget: what is used up is marked"},
                                  {"reset", 0, "MODULE", CLI_TEXT, &a.reset, 0, 0, "begin anew at 0, of this tenant and \"model/module\": its weights are others by now"},
                                  {0}};
    const cli_command command = {
        .name = "audit",
        .summary = "Lists how many rows of which module a server served to whom, the nearest to knowing it first.",
        .detail = "A linear module is known after inputs + 1 rows that its client chose for it; docs/threat-model.md says what counting rows can and cannot\n"
                  "do. Rows that a running server has reserved and not served yet are counted too: of a module that rests at most a\n"
                  "sixteenth of its inputs, under load more.",
        .options = options,
        .example = "  hemi audit --budget 0.5",
        .json = &a.json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    const hemi_status status = run(&a, &err);
    if (status != HEMI_OK) {
        free(a.counts);
        return cli_fail("audit", a.json, status, &err);
    }
    qsort(a.counts, a.count, sizeof *a.counts, compare);
    const int code = show(&a);
    free(a.counts);
    return code;
}
