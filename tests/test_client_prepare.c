/* Silent preparation, end to end: the client against the real server, with a relay between them that sees every byte and can fail. The
 * six rules of docs/threat-model.md ("Slots") are tested here, but for the server's side of v and vi (test_batches, test_server_prepare). */
#include "net_fixture.h"
#include "server_fixture.h"

#include <sys/wait.h>

#include "client/pool.h"
#include "client/session.h"
#include "model/module.h"
#include "wire/batch.h"

/* ---- the relay */

#define SEEN_MAX 64

typedef struct seen {
    char path[96];
    uint8_t *body;
    size_t bytes;
} seen;

static struct {
    int socket;
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t lock;
    seen request[SEEN_MAX]; /* bodies of POST, in their order */
    size_t count;
    int fail; /* so many of the coming requests to /infer: the connection ends without an answer */
} relay = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Notes the request; true if it is to fail. */
static bool note(const char *path, const uint8_t *body, size_t bytes) {
    const size_t length = strlen(path);
    pthread_mutex_lock(&relay.lock);
    if (relay.count < SEEN_MAX) {
        seen *s = &relay.request[relay.count++];
        snprintf(s->path, sizeof s->path, "%s", path);
        s->body = malloc(bytes + 1);
        memcpy(s->body, body, bytes);
        s->bytes = bytes;
    }
    const bool fail = relay.fail > 0 && length > 6 && strcmp(path + length - 6, "/infer") == 0;
    if (fail) relay.fail--;
    pthread_mutex_unlock(&relay.lock);
    return fail;
}

/* Header lines of a request, without those that ask_on writes itself. */
static void copy_lines(char *lines, size_t size, const char *head) {
    lines[0] = 0;
    for (const char *line = strstr(head, "\r\n"); line && line[2] != '\r'; line = strstr(line + 2, "\r\n")) {
        const char *end = strstr(line + 2, "\r\n");
        if (strncasecmp(line + 2, "Hemi-Key:", 9) != 0 || !end) continue;
        snprintf(lines, size, "%.*s\r\n", (int)(end - line - 2), line + 2);
    }
}

static bool serve_one(int fd) {
    char method[8] = "", path[160] = "", lines[256];
    reply r = receive(fd, false); /* a request has the same form */
    if (r.head[0] == 0 || sscanf(r.head, "%7s %159s", method, path) != 2) return false;
    copy_lines(lines, sizeof lines, r.head);
    const bool post = strcmp(method, "POST") == 0, body = post || strcmp(method, "PUT") == 0;
    bool go_on = !(post && note(path, r.body, r.bytes));
    if (go_on) {
        reply back = ask(world.port, method, path, lines, body ? r.body : NULL, r.bytes);
        go_on = back.head[0] && send_text(fd, back.head) && (back.bytes == 0 || send_bytes(fd, back.body, back.bytes));
        reply_clear(&back);
    }
    reply_clear(&r);
    return go_on;
}

static void *serve_connection(void *context) {
    const int fd = (int)(intptr_t)context;
    while (serve_one(fd)) {
    }
    close(fd);
    return NULL;
}

static void *serve_all(void *context) {
    (void)context;
    for (int fd; (fd = accept(relay.socket, NULL, NULL)) >= 0;) {
        pthread_t t;
        if (pthread_create(&t, NULL, serve_connection, (void *)(intptr_t)fd) == 0)
            pthread_detach(t);
        else
            close(fd);
    }
    return NULL;
}

static void relay_start(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    relay.socket = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(relay.socket, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(relay.socket, 64), 0);
    getsockname(relay.socket, (struct sockaddr *)&at, &length);
    relay.port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&relay.thread, NULL, serve_all, NULL), 0);
}

/* How many requests were seen; what they are may be read afterwards. */
static size_t seen_count(void) {
    pthread_mutex_lock(&relay.lock);
    const size_t count = relay.count;
    pthread_mutex_unlock(&relay.lock);
    return count;
}

static void fail_next(int count) {
    pthread_mutex_lock(&relay.lock);
    relay.fail = count;
    pthread_mutex_unlock(&relay.lock);
}

static void relay_forget(void) {
    pthread_mutex_lock(&relay.lock);
    for (size_t i = 0; i < relay.count; i++) free(relay.request[i].body);
    relay.count = 0;
    relay.fail = 0;
    pthread_mutex_unlock(&relay.lock);
}

static int open_all(void **state) {
    site_open(state);
    relay_start();
    return 0;
}

static int close_all(void **state) {
    shutdown(relay.socket, SHUT_RDWR);
    close(relay.socket);
    pthread_join(relay.thread, NULL);
    relay_forget();
    return site_close(state);
}

/* ---- clients */

static hemi_client *connect_with(int prepare, uint32_t rows) {
    char url[64];
    hemi_client *client;
    const hemi_client_options options = {.prepare = prepare, .prepare_rows = rows};
    snprintf(url, sizeof url, "http://127.0.0.1:%u", relay.port);
    relay_forget();
    ASSERT_OK(hemi_client_new(&client, url, NULL, &options, ERR));
    return client;
}

static hemi_remote *open_module(hemi_client *client, const char *name) {
    hemi_remote *remote;
    ASSERT_OK(hemi_remote_open(&remote, client, "demo", name, NULL, ERR));
    return remote;
}

/* A call of so many rows; how many were prepared. */
static size_t call_rows(hemi_remote *remote, const hemi_module *module, size_t rows, hemi_call_stats *stats) {
    hemi_module_info info;
    hemi_call_stats own;
    if (!stats) stats = &own;
    hemi_module_get_info(module, &info);
    float *x = fixture_rows(rows, info.inputs), *y = calloc(rows * info.outputs, sizeof *y);
    assert_non_null(y);
    ASSERT_OK(hemi_remote_call(remote, x, rows, y, stats, ERR));
    fixture_check(module, x, rows, y);
    free(x);
    free(y);
    return stats->prepared_rows;
}

/* Waits for the thread in the background. */
static bool await_slots(hemi_remote *remote, size_t slots) {
    for (int i = 0; i < 10000 && hemi_remote_prepared(remote) < slots; i++) usleep(1000);
    return hemi_remote_prepared(remote) >= slots;
}

static hemi_batch_request batch_seen(size_t i) {
    hemi_batch_request r;
    assert_true(i < seen_count());
    ASSERT_OK(hemi_batch_request_parse(&r, relay.request[i].body, relay.request[i].bytes, ERR));
    return r;
}

/* ---- calls */

static void test_prepared_calls(void **state) {
    (void)state;
    hemi_client *client = connect_with(-1, 0);
    hemi_remote *remote = open_module(client, "wide");
    hemi_call_stats stats;
    assert_int_equal(hemi_remote_prepared(remote), 0);
    assert_int_equal(call_rows(remote, world.wide, 1, &stats), 0);
    const size_t up = stats.upload_bytes, down = stats.download_bytes;
    ASSERT_OK(hemi_remote_prepare(remote, 20, ERR));
    const size_t slots = hemi_remote_prepared(remote);
    assert_true(slots >= 20);
    assert_int_equal(call_rows(remote, world.wide, 1, &stats), 1);
    assert_int_equal(stats.evaluation_key_bytes, 0);
    assert_true(stats.upload_bytes < up && stats.download_bytes < down / 3);
    assert_int_equal(call_rows(remote, world.wide, 3, NULL), 3);
    assert_int_equal(hemi_remote_prepared(remote), slots - 4);
    ASSERT_OK(hemi_remote_prepare(remote, 10, ERR)); /* there are: nothing is asked */
    assert_int_equal(hemi_remote_prepared(remote), slots - 4);
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "2048", hemi_remote_prepare(remote, 2049, ERR));
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "2048", hemi_remote_prepare(remote, 0, ERR));
    hemi_remote_free(remote);
    remote = open_module(client, "wide"); /* the same slots */
    assert_int_equal(hemi_remote_prepared(remote), slots - 4);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* A module with a bias that is not known yet: one more slot, for a row of zeros. */
static void test_bias_by_slots(void **state) {
    (void)state;
    hemi_client *client = connect_with(-1, 30);
    hemi_remote *remote = open_module(client, "seq.0");
    ASSERT_OK(hemi_remote_prepare(remote, 30, ERR));
    assert_int_equal(call_rows(remote, world.small, 2, NULL), 2);
    assert_int_equal(hemi_remote_prepared(remote), 27);
    assert_int_equal(call_rows(remote, world.small, 2, NULL), 2);
    assert_int_equal(hemi_remote_prepared(remote), 25);
    assert_int_equal(call_rows(remote, world.small, 26, NULL), 0); /* more than there are: another way */
    assert_int_equal(call_rows(remote, world.small, 25, NULL), 25);
    assert_int_equal(hemi_remote_prepared(remote), 0);
    assert_int_equal(call_rows(remote, world.small, 1, NULL), 0);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

static void test_in_the_background(void **state) {
    (void)state;
    hemi_client *client = connect_with(1, 16);
    hemi_remote *remote = open_module(client, "seq.0");
    assert_int_equal(call_rows(remote, world.small, 1, NULL), 0);
    assert_true(await_slots(remote, 16));
    for (size_t i = 0; i < 16; i++) {
        assert_int_equal(call_rows(remote, world.small, 1, NULL), 1);
        if (i == 7) assert_true(await_slots(remote, 8 + 16)); /* half is used: the next lot comes */
    }
    assert_int_equal(call_rows(remote, world.small, 1, NULL), 1);
    hemi_remote_free(remote);
    hemi_client_free(client);
    client = connect_with(0, 0); /* by itself: not for a call or two */
    remote = open_module(client, "wide");
    call_rows(remote, world.wide, 1, NULL);
    usleep(50000);
    assert_int_equal(hemi_remote_prepared(remote), 0);
    call_rows(remote, world.wide, 1, NULL);
    assert_true(await_slots(remote, 200));
    assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
    hemi_remote_free(remote);
    hemi_client_free(client);
    client = connect_with(-1, 0);
    remote = open_module(client, "wide");
    for (size_t i = 0; i < 4; i++) call_rows(remote, world.wide, 1, NULL);
    usleep(50000);
    for (size_t i = 0; i < seen_count(); i++) assert_null(strstr(relay.request[i].path, "/prepare"));
    hemi_remote_free(remote);
    hemi_client_free(client);
}

static void test_many_rows(void **state) {
    (void)state;
    hemi_client *client = connect_with(-1, 0);
    hemi_remote *remote = open_module(client, "seq.0");
    hemi_call_stats stats;
    assert_int_equal(call_rows(remote, world.small, 2500, &stats), 0); /* two requests of half each */
    assert_int_equal(seen_count(), 2);
    const hemi_batch_request a = batch_seen(0), b = batch_seen(1);
    assert_true(a.seconds && b.seconds);
    assert_int_equal(a.rows, 1251); /* with a row of zeros */
    assert_int_equal(b.rows, 1250);
    assert_memory_not_equal(a.seed, b.seed, HEMI_SEED_BYTES);
    assert_int_equal(call_rows(remote, world.small, 20, &stats), 0); /* too few */
    assert_false(hemi_batch_request_is(relay.request[2].body, relay.request[2].bytes));
    hemi_remote_free(remote);
    remote = open_module(client, "wide");
    assert_int_equal(call_rows(remote, world.wide, 60, NULL), 0);
    assert_true(batch_seen(3).seconds);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* A module whose rows are whole samples; and one of a grid, which has no batches. */
static void test_samples(void **state) {
    (void)state;
    const window w = {.k = 3, .stride = 1, .dilation = 1, .begin = 1, .end = 1, .groups = 1};
    for (size_t grid = 0; grid < 2; grid++) {
        const uint32_t side = grid ? 8 : 4, shape[] = {1, 3, side, side};
        char path[512];
        net n = net_new(1, 2, 3, side, side);
        net_conv(&n, grid ? 8 : 2, w);
        net_constant(&n, "Add", 0);
        float *x = fixture_rows(4, 3 * side * side);
        pb model = net_model(&n);
        hemi_module *module;
        hemi_module_info info;
        ASSERT_OK(hemi_module_compile(&module, model.data, model.size, x, shape, 4, NULL, ERR));
        hemi_module_get_info(module, &info);
        assert_string_equal(info.operation, grid ? "conv" : "dense");
        snprintf(path, sizeof path, "%s/demo/sample%zu", world.folder, grid);
        ASSERT_OK(hemi_module_save(module, path, ERR));
        site_stop();
        site_start(NULL);
        hemi_client *client = connect_with(-1, 20);
        hemi_remote *remote = open_module(client, grid ? "sample1" : "sample0");
        if (grid) {
            ASSERT_FAILS(HEMI_ERR_UNSUPPORTED, "batches", hemi_remote_prepare(remote, 20, ERR));
            assert_int_equal(call_rows(remote, module, 1, NULL), 0);
        } else {
            ASSERT_OK(hemi_remote_prepare(remote, 20, ERR));
            assert_int_equal(call_rows(remote, module, 3, NULL), 3);
            assert_int_equal(call_rows(remote, module, 40, NULL), 0); /* a batch of their own */
            assert_true(batch_seen(seen_count() - 1).seconds);
        }
        hemi_remote_free(remote);
        hemi_client_free(client);
        hemi_module_free(module);
        free(model.data);
        free(x);
        net_free(&n);
    }
}

/* ---- the rules */

/* i: seeds are fresh, announced once, and nothing of them is stored. ii: what is sent of the same row twice differs in its errors. */
static void test_seeds_and_errors(void **state) {
    (void)state;
    hemi_client *client = connect_with(-1, 16);
    hemi_remote *remote = open_module(client, "wide");
    uint8_t seeds[3][HEMI_SEED_BYTES];
    const uint8_t *row[3];
    size_t length = 0;
    for (size_t i = 0; i < 3; i++) {
        ASSERT_OK(hemi_remote_prepare(remote, 16, ERR));
        memcpy(seeds[i], batch_seen(17 * i).seed, HEMI_SEED_BYTES);
        for (size_t j = 0; j < i; j++) assert_memory_not_equal(seeds[i], seeds[j], HEMI_SEED_BYTES);
        for (uint32_t k = 0; k < 16; k++) {
            assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
            const hemi_batch_request r = batch_seen(17 * i + 1 + k);
            assert_memory_equal(r.seed, seeds[i], HEMI_SEED_BYTES);
            assert_int_equal(r.first, k); /* each slot once */
            assert_int_equal(r.rows, 1);
            if (k == 0) length = hemi_batch_row_bytes(&r);
            if (k == 0) row[i] = relay.request[17 * i + 1].body + hemi_batch_rows_offset(&r);
        }
    }
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < i; j++) assert_memory_not_equal(row[i], row[j], length);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* iii: a child has no slots of its parent, and the parent keeps its own. */
static void test_fork_empties_the_pool(void **state) {
    (void)state;
    hemi_client *client = connect_with(1, 64);
    hemi_remote *remote = open_module(client, "wide");
    call_rows(remote, world.wide, 1, NULL);
    assert_true(await_slots(remote, 64)); /* the thread is there */
    call_rows(remote, world.wide, 1, NULL);
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool ok = hemi_remote_prepared(remote) == 0;
        ok = ok && call_rows(remote, world.wide, 1, NULL) == 0;
        ok = ok && await_slots(remote, 64); /* slots, and a thread, of its own */
        ok = ok && call_rows(remote, world.wide, 1, NULL) == 1;
        hemi_remote_free(remote);
        hemi_client_free(client);
        _exit(ok ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(hemi_remote_prepared(remote), 63);
    assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
    hemi_remote_free(remote);
    hemi_client_free(client);
    /* of all rows of a batch that went over the wire, none went twice */
    for (size_t i = 0; i < seen_count(); i++)
        for (size_t j = 0; j < i; j++) {
            if (!hemi_batch_request_is(relay.request[i].body, relay.request[i].bytes) ||
                !hemi_batch_request_is(relay.request[j].body, relay.request[j].bytes))
                continue;
            const hemi_batch_request a = batch_seen(i), b = batch_seen(j);
            if (a.rows && b.rows && memcmp(a.seed, b.seed, HEMI_SEED_BYTES) == 0) assert_true(a.first != b.first);
        }
}

/* Fork while the thread is at work: the child must find no lock taken. */
static void test_fork_at_any_time(void **state) {
    (void)state;
#if defined(__SANITIZE_THREAD__)
    skip(); /* ThreadSanitizer does not follow forks in the middle of what threads do ("dup thread with used id") */
#endif
    hemi_client *client = connect_with(1, 256);
    hemi_remote *remote = open_module(client, "wide");
    for (useconds_t i = 0; i < 12; i++) {
        call_rows(remote, world.wide, 1, NULL);
        usleep(1500 * i);
        fflush(NULL);
        const pid_t child = fork();
        if (child == 0) {
            alarm(20);
            const bool ok = call_rows(remote, world.wide, 1, NULL) == 0;
            hemi_remote_free(remote);
            hemi_client_free(client);
            _exit(ok ? 0 : 1);
        }
        int status = 1;
        waitpid(child, &status, 0);
        if (status != 0) fail_msg("child %u ended with status 0x%x", (unsigned)i, (unsigned)status);
        hemi_remote_free(remote);
        hemi_client_free(client);
        client = connect_with(1, 256);
        remote = open_module(client, "wide");
    }
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* iv: a retry is the very same bytes; a call that failed has used its slot up. */
static void test_retries(void **state) {
    (void)state;
    hemi_client *client = connect_with(-1, 16);
    hemi_remote *remote = open_module(client, "wide");
    ASSERT_OK(hemi_remote_prepare(remote, 16, ERR));
    relay_forget();
    fail_next(2);
    assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
    assert_true(seen_count() == 3 && relay.fail == 0);
    for (size_t i = 1; i < 3; i++) {
        assert_int_equal(relay.request[i].bytes, relay.request[0].bytes);
        assert_memory_equal(relay.request[i].body, relay.request[0].body, relay.request[0].bytes);
    }
    relay_forget();
    fail_next(1000);
    float x[300] = {1}, y[200];
    ASSERT_FAILS(HEMI_ERR_NETWORK, "", hemi_remote_call(remote, x, 1, y, NULL, ERR));
    const size_t attempts = seen_count(); /* libcurl makes one of its own where it finds a connection closed */
    assert_true(attempts >= HEMI_HTTP_ATTEMPTS);
    for (size_t i = 0; i < attempts; i++) assert_int_equal(batch_seen(i).first, 1);
    for (size_t i = 1; i < attempts; i++)
        assert_memory_equal(relay.request[i].body, relay.request[0].body, relay.request[0].bytes);
    assert_int_equal(hemi_remote_prepared(remote), 14);
    x[7] = NAN; /* nothing is sent, and yet the slot is gone */
    ASSERT_FAILS(HEMI_ERR_ARGUMENT, "not a number", hemi_remote_call(remote, x, 1, y, NULL, ERR));
    assert_int_equal(seen_count(), attempts);
    assert_int_equal(hemi_remote_prepared(remote), 13);
    relay_forget();
    assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
    assert_int_equal(batch_seen(0).first, 3);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* Evaluation keys that the server lost are put back, and the very same bytes sent once more. */
static void test_lost_keys(void **state) {
    (void)state;
    hemi_client *client = connect_with(-1, 16);
    hemi_remote *remote = open_module(client, "wide");
    ASSERT_OK(hemi_remote_prepare(remote, 16, ERR));
    call_rows(remote, world.wide, 1, NULL);
    char path[96] = "";
    for (size_t i = 0; i < client->sets; i++)
        if (strcmp(client->set[i].params->name, HEMI_BATCH_SET) == 0)
            snprintf(path, sizeof path, "/v2/keys/%s", client->set[i].id);
    expect_reply(ask(world.port, "DELETE", path, NULL, NULL, 0), 204, NULL);
    relay_forget();
    hemi_call_stats stats;
    assert_int_equal(call_rows(remote, world.wide, 1, &stats),
                     1); /* what was prepared went with the keys: computed again */
    assert_true(stats.evaluation_key_bytes > 0);
    assert_int_equal(seen_count(), 2);
    assert_memory_equal(relay.request[0].body, relay.request[1].body, relay.request[0].bytes);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* v: a server that was started anew has other secrets: the client notices, drops the lot, and calls under a new seed. */
static void test_server_restart(void **state) {
    (void)state;
    hemi_client *client = connect_with(-1, 16);
    hemi_remote *remote = open_module(client, "wide");
    ASSERT_OK(hemi_remote_prepare(remote, 16, ERR));
    assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
    const uint16_t port = world.port;
    site_stop();
    const hemi_http_options options = {.port = port};
    site_start(&options);
    relay_forget();
    assert_int_equal(call_rows(remote, world.wide, 1, NULL), 0);
    assert_int_equal(hemi_remote_prepared(remote), 0);
    assert_false(hemi_batch_request_is(relay.request[seen_count() - 1].body, relay.request[seen_count() - 1].bytes));
    ASSERT_OK(hemi_remote_prepare(remote, 16, ERR));
    assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
    hemi_remote_free(remote);
    hemi_client_free(client);
}

/* A new secret key ends the lots of the old one; it may be made at any time. */
static void test_new_secret_key(void **state) {
    (void)state;
    char url[64];
    hemi_keys *keys;
    hemi_client *client;
    const hemi_client_options options = {.prepare = 1, .prepare_rows = 64};
    snprintf(url, sizeof url, "http://127.0.0.1:%u", relay.port);
    relay_forget();
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_client_new(&client, url, keys, &options, ERR));
    hemi_remote *remote = open_module(client, "wide");
    call_rows(remote, world.wide, 1, NULL);
    assert_true(await_slots(remote, 64));
    for (size_t i = 0; i < 6; i++) { /* also while the thread makes the next lot */
        ASSERT_OK(hemi_keys_generate(keys, hemi_params_by_name(HEMI_BATCH_SET), true, ERR));
        const size_t prepared = call_rows(remote, world.wide, 1, NULL);
        if (i == 0) assert_int_equal(prepared, 0); /* later the thread may have been quicker than this call */
        relay_forget();
        if (i % 2) usleep(20000);
    }
    size_t calls = 0; /* a lot that was under way is given up; the next call asks for another */
    while (call_rows(remote, world.wide, 1, NULL) == 0 && calls++ < 1000) usleep(10000);
    assert_true(calls < 1000);
    hemi_remote_free(remote);
    hemi_client_free(client);
    hemi_keys_free(keys);
}

/* Slots of an old key are not counted where new ones are asked for; and evaluation keys of the old one, which were made and did not
 * reach the server, are not taken for those of the new. */
static void test_new_secret_key_between(void **state) {
    (void)state;
    char url[64];
    hemi_keys *keys;
    hemi_client *client;
    const hemi_params *set = hemi_params_by_name(HEMI_BATCH_SET);
    const hemi_client_options options = {.prepare = -1, .prepare_rows = 16};
    snprintf(url, sizeof url, "http://127.0.0.1:%u", relay.port);
    relay_forget();
    ASSERT_OK(hemi_keys_new(&keys, NULL, ERR));
    ASSERT_OK(hemi_client_new(&client, url, keys, &options, ERR));
    hemi_remote *remote = open_module(client, "wide");
    ASSERT_OK(hemi_remote_prepare(remote, 16, ERR));
    assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; i == 1 && j < client->sets; j++)
            client->set[j].on_server = false; /* as after an upload that failed */
        ASSERT_OK(hemi_keys_generate(keys, set, true, ERR));
        assert_int_equal(hemi_remote_prepared(remote), 0);
        ASSERT_OK(hemi_remote_prepare(remote, 16, ERR));
        assert_int_equal(hemi_remote_prepared(remote), 16);
        assert_int_equal(call_rows(remote, world.wide, 1, NULL), 1);
        assert_int_equal(call_rows(remote, world.wide, 60, NULL), 0); /* a batch of their own */
    }
    hemi_remote_free(remote);
    hemi_client_free(client);
    hemi_keys_free(keys);
}

/* Ids are the server's: two descriptions of one id, of different sizes, share nothing. */
static void test_one_id_for_two(void **state) {
    (void)state;
    char text[4096], id[64];
    hemi_client *client = connect_with(-1, 0);
    hemi_module *narrow = fixture_module(10, 4, false, 1), *forged;
    hemi_pool *pool[3];
    const char *field = strstr(hemi_module_client_json(world.small), "\"module_id\"");
    assert_true(strlen(hemi_module_client_json(narrow)) < sizeof text &&
                sscanf(field, "\"module_id\": \"%32[0-9a-f]", id) == 1);
    snprintf(text, sizeof text, "%s", hemi_module_client_json(narrow));
    memcpy(strchr(strstr(text, "\"module_id\"") + 11, '"') + 1, id, 32);
    ASSERT_OK(hemi_module_from_client_json(&forged, text, strlen(text), ERR));
    assert_memory_equal(forged->info.id, world.small->info.id, HEMI_MODULE_ID_BYTES);
    const hemi_module *const asked[] = {world.small, forged, world.small};
    for (size_t i = 0; i < 3; i++) ASSERT_OK(hemi_pools_get(client->pools, &pool[i], "demo", &asked[i], 1, ERR));
    assert_ptr_equal(pool[0], pool[2]);
    assert_ptr_not_equal(pool[0], pool[1]);
    hemi_module_free(narrow);
    hemi_module_free(forged);
    hemi_client_free(client);
}

/* A client may go while its thread is at work, or waits. */
static void test_free_at_any_time(void **state) {
    (void)state;
    for (useconds_t i = 0; i < 20; i++) {
        hemi_client *client = connect_with(1, 256);
        hemi_remote *remote = open_module(client, "wide");
        call_rows(remote, world.wide, 1, NULL);
        usleep(500 * i);
        hemi_remote_free(remote);
        hemi_client_free(client);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prepared_calls),
                                       cmocka_unit_test(test_bias_by_slots),
                                       cmocka_unit_test(test_in_the_background),
                                       cmocka_unit_test(test_many_rows),
                                       cmocka_unit_test(test_samples),
                                       cmocka_unit_test(test_seeds_and_errors),
                                       cmocka_unit_test(test_fork_empties_the_pool),
                                       cmocka_unit_test(test_fork_at_any_time),
                                       cmocka_unit_test(test_retries),
                                       cmocka_unit_test(test_lost_keys),
                                       cmocka_unit_test(test_server_restart),
                                       cmocka_unit_test(test_new_secret_key),
                                       cmocka_unit_test(test_new_secret_key_between),
                                       cmocka_unit_test(test_one_id_for_two),
                                       cmocka_unit_test(test_free_at_any_time)};
    return cmocka_run_group_tests_name("preparation", tests, open_all, close_all) != 0;
}
