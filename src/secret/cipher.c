#include "secret/cipher.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "rlwe/keyswitch.h"

hemi_status hemi_secret_encrypt(const hemi_secret_key *key, const int32_t *x, size_t inputs, uint64_t delta,
                                const uint32_t *positions, size_t count, unsigned b_bits, uint8_t seed[HEMI_SEED_BYTES],
                                uint8_t *packed_b, hemi_error *err) {
    const hemi_context *ctx = key->ctx;
    const hemi_modulus *m = &ctx->q->m;
    const size_t n = ctx->n;
    uint64_t *as = hemi_alloc(2 * n, sizeof *as);
    if (!as) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to encrypt");
    uint64_t *b = as + n;
    hemi_seed_fresh(seed);
    hemi_sample_uniform_vartime(as, n, m->p, seed, HEMI_DOMAIN_CIPHERTEXT, 0);
    ctx->k->mul_fixed(as, as, key->s_q, n, m);
    ctx->k->intt(as, as, ctx->q);
    for (size_t i = 0; i < count; i++) b[i] = hemi_mod_neg(as[positions[i]], m);
    for (size_t i = 0; i < inputs; i++) b[i] = hemi_mod_add(b[i], hemi_mod_from_signed((int64_t)x[i] * (int64_t)delta, m), m);
    hemi_stream secret; /* the error has randomness of its own, never that of the seed */
    hemi_stream_init_fresh(&secret);
    hemi_add_error(b, count, m, &secret);
    hemi_stream_wipe(&secret);
    ctx->k->switch_down(b, b, count, b_bits, m);
    hemi_pack(packed_b, b, count, b_bits);
    hemi_free(as);
    return HEMI_OK;
}

hemi_status hemi_secret_decrypt(const hemi_secret_key *key, const uint8_t *packed_a, unsigned a_bits,
                                const uint8_t *packed_b, unsigned b_bits, const uint32_t *positions, size_t count,
                                int64_t *phase, hemi_error *err) {
    const hemi_context *ctx = key->ctx;
    const hemi_modulus *m = &ctx->q->m;
    const size_t n = ctx->n;
    uint64_t *as = hemi_alloc(2 * n, sizeof *as);
    if (!as) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to decrypt");
    uint64_t *b = as + n;
    hemi_unpack(as, packed_a, n, a_bits);
    hemi_unpack(b, packed_b, count, b_bits);
    ctx->k->switch_up(as, as, n, a_bits, m);
    ctx->k->switch_up(b, b, count, b_bits, m);
    ctx->k->ntt(as, ctx->q);
    ctx->k->mul_fixed(as, as, key->s_q, n, m);
    ctx->k->intt(as, as, ctx->q);
    for (size_t i = 0; i < count; i++) phase[i] = hemi_mod_centre(hemi_mod_add(b[i], as[positions[i]], m), m);
    hemi_free(as);
    return HEMI_OK;
}
