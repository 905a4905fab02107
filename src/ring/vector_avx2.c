/* The AVX2 table, and its kernels that go over vectors slot by slot (arithmetic: avx2.h). Any length, though
 * multiples of four are fastest. */
#include <string.h>

#include "ring/avx2.h"

/* What a kernel needs besides its operands. */
typedef struct job {
    prime_avx2 m;    /* the modulus of the result */
    prime_avx2 from; /* lift: that of the operand */
    vf w, v;         /* a constant factor, centred, and w / p; switches: 2^bits and 2^-bits */
    vi p, mask;
} job;

typedef vi (*slot)(vi a, vi b, vi c, const job *j);

/* r[i] = f(a[i], b[i], c[i]). f is inlined, and what it does not use is not loaded. */
HEMI_INLINE void map(uint64_t *r, const uint64_t *a, const uint64_t *b, const uint64_t *c, size_t n, slot f,
                     const job *j) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) store_int(r + i, f(load_int(a + i), load_int(b + i), load_int(c + i), j));
    if (i < n) {
        const vi lanes = _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)(n - i)), _mm256_set_epi64x(3, 2, 1, 0));
        const vi x = _mm256_maskload_epi64((const long long *)(const void *)(a + i), lanes);
        const vi y = _mm256_maskload_epi64((const long long *)(const void *)(b + i), lanes);
        const vi z = _mm256_maskload_epi64((const long long *)(const void *)(c + i), lanes);
        _mm256_maskstore_epi64((long long *)(void *)(r + i), lanes, f(x, y, z, j));
    }
}

static job job_of(const hemi_modulus *m) { return (job){.m = prime_of(m), .p = _mm256_set1_epi64x((long long)m->p)}; }

static job job_times(uint64_t s, const hemi_modulus *m) {
    job j = job_of(m);
    const double w = (double)hemi_mod_centre(s, m);
    j.w = all(w);
    j.v = all(w / m->value);
    return j;
}

/* -p <= x < p to [0, p). */
HEMI_INLINE vi add_if_negative(vi x, vi p) {
    return _mm256_add_epi64(x, _mm256_and_si256(_mm256_cmpgt_epi64(_mm256_setzero_si256(), x), p));
}

/* ---- slots */
HEMI_INLINE vi slot_add(vi a, vi b, vi c, const job *j) {
    (void)c;
    return add_if_negative(_mm256_sub_epi64(_mm256_add_epi64(a, b), j->p), j->p);
}
HEMI_INLINE vi slot_sub(vi a, vi b, vi c, const job *j) {
    (void)c;
    return add_if_negative(_mm256_sub_epi64(a, b), j->p);
}
HEMI_INLINE vi slot_mul(vi a, vi b, vi c, const job *j) {
    (void)c;
    return canonical_near(mul_any(from_int(a), from_int(b), &j->m), j->m.p);
}
HEMI_INLINE vi slot_mul_add(vi a, vi b, vi c, const job *j) {
    return canonical(add(from_int(c), mul_any(from_int(a), from_int(b), &j->m)), &j->m);
}
HEMI_INLINE vi slot_mul_scalar(vi a, vi b, vi c, const job *j) {
    (void)b, (void)c;
    return canonical_near(mul_by(from_int(a), j->w, j->v, j->m.p), j->m.p);
}
/* Fixed form: the centred residue as a double. */
HEMI_INLINE vi slot_fix(vi a, vi b, vi c, const job *j) {
    (void)b, (void)c;
    return _mm256_castpd_si256(centred(from_int(a), &j->m));
}
HEMI_INLINE vi slot_mul_fixed(vi a, vi w, vi c, const job *j) {
    (void)c;
    return canonical_near(mul_any(from_int(a), _mm256_castsi256_pd(w), &j->m), j->m.p);
}
HEMI_INLINE vi slot_mul_add_fixed(vi a, vi w, vi c, const job *j) {
    return canonical(add(from_int(c), mul_any(from_int(a), _mm256_castsi256_pd(w), &j->m)), &j->m);
}
HEMI_INLINE vi slot_lift(vi a, vi b, vi c, const job *j) {
    (void)b, (void)c;
    return canonical(centred(from_int(a), &j->from), &j->m);
}
HEMI_INLINE vi slot_sub_mul_scalar(vi a, vi b, vi c, const job *j) {
    (void)c;
    return canonical_near(mul_by(sub(from_int(a), from_int(b)), j->w, j->v, j->m.p), j->m.p);
}

/* floor((a 2^bits + (p-1)/2) / p): a 2^bits is a double, an estimate q of its quotient by p is off by at most 3/4, the
 * remainder r = a 2^bits - q p is exact, and q is right when r is in [-(p-1)/2, (p-1)/2]. */
HEMI_INLINE vi slot_switch_down(vi a, vi b, vi c, const job *j) {
    (void)b, (void)c;
    const vf x = mul(from_int(a), j->w), q = nearest(x, j->m.inverse), r = fnma_(q, j->m.p, x);
    const vi over = _mm256_castpd_si256(_mm256_cmp_pd(r, j->m.half, _CMP_GT_OQ));
    const vi under = _mm256_castpd_si256(_mm256_cmp_pd(r, sub(_mm256_setzero_pd(), j->m.half), _CMP_LT_OQ));
    /* a comparison gives -1 where it holds */
    return _mm256_and_si256(_mm256_add_epi64(_mm256_sub_epi64(to_int(q), over), under), j->mask);
}

/* floor(a p / 2^bits + 1/2) mod p: a p = h + l exactly, q is h / 2^bits rounded, and f what is left of the quotient: a
 * multiple of 2^-bits not much above 1/2, so exact. The result is at most p. */
HEMI_INLINE vi slot_switch_up(vi a, vi b, vi c, const job *j) {
    (void)b, (void)c;
    const vf x = from_int(a), h = mul(x, j->m.p), l = fms_(x, j->m.p, h);
    const vf q = nearest(h, j->v), f = add(fms_(h, j->v, q), mul(l, j->v));
    const vf up = _mm256_and_pd(_mm256_cmp_pd(f, all(0.5), _CMP_GE_OQ), all(1));
    const vf down = _mm256_and_pd(_mm256_cmp_pd(f, all(-0.5), _CMP_LT_OQ), all(1));
    const vi r = to_int(sub(add(q, up), down));
    return _mm256_andnot_si256(_mm256_cmpeq_epi64(r, j->p), r);
}

/* ---- kernels */
static void k_add(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    const job j = job_of(m);
    map(r, a, b, a, n, slot_add, &j);
}
static void k_sub(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    const job j = job_of(m);
    map(r, a, b, a, n, slot_sub, &j);
}
static void k_mul(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    const job j = job_of(m);
    map(r, a, b, a, n, slot_mul, &j);
}
static void k_mul_add(uint64_t *r, const uint64_t *a, const uint64_t *b, size_t n, const hemi_modulus *m) {
    const job j = job_of(m);
    map(r, a, b, r, n, slot_mul_add, &j);
}
static void k_mul_scalar(uint64_t *r, const uint64_t *a, uint64_t s, size_t n, const hemi_modulus *m) {
    const job j = job_times(s, m);
    map(r, a, a, a, n, slot_mul_scalar, &j);
}
void hemi_avx2_fix(uint64_t *w, const uint64_t *a, size_t n, const hemi_modulus *m) {
    const job j = job_of(m);
    map(w, a, a, a, n, slot_fix, &j);
}
static void k_mul_fixed(uint64_t *r, const uint64_t *a, const uint64_t *w, size_t n, const hemi_modulus *m) {
    const job j = job_of(m);
    map(r, a, w, a, n, slot_mul_fixed, &j);
}
static void k_mul_add_fixed(uint64_t *r, const uint64_t *a, const uint64_t *w, size_t n, const hemi_modulus *m) {
    const job j = job_of(m);
    map(r, a, w, r, n, slot_mul_add_fixed, &j);
}
static void k_lift(uint64_t *r, const uint64_t *a, size_t n, const hemi_modulus *from, const hemi_modulus *to) {
    job j = job_of(to);
    j.from = prime_of(from);
    map(r, a, a, a, n, slot_lift, &j);
}
/* dot_left form: centred, as doubles. x_0 and products of the others with what is before them, each at most (1/2 + 2^-5) p (mul_by:
 * |x_j| < 2^49, |w| < p/2): less than 2^49 + 4 (1/2 + 2^-5) p in all, where canonical takes 2^52 - p/2. */
HEMI_INLINE void mixed(uint64_t *r, const uint64_t *x, size_t stride, const job *j, size_t count, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        vf sum = load(x + i);
        for (size_t k = 1; k < count; k++) sum = add(sum, mul_by(load(x + k * stride + i), j[k].w, j[k].v, j->m.p));
        store_int(r + i, canonical(sum, &j->m));
    }
}
static uint64_t mixed_slot(const uint64_t *x, size_t stride, const hemi_modulus *const *from, size_t count, const hemi_modulus *to) {
    uint64_t sum = 0;
    for (size_t j = count; j-- > 0;) {
        double digit;
        memcpy(&digit, x + j * stride, sizeof digit);
        sum = hemi_mod_reduce128((hemi_u128)sum * from[j]->p + hemi_mod_from_signed((int64_t)digit, to), to);
    }
    return sum;
}
static void k_lift_mixed(uint64_t *r, const uint64_t *x, size_t stride, const hemi_modulus *const *from, size_t count, size_t n,
                         const hemi_modulus *to) {
    const size_t whole = n & ~(size_t)3;
    job j[HEMI_MIXED_MAX];
    uint64_t before = 1 % to->p;
    for (size_t k = 0; k < count; before = hemi_mod_mul(before, from[k]->p % to->p, to), k++) j[k] = job_times(before, to);
    if (count == 1)
        mixed(r, x, stride, j, 1, whole);
    else if (count == 2)
        mixed(r, x, stride, j, 2, whole);
    else
        mixed(r, x, stride, j, count, whole);
    for (size_t i = whole; i < n; i++) r[i] = mixed_slot(x + i, stride, from, count, to);
}
static void k_sub_mul_scalar(uint64_t *r, const uint64_t *a, const uint64_t *b, uint64_t s, size_t n,
                             const hemi_modulus *m) {
    const job j = job_times(s, m);
    map(r, a, b, a, n, slot_sub_mul_scalar, &j);
}
static job job_switch(unsigned bits, const hemi_modulus *m) {
    job j = job_of(m);
    const uint64_t power = UINT64_C(1) << bits;
    j.w = all((double)power);
    j.v = all(1 / (double)power);
    j.mask = _mm256_set1_epi64x((long long)(power - 1));
    return j;
}
static void k_switch_down(uint64_t *r, const uint64_t *a, size_t n, unsigned bits, const hemi_modulus *m) {
    const job j = job_switch(bits, m);
    map(r, a, a, a, n, slot_switch_down, &j);
}
static void k_from_int16(uint64_t *r, const int16_t *a, size_t n, const hemi_modulus *m) {
    const vi p = _mm256_set1_epi64x((long long)m->p), none = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const vi v = _mm256_cvtepi16_epi64(_mm_loadl_epi64((const __m128i *)(const void *)(a + i)));
        const vi negative = _mm256_cmpgt_epi64(none, v);
        _mm256_storeu_si256((__m256i *)(void *)(r + i), _mm256_add_epi64(v, _mm256_and_si256(negative, p)));
    }
    if (i < n) hemi_kernels_portable.from_int16(r + i, a + i, n - i, m);
}

static void k_switch_up(uint64_t *r, const uint64_t *a, size_t n, unsigned bits, const hemi_modulus *m) {
    const job j = job_switch(bits, m);
    map(r, a, a, a, n, slot_switch_up, &j);
}

/* ---- permutations */
static void k_permute(uint64_t *r, const uint64_t *a, const uint32_t *index, size_t n) {
    for (size_t i = 0; i < n; i++) r[i] = a[index[i]];
}

static void k_keyswitch_product(uint64_t *r0, uint64_t *r1, const uint64_t *d, const uint64_t *e, const uint32_t *index,
                                const uint64_t *w0, const uint64_t *w1, size_t n, const hemi_modulus *m) {
    const job j = job_of(m);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const vi x = gather(d, index + i), y = slot_mul_fixed(x, load_int(w0 + i), x, &j);
        store_int(r0 + i, e ? slot_add(y, gather(e, index + i), j.p, &j) : y);
        store_int(r1 + i, slot_mul_fixed(x, load_int(w1 + i), x, &j));
    }
    for (; i < n; i++) {
        const uint64_t x = d[index[i]];
        k_mul_fixed(r0 + i, &x, w0 + i, 1, m);
        if (e) r0[i] = hemi_mod_add(r0[i], e[index[i]], m);
        k_mul_fixed(r1 + i, &x, w1 + i, 1, m);
    }
}

const hemi_kernels hemi_kernels_avx2 = {
    .name = "avx2",
    .twiddle_bytes = hemi_avx2_twiddle_bytes,
    .twiddle_init = hemi_avx2_twiddle_init,
    .ntt = hemi_avx2_ntt,
    .intt = hemi_avx2_intt,
    .add = k_add,
    .sub = k_sub,
    .mul = k_mul,
    .mul_add = k_mul_add,
    .mul_scalar = k_mul_scalar,
    .fix = hemi_avx2_fix,
    .mul_fixed = k_mul_fixed,
    .mul_add_fixed = k_mul_add_fixed,
    .permute = k_permute,
    .keyswitch_product = k_keyswitch_product,
    .gadget_product = hemi_avx2_gadget_product,
    .lift = k_lift,
    .lift_mixed = k_lift_mixed,
    .sub_mul_scalar = k_sub_mul_scalar,
    .switch_down = k_switch_down,
    .from_int16 = k_from_int16,
    .switch_up = k_switch_up,
    .dot_left = hemi_avx2_fix,
    .dot_right = hemi_avx2_dot_right,
    .dot2 = hemi_avx2_dot2,
    .int_right_bytes = hemi_avx2_int_right_bytes,
    .int_right = hemi_avx2_int_right,
    .int_product = hemi_avx2_int_product,
};
