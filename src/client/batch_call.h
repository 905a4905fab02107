/* Calls by batches of rows (lot.h): with slots that were prepared, or with a batch of their own where there are many rows. */
#ifndef HEMI_CLIENT_BATCH_CALL_H
#define HEMI_CLIENT_BATCH_CALL_H

#include "client/pool.h"
#include "client/session.h"

/* From how many rows on a batch of its own is the better form. Its fixed cost, the second components, is that of 2048 rows in time and 6 KB an
 * output in bytes; what it saves is nearly all of the other form's time. At 768 x 768 (`hemi bench rows`, one thread): 110 ms with AVX2, 50 with
 * AVX-512, and 4.9 MB, against 1.7 and 0.9 ms and 5.4 KB a row. So time is even at about 60 rows, of any size of matrix; at a row for
 * every 4 outputs (192) the batch takes a third of it, for 27 KB a row in place of 5.4. Few outputs make the second components small: then a
 * batch is soon better in both. */
#define HEMI_WHOLE_ROWS_LEAST      32u
#define HEMI_WHOLE_OUTPUTS_PER_ROW 4u
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
