#include "cli/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_fail(const char *command, bool json, hemi_status status, const hemi_error *err) {
    const char *message = err && err->message[0] ? err->message : hemi_status_text(status);
    fprintf(stderr, "hemi %s: %s\n", command, message);
    if (json)
        cli_print_json(json_pack("{s:{s:s,s:s%}}", "error", "code", hemi_status_name(status), "message", message,
                                 strlen(message)));
    return status < 0 ? -(int)status : 1;
}

int cli_print_json(json_t *object) {
    if (!object) {
        fprintf(stderr, "hemi: the result cannot be written as JSON\n");
        return -HEMI_ERR_INTERNAL;
    }
    int failed = json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(object);
    putchar('\n');
    return failed || fflush(stdout) != 0 ? -HEMI_ERR_IO : 0;
}

/* ---- tables */

static void table_put(cli_table *t, const char *text) {
    if (t->used == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 128;
        void *grown = realloc(t->cells, capacity * CLI_CELL_BYTES);
        if (!grown) return;
        t->cells = grown;
        t->capacity = capacity;
    }
    snprintf(t->cells[t->used], CLI_CELL_BYTES, "%s", text);
    t->used++;
}

void cli_table_start(cli_table *t, size_t columns, const char *const *headings) {
    memset(t, 0, sizeof *t);
    t->columns = columns;
    for (size_t i = 0; i < columns; i++) table_put(t, headings[i]);
}

void cli_table_cell(cli_table *t, const char *format, ...) {
    char text[CLI_CELL_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    table_put(t, text);
}

void cli_table_print(cli_table *t) {
    size_t width[CLI_COLUMNS_MAX] = {0};
    for (size_t i = 0; i < t->used; i++) {
        size_t n = strlen(t->cells[i]);
        if (n > width[i % t->columns]) width[i % t->columns] = n;
    }
    for (size_t i = 0; i < t->used; i++) {
        size_t column = i % t->columns;
        bool last = column + 1 == t->columns;
        printf("%-*s%s", last ? 0 : (int)width[column], t->cells[i], last ? "\n" : "  ");
    }
    cli_table_release(t);
}

void cli_table_release(cli_table *t) {
    free(t->cells);
    memset(t, 0, sizeof *t);
}

void cli_line(const char *name, const char *format, ...) {
    va_list args;
    printf("  %-18s ", name);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

/* ---- numbers */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double cli_median(double *values, size_t count) {
    if (count == 0) return 0;
    qsort(values, count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

const char *cli_bytes(char text[24], size_t bytes) {
    if (bytes < 1000)
        snprintf(text, 24, "%zu B", bytes);
    else if (bytes < 1000000)
        snprintf(text, 24, "%.1f KB", (double)bytes / 1e3);
    else if (bytes < 1000000000)
        snprintf(text, 24, "%.1f MB", (double)bytes / 1e6);
    else
        snprintf(text, 24, "%.2f GB", (double)bytes / 1e9);
    return text;
}

void cli_shape_name(char text[128], const uint32_t *shape, size_t rank) {
    int n = snprintf(text, 128, "po");
    for (size_t i = 0; i < rank && n < 100; i++) n += snprintf(text + n, (size_t)(128 - n), "_%u", shape[i]);
    snprintf(text + n, (size_t)(128 - n), "_pc");
}

static int write_sides(char *text, size_t room, const uint32_t *shape, size_t rank) {
    int n = 0;
    for (size_t i = 1; i < rank && (size_t)n < room; i++)
        n += snprintf(text + n, room - (size_t)n, "%s%u", i > 1 ? "x" : "", shape[i]);
    return n;
}

bool cli_is_circuit(const hemi_module_info *info) { return strcmp(info->operation, "circuit") == 0; }
bool cli_takes_rows(const hemi_module_info *info) { return cli_is_circuit(info) ? info->circuit_rows : strcmp(info->operation, "linear") == 0; }

void cli_sides(char text[128], const hemi_module_info *info) {
    if (cli_takes_rows(info)) {
        snprintf(text, 128, "%u -> %u", info->inputs, info->outputs);
        return;
    }
    int n = write_sides(text, 60, info->shape, info->shape_rank);
    if (n > 59) n = 59; /* cut off: HEMI_SHAPE_MAX numbers of ten digits do not fit */
    n += snprintf(text + n, 8, " -> ");
    (void)write_sides(text + n, 128 - (size_t)n, info->output_shape, info->output_rank);
}

double cli_relative_error(const hemi_module_info *info) {
    return info->output_max > 0 ? info->predicted_error / info->output_max : 0;
}

double cli_expected_bits(const hemi_module_info *info) {
    double relative = cli_relative_error(info);
    return relative > 0 ? -log2(relative) : 0;
}

/* Numbers that are not known are null. */
static json_t *real_or_null(double v) { return v > 0 ? json_real(v) : json_null(); }

/* ---- activations */

static json_t *activations_json(const hemi_module *module, size_t count, json_t *degrees) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        hemi_activation_info a;
        if (hemi_module_get_activation(module, i, &a, NULL) != HEMI_OK) continue;
        json_array_append_new(degrees, json_integer(a.degree));
        json_array_append_new(list, json_pack("{s:s,s:I,s:f,s:f,s:I,s:I}", "name", a.name, "size", (json_int_t)a.size, "low", a.low, "high", a.high,
                                              "degree", (json_int_t)a.degree, "levels", (json_int_t)a.levels));
    }
    return list;
}

void cli_activation_cells(cli_table *t, const hemi_activation_info *a) {
    cli_table_cell(t, "%s", a->name);
    cli_table_cell(t, "%u", a->size);
    cli_table_cell(t, "%.4g to %.4g", a->low, a->high);
    cli_table_cell(t, "%u", a->degree);
    cli_table_cell(t, "%u", a->levels);
}

void cli_print_activations(const hemi_module *module) {
    static const char *const headings[] = {" ", "activation", "numbers", "range", "degree", "levels"};
    hemi_module_info info;
    cli_table t;
    hemi_module_get_info(module, &info);
    if (info.activations == 0) return;
    cli_table_start(&t, sizeof headings / sizeof *headings, headings);
    for (size_t i = 0; i < info.activations; i++) {
        hemi_activation_info a;
        if (hemi_module_get_activation(module, i, &a, NULL) != HEMI_OK) continue;
        cli_table_cell(&t, " ");
        cli_activation_cells(&t, &a);
    }
    cli_table_print(&t);
}

/* ---- modules */

/* What circuits have and others have not. */
static json_t *circuit_json(const hemi_module_info *info, const hemi_module *module) {
    json_t *degrees = json_array(), *list = activations_json(module, info->activations, degrees);
    return json_pack("{s:b,s:I,s:I,s:f,s:f,s:o,s:o,s:o}", "by_rows", (int)info->circuit_rows, "levels", (json_int_t)info->levels, "set_levels",
                     (json_int_t)info->params->chain - 1, "input_low", info->input_low, "input_high", info->input_high, "approximation_error",
                     info->has_weights ? json_real(info->approximation_error) : json_null(), "degrees", degrees, "activations", list);
}

json_t *cli_module_json(const hemi_module_info *info, const hemi_module *module) {
    char id[2 * HEMI_MODULE_ID_BYTES + 1];
    json_t *shape = json_array(), *output = json_array();
    for (size_t i = 0; i < HEMI_MODULE_ID_BYTES; i++) snprintf(id + 2 * i, 3, "%02x", info->id[i]);
    for (size_t i = 0; i < info->shape_rank; i++) json_array_append_new(shape, json_integer(info->shape[i]));
    for (size_t i = 0; i < info->output_rank; i++) json_array_append_new(output, json_integer(info->output_shape[i]));
    json_t *j =
        json_pack("{s:s,s:s,s:I,s:I,s:o,s:o,s:s,s:f,s:I,s:I,s:I,s:I,s:b}", "operation", info->operation, "id", id, "inputs",
                  (json_int_t)info->inputs, "outputs", (json_int_t)info->outputs, "shape", shape, "output_shape", output, "set",
                  info->params->name, "security_bits", info->params->security_bits, "layout", (json_int_t)info->layout,
                  "products", (json_int_t)info->products, "units", (json_int_t)info->units, "packed_rows",
                  (json_int_t)info->packed_rows, "bias", (int)info->has_bias);
    json_t *sizes =
        json_pack("{s:i,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "weight_bits", info->weight_bits, "input_bits",
                  info->input_bits, "b_bits", (json_int_t)info->b_bits, "reply_a_bits", (json_int_t)info->reply_a_bits,
                  "reply_b_bits", (json_int_t)info->reply_b_bits, "automorphisms", (json_int_t)info->automorphisms,
                  "evaluation_key_bytes", (json_int_t)info->evaluation_key_bytes, "upload_bytes",
                  (json_int_t)info->upload_bytes, "download_bytes", (json_int_t)info->download_bytes);
    json_object_set_new(sizes, "reply_ring", json_integer((json_int_t)info->reply_ring));
    json_t *errors = json_pack("{s:f,s:o,s:o,s:o}", "predicted_error", info->predicted_error, "output_max",
                               real_or_null(info->output_max), "relative_error", real_or_null(cli_relative_error(info)),
                               "expected_bits", real_or_null(cli_expected_bits(info)));
    json_object_update_missing(j, sizes);
    json_object_update_missing(j, errors);
    json_decref(sizes);
    json_decref(errors);
    if (cli_is_circuit(info)) {
        json_t *circuit = circuit_json(info, module);
        json_object_update_missing(j, circuit);
        json_decref(circuit);
    }
    return j;
}
