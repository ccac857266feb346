/* RMSNorm, forward and backward. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stream.h"
#include "launch/error.h"

/* In double: squares of a diverging run's hidden states leave float's range long before the states do, and
 * 1 / sqrt(infinity) would turn them into zeros that no check of the loss could see. */
static double sum_squares_wide(int64_t n, const float *x) {
    vd sum = vd_zero();
    for (int64_t c = 0; c < n; c += LANES) {
        vd v = vd_from(vf_load_n(x + c, n - c));
        sum = vd_fma(v, v, sum);
    }
    return vd_sum(sum);
}

/* y = scale * w * x / sqrt(mean(x^2) + eps) of one row; returns 1 / sqrt(...).  It asks for what comes next
 * while it writes, so that memory is read from and written to at the same time, as by a copy. */
VEC float forward_row(int64_t cols, double eps, double scale, float *y, const float *x, int64_t ahead,
                      const float *w, int stream) {
    vf sum = vf_zero();
    for (int64_t c = 0; c < cols; c += LANES) {
        vf v = vf_load_n(x + c, cols - c);
        sum = vf_fma(v, v, sum);
    }
    double squares = vf_sum(sum);
    if (isinf(squares)) squares = sum_squares_wide(cols, x);
    double inverse = 1 / sqrt(squares / (double)cols + eps);
    vf factor = vf_set1((float)(scale * inverse));
    for (int64_t c = 0; c < cols; c += LANES) {
        vf_fetch(x + c + ahead);
        vf v = vf_mul(vf_mul(vf_load_n(x + c, cols - c), factor), vf_load_n(w + c, cols - c));
        vf_put_n(y + c, v, cols - c, stream);
    }
    return (float)inverse;
}

void CPU_(rms_norm_forward)(kernel_context *ctx, int64_t rows, int64_t cols, double eps, double scale,
                            float *y, int64_t ldy, float *rstd, const float *x, int64_t ldx, const float *w) {
    const int64_t ahead = rows_ahead(ldx);
    const int stream = stream_wanted(2 * rows * cols * (int64_t)sizeof *y, y, ldy);
#pragma omp parallel num_threads(threads_for(ctx, rows *cols))
    {
#pragma omp for schedule(static) nowait
        for (int64_t r = 0; r < rows; r++)
            rstd[r] = forward_row(cols, eps, scale, y + r * ldy, x + r * ldx, ahead, w, stream);
        stream_end(stream);
    }
}

/* One row: dx = d + rstd * (g - u * mean(g * u)) with g = scale * w * dy and u = x * rstd, and the row's part
 * of the weight's gradient, dw += scale * dy * u. */
VEC void backward_row(int64_t cols, float scale, float rstd, float *dx, const float *d, float *dw,
                      const float *dy, const float *x, int64_t ahead, const float *w, int stream) {
    vf sum = vf_zero();
    for (int64_t c = 0; c < cols; c += LANES) {
        vf g = vf_mul(vf_load_n(w + c, cols - c), vf_load_n(dy + c, cols - c));
        sum = vf_fma(g, vf_load_n(x + c, cols - c), sum);
    }
    double factor = (double)scale * rstd;
    vf by_dy = vf_set1((float)factor);
    vf by_x = vf_set1((float)(factor * rstd * rstd * vf_sum(sum) / (double)cols));
    for (int64_t c = 0; c < cols; c += LANES) {
        int64_t left = cols - c;
        vf_fetch(dy + c + AHEAD), vf_fetch(x + c + ahead);
        if (d) vf_fetch(d + c + AHEAD);
        vf x_c = vf_load_n(x + c, left), dy_c = vf_mul(vf_load_n(dy + c, left), by_dy);
        vf_store_n(dw + c, vf_fma(dy_c, x_c, vf_load_n(dw + c, left)), left);
        vf v = vf_fnma(x_c, by_x, vf_mul(vf_load_n(w + c, left), dy_c));
        if (d) v = vf_add(vf_load_n(d + c, left), v);
        vf_put_n(dx + c, v, left, stream);
    }
}

void CPU_(rms_norm_backward)(kernel_context *ctx, int64_t rows, int64_t cols, double scale, float *dx,
                             int64_t lddx, const float *d, float *dw, int adds, const float *dy, int64_t lddy,
                             const float *x, int64_t ldx, const float *rstd, const float *w) {
    /* A thread takes a block of rows, and keeps its part of dw until all blocks before it are there too. */
    float *part = (float *)ctx->shared;
    int64_t room = SHARED_SCRATCH / (int64_t)sizeof *part / cols * GEMM_K_BLOCK; /* rows */
    int threads = threads_for(ctx, rows * cols);
    /* what is added to in place has its lines in the cache already */
    int stream = dx != d && stream_wanted(3 * rows * cols * (int64_t)sizeof *dx, dx, lddx);
    REQUIRE(room > 0);
    if (!rows && !adds) CPU_(zero)(ctx, cols, dw);
    for (int64_t start = 0; start < rows; start += room) {
        int64_t end = rows - start < room ? rows : start + room;
        int64_t blocks = (end - start + GEMM_K_BLOCK - 1) / GEMM_K_BLOCK;
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static) nowait
            for (int64_t b = 0; b < blocks; b++) {
                float *dw_b = part + b * cols;
                memset(dw_b, 0, (size_t)cols * sizeof *dw_b);
                for (int64_t r = start + b * GEMM_K_BLOCK; r < end && r < start + (b + 1) * GEMM_K_BLOCK; r++)
                    backward_row(cols, (float)scale, rstd[r], dx + r * lddx, d ? d + r * lddx : NULL, dw_b,
                                 dy + r * lddy, x + r * ldx, rows_ahead(ldx), w, stream);
            }
            stream_end(stream);
        }
        CPU_(sum_blocks)(ctx, blocks, cols, adds || start > 0, dw, part);
    }
}
