/* Memory: aligned blocks for vectors, large blocks on huge pages, guarded and wiped blocks for secrets. */
#ifndef HEMI_BASE_MEMORY_H
#define HEMI_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define HEMI_ALIGNMENT 64 /* bytes: one cache line, one AVX-512 register */

/* count * size bytes, zeroed, aligned to HEMI_ALIGNMENT. NULL when there is no memory or the product
 * overflows. A product of 0 gives a valid block. Freed with hemi_free (takes NULL), which wipes the block first. */
void *hemi_alloc(size_t count, size_t size);
void hemi_free(void *block);

/* The same for blocks that are streamed (weights): aligned to 2 MiB where they are that large, and the
 * system is asked for huge pages. Freed with hemi_free. */
void *hemi_alloc_large(size_t count, size_t size);

/* For secrets: guarded pages, locked where the system allows, wiped when freed (libsodium's sodium_malloc
 * below a page-aligned start, so that vectors may be stored in it). Freed with hemi_secure_free. */
void *hemi_secure_alloc(size_t count, size_t size);
void hemi_secure_free(void *block);

/* Overwrites a block with zeros; not removed by the compiler. */
void hemi_wipe(void *block, size_t bytes);

/* Between begin and end (which nest, on any threads) whatever is freed in this process is overwritten, by libraries too: for calls of
 * libraries that copy private data. Does nothing where the C library has no such setting (it is glibc's M_PERTURB). */
void hemi_wipe_freed_begin(void);
void hemi_wipe_freed_end(void);

/* strdup with hemi_free. */
char *hemi_strdup(const char *text);

#endif
