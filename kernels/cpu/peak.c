/* The machine's own fused multiply-add peak: what the speed of everything else is a fraction of. */
#include "kernels/cpu/peak.h"

#include <time.h>

#include "kernels/cpu/gemm_tile.h"

#ifdef __AVX512F__
#define FMA(x, y, z) _mm512_fmadd_ps(x, y, z)
#define SPREAD(x)    _mm512_set1_ps(x)
#else
#define FMA(x, y, z) _mm256_fmadd_ps(x, y, z)
#define SPREAD(x)    _mm256_set1_ps(x)
#endif

enum { CHAINS = 12 };

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Twelve chains, so that the latency of none is seen.  The asm keeps the compiler from knowing any value. */
static void spin(int64_t steps) {
    const gemm_vec factor = SPREAD(0.5f);
    gemm_vec a = SPREAD(1), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
    for (int64_t step = 0; step < steps; step++) {
        a = FMA(a, factor, factor), b = FMA(b, factor, factor), c = FMA(c, factor, factor);
        d = FMA(d, factor, factor), e = FMA(e, factor, factor), f = FMA(f, factor, factor);
        g = FMA(g, factor, factor), h = FMA(h, factor, factor), i = FMA(i, factor, factor);
        j = FMA(j, factor, factor), k = FMA(k, factor, factor), l = FMA(l, factor, factor);
        __asm__ volatile("" : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f));
        __asm__ volatile("" : "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l));
    }
}

static double run(int threads, int64_t steps) {
    const double start = seconds();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int thread = 0; thread < threads; thread++) spin(steps);
    return seconds() - start;
}

double CPU_(measure_peak)(int threads) {
    const int64_t steps = 1 << 18; /* a millisecond or two */
    run(threads, steps);           /* wakes the threads and the clock */
    double best = run(threads, steps), total = best;
    while (total < 0.02) {
        const double once = run(threads, steps);
        total += once;
        if (once < best) best = once;
    }
    return 2.0 * GEMM_LANES * CHAINS * (double)steps * threads / best;
}
