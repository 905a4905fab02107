/* For tests of operations on ciphertexts: a client, its evaluation keys, and what computes with them. */
#ifndef HEMI_TESTS_CKKS_MACHINE_H
#define HEMI_TESTS_CKKS_MACHINE_H

#include "ckks.h"
#include "wire/ckks_load.h"

#define CKKS_KEYS_MAX 64

typedef struct ckks_machine {
    ckks_party p;
    hemi_team *team;
    hemi_ckks_workspace *w;
    hemi_ckks_keys *keys;
    uint32_t t[CKKS_KEYS_MAX];
    size_t count;
    uint8_t *key_bytes; /* wire form, without the header: the public key, then t[0 .. count-1] */
} ckks_machine;

/* Keys made ready by any table of kernels: that of ctx. */
TEST_UNUSED static hemi_ckks_keys *ckks_keys_from(const hemi_ckks_context *ctx, uint32_t limbs, const uint8_t *bytes, const uint32_t *t,
                                                  size_t count) {
    hemi_ckks_keys *keys;
    uint64_t *b = hemi_alloc(ctx->n, sizeof *b);
    assert_non_null(b);
    ASSERT_OK(hemi_ckks_keys_new(&keys, ctx, limbs, t, count, ERR));
    for (size_t i = 0; i <= count; i++) {
        const uint8_t *at = bytes + HEMI_KEY_ENTRY_HEADER_BYTES, *seed = bytes + 8;
        for (uint32_t d = 0; d < (i ? hemi_ckks_digits(ctx->params, limbs) : 1); d++)
            for (uint32_t j = 0; j < (i ? limbs + ctx->specials : 1); j++) {
                const unsigned bits = hemi_ckks_limb(ctx, hemi_ckks_ring_limb(ctx, limbs, j))->m.bits;
                hemi_unpack(b, at, ctx->n, bits);
                hemi_ckks_keys_set(keys, i, d, j, seed, b);
                at += hemi_packed_bytes(ctx->n, bits);
            }
        bytes = at;
    }
    hemi_free(b);
    return keys;
}

TEST_UNUSED static void ckks_machine_keys(ckks_machine *m, uint32_t limbs, const uint32_t *t, size_t count) {
    const hemi_params *params = m->p.ctx->params;
    assert_true(count <= CKKS_KEYS_MAX);
    memcpy(m->t, t, count * sizeof *t);
    m->count = count;
    uint8_t *at = m->key_bytes = hemi_alloc(hemi_ckks_keys_bytes(params, limbs, count + 1), 1);
    assert_non_null(at);
    for (size_t i = 0; i <= count; i++) {
        const uint32_t number = i == 0 ? HEMI_CKKS_KEY_PUBLIC : t[i - 1];
        ASSERT_OK(hemi_ckks_secret_make_key(m->p.sk, limbs, number, at, ERR));
        at += hemi_ckks_key_entry_bytes(params, limbs, number);
    }
    m->keys = ckks_keys_from(m->p.ctx, limbs, m->key_bytes, t, count);
}

/* params NULL: the row m->p.own. Keys for ciphertexts of up to `limbs` limbs; ciphertexts without keys may have more. */
TEST_UNUSED static void ckks_machine_open(ckks_machine *m, const hemi_params *params, int threads, uint32_t limbs, const uint32_t *t, size_t count) {
    ckks_open(&m->p, params, test_table());
    m->team = threads > 1 ? hemi_team_new(threads) : NULL;
    ASSERT_OK(hemi_ckks_workspace_new(&m->w, m->p.ctx, m->p.ctx->chain, m->team, ERR));
    ckks_machine_keys(m, limbs, t, count);
}

TEST_UNUSED static void ckks_machine_close(ckks_machine *m) {
    hemi_ckks_keys_free(m->keys);
    hemi_free(m->key_bytes);
    hemi_ckks_workspace_free(m->w);
    hemi_team_free(m->team);
    ckks_close(&m->p);
}

/* The product's number, rotations by `by` (virtual slots as they are) and the conjugation, increasing, each once; returns how many. */
TEST_UNUSED static size_t ckks_key_numbers(uint32_t *t, const hemi_params *params, const int32_t *by, size_t count) {
    const hemi_ckks_context shape = {.n = 1u << params->log2_n, .log2_n = params->log2_n, .slots = 1u << (params->log2_n - 1)};
    size_t used = 0;
    for (size_t i = 0; i < count + 2; i++) {
        const uint32_t number = i < count ? hemi_ckks_rotation(&shape, by[i]) : i == count ? HEMI_CKKS_KEY_PRODUCT : hemi_ckks_conjugation(shape.n);
        size_t at = 0;
        while (at < used && t[at] < number) at++;
        if ((at < used && t[at] == number) || (i < count && number == 1)) continue;
        memmove(t + at + 1, t + at, (used++ - at) * sizeof *t);
        t[at] = number;
    }
    return used;
}

/* ---- ciphertexts */

TEST_UNUSED static hemi_ckks_cipher ckks_cipher(const ckks_machine *m, uint32_t limbs) {
    hemi_ckks_cipher c;
    ASSERT_OK(hemi_ckks_cipher_init(&c, m->p.ctx, limbs, ERR));
    return c;
}

/* Uniform residues: a ciphertext of nothing in particular. */
TEST_UNUSED static hemi_ckks_cipher ckks_uniform(const ckks_machine *m, uint32_t limbs, test_rng *rng) {
    hemi_ckks_cipher c = ckks_cipher(m, limbs);
    c.scale = 1;
    for (uint32_t i = 0; i < limbs; i++) {
        const hemi_limb *l = hemi_ckks_limb(m->p.ctx, i);
        test_residues(c.c0 + (size_t)i * l->n, l->n, l->m.p, rng);
        test_residues(c.c1 + (size_t)i * l->n, l->n, l->m.p, rng);
    }
    return c;
}

TEST_UNUSED static hemi_ckks_cipher ckks_copy(const ckks_machine *m, const hemi_ckks_cipher *a) {
    hemi_ckks_cipher c = ckks_cipher(m, a->limbs);
    const size_t bytes = (size_t)a->limbs * m->p.ctx->n * sizeof *c.c0;
    memcpy(c.c0, a->c0, bytes);
    memcpy(c.c1, a->c1, bytes);
    c.scale = a->scale;
    return c;
}

TEST_UNUSED static void ckks_assert_equal(const ckks_machine *m, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b) {
    const size_t bytes = (size_t)a->limbs * m->p.ctx->n * sizeof *a->c0;
    assert_int_equal(a->limbs, b->limbs);
    assert_true(a->scale == b->scale);
    assert_memory_equal(a->c0, b->c0, bytes);
    assert_memory_equal(a->c1, b->c1, bytes);
}

/* ---- slots. im may be NULL: zeros. */

/* A plaintext of `limbs` limbs; hemi_free. */
TEST_UNUSED static uint64_t *ckks_plaintext(const ckks_machine *m, const double *re, const double *im, double scale, uint32_t limbs) {
    const hemi_ckks_context *ctx = m->p.ctx;
    const size_t n = ctx->n;
    uint64_t *pt = hemi_alloc(limbs * n, sizeof *pt);
    int64_t *c = hemi_alloc(n, sizeof *c);
    double *work = hemi_alloc(n, sizeof *work);
    assert_true(pt && c && work && hemi_ckks_embed(c, ctx->encoder, scale, re, im, work));
    for (uint32_t i = 0; i < limbs; i++) hemi_ckks_residues(pt + i * n, c, hemi_ckks_limb(ctx, i), ctx->k);
    hemi_free(c);
    hemi_free(work);
    return pt;
}

/* As a client encrypts real numbers; imaginary parts are added as a plaintext. */
TEST_UNUSED static hemi_ckks_cipher ckks_encrypt(const ckks_machine *m, const double *re, const double *im, double scale, uint32_t limbs) {
    hemi_ckks_cipher c = ckks_cipher(m, limbs);
    uint8_t *bytes = hemi_alloc(hemi_ckks_ciphertext_bytes(m->p.ctx->params, limbs), 1);
    assert_non_null(bytes);
    ASSERT_OK(hemi_ckks_secret_encrypt(m->p.sk, re, scale, limbs, bytes, ERR));
    hemi_ckks_ciphertext_load(&c, m->p.ctx, bytes, limbs, scale, m->team);
    hemi_free(bytes);
    if (im) {
        double *zero = hemi_alloc(m->p.ctx->slots, sizeof *zero);
        uint64_t *pt = ckks_plaintext(m, zero, im, scale, limbs);
        hemi_ckks_add_plain(m->w, &c, pt);
        hemi_free(zero);
        hemi_free(pt);
    }
    return c;
}

/* The phase c0 + c1 s modulo limb `limb`'s prime, NTT form. */
TEST_UNUSED static void ckks_phase(uint64_t *r, const ckks_machine *m, const hemi_ckks_cipher *c, uint32_t limb) {
    const hemi_ckks_context *ctx = m->p.ctx;
    const size_t n = ctx->n, at = limb * n;
    const hemi_modulus *q = &hemi_ckks_limb(ctx, limb)->m;
    ctx->k->mul_fixed(r, c->c1 + at, m->p.sk->s_ntt + at, n, q);
    ctx->k->add(r, r, c->c0 + at, n, q);
}

/* Coefficients of the phase over all limbs, by centred mixed radix: exact as far as long doubles are, and enormous where limbs disagree. */
TEST_UNUSED static void ckks_phases(long double *r, const ckks_machine *m, const hemi_ckks_cipher *c) {
    const hemi_ckks_context *ctx = m->p.ctx;
    const size_t n = ctx->n, total = hemi_ckks_total(ctx);
    uint64_t *x = hemi_alloc(c->limbs * n, sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < c->limbs; i++) {
        ckks_phase(x + i * n, m, c, i);
        ctx->k->intt(x + i * n, x + i * n, hemi_ckks_limb(ctx, i));
    }
    for (size_t k = 0; k < n; k++) {
        int64_t digit[HEMI_CKKS_CHAIN_MAX];
        for (uint32_t i = 0; i < c->limbs; i++) {
            const hemi_modulus *q = &hemi_ckks_limb(ctx, i)->m;
            uint64_t rest = x[i * n + k];
            for (uint32_t j = 0; j < i; j++)
                rest = hemi_mod_mul(hemi_mod_sub(rest, hemi_mod_from_signed(digit[j], q), q), ctx->prime_inverse[j * total + i], q);
            digit[i] = hemi_mod_centre(rest, q);
        }
        r[k] = 0;
        for (uint32_t i = c->limbs; i-- > 0;) r[k] = r[k] * (long double)hemi_ckks_limb(ctx, i)->m.p + (long double)digit[i];
    }
    hemi_free(x);
}

/* Slots of coefficients / scale, of any size. */
TEST_UNUSED static void ckks_slots_of(double *re, double *im, const ckks_machine *m, const long double *phase, double scale) {
    const size_t n = m->p.ctx->n;
    int64_t *c = hemi_alloc(n, sizeof *c);
    double *work = hemi_alloc(n, sizeof *work);
    long double largest = 1;
    assert_true(c && work);
    for (size_t i = 0; i < n; i++) largest = fmaxl(largest, fabsl(phase[i]));
    const int shift = 58 - ilogbl(largest); /* of scaled phases: nearly all bits of an int64_t */
    for (size_t i = 0; i < n; i++) c[i] = llrintl(ldexpl(phase[i], shift));
    hemi_ckks_unembed(re, im, m->p.ctx->encoder, ldexp(scale, shift), c, work);
    hemi_free(c);
    hemi_free(work);
}

TEST_UNUSED static void ckks_decrypt(double *re, double *im, const ckks_machine *m, const hemi_ckks_cipher *c) {
    long double *phase = hemi_alloc(m->p.ctx->n, sizeof *phase);
    assert_non_null(phase);
    ckks_phases(phase, m, c);
    ckks_slots_of(re, im, m, phase, c->scale);
    hemi_free(phase);
}

#endif
