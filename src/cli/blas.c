#include "cli/blas.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/memory.h"

#define SAMPLES   51
#define WARM_UPS  5
#define BUDGET_MS 2000

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* of cblas.h */

typedef void (*sgemv_fn)(int order, int trans, int m, int n, float alpha, const float *a, int lda, const float *x,
                         int incx, float beta, float *y, int incy);
typedef void (*sgemm_fn)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                         const float *b, int ldb, float beta, float *c, int ldc);
typedef void (*set_threads_fn)(int threads);

typedef struct blas {
    void *library;
    sgemv_fn sgemv;
    sgemm_fn sgemm;
} blas;

static bool blas_open(blas *b) {
    b->library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!b->library) b->library = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
    if (!b->library) return false;
    b->sgemv = (sgemv_fn)dlsym(b->library, "cblas_sgemv");
    b->sgemm = (sgemm_fn)dlsym(b->library, "cblas_sgemm");
    set_threads_fn set_threads = (set_threads_fn)dlsym(b->library, "openblas_set_num_threads");
    if (!b->sgemv || !b->sgemm || !set_threads) return false; /* never closed: its threads may be running */
    set_threads(1);
    return true;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double cli_median(double *values, size_t count) {
    if (count == 0) return 0;
    qsort(values, count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void fill(float *a, size_t count) {
    for (size_t i = 0; i < count; i++) a[i] = (float)((i * 2654435761u) % 255) - 127.0f;
}

bool cli_blas_product_ms(double *ms, size_t inputs, size_t outputs, size_t rows) {
    blas b;
    if (!blas_open(&b)) return false;
    float *w = hemi_alloc_large(outputs * inputs, sizeof *w), *x = hemi_alloc(rows * inputs, sizeof *x);
    float *y = hemi_alloc(rows * outputs, sizeof *y);
    double samples[SAMPLES];
    size_t count = 0;
    if (w && x && y) {
        fill(w, outputs * inputs);
        fill(x, rows * inputs);
        int d = (int)inputs, m = (int)outputs, r = (int)rows;
        double begin = hemi_now_ms();
        for (int i = -WARM_UPS; i < SAMPLES && (count < 3 || hemi_now_ms() - begin < BUDGET_MS); i++) {
            double start = hemi_now_ms();
            if (r == 1)
                b.sgemv(ROW_MAJOR, NO_TRANS, m, d, 1, w, d, x, 1, 0, y, 1);
            else
                b.sgemm(ROW_MAJOR, NO_TRANS, TRANS, r, m, d, 1, x, d, w, d, 0, y, m);
            if (i >= 0) samples[count++] = hemi_now_ms() - start;
        }
        *ms = cli_median(samples, count);
    }
    hemi_free(w);
    hemi_free(x);
    hemi_free(y);
    return count > 0;
}
