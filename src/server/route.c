#include "server/route.h"

#include <string.h>

typedef struct row {
    const char *pattern;
    unsigned methods;
} row;

static const row rows[HEMI_ROUTES] = {
#define ROW(id, pattern, methods) {pattern, methods},
    HEMI_ROUTE_LIST(ROW)
#undef ROW
};

static const struct {
    const char *name;
    hemi_method method;
} methods[] = {{"GET", HEMI_METHOD_GET},
               {"HEAD", HEMI_METHOD_HEAD},
               {"PUT", HEMI_METHOD_PUT},
               {"POST", HEMI_METHOD_POST},
               {"DELETE", HEMI_METHOD_DELETE}};
#define METHODS (sizeof methods / sizeof *methods)

static bool is_name_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
}

bool hemi_name_is_valid(const char *name) {
    size_t n = 0;
    for (; name[n]; n++)
        if (n == HEMI_SERVER_NAME_BYTES_MAX || !is_name_character(name[n])) return false;
    return n > 0 && name[0] != '.';
}

/* One pattern against one path; fills the arguments as it goes. */
static bool fits(hemi_route *route, const char *pattern, const char *path) {
    size_t arguments = 0;
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++) return false;
            continue;
        }
        const size_t length = strcspn(path, "/");
        char *out = route->argument[arguments++];
        if (length > HEMI_SERVER_NAME_BYTES_MAX) return false;
        memcpy(out, path, length);
        out[length] = 0;
        if (!hemi_name_is_valid(out)) return false;
        path += length;
        pattern = strchr(pattern, '}') + 1;
    }
    return *path == 0;
}

void hemi_route_find(hemi_route *route, const char *path) {
    for (int i = 0; i < HEMI_ROUTE_UNKNOWN; i++) {
        memset(route, 0, sizeof *route);
        if (!fits(route, rows[i].pattern, path)) continue;
        route->id = (hemi_route_id)i;
        return;
    }
    memset(route, 0, sizeof *route);
    route->id = HEMI_ROUTE_UNKNOWN;
}

const char *hemi_route_pattern(hemi_route_id id) { return rows[id].pattern; }
unsigned hemi_route_methods(hemi_route_id id) { return rows[id].methods; }

hemi_method hemi_method_parse(const char *name) {
    for (size_t i = 0; i < METHODS; i++)
        if (strcmp(name, methods[i].name) == 0) return methods[i].method;
    return HEMI_METHOD_OTHER;
}

const char *hemi_method_name(hemi_method method) {
    for (size_t i = 0; i < METHODS; i++)
        if (methods[i].method == method) return methods[i].name;
    return "OTHER";
}

void hemi_methods_text(char text[64], unsigned mask) {
    text[0] = 0;
    for (size_t i = 0; i < METHODS; i++) {
        if (!(mask & methods[i].method)) continue;
        if (text[0]) strcat(text, ", ");
        strcat(text, methods[i].name);
    }
}

bool hemi_uri_is_clean(const char *uri) {
    if (uri[0] != '/') return false;
    for (const char *c = uri; *c; c++)
        if (*c <= ' ' || *c > '~' || *c == '#' || *c == '\\' || strncmp(c, "%00", 3) == 0) return false;
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool hemi_hex_parse(uint8_t *out, size_t count, const char *text) {
    if (strlen(text) != 2 * count) return false;
    for (size_t i = 0; i < count; i++) {
        const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void hemi_hex_text(char *out, const uint8_t *bytes, size_t count) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * count] = 0;
}

bool hemi_decimal_parse(uint64_t *value, const char *text, size_t length) {
    uint64_t v = 0;
    if (length == 0 || length > 19) return false; /* 10^19 - 1 < 2^64 */
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        v = 10 * v + (uint64_t)(text[i] - '0');
    }
    *value = v;
    return true;
}

bool hemi_content_range_parse(uint64_t *first, uint64_t *last, uint64_t *total, const char *text) {
    if (strncmp(text, "bytes ", 6) != 0) return false;
    const char *a = text + 6, *dash = strchr(a, '-');
    const char *slash = dash ? strchr(dash, '/') : NULL;
    if (!slash) return false;
    return hemi_decimal_parse(first, a, (size_t)(dash - a)) &&
           hemi_decimal_parse(last, dash + 1, (size_t)(slash - dash - 1)) &&
           hemi_decimal_parse(total, slash + 1, strlen(slash + 1)) && *first <= *last && *last < *total;
}
