/* Matrix products.  A thread takes blocks of rows; for each block of k and each panel of B it brings the
 * panel into the order that the microkernel reads, small enough for L1, and runs down the tiles of the row
 * block, whose part of A stays in L2.  Tiles decide no bits: an element of C is always its block sums added
 * in order.
 */
#include <string.h>

#include "kernels/cpu/gemm_tile.h"

enum {
    ROW_BLOCK = 36 * TILE_ROWS,    /* rows whose part of A stays in L2 */
    IN_PLACE_ROWS = 4 * TILE_ROWS, /* with more rows than this a contiguous panel of B is copied too */
    PARALLEL_WORK_GEMM = 1 << 17,  /* multiply-adds below which threads cost more than they save */
};

/* What lies in a thread's scratch. */
typedef struct gemm_scratch {
    float panel[GEMM_K_BLOCK * PANEL];
    float edge[TILE_ROWS * PANEL]; /* a tile that sticks out of C */
    float a[(ROW_BLOCK / TILE_ROWS + 1) * GEMM_K_BLOCK * GEMM_LANES];
} gemm_scratch;
_Static_assert(sizeof(gemm_scratch) <= THREAD_SCRATCH, "a thread's scratch is too small");
_Static_assert(TILE_ROWS <= GEMM_LANES, "a tile's column of A is one vector");

static inline int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void copy_or_zero(const gemm_problem *g) {
    for (int64_t i = 0; i < g->m; i++) {
        float *c = g->c + i * g->ldc;
        if (!g->d) memset(c, 0, (size_t)g->n * sizeof *c);
        else if (g->d != g->c) memcpy(c, g->d + i * g->ldc, (size_t)g->n * sizeof *c);
    }
}

/* A tile whose last vector has columns outside C: computed beside it, then added. */
static void edge_tile(gemm_kernel *kernel, float *edge, gemm_tile t, int64_t rows, int64_t columns) {
    const float *d = t.d;
    float *c = t.c;
    const int64_t ldc = t.ldc;
    t.c = edge;
    t.d = NULL;
    t.ldc = PANEL;
    kernel(&t);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            c[i * ldc + j] = d ? d[i * ldc + j] + edge[i * PANEL + j] : edge[i * PANEL + j];
        }
    }
}

/* Rows [begin, end) of C, columns [j, j + columns), one block of k: t holds everything but a tile's rows. */
static void panel_tiles(gemm_scratch *scratch, const gemm_problem *g, gemm_tile t, int64_t tile, int64_t end,
                        int64_t tiles, int64_t columns) {
    const int vectors = columns > GEMM_LANES ? 2 : 1;
    const gemm_tile first = t;
    for (; tile < end; tile++) {
        const int64_t i = tile * g->m / tiles, rows = (tile + 1) * g->m / tiles - i;
        gemm_kernel *kernel = CPU_(gemm_kernel_for)(g->form, (int)rows, vectors);
        t.a = first.a + (g->form == GEMM_TN ? i : i * g->lda);
        t.c = first.c + i * g->ldc;
        t.d = first.d ? first.d + i * g->ldc : NULL;
        if (columns % GEMM_LANES) edge_tile(kernel, scratch->edge, t, rows, columns);
        else kernel(&t);
    }
}

void CPU_(gemm_serial)(void *thread_scratch_, const gemm_problem *g) {
    gemm_scratch *scratch = thread_scratch_;
    if (g->m <= 0 || g->n <= 0) return;
    if (g->k <= 0) {
        copy_or_zero(g);
        return;
    }
    /* tiles of nearly equal height: a remainder of one or two rows would run at half speed */
    const int64_t tiles = (g->m + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t block = ROW_BLOCK / TILE_ROWS;
    for (int64_t tile = 0; tile < tiles; tile += block) {
        for (int64_t p = 0; p < g->k; p += GEMM_K_BLOCK) {
            const float *d = p == 0 ? g->d : g->c;
            const int64_t k = min64(GEMM_K_BLOCK, g->k - p);
            for (int64_t j = 0; j < g->n; j += PANEL) {
                const int64_t columns = min64(PANEL, g->n - j);
                const int width = columns > GEMM_LANES ? PANEL : GEMM_LANES;
                gemm_tile t = {.k = k, .a_step = g->lda, .b_step = width, .ldc = g->ldc, .b = scratch->panel};
                t.a = g->a + (g->form == GEMM_TN ? p * g->lda : p);
                t.c = g->c + j;
                t.d = d ? d + j : NULL;
                if (g->form == GEMM_NT) {
                    CPU_(pack_transposed)(scratch->panel, width, g->b + j * g->ldb + p, g->ldb, columns, k);
                } else if (g->m > IN_PLACE_ROWS || columns != width) {
                    CPU_(pack_columns)(scratch->panel, width, g->b + p * g->ldb + j, g->ldb, columns, k);
                } else {
                    t.b = g->b + p * g->ldb + j;
                    t.b_step = g->ldb;
                }
                panel_tiles(scratch, g, t, tile, min64(tile + block, tiles), tiles, columns);
            }
        }
    }
}

int CPU_(gemm_threads)(const kernel_context *ctx, int64_t m, int64_t n, int64_t k) {
    return (double)m * (double)n * (double)k < PARALLEL_WORK_GEMM ? 1 : ctx->threads;
}

/* The grid whose largest part is smallest; of equal ones the one with most columns, which packs B once. */
gemm_grid CPU_(gemm_grid_for)(int threads, int64_t m, int64_t n) {
    gemm_grid best = {1, threads};
    int64_t best_cost = INT64_MAX;
    const int64_t vectors = (n + GEMM_LANES - 1) / GEMM_LANES;
    for (int rows = 1; rows <= threads; rows++) {
        const int columns = threads / rows;
        const int64_t cost = ((m + rows - 1) / rows) * ((vectors + columns - 1) / columns);
        if (cost < best_cost) {
            best = (gemm_grid){rows, columns};
            best_cost = cost;
        }
    }
    return best;
}

gemm_problem CPU_(gemm_part)(const gemm_problem *whole, gemm_grid grid, int part) {
    gemm_problem g = *whole;
    const int64_t row = part / grid.columns, column = part % grid.columns;
    const int64_t vectors = (g.n + GEMM_LANES - 1) / GEMM_LANES;
    const int64_t i = row * g.m / grid.rows, j = column * vectors / grid.columns * GEMM_LANES;
    g.m = (row + 1) * g.m / grid.rows - i;
    g.n = min64((column + 1) * vectors / grid.columns * GEMM_LANES, g.n) - j;
    g.c += i * g.ldc + j;
    if (g.d) g.d += i * g.ldc + j;
    g.a += g.form == GEMM_TN ? i : i * g.lda;
    g.b += g.form == GEMM_NT ? j * g.ldb : j;
    return g;
}

void CPU_(gemm)(kernel_context *ctx, gemm_form form, int64_t m, int64_t n, int64_t k, float *c, int64_t ldc,
                const float *d, const float *a, int64_t lda, const float *b, int64_t ldb) {
    const gemm_problem g = {form, m, n, k, c, ldc, d, a, lda, b, ldb};
    const int threads = CPU_(gemm_threads)(ctx, m, n, k);
    if (threads == 1) {
        CPU_(gemm_serial)(thread_scratch(ctx), &g);
        return;
    }
    const gemm_grid grid = CPU_(gemm_grid_for)(threads, m, n);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int part = 0; part < grid.rows * grid.columns; part++) {
        const gemm_problem mine = CPU_(gemm_part)(&g, grid, part);
        CPU_(gemm_serial)(thread_scratch(ctx), &mine);
    }
}
