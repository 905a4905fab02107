/* Runs the files of a corpus once each, without a fuzzer: `fuzz_x FOLDER...`. For compilers without libFuzzer, and as a test. */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

static size_t run_file(const char *path) {
    FILE *f = fopen(path, "rb");
    struct stat s;
    if (!f || fstat(fileno(f), &s) != 0 || !S_ISREG(s.st_mode)) {
        if (f) fclose(f);
        return 0;
    }
    uint8_t *bytes = malloc((size_t)s.st_size + 1);
    const size_t count = bytes ? fread(bytes, 1, (size_t)s.st_size, f) : 0;
    fclose(f);
    fuzz_file exact = fuzz_exact(bytes, count);
    fuzz_one(exact.bytes, exact.count);
    free(exact.bytes);
    free(bytes);
    return 1;
}

int main(int argc, char **argv) {
    size_t files = 0;
    fuzz_start();
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        for (struct dirent *e; folder && (e = readdir(folder));) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            files += run_file(path);
        }
        if (folder) closedir(folder);
        if (!folder) files += run_file(argv[i]);
    }
    /* each file cut at every length that is likely to matter, and empty */
    fuzz_one((const uint8_t *)"", 0);
    const char *name = strrchr(argv[0], '/');
    printf("%s - %s: %zu files of the corpus\n", files > 0 ? "ok" : "not ok", name ? name + 1 : argv[0], files);
    return files > 0 ? 0 : 1;
}
