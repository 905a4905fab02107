/* Descriptions of circuits: what client.json and server.json have instead of layouts. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/circuit_module.h"

#define NUMBER_MAX  1e200
#define SCALE_MAX   0x1p60
#define DEGREE_MAX  255
#define NAME_MAX    (HEMI_CIRCUIT_NAME_BYTES - 1)

static const char *const kinds[] = {"input", "function", "product", "affine"};

/* ---- writing */

static json_t *side_json(uint32_t period, uint32_t blocks, double norm, double scale) {
    return json_pack("{s:I,s:I,s:f,s:f}", "period", (json_int_t)period, "blocks", (json_int_t)blocks, "norm", norm, "scale", scale);
}

static json_t *skew_json(const hemi_circuit_io *io) {
    json_t *list = json_array();
    for (uint32_t k = 0; io->skew && k < io->copies; k++)
        json_array_append_new(list, json_integer(io->skew[k] == HEMI_CIRCUIT_NO_PLACE ? -1 : (json_int_t)io->skew[k]));
    return list;
}

static json_t *function_json(const hemi_function *f) {
    json_t *list = json_array();
    for (size_t i = 0; i < f->steps; i++) {
        const hemi_function_step *s = &f->step[i];
        json_array_append_new(list, json_pack("{s:s,s:i,s:i,s:[f,f,f,f]}", "operator", hemi_function_name(s->id), "of", (int)s->of, "with",
                                              (int)s->with, "parameters", s->p[0], s->p[1], s->p[2], s->p[3]));
    }
    return list;
}

static json_t *affine_json(const hemi_circuit_affine *a) {
    json_t *terms = json_array();
    for (size_t i = 0; i < a->terms; i++)
        json_array_append_new(terms, json_pack("{s:I,s:b,s:I}", "source", (json_int_t)a->term[i].source, "dense", a->term[i].map.column == NULL,
                                               "entries", (json_int_t)hemi_sparse_count(&a->term[i].map)));
    return json_pack("{s:o,s:b}", "terms", terms, "bias", a->bias != NULL);
}

static json_t *value_json(const hemi_circuit_value *v, uint32_t layout) {
    json_t *j = json_pack("{s:s,s:s,s:o,s:I,s:f,s:f}", "kind", kinds[v->kind], "name", v->name, "sides", hemi_fields_integers(v->dims, v->rank),
                          "layout", (json_int_t)layout, "low", v->low, "high", v->high);
    int bad = !j;
    if (!bad && v->kind != HEMI_CIRCUIT_INPUT) bad = json_object_set_new(j, "map", affine_json(&v->a)) != 0;
    if (!bad && v->kind == HEMI_CIRCUIT_PRODUCT)
        bad = json_object_set_new(j, "other", affine_json(&v->b)) != 0 || json_object_set_new(j, "map_high", json_real(v->a_high)) != 0 ||
              json_object_set_new(j, "other_high", json_real(v->b_high)) != 0;
    if (!bad && v->kind == HEMI_CIRCUIT_FUNCTION)
        bad = json_object_set_new(j, "function", function_json(&v->function)) != 0 ||
              json_object_set_new(j, "degree", json_integer((json_int_t)v->polynomial.degree)) != 0 ||
              json_object_set_new(j, "middle", json_real(v->polynomial.middle)) != 0 ||
              json_object_set_new(j, "radius", json_real(v->polynomial.radius)) != 0;
    if (!bad) return j;
    json_decref(j);
    return NULL;
}

hemi_status hemi_circuit_description_write(json_t *object, const hemi_module *m, bool server, hemi_error *err) {
    const hemi_circuit_io *io = &m->io;
    json_t *j = json_pack("{s:b,s:i,s:i,s:I,s:I,s:o,s:o,s:I,s:I,s:o,s:o}", "by_rows", (int)m->info.circuit_rows, "weight_bits", m->info.weight_bits,
                          "input_bits", m->info.input_bits, "limbs", (json_int_t)io->limbs, "rows", (json_int_t)io->rows, "input",
                          side_json(io->in_period, io->in_blocks, io->in_norm, io->in_scale), "output",
                          side_json(io->out_period, io->out_blocks, io->out_norm, io->out_scale), "copies", (json_int_t)io->copies, "stride",
                          (json_int_t)io->stride, "skew", skew_json(io), "automorphisms",
                          hemi_fields_integers(io->automorphism, io->automorphisms));
    int bad = !j;
    if (!bad && io->input_step != 0)
        bad = json_object_set_new(j, "quantiser", json_pack("{s:f,s:f,s:f}", "step", io->input_step, "low", io->input_low, "high", io->input_high)) != 0;
    if (!bad && server) {
        json_t *values = json_array();
        for (size_t i = 0; i < m->circuit->values; i++)
            bad |= json_array_append_new(values, value_json(&m->circuit->value[i], m->plan->value[i].layout));
        bad |= json_object_set_new(j, "values", values) || json_object_set_new(j, "approximation_error", json_real(m->info.approximation_error));
    }
    if (!bad) bad = json_object_update(object, j) != 0;
    json_decref(j);
    return bad ? hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module's description") : HEMI_OK;
}

/* ---- reading */

static hemi_fields inside(const hemi_fields *r, const char *name) {
    return (hemi_fields){.object = json_object_get(r->object, name), .file = r->file, .err = r->err, .status = r->status};
}

static bool is_power(uint32_t x) { return x != 0 && (x & (x - 1)) == 0; }

static void read_side(hemi_fields *r, const char *name, const hemi_circuit_io *io, uint32_t numbers, uint32_t *period, uint32_t *blocks, double *norm,
                      double *scale) {
    const uint32_t slots = (UINT32_C(1) << (io->params->log2_n - 1)) / io->rows;
    hemi_fields in = inside(r, name);
    *period = (uint32_t)hemi_fields_get_integer(&in, "period", 1, slots);
    *blocks = (uint32_t)hemi_fields_get_integer(&in, "blocks", 1, HEMI_CIRCUIT_BLOCKS_MAX);
    *norm = hemi_fields_get_real(&in, "norm", 1 / NUMBER_MAX, NUMBER_MAX);
    *scale = hemi_fields_get_real(&in, "scale", 1, SCALE_MAX);
    r->status = in.status;
    if (r->status == HEMI_OK && (!is_power(*period) || (uint64_t)*period * *blocks < numbers)) hemi_fields_wrong(r, name, "with places for all numbers");
}

static void read_skew(hemi_fields *r, hemi_circuit_io *io) {
    const uint32_t slots = (UINT32_C(1) << (io->params->log2_n - 1)) / io->rows;
    const json_t *list = json_object_get(r->object, "skew");
    io->copies = (uint32_t)hemi_fields_get_integer(r, "copies", 1, HEMI_CIRCUIT_COPIES_MAX);
    io->stride = (uint32_t)hemi_fields_get_integer(r, "stride", 0, slots);
    if (io->copies == 1 && !(json_is_array(list) && json_array_size(list) == 0)) hemi_fields_wrong(r, "skew", "an empty list where there is one copy");
    if (r->status != HEMI_OK || io->copies == 1) return;
    if (!is_power(io->copies) || !is_power(io->stride) || io->stride < io->in_period || (uint64_t)io->stride * io->copies > slots || io->in_blocks != 1 ||
        json_array_size(list) != io->copies) {
        hemi_fields_wrong(r, "copies", "as many as fit, each with its skew");
        return;
    }
    io->skew = hemi_alloc(io->copies, sizeof *io->skew);
    if (!io->skew) r->status = hemi_fail(r->err, HEMI_ERR_MEMORY, "no memory for a module");
    for (uint32_t k = 0; r->status == HEMI_OK && k < io->copies; k++) {
        const json_t *v = json_array_get(list, k);
        const json_int_t s = json_integer_value(v);
        if (!json_is_integer(v) || s < -1 || s >= (json_int_t)io->in_period) hemi_fields_wrong(r, "skew", "a list of places, or -1");
        io->skew[k] = s < 0 ? HEMI_CIRCUIT_NO_PLACE : (uint32_t)s;
    }
}

static void read_quantiser(hemi_fields *r, hemi_circuit_io *io) {
    if (!json_object_get(r->object, "quantiser")) return;
    hemi_fields in = inside(r, "quantiser");
    io->input_step = hemi_fields_get_real(&in, "step", 1 / NUMBER_MAX, NUMBER_MAX);
    io->input_low = hemi_fields_get_real(&in, "low", -NUMBER_MAX, NUMBER_MAX);
    io->input_high = hemi_fields_get_real(&in, "high", io->input_low, NUMBER_MAX);
    r->status = in.status;
}

static void read_automorphisms(hemi_fields *r, hemi_circuit_io *io) {
    uint32_t t[HEMI_CIRCUIT_AUTOMORPHISMS_MAX];
    io->automorphisms = hemi_fields_get_sizes(r, "automorphisms", t, HEMI_CIRCUIT_AUTOMORPHISMS_MAX, (2ll << io->params->log2_n) - 1);
    for (size_t i = 0; i < io->automorphisms; i++)
        if ((t[i] & 1) == 0 || (i > 0 && t[i] <= t[i - 1])) hemi_fields_wrong(r, "automorphisms", "increasing odd numbers");
    io->automorphism = hemi_alloc(io->automorphisms, sizeof *t);
    if (!io->automorphism) r->status = hemi_fail(r->err, HEMI_ERR_MEMORY, "no memory for a module");
    if (r->status == HEMI_OK) memcpy(io->automorphism, t, io->automorphisms * sizeof *t);
}

static void read_io(hemi_fields *r, hemi_module *m) {
    hemi_circuit_io *io = &m->io;
    io->params = m->info.params;
    io->inputs = m->info.inputs;
    io->outputs = m->info.outputs;
    io->limbs = (uint32_t)hemi_fields_get_integer(r, "limbs", 1, io->params->chain);
    io->rows = (uint32_t)hemi_fields_get_integer(r, "rows", 1, UINT64_C(1) << (io->params->log2_n - 1));
    if (r->status == HEMI_OK && !is_power(io->rows)) hemi_fields_wrong(r, "rows", "a power of two");
    if (r->status != HEMI_OK) return;
    read_side(r, "input", io, io->inputs, &io->in_period, &io->in_blocks, &io->in_norm, &io->in_scale);
    read_side(r, "output", io, io->outputs, &io->out_period, &io->out_blocks, &io->out_norm, &io->out_scale);
    if (r->status == HEMI_OK) read_skew(r, io);
    if (r->status == HEMI_OK) read_quantiser(r, io);
    if (r->status == HEMI_OK) read_automorphisms(r, io);
}

static void read_function(hemi_fields *r, hemi_function *f) {
    const json_t *list = json_object_get(r->object, "function");
    f->steps = json_array_size(list);
    if (!json_is_array(list) || f->steps > HEMI_FUNCTION_STEPS_MAX) {
        f->steps = 0;
        hemi_fields_wrong(r, "function", "a list of steps");
    }
    for (size_t i = 0; i < f->steps && r->status == HEMI_OK; i++) {
        hemi_function_step *s = &f->step[i];
        hemi_fields in = {.object = json_array_get(list, i), .file = r->file, .err = r->err, .status = r->status};
        const json_t *p = json_object_get(in.object, "parameters");
        if (!hemi_function_find(&s->id, hemi_fields_get_string(&in, "operator"))) hemi_fields_wrong(&in, "operator", "one that is known");
        s->of = (unsigned)hemi_fields_get_integer(&in, "of", 0, i);
        s->with = (unsigned)hemi_fields_get_integer(&in, "with", 0, i);
        if (json_array_size(p) != HEMI_FUNCTION_PARAMETERS) hemi_fields_wrong(&in, "parameters", "four numbers");
        for (size_t k = 0; in.status == HEMI_OK && k < HEMI_FUNCTION_PARAMETERS; k++) {
            if (!json_is_number(json_array_get(p, k))) hemi_fields_wrong(&in, "parameters", "four numbers");
            s->p[k] = json_number_value(json_array_get(p, k));
        }
        r->status = in.status;
    }
}

/* left: weights that the circuit may still have. */
static void read_affine(hemi_fields *r, const char *name, hemi_circuit_affine *a, const hemi_circuit *c, size_t value, uint64_t *left) {
    hemi_fields in = inside(r, name);
    const json_t *list = json_object_get(in.object, "terms");
    const size_t terms = json_array_size(list);
    if (terms == 0 || terms > value) hemi_fields_wrong(&in, "terms", "a list of one for each source");
    a->term = in.status == HEMI_OK ? hemi_alloc(terms, sizeof *a->term) : NULL;
    if (!a->term && in.status == HEMI_OK) in.status = hemi_fail(r->err, HEMI_ERR_MEMORY, "no memory for a circuit");
    if (hemi_fields_get_bool(&in, "bias") && in.status == HEMI_OK) {
        a->bias = hemi_alloc(c->value[value].size, sizeof *a->bias);
        if (!a->bias) in.status = hemi_fail(r->err, HEMI_ERR_MEMORY, "no memory for a circuit");
    }
    for (size_t i = 0; in.status == HEMI_OK && i < terms; i++) {
        hemi_fields t = {.object = json_array_get(list, i), .file = r->file, .err = r->err};
        hemi_circuit_term *term = &a->term[i];
        term->source = (uint32_t)hemi_fields_get_integer(&t, "source", i > 0 ? a->term[i - 1].source + 1 : 0, value - 1);
        const bool dense = hemi_fields_get_bool(&t, "dense");
        const uint64_t entries = hemi_fields_get_integer(&t, "entries", 0, *left); /* of all maps together: 2^27 */
        in.status = t.status;
        if (t.status != HEMI_OK) break;
        *left -= entries;
        term->map.rows = c->value[value].size;
        term->map.columns = c->value[term->source].size;
        const uint64_t all = (uint64_t)term->map.rows * term->map.columns;
        if (dense ? entries != all : entries > all) hemi_fields_wrong(&in, "entries", "as many as the map has");
        a->terms = i + 1;
        if (in.status != HEMI_OK) break;
        term->map.weight = hemi_alloc_large(entries, sizeof *term->map.weight);
        if (!dense) {
            term->map.start = hemi_alloc((size_t)term->map.rows + 1, sizeof *term->map.start);
            term->map.column = hemi_alloc(entries, sizeof *term->map.column);
            if (term->map.start) term->map.start[term->map.rows] = entries;
        }
        if (!term->map.weight || (!dense && (!term->map.start || !term->map.column)))
            in.status = hemi_fail(r->err, HEMI_ERR_MEMORY, "no memory for %llu weights", (unsigned long long)entries);
    }
    r->status = in.status;
}

/* Its interval is the value's. */
static void read_polynomial(hemi_fields *r, hemi_circuit_polynomial *p, double low, double high) {
    p->degree = (uint32_t)hemi_fields_get_integer(r, "degree", 1, DEGREE_MAX);
    p->middle = hemi_fields_get_real(r, "middle", -NUMBER_MAX, NUMBER_MAX);
    p->radius = hemi_fields_get_real(r, "radius", 1 / NUMBER_MAX, NUMBER_MAX);
    if (low != p->middle - p->radius || high != p->middle + p->radius) hemi_fields_wrong(r, "radius", "that of the range, low to high");
    p->coefficient = hemi_alloc(p->degree + 1, sizeof *p->coefficient);
    if (!p->coefficient && r->status == HEMI_OK) r->status = hemi_fail(r->err, HEMI_ERR_MEMORY, "no memory for a polynomial");
}

static void read_value(hemi_fields *r, hemi_circuit *c, size_t i, uint64_t *left) {
    hemi_circuit_value *v = &c->value[i];
    const char *kind = hemi_fields_get_string(r, "kind");
    size_t k = 0;
    while (k < sizeof kinds / sizeof *kinds && strcmp(kind, kinds[k]) != 0) k++;
    if (k == sizeof kinds / sizeof *kinds || (k == HEMI_CIRCUIT_INPUT) != (i == 0) || (k == HEMI_CIRCUIT_AFFINE) != (i + 1 == c->values)) {
        hemi_fields_wrong(r, "kind", "one that may be at this place");
        return;
    }
    v->kind = (hemi_circuit_kind)k;
    const char *name = hemi_fields_get_string(r, "name");
    if (strlen(name) > NAME_MAX) hemi_fields_wrong(r, "name", "a string of at most 95 bytes");
    strncpy(v->name, name, NAME_MAX);
    v->rank = hemi_fields_get_sizes(r, "sides", v->dims, HEMI_CIRCUIT_RANK_MAX, HEMI_CIRCUIT_NUMBERS_MAX);
    uint64_t size = 1;
    for (size_t d = 0; d < v->rank && size <= HEMI_CIRCUIT_NUMBERS_MAX; d++) size *= v->dims[d];
    if (v->rank == 0 || size > HEMI_CIRCUIT_NUMBERS_MAX) hemi_fields_wrong(r, "sides", "those of a value of at most 2^20 numbers");
    v->size = (uint32_t)size;
    v->low = hemi_fields_get_real(r, "low", -NUMBER_MAX, NUMBER_MAX);
    v->high = hemi_fields_get_real(r, "high", v->low, NUMBER_MAX);
    if (r->status == HEMI_OK && i > 0) read_affine(r, "map", &v->a, c, i, left);
    if (r->status == HEMI_OK && v->kind == HEMI_CIRCUIT_PRODUCT) {
        v->a_high = hemi_fields_get_real(r, "map_high", 1 / NUMBER_MAX, NUMBER_MAX);
        v->b_high = hemi_fields_get_real(r, "other_high", 1 / NUMBER_MAX, NUMBER_MAX);
        read_affine(r, "other", &v->b, c, i, left);
    }
    if (r->status == HEMI_OK && v->kind == HEMI_CIRCUIT_FUNCTION) {
        read_function(r, &v->function);
        read_polynomial(r, &v->polynomial, v->low, v->high);
    }
}

/* Into m->circuit, and of m->plan the layouts alone. */
static void read_values(hemi_fields *r, hemi_module *m) {
    const json_t *list = json_object_get(r->object, "values");
    const size_t values = json_array_size(list);
    uint64_t left = HEMI_CIRCUIT_WEIGHTS_MAX;
    if (values < 2 || values > HEMI_CIRCUIT_VALUES_MAX) {
        hemi_fields_wrong(r, "values", "a list of 2 to 256");
        return;
    }
    m->circuit = hemi_alloc(1, sizeof *m->circuit);
    m->plan = hemi_alloc(1, sizeof *m->plan);
    if (m->circuit) m->circuit->value = hemi_alloc(values, sizeof *m->circuit->value);
    if (m->plan) m->plan->value = hemi_alloc(values, sizeof *m->plan->value);
    if (!m->circuit || !m->plan || !m->circuit->value || !m->plan->value) {
        r->status = hemi_fail(r->err, HEMI_ERR_MEMORY, "no memory for a circuit");
        return;
    }
    m->circuit->values = m->plan->values = values;
    m->circuit->rows = m->info.circuit_rows;
    m->circuit->input_step = m->io.input_step;
    m->circuit->input_low = m->io.input_low;
    m->circuit->input_high = m->io.input_high;
    for (size_t i = 0; i < values && r->status == HEMI_OK; i++) {
        hemi_fields in = {.object = json_array_get(list, i), .file = r->file, .err = r->err};
        read_value(&in, m->circuit, i, &left);
        m->plan->value[i].layout = (uint32_t)hemi_fields_get_integer(&in, "layout", 0, i + 1 < values ? i : 0);
        r->status = in.status;
    }
    if (r->status == HEMI_OK && (m->circuit->value[0].size != m->info.inputs || m->circuit->value[values - 1].size != m->info.outputs))
        hemi_fields_wrong(r, "values", "from the inputs to the outputs");
}

void hemi_circuit_description_read(hemi_fields *r, hemi_module *m, bool server) {
    hemi_module_info *info = &m->info;
    info->inputs = (uint32_t)hemi_fields_get_integer(r, "inputs", 1, HEMI_CIRCUIT_NUMBERS_MAX);
    info->outputs = (uint32_t)hemi_fields_get_integer(r, "outputs", 1, HEMI_CIRCUIT_NUMBERS_MAX);
    info->circuit_rows = hemi_fields_get_bool(r, "by_rows");
    info->weight_bits = (int)hemi_fields_get_integer(r, "weight_bits", 0, 16);
    info->input_bits = (int)hemi_fields_get_integer(r, "input_bits", 0, 16);
    info->shape_rank = hemi_fields_get_shape(r, "input_shape", info->shape, info->circuit_rows, info->inputs);
    info->output_rank = hemi_fields_get_shape(r, "output_shape", info->output_shape, info->circuit_rows, info->outputs);
    if (server) info->approximation_error = hemi_fields_get_real(r, "approximation_error", 0, NUMBER_MAX);
    if (r->status == HEMI_OK) read_io(r, m);
    if (r->status == HEMI_OK && server) read_values(r, m);
}
