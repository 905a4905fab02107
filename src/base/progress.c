#include "base/progress.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 32

void hemi_progress_bar(void *context, const char *what, size_t done, size_t total) {
    FILE *stream = context;
    if (!stream || !isatty(fileno(stream))) return;
    if (done > total) done = total;
    const size_t full = total ? (size_t)((double)done / (double)total * WIDTH) : WIDTH;
    const unsigned percent = total ? (unsigned)((double)done / (double)total * 100.0) : 100;
    char bar[WIDTH + 1];
    memset(bar, ' ', WIDTH);
    memset(bar, '#', full < WIDTH ? full : WIDTH);
    bar[WIDTH] = '\0';
    const bool last = done == total;
    fprintf(stream, "\r%-24.24s [%s] %3u%%%s", what, bar, percent, last ? "\n" : "");
    fflush(stream);
}
