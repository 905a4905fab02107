/* Fields of a JSON object: written, and read with every field checked. Internal to the room. */
#ifndef HEMI_MODEL_FIELDS_H
#define HEMI_MODEL_FIELDS_H

#include <jansson.h>

#include "hemi/model.h"

json_t *hemi_fields_integers(const uint32_t *v, size_t count);
/* 128 bits in hexadecimal. */
typedef struct hemi_id_text {
    char s[2 * HEMI_MODULE_ID_BYTES + 1];
} hemi_id_text;

hemi_id_text hemi_id_write(const uint8_t id[HEMI_MODULE_ID_BYTES]);

/* Reading: the first thing that is wrong ends it; what follows gives the least value there may be. */
typedef struct hemi_fields {
    const json_t *object;
    const char *file; /* "client.json" */
    hemi_error *err;
    hemi_status status;
} hemi_fields;

void hemi_fields_wrong(hemi_fields *r, const char *name, const char *expected);
uint64_t hemi_fields_get_integer(hemi_fields *r, const char *name, uint64_t min, uint64_t max);
double hemi_fields_get_real(hemi_fields *r, const char *name, double min, double max);
const char *hemi_fields_get_string(hemi_fields *r, const char *name);
bool hemi_fields_get_bool(hemi_fields *r, const char *name);
/* An array of integers, min to max each, at least one and at most `room`; returns how many. */
size_t hemi_fields_get_integers(hemi_fields *r, const char *name, int64_t *out, size_t room, int64_t min, int64_t max);
/* The same, 1 to max. */
size_t hemi_fields_get_sizes(hemi_fields *r, const char *name, uint32_t *out, size_t room, int64_t max);
void hemi_fields_get_id(hemi_fields *r, const char *name, uint8_t id[HEMI_MODULE_ID_BYTES]);
/* 1, then a sample of `numbers`; or, of rows, anything and `numbers` last. Returns the rank. */
size_t hemi_fields_get_shape(hemi_fields *r, const char *name, uint32_t *shape, bool rows, uint32_t numbers);

#endif
