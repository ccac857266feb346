/* One call of each operation at an ugly shape, chosen with its inputs by a seed.
 *
 * Every buffer of a case lies in one block, between guard zones: in half of the cases at odd multiples of 4
 * bytes, in the others at multiples of 16, where backends may read four numbers at a time.  What padding and
 * outputs hold before the call comes from the seed too.  Two backends that should agree in every bit are
 * therefore compared by memcmp of two blocks. */
#ifndef CARACAL_TESTS_KERNEL_CASES_H
#define CARACAL_TESTS_KERNEL_CASES_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "kernels/kernels.h"
#include "launch/error.h"
#include "launch/memory.h"
#include "launch/random.h"

enum { BLOCK_BYTES = 24 << 20, GUARD_BYTES = 256, MOST_BUFFERS = 24 };
static const unsigned char GUARD = 0xc3;

typedef struct bench {
    const kernels *k;
    char *block;
    size_t used;
    size_t guard[MOST_BUFFERS + 1]; /* offsets of the guard zones */
    int guards;
    uint64_t seed, stream, draws;
    int aligned; /* buffers lie at multiples of 16 bytes */
} bench;

/* The seed that CARACAL_TEST_SEED names, or a fresh one; says which.  0: there is none. */
static int choose_seed(uint64_t *seed) {
    const char *again = getenv("CARACAL_TEST_SEED");
    if (again) *seed = strtoull(again, NULL, 0);
    else if (getrandom(seed, sizeof *seed, 0) != sizeof *seed) return 0;
    print_message("the same inputs again: CARACAL_TEST_SEED=%#lx\n", (unsigned long)*seed);
    return 1;
}

static uint64_t draw(bench *b) {
    return random_bits(b->seed, 0, b->draws++);
}

static int64_t pick(bench *b, int64_t n, const int64_t *list) {
    return list[draw(b) % (uint64_t)n];
}
#define PICK(b, ...)                                                                                         \
    pick(b, (int64_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

/* Rows of a matrix; 300 makes an operation large enough for several threads. */
static int64_t pick_rows(bench *b) {
    return PICK(b, 0, 1, 2, 3, 5, 13, 16, 17, 64, 127, 257, 300);
}
static int64_t pick_cols(bench *b) {
    return PICK(b, 1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129, 255, 256, 300);
}
static int coin(bench *b) {
    return (int)(draw(b) & 1);
}

static void add_guard(bench *b) {
    REQUIRE(b->used + GUARD_BYTES <= BLOCK_BYTES && b->guards <= MOST_BUFFERS);
    memset(b->block + b->used, GUARD, GUARD_BYTES);
    b->guard[b->guards++] = b->used;
    b->used += GUARD_BYTES;
}

static void begin_case(bench *b, const kernels *k, uint64_t seed) {
    b->k = k;
    b->seed = seed;
    b->used = 0;
    b->guards = 0;
    b->stream = b->draws = 0;
    b->aligned = (int)(random_bits(seed, UINT64_MAX, 0) & 1);
    add_guard(b);
}

static int guards_hold(const bench *b) {
    for (int g = 0; g < b->guards; g++)
        for (int i = 0; i < GUARD_BYTES; i++)
            if ((unsigned char)b->block[b->guard[g] + (size_t)i] != GUARD) return 0;
    return 1;
}

/* A buffer of n elements between guards. */
static void *buffer(bench *b, int64_t n, size_t size) {
    if (b->aligned) b->used = (b->used + 15) / 16 * 16;
    else if (b->used % 8 == 0 && size == 4) b->used += 4; /* matrices of the model start anywhere */
    if (size == 8) b->used = (b->used + 7) / 8 * 8;
    REQUIRE(b->used + (size_t)n * size <= BLOCK_BYTES);
    void *p = b->block + b->used;
    b->used += (size_t)n * size;
    add_guard(b);
    b->stream++;
    return p;
}

static double uniform(bench *b, int64_t i) {
    return 2 * random_uniform(b->seed, b->stream, (uint64_t)i) - 1;
}

/* n values in (-scale, scale) */
static real *scaled(bench *b, int64_t n, double scale) {
    real *x = buffer(b, n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (real)(scale * uniform(b, i));
    return x;
}
static real *values(bench *b, int64_t n) {
    return scaled(b, n, 1);
}

static int32_t *integers(bench *b, int64_t n, int64_t below) {
    int32_t *x = buffer(b, n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (int32_t)(random_bits(b->seed, b->stream, (uint64_t)i) % (uint64_t)below);
    return x;
}

static int32_t *permutation(bench *b, int64_t n, int64_t below) { /* n different rows below `below` */
    int32_t *x = buffer(b, n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (int32_t)random_permute(b->seed, b->stream, (uint64_t)below, (uint64_t)i);
    return x;
}

/* ---- memory ---- */

static void case_memory(bench *b) {
    int64_t n = PICK(b, 0, 1, 15, 16, 33, 4095, 70001);
    real *x = values(b, n), *y = values(b, n), *z = values(b, n);
    b->k->zero(b->k->ctx, n, z);
    b->k->copy(b->k->ctx, n, z, x);
    const real *part[12];
    int64_t parts = PICK(b, 1, 2, 3, 12);
    for (int64_t p = 0; p < parts; p++) part[p] = p ? values(b, n) : x;
    b->k->add(b->k->ctx, n, y, (const real *[]){NULL, y, z}[draw(b) % 3], parts, part);
    int64_t blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    double *sums = buffer(b, blocks, sizeof *sums);
    uint64_t *digests = buffer(b, blocks, sizeof *digests);
    b->k->sum_squares(b->k->ctx, n, sums, x);
    b->k->digest(b->k->ctx, n, digests, y);
}

static void case_copy_rows(bench *b) {
    int64_t n = pick_rows(b), cols = pick_cols(b), rows = n + 1 + (int64_t)(draw(b) % 5);
    real *src = values(b, rows * cols), *dst = values(b, rows * cols);
    int32_t *dst_row = coin(b) ? permutation(b, n, rows) : NULL;
    int32_t *src_row = coin(b) ? integers(b, n, rows) : NULL;
    b->k->copy_rows(b->k->ctx, n, cols, dst, dst_row, src, src_row);
}

/* ---- matrix products ---- */

static void case_gemm(bench *b) {
    gemm_form form = (gemm_form)(draw(b) % 3);
    int64_t m = pick_rows(b), n = PICK(b, 0, 1, 5, 16, 31, 32, 33, 48, 65, 130, 257);
    int64_t k = PICK(b, 0, 1, 2, 7, 64, 255, 256, 257, 300, 513), pad = PICK(b, 0, 0, 3, 16);
    int64_t lda = (form == GEMM_TN ? m : k) + pad, ldb = (form == GEMM_NT ? k : n) + 2 * pad, ldc = n + pad;
    real *a = values(b, (form == GEMM_TN ? k : m) * lda), *w = values(b, (form == GEMM_NT ? n : k) * ldb);
    real *c = values(b, m * ldc), *other = values(b, m * ldc);
    const real *d = (const real *[]){NULL, c, other}[draw(b) % 3];
    (coin(b) ? b->k->gemm : b->k->gemm_float32)(b->k->ctx, form, m, n, k, c, ldc, d, a, lda, w, ldb);
}

enum { SEGMENTS = 12, SEGMENT_EXPERTS = 5 };

/* Segments in order of experts: many experts empty, one expert with everything, or rows of nobody between. */
static int64_t pick_segments(bench *b, segment *s) {
    int64_t row = 0, kind = (int64_t)(draw(b) % 4), favourite = (int64_t)(draw(b) % SEGMENT_EXPERTS);
    for (int64_t i = 0; i < SEGMENTS; i++) {
        int64_t expert = i * SEGMENT_EXPERTS / SEGMENTS;
        int64_t rows = kind == 0 ? 0 : PICK(b, 0, 0, 1, 2, 7, 8, 31, 61, 260);
        if (kind == 1) rows = i == SEGMENTS / 2 ? 300 : 0;
        s[i] = (segment){row, rows, kind == 1 ? favourite : expert};
        row += rows + (kind == 2 ? (int64_t)(draw(b) % 3) : 0);
    }
    return row;
}

static void case_grouped_gemm(bench *b) {
    segment s[SEGMENTS];
    gemm_form form = coin(b) ? GEMM_NT : GEMM_NN;
    int64_t rows = pick_segments(b, s), n = pick_cols(b), k = PICK(b, 1, 8, 33, 64, 256, 300);
    int64_t stride = n * k + PICK(b, 0, 17), count = PICK(b, 0, 1, SEGMENTS, SEGMENTS);
    real *a = values(b, rows * k), *w = values(b, SEGMENT_EXPERTS * stride), *c = values(b, rows * n);
    b->k->grouped_gemm(b->k->ctx, form, count, s, n, k, c, a, w, stride);
}

static void case_grouped_gemm_dw(bench *b) {
    segment s[SEGMENTS];
    int64_t rows = pick_segments(b, s), m = pick_cols(b), n = PICK(b, 1, 7, 16, 33, 64, 130);
    int64_t stride = m * n + PICK(b, 0, 17), count = PICK(b, 0, 1, SEGMENTS, SEGMENTS);
    real *x = values(b, rows * m), *y = values(b, rows * n), *dw = values(b, SEGMENT_EXPERTS * stride);
    b->k->grouped_gemm_dw(b->k->ctx, count, s, m, n, dw, stride, x, y);
}

/* ---- norm and RoPE ---- */

static void case_rms_norm(bench *b) {
    int64_t rows = pick_rows(b), cols = pick_cols(b), ldx = cols + PICK(b, 0, 5),
            ldy = cols + PICK(b, 0, 16, 3);
    int64_t lddx = cols + PICK(b, 0, 7);
    double size = coin(b) ? 1 : 1e-3, scale = coin(b) ? 1 : 3.46;
    real *x = scaled(b, rows * ldx, size), *w = values(b, cols), *y = values(b, rows * ldy),
         *rstd = values(b, rows);
    real *dx = values(b, rows * lddx), *other = values(b, rows * lddx), *dw = values(b, cols);
    b->k->rms_norm_forward(b->k->ctx, rows, cols, 1e-5, scale, y, ldy, rstd, x, ldx, w);
    const real *d = (const real *[]){NULL, dx, other}[draw(b) % 3];
    b->k->rms_norm_backward(b->k->ctx, rows, cols, scale, dx, lddx, d, dw, coin(b), y, ldy, x, ldx, rstd, w);
}

static void case_rope(bench *b) {
    int64_t seq = PICK(b, 1, 3, 64, 150), rows = seq * PICK(b, 0, 1, 2), heads = PICK(b, 1, 2, 5);
    int64_t pairs = PICK(b, 1, 2, 3, 4, 8, 11, 32), stride = 2 * pairs + PICK(b, 0, 1, 16);
    int64_t ld = heads * stride + PICK(b, 0, 9);
    real *x = values(b, rows * ld), *cosine = values(b, seq * pairs), *sine = values(b, seq * pairs);
    b->k->rope(b->k->ctx, rows, seq, heads, pairs, coin(b), x, ld, stride, cosine, sine);
}

/* ---- attention ---- */

/* Documents that start at random rows; one in three cases has none. */
static int32_t *pick_first_key(bench *b, int64_t batch, int64_t seq) {
    if (draw(b) % 3 == 0) return NULL;
    int32_t *first = buffer(b, batch * seq, sizeof *first);
    uint64_t often = 2 + draw(b) % 80;
    for (int64_t r = 0; r < batch * seq; r++)
        first[r] = r % seq == 0 ? 0 : draw(b) % often == 0 ? (int32_t)(r % seq) : first[r - 1];
    return first;
}

static void case_attention(bench *b) {
    attention_shape s = {.batch = PICK(b, 0, 1, 2),
                         .seq = PICK(b, 1, 2, 15, 16, 17, 63, 64, 65, 100, 130, 193),
                         .heads = PICK(b, 1, 2, 3),
                         .nope = PICK(b, 1, 4, 8, 16, 17, 32),
                         .rope = PICK(b, 2, 4, 8, 16),
                         .v = PICK(b, 1, 8, 16, 20, 32)};
    int64_t t = s.batch * s.seq, width_q = s.heads * (s.nope + s.rope), width_kv = s.heads * (s.nope + s.v);
    int64_t ld_k = s.rope + PICK(b, 0, 5), ld_dk = s.rope + PICK(b, 0, 3);
    double size = coin(b) ? 1 : 6; /* flat, and with single keys that take nearly all */
    real *q = scaled(b, t * width_q, size), *kv = values(b, t * width_kv), *k_rope = values(b, t * ld_k);
    real *o = values(b, t * s.heads * s.v), *lse = values(b, t * s.heads),
         *d_o = values(b, t * s.heads * s.v);
    real *dq = values(b, t * width_q), *dkv = values(b, t * width_kv), *dk_rope = values(b, t * ld_dk);
    const int32_t *first = pick_first_key(b, s.batch, s.seq);
    b->k->attention_forward(b->k->ctx, s, o, lse, q, kv, k_rope, ld_k, first);
    b->k->attention_backward(b->k->ctx, s, dq, dkv, dk_rope, ld_dk, d_o, o, lse, q, kv, k_rope, ld_k, first);
}

/* ---- SwiGLU and embedding ---- */

static void case_swiglu(bench *b) {
    segment s[SEGMENTS];
    int64_t rows = pick_segments(b, s), count = PICK(b, 0, 1, SEGMENTS, SEGMENTS), f = pick_cols(b);
    if (coin(b)) rows = s[0].rows = pick_rows(b), s[0].row = 0, count = 1;
    real *gu = scaled(b, rows * 2 * f, PICK(b, 1, 10, 120)), *h = values(b, rows * f),
         *dh = values(b, rows * f);
    real *dgu = values(b, rows * 2 * f), *dweight = coin(b) ? values(b, rows) : NULL;
    real *weight = coin(b) ? values(b, rows) : NULL;
    b->k->swiglu_forward(b->k->ctx, count, s, f, h, gu);
    b->k->swiglu_backward(b->k->ctx, count, s, f, dgu, h, dweight, dh, gu, weight);
}

static void case_embedding(bench *b) {
    int64_t rows = pick_rows(b), h = pick_cols(b), vocab = PICK(b, 1, 7, 500);
    real *w = values(b, vocab * h), *x = values(b, rows * h);
    int32_t *ids = integers(b, rows, vocab);
    b->k->embedding_forward(b->k->ctx, rows, h, x, w, ids);
    b->k->embedding_backward(b->k->ctx, rows, h, w, x, ids);
}

/* ---- router and combine ---- */

static void case_router(bench *b) {
    router_shape s = {pick_rows(b), PICK(b, 1, 4, 16, 33, 256), PICK(b, 0, 1, 8, 20), 1, coin(b) ? 1 : 6.1};
    int64_t experts = s.ffn_experts + s.zero_experts, n = s.tokens * experts;
    s.topk = 1 + (int64_t)(draw(b) % (uint64_t)(experts < 12 ? experts : 12));
    real *logits = scaled(b, n, PICK(b, 1, 10, 80)), *bias = scaled(b, experts, coin(b) ? 0 : 0.05);
    for (int64_t i = 0, ties = coin(b); ties && i < n; i++) logits[i] = (real)rint(logits[i]);
    real *prob = values(b, n), *weight = values(b, s.tokens * s.topk), *prob_sum = values(b, experts);
    int32_t *index = integers(b, s.tokens * s.topk, 1000);
    int64_t *count = buffer(b, experts, sizeof *count);
    b->k->router_forward(b->k->ctx, s, prob, index, weight, count, prob_sum, logits, bias);
    real *dweight = values(b, s.tokens * s.topk), *lb_grad = values(b, experts);
    real *dlogits = values(b, n), *dprob_sum = values(b, experts);
    b->k->router_backward(b->k->ctx, s, dlogits, dprob_sum, dweight, prob, index, lb_grad);
}

static void combine(bench *b, int64_t tokens, int64_t h, int64_t topk, const int32_t *row_of) {
    int64_t slots = tokens * topk;
    real *out = values(b, tokens * h), *rows = values(b, slots * h), *weight = values(b, slots);
    real *y = values(b, tokens * h), *dy = values(b, tokens * h), *dweight = values(b, slots);
    real *dw_rows = values(b, slots);
    b->k->combine_forward(b->k->ctx, tokens, h, topk, out, rows, row_of, weight, y);
    b->k->combine_backward(b->k->ctx, tokens, h, topk, dy, dweight, out, rows, dw_rows, row_of, weight, y);
}

static void case_combine(bench *b) {
    int64_t tokens = pick_rows(b), h = pick_cols(b), topk = PICK(b, 1, 2, 5, 12), slots = tokens * topk;
    uint64_t identity = draw(b) % 3; /* no slot, half of them, all of them */
    int32_t *row_of = permutation(b, slots, slots > 0 ? slots : 1);
    for (int64_t i = 0; i < slots; i++)
        if (identity == 2 || (identity == 1 && coin(b))) row_of[i] = -1;
    combine(b, tokens, h, topk, row_of);
}

/* ---- losses and optimizer ---- */

static void case_cross_entropy(bench *b) {
    int64_t rows = PICK(b, 0, 1, 3, 17, 128), vocab = PICK(b, 1, 2, 17, 1603, 512, 100);
    real *logits = scaled(b, rows * vocab, PICK(b, 1, 10, 100)), *loss = values(b, rows);
    for (int64_t i = 0, ties = coin(b); ties && i < rows * vocab; i++) logits[i] = (real)rint(logits[i]);
    int32_t *targets = integers(b, rows, vocab), *best = coin(b) ? integers(b, rows, 1000) : NULL;
    for (int64_t i = 0; i < rows; i++)
        if (draw(b) % 4 == 0) targets[i] = -1;
    b->k->cross_entropy(b->k->ctx, rows, vocab, coin(b) ? 0 : 1.0 / 300, loss, best, logits, targets);
}

static void case_hidden_z(bench *b) {
    int64_t rows = pick_rows(b), h = pick_cols(b);
    real *x = scaled(b, rows * h, PICK(b, 1, 30, 200)), *loss = values(b, rows), *sum_sq = values(b, rows);
    real *max_abs = values(b, rows), *dx = coin(b) ? values(b, rows * h) : NULL;
    for (int64_t i = 0; i < rows * h; i += 7) x[i] = 0;
    b->k->hidden_z(b->k->ctx, rows, h, coin(b) ? 0 : 1e-3, loss, sum_sq, max_abs, dx, x);
}

/* Gradients from 1 down to 1e-18, where their squares are near the smallest normal float. */
static void case_adamw(bench *b) {
    int64_t n = PICK(b, 0, 1, 15, 17, 1000, 70001);
    double t = 1 + (double)(draw(b) % 1000), size = pow(10, -(double)(draw(b) % 19));
    adamw_step s = {
        3e-4, 0.9, 0.95, 1e-16, coin(b) ? 0 : 0.1, coin(b) ? 1 : 0.37, 1 - pow(0.9, t), 1 - pow(0.95, t)};
    real *p = values(b, n), *m = scaled(b, n, size), *v = scaled(b, n, size * size), *g = scaled(b, n, size);
    for (int64_t i = 0; i < n; i++) v[i] = (real)fabs(v[i]);
    b->k->adamw(b->k->ctx, n, s, p, m, v, g);
}

static const struct {
    const char *name;
    void (*run)(bench *);
} cases[] = {
    {"memory", case_memory},
    {"copy_rows", case_copy_rows},
    {"gemm", case_gemm},
    {"grouped_gemm", case_grouped_gemm},
    {"grouped_gemm_dw", case_grouped_gemm_dw},
    {"rms_norm", case_rms_norm},
    {"rope", case_rope},
    {"attention", case_attention},
    {"swiglu", case_swiglu},
    {"embedding", case_embedding},
    {"router", case_router},
    {"combine", case_combine},
    {"cross_entropy", case_cross_entropy},
    {"hidden_z", case_hidden_z},
    {"adamw", case_adamw},
};
enum { CASES = sizeof cases / sizeof *cases };

#endif
