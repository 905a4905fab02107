/* Least squares in the Chebyshev basis. At N Chebyshev nodes the basis is orthogonal, so the condition of the normal equations is at
 * most the ratio of the largest to the least weight, which the floor bounds; and as T_i T_j = (T_(i+j) + T_|i-j|) / 2, their matrix
 * follows from 2 degree + 1 moments. */
#include <math.h>

#include "base/memory.h"
#include "circuit/calibrate.h"

#define NODES_LEAST      256
#define NODES_PER_DEGREE 8
#define SYMMETRY         1e-13 /* of the largest value: below, a function is symmetric */
#define NOTHING          1e-12 /* of the largest coefficient: below, a coefficient is 0 */
#define WORST            3.0   /* the largest error anywhere, against that of a fit that takes all places alike */

/* Floors under the weights (whose mean is 1): the least that keeps the largest error within WORST is taken. */
static const double FLOOR[] = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3};

typedef struct fit {
    size_t nodes;
    uint32_t degree;
    double *u, *f, *weight;                       /* nodes: u[nodes - 1 - j] = -u[j] */
    long double *moment, *right, *matrix, *chebyshev; /* 2 degree + 1; degree + 1; (degree + 1)^2; 2 degree + 1 */
    double largest;                               /* |f| */
} fit;

double hemi_chebyshev_value(const double *c, uint32_t degree, double u) {
    double next = 0, last = 0;
    for (uint32_t i = degree; i > 0; i--) {
        const double b = c[i] + 2 * u * next - last;
        last = next;
        next = b;
    }
    return c[0] + u * next - last;
}

static bool sample(fit *s, const hemi_function *f, double middle, double radius) {
    const double half_step = acos(-1.0) / (2 * (double)s->nodes);
    for (size_t j = 0; j < s->nodes / 2; j++) {
        s->u[j] = cos((double)(2 * j + 1) * half_step);
        s->u[s->nodes - 1 - j] = -s->u[j];
    }
    for (size_t j = 0; j < s->nodes; j++) {
        s->f[j] = hemi_function_value(f, middle + radius * s->u[j]);
        if (!isfinite(s->f[j])) return false;
        s->largest = fmax(s->largest, fabs(s->f[j]));
    }
    return isfinite(hemi_function_value(f, middle - radius)) && isfinite(hemi_function_value(f, middle + radius));
}

/* Odd, or even, up to a straight line: then the polynomial has no even (no odd) terms but those of the line. */
static bool is_symmetric(const fit *s) {
    bool odd = true, even = true;
    const size_t last = s->nodes - 1;
    const double sum = s->f[0] + s->f[last], slope = (s->f[0] - s->f[last]) / (2 * s->u[0]);
    for (size_t j = 0; j < s->nodes / 2; j++) {
        odd &= fabs(s->f[j] + s->f[last - j] - sum) <= SYMMETRY * s->largest;
        even &= fabs(s->f[j] - s->f[last - j] - 2 * slope * s->u[j]) <= SYMMETRY * s->largest;
    }
    return odd || even;
}

/* The density of the data at the nodes, mean 1 over them. The nodes lie as 1 / sqrt(1 - u^2), so that a sum over them is an integral over
 * u only with the weight sqrt(1 - u^2). False: there is none. */
static bool densities(double *weight, const fit *s, const double *histogram, size_t bins, bool symmetric) {
    double sum = 0;
    for (size_t j = 0; j < s->nodes; j++) {
        const double at = fmin(fmax((s->u[j] + 1) / 2 * (double)bins - 0.5, 0), (double)bins - 1);
        const size_t below = (size_t)at, above = below + 1 < bins ? below + 1 : below;
        const double part = at - (double)below;
        weight[j] = ((1 - part) * histogram[below] + part * histogram[above]) * sqrt(1 - s->u[j] * s->u[j]);
        sum += weight[j];
    }
    if (!(sum > 0)) return false;
    for (size_t j = 0; j < s->nodes; j++) weight[j] *= (double)s->nodes / sum;
    for (size_t j = 0, k = s->nodes - 1; symmetric && j < k; j++, k--) weight[j] = weight[k] = (weight[j] + weight[k]) / 2;
    return true;
}

static void normal_equations(fit *s, double floor_weight, double data_weight) {
    const size_t n = s->degree + 1, moments = 2 * n - 1;
    for (size_t k = 0; k < moments; k++) s->moment[k] = 0;
    for (size_t k = 0; k < n; k++) s->right[k] = 0;
    for (size_t j = 0; j < s->nodes; j++) {
        const long double w = floor_weight + data_weight * s->weight[j], u = s->u[j];
        for (size_t k = 0; k < moments; k++) {
            s->chebyshev[k] = k == 0 ? 1 : k == 1 ? u : 2 * u * s->chebyshev[k - 1] - s->chebyshev[k - 2];
            s->moment[k] += w * s->chebyshev[k];
        }
        for (size_t k = 0; k < n; k++) s->right[k] += w * s->f[j] * s->chebyshev[k];
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) s->matrix[i * n + j] = (s->moment[i + j] + s->moment[i - j]) / 2;
}

/* Cholesky, in place; the solution is in s->right. */
static void solve(fit *s) {
    const size_t n = s->degree + 1;
    long double *m = s->matrix, *r = s->right;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            long double sum = m[i * n + j];
            for (size_t k = 0; k < j; k++) sum -= m[i * n + k] * m[j * n + k];
            m[i * n + j] = i == j ? sqrtl(sum) : sum / m[j * n + j];
        }
        for (size_t k = 0; k < i; k++) r[i] -= m[i * n + k] * r[k];
        r[i] /= m[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++) r[i] -= m[k * n + i] * r[k];
        r[i] /= m[i * n + i];
    }
}

/* The largest error at the nodes, of which there are many to each oscillation of the polynomial. */
static double solve_with(double *c, fit *s, double floor_weight, double data_weight) {
    normal_equations(s, floor_weight, data_weight);
    solve(s);
    double largest = 0, error = 0;
    for (size_t k = 0; k <= s->degree; k++) largest = fmax(largest, fabs((double)s->right[k]));
    for (size_t k = 0; k <= s->degree; k++)
        c[k] = fabsl(s->right[k]) < NOTHING * largest ? 0 : (double)s->right[k];
    for (size_t j = 0; j < s->nodes; j++) error = fmax(error, fabs(hemi_chebyshev_value(c, s->degree, s->u[j]) - s->f[j]));
    return error;
}

static void fit_best(double *c, fit *s, const double *histogram, size_t bins) {
    const double error = solve_with(c, s, 1, 0);
    if (histogram == NULL || bins == 0 || error <= NOTHING * s->largest) return;
    if (!densities(s->weight, s, histogram, bins, is_symmetric(s))) return;
    for (size_t i = 0; i < sizeof FLOOR / sizeof *FLOOR; i++)
        if (solve_with(c, s, FLOOR[i], 1 - FLOOR[i]) <= WORST * error) return;
    (void)solve_with(c, s, 1, 0);
}

bool hemi_chebyshev_fit(double *c, uint32_t degree, const hemi_function *f, double middle, double radius, const double *histogram, size_t bins) {
    const size_t n = (size_t)degree + 1, nodes = NODES_PER_DEGREE * n > NODES_LEAST ? NODES_PER_DEGREE * n : NODES_LEAST;
    double *real = hemi_alloc(3 * nodes, sizeof *real);
    long double *extended = hemi_alloc(n * n + n + 2 * (2 * n - 1), sizeof *extended);
    bool fits = false;
    if (real != NULL && extended != NULL) {
        fit s = {.nodes = nodes, .degree = degree, .u = real, .f = real + nodes, .weight = real + 2 * nodes,
                 .matrix = extended, .right = extended + n * n, .moment = extended + n * n + n,
                 .chebyshev = extended + n * n + n + 2 * n - 1};
        fits = sample(&s, f, middle, radius);
        if (fits) fit_best(c, &s, histogram, bins);
    }
    hemi_free(real);
    hemi_free(extended);
    return fits;
}
