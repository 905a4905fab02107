#include "model/plan.h"

#include <math.h>

#include "base/error.h"
#include "rlwe/noise.h"

#define HEADROOM         1.02
#define NOISE_SIGMAS     8.0
#define REPLY_BITS_MIN   14
#define REPLY_A_BITS_MIN 20
#define FLOOR_LOG2       (-19.1)
#define FLOOR_PRECISE    (-27.0) /* of sets with baby_digits, which are chosen for more precision */
#define UPLOAD_GROWTH    1.5 /* in variance, a fifth in standard deviation, for a quarter less to upload */
#define REPLY_A_GROWTH   1.69
#define REPLY_B_GROWTH   1.1
#define SWITCH_GROWTH    1.69 /* what half the degree may cost beside a reply in the set's own ring */

double hemi_grid_floor(double x) {
    double k = floor(HEMI_GRID_STEPS * log2(x));
    while (exp2((k + 1) / HEMI_GRID_STEPS) <= x) k++;
    while (exp2(k / HEMI_GRID_STEPS) > x) k--;
    return exp2(k / HEMI_GRID_STEPS);
}

static unsigned bit_length(uint64_t x) { return 64u - (unsigned)__builtin_clzll(x); }

/* Of the noisier layout. */
static double noise_variance(const hemi_plan_input *in, unsigned b_bits) {
    const double packed = in->packed != NULL ? hemi_linear_noise_variance(in->packed, in->norm2, b_bits) : 0;
    return fmax(packed, hemi_linear_noise_variance(in->layout, in->norm2, b_bits));
}

static unsigned choose_b_bits(const hemi_plan_input *in, double floor2) {
    static const unsigned choices[] = {24, 28, 32, 40};
    const unsigned all = bit_length(in->layout->params->q);
    const double limit = fmax(UPLOAD_GROWTH * noise_variance(in, all), floor2 / 4);
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++)
        if (choices[i] < all && noise_variance(in, choices[i]) <= limit) return choices[i];
    return all;
}

static double reply_variance(const hemi_linear_layout *l, bool switched, unsigned a_bits, unsigned b_bits) {
    return switched ? hemi_noise_switched_download_variance(l->params, a_bits, b_bits)
                    : hemi_linear_switch_variance(l, a_bits, b_bits);
}

/* The bits of a reply in the set's own ring or in that of half the degree; false if no number of them keeps the limit. */
static bool choose_bits(hemi_plan *plan, const hemi_linear_layout *l, bool switched, double noise, double limit) {
    const unsigned all = bit_length(switched ? l->params->reply->q : l->params->q);
    unsigned a = REPLY_A_BITS_MIN, b = REPLY_BITS_MIN;
    while (a < all && noise + reply_variance(l, switched, a, all) > limit) a++;
    const double with_a = noise + reply_variance(l, switched, a, all);
    while (b < all && noise + reply_variance(l, switched, a, b) > REPLY_B_GROWTH * with_a) b++;
    plan->reply_a_bits = a;
    plan->reply_b_bits = b;
    plan->reply_ring = switched ? l->n / 2 : 0;
    plan->variance = noise + reply_variance(l, switched, a, b);
    return with_a <= limit;
}

static uint64_t reply_bits(const hemi_plan *plan, const hemi_linear_layout *l) {
    const uint64_t n = plan->reply_ring != 0 ? plan->reply_ring : l->n;
    return l->out_blocks * (n * plan->reply_a_bits + (uint64_t)hemi_linear_output_positions(l, NULL) * plan->reply_b_bits);
}

static void choose_reply(hemi_plan *plan, const hemi_linear_layout *l, double noise, double limit) {
    hemi_plan switched = *plan;
    (void)choose_bits(plan, l, false, noise, limit);
    /* small layers have no keys but the public one: the ring-switching key would cost them more than it saves */
    if (l->direct || !hemi_linear_outputs_halve(l)) return;
    limit = fmin(limit, SWITCH_GROWTH / REPLY_B_GROWTH * plan->variance);
    if (choose_bits(&switched, l, true, noise, limit) && reply_bits(&switched, l) < reply_bits(plan, l)) *plan = switched;
}

hemi_status hemi_plan_make(hemi_plan *plan, const hemi_plan_input *in, hemi_error *err) {
    const hemi_linear_layout *l = in->layout;
    const double q = (double)l->params->q;
    const unsigned all = bit_length(l->params->q);
    double delta = floor(hemi_grid_floor(q / (2 * HEADROOM * in->bound)));
    if (in->delta_max != 0) delta = fmin(delta, (double)in->delta_max);
    *plan = (hemi_plan){0};
    if (!(delta >= HEMI_DELTA_MIN))
        return hemi_fail(
            err, HEMI_ERR_UNSUPPORTED,
            "results of %.1f bits leave no room for noise in set %s (%u bits): use fewer weight_bits or input_bits",
            log2(in->bound) + 1, l->params->name, all);
    plan->delta = (uint64_t)delta;
    const double full = delta * in->bound, floor2 = full * full * exp2(2 * (l->params->baby_digits ? FLOOR_PRECISE : FLOOR_LOG2));
    plan->b_bits = in->b_bits != 0 ? in->b_bits : choose_b_bits(in, floor2);
    const double noise = noise_variance(in, plan->b_bits);
    const double limit = fmax(REPLY_A_GROWTH * noise, floor2);
    choose_reply(plan, l, noise, limit);
    const double worst = plan->variance;
    plan->variance += hemi_linear_noise_variance(l, in->norm2, plan->b_bits) - noise;
    if (full + NOISE_SIGMAS * sqrt(worst) >= q / 2)
        return hemi_fail(
            err, HEMI_ERR_UNSUPPORTED,
            "the noise (2^%.1f) leaves no room beside results of %.1f bits: use fewer weight_bits or input_bits%s",
            log2(worst) / 2, log2(in->bound) + 1, in->b_bits != 0 ? ", or more b_bits" : "");
    return HEMI_OK;
}
