/* Matrix products and attention of the cuda backend, in both dtypes: against ref, in whatever order blocks,
 * warps and lanes run, and what is promised about bits.  On the emulator; in build/cuda on the device. */
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

#ifdef __SANITIZE_ADDRESS__ /* five times as slow; each run has other inputs */
enum { ROUNDS = 5, ORDER_ROUNDS = 1 };
#else
enum { ROUNDS = 12, ORDER_ROUNDS = 4 };
#endif

static uint64_t base_seed;
static const char *const operations[] = {"gemm", "grouped_gemm", "grouped_gemm_dw", "attention"};
enum { OPERATIONS = sizeof operations / sizeof *operations };

/* Waits until the host may look at what operations have written. */
static void settle(const kernels *k) {
    k->to_host(k->ctx, NULL, NULL, 0);
}

static void run_case(const char *name, bench *b, const kernels *k, uint64_t seed) {
    begin_case(b, k, seed);
    for (int c = 0; c < CASES; c++)
        if (!strcmp(cases[c].name, name)) cases[c].run(b);
    settle(k);
}

static kernels open_cuda(kernels_dtype dtype) {
    kernels_config c = {.device = "cuda", .isa = "auto", .threads = 1, .dtype = dtype};
    kernels k;
    error e;
    if (kernels_cuda(&k, &c, &e)) fail_msg("%s", e.text);
    return k;
}

static kernels open_checked(kernels_dtype dtype) {
    kernels inner = open_cuda(dtype), k;
    kernels_check(&k, &inner, 2);
    return k;
}

static bench new_bench(void) {
    return (bench){.block = block_alloc(BLOCK_BYTES)};
}

static void expect_equal(const char *what, int64_t n, const real *got, const real *want) {
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got))
            fail_msg("%s[%ld] is %a, not %a", what, (long)i, got[i], want[i]);
}

/* ---- against ref ---- */

static void against_ref(kernels_dtype dtype) {
    kernels k = open_checked(dtype);
    bench b = new_bench();
    for (int i = 0; i < OPERATIONS; i++) {
        for (uint64_t round = 0; round < ROUNDS; round++) {
            run_case(operations[i], &b, &k, base_seed + round);
            if (!guards_hold(&b))
                fail_msg("round %d: %s wrote outside its outputs", (int)round, operations[i]);
        }
    }
    block_free(b.block);
    kernels_close(&k);
}

static void test_float_against_ref(void **state) {
    (void)state;
    against_ref(DTYPE_FLOAT32);
}

static void test_bf16_against_ref(void **state) {
    (void)state;
    against_ref(DTYPE_BF16);
}

/* Forward and backward of one shape; with documents. */
static void attend(const kernels *k, bench *b, attention_shape s) {
    begin_case(b, k, base_seed + 1);
    int64_t t = s.batch * s.seq, q_cols = s.heads * (s.nope + s.rope), kv_cols = s.heads * (s.nope + s.v);
    real *q = scaled(b, t * q_cols, 2), *kv = values(b, t * kv_cols), *k_rope = values(b, t * s.rope);
    real *o = values(b, t * s.heads * s.v), *lse = values(b, t * s.heads),
         *d_o = values(b, t * s.heads * s.v);
    real *dq = values(b, t * q_cols), *dkv = values(b, t * kv_cols), *dk_rope = values(b, t * s.rope);
    int32_t *first = integers(b, t, 1);
    for (int64_t i = 0; i < t; i++) first[i] = i % s.seq >= 70 ? 70 : i % s.seq >= 3 ? 3 : 0;
    k->attention_forward(k->ctx, s, o, lse, q, kv, k_rope, s.rope, first);
    k->attention_backward(k->ctx, s, dq, dkv, dk_rope, s.rope, d_o, o, lse, q, kv, k_rope, s.rope, first);
    settle(k);
    assert_true(guards_hold(b));
}

/* Every width that there are kernels for, and one that only the float kernels have. */
static void test_head_widths(void **state) {
    (void)state;
    static const attention_shape shape[] = {
        {1, 140, 2, 32, 32, 64, 0}, {1, 131, 1, 64, 32, 64, 0},   {1, 65, 2, 64, 64, 128, 0},
        {1, 129, 1, 65, 30, 97, 0}, {1, 193, 1, 128, 64, 128, 0}, {1, 33, 1, 200, 56, 130, 0},
    };
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_checked(dtype);
        bench b = new_bench();
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) attend(&k, &b, shape[i]);
        block_free(b.block);
        kernels_close(&k);
    }
}

/* What comes before a document has the bits that it has without it: of queries that see only some of a
 * block's keys, nothing is added. */
static void test_documents_stand_alone(void **state) {
    (void)state;
    enum {
        WHOLE = 140,
        PART = 130,
        HEADS = 2,
        NOPE = 20,
        ROPE = 12,
        V = 24,
        Q = 32 * HEADS,
        KV = 44 * HEADS
    };
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_cuda(dtype);
        bench b = new_bench();
        begin_case(&b, &k, base_seed);
        real *q = scaled(&b, WHOLE * Q, 2), *kv = values(&b, WHOLE * KV), *k_rope = values(&b, WHOLE * ROPE);
        real *o = values(&b, WHOLE * HEADS * V), *lse = values(&b, WHOLE * HEADS),
             *d_o = values(&b, WHOLE * HEADS * V);
        real *dq[2], *dkv[2], *dk_rope[2];
        int32_t *first = integers(&b, WHOLE, 1);
        for (int i = 0; i < WHOLE; i++) first[i] = i < 70 ? 0 : i < PART ? 70 : PART;
        for (int i = 0; i < 2; i++) {
            attention_shape s = {1, i ? PART : WHOLE, HEADS, NOPE, ROPE, V, 0};
            dq[i] = values(&b, WHOLE * Q), dkv[i] = values(&b, WHOLE * KV);
            dk_rope[i] = values(&b, WHOLE * ROPE);
            k.attention_forward(k.ctx, s, o, lse, q, kv, k_rope, ROPE, first);
            k.attention_backward(k.ctx, s, dq[i], dkv[i], dk_rope[i], ROPE, d_o, o, lse, q, kv, k_rope, ROPE,
                                 first);
        }
        settle(&k);
        expect_equal("dq", PART * Q, dq[1], dq[0]);
        expect_equal("dkv", PART * KV, dkv[1], dkv[0]);
        expect_equal("dk_rope", PART * ROPE, dk_rope[1], dk_rope[0]);
        kernels_close(&k);
        block_free(b.block);
    }
}

/* Tiles of every width, more steps than the ring has places, rows that end inside a tile. */
static void test_large_products(void **state) {
    (void)state;
    static const int64_t shape[][3] = {
        {140, 260, 520}, {129, 128, 330}, {300, 513, 64}, {64, 300, 9}}; /* rows n k */
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_checked(dtype);
        bench b = new_bench();
        for (int i = 0; i < 4; i++) {
            int64_t rows = shape[i][0], n = shape[i][1], depth = shape[i][2];
            segment s[] = {{0, rows, 1}, {rows, 0, 1}, {rows, 70, 2}, {rows + 70, 1, 0}, {rows + 71, 300, 0}};
            int64_t total = rows + 371;
            begin_case(&b, &k, base_seed);
            real *a = values(&b, total * depth), *w = values(&b, 3 * n * depth), *c = values(&b, total * n);
            k.grouped_gemm(k.ctx, GEMM_NT, 5, s, n, depth, c, a, w, n * depth);
            k.grouped_gemm(k.ctx, GEMM_NN, 5, s, n, depth, c, a, w, n * depth);
            k.grouped_gemm_dw(k.ctx, 5, s, n, depth, w, n * depth, c, a); /* expert 0 comes after 2 */
            k.gemm(k.ctx, GEMM_NT, total, n, depth, c, n, c, a, depth, w, depth);
            k.gemm(k.ctx, GEMM_NN, total, n, depth, c, n, NULL, a, depth, w, n);
            k.gemm(k.ctx, GEMM_TN, n, depth, total, w, depth, w, c, n, a, depth);
            settle(&k);
            assert_true(guards_hold(&b));
        }
        block_free(b.block);
        kernels_close(&k);
    }
}

/* Fragments of operands are read from all banks of shared memory at a time. */
static void test_banks(void **state) {
    (void)state;
    kernels k = open_cuda(DTYPE_BF16);
    bench b = new_bench();
    emulate_figures_reset();
    attend(&k, &b, (attention_shape){1, 140, 1, 128, 64, 128, 0});
    attend(&k, &b, (attention_shape){1, 140, 1, 64, 32, 64, 0});
    begin_case(&b, &k, base_seed);
    real *a = values(&b, 140 * 300), *w = values(&b, 300 * 300), *c = values(&b, 140 * 300);
    const segment s[] = {{0, 140, 0}};
    k.grouped_gemm(k.ctx, GEMM_NT, 1, s, 300, 300, c, a, w, 0);
    k.grouped_gemm(k.ctx, GEMM_NN, 1, s, 300, 300, c, a, w, 0);
    k.grouped_gemm_dw(k.ctx, 1, s, 300, 300, w, 0, a, c);
    settle(&k);
    if (emulate_figures()->what) assert_true(emulate_times("ldmatrix") > 0); /* not on a device */
    assert_int_equal(emulate_times("conflict of banks"), 0);
    block_free(b.block);
    kernels_close(&k);
}

/* ---- bits ---- */

static void test_same_bits_in_any_order(void **state) {
    (void)state;
    bench first = new_bench(), b = new_bench();
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_cuda(dtype);
        for (int i = 0; i < OPERATIONS; i++) {
            for (uint64_t round = 0; round < ORDER_ROUNDS; round++) {
                run_case(operations[i], &first, &k, base_seed + round);
                for (emulate_order order = EMULATE_REVERSED; order <= EMULATE_SHUFFLED; order++) {
                    emulate_set_order(order, base_seed + round);
                    run_case(operations[i], &b, &k, base_seed + round);
                    emulate_set_order(EMULATE_FORWARD, 0);
                    if (b.used != first.used || memcmp(b.block, first.block, b.used))
                        fail_msg("round %d: %s depends on the order in which threads run", (int)round,
                                 operations[i]);
                }
            }
        }
        kernels_close(&k);
    }
    block_free(first.block);
    block_free(b.block);
}

/* Products in float32 are made in the order that kernels.h promises, and so have the cpu backend's bits. */
static void test_float_products_are_the_cpus(void **state) {
    (void)state;
    kernels cuda = open_cuda(DTYPE_FLOAT32), cpu;
    kernels_cpu_avx2(&cpu, 1, DTYPE_FLOAT32);
    bench on_cuda = new_bench(), on_cpu = new_bench();
    for (int i = 0; i < 3; i++) {
        for (uint64_t round = 0; round < ROUNDS; round++) {
            run_case(operations[i], &on_cuda, &cuda, base_seed + round);
            run_case(operations[i], &on_cpu, &cpu, base_seed + round);
            if (memcmp(on_cuda.block, on_cpu.block, on_cpu.used))
                fail_msg("round %d: %s has other bits than on the cpu", (int)round, operations[i]);
        }
    }
    kernels_close(&cuda);
    kernels_close(&cpu);
    block_free(on_cuda.block);
    block_free(on_cpu.block);
}

/* Text that is continued has the bits of text that was there from the start. */
static void test_past(void **state) {
    (void)state;
    enum { SEQ = 150, HEADS = 2, NOPE = 20, ROPE = 12, V = 24, QK = NOPE + ROPE };
    static const int64_t pasts[] = {1, 64, 100, 149};
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_cuda(dtype);
        bench b = new_bench();
        begin_case(&b, &k, base_seed);
        real *q = scaled(&b, SEQ * HEADS * QK, 3), *kv = values(&b, SEQ * HEADS * (NOPE + V)),
             *k_rope = values(&b, SEQ * ROPE);
        real *o = values(&b, SEQ * HEADS * V), *lse = values(&b, SEQ * HEADS),
             *again = values(&b, SEQ * HEADS * V), *lse_again = values(&b, SEQ * HEADS);
        int32_t *first = integers(&b, SEQ, 1);
        for (int i = 0; i < SEQ; i++) first[i] = i < 30 ? 0 : i < 90 ? 30 : 90;
        k.attention_forward(k.ctx, (attention_shape){1, SEQ, HEADS, NOPE, ROPE, V, 0}, o, lse, q, kv, k_rope,
                            ROPE, first);
        for (int i = 0; i < 4; i++) {
            int64_t past = pasts[i], rows = SEQ - past;
            k.attention_forward(k.ctx, (attention_shape){1, rows, HEADS, NOPE, ROPE, V, past}, again,
                                lse_again, q + past * HEADS * QK, kv, k_rope, ROPE, first + past);
            settle(&k);
            expect_equal("o", rows * HEADS * V, again, o + past * HEADS * V);
            expect_equal("lse", rows * HEADS, lse_again, lse + past * HEADS);
        }
        kernels_close(&k);
        block_free(b.block);
    }
}

/* Weight gradients: rows that arrive in rounds, which end at multiples of GEMM_K_BLOCK, or with another
 * micro-batch in the same call, give the bits of one call after another. */
static void test_gradients_in_rounds(void **state) {
    (void)state;
    enum { ROWS = 700, M = 70, N = 40, EXPERTS = 2 };
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_cuda(dtype);
        bench b = new_bench();
        begin_case(&b, &k, base_seed);
        real *x = values(&b, ROWS * M), *y = values(&b, ROWS * N), *dw = values(&b, EXPERTS * M * N);
        real *again = values(&b, EXPERTS * M * N);
        memcpy(again, dw, sizeof *dw * EXPERTS * M * N);
        const segment whole[] = {{0, 600, 0}, {600, 50, 0}, {650, 50, 1}};
        const segment first[] = {{0, 256, 0}}, second[] = {{256, 256, 0}, {650, 50, 1}},
                      third[] = {{512, 88, 0}}, fourth[] = {{600, 50, 0}};
        k.grouped_gemm_dw(k.ctx, 3, whole, M, N, dw, M * N, x, y);
        k.grouped_gemm_dw(k.ctx, 1, first, M, N, again, M * N, x, y);
        k.grouped_gemm_dw(k.ctx, 2, second, M, N, again, M * N, x, y);
        k.grouped_gemm_dw(k.ctx, 1, third, M, N, again, M * N, x, y);
        k.grouped_gemm_dw(k.ctx, 1, fourth, M, N, again, M * N, x, y);
        settle(&k);
        expect_equal("dw", EXPERTS * M * N, again, dw);
        segment many[ROWS / 5]; /* a list that no launch has room for, and the same in parts */
        for (int i = 0; i < ROWS / 5; i++) many[i] = (segment){5 * i, 5, i / (ROWS / 10)};
        k.grouped_gemm_dw(k.ctx, ROWS / 5, many, M, N, dw, M * N, x, y);
        for (int i = 0; i < ROWS / 5; i += 35)
            k.grouped_gemm_dw(k.ctx, 35, many + i, M, N, again, M * N, x, y);
        settle(&k);
        expect_equal("dw", EXPERTS * M * N, again, dw);
        kernels_close(&k);
        block_free(b.block);
    }
}

/* An expert's rows do not depend on how many come with them, nor on what other experts get. */
static void test_rows_stand_alone(void **state) {
    (void)state;
    enum { ROWS = 150, N = 140, K = 300, SHORT = 40 };
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_cuda(dtype);
        bench b = new_bench();
        begin_case(&b, &k, base_seed);
        real *a = values(&b, ROWS * K), *w = values(&b, 2 * N * K), *c = values(&b, ROWS * N),
             *again = values(&b, ROWS * N);
        const segment all[] = {{0, 10, 0}, {10, 140, 1}},
                      cut[] = {{0, 10, 0}, {10, 1, 1}, {11, 68, 1}, {79, 71, 1}};
        k.grouped_gemm(k.ctx, GEMM_NT, 2, all, N, K, c, a, w, N * K);
        for (int i = 0; i < 4; i++) k.grouped_gemm(k.ctx, GEMM_NT, 1, &cut[i], N, K, again, a, w, N * K);
        settle(&k);
        expect_equal("c", ROWS * N, again, c);
        segment each[ROWS]; /* a list that no launch has room for: of short rows, each costs a tile */
        for (int i = 0; i < ROWS; i++) each[i] = (segment){i, 1, i >= 10};
        for (int i = 0; i < ROWS * N; i++) again[i] = 0;
        k.grouped_gemm(k.ctx, GEMM_NT, 2, all, N, SHORT, c, a, w, N * SHORT);
        k.grouped_gemm(k.ctx, GEMM_NT, ROWS, each, N, SHORT, again, a, w, N * SHORT);
        settle(&k);
        expect_equal("c", ROWS * N, again, c);
        kernels_close(&k);
        block_free(b.block);
    }
}

/* Products of what is held have the bits of products that round their operands, whatever alignment the
 * matrices have, and nothing remembers what was held before. */
static void test_held_operands(void **state) {
    (void)state;
    enum { ROWS = 20, N = 24, K = 32, EXPERTS = 3, ALL = 4096 };
    static const int64_t offsets[] = {0, 8, 3};
    kernels k = open_cuda(DTYPE_BF16);
    bench b = new_bench();
    begin_case(&b, &k, base_seed);
    real *weights = values(&b, ALL), *a = values(&b, ROWS * K), *c = values(&b, ROWS * N),
         *again = values(&b, ROWS * N);
    const segment s[] = {{0, 7, 0}, {7, 13, 2}};
    for (int i = 0; i < 3; i++) {
        const real *w = weights + offsets[i];
        for (gemm_form form = GEMM_NT; form <= GEMM_NN; form++) {
            k.gemm(k.ctx, form, ROWS, N, K, c, N, NULL, a, K, w, form == GEMM_NT ? K : N);
            k.hold(k.ctx, ALL, weights);
            k.gemm(k.ctx, form, ROWS, N, K, again, N, NULL, a, K, w, form == GEMM_NT ? K : N);
            k.hold(k.ctx, 0, NULL);
            settle(&k);
            expect_equal("gemm", ROWS * N, again, c);
            k.grouped_gemm(k.ctx, form, 2, s, N, K, c, a, w, N * K + 8);
            k.hold(k.ctx, ALL, weights);
            k.grouped_gemm(k.ctx, form, 2, s, N, K, again, a, w, N * K + 8);
            settle(&k);
            expect_equal("grouped_gemm", ROWS * N, again, c);
            for (int j = 0; j < ALL; j++) weights[j] *= 1.5f; /* an update */
            k.hold(k.ctx, 0, NULL);
            k.grouped_gemm(k.ctx, form, 2, s, N, K, again, a, w, N * K + 8);
            settle(&k);
            for (int j = 0; j < ROWS * N; j++)
                if (c[j] == again[j] && c[j] != 0) fail_msg("a product of weights that were held before");
        }
    }
    kernels_close(&k);
    block_free(b.block);
}

/* ---- how far bf16 is from the exact result of its operands ---- */

static void round_to_bf16(int64_t n, real *x) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        memcpy(&x[i], &bits, sizeof bits);
    }
}

/* ||got - want|| / ||want||, where weights and gradients of scores, rounded themselves, are off by 2^-9. */
static void expect_near(const char *what, int64_t n, const real *got, const real *want) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) fail_msg("%s[%ld] is %g", what, (long)i, got[i]);
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    print_message("%-8s %.2e\n", what, sqrt(error / size));
    if (!(sqrt(error / size) < 0x1p-8)) fail_msg("%s is off by %g", what, sqrt(error / size));
}

static void test_bf16_attention_error(void **state) {
    (void)state;
    static const attention_shape shape[] = {{1, 200, 2, 128, 64, 128, 0}, {2, 100, 1, 64, 32, 64, 0}};
    for (int i = 0; i < 2; i++) {
        attention_shape s = shape[i];
        int64_t t = s.batch * s.seq, q_n = t * s.heads * (s.nope + s.rope),
                kv_n = t * s.heads * (s.nope + s.v), o_n = t * s.heads * s.v, r_n = t * s.rope;
        kernels k = open_cuda(DTYPE_BF16), ref;
        kernels_ref(&ref, 2);
        bench b = new_bench();
        begin_case(&b, &k, base_seed);
        real *q = scaled(&b, q_n, 2), *kv = values(&b, kv_n), *k_rope = values(&b, r_n),
             *d_o = values(&b, o_n);
        real *o = values(&b, o_n), *lse = values(&b, t * s.heads), *dq = values(&b, q_n),
             *dkv = values(&b, kv_n), *dk_rope = values(&b, r_n);
        real *want_o = values(&b, o_n), *want_lse = values(&b, t * s.heads), *want_dq = values(&b, q_n),
             *want_dkv = values(&b, kv_n), *want_dk_rope = values(&b, r_n);
        k.attention_forward(k.ctx, s, o, lse, q, kv, k_rope, s.rope, NULL);
        k.attention_backward(k.ctx, s, dq, dkv, dk_rope, s.rope, d_o, o, lse, q, kv, k_rope, s.rope, NULL);
        settle(&k);
        round_to_bf16(q_n, q), round_to_bf16(kv_n, kv), round_to_bf16(r_n, k_rope), round_to_bf16(o_n, d_o);
        ref.attention_forward(ref.ctx, s, want_o, want_lse, q, kv, k_rope, s.rope, NULL);
        ref.attention_backward(ref.ctx, s, want_dq, want_dkv, want_dk_rope, s.rope, d_o, want_o, want_lse, q,
                               kv, k_rope, s.rope, NULL);
        expect_near("o", o_n, o, want_o);
        expect_near("lse", t * s.heads, lse, want_lse);
        expect_near("dq", q_n, dq, want_dq);
        expect_near("dkv", kv_n, dkv, want_dkv);
        expect_near("dk_rope", r_n, dk_rope, want_dk_rope);
        kernels_close(&k);
        kernels_close(&ref);
        block_free(b.block);
    }
}

/* ---- opening ---- */

static void test_dtype_of_ref(void **state) {
    (void)state;
    static const char *const devices[] = {"ref", "check:ref"};
    for (int i = 0; i < 2; i++) {
        kernels_config c = {.isa = "auto", .threads = 1, .dtype = DTYPE_BF16};
        kernels k;
        error e = {0};
        strcpy(c.device, devices[i]);
        assert_int_equal(kernels_open(&k, &c, &e), EXIT_USAGE);
        assert_non_null(strstr(e.text, "dtype: bf16 is for the devices cpu and cuda"));
    }
}

int main(void) {
    if (!choose_seed(&base_seed)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float_against_ref),
        cmocka_unit_test(test_bf16_against_ref),
        cmocka_unit_test(test_documents_stand_alone),
        cmocka_unit_test(test_head_widths),
        cmocka_unit_test(test_large_products),
        cmocka_unit_test(test_banks),
        cmocka_unit_test(test_same_bits_in_any_order),
        cmocka_unit_test(test_float_products_are_the_cpus),
        cmocka_unit_test(test_past),
        cmocka_unit_test(test_gradients_in_rounds),
        cmocka_unit_test(test_rows_stand_alone),
        cmocka_unit_test(test_dtype_of_ref),
        cmocka_unit_test(test_held_operands),
        cmocka_unit_test(test_bf16_attention_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
