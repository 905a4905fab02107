#include "wire/ckks.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "ckks/cipher.h"
#include "wire/common.h"

static size_t degree(const hemi_params *p) { return (size_t)1 << p->log2_n; }

static size_t limb_bytes(const hemi_params *p, uint32_t ring_limb) {
    return hemi_packed_bytes(degree(p), hemi_wire_bits(p->prime[ring_limb]));
}

size_t hemi_ckks_poly_bytes(const hemi_params *params, uint32_t limbs) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < limbs; i++) bytes += limb_bytes(params, i);
    return bytes;
}

size_t hemi_ckks_ciphertext_bytes(const hemi_params *params, uint32_t limbs) {
    return HEMI_SEED_BYTES + hemi_ckks_poly_bytes(params, limbs);
}

/* `limbs` limbs of a polynomial, from ring limb `first` on; *at moves behind them. */
static hemi_status check_limbs(const uint8_t **at, const hemi_params *params, uint32_t first, uint32_t limbs, const char *what,
                               size_t number, hemi_error *err) {
    for (uint32_t i = first; i < first + limbs; i++) {
        HEMI_TRY(hemi_wire_check_residues(*at, degree(params), params->prime[i], what, number, err));
        *at += limb_bytes(params, i);
    }
    return HEMI_OK;
}

static hemi_status parse_header(const uint8_t *in, size_t count, size_t least, hemi_wire_kind kind, const char *what,
                                const hemi_params **params, hemi_error *err) {
    HEMI_TRY(hemi_wire_parse_header(in, count, least, kind, what, params, err));
    if ((*params)->chain == 0)
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s is for linear maps, not for circuits: %s is of a levelled set", (*params)->name, what);
    return HEMI_OK;
}

static hemi_status check_limb_count(const hemi_params *params, uint32_t limbs, hemi_error *err) {
    if (limbs == 0 || limbs > params->chain)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u limbs: set %s has 1 to %u", limbs, params->name, params->chain);
    return HEMI_OK;
}

/* ---- evaluation keys */

size_t hemi_ckks_key_entry_bytes(const hemi_params *params, uint32_t limbs, uint32_t t) {
    if (t == HEMI_CKKS_KEY_PUBLIC) return HEMI_KEY_ENTRY_HEADER_BYTES + limb_bytes(params, 0);
    size_t digit = hemi_ckks_poly_bytes(params, limbs);
    for (uint32_t i = 0; i < params->specials; i++) digit += limb_bytes(params, params->chain + i);
    return HEMI_KEY_ENTRY_HEADER_BYTES + hemi_ckks_digits(params, limbs) * digit;
}

size_t hemi_ckks_keys_bytes(const hemi_params *params, uint32_t limbs, size_t entries) {
    return HEMI_CKKS_KEYS_HEADER_BYTES + hemi_ckks_key_entry_bytes(params, limbs, HEMI_CKKS_KEY_PUBLIC) +
           (entries - 1) * hemi_ckks_key_entry_bytes(params, limbs, HEMI_CKKS_KEY_PRODUCT);
}

void hemi_ckks_keys_write_header(uint8_t *out, const hemi_params *params, uint32_t limbs, size_t entries) {
    hemi_wire_write_header(out, HEMI_WIRE_CKKS_KEYS, params);
    hemi_store32(out + 16, limbs);
    hemi_store32(out + 20, (uint32_t)entries);
}

bool hemi_ckks_keys_is(const uint8_t *in, size_t count) { return hemi_wire_is(in, count, HEMI_WIRE_CKKS_KEYS); }

static hemi_status check_entry(const uint8_t *in, const hemi_params *params, uint32_t limbs, hemi_error *err) {
    const uint32_t t = hemi_load32(in);
    const uint8_t *at = in + HEMI_KEY_ENTRY_HEADER_BYTES;
    if (hemi_load32(in + 4) != 0) return hemi_fail(err, HEMI_ERR_FORMAT, "a reserved field of key %u is not zero", t);
    if (t == HEMI_CKKS_KEY_PUBLIC) return check_limbs(&at, params, 0, 1, "key", t, err);
    for (uint32_t digit = 0; digit < hemi_ckks_digits(params, limbs); digit++) {
        HEMI_TRY(check_limbs(&at, params, 0, limbs, "key", t, err));
        HEMI_TRY(check_limbs(&at, params, params->chain, params->specials, "key", t, err));
    }
    return HEMI_OK;
}

hemi_status hemi_ckks_keys_read_header(const uint8_t *in, size_t count, const hemi_params **params, uint32_t *limbs, size_t *entries,
                                       hemi_error *err) {
    HEMI_TRY(parse_header(in, count, HEMI_CKKS_KEYS_HEADER_BYTES, HEMI_WIRE_CKKS_KEYS, "a file of evaluation keys of circuits", params, err));
    const hemi_params *p = *params;
    const uint32_t stated = hemi_load32(in + 20);
    *limbs = hemi_load32(in + 16);
    HEMI_TRY(check_limb_count(p, *limbs, err));
    if (stated == 0 || stated > HEMI_CKKS_KEYS_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u keys: expected 1 to %d", stated, HEMI_CKKS_KEYS_MAX);
    const size_t bytes = hemi_ckks_keys_bytes(p, *limbs, stated);
    if (count != bytes)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u keys of set %s for %u limbs make %zu bytes, not %zu", stated, p->name, *limbs, bytes, count);
    *entries = stated;
    return HEMI_OK;
}

hemi_status hemi_ckks_keys_check(const uint8_t *in, size_t count, const hemi_params **params, uint32_t *limbs, size_t *entries,
                                 hemi_error *err) {
    HEMI_TRY(hemi_ckks_keys_read_header(in, count, params, limbs, entries, err));
    const hemi_params *p = *params;
    const uint8_t *at = in + HEMI_CKKS_KEYS_HEADER_BYTES;
    for (uint32_t i = 0, last = 0; i < *entries; i++) {
        const uint32_t t = hemi_load32(at);
        if (i == 0 ? t != HEMI_CKKS_KEY_PUBLIC : t <= last || !hemi_ckks_key_is_known(p, t))
            return hemi_fail(err, HEMI_ERR_FORMAT, "key %u has the number %u, which set %s does not have at this place", i, t, p->name);
        HEMI_TRY(check_entry(at, p, *limbs, err));
        at += hemi_ckks_key_entry_bytes(p, *limbs, t);
        last = t;
    }
    return HEMI_OK;
}

/* ---- requests and replies: the header is the same */

static void write_header(uint8_t *out, hemi_wire_kind kind, const hemi_ckks_request *r) {
    hemi_wire_write_header(out, kind, r->params);
    hemi_store32(out + 16, r->limbs);
    hemi_store32(out + 20, r->units);
    hemi_store32(out + 24, r->ciphertexts);
    hemi_store32(out + 28, 0);
    memcpy(out + 32, r->module_id, HEMI_MODULE_ID_BYTES);
}

size_t hemi_ckks_request_ciphertext_offset(const hemi_ckks_request *r, size_t i) {
    return HEMI_CKKS_REQUEST_HEADER_BYTES + i * hemi_ckks_ciphertext_bytes(r->params, r->limbs);
}

size_t hemi_ckks_request_bytes(const hemi_ckks_request *r) {
    return hemi_ckks_request_ciphertext_offset(r, (size_t)r->units * r->ciphertexts);
}

void hemi_ckks_request_write_header(uint8_t *out, const hemi_ckks_request *r) { write_header(out, HEMI_WIRE_CKKS_REQUEST, r); }

bool hemi_ckks_request_is(const uint8_t *in, size_t count) { return hemi_wire_is(in, count, HEMI_WIRE_CKKS_REQUEST); }

hemi_status hemi_ckks_request_read_header(hemi_ckks_request *r, const uint8_t *in, size_t count, hemi_error *err) {
    memset(r, 0, sizeof *r);
    HEMI_TRY(parse_header(in, count, HEMI_CKKS_REQUEST_HEADER_BYTES, HEMI_WIRE_CKKS_REQUEST, "a request of a circuit", &r->params, err));
    r->limbs = hemi_load32(in + 16);
    r->units = hemi_load32(in + 20);
    r->ciphertexts = hemi_load32(in + 24);
    memcpy(r->module_id, in + 32, HEMI_MODULE_ID_BYTES);
    HEMI_TRY(check_limb_count(r->params, r->limbs, err));
    if (r->units == 0 || r->units > HEMI_CKKS_UNITS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u units: expected 1 to %d", r->units, HEMI_CKKS_UNITS_MAX);
    if (r->ciphertexts == 0 || r->ciphertexts > HEMI_CKKS_CIPHERTEXTS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u ciphertexts a unit: expected 1 to %d", r->ciphertexts, HEMI_CKKS_CIPHERTEXTS_MAX);
    if (hemi_load32(in + 28) != 0) return hemi_fail(err, HEMI_ERR_FORMAT, "a reserved field of the request is not zero");
    if (count != hemi_ckks_request_bytes(r))
        return hemi_fail(err, HEMI_ERR_FORMAT, "the request has %zu bytes; its header makes it %zu", count, hemi_ckks_request_bytes(r));
    return HEMI_OK;
}

hemi_status hemi_ckks_request_parse(hemi_ckks_request *r, const uint8_t *in, size_t count, hemi_error *err) {
    HEMI_TRY(hemi_ckks_request_read_header(r, in, count, err));
    for (size_t i = 0; i < (size_t)r->units * r->ciphertexts; i++) {
        const uint8_t *at = in + hemi_ckks_request_ciphertext_offset(r, i) + HEMI_SEED_BYTES;
        HEMI_TRY(check_limbs(&at, r->params, 0, r->limbs, "ciphertext", i, err));
    }
    return HEMI_OK;
}

size_t hemi_ckks_reply_bytes(const hemi_ckks_request *r) {
    return HEMI_CKKS_REPLY_HEADER_BYTES + (size_t)r->units * r->ciphertexts * 2 * hemi_ckks_poly_bytes(r->params, r->limbs);
}

void hemi_ckks_reply_write_header(uint8_t *out, const hemi_ckks_request *r) { write_header(out, HEMI_WIRE_CKKS_REPLY, r); }

hemi_status hemi_ckks_reply_check(const uint8_t *in, size_t count, const hemi_ckks_request *expected, hemi_error *err) {
    const hemi_params *found, *params = expected->params;
    uint8_t header[HEMI_CKKS_REPLY_HEADER_BYTES];
    HEMI_TRY(parse_header(in, count, sizeof header, HEMI_WIRE_CKKS_REPLY, "a reply of a circuit", &found, err));
    if (found != params) return hemi_fail(err, HEMI_ERR_PARAMS, "the reply is of set %s, expected %s", found->name, params->name);
    hemi_ckks_reply_write_header(header, expected);
    if (memcmp(in, header, sizeof header) != 0 || count != hemi_ckks_reply_bytes(expected))
        return hemi_fail(err, HEMI_ERR_FORMAT, "the reply is not the expected %u units of %u ciphertexts in %zu bytes", expected->units,
                         expected->ciphertexts, hemi_ckks_reply_bytes(expected));
    const uint8_t *at = in + sizeof header;
    for (size_t i = 0; i < (size_t)expected->units * expected->ciphertexts; i++)
        for (int part = 0; part < 2; part++) HEMI_TRY(check_limbs(&at, params, 0, expected->limbs, "ciphertext", i, err));
    return HEMI_OK;
}
