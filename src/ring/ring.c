#include "ring/ring.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"

static uint32_t reverse_bits(uint32_t x, unsigned bits) {
    uint32_t r = 0;
    for (unsigned i = 0; i < bits; i++) r |= ((x >> i) & 1u) << (bits - 1 - i);
    return r;
}

static void fill_powers(uint64_t *powers, uint64_t root, const hemi_limb *l) {
    uint64_t w = 1;
    for (uint32_t i = 0; i < l->n; i++, w = hemi_mod_mul(w, root, &l->m)) powers[reverse_bits(i, l->log2_n)] = w;
}

static size_t round_up(size_t bytes) { return (bytes + HEMI_ALIGNMENT - 1) / HEMI_ALIGNMENT * HEMI_ALIGNMENT; }

static hemi_status limb_init(hemi_limb *l, uint32_t log2_n, uint64_t prime, uint8_t *storage, const hemi_kernels *k,
                             hemi_error *err) {
    l->log2_n = log2_n;
    l->n = UINT32_C(1) << log2_n;
    if (!hemi_modulus_init(&l->m, prime) || (l->psi = hemi_mod_root(&l->m, l->n)) == 0)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "%llu is not a prime below 2^%d that is 1 modulo %lu",
                         (unsigned long long)prime, HEMI_MODULUS_BITS_MAX, 2ul * l->n);
    l->n_inverse = hemi_mod_inverse(l->n % l->m.p, &l->m);
    uint64_t *powers = (uint64_t *)storage, *inverse = powers + l->n;
    fill_powers(powers, l->psi, l);
    fill_powers(inverse, hemi_mod_inverse(l->psi, &l->m), l);
    l->psi_powers = powers;
    l->psi_inverse_powers = inverse;
    l->twiddles = storage + round_up(2 * (size_t)l->n * sizeof(uint64_t));
    k->twiddle_init(l);
    return HEMI_OK;
}

hemi_status hemi_ring_new(hemi_ring **out, uint32_t log2_n, const uint64_t *primes, size_t limbs,
                          const hemi_kernels *kernels, hemi_error *err) {
    *out = NULL;
    if (log2_n < HEMI_RING_LOG2_N_MIN || log2_n > HEMI_RING_LOG2_N_MAX || limbs == 0 || limbs > HEMI_RING_LIMBS_MAX)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "a ring has degree 2^%d to 2^%d and 1 to %d primes, not 2^%u and %zu",
                         HEMI_RING_LOG2_N_MIN, HEMI_RING_LOG2_N_MAX, HEMI_RING_LIMBS_MAX, log2_n, limbs);
    const hemi_kernels *k = kernels ? kernels : hemi_kernels_default();
    const uint32_t n = UINT32_C(1) << log2_n;
    const size_t per_limb = round_up(2 * (size_t)n * sizeof(uint64_t)) + round_up(k->twiddle_bytes(n));
    hemi_ring *ring = hemi_alloc(1, sizeof *ring);
    if (ring) {
        ring->limb = hemi_alloc(limbs, sizeof *ring->limb);
        ring->storage = hemi_alloc(limbs, per_limb);
    }
    if (!ring || !ring->limb || !ring->storage) {
        hemi_ring_free(ring);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a ring of degree %u with %zu primes", n, limbs);
    }
    ring->n = n;
    ring->log2_n = log2_n;
    ring->limbs = limbs;
    ring->k = k;
    for (size_t i = 0; i < limbs; i++) {
        const hemi_status s =
            limb_init(&ring->limb[i], log2_n, primes[i], (uint8_t *)ring->storage + i * per_limb, k, err);
        if (s != HEMI_OK) {
            hemi_ring_free(ring);
            return s;
        }
    }
    *out = ring;
    return HEMI_OK;
}

void hemi_ring_free(hemi_ring *ring) {
    if (!ring) return;
    hemi_free(ring->limb);
    hemi_free(ring->storage);
    hemi_free(ring);
}

void hemi_ring_automorphism_index(uint32_t *index, uint32_t log2_n, uint32_t t) {
    /* slot i holds a(psi^e), e = 2 brv(i) + 1; a(X^t) there is a(psi^(t e)), and t e is again odd */
    const uint32_t n = UINT32_C(1) << log2_n;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t e = 2 * reverse_bits(i, log2_n) + 1;
        const uint32_t et = (uint32_t)((uint64_t)e * t % (2 * (uint64_t)n));
        index[i] = reverse_bits((et - 1) / 2, log2_n);
    }
}

void hemi_ring_automorphism(uint64_t *r, const uint64_t *a, uint32_t t, const hemi_limb *l) {
    const uint32_t mask = 2 * l->n - 1;
    uint32_t e = 0;
    for (uint32_t i = 0; i < l->n; i++, e = (e + t) & mask)
        r[e & (l->n - 1)] = e >= l->n ? hemi_mod_neg(a[i], &l->m) : a[i];
}

void hemi_ring_from_int8(uint64_t *r, const int8_t *a, const hemi_limb *l) {
    for (uint32_t i = 0; i < l->n; i++) {
        const int64_t v = a[i];
        r[i] = (uint64_t)v + (l->m.p & (uint64_t)(v >> 63));
    }
}
