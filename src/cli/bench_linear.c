/* hemi bench linear: one encrypted matrix product. */
#include <stdio.h>

#include "cli/bench_product.h"
#include "cli/commands.h"

static hemi_status make(cli_product *b, hemi_module **out, hemi_error *err) {
    const hemi_compile_options options = {
        .weight_bits = (int)b->weight_bits, .layout = (uint32_t)b->layout, .set = b->set};
    return cli_random_module(out, &b->random, (uint32_t)b->inputs, (uint32_t)b->outputs, b->x, (size_t)b->rows, options,
                             err);
}

static int report(const cli_product *b) {
    if (!b->json)
        printf("linear %zu -> %zu, %ld row%s, set %s, layout %u, %u products\n", b->inputs, b->outputs, b->rows,
               b->rows == 1 ? "" : "s", b->info.params->name, b->info.layout, b->info.products);
    return cli_product_report(b, NULL);
}

int bench_linear(int argc, char **argv) {
    cli_product b = {CLI_PRODUCT_DEFAULTS, .command = "bench linear", .make = make};
    long inputs = 0, outputs = 0;
    const cli_option options[] = {{"inputs", 'd', "D", CLI_INT, &inputs, 1, 65536, "features of a row"},
                                  {"outputs", 'm', "M", CLI_INT, &outputs, 1, 65536, "outputs of a row"},
                                  {"rows", 'r', "R", CLI_INT, &b.rows, 1, 4096, "rows in one request (default 1)"},
                                  CLI_PRODUCT_OPTIONS(&b),
                                  {0}};
    const cli_command command = {
        .name = "bench linear",
        .summary = "Measures one encrypted matrix product on this machine, and checks every result of it.",
        .detail = "server: from the bytes of the request to the bytes of the reply. error: of the decrypted reply "
                  "against the product of the\n"
                  "quantised values, Gaussian weights and uniform 8-bit inputs, as a standard deviation over a row's "
                  "largest output\n"
                  "(mean over rows). predicted_error is in the same unit. Exits with 20 when a result is wrong.",
        .options = options,
        .example = "  hemi bench linear --inputs 768 --outputs 768\n"
                   "  hemi bench linear --inputs 768 --outputs 768 --layout 4096 --kernel avx2 --json",
        .json = &b.json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (inputs == 0 || outputs == 0) {
        fprintf(stderr, "hemi bench linear: --inputs and --outputs are needed\n");
        return CLI_EXIT_USAGE;
    }
    b.inputs = (size_t)inputs;
    b.outputs = (size_t)outputs;
    hemi_error err = {0};
    hemi_status status = cli_product_run(&b, &err);
    if (status == HEMI_OK) b.has_plain = cli_plain_linear(&b.plain, b.inputs, b.outputs, (size_t)b.rows);
    int code = status == HEMI_OK ? report(&b) : cli_fail("bench linear", b.json, status, &err);
    cli_product_release(&b);
    return code;
}
