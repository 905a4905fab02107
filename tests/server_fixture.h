/* For tests of the server: a raw HTTP/1.1 client that can misbehave, and a server with two models. Include after defining
 * nothing; one server at a time. */
#ifndef HEMI_TESTS_SERVER_FIXTURE_H
#define HEMI_TESTS_SERVER_FIXTURE_H

#include "client_fixture.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/bits.h"
#include "server/http.h"
#include "wire/wire.h"

#define REPLY_HEAD_MAX   4096
#define REPLY_TIMEOUT_MS 20000

typedef struct reply {
    int status; /* 0: the connection ended before a whole reply */
    char head[REPLY_HEAD_MAX];
    uint8_t *body;
    size_t bytes;
} reply;

/* ---- sending and receiving */

TEST_UNUSED static int dial(uint16_t port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    const struct timeval wait = {.tv_sec = (test_long() ? 10 : 1) * REPLY_TIMEOUT_MS / 1000}; /* long ones are large, under sanitizers too */
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) fail_msg("cannot connect to port %u", port);
    return fd;
}

/* False when the server closed the connection. */
TEST_UNUSED static bool send_bytes(int fd, const void *data, size_t bytes) {
    const char *p = data;
    while (bytes > 0) {
        const ssize_t n = send(fd, p, bytes, MSG_NOSIGNAL);
        if (n <= 0) return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

TEST_UNUSED static bool send_text(int fd, const char *text) { return send_bytes(fd, text, strlen(text)); }

/* The value of a header field of a reply, or "". */
TEST_UNUSED static const char *header_of(const reply *r, const char *name) {
    static _Thread_local char value[256];
    const size_t n = strlen(name);
    for (const char *line = r->head; (line = strstr(line, "\r\n")) != NULL;) {
        line += 2;
        if (strncasecmp(line, name, n) != 0 || line[n] != ':') continue;
        snprintf(value, sizeof value, "%.*s", (int)strcspn(line + n + 2, "\r"), line + n + 2);
        return value;
    }
    return "";
}

/* Reads one reply; `head_only` for HEAD, whose replies have no body whatever they say. */
TEST_UNUSED static reply receive(int fd, bool head_only) {
    reply r = {0};
    size_t n = 0;
    while (n + 1 < sizeof r.head && (n < 4 || memcmp(r.head + n - 4, "\r\n\r\n", 4) != 0)) {
        if (recv(fd, r.head + n, 1, 0) != 1) return (reply){0};
        n++;
    }
    r.bytes = (size_t)strtoull(header_of(&r, "Content-Length"), NULL, 10);
    if (head_only) r.bytes = 0;
    r.body = calloc(r.bytes + 1, 1);
    assert_non_null(r.body);
    for (size_t got = 0; got < r.bytes;) {
        const ssize_t part = recv(fd, r.body + got, r.bytes - got, 0);
        if (part <= 0) {
            free(r.body);
            return (reply){0};
        }
        got += (size_t)part;
    }
    r.status = atoi(r.head + strcspn(r.head, " "));
    return r;
}

TEST_UNUSED static void reply_clear(reply *r) {
    free(r->body);
    r->body = NULL;
}

/* Sends a request with a body (none: NULL) and further header lines ("A: b\r\n") and reads the reply. */
TEST_UNUSED static reply ask_on(int fd, const char *method, const char *path, const char *lines, const void *body,
                                size_t bytes) {
    char head[32768], length[64] = "";
    if (body) snprintf(length, sizeof length, "Content-Length: %zu\r\n", bytes);
    snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: test\r\n%s%s\r\n", method, path, length, lines ? lines : "");
    if (!send_text(fd, head)) return (reply){0};
    if (body && bytes > 0) (void)send_bytes(fd, body, bytes); /* it may answer before it has read all */
    return receive(fd, strcmp(method, "HEAD") == 0);
}

TEST_UNUSED static reply ask(uint16_t port, const char *method, const char *path, const char *lines, const void *body,
                             size_t bytes) {
    const int fd = dial(port);
    const reply r = ask_on(fd, method, path, lines, body, bytes);
    close(fd);
    return r;
}

/* The request is answered with this HTTP status and, unless NULL, this error code. */
TEST_UNUSED static void expect_reply(reply r, int status, const char *code) {
    if (r.status != status)
        fail_msg("status %d, expected %d: %.300s %.300s", r.status, status, r.head, r.body ? (const char *)r.body : "");
    if (code) {
        json_t *root = json_loadb((const char *)r.body, r.bytes, 0, NULL), *error = json_object_get(root, "error");
        const char *found = json_string_value(json_object_get(error, "code")),
                   *message = json_string_value(json_object_get(error, "message"));
        assert_string_equal(header_of(&r, "Content-Type"), "application/json");
        if (!found || strcmp(found, code) != 0)
            fail_msg("code %s, expected %s: %s", found ? found : "none", code, (const char *)r.body);
        assert_true(message && strlen(message) > 10);
        json_decref(root);
    }
    reply_clear(&r);
}

/* ---- the server: model "demo" with seq.0 (10 x 10, bias), seq.2 in two shapes (10 x 4 and 20 x 4), wide (300 x 200, with
 * key switching); model "other" with seq.0 */

typedef struct site {
    char folder[256];
    hemi_module *small, *wide;
    hemi_http_server *server;
    uint16_t port;
} site;

static site world;

TEST_UNUSED static void site_start(const hemi_http_options *with) {
    hemi_http_options o = with ? *with : (hemi_http_options){0};
    o.folder = world.folder;
    o.quiet = true;
    o.no_auth = o.no_auth || (!o.tenants && !o.store);
    if (o.threads == 0) o.threads = 2;
    ASSERT_OK(hemi_http_server_start(&world.server, &o, ERR));
    world.port = hemi_http_server_port(world.server);
}

TEST_UNUSED static void site_stop(void) {
    hemi_http_server_stop(world.server);
    world.server = NULL;
}

TEST_UNUSED static void site_save(const char *model, const char *name, uint32_t inputs, uint32_t outputs) {
    hemi_module *module = fixture_module(inputs, outputs, false, inputs + outputs);
    fixture_save(world.folder, model, name, module);
    hemi_module_free(module);
}

TEST_UNUSED static int site_make(void **state) {
    (void)state;
    test_folder_new(world.folder);
    world.small = fixture_module(10, 10, true, 5);
    world.wide = fixture_module(300, 200, false, 9);
    fixture_save(world.folder, "demo", "seq.0", world.small);
    fixture_save(world.folder, "demo", "wide", world.wide);
    site_save("demo", "seq.2", 10, 4);
    site_save("demo", "seq.2", 20, 4);
    site_save("other", "seq.0", 10, 10);
    return 0;
}

TEST_UNUSED static int site_open(void **state) {
    site_make(state);
    site_start(NULL);
    return 0;
}

TEST_UNUSED static int site_close(void **state) {
    (void)state;
    site_stop();
    hemi_module_free(world.small);
    hemi_module_free(world.wide);
    test_folder_remove(world.folder);
    return 0;
}

/* Is it still there, and well? */
TEST_UNUSED static void expect_alive(void) {
    expect_reply(ask(world.port, "GET", "/v2/health/ready", NULL, NULL, 0), 200, NULL);
}

/* ---- a client: keys for modules, and requests */

typedef struct party {
    hemi_keys *keys;
    uint8_t *bytes; /* evaluation keys */
    size_t length;
    char id[65], path[96], header[96]; /* "/v2/keys/<id>", "Hemi-Key: <id>\r\n" */
} party;

TEST_UNUSED static void name_keys(party *p) {
    uint8_t hash[32];
    crypto_generichash(hash, sizeof hash, p->bytes, p->length, NULL, 0);
    hemi_hex_text(p->id, hash, sizeof hash);
    snprintf(p->path, sizeof p->path, "/v2/keys/%s", p->id);
    snprintf(p->header, sizeof p->header, "Hemi-Key: %s\r\n", p->id);
}

TEST_UNUSED static void party_open(party *p, const hemi_module *const *modules, size_t count) {
    ASSERT_OK(hemi_keys_new(&p->keys, NULL, ERR));
    ASSERT_OK(hemi_keys_evaluation(p->keys, modules, count, &p->bytes, &p->length, ERR));
    name_keys(p);
}

TEST_UNUSED static void party_close(party *p) {
    hemi_bytes_release(p->bytes);
    hemi_keys_free(p->keys);
}

typedef struct call {
    float *x;
    size_t rows;
    hemi_pending *pending;
    uint8_t *request;
    size_t bytes;
} call;

TEST_UNUSED static call call_new(party *p, const hemi_module *module, size_t rows) {
    hemi_module_info info;
    call c = {.rows = rows};
    hemi_module_get_info(module, &info);
    c.x = fixture_rows(rows, info.inputs);
    ASSERT_OK(hemi_encrypt(module, p->keys, c.x, rows, &c.pending, &c.request, &c.bytes, ERR));
    return c;
}

TEST_UNUSED static void call_free(call *c) {
    hemi_pending_free(c->pending);
    hemi_bytes_release(c->request);
    free(c->x);
}

/* Decrypts the reply to a call and compares with the product in the clear. */
TEST_UNUSED static void expect_product(party *p, call *c, const hemi_module *module, reply r) {
    hemi_module_info info;
    hemi_module_get_info(module, &info);
    if (r.status != 200) fail_msg("status %d: %s", r.status, r.body ? (const char *)r.body : "");
    float *y = calloc(c->rows * info.outputs, sizeof *y);
    assert_non_null(y);
    ASSERT_OK(hemi_decrypt(module, p->keys, c->pending, r.body, r.bytes, y, ERR));
    fixture_check(module, c->x, c->rows, y);
    assert_string_equal(header_of(&r, "Content-Type"), "application/octet-stream");
    assert_true(atof(header_of(&r, "Hemi-Server-Ms")) > 0);
    free(y);
    reply_clear(&r);
}

#endif
