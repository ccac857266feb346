/* What came back from the experts, summed per token, with the identity experts' part. */
#include "kernels/cuda/rows.cuh"

enum { THREADS = 256 };

/* A token's sum over slots of x [.., h] at the rows that answer them, times weight (1 without), then the
 * identity weights' sum times `self`; *any says whether there is an identity expert. */
static __device__ __forceinline__ float4 sum_of_slots(int64_t topk, int64_t h, int64_t c,
                                                      const int32_t *row_of, const float *x,
                                                      const float *weight, bool weighted, const float *self,
                                                      bool whole) {
    float4 sum = make_float4(0, 0, 0, 0);
    float identity = 0;
    bool any = false;
#pragma unroll 4
    for (int64_t k = 0; k < topk; k++) {
        int64_t row = row_of[k];
        if (row < 0) {
            identity += weight[k];
            any = true;
        } else {
            float4 v = load4(x + row * h + c, h - c, whole);
            sum = weighted ? fma4(weight[k], v, sum) : add4(sum, v);
        }
    }
    return any ? fma4(identity, load4(self + c, h - c, whole), sum) : sum;
}

/* Four elements a thread. */
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(int64_t tokens, int64_t h, int64_t topk, row_threads threads, float *out,
                   const float *rows, const int32_t *row_of, const float *weight, const float *y,
                   bool whole) {
    kernel_begins();
    int64_t t = thread_row(threads), c = 4 * thread_chunk(threads);
    if (t >= tokens || c >= h) return;
    float4 sum = sum_of_slots(topk, h, c, row_of + t * topk, rows, weight + t * topk, true, y + t * h, whole);
    float *out_t = out + t * h + c;
    store4(out_t, add4(load4(out_t, h - c, whole), sum), h - c, whole);
}

extern "C" void cuda_combine_forward(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, float *out,
                                     const float *rows, const int32_t *row_of, const float *weight,
                                     const float *y) {
    if (!tokens) return;
    row_threads threads = threads_of_rows(divide_up(h, 4), THREADS);
    wrote(ctx, out, floats(tokens, h, h));
    LAUNCH(forward_kernel, grid_of_rows(tokens, threads, THREADS), THREADS, 0, ctx, tokens, h, topk, threads,
           out, rows, row_of, weight, y, aligned16(out, h) && aligned16(rows, h) && aligned16(y, h));
}

/* A team for each token: <dout, y>, where an identity expert wants it, is a sum over the whole row. */
template <int TEAM>
static __global__ void ROW_BOUNDS(TEAM)
    backward_kernel(int64_t tokens, int64_t h, int64_t topk, float *dy, float *dweight, const float *dout,
                    const float *drows, const float *dw_rows, const int32_t *row_of, const float *weight,
                    const float *y, bool whole) {
    kernel_begins();
    int64_t token = team_row<TEAM>(), t = token < tokens ? token : 0, end = token < tokens ? h : 0;
    const int32_t *row = row_of + t * topk;
    const float *w = weight + t * topk, *dout_t = dout + t * h;
    bool any = false;
    for (int64_t k = 0; k < topk; k++) any |= row[k] < 0;
    float dot = 0;
    for (int64_t c = 4 * team_thread<TEAM>(); c < end; c += 4 * TEAM) {
        float *dy_t = dy + t * h + c;
        float4 sum = sum_of_slots(topk, h, c, row, drows, w, false, dout_t, whole);
        store4(dy_t, add4(load4(dy_t, h - c, whole), sum), h - c, whole);
        if (any) dot = dot4(load4(dout_t + c, h - c, whole), load4(y + t * h + c, h - c, whole), dot);
    }
    dot = team_sum<TEAM>(dot);
    for (int64_t k = team_thread<TEAM>(); end && k < topk; k += TEAM)
        dweight[t * topk + k] = row[k] < 0 ? dot : dw_rows[row[k]];
}

extern "C" void cuda_combine_backward(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, float *dy,
                                      float *dweight, const float *dout, const float *drows,
                                      const float *dw_rows, const int32_t *row_of, const float *weight,
                                      const float *y) {
    if (!tokens) return;
    wrote(ctx, dy, floats(tokens, h, h));
    wrote(ctx, dweight, floats(tokens, topk, topk));
    bool whole = aligned16(dy, h) && aligned16(dout, h) && aligned16(drows, h) && aligned16(y, h);
    if (h <= 1024)
        LAUNCH_TEAMS((backward_kernel<64>), 64, tokens, ctx, tokens, h, topk, dy, dweight, dout, drows,
                     dw_rows, row_of, weight, y, whole);
    else
        LAUNCH_TEAMS((backward_kernel<256>), 256, tokens, ctx, tokens, h, topk, dy, dweight, dout, drows,
                     dw_rows, row_of, weight, y, whole);
}
