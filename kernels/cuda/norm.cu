/* RMSNorm, forward and backward: one pass over memory each, the row in registers. */
#include "kernels/cuda/rows.cuh"

template <int TEAM, int CHUNKS>
static __global__ void ROW_BOUNDS(TEAM)
    forward_kernel(int64_t rows, int64_t cols, double eps, double scale, float *y, int64_t ldy, float *rstd,
                   const float *x, int64_t ldx, const float *w, uint16_t *rounded, bool whole) {
    kernel_begins();
    int64_t r = team_row<TEAM>();
    int t = team_thread<TEAM>();
    int64_t left = r < rows ? cols : 0; /* a team without a row takes part in the sums */
    float4 v[CHUNKS];
    /* in double: squares of a diverging run's hidden states leave float's range long before the states do,
     * and 1 / sqrt(infinity) would turn them into zeros that no check of the loss could see */
    double sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int c = 4 * (t + i * TEAM);
        v[i] = load4(x + r * ldx + c, left - c, whole);
        sum = add_squares(sum, v[i]);
    }
    double inverse = 1 / sqrt(team_sum<TEAM>(sum) / (double)cols + eps);
    if (r < rows && t == 0) rstd[r] = (float)inverse;
    float factor = (float)(scale * inverse);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int c = 4 * (t + i * TEAM);
        float4 out = mul4(scale4(v[i], factor), load4(w + c, left - c, whole));
        store4(y + r * ldy + c, out, left - c, whole);
        if (rounded && c < left) store_rounded4(rounded + r * cols + c, out);
    }
}

extern "C" void cuda_rms_norm_forward(kernel_context *ctx, int64_t rows, int64_t cols, double eps,
                                      double scale, float *y, int64_t ldy, float *rstd, const float *x,
                                      int64_t ldx, const float *w) {
    if (!rows) return;
    require_row("rms_norm_forward", cols);
    bool whole = aligned16(y, ldy) && aligned16(x, ldx) && aligned16(w, 0);
    wrote(ctx, y, floats(rows, cols, ldy));
    wrote(ctx, rstd, floats(1, rows, rows));
    uint16_t *rounded = ldy == cols ? wrote_operand(ctx, y, rows, cols) : NULL;
    LAUNCH_ROWS(forward_kernel, rows, cols, ctx, rows, cols, eps, scale, y, ldy, rstd, x, ldx, w, rounded,
                whole);
}

/* A team takes `each` consecutive rows, and leaves its part of dw in part [teams, cols].  For a row:
 * dx = d + rstd * (g - u * mean(g * u)) with g = scale * w * dy and u = x * rstd, dw += scale * dy * u. */
template <int TEAM, int CHUNKS>
static __global__ void ROW_BOUNDS(TEAM)
    backward_kernel(int64_t rows, int64_t each, int64_t cols, float scale, float *dx, int64_t lddx,
                    const float *d, float *part, const float *dy, int64_t lddy, const float *x, int64_t ldx,
                    const float *rstd, const float *w, uint16_t *rounded, bool whole) {
    kernel_begins();
    int64_t team = team_row<TEAM>();
    int t = team_thread<TEAM>();
    float4 dw[CHUNKS] = {};
    for (int64_t r = team * each; r < (team + 1) * each; r++) {
        int64_t left = r < rows ? cols : 0;
        float4 x_r[CHUNKS], dy_r[CHUNKS];
        float sum = 0;
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            int c = 4 * (t + i * TEAM);
            x_r[i] = load4(x + r * ldx + c, left - c, whole);
            dy_r[i] = load4(dy + r * lddy + c, left - c, whole);
        }
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            int c = 4 * (t + i * TEAM);
            sum = dot4(mul4(load4(w + c, left - c, whole), dy_r[i]), x_r[i], sum);
        }
        sum = team_sum<TEAM>(sum);
        double inverse = left ? rstd[r] : 0, factor = (double)scale * inverse;
        float by_dy = (float)factor, by_x = (float)(factor * inverse * inverse * sum / (double)cols);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            int c = 4 * (t + i * TEAM);
            float4 g = scale4(dy_r[i], by_dy);
            dw[i] = fma4(g, x_r[i], dw[i]);
            float4 v = fma4(-by_x, x_r[i], mul4(load4(w + c, left - c, whole), g));
            if (d) v = add4(load4(d + r * lddx + c, left - c, whole), v);
            store4(dx + r * lddx + c, v, left - c, whole);
            if (rounded && c < left) store_rounded4(rounded + r * cols + c, v);
        }
    }
    int64_t left = team * each < rows ? cols : 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int c = 4 * (t + i * TEAM);
        store4(part + team * cols + c, dw[i], left - c, whole);
    }
}

/* Rows of one team: about 512 teams, so that the device is full and parts of dw stay small beside the rows.
 * The sums' order is a function of the number of rows. */
static int64_t rows_of_team(int64_t rows) {
    const int64_t TEAMS = 512, LEAST = 4;
    static_assert(TEAMS * ROW_MOST * sizeof(float) <= CUDA_SCRATCH, "parts of dw");
    int64_t each = divide_up(rows, TEAMS);
    return each < LEAST ? LEAST : each;
}

extern "C" void cuda_rms_norm_backward(kernel_context *ctx, int64_t rows, int64_t cols, double scale,
                                       float *dx, int64_t lddx, const float *d, float *dw, int adds,
                                       const float *dy, int64_t lddy, const float *x, int64_t ldx,
                                       const float *rstd, const float *w) {
    require_row("rms_norm_backward", cols);
    int64_t each = rows_of_team(rows), teams = divide_up(rows, each);
    float *part = (float *)ctx->scratch;
    bool whole = aligned16(dx, lddx) && (!d || aligned16(d, lddx)) && aligned16(dy, lddy) &&
                 aligned16(x, ldx) && aligned16(w, 0) && cols % 4 == 0;
    wrote(ctx, dx, floats(rows, cols, lddx));
    wrote(ctx, dw, floats(1, cols, cols));
    uint16_t *rounded = lddx == cols && rows ? wrote_operand(ctx, dx, rows, cols) : NULL;
    if (rows)
        LAUNCH_ROWS(backward_kernel, teams, cols, ctx, rows, each, cols, (float)scale, dx, lddx, d, part, dy,
                    lddy, x, ldx, rstd, w, rounded, whole);
    sum_of_rows(ctx, teams, cols, dw, adds, part);
}
