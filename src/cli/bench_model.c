/* hemi bench model: one token through all layers of a model. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/model_run.h"
#include "cli/options.h"
#include "cli/plain.h"
#include "cli/report.h"
#include "ring/kernels.h"

#define REPEAT_MAX 1000

typedef struct bench {
    cli_model model;
    const char *what, *kernel, *memory;
    long repeat;
    bool json, no_prepare;
    cli_token token, prepared;          /* medians */
    double least[2], prepared_least[2]; /* of the server: time, processor time */
    bool has_prepared, has_plain;
    cli_plain plain;
} bench;

static hemi_status one(bench *b, bool prepared, uint32_t slot, cli_token *token, hemi_error *err) {
    return prepared ? cli_model_prepared_token(&b->model, slot, token, err) : cli_model_token(&b->model, token, err);
}

/* The first token warms up. */
static hemi_status measure(bench *b, bool prepared, cli_token *median, double least[2], hemi_error *err) {
    const size_t count = (size_t)b->repeat;
    double times[3][REPEAT_MAX];
    for (size_t i = 0; i <= count; i++) {
        hemi_progress_bar(stderr, prepared ? "prepared tokens" : "tokens", i, count + 1);
        HEMI_TRY(one(b, prepared, (uint32_t)i, median, err));
        if (i == 0) continue;
        times[0][i - 1] = median->client_ms;
        times[1][i - 1] = median->server_ms;
        times[2][i - 1] = median->server_cpu_ms;
    }
    hemi_progress_bar(stderr, prepared ? "prepared tokens" : "tokens", count + 1, count + 1);
    median->client_ms = cli_median(times[0], count);
    median->server_ms = cli_median(times[1], count);
    median->server_cpu_ms = cli_median(times[2], count);
    least[0] = times[1][0]; /* sorted by now */
    least[1] = times[2][0];
    return HEMI_OK;
}

static hemi_status run(bench *b, hemi_error *err) {
    cli_plain_layer layer[CLI_SHAPES_MAX];
    HEMI_TRY(cli_choose_kernel(b->kernel, err));
    HEMI_TRY(cli_choose_memory(b->memory, &b->model.small, err));
    HEMI_TRY(cli_shapes_read(&b->model.shapes, b->what, err));
    for (size_t i = 0; i < b->model.shapes.count; i++) {
        const cli_shape *s = &b->model.shapes.shape[i];
        layer[i] = (cli_plain_layer){s->inputs, s->outputs, s->count};
    }
    if (b->model.slots <= b->repeat) b->model.slots = b->repeat + 1;
    HEMI_TRY(cli_model_open(&b->model, err));
    HEMI_TRY(measure(b, false, &b->token, b->least, err));
    b->has_prepared = !b->no_prepare && cli_model_can_prepare(&b->model);
    if (b->has_prepared) {
        HEMI_TRY(cli_model_prepare(&b->model, err));
        HEMI_TRY(measure(b, true, &b->prepared, b->prepared_least, err));
    }
    b->has_plain = cli_plain_layers(&b->plain, layer, b->model.shapes.count);
    return HEMI_OK;
}

/* ---- the report */

static json_t *token_json(const cli_token *t, const double least[2]) {
    return json_pack("{s:f,s:f,s:f,s:f,s:f,s:I,s:I}", "server_ms", t->server_ms, "server_ms_min", least[0],
                     "server_cpu_ms_min", least[1], "server_cpu_ms", t->server_cpu_ms, "client_ms", t->client_ms,
                     "upload_bytes", (json_int_t)t->upload_bytes, "download_bytes", (json_int_t)t->download_bytes);
}

static json_t *prepared_json(const bench *b) {
    const cli_model *m = &b->model;
    if (!b->has_prepared) return json_null();
    json_t *j = token_json(&b->prepared, b->prepared_least);
    json_t *more =
        json_pack("{s:I,s:f,s:f,s:f,s:I,s:I,s:I}", "slots", (json_int_t)m->slots, "prepare_ms", m->prepare_ms,
                  "prepare_cpu_ms", m->prepare_cpu_ms, "prepare_client_ms", m->prepare_client_ms,
                  "prepare_upload_bytes", (json_int_t)m->prepare_upload_bytes, "prepare_download_bytes",
                  (json_int_t)m->prepare_download_bytes, "server_state_bytes", (json_int_t)m->state_bytes);
    json_object_update(j, more);
    json_decref(more);
    return j;
}

static json_t *to_json(const bench *b) {
    const cli_model *m = &b->model;
    json_t *j =
        json_pack("{s:s,s:I,s:I,s:I,s:I,s:s,s:s,s:I,s:I,s:s}", "model", m->shapes.name, "layers",
                  (json_int_t)cli_shapes_layers(&m->shapes), "layers_held", (json_int_t)m->layers_held, "requests_held",
                  (json_int_t)m->groups, "weights", (json_int_t)cli_shapes_weights(&m->shapes), "kernel",
                  hemi_kernels_default()->name, "cpu", hemi_cpu_name(), "threads", (json_int_t)m->threads, "repeat",
                  (json_int_t)b->repeat, "memory", m->small ? "small" : "fast");
    json_t *more =
        json_pack("{s:f,s:I,s:I,s:I,s:I,s:f,s:I,s:I}", "load_ms", m->load_ms, "evaluation_key_bytes",
                  (json_int_t)m->evaluation_key_bytes, "server_weight_bytes", (json_int_t)m->server_bytes,
                  "server_weight_bytes_held", (json_int_t)m->held_bytes, "server_rss_bytes_held",
                  (json_int_t)m->rss_bytes, "error_over_predicted", sqrt(m->squares / (double)m->outputs_checked),
                  "outputs_checked", (json_int_t)m->outputs_checked, "outputs_wrong", (json_int_t)m->outputs_wrong);
    json_object_update(j, more);
    json_decref(more);
    json_object_set_new(j, "token", token_json(&b->token, b->least));
    json_object_set_new(j, "prepared", prepared_json(b));
    cli_plain_json(j, &b->plain, b->has_plain);
    return j;
}

static void print_token(const char *name, const cli_token *t, double least) {
    char up[24], down[24];
    cli_line(name, "%.2f ms (least %.2f; processor time %.2f), client %.2f ms, up %s, down %s", t->server_ms, least,
             t->server_cpu_ms, t->client_ms, cli_bytes(up, (size_t)t->upload_bytes),
             cli_bytes(down, (size_t)t->download_bytes));
}

static void print_table(const bench *b) {
    const cli_model *m = &b->model;
    const size_t all = cli_shapes_layers(&m->shapes);
    char bytes[24], other[24], by[64];
    printf("model %s: %zu layers, %.1f million weights, one token\n", m->shapes.name, all,
           (double)cli_shapes_weights(&m->shapes) / 1e6);
    if (m->layers_held < all)
        cli_line("held", "%zu of the layers; times and sizes of the others are taken to be the same", m->layers_held);
    cli_line("processor", "%s, kernel %s, %ld thread%s", hemi_cpu_name(), hemi_kernels_default()->name, m->threads,
             m->threads == 1 ? "" : "s");
    print_token("server", &b->token, b->least[0]);
    if (b->has_prepared) {
        print_token("prepared", &b->prepared, b->prepared_least[0]);
        cli_line("preparing", "%.0f ms a batch of %ld tokens, client %.0f ms, down %s, kept by the server %s",
                 m->prepare_ms, m->slots, m->prepare_client_ms, cli_bytes(bytes, (size_t)m->prepare_download_bytes),
                 cli_bytes(other, (size_t)m->state_bytes));
    }
    if (b->has_plain) cli_line("plain", "%.2f ms: float32 with %s", b->plain.ms, cli_plain_by(by, &b->plain));
    cli_line("server memory", "%s for the layers; %s added to this process by those held, %s",
             cli_bytes(bytes, (size_t)m->server_bytes), cli_bytes(other, m->rss_bytes), m->small ? "small" : "fast");
    cli_line("once", "load %.0f ms, evaluation keys %s", m->load_ms, cli_bytes(bytes, m->evaluation_key_bytes));
    cli_line("error", "%.2f of the predicted one, %zu outputs checked", sqrt(m->squares / (double)m->outputs_checked),
             m->outputs_checked);
}

static int report(const bench *b) {
    int code = 0;
    if (b->json)
        code = cli_print_json(to_json(b));
    else
        print_table(b);
    const cli_errors errors = {.outputs = b->model.outputs_checked, .wrong = b->model.outputs_wrong};
    const int wrong = cli_errors_code(&errors, "bench model");
    return wrong ? wrong : code;
}

int bench_model(int argc, char **argv) {
    bench b = {.repeat = 7, .model = {.threads = 1, .weight_bits = 8, .slots = 1}};
    const cli_positional positionals[] = {{"MODEL", &b.what, "gpt2, llama-3.2-1b, or a JSON list of layers"}, {0}};
    const cli_option options[] = {
        {"layers", 'l', "N", CLI_INT, &b.model.layers, 1, 4096,
         "hold at most N layers of each shape and scale the figures (default: all)"},
        {"memory", 0, "WAY", CLI_TEXT, &b.memory, 0, 0, "fast (default) or small: how a server holds weights"},
        {"slots", 's', "N", CLI_INT, &b.model.slots, 1, HEMI_BATCH_SLOTS_MAX,
         "tokens of a prepared batch (default: one more than --repeat)"},
        {"no-prepare", 0, NULL, CLI_FLAG, &b.no_prepare, 0, 0, "measure unprepared tokens only"},
        {"weight-bits", 0, "B", CLI_INT, &b.model.weight_bits, 2, 16, "bits of a weight (default 8)"},
        {"threads", 't', "T", CLI_INT, &b.model.threads, 0, 1024, "threads for one request (default 1; 0: all)"},
        {"kernel", 'k', "NAME", CLI_TEXT, &b.kernel, 0, 0, "portable, avx2 or avx512 (default: the best here)"},
        {"repeat", 'n', "N", CLI_INT, &b.repeat, 1, REPEAT_MAX, "tokens of each kind (default 7)"},
        {0}};
    const cli_command command = {
        .name = "bench model",
        .summary =
            "Measures one token through all layers of a model, before and after silent preparation, and checks every "
            "result.",
        .detail = "Weights are random. Layers that read the same input are served by one request. A file holds a list "
                  "such as\n"
                  "[{\"name\": \"q\", \"inputs\": 64, \"outputs\": 64, \"count\": 2}, {\"name\": \"k\", \"inputs\": "
                  "64, \"outputs\": 16, "
                  "\"count\": 2,\n"
                  "\"shared_with\": \"q\"}]. Exits with 20 when a result is wrong.",
        .positionals = positionals,
        .options = options,
        .example = "  hemi bench model gpt2\n"
                   "  hemi bench model llama-3.2-1b --layers 2 --kernel avx2 --json",
        .json = &b.json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    const hemi_status status = run(&b, &err);
    const int code = status == HEMI_OK ? report(&b) : cli_fail("bench model", b.json, status, &err);
    cli_model_close(&b.model);
    return code;
}
