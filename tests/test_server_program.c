/* The program hemi-server: command line, the line of JSON, its log, signals, exit statuses. */
#include "server_fixture.h"

#include <signal.h>
#include <sys/wait.h>

static char program[512];

typedef struct process {
    pid_t pid;
    FILE *out, *err;
} process;

/* argv[0] is put in front. */
static process start(const char *const *arguments) {
    int out[2], err[2];
    const char *argv[16] = {program};
    for (size_t i = 0; arguments[i] && i < 14; i++) argv[i + 1] = arguments[i];
    assert_int_equal(pipe(out) + pipe(err), 0);
    process p = {.pid = fork()};
    assert_true(p.pid >= 0);
    if (p.pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        for (int i = 0; i < 2; i++) {
            close(out[i]);
            close(err[i]);
        }
        execv(program, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    p.out = fdopen(out[0], "r");
    p.err = fdopen(err[0], "r");
    return p;
}

static void read_all(char *text, size_t size, FILE *f) {
    const size_t n = fread(text, 1, size - 1, f);
    text[n] = 0;
}

/* Waits for its end; what it wrote is in text. Returns the exit status. */
static int finish(process *p, char *out, char *err, size_t size) {
    int status = 0;
    read_all(out, size, p->out);
    read_all(err, size, p->err);
    fclose(p->out);
    fclose(p->err);
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    if (!WIFEXITED(status)) fail_msg("it was ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static void expect_run(const char *const *arguments, int status, const char *in_out, const char *in_err) {
    char out[16384], err[16384];
    process p = start(arguments);
    const int found = finish(&p, out, err, sizeof out);
    if (found != status || !strstr(out, in_out) || !strstr(err, in_err))
        fail_msg("%s: exit status %d, expected %d; stdout '%s', expected '%s'; stderr '%s', expected '%s'",
                 arguments[0] ? arguments[0] : "", found, status, out, in_out, err, in_err);
}

static void need_program(void) {
    if (access(program, X_OK) != 0) skip();
}

static void test_command_line(void **state) {
    (void)state;
    need_program();
    expect_run((const char *const[]){"--help", NULL}, 0, "usage: hemi-server FOLDER", "");
    expect_run((const char *const[]){"--version", NULL}, 0, "hemi-server " HEMI_VERSION, "");
    expect_run((const char *const[]){NULL}, 64, "", "FOLDER is missing");
    expect_run((const char *const[]){"a", "b", NULL}, 64, "", "'b' is one argument too many");
    expect_run((const char *const[]){"a", "--nonsense", NULL}, 64, "", "--help");
    static const char *const wrong[][2] = {{"--port", "65536"},
                                           {"--port", "x"},
                                           {"--port", "-1"},
                                           {"-p", "80 "},
                                           {"--threads", "0"},
                                           {"--max-keys-bytes", "1T"},
                                           {"--max-keys-bytes", "99999999999G"},
                                           {"--max-rows", "0"}};
    for (size_t i = 0; i < TEST_COUNT(wrong); i++)
        expect_run((const char *const[]){world.folder, wrong[i][0], wrong[i][1], NULL}, 64, "", "takes a whole number");
}

static void test_nothing_to_serve(void **state) {
    (void)state;
    need_program();
    expect_run((const char *const[]){"/nonexistent", "--port", "0", "--no-auth", NULL}, -HEMI_ERR_NOT_FOUND, "",
               "hemi-server: there is no folder /nonexistent");
    expect_run((const char *const[]){"/nonexistent", "--port", "0", "--json", "--no-auth", NULL}, -HEMI_ERR_NOT_FOUND,
               "{\"error\":{\"code\":\"HEMI_ERR_NOT_FOUND\"", "");
}

/* Reads the line that says where it is. */
static uint16_t port_of(process *p) {
    char line[4096];
    if (!fgets(line, sizeof line, p->out)) fail_msg("no line of JSON");
    json_t *root = json_loads(line, 0, NULL);
    const json_int_t port = json_integer_value(json_object_get(root, "port"));
    assert_int_equal(json_array_size(json_object_get(root, "models")), 2);
    json_decref(root);
    assert_true(port > 0 && port < 65536);
    return (uint16_t)port;
}

static void serve_and_stop(int with, bool quiet) {
    char out[16384], err[16384], port_text[8];
    process p = start((const char *const[]){world.folder, "--port", "0", "--json", "--threads", "2", "--max-keys-bytes",
                                            "64M", "--no-auth", quiet ? "--quiet" : NULL, NULL});
    const uint16_t port = port_of(&p);
    snprintf(port_text, sizeof port_text, "%u", port);
    expect_run((const char *const[]){world.folder, "--port", port_text, "--quiet", "--no-auth", NULL}, -HEMI_ERR_NETWORK, "",
               "is in use: is a server running there already?");
    const hemi_module *modules[] = {world.small};
    party owner;
    party_open(&owner, modules, 1);
    call c = call_new(&owner, world.small, 1);
    expect_reply(ask(port, "PUT", owner.path, NULL, owner.bytes, owner.length), 201, NULL);
    expect_product(&owner, &c, world.small,
                   ask(port, "POST", "/v2/models/demo/infer", owner.header, c.request, c.bytes));
    expect_reply(ask(port, "GET", "/v2/%7Bodd%7D%0Aname", NULL, NULL, 0), 404, NULL);
    assert_int_equal(kill(p.pid, with), 0);
    assert_int_equal(finish(&p, out, err, sizeof err), 0);
    if (quiet) {
        assert_string_equal(err, "");
    } else {
        char wanted[256];
        snprintf(wanted, sizeof wanted, "method=POST route=/v2/models/{model}/infer model=demo status=200 ");
        assert_non_null(strstr(err, wanted));
        snprintf(wanted, sizeof wanted, " key=%.8s\n", owner.id);
        assert_non_null(strstr(err, wanted));
        assert_null(strstr(err, "odd")); /* nothing from outside gets into the log */
        assert_null(strstr(err, owner.id));
        assert_non_null(strstr(err, "demo/wide/po_1_300_pc"));
        assert_non_null(strstr(err, "hemi-server: ready on http://127.0.0.1:"));
        assert_non_null(strstr(err, "hemi-server: stopping"));
    }
    call_free(&c);
    party_close(&owner);
}

static void test_serves_until_sigterm(void **state) {
    (void)state;
    need_program();
    serve_and_stop(SIGTERM, false);
}

static void test_serves_until_sigint(void **state) {
    (void)state;
    need_program();
    serve_and_stop(SIGINT, true);
}

int main(void) {
    const char *build = getenv("BUILD");
    char state[256];
    test_folder_new(state);
    setenv("STATE_DIRECTORY", state, 1); /* the store that nobody named */
    snprintf(program, sizeof program, "%s/bin/hemi-server", build ? build : "build");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_command_line), cmocka_unit_test(test_nothing_to_serve),
                                       cmocka_unit_test(test_serves_until_sigterm),
                                       cmocka_unit_test(test_serves_until_sigint)};
    const int failed = cmocka_run_group_tests_name("hemi-server", tests, site_make, site_close);
    test_folder_remove(state);
    return failed != 0;
}
