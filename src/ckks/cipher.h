/* Ciphertexts, evaluation keys and the operations on them. A ciphertext (c0, c1) of slots z holds c0 + c1 s = scale * embedding^-1(z) + error,
 * over q_0 ... q_(limbs-1), in NTT form. Scales are exact doubles: an operation that adds needs equal ones (to 2^-40). */
#ifndef HEMI_CKKS_CIPHER_H
#define HEMI_CKKS_CIPHER_H

#include "base/threads.h"
#include "ckks/context.h"

typedef struct hemi_ckks_cipher {
    uint32_t limbs;
    double scale;
    uint64_t *c0, *c1; /* limb i at i n; one block of memory that begins at c0 */
} hemi_ckks_cipher;

HEMI_CHECK hemi_status hemi_ckks_cipher_init(hemi_ckks_cipher *c, const hemi_ckks_context *ctx, uint32_t limbs, hemi_error *err);
void hemi_ckks_cipher_clear(hemi_ckks_cipher *c); /* takes a zeroed one */

/* ---- keys. Key entries are numbered: 0 the public key, over q_0 alone; HEMI_CKKS_KEY_PRODUCT: from s^2 to s; otherwise the automorphism t:
 * from s(X^t) to s. */
#define HEMI_CKKS_KEY_PUBLIC  0
#define HEMI_CKKS_KEY_PRODUCT 1

/* A key-switching key from s' to s: for digit d (of hemi_ckks_digits) and limb j of `limbs` + specials limbs (the chain's first, then the
 * special ones), (b, a) with b = -a s + e + [j in digit d] P s', at hemi_ckks_key_at. The form of the kernels' gadget_product. */
typedef struct hemi_ckks_key {
    uint32_t t;
    const uint32_t *index; /* slot permutation; NULL for HEMI_CKKS_KEY_PRODUCT */
    uint8_t *b, *a;
} hemi_ckks_key;

/* Evaluation keys of one client, for ciphertexts of at most `limbs` limbs. Immutable after creation. */
typedef struct hemi_ckks_keys {
    const hemi_ckks_context *ctx;
    uint32_t limbs;
    uint64_t *public_b, *public_a; /* over q_0, NTT form, canonical */
    size_t count;
    hemi_ckks_key *key; /* increasing t */
    uint32_t *index;
    uint8_t *storage;
    size_t bytes;
} hemi_ckks_keys;

/* Room for the public key and entries t[0 .. count-1] (increasing; not 0), to be filled in by hemi_ckks_keys_set. ERR_KEY for a t that
 * is no entry, ERR_PARAMS for a degree below 8. */
HEMI_CHECK hemi_status hemi_ckks_keys_new(hemi_ckks_keys **out, const hemi_ckks_context *ctx, uint32_t limbs, const uint32_t *t,
                                          size_t count, hemi_error *err);
void hemi_ckks_keys_free(hemi_ckks_keys *keys);
/* At most what keys->bytes is with so many keys. */
size_t hemi_ckks_keys_memory(const hemi_params *params, uint32_t limbs, size_t count);
/* Part (digit, limb) of entry i (0: the public key, which has one part; otherwise key i - 1). b: n canonical residues in NTT form,
 * overwritten. The a-part is expanded from the seed. */
void hemi_ckks_keys_set(hemi_ckks_keys *keys, size_t i, uint32_t digit, uint32_t limb, const uint8_t seed[HEMI_SEED_BYTES], uint64_t *b);
const hemi_ckks_key *hemi_ckks_keys_find(const hemi_ckks_keys *keys, uint32_t t); /* NULL: none */
/* The a-part of an entry: the same expansion on both sides. limb: of the ring (hemi_ckks_limb), so that keys for fewer limbs are a part of
 * those for more. */
void hemi_ckks_key_expand_a(uint64_t *a, const hemi_ckks_context *ctx, uint32_t t, uint32_t digit, uint32_t ring_limb,
                            const uint8_t seed[HEMI_SEED_BYTES]);
/* Whether t can be the number of an entry: 0, 1, or odd, 3 ... 2n - 1. */
bool hemi_ckks_key_is_known(const hemi_params *params, uint32_t t);
/* Limbs of an entry's parts: ring limb of part j, where keys are for `limbs` limbs. */
static inline uint32_t hemi_ckks_ring_limb(const hemi_ckks_context *ctx, uint32_t limbs, uint32_t j) {
    return j < limbs ? j : ctx->chain + (j - limbs);
}

/* Bytes from digit to digit: what is read side by side begins at different places of its pages, and so in different sets of caches. */
#define HEMI_CKKS_KEY_STRIDE(n) (6 * (size_t)(n) + 576)
static inline size_t hemi_ckks_key_stride(const hemi_ckks_context *ctx) { return HEMI_CKKS_KEY_STRIDE(ctx->n); }
/* Where part (digit, j) of a key is, in b and in a: what belongs to one limb lies together. */
static inline size_t hemi_ckks_key_at(const hemi_ckks_keys *keys, uint32_t digit, uint32_t j) {
    return (2 * (size_t)j * hemi_ckks_digits(keys->ctx->params, keys->limbs) + digit) * hemi_ckks_key_stride(keys->ctx);
}

/* ---- operations. Results may be operands unless said otherwise; result ciphertexts have room for their limbs. team may be NULL. */

/* Memory of one computation at a time. */
typedef struct hemi_ckks_workspace hemi_ckks_workspace;
HEMI_CHECK hemi_status hemi_ckks_workspace_new(hemi_ckks_workspace **out, const hemi_ckks_context *ctx, uint32_t limbs, hemi_team *team,
                                               hemi_error *err);
void hemi_ckks_workspace_free(hemi_ckks_workspace *w);

/* It also lends memory for ciphertexts, which it keeps for the next ones: fresh pages for every ciphertext cost more than many an operation.
 * What is lent is not zeroed, nor wiped when given back: a ciphertext is no secret of the server's. NULL without memory. */
uint64_t *hemi_ckks_lend(hemi_ckks_workspace *w, size_t words);
void hemi_ckks_give_back(hemi_ckks_workspace *w, uint64_t *block); /* takes NULL */
HEMI_CHECK hemi_status hemi_ckks_cipher_lend(hemi_ckks_cipher *c, hemi_ckks_workspace *w, uint32_t limbs, hemi_error *err);
void hemi_ckks_cipher_give_back(hemi_ckks_cipher *c, hemi_ckks_workspace *w); /* takes a zeroed one */
/* A workspace may be used again, with another team of at most as many workers. */
size_t hemi_ckks_workspace_workers(const hemi_ckks_workspace *w);
void hemi_ckks_workspace_use(hemi_ckks_workspace *w, hemi_team *team);
size_t hemi_ckks_workspace_bytes(const hemi_ckks_workspace *w);

/* r = a + b, a - b over the fewer limbs of the two; the scales are equal. */
void hemi_ckks_add(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b);
void hemi_ckks_sub(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b);
/* r = a times the integer round(constant * scale): a's scale grows by `scale`. r has a's limbs. |constant scale| < 2^62. */
void hemi_ckks_mul_constant(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, double constant, double scale);
/* r += a times such an integer; r.scale = a.scale * scale is up to the caller. Over r's limbs, of which a has at least as many. */
void hemi_ckks_mul_constant_add(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, double constant, double scale);
/* r += constant in every slot (real), at r's scale. |constant scale| < 2^62. */
void hemi_ckks_add_constant(hemi_ckks_workspace *w, hemi_ckks_cipher *r, double constant);
/* r = a times a plaintext: pt has a.limbs limbs at least, NTT form, canonical, of this scale. */
void hemi_ckks_mul_plain(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const uint64_t *pt, double scale);
/* r += a plaintext of r's scale. */
void hemi_ckks_add_plain(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const uint64_t *pt);
/* r = a b, relinearised, over the fewer limbs; r.scale = a.scale b.scale. Not rescaled. ERR_KEY without HEMI_CKKS_KEY_PRODUCT. */
HEMI_CHECK hemi_status hemi_ckks_mul(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b,
                                     const hemi_ckks_keys *keys, hemi_error *err);
/* The same, divided by the last prime in the same rounding: one limb less. At least 2 limbs. */
HEMI_CHECK hemi_status hemi_ckks_mul_rescale(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b,
                                             const hemi_ckks_keys *keys, hemi_error *err);
/* Divides by the last prime: one limb less, scale / q_(limbs-1). At least 2 limbs. */
void hemi_ckks_rescale(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a);

/* A sum of products and of multiples, relinearised and rescaled once. It is made in the workspace: one at a time, and no other product
 * meanwhile. Over `limbs` limbs, at least 2, at a scale. */
typedef struct hemi_ckks_sum {
    hemi_ckks_workspace *w;
    uint32_t limbs;
    double scale;
    bool begun, multiplied; /* there are terms; products */
} hemi_ckks_sum;

static inline hemi_ckks_sum hemi_ckks_sum_begin(hemi_ckks_workspace *w, uint32_t limbs, double scale) { return (hemi_ckks_sum){w, limbs, scale, false, false}; }
/* + a b, or, twice, + 2 a b; the product of their scales is that of the sum. */
void hemi_ckks_sum_product(hemi_ckks_sum *sum, const hemi_ckks_cipher *a, const hemi_ckks_cipher *b, bool twice);
/* + constant a: a's scale is brought to that of the sum. |constant sum.scale / a.scale| < 2^62. */
void hemi_ckks_sum_multiple(hemi_ckks_sum *sum, const hemi_ckks_cipher *a, double constant);
/* r: a limb less, the scale over the last prime; zeros where there were no terms. ERR_KEY if there are products and no HEMI_CKKS_KEY_PRODUCT. */
HEMI_CHECK hemi_status hemi_ckks_sum_end(hemi_ckks_sum *sum, hemi_ckks_cipher *r, const hemi_ckks_keys *keys, hemi_error *err);

/* r = sigma_t(a): a rotation or the conjugation. ERR_KEY without the key. */
HEMI_CHECK hemi_status hemi_ckks_automorphism(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, uint32_t t,
                                              const hemi_ckks_keys *keys, hemi_error *err);
/* Several of the same ciphertext, whose digits are made once ("hoisting": Halevi and Shoup, 2018). r[i] is not a. */
HEMI_CHECK hemi_status hemi_ckks_automorphisms(hemi_ckks_workspace *w, hemi_ckks_cipher *r, const hemi_ckks_cipher *a, const uint32_t *t,
                                               size_t count, const hemi_ckks_keys *keys, hemi_error *err);
/* c += an encryption of zero under the keys' public key: (b u + e0, a u + e1), u ternary, e centred binomial. c: one limb, NTT form. scratch: n
 * words, wiped. */
void hemi_ckks_rerandomise(hemi_ckks_cipher *c, const hemi_ckks_keys *keys, uint64_t *scratch, hemi_stream *secret);

#endif
