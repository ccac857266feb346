/* Times the cpu backend's matrix products on the shapes that matter, as fractions of the machine's own fused
 * multiply-add peak measured in the same run:
 *
 *     bench_gemm [avx2|avx512] [warm|cold] [seconds per shape]
 *
 * warm uses the same matrices each time; cold goes through so many weights (for weight gradients, results)
 * that each is in main memory when its turn comes, as in training.  Figures are medians.  Beside other work
 * set GOMP_SPINCOUNT=10000, or a thread that waits keeps the one it waits for from running. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"
#include "launch/memory.h"

enum { SAMPLES = 15, EXPERTS = 16, COLD_BYTES = 64 << 20 };

typedef struct shape {
    int64_t m, n, k;
    const char *forms; /* of "NT NN TN" */
} shape;

static const shape dense[] = {
    {1024, 1024, 1024, "NT NN TN"}, {4096, 768, 768, "NT NN TN"}, {4096, 32768, 256, "NT NN"},
    {64, 512, 256, "NT NN TN"},     {8, 512, 256, "NT NN TN"},    {256, 112, 128, "NT NN"},
    {256, 192, 64, "NT NN"},        {256, 256, 32, "NT NN"},      {256, 128, 128, "NT NN"},
    {256, 512, 128, "NT NN"},       {256, 128, 256, "NT NN"},     {256, 4096, 128, "NT NN"},
    {512, 128, 256, "TN"},          {128, 256, 256, "TN"},        {192, 64, 256, "TN"},
    {128, 128, 64, "TN"},           {4096, 128, 128, "TN"},
};

/* Rows of the experts: all alike, and uneven with empty ones. */
typedef struct group {
    const char *name;
    int rows[EXPERTS];
    int64_t n, k;
} group;

static const group grouped[] = {
    {"16 x 32 rows", {32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32}, 128, 128},
    {"16 x 32 rows", {32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32}, 128, 64},
    {"16 x 64 rows", {64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64}, 128, 128},
    {"16 x 64 rows", {64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64}, 128, 64},
    {"8 to 512 rows", {8, 512, 0, 77, 150, 33, 260, 64, 0, 15, 402, 100, 48, 20, 310, 96}, 128, 128},
    {"8 to 512 rows", {8, 512, 0, 77, 150, 33, 260, 64, 0, 15, 402, 100, 48, 20, 310, 96}, 512, 256},
};

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct product {
    const kernels *kernel;
    gemm_form form;
    shape s;
    const group *g; /* NULL for a dense product */
    segment segments[EXPERTS];
    float *a, *b, *c;
    int64_t weights; /* elements of b, or of c for weight gradients */
    int copies, turn;
} product;

static void multiply(product *p) {
    kernel_context *ctx = p->kernel->ctx;
    const shape s = p->s;
    const int64_t at = p->turn * p->weights;
    float *b = p->form == GEMM_TN ? p->b : p->b + at, *c = p->form == GEMM_TN ? p->c + at : p->c;
    p->turn = (p->turn + 1) % p->copies;
    if (!p->g)
        p->kernel->gemm(ctx, p->form, s.m, s.n, s.k, c, s.n, NULL, p->a, p->form == GEMM_TN ? s.m : s.k, b,
                        p->form == GEMM_NT ? s.k : s.n);
    else if (p->form == GEMM_TN)
        p->kernel->grouped_gemm_dw(ctx, EXPERTS, p->segments, s.n, s.k, c, s.n * s.k, p->a, b);
    else p->kernel->grouped_gemm(ctx, p->form, EXPERTS, p->segments, s.n, s.k, c, p->a, b, s.n * s.k);
}

/* The median over samples that last about budget seconds together. */
static double median_seconds(product *p, double budget) {
    double sample[SAMPLES];
    multiply(p);
    double start = seconds();
    multiply(p);
    const double once = seconds() - start;
    const int repeat = once > budget / SAMPLES ? 1 : (int)(budget / SAMPLES / once);
    const int samples = once > budget / 3 ? 3 : SAMPLES;
    for (int i = 0; i < samples; i++) {
        start = seconds();
        for (int r = 0; r < repeat; r++) multiply(p);
        sample[i] = (seconds() - start) / repeat;
    }
    qsort(sample, (size_t)samples, sizeof *sample, by_value);
    return sample[samples / 2];
}

static float *random_buffer(arena *memory, int64_t n) {
    float *x = arena_alloc(memory, (size_t)n * sizeof *x);
    uint64_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(state >> 40) * 0x1p-24f - 0.5f;
    }
    return x;
}

/* One line: the shape, then GFLOP/s and per cent of peak for each number of threads. */
static void bench(product *p, const char *name, const kernels *kernel, const double *peak, int cold,
                  double budget) {
    static const char *form_name[] = {"NT", "NN", "TN"};
    const shape s = p->s;
    const int64_t experts = p->g ? EXPERTS : 1, wider = s.k > s.n ? s.k : s.n;
    const int gradient = p->form == GEMM_TN;
    p->weights = !gradient ? experts * s.n * s.k : p->g ? experts * s.n * s.k : s.m * s.n;
    p->copies = cold ? 1 + (int)(COLD_BYTES / 4 / p->weights) : 1;
    const int64_t all = p->copies * p->weights;
    const int64_t a = s.m * (p->g ? wider : s.k), b = gradient ? (p->g ? s.m * wider : s.n * s.k) : all;
    const int64_t c = gradient ? all : s.m * s.n;
    arena memory = arena_create("a benchmark's matrices", (size_t)(a + b + c + 64) * sizeof(float));
    p->a = random_buffer(&memory, a);
    p->b = random_buffer(&memory, b);
    p->c = random_buffer(&memory, c);
    printf("%-15s %s %6ld %6ld %6ld ", name, form_name[p->form], (long)s.m, (long)s.n, (long)s.k);
    for (int threads = 1; threads <= 2; threads++) {
        p->kernel = &kernel[threads - 1];
        const double flops = 2.0 * (double)s.m * (double)s.n * (double)s.k / median_seconds(p, budget);
        printf(" %8.1f %5.1f%%", 1e-9 * flops, 100 * flops / peak[threads - 1]);
    }
    printf("\n");
    fflush(stdout);
    arena_destroy(&memory);
}

int main(int argc, char **argv) {
    const int wide = argc > 1 ? strcmp(argv[1], "avx2") != 0 : __builtin_cpu_supports("avx512vl");
    const int cold = argc > 2 && strcmp(argv[2], "cold") == 0;
    const double budget = argc > 3 ? atof(argv[3]) : 0.05;
    kernels kernel[2] = {{0}, {0}};
    double peak[2];
    for (int threads = 1; threads <= 2; threads++) {
        (wide ? kernels_cpu_avx512 : kernels_cpu_avx2)(&kernel[threads - 1], threads);
        peak[threads - 1] = kernels_measure_peak(wide ? "avx512" : "avx2", threads);
    }
    printf("%s, %s, fused multiply-add peak %.1f GFLOP/s on one thread, %.1f on two\n",
           wide ? "avx512" : "avx2", cold ? "cold" : "warm", 1e-9 * peak[0], 1e-9 * peak[1]);
    printf("%-15s %s %6s %6s %6s  %8s %6s %8s %6s\n", "", "  ", "M", "N", "K", "1 thread", "", "2", "");
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++) {
        for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
            static const char *names[] = {"NT", "NN", "TN"};
            product p = {.form = form, .s = dense[i]};
            if (strstr(dense[i].forms, names[form])) bench(&p, "gemm", kernel, peak, cold, budget);
        }
    }
    for (size_t i = 0; i < sizeof grouped / sizeof *grouped; i++) {
        for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
            product p = {.form = form, .g = &grouped[i], .s = {0, grouped[i].n, grouped[i].k, NULL}};
            for (int e = 0; e < EXPERTS; e++) {
                p.segments[e] = (segment){p.s.m, grouped[i].rows[e], e};
                p.s.m += grouped[i].rows[e];
            }
            bench(&p, grouped[i].name, kernel, peak, cold, budget);
        }
    }
    for (int i = 0; i < 2; i++) kernels_close(&kernel[i]);
    return 0;
}
