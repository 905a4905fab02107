#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

#define FIRST_BYTES_OF_A_PIPE ((size_t)64 << 10)
#define TEMPORARY_NAMES 64 /* tries before giving up */

static hemi_status too_large(hemi_error *err, const char *path, size_t max_bytes) {
    return hemi_fail(err, HEMI_ERR_TOO_LARGE, "%s has more than the %zu bytes allowed", path, max_bytes);
}

/* Reads to the end of fd into a block that starts with room for `room` bytes and the NUL. What was read may be secret:
 * a block given up is wiped. */
static hemi_status read_all(uint8_t **data, size_t *bytes, int fd, size_t room, const char *path, size_t max_bytes,
                            hemi_error *err) {
    hemi_status status = HEMI_OK;
    size_t length = 0;
    uint8_t *block = hemi_alloc(room + 1, 1);
    if (!block) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the %zu bytes of %s", room, path);
    for (;;) {
        const ssize_t got = read(fd, block + length, room + 1 - length); /* one byte more tells the end */
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = hemi_fail(err, HEMI_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        if (got <= 0) break;
        length += (size_t)got;
        if (length > max_bytes) {
            status = too_large(err, path, max_bytes);
            break;
        }
        if (length <= room) continue;
        const size_t larger = room < max_bytes / 2 ? 2 * room + 1 : max_bytes;
        uint8_t *grown = hemi_alloc(larger + 1, 1);
        if (!grown) {
            status = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the %zu bytes of %s", larger, path);
            break;
        }
        memcpy(grown, block, length);
        hemi_wipe(block, length);
        hemi_free(block);
        block = grown;
        room = larger;
    }
    if (status != HEMI_OK) {
        hemi_wipe(block, length);
        hemi_free(block);
        return status;
    }
    block[length] = 0;
    *data = block;
    *bytes = length;
    return HEMI_OK;
}

hemi_status hemi_file_read(uint8_t **data, size_t *bytes, const char *path, size_t max_bytes, hemi_error *err) {
    struct stat st;
    if (max_bytes >= SIZE_MAX / 4) max_bytes = SIZE_MAX / 4;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return hemi_fail(err, errno == ENOENT || errno == ENOTDIR ? HEMI_ERR_NOT_FOUND : HEMI_ERR_IO,
                         "cannot open %s: %s", path, strerror(errno));
    hemi_status status;
    if (fstat(fd, &st) != 0)
        status = hemi_fail(err, HEMI_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        status = hemi_fail(err, HEMI_ERR_IO, "cannot read %s: it is a folder", path);
    else if (S_ISREG(st.st_mode) && (uintmax_t)st.st_size > max_bytes)
        status = too_large(err, path, max_bytes);
    else {
        size_t room = S_ISREG(st.st_mode) ? (size_t)st.st_size : FIRST_BYTES_OF_A_PIPE;
        status = read_all(data, bytes, fd, room < max_bytes ? room : max_bytes, path, max_bytes, err);
    }
    close(fd);
    return status;
}

/* The length of the part of path before its last name, "/" included; 0: the current folder. */
static size_t folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* A new file beside path, under a name that nobody else has. Returns its descriptor, its name in *name; or -1. */
static int open_temporary(char **name, const char *path, int mode) {
    const size_t size = strlen(path) + 32, folder = folder_length(path);
    if ((*name = hemi_alloc(size, 1)) == NULL) {
        errno = ENOMEM;
        return -1;
    }
    for (int i = 0; i < TEMPORARY_NAMES; i++) {
        snprintf(*name, size, "%.*s.%s.%08x.tmp", (int)folder, path, path + folder, (unsigned)randombytes_random());
        const int fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

static int write_all(int fd, const uint8_t *data, size_t bytes) {
    while (bytes > 0) {
        const ssize_t put = write(fd, data, bytes);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -1;
        data += put;
        bytes -= (size_t)put;
    }
    return fsync(fd);
}

/* A rename lasts when its folder is on the disk. Some file systems refuse this; the content is safe all the same. */
static void sync_folder_of(const char *path) {
    char *folder = hemi_strdup(path);
    if (!folder) return;
    folder[folder_length(path)] = '\0';
    const int fd = open(*folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    hemi_free(folder);
}

hemi_status hemi_file_write(const char *path, const void *data, size_t bytes, int mode, hemi_error *err) {
    char *temporary = NULL;
    if (sodium_init() < 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "no source of randomness");
    const int fd = open_temporary(&temporary, path, mode);
    int failed = fd < 0 ? errno : 0;
    if (fd >= 0) {
        if (write_all(fd, data, bytes) != 0) failed = errno;
        if (close(fd) != 0 && !failed) failed = errno;
        if (!failed && rename(temporary, path) != 0) failed = errno;
        if (failed) (void)unlink(temporary);
    }
    hemi_free(temporary);
    if (failed) return hemi_fail(err, HEMI_ERR_IO, "cannot write %s: %s", path, strerror(failed));
    sync_folder_of(path);
    return HEMI_OK;
}

hemi_status hemi_folder_create(const char *path, hemi_error *err) {
    if (!*path) return hemi_fail(err, HEMI_ERR_ARGUMENT, "the name of a folder is empty");
    char *part = hemi_strdup(path);
    if (!part) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to create the folder %s", path);
    hemi_status status = HEMI_OK;
    for (size_t i = 1; status == HEMI_OK; i++) { /* every prefix that ends before a '/' or at the end */
        const char here = path[i];
        if (here != '/' && here != '\0') continue;
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && !hemi_path_is_folder(part))
            status = hemi_fail(err, HEMI_ERR_IO, "cannot create the folder %s: %s", part, strerror(errno));
        part[i] = here;
        if (here == '\0') break;
    }
    hemi_free(part);
    return status;
}

bool hemi_path_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool hemi_path_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

char *hemi_path_join(const char *a, const char *b) {
    const size_t la = strlen(a), lb = strlen(b);
    const bool slash = la > 0 && a[la - 1] != '/';
    char *path = hemi_alloc(la + lb + 2, 1);
    if (!path) return NULL;
    memcpy(path, a, la);
    if (slash) path[la] = '/';
    memcpy(path + la + slash, b, lb + 1);
    return path;
}
