#include "tests/timed.h"

#include <string.h>

#include "launch/comm.h"
#include "launch/error.h"
#include "launch/memory.h"

struct kernel_context {
    kernels inner;
    timed_figure figure[TIMED_OPERATIONS + 1]; /* in the order of their first calls */
};

static void note(kernel_context *x, const char *operation, double began, double flops, double elements) {
    const double seconds = comm_clock() - began;
    timed_figure *f = x->figure;
    while (f->operation && strcmp(f->operation, operation)) f++;
    REQUIRE(f < x->figure + TIMED_OPERATIONS);
    f->operation = operation;
    f->calls++;
    f->seconds += seconds;
    f->flops += flops;
    f->bytes += elements * sizeof(real);
}

/* Calls the operation and notes it as `label`; flops and elements are evaluated after it. */
#define TIMED_AS(label, operation, flops, elements, ...)                                                     \
    do {                                                                                                     \
        const double began = comm_clock();                                                                   \
        x->inner.operation(x->inner.ctx, __VA_ARGS__);                                                       \
        note(x, label, began, (double)(flops), (double)(elements));                                          \
    } while (0)
#define TIMED(operation, flops, elements, ...) TIMED_AS(#operation, operation, flops, elements, __VA_ARGS__)

static void *allocate(kernel_context *x, size_t bytes, const char *what) {
    return x->inner.alloc(x->inner.ctx, bytes, what);
}
static void release(kernel_context *x, void *p) {
    x->inner.free(x->inner.ctx, p);
}
static void to_host(kernel_context *x, void *host, const void *device, size_t bytes) {
    x->inner.to_host(x->inner.ctx, host, device, bytes);
}
static void to_device(kernel_context *x, void *device, const void *host, size_t bytes) {
    x->inner.to_device(x->inner.ctx, device, host, bytes);
}
static void destroy(kernels *k) {
    timed_close(k);
    kernels_close(k);
}

static void zero(kernel_context *x, int64_t n, real *y) {
    TIMED(zero, 0, n, n, y);
}
static void copy(kernel_context *x, int64_t n, real *y, const real *from) {
    TIMED(copy, 0, 2 * n, n, y, from);
}
static void add(kernel_context *x, int64_t n, real *y, const real *d, int64_t parts,
                const real *const *part) {
    TIMED(add, 0, ((d != NULL) + parts + 1) * n, n, y, d, parts, part);
}
static void copy_rows(kernel_context *x, int64_t n, int64_t cols, real *dst, const int32_t *dst_row,
                      const real *src, const int32_t *src_row) {
    TIMED(copy_rows, 0, 2 * n * cols, n, cols, dst, dst_row, src, src_row);
}
static void hold(kernel_context *x, int64_t n, const real *held) {
    TIMED(hold, 0, 0, n, held);
}

static void gemm(kernel_context *x, gemm_form form, int64_t m, int64_t n, int64_t k, real *c, int64_t ldc,
                 const real *d, const real *a, int64_t lda, const real *b, int64_t ldb) {
    static const char *const label[] = {"gemm NT", "gemm NN", "gemm TN"};
    TIMED_AS(label[form], gemm, 2 * m * n * k, m * k + n * k + m * n * (d ? 2 : 1), form, m, n, k, c, ldc, d,
             a, lda, b, ldb);
}

static void gemm_float32(kernel_context *x, gemm_form form, int64_t m, int64_t n, int64_t k, real *c,
                         int64_t ldc, const real *d, const real *a, int64_t lda, const real *b, int64_t ldb) {
    TIMED(gemm_float32, 2 * m * n * k, m * k + n * k + m * n * (d ? 2 : 1), form, m, n, k, c, ldc, d, a, lda,
          b, ldb);
}

/* Segments that have rows, and the rows of all. */
static int64_t busy(int64_t segments, const segment *s, int64_t *rows) {
    int64_t n = 0;
    *rows = 0;
    for (int64_t i = 0; i < segments; i++) {
        n += s[i].rows > 0;
        *rows += s[i].rows;
    }
    return n;
}

static void grouped_gemm(kernel_context *x, gemm_form form, int64_t segments, const segment *s, int64_t n,
                         int64_t k, real *c, const real *a, const real *w, int64_t stride) {
    int64_t rows, full = busy(segments, s, &rows);
    TIMED_AS(form == GEMM_NT ? "grouped_gemm NT" : "grouped_gemm NN", grouped_gemm, 2 * rows * n * k,
             rows * (n + k) + full * n * k, form, segments, s, n, k, c, a, w, stride);
}
static void grouped_gemm_dw(kernel_context *x, int64_t segments, const segment *s, int64_t m, int64_t n,
                            real *dw, int64_t stride, const real *a, const real *b) {
    int64_t rows, full = busy(segments, s, &rows);
    TIMED(grouped_gemm_dw, 2 * rows * m * n, rows * (m + n) + 2 * full * m * n, segments, s, m, n, dw, stride,
          a, b);
}

static void rms_norm_forward(kernel_context *x, int64_t rows, int64_t cols, double eps, double scale, real *y,
                             int64_t ldy, real *rstd, const real *in, int64_t ldx, const real *w) {
    TIMED(rms_norm_forward, 0, 2 * rows * cols, rows, cols, eps, scale, y, ldy, rstd, in, ldx, w);
}
static void rms_norm_backward(kernel_context *x, int64_t rows, int64_t cols, double scale, real *dx,
                              int64_t lddx, const real *d, real *dw, int adds, const real *dy, int64_t lddy,
                              const real *in, int64_t ldx, const real *rstd, const real *w) {
    TIMED(rms_norm_backward, 0, rows * cols * (d ? 4 : 3), rows, cols, scale, dx, lddx, d, dw, adds, dy, lddy,
          in, ldx, rstd, w);
}
static void rope(kernel_context *x, int64_t rows, int64_t seq, int64_t heads, int64_t pairs, int backward,
                 real *y, int64_t ld, int64_t stride, const real *cosine, const real *sine) {
    TIMED(rope, 0, 4 * rows * heads * pairs, rows, seq, heads, pairs, backward, y, ld, stride, cosine, sine);
}

/* Pairs of query and key below the diagonal, all heads. */
static double pairs_of(attention_shape s) {
    return 0.5 * (double)(s.batch * s.heads * s.seq) * (double)(2 * s.past + s.seq + 1);
}
static int64_t attention_operands(attention_shape s) {
    return s.batch *
           (s.seq * s.heads * (s.nope + s.rope) + (s.past + s.seq) * (s.heads * (s.nope + s.v) + s.rope));
}
static void attention_forward(kernel_context *x, attention_shape s, real *o, real *lse, const real *q,
                              const real *kv, const real *k_rope, int64_t ld, const int32_t *first_key) {
    TIMED(attention_forward, 2 * pairs_of(s) * (double)(s.nope + s.rope + s.v),
          attention_operands(s) + s.batch * s.seq * s.heads * s.v, s, o, lse, q, kv, k_rope, ld, first_key);
}
static void attention_backward(kernel_context *x, attention_shape s, real *dq, real *dkv, real *dk_rope,
                               int64_t ld_dk_rope, const real *d_o, const real *o, const real *lse,
                               const real *q, const real *kv, const real *k_rope, int64_t ld,
                               const int32_t *first_key) {
    TIMED(attention_backward, 2 * pairs_of(s) * (double)(3 * (s.nope + s.rope) + 2 * s.v),
          2 * (attention_operands(s) + s.batch * s.seq * s.heads * s.v), s, dq, dkv, dk_rope, ld_dk_rope, d_o,
          o, lse, q, kv, k_rope, ld, first_key);
}

static void swiglu_forward(kernel_context *x, int64_t segments, const segment *s, int64_t f, real *h,
                           const real *gu) {
    int64_t rows;
    busy(segments, s, &rows);
    TIMED(swiglu_forward, 0, 3 * rows * f, segments, s, f, h, gu);
}
static void swiglu_backward(kernel_context *x, int64_t segments, const segment *s, int64_t f, real *dgu,
                            real *h, real *dweight, const real *dh, const real *gu, const real *weight) {
    int64_t rows;
    busy(segments, s, &rows);
    TIMED(swiglu_backward, 0, 6 * rows * f, segments, s, f, dgu, h, dweight, dh, gu, weight);
}
static void embedding_forward(kernel_context *x, int64_t rows, int64_t h, real *y, const real *w,
                              const int32_t *ids) {
    TIMED(embedding_forward, 0, 2 * rows * h, rows, h, y, w, ids);
}
static void embedding_backward(kernel_context *x, int64_t rows, int64_t h, real *dw, const real *dx,
                               const int32_t *ids) {
    TIMED(embedding_backward, 0, 3 * rows * h, rows, h, dw, dx, ids);
}
static void router_forward(kernel_context *x, router_shape s, real *prob, int32_t *index, real *weight,
                           int64_t *count, real *prob_sum, const real *logits, const real *bias) {
    TIMED(router_forward, 0, 2 * s.tokens * (s.ffn_experts + s.zero_experts + s.topk), s, prob, index, weight,
          count, prob_sum, logits, bias);
}
static void router_backward(kernel_context *x, router_shape s, real *dlogits, real *dprob_sum,
                            const real *dweight, const real *prob, const int32_t *index,
                            const real *lb_grad) {
    TIMED(router_backward, 0, 2 * s.tokens * (s.ffn_experts + s.zero_experts + s.topk), s, dlogits, dprob_sum,
          dweight, prob, index, lb_grad);
}

/* Rows that came from FFN experts. */
static int64_t answers(int64_t slots, const int32_t *row_of) {
    int64_t n = 0;
    for (int64_t i = 0; i < slots; i++) n += row_of[i] >= 0;
    return n;
}
static void combine_forward(kernel_context *x, int64_t tokens, int64_t h, int64_t topk, real *out,
                            const real *rows, const int32_t *row_of, const real *weight, const real *y) {
    TIMED(combine_forward, 0, (answers(tokens * topk, row_of) + 3 * tokens) * h, tokens, h, topk, out, rows,
          row_of, weight, y);
}
static void combine_backward(kernel_context *x, int64_t tokens, int64_t h, int64_t topk, real *dy,
                             real *dweight, const real *dout, const real *drows, const real *dw_rows,
                             const int32_t *row_of, const real *weight, const real *y) {
    TIMED(combine_backward, 0, (answers(tokens * topk, row_of) + 4 * tokens) * h, tokens, h, topk, dy,
          dweight, dout, drows, dw_rows, row_of, weight, y);
}
static void cross_entropy(kernel_context *x, int64_t rows, int64_t vocab, double scale, real *loss,
                          int32_t *best, real *logits, const int32_t *targets) {
    TIMED(cross_entropy, 0, rows * vocab * (scale != 0 ? 2 : 1), rows, vocab, scale, loss, best, logits,
          targets);
}
static void hidden_z(kernel_context *x, int64_t rows, int64_t h, double scale, real *loss, real *sum_sq,
                     real *max_abs, real *dx, const real *in) {
    TIMED(hidden_z, 0, rows * h * (dx ? 3 : 1), rows, h, scale, loss, sum_sq, max_abs, dx, in);
}
static void adamw(kernel_context *x, int64_t n, adamw_step s, real *p, real *m, real *v, const real *g) {
    TIMED(adamw, 0, 7 * n, n, s, p, m, v, g);
}
static void sum_squares(kernel_context *x, int64_t n, double *out, const real *in) {
    TIMED(sum_squares, 0, n, n, out, in);
}
static void digest(kernel_context *x, int64_t n, uint64_t *out, const real *in) {
    TIMED(digest, 0, n, n, out, in);
}

void timed_open(kernels *k) {
    kernel_context *x = mem_alloc(sizeof *x, "timed operations");
    x->inner = *k;
    const kernels timed = {
        .alloc = allocate,
        .free = release,
        .zero = zero,
        .copy = copy,
        .add = add,
        .copy_rows = copy_rows,
        .hold = hold,
        .gemm = gemm,
        .gemm_float32 = gemm_float32,
        .grouped_gemm = grouped_gemm,
        .grouped_gemm_dw = grouped_gemm_dw,
        .rms_norm_forward = rms_norm_forward,
        .rms_norm_backward = rms_norm_backward,
        .rope = rope,
        .attention_forward = attention_forward,
        .attention_backward = attention_backward,
        .swiglu_forward = swiglu_forward,
        .swiglu_backward = swiglu_backward,
        .embedding_forward = embedding_forward,
        .embedding_backward = embedding_backward,
        .router_forward = router_forward,
        .router_backward = router_backward,
        .combine_forward = combine_forward,
        .combine_backward = combine_backward,
        .cross_entropy = cross_entropy,
        .hidden_z = hidden_z,
        .adamw = adamw,
        .sum_squares = sum_squares,
        .digest = digest,
        .to_host = to_host,
        .to_device = to_device,
        .destroy = destroy,
    };
    REQUIRE(!kernels_missing(&timed));             /* an operation that nobody times */
    const size_t first = offsetof(kernels, alloc); /* operations come last */
    memcpy((char *)k + first, (const char *)&timed + first, sizeof *k - first);
    k->ctx = x;
}

timed_figure *timed_figures(kernels *k) {
    return k->ctx->figure;
}

void timed_reset(kernels *k) {
    memset(k->ctx->figure, 0, sizeof k->ctx->figure);
}

void timed_close(kernels *k) {
    kernel_context *x = k->ctx;
    *k = x->inner;
    mem_free(x);
}
