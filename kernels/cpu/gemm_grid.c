/* How threads share a matrix product: a pure function of its shape. */
#include "kernels/cpu/gemm_tile.h"

enum {
    PARALLEL_PRODUCT = 1 << 16, /* multiply-adds below which threads cost more than they save */
    MANY_ROWS = 128,            /* as many that packing B once for each thread costs little */
    OWN_CACHE = 1 << 18,        /* floats that a core has near it */
};

int CPU_(gemm_threads)(const kernel_context *ctx, int64_t m, int64_t n, int64_t k) {
    return (double)m * (double)n * (double)k < PARALLEL_PRODUCT ? 1 : ctx->threads;
}

static int64_t vectors_of(int64_t n) {
    return (n + GEMM_LANES - 1) / GEMM_LANES;
}

/* Floats that a part packs: B, and in bf16 A. */
static int64_t packed_by(const kernel_context *ctx, int64_t height, int64_t width, int held) {
    return (ctx->dtype == DTYPE_BF16 ? height : 0) + (held ? 0 : width);
}

/* Does a thread find rows of A that it wrote before in its own cache? All other operations share out rows. */
static int rows_at_hand(const kernel_context *ctx, int threads, gemm_form form, int64_t m, int64_t k) {
    return ctx->dtype == DTYPE_FLOAT32 && form != GEMM_TN && m >= threads * MANY_ROWS &&
           m / threads * k <= OWN_CACHE;
}

/* The grid whose largest part is smallest.  Of equal ones the one with most rows of parts where rows are at
 * hand, so that only weights come from another's cache, and otherwise the one whose parts pack least. */
gemm_grid CPU_(gemm_grid_for)(const kernel_context *ctx, int threads, gemm_form form, int64_t m, int64_t n,
                              int64_t k, int held) {
    const int by_rows = rows_at_hand(ctx, threads, form, m, k);
    gemm_grid best = {1, threads};
    int64_t best_size = INT64_MAX, best_cost = 0;
    for (int rows = 1; rows <= threads; rows++) {
        const int columns = threads / rows;
        const int64_t height = (m + rows - 1) / rows, width = (vectors_of(n) + columns - 1) / columns;
        const int64_t cost = by_rows ? columns : packed_by(ctx, height, width * GEMM_LANES, held);
        if (height * width < best_size || (height * width == best_size && cost < best_cost)) {
            best = (gemm_grid){rows, columns};
            best_size = height * width;
            best_cost = cost;
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
    if (j % PANEL) g.held = NULL; /* it begins within a panel */
    g.held_column = j;
    return g;
}
