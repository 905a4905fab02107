#include "circuit/graph.h"

#include <math.h>

#include "base/error.h"
#include "base/memory.h"
#include "circuit/calibrate.h"

/* ---- maps */
size_t hemi_sparse_count(const hemi_sparse *m) {
    return m->column == NULL ? (size_t)m->rows * m->columns : (size_t)m->start[m->rows];
}

void hemi_sparse_clear(hemi_sparse *m) {
    hemi_free(m->start);
    hemi_free(m->column);
    hemi_free(m->weight);
    *m = (hemi_sparse){0};
}

void hemi_sparse_apply(double *y, const hemi_sparse *m, const double *x) {
    for (size_t i = 0; i < m->rows; i++) {
        double sum = 0;
        if (m->column == NULL) {
            const float *row = m->weight + i * m->columns;
            for (size_t j = 0; j < m->columns; j++) sum += (double)row[j] * x[j];
        } else {
            for (uint64_t e = m->start[i]; e < m->start[i + 1]; e++) sum += (double)m->weight[e] * x[m->column[e]];
        }
        y[i] += sum;
    }
}

void hemi_circuit_affine_clear(hemi_circuit_affine *a) {
    for (size_t t = 0; t < a->terms; t++) hemi_sparse_clear(&a->term[t].map);
    hemi_free(a->term);
    hemi_free(a->bias);
    *a = (hemi_circuit_affine){0};
}

void hemi_circuit_free(hemi_circuit *circuit) {
    if (circuit == NULL) return;
    for (size_t i = 0; circuit->value != NULL && i < circuit->values; i++) {
        hemi_circuit_value *v = &circuit->value[i];
        hemi_circuit_affine_clear(&v->a);
        hemi_circuit_affine_clear(&v->b);
        hemi_free(v->polynomial.coefficient);
    }
    hemi_free(circuit->value);
    hemi_free(circuit);
}

/* ---- running */
double hemi_circuit_quantise(double step, double low, double high, double x) {
    return step == 0 ? x : fmin(fmax(rint(x / step) * step, low), high);
}

double hemi_circuit_input_value(const hemi_circuit *circuit, double x) {
    return hemi_circuit_quantise(circuit->input_step, circuit->input_low, circuit->input_high, x);
}

/* y = a; number[i]: where value i is. */
static void affine_value(double *y, uint32_t size, const hemi_circuit_affine *a, double *const *number) {
    for (size_t i = 0; i < size; i++) y[i] = a->bias != NULL ? a->bias[i] : 0;
    for (size_t t = 0; t < a->terms; t++) hemi_sparse_apply(y, &a->term[t].map, number[a->term[t].source]);
}

static void value_of(double *y, double *factor, const hemi_circuit_value *v, double *const *number, bool polynomials) {
    affine_value(y, v->size, &v->a, number);
    if (v->kind == HEMI_CIRCUIT_PRODUCT) {
        affine_value(factor, v->size, &v->b, number);
        for (size_t i = 0; i < v->size; i++) y[i] *= factor[i];
    } else if (v->kind == HEMI_CIRCUIT_FUNCTION && polynomials) {
        const hemi_circuit_polynomial *p = &v->polynomial;
        for (size_t i = 0; i < v->size; i++)
            y[i] = hemi_chebyshev_value(p->coefficient, p->degree, (y[i] - p->middle) / p->radius);
    } else if (v->kind == HEMI_CIRCUIT_FUNCTION) {
        for (size_t i = 0; i < v->size; i++) y[i] = hemi_function_value(&v->function, y[i]);
    }
}

hemi_status hemi_circuit_run(const hemi_circuit *circuit, const double *x, double *y, bool polynomials, hemi_error *err) {
    size_t total = 0, largest = 0;
    for (size_t i = 0; i < circuit->values; i++) {
        total += circuit->value[i].size;
        if (circuit->value[i].size > largest) largest = circuit->value[i].size;
    }
    double **number = hemi_alloc(circuit->values, sizeof *number), *scratch = hemi_alloc(total + largest, sizeof *scratch);
    hemi_status status = HEMI_OK;
    if (number != NULL && scratch != NULL) {
        double *next = scratch + largest; /* before it: second factors */
        for (size_t i = 0; i < circuit->values; next += circuit->value[i].size, i++) number[i] = next;
        for (size_t i = 0; i < circuit->value[0].size; i++) number[0][i] = hemi_circuit_input_value(circuit, x[i]);
        for (size_t i = 1; i < circuit->values; i++)
            value_of(number[i], scratch, &circuit->value[i], number, polynomials);
        const size_t last = circuit->values - 1;
        for (size_t i = 0; i < circuit->value[last].size; i++) y[i] = number[last][i];
    } else {
        status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu numbers of a circuit", total);
    }
    hemi_free(number);
    hemi_free(scratch);
    return status;
}
