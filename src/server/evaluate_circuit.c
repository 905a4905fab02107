#include "server/evaluate_circuit.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "wire/ckks_load.h"

/* ---- making */

void hemi_circuit_evaluator_free(hemi_circuit_evaluator *e) {
    if (!e) return;
    hemi_circuit_program_free(e->program);
    hemi_circuit_plan_free(e->plan);
    hemi_circuit_io_clear(&e->io);
    hemi_free(e);
}

hemi_status hemi_circuit_evaluator_new(hemi_circuit_evaluator **out, const hemi_module *module, hemi_team *team, hemi_error *err) {
    *out = NULL;
    if (!module->circuit || !module->plan)
        return hemi_fail(err, HEMI_ERR_STATE, "this module was read without its weights: open its server.zip");
    hemi_circuit_evaluator *e = hemi_alloc(1, sizeof *e);
    if (!e) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    hemi_status s = hemi_circuit_plan_again(&e->plan, module->circuit, module->plan, err); /* the program borrows its plan, and the module goes */
    if (s == HEMI_OK) s = hemi_circuit_io_from_plan(&e->io, module->circuit, e->plan, err);
    if (s == HEMI_OK && !hemi_circuit_io_equal(&e->io, &module->io))
        s = hemi_fail(err, HEMI_ERR_INTERNAL, "the module was compiled by another release, which laid it out differently: compile it anew");
    if (s == HEMI_OK) s = hemi_circuit_program_new(&e->program, module->circuit, e->plan, team, NULL, NULL, err);
    if (s != HEMI_OK) {
        hemi_circuit_evaluator_free(e);
        return s;
    }
    *out = e;
    return HEMI_OK;
}

size_t hemi_circuit_evaluator_working_bytes(const hemi_circuit_evaluator *e) {
    const size_t limb = sizeof(uint64_t) << e->io.params->log2_n;
    return hemi_circuit_program_working_bytes(e->program) + 2 * limb * ((size_t)e->io.in_blocks * e->io.limbs + 2 * (size_t)e->io.out_blocks);
}

size_t hemi_circuit_evaluator_bytes(const hemi_circuit_evaluator *e) { return sizeof *e + hemi_circuit_program_bytes(e->program); }

/* ---- what fits */

hemi_status hemi_circuit_evaluator_check(const hemi_circuit_evaluator *e, const hemi_ckks_request *r, hemi_error *err) {
    const hemi_circuit_io *io = &e->io;
    if (r->params != io->params)
        return hemi_fail(err, HEMI_ERR_PARAMS, "the request is of set %s, the module of %s", r->params->name, io->params->name);
    if (r->limbs != io->limbs)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the request has ciphertexts of %u limbs, the module wants %u: fetch its description anew", r->limbs,
                         io->limbs);
    if (r->ciphertexts != io->in_blocks)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the request has units of %u ciphertexts, the module (%u inputs) wants %u", r->ciphertexts, io->inputs,
                         io->in_blocks);
    return HEMI_OK;
}

hemi_status hemi_circuit_evaluator_check_keys(const hemi_circuit_evaluator *e, const hemi_server_keys *keys, hemi_error *err) {
    const hemi_circuit_io *io = &e->io;
    HEMI_TRY(hemi_server_keys_check_set(keys, io->params, err));
    const hemi_ckks_keys *k = hemi_server_keys_levelled(keys);
    if (k->limbs < io->limbs)
        return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys are for %u limbs, the module takes %u", k->limbs, io->limbs);
    for (size_t i = 0; i < io->automorphisms; i++)
        if (!hemi_ckks_keys_find(k, io->automorphism[i]))
            return hemi_fail(err, HEMI_ERR_KEY, "the evaluation keys lack automorphism %u, which the module takes", io->automorphism[i]);
    return HEMI_OK;
}

hemi_ckks_request hemi_circuit_reply(const hemi_circuit_io *io, const hemi_ckks_request *r) {
    hemi_ckks_request reply = *r;
    reply.limbs = 1;
    reply.ciphertexts = io->out_blocks;
    return reply;
}

/* ---- computing */

typedef struct run {
    const hemi_circuit_evaluator *e;
    const hemi_ckks_keys *keys;
    hemi_team *team;
    hemi_ckks_cipher *in, *out;
    uint64_t *scratch;
    hemi_stream secret;
    const hemi_evaluate_options *options;
    size_t unit, units;
} run;

static void run_clear(run *x) {
    for (uint32_t i = 0; x->in && i < x->e->io.in_blocks; i++) hemi_ckks_cipher_clear(&x->in[i]);
    for (uint32_t i = 0; x->out && i < x->e->io.out_blocks; i++) hemi_ckks_cipher_clear(&x->out[i]);
    hemi_free(x->in);
    hemi_free(x->out);
    hemi_free(x->scratch);
    hemi_stream_wipe(&x->secret);
}

static hemi_status run_init(run *x, hemi_error *err) {
    const hemi_circuit_io *io = &x->e->io;
    const hemi_ckks_context *ctx = x->keys->ctx;
    x->in = hemi_alloc(io->in_blocks, sizeof *x->in);
    x->out = hemi_alloc(io->out_blocks, sizeof *x->out);
    x->scratch = hemi_alloc(ctx->n, sizeof *x->scratch);
    if (!x->in || !x->out || !x->scratch) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to compute a circuit");
    for (uint32_t i = 0; i < io->in_blocks; i++) HEMI_TRY(hemi_ckks_cipher_init(&x->in[i], ctx, io->limbs, err));
    for (uint32_t i = 0; i < io->out_blocks; i++) HEMI_TRY(hemi_ckks_cipher_init(&x->out[i], ctx, 2, err));
    hemi_stream_init_fresh(&x->secret);
    return HEMI_OK;
}

/* Of all units together. */
static void tell(void *context, const char *what, size_t done, size_t total) {
    const run *x = context;
    x->options->progress(x->options->progress_context, what, x->unit * total + done, x->units * total);
}

static hemi_status run_unit(run *x, const hemi_ckks_request *r, const uint8_t *bytes, uint8_t *at, hemi_error *err) {
    const hemi_circuit_io *io = &x->e->io;
    const hemi_ckks_context *ctx = x->keys->ctx;
    for (uint32_t i = 0; i < io->in_blocks; i++)
        hemi_ckks_ciphertext_load(&x->in[i], ctx, bytes + hemi_ckks_request_ciphertext_offset(r, x->unit * io->in_blocks + i), io->limbs,
                                  io->in_scale, x->team);
    HEMI_TRY(hemi_circuit_evaluate(x->e->program, x->keys, x->in, x->out, x->team, x->options->progress ? tell : NULL, x, err));
    for (uint32_t i = 0; i < io->out_blocks; i++) {
        hemi_ckks_rerandomise(&x->out[i], x->keys, x->scratch, &x->secret);
        hemi_ckks_ciphertext_store(at + i * 2 * hemi_ckks_poly_bytes(io->params, 1), ctx, &x->out[i]);
    }
    return HEMI_OK;
}

hemi_status hemi_circuit_evaluator_run(const hemi_circuit_evaluator *e, const hemi_ckks_keys *keys, const hemi_ckks_request *r,
                                       const uint8_t *bytes, uint8_t *reply, hemi_team *team, const hemi_evaluate_options *options,
                                       hemi_error *err) {
    const hemi_ckks_request header = hemi_circuit_reply(&e->io, r);
    const size_t unit_bytes = (hemi_ckks_reply_bytes(&header) - HEMI_CKKS_REPLY_HEADER_BYTES) / r->units;
    run x = {.e = e, .keys = keys, .team = team, .options = options, .units = r->units};
    hemi_ckks_reply_write_header(reply, &header);
    hemi_status s = run_init(&x, err);
    if (team) hemi_team_stop_on(team, options->stop);
    for (; s == HEMI_OK && x.unit < x.units; x.unit++)
        s = run_unit(&x, r, bytes, reply + HEMI_CKKS_REPLY_HEADER_BYTES + x.unit * unit_bytes, err);
    run_clear(&x);
    return s;
}
