/* A parameter set at work: its ring, constants and automorphisms. And a client's evaluation keys. */
#ifndef HEMI_RLWE_CONTEXT_H
#define HEMI_RLWE_CONTEXT_H

#include <pthread.h>

#include "hemi/params.h"
#include "random/sample.h"
#include "ring/ring.h"

/* The family of automorphisms: t = 1 + 2^j, j = 1 .. log2 N, and t = 2N - 1 = -1. */
#define HEMI_FAMILY_MAX (HEMI_RING_LOG2_N_MAX + 1)

/* Immutable after creation; shared between threads. */
typedef struct hemi_context {
    const hemi_params *params;
    uint32_t n, log2_n;
    hemi_ring *ring;
    const hemi_kernels *k;
    const hemi_limb *q;       /* ciphertext modulus */
    const hemi_limb *special; /* P; NULL if the set has no key switching */
    uint64_t special_mod_q;   /* P mod q */
    uint64_t special_inverse; /* P^-1 mod q */
    struct hemi_context *reply; /* of params->reply; NULL if there is none */
    uint32_t *index[HEMI_FAMILY_MAX]; /* slot permutations of the family: element j < log2 N is 1 + 2^(j+1), element log2 N is -1 */
} hemi_context;

/* ERR_PARAMS if the set is levelled: for circuits (ckks/context.h), not for linear maps. */
HEMI_CHECK hemi_status hemi_context_check(const hemi_params *params, hemi_error *err);
/* kernels: NULL for the default table. ERR_PARAMS if the set is levelled. */
HEMI_CHECK hemi_status hemi_context_new(hemi_context **out, const hemi_params *params, const hemi_kernels *kernels, hemi_error *err);
void hemi_context_free(hemi_context *ctx);
/* Contexts of any kind, one per set and default table, made when first asked for, living as long as the process. Zeroed but for the lock:
 * {PTHREAD_MUTEX_INITIALIZER}. */
#define HEMI_CONTEXTS_MAX 64
typedef struct hemi_context_cache {
    pthread_mutex_t lock;
    size_t count;
    struct {
        const hemi_params *params;
        const hemi_kernels *k;
        void *context;
    } made[HEMI_CONTEXTS_MAX];
} hemi_context_cache;
typedef hemi_status (*hemi_context_maker)(void **out, const hemi_params *params, const hemi_kernels *kernels, hemi_error *err);
HEMI_CHECK hemi_status hemi_context_cached(void **out, hemi_context_cache *cache, hemi_context_maker make, const hemi_params *params,
                                           hemi_error *err);
HEMI_CHECK hemi_status hemi_context_shared(const hemi_context **out, const hemi_params *params, hemi_error *err);

/* The slot permutation of X -> X^t; NULL if t is not of the family. */
const uint32_t *hemi_context_automorphism(const hemi_context *ctx, uint32_t t);

/* Key entries are numbered: t, or for digit d > 0 (of sets with baby_digits) t + d 2^20. */
#define HEMI_KEY_DIGIT_SHIFT 20
#define HEMI_KEY_NUMBER(t, digit) ((t) | (uint32_t)(digit) << HEMI_KEY_DIGIT_SHIFT)
static inline uint32_t hemi_key_automorphism(uint32_t number) { return number & ((1u << HEMI_KEY_DIGIT_SHIFT) - 1); }
static inline uint32_t hemi_key_digit(uint32_t number) { return number >> HEMI_KEY_DIGIT_SHIFT; }
/* Whether a set has a use for the key of that number (which is not that of the public or the ring-switching key): automorphisms of the
 * family; in sets with baby_digits any automorphism, of any digit. */
bool hemi_key_is_known(const hemi_params *params, uint32_t number);

/* A key-switching key from s(X^t) to s: over q and P, (b, a) with b = -a s + e + P 2^(digit_bits digit) s(X^t). Fixed form. */
typedef struct hemi_galois_key {
    uint32_t t; /* its number */
    const uint32_t *index;
    uint64_t *b_q, *a_q, *b_p, *a_p;
} hemi_galois_key;

/* Evaluation keys of one client. Immutable after creation. */
typedef struct hemi_evaluation_keys {
    const hemi_context *ctx;
    uint64_t *public_b, *public_a; /* (b, a) = (-a s + e, a) over q, fixed form */
    size_t count;
    hemi_galois_key *key; /* increasing t */
    uint64_t *ring_switch; /* the ring-switching key (rlwe/ringswitch.h); NULL: none */
    uint64_t *storage;
    uint32_t *index; /* slot permutations of automorphisms outside the family */
    size_t bytes; /* memory held */
} hemi_evaluation_keys;

/* The entry that is no automorphism's key but the ring-switching key. */
#define HEMI_KEY_RING_SWITCH 1

/* Room for the public key and `count` further entries: t[0] may be HEMI_KEY_RING_SWITCH, the others are automorphisms. They are
 * filled in by hemi_evaluation_keys_set and hemi_ringswitch_key_set. */
HEMI_CHECK hemi_status hemi_evaluation_keys_new(hemi_evaluation_keys **out, const hemi_context *ctx, const uint32_t *t, size_t count,
                                                hemi_error *err);
/* Entry i = 0 is the public key, i > 0 the key of automorphism i - 1. b_q and b_p: canonical residues in NTT form, overwritten; b_p is
 * NULL for the public key. a is expanded from the seed. */
void hemi_evaluation_keys_set(hemi_evaluation_keys *keys, size_t i, const uint8_t seed[HEMI_SEED_BYTES], uint64_t *b_q, uint64_t *b_p);
void hemi_evaluation_keys_free(hemi_evaluation_keys *keys);
/* NULL if there is none for t. */
const hemi_galois_key *hemi_evaluation_keys_find(const hemi_evaluation_keys *keys, uint32_t t);

/* The a-part of key entry t (0: public key), limb 0 (q) or 1 (P): the same expansion on both sides. */
void hemi_key_expand_a(uint64_t *a, const hemi_context *ctx, uint32_t t, size_t limb, const uint8_t seed[HEMI_SEED_BYTES]);

#endif
