#include "secret/ckks.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "ckks/cipher.h"
#include "ckks/encoder.h"
#include "secret/file.h"
#include "wire/wire.h"

/* ---- secret keys */

static void expand(hemi_ckks_secret *secret) {
    const hemi_ckks_context *ctx = secret->ctx;
    for (uint32_t i = 0; i < hemi_ckks_total(ctx); i++) {
        uint64_t *at = secret->s_ntt + (size_t)i * ctx->n;
        const hemi_limb *l = hemi_ckks_limb(ctx, i);
        hemi_ring_from_int8(at, secret->s, l);
        ctx->k->ntt(at, l);
        ctx->k->fix(at, at, ctx->n, &l->m);
    }
}

static hemi_status allocate(hemi_ckks_secret **out, const hemi_ckks_context *ctx, hemi_error *err) {
    const size_t n = ctx->n, words = hemi_ckks_total(ctx) * n;
    hemi_ckks_secret *secret = hemi_alloc(1, sizeof *secret);
    *out = NULL;
    if (secret) secret->storage = hemi_secure_alloc(words + n / sizeof(uint64_t) + 1, sizeof(uint64_t));
    if (!secret || !secret->storage) {
        hemi_free(secret);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no guarded memory for a secret key");
    }
    secret->ctx = ctx;
    secret->s_ntt = secret->storage;
    secret->s = (int8_t *)(secret->storage + words);
    *out = secret;
    return HEMI_OK;
}

hemi_status hemi_ckks_secret_new(hemi_ckks_secret **out, const hemi_ckks_context *ctx, hemi_error *err) {
    hemi_stream random;
    HEMI_TRY(allocate(out, ctx, err));
    hemi_stream_init_fresh(&random);
    hemi_sample_ternary((*out)->s, ctx->n, &random);
    hemi_stream_wipe(&random);
    expand(*out);
    return HEMI_OK;
}

hemi_status hemi_ckks_secret_from(hemi_ckks_secret **out, const hemi_ckks_context *ctx, const int8_t *s, hemi_error *err) {
    *out = NULL;
    HEMI_TRY(hemi_secret_check_ternary(s, ctx->n, err));
    HEMI_TRY(allocate(out, ctx, err));
    memcpy((*out)->s, s, ctx->n);
    expand(*out);
    return HEMI_OK;
}

void hemi_ckks_secret_free(hemi_ckks_secret *secret) {
    if (!secret) return;
    hemi_secure_free(secret->storage);
    hemi_free(secret);
}

size_t hemi_ckks_secret_file_bytes(const hemi_params *params) { return hemi_secret_file_bytes(params); }

void hemi_ckks_secret_export(uint8_t *out, const hemi_ckks_secret *secret) {
    uint8_t *at = hemi_secret_file_begin(out, secret->ctx->params);
    hemi_secret_file_end(out, hemi_secret_file_pack(at, secret->s, secret->ctx->n));
}

hemi_status hemi_ckks_secret_import(hemi_ckks_secret **out, const hemi_ckks_context *ctx, const uint8_t *bytes, size_t count,
                                    hemi_error *err) {
    int8_t *s;
    *out = NULL;
    HEMI_TRY(hemi_secret_file_read(&s, ctx->params, bytes, count, err));
    const hemi_status status = hemi_ckks_secret_from(out, ctx, s, err);
    hemi_secure_free(s);
    return status;
}

/* ---- evaluation keys
 *
 * Key switching writes c modulo Q = prod Q_d, Q_d the product of digit d, as sum_d [c]_(Q_d) g_d with the gadget
 *
 *     g_d = (Q/Q_d) [(Q/Q_d)^-1]_(Q_d),   modulo the primes q_j: 1 for j in digit d, 0 for all others.
 *
 * What a key holds is P g_d s': modulo q_j that is P s' for j in digit d and 0 otherwise, and 0 modulo the special primes, which divide P. No
 * number larger than a prime is ever formed. Nor does the gadget depend on how many limbs there are: without the last primes
 * it is what is left of it, also where a digit has lost some of its primes. So a key for `limbs` limbs serves every ciphertext of fewer. */

/* s' modulo a prime, in NTT form: s^2, or s(X^t). scratch is overwritten. */
static void target(const hemi_ckks_secret *secret, uint32_t t, uint32_t ring_limb, uint64_t *r, uint64_t *scratch) {
    const hemi_ckks_context *ctx = secret->ctx;
    const hemi_limb *l = hemi_ckks_limb(ctx, ring_limb);
    if (t == HEMI_CKKS_KEY_PRODUCT) {
        hemi_ring_from_int8(r, secret->s, l);
        ctx->k->ntt(r, l);
        ctx->k->mul_fixed(r, r, secret->s_ntt + (size_t)ring_limb * ctx->n, ctx->n, &l->m);
    } else {
        hemi_ring_from_int8(scratch, secret->s, l);
        hemi_ring_automorphism(r, scratch, t, l);
        ctx->k->ntt(r, l);
    }
}

/* The memory of one key: polynomials b, a and one to work in, and the error. */
typedef struct parts {
    uint64_t *b, *a, *scratch;
    int8_t *e;
} parts;

/* b = -a s + e + [ring_limb in digit] P s' modulo one prime, in NTT form. */
static void key_part(const hemi_ckks_secret *secret, uint32_t t, uint32_t digit, uint32_t ring_limb, const uint8_t *seed, parts *w) {
    const hemi_ckks_context *ctx = secret->ctx;
    const hemi_limb *l = hemi_ckks_limb(ctx, ring_limb);
    const uint32_t first = hemi_ckks_digit_first(ctx->params, digit), after = hemi_ckks_digit_first(ctx->params, digit + 1);
    hemi_ring_from_int8(w->b, w->e, l);
    ctx->k->ntt(w->b, l);
    if (t != HEMI_CKKS_KEY_PUBLIC && ring_limb < ctx->chain && ring_limb >= first && ring_limb < after) {
        target(secret, t, ring_limb, w->a, w->scratch);
        ctx->k->mul_scalar(w->a, w->a, ctx->special_product[ring_limb], l->n, &l->m);
        ctx->k->add(w->b, w->b, w->a, l->n, &l->m);
    }
    hemi_ckks_key_expand_a(w->a, ctx, t, digit, ring_limb, seed);
    ctx->k->mul_fixed(w->a, w->a, secret->s_ntt + (size_t)ring_limb * l->n, l->n, &l->m);
    ctx->k->sub(w->b, w->b, w->a, l->n, &l->m);
}

hemi_status hemi_ckks_secret_make_key(const hemi_ckks_secret *secret, uint32_t limbs, uint32_t t, uint8_t *out, hemi_error *err) {
    const hemi_ckks_context *ctx = secret->ctx;
    const size_t n = ctx->n;
    uint8_t seed[HEMI_SEED_BYTES];
    if (!hemi_ckks_key_is_known(ctx->params, t)) return hemi_fail(err, HEMI_ERR_KEY, "set %s has no key %u", ctx->params->name, t);
    if (limbs == 0 || limbs > ctx->chain)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "keys for %u limbs: set %s has 1 to %u", limbs, ctx->params->name, ctx->chain);
    uint64_t *block = hemi_secure_alloc(3 * n + n / sizeof(uint64_t) + 1, sizeof *block);
    if (!block) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to make a key");
    parts w = {block, block + n, block + 2 * n, (int8_t *)(block + 3 * n)};
    const bool is_public = t == HEMI_CKKS_KEY_PUBLIC; /* over the base alone */
    const uint32_t digits = is_public ? 1 : hemi_ckks_digits(ctx->params, limbs), each = is_public ? 1 : limbs + ctx->specials;
    hemi_stream random; /* of errors: never that of the seed */
    hemi_stream_init_fresh(&random);
    hemi_seed_fresh(seed);
    hemi_key_entry_write_header(out, t, seed);
    uint8_t *at = out + HEMI_KEY_ENTRY_HEADER_BYTES;
    for (uint32_t digit = 0; digit < digits; digit++) {
        hemi_sample_error(w.e, n, &random); /* one polynomial a digit, the same integers modulo every prime */
        for (uint32_t j = 0; j < each; j++) {
            const uint32_t ring_limb = hemi_ckks_ring_limb(ctx, is_public ? 1 : limbs, j);
            const unsigned bits = hemi_ckks_limb(ctx, ring_limb)->m.bits;
            key_part(secret, t, digit, ring_limb, seed, &w);
            hemi_pack(at, w.b, n, bits);
            at += hemi_packed_bytes(n, bits);
        }
    }
    hemi_stream_wipe(&random);
    hemi_secure_free(block);
    return HEMI_OK;
}

/* ---- encryption and decryption */

/* The polynomial that is encrypted. Arithmetic of doubles rounds, but takes no branch that depends on a number: only the verdict at the end
 * does, and it says no more than that some number was too large or not finite. work: n doubles. */
static hemi_status embed(const hemi_ckks_secret *secret, const double *re, double scale, uint32_t limbs, int64_t *m, double *work,
                         hemi_error *err) {
    const hemi_ckks_context *ctx = secret->ctx;
    const uint64_t most = limbs == 1 ? ctx->params->prime[0] / 2 - HEMI_ERROR_ETA : INT64_MAX; /* two primes: embed's own limit is less */
    bool fits = hemi_ckks_embed(m, ctx->encoder, scale, re, NULL, work);
    uint64_t above = 0;
    for (uint32_t i = 0; i < ctx->n; i++) {
        const uint64_t sign = (uint64_t)(m[i] >> 63);
        above |= most - (((uint64_t)m[i] ^ sign) - sign); /* the top bit: more than `most` */
    }
    fits = (bool)(fits & (above >> 63 == 0));
    return fits ? HEMI_OK : hemi_fail(err, HEMI_ERR_ARGUMENT, "a number to be encrypted is too large, or not finite");
}

/* The residues of c0 = -a s + m modulo one prime, as coefficients, m with its error. */
static void encrypt_limb(const hemi_ckks_secret *secret, uint32_t limb, const uint8_t *seed, const int64_t *m, uint64_t *c0) {
    const hemi_ckks_context *ctx = secret->ctx;
    const hemi_limb *l = hemi_ckks_limb(ctx, limb);
    hemi_sample_uniform_vartime(c0, ctx->n, l->m.p, seed, HEMI_DOMAIN_CIPHERTEXT, limb);
    ctx->k->mul_fixed(c0, c0, secret->s_ntt + (size_t)limb * ctx->n, ctx->n, &l->m);
    ctx->k->intt(c0, c0, l);
    for (uint32_t i = 0; i < ctx->n; i++) c0[i] = hemi_mod_sub(hemi_mod_from_signed(m[i], &l->m), c0[i], &l->m);
}

hemi_status hemi_ckks_secret_encrypt(const hemi_ckks_secret *secret, const double *re, double scale, uint32_t limbs, uint8_t *out,
                                     hemi_error *err) {
    const hemi_ckks_context *ctx = secret->ctx;
    const size_t n = ctx->n;
    if (limbs == 0 || limbs > ctx->chain)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "a ciphertext of %u limbs: set %s has 1 to %u", limbs, ctx->params->name, ctx->chain);
    if (!(scale > 0)) return hemi_fail(err, HEMI_ERR_ARGUMENT, "a scale must be positive");
    uint64_t *c0 = hemi_alloc(3 * n, sizeof *c0); /* wiped when freed */
    int8_t *e = hemi_alloc(n, 1);
    if (!c0 || !e) {
        hemi_free(c0);
        hemi_free(e);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to encrypt");
    }
    int64_t *m = (int64_t *)(c0 + n);
    const hemi_status status = embed(secret, re, scale, limbs, m, (double *)(c0 + 2 * n), err);
    if (status == HEMI_OK) {
        hemi_stream random; /* the error has randomness of its own, never that of the seed */
        hemi_stream_init_fresh(&random);
        hemi_sample_error(e, n, &random);
        hemi_stream_wipe(&random);
        for (size_t i = 0; i < n; i++) m[i] += e[i]; /* one error: the same integers modulo every prime */
        hemi_seed_fresh(out);
        uint8_t *at = out + HEMI_SEED_BYTES;
        for (uint32_t limb = 0; limb < limbs; limb++) {
            const unsigned bits = hemi_ckks_limb(ctx, limb)->m.bits;
            encrypt_limb(secret, limb, out, m, c0);
            hemi_pack(at, c0, n, bits);
            at += hemi_packed_bytes(n, bits);
        }
    }
    hemi_free(c0);
    hemi_free(e);
    return status;
}

hemi_status hemi_ckks_secret_decrypt(const hemi_ckks_secret *secret, const uint64_t *c0, const uint64_t *c1, int64_t *phase,
                                     hemi_error *err) {
    const hemi_ckks_context *ctx = secret->ctx;
    const hemi_limb *l = hemi_ckks_limb(ctx, 0);
    uint64_t *product = hemi_alloc(ctx->n, sizeof *product);
    if (!product) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to decrypt");
    memcpy(product, c1, ctx->n * sizeof *product);
    ctx->k->ntt(product, l);
    ctx->k->mul_fixed(product, product, secret->s_ntt, ctx->n, &l->m);
    ctx->k->intt(product, product, l);
    for (uint32_t i = 0; i < ctx->n; i++) phase[i] = hemi_mod_centre(hemi_mod_add(c0[i], product[i], &l->m), &l->m);
    hemi_free(product);
    return HEMI_OK;
}
