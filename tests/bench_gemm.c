/* Matrix products on the shapes that matter, on the same matrices each time, as peers are measured; packing
 * is part of the call.  Where few rows are multiplied by a weight, once more with the weight held, which the
 * backend then packs once (hold in kernels/kernels.h). */
#include <string.h>

#include "launch/memory.h"
#include "tests/bench.h"

enum { EXPERTS = 16, FEW_ROWS = 64 };

typedef struct shape {
    int64_t m, n, k;
} shape;

/* The first five are what the targets are about, the others what configs/bench.yaml and nano.yaml multiply.
 */
static const shape dense[] = {
    {1024, 1024, 1024}, {4096, 768, 768}, {4096, 32768, 256}, {64, 512, 256},  {8, 512, 256},
    {512, 1024, 256},   {512, 256, 512},  {512, 272, 256},    {512, 256, 128}, {256, 256, 128},
};

/* Rows of the experts: all alike, and uneven with empty ones. */
typedef struct group {
    int rows[EXPERTS];
    int64_t n, k;
} group;

static const group grouped[] = {
    {{128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128}, 256, 256},
    {{8, 512, 0, 77, 150, 33, 260, 64, 0, 15, 402, 100, 48, 20, 310, 96}, 256, 128},
    {{8, 512, 0, 77, 150, 33, 260, 64, 0, 15, 402, 100, 48, 20, 310, 96}, 256, 256},
    {{8, 512, 0, 77, 150, 33, 260, 64, 0, 15, 402, 100, 48, 20, 310, 96}, 512, 256},
};

typedef struct product {
    const kernels *kernel;
    gemm_form form;
    shape s;
    const segment *segments; /* NULL for a dense product */
    float *a, *b, *c;
    int held;
} product;

static void multiply(void *what) {
    product *p = what;
    kernel_context *ctx = p->kernel->ctx;
    const shape s = p->s;
    if (!p->segments)
        p->kernel->gemm(ctx, p->form, s.m, s.n, s.k, p->c, s.n, NULL, p->a, p->form == GEMM_TN ? s.m : s.k,
                        p->b, p->form == GEMM_NT ? s.k : s.n);
    else if (p->form == GEMM_TN)
        p->kernel->grouped_gemm_dw(ctx, EXPERTS, p->segments, s.n, s.k, p->c, s.n * s.k, p->a, p->b);
    else p->kernel->grouped_gemm(ctx, p->form, EXPERTS, p->segments, s.n, s.k, p->c, p->a, p->b, s.n * s.k);
}

/* A line for each dtype and number of threads. */
static void bench_lines(bench *b, const char *op, product *p) {
    static const char *form[] = {"nt", "nn", "tn"};
    const shape s = p->s;
    for (int run = 0; run < b->dtypes * b->variants; run++) {
        const kernels_dtype dtype = (kernels_dtype)(run / b->variants);
        const int v = run % b->variants;
        bench_limits(b);
        p->kernel = bench_kernels(b, dtype, v);
        char name[32];
        strcpy(name, op);
        strcat(name, form[p->form]);
        json_t *entry = json_pack("{ss ss sI sI sI}", "op", name, "dtype", bench_dtype[dtype], "m",
                                  (json_int_t)s.m, "n", (json_int_t)s.n, "k", (json_int_t)s.k);
        if (p->held) json_object_set_new(entry, "held", json_true());
        if (p->held) p->kernel->hold(p->kernel->ctx, s.n * s.k, p->b);
        bench_add(b, "gemm", entry, v, 2.0 * (double)s.m * (double)s.n * (double)s.k,
                  bench_median(b, v, multiply, p));
        p->kernel->hold(p->kernel->ctx, 0, NULL);
    }
}

static void bench_product(bench *b, const char *op, product *p) {
    const shape s = p->s;
    const int is_grouped = p->segments != NULL, gradient = p->form == GEMM_TN;
    const int64_t experts = is_grouped ? EXPERTS : 1, wider = s.k > s.n ? s.k : s.n;
    const int64_t weights = experts * s.n * s.k;
    const int64_t a_size = s.m * (is_grouped ? wider : s.k);
    const int64_t b_size = gradient && is_grouped ? s.m * wider : weights;
    const int64_t c_size = gradient && is_grouped ? weights : s.m * s.n;
    arena memory =
        arena_create("a benchmark's matrices", (size_t)(a_size + b_size + c_size + 4096) * sizeof(float));
    p->a = bench_buffer(&memory, a_size);
    p->b = bench_buffer(&memory, b_size);
    p->c = bench_buffer(&memory, c_size);
    bench_lines(b, op, p);
    p->held = !is_grouped && p->form == GEMM_NT && s.m <= FEW_ROWS;
    if (p->held) bench_lines(b, op, p);
    arena_destroy(&memory);
}

void bench_gemm(bench *b) {
    for (size_t i = 0; i < sizeof dense / sizeof *dense && bench_wants(b, "gemm"); i++) {
        for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++)
            bench_product(b, "", &(product){.form = form, .s = dense[i]});
    }
    for (size_t i = 0; i < sizeof grouped / sizeof *grouped && bench_wants(b, "grouped"); i++) {
        segment segments[EXPERTS];
        int64_t rows = 0;
        for (int e = 0; e < EXPERTS; e++) {
            segments[e] = (segment){rows, grouped[i].rows[e], e};
            rows += grouped[i].rows[e];
        }
        for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
            product p = {.form = form, .s = {rows, grouped[i].n, grouped[i].k}, .segments = segments};
            bench_product(b, grouped[i].rows[0] == grouped[i].rows[1] ? "grouped even " : "grouped uneven ",
                          &p);
        }
    }
}
