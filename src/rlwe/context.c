#include "rlwe/context.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "rlwe/ringswitch.h"

static uint32_t family(const hemi_context *ctx, uint32_t i) { return i < ctx->log2_n ? 1 + (2u << i) : 2 * ctx->n - 1; }

hemi_status hemi_context_check(const hemi_params *params, hemi_error *err) {
    return params->chain == 0 ? HEMI_OK
                              : hemi_fail(err, HEMI_ERR_PARAMS, "set %s is for circuits (modules with non-linearities), not for linear maps",
                                          params->name);
}

hemi_status hemi_context_new(hemi_context **out, const hemi_params *params, const hemi_kernels *kernels, hemi_error *err) {
    *out = NULL;
    HEMI_TRY(hemi_context_check(params, err));
    hemi_context *ctx = hemi_alloc(1, sizeof *ctx);
    if (!ctx) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for parameter set %s", params->name);
    const uint64_t primes[2] = {params->q, params->special};
    ctx->params = params;
    ctx->log2_n = params->log2_n;
    hemi_status s = hemi_ring_new(&ctx->ring, params->log2_n, primes, params->special ? 2 : 1, kernels, err);
    if (s == HEMI_OK) {
        ctx->n = ctx->ring->n; /* the degree has been checked */
        ctx->k = ctx->ring->k;
        ctx->q = &ctx->ring->limb[0];
        if (params->special) {
            ctx->special = &ctx->ring->limb[1];
            ctx->special_mod_q = params->special % params->q;
            ctx->special_inverse = hemi_mod_inverse(ctx->special_mod_q, &ctx->q->m);
        }
        for (uint32_t i = 0; s == HEMI_OK && params->special && i <= ctx->log2_n; i++) {
            ctx->index[i] = hemi_alloc(ctx->n, sizeof *ctx->index[i]);
            if (ctx->index[i])
                hemi_ring_automorphism_index(ctx->index[i], ctx->log2_n, family(ctx, i));
            else
                s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for parameter set %s", params->name);
        }
    }
    if (s == HEMI_OK && params->reply) s = hemi_ringswitch_context(&ctx->reply, params, kernels, err);
    if (s != HEMI_OK) {
        hemi_context_free(ctx);
        return s;
    }
    *out = ctx;
    return HEMI_OK;
}

void hemi_context_free(hemi_context *ctx) {
    if (!ctx) return;
    hemi_context_free(ctx->reply);
    for (size_t i = 0; i < HEMI_FAMILY_MAX; i++) hemi_free(ctx->index[i]);
    hemi_ring_free(ctx->ring);
    hemi_free(ctx);
}

hemi_status hemi_context_cached(void **out, hemi_context_cache *c, hemi_context_maker make, const hemi_params *params, hemi_error *err) {
    const hemi_kernels *k = hemi_kernels_default();
    hemi_status s = HEMI_OK;
    *out = NULL;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->count && !*out; i++)
        if (c->made[i].params == params && c->made[i].k == k) *out = c->made[i].context;
    if (!*out && c->count == HEMI_CONTEXTS_MAX) s = hemi_fail(err, HEMI_ERR_INTERNAL, "too many parameter sets in use");
    if (!*out && s == HEMI_OK) {
        s = make(out, params, k, err);
        if (s == HEMI_OK) {
            c->made[c->count].params = params;
            c->made[c->count].k = k;
            c->made[c->count++].context = *out;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return s;
}

static hemi_status make_context(void **out, const hemi_params *params, const hemi_kernels *kernels, hemi_error *err) {
    hemi_context *ctx;
    const hemi_status s = hemi_context_new(&ctx, params, kernels, err);
    *out = ctx; /* NULL on error */
    return s;
}

hemi_status hemi_context_shared(const hemi_context **out, const hemi_params *params, hemi_error *err) {
    static hemi_context_cache cache = {.lock = PTHREAD_MUTEX_INITIALIZER};
    void *found;
    const hemi_status s = hemi_context_cached(&found, &cache, make_context, params, err);
    *out = found;
    return s;
}

const uint32_t *hemi_context_automorphism(const hemi_context *ctx, uint32_t t) {
    for (uint32_t i = 0; i <= ctx->log2_n; i++)
        if (family(ctx, i) == t) return ctx->index[i];
    return NULL;
}

bool hemi_key_is_known(const hemi_params *params, uint32_t number) {
    const uint32_t t = hemi_key_automorphism(number), digit = hemi_key_digit(number), n = UINT32_C(1) << params->log2_n;
    if (params->special == 0 || t < 3 || t >= 2 * n || t % 2 == 0) return false;
    if (params->baby_digits) return digit < params->baby_digits;
    return digit == 0 && (t == 2 * n - 1 || (t <= n + 1 && ((t - 1) & (t - 2)) == 0));
}

hemi_status hemi_evaluation_keys_new(hemi_evaluation_keys **out, const hemi_context *ctx, const uint32_t *t, size_t count,
                                     hemi_error *err) {
    *out = NULL;
    const size_t n = ctx->n;
    const bool ring_switch = ctx->reply && count > 0 && t[0] == HEMI_KEY_RING_SWITCH;
    if (ring_switch) t++, count--;
    const size_t words = 2 * n + 4 * n * count + (ring_switch ? hemi_ringswitch_key_words(ctx) : 0);
    hemi_evaluation_keys *keys = hemi_alloc(1, sizeof *keys);
    if (keys) {
        keys->key = hemi_alloc(count, sizeof *keys->key);
        keys->storage = hemi_alloc_large(words, sizeof(uint64_t));
        keys->index = hemi_alloc(ctx->params->baby_digits ? count * n : 0, sizeof *keys->index);
    }
    if (!keys || !keys->key || !keys->storage || !keys->index) {
        hemi_evaluation_keys_free(keys);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu evaluation keys", count);
    }
    keys->ctx = ctx;
    keys->count = count;
    keys->bytes = words * sizeof(uint64_t) + (ctx->params->baby_digits ? count * n * sizeof *keys->index : 0);
    keys->public_b = keys->storage;
    keys->public_a = keys->storage + n;
    if (ring_switch) keys->ring_switch = keys->storage + 2 * n + 4 * n * count;
    for (size_t i = 0, others = 0; i < count; i++) {
        uint64_t *base = keys->storage + 2 * n + 4 * n * i;
        if (!hemi_key_is_known(ctx->params, t[i])) {
            hemi_evaluation_keys_free(keys);
            return hemi_fail(err, HEMI_ERR_KEY, "%u is not an automorphism that set %s has keys for", t[i], ctx->params->name);
        }
        const uint32_t *index = hemi_context_automorphism(ctx, hemi_key_automorphism(t[i]));
        if (!index) {
            hemi_ring_automorphism_index(keys->index + others * n, ctx->log2_n, hemi_key_automorphism(t[i]));
            index = keys->index + others++ * n;
        }
        keys->key[i] = (hemi_galois_key){t[i], index, base, base + n, base + 2 * n, base + 3 * n};
    }
    *out = keys;
    return HEMI_OK;
}

void hemi_key_expand_a(uint64_t *a, const hemi_context *ctx, uint32_t t, size_t limb, const uint8_t seed[HEMI_SEED_BYTES]) {
    hemi_sample_uniform_vartime(a, ctx->n, ctx->ring->limb[limb].m.p, seed, HEMI_DOMAIN_KEY + t, (uint32_t)limb);
}

void hemi_evaluation_keys_set(hemi_evaluation_keys *keys, size_t i, const uint8_t seed[HEMI_SEED_BYTES], uint64_t *b_q, uint64_t *b_p) {
    const hemi_context *ctx = keys->ctx;
    const size_t n = ctx->n;
    const uint32_t t = i == 0 ? 0 : keys->key[i - 1].t;
    uint64_t *b = i == 0 ? keys->public_b : keys->key[i - 1].b_q, *a = i == 0 ? keys->public_a : keys->key[i - 1].a_q;
    ctx->k->fix(b, b_q, n, &ctx->q->m);
    hemi_key_expand_a(b_q, ctx, t, 0, seed);
    ctx->k->fix(a, b_q, n, &ctx->q->m);
    if (i == 0) return;
    ctx->k->fix(keys->key[i - 1].b_p, b_p, n, &ctx->special->m);
    hemi_key_expand_a(b_p, ctx, t, 1, seed);
    ctx->k->fix(keys->key[i - 1].a_p, b_p, n, &ctx->special->m);
}

void hemi_evaluation_keys_free(hemi_evaluation_keys *keys) {
    if (!keys) return;
    hemi_free(keys->key);
    hemi_free(keys->index);
    hemi_free(keys->storage);
    hemi_free(keys);
}

const hemi_galois_key *hemi_evaluation_keys_find(const hemi_evaluation_keys *keys, uint32_t t) {
    for (size_t i = 0; i < keys->count; i++)
        if (keys->key[i].t == t) return &keys->key[i];
    return NULL;
}
