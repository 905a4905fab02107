/* The routes of the server: one table, from which routing, 405, metrics and the contract test are made. */
#ifndef HEMI_SERVER_ROUTE_H
#define HEMI_SERVER_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/limits.h"

typedef enum hemi_method {
    HEMI_METHOD_OTHER = 0,
    HEMI_METHOD_GET = 1,
    HEMI_METHOD_HEAD = 2,
    HEMI_METHOD_PUT = 4,
    HEMI_METHOD_POST = 8,
    HEMI_METHOD_DELETE = 16
} hemi_method;

/* X(id, pattern, methods). {name} stands for one path segment. */
#define HEMI_ROUTE_LIST(X)                                                                                             \
    X(LIVE, "/v2/health/live", HEMI_METHOD_GET | HEMI_METHOD_HEAD)                                                     \
    X(READY, "/v2/health/ready", HEMI_METHOD_GET | HEMI_METHOD_HEAD)                                                   \
    X(METRICS, "/metrics", HEMI_METHOD_GET | HEMI_METHOD_HEAD)                                                         \
    X(MODELS, "/v2/models", HEMI_METHOD_GET | HEMI_METHOD_HEAD)                                                        \
    X(MODEL, "/v2/models/{model}", HEMI_METHOD_GET | HEMI_METHOD_HEAD)                                                 \
    X(CLIENT, "/v2/models/{model}/modules/{module}/client", HEMI_METHOD_GET | HEMI_METHOD_HEAD)                        \
    X(KEY, "/v2/keys/{hash}", HEMI_METHOD_PUT | HEMI_METHOD_HEAD | HEMI_METHOD_DELETE)                                 \
    X(INFER, "/v2/models/{model}/infer", HEMI_METHOD_POST)                                                             \
    X(PREPARE, "/v2/models/{model}/prepare", HEMI_METHOD_POST)                                                         \
    X(PROGRESS, "/v2/progress/{id}", HEMI_METHOD_GET | HEMI_METHOD_HEAD)                                               \
    X(UNKNOWN, "unknown", 0)

typedef enum hemi_route_id {
#define HEMI_ROUTE_ENUM(id, pattern, methods) HEMI_ROUTE_##id,
    HEMI_ROUTE_LIST(HEMI_ROUTE_ENUM)
#undef HEMI_ROUTE_ENUM
        HEMI_ROUTES
} hemi_route_id;

#define HEMI_ROUTE_ARGUMENTS 2

/* A path that fits a pattern. Arguments are names: [A-Za-z0-9._-], at most HEMI_SERVER_NAME_BYTES_MAX. */
typedef struct hemi_route {
    hemi_route_id id;
    char argument[HEMI_ROUTE_ARGUMENTS][HEMI_SERVER_NAME_BYTES_MAX + 1];
} hemi_route;

/* HEMI_ROUTE_UNKNOWN if no pattern fits. path is already percent-decoded. */
void hemi_route_find(hemi_route *route, const char *path);
const char *hemi_route_pattern(hemi_route_id id);
unsigned hemi_route_methods(hemi_route_id id);
hemi_method hemi_method_parse(const char *name);
const char *hemi_method_name(hemi_method method); /* "OTHER" for what is not known */
/* "GET, HEAD": for the header Allow. */
void hemi_methods_text(char text[64], unsigned methods);

/* What a request line may hold: printable ASCII, a leading '/', no "%00", no fragment. */
bool hemi_uri_is_clean(const char *uri);
/* A name of a model, module or shape: not empty, [A-Za-z0-9._-], does not begin with '.'. */
bool hemi_name_is_valid(const char *name);
/* Exactly 2 count lower-case hexadecimal digits. */
bool hemi_hex_parse(uint8_t *out, size_t count, const char *text);
void hemi_hex_text(char *out, const uint8_t *bytes, size_t count); /* 2 count digits and a NUL */
/* Decimal digits only, no sign, no overflow. */
bool hemi_decimal_parse(uint64_t *value, const char *text, size_t length);
/* "bytes a-b/total" with a <= b < total. */
bool hemi_content_range_parse(uint64_t *first, uint64_t *last, uint64_t *total, const char *text);

#endif
