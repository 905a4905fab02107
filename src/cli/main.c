/* hemi: compile, serve and call parts of models on encrypted data. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"compile", cmd_compile, "turn an ONNX sub-module into the server's and the client's files"},
    {"serve", cmd_serve, "serve compiled models over HTTP"},
    {"call", cmd_call, "run a remote module on an encrypted .npy file"},
    {"inspect", cmd_inspect, "list compiled modules: shapes, sizes, security, predicted error"},
    {"keys", cmd_keys, "make or list secret keys"},
    {"tenants", cmd_tenants, "who may use a server: add, list or revoke tokens"},
    {"audit", cmd_audit, "rows that a server served: who is how near to knowing which module"},
    {"top", cmd_top, "a live table of a server: requests, rows, queue, latency, memory"},
    {"bench", cmd_bench, "measure speed, sizes and error on this machine"},
    {"version", cmd_version, "version, processor, kernels and parameter sets"},
};
#define COMMANDS (sizeof commands / sizeof *commands)

static void print_usage(FILE *stream) {
    fprintf(stream,
            "usage: hemi COMMAND [arguments]\n\nHemi runs chosen parts of a model on a server, on encrypted data.\n\n");
    for (size_t i = 0; i < COMMANDS; i++) fprintf(stream, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(stream, "\n`hemi COMMAND --help` explains a command. All of them in a row:\n"
                    "  hemi compile layer.onnx --name fc --calibration x.npy -o models/demo\n"
                    "  hemi serve models --no-auth &\n"
                    "  hemi call http://127.0.0.1:8000 demo fc --input x.npy --output y.npy\n");
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_usage(stderr);
        return CLI_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || (strcmp(name, "help") == 0 && argc == 2)) {
        print_usage(stdout);
        return 0;
    }
    char help[] = "--help", *help_argv[] = {argv[0], argv[argc > 2 ? 2 : 1], help, NULL};
    if (strcmp(name, "help") == 0) {
        argc = 3;
        argv = help_argv;
        name = argv[1];
    }
    if (strcmp(name, "--version") == 0) name = "version";
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "hemi: there is no command '%s'\n\n", name);
    print_usage(stderr);
    return CLI_EXIT_USAGE;
}
