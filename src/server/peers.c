#include "server/peers.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cpu.h"

typedef enum phase { PHASE_IDLE, PHASE_HEADERS, PHASE_BODY, PHASE_WORK, PHASE_REPLY } phase;

struct hemi_peer {
    int socket;
    uint8_t origin[HEMI_ORIGIN_BYTES];
    phase phase;
    double since_ms;
    size_t bytes; /* body: received so far; reply: to be sent */
    bool cut;
    atomic_bool gone; /* in phase work */
    _Atomic(hemi_tenant *) tenant; /* NULL: no request yet, or none with a token */
    hemi_peer *next, *previous;
};

struct hemi_peers {
    pthread_mutex_t lock;
    hemi_peers_clock clock;
    hemi_metrics *metrics;
    hemi_peer *first;
    size_t count;
};

hemi_peers *hemi_peers_new(const hemi_peers_clock *clock, hemi_metrics *metrics) {
    hemi_peers *peers = calloc(1, sizeof *peers);
    if (!peers) return NULL;
    pthread_mutex_init(&peers->lock, NULL);
    peers->clock = *clock;
    peers->metrics = metrics;
    return peers;
}

void hemi_peers_free(hemi_peers *peers) {
    if (!peers) return;
    while (peers->first) hemi_peer_remove(peers, peers->first);
    pthread_mutex_destroy(&peers->lock);
    free(peers);
}

void hemi_origin(uint8_t origin[HEMI_ORIGIN_BYTES], const struct sockaddr *address) {
    memset(origin, 0, HEMI_ORIGIN_BYTES);
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        origin[10] = origin[11] = 0xFF; /* as IPv6 writes it: RFC 4291, 2.5.5.2 */
        memcpy(origin + 12, &v4.sin_addr, 4);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        memcpy(origin, &v6.sin6_addr, IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) ? 16 : 8);
    }
}

bool hemi_peers_have_room(hemi_peers *peers, const struct sockaddr *address, size_t most) {
    uint8_t origin[HEMI_ORIGIN_BYTES];
    size_t count = 0;
    hemi_origin(origin, address);
    pthread_mutex_lock(&peers->lock);
    for (const hemi_peer *peer = peers->first; peer; peer = peer->next) count += memcmp(peer->origin, origin, sizeof origin) == 0;
    pthread_mutex_unlock(&peers->lock);
    if (count < most) return true;
    atomic_fetch_add_explicit(&peers->metrics->cut[HEMI_CUT_ADDRESS], 1, memory_order_relaxed);
    return false;
}

hemi_peer *hemi_peer_add(hemi_peers *peers, int socket, const struct sockaddr *address) {
    hemi_peer *peer = calloc(1, sizeof *peer);
    if (!peer) return NULL;
    peer->socket = socket;
    hemi_origin(peer->origin, address);
    peer->phase = PHASE_HEADERS;
    peer->since_ms = hemi_now_ms();
    pthread_mutex_lock(&peers->lock);
    peer->next = peers->first;
    if (peer->next) peer->next->previous = peer;
    peers->first = peer;
    peers->count++;
    pthread_mutex_unlock(&peers->lock);
    return peer;
}

void hemi_peer_remove(hemi_peers *peers, hemi_peer *peer) {
    if (!peer) return;
    pthread_mutex_lock(&peers->lock);
    *(peer->previous ? &peer->previous->next : &peers->first) = peer->next;
    if (peer->next) peer->next->previous = peer->previous;
    peers->count--;
    pthread_mutex_unlock(&peers->lock);
    hemi_tenant *tenant = atomic_load(&peer->tenant);
    if (tenant) atomic_fetch_sub(&tenant->connections, 1);
    free(peer);
}

bool hemi_peer_set_tenant(hemi_peer *peer, hemi_tenant *tenant, size_t most) {
    if (atomic_load(&peer->tenant)) return true; /* behind a proxy a connection carries requests of several: it counts for the first */
    if (atomic_fetch_add(&tenant->connections, 1) >= most) {
        atomic_fetch_sub(&tenant->connections, 1);
        return false;
    }
    atomic_store(&peer->tenant, tenant);
    return true;
}

static void enter(hemi_peers *peers, hemi_peer *peer, phase next, size_t bytes) {
    const double now = hemi_now_ms();
    pthread_mutex_lock(&peers->lock);
    peer->phase = next;
    peer->since_ms = now;
    peer->bytes = bytes;
    pthread_mutex_unlock(&peers->lock);
}

void hemi_peer_enter_idle(hemi_peers *peers, hemi_peer *peer) { enter(peers, peer, PHASE_IDLE, 0); }
void hemi_peer_enter_body(hemi_peers *peers, hemi_peer *peer) { enter(peers, peer, PHASE_BODY, 0); }
void hemi_peer_enter_work(hemi_peers *peers, hemi_peer *peer) { enter(peers, peer, PHASE_WORK, 0); }
void hemi_peer_enter_reply(hemi_peers *peers, hemi_peer *peer, size_t bytes) { enter(peers, peer, PHASE_REPLY, bytes); }

/* The first request's time counts from the connection. */
void hemi_peer_enter_headers(hemi_peers *peers, hemi_peer *peer) {
    pthread_mutex_lock(&peers->lock);
    const bool counting = peer->phase == PHASE_HEADERS;
    pthread_mutex_unlock(&peers->lock);
    if (!counting) enter(peers, peer, PHASE_HEADERS, 0);
}

void hemi_peer_received(hemi_peers *peers, hemi_peer *peer, size_t bytes) {
    pthread_mutex_lock(&peers->lock);
    peer->bytes += bytes;
    pthread_mutex_unlock(&peers->lock);
}

bool hemi_peer_is_gone(const hemi_peer *peer) {
    struct pollfd p = {.fd = peer->socket, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

const atomic_bool *hemi_peer_gone(const hemi_peer *peer) { return &peer->gone; }

void hemi_peers_give_up(hemi_peers *peers) {
    pthread_mutex_lock(&peers->lock);
    for (hemi_peer *peer = peers->first; peer; peer = peer->next) atomic_store(&peer->gone, true);
    pthread_mutex_unlock(&peers->lock);
}

/* How long a connection may wait for a request, or for its header. */
static double patience(const hemi_peers *peers, const hemi_peer *peer, double usual) {
    const hemi_peers_clock *c = &peers->clock;
    return peers->count > c->crowd && !atomic_load(&peer->tenant) && c->crowd_ms < usual ? c->crowd_ms : usual;
}

/* Is it late, and in what? Or gone, unnoticed for a while? */
static bool is_late(const hemi_peers *peers, const hemi_peer *peer, double now, hemi_cut *why) {
    const hemi_peers_clock *clock = &peers->clock;
    const double age = now - peer->since_ms,
                 moved = (double)peer->bytes / clock->rate * 1e3; /* ms that the bytes pay for */
    switch (peer->phase) {
    case PHASE_IDLE:
        *why = HEMI_CUT_IDLE;
        return age > patience(peers, peer, clock->idle_ms);
    case PHASE_HEADERS:
        *why = HEMI_CUT_HEADERS;
        break;
    case PHASE_BODY:
        *why = HEMI_CUT_BODY;
        break;
    case PHASE_REPLY:
        *why = HEMI_CUT_REPLY;
        return age > clock->grace_ms + moved;
    default:
        return false;
    }
    if (age > (peer->phase == PHASE_HEADERS ? patience(peers, peer, clock->header_ms) : clock->grace_ms + moved)) return true;
    *why = HEMI_CUT_GONE;
    return age > HEMI_SERVER_GONE_MS && hemi_peer_is_gone(peer);
}

void hemi_peers_sweep(hemi_peers *peers) {
    const double now = hemi_now_ms();
    pthread_mutex_lock(&peers->lock);
    for (hemi_peer *peer = peers->first; peer; peer = peer->next) {
        hemi_cut why;
        if (peer->phase == PHASE_WORK && now - peer->since_ms > HEMI_SERVER_GONE_MS && !atomic_load(&peer->gone) && hemi_peer_is_gone(peer))
            atomic_store(&peer->gone, true);
        if (peer->cut || !is_late(peers, peer, now, &why)) continue;
        peer->cut = true;
        atomic_fetch_add_explicit(&peers->metrics->cut[why], 1, memory_order_relaxed);
        shutdown(peer->socket, SHUT_RDWR);
    }
    pthread_mutex_unlock(&peers->lock);
}

size_t hemi_peers_count(hemi_peers *peers) {
    pthread_mutex_lock(&peers->lock);
    const size_t count = peers->count;
    pthread_mutex_unlock(&peers->lock);
    return count;
}
