/* Layouts of matrix products: what every layout must satisfy, what is refused, and the plaintexts against their definition. */
#include "crypto.h"
#include "linear/layout.h"
#include "linear/plaintexts.h"

static bool power_of_two(uint32_t x) { return x != 0 && (x & (x - 1)) == 0; }

static bool same_layout(const hemi_linear_layout *a, const hemi_linear_layout *b) {
    bool same = a->params == b->params && a->n == b->n && a->log2_n == b->log2_n && a->inputs == b->inputs &&
                a->outputs == b->outputs && a->s == b->s && a->direct == b->direct && a->babies == b->babies &&
                a->groups == b->groups;
    for (size_t g = 0; same && g < a->groups; g++)
        same = a->group[g].first == b->group[g].first && a->group[g].k == b->group[g].k &&
               a->group[g].giants == b->group[g].giants && a->group[g].offset == b->group[g].offset;
    return same;
}

/* Everything that holds of every layout. scratch: n bytes and n words. */
static void check_layout(const hemi_linear_layout *l, uint8_t *used, uint32_t *positions) {
    const uint32_t n = l->n, d = l->inputs, m = l->outputs, s = l->s;
    assert_true(n == 1u << l->params->log2_n && l->log2_n == l->params->log2_n);
    assert_true(power_of_two(s) && s >= d && s <= n);
    assert_true(l->direct == ((uint64_t)s * m <= n));
    assert_true(power_of_two(l->babies) && l->groups >= 1 && l->groups <= HEMI_LINEAR_GROUPS_MAX);
    uint32_t products = 0;
    for (size_t g = 0; g < l->groups; g++) {
        const hemi_linear_group *group = &l->group[g];
        assert_true(power_of_two(group->k) && group->k <= s && group->first == products);
        assert_true(group->giants * l->babies == group->k);
        assert_true(g == 0 ? group->offset == 0 : group->k < l->group[g - 1].k);
        products += group->k;
    }
    assert_int_equal(hemi_linear_polynomials(l), products);
    assert_true((uint64_t)products * (n / s) >= m);
    if (l->direct) assert_true(products == 1 && l->babies == 1);

    const size_t sent = hemi_linear_input_positions(l, NULL);
    assert_int_equal(sent, (size_t)d * (n / s));
    assert_int_equal(hemi_linear_input_positions(l, positions), sent);
    for (size_t i = 0; i < sent; i++) {
        assert_true(positions[i] < n && positions[i] % s < d);
        if (i > 0) assert_true(positions[i] > positions[i - 1]);
    }

    memset(used, 0, n);
    hemi_linear_output_positions(l, positions);
    for (uint32_t o = 0; o < m; o++) {
        assert_true(positions[o] < n && !used[positions[o]]);
        used[positions[o]] = 1;
    }

    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    const size_t keys = hemi_linear_automorphisms(l, t);
    assert_int_equal(hemi_linear_automorphisms(l, NULL), keys);
    assert_true(keys <= l->log2_n + 1 && (keys == 0) == l->direct);
    for (size_t i = 0; i < keys; i++) {
        if (i > 0) assert_true(t[i] > t[i - 1]);
        assert_true(t[i] == 2 * n - 1 || (t[i] >= 3 && t[i] <= n + 1 && power_of_two(t[i] - 1)));
    }
}

static void check_restored(const hemi_linear_layout *l) {
    uint32_t k[HEMI_LINEAR_GROUPS_MAX];
    hemi_linear_layout again;
    for (size_t g = 0; g < l->groups; g++) k[g] = l->group[g].k;
    ASSERT_OK(test_layout_restore(&again, l->params, l->inputs, l->outputs, l->s, l->babies, k, l->groups, ERR));
    assert_true(same_layout(l, &again));
}

static void every_shape_of_small_rings(void **state) {
    (void)state;
    uint8_t used[64];
    uint32_t positions[64];
    size_t layouts = 0, two_groups = 0;
    for (uint32_t log2_n = 2; log2_n <= 6; log2_n++) {
        const hemi_params row = test_params(log2_n, TEST_Q, TEST_P);
        const uint32_t n = 1u << log2_n;
        for (uint32_t d = 1; d <= n; d++)
            for (uint32_t m = 1; m <= n; m++)
                for (uint32_t s = 0; s <= n; s = s == 0 ? 1 : 2 * s) {
                    hemi_linear_layout l;
                    const hemi_status status = test_layout(&l, &row, d, m, s, ERR);
                    assert_status(status, s == 0 || s >= d ? HEMI_OK : HEMI_ERR_ARGUMENT);
                    if (status != HEMI_OK) continue;
                    if (s != 0) assert_int_equal(l.s, s);
                    check_layout(&l, used, positions);
                    check_restored(&l);
                    layouts++;
                    two_groups += l.groups == 2;
                }
    }
    printf("  %zu layouts, %zu of them in two groups\n", layouts, two_groups);
}

/* 1, 2, 3, 5, 8, ... 4096 and neighbours of powers of two. */
static size_t grid(uint32_t *v) {
    size_t count = 0;
    for (uint32_t x = 1; x <= 4096; x = x + 1 + x / 6) v[count++] = x;
    for (uint32_t p = 8; p <= 4096; p *= 2) {
        v[count++] = p - 1;
        v[count++] = p;
        if (p < 4096) v[count++] = p + 1;
    }
    return count;
}

/* The fewest keys that any choice of babies gives this shape and S, with one group. */
static size_t fewest_keys(const hemi_linear_layout *l) {
    size_t least = HEMI_AUTOMORPHISMS_MAX;
    uint32_t k = 1;
    while ((uint64_t)k * (l->n / l->s) < l->outputs) k *= 2;
    for (uint32_t babies = 1; babies <= k; babies *= 2) {
        hemi_linear_layout other;
        if (test_layout_restore(&other, l->params, l->inputs, l->outputs, l->s, babies, &k, 1, ERR) != HEMI_OK)
            continue;
        const size_t keys = hemi_linear_automorphisms(&other, NULL);
        if (keys < least) least = keys;
    }
    return least;
}

/* Few outputs of many inputs need a long trace, log2(S/K) keys: there the limit cannot be met, and the fewest are taken. */
static void shapes_of_the_default_set(void **state) {
    (void)state;
    static uint8_t used[4096];
    static uint32_t positions[4096];
    const hemi_params *row = hemi_params_by_name("L4096");
    uint32_t v[128];
    size_t count = grid(v), most = 0, layouts = 0, above = 0;
    for (size_t i = 0; i < count; i += test_quick() ? 5 : 1)
        for (size_t j = 0; j < count; j++)
            for (uint32_t s = 0; s <= 4096; s = s == 0 ? 1 : 2 * s) {
                hemi_linear_layout l;
                if (s != 0 && s < v[i]) continue;
                ASSERT_OK(test_layout(&l, row, v[i], v[j], s, ERR));
                const size_t keys = hemi_linear_automorphisms(&l, NULL);
                layouts++;
                if (keys > most) most = keys;
                if (keys > HEMI_LINEAR_KEYS_SOFT_MAX) {
                    above++;
                    if (keys != fewest_keys(&l))
                        fail_msg("%u x %u, S = %u: %zu keys where %zu would do", v[i], v[j], l.s, keys,
                                 fewest_keys(&l));
                    assert_true(l.s / l.group[0].k >= 256);
                }
                check_restored(&l);
                if ((i + j) % 7 == 0) check_layout(&l, used, positions);
            }
    printf("  %zu layouts, %zu of them with more than %d keys, none with more than %zu\n", layouts, above,
           HEMI_LINEAR_KEYS_SOFT_MAX, most);
    assert_true(most <= 12);
}

static void default_layouts_are_as_stated(void **state) {
    (void)state;
    static const struct {
        uint32_t inputs, outputs, s, chosen;
        size_t key_bytes, upload_bytes; /* at most; 32 bits a coefficient */
        bool direct;
    } cases[] = {
        {10, 10, 0, 256, 60000, 999, true},          {1, 1, 0, 4096, 60000, 36, true},
        {768, 768, 0, 1024, 480000, 12800, false},   {768, 768, 4096, 4096, 480000, 3300, false},
        {768, 3072, 0, 1024, 480000, 12800, false},  {3072, 768, 0, 4096, 480000, 12800, false},
        {4096, 4096, 0, 4096, 800000, 16600, false}, {1, 4096, 0, 1, 60000, 16600, true},
        {4096, 1, 0, 4096, 60000, 16600, true},      {1024, 4, 0, 1024, 60000, 16600, true},
        {1024, 5, 0, 1024, 530000, 16600, false},    {64, 64, 0, 64, 60000, 16600, true},
        {65, 32, 0, 128, 60000, 16600, true},        {65, 33, 0, 128, 480000, 16600, false},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        hemi_linear_layout l;
        const hemi_params *row = hemi_params_by_name("L4096");
        ASSERT_OK(test_layout(&l, row, cases[i].inputs, cases[i].outputs, cases[i].s, ERR));
        assert_int_equal(l.s, cases[i].chosen);
        assert_true(l.direct == cases[i].direct);
        assert_true(hemi_keys_total_bytes(row, hemi_linear_automorphisms(&l, NULL)) <= cases[i].key_bytes);
        assert_true(HEMI_SEED_BYTES + 4 * hemi_linear_input_positions(&l, NULL) <= cases[i].upload_bytes);
    }
}

static void refusals(void **state) {
    (void)state;
    const hemi_params *large = hemi_params_by_name("L4096"), *small = hemi_params_by_name("L2048");
    hemi_linear_layout l;
    static const uint32_t shapes[][2] = {{0, 1}, {1, 0}, {0, 0}, {(1u << 20) + 1, 1}, {1, (1u << 20) + 1}, {UINT32_MAX, 1}, {1, UINT32_MAX}};
    for (size_t i = 0; i < TEST_COUNT(shapes); i++)
        for (uint32_t s = 0; s <= 4096; s += 4096) {
            const uint32_t k = 1;
            assert_status(test_layout(&l, large, shapes[i][0], shapes[i][1], s, ERR), HEMI_ERR_SHAPE);
            if (s != 0)
                assert_status(test_layout_restore(&l, large, shapes[i][0], shapes[i][1], s, 1, &k, 1, ERR),
                              HEMI_ERR_SHAPE);
        }
    static const uint32_t bad_s[] = {3,    12,   1000, 1023,       1025,
                                     4095, 4097, 8192, UINT32_MAX, 0x80000000}; /* of 768 inputs */
    for (size_t i = 0; i < TEST_COUNT(bad_s); i++)
        assert_status(test_layout(&l, large, 768, 768, bad_s[i], ERR), HEMI_ERR_ARGUMENT);
    for (uint32_t s = 1; s < 1024; s *= 2)
        assert_status(test_layout(&l, large, 768, 768, s, ERR), HEMI_ERR_ARGUMENT);
    for (uint32_t s = 1; s < 4096; s *= 2)
        assert_status(test_layout(&l, large, s + 1, 1, s, ERR), HEMI_ERR_ARGUMENT);
    ASSERT_OK(test_layout(&l, large, 4097, 1, 4096, ERR)); /* two ciphertexts */
    /* without key switching: one product only */
    for (uint32_t d = 1; d <= 2048; d *= 2) {
        ASSERT_OK(test_layout(&l, small, d, 2048 / d, 0, ERR));
        assert_true(l.direct);
        if (d > 1) assert_status(test_layout(&l, small, d, 2048 / d + 1, 0, ERR), HEMI_ERR_PARAMS);
        if (d < 2048) assert_status(test_layout(&l, small, d, 2048 / d, 2 * d, ERR), HEMI_ERR_PARAMS);
    }
}

/* What a file may state: exactly the layouts that hold the outputs and can be evaluated. */
static void restored_layouts(void **state) {
    (void)state;
    const uint32_t n = 16;
    const hemi_params row = test_params(4, TEST_Q, TEST_P);
    uint8_t used[16];
    uint32_t positions[16];
    size_t good = 0, bad = 0;
    for (uint32_t m = 1; m <= n; m++)
        for (uint32_t s = 1; s <= n; s *= 2)
            for (uint32_t babies = 0; babies <= 17; babies++)
                for (uint32_t k0 = 0; k0 <= 17; k0++)
                    for (uint32_t k1 = 0; k1 <= 17; k1++) { /* k1 = 0: one group */
                        const uint32_t k[2] = {k0, k1}, d = s > 1 ? s - 1 : s;
                        const bool direct = s * m <= n, pairs = k1 != 0;
                        bool legal = power_of_two(babies) && power_of_two(k0) && k0 <= s && babies <= k0 &&
                                     (k0 + k1) * (n / s) >= m;
                        if (pairs) legal = legal && power_of_two(k1) && k1 < k0 && babies <= k1 && 2 * k0 <= s;
                        if (direct) legal = legal && k0 == 1 && !pairs;
                        if (s == n && babies == 1 && k0 > 2) legal = false; /* powers of -1 */
                        hemi_linear_layout l;
                        const hemi_status status =
                            test_layout_restore(&l, &row, d, m, s, babies, k, pairs ? 2 : 1, ERR);
                        assert_status(status, legal ? HEMI_OK : HEMI_ERR_FORMAT);
                        if (legal) check_layout(&l, used, positions);
                        good += legal;
                        bad += !legal;
                    }
    printf("  %zu accepted, %zu refused\n", good, bad);
    const uint32_t k[3] = {4, 2, 1};
    hemi_linear_layout l;
    assert_status(test_layout_restore(&l, &row, 3, 7, 16, 1, k, 3, ERR), HEMI_ERR_FORMAT);
    assert_status(test_layout_restore(&l, &row, 3, 16, 6, 1, k, 1, ERR), HEMI_ERR_ARGUMENT);
    assert_status(test_layout_restore(&l, &row, 5, 16, 4, 1, k, 1, ERR), HEMI_ERR_ARGUMENT);
}

/* ---- plaintexts, by their definition in 64-bit integers */

/* r += a(X^t) X^shift. */
static void add_rotated(int64_t *r, const int64_t *a, uint32_t t, uint32_t shift, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t e = ((uint64_t)i * t + shift) % (2 * n);
        r[e % n] += e >= n ? -a[i] : a[i];
    }
}

static uint32_t power(uint32_t t, uint32_t e, uint32_t n) {
    uint64_t r = 1;
    while (e-- > 0) r = r * t % (2 * n);
    return (uint32_t)r;
}

static uint32_t inverse(uint32_t t, uint32_t n) {
    for (uint32_t u = 1;; u += 2)
        if ((uint64_t)t * u % (2 * n) == 1) return u;
}

static void check_plaintexts(const hemi_linear_layout *l, const int16_t *w, hemi_team *team, int64_t *largest) {
    const uint32_t n = l->n, per_product = n / l->s;
    for (size_t g = 0; g < l->groups; g++) {
        const hemi_linear_group *group = &l->group[g];
        const uint32_t k_count = group->k;
        int32_t *pt = calloc((size_t)k_count * n, sizeof *pt);
        uint32_t *from = calloc(k_count, sizeof *from), *seen = calloc(k_count, sizeof *seen);
        int64_t *row = calloc((size_t)k_count * n, sizeof *row), *sum = calloc(2 * n, sizeof *sum), *want = sum + n;
        assert_true(pt && from && seen && row && sum);
        for (uint32_t k = 0; k < k_count; k++) /* sum_r sum_j W[(k,r)][j] X^(S r - j) */
            for (uint32_t r = 0; r < per_product; r++)
                for (uint32_t j = 0; j < l->inputs; j++) {
                    const uint32_t o = (group->first + k) * per_product + r;
                    if (o >= l->outputs) continue;
                    const uint32_t e = (l->s * r + 2 * n - j) % (2 * n);
                    row[k * n + e % n] += e >= n ? -w[o * l->inputs + j] : w[o * l->inputs + j];
                }
        ASSERT_OK(hemi_linear_plaintexts(pt, from, l, 0, 0, g, w, team, ERR));
        for (uint32_t c = 0; c < group->giants; c++)
            for (uint32_t b = 0; b < l->babies; b++) {
                const uint32_t at = from[c * l->babies + b];
                const uint32_t giant = group->giants > 1 ? power(hemi_linear_giant(l), c, n) : 1;
                const uint32_t gamma = (uint32_t)((uint64_t)hemi_linear_gamma(l, b) * giant % (2 * n));
                assert_true(at < k_count && !seen[at]++);
                memset(sum, 0, 2 * n * sizeof *sum);
                for (uint32_t k = 0; k < k_count; k++) add_rotated(sum, row + k * n, gamma, k * (l->s / k_count), n);
                add_rotated(want, sum, inverse(giant, n), 0, n);
                for (uint32_t i = 0; i < n; i++) {
                    assert_true(pt[at * n + i] == want[i]);
                    if (llabs(want[i]) > *largest) *largest = llabs(want[i]);
                }
            }
        free(pt);
        free(from);
        free(seen);
        free(row);
        free(sum);
    }
}

static void plaintexts_by_definition(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static int16_t w[64 * 64];
    hemi_team *team = hemi_team_new(2);
    for (uint32_t log2_n = 2; log2_n <= (test_quick() ? 4 : 6); log2_n++) {
        const hemi_params row = test_params(log2_n, TEST_Q, TEST_P);
        const uint32_t n = 1u << log2_n, step = n <= 16 ? 1 : n / 4 - 1;
        for (uint32_t d = 1; d <= n; d += step)
            for (uint32_t m = 1; m <= n; m += step)
                for (uint32_t s = 1; s <= n; s *= 2) {
                    hemi_linear_layout l;
                    int64_t largest = 0;
                    if (s < d) continue;
                    for (uint32_t i = 0; i < d * m; i++) w[i] = (int16_t)test_u64(&rng);
                    ASSERT_OK(test_layout(&l, &row, d, m, s, ERR));
                    check_plaintexts(&l, w, (d + m) % 2 ? team : NULL, &largest);
                }
    }
    hemi_team_free(team);
}

/* Weights of the largest size, all alike: a plaintext coefficient reaches K 2^15, at most 2^27, and nothing wraps around. */
static void largest_weights_do_not_overflow(void **state) {
    (void)state;
    const uint32_t log2_n = test_quick() ? 6 : 8, n = 1u << log2_n;
    const hemi_params row = test_params(log2_n, TEST_Q, TEST_P);
    int16_t *w = malloc(n * n * sizeof *w);
    assert_non_null(w);
    for (int sign = -1; sign <= 1; sign += 2) {
        hemi_linear_layout l;
        int64_t largest = 0;
        for (uint32_t i = 0; i < n * n; i++) w[i] = (int16_t)(sign < 0 ? INT16_MIN : INT16_MAX);
        ASSERT_OK(test_layout(&l, &row, n, n, n, ERR));
        assert_int_equal(hemi_linear_products(&l), n);
        check_plaintexts(&l, w, NULL, &largest);
        assert_int_equal(largest, (int64_t)n * (sign < 0 ? 32768 : 32767));
    }
    assert_true((int64_t)4096 * 32768 < INT32_MAX);
    free(w);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_of_small_rings),
        cmocka_unit_test(shapes_of_the_default_set),
        cmocka_unit_test(default_layouts_are_as_stated),
        cmocka_unit_test(refusals),
        cmocka_unit_test(restored_layouts),
        cmocka_unit_test(plaintexts_by_definition),
        cmocka_unit_test(largest_weights_do_not_overflow),
    };
    return TEST_RUN("layout", tests);
}
