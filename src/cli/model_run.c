#include "cli/model_run.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "client/codec.h"
#include "random/sample.h"

/* ---- layers */

/* Layer `layer` of a shape, always with the same weights: `common` says what it must share with others. */
static hemi_status compile(hemi_module **out, const cli_model *m, size_t shape, size_t layer, const float *x,
                           const hemi_compile_options *common, hemi_error *err) {
    const cli_shape *s = &m->shapes.shape[shape];
    const uint32_t rows[2] = {1, s->inputs};
    cli_random random = {(shape + 1) * 0x10001 + layer};
    hemi_compile_options options = *common;
    options.weight_bits = (int)m->weight_bits;
    options.input_bits = CLI_INPUT_BITS;
    float *weights = cli_random_weights(&random, (size_t)s->inputs * s->outputs);
    *out = NULL;
    if (!weights) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the weights of %s", s->name);
    const hemi_status status =
        hemi_module_from_linear(out, weights, NULL, s->outputs, s->inputs, x, rows, 2, &options, err);
    hemi_free(weights);
    return status;
}

/* What the members of a group must have in common: found by compiling each by itself. */
static hemi_status find_common(hemi_compile_options *common, const cli_model *m, const size_t *shape, size_t members,
                               size_t layer, const float *x, hemi_error *err) {
    uint32_t largest = 0;
    for (size_t i = 0; members > 1 && i < members; i++) {
        const hemi_compile_options alone = {0};
        hemi_module *module;
        hemi_module_info info;
        HEMI_TRY(compile(&module, m, shape[i], layer, x, &alone, err));
        hemi_module_get_info(module, &info);
        if (info.outputs > largest) {
            largest = info.outputs;
            common->layout = info.layout;
        }
        if (i == 0 || info.delta < common->delta_max) common->delta_max = info.delta;
        if (info.b_bits > common->b_bits) common->b_bits = info.b_bits;
        hemi_module_free(module);
    }
    return HEMI_OK;
}

static hemi_status add_member(cli_model *m, cli_group *g, size_t shape, size_t layer,
                              const hemi_compile_options *common, hemi_error *err) {
    const hemi_evaluator_options options = {.threads = (int)m->threads, .small_memory = m->small};
    const size_t i = g->members++;
    hemi_module *made, *opened = NULL;
    double load_ms = 0;
    g->expected[i] = hemi_alloc(m->shapes.shape[shape].outputs, sizeof *g->expected[i]);
    if (!g->expected[i]) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    HEMI_TRY(compile(&made, m, shape, layer, g->x, common, err));
    hemi_status status = cli_through_files(made, &options, 1, &opened, &g->evaluator[i], &load_ms, err);
    hemi_module_free(made);
    if (status == HEMI_OK) status = hemi_module_run_clear(opened, g->x, 1, g->expected[i], false, err);
    if (status == HEMI_OK) {
        hemi_module_info info;
        const char *json = hemi_module_client_json(opened);
        hemi_module_get_info(opened, &info);
        g->predicted_error[i] = info.predicted_error;
        status = hemi_module_from_client_json(&g->module[i], json, strlen(json), err);
    }
    hemi_module_free(opened);
    m->load_ms += load_ms * g->scale;
    return status;
}

static hemi_status add_group(cli_model *m, size_t source, size_t layer, double scale, hemi_error *err) {
    cli_group *g = &m->group[m->groups++];
    uint8_t id[HEMI_SEED_BYTES];
    hemi_compile_options common = {0};
    size_t shape[HEMI_REQUEST_MODULES_MAX], members = 0;
    cli_random random = {layer * CLI_SHAPES_MAX + source + 1};
    for (size_t i = source; i < m->shapes.count; i++)
        if (m->shapes.shape[i].source == source) shape[members++] = i; /* at most as many, by cli_shapes_read */
    g->first = source;
    g->scale = scale;
    g->x = hemi_alloc(m->shapes.shape[source].inputs, sizeof *g->x);
    if (!g->x) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    cli_random_rows(&random, g->x, 1, m->shapes.shape[source].inputs);
    HEMI_TRY(find_common(&common, m, shape, members, layer, g->x, err));
    hemi_seed_fresh(id);
    if (members > 1) common.input_group = id;
    for (size_t i = 0; i < members; i++) {
        HEMI_TRY(add_member(m, g, shape[i], layer, &common, err));
        m->layers_held++;
    }
    return hemi_modules_share((const hemi_module *const *)g->module, members, err);
}

static size_t held(const cli_model *m, const cli_shape *s) {
    return m->layers > 0 && (size_t)m->layers < s->count ? (size_t)m->layers : s->count;
}

static size_t resident_bytes(void) {
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%*s %lu", &pages) != 1) pages = 0;
        fclose(f);
    }
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Block by block, as a token meets them. */
static hemi_status add_groups(cli_model *m, hemi_error *err) {
    size_t deepest = 0, total = 0;
    for (size_t i = 0; i < m->shapes.count; i++) {
        const size_t n = held(m, &m->shapes.shape[i]);
        deepest = n > deepest ? n : deepest;
        total += n;
    }
    m->group = hemi_alloc(total, sizeof *m->group);
    if (!m->group) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    const size_t before = resident_bytes();
    for (size_t layer = 0; layer < deepest; layer++)
        for (size_t i = 0; i < m->shapes.count; i++) {
            const cli_shape *s = &m->shapes.shape[i];
            hemi_progress_bar(stderr, "layers", m->layers_held, total);
            if (s->source == i && layer < held(m, s))
                HEMI_TRY(add_group(m, i, layer, (double)s->count / (double)held(m, s), err));
        }
    hemi_progress_bar(stderr, "layers", total, total);
    malloc_trim(0);
    m->rss_bytes = resident_bytes() - before;
    for (size_t i = 0; i < m->groups; i++)
        for (size_t j = 0; j < m->group[i].members; j++) {
            const double bytes = (double)hemi_evaluator_bytes(m->group[i].evaluator[j]);
            m->held_bytes += bytes;
            m->server_bytes += bytes * m->group[i].scale;
        }
    return HEMI_OK;
}

/* ---- keys */

static hemi_status make_keys(cli_model *m, hemi_error *err) {
    const hemi_module **all = hemi_alloc(m->layers_held, sizeof *all);
    uint8_t *bytes = NULL;
    size_t n = 0, length;
    if (!all) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < m->groups; i++)
        for (size_t j = 0; j < m->group[i].members; j++) all[n++] = m->group[i].module[j];
    hemi_status status = hemi_keys_new(&m->keys, NULL, err);
    if (status == HEMI_OK) status = hemi_keys_evaluation(m->keys, all, n, &bytes, &m->evaluation_key_bytes, err);
    hemi_free(all);
    if (status == HEMI_OK) status = hemi_server_keys_new(&m->own_keys, bytes, m->evaluation_key_bytes, err);
    hemi_bytes_release(bytes);
    HEMI_TRY(status);
    HEMI_TRY(hemi_keys_public(m->keys, hemi_params_by_name(HEMI_BATCH_SET), &bytes, &length, err));
    status = hemi_server_keys_new(&m->batch_keys, bytes, length, err);
    hemi_bytes_release(bytes);
    return status;
}

hemi_status cli_model_open(cli_model *m, hemi_error *err) {
    const hemi_prepared_limits limits = {
        .bytes = SIZE_MAX, .key_bytes = SIZE_MAX, .key_batches = SIZE_MAX, .expiry_ms = 1e12};
    uint32_t widest = 1;
    for (size_t i = 0; i < m->shapes.count; i++)
        widest = m->shapes.shape[i].outputs > widest ? m->shapes.shape[i].outputs : widest;
    if (hemi_random_init() != 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "the system gives no randomness");
    m->prepared = hemi_prepared_new(&limits);
    bool enough = m->prepared != NULL;
    for (size_t i = 0; i < HEMI_REQUEST_MODULES_MAX; i++)
        enough = (m->y[i] = hemi_alloc(widest, sizeof *m->y[i])) != NULL && enough;
    if (!enough) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    HEMI_TRY(add_groups(m, err));
    return make_keys(m, err);
}

void cli_model_close(cli_model *m) {
    hemi_prepared_free(m->prepared);
    for (size_t i = 0; i < m->groups; i++) {
        cli_group *g = &m->group[i];
        for (size_t j = 0; j < g->members; j++) {
            hemi_evaluator_free(g->evaluator[j]);
            hemi_module_free(g->module[j]);
            hemi_free(g->expected[j]);
        }
        hemi_lot_free(g->lot);
        hemi_free(g->x);
    }
    for (size_t i = 0; i < HEMI_REQUEST_MODULES_MAX; i++) hemi_free(m->y[i]);
    hemi_free(m->group);
    hemi_server_keys_free(m->own_keys);
    hemi_server_keys_free(m->batch_keys);
    hemi_keys_free(m->keys);
}

/* ---- tokens */

static void check(cli_model *m, const cli_group *g) {
    for (size_t i = 0; i < g->members; i++) {
        hemi_module_info info;
        hemi_module_get_info(g->module[i], &info);
        for (size_t o = 0; o < info.outputs; o++) {
            const double error = ((double)m->y[i][o] - (double)g->expected[i][o]) / g->predicted_error[i];
            m->squares += error * error;
            if (!(fabs(error) <= CLI_WRONG_SIGMAS)) m->outputs_wrong++;
        }
        m->outputs_checked += info.outputs;
    }
}

/* A request and its reply, whatever their form; `t` holds when each step began and the last one ended. */
typedef struct exchange {
    uint8_t *request, *reply;
    size_t request_bytes, reply_bytes;
    double t[4], cpu[2];
} exchange;

static void count(cli_token *token, const cli_group *g, const exchange *e) {
    token->client_ms += g->scale * (e->t[1] - e->t[0] + e->t[3] - e->t[2]);
    token->server_ms += g->scale * (e->t[2] - e->t[1]);
    token->server_cpu_ms += g->scale * (e->cpu[1] - e->cpu[0]);
    token->upload_bytes += g->scale * (double)e->request_bytes;
    token->download_bytes += g->scale * (double)e->reply_bytes;
}

static void release(exchange *e) {
    hemi_bytes_release(e->request);
    hemi_bytes_free(e->reply);
}

static hemi_status call_group(cli_model *m, const cli_group *g, exchange *e, hemi_error *err) {
    const hemi_module *const *modules = (const hemi_module *const *)g->module;
    hemi_pending *pending[HEMI_REQUEST_MODULES_MAX] = {0};
    e->t[0] = hemi_now_ms();
    HEMI_TRY(hemi_encrypt_many(modules, g->members, m->keys, HEMI_FORM_SINGLE, g->x, 1, pending, &e->request,
                               &e->request_bytes, err));
    e->t[1] = hemi_now_ms();
    e->cpu[0] = cli_process_cpu_ms();
    hemi_status status = hemi_evaluate((const hemi_evaluator *const *)g->evaluator, g->members, m->own_keys, e->request,
                                       e->request_bytes, (int)m->threads, &e->reply, &e->reply_bytes, err);
    e->cpu[1] = cli_process_cpu_ms();
    e->t[2] = hemi_now_ms();
    if (status == HEMI_OK)
        status = hemi_decrypt_many(modules, g->members, m->keys, pending, e->reply, e->reply_bytes, m->y, err);
    e->t[3] = hemi_now_ms();
    for (size_t i = 0; i < g->members; i++) hemi_pending_free(pending[i]);
    return status;
}

hemi_status cli_model_token(cli_model *m, cli_token *token, hemi_error *err) {
    *token = (cli_token){0};
    for (size_t i = 0; i < m->groups; i++) {
        exchange e = {0};
        const hemi_status status = call_group(m, &m->group[i], &e, err);
        release(&e);
        HEMI_TRY(status);
        count(token, &m->group[i], &e);
        check(m, &m->group[i]);
    }
    return HEMI_OK;
}

/* ---- prepared tokens */

bool cli_model_can_prepare(const cli_model *m) {
    for (size_t i = 0; i < m->groups; i++) {
        const cli_group *g = &m->group[i];
        if (!hemi_lot_possible((const hemi_module *const *)g->module, g->members)) return false;
        for (size_t j = 0; j < g->members; j++)
            if (!hemi_evaluator_batch(g->evaluator[j])) return false;
    }
    return true;
}

static hemi_status answer(cli_model *m, const cli_group *g, exchange *e, hemi_error *err) {
    e->t[1] = hemi_now_ms();
    e->cpu[0] = cli_process_cpu_ms();
    const hemi_status status =
        hemi_batches_answer(m->prepared, NULL, (const hemi_evaluator *const *)g->evaluator, g->members, m->batch_keys,
                            e->request, e->request_bytes, (int)m->threads, NULL, &e->reply, &e->reply_bytes, err);
    e->cpu[1] = cli_process_cpu_ms();
    e->t[2] = hemi_now_ms();
    return status;
}

static hemi_status announce(cli_model *m, cli_group *g, exchange *e, hemi_error *err) {
    size_t offset[HEMI_REQUEST_MODULES_MAX];
    e->t[0] = hemi_now_ms();
    HEMI_TRY(
        hemi_lot_new(&g->lot, m->keys, (const hemi_module *const *)g->module, g->members, (uint32_t)m->slots, err));
    HEMI_TRY(hemi_lot_header(g->lot, 0, &e->request, &e->request_bytes, err));
    HEMI_TRY(answer(m, g, e, err));
    const hemi_status status = hemi_lot_accept(g->lot, m->keys, e->reply, e->reply_bytes, 0, offset, err);
    e->t[3] = hemi_now_ms();
    return status;
}

hemi_status cli_model_prepare(cli_model *m, hemi_error *err) {
    cli_token all = {0};
    for (size_t i = 0; i < m->groups; i++) {
        exchange e = {0};
        const size_t before = hemi_prepared_get_figures(m->prepared).bytes;
        hemi_progress_bar(stderr, "preparing", i, m->groups);
        const hemi_status status = announce(m, &m->group[i], &e, err);
        release(&e);
        HEMI_TRY(status);
        count(&all, &m->group[i], &e);
        m->state_bytes += m->group[i].scale * (double)(hemi_prepared_get_figures(m->prepared).bytes - before);
    }
    hemi_progress_bar(stderr, "preparing", m->groups, m->groups);
    m->prepare_ms = all.server_ms;
    m->prepare_cpu_ms = all.server_cpu_ms;
    m->prepare_client_ms = all.client_ms;
    m->prepare_upload_bytes = all.upload_bytes;
    m->prepare_download_bytes = all.download_bytes;
    return HEMI_OK;
}

static hemi_status encrypt_row(cli_group *g, uint32_t slot, double *factor, exchange *e, hemi_error *err) {
    hemi_batch_request r = g->lot->request;
    r.seconds = false;
    r.first = slot;
    r.rows = 1;
    e->request_bytes = hemi_batch_request_bytes(&r);
    e->request = hemi_alloc(e->request_bytes, 1);
    if (!e->request) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_batch_request_write_header(e->request, &r);
    return hemi_lot_encrypt(g->lot, g->module[0], slot, g->x, 1, false, factor, e->request + hemi_batch_rows_offset(&r),
                            err);
}

/* b0: zeros, there is no bias. */
static hemi_status decrypt_row(cli_model *m, const cli_group *g, uint32_t slot, const double *factor, double *b0,
                               const exchange *e, hemi_error *err) {
    hemi_batch_frame frame[HEMI_REQUEST_MODULES_MAX];
    size_t offset[HEMI_REQUEST_MODULES_MAX];
    for (size_t i = 0; i < g->members; i++) {
        frame[i] = g->lot->frame[i];
        frame[i].seconds = false;
        frame[i].rows = 1;
    }
    HEMI_TRY(hemi_batch_reply_parse(e->reply, e->reply_bytes, g->lot->request.params, frame, g->members, offset, err));
    for (size_t i = 0; i < g->members; i++)
        HEMI_TRY(
            hemi_lot_decrypt(g->lot, g->module[i], i, slot, e->reply + offset[i], 1, false, factor, b0, m->y[i], err));
    return HEMI_OK;
}

static hemi_status call_prepared(cli_model *m, cli_group *g, uint32_t slot, double *b0, exchange *e, hemi_error *err) {
    double factor;
    e->t[0] = hemi_now_ms();
    HEMI_TRY(encrypt_row(g, slot, &factor, e, err));
    HEMI_TRY(answer(m, g, e, err));
    const hemi_status status = decrypt_row(m, g, slot, &factor, b0, e, err);
    e->t[3] = hemi_now_ms();
    return status;
}

hemi_status cli_model_prepared_token(cli_model *m, uint32_t slot, cli_token *token, hemi_error *err) {
    uint32_t widest = 1;
    for (size_t i = 0; i < m->shapes.count; i++)
        widest = m->shapes.shape[i].outputs > widest ? m->shapes.shape[i].outputs : widest;
    double *b0 = hemi_alloc(widest, sizeof *b0);
    if (!b0) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_status status = HEMI_OK;
    *token = (cli_token){0};
    for (size_t i = 0; i < m->groups && status == HEMI_OK; i++) {
        exchange e = {0};
        status = call_prepared(m, &m->group[i], slot, b0, &e, err);
        release(&e);
        if (status != HEMI_OK) break;
        count(token, &m->group[i], &e);
        check(m, &m->group[i]);
    }
    hemi_free(b0);
    return status;
}
