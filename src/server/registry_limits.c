/* The largest bodies, from the modules that are served. */
#include "base/cpu.h"
#include "ckks/cipher.h"
#include "rlwe/ringswitch.h"
#include "server/evaluate.h"
#include "server/registry.h"
#include "wire/batch.h"
#include "wire/ckks.h"

static void raise_to(size_t *most, size_t value) {
    if (value > *most) *most = value;
}

static void keys_of_linear(hemi_registry *registry, const hemi_params *params) {
    raise_to(&registry->key_bytes_max, hemi_keys_total_bytes(hemi_params_by_name(HEMI_BATCH_SET), 0));
    raise_to(&registry->key_bytes_max, hemi_keys_total_bytes(params, hemi_keys_most(params) - 1 - (params->reply ? 1 : 0)) +
                                           (params->reply ? hemi_key_entry_bytes(params, HEMI_KEY_RING_SWITCH) : 0));
}

/* Entries that the circuits of a set take, each once, and the limbs of the deepest. */
typedef struct circuit_keys {
    const hemi_params *params;
    uint32_t limbs, t[HEMI_CKKS_KEYS_MAX];
    size_t count;
} circuit_keys;

static void add_circuit(circuit_keys *k, const hemi_circuit_io *io) {
    if (io->params != k->params) return;
    if (io->limbs > k->limbs) k->limbs = io->limbs;
    for (size_t i = 0; i < io->automorphisms; i++) {
        size_t at = 0;
        while (at < k->count && k->t[at] != io->automorphism[i]) at++;
        if (at == k->count && k->count + 1 < HEMI_CKKS_KEYS_MAX) k->t[k->count++] = io->automorphism[i]; /* and the public key */
    }
}

/* One client's keys are for all modules of a set that it uses: at most for all that there are. */
static void keys_of_circuits(hemi_registry *registry, const hemi_params *params) {
    circuit_keys k = {.params = params};
    for (size_t i = 0; i < registry->models; i++)
        for (size_t j = 0; j < registry->model[i].evaluators; j++) {
            const hemi_module *module = registry->model[i].evaluated[j]->module;
            if (module->is_circuit) add_circuit(&k, &module->io);
        }
    raise_to(&registry->key_bytes_max, hemi_ckks_keys_bytes(params, k.limbs, k.count + 1));
    raise_to(&registry->key_memory_max, hemi_ckks_keys_memory(params, k.limbs, k.count));
}

void hemi_registry_set_limits(hemi_registry *registry) {
    for (size_t i = 0; i < registry->models; i++) {
        const hemi_served_model *model = &registry->model[i];
        raise_to(&registry->request_bytes_max, model->request_bytes_max);
        for (size_t j = 0; j < model->evaluators; j++) {
            const hemi_evaluator *e = model->evaluator[j];
            raise_to(&registry->working_bytes_max, hemi_evaluator_working_bytes(e, SIZE_MAX, (size_t)hemi_cpu_count()));
            if (hemi_evaluator_batch(e)) raise_to(&registry->working_bytes_max, hemi_evaluator_batch_working_bytes(e, HEMI_BATCH_SLOTS_MAX));
        }
        for (size_t j = 0; j < model->evaluators; j++) {
            const hemi_module *module = model->evaluated[j]->module;
            const hemi_params *params = model->evaluated[j]->info.params;
            if (module->is_circuit)
                keys_of_circuits(registry, params);
            else
                keys_of_linear(registry, params);
        }
        registry->modules += model->evaluators;
    }
}
