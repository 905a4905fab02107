/* What a client knows of a circuit: how numbers lie in the slots of its input and output, and which keys it takes. */
#ifndef HEMI_CIRCUIT_IO_H
#define HEMI_CIRCUIT_IO_H

#include "circuit/plan.h"

#define HEMI_CIRCUIT_OUT_OF_RANGE 2.0 /* outputs beyond so many times the calibrated range are not results */

typedef struct hemi_circuit_io {
    const hemi_params *params;
    uint32_t rows, limbs;           /* samples of a ciphertext; limbs of the input */
    uint32_t inputs, in_period, in_blocks;
    uint32_t copies, stride, *skew; /* plan.h; skew: `copies` numbers, NULL where copies = 1 */
    double in_norm, in_scale;
    double input_step, input_low, input_high; /* graph.h */
    uint32_t outputs, out_period, out_blocks;
    double out_norm, out_scale;
    size_t automorphisms;
    uint32_t *automorphism;         /* increasing */
} hemi_circuit_io;

HEMI_CHECK hemi_status hemi_circuit_io_from_plan(hemi_circuit_io *io, const hemi_circuit *circuit, const hemi_circuit_plan *plan, hemi_error *err);
void hemi_circuit_io_clear(hemi_circuit_io *io);
/* In all that a request, its reply and the keys follow from. */
bool hemi_circuit_io_equal(const hemi_circuit_io *a, const hemi_circuit_io *b);

/* Samples that share a ciphertext must not spoil one another: a number beyond the calibrated range, where polynomials grow without bound, is
 * clipped to it, and told. The same of `count` numbers in the clear. */
void hemi_circuit_io_clip(float *y, const hemi_circuit_io *io, const float *x, size_t count);

/* Slots (n / 2 numbers) of ciphertext `block` for samples x[0 .. count-1], count <= rows, of `inputs` numbers each. in_range: for each sample,
 * and'ed with whether its numbers lie in the calibrated range; may be NULL. A number that is not finite: false, and nothing written. */
bool hemi_circuit_io_pack(double *slots, const hemi_circuit_io *io, uint32_t block, const float *x, size_t count, bool *in_range);
/* The outputs in ciphertext `block` of those samples, into y, `outputs` numbers each. in_range: as above, of the results: within
 * HEMI_CIRCUIT_OUT_OF_RANGE, slots real, and slots that hold nothing empty. */
void hemi_circuit_io_unpack(float *y, const hemi_circuit_io *io, uint32_t block, const double *re, const double *im, size_t count, bool *in_range);

#endif
