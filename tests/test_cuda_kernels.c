/* The cuda backend's operations against ref, and against themselves: in whatever order blocks, warps and
 * lanes run, the bits are the same.  On the emulator; in build/cuda on the device, which orders things as it
 * likes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/emulate/block.h"
#include "tests/emulate/emulate.h"
#include "tests/kernel_cases.h"

enum { ROUNDS = 25, WIDE_ROUNDS = 12 }; /* shapes of each operation */

static uint64_t base_seed;

/* ---- rows so wide that several warps share one: the other cases' rows fit one warp ---- */

static void wide_norm(bench *b) {
    int64_t rows = PICK(b, 1, 5, 9), cols = PICK(b, 513, 768, 1000, 1025, 2048, 3000, 6144, 8195, 16384);
    int64_t ld = cols + PICK(b, 0, 0, 4, 3);
    real *x = values(b, rows * ld), *w = values(b, cols), *y = values(b, rows * ld), *rstd = values(b, rows);
    real *dx = values(b, rows * ld), *dw = values(b, cols), *dy = values(b, rows * ld);
    b->k->rms_norm_forward(b->k->ctx, rows, cols, 1e-6, 1, y, ld, rstd, x, ld, w);
    b->k->rms_norm_backward(b->k->ctx, rows, cols, 1, dx, ld, coin(b) ? dx : NULL, dw, coin(b), dy, ld, x, ld,
                            rstd, w);
}

static void wide_hidden_z(bench *b) {
    int64_t rows = PICK(b, 1, 3, 6), h = PICK(b, 513, 768, 1200, 3000, 6144, 16384);
    real *x = scaled(b, rows * h, 30), *loss = values(b, rows), *sum_sq = values(b, rows);
    real *max_abs = values(b, rows), *dx = values(b, rows * h);
    b->k->hidden_z(b->k->ctx, rows, h, 1e-3, loss, sum_sq, max_abs, dx, x);
}

static void wide_cross_entropy(bench *b) {
    int64_t rows = PICK(b, 1, 2, 5), vocab = PICK(b, 4096, 4097, 20000, 70001);
    real *logits = scaled(b, rows * vocab, PICK(b, 1, 10)), *loss = values(b, rows);
    int32_t *targets = integers(b, rows, vocab), *best = coin(b) ? integers(b, rows, 1000) : NULL;
    if (coin(b)) targets[0] = -1;
    b->k->cross_entropy(b->k->ctx, rows, vocab, coin(b) ? 0 : 1.0 / 300, loss, best, logits, targets);
}

static void wide_swiglu(bench *b) {
    int64_t rows = PICK(b, 1, 2, 5), f = PICK(b, 1025, 2048, 5001);
    real *gu = scaled(b, rows * 2 * f, 4), *h = values(b, rows * f), *dh = values(b, rows * f);
    real *dgu = values(b, rows * 2 * f), *dweight = values(b, rows),
         *weight = coin(b) ? values(b, rows) : NULL;
    b->k->swiglu_forward(b->k->ctx, EVERY_ROW(rows), f, h, gu);
    b->k->swiglu_backward(b->k->ctx, EVERY_ROW(rows), f, dgu, h, dweight, dh, gu, weight);
}

/* More runs of rows than one launch lists. */
static void scattered_swiglu(bench *b) {
    enum { MANY = 300 };
    segment s[MANY];
    int64_t rows = 0, f = PICK(b, 3, 8, 20);
    for (int64_t i = 0; i < MANY; i++) {
        s[i] = (segment){rows, PICK(b, 0, 1, 1, 2), 0};
        rows += s[i].rows + PICK(b, 0, 1, 1, 1);
    }
    real *gu = scaled(b, rows * 2 * f, 4), *h = values(b, rows * f), *dh = values(b, rows * f);
    real *dgu = values(b, rows * 2 * f), *dweight = values(b, rows), *weight = values(b, rows);
    b->k->swiglu_forward(b->k->ctx, MANY, s, f, h, gu);
    b->k->swiglu_backward(b->k->ctx, MANY, s, f, dgu, h, dweight, dh, gu, weight);
}

static void wide_combine(bench *b) {
    int64_t tokens = PICK(b, 1, 3, 6), h = PICK(b, 770, 1025, 3001, 6144), topk = 4, slots = tokens * topk;
    int32_t *row_of = permutation(b, slots, slots);
    for (int64_t i = 0; i < slots; i++)
        if (draw(b) % 3 == 0) row_of[i] = -1;
    combine(b, tokens, h, topk, row_of);
}

static void wide_router(bench *b) {
    router_shape s = {PICK(b, 1, 33, 70), PICK(b, 512, 900), 256, 12, 6};
    int64_t experts = s.ffn_experts + s.zero_experts, n = s.tokens * experts;
    real *logits = scaled(b, n, 10), *bias = scaled(b, experts, 0.05), *prob = values(b, n);
    real *weight = values(b, s.tokens * s.topk), *prob_sum = values(b, experts),
         *lb_grad = values(b, experts);
    real *dweight = values(b, s.tokens * s.topk), *dlogits = values(b, n), *dprob_sum = values(b, experts);
    int32_t *index = integers(b, s.tokens * s.topk, 1000);
    int64_t *count = buffer(b, experts, sizeof *count);
    b->k->router_forward(b->k->ctx, s, prob, index, weight, count, prob_sum, logits, bias);
    b->k->router_backward(b->k->ctx, s, dlogits, dprob_sum, dweight, prob, index, lb_grad);
}

/* ---- all of them ---- */

typedef struct test_case {
    const char *name;
    void (*run)(bench *);
    uint64_t rounds;
} test_case;

/* Matrix products and attention have a test of their own. */
static const test_case tried[] = {
    {"memory", case_memory, ROUNDS},
    {"copy_rows", case_copy_rows, ROUNDS},
    {"rms_norm", case_rms_norm, ROUNDS},
    {"rope", case_rope, ROUNDS},
    {"swiglu", case_swiglu, ROUNDS},
    {"embedding", case_embedding, ROUNDS},
    {"router", case_router, ROUNDS},
    {"combine", case_combine, ROUNDS},
    {"cross_entropy", case_cross_entropy, ROUNDS},
    {"hidden_z", case_hidden_z, ROUNDS},
    {"adamw", case_adamw, ROUNDS},
    {"wide rms_norm", wide_norm, WIDE_ROUNDS},
    {"wide hidden_z", wide_hidden_z, WIDE_ROUNDS},
    {"wide cross_entropy", wide_cross_entropy, WIDE_ROUNDS},
    {"wide swiglu", wide_swiglu, WIDE_ROUNDS},
    {"scattered swiglu", scattered_swiglu, WIDE_ROUNDS},
    {"wide combine", wide_combine, WIDE_ROUNDS},
    {"wide router", wide_router, WIDE_ROUNDS},
};
enum { TRIED = sizeof tried / sizeof *tried };

/* The cases' memory is the host's: "check:" says so, for a copy from there to there has to wait for the
 * stream. */
static kernels open_cuda(void) {
    kernels_config c = {.device = "check:cuda", .isa = "auto", .threads = 1};
    kernels k;
    error e;
    if (kernels_cuda(&k, &c, &e)) fail_msg("%s", e.text);
    return k;
}

static bench new_bench(void) {
    return (bench){.block = block_alloc(BLOCK_BYTES)};
}

static void test_against_ref(void **state) {
    (void)state;
    kernels inner = open_cuda(), k;
    kernels_check(&k, &inner, 2);
    bench b = new_bench();
    for (int c = 0; c < TRIED; c++) {
        for (uint64_t round = 0; round < tried[c].rounds; round++) {
            begin_case(&b, &k, base_seed + round);
            tried[c].run(&b);
            if (!guards_hold(&b))
                fail_msg("round %d: %s wrote outside its outputs", (int)round, tried[c].name);
        }
    }
    block_free(b.block);
    kernels_close(&k);
}

static void test_same_bits_in_any_order(void **state) {
    (void)state;
    kernels k = open_cuda();
    bench first = new_bench(), b = new_bench();
    for (int c = 0; c < TRIED; c++) {
        for (uint64_t round = 0; round < tried[c].rounds; round++) {
            begin_case(&first, &k, base_seed + round);
            tried[c].run(&first);
            k.to_host(k.ctx, NULL, NULL, 0); /* waits */
            for (emulate_order order = EMULATE_REVERSED; order <= EMULATE_SHUFFLED; order++) {
                emulate_set_order(order, base_seed + round);
                begin_case(&b, &k, base_seed + round);
                tried[c].run(&b);
                k.to_host(k.ctx, NULL, NULL, 0);
                emulate_set_order(EMULATE_FORWARD, 0);
                if (b.used != first.used || memcmp(b.block, first.block, b.used))
                    fail_msg("round %d: %s depends on the order in which threads run", (int)round,
                             tried[c].name);
            }
        }
    }
    block_free(first.block);
    block_free(b.block);
    kernels_close(&k);
}

/* Moments that remember nothing are the gradient's, however far it is below them. */
static void test_adamw_forgets(void **state) {
    (void)state;
    enum { N = 5 };
    kernels k = open_cuda();
    bench b = new_bench();
    begin_case(&b, &k, base_seed);
    real *p = values(&b, N), *m = values(&b, N), *v = values(&b, N), *g = values(&b, N);
    for (int i = 0; i < N; i++) m[i] = v[i] = 1, g[i] = 0x1p-30f;
    k.adamw(k.ctx, N, (adamw_step){3e-4, 0, 0, 1e-16, 0.1, 1, 1, 1}, p, m, v, g);
    k.to_host(k.ctx, NULL, NULL, 0);
    for (int i = 0; i < N; i++) assert_true(m[i] == 0x1p-30f && v[i] == 0x1p-60f);
    block_free(b.block);
    kernels_close(&k);
}

/* Experts that may be followed are chosen of probabilities that are no numbers, too: the lowest. */
static void test_router_without_numbers(void **state) {
    (void)state;
    kernels k = open_cuda();
    bench b = new_bench();
    begin_case(&b, &k, base_seed);
    const router_shape s = {2, 40, 3, 3, 1};
    enum { EXPERTS = 43 };
    real *logits = values(&b, 2 * EXPERTS), *bias = scaled(&b, EXPERTS, 0), *prob = values(&b, 2 * EXPERTS);
    real *weight = values(&b, 6), *sum = values(&b, EXPERTS);
    int32_t *index = integers(&b, 6, 1000);
    int64_t *count = buffer(&b, EXPERTS, sizeof *count);
    logits[5] = NAN;
    for (int i = 0; i < EXPERTS; i++) logits[EXPERTS + i] = (real)(i >= 40);
    k.router_forward(k.ctx, s, prob, index, weight, count, sum, logits, bias);
    k.to_host(k.ctx, NULL, NULL, 0);
    const int32_t wanted[] = {0, 1, 2, 40, 41, 42};
    assert_memory_equal(index, wanted, sizeof wanted);
    for (int i = 0; i < EXPERTS; i++) assert_int_equal(count[i], i < 3 || i >= 40);
    assert_true(isnan(weight[0]) && guards_hold(&b));
    block_free(b.block);
    kernels_close(&k);
}

int main(void) {
    if (!choose_seed(&base_seed)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_ref),
        cmocka_unit_test(test_same_bits_in_any_order),
        cmocka_unit_test(test_adamw_forgets),
        cmocka_unit_test(test_router_without_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
