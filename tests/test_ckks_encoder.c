/* The canonical embedding against its definition, written here term by term; and what it is for: products of polynomials
 * are products of slots, automorphisms rotate and conjugate them. */
#include "test.h"

#include <complex.h>

#include "base/memory.h"
#include "ckks/encoder.h"

#define P31 UINT64_C(2147352577) /* each 1 modulo 2^17 */
#define P48 UINT64_C(0xfffffffa0001)
#define P50 UINT64_C(0x3ffffffd20001)

#define LOG2_N_MAX 16
#define N_MAX      (1u << LOG2_N_MAX)

static struct {
    double *re, *im, *re2, *im2, *work;
    int64_t *a, *b, *c;
    uint64_t *r, *s;
} x;

static int set_up(void **state) {
    (void)state;
    void **const all[] = {(void **)&x.re, (void **)&x.im, (void **)&x.re2, (void **)&x.im2, (void **)&x.work,
                          (void **)&x.a,  (void **)&x.b,  (void **)&x.c,   (void **)&x.r,   (void **)&x.s};
    for (size_t i = 0; i < TEST_COUNT(all); i++)
        if (!(*all[i] = hemi_alloc(N_MAX, 8))) return -1;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    void *const all[] = {x.re, x.im, x.re2, x.im2, x.work, x.a, x.b, x.c, x.r, x.s};
    for (size_t i = 0; i < TEST_COUNT(all); i++) hemi_free(all[i]);
    return 0;
}

static hemi_ckks_encoder *encoder(uint32_t log2_n) {
    hemi_ckks_encoder *e = hemi_ckks_encoder_new(log2_n);
    assert_non_null(e);
    return e;
}

static void fill(uint32_t h, test_rng *rng) {
    for (uint32_t i = 0; i < h; i++) {
        x.re[i] = test_real(rng);
        x.im[i] = test_real(rng);
    }
}

/* 5^i modulo 2n */
static uint32_t power_of_5(uint32_t i, uint32_t n) {
    uint64_t r = 1;
    while (i-- > 0) r = 5 * r % (2 * n);
    return (uint32_t)r;
}

static long double complex zeta_power(uint64_t e, uint32_t n) {
    const long double angle = 3.141592653589793238462643L * (long double)(e % (2 * n)) / (long double)n;
    return cosl(angle) + sinl(angle) * (long double complex)I;
}

/* The value of a at exp(pi i 5^slot / n). */
static long double complex value(const int64_t *a, uint32_t slot, uint32_t n) {
    const uint64_t e = power_of_5(slot, n);
    long double complex sum = 0;
    for (uint32_t k = 0; k < n; k++) sum += (long double)a[k] * zeta_power(e * k, n);
    return sum;
}

/* Six standard deviations of a slot of coefficients that were rounded, and what doubles lose. */
static double allowed(uint32_t n, double scale) { return TEST_SIGMAS * sqrt(n / 12.0) / scale + 0x1p-49; }

static void assert_near(double a, double b, double error, uint32_t n) {
    if (!(fabs(a - b) <= error)) fail_msg("n %u: %.17g, not %.17g: %g more than %g", n, a, b, fabs(a - b), error);
}

static void slots_are_values(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = 2; log2_n <= 6; log2_n++) {
        const uint32_t n = 1u << log2_n, h = n / 2;
        const double scale = 0x1p50;
        hemi_ckks_encoder *e = encoder(log2_n);
        fill(h, &rng);
        assert_true(hemi_ckks_embed(x.a, e, scale, x.re, x.im, x.work));
        hemi_ckks_unembed(x.re2, x.im2, e, scale, x.a, x.work);
        for (uint32_t i = 0; i < h; i++) {
            const long double complex z = value(x.a, i, n) / scale;
            assert_near((double)creall(z), x.re[i], allowed(n, scale), n);
            assert_near((double)cimagl(z), x.im[i], allowed(n, scale), n);
            assert_near((double)creall(z), x.re2[i], 0x1p-49, n);
            assert_near((double)cimagl(z), x.im2[i], 0x1p-49, n);
        }
        /* each coefficient alone, and every coefficient of an embedding by the formula: 2/n Re sum z_i zeta^(-5^i k) */
        for (uint32_t k = 0; k < n; k++) {
            memset(x.b, 0, n * sizeof *x.b);
            x.b[k] = -3;
            hemi_ckks_unembed(x.re2, x.im2, e, 2, x.b, x.work);
            long double complex sum = 0;
            for (uint32_t i = 0; i < h; i++) {
                const long double complex z = value(x.b, i, n) / 2;
                assert_near(x.re2[i], (double)creall(z), 0x1p-50, n);
                assert_near(x.im2[i], (double)cimagl(z), 0x1p-50, n);
                sum += (x.re[i] + x.im[i] * (long double complex)I) * conjl(zeta_power((uint64_t)power_of_5(i, n) * k, n));
            }
            assert_near((double)x.a[k], (double)(creall(sum) * scale / h), 0.5 + 16, n);
        }
        hemi_ckks_encoder_free(e);
    }
    hemi_ckks_encoder_free(NULL);
}

static void embedding_and_back(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = 2; log2_n <= LOG2_N_MAX; log2_n++) {
        const uint32_t n = 1u << log2_n, h = n / 2;
        hemi_ckks_encoder *e = encoder(log2_n);
        static const double scales[] = {0x1p50, 0x1p34, 0x1p40 * 1.2345, 0x1p58};
        for (size_t s = 0; s < TEST_COUNT(scales); s++) {
            fill(h, &rng);
            assert_true(hemi_ckks_embed(x.a, e, scales[s], x.re, x.im, x.work));
            hemi_ckks_unembed(x.re2, x.im2, e, scales[s], x.a, x.work);
            for (uint32_t i = 0; i < h; i++) {
                assert_near(x.re2[i], x.re[i], allowed(n, scales[s]), n);
                assert_near(x.im2[i], x.im[i], allowed(n, scales[s]), n);
            }
            /* without imaginary parts: the same as zeros, and real to rounding */
            assert_true(hemi_ckks_embed(x.a, e, scales[s], x.re, NULL, x.work));
            memset(x.im, 0, h * sizeof *x.im);
            assert_true(hemi_ckks_embed(x.b, e, scales[s], x.re, x.im, x.work));
            assert_memory_equal(x.a, x.b, n * sizeof *x.a);
            hemi_ckks_unembed(x.re2, x.im2, e, scales[s], x.a, x.work);
            for (uint32_t i = 0; i < h; i++) assert_near(x.im2[i], 0, allowed(n, scales[s]), n);
            hemi_ckks_unembed(x.im2, NULL, e, scales[s], x.a, x.work);
            assert_memory_equal(x.re2, x.im2, h * sizeof *x.re2);
        }
        /* a constant is a constant, exactly: the transform of equal numbers rounds to nothing else */
        for (uint32_t i = 0; i < h; i++) x.re[i] = -3;
        assert_true(hemi_ckks_embed(x.a, e, 0x1p40, x.re, NULL, x.work));
        for (uint32_t k = 0; k < n; k++) assert_int_equal(x.a[k], k == 0 ? -3 * (INT64_C(1) << 40) : 0);
        hemi_ckks_encoder_free(e);
    }
}

static void products_of_polynomials_are_products_of_slots(void **state) {
    (void)state;
    enum { LOG2_N = 4, N = 1 << LOG2_N, H = N / 2 };
    test_rng rng = test_rng_new();
    hemi_ckks_encoder *e = encoder(LOG2_N);
    const double scale = 0x1p28;
    double re[2][H], im[2][H];
    for (size_t k = 0; k < 2; k++) {
        fill(H, &rng);
        memcpy(re[k], x.re, sizeof re[k]);
        memcpy(im[k], x.im, sizeof im[k]);
        assert_true(hemi_ckks_embed(k ? x.b : x.a, e, scale, x.re, x.im, x.work));
    }
    memset(x.c, 0, N * sizeof *x.c);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) x.c[(i + j) % N] += i + j < N ? x.a[i] * x.b[j] : -x.a[i] * x.b[j]; /* X^N = -1 */
    hemi_ckks_unembed(x.re2, x.im2, e, scale * scale, x.c, x.work);
    for (size_t i = 0; i < H; i++) {
        assert_near(x.re2[i], re[0][i] * re[1][i] - im[0][i] * im[1][i], 4 * allowed(N, scale), N);
        assert_near(x.im2[i], re[0][i] * im[1][i] + im[0][i] * re[1][i], 4 * allowed(N, scale), N);
    }
    hemi_ckks_encoder_free(e);
}

/* b = a(X^t) */
static void automorphism(uint64_t t, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t k = i * t % (2 * n);
        x.b[k % n] = k < n ? x.a[i] : -x.a[i];
    }
}

static void automorphisms_rotate_and_conjugate(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = 2; log2_n <= 12; log2_n += 2) {
        const uint32_t n = 1u << log2_n, h = n / 2;
        hemi_ckks_encoder *e = encoder(log2_n);
        fill(h, &rng);
        assert_true(hemi_ckks_embed(x.a, e, 0x1p45, x.re, x.im, x.work));
        for (uint32_t r = 1; r < h; r += 1 + r) {
            automorphism(power_of_5(r, n), n);
            hemi_ckks_unembed(x.re2, x.im2, e, 0x1p45, x.b, x.work);
            for (uint32_t i = 0; i < h; i++) {
                assert_near(x.re2[i], x.re[(i + r) % h], allowed(n, 0x1p45), n);
                assert_near(x.im2[i], x.im[(i + r) % h], allowed(n, 0x1p45), n);
            }
        }
        automorphism(hemi_ckks_conjugation(n), n);
        hemi_ckks_unembed(x.re2, x.im2, e, 0x1p45, x.b, x.work);
        for (uint32_t i = 0; i < h; i++) {
            assert_near(x.re2[i], x.re[i], allowed(n, 0x1p45), n);
            assert_near(x.im2[i], -x.im[i], allowed(n, 0x1p45), n);
        }
        hemi_ckks_encoder_free(e);
    }
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = 2; log2_n <= 8; log2_n++) {
        const uint32_t h = 1u << (log2_n - 1);
        static const double bad[] = {NAN, INFINITY, -INFINITY, 1e300, -0x1p40};
        hemi_ckks_encoder *e = encoder(log2_n);
        for (size_t k = 0; k < TEST_COUNT(bad); k++)
            for (int imaginary = 0; imaginary < 2; imaginary++) {
                fill(h, &rng);
                (imaginary ? x.im : x.re)[test_below(&rng, h)] = bad[k];
                assert_false(hemi_ckks_embed(x.a, e, 0x1p40, x.re, x.im, x.work));
            }
        /* at the limit itself, either sign: a constant times 2^62 does not fit, the double below it does */
        for (int sign = -1; sign <= 1; sign += 2) {
            for (uint32_t i = 0; i < h; i++) x.re[i] = sign;
            assert_false(hemi_ckks_embed(x.a, e, 0x1p62, x.re, NULL, x.work));
            assert_true(hemi_ckks_embed(x.a, e, 0x1p62 - 0x1p9, x.re, NULL, x.work));
            assert_int_equal(x.a[0], sign * ((INT64_C(1) << 62) - 512));
        }
        hemi_ckks_encoder_free(e);
    }
}

static void residues_are_canonical(void **state) {
    (void)state;
    static const uint64_t primes[] = {17, 257, 65537, P31, P48, P50};
    const int64_t most = (INT64_C(1) << 62) - 1;
    test_rng rng = test_rng_new();
    const hemi_kernels *k;
    for (size_t t = 0; (k = hemi_kernels_at(t)) != NULL; t++)
        for (size_t pi = 0; pi < TEST_COUNT(primes); pi++) {
            const int64_t p = (int64_t)primes[pi];
            const uint32_t log2_n = pi == 0 ? 3 : pi == 1 ? 7 : 10, n = 1u << log2_n;
            hemi_ring *ring;
            assert_ok(hemi_ring_new(&ring, log2_n, &primes[pi], 1, k, NULL), NULL);
            const int64_t ends[] = {0,    -1,    1,        p,         -p,           p - 1,         1 - p, p + 1, -p - 1,
                                    most, -most, most - 1, -most + 1, most / p * p, -most / p * p, most / p * p - 1};
            for (uint32_t round = 0; round < 4; round++) {
                for (uint32_t i = 0; i < n; i++) {
                    const size_t at = i + (size_t)round * n;
                    x.a[i] = at < TEST_COUNT(ends) ? ends[at] : (int64_t)test_u64(&rng) / 2 >> test_below(&rng, 62);
                    if (x.a[i] > most || x.a[i] < -most) x.a[i] = most;
                    const int64_t rest = x.a[i] % p;
                    x.s[i] = (uint64_t)(rest < 0 ? rest + p : rest);
                }
                hemi_ckks_residues(x.r, x.a, ring->limb, k);
                k->ntt(x.s, ring->limb);
                assert_memory_equal(x.r, x.s, n * sizeof *x.r);
                k->intt(x.r, x.r, ring->limb);
                for (uint32_t i = 0; i < n; i++)
                    assert_int_equal(x.r[i], (uint64_t)((x.a[i] % p + p) % p));
            }
            hemi_ring_free(ring);
        }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(slots_are_values, set_up, tear_down),
    cmocka_unit_test_setup_teardown(embedding_and_back, set_up, tear_down),
    cmocka_unit_test_setup_teardown(products_of_polynomials_are_products_of_slots, set_up, tear_down),
    cmocka_unit_test_setup_teardown(automorphisms_rotate_and_conjugate, set_up, tear_down),
    cmocka_unit_test_setup_teardown(what_does_not_fit_is_refused, set_up, tear_down),
    cmocka_unit_test_setup_teardown(residues_are_canonical, set_up, tear_down),
};

int main(void) { return TEST_RUN("encoder", tests); }
