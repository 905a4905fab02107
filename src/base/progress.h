/* Progress of long work: a callback, and a bar on a terminal. */
#ifndef HEMI_BASE_PROGRESS_H
#define HEMI_BASE_PROGRESS_H

#include <stddef.h>
#include <stdio.h>

typedef void (*hemi_progress_fn)(void *context, const char *what, size_t done, size_t total);

/* A bar on `stream` if that is a terminal, nothing otherwise. context: the FILE. */
void hemi_progress_bar(void *context, const char *what, size_t done, size_t total);

#endif
