#include "ckks/context.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "ckks/encoder.h"
#include "rlwe/context.h"

static hemi_status check_params(const hemi_params *p, hemi_error *err) {
    if (p->chain == 0) return hemi_fail(err, HEMI_ERR_PARAMS, "set %s has no levels: it is not for circuits", p->name);
    if (p->chain > HEMI_CKKS_CHAIN_MAX || p->specials == 0 || p->specials > HEMI_CKKS_DIGIT_MAX || p->digit_limbs == 0 ||
        p->digit_limbs > HEMI_CKKS_DIGIT_MAX || p->chain + p->specials > HEMI_RING_LIMBS_MAX)
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s: %u + %u primes in digits of %u", p->name, p->chain, p->specials, p->digit_limbs);
    for (uint32_t i = 0; i < p->chain + p->specials; i++)
        for (uint32_t j = 0; j < i; j++)
            if (p->prime[i] == p->prime[j]) return hemi_fail(err, HEMI_ERR_PARAMS, "set %s has a prime twice", p->name);
    return HEMI_OK;
}

static hemi_status fill_constants(hemi_ckks_context *ctx, hemi_error *err) {
    const uint32_t total = hemi_ckks_total(ctx);
    const uint64_t *p = ctx->params->prime;
    ctx->prime = hemi_alloc((size_t)total * total, sizeof *ctx->prime);
    ctx->prime_inverse = hemi_alloc((size_t)total * total, sizeof *ctx->prime_inverse);
    ctx->special_product = hemi_alloc(total, sizeof *ctx->special_product);
    ctx->special_inverse = hemi_alloc(total, sizeof *ctx->special_inverse);
    if (!ctx->prime || !ctx->prime_inverse || !ctx->special_product || !ctx->special_inverse)
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for parameter set %s", ctx->params->name);
    for (uint32_t j = 0; j < total; j++) {
        const hemi_modulus *m = &hemi_ckks_limb(ctx, j)->m;
        uint64_t product = 1;
        for (uint32_t i = 0; i < total; i++) {
            const uint64_t residue = p[i] % m->p;
            ctx->prime[i * total + j] = residue;
            if (i != j) ctx->prime_inverse[i * total + j] = hemi_mod_inverse(residue, m);
            if (i >= ctx->chain) product = hemi_mod_mul(product, residue, m);
        }
        ctx->special_product[j] = product; /* 0 modulo a special prime */
        if (j < ctx->chain) ctx->special_inverse[j] = hemi_mod_inverse(product, m);
    }
    return HEMI_OK;
}

hemi_status hemi_ckks_context_new(hemi_ckks_context **out, const hemi_params *params, const hemi_kernels *kernels, hemi_error *err) {
    *out = NULL;
    HEMI_TRY(check_params(params, err));
    hemi_ckks_context *ctx = hemi_alloc(1, sizeof *ctx);
    if (!ctx) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for parameter set %s", params->name);
    ctx->params = params;
    ctx->chain = params->chain;
    ctx->specials = params->specials;
    hemi_status s = hemi_ring_new(&ctx->ring, params->log2_n, params->prime, hemi_ckks_total(ctx), kernels, err);
    if (s == HEMI_OK) {
        ctx->n = ctx->ring->n;
        ctx->log2_n = ctx->ring->log2_n;
        ctx->slots = ctx->n / 2;
        ctx->k = ctx->ring->k;
        s = fill_constants(ctx, err);
    }
    if (s == HEMI_OK && !(ctx->encoder = hemi_ckks_encoder_new(ctx->log2_n)))
        s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for parameter set %s", params->name);
    if (s != HEMI_OK) {
        hemi_ckks_context_free(ctx);
        return s;
    }
    *out = ctx;
    return HEMI_OK;
}

void hemi_ckks_context_free(hemi_ckks_context *ctx) {
    if (!ctx) return;
    hemi_ckks_encoder_free(ctx->encoder);
    hemi_free(ctx->prime);
    hemi_free(ctx->prime_inverse);
    hemi_free(ctx->special_product);
    hemi_free(ctx->special_inverse);
    hemi_ring_free(ctx->ring);
    hemi_free(ctx);
}

static hemi_status make_context(void **out, const hemi_params *params, const hemi_kernels *kernels, hemi_error *err) {
    hemi_ckks_context *ctx;
    const hemi_status s = hemi_ckks_context_new(&ctx, params, kernels, err);
    *out = ctx; /* NULL on error */
    return s;
}

hemi_status hemi_ckks_context_shared(const hemi_ckks_context **out, const hemi_params *params, hemi_error *err) {
    static hemi_context_cache cache = {.lock = PTHREAD_MUTEX_INITIALIZER};
    void *found;
    const hemi_status s = hemi_context_cached(&found, &cache, make_context, params, err);
    *out = found;
    return s;
}

uint32_t hemi_ckks_rotation(const hemi_ckks_context *ctx, int64_t r) {
    const uint32_t mask = 2 * ctx->n - 1; /* 5 has the order n/2 modulo 2n, so r counts modulo the slots, a power of two */
    uint32_t t = 1, power = 5;
    for (uint64_t rest = (uint64_t)r & (ctx->slots - 1); rest; rest >>= 1) {
        if (rest & 1) t = t * power & mask;
        power = power * power & mask;
    }
    return t;
}
