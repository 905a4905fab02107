/* Constant time, by valgrind's undefined memory: secrets are marked undefined, and memcheck then reports every branch and
 * every address that depends on one (Langley's ctgrind). tests/run.sh runs this program under valgrind; alone, it only
 * tests that the calls work.
 *
 * valgrind knows no AVX-512: the portable and the AVX2 table are covered. */
#include "test.h"

#include <valgrind/memcheck.h>

#include "base/bits.h"
#include "ckks/encoder.h"
#include "random/sample.h"
#include "rlwe/context.h"
#include "rlwe/keyswitch.h"
#include "secret/batch.h"
#include "secret/cipher.h"
#include "secret/ckks.h"
#include "secret/key.h"
#include "secret/ringswitch.h"
#include "wire/ckks.h"

/* Reports of memcheck since the last call. */
static unsigned reports(void) {
    static unsigned before;
    const unsigned now = (unsigned)VALGRIND_COUNT_ERRORS, found = now - before;
    before = now;
    return found;
}

#define SECRET(pointer, bytes) VALGRIND_MAKE_MEM_UNDEFINED((pointer), (bytes))
#define REVEAL(pointer, bytes) VALGRIND_MAKE_MEM_DEFINED((pointer), (bytes))

/* The instrument works: a branch and an index on a secret are reported. */
static void a_leak_is_reported(void **state) {
    (void)state;
    static const uint8_t table[256] = {1, 2, 3};
    volatile uint8_t sink = 0;
    uint8_t secret = 1;
    reports();
    SECRET(&secret, 1);
    if (secret & 1) sink = 1;
    if (RUNNING_ON_VALGRIND) assert_true(reports() > 0);
    sink = table[secret];
    if (RUNNING_ON_VALGRIND) assert_true(reports() > 0);
    REVEAL(&secret, 1);
    (void)sink;
}

static void sampling(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    static int8_t r[COUNT];
    hemi_stream s;
    reports();
    hemi_stream_init_fresh(&s);
    SECRET(s.key, sizeof s.key);
    hemi_sample_ternary(r, COUNT, &s);
    hemi_sample_error(r, COUNT, &s);
    hemi_stream_wipe(&s);
    assert_int_equal(reports(), 0);

    uint8_t seed[HEMI_SEED_BYTES];
    hemi_seed_fresh(seed);
    SECRET(seed, sizeof seed);
    hemi_stream_init(&s, seed, HEMI_DOMAIN_SECRET, 0);
    hemi_sample_ternary(r, COUNT, &s);
    assert_int_equal(reports(), 0);
    REVEAL(r, sizeof r);
    REVEAL(&s, sizeof s);
}

typedef struct party {
    hemi_context *ctx;
    hemi_secret_key *key;
} party;

static void secret_key_bytes(const party *p, bool secret) {
    for (const hemi_secret_key *key = p->key; key; key = key->reply) {
        const size_t n = key->ctx->n;
        void *const of[] = {key->s, key->s_q, key->s_p};
        const size_t bytes[] = {n, n * sizeof(uint64_t), n * sizeof(uint64_t)};
        for (size_t i = 0; i < 3; i++) {
            if (!of[i]) continue;
            if (secret) SECRET(of[i], bytes[i]);
            else REVEAL(of[i], bytes[i]);
        }
    }
}

static void open_party_of(party *p, const char *set) {
    hemi_error err;
    assert_ok(hemi_context_new(&p->ctx, hemi_params_by_name(set), test_table(), &err), &err);
    assert_ok(hemi_secret_key_new(&p->key, p->ctx, &err), &err);
    secret_key_bytes(p, true);
    reports();
}

static void open_party(party *p) { open_party_of(p, "L4096"); }

static void close_party(party *p) {
    assert_int_equal(reports(), 0);
    secret_key_bytes(p, false);
    hemi_secret_key_free(p->key);
    hemi_context_free(p->ctx);
}

static void making_keys(void **state) {
    (void)state;
    static const uint32_t automorphisms[] = {0, HEMI_KEY_RING_SWITCH, 3, 4097, 8191};
    hemi_error err;
    party p;
    open_party(&p);
    for (size_t i = 0; i < TEST_COUNT(automorphisms); i++) {
        const size_t bytes = hemi_key_entry_bytes(p.ctx->params, automorphisms[i]);
        uint8_t *entry = malloc(bytes);
        assert_non_null(entry);
        assert_ok(hemi_secret_make_key(p.key, automorphisms[i], entry, &err), &err);
        assert_int_equal(reports(), 0);
        free(entry);
    }
    close_party(&p);
}

static void exporting(void **state) {
    (void)state;
    party p;
    open_party(&p);
    const size_t bytes = hemi_secret_key_file_bytes(p.ctx->params);
    uint8_t *file = malloc(bytes);
    assert_non_null(file);
    hemi_secret_key_export(file, p.key);
    assert_int_equal(reports(), 0);
    free(file);
    close_party(&p);
}

static void encryption_and_decryption(void **state) {
    (void)state;
    enum { INPUTS = 100, OUTPUTS = 30, B_BITS = 32, A_BITS = 25, REPLY_BITS = 20 };
    hemi_error err;
    party p;
    open_party(&p);
    const size_t n = p.ctx->n;
    test_rng rng = test_rng_new();
    int32_t x[INPUTS];
    uint32_t positions[INPUTS];
    for (uint32_t i = 0; i < INPUTS; i++) {
        x[i] = (int32_t)test_below(&rng, 255) - 127;
        positions[i] = i;
    }
    uint8_t seed[HEMI_SEED_BYTES], packed[INPUTS * B_BITS / 8];
    SECRET(x, sizeof x);
    assert_ok(hemi_secret_encrypt(p.key, x, INPUTS, UINT64_C(1) << 30, positions, INPUTS, B_BITS, seed, packed, &err), &err);
    assert_int_equal(reports(), 0);
    REVEAL(x, sizeof x);

    uint8_t *a = malloc(n * A_BITS / 8 + 8), b[OUTPUTS * REPLY_BITS / 8];
    int64_t phase[OUTPUTS];
    assert_non_null(a);
    for (size_t i = 0; i < n * A_BITS / 8; i++) a[i] = (uint8_t)test_u64(&rng);
    for (size_t i = 0; i < sizeof b; i++) b[i] = (uint8_t)test_u64(&rng);
    assert_ok(hemi_secret_decrypt(p.key, a, A_BITS, b, REPLY_BITS, positions, OUTPUTS, phase, &err), &err);
    assert_int_equal(reports(), 0);
    REVEAL(phase, sizeof phase);
    for (uint32_t i = 0; i < OUTPUTS; i++) positions[i] = 2 * i;
    assert_ok(hemi_secret_decrypt_switched(p.key, a, A_BITS, b, REPLY_BITS, positions, OUTPUTS, phase, &err), &err);
    assert_int_equal(reports(), 0);
    REVEAL(phase, sizeof phase);
    free(a);
    close_party(&p);
}

/* ---- levelled sets */

typedef struct ckks_party {
    hemi_ckks_context *ctx;
    hemi_ckks_secret *key;
} ckks_party;

static void open_ckks(ckks_party *p) {
    hemi_error err;
    assert_ok(hemi_ckks_context_new(&p->ctx, hemi_params_by_name("C8192"), test_table(), &err), &err);
    assert_ok(hemi_ckks_secret_new(&p->key, p->ctx, &err), &err);
    SECRET(p->key->s, p->ctx->n);
    SECRET(p->key->s_ntt, hemi_ckks_total(p->ctx) * p->ctx->n * sizeof(uint64_t));
    reports();
}

static void close_ckks(ckks_party *p) {
    assert_int_equal(reports(), 0);
    REVEAL(p->key->s, p->ctx->n);
    REVEAL(p->key->s_ntt, hemi_ckks_total(p->ctx) * p->ctx->n * sizeof(uint64_t));
    hemi_ckks_secret_free(p->key);
    hemi_ckks_context_free(p->ctx);
}

static void making_levelled_keys(void **state) {
    (void)state;
    static const uint32_t entries[] = {0, 1, 5, 16383};
    hemi_error err;
    ckks_party p;
    open_ckks(&p);
    const hemi_params *row = p.ctx->params;
    uint8_t *out = malloc(hemi_ckks_key_entry_bytes(row, row->chain, 1));
    assert_non_null(out);
    for (size_t i = 0; i < TEST_COUNT(entries); i++) {
        assert_ok(hemi_ckks_secret_make_key(p.key, i % 2 ? row->chain : 2, entries[i], out, &err), &err);
        assert_int_equal(reports(), 0);
    }
    hemi_ckks_secret_export(out, p.key);
    assert_int_equal(reports(), 0);
    free(out);
    close_ckks(&p);
}

/* Of a message one thing shows: that it cannot be encrypted. Neither what comes before that verdict nor what comes after has a trace of it. */
static void levelled_encryption_and_decryption(void **state) {
    (void)state;
    hemi_error err;
    ckks_party p;
    open_ckks(&p);
    test_rng rng = test_rng_new();
    const size_t n = p.ctx->n;
    double *x = malloc(n / 2 * sizeof *x);
    uint64_t *c = aligned_alloc(64, 2 * n * sizeof *c);
    int64_t *phase = malloc(n * sizeof *phase);
    uint8_t *out = malloc(hemi_ckks_ciphertext_bytes(p.ctx->params, 3));
    assert_true(x && c && phase && out);
    for (size_t i = 0; i < n / 2; i++) x[i] = test_real(&rng);
    assert_ok(hemi_ckks_secret_encrypt(p.key, x, 0x1p31, 3, out, &err), &err); /* the key alone is secret */
    assert_int_equal(reports(), 0);
    SECRET(x, n / 2 * sizeof *x);
    assert_ok(hemi_ckks_secret_encrypt(p.key, x, 0x1p31, 3, out, &err), &err);
    assert_int_equal(reports(), RUNNING_ON_VALGRIND ? 1 : 0); /* the verdict */

    for (size_t i = 0; i < 2 * n; i++) c[i] = test_below(&rng, p.ctx->params->q);
    assert_ok(hemi_ckks_secret_decrypt(p.key, c, c + n, phase, &err), &err);
    assert_int_equal(reports(), 0);
    free(x);
    free(c);
    free(phase);
    free(out);
    close_ckks(&p);
}

static void batches_of_rows(void **state) {
    (void)state;
    enum { INPUTS = 13, OUTPUTS = 9, ROWS = 50, B_BITS = 32, A_BITS = 25, REPLY_BITS = 20 };
    hemi_error err;
    party p;
    open_party_of(&p, "L2048");
    test_rng rng = test_rng_new();
    uint8_t seed[HEMI_SEED_BYTES], packed[INPUTS * B_BITS / 8], b[OUTPUTS * REPLY_BITS / 8 + 1];
    uint64_t pads[ROWS * INPUTS], masks[ROWS * OUTPUTS], scratch[INPUTS];
    int32_t x[INPUTS];
    int64_t phase[OUTPUTS];
    for (size_t i = 0; i < INPUTS; i++) x[i] = (int32_t)test_below(&rng, 255) - 127;
    hemi_seed_fresh(seed);
    assert_ok(hemi_secret_batch_pads(pads, p.key, seed, INPUTS, ROWS, &err), &err);
    assert_int_equal(reports(), 0);
    SECRET(pads, sizeof pads); /* which they are, whatever the key was */
    SECRET(x, sizeof x);
    hemi_secret_batch_encrypt(packed, pads + INPUTS, x, INPUTS, UINT64_C(1) << 30, B_BITS, p.ctx, scratch);
    assert_int_equal(reports(), 0);

    const size_t a_bytes = OUTPUTS * hemi_packed_bytes(p.ctx->n, A_BITS);
    uint8_t *a = malloc(a_bytes);
    assert_non_null(a);
    for (size_t i = 0; i < a_bytes; i++) a[i] = (uint8_t)test_u64(&rng);
    for (size_t i = 0; i < sizeof b; i++) b[i] = (uint8_t)test_u64(&rng);
    assert_ok(hemi_secret_batch_masks(masks, p.key, a, A_BITS, OUTPUTS, ROWS, &err), &err);
    assert_int_equal(reports(), 0);
    SECRET(masks, sizeof masks);
    hemi_secret_batch_decrypt(phase, b, REPLY_BITS, masks + OUTPUTS, OUTPUTS, p.ctx, scratch);
    assert_int_equal(reports(), 0);
    free(a);
    close_party(&p);
}

/* Slots of a message, and those of what is decrypted. */
static void embedding(void **state) {
    (void)state;
    enum { LOG2_N = 8, N = 1 << LOG2_N };
    const uint64_t p = UINT64_C(0xfffffffa0001);
    double re[N / 2], im[N / 2], work[N];
    int64_t a[N];
    hemi_ring *ring;
    hemi_error err;
    test_rng rng = test_rng_new();
    hemi_ckks_encoder *encoder = hemi_ckks_encoder_new(LOG2_N);
    assert_non_null(encoder);
    assert_ok(hemi_ring_new(&ring, LOG2_N, &p, 1, test_table(), &err), &err);
    uint64_t *r = aligned_alloc(64, N * sizeof *r);
    assert_non_null(r);
    for (size_t i = 0; i < N / 2; i++) {
        re[i] = test_real(&rng);
        im[i] = test_real(&rng);
    }
    reports();
    SECRET(re, sizeof re);
    SECRET(im, sizeof im);
    bool fits = hemi_ckks_embed(a, encoder, 0x1p45, re, im, work);
    assert_int_equal(reports(), 0);
    REVEAL(&fits, sizeof fits);
    assert_true(fits);
    hemi_ckks_residues(r, a, ring->limb, ring->k);
    hemi_ckks_unembed(re, im, encoder, 0x1p45, a, work);
    assert_int_equal(reports(), 0);
    free(r);
    hemi_ring_free(ring);
    hemi_ckks_encoder_free(encoder);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(making_levelled_keys), cmocka_unit_test(levelled_encryption_and_decryption),
    cmocka_unit_test(a_leak_is_reported), cmocka_unit_test(sampling),  cmocka_unit_test(making_keys),
    cmocka_unit_test(exporting),          cmocka_unit_test(encryption_and_decryption),
    cmocka_unit_test(batches_of_rows),    cmocka_unit_test(embedding),
};

int main(void) { return TEST_RUN_PER_TABLE("constant time", tests); }
