/* The models that are served: found and made ready at start, and anew when the server is told to; immutable afterwards, so read without locks. Who
 * reads holds it: requests that began with one go on with it when there is another.
 *
 *   FOLDER/<model>/<module>/<po_..._pc>/server.zip     or, where FOLDER is itself a model,
 *   FOLDER/<module>/<po_..._pc>/server.zip
 *
 * A module folder may also hold its server.zip directly. Names that come from the network are compared with the names
 * found here; they are never joined to a path. */
#ifndef HEMI_SERVER_REGISTRY_H
#define HEMI_SERVER_REGISTRY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/server.h"
#include "model/module.h"

/* One compiled module: a module at one input shape. */
typedef struct hemi_served_shape {
    char *name;          /* "po_1_768_pc" */
    hemi_module *module; /* without weights: what a client may see */
    hemi_module_info info;
    hemi_evaluator *evaluator;
    uint32_t automorphism[HEMI_AUTOMORPHISMS_MAX];
    size_t automorphisms;
    size_t request_bytes_max;
    atomic_ullong requests, rows; /* served since start */
} hemi_served_shape;

typedef struct hemi_served_module {
    char *name;               /* as its folder: "seq.0" */
    hemi_served_shape *shape; /* in the order of their names */
    size_t shapes;
} hemi_served_module;

typedef struct hemi_served_model {
    char *name;
    hemi_served_module *module; /* in the order of their names */
    size_t modules;
    const hemi_evaluator **evaluator; /* of all shapes of all modules, for hemi_evaluate ... */
    hemi_served_shape **evaluated;    /* ... and the shape each belongs to */
    size_t evaluators;
    size_t request_bytes_max; /* the largest body that /infer can have */
    char *json;               /* the answer to GET /v2/models/{model} */
} hemi_served_model;

typedef struct hemi_registry {
    atomic_size_t users;
    hemi_served_model *model; /* in the order of their names */
    size_t models, modules;   /* modules: compiled modules of all models */
    size_t key_bytes_max;     /* the largest evaluation keys any served parameter set can have; of circuits: that served modules take */
    size_t key_memory_max;    /* what the largest of circuits take when they are expanded */
    size_t request_bytes_max;
    size_t working_bytes_max; /* of one request, while it is computed */
    char *json; /* the answer to GET /v2/models */
} hemi_registry;

/* Reads and prepares everything below folder; evaluators: how each is made; progress lines on stderr unless quiet. before (may be NULL): what was
 * served until now; modules that are the same (by their ids) are shared with it and not made twice, and what was counted of them goes on.
 * ERR_NOT_FOUND when there is nothing to serve; otherwise the error of the file that is at fault, which it names. */
HEMI_CHECK hemi_status hemi_registry_open(hemi_registry **out, const char *folder, size_t max_rows,
                                          const hemi_evaluator_options *evaluators, bool quiet, const hemi_registry *before,
                                          hemi_error *err);
hemi_registry *hemi_registry_hold(hemi_registry *registry);
/* Freed with its last user; takes NULL. */
void hemi_registry_release(hemi_registry *registry);

const hemi_served_model *hemi_registry_model(const hemi_registry *registry, const char *name);
/* The exact name first, then the one module whose name is this with '.' for '_'. NULL: none, or several. */
const hemi_served_module *hemi_served_model_module(const hemi_served_model *model, const char *name);
/* By the id in a request; NULL if the model has no such module. */
hemi_served_shape *hemi_served_model_shape(const hemi_served_model *model, const uint8_t id[HEMI_MODULE_ID_BYTES]);
/* Units that one request may have, where so many rows are allowed: those that hold them (of a grid: whole samples, as many units or
 * a little more), and one of zeros for the bias. Of a circuit: those that hold them, as far as there is room for their ciphertexts. */
size_t hemi_served_units_max(const hemi_module *module, hemi_form form, size_t rows);
/* Does any module use this set, for itself or for batches of rows? */
bool hemi_registry_has_params(const hemi_registry *registry, const hemi_params *params);

/* Fills in the largest sizes, and how many modules there are (registry_limits.c). */
void hemi_registry_set_limits(hemi_registry *registry);
/* Fills in the json members of the registry and its models. */
HEMI_CHECK hemi_status hemi_registry_describe(hemi_registry *registry, hemi_error *err);

#endif
