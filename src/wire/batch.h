/* Formats of batches of rows (linear/batch.h; docs/wire-format.md, "Batch request" and "Batch reply"). As everywhere on the wire, every
 * length follows from the header, and conformance is equality.
 *
 * A batch is one 32-byte seed with `slots` rows in use. A request about it is one of three:
 *   announcement  no rows: the second components are wanted, and what depends on the seed alone is made ready
 *   whole         all rows at once, and the second components with the results
 *   rows          some rows of a batch that was announced: each module's tag says under which state
 */
#ifndef HEMI_WIRE_BATCH_H
#define HEMI_WIRE_BATCH_H

#include <stdbool.h>

#include "wire/wire.h"

#define HEMI_BATCH_SET          "L2048" /* the parameter set of all batches: no key switching */
#define HEMI_BATCH_SLOTS_MAX    2048    /* its ring degree */
#define HEMI_BATCH_HEADER_BYTES 72
#define HEMI_BATCH_ENTRY_BYTES  32 /* of a module in a request */
#define HEMI_BATCH_REPLY_BYTES  24
#define HEMI_BATCH_FRAME_BYTES  64
#define HEMI_BATCH_TAG_BYTES    16
#define HEMI_BATCH_INPUTS_MAX   (1u << 16)

typedef struct hemi_batch_request {
    const hemi_params *params;
    uint32_t inputs;
    unsigned b_bits;
    bool seconds;                /* second components are wanted: an announcement or a whole batch */
    uint32_t first, rows, slots; /* rows first .. first+rows-1, of those in use: 0 .. slots-1 */
    uint8_t seed[HEMI_SEED_BYTES];
    size_t modules;
    struct {
        uint8_t id[HEMI_MODULE_ID_BYTES], tag[HEMI_BATCH_TAG_BYTES]; /* tag: zeros where seconds are wanted */
    } module[HEMI_REQUEST_MODULES_MAX];
} hemi_batch_request;

size_t hemi_batch_request_bytes(const hemi_batch_request *r);
size_t hemi_batch_row_bytes(const hemi_batch_request *r); /* of one row: `inputs` fields of b_bits */
size_t hemi_batch_rows_offset(const hemi_batch_request *r);
void hemi_batch_request_write_header(uint8_t *out, const hemi_batch_request *r);
/* Is this, by its first bytes, a batch request? (What it is besides is for the parser to say.) */
bool hemi_batch_request_is(const uint8_t *bytes, size_t count);
/* Everything that can be checked without the modules, the total length included. */
HEMI_CHECK hemi_status hemi_batch_request_parse(hemi_batch_request *r, const uint8_t *bytes, size_t count,
                                                hemi_error *err);

/* One module's part of a reply. */
typedef struct hemi_batch_frame {
    uint8_t id[HEMI_MODULE_ID_BYTES], tag[HEMI_BATCH_TAG_BYTES];
    uint32_t rows, outputs;
    unsigned a_bits, b_bits;
    bool seconds;
} hemi_batch_frame;

size_t hemi_batch_seconds_bytes(const hemi_params *params, const hemi_batch_frame *f); /* 0 without them */
size_t hemi_batch_result_bytes(const hemi_batch_frame *f);                             /* of one row */
size_t hemi_batch_frame_bytes(const hemi_params *params, const hemi_batch_frame *f);
void hemi_batch_reply_write_header(uint8_t *out, const hemi_params *params, size_t modules, uint64_t total_bytes);
void hemi_batch_frame_write_header(uint8_t *out, const hemi_params *params, const hemi_batch_frame *f);
/* Checks a whole reply against what is expected: one frame per module, in order. The tags are the server's: where frame i has
 * `seconds` its tag is written to expected[i].tag, otherwise it must be that of expected[i]. Frame i's second components begin at
 * offset[i], its rows hemi_batch_seconds_bytes later. */
HEMI_CHECK hemi_status hemi_batch_reply_parse(const uint8_t *bytes, size_t count, const hemi_params *params,
                                              hemi_batch_frame *expected, size_t modules, size_t *offset,
                                              hemi_error *err);

#endif
