/* How threads share the rows of all segments together: each has one run of them, counted one segment after
 * another, so that uneven segments make no uneven threads, and an operation finds the rows that the one
 * before it wrote. */
#ifndef CARACAL_KERNELS_CPU_ROW_SHARE_H
#define CARACAL_KERNELS_CPU_ROW_SHARE_H

#include "kernels/kernels.h"

typedef struct row_share {
    int64_t from, to; /* rows of a segment, from its first; from <= to */
} row_share;

static inline int64_t total_rows(int64_t segments, const segment *s) {
    int64_t rows = 0;
    for (int64_t i = 0; i < segments; i++) rows += s[i].rows;
    return rows;
}

/* What part `part` of `parts` has of a segment of `own` rows; all have `rows`, of which `before` go before
 * it. */
static inline row_share row_share_of(int64_t rows, int64_t part, int64_t parts, int64_t before, int64_t own) {
    const int64_t begin = part * rows / parts - before, end = (part + 1) * rows / parts - before;
    const int64_t from = begin < 0 ? 0 : begin < own ? begin : own, to = end < own ? end : own;
    return (row_share){from, to > from ? to : from};
}

#endif
