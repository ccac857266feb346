/* SwiGLU and the embedding. */
#include "kernels/math.h"
#include "kernels/ref/ref.h"

static double sigmoid(double x) {
    return 1 / (1 + fixed_exp(-x));
}

static void forward_rows(kernel_context *ctx, segment s, int64_t f, real *h, const real *gu) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t i = s.row; i < s.row + s.rows; i++) {
        for (int64_t j = 0; j < f; j++) {
            double gate = gu[i * 2 * f + j], up = gu[i * 2 * f + f + j];
            h[i * f + j] = (real)(gate * sigmoid(gate) * up);
        }
    }
}

void ref_swiglu_forward(kernel_context *ctx, int64_t segments, const segment *s, int64_t f, real *h,
                        const real *gu) {
    for (int64_t i = 0; i < segments; i++) forward_rows(ctx, s[i], f, h, gu);
}

static void backward_rows(kernel_context *ctx, segment of, int64_t f, real *dgu, real *h, real *dweight,
                          const real *dh, const real *gu, const real *weight) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t i = of.row; i < of.row + of.rows; i++) {
        double w = weight ? weight[i] : 1, sum = 0;
        for (int64_t j = 0; j < f; j++) {
            double gate = gu[i * 2 * f + j], up = gu[i * 2 * f + f + j], d = dh[i * f + j];
            double s = sigmoid(gate), silu = gate * s;
            h[i * f + j] = (real)(w * silu * up);
            dgu[i * 2 * f + j] = (real)(w * d * up * s * (1 + gate * (1 - s)));
            dgu[i * 2 * f + f + j] = (real)(w * d * silu);
            sum += d * silu * up;
        }
        if (dweight) dweight[i] = (real)sum;
    }
}

void ref_swiglu_backward(kernel_context *ctx, int64_t segments, const segment *s, int64_t f, real *dgu,
                         real *h, real *dweight, const real *dh, const real *gu, const real *weight) {
    for (int64_t i = 0; i < segments; i++) backward_rows(ctx, s[i], f, dgu, h, dweight, dh, gu, weight);
}

void ref_embedding_forward(kernel_context *ctx, int64_t rows, int64_t h, real *x, const real *w,
                           const int32_t *ids) {
    ref_copy_rows(ctx, rows, h, x, NULL, w, ids);
}

void ref_embedding_backward(kernel_context *ctx, int64_t rows, int64_t h, real *dw, const real *dx,
                            const int32_t *ids) {
    for (int64_t i = 0; i < rows; i++) {
        const real *row = dx + i * h;
        real *sum = dw + ids[i] * h;
        ref_add(ctx, h, sum, sum, 1, &row);
    }
}
