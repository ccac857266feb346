/* What came back from the experts, summed per token, with the identity experts' part. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"
#include "launch/error.h"

enum {
    WIDE = 4,    /* vectors of a row that are summed side by side, so that a slot is looked at once for all */
    FIRST = 256, /* elements of a row that are asked for early: the hardware follows with the rest */
};

/* A token's slots: the rows of its FFN experts, in order, and the sum of its identity experts' weights. */
typedef struct slots {
    int64_t rows;
    const float **row; /* [rows] */
    float *weight;     /* [rows] */
    float identity;
    int any_identity;
} slots;

enum { SLOT_BYTES = sizeof(float *) + sizeof(float) };

/* weight NULL: of all rows 1.  The lists lie in the thread's scratch, until the next call. */
VEC slots slots_of(const kernel_context *ctx, int64_t h, int64_t topk, const float *rows,
                   const int32_t *row_of, const float *weight, const float *identity_weight) {
    slots s = {.row = thread_scratch(ctx)};
    s.weight = (float *)(s.row + topk);
    for (int64_t k = 0; k < topk; k++) {
        if (row_of[k] < 0) {
            s.identity += identity_weight[k];
            s.any_identity = 1;
            continue;
        }
        s.row[s.rows] = rows + row_of[k] * h;
        s.weight[s.rows++] = weight ? weight[k] : 1;
    }
    return s;
}

/* Adds to columns c .. of one token: the sum over slots of weight * row, and identity * y where any.  Vectors
 * that `left` elements do not fill are masked. */
VEC void sum_columns(int vectors, int64_t left, int64_t c, float *out, const slots *s, const float *y) {
    vf sum[WIDE];
    for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t k = 0; k < s->rows; k++) {
        const vf weight = vf_set1(s->weight[k]);
        for (int v = 0; v < vectors; v++)
            sum[v] = vf_fma(weight, vf_load_n(s->row[k] + c + v * LANES, left - v * LANES), sum[v]);
    }
    for (int v = 0; v < vectors; v++) {
        const int64_t at = c + v * LANES, n = left - v * LANES;
        if (s->any_identity) sum[v] = vf_fma(vf_set1(s->identity), vf_load_n(y + at, n), sum[v]);
        vf_store_n(out + at, vf_add(vf_load_n(out + at, n), sum[v]), n);
    }
}

/* The same for all columns of token t.  The rows of the token behind it lie anywhere: it asks for them. */
VEC void sum_token(int64_t t, int64_t tokens, int64_t h, int64_t topk, float *out, const slots *s,
                   const float *rows, const int32_t *row_of, const float *y) {
    const int32_t *next = row_of + (t + 1 < tokens ? t + 1 : t) * topk;
    const int64_t first = h < FIRST ? h : FIRST;
    for (int64_t k = 0; k < topk; k++)
        for (int64_t i = 0; i < first && next[k] >= 0; i += LANES) vf_fetch(rows + next[k] * h + i);
    int64_t c = 0;
    for (; c + WIDE * LANES <= h; c += WIDE * LANES)
        sum_columns(WIDE, WIDE * LANES, c, out + t * h, s, y + t * h);
    for (; c < h; c += LANES) sum_columns(1, h - c, c, out + t * h, s, y + t * h);
}

void CPU_(combine_forward)(kernel_context *ctx, int64_t tokens, int64_t h, int64_t topk, float *out,
                           const float *rows, const int32_t *row_of, const float *weight, const float *y) {
    REQUIRE(topk * SLOT_BYTES <= THREAD_SCRATCH);
#pragma omp parallel for num_threads(threads_for(ctx, tokens *h *(topk + 1))) schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
        const float *w = weight + t * topk;
        const slots s = slots_of(ctx, h, topk, rows, row_of + t * topk, w, w);
        sum_token(t, tokens, h, topk, out, &s, rows, row_of, y);
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
    REQUIRE(topk * SLOT_BYTES <= THREAD_SCRATCH);
#pragma omp parallel for num_threads(threads_for(ctx, tokens *h *(topk + 1))) schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
        const int32_t *row = row_of + t * topk;
        const slots s = slots_of(ctx, h, topk, drows, row, NULL, weight + t * topk);
        const float d_identity = s.any_identity ? dot(h, dout + t * h, y + t * h) : 0;
        sum_token(t, tokens, h, topk, dy, &s, drows, row_of, dout);
        for (int64_t k = 0; k < topk; k++) dweight[t * topk + k] = row[k] < 0 ? d_identity : dw_rows[row[k]];
    }
}
