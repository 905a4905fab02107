#include "secret/batch.h"

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "rlwe/keyswitch.h"

#define TURN 8 /* polynomials whose coefficients are written side by side: a cache line of a row */

static hemi_status begin(uint64_t **words, const hemi_secret_key *key, uint32_t rows, hemi_error *err) {
    *words = NULL;
    if (rows == 0 || rows > key->ctx->n)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "a batch has 1 to %u rows, not %u", key->ctx->n, rows);
    *words = hemi_alloc((size_t)TURN * key->ctx->n, sizeof **words);
    return *words ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a batch of rows");
}

/* a times s: NTT form in, coefficients out. */
static void times_secret(uint64_t *a, const hemi_secret_key *key) {
    const hemi_context *ctx = key->ctx;
    ctx->k->mul_fixed(a, a, key->s_q, ctx->n, &ctx->q->m);
    ctx->k->intt(a, a, ctx->q);
}

/* out[r * width + first + i] = polynomial i [r]. */
static void write_rows(uint64_t *out, const uint64_t *words, size_t n, uint32_t rows, uint32_t width, uint32_t first,
                       uint32_t count) {
    for (size_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < count; i++) out[r * width + first + i] = words[i * n + r];
}

hemi_status hemi_secret_batch_pads(uint64_t *pads, const hemi_secret_key *key, const uint8_t seed[HEMI_SEED_BYTES],
                                   uint32_t inputs, uint32_t rows, hemi_error *err) {
    const hemi_context *ctx = key->ctx;
    const hemi_modulus *m = &ctx->q->m;
    const size_t n = ctx->n;
    uint64_t *words;
    hemi_stream secret;
    HEMI_TRY(begin(&words, key, rows, err));
    hemi_stream_init_fresh(&secret);
    for (uint32_t j = 0; j < inputs; j += TURN) {
        const uint32_t count = inputs - j < TURN ? inputs - j : TURN;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t *a = words + i * n;
            hemi_sample_uniform_vartime(a, n, m->p, seed, HEMI_DOMAIN_BATCH, j + i);
            times_secret(a, key);
            for (size_t r = 0; r < rows; r++) a[r] = hemi_mod_neg(a[r], m);
            hemi_add_error(a, rows, m, &secret);
        }
        write_rows(pads, words, n, rows, inputs, j, count);
    }
    hemi_stream_wipe(&secret);
    hemi_free(words);
    return HEMI_OK;
}

void hemi_secret_batch_encrypt(uint8_t *packed_b, uint64_t *pads, const int32_t *x, uint32_t inputs, uint64_t delta,
                               unsigned b_bits, const hemi_context *ctx, uint64_t *scratch) {
    const hemi_modulus *m = &ctx->q->m;
    for (uint32_t j = 0; j < inputs; j++)
        scratch[j] = hemi_mod_add(pads[j], hemi_mod_from_signed((int64_t)x[j] * (int64_t)delta, m), m);
    hemi_wipe(pads, inputs * sizeof *pads);
    ctx->k->switch_down(scratch, scratch, inputs, b_bits, m);
    hemi_pack(packed_b, scratch, inputs, b_bits);
    hemi_wipe(scratch, inputs * sizeof *scratch);
}

hemi_status hemi_secret_batch_masks(uint64_t *masks, const hemi_secret_key *key, const uint8_t *packed_a,
                                    unsigned a_bits, uint32_t outputs, uint32_t rows, hemi_error *err) {
    const hemi_context *ctx = key->ctx;
    const size_t n = ctx->n;
    uint64_t *words;
    HEMI_TRY(begin(&words, key, rows, err));
    for (uint32_t o = 0; o < outputs; o += TURN) {
        const uint32_t count = outputs - o < TURN ? outputs - o : TURN;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t *a = words + i * n;
            hemi_unpack(a, packed_a + (o + i) * hemi_packed_bytes(n, a_bits), n, a_bits);
            ctx->k->switch_up(a, a, n, a_bits, &ctx->q->m);
            ctx->k->ntt(a, ctx->q);
            times_secret(a, key);
        }
        write_rows(masks, words, n, rows, outputs, o, count);
    }
    hemi_free(words);
    return HEMI_OK;
}

void hemi_secret_batch_decrypt(int64_t *phase, const uint8_t *packed_b, unsigned b_bits, const uint64_t *masks,
                               uint32_t outputs, const hemi_context *ctx, uint64_t *scratch) {
    const hemi_modulus *m = &ctx->q->m;
    hemi_unpack(scratch, packed_b, outputs, b_bits);
    ctx->k->switch_up(scratch, scratch, outputs, b_bits, m);
    for (uint32_t o = 0; o < outputs; o++) phase[o] = hemi_mod_centre(hemi_mod_add(scratch[o], masks[o], m), m);
    hemi_wipe(scratch, outputs * sizeof *scratch);
}
