/* A module's files: what is written is read back; what is damaged, hostile or of another release is refused, with the right
 * status. The formats inside are in test_formats.c. */
#include <jansson.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/archive.h"
#include "model/description.h"
#include "model/module.h"
#include "model/safetensors.h"
#include "test.h"

#define INPUTS  6
#define OUTPUTS 40 /* with S = 1024: key switching */

static float weight[OUTPUTS * INPUTS], bias[OUTPUTS], calibration[4 * INPUTS];

static hemi_module *new_module(bool with_bias, uint32_t layout) {
    test_rng rng = {77};
    for (size_t i = 0; i < TEST_COUNT(weight); i++) weight[i] = (float)test_normal(&rng);
    for (size_t i = 0; i < TEST_COUNT(bias); i++) bias[i] = (float)test_normal(&rng);
    for (size_t i = 0; i < TEST_COUNT(calibration); i++) calibration[i] = (float)test_normal(&rng);
    const uint32_t shape[] = {4, INPUTS};
    const hemi_compile_options options = {.weight_bits = 8, .layout = layout};
    hemi_module *m = NULL;
    hemi_error err = {0};
    assert_ok(hemi_module_from_linear(&m, weight, with_bias ? bias : NULL, OUTPUTS, INPUTS, calibration, shape, 2,
                                      &options, &err),
              &err);
    return m;
}

static char *path_in(const char *folder, const char *name) {
    char *path = hemi_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static void write_file(const char *folder, const char *name, const void *data, size_t bytes) {
    char *path = path_in(folder, name);
    hemi_error err = {0};
    assert_ok(hemi_file_write(path, data, bytes, 0600, &err), &err);
    hemi_free(path);
}

static uint8_t *read_file(const char *folder, const char *name, size_t *bytes) {
    char *path = path_in(folder, name);
    uint8_t *data = NULL;
    hemi_error err = {0};
    assert_ok(hemi_file_read(&data, bytes, path, (size_t)1 << 30, &err), &err);
    hemi_free(path);
    return data;
}

static void same_info(const hemi_module_info *a, const hemi_module_info *b, bool server) {
    assert_string_equal(a->operation, b->operation);
    assert_memory_equal(a->id, b->id, sizeof a->id);
    assert_ptr_equal(a->params, b->params);
    assert_true(a->inputs == b->inputs && a->outputs == b->outputs && a->layout == b->layout &&
                a->products == b->products);
    assert_int_equal(a->shape_rank, b->shape_rank);
    assert_memory_equal(a->shape, b->shape, a->shape_rank * sizeof *a->shape);
    assert_true(a->weight_bits == b->weight_bits && a->input_bits == b->input_bits && a->b_bits == b->b_bits);
    assert_true(a->reply_a_bits == b->reply_a_bits && a->reply_b_bits == b->reply_b_bits && a->has_bias == b->has_bias);
    assert_true(a->input_scale == b->input_scale && a->output_scale == b->output_scale && a->delta == b->delta);
    assert_true(a->automorphisms == b->automorphisms && a->evaluation_key_bytes == b->evaluation_key_bytes);
    assert_true(a->upload_bytes == b->upload_bytes && a->download_bytes == b->download_bytes &&
                a->reply_ring == b->reply_ring);
    if (server) assert_true(a->predicted_error == b->predicted_error && a->output_max == b->output_max);
}

/* ---- round trips */

static void modules_come_back(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        char folder[256];
        test_folder_new(folder);
        char *inner = path_in(folder, "a/b");
        hemi_module *m = new_module(kind & 1, kind & 2 ? 1024 : 0), *server = NULL, *client = NULL, *json = NULL;
        hemi_error err = {0};
        for (int twice = 0; twice < 2; twice++) assert_ok(hemi_module_save(m, inner, &err), &err);
        assert_ok(hemi_module_open(&server, inner, true, &err), &err);
        assert_ok(hemi_module_open(&client, inner, false, &err), &err);
        same_info(&server->info, &m->info, true);
        same_info(&client->info, &m->info, false);
        assert_true(server->info.has_weights && !client->info.has_weights && client->weights == NULL &&
                    client->bias == NULL);
        assert_true(client->info.predicted_error == 0 && client->info.output_max == 0);
        assert_memory_equal(server->weights, m->weights, OUTPUTS * INPUTS * sizeof *m->weights);
        assert_int_equal(server->weight_max, m->weight_max);
        if (kind & 1) assert_memory_equal(server->bias, m->bias, OUTPUTS * sizeof *m->bias);
        assert_string_equal(hemi_module_client_json(server), hemi_module_client_json(m));
        assert_string_equal(hemi_module_client_json(client), hemi_module_client_json(m));
        const char *text = hemi_module_client_json(m);
        assert_ok(hemi_module_from_client_json(&json, text, strlen(text), &err), &err);
        same_info(&json->info, &m->info, false);
        assert_string_equal(hemi_module_client_json(json), text);
        float y[OUTPUTS], z[OUTPUTS];
        assert_ok(hemi_module_run_clear(m, calibration, 1, y, false, &err), &err);
        assert_ok(hemi_module_run_clear(server, calibration, 1, z, false, &err), &err);
        assert_memory_equal(y, z, sizeof y);
        assert_status(hemi_module_run_clear(client, calibration, 1, z, false, &err), HEMI_ERR_STATE);
        hemi_module_free(m);
        hemi_module_free(server);
        hemi_module_free(client);
        hemi_module_free(json);
        hemi_free(inner);
        test_folder_remove(folder);
    }
}

static void folders_are_found(void **state) {
    (void)state;
    char folder[256];
    test_folder_new(folder);
    hemi_module *m = new_module(true, 0), *read = NULL;
    hemi_error err = {0};
    char *one = path_in(folder, "po_1_6_pc"), *two = path_in(folder, "po_1_2_6_pc"), *other = path_in(folder, "empty"),
         *none = path_in(folder, "none");
    assert_status(hemi_module_open(&read, folder, true, &err), HEMI_ERR_NOT_FOUND);
    assert_status(hemi_module_open(&read, none, true, &err), HEMI_ERR_NOT_FOUND);
    assert_ok(hemi_folder_create(other, &err), &err);
    assert_ok(hemi_module_save(m, one, &err), &err);
    assert_ok(hemi_module_open(&read, folder, true, &err), &err); /* the only one */
    hemi_module_free(read);
    assert_ok(hemi_module_open(&read, folder, false, &err), &err);
    assert_ok(hemi_module_save(read, two, &err), &err); /* of the client's, there is no server.zip */
    hemi_module_free(read);
    assert_ok(hemi_module_open(&read, folder, true, &err), &err);
    hemi_module_free(read);
    assert_status(hemi_module_open(&read, folder, false, &err), HEMI_ERR_NOT_FOUND); /* two */
    assert_null(read);
    assert_non_null(strstr(err.message, "2 compiled shapes"));
    assert_status(hemi_module_open(&read, two, true, &err), HEMI_ERR_NOT_FOUND);
    struct stat info;
    char *path = path_in(one, "server.zip");
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    hemi_free(path);
    hemi_free(one);
    hemi_free(two);
    hemi_free(other);
    hemi_free(none);
    hemi_module_free(m);
    test_folder_remove(folder);
}

static bool contains(const uint8_t *data, size_t bytes, const void *what, size_t length) {
    for (size_t i = 0; i + length <= bytes; i++)
        if (memcmp(data + i, what, length) == 0) return true;
    return false;
}

/* Nothing of the weights in client.zip: not as any number type that they pass through, not as text, not their largest. */
static void no_private_weight_for_the_client(void **state) {
    (void)state;
    char folder[256];
    test_folder_new(folder);
    hemi_module *m = new_module(true, 0);
    hemi_error err = {0};
    size_t bytes = 0, text_bytes = 0;
    assert_ok(hemi_module_save(m, folder, &err), &err);
    uint8_t *zip = read_file(folder, "client.zip", &bytes);
    hemi_archive_entry entry = {.name = "client.json", .max_bytes = 65536};
    assert_ok(hemi_archive_read(&entry, 1, zip, bytes, &err), &err);
    text_bytes = entry.bytes;
    for (size_t i = 0; i < TEST_COUNT(weight) + TEST_COUNT(bias); i++) {
        const float f = i < TEST_COUNT(weight) ? weight[i] : bias[i - TEST_COUNT(weight)];
        const double d = (double)f;
        char text[32];
        (void)snprintf(text, sizeof text, "%.4f", fabs(d));
        assert_false(contains(zip, bytes, &f, sizeof f));
        assert_false(contains(zip, bytes, &d, sizeof d));
        assert_false(contains(zip, bytes, text, strlen(text)));
    }
    for (size_t i = 0; i + 4 <= TEST_COUNT(weight); i++)
        assert_false(contains(zip, bytes, m->weights + i, 4 * sizeof *m->weights));
    /* no number of the description is a simple function of one weight */
    json_t *j = json_loadb((const char *)entry.data, text_bytes, 0, NULL);
    const double in = json_real_value(json_object_get(j, "input_scale")),
                 out = json_real_value(json_object_get(j, "output_scale"));
    for (size_t i = 0; i < TEST_COUNT(weight); i++)
        for (int bits = 2; bits <= 16; bits++)
            assert_true(fabs(fabs((double)weight[i]) / ((1 << (bits - 1)) - 1) / (out / in) - 1) > 1e-7);
    assert_null(json_object_get(j, "predicted_error"));
    assert_null(json_object_get(j, "output_max"));
    static const char *const names[] = {"format",       "version",      "operation",   "module_id",    "set",
                                        "inputs",       "outputs",      "input_shape", "layout",       "b_bits",
                                        "reply_a_bits", "reply_b_bits", "weight_bits", "input_bits",   "input_scale",
                                        "output_scale", "delta",        "bias",        "automorphisms",
                                        "output_shape", "packed"};
    assert_int_equal(json_object_size(j), TEST_COUNT(names));
    for (size_t i = 0; i < TEST_COUNT(names); i++) assert_non_null(json_object_get(j, names[i]));
    json_decref(j);
    hemi_free(entry.data);
    hemi_free(zip);
    hemi_module_free(m);
    test_folder_remove(folder);
}

/* ---- client.json and server.json */

typedef struct change {
    const char *name;  /* of a field; NULL: the whole text is `value` */
    const char *value; /* JSON; NULL: the field is removed */
    hemi_status status;
} change;

static const change bad_fields[] = {
    {NULL, "", HEMI_ERR_FORMAT},
    {NULL, "{", HEMI_ERR_FORMAT},
    {NULL, "[]", HEMI_ERR_FORMAT},
    {NULL, "null", HEMI_ERR_FORMAT},
    {NULL, "{}", HEMI_ERR_FORMAT},
    {NULL, "{\"format\": \"hemi-module\", \"format\": \"hemi-module\"}", HEMI_ERR_FORMAT},
    {NULL, "{\"format\": \"hemi-module\", \"version\": 3}", HEMI_ERR_VERSION},
    {NULL, "\xff\xfe{}", HEMI_ERR_FORMAT},
    {"format", "\"hemi\"", HEMI_ERR_FORMAT},
    {"format", "1", HEMI_ERR_FORMAT},
    {"format", NULL, HEMI_ERR_FORMAT},
    {"version", "1", HEMI_ERR_VERSION},
    {"version", "3", HEMI_ERR_VERSION},
    {"version", "0", HEMI_ERR_VERSION},
    {"version", "1.0", HEMI_ERR_FORMAT},
    {"version", "\"1\"", HEMI_ERR_FORMAT},
    {"version", NULL, HEMI_ERR_FORMAT},
    {"operation", "\"conv2d\"", HEMI_ERR_UNSUPPORTED},
    {"operation", "7", HEMI_ERR_FORMAT},
    {"set", "\"L1024\"", HEMI_ERR_PARAMS},
    {"set", "\"\"", HEMI_ERR_PARAMS},
    {"set", "\"R2048\"", HEMI_ERR_PARAMS},
    {"set", "\"C16384\"", HEMI_ERR_PARAMS},
    {"set", "\"L2048\"", HEMI_ERR_FORMAT},
    {"set", "1", HEMI_ERR_FORMAT},
    {"module_id", "\"00\"", HEMI_ERR_FORMAT},
    {"module_id", "\"0123456789ABCDEF0123456789abcdef\"", HEMI_ERR_FORMAT},
    {"module_id", "\"0123456789abcdef0123456789abcdeg\"", HEMI_ERR_FORMAT},
    {"module_id", "\"0123456789abcdef0123456789abcdef0\"", HEMI_ERR_FORMAT},
    {"inputs", "0", HEMI_ERR_FORMAT},
    {"inputs", "-6", HEMI_ERR_FORMAT},
    {"inputs", "4097", HEMI_ERR_FORMAT},
    {"inputs", "4294967302", HEMI_ERR_FORMAT},
    {"inputs", "7", HEMI_ERR_FORMAT},
    {"inputs", "6.0", HEMI_ERR_FORMAT},
    {"outputs", "0", HEMI_ERR_FORMAT},
    {"outputs", "4097", HEMI_ERR_FORMAT},
    {"outputs", "18446744073709551656", HEMI_ERR_FORMAT},
    {"input_shape", "[1]", HEMI_ERR_FORMAT},
    {"input_shape", "[2, 6]", HEMI_ERR_FORMAT},
    {"input_shape", "[1, 7]", HEMI_ERR_FORMAT},
    {"input_shape", "[1, 0, 6]", HEMI_ERR_FORMAT},
    {"input_shape", "[1, -1, 6]", HEMI_ERR_FORMAT},
    {"input_shape", "[1, 1, 1, 1, 1, 1, 1, 1, 6]", HEMI_ERR_FORMAT},
    {"input_shape", "\"1, 6\"", HEMI_ERR_FORMAT},
    {"layout", "1024", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": []}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1000, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [16]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 8192, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [16]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 4, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [1]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 3, \"fan\": 4, \"rows\": 1, \"groups\": [16]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [4]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [16, 16]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [16, 8, 4]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [2048]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 3, \"rows\": 1, \"groups\": [16]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 8, \"rows\": 1, \"groups\": [16]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 1, \"rows\": 2, \"groups\": [64]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 0, \"rows\": 1, \"groups\": [16]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 0, \"groups\": [16]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [{\"k\": 16}]}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": 16}", HEMI_ERR_FORMAT},
    {"layout", "{\"s\": 1024, \"babies\": 1, \"tile_y\": 1, \"tile_x\": 1, \"groups\": [16]}", HEMI_ERR_FORMAT},
    {"packed", "1", HEMI_ERR_FORMAT},
    {"packed", "null", HEMI_ERR_FORMAT},
    {"packed", "{\"s\": 1024, \"babies\": 1, \"fan\": 1, \"rows\": 1, \"groups\": [64]}", HEMI_ERR_FORMAT},
    {"packed", "{\"s\": 1024, \"babies\": 1, \"fan\": 1, \"rows\": 5, \"groups\": [64]}", HEMI_ERR_FORMAT},
    {"packed", "{\"s\": 1024, \"babies\": 1, \"fan\": 1, \"rows\": 4294967300, \"groups\": [64]}", HEMI_ERR_FORMAT},
    {"output_shape", "[1]", HEMI_ERR_FORMAT},
    {"output_shape", "[1, 6]", HEMI_ERR_FORMAT},
    {"output_shape", "[1, 1, 40]", HEMI_ERR_FORMAT},
    {"output_shape", NULL, HEMI_ERR_FORMAT},
    {"operation", "\"conv\"", HEMI_ERR_FORMAT},
    {"operation", "\"convolution\"", HEMI_ERR_UNSUPPORTED},
    {"b_bits", "7", HEMI_ERR_FORMAT},
    {"b_bits", "49", HEMI_ERR_FORMAT},
    {"b_bits", "4294967328", HEMI_ERR_FORMAT},
    {"reply_a_bits", "0", HEMI_ERR_FORMAT},
    {"reply_a_bits", "64", HEMI_ERR_FORMAT},
    {"reply_a_bits", "47", HEMI_ERR_FORMAT}, /* q has 48, the ring of replies 46 */
    {"reply_b_bits", "47", HEMI_ERR_FORMAT},
    {"reply_ring", "0", HEMI_ERR_FORMAT},
    {"reply_ring", "1024", HEMI_ERR_FORMAT},
    {"reply_ring", "4096", HEMI_ERR_FORMAT},
    {"reply_ring", "4294969344", HEMI_ERR_FORMAT},
    {"reply_ring", "-2048", HEMI_ERR_FORMAT},
    {"reply_ring", "2048.0", HEMI_ERR_FORMAT},
    {"reply_ring", "\"2048\"", HEMI_ERR_FORMAT},
    {"reply_ring", "null", HEMI_ERR_FORMAT},
    {"reply_ring", NULL, HEMI_ERR_FORMAT}, /* the list of keys has the ring switch */
    {"reply_b_bits", "-1", HEMI_ERR_FORMAT},
    {"reply_b_bits", "\"21\"", HEMI_ERR_FORMAT},
    {"weight_bits", "1", HEMI_ERR_FORMAT},
    {"weight_bits", "17", HEMI_ERR_FORMAT},
    {"input_bits", "0", HEMI_ERR_FORMAT},
    {"input_bits", "33", HEMI_ERR_FORMAT},
    {"input_scale", "0", HEMI_ERR_FORMAT},
    {"input_scale", "-1.0", HEMI_ERR_FORMAT},
    {"input_scale", "1e300", HEMI_ERR_FORMAT},
    {"input_scale", "1e999", HEMI_ERR_FORMAT},
    {"input_scale", "null", HEMI_ERR_FORMAT},
    {"output_scale", "1e-300", HEMI_ERR_FORMAT},
    {"output_scale", "\"NaN\"", HEMI_ERR_FORMAT},
    {"output_scale", "NaN", HEMI_ERR_FORMAT},
    {"delta", "0", HEMI_ERR_FORMAT},
    {"delta", "281474976710655", HEMI_ERR_FORMAT},
    {"delta", "1e9", HEMI_ERR_FORMAT},
    {"delta", "-1024", HEMI_ERR_FORMAT},
    {"bias", "1", HEMI_ERR_FORMAT},
    {"bias", "null", HEMI_ERR_FORMAT},
    {"automorphisms", "[]", HEMI_ERR_FORMAT},
    {"automorphisms", "[3, 5, 9, 17, 33, 65, 129, 257, 513, 1025, 2049, 4097]", HEMI_ERR_FORMAT},
    {"automorphisms", "[0]", HEMI_ERR_FORMAT},
    {"automorphisms", "{}", HEMI_ERR_FORMAT},
};

/* The text of a description after a change, or NULL where the change cannot be written as JSON. */
static char *changed(const char *text, const change *c) {
    if (c->name == NULL) return strdup(c->value);
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    json_t *value = c->value != NULL ? json_loads(c->value, JSON_DECODE_ANY, NULL) : NULL;
    assert_non_null(json_object_get(j, c->name));
    char *out = NULL;
    if (c->value == NULL || value != NULL) {
        if (value != NULL)
            json_object_set_new(j, c->name, value);
        else
            json_object_del(j, c->name);
        out = json_dumps(j, JSON_REAL_PRECISION(17));
    } else { /* not JSON: put in as text */
        json_object_set_new(j, c->name, json_string("@@"));
        char *marked = json_dumps(j, 0), *at = strstr(marked, "\"@@\"");
        out = calloc(strlen(marked) + strlen(c->value) + 1, 1);
        memcpy(out, marked, (size_t)(at - marked));
        strcat(out, c->value);
        strcat(out, at + 4);
        free(marked);
    }
    json_decref(j);
    return out;
}

/* A description as it was before there were rings of replies: neither the field nor its key. */
static void replies_may_stay(const hemi_module *m) {
    hemi_module *read = NULL;
    hemi_error err = {0};
    json_t *j = json_loads(hemi_module_client_json(m), 0, NULL), *list = json_object_get(j, "automorphisms");
    assert_int_equal(m->info.reply_ring, 2048);
    assert_int_equal(json_integer_value(json_object_get(j, "reply_ring")), 2048);
    assert_int_equal(json_array_size(list), m->info.automorphisms + 1);
    assert_int_equal(json_integer_value(json_array_get(list, 0)), 1);
    json_object_del(j, "reply_ring");
    json_array_remove(list, 0);
    char *text = json_dumps(j, JSON_REAL_PRECISION(17));
    assert_ok(hemi_module_from_client_json(&read, text, strlen(text), &err), &err);
    assert_int_equal(read->info.reply_ring, 0);
    assert_int_equal(read->info.automorphisms, m->info.automorphisms);
    assert_int_equal(read->info.download_bytes - m->info.download_bytes, 2048u * m->info.reply_a_bits / 8);
    assert_int_equal(m->info.evaluation_key_bytes - read->info.evaluation_key_bytes, 40 + 4 * 2048 * 46 / 8);
    hemi_module_free(read);
    free(text);
    /* outputs at every coefficient stay, whatever the file says */
    json_object_set_new(j, "reply_ring", json_integer(2048));
    json_object_set_new(j, "outputs", json_integer(4096));
    json_object_set_new(j, "layout", json_loads("{\"s\": 1024, \"babies\": 1, \"fan\": 4, \"rows\": 1, \"groups\": [1024]}", 0, NULL));
    json_object_set_new(j, "output_shape", json_loads("[1, 4096]", 0, NULL));
    json_object_del(j, "packed");
    text = json_dumps(j, JSON_REAL_PRECISION(17));
    assert_status(hemi_module_from_client_json(&read, text, strlen(text), &err), HEMI_ERR_FORMAT);
    assert_non_null(strstr(err.message, "reply_ring"));
    free(text);
    json_decref(j);
}

static void descriptions_are_checked(void **state) {
    (void)state;
    hemi_module *m = new_module(false, 1024), *read = NULL;
    assert_true(m->info.automorphisms > 0);
    hemi_error err = {0};
    char *server = NULL;
    assert_ok(hemi_description_write(&server, m, HEMI_SERVER_DESCRIPTION, &err), &err);
    for (size_t i = 0; i < TEST_COUNT(bad_fields); i++) {
        for (int kind = 0; kind < 2; kind++) {
            char *text = changed(kind == 0 ? hemi_module_client_json(m) : server, &bad_fields[i]);
            hemi_status status;
            err = (hemi_error){0};
            if (kind == 0) {
                status = hemi_module_from_client_json(&read, text, strlen(text), &err);
                if (read != NULL) fail_msg("case %zu (%s = %s) is taken", i, bad_fields[i].name, bad_fields[i].value);
            } else {
                hemi_module *into = hemi_alloc(1, sizeof *into);
                status = hemi_description_read(into, text, strlen(text), HEMI_SERVER_DESCRIPTION, &err);
                hemi_free(into);
            }
            const bool other_kind = kind == 1 && bad_fields[i].name == NULL; /* they say "hemi-module" */
            if (status != bad_fields[i].status && !(other_kind && status == HEMI_ERR_FORMAT))
                fail_msg("case %zu (%s = %s): %s", i, bad_fields[i].name, bad_fields[i].value,
                         hemi_status_name(status));
            assert_true(err.message[0] != '\0');
            free(text);
        }
    }
    static const change bad_server[] = {{"predicted_error", "-1", HEMI_ERR_FORMAT},
                                        {"predicted_error", NULL, HEMI_ERR_FORMAT},
                                        {"output_max", "\"1\"", HEMI_ERR_FORMAT},
                                        {"output_max", NULL, HEMI_ERR_FORMAT}};
    for (size_t i = 0; i < TEST_COUNT(bad_server); i++) {
        char *text = changed(server, &bad_server[i]);
        hemi_module *into = hemi_alloc(1, sizeof *into);
        assert_status(hemi_description_read(into, text, strlen(text), HEMI_SERVER_DESCRIPTION, &err), HEMI_ERR_FORMAT);
        hemi_free(into);
        free(text);
    }
    replies_may_stay(m);
    /* one for the other; unknown names are ignored; too long */
    assert_status(hemi_module_from_client_json(&read, server, strlen(server), &err), HEMI_ERR_FORMAT);
    json_t *j = json_loads(hemi_module_client_json(m), 0, NULL);
    json_object_set_new(j, "later", json_pack("{s:[i,i]}", "x", 1, 2));
    char *text = json_dumps(j, JSON_REAL_PRECISION(17));
    assert_ok(hemi_module_from_client_json(&read, text, strlen(text), &err), &err);
    hemi_module_free(read);
    free(text);
    char *padded = hemi_alloc(HEMI_DESCRIPTION_BYTES_MAX + 1, 1);
    memset(padded, ' ', HEMI_DESCRIPTION_BYTES_MAX + 1);
    assert_status(hemi_module_from_client_json(&read, padded, HEMI_DESCRIPTION_BYTES_MAX + 1, &err),
                  HEMI_ERR_TOO_LARGE);
    memset(padded, '[', HEMI_DESCRIPTION_BYTES_MAX); /* deep */
    assert_status(hemi_module_from_client_json(&read, padded, HEMI_DESCRIPTION_BYTES_MAX, &err), HEMI_ERR_FORMAT);
    hemi_free(padded);
    json_decref(j);
    hemi_free(server);
    hemi_module_free(m);
}

static void cut_and_flipped_descriptions(void **state) {
    (void)state;
    hemi_module *m = new_module(true, 1024), *read = NULL;
    const char *text = hemi_module_client_json(m);
    const size_t length = strlen(text);
    hemi_error err;
    for (size_t n = 0; n < length - 1; n++) {
        char *cut = malloc(n + 1);
        memcpy(cut, text, n);
        assert_status(hemi_module_from_client_json(&read, cut, n, &err), HEMI_ERR_FORMAT);
        free(cut);
    }
    test_rng rng = test_rng_new();
    char *copy = malloc(length);
    for (size_t i = 0; i < test_repeat(20000); i++) {
        memcpy(copy, text, length);
        for (size_t k = 0, n = 1 + test_below(&rng, 3); k < n; k++)
            copy[test_below(&rng, length)] = "0123456789-.e\"[]{},: ab\x80"[test_below(&rng, 24)];
        if (hemi_module_from_client_json(&read, copy, length, &err) == HEMI_OK) {
            assert_true(read->info.layout >= read->info.inputs && read->info.download_bytes > 0);
            hemi_module_free(read);
        }
    }
    free(copy);
    hemi_module_free(m);
}

/* ---- whole modules whose parts do not fit */

typedef struct parts {
    char *json;
    hemi_tensor tensor[3];
    size_t tensors;
} parts;

static hemi_status open_parts(const char *folder, const parts *p) {
    hemi_archive_entry entries[2] = {{.name = "server.json", .data = (uint8_t *)p->json, .bytes = strlen(p->json)},
                                     {.name = "weights.safetensors"}};
    hemi_error err = {0};
    uint8_t *zip = NULL;
    size_t bytes = 0;
    assert_ok(hemi_safetensors_write(&entries[1].data, &entries[1].bytes, p->tensor, p->tensors, &err), &err);
    assert_ok(hemi_archive_write(&zip, &bytes, entries, 2, &err), &err);
    write_file(folder, "server.zip", zip, bytes);
    hemi_free(entries[1].data);
    hemi_free(zip);
    hemi_module *m = NULL;
    const hemi_status status = hemi_module_open(&m, folder, true, &err);
    assert_int_equal(status == HEMI_OK, m != NULL);
    if (status != HEMI_OK) assert_non_null(strstr(err.message, "server.zip"));
    hemi_module_free(m);
    return status;
}

static void parts_must_fit(void **state) {
    (void)state;
    char folder[256];
    test_folder_new(folder);
    hemi_module *m = new_module(true, 0);
    hemi_error err = {0};
    int16_t w[OUTPUTS * INPUTS];
    double b[OUTPUTS];
    memcpy(w, m->weights, sizeof w); /* little-endian machines only, as are the others of these tests */
    memcpy(b, m->bias, sizeof b);
    parts good = {.tensors = 2};
    good.tensor[0] = (hemi_tensor){
        .name = "bias", .dtype = "F64", .rank = 1, .dims = {OUTPUTS}, .data = (uint8_t *)b, .bytes = sizeof b};
    good.tensor[1] = (hemi_tensor){.name = "weight",
                                   .dtype = "I16",
                                   .rank = 3,
                                   .dims = {OUTPUTS, 1, INPUTS},
                                   .data = (uint8_t *)w,
                                   .bytes = sizeof w};
    assert_ok(hemi_description_write(&good.json, m, HEMI_SERVER_DESCRIPTION, &err), &err);
    assert_status(open_parts(folder, &good), HEMI_OK);
    parts p = good;
    p.tensors = 1; /* no weights */
    assert_status(open_parts(folder, &p), HEMI_ERR_FORMAT);
    p = good;
    p.tensor[0] = p.tensor[1];
    p.tensors = 1; /* no bias */
    assert_status(open_parts(folder, &p), HEMI_ERR_FORMAT);
    p = good;
    p.tensor[2] =
        (hemi_tensor){.name = "more", .dtype = "U8", .rank = 1, .dims = {1}, .data = (uint8_t *)w, .bytes = 1};
    p.tensors = 3;
    assert_status(open_parts(folder, &p), HEMI_ERR_FORMAT);
    p = good;
    p.tensor[1].dims[0] = INPUTS;
    p.tensor[1].dims[2] = OUTPUTS;
    assert_status(open_parts(folder, &p), HEMI_ERR_FORMAT);
    p = good;
    memcpy(p.tensor[1].dtype, "F16", 4);
    assert_status(open_parts(folder, &p), HEMI_ERR_FORMAT);
    p = good;
    memcpy(p.tensor[0].dtype, "I64", 4);
    assert_status(open_parts(folder, &p), HEMI_ERR_FORMAT);
    p = good;
    p.tensor[0].rank = 2;
    p.tensor[0].dims[1] = 1;
    assert_status(open_parts(folder, &p), HEMI_ERR_FORMAT);
    static const double bad[] = {NAN, INFINITY, 1e30};
    for (size_t i = 0; i < 3; i++) {
        b[7] = bad[i];
        assert_status(open_parts(folder, &good), HEMI_ERR_FORMAT);
    }
    b[7] = 0;
    w[9] = INT16_MIN; /* too large for delta, and out of range */
    assert_status(open_parts(folder, &good), HEMI_ERR_FORMAT);
    w[9] = 0;
    for (size_t i = 0; i < INPUTS; i++) w[i] = 32767;
    assert_status(open_parts(folder, &good), HEMI_ERR_FORMAT);
    memcpy(w, m->weights, sizeof w);
    const change no_bias = {"bias", "false", HEMI_OK}, other = {"version", "9", HEMI_OK};
    p = good;
    p.json = changed(good.json, &no_bias);
    assert_status(open_parts(folder, &p), HEMI_ERR_FORMAT);
    free(p.json);
    p.json = changed(good.json, &other);
    assert_status(open_parts(folder, &p), HEMI_ERR_VERSION);
    free(p.json);
    assert_status(open_parts(folder, &good), HEMI_OK);
    write_file(folder, "server.zip", "", 0);
    hemi_module *none = NULL;
    assert_status(hemi_module_open(&none, folder, true, &err), HEMI_ERR_FORMAT);
    uint8_t *large = hemi_alloc(2 << 20, 1);
    write_file(folder, "client.zip", large, 2 << 20);
    assert_status(hemi_module_open(&none, folder, false, &err), HEMI_ERR_TOO_LARGE);
    hemi_free(large);
    hemi_free(good.json);
    hemi_module_free(m);
    test_folder_remove(folder);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(modules_come_back),
        cmocka_unit_test(folders_are_found),
        cmocka_unit_test(no_private_weight_for_the_client),
        cmocka_unit_test(descriptions_are_checked),
        cmocka_unit_test(cut_and_flipped_descriptions),
        cmocka_unit_test(parts_must_fit),
    };
    return TEST_RUN("files", tests);
}
