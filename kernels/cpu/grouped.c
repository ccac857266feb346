/* Products of the experts: rows sorted by expert, one weight matrix each.  Threads share all rows together,
 * or of weight gradients each C, so uneven experts make no uneven threads, and no two threads touch one
 * element; one that is early does parts of the others'. */
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/held.h"
#include "kernels/cpu/row_share.h"

typedef struct grouped_problem {
    int64_t segments;
    const segment *s;
    gemm_problem common; /* as for one segment at row 0 of expert 0 */
    int64_t stride;      /* between the experts' matrices: b, or c for weight gradients */
} grouped_problem;

static gemm_problem segment_problem(const kernel_context *ctx, const grouped_problem *q, const segment *s) {
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
        g.held = CPU_(held_find)(ctx, &g);
    }
    return g;
}

/* The first segment from i on that has rows. */
static int64_t segment_from(const grouped_problem *q, int64_t i) {
    while (i < q->segments && q->s[i].rows == 0) i++;
    return i;
}

/* How threads share the products: each its part of every C, or, where `rows` is not 0, of the rows of all
 * segments together.  Then no two threads read or pack the same rows, nor, but for one, the same weights, and
 * a thread finds the rows that it wrote in the operation before. */
typedef struct sharing {
    gemm_grid grid;
    int64_t rows, threads;
} sharing;

/* What part `part` computes of segment i, before which there are so many rows. */
static gemm_problem segment_part(const kernel_context *ctx, const grouped_problem *q, const sharing *w,
                                 int part, int64_t i, int64_t before) {
    gemm_problem g = segment_problem(ctx, q, &q->s[i]);
    if (!w->rows) return CPU_(gemm_part)(&g, w->grid, part);
    const row_share mine = row_share_of(w->rows, part, w->threads, before, g.m);
    g.m = mine.to - mine.from;
    g.a += mine.from * g.lda;
    g.c += mine.from * g.ldc;
    return g;
}

static int64_t rows_before(const grouped_problem *q, const sharing *w, int64_t i) {
    return w->rows ? total_rows(i, q->s) : 0;
}

/* A part of segment i's product, after which the next segment's memory is asked for. */
static void run_segment(const kernel_context *ctx, const grouped_problem *q, const sharing *w, int part,
                        int64_t i) {
    if (!q->s[i].rows) return;
    const int64_t after = segment_from(q, i + 1), before = rows_before(q, w, i);
    const gemm_problem mine = segment_part(ctx, q, w, part, i, before);
    if (after < q->segments) {
        const gemm_problem next = segment_part(ctx, q, w, part, after, before + q->s[i].rows);
        gemm_for(ctx)(thread_scratch(ctx), &mine, &next);
    } else {
        gemm_for(ctx)(thread_scratch(ctx), &mine, NULL);
    }
}

/* What threads balance among themselves: segments, or where an expert's segments are added to one gradient,
 * experts. */
static int64_t units_of(const grouped_problem *q) {
    if (q->common.form != GEMM_TN) return q->segments;
    int64_t last = -1;
    for (int64_t i = 0; i < q->segments; i++)
        if (q->s[i].expert > last) last = q->s[i].expert;
    return last + 1;
}

static void run_unit(const kernel_context *ctx, const grouped_problem *q, const sharing *w, int part,
                     int64_t unit) {
    if (q->common.form != GEMM_TN) {
        run_segment(ctx, q, w, part, unit);
        return;
    }
    for (int64_t i = 0; i < q->segments; i++)
        if (q->s[i].expert == unit) run_segment(ctx, q, w, part, i);
}

/* Packs the weights of these segments that may be kept (held.h). */
static void pack_weights(const kernel_context *ctx, const grouped_problem *q) {
    for (int64_t i = segment_from(q, 0); i < q->segments; i = segment_from(q, i + 1)) {
        const gemm_problem g = segment_problem(ctx, q, &q->s[i]);
        CPU_(held_pack)(ctx, &g);
    }
}

/* rows: of all segments */
static void grouped_run(kernel_context *ctx, const grouped_problem *q, int64_t rows) {
    if (rows == 0) return;
    const int gradient = q->common.form == GEMM_TN;
    const int64_t inner = gradient ? q->common.m : q->common.k;
    const int threads = CPU_(gemm_threads)(ctx, rows, q->common.n, inner);
    sharing w = {.grid = {1, 1}};
    if (!gradient) pack_weights(ctx, q);
    if (threads > 1 && gradient)
        w.grid = CPU_(gemm_grid_for)(ctx, threads, GEMM_TN, inner, q->common.n, rows, 0);
    else if (threads > 1) w = (sharing){{threads, 1}, rows, threads};
    const int parts = w.grid.rows * w.grid.columns;
    for (int part = 0; part < parts; part++) claims_open(ctx->claims + part, units_of(q));
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static, 1) nowait
        for (int part = 0; part < parts; part++) {
            for (int64_t unit; (unit = claims_first(ctx->claims + part)) >= 0;)
                run_unit(ctx, q, &w, part, unit);
        }
        for (int i = 1; i <= parts; i++) {
            const int part = (omp_get_thread_num() + i) % parts;
            for (int64_t unit; (unit = claims_last(ctx->claims + part)) >= 0;)
                run_unit(ctx, q, &w, part, unit);
        }
    }
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
    grouped_run(ctx, &q, rows);
}

void CPU_(grouped_gemm_dw)(kernel_context *ctx, int64_t segments, const segment *s, int64_t m, int64_t n,
                           float *dw, int64_t dw_stride, const float *a, const float *b) {
    const grouped_problem q = {
        .segments = segments,
        .s = s,
        .common = {.form = GEMM_TN, .m = m, .n = n, .c = dw, .ldc = n, .a = a, .lda = m, .b = b, .ldb = n},
        .stride = dw_stride,
    };
    grouped_run(ctx, &q, total_rows(segments, s));
}
