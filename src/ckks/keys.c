#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "ckks/cipher.h"

bool hemi_ckks_key_is_known(const hemi_params *params, uint32_t t) {
    return params->chain != 0 && (t == HEMI_CKKS_KEY_PUBLIC || (t % 2 == 1 && t < UINT32_C(2) << params->log2_n));
}

static hemi_status check_entries(const hemi_ckks_context *ctx, uint32_t limbs, const uint32_t *t, size_t count, hemi_error *err) {
    if (limbs == 0 || limbs > ctx->chain)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "keys for %u limbs: set %s has 1 to %u", limbs, ctx->params->name, ctx->chain);
    if (ctx->n < 8) return hemi_fail(err, HEMI_ERR_PARAMS, "set %s has degree %u: keys want at least 8", ctx->params->name, ctx->n);
    for (size_t i = 0; i < count; i++)
        if (!hemi_ckks_key_is_known(ctx->params, t[i]) || t[i] <= (i == 0 ? HEMI_CKKS_KEY_PUBLIC : t[i - 1]))
            return hemi_fail(err, HEMI_ERR_KEY, "set %s has no key %u, or it is not in order", ctx->params->name, t[i]);
    return HEMI_OK;
}

/* Of a key-switching key, both components. */
static size_t key_bytes(const hemi_params *p, uint32_t limbs) {
    return 2 * (size_t)(limbs + p->specials) * hemi_ckks_digits(p, limbs) * HEMI_CKKS_KEY_STRIDE(1u << p->log2_n);
}

size_t hemi_ckks_keys_memory(const hemi_params *params, uint32_t limbs, size_t count) {
    const size_t n = (size_t)1 << params->log2_n;
    return 2 * n * sizeof(uint64_t) + (key_bytes(params, limbs) + n * sizeof(uint32_t)) * count;
}

hemi_status hemi_ckks_keys_new(hemi_ckks_keys **out, const hemi_ckks_context *ctx, uint32_t limbs, const uint32_t *t, size_t count,
                               hemi_error *err) {
    *out = NULL;
    HEMI_TRY(check_entries(ctx, limbs, t, count, err));
    const size_t n = ctx->n, each = key_bytes(ctx->params, limbs), bytes = 2 * n * sizeof(uint64_t) + each * count;
    const size_t permuting = count - (count > 0 && t[0] == HEMI_CKKS_KEY_PRODUCT ? 1 : 0);
    hemi_ckks_keys *keys = hemi_alloc(1, sizeof *keys);
    if (keys) {
        keys->key = hemi_alloc(count, sizeof *keys->key);
        keys->index = hemi_alloc(permuting * n, sizeof *keys->index);
        keys->storage = hemi_alloc_large(bytes, 1);
    }
    if (!keys || !keys->key || !keys->index || !keys->storage) {
        hemi_ckks_keys_free(keys);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu evaluation keys of set %s", count, ctx->params->name);
    }
    keys->ctx = ctx;
    keys->limbs = limbs;
    keys->count = count;
    keys->bytes = bytes + permuting * n * sizeof *keys->index;
    keys->public_b = (uint64_t *)(void *)keys->storage;
    keys->public_a = keys->public_b + n;
    uint32_t *index = keys->index;
    for (size_t i = 0; i < count; i++) {
        uint8_t *b = keys->storage + 2 * n * sizeof(uint64_t) + each * i;
        keys->key[i] = (hemi_ckks_key){.t = t[i], .b = b, .a = b + hemi_ckks_digits(ctx->params, limbs) * hemi_ckks_key_stride(ctx)};
        if (t[i] == HEMI_CKKS_KEY_PRODUCT) continue;
        hemi_ring_automorphism_index(index, ctx->log2_n, t[i]);
        keys->key[i].index = index;
        index += n;
    }
    *out = keys;
    return HEMI_OK;
}

void hemi_ckks_keys_free(hemi_ckks_keys *keys) {
    if (!keys) return;
    hemi_free(keys->key);
    hemi_free(keys->index);
    hemi_free(keys->storage);
    hemi_free(keys);
}

/* Seeds are fresh for every entry; the domain tells entries apart all the same, and the index the parts of one: there are fewer than 64
 * limbs, so indices of different parts differ. Numbers of entries are below 2^17: no domain of another use is reached. */
void hemi_ckks_key_expand_a(uint64_t *a, const hemi_ckks_context *ctx, uint32_t t, uint32_t digit, uint32_t ring_limb,
                            const uint8_t seed[HEMI_SEED_BYTES]) {
    _Static_assert(HEMI_RING_LIMBS_MAX <= 64, "the index of a part of a key");
    hemi_sample_uniform_vartime(a, ctx->n, hemi_ckks_limb(ctx, ring_limb)->m.p, seed, HEMI_DOMAIN_KEY + t, digit * 64 + ring_limb);
}

void hemi_ckks_keys_set(hemi_ckks_keys *keys, size_t i, uint32_t digit, uint32_t limb, const uint8_t seed[HEMI_SEED_BYTES], uint64_t *b) {
    const hemi_ckks_context *ctx = keys->ctx;
    const size_t n = ctx->n;
    if (i == 0) {
        memcpy(keys->public_b, b, n * sizeof *b);
        hemi_ckks_key_expand_a(keys->public_a, ctx, HEMI_CKKS_KEY_PUBLIC, 0, 0, seed);
        return;
    }
    const hemi_ckks_key *key = &keys->key[i - 1];
    const uint32_t ring_limb = hemi_ckks_ring_limb(ctx, keys->limbs, limb);
    const hemi_modulus *m = &hemi_ckks_limb(ctx, ring_limb)->m;
    const size_t at = hemi_ckks_key_at(keys, digit, limb);
    ctx->k->dot_right(key->b + at, b, n, m);
    hemi_ckks_key_expand_a(b, ctx, key->t, digit, ring_limb, seed);
    ctx->k->dot_right(key->a + at, b, n, m);
}

/* Entries increase: halving. */
const hemi_ckks_key *hemi_ckks_keys_find(const hemi_ckks_keys *keys, uint32_t t) {
    size_t low = 0, high = keys->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (keys->key[middle].t < t)
            low = middle + 1;
        else
            high = middle;
    }
    return low < keys->count && keys->key[low].t == t ? &keys->key[low] : NULL;
}
