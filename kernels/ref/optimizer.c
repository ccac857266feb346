/* AdamW, and the figures that watch a tensor: blocked sums of squares and digests. */
#include <math.h>
#include <xxhash.h>

#include "kernels/ref/ref.h"

void ref_adamw(kernel_context *ctx, int64_t n, adamw_step s, real *p, real *m, real *v, const real *g) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t i = 0; i < n; i++) {
        double grad = g[i] * s.grad_scale;
        double m1 = s.beta1 * m[i] + (1 - s.beta1) * grad;
        double v1 = s.beta2 * v[i] + (1 - s.beta2) * grad * grad;
        double update = (m1 / s.correction1) / (sqrt(v1 / s.correction2) + s.eps);
        p[i] = (real)(p[i] - s.lr * (update + s.weight_decay * p[i]));
        m[i] = (real)m1;
        v[i] = (real)v1;
    }
}

static int64_t block_end(int64_t n, int64_t start) {
    return n - start < SUM_BLOCK ? n : start + SUM_BLOCK;
}

void ref_sum_squares(kernel_context *ctx, int64_t n, double *out, const real *x) {
    (void)ctx;
    for (int64_t i = 0; i < n; i += SUM_BLOCK) {
        double sum = 0;
        for (int64_t j = i; j < block_end(n, i); j++) sum += (double)x[j] * x[j];
        out[i / SUM_BLOCK] = sum;
    }
}

void ref_digest(kernel_context *ctx, int64_t n, uint64_t *out, const real *x) {
    (void)ctx;
    for (int64_t i = 0; i < n; i += SUM_BLOCK)
        out[i / SUM_BLOCK] = XXH3_64bits(x + i, (size_t)(block_end(n, i) - i) * sizeof *x);
}
