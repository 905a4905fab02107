#include "wire/wire.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "linear/layout.h"
#include "rlwe/ringswitch.h"
#include "wire/common.h"

static hemi_status parse_header(const uint8_t *in, size_t count, hemi_wire_kind kind, const char *what, const hemi_params **params,
                                hemi_error *err) {
    HEMI_TRY(hemi_wire_parse_header(in, count, HEMI_WIRE_HEADER_BYTES, kind, what, params, err));
    if ((*params)->reply_only) return hemi_fail(err, HEMI_ERR_PARAMS, "set %s is for replies of other sets", (*params)->name);
    return hemi_context_check(*params, err);
}

static uint32_t degree(const hemi_params *p) { return UINT32_C(1) << p->log2_n; }

static size_t request_ciphertext_bytes(const hemi_request *r) {
    return HEMI_SEED_BYTES + hemi_packed_bytes(r->coefficients, r->b_bits);
}

size_t hemi_request_ciphertext_offset(const hemi_request *r, size_t i) {
    return HEMI_REQUEST_HEADER_BYTES + r->modules * HEMI_MODULE_ID_BYTES + i * request_ciphertext_bytes(r);
}

size_t hemi_request_bytes(const hemi_request *r) { return hemi_request_ciphertext_offset(r, r->ciphertexts); }

void hemi_request_write_header(uint8_t *out, const hemi_request *r) {
    hemi_wire_write_header(out, HEMI_WIRE_REQUEST, r->params);
    hemi_store16(out + 16, (uint16_t)r->modules);
    hemi_store16(out + 18, (uint16_t)r->b_bits);
    hemi_store32(out + 20, r->layout);
    hemi_store32(out + 24, r->units);
    hemi_store32(out + 28, r->ciphertexts);
    hemi_store32(out + 32, r->coefficients);
    hemi_store32(out + 36, (uint32_t)r->form);
    for (size_t i = 0; i < r->modules; i++)
        memcpy(out + HEMI_REQUEST_HEADER_BYTES + i * HEMI_MODULE_ID_BYTES, r->module_id[i], HEMI_MODULE_ID_BYTES);
}

static hemi_status check_request_fields(const hemi_request *r, hemi_error *err) {
    const uint32_t n = degree(r->params);
    if (r->modules == 0 || r->modules > HEMI_REQUEST_MODULES_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "a request names 1 to %d modules, not %zu", HEMI_REQUEST_MODULES_MAX, r->modules);
    if (r->layout == 0 || (r->layout & (r->layout - 1)) != 0 || r->layout > n)
        return hemi_fail(err, HEMI_ERR_FORMAT, "layout %u: expected a power of two up to %u", r->layout, n);
    if (r->coefficients == 0 || r->coefficients > n)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u coefficients a ciphertext: expected 1 to %u", r->coefficients, n);
    if (r->units == 0 || r->units > HEMI_REQUEST_UNITS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u units: expected 1 to %d", r->units, HEMI_REQUEST_UNITS_MAX);
    if (r->ciphertexts == 0 || r->ciphertexts % r->units != 0 || r->ciphertexts / r->units > HEMI_LINEAR_BLOCKS_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u ciphertexts for %u units: expected as many for each, 1 to %u", r->ciphertexts,
                         r->units, HEMI_LINEAR_BLOCKS_MAX);
    if (r->form != HEMI_FORM_SINGLE && r->form != HEMI_FORM_PACKED)
        return hemi_fail(err, HEMI_ERR_FORMAT, "form %u: expected %d or %d", (unsigned)r->form, HEMI_FORM_SINGLE, HEMI_FORM_PACKED);
    if (r->b_bits < 8 || r->b_bits > 50) return hemi_fail(err, HEMI_ERR_FORMAT, "b_bits %u: expected 8 to 50", r->b_bits);
    return HEMI_OK;
}

hemi_status hemi_request_parse(hemi_request *r, const uint8_t *in, size_t count, hemi_error *err) {
    memset(r, 0, sizeof *r);
    HEMI_TRY(parse_header(in, count, HEMI_WIRE_REQUEST, "a request", &r->params, err));
    if (count < HEMI_REQUEST_HEADER_BYTES) return hemi_fail(err, HEMI_ERR_FORMAT, "%zu bytes are too few for a request", count);
    r->modules = hemi_load16(in + 16);
    r->b_bits = hemi_load16(in + 18);
    r->layout = hemi_load32(in + 20);
    r->units = hemi_load32(in + 24);
    r->ciphertexts = hemi_load32(in + 28);
    r->coefficients = hemi_load32(in + 32);
    r->form = (hemi_form)hemi_load32(in + 36);
    HEMI_TRY(check_request_fields(r, err));
    if (count != hemi_request_bytes(r))
        return hemi_fail(err, HEMI_ERR_FORMAT, "the request has %zu bytes; its header makes it %zu", count, hemi_request_bytes(r));
    for (size_t i = 0; i < r->modules; i++)
        memcpy(r->module_id[i], in + HEMI_REQUEST_HEADER_BYTES + i * HEMI_MODULE_ID_BYTES, HEMI_MODULE_ID_BYTES);
    for (size_t i = 0; i < r->ciphertexts; i++)
        if (!hemi_packed_rest_is_zero(in + hemi_request_ciphertext_offset(r, i) + HEMI_SEED_BYTES, r->coefficients, r->b_bits))
            return hemi_fail(err, HEMI_ERR_FORMAT, "the bits after the last field of ciphertext %zu are not zero", i);
    return HEMI_OK;
}

size_t hemi_reply_a_bytes(const hemi_params *params, const hemi_reply_frame *f) {
    return hemi_packed_bytes(f->ring ? f->ring : degree(params), f->a_bits);
}

static size_t reply_ciphertext_bytes(const hemi_params *params, const hemi_reply_frame *f) {
    return hemi_reply_a_bytes(params, f) + hemi_packed_bytes(f->coefficients, f->b_bits);
}

size_t hemi_reply_frame_bytes(const hemi_params *params, const hemi_reply_frame *f) {
    return HEMI_REPLY_FRAME_BYTES + f->ciphertexts * reply_ciphertext_bytes(params, f);
}

void hemi_reply_write_header(uint8_t *out, const hemi_params *params, size_t modules, size_t total_bytes) {
    hemi_wire_write_header(out, HEMI_WIRE_REPLY, params);
    hemi_store16(out + 16, (uint16_t)modules);
    hemi_store16(out + 18, 0);
    hemi_store32(out + 20, (uint32_t)total_bytes);
}

void hemi_reply_frame_write_header(uint8_t *out, const hemi_params *params, const hemi_reply_frame *f) {
    memcpy(out, f->module_id, HEMI_MODULE_ID_BYTES);
    hemi_store32(out + 16, f->units);
    hemi_store32(out + 20, f->coefficients);
    hemi_store32(out + 24, f->ciphertexts);
    hemi_store16(out + 28, (uint16_t)f->a_bits);
    hemi_store16(out + 30, (uint16_t)f->b_bits);
    hemi_store64(out + 32, hemi_reply_frame_bytes(params, f));
    hemi_store32(out + 40, 0);
    hemi_store32(out + 44, f->ring);
}

hemi_status hemi_reply_parse(const uint8_t *in, size_t count, const hemi_params *params, const hemi_reply_frame *expected,
                             size_t modules, size_t *offset, hemi_error *err) {
    const hemi_params *found = NULL;
    uint8_t header[HEMI_REPLY_FRAME_BYTES];
    size_t at = HEMI_REPLY_HEADER_BYTES;
    HEMI_TRY(parse_header(in, count, HEMI_WIRE_REPLY, "a reply", &found, err));
    if (found != params) return hemi_fail(err, HEMI_ERR_PARAMS, "the reply is of set %s, expected %s", found->name, params->name);
    if (count < HEMI_REPLY_HEADER_BYTES || hemi_load16(in + 16) != modules || hemi_load16(in + 18) != 0 ||
        hemi_load32(in + 20) != (uint32_t)count)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the reply's header is not that of %zu module(s) in %zu bytes", modules, count);
    for (size_t i = 0; i < modules; i++) {
        const size_t bytes = hemi_reply_frame_bytes(params, &expected[i]);
        hemi_reply_frame_write_header(header, params, &expected[i]);
        if (count - at < bytes || memcmp(in + at, header, sizeof header) != 0)
            return hemi_fail(err, HEMI_ERR_FORMAT, "part %zu of the reply is not the expected %u ciphertexts of %u results in %zu bytes", i,
                             expected[i].ciphertexts, expected[i].coefficients, bytes);
        offset[i] = at + HEMI_REPLY_FRAME_BYTES;
        const size_t each = reply_ciphertext_bytes(params, &expected[i]), a_bytes = hemi_reply_a_bytes(params, &expected[i]);
        for (size_t c = 0; c < expected[i].ciphertexts; c++)
            if (!hemi_packed_rest_is_zero(in + offset[i] + c * each + a_bytes, expected[i].coefficients, expected[i].b_bits))
                return hemi_fail(err, HEMI_ERR_FORMAT, "the bits after the last field of ciphertext %zu are not zero", c);
        at += bytes;
    }
    if (at != count) return hemi_fail(err, HEMI_ERR_FORMAT, "the reply has %zu bytes, expected %zu", count, at);
    return HEMI_OK;
}

size_t hemi_key_entry_bytes(const hemi_params *params, uint32_t t) {
    const size_t n = degree(params);
    if (t == HEMI_KEY_RING_SWITCH && params->reply)
        return HEMI_KEY_ENTRY_HEADER_BYTES +
               HEMI_RINGSWITCH_SAMPLES * hemi_packed_bytes(degree(params->reply), hemi_wire_bits(params->reply->q));
    return HEMI_KEY_ENTRY_HEADER_BYTES + hemi_packed_bytes(n, hemi_wire_bits(params->q)) +
           (t == 0 ? 0 : hemi_packed_bytes(n, hemi_wire_bits(params->special)));
}

size_t hemi_keys_total_bytes(const hemi_params *params, size_t automorphisms) {
    const size_t head = HEMI_KEYS_HEADER_BYTES + hemi_key_entry_bytes(params, 0);
    return automorphisms == 0 ? head : head + automorphisms * hemi_key_entry_bytes(params, 2 * degree(params) - 1);
}

void hemi_keys_write_header(uint8_t *out, const hemi_params *params, size_t entries) {
    hemi_wire_write_header(out, HEMI_WIRE_EVALUATION_KEYS, params);
    hemi_store32(out + 16, (uint32_t)entries);
    hemi_store32(out + 20, 0);
}

void hemi_key_entry_write_header(uint8_t *out, uint32_t t, const uint8_t seed[HEMI_SEED_BYTES]) {
    hemi_store32(out, t);
    hemi_store32(out + 4, 0);
    memcpy(out + 8, seed, HEMI_SEED_BYTES);
}

static hemi_status check_entry(const uint8_t *in, const hemi_params *params, uint32_t t, hemi_error *err) {
    const size_t n = degree(params), q_bytes = hemi_packed_bytes(n, hemi_wire_bits(params->q));
    if (hemi_load32(in + 4) != 0) return hemi_fail(err, HEMI_ERR_FORMAT, "a reserved field of key %u is not zero", t);
    if (t == HEMI_KEY_RING_SWITCH) {
        const size_t m = degree(params->reply), bytes = hemi_packed_bytes(m, hemi_wire_bits(params->reply->q));
        for (size_t j = 0; j < HEMI_RINGSWITCH_SAMPLES; j++)
            HEMI_TRY(hemi_wire_check_residues(in + HEMI_KEY_ENTRY_HEADER_BYTES + j * bytes, m, params->reply->q, "key", t, err));
        return HEMI_OK;
    }
    HEMI_TRY(hemi_wire_check_residues(in + HEMI_KEY_ENTRY_HEADER_BYTES, n, params->q, "key", t, err));
    return t == 0 ? HEMI_OK : hemi_wire_check_residues(in + HEMI_KEY_ENTRY_HEADER_BYTES + q_bytes, n, params->special, "key", t, err);
}

/* Whether the second entry is the ring-switching key. */
static bool has_ring_switch(const uint8_t *in, size_t count, const hemi_params *params, uint32_t entries) {
    const size_t second = HEMI_KEYS_HEADER_BYTES + hemi_key_entry_bytes(params, 0);
    return entries > 1 && count >= second + HEMI_KEY_ENTRY_HEADER_BYTES && hemi_load32(in + second) == HEMI_KEY_RING_SWITCH;
}

uint32_t hemi_keys_most(const hemi_params *p) {
    if (p->special == 0) return 1;
    return (p->baby_digits ? HEMI_AUTOMORPHISMS_MAX : p->log2_n + 1) + 1 + (p->reply ? 1 : 0);
}

hemi_status hemi_keys_check(const uint8_t *in, size_t count, const hemi_params **params, size_t *entries, hemi_error *err) {
    HEMI_TRY(parse_header(in, count, HEMI_WIRE_EVALUATION_KEYS, "evaluation keys", params, err));
    if (count < HEMI_KEYS_HEADER_BYTES) return hemi_fail(err, HEMI_ERR_FORMAT, "%zu bytes are too few for evaluation keys", count);
    const bool may_switch = (*params)->reply != NULL;
    const uint32_t stated = hemi_load32(in + 16), most = hemi_keys_most(*params);
    if (stated == 0 || stated > most || hemi_load32(in + 20) != 0)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u keys: set %s has 1 to %u", stated, (*params)->name, most);
    const bool switches = may_switch && has_ring_switch(in, count, *params, stated);
    const size_t bytes = hemi_keys_total_bytes(*params, stated - 1 - (switches ? 1 : 0)) +
                         (switches ? hemi_key_entry_bytes(*params, HEMI_KEY_RING_SWITCH) : 0);
    if (count != bytes)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%u keys of set %s make %zu bytes, not %zu", stated, (*params)->name, bytes, count);
    uint32_t last = 0;
    size_t at = HEMI_KEYS_HEADER_BYTES;
    for (uint32_t i = 0; i < stated; i++) {
        const uint32_t t = hemi_load32(in + at);
        const bool known = i == 0 ? t == 0 : (i == 1 && switches) || hemi_key_is_known(*params, t);
        if (!known || (i > 0 && t <= last))
            return hemi_fail(err, HEMI_ERR_FORMAT, "key %u is for automorphism %u, which set %s does not have at this place", i, t,
                             (*params)->name);
        HEMI_TRY(check_entry(in + at, *params, t, err));
        last = t;
        at += hemi_key_entry_bytes(*params, t);
    }
    *entries = stated;
    return HEMI_OK;
}
