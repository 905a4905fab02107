/* For tests of levelled sets: rows that are in no table, and one client of such a set. */
#ifndef HEMI_TESTS_CKKS_H
#define HEMI_TESTS_CKKS_H

#include "ckks/cipher.h"
#include "ckks/encoder.h"
#include "crypto.h"
#include "secret/ckks.h"
#include "wire/ckks.h"

/* Primes of set C65536, 1 modulo 2^17 and so fit for any degree: a base, six for levels, two special ones. */
static const uint64_t test_ckks_primes[] = {0xfffffffa0001, 0x3fffe80001, 0x4000300001, 0x3fffb80001, 0x40004a0001,
                                            0x3fffb20001,   0x4000540001, 0xffffe80001, 0xffffc40001};
#define TEST_CKKS_CHAIN 7

/* A row for tests alone: digits of `digit_limbs` primes, the last digit cut short. */
TEST_UNUSED static hemi_params test_ckks_params(uint32_t log2_n, uint32_t digit_limbs) {
    return (hemi_params){.id = 1000,
                         .name = "test",
                         .log2_n = log2_n,
                         .q = test_ckks_primes[0],
                         .special = test_ckks_primes[TEST_CKKS_CHAIN],
                         .chain = TEST_CKKS_CHAIN,
                         .specials = 2,
                         .digit_limbs = digit_limbs,
                         .scale_bits = 38,
                         .prime = test_ckks_primes};
}

typedef struct ckks_party {
    hemi_params own; /* of a row made up */
    hemi_ckks_context *ctx;
    hemi_ckks_secret *sk;
} ckks_party;

/* params NULL: a row made up, p->own, which the caller has filled in. */
TEST_UNUSED static void ckks_open(ckks_party *p, const hemi_params *params, const hemi_kernels *table) {
    ASSERT_OK(hemi_ckks_context_new(&p->ctx, params ? params : &p->own, table, ERR));
    ASSERT_OK(hemi_ckks_secret_new(&p->sk, p->ctx, ERR));
}

TEST_UNUSED static void ckks_close(ckks_party *p) {
    hemi_ckks_secret_free(p->sk);
    hemi_ckks_context_free(p->ctx);
}

#endif
