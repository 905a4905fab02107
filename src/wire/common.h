/* What all formats have in common: the header of 16 bytes, and packed residues. */
#ifndef HEMI_WIRE_COMMON_H
#define HEMI_WIRE_COMMON_H

#include "wire/wire.h"

void hemi_wire_write_header(uint8_t *out, hemi_wire_kind kind, const hemi_params *params);
/* Whether the bytes begin like those of this kind. */
bool hemi_wire_is(const uint8_t *in, size_t count, hemi_wire_kind kind);
/* At least `least` bytes, the kind and the version, a set of the table (whether it is one of this kind is for the caller to say), no flags.
 * what: "a request". */
HEMI_CHECK hemi_status hemi_wire_parse_header(const uint8_t *in, size_t count, size_t least, hemi_wire_kind kind, const char *what,
                                              const hemi_params **params, hemi_error *err);

unsigned hemi_wire_bits(uint64_t p); /* of a packed residue */
/* ERR_FORMAT unless n residues, packed at the bits of p, are below it and the rest of the last byte is zero. what and number say whose. */
HEMI_CHECK hemi_status hemi_wire_check_residues(const uint8_t *in, size_t n, uint64_t p, const char *what, size_t number, hemi_error *err);

#endif
