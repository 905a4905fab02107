/* Calls by batches of rows (lot.h): with slots that were prepared, or with a batch of their own where there are many rows. */
#ifndef HEMI_CLIENT_BATCH_CALL_H
#define HEMI_CLIENT_BATCH_CALL_H

#include "client/pool.h"
#include "client/session.h"

/* From how many rows on a batch of its own is the better form: its fixed cost (second components of all 2048 coefficients, computed,
 * sent and decrypted: 2048 inputs outputs multiplications, 6 KB an output) is then made up for. With an AVX2 kernel, 768 x 768: 120 ms and
 * 4.7 MB, against 2.3 ms and 16 KB a row. So more than about 50 rows save time; to save bytes it takes one row for every two outputs. In
 * between: a row for every 16 outputs, at least 32. */
#define HEMI_WHOLE_ROWS_LEAST      32u
#define HEMI_WHOLE_OUTPUTS_PER_ROW 16u
#define HEMI_WHOLE_MEMORY          ((size_t)64 << 20) /* pads and masks of one request: more rows are sent in several */

typedef struct hemi_batch_call {
    hemi_client *client;
    hemi_pool *pool;
    const char *path, *name; /* of the route infer; of the module, for messages */
    const float *x;          /* rows x inputs */
    size_t rows;
    float *const *y; /* for each module of the pool: rows x outputs */
    hemi_call_stats *stats;
} hemi_batch_call;

/* How many of `rows` rows one batch of its own should hold: 0, if they are too few for one. */
size_t hemi_batch_call_rows(hemi_pool *pool, size_t rows);
/* A batch of their own. */
HEMI_CHECK hemi_status hemi_batch_call_whole(const hemi_batch_call *call, hemi_error *err);
/* With prepared slots. *done: false when there are none, or the server no longer knows them; then nothing was decrypted, and the call is to be
 * made in another way, under a new seed. */
HEMI_CHECK hemi_status hemi_batch_call_prepared(const hemi_batch_call *call, bool *done, hemi_error *err);

#endif
