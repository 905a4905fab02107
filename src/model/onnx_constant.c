#include "model/onnx_constant.h"

#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"

/* TensorProto.DataType */
enum data_type {
    TYPE_FLOAT = 1,
    TYPE_UINT8 = 2,
    TYPE_INT8 = 3,
    TYPE_INT32 = 6,
    TYPE_INT64 = 7,
    TYPE_BOOL = 9,
    TYPE_FLOAT16 = 10,
    TYPE_DOUBLE = 11,
    TYPE_BFLOAT16 = 16
};
#define LOCATION_EXTERNAL 1
/* AttributeProto.AttributeType */
enum attribute_type { ATTRIBUTE_FLOAT = 1, ATTRIBUTE_INT = 2, ATTRIBUTE_FLOATS = 6, ATTRIBUTE_INTS = 7 };

hemi_onnx_text hemi_onnx_printable(const char *name) {
    hemi_onnx_text text = {{0}};
    size_t i = 0;
    for (; name != NULL && name[i] != '\0' && i < sizeof text.s - 4; i++)
        text.s[i] = name[i] >= ' ' && name[i] < 127 ? name[i] : '?';
    if (name != NULL && name[i] != '\0') memcpy(text.s + i, "...", 3);
    return text;
}

static size_t width_of(int32_t type) {
    switch (type) {
    case TYPE_BOOL:
    case TYPE_UINT8:
    case TYPE_INT8:
        return 1;
    case TYPE_FLOAT16:
    case TYPE_BFLOAT16:
        return 2;
    case TYPE_FLOAT:
    case TYPE_INT32:
        return 4;
    case TYPE_DOUBLE:
    case TYPE_INT64:
        return 8;
    default:
        return 0;
    }
}

/* How many numbers the tensor's typed field holds, where raw_data is not used. */
static size_t typed_count(const Hemi__Onnx__TensorProto *t) {
    switch (t->data_type) {
    case TYPE_FLOAT:
        return t->n_float_data;
    case TYPE_DOUBLE:
        return t->n_double_data;
    case TYPE_INT64:
        return t->n_int64_data;
    default:
        return t->n_int32_data; /* INT32, INT8, UINT8, BOOL, and the 16-bit floats as bit patterns */
    }
}

hemi_status hemi_onnx_constant_init(hemi_onnx_constant *c, const Hemi__Onnx__TensorProto *t, const char *name,
                                    hemi_error *err) {
    *c = (hemi_onnx_constant){.tensor = t, .name = name, .rank = t->n_dims, .count = 1};
    const hemi_onnx_text text = hemi_onnx_printable(name);
    if (t->n_dims > HEMI_ONNX_RANK_MAX)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the tensor '%s' has %zu dimensions; at most %d are read", text.s,
                         t->n_dims, HEMI_ONNX_RANK_MAX);
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] <= 0)
            return hemi_fail(err, HEMI_ERR_FORMAT, "the tensor '%s' has a dimension of %lld", text.s,
                             (long long)t->dims[i]);
        if ((uint64_t)t->dims[i] > SIZE_MAX / 16 / c->count)
            return hemi_fail(err, HEMI_ERR_FORMAT, "the dimensions of the tensor '%s' are too large", text.s);
        c->dims[i] = (size_t)t->dims[i];
        c->count *= c->dims[i];
    }
    if (t->data_location == LOCATION_EXTERNAL)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "the tensor '%s' is in another file: save the model with its weights in one file", text.s);
    const size_t width = width_of(t->data_type);
    if (width == 0)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "the tensor '%s' has data type %d: weights are read as FLOAT, DOUBLE, FLOAT16 or BFLOAT16",
                         text.s, (int)t->data_type);
    const size_t there = t->raw_data.len > 0 ? t->raw_data.len / width : typed_count(t);
    if (there != c->count || (t->raw_data.len > 0 && t->raw_data.len != c->count * width))
        return hemi_fail(err, HEMI_ERR_FORMAT, "the tensor '%s' has %zu numbers where its dimensions ask for %zu",
                         text.s, there, c->count);
    return HEMI_OK;
}

hemi_status hemi_onnx_constant_from_attribute(hemi_onnx_constant *c, const Hemi__Onnx__AttributeProto *a,
                                              const char *name, hemi_error *err) {
    if (strcmp(a->name, "value") == 0 && a->t != NULL) return hemi_onnx_constant_init(c, a->t, name, err);
    *c = (hemi_onnx_constant){.attribute = a, .name = name, .count = 1};
    if (strcmp(a->name, "value_float") == 0 && a->type == ATTRIBUTE_FLOAT) return HEMI_OK;
    if (strcmp(a->name, "value_int") == 0 && a->type == ATTRIBUTE_INT) return HEMI_OK;
    c->rank = 1;
    c->dims[0] = c->count = a->type == ATTRIBUTE_FLOATS ? a->n_floats : a->n_ints;
    if (strcmp(a->name, "value_floats") == 0 && a->type == ATTRIBUTE_FLOATS && c->count > 0) return HEMI_OK;
    if (strcmp(a->name, "value_ints") == 0 && a->type == ATTRIBUTE_INTS && c->count > 0) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the constant '%s' is not a tensor of numbers",
                     hemi_onnx_printable(name).s);
}

void hemi_onnx_constant_transpose(hemi_onnx_constant *c) {
    const size_t rows = c->dims[0];
    c->dims[0] = c->dims[1];
    c->dims[1] = rows;
    c->transposed = !c->transposed;
}

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float from_half(uint16_t h) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    float magnitude;
    if (exponent == 31)
        magnitude = fraction != 0 ? NAN : INFINITY;
    else
        magnitude = exponent == 0 ? ldexpf((float)fraction, -24) : ldexpf((float)(1024 + fraction), exponent - 25);
    return h >> 15 ? -magnitude : magnitude;
}

static int64_t integer(const Hemi__Onnx__TensorProto *t, size_t i) {
    const uint8_t *raw = t->raw_data.len > 0 ? t->raw_data.data : NULL;
    if (t->data_type == TYPE_INT64) return raw != NULL ? (int64_t)hemi_load64(raw + 8 * i) : t->int64_data[i];
    return raw != NULL ? (int32_t)hemi_load32(raw + 4 * i) : t->int32_data[i];
}

static float number(const Hemi__Onnx__TensorProto *t, size_t i) {
    const uint8_t *raw = t->raw_data.len > 0 ? t->raw_data.data : NULL;
    switch (t->data_type) {
    case TYPE_FLOAT:
        return raw != NULL ? from_bits(hemi_load32(raw + 4 * i)) : t->float_data[i];
    case TYPE_FLOAT16:
        return from_half(raw != NULL ? hemi_load16(raw + 2 * i) : (uint16_t)t->int32_data[i]);
    case TYPE_BFLOAT16:
        return from_bits((uint32_t)(raw != NULL ? hemi_load16(raw + 2 * i) : (uint16_t)t->int32_data[i]) << 16);
    case TYPE_UINT8:
    case TYPE_BOOL:
        return raw != NULL ? (float)raw[i] : (float)(uint8_t)t->int32_data[i];
    case TYPE_INT8:
        return raw != NULL ? (float)(int8_t)raw[i] : (float)(int8_t)t->int32_data[i];
    case TYPE_INT32:
    case TYPE_INT64:
        return (float)integer(t, i);
    default: {
        double d = 0;
        if (raw != NULL) {
            const uint64_t bits = hemi_load64(raw + 8 * i);
            memcpy(&d, &bits, sizeof d);
        } else {
            d = t->double_data[i];
        }
        return (float)d;
    }
    }
}

static bool is_float(int32_t type) {
    return type == TYPE_FLOAT || type == TYPE_DOUBLE || type == TYPE_FLOAT16 || type == TYPE_BFLOAT16;
}

static float number_of(const hemi_onnx_constant *c, size_t i) {
    return c->numbers != NULL ? c->numbers[i] : number(c->tensor, i);
}

hemi_status hemi_onnx_constant_floats(const hemi_onnx_constant *c, float *out, hemi_error *err) {
    if (c->attribute == NULL && c->numbers == NULL && (c->tensor == NULL || !is_float(c->tensor->data_type)))
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the constant '%s' holds integers where weights are expected",
                         hemi_onnx_printable(c->name).s);
    return hemi_onnx_constant_numbers(c, out, err);
}

bool hemi_onnx_constant_range(const hemi_onnx_constant *c, double *min, double *max) {
    const int32_t type = c->tensor != NULL ? c->tensor->data_type : TYPE_FLOAT;
    *min = type == TYPE_INT8 ? -128 : 0;
    *max = type == TYPE_INT8 ? 127 : 255;
    return type == TYPE_INT8 || type == TYPE_UINT8;
}

hemi_status hemi_onnx_constant_numbers(const hemi_onnx_constant *c, float *out, hemi_error *err) {
    if (c->attribute != NULL && c->attribute->type == ATTRIBUTE_FLOAT) {
        out[0] = c->attribute->f;
        return HEMI_OK;
    }
    if (c->attribute != NULL && c->attribute->type == ATTRIBUTE_FLOATS) {
        memcpy(out, c->attribute->floats, c->count * sizeof *out);
        return HEMI_OK;
    }
    if (c->numbers == NULL && c->tensor == NULL)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the constant '%s' holds integers where weights are expected",
                         hemi_onnx_printable(c->name).s);
    if (!c->transposed) {
        for (size_t i = 0; i < c->count; i++) out[i] = number_of(c, i);
        return HEMI_OK;
    }
    const size_t rows = c->dims[0], columns = c->dims[1];
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < rows; i++) out[i * columns + j] = number_of(c, j * rows + i);
    return HEMI_OK;
}

bool hemi_onnx_constant_is_integer(const hemi_onnx_constant *c) {
    if (c->integers != NULL) return true;
    if (c->attribute != NULL) return c->attribute->type == ATTRIBUTE_INT || c->attribute->type == ATTRIBUTE_INTS;
    return c->tensor != NULL && (c->tensor->data_type == TYPE_INT64 || c->tensor->data_type == TYPE_INT32);
}

hemi_status hemi_onnx_constant_ints(const hemi_onnx_constant *c, int64_t *out, size_t max, size_t *count,
                                    hemi_error *err) {
    if (c->rank <= 1) return hemi_onnx_constant_integers(c, out, max, count, err);
    return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the constant '%s' should be a list of at most %zu integers",
                     hemi_onnx_printable(c->name).s, max);
}

hemi_status hemi_onnx_constant_integers(const hemi_onnx_constant *c, int64_t *out, size_t max, size_t *count,
                                        hemi_error *err) {
    const hemi_onnx_text text = hemi_onnx_printable(c->name);
    if (c->count > max)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the constant '%s' should be a list of at most %zu integers",
                         text.s, max);
    *count = c->count;
    if (c->integers != NULL) {
        memcpy(out, c->integers, c->count * sizeof *out);
        return HEMI_OK;
    }
    if (c->attribute != NULL && c->attribute->type == ATTRIBUTE_INT) {
        out[0] = c->attribute->i;
        return HEMI_OK;
    }
    if (c->attribute != NULL && c->attribute->type == ATTRIBUTE_INTS) {
        memcpy(out, c->attribute->ints, c->count * sizeof *out);
        return HEMI_OK;
    }
    if (c->tensor == NULL || (c->tensor->data_type != TYPE_INT64 && c->tensor->data_type != TYPE_INT32))
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "the constant '%s' should be a list of integers", text.s);
    for (size_t i = 0; i < c->count; i++) out[i] = integer(c->tensor, i);
    return HEMI_OK;
}

bool hemi_onnx_constant_is_false(const hemi_onnx_constant *c) {
    if (c->tensor == NULL || c->tensor->data_type != TYPE_BOOL || c->count != 1) return false;
    return (c->tensor->raw_data.len > 0 ? c->tensor->raw_data.data[0] : c->tensor->int32_data[0]) == 0;
}
