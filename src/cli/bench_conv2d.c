/* hemi bench conv2d: one sample through one encrypted convolution. */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"
#include "cli/bench_product.h"
#include "cli/commands.h"

typedef struct bench {
    cli_product product; /* first */
    hemi_conv conv;
    uint32_t sides[2];
} bench;

static hemi_status make(cli_product *product, hemi_module **out, hemi_error *err) {
    const hemi_conv *c = &((bench *)product)->conv;
    const hemi_compile_options options = {.weight_bits = (int)product->weight_bits,
                                          .input_bits = CLI_INPUT_BITS,
                                          .layout = (uint32_t)product->layout,
                                          .set = product->set};
    const size_t count = (size_t)c->out_channels * (c->in_channels / c->groups) * c->kernel[0] * c->kernel[1];
    float *weights = cli_random_weights(&product->random, count);
    if (!weights) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu weights", count);
    const hemi_status status =
        hemi_module_from_conv(out, weights, NULL, c, product->x, (uint32_t)product->rows, &options, err);
    hemi_free(weights);
    return status;
}

static int report(const bench *b) {
    const hemi_conv *c = &b->conv;
    const cli_product *p = &b->product;
    if (!p->json)
        printf("conv2d %u -> %u, %u x %u, stride %u, padding %u, %u group%s, %u x %u -> %u x %u, set %s, layout %u, "
               "%u unit%s of %u products\n",
               c->in_channels, c->out_channels, c->kernel[0], c->kernel[1], c->stride[0], c->padding[0], c->groups,
               c->groups == 1 ? "" : "s", c->height, c->width, b->sides[0], b->sides[1], p->info.params->name,
               p->info.layout, p->info.units, p->info.units == 1 ? "" : "s", p->info.products);
    return cli_product_report(p, json_pack("{s:I,s:I,s:[I,I],s:I,s:I,s:I,s:[I,I],s:[I,I]}", "in_channels",
                                           (json_int_t)c->in_channels, "out_channels", (json_int_t)c->out_channels,
                                           "kernel_size", (json_int_t)c->kernel[0], (json_int_t)c->kernel[1], "stride",
                                           (json_int_t)c->stride[0], "padding", (json_int_t)c->padding[0], "groups",
                                           (json_int_t)c->groups, "size", (json_int_t)c->height, (json_int_t)c->width,
                                           "output_size", (json_int_t)b->sides[0], (json_int_t)b->sides[1]));
}

/* "64x48", or "64" for a square. */
static bool read_sides(const char *text, uint32_t sides[2]) {
    char *end;
    const long first = strtol(text, &end, 10);
    const long second = *end == 'x' ? strtol(end + 1, &end, 10) : first;
    if (end == text || *end || first < 1 || second < 1 || first > 65536 || second > 65536) return false;
    sides[0] = (uint32_t)first;
    sides[1] = (uint32_t)second;
    return true;
}

typedef struct given {
    long in_channels, out_channels, stride, padding, dilation, groups;
    const char *kernel_size, *size;
} given;

/* What is wrong with the command line; NULL: nothing. */
static const char *take(bench *b, const given *g) {
    hemi_conv *c = &b->conv;
    if (!g->in_channels || !g->out_channels || !g->size) return "--in-channels, --out-channels and --size are needed";
    if (g->in_channels % g->groups || g->out_channels % g->groups)
        return "--groups must divide both numbers of channels";
    *c = (hemi_conv){.in_channels = (uint32_t)g->in_channels,
                     .out_channels = (uint32_t)g->out_channels,
                     .groups = (uint32_t)g->groups};
    for (size_t i = 0; i < 2; i++) {
        c->stride[i] = (uint32_t)g->stride;
        c->padding[i] = (uint32_t)g->padding;
        c->dilation[i] = (uint32_t)g->dilation;
    }
    uint32_t size[2];
    if (!read_sides(g->size, size)) return "--size takes HxW, such as 64x64";
    if (!read_sides(g->kernel_size, c->kernel)) return "--kernel-size takes HxW, or one number";
    c->height = size[0];
    c->width = size[1];
    if (!hemi_conv_sides(c, b->sides)) return "the window is larger than the padded sample";
    b->product.inputs = (size_t)c->in_channels * c->height * c->width;
    b->product.outputs = (size_t)c->out_channels * b->sides[0] * b->sides[1];
    return NULL;
}

int bench_conv2d(int argc, char **argv) {
    bench b = {.product = {CLI_PRODUCT_DEFAULTS, .command = "bench conv2d", .make = make}};
    given g = {.stride = 1, .dilation = 1, .groups = 1, .kernel_size = "3"};
    const cli_option options[] = {
        {"in-channels", 'i', "C", CLI_INT, &g.in_channels, 1, 65536, "channels of a sample"},
        {"out-channels", 'o', "C", CLI_INT, &g.out_channels, 1, 65536, "channels of its result"},
        {"size", 's', "HxW", CLI_TEXT, &g.size, 0, 0, "height and width of a sample"},
        {"kernel-size", 'w', "HxW", CLI_TEXT, &g.kernel_size, 0, 0, "of the window (default 3)"},
        {"stride", 0, "N", CLI_INT, &g.stride, 1, 1024, "of the window (default 1)"},
        {"padding", 'p', "N", CLI_INT, &g.padding, 0, 1024, "zeros at every edge (default 0)"},
        {"dilation", 0, "N", CLI_INT, &g.dilation, 1, 1024, "of the window (default 1)"},
        {"groups", 'g', "N", CLI_INT, &g.groups, 1, 65536, "of channels (default 1)"},
        CLI_PRODUCT_OPTIONS(&b.product),
        {0}};
    const cli_command command = {
        .name = "bench conv2d",
        .summary =
            "Measures one sample through one encrypted convolution on this machine, and checks every result of it.",
        .detail =
            "Figures as in `hemi bench linear`; plain: im2col and products in float32. Exits with 20 when a result "
            "is wrong.",
        .options = options,
        .example =
            "  hemi bench conv2d --in-channels 64 --out-channels 64 --size 8x8 --padding 1\n"
            "  hemi bench conv2d -i 3 -o 64 -s 64x64 --kernel-size 7 --stride 2 --padding 3 --kernel avx2 --json",
        .json = &b.product.json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    const char *mistake = take(&b, &g);
    if (mistake) {
        fprintf(stderr, "hemi bench conv2d: %s\n", mistake);
        return CLI_EXIT_USAGE;
    }
    hemi_error err = {0};
    const hemi_status status = cli_product_run(&b.product, &err);
    if (status == HEMI_OK) b.product.has_plain = cli_plain_conv(&b.product.plain, &b.conv);
    const int code = status == HEMI_OK ? report(&b) : cli_fail("bench conv2d", b.product.json, status, &err);
    cli_product_release(&b.product);
    return code;
}
