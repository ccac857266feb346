/* Router, and the combination of what the chosen experts returned. */
#include <math.h>

#include "kernels/math.h"
#include "kernels/ref/ref.h"

static void softmax(int64_t n, real *p, const real *x) {
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, x[i]);
    for (int64_t i = 0; i < n; i++) sum += fixed_exp(x[i] - top);
    for (int64_t i = 0; i < n; i++) p[i] = (real)(fixed_exp(x[i] - top) / sum);
}

static int is_among(int64_t n, const int32_t *list, int32_t id) {
    for (int64_t i = 0; i < n; i++)
        if (list[i] == id) return 1;
    return 0;
}

static void insert_ascending(int64_t n, int32_t *list, int32_t id) {
    for (; n > 0 && list[n - 1] > id; n--) list[n] = list[n - 1];
    list[n] = id;
}

void ref_router_choose(router_shape s, int32_t *index, real *weight, int64_t *count, const real *prob,
                       const real *bias) {
    int64_t experts = s.ffn_experts + s.zero_experts;
    for (int64_t e = 0; e < experts; e++) count[e] = 0;
    for (int64_t t = 0; t < s.tokens; t++) {
        const real *p = prob + t * experts;
        int32_t *chosen = index + t * s.topk;
        for (int64_t k = 0; k < s.topk; k++) {
            int32_t best = -1;
            for (int32_t e = 0; e < experts; e++)
                if (!is_among(k, chosen, e) && (best < 0 || p[e] + bias[e] > p[best] + bias[best])) best = e;
            insert_ascending(k, chosen, best);
            count[best]++;
        }
        for (int64_t k = 0; k < s.topk; k++) weight[t * s.topk + k] = (real)(s.scaling * p[chosen[k]]);
    }
}

void ref_router_forward(kernel_context *ctx, router_shape s, real *prob, int32_t *index, real *weight,
                        int64_t *count, real *prob_sum, const real *logits, const real *bias) {
    int64_t experts = s.ffn_experts + s.zero_experts;
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t t = 0; t < s.tokens; t++) softmax(experts, prob + t * experts, logits + t * experts);
    for (int64_t e = 0; e < experts; e++) {
        double sum = 0;
        for (int64_t t = 0; t < s.tokens; t++) sum += prob[t * experts + e];
        prob_sum[e] = (real)sum;
    }
    ref_router_choose(s, index, weight, count, prob, bias);
}

void ref_router_backward(kernel_context *ctx, router_shape s, real *dlogits, real *dprob_sum,
                         const real *dweight, const real *prob, const int32_t *index, const real *lb_grad) {
    int64_t experts = s.ffn_experts + s.zero_experts;
    double *total = ref_scratch(ctx, 2 * experts), *dprob = total + experts;
    for (int64_t e = 0; e < experts; e++) total[e] = 0;
    for (int64_t t = 0; t < s.tokens; t++) {
        const real *p = prob + t * experts;
        double mean = 0;
        for (int64_t e = 0; e < experts; e++) dprob[e] = lb_grad[e];
        for (int64_t k = 0; k < s.topk; k++) {
            int64_t e = index[t * s.topk + k];
            double d = s.scaling * dweight[t * s.topk + k];
            dprob[e] += d;
            total[e] += d;
        }
        for (int64_t e = 0; e < experts; e++) mean += p[e] * dprob[e];
        for (int64_t e = 0; e < experts; e++) dlogits[t * experts + e] = (real)(p[e] * (dprob[e] - mean));
    }
    for (int64_t e = 0; e < experts; e++) dprob_sum[e] = (real)total[e];
}

void ref_combine_forward(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, real *out,
                         const real *rows, const int32_t *row_of, const real *weight, const real *y) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t c = 0; c < h; c++) {
            double sum = 0;
            for (int64_t k = t * topk; k < (t + 1) * topk; k++)
                sum += (double)weight[k] * (row_of[k] < 0 ? y[t * h + c] : rows[row_of[k] * h + c]);
            out[t * h + c] = (real)(out[t * h + c] + sum);
        }
    }
}

void ref_combine_backward(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, real *dy,
                          real *dweight, const real *dout, const real *drows, const real *dw_rows,
                          const int32_t *row_of, const real *weight, const real *y) {
#pragma omp parallel for num_threads(ctx->threads)
    for (int64_t t = 0; t < tokens; t++) {
        double identity = 0; /* <dout, y> */
        for (int64_t c = 0; c < h; c++) {
            double sum = 0;
            for (int64_t k = t * topk; k < (t + 1) * topk; k++)
                sum += row_of[k] < 0 ? (double)weight[k] * dout[t * h + c] : drows[row_of[k] * h + c];
            dy[t * h + c] = (real)(dy[t * h + c] + sum);
            identity += (double)dout[t * h + c] * y[t * h + c];
        }
        for (int64_t k = t * topk; k < (t + 1) * topk; k++)
            dweight[k] = row_of[k] < 0 ? (real)identity : dw_rows[row_of[k]];
    }
}
