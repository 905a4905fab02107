/* A client's evaluation keys, from bytes to what is computed with. */
#include <sodium.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "linear/layout.h"
#include "rlwe/ringswitch.h"
#include "server/evaluate.h"
#include "wire/ckks_load.h"

struct hemi_server_keys {
    hemi_evaluation_keys *linear; /* one of the two */
    hemi_ckks_keys *levelled;
    uint8_t id[HEMI_KEY_ID_BYTES];
};

/* scratch: 3 n words: the four samples have n/2 each. */
static void expand_ring_switch(hemi_evaluation_keys *keys, const uint8_t *packed, const uint8_t *seed, uint64_t *scratch) {
    const hemi_context *small = keys->ctx->reply;
    const unsigned bits = small->q->m.bits;
    for (size_t j = 0; j < HEMI_RINGSWITCH_SAMPLES; j++)
        hemi_unpack(scratch + j * small->n, packed + j * hemi_packed_bytes(small->n, bits), small->n, bits);
    hemi_ringswitch_key_set(keys, seed, scratch, scratch + HEMI_RINGSWITCH_SAMPLES * small->n);
}

static hemi_status expand_keys(hemi_evaluation_keys *keys, const hemi_context *ctx, const uint8_t *bytes, size_t entries, hemi_error *err) {
    const size_t n = ctx->n;
    uint64_t *b = hemi_alloc(3 * n, sizeof *b);
    if (!b) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for evaluation keys");
    const uint8_t *at = bytes + HEMI_KEYS_HEADER_BYTES;
    for (size_t i = 0, set = 0; i < entries; i++) {
        const uint32_t t = hemi_load32(at);
        const uint8_t *packed = at + HEMI_KEY_ENTRY_HEADER_BYTES;
        if (t == HEMI_KEY_RING_SWITCH) {
            expand_ring_switch(keys, packed, at + 8, b);
        } else {
            hemi_unpack(b, packed, n, ctx->q->m.bits);
            if (t != 0) hemi_unpack(b + n, packed + hemi_packed_bytes(n, ctx->q->m.bits), n, ctx->special->m.bits);
            hemi_evaluation_keys_set(keys, set++, at + 8, b, t != 0 ? b + n : NULL);
        }
        at += hemi_key_entry_bytes(ctx->params, t);
    }
    hemi_free(b);
    return HEMI_OK;
}

static hemi_status load_linear(hemi_evaluation_keys **out, const uint8_t *bytes, size_t count, hemi_error *err) {
    const hemi_params *params;
    const hemi_context *ctx;
    size_t entries;
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    HEMI_TRY(hemi_keys_check(bytes, count, &params, &entries, err));
    HEMI_TRY(hemi_context_shared(&ctx, params, err));
    const uint8_t *at = bytes + HEMI_KEYS_HEADER_BYTES + hemi_key_entry_bytes(params, 0);
    for (size_t i = 1; i < entries; i++) {
        t[i - 1] = hemi_load32(at);
        at += hemi_key_entry_bytes(params, t[i - 1]);
    }
    HEMI_TRY(hemi_evaluation_keys_new(out, ctx, t, entries - 1, err));
    return expand_keys(*out, ctx, bytes, entries, err);
}

hemi_status hemi_server_keys_load(hemi_server_keys **out, const uint8_t *bytes, size_t count, const uint8_t *id, hemi_team *team,
                                  hemi_error *err) {
    *out = NULL;
    hemi_server_keys *k = hemi_alloc(1, sizeof *k);
    if (!k) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for evaluation keys");
    const hemi_status s = hemi_ckks_keys_is(bytes, count) ? hemi_ckks_keys_load(&k->levelled, bytes, count, team, err)
                                                          : load_linear(&k->linear, bytes, count, err);
    if (s != HEMI_OK) {
        hemi_server_keys_free(k);
        return s;
    }
    if (id)
        memcpy(k->id, id, sizeof k->id);
    else
        (void)crypto_generichash(k->id, sizeof k->id, bytes, count, NULL, 0);
    *out = k;
    return HEMI_OK;
}

hemi_status hemi_server_keys_new(hemi_server_keys **out, const void *bytes, size_t count, hemi_error *err) {
    return hemi_server_keys_load(out, bytes, count, NULL, NULL, err);
}

void hemi_server_keys_free(hemi_server_keys *k) {
    if (!k) return;
    hemi_evaluation_keys_free(k->linear);
    hemi_ckks_keys_free(k->levelled);
    hemi_free(k);
}

const uint8_t *hemi_server_keys_id(const hemi_server_keys *k) { return k->id; }

size_t hemi_server_keys_bytes(const hemi_server_keys *k) { return sizeof *k + (k->linear ? k->linear->bytes : k->levelled->bytes); }

const hemi_evaluation_keys *hemi_server_keys_expanded(const hemi_server_keys *k) { return k->linear; }
const hemi_ckks_keys *hemi_server_keys_levelled(const hemi_server_keys *k) { return k->levelled; }

const hemi_params *hemi_server_keys_params(const hemi_server_keys *k) { return k->linear ? k->linear->ctx->params : k->levelled->ctx->params; }

hemi_status hemi_server_keys_check_set(const hemi_server_keys *k, const hemi_params *params, hemi_error *err) {
    const hemi_params *own = hemi_server_keys_params(k);
    if (own != params) return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys are of set %s, the request of %s", own->name, params->name);
    return HEMI_OK;
}
