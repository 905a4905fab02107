/* From request bytes to reply bytes. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "linear/product.h"
#include "server/evaluate_circuit.h"
#include "server/limits.h"
#include "wire/batch.h"

struct hemi_evaluator {
    atomic_size_t users;
    hemi_module_info info;
    hemi_circuit_evaluator *circuit; /* of a circuit: there is nothing more then */
    hemi_module *module;  /* without weights */
    hemi_linear *linear;
    hemi_batch *batch;    /* the matrix for batches of rows; NULL if the module has none */
    hemi_linear_memory memory;
    double *bias;         /* NULL: none */
    pthread_mutex_t lock; /* of what follows: made when first asked for, then immutable */
    hemi_linear *packed;
};

/* All evaluators' plaintexts of packed rows, in bytes. */
static atomic_size_t packed_bytes;

/* Rows of modules whose q is that of the set for batches can come in batches too: delta is then the same. */
static hemi_status make_batch(hemi_evaluator *e, const hemi_module *module, hemi_error *err) {
    const hemi_params *params = hemi_params_by_name(HEMI_BATCH_SET);
    const hemi_linear_layout *l = &module->layout;
    const hemi_context *ctx;
    if (hemi_module_grid(module) || params->q != l->params->q || l->inputs > HEMI_BATCH_INPUTS_MAX) return HEMI_OK;
    HEMI_TRY(hemi_context_shared(&ctx, params, err));
    if (module->bias) {
        e->bias = hemi_alloc(l->outputs, sizeof *e->bias);
        if (!e->bias) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
        memcpy(e->bias, module->bias, l->outputs * sizeof *e->bias);
    }
    return hemi_batch_new(&e->batch, ctx, l->inputs, l->outputs, module->weights, module->bias, module->info.delta, err);
}

static hemi_status make_linear(hemi_evaluator *e, const hemi_module *module, hemi_team *team, hemi_error *err) {
    const hemi_context *ctx;
    const char *json = hemi_module_client_json(module);
    if (!module->weights) return hemi_fail(err, HEMI_ERR_STATE, "this module was read without its weights: open its server.zip");
    HEMI_TRY(hemi_context_shared(&ctx, module->layout.params, err));
    HEMI_TRY(hemi_module_from_client_json(&e->module, json, strlen(json), err));
    e->info = e->module->info;
    HEMI_TRY(hemi_linear_new(&e->linear, ctx, &module->layout, module->weights, module->bias, module->info.delta, e->memory, team, err));
    return make_batch(e, module, err);
}

static hemi_status make_circuit(hemi_evaluator *e, const hemi_module *module, hemi_team *team, hemi_error *err) {
    HEMI_TRY(hemi_circuit_evaluator_new(&e->circuit, module, team, err));
    e->info = module->info;
    e->info.operation = "circuit"; /* what outlives the module */
    e->info.params = e->circuit->io.params;
    return HEMI_OK;
}

hemi_status hemi_evaluator_new_with(hemi_evaluator **out, const hemi_module *module, const hemi_evaluator_options *options, hemi_error *err) {
    *out = NULL;
    hemi_evaluator *e = hemi_alloc(1, sizeof *e);
    hemi_team *team = hemi_team_new(options->threads);
    hemi_status s = e && team ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    if (e) {
        atomic_init(&e->users, 1);
        (void)pthread_mutex_init(&e->lock, NULL);
        e->memory = options->small_memory ? HEMI_LINEAR_SMALL : HEMI_LINEAR_FAST;
    }
    if (s == HEMI_OK) s = module->is_circuit ? make_circuit(e, module, team, err) : make_linear(e, module, team, err);
    hemi_team_free(team);
    if (s != HEMI_OK) {
        hemi_evaluator_free(e);
        return s;
    }
    *out = e;
    return HEMI_OK;
}

hemi_status hemi_evaluator_new(hemi_evaluator **out, const hemi_module *module, int threads, hemi_error *err) {
    const hemi_evaluator_options options = {.threads = threads};
    return hemi_evaluator_new_with(out, module, &options, err);
}

hemi_evaluator *hemi_evaluator_hold(hemi_evaluator *e) {
    atomic_fetch_add(&e->users, 1);
    return e;
}

void hemi_evaluator_free(hemi_evaluator *e) {
    if (!e || atomic_fetch_sub(&e->users, 1) > 1) return;
    if (e->packed) atomic_fetch_sub(&packed_bytes, hemi_linear_bytes(e->packed));
    hemi_circuit_evaluator_free(e->circuit);
    hemi_linear_free(e->linear);
    hemi_linear_free(e->packed);
    hemi_batch_free(e->batch);
    hemi_free(e->bias);
    hemi_module_free(e->module);
    (void)pthread_mutex_destroy(&e->lock);
    hemi_free(e);
}

size_t hemi_evaluator_working_bytes(const hemi_evaluator *e, size_t units, size_t workers) {
    return e->circuit ? hemi_circuit_evaluator_working_bytes(e->circuit) : hemi_linear_working_bytes(e->linear, units, workers);
}

/* Second components of all inputs, spread for an integer product (8 bytes a residue), and the results of the slots. */
size_t hemi_evaluator_batch_working_bytes(const hemi_evaluator *e, size_t slots) {
    return HEMI_BATCH_SLOTS_MAX * sizeof(uint64_t) * (size_t)e->info.inputs + sizeof(uint64_t) * slots * e->info.outputs;
}

size_t hemi_evaluator_bytes(const hemi_evaluator *e) {
    if (e->circuit) return hemi_circuit_evaluator_bytes(e->circuit);
    hemi_evaluator *guarded = (hemi_evaluator *)(uintptr_t)e;
    pthread_mutex_lock(&guarded->lock);
    const size_t packed = e->packed ? hemi_linear_bytes(e->packed) : 0;
    pthread_mutex_unlock(&guarded->lock);
    return hemi_linear_bytes(e->linear) + packed + (e->batch ? hemi_batch_bytes(e->batch) : 0);
}

const hemi_module_info *hemi_evaluator_info(const hemi_evaluator *e) { return &e->info; }

const hemi_batch *hemi_evaluator_batch(const hemi_evaluator *e) { return e->batch; }

const uint8_t *hemi_evaluator_id(const hemi_evaluator *e) { return e->info.id; }

/* The map of packed rows: its plaintexts are made when the first request of that form comes, within the memory for all of them. */
static hemi_status provide_packed(hemi_evaluator *e, hemi_team *team, hemi_error *err) {
    const hemi_linear_layout *l = &e->module->packed;
    const size_t limbs = l->params->baby_digits && !l->direct ? 2 : 1; /* as hemi_linear_bytes counts: precise maps also modulo P */
    const size_t bytes = limbs * hemi_linear_products(l) * l->n * HEMI_PACKED_COEFFICIENT_BYTES;
    if (e->packed) return HEMI_OK;
    const bool may = e->batch && e->memory == HEMI_LINEAR_FAST;
    if (!may || atomic_fetch_add(&packed_bytes, bytes) + bytes > HEMI_SERVER_PACKED_BYTES_MAX) {
        if (may) atomic_fetch_sub(&packed_bytes, bytes);
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "this server does not hold this module for packed rows: send one row in each unit (form 0)");
    }
    const hemi_context *ctx;
    int16_t *weights = hemi_alloc_large((size_t)l->inputs * l->outputs, sizeof *weights);
    hemi_status s = weights ? hemi_context_shared(&ctx, l->params, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for packed rows");
    if (s == HEMI_OK) {
        hemi_batch_weights(weights, e->batch);
        s = hemi_linear_new(&e->packed, ctx, l, weights, e->bias, e->module->info.delta, HEMI_LINEAR_FAST, team, err);
    }
    hemi_free(weights);
    if (s != HEMI_OK) atomic_fetch_sub(&packed_bytes, bytes);
    return s;
}

static hemi_status map_of(const hemi_linear **map, const hemi_evaluator *e, hemi_form form, hemi_team *team, hemi_error *err) {
    hemi_evaluator *guarded = (hemi_evaluator *)(uintptr_t)e; /* what is behind the lock may change */
    *map = e->linear;
    if (form == HEMI_FORM_SINGLE) return HEMI_OK;
    pthread_mutex_lock(&guarded->lock);
    const hemi_status s = provide_packed(guarded, team, err);
    *map = guarded->packed;
    pthread_mutex_unlock(&guarded->lock);
    return s;
}

static const hemi_evaluator *find(const hemi_evaluator *const *modules, size_t count, const uint8_t *id) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(modules[i]->info.id, id, HEMI_MODULE_ID_BYTES) == 0) return modules[i];
    return NULL;
}

/* The request must be for this module exactly. */
static hemi_status check_fit(const hemi_request *r, const hemi_evaluator *e, hemi_error *err) {
    const hemi_module_info *m = &e->info;
    if (r->params != m->params)
        return hemi_fail(err, HEMI_ERR_PARAMS, "the request is of set %s, the module of %s", r->params->name, m->params->name);
    if (e->circuit) return hemi_fail(err, HEMI_ERR_FORMAT, "the module is a circuit, whose requests are of another kind");
    if (!hemi_module_layout(e->module, r->form))
        return hemi_fail(err, HEMI_ERR_FORMAT, "the request is of form %d, which the module does not have", (int)r->form);
    const hemi_request want = hemi_module_request(e->module, r->form, r->units);
    if (r->layout != want.layout || r->b_bits != want.b_bits)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the request has layout %u with %u bits, the module %u with %u: fetch its description anew",
                         r->layout, r->b_bits, want.layout, want.b_bits);
    if (r->coefficients != want.coefficients || r->ciphertexts != want.ciphertexts)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the request has %u ciphertexts of %u coefficients, the module (%u inputs) wants %u of %u",
                         r->ciphertexts, r->coefficients, m->inputs, want.ciphertexts, want.coefficients);
    return HEMI_OK;
}

/* The modules that a request names: they read the same units. */
typedef struct named {
    size_t count;
    const hemi_evaluator *evaluator[HEMI_REQUEST_MODULES_MAX];
    hemi_reply_frame frame[HEMI_REQUEST_MODULES_MAX];
    size_t total; /* bytes of the reply */
} named;

/* The module that a request names. */
static hemi_status find_module(const hemi_evaluator **e, const hemi_evaluator *const *modules, size_t count, const uint8_t *id, hemi_error *err) {
    *e = find(modules, count, id);
    if (*e) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_CONFLICT,
                     "the model has no module with this id: it was compiled anew since the client fetched its description; fetch it again");
}

static hemi_status find_named(named *n, const hemi_request *r, const hemi_evaluator *const *modules, size_t module_count, hemi_error *err) {
    *n = (named){.count = r->modules, .total = HEMI_REPLY_HEADER_BYTES};
    for (size_t i = 0; i < r->modules; i++) {
        HEMI_TRY(find_module(&n->evaluator[i], modules, module_count, r->module_id[i], err));
        HEMI_TRY(check_fit(r, n->evaluator[i], err));
        n->frame[i] = hemi_module_frame(n->evaluator[i]->module, r->form, r->units);
        n->total += hemi_reply_frame_bytes(r->params, &n->frame[i]);
    }
    if (n->total > UINT32_MAX) return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the reply would have %zu bytes: send fewer rows", n->total);
    return HEMI_OK;
}

static hemi_status evaluate(const named *n, const hemi_evaluation_keys *keys, const hemi_request *r, const uint8_t *request, hemi_team *team,
                            const atomic_bool *stop, uint8_t *reply, hemi_error *err) {
    const hemi_linear *map[HEMI_REQUEST_MODULES_MAX];
    hemi_linear_output out[HEMI_REQUEST_MODULES_MAX];
    hemi_reply_write_header(reply, r->params, r->modules, n->total);
    uint8_t *at = reply + HEMI_REPLY_HEADER_BYTES;
    for (size_t i = 0; i < n->count; i++) {
        const hemi_reply_frame *f = &n->frame[i];
        HEMI_TRY(map_of(&map[i], n->evaluator[i], r->form, team, err));
        hemi_reply_frame_write_header(at, r->params, f);
        const size_t bytes = hemi_reply_frame_bytes(r->params, f);
        out[i] = (hemi_linear_output){at + HEMI_REPLY_FRAME_BYTES, (bytes - HEMI_REPLY_FRAME_BYTES) / f->ciphertexts, f->a_bits, f->b_bits, f->ring != 0};
        at += bytes;
    }
    const size_t first = hemi_request_ciphertext_offset(r, 0), stride = hemi_request_ciphertext_offset(r, 1) - first;
    if (team) hemi_team_stop_on(team, stop); /* now: what map_of makes is kept, and must be whole */
    HEMI_TRY(hemi_linear_multiply(map, n->count, keys, (hemi_linear_input){request + first, stride, r->b_bits}, out, r->units, team, err));
    return hemi_team_is_stopped(team) ? hemi_fail(err, HEMI_ERR_NETWORK, "given up: nobody waits for the result") : HEMI_OK;
}

/* What the two kinds of requests have in common. */
typedef struct call {
    const hemi_evaluator *const *modules;
    size_t count;
    const hemi_server_keys *keys;
    const uint8_t *request;
    size_t bytes;
    const hemi_evaluate_options *options;
    uint8_t *reply;
    size_t reply_bytes;
} call;

static hemi_status allocate_reply(call *c, size_t bytes, hemi_error *err) {
    c->reply = hemi_alloc(bytes, 1);
    c->reply_bytes = bytes;
    return c->reply ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a reply of %zu bytes", bytes);
}

static hemi_team *team_for(const call *c) { return c->options->threads == 1 && !c->options->stop ? NULL : hemi_team_new(c->options->threads); }

static hemi_status call_linear(call *c, hemi_error *err) {
    hemi_request r;
    named n;
    HEMI_TRY(hemi_request_parse(&r, c->request, c->bytes, err));
    HEMI_TRY(find_named(&n, &r, c->modules, c->count, err));
    HEMI_TRY(hemi_server_keys_check_set(c->keys, r.params, err));
    HEMI_TRY(allocate_reply(c, n.total, err));
    hemi_team *team = team_for(c);
    const hemi_status s = evaluate(&n, hemi_server_keys_expanded(c->keys), &r, c->request, team, c->options->stop, c->reply, err);
    hemi_team_free(team);
    return s;
}

static hemi_status call_circuit(call *c, hemi_error *err) {
    hemi_ckks_request r;
    const hemi_evaluator *e;
    HEMI_TRY(hemi_ckks_request_parse(&r, c->request, c->bytes, err));
    HEMI_TRY(find_module(&e, c->modules, c->count, r.module_id, err));
    if (!e->circuit)
        return hemi_fail(err, HEMI_ERR_PARAMS, "the request is of set %s, the module of %s", r.params->name, e->info.params->name);
    HEMI_TRY(hemi_circuit_evaluator_check(e->circuit, &r, err));
    HEMI_TRY(hemi_circuit_evaluator_check_keys(e->circuit, c->keys, err));
    const hemi_ckks_request header = hemi_circuit_reply(&e->circuit->io, &r);
    HEMI_TRY(allocate_reply(c, hemi_ckks_reply_bytes(&header), err));
    hemi_team *team = team_for(c);
    const hemi_status s =
        hemi_circuit_evaluator_run(e->circuit, hemi_server_keys_levelled(c->keys), &r, c->request, c->reply, team, c->options, err);
    hemi_team_free(team);
    return s;
}

hemi_status hemi_evaluate_with(const hemi_evaluator *const *modules, size_t module_count, const hemi_server_keys *keys, const void *request,
                               size_t request_bytes, const hemi_evaluate_options *options, uint8_t **reply, size_t *reply_bytes,
                               hemi_error *err) {
    call c = {.modules = modules, .count = module_count, .keys = keys, .request = request, .bytes = request_bytes, .options = options};
    *reply = NULL;
    *reply_bytes = 0;
    const hemi_status s = hemi_ckks_request_is(request, request_bytes) ? call_circuit(&c, err) : call_linear(&c, err);
    if (s != HEMI_OK) {
        hemi_free(c.reply);
        return s;
    }
    *reply = c.reply;
    *reply_bytes = c.reply_bytes;
    return HEMI_OK;
}

hemi_status hemi_evaluate(const hemi_evaluator *const *modules, size_t module_count, const hemi_server_keys *keys, const void *request,
                          size_t request_bytes, int threads, uint8_t **reply, size_t *reply_bytes, hemi_error *err) {
    const hemi_evaluate_options options = {.threads = threads};
    return hemi_evaluate_with(modules, module_count, keys, request, request_bytes, &options, reply, reply_bytes, err);
}

void hemi_bytes_free(void *bytes) { hemi_free(bytes); }
