/* The sum of the rows of a matrix of partial results. */
#include "kernels/cuda/rows.cuh"

enum { WARPS = 8, AHEAD = 16 /* loads of a thread under way */ };

/* A block sums 32 columns: warp w the rows w, w + 8, ..., then the warps' sums in order. */
static __global__ void __launch_bounds__(WARPS *WARP)
    sum_of_rows_kernel(int64_t rows, int64_t cols, float *out, bool adds, const float *part) {
    kernel_begins();
    SHARED(float, sums, [WARPS][WARP]);
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t c = (int64_t)blockIdx.x * WARP + lane;
    float sum = 0;
    for (int64_t r = warp; r < rows; r += WARPS * AHEAD) {
        float x[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            x[i] = c < cols && r + i * WARPS < rows ? part[(r + i * WARPS) * cols + c] : 0;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) sum += x[i];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp || c >= cols) return;
    for (int w = 1; w < WARPS; w++) sum += sums[w][lane];
    out[c] = adds ? out[c] + sum : sum;
}

void sum_of_rows(kernel_context *ctx, int64_t rows, int64_t cols, float *out, bool adds, const float *part) {
    LAUNCH(sum_of_rows_kernel, grid3(divide_up(cols, WARP)), WARPS * WARP, 0, ctx, rows, cols, out, adds,
           part);
}
