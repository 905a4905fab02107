/* The client's side of CKKS: secret keys, evaluation keys, encryption and decryption. Constant time in secrets. */
#ifndef HEMI_SECRET_CKKS_H
#define HEMI_SECRET_CKKS_H

#include "ckks/context.h"

/* s uniform ternary, in guarded memory, wiped when freed. Immutable; shared between threads. */
typedef struct hemi_ckks_secret {
    const hemi_ckks_context *ctx;
    int8_t *s;        /* n coefficients in {-1, 0, 1} */
    uint64_t *s_ntt;  /* NTT form over every limb of the ring, limb i at i n, fixed form */
    uint64_t *storage;
} hemi_ckks_secret;

HEMI_CHECK hemi_status hemi_ckks_secret_new(hemi_ckks_secret **out, const hemi_ckks_context *ctx, hemi_error *err);
/* From given coefficients, which must be ternary: for tests and key files. */
HEMI_CHECK hemi_status hemi_ckks_secret_from(hemi_ckks_secret **out, const hemi_ckks_context *ctx, const int8_t *s, hemi_error *err);
void hemi_ckks_secret_free(hemi_ckks_secret *secret);

/* Key files: the format of secret/key.h (header, 2 bits a coefficient, BLAKE2b-256). */
size_t hemi_ckks_secret_file_bytes(const hemi_params *params);
void hemi_ckks_secret_export(uint8_t *out, const hemi_ckks_secret *secret);
HEMI_CHECK hemi_status hemi_ckks_secret_import(hemi_ckks_secret **out, const hemi_ckks_context *ctx, const uint8_t *bytes, size_t count,
                                               hemi_error *err);

/* An entry of evaluation keys in wire form (hemi_ckks_key_entry_bytes(params, limbs, t) bytes, wire/ckks.h), for ciphertexts of at most `limbs`
 * limbs: t as in ckks/cipher.h. Fresh seed; fresh errors, one polynomial a digit, the same integers modulo every prime. */
HEMI_CHECK hemi_status hemi_ckks_secret_make_key(const hemi_ckks_secret *secret, uint32_t limbs, uint32_t t, uint8_t *out, hemi_error *err);

/* Encrypts round(scale * embedding^-1(re)) (re: n/2 numbers) over `limbs` limbs under a fresh seed: writes the seed and the coefficients of c0 of
 * each limb, packed at the bits of its prime (hemi_ckks_ciphertext_bytes, wire/ckks.h). c1 = a is the seed's expansion. ERR_ARGUMENT if a number is
 * too large or not finite. */
HEMI_CHECK hemi_status hemi_ckks_secret_encrypt(const hemi_ckks_secret *secret, const double *re, double scale, uint32_t limbs, uint8_t *out,
                                                hemi_error *err);
/* The phase c0 + c1 s of one limb (q_0), centred: c0 and c1 are coefficients, not in NTT form. n numbers. */
HEMI_CHECK hemi_status hemi_ckks_secret_decrypt(const hemi_ckks_secret *secret, const uint64_t *c0, const uint64_t *c1, int64_t *phase,
                                                hemi_error *err);

#endif
