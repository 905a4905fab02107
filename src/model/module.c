#include "model/module.h"

#include <math.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/description.h"
#include "rlwe/context.h"
#include "wire/wire.h"

int32_t hemi_module_input_max(const hemi_module *module) { return (1 << (module->info.input_bits - 1)) - 1; }

bool hemi_module_quantise_row(const hemi_module *m, const float *x, int32_t *x_int, double *factor) {
    double largest = 0;
    bool finite = true;
    for (uint32_t j = 0; j < m->info.inputs; j++) {
        const double v = fabs((double)x[j]);
        finite &= isfinite(v) != 0;
        if (v > largest) largest = v;
    }
    if (!finite) return false;
    const double scale = largest > 0 ? hemi_module_input_max(m) / largest : 1;
    for (uint32_t j = 0; j < m->info.inputs; j++) x_int[j] = (int32_t)rint((double)x[j] * scale);
    *factor = largest > 0 ? scale * m->info.input_scale : 1;
    return true;
}

void hemi_module_free(hemi_module *m) {
    if (m == NULL) return;
    hemi_free(m->weights);
    hemi_free(m->bias);
    hemi_free(m->client_json);
    hemi_free(m);
}

void hemi_module_get_info(const hemi_module *m, hemi_module_info *info) { *info = m->info; }

const char *hemi_module_client_json(const hemi_module *m) { return m->client_json; }

size_t hemi_module_key_entries(const hemi_module *m, uint32_t *t) {
    const size_t first = m->info.reply_ring != 0 ? 1 : 0;
    if (first && t) t[0] = HEMI_KEY_RING_SWITCH;
    return first + hemi_linear_automorphisms(&m->layout, t ? t + first : NULL); /* at most 18 of them: log2 N + 1 */
}

static void set_sizes(hemi_module_info *info) {
    const hemi_request request = {.params = info->params,
                                  .layout = info->layout,
                                  .inputs = info->inputs,
                                  .rows = 1,
                                  .ciphertexts = 1,
                                  .b_bits = info->b_bits,
                                  .modules = 1};
    const hemi_reply_frame frame = {.rows = 1,
                                    .outputs = info->outputs,
                                    .ciphertexts = 1,
                                    .a_bits = info->reply_a_bits,
                                    .b_bits = info->reply_b_bits,
                                    .ring = info->reply_ring};
    info->upload_bytes = hemi_request_bytes(&request);
    info->download_bytes = HEMI_REPLY_HEADER_BYTES + hemi_reply_frame_bytes(info->params, &frame);
    info->evaluation_key_bytes = hemi_keys_total_bytes(info->params, info->automorphisms) +
                                 (info->reply_ring != 0 ? hemi_key_entry_bytes(info->params, HEMI_KEY_RING_SWITCH) : 0);
}

hemi_status hemi_module_finish(hemi_module *m, hemi_error *err) {
    hemi_module_info *info = &m->info;
    info->operation = "linear";
    info->params = m->layout.params;
    info->inputs = m->layout.inputs;
    info->outputs = m->layout.outputs;
    info->layout = m->layout.s;
    info->products = hemi_linear_products(&m->layout);
    info->automorphisms = hemi_linear_automorphisms(&m->layout, NULL);
    info->has_weights = m->weights != NULL;
    set_sizes(info);
    return hemi_description_write(&m->client_json, m, HEMI_CLIENT_DESCRIPTION, err);
}
