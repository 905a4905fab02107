/* What the fuzz harnesses share. Each is one file with `fuzz_start` (once) and `fuzz_one` (for every input); built with clang's libFuzzer, or with
 * fuzz/replay.c, which runs the files of a corpus. An input is either raw bytes, or edits of a valid file, with which a fuzzer gets further in formats
 * that are large or hold hashes:
 *
 *   byte 0 even: the rest is the file itself
 *   byte 0 odd:  edits, 6 bytes each: LE24 place (modulo length + 16), what to do (0: xor, 1: set, 2: end the file here, 3: insert a byte, other: set LE32),
 *                LE16 value */
#ifndef HEMI_FUZZ_H
#define HEMI_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hemi/hemi.h"

void fuzz_start(void);
void fuzz_one(const uint8_t *data, size_t size);

/* Of what must work: the message, and the end. */
static hemi_error fuzz_error;
#define FUZZ_ERR (&fuzz_error)
#define FUZZ_OK(call)                                                               \
    do {                                                                            \
        if ((call) != HEMI_OK) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, fuzz_error.message); \
            abort();                                                                \
        }                                                                           \
    } while (0)

/* An error has a message. What a harness asserts fails as a crash does. */
#define FUZZ_CHECK(condition)                                                     \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
            abort();                                                              \
        }                                                                         \
    } while (0)
static inline void fuzz_check_error(hemi_status status, const hemi_error *err) { FUZZ_CHECK(status == HEMI_OK || err->message[0]); }

typedef struct fuzz_file {
    uint8_t *bytes; /* malloc: of exactly this size, so that reading beyond is seen */
    size_t count;
} fuzz_file;

static inline uint32_t fuzz_le(const uint8_t *p, int bytes) {
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint32_t)p[i] << (8 * i);
    return v;
}

static inline fuzz_file fuzz_exact(const uint8_t *bytes, size_t count) {
    fuzz_file f = {malloc(count ? count : 1), count};
    if (!f.bytes) abort();
    if (count > 0) memcpy(f.bytes, bytes, count);
    return f;
}

/* The file that an input stands for; freed with free(). */
static inline fuzz_file fuzz_make(const uint8_t *data, size_t size, const uint8_t *base, size_t base_count) {
    if (size == 0 || data[0] % 2 == 0) return fuzz_exact(size ? data + 1 : data, size ? size - 1 : 0);
    uint8_t *work = malloc(base_count + size + 16);
    size_t count = base_count;
    if (!work) abort();
    memcpy(work, base, base_count);
    for (size_t at = 1; at + 6 <= size; at += 6) {
        const size_t place = fuzz_le(data + at, 3) % (count + 16);
        const uint8_t what = data[at + 3];
        const uint32_t value = fuzz_le(data + at + 4, 2);
        if (what == 2)
            count = place < count ? place : count;
        else if (what == 3 && place <= count) {
            memmove(work + place + 1, work + place, count - place);
            work[place] = (uint8_t)value;
            count++;
        } else if (place < count) {
            work[place] = what == 0 ? (uint8_t)(work[place] ^ value) : (uint8_t)value;
            if (what > 3 && place + 1 < count) work[place + 1] = (uint8_t)(value >> 8);
        }
    }
    fuzz_file f = fuzz_exact(work, count);
    free(work);
    return f;
}

static inline float fuzz_number(size_t i) {
    const uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
    return (float)((double)(int64_t)(z ^ z >> 29) / 9.3e18);
}

/* A small linear module, with a bias. */
static inline hemi_module *fuzz_module(uint32_t inputs, uint32_t outputs) {
    float *w = calloc((size_t)inputs * outputs, sizeof *w), *b = calloc(outputs, sizeof *b), *x = calloc(4 * (size_t)inputs, sizeof *x);
    const uint32_t shape[2] = {4, inputs};
    hemi_module *module;
    if (!w || !b || !x) abort();
    for (size_t i = 0; i < (size_t)inputs * outputs; i++) w[i] = fuzz_number(i);
    for (size_t i = 0; i < outputs; i++) b[i] = fuzz_number(i + 7);
    for (size_t i = 0; i < 4 * (size_t)inputs; i++) x[i] = fuzz_number(i + 99);
    FUZZ_OK(hemi_module_from_linear(&module, w, b, outputs, inputs, x, shape, 2, NULL, FUZZ_ERR));
    free(w);
    free(b);
    free(x);
    return module;
}

#endif
