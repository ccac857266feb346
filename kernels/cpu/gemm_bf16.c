/* Matrix products of operands that are rounded to bf16.
 *
 * Both operands are rounded to pairs (bf16.h) as they are packed.  The loops, outside in: COLUMN_BLOCK
 * columns of B, a block of k, ROW_BLOCK tiles of rows, a panel of B, a tile.  The packed columns and rows
 * share L2, a panel stays in L1 while the row block goes by.  None of this decides bits: an element of C is
 * always its block sums added in order, as in float32, and each block is one chain of pairs, k ascending.
 */
#include "kernels/cpu/gemm_tile.h"

enum {
    PAIRS = GEMM_K_BLOCK / 2,
    COLUMN_BLOCK = 32 * PANEL,
    ROW_BLOCK = 18,                  /* tiles */
    TILE_PAIRS = PAIRS * GEMM_LANES, /* of a packed tile, by rows or by columns */
    LINE = 16,                       /* floats of a cache line */
};

/* What lies in a thread's scratch. */
typedef struct bf16_scratch {
    float b[PAIRS * COLUMN_BLOCK];   /* [panel][pair][PANEL] */
    float a[TILE_PAIRS * ROW_BLOCK]; /* by rows [row][PAIRS], by columns [tile][pair][GEMM_LANES] */
    float rows[PAIRS * PANEL];       /* a panel of B [n,k] before it is transposed */
    float edge[TILE_ROWS * PANEL];   /* a tile that sticks out of C */
} bf16_scratch;
_Static_assert((int)TILE_ROWS <= (int)GEMM_LANES, "a tile by columns is one vector wide");
_Static_assert(sizeof(bf16_scratch) <= THREAD_SCRATCH, "a thread's scratch is too small");

/* A block of k of some columns. */
typedef struct column_block {
    int64_t p, k;       /* the block of k */
    int64_t j, columns; /* of C */
} column_block;

static void pack_b(bf16_scratch *s, const gemm_problem *g, column_block w) {
    if (g->form != GEMM_NT) {
        CPU_(bf16_panels)(s->b, PANEL, PAIRS * PANEL, g->b + w.p * g->ldb + w.j, g->ldb, w.k, w.columns);
        return;
    }
    for (int64_t j = 0; j < w.columns; j += PANEL) {
        const int64_t columns = min64(PANEL, w.columns - j);
        CPU_(bf16_rows)(s->rows, PAIRS, g->b + (w.j + j) * g->ldb + w.p, g->ldb, columns, w.k);
        CPU_(pack_transposed)(s->b + j * PAIRS, PANEL, s->rows, PAIRS, columns, (w.k + 1) / 2);
    }
}

static void pack_a(bf16_scratch *s, const gemm_problem *g, column_block w, int64_t i, int64_t rows) {
    if (g->form == GEMM_TN) CPU_(bf16_tiles)(s->a, TILE_PAIRS, g->a + w.p * g->lda + i, g->lda, w.k, rows);
    else CPU_(bf16_rows)(s->a, PAIRS, g->a + i * g->lda + w.p, g->lda, rows, w.k);
}

/* The rows [i, i + rows) of C, whose part of A is packed, in the columns whose part of B is. */
static void row_block(bf16_scratch *s, const gemm_problem *g, column_block w, int64_t i, int64_t rows) {
    const float *d = w.p == 0 ? g->d : g->c;
    const int by_column = g->form == GEMM_TN;
    for (int64_t j = 0; j < w.columns; j += PANEL) {
        const int64_t columns = min64(PANEL, w.columns - j);
        const int vectors = columns > GEMM_LANES ? 2 : 1;
        for (int64_t tile = 0; tile < tiles_of(rows); tile++) {
            const row_range at = tile_rows(tile, rows);
            const int64_t height = at.end - at.begin, place = (i + at.begin) * g->ldc + w.j + j;
            gemm_tile t = {.k = (w.k + 1) / 2, .b_step = PANEL, .ldc = g->ldc};
            t.a = by_column ? s->a + tile * TILE_PAIRS : s->a + at.begin * PAIRS;
            t.a_step = by_column ? GEMM_LANES : PAIRS;
            t.b = s->b + j * PAIRS;
            t.c = g->c + place;
            t.d = d ? d + place : NULL;
            t.fetch = t.c;
            for (int64_t r = 0; r < height; r++) {
                for (int64_t line = 0; line < PANEL; line += LINE)
                    __builtin_prefetch(t.c + r * g->ldc + line, 1);
            }
            gemm_kernel *kernel = CPU_(bf16_kernel_for)(g->form, (int)height, vectors);
            if (columns % GEMM_LANES) CPU_(gemm_edge_tile)(kernel, s->edge, t, height, columns);
            else kernel(&t);
        }
    }
}

void CPU_(gemm_bf16)(void *scratch, const gemm_problem *g, const gemm_problem *next) {
    if (g->k <= 0) { /* nothing is multiplied */
        CPU_(gemm_float)(scratch, g, next);
        return;
    }
    const int64_t blocks = (tiles_of(g->m) + ROW_BLOCK - 1) / ROW_BLOCK;
    for (int64_t j = 0; j < g->n; j += COLUMN_BLOCK) {
        for (int64_t p = 0; p < g->k; p += GEMM_K_BLOCK) {
            const column_block w = {p, min64(GEMM_K_BLOCK, g->k - p), j, min64(COLUMN_BLOCK, g->n - j)};
            pack_b(scratch, g, w);
            for (int64_t block = 0; block < blocks; block++) {
                const int64_t i = block * g->m / blocks, end = (block + 1) * g->m / blocks;
                pack_a(scratch, g, w, i, end - i);
                row_block(scratch, g, w, i, end - i);
            }
        }
    }
}
