#include "base/memory.h"

#include <malloc.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* count * size rounded up to a multiple of `unit` (a power of two), at least one unit; 0 on overflow. */
static size_t rounded_product(size_t count, size_t size, size_t unit) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > (size_t)PTRDIFF_MAX - unit) return 0;
    if (bytes == 0) bytes = 1;
    return (bytes + unit - 1) & ~(unit - 1);
}

void *hemi_alloc(size_t count, size_t size) {
    const size_t bytes = rounded_product(count, size, HEMI_ALIGNMENT);
    void *block = bytes ? aligned_alloc(HEMI_ALIGNMENT, bytes) : NULL;
    if (block) memset(block, 0, bytes);
    return block;
}

void hemi_free(void *block) {
    /* weights, plaintexts and phases pass through many blocks; none of them stays behind in freed memory */
    if (block) hemi_wipe(block, malloc_usable_size(block));
    free(block);
}

void *hemi_alloc_large(size_t count, size_t size) {
    const size_t bytes = rounded_product(count, size, HEMI_ALIGNMENT);
    void *block = NULL;
    if (bytes < HUGE_PAGE) return bytes ? hemi_alloc(count, size) : NULL;
    if (posix_memalign(&block, HUGE_PAGE, bytes) != 0) return NULL;
    /* a wish: a system without huge pages is slower, not wrong. Not for the end: models have many blocks, and half a page each is much */
    (void)madvise(block, bytes & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
    memset(block, 0, bytes);
    return block;
}

void *hemi_secure_alloc(size_t count, size_t size) {
    /* sodium_malloc puts the END of the block at a guard page; a multiple of the alignment aligns its start too */
    const size_t bytes = rounded_product(count, size, HEMI_ALIGNMENT);
    if (bytes == 0 || sodium_init() < 0) return NULL;
    void *block = sodium_malloc(bytes);
    if (block) memset(block, 0, bytes);
    return block;
}

void hemi_secure_free(void *block) { sodium_free(block); }

void hemi_wipe(void *block, size_t bytes) {
    if (bytes) sodium_memzero(block, bytes);
}

#ifdef M_PERTURB
static pthread_mutex_t wiping_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned wiping;

void hemi_wipe_freed_begin(void) {
    pthread_mutex_lock(&wiping_lock);
    if (wiping++ == 0) (void)mallopt(M_PERTURB, 0xff);
    pthread_mutex_unlock(&wiping_lock);
}

void hemi_wipe_freed_end(void) {
    pthread_mutex_lock(&wiping_lock);
    if (--wiping == 0) (void)mallopt(M_PERTURB, 0);
    pthread_mutex_unlock(&wiping_lock);
}
#else
void hemi_wipe_freed_begin(void) {}
void hemi_wipe_freed_end(void) {}
#endif

char *hemi_strdup(const char *text) {
    const size_t bytes = strlen(text) + 1;
    char *copy = hemi_alloc(bytes, 1);
    if (copy) memcpy(copy, text, bytes);
    return copy;
}
