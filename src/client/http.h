/* One HTTP connection to a Hemi server, kept alive. Nothing the server sends chooses an allocation: every reply is
 * read up to a bound that the caller computed beforehand. No redirects, no compression, only http and https. */
#ifndef HEMI_CLIENT_HTTP_H
#define HEMI_CLIENT_HTTP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hemi/status.h"

#define HEMI_HTTP_CONNECT_TIMEOUT_MS 10000
#define HEMI_HTTP_TIMEOUT_MS         300000
#define HEMI_HTTP_CIRCUIT_TIMEOUT_MS 3600000 /* of a request whose answer takes long to compute; what is dead is noticed by keep-alive */
#define HEMI_HTTP_ATTEMPTS           4  /* of a request, the first included */
#define HEMI_HTTP_BACKOFF_MS         50 /* before the second attempt; times 4 before each further one */
#define HEMI_HTTP_RETRY_AFTER_MAX_S  5  /* a server that asks for more is not waited for */
#define HEMI_HTTP_JSON_MAX           (4u << 20)
#define HEMI_HTTP_ERROR_BODY_MAX     (16u << 10)
#define HEMI_HTTP_PATH_MAX           2048
#define HEMI_HTTP_URL_MAX            2048

typedef struct hemi_http hemi_http;

typedef struct hemi_http_request {
    const char *method; /* "GET", "HEAD", "PUT", "POST", "DELETE" */
    const char *path;   /* begins with '/', already percent-encoded */
    const void *body;   /* PUT and POST; borrowed: the very same bytes are sent again when an attempt fails */
    size_t body_bytes;
    const char *key_id;     /* 64 hexadecimal digits for the header Hemi-Key, or NULL */
    size_t reply_bytes_max; /* a successful reply with more is an error */
    /* Where not 0: */
    size_t range_first, range_total; /* the body is a part of so many bytes (Content-Range) */
    const char *progress_id;         /* 32 hexadecimal digits for the header Hemi-Progress */
    long timeout_ms;                 /* instead of the connection's */
    bool once;                       /* after a connection error it is not sent again */
} hemi_http_request;

typedef struct hemi_http_reply {
    long status;   /* HTTP */
    uint8_t *body; /* NUL-terminated; NULL when empty */
    size_t bytes;
    double server_ms;  /* of the header Hemi-Server-Ms; 0 without one */
    double elapsed_ms; /* of the attempt that gave this reply, seen from here */
    long retry_after_s;
    bool has_received;
    size_t received;   /* of the header Hemi-Received */
} hemi_http_reply;

typedef struct hemi_http_settings {
    long connect_timeout_ms, timeout_ms; /* 0: the defaults */
    const char *token;                   /* for the header Authorization; NULL: none */
    const char *ca_file;                 /* PEM: what certificates are trusted; NULL: those of the system */
    bool allow_plain_token;              /* send the token by http to another machine */
} hemi_http_settings;

#define HEMI_HTTP_TOKEN_MAX 512

/* url: "http://host:8000", perhaps with a path before /v2. settings are copied; NULL: none. ERR_ARGUMENT says what is wrong with the url, or with a token
 * that it would carry in the clear. */
HEMI_CHECK hemi_status hemi_http_new(hemi_http **out, const char *url, const hemi_http_settings *settings, hemi_error *err);
/* Another connection to the same server, with the same settings but for the time-outs, where not 0. */
HEMI_CHECK hemi_status hemi_http_new_like(hemi_http **out, const hemi_http *like, long timeout_ms, hemi_error *err);
void hemi_http_free(hemi_http *http);
/* When *stop becomes true (from any thread), what is under way is given up soon: HEMI_ERR_NETWORK. */
void hemi_http_stop_on(hemi_http *http, const atomic_bool *stop);
const char *hemi_http_url(const hemi_http *http); /* without a slash at its end */

/* Sends a request. Connection errors, 503, 429 with Retry-After, and 502 and 504 of a proxy are tried again, with the very same bytes,
 * HEMI_HTTP_ATTEMPTS times in all, after pauses that grow. OK
 * when there is a reply, whatever its HTTP status; ERR_NETWORK, ERR_REMOTE (what came is not HTTP, or too large), ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_http_send(hemi_http *http, const hemi_http_request *request, hemi_http_reply *reply,
                                      hemi_error *err);
void hemi_http_reply_clear(hemi_http_reply *reply);

/* The status that the error document of a reply names (HEMI_ERR_REMOTE where there is none; HEMI_OK for 2xx). */
hemi_status hemi_http_reply_status(const hemi_http_reply *reply);
/* Turns a reply that is not 2xx into an error: URL, HTTP status, code, message, and what to do. */
hemi_status hemi_http_reply_fail(const hemi_http *http, const hemi_http_request *request, const hemi_http_reply *reply,
                                 hemi_error *err);

/* Appends text to path (HEMI_HTTP_PATH_MAX bytes), percent-encoded but for unreserved characters. False when it is too long. */
bool hemi_http_path_append(char *path, const char *text);

#endif
