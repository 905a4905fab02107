#include "client/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"

struct hemi_http {
    CURL *curl;
    struct curl_slist *headers_plain, *headers_binary;
    pid_t pid;   /* a connection is not shared with a forked child */
    bool direct; /* a loopback address: never through a proxy */
    bool plain;  /* http */
    bool allow_plain_token;
    char *token, *ca_file; /* NULL: none */
    long connect_timeout_ms, timeout_ms;
    const atomic_bool *stop; /* NULL, or: when true, what is under way is given up */
    char url[HEMI_HTTP_URL_MAX];
    char reason[CURL_ERROR_SIZE];
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;
static void curl_start(void) { curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT); }

/* ---- the address */

/* 127.0.0.0/8, and not a name that begins like it. */
static bool is_loopback(const char *host) {
    struct in_addr v4;
    if (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127) return true;
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           strcmp(host, "0.0.0.0") == 0;
}

/* Copies the part of an URL; the empty string when it has none. */
static void url_part(char *out, size_t bytes, CURLU *u, CURLUPart part) {
    char *text = NULL;
    out[0] = 0;
    if (curl_url_get(u, part, &text, 0) == CURLUE_OK && text) snprintf(out, bytes, "%s", text);
    curl_free(text);
}

static hemi_status url_check(hemi_http *http, CURLU *u, hemi_error *err) {
    char scheme[16], host[256], rest[8], user[8];
    if (curl_url_set(u, CURLUPART_URL, http->url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "'%.200s' is not an address: write it like http://127.0.0.1:8000",
                         http->url);
    url_part(scheme, sizeof scheme, u, CURLUPART_SCHEME);
    if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "'%.200s': only http and https are spoken, not '%s'", http->url,
                         scheme);
    url_part(user, sizeof user, u, CURLUPART_USER);
    if (user[0]) return hemi_fail(err, HEMI_ERR_ARGUMENT, "a server's address must not hold a user name or a password");
    url_part(rest, sizeof rest, u, CURLUPART_QUERY);
    if (!rest[0]) url_part(rest, sizeof rest, u, CURLUPART_FRAGMENT);
    if (rest[0])
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "'%.200s': a server's address ends before '?' and '#'", http->url);
    url_part(host, sizeof host, u, CURLUPART_HOST);
    http->direct = is_loopback(host);
    http->plain = strcmp(scheme, "http") == 0;
    return HEMI_OK;
}

static hemi_status url_set(hemi_http *http, const char *url, hemi_error *err) {
    if (!url || !url[0]) return hemi_fail(err, HEMI_ERR_ARGUMENT, "no address of a server was given");
    size_t length = strlen(url);
    if (length >= sizeof http->url) return hemi_fail(err, HEMI_ERR_ARGUMENT, "the address of the server is too long");
    if (strstr(url, "://") == NULL)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "'%.200s' lacks the scheme: did you mean http://%.200s ?", url, url);
    memcpy(http->url, url, length + 1);
    while (length > 0 && http->url[length - 1] == '/') http->url[--length] = 0;
    CURLU *u = curl_url();
    if (!u) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_status status = url_check(http, u, err);
    curl_url_cleanup(u);
    return status;
}

/* ---- the object */

/* A token that others can read on the way is theirs, too. */
static hemi_status set_token(hemi_http *http, const hemi_http_settings *s, hemi_error *err) {
    http->allow_plain_token = s->allow_plain_token;
    if (s->ca_file && !(http->ca_file = hemi_strdup(s->ca_file))) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    if (!s->token || !s->token[0]) return HEMI_OK;
    size_t length = 0;
    while (s->token[length] > 32 && s->token[length] < 127) length++;
    if (s->token[length] || length > HEMI_HTTP_TOKEN_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "the token is not one: it has at most %d characters, and no spaces or line ends", HEMI_HTTP_TOKEN_MAX);
    if (http->plain && !http->direct && !s->allow_plain_token)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "the token would go to %.200s in the clear: use https", http->url);
    http->token = hemi_strdup(s->token);
    return http->token ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
}

hemi_status hemi_http_new_like(hemi_http **out, const hemi_http *like, long timeout_ms, hemi_error *err) {
    const hemi_http_settings s = {.connect_timeout_ms = timeout_ms ? timeout_ms : like->connect_timeout_ms,
                                  .timeout_ms = timeout_ms ? timeout_ms : like->timeout_ms,
                                  .token = like->token,
                                  .ca_file = like->ca_file,
                                  .allow_plain_token = like->allow_plain_token};
    return hemi_http_new(out, like->url, &s, err);
}

hemi_status hemi_http_new(hemi_http **out, const char *url, const hemi_http_settings *settings, hemi_error *err) {
    const hemi_http_settings none = {0};
    *out = NULL;
    if (!settings) settings = &none;
    const long connect_timeout_ms = settings->connect_timeout_ms, timeout_ms = settings->timeout_ms;
    pthread_once(&curl_once, curl_start);
    if (curl_ready != CURLE_OK) return hemi_fail(err, HEMI_ERR_INTERNAL, "libcurl: %s", curl_easy_strerror(curl_ready));
    if (connect_timeout_ms < 0 || timeout_ms < 0) return hemi_fail(err, HEMI_ERR_ARGUMENT, "a time-out is negative");
    hemi_http *http = hemi_alloc(1, sizeof *http);
    if (!http) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    http->pid = getpid();
    hemi_status status = url_set(http, url, err);
    if (status == HEMI_OK) status = set_token(http, settings, err);
    if (status != HEMI_OK) {
        hemi_http_free(http);
        return status;
    }
    http->connect_timeout_ms = connect_timeout_ms ? connect_timeout_ms : HEMI_HTTP_CONNECT_TIMEOUT_MS;
    http->timeout_ms = timeout_ms ? timeout_ms : HEMI_HTTP_TIMEOUT_MS;
    http->curl = curl_easy_init();
    http->headers_plain = curl_slist_append(NULL, "Accept: application/json");
    http->headers_binary = curl_slist_append(NULL, "Content-Type: application/octet-stream");
    if (!http->curl || !http->headers_plain || !http->headers_binary ||
        !curl_slist_append(http->headers_binary, "Expect:")) {
        hemi_http_free(http);
        return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    }
    *out = http;
    return HEMI_OK;
}

void hemi_http_free(hemi_http *http) {
    if (!http) return;
    if (http->curl && http->pid == getpid()) curl_easy_cleanup(http->curl);
    curl_slist_free_all(http->headers_plain);
    curl_slist_free_all(http->headers_binary);
    hemi_free(http->token); /* wiped */
    hemi_free(http->ca_file);
    hemi_free(http);
}

void hemi_http_stop_on(hemi_http *http, const atomic_bool *stop) { http->stop = stop; }

const char *hemi_http_url(const hemi_http *http) { return http->url; }

/* In a forked child the connection is the parent's: leave it alone (closing it would end a TLS session) and make another. */
static hemi_status after_fork(hemi_http *http, hemi_error *err) {
    if (http->pid == getpid()) return HEMI_OK;
    http->curl = curl_easy_init();
    http->pid = getpid();
    return http->curl ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
}

/* ---- receiving */

typedef struct receiver {
    CURL *curl;
    hemi_http_reply *reply;
    size_t capacity, limit;
    bool overflow, no_memory;
} receiver;

static size_t on_body(char *data, size_t one, size_t count, void *context) {
    receiver *r = context;
    size_t bytes = one * count, limit = r->limit;
    long code = 0;
    curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &code);
    if ((code < 200 || code > 299) && limit > HEMI_HTTP_ERROR_BODY_MAX) limit = HEMI_HTTP_ERROR_BODY_MAX;
    if (bytes > limit - r->reply->bytes) {
        r->overflow = true;
        return CURL_WRITEFUNC_ERROR;
    }
    size_t need = r->reply->bytes + bytes + 1;
    if (need > r->capacity) {
        size_t capacity = r->capacity ? r->capacity : 4096;
        while (capacity < need) capacity *= 2;
        if (capacity > limit + 1) capacity = limit + 1;
        uint8_t *grown = realloc(r->reply->body, capacity);
        if (!grown) {
            r->no_memory = true;
            return CURL_WRITEFUNC_ERROR;
        }
        r->reply->body = grown;
        r->capacity = capacity;
    }
    memcpy(r->reply->body + r->reply->bytes, data, bytes);
    r->reply->bytes += bytes;
    r->reply->body[r->reply->bytes] = 0;
    return bytes;
}

/* The value of a header line if it is the one called name; value has room for 32 characters. */
static bool header_is(const char *line, size_t bytes, const char *name, char value[32]) {
    size_t n = strlen(name);
    if (bytes <= n || strncasecmp(line, name, n) != 0 || line[n] != ':') return false;
    for (n++; n < bytes && line[n] == ' '; n++) {
    }
    size_t length = bytes - n < 31 ? bytes - n : 31;
    memcpy(value, line + n, length);
    value[length] = 0;
    return true;
}

static size_t on_header(char *line, size_t one, size_t count, void *context) {
    receiver *r = context;
    size_t bytes = one * count;
    char value[32];
    if (header_is(line, bytes, "Hemi-Server-Ms", value)) {
        double ms = strtod(value, NULL);
        r->reply->server_ms = ms > 0 && ms < 1e9 ? ms : 0;
    } else if (header_is(line, bytes, "Retry-After", value)) {
        long s = strtol(value, NULL, 10);
        r->reply->retry_after_s = s > 0 ? s : 0;
    } else if (header_is(line, bytes, "Hemi-Received", value) && value[0] >= '0' && value[0] <= '9') {
        r->reply->has_received = true;
        r->reply->received = strtoull(value, NULL, 10);
    }
    return bytes;
}

void hemi_http_reply_clear(hemi_http_reply *reply) {
    free(reply->body);
    memset(reply, 0, sizeof *reply);
}

/* ---- sending */

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    const hemi_http *http = context;
    (void)a, (void)b, (void)c, (void)d;
    return atomic_load(http->stop) ? 1 : 0; /* not 0 ends the transfer */
}

static long timeout_of(const hemi_http *http, const hemi_http_request *request) {
    return request->timeout_ms > 0 ? request->timeout_ms : http->timeout_ms;
}

static CURLcode set_options(hemi_http *http, const hemi_http_request *request, const char *url,
                            struct curl_slist *headers, receiver *r) {
    CURL *c = http->curl;
    curl_easy_reset(c); /* keeps the connection */
    CURLcode code = CURLE_OK;
#define SET(option, value)                                                                                             \
    if (code == CURLE_OK) code = curl_easy_setopt(c, option, value)
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, http->connect_timeout_ms);
    SET(CURLOPT_TIMEOUT_MS, timeout_of(http, request));
    SET(CURLOPT_USERAGENT, "hemi/" HEMI_VERSION);
    SET(CURLOPT_ERRORBUFFER, http->reason);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, r);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, r);
    if (http->stop) {
        SET(CURLOPT_NOPROGRESS, 0L);
        SET(CURLOPT_XFERINFOFUNCTION, on_progress);
        SET(CURLOPT_XFERINFODATA, http);
    }
    if (http->direct) SET(CURLOPT_PROXY, "");
    if (http->ca_file) SET(CURLOPT_CAINFO, http->ca_file);
    if (strcmp(request->method, "HEAD") == 0) {
        SET(CURLOPT_NOBODY, 1L);
    } else if (request->body) {
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
        SET(CURLOPT_POSTFIELDS, request->body);
        SET(CURLOPT_CUSTOMREQUEST, request->method);
    } else {
        SET(CURLOPT_CUSTOMREQUEST, request->method);
    }
#undef SET
    return code;
}

/* Is it worth another try? Time-outs and bad certificates are not. */
static bool is_transient(CURLcode code) {
    return code == CURLE_COULDNT_CONNECT || code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR ||
           code == CURLE_GOT_NOTHING || code == CURLE_PARTIAL_FILE;
}

static hemi_status curl_fail(const hemi_http *http, const hemi_http_request *request, CURLcode code, const receiver *r,
                             hemi_error *err) {
    const char *reason = http->reason[0] ? http->reason : curl_easy_strerror(code);
    if (r->no_memory || code == CURLE_OUT_OF_MEMORY) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    switch (code) {
    case CURLE_COULDNT_CONNECT:
        return hemi_fail(err, HEMI_ERR_NETWORK, "%.200s: %.160s. Is the server running? Start it with: hemi serve DIR",
                         http->url, reason);
    case CURLE_COULDNT_RESOLVE_HOST:
        return hemi_fail(err, HEMI_ERR_NETWORK, "%.200s: %.160s. Check the host name", http->url, reason);
    case CURLE_OPERATION_TIMEDOUT:
        return hemi_fail(err, HEMI_ERR_NETWORK,
                         "%s %.200s%.120s: no answer in time (%.120s). Is the server overloaded? The time-outs are %ld "
                         "ms to connect, %ld ms in all",
                         request->method, http->url, request->path, reason, http->connect_timeout_ms, timeout_of(http, request));
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
        return hemi_fail(err, HEMI_ERR_NETWORK,
                         "%.200s: %.160s. With https the server needs a certificate that this machine trusts; a server "
                         "without TLS is reached by http://",
                         http->url, reason);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return hemi_fail(err, HEMI_ERR_REMOTE,
                         "%s %.200s%.120s: what answers is not a Hemi server (%.160s). Check the address and the port",
                         request->method, http->url, request->path, reason);
    default:
        return hemi_fail(err, HEMI_ERR_NETWORK, "%s %.200s%.120s: the connection failed: %.160s", request->method,
                         http->url, request->path, reason);
    }
}

/* One attempt. *again: it failed in a way that the next may not. */
static hemi_status attempt(hemi_http *http, const hemi_http_request *request, const char *url,
                           struct curl_slist *headers, hemi_http_reply *reply, bool *again, hemi_error *err) {
    hemi_http_reply_clear(reply);
    receiver r = {.curl = http->curl, .reply = reply, .limit = request->reply_bytes_max};
    http->reason[0] = 0;
    CURLcode code = set_options(http, request, url, headers, &r);
    double start = hemi_now_ms();
    if (code == CURLE_OK) code = curl_easy_perform(http->curl);
    reply->elapsed_ms = hemi_now_ms() - start;
    curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &reply->status);
    bool success = reply->status >= 200 && reply->status <= 299;
    if (r.overflow && success)
        return hemi_fail(err, HEMI_ERR_REMOTE,
                         "%s %.200s%.120s: the server sends more than the %zu bytes this reply can have",
                         request->method, http->url, request->path, request->reply_bytes_max);
    if (code != CURLE_OK && !r.overflow) {
        *again = is_transient(code);
        return curl_fail(http, request, code, &r, err);
    }
    *again = reply->status == 503 || (reply->status == 429 && reply->retry_after_s > 0) || reply->status == 502 || reply->status == 504;
    return HEMI_OK;
}

#define PAUSE_STEP_MS 100 /* how soon a pause notices that it is to end */

static bool is_stopped(const hemi_http *http) { return http->stop && atomic_load(http->stop); }

static void pause_ms(const hemi_http *http, long ms) {
    for (; ms > 0 && !is_stopped(http); ms -= PAUSE_STEP_MS) {
        const long step = http->stop && ms > PAUSE_STEP_MS ? PAUSE_STEP_MS : ms;
        struct timespec t = {.tv_sec = step / 1000, .tv_nsec = step % 1000 * 1000000};
        while (nanosleep(&t, &t) != 0 && errno == EINTR) {
        }
        if (step == ms) return;
    }
}

static hemi_status send_with_headers(hemi_http *http, const hemi_http_request *request, const char *url,
                                     struct curl_slist *headers, hemi_http_reply *reply, hemi_error *err) {
    long wait = HEMI_HTTP_BACKOFF_MS;
    for (int i = 1;; i++) {
        bool again = false;
        hemi_status status = attempt(http, request, url, headers, reply, &again, err);
        if (status != HEMI_OK && request->once) return status;
        if (!again || i == HEMI_HTTP_ATTEMPTS || is_stopped(http) || reply->retry_after_s > HEMI_HTTP_RETRY_AFTER_MAX_S) return status;
        const long base = reply->retry_after_s > 0 ? reply->retry_after_s * 1000 : wait;
        pause_ms(http, base + (long)randombytes_uniform((uint32_t)base / 2 + 1)); /* not all clients at the same moment */
        wait *= 4;
    }
}

hemi_status hemi_http_send(hemi_http *http, const hemi_http_request *request, hemi_http_reply *reply, hemi_error *err) {
    memset(reply, 0, sizeof *reply);
    HEMI_TRY(after_fork(http, err));
    char url[HEMI_HTTP_URL_MAX + HEMI_HTTP_PATH_MAX], line[3][128];
    snprintf(url, sizeof url, "%s%s", http->url, request->path);
    struct curl_slist *headers = request->body ? http->headers_binary : http->headers_plain;
    struct curl_slist own[4]; /* these live as long as the call */
    char authorization[HEMI_HTTP_TOKEN_MAX + 32];
    size_t count = 0;
    if (request->key_id) snprintf(line[count++], sizeof *line, "Hemi-Key: %.64s", request->key_id);
    if (request->progress_id) snprintf(line[count++], sizeof *line, "Hemi-Progress: %.32s", request->progress_id);
    if (request->range_total > 0)
        snprintf(line[count++], sizeof *line, "Content-Range: bytes %zu-%zu/%zu", request->range_first,
                 request->range_first + request->body_bytes - 1, request->range_total);
    for (size_t i = 0; i < count; i++) {
        own[i] = (struct curl_slist){.data = line[i], .next = headers};
        headers = &own[i];
    }
    if (http->token) {
        snprintf(authorization, sizeof authorization, "Authorization: Bearer %s", http->token);
        own[count] = (struct curl_slist){.data = authorization, .next = headers};
        headers = &own[count];
    }
    hemi_status status = send_with_headers(http, request, url, headers, reply, err);
    if (http->token) hemi_wipe(authorization, sizeof authorization);
    curl_easy_reset(http->curl); /* nothing may point to this stack frame any more */
    if (status != HEMI_OK) hemi_http_reply_clear(reply);
    return status;
}

/* ---- errors of the server */

static hemi_status status_by_name(const char *code) {
    static const struct {
        const char *name;
        hemi_status status;
    } table[] = {
#define ROW(name, value, http, text) {#name, HEMI_##name},
        HEMI_STATUS_LIST(ROW)
#undef ROW
    };
    if (strncmp(code, "HEMI_", 5) == 0) code += 5;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(code, table[i].name) == 0 && table[i].status != HEMI_OK) return table[i].status;
    return HEMI_ERR_REMOTE;
}

/* Copies text from outside so that it can be shown on a terminal. */
static void copy_printable(char *out, size_t bytes, const char *text) {
    size_t n = 0;
    for (; text && *text && n + 1 < bytes; text++) {
        unsigned char c = (unsigned char)*text;
        out[n++] = c < 32 || c >= 127 ? ' ' : (char)c;
    }
    out[n] = 0;
}

#define REQUEST_ID_BYTES 65

/* request_id: REQUEST_ID_BYTES, or NULL. */
static hemi_status parse_error(const hemi_http_reply *reply, char *code, size_t code_bytes, char *message, size_t message_bytes, char *request_id) {
    code[0] = message[0] = 0;
    json_t *root =
        reply->bytes ? json_loadb((const char *)reply->body, reply->bytes, JSON_REJECT_DUPLICATES, NULL) : NULL;
    json_t *e = json_object_get(root, "error");
    copy_printable(code, code_bytes, json_string_value(json_object_get(e, "code")));
    copy_printable(message, message_bytes, json_string_value(json_object_get(e, "message")));
    if (request_id) copy_printable(request_id, REQUEST_ID_BYTES, json_string_value(json_object_get(e, "request_id")));
    json_decref(root);
    return status_by_name(code);
}

hemi_status hemi_http_reply_status(const hemi_http_reply *reply) {
    char code[64], message[8];
    if (reply->status >= 200 && reply->status <= 299) return HEMI_OK;
    return parse_error(reply, code, sizeof code, message, sizeof message, NULL);
}

/* What the caller can act on keeps its own status; the rest is the server's word. */
static hemi_status passed_on(hemi_status status, long http) {
    switch (status) {
    case HEMI_ERR_NOT_FOUND:
    case HEMI_ERR_KEY:
    case HEMI_ERR_CONFLICT:
    case HEMI_ERR_TOO_LARGE:
    case HEMI_ERR_BUSY:
    case HEMI_ERR_LIMIT:
    case HEMI_ERR_BUDGET:
    case HEMI_ERR_AUTH:
    case HEMI_ERR_FORBIDDEN:
    case HEMI_ERR_STATE:
    case HEMI_ERR_UNSUPPORTED: /* a form of requests, which a client can do without */
        return status;
    default:
        return http == 503 ? HEMI_ERR_BUSY : http == 429 ? HEMI_ERR_LIMIT : http == 401 ? HEMI_ERR_AUTH : http == 403 ? HEMI_ERR_FORBIDDEN : HEMI_ERR_REMOTE;
    }
}

hemi_status hemi_http_reply_fail(const hemi_http *http, const hemi_http_request *request, const hemi_http_reply *reply,
                                 hemi_error *err) {
    char code[64], message[400], id[REQUEST_ID_BYTES];
    hemi_status status = passed_on(parse_error(reply, code, sizeof code, message, sizeof message, id), reply->status);
    const char *hint = "";
    if (!code[0])
        hint = reply->status >= 300 && reply->status <= 399
                   ? ". Redirects are not followed: give the final address"
                   : ". There is no Hemi error in the reply: is this the address of a Hemi server?";
    else if (reply->status == 503)
        hint = ". Try again later";
    return hemi_fail(err, status, "%s %.80s%.80s: HTTP %ld%s%s%s%s%s%s%s%s", request->method, http->url, request->path,
                     reply->status, code[0] ? " " : "", code, message[0] ? ": " : "", message, hint, id[0] ? " (request " : "", id, id[0] ? ")" : "");
}

bool hemi_http_path_append(char *path, const char *text) {
    static const char digits[] = "0123456789ABCDEF";
    size_t n = strlen(path);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c) != NULL;
        if (n + (plain ? 1 : 3) >= HEMI_HTTP_PATH_MAX) return false;
        if (!plain) {
            path[n++] = '%';
            path[n++] = digits[c >> 4];
            c = (unsigned char)digits[c & 15];
        }
        path[n++] = (char)c;
    }
    path[n] = 0;
    return true;
}
