/* Options of a command from one table: parsing, and a --help that is the same everywhere and teaches by an example. */
#ifndef HEMI_CLI_OPTIONS_H
#define HEMI_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "hemi/status.h"

#define CLI_EXIT_USAGE      64
#define CLI_OPTIONS_MAX     24
#define CLI_POSITIONALS_MAX 4

typedef enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_INT, CLI_REAL } cli_kind;

typedef struct cli_option {
    const char *name;  /* "layout"; the table ends with a NULL name */
    char letter;       /* 'o', or 0 */
    const char *value; /* what the value is called in --help; NULL for a flag */
    cli_kind kind;
    void *target;  /* bool, const char *, long or double: what is there before is the default */
    long min, max; /* of CLI_INT and CLI_REAL */
    const char *help;
} cli_option;

typedef struct cli_positional {
    const char *name; /* "MODEL"; the table ends with a NULL name */
    const char **target;
    const char *help;
} cli_positional;

typedef struct cli_command {
    const char *name;    /* "keys new" */
    const char *summary; /* one line */
    const char *detail;  /* further lines of --help, or NULL */
    const cli_positional *positionals;
    const cli_option *options; /* without --help and --json, which every command has */
    const char *example;
    bool *json;
} cli_command;

typedef enum cli_parsed { CLI_PARSED, CLI_HELPED, CLI_WRONG } cli_parsed;

/* argv[0] is the command's own name. CLI_HELPED: --help was printed (exit with 0); CLI_WRONG: the mistake was explained
 * on stderr (exit with CLI_EXIT_USAGE). */
cli_parsed cli_parse(const cli_command *command, int argc, char **argv);

/* Rows of a table of options, for commands that talk to a server with tenants. */
#define CLI_TOKEN_OPTIONS(token_file, ca_file)                                                                                              \
    {"token-file", 0, "FILE", CLI_TEXT, &(token_file), 0, 0, "the token that the server's operator gave (or the environment's HEMI_TOKEN)"}, \
    {"ca", 0, "FILE", CLI_TEXT, &(ca_file), 0, 0, "PEM: certificates to trust with https (default: this system's)"}

/* The token of a file (its first line), or, where that is NULL, of HEMI_TOKEN; NULL where there is none. Freed with hemi_free. */
HEMI_CHECK hemi_status cli_read_token(char **token, const char *file, hemi_error *err);

#endif
