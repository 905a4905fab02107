/* For tests of servers: compiled circuits made by hand, and a client of them: keys, requests and replies as bytes. Include after what
 * defines ASSERT_OK and ERR. */
#ifndef HEMI_TESTS_CIRCUIT_MODULE_H
#define HEMI_TESTS_CIRCUIT_MODULE_H

#include "circuit.h"

#include "base/bits.h"
#include "circuit/calibrate.h"
#include "ckks/encoder.h"
#include "model/module.h"
#include "secret/ckks.h"
#include "wire/ckks_load.h"

/* Takes the circuit. Every byte of its id is `id`. */
TEST_UNUSED static hemi_module *circuit_module_new(hemi_circuit *c, const hemi_circuit_choice *choice, const float *x, size_t samples,
                                                   uint32_t degree, int id) {
    hemi_calibration_report report;
    hemi_module *m = hemi_alloc(1, sizeof *m);
    assert_non_null(m);
    ASSERT_OK(hemi_circuit_calibrate(c, x, samples, &(hemi_calibration){.degree = degree}, &report, NULL, ERR));
    m->is_circuit = true;
    m->circuit = c;
    ASSERT_OK(hemi_circuit_plan_make(&m->plan, c, choice, ERR));
    ASSERT_OK(hemi_circuit_io_from_plan(&m->io, c, m->plan, ERR));
    m->info = (hemi_module_info){.operation = "circuit", .params = m->io.params, .inputs = m->io.inputs, .outputs = m->io.outputs,
                                 .shape_rank = 2, .shape = {1, m->io.inputs}, .output_rank = 2, .output_shape = {1, m->io.outputs},
                                 .units = 1, .packed_rows = m->io.rows, .levels = m->io.limbs - 1, .automorphisms = m->io.automorphisms,
                                 .has_weights = true, .circuit_rows = c->rows};
    memset(m->info.id, id, sizeof m->info.id);
    return m;
}

TEST_UNUSED static void circuit_module_free(hemi_module *m) {
    hemi_circuit_plan_free(m->plan);
    hemi_circuit_free(m->circuit);
    hemi_circuit_io_clear(&m->io);
    hemi_free(m);
}

/* f(W1 x + b1) W2 + b2. */
TEST_UNUSED static hemi_module *circuit_module_mlp(uint32_t in, uint32_t hidden, uint32_t out, uint32_t degree, uint32_t rows, int id) {
    test_rng rng = {(uint64_t)id};
    const size_t samples = 256;
    hemi_circuit *c = test_circuit_new(in);
    const uint32_t last = test_circuit_function(c, 0, hidden, TEST_F0(RELU), 1, "Relu", &rng);
    test_circuit_output(c, last, out, &rng);
    float *x = test_samples(samples, in, &rng);
    hemi_module *m = circuit_module_new(c, &(hemi_circuit_choice){.rows = rows}, x, samples, degree, id);
    hemi_free(x);
    return m;
}

/* Evaluation keys as the client sends them: the public key and entries t, for so many limbs. */
TEST_UNUSED static uint8_t *circuit_keys(const hemi_ckks_secret *sk, uint32_t limbs, const uint32_t *t, size_t count, size_t *bytes) {
    const hemi_params *p = sk->ctx->params;
    *bytes = hemi_ckks_keys_bytes(p, limbs, count + 1);
    uint8_t *wire = hemi_alloc(*bytes, 1), *at = wire + HEMI_CKKS_KEYS_HEADER_BYTES;
    assert_non_null(wire);
    hemi_ckks_keys_write_header(wire, p, limbs, count + 1);
    for (size_t i = 0; i <= count; i++) {
        const uint32_t entry = i == 0 ? HEMI_CKKS_KEY_PUBLIC : t[i - 1];
        ASSERT_OK(hemi_ckks_secret_make_key(sk, limbs, entry, at, ERR));
        at += hemi_ckks_key_entry_bytes(p, limbs, entry);
    }
    return wire;
}

TEST_UNUSED static size_t circuit_units(const hemi_module *m, size_t rows) { return (rows + m->io.rows - 1) / m->io.rows; }

TEST_UNUSED static hemi_ckks_request circuit_header(const hemi_module *m, size_t units) {
    hemi_ckks_request r = {.params = m->io.params, .limbs = m->io.limbs, .units = (uint32_t)units, .ciphertexts = m->io.in_blocks};
    memcpy(r.module_id, m->info.id, sizeof r.module_id);
    return r;
}

/* A request for x, rows x inputs. */
TEST_UNUSED static uint8_t *circuit_request(const hemi_ckks_secret *sk, const hemi_module *m, const float *x, size_t rows, size_t *bytes) {
    const hemi_circuit_io *io = &m->io;
    const hemi_ckks_request r = circuit_header(m, circuit_units(m, rows));
    double *slots = hemi_alloc(sk->ctx->slots, sizeof *slots);
    *bytes = hemi_ckks_request_bytes(&r);
    uint8_t *out = malloc(*bytes);
    assert_true(slots != NULL && out != NULL);
    hemi_ckks_request_write_header(out, &r);
    for (uint32_t i = 0; i < r.units * r.ciphertexts; i++) {
        const size_t first = (size_t)(i / r.ciphertexts) * io->rows, count = rows - first < io->rows ? rows - first : io->rows;
        assert_true(hemi_circuit_io_pack(slots, io, i % r.ciphertexts, x + first * io->inputs, count, NULL));
        ASSERT_OK(hemi_ckks_secret_encrypt(sk, slots, io->in_scale, io->limbs, out + hemi_ckks_request_ciphertext_offset(&r, i), ERR));
    }
    hemi_free(slots);
    return out;
}

/* y, rows x outputs, from a reply. */
TEST_UNUSED static void circuit_decrypt(const hemi_ckks_secret *sk, const hemi_module *m, const uint8_t *in, size_t bytes, size_t rows,
                                        float *y) {
    const hemi_circuit_io *io = &m->io;
    const size_t n = sk->ctx->n, each = hemi_ckks_poly_bytes(io->params, 1);
    const unsigned bits = hemi_ckks_limb(sk->ctx, 0)->m.bits;
    hemi_ckks_request r = circuit_header(m, circuit_units(m, rows));
    r.limbs = 1;
    r.ciphertexts = io->out_blocks;
    ASSERT_OK(hemi_ckks_reply_check(in, bytes, &r, ERR));
    uint64_t *c0 = hemi_alloc(n, sizeof *c0), *c1 = hemi_alloc(n, sizeof *c1);
    int64_t *phase = hemi_alloc(n, sizeof *phase);
    double *re = hemi_alloc(n / 2, sizeof *re), *im = hemi_alloc(n / 2, sizeof *im), *work = hemi_alloc(n, sizeof *work);
    for (uint32_t i = 0; i < r.units * r.ciphertexts; i++) {
        const uint8_t *at = in + HEMI_CKKS_REPLY_HEADER_BYTES + 2 * i * each;
        const size_t first = (size_t)(i / r.ciphertexts) * io->rows, count = rows - first < io->rows ? rows - first : io->rows;
        hemi_unpack(c1, at, n, bits);
        hemi_unpack(c0, at + each, n, bits);
        ASSERT_OK(hemi_ckks_secret_decrypt(sk, c0, c1, phase, ERR));
        hemi_ckks_unembed(re, im, sk->ctx->encoder, io->out_scale, phase, work);
        hemi_circuit_io_unpack(y + first * io->outputs, io, i % r.ciphertexts, re, im, count, NULL);
    }
    hemi_free(c0), hemi_free(c1), hemi_free(phase), hemi_free(re), hemi_free(im), hemi_free(work);
}

/* y is what the polynomials give in the clear, up to the noise of encryption. */
TEST_UNUSED static void circuit_check(const hemi_module *m, const float *x, size_t rows, const float *y) {
    const uint32_t inputs = m->io.inputs, outputs = m->io.outputs;
    double *xd = hemi_alloc(inputs, sizeof *xd), *want = hemi_alloc(outputs, sizeof *want), worst = 0, largest = 0;
    for (size_t r = 0; r < rows; r++) {
        for (uint32_t i = 0; i < inputs; i++) xd[i] = (double)x[r * inputs + i];
        ASSERT_OK(hemi_circuit_run(m->circuit, xd, want, true, ERR));
        for (uint32_t i = 0; i < outputs; i++) {
            worst = fmax(worst, fabs((double)y[r * outputs + i] - want[i]));
            largest = fmax(largest, fabs(want[i]));
        }
    }
    if (!(worst < 0.01 * largest)) fail_msg("an output is off by %g, the largest one is %g", worst, largest);
    hemi_free(xd), hemi_free(want);
}

#endif
