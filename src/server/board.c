#include "server/board.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct hemi_notice {
    bool taken;
    uint8_t id[HEMI_SERVER_PROGRESS_ID_BYTES];
    hemi_notice_text text;
};

struct hemi_board {
    pthread_mutex_t lock;
    size_t places;
    hemi_notice *notice;
};

hemi_board *hemi_board_new(size_t places) {
    hemi_board *board = calloc(1, sizeof *board);
    if (!board) return NULL;
    pthread_mutex_init(&board->lock, NULL);
    board->places = places;
    board->notice = calloc(places, sizeof *board->notice);
    if (board->notice) return board;
    hemi_board_free(board);
    return NULL;
}

void hemi_board_free(hemi_board *board) {
    if (!board) return;
    pthread_mutex_destroy(&board->lock);
    free(board->notice);
    free(board);
}

/* Who asks learns nothing from how long it takes. */
static hemi_notice *find(hemi_board *board, const uint8_t *id) {
    hemi_notice *found = NULL;
    for (size_t i = 0; i < board->places; i++) {
        hemi_notice *n = &board->notice[i];
        if ((sodium_memcmp(n->id, id, sizeof n->id) == 0) & n->taken) found = n;
    }
    return found;
}

hemi_notice *hemi_board_put(hemi_board *board, const uint8_t id[HEMI_SERVER_PROGRESS_ID_BYTES]) {
    hemi_notice *free_one = NULL;
    pthread_mutex_lock(&board->lock);
    for (size_t i = 0; i < board->places && !free_one; i++)
        if (!board->notice[i].taken) free_one = &board->notice[i];
    if (find(board, id)) free_one = NULL;
    if (free_one) {
        *free_one = (hemi_notice){.taken = true, .text = {.total = 1}};
        memcpy(free_one->id, id, sizeof free_one->id);
    }
    pthread_mutex_unlock(&board->lock);
    return free_one;
}

void hemi_board_change(hemi_board *board, hemi_notice *notice, size_t done, size_t total) {
    if (!notice) return;
    pthread_mutex_lock(&board->lock);
    notice->text = (hemi_notice_text){.done = done, .total = total > 0 ? total : 1, .computing = true};
    pthread_mutex_unlock(&board->lock);
}

void hemi_board_remove(hemi_board *board, hemi_notice *notice) {
    if (!notice) return;
    pthread_mutex_lock(&board->lock);
    *notice = (hemi_notice){0};
    pthread_mutex_unlock(&board->lock);
}

bool hemi_board_read(hemi_board *board, const uint8_t id[HEMI_SERVER_PROGRESS_ID_BYTES], hemi_notice_text *text) {
    pthread_mutex_lock(&board->lock);
    const hemi_notice *found = find(board, id);
    if (found) *text = found->text;
    pthread_mutex_unlock(&board->lock);
    return found != NULL;
}
