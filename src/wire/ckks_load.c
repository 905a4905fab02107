#include "wire/ckks_load.h"

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"

#define ENTRY_PARTS_MAX 512 /* digits times limbs */

typedef struct loading {
    hemi_ckks_keys *keys;
    const uint8_t *at; /* the entry */
    size_t entry;
    uint32_t parts, limbs; /* of a digit; of the keys */
    uint64_t *b;           /* of each worker: n */
    size_t offset[ENTRY_PARTS_MAX]; /* of the parts of a digit, from the first */
    size_t digit_bytes;
} loading;

static void part_step(void *context, size_t index, size_t worker) {
    const loading *x = context;
    const hemi_ckks_context *ctx = x->keys->ctx;
    const uint32_t digit = (uint32_t)(index / x->parts), part = (uint32_t)(index % x->parts);
    uint64_t *b = x->b + worker * ctx->n;
    const hemi_limb *l = hemi_ckks_limb(ctx, hemi_ckks_ring_limb(ctx, x->limbs, part));
    hemi_unpack(b, x->at + HEMI_KEY_ENTRY_HEADER_BYTES + digit * x->digit_bytes + x->offset[part], ctx->n, l->m.bits);
    hemi_ckks_keys_set(x->keys, x->entry, digit, part, x->at + 8, b);
}

static void load_entries(hemi_ckks_keys *keys, const uint8_t *at, uint64_t *b, hemi_team *team) {
    const hemi_ckks_context *ctx = keys->ctx;
    loading x = {.keys = keys, .at = at, .b = b, .limbs = keys->limbs, .parts = keys->limbs + ctx->specials};
    for (uint32_t j = 0; j < x.parts; j++) {
        x.offset[j] = x.digit_bytes;
        x.digit_bytes += hemi_packed_bytes(ctx->n, hemi_ckks_limb(ctx, hemi_ckks_ring_limb(ctx, keys->limbs, j))->m.bits);
    }
    for (x.entry = 0; x.entry <= keys->count; x.entry++) {
        const uint32_t digits = hemi_ckks_digits(ctx->params, keys->limbs);
        hemi_team_run(team, x.entry == 0 ? 1 : digits * x.parts, part_step, &x);
        x.at += hemi_ckks_key_entry_bytes(ctx->params, keys->limbs, hemi_load32(x.at));
    }
}

hemi_status hemi_ckks_keys_load(hemi_ckks_keys **out, const uint8_t *bytes, size_t count, hemi_team *team, hemi_error *err) {
    const hemi_params *params;
    const hemi_ckks_context *ctx;
    uint32_t limbs, t[HEMI_CKKS_KEYS_MAX];
    size_t entries;
    *out = NULL;
    HEMI_TRY(hemi_ckks_keys_check(bytes, count, &params, &limbs, &entries, err));
    HEMI_TRY(hemi_ckks_context_shared(&ctx, params, err));
    const uint8_t *at = bytes + HEMI_CKKS_KEYS_HEADER_BYTES;
    for (size_t i = 0; i < entries; i++, at += hemi_ckks_key_entry_bytes(params, limbs, hemi_load32(at)))
        if (i > 0) t[i - 1] = hemi_load32(at);
    HEMI_TRY(hemi_ckks_keys_new(out, ctx, limbs, t, entries - 1, err));
    uint64_t *b = hemi_alloc((size_t)hemi_team_size(team) * ctx->n, sizeof *b);
    if (!b) {
        hemi_ckks_keys_free(*out);
        *out = NULL;
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for evaluation keys");
    }
    load_entries(*out, bytes + HEMI_CKKS_KEYS_HEADER_BYTES, b, team);
    hemi_free(b);
    return HEMI_OK;
}

typedef struct reading {
    hemi_ckks_cipher *c;
    const hemi_ckks_context *ctx;
    const uint8_t *bytes;
} reading;

static void limb_step(void *context, size_t i, size_t worker) {
    const reading *x = context;
    const size_t n = x->ctx->n;
    const hemi_limb *l = hemi_ckks_limb(x->ctx, (uint32_t)i);
    (void)worker;
    hemi_unpack(x->c->c0 + i * n, x->bytes + HEMI_SEED_BYTES + hemi_ckks_poly_bytes(x->ctx->params, (uint32_t)i), n, l->m.bits);
    x->ctx->k->ntt(x->c->c0 + i * n, l);
    hemi_sample_uniform_vartime(x->c->c1 + i * n, n, l->m.p, x->bytes, HEMI_DOMAIN_CIPHERTEXT, (uint32_t)i);
}

void hemi_ckks_ciphertext_load(hemi_ckks_cipher *c, const hemi_ckks_context *ctx, const uint8_t *bytes, uint32_t limbs, double scale, hemi_team *team) {
    reading x = {.c = c, .ctx = ctx, .bytes = bytes};
    c->limbs = limbs;
    c->scale = scale;
    hemi_team_run(team, limbs, limb_step, &x);
}

void hemi_ckks_ciphertext_store(uint8_t *bytes, const hemi_ckks_context *ctx, hemi_ckks_cipher *c) {
    const hemi_limb *l = hemi_ckks_limb(ctx, 0);
    const size_t each = hemi_packed_bytes(ctx->n, l->m.bits);
    ctx->k->intt(c->c1, c->c1, l);
    ctx->k->intt(c->c0, c->c0, l);
    hemi_pack(bytes, c->c1, ctx->n, l->m.bits);
    hemi_pack(bytes + each, c->c0, ctx->n, l->m.bits);
}
