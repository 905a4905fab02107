#include "server/batches.h"

#include <sodium.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"

typedef struct answer {
    hemi_prepared *prepared;
    size_t *held;
    const hemi_server_keys *keys;
    const uint8_t *in; /* the request */
    hemi_batch_request r;
    hemi_team *team;
    struct {
        const hemi_evaluator *evaluator;
        hemi_batch_frame frame;
        uint8_t name[HEMI_BATCH_NAME_BYTES];
    } part[HEMI_REQUEST_MODULES_MAX];
} answer;

static const hemi_evaluator *find(const hemi_evaluator *const *modules, size_t count, const uint8_t *id) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(hemi_evaluator_id(modules[i]), id, HEMI_MODULE_ID_BYTES) == 0) return modules[i];
    return NULL;
}

static hemi_status check_fit(const hemi_batch_request *r, const hemi_evaluator *e, hemi_error *err) {
    const hemi_module_info *m = hemi_evaluator_info(e);
    if (m->params->chain != 0)
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED,
                         "this module is a circuit: its rows are sent in requests of their own kind, and not prepared in batches");
    if (!hemi_evaluator_batch(e))
        return hemi_fail(err, HEMI_ERR_UNSUPPORTED, "this module has no form for batches of rows: call it row by row");
    if (r->inputs != m->inputs)
        return hemi_fail(err, HEMI_ERR_SHAPE, "the request has %u inputs, the module %u", r->inputs, m->inputs);
    if (r->b_bits != m->b_bits)
        return hemi_fail(err, HEMI_ERR_FORMAT, "the request has %u bits, the module %u: fetch its description anew",
                         r->b_bits, m->b_bits);
    return HEMI_OK;
}

/* Fills in part i: its evaluator, frame, name and tag. */
static hemi_status begin_part(answer *a, size_t i, const hemi_evaluator *const *modules, size_t count,
                              hemi_error *err) {
    const hemi_batch_request *r = &a->r;
    const hemi_evaluator *e = find(modules, count, r->module[i].id);
    if (!e)
        return hemi_fail(err, HEMI_ERR_CONFLICT,
                         "the model has no module with this id: it was compiled anew since the client fetched its "
                         "description; fetch it again");
    HEMI_TRY(check_fit(r, e, err));
    const hemi_module_info *m = hemi_evaluator_info(e);
    hemi_batch_frame *f = &a->part[i].frame;
    *f = (hemi_batch_frame){.rows = r->rows,
                            .outputs = m->outputs,
                            .a_bits = m->reply_a_bits,
                            .b_bits = m->reply_b_bits,
                            .seconds = r->seconds};
    memcpy(f->id, m->id, sizeof f->id);
    hemi_batch_name(a->part[i].name, hemi_server_keys_id(a->keys), r, i);
    hemi_prepared_tag(a->prepared, f->tag, a->part[i].name);
    a->part[i].evaluator = e;
    if (!r->seconds && sodium_memcmp(f->tag, r->module[i].tag, sizeof f->tag) != 0)
        return hemi_fail(
            err, HEMI_ERR_STATE,
            "what was prepared for these rows is gone: the server was started anew, or they were announced "
            "elsewhere. Announce a new batch, or call without");
    if (r->seconds && r->rows == 0)
        return hemi_prepared_fits(a->prepared, hemi_batch_state_bytes_for(m->outputs, r->slots), err);
    return HEMI_OK;
}

/* The state of part i, computed. packed_a: NULL, or where its second components go. */
static hemi_status compute(const answer *a, size_t i, uint8_t *packed_a, hemi_batch_state **state, hemi_error *err) {
    HEMI_TRY(hemi_batch_prepare(state, packed_a, a->part[i].frame.a_bits, hemi_evaluator_batch(a->part[i].evaluator),
                              hemi_server_keys_expanded(a->keys), a->r.seed, hemi_prepared_secret(a->prepared),
                              a->part[i].name, sizeof a->part[i].name, a->r.slots, a->team, err));
    if (!hemi_team_is_stopped(a->team)) return HEMI_OK;
    hemi_batch_state_free(*state);
    *state = NULL;
    return hemi_fail(err, HEMI_ERR_NETWORK, "given up: nobody waits for the result");
}

static hemi_status keep(const answer *a, size_t i, hemi_batch_state *state, const hemi_batch_state **kept,
                        hemi_error *err) {
    *kept = hemi_prepared_put(a->prepared, hemi_server_keys_id(a->keys), a->part[i].frame.tag, state, a->held);
    return *kept ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory to keep what was prepared");
}

static hemi_status rows(const answer *a, size_t i, const hemi_batch_state *state, uint8_t *out, hemi_error *err) {
    return hemi_batch_rows(hemi_evaluator_batch(a->part[i].evaluator), state, a->r.first, a->r.rows,
                           a->in + hemi_batch_rows_offset(&a->r), a->r.b_bits, out, a->part[i].frame.b_bits, a->team,
                           err);
}

/* Rows of a batch that was announced. */
static hemi_status answer_rows(const answer *a, size_t i, uint8_t *out, hemi_error *err) {
    const hemi_batch_state *state = hemi_prepared_acquire(a->prepared, a->part[i].frame.tag);
    if (!state) { /* evicted, or expired: from the same numbers the same again */
        hemi_batch_state *made;
        HEMI_TRY(compute(a, i, NULL, &made, err));
        HEMI_TRY(keep(a, i, made, &state, err));
    }
    const hemi_status status = rows(a, i, state, out, err);
    hemi_prepared_release(a->prepared, state);
    return status;
}

/* An announcement, or a whole batch: nothing of the latter is needed again. */
static hemi_status answer_new(const answer *a, size_t i, uint8_t *out, hemi_error *err) {
    hemi_batch_state *state;
    HEMI_TRY(compute(a, i, out, &state, err));
    if (a->r.rows > 0) {
        const hemi_status status =
            rows(a, i, state, out + hemi_batch_seconds_bytes(a->r.params, &a->part[i].frame), err);
        hemi_batch_state_free(state);
        return status;
    }
    const hemi_batch_state *kept;
    HEMI_TRY(keep(a, i, state, &kept, err));
    hemi_prepared_release(a->prepared, kept);
    return HEMI_OK;
}

static hemi_status answer_all(const answer *a, uint8_t *out, size_t total, hemi_error *err) {
    hemi_batch_reply_write_header(out, a->r.params, a->r.modules, total);
    uint8_t *at = out + HEMI_BATCH_REPLY_BYTES;
    for (size_t i = 0; i < a->r.modules; i++) {
        hemi_batch_frame_write_header(at, a->r.params, &a->part[i].frame);
        uint8_t *body = at + HEMI_BATCH_FRAME_BYTES;
        HEMI_TRY(a->r.seconds ? answer_new(a, i, body, err) : answer_rows(a, i, body, err));
        at += hemi_batch_frame_bytes(a->r.params, &a->part[i].frame);
    }
    return HEMI_OK;
}

hemi_status hemi_batches_answer(hemi_prepared *prepared, size_t *held, const hemi_evaluator *const *modules, size_t module_count,
                                const hemi_server_keys *keys, const void *request, size_t request_bytes, int threads, const atomic_bool *stop,
                                uint8_t **reply, size_t *reply_bytes, hemi_error *err) {
    answer a = {.prepared = prepared, .held = held, .keys = keys, .in = request};
    size_t total = HEMI_BATCH_REPLY_BYTES;
    *reply = NULL;
    *reply_bytes = 0;
    HEMI_TRY(hemi_batch_request_parse(&a.r, request, request_bytes, err));
    for (size_t i = 0; i < a.r.modules; i++) {
        HEMI_TRY(begin_part(&a, i, modules, module_count, err));
        total += hemi_batch_frame_bytes(a.r.params, &a.part[i].frame);
    }
    HEMI_TRY(hemi_server_keys_check_set(keys, a.r.params, err));
    if (total > UINT32_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the reply would have %zu bytes: name fewer modules", total);
    uint8_t *out = hemi_alloc(total, 1);
    if (!out) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a reply of %zu bytes", total);
    a.team = threads == 1 && !stop ? NULL : hemi_team_new(threads);
    if (a.team) hemi_team_stop_on(a.team, stop);
    hemi_status status = answer_all(&a, out, total, err);
    if (status == HEMI_OK && hemi_team_is_stopped(a.team)) status = hemi_fail(err, HEMI_ERR_NETWORK, "given up: nobody waits for the result");
    hemi_team_free(a.team);
    if (status != HEMI_OK) {
        hemi_free(out);
        return status;
    }
    *reply = out;
    *reply_bytes = total;
    return HEMI_OK;
}
