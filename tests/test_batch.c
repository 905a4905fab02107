/* Batches of rows: results are those in the clear up to the predicted noise, for shapes of all kinds and under every table; what is
 * prepared depends on what it must and on nothing else; the second components are fresh; pads are used once. */
#include "crypto.h"
#include "product.h"

#include "linear/batch.h"
#include "rlwe/noise.h"
#include "secret/batch.h"

static const uint8_t server_secret[HEMI_SEED_BYTES] = "a secret of the server's";
static const char context[] = "module 1, key 1";

static party client; /* set L2048 */
static hemi_evaluation_keys *keys;

static int open_client(void **state) {
    (void)state;
    party_open(&client, hemi_params_by_name("L2048"), test_table());
    keys = test_keys(client.sk, NULL, 0);
    return 0;
}

static int close_client(void **state) {
    (void)state;
    hemi_evaluation_keys_free(keys);
    party_close(&client);
    return 0;
}

/* A layer, and one batch of it from end to end. */
typedef struct batch {
    uint32_t inputs, outputs, rows;
    unsigned in_bits, a_bits, b_bits;
    int16_t *w;
    double *bias, norm2;
    uint64_t delta;
    hemi_batch *matrix;
    hemi_batch_state *state;
    uint8_t seed[HEMI_SEED_BYTES], *request, *reply_a, *reply_b;
    size_t in_bytes, out_bytes, a_bytes; /* of a row, of a row, of all */
    int32_t *x;                          /* rows x inputs */
    uint64_t *pads, *masks, *scratch;
    int64_t *phase;
} batch;

static void *zeros(size_t count, size_t size) {
    void *p = hemi_alloc(count, size);
    assert_non_null(p);
    return p;
}

static void batch_open(batch *b, uint32_t inputs, uint32_t outputs, uint32_t rows, int largest, bool bias,
                       test_rng *rng) {
    const size_t n = client.ctx->n, side = inputs > outputs ? inputs : outputs;
    *b = (batch){.inputs = inputs, .outputs = outputs, .rows = rows, .in_bits = 32, .a_bits = 25, .b_bits = 21};
    b->w = zeros((size_t)inputs * outputs, sizeof *b->w);
    for (size_t i = 0; i < (size_t)inputs * outputs; i++) {
        b->w[i] = (int16_t)fmax(-largest, fmin(largest, rint(test_normal(rng) * largest / 4)));
        b->norm2 += (double)b->w[i] * b->w[i] / outputs;
    }
    b->w[0] = (int16_t)-largest;
    b->bias = bias ? zeros(outputs, sizeof *b->bias) : NULL;
    for (uint32_t o = 0; bias && o < outputs; o++) b->bias[o] = rint(test_normal(rng) * 800 * largest) / 8;
    b->delta = (uint64_t)((double)TEST_Q / 2.1 / (127.0 * largest * inputs + (bias ? 800.0 * largest : 0)));
    b->request = zeros(rows, 8 * (size_t)inputs);
    b->reply_b = zeros(rows, 8 * (size_t)outputs);
    b->reply_a = zeros(outputs, 8 * n);
    b->x = zeros((size_t)rows * inputs, sizeof *b->x);
    for (size_t i = 0; i < (size_t)rows * inputs; i++) b->x[i] = (int32_t)test_below(rng, 255) - 127;
    b->pads = zeros((size_t)rows * inputs, sizeof *b->pads);
    b->masks = zeros((size_t)rows * outputs, sizeof *b->masks);
    b->scratch = zeros(side, sizeof *b->scratch);
    b->phase = zeros(outputs, sizeof *b->phase);
    hemi_seed_fresh(b->seed);
    ASSERT_OK(hemi_batch_new(&b->matrix, client.ctx, inputs, outputs, b->w, b->bias, b->delta, ERR));
}

static void batch_close(batch *b) {
    hemi_batch_free(b->matrix);
    hemi_batch_state_free(b->state);
    void *const all[] = {b->w, b->bias, b->request, b->reply_a, b->reply_b,
                         b->x, b->pads, b->masks,   b->scratch, b->phase};
    for (size_t i = 0; i < TEST_COUNT(all); i++) hemi_free(all[i]);
}

static void batch_encrypt(batch *b) {
    b->in_bytes = hemi_packed_bytes(b->inputs, b->in_bits);
    ASSERT_OK(hemi_secret_batch_pads(b->pads, client.sk, b->seed, b->inputs, b->rows, ERR));
    for (size_t r = 0; r < b->rows; r++)
        hemi_secret_batch_encrypt(b->request + r * b->in_bytes, b->pads + r * b->inputs, b->x + r * b->inputs,
                                  b->inputs, b->delta, b->in_bits, client.ctx, b->scratch);
}

static void batch_prepare(batch *b, hemi_team *team) {
    b->a_bytes = b->outputs * hemi_packed_bytes(client.ctx->n, b->a_bits);
    hemi_batch_state_free(b->state);
    ASSERT_OK(hemi_batch_prepare(&b->state, b->reply_a, b->a_bits, b->matrix, keys, b->seed, server_secret, context,
                                 sizeof context, b->rows, team, ERR));
    assert_int_equal(hemi_batch_state_rows(b->state), b->rows);
    assert_true(hemi_batch_state_bytes(b->state) == hemi_batch_state_bytes_for(b->outputs, b->rows));
    assert_in_range(hemi_batch_state_bytes(b->state), 4 * (size_t)b->rows * b->outputs,
                    4 * (size_t)b->rows * b->outputs + 100);
}

/* All rows, `at_once` a call. */
static void batch_rows(batch *b, uint32_t at_once, hemi_team *team) {
    b->out_bytes = hemi_packed_bytes(b->outputs, b->b_bits);
    for (uint32_t r = 0; r < b->rows; r += at_once)
        ASSERT_OK(hemi_batch_rows(b->matrix, b->state, r, b->rows - r < at_once ? b->rows - r : at_once,
                                  b->request + r * b->in_bytes, b->in_bits, b->reply_b + r * b->out_bytes, b->b_bits,
                                  team, ERR));
}

/* Adds all errors, in units of the predicted standard deviation, to m. */
static void batch_decrypt(batch *b, double variance, moments *m) {
    ASSERT_OK(hemi_secret_batch_masks(b->masks, client.sk, b->reply_a, b->a_bits, b->outputs, b->rows, ERR));
    for (size_t r = 0; r < b->rows; r++) {
        hemi_secret_batch_decrypt(b->phase, b->reply_b + r * b->out_bytes, b->b_bits, b->masks + r * b->outputs,
                                  b->outputs, client.ctx, b->scratch);
        for (size_t o = 0; o < b->outputs; o++) {
            int64_t sum = 0;
            for (size_t j = 0; j < b->inputs; j++) sum += (int64_t)b->w[o * b->inputs + j] * b->x[r * b->inputs + j];
            const double expected = ((double)sum + (b->bias ? b->bias[o] : 0)) * (double)b->delta;
            moments_add(m, ((double)b->phase[o] - expected) / sqrt(variance));
        }
    }
}

static double batch_variance(const batch *b) {
    return hemi_batch_noise_variance(client.ctx->params, b->norm2, b->in_bits) +
           hemi_noise_download_variance(client.ctx->params, b->a_bits, b->b_bits);
}

static void results_are_those_in_the_clear(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_team *team = hemi_team_new(3);
    static const struct {
        uint32_t inputs, outputs, rows, at_once;
        int largest;
        bool bias;
    } shape[] = {{1, 1, 1, 1, 127, false},      {3, 2, 5, 2, 127, true},        {10, 10, 2048, 2048, 127, true},
                 {65, 49, 64, 64, 127, true},   {97, 131, 200, 150, 127, true}, {130, 5, 33, 12, 2047, true},
                 {5, 130, 77, 11, 2047, false}, {64, 96, 70, 65, 32767, true},  {200, 33, 13, 13, 127, false}};
    for (size_t i = 0; i < TEST_COUNT(shape); i++) {
        batch b;
        moments m = {0};
        batch_open(&b, shape[i].inputs, shape[i].outputs, shape[i].rows, shape[i].largest, shape[i].bias, &rng);
        assert_true(hemi_batch_bytes(b.matrix) <=
                    b.outputs * (((size_t)b.inputs + 63) / 64 * 64 * (shape[i].largest > 127 ? 2 : 1) + 8));
        batch_encrypt(&b);
        batch_prepare(&b, i % 2 ? team : NULL);
        batch_rows(&b, shape[i].at_once, i % 2 ? NULL : team);
        batch_decrypt(&b, batch_variance(&b), &m);
        printf("  %u x %u, %u rows, weights up to %d: largest error %.2f predicted standard deviations, 2^%.1f of the "
               "range\n",
               b.inputs, b.outputs, b.rows, shape[i].largest, m.largest,
               log2(m.largest * sqrt(batch_variance(&b)) / (double)TEST_Q));
        if (m.largest > PRODUCT_SIGMAS)
            fail_msg("%u x %u: an error of %g standard deviations", b.inputs, b.outputs, m.largest);
        batch_close(&b);
    }
    hemi_team_free(team);
}

/* However the rows are cut into calls and whoever computes: the same bytes. */
static void calls_and_teams_give_the_same(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_team *team = hemi_team_new(3);
    static const uint32_t cuts[] = {1, 2, 11, 12, 63, 64, 65, 90};
    for (int width = 0; width < 2; width++) {
        batch b;
        batch_open(&b, 70, 150, 90, width ? 2047 : 127, true, &rng);
        batch_encrypt(&b);
        batch_prepare(&b, NULL);
        batch_rows(&b, b.rows, NULL);
        const size_t bytes = b.rows * b.out_bytes;
        uint8_t *first_a = zeros(b.a_bytes, 1), *first_b = zeros(bytes, 1);
        memcpy(first_a, b.reply_a, b.a_bytes);
        memcpy(first_b, b.reply_b, bytes);
        batch_prepare(&b, team);
        assert_memory_equal(b.reply_a, first_a, b.a_bytes);
        for (size_t i = 0; i < 2 * TEST_COUNT(cuts); i++) {
            memset(b.reply_b, 0, bytes);
            batch_rows(&b, cuts[i / 2], i % 2 ? team : NULL);
            assert_memory_equal(b.reply_b, first_b, bytes);
        }
        hemi_free(first_a);
        hemi_free(first_b);
        batch_close(&b);
    }
    hemi_team_free(team);
}

/* The same keys, seed and request: what this table computes is what the portable one does. */
static void tables_give_the_same(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_context *portable;
    ASSERT_OK(hemi_context_new(&portable, client.ctx->params, &hemi_kernels_portable, ERR));
    uint8_t *bytes = test_key_bytes(client.sk, NULL, 0);
    hemi_evaluation_keys *here = test_keys_from(client.ctx, bytes, NULL, 0),
                         *there = test_keys_from(portable, bytes, NULL, 0);
    for (int width = 0; width < 2; width++) {
        batch b;
        batch_open(&b, 37, 53, 70, width ? 32767 : 128, true, &rng);
        batch_encrypt(&b);
        hemi_batch *other;
        hemi_batch_state *mine, *theirs;
        ASSERT_OK(hemi_batch_new(&other, portable, b.inputs, b.outputs, b.w, b.bias, b.delta, ERR));
        const size_t a_bytes = b.outputs * hemi_packed_bytes(client.ctx->n, b.a_bits);
        const size_t out_bytes = b.rows * hemi_packed_bytes(b.outputs, b.b_bits);
        uint8_t *a = zeros(a_bytes, 1), *out = zeros(out_bytes, 1);
        ASSERT_OK(hemi_batch_prepare(&mine, b.reply_a, b.a_bits, b.matrix, here, b.seed, server_secret, context,
                                     sizeof context, b.rows, NULL, ERR));
        ASSERT_OK(hemi_batch_prepare(&theirs, a, b.a_bits, other, there, b.seed, server_secret, context, sizeof context,
                                     b.rows, NULL, ERR));
        assert_memory_equal(a, b.reply_a, a_bytes);
        for (uint32_t count = 1; count <= b.rows; count += b.rows - 1) {
            ASSERT_OK(hemi_batch_rows(b.matrix, mine, 0, count, b.request, b.in_bits, b.reply_b, b.b_bits, NULL, ERR));
            ASSERT_OK(hemi_batch_rows(other, theirs, 0, count, b.request, b.in_bits, out, b.b_bits, NULL, ERR));
            assert_memory_equal(out, b.reply_b, count * hemi_packed_bytes(b.outputs, b.b_bits));
        }
        hemi_batch_state_free(mine);
        hemi_batch_state_free(theirs);
        hemi_batch_free(other);
        hemi_free(a);
        hemi_free(out);
        batch_close(&b);
    }
    hemi_free(bytes);
    hemi_evaluation_keys_free(here);
    hemi_evaluation_keys_free(there);
    hemi_context_free(portable);
}

/* ---- what a state depends on */

/* Corrections as the server would send them: the replies to rows of zeros, all 48 bits. */
static void corrections(const batch *b, const hemi_batch_state *state, uint64_t *out) {
    const size_t in_bytes = hemi_packed_bytes(b->inputs, 32), out_bytes = hemi_packed_bytes(b->outputs, 48);
    const uint32_t rows = hemi_batch_state_rows(state);
    uint8_t *in = zeros(rows, in_bytes), *packed = zeros(rows, out_bytes);
    ASSERT_OK(hemi_batch_rows(b->matrix, state, 0, rows, in, 32, packed, 48, NULL, ERR));
    for (size_t r = 0; r < rows; r++) hemi_unpack(out + r * b->outputs, packed + r * out_bytes, b->outputs, 48);
    hemi_free(in);
    hemi_free(packed);
}

static size_t equal_words(const uint64_t *a, const uint64_t *b, size_t count) {
    size_t equal = 0;
    for (size_t i = 0; i < count; i++) equal += a[i] == b[i];
    return equal;
}

static void states_follow_from_secret_seed_and_context(void **state) {
    (void)state;
    enum { INPUTS = 20, OUTPUTS = 50, ROWS = 40 };
    test_rng rng = test_rng_new();
    batch b;
    batch_open(&b, INPUTS, OUTPUTS, ROWS, 127, true, &rng);
    const size_t a_bytes = OUTPUTS * hemi_packed_bytes(client.ctx->n, 25);
    uint8_t *first_a = zeros(a_bytes, 1), *a = zeros(a_bytes, 1), other[HEMI_SEED_BYTES], seed[HEMI_SEED_BYTES];
    uint64_t first_c[ROWS * OUTPUTS], c[ROWS * OUTPUTS];
    memcpy(other, server_secret, sizeof other);
    other[31] ^= 1;
    memcpy(seed, b.seed, sizeof seed);
    seed[0] ^= 1;
    const struct {
        const uint8_t *seed, *secret;
        const char *context;
        uint32_t rows;
        bool ask, same;
    } cases[] = {{b.seed, server_secret, context, ROWS, true, true},
                 {b.seed, server_secret, context, ROWS, false, true},
                 {b.seed, server_secret, context, 7, true, true},
                 {b.seed, server_secret, context, ROWS - 1, false, true},
                 {b.seed, server_secret, "module 1, key 2", ROWS, true, false},
                 {b.seed, other, context, ROWS, true, false},
                 {seed, server_secret, context, ROWS, true, false}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        hemi_batch_state *s;
        memset(a, 0, a_bytes);
        ASSERT_OK(hemi_batch_prepare(&s, cases[i].ask ? a : NULL, 25, b.matrix, keys, cases[i].seed, cases[i].secret,
                                     cases[i].context, sizeof context, cases[i].rows, NULL, ERR));
        corrections(&b, s, c);
        if (i == 0) {
            memcpy(first_a, a, a_bytes);
            memcpy(first_c, c, sizeof c);
        }
        const size_t words = (size_t)cases[i].rows * OUTPUTS, equal = equal_words(c, first_c, words);
        assert_true(cases[i].same ? equal == words : equal < 3);
        for (size_t o = 0; cases[i].ask && o < OUTPUTS; o++) {
            const size_t each = a_bytes / OUTPUTS;
            assert_true((memcmp(a + o * each, first_a + o * each, each) == 0) == cases[i].same);
        }
        hemi_batch_state_free(s);
    }
    hemi_free(a);
    hemi_free(first_a);
    batch_close(&b);
}

/* a' - W a, which a client can compute from a guess of W, is uniform: its coefficients fill eight bins evenly. Corrections too: they hide the
 * noise of W b. */
static void second_components_are_fresh(void **state) {
    (void)state;
    enum { INPUTS = 12, OUTPUTS = 10, BINS = 8 };
    test_rng rng = test_rng_new();
    const hemi_context *ctx = client.ctx;
    const size_t n = ctx->n, each = hemi_packed_bytes(n, 48);
    batch b;
    batch_open(&b, INPUTS, OUTPUTS, 2048, 127, false, &rng);
    b.a_bits = 48;
    batch_prepare(&b, NULL);
    uint64_t *a = zeros(n, sizeof *a), *sum = zeros(n, sizeof *sum), *c = zeros(n * OUTPUTS, sizeof *c);
    size_t count[2][BINS] = {{0}};
    corrections(&b, b.state, c);
    for (uint32_t o = 0; o < OUTPUTS; o++) {
        memset(sum, 0, n * sizeof *sum);
        for (uint32_t j = 0; j < INPUTS; j++) {
            hemi_sample_uniform_vartime(a, n, TEST_Q, b.seed, HEMI_DOMAIN_BATCH, j);
            ctx->k->mul_scalar(a, a, hemi_mod_from_signed(b.w[o * INPUTS + j], &ctx->q->m), n, &ctx->q->m);
            ctx->k->add(sum, sum, a, n, &ctx->q->m);
        }
        ctx->k->intt(sum, sum, ctx->q);
        hemi_unpack(a, b.reply_a + o * each, n, 48);
        ctx->k->switch_up(a, a, n, 48, &ctx->q->m);
        ctx->k->sub(a, a, sum, n, &ctx->q->m);
        for (size_t i = 0; i < n; i++) {
            count[0][a[i] * BINS / TEST_Q]++;
            count[1][c[i * OUTPUTS + o] * BINS >> 48]++;
        }
    }
    for (int what = 0; what < 2; what++) {
        double expected[BINS];
        for (size_t i = 0; i < BINS; i++) expected[i] = (double)(n * OUTPUTS) / BINS;
        const double chi = test_chi_square(count[what], expected, BINS);
        if (chi > test_chi_square_limit(BINS - 1))
            fail_msg("%s: chi-square %g", what ? "corrections" : "a' - W a", chi);
    }
    hemi_free(a);
    hemi_free(sum);
    hemi_free(c);
    batch_close(&b);
}

/* Were a' - W a a multiple of the public key's a, dividing by it would give u, which is small. The error e1 prevents that. */
static void second_components_hold_an_error(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const hemi_context *ctx = client.ctx;
    const hemi_modulus *m = &ctx->q->m;
    const size_t n = ctx->n;
    uint8_t *bytes = test_key_bytes(client.sk, NULL, 0);
    hemi_evaluation_keys *own = test_keys_from(ctx, bytes, NULL, 0);
    uint64_t *a = zeros(n, sizeof *a), *public_a = zeros(n, sizeof *public_a);
    batch b;
    batch_open(&b, 1, 1, 1, 127, false, &rng);
    ASSERT_OK(
        hemi_batch_prepare(&b.state, b.reply_a, 48, b.matrix, own, b.seed, server_secret, context, 1, 1, NULL, ERR));
    hemi_unpack(a, b.reply_a, n, 48);
    ctx->k->switch_up(a, a, n, 48, m); /* exact: 2^48 > q */
    ctx->k->ntt(a, ctx->q);
    hemi_sample_uniform_vartime(public_a, n, m->p, b.seed, HEMI_DOMAIN_BATCH, 0);
    ctx->k->mul_scalar(public_a, public_a, hemi_mod_from_signed(b.w[0], m), n, m);
    ctx->k->sub(a, a, public_a, n, m);
    hemi_key_expand_a(public_a, ctx, 0, 0, bytes + 8);
    for (size_t i = 0; i < n; i++) a[i] = hemi_mod_mul(a[i], hemi_mod_inverse(public_a[i], m), m);
    ctx->k->intt(a, a, ctx->q);
    size_t large = 0;
    for (size_t i = 0; i < n; i++) large += llabs(hemi_mod_centre(a[i], m)) > (int64_t)(m->p / 4);
    assert_in_range(large, n / 3, 2 * n / 3);
    hemi_free(a);
    hemi_free(public_a);
    hemi_free(bytes);
    hemi_evaluation_keys_free(own);
    batch_close(&b);
}

/* ---- noise */

static void noise_is_the_predicted_one(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static const struct {
        uint32_t inputs, outputs;
        int largest;
        unsigned in_bits, a_bits, b_bits;
    } cases[] = {
        {96, 60, 127, 48, 48, 48}, {96, 60, 2047, 48, 48, 48}, {96, 60, 127, 32, 48, 48}, {96, 60, 127, 32, 25, 21}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        batch b;
        moments m = {0};
        char what[64];
        batch_open(&b, cases[i].inputs, cases[i].outputs, test_quick() ? 40 : 400, cases[i].largest, false, &rng);
        b.in_bits = cases[i].in_bits;
        b.a_bits = cases[i].a_bits;
        b.b_bits = cases[i].b_bits;
        batch_encrypt(&b);
        batch_prepare(&b, NULL);
        batch_rows(&b, b.rows, NULL);
        batch_decrypt(&b, batch_variance(&b), &m);
        snprintf(what, sizeof what, "weights %d, bits %u, %u, %u", cases[i].largest, b.in_bits, b.a_bits, b.b_bits);
        (void)moments_check(&m, 1, 0.04, what);
        batch_close(&b);
    }
}

/* The encryption of zero and the rounding of corrections by themselves: weights of zero. The rounding hides the encryption's errors, so
 * only that they are not larger is seen here; test_linear measures them. */
static void noise_of_the_corrections(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    batch b;
    moments m = {0};
    batch_open(&b, 4, 30, 400, 1, false, &rng);
    hemi_batch_free(b.matrix);
    memset(b.w, 0, (size_t)b.inputs * b.outputs * sizeof *b.w);
    b.norm2 = 0;
    ASSERT_OK(hemi_batch_new(&b.matrix, client.ctx, b.inputs, b.outputs, b.w, NULL, 1, ERR));
    b.in_bits = b.a_bits = b.b_bits = 48;
    batch_encrypt(&b);
    batch_prepare(&b, NULL);
    batch_rows(&b, b.rows, NULL);
    batch_decrypt(&b, batch_variance(&b), &m);
    (void)moments_check(&m, 1, 0.02, "corrections alone");
    batch_close(&b);
}

/* ---- the client's side */

static void pads_hold_small_fresh_errors(void **state) {
    (void)state;
    enum { INPUTS = 19, ROWS = 300 };
    const hemi_context *ctx = client.ctx;
    const hemi_modulus *m = &ctx->q->m;
    uint8_t seed[HEMI_SEED_BYTES];
    uint64_t *pads = zeros(INPUTS * ROWS, sizeof *pads), *again = zeros(INPUTS * ROWS, sizeof *again),
             *a = zeros(ctx->n, 8);
    moments errors = {0};
    size_t equal = 0;
    hemi_seed_fresh(seed);
    ASSERT_OK(hemi_secret_batch_pads(pads, client.sk, seed, INPUTS, ROWS, ERR));
    ASSERT_OK(hemi_secret_batch_pads(again, client.sk, seed, INPUTS, ROWS, ERR));
    for (uint32_t j = 0; j < INPUTS; j++) {
        hemi_sample_uniform_vartime(a, ctx->n, m->p, seed, HEMI_DOMAIN_BATCH, j);
        ctx->k->mul_fixed(a, a, client.sk->s_q, ctx->n, m);
        ctx->k->intt(a, a, ctx->q);
        for (size_t r = 0; r < ROWS; r++) {
            const int64_t e = hemi_mod_centre(hemi_mod_add(pads[r * INPUTS + j], a[r], m), m);
            const int64_t f = hemi_mod_centre(hemi_mod_add(again[r * INPUTS + j], a[r], m), m);
            assert_in_range(e + HEMI_ERROR_ETA, 0, 2 * HEMI_ERROR_ETA);
            moments_add(&errors, (double)e);
            equal += e == f;
        }
    }
    (void)moments_check(&errors, HEMI_ERROR_VARIANCE, 0, "errors of pads");
    assert_true(equal < INPUTS * ROWS / 4); /* one in eleven */
    assert_status(hemi_secret_batch_pads(pads, client.sk, seed, INPUTS, 0, ERR), HEMI_ERR_ARGUMENT);
    assert_status(hemi_secret_batch_pads(pads, client.sk, seed, INPUTS, 2049, ERR), HEMI_ERR_ARGUMENT);
    assert_status(hemi_secret_batch_masks(pads, client.sk, NULL, 25, 1, 2049, ERR), HEMI_ERR_ARGUMENT);
    hemi_free(pads);
    hemi_free(again);
    hemi_free(a);
}

static void pads_are_wiped(void **state) {
    (void)state;
    enum { INPUTS = 33, ROWS = 3 };
    test_rng rng = test_rng_new();
    batch b;
    batch_open(&b, INPUTS, 4, ROWS, 127, false, &rng);
    ASSERT_OK(hemi_secret_batch_pads(b.pads, client.sk, b.seed, INPUTS, ROWS, ERR));
    uint64_t kept[INPUTS * ROWS];
    static const uint64_t nothing[INPUTS];
    memcpy(kept, b.pads, sizeof kept);
    hemi_secret_batch_encrypt(b.request, b.pads + INPUTS, b.x, INPUTS, b.delta, 32, client.ctx, b.scratch);
    assert_memory_equal(b.pads, kept, INPUTS * sizeof *kept);
    assert_memory_equal(b.pads + INPUTS, nothing, sizeof nothing);
    assert_memory_equal(b.pads + 2 * INPUTS, kept + 2 * INPUTS, INPUTS * sizeof *kept);
    assert_memory_equal(b.scratch, nothing, sizeof nothing);
    hemi_secret_batch_decrypt(b.phase, b.request, 32, kept, 4, client.ctx, b.scratch);
    assert_memory_equal(b.scratch, nothing, 4 * sizeof *nothing);
    batch_close(&b);
}

/* ---- what is refused */

static void arguments_are_checked(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    batch b;
    hemi_batch_state *s;
    hemi_batch *other;
    batch_open(&b, 8, 6, 10, 127, false, &rng);
    batch_encrypt(&b);
    batch_prepare(&b, NULL);
    static const uint32_t no_rows[][2] = {{0, 0}, {0, 11}, {10, 1}, {11, 1}, {9, 2}, {1, UINT32_MAX}, {UINT32_MAX, 1}};
    for (size_t i = 0; i < TEST_COUNT(no_rows); i++)
        assert_status(
            hemi_batch_rows(b.matrix, b.state, no_rows[i][0], no_rows[i][1], b.request, 32, b.reply_b, 21, NULL, ERR),
            HEMI_ERR_ARGUMENT);
    ASSERT_OK(hemi_batch_new(&other, client.ctx, 8, 5, b.w, NULL, 1, ERR));
    assert_status(hemi_batch_rows(other, b.state, 0, 1, b.request, 32, b.reply_b, 21, NULL, ERR), HEMI_ERR_ARGUMENT);
    hemi_batch_free(other);
    for (uint32_t rows = 0; rows <= 2049; rows += 2049) {
        assert_status(
            hemi_batch_prepare(&s, NULL, 25, b.matrix, keys, b.seed, server_secret, context, 1, rows, NULL, ERR),
            HEMI_ERR_ARGUMENT);
        assert_null(s);
    }
    assert_status(hemi_batch_new(&other, client.ctx, 0, 1, b.w, NULL, 1, ERR), HEMI_ERR_ARGUMENT);
    assert_null(other);
    party wide = {.own = test_params(8, TEST_P, 0)}; /* 50 bits */
    party_open(&wide, NULL, test_table());
    assert_status(hemi_batch_new(&other, wide.ctx, 8, 6, b.w, NULL, 1, ERR), HEMI_ERR_PARAMS);
    hemi_evaluation_keys *wide_keys = test_keys(wide.sk, NULL, 0);
    assert_status(
        hemi_batch_prepare(&s, NULL, 25, b.matrix, wide_keys, b.seed, server_secret, context, 1, 1, NULL, ERR),
        HEMI_ERR_KEY);
    hemi_evaluation_keys_free(wide_keys);
    party_close(&wide);
    batch_close(&b);
    hemi_batch_free(NULL);
    hemi_batch_state_free(NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_client, close_client)
static const struct CMUnitTest tests[] = {
    TEST(results_are_those_in_the_clear), TEST(calls_and_teams_give_the_same),
    TEST(tables_give_the_same),           TEST(states_follow_from_secret_seed_and_context),
    TEST(second_components_are_fresh),    TEST(second_components_hold_an_error),
    TEST(noise_is_the_predicted_one),     TEST(noise_of_the_corrections),
    TEST(pads_hold_small_fresh_errors),   TEST(pads_are_wiped),
    TEST(arguments_are_checked),
};

int main(void) { return TEST_RUN_PER_TABLE("batch", tests); }
