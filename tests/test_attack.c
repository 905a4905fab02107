/* The attack on one reply (docs/cryptography.md, "Re-randomisation"): the client itself tries to learn the weights.
 *
 * Without re-randomisation the a-part of a reply to an honest request is w(X) a(X) mod q, rounded to a_bits: every coefficient is a
 * linear equation r_i = sum_k +-w_k a_(i - e_k) + error, |error| <= q / 2^(a_bits + 1), whose unknowns are the small integer weights.
 * Ten equations and lattice reduction find them all. With re-randomisation the a-part is that of an encryption under the client's public
 * key with fresh u: uniform to whoever has not the secret u, so the same attack finds nothing. */
#include "product.h"

#define UNKNOWNS_MAX  16
#define EQUATIONS     10
#define DIMENSION_MAX (UNKNOWNS_MAX + EQUATIONS + 1)

__extension__ typedef __int128 i128;

/* ---- LLL (Lenstra, Lenstra and Lovasz, 1982), with the exact Gram matrix and its Cholesky factor in long double (Nguyen and
 * Stehle, "Floating-point LLL revisited", 2005) */

typedef struct lattice {
    size_t rows;
    int64_t b[DIMENSION_MAX][DIMENSION_MAX];
    long double r[DIMENSION_MAX][DIMENSION_MAX],
        mu[DIMENSION_MAX][DIMENSION_MAX]; /* r_ij = <b_i, b_j*>, mu_ij = r_ij / r_jj */
} lattice;

static long double inner(const lattice *l, size_t i, size_t j) {
    i128 sum = 0;
    for (size_t c = 0; c < l->rows; c++) sum += (i128)l->b[i][c] * l->b[j][c];
    return (long double)sum;
}

static void orthogonalise(lattice *l, size_t k) {
    for (size_t j = 0; j <= k; j++) {
        long double v = inner(l, k, j);
        for (size_t i = 0; i < j; i++) v -= l->mu[j][i] * l->r[k][i];
        l->r[k][j] = v;
        l->mu[k][j] = v / l->r[j][j];
    }
}

static void size_reduce(lattice *l, size_t k) {
    for (bool changed = true; changed;) {
        changed = false;
        orthogonalise(l, k);
        for (size_t j = k; j-- > 0;) {
            const long double x = rintl(l->mu[k][j]);
            if (x == 0) continue;
            changed = true;
            for (size_t c = 0; c < l->rows; c++) l->b[k][c] -= (int64_t)x * l->b[j][c];
            for (size_t i = 0; i < j; i++) l->mu[k][i] -= x * l->mu[j][i];
            l->mu[k][j] -= x;
        }
    }
}

static void reduce(lattice *l) {
    size_reduce(l, 0);
    for (size_t k = 1; k < l->rows;) {
        size_reduce(l, k);
        const long double next = l->r[k][k] + l->mu[k][k - 1] * l->r[k][k - 1]; /* of b_k against b_0 .. b_(k-2) */
        if (next >= 0.99L * l->r[k - 1][k - 1]) {
            k++;
            continue;
        }
        for (size_t c = 0; c < l->rows; c++) {
            const int64_t v = l->b[k][c];
            l->b[k][c] = l->b[k - 1][c];
            l->b[k - 1][c] = v;
        }
        k = k > 1 ? k - 1 : 1;
        if (k == 1) size_reduce(l, 0);
    }
}

static void reduction_finds_short_vectors(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    lattice l = {.rows = 12};
    int64_t hidden[12]; /* a relation among 40-bit numbers: a knapsack */
    int64_t sum = 0;
    for (size_t i = 0; i < 11; i++) {
        hidden[i] = (int64_t)test_below(&rng, 3) - 1;
        l.b[i][i] = 1;
        l.b[i][11] = (int64_t)(test_u64(&rng) >> 24);
        sum += hidden[i] * l.b[i][11];
    }
    l.b[11][11] = sum;
    reduce(&l);
    for (size_t i = 1; i < l.rows; i++) assert_true(l.r[i][i] >= 0.7L * l.r[i - 1][i - 1]);
    bool found = false; /* the relation's coefficients show in the reduced basis as a vector with a zero at the end */
    for (size_t i = 0; i < l.rows; i++) {
        bool plus = l.b[i][11] == 0, minus = plus;
        for (size_t c = 0; c < 11; c++) plus &= l.b[i][c] == hidden[c], minus &= l.b[i][c] == -hidden[c];
        found |= plus || minus;
    }
    assert_true(found);
}

/* ---- what the attacker has: the seed, the layout, one reply's a-part */

typedef struct view {
    const hemi_context *ctx;
    const hemi_linear_layout *l;
    uint64_t *a;     /* coefficients of the request's a */
    uint64_t *reply; /* coefficients of the reply's a-part, switched up */
    unsigned a_bits;
} view;

static view view_of(const product *p, const hemi_context *ctx, const uint8_t *packed_a) {
    view v = {ctx, &p->l, hemi_alloc(ctx->n, sizeof(uint64_t)), hemi_alloc(ctx->n, sizeof(uint64_t)), p->a_bits};
    assert_true(v.a && v.reply);
    hemi_sample_uniform_vartime(v.a, ctx->n, ctx->q->m.p, p->seed, HEMI_DOMAIN_CIPHERTEXT, 0);
    ctx->k->intt(v.a, v.a, ctx->q);
    hemi_unpack(v.reply, packed_a, ctx->n, p->a_bits);
    ctx->k->switch_up(v.reply, v.reply, ctx->n, p->a_bits, &ctx->q->m);
    return v;
}

static void view_free(view *v) {
    hemi_free(v->a);
    hemi_free(v->reply);
}

/* Coefficient i of X^(S r - j) a, centred: the factor of weight (r, j) in equation i. */
static int64_t factor(const view *v, uint32_t r, uint32_t j, uint32_t i) {
    const uint32_t n = v->ctx->n, from = (i + 2 * n + j - v->l->s * r) % (2 * n);
    const int64_t a = hemi_mod_centre(v->a[from % n], &v->ctx->q->m);
    return from >= n ? -a : a;
}

/* How many of the reply's coefficients these weights explain. */
static size_t explained(const view *v, const int64_t *w) {
    const uint32_t n = v->ctx->n, d = v->l->inputs, m = v->l->outputs;
    const int64_t bound = (int64_t)(v->ctx->q->m.p >> (v->a_bits + 1)) + 2;
    size_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        i128 sum = 0;
        for (uint32_t r = 0; r < m; r++)
            for (uint32_t j = 0; j < d; j++) sum += (i128)w[r * d + j] * factor(v, r, j, i);
        const int64_t q = (int64_t)v->ctx->q->m.p;
        int64_t rest = (int64_t)((sum - (i128)v->reply[i]) % q);
        if (rest > q / 2) rest -= q;
        if (rest < -q / 2) rest += q;
        count += llabs(rest) <= bound;
    }
    return count;
}

/* The attack: the weights of the shortest vector that has them, and how many coefficients these explain. */
static size_t attack(const view *v, int64_t *w) {
    const size_t unknowns = (size_t)v->l->inputs * v->l->outputs, rows = unknowns + EQUATIONS + 1;
    const int64_t q = (int64_t)v->ctx->q->m.p, error = q >> (v->a_bits + 1), scale = error / 128;
    lattice *l = calloc(1, sizeof *l);
    assert_non_null(l);
    l->rows = rows;
    for (size_t e = 0; e < EQUATIONS; e++) {
        const uint32_t i = (uint32_t)(e * 409 + 17);
        l->b[e][e] = q;
        for (size_t k = 0; k < unknowns; k++)
            l->b[EQUATIONS + k][e] = factor(v, (uint32_t)(k / v->l->inputs), (uint32_t)(k % v->l->inputs), i);
        l->b[rows - 1][e] = hemi_mod_centre(v->reply[i], &v->ctx->q->m);
    }
    for (size_t k = 0; k < unknowns; k++) l->b[EQUATIONS + k][EQUATIONS + k] = scale;
    l->b[rows - 1][rows - 1] = error;
    reduce(l);
    size_t best = 0;
    for (size_t i = 0; i < rows; i++) { /* a vector (errors, -+scale w, +-error) */
        const int64_t end = l->b[i][rows - 1];
        int64_t candidate[UNKNOWNS_MAX];
        if (llabs(end) != error) continue;
        for (size_t k = 0; k < unknowns; k++) candidate[k] = -l->b[i][EQUATIONS + k] / scale * (end / error);
        const size_t count = explained(v, candidate);
        if (best == 0 || count > best) memcpy(w, candidate, sizeof candidate);
        if (count > best) best = count;
    }
    free(l);
    return best;
}

typedef struct setting {
    party p;
    product layer;
    hemi_evaluation_keys *keys;
} setting;

static void setting_open(setting *s, uint32_t d, uint32_t m, test_rng *rng) {
    hemi_linear_layout l;
    party_open(&s->p, hemi_params_by_name("L4096"), test_table());
    s->keys = test_keys(s->p.sk, NULL, 0);
    ASSERT_OK(test_layout(&l, s->p.ctx->params, d, m, 0, ERR));
    assert_true(l.direct);
    product_open(&s->layer, &l, true);
    for (size_t i = 0; i < (size_t)d * m; i++) s->layer.w[i] = (int16_t)((int)test_below(rng, 255) - 127);
    product_load(&s->layer, s->p.ctx, 127, NULL);
    product_random_input(&s->layer, 127, rng);
    product_encrypt(&s->layer, s->p.sk);
}

static void setting_close(setting *s) {
    product_close(&s->layer);
    hemi_evaluation_keys_free(s->keys);
    party_close(&s->p);
}

static size_t right_weights(const product *p, const int64_t *w) {
    size_t count = 0;
    for (size_t i = 0; i < (size_t)p->l.inputs * p->l.outputs; i++) count += w[i] == p->w[i];
    return count;
}

static void one_reply_without_rerandomisation_tells_all_weights(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t d = 2; d <= 4; d++) {
        setting s;
        int64_t w[UNKNOWNS_MAX] = {0};
        setting_open(&s, d, d, &rng);
        product_multiply(&s.layer, s.keys, true, NULL);
        view v = view_of(&s.layer, s.p.ctx, s.layer.reply_a);
        const size_t count = attack(&v, w), right = right_weights(&s.layer, w);
        printf("  %u x %u: %zu of %u weights, %zu of %u coefficients explained\n", d, d, right, d * d, count,
               s.p.ctx->n);
        assert_int_equal(right, d * d);
        assert_int_equal(count, s.p.ctx->n);
        view_free(&v);
        setting_close(&s);
    }
}

static void rerandomised_replies_tell_none(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t d = 2; d <= 4; d++) {
        setting s;
        setting_open(&s, d, d, &rng);
        for (int round = 0; round < 3; round++) {
            int64_t w[UNKNOWNS_MAX] = {0}, truth[UNKNOWNS_MAX];
            product_multiply(&s.layer, s.keys, false, NULL);
            view v = view_of(&s.layer, s.p.ctx, s.layer.reply_a);
            const size_t count = attack(&v, w), right = right_weights(&s.layer, w);
            for (size_t i = 0; i < d * d; i++) truth[i] = s.layer.w[i];
            /* not even the right weights explain anything of it, but for chance: 2^-25 a coefficient */
            const size_t by_truth = explained(&v, truth);
            printf("  %u x %u: %zu of %u weights, %zu coefficients explained, %zu by the right weights\n", d, d, right,
                   d * d, count, by_truth);
            assert_true(right < d * d);
            assert_true(count <= EQUATIONS + 2 && by_truth <= 2); /* at most the equations that were put in */
            product_decrypt(&s.layer, s.p.sk);                    /* and it is a right reply */
            for (uint32_t o = 0; o < d; o++)
                assert_true(fabs((double)s.layer.phase[o] - (double)s.layer.delta * product_expected(&s.layer, o)) <
                            PRODUCT_SIGMAS * product_predicted(&s.layer));
            view_free(&v);
        }
        setting_close(&s);
    }
}

/* Counts of the top 8 bits. */
static double uniformity(const size_t count[256], size_t samples) {
    double expected[256];
    for (size_t i = 0; i < 256; i++) expected[i] = (double)samples / 256;
    return test_chi_square(count, expected, 256);
}

/* Replies to one and the same request, for direct and rotated layers: a-parts, and their differences, are uniform. */
static void replies_to_one_request_are_fresh(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static const struct {
        uint32_t inputs, outputs;
        bool ring_switch;
    } shapes[] = {{3, 3, false},    {10, 10, false},  {1, 4096, false}, {64, 128, false},
                  {300, 48, false}, {10, 10, true},   {64, 128, true},  {300, 48, true}};
    for (size_t c = 0; c < TEST_COUNT(shapes); c++) {
        party p;
        product layer;
        hemi_linear_layout l;
        uint32_t t[HEMI_AUTOMORPHISMS_MAX + 1] = {HEMI_KEY_RING_SWITCH};
        party_open(&p, hemi_params_by_name("L4096"), test_table());
        ASSERT_OK(test_layout(&l, p.ctx->params, shapes[c].inputs, shapes[c].outputs, 0, ERR));
        hemi_evaluation_keys *keys = test_keys(p.sk, t, 1 + hemi_linear_automorphisms(&l, t + 1));
        product_open(&layer, &l, false);
        product_random_weights(&layer, 127, &rng);
        product_load(&layer, p.ctx, 127, NULL);
        product_random_input(&layer, 127, &rng);
        product_encrypt(&layer, p.sk);
        layer.ring_switch = shapes[c].ring_switch;
        const uint32_t n = layer.ring_switch ? p.ctx->n / 2 : p.ctx->n, rounds = test_quick() ? 4 : 24;
        uint64_t *a = hemi_alloc(3 * n, sizeof *a), *before = a + n, *bare = a + 2 * n;
        size_t values[256] = {0}, steps[256] = {0}, from_bare[256] = {0}, samples = 0;
        product_multiply(&layer, keys, true, NULL);
        hemi_unpack(bare, layer.reply_a, n, 25);
        product_multiply(&layer, keys, true, NULL); /* without re-randomisation: the same again */
        hemi_unpack(a, layer.reply_a, n, 25);
        assert_memory_equal(a, bare, n * sizeof *a);
        for (uint32_t round = 0; round <= rounds; round++) {
            memcpy(before, a, n * sizeof *a);
            product_multiply(&layer, keys, false, NULL);
            hemi_unpack(a, layer.reply_a, n, 25);
            size_t same = 0;
            for (uint32_t i = 0; i < n; i++) {
                same += a[i] == before[i];
                if (round == 0) continue;
                values[a[i] >> 17]++;
                steps[((a[i] - before[i]) & 0x1ffffff) >> 17]++;
                from_bare[((a[i] - bare[i]) & 0x1ffffff) >> 17]++;
                samples++;
            }
            assert_true(same < 4);
        }
        const double limit = test_chi_square_limit(255), x = uniformity(values, samples),
                     y = uniformity(steps, samples), z = uniformity(from_bare, samples);
        printf("  %u x %u%s: chi-square %.0f, %.0f, %.0f of 255 degrees, limit %.0f\n", l.inputs, l.outputs,
               layer.ring_switch ? ", switched" : "", x, y, z, limit);
        assert_true(x < limit && y < limit && z < limit);
        hemi_free(a);
        product_close(&layer);
        hemi_evaluation_keys_free(keys);
        party_close(&p);
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(reduction_finds_short_vectors),
        cmocka_unit_test(one_reply_without_rerandomisation_tells_all_weights),
        cmocka_unit_test(rerandomised_replies_tell_none),
    };
    static const struct CMUnitTest fresh[] = {cmocka_unit_test(replies_to_one_request_are_fresh)};
    return TEST_RUN("attack", tests) | TEST_RUN_PER_TABLE("attack, fresh replies", fresh);
}
