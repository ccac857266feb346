/* Cross-entropy and the hidden z-loss. */
#include <math.h>

#include "kernels/math.h"
#include "kernels/ref/ref.h"

void ref_cross_entropy(kernel_context *ctx, int64_t rows, int64_t vocab, double scale, real *loss,
                       int32_t *best, real *logits, const int32_t *targets) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t i = 0; i < rows; i++) {
        real *z = logits + i * vocab;
        int32_t top = 0;
        for (int32_t j = 1; j < vocab; j++)
            if (z[j] > z[top]) top = j;
        if (best) best[i] = top;

        double sum = 0;
        for (int64_t j = 0; j < vocab; j++) sum += fixed_exp((double)z[j] - z[top]);
        double lse = z[top] + fixed_log(sum);
        int counted = targets[i] >= 0;
        loss[i] = counted ? (real)(lse - z[targets[i]]) : 0;
        if (scale == 0) continue;
        for (int64_t j = 0; j < vocab; j++)
            z[j] = counted ? (real)(scale * (fixed_exp(z[j] - lse) - (j == targets[i]))) : 0;
    }
}

void ref_hidden_z(kernel_context *ctx, int64_t rows, int64_t h, double scale, real *loss, real *sum_sq,
                  real *max_abs, real *dx, const real *x) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t i = 0; i < rows; i++) {
        const real *z = x + i * h;
        double top = 0, sum = 0, squares = 0;
        for (int64_t j = 0; j < h; j++) {
            top = fmax(top, fabs(z[j]));
            squares += (double)z[j] * z[j];
        }
        for (int64_t j = 0; j < h; j++) sum += fixed_exp(fabs(z[j]) - top);
        double lse = top + fixed_log(sum);
        loss[i] = (real)(lse * lse);
        sum_sq[i] = (real)squares;
        max_abs[i] = (real)top;
        if (!dx) continue;
        for (int64_t j = 0; j < h; j++) {
            double d = scale * 2 * lse * fixed_exp(fabs(z[j]) - lse);
            dx[i * h + j] = (real)(dx[i * h + j] + (z[j] > 0 ? d : z[j] < 0 ? -d : 0));
        }
    }
}
