#include "client/lot.h"

#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "secret/batch.h"

static const hemi_params *batch_params(void) { return hemi_params_by_name(HEMI_BATCH_SET); }

bool hemi_lot_possible(const hemi_module *const *modules, size_t count) {
    if (count == 0 || count > HEMI_REQUEST_MODULES_MAX) return false;
    const hemi_module_info *a = &modules[0]->info;
    for (size_t i = 0; i < count; i++) {
        const hemi_module_info *m = &modules[i]->info;
        if (modules[i]->is_circuit || hemi_module_grid(modules[i]) || m->params->q != batch_params()->q || m->inputs > HEMI_BATCH_INPUTS_MAX ||
            m->inputs != a->inputs || m->b_bits != a->b_bits || m->delta != a->delta ||
            m->input_bits != a->input_bits || !(m->input_scale == a->input_scale))
            return false;
    }
    return true;
}

static hemi_batch_frame frame_of(const hemi_module *m) {
    hemi_batch_frame f = {
        .outputs = m->info.outputs, .a_bits = m->info.reply_a_bits, .b_bits = m->info.reply_b_bits, .seconds = true};
    memcpy(f.id, m->info.id, sizeof f.id);
    return f;
}

size_t hemi_lot_row_bytes(const hemi_module *const *modules, size_t count) {
    size_t numbers = modules[0]->info.inputs;
    for (size_t i = 0; i < count; i++) numbers += modules[i]->info.outputs;
    return numbers * sizeof(uint64_t);
}

size_t hemi_lot_seconds_bytes(const hemi_module *const *modules, size_t count) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        const hemi_batch_frame f = frame_of(modules[i]);
        bytes += hemi_batch_seconds_bytes(batch_params(), &f);
    }
    return bytes;
}

static hemi_status make_pads(hemi_lot *lot, hemi_keys *keys, hemi_error *err) {
    const hemi_secret_key *key;
    const hemi_batch_request *r = &lot->request;
    HEMI_TRY(hemi_keys_hold(keys, r->params, &key, &lot->key_generation, err));
    const hemi_status status = hemi_secret_batch_pads(lot->pads, key, r->seed, r->inputs, r->slots, err);
    hemi_keys_let_go(keys);
    return status;
}

hemi_status hemi_lot_new(hemi_lot **out, hemi_keys *keys, const hemi_module *const *modules, size_t count,
                         uint32_t slots, hemi_error *err) {
    *out = NULL;
    hemi_lot *lot = hemi_alloc(1, sizeof *lot);
    if (!lot) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_batch_request *r = &lot->request;
    *r = (hemi_batch_request){.params = batch_params(),
                              .inputs = modules[0]->info.inputs,
                              .b_bits = modules[0]->info.b_bits,
                              .seconds = true,
                              .slots = slots,
                              .modules = count};
    for (size_t i = 0; i < count; i++) {
        lot->frame[i] = frame_of(modules[i]);
        memcpy(r->module[i].id, lot->frame[i].id, sizeof lot->frame[i].id);
    }
    lot->bytes = slots * hemi_lot_row_bytes(modules, count);
    lot->pads = hemi_alloc_large((size_t)slots * r->inputs, sizeof *lot->pads);
    lot->work = hemi_secure_alloc(
        r->inputs, sizeof(uint64_t) + sizeof(int32_t)); /* here: guarding takes longer than encrypting a row */
    hemi_seed_fresh(r->seed);
    hemi_status status = lot->pads && lot->work
                             ? make_pads(lot, keys, err)
                             : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u rows of a batch", slots);
    if (status != HEMI_OK) {
        hemi_lot_free(lot);
        return status;
    }
    *out = lot;
    return HEMI_OK;
}

void hemi_lot_free(hemi_lot *lot) {
    if (!lot) return;
    hemi_free(lot->pads); /* which wipes */
    hemi_secure_free(lot->work);
    for (size_t i = 0; i < lot->request.modules; i++) hemi_free(lot->masks[i]);
    hemi_free(lot);
}

hemi_status hemi_lot_header(const hemi_lot *lot, uint32_t rows, uint8_t **bytes, size_t *length, hemi_error *err) {
    hemi_batch_request r = lot->request;
    r.rows = rows;
    *length = hemi_batch_request_bytes(&r);
    *bytes = hemi_alloc(*length, 1);
    if (!*bytes) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a request of %zu bytes", *length);
    hemi_batch_request_write_header(*bytes, &r);
    return HEMI_OK;
}

size_t hemi_lot_reply_bytes(const hemi_lot *lot, bool seconds, uint32_t rows) {
    size_t total = HEMI_BATCH_REPLY_BYTES;
    for (size_t i = 0; i < lot->request.modules; i++) {
        hemi_batch_frame f = lot->frame[i];
        f.seconds = seconds;
        f.rows = rows;
        total += hemi_batch_frame_bytes(lot->request.params, &f);
    }
    return total;
}

static hemi_status make_masks(hemi_lot *lot, hemi_keys *keys, const uint8_t *reply, const size_t *offset,
                              hemi_error *err) {
    const hemi_batch_request *r = &lot->request;
    const hemi_secret_key *key;
    uint64_t generation;
    HEMI_TRY(hemi_keys_hold(keys, r->params, &key, &generation, err));
    hemi_status status = HEMI_OK;
    if (generation != lot->key_generation)
        status = hemi_fail(err, HEMI_ERR_STATE, "the secret key was replaced while a batch was prepared under it");
    for (size_t i = 0; i < r->modules && status == HEMI_OK; i++) {
        const hemi_batch_frame *f = &lot->frame[i];
        lot->masks[i] = hemi_alloc_large((size_t)r->slots * f->outputs, sizeof *lot->masks[i]);
        status = lot->masks[i] ? hemi_secret_batch_masks(lot->masks[i], key, reply + offset[i], f->a_bits, f->outputs,
                                                         r->slots, err)
                               : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u rows of a batch", r->slots);
    }
    hemi_keys_let_go(keys);
    return status;
}

hemi_status hemi_lot_accept(hemi_lot *lot, hemi_keys *keys, const uint8_t *reply, size_t bytes, uint32_t rows,
                            size_t *offset, hemi_error *err) {
    hemi_batch_request *r = &lot->request;
    for (size_t i = 0; i < r->modules; i++) lot->frame[i].rows = rows;
    HEMI_TRY(hemi_batch_reply_parse(reply, bytes, r->params, lot->frame, r->modules, offset, err));
    HEMI_TRY(make_masks(lot, keys, reply, offset, err));
    for (size_t i = 0; i < r->modules; i++) {
        memcpy(r->module[i].tag, lot->frame[i].tag, HEMI_BATCH_TAG_BYTES);
        offset[i] += hemi_batch_seconds_bytes(r->params, &lot->frame[i]);
    }
    return HEMI_OK;
}

/* ---- rows */

hemi_status hemi_lot_encrypt(hemi_lot *lot, const hemi_module *module, uint32_t first, const float *x, size_t rows,
                             bool zero_row, double *factor, uint8_t *out, hemi_error *err) {
    const size_t d = lot->request.inputs, each = hemi_batch_row_bytes(&lot->request), all = rows + (zero_row ? 1 : 0);
    const hemi_context *ctx;
    HEMI_TRY(hemi_context_shared(&ctx, lot->request.params, err));
    uint64_t *scratch = lot->work;
    int32_t *x_int = (int32_t *)(void *)(scratch + d);
    hemi_status status = HEMI_OK;
    for (size_t i = 0; i < all && status == HEMI_OK; i++) {
        if (i == rows)
            memset(x_int, 0, d * sizeof *x_int);
        else if (!hemi_module_quantise_row(module, x + i * d, x_int, &factor[i]))
            status = hemi_fail(err, HEMI_ERR_ARGUMENT,
                               "row %zu of the input holds a value that is infinite or not a number", i);
        if (status == HEMI_OK)
            hemi_secret_batch_encrypt(out + i * each, lot->pads + (first + i) * d, x_int, (uint32_t)d,
                                      module->info.delta, lot->request.b_bits, ctx, scratch);
    }
    hemi_wipe(x_int, d * sizeof *x_int); /* scratch was wiped with each row */
    hemi_wipe(lot->pads + first * d, all * d * sizeof *lot->pads);
    return status;
}

hemi_status hemi_lot_decrypt(const hemi_lot *lot, const hemi_module *module, size_t which, uint32_t first,
                             const uint8_t *in, size_t rows, bool zero_row, const double *factor, double *b0, float *y,
                             hemi_error *err) {
    const hemi_batch_frame *f = &lot->frame[which];
    const size_t m = f->outputs, each = hemi_batch_result_bytes(f);
    const double unit = module->info.output_scale / (double)module->info.delta;
    const hemi_context *ctx;
    HEMI_TRY(hemi_context_shared(&ctx, lot->request.params, err));
    int64_t *phase = hemi_alloc(2 * m, sizeof *phase); /* wiped when freed */
    if (!phase) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to decrypt a reply");
    uint64_t *scratch = (uint64_t *)(phase + m);
    for (size_t i = 0; i < rows + (zero_row ? 1 : 0); i++) {
        const size_t row = zero_row ? (i == 0 ? rows : i - 1) : i; /* the zero row first: the others need b0 */
        hemi_secret_batch_decrypt(phase, in + row * each, f->b_bits, lot->masks[which] + (first + row) * m, (uint32_t)m,
                                  ctx, scratch);
        for (size_t o = 0; o < m; o++) {
            const double value = (double)phase[o] * unit;
            if (row == rows)
                b0[o] = value;
            else
                y[row * m + o] = (float)((value - b0[o]) / factor[row] + b0[o]);
        }
    }
    hemi_free(phase);
    return HEMI_OK;
}
