/* Checked operations around the dense path: router and combine, losses, optimizer, figures of a tensor. */
#include <math.h>
#include <string.h>

#include "kernels/check.h"
#include "kernels/ref/choose.h"

/* The probabilities are held to a bound; the choice, which a last bit may tip, to what ref chooses from the
 * backend's own probabilities. */
void check_router_forward(kernel_context *x, router_shape s, real *prob, int32_t *index, real *weight,
                          int64_t *count, real *prob_sum, const real *logits, const real *bias) {
    check_begin(x, "router_forward", CHECK_SIZES(s.tokens, s.ffn_experts, s.zero_experts, s.topk));
    int64_t experts = s.ffn_experts + s.zero_experts, slots = s.tokens * s.topk;
    real *want_prob = check_expect(x, CHECK_WRITES, prob, s.tokens, experts, experts);
    int32_t *want_index = check_expect_bytes(x, index, (size_t)slots * sizeof *index);
    real *want_weight = check_expect(x, CHECK_WRITES, weight, s.tokens, s.topk, s.topk);
    int64_t *want_count = check_expect_bytes(x, count, (size_t)experts * sizeof *count);
    real *want_sum = check_expect(x, CHECK_WRITES, prob_sum, 1, experts, experts);
    REF(x, router_forward, s, want_prob, want_index, want_weight, want_count, want_sum, logits, bias);
    INNER(x, router_forward, s, prob, index, weight, count, prob_sum, logits, bias);
    ref_router_choose(s, want_index, want_weight, want_count, prob, bias);

    double range = 2 * check_largest(s.tokens, experts, experts, logits);
    double units = check_lanes(experts) + range + 8;
    check_bound b = {.relative = units, .floor = 0x1p-120};
    check_close(x, "prob", prob, want_prob, s.tokens, experts, experts, b);
    check_equal(x, "index", index, want_index, (size_t)slots, sizeof *index);
    check_close(x, "weight", weight, want_weight, s.tokens, s.topk, s.topk, (check_bound){.relative = 3});
    check_equal(x, "count", count, want_count, (size_t)experts, sizeof *count);
    b.relative += check_chain(s.tokens);
    b.floor *= (double)s.tokens;
    check_close(x, "prob_sum", prob_sum, want_sum, 1, experts, experts, b);
}

void check_router_backward(kernel_context *x, router_shape s, real *dlogits, real *dprob_sum,
                           const real *dweight, const real *prob, const int32_t *index, const real *lb_grad) {
    check_begin(x, "router_backward", CHECK_SIZES(s.tokens, s.ffn_experts, s.zero_experts, s.topk));
    int64_t experts = s.ffn_experts + s.zero_experts;
    real *want_dlogits = check_expect(x, CHECK_WRITES, dlogits, s.tokens, experts, experts);
    real *want_sum = check_expect(x, CHECK_WRITES, dprob_sum, 1, experts, experts);
    double *row = check_scratch(x, (size_t)s.tokens * sizeof *row);
    double *column = check_scratch(x, (size_t)experts * sizeof *column);
    memset(column, 0, (size_t)experts * sizeof *column);
    for (int64_t t = 0; t < s.tokens; t++) {
        double largest = check_largest(1, s.topk, s.topk, dweight + t * s.topk);
        row[t] = (s.scaling * largest + check_largest(1, experts, experts, lb_grad)) *
                 check_largest(1, experts, experts, prob + t * experts);
        for (int64_t k = t * s.topk; k < (t + 1) * s.topk; k++)
            column[index[k]] += s.scaling * fabs(dweight[k]);
    }
    REF(x, router_backward, s, want_dlogits, want_sum, dweight, prob, index, lb_grad);
    INNER(x, router_backward, s, dlogits, dprob_sum, dweight, prob, index, lb_grad);
    check_close(x, "dlogits", dlogits, want_dlogits, s.tokens, experts, experts,
                (check_bound){.absolute = check_lanes(experts) + 8, .row = row});
    check_close(x, "dprob_sum", dprob_sum, want_sum, 1, experts, experts,
                (check_bound){.absolute = check_chain(s.tokens) + 4, .column = column});
}

void check_combine_forward(kernel_context *x, int64_t tokens, int64_t h, int64_t topk, real *out,
                           const real *rows, const int32_t *row_of, const real *weight, const real *y) {
    check_begin(x, "combine_forward", CHECK_SIZES(tokens, h, topk));
    real *before = check_expect(x, CHECK_UPDATES, out, tokens, h, h);
    real *want = check_expect(x, CHECK_UPDATES, out, tokens, h, h);
    double *row = check_scratch(x, (size_t)tokens * sizeof *row);
    for (int64_t t = 0; t < tokens; t++) {
        row[t] = 0;
        for (int64_t k = t * topk; k < (t + 1) * topk; k++)
            row[t] +=
                fabs(weight[k]) * check_largest(1, h, h, row_of[k] < 0 ? y + t * h : rows + row_of[k] * h);
    }
    REF(x, combine_forward, tokens, h, topk, want, rows, row_of, weight, y);
    INNER(x, combine_forward, tokens, h, topk, out, rows, row_of, weight, y);
    check_bound b = {.relative = 2, .added = before, .absolute = (double)topk + 4, .row = row};
    check_close(x, "out", out, want, tokens, h, h, b);
}

void check_combine_backward(kernel_context *x, int64_t tokens, int64_t h, int64_t topk, real *dy,
                            real *dweight, const real *dout, const real *drows, const real *dw_rows,
                            const int32_t *row_of, const real *weight, const real *y) {
    check_begin(x, "combine_backward", CHECK_SIZES(tokens, h, topk));
    real *before = check_expect(x, CHECK_UPDATES, dy, tokens, h, h);
    real *want_dy = check_expect(x, CHECK_UPDATES, dy, tokens, h, h);
    real *want_dweight = check_expect(x, CHECK_WRITES, dweight, tokens, topk, topk);
    double *row = check_scratch(x, (size_t)tokens * sizeof *row),
           *dot = check_scratch(x, (size_t)tokens * sizeof *dot);
    for (int64_t t = 0; t < tokens; t++) {
        row[t] = dot[t] = 0;
        for (int64_t j = t * h; j < (t + 1) * h; j++) dot[t] += fabs((double)dout[j] * y[j]);
        for (int64_t k = t * topk; k < (t + 1) * topk; k++)
            row[t] += row_of[k] < 0 ? fabs(weight[k]) * check_largest(1, h, h, dout + t * h)
                                    : check_largest(1, h, h, drows + row_of[k] * h);
    }
    REF(x, combine_backward, tokens, h, topk, want_dy, want_dweight, dout, drows, dw_rows, row_of, weight, y);
    INNER(x, combine_backward, tokens, h, topk, dy, dweight, dout, drows, dw_rows, row_of, weight, y);
    check_bound b = {.relative = 2, .added = before, .absolute = (double)topk + 4, .row = row};
    check_close(x, "dy", dy, want_dy, tokens, h, h, b);
    check_close(x, "dweight", dweight, want_dweight, tokens, topk, topk,
                (check_bound){.absolute = check_lanes(h) + 2, .row = dot});
}

/* softmax - onehot: the error at the target is relative to the two numbers, not to their difference. */
void check_cross_entropy(kernel_context *x, int64_t rows, int64_t vocab, double scale, real *loss,
                         int32_t *best, real *logits, const int32_t *targets) {
    check_begin(x, "cross_entropy", CHECK_SIZES(rows, vocab, best != NULL, scale != 0));
    double range = 2 * check_largest(rows, vocab, vocab, logits), units = check_lanes(vocab) + 2 * range + 8;
    real *want_loss = check_expect(x, CHECK_WRITES, loss, rows, 1, 1);
    int32_t *want_best = best ? check_expect_bytes(x, best, (size_t)rows * sizeof *best) : NULL;
    real *want = check_expect(x, CHECK_UPDATES, logits, rows, vocab, vocab);
    real *one_hot = check_scratch(x, (size_t)(rows * vocab) * sizeof *one_hot);
    memset(one_hot, 0, (size_t)(rows * vocab) * sizeof *one_hot);
    for (int64_t i = 0; i < rows; i++)
        if (targets[i] >= 0) one_hot[i * vocab + targets[i]] = (real)scale;
    REF(x, cross_entropy, rows, vocab, scale, want_loss, want_best, want, targets);
    INNER(x, cross_entropy, rows, vocab, scale, loss, best, logits, targets);
    check_close(x, "loss", loss, want_loss, rows, 1, 1, (check_bound){.relative = 3, .absolute = units});
    if (best) check_equal(x, "best", best, want_best, (size_t)rows, sizeof *best);
    if (scale == 0) check_equal(x, "logits", logits, want, (size_t)(rows * vocab), sizeof *logits);
    else
        check_close(x, "logits", logits, want, rows, vocab, vocab,
                    (check_bound){.relative = units, .added = one_hot, .floor = 0x1p-120 * fabs(scale)});
}

void check_hidden_z(kernel_context *x, int64_t rows, int64_t h, double scale, real *loss, real *sum_sq,
                    real *max_abs, real *dx, const real *in) {
    check_begin(x, "hidden_z", CHECK_SIZES(rows, h, dx != NULL));
    real *want_loss = check_expect(x, CHECK_WRITES, loss, rows, 1, 1);
    real *want_sum = check_expect(x, CHECK_WRITES, sum_sq, rows, 1, 1);
    real *want_max = check_expect(x, CHECK_WRITES, max_abs, rows, 1, 1);
    real *before = dx ? check_expect(x, CHECK_UPDATES, dx, rows, h, h) : NULL;
    real *want_dx = dx ? check_expect(x, CHECK_UPDATES, dx, rows, h, h) : NULL;
    REF(x, hidden_z, rows, h, scale, want_loss, want_sum, want_max, want_dx, in);
    INNER(x, hidden_z, rows, h, scale, loss, sum_sq, max_abs, dx, in);
    double lanes = check_lanes(h), range = 2 * check_largest(rows, h, h, in);
    /* logsumexp is at least log h, so that an absolute error of its sum is a relative one */
    check_close(x, "loss", loss, want_loss, rows, 1, 1, (check_bound){.relative = 4 * lanes + 16});
    check_close(x, "sum_sq", sum_sq, want_sum, rows, 1, 1, (check_bound){.relative = lanes});
    check_equal(x, "max_abs", max_abs, want_max, (size_t)rows, sizeof *max_abs);
    if (dx)
        check_close(x, "dx", dx, want_dx, rows, h, h,
                    (check_bound){.relative = 3 * lanes + range + 16,
                                  .added = before,
                                  .floor = 0x1p-120 * fabs(scale)});
}

/* m may cancel: its error, and that of p's update, are counted against |m| and |g| before. */
void check_adamw(kernel_context *x, int64_t n, adamw_step s, real *p, real *m, real *v, const real *g) {
    check_begin(x, "adamw", CHECK_SIZES(n));
    real *before = check_expect(x, CHECK_UPDATES, m, n, 1, 1),
         *before_p = check_expect(x, CHECK_UPDATES, p, n, 1, 1);
    real *want_p = check_expect(x, CHECK_UPDATES, p, n, 1, 1);
    real *want_m = check_expect(x, CHECK_UPDATES, m, n, 1, 1);
    real *want_v = check_expect(x, CHECK_UPDATES, v, n, 1, 1);
    REF(x, adamw, n, s, want_p, want_m, want_v, g);
    INNER(x, adamw, n, s, p, m, v, g);
    double *grad = check_scratch(x, (size_t)n * sizeof *grad),
           *update = check_scratch(x, (size_t)n * sizeof *update);
    for (int64_t i = 0; i < n; i++) {
        grad[i] = fabs(g[i] * s.grad_scale) * (1 - s.beta1);
        double largest_m = (fabs(before[i]) + grad[i]) / s.correction1;
        update[i] = s.lr * (largest_m / (sqrt(want_v[i] / s.correction2) + s.eps) +
                            fabs(s.weight_decay * before_p[i]));
    }
    check_close(x, "m", m, want_m, n, 1, 1,
                (check_bound){.relative = 4, .added = before, .absolute = 4, .row = grad});
    check_close(x, "v", v, want_v, n, 1, 1, (check_bound){.relative = 8});
    check_close(x, "p", p, want_p, n, 1, 1,
                (check_bound){.relative = 2, .added = before_p, .absolute = 20, .row = update});
}

void check_sum_squares(kernel_context *x, int64_t n, double *out, const real *in) {
    check_begin(x, "sum_squares", CHECK_SIZES(n));
    int64_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    double *want = check_expect_bytes(x, out, (size_t)blocks * sizeof *out);
    REF(x, sum_squares, n, want, in);
    INNER(x, sum_squares, n, out, in);
    for (int64_t i = 0; i < blocks; i++) {
        double bound = SUM_BLOCK * 0x1p-53 * want[i];
        if (isfinite(want[i]) ? !(fabs(out[i] - want[i]) <= bound) : isfinite(out[i]))
            check_fault(x, "out", i, 0, out[i], want[i], bound);
    }
    x->current->elements += blocks;
}

void check_digest(kernel_context *x, int64_t n, uint64_t *out, const real *in) {
    check_begin(x, "digest", CHECK_SIZES(n));
    int64_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    uint64_t *want = check_expect_bytes(x, out, (size_t)blocks * sizeof *out);
    REF(x, digest, n, want, in);
    INNER(x, digest, n, out, in);
    check_equal(x, "out", out, want, (size_t)blocks, sizeof *out);
}
