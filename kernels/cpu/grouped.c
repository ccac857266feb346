/* Products of the experts: rows sorted by expert, one weight matrix each.  Every thread goes through all the
 * segments and computes its own part of each C, so uneven experts make no uneven threads, and no two threads
 * touch one element. */
#include "kernels/cpu/gemm_tile.h"

typedef struct grouped_problem {
    int64_t segments;
    const segment *s;
    gemm_problem common; /* as for one segment at row 0 of expert 0 */
    int64_t stride;      /* between the experts' matrices: b, or c for weight gradients */
} grouped_problem;

static gemm_problem segment_problem(const grouped_problem *q, const segment *s) {
    gemm_problem g = q->common;
    g.a += s->row * g.lda;
    if (g.form == GEMM_TN) {
        g.k = s->rows;
        g.b += s->row * g.ldb;
        g.c += s->expert * q->stride;
        g.d = g.c;
    } else {
        g.m = s->rows;
        g.b += s->expert * q->stride;
        g.c += s->row * g.ldc;
    }
    return g;
}

/* The first segment from i on that has rows. */
static int64_t segment_from(const grouped_problem *q, int64_t i) {
    while (i < q->segments && q->s[i].rows == 0) i++;
    return i;
}

static void grouped_part(const kernel_context *ctx, const grouped_problem *q, gemm_grid grid, int part) {
    gemm_on_thread *product = gemm_for(ctx);
    void *scratch = thread_scratch(ctx);
    for (int64_t i = segment_from(q, 0), after; i < q->segments; i = after) {
        after = segment_from(q, i + 1);
        const gemm_problem whole = segment_problem(q, &q->s[i]), mine = CPU_(gemm_part)(&whole, grid, part);
        if (after < q->segments) {
            const gemm_problem whole_next = segment_problem(q, &q->s[after]);
            const gemm_problem next = CPU_(gemm_part)(&whole_next, grid, part);
            product(scratch, &mine, &next);
        } else {
            product(scratch, &mine, NULL);
        }
    }
}

/* m is the height of a typical C, rows the rows of all segments. */
static void grouped_run(kernel_context *ctx, const grouped_problem *q, int64_t m, int64_t rows) {
    if (rows == 0) return;
    const int64_t inner = q->common.form == GEMM_TN ? q->common.m : q->common.k;
    const int threads = CPU_(gemm_threads)(ctx, rows, q->common.n, inner);
    if (threads == 1) {
        grouped_part(ctx, q, (gemm_grid){1, 1}, 0);
        return;
    }
    const gemm_grid grid = CPU_(gemm_grid_for)(ctx, threads, m, q->common.n);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int part = 0; part < grid.rows * grid.columns; part++) {
        grouped_part(ctx, q, grid, part);
    }
}

static int64_t total_rows(int64_t segments, const segment *s) {
    int64_t rows = 0;
    for (int64_t i = 0; i < segments; i++) rows += s[i].rows;
    return rows;
}

void CPU_(grouped_gemm)(kernel_context *ctx, gemm_form form, int64_t segments, const segment *s, int64_t n,
                        int64_t k, float *c, const float *a, const float *w, int64_t w_stride) {
    const int64_t rows = total_rows(segments, s);
    const grouped_problem q = {
        .segments = segments,
        .s = s,
        .common = {.form = form,
                   .n = n,
                   .k = k,
                   .c = c,
                   .ldc = n,
                   .a = a,
                   .lda = k,
                   .b = w,
                   .ldb = form == GEMM_NT ? k : n},
        .stride = w_stride,
    };
    grouped_run(ctx, &q, rows / (segments + 1) + 1, rows);
}

void CPU_(grouped_gemm_dw)(kernel_context *ctx, int64_t segments, const segment *s, int64_t m, int64_t n,
                           float *dw, int64_t dw_stride, const float *a, const float *b) {
    const grouped_problem q = {
        .segments = segments,
        .s = s,
        .common = {.form = GEMM_TN, .m = m, .n = n, .c = dw, .ldc = n, .a = a, .lda = m, .b = b, .ldb = n},
        .stride = dw_stride,
    };
    grouped_run(ctx, &q, m, total_rows(segments, s));
}
