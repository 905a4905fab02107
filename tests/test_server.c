/* The server's routes, statuses and error documents; limits and clocks; what it does with what is not HTTP. */
#include "server_fixture.h"

#include <netdb.h>

/* ---- answers to GET */

static json_t *get_json(const char *path) {
    reply r = ask(world.port, "GET", path, NULL, NULL, 0);
    if (r.status != 200) fail_msg("GET %s: %d", path, r.status);
    assert_string_equal(header_of(&r, "Content-Type"), "application/json");
    json_t *root = json_loadb((const char *)r.body, r.bytes, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    reply_clear(&r);
    return root;
}

static void test_health(void **state) {
    (void)state;
    expect_reply(ask(world.port, "GET", "/v2/health/live", NULL, NULL, 0), 200, NULL);
    expect_reply(ask(world.port, "GET", "/v2/health/ready", NULL, NULL, 0), 200, NULL);
    expect_reply(ask(world.port, "HEAD", "/v2/health/ready", NULL, NULL, 0), 200, NULL);
}

static void test_models(void **state) {
    (void)state;
    json_t *root = get_json("/v2/models"), *models = json_object_get(root, "models");
    assert_int_equal(json_array_size(models), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(models, 0), "name")), "demo");
    assert_string_equal(json_string_value(json_object_get(json_array_get(models, 1), "name")), "other");
    json_decref(root);
}

static json_int_t number(const json_t *entry, const char *name) {
    return json_integer_value(json_object_get(entry, name));
}
static const char *text(const json_t *entry, const char *name) {
    return json_string_value(json_object_get(entry, name));
}

static void test_model(void **state) {
    (void)state;
    static const char *const order[] = {"seq.0", "seq.2", "seq.2", "wide"};
    json_t *root = get_json("/v2/models/demo"), *modules = json_object_get(root, "modules");
    assert_int_equal(json_array_size(modules), TEST_COUNT(order));
    for (size_t i = 0; i < TEST_COUNT(order); i++)
        assert_string_equal(text(json_array_get(modules, i), "name"), order[i]);
    const json_t *two = json_array_get(modules, 1), *wide = json_array_get(modules, 3);
    assert_string_equal(text(two, "shape"), "po_1_10_pc");
    assert_int_equal(json_array_size(json_object_get(two, "shapes")), 2);
    hemi_module_info info;
    char id[33];
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    hemi_module_get_info(world.wide, &info);
    hemi_hex_text(id, info.id, sizeof info.id);
    assert_string_equal(text(wide, "module_id"), id);
    assert_string_equal(text(wide, "set"), info.params->name);
    assert_int_equal(number(wide, "inputs"), 300);
    assert_int_equal(number(wide, "outputs"), 200);
    assert_int_equal(number(wide, "layout"), info.layout);
    assert_int_equal(number(wide, "upload_bytes"), info.upload_bytes);
    assert_int_equal(number(wide, "download_bytes"), info.download_bytes);
    assert_int_equal(number(wide, "evaluation_key_bytes"), info.evaluation_key_bytes);
    hemi_linear_layout layout;
    ASSERT_OK(test_layout(&layout, info.params, 300, 200, info.layout, ERR));
    assert_int_equal(info.reply_ring, 2048);
    const size_t count = 1 + hemi_linear_automorphisms(&layout, t + 1);
    t[0] = 1; /* the ring-switching key */
    const json_t *list = json_object_get(wide, "automorphisms");
    assert_int_equal(json_array_size(list), count);
    for (size_t i = 0; i < count; i++) assert_int_equal(json_integer_value(json_array_get(list, i)), t[i]);
    json_decref(root);
}

static void expect_client_file(const char *path, const hemi_module *module) {
    reply r = ask(world.port, "GET", path, NULL, NULL, 0);
    if (r.status != 200) fail_msg("GET %s: %d %s", path, r.status, r.body ? (const char *)r.body : "");
    const char *json = hemi_module_client_json(module);
    assert_int_equal(r.bytes, strlen(json));
    assert_memory_equal(r.body, json, r.bytes);
    reply_clear(&r);
}

static void test_client_files(void **state) {
    (void)state;
    expect_client_file("/v2/models/demo/modules/seq.0/client", world.small);
    expect_client_file("/v2/models/demo/modules/seq_0/client", world.small); /* the alias */
    expect_client_file("/v2/models/demo/modules/seq%2E0/client", world.small);
    expect_client_file("/v2/models/demo/modules/seq.0/client?shape=po_1_10_pc", world.small);
    expect_client_file("/v2/models/demo/modules/wide/client", world.wide);
    expect_reply(ask(world.port, "GET", "/v2/models/demo/modules/seq.2/client", NULL, NULL, 0), 400,
                 "HEMI_ERR_ARGUMENT");
    expect_reply(ask(world.port, "GET", "/v2/models/demo/modules/seq.2/client?shape=po_1_20_pc", NULL, NULL, 0), 200,
                 NULL);
    reply r = ask(world.port, "GET", "/v2/models/demo/modules/seq_2/client?shape=po_1_30_pc", NULL, NULL, 0);
    assert_non_null(strstr((const char *)r.body, "po_1_10_pc, po_1_20_pc"));
    expect_reply(r, 404, "HEMI_ERR_NOT_FOUND");
    expect_reply(ask(world.port, "GET", "/v2/models/demo/modules/seq.1/client", NULL, NULL, 0), 404,
                 "HEMI_ERR_NOT_FOUND");
    expect_reply(ask(world.port, "GET", "/v2/models/none/modules/seq.0/client", NULL, NULL, 0), 404,
                 "HEMI_ERR_NOT_FOUND");
}

static void test_metrics(void **state) {
    (void)state;
    static const char *const lines[] = {
        "# TYPE hemi_requests_total counter",
        "hemi_requests_total{route=\"/v2/models\",status=\"200\"} ",
        "hemi_compute_seconds_bucket{le=\"+Inf\"} ",
        "hemi_keys 0",
        "hemi_queue_length 0",
        "hemi_workers 2",
        "hemi_module_rows_total{model=\"demo\",module=\"seq.0\",shape=\"po_1_10_pc\",inputs=\"10\"} 0"};
    expect_reply(ask(world.port, "GET", "/v2/models", NULL, NULL, 0), 200, NULL);
    reply r = ask(world.port, "GET", "/metrics", NULL, NULL, 0);
    assert_int_equal(strncmp(header_of(&r, "Content-Type"), "text/plain; version=0.0.4", 25), 0);
    for (size_t i = 0; i < TEST_COUNT(lines); i++)
        if (!strstr((const char *)r.body, lines[i]))
            fail_msg("the metrics lack '%s':\n%s", lines[i], (const char *)r.body);
    expect_reply(r, 200, NULL);
}

/* ---- what is refused */

static void test_unknown(void **state) {
    (void)state;
    static const char *const paths[] = {"/",
                                        "/v2",
                                        "/v2/",
                                        "/v2/models/",
                                        "/v2/models/none",
                                        "/v2/models/demo/",
                                        "/v2/models/demo/modules",
                                        "/v2/models/..",
                                        "/v2/models/%2e%2e/modules/seq.0/client",
                                        "/v2/models/demo%2Fmodules/seq.0",
                                        "/v2/health/live/",
                                        "/V2/models",
                                        "/v2/models/demo/modules/../client",
                                        "/v2/models/de%20mo",
                                        "//v2/models",
                                        "/v2/models/demo/modules/%2Fetc%2Fpasswd/client"};
    for (size_t i = 0; i < TEST_COUNT(paths); i++) {
        reply r = ask(world.port, "GET", paths[i], NULL, NULL, 0);
        if (r.status != 404) fail_msg("GET %s: %d", paths[i], r.status);
        expect_reply(r, 404, "HEMI_ERR_NOT_FOUND");
    }
    expect_reply(ask(world.port, "GET", "/v2/models%00/x", NULL, NULL, 0), 400, "HEMI_ERR_ARGUMENT");
    expect_reply(ask(world.port, "GET", "/v2/models\x01", NULL, NULL, 0), 400, "HEMI_ERR_ARGUMENT");
}

static void test_methods(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *allow;
    } wrong[] = {{"POST", "/v2/models", "GET, HEAD"},         {"DELETE", "/metrics", "GET, HEAD"},
                 {"GET", "/v2/models/demo/infer", "POST"},    {"PUT", "/v2/models/demo/infer", "POST"},
                 {"GET", "/v2/models/demo/prepare", "POST"},  {"PATCH", "/v2/models", "GET, HEAD"},
                 {"OPTIONS", "/v2/models/demo", "GET, HEAD"}, {"TRACE", "/v2/health/live", "GET, HEAD"}};
    char path[96] = "/v2/keys/", digits[65];
    for (size_t i = 0; i < TEST_COUNT(wrong); i++) {
        const reply r = ask(world.port, wrong[i].method, wrong[i].path, NULL, NULL, 0);
        assert_string_equal(header_of(&r, "Allow"), wrong[i].allow);
        expect_reply(r, 405, "HEMI_ERR_METHOD");
    }
    memset(digits, 'a', 64);
    digits[64] = 0;
    strcat(path, digits);
    const reply r = ask(world.port, "GET", path, NULL, NULL, 0);
    assert_string_equal(header_of(&r, "Allow"), "HEAD, PUT, DELETE");
    expect_reply(r, 405, "HEMI_ERR_METHOD");
}

static void test_lengths(void **state) {
    (void)state;
    char too_long[64];
    const hemi_service *s = hemi_http_server_service(world.server);
    const char *infer = "/v2/models/demo/infer", *key = "Hemi-Key: 00\r\n";
    expect_reply(ask(world.port, "POST", infer, key, NULL, 0), 411, "HEMI_ERR_ARGUMENT");
    expect_reply(ask(world.port, "POST", infer, "Transfer-Encoding: chunked\r\n", NULL, 0), 411, "HEMI_ERR_ARGUMENT");
    expect_reply(ask(world.port, "POST", infer, "Content-Length: 5\r\nContent-Length: 6\r\n", NULL, 0), 400,
                 "HEMI_ERR_ARGUMENT");
    expect_reply(ask(world.port, "GET", "/v2/models", NULL, "hello", 5), 400, "HEMI_ERR_ARGUMENT");
    /* refused before a byte of the body was sent */
    snprintf(too_long, sizeof too_long, "Content-Length: %zu\r\n", s->registry->model[0].request_bytes_max + 1);
    reply r = ask(world.port, "POST", infer, too_long, NULL, 0);
    assert_string_equal(header_of(&r, "Connection"), "close");
    expect_reply(r, 413, "HEMI_ERR_TOO_LARGE");
    char path[96] = "/v2/keys/";
    memset(path + 9, 'a', 64);
    snprintf(too_long, sizeof too_long, "Content-Length: %zu\r\n", s->registry->key_bytes_max + 1);
    expect_reply(ask(world.port, "PUT", path, too_long, NULL, 0), 413, "HEMI_ERR_TOO_LARGE");
    expect_reply(ask(world.port, "PUT", path, "Content-Length: 999999999999999999\r\n", NULL, 0), 413,
                 "HEMI_ERR_TOO_LARGE");
    expect_alive();
}

static void test_expect_is_answered_early(void **state) {
    (void)state;
    expect_reply(
        ask(world.port, "POST", "/v2/models/none/infer", "Content-Length: 1000\r\nExpect: 100-continue\r\n", NULL, 0),
        404, "HEMI_ERR_NOT_FOUND");
}

static void test_long_urls_and_headers(void **state) {
    (void)state;
    static char line[20000], path[3000];
    snprintf(path, sizeof path, "/v2/models/%0*d", HEMI_SERVER_NAME_BYTES_MAX + 1, 0);
    expect_reply(ask(world.port, "GET", path, NULL, NULL, 0), 404, "HEMI_ERR_NOT_FOUND");
    snprintf(path, sizeof path, "/v2/models?%02000d", 0);
    expect_reply(ask(world.port, "GET", path, NULL, NULL, 0), 414, "HEMI_ERR_TOO_LARGE");
    snprintf(line, sizeof line, "X: %017000d\r\n", 0);
    expect_reply(ask(world.port, "GET", "/v2/models", line, NULL, 0), 431, "HEMI_ERR_TOO_LARGE");
    /* beyond the memory of a connection libmicrohttpd itself refuses */
    const int fd = dial(world.port);
    send_text(fd, "GET /v2/models HTTP/1.1\r\nHost: x\r\nX: ");
    for (int i = 0; i < 10; i++)
        if (!send_bytes(fd, line, 16000)) break;
    reply r = receive(fd, false);
    assert_true(r.status == 0 || r.status == 431 || r.status == 413);
    reply_clear(&r);
    close(fd);
    expect_alive();
}

/* Not HTTP at all, or nearly. */
static void test_nonsense(void **state) {
    (void)state;
    static const char *const texts[] = {
        "\r\n\r\n\r\n",
        "hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET /v2/models HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET /v2/models HTTP/1.1\r\nno colon\r\n\r\n",
        "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "PUT /v2/keys/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab"};
    for (size_t i = 0; i < TEST_COUNT(texts); i++) {
        const int fd = dial(world.port);
        send_text(fd, texts[i]);
        shutdown(fd, SHUT_WR);
        reply r = receive(fd, false);
        if (r.status != 0 && (r.status < 400 || r.status > 599)) fail_msg("text %zu: %d", i, r.status);
        reply_clear(&r);
        close(fd);
    }
    test_rng rng = test_rng_new();
    for (size_t i = 0; i < test_repeat(200); i++) { /* bytes at random */
        uint8_t bytes[256];
        const int fd = dial(world.port);
        for (size_t j = 0; j < sizeof bytes; j++) bytes[j] = (uint8_t)test_u64(&rng);
        send_bytes(fd, bytes, sizeof bytes);
        shutdown(fd, SHUT_WR); /* until the server has closed, too: so many at once would meet the limit per address */
        reply r = receive(fd, false);
        reply_clear(&r);
        close(fd);
    }
    expect_alive();
}

/* ---- connections */

static void test_keep_alive(void **state) {
    (void)state;
    const int fd = dial(world.port);
    for (int i = 0; i < 50; i++) {
        expect_reply(ask_on(fd, "GET", "/v2/models/demo", NULL, NULL, 0), 200, NULL);
        expect_reply(ask_on(fd, "GET", "/v2/nothing", NULL, NULL, 0), 404, "HEMI_ERR_NOT_FOUND");
        /* a refused body of moderate size is read, and the connection lives on */
        expect_reply(ask_on(fd, "POST", "/v2/models/none/infer", NULL, "0123456789", 10), 404, "HEMI_ERR_NOT_FOUND");
        expect_reply(ask_on(fd, "HEAD", "/v2/models", NULL, NULL, 0), 200, NULL);
    }
    /* two requests at once */
    send_text(fd, "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/models HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_reply(receive(fd, false), 200, NULL);
    expect_reply(receive(fd, false), 200, NULL);
    close(fd);
}

/* Sends a byte now and then, which libmicrohttpd's own time-out would allow for ever. Returns the milliseconds until the
 * server ends the connection. */
static double trickle(const char *start, const char *more, int every_ms, double most_ms) {
    const int fd = dial(world.port);
    const double begin = hemi_now_ms();
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t i = 0;
    send_text(fd, start);
    while (hemi_now_ms() - begin < most_ms) {
        char byte;
        if (poll(&p, 1, every_ms) > 0 && recv(fd, &byte, 1, 0) <= 0) break;
        send_bytes(fd, &more[i++ % strlen(more)], 1);
    }
    close(fd);
    return hemi_now_ms() - begin;
}

static void test_slow_clients_are_cut(void **state) {
    (void)state;
    const hemi_http_options quick = {
        .header_timeout_ms = 300, .idle_timeout_ms = 500, .body_grace_ms = 400, .body_rate_min = 1000};
    const hemi_service *s;
    site_stop();
    site_start(&quick);
    s = hemi_http_server_service(world.server);
    const struct {
        const char *start;
        double least, most;
        hemi_cut why;
    } cases[] = {
        {"GET /v2/mod", 250, 3000, HEMI_CUT_HEADERS},                               /* request line */
        {"GET /v2/models HTTP/1.1\r\nHost: x\r\nX: ", 250, 3000, HEMI_CUT_HEADERS}, /* header fields */
        {"", 250, 3000, HEMI_CUT_HEADERS},                                          /* nothing */
        {"POST /v2/models/demo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 700\r\n\r\n", 350, 4000, HEMI_CUT_BODY}};
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        const unsigned long long before = atomic_load(&s->metrics.cut[cases[i].why]);
        const double ms = trickle(cases[i].start, "a", 50, 10000);
        if (ms < cases[i].least || ms > cases[i].most) fail_msg("case %zu: cut after %.0f ms", i, ms);
        assert_true(atomic_load(&s->metrics.cut[cases[i].why]) == before + 1);
    }
    /* between two requests */
    const int fd = dial(world.port);
    char byte;
    expect_reply(ask_on(fd, "GET", "/v2/health/live", NULL, NULL, 0), 200, NULL);
    const double begin = hemi_now_ms();
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    assert_true(hemi_now_ms() - begin > 400 && hemi_now_ms() - begin < 4000);
    close(fd);
    expect_alive();
    site_stop();
    site_start(NULL);
}

static void test_connections_are_limited(void **state) {
    (void)state;
    const hemi_http_options few = {.max_connections_per_address = 3};
    int fd[6];
    int served = 0;
    site_stop();
    site_start(&few);
    for (size_t i = 0; i < TEST_COUNT(fd); i++) fd[i] = dial(world.port);
    for (size_t i = 0; i < TEST_COUNT(fd); i++) {
        reply r = ask_on(fd[i], "GET", "/v2/health/live", NULL, NULL, 0);
        served += r.status == 200;
        reply_clear(&r);
    }
    assert_int_equal(served, 3);
    assert_int_equal(atomic_load(&hemi_http_server_service(world.server)->metrics.cut[HEMI_CUT_ADDRESS]), 3);
    for (size_t i = 0; i < TEST_COUNT(fd); i++) close(fd[i]);
    const hemi_service *s = hemi_http_server_service(world.server);
    for (int i = 0; i < 500 && hemi_peers_count(s->peers) > 0; i++) usleep(10000);
    expect_alive();
    site_stop();
    site_start(NULL);
}

/* Whoever has a network of IPv6 has all its addresses: they count as one. */
static void test_origins(void **state) {
    const struct {
        const char *one, *other;
        bool same;
    } row[] = {{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true}, {"2001:db8:1:2::1", "2001:db8:1:3::1", false}, {"192.0.2.1", "::ffff:192.0.2.1", true},
               {"192.0.2.1", "192.0.2.2", false},                 {"::ffff:192.0.2.1", "::ffff:192.0.2.2", false}, {"::1", "::2", true}};
    hemi_metrics metrics = {0};
    const hemi_peers_clock clock = {.header_ms = 1e9};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(row); i++) {
        struct sockaddr_storage at[2];
        const char *const text[2] = {row[i].one, row[i].other};
        for (int k = 0; k < 2; k++) {
            struct addrinfo *found, hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
            assert_int_equal(getaddrinfo(text[k], NULL, &hints, &found), 0);
            memcpy(&at[k], found->ai_addr, found->ai_addrlen);
            freeaddrinfo(found);
        }
        hemi_peers *peers = hemi_peers_new(&clock, &metrics);
        assert_non_null(hemi_peer_add(peers, -1, (const struct sockaddr *)&at[0]));
        assert_true(hemi_peers_have_room(peers, (const struct sockaddr *)&at[1], 2));
        assert_int_equal(hemi_peers_have_room(peers, (const struct sockaddr *)&at[1], 1), !row[i].same);
        hemi_peers_free(peers);
    }
    assert_int_equal(atomic_load(&metrics.cut[HEMI_CUT_ADDRESS]), 3);
}

/* ---- starting */

static void expect_start_fails(const hemi_http_options *options, hemi_status status, const char *message) {
    hemi_http_server *none = NULL;
    ASSERT_FAILS(status, message, hemi_http_server_start(&none, options, ERR));
    assert_null(none);
}

static void test_port_in_use(void **state) {
    (void)state;
    const hemi_http_options o = {.folder = world.folder, .port = world.port, .quiet = true, .no_auth = true};
    expect_start_fails(&o, HEMI_ERR_NETWORK, "in use");
    const hemi_http_options elsewhere = {.folder = world.folder, .address = "192.0.2.1", .quiet = true, .no_auth = true};
    expect_start_fails(&elsewhere, HEMI_ERR_NETWORK, "not an address of this machine");
    const hemi_http_options nowhere = {.folder = world.folder, .address = "not an address", .quiet = true, .no_auth = true};
    expect_start_fails(&nowhere, HEMI_ERR_NETWORK, "address");
}

static void write_file(const char *path, const char *content) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(content, f);
    fclose(f);
}

static void test_folders(void **state) {
    (void)state;
    char path[600], empty[256];
    hemi_http_options o = {.quiet = true, .folder = "/nonexistent/folder", .no_auth = true};
    expect_start_fails(&o, HEMI_ERR_NOT_FOUND, "/nonexistent/folder");
    test_folder_new(empty);
    o.folder = empty;
    expect_start_fails(&o, HEMI_ERR_NOT_FOUND, "no compiled module");
    snprintf(path, sizeof path, "%s/demo/wide", world.folder);
    o.folder = path;
    expect_start_fails(&o, HEMI_ERR_ARGUMENT, "one module");
    /* a model by itself is served under its own name; files that are no modules are ignored */
    snprintf(path, sizeof path, "%s/demo/model.pth", world.folder);
    write_file(path, "not looked at");
    snprintf(path, sizeof path, "%s/demo", world.folder);
    hemi_http_server *server = NULL;
    ASSERT_OK(hemi_http_server_start(&server, &o, ERR));
    expect_reply(ask(hemi_http_server_port(server), "GET", "/v2/models/demo/modules/wide/client", NULL, NULL, 0), 200,
                 NULL);
    expect_reply(ask(hemi_http_server_port(server), "GET", "/v2/models/other", NULL, NULL, 0), 404,
                 "HEMI_ERR_NOT_FOUND");
    hemi_http_server_stop(server);
    test_folder_remove(empty);
}

static void test_broken_modules(void **state) {
    (void)state;
    char own[256], path[600];
    const hemi_http_options o = {.folder = own, .quiet = true, .no_auth = true};
    test_folder_new(own);
    fixture_save(own, "m", "fc", world.small);
    snprintf(path, sizeof path, "%s/m/fc/po_1_10_pc/server.zip", own);
    write_file(path, "PK nonsense");
    expect_start_fails(&o, HEMI_ERR_FORMAT, "m/fc/po_1_10_pc/server.zip");
    fixture_save(own, "m", "fc", world.small);
    char renamed[600], folder[600];
    snprintf(folder, sizeof folder, "%s/m/fc/po_1_10_pc", own);
    snprintf(renamed, sizeof renamed, "%s/m/fc/po_1_11_pc", own);
    assert_int_equal(rename(folder, renamed), 0);
    expect_start_fails(&o, HEMI_ERR_CONFLICT, "po_1_10_pc");
    assert_int_equal(rename(renamed, folder), 0);
    fixture_save(own, "m", "copy", world.small);
    expect_start_fails(&o, HEMI_ERR_CONFLICT, "twice");
    test_folder_remove(own);
    test_folder_new(own);
    fixture_save(own, "a model", "fc", world.small);
    expect_start_fails(&o, HEMI_ERR_ARGUMENT, "a model");
    test_folder_remove(own);
}

static void test_restart_on_the_same_port(void **state) {
    (void)state;
    const hemi_http_options same = {.port = world.port};
    for (int i = 0; i < 5; i++) {
        const int fd = dial(world.port); /* an open connection does not hold up the stop */
        expect_reply(ask_on(fd, "GET", "/v2/models", NULL, NULL, 0), 200, NULL);
        const double begin = hemi_now_ms();
        site_stop();
        assert_true(hemi_now_ms() - begin < 5000);
        site_start(&same);
        close(fd);
    }
    expect_alive();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_health),
                                       cmocka_unit_test(test_models),
                                       cmocka_unit_test(test_model),
                                       cmocka_unit_test(test_client_files),
                                       cmocka_unit_test(test_metrics),
                                       cmocka_unit_test(test_unknown),
                                       cmocka_unit_test(test_methods),
                                       cmocka_unit_test(test_lengths),
                                       cmocka_unit_test(test_expect_is_answered_early),
                                       cmocka_unit_test(test_long_urls_and_headers),
                                       cmocka_unit_test(test_nonsense),
                                       cmocka_unit_test(test_keep_alive),
                                       cmocka_unit_test(test_slow_clients_are_cut),
                                       cmocka_unit_test(test_connections_are_limited), cmocka_unit_test(test_origins),
                                       cmocka_unit_test(test_port_in_use),
                                       cmocka_unit_test(test_folders),
                                       cmocka_unit_test(test_broken_modules),
                                       cmocka_unit_test(test_restart_on_the_same_port)};
    return cmocka_run_group_tests_name("server", tests, site_open, site_close) != 0;
}
