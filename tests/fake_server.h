/* A server that answers as a test likes: on a port of its own, for clients that are to be surprised. Include after what defines
 * ASSERT_OK. */
#ifndef HEMI_TESTS_FAKE_SERVER_H
#define HEMI_TESTS_FAKE_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "client/http.h"

#define BODY_MAX     (64u << 20)
#define FAKE_THREADS 2 /* connections at once */

typedef struct fake fake;
/* What the fake does with a request: sends what it likes; the connection is closed afterwards. head: request line and header fields. fd -1: it hung
 * up before it had read all. */
typedef void (*fake_answer)(fake *f, int fd, const char *head);
/* How many bytes of a body it reads before it hangs up, without an answer; at least `length`: all of it. */
typedef size_t (*fake_patience)(fake *f, const char *head, size_t length);

struct fake {
    int listener;
    size_t threads;
    pthread_t thread[FAKE_THREADS];
    atomic_bool stop;
    fake_answer answer;
    fake_patience patience; /* NULL: reads all */
    const void *script;     /* bytes to send */
    size_t script_bytes;
    atomic_int posts, puts, heads, gets;
    uint8_t *body; /* of the last POST */
    size_t body_bytes;
    bool bodies_differ; /* two POSTs held different bytes */
    uint8_t *keys;      /* body of the last PUT, as far as it was read */
    size_t keys_bytes;
    hemi_evaluator *evaluator;
};

static fake server;
static char url[64];

static inline bool is(const char *line, const char *method) { return strncmp(line, method, strlen(method)) == 0; }

static inline bool send_all(int fd, const void *data, size_t bytes) {
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = send(fd, p, bytes, MSG_NOSIGNAL);
        if (n <= 0) return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

/* fields: further header lines ("A: b\r\n"). */
static inline void send_with(int fd, const char *status, const char *fields, const void *body, size_t bytes) {
    char head[512];
    snprintf(head, sizeof head,
             "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\nHemi-Server-Ms: 1.5\r\n%s\r\n", status, bytes, fields);
    if (send_all(fd, head, strlen(head)) && bytes > 0) (void)send_all(fd, body, bytes);
}

static inline void send_reply(int fd, const char *status, const void *body, size_t bytes) { send_with(fd, status, "", body, bytes); }
static inline void send_json(int fd, const char *status, const char *json) { send_reply(fd, status, json, strlen(json)); }

/* Reads one request; returns its body. *whole: all of it came. */
static inline uint8_t *fake_receive(fake *f, int fd, char head[8192], size_t *body_bytes, bool *whole) {
    size_t n = 0, length = 0, got = 0;
    *body_bytes = 0;
    while (n + 1 < 8192 && (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0))
        if (recv(fd, head + n++, 1, 0) != 1) return NULL;
    head[n] = 0;
    const char *field = strcasestr(head, "content-length:");
    if (field) length = strtoul(field + 15, NULL, 10);
    if (length > BODY_MAX) return NULL;
    const size_t limit = f->patience ? f->patience(f, head, length) : length, most = limit < length ? limit : length;
    uint8_t *body = malloc(length + 1);
    while (body && got < most) {
        ssize_t r = recv(fd, body + got, most - got, 0);
        if (r <= 0) break;
        got += (size_t)r;
    }
    *body_bytes = got;
    *whole = got == length;
    return body;
}

static inline void fake_note(fake *f, const char *line, uint8_t *body, size_t bytes) {
    if (is(line, "GET")) f->gets++;
    if (is(line, "HEAD")) f->heads++;
    if (is(line, "PUT")) {
        f->puts++;
        free(f->keys);
        f->keys = body;
        f->keys_bytes = bytes;
        return;
    }
    if (is(line, "POST")) {
        if (f->posts++ > 0 && (bytes != f->body_bytes || memcmp(body, f->body, bytes) != 0)) f->bodies_differ = true;
        free(f->body);
        f->body = body;
        f->body_bytes = bytes;
        return;
    }
    free(body);
}

static inline void *fake_serve(void *context) {
    fake *f = context;
    while (!f->stop) {
        struct pollfd p = {.fd = f->listener, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) continue;
        int fd = accept(f->listener, NULL, NULL);
        if (fd < 0) continue;
        struct timeval patience = {.tv_sec = 5};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        char head[8192];
        size_t bytes;
        bool whole = false;
        uint8_t *body = fake_receive(f, fd, head, &bytes, &whole);
        if (body) {
            fake_note(f, head, body, bytes);
            if (whole || f->patience) f->answer(f, whole ? fd : -1, head);
        }
        shutdown(fd, SHUT_WR);
        close(fd);
    }
    return NULL;
}

static inline void fake_listen(fake_answer answer) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    memset(&server, 0, sizeof server);
    server.answer = answer;
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0); /* of two that wait, one gets nothing */
    assert_int_equal(bind(server.listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server.listener, 16), 0);
    assert_int_equal(getsockname(server.listener, (struct sockaddr *)&address, &size), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", ntohs(address.sin_port));
}

static inline void fake_run(size_t threads) {
    server.threads = threads;
    for (size_t i = 0; i < threads; i++) assert_int_equal(pthread_create(&server.thread[i], NULL, fake_serve, &server), 0);
}

static inline void fake_start(fake_answer answer, const void *script, size_t bytes) {
    fake_listen(answer);
    server.script = script;
    server.script_bytes = bytes;
    fake_run(1);
}

static inline void fake_stop(void) {
    server.stop = true;
    for (size_t i = 0; i < server.threads; i++) pthread_join(server.thread[i], NULL);
    close(server.listener);
    free(server.body);
    free(server.keys);
    hemi_evaluator_free(server.evaluator);
}

#endif
