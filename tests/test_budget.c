/* The extraction budget: what is counted, when, and what is refused. */
#include "server_fixture.h"

#include <sys/wait.h>

#include "server/budget.h"
#include "store/tenant_file.h"

static char folder[256], path[300];
static hemi_store *store;
static hemi_budget *budget;

static void open_budget(double fraction) {
    ASSERT_OK(hemi_store_open(&store, path, ERR));
    ASSERT_OK(hemi_budget_new(&budget, store, fraction, ERR));
}

static void close_budget(void) {
    hemi_budget_free(budget);
    hemi_store_close(store);
}

static int before(void **state) {
    static int number;
    (void)state;
    snprintf(path, sizeof path, "%s/%d.db", folder, number++);
    return 0;
}

static hemi_charge charge_of(const char *tenant, const char *subject, uint64_t inputs, uint64_t rows, const char *body) {
    hemi_charge c = {.tenant = tenant, .modules = 1, .rows = rows};
    strcpy(c.module[0].subject, subject);
    c.module[0].inputs = inputs;
    hemi_budget_digest(budget, c.digest, tenant, "x", 1, body, strlen(body));
    return c;
}

static const char *fresh_body(void) {
    static char text[32];
    static int number;
    snprintf(text, sizeof text, "body %d", number++);
    return text;
}

static void serve(const char *tenant, const char *subject, uint64_t inputs, uint64_t rows, const char *body) {
    hemi_charge c = charge_of(tenant, subject, inputs, rows, body);
    ASSERT_OK(hemi_budget_take(budget, &c, ERR));
    hemi_budget_settle(budget, &c, true);
}

static void expect_refused(const char *tenant, const char *subject, uint64_t inputs, uint64_t rows, const char *body) {
    hemi_charge c = charge_of(tenant, subject, inputs, rows, body);
    ASSERT_FAILS(HEMI_ERR_BUDGET, subject, hemi_budget_take(budget, &c, ERR));
}

/* What the store has counted; while the budget is open, reserved rows too. */
static uint64_t stored(const char *tenant, const char *subject) {
    hemi_store_count *all;
    size_t count;
    uint64_t rows = 0;
    ASSERT_OK(hemi_store_counts(store, tenant, &all, &count, ERR));
    for (size_t i = 0; i < count; i++)
        if (strcmp(all[i].subject, subject) == 0) rows = all[i].rows;
    free(all);
    return rows;
}

static uint64_t stored_afterwards(const char *tenant, const char *subject) {
    close_budget();
    ASSERT_OK(hemi_store_open(&store, path, ERR));
    const uint64_t rows = stored(tenant, subject);
    ASSERT_OK(hemi_budget_new(&budget, store, 0, ERR));
    return rows;
}

typedef struct seen {
    const char *tenant, *subject;
    uint64_t rows, inputs;
} seen;

static void look(void *context, const hemi_budget_line *line) {
    seen *s = context;
    if (strcmp(line->tenant, s->tenant) != 0 || strcmp(line->subject, s->subject) != 0) return;
    s->rows = line->rows;
    s->inputs = line->inputs;
}

static void test_counts(void **state) {
    (void)state;
    open_budget(0);
    for (int i = 0; i < 50; i++) serve("a", "m/x", 10, 100, fresh_body()); /* report only: far more than 11 */
    serve("b", "m/x", 10, 7, fresh_body());
    seen s = {.tenant = "a", .subject = "m/x"};
    hemi_budget_each(budget, look, &s);
    assert_int_equal(s.rows, 5000);
    assert_int_equal(s.inputs, 10);
    assert_true(stored("a", "m/x") >= 5000);
    assert_int_equal(stored_afterwards("a", "m/x"), 5000);
    assert_int_equal(stored("b", "m/x"), 7);
    close_budget();
}

/* Reserved in blocks: far fewer questions than calls. */
static void test_blocks(void **state) {
    uint64_t last = 0;
    int changes = 0;
    (void)state;
    open_budget(0);
    for (int i = 0; i < 5000; i++) {
        serve("a", "m/x", 10, 1, fresh_body());
        const uint64_t now = i % 10 == 0 ? stored("a", "m/x") : last;
        if (now != last) changes++;
        last = now;
    }
    assert_in_range(changes, 1, 40);
    close_budget();
}

/* What the store says is what was served, and no more than a sixteenth of the unknowns besides: at first, and soon after a burst, while the server runs. */
static void test_idle_gives_back(void **state) {
    const uint64_t little = 1000 / 16 + 1;
    (void)state;
    open_budget(0);
    serve("a", "m/x", 1000, 1, fresh_body());
    assert_in_range(stored("a", "m/x"), 1, 1 + 2 * little);
    for (int i = 0; i < 999; i++) serve("a", "m/x", 1000, 10, fresh_body());
    for (int i = 0; i < 400 && stored("a", "m/x") > 9991 + little; i++) usleep(50000);
    assert_in_range(stored("a", "m/x"), 9991, 9991 + little);
    serve("a", "m/x", 1000, 10, fresh_body());
    assert_int_equal(stored_afterwards("a", "m/x"), 10001);
    close_budget();
}

static void test_same_bytes_count_once(void **state) {
    (void)state;
    open_budget(0);
    for (int i = 0; i < 10; i++) serve("a", "m/x", 10, 5, "the same");
    serve("b", "m/x", 10, 5, "the same"); /* of another tenant: another request */
    assert_int_equal(stored_afterwards("a", "m/x"), 5);
    assert_int_equal(stored("b", "m/x"), 5);
    close_budget();
}

/* Not served: not counted; and of two at the same time that one served is enough. */
static void test_not_served(void **state) {
    (void)state;
    open_budget(0);
    hemi_charge c = charge_of("a", "m/x", 10, 5, "one"), d = charge_of("a", "m/x", 10, 5, "one");
    ASSERT_OK(hemi_budget_take(budget, &c, ERR));
    hemi_budget_settle(budget, &c, false);
    ASSERT_OK(hemi_budget_take(budget, &c, ERR));
    assert_true(c.counted);
    ASSERT_OK(hemi_budget_take(budget, &d, ERR));
    assert_false(d.counted);
    hemi_budget_settle(budget, &c, false);
    hemi_budget_settle(budget, &d, false);
    assert_int_equal(stored_afterwards("a", "m/x"), 0);
    c = charge_of("a", "m/x", 10, 5, "one");
    d = c;
    ASSERT_OK(hemi_budget_take(budget, &c, ERR));
    ASSERT_OK(hemi_budget_take(budget, &d, ERR));
    hemi_budget_settle(budget, &c, false);
    hemi_budget_settle(budget, &d, true);
    serve("a", "m/x", 10, 5, "one");
    assert_int_equal(stored_afterwards("a", "m/x"), 5);
    close_budget();
}

static void test_refuses(void **state) {
    (void)state;
    open_budget(0.5); /* 50 of 100 + 1 */
    serve("a", "m/x", 100, 30, fresh_body());
    expect_refused("a", "m/x", 100, 21, fresh_body());
    serve("a", "m/x", 100, 20, "last");
    expect_refused("a", "m/x", 100, 1, fresh_body());
    serve("a", "m/x", 100, 20, "last"); /* a retry is nothing new */
    serve("b", "m/x", 100, 50, fresh_body());
    serve("a", "m/y", 100, 50, fresh_body());
    expect_refused("a", "m/y", 100, 1, fresh_body());
    close_budget();
    open_budget(0.5); /* a new process: the same */
    expect_refused("a", "m/x", 100, 1, fresh_body());
    close_budget();
    open_budget(0.6);
    serve("a", "m/x", 100, 10, fresh_body());
    expect_refused("a", "m/x", 100, 1, fresh_body());
    close_budget();
}

/* A request for more than there is leaves what there is to smaller ones, of this server and of another, and to the eye of who audits. */
static void test_refused_takes_nothing(void **state) {
    hemi_budget *other;
    (void)state;
    open_budget(0.5);
    ASSERT_OK(hemi_budget_new(&other, store, 0.5, ERR));
    serve("a", "m/x", 1000, 300, fresh_body());
    expect_refused("a", "m/x", 1000, 201, fresh_body());
    assert_in_range(stored("a", "m/x"), 300, 300 + 2 * (500 / 16 + 1));
    hemi_charge c = charge_of("a", "m/x", 1000, 60, fresh_body());
    ASSERT_OK(hemi_budget_take(other, &c, ERR));
    hemi_budget_settle(other, &c, true);
    expect_refused("a", "m/x", 1000, 201, fresh_body());
    serve("a", "m/x", 1000, 80, fresh_body()); /* at once: that more was refused says nothing of it */
    hemi_budget_free(other);
    serve("a", "m/x", 1000, 60, fresh_body());
    expect_refused("a", "m/x", 1000, 1, fresh_body());
    assert_int_equal(stored_afterwards("a", "m/x"), 500);
    close_budget();
}

static void test_all_modules_or_none(void **state) {
    (void)state;
    open_budget(0.5);
    serve("a", "m/y", 100, 45, fresh_body());
    hemi_charge c = charge_of("a", "m/x", 100, 10, fresh_body());
    c.modules = 2;
    strcpy(c.module[1].subject, "m/y");
    c.module[1].inputs = 100;
    ASSERT_FAILS(HEMI_ERR_BUDGET, "m/y", hemi_budget_take(budget, &c, ERR));
    serve("a", "m/x", 100, 50, fresh_body()); /* nothing of x was taken */
    close_budget();
}

/* Killed: what was reserved counts as served, and no budget is exceeded. */
static void test_killed(void **state) {
    int status;
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        open_budget(0.5);
        hemi_charge c = charge_of("a", "m/x", 1000, 3, fresh_body());
        if (hemi_budget_take(budget, &c, NULL) != HEMI_OK) _exit(1);
        hemi_budget_settle(budget, &c, true);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    open_budget(0.5);
    const uint64_t rows = stored("a", "m/x");
    assert_in_range(rows, 3, 3 + 2 * (500 / 16 + 1)); /* what was used, and the present block */
    uint64_t served = 0;
    for (hemi_charge c; c = charge_of("a", "m/x", 1000, 1, fresh_body()), hemi_budget_take(budget, &c, ERR) == HEMI_OK; served++)
        hemi_budget_settle(budget, &c, true);
    assert_int_equal(served + rows, 500);
    close_budget();
}

#define THREADS 6

static void *take_many(void *context) {
    size_t *mine = context;
    for (int i = 0; i < 400; i++) {
        char body[64];
        snprintf(body, sizeof body, "%p %d", context, i);
        hemi_charge c = {.tenant = "a", .modules = 1, .rows = 3};
        strcpy(c.module[0].subject, "m/x");
        c.module[0].inputs = 9999;
        hemi_budget_digest(budget, c.digest, "a", "x", 1, body, strlen(body));
        if (hemi_budget_take(budget, &c, NULL) != HEMI_OK) continue;
        *mine += 3;
        hemi_budget_settle(budget, &c, true);
    }
    return NULL;
}

/* 500 rows of the budget, which divide badly. */
static void test_at_once(void **state) {
    pthread_t thread[THREADS];
    size_t rows[THREADS] = {0}, sum = 0;
    (void)state;
    open_budget(0.05);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, take_many, &rows[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        sum += rows[i];
    }
    assert_in_range(sum, 497, 500);
    assert_int_equal(stored_afterwards("a", "m/x"), sum);
    close_budget();
}

/* ---- a server */

static reply infer(party *p, call *c) { return ask(world.port, "POST", "/v2/models/demo/infer", p->header, c->request, c->bytes); }

static void test_server_refuses(void **state) {
    party owner;
    site_make(state);
    const hemi_module *modules[] = {world.small};
    const hemi_http_options o = {.no_auth = true, .budget = 4.6, .store = path}; /* 10 inputs: 50 rows; few rows come packed, in a ciphertext with places for 32, all of which count */
    site_start(&o);
    party_open(&owner, modules, 1);
    call three = call_new(&owner, world.small, 2), more = call_new(&owner, world.small, 3);
    expect_reply(ask(world.port, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
    reply r = infer(&owner, &three);
    if (r.status != 200) fail_msg("status %d: %s", r.status, (const char *)r.body);
    reply_clear(&r);
    r = infer(&owner, &three); /* the same bytes: as often as one likes */
    assert_int_equal(r.status, 200);
    reply_clear(&r);
    r = infer(&owner, &more);
    assert_string_equal(header_of(&r, "Retry-After"), "");
    expect_reply(r, 429, "HEMI_ERR_BUDGET");
    expect_reply(ask(world.port, "POST", "/v2/models/demo/infer", owner.header, "rubbish", 7), 400, "HEMI_ERR_FORMAT"); /* counts nothing */
    site_stop();
    site_start(&o);
    expect_reply(infer(&owner, &more), 429, "HEMI_ERR_BUDGET");
    site_stop();
    const hemi_http_options report = {.no_auth = true, .store = path};
    site_start(&report);
    r = infer(&owner, &more);
    assert_int_equal(r.status, 200);
    reply_clear(&r);
    call_free(&three);
    call_free(&more);
    party_close(&owner);
    site_close(state);
}

int main(void) {
#define T(f) cmocka_unit_test_setup(f, before)
    const struct CMUnitTest tests[] = {T(test_counts),  T(test_blocks), T(test_idle_gives_back), T(test_same_bytes_count_once), T(test_not_served), T(test_refuses), T(test_refused_takes_nothing), T(test_all_modules_or_none),
                                       T(test_killed), T(test_at_once), T(test_server_refuses)};
    test_folder_new(folder);
    const int failed = cmocka_run_group_tests_name("extraction budget", tests, NULL, NULL);
    test_folder_remove(folder);
    return failed != 0;
}
