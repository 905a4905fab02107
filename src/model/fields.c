#include "model/fields.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

#define LIST_MAX 256

json_t *hemi_fields_integers(const uint32_t *v, size_t count) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(list, json_integer(v[i]));
    return list;
}

hemi_id_text hemi_id_write(const uint8_t id[HEMI_MODULE_ID_BYTES]) {
    hemi_id_text text;
    for (size_t i = 0; i < HEMI_MODULE_ID_BYTES; i++) (void)snprintf(text.s + 2 * i, 3, "%02x", id[i]);
    return text;
}

void hemi_fields_wrong(hemi_fields *r, const char *name, const char *expected) {
    if (r->status == HEMI_OK)
        r->status = hemi_fail(r->err, HEMI_ERR_FORMAT, "%s: \"%s\" should be %s", r->file, name, expected);
}

uint64_t hemi_fields_get_integer(hemi_fields *r, const char *name, uint64_t min, uint64_t max) {
    const json_t *v = json_object_get(r->object, name);
    const json_int_t i = json_integer_value(v);
    if (json_is_integer(v) && i >= 0 && (uint64_t)i >= min && (uint64_t)i <= max) return (uint64_t)i;
    char expected[80];
    (void)snprintf(expected, sizeof expected, "an integer from %llu to %llu", (unsigned long long)min,
                   (unsigned long long)max);
    hemi_fields_wrong(r, name, expected);
    return min;
}

double hemi_fields_get_real(hemi_fields *r, const char *name, double min, double max) {
    const json_t *v = json_object_get(r->object, name);
    const double x = json_number_value(v);
    if (json_is_number(v) && x >= min && x <= max) return x;
    char expected[80];
    (void)snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    hemi_fields_wrong(r, name, expected);
    return min;
}

const char *hemi_fields_get_string(hemi_fields *r, const char *name) {
    const json_t *v = json_object_get(r->object, name);
    if (!json_is_string(v)) hemi_fields_wrong(r, name, "a string");
    return json_is_string(v) ? json_string_value(v) : "";
}

bool hemi_fields_get_bool(hemi_fields *r, const char *name) {
    const json_t *v = json_object_get(r->object, name);
    if (!json_is_boolean(v)) hemi_fields_wrong(r, name, "true or false");
    return json_is_true(v);
}

/* An array of integers, min to max each, at least one and at most `room`; returns how many. */
size_t hemi_fields_get_integers(hemi_fields *r, const char *name, int64_t *out, size_t room, int64_t min, int64_t max) {
    const json_t *list = json_object_get(r->object, name);
    const size_t count = json_array_size(list);
    bool fits = json_is_array(list) && count <= room;
    for (size_t i = 0; fits && i < count; i++) {
        const json_t *v = json_array_get(list, i);
        const json_int_t n = json_integer_value(v);
        fits = json_is_integer(v) && n >= min && n <= max;
        if (fits) out[i] = n;
    }
    if (!fits) hemi_fields_wrong(r, name, "a list of integers that are in range");
    return fits ? count : 0;
}

/* The same, 1 to max. */
size_t hemi_fields_get_sizes(hemi_fields *r, const char *name, uint32_t *out, size_t room, int64_t max) {
    int64_t wide[LIST_MAX];
    const size_t count =
        hemi_fields_get_integers(r, name, wide, room < LIST_MAX ? room : LIST_MAX, 1, max);
    for (size_t i = 0; i < count; i++) out[i] = (uint32_t)wide[i];
    return count;
}

void hemi_fields_get_id(hemi_fields *r, const char *name, uint8_t id[HEMI_MODULE_ID_BYTES]) {
    const char *hex = hemi_fields_get_string(r, name);
    bool fits = strlen(hex) == 2 * HEMI_MODULE_ID_BYTES && strspn(hex, "0123456789abcdef") == 2 * HEMI_MODULE_ID_BYTES;
    for (size_t i = 0; fits && i < HEMI_MODULE_ID_BYTES; i++) {
        unsigned byte = 0;
        fits = sscanf(hex + 2 * i, "%2x", &byte) == 1;
        id[i] = (uint8_t)byte;
    }
    if (!fits) hemi_fields_wrong(r, name, "32 lower-case hexadecimal digits");
}

/* 1, then a sample of `numbers`; or, of rows, anything and `numbers` last. */
size_t hemi_fields_get_shape(hemi_fields *r, const char *name, uint32_t *shape, bool rows, uint32_t numbers) {
    const size_t rank = hemi_fields_get_sizes(r, name, shape, HEMI_SHAPE_MAX, UINT32_MAX);
    if (r->status != HEMI_OK) return rank;
    uint64_t product = 1;
    for (size_t i = 1; !rows && i < rank && product <= numbers; i++) product *= shape[i]; /* < 2^64 */
    if (rank < 2 || shape[0] != 1 || (rows ? shape[rank - 1] : product) != numbers)
        hemi_fields_wrong(r, name, rows ? "1, ..., and the features" : "1 and the sides of a sample");
    return rank;
}
