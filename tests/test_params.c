/* Every parameter set against the limits for 128 bits, by value, and nothing but the table is accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "hemi/params.h"
#include "ring/modulus.h"

/* The largest log2 Q (all primes, special ones included) for 128 bits: ternary secret, sigma 3.19, classical, MATZOV,
 * lattice estimator 27a581b. */
static const struct {
    uint32_t log2_n;
    double log2_modulus;
} limits[] = {{10, 26}, {11, 53}, {12, 106}, {13, 214}, {14, 430}, {15, 868}, {16, 1730}};

static double limit_of(uint32_t log2_n) {
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (limits[i].log2_n == log2_n) return limits[i].log2_modulus;
    return 0;
}

/* All primes of a row, special ones last; q and special, where it is not levelled. */
static size_t primes_of(const hemi_params *p, uint64_t *prime) {
    if (p->chain) {
        memcpy(prime, p->prime, (p->chain + p->specials) * sizeof *prime);
        return p->chain + p->specials;
    }
    prime[0] = p->q;
    prime[1] = p->special;
    return p->special ? 2 : 1;
}

static double log2_product(const uint64_t *prime, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += log2((double)prime[i]);
    return sum;
}

static void every_row_is_secure(void **state) {
    (void)state;
    uint64_t prime[HEMI_PARAMS_PRIMES_MAX];
    assert_true(hemi_params_count() >= 9);
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        const double log2_modulus = log2_product(prime, primes_of(p, prime));
        assert_true(fabs(log2_modulus - p->log2_modulus) < 1e-9);
        assert_true(log2_modulus <= limit_of(p->log2_n));
        assert_true(p->security_bits >= HEMI_SECURITY_BITS_MIN);
    }
}

static void primes_fit_the_ring(void **state) {
    (void)state;
    uint64_t prime[HEMI_PARAMS_PRIMES_MAX];
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        const uint64_t order = UINT64_C(2) << p->log2_n;
        const size_t count = primes_of(p, prime);
        for (size_t j = 0; j < count; j++) {
            assert_true(hemi_is_prime(prime[j]));
            assert_true(prime[j] < UINT64_C(1) << 50);
            assert_int_equal(prime[j] % order, 1);
            for (size_t k = 0; k < j; k++) assert_true(prime[j] != prime[k]);
        }
        if (p->special == 0 || p->chain) continue;
        assert_true(p->special > p->q || p->baby_digits != 0); /* key switching noise is divided by it */
    }
}

static void rows_are_unique_and_found(void **state) {
    (void)state;
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        assert_ptr_equal(hemi_params_by_id(p->id), p);
        assert_ptr_equal(hemi_params_by_name(p->name), p);
        assert_true(p->id != 0);
        for (size_t j = 0; j < i; j++) {
            assert_true(hemi_params_at(j)->id != p->id);
            assert_string_not_equal(hemi_params_at(j)->name, p->name);
        }
    }
}

static void rows_by_value(void **state) {
    (void)state;
    const hemi_params *a = hemi_params_by_id(1), *b = hemi_params_by_id(2);
    assert_string_equal(a->name, "L4096");
    assert_int_equal(a->log2_n, 12);
    assert_true(a->q == UINT64_C(0xfffffffa0001) && a->special == UINT64_C(0x3ffffffd20001));
    assert_true(a->security_bits > 137.2 && a->security_bits < 140.4);
    assert_string_equal(b->name, "L2048");
    assert_int_equal(b->log2_n, 11);
    assert_true(b->q == UINT64_C(0xfffffffa0001) && b->special == 0);
    assert_true(b->security_bits > 128.8 && b->security_bits < 137.2);
    assert_true(b->reply == NULL && !a->reply_only && !b->reply_only);
}

static void the_precise_set_by_value(void **state) {
    (void)state;
    const hemi_params *p = hemi_params_by_id(4);
    assert_string_equal(p->name, "L4096P");
    assert_ptr_equal(hemi_params_by_name("precise"), p);
    assert_int_equal(p->log2_n, 12);
    assert_true(p->q == UINT64_C(0xfffffffa0001) && p->special == UINT64_C(0xfffffff00001));
    assert_true(p->log2_modulus < 98 && p->security_bits > 137.2 && p->security_bits < 140.4); /* the estimate is for 98 bits */
    assert_true(p->baby_digits == 2 && p->digit_bits == 24 && p->reply == NULL && !p->reply_only);
    for (uint32_t id = 1; id <= 3; id++) assert_true(hemi_params_by_id(id)->baby_digits == 0);
}

/* The ring that replies of L4096 are switched to: half the degree; its key, which is over q, is all that there is in it. */
static void the_ring_of_replies_by_value(void **state) {
    (void)state;
    const hemi_params *a = hemi_params_by_id(1), *r = hemi_params_by_id(3);
    assert_string_equal(r->name, "R2048");
    assert_ptr_equal(a->reply, r);
    assert_true(r->reply_only && r->reply == NULL);
    assert_int_equal(r->log2_n, 11);
    assert_true(r->q == UINT64_C(0x3fffa0000001) && r->special == 0);
    assert_true(log2((double)r->q) < 46 && log2((double)r->q) <= 50); /* the estimate is for 50 bits */
    assert_true(r->security_bits > 128.8 && r->security_bits < 137.2);
    assert_int_equal(r->q % (UINT64_C(1) << 28), 1);
    for (size_t i = 0; i < hemi_params_count(); i++) { /* of every set with such a ring, and only of those */
        const hemi_params *p = hemi_params_at(i);
        if (p->reply != NULL) assert_true(p->reply->reply_only && p->reply->log2_n + 1 == p->log2_n);
        if (p->reply_only) assert_true(p->special == 0 && p->reply == NULL);
    }
}

/* ---- levelled sets */

static void the_levelled_sets_by_value(void **state) {
    (void)state;
    static const struct {
        uint32_t id;
        const char *name;
        uint32_t log2_n, chain, specials, digit_limbs;
        unsigned scale_bits, base_bits;
        double log2_modulus, least_bits, most_bits; /* of the estimates: those of the limits' points around */
        uint64_t first, last, special;              /* q_0, q_L, p_0 */
    } rows[] = {
        {16, "C8192", 13, 5, 1, 1, 31, 40, 208.0, 128.2, 137.7, 0xfffffdc001, 0x7ff9c001, 0xfffffffc001},
        {17, "C16384", 14, 10, 2, 2, 34, 42, 424.0, 128.3, 130.2, 0x3fffffa8001, 0x3ffeb8001, 0x3ffff48001},
        {18, "C16384D", 14, 12, 1, 1, 31, 40, 424.0, 128.3, 130.2, 0xffffe80001, 0x80278001, 0x7fffffd8001},
        {21, "C16384M", 14, 11, 2, 2, 31, 40, 424.0, 128.3, 130.2, 0xffffe80001, 0x7fd88001, 0x1ffffe0001},
        {19, "C32768", 15, 21, 2, 2, 36, 42, 850.0, 128.0, 130.8, 0x3ffffff70001, 0xfff640001, 0x3ffffe80001},
        {20, "C65536", 16, 41, 4, 4, 38, 44, 1728.0, 128.0, 129.3, 0xfffffffa0001, 0x4002240001, 0xffffe80001},
    };
    size_t levelled = 0;
    for (size_t i = 0; i < hemi_params_count(); i++) levelled += hemi_params_at(i)->chain != 0;
    assert_int_equal(levelled, sizeof rows / sizeof rows[0]);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const hemi_params *p = hemi_params_by_id(rows[i].id);
        assert_non_null(p);
        assert_string_equal(p->name, rows[i].name);
        assert_true(p->log2_n == rows[i].log2_n && p->chain == rows[i].chain && p->specials == rows[i].specials);
        assert_true(p->digit_limbs == rows[i].digit_limbs && p->scale_bits == rows[i].scale_bits);
        assert_true(fabs(p->log2_modulus - rows[i].log2_modulus) < 0.01);
        assert_true(p->security_bits >= rows[i].least_bits && p->security_bits <= rows[i].most_bits);
        assert_true(p->prime[0] == rows[i].first && p->prime[p->chain - 1] == rows[i].last && p->prime[p->chain] == rows[i].special);
        assert_true(p->q == p->prime[0] && p->special == p->prime[p->chain]);
        assert_true(p->reply == NULL && !p->reply_only && p->baby_digits == 0 && p->digit_bits == 0);
    }
}

/* What the arithmetic rests on: scales that stay, a base with room above the scale, special primes that outweigh every digit, so
 * that the errors of keys do not count. */
static void levels_and_digits(void **state) {
    (void)state;
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        if (p->chain == 0) continue;
        assert_true(p->chain + p->specials <= HEMI_PARAMS_PRIMES_MAX && p->digit_limbs >= 1 && p->specials >= 1);
        const double special = log2_product(p->prime + p->chain, p->specials), scale = ldexp(1, (int)p->scale_bits);
        for (uint32_t j = 1; j < p->chain; j++) assert_true(fabs((double)p->prime[j] / scale - 1) < 0.002);
        assert_true(log2((double)p->prime[0]) >= p->scale_bits + 5.9);
        /* noise of key switching: about digits N (Q_d/P)^2 sigma^2 / 12 from the errors of keys, N/18 from the division by P */
        double from_keys = 0;
        for (uint32_t first = 0; first < p->chain; first += first == 0 ? 1 : p->digit_limbs) {
            const uint32_t width = first == 0 ? 1 : first + p->digit_limbs <= p->chain ? p->digit_limbs : p->chain - first;
            const double digit = log2_product(p->prime + first, width);
            assert_true(digit <= special - 2.99);
            from_keys += exp2(2 * (digit - special)) * 10.5 / 12;
        }
        assert_true(from_keys * 18 < 0.3);
        printf("  %-8s a key switch's noise: N/18 by rounding, %.2g times that by the errors of keys\n", p->name, from_keys * 18);
    }
}

static void nothing_else_is_known(void **state) {
    (void)state;
    assert_null(hemi_params_at(hemi_params_count()));
    assert_null(hemi_params_at(SIZE_MAX));
    const uint32_t ids[] = {0, 5, 6, 15, 22, 255, 256, 257, 0x10000, 0x10001, 0x7fffffff, 0x80000001, 0xffffffff};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) assert_null(hemi_params_by_id(ids[i]));
    const char *const names[] = {"", "L409", "L40960", "l4096", " L4096", "L4096 ", "L1024", "R1024", "r2048", "R2048 ", "default", "4096", "C4096", "c8192", "C16384d", "C131072"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) assert_null(hemi_params_by_name(names[i]));
    assert_null(hemi_params_by_name(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_secure),       cmocka_unit_test(primes_fit_the_ring),
        cmocka_unit_test(rows_are_unique_and_found), cmocka_unit_test(rows_by_value),
        cmocka_unit_test(the_precise_set_by_value), cmocka_unit_test(the_ring_of_replies_by_value),
        cmocka_unit_test(the_levelled_sets_by_value), cmocka_unit_test(levels_and_digits),
        cmocka_unit_test(nothing_else_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
