/* What the operations mean, by examples worked out by hand: every backend, ref among them, must give them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "tests/backends.h"

#define COUNT(a) (int64_t)(sizeof(a) / sizeof *(a))

static void expect_values(const char *what, int64_t n, const real *got, const double *want) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-6 * (1 + fabs(want[i]))))
            fail_msg("%s[%ld] is %.9g, not %.9g", what, (long)i, got[i], want[i]);
}
#define EXPECT(got, ...)                                                                                     \
    expect_values(#got, COUNT(((const double[]){__VA_ARGS__})), got, (const double[]){__VA_ARGS__})

static void gemm(const kernels *k) {
    const real a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 0, -1, 2, 1, 0}; /* [2,3] or [3,2] */
    real c[4] = {10, 20, 30, 40}, d[4] = {1, 1, 1, 1};
    k->gemm(k->ctx, GEMM_NT, 2, 2, 3, c, 2, NULL, a, 3, b, 3);
    EXPECT(c, -2, 4, -2, 13);
    k->gemm(k->ctx, GEMM_NN, 2, 2, 3, c, 2, c, a, 3, b, 2); /* c += */
    EXPECT(c, -2 + 2, 4 + 4, -2 + 5, 13 + 10);
    k->gemm(k->ctx, GEMM_TN, 2, 2, 3, c, 2, d, a, 2, b, 2); /* d + */
    EXPECT(c, 1 + 3, 1 + 6, 1 + 4, 1 + 8);
    k->gemm(k->ctx, GEMM_NT, 2, 2, 0, c, 2, d, a, 0, b, 0);
    EXPECT(c, 1, 1, 1, 1);
    k->gemm(k->ctx, GEMM_NT, 2, 2, 0, c, 2, NULL, a, 0, b, 0);
    EXPECT(c, 0, 0, 0, 0);
}

static void grouped_gemm(const kernels *k) {
    const segment s[] = {{0, 1, 1}, {1, 0, 0}, {1, 2, 0}};
    const real a[] = {1, 2, 3, 4, 5, 6}, w[] = {1, 1, 99, 10, 100, 99}; /* two experts of [1,2], 3 apart */
    real c[3] = {0}, dw[6] = {1, 1, 99, 1, 1, 99};
    k->grouped_gemm(k->ctx, GEMM_NT, 3, s, 1, 2, c, a, w, 3);
    EXPECT(c, 210, 7, 11);
    const real dy[] = {1, 10, 100};
    k->grouped_gemm_dw(k->ctx, 3, s, 1, 2, dw, 3, dy, a);
    EXPECT(dw, 1 + 30 + 500, 1 + 40 + 600, 99, 1 + 1, 1 + 2, 99);
}

static void rms_norm(const kernels *k) {
    const real x[] = {3, 4}, w[] = {1, 2};
    real y[2], rstd[1];
    k->rms_norm_forward(k->ctx, 1, 2, 0, 2, y, 2, rstd, x, 2, w);
    EXPECT(rstd, sqrt(2) / 5);
    EXPECT(y, 6 * sqrt(2) / 5, 16 * sqrt(2) / 5);
    const real large[] = {(real)3e30, (real)4e30}; /* whose squares are no floats */
    k->rms_norm_forward(k->ctx, 1, 2, 0, 2, y, 2, rstd, large, 2, w);
    EXPECT(y, 6 * sqrt(2) / 5, 16 * sqrt(2) / 5);
    k->rms_norm_forward(k->ctx, 1, 2, 0, 2, y, 2, rstd, x, 2, w);
    /* y does not change with x's length: a gradient along x vanishes */
    const real dy[] = {3, 2};
    real dx[2] = {7, 8}, dw[2];
    k->rms_norm_backward(k->ctx, 1, 2, 2, dx, 2, dx, dw, 0, dy, 2, x, 2, rstd, w);
    EXPECT(dx, 7 + 2 * sqrt(2) / 5 * (3 - 3 * 0.5 * (9 + 16) * 2 / 25),
           8 + 2 * sqrt(2) / 5 * (4 - 4 * 0.5 * (9 + 16) * 2 / 25));
    EXPECT(dw, 2 * 3 * 3 * sqrt(2) / 5, 2 * 2 * 4 * sqrt(2) / 5);
    k->rms_norm_backward(k->ctx, 1, 2, 2, dx, 2, NULL, dw, 1, dy, 2, x, 2, rstd, w);
    EXPECT(dw, 4 * 3 * 3 * sqrt(2) / 5, 4 * 2 * 4 * sqrt(2) / 5);
}

static void rope(const kernels *k) {
    const real cosine[] = {1, 1, (real)0.6, 0}, sine[] = {0, 0, (real)0.8, 1}; /* [2 positions, 2 pairs] */
    real x[] = {1, 2, 3, 4, 9, 1, 0, 0, 1, 9, 1, 0, 0, 1, 9, 1, 0, 0, 1, 9};
    k->rope(k->ctx, 4, 2, 1, 2, 0, x, 5, 4, cosine, sine);
    EXPECT(x, 1, 2, 3, 4, 9, 0.6, 0.8, -1, 0, 9, 1, 0, 0, 1, 9, 0.6, 0.8, -1, 0, 9);
    k->rope(k->ctx, 4, 2, 1, 2, 1, x, 5, 4, cosine, sine);
    EXPECT(x, 1, 2, 3, 4, 9, 1, 0, 0, 1, 9, 1, 0, 0, 1, 9, 1, 0, 0, 1, 9);
}

/* Three tokens, of which the last starts a document. */
static void attention(const kernels *k) {
    const attention_shape s = {1, 3, 1, 2, 2, 1, 0};
    const real q[] = {1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    const real kv[] = {2, 5, 10, 0, 0, 20, 1, 1, 30}, k_rope[] = {0, 0, 3, 4, 1, 1};
    const int32_t first_key[] = {0, 0, 2};
    real o[3], lse[3]; /* scores of row 1: 7 / 2 with itself, 7 / 2 with row 0 */
    k->attention_forward(k->ctx, s, o, lse, q, kv, k_rope, 2, first_key);
    EXPECT(o, 10, 15, 30);
    EXPECT(lse, 1, 3.5 + log(2), 2);
    const real d_o[] = {1, 1, 1};
    real dq[12], dkv[9], dk_rope[6];
    k->attention_backward(k->ctx, s, dq, dkv, dk_rope, 2, d_o, o, lse, q, kv, k_rope, 2, first_key);
    /* row 1: ds = 1/2 * (10 - 15) and 1/2 * (20 - 15), times the scale 1/2 */
    EXPECT(dq, 0, 0, 0, 0, -1.25 * 2, -1.25 * 5, 1.25 * 3, 1.25 * 4, 0, 0, 0, 0);
    EXPECT(dkv, -1.25, -1.25, 1.5, 1.25, 1.25, 0.5, 0, 0, 1);
    EXPECT(dk_rope, -1.25, -1.25, 1.25, 1.25, 0, 0);
}

static void swiglu(const kernels *k) {
    const real gu[] = {0, 200, -200, 2, 3, 4}, dh[] = {1, 1, 1}, weight[] = {(real)0.5};
    real h[3], dgu[6], dweight[1];
    k->swiglu_forward(k->ctx, EVERY_ROW(1), 3, h, gu);
    EXPECT(h, 0, 600, 0);
    k->swiglu_backward(k->ctx, EVERY_ROW(1), 3, dgu, h, dweight, dh, gu, weight);
    EXPECT(h, 0, 300, 0);
    EXPECT(dweight, 600);
    EXPECT(dgu, 0.5 * 2 * 0.5, 0.5 * 3, 0, 0, 0.5 * 200, 0);
}

static void embedding(const kernels *k) {
    const real w[] = {1, 2, 3, 4};
    const int32_t ids[] = {1, 1, 0};
    real x[6], dw[4] = {0};
    k->embedding_forward(k->ctx, 3, 2, x, w, ids);
    EXPECT(x, 3, 4, 3, 4, 1, 2);
    k->embedding_backward(k->ctx, 3, 2, dw, x, ids);
    EXPECT(dw, 1, 2, 6, 8);
}

static void router(const kernels *k) {
    const router_shape s = {2, 3, 1, 2, 8};
    const real logits[] = {0, 0, 0, 0, 0, (real)log(3), (real)log(2), (real)log(2)};
    const real bias[] = {0, 0, 0, 0}, favour_last[] = {0, 0, 0, (real)0.9};
    real prob[8], weight[4], sum[4];
    int32_t index[4];
    int64_t count[4];
    k->router_forward(k->ctx, s, prob, index, weight, count, sum, logits, bias);
    EXPECT(prob, 0.25, 0.25, 0.25, 0.25, 0.125, 0.375, 0.25, 0.25);
    EXPECT(sum, 0.375, 0.625, 0.5, 0.5);
    assert_memory_equal(index, ((int32_t[]){0, 1, 1, 2}), sizeof index); /* ties to the lower id */
    assert_memory_equal(count, ((int64_t[]){1, 2, 1, 0}), sizeof count);
    EXPECT(weight, 2, 2, 3, 2);
    k->router_forward(k->ctx, s, prob, index, weight, count, sum, logits, favour_last);
    assert_memory_equal(index, ((int32_t[]){0, 3, 1, 3}), sizeof index);
    EXPECT(weight, 2, 2, 3, 2); /* a bias chooses and never weighs */

    const real dweight[] = {1, 0, 0, 1}, lb_grad[] = {0, 0, 0, 4};
    real dlogits[8], dsum[4];
    k->router_backward(k->ctx, s, dlogits, dsum, dweight, prob, index, lb_grad);
    EXPECT(dsum, 8, 0, 0, 8);
    EXPECT(dlogits, 0.25 * (8 - 3), 0.25 * -3, 0.25 * -3, 0.25 * (4 - 3), 0.125 * -3, 0.375 * -3, 0.25 * -3,
           0.25 * (12 - 3));
}

static void combine(const kernels *k) {
    const int32_t row_of[] = {1, 0, -1, -1};
    const real rows[] = {1, 2, 10, 20}, weight[] = {1, 2, 3, 4}, y[] = {5, 5, 1, 3}, dw_rows[] = {70, 80};
    real out[] = {100, 100, 100, 100}, dy[] = {1, 1, 1, 1}, dweight[4];
    k->combine_forward(k->ctx, 2, 2, 2, out, rows, row_of, weight, y);
    EXPECT(out, 112, 124, 107, 121);
    const real dout[] = {1, 1, 2, 1};
    k->combine_backward(k->ctx, 2, 2, 2, dy, dweight, dout, rows, dw_rows, row_of, weight, y);
    EXPECT(dy, 12, 23, 15, 8);
    EXPECT(dweight, 80, 70, 5, 5);
}

static void losses(const kernels *k) {
    real logits[] = {0, (real)log(3), 7, 7, 5, 6};
    const int32_t targets[] = {0, 1, -1};
    real loss[3];
    int32_t best[3];
    k->cross_entropy(k->ctx, 3, 2, 0, loss, best, logits, targets);
    EXPECT(loss, log(4), log(2), 0);
    EXPECT(logits, 0, log(3), 7, 7, 5, 6);
    assert_memory_equal(best, ((int32_t[]){1, 0, 1}), sizeof best);
    k->cross_entropy(k->ctx, 3, 2, 2, loss, NULL, logits, targets);
    EXPECT(logits, 2 * (0.25 - 1), 2 * 0.75, 1, -1, 0, 0);

    const real x[] = {0, 0, (real)-log(3), 0};
    real z[2], squares[2], top[2], dx[] = {1, 1, 1, 1};
    k->hidden_z(k->ctx, 2, 2, 0.5, z, squares, top, dx, x);
    EXPECT(z, log(2) * log(2), log(4) * log(4));
    EXPECT(squares, 0, log(3) * log(3));
    EXPECT(top, 0, log(3));
    EXPECT(dx, 1, 1, 1 - log(4) * 0.75, 1);
}

static void adamw(const kernels *k) {
    const real g[] = {4, -1, 0};
    real p[] = {1, 1, 1}, m[3] = {0}, v[3] = {0};
    adamw_step s = {0.1, 0.9, 0.99, 1e-16, 0.5, 0.5, 0.1, 0.01};
    k->adamw(k->ctx, 3, s, p, m, v, g);
    EXPECT(p, 0.95 - 0.1, 0.95 + 0.1, 0.95); /* the first step has the gradient's sign alone */
    EXPECT(m, 0.2, -0.05, 0);
    EXPECT(v, 0.04, 0.0025, 0);
}

static void figures(const kernels *k) {
    static real x[SUM_BLOCK + 2];
    for (int i = 0; i < SUM_BLOCK + 2; i++) x[i] = 2;
    double sums[2];
    uint64_t before[2], after[2];
    k->sum_squares(k->ctx, SUM_BLOCK + 2, sums, x);
    assert_true(sums[0] == 4.0 * SUM_BLOCK && sums[1] == 8);
    k->digest(k->ctx, SUM_BLOCK + 2, before, x);
    x[SUM_BLOCK] = NAN;
    k->sum_squares(k->ctx, SUM_BLOCK + 2, sums, x);
    assert_true(sums[0] == 4.0 * SUM_BLOCK && isnan(sums[1]));
    x[SUM_BLOCK] = INFINITY;
    k->sum_squares(k->ctx, SUM_BLOCK + 2, sums, x);
    assert_true(isinf(sums[1]));
    k->digest(k->ctx, SUM_BLOCK + 2, after, x);
    assert_true(before[0] == after[0] && before[1] != after[1]);
    for (int i = 0; i < SUM_BLOCK; i++) x[i] = i % 2 ? 0x1p-100f : 0x1p100f; /* whose squares are no floats */
    k->sum_squares(k->ctx, SUM_BLOCK, sums, x);
    assert_true(sums[0] == 0x1p200 * SUM_BLOCK / 2);
    k->sum_squares(k->ctx, 1, sums, x + 1);
    assert_true(sums[0] == 0x1p-200);
}

static void copies(const kernels *k) {
    const real x[] = {1, 2, 3, 4, 5, 6};
    const int32_t two[] = {2, 0}, one[] = {1, 1};
    real y[6] = {0}, sum[] = {1, 1};
    k->copy_rows(k->ctx, 2, 2, y, two, x, NULL);
    EXPECT(y, 3, 4, 0, 0, 1, 2);
    k->copy_rows(k->ctx, 2, 2, y, NULL, x, one);
    EXPECT(y, 3, 4, 3, 4, 1, 2);
    k->add(k->ctx, 2, sum, sum, 1, (const real *const[]){x});
    EXPECT(sum, 2, 3);
    k->add(k->ctx, 2, y, x, 2, (const real *const[]){x + 2, x + 4});
    EXPECT(y, 9, 12);
    k->add(k->ctx, 2, y, NULL, 3,
           (const real *const[]){(real[]){1, -0.0f}, (real[]){0x1p24f, -0.0f}, (real[]){1, -0.0f}});
    assert_true(y[0] == 0x1p24f && y[1] == 0 && signbit(y[1])); /* in this order, from the first */
    k->zero(k->ctx, 1, sum);
    k->copy(k->ctx, 1, sum + 1, x + 4);
    EXPECT(sum, 0, 5);
}

/* What comes before a non-finite number must not hide it. */
static void non_finite(const kernels *k) {
    const real x[] = {1, NAN, 2, 3}, w[] = {1, 1, 1, 1};
    real y[4], figure[3];
    k->gemm(k->ctx, GEMM_NT, 1, 1, 4, y, 1, NULL, x, 4, w, 4);
    assert_true(isnan(y[0]));
    k->rms_norm_forward(k->ctx, 1, 4, 1e-5, 1, y, 4, figure, x, 4, w);
    assert_true(isnan(y[0]) && isnan(y[1]));
    k->hidden_z(k->ctx, 1, 4, 1, figure, figure + 1, figure + 2, NULL, x);
    assert_true(isnan(figure[0]) && isnan(figure[1]));
    const int32_t target[] = {0};
    memcpy(y, x, sizeof y);
    k->cross_entropy(k->ctx, 1, 4, 1, figure, NULL, y, target);
    assert_true(isnan(figure[0]) && isnan(y[0]));
    const router_shape s = {1, 4, 0, 2, 1};
    real prob[4], weight[2], sum[4];
    int32_t index[2];
    int64_t count[4];
    k->router_forward(k->ctx, s, prob, index, weight, count, sum, x, w);
    assert_true(isnan(prob[0]) && isnan(weight[0]));
    assert_true(0 <= index[0] && index[0] < index[1] && index[1] < 4); /* still something one may follow */
}

static void run_all(const kernels *k) {
    static void (*const examples[])(const kernels *) = {gemm,   grouped_gemm, rms_norm, rope,      attention,
                                                        swiglu, embedding,    router,   combine,   losses,
                                                        adamw,  figures,      copies,   non_finite};
    for (int64_t i = 0; i < COUNT(examples); i++) examples[i](k);
}

BACKEND_TESTS(run_all, 2);

int main(void) {
    return cmocka_run_group_tests(backend_tests, NULL, NULL);
}
