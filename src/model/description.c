#include "model/description.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/plan.h"

#define BITS_SENT_MIN 8 /* of a coefficient on the wire; at most the bits of q */
#define SCALE_MIN     1e-200
#define SCALE_MAX     1e200

static unsigned bit_length(uint64_t x) { return 64u - (unsigned)__builtin_clzll(x); }

static const char *format_name(hemi_description_kind kind) {
    return kind == HEMI_CLIENT_DESCRIPTION ? "hemi-module" : "hemi-module-server";
}

/* ---- writing */

static json_t *layout_json(const hemi_linear_layout *l) {
    json_t *groups = json_array();
    for (size_t g = 0; g < l->groups; g++)
        json_array_append_new(groups, json_pack("{s:I,s:I,s:I}", "first", (json_int_t)l->group[g].first, "k",
                                                (json_int_t)l->group[g].k, "offset", (json_int_t)l->group[g].offset));
    return json_pack("{s:I,s:I,s:o}", "s", (json_int_t)l->s, "babies", (json_int_t)l->babies, "groups", groups);
}

static json_t *automorphisms_json(const hemi_module *m) {
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    const size_t count = hemi_module_key_entries(m, t);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(list, json_integer(t[i]));
    return list;
}

static json_t *shape_json(const hemi_module_info *info) {
    json_t *list = json_array();
    for (size_t i = 0; i < info->shape_rank; i++) json_array_append_new(list, json_integer(info->shape[i]));
    return list;
}

/* 128 bits in hexadecimal. */
typedef struct id_text {
    char s[2 * HEMI_MODULE_ID_BYTES + 1];
} id_text;

static id_text id_write(const uint8_t id[HEMI_MODULE_ID_BYTES]) {
    id_text text;
    for (size_t i = 0; i < HEMI_MODULE_ID_BYTES; i++) (void)snprintf(text.s + 2 * i, 3, "%02x", id[i]);
    return text;
}

hemi_status hemi_description_write(char **text, const hemi_module *m, hemi_description_kind kind, hemi_error *err) {
    const hemi_module_info *info = &m->info;
    id_text id = id_write(info->id), group = id_write(info->input_group);
    *text = NULL;
    json_t *j =
        json_pack("{s:s,s:i,s:s,s:s,s:s,s:I,s:I,s:o}", "format", format_name(kind), "version", HEMI_DESCRIPTION_VERSION,
                  "operation", info->operation, "module_id", id.s, "set", info->params->name, "inputs",
                  (json_int_t)info->inputs, "outputs", (json_int_t)info->outputs, "input_shape", shape_json(info));
    json_t *numbers =
        json_pack("{s:o,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:I,s:b,s:o}", "layout", layout_json(&m->layout), "b_bits",
                  (int)info->b_bits, "reply_a_bits", (int)info->reply_a_bits, "reply_b_bits", (int)info->reply_b_bits,
                  "weight_bits", info->weight_bits, "input_bits", info->input_bits, "input_scale", info->input_scale,
                  "output_scale", info->output_scale, "delta", (json_int_t)info->delta, "bias", (int)info->has_bias,
                  "automorphisms", automorphisms_json(m));
    int bad = j == NULL || numbers == NULL || json_object_update(j, numbers) != 0;
    if (!bad && info->reply_ring != 0)
        bad = json_object_set_new(j, "reply_ring", json_integer((json_int_t)info->reply_ring)) != 0;
    if (!bad && kind == HEMI_SERVER_DESCRIPTION)
        bad = json_object_set_new(j, "predicted_error", json_real(info->predicted_error)) != 0 ||
              json_object_set_new(j, "output_max", json_real(info->output_max)) != 0;
    if (!bad && info->has_input_group) bad = json_object_set_new(j, "input_group", json_string(group.s)) != 0;
    json_decref(numbers);
    char *dumped = bad ? NULL : json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(j);
    *text = dumped != NULL ? hemi_strdup(dumped) : NULL;
    free(dumped);
    return *text != NULL ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module's description");
}

/* ---- reading: the first thing that is wrong ends it */

typedef struct reader {
    const json_t *object;
    const char *file; /* "client.json" */
    hemi_error *err;
    hemi_status status;
} reader;

static void wrong(reader *r, const char *name, const char *expected) {
    if (r->status == HEMI_OK)
        r->status = hemi_fail(r->err, HEMI_ERR_FORMAT, "%s: \"%s\" should be %s", r->file, name, expected);
}

static uint64_t get_integer(reader *r, const char *name, uint64_t min, uint64_t max) {
    const json_t *v = json_object_get(r->object, name);
    const json_int_t i = json_integer_value(v);
    if (json_is_integer(v) && i >= 0 && (uint64_t)i >= min && (uint64_t)i <= max) return (uint64_t)i;
    char expected[80];
    (void)snprintf(expected, sizeof expected, "an integer from %llu to %llu", (unsigned long long)min,
                   (unsigned long long)max);
    wrong(r, name, expected);
    return min;
}

static double get_real(reader *r, const char *name, double min, double max) {
    const json_t *v = json_object_get(r->object, name);
    const double x = json_number_value(v);
    if (json_is_number(v) && x >= min && x <= max) return x;
    char expected[80];
    (void)snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    wrong(r, name, expected);
    return min;
}

static const char *get_string(reader *r, const char *name) {
    const json_t *v = json_object_get(r->object, name);
    if (!json_is_string(v)) wrong(r, name, "a string");
    return json_is_string(v) ? json_string_value(v) : "";
}

static bool get_bool(reader *r, const char *name) {
    const json_t *v = json_object_get(r->object, name);
    if (!json_is_boolean(v)) wrong(r, name, "true or false");
    return json_is_true(v);
}

/* An array of integers, 1 to `limit` each; returns how many. */
static size_t get_integers(reader *r, const char *name, uint32_t *out, size_t max, uint64_t limit) {
    const json_t *list = json_object_get(r->object, name);
    const size_t count = json_array_size(list);
    bool fits = json_is_array(list) && count <= max;
    for (size_t i = 0; fits && i < count; i++) {
        const json_t *v = json_array_get(list, i);
        const json_int_t n = json_integer_value(v);
        fits = json_is_integer(v) && n >= 1 && (uint64_t)n <= limit;
        if (fits) out[i] = (uint32_t)n;
    }
    if (!fits) wrong(r, name, "a list of integers that are in range");
    return fits ? count : 0;
}

static void read_kind(reader *r, hemi_description_kind kind) {
    if (strcmp(get_string(r, "format"), format_name(kind)) != 0) wrong(r, "format", format_name(kind));
    const json_t *version = json_object_get(r->object, "version");
    if (!json_is_integer(version)) wrong(r, "version", "an integer");
    if (r->status == HEMI_OK && json_integer_value(version) != HEMI_DESCRIPTION_VERSION)
        r->status = hemi_fail(
            r->err, HEMI_ERR_VERSION,
            "%s has version %lld, this program reads version %d: use the release that wrote it, or compile again",
            r->file, (long long)json_integer_value(version), HEMI_DESCRIPTION_VERSION);
    if (strcmp(get_string(r, "operation"), "linear") != 0 && r->status == HEMI_OK)
        r->status = hemi_fail(r->err, HEMI_ERR_UNSUPPORTED, "%s: the operation is not known to this release", r->file);
}

static void read_id(reader *r, const char *name, uint8_t id[HEMI_MODULE_ID_BYTES]) {
    const char *hex = get_string(r, name);
    bool fits = strlen(hex) == 2 * HEMI_MODULE_ID_BYTES && strspn(hex, "0123456789abcdef") == 2 * HEMI_MODULE_ID_BYTES;
    for (size_t i = 0; fits && i < HEMI_MODULE_ID_BYTES; i++) {
        unsigned byte = 0;
        fits = sscanf(hex + 2 * i, "%2x", &byte) == 1;
        id[i] = (uint8_t)byte;
    }
    if (!fits) wrong(r, name, "32 lower-case hexadecimal digits");
}

static const hemi_params *read_set(reader *r) {
    const hemi_params *params = hemi_params_by_name(get_string(r, "set"));
    if ((params == NULL || params->reply_only) && r->status == HEMI_OK)
        r->status = hemi_fail(r->err, HEMI_ERR_PARAMS, "%s: the parameter set is unknown, or not one of modules", r->file);
    return params;
}

static void read_shape(reader *r, hemi_module_info *info) {
    info->shape_rank = get_integers(r, "input_shape", info->shape, HEMI_SHAPE_MAX, UINT32_MAX);
    if (r->status != HEMI_OK) return;
    if (info->shape_rank < 2 || info->shape[0] != 1 || info->shape[info->shape_rank - 1] != info->inputs)
        wrong(r, "input_shape", "1, ..., inputs");
}

static void read_layout(reader *r, hemi_module *m, const hemi_params *params) {
    const uint64_t n = UINT64_C(1) << params->log2_n;
    const json_t *groups = json_object_get(json_object_get(r->object, "layout"), "groups");
    reader layout = {
        .object = json_object_get(r->object, "layout"), .file = r->file, .err = r->err, .status = r->status};
    const uint32_t s = (uint32_t)get_integer(&layout, "s", 1, n),
                   babies = (uint32_t)get_integer(&layout, "babies", 1, n);
    const size_t count = json_array_size(groups);
    hemi_linear_choice choice = {.s = s, .babies = babies, .groups = count};
    uint32_t first[HEMI_LINEAR_GROUPS_MAX] = {0}, offset[HEMI_LINEAR_GROUPS_MAX] = {0};
    if (count < 1 || count > HEMI_LINEAR_GROUPS_MAX) wrong(&layout, "groups", "a list of one or two");
    for (size_t g = 0; g < count && layout.status == HEMI_OK; g++) {
        layout.object = json_array_get(groups, g);
        first[g] = (uint32_t)get_integer(&layout, "first", 0, n);
        choice.k[g] = (uint32_t)get_integer(&layout, "k", 1, n);
        offset[g] = (uint32_t)get_integer(&layout, "offset", 0, n);
    }
    r->status = layout.status;
    if (r->status != HEMI_OK) return;
    hemi_error inner = {.status = HEMI_OK};
    if (hemi_linear_layout_rows(&m->layout, params, m->info.inputs, m->info.outputs, &choice, &inner) != HEMI_OK)
        r->status = hemi_fail(r->err, HEMI_ERR_FORMAT, "%s: the layout does not fit: %s", r->file, inner.message);
    for (size_t g = 0; g < count && r->status == HEMI_OK; g++)
        if (m->layout.group[g].first != first[g] || m->layout.group[g].offset != offset[g])
            wrong(r, "layout", "as its s, babies and k give it");
}

/* Absent: the set's own ring. */
static void read_reply_ring(reader *r, hemi_module *m) {
    if (json_object_get(r->object, "reply_ring") == NULL) return;
    const uint64_t half = m->layout.n / 2;
    m->info.reply_ring = (uint32_t)get_integer(r, "reply_ring", half, half);
    if (!hemi_linear_outputs_halve(&m->layout)) wrong(r, "reply_ring", "absent: the outputs do not fit that ring");
    if (m->info.reply_a_bits > bit_length(m->layout.params->reply->q) || m->info.reply_b_bits > bit_length(m->layout.params->reply->q))
        wrong(r, "reply_a_bits", "within the modulus of the ring of replies");
}

static void read_automorphisms(reader *r, hemi_module *m) {
    uint32_t there[HEMI_AUTOMORPHISMS_MAX], expected[HEMI_AUTOMORPHISMS_MAX];
    const size_t count = get_integers(r, "automorphisms", there, HEMI_AUTOMORPHISMS_MAX, UINT32_MAX);
    if (r->status != HEMI_OK) return;
    if (count != hemi_module_key_entries(m, expected) || memcmp(there, expected, count * sizeof *there) != 0)
        wrong(r, "automorphisms", "those that the layouts and the reply need");
}

static void read_fields(reader *r, hemi_module *m, hemi_description_kind kind) {
    hemi_module_info *info = &m->info;
    read_kind(r, kind);
    const hemi_params *params = r->status == HEMI_OK ? read_set(r) : NULL;
    if (r->status != HEMI_OK || params == NULL) return;
    const uint64_t n = UINT64_C(1) << params->log2_n;
    const unsigned q_bits = bit_length(params->q);
    read_id(r, "module_id", info->id);
    info->has_input_group = json_object_get(r->object, "input_group") != NULL;
    if (info->has_input_group) read_id(r, "input_group", info->input_group);
    info->inputs = (uint32_t)get_integer(r, "inputs", 1, n);
    info->outputs = (uint32_t)get_integer(r, "outputs", 1, n);
    read_shape(r, info);
    info->b_bits = (unsigned)get_integer(r, "b_bits", BITS_SENT_MIN, q_bits);
    info->reply_a_bits = (unsigned)get_integer(r, "reply_a_bits", BITS_SENT_MIN, q_bits);
    info->reply_b_bits = (unsigned)get_integer(r, "reply_b_bits", BITS_SENT_MIN, q_bits);
    info->weight_bits = (int)get_integer(r, "weight_bits", 2, 16);
    info->input_bits = (int)get_integer(r, "input_bits", 2, 16);
    info->input_scale = get_real(r, "input_scale", SCALE_MIN, SCALE_MAX);
    info->output_scale = get_real(r, "output_scale", SCALE_MIN, SCALE_MAX);
    /* a message of the largest input and weight 1 must fit */
    info->delta = get_integer(r, "delta", HEMI_DELTA_MIN, params->q / 2 / (uint64_t)hemi_module_input_max(m));
    info->has_bias = get_bool(r, "bias");
    if (kind == HEMI_SERVER_DESCRIPTION) {
        info->predicted_error = get_real(r, "predicted_error", 0, SCALE_MAX);
        info->output_max = get_real(r, "output_max", 0, SCALE_MAX);
    }
    if (r->status == HEMI_OK) read_layout(r, m, params);
    if (r->status == HEMI_OK) read_reply_ring(r, m);
    if (r->status == HEMI_OK) r->status = hemi_module_pack(m, r->err);
    if (r->status == HEMI_OK) read_automorphisms(r, m);
}

hemi_status hemi_description_read(hemi_module *m, const void *text, size_t bytes, hemi_description_kind kind,
                                  hemi_error *err) {
    const char *file = kind == HEMI_CLIENT_DESCRIPTION ? "client.json" : "server.json";
    if (bytes > HEMI_DESCRIPTION_BYTES_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s has %zu bytes, more than %d", file, bytes,
                         HEMI_DESCRIPTION_BYTES_MAX);
    json_error_t where;
    json_t *j = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (j == NULL)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s is not JSON (line %d, column %d)", file, where.line, where.column);
    reader r = {.object = j, .file = file, .err = err, .status = HEMI_OK};
    if (!json_is_object(j))
        r.status = hemi_fail(err, HEMI_ERR_FORMAT, "%s is not a JSON object", file);
    else
        read_fields(&r, m, kind);
    json_decref(j);
    return r.status;
}
