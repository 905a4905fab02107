#include "circuit/io.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

#define STRAY_MAX 0.125 /* of what should be 0, in units of the output's range */

hemi_status hemi_circuit_io_from_plan(hemi_circuit_io *io, const hemi_circuit *c, const hemi_circuit_plan *plan, hemi_error *err) {
    const hemi_value_plan *in = &plan->value[0], *out = &plan->value[plan->values - 1];
    *io = (hemi_circuit_io){.params = plan->params, .rows = plan->rows, .limbs = plan->limbs,
                            .inputs = c->value[0].size, .in_period = in->period, .in_blocks = in->blocks,
                            .copies = plan->copies, .stride = plan->stride, .in_norm = in->norm, .in_scale = in->scale,
                            .input_step = c->input_step, .input_low = c->input_low, .input_high = c->input_high,
                            .outputs = c->value[c->values - 1].size, .out_period = out->period, .out_blocks = out->blocks,
                            .out_norm = out->norm, .out_scale = out->scale, .automorphisms = plan->automorphisms};
    io->automorphism = hemi_alloc(plan->automorphisms, sizeof *io->automorphism);
    if (plan->copies > 1) io->skew = hemi_alloc(plan->copies, sizeof *io->skew);
    if (!io->automorphism || (plan->copies > 1 && !io->skew)) {
        hemi_circuit_io_clear(io);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a module");
    }
    memcpy(io->automorphism, plan->automorphism, plan->automorphisms * sizeof *io->automorphism);
    if (io->skew) memcpy(io->skew, plan->skew, plan->copies * sizeof *io->skew);
    return HEMI_OK;
}

void hemi_circuit_io_clear(hemi_circuit_io *io) {
    hemi_free(io->automorphism);
    hemi_free(io->skew);
    *io = (hemi_circuit_io){0};
}

bool hemi_circuit_io_equal(const hemi_circuit_io *a, const hemi_circuit_io *b) {
    return a->params == b->params && a->rows == b->rows && a->limbs == b->limbs && a->inputs == b->inputs && a->in_period == b->in_period &&
           a->in_blocks == b->in_blocks && a->copies == b->copies && a->stride == b->stride && a->in_norm == b->in_norm &&
           a->in_scale == b->in_scale && a->outputs == b->outputs && a->out_period == b->out_period && a->out_blocks == b->out_blocks &&
           a->out_norm == b->out_norm && a->out_scale == b->out_scale && a->automorphisms == b->automorphisms &&
           memcmp(a->automorphism, b->automorphism, a->automorphisms * sizeof *a->automorphism) == 0 &&
           (a->copies == 1 || memcmp(a->skew, b->skew, a->copies * sizeof *a->skew) == 0);
}

static double quantised(const hemi_circuit_io *io, double x) {
    return hemi_circuit_quantise(io->input_step, io->input_low, io->input_high, x);
}

static double clipped(const hemi_circuit_io *io, double x) { return fmin(fmax(x, -io->in_norm), io->in_norm); }

void hemi_circuit_io_clip(float *y, const hemi_circuit_io *io, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = (float)clipped(io, (double)x[i]);
}

bool hemi_circuit_io_pack(double *slots, const hemi_circuit_io *io, uint32_t block, const float *x, size_t count, bool *in_range) {
    const uint32_t all = UINT32_C(1) << (io->params->log2_n - 1);
    bool finite = true;
    for (size_t i = 0; i < count * io->inputs; i++) finite &= isfinite(x[i]) != 0;
    if (!finite) return false;
    for (uint32_t i = 0; i < all; i++) {
        const uint32_t row = i % io->rows, place = hemi_circuit_place(io->in_period, io->copies, io->stride, io->skew, i / io->rows);
        const uint64_t e = (uint64_t)block * io->in_period + place;
        slots[i] = row < count && place != HEMI_CIRCUIT_NO_PLACE && e < io->inputs
                       ? clipped(io, quantised(io, (double)x[row * io->inputs + e])) / io->in_norm
                       : 0;
    }
    for (size_t r = 0; in_range && r < count; r++)
        for (uint32_t j = 0; j < io->inputs; j++)
            if (fabs(quantised(io, (double)x[r * io->inputs + j])) > io->in_norm) in_range[r] = false;
    return true;
}

void hemi_circuit_io_unpack(float *y, const hemi_circuit_io *io, uint32_t block, const double *re, const double *im, size_t count, bool *in_range) {
    const uint32_t all = UINT32_C(1) << (io->params->log2_n - 1);
    double stray = 0;
    for (uint32_t i = 0; i < all; i++) {
        const uint64_t e = (uint64_t)block * io->out_period + i / io->rows % io->out_period;
        if (im) stray = fmax(stray, fabs(im[i]));
        if (e >= io->outputs) stray = fmax(stray, fabs(re[i]));
    }
    for (size_t r = 0; r < count; r++)
        for (uint32_t v = 0; v < io->out_period; v++) {
            const uint64_t e = (uint64_t)block * io->out_period + v;
            if (e >= io->outputs) break;
            const double z = re[(size_t)v * io->rows + r];
            if (in_range && !(fabs(z) <= HEMI_CIRCUIT_OUT_OF_RANGE && stray <= STRAY_MAX)) in_range[r] = false;
            y[r * io->outputs + e] = (float)(z * io->out_norm);
        }
}
