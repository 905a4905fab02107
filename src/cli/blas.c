#include "cli/blas.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "base/cpu.h"

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* of cblas.h */

typedef void (*sgemv_fn)(int order, int trans, int m, int n, float alpha, const float *a, int lda, const float *x,
                         int incx, float beta, float *y, int incy);
typedef void (*sgemm_fn)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                         const float *b, int ldb, float beta, float *c, int ldc);
typedef void (*set_threads_fn)(int threads);
typedef char *(*corename_fn)(void);

static struct {
    bool tried, usable;
    sgemv_fn sgemv;
    sgemm_fn sgemm;
    corename_fn corename;
} blas;

/* OpenBLAS falls back to kernels for the oldest processors where it does not know a new one by its model number, and does as its environment
 * says: it is told what this processor can do. */
static void choose_core(void) {
    const char *core = hemi_cpu_has_avx512_ifma() ? "SkylakeX" : hemi_cpu_has_avx2_fma() ? "Haswell" : NULL;
    if (core) (void)setenv("OPENBLAS_CORETYPE", core, 1);
}

bool cli_blas_possible(void) {
    if (blas.tried) return blas.usable;
    blas.tried = true;
    choose_core();
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL); /* never closed: its threads may be running */
    if (!library) library = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    blas.sgemv = (sgemv_fn)dlsym(library, "cblas_sgemv");
    blas.sgemm = (sgemm_fn)dlsym(library, "cblas_sgemm");
    blas.corename = (corename_fn)dlsym(library, "openblas_get_corename");
    set_threads_fn set_threads = (set_threads_fn)dlsym(library, "openblas_set_num_threads");
    blas.usable = blas.sgemv && blas.sgemm && set_threads;
    if (blas.usable) set_threads(1);
    return blas.usable;
}

void cli_blas_product(float *y, size_t stride, const float *w, const float *x, size_t inputs, size_t outputs,
                      size_t rows) {
    const int d = (int)inputs, m = (int)outputs;
    if (rows == 1)
        blas.sgemv(ROW_MAJOR, NO_TRANS, m, d, 1, w, d, x, 1, 0, y, 1);
    else
        blas.sgemm(ROW_MAJOR, NO_TRANS, TRANS, (int)rows, m, d, 1, x, d, w, d, 0, y, (int)stride);
}

const char *cli_blas_core(void) { return cli_blas_possible() && blas.corename ? blas.corename() : ""; }
