/* What matrix products ask for before they need it (prefetch): a tile asks for one cache line with each k,
 * for more at once would wait for one another. */
#ifndef CARACAL_KERNELS_CPU_GEMM_AHEAD_H
#define CARACAL_KERNELS_CPU_GEMM_AHEAD_H

#include "kernels/cpu/gemm_tile.h"

enum {
    CACHE_LINE = 16, /* floats */
    /* With so many k there is time to ask for the tile's own part of C line by line, and to spare. */
    LONG_TILE = 6 * TILE_ROWS,
    RESULT_STEPS = 4,   /* that are kept for it, for each row */
    COLUMNS_AHEAD = 32, /* k */
};

/* Memory that will be needed soon: `columns` times `rows` cache lines. */
typedef struct region {
    const float *x;
    int64_t rows, row_step, columns, column_step;
} region;

/* What one tile asks for. */
typedef struct fetches {
    int64_t k, asking; /* the tile's steps, and how many of them ask for something already */
    int n;
    fetched one[12];
} fetches;

/* In place of an initializer, which would set all of it for each tile. */
static inline void fetch_begin(fetches *f, int64_t k) {
    f->k = k;
    f->asking = f->n = 0;
}

/* Asks for n lines, or as many as there are steps left; returns how many. */
static inline int64_t fetch_lines(fetches *f, const float *x, int64_t step, int64_t n) {
    const int64_t begin = f->asking, end = min64(begin + n, f->k);
    if (end == begin || f->n + 1 == sizeof f->one / sizeof *f->one) return 0;
    f->one[f->n++] = (fetched){x, step, end};
    f->asking = end;
    return end - begin;
}

/* Asks for lines of the region from line *asked on, and counts them. */
static inline void fetch_region(fetches *f, const region *soon, int64_t *asked) {
    while (*asked < soon->rows * soon->columns) {
        const int64_t column = *asked / soon->rows, row = *asked % soon->rows;
        const int64_t n = fetch_lines(f, soon->x + column * soon->column_step + row * soon->row_step,
                                      soon->row_step, soon->rows - row);
        if (!n) break;
        *asked += n;
    }
}

/* Asks for C's lines, which are written when the tile is done: at once, at leisure, or in the steps at the
 * end that the fetches were begun without.  The last is best, for until then they are in the way of A and B,
 * most of all where rows of C share the sets of L1. */
static inline void fetch_result_now(const gemm_tile *t, int64_t height) {
    for (int64_t r = 0; r < height; r++)
        for (int64_t line = 0; line < PANEL; line += CACHE_LINE)
            __builtin_prefetch(t->c + r * t->ldc + line, 1);
}
static inline void fetch_result(fetches *f, const gemm_tile *t, int64_t height) {
    if (f->k < LONG_TILE) fetch_result_now(t, height);
    for (int64_t line = 0; line < PANEL && f->k >= LONG_TILE; line += CACHE_LINE)
        fetch_lines(f, t->c + line, t->ldc, height);
}
static inline void fetch_result_last(fetches *f, const gemm_tile *t, int64_t height) {
    fetch_lines(f, t->c, 0, f->k - f->asking); /* nothing new until then */
    f->k = t->k;
    fetch_result(f, t, height);
}

/* Asks for A by columns, each k some time before its turn: they lie on a page each, where the hardware looks
 * for nothing, and share so few sets of the caches that all at once would not stay.  It is the line of the
 * tile's last row, for that of its first the tile before has read.  Then for the first k of the next tile. */
static inline void fetch_columns(fetches *f, const gemm_tile *t, int64_t rows, int next) {
    const float *last = t->a + rows - 1;
    const int64_t p = f->asking + COLUMNS_AHEAD;
    if (p >= f->k) return;
    fetch_lines(f, last + p * t->a_step, t->a_step, f->k - p);
    if (next) fetch_lines(f, last + rows, t->a_step, COLUMNS_AHEAD);
}

/* Hands the tile what it is to ask for; with the steps that are left, for what is at hand. */
static inline void fetch_end(fetches *f, gemm_tile *t) {
    f->one[f->n] = (fetched){t->c, 0, f->k};
    t->fetch = f->one;
}

#endif
