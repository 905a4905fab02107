/* hemi bench ckks: the operations of a levelled set, one by one. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "ckks/encoder.h"
#include "ckks/noise.h"
#include "cli/bench_common.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "ring/kernels.h"
#include "secret/ckks.h"
#include "wire/ckks_load.h"

#define ROTATIONS     8 /* by 1, 2, 4, ...: each with a key of its own */
#define REPEAT_MIN    9
#define REPEAT_MAX    1000
#define REPEAT_BUDGET 600.0 /* ms of one operation, when --repeat does not say */
#define WRONG_SIGMAS  24    /* of a slot under one key: its share of what is rounded goes with |s(zeta)|^2, exponentially distributed */
#define WRONG_RMS     1.3

typedef struct bench {
    long limbs, threads, repeat;
    const char *set, *kernel;
    bool json;

    const hemi_ckks_context *ctx;
    hemi_team *team;
    hemi_ckks_secret *secret;
    hemi_ckks_keys *keys;
    hemi_ckks_workspace *w;
    uint32_t t[ROTATIONS];
    double *re, *im, *x, *y, *work; /* x, y: what is computed with; re, im: what is decrypted */
    int64_t *coefficients;
    uint8_t *wire;
    uint64_t *pt;               /* y at the scale of the last prime */
    hemi_ckks_cipher a, b, raised, r[ROTATIONS]; /* x, y, x y before it is rescaled, results */
    double scale, last;         /* last: the last prime */
    double keygen_ms, key_load_ms;
    size_t key_wire_bytes, all_wire_bytes;
} bench;

typedef struct operation {
    const char *name, *key; /* for the table, in JSON */
    hemi_status (*run)(bench *b, size_t round, hemi_error *err);
    double (*expected)(const bench *b, size_t slot); /* of b->r[0] */
    double (*variance)(const bench *b);
} operation;

typedef struct figures {
    double ms, ms_min, cpu_ms, rms, predicted;
    size_t repeat, wrong;
} figures;

/* ---- operations */

static hemi_status encode(bench *b, size_t round, hemi_error *err) {
    (void)round;
    if (!hemi_ckks_embed(b->coefficients, b->ctx->encoder, b->scale, b->x, NULL, b->work)) return hemi_fail(err, HEMI_ERR_INTERNAL, "encoding failed");
    for (uint32_t i = 0; i < (uint32_t)b->limbs; i++)
        hemi_ckks_residues(b->r[0].c0 + (size_t)i * b->ctx->n, b->coefficients, hemi_ckks_limb(b->ctx, i), b->ctx->k);
    memset(b->r[0].c1, 0, b->ctx->n * sizeof *b->r[0].c1);
    b->r[0].scale = b->scale;
    return HEMI_OK;
}

static hemi_status encrypt(bench *b, size_t round, hemi_error *err) {
    (void)round;
    return hemi_ckks_secret_encrypt(b->secret, b->x, b->scale, (uint32_t)b->limbs, b->wire, err);
}

static hemi_status load(bench *b, size_t round, hemi_error *err) {
    (void)round, (void)err;
    hemi_ckks_ciphertext_load(&b->r[0], b->ctx, b->wire, (uint32_t)b->limbs, b->scale, b->team);
    return HEMI_OK;
}

/* Coefficients of one limb, as a reply holds them, to slots. */
static hemi_status decrypt_coefficients(bench *b, const uint64_t *c0, const uint64_t *c1, double scale, hemi_error *err) {
    HEMI_TRY(hemi_ckks_secret_decrypt(b->secret, c0, c1, b->coefficients, err));
    hemi_ckks_unembed(b->re, b->im, b->ctx->encoder, scale, b->coefficients, b->work);
    return HEMI_OK;
}

static hemi_status decrypt_last(bench *b, size_t round, hemi_error *err) {
    (void)round;
    return decrypt_coefficients(b, b->r[1].c0, b->r[1].c1, b->scale, err);
}

static hemi_status by_plaintext(bench *b, size_t round, hemi_error *err) {
    (void)round, (void)err;
    hemi_ckks_mul_plain(b->w, &b->raised, &b->a, b->pt, b->last);
    return HEMI_OK;
}

static hemi_status rescale(bench *b, size_t round, hemi_error *err) {
    (void)round, (void)err;
    hemi_ckks_rescale(b->w, &b->r[0], &b->raised);
    return HEMI_OK;
}

static hemi_status rotate(bench *b, size_t round, hemi_error *err) {
    return hemi_ckks_automorphism(b->w, &b->r[round % ROTATIONS], &b->a, b->t[round % ROTATIONS], b->keys, err);
}

static hemi_status rotate_all(bench *b, size_t round, hemi_error *err) {
    (void)round;
    return hemi_ckks_automorphisms(b->w, b->r, &b->a, b->t, ROTATIONS, b->keys, err);
}

static hemi_status multiply(bench *b, size_t round, hemi_error *err) {
    (void)round;
    return hemi_ckks_mul_rescale(b->w, &b->r[0], &b->a, &b->b, b->keys, err);
}

static double itself(const bench *b, size_t i) { return b->x[i]; }
static double turned(const bench *b, size_t i) { return b->x[(i + 1) % b->ctx->slots]; }
static double product(const bench *b, size_t i) { return b->x[i] * b->y[i]; }

static double slots(const bench *b, double variance) { return hemi_ckks_noise_slots(b->ctx->params, variance, b->scale); }
static double of_encoding(const bench *b) { return slots(b, HEMI_CKKS_NOISE_ENCODING); }
static double of_fresh(const bench *b) { return slots(b, hemi_ckks_noise_fresh()); }
static double of_rotation(const bench *b) {
    return of_fresh(b) + slots(b, hemi_ckks_noise_keyswitch(b->ctx->params, (uint32_t)b->limbs));
}
/* x and y are uniform in [-1, 1]: their mean squares are 1/3. */
static double of_plaintext(const bench *b) { return of_fresh(b) / 3 + slots(b, hemi_ckks_noise_rescaling(b->ctx->params)); }
static double of_product(const bench *b) {
    const double fresh = of_fresh(b), divided = slots(b, hemi_ckks_noise_rescaling(b->ctx->params));
    return hemi_ckks_noise_product(1.0 / 3, fresh, 1.0 / 3, fresh) + divided;
}

static const operation operations[] = {
    {"encode", "encode", encode, itself, of_encoding},
    {"encrypt", "encrypt", encrypt, NULL, NULL},
    {"load what was encrypted", "load", load, itself, of_fresh},
    {"decrypt", "decrypt", decrypt_last, NULL, NULL},
    {"plaintext product", "plaintext_product", by_plaintext, NULL, NULL},
    {"rescale", "rescale", rescale, product, of_plaintext},
    {"rotation", "rotation", rotate, turned, of_rotation},
    {"8 rotations, hoisted", "hoisted", rotate_all, turned, of_rotation},
    {"product, relinearised, rescaled", "product", multiply, product, of_product},
};
#define OPERATIONS (sizeof operations / sizeof *operations)

/* ---- measuring */

static hemi_status measure(figures *f, bench *b, const operation *o, hemi_error *err) {
    double *ms = hemi_alloc(2 * REPEAT_MAX, sizeof *ms), *cpu = ms + REPEAT_MAX;
    if (!ms) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    hemi_status s = HEMI_OK;
    f->repeat = ROTATIONS; /* until it is known: a warm-up, in which every key is used */
    for (int warm = 0; warm < 2; warm++) {
        const double begun = hemi_now_ms();
        for (size_t i = 0; i < f->repeat && s == HEMI_OK; i++) {
            const double start = hemi_now_ms(), start_cpu = cli_process_cpu_ms();
            s = o->run(b, i, err);
            cpu[i] = cli_process_cpu_ms() - start_cpu;
            ms[i] = hemi_now_ms() - start;
        }
        const double fit = REPEAT_BUDGET * ROTATIONS / fmax(hemi_now_ms() - begun, 1e-3);
        if (warm == 0) f->repeat = b->repeat ? (size_t)b->repeat : fit < REPEAT_MIN ? REPEAT_MIN : fit > REPEAT_MAX ? REPEAT_MAX : (size_t)fit;
    }
    f->ms = cli_median(ms, f->repeat);
    f->ms_min = ms[0]; /* sorted by now */
    f->cpu_ms = cli_median(cpu, f->repeat);
    hemi_free(ms);
    return s;
}

/* r[0] decrypted: its first limb says what it holds. */
static hemi_status check(figures *f, bench *b, const operation *o, hemi_error *err) {
    const hemi_limb *l = hemi_ckks_limb(b->ctx, 0);
    const size_t bytes = b->ctx->n * sizeof *b->r[1].c0;
    double squares = 0;
    memcpy(b->r[1].c0, b->r[0].c0, bytes);
    memcpy(b->r[1].c1, b->r[0].c1, bytes);
    b->ctx->k->intt(b->r[1].c0, b->r[1].c0, l);
    b->ctx->k->intt(b->r[1].c1, b->r[1].c1, l);
    HEMI_TRY(decrypt_coefficients(b, b->r[1].c0, b->r[1].c1, b->r[0].scale, err));
    f->predicted = sqrt(o->variance(b));
    for (uint32_t i = 0; i < b->ctx->slots; i++) {
        const double re = b->re[i] - o->expected(b, i), im = b->im[i];
        squares += re * re + im * im;
        if (!(fabs(re) <= WRONG_SIGMAS * f->predicted && fabs(im) <= WRONG_SIGMAS * f->predicted)) f->wrong++;
    }
    f->rms = sqrt(squares / (2.0 * b->ctx->slots));
    if (!(f->rms <= WRONG_RMS * f->predicted)) f->wrong = b->ctx->slots;
    return HEMI_OK;
}

static hemi_status measure_all(figures f[OPERATIONS], bench *b, hemi_error *err) {
    for (size_t i = 0; i < OPERATIONS; i++) {
        f[i] = (figures){0};
        HEMI_TRY(measure(&f[i], b, &operations[i], err));
        if (operations[i].expected) HEMI_TRY(check(&f[i], b, &operations[i], err));
    }
    return HEMI_OK;
}

/* ---- keys, numbers, memory */

static hemi_status make_keys(bench *b, hemi_error *err) {
    const hemi_params *p = b->ctx->params;
    const uint32_t limbs = (uint32_t)b->limbs;
    uint32_t sorted[ROTATIONS + 2] = {HEMI_CKKS_KEY_PUBLIC, HEMI_CKKS_KEY_PRODUCT};
    for (size_t i = 0; i < ROTATIONS; i++) {
        size_t at = i + 2;
        b->t[i] = hemi_ckks_rotation(b->ctx, INT64_C(1) << i);
        for (; sorted[at - 1] > b->t[i]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = b->t[i];
    }
    b->all_wire_bytes = hemi_ckks_keys_bytes(p, limbs, ROTATIONS + 2);
    b->key_wire_bytes = hemi_ckks_key_entry_bytes(p, limbs, sorted[2]);
    uint8_t *wire = hemi_alloc_large(b->all_wire_bytes, 1), *at = wire + HEMI_CKKS_KEYS_HEADER_BYTES;
    if (!wire) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for keys");
    hemi_ckks_keys_write_header(wire, p, limbs, ROTATIONS + 2);
    hemi_status s = HEMI_OK;
    const double start = hemi_now_ms();
    for (size_t i = 0; i < ROTATIONS + 2 && s == HEMI_OK; i++) {
        s = hemi_ckks_secret_make_key(b->secret, limbs, sorted[i], at, err);
        at += hemi_ckks_key_entry_bytes(p, limbs, sorted[i]);
    }
    const double made = hemi_now_ms();
    if (s == HEMI_OK) s = hemi_ckks_keys_load(&b->keys, wire, b->all_wire_bytes, b->team, err);
    b->keygen_ms = (made - start) / (ROTATIONS + 1); /* the public key is next to nothing */
    b->key_load_ms = (hemi_now_ms() - made) / (ROTATIONS + 1);
    hemi_free(wire);
    return s;
}

static hemi_status allocate(bench *b, hemi_error *err) {
    const size_t n = b->ctx->n;
    const uint32_t limbs = (uint32_t)b->limbs;
    b->re = hemi_alloc(4 * (n / 2) + n, sizeof *b->re);
    b->coefficients = hemi_alloc(n, sizeof *b->coefficients);
    b->wire = hemi_alloc(hemi_ckks_ciphertext_bytes(b->ctx->params, limbs), 1);
    b->pt = hemi_alloc_large(limbs * n, sizeof *b->pt);
    if (!b->re || !b->coefficients || !b->wire || !b->pt) return hemi_fail(err, HEMI_ERR_MEMORY, "out of memory");
    b->im = b->re + n / 2, b->x = b->im + n / 2, b->y = b->x + n / 2, b->work = b->y + n / 2;
    hemi_ckks_cipher *all[] = {&b->a, &b->b, &b->raised};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) HEMI_TRY(hemi_ckks_cipher_init(all[i], b->ctx, limbs, err));
    for (size_t i = 0; i < ROTATIONS; i++) HEMI_TRY(hemi_ckks_cipher_init(&b->r[i], b->ctx, limbs, err));
    return hemi_ckks_workspace_new(&b->w, b->ctx, limbs, b->team, err);
}

static hemi_status fill(bench *b, hemi_error *err) {
    const uint32_t limbs = (uint32_t)b->limbs;
    cli_random random = {1};
    for (uint32_t i = 0; i < b->ctx->slots; i++) {
        b->x[i] = (double)(int64_t)cli_random_next(&random) * 0x1p-63;
        b->y[i] = (double)(int64_t)cli_random_next(&random) * 0x1p-63;
    }
    b->last = (double)hemi_ckks_limb(b->ctx, limbs - 1)->m.p;
    b->scale = ldexp(1, (int)b->ctx->params->scale_bits);
    if (!hemi_ckks_embed(b->coefficients, b->ctx->encoder, b->last, b->y, NULL, b->work)) return hemi_fail(err, HEMI_ERR_INTERNAL, "encoding failed");
    for (uint32_t i = 0; i < limbs; i++) hemi_ckks_residues(b->pt + (size_t)i * b->ctx->n, b->coefficients, hemi_ckks_limb(b->ctx, i), b->ctx->k);
    HEMI_TRY(hemi_ckks_secret_encrypt(b->secret, b->x, b->scale, limbs, b->wire, err));
    hemi_ckks_ciphertext_load(&b->a, b->ctx, b->wire, limbs, b->scale, b->team);
    HEMI_TRY(hemi_ckks_secret_encrypt(b->secret, b->y, b->scale, limbs, b->wire, err));
    hemi_ckks_ciphertext_load(&b->b, b->ctx, b->wire, limbs, b->scale, b->team);
    return HEMI_OK;
}

static void release(bench *b) {
    hemi_ckks_workspace_free(b->w);
    for (size_t i = 0; i < ROTATIONS; i++) hemi_ckks_cipher_clear(&b->r[i]);
    hemi_ckks_cipher_clear(&b->a);
    hemi_ckks_cipher_clear(&b->b);
    hemi_ckks_cipher_clear(&b->raised);
    hemi_free(b->re);
    hemi_free(b->coefficients);
    hemi_free(b->wire);
    hemi_free(b->pt);
    hemi_ckks_keys_free(b->keys);
    hemi_ckks_secret_free(b->secret);
    hemi_team_free(b->team);
}

static hemi_status run(bench *b, figures f[OPERATIONS], hemi_error *err) {
    HEMI_TRY(cli_choose_kernel(b->kernel, err));
    const hemi_params *p = hemi_params_by_name(b->set);
    if (!p || p->chain == 0) return hemi_fail(err, HEMI_ERR_PARAMS, "there is no levelled set '%.40s'; `hemi version --json` lists those there are", b->set);
    if (b->limbs == 0) b->limbs = p->chain < 9 ? p->chain : 9;
    if (b->limbs < 2 || b->limbs > (long)p->chain) return hemi_fail(err, HEMI_ERR_ARGUMENT, "set %s takes 2 to %u limbs", p->name, p->chain);
    HEMI_TRY(hemi_ckks_context_shared(&b->ctx, p, err));
    if (!(b->team = hemi_team_new((int)b->threads))) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for threads");
    b->threads = hemi_team_size(b->team);
    HEMI_TRY(hemi_ckks_secret_new(&b->secret, b->ctx, err));
    HEMI_TRY(make_keys(b, err));
    HEMI_TRY(allocate(b, err));
    HEMI_TRY(fill(b, err));
    return measure_all(f, b, err);
}

/* ---- the report */

static int print_json(const bench *b, const figures *f) {
    json_t *all = json_object();
    for (size_t i = 0; i < OPERATIONS; i++) {
        json_t *one = json_pack("{s:f,s:f,s:f,s:I}", "ms", f[i].ms, "ms_min", f[i].ms_min, "cpu_ms", f[i].cpu_ms, "repeat", (json_int_t)f[i].repeat);
        if (operations[i].expected)
            json_object_update_missing(one, json_pack("{s:f,s:f,s:I}", "error", f[i].rms, "predicted_error", f[i].predicted, "wrong", (json_int_t)f[i].wrong));
        json_object_set_new(all, operations[i].key, one);
    }
    return cli_print_json(json_pack("{s:s,s:I,s:s,s:s,s:I,s:o,s:f,s:f,s:I,s:I,s:I,s:I}", "set", b->ctx->params->name, "limbs", (json_int_t)b->limbs,
                                    "kernel", hemi_kernels_default()->name, "cpu", hemi_cpu_name(), "threads", (json_int_t)b->threads, "operations", all,
                                    "keygen_ms", b->keygen_ms, "key_load_ms", b->key_load_ms, "key_bytes", (json_int_t)b->key_wire_bytes,
                                    "server_key_bytes", (json_int_t)(b->keys->bytes / (ROTATIONS + 1)), "keys_bytes", (json_int_t)b->all_wire_bytes,
                                    "ciphertext_bytes", (json_int_t)hemi_ckks_ciphertext_bytes(b->ctx->params, (uint32_t)b->limbs)));
}

static int print_table(const bench *b, const figures *f) {
    static const char *const headings[] = {"operation", "ms", "least", "processor", "error of slots", "of predicted"};
    char one[24], memory[24], cipher[24];
    cli_table table;
    printf("set %s, %ld limbs; %s, kernel %s, %ld thread%s\n\n", b->ctx->params->name, b->limbs, hemi_cpu_name(), hemi_kernels_default()->name,
           b->threads, b->threads == 1 ? "" : "s");
    cli_table_start(&table, sizeof headings / sizeof *headings, headings);
    for (size_t i = 0; i < OPERATIONS; i++) {
        cli_table_cell(&table, "%s", operations[i].name);
        cli_table_cell(&table, "%.3f", f[i].ms);
        cli_table_cell(&table, "%.3f", f[i].ms_min);
        cli_table_cell(&table, "%.3f", f[i].cpu_ms);
        cli_table_cell(&table, operations[i].expected ? "2^%.2f" : "", log2(fmax(f[i].rms, 1e-300)));
        cli_table_cell(&table, operations[i].expected ? "%.3f" : "", f[i].rms / fmax(f[i].predicted, 1e-300));
    }
    cli_table_print(&table);
    printf("\n");
    cli_line("a key", "%s, %s in memory; made in %.1f ms, loaded in %.1f ms", cli_bytes(one, b->key_wire_bytes),
             cli_bytes(memory, b->keys->bytes / (ROTATIONS + 1)), b->keygen_ms, b->key_load_ms);
    cli_line("a ciphertext", "%s", cli_bytes(cipher, hemi_ckks_ciphertext_bytes(b->ctx->params, (uint32_t)b->limbs)));
    return 0;
}

static int report(const bench *b, const figures *f) {
    const int code = b->json ? print_json(b, f) : print_table(b, f);
    size_t wrong = 0;
    for (size_t i = 0; i < OPERATIONS; i++) wrong += f[i].wrong;
    if (wrong == 0) return code;
    fprintf(stderr, "hemi bench ckks: WRONG: %zu slots are further off than noise explains\n", wrong);
    return -HEMI_ERR_INTERNAL;
}

int bench_ckks(int argc, char **argv) {
    bench b = {.threads = 1, .set = "C16384"};
    figures f[OPERATIONS];
    const cli_option options[] = {{"set", 's', "NAME", CLI_TEXT, &b.set, 0, 0, "levelled parameter set (default C16384)"},
                                  {"limbs", 'l', "L", CLI_INT, &b.limbs, 0, HEMI_CKKS_CHAIN_MAX, "primes of ciphertexts (default 9, or all there are)"},
                                  {"threads", 't', "T", CLI_INT, &b.threads, 0, 1024, "threads for one operation (default 1; 0: all)"},
                                  {"kernel", 'k', "NAME", CLI_TEXT, &b.kernel, 0, 0, "portable, avx2 or avx512 (default: the best here)"},
                                  {"repeat", 'n', "N", CLI_INT, &b.repeat, REPEAT_MIN, REPEAT_MAX, "timed runs of each (default: about 0.6 s of them)"},
                                  {0}};
    const cli_command command = {.name = "bench ckks",
                                 .summary = "Measures the operations of a levelled set on this machine, and checks their results.",
                                 .detail = "Each rotation takes another key, as in a circuit. Errors are standard deviations over slots, numbers in [-1, 1];\n"
                                           "predicted ones follow from the parameters. Exits with 20 when a result is wrong.",
                                 .options = options,
                                 .example = "  hemi bench ckks --set C16384 --limbs 9\n  hemi bench ckks --set C8192 --threads 2 --kernel avx2 --json",
                                 .json = &b.json};
    const cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED) return parsed == CLI_HELPED ? 0 : CLI_EXIT_USAGE;
    hemi_error err = {0};
    const hemi_status status = run(&b, f, &err);
    const int code = status == HEMI_OK ? report(&b, f) : cli_fail("bench ckks", b.json, status, &err);
    release(&b);
    return code;
}
