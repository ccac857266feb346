/* The router: softmax, biased choice of the top K, and back through the softmax. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"
#include "launch/error.h"

static void softmax(int64_t n, float *p, const float *x) {
    vf lowest = vf_set1(-FLT_MAX), top = lowest;
    for (int64_t c = 0; c < n; c += LANES)
        top = vf_max(top, vf_select(vm_first(n - c), vf_load_n(x + c, n - c), lowest));
    top = vf_set1(vf_max_lane(top));
    vf sum = vf_zero();
    for (int64_t c = 0; c < n; c += LANES) {
        vf e = vf_exp(vf_sub(vf_load_n(x + c, n - c), top));
        vf_store_n(p + c, e, n - c);
        sum = vf_add(sum, vf_select(vm_first(n - c), e, vf_zero()));
    }
    vf total = vf_set1(vf_sum(sum));
    for (int64_t c = 0; c < n; c += LANES) vf_store_n(p + c, vf_div(vf_load_n(p + c, n - c), total), n - c);
}

/* index [tokens, k] = the ids with the k largest p + bias, ties to the lower id, ascending; p [tokens, n], at
 * most LANES tokens.  A token to a lane: what is chosen can not be guessed, so nothing branches on it.
 * scratch holds n + k vectors.  A score that is not a number counts as the lowest: the step ends with an
 * error, but not here. */
static void choose(int64_t tokens, int64_t n, int64_t k, int32_t *index, float *scratch, const float *p,
                   const float *bias) {
    float *score = scratch, *chosen = score + n * LANES; /* ids as floats: there are fewer than 2^24 */
    for (int64_t t = 0; t < LANES; t++) {
        const float *p_t = p + (t < tokens ? t : 0) * n;
        for (int64_t e = 0; e < n; e++) {
            float s = p_t[e] + bias[e];
            score[e * LANES + t] = s > -FLT_MAX ? s : -FLT_MAX;
        }
    }
    for (int64_t r = 0; r < k; r++) {
        vf top = vf_set1(-INFINITY), best = vf_zero(), id = vf_set1((float)n);
        for (int64_t e = 0; e < n; e++) top = vf_max(top, vf_load(score + e * LANES));
        for (int64_t e = n - 1; e >= 0; e--) {
            id = vf_sub(id, vf_set1(1));
            best = vf_select(vf_equal(vf_load(score + e * LANES), top), id, best);
        }
        float taken[LANES], *at = chosen + r * LANES;
        vf_store(taken, best);
        for (int64_t t = 0; t < LANES; t++) score[(int64_t)taken[t] * LANES + t] = -INFINITY;
        /* it sinks to its place among those before */
        for (; at > chosen; at -= LANES) {
            vf below = vf_load(at - LANES);
            vf_store(at, vf_max(below, best));
            best = vf_min(below, best);
        }
        vf_store(at, best);
    }
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t r = 0; r < k; r++) index[t * k + r] = (int32_t)chosen[r * LANES + t];
}

/* sum [cols] = of the rows of x [rows, cols], in blocks. */
static void sum_rows(int threads, int64_t rows, int64_t cols, float *sum, const float *x) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t c = 0; c < cols; c += LANES) {
        vf total = vf_zero();
        for (int64_t start = 0; start < rows; start += GEMM_K_BLOCK) {
            int64_t end = rows - start < GEMM_K_BLOCK ? rows : start + GEMM_K_BLOCK;
            vf block = vf_zero();
            for (int64_t r = start; r < end; r++)
                block = vf_add(block, vf_load_n(x + r * cols + c, cols - c));
            total = vf_add(total, block);
        }
        vf_store_n(sum + c, total, cols - c);
    }
}

void CPU_(router_forward)(kernel_context *ctx, router_shape s, float *prob, int32_t *index, float *weight,
                          int64_t *count, float *prob_sum, const float *logits, const float *bias) {
    int64_t experts = s.ffn_experts + s.zero_experts;
    int threads = threads_for(ctx, s.tokens * experts * s.topk);
    REQUIRE((experts + s.topk) * LANES * (int64_t)sizeof(float) <= THREAD_SCRATCH);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < s.tokens; start += LANES) {
        int64_t tokens = s.tokens - start < LANES ? s.tokens - start : LANES;
        float *p = prob + start * experts;
        int32_t *chosen = index + start * s.topk;
        for (int64_t t = 0; t < tokens; t++)
            softmax(experts, p + t * experts, logits + (start + t) * experts);
        choose(tokens, experts, s.topk, chosen, thread_scratch(ctx), p, bias);
        for (int64_t i = 0; i < tokens * s.topk; i++)
            weight[start * s.topk + i] = (float)(s.scaling * p[i / s.topk * experts + chosen[i]]);
    }
    sum_rows(threads, s.tokens, experts, prob_sum, prob);
    memset(count, 0, (size_t)experts * sizeof *count);
    for (int64_t i = 0; i < s.tokens * s.topk; i++) count[index[i]]++;
}

/* sum [experts] = of scaling * dweight at the chosen ids, in blocks of tokens; few numbers, so one thread. */
static void sum_chosen(kernel_context *ctx, router_shape s, float *sum, const float *dweight,
                       const int32_t *index) {
    int64_t experts = s.ffn_experts + s.zero_experts;
    float *block = thread_scratch(ctx);
    memset(sum, 0, (size_t)experts * sizeof *sum);
    for (int64_t start = 0; start < s.tokens; start += GEMM_K_BLOCK) {
        int64_t end = s.tokens - start < GEMM_K_BLOCK ? s.tokens : start + GEMM_K_BLOCK;
        memset(block, 0, (size_t)experts * sizeof *block);
        for (int64_t i = start * s.topk; i < end * s.topk; i++)
            block[index[i]] += (float)(s.scaling * dweight[i]);
        for (int64_t e = 0; e < experts; e++) sum[e] += block[e];
    }
}

void CPU_(router_backward)(kernel_context *ctx, router_shape s, float *dlogits, float *dprob_sum,
                           const float *dweight, const float *prob, const int32_t *index,
                           const float *lb_grad) {
    int64_t experts = s.ffn_experts + s.zero_experts;
#pragma omp parallel for num_threads(threads_for(ctx, s.tokens *experts)) schedule(static)
    for (int64_t t = 0; t < s.tokens; t++) {
        const float *p = prob + t * experts;
        float *d = dlogits + t * experts; /* holds the gradient of p until it has gone through the softmax */
        memcpy(d, lb_grad, (size_t)experts * sizeof *d);
        for (int64_t k = t * s.topk; k < (t + 1) * s.topk; k++)
            d[index[k]] += (float)(s.scaling * dweight[k]);
        vf dot = vf_zero();
        for (int64_t c = 0; c < experts; c += LANES)
            dot = vf_fma(vf_load_n(p + c, experts - c), vf_load_n(d + c, experts - c), dot);
        vf mean = vf_set1(vf_sum(dot));
        for (int64_t c = 0; c < experts; c += LANES) {
            vf v = vf_sub(vf_load_n(d + c, experts - c), mean);
            vf_store_n(d + c, vf_mul(vf_load_n(p + c, experts - c), v), experts - c);
        }
    }
    sum_chosen(ctx, s, dprob_sum, dweight, index);
}
