#include "ckks/workspace.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"

#define ROOM 64 /* blocks that there is room for at first */

hemi_status hemi_ckks_workspace_new(hemi_ckks_workspace **out, const hemi_ckks_context *ctx, uint32_t limbs, hemi_team *team,
                                    hemi_error *err) {
    const size_t n = ctx->n, workers = (size_t)hemi_team_size(team);
    const size_t scratch = (hemi_ckks_digits(ctx->params, limbs) + 3) * hemi_ckks_stride(ctx);
    const size_t rest = 2 * HEMI_CKKS_TOGETHER * (ctx->specials + 1) * n;
    const size_t words = 4 * limbs * n + rest + workers * scratch;
    *out = NULL;
    hemi_ckks_workspace *w = hemi_alloc(1, sizeof *w);
    uint64_t *at = w ? hemi_alloc_large(words, sizeof *at) : NULL;
    if (!at) {
        hemi_free(w);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to compute on ciphertexts of %u limbs", limbs);
    }
    *w = (hemi_ckks_workspace){.ctx = ctx, .team = team, .limbs = limbs, .workers = workers, .scratch_words = scratch, .storage = at,
                               .bytes = words * sizeof *at};
    w->coefficient = at, at += limbs * n;
    for (size_t i = 0; i < 3; i++) w->product[i] = at, at += limbs * n;
    w->rest = at, at += rest;
    w->scratch = at;
    *out = w;
    return HEMI_OK;
}

void hemi_ckks_workspace_free(hemi_ckks_workspace *w) {
    if (!w) return;
    for (size_t i = 0; i < w->blocks; i++) hemi_free(w->block[i].words);
    hemi_free(w->block);
    hemi_free(w->storage);
    hemi_free(w);
}

size_t hemi_ckks_workspace_workers(const hemi_ckks_workspace *w) { return w->workers; }

void hemi_ckks_workspace_use(hemi_ckks_workspace *w, hemi_team *team) { w->team = team; }

size_t hemi_ckks_workspace_bytes(const hemi_ckks_workspace *w) {
    size_t bytes = w->bytes;
    for (size_t i = 0; i < w->blocks; i++) bytes += w->block[i].count * sizeof(uint64_t);
    return bytes;
}

static bool make_room(hemi_ckks_workspace *w) {
    if (w->blocks < w->room) return true;
    const size_t room = w->room ? 2 * w->room : ROOM;
    hemi_ckks_block *block = hemi_alloc(room, sizeof *block);
    if (!block) return false;
    if (w->block) memcpy(block, w->block, w->blocks * sizeof *block);
    hemi_free(w->block);
    w->block = block;
    w->room = room;
    return true;
}

/* The smallest block that is large enough, and not twice as large. */
uint64_t *hemi_ckks_lend(hemi_ckks_workspace *w, size_t words) {
    hemi_ckks_block *best = NULL;
    for (size_t i = 0; i < w->blocks; i++) {
        hemi_ckks_block *b = &w->block[i];
        if (!b->lent && b->count >= words && b->count / 2 <= words && (!best || b->count < best->count)) best = b;
    }
    if (!best) {
        uint64_t *fresh = make_room(w) ? hemi_alloc_large(words, sizeof *fresh) : NULL;
        if (!fresh) return NULL;
        best = &w->block[w->blocks++];
        *best = (hemi_ckks_block){.words = fresh, .count = words};
    }
    best->lent = true;
    return best->words;
}

void hemi_ckks_give_back(hemi_ckks_workspace *w, uint64_t *block) {
    for (size_t i = 0; block && i < w->blocks; i++)
        if (w->block[i].words == block) w->block[i].lent = false;
}

hemi_status hemi_ckks_cipher_lend(hemi_ckks_cipher *c, hemi_ckks_workspace *w, uint32_t limbs, hemi_error *err) {
    *c = (hemi_ckks_cipher){.limbs = limbs, .c0 = hemi_ckks_lend(w, 2 * (size_t)limbs * w->ctx->n)};
    if (!c->c0) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a ciphertext of %u limbs", limbs);
    c->c1 = c->c0 + (size_t)limbs * w->ctx->n;
    return HEMI_OK;
}

void hemi_ckks_cipher_give_back(hemi_ckks_cipher *c, hemi_ckks_workspace *w) {
    hemi_ckks_give_back(w, c->c0);
    *c = (hemi_ckks_cipher){0};
}
