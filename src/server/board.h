/* How far requests are, for clients that ask: a request may bring an id of its own choice, a random one, and whoever knows it can read its
 * progress while it waits or is computed. Bounded: a request for which there is no place is computed like any other, unseen. */
#ifndef HEMI_SERVER_BOARD_H
#define HEMI_SERVER_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/limits.h"

typedef struct hemi_board hemi_board;
typedef struct hemi_notice hemi_notice;

typedef struct hemi_notice_text {
    size_t done, total; /* total: at least 1 */
    bool computing;     /* otherwise it waits */
} hemi_notice_text;

hemi_board *hemi_board_new(size_t places); /* NULL without memory */
void hemi_board_free(hemi_board *board);

/* A request that waits. NULL if there is no place, or if the id is there already: the first one stays. */
hemi_notice *hemi_board_put(hemi_board *board, const uint8_t id[HEMI_SERVER_PROGRESS_ID_BYTES]);
/* It is being computed. NULL notices are let pass, here and below. */
void hemi_board_change(hemi_board *board, hemi_notice *notice, size_t done, size_t total);
void hemi_board_remove(hemi_board *board, hemi_notice *notice);
bool hemi_board_read(hemi_board *board, const uint8_t id[HEMI_SERVER_PROGRESS_ID_BYTES], hemi_notice_text *text);

#endif
