#include "server/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "server/limits.h"

static hemi_status bind_fail(hemi_error *err, int reason, const char *address, uint16_t port) {
    switch (reason) {
    case EADDRINUSE:
        return hemi_fail(err, HEMI_ERR_NETWORK,
                         "port %u of %s is in use: is a server running there already? Stop it, or choose another port "
                         "(--port %u; --port 0 takes any that is free)",
                         port, address, port < 65535 ? port + 1u : 8001u);
    case EACCES:
        return hemi_fail(err, HEMI_ERR_NETWORK,
                         "port %u may not be used by this user: choose one above 1023, such as --port %u", port,
                         HEMI_SERVER_PORT);
    case EADDRNOTAVAIL:
        return hemi_fail(
            err, HEMI_ERR_NETWORK,
            "%s is not an address of this machine: 127.0.0.1 serves this machine only, 0.0.0.0 all networks", address);
    default:
        return hemi_fail(err, HEMI_ERR_NETWORK, "cannot listen on %s port %u: %s", address, port, strerror(reason));
    }
}

/* 0, or an errno. */
static int try_bind(int *out, const struct addrinfo *a) {
    const int on = 1;
    const int s = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (s < 0) return errno;
    (void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s, a->ai_addr, a->ai_addrlen) != 0) {
        const int reason = errno;
        close(s);
        return reason;
    }
    *out = s;
    return 0;
}

static uint16_t port_of(int s) {
    struct sockaddr_storage where;
    socklen_t length = sizeof where;
    if (getsockname(s, (struct sockaddr *)&where, &length) != 0) return 0;
    if (where.ss_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)&where)->sin6_port);
    return ntohs(((const struct sockaddr_in *)&where)->sin_port);
}

bool hemi_bound_to_loopback(int s) {
    struct sockaddr_storage where;
    socklen_t length = sizeof where;
    if (getsockname(s, (struct sockaddr *)&where, &length) != 0) return false;
    if (where.ss_family == AF_INET) return (ntohl(((const struct sockaddr_in *)&where)->sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
    if (where.ss_family != AF_INET6) return false;
    const struct in6_addr *a = &((const struct sockaddr_in6 *)&where)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == IN_LOOPBACKNET);
}

hemi_status hemi_bind(int *out, const char *address, uint16_t *port, const char *scheme, char *url, size_t url_bytes, hemi_error *err) {
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char service[8];
    snprintf(service, sizeof service, "%u", *port);
    const int failed = getaddrinfo(address, service, &hints, &list);
    if (failed)
        return hemi_fail(err, HEMI_ERR_NETWORK,
                         "'%s' is not an address to listen on (%s): give 127.0.0.1, 0.0.0.0 or a name of this machine",
                         address, gai_strerror(failed));
    int reason = EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a && reason != 0; a = a->ai_next) reason = try_bind(out, a);
    freeaddrinfo(list);
    if (reason != 0) return bind_fail(err, reason, address, *port);
    *port = port_of(*out);
    snprintf(url, url_bytes, strchr(address, ':') ? "%s://[%s]:%u" : "%s://%s:%u", scheme, address, *port);
    return HEMI_OK;
}

hemi_status hemi_listen(int s, uint16_t port, hemi_error *err) {
    return listen(s, HEMI_SERVER_LISTEN_BACKLOG) == 0 ? HEMI_OK : bind_fail(err, errno, "this machine", port);
}
