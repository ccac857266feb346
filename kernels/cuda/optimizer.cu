/* AdamW in one pass over weights, moments and gradients, and the sums of squares that watch a tensor. */
#include "kernels/cuda/rows.cuh"

enum { THREADS = 256 };

typedef struct adamw_factors {
    float grad_scale, correct1, correct2, eps, decay, lr;
    float beta1, rate1, beta2, rate2; /* rate = 1 - beta, rounded once */
    bool forgets1, forgets2;          /* beta below 1/2 */
} adamw_factors;

/* The moments move by (1 - beta) (new - old): beta itself, rounded to float, would be wrong by 3e-8, which
 * for beta2 = 0.999 is 3e-5 of 1 - beta2.  A small beta is exact enough itself, and new - old, rounded where
 * the old is large, would leave nothing of a gradient far below it. */
static __device__ __forceinline__ void adamw_one(const adamw_factors &s, float &p, float &m, float &v,
                                                 float g) {
    g *= s.grad_scale;
    m = s.forgets1 ? fmaf(s.beta1, m, s.rate1 * g) : fmaf(s.rate1, g - m, m);
    v = s.forgets2 ? fmaf(s.beta2, v, s.rate2 * (g * g)) : fmaf(s.rate2, fmaf(g, g, -v), v);
    float root = sqrtf(v * s.correct2) + s.eps;
    p = fmaf(-s.lr, fmaf(s.decay, p, m * s.correct1 / root), p);
}

static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(int64_t n, adamw_factors s, float *p, float *m, float *v, const float *g, bool whole) {
    kernel_begins();
    int64_t i = 4 * ((int64_t)blockIdx.x * THREADS + threadIdx.x), left = n - i;
    if (left <= 0) return;
    float4 p4 = load4(p + i, left, whole), m4 = load4(m + i, left, whole), v4 = load4(v + i, left, whole);
    float4 g4 = load4(g + i, left, whole);
    adamw_one(s, p4.x, m4.x, v4.x, g4.x);
    adamw_one(s, p4.y, m4.y, v4.y, g4.y);
    adamw_one(s, p4.z, m4.z, v4.z, g4.z);
    adamw_one(s, p4.w, m4.w, v4.w, g4.w);
    store4(p + i, p4, left, whole);
    store4(m + i, m4, left, whole);
    store4(v + i, v4, left, whole);
}

extern "C" void cuda_adamw(kernel_context *ctx, int64_t n, adamw_step s, float *p, float *m, float *v,
                           const float *g) {
    if (!n) return;
    adamw_factors f = {(float)s.grad_scale,
                       (float)(1 / s.correction1),
                       (float)(1 / s.correction2),
                       (float)s.eps,
                       (float)s.weight_decay,
                       (float)s.lr,
                       (float)s.beta1,
                       (float)(1 - s.beta1),
                       (float)s.beta2,
                       (float)(1 - s.beta2),
                       s.beta1 < 0.5,
                       s.beta2 < 0.5};
    wrote(ctx, p, floats(1, n, n));
    wrote(ctx, m, floats(1, n, n));
    wrote(ctx, v, floats(1, n, n));
    bool whole = aligned16(p, 0) && aligned16(m, 0) && aligned16(v, 0) && aligned16(g, 0);
    LAUNCH(adamw_kernel, grid3(divide_up(n, 4 * THREADS)), THREADS, 0, ctx, n, f, p, m, v, g, whole);
}

/* A block of threads for each SUM_BLOCK. */
static __global__ void __launch_bounds__(THREADS)
    sum_squares_kernel(int64_t n, double *out, const float *x, bool whole) {
    kernel_begins();
    int64_t start = (int64_t)blockIdx.x * SUM_BLOCK, left = min(n - start, (int64_t)SUM_BLOCK);
    double sum = 0;
#pragma unroll
    for (int i = 0; i < SUM_BLOCK / (4 * THREADS); i++) {
        int c = 4 * ((int)threadIdx.x + i * THREADS);
        float4 v = load4(x + start + c, left - c, whole);
        sum = add_squares(sum, v);
    }
    sum = team_sum<THREADS>(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

extern "C" void cuda_sum_squares(kernel_context *ctx, int64_t n, double *out, const float *x) {
    if (!n) return;
    wrote(ctx, out, (size_t)divide_up(n, SUM_BLOCK) * sizeof *out);
    LAUNCH(sum_squares_kernel, grid3(divide_up(n, SUM_BLOCK)), THREADS, 0, ctx, n, out, x, aligned16(x, 0));
}
