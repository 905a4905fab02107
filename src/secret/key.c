#include "secret/key.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "rlwe/keyswitch.h"
#include "secret/ringswitch.h"
#include "wire/wire.h"

static void expand(hemi_secret_key *key) {
    const hemi_context *ctx = key->ctx;
    hemi_ring_from_int8(key->s_q, key->s, ctx->q);
    ctx->k->ntt(key->s_q, ctx->q);
    ctx->k->fix(key->s_q, key->s_q, ctx->n, &ctx->q->m);
    if (!ctx->special) return;
    hemi_ring_from_int8(key->s_p, key->s, ctx->special);
    ctx->k->ntt(key->s_p, ctx->special);
    ctx->k->fix(key->s_p, key->s_p, ctx->n, &ctx->special->m);
}

static hemi_status allocate(hemi_secret_key **out, const hemi_context *ctx, hemi_error *err) {
    const size_t n = ctx->n, words = (ctx->special ? 2 : 1) * n;
    hemi_secret_key *key = hemi_alloc(1, sizeof *key);
    *out = NULL;
    if (key) key->storage = hemi_secure_alloc(words + n / sizeof(uint64_t) + 1, sizeof(uint64_t));
    if (!key || !key->storage) {
        hemi_free(key);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no guarded memory for a secret key");
    }
    if (ctx->reply) {
        const hemi_status s = allocate(&key->reply, ctx->reply, err);
        if (s != HEMI_OK) {
            hemi_secret_key_free(key);
            return s;
        }
    }
    key->ctx = ctx;
    key->s_q = key->storage;
    key->s_p = ctx->special ? key->storage + n : NULL;
    key->s = (int8_t *)(key->storage + words);
    *out = key;
    return HEMI_OK;
}

hemi_status hemi_secret_key_new(hemi_secret_key **out, const hemi_context *ctx, hemi_error *err) {
    hemi_stream secret;
    HEMI_TRY(allocate(out, ctx, err));
    hemi_stream_init_fresh(&secret);
    for (hemi_secret_key *key = *out; key; key = key->reply) {
        hemi_sample_ternary(key->s, key->ctx->n, &secret);
        expand(key);
    }
    hemi_stream_wipe(&secret);
    return HEMI_OK;
}

hemi_status hemi_secret_key_from(hemi_secret_key **out, const hemi_context *ctx, const int8_t *s, hemi_error *err) {
    *out = NULL;
    HEMI_TRY(hemi_secret_check_ternary(s, hemi_secret_file_coefficients(ctx->params), err));
    HEMI_TRY(allocate(out, ctx, err));
    for (hemi_secret_key *key = *out; key; s += key->ctx->n, key = key->reply) {
        memcpy(key->s, s, key->ctx->n);
        expand(key);
    }
    return HEMI_OK;
}

void hemi_secret_key_free(hemi_secret_key *key) {
    if (!key) return;
    hemi_secret_key_free(key->reply);
    hemi_secure_free(key->storage);
    hemi_free(key);
}

size_t hemi_secret_key_file_bytes(const hemi_params *params) { return hemi_secret_file_bytes(params); }

void hemi_secret_key_export(uint8_t *out, const hemi_secret_key *key) {
    uint8_t *at = hemi_secret_file_begin(out, key->ctx->params);
    for (const hemi_secret_key *part = key; part; part = part->reply) at = hemi_secret_file_pack(at, part->s, part->ctx->n);
    hemi_secret_file_end(out, at);
}

hemi_status hemi_secret_key_import(hemi_secret_key **out, const hemi_context *ctx, const uint8_t *bytes, size_t count, hemi_error *err) {
    int8_t *s;
    *out = NULL;
    HEMI_TRY(hemi_secret_file_read(&s, ctx->params, bytes, count, err));
    const hemi_status status = hemi_secret_key_from(out, ctx, s, err);
    hemi_secure_free(s);
    return status;
}

/* b = e - a s [+ P s(X^t)] over one limb, in NTT form. seed: of a. b is the result, a scratch; e, target small. */
static void key_part(const hemi_secret_key *key, uint32_t t, size_t limb, const uint8_t *seed, uint64_t *b, uint64_t *a, const int8_t *e) {
    const hemi_context *ctx = key->ctx;
    const hemi_limb *l = &ctx->ring->limb[limb];
    hemi_ring_from_int8(b, e, l);
    if (t != 0 && limb == 0) { /* + P s(X^t), times the power of its digit; 0 modulo P */
        const uint64_t power = UINT64_C(1) << (hemi_key_digit(t) * ctx->params->digit_bits);
        hemi_ring_from_int8(a, key->s, l);
        ctx->k->mul_scalar(a, a, hemi_mod_mul(ctx->special_mod_q, power, &l->m), l->n, &l->m);
        uint64_t *rotated = a + l->n;
        hemi_ring_automorphism(rotated, a, hemi_key_automorphism(t), l);
        ctx->k->add(b, b, rotated, l->n, &l->m);
    }
    ctx->k->ntt(b, l);
    hemi_key_expand_a(a, ctx, t, limb, seed);
    ctx->k->mul_fixed(a, a, limb == 0 ? key->s_q : key->s_p, l->n, &l->m);
    ctx->k->sub(b, b, a, l->n, &l->m);
}

hemi_status hemi_secret_make_key(const hemi_secret_key *key, uint32_t t, uint8_t *out, hemi_error *err) {
    const hemi_context *ctx = key->ctx;
    const size_t n = ctx->n;
    uint8_t seed[HEMI_SEED_BYTES];
    if (t == HEMI_KEY_RING_SWITCH && ctx->reply) return hemi_secret_make_ringswitch_key(key, out, err);
    if (t != 0 && !hemi_key_is_known(ctx->params, t))
        return hemi_fail(err, HEMI_ERR_KEY, "set %s has no key for automorphism %u", ctx->params->name, t);
    const size_t words = 3 * n + n / sizeof(uint64_t) + 1;
    uint64_t *b = hemi_secure_alloc(words, sizeof *b);
    if (!b) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to make a key");
    uint64_t *a = b + n;
    int8_t *e = (int8_t *)(b + 3 * n);
    hemi_stream secret;
    hemi_stream_init_fresh(&secret);
    hemi_sample_error(e, n, &secret); /* one error, the same integers modulo q and P */
    hemi_stream_wipe(&secret);
    hemi_seed_fresh(seed);
    hemi_key_entry_write_header(out, t, seed);
    uint8_t *at = out + HEMI_KEY_ENTRY_HEADER_BYTES;
    for (size_t limb = 0; limb < (t == 0 ? 1u : 2u); limb++) {
        const unsigned bits = ctx->ring->limb[limb].m.bits;
        key_part(key, t, limb, seed, b, a, e);
        hemi_pack(at, b, n, bits);
        at += hemi_packed_bytes(n, bits);
    }
    hemi_secure_free(b);
    return HEMI_OK;
}
