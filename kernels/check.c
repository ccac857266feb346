/* The check backend: every call runs on ref and on another backend, and the results are compared. */
#include "kernels/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "launch/error.h"
#include "launch/memory.h"

static const double UNIT = sizeof(real) == 4 ? 0x1p-24 : 0x1p-53;
static const double LEAST = sizeof(real) == 4 ? 0x1p-149 : 0x1p-1074; /* spacing of the smallest numbers */

void check_begin(kernel_context *x, const char *operation, const char *names, const int64_t *sizes, int n) {
    check_figure *f = x->figure;
    while (f->operation && strcmp(f->operation, operation)) f++;
    REQUIRE(f < x->figure + CHECK_OPERATIONS);
    f->operation = operation;
    f->calls++;
    x->current = f;
    x->scratches = 0;
    int used = snprintf(x->shape, sizeof x->shape, "(%s) = (", names);
    for (int i = 0; i < n && used < (int)sizeof x->shape; i++)
        used +=
            snprintf(x->shape + used, sizeof x->shape - (size_t)used, "%s%" PRId64, i ? ", " : "", sizes[i]);
    if (used < (int)sizeof x->shape) snprintf(x->shape + used, sizeof x->shape - (size_t)used, ")");
}

void *check_scratch(kernel_context *x, size_t bytes) {
    REQUIRE(x->scratches < CHECK_SCRATCHES);
    int i = x->scratches++;
    if (!x->scratch[i].data || x->scratch[i].bytes < bytes) {
        mem_free(x->scratch[i].data);
        x->scratch[i].data = mem_alloc(bytes, "a copy in the check backend");
        x->scratch[i].bytes = bytes;
    }
    return x->scratch[i].data;
}

real *check_expect(kernel_context *x, check_access access, real *data, int64_t rows, int64_t cols,
                   int64_t ld) {
    int64_t span = rows > 0 && cols > 0 ? (rows - 1) * ld + cols : 0;
    real *want = check_scratch(x, (size_t)span * sizeof *want);
    if (span) memcpy(want, data, (size_t)span * sizeof *want);
    for (int64_t i = 0; access == CHECK_WRITES && i < rows; i++)
        for (int64_t j = 0; j < cols; j++) data[i * ld + j] = (real)NAN;
    return want;
}

/* To nearest, ties to even; infinity and NaN stay what they are. */
static real to_bf16(real x) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (!isfinite(f)) return x;
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&f, &bits, sizeof f);
    return f;
}

const real *check_operand(kernel_context *x, const real *data, int64_t rows, int64_t cols, int64_t ld) {
    if (x->inner.dtype == DTYPE_FLOAT32 || rows == 0 || cols == 0) return data;
    real *rounded = check_scratch(x, (size_t)((rows - 1) * ld + cols) * sizeof *rounded);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) rounded[i * ld + j] = to_bf16(data[i * ld + j]);
    return rounded;
}

void *check_expect_bytes(kernel_context *x, void *data, size_t bytes) {
    void *want = check_scratch(x, bytes);
    if (bytes) memcpy(want, data, bytes);
    if (bytes) memset(data, 0xa5, bytes);
    return want;
}

_Noreturn void check_fault(const kernel_context *x, const char *name, int64_t row, int64_t col, double got,
                           double want, double bound) {
    FAULT(EXIT_SDC,
          "%s %s %s: %s[%" PRId64 ",%" PRId64 "] is %.9g (%a), ref has %.9g (%a), which may differ by %.3g",
          x->name, x->current->operation, x->shape, name, row, col, got, got, want, want, bound);
}

static double root_mean_square(const real *x, int64_t rows, int64_t cols, int64_t ld) {
    double sum = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) sum += (double)x[i * ld + j] * x[i * ld + j];
    return sqrt(sum / ((double)rows * (double)cols));
}

void check_close(kernel_context *x, const char *name, const real *got, const real *want, int64_t rows,
                 int64_t cols, int64_t ld, check_bound b) {
    check_figure *f = x->current;
    if (rows == 0 || cols == 0) return;
    double rms = root_mean_square(want, rows, cols, ld);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            double g = got[i * ld + j], w = want[i * ld + j];
            double size = fabs(w) + (b.added ? fabs(b.added[i * ld + j]) : 0);
            double outer = (b.row ? b.row[i] : 1) * (b.column ? b.column[j] : 1);
            double bound = UNIT * (b.relative * size + b.absolute * outer) + b.floor + LEAST;
            double distance = fabs(g - w);
            if (!isfinite(g) || !isfinite(w)) { /* before any bound: NaN compares with nothing */
                if (isfinite(g) || isfinite(w)) check_fault(x, name, i, j, g, w, bound);
                continue;
            }
            if (!(distance <= bound)) check_fault(x, name, i, j, g, w, bound);
            f->worst = fmax(f->worst, distance / bound);
            f->elements++;
            if (!(rms > bound)) continue; /* an output of rounding errors only */
            double ulps = distance / (UNIT * fmax(rms, fabs(w)));
            f->max_ulp = fmax(f->max_ulp, ulps);
            f->error_sq += ulps * ulps;
            f->units++;
        }
        for (int64_t j = cols; i + 1 < rows && j < ld; j++) {
            if (memcmp(&got[i * ld + j], &want[i * ld + j], sizeof *got))
                check_fault(x, name, i, j, got[i * ld + j], want[i * ld + j], 0);
        }
    }
}

void check_equal(kernel_context *x, const char *name, const void *got, const void *want, size_t elements,
                 size_t size) {
    const char *g = got, *w = want;
    for (size_t i = 0; i < elements; i++) {
        if (!memcmp(g + i * size, w + i * size, size)) continue;
        uint64_t a = 0, b = 0;
        memcpy(&a, g + i * size, size);
        memcpy(&b, w + i * size, size);
        FAULT(EXIT_SDC, "%s %s %s: %s[%zu] has bits %#" PRIx64 ", ref's are %#" PRIx64, x->name,
              x->current->operation, x->shape, name, i, a, b);
    }
    x->current->elements += (int64_t)elements;
}

double check_chain(int64_t n) {
    return (double)(n < GEMM_K_BLOCK ? n : GEMM_K_BLOCK) + (double)(n / GEMM_K_BLOCK) + 2;
}

double check_lanes(int64_t n) {
    return (double)(n / 16) + 6;
}

double check_largest(int64_t rows, int64_t cols, int64_t ld, const real *x) {
    double top = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) top = fmax(top, fabs((double)x[i * ld + j]));
    return top;
}

double *check_norms(kernel_context *x, int64_t n, int64_t k, const real *data, int64_t across,
                    int64_t along) {
    double *norm = check_scratch(x, (size_t)n * sizeof *norm);
    for (int64_t i = 0; i < n; i++) norm[i] = 0;
    /* the shorter stride inside */
    for (int64_t a = 0; a < (along < across ? n : k); a++) {
        for (int64_t b = 0; b < (along < across ? k : n); b++) {
            int64_t i = along < across ? a : b, p = along < across ? b : a;
            double v = data[i * across + p * along];
            norm[i] += v * v;
        }
    }
    for (int64_t i = 0; i < n; i++) norm[i] = sqrt(norm[i]);
    return norm;
}

/* Ref reads and writes in place, so what the backend was asked to do is waited for. */
static void wait_for(kernel_context *x) {
    x->inner.to_host(x->inner.ctx, NULL, NULL, 0);
}

static void *allocate(kernel_context *x, size_t bytes, const char *what) {
    void *p = x->inner.alloc(x->inner.ctx, bytes, what);
    wait_for(x);
    return p;
}

static void release(kernel_context *x, void *p) {
    x->inner.free(x->inner.ctx, p);
}

static void to_host(kernel_context *x, void *host, const void *device, size_t bytes) {
    x->inner.to_host(x->inner.ctx, host, device, bytes);
}

static void to_device(kernel_context *x, void *device, const void *host, size_t bytes) {
    x->inner.to_device(x->inner.ctx, device, host, bytes);
    wait_for(x);
}

static void print_figures(const kernel_context *x) {
    fprintf(stderr, "%-40s %9s %12s %10s %10s %9s\n", x->name, "calls", "elements", "max units", "rms units",
            "of bound");
    for (const check_figure *f = x->figure; f->operation; f++)
        fprintf(stderr, "%-40s %9" PRId64 " %12" PRId64 " %10.2f %10.3f %9.4f\n", f->operation, f->calls,
                f->elements, f->max_ulp, f->units > 0 ? sqrt(f->error_sq / f->units) : 0, f->worst);
}

static void destroy(kernels *k) {
    kernel_context *x = k->ctx;
    print_figures(x);
    kernels_close(&x->inner);
    kernels_close(&x->ref);
    for (int i = 0; i < CHECK_SCRATCHES; i++) mem_free(x->scratch[i].data);
    mem_free(x);
}

void kernels_check(kernels *k, const kernels *inner, int threads) {
    kernel_context *x = mem_alloc(sizeof *x, "the check backend");
    x->inner = *inner;
    kernels_ref(&x->ref, threads);
    snprintf(x->name, sizeof x->name, "check:%s", inner->name);
    *k = (kernels){
        .name = x->name,
        .ctx = x,
        .dtype = inner->dtype,
        .head_rows = inner->head_rows,
        .host_memory = inner->host_memory,
        .alloc = allocate,
        .free = release,
        .zero = check_zero,
        .copy = check_copy,
        .add = check_add,
        .copy_rows = check_copy_rows,
        .hold = check_hold,
        .gemm = check_gemm,
        .gemm_float32 = check_gemm_float32,
        .grouped_gemm = check_grouped_gemm,
        .grouped_gemm_dw = check_grouped_gemm_dw,
        .rms_norm_forward = check_rms_norm_forward,
        .rms_norm_backward = check_rms_norm_backward,
        .rope = check_rope,
        .attention_forward = check_attention_forward,
        .attention_backward = check_attention_backward,
        .swiglu_forward = check_swiglu_forward,
        .swiglu_backward = check_swiglu_backward,
        .embedding_forward = check_embedding_forward,
        .embedding_backward = check_embedding_backward,
        .router_forward = check_router_forward,
        .router_backward = check_router_backward,
        .combine_forward = check_combine_forward,
        .combine_backward = check_combine_backward,
        .cross_entropy = check_cross_entropy,
        .hidden_z = check_hidden_z,
        .adamw = check_adamw,
        .sum_squares = check_sum_squares,
        .digest = check_digest,
        .to_host = to_host,
        .to_device = to_device,
        .destroy = destroy,
    };
}
