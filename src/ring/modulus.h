/* Arithmetic modulo a prime p < 2^50, portable. Residues are canonical: in [0, p). */
#ifndef HEMI_RING_MODULUS_H
#define HEMI_RING_MODULUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEMI_MODULUS_BITS_MAX 50

typedef struct hemi_modulus {
    uint64_t p;          /* odd prime, 3 <= p < 2^50 */
    unsigned bits;       /* bit length of p */
    uint64_t barrett_lo; /* floor(2^128 / p), 128 bits */
    uint64_t barrett_hi;
    double value;       /* (double)p, exact */
    double inverse;     /* 1 / p, rounded */
    uint64_t inverse64; /* p^-1 mod 2^64 */
    uint64_t mont52;    /* -p^-1 mod 2^52 */
    uint64_t r52;       /* 2^52 mod p */
} hemi_modulus;

/* False unless p is an odd prime below 2^50. */
bool hemi_modulus_init(hemi_modulus *m, uint64_t p);
bool hemi_is_prime(uint64_t n); /* deterministic Miller-Rabin, n < 2^64 */

__extension__ typedef unsigned __int128 hemi_u128;

/* All ones or all zeros, of a condition on secrets. clang makes branches of masks whose origin it knows, in loops where it thinks them cheaper; gcc does not
 * (tests/constant_time.sh), and vectorises what it knows. */
static inline uint64_t hemi_mask(bool condition) {
    uint64_t mask = 0 - (uint64_t)condition;
#if defined(__clang__)
    __asm__("" : "+r"(mask));
#endif
    return mask;
}

/* x mod p for any x < 2^128 (Barrett with a 128-bit reciprocal; exact). Constant time. */
static inline uint64_t hemi_mod_reduce128(hemi_u128 x, const hemi_modulus *m) {
    const uint64_t x0 = (uint64_t)x, x1 = (uint64_t)(x >> 64);
    /* q = floor(x * floor(2^128/p) / 2^128), short of the true quotient by at most 2 */
    const hemi_u128 a = (hemi_u128)x0 * m->barrett_lo;
    const hemi_u128 b = (hemi_u128)x0 * m->barrett_hi;
    const hemi_u128 c = (hemi_u128)x1 * m->barrett_lo;
    const hemi_u128 mid = (a >> 64) + (uint64_t)b + (uint64_t)c;
    const uint64_t q = (uint64_t)(b >> 64) + (uint64_t)(c >> 64) + (uint64_t)(mid >> 64) + x1 * m->barrett_hi;
    uint64_t r = x0 - q * m->p; /* < 3p < 2^52 */
    r -= m->p & hemi_mask(r >= m->p);
    r -= m->p & hemi_mask(r >= m->p);
    return r;
}
static inline uint64_t hemi_mod_mul(uint64_t a, uint64_t b, const hemi_modulus *m) {
    return hemi_mod_reduce128((hemi_u128)a * b, m);
}
static inline uint64_t hemi_mod_add(uint64_t a, uint64_t b, const hemi_modulus *m) {
    const uint64_t s = a + b;
    return s - (m->p & hemi_mask(s >= m->p));
}
static inline uint64_t hemi_mod_sub(uint64_t a, uint64_t b, const hemi_modulus *m) {
    const uint64_t d = a - b;
    return d + (m->p & hemi_mask(a < b));
}
static inline uint64_t hemi_mod_neg(uint64_t a, const hemi_modulus *m) { return (m->p - a) & hemi_mask(a != 0); }
/* Canonical residue of a signed number of any size. */
static inline uint64_t hemi_mod_from_signed(int64_t v, const hemi_modulus *m) {
    const uint64_t negative = hemi_mask(v < 0) & 1;
    const uint64_t magnitude = ((uint64_t)v ^ (0 - negative)) + negative;
    const uint64_t r = hemi_mod_reduce128(magnitude, m);
    return (hemi_mod_neg(r, m) & (0 - negative)) | (r & (negative - 1));
}
/* Centred representative in (-p/2, p/2]; p is odd, so there is no tie. */
static inline int64_t hemi_mod_centre(uint64_t a, const hemi_modulus *m) {
    return (int64_t)(a - (m->p & hemi_mask(a > m->p / 2)));
}
uint64_t hemi_mod_pow(uint64_t base, uint64_t exponent, const hemi_modulus *m);
uint64_t hemi_mod_inverse(uint64_t a, const hemi_modulus *m); /* a != 0 */
/* The pinned primitive 2n-th root of unity: g^((p-1)/2n) for the least g >= 2 for which its n-th power is -1.
 * n a power of two; 0 if p != 1 mod 2n. */
uint64_t hemi_mod_root(const hemi_modulus *m, uint64_t n);

#endif
