/* Inside the matrix products: the tile that a microkernel computes, and what a thread computes of tiles. */
#ifndef CARACAL_KERNELS_CPU_GEMM_TILE_H
#define CARACAL_KERNELS_CPU_GEMM_TILE_H

#include <immintrin.h>

#include "kernels/cpu/cpu.h"

/* A tile of C is TILE_ROWS x PANEL: so many accumulators that two fused multiply-adds a cycle never wait for
 * one another, and as many as the registers hold beside two vectors of B and one broadcast element of A. */
#ifdef __AVX512F__
typedef __m512 gemm_vec;
enum { GEMM_LANES = 16, TILE_ROWS = 14 };
#else
typedef __m256 gemm_vec;
enum { GEMM_LANES = 8, TILE_ROWS = 6 };
#endif
enum { PANEL = 2 * GEMM_LANES };

/* One block of k (at most GEMM_K_BLOCK) of one tile: c = d + a b, where d may be c itself, or NULL for none.
 * A row of a lies a_step after the one before and its elements are neighbours; in the transposed kernels it
 * is the elements of one k that are neighbours, and each k lies a_step after the one before. */
typedef struct gemm_tile {
    int64_t k, a_step, b_step, ldc;
    const float *a, *b, *d;
    float *c;
} gemm_tile;

typedef void gemm_kernel(const gemm_tile *t);

/* The kernel for a tile of rows x vectors * GEMM_LANES; 1 <= rows <= TILE_ROWS, 1 <= vectors <= 2. */
gemm_kernel *CPU_(gemm_kernel_for)(gemm_form form, int rows, int vectors);

/* dst [k, width] = columns of the panel: dst[p][j] = b[j * ldb + p] for j < n (n <= width <= PANEL, width a
 * multiple of GEMM_LANES), 0 for the rest. */
void CPU_(pack_transposed)(float *dst, int width, const float *b, int64_t ldb, int64_t n, int64_t k);
/* The same of a matrix [k, n]: dst[p][j] = b[p * ldb + j]. */
void CPU_(pack_columns)(float *dst, int width, const float *b, int64_t ldb, int64_t n, int64_t k);

/* C [m,n] = D + op(A) op(B) by the calling thread alone; the arguments are those of kernels.h's gemm, and
 * scratch is THREAD_SCRATCH bytes. */
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
} gemm_problem;

void CPU_(gemm_serial)(void *scratch, const gemm_problem *g);

/* How threads share one C: a grid of rows x columns of parts. */
typedef struct gemm_grid {
    int rows, columns;
} gemm_grid;

/* How many threads a product of this size is worth. */
int CPU_(gemm_threads)(const kernel_context *ctx, int64_t m, int64_t n, int64_t k);
gemm_grid CPU_(gemm_grid_for)(int threads, int64_t m, int64_t n);
/* Part `part` of the grid: rows and columns cut at boundaries that suit the tiles.  It may be empty. */
gemm_problem CPU_(gemm_part)(const gemm_problem *whole, gemm_grid grid, int part);

#endif
