/* The canonical embedding by a fast Fourier transform of half the degree (as in HEAAN: Cheon, Kim, Kim and Song, 2017).
 *
 * Let h = n/2 and xi = exp(2 pi i / 4h). The powers 5^j are 1 modulo 4, so xi^(5^j h) = i, and a real polynomial a has in slot j
 *   a(xi^(5^j)) = sum_(k<h) c_k xi^(5^j k),   c_k = a_k + i a_(k+h).
 * Even and odd k are two such sums of length h/2, over xi^2; and 5^(j+h/2) = 5^j + 2h modulo 4h, where xi^2h = -1:
 *   slot j = E_j + w O_j,   slot j + h/2 = E_j - w O_j,   w = xi^(5^j),   j < h/2.
 * So the layer that joins sums of length L has the roots w_j = exp(2 pi i 5^j / 8L), j < L; its input is in bit-reversed order, its output
 * in the order of slots. The inverse takes the layers back. Real and imaginary parts are apart, for vectors. */
#include "ckks/encoder.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

struct hemi_ckks_encoder {
    uint32_t n, h;
    double *re, *im;    /* h each: root j of the layer of L at L + j */
    uint32_t *reversed; /* h/2: number m of log2(h) - 1 bits, reversed */
};

#define COEFFICIENT_MAX 0x1p62

/* ---- tables */

/* exp(2 pi i k / order), k < order, 8 divides order: by an angle of at most pi/4, in extended precision, rounded once. */
static void root(double *re, double *im, uint32_t k, uint32_t order) {
    static const long double two_pi = 6.283185307179586476925286766559L;
    const uint32_t quarter = order / 4, quadrant = k / quarter, x = k % quarter;
    const bool upper = x > order / 8;
    const long double angle = two_pi * (long double)(upper ? quarter - x : x) / (long double)order;
    const double c = (double)cosl(angle), s = (double)sinl(angle);
    const double a = upper ? s : c, b = upper ? c : s;
    *re = quadrant == 0 ? a : quadrant == 1 ? -b : quadrant == 2 ? -a : b;
    *im = quadrant == 0 ? b : quadrant == 1 ? a : quadrant == 2 ? -b : -a;
}

hemi_ckks_encoder *hemi_ckks_encoder_new(uint32_t log2_n) {
    hemi_ckks_encoder *e = hemi_alloc(1, sizeof *e);
    if (!e) return NULL;
    e->n = UINT32_C(1) << log2_n;
    e->h = e->n / 2;
    e->re = hemi_alloc(e->h, sizeof *e->re);
    e->im = hemi_alloc(e->h, sizeof *e->im);
    e->reversed = hemi_alloc(e->h / 2, sizeof *e->reversed);
    if (!e->re || !e->im || !e->reversed) {
        hemi_ckks_encoder_free(e);
        return NULL;
    }
    for (uint32_t len = 1; len < e->h; len *= 2)
        for (uint32_t j = 0, power = 1; j < len; j++, power = 5 * power % (8 * len))
            root(&e->re[len + j], &e->im[len + j], power, 8 * len);
    for (uint32_t m = 1; m < e->h / 2; m++) e->reversed[m] = e->reversed[m / 2] / 2 + m % 2 * (e->h / 4);
    return e;
}

void hemi_ckks_encoder_free(hemi_ckks_encoder *encoder) {
    if (!encoder) return;
    hemi_free(encoder->re);
    hemi_free(encoder->im);
    hemi_free(encoder->reversed);
    hemi_free(encoder);
}

/* ---- layers. Nothing overlaps, which is what lets the compiler use vectors. */

/* x, y -> x + w y, x - w y */
static void join(double *restrict xr, double *restrict xi, double *restrict yr, double *restrict yi, const double *restrict wr,
                 const double *restrict wi, uint32_t len) {
    for (uint32_t j = 0; j < len; j++) {
        const double r = wr[j] * yr[j] - wi[j] * yi[j], i = wr[j] * yi[j] + wi[j] * yr[j];
        yr[j] = xr[j] - r;
        yi[j] = xi[j] - i;
        xr[j] += r;
        xi[j] += i;
    }
}

/* x, y -> x + y, (x - y) / w: twice the inverse */
static void part(double *restrict xr, double *restrict xi, double *restrict yr, double *restrict yi, const double *restrict wr,
                 const double *restrict wi, uint32_t len) {
    for (uint32_t j = 0; j < len; j++) {
        const double r = xr[j] - yr[j], i = xi[j] - yi[j];
        xr[j] += yr[j];
        xi[j] += yi[j];
        yr[j] = wr[j] * r + wi[j] * i;
        yi[j] = wr[j] * i - wi[j] * r;
    }
}

/* The low bits of 1.5 2^52 + y are the integer nearest to y, |y| <= 2^51. */
static inline uint64_t near(double y) {
    static const double rounder = 0x1.8p52;
    const double sum = y + rounder;
    uint64_t bits, zero;
    memcpy(&bits, &sum, sizeof bits);
    memcpy(&zero, &rounder, sizeof zero);
    return bits - zero;
}

/* The integer nearest to scale x, in two pieces of 32 bits, of which the first is an integer's double too; *good as long as all were below
 * the limit. No branch and no call: messages are secret, and there are many. */
static inline int64_t rounded(double x, double scale, bool *good) {
    const double y = x * scale;
    *good &= fabs(y) < COEFFICIENT_MAX; /* false for what is no number */
    const double high = y * 0x1p-32 + 0x1.8p52 - 0x1.8p52, low = y - high * 0x1p32; /* exact */
    return (int64_t)((near(high) << 32) + near(low));
}

bool hemi_ckks_embed(int64_t *coefficients, const hemi_ckks_encoder *e, double scale, const double *re, const double *im, double *work) {
    const uint32_t h = e->h;
    double *zr = work, *zi = work + h;
    memcpy(zr, re, h * sizeof *zr);
    if (im)
        memcpy(zi, im, h * sizeof *zi);
    else
        memset(zi, 0, h * sizeof *zi);
    for (uint32_t len = h / 2; len > 1; len /= 2)
        for (uint32_t i = 0; i < h; i += 2 * len)
            part(zr + i, zi + i, zr + i + len, zi + i + len, e->re + len, e->im + len, len);
    /* the layer of pairs, and back to the order of coefficients */
    const double factor = scale / h, wr = e->re[1], wi = e->im[1];
    bool good = true;
    for (uint32_t k = 0; k < h / 2; k++) {
        int64_t *c = coefficients + k, *d = c + h / 2;
        const size_t m = 2 * (size_t)e->reversed[k];
        const double xr = zr[m], xi = zi[m], yr = zr[m + 1], yi = zi[m + 1], r = xr - yr, i = xi - yi;
        c[0] = rounded(xr + yr, factor, &good);
        c[h] = rounded(xi + yi, factor, &good);
        d[0] = rounded(wr * r + wi * i, factor, &good);
        d[h] = rounded(wr * i - wi * r, factor, &good);
    }
    return good;
}

void hemi_ckks_unembed(double *re, double *im, const hemi_ckks_encoder *e, double scale, const int64_t *coefficients, double *work) {
    const uint32_t h = e->h;
    double *zr = work, *zi = work + h;
    const double factor = 1 / scale, wr = e->re[1], wi = e->im[1];
    for (uint32_t m = 0; m < h / 2; m++) {
        const int64_t *c = coefficients + e->reversed[m], *d = c + h / 2;
        const double xr = (double)c[0], xi = (double)c[h], yr = (double)d[0], yi = (double)d[h];
        const double r = wr * yr - wi * yi, i = wr * yi + wi * yr;
        zr[2 * m] = xr + r;
        zi[2 * m] = xi + i;
        zr[2 * m + 1] = xr - r;
        zi[2 * m + 1] = xi - i;
    }
    for (uint32_t len = 2; len < h; len *= 2)
        for (uint32_t i = 0; i < h; i += 2 * len)
            join(zr + i, zi + i, zr + i + len, zi + i + len, e->re + len, e->im + len, len);
    for (uint32_t j = 0; j < h; j++) re[j] = zr[j] * factor;
    for (uint32_t j = 0; im && j < h; j++) im[j] = zi[j] * factor;
}

/* With the least multiple of p that is 2^62 or more, u = v + multiple is in [0, 2^63 + p). q = floor(u floor(2^64 / p) / 2^64) is short of
 * u / p by less than u / 2^64 + 1 < 2: u - q p is in [0, 2p). */
void hemi_ckks_residues(uint64_t *r, const int64_t *coefficients, const hemi_limb *limb, const hemi_kernels *k) {
    const uint64_t p = limb->m.p, reciprocal = limb->m.barrett_hi, multiple = ((UINT64_C(1) << 62) / p + 1) * p;
    for (uint32_t i = 0; i < limb->n; i++) {
        const uint64_t u = (uint64_t)coefficients[i] + multiple;
        const uint64_t x = u - (uint64_t)(((hemi_u128)u * reciprocal) >> 64) * p;
        r[i] = x - (p & (0 - (uint64_t)(x >= p)));
    }
    k->ntt(r, limb);
}
