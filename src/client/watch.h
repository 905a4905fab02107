/* How far a long computation on the server is: asked by a thread with a connection of its own, told through a callback. What cannot be asked, or
 * is answered with an error, is not told: a server may not know of this. */
#ifndef HEMI_CLIENT_WATCH_H
#define HEMI_CLIENT_WATCH_H

#include <stdbool.h>

#include "base/progress.h"
#include "client/http.h"

#define HEMI_WATCH_FIRST_MS   500 /* a call that is over by then is not asked about */
#define HEMI_WATCH_EVERY_MS   250
#define HEMI_WATCH_TIMEOUT_MS 2000

typedef struct hemi_watch hemi_watch;

/* Of request `part` of `parts`, each of which counts the same: "infer". NULL where it cannot be watched. */
hemi_watch *hemi_watch_start(const hemi_http *like, const char *key_id, hemi_progress_fn progress, void *context, size_t part, size_t parts);
/* 32 hexadecimal digits, random: for the header Hemi-Progress of the request. */
const char *hemi_watch_id(const hemi_watch *watch);
/* Ends and frees it; takes NULL. Tells, if it is, that this request is done. The callback is not called afterwards. */
void hemi_watch_stop(hemi_watch *watch, bool done);

#endif
