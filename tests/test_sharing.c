/* How threads of the cpu backend share a product and attention's heads: pure functions of shape, which decide
 * no bit (tests/test_kernel_sizes.c), only who finds what in its cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ISA avx2
#include "kernels/cpu/attention.h"

static void assert_grid(int rows, int columns, kernels_dtype dtype, int threads, gemm_form form, int64_t m,
                        int64_t n, int64_t k, int held) {
    const kernel_context ctx = {.threads = threads, .dtype = dtype};
    const gemm_grid g = CPU_(gemm_grid_for)(&ctx, threads, form, m, n, k, held);
    assert_int_equal(g.rows, rows);
    assert_int_equal(g.columns, columns);
}

static void layers_are_shared_by_rows(void **unused) {
    (void)unused;
    assert_grid(2, 1, DTYPE_FLOAT32, 2, GEMM_NT, 512, 1024, 256, 0);
    assert_grid(2, 1, DTYPE_FLOAT32, 2, GEMM_NN, 512, 256, 1024, 0);
    assert_grid(4, 1, DTYPE_FLOAT32, 4, GEMM_NN, 512, 256, 256, 0);
    assert_grid(2, 1, DTYPE_BF16, 2, GEMM_NT, 512, 1024, 256, 1);
}

static void others_pack_least(void **unused) {
    (void)unused;
    assert_grid(1, 2, DTYPE_FLOAT32, 2, GEMM_NT, 128, 8192, 256, 0); /* few rows: the head */
    assert_grid(1, 8, DTYPE_FLOAT32, 8, GEMM_NT, 512, 1024, 256, 0);
    assert_grid(1, 2, DTYPE_FLOAT32, 2, GEMM_NN, 512, 256, 1025, 0); /* more than its own cache holds */
    assert_grid(1, 2, DTYPE_FLOAT32, 2, GEMM_NT, 4096, 768, 768, 0);
    assert_grid(1, 2, DTYPE_FLOAT32, 2, GEMM_TN, 1024, 256, 512, 0);
    assert_grid(1, 2, DTYPE_BF16, 2, GEMM_NT, 256, 8192, 256, 0);
}

static void no_part_is_larger_than_it_must_be(void **unused) {
    (void)unused;
    assert_grid(1, 2, DTYPE_FLOAT32, 2, GEMM_NN, 513, 256, 256, 0);
    assert_grid(2, 1, DTYPE_FLOAT32, 2, GEMM_NT, 64, GEMM_LANES, 256, 0);
}

enum { THREADS = 3, HEADS = 8, PIECES = 2 };

/* All threads' pieces, taken by one: its own heads come first, all first pieces before the second ones. */
static void a_thread_begins_with_its_own_heads(void **unused) {
    (void)unused;
    claims all[THREADS];
    const kernel_context ctx = {.threads = THREADS, .claims = all};
    int taken[HEADS][PIECES] = {{0}};
    head_piece x;
    heads_open(&ctx, THREADS, HEADS, PIECES);
    const head_piece own[] = {{0, 0, 1}, {1, 0, -1}, {0, 1, -1}, {1, 1, -1}}; /* 8 / 3 heads */
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        assert_true(heads_next(&ctx, THREADS, HEADS, &x));
        assert_memory_equal(&x, &own[i], sizeof x);
        taken[x.head][x.piece]++;
    }
    for (int first = 1; heads_next(&ctx, THREADS, HEADS, &x); first = 0) {
        if (first) assert_true(x.head == 4 && x.piece == PIECES - 1 && x.next == -1); /* another's last */
        taken[x.head][x.piece]++;
    }
    for (int h = 0; h < HEADS; h++)
        for (int p = 0; p < PIECES; p++) assert_int_equal(taken[h][p], 1);
}

static void more_threads_than_heads(void **unused) {
    (void)unused;
    claims all[THREADS];
    const kernel_context ctx = {.threads = THREADS, .claims = all};
    head_piece x;
    heads_open(&ctx, THREADS, 1, 1);
    assert_true(heads_next(&ctx, THREADS, 1, &x));
    assert_int_equal(x.head, 0);
    assert_false(heads_next(&ctx, THREADS, 1, &x));
    heads_open(&ctx, THREADS, 0, 1);
    assert_false(heads_next(&ctx, THREADS, 0, &x));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_are_shared_by_rows),
        cmocka_unit_test(others_pack_least),
        cmocka_unit_test(no_part_is_larger_than_it_must_be),
        cmocka_unit_test(a_thread_begins_with_its_own_heads),
        cmocka_unit_test(more_threads_than_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
