/* The HTTP server behind hemi_http_server_* (hemi/server.h), for the program hemi-server and the tests. */
#ifndef HEMI_SERVER_HTTP_H
#define HEMI_SERVER_HTTP_H

#include "server/exchange.h"

/* What it serves; valid while the server runs. */
const hemi_service *hemi_http_server_service(const hemi_http_server *server);
const char *hemi_http_server_url(const hemi_http_server *server); /* "http://127.0.0.1:8000" */

#endif
