/* Sampling. Randomness comes from libsodium: a fresh 32-byte seed from randombytes, expanded by ChaCha20. */
#ifndef HEMI_RANDOM_SAMPLE_H
#define HEMI_RANDOM_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#define HEMI_SEED_BYTES 32

/* Called once by whatever uses this room (thread-safe, cheap later). 0 or -1. */
int hemi_random_init(void);

/* A stream of bytes from a seed: secret when the seed is. Held by the caller; wiped with hemi_stream_wipe. */
typedef struct hemi_stream {
    uint8_t key[32];
    uint64_t block; /* next 64-byte block of the key stream */
} hemi_stream;

/* Stream `index` of domain `domain` under the seed: key = BLAKE2b-256("hemi-stream-v1\0\0" || LE32 domain || LE32 index ||
 * seed). Different (domain, index) give independent streams. */
void hemi_stream_init(hemi_stream *s, const uint8_t seed[HEMI_SEED_BYTES], uint32_t domain, uint32_t index);
/* A stream from a fresh seed that nobody sees. */
void hemi_stream_init_fresh(hemi_stream *s);
void hemi_stream_bytes(hemi_stream *s, uint8_t *out, size_t bytes);
void hemi_stream_wipe(hemi_stream *s);
/* A fresh public seed, from randombytes. */
void hemi_seed_fresh(uint8_t seed[HEMI_SEED_BYTES]);
/* A seed that follows from a secret and from what it is for: BLAKE2b-256, keyed with the secret, of
 * "hemi-derive-v1\0\0" || LE32 domain || context. It is as secret as the secret. */
void hemi_seed_derive(uint8_t seed[HEMI_SEED_BYTES], const uint8_t secret[HEMI_SEED_BYTES], uint32_t domain,
                      const void *context, size_t context_bytes);

/* n uniform residues below p < 2^56, from a PUBLIC seed (rejection: variable time): successive 8-byte little-endian
 * words of the stream, masked to the bit length of p, those >= p skipped. docs/wire-format.md pins this rule. */
void hemi_sample_uniform_vartime(uint64_t *r, size_t n, uint64_t p, const uint8_t seed[HEMI_SEED_BYTES],
                                 uint32_t domain, uint32_t index);
/* n values of {-1, 0, 1}, at a statistical distance of uniform below n 2^-51; constant time. */
void hemi_sample_ternary(int8_t *r, size_t n, hemi_stream *s);
/* n centred binomial values, eta = 21: popcount of 21 bits minus popcount of 21 others; |r| <= 21; constant time. */
void hemi_sample_error(int8_t *r, size_t n, hemi_stream *s);

#define HEMI_ERROR_ETA 21
#define HEMI_ERROR_VARIANCE 10.5 /* eta / 2 */

/* Domains: what a seed is expanded for. Evaluation keys use HEMI_DOMAIN_KEY + the automorphism. SECRET and ZERO are of seeds that are
 * secret: those of a client's key and of a server's encryptions of zero. */
enum {
    HEMI_DOMAIN_CIPHERTEXT = 1,
    HEMI_DOMAIN_PUBLIC_KEY = 2,
    HEMI_DOMAIN_SECRET = 3,
    HEMI_DOMAIN_BATCH = 4,
    HEMI_DOMAIN_ZERO = 5,
    HEMI_DOMAIN_KEY = 0x10000000
};

#endif
