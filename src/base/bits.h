/* Little-endian numbers in byte strings, and strings of fields of equal width in bits. */
#ifndef HEMI_BASE_BITS_H
#define HEMI_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define HEMI_LITTLE16(v) (v)
#define HEMI_LITTLE32(v) (v)
#define HEMI_LITTLE64(v) (v)
#else
#define HEMI_LITTLE16(v) __builtin_bswap16(v)
#define HEMI_LITTLE32(v) __builtin_bswap32(v)
#define HEMI_LITTLE64(v) __builtin_bswap64(v)
#endif

/* One unaligned access each (gcc does not make one of a load byte by byte). */
static inline void hemi_store16(uint8_t *p, uint16_t v) { v = HEMI_LITTLE16(v); memcpy(p, &v, sizeof v); }
static inline void hemi_store32(uint8_t *p, uint32_t v) { v = HEMI_LITTLE32(v); memcpy(p, &v, sizeof v); }
static inline void hemi_store64(uint8_t *p, uint64_t v) { v = HEMI_LITTLE64(v); memcpy(p, &v, sizeof v); }
static inline uint16_t hemi_load16(const uint8_t *p) { uint16_t v; memcpy(&v, p, sizeof v); return HEMI_LITTLE16(v); }
static inline uint32_t hemi_load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, sizeof v); return HEMI_LITTLE32(v); }
static inline uint64_t hemi_load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, sizeof v); return HEMI_LITTLE64(v); }

/* Bytes of count fields of `bits` bits: ceil(count * bits / 8). */
size_t hemi_packed_bytes(size_t count, unsigned bits);
/* Whether the rest of the last byte is zero, as it must be. */
bool hemi_packed_rest_is_zero(const uint8_t *in, size_t count, unsigned bits);
/* Field i occupies bits [i*bits, (i+1)*bits) of the string, bit 0 being the least bit of byte 0; the rest of the
 * last byte is zero. 1 <= bits <= 56; every v[i] < 2^bits. */
void hemi_pack(uint8_t *out, const uint64_t *v, size_t count, unsigned bits);
/* The inverse; reads exactly hemi_packed_bytes(count, bits) bytes. */
void hemi_unpack(uint64_t *v, const uint8_t *in, size_t count, unsigned bits);

#endif
