/* Matrix products, dense and grouped by expert. */
#include "kernels/cuda/matrix.cuh"

/* An operand [rows, cols] as it lies in memory. */
typedef struct operand {
    const float *x;
    int64_t rows, cols, ld;
} operand;

static size_t rounded_bytes(int64_t rows, int64_t cols) {
    return whole_256((size_t)(rows * whole_chunks(cols)) * sizeof(bf16));
}

static void dense_float(kernel_context *ctx, const product_call *p, int64_t m, int64_t k) {
    product_list *l = &ctx->matrix->list;
    tile_shape tile = product_float_tile(p->n);
    list_clear(l);
    list_job(l, 0, m, p->n, tile.m, tile.n);
    list_run(l, 0, 0, k);
    product_float(ctx, p, l, matrix_scratch(ctx, list_bytes(l)));
}

extern "C" void cuda_gemm(kernel_context *ctx, gemm_form form, int64_t m, int64_t n, int64_t k, float *c,
                          int64_t ldc, const float *d, const float *a, int64_t lda, const float *b,
                          int64_t ldb) {
    if (!m || !n) return;
    if (ctx->matrix->dtype == DTYPE_FLOAT32 || !k) {
        product_call p = {form, n, lda, ldb, ldc, c, d, a, b, true};
        dense_float(ctx, &p, m, k);
        return;
    }
    operand left = {a, form == GEMM_TN ? k : m, form == GEMM_TN ? m : k, lda};
    operand right = {b, form == GEMM_NT ? n : k, form == GEMM_NT ? k : n, ldb};
    size_t left_bytes = rounded_bytes(left.rows, left.cols);
    bf16 *a16 = (bf16 *)matrix_scratch(ctx, left_bytes + rounded_bytes(right.rows, right.cols));
    bf16 *b16 = (bf16 *)((char *)a16 + left_bytes);
    round_matrices(ctx, a16, left.x, 1, left.rows, left.cols, left.ld, 0);
    round_matrices(ctx, b16, right.x, 1, right.rows, right.cols, right.ld, 0);
    cublas_gemm(ctx, form, m, n, k, c, ldc, d, a16, whole_chunks(left.cols), b16, whole_chunks(right.cols));
}

/* ---- grouped ---- */

/* First and one past the last of the rows and experts that segments with rows name. */
typedef struct extent {
    int64_t row, rows_end, expert, experts_end;
} extent;

static extent extent_of(int64_t segments, const segment *s) {
    extent x = {INT64_MAX, 0, INT64_MAX, 0};
    for (int64_t i = 0; i < segments; i++) {
        if (!s[i].rows) continue;
        x.row = s[i].row < x.row ? s[i].row : x.row;
        x.rows_end = s[i].row + s[i].rows > x.rows_end ? s[i].row + s[i].rows : x.rows_end;
        x.expert = s[i].expert < x.expert ? s[i].expert : x.expert;
        x.experts_end = s[i].expert + 1 > x.experts_end ? s[i].expert + 1 : x.experts_end;
    }
    return x;
}

/* One job for each segment: rows of c, of a, and the expert's weights, `w_stride` apart. */
static void list_segments(product_list *l, int64_t segments, const segment *s, const product_call *p,
                          int64_t k, int64_t w_stride, tile_shape tile) {
    list_clear(l);
    for (int64_t i = 0; i < segments; i++) {
        if (!s[i].rows) continue;
        list_job(l, s[i].row * p->ldc, s[i].rows, p->n, tile.m, tile.n);
        list_run(l, s[i].row * p->lda, s[i].expert * w_stride, k);
    }
}

extern "C" void cuda_grouped_gemm(kernel_context *ctx, gemm_form form, int64_t segments, const segment *s,
                                  int64_t n, int64_t k, float *c, const float *a, const float *w,
                                  int64_t w_stride) {
    extent x = extent_of(segments, s);
    if (!x.rows_end || !n) return;
    product_list *l = &ctx->matrix->list;
    if (ctx->matrix->dtype == DTYPE_FLOAT32 || !k) {
        product_call p = {form, n, k, form == GEMM_NT ? k : n, n, c, NULL, a, w, true};
        list_segments(l, segments, s, &p, k, w_stride, product_float_tile(n));
        product_float(ctx, &p, l, matrix_scratch(ctx, list_bytes(l)));
        return;
    }
    int64_t w_rows = form == GEMM_NT ? n : k, w_cols = form == GEMM_NT ? k : n,
            experts = x.experts_end - x.expert;
    int64_t lda = whole_chunks(k), ldw = whole_chunks(w_cols), rounded_stride = w_rows * ldw;
    product_call p = {form, n, lda, ldw, n, c, NULL, NULL, NULL, false};
    list_segments(l, segments, s, &p, k, rounded_stride, product_bf16_tile(n, false));
    size_t a_bytes = rounded_bytes(x.rows_end - x.row, k), w_bytes = rounded_bytes(experts * w_rows, w_cols);
    char *scratch = matrix_scratch(ctx, a_bytes + w_bytes + list_bytes(l));
    bf16 *a16 = (bf16 *)scratch, *w16 = (bf16 *)(scratch + a_bytes);
    round_matrices(ctx, a16, a + x.row * k, 1, x.rows_end - x.row, k, k, 0);
    round_matrices(ctx, w16, w + x.expert * w_stride, experts, w_rows, w_cols, w_cols, w_stride);
    p.a = a16 - x.row * lda;
    p.b = w16 - x.expert * rounded_stride;
    product_bf16(ctx, &p, l, scratch + a_bytes + w_bytes);
}

/* Lists the segments from *next on, one job for each expert, as long as the experts ascend: an expert that
 * comes again is left to another launch, which then adds to what this one leaves. */
static void list_gradients(product_list *l, int64_t segments, const segment *s, int64_t *next, int64_t m,
                           const product_call *p, int64_t dw_stride, tile_shape tile) {
    list_clear(l);
    int64_t expert = -1;
    for (; *next < segments && s[*next].expert >= expert; ++*next) {
        const segment *at = &s[*next];
        if (!at->rows) continue;
        if (at->expert > expert) list_job(l, at->expert * dw_stride, m, p->n, tile.m, tile.n);
        expert = at->expert;
        list_run(l, at->row * p->lda, at->row * p->ldb, at->rows);
    }
}

extern "C" void cuda_grouped_gemm_dw(kernel_context *ctx, int64_t segments, const segment *s, int64_t m,
                                     int64_t n, float *dw, int64_t dw_stride, const float *a,
                                     const float *b) {
    extent x = extent_of(segments, s);
    if (!x.rows_end || !m || !n) return;
    bool rounded = ctx->matrix->dtype == DTYPE_BF16;
    int64_t lda = rounded ? whole_chunks(m) : m, ldb = rounded ? whole_chunks(n) : n,
            rows = x.rows_end - x.row;
    size_t a_bytes = rounded ? rounded_bytes(rows, m) : 0, b_bytes = rounded ? rounded_bytes(rows, n) : 0;
    size_t most = whole_256((size_t)segments * (sizeof(product_job) + sizeof(product_run)));
    char *scratch = matrix_scratch(ctx, a_bytes + b_bytes + most);
    product_call p = {GEMM_TN, n, lda, ldb, n, dw, dw, a, b, true};
    if (rounded) {
        bf16 *a16 = (bf16 *)scratch, *b16 = (bf16 *)(scratch + a_bytes);
        round_matrices(ctx, a16, a + x.row * m, 1, rows, m, m, 0);
        round_matrices(ctx, b16, b + x.row * n, 1, rows, n, n, 0);
        p.a = a16 - x.row * lda;
        p.b = b16 - x.row * ldb;
    }
    tile_shape tile = rounded ? product_bf16_tile(n, true) : product_float_tile(n);
    for (int64_t next = 0; next < segments;) {
        product_list *l = &ctx->matrix->list;
        list_gradients(l, segments, s, &next, m, &p, dw_stride, tile);
        (rounded ? product_bf16 : product_float)(ctx, &p, l, scratch + a_bytes + b_bytes);
    }
}
