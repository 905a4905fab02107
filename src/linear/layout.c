#include "linear/layout.h"

#include <math.h>

#include "base/error.h"
#include "random/sample.h"
#include "rlwe/context.h"
#include "ring/kernels.h"
#include "rlwe/noise.h"

static uint32_t ceil_pow2(uint32_t x) {
    uint32_t p = 1;
    while (p < x) p *= 2;
    return p;
}

static bool is_pow2(uint32_t x) { return x != 0 && (x & (x - 1)) == 0; }
static uint32_t ceil_div(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }
static unsigned log2_of(uint32_t pow2) { return 31u - (unsigned)__builtin_clz(pow2); }

/* ---- what follows from a layout */

uint32_t hemi_linear_family(const hemi_linear_layout *l, unsigned bit) {
    /* G_S = {t = 1 mod 2N/S}. For S < N it is cyclic; for S = N it is {-1} x <5>, and bit 0 is -1. */
    if (l->s == l->n) return bit == 0 ? 2 * l->n - 1 : 1 + (2u << bit);
    return 1 + (2 * l->n / l->s << bit);
}

uint32_t hemi_linear_gamma(const hemi_linear_layout *l, uint32_t i) {
    uint64_t t = 1;
    for (unsigned bit = 0; i >> bit; bit++)
        if (i >> bit & 1) t = t * hemi_linear_family(l, bit) % (2 * l->n);
    return (uint32_t)t;
}

uint32_t hemi_linear_giant(const hemi_linear_layout *l) { return hemi_linear_family(l, log2_of(l->babies)); }

unsigned hemi_linear_trace_steps(const hemi_linear_layout *l, size_t group) {
    return l->direct ? 0 : log2_of(l->s / l->group[group].k);
}

uint32_t hemi_linear_polynomials(const hemi_linear_layout *l) {
    uint32_t k = 0;
    for (size_t g = 0; g < l->groups; g++) k += l->group[g].k;
    return k;
}

size_t hemi_linear_products(const hemi_linear_layout *l) {
    return (size_t)l->in_blocks * l->out_blocks * hemi_linear_polynomials(l);
}

uint32_t hemi_linear_places(const hemi_linear_layout *l) { return l->tile_y * l->tile_x; }

uint32_t hemi_linear_place(const hemi_linear_layout *l, uint32_t i) {
    return l->rows ? l->fan * i : i / l->tile_x * l->pitch + i % l->tile_x;
}

uint32_t hemi_linear_input_places(const hemi_linear_layout *l) {
    /* outputs that share a row polynomial read each other's places, so all of them; otherwise those up to the last tap of the
     * last position */
    if (!l->rows) return (l->tile_y + l->taps_y - 2) * l->pitch + l->tile_x + l->taps_x - 1;
    return l->fan > 1 ? l->n / l->s : l->rows;
}

size_t hemi_linear_input_positions(const hemi_linear_layout *l, uint32_t *positions) {
    const uint32_t places = hemi_linear_input_places(l);
    if (positions)
        for (uint32_t u = 0, i = 0; u < places; u++)
            for (uint32_t j = 0; j < l->block_inputs; j++) positions[i++] = u * l->s + j;
    return (size_t)places * l->block_inputs;
}

size_t hemi_linear_output_positions(const hemi_linear_layout *l, uint32_t *positions) {
    const uint32_t places = hemi_linear_places(l);
    for (size_t g = 0; positions && g < l->groups; g++) {
        const hemi_linear_group *group = &l->group[g];
        for (uint32_t i = 0; i < group->k * l->fan; i++) {
            const uint32_t o = group->first * l->fan + i, k = i / l->fan, f = i % l->fan;
            for (uint32_t p = 0; o < l->block_outputs && p < places; p++)
                positions[(size_t)p * l->block_outputs + o] =
                    group->offset + l->s * (hemi_linear_place(l, p) + f) + k * (l->s / group->k);
        }
    }
    return (size_t)places * l->block_outputs;
}

bool hemi_linear_outputs_halve(const hemi_linear_layout *l) {
    bool even = l->params->reply != NULL;
    for (size_t g = 0; g < l->groups; g++) even = even && l->group[g].offset % 2 == 0 && l->s / l->group[g].k % 2 == 0;
    return even;
}

size_t hemi_linear_automorphisms(const hemi_linear_layout *l, uint32_t *t) {
    uint32_t found[HEMI_AUTOMORPHISMS_MAX];
    size_t count = 0;
    if (l->direct) return 0;
    for (uint32_t b = 1; l->params->baby_digits && b < l->babies; b++)
        for (unsigned d = 0; d < l->params->baby_digits; d++) found[count++] = HEMI_KEY_NUMBER(hemi_linear_gamma(l, b), d);
    for (uint32_t bit = 0; !l->params->baby_digits && 1u << bit < l->babies; bit++) found[count++] = hemi_linear_family(l, bit);
    for (size_t g = 0; g < l->groups; g++) {
        if (l->group[g].giants > 1) found[count++] = hemi_linear_giant(l);
        for (unsigned j = 0; j < hemi_linear_trace_steps(l, g); j++) found[count++] = (l->n >> j) + 1;
    }
    size_t kept = 0; /* insertion sort without repeats */
    for (size_t i = 0; i < count; i++) {
        const uint32_t v = found[i];
        size_t at = 0;
        while (at < kept && found[at] < v) at++;
        if (at < kept && found[at] == v) continue;
        for (size_t j = kept; j > at; j--) found[j] = found[j - 1];
        found[at] = v;
        kept++;
    }
    if (t)
        for (size_t i = 0; i < kept; i++) t[i] = found[i];
    return kept;
}

/* Fills in everything that follows from s, babies and the k of each group; the numbers are known to fit. */
static void complete(hemi_linear_layout *l) {
    uint32_t first = 0;
    for (size_t g = 0; g < l->groups; g++) {
        l->group[g].first = first;
        l->group[g].giants = l->group[g].k / l->babies;
        /* group 0 fills the multiples of S/K0; a smaller group, spaced at least twice that, goes half way between */
        l->group[g].offset = g == 0 ? 0 : l->s / l->group[0].k / 2;
        first += l->group[g].k;
    }
}

/* ---- choosing */

/* Cost of a layout in units of one NTT, one thread: measured, AVX2 and AVX-512 kernels being alike in these ratios. */
#define COST_DIRECT_BABY 3.5 /* of sets with baby_digits: four products with keys, no division */
#define COST_PRODUCT    0.3 /* one plaintext, both components: mostly reading it */
#define COST_BABY       5.0 /* two for half of the digits (hoisted), four to divide by P */
#define COST_STEP       4.0 /* digit, and division of c1 alone: c0 stays over qP until the end */
#define COST_CIPHERTEXT 6.0 /* expanding and transforming an input; re-randomising, switching and packing a result */

double hemi_linear_cost(const hemi_linear_layout *l) {
    double step = 0;
    for (size_t g = 0; g < l->groups; g++) step += (l->group[g].giants - 1) * COST_STEP;
    step += hemi_linear_trace_steps(l, l->groups - 1) * COST_STEP; /* the steps of a first group are shared */
    const bool precise = l->params->baby_digits != 0;
    return l->in_blocks * ((l->babies - 1) * (precise ? COST_DIRECT_BABY : COST_BABY) + COST_CIPHERTEXT) +
           l->out_blocks * (step + COST_CIPHERTEXT) + (double)hemi_linear_products(l) * COST_PRODUCT * (precise ? 2 : 1);
}

/* For S = N family element 0 is -1, whose powers are no giants of more than two. */
static bool babies_reach(const hemi_linear_layout *l, uint32_t babies, uint32_t k) {
    return l->s < l->n || babies > 1 || k <= 2;
}

/* The cheapest baby count for the groups as they are (or the one that is wanted); false if there is none below the key limit. */
static bool choose_babies(hemi_linear_layout *l, uint32_t wanted, double *best) {
    hemi_linear_layout try = *l;
    const uint32_t smallest = l->group[l->groups - 1].k;
    const bool precise = l->params->baby_digits != 0;
    bool found = false;
    for (try.babies = 1; try.babies <= smallest; try.babies *= 2) {
        complete(&try);
        const double c = hemi_linear_cost(&try);
        if (!babies_reach(l, try.babies, l->group[0].k) || try.babies * l->in_blocks > HEMI_DOT_COUNT_MAX) continue;
        if ((wanted && try.babies != wanted) || (precise && try.babies > HEMI_LINEAR_PRECISE_BABIES_MAX)) continue;
        if (!precise && hemi_linear_automorphisms(&try, NULL) > HEMI_LINEAR_KEYS_SOFT_MAX && found) continue;
        if (!found || c < *best) {
            *best = c;
            *l = try;
            found = true;
        }
    }
    return found;
}

static uint32_t polynomials_needed(const hemi_linear_layout *l) { return ceil_div(l->block_outputs, l->fan); }

/* Groups, and babies where `wanted` is 0. False where the wanted number fits no choice. */
static bool choose_groups(hemi_linear_layout *l, uint32_t wanted) {
    const uint32_t rows = polynomials_needed(l);
    hemi_linear_layout one = *l, two = *l;
    double cost_one = 0, cost_two = 0;
    one.groups = 1;
    one.group[0].k = ceil_pow2(rows);
    const bool has_one = choose_babies(&one, wanted, &cost_one);
    if (has_one) *l = one;
    if (rows < 3 || rows == one.group[0].k) return has_one;
    two.groups = 2;
    two.group[0].k = one.group[0].k / 2;
    two.group[1].k = ceil_pow2(rows - two.group[0].k);
    if (two.group[1].k >= two.group[0].k || !choose_babies(&two, wanted, &cost_two)) return has_one;
    const bool few = l->params->baby_digits || hemi_linear_automorphisms(&two, NULL) <= HEMI_LINEAR_KEYS_SOFT_MAX;
    if (!has_one || (cost_two < cost_one && few)) *l = two;
    return true;
}

/* Groups and babies as given; what is wrong with them is a matter of the file they come from. */
static hemi_status take_groups(hemi_linear_layout *l, const hemi_linear_choice *c, hemi_error *err) {
    if (c->groups > HEMI_LINEAR_GROUPS_MAX || !is_pow2(c->babies))
        return hemi_fail(err, HEMI_ERR_FORMAT, "a layout has 1 to %d groups and a power of two of babies, not %zu and %u",
                         HEMI_LINEAR_GROUPS_MAX, c->groups, c->babies);
    if (l->params->baby_digits && c->babies > HEMI_LINEAR_PRECISE_BABIES_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u babies: set %s takes at most %d", c->babies, l->params->name, HEMI_LINEAR_PRECISE_BABIES_MAX);
    if (c->babies * (uint64_t)l->in_blocks > HEMI_DOT_COUNT_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u babies of %u ciphertexts are more than %d", c->babies, l->in_blocks,
                         HEMI_DOT_COUNT_MAX);
    uint64_t rows = 0;
    for (size_t g = 0; g < c->groups; g++) {
        const uint32_t k = c->k[g];
        const bool fits = is_pow2(k) && k <= l->s && k >= c->babies && (g == 0 || k < c->k[g - 1]) && babies_reach(l, c->babies, k);
        if (!fits || (l->direct && k != 1))
            return hemi_fail(err, HEMI_ERR_FORMAT, "group %zu of a layout has k = %u, which does not fit S = %u and %u babies", g, k,
                             l->s, c->babies);
        l->group[g].k = k;
        rows += k;
    }
    if ((c->groups > 1 && l->s / c->k[0] < 2) || rows * l->fan < l->block_outputs)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the groups of a layout do not hold its %u outputs", l->block_outputs);
    l->babies = c->babies;
    l->groups = c->groups;
    complete(l);
    return HEMI_OK;
}

/* Everything from s, fan, rows and tile on. */
static hemi_status settle(hemi_linear_layout *l, const hemi_linear_choice *c, hemi_error *err) {
    const uint64_t capacity = (uint64_t)l->s * l->fan; /* outputs of a ciphertext */
    l->in_blocks = ceil_div(l->inputs, l->s);
    l->block_inputs = ceil_div(l->inputs, l->in_blocks);
    l->out_blocks = l->outputs <= capacity ? 1 : ceil_div(l->outputs, (uint32_t)capacity);
    l->block_outputs = ceil_div(ceil_div(l->outputs, l->out_blocks), l->fan) * l->fan;
    if (l->block_outputs > l->outputs) l->block_outputs = l->outputs;
    if (l->in_blocks > HEMI_LINEAR_BLOCKS_MAX || l->out_blocks > HEMI_LINEAR_BLOCKS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u inputs and %u outputs take %u and %u ciphertexts: at most %u each way", l->inputs,
                         l->outputs, l->in_blocks, l->out_blocks, HEMI_LINEAR_BLOCKS_MAX);
    l->direct = polynomials_needed(l) == 1;
    if (!l->direct && l->params->special == 0)
        return hemi_fail(err, HEMI_ERR_PARAMS,
                         "set %s has no key switching: with it, inputs (rounded up to a power of two) times outputs may be at most "
                         "%u, not %u x %u; use a set with a special prime",
                         l->params->name, l->n, l->s, l->outputs);
    if (c->groups) return take_groups(l, c, err);
    if (!choose_groups(l, c->babies))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "%u babies do not fit a map of %u inputs and %u outputs", c->babies, l->inputs, l->outputs);
    return HEMI_OK;
}

static hemi_status begin(hemi_linear_layout *l, const hemi_params *params, uint32_t inputs, uint32_t outputs, hemi_error *err) {
    *l = (hemi_linear_layout){.params = params, .log2_n = params->log2_n, .n = UINT32_C(1) << params->log2_n};
    if (params->reply_only)
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s is for replies of other sets: no module is of it", params->name);
    HEMI_TRY(hemi_context_check(params, err));
    if (inputs == 0 || outputs == 0 || inputs > HEMI_LINEAR_FEATURES_MAX || outputs > HEMI_LINEAR_FEATURES_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "a linear map of %u inputs and %u outputs: there may be 1 to %u of each", inputs, outputs,
                         HEMI_LINEAR_FEATURES_MAX);
    l->inputs = inputs;
    l->outputs = outputs;
    return HEMI_OK;
}

static const hemi_linear_choice no_choice;

/* S and F of rows. */
static hemi_status choose_span(hemi_linear_layout *l, const hemi_linear_choice *c, hemi_error *err) {
    const uint32_t least = l->inputs < l->n ? ceil_pow2(l->inputs) : l->n;
    if (c->s != 0 && (c->s > l->n || !is_pow2(c->s) || c->s < least))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "layout %u: it must be a power of two from %u (the inputs) to %u (set %s)", c->s, least,
                         l->n, l->params->name);
    const bool full = c->rows == HEMI_LINEAR_ROWS_FULL, one = c->rows <= 1;
    l->s = c->s ? c->s : least;
    if (c->s == 0 && one && l->inputs <= l->n) /* without key switching a larger S costs nothing and uploads less */
        while (2 * (uint64_t)l->s * l->outputs <= l->n) l->s *= 2;
    const uint32_t places = l->n / l->s;
    l->fan = c->fan ? c->fan : one ? places : l->outputs <= places ? ceil_pow2(l->outputs) : 1;
    if (!is_pow2(l->fan) || l->fan > places)
        return hemi_fail(err, HEMI_ERR_FORMAT, "a fan of %u: expected a power of two up to %u", l->fan, places);
    l->rows = full ? places / l->fan : one ? 1 : c->rows;
    if (l->rows > places / l->fan)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u rows: a ciphertext holds at most %u of this layout", l->rows, places / l->fan);
    return HEMI_OK;
}

hemi_status hemi_linear_layout_rows(hemi_linear_layout *l, const hemi_params *params, uint32_t inputs, uint32_t outputs,
                                    const hemi_linear_choice *choice, hemi_error *err) {
    const hemi_linear_choice *c = choice ? choice : &no_choice;
    HEMI_TRY(begin(l, params, inputs, outputs, err));
    HEMI_TRY(choose_span(l, c, err));
    l->tile_y = l->taps_y = l->taps_x = 1;
    l->tile_x = l->rows;
    return settle(l, c, err);
}

/* ---- grids */

static bool tile_fits(const hemi_linear_layout *l) {
    return ((uint64_t)l->tile_y + l->taps_y - 1) * ((uint64_t)l->tile_x + l->taps_x - 1) <= l->n / l->s;
}

static uint64_t tiles(const hemi_linear_layout *l, const hemi_grid *g) {
    return (uint64_t)ceil_div(hemi_grid_rows(g), l->tile_y) * ceil_div(hemi_grid_columns(g), l->tile_x);
}

/* The best tile for the S at hand: of each height, the widest that fits, no wider than it needs to be for its number of tiles. */
static bool choose_tile(hemi_linear_layout *l, const hemi_grid *g, uint32_t want_y, uint32_t want_x) {
    hemi_linear_layout try = *l;
    uint64_t fewest = UINT64_MAX;
    const uint32_t rows = hemi_grid_rows(g), columns = hemi_grid_columns(g), room = l->n / l->s;
    for (try.tile_y = 1; try.tile_y <= rows && try.tile_y + l->taps_y - 1 <= room; try.tile_y++) {
        const uint32_t widest = room / (try.tile_y + l->taps_y - 1);
        if (widest < l->taps_x || (want_y && try.tile_y != want_y)) continue;
        try.tile_x = widest - l->taps_x + 1 < columns ? widest - l->taps_x + 1 : columns;
        try.tile_x = want_x ? want_x : ceil_div(columns, ceil_div(columns, try.tile_x));
        if (!tile_fits(&try) || tiles(&try, g) >= fewest) continue;
        fewest = tiles(&try, g);
        *l = try;
    }
    l->pitch = l->tile_x + l->taps_x - 1;
    return fewest != UINT64_MAX;
}

hemi_status hemi_linear_layout_grid(hemi_linear_layout *l, const hemi_params *params, const hemi_grid *g, const hemi_linear_choice *choice,
                                    hemi_error *err) {
    const hemi_linear_choice *c = choice ? choice : &no_choice;
    hemi_linear_layout base, found = {0};
    double best = INFINITY;
    hemi_error inner = {0};
    hemi_status status = HEMI_ERR_SHAPE;
    HEMI_TRY(hemi_grid_check(g, err));
    HEMI_TRY(begin(&base, params, hemi_grid_inputs(g), hemi_grid_outputs(g), err));
    if (c->s != 0 && (!is_pow2(c->s) || c->s > base.n))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "layout %u: it must be a power of two up to %u (set %s)", c->s, base.n, params->name);
    if (c->rows != 0 || c->fan > 1) return hemi_fail(err, HEMI_ERR_FORMAT, "a grid's layout has neither rows nor a fan");
    base.fan = 1;
    base.taps_y = g->taps_y;
    base.taps_x = g->taps_x;
    for (uint32_t s = 1; s <= base.n; s *= 2) {
        hemi_linear_layout try = base;
        try.s = s;
        if ((c->s && s != c->s) || !choose_tile(&try, g, c->tile_y, c->tile_x)) continue;
        const hemi_status this = settle(&try, c, &inner);
        if (this != HEMI_OK) status = this;
        const double cost = this == HEMI_OK ? (double)tiles(&try, g) * hemi_linear_cost(&try) : INFINITY;
        if (cost < best) {
            best = cost;
            found = try;
        }
    }
    if (best == INFINITY)
        return hemi_fail(err, status, "a map of %u inputs, %u outputs and %u x %u taps does not fit set %s%s%s", base.inputs, base.outputs,
                         g->taps_y, g->taps_x, params->name, inner.message[0] ? ": " : "", inner.message);
    *l = found;
    return HEMI_OK;
}

hemi_linear_choice hemi_linear_layout_choice(const hemi_linear_layout *l) {
    hemi_linear_choice c = {.s = l->s, .fan = l->fan, .rows = l->rows, .babies = l->babies, .groups = l->groups};
    if (!l->rows) {
        c.tile_y = l->tile_y;
        c.tile_x = l->tile_x;
    }
    for (size_t g = 0; g < l->groups; g++) c.k[g] = l->group[g].k;
    return c;
}

double hemi_linear_noise_variance(const hemi_linear_layout *l, double weight_norm2, unsigned b_bits) {
    /* a result reads with the weights of all outputs that share its row polynomial, the others at places that hold no message
     * of its own, but errors. 1/S and the trace's S cancel */
    const double input = HEMI_ERROR_VARIANCE + hemi_noise_upload_variance(l->params, b_bits);
    const double blocks = l->direct ? fmin(l->fan, l->block_outputs) : l->fan;
    double variance = blocks * weight_norm2 * input + hemi_noise_zero_variance(l->params);
    if (l->direct) return variance;
    const double ks = hemi_noise_keyswitch_variance(l->params);
    /* baby b carries one key switch per bit of b, half of log2(B) on average; each of the K plaintexts has the norm of all
     * of the group's row polynomials, and the trace doubles every kept coefficient at each of its steps */
    const double baby = l->params->baby_digits ? hemi_noise_digits_variance(l->params) : 0.5 * log2_of(l->babies) * ks;
    double worst = 0;
    for (size_t g = 0; g < l->groups; g++) {
        const double k = l->group[g].k, doubling = (double)l->s / k;
        const double before = (double)l->group[g].first * l->fan;
        const double outputs = fmin(l->block_outputs - before, k * l->fan); /* the group's; the rest of it is zero */
        const double products = k * outputs * weight_norm2 * baby;
        /* babies over qP: the sum of the first giant is divided by P, too */
        const double giants = ((double)l->group[g].giants - (l->params->baby_digits ? 0 : 1)) * ks;
        double trace = 0; /* step j of T: its noise is doubled by the T-1-j steps after it */
        for (unsigned j = 0, steps = hemi_linear_trace_steps(l, g); j < steps; j++) trace += ks * pow(4.0, steps - 1 - j);
        worst = fmax(worst, (products + giants) * doubling * doubling + trace);
    }
    return variance + worst;
}

double hemi_linear_switch_variance(const hemi_linear_layout *l, unsigned a_bits, unsigned b_bits) {
    return hemi_noise_download_variance(l->params, a_bits, b_bits);
}
