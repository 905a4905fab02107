/* Secret key files under a passphrase. What is sealed is a whole plain key file (secret/file.h):
 *
 *   0   "HEMI", LE16 version 1, LE16 kind (HEMI_WIRE_SEALED_KEY), LE32 set
 *   12  LE32 passes of Argon2id, LE32 its memory in KiB, 16 bytes of salt, 24 bytes of nonce
 *   60  the plain file, encrypted, and a tag of 16 bytes: XChaCha20-Poly1305, which authenticates the header too
 *
 * The key comes from the passphrase by Argon2id (RFC 9106; libsodium's crypto_pwhash, which has one lane). A wrong passphrase and a changed file
 * cannot be told apart. */
#ifndef HEMI_SECRET_SEAL_H
#define HEMI_SECRET_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/params.h"
#include "hemi/status.h"

#define HEMI_SEAL_HEADER_BYTES 60
#define HEMI_SEAL_TAG_BYTES    16
#define HEMI_SEAL_OVERHEAD     (HEMI_SEAL_HEADER_BYTES + HEMI_SEAL_TAG_BYTES)

/* What a new file asks for: about a second, and 256 MiB (libsodium's MODERATE). What a file may ask for is bounded, as it may come from others. */
#define HEMI_SEAL_PASSES        3u
#define HEMI_SEAL_MEMORY_KIB    (256u << 10)
#define HEMI_SEAL_PASSES_MAX    20u
#define HEMI_SEAL_MEMORY_KIB_MAX (1u << 20)

/* Is it such a file, of whatever version? */
bool hemi_seal_is(const uint8_t *bytes, size_t count);
/* plain: count bytes; out: count + HEMI_SEAL_OVERHEAD. passes, memory_kib: 0 for the above. ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_seal(uint8_t *out, const hemi_params *params, const uint8_t *plain, size_t count, const char *passphrase, unsigned passes,
                                 unsigned memory_kib, hemi_error *err);
/* plain: count - HEMI_SEAL_OVERHEAD bytes, wiped on error. ERR_FORMAT, ERR_VERSION, ERR_MEMORY; ERR_AUTH: another passphrase, or a damaged file. */
HEMI_CHECK hemi_status hemi_seal_open(uint8_t *plain, const hemi_params *params, const uint8_t *bytes, size_t count, const char *passphrase, hemi_error *err);

#endif
