/* A row's bits do not depend on the rows beside it: every operation on rows gives the same bits in one call
 * as in several calls that share the rows out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "launch/memory.h"
#include "launch/random.h"
#include "tests/backends.h"

/* W is no multiple of 16; D is longer than one k-block; E experts, K of them chosen. */
enum { R = 190, W = 83, D = 300, E = 25, K = 4, OUTPUTS = 4 };

/* Inputs, and outputs that are poisoned before each run; an operation takes as much of each as it needs. */
typedef struct sheet {
    const kernels *k;
    real *x_RD, *y_RW, *w_DD, *one_R;
    int32_t *ids_RK;
    real *out_RD[OUTPUTS];
    int32_t *index_RK;
} sheet;

static uint64_t seed;

static real *values(int64_t n) {
    real *x = mem_alloc((size_t)n * sizeof *x, "test");
    static uint64_t stream; /* a new one for each buffer */
    stream++;
    for (int64_t i = 0; i < n; i++) x[i] = (real)(2 * random_uniform(seed, stream, (uint64_t)i) - 1);
    return x;
}

static sheet new_sheet(const kernels *k) {
    sheet s = {
        .k = k, .x_RD = values(R * D), .y_RW = values(R * W), .w_DD = values(2 * D * D), .one_R = values(R)};
    s.ids_RK = mem_alloc(R * K * sizeof *s.ids_RK, "test");
    s.index_RK = mem_alloc(R * K * sizeof *s.index_RK, "test");
    for (uint64_t i = 0; i < R * K; i++) s.ids_RK[i] = (int32_t)(random_bits(seed, 99, i) % (R + 1)) - 1;
    for (int i = 0; i < OUTPUTS; i++) s.out_RD[i] = values(R * D);
    return s;
}

static void free_sheet(sheet *s) {
    void *all[] = {s->x_RD, s->y_RW, s->w_DD, s->one_R, s->ids_RK, s->index_RK};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
    for (int i = 0; i < OUTPUTS; i++) mem_free(s->out_RD[i]);
}

/* ---- operations on rows from .. from + n ---- */

typedef void (*rows_operation)(const sheet *s, int64_t from, int64_t n);

static void gemm_nt(const sheet *s, int64_t from, int64_t n) {
    const real *a = s->x_RD + from * D;
    s->k->gemm(s->k->ctx, GEMM_NT, n, W, D, s->out_RD[0] + from * W, W, NULL, a, D, s->w_DD, D);
}

static void gemm_nn(const sheet *s, int64_t from, int64_t n) {
    const real *a = s->x_RD + from * D, *d = s->y_RW + from * W;
    s->k->gemm(s->k->ctx, GEMM_NN, n, W, D, s->out_RD[0] + from * W, W, d, a, D, s->w_DD, W);
}

static void gemm_tn(const sheet *s, int64_t from,
                    int64_t n) { /* a [D,R]: rows of the product are its columns */
    s->k->gemm(s->k->ctx, GEMM_TN, n, W, D, s->out_RD[0] + from * W, W, NULL, s->x_RD + from, R, s->w_DD, W);
}

static void grouped_gemm(const sheet *s, int64_t from, int64_t n) {
    segment one = {from, n, 1};
    s->k->grouped_gemm(s->k->ctx, GEMM_NT, 1, &one, W, D, s->out_RD[0], s->x_RD, s->w_DD, D * W);
    s->k->grouped_gemm(s->k->ctx, GEMM_NN, 1, &one, D, W, s->out_RD[1], s->y_RW, s->w_DD, D * W);
}

static void rms_norm(const sheet *s, int64_t from, int64_t n) {
    real dw[D], *y = s->out_RD[0] + from * D, *rstd = s->out_RD[1] + from, *dx = s->out_RD[2] + from * D;
    const real *x = s->x_RD + from * D, *w = s->w_DD;
    s->k->rms_norm_forward(s->k->ctx, n, D, 1e-5, 1.5, y, D, rstd, x, D, w);
    s->k->rms_norm_backward(s->k->ctx, n, D, 1.5, dx, D, x, dw, 0, y, D, x, D, rstd, w);
}

static void rope(const sheet *s, int64_t from, int64_t n) {
    enum { PAIRS = 41 };
    const real *cosine = s->y_RW + from * PAIRS, *sine = cosine + R * PAIRS;
    s->k->copy(s->k->ctx, n * D, s->out_RD[0] + from * D, s->x_RD + from * D);
    s->k->rope(s->k->ctx, n, n, 3, PAIRS, 0, s->out_RD[0] + from * D, D, 90, cosine, sine);
}

static void swiglu(const sheet *s, int64_t from, int64_t n) {
    const real *gu = s->x_RD + from * 2 * W, *dh = s->y_RW + from * W, *weight = s->one_R + from;
    real *dgu = s->out_RD[1] + from * 2 * W, *h = s->out_RD[2] + from * W, *dweight = s->out_RD[3] + from;
    s->k->swiglu_forward(s->k->ctx, EVERY_ROW(n), W, s->out_RD[0] + from * W, gu);
    s->k->swiglu_backward(s->k->ctx, EVERY_ROW(n), W, dgu, h, dweight, dh, gu, weight);
}

static void router(const sheet *s, int64_t from, int64_t n) {
    router_shape shape = {n, E - 5, 5, K, 2.5};
    int64_t count[E];
    real sum[E], *prob = s->out_RD[0] + from * E, *weight = s->out_RD[1] + from * K;
    int32_t *index = s->index_RK + from * K;
    s->k->router_forward(s->k->ctx, shape, prob, index, weight, count, sum, s->y_RW + from * E, s->one_R);
    s->k->router_backward(s->k->ctx, shape, s->out_RD[2] + from * E, sum, weight, prob, index, s->one_R);
}

static void combine(const sheet *s, int64_t from, int64_t n) {
    const int32_t *row_of = s->ids_RK + from * K;
    const real *weight = s->w_DD + from * K, *y = s->y_RW + from * W, *rows = s->x_RD;
    real *out = s->out_RD[0] + from * W, *dy = s->out_RD[1] + from * W, *dweight = s->out_RD[2] + from * K;
    s->k->zero(s->k->ctx, n * W, out);
    s->k->zero(s->k->ctx, n * W, dy);
    s->k->combine_forward(s->k->ctx, n, W, K, out, rows, row_of, weight, y);
    s->k->combine_backward(s->k->ctx, n, W, K, dy, dweight, out, rows, s->one_R, row_of, weight, y);
}

static void losses(const sheet *s, int64_t from, int64_t n) {
    real *logits = s->out_RD[0] + from * D, *figures = s->out_RD[1] + from, *dx = s->out_RD[2] + from * D;
    const real *x = s->x_RD + from * D;
    s->k->copy(s->k->ctx, n * D, logits, x);
    s->k->copy(s->k->ctx, n * D, dx, x);
    s->k->cross_entropy(s->k->ctx, n, D, 0.1, figures, s->index_RK + from, logits, s->ids_RK + from);
    s->k->hidden_z(s->k->ctx, n, D, 0.1, figures + R, figures + 2 * R, figures + 3 * R, dx, x);
}

/* Rows are sequences of SEQ tokens here. */
enum {
    SEQ = 19,
    HEADS = 2,
    NOPE = 8,
    ROPE = 4,
    VALUE = 12,
    WIDTH_Q = HEADS * (NOPE + ROPE),
    WIDTH_KV = HEADS * (NOPE + VALUE)
};

static void attention(const sheet *s, int64_t from, int64_t n) {
    attention_shape shape = {n / SEQ, SEQ, HEADS, NOPE, ROPE, VALUE, 0};
    const real *q = s->x_RD + from * WIDTH_Q, *kv = s->x_RD + (R + from) * WIDTH_KV,
               *k_rope = s->y_RW + from * ROPE;
    real *o = s->out_RD[0] + from * HEADS * VALUE, *lse = s->out_RD[1] + from * HEADS;
    real *dq = s->out_RD[2] + from * WIDTH_Q, *dkv = s->out_RD[2] + R * WIDTH_Q + from * WIDTH_KV;
    real *dk_rope = s->out_RD[3] + from * ROPE;
    const real *d_o = s->y_RW + R * ROPE + from * HEADS * VALUE;
    s->k->attention_forward(s->k->ctx, shape, o, lse, q, kv, k_rope, ROPE, NULL);
    s->k->attention_backward(s->k->ctx, shape, dq, dkv, dk_rope, ROPE, d_o, o, lse, q, kv, k_rope, ROPE,
                             NULL);
}

static const struct {
    const char *name;
    rows_operation run;
    int64_t unit; /* rows that stay together */
} operations[] = {{"gemm NT", gemm_nt, 1},      {"gemm NN", gemm_nn, 1},
                  {"gemm TN", gemm_tn, 1},      {"grouped gemm", grouped_gemm, 1},
                  {"rms_norm", rms_norm, 1},    {"rope", rope, 1},
                  {"swiglu", swiglu, 1},        {"router", router, 1},
                  {"combine", combine, 1},      {"losses", losses, 1},
                  {"attention", attention, SEQ}};

/* One call for all rows, and calls for runs of 1, 2, 3, ... rows. */
static void expect_rows_alone(const kernels *k) {
    for (size_t op = 0; op < sizeof operations / sizeof *operations; op++) {
        sheet all = new_sheet(k), parts = all;
        parts.index_RK = mem_alloc(R * K * sizeof *parts.index_RK, "test");
        for (int i = 0; i < OUTPUTS; i++) {
            parts.out_RD[i] = values(R * D);
            memcpy(parts.out_RD[i], all.out_RD[i], R * D * sizeof(real));
        }
        operations[op].run(&all, 0, R);
        int64_t unit = operations[op].unit, n = unit;
        for (int64_t from = 0; from < R; from += n, n += unit) {
            if (n > R - from) n = R - from;
            operations[op].run(&parts, from, n);
        }
        for (int i = 0; i < OUTPUTS; i++)
            if (memcmp(all.out_RD[i], parts.out_RD[i], R * D * sizeof(real)))
                fail_msg("%s: %s, output %d: a row's bits depend on the number of rows", k->name,
                         operations[op].name, i);
        assert_memory_equal(all.index_RK, parts.index_RK, R * K * sizeof *all.index_RK);
        mem_free(parts.index_RK);
        for (int i = 0; i < OUTPUTS; i++) mem_free(parts.out_RD[i]);
        free_sheet(&all);
    }
}

/* Causal: what a row gives does not depend on the rows after it, not even in which block of keys they lie;
 * nor on whether the rows before it are asked for again or only their keys are there. */
static void expect_prefix(const kernels *k) {
    enum { LONG = 190, SHORT = 101 };
    sheet s = new_sheet(k);
    real *q = values(LONG * WIDTH_Q), *kv = values(LONG * WIDTH_KV), *k_rope = values(LONG * ROPE);
    for (int i = 0; i < 2; i++) {
        attention_shape shape = {1, i ? SHORT : LONG, HEADS, NOPE, ROPE, VALUE, 0};
        k->attention_forward(k->ctx, shape, s.out_RD[2 * i], s.out_RD[2 * i + 1], q, kv, k_rope, ROPE, NULL);
    }
    assert_memory_equal(s.out_RD[0], s.out_RD[2], SHORT * HEADS * VALUE * sizeof(real));
    assert_memory_equal(s.out_RD[1], s.out_RD[3], SHORT * HEADS * sizeof(real));
    int32_t first_key[LONG];
    for (int32_t i = 0; i < LONG; i++) first_key[i] = i / 70 * 70;
    for (int masked = 0; masked < 2; masked++) {
        const int32_t *first = masked ? first_key : NULL;
        attention_shape all = {1, LONG, HEADS, NOPE, ROPE, VALUE, 0}, rest = all;
        k->attention_forward(k->ctx, all, s.out_RD[0], s.out_RD[1], q, kv, k_rope, ROPE, first);
        for (rest.past = 1; rest.past < LONG; rest.past += 11) {
            int64_t past = rest.past;
            rest.seq = LONG - past < 3 ? LONG - past : past % 3 + 1;
            rest.seq = past % 2 ? LONG - past : rest.seq;
            /* kv holds rows up to the last query's only */
            k->attention_forward(k->ctx, rest, s.out_RD[2], s.out_RD[3], q + past * WIDTH_Q, kv, k_rope, ROPE,
                                 first ? first + past : NULL);
            assert_memory_equal(s.out_RD[2], s.out_RD[0] + past * HEADS * VALUE,
                                (size_t)(rest.seq * HEADS * VALUE) * sizeof(real));
            assert_memory_equal(s.out_RD[3], s.out_RD[1] + past * HEADS,
                                (size_t)(rest.seq * HEADS) * sizeof(real));
        }
    }
    mem_free(q);
    mem_free(kv);
    mem_free(k_rope);
    free_sheet(&s);
}

/* Sequences that are continued side by side have the bits that each has alone. */
static void expect_continued_alone(const kernels *k) {
    enum { SEQUENCES = 3, PAST = 70, KEYS = PAST + SEQ, OUT = SEQ * HEADS * VALUE };
    real *q = values(SEQUENCES * SEQ * WIDTH_Q), *kv = values(SEQUENCES * KEYS * WIDTH_KV),
         *k_rope = values(SEQUENCES * KEYS * ROPE), *o = values(SEQUENCES * OUT),
         *lse = values(SEQUENCES * SEQ * HEADS), *o_1 = values(OUT), *lse_1 = values(SEQ * HEADS);
    int32_t first[SEQUENCES * SEQ];
    for (int i = 0; i < SEQUENCES * SEQ; i++) first[i] = 9 * (i / SEQ) + i % SEQ / 8;
    attention_shape s = {SEQUENCES, SEQ, HEADS, NOPE, ROPE, VALUE, PAST};
    k->attention_forward(k->ctx, s, o, lse, q, kv, k_rope, ROPE, first);
    s.batch = 1;
    for (int i = 0; i < SEQUENCES; i++) {
        k->attention_forward(k->ctx, s, o_1, lse_1, q + i * SEQ * WIDTH_Q, kv + i * KEYS * WIDTH_KV,
                             k_rope + i * KEYS * ROPE, ROPE, first + i * SEQ);
        assert_memory_equal(o_1, o + i * OUT, OUT * sizeof *o);
        assert_memory_equal(lse_1, lse + i * SEQ * HEADS, SEQ * HEADS * sizeof *lse);
    }
    real *all[] = {q, kv, k_rope, o, lse, o_1, lse_1};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
}

static void test_rows(const char *isa, kernels_dtype dtype) {
    for (int threads = 1; threads <= 2; threads++) {
        kernels k;
        if (!backend_open(&k, "cpu", isa, threads, dtype)) return;
        expect_rows_alone(&k);
        expect_prefix(&k);
        expect_continued_alone(&k);
        kernels_close(&k);
    }
}

static void test_avx2(void **state) {
    (void)state;
    test_rows("avx2", DTYPE_FLOAT32);
}

static void test_avx512(void **state) {
    (void)state;
    test_rows("avx512", DTYPE_FLOAT32);
}

static void test_bf16(void **state) {
    (void)state;
    test_rows("avx2", DTYPE_BF16);
    test_rows("avx512", DTYPE_BF16);
}

int main(void) {
    const char *again = getenv("CARACAL_TEST_SEED");
    if (again) seed = strtoull(again, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != sizeof seed) return 1;
    print_message("the same inputs again: CARACAL_TEST_SEED=%#lx\n", (unsigned long)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_avx2), cmocka_unit_test(test_avx512),
                                       cmocka_unit_test(test_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
