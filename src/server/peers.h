/* The open connections, and their clocks. libmicrohttpd only knows a time-out of inactivity, which a client that sends a
 * byte now and then never meets; here every phase of a connection has a deadline that bytes do not prolong:
 *   idle     between two requests
 *   headers  from the connection (or, on a later request, from its request line) to the last header field
 *   body     a minimum rate, after a time of grace
 *   work     none: the request is ours
 *   reply    by the same minimum rate
 * A sweep shuts the socket of a connection that is late; libmicrohttpd then ends it as it ends any that was lost. The sweep
 * also looks for clients that left in the middle of a request: libmicrohttpd 0.9.75 with epoll takes a short read for the end
 * of what there is, and so misses an end of file that came along with the last bytes. */
#ifndef HEMI_SERVER_PEERS_H
#define HEMI_SERVER_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "server/identity.h"
#include "server/metrics.h"

typedef struct hemi_peers_clock {
    double header_ms, idle_ms, grace_ms;
    double rate; /* bytes per second */
    /* With more than `crowd` connections those without an authorised request have but crowd_ms for it: who only waits makes room for who works. */
    size_t crowd;
    double crowd_ms;
} hemi_peers_clock;

typedef struct hemi_peer hemi_peer;
typedef struct hemi_peers hemi_peers;

/* metrics: where cuts are counted. NULL without memory. */
hemi_peers *hemi_peers_new(const hemi_peers_clock *clock, hemi_metrics *metrics);
void hemi_peers_free(hemi_peers *peers);

/* Where a client is, as far as it cannot choose: the IPv4 address, or the network of an IPv6 address (its first 64 bits: RFC 4291, 2.5.4, RFC 6177). */
#define HEMI_ORIGIN_BYTES 16
void hemi_origin(uint8_t origin[HEMI_ORIGIN_BYTES], const struct sockaddr *address);
/* May one more connection come from there, of at most `most`? Counts those that may not. */
bool hemi_peers_have_room(hemi_peers *peers, const struct sockaddr *address, size_t most);

/* A new connection, waiting for its first request: NULL without memory. */
hemi_peer *hemi_peer_add(hemi_peers *peers, int socket, const struct sockaddr *address);
/* Before its socket is closed. Takes NULL. */
void hemi_peer_remove(hemi_peers *peers, hemi_peer *peer);

/* The first authorised request of a connection makes it its tenant's, one of at most `most`: false when that has too many. */
bool hemi_peer_set_tenant(hemi_peer *peer, hemi_tenant *tenant, size_t most);

void hemi_peer_enter_idle(hemi_peers *peers, hemi_peer *peer);
void hemi_peer_enter_headers(hemi_peers *peers, hemi_peer *peer);
void hemi_peer_enter_body(hemi_peers *peers, hemi_peer *peer);
void hemi_peer_received(hemi_peers *peers, hemi_peer *peer, size_t bytes); /* in phase body */
void hemi_peer_enter_work(hemi_peers *peers, hemi_peer *peer);
void hemi_peer_enter_reply(hemi_peers *peers, hemi_peer *peer, size_t bytes);

/* Becomes true, in the course of a sweep, when the client left while its request is computed: for who computes. */
const atomic_bool *hemi_peer_gone(const hemi_peer *peer);
/* Makes it true of all: nothing that is computed will be answered any more. */
void hemi_peers_give_up(hemi_peers *peers);

/* Has the client closed its side, or is the connection broken? For a request that waited. */
bool hemi_peer_is_gone(const hemi_peer *peer);

/* Shuts the connections that are late or gone. */
void hemi_peers_sweep(hemi_peers *peers);
size_t hemi_peers_count(hemi_peers *peers);

#endif
