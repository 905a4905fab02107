/* Formats of requests, replies and evaluation keys (docs/wire-format.md). All numbers little-endian. Every length follows
 * from the header, and the header is compared with what is expected before anything else is read: conformance is
 * equality, and nothing an attacker sends chooses an allocation. */
#ifndef HEMI_WIRE_WIRE_H
#define HEMI_WIRE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "hemi/model.h"
#include "random/sample.h"

#define HEMI_WIRE_VERSION 1
#define HEMI_WIRE_HEADER_BYTES 16
#define HEMI_REQUEST_HEADER_BYTES 40
#define HEMI_REPLY_HEADER_BYTES 24
#define HEMI_REPLY_FRAME_BYTES 48
#define HEMI_KEYS_HEADER_BYTES 24
#define HEMI_KEY_ENTRY_HEADER_BYTES 40
#define HEMI_REQUEST_MODULES_MAX 16
#define HEMI_REQUEST_UNITS_MAX 65536

typedef enum hemi_wire_kind { HEMI_WIRE_REQUEST = 1, HEMI_WIRE_REPLY = 2, HEMI_WIRE_EVALUATION_KEYS = 3, HEMI_WIRE_SECRET_KEY = 4,
               HEMI_WIRE_BATCH_REQUEST = 5, HEMI_WIRE_BATCH_REPLY = 6, /* wire/batch.h */
               HEMI_WIRE_CKKS_KEYS = 7, HEMI_WIRE_CKKS_REQUEST = 8, HEMI_WIRE_CKKS_REPLY = 9 /* wire/ckks.h */,
               HEMI_WIRE_SEALED_KEY = 10 /* secret/seal.h */ } hemi_wire_kind;

/* How rows lie in a unit (linear/layout.h): one in each, or side by side. Modules on grids have the first form only. */
typedef enum hemi_form { HEMI_FORM_SINGLE = 0, HEMI_FORM_PACKED = 1 } hemi_form;

/* A request: units of one input, encrypted once, for one or several modules. */
typedef struct hemi_request {
    const hemi_params *params;
    hemi_form form;
    uint32_t layout;       /* S */
    uint32_t coefficients; /* of b, sent with each ciphertext */
    uint32_t units, ciphertexts; /* ciphertexts: of all units */
    unsigned b_bits;
    size_t modules;
    uint8_t module_id[HEMI_REQUEST_MODULES_MAX][HEMI_MODULE_ID_BYTES];
} hemi_request;

size_t hemi_request_bytes(const hemi_request *r);
void hemi_request_write_header(uint8_t *out, const hemi_request *r);
/* Parses and checks everything that can be checked without the modules, the total length included. */
HEMI_CHECK hemi_status hemi_request_parse(hemi_request *r, const uint8_t *bytes, size_t count, hemi_error *err);
/* Where ciphertext i begins: a seed of HEMI_SEED_BYTES, then the packed coefficients of b. */
size_t hemi_request_ciphertext_offset(const hemi_request *r, size_t i);

/* One module's results in a reply. */
typedef struct hemi_reply_frame {
    uint8_t module_id[HEMI_MODULE_ID_BYTES];
    uint32_t units, coefficients, ciphertexts; /* coefficients of b, with each ciphertext; ciphertexts: of all units */
    unsigned a_bits, b_bits;
    uint32_t ring; /* degree of the ring of its ciphertexts, where it is not the set's own; otherwise 0 */
} hemi_reply_frame;

/* Where in a frame's ciphertext b begins: the bytes of the a-part. */
size_t hemi_reply_a_bytes(const hemi_params *params, const hemi_reply_frame *f);
size_t hemi_reply_frame_bytes(const hemi_params *params, const hemi_reply_frame *f);
void hemi_reply_write_header(uint8_t *out, const hemi_params *params, size_t modules, size_t total_bytes);
void hemi_reply_frame_write_header(uint8_t *out, const hemi_params *params, const hemi_reply_frame *f);
/* Checks a whole reply: header, frame headers against what is expected (one frame per expected module, in order), total length.
 * Frame i's ciphertexts begin at offset[i]. */
HEMI_CHECK hemi_status hemi_reply_parse(const uint8_t *bytes, size_t count, const hemi_params *params, const hemi_reply_frame *expected,
                                        size_t modules, size_t *offset, hemi_error *err);

/* Evaluation keys: entries of increasing t; t = 0 is the public key for re-randomisation and is always there; t = 1, in sets with a ring
 * of replies, is the ring-switching key. */
size_t hemi_key_entry_bytes(const hemi_params *params, uint32_t t);
/* With the public key; without a ring-switching key, which adds its entry's bytes. */
size_t hemi_keys_total_bytes(const hemi_params *params, size_t automorphisms);
/* The most entries that keys of a set have. */
uint32_t hemi_keys_most(const hemi_params *params);
void hemi_keys_write_header(uint8_t *out, const hemi_params *params, size_t entries);
/* An entry: this header, b over q packed at the bits of q, then (t != 0) b over P packed at the bits of P. t = 1: this header, then the
 * b of its four samples. */
void hemi_key_entry_write_header(uint8_t *out, uint32_t t, const uint8_t seed[HEMI_SEED_BYTES]);
/* Checks header, length, the order of entries, that every t is one this set has a use for (1, 1 + 2^j or -1),
 * and that every residue is canonical. */
HEMI_CHECK hemi_status hemi_keys_check(const uint8_t *bytes, size_t count, const hemi_params **params, size_t *entries, hemi_error *err);

#endif
