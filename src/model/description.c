#include "model/description.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/circuit_module.h"
#include "model/fields.h"
#include "model/plan.h"
#include "rlwe/context.h"

#define BITS_SENT_MIN                8 /* of a coefficient on the wire; at most the bits of q */
#define SCALE_MIN                    1e-200
#define HEMI_DESCRIPTION_WEIGHTS_MAX (1u << 28)
#define SCALE_MAX                    1e200

static unsigned bit_length(uint64_t x) { return 64u - (unsigned)__builtin_clzll(x); }

static const char *format_name(hemi_description_kind kind) {
    return kind == HEMI_CLIENT_DESCRIPTION ? "hemi-module" : "hemi-module-server";
}

/* ---- writing */

static json_t *layout_json(const hemi_linear_layout *l) {
    const hemi_linear_choice c = hemi_linear_layout_choice(l);
    json_t *j = json_pack("{s:I,s:I,s:o}", "s", (json_int_t)c.s, "babies", (json_int_t)c.babies, "groups",
                          hemi_fields_integers(c.k, c.groups));
    json_t *unit = l->rows != 0
                       ? json_pack("{s:I,s:I}", "fan", (json_int_t)c.fan, "rows", (json_int_t)c.rows)
                       : json_pack("{s:I,s:I}", "tile_y", (json_int_t)c.tile_y, "tile_x", (json_int_t)c.tile_x);
    const bool good = json_object_update(j, unit) == 0;
    json_decref(unit);
    if (good) return j;
    json_decref(j);
    return NULL;
}

static json_t *grid_json(const hemi_grid *g) {
    return json_pack("{s:[I,I,I],s:[I,I,I],s:[I,I],s:[I,I],s:[I,I],s:[I,I],s:[I,I]}", "input",
                     (json_int_t)g->in_channels, (json_int_t)g->in_height, (json_int_t)g->in_width, "output",
                     (json_int_t)g->out_channels, (json_int_t)g->out_height, (json_int_t)g->out_width, "input_step",
                     (json_int_t)g->in_step_y, (json_int_t)g->in_step_x, "input_skip",
                     (json_int_t)(g->in_skip_y != 0 ? g->in_skip_y : 1),
                     (json_int_t)(g->in_skip_x != 0 ? g->in_skip_x : 1), "output_step", (json_int_t)g->out_step_y,
                     (json_int_t)g->out_step_x, "taps", (json_int_t)g->taps_y, (json_int_t)g->taps_x, "origin",
                     (json_int_t)g->origin_y, (json_int_t)g->origin_x);
}

static json_t *automorphisms_json(const hemi_module *m) {
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    const size_t count = hemi_module_key_entries(m, t);
    return hemi_fields_integers(t, count);
}

static hemi_status dump(char **text, json_t *j, int bad, hemi_error *err) {
    char *dumped = bad ? NULL : json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(j);
    *text = dumped != NULL ? hemi_strdup(dumped) : NULL;
    free(dumped);
    return *text != NULL ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module's description");
}

static int add_errors(json_t *j, const hemi_module_info *info) {
    return json_object_set_new(j, "predicted_error", json_real(info->predicted_error)) != 0 ||
           json_object_set_new(j, "output_max", json_real(info->output_max)) != 0;
}

/* Takes j. */
static hemi_status finish_circuit(char **text, json_t *j, const hemi_module *m, hemi_description_kind kind, hemi_error *err) {
    const bool server = kind == HEMI_SERVER_DESCRIPTION;
    int bad = j == NULL;
    if (!bad) bad = hemi_circuit_description_write(j, m, server, err) != HEMI_OK;
    if (!bad && server) bad = add_errors(j, &m->info);
    return dump(text, j, bad, err);
}

hemi_status hemi_description_write(char **text, const hemi_module *m, hemi_description_kind kind, hemi_error *err) {
    const hemi_module_info *info = &m->info;
    hemi_id_text id = hemi_id_write(info->id), group = hemi_id_write(info->input_group);
    *text = NULL;
    json_t *j = json_pack("{s:s,s:i,s:s,s:s,s:s,s:I,s:I,s:o,s:o}", "format", format_name(kind), "version",
                          HEMI_DESCRIPTION_VERSION, "operation", info->operation, "module_id", id.s, "set",
                          info->params->name, "inputs", (json_int_t)info->inputs, "outputs", (json_int_t)info->outputs,
                          "input_shape", hemi_fields_integers(info->shape, info->shape_rank), "output_shape",
                          hemi_fields_integers(info->output_shape, info->output_rank));
    if (m->is_circuit) return finish_circuit(text, j, m, kind, err);
    json_t *numbers =
        json_pack("{s:o,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:I,s:b,s:o}", "layout", layout_json(&m->layout), "b_bits",
                  (int)info->b_bits, "reply_a_bits", (int)info->reply_a_bits, "reply_b_bits", (int)info->reply_b_bits,
                  "weight_bits", info->weight_bits, "input_bits", info->input_bits, "input_scale", info->input_scale,
                  "output_scale", info->output_scale, "delta", (json_int_t)info->delta, "bias", (int)info->has_bias,
                  "automorphisms", automorphisms_json(m));
    int bad = j == NULL || numbers == NULL || json_object_update(j, numbers) != 0;
    if (!bad && m->is_grid) bad = json_object_set_new(j, "grid", grid_json(&m->grid)) != 0;
    if (!bad && m->has_packed) bad = json_object_set_new(j, "packed", layout_json(&m->packed)) != 0;
    if (!bad && info->reply_ring != 0)
        bad = json_object_set_new(j, "reply_ring", json_integer((json_int_t)info->reply_ring)) != 0;
    if (!bad && kind == HEMI_SERVER_DESCRIPTION) bad = add_errors(j, info);
    if (!bad && info->has_input_group) bad = json_object_set_new(j, "input_group", json_string(group.s)) != 0;
    json_decref(numbers);
    return dump(text, j, bad, err);
}

/* ---- reading: the first thing that is wrong ends it */

static void read_kind(hemi_fields *r, hemi_description_kind kind) {
    if (strcmp(hemi_fields_get_string(r, "format"), format_name(kind)) != 0) hemi_fields_wrong(r, "format", format_name(kind));
    const json_t *version = json_object_get(r->object, "version");
    if (!json_is_integer(version)) hemi_fields_wrong(r, "version", "an integer");
    if (r->status == HEMI_OK && json_integer_value(version) != HEMI_DESCRIPTION_VERSION)
        r->status = hemi_fail(
            r->err, HEMI_ERR_VERSION,
            "%s has version %lld, this program reads version %d: use the release that wrote it, or compile again",
            r->file, (long long)json_integer_value(version), HEMI_DESCRIPTION_VERSION);
}

static void read_operation(hemi_fields *r, hemi_module *m) {
    const char *operation = hemi_fields_get_string(r, "operation");
    m->is_grid = strcmp(operation, "conv") == 0;
    m->is_dense = strcmp(operation, "dense") == 0;
    m->is_circuit = strcmp(operation, "circuit") == 0;
    if (!m->is_grid && !m->is_dense && !m->is_circuit && strcmp(operation, "linear") != 0 && r->status == HEMI_OK)
        r->status = hemi_fail(r->err, HEMI_ERR_UNSUPPORTED, "%s: the operation is not known to this release", r->file);
}

static const hemi_params *read_set(hemi_fields *r, bool circuit) {
    const hemi_params *params = hemi_params_by_name(hemi_fields_get_string(r, "set"));
    if ((params == NULL || params->reply_only) && r->status == HEMI_OK)
        r->status =
            hemi_fail(r->err, HEMI_ERR_PARAMS, "%s: the parameter set is unknown, or not one of modules", r->file);
    if (params != NULL && r->status == HEMI_OK) {
        r->status = !circuit           ? hemi_context_check(params, r->err)
                    : params->chain > 0 ? HEMI_OK
                                        : hemi_fail(r->err, HEMI_ERR_PARAMS, "set %s is for linear maps, not for circuits", params->name);
        if (r->status != HEMI_OK) (void)hemi_fail_in(r->err, r->status, "%s", r->file);
    }
    return params;
}

static void read_shapes(hemi_fields *r, hemi_module *m) {
    hemi_module_info *info = &m->info;
    const bool rows = !m->is_grid && !m->is_dense;
    info->shape_rank = hemi_fields_get_shape(r, "input_shape", info->shape, rows, info->inputs);
    info->output_rank = hemi_fields_get_shape(r, "output_shape", info->output_shape, rows, info->outputs);
    if (r->status != HEMI_OK || !rows) return;
    if (info->output_rank != info->shape_rank ||
        memcmp(info->shape, info->output_shape, (info->shape_rank - 1) * sizeof *info->shape) != 0)
        hemi_fields_wrong(r, "output_shape", "the input's, up to the last dimension");
}

/* Exactly `count` integers of the grid, each a side, or an origin. */
static void read_sides(hemi_fields *r, const char *name, size_t count, uint32_t *const *out) {
    uint32_t v[3] = {1, 1, 1};
    if (hemi_fields_get_sizes(r, name, v, count, HEMI_GRID_SIDE_MAX) != count) hemi_fields_wrong(r, name, "a list of as many sides as it has");
    for (size_t i = 0; i < count; i++) *out[i] = v[i];
}

static void read_grid(hemi_fields *r, hemi_module *m) {
    hemi_grid *g = &m->grid;
    hemi_error inner = {.status = HEMI_OK};
    int64_t origin[2] = {0, 0};
    hemi_fields in = {.object = json_object_get(r->object, "grid"), .file = r->file, .err = r->err, .status = r->status};
    read_sides(&in, "input", 3, (uint32_t *const[]){&g->in_channels, &g->in_height, &g->in_width});
    read_sides(&in, "output", 3, (uint32_t *const[]){&g->out_channels, &g->out_height, &g->out_width});
    read_sides(&in, "input_step", 2, (uint32_t *const[]){&g->in_step_y, &g->in_step_x});
    read_sides(&in, "input_skip", 2, (uint32_t *const[]){&g->in_skip_y, &g->in_skip_x});
    read_sides(&in, "output_step", 2, (uint32_t *const[]){&g->out_step_y, &g->out_step_x});
    read_sides(&in, "taps", 2, (uint32_t *const[]){&g->taps_y, &g->taps_x});
    if (hemi_fields_get_integers(&in, "origin", origin, 2, -(int64_t)HEMI_GRID_SIDE_MAX, HEMI_GRID_SIDE_MAX) != 2)
        hemi_fields_wrong(&in, "origin", "two integers");
    g->origin_y = (int32_t)origin[0];
    g->origin_x = (int32_t)origin[1];
    r->status = in.status;
    if (r->status != HEMI_OK) return;
    if (hemi_grid_check(g, &inner) != HEMI_OK)
        r->status = hemi_fail(r->err, HEMI_ERR_FORMAT, "%s: the grid does not fit: %s", r->file, inner.message);
    else if (hemi_module_row_inputs(m) != m->info.inputs || hemi_module_row_outputs(m) != m->info.outputs)
        hemi_fields_wrong(r, "grid", "of the inputs and outputs");
    else if (hemi_grid_outputs(g) > HEMI_DESCRIPTION_WEIGHTS_MAX / hemi_grid_inputs(g) / g->taps_y / g->taps_x)
        hemi_fields_wrong(r, "grid", "of at most 2^28 weights");
}

static bool same_choice(const hemi_linear_choice *a, const hemi_linear_choice *b) {
    bool same = a->s == b->s && a->fan == b->fan && a->rows == b->rows && a->tile_y == b->tile_y &&
                a->tile_x == b->tile_x && a->babies == b->babies && a->groups == b->groups;
    for (size_t g = 0; same && g < a->groups; g++) same = a->k[g] == b->k[g];
    return same;
}

static void read_layout(hemi_fields *r, const char *name, hemi_linear_layout *l, const hemi_module *m,
                        const hemi_params *params) {
    const uint64_t n = UINT64_C(1) << params->log2_n;
    hemi_linear_choice c = {.groups = 0};
    hemi_error inner = {.status = HEMI_OK};
    hemi_fields in = {.object = json_object_get(r->object, name), .file = r->file, .err = r->err, .status = r->status};
    c.s = (uint32_t)hemi_fields_get_integer(&in, "s", 1, n);
    c.babies = (uint32_t)hemi_fields_get_integer(&in, "babies", 1, n);
    c.groups = hemi_fields_get_sizes(&in, "groups", c.k, HEMI_LINEAR_GROUPS_MAX, (int64_t)n);
    if (c.groups == 0) hemi_fields_wrong(&in, "groups", "a list of one or two");
    if (m->is_grid) {
        c.tile_y = (uint32_t)hemi_fields_get_integer(&in, "tile_y", 1, n);
        c.tile_x = (uint32_t)hemi_fields_get_integer(&in, "tile_x", 1, n);
    } else {
        c.fan = (uint32_t)hemi_fields_get_integer(&in, "fan", 1, n);
        c.rows = (uint32_t)hemi_fields_get_integer(&in, "rows", 1, n);
    }
    r->status = in.status;
    if (r->status != HEMI_OK) return;
    const hemi_status status = m->is_grid
                                   ? hemi_linear_layout_grid(l, params, &m->grid, &c, &inner)
                                   : hemi_linear_layout_rows(l, params, m->info.inputs, m->info.outputs, &c, &inner);
    if (status != HEMI_OK) {
        r->status = hemi_fail(r->err, HEMI_ERR_FORMAT, "%s: the layout does not fit: %s", r->file, inner.message);
        return;
    }
    hemi_linear_choice made = hemi_linear_layout_choice(l);
    if (m->is_grid)
        c.fan = made.fan, c.rows = made.rows;
    else
        c.tile_y = made.tile_y, c.tile_x = made.tile_x;
    if (!same_choice(&c, &made)) hemi_fields_wrong(r, name, "a layout that its numbers give");
}

/* Absent: the set's own ring. */
static void read_reply_ring(hemi_fields *r, hemi_module *m) {
    if (json_object_get(r->object, "reply_ring") == NULL) return;
    const uint64_t half = m->layout.n / 2;
    m->info.reply_ring = (uint32_t)hemi_fields_get_integer(r, "reply_ring", half, half);
    if (!hemi_linear_outputs_halve(&m->layout)) {
        hemi_fields_wrong(r, "reply_ring", "absent: the outputs do not fit that ring");
        return;
    }
    const unsigned bits = bit_length(m->layout.params->reply->q);
    if (m->info.reply_a_bits > bits || m->info.reply_b_bits > bits)
        hemi_fields_wrong(r, "reply_a_bits", "within the modulus of the ring of replies");
}

static void read_automorphisms(hemi_fields *r, hemi_module *m) {
    uint32_t there[HEMI_AUTOMORPHISMS_MAX], expected[HEMI_AUTOMORPHISMS_MAX];
    const size_t count = hemi_fields_get_sizes(r, "automorphisms", there, HEMI_AUTOMORPHISMS_MAX, UINT32_MAX);
    if (r->status != HEMI_OK) return;
    if (count != hemi_module_key_entries(m, expected) || memcmp(there, expected, count * sizeof *there) != 0)
        hemi_fields_wrong(r, "automorphisms", "those that the layouts and the reply need");
}

/* The one-row form must be one row, the other several. */
static void read_layouts(hemi_fields *r, hemi_module *m, const hemi_params *params) {
    read_layout(r, "layout", &m->layout, m, params);
    m->has_packed = r->status == HEMI_OK && json_object_get(r->object, "packed") != NULL;
    if (m->has_packed && m->is_grid) hemi_fields_wrong(r, "packed", "left out for a convolution");
    if (m->has_packed && r->status == HEMI_OK) read_layout(r, "packed", &m->packed, m, params);
    if (r->status != HEMI_OK || m->is_grid) return;
    if (m->layout.rows != 1) hemi_fields_wrong(r, "layout", "of one row");
    if (m->has_packed && m->packed.rows < 2) hemi_fields_wrong(r, "packed", "of several rows");
}

static void read_errors(hemi_fields *r, hemi_module_info *info) {
    info->predicted_error = hemi_fields_get_real(r, "predicted_error", 0, SCALE_MAX);
    info->output_max = hemi_fields_get_real(r, "output_max", 0, SCALE_MAX);
}

static void read_fields(hemi_fields *r, hemi_module *m, hemi_description_kind kind) {
    hemi_module_info *info = &m->info;
    read_kind(r, kind);
    if (r->status == HEMI_OK) read_operation(r, m);
    const hemi_params *params = r->status == HEMI_OK ? read_set(r, m->is_circuit) : NULL;
    if (r->status != HEMI_OK || params == NULL) return;
    const unsigned q_bits = bit_length(params->q);
    hemi_fields_get_id(r, "module_id", info->id);
    if (m->is_circuit) {
        info->params = params;
        hemi_circuit_description_read(r, m, kind == HEMI_SERVER_DESCRIPTION);
        if (kind == HEMI_SERVER_DESCRIPTION) read_errors(r, info);
        return;
    }
    info->has_input_group = json_object_get(r->object, "input_group") != NULL;
    if (info->has_input_group) hemi_fields_get_id(r, "input_group", info->input_group);
    info->inputs = (uint32_t)hemi_fields_get_integer(r, "inputs", 1, m->is_grid ? INT32_MAX : HEMI_LINEAR_FEATURES_MAX);
    info->outputs = (uint32_t)hemi_fields_get_integer(r, "outputs", 1, m->is_grid ? INT32_MAX : HEMI_LINEAR_FEATURES_MAX);
    read_shapes(r, m);
    info->b_bits = (unsigned)hemi_fields_get_integer(r, "b_bits", BITS_SENT_MIN, q_bits);
    info->reply_a_bits = (unsigned)hemi_fields_get_integer(r, "reply_a_bits", BITS_SENT_MIN, q_bits);
    info->reply_b_bits = (unsigned)hemi_fields_get_integer(r, "reply_b_bits", BITS_SENT_MIN, q_bits);
    info->weight_bits = (int)hemi_fields_get_integer(r, "weight_bits", 2, 16);
    info->input_bits = (int)hemi_fields_get_integer(r, "input_bits", 2, 16);
    info->input_scale = hemi_fields_get_real(r, "input_scale", SCALE_MIN, SCALE_MAX);
    info->output_scale = hemi_fields_get_real(r, "output_scale", SCALE_MIN, SCALE_MAX);
    /* a message of the largest input and weight 1 must fit */
    info->delta = hemi_fields_get_integer(r, "delta", HEMI_DELTA_MIN, params->q / 2 / (uint64_t)hemi_module_input_max(m));
    info->has_bias = hemi_fields_get_bool(r, "bias");
    if (kind == HEMI_SERVER_DESCRIPTION) read_errors(r, info);
    if (r->status == HEMI_OK && m->is_grid) read_grid(r, m);
    if (r->status == HEMI_OK) read_layouts(r, m, params);
    if (r->status == HEMI_OK) read_reply_ring(r, m);
    if (r->status == HEMI_OK) read_automorphisms(r, m);
}

hemi_status hemi_description_read(hemi_module *m, const void *text, size_t bytes, hemi_description_kind kind,
                                  hemi_error *err) {
    const char *file = kind == HEMI_CLIENT_DESCRIPTION ? "client.json" : "server.json";
    const size_t most = kind == HEMI_CLIENT_DESCRIPTION ? HEMI_DESCRIPTION_BYTES_MAX : HEMI_SERVER_DESCRIPTION_BYTES_MAX;
    if (bytes > most) return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s has %zu bytes, more than %zu", file, bytes, most);
    json_error_t where;
    json_t *j = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (j == NULL)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s is not JSON (line %d, column %d)", file, where.line, where.column);
    hemi_fields r = {.object = j, .file = file, .err = err, .status = HEMI_OK};
    if (!json_is_object(j))
        r.status = hemi_fail(err, HEMI_ERR_FORMAT, "%s is not a JSON object", file);
    else
        read_fields(&r, m, kind);
    json_decref(j);
    return r.status;
}
