/* Times the cpu backend's operations beside the matrix products: attention as a fraction of the fused
 * multiply-add peak, the others as a fraction of what copying memory reaches, both measured in the same run:
 *     bench_ops [avx2|avx512] [seconds per line] [only operations whose name holds this] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"
#include "launch/memory.h"

enum { FEWEST = 3, BUFFERS = 8, MOST_THREADS = 2, ELEMENTS = 8 << 20 };

/* One call to time.  The meaning of size and buffer is the operation's own. */
typedef struct call {
    const kernels *k;
    int64_t size[3];
    attention_shape attention;
    float *x[BUFFERS];
    int32_t *ids;
} call;

static void run_copy(const call *c) {
    c->k->copy(c->k->ctx, c->size[0], c->x[0], c->x[1]);
}
static void run_add(const call *c) {
    c->k->add(c->k->ctx, c->size[0], c->x[0], c->x[1]);
}
static void run_norm_forward(const call *c) {
    int64_t cols = c->size[1];
    c->k->rms_norm_forward(c->k->ctx, c->size[0], cols, 1e-5, 1, c->x[0], cols, c->x[1], c->x[2], cols,
                           c->x[3]);
}
static void run_norm_backward(const call *c) {
    int64_t cols = c->size[1];
    c->k->rms_norm_backward(c->k->ctx, c->size[0], cols, 1, c->x[0], cols, NULL, c->x[1], c->x[2], cols,
                            c->x[3], cols, c->x[4], c->x[5]);
}
static void run_swiglu_forward(const call *c) {
    c->k->swiglu_forward(c->k->ctx, c->size[0], c->size[1], c->x[0], c->x[1]);
}
static void run_swiglu_backward(const call *c) {
    c->k->swiglu_backward(c->k->ctx, c->size[0], c->size[1], c->x[0], c->x[1], c->x[2], c->x[3], c->x[4],
                          c->x[2]);
}
static void run_cross_entropy(const call *c) {
    c->k->cross_entropy(c->k->ctx, c->size[0], c->size[1], 1, c->x[0], NULL, c->x[1], c->ids);
}
static void run_adamw(const call *c) {
    adamw_step s = {1e-4, 0.9, 0.95, 1e-16, 0.1, 1, 0.5, 0.5};
    c->k->adamw(c->k->ctx, c->size[0], s, c->x[0], c->x[1], c->x[2], c->x[3]);
}
static void run_sum_squares(const call *c) {
    c->k->sum_squares(c->k->ctx, c->size[0], (double *)c->x[0], c->x[1]);
}
static void run_digest(const call *c) {
    c->k->digest(c->k->ctx, c->size[0], (uint64_t *)c->x[0], c->x[1]);
}
static void run_router(const call *c) {
    router_shape s = {c->size[0], c->size[1], 0, c->size[2], 6};
    c->k->router_forward(c->k->ctx, s, c->x[0], c->ids, c->x[1], (int64_t *)c->x[2], c->x[3], c->x[4],
                         c->x[5]);
}
static void run_rope(const call *c) {
    int64_t heads = c->size[1], pairs = c->size[2];
    c->k->rope(c->k->ctx, c->size[0], c->size[0], heads, pairs, 0, c->x[0], heads * 2 * pairs, 2 * pairs,
               c->x[1], c->x[2]);
}
static void run_attention_forward(const call *c) {
    c->k->attention_forward(c->k->ctx, c->attention, c->x[0], c->x[1], c->x[2], c->x[3], c->x[4],
                            c->attention.rope, NULL);
}
static void run_attention_backward(const call *c) {
    c->k->attention_backward(c->k->ctx, c->attention, c->x[5], c->x[6], c->x[7], c->attention.rope, c->x[0],
                             c->x[0], c->x[1], c->x[2], c->x[3], c->x[4], c->attention.rope, NULL);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The fastest call of those that fit into about `budget` seconds: what the machine can do, whoever else is on
 * it. */
static double fastest(void (*run)(const call *), const call *c, double budget) {
    double best = 1e30, begin = seconds(), now = begin;
    run(c);
    for (int i = 0; i < FEWEST || now - begin < budget; i++) {
        double start = seconds();
        run(c);
        now = seconds();
        if (now - start < best) best = now - start;
    }
    return best;
}

static float *random_buffer(arena *a, int64_t n) {
    arena_alloc(a, 832); /* no two buffers at the same place of a page */
    float *x = arena_alloc(a, (size_t)n * sizeof *x);
    uint64_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(state >> 40) * 0x1p-24f + 0.1f; /* positive: some are second moments */
    }
    return x;
}

/* What is measured, and what it is measured against. */
typedef struct machine {
    kernels kernel[MOST_THREADS];
    double peak[MOST_THREADS], copy[MOST_THREADS]; /* FLOP/s, bytes/s */
    double budget;
    const char *only;
} machine;

/* One line: for each number of threads, `work` a second and its fraction of the limit. */
static void line(const machine *m, const char *name, void (*run)(const call *), call c, double work,
                 const double *limit) {
    char sizes[64];
    if (m->only && !strstr(name, m->only)) return;
    if (c.attention.seq)
        snprintf(sizes, sizeof sizes, "%ldx%ld, %ld heads of %ld+%ld, %ld", (long)c.attention.batch,
                 (long)c.attention.seq, (long)c.attention.heads, (long)c.attention.nope,
                 (long)c.attention.rope, (long)c.attention.v);
    else if (c.size[2])
        snprintf(sizes, sizeof sizes, "%ld x %ld, %ld", (long)c.size[0], (long)c.size[1], (long)c.size[2]);
    else if (c.size[1]) snprintf(sizes, sizeof sizes, "%ld x %ld", (long)c.size[0], (long)c.size[1]);
    else snprintf(sizes, sizeof sizes, "%ld", (long)c.size[0]);
    printf("%-19s %-30s", name, sizes);
    for (int t = 0; t < MOST_THREADS; t++) {
        c.k = &m->kernel[t];
        double rate = work / fastest(run, &c, m->budget);
        printf(" %8.1f %5.1f%%", 1e-9 * rate, 100 * rate / limit[t]);
    }
    printf("\n");
    fflush(stdout);
}

static void bench_memory(const machine *m, float **x, int32_t *ids) {
    enum { N = ELEMENTS };
    const double *copy = m->copy, n = (double)N;
    line(m, "copy", run_copy, (call){.size = {N}, .x = {x[0], x[1]}}, 8 * n, copy);
    line(m, "add", run_add, (call){.size = {N}, .x = {x[0], x[1]}}, 12 * n, copy);
    line(m, "adamw", run_adamw, (call){.size = {N}, .x = {x[0], x[1], x[2], x[3]}}, 28 * n, copy);
    line(m, "sum_squares", run_sum_squares, (call){.size = {N}, .x = {x[0], x[1]}}, 4 * n, copy);
    line(m, "digest", run_digest, (call){.size = {N}, .x = {x[0], x[1]}}, 4 * n, copy);

    static const int64_t row[][2] = {{256, 128}, {256, 512}, {4096, 768}, {4096, 2048}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        call c = {.size = {row[i][0], row[i][1]}, .x = {x[0], x[1], x[2], x[3], x[4], x[5]}};
        double elements = (double)(row[i][0] * row[i][1]);
        line(m, "rms_norm_forward", run_norm_forward, c, 8 * elements, copy);
        line(m, "rms_norm_backward", run_norm_backward, c, 12 * elements, copy);
        c.size[1] /= 2; /* of which gu has two */
        line(m, "swiglu_forward", run_swiglu_forward, c, 6 * elements, copy);
        line(m, "swiglu_backward", run_swiglu_backward, c, 12 * elements, copy);
    }
    line(m, "cross_entropy", run_cross_entropy, (call){.size = {128, 4096}, .x = {x[2], x[1]}, .ids = ids},
         8.0 * 128 * 4096, copy);
    line(m, "cross_entropy", run_cross_entropy, (call){.size = {128, 32768}, .x = {x[2], x[1]}, .ids = ids},
         8.0 * 128 * 32768, copy);
    line(m, "rope", run_rope, (call){.size = {4096, 16, 32}, .x = {x[1], x[2], x[3]}}, 8.0 * 4096 * 16 * 64,
         copy);
    call router = {.size = {4096, 24, 4}, .x = {x[0], x[1], x[2], x[3], x[4], x[5]}, .ids = ids};
    line(m, "router_forward", run_router, router, 8.0 * 4096 * 24, copy);
    router.size[1] = 768, router.size[2] = 12;
    line(m, "router_forward", run_router, router, 8.0 * 4096 * 768, copy);
}

/* AdamW where second moments are denormal, near 1e-42.  Last, for it spoils its buffers. */
static void bench_denormal(const machine *m, float **x) {
    for (int64_t i = 0; i < ELEMENTS; i++) {
        x[1][i] *= 1e-21f;
        x[2][i] *= 1e-42f;
        x[3][i] *= 1e-21f;
    }
    call c = {.size = {ELEMENTS}, .x = {x[0], x[1], x[2], x[3]}};
    line(m, "adamw, denormals", run_adamw, c, 28.0 * ELEMENTS, m->copy);
}

static void bench_attention(const machine *m, float **x) {
    static const attention_shape shape[] = {
        {1, 256, 4, 32, 16, 32, 0},  {4, 256, 4, 32, 16, 32, 0},  {1, 1024, 8, 48, 16, 64, 0},
        {1, 2048, 8, 48, 16, 64, 0}, {1, 4096, 8, 48, 16, 64, 0}, {1, 2048, 8, 128, 64, 128, 0},
    };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        attention_shape s = shape[i];
        call c = {.attention = s};
        memcpy(c.x, x, sizeof c.x);
        double pairs = 0.5 * (double)(s.batch * s.heads * s.seq) * (double)(s.seq + 1); /* the triangle */
        double width = (double)(s.nope + s.rope), v = (double)s.v;
        line(m, "attention_forward", run_attention_forward, c, 2 * pairs * (width + v), m->peak);
        line(m, "attention_backward", run_attention_backward, c, 2 * pairs * (3 * width + 2 * v), m->peak);
    }
}

int main(int argc, char **argv) {
    int wide = argc > 1 ? strcmp(argv[1], "avx2") != 0 : __builtin_cpu_supports("avx512vl");
    machine m = {.budget = argc > 2 ? atof(argv[2]) : 0.1, .only = argc > 3 ? argv[3] : NULL};
    float *x[BUFFERS];
    int32_t *ids = mem_alloc(sizeof *ids << 20, "a benchmark's targets");
    arena a = arena_create("of the benchmark",
                           (size_t)BUFFERS * (ELEMENTS + 256) * sizeof(float)); /* as training has */
    for (int i = 0; i < BUFFERS; i++) x[i] = random_buffer(&a, ELEMENTS);
    for (int t = 0; t < MOST_THREADS; t++) {
        (wide ? kernels_cpu_avx512 : kernels_cpu_avx2)(&m.kernel[t], t + 1);
        m.peak[t] = kernels_measure_peak(wide ? "avx512" : "avx2", t + 1);
        call c = {.k = &m.kernel[t], .size = {ELEMENTS}, .x = {x[0], x[1]}};
        m.copy[t] = 8.0 * ELEMENTS / fastest(run_copy, &c, 0.3);
    }
    printf("%s: peak %.1f GFLOP/s on one thread, %.1f on two; copy %.1f GB/s, %.1f\n", m.kernel[0].name,
           1e-9 * m.peak[0], 1e-9 * m.peak[1], 1e-9 * m.copy[0], 1e-9 * m.copy[1]);
    printf("%-50s %15s %15s   (GFLOP/s of attention, GB/s of the others)\n", "", "one thread", "two");
    bench_attention(&m, x);
    bench_memory(&m, x, ids);
    bench_denormal(&m, x);
    for (int t = 0; t < MOST_THREADS; t++) kernels_close(&m.kernel[t]);
    arena_destroy(&a);
    mem_free(ids);
    return 0;
}
