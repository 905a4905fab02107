#include "model/module.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "linear/units.h"
#include "model/circuit_module.h"
#include "model/description.h"
#include "rlwe/context.h"

int32_t hemi_module_input_max(const hemi_module *module) { return (1 << (module->info.input_bits - 1)) - 1; }

bool hemi_module_scale(const hemi_module *m, const float *x, size_t count, double *scale, double *factor) {
    double largest = 0;
    bool finite = true;
    for (size_t j = 0; j < count; j++) {
        const double v = fabs((double)x[j]);
        finite &= isfinite(v) != 0;
        if (v > largest) largest = v;
    }
    if (!finite) return false;
    *scale = largest > 0 ? hemi_module_input_max(m) / largest : 1;
    *factor = largest > 0 ? *scale * m->info.input_scale : 1;
    return true;
}

bool hemi_module_quantise_row(const hemi_module *m, const float *x, int32_t *x_int, double *factor) {
    double scale;
    if (!hemi_module_scale(m, x, m->info.inputs, &scale, factor)) return false;
    for (uint32_t j = 0; j < m->info.inputs; j++) x_int[j] = (int32_t)rint((double)x[j] * scale);
    return true;
}

void hemi_module_free(hemi_module *m) {
    if (m == NULL) return;
    hemi_circuit_module_clear(m);
    hemi_free(m->weights);
    hemi_free(m->bias);
    hemi_free(m->client_json);
    hemi_free(m);
}

void hemi_module_get_info(const hemi_module *m, hemi_module_info *info) { *info = m->info; }

const char *hemi_module_client_json(const hemi_module *m) { return m->client_json; }

const hemi_grid *hemi_module_grid(const hemi_module *m) { return m->is_grid ? &m->grid : NULL; }

const hemi_linear_layout *hemi_module_layout(const hemi_module *m, hemi_form form) {
    if (form == HEMI_FORM_SINGLE) return &m->layout;
    return form == HEMI_FORM_PACKED && m->has_packed ? &m->packed : NULL;
}

size_t hemi_module_automorphisms(const hemi_module *m, uint32_t t[HEMI_AUTOMORPHISMS_MAX]) {
    uint32_t all[HEMI_AUTOMORPHISMS_MAX], more[HEMI_AUTOMORPHISMS_MAX];
    size_t count = hemi_linear_automorphisms(&m->layout, all);
    const size_t others = m->has_packed ? hemi_linear_automorphisms(&m->packed, more) : 0;
    for (size_t i = 0; i < others; i++) {
        size_t at = 0;
        while (at < count && all[at] < more[i]) at++;
        if ((at < count && all[at] == more[i]) || count == HEMI_AUTOMORPHISMS_MAX) continue;
        memmove(all + at + 1, all + at, (count - at) * sizeof *all);
        all[at] = more[i];
        count++;
    }
    if (t) memcpy(t, all, count * sizeof *all);
    return count;
}

size_t hemi_module_row_weights(const hemi_module *m) {
    return (size_t)m->layout.taps_y * m->layout.taps_x * m->layout.inputs;
}

size_t hemi_module_weights(const hemi_module *m) { return m->layout.outputs * hemi_module_row_weights(m); }

size_t hemi_module_key_entries(const hemi_module *m, uint32_t *t) {
    const size_t first = m->info.reply_ring != 0 ? 1 : 0;
    if (first && t) t[0] = HEMI_KEY_RING_SWITCH;
    return first + hemi_module_automorphisms(m, t ? t + first : NULL); /* at most 18 of them: log2 N + 1 */
}

size_t hemi_module_row_inputs(const hemi_module *m) {
    if (m->is_circuit) return m->io.inputs;
    return m->is_grid ? (size_t)m->grid.in_channels * m->grid.in_height * m->grid.in_width : m->layout.inputs;
}

size_t hemi_module_row_outputs(const hemi_module *m) {
    if (m->is_circuit) return m->io.outputs;
    return m->is_grid ? (size_t)m->grid.out_channels * m->grid.out_height * m->grid.out_width : m->layout.outputs;
}

size_t hemi_module_units(const hemi_module *m, hemi_form form, size_t rows) {
    return m->is_grid ? rows * hemi_units_of_sample(&m->layout, &m->grid) : hemi_units_of_rows(hemi_module_layout(m, form), rows);
}

hemi_request hemi_module_request(const hemi_module *m, hemi_form form, size_t units) {
    const hemi_linear_layout *l = hemi_module_layout(m, form);
    hemi_request r = {.params = l->params,
                      .form = form,
                      .layout = l->s,
                      .coefficients = (uint32_t)hemi_linear_input_positions(l, NULL),
                      .units = (uint32_t)units,
                      .ciphertexts = (uint32_t)units * l->in_blocks,
                      .b_bits = m->info.b_bits,
                      .modules = 1};
    memcpy(r.module_id[0], m->info.id, HEMI_MODULE_ID_BYTES);
    return r;
}

hemi_reply_frame hemi_module_frame(const hemi_module *m, hemi_form form, size_t units) {
    const hemi_linear_layout *l = hemi_module_layout(m, form);
    hemi_reply_frame f = {.units = (uint32_t)units,
                          .coefficients = (uint32_t)hemi_linear_output_positions(l, NULL),
                          .ciphertexts = (uint32_t)units * l->out_blocks,
                          .a_bits = m->info.reply_a_bits,
                          .b_bits = m->info.reply_b_bits,
                          .ring = m->info.reply_ring};
    if (f.ring && !hemi_linear_outputs_halve(l)) { /* the other form's replies stay in the ring, where rounding weighs more by sqrt(2) */
        f.ring = 0;
        f.a_bits++;
    }
    memcpy(f.module_id, m->info.id, HEMI_MODULE_ID_BYTES);
    return f;
}

/* With S and babies of the other layout, where that is possible: then it needs no other keys. */
hemi_status hemi_module_pack(hemi_module *m, hemi_error *err) {
    const hemi_linear_layout *l = &m->layout;
    hemi_linear_choice choice = {.s = l->direct ? 0 : l->s, .rows = HEMI_LINEAR_ROWS_FULL, .babies = l->direct ? 0 : l->babies};
    hemi_linear_layout packed;
    m->has_packed = false;
    if (m->is_grid) return HEMI_OK;
    if (hemi_linear_layout_rows(&packed, l->params, l->inputs, l->outputs, &choice, NULL) != HEMI_OK) {
        choice.babies = 0;
        HEMI_TRY(hemi_linear_layout_rows(&packed, l->params, l->inputs, l->outputs, &choice, err));
    }
    m->has_packed = packed.rows > 1;
    if (m->has_packed) m->packed = packed;
    return HEMI_OK;
}

static void set_sizes(hemi_module *m) {
    hemi_module_info *info = &m->info;
    const size_t units = hemi_module_units(m, HEMI_FORM_SINGLE, 1);
    const hemi_request request = hemi_module_request(m, HEMI_FORM_SINGLE, units);
    const hemi_reply_frame frame = hemi_module_frame(m, HEMI_FORM_SINGLE, units);
    info->upload_bytes = hemi_request_bytes(&request);
    info->download_bytes = HEMI_REPLY_HEADER_BYTES + hemi_reply_frame_bytes(info->params, &frame);
    info->evaluation_key_bytes = hemi_keys_total_bytes(info->params, info->automorphisms) +
                                 (info->reply_ring != 0 ? hemi_key_entry_bytes(info->params, HEMI_KEY_RING_SWITCH) : 0);
}

/* Of rows it follows from the input's. */
static void set_output_shape(hemi_module_info *info, uint32_t outputs) {
    info->output_rank = info->shape_rank;
    memcpy(info->output_shape, info->shape, sizeof info->shape);
    info->output_shape[info->output_rank - 1] = outputs;
}

hemi_status hemi_module_finish(hemi_module *m, hemi_error *err) {
    hemi_module_info *info = &m->info;
    if (m->is_circuit) {
        hemi_circuit_module_finish(m);
        hemi_free(m->client_json);
        return hemi_description_write(&m->client_json, m, HEMI_CLIENT_DESCRIPTION, err);
    }
    if (!m->is_grid && !m->is_dense) set_output_shape(info, m->layout.outputs);
    info->operation = m->is_grid ? "conv" : m->is_dense ? "dense" : "linear";
    info->params = m->layout.params;
    info->inputs = (uint32_t)hemi_module_row_inputs(m);
    info->outputs = (uint32_t)hemi_module_row_outputs(m);
    info->map_inputs = m->layout.inputs;
    info->map_outputs = m->layout.outputs;
    info->taps = m->layout.taps_y * m->layout.taps_x;
    info->layout = m->layout.s;
    info->babies = m->layout.babies;
    info->products = (uint32_t)hemi_linear_products(&m->layout);
    info->units = (uint32_t)hemi_module_units(m, HEMI_FORM_SINGLE, 1);
    info->packed_rows = m->has_packed ? m->packed.rows : 1;
    info->automorphisms = hemi_module_automorphisms(m, NULL);
    info->has_weights = m->weights != NULL;
    set_sizes(m);
    return hemi_description_write(&m->client_json, m, HEMI_CLIENT_DESCRIPTION, err);
}
