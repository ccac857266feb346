/* What matrix products ask for before they need it: a tile asks for one cache line with each k, for more at
 * once would be dropped. */
#ifndef CARACAL_KERNELS_CPU_GEMM_AHEAD_H
#define CARACAL_KERNELS_CPU_GEMM_AHEAD_H

#include "kernels/cpu/gemm_tile.h"

enum { CACHE_LINE = 16 }; /* floats */

/* Memory that will be needed soon: `columns` times `rows` cache lines. */
typedef struct region {
    const float *x;
    int64_t rows, row_step, columns, column_step;
} region;

/* Lets a tile ask for the lines [n k, n k + k) of the region, where it has so many; returns whether. */
static inline int fetch_region(gemm_tile *t, const region *soon, int64_t n) {
    const int64_t line = n * t->k, column = soon->rows ? line / soon->rows : 0;
    if (!soon->rows || column >= soon->columns) return 0;
    t->fetch = soon->x + column * soon->column_step + line % soon->rows * soon->row_step;
    t->fetch_step = soon->row_step;
    return 1;
}

/* Lets it ask for nothing: for what is at hand. */
static inline void fetch_nothing(gemm_tile *t, const float *at_hand) {
    t->fetch = at_hand;
    t->fetch_step = 0;
}

/* Asks for C's lines, which are written when the tile is done. */
static inline void fetch_result(const gemm_tile *t, int64_t height) {
    for (int64_t r = 0; r < height; r++)
        for (int64_t line = 0; line < PANEL; line += CACHE_LINE)
            __builtin_prefetch(t->c + r * t->ldc + line, 1);
}

#endif
