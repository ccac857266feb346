/* Comparing a gradient with central differences: fixture, random buffers, directions.
 *
 * For random weights c, the scalar f(x) = <c, y(x)> has the gradient that a backward returns for dy = c.  It
 * is compared along random directions v: <gradient, v> against (f(x + h v) - f(x - h v)) / 2h; every
 * direction sees every element. */
#ifndef CARACAL_TESTS_GRADIENTS_H
#define CARACAL_TESTS_GRADIENTS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "launch/memory.h"
#include "launch/random.h"

enum { DIRECTIONS = 6, MOST = 64 };
static const double STEP = 0x1p-17; /* (2^-17)^2 of truncation and 2^-53 / 2^-17 of rounding */
static const double LIMIT = 1e-8;

typedef struct bench {
    kernels k;
    uint64_t seed, stream; /* a new stream for each buffer */
    void *owned[MOST];
    int count;
} bench;

static int set_up(void **state) {
    bench *b = mem_alloc(sizeof *b, "test");
    kernels_ref(&b->k, 2);
    *state = b;
    return 0;
}

static int tear_down(void **state) {
    bench *b = *state;
    kernels_close(&b->k);
    mem_free(b);
    return 0;
}

static void begin(bench *b, uint64_t seed) {
    b->seed = seed;
    b->stream = 0;
}

static void end(bench *b) {
    while (b->count) mem_free(b->owned[--b->count]);
}

static void *own(bench *b, int64_t n, size_t size) {
    assert_true(b->count < MOST);
    return b->owned[b->count++] = mem_alloc((size_t)n * size, "test");
}

static real *zeros(bench *b, int64_t n) {
    return own(b, n, sizeof(real));
}

static real *values(bench *b, int64_t n) { /* in (-1, 1) */
    real *x = zeros(b, n);
    b->stream++;
    for (int64_t i = 0; i < n; i++) x[i] = 2 * random_uniform(b->seed, b->stream, (uint64_t)i) - 1;
    return x;
}

static int32_t *integers(bench *b, int64_t n, uint64_t below) {
    int32_t *x = own(b, n, sizeof *x);
    b->stream++;
    for (int64_t i = 0; i < n; i++) x[i] = (int32_t)(random_bits(b->seed, b->stream, (uint64_t)i) % below);
    return x;
}

static double dot(int64_t n, const real *a, const real *b) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* One forward pass: the scalar whose gradient is tested. */
typedef double (*scalar)(const kernels *k, const void *inputs);

static void check_gradient(bench *b, const char *what, scalar f, const void *inputs, int64_t n, real *x,
                           const real *gradient) {
    double worst = 0, size = sqrt(dot(n, gradient, gradient));
    assert_true(isfinite(size) && size > 0);
    for (int r = 0; r < DIRECTIONS; r++) {
        real *v = values(b, n), *saved = zeros(b, n);
        memcpy(saved, x, (size_t)n * sizeof *x);
        for (int64_t i = 0; i < n; i++) x[i] = saved[i] + STEP * v[i];
        double up = f(&b->k, inputs);
        for (int64_t i = 0; i < n; i++) x[i] = saved[i] - STEP * v[i];
        double down = f(&b->k, inputs);
        memcpy(x, saved, (size_t)n * sizeof *x);
        double error = fabs((up - down) / (2 * STEP) - dot(n, gradient, v)) / size;
        if (!(error <= worst)) worst = error;
        b->count -= 2;
        mem_free(v);
        mem_free(saved);
    }
    print_message("    %-28s %6ld numbers, seed %2lu: relative error %.1e\n", what, (long)n,
                  (unsigned long)b->seed, worst);
    assert_true(worst < LIMIT);
}

#endif
