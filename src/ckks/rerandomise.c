/* Results leave the server as fresh ciphertexts: c + (b u + e0, a u + e1), (b, a) the client's public key. Constant time in u and e. */
#include "base/memory.h"
#include "ckks/cipher.h"

#define CHUNK 512

/* r = small integers as residues: ternary ones, or errors. */
static void sample_small(uint64_t *r, size_t n, const hemi_modulus *m, void (*sample)(int8_t *, size_t, hemi_stream *), hemi_stream *secret) {
    int8_t v[CHUNK];
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t count = n - i < CHUNK ? n - i : CHUNK;
        sample(v, count, secret);
        for (size_t j = 0; j < count; j++) r[i + j] = (uint64_t)(int64_t)v[j] + (m->p & (uint64_t)((int64_t)v[j] >> 63));
    }
    hemi_wipe(v, sizeof v);
}

void hemi_ckks_rerandomise(hemi_ckks_cipher *c, const hemi_ckks_keys *keys, uint64_t *scratch, hemi_stream *secret) {
    const hemi_ckks_context *ctx = keys->ctx;
    const hemi_limb *l = hemi_ckks_limb(ctx, 0);
    const hemi_kernels *k = ctx->k;
    const size_t n = ctx->n;
    sample_small(scratch, n, &l->m, hemi_sample_ternary, secret);
    k->ntt(scratch, l);
    k->mul_add(c->c0, scratch, keys->public_b, n, &l->m);
    k->mul_add(c->c1, scratch, keys->public_a, n, &l->m);
    for (size_t part = 0; part < 2; part++) {
        uint64_t *r = part ? c->c1 : c->c0;
        sample_small(scratch, n, &l->m, hemi_sample_error, secret);
        k->ntt(scratch, l);
        k->add(r, r, scratch, n, &l->m);
    }
    hemi_wipe(scratch, n * sizeof *scratch);
}
