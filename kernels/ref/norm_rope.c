/* RMSNorm and RoPE. */
#include <math.h>

#include "kernels/ref/ref.h"

void ref_rms_norm_forward(kernel_context *ctx, int64_t rows, int64_t cols, double eps, double scale, real *y,
                          int64_t ldy, real *rstd, const real *x, int64_t ldx, const real *w) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int64_t j = 0; j < cols; j++) sum += (double)x[i * ldx + j] * x[i * ldx + j];
        double r = 1 / sqrt(sum / (double)cols + eps);
        for (int64_t j = 0; j < cols; j++) y[i * ldy + j] = (real)(scale * w[j] * x[i * ldx + j] * r);
        rstd[i] = (real)r;
    }
}

/* With u = x * rstd and g = scale * w * dy:  dx = rstd * (g - u * mean(g * u)),  dw = sum of scale * dy * u.
 */
void ref_rms_norm_backward(kernel_context *ctx, int64_t rows, int64_t cols, double scale, real *dx,
                           int64_t lddx, const real *d, real *dw, int adds, const real *dy, int64_t lddy,
                           const real *x, int64_t ldx, const real *rstd, const real *w) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t j = 0; j < cols; j++) {
        double sum = adds ? dw[j] : 0;
        for (int64_t i = 0; i < rows; i++) sum += scale * dy[i * lddy + j] * x[i * ldx + j] * rstd[i];
        dw[j] = (real)sum;
    }
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t i = 0; i < rows; i++) {
        double r = rstd[i], mean = 0;
        for (int64_t j = 0; j < cols; j++) mean += scale * w[j] * dy[i * lddy + j] * x[i * ldx + j] * r;
        mean /= (double)cols;
        for (int64_t j = 0; j < cols; j++) {
            double g = scale * w[j] * dy[i * lddy + j], u = x[i * ldx + j] * r;
            dx[i * lddx + j] = (real)((d ? d[i * lddx + j] : 0) + r * (g - u * mean));
        }
    }
}

void ref_rope(kernel_context *ctx, int64_t rows, int64_t seq, int64_t heads, int64_t pairs, int backward,
              real *x, int64_t ld, int64_t head_stride, const real *cosine, const real *sine) {
    double sign = backward ? -1 : 1;
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t h = 0; h < heads; h++) {
            for (int64_t p = 0; p < pairs; p++) {
                real *pair = x + r * ld + h * head_stride + 2 * p;
                double c = cosine[r % seq * pairs + p], s = sign * sine[r % seq * pairs + p];
                double a = pair[0], b = pair[1];
                pair[0] = (real)(a * c - b * s);
                pair[1] = (real)(b * c + a * s);
            }
        }
    }
}
