#include "model/circuit_module.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "circuit/calibrate.h"
#include "circuit/lanes.h"
#include "circuit/noise.h"
#include "random/sample.h"
#include "wire/ckks.h"

#define CLEAR_SAMPLES 256 /* at once */
#define UNBOUNDED     1e30 /* of an input quantiser that does not clip */

void hemi_circuit_module_clear(hemi_module *m) {
    hemi_circuit_plan_free(m->plan);
    hemi_circuit_free(m->circuit);
    hemi_circuit_io_clear(&m->io);
    m->plan = NULL;
    m->circuit = NULL;
}

/* ---- compiling */

static hemi_status set_input_bits(hemi_circuit *c, const float *x, size_t numbers, int bits, hemi_error *err) {
    double largest = 0;
    if (bits == 0 || c->input_step != 0) return HEMI_OK;
    if (bits < 2 || bits > 16) return hemi_fail(err, HEMI_ERR_ARGUMENT, "input_bits is %d: 2 to 16, or 0 for no rounding", bits);
    for (size_t i = 0; i < numbers; i++) largest = fmax(largest, fabs((double)x[i]));
    if (!isfinite(largest) || largest == 0) return HEMI_OK; /* calibration says what is wrong */
    c->input_step = largest / ((1 << (bits - 1)) - 1);
    c->input_low = -UNBOUNDED;
    c->input_high = UNBOUNDED;
    return HEMI_OK;
}

static hemi_status choose(hemi_circuit_choice *choice, const hemi_compile_options *o, hemi_error *err) {
    *choice = (hemi_circuit_choice){.rows = o->rows};
    if (o->rows & (o->rows - 1) || o->rows > 32768)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "rows is %u: a power of two up to 32768, or 0 to choose", o->rows);
    if (!o->set) return HEMI_OK;
    choice->params = hemi_params_by_name(o->set);
    if (!choice->params || choice->params->chain == 0)
        return hemi_fail(err, HEMI_ERR_PARAMS,
                         "set '%.40s' is not one for modules with non-linearities (C8192, C16384, C16384M, C16384D, C32768, C65536); without a set the "
                         "cheapest that fits is chosen",
                         o->set);
    return HEMI_OK;
}

/* The first dimension 1; rows: as they were calibrated, a lone row gets a dimension. */
static hemi_status set_shapes(hemi_module *m, const uint32_t *shape, size_t rank, hemi_error *err) {
    hemi_module_info *info = &m->info;
    const hemi_circuit_value *in = &m->circuit->value[0], *out = &m->circuit->value[m->circuit->values - 1];
    const bool rows = m->circuit->rows;
    const size_t in_rank = rows ? (rank > 1 ? rank : 2) : in->rank + 1, out_rank = rows ? in_rank : out->rank + 1;
    if (in_rank > HEMI_SHAPE_MAX || out_rank > HEMI_SHAPE_MAX)
        return hemi_fail(err, HEMI_ERR_SHAPE, "a sample has %zu dimensions, its result %zu: at most %d", in_rank - 1, out_rank - 1, HEMI_SHAPE_MAX - 1);
    info->shape_rank = in_rank;
    info->output_rank = out_rank;
    info->shape[0] = info->output_shape[0] = 1;
    for (size_t i = 1; i < in_rank; i++) info->shape[i] = rows ? (rank > 1 ? shape[i] : in->size) : in->dims[i - 1];
    for (size_t i = 1; i < out_rank; i++) info->output_shape[i] = rows ? info->shape[i] : out->dims[i - 1];
    if (rows) info->output_shape[out_rank - 1] = out->size;
    return HEMI_OK;
}

static hemi_status build(hemi_module *m, const float *x, const uint32_t *shape, size_t rank, const hemi_compile_options *o, hemi_team *team,
                         hemi_error *err) {
    hemi_circuit *c = m->circuit;
    hemi_circuit_choice choice;
    hemi_calibration_report report;
    const hemi_calibration calibration = {.tolerance = o->tolerance, .margin = o->range_margin, .degree_max = o->degree_max,
                                          .progress = o->progress, .progress_context = o->progress_context};
    size_t numbers = 1;
    for (size_t i = 0; i < rank; i++) numbers *= shape[i];
    if (numbers % c->value[0].size != 0 || numbers == 0)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the calibration data has %zu numbers, a sample %u", numbers, c->value[0].size);
    HEMI_TRY(choose(&choice, o, err));
    HEMI_TRY(set_shapes(m, shape, rank, err));
    HEMI_TRY(set_input_bits(c, x, numbers, o->input_bits, err));
    HEMI_TRY(hemi_circuit_calibrate(c, x, numbers / c->value[0].size, &calibration, &report, team, err));
    if (o->progress) o->progress(o->progress_context, "plan", 0, 1);
    HEMI_TRY(hemi_circuit_plan_make(&m->plan, c, &choice, err));
    HEMI_TRY(hemi_circuit_io_from_plan(&m->io, c, m->plan, err));
    m->info.circuit_rows = c->rows;
    m->info.weight_bits = o->weight_bits;
    m->info.input_bits = o->input_bits;
    m->info.output_max = report.output_max;
    m->info.approximation_error = report.error_rms;
    m->info.predicted_error = hypot(hemi_circuit_predict_noise(c, m->plan), hemi_circuit_reply_noise(m->plan));
    return hemi_module_finish(m, err);
}

hemi_status hemi_module_from_circuit(hemi_module **out, hemi_circuit *circuit, const float *x, const uint32_t *shape, size_t rank,
                                     const hemi_compile_options *options, hemi_error *err) {
    static const hemi_compile_options none = {0};
    uint8_t seed[HEMI_SEED_BYTES];
    hemi_status s = HEMI_OK;
    *out = NULL;
    if (hemi_random_init() != 0) s = hemi_fail(err, HEMI_ERR_INTERNAL, "the system gives no randomness");
    else if (!x) s = hemi_fail(err, HEMI_ERR_ARGUMENT, "a module with non-linearities needs calibration data: inputs like those it will be called with");
    hemi_module *m = s == HEMI_OK ? hemi_alloc(1, sizeof *m) : NULL;
    if (!m) {
        hemi_circuit_free(circuit);
        return s != HEMI_OK ? s : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    }
    m->is_circuit = true;
    m->circuit = circuit;
    hemi_seed_fresh(seed);
    memcpy(m->info.id, seed, sizeof m->info.id);
    hemi_team *team = hemi_team_new(0);
    s = team ? build(m, x, shape, rank, options ? options : &none, team, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for threads");
    hemi_team_free(team);
    if (s != HEMI_OK) {
        hemi_module_free(m);
        return s;
    }
    *out = m;
    return HEMI_OK;
}

/* ---- what is known of it */

static bool is_activation(const hemi_circuit_value *v) { return v->kind == HEMI_CIRCUIT_FUNCTION || v->kind == HEMI_CIRCUIT_PRODUCT; }

void hemi_circuit_module_finish(hemi_module *m) {
    hemi_module_info *info = &m->info;
    const hemi_circuit_io *io = &m->io;
    info->operation = "circuit";
    info->params = io->params;
    info->inputs = info->map_inputs = io->inputs;
    info->outputs = info->map_outputs = io->outputs;
    info->taps = 1;
    info->units = io->in_blocks;
    info->packed_rows = io->rows;
    info->levels = io->limbs - 1;
    info->automorphisms = io->automorphisms;
    info->input_low = io->input_step != 0 && io->input_low > -UNBOUNDED ? io->input_low : -io->in_norm;
    info->input_high = io->input_step != 0 && io->input_high < UNBOUNDED ? io->input_high : io->in_norm;
    info->has_weights = m->circuit != NULL;
    hemi_ckks_request r = {.params = io->params, .limbs = io->limbs, .units = 1, .ciphertexts = io->in_blocks};
    info->upload_bytes = hemi_ckks_request_bytes(&r);
    r.limbs = 1;
    r.ciphertexts = io->out_blocks;
    info->download_bytes = hemi_ckks_reply_bytes(&r);
    info->evaluation_key_bytes = hemi_ckks_keys_bytes(io->params, io->limbs, io->automorphisms + 1);
    info->activations = 0;
    for (size_t i = 0; m->circuit && i < m->circuit->values; i++) info->activations += is_activation(&m->circuit->value[i]);
}

hemi_status hemi_module_get_activation(const hemi_module *m, size_t number, hemi_activation_info *info, hemi_error *err) {
    if (!m->circuit) return hemi_fail(err, HEMI_ERR_STATE, "this module has no activations, or was opened without its weights: they are in server.zip");
    for (size_t i = 0; i < m->circuit->values; i++) {
        const hemi_circuit_value *v = &m->circuit->value[i];
        if (!is_activation(v) || number-- > 0) continue;
        const bool function = v->kind == HEMI_CIRCUIT_FUNCTION;
        *info = (hemi_activation_info){.name = v->name, .size = v->size, .low = v->low, .high = v->high,
                                       .degree = function ? v->polynomial.degree : 2, .levels = m->plan->value[i].levels};
        return HEMI_OK;
    }
    return hemi_fail(err, HEMI_ERR_ARGUMENT, "this module has %zu activations", m->info.activations);
}

/* ---- in the clear */

/* clipped: room for CLEAR_SAMPLES samples; NULL: as they are. */
static hemi_status run_batches(const hemi_module *m, hemi_lanes *lanes, const hemi_circuit_polynomial *const *with, const float *x, size_t rows,
                               float *clipped, float *y, hemi_error *err) {
    const size_t inputs = m->io.inputs, outputs = m->io.outputs, last = m->circuit->values - 1;
    for (size_t i = 0; i < rows * inputs; i++)
        if (!isfinite(x[i]))
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "row %zu of the input holds a value that is infinite or not a number", i / inputs);
    for (size_t from = 0; from < rows; from += CLEAR_SAMPLES) {
        const size_t count = rows - from < CLEAR_SAMPLES ? rows - from : CLEAR_SAMPLES;
        if (clipped) hemi_circuit_io_clip(clipped, &m->io, x + from * inputs, count * inputs);
        hemi_lanes_load(lanes, clipped ? clipped : x, clipped ? 0 : from, count, count);
        hemi_lanes_run(lanes, with);
        for (size_t s = 0; s < count; s++)
            for (size_t o = 0; o < outputs; o++)
                y[(from + s) * outputs + o] = (float)lanes->value[last][((s / HEMI_LANES) * outputs + o) * HEMI_LANES + s % HEMI_LANES];
    }
    return HEMI_OK;
}

hemi_status hemi_circuit_module_run_clear(const hemi_module *m, const float *x, size_t rows, float *y, bool noise, hemi_error *err) {
    const hemi_circuit_polynomial *with[HEMI_CIRCUIT_VALUES_MAX] = {NULL};
    hemi_lanes lanes = {0};
    if (!m->circuit) return hemi_fail(err, HEMI_ERR_STATE, "this module was opened without its weights: they are in server.zip");
    if (rows == 0) return HEMI_OK;
    for (size_t i = 0; noise && i < m->circuit->values; i++)
        if (m->circuit->value[i].kind == HEMI_CIRCUIT_FUNCTION) with[i] = &m->circuit->value[i].polynomial;
    hemi_team *team = hemi_team_new(0);
    hemi_status s = team ? hemi_lanes_new(&lanes, m->circuit, rows < CLEAR_SAMPLES ? rows : CLEAR_SAMPLES, team, err)
                         : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for threads");
    float *clipped = noise ? hemi_alloc(CLEAR_SAMPLES * (size_t)m->io.inputs, sizeof *clipped) : NULL; /* as a client does */
    if (s == HEMI_OK && noise && !clipped) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory to run a module");
    if (s == HEMI_OK) s = run_batches(m, &lanes, with, x, rows, clipped, y, err);
    hemi_free(clipped);
    if (s == HEMI_OK && noise) hemi_clear_noise(y, rows * m->io.outputs, m->info.predicted_error);
    hemi_lanes_clear(&lanes);
    hemi_team_free(team);
    return s;
}

/* ---- from files */

hemi_status hemi_circuit_module_complete(hemi_module *m, hemi_error *err) {
    hemi_circuit_plan *decided = m->plan;
    hemi_circuit_io io = {0};
    hemi_error why = {.status = HEMI_OK};
    m->plan = NULL;
    decided->params = m->io.params;
    decided->rows = m->io.rows;
    decided->copies = m->io.copies;
    hemi_status s = hemi_circuit_plan_again(&m->plan, m->circuit, decided, &why);
    hemi_circuit_plan_free(decided);
    if (s != HEMI_OK)
        return hemi_fail(err, s == HEMI_ERR_MEMORY ? s : HEMI_ERR_FORMAT, "the circuit cannot be laid out as the file says%s%s",
                         why.message[0] ? ": " : "", why.message);
    s = hemi_circuit_io_from_plan(&io, m->circuit, m->plan, err);
    if (s == HEMI_OK && !hemi_circuit_io_equal(&io, &m->io))
        s = hemi_fail(err, HEMI_ERR_FORMAT, "the plan of the circuit is not the one that clients were given: compile the module anew");
    hemi_circuit_io_clear(&io);
    return s;
}
