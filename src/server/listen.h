/* The listening socket. */
#ifndef HEMI_SERVER_LISTEN_H
#define HEMI_SERVER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

/* Is what it is bound to an address of this machine alone (127.0.0.0/8, ::1)? */
bool hemi_bound_to_loopback(int socket);
/* Takes an address and port; *port becomes the one in use (port 0: the system chooses). url: where it can be reached. The
 * errors say what to do. */
HEMI_CHECK hemi_status hemi_bind(int *socket, const char *address, uint16_t *port, const char *scheme, char *url,
                                 size_t url_bytes, hemi_error *err);
/* From now on connections are accepted. */
HEMI_CHECK hemi_status hemi_listen(int socket, uint16_t port, hemi_error *err);

#endif
