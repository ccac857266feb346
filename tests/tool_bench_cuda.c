/* Times matrix products and attention of the cuda backend at the sizes of docs/performance.md, as JSON:
 *     bench_cuda OUT.json [float32|bf16] [seconds per line] [only operations whose name holds this]
 * tests/bench_cuda_peer.py times PyTorch on the same lines and prints both.  Rates count the products that
 * the operation needs (attention: the triangle; backward: five products), not what a kernel computes twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "launch/comm.h"
#include "launch/error.h"
#include "launch/memory.h"

enum { SAMPLES = 7, EXPERTS = 64 };

/* One line.  Sizes that an operation does not have are 0. */
typedef struct line {
    const char *name;
    gemm_form form;
    int64_t m, n, k;       /* m: rows of all experts */
    int64_t experts, rows; /* each expert's rows */
    int held;              /* operands are rounded before: what a weight costs within a step */
    attention_shape attention;
} line;

typedef struct machine {
    kernels k;
    real *a, *b, *c, *small; /* a, b: one range, so that both can be held */
    int64_t operands;        /* elements of a and b together */
    FILE *out;
    double budget;
    const char *only;
    int lines;
} machine;

/* Everything that was started is done. */
static void settle(const machine *x) {
    real value;
    x->k.to_host(x->k.ctx, &value, x->small, sizeof value);
}

static void run(const machine *x, const line *l) {
    const kernels *k = &x->k;
    segment s[EXPERTS];
    for (int64_t e = 0; e < l->experts; e++) s[e] = (segment){e * l->rows, l->rows, e};
    const attention_shape a = l->attention;
    int64_t t = a.batch * a.seq, qk = a.heads * (a.nope + a.rope), v = a.heads * a.v,
            kv = a.heads * (a.nope + a.v);
    real *q = x->a, *keys = q + t * qk, *k_rope = keys + t * kv, *d_o = k_rope + t * a.rope;
    real *o = x->c, *lse = o + t * v, *dq = lse + t * a.heads, *dkv = dq + t * qk, *dk_rope = dkv + t * kv;
    if (!l->held && l->m) { /* what was rounded for the call before is not good any more */
        k->zero(k->ctx, 1, x->a);
        k->zero(k->ctx, 1, x->b);
    }
    if (!strcmp(l->name, "copy")) k->copy(k->ctx, l->n, x->c, x->a);
    else if (!strcmp(l->name, "gemm"))
        k->gemm(k->ctx, l->form, l->m, l->n, l->k, x->c, l->n, l->form == GEMM_TN ? x->c : NULL, x->a,
                l->form == GEMM_TN ? l->m : l->k, x->b, l->form == GEMM_NT ? l->k : l->n);
    else if (!strcmp(l->name, "grouped_gemm"))
        k->grouped_gemm(k->ctx, l->form, l->experts, s, l->n, l->k, x->c, x->a, x->b, l->n * l->k);
    else if (!strcmp(l->name, "grouped_gemm_dw"))
        k->grouped_gemm_dw(k->ctx, l->experts, s, l->n, l->k, x->c, l->n * l->k, x->a, x->b);
    else if (!strcmp(l->name, "attention_forward"))
        k->attention_forward(k->ctx, a, o, lse, q, keys, k_rope, a.rope, NULL);
    else
        k->attention_backward(k->ctx, a, dq, dkv, dk_rope, a.rope, d_o, o, lse, q, keys, k_rope, a.rope,
                              NULL);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of SAMPLES, each of as many calls as fill its part of the budget. */
static double median_seconds(const machine *x, const line *l) {
    double sample[SAMPLES];
    for (int i = 0; i < 2; i++) run(x, l);
    settle(x);
    double start = comm_clock();
    run(x, l);
    settle(x);
    double once = comm_clock() - start;
    int calls = once > x->budget / SAMPLES ? 1 : (int)(x->budget / SAMPLES / once) + 1;
    for (int i = 0; i < SAMPLES; i++) {
        start = comm_clock();
        for (int c = 0; c < calls; c++) run(x, l);
        settle(x);
        sample[i] = (comm_clock() - start) / calls;
    }
    qsort(sample, SAMPLES, sizeof *sample, by_value);
    return sample[SAMPLES / 2];
}

/* work: floating-point operations, or bytes for "copy". */
static void time_line(machine *x, line l, double work) {
    static const char *const forms[] = {"NT", "NN", "TN"};
    if (x->only && !strstr(l.name, x->only)) return;
    if (l.held) x->k.hold(x->k.ctx, x->operands, x->a);
    double t = median_seconds(x, &l);
    if (l.held) x->k.hold(x->k.ctx, 0, NULL);
    const attention_shape a = l.attention;
    int matrix = !a.seq && strcmp(l.name, "copy") != 0;
    fprintf(
        x->out,
        "%s\n    {\"name\": \"%s\", \"form\": \"%s\", \"m\": %ld, \"n\": %ld, \"k\": %ld, \"experts\": %ld, "
        "\"rows\": %ld, \"held\": %s, \"batch\": %ld, \"seq\": %ld, \"heads\": %ld, \"nope\": %ld, \"rope\": "
        "%ld, "
        "\"v\": %ld, \"milliseconds\": %.6g, \"%s\": %.6g}",
        x->lines++ ? "," : "", l.name, matrix ? forms[l.form] : "", (long)l.m, (long)l.n, (long)l.k,
        (long)l.experts, (long)l.rows, l.held ? "true" : "false", (long)a.batch, (long)a.seq, (long)a.heads,
        (long)a.nope, (long)a.rope, (long)a.v, 1e3 * t, a.seq || matrix ? "tflops" : "gbytes_per_second",
        a.seq || matrix ? 1e-12 * work / t : 1e-9 * work / t);
    printf("%-20s %-2s m %6ld n %6ld k %6ld experts %3ld rows %5ld %-6s seq %5ld: %10.4f ms  %8.1f %s\n",
           l.name, matrix ? forms[l.form] : "", (long)l.m, (long)l.n, (long)l.k, (long)l.experts,
           (long)l.rows, l.held ? "held" : "", (long)a.seq, 1e3 * t,
           1e-12 * work / t * (a.seq || matrix ? 1 : 1e3), a.seq || matrix ? "TFLOP/s" : "GB/s");
    fflush(stdout);
    fflush(x->out); /* this may be cut short */
}

static void time_products(machine *x) {
    static const int64_t dense[][3] = {
        {8192, 8192, 8192}, {4096, 4096, 4096}, {8192, 1536, 768}, {8192, 768, 1536},
        {8192, 768, 768},   {8192, 6144, 768},  {8192, 768, 6144},
    };
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++)
        for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++)
            for (int held = 0; held < 2; held++) {
                int64_t m = dense[i][0], n = dense[i][1], k = dense[i][2];
                line l = {.name = "gemm", .form = form, .m = m, .n = n, .k = k, .held = held};
                if (form == GEMM_TN) l.m = n, l.n = k, l.k = m; /* the gradient of that layer's weights */
                time_line(x, l, 2.0 * (double)m * (double)n * (double)k);
            }
    static const int64_t experts[] = {16, 64}, rows[] = {64, 256, 512, 1024, 4096};
    static const int64_t width[][2] = {{512, 768}, {768, 256}, {1536, 768}, {6144, 2048}, {768, 6144}};
    for (size_t e = 0; e < 2; e++)
        for (size_t r = 0; r < 5; r++)
            for (size_t w = 0; w < 5; w++)
                for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
                    int64_t n = width[w][0], k = width[w][1], m = experts[e] * rows[r], wide = n > k ? n : k;
                    if (m * wide > x->operands / 2 || experts[e] * n * k > x->operands / 2) continue;
                    line l = {.name = form == GEMM_TN ? "grouped_gemm_dw" : "grouped_gemm",
                              .form = form,
                              .m = m,
                              .n = n,
                              .k = k,
                              .experts = experts[e],
                              .rows = rows[r],
                              .held = 1};
                    double work = 2.0 * (double)m * (double)n * (double)k;
                    time_line(x, l, work);
                    if (rows[r] ==
                        512) { /* and with rounding; and the dense product of so many rows, beside it */
                        l.held = 0;
                        time_line(x, l, work);
                    }
                    line d = {.name = "gemm", .form = form, .m = m, .n = n, .k = k, .held = 1};
                    if (form == GEMM_TN) d.m = n, d.n = k, d.k = m;
                    if (rows[r] == 512) time_line(x, d, work);
                }
}

static void time_attention(machine *x) {
    static const attention_shape shape[] = {
        {1, 4096, 16, 128, 64, 128, 0}, {1, 8192, 16, 128, 64, 128, 0}, {4, 4096, 16, 128, 64, 128, 0},
        {2, 4096, 8, 64, 32, 64, 0},    {1, 8192, 8, 64, 32, 64, 0},
    };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        attention_shape s = shape[i];
        double pairs = 0.5 * (double)(s.batch * s.heads * s.seq) * (double)(s.seq + 1); /* the triangle */
        double qk = (double)(s.nope + s.rope), v = (double)s.v;
        time_line(x, (line){.name = "attention_forward", .attention = s}, 2 * pairs * (qk + v));
        time_line(x, (line){.name = "attention_backward", .attention = s}, 2 * pairs * (3 * qk + 2 * v));
    }
}

/* n values in (-1/2, 1/2), never zeros: a GPU multiplies zeros faster. */
static void fill(const machine *x, int64_t n, real *device) {
    enum { PIECE = 4 << 20 };
    real *host = mem_alloc(PIECE * sizeof *host, "a benchmark's values");
    uint64_t state = 1;
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t count = n - at < PIECE ? n - at : PIECE;
        for (int64_t i = 0; i < count; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            host[i] = (float)(state >> 40) * 0x1p-24f - 0.5f;
        }
        x->k.to_device(x->k.ctx, device + at, host, (size_t)count * sizeof *host);
    }
    mem_free(host);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr,
                "bench_cuda OUT.json [float32|bf16] [seconds per line] [only names that hold this]\n");
        return EXIT_USAGE;
    }
    const char *dtype = argc > 2 ? argv[2] : "bf16";
    kernels_config c = {.device = "cuda",
                        .isa = "auto",
                        .threads = 1,
                        .dtype = strcmp(dtype, "bf16") ? DTYPE_FLOAT32 : DTYPE_BF16};
    machine x = {.budget = argc > 3 ? atof(argv[3]) : 0.1, .only = argc > 4 ? argv[4] : NULL};
    error e;
    int code = kernels_open(&x.k, &c, &e);
    if (code) {
        fprintf(stderr, "bench_cuda: %s\n", e.text);
        return code;
    }
    x.out = fopen(argv[1], "w");
    if (!x.out) {
        perror(argv[1]);
        return EXIT_IO;
    }
    const int64_t half = (int64_t)1 << 29; /* 2 GiB each */
    x.operands = 2 * half;
    x.a = x.k.alloc(x.k.ctx, (size_t)x.operands * sizeof(real), "a benchmark's operands");
    x.b = x.a + half;
    x.c = x.k.alloc(x.k.ctx, (size_t)x.operands * sizeof(real), "a benchmark's results");
    x.small = x.c;
    fill(&x, x.operands, x.a);
    fprintf(x.out, "{\"device\": \"%s\", \"dtype\": \"%s\", \"lines\": [", x.k.name, dtype);
    time_line(&x, (line){.name = "copy", .n = half}, 8.0 * (double)half);
    time_products(&x);
    time_attention(&x);
    fprintf(x.out, "\n]}\n");
    if (fclose(x.out)) {
        perror(argv[1]);
        return EXIT_IO;
    }
    x.k.free(x.k.ctx, x.a);
    x.k.free(x.k.ctx, x.c);
    kernels_close(&x.k);
    return 0;
}
