#include "cli/passphrase.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "hemi/params.h"
#include "secret/seal.h"

#define PASSPHRASE_BYTES_MAX 1024

/* The first line; *passphrase has PASSPHRASE_BYTES_MAX bytes. */
static hemi_status first_line(char *text, const char *where, hemi_error *err) {
    text[strcspn(text, "\r\n")] = 0;
    return text[0] ? HEMI_OK : hemi_fail(err, HEMI_ERR_ARGUMENT, "%s gives no passphrase", where);
}

static hemi_status of_file(char *text, const char *path, hemi_error *err) {
    uint8_t *bytes;
    size_t count;
    HEMI_TRY(hemi_file_read(&bytes, &count, path, PASSPHRASE_BYTES_MAX - 1, err));
    memcpy(text, bytes, count + 1); /* with the zero behind it */
    hemi_free(bytes);
    return first_line(text, path, err);
}

static hemi_status of_command(char *text, const char *command, hemi_error *err) {
    FILE *pipe = popen(command, "re");
    if (!pipe) return hemi_fail(err, HEMI_ERR_IO, "cannot run '%.200s'", command);
    setvbuf(pipe, NULL, _IONBF, 0); /* nothing stays in a buffer */
    const size_t count = fread(text, 1, PASSPHRASE_BYTES_MAX - 1, pipe);
    text[count] = 0;
    const int status = pclose(pipe);
    return status == 0 ? first_line(text, command, err) : hemi_fail(err, HEMI_ERR_IO, "'%.200s' failed", command);
}

static hemi_status ask(char *text, FILE *terminal, const char *prompt, hemi_error *err) {
    struct termios before, silent;
    const bool is_terminal = tcgetattr(fileno(terminal), &before) == 0;
    fprintf(terminal, "%s: ", prompt);
    fflush(terminal);
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    if (is_terminal) (void)tcsetattr(fileno(terminal), TCSAFLUSH, &silent);
    const bool read = fgets(text, PASSPHRASE_BYTES_MAX, terminal) != NULL;
    if (is_terminal) (void)tcsetattr(fileno(terminal), TCSAFLUSH, &before);
    fputc('\n', terminal);
    return read ? first_line(text, "the terminal", err) : hemi_fail(err, HEMI_ERR_ARGUMENT, "no passphrase was given");
}

static hemi_status of_terminal(char *text, const char *prompt, bool is_new, hemi_error *err) {
    char again[PASSPHRASE_BYTES_MAX];
    FILE *terminal = fopen("/dev/tty", "r+e");
    if (!terminal)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "there is no terminal to ask for a passphrase: give --passphrase-file, --passphrase-command or HEMI_PASSPHRASE");
    setvbuf(terminal, NULL, _IONBF, 0);
    hemi_status status = ask(text, terminal, prompt, err);
    if (status == HEMI_OK && is_new) {
        status = ask(again, terminal, "once more", err);
        if (status == HEMI_OK && strcmp(text, again) != 0) status = hemi_fail(err, HEMI_ERR_ARGUMENT, "the two passphrases differ");
        hemi_wipe(again, sizeof again);
    }
    fclose(terminal);
    return status;
}

hemi_status cli_read_passphrase(char **passphrase, const cli_passphrase_source *source, const char *prompt, bool is_new, hemi_error *err) {
    const char *set = getenv("HEMI_PASSPHRASE");
    *passphrase = hemi_alloc(PASSPHRASE_BYTES_MAX, 1);
    if (!*passphrase) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_status status;
    if (source->file)
        status = of_file(*passphrase, source->file, err);
    else if (source->command)
        status = of_command(*passphrase, source->command, err);
    else if (set && set[0] && strlen(set) < PASSPHRASE_BYTES_MAX) {
        strcpy(*passphrase, set);
        status = HEMI_OK;
    } else {
        status = of_terminal(*passphrase, prompt, is_new, err);
    }
    if (status == HEMI_OK) return HEMI_OK;
    hemi_free(*passphrase);
    *passphrase = NULL;
    return status;
}

bool cli_keys_are_sealed(const char *folder) {
    bool sealed = false;
    for (size_t i = 0; i < hemi_params_count() && !sealed; i++) {
        char path[4096];
        uint8_t head[8];
        snprintf(path, sizeof path, "%s/%s.key", folder, hemi_params_at(i)->name);
        FILE *f = fopen(path, "rbe");
        sealed = f && fread(head, 1, sizeof head, f) == sizeof head && hemi_seal_is(head, sizeof head);
        if (f) fclose(f);
    }
    return sealed;
}
