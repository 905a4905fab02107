/* Descriptions of modules as a hostile server might give them: layouts of any numbers, files with any number changed. They are refused,
 * or what follows from them stays within its bounds: positions in a ciphertext, indices in tensors, requests, replies of random bytes. */
#include <jansson.h>

#include "client/codec.h"
#include "client_fixture.h"
#include "linear/units.h"
#include "model/module.h"
#include "rlwe/context.h"

#define CIPHERTEXTS_MAX 12 /* of a module that is tried in full, each way */
#define NUMBERS_MAX     (1u << 16)

static hemi_keys *keys;

static int open_keys(void **state) {
    (void)state;
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    return 0;
}

static int close_keys(void **state) {
    (void)state;
    hemi_keys_free(keys);
    return 0;
}

static uint32_t one_of(test_rng *rng, const uint32_t *v, size_t count) { return v[test_below(rng, count)]; }

static uint32_t any_pow2(test_rng *rng, unsigned below) { return UINT32_C(1) << test_below(rng, below); }

/* Sizes: small ones mostly, and extremes. */
static uint32_t any_size(test_rng *rng) {
    static const uint32_t extremes[] = {1,    2,    3,    255,   256,   2047,     2048,           2049,
                                        4095, 4096, 4097, 65535, 65536, 1u << 20, (1u << 20) + 1, UINT32_MAX};
    return test_below(rng, 3) == 0 ? one_of(rng, extremes, TEST_COUNT(extremes))
                                   : 1 + (uint32_t)test_below(rng, any_pow2(rng, 13));
}

static hemi_linear_choice any_choice(test_rng *rng, bool grid) {
    static const uint32_t extremes[] = {3, 1u << 13, 1u << 16, 1u << 31, UINT32_MAX};
    hemi_linear_choice c = {0};
    uint32_t *const field[] = {&c.s,   grid ? &c.tile_y : &c.fan, grid ? &c.tile_x : &c.rows, &c.babies, &c.k[0],
                               &c.k[1]};
    for (size_t i = 0; i < TEST_COUNT(field); i++)
        if (test_below(rng, 2))
            *field[i] = test_below(rng, 12) ? any_pow2(rng, 13) : one_of(rng, extremes, TEST_COUNT(extremes));
    if (c.k[0]) c.groups = 1 + test_below(rng, 2);
    if (c.groups && !c.babies) c.babies = any_pow2(rng, 5);
    return c;
}

static hemi_grid any_grid(test_rng *rng) {
    hemi_grid g = {0};
    uint32_t *const field[] = {&g.in_channels, &g.in_height, &g.in_width,  &g.out_channels, &g.out_height,
                               &g.out_width,   &g.in_step_y, &g.in_step_x, &g.out_step_y,   &g.out_step_x,
                               &g.taps_y,      &g.taps_x,    &g.in_skip_y, &g.in_skip_x};
    for (size_t i = 0; i < TEST_COUNT(field); i++) *field[i] = 1 + (uint32_t)test_below(rng, i < 6 ? 24 : 4);
    if (test_below(rng, 4) == 0) *field[test_below(rng, TEST_COUNT(field))] = any_size(rng);
    g.origin_y = (int32_t)test_below(rng, 9) - 4;
    g.origin_x = test_below(rng, 20) ? 0 : (int32_t)any_size(rng);
    return g;
}

/* All positions are in a ciphertext, and none twice. */
static void check_positions(const uint32_t *position, size_t count, uint32_t n) {
    uint8_t *seen = calloc(n, 1);
    assert_non_null(seen);
    assert_true(count > 0 && count <= n);
    for (size_t i = 0; i < count; i++) {
        assert_true(position[i] < n && !seen[position[i]]);
        seen[position[i]] = 1;
    }
    free(seen);
}

static void check_layout(const hemi_linear_layout *l) {
    uint32_t *position = malloc(l->n * sizeof *position), t[HEMI_AUTOMORPHISMS_MAX];
    assert_non_null(position);
    assert_true(hemi_linear_input_positions(l, NULL) <= l->n && hemi_linear_output_positions(l, NULL) <= l->n);
    check_positions(position, hemi_linear_input_positions(l, position), l->n);
    check_positions(position, hemi_linear_output_positions(l, position), l->n);
    const size_t count = hemi_linear_automorphisms(l, t);
    assert_true(count <= HEMI_AUTOMORPHISMS_MAX);
    for (size_t i = 0; i < count; i++) assert_true(hemi_key_is_known(l->params, t[i]) && (i == 0 || t[i] > t[i - 1]));
    assert_true(hemi_linear_cost(l) > 0);
    free(position);
}

/* Every number of the output comes from one place; those of the input that are read are there. */
static void check_units(const hemi_module *m, hemi_form form, size_t rows) {
    const hemi_linear_layout *l = hemi_module_layout(m, form);
    const hemi_grid *g = hemi_module_grid(m);
    const size_t inputs = (g ? 1 : rows) * hemi_module_row_inputs(m),
                 outputs = (g ? 1 : rows) * hemi_module_row_outputs(m);
    const size_t units = hemi_module_units(m, form, g ? 1 : rows), in = hemi_linear_input_positions(l, NULL),
                 out = hemi_linear_output_positions(l, NULL);
    size_t *index = malloc(l->n * sizeof *index);
    uint8_t *seen = calloc(outputs, 1);
    assert_non_null(index);
    assert_non_null(seen);
    for (size_t u = 0; u < units; u++) {
        for (uint32_t b = 0; b < l->in_blocks; b++) {
            hemi_unit_inputs(index, l, g, rows, u, b);
            for (size_t i = 0; i < in; i++) assert_true(index[i] == HEMI_UNIT_NOTHING || index[i] < inputs);
        }
        for (uint32_t b = 0; b < l->out_blocks; b++) {
            hemi_unit_outputs(index, l, g, rows, u, b);
            for (size_t i = 0; i < out; i++) {
                assert_true(index[i] == HEMI_UNIT_NOTHING || (index[i] < outputs && !seen[index[i]]));
                if (index[i] != HEMI_UNIT_NOTHING) seen[index[i]] = 1;
            }
        }
    }
    for (size_t i = 0; i < outputs; i++) assert_true(seen[i]);
    free(index);
    free(seen);
}

/* Encrypts, and reads a reply of random bytes. */
static void try_call(const hemi_module *m, hemi_form form, size_t rows, test_rng *rng) {
    const size_t inputs = hemi_module_row_inputs(m), outputs = hemi_module_row_outputs(m);
    hemi_pending *pending = NULL;
    uint8_t *request = NULL;
    size_t bytes = 0, offset = 0;
    float *x = fixture_rows(rows, inputs), *y = malloc(rows * outputs * sizeof *y);
    assert_non_null(y);
    ASSERT_OK(hemi_encrypt_as(m, keys, form, x, rows, &pending, &request, &bytes, ERR));
    const bool zero_unit = hemi_codec_needs_zero_unit(m, keys);
    const hemi_reply_frame f = hemi_module_frame(m, form, hemi_module_units(m, form, rows) + zero_unit);
    const size_t length = hemi_pending_reply_bytes(m, pending);
    uint8_t *reply = malloc(length);
    assert_non_null(reply);
    for (size_t i = 0; i < length; i++) reply[i] = (uint8_t)test_u64(rng);
    hemi_reply_write_header(reply, m->info.params, 1, length);
    hemi_reply_frame_write_header(reply + HEMI_REPLY_HEADER_BYTES, m->info.params, &f);
    if (hemi_reply_parse(reply, length, m->info.params, &f, 1, &offset, ERR) ==
        HEMI_OK) /* not where bits are left over */
        ASSERT_OK(hemi_decrypt(m, keys, pending, reply, length, y, ERR));
    else
        ASSERT_FAILS(HEMI_ERR_FORMAT, "bits", hemi_decrypt(m, keys, pending, reply, length, y, ERR));
    free(reply);
    free(x);
    free(y);
    hemi_bytes_release(request);
    hemi_pending_free(pending);
}

/* Whatever was accepted: in full, where it is small enough for a test. */
static bool try_module(const hemi_module *m, test_rng *rng) {
    bool tried = false;
    for (int form = 0; form < 2; form++) {
        const hemi_linear_layout *l = hemi_module_layout(m, (hemi_form)form);
        if (!l) continue;
        check_layout(l);
        const size_t rows = form ? 1 + test_below(rng, l->rows + 1) : 1,
                     units = hemi_module_units(m, (hemi_form)form, rows);
        if (units > CIPHERTEXTS_MAX || (units + 1) * l->in_blocks > CIPHERTEXTS_MAX ||
            (units + 1) * l->out_blocks > CIPHERTEXTS_MAX || rows * hemi_module_row_inputs(m) > NUMBERS_MAX ||
            rows * hemi_module_row_outputs(m) > NUMBERS_MAX)
            continue;
        check_units(m, (hemi_form)form, rows);
        try_call(m, (hemi_form)form, rows, rng);
        tried = true;
    }
    return tried;
}

/* A module of a random layout; false where none was made. */
static bool any_module(hemi_module *m, test_rng *rng) {
    static const char *const sets[] = {"L4096", "L2048", "L4096P"};
    const hemi_params *params = hemi_params_by_name(sets[test_below(rng, TEST_COUNT(sets))]);
    *m = (hemi_module){.is_grid = test_below(rng, 2), .grid = any_grid(rng)};
    const hemi_linear_choice c = any_choice(rng, m->is_grid), plain = {.s = c.s};
    const uint32_t inputs = any_size(rng), outputs = any_size(rng);
    hemi_linear_layout l;
    if ((m->is_grid ? hemi_linear_layout_grid(&l, params, &m->grid, &c, ERR)
                    : hemi_linear_layout_rows(&l, params, inputs, outputs, &c, ERR)) != HEMI_OK)
        return false;
    m->layout = l;
    m->has_packed = l.rows > 1;
    if (m->has_packed) {
        m->packed = l;
        if (hemi_linear_layout_rows(&m->layout, params, inputs, outputs, &plain, ERR) != HEMI_OK) return false;
    }
    m->info = (hemi_module_info){.b_bits = 8 + (unsigned)test_below(rng, 41),
                                 .weight_bits = 8,
                                 .input_bits = 2 + (int)test_below(rng, 15),
                                 .input_scale = 1,
                                 .output_scale = 1,
                                 .has_bias = test_below(rng, 2),
                                 .delta = 256,
                                 .shape_rank = 2,
                                 .output_rank = 2,
                                 .shape = {1, (uint32_t)hemi_module_row_inputs(m)},
                                 .output_shape = {1, (uint32_t)hemi_module_row_outputs(m)}};
    m->info.reply_ring = hemi_linear_outputs_halve(&m->layout) && test_below(rng, 2) ? m->layout.n / 2 : 0;
    m->info.reply_a_bits = 8 + (unsigned)test_below(rng, m->info.reply_ring ? 39 : 41);
    m->info.reply_b_bits = 8 + (unsigned)test_below(rng, m->info.reply_ring ? 39 : 41);
    for (size_t i = 0; i < HEMI_MODULE_ID_BYTES; i++) m->info.id[i] = (uint8_t)test_u64(rng);
    ASSERT_OK(hemi_module_finish(m, ERR));
    return true;
}

/* One number somewhere below v, taken by another. */
static void change_number(json_t *v, test_rng *rng) {
    static const int64_t others[] = {-1,   0,    1,    2,    3,     7,       16,        48,         49,       64,
                                     1024, 2048, 4096, 8192, 65536, 1 << 20, INT32_MAX, UINT32_MAX, INT64_MAX};
    while (json_is_object(v) || json_is_array(v)) {
        const size_t count = json_is_object(v) ? json_object_size(v) : json_array_size(v);
        if (count == 0) return;
        size_t at = test_below(rng, count);
        if (json_is_array(v)) {
            v = json_array_get(v, at);
            continue;
        }
        void *i = json_object_iter(v);
        while (at-- > 0) i = json_object_iter_next(v, i);
        v = json_object_iter_value(i);
    }
    const int64_t old = json_integer_value(v), other = others[test_below(rng, TEST_COUNT(others))];
    if (json_is_integer(v))
        json_integer_set(v, test_below(rng, 3) == 0                 ? other
                            : test_below(rng, 2) && old < INT32_MAX ? 2 * old
                                                                    : old / 2);
    if (json_is_real(v)) json_real_set(v, test_below(rng, 2) ? 1e200 : 1e-200);
}

static size_t change_file(const char *text, test_rng *rng) {
    json_t *j = json_loads(text, 0, NULL);
    hemi_module *m = NULL;
    assert_non_null(j);
    for (size_t changes = 1 + test_below(rng, 3); changes > 0; changes--) change_number(j, rng);
    char *changed = json_dumps(j, JSON_REAL_PRECISION(17));
    const hemi_status status = hemi_module_from_client_json(&m, changed, strlen(changed), ERR);
    const size_t accepted = status == HEMI_OK && try_module(m, rng) ? 1 : 0;
    if (status == HEMI_OK) hemi_module_free(m);
    free(changed);
    json_decref(j);
    return accepted;
}

static void any_description(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    size_t made = 0, tried = 0, changed = 0;
    for (size_t i = 0; i < (test_quick() ? 3000u : 12000u); i++) {
        hemi_module m, *read = NULL;
        if (!any_module(&m, &rng)) continue;
        made++;
        check_layout(&m.layout);
        const hemi_status status = hemi_module_from_client_json(&read, m.client_json, strlen(m.client_json), ERR);
        if (status == HEMI_OK && try_module(read, &rng)) tried++;
        if (status == HEMI_OK) hemi_module_free(read);
        for (size_t k = 0; k < 4; k++) changed += change_file(m.client_json, &rng);
        hemi_bytes_release(m.client_json);
    }
    print_message("%zu layouts, %zu of them tried in full, %zu after a change\n", made, tried, changed);
    assert_true(made > 100 && tried > 50 && changed > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_description)};
    return cmocka_run_group_tests_name("hostile modules", tests, open_keys, close_keys) != 0;
}
