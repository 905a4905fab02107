/* The formats of levelled sets (docs/wire-format.md): sizes by formula; every field of every header altered; every truncation near a
 * boundary; residues at and above their primes; sets in the wrong place. */
#include "ckks.h"
#include "wire/batch.h"

/* Copies of exactly the stated length: a sanitizer sees whatever is read beyond. */
typedef hemi_status (*parser)(const uint8_t *bytes, size_t count);

static hemi_status parse_exact(parser parse, const uint8_t *bytes, size_t count) {
    uint8_t *copy = malloc(count ? count : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, count);
    const hemi_status status = parse(copy, count);
    free(copy);
    return status;
}

/* The bytes with a number of `width` bytes at `at` replaced. */
static hemi_status with(parser parse, const uint8_t *good, size_t bytes, size_t at, unsigned width, uint64_t value) {
    uint8_t *bad = malloc(bytes);
    assert_non_null(bad);
    memcpy(bad, good, bytes);
    for (unsigned i = 0; i < width; i++) bad[at + i] = (uint8_t)(value >> 8 * i);
    const hemi_status status = parse(bad, bytes);
    free(bad);
    return status;
}

/* Any bit of bytes 0 .. count-1 but those of `free_from` .. `free_to`-1 makes it something else. */
static void every_bit_counts(parser parse, const uint8_t *good, size_t bytes, size_t count, size_t free_from, size_t free_to) {
    assert_status(parse_exact(parse, good, bytes), HEMI_OK);
    uint8_t *bad = malloc(bytes);
    assert_non_null(bad);
    memcpy(bad, good, bytes);
    for (size_t i = 0; i < 8 * count; i++) {
        if (i / 8 >= free_from && i / 8 < free_to) continue;
        bad[i / 8] ^= (uint8_t)(1u << i % 8);
        const hemi_status status = parse(bad, bytes);
        if (status == HEMI_OK) fail_msg("bit %zu of byte %zu does not count", i % 8, i / 8);
        bad[i / 8] = good[i / 8];
    }
    free(bad);
}

/* Shorter and longer, at every length near the boundaries and at some others. */
static void every_length_counts(parser parse, const uint8_t *good, size_t bytes, const size_t *boundary, size_t count) {
    uint8_t *longer = calloc(bytes + 200, 1);
    assert_non_null(longer);
    memcpy(longer, good, bytes);
    for (size_t n = 0; n < bytes + 200; n++) {
        bool near = n < 200 || n % (1 + bytes / 50) == 0 || n + 70 > bytes;
        for (size_t i = 0; i < count; i++) near |= n + 70 > boundary[i] && n < boundary[i] + 70;
        if (near) assert_status(parse_exact(parse, longer, n), n == bytes ? HEMI_OK : HEMI_ERR_FORMAT);
    }
    free(longer);
}

static const hemi_params *set(void) { return hemi_params_by_name("C8192"); }

/* Writes residue i of a packed polynomial over ring limb `limb`. */
static void put_residue(uint8_t *poly, uint32_t limb, uint32_t i, uint64_t v) {
    uint64_t *all = malloc(8192 * sizeof *all);
    const unsigned bits = 64u - (unsigned)__builtin_clzll(set()->prime[limb]);
    assert_non_null(all);
    hemi_unpack(all, poly, 8192, bits);
    all[i] = v;
    hemi_pack(poly, all, 8192, bits);
    free(all);
}

/* A residue may be p - 1, and neither p nor all ones, at the first, some middle and the last place. */
static void residues_are_canonical(parser parse, const uint8_t *good, size_t bytes, size_t at, uint32_t limb) {
    const uint64_t p = set()->prime[limb], ones = UINT64_MAX >> __builtin_clzll(p);
    const uint32_t places[] = {0, 63, 64, 4097, 8191};
    uint8_t *bad = malloc(bytes);
    assert_non_null(bad);
    for (size_t i = 0; i < TEST_COUNT(places); i++) {
        memcpy(bad, good, bytes);
        put_residue(bad + at, limb, places[i], p - 1);
        assert_status(parse(bad, bytes), HEMI_OK);
        put_residue(bad + at, limb, places[i], p);
        assert_status(parse(bad, bytes), HEMI_ERR_FORMAT);
        put_residue(bad + at, limb, places[i], ones);
        assert_status(parse(bad, bytes), HEMI_ERR_FORMAT);
    }
    free(bad);
}

/* ---- sizes */

static size_t bits_of(uint64_t p) {
    size_t bits = 0;
    while (p >> bits) bits++;
    return bits;
}

static void sizes_by_formula(void **state) {
    (void)state;
    for (size_t k = test_linear_sets(); k < hemi_params_count(); k++) {
        const hemi_params *p = hemi_params_at(k);
        const size_t n = (size_t)1 << p->log2_n;
        size_t special_bits = 0, bits = 0;
        for (uint32_t i = 0; i < p->specials; i++) special_bits += bits_of(p->prime[p->chain + i]);
        for (uint32_t limbs = 1; limbs <= p->chain; limbs++) {
            bits += bits_of(p->prime[limbs - 1]);
            const size_t digits = 1 + (limbs - 1) / p->digit_limbs + ((limbs - 1) % p->digit_limbs != 0);
            const size_t entry = 40 + digits * n / 8 * (bits + special_bits), first = 40 + n / 8 * bits_of(p->q);
            assert_int_equal(hemi_ckks_poly_bytes(p, limbs), n / 8 * bits);
            assert_int_equal(hemi_ckks_ciphertext_bytes(p, limbs), 32 + n / 8 * bits);
            assert_int_equal(hemi_ckks_key_entry_bytes(p, limbs, 0), first);
            assert_int_equal(hemi_ckks_key_entry_bytes(p, limbs, 1), entry);
            assert_int_equal(hemi_ckks_key_entry_bytes(p, limbs, 2 * (uint32_t)n - 1), entry);
            assert_int_equal(hemi_ckks_keys_bytes(p, limbs, 1), 24 + first);
            assert_int_equal(hemi_ckks_keys_bytes(p, limbs, 9), 24 + first + 8 * entry);
            const hemi_ckks_request r = {.params = p, .limbs = limbs, .units = 3, .ciphertexts = 5};
            assert_int_equal(hemi_ckks_request_ciphertext_offset(&r, 4), 48 + 4 * (32 + n / 8 * bits));
            assert_int_equal(hemi_ckks_request_bytes(&r), 48 + 15 * (32 + n / 8 * bits));
            if (limbs == 1) assert_int_equal(hemi_ckks_reply_bytes(&r), 48 + 15 * 2 * n / 8 * bits);
            if (limbs == p->chain) printf("  %-8s key of %u limbs: %.1f MB, request's ciphertext %.2f MB\n", p->name, limbs, (double)entry / 1e6, (double)(n / 8 * bits) / 1e6);
        }
    }
}

/* ---- evaluation keys */

#define KEY_LIMBS 2
#define BASE_BITS 40 /* of set C8192 */
static const uint32_t numbers[] = {0, 1, 5, 16383};

static hemi_status parse_keys(const uint8_t *bytes, size_t count) {
    const hemi_params *params;
    uint32_t limbs;
    size_t entries;
    const hemi_status status = hemi_ckks_keys_check(bytes, count, &params, &limbs, &entries, ERR);
    if (status == HEMI_OK) assert_true(params == set() && limbs == KEY_LIMBS && entries == TEST_COUNT(numbers));
    return status;
}

/* Keys as a client makes them; where each entry begins. */
static uint8_t *keys_fixture(size_t *bytes, size_t at[TEST_COUNT(numbers)]) {
    ckks_party p;
    ckks_open(&p, set(), test_table());
    *bytes = hemi_ckks_keys_bytes(set(), KEY_LIMBS, TEST_COUNT(numbers));
    uint8_t *out = malloc(*bytes);
    assert_non_null(out);
    hemi_ckks_keys_write_header(out, set(), KEY_LIMBS, TEST_COUNT(numbers));
    size_t next = HEMI_CKKS_KEYS_HEADER_BYTES;
    for (size_t i = 0; i < TEST_COUNT(numbers); i++) {
        at[i] = next;
        ASSERT_OK(hemi_ckks_secret_make_key(p.sk, KEY_LIMBS, numbers[i], out + next, ERR));
        next += hemi_ckks_key_entry_bytes(set(), KEY_LIMBS, numbers[i]);
    }
    assert_int_equal(next, *bytes);
    ckks_close(&p);
    return out;
}

static void evaluation_keys(void **state) {
    (void)state;
    size_t bytes, at[TEST_COUNT(numbers)];
    uint8_t *good = keys_fixture(&bytes, at);
    const uint8_t header[] = {'H', 'E', 'M', 'I', 1, 0, 7, 0, 16, 0, 0, 0, 0, 0, 0, 0, KEY_LIMBS, 0, 0, 0, 4, 0, 0, 0};
    assert_memory_equal(good, header, sizeof header);
    every_bit_counts(parse_keys, good, bytes, sizeof header, 0, 0);
    every_length_counts(parse_keys, good, bytes, at, TEST_COUNT(at));
    static const struct {
        size_t at;
        unsigned width;
        uint64_t value;
        hemi_status status;
    } cases[] = {{4, 2, 2, HEMI_ERR_VERSION}, {6, 2, 3, HEMI_ERR_FORMAT}, {6, 2, 8, HEMI_ERR_FORMAT}, {8, 4, 1, HEMI_ERR_PARAMS},
                 {8, 4, 3, HEMI_ERR_PARAMS},  {8, 4, 5, HEMI_ERR_PARAMS}, {8, 4, 17, HEMI_ERR_FORMAT}, {12, 4, 1, HEMI_ERR_FORMAT},
                 {16, 4, 0, HEMI_ERR_FORMAT}, {16, 4, 6, HEMI_ERR_FORMAT}, {16, 4, UINT32_MAX, HEMI_ERR_FORMAT}, {16, 4, 3, HEMI_ERR_FORMAT},
                 {20, 4, 0, HEMI_ERR_FORMAT}, {20, 4, 257, HEMI_ERR_FORMAT}, {20, 4, UINT32_MAX, HEMI_ERR_FORMAT}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++)
        assert_status(with(parse_keys, good, bytes, cases[i].at, cases[i].width, cases[i].value), cases[i].status);
    for (size_t i = 0; i < TEST_COUNT(at); i++) {
        assert_status(with(parse_keys, good, bytes, at[i] + 4, 4, 1), HEMI_ERR_FORMAT); /* reserved */
        const uint32_t wrong[] = {2, 4, 16384, 16385, UINT32_MAX, numbers[i == 0 ? 1 : i - 1], i + 1 < TEST_COUNT(at) ? numbers[i + 1] : 3, i == 0 ? 7 : 0};
        for (size_t k = 0; k < TEST_COUNT(wrong); k++)
            assert_status(with(parse_keys, good, bytes, at[i], 4, wrong[k]), HEMI_ERR_FORMAT);
    }
    assert_status(with(parse_keys, good, bytes, at[2], 4, 3), HEMI_OK); /* another number, in order */
    size_t poly = at[0] + HEMI_KEY_ENTRY_HEADER_BYTES;
    residues_are_canonical(parse_keys, good, bytes, poly, 0);
    poly = at[1] + HEMI_KEY_ENTRY_HEADER_BYTES;
    for (uint32_t digit = 0; digit < 2; digit++)
        for (uint32_t j = 0; j < 3; j++) { /* two limbs and the special one */
            const uint32_t limb = j < 2 ? j : set()->chain;
            residues_are_canonical(parse_keys, good, bytes, poly, limb);
            poly += 8192 / 8 * bits_of(set()->prime[limb]);
        }
    assert_int_equal(poly, at[2]);
    residues_are_canonical(parse_keys, good, bytes, bytes - 8192 / 8 * bits_of(set()->special), set()->chain);
    free(good);
}

/* ---- requests */

static const uint8_t module_id[HEMI_MODULE_ID_BYTES] = {0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static hemi_status parse_request(const uint8_t *bytes, size_t count) {
    hemi_ckks_request r;
    return hemi_ckks_request_parse(&r, bytes, count, ERR);
}

static uint8_t *request_fixture(hemi_ckks_request *r, size_t *bytes) {
    ckks_party p;
    ckks_open(&p, set(), test_table());
    *r = (hemi_ckks_request){.params = set(), .limbs = 2, .units = 2, .ciphertexts = 2};
    memcpy(r->module_id, module_id, sizeof module_id);
    *bytes = hemi_ckks_request_bytes(r);
    uint8_t *out = malloc(*bytes);
    double *x = calloc(p.ctx->slots, sizeof *x);
    assert_true(out && x);
    hemi_ckks_request_write_header(out, r);
    for (size_t i = 0; i < 4; i++)
        ASSERT_OK(hemi_ckks_secret_encrypt(p.sk, x, 0x1p31, r->limbs, out + hemi_ckks_request_ciphertext_offset(r, i), ERR));
    free(x);
    ckks_close(&p);
    return out;
}

static void requests(void **state) {
    (void)state;
    hemi_ckks_request r, found;
    size_t bytes, at[4];
    uint8_t *good = request_fixture(&r, &bytes);
    const uint8_t header[] = {'H', 'E', 'M', 'I', 1, 0, 8, 0, 16, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0};
    assert_memory_equal(good, header, sizeof header);
    assert_memory_equal(good + 32, module_id, sizeof module_id);
    ASSERT_OK(hemi_ckks_request_parse(&found, good, bytes, ERR));
    assert_true(found.params == r.params && found.limbs == 2 && found.units == 2 && found.ciphertexts == 2);
    assert_memory_equal(found.module_id, module_id, sizeof module_id);
    for (size_t i = 0; i < 4; i++) at[i] = hemi_ckks_request_ciphertext_offset(&r, i);
    every_bit_counts(parse_request, good, bytes, HEMI_CKKS_REQUEST_HEADER_BYTES, 32, 48); /* any module may be asked for */
    every_length_counts(parse_request, good, bytes, at, 4);
    static const struct {
        size_t at;
        unsigned width;
        uint64_t value;
        hemi_status status;
    } cases[] = {{4, 2, 0, HEMI_ERR_VERSION}, {4, 2, 2, HEMI_ERR_VERSION}, {6, 2, 1, HEMI_ERR_FORMAT}, {6, 2, 5, HEMI_ERR_FORMAT},
                 {6, 2, 9, HEMI_ERR_FORMAT}, {8, 4, 1, HEMI_ERR_PARAMS}, {8, 4, 3, HEMI_ERR_PARAMS}, {8, 4, 0, HEMI_ERR_PARAMS},
                 {8, 4, 17, HEMI_ERR_FORMAT}, {12, 4, 1, HEMI_ERR_FORMAT}, {16, 4, 0, HEMI_ERR_FORMAT}, {16, 4, 1, HEMI_ERR_FORMAT},
                 {16, 4, 6, HEMI_ERR_FORMAT}, {16, 4, UINT32_MAX, HEMI_ERR_FORMAT}, {20, 4, 0, HEMI_ERR_SHAPE}, {20, 4, 1025, HEMI_ERR_SHAPE},
                 {20, 4, UINT32_MAX, HEMI_ERR_SHAPE}, {20, 4, 1024, HEMI_ERR_FORMAT}, {24, 4, 0, HEMI_ERR_SHAPE}, {24, 4, 4097, HEMI_ERR_SHAPE},
                 {24, 4, UINT32_MAX, HEMI_ERR_SHAPE}, {24, 4, 4096, HEMI_ERR_FORMAT}, {28, 4, 1, HEMI_ERR_FORMAT}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++)
        assert_status(with(parse_request, good, bytes, cases[i].at, cases[i].width, cases[i].value), cases[i].status);
    for (size_t i = 0; i < 4; i += 3) {
        residues_are_canonical(parse_request, good, bytes, at[i] + HEMI_SEED_BYTES, 0);
        residues_are_canonical(parse_request, good, bytes, at[i] + HEMI_SEED_BYTES + 8192 / 8 * BASE_BITS, 1);
    }
    free(good);
}

/* ---- replies */

static hemi_ckks_request expected_reply;

static hemi_status parse_reply(const uint8_t *bytes, size_t count) { return hemi_ckks_reply_check(bytes, count, &expected_reply, ERR); }

static void replies(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_ckks_request *r = &expected_reply;
    *r = (hemi_ckks_request){.params = set(), .limbs = 1, .units = 2, .ciphertexts = 3};
    memcpy(r->module_id, module_id, sizeof module_id);
    const size_t bytes = hemi_ckks_reply_bytes(r), poly = 8192 / 8 * BASE_BITS;
    uint8_t *good = malloc(bytes);
    uint64_t *c = hemi_alloc(8192, sizeof *c);
    assert_true(good && c);
    hemi_ckks_reply_write_header(good, r);
    const uint8_t header[] = {'H', 'E', 'M', 'I', 1, 0, 9, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0};
    assert_memory_equal(good, header, sizeof header);
    assert_memory_equal(good + 32, module_id, sizeof module_id);
    for (size_t i = 0; i < 12; i++) {
        test_residues(c, 8192, set()->q, &rng);
        hemi_pack(good + 48 + i * poly, c, 8192, BASE_BITS);
    }
    assert_int_equal(48 + 12 * poly, bytes);
    const size_t at[] = {48, 48 + poly, 48 + 6 * poly, 48 + 11 * poly};
    every_bit_counts(parse_reply, good, bytes, HEMI_CKKS_REPLY_HEADER_BYTES, 0, 0); /* what it must be is known */
    every_length_counts(parse_reply, good, bytes, at, TEST_COUNT(at));
    for (size_t i = 0; i < TEST_COUNT(at); i++) residues_are_canonical(parse_reply, good, bytes, at[i], 0);
    assert_status(with(parse_reply, good, bytes, 8, 4, 17), HEMI_ERR_PARAMS);
    assert_status(with(parse_reply, good, bytes, 8, 4, 1), HEMI_ERR_PARAMS);
    assert_status(with(parse_reply, good, bytes, 4, 2, 2), HEMI_ERR_VERSION);
    assert_status(with(parse_reply, good, bytes, 6, 2, 2), HEMI_ERR_FORMAT);
    r->ciphertexts = 2;
    assert_status(parse_exact(parse_reply, good, bytes), HEMI_ERR_FORMAT);
    free(good);
    hemi_free(c);
}

/* ---- what is of the one kind is nothing for the other */

static hemi_status parse_linear_keys(const uint8_t *bytes, size_t count) {
    const hemi_params *params;
    size_t entries;
    return hemi_keys_check(bytes, count, &params, &entries, ERR);
}

static hemi_status parse_linear_request(const uint8_t *bytes, size_t count) {
    hemi_request r;
    return hemi_request_parse(&r, bytes, count, ERR);
}

static hemi_status parse_batch(const uint8_t *bytes, size_t count) {
    hemi_batch_request r;
    return hemi_batch_request_parse(&r, bytes, count, ERR);
}

static void sets_in_the_wrong_place(void **state) {
    (void)state;
    static const parser linear[] = {parse_linear_keys, parse_linear_request, parse_batch};
    static const uint16_t kind[] = {HEMI_WIRE_EVALUATION_KEYS, HEMI_WIRE_REQUEST, HEMI_WIRE_BATCH_REQUEST};
    uint8_t bytes[4096] = {'H', 'E', 'M', 'I', 1};
    for (size_t i = 0; i < TEST_COUNT(linear); i++)
        for (size_t k = test_linear_sets(); k < hemi_params_count(); k++) {
            bytes[6] = (uint8_t)kind[i];
            bytes[8] = (uint8_t)hemi_params_at(k)->id;
            for (size_t n = 128; n <= sizeof bytes; n *= 2) assert_status(parse_exact(linear[i], bytes, n), HEMI_ERR_PARAMS);
            assert_non_null(strstr(test_err.message, hemi_params_at(k)->name));
        }
    hemi_ckks_request r;
    size_t count;
    uint8_t *good = request_fixture(&r, &count);
    assert_true(hemi_ckks_request_is(good, count) && hemi_ckks_request_is(good, 16) && !hemi_ckks_request_is(good, 15));
    assert_false(hemi_batch_request_is(good, count));
    for (size_t i = 0; i < TEST_COUNT(linear); i++) assert_status(parse_exact(linear[i], good, count), HEMI_ERR_FORMAT);
    for (uint8_t other = 0; other < 10; other++) {
        good[6] = other;
        assert_int_equal(hemi_ckks_request_is(good, count), other == 8);
    }
    free(good);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_by_formula), cmocka_unit_test(evaluation_keys), cmocka_unit_test(requests),
        cmocka_unit_test(replies),          cmocka_unit_test(sets_in_the_wrong_place),
    };
    return TEST_RUN("levelled wire", tests);
}
