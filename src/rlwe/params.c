/* The table of parameter sets. A row is added only with an estimate of its own (include/hemi/params.h says how), and
 * tests/test_params.c holds every row to the limits. */
#include <string.h>

#include "hemi/params.h"

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
