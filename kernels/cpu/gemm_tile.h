/* Inside the matrix products: what a microkernel computes, and what a thread computes of it. */
#ifndef CARACAL_KERNELS_CPU_GEMM_TILE_H
#define CARACAL_KERNELS_CPU_GEMM_TILE_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm_vec.h"

/* A tile of C is up to TILE_ROWS x PANEL: so many accumulators that two multiply-adds a cycle never wait for
 * one another, and as many as the registers hold beside two vectors of B and one spread element of A.  A
 * fused kernel (FUSED_ROWS, 0 where the registers do not suffice) also holds eight vectors that it
 * transposes. */
#ifdef __AVX512F__
enum { TILE_ROWS = 14, FUSED_ROWS = 8 };
#else
enum { TILE_ROWS = 6, FUSED_ROWS = 0 };
#endif

static inline int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Rows [begin, end) of tile i when m rows are cut into tiles of nearly equal height. */
typedef struct row_range {
    int64_t begin, end;
} row_range;
static inline int64_t tiles_of(int64_t m) {
    return (m + TILE_ROWS - 1) / TILE_ROWS;
}
static inline row_range tile_rows(int64_t i, int64_t m) {
    return (row_range){i * m / tiles_of(m), (i + 1) * m / tiles_of(m)};
}

/* Memory that a tile asks for while it goes along k, a cache line with each: until `end`, one every `step`
 * from x on. */
typedef struct fetched {
    const float *x;
    int64_t step, end;
} fetched;

/* One block of k (at most GEMM_K_BLOCK) of one tile: c = d + a b, where d may be c itself, or NULL for none.
 * A row of a lies a_step after the one before and its elements are neighbours; for GEMM_TN it is the elements
 * of one k that are neighbours, and each k lies a_step after the one before.
 */
typedef struct gemm_tile {
    int64_t k, a_step, b_step, ldc;
    const float *a, *b, *d;
    float *c;
    const fetched *fetch; /* one after the other; the last ends at k (gemm_ahead.h) */
    /* Only for kernels that also pack: b is a panel of B where it lies, which is written here.  Fused
     * kernels, where it lies in B [n,k], write element p of k at (p & panel_mask) * PANEL.  A mask of -1
     * keeps it all, a mask of 8 only what is still to be read. */
    float *panel;
    int64_t panel_mask;
    int stream; /* only in bf16: c is written past the caches (stream.h) */
} gemm_tile;

typedef void gemm_kernel(const gemm_tile *t);

/* The kernel for a tile of rows x vectors * GEMM_LANES; 1 <= rows <= TILE_ROWS, 1 <= vectors <= 2. */
gemm_kernel *CPU_(gemm_kernel_for)(gemm_form form, int rows, int vectors);
/* The same for operands in pairs (bf16.h): k and a_step count pairs. */
gemm_kernel *CPU_(bf16_kernel_for)(gemm_form form, int rows, int vectors);
/* The same that also pack their panel. */
gemm_kernel *CPU_(gemm_copying_kernel_for)(gemm_form form, int rows, int vectors);
/* The kernel that also packs its panel of B [n,k]: 1 <= rows <= FUSED_ROWS, two vectors, k a multiple of 8.
 */
gemm_kernel *CPU_(gemm_fused_kernel_for)(int rows);

/* dst [k, width] = columns of the panel: dst[p][j] = b[j * ldb + p] for j < n (n <= width <= PANEL, width a
 * multiple of GEMM_LANES), 0 for the rest. */
void CPU_(pack_transposed)(float *dst, int width, const float *b, int64_t ldb, int64_t n, int64_t k);
/* The same of a matrix [k, n]: dst[p][j] = b[p * ldb + j]. */
void CPU_(pack_columns)(float *dst, int width, const float *b, int64_t ldb, int64_t n, int64_t k);

/* Rounded to pairs (bf16.h), pairs of k whose second is missing filled up with zero.
 * dst [rows, ld] = pairs along the rows of x [rows, k] (ldx), zeros up to whole vectors; ld in whole vectors.
 */
void CPU_(bf16_rows)(float *dst, int64_t ld, const float *x, int64_t ldx, int64_t rows, int64_t k);
/* dst = panels, `step` apart, each [pairs, PANEL] with rows `ld` apart, of pairs across the rows of x [k, n]
 * (ldx), zeros up to a multiple of 16 columns.  With a step of PANEL the panels stand side by side, as one
 * matrix. */
void CPU_(bf16_panels)(float *dst, int64_t ld, int64_t step, const float *x, int64_t ldx, int64_t k,
                       int64_t n);
/* The same in tiles (tile_rows) of columns, each [pairs, GEMM_LANES], and beyond its columns whatever
 * follows them. */
void CPU_(bf16_tiles)(float *dst, int64_t step, const float *x, int64_t ldx, int64_t k, int64_t m);

struct gemm_problem;
/* dst [pairs, PANEL] = up to PANEL columns from j on of B of g, in the block of k from p on, zeros beyond
 * n. */
void CPU_(bf16_panel)(float *dst, void *scratch, const struct gemm_problem *g, int64_t p, int64_t j);

/* C [m,n] = D + op(A) op(B), the arguments of kernels.h's gemm. */
typedef struct gemm_problem {
    gemm_form form;
    int64_t m, n, k;
    float *c;
    int64_t ldc;
    const float *d;
    const float *a;
    int64_t lda;
    const float *b;
    int64_t ldb;
    /* B as held.h has it, or NULL; and which of its columns is this problem's first. */
    const float *held;
    int64_t held_column;
} gemm_problem;

/* Computes g on the calling thread alone, with THREAD_SCRATCH bytes of scratch.  next is what the thread
 * computes after it, or NULL: its memory may be asked for in time. */
typedef void gemm_on_thread(void *scratch, const gemm_problem *g, const gemm_problem *next);
gemm_on_thread CPU_(gemm_float), CPU_(gemm_bf16);
static inline gemm_on_thread *gemm_for(const kernel_context *ctx) {
    return ctx->dtype == DTYPE_BF16 ? CPU_(gemm_bf16) : CPU_(gemm_float);
}

/* A tile of `rows` rows whose last vector has columns outside C: computed in edge [TILE_ROWS, PANEL], then
 * added. */
void CPU_(gemm_edge_tile)(gemm_kernel *kernel, float *edge, gemm_tile t, int64_t rows, int64_t columns);

/* How threads share one C: a grid of rows x columns of parts. */
typedef struct gemm_grid {
    int rows, columns;
} gemm_grid;

/* How many threads a product of this size is worth. */
int CPU_(gemm_threads)(const kernel_context *ctx, int64_t m, int64_t n, int64_t k);
/* held: B is packed already. */
gemm_grid CPU_(gemm_grid_for)(const kernel_context *ctx, int threads, gemm_form form, int64_t m, int64_t n,
                              int64_t k, int held);
/* Part `part` of the grid: rows and columns cut at boundaries that suit the tiles.  It may be empty. */
gemm_problem CPU_(gemm_part)(const gemm_problem *whole, gemm_grid grid, int part);

#endif
