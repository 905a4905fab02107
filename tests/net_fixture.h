/* Networks of convolutions for tests: each call adds a node to an ONNX graph and computes, number by number and in another way than the
 * compiler does, what it gives for one input. */
#ifndef HEMI_TEST_NET_FIXTURE_H
#define HEMI_TEST_NET_FIXTURE_H

#include "onnx_fixture.h"

typedef struct sample {
    size_t dims; /* 1: h = 1 */
    size_t c, h, w;
    double *v;
} sample;

typedef struct net {
    pb graph;
    test_rng rng;
    size_t nodes;
    char last[32]; /* name of the present value */
    sample now;    /* and what it is for x */
    sample input;
    bool flat; /* seen as N x (c h w) */
} net;

TEST_UNUSED static size_t sample_count(const sample *s) { return s->c * s->h * s->w; }

TEST_UNUSED static sample sample_new(size_t dims, size_t c, size_t h, size_t w) {
    sample s = {dims, c, h, w, calloc(c * h * w, sizeof(double))};
    assert_non_null(s.v);
    return s;
}

TEST_UNUSED static sample sample_copy(const sample *s) {
    sample t = sample_new(s->dims, s->c, s->h, s->w);
    memcpy(t.v, s->v, sample_count(s) * sizeof *t.v);
    return t;
}

TEST_UNUSED static net net_new(uint64_t seed, size_t dims, size_t c, size_t h, size_t w) {
    net n = {.rng = {seed}};
    n.input = sample_new(dims, c, dims == 1 ? 1 : h, w);
    for (size_t i = 0; i < sample_count(&n.input); i++) n.input.v[i] = test_real(&n.rng);
    n.now = sample_copy(&n.input);
    const int64_t shape2[] = {0, (int64_t)c, (int64_t)h, (int64_t)w}, shape1[] = {0, (int64_t)c, (int64_t)w};
    graph_input(&n.graph, "x", dims == 1 ? shape1 : shape2, dims + 2);
    snprintf(n.last, sizeof n.last, "x");
    return n;
}

TEST_UNUSED static void net_free(net *n) {
    free(n->now.v);
    free(n->input.v);
}

/* Ends the graph, which is taken. */
TEST_UNUSED static pb net_model(net *n) {
    graph_op(&n->graph, "Identity", n->last, "y");
    graph_output(&n->graph, "y");
    return model_of(n->graph, 13);
}

TEST_UNUSED static float *net_floats(net *n, const char *name, const int64_t *dims, size_t rank) {
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) count *= (size_t)dims[i];
    float *f = malloc(count * sizeof *f);
    assert_non_null(f);
    for (size_t i = 0; i < count; i++) f[i] = (float)test_real(&n->rng);
    graph_floats(&n->graph, name, dims, rank, f);
    return f;
}

/* A node from the present value (and more inputs) to a new one. */
TEST_UNUSED static pb net_node(net *n, const char *op, const char *more) {
    char inputs[128], output[32], name[48];
    snprintf(inputs, sizeof inputs, "%s%s%s", n->last, more[0] ? "," : "", more);
    snprintf(output, sizeof output, "v%zu", n->nodes);
    snprintf(name, sizeof name, "/%zu/%s", n->nodes++, op);
    snprintf(n->last, sizeof n->last, "%s", output);
    return new_node(op, name, inputs, output);
}

TEST_UNUSED static void net_set(net *n, sample s) {
    free(n->now.v);
    n->now = s;
}

typedef struct window {
    size_t k, stride, dilation, begin, end, groups, output_padding; /* the same on both sides */
    bool no_bias;
} window;

TEST_UNUSED static void add_window(pb *node, const window *w, size_t dims) {
    const int64_t k = (int64_t)w->k, s = (int64_t)w->stride, d = (int64_t)w->dilation, b = (int64_t)w->begin,
                  e = (int64_t)w->end;
    const int64_t op = (int64_t)w->output_padding;
    add_ints(node, "kernel_shape", (const int64_t[]){k, k}, dims);
    add_ints(node, "strides", (const int64_t[]){s, s}, dims);
    if (w->dilation > 1) add_ints(node, "dilations", (const int64_t[]){d, d}, dims);
    add_ints(node, "pads", dims == 1 ? (const int64_t[]){b, e} : (const int64_t[]){b, b, e, e}, 2 * dims);
    if (w->groups > 1) add_int(node, "group", (int64_t)w->groups);
    if (w->output_padding > 0) add_ints(node, "output_padding", (const int64_t[]){op, op}, dims);
}

TEST_UNUSED static double sample_at(const sample *s, size_t c, long y, long x) {
    if (y < 0 || x < 0 || y >= (long)s->h || x >= (long)s->w) return 0;
    return s->v[(c * s->h + (size_t)y) * s->w + (size_t)x];
}

TEST_UNUSED static size_t window_side(size_t in, const window *w) {
    return (in + w->begin + w->end - ((w->k - 1) * w->dilation + 1)) / w->stride + 1;
}

TEST_UNUSED static void net_conv(net *n, size_t outputs, window w) {
    const sample x = n->now;
    const size_t cg = x.c / w.groups, mg = outputs / w.groups, kh = x.dims == 1 ? 1 : w.k;
    char wn[32], bn[32], more[80];
    snprintf(wn, sizeof wn, "w%zu", n->nodes);
    snprintf(bn, sizeof bn, "b%zu", n->nodes);
    const int64_t k = (int64_t)w.k, dims[] = {(int64_t)outputs, (int64_t)cg, k, k}, bdims[] = {(int64_t)outputs};
    float *weight = net_floats(n, wn, dims, 2 + x.dims), *bias = w.no_bias ? NULL : net_floats(n, bn, bdims, 1);
    snprintf(more, sizeof more, "%s%s%s", wn, bias ? "," : "", bias ? bn : "");
    pb node = net_node(n, "Conv", more);
    add_window(&node, &w, x.dims);
    graph_node(&n->graph, node);
    sample y = sample_new(x.dims, outputs, x.dims == 1 ? 1 : window_side(x.h, &w), window_side(x.w, &w));
    for (size_t o = 0; o < outputs; o++)
        for (size_t i = 0; i < y.h; i++)
            for (size_t j = 0; j < y.w; j++) {
                double sum = bias ? (double)bias[o] : 0;
                for (size_t c = 0; c < cg; c++)
                    for (size_t a = 0; a < kh; a++)
                        for (size_t b = 0; b < w.k; b++) {
                            const long r = x.dims == 1 ? 0 : (long)(i * w.stride + a * w.dilation) - (long)w.begin;
                            const long s = (long)(j * w.stride + b * w.dilation) - (long)w.begin;
                            sum += (double)weight[((o * cg + c) * kh + a) * w.k + b] *
                                   sample_at(&x, o / mg * cg + c, r, s);
                        }
                y.v[(o * y.h + i) * y.w + j] = sum;
            }
    free(weight);
    free(bias);
    net_set(n, y);
}

/* Scattered: the other way round than the compiler. */
TEST_UNUSED static void net_conv_transpose(net *n, size_t outputs, window w) {
    const sample x = n->now;
    const size_t cg = x.c / w.groups, mg = outputs / w.groups, kh = x.dims == 1 ? 1 : w.k;
    char wn[32], bn[32], more[80];
    snprintf(wn, sizeof wn, "w%zu", n->nodes);
    snprintf(bn, sizeof bn, "b%zu", n->nodes);
    const int64_t k = (int64_t)w.k, dims[] = {(int64_t)x.c, (int64_t)mg, k, k}, bdims[] = {(int64_t)outputs};
    float *weight = net_floats(n, wn, dims, 2 + x.dims), *bias = net_floats(n, bn, bdims, 1);
    snprintf(more, sizeof more, "%s,%s", wn, bn);
    pb node = net_node(n, "ConvTranspose", more);
    add_window(&node, &w, x.dims);
    graph_node(&n->graph, node);
    const size_t grown = (w.k - 1) * w.dilation + 1 + w.output_padding - w.begin - w.end;
    sample y =
        sample_new(x.dims, outputs, x.dims == 1 ? 1 : (x.h - 1) * w.stride + grown, (x.w - 1) * w.stride + grown);
    for (size_t i = 0; i < sample_count(&y); i++) y.v[i] = (double)bias[i / (y.h * y.w)];
    for (size_t c = 0; c < x.c; c++)
        for (size_t i = 0; i < x.h; i++)
            for (size_t j = 0; j < x.w; j++)
                for (size_t m = 0; m < mg; m++)
                    for (size_t a = 0; a < kh; a++)
                        for (size_t b = 0; b < w.k; b++) {
                            const long r = x.dims == 1 ? 0 : (long)(i * w.stride + a * w.dilation) - (long)w.begin;
                            const long s = (long)(j * w.stride + b * w.dilation) - (long)w.begin;
                            if (r < 0 || s < 0 || r >= (long)y.h || s >= (long)y.w) continue;
                            y.v[((c / cg * mg + m) * y.h + (size_t)r) * y.w + (size_t)s] +=
                                (double)weight[((c * mg + m) * kh + a) * w.k + b] * x.v[(c * x.h + i) * x.w + j];
                        }
    free(weight);
    free(bias);
    net_set(n, y);
}

TEST_UNUSED static void net_average(net *n, window w, bool ceiling, bool with_padding) {
    const sample x = n->now;
    pb node = net_node(n, "AveragePool", "");
    add_window(&node, &w, x.dims);
    if (ceiling) add_int(&node, "ceil_mode", 1);
    if (with_padding) add_int(&node, "count_include_pad", 1);
    graph_node(&n->graph, node);
    size_t side[2];
    for (int i = 0; i < 2; i++) {
        const size_t in = i == 0 ? x.h : x.w, room = in + w.begin + w.end - w.k;
        side[i] = room / w.stride + 1;
        if (ceiling && room % w.stride != 0 && side[i] * w.stride < in + w.begin) side[i]++;
    }
    const size_t kh = x.dims == 1 ? 1 : w.k;
    sample y = sample_new(x.dims, x.c, x.dims == 1 ? 1 : side[0], side[1]);
    for (size_t c = 0; c < x.c; c++)
        for (size_t i = 0; i < y.h; i++)
            for (size_t j = 0; j < y.w; j++) {
                double sum = 0, count = 0;
                for (size_t a = 0; a < kh; a++)
                    for (size_t b = 0; b < w.k; b++) {
                        const long r = x.dims == 1 ? 0 : (long)(i * w.stride + a) - (long)w.begin;
                        const long s = (long)(j * w.stride + b) - (long)w.begin;
                        const bool inside = r >= 0 && s >= 0 && r < (long)x.h && s < (long)x.w;
                        const bool padded = r < (long)(x.h + w.end) && s < (long)(x.w + w.end);
                        sum += sample_at(&x, c, r, s);
                        count += with_padding ? padded || x.dims == 1 : inside;
                        if (with_padding && x.dims == 1 && s >= (long)(x.w + w.end)) count--;
                    }
                y.v[(c * y.h + i) * y.w + j] = sum / count;
            }
    net_set(n, y);
}

TEST_UNUSED static void net_batchnorm(net *n) {
    const sample x = n->now;
    const int64_t dims[] = {(int64_t)x.c};
    char names[4][32], more[160];
    float *v[4];
    for (size_t i = 0; i < 4; i++) snprintf(names[i], sizeof names[i], "n%zu_%zu", n->nodes, i);
    for (size_t i = 0; i < 3; i++) v[i] = net_floats(n, names[i], dims, 1);
    v[3] = malloc(x.c * sizeof(float));
    for (size_t i = 0; i < x.c; i++) v[3][i] = (float)(0.5 + fabs(test_real(&n->rng)));
    graph_floats(&n->graph, names[3], dims, 1, v[3]);
    snprintf(more, sizeof more, "%s,%s,%s,%s", names[0], names[1], names[2], names[3]);
    pb node = net_node(n, "BatchNormalization", more);
    add_float(&node, "epsilon", 0.01f);
    graph_node(&n->graph, node);
    for (size_t i = 0; i < sample_count(&x); i++) {
        const size_t c = i / (x.h * x.w);
        n->now.v[i] =
            (x.v[i] - (double)v[2][c]) / sqrt((double)v[3][c] + (double)0.01f) * (double)v[0][c] + (double)v[1][c];
    }
    for (size_t i = 0; i < 4; i++) free(v[i]);
}

/* Adds (or multiplies by) a constant: one number, one per channel, or one per number. */
TEST_UNUSED static void net_constant(net *n, const char *op, int how) {
    const sample x = n->now;
    const int64_t c = (int64_t)x.c, h = (int64_t)x.h, w = (int64_t)x.w;
    const int64_t channels2[] = {c, 1, 1}, channels1[] = {c, 1}, all2[] = {1, c, h, w}, all1[] = {c, w},
                  flat[] = {c * h * w};
    char name[32];
    snprintf(name, sizeof name, "k%zu", n->nodes);
    const int64_t *dims = how == 1 ? (x.dims == 1 ? channels1 : channels2) : x.dims == 1 ? all1 : all2;
    size_t rank = how == 0 ? 0 : how == 1 ? x.dims + 1 : x.dims == 1 ? 2 : 4;
    if (n->flat && how != 0) dims = flat, rank = 1;
    float *f = net_floats(n, name, dims, rank);
    graph_node(&n->graph, net_node(n, op, name));
    for (size_t i = 0; i < sample_count(&x); i++) {
        const double v = (double)f[how == 0 ? 0 : how == 1 && !n->flat ? i / (x.h * x.w) : i];
        n->now.v[i] = op[0] == 'A' ? x.v[i] + v : op[0] == 'S' ? x.v[i] - v : op[0] == 'M' ? x.v[i] * v : x.v[i] / v;
    }
    free(f);
}

/* The present value and an earlier one, which is taken. */
TEST_UNUSED static void net_add(net *n, const char *earlier, sample *value) {
    graph_node(&n->graph, net_node(n, "Add", earlier));
    for (size_t i = 0; i < sample_count(value); i++) n->now.v[i] += value->v[i];
    free(value->v);
}

TEST_UNUSED static void net_concat(net *n, const char *earlier, sample *value) {
    const sample x = n->now;
    pb node = net_node(n, "Concat", earlier);
    add_int(&node, "axis", 1);
    graph_node(&n->graph, node);
    sample y = sample_new(x.dims, x.c + value->c, x.h, x.w);
    memcpy(y.v, x.v, sample_count(&x) * sizeof *y.v);
    memcpy(y.v + sample_count(&x), value->v, sample_count(value) * sizeof *y.v);
    free(value->v);
    net_set(n, y);
}

TEST_UNUSED static void net_pad(net *n, int64_t begin, int64_t end) {
    const sample x = n->now;
    char name[32];
    snprintf(name, sizeof name, "p%zu", n->nodes);
    if (x.dims == 1)
        graph_ints(&n->graph, name, (const int64_t[]){0, 0, begin, 0, 0, end}, 6);
    else
        graph_ints(&n->graph, name, (const int64_t[]){0, 0, begin, begin, 0, 0, end, end}, 8);
    graph_node(&n->graph, net_node(n, "Pad", name));
    sample y = sample_new(x.dims, x.c, x.dims == 1 ? 1 : (size_t)((int64_t)x.h + begin + end),
                          (size_t)((int64_t)x.w + begin + end));
    for (size_t c = 0; c < x.c; c++)
        for (size_t i = 0; i < y.h; i++)
            for (size_t j = 0; j < y.w; j++)
                y.v[(c * y.h + i) * y.w + j] = sample_at(&x, c, x.dims == 1 ? 0 : (long)i - begin, (long)j - begin);
    net_set(n, y);
}

TEST_UNUSED static void net_global_average(net *n) {
    const sample x = n->now;
    graph_node(&n->graph, net_node(n, "GlobalAveragePool", ""));
    sample y = sample_new(x.dims, x.c, 1, 1);
    for (size_t i = 0; i < sample_count(&x); i++) y.v[i / (x.h * x.w)] += x.v[i] / (double)(x.h * x.w);
    net_set(n, y);
}

TEST_UNUSED static void net_flatten(net *n) {
    graph_node(&n->graph, net_node(n, "Flatten", ""));
    n->flat = true;
}

/* After net_flatten. */
TEST_UNUSED static void net_linear(net *n, size_t outputs) {
    const size_t inputs = sample_count(&n->now);
    const int64_t dims[] = {(int64_t)outputs, (int64_t)inputs}, bdims[] = {(int64_t)outputs};
    char wn[32], bn[32], more[80];
    snprintf(wn, sizeof wn, "w%zu", n->nodes);
    snprintf(bn, sizeof bn, "b%zu", n->nodes);
    float *weight = net_floats(n, wn, dims, 2), *bias = net_floats(n, bn, bdims, 1);
    snprintf(more, sizeof more, "%s,%s", wn, bn);
    pb node = net_node(n, "Gemm", more);
    add_int(&node, "transB", 1);
    graph_node(&n->graph, node);
    sample y = sample_new(n->now.dims, outputs, 1, 1);
    for (size_t o = 0; o < outputs; o++) {
        y.v[o] = (double)bias[o];
        for (size_t j = 0; j < inputs; j++) y.v[o] += (double)weight[o * inputs + j] * n->now.v[j];
    }
    free(weight);
    free(bias);
    net_set(n, y);
}

#endif
