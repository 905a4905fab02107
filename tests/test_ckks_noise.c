/* The noise of operations on ciphertexts, measured against the formulas of ckks/noise.h: precision predicted and measured for each. */
#include "ckks_machine.h"

#include <complex.h>

#include "ckks/chebyshev.h"
#include "ckks/noise.h"

#define KEYS  4
#define SLACK 0.05 /* of a standard deviation: what is fixed by so few keys */

/* Sets, and rows made up (log2_n, digit_limbs) whose digits outweigh the special primes. */
static const struct {
    const char *set;
    uint32_t log2_n, digit_limbs;
} rows[] = {{"C8192", 0, 0}, {"C16384", 0, 0}, {"C16384D", 0, 0}, {NULL, 11, 3}, {NULL, 10, 3}, {"C32768", 0, 0}, {"C65536", 0, 0}};

static size_t row_count(void) { return test_quick() ? 1 : test_long() ? TEST_COUNT(rows) : TEST_COUNT(rows) - 2; }

/* A new secret, with keys of products and of the rotation by 1. */
static void open_row(ckks_machine *m, size_t row) {
    const hemi_params *params = rows[row].set ? hemi_params_by_name(rows[row].set) : NULL;
    const int32_t by[] = {1};
    uint32_t t[3];
    *m = (ckks_machine){0};
    if (!params) m->p.own = test_ckks_params(rows[row].log2_n, rows[row].digit_limbs);
    const size_t count = ckks_key_numbers(t, params ? params : &m->p.own, by, 1);
    ckks_machine_open(m, params, 2, (params ? params : &m->p.own)->chain, t, count);
}

static void check(const moments *got, const ckks_machine *m, double variance, double slack, const char *what) {
    char text[64];
    snprintf(text, sizeof text, "%s: %s", m->p.ctx->params->name, what);
    const double ratio = moments_check(got, variance, slack, text);
    assert_true(fabs(ratio - 1) < 0.1 + slack);
}

/* ---- coefficients */

/* The phase of r less want (NTT form), modulo q_0. */
static void add_coefficients(moments *got, const ckks_machine *m, const hemi_ckks_cipher *r, const uint64_t *want) {
    const size_t n = m->p.ctx->n;
    const hemi_limb *l = hemi_ckks_limb(m->p.ctx, 0);
    uint64_t *phase = hemi_alloc(n, sizeof *phase);
    assert_non_null(phase);
    ckks_phase(phase, m, r, 0);
    m->p.ctx->k->sub(phase, phase, want, n, &l->m);
    m->p.ctx->k->intt(phase, phase, l);
    for (size_t i = 0; i < n; i++) moments_add(got, (double)hemi_mod_centre(phase[i], &l->m));
    hemi_free(phase);
}

static void gather_keyswitch(moments *got, const ckks_machine *m, bool product, uint32_t limbs, test_rng *rng) {
    const hemi_ckks_context *ctx = m->p.ctx;
    const hemi_limb *l = hemi_ckks_limb(ctx, 0);
    hemi_ckks_cipher a = ckks_uniform(m, limbs, rng), b = ckks_uniform(m, limbs, rng);
    uint64_t *want = hemi_alloc(2 * (size_t)ctx->n, sizeof *want), *other = want + ctx->n;
    assert_non_null(want);
    ckks_phase(other, m, &a, 0);
    if (product) {
        ckks_phase(want, m, &b, 0);
        ctx->k->mul(want, want, other, ctx->n, &l->m);
        ASSERT_OK(hemi_ckks_mul(m->w, &a, &a, &b, m->keys, ERR));
    } else {
        const uint32_t t = hemi_ckks_rotation(ctx, 1);
        ctx->k->intt(other, other, l);
        hemi_ring_automorphism(want, other, t, l);
        ctx->k->ntt(want, l);
        ASSERT_OK(hemi_ckks_automorphism(m->w, &a, &a, t, m->keys, ERR));
    }
    add_coefficients(got, m, &a, want);
    hemi_free(want);
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&b);
}

static void key_switching(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t row = 0; row < row_count(); row++) {
        moments all[3][2] = {0};
        ckks_machine m;
        uint32_t limbs[3];
        for (int key = 0; key < KEYS; key++) {
            open_row(&m, row);
            limbs[0] = m.p.ctx->chain, limbs[1] = m.p.ctx->chain / 2, limbs[2] = 1;
            for (size_t i = 0; i < 3; i++)
                for (int product = 0; product < 2; product++)
                    for (uint32_t done = 0; done < 16384; done += m.p.ctx->n) gather_keyswitch(&all[i][product], &m, product, limbs[i], &rng);
            if (key + 1 < KEYS) ckks_machine_close(&m);
        }
        for (size_t i = 0; i < 3; i++)
            for (int product = 0; product < 2; product++)
                check(&all[i][product], &m, hemi_ckks_noise_keyswitch(m.p.ctx->params, limbs[i]), SLACK,
                      product ? "relinearisation" : i == 0 ? "rotation, all limbs" : i == 1 ? "rotation, half of them" : "rotation, one limb");
        ckks_machine_close(&m);
    }
}

/* Where a digit weighs less than the special primes, the rounding is what is left; where it does not, it is the digits' share. */
static void shares_of_key_switching(void **state) {
    (void)state;
    const hemi_params light = test_ckks_params(11, 1), heavy = test_ckks_params(11, 3);
    for (uint32_t limbs = 1; limbs <= TEST_CKKS_CHAIN; limbs++) {
        assert_true(hemi_ckks_noise_keyswitch(&light, limbs) / hemi_ckks_noise_rescaling(&light) - 1 < 1e-6);
        assert_true((hemi_ckks_noise_keyswitch(&heavy, limbs) > 1e9) == (limbs > 3));
        assert_true(limbs == 1 || hemi_ckks_noise_keyswitch(&heavy, limbs) >= hemi_ckks_noise_keyswitch(&heavy, limbs - 1));
    }
    const double n = 2048, q = 0x1p114, p = 0x1p80; /* nearly */
    assert_true(fabs(hemi_ckks_noise_keyswitch(&heavy, 4) / (n * (q / p) * (q / p) / 12 * 10.5) - 1) < 0.01);
}

/* The phase of a - q r, over q; two limbs have room for it. */
static void add_rests(moments *got, const ckks_machine *m, const hemi_ckks_cipher *a, hemi_ckks_cipher *r) {
    const double q = (double)hemi_ckks_limb(m->p.ctx, a->limbs - 1)->m.p;
    long double *phase = hemi_alloc(m->p.ctx->n, sizeof *phase);
    assert_non_null(phase);
    hemi_ckks_mul_constant(m->w, r, r, q, 1);
    hemi_ckks_sub(m->w, r, a, r);
    r->limbs = 2;
    ckks_phases(phase, m, r);
    for (size_t i = 0; i < m->p.ctx->n; i++) moments_add(got, (double)phase[i] / q);
    hemi_free(phase);
}

static void rescaling(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t row = 0; row < row_count(); row++) {
        moments got = {0};
        ckks_machine m;
        for (int key = 0; key < KEYS; key++) {
            open_row(&m, row);
            hemi_ckks_cipher a = ckks_uniform(&m, m.p.ctx->chain, &rng), r = ckks_cipher(&m, m.p.ctx->chain);
            hemi_ckks_rescale(m.w, &r, &a);
            add_rests(&got, &m, &a, &r);
            hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&r);
            if (key + 1 < KEYS) ckks_machine_close(&m);
        }
        check(&got, &m, hemi_ckks_noise_rescaling(m.p.ctx->params), SLACK, "rescaling");
        ckks_machine_close(&m);
    }
}

/* What the server adds to a result before it leaves: zero under the public key, a fresh one every time. */
static void encryptions_of_zero(void **state) {
    (void)state;
    for (size_t row = 0; row < row_count(); row++) {
        moments got = {0};
        ckks_machine m;
        for (int key = 0; key < KEYS; key++) {
            open_row(&m, row);
            const size_t n = m.p.ctx->n;
            hemi_ckks_cipher z = ckks_cipher(&m, 1), before = ckks_cipher(&m, 1);
            uint64_t *scratch = hemi_alloc(2 * n, sizeof *scratch), *zero = scratch + n;
            hemi_stream random;
            hemi_stream_init_fresh(&random);
            for (int round = 0; round < 2; round++) {
                memset(z.c0, 0, 2 * n * sizeof *z.c0);
                hemi_ckks_rerandomise(&z, m.keys, scratch, &random);
                assert_memory_equal(scratch, zero, n * sizeof *scratch); /* wiped */
                add_coefficients(&got, &m, &z, zero);
                size_t same = 0;
                for (size_t i = 0; i < 2 * n; i++) same += z.c0[i] == before.c0[i];
                assert_true(same < 3);
                memcpy(before.c0, z.c0, 2 * n * sizeof *z.c0);
            }
            hemi_stream_wipe(&random);
            hemi_free(scratch);
            hemi_ckks_cipher_clear(&z), hemi_ckks_cipher_clear(&before);
            if (key + 1 < KEYS) ckks_machine_close(&m);
        }
        check(&got, &m, hemi_ckks_noise_zero(m.p.ctx->params), SLACK, "zero under the public key");
        ckks_machine_close(&m);
    }
}

/* ---- slots */

/* Numbers and their mean square. */
typedef struct slots {
    double *re, *im, square;
} slots;

static slots slots_new(const ckks_machine *m) {
    const slots z = {hemi_alloc(m->p.ctx->slots, sizeof *z.re), hemi_alloc(m->p.ctx->slots, sizeof *z.im), 0};
    assert_true(z.re && z.im);
    return z;
}

static slots slots_random(const ckks_machine *m, double size, test_rng *rng) {
    slots z = slots_new(m);
    for (uint32_t i = 0; i < m->p.ctx->slots; i++) {
        z.re[i] = size * test_real(rng), z.im[i] = size * test_real(rng);
        z.square += (z.re[i] * z.re[i] + z.im[i] * z.im[i]) / m->p.ctx->slots;
    }
    return z;
}

static void slots_free(slots z) {
    hemi_free(z.re);
    hemi_free(z.im);
}

static void add_slots(moments *got, const ckks_machine *m, const long double *phase, double scale, const slots *x, const slots *by) {
    double *re = hemi_alloc(2 * m->p.ctx->slots, sizeof *re), *im = re + m->p.ctx->slots;
    assert_non_null(re);
    ckks_slots_of(re, im, m, phase, scale);
    for (uint32_t i = 0; i < m->p.ctx->slots; i++) {
        const double complex want = (x->re[i] + x->im[i] * (double complex)I) * (by ? by->re[i] + by->im[i] * (double complex)I : 1);
        moments_add(got, re[i] - creal(want));
        moments_add(got, im[i] - cimag(want));
    }
    hemi_free(re);
}

static void add_cipher(moments *got, const ckks_machine *m, const hemi_ckks_cipher *c, const slots *x, const slots *by) {
    long double *phase = hemi_alloc(m->p.ctx->n, sizeof *phase);
    assert_non_null(phase);
    ckks_phases(phase, m, c);
    add_slots(got, m, phase, c->scale, x, by);
    hemi_free(phase);
}

/* The encoding alone, at a scale small enough for doubles to see it. */
static void add_encoding(moments *got, const ckks_machine *m, double scale, test_rng *rng) {
    const size_t n = m->p.ctx->n;
    const slots x = slots_random(m, 1, rng);
    int64_t *c = hemi_alloc(n, sizeof *c);
    long double *phase = hemi_alloc(n, sizeof *phase);
    double *work = hemi_alloc(n, sizeof *work);
    assert_true(hemi_ckks_embed(c, m->p.ctx->encoder, scale, x.re, x.im, work));
    for (size_t i = 0; i < n; i++) phase[i] = c[i];
    add_slots(got, m, phase, scale, &x, NULL);
    hemi_free(c), hemi_free(phase), hemi_free(work);
    slots_free(x);
}

/* From fresh ciphertexts to rescaled products, with the noise of every step. */
enum { ENCODING, FRESH, PLAIN, PLAIN_RESCALED, PRODUCT, PRODUCT_RESCALED, SUM, STEPS };

typedef struct steps {
    moments got[STEPS];
    double variance[STEPS]; /* summed over keys, whose slots differ in size */
} steps;

static void by_plaintext(steps *s, const ckks_machine *m, const hemi_ckks_cipher *a, double v, const slots *x, const slots *y, double scale, bool rescales) {
    const hemi_params *p = m->p.ctx->params;
    const int step = rescales ? PLAIN_RESCALED : PLAIN;
    hemi_ckks_cipher r = ckks_cipher(m, a->limbs);
    uint64_t *pt = ckks_plaintext(m, y->re, y->im, scale, a->limbs);
    hemi_ckks_mul_plain(m->w, &r, a, pt, scale);
    s->variance[step] += hemi_ckks_noise_product(x->square, v, y->square, hemi_ckks_noise_slots(p, HEMI_CKKS_NOISE_ENCODING, scale));
    if (rescales) {
        hemi_ckks_rescale(m->w, &r, &r);
        s->variance[step] += hemi_ckks_noise_slots(p, hemi_ckks_noise_rescaling(p), r.scale);
    }
    add_cipher(&s->got[step], m, &r, x, y);
    hemi_ckks_cipher_clear(&r);
    hemi_free(pt);
}

static void by_ciphertext(steps *s, const ckks_machine *m, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b, double v, const slots *x, const slots *y) {
    const hemi_params *p = m->p.ctx->params;
    hemi_ckks_cipher r = ckks_cipher(m, a->limbs);
    ASSERT_OK(hemi_ckks_mul(m->w, &r, a, b, m->keys, ERR));
    const double sum = hemi_ckks_noise_product(x->square, v, y->square, v) + hemi_ckks_noise_slots(p, hemi_ckks_noise_keyswitch(p, a->limbs), r.scale);
    s->variance[PRODUCT] += sum;
    add_cipher(&s->got[PRODUCT], m, &r, x, y);
    hemi_ckks_rescale(m->w, &r, &r);
    s->variance[PRODUCT_RESCALED] += sum + hemi_ckks_noise_slots(p, hemi_ckks_noise_rescaling(p), r.scale);
    add_cipher(&s->got[PRODUCT_RESCALED], m, &r, x, y);
    hemi_ckks_cipher_clear(&r);
}

/* a + rot(a): different slots have different errors. */
static void with_its_rotation(steps *s, const ckks_machine *m, const hemi_ckks_cipher *a, double v, const slots *x) {
    const hemi_params *p = m->p.ctx->params;
    const uint32_t n_slots = m->p.ctx->slots;
    const slots sum = slots_new(m);
    hemi_ckks_cipher r = ckks_cipher(m, a->limbs);
    ASSERT_OK(hemi_ckks_automorphism(m->w, &r, a, hemi_ckks_rotation(m->p.ctx, 1), m->keys, ERR));
    hemi_ckks_add(m->w, &r, &r, a);
    for (uint32_t i = 0; i < n_slots; i++) sum.re[i] = x->re[i] + x->re[(i + 1) % n_slots], sum.im[i] = x->im[i] + x->im[(i + 1) % n_slots];
    s->variance[SUM] += 2 * v + hemi_ckks_noise_slots(p, hemi_ckks_noise_keyswitch(p, a->limbs), r.scale);
    add_cipher(&s->got[SUM], m, &r, &sum, NULL);
    hemi_ckks_cipher_clear(&r);
    slots_free(sum);
}

static void all_steps(steps *s, const ckks_machine *m, test_rng *rng) {
    const hemi_params *p = m->p.ctx->params;
    const uint32_t limbs = m->p.ctx->chain < 6 ? m->p.ctx->chain : 6;
    const double scale = ldexp(1, (int)p->scale_bits), coarse = ldexp(1, 12), last = (double)hemi_ckks_limb(m->p.ctx, limbs - 1)->m.p;
    const slots x = slots_random(m, 1, rng), y = slots_random(m, 3, rng);
    hemi_ckks_cipher a = ckks_encrypt(m, x.re, x.im, scale, limbs), b = ckks_encrypt(m, y.re, y.im, scale, limbs);
    /* imaginary parts were encoded apart */
    const double v = hemi_ckks_noise_slots(p, hemi_ckks_noise_fresh() + HEMI_CKKS_NOISE_ENCODING, scale);
    add_encoding(&s->got[ENCODING], m, coarse, rng);
    s->variance[ENCODING] += hemi_ckks_noise_slots(p, HEMI_CKKS_NOISE_ENCODING, coarse);
    add_cipher(&s->got[FRESH], m, &a, &x, NULL);
    s->variance[FRESH] += v;
    by_plaintext(s, m, &a, v, &x, &y, coarse, false);
    by_plaintext(s, m, &a, v, &x, &y, last, true);
    by_ciphertext(s, m, &a, &b, v, &x, &y);
    with_its_rotation(s, m, &a, v, &x);
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&b);
    slots_free(x), slots_free(y);
}

static void arithmetic_of_slots(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static const char *const what[] = {"encoding", "fresh", "times a plaintext", "that, rescaled", "product", "that, rescaled", "sum with its rotation"};
    for (size_t row = 0; row < row_count(); row++) {
        steps s = {0};
        ckks_machine m;
        for (int key = 0; key < KEYS; key++) {
            open_row(&m, row);
            all_steps(&s, &m, &rng);
            if (key + 1 < KEYS) ckks_machine_close(&m);
        }
        for (size_t i = 0; i < STEPS; i++) check(&s.got[i], &m, s.variance[i] / KEYS, SLACK, what[i]);
        ckks_machine_close(&m);
    }
}

/* ---- polynomials: coefficients that decrease, as those of functions do; or those of a sign function. What u had is multiplied by p'(u). */

static void add_polynomial(moments *got, double *variance, const ckks_machine *m, const double *c, uint32_t degree, test_rng *rng) {
    const hemi_params *p = m->p.ctx->params;
    const uint32_t levels = hemi_ckks_chebyshev_levels(degree), n_slots = m->p.ctx->slots;
    const double scale = ldexp(1, (int)p->scale_bits), rescaling = hemi_ckks_noise_slots(p, hemi_ckks_noise_rescaling(p), scale);
    const slots u = slots_random(m, 1, rng), want = slots_new(m);
    double sum = 0;
    for (uint32_t i = 0; i < n_slots; i++) {
        const double t = acos(u.re[i]);
        double slope = 0;
        for (uint32_t k = 0; k <= degree; k++) {
            want.re[i] += c[k] * cos(k * t);
            slope += c[k] * k * sin(k * t) / sin(t);
        }
        sum += slope * slope * hemi_ckks_noise_slots(p, hemi_ckks_noise_fresh(), scale);
        if (i % 16 == 0) sum += 16 * hemi_ckks_chebyshev_noise(c, degree, levels, u.re[i], rescaling);
    }
    *variance = sum / n_slots;
    hemi_ckks_cipher x = ckks_encrypt(m, u.re, NULL, scale, levels + 1), r = ckks_cipher(m, levels + 1);
    ASSERT_OK(hemi_ckks_chebyshev(m->w, &r, &x, c, degree, 1, scale, m->keys, ERR));
    add_cipher(got, m, &r, &want, NULL);
    hemi_ckks_cipher_clear(&x), hemi_ckks_cipher_clear(&r);
    slots_free(u), slots_free(want);
}

static void polynomials(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const uint32_t degrees[] = {1, 2, 3, 5, 7, 8, 11, 15, 31, 63};
    ckks_machine m;
    open_row(&m, 1);
    for (int sign = 0; sign < 2; sign++)
        for (size_t i = 0; i < TEST_COUNT(degrees); i++) {
            double c[64] = {0}, variance;
            moments got = {0};
            char what[32];
            for (uint32_t k = 0; k <= degrees[i]; k++) c[k] = sign ? (k % 2 ? (k % 4 == 1 ? 0.9 : -0.9) / k : 0) : test_normal(&rng) / (1 + k * k);
            if (sign && degrees[i] % 2 == 0) continue;
            add_polynomial(&got, &variance, &m, c, degrees[i], &rng);
            snprintf(what, sizeof what, "%s, degree %u", sign ? "sign" : "polynomial", degrees[i]);
            check(&got, &m, variance, degrees[i] < 16 ? 2 * SLACK : 0.3, what); /* powers share errors: steep functions of high degree are off by a fifth */
        }
    ckks_machine_close(&m);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_switching),
        cmocka_unit_test(shares_of_key_switching),
        cmocka_unit_test(rescaling),
        cmocka_unit_test(encryptions_of_zero),
        cmocka_unit_test(arithmetic_of_slots),
        cmocka_unit_test(polynomials),
    };
    return TEST_RUN("levelled noise", tests);
}
