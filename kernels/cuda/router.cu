/* The router: softmax, biased choice of the top K, and back through the softmax.  A warp takes TOKENS tokens
 * one after another, with a token's numbers in shared memory; expert e is lane e % 32's. */
#include <float.h>

#include "kernels/cuda/math.cuh"
#include "kernels/cuda/rows.cuh"

enum { WARPS = 8, TOKENS = 4, MOST_CHOSEN = WARP };

/* Shared memory of a block: for each warp `work` and `sum`, [experts] each. */
static size_t shared_bytes(int64_t experts) {
    return (size_t)(2 * WARPS * experts) * sizeof(float);
}
static launch_grid grid_of(int64_t tokens) {
    return grid3(divide_up(tokens, WARPS * TOKENS));
}

/* part [blocks, experts] = the warps' sums, added in order. */
static __device__ __forceinline__ void leave_sums(int64_t experts, float *part, const float *shared) {
    __syncthreads();
    for (int64_t e = threadIdx.x; e < experts; e += WARPS * WARP) {
        float total = 0;
        for (int w = 0; w < WARPS; w++) total += shared[(2 * w + 1) * experts + e];
        part[blockIdx.x * experts + e] = total;
    }
}

/* work = softmax(x) */
static __device__ void softmax(int64_t experts, int lane, float *work, const float *x) {
    float top = -INFINITY, total = 0;
    for (int64_t e = lane; e < experts; e += WARP) top = fmaxf(top, x[e]);
    top = warp_max(top);
    for (int64_t e = lane; e < experts; e += WARP) total += work[e] = exp_f(x[e] - top);
    total = warp_sum(total);
    for (int64_t e = lane; e < experts; e += WARP) work[e] /= total;
}

/* The id with the largest score, ties to the lower, known to all lanes. */
static __device__ int choose_one(int64_t experts, int lane, const float *score) {
    float best = -INFINITY;
    int id = INT32_MAX;
    for (int64_t e = lane; e < experts; e += WARP)
        if (score[e] > best) {
            best = score[e];
            id = (int)e;
        }
#pragma unroll
    for (int d = WARP / 2; d; d /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, best, d);
        int other_id = __shfl_xor_sync(ALL_LANES, id, d);
        if (other > best || (other == best && other_id < id)) {
            best = other;
            id = other_id;
        }
    }
    return id;
}

static __global__ void __launch_bounds__(WARPS *WARP)
    forward_kernel(int64_t tokens, int64_t experts, int topk, double scaling, float *prob, int32_t *index,
                   float *weight, unsigned long long *count, float *part, const float *logits,
                   const float *bias) {
    kernel_begins();
    DYNAMIC_SHARED(float, shared);
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float *work = shared + 2 * warp * experts, *sum = work + experts;
    int64_t first = ((int64_t)blockIdx.x * WARPS + warp) * TOKENS;
    for (int64_t e = lane; e < experts; e += WARP) sum[e] = 0;
    for (int64_t t = first; t < first + TOKENS && t < tokens; t++) {
        softmax(experts, lane, work, logits + t * experts);
        for (int64_t e = lane; e < experts; e += WARP) {
            float p = work[e], score = p + bias[e];
            prob[t * experts + e] = p;
            sum[e] += p;
            /* what is not a number counts as the lowest: the step ends with an error, but not here */
            work[e] = score > -FLT_MAX ? score : -FLT_MAX;
        }
        int chosen = INT32_MAX; /* lane k has the k-th */
        for (int k = 0; k < topk; k++) {
            int id = choose_one(experts, lane, work);
            if (lane == id % WARP) work[id] = -INFINITY;
            if (lane == k) chosen = id;
        }
        int place = 0;
        for (int k = 0; k < topk; k++) place += __shfl_sync(ALL_LANES, chosen, k) < chosen;
        __syncwarp(); /* prob is read across lanes */
        if (lane < topk) {
            index[t * topk + place] = chosen;
            weight[t * topk + place] = (float)(scaling * prob[t * experts + chosen]);
            atomicAdd(&count[chosen], 1ull);
        }
    }
    leave_sums(experts, part, shared);
}

/* The GPU decides how many experts: 2,608 on an A100, 3,632 on an H100. */
static void require_router(const kernel_context *ctx, const char *operation, router_shape s) {
    int64_t experts = s.ffn_experts + s.zero_experts, most = (int64_t)(ctx->block_shared / shared_bytes(1));
    if (experts > most || s.topk > MOST_CHOSEN)
        FAULT(EXIT_USAGE, "cuda %s: %lld experts, %lld of them chosen; at most %lld and %d on this GPU",
              operation, (long long)experts, (long long)s.topk, (long long)most, MOST_CHOSEN);
}

/* Blocks whose parts of a sum fit into scratch at a time would only matter beyond this many tokens. */
static float *parts_of(kernel_context *ctx, const char *operation, int64_t tokens, int64_t experts) {
    if (divide_up(tokens, WARPS * TOKENS) * experts * (int64_t)sizeof(float) > CUDA_SCRATCH)
        FAULT(EXIT_USAGE, "cuda %s: %lld tokens of a micro-batch are too many for %lld experts", operation,
              (long long)tokens, (long long)experts);
    return (float *)ctx->scratch;
}

extern "C" void cuda_router_forward(kernel_context *ctx, router_shape s, float *prob, int32_t *index,
                                    float *weight, int64_t *count, float *prob_sum, const float *logits,
                                    const float *bias) {
    int64_t experts = s.ffn_experts + s.zero_experts;
    require_router(ctx, "router_forward", s);
    float *part = parts_of(ctx, "router_forward", s.tokens, experts);
    wrote(ctx, prob, floats(s.tokens, experts, experts));
    wrote(ctx, index, (size_t)(s.tokens * s.topk) * sizeof *index);
    wrote(ctx, weight, floats(s.tokens, s.topk, s.topk));
    wrote(ctx, count, (size_t)experts * sizeof *count);
    wrote(ctx, prob_sum, floats(1, experts, experts));
    CUDA_OK(cudaMemsetAsync(count, 0, (size_t)experts * sizeof *count, ctx->stream));
    if (s.tokens)
        LAUNCH(forward_kernel, grid_of(s.tokens), WARPS * WARP, shared_bytes(experts), ctx, s.tokens, experts,
               (int)s.topk, s.scaling, prob, index, weight, (unsigned long long *)count, part, logits, bias);
    sum_of_rows(ctx, divide_up(s.tokens, WARPS * TOKENS), experts, prob_sum, false, part);
}

static __global__ void __launch_bounds__(WARPS *WARP)
    backward_kernel(int64_t tokens, int64_t experts, int topk, double scaling, float *dlogits, float *part,
                    const float *dweight, const float *prob, const int32_t *index, const float *lb_grad) {
    kernel_begins();
    DYNAMIC_SHARED(float, shared);
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float *work = shared + 2 * warp * experts, *sum = work + experts;
    int64_t first = ((int64_t)blockIdx.x * WARPS + warp) * TOKENS;
    for (int64_t e = lane; e < experts; e += WARP) sum[e] = 0;
    for (int64_t t = first; t < first + TOKENS && t < tokens; t++) {
        const float *p = prob + t * experts;
        for (int64_t e = lane; e < experts; e += WARP) work[e] = lb_grad[e];
        __syncwarp();
        if (lane < topk) { /* the ids of a token differ */
            int64_t e = index[t * topk + lane];
            float d = (float)(scaling * dweight[t * topk + lane]);
            work[e] += d;
            sum[e] += d;
        }
        __syncwarp();
        float dot = 0;
        for (int64_t e = lane; e < experts; e += WARP) dot = fmaf(p[e], work[e], dot);
        float mean = warp_sum(dot);
        for (int64_t e = lane; e < experts; e += WARP) dlogits[t * experts + e] = p[e] * (work[e] - mean);
        __syncwarp();
    }
    leave_sums(experts, part, shared);
}

extern "C" void cuda_router_backward(kernel_context *ctx, router_shape s, float *dlogits, float *dprob_sum,
                                     const float *dweight, const float *prob, const int32_t *index,
                                     const float *lb_grad) {
    int64_t experts = s.ffn_experts + s.zero_experts;
    require_router(ctx, "router_backward", s);
    float *part = parts_of(ctx, "router_backward", s.tokens, experts);
    wrote(ctx, dlogits, floats(s.tokens, experts, experts));
    wrote(ctx, dprob_sum, floats(1, experts, experts));
    if (s.tokens)
        LAUNCH(backward_kernel, grid_of(s.tokens), WARPS * WARP, shared_bytes(experts), ctx, s.tokens,
               experts, (int)s.topk, s.scaling, dlogits, part, dweight, prob, index, lb_grad);
    sum_of_rows(ctx, divide_up(s.tokens, WARPS * TOKENS), experts, dprob_sum, false, part);
}
