/* The ring, on every table of kernels: the transform is the evaluation that ring.h promises, products are negacyclic,
 * automorphisms are what they are on coefficients. On tiny rings nearly everything is tried; the rest is held to
 * definitions written here with 128-bit arithmetic. */
#include "test.h"

#include "base/memory.h"
#include "ring/ring.h"

#define P48 UINT64_C(0xfffffffa0001)
#define P50 UINT64_C(0x3ffffffd20001)
#define R50 UINT64_C(0x3ffffffb80001)

__extension__ typedef unsigned __int128 u128;

static uint64_t times(uint64_t a, uint64_t b, uint64_t p) { return (uint64_t)((u128)a * b % p); }

static uint64_t power(uint64_t b, uint64_t e, uint64_t p) {
    uint64_t r = 1;
    for (; e; e >>= 1, b = times(b, b, p))
        if (e & 1) r = times(r, b, p);
    return r;
}

static bool prime_by_division(uint64_t n) {
    for (uint64_t d = 2; d * d <= n; d++)
        if (n % d == 0) return false;
    return n >= 2;
}

/* The least prime that is 1 modulo 2n. */
static uint64_t least_prime(uint32_t n) {
    uint64_t p = 2 * (uint64_t)n + 1;
    while (!prime_by_division(p)) p += 2 * n;
    return p;
}

static uint32_t reversed(uint32_t x, uint32_t bits) {
    uint32_t r = 0;
    for (; bits > 0; bits--, x >>= 1) r = r << 1 | (x & 1);
    return r;
}

static hemi_ring *ring_of(uint32_t log2_n, uint64_t p) {
    hemi_ring *ring;
    hemi_error err;
    assert_ok(hemi_ring_new(&ring, log2_n, &p, 1, test_table(), &err), &err);
    return ring;
}

static uint64_t *vector(size_t n) {
    uint64_t *v = hemi_alloc(n, sizeof *v);
    assert_non_null(v);
    return v;
}

static void assert_same(const uint64_t *a, const uint64_t *b, size_t n) { assert_memory_equal(a, b, n * sizeof *a); }

/* r = a b modulo X^n + 1 and p, from the definition. */
static void schoolbook(uint64_t *r, const uint64_t *a, const uint64_t *b, uint32_t n, uint64_t p) {
    memset(r, 0, n * sizeof *r);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++) {
            const uint64_t x = times(a[i], b[j], p), *at = &r[(i + j) % n];
            r[(i + j) % n] = i + j < n ? (*at + x) % p : (*at + p - x) % p;
        }
}

/* a at the odd power e of psi. */
static uint64_t value_at(const uint64_t *a, uint32_t e, const hemi_limb *l) {
    const uint64_t x = power(l->psi, e, l->m.p);
    uint64_t r = 0;
    for (uint32_t i = l->n; i-- > 0;) r = (uint64_t)(((u128)r * x + a[i]) % l->m.p);
    return r;
}

/* ---- modulus */

static void moduli(void **state) {
    (void)state;
    hemi_modulus m;
    for (uint64_t n = 0; n < 3000; n++) {
        assert_int_equal(hemi_is_prime(n), prime_by_division(n));
        assert_int_equal(hemi_modulus_init(&m, n), n > 2 && prime_by_division(n));
    }
    static const uint64_t composite[] = {3215031751, 3825123056546413051, UINT64_C(1125899906842623), P48 * 3,
                                         UINT64_MAX};
    for (size_t i = 0; i < TEST_COUNT(composite); i++)
        assert_false(hemi_is_prime(composite[i])); /* strong pseudoprimes first */
    assert_true(hemi_is_prime(UINT64_C(18446744073709551557)));
    assert_true(hemi_modulus_init(&m, UINT64_C(1125899906842597))); /* the largest below 2^50 */
    assert_true(hemi_is_prime(UINT64_C(1125899906842679)));
    assert_false(hemi_modulus_init(&m, UINT64_C(1125899906842679))); /* the next one */

    test_rng rng = test_rng_new();
    static const uint64_t p[] = {3, 17, 65537, P48, P50, UINT64_C(1125899906842597)};
    for (size_t i = 0; i < TEST_COUNT(p); i++) {
        assert_true(hemi_modulus_init(&m, p[i]));
        for (size_t k = 0; k < 2000; k++) {
            const uint64_t lo = k < 4 ? 0 - (k & 1) : test_u64(&rng), hi = k < 4 ? 0 - (k >> 1) : test_u64(&rng);
            const u128 x = (u128)hi << 64 | lo;
            assert_int_equal(hemi_mod_reduce128(x, &m), x % p[i]);
            const int64_t v = k == 0 ? INT64_MIN : (int64_t)(lo >> (k % 64));
            const int64_t rest = v % (int64_t)p[i];
            assert_int_equal(hemi_mod_from_signed(v, &m), rest < 0 ? rest + (int64_t)p[i] : rest);
            const uint64_t a = lo % p[i];
            const int64_t centred = hemi_mod_centre(a, &m);
            assert_true(2 * centred < (int64_t)p[i] && -2 * centred < (int64_t)p[i]);
            assert_int_equal(hemi_mod_from_signed(centred, &m), a);
            if (a != 0) assert_int_equal(times(a, hemi_mod_inverse(a, &m), p[i]), 1);
            assert_int_equal(hemi_mod_neg(a, &m), (p[i] - a) % p[i]);
        }
    }
}

/* psi is g^((p-1)/2n) for the least g that gives a primitive root: part of the wire format. */
static void the_root_is_the_pinned_one(void **state) {
    (void)state;
    for (uint32_t log2_n = HEMI_RING_LOG2_N_MIN; log2_n <= HEMI_RING_LOG2_N_MAX; log2_n++) {
        const uint32_t n = 1u << log2_n;
        const uint64_t p[] = {least_prime(n), P48, P50, R50};
        for (size_t i = 0; i < TEST_COUNT(p); i++) {
            hemi_modulus m;
            assert_true(hemi_modulus_init(&m, p[i]));
            uint64_t g = 2;
            while (power(g, (p[i] - 1) / 2, p[i]) == 1) g++; /* a square has no primitive 2n-th root as its power */
            assert_int_equal(hemi_mod_root(&m, n), power(g, (p[i] - 1) / (2 * n), p[i]));
            assert_int_equal(power(hemi_mod_root(&m, n), n, p[i]), p[i] - 1);
        }
        hemi_modulus m;
        assert_true(hemi_modulus_init(&m, 3));
        assert_int_equal(hemi_mod_root(&m, n), 0);
    }
}

/* ---- rings */

static void rings_refuse_what_is_not_one(void **state) {
    (void)state;
    uint64_t many[HEMI_RING_LIMBS_MAX + 1];
    for (size_t i = 0; i < TEST_COUNT(many); i++) many[i] = P50;
    const uint64_t above = UINT64_C(0x4000000120001); /* right in all but size */
    assert_true(hemi_is_prime(above) && above % 32 == 1 && above >> 50 == 1);
    struct {
        uint32_t log2_n;
        uint64_t prime;
        size_t limbs;
    } bad[] = {
        {0, P50, 1},
        {1, P50, 1},
        {17, 786433 /* 1 modulo 2^18 */, 1},
        {UINT32_MAX, P50, 1},
        {4, P50, 0},
        {4, P50, HEMI_RING_LIMBS_MAX + 1},
        {4, P50, SIZE_MAX},
        {4, 0, 1},
        {4, 1, 1},
        {4, 2, 1},
        {4, P50 - 1, 1},
        {4, P50 * 2 - 1, 1},
        {4, UINT64_MAX, 1},
        {4, 65 * 97, 1} /* not prime */,
        {4, 17, 1} /* 1 modulo 16, not 32 */,
        {4, 3, 1},
        {16, 65537, 1} /* 1 modulo N only */,
        {4, above, 1},
    };
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        hemi_ring *ring = (hemi_ring *)&many;
        hemi_error err = {HEMI_OK, ""};
        many[0] = bad[i].prime;
        assert_status(hemi_ring_new(&ring, bad[i].log2_n, many, bad[i].limbs, test_table(), &err), HEMI_ERR_ARGUMENT);
        assert_null(ring);
        assert_int_equal(err.status, HEMI_ERR_ARGUMENT);
        assert_true(strlen(err.message) > 10);
        assert_status(hemi_ring_new(&ring, bad[i].log2_n, many, bad[i].limbs, test_table(), NULL), HEMI_ERR_ARGUMENT);
    }
    /* one bad prime among good ones */
    hemi_ring *ring;
    many[0] = P50;
    many[2] = P50 + 2;
    assert_status(hemi_ring_new(&ring, 4, many, 4, test_table(), NULL), HEMI_ERR_ARGUMENT);
    assert_null(ring);
    hemi_ring_free(NULL);
}

static void limbs_are_independent(void **state) {
    (void)state;
    const uint64_t primes[] = {P48, P50, R50, P48, 786433};
    const uint32_t log2_n = 10, n = 1u << log2_n;
    test_rng rng = test_rng_new();
    hemi_ring *ring;
    hemi_error err;
    assert_ok(hemi_ring_new(&ring, log2_n, primes, TEST_COUNT(primes), NULL, &err), &err);
    assert_ptr_equal(ring->k, test_table()); /* NULL is the default */
    assert_int_equal(ring->n, n);
    assert_int_equal(ring->limbs, TEST_COUNT(primes));
    uint64_t *a = vector(n), *b = vector(n);
    for (size_t i = 0; i < ring->limbs; i++) {
        assert_int_equal(ring->limb[i].m.p, primes[i]);
        assert_int_equal(ring->limb[i].log2_n, log2_n);
        hemi_ring *alone = ring_of(log2_n, primes[i]);
        test_residues(a, n, primes[i], &rng);
        memcpy(b, a, n * sizeof *a);
        ring->k->ntt(a, &ring->limb[i]);
        assert_int_equal(a[3], value_at(b, 2 * reversed(3, log2_n) + 1, &ring->limb[i]));
        alone->k->ntt(b, alone->limb);
        assert_same(a, b, n);
        ring->k->intt(a, a, &ring->limb[i]);
        alone->k->intt(b, b, alone->limb);
        assert_same(a, b, n);
        hemi_ring_free(alone);
    }
    hemi_free(a);
    hemi_free(b);
    hemi_ring_free(ring);
}

/* ---- the transform */

/* Every polynomial of degree below 4 over 17 elements. */
static void every_transform_of_the_smallest_ring(void **state) {
    (void)state;
    hemi_ring *ring = ring_of(2, 17);
    uint64_t *a = vector(4), *b = vector(4);
    for (uint32_t i = 0; i < 17 * 17 * 17 * 17; i++) {
        for (uint32_t j = 0, x = i; j < 4; j++, x /= 17) a[j] = b[j] = x % 17;
        ring->k->ntt(a, ring->limb);
        for (uint32_t j = 0; j < 4; j++) assert_int_equal(a[j], value_at(b, 2 * reversed(j, 2) + 1, ring->limb));
        ring->k->intt(a, a, ring->limb);
        assert_same(a, b, 4);
    }
    hemi_free(a);
    hemi_free(b);
    hemi_ring_free(ring);
}

/* Slot i is the value at psi^(2 brv(i) + 1): all monomials, then dense polynomials; in large rings some slots. */
static void slots_are_values(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = HEMI_RING_LOG2_N_MIN; log2_n <= HEMI_RING_LOG2_N_MAX; log2_n++) {
        const uint32_t n = 1u << log2_n;
        const uint64_t p[] = {least_prime(n), P48, P50, R50};
        uint64_t *a = vector(n), *b = vector(n);
        for (size_t i = 0; i < TEST_COUNT(p); i++) {
            hemi_ring *ring = ring_of(log2_n, p[i]);
            const hemi_limb *l = ring->limb;
            for (uint32_t j = 0; j < n; j += n <= 512 ? 1 : n / 16 + 1) {
                const uint64_t c = test_below(&rng, p[i]);
                memset(a, 0, n * sizeof *a);
                a[j] = c;
                ring->k->ntt(a, l);
                for (uint32_t s = 0; s < n; s++) {
                    const uint32_t e =
                        (uint32_t)((2 * (uint64_t)reversed(s, log2_n) + 1) * j % (2 * n)); /* psi^n = -1 */
                    const uint64_t x = times(c, l->psi_powers[reversed(e % n, log2_n)], p[i]);
                    assert_int_equal(a[s], e < n || x == 0 ? x : p[i] - x);
                }
            }
            test_residues(b, n, p[i], &rng);
            memcpy(a, b, n * sizeof *a);
            ring->k->ntt(a, l);
            for (uint32_t s = 0; s < n; s += n <= 128 ? 1 : n / 8 - 1)
                assert_int_equal(a[s], value_at(b, 2 * reversed(s, log2_n) + 1, l));
            hemi_ring_free(ring);
        }
        hemi_free(a);
        hemi_free(b);
    }
}

static void transforms_are_inverse(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = HEMI_RING_LOG2_N_MIN; log2_n <= HEMI_RING_LOG2_N_MAX; log2_n++) {
        const uint32_t n = 1u << log2_n;
        const uint64_t p[] = {least_prime(n), P48, P50, R50};
        uint64_t *a = vector(n), *b = vector(n);
        for (size_t i = 0; i < TEST_COUNT(p); i++) {
            hemi_ring *ring = ring_of(log2_n, p[i]);
            for (size_t r = 0; r < 5; r++) {
                for (uint32_t j = 0; j < n; j++)
                    b[j] = r == 0   ? p[i] - 1
                           : r == 1 ? p[i] / 2 + (j & 1)
                           : r == 2 ? (j & 1) * (p[i] - 1)
                                    : test_below(&rng, p[i]);
                memcpy(a, b, n * sizeof *a);
                ring->k->ntt(a, ring->limb);
                ring->k->intt(a, a, ring->limb);
                assert_same(a, b, n);
                ring->k->intt(a, a, ring->limb);
                ring->k->ntt(a, ring->limb);
                assert_same(a, b, n);
            }
            hemi_ring_free(ring);
        }
        hemi_free(a);
        hemi_free(b);
    }
}

/* a b by way of the slots. */
static void product(uint64_t *r, const uint64_t *a, const uint64_t *b, const hemi_ring *ring) {
    uint64_t *w = vector(ring->n);
    memcpy(r, a, ring->n * sizeof *r);
    memcpy(w, b, ring->n * sizeof *w);
    ring->k->ntt(r, ring->limb);
    ring->k->ntt(w, ring->limb);
    ring->k->mul(r, r, w, ring->n, &ring->limb->m);
    ring->k->intt(r, r, ring->limb);
    hemi_free(w);
}

/* All c X^i times all d X^j, which with linearity is everything; and dense factors, since lazy sums are not linear. */
static void products_of_tiny_rings(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    static const struct {
        uint32_t log2_n;
        uint64_t p;
    } tiny[] = {{2, 17}, {2, 41}, {3, 17}, {3, 97}, {4, 97}, {4, 193}, {5, 193}, {6, 257}};
    uint64_t a[64], b[64], r[64], wanted[64];
    for (size_t t = 0; t < TEST_COUNT(tiny); t++) {
        const uint64_t p = tiny[t].p;
        hemi_ring *ring = ring_of(tiny[t].log2_n, p);
        const uint32_t n = ring->n;
        const uint64_t step = n <= 8 && p < 50 ? 1 : p / 7;
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < n; j++)
                for (uint64_t c = 1; c < p; c += step)
                    for (uint64_t d = 1; d < p; d += step) {
                        memset(a, 0, sizeof a);
                        memset(b, 0, sizeof b);
                        memset(wanted, 0, sizeof wanted);
                        a[i] = c;
                        b[j] = d;
                        wanted[(i + j) % n] = i + j < n ? c * d % p : p - c * d % p;
                        product(r, a, b, ring);
                        assert_same(r, wanted, n);
                    }
        for (size_t k = 0; k < 200; k++) {
            test_residues(a, n, p, &rng);
            test_residues(b, n, p, &rng);
            product(r, a, b, ring);
            schoolbook(wanted, a, b, n, p);
            assert_same(r, wanted, n);
        }
        hemi_ring_free(ring);
    }
}

static void products_of_large_rings(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = 7; log2_n <= (test_quick() ? 8 : 11); log2_n++) {
        const uint32_t n = 1u << log2_n;
        const uint64_t p[] = {least_prime(n), P48, P50, R50};
        uint64_t *a = vector(n), *b = vector(n), *r = vector(n), *wanted = vector(n);
        for (size_t i = 0; i < TEST_COUNT(p); i++) {
            hemi_ring *ring = ring_of(log2_n, p[i]);
            for (uint32_t j = 0; j < n; j++) {
                a[j] = j & 1 ? p[i] - 1 : test_below(&rng, p[i]);
                b[j] = j < n / 2 ? p[i] / 2 : test_below(&rng, p[i]);
            }
            product(r, a, b, ring);
            schoolbook(wanted, a, b, n, p[i]);
            assert_same(r, wanted, n);
            hemi_ring_free(ring);
        }
        hemi_free(a);
        hemi_free(b);
        hemi_free(r);
        hemi_free(wanted);
    }
}

/* ---- automorphisms */

/* a(X^t) by its definition, and in slots by the index; all odd t of small rings, some of large ones. */
static void automorphisms_permute_slots(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    for (uint32_t log2_n = HEMI_RING_LOG2_N_MIN; log2_n <= 13; log2_n++) {
        const uint32_t n = 1u << log2_n;
        hemi_ring *ring = ring_of(log2_n, log2_n % 2 ? P50 : least_prime(n));
        const hemi_limb *l = ring->limb;
        uint64_t *a = vector(n), *b = vector(n), *r = vector(n);
        uint32_t *index = hemi_alloc(n, sizeof *index);
        assert_non_null(index);
        for (uint32_t t = 1; t < 2 * n; t += n <= 64 ? 2 : n / 4 + 2) {
            test_residues(a, n, l->m.p, &rng);
            for (uint64_t i = 0; i < n; i++) { /* X^i to X^(t i), X^n = -1 */
                const uint64_t e = i * t % (2 * n);
                b[e % n] = e < n ? a[i] : (l->m.p - a[i]) % l->m.p;
            }
            hemi_ring_automorphism(r, a, t, l);
            assert_same(r, b, n);
            hemi_ring_automorphism_index(index, log2_n, t);
            ring->k->ntt(a, l);
            ring->k->permute(r, a, index, n);
            ring->k->intt(r, r, l);
            assert_same(r, b, n);
        }
        hemi_free(a);
        hemi_free(b);
        hemi_free(r);
        hemi_free(index);
        hemi_ring_free(ring);
    }
}

static void small_coefficients_to_residues(void **state) {
    (void)state;
    static const uint64_t p[] = {257, P48, P50};
    int8_t a[256];
    uint64_t r[256];
    for (int i = 0; i < 256; i++) a[i] = (int8_t)(i - 128);
    for (size_t k = 0; k < TEST_COUNT(p); k++) {
        hemi_modulus m;
        assert_true(hemi_modulus_init(&m, p[k]));
        const hemi_limb l = {.m = m, .n = 256, .log2_n = 8};
        hemi_ring_from_int8(r, a, &l);
        for (int i = 0; i < 256; i++) assert_int_equal(r[i], (p[k] + (uint64_t)a[i]) % p[k]);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(moduli),
    cmocka_unit_test(the_root_is_the_pinned_one),
    cmocka_unit_test(rings_refuse_what_is_not_one),
    cmocka_unit_test(limbs_are_independent),
    cmocka_unit_test(every_transform_of_the_smallest_ring),
    cmocka_unit_test(slots_are_values),
    cmocka_unit_test(transforms_are_inverse),
    cmocka_unit_test(products_of_tiny_rings),
    cmocka_unit_test(products_of_large_rings),
    cmocka_unit_test(automorphisms_permute_slots),
    cmocka_unit_test(small_coefficients_to_residues),
};

int main(void) { return TEST_RUN_PER_TABLE("ring", tests); }
