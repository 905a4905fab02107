/* Operations limb by limb: none of them changes the secret that a ciphertext is under. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "ckks/workspace.h"

hemi_status hemi_ckks_cipher_init(hemi_ckks_cipher *c, const hemi_ckks_context *ctx, uint32_t limbs, hemi_error *err) {
    *c = (hemi_ckks_cipher){.limbs = limbs};
    c->c0 = hemi_alloc_large(2 * (size_t)limbs * ctx->n, sizeof *c->c0);
    if (!c->c0) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a ciphertext of %u limbs", limbs);
    c->c1 = c->c0 + (size_t)limbs * ctx->n;
    return HEMI_OK;
}

void hemi_ckks_cipher_clear(hemi_ckks_cipher *c) {
    hemi_free(c->c0);
    *c = (hemi_ckks_cipher){0};
}

static uint32_t fewer(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* One operation on both components of every limb. */
typedef struct limbwise {
    hemi_ckks_workspace *w;
    hemi_ckks_cipher *r;
    const hemi_ckks_cipher *a, *b;
    const uint64_t *pt;
    int64_t constant;
} limbwise;

static void run(hemi_ckks_workspace *w, uint32_t limbs, hemi_step step, limbwise *x) {
    x->w = w;
    hemi_team_run(w->team, limbs, step, x);
}

static void add_step(void *context, size_t i, size_t worker) {
    const limbwise *x = context;
    const size_t n = x->w->ctx->n, at = i * n;
    const hemi_modulus *m = &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m;
    (void)worker;
    x->w->ctx->k->add(x->r->c0 + at, x->a->c0 + at, x->b->c0 + at, n, m);
    x->w->ctx->k->add(x->r->c1 + at, x->a->c1 + at, x->b->c1 + at, n, m);
}

static void sub_step(void *context, size_t i, size_t worker) {
    const limbwise *x = context;
    const size_t n = x->w->ctx->n, at = i * n;
    const hemi_modulus *m = &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m;
    (void)worker;
    x->w->ctx->k->sub(x->r->c0 + at, x->a->c0 + at, x->b->c0 + at, n, m);
    x->w->ctx->k->sub(x->r->c1 + at, x->a->c1 + at, x->b->c1 + at, n, m);
}

void hemi_ckks_add(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b) {
    r->limbs = fewer(a->limbs, b->limbs);
    r->scale = a->scale;
    run(w, r->limbs, add_step, &(limbwise){.r = r, .a = a, .b = b});
}

void hemi_ckks_sub(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b) {
    r->limbs = fewer(a->limbs, b->limbs);
    r->scale = a->scale;
    run(w, r->limbs, sub_step, &(limbwise){.r = r, .a = a, .b = b});
}

static void constant_step(void *context, size_t i, size_t worker) {
    const limbwise *x = context;
    const size_t n = x->w->ctx->n, at = i * n;
    const hemi_modulus *m = &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m;
    const uint64_t s = hemi_mod_from_signed(x->constant, m);
    (void)worker;
    x->w->ctx->k->mul_scalar(x->r->c0 + at, x->a->c0 + at, s, n, m);
    x->w->ctx->k->mul_scalar(x->r->c1 + at, x->a->c1 + at, s, n, m);
}

void hemi_ckks_mul_constant(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, double constant, double scale) {
    r->limbs = a->limbs;
    run(w, r->limbs, constant_step, &(limbwise){.r = r, .a = a, .constant = llrint(constant * scale)});
    r->scale = a->scale * scale;
}

static void constant_add_step(void *context, size_t i, size_t worker) {
    const limbwise *x = context;
    const hemi_kernels *k = x->w->ctx->k;
    const size_t n = x->w->ctx->n, at = i * n;
    const hemi_modulus *m = &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m;
    const uint64_t s = hemi_mod_from_signed(x->constant, m);
    uint64_t *scratch = hemi_ckks_scratch(x->w, worker);
    k->mul_scalar(scratch, x->a->c0 + at, s, n, m);
    k->add(x->r->c0 + at, x->r->c0 + at, scratch, n, m);
    k->mul_scalar(scratch, x->a->c1 + at, s, n, m);
    k->add(x->r->c1 + at, x->r->c1 + at, scratch, n, m);
}

void hemi_ckks_mul_constant_add(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, double constant, double scale) {
    run(w, r->limbs, constant_add_step, &(limbwise){.r = r, .a = a, .constant = llrint(constant * scale)});
}

static void add_constant_step(void *context, size_t i, size_t worker) {
    const limbwise *x = context;
    const size_t n = x->w->ctx->n;
    const hemi_modulus *m = &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m;
    const uint64_t s = hemi_mod_from_signed(x->constant, m);
    uint64_t *c0 = x->r->c0 + i * n;
    (void)worker;
    for (size_t j = 0; j < n; j++) c0[j] = hemi_mod_add(c0[j], s, m);
}

void hemi_ckks_add_constant(hemi_ckks_workspace *w, hemi_ckks_cipher *r, double constant) {
    run(w, r->limbs, add_constant_step, &(limbwise){.r = r, .constant = llrint(constant * r->scale)});
}

static void plain_step(void *context, size_t i, size_t worker) {
    const limbwise *x = context;
    const size_t n = x->w->ctx->n, at = i * n;
    const hemi_modulus *m = &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m;
    (void)worker;
    x->w->ctx->k->mul(x->r->c0 + at, x->a->c0 + at, x->pt + at, n, m);
    x->w->ctx->k->mul(x->r->c1 + at, x->a->c1 + at, x->pt + at, n, m);
}

void hemi_ckks_mul_plain(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const uint64_t *pt, double scale) {
    r->limbs = a->limbs;
    run(w, r->limbs, plain_step, &(limbwise){.r = r, .a = a, .pt = pt});
    r->scale = a->scale * scale;
}

static void add_plain_step(void *context, size_t i, size_t worker) {
    const limbwise *x = context;
    const size_t n = x->w->ctx->n, at = i * n;
    (void)worker;
    x->w->ctx->k->add(x->r->c0 + at, x->r->c0 + at, x->pt + at, n, &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m);
}

void hemi_ckks_add_plain(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const uint64_t *pt) {
    run(w, r->limbs, add_plain_step, &(limbwise){.r = r, .pt = pt});
}

/* ---- products */

typedef struct product {
    hemi_ckks_workspace *w;
    const hemi_ckks_cipher *a, *b;
    int64_t constant;
    bool begun, multiplied, twice;
} product;

static void multiply_step(void *context, size_t i, size_t worker) {
    const product *x = context;
    const hemi_kernels *k = x->w->ctx->k;
    const size_t n = x->w->ctx->n, at = i * n;
    const hemi_modulus *m = &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m;
    const uint64_t *a0 = x->a->c0 + at, *a1 = x->a->c1 + at, *b0 = x->b->c0 + at, *b1 = x->b->c1 + at;
    uint64_t *d0 = x->w->product[0] + at, *d1 = x->w->product[1] + at, *d2 = x->w->product[2] + at;
    if (x->twice) {
        uint64_t *scratch = hemi_ckks_scratch(x->w, worker);
        k->add(scratch, a0, a0, n, m);
        k->add(scratch + n, a1, a1, n, m);
        a0 = scratch;
        a1 = scratch + n;
    }
    (x->begun ? k->mul_add : k->mul)(d0, a0, b0, n, m);
    (x->begun ? k->mul_add : k->mul)(d1, a0, b1, n, m);
    k->mul_add(d1, a1, b0, n, m);
    (x->multiplied ? k->mul_add : k->mul)(d2, a1, b1, n, m);
}

static void multiple_step(void *context, size_t i, size_t worker) {
    const product *x = context;
    const hemi_kernels *k = x->w->ctx->k;
    const size_t n = x->w->ctx->n, at = i * n;
    const hemi_modulus *m = &hemi_ckks_limb(x->w->ctx, (uint32_t)i)->m;
    const uint64_t s = hemi_mod_from_signed(x->constant, m), *from[] = {x->a->c0 + at, x->a->c1 + at};
    uint64_t *scratch = hemi_ckks_scratch(x->w, worker);
    for (size_t half = 0; half < 2; half++) {
        uint64_t *to = x->w->product[half] + at;
        k->mul_scalar(x->begun ? scratch : to, from[half], s, n, m);
        if (x->begun) k->add(to, to, scratch, n, m);
    }
}

void hemi_ckks_sum_product(hemi_ckks_sum *sum, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b, bool twice) {
    product x = {.w = sum->w, .a = a, .b = b, .begun = sum->begun, .multiplied = sum->multiplied, .twice = twice};
    hemi_team_run(sum->w->team, sum->limbs, multiply_step, &x);
    sum->begun = sum->multiplied = true;
}

void hemi_ckks_sum_multiple(hemi_ckks_sum *sum, const hemi_ckks_cipher *a, double constant) {
    product x = {.w = sum->w, .a = a, .begun = sum->begun, .constant = llrint(constant * (sum->scale / a->scale))};
    hemi_team_run(sum->w->team, sum->limbs, multiple_step, &x);
    sum->begun = true;
}

/* r = the sum, relinearised; perhaps rescaled. */
static void relinearise(const hemi_ckks_sum *sum, hemi_ckks_cipher *r, const hemi_ckks_keys *keys, const hemi_ckks_key *key, bool rescales) {
    hemi_ckks_workspace *w = sum->w;
    hemi_ckks_switch(w, &(hemi_ckks_switching){.keys = keys, .key = {key}, .r = {r}, .count = 1, .c1 = w->product[2],
                                               .plus = {w->product[0], w->product[1]}, .limbs = sum->limbs, .rescales = rescales});
    r->limbs = rescales ? sum->limbs - 1 : sum->limbs;
    r->scale = rescales ? sum->scale / (double)hemi_ckks_limb(w->ctx, r->limbs)->m.p : sum->scale;
}

static hemi_status find_key(const hemi_ckks_key **key, const hemi_ckks_keys *keys, hemi_error *err) {
    *key = hemi_ckks_keys_find(keys, HEMI_CKKS_KEY_PRODUCT);
    return *key ? HEMI_OK : hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys have none for products");
}

hemi_status hemi_ckks_sum_end(hemi_ckks_sum *sum, hemi_ckks_cipher *r, const hemi_ckks_keys *keys, hemi_error *err) {
    const hemi_ckks_key *key;
    const size_t bytes = sum->limbs * (size_t)sum->w->ctx->n * sizeof *r->c0;
    for (size_t half = 0; half < 2 && !sum->begun; half++) memset(sum->w->product[half], 0, bytes);
    if (!sum->multiplied) {
        hemi_ckks_rescale(sum->w, r, &(hemi_ckks_cipher){sum->limbs, sum->scale, sum->w->product[0], sum->w->product[1]});
        return HEMI_OK;
    }
    HEMI_TRY(find_key(&key, keys, err));
    relinearise(sum, r, keys, key, true);
    return HEMI_OK;
}

static hemi_status multiply(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b, bool rescales,
                            const hemi_ckks_keys *keys, hemi_error *err) {
    const hemi_ckks_key *key;
    HEMI_TRY(find_key(&key, keys, err));
    hemi_ckks_sum sum = hemi_ckks_sum_begin(w, fewer(a->limbs, b->limbs), a->scale * b->scale);
    hemi_ckks_sum_product(&sum, a, b, false);
    relinearise(&sum, r, keys, key, rescales);
    return HEMI_OK;
}

hemi_status hemi_ckks_mul(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b,
                          const hemi_ckks_keys *keys, hemi_error *err) {
    return multiply(w, r, a, b, false, keys, err);
}

hemi_status hemi_ckks_mul_rescale(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b,
                                  const hemi_ckks_keys *keys, hemi_error *err) {
    return multiply(w, r, a, b, true, keys, err);
}
