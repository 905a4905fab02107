#include "rlwe/ringswitch.h"

#include "base/error.h"

#define SCALE_BITS 50 /* q and Q are smaller: rounding to as many bits on the way loses nothing that counts */

hemi_status hemi_ringswitch_context(hemi_context **out, const hemi_params *params, const hemi_kernels *kernels,
                                    hemi_error *err) {
    const hemi_params *reply = params->reply;
    *out = NULL;
    if (reply->log2_n + 1 != params->log2_n || reply->special != 0 || reply->reply != NULL ||
        reply->q % (UINT64_C(1) << HEMI_RINGSWITCH_BITS) != 1)
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s cannot hold replies of set %s", reply->name, params->name);
    return hemi_context_new(out, reply, kernels, err);
}

size_t hemi_ringswitch_key_words(const hemi_context *ctx) {
    return 2 * HEMI_RINGSWITCH_SAMPLES * (size_t)ctx->reply->n;
}

uint64_t hemi_ringswitch_gadget(const hemi_context *ctx, size_t digit) {
    const hemi_modulus *m = &ctx->reply->q->m;
    return hemi_mod_mul((m->p - 1) >> HEMI_RINGSWITCH_BITS,
                        (UINT64_C(1) << (digit * HEMI_RINGSWITCH_DIGIT_BITS)) % m->p, m);
}

void hemi_ringswitch_expand_a(uint64_t *a, const hemi_context *ctx, size_t sample,
                              const uint8_t seed[HEMI_SEED_BYTES]) {
    hemi_sample_uniform_vartime(a, ctx->reply->n, ctx->reply->q->m.p, seed, HEMI_DOMAIN_KEY + HEMI_KEY_RING_SWITCH,
                                (uint32_t)sample);
}

void hemi_ringswitch_key_set(hemi_evaluation_keys *keys, const uint8_t seed[HEMI_SEED_BYTES], const uint64_t *b,
                             uint64_t *scratch) {
    const hemi_context *small = keys->ctx->reply;
    const size_t n = small->n;
    for (size_t j = 0; j < HEMI_RINGSWITCH_SAMPLES; j++) {
        uint64_t *to = keys->ring_switch + 2 * j * n;
        small->k->fix(to, b + j * n, n, &small->q->m);
        hemi_ringswitch_expand_a(scratch, keys->ctx, j, seed);
        small->k->fix(to + n, scratch, n, &small->q->m);
    }
}

/* d in [-2^13, 2^13) as a residue. */
static inline uint64_t digit_residue(uint64_t d, uint64_t p) { return d + (p & (0 - (d >> 63))); }

/* The digits of c, w bits each, parted in even and odd coefficients: sample j's at j n/2. */
static void decompose(uint64_t *digits, const uint64_t *c, size_t half, uint64_t p) {
    const uint64_t unit = UINT64_C(1) << (HEMI_RINGSWITCH_DIGIT_BITS - 1), mask = 2 * unit - 1;
    uint64_t *even0 = digits, *odd0 = digits + half, *even1 = digits + 2 * half, *odd1 = digits + 3 * half;
    for (size_t i = 0; i < half; i++) {
        const uint64_t e = c[2 * i] + unit, o = c[2 * i + 1] + unit;
        even0[i] = digit_residue((e & mask) - unit, p);
        odd0[i] = digit_residue((o & mask) - unit, p);
        even1[i] = digit_residue((((e >> HEMI_RINGSWITCH_DIGIT_BITS) + unit) & mask) - unit, p);
        odd1[i] = digit_residue((((o >> HEMI_RINGSWITCH_DIGIT_BITS) + unit) & mask) - unit, p);
    }
}

void hemi_ringswitch(const hemi_evaluation_keys *keys, uint64_t *u0, uint64_t *u1, uint64_t *c1, uint64_t *digits) {
    const hemi_context *ctx = keys->ctx, *small = ctx->reply;
    const hemi_kernels *k = small->k;
    const hemi_modulus *m = &small->q->m;
    const size_t n = small->n;
    k->switch_down(c1, c1, ctx->n, HEMI_RINGSWITCH_BITS, &ctx->q->m);
    decompose(digits, c1, n, m->p);
    for (size_t j = 0; j < HEMI_RINGSWITCH_SAMPLES; j++) {
        uint64_t *d = digits + j * n;
        const uint64_t *b = keys->ring_switch + 2 * j * n;
        k->ntt(d, small->q);
        (j == 0 ? k->mul_fixed : k->mul_add_fixed)(u0, d, b, n, m);
        (j == 0 ? k->mul_fixed : k->mul_add_fixed)(u1, d, b + n, n, m);
    }
    k->intt(u0, u0, small->q);
    k->intt(u1, u1, small->q);
}

void hemi_ringswitch_scale(const hemi_context *ctx, uint64_t *r, const uint64_t *c0, size_t count) {
    ctx->k->switch_down(r, c0, count, SCALE_BITS, &ctx->q->m);
    ctx->k->switch_up(r, r, count, SCALE_BITS, &ctx->reply->q->m);
}
