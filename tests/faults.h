/* Faults on order: allocations, reads, writes and the like of this program's own objects (not of shared libraries) that fail, the n-th one. The linker
 * puts these functions in the place of the C library's (--wrap: Makefile, FAULT_FLAGS). */
#ifndef HEMI_TESTS_FAULTS_H
#define HEMI_TESTS_FAULTS_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

typedef enum fault_kind { FAULT_NONE, FAULT_MEMORY, FAULT_FILE, FAULT_SHORT } fault_kind; /* SHORT: reads and writes of one byte */

static atomic_int fault_what;
static atomic_long fault_left; /* calls until the one that fails */
static atomic_long fault_fired;
static pthread_t fault_thread;  /* the only one that is hurt, ... */
static atomic_bool fault_others; /* ... or all but that one */

static inline bool fault_here(fault_kind what) {
    if (atomic_load(&fault_what) != (int)what || (pthread_equal(pthread_self(), fault_thread) != 0) == atomic_load(&fault_others)) return false;
    if (atomic_fetch_sub(&fault_left, 1) != 1) return false;
    atomic_fetch_add(&fault_fired, 1);
    return true;
}

static inline void fault_arm(fault_kind what, long n, bool others) {
    fault_thread = pthread_self();
    atomic_store(&fault_others, others);
    atomic_store(&fault_left, n);
    atomic_store(&fault_fired, 0);
    atomic_store(&fault_what, (int)what);
}

/* Did it fail? */
static inline bool fault_disarm(void) {
    atomic_store(&fault_what, FAULT_NONE);
    return atomic_load(&fault_fired) > 0;
}

#define FAULT_WRAP(type, name, parameters, arguments, kind, failure) \
    type __real_##name parameters;                                   \
    type __wrap_##name parameters;                                   \
    type __wrap_##name parameters {                                  \
        if (fault_here(kind)) {                                      \
            errno = (kind) == FAULT_MEMORY ? ENOMEM : ENOSPC;        \
            return failure;                                          \
        }                                                            \
        return __real_##name arguments;                              \
    }

FAULT_WRAP(void *, malloc, (size_t n), (n), FAULT_MEMORY, NULL)
FAULT_WRAP(void *, calloc, (size_t a, size_t b), (a, b), FAULT_MEMORY, NULL)
FAULT_WRAP(void *, realloc, (void *p, size_t n), (p, n), FAULT_MEMORY, NULL)
FAULT_WRAP(void *, aligned_alloc, (size_t a, size_t n), (a, n), FAULT_MEMORY, NULL)
FAULT_WRAP(int, posix_memalign, (void **p, size_t a, size_t n), (p, a, n), FAULT_MEMORY, ENOMEM)
FAULT_WRAP(char *, strdup, (const char *s), (s), FAULT_MEMORY, NULL)
FAULT_WRAP(void *, mmap, (void *a, size_t n, int p, int f, int fd, off_t o), (a, n, p, f, fd, o), FAULT_MEMORY, MAP_FAILED)
FAULT_WRAP(void *, sodium_malloc, (size_t n), (n), FAULT_MEMORY, NULL)
FAULT_WRAP(int, fsync, (int fd), (fd), FAULT_FILE, -1)
FAULT_WRAP(int, rename, (const char *a, const char *b), (a, b), FAULT_FILE, -1)
FAULT_WRAP(int, mkdir, (const char *a, mode_t m), (a, m), FAULT_FILE, -1)

ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n) {
    if (fault_here(FAULT_FILE)) {
        errno = ENOSPC;
        return -1;
    }
    return __real_write(fd, p, n > 1 && fault_here(FAULT_SHORT) ? 1 : n);
}

ssize_t __real_read(int fd, void *p, size_t n);
ssize_t __wrap_read(int fd, void *p, size_t n);
ssize_t __wrap_read(int fd, void *p, size_t n) {
    if (fault_here(FAULT_FILE)) {
        errno = EIO;
        return -1;
    }
    return __real_read(fd, p, n > 1 && fault_here(FAULT_SHORT) ? 1 : n);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    const mode_t mode = va_arg(list, mode_t);
    va_end(list);
    if (fault_here(FAULT_FILE)) {
        errno = EIO;
        return -1;
    }
    return __real_open(path, flags, mode);
}

#endif
