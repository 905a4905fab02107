/* From numbers to requests and from replies to numbers. */
#include "client/codec.h"

#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "client/keys.h"
#include "client/pending.h"
#include "linear/units.h"
#include "secret/cipher.h"
#include "secret/ringswitch.h"

static double *factors(hemi_pending *p) { return p->number; }
static double *scales(hemi_pending *p) { return p->number + p->rows; }
static size_t all_units(const hemi_pending *p) { return p->units + (p->zero_unit ? 1 : 0); }

hemi_form hemi_form_for(const hemi_module *m, size_t rows) {
    const hemi_linear_layout *packed = hemi_module_layout(m, HEMI_FORM_PACKED);
    if (!packed) return HEMI_FORM_SINGLE;
    const double together = (double)hemi_units_of_rows(packed, rows) * hemi_linear_cost(packed);
    return together < (double)rows * hemi_linear_cost(&m->layout) ? HEMI_FORM_PACKED : HEMI_FORM_SINGLE;
}

/* ---- encryption */

typedef struct encryption {
    const hemi_module *module;
    const hemi_linear_layout *layout;
    const hemi_secret_key *key;
    hemi_request request;
    uint32_t *positions;
    size_t *index;
    int32_t *message;
    uint8_t *out;
} encryption;

/* The numbers of one ciphertext: those of the tensor, scaled and rounded; zeros (and nothing looked at) where unit is the zero unit. */
static void gather(encryption *e, hemi_pending *p, const float *x, size_t unit, uint32_t block) {
    const size_t per_sample = p->units / p->rows, count = e->request.coefficients, numbers = hemi_module_row_inputs(e->module);
    const hemi_grid *grid = hemi_module_grid(e->module);
    const size_t sample = grid ? unit / per_sample : 0;
    memset(e->message, 0, count * sizeof *e->message);
    if (unit >= p->units) return;
    hemi_unit_inputs(e->index, e->layout, grid, p->rows, grid ? unit % per_sample : unit, block);
    for (size_t i = 0; i < count; i++) {
        if (e->index[i] == HEMI_UNIT_NOTHING) continue;
        const size_t row = grid ? sample : e->index[i] / numbers;
        e->message[i] = (int32_t)rint((double)x[grid ? sample * numbers + e->index[i] : e->index[i]] * scales(p)[row]);
    }
}

static hemi_status encrypt_units(encryption *e, hemi_pending *p, const float *x, hemi_error *err) {
    const size_t numbers = hemi_module_row_inputs(e->module), units = all_units(p);
    for (size_t i = 0; i < p->rows; i++)
        if (!hemi_module_scale(e->module, x + i * numbers, numbers, &scales(p)[i], &factors(p)[i]))
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "row %zu of the input holds a value that is infinite or not a number", i);
    for (size_t u = 0; u < units; u++)
        for (uint32_t b = 0; b < e->layout->in_blocks; b++) {
            uint8_t *at = e->out + hemi_request_ciphertext_offset(&e->request, u * e->layout->in_blocks + b);
            gather(e, p, x, u, b);
            HEMI_TRY(hemi_secret_encrypt(e->key, e->message, e->request.coefficients, e->module->info.delta, e->positions,
                                         e->request.coefficients, e->request.b_bits, at, at + HEMI_SEED_BYTES, err));
        }
    return HEMI_OK;
}

bool hemi_codec_needs_zero_unit(const hemi_module *m, hemi_keys *keys) {
    return !m->is_circuit && m->info.has_bias && !hemi_keys_bias_get(keys, m->info.id, NULL, m->layout.outputs);
}

static hemi_status pending_new(hemi_pending **out, const hemi_module *m, hemi_form form, bool zero_unit, size_t rows, hemi_error *err) {
    const size_t bytes = sizeof(hemi_pending) + 2 * rows * sizeof(double);
    *out = NULL;
    if (rows == 0 || rows >= HEMI_REQUEST_UNITS_MAX || hemi_module_units(m, form, rows) >= HEMI_REQUEST_UNITS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%zu rows: a request holds 1 to %d units of this module's rows", rows,
                         HEMI_REQUEST_UNITS_MAX - 1);
    /* What is of one call lies in ordinary memory, wiped when freed, as the caller's own row does. Guarded pages are for what stays:
     * each costs ten system calls and interrupts of all other threads, which together took two clients a fifth of a call. */
    hemi_pending *p = hemi_alloc(bytes, 1);
    if (!p) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rows", rows);
    memcpy(p->id, m->info.id, sizeof p->id);
    p->form = form;
    p->rows = rows;
    p->units = hemi_module_units(m, form, rows);
    p->zero_unit = zero_unit;
    *out = p;
    return HEMI_OK;
}

hemi_status hemi_pending_copy(hemi_pending **out, const hemi_pending *p, const hemi_module *m, hemi_error *err) {
    HEMI_TRY(pending_new(out, m, p->form, p->zero_unit, p->rows, err));
    (*out)->key_generation = p->key_generation;
    memcpy((*out)->number, p->number, 2 * p->rows * sizeof *p->number);
    return HEMI_OK;
}

size_t hemi_pending_rows(const hemi_pending *p) { return p->rows; }

hemi_status hemi_codec_encrypt(const hemi_module *m, hemi_keys *keys, hemi_form form, bool zero_unit, const float *x, size_t rows,
                               hemi_pending **pending, uint8_t **request, size_t *request_bytes, hemi_error *err) {
    encryption e = {.module = m, .layout = hemi_module_layout(m, form)};
    hemi_pending *p;
    *pending = NULL;
    *request = NULL;
    *request_bytes = 0;
    if (m->is_circuit) return hemi_circuit_encrypt(m, keys, x, rows, pending, request, request_bytes, err);
    if (!e.layout) return hemi_fail(err, HEMI_ERR_ARGUMENT, "the module has no form %d", (int)form);
    HEMI_TRY(pending_new(&p, m, form, zero_unit, rows, err));
    hemi_status s = hemi_keys_hold(keys, m->layout.params, &e.key, &p->key_generation, err);
    if (s != HEMI_OK) {
        hemi_pending_free(p);
        return s;
    }
    e.request = hemi_module_request(m, form, all_units(p));
    const size_t count = e.request.coefficients, bytes = hemi_request_bytes(&e.request);
    e.positions = hemi_alloc(count, sizeof *e.positions);
    e.index = hemi_alloc(count, sizeof *e.index);
    e.message = hemi_alloc(count, sizeof *e.message);
    e.out = hemi_alloc(bytes, 1);
    if (!e.positions || !e.index || !e.message || !e.out) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a request of %zu bytes", bytes);
    if (s == HEMI_OK) {
        (void)hemi_linear_input_positions(e.layout, e.positions);
        hemi_request_write_header(e.out, &e.request);
        s = encrypt_units(&e, p, x, err);
    }
    hemi_keys_let_go(keys);
    hemi_free(e.positions);
    hemi_free(e.index);
    hemi_free(e.message);
    if (s != HEMI_OK) {
        hemi_free(e.out);
        hemi_pending_free(p);
        return s;
    }
    *pending = p;
    *request = e.out;
    *request_bytes = bytes;
    return HEMI_OK;
}

hemi_status hemi_encrypt_as(const hemi_module *m, hemi_keys *keys, hemi_form form, const float *x, size_t rows, hemi_pending **pending,
                            uint8_t **request, size_t *request_bytes, hemi_error *err) {
    return hemi_codec_encrypt(m, keys, form, hemi_codec_needs_zero_unit(m, keys), x, rows, pending, request, request_bytes, err);
}

hemi_status hemi_encrypt(const hemi_module *m, hemi_keys *keys, const float *x, size_t rows, hemi_pending **pending, uint8_t **request,
                         size_t *request_bytes, hemi_error *err) {
    return hemi_encrypt_as(m, keys, hemi_form_for(m, rows), x, rows, pending, request, request_bytes, err);
}

/* ---- decryption */

typedef struct decryption {
    const hemi_module *module;
    const hemi_linear_layout *layout;
    const hemi_secret_key *key;
    hemi_reply_frame frame;
    const uint8_t *in; /* first ciphertext */
    size_t a_bytes, b_bytes, count; /* count: results of a ciphertext */
    double unit; /* of a result: phase unit = output as the server computed it */
    uint32_t *positions;
    size_t *index;
    int64_t *phase;
    double *b0;
} decryption;

static hemi_status decrypt_ciphertext(decryption *d, size_t i, hemi_error *err) {
    const uint8_t *at = d->in + i * (d->a_bytes + d->b_bytes);
    return (d->frame.ring != 0 ? hemi_secret_decrypt_switched : hemi_secret_decrypt)(
        d->key, at, d->frame.a_bits, at + d->a_bytes, d->frame.b_bits, d->positions, d->count, d->phase, err);
}

/* The bias: the reply to the zero unit, averaged over its places. */
static hemi_status read_bias(decryption *d, hemi_keys *keys, const hemi_pending *p, hemi_error *err) {
    const hemi_linear_layout *l = d->layout;
    const uint32_t places = hemi_linear_places(l);
    for (uint32_t b = 0; b < l->out_blocks; b++) {
        HEMI_TRY(decrypt_ciphertext(d, p->units * l->out_blocks + b, err));
        for (uint32_t i = 0; i < l->block_outputs && b * l->block_outputs + i < l->outputs; i++) {
            double sum = 0;
            for (uint32_t j = 0; j < places; j++) sum += (double)d->phase[(size_t)j * l->block_outputs + i];
            d->b0[b * l->block_outputs + i] = sum / places * d->unit;
        }
    }
    return hemi_keys_bias_put(keys, d->module->info.id, d->b0, l->outputs, err);
}

static hemi_status decrypt_unit(decryption *d, hemi_pending *p, size_t unit, float *y, hemi_error *err) {
    const hemi_linear_layout *l = d->layout;
    const hemi_grid *grid = hemi_module_grid(d->module);
    const size_t per_sample = p->units / p->rows, sample = grid ? unit / per_sample : 0, numbers = hemi_module_row_outputs(d->module);
    for (uint32_t b = 0; b < l->out_blocks; b++) {
        HEMI_TRY(decrypt_ciphertext(d, unit * l->out_blocks + b, err));
        hemi_unit_outputs(d->index, l, grid, p->rows, grid ? unit % per_sample : unit, b);
        for (size_t i = 0; i < d->count; i++) {
            if (d->index[i] == HEMI_UNIT_NOTHING) continue;
            const double b0 = d->b0[b * l->block_outputs + i % l->block_outputs];
            const size_t row = grid ? sample : d->index[i] / numbers;
            y[grid ? sample * numbers + d->index[i] : d->index[i]] =
                (float)(((double)d->phase[i] * d->unit - b0) / factors(p)[row] + b0);
        }
    }
    return HEMI_OK;
}

static hemi_status decrypt_units(decryption *d, hemi_keys *keys, hemi_pending *p, float *y, hemi_error *err) {
    const hemi_module_info *m = &d->module->info;
    if (!m->has_bias) {
        memset(d->b0, 0, d->layout->outputs * sizeof *d->b0);
    } else if (hemi_keys_bias_get(keys, m->id, d->b0, d->layout->outputs)) {
        /* known before, or since */
    } else if (p->zero_unit) {
        HEMI_TRY(read_bias(d, keys, p, err));
    } else {
        return hemi_fail(err, HEMI_ERR_STATE, "the module's bias was forgotten between request and reply: send the request anew");
    }
    for (size_t u = 0; u < p->units; u++) HEMI_TRY(decrypt_unit(d, p, u, y, err));
    return HEMI_OK;
}

size_t hemi_pending_reply_bytes(const hemi_module *m, const hemi_pending *p) {
    if (m->is_circuit) return hemi_circuit_reply_bytes(m, p);
    const hemi_reply_frame f = hemi_module_frame(m, p->form, all_units(p));
    return HEMI_REPLY_HEADER_BYTES + hemi_reply_frame_bytes(m->info.params, &f);
}

static hemi_status check_reply(decryption *d, const hemi_pending *p, const void *reply, size_t reply_bytes, hemi_error *err) {
    const hemi_module_info *m = &d->module->info;
    size_t offset;
    if (memcmp(p->id, m->id, sizeof p->id) != 0)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "this reply's request was made for another module");
    const hemi_reply_frame f = d->frame = hemi_module_frame(d->module, p->form, all_units(p));
    HEMI_TRY(hemi_reply_parse(reply, reply_bytes, m->params, &f, 1, &offset, err));
    d->layout = hemi_module_layout(d->module, p->form);
    d->in = (const uint8_t *)reply + offset;
    d->a_bytes = hemi_reply_a_bytes(m->params, &f);
    d->b_bytes = hemi_packed_bytes(f.coefficients, f.b_bits);
    d->count = f.coefficients;
    d->unit = m->output_scale / (double)m->delta;
    return HEMI_OK;
}

hemi_status hemi_decrypt(const hemi_module *m, hemi_keys *keys, hemi_pending *p, const void *reply, size_t reply_bytes, float *y,
                         hemi_error *err) {
    decryption d = {.module = m};
    uint64_t generation;
    if (m->is_circuit) return hemi_circuit_decrypt(m, keys, p, reply, reply_bytes, y, err);
    hemi_status s = check_reply(&d, p, reply, reply_bytes, err);
    if (s == HEMI_OK) s = hemi_keys_hold(keys, m->layout.params, &d.key, &generation, err);
    if (s != HEMI_OK) {
        memset(y, 0, p->rows * hemi_module_row_outputs(m) * sizeof *y);
        return s;
    }
    d.positions = hemi_alloc(d.count, sizeof *d.positions);
    d.index = hemi_alloc(d.count, sizeof *d.index);
    d.phase = hemi_alloc(d.count, sizeof *d.phase);
    d.b0 = hemi_alloc(d.layout->outputs, sizeof *d.b0);
    if (!d.positions || !d.index || !d.phase || !d.b0) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory to decrypt a reply");
    if (s == HEMI_OK && generation != p->key_generation)
        s = hemi_fail(err, HEMI_ERR_STATE, "the secret key was replaced between request and reply: send the request anew");
    if (s == HEMI_OK) {
        (void)hemi_linear_output_positions(d.layout, d.positions);
        s = decrypt_units(&d, keys, p, y, err);
    }
    hemi_keys_let_go(keys);
    if (s != HEMI_OK) memset(y, 0, p->rows * hemi_module_row_outputs(m) * sizeof *y);
    hemi_free(d.positions);
    hemi_free(d.index);
    hemi_free(d.phase);
    hemi_free(d.b0);
    return s;
}

size_t hemi_pending_out_of_range(const hemi_pending *p) {
    size_t count = 0;
    for (size_t i = 0; p->in_range && i < p->rows; i++) count += !p->in_range[i];
    return count;
}

void hemi_pending_free(hemi_pending *p) {
    if (p) hemi_free(p->in_range);
    hemi_free(p);
}
