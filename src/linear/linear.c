/* A map made ready: its plaintexts, in the form and the order in which they are read. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "linear/internal.h"
#include "linear/plaintexts.h"

/* Coefficients of a block: both components of all terms should fill less than half of the first-level cache. */
static uint32_t block_length(const hemi_linear_layout *l) {
    uint32_t len = HEMI_LINEAR_BLOCK_MAX;
    while (len > HEMI_LINEAR_BLOCK_MIN && l->in_blocks * l->babies * len * 16 > HEMI_LINEAR_BLOCK_BYTES) len /= 2;
    return l->n < len ? l->n : len;
}

size_t hemi_linear_plaintext_index(const hemi_linear *linear, uint32_t out_block, size_t group) {
    const hemi_linear_layout *l = &linear->layout;
    return ((size_t)out_block * hemi_linear_polynomials(l) + l->group[group].first) * l->in_blocks;
}

/* memcpy of a block of a plaintext, most often of a length that the compiler knows. */
static inline void deal(uint8_t *out, const uint8_t *in, size_t bytes) {
    if (bytes == HEMI_LINEAR_BLOCK_MIN * HEMI_DOT_BYTES)
        memcpy(out, in, HEMI_LINEAR_BLOCK_MIN * HEMI_DOT_BYTES);
    else
        memcpy(out, in, bytes);
}

/* One polynomial to its places among the right factors: out is those of term 0, whose blocks are `row` bytes apart. */
static void spread(const hemi_linear *linear, const hemi_limb *limb, uint8_t *out, size_t row, const uint64_t *a) {
    const uint32_t len = linear->block;
    for (uint32_t i = 0; i < linear->layout.n; i += len, out += row) linear->ctx->k->dot_right(out, a + i, len, &limb->m);
}

typedef struct transform {
    hemi_linear *linear;
    uint32_t in_block, out_block;
    size_t group;
    const int32_t *pt;
    const uint32_t *from;
    uint64_t *scratch; /* n per worker */
    atomic_bool *too_large;
} transform;

/* False if a number does not fit. */
static bool narrow(int16_t *out, const int32_t *pt, size_t n) {
    int32_t outside = 0;
    for (size_t i = 0; i < n; i++) {
        out[i] = (int16_t)pt[i];
        outside |= out[i] ^ pt[i];
    }
    return outside == 0;
}

static void transform_step(void *context, size_t index, size_t worker) {
    const transform *t = context;
    hemi_linear *linear = t->linear;
    const hemi_context *ctx = linear->ctx;
    const hemi_linear_layout *l = &linear->layout;
    const size_t n = l->n, giants = l->group[t->group].giants, giant = index / l->babies;
    const size_t term = t->in_block * l->babies + index % l->babies;
    const int32_t *pt = t->pt + t->from[index] * n;
    const size_t first = hemi_linear_plaintext_index(linear, t->out_block, t->group);
    if (linear->coefficients) {
        const size_t at = (first + giant * linear->terms + term) * n;
        if (linear->wide)
            memcpy((int32_t *)linear->coefficients + at, pt, n * sizeof *pt);
        else if (!narrow((int16_t *)linear->coefficients + at, pt, n))
            atomic_store(t->too_large, true);
        return;
    }
    uint64_t *a = t->scratch + worker * n;
    const size_t bytes = (size_t)linear->block * HEMI_DOT_BYTES;
    for (int over_p = 0; over_p < (linear->precise ? 2 : 1); over_p++) {
        const hemi_limb *limb = over_p ? ctx->special : ctx->q;
        for (size_t i = 0; i < n; i++) a[i] = hemi_mod_from_signed(pt[i], &limb->m);
        ctx->k->ntt(a, limb);
        spread(linear, limb, (over_p ? linear->plaintexts_p : linear->plaintexts) + first * n * HEMI_DOT_BYTES + (giant * linear->terms + term) * bytes,
               giants * linear->terms * bytes, a);
    }
}

typedef struct expansion {
    const hemi_linear *linear;
    uint8_t *out;
    const hemi_limb *limb;
    size_t first; /* polynomial */
    uint64_t *scratch;
    size_t stride;
} expansion;

/* Plaintext `polynomial` of the small form, in dot_right form: 6 n bytes. a: n words of scratch. */
static void expand_one(const hemi_linear *linear, const hemi_limb *limb, size_t polynomial, uint8_t *packed, uint64_t *a) {
    const hemi_context *ctx = linear->ctx;
    const size_t n = ctx->n, at = polynomial * n;
    const uint64_t p = limb->m.p;
    if (!linear->wide) ctx->k->from_int16(a, (const int16_t *)linear->coefficients + at, n, &limb->m);
    for (size_t i = 0; linear->wide && i < n; i++) {
        const int64_t v = ((const int32_t *)linear->coefficients)[at + i];
        a[i] = (uint64_t)v + (p & (uint64_t)(v >> 63)); /* |v| < p: coefficients have at most 32 bits */
    }
    ctx->k->ntt(a, limb);
    ctx->k->dot_right(packed, a, n, &limb->m);
}

/* A few terms at once: what goes to a block from one of them is less than a cache line. */
static void expand_step(void *context, size_t group, size_t worker) {
    const expansion *e = context;
    const hemi_linear *linear = e->linear;
    const size_t n = linear->layout.n, bytes = (size_t)linear->block * HEMI_DOT_BYTES, row = linear->terms * bytes;
    const size_t first = group * HEMI_LINEAR_EXPAND_TERMS, left = linear->terms - first;
    const size_t count = left < HEMI_LINEAR_EXPAND_TERMS ? left : HEMI_LINEAR_EXPAND_TERMS;
    uint64_t *a = e->scratch + worker * e->stride;
    uint8_t *packed = (uint8_t *)(a + n), *out = e->out + first * bytes;
    for (size_t t = 0; t < count; t++) expand_one(linear, e->limb, e->first + first + t, packed + t * n * HEMI_DOT_BYTES, a);
    for (size_t i = 0; i < n; i += linear->block, out += row)
        for (size_t t = 0; t < count; t++) deal(out + t * bytes, packed + (t * n + i) * HEMI_DOT_BYTES, bytes);
}

void hemi_linear_expand_giant(const hemi_linear *linear, uint8_t *out, const hemi_limb *limb, uint32_t out_block, size_t group, uint32_t giant,
                              uint64_t *scratch, size_t scratch_stride, hemi_team *team) {
    expansion e = {linear, out, limb, hemi_linear_plaintext_index(linear, out_block, group) + (size_t)giant * linear->terms, scratch,
                   scratch_stride};
    hemi_team_run(team, (linear->terms + HEMI_LINEAR_EXPAND_TERMS - 1) / HEMI_LINEAR_EXPAND_TERMS, expand_step, &e);
}

/* Memory for loading: plaintexts of one group between two ciphertexts. */
typedef struct loading {
    int32_t *pt;
    uint32_t *from;
    uint64_t *scratch;
    hemi_team *team;
    atomic_bool too_large; /* a coefficient that 16 bits do not hold */
} loading;

static hemi_status load_group(hemi_linear *linear, loading *load, uint32_t in_block, uint32_t out_block, size_t group, const int16_t *w,
                              hemi_error *err) {
    HEMI_TRY(hemi_linear_plaintexts(load->pt, load->from, &linear->layout, in_block, out_block, group, w, load->team, err));
    transform t = {linear, in_block, out_block, group, load->pt, load->from, load->scratch, &load->too_large};
    hemi_team_run(load->team, linear->layout.group[group].k, transform_step, &t);
    return HEMI_OK;
}

static hemi_status load_plaintexts(hemi_linear *linear, const int16_t *w, hemi_team *team, bool *fits, hemi_error *err) {
    const hemi_linear_layout *l = &linear->layout;
    const size_t n = l->n, k = l->group[0].k; /* the largest group */
    loading load = {.pt = hemi_alloc_large(k * n, sizeof *load.pt),
                    .from = hemi_alloc(k, sizeof *load.from),
                    .scratch = hemi_alloc((size_t)hemi_team_size(team) * n, sizeof *load.scratch),
                    .team = team};
    atomic_init(&load.too_large, false);
    hemi_status s = load.pt && load.from && load.scratch
                        ? HEMI_OK
                        : hemi_fail(err, HEMI_ERR_MEMORY, "no memory to transform the weights of a module");
    for (uint32_t o = 0; o < l->out_blocks; o++)
        for (uint32_t i = 0; i < l->in_blocks; i++)
            for (size_t g = 0; g < l->groups && s == HEMI_OK; g++) s = load_group(linear, &load, i, o, g, w, err);
    hemi_free(load.pt);
    hemi_free(load.from);
    hemi_free(load.scratch);
    *fits = !atomic_load(&load.too_large);
    return s;
}

/* X^offset of the second group, in NTT form, fixed. */
static hemi_status make_monomials(hemi_linear *linear, hemi_error *err) {
    const hemi_context *ctx = linear->ctx;
    const uint32_t n = ctx->n, offset = linear->layout.group[1].offset;
    linear->monomial_q = hemi_alloc(2 * (size_t)n, sizeof *linear->monomial_q);
    if (!linear->monomial_q) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    linear->monomial_p = linear->monomial_q + n;
    for (size_t i = 0; i < 2; i++) {
        const hemi_limb *limb = i == 0 ? ctx->q : ctx->special;
        uint64_t *x = linear->monomial_q + i * n;
        x[offset] = 1;
        ctx->k->ntt(x, limb);
        ctx->k->fix(x, x, n, &limb->m);
    }
    return HEMI_OK;
}

static bool allocate(hemi_linear *linear, bool bias) {
    const hemi_linear_layout *l = &linear->layout;
    linear->sent = hemi_linear_input_positions(l, NULL);
    linear->kept = hemi_linear_output_positions(l, NULL);
    linear->bias = bias ? hemi_alloc(l->outputs, sizeof *linear->bias) : NULL;
    linear->input_positions = hemi_alloc(linear->sent, sizeof(uint32_t));
    linear->output_positions = hemi_alloc(linear->kept, sizeof(uint32_t));
    return (!bias || linear->bias) && linear->input_positions && linear->output_positions;
}

/* Room for the plaintexts, and they in it. Small ones have 16 bits; where one does not fit, once more with 32: memory, not time of calls,
 * depends on that. */
static hemi_status load(hemi_linear *linear, const int16_t *w, hemi_linear_memory memory, hemi_team *team, hemi_error *err) {
    const size_t words = hemi_linear_products(&linear->layout) * linear->layout.n;
    for (int wide = 0; wide < 2; wide++) {
        const size_t each = memory == HEMI_LINEAR_FAST ? HEMI_DOT_BYTES : wide ? sizeof(int32_t) : sizeof(int16_t);
        void *room = hemi_alloc_large(words, each);
        if (!room) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu bytes of plaintexts", words * each);
        hemi_free(linear->coefficients);
        linear->coefficients = memory == HEMI_LINEAR_SMALL ? room : NULL;
        linear->plaintexts = memory == HEMI_LINEAR_FAST ? room : NULL;
        linear->wide = wide;
        linear->bytes = words * each;
        if (linear->precise && memory == HEMI_LINEAR_FAST) {
            linear->plaintexts_p = hemi_alloc_large(words, each);
            if (!linear->plaintexts_p) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu bytes of plaintexts", words * each);
            linear->bytes *= 2;
        }
        bool fits = true;
        HEMI_TRY(load_plaintexts(linear, w, team, &fits, err));
        if (fits) break;
    }
    return HEMI_OK;
}

hemi_status hemi_linear_new(hemi_linear **out, const hemi_context *ctx, const hemi_linear_layout *layout, const int16_t *w, const double *bias,
                            uint64_t delta, hemi_linear_memory memory, hemi_team *team, hemi_error *err) {
    *out = NULL;
    const bool precise = layout->params->baby_digits && !layout->direct;
    if (ctx->params != layout->params || ctx->q->m.bits > HEMI_DOT_MODULUS_BITS_MAX || layout->n % 8 != 0 ||
        (precise && ctx->special->m.bits > HEMI_DOT_MODULUS_BITS_MAX)) /* ring/kernels.h, dot2 */
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s does not serve matrix products of this layout", ctx->params->name);
    hemi_linear *linear = hemi_alloc(1, sizeof *linear);
    if (!linear) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    hemi_workspace_open();
    linear->ctx = ctx;
    linear->layout = *layout;
    linear->precise = precise;
    linear->block = block_length(layout);
    linear->terms = layout->in_blocks * layout->babies;
    linear->scale = layout->direct ? 1 : hemi_mod_inverse(layout->s % ctx->q->m.p, &ctx->q->m);
    hemi_status s = HEMI_OK;
    if (!allocate(linear, bias != NULL)) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    if (s == HEMI_OK) {
        (void)hemi_linear_input_positions(layout, linear->input_positions);
        (void)hemi_linear_output_positions(layout, linear->output_positions);
        linear->automorphisms = hemi_linear_automorphisms(layout, linear->automorphism);
        for (uint32_t o = 0; bias && o < layout->outputs; o++)
            linear->bias[o] = hemi_mod_from_signed(llrint(bias[o] * (double)delta), &ctx->q->m);
    }
    if (s == HEMI_OK && layout->groups == 2) s = make_monomials(linear, err);
    if (s == HEMI_OK) s = load(linear, w, memory, team, err);
    if (s != HEMI_OK) {
        hemi_linear_free(linear);
        return s;
    }
    *out = linear;
    return HEMI_OK;
}

void hemi_linear_free(hemi_linear *linear) {
    if (!linear) return;
    hemi_free(linear->plaintexts);
    hemi_free(linear->plaintexts_p);
    hemi_free(linear->coefficients);
    hemi_free(linear->monomial_q);
    hemi_free(linear->bias);
    hemi_free(linear->input_positions);
    hemi_free(linear->output_positions);
    hemi_free(linear);
    hemi_workspace_close();
}

size_t hemi_linear_bytes(const hemi_linear *linear) { return linear->bytes; }

const hemi_linear_layout *hemi_linear_get_layout(const hemi_linear *linear) { return &linear->layout; }
