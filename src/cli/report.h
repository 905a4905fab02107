/* What the commands print: errors, tables, JSON, numbers with units. */
#ifndef HEMI_CLI_REPORT_H
#define HEMI_CLI_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "hemi/model.h"

/* Says what went wrong on stderr (and as {"error": {"code", "message"}} on stdout with --json); returns the exit code. */
int cli_fail(const char *command, bool json, hemi_status status, const hemi_error *err);
/* Prints the object on stdout and releases it; returns the exit code (0). */
int cli_print_json(json_t *object);

/* A table whose columns are as wide as they need to be. Cells are copied. */
#define CLI_COLUMNS_MAX 16
#define CLI_CELL_BYTES  160
typedef struct cli_table {
    size_t columns, used, capacity;
    char (*cells)[CLI_CELL_BYTES]; /* row by row; the first row is the heading */
} cli_table;

void cli_table_start(cli_table *table, size_t columns, const char *const *headings);
void cli_table_cell(cli_table *table, const char *format, ...) HEMI_PRINTF(2, 3); /* cell by cell, row by row */
void cli_table_print(cli_table *table);                                           /* and releases it */
void cli_table_release(cli_table *table);

/* One "name   value" line of a report. */
void cli_line(const char *name, const char *format, ...) HEMI_PRINTF(2, 3);

/* "812 B", "12.3 KB", "1.4 MB" (powers of 1000). Returns text. */
const char *cli_bytes(char text[24], size_t bytes);
/* "po_1_768_pc" */
void cli_shape_name(char text[128], const uint32_t *shape, size_t rank);
/* What goes in and out: "768 -> 3072", or of samples "3x32x32 -> 16x32x32". */
void cli_sides(char text[128], const hemi_module_info *info);

/* Median of count values, which are sorted; 0 of none. */
double cli_median(double *values, size_t count);

/* Error of an output relative to the largest one seen on the calibration data, and the bits of accuracy that leaves; 0 where it is
 * not known. */
double cli_relative_error(const hemi_module_info *info);
double cli_expected_bits(const hemi_module_info *info);
bool cli_is_circuit(const hemi_module_info *info);
/* Whether calls take rows, of any number and leading shape, and not samples. */
bool cli_takes_rows(const hemi_module_info *info);
/* module: whose activations are listed, of circuits with weights. */
json_t *cli_module_json(const hemi_module_info *info, const hemi_module *module);
/* One of them: its name, numbers, range, degree and levels. */
void cli_activation_cells(cli_table *table, const hemi_activation_info *activation);
/* A table of them; nothing where there are none, or where they are not known. */
void cli_print_activations(const hemi_module *module);

#endif
