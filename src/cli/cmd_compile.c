#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "model/npy.h"

#define ONNX_BYTES_MAX ((size_t)2 << 30)

typedef struct compile {
    const char *onnx, *name, *calibration, *output, *set;
    long n_bits, input_bits, layout, b_bits, rows, degree_max;
    double tolerance, range_margin;
    bool json, force_circuit;
    char folder[4096]; /* what was written */
    double elapsed_ms;
    hemi_module *module;
    hemi_module_info info;
} compile;

/* The name becomes a folder and a part of an URL. */
static hemi_status check_name(const char *name, hemi_error *err) {
    size_t plain = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (name[0] && name[0] != '.' && !name[plain] && plain <= 128) return HEMI_OK;
    return hemi_fail(
        err, HEMI_ERR_ARGUMENT,
        "'%.60s' cannot be a module's name: at most 128 letters, digits, '.', '_' and '-', not beginning with '.'",
        name);
}

static hemi_status compile_module(compile *c, hemi_error *err) {
    uint8_t *onnx = NULL;
    size_t onnx_bytes = 0;
    float *x = NULL;
    uint32_t shape[HEMI_NPY_RANK_MAX];
    size_t rank = 0;
    HEMI_TRY(hemi_file_read(&onnx, &onnx_bytes, c->onnx, ONNX_BYTES_MAX, err));
    hemi_status status = hemi_npy_read(&x, shape, &rank, c->calibration, err);
    if (status == HEMI_OK) {
        const hemi_compile_options options = {.weight_bits = (int)c->n_bits,
                                              .input_bits = (int)c->input_bits,
                                              .layout = (uint32_t)c->layout,
                                              .set = c->set,
                                              .b_bits = (unsigned)c->b_bits,
                                              .tolerance = c->tolerance,
                                              .range_margin = c->range_margin,
                                              .degree_max = (uint32_t)c->degree_max,
                                              .rows = (uint32_t)c->rows,
                                              .force_circuit = c->force_circuit,
                                              .progress = hemi_progress_bar,
                                              .progress_context = stderr};
        /* a single row may come without a leading dimension */
        if (rank == 1) {
            shape[1] = shape[0];
            shape[0] = 1;
            rank = 2;
        }
        status = hemi_module_compile(&c->module, onnx, onnx_bytes, x, shape, rank, &options, err);
        if (status == HEMI_ERR_UNSUPPORTED || status == HEMI_ERR_FORMAT)
            status = hemi_fail_in(err, status, "%.200s", c->onnx);
    }
    hemi_free(x);
    hemi_free(onnx);
    return status;
}

static hemi_status run(compile *c, hemi_error *err) {
    char shape[128];
    HEMI_TRY(check_name(c->name, err));
    double start = hemi_now_ms();
    HEMI_TRY(compile_module(c, err));
    hemi_module_get_info(c->module, &c->info);
    cli_shape_name(shape, c->info.shape, c->info.shape_rank);
    int n = snprintf(c->folder, sizeof c->folder, "%s/%s/%s", c->output, c->name, shape);
    if (n < 0 || (size_t)n >= sizeof c->folder)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "the path of the output folder is too long");
    HEMI_TRY(hemi_module_save(c->module, c->folder, err));
    c->elapsed_ms = hemi_now_ms() - start;
    return HEMI_OK;
}

static size_t file_bytes(const char *folder, const char *name) {
    char path[4200];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &info) == 0 ? (size_t)info.st_size : 0;
}

/* "8-bit weights"; of circuits, where 0 bits are no rounding: "weights as they are". */
static const char *write_bits(char text[40], int bits, const char *what) {
    if (bits > 0)
        snprintf(text, 40, "%d-bit %s", bits, what);
    else
        snprintf(text, 40, "%s as they are", what);
    return text;
}

static void print_circuit(const compile *c) {
    const hemi_module_info *i = &c->info;
    const char *what = i->circuit_rows ? "row" : "sample";
    char up[24], down[24], keys[24];
    cli_line("encryption", "set %s, %.1f bits of security, %u of %u levels", i->params->name, i->params->security_bits, i->levels,
             i->params->chain - 1);
    if (i->packed_rows > 1)
        cli_line("one call", "up to %u %ss at once: %s up, %s down; evaluation keys %s, once", i->packed_rows, what,
                 cli_bytes(up, i->upload_bytes), cli_bytes(down, i->download_bytes), cli_bytes(keys, i->evaluation_key_bytes));
    else
        cli_line("one call", "one %s: %s up, %s down; evaluation keys %s, once", what, cli_bytes(up, i->upload_bytes),
                 cli_bytes(down, i->download_bytes), cli_bytes(keys, i->evaluation_key_bytes));
    cli_line("inputs", "calibrated for %.4g to %.4g: a call says which %ss are beyond", i->input_low, i->input_high, what);
    cli_line("polynomials", "in place of activations they add %.2g %% to the outputs on the calibration data (rms over rms)",
             100 * i->approximation_error);
    if (i->predicted_error > 0)
        cli_line("predicted error", "%.3g from encryption; the largest output on the calibration data is %.3g: %.1f bits", i->predicted_error,
                 i->output_max, cli_expected_bits(i));
    cli_print_activations(c->module);
}

static void print_product(const compile *c) {
    const hemi_module_info *i = &c->info;
    char up[24], down[24], keys[24];
    cli_line("encryption", "set %s, %.1f bits of security, layout %u, %u products", i->params->name,
             i->params->security_bits, i->layout, i->products);
    cli_line(strcmp(i->operation, "linear") == 0 ? "one row" : "one sample", "%s up, %s down; evaluation keys %s, once",
             cli_bytes(up, i->upload_bytes), cli_bytes(down, i->download_bytes), cli_bytes(keys, i->evaluation_key_bytes));
    cli_line("predicted error", "%.3g; the largest output on the calibration data is %.3g: %.1f bits",
             i->predicted_error, i->output_max, cli_expected_bits(i));
}

static int report(const compile *c) {
    const hemi_module_info *i = &c->info;
    size_t client = file_bytes(c->folder, "client.zip"), server = file_bytes(c->folder, "server.zip");
    if (c->json) {
        json_t *j = cli_module_json(i, c->module);
        json_object_set_new(j, "name", json_string(c->name));
        json_object_set_new(j, "folder", json_string(c->folder));
        json_object_set_new(j, "client_file_bytes", json_integer((json_int_t)client));
        json_object_set_new(j, "server_file_bytes", json_integer((json_int_t)server));
        json_object_set_new(j, "compile_ms", json_real(c->elapsed_ms));
        return cli_print_json(j);
    }
    char bytes[24], sides[128], weights[40], inputs[40];
    cli_sides(sides, i);
    printf("compiled %s in %.0f ms\n", c->folder, c->elapsed_ms);
    cli_line("operation", "%s, %s%s, %s, %s", i->operation, sides, i->has_bias ? " with bias" : "", write_bits(weights, i->weight_bits, "weights"),
             write_bits(inputs, i->input_bits, "inputs"));
    if (cli_is_circuit(i))
        print_circuit(c);
    else
        print_product(c);
    cli_line("client.zip", "%s, for the application: no weight is in it", cli_bytes(bytes, client));
    cli_line("server.zip", "%s, for the server only", cli_bytes(bytes, server));
    return 0;
}

int cmd_compile(int argc, char **argv) {
    compile c = {.n_bits = 8};
    const cli_positional positionals[] = {{"MODULE.onnx", &c.onnx, "an ONNX file that holds the sub-module alone"},
                                          {0}};
    const cli_option options[] = {
        {"name", 'n', "NAME", CLI_TEXT, &c.name, 0, 0, "the module's name, as the model calls it: \"seq.0\""},
        {"calibration", 'c', "X.npy", CLI_TEXT, &c.calibration, 0, 0,
         "inputs as the module will see them, float32: features last, or samples first"},
        {"output", 'o', "DIR", CLI_TEXT, &c.output, 0, 0, "the model's folder; made if need be"},
        {"n-bits", 'b', "B", CLI_INT, &c.n_bits, 0, 16,
         "bits of weights (default 8; 0: the compiler's choice; of circuits: not rounded)"},
        {"input-bits", 0, "B", CLI_INT, &c.input_bits, 0, 16, "bits of inputs (default 16: they cost nothing; of circuits: not rounded)"},
        {"layout", 0, "S", CLI_INT, &c.layout, 0, 65536,
         "power of two (of rows: >= inputs): larger is less upload and more time (0: chosen)"},
        {"set", 0, "NAME", CLI_TEXT, &c.set, 0, 0, "parameter set (default L4096; of circuits: the cheapest that fits; `hemi version` lists them)"},
        {"b-bits", 0, "B", CLI_INT, &c.b_bits, 0, 50, "bits of an uploaded coefficient (0: chosen)"},
        {"tolerance", 0, "E", CLI_REAL, &c.tolerance, 0, 1,
         "circuits: the error that polynomials may add to outputs, of their rms (default 0.04). Less is slower and may take a larger set"},
        {"range-margin", 0, "F", CLI_REAL, &c.range_margin, 0, 1000,
         "circuits: ranges of activations over what the calibration data reaches (default 1.25, more where samples differ much)"},
        {"degree-max", 0, "D", CLI_INT, &c.degree_max, 0, 127, "circuits: the largest degree of a polynomial (default 127); twice the degree takes one level more"},
        {"rows", 0, "R", CLI_INT, &c.rows, 0, 32768,
         "circuits: rows or samples of a ciphertext, a power of two (0: chosen). A call with fewer costs as much"},
        {"force-circuit", 0, NULL, CLI_FLAG, &c.force_circuit, 0, 0, "a circuit even if the module is linear"},
        {0}};
    const cli_command command = {.name = "compile",
                                 .summary = "Compiles a sub-module: DIR/NAME/po_1_768_pc/ gets client.zip for the "
                                            "application and server.zip for the server.",
                                 .detail = "The ONNX file comes from torch.onnx.export(layer, x[:1], \"layer.onnx\"), "
                                           "the inputs from numpy.save(\"x.npy\", x).\n"
                                           "A module with activations, or products of values, becomes a circuit: "
                                           "polynomials take the place of activations, each on the\nrange that the inputs "
                                           "reach (give some hundred), of the least degree that keeps the outputs within the tolerance.",
                                 .positionals = positionals,
                                 .options = options,
                                 .example = "  hemi compile layer.onnx --name seq.0 --calibration x.npy -o models/demo\n"
                                            "  hemi compile mlp.onnx --name mlp --calibration x.npy -o models/demo --n-bits 0 --tolerance 0.01",
                                 .json = &c.json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (!c.name || !c.calibration || !c.output) {
        fprintf(stderr, "hemi compile: %s is missing\ntry: hemi compile --help\n",
                !c.name          ? "--name NAME"
                : !c.calibration ? "--calibration X.npy"
                                 : "-o DIR");
        return CLI_EXIT_USAGE;
    }
    hemi_error err = {0};
    hemi_status status = run(&c, &err);
    int code = status == HEMI_OK ? report(&c) : cli_fail("compile", c.json, status, &err);
    hemi_module_free(c.module);
    return code;
}
