/* A compiled module's folder: client.zip (client.json), server.zip (server.json, weights.safetensors). */
#include <dirent.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "model/archive.h"
#include "model/circuit_module.h"
#include "model/description.h"
#include "model/safetensors.h"

#define CLIENT_ZIP           "client.zip"
#define SERVER_ZIP           "server.zip"
#define CLIENT_JSON          "client.json"
#define SERVER_JSON          "server.json"
#define WEIGHTS              "weights.safetensors"
#define CLIENT_ZIP_BYTES_MAX ((size_t)1 << 20)
#define SERVER_ZIP_BYTES_MAX ((size_t)1 << 29)
#define FILE_MODE            0644
#define PRIVATE_FILE_MODE    0600

/* ---- writing */

static hemi_status write_archive(const char *folder, const char *name, int mode, const hemi_archive_entry *entries,
                                 size_t count, hemi_error *err) {
    uint8_t *zip = NULL;
    size_t bytes = 0;
    HEMI_TRY(hemi_archive_write(&zip, &bytes, entries, count, err));
    char *path = hemi_path_join(folder, name);
    hemi_status status;
    if (bytes > SERVER_ZIP_BYTES_MAX)
        status = hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s would have %zu bytes, a server reads %zu at most: make several remote modules of it", name,
                           bytes, SERVER_ZIP_BYTES_MAX);
    else
        status = path != NULL ? hemi_file_write(path, zip, bytes, mode, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a path");
    hemi_free(path);
    hemi_free(zip);
    return status;
}

/* Little-endian bytes of the numbers. */
static hemi_status pack_weights(uint8_t **file, size_t *bytes, const hemi_module *m, hemi_error *err) {
    const size_t outputs = m->layout.outputs, inputs = m->layout.inputs, count = hemi_module_weights(m);
    uint8_t *weights = hemi_alloc(count, 2), *bias = hemi_alloc(outputs, 8);
    hemi_status status = HEMI_ERR_MEMORY;
    if (weights != NULL && bias != NULL) {
        for (size_t i = 0; i < count; i++) hemi_store16(weights + 2 * i, (uint16_t)m->weights[i]);
        for (size_t o = 0; m->bias != NULL && o < outputs; o++) {
            uint64_t bits;
            memcpy(&bits, &m->bias[o], sizeof bits);
            hemi_store64(bias + 8 * o, bits);
        }
        const hemi_tensor tensors[] = {
            {.name = "bias", .dtype = "F64", .rank = 1, .dims = {outputs}, .data = bias, .bytes = 8 * outputs},
            {.name = "weight",
             .dtype = "I16",
             .rank = 3,
             .dims = {outputs, m->info.taps, inputs},
             .data = weights,
             .bytes = 2 * count}};
        const size_t skipped = m->bias != NULL ? 0 : 1;
        status = hemi_safetensors_write(file, bytes, tensors + skipped, 2 - skipped, err);
    } else {
        status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu weights", count);
    }
    hemi_free(weights);
    hemi_free(bias);
    return status;
}

static hemi_status save_server(const hemi_module *m, const char *folder, hemi_error *err) {
    hemi_archive_entry entries[2] = {{.name = SERVER_JSON}, {.name = WEIGHTS}};
    char *json = NULL;
    HEMI_TRY(hemi_description_write(&json, m, HEMI_SERVER_DESCRIPTION, err));
    entries[0].data = (uint8_t *)json;
    entries[0].bytes = strlen(json);
    hemi_status status = HEMI_OK;
    if (entries[0].bytes > HEMI_SERVER_DESCRIPTION_BYTES_MAX)
        status = hemi_fail(err, HEMI_ERR_TOO_LARGE, "the module's description has %zu bytes, a server reads %d at most: make several remote modules of it",
                           entries[0].bytes, HEMI_SERVER_DESCRIPTION_BYTES_MAX);
    if (status == HEMI_OK)
        status = m->is_circuit ? hemi_circuit_tensors_write(&entries[1].data, &entries[1].bytes, m->circuit, err)
                               : pack_weights(&entries[1].data, &entries[1].bytes, m, err);
    if (status == HEMI_OK) status = write_archive(folder, SERVER_ZIP, PRIVATE_FILE_MODE, entries, 2, err);
    hemi_free(json);
    hemi_free(entries[1].data);
    return status;
}

hemi_status hemi_module_save(const hemi_module *m, const char *folder, hemi_error *err) {
    HEMI_TRY(hemi_folder_create(folder, err));
    if (m->weights != NULL || m->circuit != NULL) HEMI_TRY(save_server(m, folder, err));
    const hemi_archive_entry client = {
        .name = CLIENT_JSON, .data = (uint8_t *)m->client_json, .bytes = strlen(m->client_json)};
    return write_archive(folder, CLIENT_ZIP, FILE_MODE, &client, 1, err);
}

/* ---- reading */

static hemi_status take_weights(hemi_module *m, const hemi_tensor *t, hemi_error *err) {
    const hemi_linear_layout *l = &m->layout;
    const size_t count = hemi_module_weights(m), taps = (size_t)l->taps_y * l->taps_x;
    if (strcmp(t->dtype, "I16") != 0 || t->rank != 3 || t->dims[0] != l->outputs || t->dims[1] != taps ||
        t->dims[2] != l->inputs)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s: \"weight\" should be I16 [%u, %zu, %u]", WEIGHTS, l->outputs, taps,
                         l->inputs);
    m->weights = hemi_alloc_large(count, sizeof *m->weights);
    if (m->weights == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu weights", count);
    for (size_t i = 0; i < count; i++) m->weights[i] = (int16_t)hemi_load16(t->data + 2 * i);
    return HEMI_OK;
}

static hemi_status take_bias(hemi_module *m, const hemi_tensor *t, hemi_error *err) {
    if (strcmp(t->dtype, "F64") != 0 || t->rank != 1 || t->dims[0] != m->layout.outputs)
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s: \"bias\" should be F64 [%u]", WEIGHTS, m->layout.outputs);
    m->bias = hemi_alloc(m->layout.outputs, sizeof *m->bias);
    if (m->bias == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u numbers", m->layout.outputs);
    for (size_t o = 0; o < m->layout.outputs; o++) {
        const uint64_t bits = hemi_load64(t->data + 8 * o);
        memcpy(&m->bias[o], &bits, sizeof bits);
        if (!isfinite(m->bias[o]))
            return hemi_fail(err, HEMI_ERR_FORMAT, "%s: a bias is infinite or not a number", WEIGHTS);
    }
    return HEMI_OK;
}

/* No input may make a result wrap around q. */
static hemi_status check_bound(hemi_module *m, hemi_error *err) {
    const double input_max = hemi_module_input_max(m);
    double bound = 0;
    const size_t width = hemi_module_row_weights(m);
    for (size_t o = 0; o < m->layout.outputs; o++) {
        const int16_t *row = m->weights + o * width;
        int64_t sum = 0;
        int32_t largest = m->weight_max;
        for (size_t j = 0; j < width; j++) {
            const int32_t v = row[j] < 0 ? -row[j] : row[j];
            sum += v;
            largest = v > largest ? v : largest;
        }
        m->weight_max = largest;
        bound = fmax(bound, (double)sum * input_max + (m->bias != NULL ? fabs(m->bias[o]) : 0));
    }
    if (m->weight_max <= INT16_MAX && bound * (double)m->info.delta < (double)m->layout.params->q / 2) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_FORMAT, "%s: the weights are too large for delta", WEIGHTS);
}

static hemi_status read_weights(hemi_module *m, const hemi_archive_entry *file, hemi_error *err) {
    hemi_tensor tensors[HEMI_SAFETENSORS_COUNT_MAX];
    size_t count = 0;
    HEMI_TRY(hemi_safetensors_read(tensors, &count, file->data, file->bytes, err));
    for (size_t i = 0; i < count; i++) {
        const bool weight = strcmp(tensors[i].name, "weight") == 0;
        if (!weight && (strcmp(tensors[i].name, "bias") != 0 || !m->info.has_bias))
            return hemi_fail(err, HEMI_ERR_FORMAT, "%s: a tensor that does not belong there", WEIGHTS);
        HEMI_TRY(weight ? take_weights(m, &tensors[i], err) : take_bias(m, &tensors[i], err));
    }
    if (m->weights == NULL || (m->info.has_bias && m->bias == NULL))
        return hemi_fail(err, HEMI_ERR_FORMAT, "%s: a tensor is missing", WEIGHTS);
    return check_bound(m, err);
}

static hemi_status read_circuit(hemi_module *m, const hemi_archive_entry *file, hemi_error *err) {
    HEMI_TRY(hemi_circuit_tensors_read(m->circuit, file->data, file->bytes, err));
    return hemi_circuit_module_complete(m, err);
}

/* What an archive of either kind holds: client.json, or server.json and the weights. */
static hemi_status read_module(hemi_module *m, const uint8_t *zip, size_t bytes, bool with_weights, hemi_error *err) {
    hemi_archive_entry entries[2] = {
        {.name = with_weights ? SERVER_JSON : CLIENT_JSON, .max_bytes = with_weights ? HEMI_SERVER_DESCRIPTION_BYTES_MAX : HEMI_DESCRIPTION_BYTES_MAX},
        {.name = WEIGHTS, .max_bytes = SERVER_ZIP_BYTES_MAX}};
    HEMI_TRY(hemi_archive_read(entries, with_weights ? 2 : 1, zip, bytes, err));
    hemi_status status = hemi_description_read(m, entries[0].data, entries[0].bytes,
                                               with_weights ? HEMI_SERVER_DESCRIPTION : HEMI_CLIENT_DESCRIPTION, err);
    if (status == HEMI_OK && with_weights)
        status = m->is_circuit ? read_circuit(m, &entries[1], err) : read_weights(m, &entries[1], err);
    if (status == HEMI_OK) status = hemi_module_finish(m, err);
    hemi_free(entries[0].data);
    hemi_free(entries[1].data);
    return status;
}

static hemi_status module_new(hemi_module **out, hemi_error *err) {
    *out = hemi_alloc(1, sizeof **out);
    return *out != NULL ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
}

static void free_if_failed(hemi_module **out, hemi_status status) {
    if (status == HEMI_OK) return;
    hemi_module_free(*out);
    *out = NULL;
}

static char *join3(const char *a, const char *b, const char *c) {
    char *ab = hemi_path_join(a, b), *abc = ab != NULL ? hemi_path_join(ab, c) : NULL;
    hemi_free(ab);
    return abc;
}

/* folder/name, or folder/x/name for the only sub-folder x that has it. */
static hemi_status find_file(char **path, const char *folder, const char *name, hemi_error *err) {
    *path = hemi_path_join(folder, name);
    if (*path == NULL) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a path");
    if (hemi_path_exists(*path)) return HEMI_OK;
    hemi_free(*path);
    *path = NULL;
    DIR *dir = opendir(folder);
    if (dir == NULL) return hemi_fail(err, HEMI_ERR_NOT_FOUND, "there is no folder %s", folder);
    size_t found = 0;
    for (const struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        if (d->d_name[0] == '.') continue;
        char *candidate = join3(folder, d->d_name, name);
        const bool there = candidate != NULL && hemi_path_exists(candidate);
        if (there) found++;
        if (there && found == 1)
            *path = candidate;
        else
            hemi_free(candidate);
    }
    closedir(dir);
    if (found == 1) return HEMI_OK;
    hemi_free(*path);
    *path = NULL;
    if (found == 0) return hemi_fail(err, HEMI_ERR_NOT_FOUND, "there is no %s in %s", name, folder);
    return hemi_fail(err, HEMI_ERR_NOT_FOUND, "%s holds %zu compiled shapes: name one of its sub-folders", folder,
                     found);
}

hemi_status hemi_module_open(hemi_module **out, const char *folder, bool with_weights, hemi_error *err) {
    char *path = NULL;
    uint8_t *zip = NULL;
    size_t bytes = 0;
    *out = NULL;
    HEMI_TRY(find_file(&path, folder, with_weights ? SERVER_ZIP : CLIENT_ZIP, err));
    hemi_status status =
        hemi_file_read(&zip, &bytes, path, with_weights ? SERVER_ZIP_BYTES_MAX : CLIENT_ZIP_BYTES_MAX, err);
    if (status == HEMI_OK) {
        status = module_new(out, err);
        if (status == HEMI_OK) status = read_module(*out, zip, bytes, with_weights, err);
        if (status != HEMI_OK) status = hemi_fail_in(err, status, "%s", path);
        free_if_failed(out, status);
    }
    hemi_free(zip);
    hemi_free(path);
    return status;
}

hemi_status hemi_module_from_client_json(hemi_module **out, const void *json, size_t bytes, hemi_error *err) {
    HEMI_TRY(module_new(out, err));
    hemi_status status = hemi_description_read(*out, json, bytes, HEMI_CLIENT_DESCRIPTION, err);
    if (status == HEMI_OK) status = hemi_module_finish(*out, err);
    free_if_failed(out, status);
    return status;
}
