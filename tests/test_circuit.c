/* Circuits under encryption: from encrypted inputs to results, against the same circuit in the clear. */
#include "circuit.h"
#include "ckks.h"

#include "base/cpu.h"
#include "circuit/calibrate.h"
#include "circuit/diagonals.h"
#include "circuit/noise.h"
#include "circuit/program.h"
#include "wire/ckks_load.h"

#define ENOUGH 64    /* errors of one call that tell a deviation */
#define FEW_CALLS 12

/* A client's and a server's side of one circuit. */
typedef struct sides {
    hemi_circuit *c;
    hemi_circuit_plan *plan;
    const hemi_ckks_context *ctx;
    hemi_ckks_secret *sk;
    hemi_ckks_keys *keys;
    hemi_circuit_program *program;
    hemi_team *team;
} sides;

static void make_keys(sides *s) {
    const hemi_params *p = s->plan->params;
    const size_t bytes = hemi_ckks_keys_bytes(p, s->plan->limbs, s->plan->automorphisms + 1);
    uint8_t *wire = hemi_alloc(bytes, 1), *at = wire + HEMI_CKKS_KEYS_HEADER_BYTES;
    assert_non_null(wire);
    hemi_ckks_keys_write_header(wire, p, s->plan->limbs, s->plan->automorphisms + 1);
    for (size_t i = 0; i <= s->plan->automorphisms; i++) {
        const uint32_t t = i == 0 ? 0 : s->plan->automorphism[i - 1];
        ASSERT_OK(hemi_ckks_secret_make_key(s->sk, s->plan->limbs, t, at, ERR));
        at += hemi_ckks_key_entry_bytes(p, s->plan->limbs, t);
    }
    ASSERT_OK(hemi_ckks_keys_load(&s->keys, wire, bytes, s->team, ERR));
    print_message("  keys %.1f MB\n", (double)bytes / 1e6);
    hemi_free(wire);
}

static void sides_open(sides *s, hemi_circuit *c, const hemi_circuit_choice *choice, const float *x, size_t samples, const hemi_calibration *options) {
    hemi_calibration_report report;
    *s = (sides){.c = c, .team = hemi_team_new(2)};
    ASSERT_OK(hemi_circuit_calibrate(c, x, samples, options, &report, s->team, ERR));
    ASSERT_OK(hemi_circuit_plan_make(&s->plan, c, choice, ERR));
    ASSERT_OK(hemi_ckks_context_shared(&s->ctx, s->plan->params, ERR));
    ASSERT_OK(hemi_ckks_secret_new(&s->sk, s->ctx, ERR));
    print_message("  %s, %u limbs, %u rows, %u copies, %zu automorphisms, cost %.0f\n", s->plan->params->name, s->plan->limbs, s->plan->rows,
                  s->plan->copies, s->plan->automorphisms, s->plan->cost);
    for (size_t i = 1; i < c->values; i++)
        print_message("  value %zu: degree %u, period %u, %zu diagonals = %zu x %zu, %zu folds\n", i, c->value[i].polynomial.degree, s->plan->value[i].period,
                      s->plan->value[i].a[0].count, s->plan->value[i].a[0].babies, s->plan->value[i].a[0].giants, s->plan->value[i].a[0].folds);
    make_keys(s);
    ASSERT_OK(hemi_circuit_program_new(&s->program, c, s->plan, s->team, NULL, NULL, ERR));
}

static void sides_close(sides *s) {
    hemi_circuit_program_free(s->program);
    hemi_ckks_keys_free(s->keys);
    hemi_ckks_secret_free(s->sk);
    hemi_circuit_plan_free(s->plan);
    hemi_circuit_free(s->c);
    hemi_team_free(s->team);
}

/* rows samples through one ciphertext (or as many as a sample has): y. */
static void call(const sides *s, const float *x, uint32_t rows, double *y) {
    const hemi_value_plan *in = &s->plan->value[0], *out = &s->plan->value[s->plan->values - 1];
    const uint32_t inputs = s->c->value[0].size, outputs = s->c->value[s->plan->values - 1].size;
    hemi_ckks_cipher *ci = hemi_alloc(in->blocks, sizeof *ci), *co = hemi_alloc(out->blocks, sizeof *co);
    double *z = hemi_alloc(s->ctx->slots, sizeof *z), *work = hemi_alloc(s->ctx->n, sizeof *work);
    uint8_t *wire = hemi_alloc(hemi_ckks_ciphertext_bytes(s->plan->params, s->plan->limbs), 1);
    for (uint32_t b = 0; b < in->blocks; b++) {
        for (uint32_t i = 0; i < s->ctx->slots; i++) {
            const uint32_t place = hemi_circuit_content(s->plan, 0, b, i / s->plan->rows), r = i % s->plan->rows;
            const uint32_t e = place == HEMI_CIRCUIT_NO_PLACE ? place : in->element[place];
            z[i] = e == HEMI_CIRCUIT_NO_PLACE || r >= rows ? 0 : (double)x[r * inputs + e] / in->norm;
        }
        ASSERT_OK(hemi_ckks_secret_encrypt(s->sk, z, in->scale, s->plan->limbs, wire, ERR));
        ASSERT_OK(hemi_ckks_cipher_init(&ci[b], s->ctx, s->plan->limbs, ERR));
        hemi_ckks_ciphertext_load(&ci[b], s->ctx, wire, s->plan->limbs, in->scale, s->team);
    }
    for (uint32_t b = 0; b < out->blocks; b++) ASSERT_OK(hemi_ckks_cipher_init(&co[b], s->ctx, 2, ERR));
    const double start = hemi_now_ms();
    ASSERT_OK(hemi_circuit_evaluate(s->program, s->keys, ci, co, s->team, NULL, NULL, ERR));
    print_message("  %.1f ms\n", hemi_now_ms() - start);
    for (uint32_t b = 0; b < out->blocks; b++) {
        int64_t *phase = hemi_alloc(s->ctx->n, sizeof *phase);
        const hemi_limb *l = hemi_ckks_limb(s->ctx, 0);
        s->ctx->k->intt(co[b].c0, co[b].c0, l);
        s->ctx->k->intt(co[b].c1, co[b].c1, l);
        ASSERT_OK(hemi_ckks_secret_decrypt(s->sk, co[b].c0, co[b].c1, phase, ERR));
        hemi_ckks_unembed(z, NULL, s->ctx->encoder, co[b].scale, phase, work);
        for (uint32_t v = 0; v < out->period; v++) {
            const uint32_t e = out->element[b * out->period + v];
            for (uint32_t r = 0; r < rows && e != HEMI_CIRCUIT_NO_PLACE; r++) y[r * outputs + e] = z[v * s->plan->rows + r] * out->norm;
        }
        hemi_free(phase);
        hemi_ckks_cipher_clear(&co[b]);
    }
    for (uint32_t b = 0; b < in->blocks; b++) hemi_ckks_cipher_clear(&ci[b]);
    hemi_free(ci), hemi_free(co), hemi_free(z), hemi_free(work), hemi_free(wire);
}

/* What is multiplied by nothing has no noise at all, whatever a prediction says. */
static bool has_empty_map(const hemi_circuit *c) {
    bool empty = false;
    for (size_t i = 1; i < c->values; i++)
        for (size_t j = 0; j < c->value[i].a.terms; j++) empty |= hemi_sparse_count(&c->value[i].a.term[j].map) == 0;
    return empty;
}

/* Encrypted results are those of the polynomials in the clear, up to noise, which is as large as was predicted. */
static void check(const sides *s, const float *x, size_t samples, double tolerance) {
    const uint32_t inputs = s->c->value[0].size, outputs = s->c->value[s->plan->values - 1].size;
    const uint32_t rows = samples < s->plan->rows ? (uint32_t)samples : s->plan->rows;
    double *y = hemi_alloc((size_t)rows * outputs, sizeof *y), *want = hemi_alloc(outputs, sizeof *want), *xd = hemi_alloc(inputs, sizeof *xd);
    double worst = 0, largest = 0, squares = 0;
    /* The few outputs of one call may all have one noise: a deviation is then known from calls, each with its own ciphertexts. */
    const bool few = rows * outputs < ENOUGH;
    const size_t calls = few ? FEW_CALLS : 1;
    for (size_t k = 0; k < calls; k++) {
        const float *from = x + k % (samples / rows) * rows * inputs;
        call(s, from, rows, y);
        for (uint32_t r = 0; r < rows; r++) {
            for (uint32_t i = 0; i < inputs; i++) xd[i] = (double)from[r * inputs + i];
            ASSERT_OK(hemi_circuit_run(s->c, xd, want, true, ERR));
            for (uint32_t i = 0; i < outputs; i++) {
                const double error = y[r * outputs + i] - want[i];
                squares += error * error;
                worst = fmax(worst, fabs(error));
                largest = fmax(largest, fabs(want[i]));
            }
        }
    }
    const double rms = sqrt(squares / (double)(calls * rows * outputs)), predicted = hemi_circuit_predict_noise(s->c, s->plan);
    const double factor = few ? 4 : 2; /* chi-square with FEW_CALLS degrees: 4 is wrong once in 10^5 */
    print_message("  error 2^%.1f of the largest; rms %.3g, %.3f of what was predicted; re-randomisation adds %.3g\n", log2(worst / largest), rms,
                  rms / predicted, hemi_circuit_reply_noise(s->plan));
    assert_true(worst < tolerance * largest);
    assert_true(rms < factor * predicted && (predicted < factor * rms || has_empty_map(s->c)));
    hemi_free(y), hemi_free(want), hemi_free(xd);
}

/* A convolution 3 x 3 of c x h x w numbers with zeros around, to channels x ceil(h / stride) x ceil(w / stride): f of it. */
static uint32_t conv(hemi_circuit *c, uint32_t source, uint32_t channels, uint32_t stride, hemi_function f, test_rng *rng) {
    const hemi_circuit_value from = c->value[source]; /* a copy: what follows may not move it, but reads better */
    const uint32_t in = from.dims[0], h = from.dims[1], w = from.dims[2], oh = (h + stride - 1) / stride, ow = (w + stride - 1) / stride;
    const uint32_t i = test_circuit_value(c, HEMI_CIRCUIT_FUNCTION, channels * oh * ow, "Conv");
    hemi_circuit_value *v = &c->value[i];
    v->rank = 3;
    v->dims[0] = channels, v->dims[1] = oh, v->dims[2] = ow;
    v->function = f;
    hemi_sparse *m = test_circuit_term(&v->a, source, v->size, from.size);
    m->start = hemi_alloc((size_t)v->size + 1, sizeof *m->start);
    m->column = hemi_alloc((size_t)v->size * in * 9, sizeof *m->column);
    m->weight = hemi_alloc((size_t)v->size * in * 9, sizeof *m->weight);
    float *taps = test_samples(channels * in, 9, rng);
    uint64_t at = 0;
    for (uint32_t o = 0; o < v->size; o++) {
        const uint32_t oc = o / (oh * ow), y = o / ow % oh * stride, x = o % ow * stride;
        for (uint32_t k = 0; k < in * 9; k++) {
            const uint32_t ic = k / 9, sy = y + k / 3 % 3 - 1, sx = x + k % 3 - 1;
            if (sy >= h || sx >= w) continue;
            m->column[at] = (ic * h + sy) * w + sx;
            m->weight[at++] = taps[oc * in * 9 + k] / (float)(3 * sqrt(in));
        }
        m->start[o + 1] = at;
    }
    hemi_free(taps);
    return i;
}

static hemi_circuit *image(uint32_t channels, uint32_t side) {
    hemi_circuit *c = test_circuit_new(channels * side * side);
    c->value[0].rank = 3;
    c->value[0].dims[0] = channels, c->value[0].dims[1] = c->value[0].dims[2] = side;
    return c;
}

/* One circuit, encrypted, by a choice of set, rows and copies, and with one degree everywhere. */
static void run_by_degree(hemi_circuit *c, hemi_circuit_choice choice, uint32_t degree, size_t samples, test_rng *rng) {
    float *x = test_samples(samples, c->value[0].size, rng);
    sides s;
    sides_open(&s, c, &choice, x, samples, &(hemi_calibration){.degree = degree});
    check(&s, x, samples, 0.002);
    sides_close(&s);
    hemi_free(x);
}

static void run_circuit(hemi_circuit *c, hemi_circuit_choice choice, size_t samples, test_rng *rng) { run_by_degree(c, choice, 3, samples, rng); }

static hemi_circuit_choice by(const char *set, uint32_t rows, uint32_t copies) {
    return (hemi_circuit_choice){.params = set ? hemi_params_by_name(set) : NULL, .rows = rows, .copies = copies};
}

static void convolutions(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = image(1, 8);
    const uint32_t a = conv(c, 0, 4, 1, TEST_F0(SIGMOID), &rng), b = conv(c, a, 8, 1, TEST_F0(SIGMOID), &rng);
    test_circuit_output(c, b, 10, &rng);
    run_circuit(c, by(NULL, 0, 0), 64, &rng);
    c = image(3, 16); /* strides: the second one reads every other place of the first */
    const uint32_t d = conv(c, 0, 4, 2, TEST_F0(SIGMOID), &rng), e = conv(c, d, 4, 2, TEST_F0(SIGMOID), &rng);
    test_circuit_output(c, e, 5, &rng);
    run_circuit(c, by("C16384", 1, 0), 16, &rng);
}

/* Every number of copies gives the same, also those that are not all used (9 taps of a convolution in 16 copies). */
static void copies(void **state) {
    (void)state;
    for (uint32_t k = 1; k <= 64; k *= 4) {
        test_rng rng = test_rng_new();
        hemi_circuit *c = test_circuit_new(20);
        const uint32_t a = test_circuit_function(c, 0, 40, TEST_F0(SQUARE), 1, "f", &rng);
        test_circuit_output(c, a, 3, &rng);
        if (k <= 32) run_circuit(c, by("C8192", 1, k), 16, &rng);
        else hemi_circuit_free(c);
        c = image(1, 8);
        test_circuit_output(c, conv(c, 0, 4, 1, TEST_F0(SQUARE), &rng), 10, &rng);
        if (k == 1 || k == 16) run_circuit(c, by("C8192", 1, k), 16, &rng);
        else hemi_circuit_free(c);
    }
}

static void rows(void **state) {
    (void)state;
    for (uint32_t r = 1; r <= 64; r *= 8) {
        test_rng rng = test_rng_new();
        hemi_circuit *c = test_circuit_new(20);
        const uint32_t a = test_circuit_function(c, 0, 40, TEST_F0(SQUARE), 1, "f", &rng);
        test_circuit_output(c, a, 3, &rng);
        run_circuit(c, by("C8192", r, 0), 64, &rng);
    }
}

/* Values that take several ciphertexts, in and out: more numbers than set C8192 has slots. */
static void several_ciphertexts(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(5000);
    const uint32_t a = test_circuit_value(c, HEMI_CIRCUIT_FUNCTION, 5000, "f");
    c->value[a].function = TEST_F0(SQUARE);
    test_circuit_identity(c, &c->value[a].a, 0, 0.7);
    const uint32_t b = test_circuit_value(c, HEMI_CIRCUIT_AFFINE, 5000, "output");
    test_circuit_identity(c, &c->value[b].a, a, 1.5);
    run_circuit(c, by("C8192", 1, 0), 8, &rng);
    c = test_circuit_new(5000);
    const uint32_t d = test_circuit_function(c, 0, 8, TEST_F0(SQUARE), 1, "f", &rng);
    test_circuit_output(c, d, 3, &rng);
    run_circuit(c, by("C8192", 1, 0), 8, &rng);
}

/* The input, a function of it, and their product meet again at different levels. */
static void residuals_and_products(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(24);
    const uint32_t a = test_circuit_function(c, 0, 24, TEST_F0(SIGMOID), 1, "first", &rng);
    const uint32_t p = test_circuit_value(c, HEMI_CIRCUIT_PRODUCT, 24, "product");
    test_circuit_identity(c, &c->value[p].a, a, 2);
    test_circuit_dense(c, &c->value[p].b, 0, 24, 1, 0.1, &rng);
    const uint32_t s = test_circuit_value(c, HEMI_CIRCUIT_FUNCTION, 24, "second");
    c->value[s].function = TEST_F0(SQUARE);
    test_circuit_identity(c, &c->value[s].a, 0, 0.5);
    test_circuit_identity(c, &c->value[s].a, a, 1);
    test_circuit_identity(c, &c->value[s].a, p, -1);
    const uint32_t o = test_circuit_value(c, HEMI_CIRCUIT_AFFINE, 7, "output");
    test_circuit_dense(c, &c->value[o].a, 0, 7, 1, 0.1, &rng);
    test_circuit_dense(c, &c->value[o].a, s, 7, 1, 0, &rng);
    run_circuit(c, by(NULL, 0, 0), 64, &rng);
}

/* Maps without entries, constants, one number in and out. */
static void odd_shapes(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(1);
    const uint32_t a = test_circuit_function(c, 0, 1, TEST_F0(SQUARE), 1, "f", &rng);
    test_circuit_output(c, a, 1, &rng);
    run_circuit(c, by(NULL, 0, 0), 16, &rng);
    c = test_circuit_new(4);
    const uint32_t b = test_circuit_value(c, HEMI_CIRCUIT_FUNCTION, 3, "f");
    c->value[b].function = TEST_F0(SIGMOID);
    hemi_sparse *m = test_circuit_term(&c->value[b].a, 0, 3, 4);
    m->start = hemi_alloc(4, sizeof *m->start), m->column = hemi_alloc(0, sizeof *m->column), m->weight = hemi_alloc(0, sizeof *m->weight);
    test_circuit_output(c, b, 700, &rng);
    run_circuit(c, by(NULL, 0, 0), 16, &rng);
}

static void too_deep(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(8);
    uint32_t last = 0;
    for (int i = 0; i < 12; i++) last = test_circuit_function(c, last, 8, TEST_F0(SIGMOID), 1, i == 6 ? "middle" : "f", &rng);
    test_circuit_output(c, last, 8, &rng);
    hemi_calibration_report report;
    float *x = test_samples(64, 8, &rng);
    hemi_circuit_plan *plan;
    const hemi_circuit_choice small = by("C16384", 0, 0), any = {0};
    ASSERT_OK(hemi_circuit_calibrate(c, x, 64, &(hemi_calibration){.degree = 7}, &report, NULL, ERR));
    assert_int_equal(hemi_circuit_levels(c), 12 * 4 + 1);
    assert_status(hemi_circuit_plan_make(&plan, c, &small, ERR), HEMI_ERR_UNSUPPORTED);
    assert_null(plan);
    assert_non_null(strstr(test_err.message, "takes 49 levels, set C16384 has 9: cut it into two"));
    assert_status(hemi_circuit_plan_make(&plan, c, &any, ERR), HEMI_ERR_UNSUPPORTED);
    assert_non_null(strstr(test_err.message, "set C65536 has 40"));
    hemi_free(x);
    hemi_circuit_free(c);
}

static void mlp(uint32_t in, uint32_t hidden1, uint32_t hidden2, uint32_t out, hemi_circuit_choice choice, uint32_t degree, size_t samples) {
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(in);
    uint32_t last = test_circuit_function(c, 0, hidden1, TEST_F0(RELU), 1, "Relu", &rng);
    if (hidden2) last = test_circuit_function(c, last, hidden2, TEST_F0(RELU), 1, "Relu", &rng);
    test_circuit_output(c, last, out, &rng);
    run_by_degree(c, choice, degree, samples, &rng);
}

static void small_mlp(void **state) { (void)state; mlp(10, 32, 0, 10, (hemi_circuit_choice){0}, 7, 2048); }
static void two_layers(void **state) { (void)state; mlp(64, 128, 64, 10, (hemi_circuit_choice){0}, 7, 512); }

static void other_sets(void **state) {
    (void)state;
    mlp(30, 20, 0, 5, (hemi_circuit_choice){.params = hemi_params_by_name("C8192")}, 3, 512);
    mlp(30, 20, 0, 5, (hemi_circuit_choice){.params = hemi_params_by_name("C16384D"), .rows = 32, .copies = 1}, 63, 512);
    if (!test_quick()) mlp(100, 64, 32, 3, (hemi_circuit_choice){.params = hemi_params_by_name("C32768")}, 15, 512);
}

/* Gates, a product of two of them, and an output that reads the input too. */
static void gates(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(16);
    const uint32_t open = test_circuit_function(c, 0, 24, TEST_F0(SIGMOID), 2, "Sigmoid", &rng);
    const uint32_t content = test_circuit_function(c, 0, 24, TEST_F0(TANH), 1, "Tanh", &rng);
    const uint32_t product = test_circuit_value(c, HEMI_CIRCUIT_PRODUCT, 24, "Mul");
    test_circuit_identity(c, &c->value[product].a, open, 1);
    test_circuit_dense(c, &c->value[product].b, content, 24, 1, 0.1, &rng);
    const uint32_t output = test_circuit_value(c, HEMI_CIRCUIT_AFFINE, 4, "output");
    test_circuit_dense(c, &c->value[output].a, 0, 4, 0.5, 0, &rng);
    test_circuit_dense(c, &c->value[output].a, product, 4, 1, 0.3, &rng);
    run_by_degree(c, (hemi_circuit_choice){0}, 15, 1024, &rng);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_mlp),       cmocka_unit_test(two_layers),
                                       cmocka_unit_test(convolutions),    cmocka_unit_test(copies),
                                       cmocka_unit_test(rows),            cmocka_unit_test(several_ciphertexts),
                                       cmocka_unit_test(residuals_and_products), cmocka_unit_test(odd_shapes),
                                       cmocka_unit_test(too_deep),         cmocka_unit_test(other_sets),
                                       cmocka_unit_test(gates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
