/* A compiled module in memory. */
#ifndef HEMI_MODEL_MODULE_H
#define HEMI_MODEL_MODULE_H

#include "circuit/io.h"
#include "hemi/model.h"
#include "linear/layout.h"
#include "wire/wire.h"

struct hemi_module {
    hemi_module_info info;     /* its pointers point into this object or into static tables */
    hemi_linear_layout layout; /* one row a unit, or a tile of a grid */
    hemi_linear_layout packed; /* rows side by side; only if has_packed */
    bool has_packed, is_grid;
    bool is_dense;             /* a row is a whole sample */
    hemi_grid grid;            /* only if is_grid */
    int16_t *weights;          /* outputs x taps x inputs integers (of the map), row-major; NULL when only the client file was read */
    double *bias;              /* outputs numbers in units of the integer product (bias / output_scale); NULL without bias or weights */
    int32_t weight_max;        /* max |weights| */
    char *client_json;
    /* Operation "circuit" (a module with non-linearities); what is above, but for info and client_json, is empty then. */
    bool is_circuit;
    hemi_circuit_io io;
    hemi_circuit *circuit;     /* NULL when only the client file was read; */
    hemi_circuit_plan *plan;   /* and so is this */
};

/* The entries of evaluation keys that the module needs beside the public key: HEMI_KEY_RING_SWITCH if its replies are switched, then its
 * automorphisms, increasing; returns how many (<= HEMI_AUTOMORPHISMS_MAX). t may be NULL. */
size_t hemi_module_key_entries(const hemi_module *module, uint32_t *t);

/* x_int = round(x * factor / input_scale) for a row, factor = input_max * input_scale / max|x| (1 for a zero row), where
 * input_max = 2^(input_bits-1) - 1: so max|x_int| = input_max exactly. y = (y_int output_scale - bias) / factor + bias.
 * output_scale = weight scale * input_scale. */
int32_t hemi_module_input_max(const hemi_module *module);

/* The scale and the factor of `count` numbers that are scaled together: x_int = rint(x scale). False if one is infinite or NaN. */
bool hemi_module_scale(const hemi_module *module, const float *x, size_t count, double *scale, double *factor);
/* That x_int and factor, of a row (or sample) of info.inputs numbers: rint(x (input_max / max|x|)). False, and nothing written, if a
 * number is infinite or NaN. */
bool hemi_module_quantise_row(const hemi_module *module, const float *x, int32_t *x_int, double *factor);

/* Sets the packed layout: rows side by side, where the other layout leaves room for that. */
HEMI_CHECK hemi_status hemi_module_pack(hemi_module *module, hemi_error *err);
/* Completes a module whose info has everything from the shapes to delta, and whose layouts are set: derived numbers of info, and
 * client_json. */
HEMI_CHECK hemi_status hemi_module_finish(hemi_module *module, hemi_error *err);

/* The layout of a form of requests; NULL if the module has no such form. */
const hemi_linear_layout *hemi_module_layout(const hemi_module *module, hemi_form form);
/* The automorphisms that any of its layouts needs, increasing; t may be NULL. */
size_t hemi_module_automorphisms(const hemi_module *module, uint32_t t[HEMI_AUTOMORPHISMS_MAX]);
/* The grid, or NULL for rows (as linear/units.h wants it). */
const hemi_grid *hemi_module_grid(const hemi_module *module);
/* Weights of one output of the map, taps x inputs, and of all. */
size_t hemi_module_row_weights(const hemi_module *module);
size_t hemi_module_weights(const hemi_module *module);
/* Numbers of a row, or of a sample. */
size_t hemi_module_row_inputs(const hemi_module *module);
size_t hemi_module_row_outputs(const hemi_module *module);
/* Units that `rows` rows (on a grid: samples) make in a form. */
size_t hemi_module_units(const hemi_module *module, hemi_form form, size_t rows);
/* The request for so many units, and the frame of its reply. */
hemi_request hemi_module_request(const hemi_module *module, hemi_form form, size_t units);
hemi_reply_frame hemi_module_frame(const hemi_module *module, hemi_form form, size_t units);

#endif
