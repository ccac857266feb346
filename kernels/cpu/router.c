/* The router: softmax, biased choice of the top K, and back through the softmax. */
#include <float.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"

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

/* The lanes of score [padded] that hold `value`, lane by lane from the front: calls for each until one of
 * them is enough. */
static int64_t find(int64_t padded, const float *score, float value) {
    vf wanted = vf_set1(value);
    for (int64_t c = 0; c < padded; c += LANES) {
        unsigned hit = vm_bits(vf_equal(vf_load(score + c), wanted));
        if (hit) return c + __builtin_ctz(hit);
    }
    return -1;
}

/* index [k] = the ids with the k largest p + bias, ties to the lower id, ascending.  score [padded] is
 * scratch, padded the number of experts rounded up to whole vectors.  A score that is not a number counts as
 * the lowest: the step ends with an error, but not here. */
static void choose(int64_t n, int64_t k, int32_t *index, float *score, const float *p, const float *bias) {
    vf lowest = vf_set1(-FLT_MAX), taken = vf_set1(-__builtin_inff());
    int64_t padded = 0;
    for (; padded < n; padded += LANES) {
        vf s = vf_add(vf_load_n(p + padded, n - padded), vf_load_n(bias + padded, n - padded));
        vf_store(score + padded, vf_select(vm_first(n - padded), vf_max(s, lowest), taken));
    }
    for (int64_t chosen = 0; chosen < k; chosen++) {
        vf top = taken;
        for (int64_t c = 0; c < padded; c += LANES) top = vf_max(top, vf_load(score + c));
        int64_t e = find(padded, score, vf_max_lane(top));
        score[e] = -__builtin_inff();
        int64_t at = chosen;
        for (; at > 0 && index[at - 1] > e; at--) index[at] = index[at - 1];
        index[at] = (int32_t)e;
    }
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
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t t = 0; t < s.tokens; t++) {
        float *p = prob + t * experts;
        int32_t *chosen = index + t * s.topk;
        softmax(experts, p, logits + t * experts);
        choose(experts, s.topk, chosen, thread_scratch(ctx), p, bias);
        for (int64_t k = 0; k < s.topk; k++) weight[t * s.topk + k] = (float)(s.scaling * p[chosen[k]]);
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
