#include "cli/model_shapes.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "wire/wire.h"

#define SIDE_MAX  65536
#define COUNT_MAX 4096

/* ---- models that are known by name */

static const cli_shapes known[] = {{"gpt2", /* GPT-2 small, 124 M */
                                    4,
                                    {{"attn.c_attn", 768, 2304, 12, 0},
                                     {"attn.c_proj", 768, 768, 12, 1},
                                     {"mlp.c_fc", 768, 3072, 12, 2},
                                     {"mlp.c_proj", 3072, 768, 12, 3}}},
                                   {"llama-3.2-1b",
                                    7,
                                    {{"q_proj", 2048, 2048, 16, 0},
                                     {"k_proj", 2048, 512, 16, 0},
                                     {"v_proj", 2048, 512, 16, 0},
                                     {"o_proj", 2048, 2048, 16, 3},
                                     {"gate_proj", 2048, 8192, 16, 4},
                                     {"up_proj", 2048, 8192, 16, 4},
                                     {"down_proj", 8192, 2048, 16, 6}}}};

/* ---- files */

static hemi_status wrong(const char *file, size_t i, const char *what, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_FORMAT, "%.200s: entry %zu %s", file, i, what);
}

static bool integer(const json_t *entry, const char *key, json_int_t otherwise, json_int_t max, json_int_t *out) {
    const json_t *v = json_object_get(entry, key);
    *out = v ? json_integer_value(v) : otherwise;
    return (!v || json_is_integer(v)) && *out >= 1 && *out <= max;
}

/* How many entries, the i-th included, read what `source` reads. */
static size_t sharing(const cli_shapes *s, size_t source, size_t i) {
    size_t n = 1;
    for (size_t j = 0; j < i; j++) n += s->shape[j].source == source;
    return n;
}

static hemi_status find_source(cli_shapes *s, size_t i, const json_t *with, const char *file, hemi_error *err) {
    cli_shape *shape = &s->shape[i];
    shape->source = i;
    if (!with) return HEMI_OK;
    if (!json_is_string(with)) return wrong(file, i, "has a \"shared_with\" that is not a name", err);
    size_t j = 0;
    while (j < i && strcmp(s->shape[j].name, json_string_value(with)) != 0) j++;
    if (j == i) return wrong(file, i, "shares its input with an entry that does not come before it", err);
    if (s->shape[j].inputs != shape->inputs || s->shape[j].count != shape->count)
        return wrong(file, i, "shares its input with an entry of other \"inputs\" or \"count\"", err);
    shape->source = s->shape[j].source;
    if (sharing(s, shape->source, i) > HEMI_REQUEST_MODULES_MAX)
        return wrong(file, i, "is one more than may share one input", err);
    return HEMI_OK;
}

static hemi_status read_entry(cli_shapes *s, size_t i, const json_t *entry, const char *file, hemi_error *err) {
    const json_t *name = json_object_get(entry, "name");
    json_int_t inputs, outputs, count;
    if (!json_is_string(name)) return wrong(file, i, "has no \"name\"", err);
    if (!integer(entry, "inputs", 0, SIDE_MAX, &inputs) || !integer(entry, "outputs", 0, SIDE_MAX, &outputs))
        return wrong(file, i, "needs \"inputs\" and \"outputs\", from 1 to 65536", err);
    if (!integer(entry, "count", 1, COUNT_MAX, &count))
        return wrong(file, i, "has a \"count\" that is not 1 to 4096", err);
    cli_shape *shape = &s->shape[i];
    snprintf(shape->name, sizeof shape->name, "%s", json_string_value(name));
    shape->inputs = (uint32_t)inputs;
    shape->outputs = (uint32_t)outputs;
    shape->count = (size_t)count;
    return find_source(s, i, json_object_get(entry, "shared_with"), file, err);
}

static hemi_status read_list(cli_shapes *s, const json_t *list, const char *file, hemi_error *err) {
    const char *slash = strrchr(file, '/');
    snprintf(s->name, sizeof s->name, "%s", slash ? slash + 1 : file);
    s->count = json_array_size(list);
    if (s->count < 1 || s->count > CLI_SHAPES_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%.200s: not a list of 1 to %d layers", file, CLI_SHAPES_MAX);
    for (size_t i = 0; i < s->count; i++) HEMI_TRY(read_entry(s, i, json_array_get(list, i), file, err));
    return HEMI_OK;
}

hemi_status cli_shapes_read(cli_shapes *s, const char *what, hemi_error *err) {
    *s = (cli_shapes){.count = 0};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, what) == 0) {
            *s = known[i];
            return HEMI_OK;
        }
    json_error_t e;
    json_t *list = json_load_file(what, JSON_REJECT_DUPLICATES, &e);
    if (!list && e.line < 0)
        return hemi_fail(err, HEMI_ERR_NOT_FOUND,
                         "'%.200s' is neither gpt2 nor llama-3.2-1b, nor a file that can be read", what);
    if (!list) return hemi_fail(err, HEMI_ERR_FORMAT, "%.200s: line %d: %.100s", what, e.line, e.text);
    const hemi_status status = read_list(s, list, what, err);
    json_decref(list);
    return status;
}

size_t cli_shapes_layers(const cli_shapes *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) n += s->shape[i].count;
    return n;
}

size_t cli_shapes_weights(const cli_shapes *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) n += s->shape[i].count * s->shape[i].inputs * s->shape[i].outputs;
    return n;
}
