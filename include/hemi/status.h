/* Status codes and error reports: defined once, used by every room.
 *
 * Functions that can fail return a hemi_status: 0 (HEMI_OK) or negative. The result must be checked.
 * An optional caller-owned hemi_error receives a message that says what was wrong, what was expected
 * and, where that is known, what to do. It never holds plaintext or key material. */
#ifndef HEMI_STATUS_H
#define HEMI_STATUS_H

#define HEMI_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HEMI_CHECK __attribute__((warn_unused_result))
#define HEMI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define HEMI_API __attribute__((visibility("default")))
#else
#define HEMI_CHECK
#define HEMI_PRINTF(fmt, args)
#define HEMI_API
#endif

/* X(name, value, HTTP status, text). The value is also what the programs exit with, negated. */
#define HEMI_STATUS_LIST(X)                                                                  \
    X(OK, 0, 200, "success")                                                                 \
    X(ERR_ARGUMENT, -2, 400, "an argument is not valid")                                     \
    X(ERR_MEMORY, -3, 503, "out of memory")                                                  \
    X(ERR_IO, -4, 500, "reading or writing failed")                                          \
    X(ERR_FORMAT, -5, 400, "the data does not have the expected format")                     \
    X(ERR_VERSION, -6, 400, "the data has a version that this program does not read")        \
    X(ERR_PARAMS, -7, 400, "the parameter set is unknown or not the expected one")           \
    X(ERR_SHAPE, -8, 400, "a shape is not the expected one")                                 \
    X(ERR_UNSUPPORTED, -9, 422, "the model holds something that cannot be encrypted")        \
    X(ERR_NOT_FOUND, -10, 404, "there is no such thing")                                     \
    X(ERR_KEY, -11, 404, "the evaluation keys are missing or do not fit")                    \
    X(ERR_CONFLICT, -12, 409, "the module has changed since the client fetched it")          \
    X(ERR_TOO_LARGE, -13, 413, "the data is larger than allowed")                            \
    X(ERR_BUSY, -14, 503, "the server is busy")                                              \
    X(ERR_NETWORK, -15, 502, "the connection failed")                                        \
    X(ERR_REMOTE, -16, 502, "the server answered with an error")                             \
    X(ERR_STATE, -17, 409, "this cannot be done in the present state")                       \
    X(ERR_METHOD, -18, 405, "the method is not allowed here")                                \
    X(ERR_LIMIT, -19, 429, "a limit has been reached")                                       \
    X(ERR_AUTH, -21, 401, "a token is missing, or not one of this server")                   \
    X(ERR_FORBIDDEN, -22, 403, "this token does not allow it")                               \
    X(ERR_BUDGET, -23, 429, "the extraction budget of this module is used up")               \
    X(ERR_INTERNAL, -20, 500, "an internal check failed")

typedef enum hemi_status {
#define HEMI_STATUS_ENUM(name, value, http, text) HEMI_##name = (value),
    HEMI_STATUS_LIST(HEMI_STATUS_ENUM)
#undef HEMI_STATUS_ENUM
} hemi_status;

#define HEMI_ERROR_MESSAGE_BYTES 640

typedef struct hemi_error {
    hemi_status status;
    char message[HEMI_ERROR_MESSAGE_BYTES]; /* NUL-terminated UTF-8 */
} hemi_error;

/* "HEMI_ERR_FORMAT", "the data does not ...", 400. Unknown values give "HEMI_ERR_INTERNAL" and so on. */
HEMI_API const char *hemi_status_name(hemi_status status);
HEMI_API const char *hemi_status_text(hemi_status status);
HEMI_API int hemi_status_http(hemi_status status);

#ifdef __cplusplus
}
#endif
#endif
