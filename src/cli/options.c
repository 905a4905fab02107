#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#define FIRST_VALUE 256 /* getopt_long's value of option i is FIRST_VALUE + i */
#define VALUE_HELP  1000
#define VALUE_JSON  1001

/* ---- help */

static void print_row(const char *left, const char *help) {
    int width = (int)strlen(left);
    printf("  %s%*s%s\n", left, width < 26 ? 26 - width : 2, "", help);
}

static void print_help(const cli_command *c) {
    char left[96];
    printf("usage: hemi %s", c->name);
    for (const cli_positional *p = c->positionals; p && p->name; p++) printf(" %s", p->name);
    printf(" [options]\n\n%s\n", c->summary);
    if (c->detail) printf("%s\n", c->detail);
    if (c->positionals && c->positionals->name) printf("\n");
    for (const cli_positional *p = c->positionals; p && p->name; p++) print_row(p->name, p->help);
    printf("\noptions:\n");
    for (const cli_option *o = c->options; o && o->name; o++) {
        char letter[8] = "";
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->value ? " " : "", o->value ? o->value : "");
        print_row(left, o->help);
    }
    if (c->json) print_row("--json", "print one JSON object instead of text");
    print_row("--help", "show this text");
    printf("\nexample:\n%s\n", c->example);
    printf("\nexit status: 0, 64 for a mistake on the command line, else the error's number (docs/cli.md)\n");
}

/* ---- parsing */

static bool set_real(const cli_command *c, const cli_option *o, const char *text) {
    char *end;
    const double v = strtod(text, &end);
    if (end == text || *end || !(v >= (double)o->min && v <= (double)o->max)) { /* NaN neither */
        fprintf(stderr, "hemi %s: --%s takes a number from %ld to %ld, not '%s'\n", c->name, o->name, o->min, o->max, text);
        return false;
    }
    *(double *)o->target = v;
    return true;
}

static bool set_value(const cli_command *c, const cli_option *o, const char *text) {
    switch (o->kind) {
    case CLI_REAL:
        return set_real(c, o, text);
    case CLI_FLAG:
        *(bool *)o->target = true;
        return true;
    case CLI_TEXT:
        *(const char **)o->target = text;
        return true;
    case CLI_INT:
        break;
    }
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end || v < o->min || v > o->max) {
        fprintf(stderr, "hemi %s: --%s takes a whole number from %ld to %ld, not '%s'\n", c->name, o->name, o->min,
                o->max, text);
        return false;
    }
    *(long *)o->target = v;
    return true;
}

/* The tables that getopt_long wants. */
typedef struct tables {
    struct option longs[CLI_OPTIONS_MAX + 3];
    char letters[2 * CLI_OPTIONS_MAX + 4];
    size_t count;
} tables;

static void fill_tables(tables *t, const cli_command *c) {
    size_t n = 0;
    char *s = t->letters;
    for (const cli_option *o = c->options; o && o->name && n < CLI_OPTIONS_MAX; o++, n++) {
        t->longs[n] = (struct option){o->name, o->value ? required_argument : no_argument, NULL, FIRST_VALUE + (int)n};
        if (!o->letter) continue;
        *s++ = o->letter;
        if (o->value) *s++ = ':';
    }
    *s++ = 'h';
    *s = 0;
    t->count = n;
    t->longs[n++] = (struct option){"help", no_argument, NULL, VALUE_HELP};
    if (c->json) t->longs[n++] = (struct option){"json", no_argument, NULL, VALUE_JSON};
    t->longs[n] = (struct option){NULL, 0, NULL, 0};
}

static const cli_option *option_for(const cli_command *c, const tables *t, int value) {
    if (value >= FIRST_VALUE && value < FIRST_VALUE + (int)t->count) return &c->options[value - FIRST_VALUE];
    for (const cli_option *o = c->options; o && o->name; o++)
        if (o->letter == value) return o;
    return NULL;
}

static cli_parsed wrong(const cli_command *c) {
    fprintf(stderr, "try: hemi %s --help\n", c->name);
    return CLI_WRONG;
}

static cli_parsed take_positionals(const cli_command *c, int argc, char **argv) {
    for (const cli_positional *p = c->positionals; p && p->name; p++) {
        if (optind >= argc) {
            fprintf(stderr, "hemi %s: %s is missing\n", c->name, p->name);
            return wrong(c);
        }
        *p->target = argv[optind++];
    }
    if (optind < argc) {
        fprintf(stderr, "hemi %s: '%s' is one argument too many\n", c->name, argv[optind]);
        return wrong(c);
    }
    return CLI_PARSED;
}

cli_parsed cli_parse(const cli_command *c, int argc, char **argv) {
    tables t;
    char name[64], *own = argv[0];
    fill_tables(&t, c);
    snprintf(name, sizeof name, "hemi %s", c->name); /* getopt's messages begin with it */
    argv[0] = name;
    optind = 0;
    cli_parsed result = CLI_PARSED;
    for (int v; result == CLI_PARSED && (v = getopt_long(argc, argv, t.letters, t.longs, NULL)) != -1;) {
        if (v == VALUE_HELP || v == 'h') {
            print_help(c);
            result = CLI_HELPED;
        } else if (v == VALUE_JSON) {
            *c->json = true;
        } else {
            const cli_option *o = option_for(c, &t, v);
            if (!o || !set_value(c, o, optarg)) result = wrong(c);
        }
    }
    if (result == CLI_PARSED) result = take_positionals(c, argc, argv);
    argv[0] = own;
    return result;
}

hemi_status cli_read_token(char **token, const char *file, hemi_error *err) {
    const char *set = getenv("HEMI_TOKEN");
    uint8_t *text;
    size_t bytes;
    *token = NULL;
    if (!file && (!set || !set[0])) return HEMI_OK;
    if (!file) {
        *token = hemi_strdup(set);
        return *token ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    }
    HEMI_TRY(hemi_file_read(&text, &bytes, file, 4096, err));
    text[strcspn((const char *)text, "\r\n")] = 0;
    *token = (char *)text;
    return text[0] ? HEMI_OK : hemi_fail(err, HEMI_ERR_FORMAT, "%s holds no token in its first line", file);
}
