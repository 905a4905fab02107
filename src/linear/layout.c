#include "linear/layout.h"

#include <math.h>

#include "base/error.h"
#include "random/sample.h"
#include "rlwe/noise.h"

static uint32_t ceil_pow2(uint32_t x) {
    uint32_t p = 1;
    while (p < x) p *= 2;
    return p;
}

static unsigned log2_of(uint32_t pow2) { return 31u - (unsigned)__builtin_clz(pow2); }

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

uint32_t hemi_linear_products(const hemi_linear_layout *l) {
    uint32_t k = 0;
    for (size_t g = 0; g < l->groups; g++) k += l->group[g].k;
    return k;
}

size_t hemi_linear_input_positions(const hemi_linear_layout *l, uint32_t *positions) {
    /* every coefficient that a kept output reads: S u + j, j < d */
    if (positions)
        for (uint32_t u = 0, i = 0; u < l->n / l->s; u++)
            for (uint32_t j = 0; j < l->inputs; j++) positions[i++] = u * l->s + j;
    return (size_t)l->inputs * (l->n / l->s);
}

void hemi_linear_output_positions(const hemi_linear_layout *l, uint32_t *positions) {
    const uint32_t per_product = l->n / l->s;
    for (size_t g = 0; g < l->groups; g++) {
        const hemi_linear_group *group = &l->group[g];
        for (uint32_t k = 0; k < group->k; k++)
            for (uint32_t r = 0; r < per_product; r++) {
                const uint64_t o = (uint64_t)(group->first + k) * per_product + r;
                if (o < l->outputs) positions[o] = group->offset + l->s * r + k * (l->s / group->k);
            }
    }
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
    for (uint32_t bit = 0; 1u << bit < l->babies; bit++) found[count++] = hemi_linear_family(l, bit);
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

/* Cost of a layout in units of one NTT, one thread: measured, AVX2 and AVX-512 kernels being alike in these ratios. */
#define COST_PRODUCT 0.3 /* one plaintext, both components: mostly reading it */
#define COST_BABY 5.0    /* two for half of the digits (hoisted), four to divide by P */
#define COST_STEP 4.0    /* digit, and division of c1 alone: c0 stays over qP until the end */

static double cost(const hemi_linear_layout *l) {
    double c = (l->babies - 1) * COST_BABY + hemi_linear_products(l) * COST_PRODUCT;
    for (size_t g = 0; g < l->groups; g++) c += (l->group[g].giants - 1) * COST_STEP;
    return c + hemi_linear_trace_steps(l, l->groups - 1) * COST_STEP; /* the steps of a first group are shared */
}

/* For S = N family element 0 is -1, whose powers are no giants of more than two. */
static bool babies_reach(const hemi_linear_layout *l, uint32_t babies, uint32_t k) {
    return l->s < l->n || babies > 1 || k <= 2;
}

/* The cheapest baby count for the groups as they are; false if there is none below the key limit. */
static bool choose_babies(hemi_linear_layout *l, double *best) {
    hemi_linear_layout try = *l;
    const uint32_t smallest = l->group[l->groups - 1].k;
    bool found = false;
    for (try.babies = 1; try.babies <= smallest; try.babies *= 2) {
        complete(&try);
        const double c = cost(&try);
        if (!babies_reach(l, try.babies, l->group[0].k)) continue;
        if (hemi_linear_automorphisms(&try, NULL) > HEMI_LINEAR_KEYS_SOFT_MAX && found) continue;
        if (!found || c < *best) {
            *best = c;
            *l = try;
            found = true;
        }
    }
    return found;
}

static void choose_groups(hemi_linear_layout *l) {
    const uint32_t per_product = l->n / l->s;
    const uint32_t rows = (l->outputs + per_product - 1) / per_product;
    hemi_linear_layout one = *l, two = *l;
    double cost_one = 0, cost_two = 0;
    one.groups = 1;
    one.group[0].k = ceil_pow2(rows);
    (void)choose_babies(&one, &cost_one);
    *l = one;
    if (rows < 3 || rows == one.group[0].k) return;
    two.groups = 2;
    two.group[0].k = one.group[0].k / 2;
    two.group[1].k = ceil_pow2(rows - two.group[0].k);
    if (two.group[1].k >= two.group[0].k) return;
    if (choose_babies(&two, &cost_two) && cost_two < cost_one &&
        hemi_linear_automorphisms(&two, NULL) <= HEMI_LINEAR_KEYS_SOFT_MAX)
        *l = two;
}

static hemi_status begin(hemi_linear_layout *l, const hemi_params *params, uint32_t inputs, uint32_t outputs, uint32_t s,
                         hemi_error *err) {
    *l = (hemi_linear_layout){.params = params, .log2_n = params->log2_n, .n = UINT32_C(1) << params->log2_n};
    if (params->reply_only)
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s is for replies of other sets: no module is of it", params->name);
    if (inputs == 0 || outputs == 0 || inputs > l->n || outputs > l->n)
        return hemi_fail(err, HEMI_ERR_SHAPE, "a linear map of %u inputs and %u outputs: set %s holds 1 to %u of each", inputs,
                         outputs, params->name, l->n);
    if (s != 0 && (s > l->n || (s & (s - 1)) != 0 || s < inputs))
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "layout %u: it must be a power of two from %u (the inputs) to %u (set %s)", s,
                         ceil_pow2(inputs), l->n, params->name);
    l->inputs = inputs;
    l->outputs = outputs;
    if (s == 0) {
        s = ceil_pow2(inputs);
        /* without key switching a larger S costs nothing and uploads less */
        while (2 * (uint64_t)s * outputs <= l->n) s *= 2;
    }
    l->s = s;
    l->direct = (uint64_t)s * outputs <= l->n;
    if (!l->direct && params->special == 0)
        return hemi_fail(err, HEMI_ERR_PARAMS,
                         "set %s has no key switching: with it, inputs (rounded up to a power of two) times outputs may be at most "
                         "%u, not %u x %u; use a set with a special prime",
                         params->name, l->n, s, outputs);
    return HEMI_OK;
}

hemi_status hemi_linear_layout_init(hemi_linear_layout *l, const hemi_params *params, uint32_t inputs, uint32_t outputs,
                                    uint32_t s, hemi_error *err) {
    HEMI_TRY(begin(l, params, inputs, outputs, s, err));
    if (l->direct) {
        l->babies = 1;
        l->groups = 1;
        l->group[0].k = 1;
        complete(l);
    } else {
        choose_groups(l);
    }
    return HEMI_OK;
}

hemi_status hemi_linear_layout_restore(hemi_linear_layout *l, const hemi_params *params, uint32_t inputs, uint32_t outputs,
                                       uint32_t s, uint32_t babies, const uint32_t *k, size_t groups, hemi_error *err) {
    if (s == 0) return hemi_fail(err, HEMI_ERR_FORMAT, "a layout needs its S");
    HEMI_TRY(begin(l, params, inputs, outputs, s, err));
    if (groups == 0 || groups > HEMI_LINEAR_GROUPS_MAX || babies == 0 || (babies & (babies - 1)) != 0)
        return hemi_fail(err, HEMI_ERR_FORMAT, "a layout has 1 to %d groups and a power of two of babies, not %zu and %u",
                         HEMI_LINEAR_GROUPS_MAX, groups, babies);
    uint64_t rows = 0;
    for (size_t g = 0; g < groups; g++) {
        const bool fits = k[g] != 0 && (k[g] & (k[g] - 1)) == 0 && k[g] <= s && k[g] >= babies && (g == 0 || k[g] < k[g - 1]) &&
                          babies_reach(l, babies, k[g]);
        if (!fits || (l->direct && k[g] != 1))
            return hemi_fail(err, HEMI_ERR_FORMAT, "group %zu of a layout has k = %u, which does not fit S = %u and %u babies", g, k[g],
                             s, babies);
        l->group[g].k = k[g];
        rows += k[g];
    }
    if ((groups > 1 && s / k[0] < 2) || rows * (l->n / s) < outputs)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the groups of a layout do not hold its %u outputs", outputs);
    l->babies = babies;
    l->groups = groups;
    complete(l);
    return HEMI_OK;
}

double hemi_linear_noise_variance(const hemi_linear_layout *l, double weight_norm2, unsigned b_bits) {
    /* a result reads every block of the input, each with the weights of another output of its row polynomial; those blocks
     * hold no message, but they hold errors. 1/S and the trace's S cancel */
    const double input = HEMI_ERROR_VARIANCE + hemi_noise_upload_variance(l->params, b_bits);
    const double blocks = l->direct ? l->outputs : (double)l->n / l->s;
    double variance = blocks * weight_norm2 * input + hemi_noise_zero_variance(l->params);
    if (l->direct) return variance;
    const double ks = hemi_noise_keyswitch_variance(l->params);
    /* baby b carries one key switch per bit of b, half of log2(B) on average; each of the K plaintexts has the norm of all
     * of the group's row polynomials, and the trace doubles every kept coefficient at each of its steps */
    const double baby = 0.5 * log2_of(l->babies) * ks;
    double worst = 0;
    for (size_t g = 0; g < l->groups; g++) {
        const double k = l->group[g].k, doubling = (double)l->s / k;
        const double before = (double)l->group[g].first * l->n / l->s;
        const double outputs = fmin(l->outputs - before, k * l->n / l->s); /* the group's; the rest of it is zero */
        const double products = k * outputs * weight_norm2 * baby;
        const double giants = ((double)l->group[g].giants - 1) * ks;
        double trace = 0; /* step j of T: its noise is doubled by the T-1-j steps after it */
        for (unsigned j = 0, steps = hemi_linear_trace_steps(l, g); j < steps; j++) trace += ks * pow(4.0, steps - 1 - j);
        worst = fmax(worst, (products + giants) * doubling * doubling + trace);
    }
    return variance + worst;
}

double hemi_linear_switch_variance(const hemi_linear_layout *l, unsigned a_bits, unsigned b_bits) {
    return hemi_noise_download_variance(l->params, a_bits, b_bits);
}
