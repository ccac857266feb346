/* The router: softmax, biased choice of the top K, and back through the softmax. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"
#include "launch/error.h"

/* Vectors of a row that are summed side by side: chains that do not wait for one another. */
enum { WIDE = 4 };

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

/* The larger of a score and the best so far, with its id; the earlier stays where they are equal. */
VEC void compete(vf score, float id, vf *top, vf *best) {
    vm wins = vf_less(*top, score);
    *best = vf_select(wins, vf_set1(id), *best);
    *top = vf_max(score, *top);
}

/* chosen [k] vectors of ids, ascending = of the k largest scores, ties to the lower id; score [n] vectors, a
 * token to a lane: what is chosen can not be guessed, so nothing branches on it.  Ids are floats: there are
 * fewer than 2^24. */
static void choose(int64_t n, int64_t k, float *chosen, float *score) {
    const int64_t half = n / 2;
    const vf lowest = vf_set1(-INFINITY);
    vf last = vf_set1(-1);
    for (int64_t r = 0; r < k; r++) {
        /* two chains, of lower and upper ids; the last round's winner is taken out on the way */
        vf top = lowest, upper_top = lowest, best = vf_zero(), upper_best = vf_zero();
        for (int64_t e = 0; e < n - half; e++) {
            float *lower = score + e * LANES, *upper = score + (half + e) * LANES;
            vf a = vf_select(vf_equal(last, vf_set1((float)e)), lowest, vf_load(lower));
            vf_store(lower, a);
            vf b = vf_select(vf_equal(last, vf_set1((float)(half + e))), lowest, vf_load(upper));
            vf_store(upper, b);
            compete(a, (float)e, &top, &best);
            compete(b, (float)(half + e), &upper_top, &upper_best);
        }
        last = vf_select(vf_less(top, upper_top), upper_best, best);
        float *at = chosen + r * LANES;
        vf sinks = last;
        for (; at > chosen; at -= LANES) { /* to its place among those before */
            vf below = vf_load(at - LANES);
            vf_store(at, vf_max(below, sinks));
            sinks = vf_min(below, sinks);
        }
        vf_store(at, sinks);
    }
}

/* What is chosen for at most LANES tokens, of which p are the probabilities; counts it.  scratch holds n + k
 * vectors.  A score that is not a number counts as the lowest: the step ends with an error, but not here. */
static void choose_tokens(int64_t tokens, router_shape s, int32_t *index, float *weight, int32_t *count,
                          float *scratch, const float *p, const float *bias) {
    const int64_t n = s.ffn_experts + s.zero_experts, k = s.topk;
    float *score = scratch, *chosen = score + n * LANES;
    for (int64_t t = 0; t < LANES; t++) {
        const float *p_t = p + (t < tokens ? t : 0) * n;
        for (int64_t e = 0; e < n; e++) {
            float b = p_t[e] + bias[e];
            score[e * LANES + t] = b > -FLT_MAX ? b : -FLT_MAX;
        }
    }
    choose(n, k, chosen, score);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t r = 0; r < k; r++) {
            const int32_t id = (int32_t)chosen[r * LANES + t];
            index[t * k + r] = id;
            weight[t * k + r] = (float)(s.scaling * p[t * n + id]);
            count[id]++;
        }
}

/* sum = over rows of x, of `vectors` vectors of which `left` elements exist, in order */
VEC void sum_columns(int vectors, int64_t left, int64_t rows, int64_t cols, float *sum, const float *x) {
    vf total[WIDE];
    for (int v = 0; v < vectors; v++) total[v] = vf_zero();
    for (int64_t r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            total[v] = vf_add(total[v], vf_load_n(x + r * cols + v * LANES, left - v * LANES));
    for (int v = 0; v < vectors; v++) vf_store_n(sum + v * LANES, total[v], left - v * LANES);
}

/* sum [cols] = of the rows of x [rows, cols], in blocks. */
static void sum_rows(kernel_context *ctx, int64_t rows, int64_t cols, float *sum, const float *x) {
    float *part = (float *)ctx->shared;
    const int64_t room = SHARED_SCRATCH / (int64_t)sizeof *part / cols * GEMM_K_BLOCK; /* rows */
    if (!rows) CPU_(zero)(ctx, cols, sum);
    for (int64_t start = 0; start < rows; start += room) {
        const int64_t end = rows - start < room ? rows : start + room;
        const int64_t blocks = (end - start + GEMM_K_BLOCK - 1) / GEMM_K_BLOCK;
#pragma omp parallel for num_threads(threads_for(ctx, (end - start) * cols)) schedule(static)
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t first = start + b * GEMM_K_BLOCK, left = end - first;
            const int64_t n = left < GEMM_K_BLOCK ? left : GEMM_K_BLOCK;
            float *to = part + b * cols;
            int64_t c = 0;
            for (; c + WIDE * LANES <= cols; c += WIDE * LANES)
                sum_columns(WIDE, WIDE * LANES, n, cols, to + c, x + first * cols + c);
            for (; c < cols; c += LANES) sum_columns(1, cols - c, n, cols, to + c, x + first * cols + c);
        }
        CPU_(sum_blocks)(ctx, blocks, cols, start > 0, sum, part);
    }
}

void CPU_(router_forward)(kernel_context *ctx, router_shape s, float *prob, int32_t *index, float *weight,
                          int64_t *count, float *prob_sum, const float *logits, const float *bias) {
    const int64_t n = s.ffn_experts + s.zero_experts, vectors = (n + s.topk) * LANES;
    const int threads = threads_for(ctx, s.tokens * n * s.topk);
    REQUIRE((vectors + n) * (int64_t)sizeof(float) <= THREAD_SCRATCH && n < 1 << 24);
    memset(count, 0, (size_t)n * sizeof *count);
#pragma omp parallel num_threads(threads)
    {
        float *scratch = thread_scratch(ctx);
        int32_t *counted = (int32_t *)(scratch + vectors); /* by this thread */
        memset(counted, 0, (size_t)n * sizeof *counted);
#pragma omp for schedule(static)
        for (int64_t start = 0; start < s.tokens; start += LANES) {
            const int64_t tokens = s.tokens - start < LANES ? s.tokens - start : LANES;
            float *p = prob + start * n;
            for (int64_t t = 0; t < tokens; t++) softmax(n, p + t * n, logits + (start + t) * n);
            choose_tokens(tokens, s, index + start * s.topk, weight + start * s.topk, counted, scratch, p,
                          bias);
        }
        for (int64_t e = 0; e < n; e++) {
#pragma omp atomic
            count[e] += counted[e];
        }
    }
    sum_rows(ctx, s.tokens, n, prob_sum, prob);
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
