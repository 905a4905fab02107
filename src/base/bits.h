/* Little-endian numbers in byte strings, and strings of fields of equal width in bits. */
#ifndef HEMI_BASE_BITS_H
#define HEMI_BASE_BITS_H

#include <stddef.h>
#include <stdint.h>

static inline void hemi_store16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)v; p[1] = (uint8_t)(v >> 8); }
static inline void hemi_store32(uint8_t *p, uint32_t v) { for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i)); }
static inline void hemi_store64(uint8_t *p, uint64_t v) { for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> (8 * i)); }
static inline uint16_t hemi_load16(const uint8_t *p) { return (uint16_t)(p[0] | (p[1] << 8)); }
static inline uint32_t hemi_load32(const uint8_t *p) { uint32_t v = 0; for (int i = 3; i >= 0; i--) v = (v << 8) | p[i]; return v; }
static inline uint64_t hemi_load64(const uint8_t *p) { uint64_t v = 0; for (int i = 7; i >= 0; i--) v = (v << 8) | p[i]; return v; }

/* Bytes of count fields of `bits` bits: ceil(count * bits / 8). */
size_t hemi_packed_bytes(size_t count, unsigned bits);
/* Field i occupies bits [i*bits, (i+1)*bits) of the string, bit 0 being the least bit of byte 0; the rest of the
 * last byte is zero. 1 <= bits <= 56; every v[i] < 2^bits. */
void hemi_pack(uint8_t *out, const uint64_t *v, size_t count, unsigned bits);
/* The inverse; reads exactly hemi_packed_bytes(count, bits) bytes. */
void hemi_unpack(uint64_t *v, const uint8_t *in, size_t count, unsigned bits);

#endif
