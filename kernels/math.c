#include "kernels/math.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* A number as the sum of two: |lo| is at most half an ulp of hi. */
typedef struct pair {
    double hi, lo;
} pair;

static pair fast_two_sum(double a, double b) { /* exact for |a| >= |b| */
    double s = a + b;
    return (pair){s, b - (s - a)};
}

static pair two_sum(double a, double b) {
    double s = a + b, t = s - a;
    return (pair){s, (a - (s - t)) + (b - t)};
}

static pair two_product(double a, double b) {
    double p = a * b;
    return (pair){p, fma(a, b, -p)};
}

static pair multiply(pair a, pair b) {
    pair p = two_product(a.hi, b.hi);
    return fast_two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

/* c[0] + c[1] x + ... + c[n-1] x^(n-1) */
static double polynomial(double x, int n, const double *c) {
    double y = c[n - 1];
    for (int i = n - 2; i >= 0; i--) y = fma(y, x, c[i]);
    return y;
}

static double power_of_two(int64_t k) { /* -1022 <= k <= 1023 */
    uint64_t bits = (uint64_t)(k + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* log 2 in two parts; the first has 32 bits, so that its product with an exponent is exact */
static const double LOG2_HI = 0x1.62e42feep-1, LOG2_LO = 0x1.a39ef35793c76p-33;

/* exp(x + lo) for |lo| far below |x|: x = k log 2 + r with |r| <= log(2) / 2, then Taylor's series of exp(r).
 */
static double exp_of_sum(double x, double lo) {
    static const double c[] = {1.0 / 2,         1.0 / 6,          1.0 / 24,          1.0 / 120,
                               1.0 / 720,       1.0 / 5040,       1.0 / 40320,       1.0 / 362880,
                               1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0};
    if (isnan(x)) return x;
    if (x > 709.8) return INFINITY;
    if (x < -745.2) return 0;
    double k = rint(x * 1.4426950408889634);
    pair r = fast_two_sum(x - k * LOG2_HI, -k * LOG2_LO); /* the difference is exact */
    pair s = fast_two_sum(1, r.hi);
    double rest = s.lo + r.hi * r.hi * polynomial(r.hi, 12, c);
    double y = s.hi + (rest + (r.lo + lo) * (s.hi + rest));
    int64_t half = (int64_t)k / 2; /* two steps: 2^k itself may not be representable */
    return y * power_of_two(half) * power_of_two((int64_t)k - half);
}

/* log x for finite x > 0 to about 65 bits: x = 2^k m with m in [sqrt 1/2, sqrt 2), and with
 * s = (m - 1) / (m + 1), log m = 2 atanh s = 2 s + 2/3 s^3 + 2/5 s^5 + ...; the first two terms as pairs. */
static pair log_as_pair(double x) {
    static const double c[] = {2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                               2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
    static const pair two_thirds = {0x1.5555555555555p-1, 0x1.5555555555555p-55};
    int k;
    double m = frexp(x, &k); /* in [1/2, 1) */
    if (m < M_SQRT1_2) {
        m *= 2;
        k--;
    }
    double f = m - 1;
    pair d = two_sum(m, 1), s;
    s.hi = f / d.hi;
    s.lo = (fma(-s.hi, d.hi, f) - s.hi * d.lo) / d.hi;
    pair s2 = multiply(s, s), cubic = multiply(two_thirds, multiply(s, s2));
    double rest = s.hi * s2.hi * s2.hi * polynomial(s2.hi, 10, c);
    pair sum = two_sum(k * LOG2_HI, 2 * s.hi), more = two_sum(sum.hi, cubic.hi);
    return fast_two_sum(more.hi, more.lo + (sum.lo + 2 * s.lo + cubic.lo + k * LOG2_LO + rest));
}

double fixed_exp(double x) {
    return exp_of_sum(x, 0);
}

double fixed_log(double x) {
    if (isnan(x) || x < 0) return NAN;
    if (x == 0) return -INFINITY;
    if (isinf(x)) return x;
    return log_as_pair(x).hi;
}

double fixed_pow(double x, double y) {
    if (y == 0 || x == 1) return 1;
    if (!(x > 0)) return x == 0 && y > 0 ? 0 : NAN;
    if (isinf(x) || isinf(y) || isnan(y)) return exp_of_sum(y * fixed_log(x), 0);
    pair l = log_as_pair(x), p = two_product(y, l.hi);
    return exp_of_sum(p.hi, fma(y, l.lo, p.lo));
}

/* x - n pi/2 as a pair, with n the nearest integer (its last two bits in *quadrant), for |x| < 2^20: pi/2 is
 * cut into parts of 33 bits, whose products with n are exact. */
static pair reduce(double x, int *quadrant) {
    double n = rint(x * M_2_PI);
    *quadrant = (int)((int64_t)n & 3);
    double first = x - n * 0x1.921fb544p+0; /* exact */
    pair second = two_sum(first, -n * 0x1.0b4611a6p-34);
    pair third = two_sum(second.hi, -n * 0x1.3198a2ep-69);
    return fast_two_sum(third.hi, second.lo + third.lo - n * 0x1.b839a252049c1p-104);
}

/* Taylor's series for |r| <= pi/4; r.lo enters to first order. */
static double sine_series(pair r) {
    static const double c[] = {-1.0 / 6,
                               1.0 / 120,
                               -1.0 / 5040,
                               1.0 / 362880,
                               -1.0 / 39916800.0,
                               1.0 / 6227020800.0,
                               -1.0 / 1307674368000.0,
                               1.0 / 355687428096000.0};
    double z = r.hi * r.hi;
    return r.hi + (r.hi * z * polynomial(z, 8, c) + r.lo * (1 - z / 2));
}

static double cosine_series(pair r) {
    static const double c[] = {1.0 / 24,
                               -1.0 / 720,
                               1.0 / 40320,
                               -1.0 / 3628800.0,
                               1.0 / 479001600.0,
                               -1.0 / 87178291200.0,
                               1.0 / 20922789888000.0,
                               -1.0 / 6402373705728000.0};
    pair z = two_product(r.hi, r.hi), s = fast_two_sum(1, -z.hi / 2);
    return s.hi + (s.lo - z.lo / 2 + z.hi * z.hi * polynomial(z.hi, 8, c) - r.hi * r.lo);
}

/* sin(x + quarter turns * pi/2) */
static double turned_sine(double x, int quarter_turns) {
    if (!(fabs(x) < 0x1p20)) return NAN;
    int quadrant;
    pair r = reduce(x, &quadrant);
    quadrant = (quadrant + quarter_turns) & 3;
    double y = quadrant & 1 ? cosine_series(r) : sine_series(r);
    return quadrant & 2 ? -y : y;
}

double fixed_sin(double x) {
    return turned_sine(x, 0);
}
double fixed_cos(double x) {
    return turned_sine(x, 1);
}
