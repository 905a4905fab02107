/* Choosing a table of kernels. */
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "ring/kernels.h"

static const hemi_kernels *const tables[] = {
    &hemi_kernels_portable,
#if defined(__x86_64__)
    &hemi_kernels_avx2,
    &hemi_kernels_avx512,
#endif
};

static bool runs_here(const hemi_kernels *k) {
#if defined(__x86_64__)
    if (k == &hemi_kernels_avx2) return hemi_cpu_has_avx2_fma();
    if (k == &hemi_kernels_avx512) return hemi_cpu_has_avx512_ifma();
#endif
    return k == &hemi_kernels_portable;
}

const hemi_kernels *hemi_kernels_at(size_t i) {
    for (size_t j = 0; j < sizeof tables / sizeof *tables; j++)
        if (runs_here(tables[j]) && i-- == 0) return tables[j];
    return NULL;
}

const hemi_kernels *hemi_kernels_by_name(const char *name) {
    const hemi_kernels *k;
    for (size_t i = 0; (k = hemi_kernels_at(i)) != NULL; i++)
        if (strcmp(k->name, name) == 0) return k;
    return NULL;
}

const hemi_kernels *hemi_kernels_default(void) {
    const char *wanted = getenv("HEMI_KERNEL");
    const hemi_kernels *best = wanted ? hemi_kernels_by_name(wanted) : NULL;
    const hemi_kernels *k;
    if (best) return best;
    for (size_t i = 0; (k = hemi_kernels_at(i)) != NULL; i++) best = k;
    return best;
}
