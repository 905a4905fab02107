/* The model owner's side: from an ONNX sub-module and calibration data to a compiled module, which is a folder with
 *   client.zip (client.json)                       what a client may see: operation, shapes, layout, scales, set
 *   server.zip (server.json, weights.safetensors)  what only the server may see
 * See docs/file-format.md. Link libhemi-core. */
#ifndef HEMI_MODEL_H
#define HEMI_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/params.h"
#include "hemi/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HEMI_MODULE_ID_BYTES 16
#define HEMI_SHAPE_MAX 8 /* dimensions of an input */

/* A compiled module with its weights. Immutable after creation; may be shared between threads. */
typedef struct hemi_module hemi_module;

typedef struct hemi_compile_options {
    int weight_bits;    /* 2..16; 0: the width that minimises quantisation plus noise */
    int input_bits;     /* 2..16; 0: 16 */
    uint32_t layout;    /* S, a power of two >= inputs; 0: chosen by the compiler */
    const char *set;    /* name of a parameter set; NULL: "L4096" */
    unsigned b_bits;    /* bits of an uploaded coefficient; 0: chosen by the noise formula */
    /* For modules that read the same input and are to be served by one encryption: they need the same layout, babies, b_bits and delta. */
    uint64_t delta_max; /* no larger delta than this; 0: no limit */
    uint32_t babies;    /* rotations of the input, a power of two; 0: chosen by the compiler */
    const uint8_t *input_group; /* HEMI_MODULE_ID_BYTES random bytes: modules that carry the same ones receive the same input, so that
                                 * hemi_remote_call_many can serve them; NULL: none */
    void (*progress)(void *context, const char *what, size_t done, size_t total); /* may be NULL */
    void *progress_context;
    /* Of modules with non-linearities, which are compiled to circuits. set: one of the levelled sets; NULL: the cheapest that fits. */
    double tolerance;    /* rms of the error that polynomials may add to outputs on the calibration data, relative to their rms; 0: 4 % */
    double range_margin; /* of the ranges of activations, over what the calibration data reaches; 0: 1.25, more where samples differ much */
    uint32_t degree_max; /* of polynomials; 0: 127 */
    uint32_t rows;       /* samples of a ciphertext, a power of two; 0: chosen by the compiler */
    bool force_circuit;  /* linear modules too */
} hemi_compile_options;

/* What a module is. Strings and arrays live as long as the module. Bytes are exact. */
typedef struct hemi_module_info {
    const char *operation;            /* "linear": rows of any number; "conv", "dense": samples of one shape; "circuit": with non-linearities */
    uint8_t id[HEMI_MODULE_ID_BYTES]; /* random, new with every compilation */
    const hemi_params *params;
    uint32_t inputs, outputs;         /* features of one row; numbers of one sample */
    size_t shape_rank;                /* of the calibration input with its first dimension set to 1: */
    uint32_t shape[HEMI_SHAPE_MAX];   /* {1, 768}; {1, 3, 32, 32} */
    size_t output_rank;
    uint32_t output_shape[HEMI_SHAPE_MAX]; /* {1, 3072}; {1, 64, 16, 16} */
    /* What is multiplied: of a row or sample, or, "conv", of a position of the grid, which stands for step x step numbers of each channel */
    uint32_t map_inputs, map_outputs, taps;
    uint32_t layout;                  /* S */
    uint32_t babies;
    uint32_t products;                /* plaintexts, each multiplied once per unit */
    uint32_t units;                   /* of one row or sample: encrypted, computed and sent one by one */
    uint32_t packed_rows;             /* rows of a unit where many rows come together; 1: not packed */
    int weight_bits, input_bits;
    unsigned b_bits, reply_a_bits, reply_b_bits;
    uint32_t reply_ring;              /* degree of the ring that replies are switched to; 0: they stay in the set's own */
    bool has_bias;
    double input_scale, output_scale; /* y = (phase / delta) output_scale */
    uint64_t delta;
    bool has_input_group;
    uint8_t input_group[HEMI_MODULE_ID_BYTES]; /* where it has one */
    size_t automorphisms;             /* key-switching keys needed; 0 for small layers */
    size_t evaluation_key_bytes;      /* with the public key */
    size_t upload_bytes, download_bytes; /* for one row or sample */
    double predicted_error;           /* standard deviation of the error of an output, in units of the output */
    double output_max;                /* largest |output| on the calibration data, 0 if unknown (server file only) */
    bool has_weights;                 /* false when only the client file was there */
    /* Of circuits alone; 0 otherwise. A unit is a ciphertext, or several for large samples, of `packed_rows` rows. */
    bool circuit_rows;                /* works on the last dimension alone: rows of any number and leading shape, as "linear" */
    uint32_t levels;                  /* that it takes, of those of the set */
    size_t activations;               /* values that are functions or products (server file only): hemi_module_get_activation */
    double approximation_error;       /* rms of the error that polynomials add to outputs on the calibration data, relative to their rms (server file only) */
    double input_low, input_high;     /* the calibrated range of inputs, margin included: what is outside is clipped, and told */
} hemi_module_info;

/* One non-linearity of a circuit: what the report shows. Strings live as long as the module. */
typedef struct hemi_activation_info {
    const char *name;                 /* "Relu (node '/seq/1/Relu')" */
    uint32_t size;                    /* numbers of a sample */
    double low, high;                 /* the range its polynomial is for */
    uint32_t degree, levels;          /* of the polynomial; products of two values: 2 and 1 */
} hemi_activation_info;

/* Compiles ONNX (a sub-module of linear operators) with calibration inputs x, float32, row-major, of that shape.
 * What works on the last dimension becomes rows, for calls of any other dimensions ("linear"). The rest is compiled for samples of one shape: the
 * first dimension counts them, unless the graph has one dimension less, or takes no batch. Convolutions and what can be multiplied into one
 * stay what they are ("conv"); the rest is a matrix of the whole sample ("dense").
 * ERR_UNSUPPORTED names the operator that cannot be encrypted and what to do; ERR_SHAPE, ERR_FORMAT, ERR_ARGUMENT. */
HEMI_API HEMI_CHECK hemi_status hemi_module_compile(hemi_module **out, const void *onnx, size_t onnx_bytes, const float *x,
                                                    const uint32_t *shape, size_t shape_rank,
                                                    const hemi_compile_options *options, hemi_error *err);
/* The same from a matrix: weight is outputs x inputs, row-major; bias has `outputs` numbers or is NULL. */
HEMI_API HEMI_CHECK hemi_status hemi_module_from_linear(hemi_module **out, const float *weight, const float *bias, uint32_t outputs,
                                                        uint32_t inputs, const float *x, const uint32_t *shape, size_t shape_rank,
                                                        const hemi_compile_options *options, hemi_error *err);
/* A convolution of samples in_channels x height x width. Pairs are y, x; groups, strides and dilations that are 0 count as 1. */
typedef struct hemi_conv {
    uint32_t in_channels, out_channels, groups, height, width;
    uint32_t kernel[2], stride[2], dilation[2], padding[2]; /* padding: zeros at either end */
} hemi_conv;
/* out: height and width of the result. False if the window is larger than the padded sample, or a number is out of range. */
HEMI_API bool hemi_conv_sides(const hemi_conv *conv, uint32_t out[2]);
/* The same from a convolution: weight is out_channels x in_channels/groups x kernel[0] x kernel[1], row-major; bias has out_channels numbers or
 * is NULL; x: samples x in_channels x height x width. */
HEMI_API HEMI_CHECK hemi_status hemi_module_from_conv(hemi_module **out, const float *weight, const float *bias, const hemi_conv *conv,
                                                      const float *x, uint32_t samples, const hemi_compile_options *options,
                                                      hemi_error *err);
/* Writes folder/client.zip and, of a module with weights, folder/server.zip, each by rename; creates the folder. Safe to repeat. */
HEMI_API HEMI_CHECK hemi_status hemi_module_save(const hemi_module *module, const char *folder, hemi_error *err);
/* Reads folder/server.zip (with_weights) or folder/client.zip. Where the folder holds no such file but exactly one
 * sub-folder that does, that one is read. Everything in the files is checked. */
HEMI_API HEMI_CHECK hemi_status hemi_module_open(hemi_module **out, const char *folder, bool with_weights, hemi_error *err);
/* The same from the bytes of client.json. */
HEMI_API HEMI_CHECK hemi_status hemi_module_from_client_json(hemi_module **out, const void *json, size_t bytes, hemi_error *err);
/* The bytes of client.json, NUL-terminated; owned by the module. */
HEMI_API const char *hemi_module_client_json(const hemi_module *module);
HEMI_API void hemi_module_free(hemi_module *module);
HEMI_API void hemi_module_get_info(const hemi_module *module, hemi_module_info *info);

/* The quantised product in the clear, as the encrypted one would give it: x is rows x inputs, y rows x outputs (rows: samples). With
 * noise, each output gets an independent Gaussian error of the predicted size. ERR_STATE without weights. */
HEMI_API HEMI_CHECK hemi_status hemi_module_run_clear(const hemi_module *module, const float *x, size_t rows, float *y, bool noise,
                                                      hemi_error *err);
/* Of circuits, run_clear gives with noise what the encrypted module gives, polynomials in place of functions; without it the functions themselves,
 * of the quantised weights. */

/* Activation i < info.activations of a circuit. ERR_STATE without weights, ERR_ARGUMENT. */
HEMI_API HEMI_CHECK hemi_status hemi_module_get_activation(const hemi_module *module, size_t i, hemi_activation_info *info, hemi_error *err);

#ifdef __cplusplus
}
#endif
#endif
