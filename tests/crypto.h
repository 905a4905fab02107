/* For tests of the cryptography: parameter rows that are in no table, contexts and keys of them, and measured variances. */
#ifndef HEMI_TESTS_CRYPTO_H
#define HEMI_TESTS_CRYPTO_H

#include "base/bits.h"
#include "base/memory.h"
#include "random/sample.h"
#include "rlwe/ringswitch.h"
#include "secret/key.h"
#include "test.h"
#include "wire/wire.h"

#define TEST_Q UINT64_C(0xfffffffa0001)  /* 48 bits, 1 modulo 2^17: those of set L4096, for any degree */
#define TEST_P UINT64_C(0x3ffffffd20001) /* 50 bits */
#define TEST_R UINT64_C(0x3fffa0000001)  /* 46 bits, 1 modulo 2^28: that of set R2048, for any degree */

TEST_UNUSED static hemi_error test_err;
#define ERR             (&test_err)
#define ASSERT_OK(call) assert_ok(call, ERR)

/* Rows that are not levelled; they are the table's first. */
TEST_UNUSED static size_t test_linear_sets(void) {
    size_t count = 0;
    while (count < hemi_params_count() && hemi_params_at(count)->chain == 0) count++;
    return count;
}

/* A row for tests alone. special = 0: no key switching. */
TEST_UNUSED static hemi_params test_params(uint32_t log2_n, uint64_t q, uint64_t special) {
    const double log2_modulus = log2((double)q) + (special ? log2((double)special) : 0);
    return (hemi_params){
        .id = 1000, .name = "test", .log2_n = log2_n, .q = q, .special = special, .log2_modulus = log2_modulus};
}

/* The row of replies for a row of degree 2^(log2_n + 1). */
TEST_UNUSED static hemi_params test_reply_params(uint32_t log2_n) {
    hemi_params p = test_params(log2_n, TEST_R, 0);
    p.id = 1001;
    p.name = "test replies";
    p.reply_only = true;
    return p;
}

/* The largest prime below 2^bits that is 1 modulo 2^17. */
TEST_UNUSED static uint64_t test_prime(unsigned bits) {
    uint64_t p = (UINT64_C(1) << bits) - (1 << 17) + 1;
    while (!hemi_is_prime(p)) p -= 1 << 17;
    return p;
}

/* One client: a context and a secret key. */
typedef struct party {
    hemi_params own; /* of a row made up */
    hemi_context *ctx;
    hemi_secret_key *sk;
} party;

/* params NULL: a row made up, p->own, which the caller has filled in. */
TEST_UNUSED static void party_open(party *p, const hemi_params *params, const hemi_kernels *table) {
    ASSERT_OK(hemi_context_new(&p->ctx, params ? params : &p->own, table, ERR));
    ASSERT_OK(hemi_secret_key_new(&p->sk, p->ctx, ERR));
}

TEST_UNUSED static void party_close(party *p) {
    hemi_secret_key_free(p->sk);
    hemi_context_free(p->ctx);
}

/* Every automorphism of the family, increasing; returns how many. */
TEST_UNUSED static size_t test_family(const hemi_context *ctx, uint32_t *t) {
    if (!ctx->special) return 0;
    for (uint32_t j = 1; j <= ctx->log2_n; j++) t[j - 1] = 1 + (UINT32_C(1) << j);
    t[ctx->log2_n] = 2 * ctx->n - 1;
    return ctx->log2_n + 1;
}

/* Bytes of evaluation keys in wire form, header included: the public key and one entry for each t. */
TEST_UNUSED static size_t test_key_total(const hemi_params *p, const uint32_t *t, size_t count) {
    size_t bytes = HEMI_KEYS_HEADER_BYTES + hemi_key_entry_bytes(p, 0);
    for (size_t i = 0; i < count; i++) bytes += hemi_key_entry_bytes(p, t[i]);
    return bytes;
}

/* Evaluation keys in wire form, without the header: one entry for the public key, then one for each t. */
TEST_UNUSED static uint8_t *test_key_bytes(const hemi_secret_key *sk, const uint32_t *t, size_t count) {
    const hemi_params *p = sk->ctx->params;
    uint8_t *bytes = hemi_alloc(test_key_total(p, t, count), 1), *at = bytes;
    assert_non_null(bytes);
    for (size_t i = 0; i <= count; i++) {
        const uint32_t entry = i == 0 ? 0 : t[i - 1];
        ASSERT_OK(hemi_secret_make_key(sk, entry, at, ERR));
        at += hemi_key_entry_bytes(p, entry);
    }
    return bytes;
}

/* The same bytes made ready by any table of kernels. */
TEST_UNUSED static hemi_evaluation_keys *test_keys_from(const hemi_context *ctx, const uint8_t *bytes,
                                                        const uint32_t *t, size_t count) {
    const size_t n = ctx->n;
    hemi_evaluation_keys *keys;
    uint64_t *b = hemi_alloc(3 * n, sizeof *b);
    assert_non_null(b);
    ASSERT_OK(hemi_evaluation_keys_new(&keys, ctx, t, count, ERR));
    if (count > 0 && t[0] == HEMI_KEY_RING_SWITCH) { /* the second entry */
        const uint8_t *entry = bytes + hemi_key_entry_bytes(ctx->params, 0);
        const size_t m = ctx->reply->n, bits = ctx->reply->q->m.bits;
        for (size_t j = 0; j < HEMI_RINGSWITCH_SAMPLES; j++)
            hemi_unpack(b + j * m, entry + HEMI_KEY_ENTRY_HEADER_BYTES + j * hemi_packed_bytes(m, (unsigned)bits), m, (unsigned)bits);
        hemi_ringswitch_key_set(keys, entry + 8, b, b + 2 * n);
    }
    const size_t first = keys->ring_switch ? 1 : 0; /* of the automorphisms in t */
    for (size_t i = 0; i + first <= count; i++) {
        const uint32_t entry = i == 0 ? 0 : t[first + i - 1];
        if (i == 1 && first) bytes += hemi_key_entry_bytes(ctx->params, HEMI_KEY_RING_SWITCH);
        const uint8_t *packed = bytes + HEMI_KEY_ENTRY_HEADER_BYTES;
        hemi_unpack(b, packed, n, ctx->q->m.bits);
        if (i > 0) hemi_unpack(b + n, packed + hemi_packed_bytes(n, ctx->q->m.bits), n, ctx->special->m.bits);
        hemi_evaluation_keys_set(keys, i, bytes + 8, b, i > 0 ? b + n : NULL);
        bytes += hemi_key_entry_bytes(ctx->params, entry);
    }
    hemi_free(b);
    return keys;
}

TEST_UNUSED static hemi_evaluation_keys *test_keys(const hemi_secret_key *sk, const uint32_t *t, size_t count) {
    uint8_t *bytes = test_key_bytes(sk, t, count);
    hemi_evaluation_keys *keys = test_keys_from(sk->ctx, bytes, t, count);
    hemi_free(bytes);
    return keys;
}

/* Errors gathered one by one. */
typedef struct moments {
    size_t count;
    double sum, squares, fourth, largest;
} moments;

TEST_UNUSED static void moments_add(moments *m, double v) {
    m->count++;
    m->sum += v;
    m->squares += v * v;
    m->fourth += v * v * v * v;
    m->largest = fmax(m->largest, fabs(v));
}

TEST_UNUSED static double moments_variance(const moments *m) { return m->squares / (double)m->count; }

/* The ratio of the measured standard deviation to the predicted one. Prints it; fails unless mean and variance are those predicted
 * within six standard deviations of the estimate (its kurtosis measured too), plus a share `slack` of the standard
 * deviation for what is fixed by one key. */
TEST_UNUSED static double moments_check(const moments *m, double variance, double slack, const char *what) {
    const double n = (double)m->count, measured = moments_variance(m), ratio = sqrt(measured / variance);
    const double kurtosis = m->fourth / n / (measured * measured),
                 sigmas = TEST_SIGMAS * sqrt(fmax(kurtosis - 1, 0.1) / n) / 2;
    printf("  %-46s %8zu samples, std %.5g = %.4f of predicted\n", what, m->count, sqrt(measured), ratio);
    if (fabs(ratio - 1) > slack + sigmas)
        fail_msg("%s: standard deviation %g, predicted %g (ratio %.4f, allowed 1 +- %.4f)", what, sqrt(measured),
                 sqrt(variance), ratio, slack + sigmas);
    if (fabs(m->sum / n) > (1 + slack) * TEST_SIGMAS * sqrt(variance / n) + slack * sqrt(variance))
        fail_msg("%s: mean %g of errors with standard deviation %g", what, m->sum / n, sqrt(variance));
    return ratio;
}

/* A tiny ring with every key there is, for all the shapes of a test; reply: with the ring of replies, and the key to it. */
typedef struct ring_keys {
    hemi_params reply;
    party p;
    hemi_evaluation_keys *keys;
} ring_keys;

TEST_UNUSED static void ring_open(ring_keys *r, uint32_t log2_n, bool reply) {
    uint32_t t[HEMI_FAMILY_MAX + 1] = {HEMI_KEY_RING_SWITCH};
    const size_t first = reply ? 1 : 0;
    *r = (ring_keys){.p.own = test_params(log2_n, TEST_Q, TEST_P)};
    if (reply) {
        r->reply = test_reply_params(log2_n - 1);
        r->p.own.reply = &r->reply;
    }
    party_open(&r->p, NULL, test_table());
    r->keys = test_keys(r->p.sk, t, first + test_family(r->p.ctx, t + first));
    assert_true((r->keys->ring_switch != NULL) == reply);
}

TEST_UNUSED static void ring_close(ring_keys *r) {
    hemi_evaluation_keys_free(r->keys);
    party_close(&r->p);
}

#endif
