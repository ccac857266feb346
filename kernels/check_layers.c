/* Checked operations of a layer's dense path: memory, matrix products, norms, RoPE, attention, SwiGLU. */
#include <math.h>

#include "kernels/check.h"

/* exp overflows in float where silu falls below this part of its argument */
static const double UNDERFLOW_FLOOR = 0x1p-120;
/* every element has one right value (LEAST forgives the sign of a zero) */
static const check_bound EXACT = {0};

void check_zero(kernel_context *x, int64_t n, real *y) {
    check_begin(x, "zero", CHECK_SIZES(n));
    real *want = check_expect(x, CHECK_WRITES, y, 1, n, n);
    REF(x, zero, n, want);
    INNER(x, zero, n, y);
    check_equal(x, "x", y, want, (size_t)n, sizeof *y);
}

void check_copy(kernel_context *x, int64_t n, real *y, const real *from) {
    check_begin(x, "copy", CHECK_SIZES(n));
    real *want = check_expect(x, CHECK_WRITES, y, 1, n, n);
    REF(x, copy, n, want, from);
    INNER(x, copy, n, y, from);
    check_equal(x, "y", y, want, (size_t)n, sizeof *y);
}

void check_add(kernel_context *x, int64_t n, real *y, const real *d, int64_t parts, const real *const *part) {
    check_begin(x, "add", CHECK_SIZES(n, parts, d == NULL, d == y));
    real *want = check_expect(x, d == y ? CHECK_UPDATES : CHECK_WRITES, y, 1, n, n);
    REF(x, add, n, want, d == y ? want : d, parts, part);
    INNER(x, add, n, y, d, parts, part);
    check_close(x, "y", y, want, 1, n, n, EXACT);
}

void check_copy_rows(kernel_context *x, int64_t n, int64_t cols, real *dst, const int32_t *dst_row,
                     const real *src, const int32_t *src_row) {
    check_begin(x, "copy_rows", CHECK_SIZES(n, cols, dst_row != NULL, src_row != NULL));
    int64_t rows = dst_row ? 0 : n;
    for (int64_t i = 0; dst_row && i < n; i++) rows = dst_row[i] >= rows ? dst_row[i] + 1 : rows;
    real *want = check_expect(x, CHECK_UPDATES, dst, rows, cols, cols);
    REF(x, copy_rows, n, cols, want, dst_row, src, src_row);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < cols; j++) dst[(dst_row ? dst_row[i] : i) * cols + j] = (real)NAN;
    INNER(x, copy_rows, n, cols, dst, dst_row, src, src_row);
    check_equal(x, "dst", dst, want, (size_t)(rows * cols), sizeof *dst);
}

void check_hold(kernel_context *x, int64_t n, const real *held) {
    INNER(x, hold, n, held);
}

/* Of sums on tensor cores, which cut off what they do not round, and of exponentials from instructions:
 * errors in units of those that the same sums have on a processor. */
static double looseness(const kernel_context *x) {
    return x->inner.dtype == DTYPE_BF16 ? 4 : 1;
}

/* |sum of a b| has at most chain(k) units of |a| |b| (Cauchy-Schwarz). */
static check_bound product_bound(kernel_context *x, double loose, gemm_form form, int64_t m, int64_t n,
                                 int64_t k, const real *d, const real *a, int64_t lda, const real *b,
                                 int64_t ldb) {
    return (check_bound){
        .relative = (double)(k / GEMM_K_BLOCK) + 3, /* each block is added to d */
        .added = d,
        .absolute = loose * check_chain(k),
        .row = form == GEMM_TN ? check_norms(x, m, k, a, 1, lda) : check_norms(x, m, k, a, lda, 1),
        .column = form == GEMM_NT ? check_norms(x, n, k, b, ldb, 1) : check_norms(x, n, k, b, 1, ldb),
    };
}

/* gemm where `rounds`, gemm_float32 otherwise. */
static void check_dense(kernel_context *x, int rounds, gemm_form form, int64_t m, int64_t n, int64_t k,
                        real *c, int64_t ldc, const real *d, const real *a, int64_t lda, const real *b,
                        int64_t ldb) {
    check_begin(x, rounds ? "gemm" : "gemm_float32",
                CHECK_SIZES(form, m, n, k, ldc, lda, ldb, d == c, d != NULL));
    int update = d == c;
    const real *added = update ? check_expect(x, CHECK_UPDATES, c, m, n, ldc) : d;
    real *want = check_expect(x, update ? CHECK_UPDATES : CHECK_WRITES, c, m, n, ldc);
    const real *a_read = a, *b_read = b;
    if (rounds) {
        a_read = check_operand(x, a, form == GEMM_TN ? k : m, form == GEMM_TN ? m : k, lda);
        b_read = check_operand(x, b, form == GEMM_NT ? n : k, form == GEMM_NT ? k : n, ldb);
    }
    REF(x, gemm, form, m, n, k, want, ldc, update ? want : d, a_read, lda, b_read, ldb);
    if (rounds) INNER(x, gemm, form, m, n, k, c, ldc, d, a, lda, b, ldb);
    else INNER(x, gemm_float32, form, m, n, k, c, ldc, d, a, lda, b, ldb);
    check_close(x, "c", c, want, m, n, ldc,
                product_bound(x, rounds ? looseness(x) : 1, form, m, n, k, added, a, lda, b, ldb));
}

void check_gemm(kernel_context *x, gemm_form form, int64_t m, int64_t n, int64_t k, real *c, int64_t ldc,
                const real *d, const real *a, int64_t lda, const real *b, int64_t ldb) {
    check_dense(x, 1, form, m, n, k, c, ldc, d, a, lda, b, ldb);
}

void check_gemm_float32(kernel_context *x, gemm_form form, int64_t m, int64_t n, int64_t k, real *c,
                        int64_t ldc, const real *d, const real *a, int64_t lda, const real *b, int64_t ldb) {
    check_dense(x, 0, form, m, n, k, c, ldc, d, a, lda, b, ldb);
}

/* The largest of n norms, as check_norms. */
static double largest_norm(kernel_context *x, int64_t n, int64_t k, const real *data, int64_t across,
                           int64_t along) {
    double top = 0, *norm = check_norms(x, n, k, data, across, along);
    for (int64_t i = 0; i < n; i++) top = fmax(top, norm[i]);
    x->scratches--;
    return top;
}

/* Rows from 0 to the end of the last that the segments have. */
static int64_t span_of(int64_t segments, const segment *s) {
    int64_t rows = 0;
    for (int64_t i = 0; i < segments; i++)
        if (s[i].rows && s[i].row + s[i].rows > rows) rows = s[i].row + s[i].rows;
    return rows;
}
static void poison_rows(int64_t segments, const segment *s, int64_t cols, real *x) {
    for (int64_t i = 0; i < segments; i++)
        for (int64_t j = s[i].row * cols; j < (s[i].row + s[i].rows) * cols; j++) x[j] = (real)NAN;
}

void check_grouped_gemm(kernel_context *x, gemm_form form, int64_t segments, const segment *s, int64_t n,
                        int64_t k, real *c, const real *a, const real *w, int64_t w_stride) {
    int64_t rows = span_of(segments, s), experts = 0;
    for (int64_t i = 0; i < segments; i++)
        if (s[i].expert >= experts) experts = s[i].expert + 1;
    check_begin(x, "grouped_gemm", CHECK_SIZES(form, segments, rows, n, k, w_stride));
    real *want = check_expect(x, CHECK_UPDATES, c, rows, n, n);
    double *row = check_scratch(x, (size_t)rows * sizeof *row);
    for (int64_t r = 0; r < rows; r++) row[r] = 0; /* rows of no segment must not change */
    for (int64_t i = 0; i < segments; i++) {
        const real *ws = w + s[i].expert * w_stride;
        double column = form == GEMM_NT ? largest_norm(x, n, k, ws, k, 1) : largest_norm(x, n, k, ws, 1, n);
        for (int64_t r = s[i].row; r < s[i].row + s[i].rows; r++)
            row[r] = column * largest_norm(x, 1, k, a + r * k, k, 1);
    }
    poison_rows(segments, s, n, c);
    const real *a_read = check_operand(x, a, rows, k, k),
               *w_read = check_operand(x, w, experts, n * k, w_stride);
    REF(x, grouped_gemm, form, segments, s, n, k, want, a_read, w_read, w_stride);
    INNER(x, grouped_gemm, form, segments, s, n, k, c, a, w, w_stride);
    check_close(x, "c", c, want, rows, n, n,
                (check_bound){.absolute = looseness(x) * check_chain(k), .row = row});
}

void check_grouped_gemm_dw(kernel_context *x, int64_t segments, const segment *s, int64_t m, int64_t n,
                           real *dw, int64_t dw_stride, const real *a, const real *b) {
    int64_t experts = 0, rows = 0, end = 0;
    for (int64_t i = 0; i < segments; i++) {
        if (s[i].expert >= experts) experts = s[i].expert + 1;
        if (s[i].rows > rows) rows = s[i].rows;
        if (s[i].row + s[i].rows > end) end = s[i].row + s[i].rows;
    }
    check_begin(x, "grouped_gemm_dw", CHECK_SIZES(segments, experts, rows, m, n, dw_stride));
    real *before = check_expect(x, CHECK_UPDATES, dw, experts, m * n, dw_stride);
    real *want = check_expect(x, CHECK_UPDATES, dw, experts, m * n, dw_stride);
    double *row = check_scratch(x, (size_t)experts * sizeof *row);
    for (int64_t e = 0; e < experts; e++) row[e] = 0; /* experts without rows must not change */
    for (int64_t i = 0; i < segments; i++)
        row[s[i].expert] += largest_norm(x, m, s[i].rows, a + s[i].row * m, 1, m) *
                            largest_norm(x, n, s[i].rows, b + s[i].row * n, 1, n);
    const real *a_read = check_operand(x, a, end, m, m), *b_read = check_operand(x, b, end, n, n);
    REF(x, grouped_gemm_dw, segments, s, m, n, want, dw_stride, a_read, b_read);
    INNER(x, grouped_gemm_dw, segments, s, m, n, dw, dw_stride, a, b);
    double length = looseness(x) * check_chain(rows) + 2 * (double)segments;
    check_close(x, "dw", dw, want, experts, m * n, dw_stride,
                (check_bound){.relative = length, .added = before, .absolute = length, .row = row});
}

void check_rms_norm_forward(kernel_context *x, int64_t rows, int64_t cols, double eps, double scale, real *y,
                            int64_t ldy, real *rstd, const real *in, int64_t ldx, const real *w) {
    check_begin(x, "rms_norm_forward", CHECK_SIZES(rows, cols, ldy, ldx));
    real *want_y = check_expect(x, CHECK_WRITES, y, rows, cols, ldy);
    real *want_rstd = check_expect(x, CHECK_WRITES, rstd, rows, 1, 1);
    REF(x, rms_norm_forward, rows, cols, eps, scale, want_y, ldy, want_rstd, in, ldx, w);
    INNER(x, rms_norm_forward, rows, cols, eps, scale, y, ldy, rstd, in, ldx, w);
    check_bound b = {.relative = check_lanes(cols) + 8};
    check_close(x, "y", y, want_y, rows, cols, ldy, b);
    check_close(x, "rstd", rstd, want_rstd, rows, 1, 1, b);
}

/* With u = x rstd and g = scale w dy: dx = d + rstd (g - u mean(g u)), where mean |g u| <= max |g|. */
void check_rms_norm_backward(kernel_context *x, int64_t rows, int64_t cols, double scale, real *dx,
                             int64_t lddx, const real *d, real *dw, int adds, const real *dy, int64_t lddy,
                             const real *in, int64_t ldx, const real *rstd, const real *w) {
    check_begin(x, "rms_norm_backward", CHECK_SIZES(rows, cols, lddx, lddy, ldx, d == dx, d != NULL, adds));
    int update = d == dx;
    const real *added = update ? check_expect(x, CHECK_UPDATES, dx, rows, cols, lddx) : d;
    real *want_dx = check_expect(x, update ? CHECK_UPDATES : CHECK_WRITES, dx, rows, cols, lddx);
    const real *dw_before = adds ? check_expect(x, CHECK_UPDATES, dw, 1, cols, cols) : NULL;
    real *want_dw = check_expect(x, adds ? CHECK_UPDATES : CHECK_WRITES, dw, 1, cols, cols);
    double *row = check_scratch(x, (size_t)rows * sizeof *row),
           *column = check_scratch(x, (size_t)cols * sizeof *row);
    for (int64_t j = 0; j < cols; j++) column[j] = 0;
    for (int64_t i = 0; i < rows; i++) {
        double g = 0, u = 0;
        for (int64_t j = 0; j < cols; j++) {
            double uj = fabs((double)in[i * ldx + j] * rstd[i]), dyj = fabs(scale * dy[i * lddy + j]);
            g = fmax(g, dyj * fabs(w[j]));
            u = fmax(u, uj);
            column[j] += dyj * uj;
        }
        row[i] = rstd[i] * g * (1 + u);
    }
    REF(x, rms_norm_backward, rows, cols, scale, want_dx, lddx, update ? want_dx : d, want_dw, adds, dy, lddy,
        in, ldx, rstd, w);
    INNER(x, rms_norm_backward, rows, cols, scale, dx, lddx, d, dw, adds, dy, lddy, in, ldx, rstd, w);
    check_close(x, "dx", dx, want_dx, rows, cols, lddx,
                (check_bound){.relative = 2, .added = added, .absolute = check_lanes(cols) + 8, .row = row});
    check_bound b = {.absolute = check_chain(rows) + 8, .column = column};
    if (adds) b.relative = 2 + (double)(rows / GEMM_K_BLOCK), b.added = dw_before;
    check_close(x, "dw", dw, want_dw, 1, cols, cols, b);
}

void check_rope(kernel_context *x, int64_t rows, int64_t seq, int64_t heads, int64_t pairs, int backward,
                real *y, int64_t ld, int64_t head_stride, const real *cosine, const real *sine) {
    check_begin(x, "rope", CHECK_SIZES(rows, seq, heads, pairs, backward, ld, head_stride));
    int64_t cols = heads > 0 ? (heads - 1) * head_stride + 2 * pairs : 0;
    real *want = check_expect(x, CHECK_UPDATES, y, rows, cols, ld);
    double *norm = check_norms(x, rows, cols, y, ld, 1);
    REF(x, rope, rows, seq, heads, pairs, backward, want, ld, head_stride, cosine, sine);
    INNER(x, rope, rows, seq, heads, pairs, backward, y, ld, head_stride, cosine, sine);
    check_close(x, "x", y, want, rows, cols, ld, (check_bound){.absolute = 4, .row = norm});
}

/* Largest norms of what attention multiplies, and what follows from them.  These errors pass through several
 * sums; they are of either sign, and counted with the root of a sum's length. */
typedef struct attention_sizes {
    double query, key, value;
    double score; /* units of error of exp(score), relative */
    double sums;  /* units of error of a sum over a row's keys, relative */
    double read;  /* units of error of one weight or gradient of a score where it is an operand, relative */
} attention_sizes;

static attention_sizes attention_sizes_of(kernel_context *x, attention_shape s, const real *q, const real *kv,
                                          const real *k_rope, int64_t ld_k_rope) {
    int64_t seen = s.past + s.seq, keys = s.batch * seen, width = s.nope + s.rope;
    double nope = largest_norm(x, keys * s.heads, s.nope, kv, s.nope + s.v, 1);
    double rope = largest_norm(x, keys, s.rope, k_rope, ld_k_rope, 1);
    attention_sizes z = {.query = largest_norm(x, s.batch * s.seq * s.heads, width, q, width, 1),
                         .key = sqrt(nope * nope + rope * rope),
                         .value = largest_norm(x, keys * s.heads, s.v, kv + s.nope, s.nope + s.v, 1)};
    z.score =
        (2 * sqrt((double)width) + 8) * z.query * z.key / sqrt((double)width) + 2 * log((double)seen + 1) + 8;
    z.score *= looseness(x);
    z.sums = looseness(x) * (2 * sqrt((double)seen) + 8);
    z.read = x->inner.dtype == DTYPE_BF16 ? 0x1p16 : 0;
    return z;
}

typedef struct attention_operands {
    const real *q, *kv, *k_rope;
} attention_operands;

static attention_operands operands_of(kernel_context *x, attention_shape s, const real *q, const real *kv,
                                      const real *k_rope, int64_t ld_k_rope) {
    int64_t rows = s.batch * s.seq, keys = s.batch * (s.past + s.seq), width_q = s.heads * (s.nope + s.rope),
            width_kv = s.heads * (s.nope + s.v);
    return (attention_operands){check_operand(x, q, rows, width_q, width_q),
                                check_operand(x, kv, keys, width_kv, width_kv),
                                check_operand(x, k_rope, keys, s.rope, ld_k_rope)};
}

void check_attention_forward(kernel_context *x, attention_shape s, real *o, real *lse, const real *q,
                             const real *kv, const real *k_rope, int64_t ld_k_rope,
                             const int32_t *first_key) {
    check_begin(
        x, "attention_forward",
        CHECK_SIZES(s.batch, s.seq, s.past, s.heads, s.nope, s.rope, s.v, ld_k_rope, first_key != NULL));
    int64_t rows = s.batch * s.seq;
    real *want_o = check_expect(x, CHECK_WRITES, o, rows, s.heads * s.v, s.heads * s.v);
    real *want_lse = check_expect(x, CHECK_WRITES, lse, rows, s.heads, s.heads);
    attention_sizes z = attention_sizes_of(x, s, q, kv, k_rope, ld_k_rope);
    attention_operands r = operands_of(x, s, q, kv, k_rope, ld_k_rope);
    REF(x, attention_forward, s, want_o, want_lse, r.q, r.kv, r.k_rope, ld_k_rope, first_key);
    INNER(x, attention_forward, s, o, lse, q, kv, k_rope, ld_k_rope, first_key);
    double units = 2 * (z.score + z.sums);
    check_close(x, "o", o, want_o, rows, s.heads * s.v, s.heads * s.v,
                (check_bound){.absolute = (units + z.read) * z.value});
    check_close(x, "lse", lse, want_lse, rows, s.heads, s.heads,
                (check_bound){.relative = 2, .absolute = units});
}

/* A score's gradient is p (<do, v> - <do, o>), at most 2 p |do| |v|; a row's p add up to 1, a column's to at
 * most seq, where errors of that many terms of either sign grow with the root. */
void check_attention_backward(kernel_context *x, attention_shape s, real *dq, real *dkv, real *dk_rope,
                              int64_t ld_dk_rope, const real *d_o, const real *o, const real *lse,
                              const real *q, const real *kv, const real *k_rope, int64_t ld_k_rope,
                              const int32_t *first_key) {
    check_begin(
        x, "attention_backward",
        CHECK_SIZES(s.batch, s.seq, s.heads, s.nope, s.rope, s.v, ld_dk_rope, ld_k_rope, first_key != NULL));
    int64_t rows = s.batch * s.seq, width_q = s.heads * (s.nope + s.rope),
            width_kv = s.heads * (s.nope + s.v);
    real *want_dq = check_expect(x, CHECK_WRITES, dq, rows, width_q, width_q);
    real *want_dkv = check_expect(x, CHECK_WRITES, dkv, rows, width_kv, width_kv);
    real *want_dk_rope = check_expect(x, CHECK_WRITES, dk_rope, rows, s.rope, ld_dk_rope);
    attention_sizes z = attention_sizes_of(x, s, q, kv, k_rope, ld_k_rope);
    attention_operands r = operands_of(x, s, q, kv, k_rope, ld_k_rope);
    const real *d_o_read = check_operand(x, d_o, rows, s.heads * s.v, s.heads * s.v);
    REF(x, attention_backward, s, want_dq, want_dkv, want_dk_rope, ld_dk_rope, d_o_read, o, lse, r.q, r.kv,
        r.k_rope, ld_k_rope, first_key);
    INNER(x, attention_backward, s, dq, dkv, dk_rope, ld_dk_rope, d_o, o, lse, q, kv, k_rope, ld_k_rope,
          first_key);

    double top = largest_norm(x, rows * s.heads, s.v, d_o, s.v, 1),
           scale = 1 / sqrt((double)(s.nope + s.rope));
    double units = 2 * (z.score + z.sums + sqrt((double)s.v)) + z.read, column = sqrt((double)s.seq);
    double d_key = units * column * scale * 2 * top * z.value * z.query;
    check_close(x, "dq", dq, want_dq, rows, width_q, width_q,
                (check_bound){.absolute = units * scale * 2 * top * z.value * z.key});
    check_close(x, "dkv", dkv, want_dkv, rows, width_kv, width_kv,
                (check_bound){.absolute = fmax(d_key, units * column * top)});
    check_close(x, "dk_rope", dk_rope, want_dk_rope, rows, s.rope, ld_dk_rope,
                (check_bound){.absolute = d_key * (double)s.heads});
}

/* Rows of no segment must not change. */
static real *expect_rows(kernel_context *x, int64_t segments, const segment *s, int64_t cols, real *data) {
    real *want = check_expect(x, CHECK_UPDATES, data, span_of(segments, s), cols, cols);
    poison_rows(segments, s, cols, data);
    return want;
}

void check_swiglu_forward(kernel_context *x, int64_t segments, const segment *s, int64_t f, real *h,
                          const real *gu) {
    int64_t rows = span_of(segments, s);
    check_begin(x, "swiglu_forward", CHECK_SIZES(segments, rows, f));
    real *want = expect_rows(x, segments, s, f, h);
    REF(x, swiglu_forward, segments, s, f, want, gu);
    INNER(x, swiglu_forward, segments, s, f, h, gu);
    check_bound b = {.relative = 16, .floor = UNDERFLOW_FLOOR * check_largest(rows, 2 * f, 2 * f, gu)};
    check_close(x, "h", h, want, rows, f, f, b);
}

/* silu'(g) = s (1 + g (1 - s)) crosses zero: its error is counted against 1 + |g|. */
void check_swiglu_backward(kernel_context *x, int64_t segments, const segment *s, int64_t f, real *dgu,
                           real *h, real *dweight, const real *dh, const real *gu, const real *weight) {
    int64_t rows = span_of(segments, s);
    check_begin(x, "swiglu_backward", CHECK_SIZES(segments, rows, f, dweight != NULL, weight != NULL));
    real *want_dgu = expect_rows(x, segments, s, 2 * f, dgu), *want_h = expect_rows(x, segments, s, f, h);
    real *want_dweight = dweight ? expect_rows(x, segments, s, 1, dweight) : NULL;
    double *row = check_scratch(x, (size_t)rows * sizeof *row),
           *dot = check_scratch(x, (size_t)rows * sizeof *dot);
    for (int64_t i = 0; i < rows; i++) row[i] = dot[i] = 0;
    for (int64_t n = 0; n < segments; n++) {
        for (int64_t i = s[n].row; i < s[n].row + s[n].rows; i++) {
            double d = check_largest(1, f, f, dh + i * f), g = check_largest(1, 2 * f, 2 * f, gu + i * 2 * f);
            row[i] = (weight ? fabs(weight[i]) : 1) * d * g * (1 + g);
            for (int64_t j = 0; j < f; j++)
                dot[i] += fabs((double)dh[i * f + j] * gu[i * 2 * f + j] * gu[i * 2 * f + f + j]);
        }
    }
    REF(x, swiglu_backward, segments, s, f, want_dgu, want_h, want_dweight, dh, gu, weight);
    INNER(x, swiglu_backward, segments, s, f, dgu, h, dweight, dh, gu, weight);
    check_close(x, "dgu", dgu, want_dgu, rows, 2 * f, 2 * f, (check_bound){.absolute = 16, .row = row});
    double top = check_largest(rows, 2 * f, 2 * f, gu) * (weight ? check_largest(1, rows, rows, weight) : 1);
    check_bound b = {.relative = 16, .floor = UNDERFLOW_FLOOR * top};
    check_close(x, "h", h, want_h, rows, f, f, b);
    if (dweight)
        check_close(x, "dweight", dweight, want_dweight, rows, 1, 1,
                    (check_bound){.absolute = check_lanes(f) + 16, .row = dot});
}

void check_embedding_forward(kernel_context *x, int64_t rows, int64_t h, real *y, const real *w,
                             const int32_t *ids) {
    check_begin(x, "embedding_forward", CHECK_SIZES(rows, h));
    real *want = check_expect(x, CHECK_WRITES, y, rows, h, h);
    REF(x, embedding_forward, rows, h, want, w, ids);
    INNER(x, embedding_forward, rows, h, y, w, ids);
    check_equal(x, "x", y, want, (size_t)(rows * h), sizeof *y);
}

void check_embedding_backward(kernel_context *x, int64_t rows, int64_t h, real *dw, const real *dx,
                              const int32_t *ids) {
    check_begin(x, "embedding_backward", CHECK_SIZES(rows, h));
    int64_t v = 0;
    for (int64_t i = 0; i < rows; i++) v = ids[i] >= v ? ids[i] + 1 : v;
    real *want = check_expect(x, CHECK_UPDATES, dw, v, h, h);
    REF(x, embedding_backward, rows, h, want, dx, ids);
    INNER(x, embedding_backward, rows, h, dw, dx, ids);
    check_close(x, "dw", dw, want, v, h, h, EXACT);
}
