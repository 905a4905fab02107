#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "hemi/client.h"

static void key_path(char path[4096], const char *folder, const hemi_params *params) {
    snprintf(path, 4096, "%s/%s.key", folder, params->name);
}

/* ---- new */

static hemi_status make_key(const char *folder, const hemi_params *params, bool force, hemi_error *err) {
    char path[4096];
    key_path(path, folder, params);
    if (!force && hemi_path_exists(path))
        return hemi_fail(err, HEMI_ERR_STATE,
                         "%s exists; --force makes a new key in its place (what was encrypted under the old one can "
                         "then not be read)",
                         path);
    HEMI_TRY(hemi_folder_create(folder, err));
    hemi_keys *keys = NULL;
    HEMI_TRY(hemi_keys_new(&keys, folder, err));
    hemi_status status = hemi_keys_generate(keys, params, force, err);
    hemi_keys_free(keys);
    return status;
}

static int keys_new(int argc, char **argv) {
    bool json = false, force = false;
    const char *set = "L4096", *folder = NULL;
    const cli_option options[] = {
        {"output", 'o', "FOLDER", CLI_TEXT, &folder, 0, 0, "where the key file goes; made if need be"},
        {"set", 0, "NAME", CLI_TEXT, &set, 0, 0, "parameter set (default L4096; `hemi version` lists them)"},
        {"force", 'f', NULL, CLI_FLAG, &force, 0, 0, "replace a key that is there"},
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
    hemi_status status =
        params ? make_key(folder, params, force, &err)
               : hemi_fail(&err, HEMI_ERR_PARAMS, "there is no parameter set '%s'; `hemi version` lists them", set);
    if (status != HEMI_OK) return cli_fail("keys new", json, status, &err);
    char path[4096];
    key_path(path, folder, params);
    if (json)
        return cli_print_json(
            json_pack("{s:s,s:s,s:f}", "set", set, "file", path, "security_bits", params->security_bits));
    printf("made %s (%.1f bits of security). Keep it to yourself; there is no copy.\n", path, params->security_bits);
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

static void show_key(const char *folder, const hemi_params *params, json_t *list, cli_table *table) {
    char path[4096], when[32] = "?";
    struct stat info;
    hemi_error err = {0};
    key_path(path, folder, params);
    if (stat(path, &info) != 0) return;
    struct tm tm;
    if (gmtime_r(&info.st_mtime, &tm)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    bool open_to_others = (info.st_mode & 077) != 0, good = key_loads(folder, params, &err);
    const char *state = !good ? "cannot be read" : open_to_others ? "others can read it: chmod 600" : "good";
    json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:s,s:f,s:b,s:b,s:s}", "set", params->name, "file", path,
                                          "bytes", (json_int_t)info.st_size, "made", when, "security_bits",
                                          params->security_bits, "readable", (int)good, "private", (int)!open_to_others,
                                          "state", good ? state : err.message));
    cli_table_cell(table, "%s", params->name);
    cli_table_cell(table, "%s.key", params->name);
    cli_table_cell(table, "%lld", (long long)info.st_size);
    cli_table_cell(table, "%s", when);
    cli_table_cell(table, "%.1f", params->security_bits);
    cli_table_cell(table, "%s", state);
    if (!good) fprintf(stderr, "hemi keys show: %s\n", err.message);
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

int cmd_keys(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "new") == 0) return keys_new(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "show") == 0) return keys_show(argc - 1, argv + 1);
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    FILE *stream = help ? stdout : stderr;
    if (argc > 1 && !help) fprintf(stream, "hemi keys: there is no '%s'\n", argv[1]);
    fprintf(stream, "usage: hemi keys new -o FOLDER [options]    makes a secret key\n"
                    "       hemi keys show FOLDER [options]      lists the keys of a folder\n\n"
                    "`hemi keys new --help` and `hemi keys show --help` explain them.\n");
    return help ? 0 : CLI_EXIT_USAGE;
}
