/* A lot: a batch of rows (linear/batch.h) in the client's hands. Its seed comes from this process's generator, its pads hide one number each,
 * once; the caller hands row numbers out, each only once (pool.h). One or several modules that share their input. */
#ifndef HEMI_CLIENT_LOT_H
#define HEMI_CLIENT_LOT_H

#include "client/keys.h"
#include "model/module.h"
#include "wire/batch.h"

typedef struct hemi_lot {
    hemi_batch_request request; /* of the announcement; its tags are those of the reply */
    hemi_batch_frame frame[HEMI_REQUEST_MODULES_MAX];
    uint64_t key_generation;                   /* of the secret key its pads and masks belong to */
    char key_id[65];                           /* of the evaluation keys it was announced under */
    uint32_t taken;                            /* rows 0 .. taken-1 were handed out */
    uint64_t *pads;                            /* slots x inputs: secret, wiped row by row */
    uint64_t *work;                            /* guarded: `inputs` words of scratch, then as many int32_t for a row */
    uint64_t *masks[HEMI_REQUEST_MODULES_MAX]; /* slots x outputs each: secret; NULL until the second components came */
    size_t bytes;                              /* of pads and masks */
    struct hemi_lot *next;
} hemi_lot;

/* Whether these modules can be called by one batch: rows, one input format, the q of the set for batches. */
bool hemi_lot_possible(const hemi_module *const *modules, size_t count);
size_t hemi_lot_row_bytes(const hemi_module *const *modules, size_t count);     /* memory of a row here */
size_t hemi_lot_seconds_bytes(const hemi_module *const *modules, size_t count); /* second components, as they come */

/* A fresh seed and its pads. slots: 1 to HEMI_BATCH_SLOTS_MAX. The keys are held meanwhile. */
HEMI_CHECK hemi_status hemi_lot_new(hemi_lot **out, hemi_keys *keys, const hemi_module *const *modules, size_t count,
                                    uint32_t slots, hemi_error *err);
void hemi_lot_free(hemi_lot *lot); /* wipes */

/* The announcement, or, with rows = slots, the header of a whole batch: freed with hemi_free. */
HEMI_CHECK hemi_status hemi_lot_header(const hemi_lot *lot, uint32_t rows, uint8_t **bytes, size_t *length,
                                       hemi_error *err);
/* The reply to it: makes the masks, keeps the tags. rows: 0, or all. offset: of each module's rows. ERR_STATE when the secret key was
 * replaced since. */
HEMI_CHECK hemi_status hemi_lot_accept(hemi_lot *lot, hemi_keys *keys, const uint8_t *reply, size_t bytes,
                                       uint32_t rows, size_t *offset, hemi_error *err);
size_t hemi_lot_reply_bytes(const hemi_lot *lot, bool seconds, uint32_t rows);

/* Rows first .. of a lot, quantised and encrypted into `out` (hemi_batch_row_bytes each): `rows` of x, factor[i] for each, and then, if
 * zero_row, one of zeros. Their pads are gone afterwards, also when it fails: ERR_ARGUMENT for a number that is not finite. */
HEMI_CHECK hemi_status hemi_lot_encrypt(hemi_lot *lot, const hemi_module *module, uint32_t first, const float *x,
                                        size_t rows, bool zero_row, double *factor, uint8_t *out, hemi_error *err);
/* The results of module number `which`, rows first .. of the lot: y, and b0 of the zero row where there was one (else b0 is read). */
HEMI_CHECK hemi_status hemi_lot_decrypt(const hemi_lot *lot, const hemi_module *module, size_t which, uint32_t first,
                                        const uint8_t *in, size_t rows, bool zero_row, const double *factor, double *b0,
                                        float *y, hemi_error *err);

#endif
