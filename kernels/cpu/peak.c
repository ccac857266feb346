/* The machine's own peak of multiply-adds: what the speed of everything else is a fraction of. */
#include "kernels/cpu/bf16.h"

#include <math.h>
#include <time.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/peak.h"

enum { CHAINS = 12 };

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Twelve chains, so that the latency of none is seen.  The asm keeps the compiler from knowing any value. */
#define SPIN(name, STEP)                                                                                     \
    static void name(int64_t steps) {                                                                        \
        const gemm_vec u = SPREAD(0.5f);                                                                     \
        gemm_vec a = SPREAD(1), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a; \
        for (int64_t step = 0; step < steps; step++) {                                                       \
            STEP(a, u), STEP(b, u), STEP(c, u), STEP(d, u), STEP(e, u), STEP(f, u);                          \
            STEP(g, u), STEP(h, u), STEP(i, u), STEP(j, u), STEP(k, u), STEP(l, u);                          \
            __asm__ volatile("" : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f));                     \
            __asm__ volatile("" : "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l));                     \
        }                                                                                                    \
    }
#define MULTIPLY_ADD(x, u) x = FMA(x, u, u)
SPIN(spin_float, MULTIPLY_ADD)
#ifdef __AVX512F__
#define DOT(x, u) x = dot_pairs(u, u, x)
SPIN(spin_bf16, DOT)
#endif

/* By dtype: what spins, and how many products a lane and step are. */
static const struct {
    void (*spin)(int64_t steps);
    int products;
} way[] = {{spin_float, 1},
#ifdef __AVX512F__
           {spin_bf16, 2}
#else
           {spin_float, 1} /* what computes bf16 there */
#endif
};

static double run(int threads, int64_t steps, void (*spin)(int64_t)) {
    const double start = seconds();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int thread = 0; thread < threads; thread++) spin(steps);
    return seconds() - start;
}

/* FLOP of a thread. */
static double work(kernels_dtype dtype, int64_t steps) {
    return 2.0 * way[dtype].products * GEMM_LANES * CHAINS * (double)steps;
}

double CPU_(measure_peak)(int threads, kernels_dtype dtype) {
    void (*spin)(int64_t) = way[dtype].spin;
    const int64_t steps = 1 << 18; /* a millisecond or two */
    run(threads, steps, spin);     /* wakes the threads and the clock */
    double best = run(threads, steps, spin), total = best;
    while (total < 0.02) {
        const double once = run(threads, steps, spin);
        total += once;
        if (once < best) best = once;
    }
    return work(dtype, steps) * threads / best;
}

/* The shortest time of a spin, of those that end before `until`: later, other threads may have ended and left
 * this one more than its share of a core.  If none does, the first one's time. */
static double shortest(void (*spin)(int64_t), int64_t steps, double until) {
    for (double best = INFINITY;;) {
        const double start = seconds();
        spin(steps);
        const double end = seconds();
        if (end > until && best < INFINITY) return best;
        best = fmin(best, end - start);
    }
}

double CPU_(measure_own_peaks)(int threads, kernels_dtype dtype) {
    void (*spin)(int64_t) = way[dtype].spin;
    const int64_t steps = 1 << 16; /* a part of a millisecond: another process may well leave it alone */
    const double until = seconds() + 0.03;
    double rates = 0;
#pragma omp parallel num_threads(threads) reduction(+ : rates)
    {
        spin(4 * steps); /* wakes the clock */
#pragma omp barrier
        rates += 1 / shortest(spin, steps, until);
    }
    return work(dtype, steps) * rates;
}
