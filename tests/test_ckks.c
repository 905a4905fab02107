/* Operations on ciphertexts: exactly, by what they are modulo each prime, on ciphertexts of nothing in particular in small rings; and as
 * arithmetic of slots, in small rings and in real sets. The same bits by every table of kernels and by any number of threads. */
#include "ckks_machine.h"

#include <complex.h>

#include "ckks/chebyshev.h"

/* Rings for what is exact. Keys of digits of 3 primes weigh more than the special primes do: errors of 2^20 and more. */
static const struct {
    uint32_t log2_n, digit_limbs;
} rings[] = {{3, 1}, {3, 2}, {4, 1}, {4, 2}, {5, 2}, {6, 1}, {6, 2}};

static void open_ring(ckks_machine *m, size_t ring, int threads, uint32_t limbs) {
    const int32_t by[] = {1, -1, 2, -2, 3, 4, -4, 16, -16};
    uint32_t t[CKKS_KEYS_MAX];
    m->p.own = test_ckks_params(rings[ring].log2_n, rings[ring].digit_limbs);
    const size_t count = ckks_key_numbers(t, &m->p.own, by, TEST_COUNT(by));
    ckks_machine_open(m, NULL, threads, limbs, t, count);
}

static const hemi_modulus *modulus(const ckks_machine *m, uint32_t limb) { return &hemi_ckks_limb(m->p.ctx, limb)->m; }

/* ---- sums, constants, plaintexts: slot by slot, both components */

enum { ADD, SUB, MUL_CONSTANT, MUL_CONSTANT_ADD, ADD_CONSTANT, MUL_PLAIN, ADD_PLAIN, OPERATIONS };

/* What becomes of residues r, a, b and the plaintext's p; c: the rounded constant. */
static uint64_t expected(int operation, bool first, uint64_t r, uint64_t a, uint64_t b, uint64_t pt, int64_t c, const hemi_modulus *q) {
    const uint64_t s = hemi_mod_from_signed(c, q);
    switch (operation) {
    case ADD: return hemi_mod_add(a, b, q);
    case SUB: return hemi_mod_sub(a, b, q);
    case MUL_CONSTANT: return hemi_mod_mul(a, s, q);
    case MUL_CONSTANT_ADD: return hemi_mod_add(r, hemi_mod_mul(a, s, q), q);
    case ADD_CONSTANT: return first ? hemi_mod_add(r, s, q) : r;
    case MUL_PLAIN: return hemi_mod_mul(a, pt, q);
    default: return first ? hemi_mod_add(r, pt, q) : r;
    }
}

static void run(int operation, const ckks_machine *m, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b,
                const uint64_t *pt, double constant, double scale) {
    switch (operation) {
    case ADD: hemi_ckks_add(m->w, r, a, b); return;
    case SUB: hemi_ckks_sub(m->w, r, a, b); return;
    case MUL_CONSTANT: hemi_ckks_mul_constant(m->w, r, a, constant, scale); return;
    case MUL_CONSTANT_ADD: hemi_ckks_mul_constant_add(m->w, r, a, constant, scale); return;
    case ADD_CONSTANT: hemi_ckks_add_constant(m->w, r, constant); return;
    case MUL_PLAIN: hemi_ckks_mul_plain(m->w, r, a, pt, scale); return;
    default: hemi_ckks_add_plain(m->w, r, pt); return;
    }
}

/* way 0: into a third one; 1: r is a; 2: r is b. */
static void check_limbwise(const ckks_machine *m, int operation, int way, uint32_t limbs, uint32_t b_limbs, double constant, double scale, test_rng *rng) {
    const size_t n = m->p.ctx->n, most = TEST_CKKS_CHAIN * n;
    hemi_ckks_cipher a = ckks_uniform(m, limbs, rng), b = ckks_uniform(m, b_limbs, rng), r = ckks_uniform(m, TEST_CKKS_CHAIN, rng);
    uint64_t *pt = hemi_alloc(most, sizeof *pt);
    assert_non_null(pt);
    for (uint32_t i = 0; i < TEST_CKKS_CHAIN; i++) test_residues(pt + i * n, n, modulus(m, i)->p, rng);
    hemi_ckks_cipher *to = way == 0 ? &r : way == 1 ? &a : &b;
    if (operation >= MUL_CONSTANT && way == 0) r.limbs = limbs;
    if (operation == ADD_CONSTANT) to->scale = scale;
    const hemi_ckks_cipher a_was = ckks_copy(m, &a), b_was = ckks_copy(m, &b), r_was = ckks_copy(m, to);
    const uint32_t count = operation <= SUB && b_limbs < limbs ? b_limbs : limbs;
    run(operation, m, to, &a, &b, pt, constant, scale);
    assert_int_equal(to->limbs, count);
    if (operation != MUL_CONSTANT_ADD)
        assert_true(to->scale == (operation == MUL_CONSTANT || operation == MUL_PLAIN || operation == ADD_CONSTANT ? scale : 1));
    for (uint32_t i = 0; i < count; i++)
        for (size_t j = i * n; j < (i + 1) * n; j++) {
            const int64_t c = llrint(constant * scale);
            assert_int_equal(to->c0[j], expected(operation, true, r_was.c0[j], a_was.c0[j], b_was.c0[j], pt[j], c, modulus(m, i)));
            assert_int_equal(to->c1[j], expected(operation, false, r_was.c1[j], a_was.c1[j], b_was.c1[j], pt[j], c, modulus(m, i)));
        }
    hemi_ckks_cipher *all[] = {&a, &b, &r, (hemi_ckks_cipher *)(uintptr_t)&a_was, (hemi_ckks_cipher *)(uintptr_t)&b_was,
                               (hemi_ckks_cipher *)(uintptr_t)&r_was};
    for (size_t i = 0; i < TEST_COUNT(all); i++) hemi_ckks_cipher_clear(all[i]);
    hemi_free(pt);
}

static void sums_constants_and_plaintexts(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const double constants[][2] = {{0, 1}, {1, 1}, {-1, 1}, {0.4, 1}, {2.5, 1}, {-0.7, 0x1p38}, {1, 0x1p61}, {-1.9, 0x1p61}, {3e-9, 0x1.3p40}};
    for (size_t ring = 0; ring < TEST_COUNT(rings); ring += 2) {
        ckks_machine m = {0};
        open_ring(&m, ring, 1 + (ring == 3), 1);
        for (uint32_t limbs = 1; limbs <= TEST_CKKS_CHAIN; limbs += 2)
            for (int operation = 0; operation < OPERATIONS; operation++)
                for (int way = 0; way < (operation <= SUB ? 3 : 2); way++)
                    for (size_t i = 0; i < TEST_COUNT(constants); i++)
                        check_limbwise(&m, operation, way, limbs, operation <= SUB ? 1 + (uint32_t)i % TEST_CKKS_CHAIN : limbs, constants[i][0],
                                       constants[i][1], &rng);
        ckks_machine_close(&m);
    }
}

/* ---- rescaling: (a - [a]) / q, [a] centred modulo the last prime, coefficient by coefficient */

static void rescaling(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t ring = 0; ring < TEST_COUNT(rings); ring++) {
        ckks_machine m = {0};
        open_ring(&m, ring, 1 + (ring == 3), 1);
        const size_t n = m.p.ctx->n;
        for (uint32_t limbs = 2; limbs <= TEST_CKKS_CHAIN; limbs++)
            for (int in_place = 0; in_place < 2; in_place++) {
                hemi_ckks_cipher a = ckks_uniform(&m, limbs, &rng), was = ckks_copy(&m, &a), r = ckks_cipher(&m, limbs);
                hemi_ckks_cipher *to = in_place ? &a : &r;
                const hemi_limb *last = hemi_ckks_limb(m.p.ctx, limbs - 1);
                was.scale = a.scale = 0x1.5p80;
                hemi_ckks_rescale(m.w, to, &a);
                assert_true(to->limbs == limbs - 1 && to->scale == was.scale / (double)last->m.p);
                for (size_t half = 0; half < 2; half++) {
                    uint64_t *from = half ? was.c1 : was.c0, *rest = from + (limbs - 1) * n, *result = half ? to->c1 : to->c0;
                    m.p.ctx->k->intt(rest, rest, last);
                    for (uint32_t i = 0; i + 1 < limbs; i++) {
                        const hemi_limb *l = hemi_ckks_limb(m.p.ctx, i);
                        m.p.ctx->k->intt(from + i * n, from + i * n, l);
                        m.p.ctx->k->intt(result + i * n, result + i * n, l);
                        for (size_t j = 0; j < n; j++) {
                            const uint64_t times = hemi_mod_mul(result[i * n + j], last->m.p % l->m.p, &l->m);
                            const uint64_t less = hemi_mod_from_signed(hemi_mod_centre(rest[j], &last->m), &l->m);
                            assert_int_equal(hemi_mod_add(times, less, &l->m), from[i * n + j]);
                        }
                    }
                }
                hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&was), hemi_ckks_cipher_clear(&r);
            }
        ckks_machine_close(&m);
    }
}

/* ---- key switching: up to a small error, the same integers modulo every prime */

/* The phase of r less `want` (NTT form, limb by limb). A rounding to multiples of P (or of the last prime) adds up to 1/2 and 1/2 for each coefficient
 * of s; the keys' errors, 21 at most, times digits, less than one, where digits weigh less than P. */
static void check_rounded(const ckks_machine *m, const hemi_ckks_cipher *r, const uint64_t *want, int64_t roundings) {
    const hemi_ckks_context *ctx = m->p.ctx;
    const size_t n = ctx->n;
    uint64_t *phase = hemi_alloc(2 * n, sizeof *phase);
    int64_t *first = (int64_t *)(phase + n);
    assert_non_null(phase);
    for (uint32_t i = 0; i < r->limbs; i++) {
        ckks_phase(phase, m, r, i);
        ctx->k->sub(phase, phase, want + i * n, n, modulus(m, i));
        ctx->k->intt(phase, phase, hemi_ckks_limb(ctx, i));
        for (size_t j = 0; j < n; j++) {
            const int64_t e = hemi_mod_centre(phase[j], modulus(m, i));
            if (i == 0) first[j] = e;
            assert_true(e == first[j] && 2 * llabs(e) <= roundings * ((int64_t)n + 3));
        }
    }
    hemi_free(phase);
}

static void check_switched(const ckks_machine *m, const hemi_ckks_cipher *r, const uint64_t *want) { check_rounded(m, r, want, 1); }

static void check_product(const ckks_machine *m, uint32_t a_limbs, uint32_t b_limbs, test_rng *rng) {
    const size_t n = m->p.ctx->n;
    hemi_ckks_cipher a = ckks_uniform(m, a_limbs, rng), b = ckks_uniform(m, b_limbs, rng), r[4] = {ckks_cipher(m, TEST_CKKS_CHAIN)};
    const uint32_t limbs = a_limbs < b_limbs ? a_limbs : b_limbs;
    uint64_t *want = hemi_alloc((limbs + 1) * n, sizeof *want), *other = want + limbs * n;
    assert_non_null(want);
    a.scale = 0x1.8p38;
    b.scale = 0x1.4p37;
    for (uint32_t i = 0; i < limbs; i++) {
        ckks_phase(want + i * n, m, &a, i);
        ckks_phase(other, m, &b, i);
        m->p.ctx->k->mul(want + i * n, want + i * n, other, n, modulus(m, i));
    }
    ASSERT_OK(hemi_ckks_mul(m->w, &r[0], &a, &b, m->keys, ERR));
    assert_true(r[0].limbs == limbs && r[0].scale == 0x1.8p38 * 0x1.4p37);
    check_switched(m, &r[0], want);
    r[1] = ckks_copy(m, &a), r[2] = ckks_copy(m, &b), r[3] = ckks_copy(m, &a);
    ASSERT_OK(hemi_ckks_mul(m->w, &r[1], &r[1], &b, m->keys, ERR));
    ASSERT_OK(hemi_ckks_mul(m->w, &r[2], &a, &r[2], m->keys, ERR));
    ckks_assert_equal(m, &r[1], &r[0]);
    ckks_assert_equal(m, &r[2], &r[0]);
    ASSERT_OK(hemi_ckks_mul(m->w, &r[3], &r[3], &r[3], m->keys, ERR)); /* a square */
    for (uint32_t i = 0; i < limbs; i++) {
        ckks_phase(want + i * n, m, &a, i);
        m->p.ctx->k->mul(want + i * n, want + i * n, want + i * n, n, modulus(m, i));
    }
    r[3].limbs = limbs;
    check_switched(m, &r[3], want);
    for (size_t i = 0; i < 4; i++) hemi_ckks_cipher_clear(&r[i]);
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&b);
    hemi_free(want);
}

/* r against what takes its steps one by one. */
static void check_alike(const ckks_machine *m, const hemi_ckks_cipher *r, const hemi_ckks_cipher *steps) {
    const size_t n = m->p.ctx->n;
    uint64_t *want = hemi_alloc(steps->limbs * n, sizeof *want);
    assert_non_null(want);
    assert_int_equal(r->limbs, steps->limbs);
    assert_true(fabs(r->scale / steps->scale - 1) < 1e-15);
    for (uint32_t i = 0; i < r->limbs; i++) ckks_phase(want + i * n, m, steps, i);
    check_rounded(m, r, want, 3);
    hemi_free(want);
}

/* Sums of products and multiples, rounded once. terms: bits of a b, 2 a c, a a, -3 times b, which has another scale. */
static void check_sum(const ckks_machine *m, uint32_t limbs, unsigned terms, test_rng *rng) {
    hemi_ckks_cipher a = ckks_uniform(m, limbs, rng), b = ckks_uniform(m, TEST_CKKS_CHAIN, rng), c = ckks_uniform(m, limbs, rng);
    hemi_ckks_cipher r = ckks_cipher(m, limbs), steps = ckks_cipher(m, limbs), one = ckks_cipher(m, limbs);
    const hemi_ckks_cipher *const by[] = {&b, &c, &a};
    b.limbs = limbs;
    b.scale = 0x1p34;
    for (unsigned i = 0; i < 3; i++) {
        if (!(terms >> i & 1)) continue;
        ASSERT_OK(hemi_ckks_mul(m->w, &one, &a, by[i], m->keys, ERR));
        for (unsigned times = 0; times < (i == 1 ? 2 : 1); times++) hemi_ckks_add(m->w, &steps, &steps, &one);
    }
    if (terms >> 3 & 1) hemi_ckks_mul_constant_add(m->w, &steps, &b, -3, 0x1p36);
    steps.scale = 0x1p70;
    hemi_ckks_rescale(m->w, &steps, &steps);
    hemi_ckks_sum sum = hemi_ckks_sum_begin(m->w, limbs, 0x1p70);
    for (unsigned order = 0; order < 4; order++) {
        const unsigned i = (order + terms) % 4;
        if (!(terms >> i & 1)) continue;
        if (i == 3)
            hemi_ckks_sum_multiple(&sum, &b, -3);
        else
            hemi_ckks_sum_product(&sum, &a, by[i], i == 1);
    }
    ASSERT_OK(hemi_ckks_sum_end(&sum, &r, m->keys, ERR));
    check_alike(m, &r, &steps);
    if (terms == 1) {
        a.scale = 0x1p36;
        ASSERT_OK(hemi_ckks_mul_rescale(m->w, &c, &a, &b, m->keys, ERR));
        ckks_assert_equal(m, &c, &r);
        ASSERT_OK(hemi_ckks_mul_rescale(m->w, &a, &a, &b, m->keys, ERR)); /* in place */
        ckks_assert_equal(m, &a, &r);
    }
    hemi_ckks_cipher *all[] = {&a, &b, &c, &r, &steps, &one};
    for (size_t i = 0; i < TEST_COUNT(all); i++) hemi_ckks_cipher_clear(all[i]);
}

/* Every automorphism there is a key for: one by one, in place, all from the same digits. */
static void check_automorphisms(const ckks_machine *m, uint32_t limbs, test_rng *rng) {
    const hemi_ckks_context *ctx = m->p.ctx;
    const size_t n = ctx->n, count = m->count;
    hemi_ckks_cipher a = ckks_uniform(m, limbs, rng), one = ckks_cipher(m, limbs), many[CKKS_KEYS_MAX];
    uint32_t t[CKKS_KEYS_MAX];
    uint64_t *want = hemi_alloc((limbs + 1) * n, sizeof *want), *phase = want + limbs * n;
    assert_non_null(want);
    a.scale = 0x1.8p38;
    for (size_t i = 0; i < count; i++) { /* 1, the product's number, stands for no automorphism; not in order */
        t[i] = m->t[(7 * i + 3) % count];
        many[i] = ckks_cipher(m, TEST_CKKS_CHAIN);
    }
    assert_true(count % 7 != 0 && m->t[0] == 1);
    ASSERT_OK(hemi_ckks_automorphisms(m->w, many, &a, t, count, m->keys, ERR));
    for (size_t i = 0; i < count; i++) {
        hemi_ckks_cipher in_place = ckks_copy(m, &a);
        ASSERT_OK(hemi_ckks_automorphism(m->w, &one, &a, t[i], m->keys, ERR));
        ASSERT_OK(hemi_ckks_automorphism(m->w, &in_place, &in_place, t[i], m->keys, ERR));
        assert_true(one.limbs == limbs && one.scale == a.scale);
        ckks_assert_equal(m, &one, &many[i]);
        ckks_assert_equal(m, &one, &in_place);
        if (t[i] == 1) ckks_assert_equal(m, &one, &a);
        for (uint32_t j = 0; j < limbs; j++) {
            const hemi_limb *l = hemi_ckks_limb(ctx, j);
            ckks_phase(phase, m, &a, j);
            ctx->k->intt(phase, phase, l);
            hemi_ring_automorphism(want + j * n, phase, t[i], l);
            ctx->k->ntt(want + j * n, l);
        }
        check_switched(m, &one, want);
        hemi_ckks_cipher_clear(&in_place);
    }
    for (size_t i = 0; i < count; i++) hemi_ckks_cipher_clear(&many[i]);
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&one);
    hemi_free(want);
}

/* Ciphertexts of any number of limbs, up to that of the keys: digits that are whole, cut short, or not there. */
static void products_and_automorphisms(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t ring = 0; ring < TEST_COUNT(rings); ring++)
        for (uint32_t key_limbs = TEST_CKKS_CHAIN; key_limbs > 0; key_limbs -= key_limbs > 1 && test_quick() ? 3 : 1) {
            ckks_machine m = {0};
            open_ring(&m, ring, key_limbs == 4 ? 2 : 1, key_limbs);
            for (uint32_t limbs = 1; limbs <= key_limbs; limbs++) {
                check_automorphisms(&m, limbs, &rng);
                check_product(&m, limbs, 1 + (uint32_t)test_below(&rng, key_limbs), &rng);
                check_product(&m, limbs, limbs, &rng);
                for (unsigned terms = 0; limbs > 1 && terms < 16; terms++) check_sum(&m, limbs, terms, &rng);
            }
            ckks_machine_close(&m);
        }
}

static void keys_that_are_not_there(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ckks_machine m = {.p.own = test_ckks_params(4, 2)};
    const uint32_t t[] = {5};
    const double c[] = {0.25, 0.5, 0.25, 1};
    ckks_machine_open(&m, NULL, 1, 5, t, 1);
    hemi_ckks_cipher a = ckks_uniform(&m, 5, &rng), r[3] = {ckks_uniform(&m, 5, &rng), ckks_uniform(&m, 5, &rng), ckks_uniform(&m, 5, &rng)};
    const hemi_ckks_cipher was = ckks_copy(&m, &r[0]);
    assert_status(hemi_ckks_mul(m.w, &r[0], &a, &a, m.keys, ERR), HEMI_ERR_KEY);
    assert_status(hemi_ckks_mul_rescale(m.w, &r[0], &a, &a, m.keys, ERR), HEMI_ERR_KEY);
    hemi_ckks_sum sum = hemi_ckks_sum_begin(m.w, 5, 1);
    hemi_ckks_sum_product(&sum, &a, &a, false);
    assert_status(hemi_ckks_sum_end(&sum, &r[0], m.keys, ERR), HEMI_ERR_KEY);
    assert_status(hemi_ckks_automorphism(m.w, &r[0], &a, 31, m.keys, ERR), HEMI_ERR_KEY);
    assert_status(hemi_ckks_automorphism(m.w, &r[0], &a, 7, m.keys, ERR), HEMI_ERR_KEY);
    assert_status(hemi_ckks_automorphisms(m.w, r, &a, (const uint32_t[]){5, 1, 9}, 3, m.keys, ERR), HEMI_ERR_KEY);
    assert_non_null(strstr(test_err.message, "9"));
    ckks_assert_equal(&m, &r[0], &was); /* nothing was begun */
    assert_status(hemi_ckks_chebyshev(m.w, &r[0], &a, c, 3, 1, 1, m.keys, ERR), HEMI_ERR_KEY);
    ASSERT_OK(hemi_ckks_chebyshev(m.w, &r[0], &a, c, 1, 1, 1, m.keys, ERR)); /* no products */
    ASSERT_OK(hemi_ckks_automorphisms(m.w, r, &a, (const uint32_t[]){1, 5, 1}, 3, m.keys, ERR));
    ASSERT_OK(hemi_ckks_automorphisms(m.w, r, &a, NULL, 0, m.keys, ERR));
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear((hemi_ckks_cipher *)(uintptr_t)&was);
    for (size_t i = 0; i < 3; i++) hemi_ckks_cipher_clear(&r[i]);
    hemi_ckks_cipher_clear(&r[0]); /* of one that is clear */
    ckks_machine_close(&m);
}

/* ---- the same bits by every table, and by any number of threads */

#define EVERYTHING 13

/* a and b: all limbs of the keys, at least 3. */
static void everything(hemi_ckks_cipher *r, const ckks_machine *m, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b, const uint64_t *pt) {
    const double c[] = {0.3, -0.2, 0.1, 0.7};
    const uint32_t t[] = {m->t[1], m->t[m->count - 1]};
    for (size_t i = 0; i < EVERYTHING; i++) r[i] = ckks_cipher(m, a->limbs);
    hemi_ckks_add(m->w, &r[0], a, b);
    hemi_ckks_sub(m->w, &r[1], a, b);
    hemi_ckks_mul_constant(m->w, &r[2], a, -0.3, 0x1p40);
    hemi_ckks_mul_constant_add(m->w, &r[2], b, 0.9, 0x1p40);
    hemi_ckks_mul_plain(m->w, &r[3], a, pt, 0x1p30);
    hemi_ckks_add_constant(m->w, &r[3], 1e-3);
    hemi_ckks_add_plain(m->w, &r[3], pt);
    hemi_ckks_rescale(m->w, &r[4], &r[3]);
    ASSERT_OK(hemi_ckks_mul(m->w, &r[5], a, b, m->keys, ERR));
    hemi_ckks_rescale(m->w, &r[6], &r[5]);
    ASSERT_OK(hemi_ckks_mul(m->w, &r[6], &r[6], b, m->keys, ERR));
    ASSERT_OK(hemi_ckks_automorphism(m->w, &r[7], &r[4], t[0], m->keys, ERR));
    ASSERT_OK(hemi_ckks_automorphisms(m->w, r + 8, a, t, 2, m->keys, ERR));
    ASSERT_OK(hemi_ckks_automorphism(m->w, &r[9], &r[9], t[1], m->keys, ERR));
    hemi_ckks_rescale(m->w, &r[10], &r[9]);
    ASSERT_OK(hemi_ckks_mul_rescale(m->w, &r[12], a, b, m->keys, ERR));
    ASSERT_OK(hemi_ckks_chebyshev(m->w, &r[11], a, c, 3, a->limbs - 2, 0x1p38, m->keys, ERR));
}

static void check_agreement(ckks_machine *m, uint32_t limbs, int threads, test_rng *rng) {
    ckks_machine other = {.p.sk = m->p.sk};
    hemi_ckks_cipher a = ckks_uniform(m, limbs, rng), b = ckks_uniform(m, limbs, rng), here[EVERYTHING], there[EVERYTHING];
    const size_t n = m->p.ctx->n;
    uint64_t *pt = hemi_alloc(limbs * n, sizeof *pt);
    assert_non_null(pt);
    for (uint32_t i = 0; i < limbs; i++) test_residues(pt + i * n, n, modulus(m, i)->p, rng);
    a.scale = b.scale = 0x1p38;
    other.team = hemi_team_new(threads);
    ASSERT_OK(hemi_ckks_context_new(&other.p.ctx, m->p.ctx->params, &hemi_kernels_portable, ERR));
    ASSERT_OK(hemi_ckks_workspace_new(&other.w, other.p.ctx, limbs, other.team, ERR));
    memcpy(other.t, m->t, sizeof other.t);
    other.count = m->count;
    other.keys = ckks_keys_from(other.p.ctx, m->keys->limbs, m->key_bytes, m->t, m->count);
    everything(here, m, &a, &b, pt);
    everything(there, &other, &a, &b, pt);
    for (size_t i = 0; i < EVERYTHING; i++) {
        ckks_assert_equal(m, &here[i], &there[i]);
        hemi_ckks_cipher_clear(&here[i]), hemi_ckks_cipher_clear(&there[i]);
    }
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&b);
    hemi_ckks_keys_free(other.keys);
    hemi_ckks_workspace_free(other.w);
    hemi_ckks_context_free(other.p.ctx);
    hemi_team_free(other.team);
    hemi_free(pt);
}

static void tables_and_threads_agree(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t ring = 0; ring < TEST_COUNT(rings); ring++) {
        ckks_machine m = {0};
        open_ring(&m, ring, 1, TEST_CKKS_CHAIN);
        for (uint32_t limbs = 3; limbs <= TEST_CKKS_CHAIN; limbs++) check_agreement(&m, limbs, (int)limbs % 4 + 1, &rng);
        ckks_machine_close(&m);
    }
    for (size_t i = 0; i < (test_quick() ? 1 : 2); i++) {
        const hemi_params *params = hemi_params_by_name(i ? "C16384" : "C8192");
        const int32_t by[] = {1};
        uint32_t t[3];
        ckks_machine m = {0};
        ckks_machine_open(&m, params, 2, params->chain, t, ckks_key_numbers(t, params, by, 1));
        check_agreement(&m, params->chain, 1, &rng);
        ckks_machine_close(&m);
    }
}

/* ---- what a workspace lends: kept, lent again where it fits, to one at a time; and another team */

static void workspaces_lend(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ckks_machine m = {0};
    open_ring(&m, 3, 2, TEST_CKKS_CHAIN);
    const size_t n = m.p.ctx->n, bytes = hemi_ckks_workspace_bytes(m.w);
    hemi_ckks_cipher a, b, c;
    ASSERT_OK(hemi_ckks_cipher_lend(&a, m.w, 4, ERR));
    ASSERT_OK(hemi_ckks_cipher_lend(&b, m.w, 4, ERR));
    assert_true(a.limbs == 4 && a.c1 == a.c0 + 4 * n && b.c0 != a.c0);
    uint64_t *const first = a.c0, *const second = b.c0;
    hemi_ckks_cipher_give_back(&a, m.w);
    assert_null(a.c0);
    hemi_ckks_cipher_give_back(&a, m.w); /* of one that is given back */
    hemi_ckks_give_back(m.w, NULL);
    ASSERT_OK(hemi_ckks_cipher_lend(&a, m.w, 3, ERR)); /* in what is a little larger */
    ASSERT_OK(hemi_ckks_cipher_lend(&c, m.w, 3, ERR));
    assert_true(a.c0 == first && c.c0 != first && c.c0 != second);
    hemi_ckks_cipher_give_back(&a, m.w);
    uint64_t *small = hemi_ckks_lend(m.w, n);
    assert_true(small && small != first); /* not in what is far too large */
    assert_int_equal(hemi_ckks_workspace_bytes(m.w), bytes + (2 * 4 + 2 * 4 + 2 * 3 + 1) * n * sizeof(uint64_t));
    uint64_t *many[200]; /* more than there was room for at first */
    for (size_t i = 0; i < TEST_COUNT(many); i++) assert_non_null(many[i] = hemi_ckks_lend(m.w, n));
    for (size_t i = 0; i < TEST_COUNT(many); i++) many[i][0] = many[i][n - 1] = i;
    for (size_t i = 0; i < TEST_COUNT(many); i++) assert_true(many[i][0] == i && many[i][n - 1] == i);
    for (size_t i = 0; i < TEST_COUNT(many); i++) hemi_ckks_give_back(m.w, many[i]);
    hemi_ckks_give_back(m.w, small), hemi_ckks_cipher_give_back(&b, m.w), hemi_ckks_cipher_give_back(&c, m.w);
    assert_int_equal(hemi_ckks_workspace_workers(m.w), hemi_team_size(m.team));
    hemi_ckks_cipher x = ckks_uniform(&m, 5, &rng), r[2] = {ckks_cipher(&m, 5), ckks_cipher(&m, 5)};
    for (int alone = 0; alone < 2; alone++) {
        hemi_ckks_workspace_use(m.w, alone ? NULL : m.team);
        ASSERT_OK(hemi_ckks_mul_rescale(m.w, &r[alone], &x, &x, m.keys, ERR));
    }
    ckks_assert_equal(&m, &r[0], &r[1]);
    hemi_ckks_cipher_clear(&x), hemi_ckks_cipher_clear(&r[0]), hemi_ckks_cipher_clear(&r[1]);
    ckks_machine_close(&m);
}

/* ---- arithmetic of slots */

typedef struct slots {
    double *re, *im;
} slots;

static slots slots_new(const ckks_machine *m) {
    const slots z = {hemi_alloc(m->p.ctx->slots, sizeof *z.re), hemi_alloc(m->p.ctx->slots, sizeof *z.im)};
    assert_true(z.re && z.im);
    return z;
}

/* In the unit circle, so that powers stay there. */
static slots slots_random(const ckks_machine *m, test_rng *rng) {
    const slots z = slots_new(m);
    for (uint32_t i = 0; i < m->p.ctx->slots; i++) z.re[i] = 0.7 * test_real(rng), z.im[i] = 0.7 * test_real(rng);
    return z;
}

static void slots_free(slots z) {
    hemi_free(z.re);
    hemi_free(z.im);
}

static double complex at(slots z, size_t i) { return z.re[i] + z.im[i] * (double complex)I; }

/* What one rescaling or encryption may add to a slot: eight standard deviations. */
static double unit(const ckks_machine *m) {
    const double n = m->p.ctx->n;
    return 8 * sqrt(n * (HEMI_ERROR_VARIANCE + (1 + 2 * n / 3) / 12)) / ldexp(1, (int)m->p.ctx->params->scale_bits);
}

/* c holds want, which is overwritten, up to `units` of that. */
static void check_slots(const ckks_machine *m, const hemi_ckks_cipher *c, slots want, double units) {
    const slots z = slots_new(m);
    ckks_decrypt(z.re, z.im, m, c);
    for (uint32_t i = 0; i < m->p.ctx->slots; i++)
        if (!(cabs(at(z, i) - at(want, i)) <= units * unit(m)))
            fail_msg("slot %u: %g + %g i, not %g + %g i", i, z.re[i], z.im[i], want.re[i], want.im[i]);
    slots_free(z);
}

static void set_slot(slots z, size_t i, double complex v) {
    z.re[i] = creal(v);
    z.im[i] = cimag(v);
}

static void check_arithmetic(const ckks_machine *m, uint32_t limbs, test_rng *rng) {
    const uint32_t n_slots = m->p.ctx->slots;
    const double scale = ldexp(1, (int)m->p.ctx->params->scale_bits), last = (double)modulus(m, limbs - 1)->p;
    const slots x = slots_random(m, rng), y = slots_random(m, rng), want = slots_new(m);
    hemi_ckks_cipher a = ckks_encrypt(m, x.re, x.im, scale, limbs), b = ckks_encrypt(m, y.re, y.im, scale, limbs), r = ckks_cipher(m, limbs);
    check_slots(m, &a, x, 1);
    hemi_ckks_add(m->w, &r, &a, &b);
    for (uint32_t i = 0; i < n_slots; i++) set_slot(want, i, at(x, i) + at(y, i));
    check_slots(m, &r, want, 2);
    hemi_ckks_sub(m->w, &r, &r, &b);
    hemi_ckks_add_constant(m->w, &r, -1.25);
    for (uint32_t i = 0; i < n_slots; i++) set_slot(want, i, at(x, i) - 1.25);
    check_slots(m, &r, want, 3);
    if (limbs > 1) {
        hemi_ckks_mul_constant(m->w, &r, &a, 0.37, last);
        hemi_ckks_mul_constant_add(m->w, &r, &b, -1.5, last);
        hemi_ckks_rescale(m->w, &r, &r);
        assert_true(r.limbs == limbs - 1 && r.scale == scale);
        for (uint32_t i = 0; i < n_slots; i++) set_slot(want, i, 0.37 * at(x, i) - 1.5 * at(y, i));
        check_slots(m, &r, want, 3);
        uint64_t *pt = ckks_plaintext(m, y.re, y.im, last, limbs);
        hemi_ckks_mul_plain(m->w, &r, &a, pt, last);
        hemi_ckks_rescale(m->w, &r, &r);
        for (uint32_t i = 0; i < n_slots; i++) set_slot(want, i, at(x, i) * at(y, i));
        check_slots(m, &r, want, 3);
        hemi_free(pt);
        pt = ckks_plaintext(m, y.re, NULL, r.scale, limbs - 1);
        hemi_ckks_add_plain(m->w, &r, pt);
        for (uint32_t i = 0; i < n_slots; i++) want.re[i] += y.re[i];
        check_slots(m, &r, want, 3);
        hemi_free(pt);
    }
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&b), hemi_ckks_cipher_clear(&r);
    slots_free(x), slots_free(y), slots_free(want);
}

/* Powers until no limb is left: a b, a b b, ... */
static void check_powers(const ckks_machine *m, uint32_t limbs, test_rng *rng) {
    const slots x = slots_random(m, rng), y = slots_random(m, rng);
    const double scale = ldexp(1, (int)m->p.ctx->params->scale_bits);
    hemi_ckks_cipher a = ckks_encrypt(m, x.re, x.im, scale, limbs), b = ckks_encrypt(m, y.re, y.im, scale, limbs);
    for (double depth = 1; a.limbs > 1; depth++) {
        const double by = (double)modulus(m, a.limbs - 1)->p, before = a.scale;
        ASSERT_OK(hemi_ckks_mul(m->w, &a, &a, &b, m->keys, ERR));
        for (uint32_t i = 0; i < m->p.ctx->slots; i++) set_slot(x, i, at(x, i) * at(y, i));
        if (a.limbs > 2) check_slots(m, &a, x, 6 * depth);
        hemi_ckks_rescale(m->w, &a, &a);
        assert_true(a.scale == before * scale / by);
        check_slots(m, &a, x, 6 * depth);
    }
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&b);
    slots_free(x), slots_free(y);
}

static void check_rotations(const ckks_machine *m, uint32_t limbs, const int32_t *by, size_t count, test_rng *rng) {
    const uint32_t n_slots = m->p.ctx->slots;
    const slots x = slots_random(m, rng), want = slots_new(m);
    hemi_ckks_cipher a = ckks_encrypt(m, x.re, x.im, ldexp(1, (int)m->p.ctx->params->scale_bits), limbs), r = ckks_cipher(m, limbs);
    for (size_t k = 0; k <= count; k++) {
        const uint32_t t = k < count ? hemi_ckks_rotation(m->p.ctx, by[k]) : hemi_ckks_conjugation(m->p.ctx->n);
        ASSERT_OK(hemi_ckks_automorphism(m->w, &r, &a, t, m->keys, ERR));
        for (uint32_t i = 0; i < n_slots; i++)
            set_slot(want, i, k < count ? at(x, (size_t)((int64_t)i + by[k] + 4 * (int64_t)n_slots) % n_slots) : conj(at(x, i)));
        check_slots(m, &r, want, 2);
    }
    hemi_ckks_cipher_clear(&a), hemi_ckks_cipher_clear(&r);
    slots_free(x), slots_free(want);
}

static void slots_of_small_rings(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const int32_t by[] = {0, 1, -1, 2, -2, 3, 4, -4, 16, -16};
    for (size_t ring = 0; ring < TEST_COUNT(rings); ring++) {
        ckks_machine m = {0};
        open_ring(&m, ring, 1, TEST_CKKS_CHAIN);
        for (uint32_t limbs = 1; limbs <= TEST_CKKS_CHAIN; limbs++) {
            check_arithmetic(&m, limbs, &rng);
            check_powers(&m, limbs, &rng);
            check_rotations(&m, limbs, by, TEST_COUNT(by), &rng);
        }
        ckks_machine_close(&m);
    }
}

static void sets_at_work(void **state) {
    (void)state;
    static const char *const sets[] = {"C8192", "C16384", "C16384D", "C32768"};
    test_rng rng = test_rng_new();
    const int32_t by[] = {1, -1, 2, -16, 1024, -1024};
    for (size_t i = 0; i < (test_quick() ? 1 : test_long() ? TEST_COUNT(sets) : 2); i++) {
        const hemi_params *params = hemi_params_by_name(sets[i]);
        uint32_t t[CKKS_KEYS_MAX];
        ckks_machine m = {0};
        ckks_machine_open(&m, params, 2, params->chain, t, ckks_key_numbers(t, params, by, TEST_COUNT(by)));
        check_arithmetic(&m, params->chain, &rng);
        check_arithmetic(&m, params->chain - 2, &rng);
        check_powers(&m, params->chain, &rng);
        check_rotations(&m, params->chain, by, TEST_COUNT(by), &rng);
        check_rotations(&m, params->chain - 1, by, 2, &rng);
        check_rotations(&m, 1, by, 2, &rng);
        ckks_machine_close(&m);
    }
}

/* ---- polynomials */

enum { ALL, ODD, EVEN, SPARSE, STRUCTURES };

/* The degree stays what it is, as far as the structure has such a one. Returns it. */
static uint32_t random_polynomial(double *c, uint32_t degree, int structure, test_rng *rng) {
    if (degree > 0 && ((structure == ODD && degree % 2 == 0) || (structure == EVEN && degree % 2 == 1))) degree--;
    for (uint32_t i = 0; i <= degree; i++) {
        const bool there = structure == ALL || (structure == SPARSE ? test_below(rng, 4) == 0 : i % 2 == (structure == ODD)) || i == degree;
        c[i] = there ? test_normal(rng) : 0;
    }
    if (c[degree] == 0) c[degree] = 0.5;
    return degree;
}

/* Errors of u are multiplied by up to the derivative; those of powers alike. */
static double tolerance(const ckks_machine *m, const double *c, uint32_t degree, double u) {
    double sum = 1;
    for (uint32_t i = 1; i <= degree; i++) sum += fabs(c[i]) * i * fmin(i, 1 / sqrt(1 - u * u + 1e-12));
    return 4 * sum * unit(m);
}

static void check_polynomial(const ckks_machine *m, const double *c, uint32_t degree, uint32_t from, uint32_t limbs, double scale, test_rng *rng) {
    const slots u = slots_random(m, rng), z = slots_new(m);
    for (uint32_t i = 0; i < m->p.ctx->slots; i++) u.re[i] /= 0.7, u.im[i] = 0;
    if (m->p.ctx->slots > 2) u.re[0] = 1, u.re[1] = -1, u.re[2] = 0;
    hemi_ckks_cipher x = ckks_encrypt(m, u.re, NULL, ldexp(1, (int)m->p.ctx->params->scale_bits), from), r = ckks_cipher(m, from);
    ASSERT_OK(hemi_ckks_chebyshev(m->w, &r, &x, c, degree, limbs, scale, m->keys, ERR));
    assert_int_equal(r.limbs, limbs);
    assert_true(r.scale == scale);
    ckks_decrypt(z.re, z.im, m, &r);
    for (uint32_t i = 0; i < m->p.ctx->slots; i++) {
        double sum = 0;
        for (uint32_t k = 0; k <= degree; k++) sum += c[k] * cos(k * acos(u.re[i]));
        if (!(cabs(at(z, i) - sum) <= tolerance(m, c, degree, u.re[i])))
            fail_msg("degree %u from %u limbs to %u at %g: %g + %g i, not %g", degree, from, limbs, u.re[i], z.re[i], z.im[i], sum);
    }
    hemi_ckks_cipher_clear(&x), hemi_ckks_cipher_clear(&r);
    slots_free(u), slots_free(z);
}

/* The least l with 2^l > degree; 1 for constants. */
static uint32_t levels_of(uint32_t degree) {
    uint32_t l = 0;
    while (degree >> l) l++;
    return l > 0 ? l : 1;
}

/* In the least number of levels, and in as many as there are; one limb less is refused. Coefficients that are zero at the end count for nothing. */
static void check_degree(const ckks_machine *m, uint32_t degree, int structure, test_rng *rng) {
    const uint32_t chain = m->p.ctx->chain;
    const double scales[] = {0x1p38, 0x1.3p38, 0x1.9p37, 0x1.123456789abcdp38};
    double c[HEMI_CKKS_DEGREE_MAX + 1] = {0};
    degree = random_polynomial(c, degree, structure, rng);
    const uint32_t levels = levels_of(degree), given = degree + (uint32_t)test_below(rng, 3);
    const double scale = scales[test_below(rng, 4)];
    if (degree > 0) assert_int_equal(hemi_ckks_chebyshev_levels(degree), levels);
    check_polynomial(m, c, given, levels + 1, 1, scale, rng);
    if (levels + 1 < chain) {
        check_polynomial(m, c, degree, chain, chain - levels, scale, rng);
        check_polynomial(m, c, given, chain, 1 + (uint32_t)test_below(rng, chain - levels), scale, rng);
    }
    hemi_ckks_cipher x = ckks_uniform(m, levels, rng), r = ckks_cipher(m, chain);
    assert_status(hemi_ckks_chebyshev(m->w, &r, &x, c, given, 1, scale, m->keys, ERR), HEMI_ERR_ARGUMENT);
    hemi_ckks_cipher_clear(&x), hemi_ckks_cipher_clear(&r);
}

static void polynomials(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (size_t ring = 0; ring < TEST_COUNT(rings); ring++) {
        ckks_machine m = {0};
        open_ring(&m, ring, 1, TEST_CKKS_CHAIN);
        for (uint32_t degree = 0; degree <= 32; degree += test_quick() ? 3 : 1)
            for (int structure = 0; structure < STRUCTURES; structure++) {
                check_degree(&m, degree < 32 ? degree : 63, structure, &rng);
                if (degree == 32) check_degree(&m, 33 + (uint32_t)test_below(&rng, 30), structure, &rng);
            }
        hemi_ckks_cipher x = ckks_uniform(&m, TEST_CKKS_CHAIN, &rng), r = ckks_cipher(&m, TEST_CKKS_CHAIN);
        double c[HEMI_CKKS_DEGREE_MAX + 2] = {1};
        assert_status(hemi_ckks_chebyshev(m.w, &r, &x, c, HEMI_CKKS_DEGREE_MAX + 1, 1, 1, m.keys, ERR), HEMI_ERR_ARGUMENT);
        assert_status(hemi_ckks_chebyshev(m.w, &r, &x, c, 3, 0, 1, m.keys, ERR), HEMI_ERR_ARGUMENT);
        hemi_ckks_cipher_clear(&x), hemi_ckks_cipher_clear(&r);
        ckks_machine_close(&m);
    }
}

static void polynomials_on_sets(void **state) {
    (void)state;
    static const struct {
        const char *set;
        uint32_t degree;
    } cases[] = {{"C8192", 7}, {"C8192", 15}, {"C16384", 7}, {"C16384", 63}, {"C32768", 255}};
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < (test_quick() ? 1 : test_long() ? 5 : 4); i++) {
        const hemi_params *params = hemi_params_by_name(cases[i].set);
        const uint32_t degree = cases[i].degree, levels = levels_of(degree), t[] = {HEMI_CKKS_KEY_PRODUCT};
        double c[HEMI_CKKS_DEGREE_MAX + 1];
        ckks_machine m = {0};
        ckks_machine_open(&m, params, 2, params->chain, t, 1);
        for (int structure = 0; structure < STRUCTURES; structure++) {
            const uint32_t have = random_polynomial(c, degree, structure, &rng);
            check_polynomial(&m, c, have, levels + 1, 1, ldexp(1.1, (int)params->scale_bits), &rng);
        }
        ckks_machine_close(&m);
    }
}

/* Products: none for lines, few for squares, no more for what has fewer coefficients; never more than one for each degree. */
static void products_of_polynomials(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    const double line[] = {1, 2}, square[] = {1, 0, 2}, cube[] = {1, 1, 1, 2}, odd_cube[] = {0, 1, 0, 1};
    assert_int_equal(hemi_ckks_chebyshev_products(line, 0), 0);
    assert_int_equal(hemi_ckks_chebyshev_products(line, 1), 0);
    assert_int_equal(hemi_ckks_chebyshev_products(square, 2), 1);
    assert_int_equal(hemi_ckks_chebyshev_products(cube, 3), 2);
    assert_int_equal(hemi_ckks_chebyshev_products(odd_cube, 3), 2);
    for (uint32_t degree = 4; degree <= HEMI_CKKS_DEGREE_MAX; degree++) {
        double c[HEMI_CKKS_DEGREE_MAX + 1];
        uint32_t count[STRUCTURES];
        for (int structure = 0; structure < STRUCTURES; structure++) {
            const uint32_t have = random_polynomial(c, degree, structure, &rng);
            count[structure] = hemi_ckks_chebyshev_products(c, have);
            assert_true(count[structure] >= levels_of(have) - 1 && count[structure] <= count[ALL]);
        }
        assert_true(count[ALL] <= 2 * sqrt(degree) + levels_of(degree) + 2);
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_constants_and_plaintexts),
        cmocka_unit_test(rescaling),
        cmocka_unit_test(products_and_automorphisms),
        cmocka_unit_test(keys_that_are_not_there),
        cmocka_unit_test(tables_and_threads_agree),
        cmocka_unit_test(workspaces_lend),
        cmocka_unit_test(slots_of_small_rings),
        cmocka_unit_test(sets_at_work),
        cmocka_unit_test(polynomials),
        cmocka_unit_test(polynomials_on_sets),
        cmocka_unit_test(products_of_polynomials),
    };
    return TEST_RUN_PER_TABLE("levelled operations", tests);
}
