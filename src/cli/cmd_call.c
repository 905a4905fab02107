#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/passphrase.h"
#include "cli/report.h"
#include "hemi/client.h"
#include "model/npy.h"

enum { ENCRYPT, NETWORK, SERVER, DECRYPT, TOTAL, PARTS };
static const char *const part_names[PARTS] = {"encrypt_ms", "network_ms", "server_ms", "decrypt_ms", "total_ms"};

typedef struct calls {
    const char *url, *model, *module, *input, *output, *keys_folder, *shape;
    cli_passphrase_source passphrase;
    const char *prepare, *token_file, *ca_file;
    long repeat, timeout;
    int prepare_mode;
    bool json;
    float *x, *y;
    uint32_t shape_x[HEMI_NPY_RANK_MAX], shape_y[HEMI_NPY_RANK_MAX];
    size_t rank, rank_y, rows;
    uint32_t inputs, outputs;
    double open_ms, first_ms, median[PARTS];
    size_t upload_bytes, download_bytes, evaluation_key_bytes, prepared_calls, out_of_range;
} calls;

/* ---- what goes in and out */

static hemi_status take_rows(calls *c, const hemi_module_info *info, hemi_error *err) {
    uint32_t last = c->shape_x[c->rank - 1];
    if (last != info->inputs)
        return hemi_fail(err, HEMI_ERR_SHAPE, "%.200s has %u features in its last dimension, the module takes %u",
                         c->input, last, info->inputs);
    c->rows = 1;
    for (size_t i = 0; i + 1 < c->rank; i++) c->rows *= c->shape_x[i];
    c->rank_y = c->rank;
    memcpy(c->shape_y, c->shape_x, sizeof c->shape_y);
    c->shape_y[c->rank - 1] = info->outputs;
    return HEMI_OK;
}

/* With or without a dimension that counts them. */
static hemi_status take_samples(calls *c, const hemi_module_info *info, hemi_error *err) {
    const size_t sides = info->shape_rank - 1, before = c->rank > sides ? c->rank - sides : 0;
    if (c->rank < sides || before > 1 || memcmp(c->shape_x + before, info->shape + 1, sides * sizeof *info->shape) != 0) {
        char shape[128];
        cli_shape_name(shape, info->shape, info->shape_rank);
        return hemi_fail(err, HEMI_ERR_SHAPE, "%.200s does not hold samples of the module's shape: it was compiled for %s",
                         c->input, shape);
    }
    c->rows = before > 0 ? c->shape_x[0] : 1;
    c->rank_y = info->output_rank - 1 + before;
    memcpy(c->shape_y + before, info->output_shape + 1, (info->output_rank - 1) * sizeof *info->output_shape);
    if (before > 0) c->shape_y[0] = c->shape_x[0];
    return HEMI_OK;
}

static hemi_status prepare(calls *c, hemi_remote *remote, hemi_error *err) {
    hemi_module_info info;
    hemi_module_get_info(hemi_remote_module(remote), &info);
    c->inputs = info.inputs;
    c->outputs = info.outputs;
    HEMI_TRY(cli_takes_rows(&info) ? take_rows(c, &info, err) : take_samples(c, &info, err));
    c->y = hemi_alloc(c->rows * (size_t)info.outputs, sizeof *c->y);
    return c->y ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rows", c->rows);
}

static hemi_status repeat_calls(calls *c, hemi_remote *remote, hemi_error *err) {
    size_t count = (size_t)c->repeat;
    double *times = hemi_alloc(count * PARTS, sizeof *times);
    if (!times) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_status status = HEMI_OK;
    for (size_t i = 0; i < count && status == HEMI_OK; i++) {
        hemi_call_stats s = {0};
        if (count > 1) hemi_progress_bar(stderr, "calls", i, count);
        double start = hemi_now_ms();
        status = hemi_remote_call(remote, c->x, c->rows, c->y, &s, err);
        const double parts[PARTS] = {s.encrypt_ms, s.network_ms, s.server_ms, s.decrypt_ms, hemi_now_ms() - start};
        for (size_t p = 0; p < PARTS; p++) times[p * count + i] = parts[p];
        if (i == 0) c->first_ms = parts[TOTAL];
        c->upload_bytes = s.upload_bytes;
        c->download_bytes = s.download_bytes;
        c->evaluation_key_bytes += s.evaluation_key_bytes;
        if (s.prepared_rows > 0) c->prepared_calls++;
        if (s.rows_out_of_range > c->out_of_range) c->out_of_range = s.rows_out_of_range; /* the same in every call, but for noise */
    }
    if (status == HEMI_OK && count > 1) hemi_progress_bar(stderr, "calls", count, count);
    /* the first call makes and uploads keys: it is not part of the medians when there are others */
    size_t skip = count > 1 ? 1 : 0;
    for (size_t p = 0; p < PARTS; p++) c->median[p] = cli_median(times + p * count + skip, count - skip);
    hemi_free(times);
    return status;
}

static hemi_status with_remote(calls *c, hemi_client *client, hemi_error *err) {
    hemi_remote *remote = NULL;
    double start = hemi_now_ms();
    HEMI_TRY(hemi_remote_open(&remote, client, c->model, c->module, c->shape, err));
    c->open_ms = hemi_now_ms() - start;
    hemi_status status = prepare(c, remote, err);
    if (status == HEMI_OK) status = repeat_calls(c, remote, err);
    hemi_remote_free(remote);
    return status;
}

/* One bar at a time: of several calls, they themselves are counted. */
static void progress(void *context, const char *what, size_t done, size_t total) {
    const calls *c = context;
    if (c->repeat == 1 || strcmp(what, "infer") != 0) hemi_progress_bar(stderr, what, done, total);
}

static hemi_status open_keys(const calls *c, hemi_keys **keys, hemi_error *err) {
    char *passphrase = NULL;
    if (c->passphrase.file || c->passphrase.command || (c->keys_folder && cli_keys_are_sealed(c->keys_folder)))
        HEMI_TRY(cli_read_passphrase(&passphrase, &c->passphrase, "passphrase of the secret key", false, err));
    const hemi_keys_options options = {.folder = c->keys_folder, .passphrase = passphrase};
    const hemi_status status = hemi_keys_new_with(keys, &options, err);
    hemi_free(passphrase); /* wiped */
    return status;
}

static hemi_status run(calls *c, hemi_error *err) {
    hemi_keys *keys = NULL;
    hemi_client *client = NULL;
    char *token = NULL;
    HEMI_TRY(cli_read_token(&token, c->token_file, err));
    const hemi_client_options options = {.token = token, .ca_file = c->ca_file, .timeout_ms = c->timeout * 1000, .prepare = c->prepare_mode, .progress = progress, .progress_context = c};
    hemi_status status = hemi_npy_read(&c->x, c->shape_x, &c->rank, c->input, err);
    if (status == HEMI_OK) status = open_keys(c, &keys, err);
    if (status == HEMI_OK) status = hemi_client_new(&client, c->url, keys, &options, err);
    hemi_free(token); /* wiped */
    if (status == HEMI_OK) status = with_remote(c, client, err);
    hemi_client_free(client);
    hemi_keys_free(keys);
    if (status == HEMI_OK && c->output) status = hemi_npy_write(c->output, c->y, c->shape_y, c->rank_y, err);
    return status;
}

/* ---- the report */

static int report(const calls *c) {
    if (c->out_of_range > 0)
        fprintf(stderr, "hemi call: %zu of %zu rows reach beyond what the module was calibrated for: do not rely on their results\n",
                c->out_of_range, c->rows);
    if (c->json) {
        json_t *j = json_pack("{s:s,s:s,s:s,s:s,s:s?,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f}", "url", c->url, "model",
                              c->model, "module", c->module, "input", c->input, "output", c->output, "rows",
                              (json_int_t)c->rows, "inputs", (json_int_t)c->inputs, "outputs", (json_int_t)c->outputs,
                              "repeat", (json_int_t)c->repeat, "upload_bytes", (json_int_t)c->upload_bytes,
                              "download_bytes", (json_int_t)c->download_bytes, "evaluation_key_bytes",
                              (json_int_t)c->evaluation_key_bytes, "prepared_calls", (json_int_t)c->prepared_calls,
                              "rows_out_of_range", (json_int_t)c->out_of_range, "open_ms", c->open_ms, "first_call_ms", c->first_ms);
        for (size_t p = 0; p < PARTS; p++) json_object_set_new(j, part_names[p], json_real(c->median[p]));
        return cli_print_json(j);
    }
    char up[24], down[24], keys[24];
    printf("%s %s at %s: %zu row%s, %u -> %u\n", c->model, c->module, c->url, c->rows, c->rows == 1 ? "" : "s",
           c->inputs, c->outputs);
    cli_line("time", "%.3f ms = encrypt %.3f + network %.3f + server %.3f + decrypt %.3f%s", c->median[TOTAL],
             c->median[ENCRYPT], c->median[NETWORK], c->median[SERVER], c->median[DECRYPT],
             c->repeat > 1 ? " (medians)" : "");
    cli_line("bytes", "up %s, down %s", cli_bytes(up, c->upload_bytes), cli_bytes(down, c->download_bytes));
    cli_line("once", "open %.1f ms, first call %.1f ms, evaluation keys %s", c->open_ms, c->first_ms,
             cli_bytes(keys, c->evaluation_key_bytes));
    if (c->prepared_calls > 0) cli_line("prepared", "%zu of %ld calls", c->prepared_calls, c->repeat);
    if (c->output) cli_line("output", "%s", c->output);
    return 0;
}

static bool parse_mode(calls *c) {
    static const char *const names[] = {"off", "auto", "on"}; /* -1, 0, 1 */
    if (!c->prepare) return true;
    for (int i = 0; i < 3; i++)
        if (strcmp(c->prepare, names[i]) == 0) {
            c->prepare_mode = i - 1;
            return true;
        }
    return false;
}

int cmd_call(int argc, char **argv) {
    calls c = {.repeat = 1};
    const cli_positional positionals[] = {{"URL", &c.url, "of the server: http://127.0.0.1:8000"},
                                          {"MODEL", &c.model, "the model's name: its folder on the server"},
                                          {"MODULE", &c.module, "the module's name: \"seq.0\""},
                                          {0}};
    const cli_option options[] = {
        {"input", 'i', "X.npy", CLI_TEXT, &c.input, 0, 0, "any number of rows, features last; or of samples"},
        {"output", 'o', "Y.npy", CLI_TEXT, &c.output, 0, 0, "float32; the input's leading shape"},
        {"keys", 'k', "FOLDER", CLI_TEXT, &c.keys_folder, 0, 0,
         "keep the secret key there (default: a new one, in memory only)"},
        {"shape", 0, "SHAPE", CLI_TEXT, &c.shape, 0, 0, "po_1_768_pc, where the module was compiled for several"},
        {"repeat", 'n', "N", CLI_INT, &c.repeat, 1, 1000000, "repeat the call; times are medians without the first"},
        {"prepare", 0, "MODE", CLI_TEXT, &c.prepare, 0, 0,
         "auto (default): prepare coming calls after the second, in the background, where it helps; on: after the "
         "first; off"},
        CLI_PASSPHRASE_OPTIONS(c.passphrase),
        CLI_TOKEN_OPTIONS(c.token_file, c.ca_file),
        {"timeout", 't', "S", CLI_INT, &c.timeout, 1, 86400, "seconds that a request may take (default 300; 3600 for circuits)"},
        {0}};
    const cli_command command = {
        .name = "call",
        .summary = "Encrypts the rows of X.npy, has the server compute on them, decrypts the result into Y.npy.",
        .detail = "The first call makes a secret key and uploads evaluation keys; the secret key stays here.",
        .positionals = positionals,
        .options = options,
        .example = "  hemi call http://127.0.0.1:8000 demo seq.0 --input x.npy --output y.npy",
        .json = &c.json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (!c.input) {
        fprintf(stderr, "hemi call: --input X.npy is missing\ntry: hemi call --help\n");
        return CLI_EXIT_USAGE;
    }
    if (!parse_mode(&c)) {
        fprintf(stderr, "hemi call: --prepare takes auto, on or off, not '%s'\n", c.prepare);
        return CLI_EXIT_USAGE;
    }
    hemi_error err = {0};
    hemi_status status = run(&c, &err);
    int code = status == HEMI_OK ? report(&c) : cli_fail("call", c.json, status, &err);
    hemi_free(c.x);
    hemi_free(c.y);
    return code;
}
