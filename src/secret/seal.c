#include "secret/seal.h"

#include <sodium.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "wire/wire.h"

#define VERSION   1
#define AT_PASSES 12
#define AT_MEMORY 16
#define AT_SALT   20
#define AT_NONCE  36

_Static_assert(AT_NONCE + crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == HEMI_SEAL_HEADER_BYTES, "the header is full");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == HEMI_SEAL_TAG_BYTES, "the tag");
_Static_assert(crypto_pwhash_SALTBYTES == AT_NONCE - AT_SALT, "the salt");

bool hemi_seal_is(const uint8_t *bytes, size_t count) { return count >= 8 && memcmp(bytes, "HEMI", 4) == 0 && hemi_load16(bytes + 6) == HEMI_WIRE_SEALED_KEY; }

/* In guarded memory; freed with hemi_secure_free. */
static hemi_status derive(uint8_t **key, const uint8_t *header, const char *passphrase, hemi_error *err) {
    *key = hemi_secure_alloc(crypto_aead_xchacha20poly1305_ietf_KEYBYTES, 1);
    if (*key && crypto_pwhash(*key, crypto_aead_xchacha20poly1305_ietf_KEYBYTES, passphrase, strlen(passphrase), header + AT_SALT, hemi_load32(header + AT_PASSES),
                              (size_t)hemi_load32(header + AT_MEMORY) << 10, crypto_pwhash_ALG_ARGON2ID13) == 0)
        return HEMI_OK;
    hemi_secure_free(*key);
    *key = NULL;
    return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to make a key of a passphrase: it takes %u KiB", hemi_load32(header + AT_MEMORY));
}

hemi_status hemi_seal(uint8_t *out, const hemi_params *params, const uint8_t *plain, size_t count, const char *passphrase, unsigned passes, unsigned memory_kib,
                      hemi_error *err) {
    uint8_t *key;
    if (sodium_init() < 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "libsodium does not start");
    memset(out, 0, HEMI_SEAL_HEADER_BYTES);
    memcpy(out, "HEMI", 4);
    hemi_store16(out + 4, VERSION);
    hemi_store16(out + 6, HEMI_WIRE_SEALED_KEY);
    hemi_store32(out + 8, params->id);
    hemi_store32(out + AT_PASSES, passes ? passes : HEMI_SEAL_PASSES);
    hemi_store32(out + AT_MEMORY, memory_kib ? memory_kib : HEMI_SEAL_MEMORY_KIB);
    randombytes_buf(out + AT_SALT, HEMI_SEAL_HEADER_BYTES - AT_SALT); /* salt and nonce, new for every file */
    HEMI_TRY(derive(&key, out, passphrase, err));
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(out + HEMI_SEAL_HEADER_BYTES, NULL, plain, count, out, HEMI_SEAL_HEADER_BYTES, NULL, out + AT_NONCE, key);
    hemi_secure_free(key);
    return HEMI_OK;
}

static hemi_status check_header(const hemi_params *params, const uint8_t *bytes, size_t count, hemi_error *err) {
    if (count < HEMI_SEAL_OVERHEAD || !hemi_seal_is(bytes, count)) return hemi_fail(err, HEMI_ERR_FORMAT, "this is not an encrypted secret key file");
    if (hemi_load16(bytes + 4) != VERSION)
        return hemi_fail(err, HEMI_ERR_VERSION, "an encrypted secret key file of version %u, this release reads version %d", hemi_load16(bytes + 4), VERSION);
    if (hemi_load32(bytes + 8) != params->id) return hemi_fail(err, HEMI_ERR_FORMAT, "this is not a secret key of set %s", params->name);
    const uint32_t passes = hemi_load32(bytes + AT_PASSES), memory = hemi_load32(bytes + AT_MEMORY);
    if (passes < crypto_pwhash_OPSLIMIT_MIN || passes > HEMI_SEAL_PASSES_MAX || memory < crypto_pwhash_MEMLIMIT_MIN >> 10 || memory > HEMI_SEAL_MEMORY_KIB_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the secret key file asks for %u passes and %u KiB of Argon2id: at most %u and %u are taken", passes, memory, HEMI_SEAL_PASSES_MAX,
                         HEMI_SEAL_MEMORY_KIB_MAX);
    return HEMI_OK;
}

hemi_status hemi_seal_open(uint8_t *plain, const hemi_params *params, const uint8_t *bytes, size_t count, const char *passphrase, hemi_error *err) {
    uint8_t *key;
    if (sodium_init() < 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "libsodium does not start");
    HEMI_TRY(check_header(params, bytes, count, err));
    HEMI_TRY(derive(&key, bytes, passphrase, err));
    const int failed = crypto_aead_xchacha20poly1305_ietf_decrypt(plain, NULL, NULL, bytes + HEMI_SEAL_HEADER_BYTES, count - HEMI_SEAL_HEADER_BYTES, bytes,
                                                                  HEMI_SEAL_HEADER_BYTES, bytes + AT_NONCE, key);
    hemi_secure_free(key);
    if (!failed) return HEMI_OK;
    hemi_wipe(plain, count - HEMI_SEAL_OVERHEAD);
    return hemi_fail(err, HEMI_ERR_AUTH, "the passphrase is not that of this secret key file, or the file is damaged");
}
