/* The cpu backend at sizes where ref is too slow or a 32-bit index would overflow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "launch/memory.h"
#include "launch/random.h"
#include "tests/backends.h"

static uint64_t seed;

static real *values(int64_t n, uint64_t stream) {
    real *x = mem_alloc((size_t)n * sizeof *x, "test");
    for (int64_t i = 0; i < n; i++) x[i] = (real)(2 * random_uniform(seed, stream, (uint64_t)i) - 1);
    return x;
}

/* ---- large products: C r against A (B r) for a random r, in O(n^2) ---- */

static void expect_product(const kernels *k, gemm_form form, int64_t m, int64_t n, int64_t depth) {
    int64_t lda = form == GEMM_TN ? m : depth, ldb = form == GEMM_NT ? depth : n;
    real *a = values(m * depth, 1), *w = values(depth * n, 2), *c = values(m * n, 3), *r = values(n, 4);
    double *br = mem_alloc((size_t)depth * sizeof *br, "test"), worst = 0;
    for (int64_t i = 0; i < m * n; i++) c[i] = (real)NAN;
    k->gemm(k->ctx, form, m, n, depth, c, n, NULL, a, lda, w, ldb);
    for (int64_t p = 0; p < depth; p++)
        for (int64_t j = 0; j < n; j++)
            br[p] += (double)(form == GEMM_NT ? w[j * ldb + p] : w[p * ldb + j]) * r[j];
    for (int64_t i = 0; i < m; i++) {
        double want = 0, got = 0;
        for (int64_t p = 0; p < depth; p++)
            want += (form == GEMM_TN ? a[p * lda + i] : a[i * lda + p]) * br[p];
        for (int64_t j = 0; j < n; j++) got += (double)c[i * n + j] * r[j];
        assert_true(isfinite(got));
        worst = fmax(worst, fabs(got - want));
    }
    /* an element of typical size sqrt(depth) / 3 is off by a few units; n of them, of either sign, by sqrt(n)
     * more */
    double limit = 0x1p-24 * 16 * sqrt((double)depth) * sqrt((double)n);
    print_message("    %s form %d, %ld x %ld x %ld: %.3f of the bound\n", k->name, (int)form, (long)m,
                  (long)n, (long)depth, worst / limit);
    assert_true(worst <= limit);
    void *all[] = {a, w, c, r, br};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
}

static void test_large_products(void **state) {
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        kernels k;
        if (!backend_open(&k, "cpu", wide ? "avx512" : "avx2", 2, DTYPE_FLOAT32)) return;
        for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
            expect_product(&k, form, 1031, 769, 1111);
            expect_product(&k, form, 67, 2050, 515);
        }
        kernels_close(&k);
    }
}

/* ---- attention whose gradients of the shared key do not fit the scratch at once ---- */

static void expect_attention(attention_shape s) {
    int64_t rows = s.seq, heads = rows * s.heads;
    real *q = values(heads * (s.nope + s.rope), 1), *kv = values(heads * (s.nope + s.v), 2);
    real *k_rope = values(rows * s.rope, 3), *o = values(heads * s.v, 4), *lse = values(heads, 5);
    real *d_o = values(heads * s.v, 6), *dq = values(heads * (s.nope + s.rope), 7);
    real *dkv = values(heads * (s.nope + s.v), 8), *dk_rope = values(rows * s.rope, 9);
    for (kernels_dtype dtype = DTYPE_FLOAT32; dtype <= DTYPE_BF16; dtype++) {
        kernels k;
        assert_true(backend_open(&k, "check:cpu", "auto", 2, dtype));
        k.attention_forward(k.ctx, s, o, lse, q, kv, k_rope, s.rope, NULL);
        k.attention_backward(k.ctx, s, dq, dkv, dk_rope, s.rope, d_o, o, lse, q, kv, k_rope, s.rope, NULL);
        kernels_close(&k);
    }
    void *all[] = {q, kv, k_rope, o, lse, d_o, dq, dkv, dk_rope};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
}

static void test_many_heads(void **state) {
    (void)state;
    attention_shape s = {.batch = 1, .seq = 270, .heads = 64, .nope = 1, .rope = 128, .v = 1};
    expect_attention(s);
}

/* The widest heads that a config may have (train/config_table.c). */
static void test_wide_heads(void **state) {
    (void)state;
    attention_shape s = {.batch = 1, .seq = 70, .heads = 1, .nope = 256, .rope = 128, .v = 256};
    expect_attention(s);
}

/* ---- rows more than 2^31 elements apart, in memory of which few pages are ever touched ---- */

static const int64_t FAR = ((int64_t)1 << 31) + 5;
enum { M = 3, N = 5, K = 70 };
static const size_t FAR_BYTES = ((size_t)M * (((size_t)1 << 31) + 5) + 100) * sizeof(real);

static real *map_far(void) {
    void *p =
        mmap(NULL, FAR_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static void place(real *far, const real *near, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows; i++) memcpy(far + i * FAR, near + i * cols, (size_t)cols * sizeof *near);
}

static void expect_rows(const real *far, const real *near, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows; i++)
        assert_memory_equal(far + i * FAR, near + i * cols, (size_t)cols * sizeof *near);
}

static void test_far_rows(void **state) {
    (void)state;
    kernels k;
    assert_true(backend_open(&k, "cpu", "auto", 2, DTYPE_FLOAT32));
    real *a = values(M * K, 1), *b = values(N * K, 2), *c = values(M * K, 3), *w = values(M * N * K, 4);
    real *far_a = map_far(), *far_c = map_far(), *rstd = values(M, 5), *dw = values(K, 6);
    place(far_a, a, M, K);

    k.gemm(k.ctx, GEMM_NT, M, N, K, c, N, NULL, a, K, b, K);
    k.gemm(k.ctx, GEMM_NT, M, N, K, far_c, FAR, NULL, far_a, FAR, b, K);
    expect_rows(far_c, c, M, N);
    k.gemm(k.ctx, GEMM_NT, N, M, K, c, M, NULL, b, K, a, K);
    k.gemm(k.ctx, GEMM_NT, N, M, K, w, M, NULL, b, K, far_a, FAR);
    assert_memory_equal(w, c, N * M * sizeof *c);
    k.gemm(k.ctx, GEMM_TN, K, N, M, w, N, NULL, a, K, b, N);
    k.gemm(k.ctx, GEMM_TN, K, N, M, far_c, N, NULL, far_a, FAR, b, N);
    assert_memory_equal(far_c, w, K * N * sizeof *w);

    k.rms_norm_forward(k.ctx, M, K, 1e-5, 1, c, K, rstd, a, K, b);
    k.rms_norm_forward(k.ctx, M, K, 1e-5, 1, far_c, FAR, rstd, far_a, FAR, b);
    expect_rows(far_c, c, M, K);
    k.rms_norm_backward(k.ctx, M, K, 1, c, K, NULL, dw, 0, a, K, a, K, rstd, b);
    k.rms_norm_backward(k.ctx, M, K, 1, far_c, FAR, NULL, dw, 0, far_a, FAR, far_a, FAR, rstd, b);
    expect_rows(far_c, c, M, K);

    /* the last expert's weights, and its gradient */
    segment s = {0, M, M - 1}, first = {0, M, 0};
    memcpy(far_c + (M - 1) * FAR, w, K * sizeof *w);
    k.grouped_gemm(k.ctx, GEMM_NT, 1, &s, 1, K, c, a, far_c, FAR);
    k.grouped_gemm(k.ctx, GEMM_NT, 1, &first, 1, K, c + M, a, far_c + (M - 1) * FAR, 0);
    assert_memory_equal(c, c + M, M * sizeof *c);
    memset(far_c + (M - 1) * FAR, 0, K * sizeof *far_c);
    memset(dw, 0, K * sizeof *dw);
    k.grouped_gemm_dw(k.ctx, 1, &s, 1, K, far_c, FAR, b, a);
    k.grouped_gemm_dw(k.ctx, 1, &first, 1, K, dw, 0, b, a);
    assert_memory_equal(far_c + (M - 1) * FAR, dw, K * sizeof *dw);

    /* the key's part that all heads share */
    attention_shape shape = {.batch = 1, .seq = M, .heads = 1, .nope = 2, .rope = 8, .v = 4};
    k.attention_forward(k.ctx, shape, c, rstd, w, b, a, K, NULL);
    k.attention_forward(k.ctx, shape, c + M * 4, rstd, w, b, far_a, FAR, NULL);
    assert_memory_equal(c, c + M * 4, M * 4 * sizeof *c);

    munmap(far_a, FAR_BYTES);
    munmap(far_c, FAR_BYTES);
    void *all[] = {a, b, c, w, rstd, dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
    kernels_close(&k);
}

int main(void) {
    const char *again = getenv("CARACAL_TEST_SEED");
    if (again) seed = strtoull(again, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != sizeof seed) return 1;
    print_message("the same inputs again: CARACAL_TEST_SEED=%#lx\n", (unsigned long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_products),
        cmocka_unit_test(test_many_heads),
        cmocka_unit_test(test_wide_heads),
        cmocka_unit_test(test_far_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
