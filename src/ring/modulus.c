#include "ring/modulus.h"

/* floor(2^128 / p) by long division in 64-bit digits. */
static hemi_u128 reciprocal(uint64_t p) {
    const hemi_u128 all = ~(hemi_u128)0; /* 2^128 - 1; p is odd and > 1, so floor(2^128/p) = floor((2^128-1)/p) */
    return all / p;
}

bool hemi_modulus_init(hemi_modulus *m, uint64_t p) {
    if (p < 3 || (p & 1) == 0 || p >> HEMI_MODULUS_BITS_MAX || !hemi_is_prime(p)) return false;
    m->p = p;
    m->bits = 64u - (unsigned)__builtin_clzll(p);
    const hemi_u128 r = reciprocal(p);
    m->barrett_lo = (uint64_t)r;
    m->barrett_hi = (uint64_t)(r >> 64);
    m->value = (double)p;
    m->inverse = 1.0 / (double)p;
    uint64_t x = 1; /* Newton: x = p^-1 mod 2^64 */
    for (int i = 0; i < 6; i++) x *= 2 - p * x;
    m->inverse64 = x;
    m->mont52 = (0 - x) & ((UINT64_C(1) << 52) - 1);
    m->r52 = (UINT64_C(1) << 52) % p;
    return true;
}

static uint64_t pow_any(uint64_t b, uint64_t e, uint64_t n) {
    uint64_t r = 1;
    for (b %= n; e; e >>= 1, b = (uint64_t)((hemi_u128)b * b % n))
        if (e & 1) r = (uint64_t)((hemi_u128)r * b % n);
    return r;
}

bool hemi_is_prime(uint64_t n) {
    static const uint64_t witness[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37}; /* enough below 2^64 */
    if (n < 2) return false;
    for (size_t i = 0; i < sizeof witness / sizeof *witness; i++)
        if (n % witness[i] == 0) return n == witness[i];
    uint64_t d = n - 1;
    int s = 0;
    for (; !(d & 1); d >>= 1) s++;
    for (size_t i = 0; i < sizeof witness / sizeof *witness; i++) {
        uint64_t x = pow_any(witness[i], d, n);
        if (x == 1 || x == n - 1) continue;
        int k = 1;
        for (; k < s; k++) {
            x = (uint64_t)((hemi_u128)x * x % n);
            if (x == n - 1) break;
        }
        if (k == s) return false;
    }
    return true;
}

uint64_t hemi_mod_pow(uint64_t base, uint64_t exponent, const hemi_modulus *m) {
    uint64_t r = 1;
    for (; exponent; exponent >>= 1, base = hemi_mod_mul(base, base, m))
        if (exponent & 1) r = hemi_mod_mul(r, base, m);
    return r;
}

uint64_t hemi_mod_inverse(uint64_t a, const hemi_modulus *m) { return hemi_mod_pow(a, m->p - 2, m); }

uint64_t hemi_mod_root(const hemi_modulus *m, uint64_t n) {
    if ((m->p - 1) % (2 * n) != 0) return 0;
    for (uint64_t g = 2; g < m->p; g++) {
        const uint64_t psi = hemi_mod_pow(g, (m->p - 1) / (2 * n), m);
        if (hemi_mod_pow(psi, n, m) == m->p - 1) return psi;
    }
    return 0;
}
