/* For tests of the client: a folder with a compiled model, and the product in the clear to compare with. */
#ifndef HEMI_TESTS_CLIENT_FIXTURE_H
#define HEMI_TESTS_CLIENT_FIXTURE_H

#include "hemi/hemi.h"
#include "test.h"

#define ASSERT_OK(call)                                                                                                \
    do {                                                                                                               \
        hemi_error *e_ = &fixture_error;                                                                               \
        memset(e_, 0, sizeof *e_);                                                                                     \
        hemi_status s_ = (call);                                                                                       \
        if (s_ != HEMI_OK) fail_msg("%s: %s", #call, e_->message);                                                     \
    } while (0)
/* The call fails with this status, and the message contains the text. */
#define ASSERT_FAILS(status, text, call)                                                                               \
    do {                                                                                                               \
        hemi_error *e_ = &fixture_error;                                                                               \
        memset(e_, 0, sizeof *e_);                                                                                     \
        hemi_status s_ = (call);                                                                                       \
        if (s_ != (status)) fail_msg("%s gives %s (%s)", #call, hemi_status_name(s_), e_->message);                    \
        if (!strstr(e_->message, text)) fail_msg("%s: no '%s' in the message: %s", #call, text, e_->message);          \
    } while (0)
#define ERR (&fixture_error)

static hemi_error fixture_error;

/* A number between -1 and 1 that depends on i alone. */
static inline float fixture_number(size_t i) {
    uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    return (float)((double)((z ^ (z >> 29)) >> 40) / (double)(1u << 23) - 1);
}

static inline float *fixture_rows(size_t rows, size_t inputs) {
    float *x = malloc(rows * inputs * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < rows * inputs; i++) x[i] = fixture_number(i + 77);
    return x;
}

static inline hemi_module *fixture_module(uint32_t inputs, uint32_t outputs, bool bias, size_t salt) {
    float *weights = malloc((size_t)inputs * outputs * sizeof *weights), *b = malloc(outputs * sizeof *b);
    float *x = fixture_rows(4, inputs);
    assert_non_null(weights);
    assert_non_null(b);
    for (size_t i = 0; i < (size_t)inputs * outputs; i++) weights[i] = fixture_number(i + salt);
    for (size_t i = 0; i < outputs; i++) b[i] = 3 * fixture_number(i + salt + 1000);
    const uint32_t shape[2] = {4, inputs};
    hemi_module *module = NULL;
    ASSERT_OK(hemi_module_from_linear(&module, weights, bias ? b : NULL, outputs, inputs, x, shape, 2, NULL, ERR));
    free(weights);
    free(b);
    free(x);
    return module;
}

/* Saves the module as folder/model/name/po_1_<inputs>_pc. */
static inline void fixture_save(const char *folder, const char *model, const char *name, const hemi_module *module) {
    char path[1024];
    hemi_module_info info;
    hemi_module_get_info(module, &info);
    snprintf(path, sizeof path, "%s/%s/%s/po_1_%u_pc", folder, model, name, info.inputs);
    ASSERT_OK(hemi_module_save(module, path, ERR));
}

/* y must be what the module gives in the clear, up to 8 predicted deviations (twice that with a bias, which is measured too). */
static inline void fixture_check(const hemi_module *module, const float *x, size_t rows, const float *y) {
    hemi_module_info info;
    hemi_module_get_info(module, &info);
    float *expected = malloc(rows * info.outputs * sizeof *expected);
    assert_non_null(expected);
    ASSERT_OK(hemi_module_run_clear(module, x, rows, expected, false, ERR));
    for (size_t i = 0; i < rows * info.outputs; i++) {
        double tolerance = 16 * info.predicted_error + 1e-6 * fabs((double)expected[i]);
        if (!(fabs((double)y[i] - (double)expected[i]) <= tolerance))
            fail_msg("output %zu is %g, not %g (predicted error %g)", i, (double)y[i], (double)expected[i],
                     info.predicted_error);
    }
    free(expected);
}

#endif
