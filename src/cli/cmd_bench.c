#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} benches[] = {
    {"linear", bench_linear, "one encrypted matrix product: time, sizes, error, beside float32"},
    {"conv2d", bench_conv2d, "one encrypted convolution: the same figures"},
    {"rows", bench_rows, "many rows in one request, in each form"},
    {"prepared", bench_prepared, "the same after silent preparation: online, and in all"},
    {"circuit", bench_circuit, "a module with non-linearities: small networks, a block of GPT-2"},
    {"model", bench_model, "one token through all layers of a model: gpt2, llama-3.2-1b, or a list of shapes"},
    {"serve", bench_serve, "a server under load: calls per second and latencies of 1, 2, ... clients"},
    {"ckks", bench_ckks, "the operations of a levelled set: products, rotations, keys"}};
#define BENCHES (sizeof benches / sizeof *benches)

int cmd_bench(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < BENCHES; i++)
        if (strcmp(argv[1], benches[i].name) == 0) return benches[i].run(argc - 1, argv + 1);
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    FILE *stream = help ? stdout : stderr;
    if (argc > 1 && !help) fprintf(stream, "hemi bench: there is no '%s'\n", argv[1]);
    fprintf(stream, "usage: hemi bench WHAT [options]\n\n");
    for (size_t i = 0; i < BENCHES; i++) fprintf(stream, "  %-10s %s\n", benches[i].name, benches[i].summary);
    fprintf(stream, "\n`hemi bench linear --help` explains it.\n");
    return help ? 0 : CLI_EXIT_USAGE;
}
