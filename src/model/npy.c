#include "model/npy.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#define MAGIC       "\x93NUMPY"
#define MAGIC_BYTES 6
#define START_BYTES 8  /* magic, version */
#define ALIGNMENT   64 /* of the data in what is written */
#define FILE_MODE   0644

/* ---- the header: a Python dict of three entries */

struct text {
    const char *at, *end;
};

static void skip_space(struct text *t) {
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t')) t->at++;
}

static bool take(struct text *t, char c) {
    skip_space(t);
    if (t->at == t->end || *t->at != c) return false;
    t->at++;
    return true;
}

static bool take_word(struct text *t, const char *word) {
    skip_space(t);
    const size_t length = strlen(word);
    if ((size_t)(t->end - t->at) < length || memcmp(t->at, word, length) != 0) return false;
    t->at += length;
    return true;
}

/* A quoted string without escapes. */
static bool take_string(struct text *t, char *out, size_t size) {
    skip_space(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"')) return false;
    const char quote = *t->at++;
    size_t n = 0;
    while (t->at < t->end && *t->at != quote && *t->at >= ' ' && *t->at < 127 && n + 1 < size) out[n++] = *t->at++;
    out[n] = '\0';
    return take(t, quote);
}

static bool take_dimension(struct text *t, uint32_t *out) {
    skip_space(t);
    uint64_t v = 0;
    const char *start = t->at;
    while (t->at < t->end && *t->at >= '0' && *t->at <= '9' && v <= UINT32_MAX) v = 10 * v + (uint64_t)(*t->at++ - '0');
    *out = (uint32_t)v;
    return t->at > start && v <= UINT32_MAX;
}

struct header {
    char descr[16];
    bool fortran, has_descr, has_order, has_shape;
    uint32_t shape[HEMI_NPY_RANK_MAX];
    size_t rank;
};

/* "(3, 4)", "(3,)", "()" */
static bool take_shape(struct text *t, struct header *h) {
    if (!take(t, '(')) return false;
    while (!take(t, ')')) {
        if (h->rank == HEMI_NPY_RANK_MAX || !take_dimension(t, &h->shape[h->rank])) return false;
        h->rank++;
        if (!take(t, ',')) return h->rank > 1 && take(t, ')');
    }
    return true;
}

static bool take_entry(struct text *t, struct header *h) {
    char key[16];
    if (!take_string(t, key, sizeof key) || !take(t, ':')) return false;
    if (strcmp(key, "descr") == 0 && !h->has_descr)
        return h->has_descr = true, take_string(t, h->descr, sizeof h->descr);
    if (strcmp(key, "shape") == 0 && !h->has_shape) return h->has_shape = true, take_shape(t, h);
    if (strcmp(key, "fortran_order") != 0 || h->has_order) return false;
    h->has_order = true;
    h->fortran = take_word(t, "True");
    return h->fortran || take_word(t, "False");
}

static bool parse_header(struct text t, struct header *h) {
    if (!take(&t, '{')) return false;
    while (!take(&t, '}')) {
        if (!take_entry(&t, h)) return false;
        if (take(&t, ',')) continue;
        if (!take(&t, '}')) return false;
        break;
    }
    skip_space(&t);
    return t.at == t.end && h->has_descr && h->has_order && h->has_shape;
}

/* ---- reading */

/* Finds the header's text and the data. */
static hemi_status split(const uint8_t *file, size_t bytes, struct text *header, size_t *data, hemi_error *err) {
    if (bytes < START_BYTES + 2 || memcmp(file, MAGIC, MAGIC_BYTES) != 0)
        return hemi_fail(err, HEMI_ERR_FORMAT, "this is not a .npy file (save arrays with numpy.save)");
    const unsigned version = file[MAGIC_BYTES];
    if (version < 1 || version > 3 || file[MAGIC_BYTES + 1] != 0)
        return hemi_fail(err, HEMI_ERR_VERSION, "npy version %u.%u: 1.0 to 3.0 are read", version,
                         file[MAGIC_BYTES + 1]);
    const size_t start = START_BYTES + (version == 1 ? 2 : 4);
    if (bytes < start) return hemi_fail(err, HEMI_ERR_FORMAT, "npy: the header is cut off");
    const size_t length = version == 1 ? hemi_load16(file + START_BYTES) : hemi_load32(file + START_BYTES);
    if (length > HEMI_NPY_HEADER_MAX || length > bytes - start)
        return hemi_fail(err, HEMI_ERR_FORMAT, "npy: a header of %zu bytes is cut off or too long", length);
    *header = (struct text){.at = (const char *)file + start, .end = (const char *)file + start + length};
    *data = start + length;
    return HEMI_OK;
}

static hemi_status check_header(const struct header *h, size_t *count, size_t *width, hemi_error *err) {
    *width = strcmp(h->descr, "<f4") == 0 ? 4 : strcmp(h->descr, "<f8") == 0 ? 8 : 0;
    if (*width == 0)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "npy: dtype '%s' is not read: convert with x.astype(numpy.float32)",
                         h->descr);
    if (h->fortran && h->rank > 1)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "npy: Fortran order is not read: convert with numpy.ascontiguousarray(x)");
    if (h->rank == 0) return hemi_fail(err, HEMI_ERR_SHAPE, "npy: a single number has no rows");
    *count = 1;
    for (size_t i = 0; i < h->rank; i++) {
        if (h->shape[i] == 0) return hemi_fail(err, HEMI_ERR_SHAPE, "npy: the array is empty");
        if (h->shape[i] > HEMI_NPY_FILE_MAX / *width / *count)
            return hemi_fail(err, HEMI_ERR_FORMAT, "npy: the shape is larger than the file");
        *count *= h->shape[i];
    }
    return HEMI_OK;
}

static float load_number(const uint8_t *p, size_t width) {
    if (width == 4) {
        const uint32_t bits = hemi_load32(p);
        float f;
        memcpy(&f, &bits, sizeof f);
        return f;
    }
    const uint64_t bits = hemi_load64(p);
    double d;
    memcpy(&d, &bits, sizeof d);
    return (float)d;
}

hemi_status hemi_npy_parse(float **out, uint32_t shape[HEMI_NPY_RANK_MAX], size_t *rank, const uint8_t *file,
                           size_t bytes, hemi_error *err) {
    struct text text;
    struct header h = {.rank = 0};
    size_t data = 0, count = 0, width = 0;
    *out = NULL;
    *rank = 0;
    HEMI_TRY(split(file, bytes, &text, &data, err));
    if (!parse_header(text, &h)) return hemi_fail(err, HEMI_ERR_FORMAT, "npy: the header is damaged");
    HEMI_TRY(check_header(&h, &count, &width, err));
    if (bytes - data != count * width)
        return hemi_fail(err, HEMI_ERR_FORMAT, "npy: %zu bytes of data where the shape asks for %zu", bytes - data,
                         count * width);
    float *numbers = hemi_alloc(count, sizeof *numbers);
    if (numbers == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu numbers", count);
    for (size_t i = 0; i < count; i++) numbers[i] = load_number(file + data + i * width, width);
    memcpy(shape, h.shape, h.rank * sizeof *shape);
    *rank = h.rank;
    *out = numbers;
    return HEMI_OK;
}

hemi_status hemi_npy_read(float **out, uint32_t shape[HEMI_NPY_RANK_MAX], size_t *rank, const char *path,
                          hemi_error *err) {
    uint8_t *file = NULL;
    size_t bytes = 0;
    *out = NULL;
    HEMI_TRY(hemi_file_read(&file, &bytes, path, HEMI_NPY_FILE_MAX, err));
    const hemi_status status = hemi_npy_parse(out, shape, rank, file, bytes, err);
    hemi_free(file);
    return status == HEMI_OK ? HEMI_OK : hemi_fail_in(err, status, "%s", path);
}

hemi_status hemi_npy_write(const char *path, const float *data, const uint32_t *shape, size_t rank, hemi_error *err) {
    char header[160];
    size_t count = 1;
    if (rank == 0 || rank > HEMI_NPY_RANK_MAX) return hemi_fail(err, HEMI_ERR_SHAPE, "npy: %zu dimensions", rank);
    int n = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] > HEMI_NPY_FILE_MAX / sizeof *data / count)
            return hemi_fail(err, HEMI_ERR_TOO_LARGE, "npy: the array is too large");
        count *= shape[i];
        if (shape[i] == 0) return hemi_fail(err, HEMI_ERR_SHAPE, "npy: the array is empty");
        n += snprintf(header + n, sizeof header - (size_t)n,
                      rank == 1      ? "%u,"
                      : i + 1 < rank ? "%u, "
                                     : "%u",
                      shape[i]);
    }
    n += snprintf(header + n, sizeof header - (size_t)n, "), }");
    const size_t start = START_BYTES + 2, begin = (start + (size_t)n + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    uint8_t *file = hemi_alloc(begin + 4 * count, 1);
    if (file == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu numbers", count);
    memcpy(file, MAGIC "\x01\x00", START_BYTES);
    hemi_store16(file + START_BYTES, (uint16_t)(begin - start));
    memset(file + start, ' ', begin - start - 1);
    memcpy(file + start, header, (size_t)n);
    file[begin - 1] = '\n';
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &data[i], sizeof bits);
        hemi_store32(file + begin + 4 * i, bits);
    }
    const hemi_status status = hemi_file_write(path, file, begin + 4 * count, FILE_MODE, err);
    hemi_free(file);
    return status;
}
