/* The sums of products of a multiplication. */
#include "linear/multiplication.h"

/* Sums of `sums` giants from the plaintexts of one block of coefficients, unit after unit, while those are in the cache; at: the
 * block's first coefficient; w and w_p (precise maps): its plaintexts; giant: the first. */
static void dot_block(const hemi_multiplication *x, size_t at, const uint8_t *w, const uint8_t *w_p, size_t giant, size_t sums) {
    const hemi_linear *map = x->map;
    const hemi_kernels *k = map->ctx->k;
    const size_t left = at * map->terms, sum = giant * x->sum_stride + at;
    for (size_t i = 0; i < x->units; i++) {
        const hemi_unit *u = &x->unit[i];
        k->dot2(u->sum0 + sum, u->sum1 + sum, x->sum_stride, sums, u->left0 + left, u->left1 + left, map->block, w, map->terms, map->block,
                &map->ctx->q->m);
        if (w_p)
            k->dot2(u->sum0_p + sum, u->sum1_p + sum, x->sum_stride, sums, u->left0_p + left, u->left1_p + left, map->block, w_p,
                    map->terms, map->block, &map->ctx->special->m);
    }
}

static void dot_step(void *context, size_t index, size_t worker) {
    const hemi_multiplication *x = context;
    const hemi_linear *map = x->map;
    const size_t at = index * map->block, giants = map->layout.group[x->group].giants;
    const size_t first = (hemi_linear_plaintext_index(map, x->out_block, x->group) * map->layout.n + at * map->terms * giants) * HEMI_DOT_BYTES;
    (void)worker;
    dot_block(x, at, map->plaintexts + first, map->precise ? map->plaintexts_p + first : NULL, 0, giants);
}

/* The same for one giant, whose plaintexts have been made for this call. */
static void dot_small_step(void *context, size_t index, size_t worker) {
    const hemi_multiplication *x = context;
    const hemi_linear *map = x->map;
    const size_t at = index * map->block, bytes = at * map->terms * HEMI_DOT_BYTES;
    (void)worker;
    dot_block(x, at, x->expanded + bytes, map->precise ? x->expanded + map->terms * map->layout.n * HEMI_DOT_BYTES + bytes : NULL, x->giant, 1);
}

void hemi_multiplication_sum_products(hemi_multiplication *x, size_t group) {
    const hemi_linear *map = x->map;
    const size_t blocks = map->layout.n / map->block;
    x->group = group;
    if (map->plaintexts) {
        hemi_team_run(x->team, blocks, dot_step, x);
        return;
    }
    const size_t stride = (size_t)(x->scratch[1].digit - x->scratch[0].digit);
    for (x->giant = 0; x->giant < map->layout.group[group].giants; x->giant++) {
        uint8_t *at = x->expanded;
        hemi_linear_expand_giant(map, at, map->ctx->q, x->out_block, group, x->giant, x->scratch[0].digit, stride, x->team);
        at += map->terms * (size_t)map->layout.n * HEMI_DOT_BYTES;
        if (map->precise)
            hemi_linear_expand_giant(map, at, map->ctx->special, x->out_block, group, x->giant, x->scratch[0].digit, stride, x->team);
        hemi_team_run(x->team, blocks, dot_small_step, x);
    }
}
