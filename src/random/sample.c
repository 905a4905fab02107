/* The rules by which bytes become numbers. They are pinned: docs/wire-format.md repeats the uniform one, since client and
 * server expand the same seeds.
 *
 *   stream    ChaCha20 (64-bit nonce 0, 64-bit block counter) under the key that hemi_stream_init derives. A call of any
 *             function takes whole 64-byte blocks: what it leaves of its last block is not used.
 *   uniform   successive 64-bit little-endian words, masked to the bit length of p; a word >= p is skipped.
 *   ternary   successive 64-bit little-endian words; x_0 = the low 61 bits of a word, y_t = 3 x_t, x_(t+1) = y_t mod 2^61;
 *             value 4i + t is floor(y_t / 2^61) - 1 for word i, t = 0 .. 3. The four together are floor(81 x_0 / 2^61):
 *             each of the 81 results has floor or ceil(2^61 / 81) of the 2^61 words, a distance below 81 / 2^61 < 2^-54.6
 *             from uniform for four values.
 *   error     blocks of 256 values from 42 strings of 32 bytes; bit i of a string is bit i mod 8 of its byte floor(i/8);
 *             value i = sum of the bits i of strings 0 .. 20 - sum of those of strings 21 .. 41. */
#include "random/sample.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/memory.h"

#define BLOCK 64            /* bytes of a ChaCha20 block */
#define CHUNK_WORDS 512     /* 4 KiB of stream at a time: it stays in the first-level cache */
#define TRITS_PER_WORD 4
#define TRIT_BITS 61
#define STRINGS (2 * HEMI_ERROR_ETA)
#define STRING_BYTES 32
#define ERRORS_PER_BLOCK (8 * STRING_BYTES)
#define ERROR_BLOCKS_PER_CHUNK 4

static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_int ready = -1;

static void start(void) { atomic_store(&ready, sodium_init() < 0 ? -1 : 0); }

int hemi_random_init(void) {
    pthread_once(&once, start);
    return atomic_load(&ready);
}

/* libsodium cannot start when the system has no source of randomness. There is no safe way to go on, and no input that
 * leads here: the one place where the library ends the process. */
static void fresh_bytes(uint8_t *out, size_t bytes) {
    if (hemi_random_init() != 0) abort();
    randombytes_buf(out, bytes);
}

void hemi_seed_fresh(uint8_t seed[HEMI_SEED_BYTES]) { fresh_bytes(seed, HEMI_SEED_BYTES); }

void hemi_seed_derive(uint8_t seed[HEMI_SEED_BYTES], const uint8_t secret[HEMI_SEED_BYTES], uint32_t domain,
                      const void *context, size_t context_bytes) {
    static const uint8_t prefix[16] = "hemi-derive-v1\0"; /* and the final zero: 16 bytes */
    uint8_t number[4];
    crypto_generichash_state state;
    (void)hemi_random_init(); /* chooses libsodium's fast code; the result does not depend on it */
    hemi_store32(number, domain);
    crypto_generichash_init(&state, secret, HEMI_SEED_BYTES, HEMI_SEED_BYTES);
    crypto_generichash_update(&state, prefix, sizeof prefix);
    crypto_generichash_update(&state, number, sizeof number);
    crypto_generichash_update(&state, context, context_bytes);
    crypto_generichash_final(&state, seed, HEMI_SEED_BYTES);
    hemi_wipe(&state, sizeof state);
}

void hemi_stream_init(hemi_stream *s, const uint8_t seed[HEMI_SEED_BYTES], uint32_t domain, uint32_t index) {
    static const char prefix[16] = "hemi-stream-v1\0"; /* and the final zero: 16 bytes */
    uint8_t input[sizeof prefix + 8 + HEMI_SEED_BYTES];
    (void)hemi_random_init(); /* chooses libsodium's fast code; the result does not depend on it */
    memcpy(input, prefix, sizeof prefix);
    hemi_store32(input + sizeof prefix, domain);
    hemi_store32(input + sizeof prefix + 4, index);
    memcpy(input + sizeof prefix + 8, seed, HEMI_SEED_BYTES);
    crypto_generichash(s->key, sizeof s->key, input, sizeof input, NULL, 0);
    s->block = 0;
    hemi_wipe(input, sizeof input);
}

void hemi_stream_init_fresh(hemi_stream *s) {
    fresh_bytes(s->key, sizeof s->key);
    s->block = 0;
}

void hemi_stream_bytes(hemi_stream *s, uint8_t *out, size_t bytes) {
    static const uint8_t nonce[crypto_stream_chacha20_NONCEBYTES] = {0};
    memset(out, 0, bytes);
    crypto_stream_chacha20_xor_ic(out, out, bytes, nonce, s->block, s->key);
    s->block += (bytes + BLOCK - 1) / BLOCK;
}

void hemi_stream_wipe(hemi_stream *s) { hemi_wipe(s, sizeof *s); }

static size_t at_most(size_t a, size_t b) { return a < b ? a : b; }
/* Full chunks, and a whole number of blocks for the rest: the words of all calls together are successive. */
static size_t whole_blocks(size_t bytes) { return (bytes + BLOCK - 1) / BLOCK * BLOCK; }

void hemi_sample_uniform_vartime(uint64_t *r, size_t n, uint64_t p, const uint8_t seed[HEMI_SEED_BYTES],
                                 uint32_t domain, uint32_t index) {
    uint8_t chunk[8 * CHUNK_WORDS];
    const uint64_t mask = p > 1 ? UINT64_MAX >> __builtin_clzll(p) : 1;
    hemi_stream s;
    hemi_stream_init(&s, seed, domain, index);
    for (size_t k = 0; k < n;) {
        const size_t words = at_most(CHUNK_WORDS, n - k); /* not more than are missing, so r + k stays inside */
        const size_t bytes = whole_blocks(8 * words);
        hemi_stream_bytes(&s, chunk, bytes);
        size_t i = 0;
        for (; i < words; i++) { /* without a branch: a word that is skipped is overwritten by the next */
            const uint64_t v = hemi_load64(chunk + 8 * i) & mask;
            r[k] = v;
            k += v < p;
        }
        for (; i < bytes / 8 && k < n; i++) {
            const uint64_t v = hemi_load64(chunk + 8 * i) & mask;
            r[k] = v;
            k += v < p;
        }
    }
}

void hemi_sample_ternary(int8_t *r, size_t n, hemi_stream *s) {
    uint8_t chunk[8 * CHUNK_WORDS], found[TRITS_PER_WORD * CHUNK_WORDS];
    const uint64_t mask = (UINT64_C(1) << TRIT_BITS) - 1;
    for (size_t k = 0; k < n;) {
        const size_t values = at_most(TRITS_PER_WORD * CHUNK_WORDS, n - k);
        const size_t words = (values + TRITS_PER_WORD - 1) / TRITS_PER_WORD;
        const size_t bytes = whole_blocks(8 * words);
        hemi_stream_bytes(s, chunk, bytes);
        for (size_t i = 0; i < words; i++) { /* four trits, as bytes 0, 1, 2 */
            uint64_t x = hemi_load64(chunk + 8 * i) & mask;
            uint64_t trits = 0;
            for (unsigned t = 0; t < TRITS_PER_WORD; t++) {
                const uint64_t y = 3 * x;
                trits |= (y >> TRIT_BITS) << (8 * t);
                x = y & mask;
            }
            hemi_store32(found + TRITS_PER_WORD * i, (uint32_t)trits);
        }
        for (size_t i = 0; i < values; i++) r[k + i] = (int8_t)(found[i] - 1);
        k += values;
    }
    hemi_wipe(chunk, sizeof chunk);
    hemi_wipe(found, sizeof found);
}

/* 256 bits, on which one operation is 256: four words, so that the compiler makes vectors of them. */
#define LANES (STRING_BYTES / 8)
typedef struct bits256 {
    uint64_t w[LANES];
} bits256;

/* The full adder, bit by bit: sum + 2 carry = a + b + c. */
static inline void full_add(bits256 *sum, bits256 *carry, const bits256 *a, const bits256 *b, const bits256 *c) {
    for (int i = 0; i < LANES; i++) {
        const uint64_t x = a->w[i] ^ b->w[i], y = a->w[i] & b->w[i], z = c->w[i];
        carry->w[i] = y | (x & z);
        sum->w[i] = x ^ z;
    }
}

#define PLANES 6 /* bits of a sum of 42 */

/* Plane j becomes bit j of the sum of all strings, at every place. The strings are overwritten. */
static inline void count_bits(bits256 planes[PLANES], bits256 strings[STRINGS]) {
    static const bits256 zero = {{0}};
    bits256 carry[STRINGS / 2];
    size_t count = STRINGS; /* strings[0 .. count) have weight 2^j */
    for (int j = 0; j < PLANES; j++) {
        size_t carries = 0;
        for (; count > 2; count -= 2, carries++) {
            const bits256 a = strings[count - 1], b = strings[count - 2], c = strings[count - 3];
            full_add(&strings[count - 3], &carry[carries], &a, &b, &c);
        }
        if (count == 2) {
            const bits256 a = strings[0], b = strings[1];
            full_add(&strings[0], &carry[carries++], &a, &b, &zero);
        }
        planes[j] = strings[0];
        memcpy(strings, carry, carries * sizeof *carry);
        count = carries;
    }
    hemi_wipe(carry, sizeof carry);
}

/* Bit 8 i + j becomes bit 8 j + i (Warren, Hacker's Delight, 7-3). */
static inline uint64_t transpose8x8(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA);
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC);
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0);
    return x ^ t ^ (t << 28);
}

static void error_block(int8_t r[ERRORS_PER_BLOCK], uint8_t stream[STRINGS * STRING_BYTES]) {
    bits256 strings[STRINGS], planes[PLANES];
    for (int j = 0; j < STRINGS; j++) /* 21 - (sum of a bit string) is the sum of its complement */
        for (int i = 0; i < LANES; i++)
            strings[j].w[i] = hemi_load64(stream + STRING_BYTES * j + 8 * i) ^ (0 - (uint64_t)(j >= HEMI_ERROR_ETA));
    count_bits(planes, strings);
    for (int i = 0; i < LANES; i++)
        for (int byte = 0; byte < 8; byte++) { /* eight sums: a byte of each plane, transposed */
            uint64_t rows = 0;
            for (int j = 0; j < PLANES; j++) rows |= (planes[j].w[i] >> (8 * byte) & 0xFF) << (8 * j);
            hemi_store64(stream + 64 * i + 8 * byte, transpose8x8(rows));
        }
    for (int i = 0; i < ERRORS_PER_BLOCK; i++) r[i] = (int8_t)(stream[i] - HEMI_ERROR_ETA);
    hemi_wipe(strings, sizeof strings);
    hemi_wipe(planes, sizeof planes);
}

void hemi_sample_error(int8_t *r, size_t n, hemi_stream *s) {
    uint8_t chunk[ERROR_BLOCKS_PER_CHUNK * STRINGS * STRING_BYTES];
    int8_t last[ERRORS_PER_BLOCK];
    for (size_t k = 0; k < n;) {
        const size_t blocks = at_most(ERROR_BLOCKS_PER_CHUNK, (n - k + ERRORS_PER_BLOCK - 1) / ERRORS_PER_BLOCK);
        hemi_stream_bytes(s, chunk, blocks * STRINGS * STRING_BYTES);
        for (size_t b = 0; b < blocks; b++) {
            const size_t values = at_most(ERRORS_PER_BLOCK, n - k);
            const bool whole = values == ERRORS_PER_BLOCK;
            error_block(whole ? r + k : last, chunk + b * STRINGS * STRING_BYTES);
            if (!whole) memcpy(r + k, last, values);
            k += values;
        }
    }
    hemi_wipe(chunk, sizeof chunk);
    hemi_wipe(last, sizeof last);
}
