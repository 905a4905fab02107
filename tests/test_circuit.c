/* Circuits under encryption: from encrypted inputs to results, against the same circuit in the clear. */
#include "circuit.h"
#include "ckks.h"

#include "base/cpu.h"
#include "circuit/calibrate.h"
#include "circuit/diagonals.h"
#include "circuit/noise.h"
#include "circuit/program.h"
#include "wire/ckks_load.h"

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

/* Encrypted results are those of the polynomials in the clear, up to noise, which is as large as was predicted. */
static void check(const sides *s, const float *x, double tolerance) {
    const uint32_t inputs = s->c->value[0].size, outputs = s->c->value[s->plan->values - 1].size, rows = s->plan->rows;
    double *y = hemi_alloc((size_t)rows * outputs, sizeof *y), *want = hemi_alloc(outputs, sizeof *want), *xd = hemi_alloc(inputs, sizeof *xd);
    double worst = 0, largest = 0, squares = 0;
    call(s, x, rows, y);
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t i = 0; i < inputs; i++) xd[i] = (double)x[r * inputs + i];
        ASSERT_OK(hemi_circuit_run(s->c, xd, want, true, ERR));
        for (uint32_t i = 0; i < outputs; i++) {
            const double error = y[r * outputs + i] - want[i];
            squares += error * error;
            worst = fmax(worst, fabs(error));
            largest = fmax(largest, fabs(want[i]));
        }
    }
    const double rms = sqrt(squares / (rows * outputs)), predicted = hemi_circuit_predict_noise(s->c, s->plan);
    print_message("  error 2^%.1f of the largest; rms %.3g, %.3f of what was predicted; re-randomisation adds %.3g\n", log2(worst / largest), rms,
                  rms / predicted, hemi_circuit_reply_noise(s->plan));
    assert_true(worst < tolerance * largest);
    assert_true(rms < 2 * predicted && predicted < 2 * rms);
    hemi_free(y), hemi_free(want), hemi_free(xd);
}

static void run(hemi_circuit *c, hemi_circuit_choice choice, uint32_t degree, size_t samples, test_rng *rng) {
    float *x = test_samples(samples, c->value[0].size, rng);
    sides s;
    sides_open(&s, c, &choice, x, samples, &(hemi_calibration){.degree = degree});
    check(&s, x, 0.001);
    sides_close(&s);
    hemi_free(x);
}

static void mlp(uint32_t in, uint32_t hidden1, uint32_t hidden2, uint32_t out, hemi_circuit_choice choice, uint32_t degree, size_t samples) {
    test_rng rng = test_rng_new();
    hemi_circuit *c = test_circuit_new(in);
    uint32_t last = test_circuit_function(c, 0, hidden1, TEST_F0(RELU), 1, "Relu", &rng);
    if (hidden2) last = test_circuit_function(c, last, hidden2, TEST_F0(RELU), 1, "Relu", &rng);
    test_circuit_output(c, last, out, &rng);
    run(c, choice, degree, samples, &rng);
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
    run(c, (hemi_circuit_choice){0}, 15, 1024, &rng);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_mlp), cmocka_unit_test(two_layers), cmocka_unit_test(other_sets), cmocka_unit_test(gates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
