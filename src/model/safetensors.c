#include "model/safetensors.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"

#define LENGTH_BYTES 8

static size_t dtype_width(const char *dtype) {
    static const struct {
        const char *name;
        size_t width;
    } table[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"I16", 2}, {"U16", 2}, {"F16", 2}, {"BF16", 2},
                 {"I32", 4},  {"U32", 4}, {"F32", 4}, {"I64", 8}, {"U64", 8}, {"F64", 8}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(dtype, table[i].name) == 0) return table[i].width;
    return 0;
}

static hemi_status wrong(const char *what, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_FORMAT, "safetensors: %s", what);
}

/* A number from 0 to max. */
static bool get_size(const json_t *v, size_t max, size_t *out) {
    const json_int_t i = json_integer_value(v);
    if (!json_is_integer(v) || i < 0 || (uint64_t)i > max) return false;
    *out = (size_t)i;
    return true;
}

static hemi_status read_tensor(hemi_tensor *t, const char *name, const json_t *entry, const uint8_t *data, size_t bytes,
                               hemi_error *err) {
    *t = (hemi_tensor){.rank = 0};
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (strlen(name) >= sizeof t->name) return wrong("a tensor's name is too long", err);
    memcpy(t->name, name, strlen(name));
    if (!json_is_object(entry) || json_object_size(entry) != 3 || dtype == NULL || !json_is_array(shape) ||
        json_array_size(offsets) != 2)
        return wrong("a tensor should have dtype, shape and data_offsets", err);
    size_t need = dtype_width(dtype);
    if (need == 0) return wrong("a tensor's dtype is unknown", err);
    memcpy(t->dtype, dtype, strlen(dtype));
    t->rank = json_array_size(shape);
    if (t->rank > HEMI_SAFETENSORS_RANK_MAX) return wrong("a tensor has too many dimensions", err);
    for (size_t i = 0; i < t->rank; i++) {
        if (!get_size(json_array_get(shape, i), bytes, &t->dims[i]) || t->dims[i] == 0 || t->dims[i] > bytes / need)
            return wrong("a tensor's shape is larger than the file", err);
        need *= t->dims[i];
    }
    size_t begin = 0, end = 0;
    if (!get_size(json_array_get(offsets, 0), bytes, &begin) || !get_size(json_array_get(offsets, 1), bytes, &end) ||
        end < begin)
        return wrong("a tensor's data_offsets lie outside the file", err);
    if (end - begin != need) return wrong("a tensor's data_offsets do not fit its shape", err);
    t->data = data + begin;
    t->bytes = need;
    return HEMI_OK;
}

static int by_position(const void *a, const void *b) {
    const uint8_t *x = ((const hemi_tensor *)a)->data, *y = ((const hemi_tensor *)b)->data;
    return (x > y) - (x < y);
}

static hemi_status read_header(hemi_tensor *tensors, size_t *count, json_t *header, const uint8_t *data, size_t bytes,
                               hemi_error *err) {
    const char *name = NULL;
    json_t *entry = NULL;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        if (*count == HEMI_SAFETENSORS_COUNT_MAX)
            return hemi_fail(err, HEMI_ERR_TOO_LARGE, "safetensors: more than %d tensors", HEMI_SAFETENSORS_COUNT_MAX);
        HEMI_TRY(read_tensor(&tensors[*count], name, entry, data, bytes, err));
        ++*count;
    }
    qsort(tensors, *count, sizeof *tensors, by_position);
    const uint8_t *next = data;
    for (size_t i = 0; i < *count; i++) {
        if (tensors[i].data != next) return wrong("the tensors overlap or leave a hole", err);
        next += tensors[i].bytes;
    }
    return next == data + bytes ? HEMI_OK : wrong("there is data after the last tensor", err);
}

hemi_status hemi_safetensors_read(hemi_tensor tensors[HEMI_SAFETENSORS_COUNT_MAX], size_t *count, const uint8_t *file,
                                  size_t bytes, hemi_error *err) {
    *count = 0;
    if (bytes < LENGTH_BYTES) return wrong("the file is cut off", err);
    const uint64_t length = hemi_load64(file);
    if (length > HEMI_SAFETENSORS_HEADER_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "safetensors: a header of %llu bytes, more than %d",
                         (unsigned long long)length, HEMI_SAFETENSORS_HEADER_MAX);
    if (length > bytes - LENGTH_BYTES) return wrong("the header is cut off", err);
    if (length == 0 || file[LENGTH_BYTES] != '{') return wrong("the header is not JSON", err);
    json_t *header = json_loadb((const char *)file + LENGTH_BYTES, (size_t)length, JSON_REJECT_DUPLICATES, NULL);
    const size_t data = LENGTH_BYTES + (size_t)length;
    const hemi_status status = header != NULL && json_is_object(header)
                                   ? read_header(tensors, count, header, file + data, bytes - data, err)
                                   : wrong("the header is not JSON", err);
    json_decref(header);
    if (status != HEMI_OK) *count = 0;
    return status;
}

static json_t *tensor_json(const hemi_tensor *t, size_t begin) {
    json_t *shape = json_array();
    for (size_t i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer((json_int_t)t->dims[i]));
    return json_pack("{s:s,s:o,s:[I,I]}", "dtype", t->dtype, "shape", shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + t->bytes));
}

hemi_status hemi_safetensors_write(uint8_t **file, size_t *bytes, const hemi_tensor *tensors, size_t count,
                                   hemi_error *err) {
    size_t total = 0;
    json_t *header = json_object();
    for (size_t i = 0; i < count; i++) {
        json_object_set_new(header, tensors[i].name, tensor_json(&tensors[i], total));
        total += tensors[i].bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    const size_t length = text != NULL ? strlen(text) : 0, padded = (length + 7) & ~(size_t)7;
    const bool complete = text != NULL && json_object_size(header) == count;
    json_decref(header);
    *bytes = LENGTH_BYTES + padded + total;
    *file = complete ? hemi_alloc(*bytes, 1) : NULL;
    if (*file == NULL) {
        free(text);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a file of %zu bytes", *bytes);
    }
    hemi_store64(*file, padded);
    memset(*file + LENGTH_BYTES, ' ', padded);
    memcpy(*file + LENGTH_BYTES, text, length);
    free(text);
    uint8_t *at = *file + LENGTH_BYTES + padded;
    for (size_t i = 0; i < count; i++) {
        memcpy(at, tensors[i].data, tensors[i].bytes);
        at += tensors[i].bytes;
    }
    return HEMI_OK;
}
