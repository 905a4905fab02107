/* Files of circuits: what is written is read back and computes the same; what does not fit is refused, with the right status and a reason. */
#include <jansson.h>

#include "client_fixture.h"
#include "circuit_kinds.h"

#include "base/file.h"
#include "base/memory.h"
#include "model/archive.h"
#include "model/description.h"
#include "model/safetensors.h"

/* ---- round trips */

static void same_io(const hemi_circuit_io *a, const hemi_circuit_io *b) {
    assert_ptr_equal(a->params, b->params);
    assert_true(a->rows == b->rows && a->limbs == b->limbs && a->inputs == b->inputs && a->outputs == b->outputs);
    assert_true(a->in_period == b->in_period && a->in_blocks == b->in_blocks && a->out_period == b->out_period && a->out_blocks == b->out_blocks);
    assert_true(a->in_norm == b->in_norm && a->in_scale == b->in_scale && a->out_norm == b->out_norm && a->out_scale == b->out_scale);
    assert_true(a->input_step == b->input_step && a->input_low == b->input_low && a->input_high == b->input_high);
    assert_true(a->copies == b->copies && a->stride == b->stride && (a->copies > 1) == (b->skew != NULL));
    if (a->copies > 1) assert_memory_equal(a->skew, b->skew, a->copies * sizeof *a->skew);
    assert_int_equal(a->automorphisms, b->automorphisms);
    assert_memory_equal(a->automorphism, b->automorphism, a->automorphisms * sizeof *a->automorphism);
}

static void same_info(const hemi_module *a, const hemi_module *b) {
    hemi_module_info x, y;
    hemi_module_get_info(a, &x);
    hemi_module_get_info(b, &y);
    assert_string_equal(x.operation, "circuit");
    assert_string_equal(y.operation, "circuit");
    assert_memory_equal(x.id, y.id, sizeof x.id);
    assert_int_equal(x.shape_rank, y.shape_rank);
    assert_memory_equal(x.shape, y.shape, sizeof x.shape);
    assert_memory_equal(x.output_shape, y.output_shape, sizeof x.output_shape);
    assert_true(x.units == y.units && x.packed_rows == y.packed_rows && x.levels == y.levels && x.circuit_rows == y.circuit_rows);
    assert_true(x.weight_bits == y.weight_bits && x.input_bits == y.input_bits && x.input_low == y.input_low && x.input_high == y.input_high);
    assert_true(x.upload_bytes == y.upload_bytes && x.download_bytes == y.download_bytes && x.evaluation_key_bytes == y.evaluation_key_bytes);
    if (!y.has_weights) return;
    assert_true(x.approximation_error == y.approximation_error && x.predicted_error == y.predicted_error && x.output_max == y.output_max);
    assert_int_equal(x.activations, y.activations);
    for (size_t i = 0; i < x.activations; i++) {
        hemi_activation_info p, q;
        ASSERT_OK(hemi_module_get_activation(a, i, &p, ERR));
        ASSERT_OK(hemi_module_get_activation(b, i, &q, ERR));
        assert_string_equal(p.name, q.name);
        assert_true(p.size == q.size && p.low == q.low && p.high == q.high && p.degree == q.degree && p.levels == q.levels);
    }
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "activations", hemi_module_get_activation(b, x.activations, &(hemi_activation_info){0}, ERR));
}

static void same_results(const hemi_module *a, const hemi_module *b, bool polynomials) {
    hemi_module_info info;
    hemi_module_get_info(a, &info);
    float *x = fixture_rows(5, info.inputs), *y = malloc(2 * 5 * info.outputs * sizeof *y), *z = y + 5 * info.outputs;
    assert_non_null(y);
    ASSERT_OK(hemi_module_run_clear(a, x, 5, y, polynomials, ERR));
    ASSERT_OK(hemi_module_run_clear(b, x, 5, z, polynomials, ERR));
    assert_true(info.predicted_error == 0 || !polynomials || memcmp(y, z, 5 * info.outputs * sizeof *y) != 0);
    if (info.predicted_error == 0 || !polynomials) assert_memory_equal(y, z, 5 * info.outputs * sizeof *y);
    free(x);
    free(y);
}

static uint8_t *read_file(const char *folder, const char *name, size_t *bytes) {
    char *path = hemi_path_join(folder, name);
    uint8_t *data = NULL;
    assert_non_null(path);
    ASSERT_OK(hemi_file_read(&data, bytes, path, (size_t)1 << 30, ERR));
    hemi_free(path);
    return data;
}

/* Written again, the files are the same to a byte. */
static void same_files(const char *a, const char *b) {
    static const char *const names[] = {"server.zip", "client.zip"};
    for (size_t i = 0; i < 2; i++) {
        size_t n = 0, m = 0;
        uint8_t *x = read_file(a, names[i], &n), *y = read_file(b, names[i], &m);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n);
        hemi_free(x);
        hemi_free(y);
    }
}

/* That the circuits of this file are what they are meant to be. */
static void check_kind(kind k, const hemi_module *m) {
    bool layout = false;
    for (size_t i = 0; i < m->plan->values; i++) layout |= m->plan->value[i].layout > 0;
    if (k == KIND_CONV) assert_true(layout);
    if (k == KIND_COPIES || k == KIND_CONV) assert_true(m->io.copies > 1);
    if (k == KIND_ROWS) assert_true(m->io.rows == 4);
    if (k == KIND_QUANTISER) assert_true(m->io.input_step == 0.125);
    if (k == KIND_RESIDUAL) assert_int_equal(m->circuit->value[m->circuit->values - 1].a.terms, 2);
    if (k == KIND_STEPS) assert_int_equal(m->circuit->value[1].function.steps, 3);
}

static void modules_come_back(void **state) {
    (void)state;
    for (kind k = 0; k < KINDS; k++) {
        char one[256], two[256];
        test_folder_new(one);
        test_folder_new(two);
        hemi_module *m = kind_module(k), *server = NULL, *client = NULL, *json = NULL;
        print_message("  %s: %s, %u levels, %u rows, %u copies\n", kind_names[k], m->io.params->name, m->io.limbs - 1, m->io.rows, m->io.copies);
        check_kind(k, m);
        ASSERT_OK(hemi_module_save(m, one, ERR));
        ASSERT_OK(hemi_module_open(&server, one, true, ERR));
        ASSERT_OK(hemi_module_open(&client, one, false, ERR));
        ASSERT_OK(hemi_module_from_client_json(&json, hemi_module_client_json(m), strlen(hemi_module_client_json(m)), ERR));
        const hemi_module *const read[] = {server, client, json};
        for (size_t i = 0; i < 3; i++) {
            same_io(&m->io, &read[i]->io);
            same_info(m, read[i]);
            assert_string_equal(hemi_module_client_json(m), hemi_module_client_json(read[i]));
        }
        same_results(m, server, false);
        same_results(m, server, true);
        ASSERT_OK(hemi_module_save(server, two, ERR));
        same_files(one, two);
        float x[64] = {0}, y[8];
        ASSERT_FAILS(HEMI_ERR_STATE, "server.zip", hemi_module_run_clear(client, x, 1, y, false, ERR));
        ASSERT_FAILS(HEMI_ERR_STATE, "server.zip", hemi_module_get_activation(client, 0, &(hemi_activation_info){0}, ERR));
        hemi_module_free(m);
        hemi_module_free(server);
        hemi_module_free(client);
        hemi_module_free(json);
        test_folder_remove(one);
        test_folder_remove(two);
    }
}

/* ---- what a client may see */

static bool contains(const char *text, const void *what, size_t length) { return memmem(text, strlen(text), what, length) != NULL; }

static void check_text(const char *text, double number) {
    char digits[40];
    const float f = (float)number;
    (void)snprintf(digits, sizeof digits, "%.5g", fabs(number)); /* a prefix of however it would be written */
    if (strlen(digits) > 5 && contains(text, digits, strlen(digits) - 1)) fail_msg("%s is in client.json", digits);
    assert_false(contains(text, &f, sizeof f) || contains(text, &number, sizeof number));
}

/* Ranges are on a grid of 9 %: neither the calibration data's largest number nor an output is told exactly. */
static void check_norm(const hemi_module *m, size_t value, double norm) {
    const hemi_circuit_value *v = &m->circuit->value[value];
    const double largest = fmax(fabs(v->low), fabs(v->high)), k = 8 * log2(norm);
    assert_true(norm >= largest && norm < 1.0906 * largest && fabs(k - rint(k)) < 1e-9);
}

static void no_weight_for_the_client(void **state) {
    (void)state;
    static const char *const names[] = {"format", "version", "operation", "module_id", "set", "inputs", "outputs", "input_shape", "output_shape",
                                        "by_rows", "weight_bits", "input_bits", "limbs", "rows", "input", "output", "copies", "stride", "skew",
                                        "automorphisms"};
    for (kind k = 0; k < KINDS; k++) {
        hemi_module *m = kind_module(k);
        const char *text = hemi_module_client_json(m);
        json_t *j = json_loads(text, 0, NULL);
        check_norm(m, 0, m->io.in_norm);
        check_norm(m, m->circuit->values - 1, m->io.out_norm);
        assert_int_equal(json_object_size(j), TEST_COUNT(names) + (k == KIND_QUANTISER));
        for (size_t i = 0; i < TEST_COUNT(names); i++) assert_non_null(json_object_get(j, names[i]));
        assert_int_equal(json_object_get(j, "quantiser") != NULL, k == KIND_QUANTISER);
        assert_true(json_object_size(json_object_get(j, "input")) == 4 && json_object_size(json_object_get(j, "output")) == 4);
        for (size_t i = 1; i < m->circuit->values; i++) {
            const hemi_circuit_value *v = &m->circuit->value[i];
            if (strcmp(v->name, "output") != 0) assert_false(contains(text, v->name, strlen(v->name)));
            for (size_t half = 0; half < 2; half++) {
                const hemi_circuit_affine *a = half ? &v->b : &v->a;
                for (size_t t = 0; t < a->terms; t++)
                    for (size_t e = 0; e < hemi_sparse_count(&a->term[t].map); e++) check_text(text, (double)a->term[t].map.weight[e]);
                for (size_t e = 0; a->bias && e < v->size; e++) check_text(text, a->bias[e]);
            }
            for (size_t e = 0; v->polynomial.coefficient && e <= v->polynomial.degree; e++) check_text(text, v->polynomial.coefficient[e]);
        }
        json_decref(j);
        hemi_module_free(m);
    }
}

/* ---- client.json and server.json, changed */

/* A module's parts, to be put together again with one of them changed. */
typedef struct parts {
    char folder[256];
    hemi_module *module;
    json_t *client, *server;
    uint8_t *tensors;
    size_t bytes;
} parts;

static parts parts_of(kind k) {
    parts p = {.module = kind_module(k)};
    char *text = NULL;
    test_folder_new(p.folder);
    ASSERT_OK(hemi_description_write(&text, p.module, HEMI_SERVER_DESCRIPTION, ERR));
    p.server = json_loads(text, 0, NULL);
    p.client = json_loads(hemi_module_client_json(p.module), 0, NULL);
    assert_true(p.server != NULL && p.client != NULL);
    ASSERT_OK(hemi_circuit_tensors_write(&p.tensors, &p.bytes, p.module->circuit, ERR));
    hemi_free(text);
    return p;
}

static void parts_clear(parts *p) {
    test_folder_remove(p->folder);
    hemi_module_free(p->module);
    json_decref(p->client);
    json_decref(p->server);
    hemi_free(p->tensors);
}

/* What was accepted, or NULL. */
static hemi_module *open_server(const parts *p, const json_t *server, const uint8_t *tensors, size_t tensors_bytes, hemi_status *status) {
    char *json = json_dumps(server, JSON_REAL_PRECISION(17)), *path = hemi_path_join(p->folder, "server.zip");
    const hemi_archive_entry entries[2] = {{.name = "server.json", .data = (uint8_t *)json, .bytes = strlen(json)},
                                           {.name = "weights.safetensors", .data = (uint8_t *)(uintptr_t)tensors, .bytes = tensors_bytes}};
    uint8_t *zip = NULL;
    size_t bytes = 0;
    hemi_module *m = NULL;
    assert_non_null(path);
    ASSERT_OK(hemi_archive_write(&zip, &bytes, entries, 2, ERR));
    FILE *file = fopen(path, "wb"); /* not to the disk, as hemi_file_write would: it is thousands of them */
    assert_true(file != NULL && fwrite(zip, 1, bytes, file) == bytes && fclose(file) == 0);
    fixture_error = (hemi_error){0};
    *status = hemi_module_open(&m, p->folder, true, ERR);
    assert_int_equal(*status == HEMI_OK, m != NULL);
    free(json);
    hemi_free(path);
    hemi_free(zip);
    return m;
}

static hemi_module *open_client(const json_t *client, hemi_status *status) {
    char *json = json_dumps(client, JSON_REAL_PRECISION(17));
    hemi_module *m = NULL;
    fixture_error = (hemi_error){0};
    *status = hemi_module_from_client_json(&m, json, strlen(json), ERR);
    assert_int_equal(*status == HEMI_OK, m != NULL);
    free(json);
    return m;
}

static hemi_module *open_changed(const parts *p, bool server, const json_t *j, hemi_status *status) {
    return server ? open_server(p, j, p->tensors, p->bytes, status) : open_client(j, status);
}

static json_t *member(json_t *v, const char *name) {
    return json_is_array(v) ? json_array_get(v, strtoul(name, NULL, 10)) : json_object_get(v, name);
}

/* Replaces what is at "values.1.map.terms.0" by a value in JSON, or removes it (NULL). Returns whether it was a real number. */
static bool set_at(json_t *root, const char *path, const char *value) {
    char copy[160], *rest = copy, *name;
    (void)snprintf(copy, sizeof copy, "%s", path);
    for (name = strsep(&rest, "."); rest; name = strsep(&rest, ".")) root = member(root, name);
    const bool real = json_is_real(member(root, name));
    json_t *v = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    if (!root || (value && !v)) fail_msg("%s = %s cannot be set", path, value ? value : "nothing");
    if (json_is_array(root))
        value ? json_array_set_new(root, strtoul(name, NULL, 10), v) : json_array_remove(root, strtoul(name, NULL, 10));
    else
        value ? json_object_set_new(root, name, v) : json_object_del(root, name);
    return real;
}

typedef struct change {
    kind k;
    const char *path, *value;
    hemi_status status;
    const char *text; /* in the message */
} change;

static const change client_changes[] = {
    {KIND_FUNCTION, "version", "3", HEMI_ERR_VERSION, "version 3"},
    {KIND_FUNCTION, "operation", "\"circus\"", HEMI_ERR_UNSUPPORTED, "not known"},
    {KIND_FUNCTION, "operation", "\"linear\"", HEMI_ERR_PARAMS, "set"},
    {KIND_FUNCTION, "set", "\"L4096\"", HEMI_ERR_PARAMS, "L4096"},
    {KIND_FUNCTION, "set", "\"C512\"", HEMI_ERR_PARAMS, "unknown"},
    {KIND_FUNCTION, "inputs", "7", HEMI_ERR_FORMAT, "input_shape"},
    {KIND_FUNCTION, "inputs", "1048577", HEMI_ERR_FORMAT, "inputs"},
    {KIND_FUNCTION, "outputs", "0", HEMI_ERR_FORMAT, "outputs"},
    {KIND_CONV, "input_shape", "[1, 1, 8, 9]", HEMI_ERR_FORMAT, "input_shape"},
    {KIND_CONV, "input_shape", "[1, 4294967295, 4294967295, 4294967295]", HEMI_ERR_FORMAT, "input_shape"},
    {KIND_CONV, "input_shape", "[2, 32]", HEMI_ERR_FORMAT, "input_shape"},
    {KIND_FUNCTION, "weight_bits", "17", HEMI_ERR_FORMAT, "weight_bits"},
    {KIND_FUNCTION, "limbs", "0", HEMI_ERR_FORMAT, "limbs"},
    {KIND_FUNCTION, "limbs", "6", HEMI_ERR_FORMAT, "limbs"}, /* C8192 has 5 */
    {KIND_FUNCTION, "rows", "3", HEMI_ERR_FORMAT, "rows"},
    {KIND_FUNCTION, "rows", "8192", HEMI_ERR_FORMAT, "rows"},
    {KIND_FUNCTION, "rows", "4294967297", HEMI_ERR_FORMAT, "rows"},
    {KIND_ROWS, "input.period", "2048", HEMI_ERR_FORMAT, "period"}, /* 4096 slots, 4 rows */
    {KIND_FUNCTION, "input.period", "4", HEMI_ERR_FORMAT, "input"},
    {KIND_FUNCTION, "input.period", "12", HEMI_ERR_FORMAT, "input"},
    {KIND_FUNCTION, "output.blocks", "65", HEMI_ERR_FORMAT, "blocks"},
    {KIND_FUNCTION, "output.blocks", "0", HEMI_ERR_FORMAT, "blocks"},
    {KIND_FUNCTION, "input.norm", "0.0", HEMI_ERR_FORMAT, "norm"},
    {KIND_FUNCTION, "input.norm", "-1.0", HEMI_ERR_FORMAT, "norm"},
    {KIND_FUNCTION, "output.scale", "0.5", HEMI_ERR_FORMAT, "scale"},
    {KIND_FUNCTION, "output.scale", "1e19", HEMI_ERR_FORMAT, "scale"},
    {KIND_COPIES, "copies", "3", HEMI_ERR_FORMAT, "copies"},
    {KIND_COPIES, "copies", "8192", HEMI_ERR_FORMAT, "copies"},
    {KIND_COPIES, "copies", "1", HEMI_ERR_FORMAT, "skew"},
    {KIND_COPIES, "stride", "0", HEMI_ERR_FORMAT, "copies"},
    {KIND_COPIES, "stride", "4", HEMI_ERR_FORMAT, "copies"}, /* less than a period */
    {KIND_COPIES, "stride", "2048", HEMI_ERR_FORMAT, "copies"},
    {KIND_COPIES, "skew.0", "8", HEMI_ERR_FORMAT, "skew"}, /* the period */
    {KIND_COPIES, "skew.0", "-2", HEMI_ERR_FORMAT, "skew"},
    {KIND_COPIES, "skew.0", NULL, HEMI_ERR_FORMAT, "copies"},
    {KIND_QUANTISER, "quantiser.step", "0.0", HEMI_ERR_FORMAT, "step"},
    {KIND_QUANTISER, "quantiser.high", "-3.0", HEMI_ERR_FORMAT, "high"},
    {KIND_FUNCTION, "automorphisms", "{}", HEMI_ERR_FORMAT, "automorphisms"},
    {KIND_FUNCTION, "automorphisms", "[5, 3]", HEMI_ERR_FORMAT, "automorphisms"},
    {KIND_FUNCTION, "automorphisms", "[3, 3]", HEMI_ERR_FORMAT, "automorphisms"},
    {KIND_FUNCTION, "automorphisms", "[4]", HEMI_ERR_FORMAT, "automorphisms"},
    {KIND_FUNCTION, "automorphisms", "[16385]", HEMI_ERR_FORMAT, "automorphisms"}, /* 2 N + 1 */
};

static const change server_changes[] = {
    /* what clients were told is not what the circuit gives */
    {KIND_FUNCTION, "limbs", "4", HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_ROWS, "rows", "8", HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_FUNCTION, "input.norm", "1.0", HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_CONV, "output.period", "8", HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_FUNCTION, "output.scale", "1024.0", HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_COPIES, "skew.0", "-1", HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_FUNCTION, "automorphisms.0", NULL, HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_FUNCTION, "set", "\"C16384\"", HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_CONV, "values.1.layout", "0", HEMI_ERR_FORMAT, "compile the module anew"},
    {KIND_FUNCTION, "values.1.layout", "1", HEMI_ERR_FORMAT, "laid out"}, /* of a list of numbers there are no strides */
    {KIND_FUNCTION, "values.1.layout", "2", HEMI_ERR_FORMAT, "layout"},
    {KIND_FUNCTION, "values.0.layout", "1", HEMI_ERR_FORMAT, "layout"},
    {KIND_CONV, "values.3.layout", "1", HEMI_ERR_FORMAT, "layout"}, /* the output lies as clients are told */
    /* values */
    {KIND_FUNCTION, "values", "[]", HEMI_ERR_FORMAT, "values"},
    {KIND_FUNCTION, "values.2", NULL, HEMI_ERR_FORMAT, "kind"},
    {KIND_FUNCTION, "values.0", NULL, HEMI_ERR_FORMAT, "kind"},
    {KIND_FUNCTION, "values.1.kind", "\"affine\"", HEMI_ERR_FORMAT, "kind"},
    {KIND_FUNCTION, "values.1.kind", "\"input\"", HEMI_ERR_FORMAT, "kind"},
    {KIND_FUNCTION, "values.1.kind", "\"product\"", HEMI_ERR_FORMAT, "map_high"},
    {KIND_PRODUCT, "values.1.kind", "\"function\"", HEMI_ERR_FORMAT, "function"},
    {KIND_FUNCTION, "values.1.sides", "[8]", HEMI_ERR_FORMAT, "entries"},
    {KIND_FUNCTION, "values.1.sides", "[1048576, 1048576]", HEMI_ERR_FORMAT, "sides"},
    {KIND_FUNCTION, "values.1.sides", "[1, 1, 1, 1, 1, 1, 1, 1, 7]", HEMI_ERR_FORMAT, "sides"},
    {KIND_FUNCTION, "values.2.sides", "[4]", HEMI_ERR_FORMAT, "entries"},
    {KIND_FUNCTION, "values.0.sides", "[7]", HEMI_ERR_FORMAT, "entries"},
    {KIND_FUNCTION, "values.1.high", "-1e100", HEMI_ERR_FORMAT, "high"},
    {KIND_FUNCTION, "values.1.low", "-1e100", HEMI_ERR_FORMAT, "low"}, /* not the polynomial's */
    {KIND_FUNCTION, "values.1.name", "\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"",
     HEMI_ERR_FORMAT, "name"},
    /* maps */
    {KIND_FUNCTION, "values.1.map.terms", "[]", HEMI_ERR_FORMAT, "terms"},
    {KIND_FUNCTION, "values.1.map.terms.0.source", "1", HEMI_ERR_FORMAT, "source"},
    {KIND_FUNCTION, "values.2.map.terms.0.source", "0", HEMI_ERR_FORMAT, "entries"},
    {KIND_RESIDUAL, "values.2.map.terms.1.source", "0", HEMI_ERR_FORMAT, "source"},
    {KIND_FUNCTION, "values.1.map.terms.0.entries", "41", HEMI_ERR_FORMAT, "entries"},
    {KIND_FUNCTION, "values.1.map.terms.0.entries", "134217729", HEMI_ERR_FORMAT, "entries"},
    {KIND_FUNCTION, "values.1.map.terms.0.dense", "false", HEMI_ERR_FORMAT, "missing"},
    {KIND_CONV, "values.1.map.terms.0.dense", "true", HEMI_ERR_FORMAT, "entries"},
    {KIND_CONV, "values.1.map.terms.0.entries", "3073", HEMI_ERR_FORMAT, "entries"}, /* 48 x 64 is the most */
    {KIND_CONV, "values.1.map.terms.0.entries", "3072", HEMI_ERR_FORMAT, "should be"},
    {KIND_RESIDUAL, "values.2.map.terms.0.entries", "134217728", HEMI_ERR_FORMAT, "entries"},
    {KIND_FUNCTION, "values.1.map.bias", "false", HEMI_ERR_FORMAT, "bias"},
    {KIND_PRODUCT, "values.1.other.bias", "true", HEMI_ERR_FORMAT, "bias"},
    {KIND_PRODUCT, "values.1.map_high", "0", HEMI_ERR_FORMAT, "map_high"},
    /* functions */
    {KIND_FUNCTION, "values.1.degree", "3", HEMI_ERR_FORMAT, "polynomial"},
    {KIND_FUNCTION, "values.1.degree", "256", HEMI_ERR_FORMAT, "degree"},
    {KIND_FUNCTION, "values.1.degree", "0", HEMI_ERR_FORMAT, "degree"},
    {KIND_FUNCTION, "values.1.radius", "0.0", HEMI_ERR_FORMAT, "radius"},
    {KIND_FUNCTION, "values.1.radius", "1.0", HEMI_ERR_FORMAT, "radius"},
    {KIND_FUNCTION, "values.1.function.0.operator", "\"Conv\"", HEMI_ERR_FORMAT, "operator"},
    {KIND_STEPS, "values.1.function.0.of", "1", HEMI_ERR_FORMAT, "of"},
    {KIND_STEPS, "values.1.function.2.with", "3", HEMI_ERR_FORMAT, "with"},
    {KIND_STEPS, "values.1.function.0.parameters", "[1, 0.5, 0]", HEMI_ERR_FORMAT, "parameters"},
    {KIND_STEPS, "values.1.function.0.parameters.1", "\"0.5\"", HEMI_ERR_FORMAT, "parameters"},
    {KIND_FUNCTION, "approximation_error", "-1.0", HEMI_ERR_FORMAT, "approximation_error"},
    {KIND_FUNCTION, "predicted_error", "-1.0", HEMI_ERR_FORMAT, "predicted_error"},
    {KIND_FUNCTION, "output_max", NULL, HEMI_ERR_FORMAT, "output_max"},
};

static void check_changes(bool server, const change *changes, size_t count) {
    parts all[KINDS];
    size_t wrong = 0;
    for (kind k = 0; k < KINDS; k++) all[k] = parts_of(k);
    for (size_t i = 0; i < count; i++) {
        const change *c = &changes[i];
        hemi_status status;
        json_t *j = json_deep_copy(server ? all[c->k].server : all[c->k].client);
        set_at(j, c->path, c->value);
        hemi_module_free(open_changed(&all[c->k], server, j, &status));
        if (status != c->status || !strstr(fixture_error.message, c->text)) {
            print_error("%s, %s = %s: %s (%s)\n", kind_names[c->k], c->path, c->value, hemi_status_name(status), fixture_error.message);
            wrong++;
        }
        json_decref(j);
    }
    for (kind k = 0; k < KINDS; k++) parts_clear(&all[k]);
    assert_int_equal(wrong, 0);
}

static void what_clients_read_is_checked(void **state) {
    (void)state;
    check_changes(false, client_changes, TEST_COUNT(client_changes));
}

/* server.json holds all of the client's fields too. */
static void what_servers_read_is_checked(void **state) {
    (void)state;
    check_changes(true, client_changes, TEST_COUNT(client_changes));
    check_changes(true, server_changes, TEST_COUNT(server_changes));
}

/* ---- every field, of every wrong kind */

/* What is right all the same: shapes of as many numbers; names; functions of fewer steps; fewer keys, as far as a client can tell. */
static bool is_free(const char *path, const char *value, bool server) {
    const char *name = strrchr(path, '.') ? strrchr(path, '.') + 1 : path;
    if (!value && strcmp(path, "quantiser") == 0) return true;
    if (!value && strstr(path, "_shape.")) return true; /* sides of 1 */
    if (strcmp(name, "name") == 0) return value && value[0] == '"';
    if (strcmp(name, "by_rows") == 0) return value && strcmp(value, "true") == 0;
    if (strcmp(name, "function") == 0) return value && strcmp(value, "[]") == 0;
    if (strstr(path, ".function.") && strspn(name, "0123456789") == strlen(name)) return !value && !strstr(path, "parameters");
    return !server && strncmp(path, "automorphisms", 13) == 0 && (!value || strcmp(value, "[]") == 0);
}

static size_t spoil(const parts *p, bool server, json_t *root, const char *path) {
    static const char *const values[] = {NULL, "null", "\"\"", "\"\\u00e9\"", "true", "{}", "[]", "1e300", "-1e300", "9223372036854775807", "0.5"};
    size_t tried = 0;
    for (size_t i = 0; i < TEST_COUNT(values); i++) {
        json_t *j = json_deep_copy(root), *old = json_deep_copy(root);
        hemi_status status;
        const bool real = set_at(j, path, values[i]), number = real && values[i] && strspn(values[i], "0123456789.") == strlen(values[i]);
        hemi_module *m = open_changed(p, server, j, &status);
        /* a real number may be another, wherever it does not follow from others */
        if (m && !json_equal(j, old) && !number && !is_free(path, values[i], server)) fail_msg("%s = %s is taken", path, values[i] ? values[i] : "nothing");
        if (!m && fixture_error.message[0] == 0) fail_msg("%s = %s: nothing said", path, values[i]);
        if (!m && status != HEMI_ERR_FORMAT && status != HEMI_ERR_VERSION && status != HEMI_ERR_PARAMS && status != HEMI_ERR_UNSUPPORTED)
            fail_msg("%s = %s: %s", path, values[i], hemi_status_name(status));
        hemi_module_free(m);
        json_decref(j);
        json_decref(old);
        tried++;
    }
    return tried;
}

static size_t spoil_below(const parts *p, bool server, json_t *root, json_t *at, const char *path) {
    size_t tried = path[0] ? spoil(p, server, root, path) : 0;
    const size_t count = json_is_array(at) ? json_array_size(at) : json_is_object(at) ? json_object_size(at) : 0;
    void *next = json_object_iter(at);
    for (size_t i = 0; i < count && i < 16; i++) {
        char below[160];
        if (json_is_array(at))
            (void)snprintf(below, sizeof below, "%s.%zu", path, i);
        else
            (void)snprintf(below, sizeof below, "%s%s%s", path, path[0] ? "." : "", json_object_iter_key(next));
        tried += spoil_below(p, server, root, json_is_array(at) ? json_array_get(at, i) : json_object_iter_value(next), below);
        if (json_is_object(at)) next = json_object_iter_next(at, next);
    }
    return tried;
}

static void every_field_is_checked(void **state) {
    (void)state;
    size_t tried = 0;
    for (kind k = 0; k < KINDS; k++) {
        parts p = parts_of(k);
        tried += spoil_below(&p, false, p.client, p.client, "");
        tried += spoil_below(&p, true, p.server, p.server, "");
        parts_clear(&p);
    }
    print_message("%zu descriptions\n", tried);
}

/* ---- weights.safetensors */

typedef struct tensors {
    hemi_tensor t[HEMI_SAFETENSORS_COUNT_MAX];
    size_t count;
    uint8_t *copy; /* t's data points into it */
} tensors;

static tensors tensors_of(const parts *p) {
    tensors f = {.copy = malloc(p->bytes)};
    assert_non_null(f.copy);
    memcpy(f.copy, p->tensors, p->bytes);
    ASSERT_OK(hemi_safetensors_read(f.t, &f.count, f.copy, p->bytes, ERR));
    return f;
}

static hemi_tensor *named(tensors *f, const char *name) {
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->t[i].name, name) == 0) return &f->t[i];
    fail_msg("there is no tensor %s", name);
    return NULL;
}

static void *numbers(tensors *f, const char *name) { return (void *)(uintptr_t)named(f, name)->data; }

/* Writes them and opens what that gives; frees them. */
static void refused(const parts *p, tensors *f, const char *text) {
    uint8_t *bytes = NULL;
    size_t length = 0;
    hemi_status status;
    ASSERT_OK(hemi_safetensors_write(&bytes, &length, f->t, f->count, ERR));
    hemi_module *m = open_server(p, p->server, bytes, length, &status);
    assert_int_equal(status, text ? HEMI_ERR_FORMAT : HEMI_OK);
    if (text && !strstr(fixture_error.message, text)) fail_msg("no '%s' in: %s", text, fixture_error.message);
    hemi_module_free(m);
    hemi_free(bytes);
    free(f->copy);
}

static void shapes_of_tensors(void **state) {
    (void)state;
    static const char *const names[] = {"bias", "column", "polynomial", "start", "weight"};
    parts p = parts_of(KIND_RESIDUAL); /* has all five */
    tensors f = tensors_of(&p);
    assert_int_equal(f.count, TEST_COUNT(names));
    refused(&p, &f, NULL);
    for (size_t i = 0; i < TEST_COUNT(names); i++) {
        f = tensors_of(&p); /* missing */
        *named(&f, names[i]) = f.t[f.count - 1];
        f.count--;
        refused(&p, &f, "is missing");
        f = tensors_of(&p); /* of another type, of the same width */
        strcpy(named(&f, names[i])->dtype, named(&f, names[i])->dtype[1] == '6' ? "I64" : "I32");
        refused(&p, &f, names[i]);
        f = tensors_of(&p); /* of another rank */
        hemi_tensor *t = named(&f, names[i]);
        t->rank = 2;
        t->dims[1] = 1;
        refused(&p, &f, names[i]);
        f = tensors_of(&p); /* one number less */
        t = named(&f, names[i]);
        t->bytes -= t->bytes / t->dims[0];
        t->dims[0]--;
        refused(&p, &f, names[i]);
        f = tensors_of(&p); /* twice as many, none the less in the file */
        t = named(&f, names[i]);
        uint8_t *twice = calloc(2, t->bytes);
        t->data = twice;
        t->bytes *= 2;
        t->dims[0] *= 2;
        refused(&p, &f, names[i]);
        free(twice);
    }
    f = tensors_of(&p);
    f.t[f.count] = f.t[0];
    strcpy(f.t[f.count++].name, "more");
    refused(&p, &f, "does not belong");
    parts_clear(&p);
    p = parts_of(KIND_FUNCTION); /* has no patterns */
    f = tensors_of(&p);
    assert_int_equal(f.count, 3);
    f.t[f.count] = *named(&f, "weight");
    strcpy(f.t[f.count].dtype, "U32");
    strcpy(f.t[f.count++].name, "start");
    refused(&p, &f, "does not belong");
    for (size_t n = 0; n < p.bytes; n += n < 64 ? 1 : 97) { /* cut */
        hemi_status status;
        assert_null(open_server(&p, p.server, p.tensors, n, &status));
        assert_int_equal(status, HEMI_ERR_FORMAT);
    }
    parts_clear(&p);
}

/* These tests are for little-endian machines, as others are. */
static void numbers_of_tensors(void **state) {
    (void)state;
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    parts p = parts_of(KIND_RESIDUAL);
    tensors f;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        f = tensors_of(&p);
        ((float *)numbers(&f, "weight"))[11] = (float)bad[i];
        refused(&p, &f, "not a number");
        f = tensors_of(&p);
        memcpy((uint8_t *)numbers(&f, "bias") + 8, &bad[i], 8);
        refused(&p, &f, "not a number");
        f = tensors_of(&p);
        memcpy((uint8_t *)numbers(&f, "polynomial") + 8, &bad[i], 8);
        refused(&p, &f, "not a number");
    }
    f = tensors_of(&p); /* the identity: columns 0 to 5, starts 1 to 6 */
    ((uint32_t *)numbers(&f, "column"))[2] = 6;
    refused(&p, &f, "columns");
    f = tensors_of(&p);
    ((uint32_t *)numbers(&f, "column"))[2] = UINT32_MAX;
    refused(&p, &f, "columns");
    f = tensors_of(&p);
    ((uint32_t *)numbers(&f, "start"))[2] = 1; /* decreases */
    refused(&p, &f, "rows");
    f = tensors_of(&p);
    ((uint32_t *)numbers(&f, "start"))[2] = 7; /* more than there are */
    refused(&p, &f, "rows");
    f = tensors_of(&p);
    ((uint32_t *)numbers(&f, "start"))[5] = 5; /* not all of them */
    refused(&p, &f, "rows");
    f = tensors_of(&p);
    ((uint32_t *)numbers(&f, "start"))[1] = 3; /* columns 1 and 2 in one row: in order, but another pattern, and so another plan */
    refused(&p, &f, NULL);
    f = tensors_of(&p);
    ((uint32_t *)numbers(&f, "start"))[1] = 3;
    ((uint32_t *)numbers(&f, "column"))[1] = 2; /* twice the same */
    refused(&p, &f, "columns");
    f = tensors_of(&p);
    ((uint32_t *)numbers(&f, "column"))[0] = 5; /* another diagonal */
    refused(&p, &f, "compile the module anew");
    parts_clear(&p);
}

/* ---- what cannot be compiled */

static void options_that_do_not_fit(void **state) {
    (void)state;
    static const struct {
        hemi_compile_options o;
        hemi_status status;
        const char *text;
    } cases[] = {
        {{.rows = 3}, HEMI_ERR_ARGUMENT, "power of two"},
        {{.rows = 65536}, HEMI_ERR_ARGUMENT, "32768"},
        {{.rows = 8192, .set = "C8192"}, HEMI_ERR_UNSUPPORTED, "8192 rows"},  /* 4096 slots */
        {{.rows = 4096, .set = "C8192"}, HEMI_ERR_UNSUPPORTED, "4096 rows"},  /* a slot for each: not 7 numbers */
        {{.rows = 1024, .set = "C8192"}, HEMI_ERR_UNSUPPORTED, "1024 rows"},
        {{.set = "L4096"}, HEMI_ERR_PARAMS, "C16384"},
        {{.set = "none"}, HEMI_ERR_PARAMS, "none"},
        {{.tolerance = -1}, HEMI_ERR_ARGUMENT, "tolerance"},
        {{.range_margin = 0.5}, HEMI_ERR_ARGUMENT, "margin"},
        {{.degree_max = 128}, HEMI_ERR_ARGUMENT, "127"},
        {{.input_bits = 17}, HEMI_ERR_ARGUMENT, "input_bits"},
    };
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        test_rng rng = {1};
        hemi_compile_options none = {0};
        hemi_circuit *c = kind_circuit(KIND_FUNCTION, &none, &rng);
        float *x = test_samples(KIND_SAMPLES, 6, &rng);
        hemi_module *m = NULL;
        ASSERT_FAILS(cases[i].status, cases[i].text,
                     hemi_module_from_circuit(&m, c, x, (const uint32_t[]){KIND_SAMPLES, 6}, 2, &cases[i].o, ERR));
        assert_null(m);
        hemi_free(x);
    }
}

/* What no server would read is not written. */
static void too_large_to_be_written(void **state) {
    (void)state;
    test_rng rng = {1};
    char folder[256];
    hemi_function f = {HEMI_FUNCTION_STEPS_MAX, {{HEMI_FUNCTION_AFFINE, 0, 0, {1, 0.1}}}};
    for (unsigned i = 1; i < HEMI_FUNCTION_STEPS_MAX; i++) f.step[i] = (hemi_function_step){HEMI_FUNCTION_AFFINE, i, 0, {1.01, 0.1}};
    hemi_circuit *c = test_circuit_new(2);
    for (size_t i = 0; i < HEMI_CIRCUIT_VALUES_MAX - 2; i++) (void)test_circuit_function(c, 0, 1, f, 1, "Add", &rng);
    test_circuit_output(c, 1, 1, &rng);
    float *x = test_samples(KIND_SAMPLES, 2, &rng);
    hemi_module *m = NULL;
    ASSERT_OK(hemi_module_from_circuit(&m, c, x, (const uint32_t[]){KIND_SAMPLES, 2}, 2, &(hemi_compile_options){.rows = 1}, ERR));
    test_folder_new(folder);
    ASSERT_FAILS(HEMI_ERR_TOO_LARGE, "several remote modules", hemi_module_save(m, folder, ERR));
    ASSERT_FAILS(HEMI_ERR_NOT_FOUND, "server.zip", hemi_module_open(&(hemi_module *){NULL}, folder, true, ERR));
    test_folder_remove(folder);
    hemi_module_free(m);
    hemi_free(x);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(modules_come_back),    cmocka_unit_test(no_weight_for_the_client), cmocka_unit_test(what_clients_read_is_checked),
        cmocka_unit_test(what_servers_read_is_checked), cmocka_unit_test(every_field_is_checked), cmocka_unit_test(shapes_of_tensors),
        cmocka_unit_test(numbers_of_tensors),   cmocka_unit_test(options_that_do_not_fit),
        cmocka_unit_test(too_large_to_be_written),
    };
    return TEST_RUN("files of circuits", tests);
}
