/* Every kernel of every table, microseconds per call: the median of many.
 *
 *   make bench, or build/bench/bench_kernels [runs per figure: 201]
 *
 * One prime of 48 bits (the dot product takes no more), N = 4096 where nothing else is said. Integer products stand beside the same
 * product of float32 by OpenBLAS, one thread, where that can be loaded. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/cpu.h"
#include "base/memory.h"
#include "ring/ring.h"

#define LOG2_N    12
#define N         (1u << LOG2_N)
#define PRIME     UINT64_C(0xfffffffa0001)
#define TO        UINT64_C(0x3ffffffd20001)
#define BABIES    16
#define STREAM    (64u << 20) /* bytes of right factors, more than a core's caches hold */
#define BATCH_US  20.0
#define TABLES    4
#define BUDGET_US 5e5 /* for one figure */
#define COLUMNS   256 /* of the right side of a matrix product */
#define GADGET_N  16384
#define DIGITS    10
#define GADGET_BYTES (6 * GADGET_N + 576) /* as keys lie in memory */
#define KEYS         (STREAM / (2 * DIGITS * GADGET_BYTES))

enum { SMALL8, SMALL16, LARGE8, LARGE16, MATRICES }; /* 768 and 4096 square, of one byte and of two */

typedef struct bench {
    const hemi_kernels *k;
    hemi_ring *ring[HEMI_RING_LOG2_N_MAX + 1]; /* by log2 of the degree */
    hemi_modulus m, to;
    uint64_t *a, *b, *c, *r, *s, *left0, *left1;
    uint32_t *index;
    uint8_t *right;
    size_t at, key; /* in the streams */
    hemi_int_matrix w[MATRICES];
    void *vector[MATRICES], *panels[MATRICES]; /* right sides */
    uint64_t *wide, *wide_r;                   /* 768 x COLUMNS */
    uint64_t *digit;                           /* DIGITS x GADGET_N */
    uint8_t *keys;                             /* KEYS times two of that, 6 bytes each */
    uint64_t *mixed;                           /* 3 x N, of lift_mixed */
    uint32_t *gadget_index;
} bench;

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* ---- what is measured: x is the row's number */
static void b_ntt(bench *b, size_t x) { b->k->ntt(b->r, b->ring[x]->limb); }
static void b_intt(bench *b, size_t x) { b->k->intt(b->r, b->r, b->ring[x]->limb); }
static void b_add(bench *b, size_t x) { b->k->add(b->r, b->a, b->b, x, &b->m); }
static void b_sub(bench *b, size_t x) { b->k->sub(b->r, b->a, b->b, x, &b->m); }
static void b_mul(bench *b, size_t x) { b->k->mul(b->r, b->a, b->b, x, &b->m); }
static void b_mul_add(bench *b, size_t x) { b->k->mul_add(b->r, b->a, b->b, x, &b->m); }
static void b_mul_scalar(bench *b, size_t x) { b->k->mul_scalar(b->r, b->a, 123456789, x, &b->m); }
static void b_fix(bench *b, size_t x) { b->k->fix(b->s, b->a, x, &b->m); }
static void b_mul_fixed(bench *b, size_t x) { b->k->mul_fixed(b->r, b->a, b->c, x, &b->m); }
static void b_mul_add_fixed(bench *b, size_t x) { b->k->mul_add_fixed(b->r, b->a, b->c, x, &b->m); }
static void b_permute(bench *b, size_t x) { b->k->permute(b->r, b->a, b->index, x); }
static void b_keyswitch_product(bench *b, size_t x) {
    b->k->keyswitch_product(b->r, b->s, b->a, b->b, b->index, b->c, b->c, x, &b->m);
}
/* In the order of an automorphism, or as they are. */
static void gadget(bench *b, bool automorphism, const uint8_t *key) {
    b->k->gadget_product(b->r, b->s, b->digit, GADGET_N, automorphism ? b->gadget_index : NULL, key, key + DIGITS * GADGET_BYTES, GADGET_BYTES, DIGITS,
                         GADGET_N, &b->m);
}
static void b_gadget(bench *b, size_t automorphism) { gadget(b, automorphism, b->keys); }
static void b_gadget_stream(bench *b, size_t automorphism) {
    b->key = (b->key + 1) % KEYS;
    gadget(b, automorphism, b->keys + b->key * 2 * DIGITS * GADGET_BYTES);
}
static void b_lift(bench *b, size_t x) { b->k->lift(b->r, b->a, x, &b->m, &b->to); }
static void b_lift_mixed(bench *b, size_t x) {
    const hemi_modulus *const from[] = {&b->m, &b->m, &b->m};
    b->k->lift_mixed(b->r, b->mixed, N, from, x, N, &b->to);
}
static void b_sub_mul(bench *b, size_t x) { b->k->sub_mul_scalar(b->r, b->a, b->b, 123456789, x, &b->m); }
static void b_switch_down(bench *b, size_t x) { b->k->switch_down(b->r, b->a, x, 24, &b->m); }
static void b_switch_up(bench *b, size_t x) { b->k->switch_up(b->s, b->r, x, 32, &b->m); }
static void b_dot_left(bench *b, size_t x) { b->k->dot_left(b->s, b->a, x, &b->m); }
static void b_dot_right(bench *b, size_t x) { b->k->dot_right(b->right, b->a, x, &b->m); }

/* 4096 products of both sums: 16 babies, blocks of x coefficients. The left factors lie apart by the block, so that
 * blocks of 64 stay in the first-level cache. */
static void dot(bench *b, size_t block, size_t stride, const uint8_t *right) {
    b->k->dot2(b->r, b->s, block, N / (block * BABIES), b->left0, b->left1, stride, right, BABIES, block, &b->m);
}
static void b_dot(bench *b, size_t x) { dot(b, x, x, b->right); }
static void b_dot_strided(bench *b, size_t x) { dot(b, x, N, b->right); }
static void b_dot_stream(bench *b, size_t x) {
    b->at = b->at + 12 * N > STREAM ? 0 : b->at + 6 * N;
    dot(b, x, x, b->right + b->at);
}

static void b_int_vector(bench *b, size_t x) {
    b->k->int_right(b->vector[x], b->wide, 1, 0, b->w[x].columns, 1, &b->w[x], &b->m);
    b->k->int_product(b->wide_r, 1, &b->w[x], 0, b->w[x].rows, b->vector[x], 1, &b->m);
}
static void b_int_right(bench *b, size_t x) {
    b->k->int_right(b->panels[x], b->wide, COLUMNS, 0, b->w[x].columns, COLUMNS, &b->w[x], &b->m);
}
static void b_int_panels(bench *b, size_t x) {
    b->k->int_product(b->wide_r, COLUMNS, &b->w[x], 0, b->w[x].rows, b->panels[x], COLUMNS, &b->m);
}

static const struct row {
    const char *name;
    void (*run)(bench *, size_t);
    size_t x;
} rows[] = {
    {"ntt, N = 1024", b_ntt, 10},
    {"ntt, N = 2048", b_ntt, 11},
    {"ntt", b_ntt, LOG2_N},
    {"ntt, N = 8192", b_ntt, 13},
    {"ntt, N = 16384", b_ntt, 14},
    {"ntt, N = 32768", b_ntt, 15},
    {"ntt, N = 65536", b_ntt, 16},
    {"intt, N = 1024", b_intt, 10},
    {"intt, N = 2048", b_intt, 11},
    {"intt", b_intt, LOG2_N},
    {"intt, N = 8192", b_intt, 13},
    {"intt, N = 16384", b_intt, 14},
    {"intt, N = 32768", b_intt, 15},
    {"intt, N = 65536", b_intt, 16},
    {"add", b_add, N},
    {"sub", b_sub, N},
    {"mul", b_mul, N},
    {"mul_add", b_mul_add, N},
    {"mul_scalar", b_mul_scalar, N},
    {"fix", b_fix, N},
    {"mul_fixed", b_mul_fixed, N},
    {"mul_add_fixed", b_mul_add_fixed, N},
    {"permute", b_permute, N},
    {"keyswitch_product", b_keyswitch_product, N},
    {"gadget_product, N = 16384, 10", b_gadget, 1},
    {"  in order", b_gadget, 0},
    {"  keys from memory", b_gadget_stream, 1},
    {"lift", b_lift, N},
    {"lift_mixed, 2 digits", b_lift_mixed, 2},
    {"  3 digits", b_lift_mixed, 3},
    {"sub_mul_scalar", b_sub_mul, N},
    {"switch_down, 24 bits", b_switch_down, N},
    {"switch_up, 32 bits", b_switch_up, N},
    {"dot_left", b_dot_left, N},
    {"dot_right", b_dot_right, N},
    {"dot2, 4096 terms, block 64", b_dot, 64},
    {"  block 256", b_dot, 256},
    {"  block 256, stride N", b_dot_strided, 256},
    {"  block 64, from memory", b_dot_stream, 64},
    {"  block 256, from memory", b_dot_stream, 256},
    {"int8 768 x 768, a vector", b_int_vector, SMALL8},
    {"int16", b_int_vector, SMALL16},
    {"int8 4096 x 4096, a vector", b_int_vector, LARGE8},
    {"int16", b_int_vector, LARGE16},
    {"int_right, 768 x 256, int8", b_int_right, SMALL8},
    {"int8 768 x 768, 256 columns", b_int_panels, SMALL8},
    {"int16", b_int_panels, SMALL16},
};
#define ROWS (sizeof rows / sizeof *rows)

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Batches that last BATCH_US, so that the clock does not count. */
static double median_us(bench *b, const struct row *row, double *sample, size_t runs) {
    size_t batch = 1;
    for (double t = 0;; batch *= 2) {
        const double start = now_us();
        for (size_t i = 0; i < batch; i++) row->run(b, row->x);
        if ((t = now_us() - start) >= BATCH_US) break;
    }
    size_t count = 0;
    for (const double begin = now_us(); count < runs && (count < 3 || now_us() - begin < BUDGET_US); count++) {
        const double start = now_us();
        for (size_t i = 0; i < batch; i++) row->run(b, row->x);
        sample[count] = (now_us() - start) / (double)batch;
    }
    qsort(sample, count, sizeof *sample, by_size);
    return sample[count / 2];
}

static void *memory(size_t count, size_t size) {
    void *p = hemi_alloc_large(count, size);
    if (!p) {
        fputs("bench_kernels: out of memory\n", stderr);
        exit(3);
    }
    return p;
}

static uint64_t next_random(void) {
    static uint64_t s = 88172645463325252u;
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    return s;
}

static void make_matrices(bench *b) {
    for (size_t i = 0; i < MATRICES; i++) {
        const uint32_t side = i < LARGE8 ? 768 : 4096, size = i % 2 ? 4096 : 256;
        int16_t *w = memory((size_t)side * side, sizeof *w);
        for (size_t j = 0; j < (size_t)side * side; j++) w[j] = (int16_t)(next_random() % size - size / 2);
        if (hemi_int_matrix_init(&b->w[i], side, side, w, NULL) != HEMI_OK) exit(3);
        hemi_free(w);
    }
    b->wide = memory(768 * COLUMNS, sizeof *b->wide);
    b->wide_r = memory(768 * COLUMNS, sizeof *b->wide_r);
    for (size_t i = 0; i < 768 * COLUMNS; i++) b->wide[i] = next_random() % PRIME;
}

/* The same product in float32, by BLAS's sgemv: 0 if there is none. */
static double float32_us(uint32_t side, double *sample, size_t runs) {
    enum { ROW_MAJOR = 101, NO_TRANS = 111 };
    /* which takes a processor that it does not know for a very old one */
    const char *core = hemi_cpu_has_avx512_ifma() ? "SkylakeX" : hemi_cpu_has_avx2_fma() ? "Haswell" : NULL;
    if (core) (void)setenv("OPENBLAS_CORETYPE", core, 1);
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return 0;
    void (*sgemv)(int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
    void (*set_threads)(int);
    *(void **)&sgemv = dlsym(library, "cblas_sgemv");
    *(void **)&set_threads = dlsym(library, "openblas_set_num_threads");
    if (!sgemv || !set_threads) return 0;
    set_threads(1);
    const int n = (int)side;
    float *w = memory((size_t)side * side, sizeof *w), *x = memory(side, sizeof *x), *y = memory(side, sizeof *y);
    for (size_t i = 0; i < (size_t)side * side; i++) w[i] = (float)(next_random() % 256) - 128;
    for (size_t r = 0; r < runs; r++) {
        const double start = now_us();
        sgemv(ROW_MAJOR, NO_TRANS, n, n, 1, w, n, x, 1, 0, y, 1);
        sample[r] = now_us() - start;
    }
    hemi_free(w);
    hemi_free(x);
    hemi_free(y);
    qsort(sample, runs, sizeof *sample, by_size);
    return sample[runs / 2];
}

static void prepare(bench *b, const hemi_kernels *k) {
    const uint64_t p = PRIME;
    b->k = k;
    for (uint32_t i = 10; i <= HEMI_RING_LOG2_N_MAX; i++) {
        hemi_error err;
        if (hemi_ring_new(&b->ring[i], i, &p, 1, k, &err) != HEMI_OK) {
            fprintf(stderr, "bench_kernels: %s\n", err.message);
            exit(3);
        }
    }
    for (size_t i = 0; i < 65536; i++) b->r[i] = next_random() % p;
    for (size_t i = 0; i < N; i++) {
        b->a[i] = next_random() % p;
        b->b[i] = next_random() % p;
    }
    k->fix(b->c, b->b, N, &b->m);
    for (size_t i = 0; i < DIGITS * GADGET_N; i++) b->digit[i] = next_random() % p;
    k->dot_left(b->mixed, b->digit, 3 * N, &b->m);
    for (size_t i = 0; i < 2 * DIGITS * KEYS; i++) k->dot_right(b->keys + i * GADGET_BYTES, b->digit, GADGET_N, &b->m);
    for (size_t i = 0; i < BABIES; i++) {
        k->dot_left(b->left0 + i * N, b->a, N, &b->m);
        k->dot_left(b->left1 + i * N, b->b, N, &b->m);
    }
    for (size_t i = 0; i + 6 * N <= STREAM; i += 6 * N) k->dot_right(b->right + i, b->a, N, &b->m);
    for (size_t i = 0; i < MATRICES; i++) {
        hemi_free(b->vector[i]);
        hemi_free(b->panels[i]);
        b->vector[i] = memory(k->int_right_bytes(&b->w[i], 1), 1);
        b->panels[i] = memory(k->int_right_bytes(&b->w[i], COLUMNS), 1);
        if (i < LARGE8) b_int_right(b, i);
    }
}

int main(int argc, char **argv) {
    const size_t runs = argc > 1 && atoi(argv[1]) > 0 ? (size_t)atoi(argv[1]) : 201;
    static double figure[ROWS][TABLES];
    double *sample = memory(runs, sizeof *sample);
    bench b = {.right = memory(STREAM, 1)};
    uint64_t **const vectors[] = {&b.a, &b.b, &b.c, &b.r, &b.s, &b.left0, &b.left1};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) *vectors[i] = memory(65536, sizeof(uint64_t));
    b.digit = memory(DIGITS * GADGET_N, sizeof *b.digit);
    b.mixed = memory(3 * N, sizeof *b.mixed);
    b.keys = memory(2 * KEYS * DIGITS * GADGET_BYTES, 1);
    b.gadget_index = memory(GADGET_N, sizeof *b.gadget_index);
    hemi_ring_automorphism_index(b.gadget_index, 14, 5);
    b.index = memory(N, sizeof *b.index);
    hemi_ring_automorphism_index(b.index, LOG2_N, 5);
    if (!hemi_modulus_init(&b.m, PRIME) || !hemi_modulus_init(&b.to, TO)) return 3;

    make_matrices(&b);

    size_t tables = 0;
    printf("%s; microseconds, median of %zu\n%-30s", hemi_cpu_name(), runs, "N = 4096");
    for (; tables < TABLES && hemi_kernels_at(tables); tables++) {
        prepare(&b, hemi_kernels_at(tables));
        for (size_t i = 0; i < ROWS; i++) figure[i][tables] = median_us(&b, &rows[i], sample, runs);
        for (uint32_t i = 10; i <= HEMI_RING_LOG2_N_MAX; i++) hemi_ring_free(b.ring[i]);
        printf(" %10s", b.k->name);
        fflush(stdout);
    }
    for (size_t i = 0; i < ROWS; i++) {
        printf("\n%-30s", rows[i].name);
        for (size_t t = 0; t < tables; t++) printf(" %10.2f", figure[i][t]);
    }
    printf("\nfloat32 (OpenBLAS), a vector: 768 x 768 %.2f, 4096 x 4096 %.2f\n", float32_us(768, sample, runs),
           float32_us(4096, sample, runs));
    for (size_t i = 0; i < MATRICES; i++) {
        hemi_int_matrix_clear(&b.w[i]);
        hemi_free(b.vector[i]);
        hemi_free(b.panels[i]);
    }
    hemi_free(b.wide);
    hemi_free(b.wide_r);
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) hemi_free(*vectors[i]);
    hemi_free(b.digit);
    hemi_free(b.mixed);
    hemi_free(b.keys);
    hemi_free(b.gadget_index);
    hemi_free(b.index);
    hemi_free(b.right);
    hemi_free(sample);
    return 0;
}
