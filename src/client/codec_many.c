/* One input, several modules: the request of one of them, with the others' names; a reply is taken apart into replies of one module
 * each, which are then read, and checked, as any other. */
#include "client/codec.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "linear/units.h"

/* Whether requests in this form hold the same numbers at the same places. */
static bool same_form(const hemi_module *a, const hemi_module *b, hemi_form form) {
    const hemi_linear_layout *l = hemi_module_layout(a, form), *m = hemi_module_layout(b, form);
    if (!l || !m || l->s != m->s || l->rows != m->rows || l->in_blocks != m->in_blocks ||
        l->block_inputs != m->block_inputs)
        return false;
    if (hemi_linear_input_places(l) != hemi_linear_input_places(m)) return false;
    for (uint32_t i = 0; i < l->rows; i++)
        if (hemi_linear_place(l, i) != hemi_linear_place(m, i)) return false;
    return true;
}

static const char *difference(const hemi_module *a, const hemi_module *b) {
    const hemi_module_info *x = &a->info, *y = &b->info;
    if (x->params != y->params) return "set";
    if (a->is_grid || b->is_grid) return "the positions that they read";
    if (x->inputs != y->inputs) return "inputs";
    if (!same_form(a, b, HEMI_FORM_SINGLE)) return "layout";
    if (x->b_bits != y->b_bits) return "b_bits";
    if (x->delta != y->delta) return "delta";
    if (x->input_bits != y->input_bits) return "input_bits";
    if (x->input_scale < y->input_scale || x->input_scale > y->input_scale) return "input_scale";
    return NULL;
}

hemi_status hemi_modules_share(const hemi_module *const *modules, size_t count, hemi_error *err) {
    if (count < 1 || count > HEMI_REQUEST_MODULES_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "%zu modules in one request: 1 to %d", count,
                         HEMI_REQUEST_MODULES_MAX);
    for (size_t i = 0; i < count; i++)
        if (modules[i]->is_circuit)
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "module %zu has non-linearities: such modules share no encryption, call them one by one", i);
    for (size_t i = 1; i < count; i++) {
        const char *what = difference(modules[0], modules[i]);
        if (what)
            return hemi_fail(err, HEMI_ERR_ARGUMENT,
                             "modules that share an input are compiled together: modules 0 and %zu differ in %s", i,
                             what);
        for (size_t j = 0; j < i; j++)
            if (memcmp(modules[i]->info.id, modules[j]->info.id, HEMI_MODULE_ID_BYTES) == 0)
                return hemi_fail(err, HEMI_ERR_ARGUMENT, "modules %zu and %zu are the same", j, i);
    }
    return HEMI_OK;
}

hemi_form hemi_form_for_all(const hemi_module *const *modules, size_t count, size_t rows) {
    double single = 0, packed = 0;
    for (size_t i = 0; i < count; i++) {
        const hemi_linear_layout *l = hemi_module_layout(modules[i], HEMI_FORM_PACKED);
        if (!l || !same_form(modules[0], modules[i], HEMI_FORM_PACKED)) return HEMI_FORM_SINGLE;
        single += (double)rows * hemi_linear_cost(&modules[i]->layout);
        packed += (double)hemi_units_of_rows(l, rows) * hemi_linear_cost(l);
    }
    return packed < single ? HEMI_FORM_PACKED : HEMI_FORM_SINGLE;
}

/* The same ciphertexts under a header that names all the modules. */
static hemi_status name_all(uint8_t **request, size_t *bytes, const hemi_module *const *modules, size_t count,
                            hemi_error *err) {
    hemi_request r;
    HEMI_TRY(hemi_request_parse(&r, *request, *bytes, err));
    const size_t from = hemi_request_ciphertext_offset(&r, 0);
    r.modules = count;
    for (size_t i = 0; i < count; i++) memcpy(r.module_id[i], modules[i]->info.id, HEMI_MODULE_ID_BYTES);
    const size_t to = hemi_request_ciphertext_offset(&r, 0);
    uint8_t *named = hemi_alloc(*bytes - from + to, 1);
    if (!named) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a request of %zu bytes", *bytes - from + to);
    hemi_request_write_header(named, &r);
    memcpy(named + to, *request + from, *bytes - from);
    hemi_free(*request);
    *request = named;
    *bytes += to - from;
    return HEMI_OK;
}

hemi_status hemi_encrypt_many(const hemi_module *const *modules, size_t count, hemi_keys *keys, hemi_form form,
                              const float *x, size_t rows, hemi_pending **pending, uint8_t **request,
                              size_t *request_bytes, hemi_error *err) {
    bool zero_unit = false;
    *request = NULL;
    *request_bytes = 0;
    for (size_t i = 0; i < count; i++) pending[i] = NULL;
    HEMI_TRY(hemi_modules_share(modules, count, err));
    for (size_t i = 0; i < count; i++) zero_unit |= hemi_codec_needs_zero_unit(modules[i], keys);
    hemi_status s =
        hemi_codec_encrypt(modules[0], keys, form, zero_unit, x, rows, &pending[0], request, request_bytes, err);
    for (size_t i = 1; i < count && s == HEMI_OK; i++) s = hemi_pending_copy(&pending[i], pending[0], modules[i], err);
    if (s == HEMI_OK) s = name_all(request, request_bytes, modules, count, err);
    if (s == HEMI_OK) return HEMI_OK;
    for (size_t i = 0; i < count; i++) {
        hemi_pending_free(pending[i]);
        pending[i] = NULL;
    }
    hemi_free(*request);
    *request = NULL;
    *request_bytes = 0;
    return s;
}

/* Length of the frame at `in`, as it says itself: at least its header, at most what is there. */
static hemi_status frame_bytes(const uint8_t *in, size_t there, size_t *bytes, hemi_error *err) {
    const uint64_t said = there >= HEMI_REPLY_FRAME_BYTES ? hemi_load64(in + 32) : 0;
    if (said < HEMI_REPLY_FRAME_BYTES || said > there)
        return hemi_fail(err, HEMI_ERR_FORMAT, "a part of the reply does not fit into it");
    *bytes = (size_t)said;
    return HEMI_OK;
}

/* Frame i as a reply of its own, in `one`, which has room for the whole reply; *at moves behind it. */
static hemi_status take_frame(uint8_t *one, size_t *one_bytes, const uint8_t *reply, size_t reply_bytes, size_t *at,
                              const hemi_params *params, hemi_error *err) {
    size_t bytes = 0;
    HEMI_TRY(frame_bytes(reply + *at, reply_bytes - *at, &bytes, err));
    *one_bytes = HEMI_REPLY_HEADER_BYTES + bytes;
    hemi_reply_write_header(one, params, 1, *one_bytes);
    memcpy(one + HEMI_REPLY_HEADER_BYTES, reply + *at, bytes);
    *at += bytes;
    return HEMI_OK;
}

static hemi_status decrypt_frames(const hemi_module *const *modules, size_t count, hemi_keys *keys,
                                  hemi_pending *const *pending, const uint8_t *reply, size_t reply_bytes, uint8_t *one,
                                  float *const *y, hemi_error *err) {
    const hemi_params *params = modules[0]->info.params;
    uint8_t header[HEMI_REPLY_HEADER_BYTES];
    size_t at = HEMI_REPLY_HEADER_BYTES, one_bytes;
    hemi_reply_write_header(header, params, count, reply_bytes);
    if (reply_bytes < sizeof header || reply_bytes > UINT32_MAX || memcmp(reply, header, sizeof header) != 0)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the reply's header is not that of %zu modules in %zu bytes", count,
                         reply_bytes);
    for (size_t i = 0; i < count; i++) {
        HEMI_TRY(take_frame(one, &one_bytes, reply, reply_bytes, &at, params, err));
        HEMI_TRY(hemi_decrypt(modules[i], keys, pending[i], one, one_bytes, y[i], err));
    }
    if (at != reply_bytes)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the reply has %zu bytes, expected %zu", reply_bytes, at);
    return HEMI_OK;
}

hemi_status hemi_decrypt_many(const hemi_module *const *modules, size_t count, hemi_keys *keys,
                              hemi_pending *const *pending, const void *reply, size_t reply_bytes, float *const *y,
                              hemi_error *err) {
    uint8_t *one = hemi_alloc(reply_bytes ? reply_bytes : 1, 1);
    const hemi_status s = one ? decrypt_frames(modules, count, keys, pending, reply, reply_bytes, one, y, err)
                              : hemi_fail(err, HEMI_ERR_MEMORY, "no memory to read a reply");
    hemi_free(one);
    for (size_t i = 0; s != HEMI_OK && i < count; i++)
        memset(y[i], 0, hemi_pending_rows(pending[i]) * hemi_module_row_outputs(modules[i]) * sizeof *y[i]);
    return s;
}
