#include "linear/reply.h"

#include "base/bits.h"
#include "base/error.h"
#include "rlwe/ringswitch.h"

hemi_status hemi_linear_reply_check(const hemi_linear_layout *layout, const hemi_evaluation_keys *keys,
                                    const hemi_linear_output *out, hemi_error *err) {
    if (!out->ring_switch) return HEMI_OK;
    if (!hemi_linear_outputs_halve(layout))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "the outputs of this layout do not fit the ring of replies of set %s",
                         layout->params->name);
    if (!keys->ring_switch)
        return hemi_fail(err, HEMI_ERR_KEY,
                         "the evaluation keys lack the ring-switching key: make keys for all the modules of the model");
    return HEMI_OK;
}

static void store(const hemi_context *ctx, size_t count, uint64_t *c0, uint64_t *c1, const hemi_linear_output *out, uint8_t *at) {
    const hemi_modulus *m = &ctx->q->m;
    ctx->k->switch_down(c0, c0, count, out->b_bits, m);
    ctx->k->switch_down(c1, c1, ctx->n, out->a_bits, m);
    hemi_pack(at, c1, ctx->n, out->a_bits);
    hemi_pack(at + hemi_packed_bytes(ctx->n, out->a_bits), c0, count, out->b_bits);
}

void hemi_linear_reply_store(uint8_t *at, const hemi_linear_output *out, const hemi_evaluation_keys *keys, const uint32_t *positions,
                             size_t count, uint64_t *c0, uint64_t *c1, uint64_t *u, uint64_t *digits) {
    const hemi_context *ctx = keys->ctx;
    if (!out->ring_switch) {
        store(ctx, count, c0, c1, out, at);
        return;
    }
    const hemi_context *small = ctx->reply;
    uint64_t *u0 = u, *u1 = u + small->n;
    hemi_ringswitch(keys, u0, u1, c1, digits);
    hemi_ringswitch_scale(ctx, c0, c0, count);
    for (size_t o = 0; o < count; o++) c0[o] = hemi_mod_add(c0[o], u0[positions[o] / 2], &small->q->m);
    store(small, count, c0, u1, out, at);
}
