/* For tests of matrix products: a layer with random weights, and one encrypted call of it step by step. */
#ifndef HEMI_TESTS_PRODUCT_H
#define HEMI_TESTS_PRODUCT_H

#include "crypto.h"
#include "linear/product.h"
#include "rlwe/noise.h"
#include "secret/cipher.h"
#include "secret/ringswitch.h"

/* Predicted standard deviations within which every single output must lie: of 10^6 outputs, one is beyond in 400,000 runs.
 * (Beyond six, one is in 500.) */
#define PRODUCT_SIGMAS 7.0

typedef struct product {
    hemi_linear_layout l;
    int16_t *w;
    double *bias; /* NULL: none */
    double norm2; /* mean over the outputs of sum_j w[o][j]^2 */
    uint64_t delta;
    hemi_linear_memory memory;
    hemi_linear *linear;
    uint32_t *in_at, *out_at;
    size_t sent; /* coefficients of b in a request */
    unsigned in_bits, a_bits, b_bits;
    bool ring_switch; /* replies in the ring of half the degree */
    int32_t *x;
    uint8_t seed[HEMI_SEED_BYTES], *request, *reply_a, *reply_b;
    size_t request_bytes, a_bytes, b_bytes;
    int64_t *phase;
} product;

/* Room for everything; weights and inputs are zero until the caller fills them in. */
TEST_UNUSED static void product_open(product *p, const hemi_linear_layout *l, bool bias) {
    *p = (product){.l = *l, .in_bits = 32, .a_bits = 25, .b_bits = 21};
    p->w = hemi_alloc((size_t)l->inputs * l->outputs, sizeof *p->w);
    p->bias = bias ? hemi_alloc(l->outputs, sizeof *p->bias) : NULL;
    p->sent = hemi_linear_input_positions(l, NULL);
    p->in_at = hemi_alloc(p->sent, sizeof *p->in_at);
    p->out_at = hemi_alloc(l->outputs, sizeof *p->out_at);
    p->x = hemi_alloc(l->inputs, sizeof *p->x);
    p->request = hemi_alloc(p->sent, 8);
    p->reply_a = hemi_alloc(l->n, 8);
    p->reply_b = hemi_alloc(l->outputs, 8);
    p->phase = hemi_alloc(l->outputs, sizeof *p->phase);
    assert_true(p->w && p->in_at && p->out_at && p->x && p->request && p->reply_a && p->reply_b && p->phase);
    (void)hemi_linear_input_positions(l, p->in_at);
    hemi_linear_output_positions(l, p->out_at);
}

TEST_UNUSED static void product_close(product *p) {
    hemi_linear_free(p->linear);
    hemi_free(p->w);
    hemi_free(p->bias);
    hemi_free(p->in_at);
    hemi_free(p->out_at);
    hemi_free(p->x);
    hemi_free(p->request);
    hemi_free(p->reply_a);
    hemi_free(p->reply_b);
    hemi_free(p->phase);
}

/* Normal weights of standard deviation max/4, cut at max; biases of the size of the results, in eighths. */
TEST_UNUSED static void product_random_weights(product *p, int max, test_rng *rng) {
    const size_t count = (size_t)p->l.inputs * p->l.outputs;
    for (size_t i = 0; i < count; i++) p->w[i] = (int16_t)fmax(-max, fmin(max, rint(test_normal(rng) * max / 4)));
    for (uint32_t o = 0; p->bias && o < p->l.outputs; o++)
        p->bias[o] = rint(test_normal(rng) * 8 * max * 20 * sqrt(p->l.inputs)) / 8;
}

/* The linear map as it is now, and the largest delta for inputs up to x_max; norm2. */
TEST_UNUSED static void product_load(product *p, const hemi_context *ctx, int x_max, hemi_team *team) {
    double largest = 1, norm2 = 0;
    for (uint32_t o = 0; o < p->l.outputs; o++) {
        double sum = p->bias ? fabs(p->bias[o]) : 0;
        for (uint32_t j = 0; j < p->l.inputs; j++) {
            const double w = p->w[(size_t)o * p->l.inputs + j];
            sum += fabs(w) * x_max;
            norm2 += w * w;
        }
        largest = fmax(largest, sum);
    }
    p->norm2 = norm2 / p->l.outputs;
    const double fits = (double)ctx->q->m.p / 2 / 1.02 / largest, encrypts = (double)ctx->q->m.p / 2 / 1.02 / x_max;
    p->delta = (uint64_t)fmin(fits, encrypts);
    ASSERT_OK(hemi_linear_new(&p->linear, ctx, &p->l, p->w, p->bias, p->delta, p->memory, team, ERR));
}

TEST_UNUSED static void product_random_input(product *p, int x_max, test_rng *rng) {
    for (uint32_t j = 0; j < p->l.inputs; j++) p->x[j] = (int32_t)test_below(rng, 2 * (uint64_t)x_max + 1) - x_max;
}

TEST_UNUSED static void product_encrypt(product *p, const hemi_secret_key *sk) {
    ASSERT_OK(
        hemi_secret_encrypt(sk, p->x, p->l.inputs, p->delta, p->in_at, p->sent, p->in_bits, p->seed, p->request, ERR));
    p->request_bytes = hemi_packed_bytes(p->sent, p->in_bits);
}

/* One multiplication into buffers of the caller's. */
TEST_UNUSED static hemi_status product_multiply_into(const product *p, const hemi_evaluation_keys *keys, bool bare,
                                                     uint8_t *a, uint8_t *b, hemi_team *team) {
    const size_t in_bytes = HEMI_SEED_BYTES + hemi_packed_bytes(p->sent, p->in_bits), a_bytes = hemi_packed_bytes(p->ring_switch ? p->l.n / 2 : p->l.n, p->a_bits),
                 b_bytes = hemi_packed_bytes(p->l.outputs, p->b_bits);
    uint8_t *sent = hemi_alloc(in_bytes, 1), *got = hemi_alloc(a_bytes + b_bytes, 1);
    assert_true(sent && got);
    memcpy(sent, p->seed, HEMI_SEED_BYTES);
    memcpy(sent + HEMI_SEED_BYTES, p->request, in_bytes - HEMI_SEED_BYTES);
    const hemi_linear_input in = {sent, in_bytes, p->in_bits};
    const hemi_linear_output out = {got, a_bytes + b_bytes, p->a_bits, p->b_bits, p->ring_switch};
    const hemi_linear *map = p->linear;
    const hemi_status status = (bare ? hemi_linear_multiply_bare : hemi_linear_multiply)(&map, 1, keys, in, &out, 1, team, ERR);
    memcpy(a, got, a_bytes);
    memcpy(b, got + a_bytes, b_bytes);
    hemi_free(sent);
    hemi_free(got);
    return status;
}

TEST_UNUSED static void product_multiply(product *p, const hemi_evaluation_keys *keys, bool bare, hemi_team *team) {
    assert_status(product_multiply_into(p, keys, bare, p->reply_a, p->reply_b, team), HEMI_OK);
    p->a_bytes = hemi_packed_bytes(p->ring_switch ? p->l.n / 2 : p->l.n, p->a_bits);
    p->b_bytes = hemi_packed_bytes(p->l.outputs, p->b_bits);
}

TEST_UNUSED static void product_decrypt(product *p, const hemi_secret_key *sk) {
    ASSERT_OK((p->ring_switch ? hemi_secret_decrypt_switched : hemi_secret_decrypt)(
        sk, p->reply_a, p->a_bits, p->reply_b, p->b_bits, p->out_at, p->l.outputs, p->phase, ERR));
}

/* Output o in the clear. */
TEST_UNUSED static double product_expected(const product *p, uint32_t o) {
    int64_t sum = 0;
    for (uint32_t j = 0; j < p->l.inputs; j++) sum += (int64_t)p->w[(size_t)o * p->l.inputs + j] * p->x[j];
    return (double)sum + (p->bias ? p->bias[o] : 0);
}

/* Uniform weights of 8 bits and whole biases, so that results are whole numbers. */
TEST_UNUSED static void product_uniform_weights(product *p, test_rng *rng) {
    for (uint32_t i = 0; i < p->l.inputs * p->l.outputs; i++) p->w[i] = (int16_t)((int)test_below(rng, 255) - 127);
    for (uint32_t o = 0; p->bias && o < p->l.outputs; o++) p->bias[o] = (double)test_below(rng, 1 << 16) - (1 << 15);
}

/* Of whole numbers: every output rounds to what it must be, with room to spare. */
TEST_UNUSED static void product_check_exact(const product *p) {
    const hemi_linear_layout *l = &p->l;
    for (uint32_t o = 0; o < l->outputs; o++) {
        const double y = (double)p->phase[o] / (double)p->delta, want = product_expected(p, o);
        if (rint(y) != want || fabs(y - want) > 0.3)
            fail_msg("N = %u, %u x %u, S = %u, babies %u, K = %u: output %u is %.3f, not %.0f", l->n, l->inputs, l->outputs, l->s, l->babies,
                     l->group[0].k, o, y, want);
    }
}

/* The predicted standard deviation of a phase; without re-randomisation it is a little smaller. */
TEST_UNUSED static double product_predicted(const product *p) {
    return sqrt(hemi_linear_noise_variance(&p->l, p->norm2, p->in_bits) +
                (p->ring_switch ? hemi_noise_switched_download_variance(p->l.params, p->a_bits, p->b_bits)
                                : hemi_linear_switch_variance(&p->l, p->a_bits, p->b_bits)));
}

#endif
