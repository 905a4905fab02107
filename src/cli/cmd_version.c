#include "base/cpu.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "hemi/hemi.h"
#include "ring/kernels.h"

#include <stdio.h>

static int print_json(void) {
    json_t *kernels = json_array(), *sets = json_array();
    for (size_t i = 0; hemi_kernels_at(i); i++) json_array_append_new(kernels, json_string(hemi_kernels_at(i)->name));
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        json_array_append_new(sets,
                              json_pack("{s:s,s:I,s:f,s:f,s:b,s:i}", "name", p->name, "degree", (json_int_t)1 << p->log2_n,
                                        "log2_modulus", p->log2_modulus, "security_bits", p->security_bits,
                                        "reply_only", (int)p->reply_only, "levels", p->chain ? (int)p->chain - 1 : 0));
    }
    return cli_print_json(json_pack("{s:s,s:s,s:i,s:s,s:o,s:o}", "version", HEMI_VERSION, "cpu", hemi_cpu_name(),
                                    "processors", hemi_cpu_count(), "kernel", hemi_kernels_default()->name, "kernels",
                                    kernels, "sets", sets));
}

int cmd_version(int argc, char **argv) {
    bool json = false;
    const cli_command command = {.name = "version",
                                 .summary = "Version, processor, kernels and parameter sets.",
                                 .detail = "The environment variable HEMI_KERNEL chooses another kernel than the best.",
                                 .example = "  HEMI_KERNEL=portable hemi version",
                                 .json = &json};
    cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    if (json) return print_json();
    printf("hemi %s\n", HEMI_VERSION);
    cli_line("processor", "%s, %d usable", hemi_cpu_name(), hemi_cpu_count());
    cli_line("kernel", "%s", hemi_kernels_default()->name);
    for (size_t i = 0; i < hemi_params_count(); i++) {
        const hemi_params *p = hemi_params_at(i);
        char use[40] = "";
        if (p->reply_only) snprintf(use, sizeof use, " (replies only)");
        if (p->chain) snprintf(use, sizeof use, " (circuits, %u levels)", p->chain - 1);
        cli_line(i == 0 ? "parameter sets" : "", "%-8s N = %lu, log2 of the modulus %.1f, %.1f bits of security%s",
                 p->name, 1ul << p->log2_n, p->log2_modulus, p->security_bits, use);
    }
    return 0;
}
