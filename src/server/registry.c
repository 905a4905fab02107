/* Finding the compiled modules below a folder and making them ready. The answers about them are in registry_json.c. */
#include "server/registry.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "model/module.h"
#include "rlwe/context.h"
#include "server/evaluate.h"
#include "server/route.h"
#include "wire/batch.h"
#include "wire/ckks.h"

#define SERVER_FILE "server.zip"
#define LAYOUT_ADVICE                                                                                                  \
    "expected FOLDER/<model>/<module>/<po_..._pc>/" SERVER_FILE                                                        \
    ", as written by `hemi compile` and save_and_clear_private_info"

/* ---- folders */

typedef struct names {
    char **name;
    size_t count;
} names;

static void names_free(names *n) {
    for (size_t i = 0; i < n->count; i++) hemi_free(n->name[i]);
    free(n->name);
    *n = (names){0};
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The sub-folders of a folder, sorted; hidden ones are left out. */
static hemi_status list_folders(names *out, const char *folder, hemi_error *err) {
    *out = (names){0};
    DIR *dir = opendir(folder);
    if (!dir)
        return hemi_fail(err, HEMI_ERR_NOT_FOUND,
                         "cannot open the folder %s: is the path right, and may this user read it?", folder);
    hemi_status status = HEMI_OK;
    for (struct dirent *entry; status == HEMI_OK && (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        char *path = hemi_path_join(folder, entry->d_name);
        if (path && !hemi_path_is_folder(path)) {
            hemi_free(path);
            continue;
        }
        hemi_free(path);
        if (out->count == HEMI_SERVER_FOLDERS_MAX) {
            status =
                hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s has more than %u sub-folders", folder, HEMI_SERVER_FOLDERS_MAX);
            break;
        }
        char **grown = realloc(out->name, (out->count + 1) * sizeof *grown);
        if (grown) out->name = grown;
        char *copy = grown && path ? hemi_strdup(entry->d_name) : NULL;
        if (!copy)
            status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory to read the folder %s", folder);
        else
            out->name[out->count++] = copy;
    }
    closedir(dir);
    if (status != HEMI_OK)
        names_free(out);
    else if (out->count > 1)
        qsort(out->name, out->count, sizeof *out->name, compare_names);
    return status;
}

static bool has_server_file(const char *folder, const char *sub) {
    char file[PATH_MAX]; /* what is longer cannot be opened either */
    const int n = sub ? snprintf(file, sizeof file, "%s/%s/" SERVER_FILE, folder, sub) : snprintf(file, sizeof file, "%s/" SERVER_FILE, folder);
    return n > 0 && n < (int)sizeof file && hemi_path_exists(file);
}

static bool is_shape_name(const char *name) {
    const size_t n = strlen(name);
    return n > 6 && strncmp(name, "po_", 3) == 0 && strcmp(name + n - 3, "_pc") == 0;
}

/* The sub-folders of a module folder that hold a compiled module; a folder that cannot be read has none. */
static size_t keep_shapes(names *subs, const char *folder) {
    size_t kept = 0;
    for (size_t i = 0; i < subs->count; i++) {
        char *name = subs->name[i];
        if (is_shape_name(name) && has_server_file(folder, name))
            subs->name[kept++] = name;
        else
            hemi_free(name);
    }
    return subs->count = kept;
}

/* ERR_MEMORY alone is an error: a folder that cannot be read is none. */
static hemi_status is_module_folder(bool *found, const char *folder, hemi_error *err) {
    names subs;
    *found = has_server_file(folder, NULL);
    if (*found) return HEMI_OK;
    const hemi_status status = list_folders(&subs, folder, NULL);
    if (status == HEMI_ERR_MEMORY) return hemi_fail(err, status, "no memory to read the folder %s", folder);
    if (status != HEMI_OK) return HEMI_OK;
    *found = keep_shapes(&subs, folder) > 0;
    names_free(&subs);
    return HEMI_OK;
}

/* Leaves in *subs the module folders among the sub-folders of folder. */
static hemi_status list_modules(names *subs, const char *folder, hemi_error *err) {
    HEMI_TRY(list_folders(subs, folder, err));
    hemi_status status = HEMI_OK;
    size_t kept = 0;
    for (size_t i = 0; i < subs->count; i++) {
        bool found = false;
        char *path = hemi_path_join(folder, subs->name[i]);
        if (status == HEMI_OK) status = path ? is_module_folder(&found, path, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory to read the folder %s", folder);
        if (found)
            subs->name[kept++] = subs->name[i];
        else
            hemi_free(subs->name[i]);
        hemi_free(path);
    }
    subs->count = kept;
    if (status != HEMI_OK) names_free(subs);
    return status;
}

/* ---- one compiled module */

/* (1, 768) -> "po_1_768_pc" */
static char *shape_name(const hemi_module_info *info) {
    char text[16 + 11 * HEMI_SHAPE_MAX];
    size_t n = (size_t)snprintf(text, sizeof text, "po");
    for (size_t i = 0; i < info->shape_rank; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "_%u", info->shape[i]);
    snprintf(text + n, sizeof text - n, "_pc");
    return hemi_strdup(text);
}

static hemi_ckks_request circuit_request(const hemi_circuit_io *io, size_t units) {
    return (hemi_ckks_request){.params = io->params, .limbs = io->limbs, .units = (uint32_t)units, .ciphertexts = io->in_blocks};
}

static size_t circuit_units_max(const hemi_circuit_io *io, size_t rows) {
    const hemi_ckks_request one = circuit_request(io, 1);
    const size_t room = HEMI_SERVER_CIRCUIT_REQUEST_BYTES_MAX / hemi_ckks_request_bytes(&one);
    size_t units = rows / io->rows + (rows % io->rows != 0);
    if (units > HEMI_CKKS_UNITS_MAX) units = HEMI_CKKS_UNITS_MAX;
    if (units > room) units = room;
    return units > 0 ? units : 1;
}

size_t hemi_served_units_max(const hemi_module *module, hemi_form form, size_t rows) {
    if (module->is_circuit) return circuit_units_max(&module->io, rows);
    const size_t per_request = hemi_module_grid(module) ? 1 + rows / hemi_module_units(module, form, 1) : rows;
    return hemi_module_units(module, form, per_request) + 1;
}

static size_t largest_request(const hemi_module *module, size_t rows) {
    if (module->is_circuit) {
        const hemi_ckks_request most = circuit_request(&module->io, circuit_units_max(&module->io, rows));
        return hemi_ckks_request_bytes(&most);
    }
    hemi_request r = hemi_module_request(module, HEMI_FORM_SINGLE, hemi_served_units_max(module, HEMI_FORM_SINGLE, rows));
    r.modules = HEMI_REQUEST_MODULES_MAX;
    const hemi_batch_request batch = {.inputs = module->layout.inputs,
                                      .b_bits = r.b_bits,
                                      .rows = rows < HEMI_BATCH_SLOTS_MAX ? (uint32_t)rows + 1 : HEMI_BATCH_SLOTS_MAX,
                                      .modules = HEMI_REQUEST_MODULES_MAX};
    const size_t units = hemi_request_bytes(&r), of_batch = hemi_batch_request_bytes(&batch);
    return units > of_batch ? units : of_batch;
}

static void shape_free(hemi_served_shape *shape) {
    hemi_evaluator_free(shape->evaluator);
    hemi_module_free(shape->module);
    hemi_free(shape->name);
}

typedef struct opening {
    size_t max_rows;
    const hemi_evaluator_options *evaluators;
    bool quiet;
    const hemi_registry *before;
} opening;

/* The same module as it is served now, or NULL. */
static hemi_evaluator *served_before(const hemi_registry *before, const uint8_t *id) {
    for (size_t i = 0; before && i < before->models; i++) {
        const hemi_served_shape *shape = hemi_served_model_shape(&before->model[i], id);
        if (shape) return shape->evaluator;
    }
    return NULL;
}

static void set_automorphisms(hemi_served_shape *shape) {
    _Static_assert(HEMI_CIRCUIT_AUTOMORPHISMS_MAX <= HEMI_AUTOMORPHISMS_MAX, "room for the automorphisms of a circuit");
    const hemi_circuit_io *io = &shape->module->io;
    if (!shape->module->is_circuit) {
        shape->automorphisms = hemi_module_key_entries(shape->module, shape->automorphism);
        return;
    }
    shape->automorphisms = io->automorphisms;
    memcpy(shape->automorphism, io->automorphism, io->automorphisms * sizeof *io->automorphism);
}

/* From an open module with weights; `expected` is the name of its folder, NULL where that says nothing. */
static hemi_status shape_prepare(hemi_served_shape *shape, const hemi_module *module, const char *expected,
                                 const opening *o, hemi_error *err) {
    const char *json = hemi_module_client_json(module);
    HEMI_TRY(hemi_module_from_client_json(&shape->module, json, strlen(json), err)); /* without the weights */
    hemi_module_get_info(shape->module, &shape->info);
    shape->name = shape_name(&shape->info);
    if (!shape->name) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory");
    if (expected && strcmp(expected, shape->name) != 0)
        return hemi_fail(err, HEMI_ERR_CONFLICT,
                         "the module was compiled for the shape %s: its folder was renamed or its file "
                         "copied from elsewhere; rename the folder or compile the module anew",
                         shape->name);
    set_automorphisms(shape);
    shape->request_bytes_max = largest_request(shape->module, o->max_rows);
    hemi_evaluator *same = served_before(o->before, shape->info.id);
    if (!same) return hemi_evaluator_new_with(&shape->evaluator, module, o->evaluators, err);
    shape->evaluator = hemi_evaluator_hold(same);
    return HEMI_OK;
}

static hemi_status shape_open(hemi_served_shape *shape, const char *folder, const char *expected, const opening *o,
                              hemi_error *err) {
    hemi_module *module = NULL;
    memset(shape, 0, sizeof *shape);
    const double start = hemi_now_ms();
    HEMI_TRY(hemi_module_open(&module, folder, true, err)); /* names the file when it fails */
    const hemi_status status = shape_prepare(shape, module, expected, o, err);
    hemi_module_free(module);
    if (status != HEMI_OK) {
        shape_free(shape);
        return hemi_fail_in(err, status, "%s/" SERVER_FILE, folder);
    }
    if (!o->quiet)
        fprintf(stderr, "hemi-server: ready %s: %u x %u, %s, %s %u, %.1f MB, %.0f ms\n", folder,
                shape->info.outputs, shape->info.inputs, shape->info.params->name,
                shape->module->is_circuit ? "levels" : "layout",
                shape->module->is_circuit ? shape->info.levels : shape->info.layout,
                (double)hemi_evaluator_bytes(shape->evaluator) * 1e-6, hemi_now_ms() - start);
    return HEMI_OK;
}

/* ---- modules and models */

static void module_free(hemi_served_module *module) {
    for (size_t i = 0; i < module->shapes; i++) shape_free(&module->shape[i]);
    hemi_free(module->shape);
    hemi_free(module->name);
}

static hemi_status check_name(const char *what, const char *folder, const char *name, hemi_error *err) {
    if (hemi_name_is_valid(name)) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_ARGUMENT,
                     "%s: the name of a %s has letters, digits, '.', '_' and '-', at most %u, and does not "
                     "begin with '.'; rename the folder",
                     folder, what, HEMI_SERVER_NAME_BYTES_MAX);
}

static hemi_status module_open(hemi_served_module *module, const char *folder, const char *name, const opening *o,
                               hemi_error *err) {
    names subs;
    HEMI_TRY(check_name("module", folder, name, err));
    HEMI_TRY(list_folders(&subs, folder, err));
    const bool direct = keep_shapes(&subs, folder) == 0;
    const size_t count = direct ? 1 : subs.count;
    hemi_status status = HEMI_OK;
    module->name = hemi_strdup(name);
    module->shape = hemi_alloc(count, sizeof *module->shape);
    if (!module->name || !module->shape) status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %s", folder);
    for (size_t i = 0; status == HEMI_OK && i < count; i++) {
        char *path = direct ? hemi_strdup(folder) : hemi_path_join(folder, subs.name[i]);
        if (!path)
            status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %s", folder);
        else
            status = shape_open(&module->shape[i], path, direct ? NULL : subs.name[i], o, err);
        if (status == HEMI_OK) module->shapes++;
        hemi_free(path);
    }
    names_free(&subs);
    return status;
}

static void model_free(hemi_served_model *model) {
    for (size_t i = 0; i < model->modules; i++) module_free(&model->module[i]);
    hemi_free(model->module);
    hemi_free(model->evaluator);
    hemi_free(model->evaluated);
    free(model->json);
    hemi_free(model->name);
}

/* The list of all evaluators of a model, for hemi_evaluate. */
static hemi_status model_gather(hemi_served_model *model, hemi_error *err) {
    size_t count = 0;
    for (size_t i = 0; i < model->modules; i++) count += model->module[i].shapes;
    model->evaluator = hemi_alloc(count, sizeof *model->evaluator);
    model->evaluated = hemi_alloc(count, sizeof *model->evaluated);
    if (!model->evaluator || !model->evaluated)
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the model %s", model->name);
    for (size_t i = 0; i < model->modules; i++)
        for (size_t j = 0; j < model->module[i].shapes; j++) {
            hemi_served_shape *shape = &model->module[i].shape[j];
            if (hemi_served_model_shape(model, shape->info.id))
                return hemi_fail(err, HEMI_ERR_CONFLICT,
                                 "model %s: the same compiled module is there twice, the second time as %s/%s; "
                                 "remove one of the copies",
                                 model->name, model->module[i].name, shape->name);
            model->evaluator[model->evaluators] = shape->evaluator;
            model->evaluated[model->evaluators++] = shape;
            if (shape->request_bytes_max > model->request_bytes_max)
                model->request_bytes_max = shape->request_bytes_max;
        }
    return HEMI_OK;
}

static hemi_status model_open(hemi_served_model *model, const char *folder, const char *name, const names *modules,
                              const opening *o, hemi_error *err) {
    HEMI_TRY(check_name("model", folder, name, err));
    model->name = hemi_strdup(name);
    model->module = hemi_alloc(modules->count, sizeof *model->module);
    if (!model->name || !model->module) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the model %s", folder);
    for (size_t i = 0; i < modules->count; i++) {
        char *path = hemi_path_join(folder, modules->name[i]);
        if (!path) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the model %s", folder);
        model->modules++; /* what there is of it is freed with the model */
        const hemi_status status = module_open(&model->module[i], path, modules->name[i], o, err);
        hemi_free(path);
        HEMI_TRY(status);
    }
    return model_gather(model, err);
}

/* ---- the whole */

hemi_registry *hemi_registry_hold(hemi_registry *registry) {
    atomic_fetch_add(&registry->users, 1);
    return registry;
}

void hemi_registry_release(hemi_registry *registry) {
    if (!registry || atomic_fetch_sub(&registry->users, 1) > 1) return;
    for (size_t i = 0; i < registry->models; i++) model_free(&registry->model[i]);
    hemi_free(registry->model);
    free(registry->json);
    hemi_free(registry);
}

/* FOLDER is itself a model. */
static hemi_status open_single(hemi_registry *registry, const char *folder, const names *modules, const opening *o,
                               hemi_error *err) {
    char *real = realpath(folder, NULL);
    const char *slash = real ? strrchr(real, '/') : NULL;
    registry->model = hemi_alloc(1, sizeof *registry->model);
    hemi_status status = HEMI_OK;
    if (!slash || !registry->model) status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the model %s", folder);
    if (status == HEMI_OK) {
        registry->models = 1;
        status = model_open(&registry->model[0], real, slash + 1, modules, o, err);
    }
    free(real);
    return status;
}

/* Every sub-folder with modules is a model. */
static hemi_status open_models(hemi_registry *registry, const char *folder, const names *subs, const opening *o,
                               hemi_error *err) {
    registry->model = hemi_alloc(subs->count, sizeof *registry->model);
    if (!registry->model) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the models of %s", folder);
    hemi_status status = HEMI_OK;
    for (size_t i = 0; status == HEMI_OK && i < subs->count; i++) {
        names modules = {0};
        char *path = hemi_path_join(folder, subs->name[i]);
        if (!path) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the models of %s", folder);
        status = list_modules(&modules, path, err);
        if (status == HEMI_OK && modules.count > 0) {
            hemi_served_model *model = &registry->model[registry->models++];
            status = model_open(model, path, subs->name[i], &modules, o, err);
        }
        names_free(&modules);
        hemi_free(path);
    }
    return status;
}

static hemi_status open_all(hemi_registry *registry, const char *folder, const opening *o, hemi_error *err) {
    names subs = {0}, modules = {0};
    bool is_module = false;
    if (!hemi_path_is_folder(folder))
        return hemi_fail(err, HEMI_ERR_NOT_FOUND,
                         "there is no folder %s: give the folder with the compiled models (" LAYOUT_ADVICE ")", folder);
    HEMI_TRY(is_module_folder(&is_module, folder, err));
    if (is_module)
        return hemi_fail(err, HEMI_ERR_ARGUMENT,
                         "%s is one module, not a model: give the folder above it (" LAYOUT_ADVICE ")", folder);
    HEMI_TRY(list_folders(&subs, folder, err));
    hemi_status status = list_modules(&modules, folder, err);
    if (status == HEMI_OK)
        status = modules.count > 0 ? open_single(registry, folder, &modules, o, err)
                                   : open_models(registry, folder, &subs, o, err);
    names_free(&modules);
    names_free(&subs);
    if (status == HEMI_OK && registry->models == 0)
        return hemi_fail(err, HEMI_ERR_NOT_FOUND, "there is no compiled module in %s: " LAYOUT_ADVICE, folder);
    return status;
}

static const hemi_served_shape *same_name(const hemi_registry *r, const char *model, const char *module, const char *shape) {
    const hemi_served_model *m = hemi_registry_model(r, model);
    for (size_t i = 0; m && i < m->modules; i++)
        for (size_t j = 0; j < m->module[i].shapes; j++)
            if (strcmp(m->module[i].name, module) == 0 && strcmp(m->module[i].shape[j].name, shape) == 0) return &m->module[i].shape[j];
    return NULL;
}

/* Counters of metrics do not go back. */
static void carry_counters(hemi_registry *r, const hemi_registry *before) {
    for (size_t i = 0; i < r->models; i++)
        for (size_t j = 0; j < r->model[i].modules; j++)
            for (size_t k = 0; k < r->model[i].module[j].shapes; k++) {
                hemi_served_shape *shape = &r->model[i].module[j].shape[k];
                const hemi_served_shape *old = same_name(before, r->model[i].name, r->model[i].module[j].name, shape->name);
                if (!old) continue;
                atomic_store(&shape->requests, atomic_load(&old->requests));
                atomic_store(&shape->rows, atomic_load(&old->rows));
            }
}

hemi_status hemi_registry_open(hemi_registry **out, const char *folder, size_t max_rows, const hemi_evaluator_options *evaluators,
                               bool quiet, const hemi_registry *before, hemi_error *err) {
    *out = NULL;
    hemi_registry *registry = hemi_alloc(1, sizeof *registry);
    if (!registry) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory");
    atomic_init(&registry->users, 1);
    const opening o = {.max_rows = max_rows, .evaluators = evaluators, .quiet = quiet, .before = before};
    hemi_status status = open_all(registry, folder, &o, err);
    if (status == HEMI_OK) {
        hemi_registry_set_limits(registry);
        status = hemi_registry_describe(registry, err);
    }
    if (status != HEMI_OK) {
        hemi_registry_release(registry);
        return status;
    }
    if (before) carry_counters(registry, before);
    *out = registry;
    return HEMI_OK;
}

/* ---- looking up */

const hemi_served_model *hemi_registry_model(const hemi_registry *registry, const char *name) {
    for (size_t i = 0; i < registry->models; i++)
        if (strcmp(registry->model[i].name, name) == 0) return &registry->model[i];
    return NULL;
}

/* "seq_0" stands for "seq.0". */
static bool is_alias(const char *alias, const char *name) {
    for (; *name; name++, alias++)
        if (*alias != (*name == '.' ? '_' : *name)) return false;
    return *alias == 0;
}

const hemi_served_module *hemi_served_model_module(const hemi_served_model *model, const char *name) {
    const hemi_served_module *found = NULL;
    for (size_t i = 0; i < model->modules; i++)
        if (strcmp(model->module[i].name, name) == 0) return &model->module[i];
    for (size_t i = 0; i < model->modules; i++) {
        if (!is_alias(name, model->module[i].name)) continue;
        if (found) return NULL;
        found = &model->module[i];
    }
    return found;
}

hemi_served_shape *hemi_served_model_shape(const hemi_served_model *model, const uint8_t id[HEMI_MODULE_ID_BYTES]) {
    for (size_t i = 0; i < model->evaluators; i++)
        if (memcmp(model->evaluated[i]->info.id, id, HEMI_MODULE_ID_BYTES) == 0) return model->evaluated[i];
    return NULL;
}

bool hemi_registry_has_params(const hemi_registry *registry, const hemi_params *params) {
    const bool of_batches = strcmp(params->name, HEMI_BATCH_SET) == 0;
    for (size_t i = 0; i < registry->models; i++)
        for (size_t j = 0; j < registry->model[i].evaluators; j++)
            if (registry->model[i].evaluated[j]->info.params->id == params->id ||
                (of_batches && hemi_evaluator_batch(registry->model[i].evaluator[j])))
                return true;
    return false;
}
