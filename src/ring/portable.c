/* The portable table: the readable statement of every kernel, against which the others are tested bit for bit. */
#include <string.h>

#include "ring/int_portable.h"

/* Forward twiddles with their Shoup quotients floor(w 2^64 / p); then the inverse ones. */
typedef struct twiddle {
    uint64_t w, quotient;
} twiddle;

static size_t twiddle_bytes(uint32_t n) { return 2 * (size_t)n * sizeof(twiddle); }

static uint64_t shoup(uint64_t w, uint64_t p) { return (uint64_t)(((hemi_u128)w << 64) / p); }

static void twiddle_init(hemi_limb *l) {
    twiddle *f = l->twiddles, *b = f + l->n;
    for (uint32_t i = 0; i < l->n; i++) {
        f[i] = (twiddle){l->psi_powers[i], shoup(l->psi_powers[i], l->m.p)};
        b[i] = (twiddle){l->psi_inverse_powers[i], shoup(l->psi_inverse_powers[i], l->m.p)};
    }
}

/* a w mod p, for any a < 2^64 (Shoup; Harvey, "Faster arithmetic for number-theoretic transforms"). */
static inline uint64_t mul_shoup(uint64_t a, twiddle t, uint64_t p) {
    const uint64_t q = (uint64_t)(((hemi_u128)a * t.quotient) >> 64);
    const uint64_t r = a * t.w - q * p; /* in [0, 2p) */
    return r - (p & (0 - (uint64_t)(r >= p)));
}

/* Cooley-Tukey, decimation in time, psi merged into the twiddles (Longa and Naehrig, 2016). */
static void ntt(uint64_t *a, const hemi_limb *l) {
    const twiddle *w = l->twiddles;
    for (uint32_t len = 1, t = l->n / 2; t >= 1; len *= 2, t /= 2)
        for (uint32_t i = 0; i < len; i++) {
            uint64_t *x = a + (size_t)2 * i * t, *y = x + t;
            for (uint32_t j = 0; j < t; j++) {
                const uint64_t u = x[j], v = mul_shoup(y[j], w[len + i], l->m.p);
                x[j] = hemi_mod_add(u, v, &l->m);
                y[j] = hemi_mod_sub(u, v, &l->m);
            }
        }
}

static void mul_scalar(uint64_t *r, const uint64_t *a, uint64_t s, size_t n, const hemi_modulus *m) {
    const twiddle t = {s, shoup(s, m->p)};
    for (size_t i = 0; i < n; i++) r[i] = mul_shoup(a[i], t, m->p);
}

/* Gentleman-Sande, the inverse network. */
static void intt(uint64_t *r, const uint64_t *a, const hemi_limb *l) {
    if (r != a) memcpy(r, a, l->n * sizeof *r);
    const twiddle *w = (const twiddle *)l->twiddles + l->n;
    for (uint32_t len = l->n / 2, t = 1; len >= 1; len /= 2, t *= 2)
        for (uint32_t i = 0; i < len; i++) {
            uint64_t *x = r + (size_t)2 * i * t, *y = x + t;
            for (uint32_t j = 0; j < t; j++) {
                const uint64_t u = x[j], v = y[j];
                x[j] = hemi_mod_add(u, v, &l->m);
                y[j] = mul_shoup(hemi_mod_sub(u, v, &l->m), w[len + i], l->m.p);
            }
        }
    mul_scalar(r, r, l->n_inverse, l->n, &l->m);
}

static void add(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) r[i] = hemi_mod_add(a[i], b[i], m);
}

static void sub(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) r[i] = hemi_mod_sub(a[i], b[i], m);
}

static void mul(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) r[i] = hemi_mod_mul(a[i], b[i], m);
}

static void mul_add(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) r[i] = hemi_mod_reduce128((hemi_u128)a[i] * b[i] + r[i], m);
}

static void fix(uint64_t *w, const uint64_t *a, size_t n, const hemi_modulus *m) {
    (void)m;
    if (w != a) memcpy(w, a, n * sizeof *w);
}

static void permute(uint64_t *r, const uint64_t *a, const uint32_t *index, size_t n) {
    for (size_t i = 0; i < n; i++) r[i] = a[index[i]];
}

static void keyswitch_product(uint64_t *r0, uint64_t *r1, const uint64_t *d, const uint64_t *e, const uint32_t *index,
                              const uint64_t *w0, const uint64_t *w1, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) {
        const uint64_t v = d[index[i]], addend = e ? e[index[i]] : 0;
        r0[i] = hemi_mod_reduce128((hemi_u128)v * w0[i] + addend, m);
        r1[i] = hemi_mod_mul(v, w1[i], m);
    }
}

static void from_int16(uint64_t *r, const int16_t *a, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) {
        const int64_t v = a[i];
        r[i] = (uint64_t)v + (m->p & (uint64_t)(v >> 63));
    }
}

static void lift(uint64_t *r, const uint64_t *a, size_t n, const hemi_modulus *from, const hemi_modulus *to) {
    for (size_t i = 0; i < n; i++) r[i] = hemi_mod_from_signed(hemi_mod_centre(a[i], from), to);
}

static void lift_mixed(uint64_t *r, const uint64_t *x, size_t stride, const hemi_modulus *const *from, size_t count, size_t n,
                       const hemi_modulus *to) {
    for (size_t i = 0; i < n; i++) {
        uint64_t sum = 0;
        for (size_t j = count; j-- > 0;) { /* Horner */
            const uint64_t digit = hemi_mod_from_signed(hemi_mod_centre(x[j * stride + i], from[j]), to);
            sum = hemi_mod_reduce128((hemi_u128)sum * from[j]->p + digit, to);
        }
        r[i] = sum;
    }
}

static void sub_mul_scalar(uint64_t *r, const uint64_t *a, const uint64_t *b, uint64_t s, size_t n,
                           const hemi_modulus *m) {
    const twiddle t = {s, shoup(s, m->p)};
    for (size_t i = 0; i < n; i++) r[i] = mul_shoup(hemi_mod_sub(a[i], b[i], m), t, m->p);
}

static void switch_down(uint64_t *r, const uint64_t *a, size_t n, unsigned bits, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) {
        const hemi_u128 x = ((hemi_u128)a[i] << bits) + m->p / 2;
        /* x - (x mod p) is the quotient times p; the quotient is below 2^51, so its residue mod 2^64 tells it */
        const uint64_t quotient = ((uint64_t)x - hemi_mod_reduce128(x, m)) * m->inverse64;
        r[i] = quotient & ((UINT64_C(1) << bits) - 1);
    }
}

static void switch_up(uint64_t *r, const uint64_t *a, size_t n, unsigned bits, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) {
        const uint64_t v = (uint64_t)(((hemi_u128)a[i] * m->p + (UINT64_C(1) << (bits - 1))) >> bits);
        r[i] = v - (m->p & (0 - (uint64_t)(v >= m->p))); /* v <= p */
    }
}

static void dot_left(uint64_t *x, const uint64_t *a, size_t n, const hemi_modulus *m) { fix(x, a, n, m); }

static void dot_right(uint8_t *w, const uint64_t *a, size_t n, const hemi_modulus *m) {
    (void)m;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 6; k++) w[6 * i + (size_t)k] = (uint8_t)(a[i] >> (8 * k));
}

static inline uint64_t load48(const uint8_t *w) {
    uint64_t v = 0;
    for (int k = 5; k >= 0; k--) v = v << 8 | w[k];
    return v;
}


static void gadget_product(uint64_t *r0, uint64_t *r1, const uint64_t *d, size_t d_stride, const uint32_t *index,
                           const uint8_t *w0, const uint8_t *w1, size_t w_bytes, size_t digits, size_t n, const hemi_modulus *m) {
    for (size_t i = 0; i < n; i++) {
        const uint64_t *from = d + (index ? index[i] : i);
        hemi_u128 s0 = 0, s1 = 0; /* 64 products below 2^96 */
        for (size_t k = 0; k < digits; k++) {
            s0 += (hemi_u128)from[k * d_stride] * load48(w0 + k * w_bytes + 6 * i);
            s1 += (hemi_u128)from[k * d_stride] * load48(w1 + k * w_bytes + 6 * i);
        }
        r0[i] = hemi_mod_reduce128(s0, m);
        r1[i] = hemi_mod_reduce128(s1, m);
    }
}

static void dot2(uint64_t *r0, uint64_t *r1, size_t r_stride, size_t sums, const uint64_t *x0, const uint64_t *x1,
                 size_t stride, const uint8_t *w, size_t count, size_t len, const hemi_modulus *m) {
    for (size_t c = 0; c < sums; c++)
        for (size_t i = 0; i < len; i++) {
            hemi_u128 s0 = 0, s1 = 0; /* 1024 products below 2^96 */
            for (size_t k = 0; k < count; k++) {
                const uint64_t v = load48(w + 6 * (len * (c * count + k) + i));
                s0 += (hemi_u128)x0[k * stride + i] * v;
                s1 += (hemi_u128)x1[k * stride + i] * v;
            }
            r0[c * r_stride + i] = hemi_mod_reduce128(s0, m);
            r1[c * r_stride + i] = hemi_mod_reduce128(s1, m);
        }
}

const hemi_kernels hemi_kernels_portable = {
    .name = "portable",
    .twiddle_bytes = twiddle_bytes,
    .twiddle_init = twiddle_init,
    .ntt = ntt,
    .intt = intt,
    .add = add,
    .sub = sub,
    .mul = mul,
    .mul_add = mul_add,
    .mul_scalar = mul_scalar,
    .fix = fix,
    .mul_fixed = mul,
    .mul_add_fixed = mul_add,
    .permute = permute,
    .keyswitch_product = keyswitch_product,
    .gadget_product = gadget_product,
    .from_int16 = from_int16,
    .lift = lift,
    .lift_mixed = lift_mixed,
    .sub_mul_scalar = sub_mul_scalar,
    .switch_down = switch_down,
    .switch_up = switch_up,
    .dot_left = dot_left,
    .dot_right = dot_right,
    .dot2 = dot2,
    .int_right_bytes = hemi_portable_int_right_bytes,
    .int_right = hemi_portable_int_right,
    .int_product = hemi_portable_int_product,
};
