/* RMSNorm, forward and backward. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

void CPU_(rms_norm_forward)(kernel_context *ctx, int64_t rows, int64_t cols, double eps, double scale,
                            float *y, int64_t ldy, float *rstd, const float *x, int64_t ldx, const float *w) {
#pragma omp parallel for num_threads(threads_for(ctx, rows *cols)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *x_r = x + r * ldx;
        vf sum = vf_zero();
        for (int64_t c = 0; c < cols; c += LANES) {
            vf v = vf_load_n(x_r + c, cols - c);
            sum = vf_fma(v, v, sum);
        }
        double inverse = 1 / sqrt((double)vf_sum(sum) / (double)cols + eps);
        rstd[r] = (float)inverse;
        vf factor = vf_set1((float)(scale * inverse));
        for (int64_t c = 0; c < cols; c += LANES) {
            vf v = vf_mul(vf_mul(vf_load_n(x_r + c, cols - c), factor), vf_load_n(w + c, cols - c));
            vf_store_n(y + r * ldy + c, v, cols - c);
        }
    }
}

enum { COLUMNS = 4 * LANES }; /* whose sums over rows are carried together */

/* One block of rows of the weight's gradient, dw = sum of scale * dy * x * rstd, for n <= COLUMNS columns. */
static void weight_gradient(int64_t rows, int64_t n, float scale, int first_block, float *dw, const float *dy,
                            int64_t lddy, const float *x, int64_t ldx, const float *rstd) {
    vf sum[COLUMNS / LANES] = {0};
    for (int64_t r = 0; r < rows; r++, x += ldx, dy += lddy) {
        vf factor = vf_set1(scale * rstd[r]);
        if (n == COLUMNS) {
            for (int v = 0; v < COLUMNS / LANES; v++)
                sum[v] = vf_fma(vf_load(dy + v * LANES), vf_mul(vf_load(x + v * LANES), factor), sum[v]);
        } else {
            for (int v = 0; v * LANES < n; v++) {
                int64_t c = v * LANES;
                sum[v] = vf_fma(vf_load_n(dy + c, n - c), vf_mul(vf_load_n(x + c, n - c), factor), sum[v]);
            }
        }
    }
    for (int v = 0; v * LANES < n; v++) {
        int64_t c = v * LANES;
        vf_store_n(dw + c, first_block ? sum[v] : vf_add(vf_load_n(dw + c, n - c), sum[v]), n - c);
    }
}

/* dx = d + rstd * (g - u * mean(g * u)) with g = scale * w * dy and u = x * rstd. */
static void input_gradient(int64_t cols, float scale, float rstd, float *dx, const float *d, const float *dy,
                           const float *x, const float *w) {
    vf sum = vf_zero();
    for (int64_t c = 0; c < cols; c += LANES) {
        vf g = vf_mul(vf_load_n(w + c, cols - c), vf_load_n(dy + c, cols - c));
        sum = vf_fma(g, vf_load_n(x + c, cols - c), sum);
    }
    double factor = (double)scale * rstd;
    vf by_g = vf_set1((float)factor);
    vf by_x = vf_set1((float)(factor * rstd * rstd * vf_sum(sum) / (double)cols));
    for (int64_t c = 0; c < cols; c += LANES) {
        vf g = vf_mul(vf_load_n(w + c, cols - c), vf_load_n(dy + c, cols - c));
        vf v = vf_fnma(vf_load_n(x + c, cols - c), by_x, vf_mul(g, by_g));
        if (d) v = vf_add(vf_load_n(d + c, cols - c), v);
        vf_store_n(dx + c, v, cols - c);
    }
}

void CPU_(rms_norm_backward)(kernel_context *ctx, int64_t rows, int64_t cols, double scale, float *dx,
                             int64_t lddx, const float *d, float *dw, const float *dy, int64_t lddy,
                             const float *x, int64_t ldx, const float *rstd, const float *w) {
    if (!rows) CPU_(zero)(ctx, cols, dw);
        /* Block by block, so that the second look at a block's rows finds them in a cache. */
#pragma omp parallel num_threads(threads_for(ctx, rows *cols))
    for (int64_t start = 0; start < rows; start += GEMM_K_BLOCK) {
        int64_t end = rows - start < GEMM_K_BLOCK ? rows : start + GEMM_K_BLOCK;
#pragma omp for schedule(static)
        for (int64_t c = 0; c < cols; c += COLUMNS)
            weight_gradient(end - start, cols - c < COLUMNS ? cols - c : COLUMNS, (float)scale, start == 0,
                            dw + c, dy + start * lddy + c, lddy, x + start * ldx + c, ldx, rstd + start);
#pragma omp for schedule(static)
        for (int64_t r = start; r < end; r++)
            input_gradient(cols, (float)scale, rstd[r], dx + r * lddx, d ? d + r * lddx : NULL, dy + r * lddy,
                           x + r * ldx, w);
    }
}
