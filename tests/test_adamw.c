/* AdamW against its formula in double, over 100 steps: gradients from 1 down to 1e-18, whose second moments
 * reach the edge of float's normal range and go below it, and moments that decay into the denormals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>

#include "launch/random.h"
#include "tests/backends.h"

enum { N = 67, STEPS = 100 }; /* whole vectors and a rest */

/* The formula in double.  size is what m would be if all gradients had one sign: the elements whose
 * gradients have no such sign are judged by it, since their m is a difference of larger numbers. */
typedef struct exact {
    double m, v, size;
} exact;

static double exact_step(exact *x, adamw_step s, double g, double *size) {
    g *= s.grad_scale;
    x->m = s.beta1 * x->m + (1 - s.beta1) * g;
    x->size = s.beta1 * x->size + (1 - s.beta1) * fabs(g);
    x->v = s.beta2 * x->v + (1 - s.beta2) * g * g;
    double root = sqrt(x->v / s.correction2) + s.eps;
    *size = x->size / s.correction1 / root;
    return x->m / s.correction1 / root;
}

/* Gradients of the first half keep one sign.  falls: every other one is far smaller than the one before. */
static real gradient(double size, int falls, int i, int step) {
    if (falls && step % 2) size *= 1e-5;
    double u = random_uniform(7, (uint64_t)step, (uint64_t)i);
    double sign = i >= N / 2 && random_bits(8, (uint64_t)step, (uint64_t)i) & 1 ? -1 : 1;
    return (real)(sign * size * (0.5 + u));
}

/* The largest error of an update, relative.  p is zero before each step, so that what it holds afterwards is
 * the update and nothing of p's own rounding. */
static double worst_update(const kernels *k, double size, int falls, const double *beta, double eps,
                           double grad_scale) {
    real p[N], m[N] = {0}, v[N] = {0}, g[N];
    exact want[N] = {{0, 0, 0}};
    double worst = 0;
    for (int t = 1; t <= STEPS; t++) {
        adamw_step s = {
            3e-4, beta[0], beta[1], eps, 0.1, grad_scale, 1 - pow(beta[0], t), 1 - pow(beta[1], t)};
        memset(p, 0, sizeof p);
        for (int i = 0; i < N; i++) g[i] = gradient(size, falls, i, t);
        k->adamw(k->ctx, N, s, p, m, v, g);
        for (int i = 0; i < N; i++) {
            double scale, update = exact_step(&want[i], s, (double)g[i], &scale);
            if (!isfinite(p[i]) || !(v[i] > 0)) return INFINITY;
            double error = fabs((double)p[i] + s.lr * update) / (s.lr * scale);
            if (!(error <= worst)) worst = error;
        }
    }
    return worst;
}

static void expect_formula(const kernels *k) {
    static const double beta[][2] = {{0.9, 0.95}, {0.9, 0.99}, {0.9, 0.999}};
    static const double eps[] = {1e-16, 1e-30}, scale[] = {1, 0.37};
    double worst = 0;
    for (int e = 0; e <= 18; e += 3) {
        for (int c = 0; c < 12; c++) {
            double size = pow(10, -e);
            double error = worst_update(k, size, 0, beta[c % 3], eps[c / 3 % 2], scale[c / 6]);
            if (!(error <= 1e-5))
                fail_msg("%s: gradients of %g, beta2 %g, eps %g, clip factor %g: an update is off by %g",
                         k->name, size, beta[c % 3][1], eps[c / 3 % 2], scale[c / 6], error);
            worst = fmax(worst, error);
        }
    }
    print_message("    %s: largest relative error of an update %.1e\n", k->name, worst);
}

/* Betas that hardly remember, and gradients that fall by 1e-5 from one step to the next. */
static void expect_short_memory(const kernels *k) {
    static const double beta[][2] = {{0, 0}, {0, 0.95}, {0.9, 0}, {0.3, 0.4}, {0.5, 0.5}, {0.9, 0.95}};
    for (int c = 0; c < 6; c++) {
        double error = worst_update(k, 1e-3, 1, beta[c], 1e-16, 1);
        if (!(error <= 1e-5))
            fail_msg("%s: falling gradients, beta1 %g, beta2 %g: an update is off by %g", k->name, beta[c][0],
                     beta[c][1], error);
    }
}

/* A parameter that gets no gradient any more (the embedding of a rare token): its moments fall through the
 * denormals, where each step may be off by half of float's least number, and never below it in one step. */
static void expect_decay(const kernels *k) {
    const double beta2 = 0.95, half = 0x1p-150;
    real p[N] = {0}, m[N], v[N], g[N] = {0};
    for (int i = 0; i < N; i++) {
        m[i] = (real)(1e-19 * (i + 1));
        v[i] = (real)(1e-38 * (i + 1));
    }
    adamw_step s = {3e-4, 0.9, beta2, 1e-16, 0, 1, 1, 1};
    for (int t = 0; t < 250; t++) {
        real before[N];
        memcpy(before, v, sizeof v);
        k->adamw(k->ctx, N, s, p, m, v, g);
        for (int i = 0; i < N; i++) {
            double want = beta2 * (double)before[i];
            if (!(fabs((double)v[i] - want) <= half + 0x1p-23 * want))
                fail_msg("%s: a second moment of %a became %a", k->name, (double)before[i], (double)v[i]);
        }
    }
    for (int i = 0; i < N; i++) assert_true(v[i] > 0 && v[i] < FLT_MIN);
}

static void run_all(const kernels *k) {
    expect_formula(k);
    expect_short_memory(k);
    expect_decay(k);
}

BACKEND_TESTS(run_all, 1);

int main(void) {
    return cmocka_run_group_tests(backend_tests, NULL, NULL);
}
