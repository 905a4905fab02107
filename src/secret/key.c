#include "secret/key.h"

#include <sodium.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "rlwe/keyswitch.h"
#include "secret/ringswitch.h"
#include "wire/wire.h"

#define FILE_HEADER_BYTES 32
#define FILE_HASH_BYTES 32

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

/* Of s, and of s' where there is one. */
static size_t coefficients(const hemi_params *params) {
    return ((size_t)1 << params->log2_n) + (params->reply ? (size_t)1 << params->reply->log2_n : 0);
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
    unsigned outside = 0;
    *out = NULL;
    for (size_t i = 0; i < coefficients(ctx->params); i++) outside |= (unsigned)(s[i] + 1) > 2;
    if (outside) return hemi_fail(err, HEMI_ERR_FORMAT, "a secret key has coefficients -1, 0 and 1");
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

size_t hemi_secret_key_file_bytes(const hemi_params *params) {
    return FILE_HEADER_BYTES + coefficients(params) / 4 + FILE_HASH_BYTES;
}

static void file_header(uint8_t out[FILE_HEADER_BYTES], const hemi_params *params) {
    memset(out, 0, FILE_HEADER_BYTES);
    memcpy(out, "HEMI", 4);
    hemi_store16(out + 4, HEMI_SECRET_KEY_VERSION);
    hemi_store16(out + 6, HEMI_WIRE_SECRET_KEY);
    hemi_store32(out + 8, params->id);
}

static void file_hash(uint8_t out[FILE_HASH_BYTES], const uint8_t *bytes, size_t count) {
    (void)crypto_generichash(out, FILE_HASH_BYTES, bytes, count, NULL, 0);
}

void hemi_secret_key_export(uint8_t *out, const hemi_secret_key *key) {
    file_header(out, key->ctx->params);
    uint8_t *at = out + FILE_HEADER_BYTES;
    for (const hemi_secret_key *part = key; part; part = part->reply)
        for (size_t i = 0; i < part->ctx->n; i += 4) {
            unsigned v = 0;
            for (size_t j = 0; j < 4; j++) v |= (unsigned)(part->s[i + j] + 1) << (2 * j);
            *at++ = (uint8_t)v;
        }
    file_hash(at, out, (size_t)(at - out));
}

hemi_status hemi_secret_key_import(hemi_secret_key **out, const hemi_context *ctx, const uint8_t *bytes, size_t count, hemi_error *err) {
    const size_t n = coefficients(ctx->params);
    uint8_t header[FILE_HEADER_BYTES], hash[FILE_HASH_BYTES];
    *out = NULL;
    file_header(header, ctx->params);
    if (count >= 8 && memcmp(bytes, header, 4) == 0 && memcmp(bytes + 6, header + 6, 2) == 0 &&
        hemi_load16(bytes + 4) != HEMI_SECRET_KEY_VERSION)
        return hemi_fail(err, HEMI_ERR_VERSION, "a secret key file of version %u, this release reads version %d: make a new key",
                         hemi_load16(bytes + 4), HEMI_SECRET_KEY_VERSION);
    if (count != hemi_secret_key_file_bytes(ctx->params) || memcmp(bytes, header, sizeof header) != 0)
        return hemi_fail(err, HEMI_ERR_FORMAT, "this is not a secret key of set %s, version %d", ctx->params->name,
                         HEMI_SECRET_KEY_VERSION);
    file_hash(hash, bytes, count - FILE_HASH_BYTES);
    if (sodium_memcmp(hash, bytes + count - FILE_HASH_BYTES, sizeof hash) != 0)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the secret key file is damaged: restore it from a copy, or make new keys");
    int8_t *s = hemi_secure_alloc(n, 1);
    if (!s) return hemi_fail(err, HEMI_ERR_MEMORY, "no guarded memory for a secret key");
    for (size_t i = 0; i < n; i++) s[i] = (int8_t)((bytes[FILE_HEADER_BYTES + i / 4] >> (2 * (i % 4)) & 3) - 1);
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
