/* From numbers to requests and from replies to numbers. */
#include "client/codec.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "client/keys.h"
#include "model/module.h"
#include "secret/cipher.h"
#include "wire/wire.h"

struct hemi_pending {
    uint8_t id[HEMI_MODULE_ID_BYTES];
    size_t rows;     /* of the caller */
    bool zero_row;   /* one more row follows: zeros, whose reply is the bias */
    double factor[]; /* of each row: secret */
};

static hemi_status quantise_row(const hemi_module *m, const float *x, int32_t *out, double *factor, size_t row, hemi_error *err) {
    if (hemi_module_quantise_row(m, x, out, factor)) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_ARGUMENT, "row %zu of the input holds a value that is infinite or not a number", row);
}

typedef struct encryption {
    const hemi_module *module;
    const hemi_secret_key *key;
    hemi_request request;
    uint32_t *positions;
    size_t count;
    int32_t *x;
    uint8_t *out;
} encryption;

static hemi_status encrypt_row(encryption *e, size_t i, hemi_error *err) {
    uint8_t *at = e->out + hemi_request_ciphertext_offset(&e->request, i);
    return hemi_secret_encrypt(e->key, e->x, e->module->info.inputs, e->module->info.delta, e->positions, e->count, e->request.b_bits, at,
                               at + HEMI_SEED_BYTES, err);
}

static hemi_status encrypt_rows(encryption *e, hemi_pending *p, const float *x, hemi_error *err) {
    const size_t inputs = e->module->info.inputs;
    for (size_t i = 0; i < p->rows; i++) {
        HEMI_TRY(quantise_row(e->module, x + i * inputs, e->x, &p->factor[i], i, err));
        HEMI_TRY(encrypt_row(e, i, err));
    }
    if (!p->zero_row) return HEMI_OK;
    memset(e->x, 0, inputs * sizeof *e->x);
    return encrypt_row(e, p->rows, err);
}

static hemi_request request_for(const hemi_module *m, size_t rows) {
    hemi_request r = {.params = m->layout.params,
                      .layout = m->layout.s,
                      .inputs = m->info.inputs,
                      .rows = (uint32_t)rows,
                      .ciphertexts = (uint32_t)rows,
                      .b_bits = m->info.b_bits,
                      .modules = 1};
    memcpy(r.module_id[0], m->info.id, HEMI_MODULE_ID_BYTES);
    return r;
}

bool hemi_codec_needs_zero_row(const hemi_module *m, hemi_keys *keys) {
    return m->info.has_bias && !hemi_keys_bias_get(keys, m->info.id, NULL, m->info.outputs);
}

static hemi_status pending_new(hemi_pending **out, const hemi_module *m, size_t rows, bool zero_row, hemi_error *err) {
    const size_t bytes = sizeof(hemi_pending) + rows * sizeof(double);
    hemi_pending *p = hemi_secure_alloc(bytes, 1);
    *out = NULL;
    if (!p) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rows", rows);
    memset(p, 0, bytes);
    memcpy(p->id, m->info.id, sizeof p->id);
    p->rows = rows;
    p->zero_row = zero_row;
    *out = p;
    return HEMI_OK;
}

hemi_status hemi_pending_copy(hemi_pending **out, const hemi_pending *p, const hemi_module *m, hemi_error *err) {
    HEMI_TRY(pending_new(out, m, p->rows, p->zero_row, err));
    memcpy((*out)->factor, p->factor, p->rows * sizeof *p->factor);
    return HEMI_OK;
}

size_t hemi_pending_rows(const hemi_pending *p) { return p->rows; }

hemi_status hemi_encrypt(const hemi_module *m, hemi_keys *keys, const float *x, size_t rows, hemi_pending **pending, uint8_t **request,
                         size_t *request_bytes, hemi_error *err) {
    return hemi_codec_encrypt(m, keys, x, rows, hemi_codec_needs_zero_row(m, keys), pending, request, request_bytes, err);
}

hemi_status hemi_codec_encrypt(const hemi_module *m, hemi_keys *keys, const float *x, size_t rows, bool zero_row, hemi_pending **pending,
                               uint8_t **request, size_t *request_bytes, hemi_error *err) {
    *pending = NULL;
    *request = NULL;
    *request_bytes = 0;
    if (rows == 0 || rows >= HEMI_REQUEST_ROWS_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%zu rows: a request holds 1 to %d", rows, HEMI_REQUEST_ROWS_MAX - 1);
    encryption e = {.module = m};
    hemi_pending *p;
    HEMI_TRY(hemi_keys_secret(keys, m->layout.params, &e.key, err));
    HEMI_TRY(pending_new(&p, m, rows, zero_row, err));
    e.request = request_for(m, rows + (p->zero_row ? 1 : 0));
    e.count = hemi_linear_input_positions(&m->layout, NULL);
    const size_t bytes = hemi_request_bytes(&e.request);
    e.positions = hemi_alloc(e.count, sizeof *e.positions);
    e.x = hemi_secure_alloc(m->info.inputs, sizeof *e.x);
    e.out = hemi_alloc(bytes, 1);
    hemi_status s = HEMI_OK;
    if (!e.positions || !e.x || !e.out) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a request of %zu bytes", bytes);
    if (s == HEMI_OK) {
        (void)hemi_linear_input_positions(&m->layout, e.positions);
        hemi_request_write_header(e.out, &e.request);
        s = encrypt_rows(&e, p, x, err);
    }
    hemi_free(e.positions);
    hemi_secure_free(e.x);
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

typedef struct decryption {
    const hemi_module *module;
    const hemi_secret_key *key;
    const uint8_t *in; /* first ciphertext */
    size_t a_bytes, b_bytes;
    uint32_t *positions;
    int64_t *phase;
    double *b0;
} decryption;

/* The row's outputs as the server computed them: phase / delta, times the output scale. */
static hemi_status decrypt_row(decryption *d, size_t i, hemi_error *err) {
    const hemi_module_info *m = &d->module->info;
    const uint8_t *at = d->in + i * (d->a_bytes + d->b_bytes);
    return hemi_secret_decrypt(d->key, at, m->reply_a_bits, at + d->a_bytes, m->reply_b_bits, d->positions, m->outputs, d->phase, err);
}

static hemi_status decrypt_rows(decryption *d, hemi_keys *keys, const hemi_pending *p, float *y, hemi_error *err) {
    const hemi_module_info *m = &d->module->info;
    const double unit = m->output_scale / (double)m->delta;
    if (!m->has_bias) {
        memset(d->b0, 0, m->outputs * sizeof *d->b0);
    } else if (hemi_keys_bias_get(keys, m->id, d->b0, m->outputs)) {
        /* known before, or since */
    } else if (p->zero_row) {
        HEMI_TRY(decrypt_row(d, p->rows, err));
        for (uint32_t o = 0; o < m->outputs; o++) d->b0[o] = (double)d->phase[o] * unit;
        HEMI_TRY(hemi_keys_bias_put(keys, m->id, d->b0, m->outputs, err));
    } else {
        return hemi_fail(err, HEMI_ERR_STATE, "the module's bias was forgotten between request and reply: send the request anew");
    }
    for (size_t i = 0; i < p->rows; i++) {
        HEMI_TRY(decrypt_row(d, i, err));
        for (uint32_t o = 0; o < m->outputs; o++)
            y[i * m->outputs + o] = (float)(((double)d->phase[o] * unit - d->b0[o]) / p->factor[i] + d->b0[o]);
    }
    return HEMI_OK;
}

static hemi_status check_reply(decryption *d, const hemi_pending *p, const void *reply, size_t reply_bytes, hemi_error *err) {
    const hemi_module_info *m = &d->module->info;
    const uint32_t rows = (uint32_t)(p->rows + (p->zero_row ? 1 : 0));
    hemi_reply_frame f = {.rows = rows, .outputs = m->outputs, .ciphertexts = rows, .a_bits = m->reply_a_bits, .b_bits = m->reply_b_bits};
    size_t offset;
    memcpy(f.module_id, m->id, sizeof f.module_id);
    if (memcmp(p->id, m->id, sizeof p->id) != 0)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "this reply's request was made for another module");
    HEMI_TRY(hemi_reply_parse(reply, reply_bytes, m->params, &f, 1, &offset, err));
    d->in = (const uint8_t *)reply + offset;
    d->a_bytes = hemi_packed_bytes((size_t)1 << m->params->log2_n, m->reply_a_bits);
    d->b_bytes = hemi_packed_bytes(m->outputs, m->reply_b_bits);
    return HEMI_OK;
}

hemi_status hemi_decrypt(const hemi_module *m, hemi_keys *keys, hemi_pending *p, const void *reply, size_t reply_bytes, float *y,
                         hemi_error *err) {
    decryption d = {.module = m};
    HEMI_TRY(check_reply(&d, p, reply, reply_bytes, err));
    HEMI_TRY(hemi_keys_secret(keys, m->layout.params, &d.key, err));
    const size_t outputs = m->info.outputs;
    d.positions = hemi_alloc(outputs, sizeof *d.positions);
    d.phase = hemi_alloc(outputs, sizeof *d.phase);
    d.b0 = hemi_alloc(outputs, sizeof *d.b0);
    hemi_status s = HEMI_OK;
    if (!d.positions || !d.phase || !d.b0) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory to decrypt a reply");
    if (s == HEMI_OK) {
        hemi_linear_output_positions(&m->layout, d.positions);
        s = decrypt_rows(&d, keys, p, y, err);
    }
    if (s != HEMI_OK) memset(y, 0, p->rows * outputs * sizeof *y);
    hemi_free(d.positions);
    hemi_free(d.phase);
    hemi_free(d.b0);
    return s;
}

void hemi_pending_free(hemi_pending *p) { hemi_secure_free(p); }
