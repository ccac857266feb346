/* Matrix products of the cuda backend, and attention beside them, in both dtypes: against ref, in whatever
 * order blocks, warps and lanes run, and what is promised about bits.  On the emulator; in build/cuda on the
 * device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/cuda_cases.h"

#ifdef __SANITIZE_ADDRESS__ /* five times as slow; each run has other inputs */
enum { ROUNDS = 5, ORDER_ROUNDS = 1 };
#else
enum { ROUNDS = 12, ORDER_ROUNDS = 4 };
#endif

static uint64_t base_seed;
static const char *const operations[] = {"gemm", "grouped_gemm", "grouped_gemm_dw", "attention"};
enum { OPERATIONS = sizeof operations / sizeof *operations };

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

/* Tiles of every width, more steps than the ring has places, rows that end inside a tile. */
static void test_large_products(void **state) {
    (void)state;
    static const int64_t shape[][3] = {
        {140, 260, 520}, {129, 128, 330}, {300, 513, 64}, {64, 300, 9}, {20, 129, 1}}; /* rows n k */
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k = open_checked(dtype);
        bench b = new_bench();
        for (int i = 0; i < 5; i++) {
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

/* The emulated cublasLt has no algorithm for this depth, as a library may. */
static void test_without_an_algorithm(void **state) {
    (void)state;
    enum { M = 20, N = 24, K = 11 };
    kernels k = open_checked(DTYPE_BF16);
    bench b = new_bench();
    begin_case(&b, &k, base_seed);
    b.aligned = 1; /* else nobody asks it */
    emulate_figures_reset();
    real *a = values(&b, M * K), *w = values(&b, N * K), *c = values(&b, M * N);
    k.gemm(k.ctx, GEMM_NT, M, N, K, c, N, NULL, a, K, w, K);
    k.gemm(k.ctx, GEMM_TN, M, N, K, c, N, c, a, M, w, N);
    settle(&k);
    assert_true(guards_hold(&b));
    assert_int_equal(emulate_times("product of cublasLt"), 0);
    block_free(b.block);
    kernels_close(&k);
}

/* Fragments of operands are read from all banks of shared memory at a time. */
static void test_banks(void **state) {
    (void)state;
    kernels k = open_cuda(DTYPE_BF16);
    bench b = new_bench();
    emulate_figures_reset();
    attend(&k, &b, (attention_shape){1, 140, 1, 128, 64, 128, 0}, base_seed, 1);
    attend(&k, &b, (attention_shape){1, 140, 1, 64, 32, 64, 0}, base_seed, 0);
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

/* A small result of a long sum, as the router's gradient is, keeps these bits where blocks of k are computed
 * side by side: more than are added up in one launch. */
static void test_long_sums(void **state) {
    (void)state;
    enum { M = 3, N = 5, BLOCKS = 66, K = BLOCKS * GEMM_K_BLOCK - 100 };
    kernels cuda = open_cuda(DTYPE_FLOAT32), cpu;
    kernels_cpu_avx2(&cpu, 1, DTYPE_FLOAT32);
    bench on_cuda = new_bench(), on_cpu = new_bench();
    emulate_figures_reset();
    for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
        for (int before = 0; before < 3; before++) {
            for (int i = 0; i < 2; i++) {
                bench *b = i ? &on_cpu : &on_cuda;
                kernels *k = i ? &cpu : &cuda;
                begin_case(b, k, base_seed);
                real *a = values(b, M * K), *w = values(b, N * K), *c = values(b, M * N),
                     *d = values(b, M * N);
                k->gemm_float32(k->ctx, form, M, N, K, c, N, (const real *[]){NULL, c, d}[before], a,
                                form == GEMM_TN ? M : K, w, form == GEMM_NT ? K : N);
                settle(k);
            }
            assert_memory_equal(on_cuda.block, on_cpu.block, on_cpu.used);
        }
    }
    int64_t launches = 0;
    for (const emulate_figure *f = emulate_figures(); f->what; f++)
        if (strstr(f->what, "add_kernel")) launches += f->times;
    if (emulate_figures()->what) assert_int_equal(launches, 9 * 2); /* not on a device */
    kernels_close(&cuda);
    kernels_close(&cpu);
    block_free(on_cuda.block);
    block_free(on_cpu.block);
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
        cmocka_unit_test(test_large_products),
        cmocka_unit_test(test_without_an_algorithm),
        cmocka_unit_test(test_banks),
        cmocka_unit_test(test_same_bits_in_any_order),
        cmocka_unit_test(test_float_products_are_the_cpus),
        cmocka_unit_test(test_long_sums),
        cmocka_unit_test(test_gradients_in_rounds),
        cmocka_unit_test(test_rows_stand_alone),
        cmocka_unit_test(test_dtype_of_ref),
        cmocka_unit_test(test_held_operands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
