/* The server over HTTP: the bytes of a connection, to a server in this process with one model. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"

static hemi_http_server *server;
static uint16_t port;
static char folder[64];

void fuzz_start(void) {
    hemi_module *module = fuzz_module(6, 3);
    char path[128];
    snprintf(folder, sizeof folder, "/dev/shm/hemi-fuzz-http-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/m/seq.0/po_1_6_pc", folder);
    FUZZ_OK(hemi_module_save(module, path, FUZZ_ERR));
    hemi_module_free(module);
    const hemi_http_options o = {.folder = folder, .no_auth = true, .quiet = true, .threads = 1, .header_timeout_ms = 500, .idle_timeout_ms = 500, .body_grace_ms = 500};
    FUZZ_OK(hemi_http_server_start(&server, &o, FUZZ_ERR));
    port = hemi_http_server_port(server);
}

static int dial(void) {
    const struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct linger reset = {.l_onoff = 1};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    FUZZ_CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset); /* no ports that wait */
    return fd;
}

void fuzz_one(const uint8_t *data, size_t size) {
    char answer[4096];
    const int fd = dial();
    ssize_t got = 0;
    if (size > 0) (void)!send(fd, data, size, MSG_NOSIGNAL);
    struct pollfd p = {.fd = fd, .events = POLLIN}; /* what is not a whole request has no answer: that is not waited for */
    for (size_t all = 0; all < sizeof answer - 1 && poll(&p, 1, all ? 1 : 5) > 0;) {
        got = recv(fd, answer + all, sizeof answer - 1 - all, 0);
        if (got <= 0) break;
        all += (size_t)got;
    }
    close(fd);
    static unsigned since;
    if (++since % 256 == 0) { /* it is still there, and well */
        static const char ready[] = "GET /v2/health/ready HTTP/1.0\r\nHost: x\r\n\r\n";
        const int other = dial();
        FUZZ_CHECK(send(other, ready, sizeof ready - 1, MSG_NOSIGNAL) > 0);
        struct pollfd q = {.fd = other, .events = POLLIN};
        FUZZ_CHECK(poll(&q, 1, 10000) > 0 && recv(other, answer, sizeof answer - 1, 0) > 12);
        FUZZ_CHECK(strncmp(answer + 9, "200", 3) == 0);
        close(other);
    }
}
