#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"

#define DEPTH_MAX   3     /* models / model / module / shape */
#define FOLDERS_MAX 65536 /* a wrong folder is not searched for ever */

typedef struct findings {
    json_t *list;
    cli_table table, activations;
    size_t modules, folders;
} findings;

/* ---- one compiled module */

static void add_bits(cli_table *t, const hemi_module_info *info) {
    char weights[12] = "-", inputs[12] = "-"; /* of circuits: not rounded */
    if (info->weight_bits > 0) snprintf(weights, sizeof weights, "%d", info->weight_bits);
    if (info->input_bits > 0) snprintf(inputs, sizeof inputs, "%d", info->input_bits);
    cli_table_cell(t, "%s / %s", weights, inputs);
}

/* What is not known: "?". */
static void add_error(cli_table *t, const char *format, double value) {
    char text[24] = "?";
    if (value > 0) snprintf(text, sizeof text, format, value);
    cli_table_cell(t, "%s", text);
}

static void add_row(cli_table *t, const char *name, const hemi_module_info *info) {
    char text[24], sides[128];
    const bool circuit = cli_is_circuit(info);
    cli_sides(sides, info);
    cli_table_cell(t, "%s", name);
    cli_table_cell(t, "%s", info->operation);
    cli_table_cell(t, "%s", sides);
    cli_table_cell(t, "%s", info->params->name);
    cli_table_cell(t, "%.1f", info->params->security_bits);
    add_bits(t, info);
    if (circuit)
        cli_table_cell(t, "%u levels", info->levels);
    else
        cli_table_cell(t, "%u x %u", info->layout, info->products);
    cli_table_cell(t, "%u", info->packed_rows);
    cli_table_cell(t, "%s", cli_bytes(text, info->evaluation_key_bytes));
    cli_table_cell(t, "%s", cli_bytes(text, info->upload_bytes));
    cli_table_cell(t, "%s", cli_bytes(text, info->download_bytes));
    add_error(t, "%.3g", info->predicted_error);
    add_error(t, "%.2g %%", 100 * cli_relative_error(info));
    add_error(t, "%.1f", cli_expected_bits(info));
    if (circuit)
        add_error(t, "%.2g %%", 100 * info->approximation_error);
    else
        cli_table_cell(t, "-");
}

static const char *const headings[] = {"module", "operation", "shape", "set",  "security", "bits w/x", "layout",     "rows",
                                       "keys",   "up",        "down",  "error", "relative", "bits",     "polynomials"};
static const char *const activation_headings[] = {"module", "activation", "numbers", "range", "degree", "levels"};

static void add_activations(cli_table *t, const char *name, const hemi_module *module, size_t count) {
    for (size_t i = 0; i < count; i++) {
        hemi_activation_info a;
        if (hemi_module_get_activation(module, i, &a, NULL) != HEMI_OK) continue;
        cli_table_cell(t, "%s", name);
        cli_activation_cells(t, &a);
    }
}

/* The names that lead from the inspected folder to this one: "model/module/po_1_10_pc". */
static hemi_status inspect_module(findings *f, const char *path, const char *name, hemi_error *err) {
    char file[4096];
    snprintf(file, sizeof file, "%s/server.zip", path);
    bool with_weights = hemi_path_exists(file);
    hemi_module *module = NULL;
    hemi_status status = hemi_module_open(&module, path, with_weights, err);
    if (status != HEMI_OK) return hemi_fail_in(err, status, "%.300s", path);
    hemi_module_info info;
    hemi_module_get_info(module, &info);
    json_t *j = cli_module_json(&info, module);
    json_object_set_new(j, "folder", json_string(path));
    json_object_set_new(j, "name", json_string(name));
    json_object_set_new(j, "file", json_string(with_weights ? "server.zip" : "client.zip"));
    json_array_append_new(f->list, j);
    add_row(&f->table, name, &info);
    add_activations(&f->activations, name, module, info.activations);
    f->modules++;
    hemi_module_free(module);
    return HEMI_OK;
}

/* ---- finding them */

static int visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static bool is_compiled(const char *path) {
    char file[4096];
    snprintf(file, sizeof file, "%s/server.zip", path);
    if (hemi_path_exists(file)) return true;
    snprintf(file, sizeof file, "%s/client.zip", path);
    return hemi_path_exists(file);
}

static hemi_status search(findings *f, const char *path, const char *name, int depth, hemi_error *err) {
    if (is_compiled(path)) return inspect_module(f, path, name, err);
    if (depth == DEPTH_MAX) return HEMI_OK;
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, visible, alphasort);
    if (count < 0) return hemi_fail(err, HEMI_ERR_IO, "%.300s cannot be listed", path);
    hemi_status status = HEMI_OK;
    for (int i = 0; i < count; i++) {
        char *below = hemi_path_join(path, entries[i]->d_name);
        char *title = name[0] ? hemi_path_join(name, entries[i]->d_name) : hemi_strdup(entries[i]->d_name);
        if (!below || !title)
            status = hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
        else if (status == HEMI_OK && hemi_path_is_folder(below) && f->folders++ < FOLDERS_MAX)
            status = search(f, below, title, depth + 1, err);
        hemi_free(below);
        hemi_free(title);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static hemi_status inspect(findings *f, const char *folder, hemi_error *err) {
    if (!hemi_path_is_folder(folder)) return hemi_fail(err, HEMI_ERR_NOT_FOUND, "%s is not a folder", folder);
    const char *name = is_compiled(folder) ? folder : "";
    HEMI_TRY(search(f, folder, name, 0, err));
    if (f->modules > 0) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_NOT_FOUND,
                     "%s holds no compiled module (a folder with server.zip or client.zip); `hemi compile` makes one",
                     folder);
}

static int report(findings *f, bool json, bool activations) {
    if (json) return cli_print_json(json_pack("{s:O}", "modules", f->list));
    cli_table_print(&f->table);
    if (!activations) return 0;
    putchar('\n');
    cli_table_print(&f->activations);
    return 0;
}

int cmd_inspect(int argc, char **argv) {
    bool json = false, activations = false;
    const char *folder = NULL;
    const cli_positional positionals[] = {
        {"DIR", &folder, "a models folder, a model, a module or one compiled shape of it"}, {0}};
    const cli_option options[] = {
        {"activations", 'a', NULL, CLI_FLAG, &activations, 0, 0, "list the activations of circuits too: ranges, degrees and levels of their polynomials"},
        {0}};
    const cli_command command = {
        .name = "inspect",
        .summary = "Lists compiled modules: operation, shapes, security, sizes of keys and messages, predicted error.",
        .detail = "layout: S and how many products; of circuits, how many levels deep. rows: that come in one ciphertext. error: standard deviation "
                  "of the\nerror that encryption adds to an output (quantisation apart); relative: over the largest output on the calibration data, "
                  "which only\nserver.zip knows; bits: what that leaves exact; polynomials: what they add in place of activations, rms over rms. "
                  "Sizes are for one\nrow, or one sample, and of circuits for one ciphertext; keys are uploaded once for all modules of a model.",
        .positionals = positionals,
        .options = options,
        .example = "  hemi inspect models/\n  hemi inspect models/demo/mlp --activations",
        .json = &json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    findings f = {.list = json_array()};
    hemi_error err = {0};
    cli_table_start(&f.table, sizeof headings / sizeof *headings, headings);
    cli_table_start(&f.activations, sizeof activation_headings / sizeof *activation_headings, activation_headings);
    const hemi_status status = inspect(&f, folder, &err);
    const int code = status == HEMI_OK ? report(&f, json, activations) : cli_fail("inspect", json, status, &err);
    json_decref(f.list);
    cli_table_release(&f.table);
    cli_table_release(&f.activations);
    return code;
}
