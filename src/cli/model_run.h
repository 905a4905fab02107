/* All layers of a model with random weights, as a server holds them, and tokens through them: for `hemi bench model`. */
#ifndef HEMI_CLI_MODEL_RUN_H
#define HEMI_CLI_MODEL_RUN_H

#include <stdbool.h>

#include "cli/bench_common.h"
#include "cli/model_shapes.h"
#include "client/lot.h"
#include "server/batches.h"

/* Layers that read one input: served by one request. */
typedef struct cli_group {
    size_t members, first;                         /* first: the shape */
    double scale;                                  /* layers of the model for one that is held */
    hemi_module *module[HEMI_REQUEST_MODULES_MAX]; /* without weights */
    hemi_evaluator *evaluator[HEMI_REQUEST_MODULES_MAX];
    float *x, *expected[HEMI_REQUEST_MODULES_MAX];
    double predicted_error[HEMI_REQUEST_MODULES_MAX];
    hemi_lot *lot; /* when it is prepared */
} cli_group;

/* One token through all layers. Times in ms, those of held layers scaled to all. */
typedef struct cli_token {
    double client_ms, server_ms, server_cpu_ms, upload_bytes, download_bytes;
} cli_token;

typedef struct cli_model {
    cli_shapes shapes;
    long layers, threads, slots, weight_bits; /* layers: of each shape that are held, at most; 0: all */
    bool small;

    size_t groups, layers_held;
    cli_group *group;
    hemi_keys *keys;
    hemi_server_keys *own_keys, *batch_keys; /* of the modules' set, and of that for batches */
    hemi_prepared *prepared;
    float *y[HEMI_REQUEST_MODULES_MAX];
    size_t evaluation_key_bytes, rss_bytes; /* rss: what building the layers added to this process */
    double load_ms, held_bytes, server_bytes,
        state_bytes; /* bytes of evaluators: as held, and of all; of prepared rows, of all */
    double prepare_ms, prepare_cpu_ms, prepare_client_ms, prepare_upload_bytes, prepare_download_bytes; /* of a batch */
    double squares; /* of errors in predicted deviations */
    size_t outputs_checked, outputs_wrong;
} cli_model;

/* Compiles, loads and makes keys. */
HEMI_CHECK hemi_status cli_model_open(cli_model *m, hemi_error *err);
/* A token by requests of encrypted units; results are checked. */
HEMI_CHECK hemi_status cli_model_token(cli_model *m, cli_token *token, hemi_error *err);
/* Whether every layer has a form for batches of rows. */
bool cli_model_can_prepare(const cli_model *m);
/* Announces one batch of `slots` rows for every group. */
HEMI_CHECK hemi_status cli_model_prepare(cli_model *m, hemi_error *err);
/* A token that was prepared: row `slot` of every batch. */
HEMI_CHECK hemi_status cli_model_prepared_token(cli_model *m, uint32_t slot, cli_token *token, hemi_error *err);
void cli_model_close(cli_model *m);

#endif
