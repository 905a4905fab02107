/* Encrypted matrix products against integer arithmetic: every shape of tiny rings, many shapes of the default set with their noise,
 * threads, missing keys, and agreement of the tables of kernels. */
#include <pthread.h>

#include "product.h"
#include "rlwe/noise.h"

#define KEYS 3 /* secret keys of the shapes at N = 4096 */


/* ---- tiny rings: every result exact after rounding */

static void check_exact(ring_keys *r, const hemi_linear_layout *l, test_rng *rng) {
    product p;
    const bool bias = test_below(rng, 2), bare = test_below(rng, 4) == 0;
    product_open(&p, l, bias);
    p.in_bits = p.a_bits = p.b_bits = 44;
    product_uniform_weights(&p, rng);
    product_load(&p, r->p.ctx, 127, NULL);
    for (int i = 0; i < 2; i++) {
        product_random_input(&p, i == 0 ? 127 : 1, rng);
        product_encrypt(&p, r->p.sk);
        product_multiply(&p, r->keys, bare, NULL);
        product_decrypt(&p, r->p.sk);
        product_check_exact(&p);
    }
    product_close(&p);
}

static void every_shape_and_layout_of_tiny_rings(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    size_t layouts = 0, two_groups = 0;
    for (uint32_t log2_n = 3; log2_n <= 4; log2_n++) {
        ring_keys r;
        ring_open(&r, log2_n, false);
        const uint32_t n = 1u << log2_n;
        for (uint32_t d = 1; d <= n; d++)
            for (uint32_t m = 1; m <= n; m += test_quick() && n == 16 ? 3 : 1)
                for (uint32_t s = 0; s <= n; s = s == 0 ? 1 : 2 * s) {
                    hemi_linear_layout l;
                    if (s != 0 && s < d) continue;
                    ASSERT_OK(test_layout(&l, &r.p.own, d, m, s, ERR));
                    check_exact(&r, &l, &rng);
                    layouts++;
                    two_groups += l.groups == 2;
                }
        ring_close(&r);
    }
    printf("  %zu layouts, %zu in two groups\n", layouts, two_groups);
    assert_true(two_groups > 0);
}

/* Every choice of babies and groups that a file may state. */
static void every_stated_layout_of_a_tiny_ring(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    size_t layouts = 0, two_groups = 0;
    ring_open(&r, 4, false);
    const uint32_t n = 16;
    for (uint32_t m = 1; m <= n; m += test_quick() ? 5 : 1)
        for (uint32_t s = 1; s <= n; s *= 2)
            for (unsigned choice = 0; choice < 5 * 5 * 6; choice++) {
                const uint32_t babies = 1u << choice % 5, d = 1 + (uint32_t)test_below(&rng, s);
                const uint32_t k[2] = {1u << choice / 5 % 5, 1u << choice / 25};
                const size_t groups = k[1] < 32 ? 2 : 1;
                hemi_linear_layout l;
                if (test_layout_restore(&l, &r.p.own, d, m, s, babies, k, groups, ERR) != HEMI_OK) continue;
                check_exact(&r, &l, &rng);
                layouts++;
                two_groups += groups == 2;
            }
    printf("  %zu layouts, %zu in two groups\n", layouts, two_groups);
    assert_true(test_quick() || (layouts > 300 && two_groups > 50));
    ring_close(&r);
}

/* ---- the default set: noise */

typedef struct client {
    hemi_context *ctx;
    hemi_secret_key *sk[KEYS];
    hemi_evaluation_keys *keys[KEYS];
} client;

static void client_open(client *c) {
    uint32_t t[HEMI_FAMILY_MAX];
    ASSERT_OK(hemi_context_new(&c->ctx, hemi_params_by_name("L4096"), test_table(), ERR));
    const size_t count = test_family(c->ctx, t);
    for (size_t i = 0; i < KEYS; i++) {
        ASSERT_OK(hemi_secret_key_new(&c->sk[i], c->ctx, ERR));
        c->keys[i] = test_keys(c->sk[i], t, count);
    }
}

static void client_close(client *c) {
    for (size_t i = 0; i < KEYS; i++) {
        hemi_secret_key_free(c->sk[i]);
        hemi_evaluation_keys_free(c->keys[i]);
    }
    hemi_context_free(c->ctx);
}

/* Calls under every key; each error within seven predicted standard deviations; errors over the predicted one go to `all`. */
static void measure_shape(const client *c, const hemi_linear_layout *l, unsigned in_bits, test_rng *rng,
                          hemi_team *team, moments *all) {
    product p;
    moments m = {0};
    product_open(&p, l, test_below(rng, 2));
    p.in_bits = in_bits;
    product_random_weights(&p, 127, rng);
    product_load(&p, c->ctx, 127, team);
    const double predicted = product_predicted(&p);
    const size_t rounds = (test_quick() ? 20 : 150) / l->outputs + 1;
    for (size_t i = 0; i < KEYS * rounds; i++) {
        product_random_input(&p, 127, rng);
        product_encrypt(&p, c->sk[i % KEYS]);
        product_multiply(&p, c->keys[i % KEYS], false, i % 2 ? team : NULL);
        product_decrypt(&p, c->sk[i % KEYS]);
        for (uint32_t o = 0; o < l->outputs; o++) {
            const double e = ((double)p.phase[o] - (double)p.delta * product_expected(&p, o)) / predicted;
            moments_add(&m, e);
            moments_add(all, e);
        }
    }
    const double ratio = sqrt(moments_variance(&m));
    printf("  %4u x %4u  S %4u  K %4u%c B %2u  %6zu samples: std %.4f of predicted, largest %.2f\n", l->inputs,
           l->outputs, l->s, hemi_linear_polynomials(l), l->groups > 1 ? '*' : ' ', l->babies, m.count, ratio, m.largest);
    if (m.largest > PRODUCT_SIGMAS) fail_msg("an error of %.2f predicted standard deviations", m.largest);
    if (m.count >= 400 && (ratio > 1.25 || ratio < 1 / 1.25)) /* six standard deviations of the estimate */
        fail_msg("standard deviation %.3f of the predicted one", ratio);
    product_close(&p);
}

typedef struct shape {
    uint32_t inputs, outputs, s;
} shape;

/* s = 0: the default layout. */
static const shape shapes[] = {
    {1, 1, 0},          {1, 2, 0},        {2, 1, 0},        {2, 2, 0},        {3, 5, 0},        {7, 11, 0},
    {10, 10, 0},        {13, 97, 0},      {31, 33, 0},      {64, 64, 0},      {64, 128, 0},     {128, 10, 0},
    {101, 103, 0},      {127, 129, 0},    {128, 128, 0},    {255, 255, 0},    {256, 256, 0},    {257, 257, 0},
    {255, 257, 0},      {257, 255, 0},    {384, 384, 0},    {509, 521, 0},    {511, 513, 0},    {512, 512, 0},
    {768, 768, 0},      {768, 3072, 0},   {3072, 768, 0},   {1000, 10, 0},    {1023, 1023, 0},  {1024, 1024, 0},
    {1025, 1025, 0},    {1021, 1031, 0},  {1024, 5, 0},     {1024, 4096, 0},  {2047, 2049, 0},  {2048, 2048, 0},
    {2049, 100, 0},     {4095, 3, 0},     {4096, 2, 0},     {4096, 1, 0},     {1, 4096, 0},     {2, 4096, 0},
    {4093, 1, 0},       {1, 4093, 0},     {4096, 10, 0},    {10, 4096, 0},    {3, 4095, 0},     {97, 4093, 0},
    {768, 2304, 0},     {50, 1000, 0},    {1, 1, 1},        {3, 3, 4},        {10, 10, 16},     {10, 10, 4096},
    {64, 128, 1024},    {128, 128, 4096}, {257, 100, 1024}, {384, 384, 4096}, {768, 768, 2048}, {768, 768, 4096},
    {1000, 1000, 2048},
};

static bool fastest_table(void) {
    size_t i = 0;
    while (hemi_kernels_at(i + 1)) i++;
    return test_table() == hemi_kernels_at(i);
}

static void shapes_of_the_default_set(void **state) {
    (void)state;
    client c;
    test_rng rng = test_rng_new();
    moments all = {0};
    hemi_team *team = hemi_team_new(0);
    client_open(&c);
    for (size_t i = 0; i < TEST_COUNT(shapes); i++) {
        hemi_linear_layout l;
        if (test_quick() && (size_t)shapes[i].inputs * shapes[i].outputs > 100000 && i % 4) continue;
        ASSERT_OK(test_layout(&l, c.ctx->params, shapes[i].inputs, shapes[i].outputs, shapes[i].s, ERR));
        measure_shape(&c, &l, i % 5 == 4 ? 28 : i % 5 == 3 ? 40 : 32, &rng, team, &all);
    }
    if (fastest_table() && !test_quick()) {
        hemi_linear_layout l;
        ASSERT_OK(test_layout(&l, c.ctx->params, 4096, 4096, 0, ERR));
        measure_shape(&c, &l, 32, &rng, team, &all);
        ASSERT_OK(test_layout(&l, c.ctx->params, 4095, 4095, 0, ERR));
        measure_shape(&c, &l, 32, &rng, team, &all);
    }
    const double ratio = sqrt(moments_variance(&all));
    printf("  %zu shapes, %zu samples: standard deviation %.4f of the predicted one\n", TEST_COUNT(shapes), all.count,
           ratio);
    assert_true(test_quick() || all.count >= 100000);
    assert_true(ratio > 0.95 && ratio < 1.05);
    hemi_team_free(team);
    client_close(&c);
}

/* Without re-randomisation and with every bit sent, so that key switching is what is seen: its share of the formula. */
static void noise_of_the_product_alone(void **state) {
    (void)state;
    client c;
    test_rng rng = test_rng_new();
    static const shape cases[] = {{128, 128, 0},    {384, 384, 0},   {768, 768, 0},
                                  {768, 768, 4096}, {300, 40, 1024}, {500, 4, 2048}};
    client_open(&c);
    for (size_t i = 0; i < TEST_COUNT(cases) - (test_quick() ? 3 : 0); i++) {
        product p;
        moments m = {0};
        hemi_linear_layout l;
        ASSERT_OK(test_layout(&l, c.ctx->params, cases[i].inputs, cases[i].outputs, cases[i].s, ERR));
        product_open(&p, &l, false);
        p.in_bits = p.a_bits = p.b_bits = 48;
        product_random_weights(&p, 127, &rng);
        product_load(&p, c.ctx, 127, NULL);
        const double zero = hemi_noise_zero_variance(l.params);
        const double predicted = sqrt(hemi_linear_noise_variance(&l, p.norm2, 48) - zero);
        for (size_t round = 0; m.count < (test_quick() ? 800 : 3000); round++) {
            product_random_input(&p, 127, &rng);
            product_encrypt(&p, c.sk[round % KEYS]);
            product_multiply(&p, c.keys[round % KEYS], true, NULL);
            product_decrypt(&p, c.sk[round % KEYS]);
            for (uint32_t o = 0; o < l.outputs; o++)
                moments_add(&m, ((double)p.phase[o] - (double)p.delta * product_expected(&p, o)) / predicted);
        }
        const double ratio = sqrt(moments_variance(&m));
        printf("  %u x %u, S %u: key switching and input alone, std %.4g, %.4f of predicted\n", l.inputs, l.outputs,
               l.s, ratio * predicted, ratio);
        assert_true(ratio > 1 / 1.5 && ratio < 1.5);
        product_close(&p);
    }
    client_close(&c);
}

/* Weights of zero and every bit sent: what is left is the encryption of zero, all three of its errors. (Key switching adds
 * nothing: the product is the pair (0, 0).) */
static void noise_of_rerandomisation(void **state) {
    (void)state;
    client c;
    test_rng rng = test_rng_new();
    static const shape cases[] = {{4, 1024, 0}, {1, 4096, 0}, {2, 4096, 2}, {64, 128, 0}};
    client_open(&c);
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        product p;
        moments m = {0};
        hemi_linear_layout l;
        ASSERT_OK(test_layout(&l, c.ctx->params, cases[i].inputs, cases[i].outputs, cases[i].s, ERR));
        product_open(&p, &l, false);
        p.in_bits = p.a_bits = p.b_bits = 48;
        product_load(&p, c.ctx, 127, NULL);
        for (size_t round = 0; m.count < (test_quick() ? 4000 : 20000); round++) {
            product_random_input(&p, 127, &rng);
            product_encrypt(&p, c.sk[round % KEYS]);
            product_multiply(&p, c.keys[round % KEYS], false, NULL);
            product_decrypt(&p, c.sk[round % KEYS]);
            for (uint32_t o = 0; o < l.outputs; o++) moments_add(&m, (double)p.phase[o]);
        }
        (void)moments_check(&m, hemi_noise_zero_variance(l.params), 0.05, "re-randomisation alone");
        product_close(&p);
    }
    client_close(&c);
}

/* Weights of 16 bits, all of the largest size. */
static void largest_weights(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    hemi_linear_layout l;
    ring_open(&r, test_quick() ? 8 : 10, false);
    for (int kind = 0; kind < 3; kind++) {
        product p;
        const uint32_t n = r.p.ctx->n;
        ASSERT_OK(test_layout(&l, &r.p.own, n, n, n, ERR));
        product_open(&p, &l, false);
        p.in_bits = p.a_bits = p.b_bits = 48;
        for (uint32_t i = 0; i < n * n; i++)
            p.w[i] = (int16_t)(kind == 0             ? INT16_MAX
                               : kind == 1           ? INT16_MIN
                               : test_below(&rng, 2) ? INT16_MAX
                                                     : INT16_MIN);
        product_load(&p, r.p.ctx, 127, NULL);
        const double predicted = product_predicted(&p);
        for (uint32_t j = 0; j < n; j++) p.x[j] = 127;
        if (kind == 2) product_random_input(&p, 127, &rng);
        product_encrypt(&p, r.p.sk);
        product_multiply(&p, r.keys, false, NULL);
        product_decrypt(&p, r.p.sk);
        moments m = {0};
        for (uint32_t o = 0; o < n; o++)
            moments_add(&m, ((double)p.phase[o] - (double)p.delta * product_expected(&p, o)) / predicted);
        printf("  %s: largest error %.2f predicted standard deviations, %.3g of the largest result\n",
               kind == 0   ? "all 32767"
               : kind == 1 ? "all -32768"
                           : "random signs",
               m.largest, m.largest * predicted * 2 / TEST_Q);
        assert_true(m.largest < (kind == 2 ? 1 : 3) *
                                    TEST_SIGMAS); /* equal weights: what one rotation adds counts K times in some */
        product_close(&p);
    }
    ring_close(&r);
}

/* ---- threads */

static void teams_give_the_same(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    ring_open(&r, 11, false);
    static const shape cases[] = {{20, 30, 0}, {300, 200, 0}, {512, 768, 1024}, {1000, 700, 0}};
    hemi_team *teams[] = {NULL, hemi_team_new(1), hemi_team_new(2), hemi_team_new(3)};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        product p[TEST_COUNT(teams)];
        hemi_linear_layout l;
        ASSERT_OK(test_layout(&l, &r.p.own, cases[i].inputs, cases[i].outputs, cases[i].s, ERR));
        for (size_t j = 0; j < TEST_COUNT(teams); j++) { /* loaded and multiplied by teams of every size */
            product_open(&p[j], &l, true);
            if (j == 0) {
                product_random_weights(&p[0], 127, &rng);
                product_random_input(&p[0], 127, &rng);
            } else {
                memcpy(p[j].w, p[0].w, (size_t)l.inputs * l.outputs * sizeof *p->w);
                memcpy(p[j].bias, p[0].bias, l.outputs * sizeof *p->bias);
                memcpy(p[j].x, p[0].x, l.inputs * sizeof *p->x);
            }
            product_load(&p[j], r.p.ctx, 127, teams[j]);
            if (j == 0) {
                product_encrypt(&p[0], r.p.sk);
            } else {
                memcpy(p[j].seed, p[0].seed, sizeof p->seed);
                memcpy(p[j].request, p[0].request, p[0].request_bytes);
            }
            product_multiply(&p[j], r.keys, true, teams[j]);
            assert_memory_equal(p[j].reply_a, p[0].reply_a, p[j].a_bytes);
            assert_memory_equal(p[j].reply_b, p[0].reply_b, p[j].b_bytes);
        }
        for (size_t j = 0; j < TEST_COUNT(teams); j++) {
            const double allowed = PRODUCT_SIGMAS * product_predicted(&p[j]);
            product_multiply(&p[j], r.keys, false, teams[TEST_COUNT(teams) - 1 - j]);
            product_decrypt(&p[j], r.p.sk);
            for (uint32_t o = 0; o < l.outputs; o++)
                assert_true(fabs((double)p[j].phase[o] - (double)p[j].delta * product_expected(&p[j], o)) < allowed);
        }
        for (size_t j = 0; j < TEST_COUNT(teams); j++) product_close(&p[j]);
    }
    for (size_t j = 0; j < TEST_COUNT(teams); j++) hemi_team_free(teams[j]);
    ring_close(&r);
}

typedef struct caller {
    const product *p;
    const hemi_evaluation_keys *keys;
    hemi_team *team;
    int rounds;
    size_t different, failed;
} caller;

static void *call(void *context) {
    caller *c = context;
    uint8_t *a = malloc(c->p->a_bytes), *b = malloc(c->p->b_bytes);
    for (int i = 0; i < c->rounds && a && b; i++) {
        c->failed += product_multiply_into(c->p, c->keys, true, a, b, c->team) != HEMI_OK;
        c->different += memcmp(a, c->p->reply_a, c->p->a_bytes) != 0 || memcmp(b, c->p->reply_b, c->p->b_bytes) != 0;
        c->failed += product_multiply_into(c->p, c->keys, false, a, b, c->team) != HEMI_OK;
    }
    c->failed += !a || !b;
    free(a);
    free(b);
    return NULL;
}

/* Four threads call one linear map with one set of keys, two of them with the same team. */
static void calls_from_many_threads(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    product p;
    hemi_linear_layout l;
    ring_open(&r, 10, false);
    ASSERT_OK(test_layout(&l, &r.p.own, 200, 300, 0, ERR));
    product_open(&p, &l, true);
    product_random_weights(&p, 127, &rng);
    product_random_input(&p, 127, &rng);
    product_load(&p, r.p.ctx, 127, NULL);
    product_encrypt(&p, r.p.sk);
    product_multiply(&p, r.keys, true, NULL);
    hemi_team *team = hemi_team_new(2);
    caller c[4];
    pthread_t thread[4];
    for (size_t i = 0; i < 4; i++) {
        c[i] = (caller){&p, r.keys, i < 2 ? team : NULL, test_quick() ? 5 : 50, 0, 0};
        assert_int_equal(pthread_create(&thread[i], NULL, call, &c[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
    for (size_t i = 0; i < 4; i++) assert_true(c[i].different == 0 && c[i].failed == 0);
    hemi_team_free(team);
    product_close(&p);
    ring_close(&r);
}

/* ---- keys */

static void missing_keys_are_named(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    product p;
    hemi_linear_layout l;
    ring_open(&r, 9, false);
    ASSERT_OK(test_layout(&l, &r.p.own, 100, 300, 512, ERR));
    product_open(&p, &l, false);
    product_random_weights(&p, 127, &rng);
    product_load(&p, r.p.ctx, 127, NULL);
    product_encrypt(&p, r.p.sk);
    product_multiply(&p, r.keys, false, NULL);
    uint32_t t[HEMI_AUTOMORPHISMS_MAX], others[HEMI_AUTOMORPHISMS_MAX];
    const size_t needed = hemi_linear_automorphisms(&l, t);
    hemi_evaluation_keys *keys = test_keys(r.p.sk, t, needed); /* those are enough */
    assert_status(product_multiply_into(&p, keys, false, p.reply_a, p.reply_b, NULL), HEMI_OK);
    hemi_evaluation_keys_free(keys);
    for (size_t i = 0; i < needed; i++) { /* and each of them is needed */
        size_t count = 0;
        for (size_t j = 0; j < needed; j++)
            if (j != i) others[count++] = t[j];
        keys = test_keys(r.p.sk, others, count);
        char number[16];
        snprintf(number, sizeof number, " %u", t[i]);
        assert_status(product_multiply_into(&p, keys, false, p.reply_a, p.reply_b, NULL), HEMI_ERR_KEY);
        assert_non_null(strstr(test_err.message, number));
        assert_status(product_multiply_into(&p, keys, true, p.reply_a, p.reply_b, NULL), HEMI_ERR_KEY);
        hemi_evaluation_keys_free(keys);
    }
    ring_keys other; /* keys of another set */
    ring_open(&other, 9, false);
    assert_status(product_multiply_into(&p, other.keys, false, p.reply_a, p.reply_b, NULL), HEMI_ERR_KEY);
    ring_close(&other);
    product_close(&p);
    ring_close(&r);
}

static void maps_that_cannot_be(void **state) {
    (void)state;
    hemi_linear_layout l;
    hemi_linear *linear = (hemi_linear *)&test_err;
    const int16_t w[4] = {1, 2, 3, 4};
    party a = {.own = test_params(4, TEST_Q, TEST_P)}, b = {.own = test_params(4, TEST_P, TEST_Q)};
    party_open(&a, NULL, test_table());
    party_open(&b, NULL, test_table());
    ASSERT_OK(test_layout(&l, &a.own, 2, 2, 0, ERR));
    assert_status(hemi_linear_new(&linear, b.ctx, &l, w, NULL, 1, HEMI_LINEAR_FAST, NULL, ERR),
                  HEMI_ERR_PARAMS); /* a layout of another set */
    assert_null(linear);
    ASSERT_OK(test_layout(&l, &b.own, 2, 2, 0, ERR)); /* q of 50 bits: more than the dot product takes */
    assert_status(hemi_linear_new(&linear, b.ctx, &l, w, NULL, 1, HEMI_LINEAR_FAST, NULL, ERR), HEMI_ERR_PARAMS);
    hemi_linear_free(NULL);
    party c = {.own = test_params(2, TEST_Q, TEST_P)}; /* shorter than a vector of the dot product */
    party_open(&c, NULL, test_table());
    ASSERT_OK(test_layout(&l, &c.own, 2, 2, 0, ERR));
    assert_status(hemi_linear_new(&linear, c.ctx, &l, w, NULL, 1, HEMI_LINEAR_FAST, NULL, ERR), HEMI_ERR_PARAMS);
    party_close(&c);
    party_close(&a);
    party_close(&b);
}

/* ---- the tables of kernels together */

/* One request, the same key bytes: without re-randomisation every table and layout gives the same reply, bit by bit; with
 * it, every table reads what any other wrote. */
static void tables_agree(void **state) {
    (void)state;
    static const struct {
        uint32_t log2_n;
        shape shape;
    } cases[] = {{3, {8, 8, 8}},    {3, {5, 7, 0}},      {4, {16, 16, 16}},      {5, {20, 27, 0}},
                 {7, {100, 77, 0}}, {9, {10, 10, 0}},    {9, {200, 384, 0}},     {11, {768, 768, 0}},
                 {12, {10, 10, 0}}, {12, {384, 400, 0}}, {12, {768, 768, 2048}}, {13, {300, 1000, 0}}};
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        if (test_quick() && i >= 10) break;
        product first = {.w = NULL};
        ring_keys r = {.p.own = test_params(cases[i].log2_n, TEST_Q, TEST_P)};
        uint32_t t[HEMI_FAMILY_MAX];
        party_open(&r.p, NULL, hemi_kernels_at(0));
        const size_t count = test_family(r.p.ctx, t);
        uint8_t *bytes = test_key_bytes(r.p.sk, t, count), file[4096];
        hemi_secret_key_export(file, r.p.sk);
        const hemi_kernels *table;
        for (size_t k = 0; (table = hemi_kernels_at(k)) != NULL; k++) {
            product p;
            hemi_context *ctx;
            hemi_secret_key *sk;
            hemi_linear_layout l;
            ASSERT_OK(hemi_context_new(&ctx, &r.p.own, table, ERR));
            ASSERT_OK(hemi_secret_key_import(&sk, ctx, file, hemi_secret_key_file_bytes(&r.p.own), ERR));
            hemi_evaluation_keys *keys = test_keys_from(ctx, bytes, t, count);
            ASSERT_OK(test_layout(&l, &r.p.own, cases[i].shape.inputs, cases[i].shape.outputs,
                                              cases[i].shape.s, ERR));
            product_open(&p, &l, true);
            if (k == 0) {
                product_random_weights(&p, 127, &rng);
                product_random_input(&p, 127, &rng);
            } else {
                memcpy(p.w, first.w, (size_t)l.inputs * l.outputs * sizeof *p.w);
                memcpy(p.bias, first.bias, l.outputs * sizeof *p.bias);
                memcpy(p.x, first.x, l.inputs * sizeof *p.x);
            }
            product_load(&p, ctx, 127, NULL);
            product_encrypt(&p, sk);
            if (k > 0) { /* the first table's request */
                memcpy(p.seed, first.seed, sizeof p.seed);
                memcpy(p.request, first.request, first.request_bytes);
            }
            product_multiply(&p, keys, true, NULL);
            if (k > 0) {
                assert_memory_equal(p.reply_a, first.reply_a, first.a_bytes);
                assert_memory_equal(p.reply_b, first.reply_b, first.b_bytes);
            }
            const double allowed = PRODUCT_SIGMAS * product_predicted(&p);
            product q = p;
            product_multiply(&q, keys, false, NULL);
            product_decrypt(&q, r.p.sk); /* under the first table */
            for (uint32_t o = 0; o < l.outputs; o++)
                assert_true(fabs((double)q.phase[o] - (double)q.delta * product_expected(&q, o)) < allowed);
            product_multiply(&p, keys, true, NULL);
            if (k == 0)
                first = p;
            else
                product_close(&p);
            if (k == 0) hemi_linear_free(first.linear), first.linear = NULL;
            hemi_evaluation_keys_free(keys);
            hemi_secret_key_free(sk);
            hemi_context_free(ctx);
        }
        product_close(&first);
        hemi_free(bytes);
        party_close(&r.p);
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_and_layout_of_tiny_rings),
        cmocka_unit_test(every_stated_layout_of_a_tiny_ring),
        cmocka_unit_test(shapes_of_the_default_set),
        cmocka_unit_test(noise_of_the_product_alone),
        cmocka_unit_test(noise_of_rerandomisation),
        cmocka_unit_test(largest_weights),
        cmocka_unit_test(teams_give_the_same),
        cmocka_unit_test(calls_from_many_threads),
        cmocka_unit_test(missing_keys_are_named),
        cmocka_unit_test(maps_that_cannot_be),
    };
    static const struct CMUnitTest together[] = {cmocka_unit_test(tables_agree)};
    return TEST_RUN_PER_TABLE("linear", tests) | TEST_RUN("linear, all tables", together);
}
