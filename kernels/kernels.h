/* The one narrow interface between the model and the machine: a table of operations.
 *
 * Every operation takes the backend's context first, then sizes (int64_t), then outputs, then inputs; none
 * allocates.  `=` marks an output that is overwritten, `+=` one that is added to.  Matrices are row-major;
 * ld is the distance between rows in elements.  Buffers, lists of rows and ids too, live in the backend's
 * memory (alloc): model code never looks into one, except through to_host, or where host_memory says that it
 * may (kernels/twin.h).  Only lists of segments are host memory.  Outputs overlap inputs only where an
 * operation says that they may.  Operations take effect in the order of the calls; only to_host
 * and fetched wait.
 *
 * Shapes: T rows (tokens of one micro-batch), H hidden, F inner size of an FFN, N FFN experts, Z identity
 * experts, K experts chosen per token, V vocabulary.
 *
 * Orders of sums are part of the interface (docs/determinism.md):
 *   - a sum over k of a matrix product is cut into blocks of GEMM_K_BLOCK; each block is one chain of fused
 *     multiply-adds from zero, k ascending; blocks are added to the result in order;
 *     in bf16 on cpu, k goes by in pairs, of which the second is added first, and what a multiply-add leaves
 *     below the least normal number is zero;
 *   - a sum over rows (norm weights, mean probability) is cut into blocks of GEMM_K_BLOCK rows likewise;
 *   - a sum over one row runs in 16 lanes (element i in lane i % 16, ascending) and one tree:
 *     lane j + lane j+8, then +4, +2, +1;
 *   - no element depends on the number of threads, the width of a vector, or on other rows.
 * The ref backend defines the values and need not keep the orders; cpu keeps them on AVX2 and AVX-512 alike.
 */
#ifndef CARACAL_KERNELS_KERNELS_H
#define CARACAL_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef CARACAL_F64
typedef double real; /* the ref backend for finite differences */
#else
typedef float real;
#endif

enum {
    GEMM_K_BLOCK = 256, /* never tuned: it decides bits */
    HEAD_TILE = 128,    /* a processor's head_rows, below */
    SUM_BLOCK = 4096,   /* elements per block of a norm or digest; optimizer shards end at blocks */
};

typedef enum {
    GEMM_NT, /* A [m,k], B [n,k]: y = x W^T, the forward of a linear layer */
    GEMM_NN, /* A [m,k], B [k,n]: dx = dy W */
    GEMM_TN, /* A [k,m], B [k,n]: dW = dy^T x */
} gemm_form;

/* A run of consecutive rows that belong to one expert (and, for weight gradients, to one micro-batch). */
typedef struct segment {
    int64_t row, rows; /* rows may be 0 */
    int64_t expert;    /* which weight matrix of the stack */
} segment;
/* All of n rows, as two arguments: a list of segments. */
#define EVERY_ROW(n)                                                                                         \
    1, &(segment) {                                                                                          \
        0, (n), 0                                                                                            \
    }

typedef struct attention_shape {
    int64_t batch, seq;    /* T = batch * seq rows; sequences do not see one another */
    int64_t heads;         /* each with its own keys, but for their rope part */
    int64_t nope, rope, v; /* per-head dimensions; keys are nope + rope wide */
    int64_t past;          /* keys of each sequence before its first query; forward only */
} attention_shape;

typedef struct router_shape {
    int64_t tokens, ffn_experts, zero_experts, topk;
    double scaling; /* routed_scaling_factor, the report's gamma */
} router_shape;

typedef struct adamw_step {
    double lr, beta1, beta2, eps, weight_decay; /* weight_decay 0 for norms */
    double grad_scale;                          /* the clip factor, applied to g first */
    double correction1, correction2;            /* 1 - beta1^t, 1 - beta2^t */
} adamw_step;

/* How matrix products and attention read their operands: as they are, or each element rounded to nearest even
 * to bf16.  Products are added up in float32 in either case; buffers and all other operations are float32. */
typedef enum { DTYPE_FLOAT32, DTYPE_BF16 } kernels_dtype;

typedef struct kernel_context kernel_context; /* threads and scratch of one backend */

typedef struct kernels {
    const char *name; /* "ref", "cpu-avx2", "cpu-avx512", ... */
    kernel_context *ctx;
    kernels_dtype dtype;
    /* How its memory travels without the host (kernels/wire.h); NULL: it does not. */
    const struct wires *wires;
    size_t (*left)(kernel_context *); /* bytes that alloc could still give; NULL: nobody can say */
    /* Bytes that it takes for itself, beside alloc's, by the end of a training step.  held: elements of what
     * hold gets; operand: elements of the largest matrix, other than weights, that a product reads; s: the
     * attention of the step.  NULL: nothing to speak of. */
    size_t (*own_bytes)(kernel_context *, int64_t held, int64_t operand, attention_shape s);
    /* to_host in two halves, so that a device has work while the host waits: fetch begins, and fetched
     * returns when the bytes of all that began are there.  NULL, both: to_host does. */
    void (*fetch)(kernel_context *, void *host, const void *device, size_t bytes);
    void (*fetched)(kernel_context *);
    int64_t head_rows; /* rows whose logits exist at one time: decides bits of the head's gradient */
    int host_memory;   /* alloc's memory is the process's own: host code may read and write it in place */
    int shares; /* where host_memory: other ranks of the host may read what is sent in place; settled by
                 * model/transport.h, 0 before */

    /* ---- memory ---- */
    /* Zeroed, aligned to 64 bytes at least.  Ends the program (exit 7), naming `what` and the size, if there
     * is none. */
    void *(*alloc)(kernel_context *, size_t bytes, const char *what);
    /* NULL is allowed. */
    void (*free)(kernel_context *, void *);
    /* x = 0 */
    void (*zero)(kernel_context *, int64_t n, real *x);
    /* y = x */
    void (*copy)(kernel_context *, int64_t n, real *y, const real *x);
    /* y = ((d + part[0]) + part[1]) + ..., one rounding an addition: the fold of gradients.  d == NULL: the
     * sum begins with part[0]; d == y: y += ...; no part overlaps y. */
    void (*add)(kernel_context *, int64_t n, real *y, const real *d, int64_t parts, const real *const *part);
    /* dst[dst_row[i]] = src[src_row[i]] for i < n, rows of cols elements; a NULL index is the identity. */
    void (*copy_rows)(kernel_context *, int64_t n, int64_t cols, real *dst, const int32_t *dst_row,
                      const real *src, const int32_t *src_row);

    /* ---- matrix products ---- */
    /* x [n] is not written until hold is called again: weights, within a step or for a generation.  A
     * backend may keep rounded or packed copies, each made once, for products of matrices inside x.  n == 0:
     * nothing is held. */
    void (*hold)(kernel_context *, int64_t n, const real *x);
    /* C [m,n] = D + op(A) op(B).  d == NULL: no D (C = first block); d == c: C += ...; otherwise D [m,n] is
     * another matrix with ld ldc (a residual).  k == 0 gives D or zero. */
    void (*gemm)(kernel_context *, gemm_form form, int64_t m, int64_t n, int64_t k, real *c, int64_t ldc,
                 const real *d, const real *a, int64_t lda, const real *b, int64_t ldb);
    /* The same of operands as they are, whatever the dtype: the router's, whose choices depend on small
     * differences. */
    void (*gemm_float32)(kernel_context *, gemm_form form, int64_t m, int64_t n, int64_t k, real *c,
                         int64_t ldc, const real *d, const real *a, int64_t lda, const real *b, int64_t ldb);
    /* For each segment s: C[s.row .. +rows, n] = A[s.row .. +rows, k] op(W + s.expert * w_stride).
     * form is GEMM_NT (W_e [n,k]) or GEMM_NN (W_e [k,n]); rows of C are n apart, rows of A k apart. */
    void (*grouped_gemm)(kernel_context *, gemm_form form, int64_t segments, const segment *s, int64_t n,
                         int64_t k, real *c, const real *a, const real *w, int64_t w_stride);
    /* dW_e [m,n] (at dw + expert * dw_stride) += sum over the segments of expert e, in the order given, of
     * A[rows, m]^T B[rows, n]; k-blocks start anew at each segment's first row. */
    void (*grouped_gemm_dw)(kernel_context *, int64_t segments, const segment *s, int64_t m, int64_t n,
                            real *dw, int64_t dw_stride, const real *a, const real *b);

    /* ---- RMSNorm: y = scale * w * x / sqrt(mean(x^2) + eps) ---- */
    /* y [rows,cols] (ldy) =, rstd [rows] = */
    void (*rms_norm_forward)(kernel_context *, int64_t rows, int64_t cols, double eps, double scale, real *y,
                             int64_t ldy, real *rstd, const real *x, int64_t ldx, const real *w);
    /* dx [rows,cols] (lddx) = d + ..., d may be NULL, dx itself, or another matrix with ld lddx;
     * dw [cols] =, or += where `adds` */
    void (*rms_norm_backward)(kernel_context *, int64_t rows, int64_t cols, double scale, real *dx,
                              int64_t lddx, const real *d, real *dw, int adds, const real *dy, int64_t lddy,
                              const real *x, int64_t ldx, const real *rstd, const real *w);

    /* ---- RoPE on interleaved pairs, in place ----
     * Row r has position r % seq; head h of a row lies at x + r * ld + h * head_stride and its first 2*pairs
     * elements are turned: (a, b) -> (a cos - b sin, b cos + a sin).  cosine, sine [seq, pairs].
     * backward != 0 turns the other way (the transpose). */
    void (*rope)(kernel_context *, int64_t rows, int64_t seq, int64_t heads, int64_t pairs, int backward,
                 real *x, int64_t ld, int64_t head_stride, const real *cosine, const real *sine);

    /* ---- causal attention of MLA shape (softmax scale 1 / sqrt(nope + rope)) ----
     * q [T, heads*(nope+rope)], kv [T, heads*(nope+v)] (a head's k_nope, then its v), k_rope [T, rope] with
     * ld ld_k_rope, shared by all heads.  first_key [T]: the first key a row may see, counted inside its own
     * sequence (the start of its document), non-decreasing within a sequence; NULL means 0.
     * When past > 0 (text that is continued) kv and k_rope have past + seq rows a sequence, and query i of a
     * sequence stands at position past + i: its bits are those of row past + i with all queries given.
     * o [T, heads*v] =, lse [T, heads] = log of the sum of exp of the scaled scores.  Memory linear in T.
     * The softmax runs over blocks of keys, of the backend's size, counted from key 0 of the sequence. */
    void (*attention_forward)(kernel_context *, attention_shape s, real *o, real *lse, const real *q,
                              const real *kv, const real *k_rope, int64_t ld_k_rope,
                              const int32_t *first_key);
    /* dq =, dkv =, dk_rope [T, rope] (ld ld_dk_rope) = sum over heads ascending */
    void (*attention_backward)(kernel_context *, attention_shape s, real *dq, real *dkv, real *dk_rope,
                               int64_t ld_dk_rope, const real *d_o, const real *o, const real *lse,
                               const real *q, const real *kv, const real *k_rope, int64_t ld_k_rope,
                               const int32_t *first_key);

    /* ---- SwiGLU: h = silu(gate) * up;  gu [rows, 2F] holds a row's gate, then its up ----
     * Of the rows of the segments, which do not overlap; their experts do not matter. */
    /* h [rows,F] = */
    void (*swiglu_forward)(kernel_context *, int64_t segments, const segment *s, int64_t f, real *h,
                           const real *gu);
    /* weight [rows] is the router's weight of each row, NULL for 1.  dh is the gradient of the unweighted
     * row's consumer, i.e. d(out) W_down with out's gradient not yet multiplied by the weight:
     *   h  [rows,F] = weight * silu(gate) * up      (what the gradient of W_down needs)
     *   dgu [rows,2F] = weight * (dh through SwiGLU)
     *   dweight [rows] = <dh, silu(gate) * up>      (not written when NULL) */
    void (*swiglu_backward)(kernel_context *, int64_t segments, const segment *s, int64_t f, real *dgu,
                            real *h, real *dweight, const real *dh, const real *gu, const real *weight);

    /* ---- embedding ---- */
    /* x [T,H] = rows ids of w [V,H] */
    void (*embedding_forward)(kernel_context *, int64_t rows, int64_t h, real *x, const real *w,
                              const int32_t *ids);
    /* dw [V,H] += dx rows, each row of dw in order of position */
    void (*embedding_backward)(kernel_context *, int64_t rows, int64_t h, real *dw, const real *dx,
                               const int32_t *ids);

    /* ---- router (report Eq. 1, 3-5) ----
     * prob [T,N+Z] = softmax(logits); the K experts with the largest prob + bias (prob as stored, the sum
     * rounded to real, ties to the lower id) are chosen: index [T,K] = their ids, ascending;
     * weight [T,K] = prob * scaling.  count [N+Z] = selections of each expert; prob_sum [N+Z] = sum of prob
     * over the tokens. */
    void (*router_forward)(kernel_context *, router_shape s, real *prob, int32_t *index, real *weight,
                           int64_t *count, real *prob_sum, const real *logits, const real *bias);
    /* dweight [T,K] is the gradient that reaches the weights; lb_grad [N+Z] that of the load-balance loss on
     * every token's prob (the same for all tokens).
     * dlogits [T,N+Z] = through the softmax of (scaling * dweight at the chosen ids + lb_grad);
     * dprob_sum [N+Z] = sum over tokens of scaling * dweight at the chosen ids (for R_g, without LB). */
    void (*router_backward)(kernel_context *, router_shape s, real *dlogits, real *dprob_sum,
                            const real *dweight, const real *prob, const int32_t *index, const real *lb_grad);

    /* ---- combine: what came back from the experts, and the identity experts' part ----
     * row_of [T,K]: the row of `rows` that answers slot (t,k), or -1 for an identity expert.
     * out [T,H] += (((0 + w rows[..]) + w rows[..]) ...) over FFN slots ascending, identity part
     * (sum of the identity weights) * y last; the token's sum is made first and added to out once. */
    void (*combine_forward)(kernel_context *, int64_t tokens, int64_t h, int64_t topk, real *out,
                            const real *rows, const int32_t *row_of, const real *weight, const real *y);
    /* dy [T,H] += (sum over FFN slots ascending of drows[row_of]), identity part (sum of identity weights) *
     * dout last, summed first and added once; dweight [T,K] = dw_rows[row_of], or <dout, y> for an identity
     * expert. */
    void (*combine_backward)(kernel_context *, int64_t tokens, int64_t h, int64_t topk, real *dy,
                             real *dweight, const real *dout, const real *drows, const real *dw_rows,
                             const int32_t *row_of, const real *weight, const real *y);

    /* ---- losses ---- */
    /* One tile of logits [rows,V] and targets [rows] (-1: not counted):
     * loss [rows] = logsumexp - logit of the target (0 where not counted);
     * logits = scale * (softmax - onehot), 0 where not counted, when scale != 0; left alone when scale == 0.
     * best [rows] = id of the largest logit, ties to the lower (not written when NULL). */
    void (*cross_entropy)(kernel_context *, int64_t rows, int64_t vocab, double scale, real *loss,
                          int32_t *best, real *logits, const int32_t *targets);
    /* Hidden z-loss (Eq. 10) and what is watched: loss [rows] = logsumexp(|x|)^2, sum_sq [rows] = sum x^2,
     * max_abs [rows] = max |x|; dx [rows,H] += scale * d loss / dx (dx untouched when NULL).
     * d|x|/dx at 0 is taken as 0. */
    void (*hidden_z)(kernel_context *, int64_t rows, int64_t h, double scale, real *loss, real *sum_sq,
                     real *max_abs, real *dx, const real *x);

    /* ---- optimizer and watching ---- */
    /* AdamW, decoupled decay, eps outside the root, no flush to zero:
     *   g' = g * grad_scale; m = beta1 m + (1 - beta1) g'; v = beta2 v + (1 - beta2) g'^2;
     *   p -= lr * ((m / correction1) / (sqrt(v / correction2) + eps) + weight_decay * p) */
    void (*adamw)(kernel_context *, int64_t n, adamw_step s, real *p, real *m, real *v, const real *g);
    /* out [ceil(n / SUM_BLOCK)] = sums of squares of the blocks, in double; NaN and infinity propagate. */
    void (*sum_squares)(kernel_context *, int64_t n, double *out, const real *x);
    /* out [ceil(n / SUM_BLOCK)] = XXH3-64 of each block's bytes. */
    void (*digest)(kernel_context *, int64_t n, uint64_t *out, const real *x);

    /* ---- between the backend's memory and the host's ----
     * to_host returns when the bytes are there; to_device when the host's may be changed again. */
    void (*to_host)(kernel_context *, void *host, const void *device, size_t bytes);
    void (*to_device)(kernel_context *, void *device, const void *host, size_t bytes);

    void (*destroy)(struct kernels *);
} kernels;

/* What the user asked for by `device`, `isa` and `parallel.threads`. */
typedef struct kernels_config {
    char device[32]; /* ref | cpu | cuda | check: and one of these */
    char isa[16];    /* auto | avx2 | avx512, for cpu */
    int threads;     /* of this rank */
    int dtype;       /* a kernels_dtype; ref has only float32 */
    int local_rank;  /* among the ranks of this host: which GPU it takes */
} kernels_config;

struct error;
/* Opens a backend and checks that its table is complete.  Returns 0 or an exit code with *e filled: unknown
 * device, an isa that this processor lacks, a table with a missing entry (which it names). */
int kernels_open(kernels *k, const kernels_config *c, struct error *e);
void kernels_close(kernels *k);
/* The name of the first empty entry of a table, or NULL when it is complete. */
const char *kernels_missing(const kernels *k);

/* Each backend's own opener, called by kernels_open (and by tests). */
void kernels_ref(kernels *k, int threads);
/* Runs `inner` and ref on the same inputs, outputs poisoned first, and ends the program where they differ by
 * more than the operation's tolerance; takes ownership of inner.  In memory that both the host and inner
 * reach: the host's, or what the cuda backend gives where it was opened as "check:cuda". */
void kernels_check(kernels *k, const kernels *inner, int threads);
#ifndef CARACAL_F64
void kernels_cpu_avx2(kernels *k, int threads, kernels_dtype dtype);
void kernels_cpu_avx512(kernels *k, int threads, kernels_dtype dtype); /* bf16: with AVX512-BF16 */
/* In programs of `make CUDA=1`, and in tests on the emulator (tests/emulate).  Returns 0 or an exit code with
 * *e filled: no driver, no GPU.  A failure of the GPU later on is a fault. */
int kernels_cuda(kernels *k, const kernels_config *c, struct error *e);
/* The machine's own peak in FLOP/s with these threads, of fused multiply-adds or of bf16's dot products where
 * isa has them, measured for about 20 ms: what all of them do together now, whatever disturbs them. */
double kernels_measure_peak(const kernels_config *c);
/* The same in about 30 ms, as if nothing disturbed them: each thread counts for its own best fraction of a
 * millisecond. */
double kernels_measure_own_peaks(const kernels_config *c);
#endif

#endif
