/* The texts of the status codes, and filling in of errors. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

typedef struct row {
    hemi_status status;
    int http;
    const char *name, *text;
} row;

static const row rows[] = {
#define ROW(name, value, http, text) {HEMI_##name, http, "HEMI_" #name, text},
    HEMI_STATUS_LIST(ROW)
#undef ROW
};

static const row *row_of(hemi_status status) {
    const size_t count = sizeof rows / sizeof *rows;
    for (size_t i = 0; i < count; i++)
        if (rows[i].status == status) return &rows[i];
    return &rows[count - 1]; /* ERR_INTERNAL */
}

const char *hemi_status_name(hemi_status status) { return row_of(status)->name; }
const char *hemi_status_text(hemi_status status) { return row_of(status)->text; }
int hemi_status_http(hemi_status status) { return row_of(status)->http; }

/* Where a text that was cut at `length` may end: not inside a UTF-8 sequence. */
static size_t whole_characters(const char *text, size_t length) {
    size_t end = length;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80) end--;
    return end;
}

/* Formats into a buffer of HEMI_ERROR_MESSAGE_BYTES; what is too long is cut. Returns the length. */
static size_t format_cut(char *out, const char *format, va_list arguments) HEMI_PRINTF(2, 0);
static size_t format_cut(char *out, const char *format, va_list arguments) {
    char longer[HEMI_ERROR_MESSAGE_BYTES + 1];
    const int wanted = vsnprintf(longer, sizeof longer, format, arguments);
    size_t length = wanted < 0 ? 0 : (size_t)wanted;
    if (length >= HEMI_ERROR_MESSAGE_BYTES) length = whole_characters(longer, HEMI_ERROR_MESSAGE_BYTES - 1);
    memcpy(out, longer, length);
    out[length] = '\0';
    return length;
}

hemi_status hemi_fail(hemi_error *err, hemi_status status, const char *format, ...) {
    if (!err) return status;
    va_list arguments;
    va_start(arguments, format);
    char message[HEMI_ERROR_MESSAGE_BYTES]; /* an argument may be err->message itself */
    const size_t length = format_cut(message, format, arguments);
    va_end(arguments);
    err->status = status;
    memcpy(err->message, message, length + 1);
    return status;
}

hemi_status hemi_fail_in(hemi_error *err, hemi_status status, const char *format, ...) {
    if (!err) return status;
    va_list arguments;
    va_start(arguments, format);
    char context[HEMI_ERROR_MESSAGE_BYTES];
    format_cut(context, format, arguments);
    va_end(arguments);
    char before[HEMI_ERROR_MESSAGE_BYTES];
    memcpy(before, err->message, sizeof before);
    before[sizeof before - 1] = '\0';
    return hemi_fail(err, err->status != HEMI_OK ? err->status : status, "%s: %s", context, before);
}
