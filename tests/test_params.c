/* Every parameter set against the limits for 128 bits, by value, and nothing but the table is accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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

static void every_row_is_secure(void **state) {
    (void)state;
    assert_true(hemi_params_count() >= 3);
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        const double log2_modulus = log2((double)p->q) + (p->special != 0 ? log2((double)p->special) : 0);
        assert_true(fabs(log2_modulus - p->log2_modulus) < 1e-9);
        assert_true(log2_modulus <= limit_of(p->log2_n));
        assert_true(p->security_bits >= HEMI_SECURITY_BITS_MIN);
    }
}

static void primes_fit_the_ring(void **state) {
    (void)state;
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        const uint64_t order = UINT64_C(2) << p->log2_n;
        assert_true(hemi_is_prime(p->q));
        assert_true(p->q < UINT64_C(1) << 50);
        assert_int_equal(p->q % order, 1);
        if (p->special == 0) continue;
        assert_true(hemi_is_prime(p->special));
        assert_true(p->special < UINT64_C(1) << 50);
        assert_int_equal(p->special % order, 1);
        assert_true(p->special != p->q);
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

static void nothing_else_is_known(void **state) {
    (void)state;
    assert_null(hemi_params_at(hemi_params_count()));
    assert_null(hemi_params_at(SIZE_MAX));
    const uint32_t ids[] = {0, 5, 6, 255, 256, 257, 0x10000, 0x10001, 0x7fffffff, 0x80000001, 0xffffffff};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) assert_null(hemi_params_by_id(ids[i]));
    const char *const names[] = {"", "L409", "L40960", "l4096", " L4096", "L4096 ", "L1024", "R1024", "r2048", "R2048 ", "default", "4096"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) assert_null(hemi_params_by_name(names[i]));
    assert_null(hemi_params_by_name(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_secure),       cmocka_unit_test(primes_fit_the_ring),
        cmocka_unit_test(rows_are_unique_and_found), cmocka_unit_test(rows_by_value),
        cmocka_unit_test(the_precise_set_by_value), cmocka_unit_test(the_ring_of_replies_by_value),
        cmocka_unit_test(nothing_else_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
