/* The table of parameter sets. A row is added only with an estimate of its own (include/hemi/params.h says how), and
 * tests/test_params.c holds every row to the limits. */
#include <string.h>

#include "hemi/params.h"

/* Levelled sets: the base, primes of levels in the order of their distance from 2^scale_bits, special primes. */
static const uint64_t primes_8192[] = {0xfffffdc001, 0x80014001, 0x7ffe0001, 0x7ffbc001, 0x7ff9c001, 0xfffffffc001};
static const uint64_t primes_16384[] = {0x3fffffa8001, 0x400018001, 0x3fffd0001, 0x400060001, 0x3fff90001, 0x400068001,
                                        0x400080001,   0x4000a8001, 0x400108001, 0x3ffeb8001, 0x3ffff48001, 0x3ffff28001};
static const uint64_t primes_16384_deep[] = {0xffffe80001, 0x7ffe0001, 0x7ff80001, 0x7fee8001, 0x80130001, 0x80140001, 0x7fea0001,
                                             0x7fe90001,    0x80238001, 0x7fd98001, 0x7fd88001, 0x80278001, 0x7fffffd8001};
static const uint64_t primes_16384_middle[] = {0xffffe80001, 0x7ffe0001, 0x7ff80001,  0x7fee8001, 0x80130001,   0x80140001,  0x7fea0001,
                                               0x7fe90001,   0x80238001, 0x7fd98001,  0x7fd88001, 0x1ffffe0001, 0x1ffffc0001};
static const uint64_t primes_32768[] = {0x3ffffff70001, 0x1000090001, 0xffff00001,  0x10000f0001, 0x1000270001, 0xfffbb0001,
                                        0x10004a0001,   0x1000500001, 0x1000590001, 0xfffa50001,  0xfff9c0001,  0xfff910001,
                                        0xfff8e0001,    0xfff850001,  0xfff840001,  0x1000870001, 0xfff700001,  0xfff6f0001,
                                        0xfff690001,    0x1000960001, 0xfff640001,  0x3ffffe80001, 0x3ffffd20001};
static const uint64_t primes_65536[] = {
    0xfffffffa0001, 0x3fffe80001, 0x4000300001, 0x3fffb80001, 0x40004a0001, 0x3fffb20001, 0x4000540001, 0x4000560001, 0x3fff900001,
    0x3fff8e0001,   0x4000720001, 0x4000800001, 0x40008a0001, 0x3fff6c0001, 0x40009e0001, 0x3fff300001, 0x3fff1c0001, 0x4000fc0001,
    0x4001080001,   0x40011a0001, 0x3ffeda0001, 0x4001380001, 0x3ffeb20001, 0x3ffea60001, 0x3ffe880001, 0x4001760001, 0x3ffe820001,
    0x3ffe680001,   0x4001980001, 0x4001a60001, 0x4001b00001, 0x4001b20001, 0x4001b60001, 0x3ffe440001, 0x3ffe220001, 0x3ffe1c0001,
    0x4002060001,   0x4002180001, 0x40021e0001, 0x3ffdde0001, 0x4002240001, 0xffffe80001, 0xffffc40001, 0xffffb20001, 0xffff940001};

static const hemi_params table[] = {
    /* Key switching, default. log2(qP) = 98.0: at most 106 for 128 bits. */
    {.id = 1,
     .name = "L4096",
     .log2_n = 12,
     .q = 0xfffffffa0001,
     .special = 0x3ffffffd20001,
     .log2_modulus = 97.99999999412170,
     .security_bits = 140.3,
     .reply = &table[2]},
    /* No key switching: small layers only. log2(q) = 48.0: at most 53 for 128 bits. Estimated at 50 bits. */
    {.id = 2,
     .name = "L2048",
     .log2_n = 11,
     .q = 0xfffffffa0001,
     .special = 0,
     .log2_modulus = 47.99999999798458,
     .security_bits = 137.1},
    /* Replies of L4096, switched to half the degree (rlwe/ringswitch.h). q is all there is: the key from the one ring to the other is
     * over q too. log2(q) = 46.0: at most 53 for 128 bits. Estimated at 50 bits. q = 1 mod 2^28. */
    {.id = 3,
     .name = "R2048",
     .log2_n = 11,
     .q = 0x3fffa0000001,
     .special = 0,
     .log2_modulus = 45.99996697895318,
     .security_bits = 137.1,
     .reply_only = true},
    /* For weights of more bits: rotations of inputs hold next to no noise. log2(qP) = 96.0: at most 106 for 128 bits. Estimated at 98
     * bits. */
    {.id = 4,
     .name = "L4096P",
     .log2_n = 12,
     .q = 0xfffffffa0001,
     .special = 0xfffffff00001,
     .log2_modulus = 95.99999999261013,
     .security_bits = 140.3,
     .baby_digits = 2,
     .digit_bits = 24},
    /* Levelled sets. C8192: 4 levels of 31 bits. log2(QP) = 208.0: at most 214 for 128 bits. */
    {.id = 16, .name = "C8192", .log2_n = 13, .q = 0xfffffdc001, .special = 0xfffffffc001, .log2_modulus = 207.99950445571190,
     .security_bits = 132.0, .chain = 5, .specials = 1, .digit_limbs = 1, .scale_bits = 31, .prime = primes_8192},
    /* 9 levels of 34 bits. log2(QP) = 424.0: at most 430 for 128 bits. */
    {.id = 17, .name = "C16384", .log2_n = 14, .q = 0x3fffffa8001, .special = 0x3ffff48001, .log2_modulus = 424.00009308656024,
     .security_bits = 130.1, .chain = 10, .specials = 2, .digit_limbs = 2, .scale_bits = 34, .prime = primes_16384},
    /* 11 levels of 31 bits, and so a digit for every prime. log2(QP) = 424.0: at most 430 for 128 bits. */
    {.id = 18, .name = "C16384D", .log2_n = 14, .q = 0xffffe80001, .special = 0x7fffffd8001, .log2_modulus = 423.99838552846057,
     .security_bits = 130.2, .chain = 12, .specials = 1, .digit_limbs = 1, .scale_bits = 31, .prime = primes_16384_deep},
    /* 10 levels of 31 bits, digits of two primes. log2(QP) = 424.0: at most 430 for 128 bits. */
    {.id = 21, .name = "C16384M", .log2_n = 14, .q = 0xffffe80001, .special = 0x1ffffe0001, .log2_modulus = 423.99664338587593,
     .security_bits = 130.2, .chain = 11, .specials = 2, .digit_limbs = 2, .scale_bits = 31, .prime = primes_16384_middle},
    /* 20 levels of 36 bits. log2(QP) = 850.0: at most 868 for 128 bits. */
    {.id = 19, .name = "C32768", .log2_n = 15, .q = 0x3ffffff70001, .special = 0x3ffffe80001, .log2_modulus = 849.99896230884963,
     .security_bits = 130.8, .chain = 21, .specials = 2, .digit_limbs = 2, .scale_bits = 36, .prime = primes_32768},
    /* 40 levels of 38 bits. log2(QP) = 1728.0: 1730 gives 129.3 bits. */
    {.id = 20, .name = "C65536", .log2_n = 16, .q = 0xfffffffa0001, .special = 0xffffe80001, .log2_modulus = 1728.00049804775222,
     .security_bits = 129.3, .chain = 41, .specials = 4, .digit_limbs = 4, .scale_bits = 38, .prime = primes_65536},
};

#define ROWS (sizeof table / sizeof table[0])

size_t hemi_params_count(void) { return ROWS; }

const hemi_params *hemi_params_at(size_t i) { return i < ROWS ? &table[i] : NULL; }

const hemi_params *hemi_params_by_id(uint32_t id) {
    for (size_t i = 0; i < ROWS; i++)
        if (table[i].id == id) return &table[i];
    return NULL;
}

const hemi_params *hemi_params_by_name(const char *name) {
    if (name != NULL && strcmp(name, "precise") == 0) name = "L4096P";
    for (size_t i = 0; name != NULL && i < ROWS; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}
