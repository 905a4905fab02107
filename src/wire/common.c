#include "wire/common.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"

void hemi_wire_write_header(uint8_t *out, hemi_wire_kind kind, const hemi_params *params) {
    memcpy(out, "HEMI", 4);
    hemi_store16(out + 4, HEMI_WIRE_VERSION);
    hemi_store16(out + 6, (uint16_t)kind);
    hemi_store32(out + 8, params->id);
    hemi_store32(out + 12, 0);
}

bool hemi_wire_is(const uint8_t *in, size_t count, hemi_wire_kind kind) {
    return count >= HEMI_WIRE_HEADER_BYTES && memcmp(in, "HEMI", 4) == 0 && hemi_load16(in + 6) == kind;
}

hemi_status hemi_wire_parse_header(const uint8_t *in, size_t count, size_t least, hemi_wire_kind kind, const char *what,
                                   const hemi_params **params, hemi_error *err) {
    if (count < least) return hemi_fail(err, HEMI_ERR_FORMAT, "%zu bytes are too few for %s", count, what);
    if (memcmp(in, "HEMI", 4) != 0) return hemi_fail(err, HEMI_ERR_FORMAT, "this is not %s: it does not begin with \"HEMI\"", what);
    if (hemi_load16(in + 4) != HEMI_WIRE_VERSION)
        return hemi_fail(err, HEMI_ERR_VERSION, "format version %u, expected %d: client and server are of different releases",
                         hemi_load16(in + 4), HEMI_WIRE_VERSION);
    if (hemi_load16(in + 6) != kind)
        return hemi_fail(err, HEMI_ERR_FORMAT, "kind %u where %s (kind %d) is expected", hemi_load16(in + 6), what, (int)kind);
    *params = hemi_params_by_id(hemi_load32(in + 8));
    if (!*params) return hemi_fail(err, HEMI_ERR_PARAMS, "parameter set %u is unknown", hemi_load32(in + 8));
    if (hemi_load32(in + 12) != 0) return hemi_fail(err, HEMI_ERR_FORMAT, "flags 0x%x, expected 0", hemi_load32(in + 12));
    return HEMI_OK;
}

unsigned hemi_wire_bits(uint64_t p) { return 64u - (unsigned)__builtin_clzll(p); }

hemi_status hemi_wire_check_residues(const uint8_t *in, size_t n, uint64_t p, const char *what, size_t number, hemi_error *err) {
    uint64_t chunk[64];
    const unsigned bits = hemi_wire_bits(p);
    for (size_t i = 0; i < n; i += 64) { /* 64 fields are a whole number of bytes */
        const size_t count = n - i < 64 ? n - i : 64;
        uint64_t below = UINT64_MAX; /* its top bit: so far */
        hemi_unpack(chunk, in + i * bits / 8, count, bits);
        for (size_t j = 0; j < count; j++) below &= chunk[j] - p;
        if (below >> 63 == 0)
            return hemi_fail(err, HEMI_ERR_FORMAT, "a coefficient of %s %zu is not below its prime: it was damaged", what, number);
    }
    if (!hemi_packed_rest_is_zero(in, n, bits))
        return hemi_fail(err, HEMI_ERR_FORMAT, "the bits after the last field of %s %zu are not zero", what, number);
    return HEMI_OK;
}
