#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/passphrase.h"
#include "cli/report.h"
#include "hemi/client.h"
#include "secret/seal.h"

static void key_path(char path[4096], const char *folder, const hemi_params *params) {
    snprintf(path, 4096, "%s/%s.key", folder, params->name);
}

/* ---- new */

static hemi_status make_key(const char *folder, const hemi_params *params, bool force, const char *passphrase, hemi_error *err) {
    char path[4096];
    key_path(path, folder, params);
    if (!force && hemi_path_exists(path))
        return hemi_fail(err, HEMI_ERR_STATE,
                         "%s exists; --force makes a new key in its place (what was encrypted under the old one can "
                         "then not be read)",
                         path);
    HEMI_TRY(hemi_folder_create(folder, err));
    hemi_keys *keys = NULL;
    const hemi_keys_options options = {.folder = folder, .passphrase = passphrase};
    HEMI_TRY(hemi_keys_new_with(&keys, &options, err));
    hemi_status status = hemi_keys_generate(keys, params, force, err);
    hemi_keys_free(keys);
    return status;
}

static int keys_new(int argc, char **argv) {
    bool json = false, force = false, encrypt = false;
    const char *set = "L4096", *folder = NULL;
    cli_passphrase_source source = {0};
    const cli_option options[] = {
        {"output", 'o', "FOLDER", CLI_TEXT, &folder, 0, 0, "where the key file goes; made if need be"},
        {"set", 0, "NAME", CLI_TEXT, &set, 0, 0, "parameter set (default L4096; `hemi version` lists them)"},
        {"force", 'f', NULL, CLI_FLAG, &force, 0, 0, "replace a key that is there"},
        {"encrypt", 'e', NULL, CLI_FLAG, &encrypt, 0, 0, "under a passphrase, which is asked for"},
        CLI_PASSPHRASE_OPTIONS(source),
        {0}};
    const cli_command command = {
        .name = "keys new",
        .summary = "Makes a secret key and keeps it in FOLDER/<set>.key, readable by its owner only.",
        .detail = "Clients make a key of their own in memory unless they are given a folder, which is the safer way.",
        .options = options,
        .example = "  hemi keys new -o ~/.hemi-keys",
        .json = &json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (!folder) {
        fprintf(stderr, "hemi keys new: -o FOLDER is missing\n");
        return CLI_EXIT_USAGE;
    }
    hemi_error err = {0};
    const hemi_params *params = hemi_params_by_name(set);
    char *passphrase = NULL;
    hemi_status status = params ? HEMI_OK : hemi_fail(&err, HEMI_ERR_PARAMS, "there is no parameter set '%s'; `hemi version` lists them", set);
    if (status == HEMI_OK && (encrypt || source.file || source.command)) status = cli_read_passphrase(&passphrase, &source, "passphrase for the new key", true, &err);
    if (status == HEMI_OK) status = make_key(folder, params, force, passphrase, &err);
    const bool encrypted = passphrase != NULL;
    hemi_free(passphrase); /* wiped */
    if (status != HEMI_OK) return cli_fail("keys new", json, status, &err);
    char path[4096];
    key_path(path, folder, params);
    if (json)
        return cli_print_json(
            json_pack("{s:s,s:s,s:f,s:b}", "set", set, "file", path, "security_bits", params->security_bits, "encrypted", (int)encrypted));
    printf("made %s (%.1f bits of security%s). Keep it to yourself; there is no copy.\n", path, params->security_bits, encrypted ? ", encrypted" : "");
    return 0;
}

/* ---- show */

/* Can the key be read? */
static bool key_loads(const char *folder, const hemi_params *params, hemi_error *err) {
    hemi_keys *keys = NULL;
    if (hemi_keys_new(&keys, folder, err) != HEMI_OK) return false;
    hemi_status status = hemi_keys_generate(keys, params, false, err);
    hemi_keys_free(keys);
    return status == HEMI_OK;
}

static bool is_encrypted(const char *path) {
    uint8_t head[8];
    FILE *f = fopen(path, "rbe");
    const bool encrypted = f && fread(head, 1, sizeof head, f) == sizeof head && hemi_seal_is(head, sizeof head);
    if (f) fclose(f);
    return encrypted;
}

static void show_key(const char *folder, const hemi_params *params, json_t *list, cli_table *table) {
    char path[4096], when[32] = "?";
    struct stat info;
    hemi_error err = {0};
    key_path(path, folder, params);
    if (stat(path, &info) != 0) return;
    struct tm tm;
    if (gmtime_r(&info.st_mtime, &tm)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    /* The state of an encrypted one is seen only with its passphrase. */
    const bool open_to_others = (info.st_mode & 077) != 0, encrypted = is_encrypted(path), good = !open_to_others && !encrypted && key_loads(folder, params, &err);
    const char *state = open_to_others ? "others can read it: chmod 600" : encrypted ? "encrypted" : good ? "good" : "cannot be read";
    json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:s,s:f,s:b,s:b,s:s}", "set", params->name, "file", path,
                                          "bytes", (json_int_t)info.st_size, "made", when, "security_bits",
                                          params->security_bits, "readable", (int)(good || encrypted), "private", (int)!open_to_others,
                                          "state", err.message[0] ? err.message : state));
    cli_table_cell(table, "%s", params->name);
    cli_table_cell(table, "%s.key", params->name);
    cli_table_cell(table, "%lld", (long long)info.st_size);
    cli_table_cell(table, "%s", when);
    cli_table_cell(table, "%.1f", params->security_bits);
    cli_table_cell(table, "%s", state);
    if (err.message[0]) fprintf(stderr, "hemi keys show: %s\n", err.message);
}

static int keys_show(int argc, char **argv) {
    bool json = false;
    const char *folder = NULL;
    const cli_positional positionals[] = {{"FOLDER", &folder, "a folder of `hemi keys new`"}, {0}};
    const cli_command command = {.name = "keys show",
                                 .summary = "Lists the secret keys in a folder: never what is in them.",
                                 .positionals = positionals,
                                 .example = "  hemi keys show ~/.hemi-keys",
                                 .json = &json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    if (!hemi_path_is_folder(folder))
        return cli_fail("keys show", json, hemi_fail(&err, HEMI_ERR_NOT_FOUND, "%s is not a folder", folder), &err);
    static const char *const headings[] = {"set", "file", "bytes", "made", "security bits", "state"};
    cli_table table;
    cli_table_start(&table, 6, headings);
    json_t *list = json_array();
    for (size_t i = 0; i < hemi_params_count(); i++) show_key(folder, hemi_params_at(i), list, &table);
    bool none = json_array_size(list) == 0;
    if (json) {
        cli_table_release(&table);
        return cli_print_json(json_pack("{s:s,s:o}", "folder", folder, "keys", list));
    }
    json_decref(list);
    if (none) printf("no keys in %s; make one with: hemi keys new -o %s\n", folder, folder);
    if (none)
        cli_table_release(&table);
    else
        cli_table_print(&table);
    return 0;
}

/* ---- protect */

static hemi_status protect_all(const char *folder, const char *before, const char *after, size_t *count, hemi_error *err) {
    hemi_keys *keys = NULL;
    const hemi_keys_options options = {.folder = folder, .passphrase = before};
    hemi_status status = hemi_keys_new_with(&keys, &options, err);
    for (size_t i = 0; i < hemi_params_count() && status == HEMI_OK; i++) {
        char path[4096];
        key_path(path, folder, hemi_params_at(i));
        if (!hemi_path_exists(path)) continue;
        status = hemi_keys_protect(keys, hemi_params_at(i), after, err);
        *count += status == HEMI_OK;
    }
    hemi_keys_free(keys);
    if (status == HEMI_OK && *count == 0) return hemi_fail(err, HEMI_ERR_NOT_FOUND, "no keys in %s", folder);
    return status;
}

static int keys_protect(int argc, char **argv) {
    bool json = false, plain = false;
    const char *folder = NULL;
    cli_passphrase_source source = {0}, fresh = {0};
    const cli_positional positionals[] = {{"FOLDER", &folder, "a folder of `hemi keys new`"}, {0}};
    const cli_option options[] = {CLI_PASSPHRASE_OPTIONS(source),
                                  {"new-passphrase-file", 0, "FILE", CLI_TEXT, &fresh.file, 0, 0, "the new one (otherwise it is asked for)"},
                                  {"new-passphrase-command", 0, "CMD", CLI_TEXT, &fresh.command, 0, 0, "what it prints is the new one"},
                                  {"plain", 0, NULL, CLI_FLAG, &plain, 0, 0, "take the encryption away"},
                                  {0}};
    const cli_command command = {.name = "keys protect",
                                 .summary = "Encrypts the secret keys in a folder under a passphrase, or under another one. The keys stay the same.",
                                 .positionals = positionals,
                                 .options = options,
                                 .example = "  hemi keys protect ~/.hemi-keys",
                                 .json = &json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    char *before = NULL, *after = NULL;
    size_t count = 0;
    hemi_status status = hemi_path_is_folder(folder) ? HEMI_OK : hemi_fail(&err, HEMI_ERR_NOT_FOUND, "%s is not a folder", folder);
    if (status == HEMI_OK && cli_keys_are_sealed(folder)) status = cli_read_passphrase(&before, &source, "present passphrase", false, &err);
    /* Of plain keys there is no present one: what was given is the new one. */
    if (status == HEMI_OK && !plain) status = cli_read_passphrase(&after, fresh.file || fresh.command || before ? &fresh : &source, "new passphrase", true, &err);
    if (status == HEMI_OK) status = protect_all(folder, before, after, &count, &err);
    hemi_free(before); /* wiped */
    hemi_free(after);
    if (status != HEMI_OK) return cli_fail("keys protect", json, status, &err);
    if (json) return cli_print_json(json_pack("{s:s,s:I,s:b}", "folder", folder, "keys", (json_int_t)count, "encrypted", (int)!plain));
    printf("%zu key%s in %s: %s\n", count, count == 1 ? "" : "s", folder, plain ? "plain" : "encrypted");
    return 0;
}

int cmd_keys(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "new") == 0) return keys_new(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "show") == 0) return keys_show(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "protect") == 0) return keys_protect(argc - 1, argv + 1);
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    FILE *stream = help ? stdout : stderr;
    if (argc > 1 && !help) fprintf(stream, "hemi keys: there is no '%s'\n", argv[1]);
    fprintf(stream, "usage: hemi keys new -o FOLDER [options]    makes a secret key\n"
                    "       hemi keys show FOLDER [options]      lists the keys of a folder\n"
                    "       hemi keys protect FOLDER [options]   encrypts them under a passphrase, or under another one\n\n"
                    "`hemi keys new --help` and so on explain them.\n");
    return help ? 0 : CLI_EXIT_USAGE;
}
