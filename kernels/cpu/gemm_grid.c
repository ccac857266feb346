/* How threads share a matrix product: a pure function of its shape. */
#include "kernels/cpu/gemm_tile.h"

enum { PARALLEL_PRODUCT = 1 << 18 }; /* multiply-adds below which threads cost more than they save */

int CPU_(gemm_threads)(const kernel_context *ctx, int64_t m, int64_t n, int64_t k) {
    return (double)m * (double)n * (double)k < PARALLEL_PRODUCT ? 1 : ctx->threads;
}

static int64_t vectors_of(int64_t n) {
    return (n + GEMM_LANES - 1) / GEMM_LANES;
}

/* The grid whose largest part is smallest; of equal ones the one whose parts pack least: B, and in bf16 A. */
gemm_grid CPU_(gemm_grid_for)(const kernel_context *ctx, int threads, int64_t m, int64_t n, int held) {
    gemm_grid best = {1, threads};
    int64_t best_size = INT64_MAX, best_packed = 0;
    for (int rows = 1; rows <= threads; rows++) {
        const int columns = threads / rows;
        const int64_t height = (m + rows - 1) / rows, width = (vectors_of(n) + columns - 1) / columns;
        const int64_t packed = (ctx->dtype == DTYPE_BF16 ? height : 0) + (held ? 0 : width * GEMM_LANES);
        if (height * width < best_size || (height * width == best_size && packed < best_packed)) {
            best = (gemm_grid){rows, columns};
            best_size = height * width;
            best_packed = packed;
        }
    }
    return best;
}

gemm_problem CPU_(gemm_part)(const gemm_problem *whole, gemm_grid grid, int part) {
    gemm_problem g = *whole;
    const int64_t row = part / grid.columns, column = part % grid.columns, vectors = vectors_of(g.n);
    const int64_t i = row * g.m / grid.rows, i_end = (row + 1) * g.m / grid.rows;
    const int64_t j = column * vectors / grid.columns * GEMM_LANES;
    const int64_t j_end = (column + 1) * vectors / grid.columns * GEMM_LANES;
    g.m = i_end - i;
    g.n = (j_end < g.n ? j_end : g.n) - j;
    g.c += i * g.ldc + j;
    if (g.d) g.d += i * g.ldc + j;
    g.a += g.form == GEMM_TN ? i : i * g.lda;
    g.b += g.form == GEMM_NT ? j * g.ldb : j;
    g.held_column = j;
    return g;
}
