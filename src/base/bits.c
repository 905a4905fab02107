/* Eight fields of b bits are b whole bytes. So field i of a group of eight starts at byte b i / 8, bit b i mod 8, of a
 * group that starts at a byte, and one unaligned 64-bit word holds it (56 + 7 < 64). Groups do not depend on each other.
 *
 * The words of a group's last fields reach up to 7 bytes beyond the group, so the last groups of a string go through a
 * buffer on the stack: nothing beyond the stated bytes is read or written. */
#include "base/bits.h"

#define GROUP 8
/* Groups kept back for the buffer: with b >= 1 bits this many groups are the 8 bytes that a word may reach beyond. */
#define SLACK_BYTES 8

#define INLINE static inline __attribute__((always_inline))

size_t hemi_packed_bytes(size_t count, unsigned bits) {
    /* count * bits may overflow where the result does not */
    return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

bool hemi_packed_rest_is_zero(const uint8_t *in, size_t count, unsigned bits) {
    const size_t used = count % 8 * bits % 8;
    return used == 0 || in[hemi_packed_bytes(count, bits) - 1] >> used == 0;
}

/* Writes the group's b bytes and up to 7 more. */
INLINE void pack_group(uint8_t *out, const uint64_t *v, unsigned bits) {
    uint64_t carry = 0; /* the bits before field i in its first byte */
    for (unsigned i = 0; i < GROUP; i++) {
        const unsigned at = bits * i / 8, shift = bits * i % 8, next = bits * (i + 1) / 8;
        const uint64_t word = v[i] << shift | carry;
        hemi_store64(out + at, word);
        carry = word >> (8 * (next - at)); /* next - at <= 7 */
    }
}

/* Reads the group's b bytes and up to 7 more. */
INLINE void unpack_group(uint64_t *v, const uint8_t *in, unsigned bits) {
    const uint64_t mask = (UINT64_C(1) << bits) - 1;
    for (unsigned i = 0; i < GROUP; i++) v[i] = hemi_load64(in + bits * i / 8) >> (bits * i % 8) & mask;
}

/* Groups whose words stay inside `bytes` bytes. */
INLINE size_t inner_groups(size_t bytes, unsigned bits) {
    return bytes < SLACK_BYTES ? 0 : (bytes - SLACK_BYTES) / bits;
}

INLINE void pack_all(uint8_t *out, const uint64_t *v, size_t count, unsigned bits) {
    size_t left = hemi_packed_bytes(count, bits);
    const size_t inner = inner_groups(left, bits) < count / GROUP ? inner_groups(left, bits) : count / GROUP;
    for (size_t g = 0; g < inner; g++) pack_group(out + g * bits, v + g * GROUP, bits);
    out += inner * bits;
    left -= inner * bits;
    for (size_t i = inner * GROUP; i < count; i += GROUP) {
        uint64_t fields[GROUP] = {0};
        uint8_t bytes[56 + SLACK_BYTES];
        memcpy(fields, v + i, (count - i < GROUP ? count - i : GROUP) * sizeof *v);
        pack_group(bytes, fields, bits);
        const size_t part = left < bits ? left : bits;
        memcpy(out, bytes, part);
        out += part;
        left -= part;
    }
}

INLINE void unpack_all(uint64_t *v, const uint8_t *in, size_t count, unsigned bits) {
    size_t left = hemi_packed_bytes(count, bits);
    const size_t inner = inner_groups(left, bits) < count / GROUP ? inner_groups(left, bits) : count / GROUP;
    for (size_t g = 0; g < inner; g++) unpack_group(v + g * GROUP, in + g * bits, bits);
    in += inner * bits;
    left -= inner * bits;
    for (size_t i = inner * GROUP; i < count; i += GROUP) {
        uint64_t fields[GROUP];
        uint8_t bytes[56 + SLACK_BYTES] = {0};
        const size_t part = left < bits ? left : bits;
        memcpy(bytes, in, part);
        unpack_group(fields, bytes, bits);
        memcpy(v + i, fields, (count - i < GROUP ? count - i : GROUP) * sizeof *v);
        in += part;
        left -= part;
    }
}

/* The widths of the formats, each compiled with its shifts as constants. */
#define WIDTHS(X) X(16) X(20) X(24) X(25) X(28) X(32) X(48) X(49) X(50)

void hemi_pack(uint8_t *out, const uint64_t *v, size_t count, unsigned bits) {
    switch (bits) {
#define PACK_CASE(b) case b: pack_all(out, v, count, b); return;
        WIDTHS(PACK_CASE)
#undef PACK_CASE
    default: pack_all(out, v, count, bits);
    }
}

void hemi_unpack(uint64_t *v, const uint8_t *in, size_t count, unsigned bits) {
    switch (bits) {
#define UNPACK_CASE(b) case b: unpack_all(v, in, count, b); return;
        WIDTHS(UNPACK_CASE)
#undef UNPACK_CASE
    default: unpack_all(v, in, count, bits);
    }
}
