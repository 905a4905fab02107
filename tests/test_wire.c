/* The formats of docs/wire-format.md: headers byte by byte; every field at 0, 1, its maximum and one off; every truncation;
 * keys that must be refused. */
#include <sodium.h>

#include "product.h"

/* Copies of exactly the stated length: a sanitizer sees whatever is read beyond. */
static uint8_t *exact_copy(const uint8_t *bytes, size_t count) {
    uint8_t *copy = malloc(count ? count : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, count);
    return copy;
}

typedef hemi_status (*parser)(const uint8_t *bytes, size_t count);

static hemi_status parse_exact(parser parse, const uint8_t *bytes, size_t count) {
    uint8_t *copy = exact_copy(bytes, count);
    const hemi_status status = parse(copy, count);
    free(copy);
    return status;
}

static uint64_t get(const uint8_t *at, unsigned width) {
    uint64_t v = 0;
    for (unsigned i = width; i-- > 0;) v = v << 8 | at[i];
    return v;
}

static void put(uint8_t *at, unsigned width, uint64_t v) {
    for (unsigned i = 0; i < width; i++, v >>= 8) at[i] = (uint8_t)v;
}

/* A field of a header: the status that 0, 1, the largest number, one less and one more than the right value give. */
typedef struct field {
    const char *name;
    size_t offset;
    unsigned width;
    hemi_status zero, one, largest, less, more;
} field;

#define ALL(s) HEMI_ERR_##s, HEMI_ERR_##s, HEMI_ERR_##s, HEMI_ERR_##s, HEMI_ERR_##s

/* sign: NULL, or what makes a changed file consistent again. */
static void check_fields(const field *fields, size_t count, parser parse, const uint8_t *good, size_t bytes,
                         void (*sign)(uint8_t *, size_t)) {
    uint8_t *bad = malloc(bytes + 1);
    assert_non_null(bad);
    assert_status(parse_exact(parse, good, bytes), HEMI_OK);
    for (size_t i = 0; i < count; i++) {
        const field *f = &fields[i];
        const uint64_t right = get(good + f->offset, f->width),
                       most = f->width == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * f->width) - 1;
        const uint64_t value[] = {0, 1, most, (right - 1) & most, (right + 1) & most};
        const hemi_status wanted[] = {f->zero, f->one, f->largest, f->less, f->more};
        for (size_t j = 0; j < 5; j++) {
            memcpy(bad, good, bytes);
            put(bad + f->offset, f->width, value[j]);
            if (sign) sign(bad, bytes);
            const hemi_status found = parse_exact(parse, bad, bytes);
            hemi_status expected = wanted[j]; /* one off may be 0, 1 or the largest: then those columns count */
            if (value[j] == 0) expected = f->zero;
            if (value[j] == 1) expected = f->one;
            if (value[j] == most) expected = f->largest;
            if (value[j] == right) expected = HEMI_OK;
            if (found != expected)
                fail_msg("%s = %llu: %s, not %s", f->name, (unsigned long long)value[j], hemi_status_name(found),
                         hemi_status_name(expected));
        }
    }
    free(bad);
}

/* Shorter at every length up to `dense`, then at some; longer by one byte and by many. */
static void check_lengths(parser parse, const uint8_t *good, size_t bytes, size_t dense) {
    uint8_t *longer = calloc(2 * bytes, 1);
    assert_non_null(longer);
    memcpy(longer, good, bytes);
    for (size_t n = 0; n < bytes; n += n < dense ? 1 : 1 + bytes / 61)
        assert_status(parse_exact(parse, longer, n), HEMI_ERR_FORMAT);
    assert_status(parse_exact(parse, longer, bytes - 1), HEMI_ERR_FORMAT);
    assert_status(parse_exact(parse, longer, bytes), HEMI_OK);
    assert_status(parse_exact(parse, longer, bytes + 1), HEMI_ERR_FORMAT);
    assert_status(parse_exact(parse, longer, 2 * bytes), HEMI_ERR_FORMAT);
    free(longer);
}

/* ---- requests */

static const uint8_t id_a[16] = {0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, id_b[16] = {0xb0, 0xff};

static hemi_request request_fixture(size_t modules) {
    hemi_request r = {.params = hemi_params_by_id(1),
                      .layout = 128,
                      .coefficients = 3200,
                      .units = 2,
                      .ciphertexts = 2,
                      .b_bits = 32,
                      .modules = modules};
    memcpy(r.module_id[0], id_a, 16);
    memcpy(r.module_id[1], id_b, 16);
    return r;
}

static uint8_t *request_bytes(const hemi_request *r, size_t *bytes) {
    *bytes = hemi_request_bytes(r);
    uint8_t *out = calloc(*bytes, 1);
    assert_non_null(out);
    hemi_request_write_header(out, r);
    for (size_t i = hemi_request_ciphertext_offset(r, 0); i < *bytes; i++) out[i] = (uint8_t)(151 * i);
    for (size_t c = 1; c <= r->ciphertexts; c++) out[hemi_request_ciphertext_offset(r, c) - 1] = 0; /* bits left over */
    return out;
}

static hemi_status parse_request(const uint8_t *bytes, size_t count) {
    hemi_request r;
    return hemi_request_parse(&r, bytes, count, ERR);
}

static void request_layout(void **state) {
    (void)state;
    const hemi_request r = request_fixture(2);
    size_t bytes;
    uint8_t *out = request_bytes(&r, &bytes);
    const uint8_t header[] = {'H', 'E', 'M',  'I',  1,    0, 1, 0, 1, 0, 0, 0, 0, 0, 0,   0,  2,  0,
                              32,  0,   128,  0,    0,    0, 2, 0, 0, 0, 2, 0, 0, 0, 128, 12, 0,  0,
                              0,   0,   0,    0,    0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,  11, 12, 13,
                              14,  15,  0xb0, 0xff, 0,    0, 0, 0, 0, 0, 0, 0, 0, 0, 0,   0,  0,  0};
    assert_int_equal(sizeof header, 72);
    assert_memory_equal(out, header, sizeof header);
    assert_int_equal(hemi_request_ciphertext_offset(&r, 0), 72);
    assert_int_equal(hemi_request_ciphertext_offset(&r, 1), 72 + 32 + 100 * 32 * 4);
    assert_int_equal(bytes, 72 + 2 * (32 + 100 * 32 * 4));
    hemi_request parsed;
    ASSERT_OK(hemi_request_parse(&parsed, out, bytes, ERR));
    assert_ptr_equal(parsed.params, r.params);
    assert_true(parsed.layout == 128 && parsed.coefficients == 3200 && parsed.form == HEMI_FORM_SINGLE && parsed.units == 2 && parsed.ciphertexts == 2 &&
                parsed.b_bits == 32);
    assert_true(parsed.modules == 2 && memcmp(parsed.module_id[0], id_a, 16) == 0 &&
                memcmp(parsed.module_id[1], id_b, 16) == 0);
    free(out);
}

static void request_fields(void **state) {
    (void)state;
    static const field fields[] = {
        {"magic", 0, 4, ALL(FORMAT)},
        {"magic, last byte", 3, 1, ALL(FORMAT)},
        {"version", 4, 2, ALL(VERSION)},
        {"kind", 6, 2, ALL(FORMAT)},
        {"set", 8, 4, HEMI_ERR_PARAMS, HEMI_OK, HEMI_ERR_PARAMS, HEMI_ERR_PARAMS,
         HEMI_ERR_SHAPE /* L2048: more coefficients than it has */},
        {"flags", 12, 4, ALL(FORMAT)},
        {"modules", 16, 2, ALL(FORMAT)},
        {"b_bits", 18, 2, ALL(FORMAT)},
        {"layout", 20, 4, HEMI_ERR_FORMAT, HEMI_OK /* S = 1: what it means is the module's affair */, HEMI_ERR_FORMAT, HEMI_ERR_FORMAT,
         HEMI_ERR_FORMAT},
        {"units", 24, 4, HEMI_ERR_SHAPE, HEMI_OK /* of two ciphertexts */, HEMI_ERR_SHAPE, HEMI_OK, HEMI_ERR_FORMAT},
        {"ciphertexts", 28, 4, ALL(FORMAT)},
        {"coefficients", 32, 4, HEMI_ERR_SHAPE, HEMI_ERR_FORMAT, HEMI_ERR_SHAPE, HEMI_ERR_FORMAT, HEMI_ERR_FORMAT},
        {"form", 36, 4, HEMI_OK, HEMI_OK, HEMI_ERR_FORMAT, HEMI_ERR_FORMAT, HEMI_ERR_FORMAT},
        {"form, last byte", 39, 1, ALL(FORMAT)},
    };
    const hemi_request r = request_fixture(2);
    size_t bytes;
    uint8_t *good = request_bytes(&r, &bytes);
    check_fields(fields, TEST_COUNT(fields), parse_request, good, bytes, NULL);
    check_lengths(parse_request, good, bytes, 120);

    /* more values, and pairs of fields that agree with each other but not with the length */
    static const struct {
        size_t offset;
        unsigned width;
        uint64_t value;
        hemi_status wanted;
    } more[] = {{6, 2, 2, HEMI_ERR_FORMAT},
                {6, 2, 3, HEMI_ERR_FORMAT},
                {6, 2, 4, HEMI_ERR_FORMAT},
                {16, 2, 16, HEMI_ERR_FORMAT},
                {16, 2, 17, HEMI_ERR_FORMAT},
                {18, 2, 7, HEMI_ERR_FORMAT},
                {18, 2, 8, HEMI_ERR_FORMAT},
                {18, 2, 50, HEMI_ERR_FORMAT},
                {18, 2, 51, HEMI_ERR_FORMAT},
                {18, 2, 288, HEMI_ERR_FORMAT},
                {20, 4, 64, HEMI_OK},
                {20, 4, 256, HEMI_OK},
                {20, 4, 4096, HEMI_OK},
                {20, 4, 8192, HEMI_ERR_FORMAT},
                {20, 4, 96, HEMI_ERR_FORMAT},
                {24, 4, 65537, HEMI_ERR_SHAPE},
                {24, 8, 0x1000000010000, HEMI_ERR_FORMAT}, /* 65536 rows and ciphertexts */
                {24, 8, 0x0000000100000001, HEMI_ERR_FORMAT},
                {24, 8, 0x0000000300000003, HEMI_ERR_FORMAT},
                {32, 4, 128, HEMI_ERR_FORMAT},
                {32, 4, 129, HEMI_ERR_FORMAT},
                {32, 4, 4096, HEMI_ERR_FORMAT},
                {8, 4, 0x101, HEMI_ERR_PARAMS},
                {8, 4, 3, HEMI_ERR_PARAMS},
                {8, 4, 0x1000000, HEMI_ERR_PARAMS}};
    for (size_t i = 0; i < TEST_COUNT(more); i++) {
        uint8_t *bad = exact_copy(good, bytes);
        put(bad + more[i].offset, more[i].width, more[i].value);
        const hemi_status found = parse_exact(parse_request, bad, bytes);
        if (found != more[i].wanted)
            fail_msg("field at %zu = %llu: %s", more[i].offset, (unsigned long long)more[i].value,
                     hemi_status_name(found));
        free(bad);
    }
    free(good);
    assert_status(hemi_request_parse(&(hemi_request){0}, NULL, 0, NULL), HEMI_ERR_FORMAT);
}

/* Whatever the header of a well-formed request says, its length follows; the ends of every range are accepted. */
static void request_ranges(void **state) {
    (void)state;
    static const struct {
        uint32_t set, layout, coefficients, units;
        unsigned b_bits;
        size_t modules;
    } ends[] = {{1, 1, 1, 1, 8, 1},
                {1, 4096, 4096, 1, 50, 16},
                {2, 2048, 1, 3, 49, 2},
                {2, 1, 1, 1, 48, 16},
                {1, 4096, 1, 65536, 8, 1}};
    for (size_t i = 0; i < TEST_COUNT(ends); i++) {
        const hemi_request r = {.params = hemi_params_by_id(ends[i].set),
                                .layout = ends[i].layout,
                                .coefficients = ends[i].coefficients,
                                .units = ends[i].units,
                                .ciphertexts = ends[i].units,
                                .b_bits = ends[i].b_bits,
                                .modules = ends[i].modules};
        size_t bytes;
        uint8_t *good = request_bytes(&r, &bytes);
        assert_int_equal(bytes, 40 + 16 * r.modules + r.units * (32 + (r.coefficients * r.b_bits + 7) / 8));
        check_lengths(parse_request, good, bytes, 40);
        free(good);
    }
}

/* ---- replies */

static hemi_reply_frame frames[2];
static size_t frame_count, offsets[2];

static void reply_fixture(size_t count) {
    frames[0] = (hemi_reply_frame){.units = 2, .coefficients = 60, .ciphertexts = 2, .a_bits = 25, .b_bits = 21};
    frames[1] = (hemi_reply_frame){.units = 3, .coefficients = 7, .ciphertexts = 3, .a_bits = 24, .b_bits = 20, .ring = 2048};
    memcpy(frames[0].module_id, id_a, 16);
    memcpy(frames[1].module_id, id_b, 16);
    frame_count = count;
}

static uint8_t *reply_bytes(size_t *bytes) {
    const hemi_params *p = hemi_params_by_id(1);
    *bytes = HEMI_REPLY_HEADER_BYTES;
    for (size_t i = 0; i < frame_count; i++) *bytes += hemi_reply_frame_bytes(p, &frames[i]);
    uint8_t *out = calloc(*bytes, 1);
    assert_non_null(out);
    hemi_reply_write_header(out, p, frame_count, *bytes);
    size_t at = HEMI_REPLY_HEADER_BYTES;
    for (size_t i = 0; i < frame_count; i++) {
        hemi_reply_frame_write_header(out + at, p, &frames[i]);
        at += hemi_reply_frame_bytes(p, &frames[i]);
    }
    return out;
}

static hemi_status parse_reply(const uint8_t *bytes, size_t count) {
    return hemi_reply_parse(bytes, count, hemi_params_by_id(1), frames, frame_count, offsets, ERR);
}

static void replies(void **state) {
    (void)state;
    static const field fields[] = {
        {"magic", 0, 4, ALL(FORMAT)},        {"version", 4, 2, ALL(VERSION)},
        {"kind", 6, 2, ALL(FORMAT)},         {"set", 8, 4, ALL(PARAMS)},
        {"flags", 12, 4, ALL(FORMAT)},       {"modules", 16, 2, ALL(FORMAT)},
        {"reserved", 18, 2, ALL(FORMAT)},    {"bytes", 20, 4, ALL(FORMAT)},
        {"id", 24, 8, ALL(FORMAT)},          {"id, second half", 32, 8, ALL(FORMAT)},
        {"rows", 40, 4, ALL(FORMAT)},        {"outputs", 44, 4, ALL(FORMAT)},
        {"ciphertexts", 48, 4, ALL(FORMAT)}, {"a_bits", 52, 2, ALL(FORMAT)},
        {"b_bits", 54, 2, ALL(FORMAT)},      {"frame bytes", 56, 8, ALL(FORMAT)},
        {"frame flags", 64, 4, ALL(FORMAT)}, {"ring", 68, 4, ALL(FORMAT)},
    };
    for (size_t count = 1; count <= 2; count++) {
        reply_fixture(count);
        size_t bytes;
        uint8_t *good = reply_bytes(&bytes);
        const uint8_t header[] = {'H', 'E', 'M', 'I', 1, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, (uint8_t)count, 0, 0, 0};
        const uint8_t frame[] = {0xa0, 1, 2, 3, 4,  5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                 2,    0, 0, 0, 60, 0, 0, 0, 2, 0, 0,  0,  25, 0,  21, 0};
        const size_t frame_bytes = 48 + 2 * (4096 * 25 / 8 + (60 * 21 + 7) / 8);
        assert_memory_equal(good, header, sizeof header);
        assert_int_equal(get(good + 20, 4), bytes);
        assert_memory_equal(good + 24, frame, sizeof frame);
        assert_int_equal(get(good + 56, 8), frame_bytes);
        assert_int_equal(get(good + 64, 8), 0);
        assert_int_equal(bytes, 24 + frame_bytes + (count == 2 ? 48 + 3 * (2048 * 3 + (7 * 20 + 7) / 8) : 0));
        check_fields(fields, TEST_COUNT(fields), parse_reply, good, bytes, NULL);
        check_lengths(parse_reply, good, bytes, 100);
        ASSERT_OK(parse_reply(good, bytes));
        assert_int_equal(offsets[0], 24 + 48);
        if (count == 2) assert_int_equal(offsets[1], 24 + frame_bytes + 48);
        if (count == 2) assert_int_equal(get(good + 24 + frame_bytes + 44, 4), 2048);
        if (count == 2) { /* every byte of the second frame's header counts too */
            for (size_t i = 24 + frame_bytes; i < 24 + frame_bytes + 48; i++) {
                good[i] ^= 0x10;
                assert_status(parse_exact(parse_reply, good, bytes), HEMI_ERR_FORMAT);
                good[i] ^= 0x10;
            }
            frame_count = 1; /* more than was asked for */
            assert_status(parse_exact(parse_reply, good, bytes), HEMI_ERR_FORMAT);
        }
        free(good);
    }
}

/* The bits after the last field are zero, in requests and in replies. */
static void packed_rest(void **state) {
    (void)state;
    hemi_request r = request_fixture(1);
    r.layout = 4096;
    r.coefficients = 3;
    r.b_bits = 27; /* 81 bits in 11 bytes */
    size_t bytes;
    uint8_t *out = request_bytes(&r, &bytes);
    for (size_t c = 0; c < 2; c++) out[hemi_request_ciphertext_offset(&r, c) + 32 + 10] = 1;
    ASSERT_OK(parse_request(out, bytes));
    for (size_t c = 0; c < 2; c++)
        for (unsigned bit = 1; bit < 8; bit++) {
            uint8_t *last = out + hemi_request_ciphertext_offset(&r, c) + 32 + 10;
            *last ^= (uint8_t)(1u << bit);
            assert_status(parse_request(out, bytes), HEMI_ERR_FORMAT);
            *last ^= (uint8_t)(1u << bit);
        }
    free(out);
    reply_fixture(1); /* 60 outputs of 21 bits: 4 bits are left over */
    out = reply_bytes(&bytes);
    ASSERT_OK(parse_reply(out, bytes));
    out[bytes - 1] = 0x0f;
    ASSERT_OK(parse_reply(out, bytes));
    out[bytes - 1] = 0x10;
    assert_status(parse_reply(out, bytes), HEMI_ERR_FORMAT);
    free(out);
}

/* ---- evaluation keys */

static hemi_status parse_keys(const uint8_t *bytes, size_t count) {
    const hemi_params *params;
    size_t entries;
    return hemi_keys_check(bytes, count, &params, &entries, ERR);
}

/* Keys of uniform residues: what the format can see of real ones. */
static uint8_t *keys_bytes(const hemi_params *p, const uint32_t *t, size_t count, size_t *bytes) {
    test_rng rng = {77};
    const size_t n = (size_t)1 << p->log2_n;
    uint64_t *b = calloc(n, sizeof *b);
    *bytes = test_key_total(p, t, count);
    uint8_t *out = calloc(*bytes, 1), *at = out + HEMI_KEYS_HEADER_BYTES, seed[HEMI_SEED_BYTES];
    assert_true(b && out);
    hemi_keys_write_header(out, p, count + 1);
    for (size_t i = 0; i <= count; i++) {
        for (size_t j = 0; j < sizeof seed; j++) seed[j] = (uint8_t)test_u64(&rng);
        hemi_key_entry_write_header(at, i ? t[i - 1] : 0, seed);
        const bool ring_switch = i > 0 && t[i - 1] == 1 && p->reply;
        for (size_t j = 0; ring_switch && j < 4; j++) {
            test_residues(b, n / 2, p->reply->q, &rng);
            hemi_pack(at + 40 + j * (n / 2 * 46 / 8), b, n / 2, 46);
        }
        test_residues(b, n, p->q, &rng);
        if (!ring_switch) hemi_pack(at + 40, b, n, 48);
        if (i > 0 && !ring_switch) {
            test_residues(b, n, p->special, &rng);
            hemi_pack(at + 40 + n * 6, b, n, 50);
        }
        at += hemi_key_entry_bytes(p, i ? t[i - 1] : 0);
    }
    free(b);
    return out;
}

static void keys_header(void **state) {
    (void)state;
    static const field fields[] = {
        {"magic", 0, 4, ALL(FORMAT)},
        {"version", 4, 2, ALL(VERSION)},
        {"kind", 6, 2, ALL(FORMAT)},
        {"set", 8, 4, HEMI_ERR_PARAMS, HEMI_OK, HEMI_ERR_PARAMS, HEMI_ERR_PARAMS, HEMI_ERR_FORMAT},
        {"flags", 12, 4, ALL(FORMAT)},
        {"entries", 16, 4, ALL(FORMAT)},
        {"reserved", 20, 4, ALL(FORMAT)},
        {"t of the public key", 24, 4, ALL(FORMAT)},
        {"reserved of the public key", 28, 4, ALL(FORMAT)},
        {"t of the second entry", 24 + 40 + 4096 * 6, 4, HEMI_ERR_FORMAT, HEMI_ERR_FORMAT, HEMI_ERR_FORMAT,
         HEMI_ERR_FORMAT, HEMI_ERR_FORMAT},
        {"its reserved field", 24 + 40 + 4096 * 6 + 4, 4, ALL(FORMAT)},
    };
    const uint32_t t[] = {5, 4097};
    size_t bytes;
    uint8_t *good = keys_bytes(hemi_params_by_id(1), t, 2, &bytes);
    const uint8_t header[] = {'H', 'E', 'M', 'I', 1, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                              3,   0,   0,   0,   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    assert_memory_equal(good, header, sizeof header);
    assert_int_equal(bytes, 24 + 40 + 4096 * 6 + 2 * (40 + 4096 * 6 + 4096 * 50 / 8));
    check_fields(fields, TEST_COUNT(fields), parse_keys, good, bytes, NULL);
    check_lengths(parse_keys, good, bytes, 80);
    put(good + 16, 4, 4097);
    assert_status(parse_exact(parse_keys, good, bytes), HEMI_ERR_FORMAT);
    free(good);
}

static void keys_order(void **state) {
    (void)state;
    const hemi_params *p = hemi_params_by_id(1);
    static const struct {
        size_t count;
        uint32_t t[3];
        hemi_status wanted;
    } cases[] = {
        {0, {0}, HEMI_OK},
        {1, {3}, HEMI_OK},
        {1, {4097}, HEMI_OK},
        {1, {8191}, HEMI_OK},
        {3, {3, 4097, 8191}, HEMI_OK},
        {3, {9, 17, 33}, HEMI_OK},
        {2, {3, 3}, HEMI_ERR_FORMAT}, /* repeated */
        {2, {8191, 8191}, HEMI_ERR_FORMAT},
        {2, {5, 3}, HEMI_ERR_FORMAT}, /* unordered */
        {3, {3, 9, 5}, HEMI_ERR_FORMAT},
        {2, {8191, 3}, HEMI_ERR_FORMAT},
        {2, {3, 0}, HEMI_ERR_FORMAT}, /* a second public key */
        {1, {0}, HEMI_ERR_FORMAT},
        {1, {1}, HEMI_ERR_FORMAT}, /* the ring-switching key has another length */
        {2, {3, 1}, HEMI_ERR_FORMAT},
        {1, {2}, HEMI_ERR_FORMAT}, /* outside the family */
        {1, {4}, HEMI_ERR_FORMAT},
        {1, {7}, HEMI_ERR_FORMAT},
        {1, {4095}, HEMI_ERR_FORMAT},
        {1, {4096}, HEMI_ERR_FORMAT},
        {1, {4098}, HEMI_ERR_FORMAT},
        {1, {4099}, HEMI_ERR_FORMAT},
        {1, {8189}, HEMI_ERR_FORMAT},
        {1, {8190}, HEMI_ERR_FORMAT},
        {1, {8192}, HEMI_ERR_FORMAT},
        {1, {8193}, HEMI_ERR_FORMAT}, /* 1 + 2^13: the identity */
        {1, {8195}, HEMI_ERR_FORMAT}, /* 3 + 2N: not in its least form */
        {1, {0x80000001}, HEMI_ERR_FORMAT},
        {1, {UINT32_MAX}, HEMI_ERR_FORMAT},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        size_t bytes;
        uint32_t t[3] = {3, 3, 3}; /* lengths as for any automorphism */
        uint8_t *keys = keys_bytes(p, t, cases[i].count, &bytes);
        for (size_t j = 0; j < cases[i].count; j++)
            put(keys + 24 + hemi_key_entry_bytes(p, 0) + j * hemi_key_entry_bytes(p, 3), 4, cases[i].t[j]);
        const hemi_status found = parse_exact(parse_keys, keys, bytes);
        if (found != cases[i].wanted) fail_msg("keys for %u, ...: %s", cases[i].t[0], hemi_status_name(found));
        free(keys);
    }
    /* all there are, and one more */
    uint32_t t[14];
    size_t bytes;
    for (uint32_t j = 1; j <= 12; j++) t[j - 1] = 1 + (1u << j);
    t[12] = t[13] = 8191;
    uint8_t *keys = keys_bytes(p, t, 13, &bytes);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_OK);
    free(keys);
    keys = keys_bytes(p, t, 14, &bytes);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
    free(keys);
    /* without key switching: the public key alone */
    keys = keys_bytes(hemi_params_by_id(2), NULL, 0, &bytes);
    assert_int_equal(bytes, 24 + 40 + 2048 * 6);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_OK);
    put(keys + 16, 4, 2);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
    free(keys);
}

/* The ring-switching key: t = 1, the second entry where it is there at all, of four samples in the ring of replies. */
static void keys_with_ring_switch(void **state) {
    (void)state;
    const hemi_params *p = hemi_params_by_id(1);
    static const struct {
        size_t count;
        uint32_t t[3];
    } good[] = {{1, {1}}, {2, {1, 3}}, {3, {1, 4097, 8191}}};
    const size_t second = 24 + 40 + 4096 * 6, entry = 40 + 4 * 2048 * 46 / 8, other = 40 + 4096 * 6 + 4096 * 50 / 8;
    assert_int_equal(hemi_key_entry_bytes(p, 1), entry);
    for (size_t i = 0; i < TEST_COUNT(good); i++) {
        size_t bytes;
        uint8_t *keys = keys_bytes(p, good[i].t, good[i].count, &bytes);
        assert_int_equal(bytes, second + entry + (good[i].count - 1) * other);
        assert_status(parse_exact(parse_keys, keys, bytes), HEMI_OK);
        check_lengths(parse_keys, keys, bytes, 64);
        static const uint32_t wrong[] = {0, 2, 3, 5, 8191, 0x10001, 0x1000001, UINT32_MAX};
        for (size_t j = 0; j < TEST_COUNT(wrong); j++) { /* another t: then the length is wrong */
            put(keys + second, 4, wrong[j]);
            assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
        }
        put(keys + second, 4, 1);
        put(keys + second + 4, 4, 1); /* reserved */
        assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
        put(keys + second + 4, 4, 0);
        put(keys + 16, 4, good[i].count); /* one entry less */
        assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
        put(keys + 16, 4, good[i].count + 2);
        assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
        free(keys);
    }
    /* twice; in the third place; in a set without such a ring */
    static const uint32_t twice[] = {1, 1}, late[] = {3, 1};
    size_t bytes;
    uint8_t *keys = keys_bytes(p, twice, 2, &bytes);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
    free(keys);
    keys = keys_bytes(p, late, 2, &bytes);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
    put(keys + 8, 4, 2);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_FORMAT);
    put(keys + 8, 4, 3);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_ERR_PARAMS);
    free(keys);
    uint32_t all[14] = {1}; /* all there are */
    for (uint32_t j = 1; j <= 12; j++) all[j] = 1 + (1u << j);
    all[13] = 8191;
    keys = keys_bytes(p, all, 14, &bytes);
    assert_status(parse_exact(parse_keys, keys, bytes), HEMI_OK);
    free(keys);
}

/* A coefficient that is not below its prime is refused wherever it stands. */
static void keys_residues(void **state) {
    (void)state;
    const hemi_params *p = hemi_params_by_id(1);
    const uint32_t t[] = {1, 3, 8191};
    size_t bytes;
    uint8_t *keys = keys_bytes(p, t, 3, &bytes);
    const size_t ring = 24 + hemi_key_entry_bytes(p, 0), second = ring + hemi_key_entry_bytes(p, 1),
                 third = second + hemi_key_entry_bytes(p, 3), sample = 2048 * 46 / 8;
    const struct {
        size_t offset;
        unsigned bits;
        uint64_t prime;
        uint32_t n;
    } part[] = {{24 + 40, 48, p->q, 4096},
                {ring + 40, 46, p->reply->q, 2048},
                {ring + 40 + sample, 46, p->reply->q, 2048},
                {ring + 40 + 2 * sample, 46, p->reply->q, 2048},
                {ring + 40 + 3 * sample, 46, p->reply->q, 2048},
                {second + 40, 48, p->q, 4096},
                {second + 40 + 4096 * 6, 50, p->special, 4096},
                {third + 40, 48, p->q, 4096},
                {third + 40 + 4096 * 6, 50, p->special, 4096}};
    static const uint32_t places[] = {0, 1, 63, 64, 65, 2047, 4032, 4094, 4095};
    uint64_t *b = calloc(4096, sizeof *b);
    for (size_t i = 0; i < TEST_COUNT(part); i++)
        for (size_t j = 0; j < TEST_COUNT(places) && places[j] < part[i].n; j++) {
            const uint64_t most = (UINT64_C(1) << part[i].bits) - 1,
                           values[] = {part[i].prime - 1, part[i].prime, part[i].prime + 1, most, 0};
            const size_t length = hemi_packed_bytes(part[i].n, part[i].bits);
            uint8_t *kept = exact_copy(keys + part[i].offset, length);
            for (size_t v = 0; v < TEST_COUNT(values); v++) {
                hemi_unpack(b, kept, part[i].n, part[i].bits);
                b[places[j]] = values[v];
                hemi_pack(keys + part[i].offset, b, part[i].n, part[i].bits);
                assert_status(parse_keys(keys, bytes), values[v] < part[i].prime ? HEMI_OK : HEMI_ERR_FORMAT);
            }
            memcpy(keys + part[i].offset, kept, length);
            free(kept);
        }
    free(b);
    free(keys);
}

/* ---- secret key files */

static const hemi_context *file_context;

static hemi_status parse_secret(const uint8_t *bytes, size_t count) {
    hemi_secret_key *key;
    const hemi_status status = hemi_secret_key_import(&key, file_context, bytes, count, ERR);
    hemi_secret_key_free(key);
    return status;
}

static void sign_secret(uint8_t *file, size_t bytes) {
    assert_int_equal(crypto_generichash(file + bytes - 32, 32, file, bytes - 32, NULL, 0), 0);
}

static void secret_key_file(void **state) {
    (void)state;
    static const field fields[] = {{"magic", 0, 4, ALL(FORMAT)},     {"version", 4, 2, ALL(VERSION)},
                                   {"kind", 6, 2, ALL(FORMAT)},      {"set", 8, 4, ALL(FORMAT)},
                                   {"reserved", 12, 4, ALL(FORMAT)}, {"reserved", 16, 8, ALL(FORMAT)},
                                   {"reserved", 24, 8, ALL(FORMAT)}};
    party p;
    party_open(&p, hemi_params_by_id(1), NULL);
    file_context = p.ctx;
    const size_t bytes = hemi_secret_key_file_bytes(p.ctx->params);
    uint8_t *file = malloc(bytes);
    hemi_secret_key_export(file, p.sk);
    check_fields(fields, TEST_COUNT(fields), parse_secret, file, bytes, sign_secret);
    check_fields(fields, TEST_COUNT(fields), parse_secret, file, bytes, NULL);
    check_lengths(parse_secret, file, bytes, 40);
    free(file);
    party_close(&p);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_layout), cmocka_unit_test(request_fields),  cmocka_unit_test(request_ranges),
        cmocka_unit_test(replies),        cmocka_unit_test(keys_header),     cmocka_unit_test(keys_order),
        cmocka_unit_test(keys_residues),  cmocka_unit_test(secret_key_file), cmocka_unit_test(packed_rest),
        cmocka_unit_test(keys_with_ring_switch),
    };
    return TEST_RUN("wire", tests);
}
