#include "secret/file.h"

#include <sodium.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "wire/wire.h"

#define HEADER_BYTES 32
#define HASH_BYTES   32

size_t hemi_secret_file_coefficients(const hemi_params *params) {
    return ((size_t)1 << params->log2_n) + (params->reply ? (size_t)1 << params->reply->log2_n : 0);
}

size_t hemi_secret_file_bytes(const hemi_params *params) {
    return HEADER_BYTES + hemi_secret_file_coefficients(params) / 4 + HASH_BYTES;
}

static void write_header(uint8_t out[HEADER_BYTES], const hemi_params *params) {
    memset(out, 0, HEADER_BYTES);
    memcpy(out, "HEMI", 4);
    hemi_store16(out + 4, HEMI_SECRET_KEY_VERSION);
    hemi_store16(out + 6, HEMI_WIRE_SECRET_KEY);
    hemi_store32(out + 8, params->id);
}

static void hash(uint8_t out[HASH_BYTES], const uint8_t *bytes, size_t count) {
    (void)crypto_generichash(out, HASH_BYTES, bytes, count, NULL, 0);
}

uint8_t *hemi_secret_file_begin(uint8_t *out, const hemi_params *params) {
    write_header(out, params);
    return out + HEADER_BYTES;
}

uint8_t *hemi_secret_file_pack(uint8_t *at, const int8_t *s, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        unsigned v = 0;
        for (size_t j = 0; j < 4; j++) v |= (unsigned)(s[i + j] + 1) << (2 * j);
        *at++ = (uint8_t)v;
    }
    return at;
}

void hemi_secret_file_end(uint8_t *out, uint8_t *at) { hash(at, out, (size_t)(at - out)); }

hemi_status hemi_secret_file_read(int8_t **out, const hemi_params *params, const uint8_t *bytes, size_t count, hemi_error *err) {
    const size_t n = hemi_secret_file_coefficients(params);
    uint8_t header[HEADER_BYTES], found[HASH_BYTES];
    *out = NULL;
    write_header(header, params);
    if (count >= 8 && memcmp(bytes, header, 4) == 0 && memcmp(bytes + 6, header + 6, 2) == 0 &&
        hemi_load16(bytes + 4) != HEMI_SECRET_KEY_VERSION)
        return hemi_fail(err, HEMI_ERR_VERSION, "a secret key file of version %u, this release reads version %d: make a new key",
                         hemi_load16(bytes + 4), HEMI_SECRET_KEY_VERSION);
    if (count != hemi_secret_file_bytes(params) || memcmp(bytes, header, sizeof header) != 0)
        return hemi_fail(err, HEMI_ERR_FORMAT, "this is not a secret key of set %s, version %d", params->name, HEMI_SECRET_KEY_VERSION);
    hash(found, bytes, count - HASH_BYTES);
    if (sodium_memcmp(found, bytes + count - HASH_BYTES, sizeof found) != 0)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the secret key file is damaged: restore it from a copy, or make new keys");
    int8_t *s = hemi_secure_alloc(n, 1);
    if (!s) return hemi_fail(err, HEMI_ERR_MEMORY, "no guarded memory for a secret key");
    for (size_t i = 0; i < n; i++) s[i] = (int8_t)((bytes[HEADER_BYTES + i / 4] >> (2 * (i % 4)) & 3) - 1);
    *out = s;
    return HEMI_OK;
}

hemi_status hemi_secret_check_ternary(const int8_t *s, size_t n, hemi_error *err) {
    unsigned outside = 0;
    for (size_t i = 0; i < n; i++) outside |= (unsigned)(s[i] + 1) > 2;
    return outside ? hemi_fail(err, HEMI_ERR_FORMAT, "a secret key has coefficients -1, 0 and 1") : HEMI_OK;
}
