/* The format of secret key files (docs/wire-format.md), whatever kind the set is of: header, 2 bits for each coefficient, BLAKE2b-256 of
 * what precedes. Constant time in the coefficients. */
#ifndef HEMI_SECRET_FILE_H
#define HEMI_SECRET_FILE_H

#include "hemi/params.h"

#define HEMI_SECRET_KEY_VERSION 2

/* Coefficients of s and, where the set has a ring of replies, of s' after them. */
size_t hemi_secret_file_coefficients(const hemi_params *params);
size_t hemi_secret_file_bytes(const hemi_params *params);

/* Writing: the header, polynomials one after another (n a multiple of 4), the hash. Each returns where the next begins. */
uint8_t *hemi_secret_file_begin(uint8_t *out, const hemi_params *params);
uint8_t *hemi_secret_file_pack(uint8_t *at, const int8_t *s, size_t n);
void hemi_secret_file_end(uint8_t *out, uint8_t *at);

/* Reading: header, length and hash are those of such a file. s gets the coefficients, which the caller checks (two bits have a fourth
 * value) and frees with hemi_secure_free. ERR_FORMAT; ERR_VERSION: a file of another version (1: of before s'). */
HEMI_CHECK hemi_status hemi_secret_file_read(int8_t **s, const hemi_params *params, const uint8_t *bytes, size_t count, hemi_error *err);

/* ERR_FORMAT unless all n are -1, 0 or 1. Does not say where. */
HEMI_CHECK hemi_status hemi_secret_check_ternary(const int8_t *s, size_t n, hemi_error *err);

#endif
