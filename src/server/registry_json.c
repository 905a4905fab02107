/* What GET /v2/models and GET /v2/models/{model} answer: made once, at start. */
#include <jansson.h>

#include "base/error.h"
#include "server/registry.h"
#include "server/route.h"

/* One entry for each compiled module: a module with two shapes has two. */
static json_t *describe_shape(const hemi_served_module *module, const hemi_served_shape *shape) {
    const hemi_module_info *info = &shape->info;
    char id[2 * HEMI_MODULE_ID_BYTES + 1];
    hemi_hex_text(id, info->id, HEMI_MODULE_ID_BYTES);
    json_t *automorphisms = json_array(), *shapes = json_array();
    for (size_t i = 0; i < shape->automorphisms; i++)
        json_array_append_new(automorphisms, json_integer(shape->automorphism[i]));
    for (size_t i = 0; i < module->shapes; i++) json_array_append_new(shapes, json_string(module->shape[i].name));
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I}", "name", module->name, "shape",
                     shape->name, "shapes", shapes, "module_id", id, "operation", info->operation, "set",
                     info->params->name, "inputs", (json_int_t)info->inputs, "outputs", (json_int_t)info->outputs,
                     "layout", (json_int_t)info->layout, "levels", (json_int_t)info->levels, "packed_rows",
                     (json_int_t)info->packed_rows, "automorphisms", automorphisms, "evaluation_key_bytes",
                     (json_int_t)info->evaluation_key_bytes, "upload_bytes", (json_int_t)info->upload_bytes,
                     "download_bytes", (json_int_t)info->download_bytes);
}

static json_t *describe_model(const hemi_served_model *model) {
    json_t *modules = json_array();
    for (size_t i = 0; i < model->modules; i++)
        for (size_t j = 0; j < model->module[i].shapes; j++)
            if (json_array_append_new(modules, describe_shape(&model->module[i], &model->module[i].shape[j])) != 0) {
                json_decref(modules);
                return NULL;
            }
    return json_pack("{s:s, s:I, s:o}", "name", model->name, "request_bytes_max", (json_int_t)model->request_bytes_max,
                     "modules", modules);
}

static json_t *describe_all(const hemi_registry *registry) {
    json_t *models = json_array();
    for (size_t i = 0; i < registry->models; i++) {
        const hemi_served_model *model = &registry->model[i];
        json_t *names = json_array();
        for (size_t j = 0; j < model->modules; j++) json_array_append_new(names, json_string(model->module[j].name));
        if (json_array_append_new(models, json_pack("{s:s, s:o}", "name", model->name, "modules", names)) != 0) {
            json_decref(models);
            return NULL;
        }
    }
    return json_pack("{s:o}", "models", models);
}

static char *to_text(json_t *root) {
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}

hemi_status hemi_registry_describe(hemi_registry *registry, hemi_error *err) {
    registry->json = to_text(describe_all(registry));
    bool complete = registry->json != NULL;
    for (size_t i = 0; i < registry->models; i++) {
        registry->model[i].json = to_text(describe_model(&registry->model[i]));
        complete = complete && registry->model[i].json != NULL;
    }
    return complete ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory to describe the models");
}
