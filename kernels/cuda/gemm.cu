/* Matrix products, dense and grouped by expert. */
#include "kernels/cuda/matrix.cuh"

/* With fewer tiles than FEW_TILES most of a GPU would be idle; PARTS: of a sum, in one call. */
enum { FEW_TILES = 128, PARTS = 64 };

/* c = d + the parts [m n] in scratch, in their order. */
static void add_parts(kernel_context *ctx, int64_t parts, int64_t elements, float *c, const float *d) {
    for (int64_t i = 0; i < parts; i += PARTS) {
        const float *part[PARTS];
        int64_t some = min(parts - i, (int64_t)PARTS);
        for (int64_t j = 0; j < some; j++) part[j] = (const float *)ctx->scratch + (i + j) * elements;
        cuda_add(ctx, elements, c, i ? c : d, some, part);
    }
}

extern "C" void cuda_gemm_float32(kernel_context *ctx, gemm_form form, int64_t m, int64_t n, int64_t k,
                                  float *c, int64_t ldc, const float *d, const float *a, int64_t lda,
                                  const float *b, int64_t ldb) {
    if (!m || !n) return;
    product_list *l = &ctx->matrix->list;
    product_call p = {form, n, lda, ldb, ldc, c, d, a, b, true};
    tile_shape tile = product_float_tile(n);
    int64_t depth = k, parts = divide_up(k, GEMM_K_BLOCK);
    /* a small C's blocks of k are computed side by side: the same numbers are added, in the same order */
    bool apart = parts > 1 && ldc == n && divide_up(m, tile.m) * divide_up(n, tile.n) < FEW_TILES &&
                 parts * m * n * (int64_t)sizeof *c <= CUDA_SCRATCH;
    if (apart) {
        p.c = (float *)ctx->scratch;
        p.d = NULL;
        depth = GEMM_K_BLOCK;
    }
    list_clear(l);
    for (int64_t i = 0; i < (apart ? parts : 1); i++) {
        int64_t at = i * depth;
        list_job(l, i * m * n, m, n, tile.m, tile.n);
        list_run(l, form == GEMM_TN ? at * lda : at, form == GEMM_NT ? at : at * ldb, min(k - at, depth));
    }
    product_float(ctx, &p, l, matrix_scratch(ctx, list_bytes(l)));
    if (apart) add_parts(ctx, parts, m * n, c, d);
    wrote(ctx, c, floats(m, n, ldc));
}

extern "C" void cuda_gemm(kernel_context *ctx, gemm_form form, int64_t m, int64_t n, int64_t k, float *c,
                          int64_t ldc, const float *d, const float *a, int64_t lda, const float *b,
                          int64_t ldb) {
    if (!m || !n) return;
    if (ctx->matrix->dtype == DTYPE_FLOAT32 || !k) {
        cuda_gemm_float32(ctx, form, m, n, k, c, ldc, d, a, lda, b, ldb);
        return;
    }
    matrices left = {a, 1, form == GEMM_TN ? k : m, form == GEMM_TN ? m : k, lda, 0};
    matrices right = {b, 1, form == GEMM_NT ? n : k, form == GEMM_NT ? k : n, ldb, 0};
    char *room = matrix_scratch(ctx, rounding_bytes(ctx, &left) + rounding_bytes(ctx, &right));
    rounded_matrices x = round_operand(ctx, &left, &room), y = round_operand(ctx, &right, &room);
    /* nobody says what cublasLt has for float32 results that are not aligned */
    bool aligned = aligned16(c, ldc) && (!d || aligned16(d, ldc));
    if (!aligned || !cublas_gemm(ctx, form, m, n, k, c, ldc, d, x.x, x.ld, y.x, y.ld)) {
        product_call p = {form, n, x.ld, y.ld, ldc, c, d, x.x, y.x, form == GEMM_TN};
        tile_shape tile = product_bf16_tile(n, p.chained);
        product_list *l = &ctx->matrix->list;
        list_clear(l);
        list_job(l, 0, m, n, tile.m, tile.n);
        list_run(l, 0, 0, k);
        product_bf16(ctx, &p, l, NULL); /* so short a list needs no room */
    }
    wrote(ctx, c, floats(m, n, ldc));
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
    wrote(ctx, c + x.row * n, floats(x.rows_end - x.row, n, n));
    if (ctx->matrix->dtype == DTYPE_FLOAT32 || !k) {
        product_call p = {form, n, k, form == GEMM_NT ? k : n, n, c, NULL, a, w, true};
        list_segments(l, segments, s, &p, k, w_stride, product_float_tile(n));
        product_float(ctx, &p, l, matrix_scratch(ctx, list_bytes(l)));
        return;
    }
    int64_t w_rows = form == GEMM_NT ? n : k, w_cols = form == GEMM_NT ? k : n;
    matrices rows = {a + x.row * k, 1, x.rows_end - x.row, k, k, 0};
    matrices weights = {w + x.expert * w_stride, x.experts_end - x.expert, w_rows, w_cols, w_cols, w_stride};
    size_t most = whole_256((size_t)segments * (sizeof(product_job) + sizeof(product_run)));
    char *room = matrix_scratch(ctx, rounding_bytes(ctx, &rows) + rounding_bytes(ctx, &weights) + most);
    rounded_matrices left = round_operand(ctx, &rows, &room), right = round_operand(ctx, &weights, &room);
    product_call p = {
        form, n, left.ld, right.ld, n, c, NULL, left.x - x.row * left.ld, right.x - x.expert * right.stride,
        false};
    list_segments(l, segments, s, &p, k, right.stride, product_bf16_tile(n, false));
    product_bf16(ctx, &p, l, room);
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
    wrote(ctx, dw + x.expert * dw_stride, floats(x.experts_end - x.expert, m * n, dw_stride));
    matrices left = {a + x.row * m, 1, x.rows_end - x.row, m, m, 0},
             right = {b + x.row * n, 1, left.rows, n, n, 0};
    size_t most = whole_256((size_t)segments * (sizeof(product_job) + sizeof(product_run)));
    if (rounded) most += rounding_bytes(ctx, &left) + rounding_bytes(ctx, &right);
    char *room = matrix_scratch(ctx, most);
    product_call p = {GEMM_TN, n, m, n, n, dw, dw, a, b, true};
    if (rounded) {
        rounded_matrices a16 = round_operand(ctx, &left, &room), b16 = round_operand(ctx, &right, &room);
        p.lda = a16.ld, p.a = a16.x - x.row * a16.ld;
        p.ldb = b16.ld, p.b = b16.x - x.row * b16.ld;
    }
    tile_shape tile = rounded ? product_bf16_tile(n, true) : product_float_tile(n);
    for (int64_t next = 0; next < segments;) {
        product_list *l = &ctx->matrix->list;
        list_gradients(l, segments, s, &next, m, &p, dw_stride, tile);
        (rounded ? product_bf16 : product_float)(ctx, &p, l, room);
    }
}
