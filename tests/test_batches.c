/* Batches of rows without a network: their formats, the answers to them, and the cache of what was prepared. */
#include "client_fixture.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "base/memory.h"
#include "client/lot.h"
#include "random/sample.h"
#include "server/batches.h"
#include "server/jobs.h"
#include "server/limits.h"

#define SLOTS 12u

/* A client and a server in one: two modules of the same matrix, which differ in their ids. */
static struct {
    hemi_module *module[2];
    const hemi_evaluator *evaluator[2];
    hemi_keys *keys;
    hemi_server_keys *server_keys;
    hemi_prepared *prepared;
    float *x;
} w;

#define INPUTS  37u
#define OUTPUTS 21u
#define MODULES ((const hemi_module *const *)w.module)

static hemi_prepared *cache_of(size_t bytes, size_t key_bytes, size_t key_batches) {
    const hemi_prepared_limits limits = {bytes, key_bytes, key_batches, 1e9};
    hemi_prepared *p = hemi_prepared_new(&limits);
    assert_non_null(p);
    return p;
}

static hemi_server_keys *keys_for_server(hemi_keys *keys) {
    uint8_t *bytes;
    size_t length;
    hemi_server_keys *k;
    ASSERT_OK(hemi_keys_public(keys, hemi_params_by_name(HEMI_BATCH_SET), &bytes, &length, ERR));
    ASSERT_OK(hemi_server_keys_new(&k, bytes, length, ERR));
    hemi_bytes_release(bytes);
    return k;
}

static int setup(void **state) {
    (void)state;
    assert_int_equal(hemi_random_init(), 0);
    for (size_t i = 0; i < 2; i++) {
        hemi_evaluator *e;
        w.module[i] = fixture_module(INPUTS, OUTPUTS, true, 3);
        ASSERT_OK(hemi_evaluator_new(&e, w.module[i], 1, ERR));
        w.evaluator[i] = e;
    }
    ASSERT_OK(hemi_keys_new(&w.keys, NULL, ERR));
    w.server_keys = keys_for_server(w.keys);
    w.prepared = cache_of(1 << 20, 1 << 20, 100);
    w.x = fixture_rows(SLOTS, INPUTS);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    hemi_prepared_free(w.prepared);
    hemi_server_keys_free(w.server_keys);
    hemi_keys_free(w.keys);
    for (size_t i = 0; i < 2; i++) {
        hemi_evaluator_free((hemi_evaluator *)(uintptr_t)w.evaluator[i]);
        hemi_module_free(w.module[i]);
    }
    free(w.x);
    return 0;
}

static hemi_status answer(hemi_prepared *p, const uint8_t *request, size_t bytes, uint8_t **reply,
                          size_t *reply_bytes) {
    return hemi_batches_answer(p, NULL, w.evaluator, 2, w.server_keys, request, bytes, 1, NULL, reply, reply_bytes, ERR);
}

static hemi_lot *lot_new(size_t modules) {
    hemi_lot *lot;
    ASSERT_OK(hemi_lot_new(&lot, w.keys, MODULES, modules, SLOTS, ERR));
    return lot;
}

static hemi_lot *lot_announced(hemi_prepared *p, size_t modules) {
    hemi_lot *lot = lot_new(modules);
    uint8_t *request, *reply;
    size_t bytes, reply_bytes, offset[HEMI_REQUEST_MODULES_MAX];
    ASSERT_OK(hemi_lot_header(lot, 0, &request, &bytes, ERR));
    ASSERT_OK(answer(p, request, bytes, &reply, &reply_bytes));
    assert_int_equal(reply_bytes, hemi_lot_reply_bytes(lot, true, 0));
    ASSERT_OK(hemi_lot_accept(lot, w.keys, reply, reply_bytes, 0, offset, ERR));
    hemi_free(request);
    hemi_bytes_free(reply);
    return lot;
}

/* An announcement whose client left keeps nothing: what was half computed is not used for rows. */
static void test_given_up(void **state) {
    static atomic_bool stop;
    hemi_lot *lot = lot_new(1);
    uint8_t *request, *reply = NULL;
    size_t bytes, reply_bytes;
    (void)state;
    ASSERT_OK(hemi_lot_header(lot, 0, &request, &bytes, ERR));
    const hemi_prepared_figures before = hemi_prepared_get_figures(w.prepared);
    atomic_store(&stop, true);
    ASSERT_FAILS(HEMI_ERR_NETWORK, "given up", hemi_batches_answer(w.prepared, NULL, w.evaluator, 2, w.server_keys, request, bytes, 1, &stop, &reply, &reply_bytes, ERR));
    assert_null(reply);
    assert_int_equal(hemi_prepared_get_figures(w.prepared).batches, before.batches);
    atomic_store(&stop, false);
    ASSERT_OK(hemi_batches_answer(w.prepared, NULL, w.evaluator, 2, w.server_keys, request, bytes, 1, &stop, &reply, &reply_bytes, ERR));
    assert_int_equal(hemi_prepared_get_figures(w.prepared).batches, before.batches + 1);
    hemi_bytes_free(reply);
    hemi_free(request);
    hemi_lot_free(lot);
}

/* A request for rows of an announced lot. */
static uint8_t *rows_request(hemi_lot *lot, uint32_t first, size_t rows, bool zero_row, double *factor, size_t *bytes) {
    hemi_batch_request r = lot->request;
    r.seconds = false;
    r.first = first;
    r.rows = (uint32_t)rows + (zero_row ? 1 : 0);
    *bytes = hemi_batch_request_bytes(&r);
    uint8_t *request = calloc(*bytes, 1);
    assert_non_null(request);
    hemi_batch_request_write_header(request, &r);
    ASSERT_OK(hemi_lot_encrypt(lot, w.module[0], first, w.x, rows, zero_row, factor,
                               request + hemi_batch_rows_offset(&r), ERR));
    return request;
}

static void check_rows(const hemi_lot *lot, uint32_t first, size_t rows, const double *factor, uint8_t *reply,
                       size_t bytes) {
    hemi_batch_frame frame[2];
    size_t offset[2];
    double b0[OUTPUTS];
    float y[SLOTS * OUTPUTS];
    for (size_t i = 0; i < lot->request.modules; i++) {
        frame[i] = lot->frame[i];
        frame[i].seconds = false;
        frame[i].rows = (uint32_t)rows + 1;
    }
    ASSERT_OK(hemi_batch_reply_parse(reply, bytes, lot->request.params, frame, lot->request.modules, offset, ERR));
    for (size_t i = 0; i < lot->request.modules; i++) {
        ASSERT_OK(hemi_lot_decrypt(lot, w.module[i], i, first, reply + offset[i], rows, true, factor, b0, y, ERR));
        fixture_check(w.module[i], w.x, rows, y);
    }
}

/* ---- answers */

static void test_whole(void **state) {
    (void)state;
    hemi_lot *lot = lot_new(2);
    uint8_t *request, *reply;
    size_t bytes, reply_bytes, offset[2];
    double factor[SLOTS], b0[OUTPUTS];
    float y[SLOTS * OUTPUTS];
    ASSERT_OK(hemi_lot_header(lot, SLOTS, &request, &bytes, ERR));
    ASSERT_OK(hemi_lot_encrypt(lot, w.module[0], 0, w.x, SLOTS - 1, true, factor,
                               request + hemi_batch_rows_offset(&lot->request), ERR));
    ASSERT_OK(answer(w.prepared, request, bytes, &reply, &reply_bytes));
    ASSERT_OK(hemi_lot_accept(lot, w.keys, reply, reply_bytes, SLOTS, offset, ERR));
    for (size_t i = 0; i < 2; i++) {
        ASSERT_OK(hemi_lot_decrypt(lot, w.module[i], i, 0, reply + offset[i], SLOTS - 1, true, factor, b0, y, ERR));
        fixture_check(w.module[i], w.x, SLOTS - 1, y);
    }
    assert_int_equal(hemi_prepared_get_figures(w.prepared).batches, 0); /* nothing of it is needed again */
    hemi_free(request);
    hemi_bytes_free(reply);
    hemi_lot_free(lot);
}

static void test_announced(void **state) {
    (void)state;
    for (size_t modules = 1; modules <= 2; modules++) {
        hemi_lot *lot = lot_announced(w.prepared, modules);
        for (uint32_t first = 0; first + 4 <= SLOTS; first += 4) {
            double factor[3];
            size_t bytes, reply_bytes;
            uint8_t *request = rows_request(lot, first, 3, true, factor, &bytes), *reply;
            ASSERT_OK(answer(w.prepared, request, bytes, &reply, &reply_bytes));
            check_rows(lot, first, 3, factor, reply, reply_bytes);
            free(request);
            hemi_bytes_free(reply);
        }
        hemi_lot_free(lot);
    }
    hemi_prepared_forget(w.prepared, hemi_server_keys_id(w.server_keys));
    assert_int_equal(hemi_prepared_get_figures(w.prepared).batches, 0);
    assert_int_equal(hemi_prepared_get_figures(w.prepared).bytes, 0);
}

/* Rule v: after eviction the same bytes give the same bytes. */
static void test_eviction_changes_nothing(void **state) {
    (void)state;
    hemi_lot *lot = lot_announced(w.prepared, 2);
    double factor[3];
    size_t bytes, n[2];
    uint8_t *request = rows_request(lot, 5, 3, true, factor, &bytes), *reply[2];
    const hemi_prepared_figures before = hemi_prepared_get_figures(w.prepared);
    ASSERT_OK(answer(w.prepared, request, bytes, &reply[0], &n[0]));
    assert_int_equal(hemi_prepared_get_figures(w.prepared).hits, before.hits + 2);
    hemi_prepared_forget(w.prepared, hemi_server_keys_id(w.server_keys));
    ASSERT_OK(answer(w.prepared, request, bytes, &reply[1], &n[1]));
    assert_int_equal(hemi_prepared_get_figures(w.prepared).misses, before.misses + 2);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(reply[0], reply[1], n[0]);
    check_rows(lot, 5, 3, factor, reply[1], n[1]);
    assert_int_equal(hemi_prepared_get_figures(w.prepared).batches, 2); /* and is there again */
    hemi_bytes_free(reply[0]);
    hemi_bytes_free(reply[1]);
    free(request);
    hemi_lot_free(lot);
    hemi_prepared_forget(w.prepared, hemi_server_keys_id(w.server_keys));
}

/* Another process has other secrets: what was announced to the first is gone, and said to be. */
static void test_another_process(void **state) {
    (void)state;
    hemi_lot *lot = lot_announced(w.prepared, 1);
    hemi_prepared *other = cache_of(1 << 20, 1 << 20, 100);
    double factor[3];
    size_t bytes, n;
    uint8_t *request = rows_request(lot, 0, 3, true, factor, &bytes), *reply;
    ASSERT_FAILS(HEMI_ERR_STATE, "gone", answer(other, request, bytes, &reply, &n));
    assert_null(reply);
    assert_int_equal(hemi_prepared_get_figures(other).misses, 0); /* nothing was computed */
    hemi_prepared_free(other);
    free(request);
    hemi_lot_free(lot);
    hemi_prepared_forget(w.prepared, hemi_server_keys_id(w.server_keys));
}

/* A tag belongs to one seed, number of rows, module and key. */
static void test_tags(void **state) {
    (void)state;
    hemi_lot *lot = lot_announced(w.prepared, 2);
    double factor[3];
    size_t bytes, n;
    uint8_t *request = rows_request(lot, 0, 3, true, factor, &bytes), *reply, id[HEMI_MODULE_ID_BYTES];
    const size_t places[] = {40, 71, HEMI_BATCH_HEADER_BYTES + 16, HEMI_BATCH_HEADER_BYTES + 31}; /* seed, tag */
    for (size_t i = 0; i < TEST_COUNT(places); i++) {
        request[places[i]] ^= 1;
        ASSERT_FAILS(HEMI_ERR_STATE, "gone", answer(w.prepared, request, bytes, &reply, &n));
        request[places[i]] ^= 1;
    }
    hemi_store32(request + 32, SLOTS + 1);
    ASSERT_FAILS(HEMI_ERR_STATE, "gone", answer(w.prepared, request, bytes, &reply, &n));
    hemi_store32(request + 32, SLOTS);
    uint8_t *first = request + HEMI_BATCH_HEADER_BYTES, *second = first + HEMI_BATCH_ENTRY_BYTES;
    memcpy(id, first, sizeof id); /* the two change places, their tags do not */
    memcpy(first, second, sizeof id);
    memcpy(second, id, sizeof id);
    ASSERT_FAILS(HEMI_ERR_STATE, "gone", answer(w.prepared, request, bytes, &reply, &n));
    memcpy(second, first, sizeof id);
    memcpy(first, id, sizeof id);
    hemi_keys *others;
    ASSERT_OK(hemi_keys_new(&others, NULL, ERR));
    hemi_server_keys *mine = w.server_keys;
    w.server_keys = keys_for_server(others);
    ASSERT_FAILS(HEMI_ERR_STATE, "gone", answer(w.prepared, request, bytes, &reply, &n));
    hemi_server_keys_free(w.server_keys);
    w.server_keys = mine;
    hemi_keys_free(others);
    ASSERT_OK(answer(w.prepared, request, bytes, &reply, &n));
    hemi_bytes_free(reply);
    free(request);
    hemi_lot_free(lot);
    hemi_prepared_forget(w.prepared, hemi_server_keys_id(w.server_keys));
}

static void test_wrong_modules(void **state) {
    (void)state;
    hemi_lot *lot = lot_new(2);
    uint8_t *request, *reply;
    size_t bytes, n;
    ASSERT_OK(hemi_lot_header(lot, 0, &request, &bytes, ERR));
    request[HEMI_BATCH_HEADER_BYTES] ^= 1;
    ASSERT_FAILS(HEMI_ERR_CONFLICT, "compiled anew", answer(w.prepared, request, bytes, &reply, &n));
    request[HEMI_BATCH_HEADER_BYTES] ^= 1;
    hemi_store32(request + 20, INPUTS + 1);
    ASSERT_FAILS(HEMI_ERR_SHAPE, "inputs", answer(w.prepared, request, bytes, &reply, &n));
    hemi_store32(request + 20, INPUTS);
    hemi_store16(request + 18, (uint16_t)(lot->request.b_bits + 1));
    ASSERT_FAILS(HEMI_ERR_FORMAT, "bits", answer(w.prepared, request, bytes, &reply, &n));
    hemi_store16(request + 18, (uint16_t)lot->request.b_bits);
    hemi_prepared *small = cache_of(4096, 1000, 10);
    ASSERT_FAILS(HEMI_ERR_LIMIT, "--prepared-memory", answer(small, request, bytes, &reply, &n));
    hemi_prepared_free(small);
    const hemi_module *modules[] = {w.module[0]}; /* keys of the modules' own set */
    uint8_t *key_bytes;
    size_t length;
    hemi_server_keys *mine = w.server_keys;
    ASSERT_OK(hemi_keys_evaluation(w.keys, modules, 1, &key_bytes, &length, ERR));
    ASSERT_OK(hemi_server_keys_new(&w.server_keys, key_bytes, length, ERR));
    ASSERT_FAILS(HEMI_ERR_KEY, "L2048", answer(w.prepared, request, bytes, &reply, &n));
    hemi_server_keys_free(w.server_keys);
    hemi_bytes_release(key_bytes);
    w.server_keys = mine;
    hemi_free(request);
    hemi_lot_free(lot);
}

/* ---- the wire, hostile */

/* Every change of the header is refused, but for those that make another request that is well formed. */
static void test_every_header_byte(void **state) {
    (void)state;
    hemi_lot *lot = lot_new(2);
    uint8_t *request;
    size_t bytes;
    hemi_batch_request r;
    ASSERT_OK(hemi_lot_header(lot, 0, &request, &bytes, ERR));
    ASSERT_OK(hemi_batch_request_parse(&r, request, bytes, ERR));
    for (size_t at = 0; at < 40; at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            request[at] ^= (uint8_t)(1 << bit);
            const bool free_choice = (at >= 18 && at < 23) || (at >= 32 && at < 34); /* b_bits, inputs, slots */
            const hemi_status s = hemi_batch_request_parse(&r, request, bytes, ERR);
            if (!free_choice && s == HEMI_OK) fail_msg("byte %zu, bit %u may be flipped", at, bit);
            request[at] ^= (uint8_t)(1 << bit);
        }
    for (size_t n = 0; n < bytes; n++) assert_int_not_equal(hemi_batch_request_parse(&r, request, n, ERR), HEMI_OK);
    hemi_free(request);
    hemi_lot_free(lot);
}

typedef struct change {
    size_t at;
    uint32_t value;
    hemi_status status;
    const char *text;
} change;

static void test_bad_numbers(void **state) {
    (void)state;
    static const change changes[] = {{16, 0, HEMI_ERR_FORMAT, "1 to 16 modules"},
                                     {16, 17, HEMI_ERR_FORMAT, "1 to 16 modules"},
                                     {18, 7, HEMI_ERR_FORMAT, "b_bits"},
                                     {18, 51, HEMI_ERR_FORMAT, "b_bits"},
                                     {20, 0, HEMI_ERR_SHAPE, "inputs"},
                                     {20, UINT32_MAX, HEMI_ERR_SHAPE, "inputs"},
                                     {24, SLOTS + 1, HEMI_ERR_SHAPE, "in use"},
                                     {24, UINT32_MAX, HEMI_ERR_SHAPE, "in use"},
                                     {24, 1, HEMI_ERR_FORMAT, "second components"}, /* no rows from 1 on */
                                     {28, UINT32_MAX, HEMI_ERR_SHAPE, "in use"},
                                     {28, 3, HEMI_ERR_FORMAT, "second components"}, /* some rows, with */
                                     {32, 0, HEMI_ERR_SHAPE, "in use"},
                                     {32, 2049, HEMI_ERR_SHAPE, "in use"},
                                     {36, 0, HEMI_ERR_FORMAT, "second components"}, /* no rows, without */
                                     {36, 2, HEMI_ERR_FORMAT, "flags"},
                                     {HEMI_BATCH_HEADER_BYTES + 16, 1, HEMI_ERR_FORMAT, "tag"}};
    hemi_lot *lot = lot_new(2);
    uint8_t *request;
    size_t bytes;
    hemi_batch_request r;
    ASSERT_OK(hemi_lot_header(lot, 0, &request, &bytes, ERR));
    for (size_t i = 0; i < TEST_COUNT(changes); i++) {
        const change *c = &changes[i];
        uint8_t kept[4];
        memcpy(kept, request + c->at, 4);
        if (c->at < 20)
            hemi_store16(request + c->at, (uint16_t)c->value);
        else
            hemi_store32(request + c->at, c->value);
        ASSERT_FAILS(c->status, c->text, hemi_batch_request_parse(&r, request, bytes, ERR));
        memcpy(request + c->at, kept, 4);
    }
    memcpy(request + HEMI_BATCH_HEADER_BYTES + HEMI_BATCH_ENTRY_BYTES, request + HEMI_BATCH_HEADER_BYTES, 16);
    ASSERT_FAILS(HEMI_ERR_FORMAT, "the same", hemi_batch_request_parse(&r, request, bytes, ERR));
    hemi_free(request);
    hemi_lot_free(lot);
}

/* The bits after the last field of each row, both ways; and a reply that is not the expected one. */
static void test_padding_and_replies(void **state) {
    (void)state;
    hemi_batch_request r = {.params = hemi_params_by_name(HEMI_BATCH_SET),
                            .inputs = 3,
                            .b_bits = 29,
                            .slots = 4,
                            .first = 1,
                            .rows = 2,
                            .modules = 1};
    const size_t bytes = hemi_batch_request_bytes(&r), row = hemi_batch_row_bytes(&r);
    uint8_t *request = calloc(bytes, 1);
    assert_int_equal(row, 11);
    hemi_batch_request_write_header(request, &r);
    for (size_t i = 0; i < 2; i++) {
        ASSERT_OK(hemi_batch_request_parse(&r, request, bytes, ERR));
        request[bytes - 1 - i * row] = 0x80; /* 87 bits of 88 are fields */
        ASSERT_FAILS(HEMI_ERR_FORMAT, "not zero", hemi_batch_request_parse(&r, request, bytes, ERR));
        request[bytes - 1 - i * row] = 0;
    }
    free(request);
    hemi_batch_frame f = {.rows = 2, .outputs = 3, .a_bits = 21, .b_bits = 21}, read = f;
    size_t total = HEMI_BATCH_REPLY_BYTES + hemi_batch_frame_bytes(r.params, &f), offset;
    uint8_t *reply = calloc(total, 1);
    hemi_batch_reply_write_header(reply, r.params, 1, total);
    hemi_batch_frame_write_header(reply + HEMI_BATCH_REPLY_BYTES, r.params, &f);
    ASSERT_OK(hemi_batch_reply_parse(reply, total, r.params, &read, 1, &offset, ERR));
    assert_int_equal(offset, HEMI_BATCH_REPLY_BYTES + HEMI_BATCH_FRAME_BYTES);
    for (size_t at = 0; at < offset; at++) {
        reply[at] ^= 4;
        read = f;
        assert_int_not_equal(hemi_batch_reply_parse(reply, total, r.params, &read, 1, &offset, ERR), HEMI_OK);
        reply[at] ^= 4;
    }
    for (size_t n = 0; n < total; n++)
        assert_int_not_equal(hemi_batch_reply_parse(reply, n, r.params, &read, 1, &offset, ERR), HEMI_OK);
    reply[total - 1] = 0x80;
    ASSERT_FAILS(HEMI_ERR_FORMAT, "not zero", hemi_batch_reply_parse(reply, total, r.params, &read, 1, &offset, ERR));
    free(reply);
}

static void test_random_bytes(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_lot *lot = lot_new(1);
    uint8_t *request, *reply, bytes[256];
    size_t length, n;
    ASSERT_OK(hemi_lot_header(lot, 0, &request, &length, ERR));
    for (size_t i = 0; i < test_repeat(3000); i++) {
        const size_t count = test_below(&rng, sizeof bytes), keep = test_below(&rng, length);
        for (size_t j = 0; j < count; j++) bytes[j] = (uint8_t)test_u64(&rng);
        memcpy(bytes, request, keep < count ? keep : count);
        if (answer(w.prepared, bytes, count, &reply, &n) == HEMI_OK) hemi_bytes_free(reply);
    }
    hemi_free(request);
    hemi_lot_free(lot);
    hemi_prepared_forget(w.prepared, hemi_server_keys_id(w.server_keys));
}

/* ---- the cache */

static hemi_batch_state *some_state(uint32_t rows) {
    static const uint8_t seed[HEMI_SEED_BYTES], secret[32];
    hemi_batch_state *s;
    ASSERT_OK(hemi_batch_prepare(&s, NULL, 20, hemi_evaluator_batch(w.evaluator[0]),
                                 hemi_server_keys_expanded(w.server_keys), seed, secret, "x", 1, rows, NULL, ERR));
    return s;
}

static void put(hemi_prepared *p, uint8_t key, uint8_t tag) {
    const uint8_t id[HEMI_KEY_ID_BYTES] = {key}, name[HEMI_BATCH_TAG_BYTES] = {tag};
    const hemi_batch_state *s = hemi_prepared_put(p, id, name, some_state(4), NULL);
    assert_non_null(s);
    hemi_prepared_release(p, s);
}

static bool has(hemi_prepared *p, uint8_t tag) {
    const uint8_t name[HEMI_BATCH_TAG_BYTES] = {tag};
    const hemi_batch_state *s = hemi_prepared_acquire(p, name);
    hemi_prepared_release(p, s);
    return s != NULL;
}

static size_t entry_bytes(void) {
    hemi_prepared *p = cache_of(1 << 20, 1 << 20, 10);
    put(p, 1, 1);
    const size_t bytes = hemi_prepared_get_figures(p).bytes;
    hemi_prepared_free(p);
    return bytes;
}

static void test_bounds(void **state) {
    (void)state;
    const size_t one = entry_bytes();
    hemi_prepared *p = cache_of(4 * one, 2 * one, 10); /* in bytes: four in all, two of one client */
    put(p, 1, 1);
    put(p, 1, 2);
    assert_true(has(p, 1)); /* used: 2 is the oldest now */
    put(p, 1, 3);
    assert_true(has(p, 1) && !has(p, 2) && has(p, 3));
    put(p, 2, 4);
    put(p, 2, 5);
    assert_int_equal(hemi_prepared_get_figures(p).batches, 4);
    put(p, 3, 6); /* someone's oldest makes room: 1 */
    assert_true(!has(p, 1) && has(p, 3) && has(p, 4) && has(p, 5) && has(p, 6));
    const hemi_prepared_figures f = hemi_prepared_get_figures(p);
    assert_int_equal(f.evicted, 2);
    assert_int_equal(f.bytes, 4 * one);
    assert_int_equal(f.bytes_max, 4 * one);
    hemi_prepared_free(p);
    p = cache_of(100 * one, 100 * one, 2); /* in number, of one client */
    for (uint8_t i = 1; i <= 4; i++) put(p, 1, i);
    assert_true(!has(p, 1) && !has(p, 2) && has(p, 3) && has(p, 4));
    hemi_prepared_free(p);
    p = cache_of(one - 1, one - 1, 2); /* nothing fits: it serves its one use */
    put(p, 1, 1);
    assert_false(has(p, 1));
    hemi_prepared_free(p);
}

/* A tenant with many keys does not push out what another one has. */
static void test_tenants_share(void **state) {
    (void)state;
    const size_t one = entry_bytes();
    size_t few = 0, many = 0;
    hemi_prepared *p = cache_of(4 * one, 2 * one, 10);
    for (uint8_t i = 0; i < 8; i++) {
        const uint8_t id[HEMI_KEY_ID_BYTES] = {i}, name[HEMI_BATCH_TAG_BYTES] = {i};
        const hemi_batch_state *s = hemi_prepared_put(p, id, name, some_state(4), i == 0 ? &few : &many);
        assert_non_null(s);
        hemi_prepared_release(p, s);
    }
    for (uint8_t i = 0; i < 8; i++) assert_int_equal(has(p, i), i == 0 || i > 4);
    assert_int_equal(few, one);
    assert_int_equal(many, 3 * one);
    hemi_prepared_free(p);
    assert_int_equal(few + many, 0);
}

static void test_use_outlives_eviction(void **state) {
    (void)state;
    const size_t one = entry_bytes();
    hemi_prepared *p = cache_of(one, one, 10);
    const uint8_t id[HEMI_KEY_ID_BYTES] = {1}, name[HEMI_BATCH_TAG_BYTES] = {1};
    const hemi_batch_state *s = hemi_prepared_put(p, id, name, some_state(4), NULL);
    put(p, 1, 2);
    assert_false(has(p, 1));
    assert_int_equal(hemi_batch_state_rows(s), 4);
    const hemi_batch_state *again = hemi_prepared_put(p, id, name, some_state(4), NULL); /* evicts 2; s is another */
    assert_ptr_not_equal(s, again);
    hemi_prepared_release(p, s);
    const hemi_batch_state *same = hemi_prepared_put(p, id, name, some_state(4), NULL);
    assert_ptr_equal(again, same);
    hemi_prepared_release(p, same);
    hemi_prepared_forget(p, id);
    assert_int_equal(hemi_batch_state_rows(again), 4);
    hemi_prepared_release(p, again);
    hemi_prepared_free(p);
}

static void test_expiry_and_announcements(void **state) {
    (void)state;
    const hemi_prepared_limits limits = {1 << 20, 1 << 20, 10, 30};
    hemi_prepared *p = hemi_prepared_new(&limits);
    put(p, 1, 1);
    hemi_prepared_expire(p);
    assert_true(has(p, 1));
    usleep(40000);
    put(p, 1, 2);
    hemi_prepared_expire(p);
    assert_true(!has(p, 1) && has(p, 2));
    assert_int_equal(hemi_prepared_get_figures(p).expired, 1);
    const uint8_t a[HEMI_KEY_ID_BYTES] = {1}, b[HEMI_KEY_ID_BYTES] = {2};
    for (size_t i = 0; i < HEMI_SERVER_PREPARES_PER_KEY_MAX; i++) assert_true(hemi_prepared_begin(p, a));
    assert_false(hemi_prepared_begin(p, a));
    assert_true(hemi_prepared_begin(p, b));
    assert_int_equal(hemi_prepared_get_figures(p).announced, HEMI_SERVER_PREPARES_PER_KEY_MAX + 1);
    hemi_prepared_end(p, a);
    assert_true(hemi_prepared_begin(p, a));
    for (size_t i = 0; i < HEMI_SERVER_PREPARES_PER_KEY_MAX; i++) hemi_prepared_end(p, a);
    hemi_prepared_end(p, b);
    assert_int_equal(hemi_prepared_get_figures(p).announced, 0);
    hemi_prepared_free(p);
}

/* ---- the queue in the background */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool open; /* jobs wait for it */
    int order[16], done, busy_back, busy_back_max;
} q = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

/* A job is a number: below 100 the front, from 100 on the background. */
static void job(void *context) {
    const int number = *(const int *)context;
    pthread_mutex_lock(&q.lock);
    q.order[q.done++] = number;
    if (number >= 100 && ++q.busy_back > q.busy_back_max) q.busy_back_max = q.busy_back;
    pthread_cond_broadcast(&q.change);
    while (!q.open) pthread_cond_wait(&q.change, &q.lock);
    if (number >= 100) q.busy_back--;
    pthread_mutex_unlock(&q.lock);
}

static void await(int done) {
    pthread_mutex_lock(&q.lock);
    while (q.done < done) pthread_cond_wait(&q.change, &q.lock);
    pthread_mutex_unlock(&q.lock);
}

static void set_open(bool open) {
    pthread_mutex_lock(&q.lock);
    q.open = open;
    pthread_cond_broadcast(&q.change);
    pthread_mutex_unlock(&q.lock);
}

static const int numbers[] = {1, 2, 100, 101, 102, 3};

static void push(hemi_jobs *jobs, size_t i) {
    const hemi_lane lane = numbers[i] < 100 ? HEMI_LANE_FRONT : HEMI_LANE_BACKGROUND;
    assert_int_equal(hemi_jobs_reserve(jobs, lane, NULL), HEMI_PLACE_TAKEN);
    hemi_jobs_push(jobs, lane, NULL, (void *)(uintptr_t)&numbers[i]);
}

static void test_background_comes_last(void **state) {
    (void)state;
    const size_t places[HEMI_LANES] = {8, 3};
    hemi_jobs *jobs = hemi_jobs_new(1, places, places, job);
    assert_non_null(jobs);
    q.done = 0;
    set_open(false);
    push(jobs, 0); /* 1 holds the only worker */
    await(1);
    for (size_t i = 2; i < 5; i++) push(jobs, i);
    assert_int_equal(hemi_jobs_reserve(jobs, HEMI_LANE_BACKGROUND, NULL), HEMI_PLACE_NONE); /* three places */
    push(jobs, 1);
    push(jobs, 5);
    assert_int_equal(hemi_jobs_waiting(jobs, HEMI_LANE_FRONT), 2);
    assert_int_equal(hemi_jobs_waiting(jobs, HEMI_LANE_BACKGROUND), 3);
    set_open(true);
    hemi_jobs_stop(jobs); /* runs what waits */
    static const int expected[] = {1, 2, 3, 100, 101, 102};
    assert_memory_equal(q.order, expected, sizeof expected);
    hemi_jobs_free(jobs);
}

/* Two workers: one is kept free of the background. */
static void test_background_leaves_a_worker(void **state) {
    (void)state;
    const size_t places[HEMI_LANES] = {8, 8};
    hemi_jobs *jobs = hemi_jobs_new(2, places, places, job);
    assert_non_null(jobs);
    q.done = q.busy_back = q.busy_back_max = 0;
    set_open(false);
    for (size_t i = 2; i < 5; i++) push(jobs, i);
    await(1); /* 100 is being worked on */
    push(jobs, 0);
    await(2);
    assert_int_equal(q.order[1], 1); /* and not 101 */
    assert_int_equal(hemi_jobs_busy(jobs), 2);
    set_open(true);
    hemi_jobs_stop(jobs);
    assert_int_equal(q.done, 4);
    assert_int_equal(q.busy_back_max, 1);
    hemi_jobs_free(jobs);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole),
                                       cmocka_unit_test(test_announced),
                                       cmocka_unit_test(test_eviction_changes_nothing),
                                       cmocka_unit_test(test_another_process),
                                       cmocka_unit_test(test_tags),
                                       cmocka_unit_test(test_wrong_modules),
                                       cmocka_unit_test(test_every_header_byte),
                                       cmocka_unit_test(test_bad_numbers),
                                       cmocka_unit_test(test_padding_and_replies),
                                       cmocka_unit_test(test_random_bytes),
                                       cmocka_unit_test(test_bounds),
                                       cmocka_unit_test(test_tenants_share), cmocka_unit_test(test_use_outlives_eviction),
                                       cmocka_unit_test(test_expiry_and_announcements),
                                       cmocka_unit_test(test_background_comes_last),
                                       cmocka_unit_test(test_background_leaves_a_worker),
                                       cmocka_unit_test(test_given_up)};
    return cmocka_run_group_tests_name("batches", tests, setup, teardown) != 0;
}
