/* The passphrase of secret key files, from where the user keeps it: a keyring (through its command), a file, the environment, or the terminal. */
#ifndef HEMI_CLI_PASSPHRASE_H
#define HEMI_CLI_PASSPHRASE_H

#include <stdbool.h>

#include "hemi/status.h"

typedef struct cli_passphrase_source {
    const char *file, *command; /* NULL: not given */
} cli_passphrase_source;

/* Rows of a table of options. */
#define CLI_PASSPHRASE_OPTIONS(s)                                                                                                             \
    {"passphrase-file", 0, "FILE", CLI_TEXT, &(s).file, 0, 0, "its first line is the passphrase (otherwise HEMI_PASSPHRASE, or one is asked for)"}, \
    {"passphrase-command", 0, "CMD", CLI_TEXT, &(s).command, 0, 0, "what it prints: of a keyring, \"secret-tool lookup hemi keys\""}

/* *passphrase is freed with hemi_free, which wipes it. prompt: asked on the terminal, without echo, and twice where it is a new one. */
HEMI_CHECK hemi_status cli_read_passphrase(char **passphrase, const cli_passphrase_source *source, const char *prompt, bool is_new, hemi_error *err);
/* Is a key file in the folder encrypted? */
bool cli_keys_are_sealed(const char *folder);

#endif
