/* Formats of levelled sets (docs/wire-format.md): evaluation keys, requests and replies of circuits. As in wire/wire.h, every length
 * follows from the header. */
#ifndef HEMI_WIRE_CKKS_H
#define HEMI_WIRE_CKKS_H

#include "wire/wire.h"

#define HEMI_CKKS_KEYS_HEADER_BYTES    24
#define HEMI_CKKS_REQUEST_HEADER_BYTES 48
#define HEMI_CKKS_REPLY_HEADER_BYTES   48
#define HEMI_CKKS_UNITS_MAX            1024
#define HEMI_CKKS_CIPHERTEXTS_MAX      4096 /* of a unit */
#define HEMI_CKKS_KEYS_MAX             256 /* entries */

/* Coefficients of `limbs` limbs, packed at the bits of each prime, limb after limb, each padded to whole bytes. */
size_t hemi_ckks_poly_bytes(const hemi_params *params, uint32_t limbs);
/* A ciphertext of a request: a seed, then c0 (in coefficient form). a: hemi_sample_uniform_vartime(seed, HEMI_DOMAIN_CIPHERTEXT, limb), in NTT form. */
size_t hemi_ckks_ciphertext_bytes(const hemi_params *params, uint32_t limbs);

/* Evaluation keys: header (kind HEMI_WIRE_CKKS_KEYS, set, limbs, number of entries), then entries of increasing t (ckks/cipher.h), the public
 * key first. An entry is the header of wire/wire.h (hemi_key_entry_write_header) and b: for the public key one polynomial over q_0, otherwise for
 * each digit limbs + specials polynomials; in NTT form, packed. */
size_t hemi_ckks_key_entry_bytes(const hemi_params *params, uint32_t limbs, uint32_t t);
size_t hemi_ckks_keys_bytes(const hemi_params *params, uint32_t limbs, size_t entries); /* the public key among them */
void hemi_ckks_keys_write_header(uint8_t *out, const hemi_params *params, uint32_t limbs, size_t entries);
/* Whether the bytes are of this kind (and not evaluation keys of wire/wire.h). */
bool hemi_ckks_keys_is(const uint8_t *bytes, size_t count);
/* Header and length alone: what keys are for, before anything large is looked at. */
HEMI_CHECK hemi_status hemi_ckks_keys_read_header(const uint8_t *bytes, size_t count, const hemi_params **params, uint32_t *limbs,
                                                  size_t *entries, hemi_error *err);
/* Checks header, length, order and kind of entries, and that every residue is canonical. */
HEMI_CHECK hemi_status hemi_ckks_keys_check(const uint8_t *bytes, size_t count, const hemi_params **params, uint32_t *limbs, size_t *entries,
                                            hemi_error *err);

/* A request: `units` units of `ciphertexts` ciphertexts each, for one module. */
typedef struct hemi_ckks_request {
    const hemi_params *params;
    uint32_t limbs, units, ciphertexts;
    uint8_t module_id[HEMI_MODULE_ID_BYTES];
} hemi_ckks_request;

size_t hemi_ckks_request_bytes(const hemi_ckks_request *r);
void hemi_ckks_request_write_header(uint8_t *out, const hemi_ckks_request *r);
/* ERR_FORMAT, ERR_VERSION, ERR_PARAMS, ERR_SHAPE: everything that can be checked without the module, the length included, and that every
 * residue is canonical. */
HEMI_CHECK hemi_status hemi_ckks_request_parse(hemi_ckks_request *r, const uint8_t *bytes, size_t count, hemi_error *err);
/* All of that but the residues. */
HEMI_CHECK hemi_status hemi_ckks_request_read_header(hemi_ckks_request *r, const uint8_t *bytes, size_t count, hemi_error *err);
/* Whether the bytes are of this kind (and not those of a request of wire/wire.h or wire/batch.h). */
bool hemi_ckks_request_is(const uint8_t *bytes, size_t count);
size_t hemi_ckks_request_ciphertext_offset(const hemi_ckks_request *r, size_t i);

/* A reply: units x ciphertexts ciphertexts over q_0, each c1 and then c0 in coefficient form, packed at the bits of q_0. */
size_t hemi_ckks_reply_bytes(const hemi_ckks_request *r); /* r: of the reply: limbs is 1, ciphertexts those of the output */
void hemi_ckks_reply_write_header(uint8_t *out, const hemi_ckks_request *r);
/* The header must be `expected`'s, the length what follows from it, and every residue canonical. */
HEMI_CHECK hemi_status hemi_ckks_reply_check(const uint8_t *bytes, size_t count, const hemi_ckks_request *expected, hemi_error *err);

#endif
