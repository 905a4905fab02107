#include "wire/batch.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "wire/common.h"

#define SECONDS 1u /* in the header's flags, and in a frame's */

static size_t degree(const hemi_params *p) { return (size_t)1 << p->log2_n; }

static hemi_status parse_common(const uint8_t *in, size_t count, size_t least, hemi_wire_kind kind, const char *what,
                                const hemi_params **params, hemi_error *err) {
    HEMI_TRY(hemi_wire_parse_header(in, count, least, kind, what, params, err));
    if (strcmp((*params)->name, HEMI_BATCH_SET) != 0)
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s: batches are of set " HEMI_BATCH_SET, (*params)->name);
    return HEMI_OK;
}

/* ---- requests */

size_t hemi_batch_row_bytes(const hemi_batch_request *r) { return hemi_packed_bytes(r->inputs, r->b_bits); }

size_t hemi_batch_rows_offset(const hemi_batch_request *r) {
    return HEMI_BATCH_HEADER_BYTES + r->modules * HEMI_BATCH_ENTRY_BYTES;
}

size_t hemi_batch_request_bytes(const hemi_batch_request *r) {
    return hemi_batch_rows_offset(r) + r->rows * hemi_batch_row_bytes(r);
}

void hemi_batch_request_write_header(uint8_t *out, const hemi_batch_request *r) {
    hemi_wire_write_header(out, HEMI_WIRE_BATCH_REQUEST, r->params);
    hemi_store16(out + 16, (uint16_t)r->modules);
    hemi_store16(out + 18, (uint16_t)r->b_bits);
    hemi_store32(out + 20, r->inputs);
    hemi_store32(out + 24, r->first);
    hemi_store32(out + 28, r->rows);
    hemi_store32(out + 32, r->slots);
    hemi_store32(out + 36, r->seconds ? SECONDS : 0);
    memcpy(out + 40, r->seed, HEMI_SEED_BYTES);
    uint8_t *at = out + HEMI_BATCH_HEADER_BYTES;
    for (size_t i = 0; i < r->modules; i++, at += HEMI_BATCH_ENTRY_BYTES) {
        memcpy(at, r->module[i].id, HEMI_MODULE_ID_BYTES);
        memcpy(at + HEMI_MODULE_ID_BYTES, r->module[i].tag, HEMI_BATCH_TAG_BYTES);
    }
}

bool hemi_batch_request_is(const uint8_t *in, size_t count) { return hemi_wire_is(in, count, HEMI_WIRE_BATCH_REQUEST); }

static hemi_status check_numbers(const hemi_batch_request *r, uint32_t flags, hemi_error *err) {
    if (r->modules == 0 || r->modules > HEMI_REQUEST_MODULES_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "a request names 1 to %d modules, not %zu", HEMI_REQUEST_MODULES_MAX,
                         r->modules);
    if (r->b_bits < 8 || r->b_bits > 50)
        return hemi_fail(err, HEMI_ERR_FORMAT, "b_bits %u: expected 8 to 50", r->b_bits);
    if (r->inputs == 0 || r->inputs > HEMI_BATCH_INPUTS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u inputs: expected 1 to %u", r->inputs, HEMI_BATCH_INPUTS_MAX);
    if (flags > SECONDS) return hemi_fail(err, HEMI_ERR_FORMAT, "flags 0x%x of a batch, expected 0 or 1", flags);
    if (r->slots == 0 || r->slots > HEMI_BATCH_SLOTS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%u rows of a batch in use: expected 1 to %d", r->slots,
                         HEMI_BATCH_SLOTS_MAX);
    if (r->first > r->slots || r->rows > r->slots - r->first)
        return hemi_fail(err, HEMI_ERR_SHAPE, "rows %u and %u further ones of a batch with %u in use", r->first,
                         r->rows, r->slots);
    const bool whole = r->first == 0 && (r->rows == 0 || r->rows == r->slots);
    if (r->seconds ? !whole : r->rows == 0)
        return hemi_fail(err, HEMI_ERR_FORMAT,
                         "%u rows from %u on, second components %s: expected no rows or all of them with, some without",
                         r->rows, r->first, r->seconds ? "wanted" : "not wanted");
    return HEMI_OK;
}

static bool is_zero(const uint8_t *in, size_t count) {
    unsigned any = 0;
    for (size_t i = 0; i < count; i++) any |= in[i];
    return any == 0;
}

static hemi_status parse_modules(hemi_batch_request *r, const uint8_t *in, hemi_error *err) {
    const uint8_t *at = in + HEMI_BATCH_HEADER_BYTES;
    for (size_t i = 0; i < r->modules; i++, at += HEMI_BATCH_ENTRY_BYTES) {
        memcpy(r->module[i].id, at, HEMI_MODULE_ID_BYTES);
        memcpy(r->module[i].tag, at + HEMI_MODULE_ID_BYTES, HEMI_BATCH_TAG_BYTES);
        if (r->seconds && !is_zero(r->module[i].tag, HEMI_BATCH_TAG_BYTES))
            return hemi_fail(err, HEMI_ERR_FORMAT, "module %zu has a tag before there can be one", i);
        for (size_t j = 0; j < i; j++)
            if (memcmp(r->module[i].id, r->module[j].id, HEMI_MODULE_ID_BYTES) == 0)
                return hemi_fail(err, HEMI_ERR_FORMAT, "modules %zu and %zu of a batch are the same", j, i);
    }
    return HEMI_OK;
}

hemi_status hemi_batch_request_parse(hemi_batch_request *r, const uint8_t *in, size_t count, hemi_error *err) {
    memset(r, 0, sizeof *r);
    HEMI_TRY(
        parse_common(in, count, HEMI_BATCH_HEADER_BYTES, HEMI_WIRE_BATCH_REQUEST, "a batch request", &r->params, err));
    const uint32_t flags = hemi_load32(in + 36);
    r->modules = hemi_load16(in + 16);
    r->b_bits = hemi_load16(in + 18);
    r->inputs = hemi_load32(in + 20);
    r->first = hemi_load32(in + 24);
    r->rows = hemi_load32(in + 28);
    r->slots = hemi_load32(in + 32);
    r->seconds = flags == SECONDS;
    memcpy(r->seed, in + 40, HEMI_SEED_BYTES);
    HEMI_TRY(check_numbers(r, flags, err));
    if (count != hemi_batch_request_bytes(r))
        return hemi_fail(err, HEMI_ERR_FORMAT, "the request has %zu bytes; its header makes it %zu", count,
                         hemi_batch_request_bytes(r));
    HEMI_TRY(parse_modules(r, in, err));
    const uint8_t *at = in + hemi_batch_rows_offset(r);
    for (size_t i = 0; i < r->rows; i++, at += hemi_batch_row_bytes(r))
        if (!hemi_packed_rest_is_zero(at, r->inputs, r->b_bits))
            return hemi_fail(err, HEMI_ERR_FORMAT, "the bits after the last field of row %zu are not zero", i);
    return HEMI_OK;
}

/* ---- replies */

size_t hemi_batch_seconds_bytes(const hemi_params *params, const hemi_batch_frame *f) {
    return f->seconds ? f->outputs * hemi_packed_bytes(degree(params), f->a_bits) : 0;
}

size_t hemi_batch_result_bytes(const hemi_batch_frame *f) { return hemi_packed_bytes(f->outputs, f->b_bits); }

size_t hemi_batch_frame_bytes(const hemi_params *params, const hemi_batch_frame *f) {
    return HEMI_BATCH_FRAME_BYTES + hemi_batch_seconds_bytes(params, f) + f->rows * hemi_batch_result_bytes(f);
}

void hemi_batch_reply_write_header(uint8_t *out, const hemi_params *params, size_t modules, uint64_t total_bytes) {
    hemi_wire_write_header(out, HEMI_WIRE_BATCH_REPLY, params);
    hemi_store16(out + 16, (uint16_t)modules);
    hemi_store16(out + 18, 0);
    hemi_store32(out + 20, (uint32_t)total_bytes);
}

void hemi_batch_frame_write_header(uint8_t *out, const hemi_params *params, const hemi_batch_frame *f) {
    memcpy(out, f->id, HEMI_MODULE_ID_BYTES);
    memcpy(out + 16, f->tag, HEMI_BATCH_TAG_BYTES);
    hemi_store32(out + 32, f->rows);
    hemi_store32(out + 36, f->outputs);
    hemi_store16(out + 40, (uint16_t)f->a_bits);
    hemi_store16(out + 42, (uint16_t)f->b_bits);
    hemi_store32(out + 44, f->seconds ? SECONDS : 0);
    hemi_store64(out + 48, hemi_batch_frame_bytes(params, f));
    hemi_store64(out + 56, 0);
}

hemi_status hemi_batch_reply_parse(const uint8_t *in, size_t count, const hemi_params *params,
                                   hemi_batch_frame *expected, size_t modules, size_t *offset, hemi_error *err) {
    const hemi_params *found = NULL;
    uint8_t header[HEMI_BATCH_FRAME_BYTES];
    size_t at = HEMI_BATCH_REPLY_BYTES;
    HEMI_TRY(parse_common(in, count, HEMI_BATCH_REPLY_BYTES, HEMI_WIRE_BATCH_REPLY, "a batch reply", &found, err));
    if (hemi_load16(in + 16) != modules || hemi_load16(in + 18) != 0 || hemi_load32(in + 20) != (uint32_t)count)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the reply's header is not that of %zu module(s) in %zu bytes", modules,
                         count);
    for (size_t i = 0; i < modules; i++) {
        hemi_batch_frame *f = &expected[i];
        const size_t bytes = hemi_batch_frame_bytes(params, f);
        if (count - at < bytes)
            return hemi_fail(err, HEMI_ERR_FORMAT, "part %zu of the reply ends early: expected %zu bytes", i, bytes);
        if (f->seconds) memcpy(f->tag, in + at + HEMI_MODULE_ID_BYTES, HEMI_BATCH_TAG_BYTES);
        hemi_batch_frame_write_header(header, params, f);
        if (memcmp(in + at, header, sizeof header) != 0)
            return hemi_fail(err, HEMI_ERR_FORMAT,
                             "part %zu of the reply is not the expected %u rows of %u outputs in %zu bytes", i, f->rows,
                             f->outputs, bytes);
        offset[i] = at + HEMI_BATCH_FRAME_BYTES;
        const uint8_t *row = in + offset[i] + hemi_batch_seconds_bytes(params, f);
        for (size_t r = 0; r < f->rows; r++)
            if (!hemi_packed_rest_is_zero(row + r * hemi_batch_result_bytes(f), f->outputs, f->b_bits))
                return hemi_fail(err, HEMI_ERR_FORMAT, "the bits after the last field of row %zu are not zero", r);
        at += bytes;
    }
    if (at != count) return hemi_fail(err, HEMI_ERR_FORMAT, "the reply has %zu bytes, expected %zu", count, at);
    return HEMI_OK;
}
