/* The numbers of a circuit as tensors: those of all values, one after the other, map before other map, term after term. */
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "model/circuit_module.h"
#include "model/safetensors.h"

enum { BIAS, COLUMN, POLYNOMIAL, START, WEIGHT, TENSORS };
static const struct {
    const char *name, *dtype;
    size_t width;
} kinds[TENSORS] = {{"bias", "F64", 8}, {"column", "U32", 4}, {"polynomial", "F64", 8}, {"start", "U32", 4}, {"weight", "F32", 4}};

/* Goes through a circuit's numbers in order: once to count, then to write or to read. */
typedef struct walk {
    size_t count[TENSORS];   /* numbers so far */
    uint8_t *at[TENSORS];    /* NULL: counting */
    bool read;
    const char *wrong;       /* reading: what was */
} walk;

static void double_at(walk *w, int kind, double *x) {
    uint64_t bits;
    uint8_t *p = w->at[kind] ? w->at[kind] + 8 * w->count[kind] : NULL;
    w->count[kind]++;
    if (!p) return;
    if (w->read) {
        bits = hemi_load64(p);
        memcpy(x, &bits, sizeof bits);
        if (!isfinite(*x)) w->wrong = "a number is infinite or not a number";
    } else {
        memcpy(&bits, x, sizeof bits);
        hemi_store64(p, bits);
    }
}

static void float_at(walk *w, float *x) {
    uint32_t bits;
    uint8_t *p = w->at[WEIGHT] ? w->at[WEIGHT] + 4 * w->count[WEIGHT] : NULL;
    w->count[WEIGHT]++;
    if (!p) return;
    if (w->read) {
        bits = hemi_load32(p);
        memcpy(x, &bits, sizeof bits);
        if (!isfinite(*x)) w->wrong = "a weight is infinite or not a number";
    } else {
        memcpy(&bits, x, sizeof bits);
        hemi_store32(p, bits);
    }
}

static uint32_t integer_at(walk *w, int kind, uint32_t x) {
    uint8_t *p = w->at[kind] ? w->at[kind] + 4 * w->count[kind] : NULL;
    w->count[kind]++;
    if (!p) return x;
    if (w->read) return hemi_load32(p);
    hemi_store32(p, x);
    return x;
}

/* Starts are those of all rows but the first, which is 0. The last one is known already, and must be found again. */
static void walk_pattern(walk *w, hemi_sparse *m) {
    const uint64_t entries = m->start[m->rows];
    for (uint32_t i = 1; i <= m->rows; i++) {
        const uint32_t start = integer_at(w, START, (uint32_t)m->start[i]);
        if (!w->read) continue;
        if (start < m->start[i - 1] || start > entries || (i == m->rows && start != entries)) w->wrong = "the rows of a map are not in order";
        m->start[i] = w->wrong ? entries : start;
    }
    for (uint32_t i = 0; i < m->rows; i++)
        for (uint64_t j = m->start[i]; j < m->start[i + 1]; j++) {
            const uint32_t column = integer_at(w, COLUMN, m->column[j]);
            if (!w->read) continue;
            if (column >= m->columns || (j > m->start[i] && column <= m->column[j - 1])) w->wrong = "the columns of a map are not in order";
            m->column[j] = w->wrong ? 0 : column;
        }
}

static void walk_affine(walk *w, hemi_circuit_affine *a, uint32_t size) {
    for (size_t i = 0; i < a->terms; i++) {
        hemi_sparse *m = &a->term[i].map;
        const size_t entries = m->column ? (size_t)m->start[m->rows] : (size_t)m->rows * m->columns;
        if (m->column) walk_pattern(w, m);
        if (w->wrong) return;
        for (size_t j = 0; j < entries; j++) float_at(w, &m->weight[j]);
    }
    for (uint32_t j = 0; a->bias && j < size; j++) double_at(w, BIAS, &a->bias[j]);
}

static void walk_circuit(walk *w, hemi_circuit *c) {
    memset(w->count, 0, sizeof w->count);
    for (size_t i = 0; i < c->values && !w->wrong; i++) {
        hemi_circuit_value *v = &c->value[i];
        walk_affine(w, &v->a, v->size);
        walk_affine(w, &v->b, v->size);
        for (uint32_t j = 0; v->polynomial.coefficient && j <= v->polynomial.degree; j++) double_at(w, POLYNOMIAL, &v->polynomial.coefficient[j]);
    }
}

hemi_status hemi_circuit_tensors_write(uint8_t **file, size_t *bytes, const hemi_circuit *circuit, hemi_error *err) {
    hemi_circuit *c = (hemi_circuit *)(uintptr_t)circuit; /* only read */
    hemi_tensor tensors[TENSORS];
    uint8_t *data[TENSORS] = {NULL};
    walk count = {0}, w = {0};
    hemi_status s = HEMI_OK;
    size_t used = 0;
    walk_circuit(&count, c);
    for (int k = 0; k < TENSORS && s == HEMI_OK; k++) {
        w.at[k] = data[k] = hemi_alloc_large(count.count[k] + 1, kinds[k].width);
        if (!data[k]) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu numbers", count.count[k]);
    }
    if (s == HEMI_OK) walk_circuit(&w, c);
    for (int k = 0; k < TENSORS && s == HEMI_OK; k++) {
        if (w.count[k] == 0) continue;
        hemi_tensor *t = &tensors[used++];
        *t = (hemi_tensor){.rank = 1, .dims = {w.count[k]}, .data = data[k], .bytes = w.count[k] * kinds[k].width};
        strcpy(t->name, kinds[k].name);
        strcpy(t->dtype, kinds[k].dtype);
    }
    if (s == HEMI_OK) s = hemi_safetensors_write(file, bytes, tensors, used, err);
    for (int k = 0; k < TENSORS; k++) hemi_free(data[k]);
    return s;
}

static int kind_of(const char *name) {
    int k = 0;
    while (k < TENSORS && strcmp(kinds[k].name, name) != 0) k++;
    return k;
}

/* There are just the tensors that the circuit's structure wants, of its sizes. */
static hemi_status match(walk *w, const walk *count, const hemi_tensor *tensors, size_t found, hemi_error *err) {
    for (size_t i = 0; i < found; i++) {
        const int k = kind_of(tensors[i].name);
        if (k == TENSORS || count->count[k] == 0) return hemi_fail(err, HEMI_ERR_FORMAT, "weights.safetensors: a tensor that does not belong there");
        if (strcmp(tensors[i].dtype, kinds[k].dtype) != 0 || tensors[i].rank != 1 || tensors[i].dims[0] != count->count[k])
            return hemi_fail(err, HEMI_ERR_FORMAT, "weights.safetensors: \"%s\" should be %s [%zu]", kinds[k].name, kinds[k].dtype, count->count[k]);
        w->at[k] = (uint8_t *)(uintptr_t)tensors[i].data; /* only read */
    }
    for (int k = 0; k < TENSORS; k++)
        if (count->count[k] > 0 && !w->at[k]) return hemi_fail(err, HEMI_ERR_FORMAT, "weights.safetensors: \"%s\" is missing", kinds[k].name);
    return HEMI_OK;
}

hemi_status hemi_circuit_tensors_read(hemi_circuit *c, const uint8_t *file, size_t bytes, hemi_error *err) {
    hemi_tensor tensors[HEMI_SAFETENSORS_COUNT_MAX];
    size_t found = 0;
    walk count = {0}, w = {.read = true};
    HEMI_TRY(hemi_safetensors_read(tensors, &found, file, bytes, err));
    for (size_t i = 0; i < c->values; i++) /* what patterns count is known from their last start alone */
        for (size_t half = 0; half < 2; half++) {
            const hemi_circuit_affine *a = half ? &c->value[i].b : &c->value[i].a;
            for (size_t j = 0; j < a->terms; j++) {
                const hemi_sparse *m = &a->term[j].map;
                if (m->column) count.count[START] += m->rows, count.count[COLUMN] += m->start[m->rows];
                count.count[WEIGHT] += m->column ? (size_t)m->start[m->rows] : (size_t)m->rows * m->columns;
            }
            if (a->bias) count.count[BIAS] += c->value[i].size;
            if (half == 0 && c->value[i].polynomial.coefficient) count.count[POLYNOMIAL] += c->value[i].polynomial.degree + 1;
        }
    HEMI_TRY(match(&w, &count, tensors, found, err));
    walk_circuit(&w, c);
    return w.wrong ? hemi_fail(err, HEMI_ERR_FORMAT, "weights.safetensors: %s", w.wrong) : HEMI_OK;
}
