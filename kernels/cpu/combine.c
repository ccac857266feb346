/* What came back from the experts, summed per token, with the identity experts' part. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

enum {
    WIDE = 4
}; /* vectors of a row that are summed side by side, so that a slot is looked at once for all */

/* Sum of the weights of a token's identity experts, in order of slots; *any says whether there are some. */
static float identity_weight(int64_t topk, const int32_t *row_of, const float *weight, int *any) {
    float sum = 0;
    *any = 0;
    for (int64_t k = 0; k < topk; k++) {
        if (row_of[k] >= 0) continue;
        sum += weight[k];
        *any = 1;
    }
    return sum;
}

/* What is added to columns c .. of one token: sum over slots of weight (NULL: 1) * their rows, and then
 * identity * y where any.  Vectors that `left` elements do not fill are masked.  Asks for the rows of
 * `later`, a token to come, for they lie anywhere. */
VEC void sum_columns(int vectors, int64_t left, int64_t c, int64_t h, int64_t topk, float *out,
                     const float *rows, const int32_t *row, const int32_t *later, const float *weight,
                     int any, float identity, const float *y) {
    vf sum[WIDE];
    for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t k = 0; k < topk; k++) {
        for (int v = 0; v < vectors && later[k] >= 0; v++) vf_fetch(rows + later[k] * h + c + v * LANES);
        if (row[k] < 0) continue;
        const float *x = rows + row[k] * h + c;
        for (int v = 0; v < vectors; v++) {
            vf x_v = vf_load_n(x + v * LANES, left - v * LANES);
            sum[v] = weight ? vf_fma(vf_set1(weight[k]), x_v, sum[v]) : vf_add(sum[v], x_v);
        }
    }
    for (int v = 0; v < vectors; v++) {
        const int64_t at = c + v * LANES, n = left - v * LANES;
        if (any) sum[v] = vf_fma(vf_set1(identity), vf_load_n(y + at, n), sum[v]);
        vf_store_n(out + at, vf_add(vf_load_n(out + at, n), sum[v]), n);
    }
}

VEC void sum_token(int64_t h, int64_t topk, float *out, const float *rows, const int32_t *row,
                   const int32_t *later, const float *weight, int any, float identity, const float *y) {
    int64_t c = 0;
    for (; c + WIDE * LANES <= h; c += WIDE * LANES)
        sum_columns(WIDE, WIDE * LANES, c, h, topk, out, rows, row, later, weight, any, identity, y);
    for (; c < h; c += LANES)
        sum_columns(1, h - c, c, h, topk, out, rows, row, later, weight, any, identity, y);
}

/* The slots of the token whose rows are asked for while this one is summed: two ahead. */
static const int32_t *later_than(int64_t t, int64_t tokens, int64_t topk, const int32_t *row) {
    return t + 2 < tokens ? row + 2 * topk : row;
}

void CPU_(combine_forward)(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, float *out,
                           const float *rows, const int32_t *row_of, const float *weight, const float *y) {
#pragma omp parallel for num_threads(threads_for(ctx, tokens *h *(topk + 1))) schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
        const int32_t *row = row_of + t * topk;
        const float *w = weight + t * topk;
        int any;
        float identity = identity_weight(topk, row, w, &any);
        sum_token(h, topk, out + t * h, rows, row, later_than(t, tokens, topk, row), w, any, identity,
                  y + t * h);
    }
}

static float dot(int64_t n, const float *a, const float *b) {
    vf sum = vf_zero();
    for (int64_t c = 0; c < n; c += LANES)
        sum = vf_fma(vf_load_n(a + c, n - c), vf_load_n(b + c, n - c), sum);
    return vf_sum(sum);
}

void CPU_(combine_backward)(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, float *dy,
                            float *dweight, const float *dout, const float *drows, const float *dw_rows,
                            const int32_t *row_of, const float *weight, const float *y) {
#pragma omp parallel for num_threads(threads_for(ctx, tokens *h *(topk + 1))) schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
        const int32_t *row = row_of + t * topk;
        int any;
        float identity = identity_weight(topk, row, weight + t * topk, &any);
        float d_identity = any ? dot(h, dout + t * h, y + t * h) : 0;
        sum_token(h, topk, dy + t * h, drows, row, later_than(t, tokens, topk, row), NULL, any, identity,
                  dout + t * h);
        for (int64_t k = 0; k < topk; k++) dweight[t * topk + k] = row[k] < 0 ? d_identity : dw_rows[row[k]];
    }
}
