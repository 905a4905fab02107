#include "secret/ringswitch.h"

#include <math.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "rlwe/keyswitch.h"
#include "rlwe/ringswitch.h"
#include "secret/cipher.h"
#include "wire/wire.h"

/* f = g 2^(14 digit) se for half 0, Y so for half 1, where s(X) = se(Y) + X so(Y): small multiples of a public constant. Y^(n/2) = -1. */
static void target(const hemi_secret_key *key, size_t sample, uint64_t *f) {
    const hemi_modulus *m = &key->reply->ctx->q->m;
    const uint64_t gadget = hemi_ringswitch_gadget(key->ctx, sample / 2);
    const size_t half = sample % 2, n = key->reply->ctx->n;
    for (size_t i = 0; i < n; i++) {
        const size_t at = half == 0 ? 2 * i : 2 * ((i + n - 1) % n) + 1; /* public */
        const int64_t v = half == 1 && i == 0 ? -(int64_t)key->s[at] : key->s[at];
        f[i] = hemi_mod_mul((uint64_t)v + (m->p & (uint64_t)(v >> 63)), gadget, m);
    }
}

hemi_status hemi_secret_make_ringswitch_key(const hemi_secret_key *key, uint8_t *out, hemi_error *err) {
    const hemi_context *small = key->reply->ctx;
    const hemi_modulus *m = &small->q->m;
    const size_t n = small->n;
    uint8_t seed[HEMI_SEED_BYTES];
    uint64_t *b = hemi_secure_alloc(2 * n, sizeof *b);
    if (!b) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to make a key");
    uint64_t *a = b + n;
    hemi_stream secret;
    hemi_stream_init_fresh(&secret);
    hemi_seed_fresh(seed);
    hemi_key_entry_write_header(out, HEMI_KEY_RING_SWITCH, seed);
    uint8_t *at = out + HEMI_KEY_ENTRY_HEADER_BYTES;
    for (size_t j = 0; j < HEMI_RINGSWITCH_SAMPLES; j++, at += hemi_packed_bytes(n, m->bits)) {
        target(key, j, b);
        hemi_add_error(b, n, m, &secret);
        small->k->ntt(b, small->q);
        hemi_ringswitch_expand_a(a, key->ctx, j, seed);
        small->k->mul_fixed(a, a, key->reply->s_q, n, m);
        small->k->sub(b, b, a, n, m);
        hemi_pack(at, b, n, m->bits);
    }
    hemi_stream_wipe(&secret);
    hemi_secure_free(b);
    return HEMI_OK;
}

hemi_status hemi_secret_decrypt_switched(const hemi_secret_key *key, const uint8_t *packed_a, unsigned a_bits,
                                         const uint8_t *packed_b, unsigned b_bits, const uint32_t *positions,
                                         size_t count, int64_t *phase, hemi_error *err) {
    const double scale = (double)key->ctx->q->m.p / (double)key->reply->ctx->q->m.p;
    uint32_t *halved = hemi_alloc(count, sizeof *halved);
    if (!halved) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to decrypt");
    for (size_t i = 0; i < count; i++) halved[i] = positions[i] / 2;
    const hemi_status status =
        hemi_secret_decrypt(key->reply, packed_a, a_bits, packed_b, b_bits, halved, count, phase, err);
    for (size_t i = 0; status == HEMI_OK && i < count; i++)
        phase[i] = llrint((double)phase[i] * scale); /* |phase| < 2^50 */
    hemi_free(halved);
    return status;
}
