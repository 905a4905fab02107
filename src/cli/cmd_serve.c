/* hemi serve: the program hemi-server, which holds no secret-key code, in place of this one. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"

#define SERVER "hemi-server"

/* The folder that this program was started from, with SERVER appended. */
static bool beside_this_program(char path[4096]) {
    ssize_t n = readlink("/proc/self/exe", path, 4096 - sizeof SERVER - 1);
    if (n <= 0) return false;
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (!slash) return false;
    strcpy(slash + 1, SERVER);
    return access(path, X_OK) == 0;
}

int cmd_serve(int argc, char **argv) {
    char path[4096], name[] = SERVER;
    bool json = false;
    for (int i = 1; i < argc; i++) json = json || strcmp(argv[i], "--json") == 0;
    argv[0] = name;
    if (beside_this_program(path)) execv(path, argv);
    execvp(SERVER, argv);
    hemi_error err = {0};
    return cli_fail("serve", json,
                    hemi_fail(&err, HEMI_ERR_NOT_FOUND,
                              "%s is neither beside this program nor on the PATH (%s): `make` builds both", SERVER,
                              strerror(errno)),
                    &err);
}
