#include "base/memory.h"
#include "linear/internal.h"

static hemi_workspace *workspace_new(const hemi_linear_layout *l) {
    const size_t n = l->n, sources = l->babies > 1 ? l->babies / 2 : 1, giants = l->group[0].giants;
    const size_t polynomials = 2 * sources + 2 * l->babies + 11, stride = n + 3 * HEMI_ALIGNMENT / sizeof(uint64_t);
    hemi_workspace *w = hemi_alloc(1, sizeof *w);
    if (!w) return NULL;
    w->storage = hemi_alloc_large(polynomials * n + 2 * giants * stride, sizeof *w->storage);
    if (!w->storage) {
        hemi_free(w);
        return NULL;
    }
    uint64_t *at = w->storage;
    w->source = at, at += 2 * sources * n;
    w->left0 = at, at += l->babies * n;
    w->left1 = at, at += l->babies * n;
    w->sum_stride = stride;
    w->sum0 = at, at += giants * stride;
    w->sum1 = at, at += giants * stride;
    uint64_t **polynomial[] = {&w->digit,     &w->u0.q,      &w->u0.p,       &w->u1.q,       &w->u1.p,     &w->first.e.q,
                               &w->first.e.p, &w->first.c1,  &w->second.e.q, &w->second.e.p, &w->second.c1};
    for (size_t i = 0; i < sizeof polynomial / sizeof *polynomial; i++, at += n) *polynomial[i] = at;
    return w;
}

hemi_workspace *hemi_workspace_take(const hemi_linear *linear) {
    hemi_linear *pool = (hemi_linear *)(uintptr_t)linear; /* the pool is the one thing that changes, under its lock */
    pthread_mutex_lock(&pool->lock);
    hemi_workspace *w = pool->idle;
    if (w) pool->idle = w->next;
    pthread_mutex_unlock(&pool->lock);
    return w ? w : workspace_new(&linear->layout);
}

void hemi_workspace_give(const hemi_linear *linear, hemi_workspace *w) {
    hemi_linear *pool = (hemi_linear *)(uintptr_t)linear;
    pthread_mutex_lock(&pool->lock);
    w->next = pool->idle;
    pool->idle = w;
    pthread_mutex_unlock(&pool->lock);
}
