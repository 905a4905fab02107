#include "server/exchange.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"

hemi_exchange *hemi_exchange_new(hemi_service *service, struct MHD_Connection *connection, hemi_peer *peer,
                                 const char *uri) {
    hemi_exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->service = service;
    x->connection = connection;
    x->peer = peer;
    x->started_ms = hemi_now_ms();
    x->registry = hemi_service_registry(service);
    x->uri_bytes = strlen(uri);
    x->clean_uri = hemi_uri_is_clean(uri);
    x->route.id = HEMI_ROUTE_UNKNOWN;
    x->tenant = &service->anyone;
    atomic_fetch_add(&service->exchanges, 1);
    hemi_peer_enter_headers(service->peers, peer);
    return x;
}

const char *hemi_exchange_header(const hemi_exchange *x, const char *name) {
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

const char *hemi_exchange_query(const hemi_exchange *x, const char *name) {
    return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, name);
}

bool hemi_exchange_set_key(hemi_exchange *x, const char *hex) {
    x->has_key = hex && hemi_hex_parse(x->key, sizeof x->key, hex);
    if (x->has_key) hemi_tenant_slot(x->slot, sizeof x->slot, x->tenant, x->key, sizeof x->key);
    return x->has_key;
}

/* What this request's tenant may have of the memory. */
static size_t memory_of_tenant(const hemi_exchange *x) {
    const size_t all = x->service->bodies_bytes_max;
    return x->tenant == &x->service->anyone ? all : all / HEMI_SERVER_TENANT_MEMORY_PARTS * (HEMI_SERVER_TENANT_MEMORY_PARTS - 1);
}

bool hemi_exchange_hold(hemi_exchange *x, size_t bytes) {
    hemi_service *s = x->service;
    if (atomic_fetch_add(&s->bodies_bytes, bytes) + bytes <= s->bodies_bytes_max) {
        if (atomic_fetch_add(&x->tenant->memory, bytes) + bytes <= memory_of_tenant(x)) {
            x->held_bytes += bytes;
            return true;
        }
        atomic_fetch_sub(&x->tenant->memory, bytes);
    }
    atomic_fetch_sub(&s->bodies_bytes, bytes);
    return false;
}

static void let_go(hemi_exchange *x, size_t bytes) {
    atomic_fetch_sub(&x->service->bodies_bytes, bytes);
    atomic_fetch_sub(&x->tenant->memory, bytes);
    x->held_bytes -= bytes;
}

bool hemi_exchange_hold_reply(hemi_exchange *x, size_t reply, size_t working) {
    const size_t bytes = reply + working, of_tenant = memory_of_tenant(x);
    const size_t most = of_tenant < x->service->request_memory_max ? of_tenant : x->service->request_memory_max;
    if (x->held_bytes > most || bytes > most - x->held_bytes)
        hemi_answer_error(x, 0, HEMI_ERR_TOO_LARGE, "this request would take %zu bytes for its reply and %zu for computing it: send fewer rows, or name fewer modules", reply, working);
    else if (!hemi_exchange_hold(x, bytes))
        hemi_answer_error(x, 0, HEMI_ERR_BUSY, "other requests have the server's memory; try again later");
    else
        x->working_bytes = working;
    return x->answer.status == 0;
}

void hemi_exchange_let_go(hemi_exchange *x) {
    let_go(x, x->working_bytes);
    x->working_bytes = 0;
}

/* ---- the headers are there */

static enum MHD_Result count_lengths(void *context, enum MHD_ValueKind kind, const char *name, const char *value) {
    int *count = context;
    (void)kind;
    (void)value;
    if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) ++*count;
    return MHD_YES;
}

/* Finds Content-Length. A body whose end is not known is not read. */
static void find_length(hemi_exchange *x) {
    const char *text = hemi_exchange_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    uint64_t length = 0;
    int lengths = 0;
    if (hemi_exchange_header(x, MHD_HTTP_HEADER_TRANSFER_ENCODING)) {
        x->answer.close = true;
        hemi_answer_error(x, MHD_HTTP_LENGTH_REQUIRED, HEMI_ERR_ARGUMENT,
                          "bodies are taken with Content-Length only, not in chunks");
        return;
    }
    MHD_get_connection_values(x->connection, MHD_HEADER_KIND, count_lengths, &lengths);
    if (lengths > 1 || (text && !hemi_decimal_parse(&length, text, strlen(text)))) {
        x->answer.close = true;
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT, "Content-Length must be there once, as a decimal number");
        return;
    }
    x->has_length = text != NULL;
    x->body_bytes = (size_t)length;
}

static void check_length(hemi_exchange *x) {
    const bool takes_body = x->method == HEMI_METHOD_PUT || x->method == HEMI_METHOD_POST;
    if (takes_body && !x->has_length)
        hemi_answer_error(x, MHD_HTTP_LENGTH_REQUIRED, HEMI_ERR_ARGUMENT, "the header Content-Length is missing");
    else if (!takes_body && x->body_bytes > 0)
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT, "a %s request has no body", hemi_method_name(x->method));
}

/* What every request must keep to, whatever its route. */
static void check_limits(hemi_exchange *x) {
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    if (atomic_load(&x->service->stopping) && x->route.id != HEMI_ROUTE_LIVE && x->route.id != HEMI_ROUTE_READY) {
        x->answer.close = true;
        hemi_answer_error(x, 0, HEMI_ERR_BUSY, "the server is stopping");
    } else if (x->uri_bytes > HEMI_SERVER_URL_BYTES_MAX) {
        x->answer.close = true;
        hemi_answer_error(x, MHD_HTTP_URI_TOO_LONG, HEMI_ERR_TOO_LARGE, "the URL is longer than %u bytes",
                          HEMI_SERVER_URL_BYTES_MAX);
    } else if (size && size->header_size > x->service->header_bytes_max) {
        x->answer.close = true;
        hemi_answer_error(x, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, HEMI_ERR_TOO_LARGE,
                          "the header fields have more than %zu bytes", x->service->header_bytes_max);
    } else if (!x->clean_uri) {
        x->answer.close = true;
        hemi_answer_error(x, 0, HEMI_ERR_ARGUMENT, "the URL holds characters that have no place there");
    }
}

static enum MHD_Result count_authorizations(void *context, enum MHD_ValueKind kind, const char *name, const char *value) {
    int *count = context;
    (void)kind;
    (void)value;
    if (strcasecmp(name, MHD_HTTP_HEADER_AUTHORIZATION) == 0) ++*count;
    return MHD_YES;
}

/* Before anything is said of what there is: without a token one learns no more than that a server is here. */
static void check_tenant(hemi_exchange *x) {
    hemi_service *s = x->service;
    const char *authorization = hemi_exchange_header(x, MHD_HTTP_HEADER_AUTHORIZATION);
    hemi_tenant *tenant = &s->anyone;
    int headers = 0;
    if (x->route.id == HEMI_ROUTE_LIVE || x->route.id == HEMI_ROUTE_READY) return;
    if (s->identity) {
        MHD_get_connection_values(x->connection, MHD_HEADER_KIND, count_authorizations, &headers);
        tenant = headers == 1 ? hemi_identity_find(s->identity, authorization) : NULL;
    }
    if (!tenant) {
        hemi_answer_header(x, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
        hemi_answer_error(x, 0, HEMI_ERR_AUTH, headers == 0 ? "this server wants a token: the header Authorization: Bearer TOKEN, with one that its operator made by `hemi tenants add`"
                                               : headers > 1 ? "the header Authorization is there more than once"
                                                             : "the token is not one of this server, or was revoked: ask its operator for another");
        return;
    }
    x->tenant = tenant;
    if (!hemi_peer_set_tenant(x->peer, tenant, s->identity ? s->tenant_connections_max : SIZE_MAX)) {
        x->answer.close = true;
        hemi_answer_header(x, MHD_HTTP_HEADER_RETRY_AFTER, "%u", HEMI_SERVER_RETRY_AFTER_S);
        hemi_answer_error(x, 0, HEMI_ERR_LIMIT, "this tenant has %zu connections open, as many as it may: close some", s->tenant_connections_max);
    } else if (x->route.id == HEMI_ROUTE_METRICS && s->identity && !atomic_load(&tenant->is_operator)) {
        hemi_answer_error(x, 0, HEMI_ERR_FORBIDDEN, "figures of all tenants are for operators (`hemi tenants add NAME --operator`)");
    }
}

static void check_route(hemi_exchange *x) {
    char allowed[64];
    const unsigned methods = hemi_route_methods(x->route.id);
    if (x->route.id == HEMI_ROUTE_UNKNOWN) {
        hemi_answer_error(x, 0, HEMI_ERR_NOT_FOUND,
                          "there is nothing at this URL; GET /v2/models lists what is served");
    } else if (!(methods & x->method)) {
        hemi_methods_text(allowed, methods);
        hemi_answer_header(x, MHD_HTTP_HEADER_ALLOW, "%s", allowed);
        hemi_answer_error(x, 0, HEMI_ERR_METHOD, "this URL takes %s", allowed);
    }
}

/* The models, and how large a body may be. */
static void check_model(hemi_exchange *x) {
    const hemi_registry *registry = x->registry;
    size_t most = 0;
    switch (x->route.id) {
    case HEMI_ROUTE_MODEL:
    case HEMI_ROUTE_CLIENT:
    case HEMI_ROUTE_INFER:
    case HEMI_ROUTE_PREPARE:
        x->model = hemi_registry_model(registry, x->route.argument[0]);
        if (!x->model)
            hemi_answer_error(x, 0, HEMI_ERR_NOT_FOUND,
                              "there is no model %s here; GET /v2/models lists those that are", x->route.argument[0]);
        most = x->model ? x->model->request_bytes_max : registry->request_bytes_max;
        if (x->route.id == HEMI_ROUTE_PREPARE)
            most = HEMI_BATCH_HEADER_BYTES + HEMI_REQUEST_MODULES_MAX * HEMI_BATCH_ENTRY_BYTES;
        break;
    case HEMI_ROUTE_KEY:
        most = registry->key_bytes_max;
        break;
    default:
        return;
    }
    if (most > x->service->body_bytes_max) most = x->service->body_bytes_max;
    if (most > x->service->request_memory_max) most = x->service->request_memory_max;
    if (most > memory_of_tenant(x)) most = memory_of_tenant(x);
    if (x->body_bytes <= most) return;
    x->answer.close = true;
    hemi_answer_error(x, 0, HEMI_ERR_TOO_LARGE, "a body of %zu bytes: here it has at most %zu", x->body_bytes, most);
}

/* The one of who is in front of us, if it may stand in a log; otherwise 16 random digits. */
static void set_id(hemi_exchange *x) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const char *given = hemi_exchange_header(x, "X-Request-Id");
    const size_t length = given ? strlen(given) : 0;
    if (length >= 1 && length <= HEMI_SERVER_REQUEST_ID_BYTES_MAX && strspn(given, allowed) == length) {
        memcpy(x->id, given, length + 1);
    } else {
        uint8_t random[8];
        randombytes_buf(random, sizeof random);
        hemi_hex_text(x->id, random, sizeof random);
    }
    hemi_answer_header(x, "Hemi-Request-Id", "%s", x->id);
}

void hemi_exchange_begin(hemi_exchange *x, const char *path, const char *method) {
    void (*const check[])(hemi_exchange *) = {check_limits, find_length, check_tenant, check_route, check_length, check_model};
    x->stage = HEMI_STAGE_RECEIVING;
    set_id(x);
    x->method = hemi_method_parse(method);
    hemi_route_find(&x->route, path);
    hemi_peer_enter_body(x->service->peers, x->peer);
    for (size_t i = 0; i < sizeof check / sizeof *check && x->answer.status == 0; i++) check[i](x);
    if (x->answer.status == 0) switch (x->route.id) {
        case HEMI_ROUTE_INFER:
        case HEMI_ROUTE_PREPARE: /* the same header, and room for the body */
            hemi_infer_begin(x);
            break;
        case HEMI_ROUTE_KEY:
            hemi_key_begin(x);
            break;
        default:
            break;
        }
    /* Refused: a small body is read and dropped, so that the connection lives on; for a large one, or one that the client
     * holds back until it is told to go on, the answer comes now. */
    if (x->answer.status && x->body_bytes > 0)
        x->answer.close |=
            x->body_bytes > HEMI_SERVER_DRAIN_BYTES_MAX || hemi_exchange_header(x, MHD_HTTP_HEADER_EXPECT) != NULL;
}

/* ---- the body */

static void drop_body(hemi_exchange *x) {
    free(x->body);
    x->body = NULL;
    hemi_upload_free(x->upload);
    x->upload = NULL;
}

void hemi_exchange_receive(hemi_exchange *x, const void *data, size_t bytes) {
    const size_t at = x->received;
    hemi_peer_received(x->service->peers, x->peer, bytes);
    x->received += bytes;
    if (x->answer.status) return; /* refused: what still comes is not looked at */
    if (bytes > x->body_bytes - at) {
        hemi_answer_error(x, 0, HEMI_ERR_FORMAT, "the body is longer than Content-Length");
    } else if (!hemi_exchange_hold(x, bytes)) {
        hemi_answer_error(x, 0, HEMI_ERR_BUSY, "the server holds too many requests; try again later");
    } else if (x->upload) {
        memcpy(x->upload->bytes + x->upload->received, data, bytes);
        x->upload->received += bytes;
    } else if (x->body) {
        memcpy(x->body + at, data, bytes);
    }
    if (x->answer.status) drop_body(x);
}

bool hemi_exchange_complete(hemi_exchange *x) {
    if (x->answer.status == 0) switch (x->route.id) {
        case HEMI_ROUTE_LIVE:
        case HEMI_ROUTE_READY:
            hemi_view_health(x);
            break;
        case HEMI_ROUTE_METRICS:
            hemi_view_metrics(x);
            break;
        case HEMI_ROUTE_MODELS:
        case HEMI_ROUTE_MODEL:
            hemi_view_models(x);
            break;
        case HEMI_ROUTE_CLIENT:
            hemi_view_client(x);
            break;
        case HEMI_ROUTE_KEY:
            return hemi_key_complete(x);
        case HEMI_ROUTE_PREPARE:
            return hemi_prepare_complete(x);
        case HEMI_ROUTE_INFER:
            hemi_infer_complete(x);
            return false;
        case HEMI_ROUTE_PROGRESS:
            hemi_view_progress(x);
            break;
        default:
            hemi_answer_error(x, 0, HEMI_ERR_INTERNAL, "this route has no answer");
            break;
        }
    return true;
}

hemi_lane hemi_exchange_lane(const hemi_exchange *x) {
    return x->route.id == HEMI_ROUTE_PREPARE ? HEMI_LANE_BACKGROUND : HEMI_LANE_FRONT;
}

static void end_notice(hemi_exchange *x) {
    hemi_board_remove(x->service->board, x->notice);
    x->notice = NULL;
}

void hemi_exchange_work(hemi_exchange *x) {
    hemi_board_change(x->service->board, x->notice, 0, 1);
    if (hemi_peer_is_gone(x->peer)) /* while it waited: nobody reads the answer */
        hemi_answer_error(x, 0, HEMI_ERR_NETWORK, "the client closed the connection before its turn came");
    else if (x->route.id == HEMI_ROUTE_PREPARE ||
             (x->route.id == HEMI_ROUTE_INFER && hemi_batch_request_is(x->body, x->received)))
        hemi_batch_work(x);
    else if (x->route.id == HEMI_ROUTE_INFER)
        hemi_infer_work(x);
    else
        hemi_key_work(x);
    hemi_exchange_let_go(x);
    end_notice(x);
    free(x->body);
    x->body = NULL;
}

/* ---- the end */

/* One line, one write: lines of several threads do not mix. Neither bodies nor names from outside. */
static void write_line(const hemi_exchange *x, unsigned status) {
    char line[640], key[9] = "-", when[32];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    if (x->has_key) hemi_hex_text(key, x->key, 4);
    const int n = snprintf(
        line, sizeof line,
        "time=%s.%03ldZ id=%s tenant=%s method=%s route=%s model=%s status=%u ms=%.3f compute_ms=%.3f rows=%zu in=%zu out=%zu key=%s\n",
        when, now.tv_nsec / 1000000, x->id[0] ? x->id : "-", x->tenant->name, hemi_method_name(x->method), hemi_route_pattern(x->route.id),
        x->model ? x->model->name : "-", status, hemi_now_ms() - x->started_ms, x->compute_ms, x->rows, x->received,
        x->answer.bytes, key);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1) < 0) return;
}

static void add(atomic_ullong *counter, unsigned long long n) { atomic_fetch_add_explicit(counter, n, memory_order_relaxed); }

void hemi_exchange_end(hemi_exchange *x, bool completed) {
    hemi_service *s = x->service;
    const unsigned status = completed ? x->answer.status : 0;
    add(&x->tenant->requests, 1);
    add(&x->tenant->rows, x->rows);
    add(&x->tenant->bytes_in, x->received);
    add(&x->tenant->bytes_out, completed ? x->answer.bytes : 0);
    hemi_metrics_request(&s->metrics, x->route.id, status, x->received, completed ? x->answer.bytes : 0, hemi_now_ms() - x->started_ms);
    if (!s->quiet) write_line(x, status);
    hemi_answer_release(&x->answer);
    end_notice(x); /* of what was refused before it was computed */
    if (x->announced) hemi_prepared_end(s->prepared, x->slot);
    if (x->upload && x->upload->received > 0 && x->upload->received < x->upload->total) { /* it can go on */
        hemi_uploads_keep(s->uploads, x->upload);
        x->upload = NULL;
    }
    drop_body(x);
    let_go(x, x->held_bytes);
    hemi_peer_enter_idle(s->peers, x->peer);
    hemi_registry_release(x->registry);
    atomic_fetch_sub(&s->exchanges, 1);
    free(x);
}
