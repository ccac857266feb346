/* Weights that the cpu backend keeps packed (hold), in bf16 through a step, in float32 where few rows are
 * multiplied by them again and again: products of them have the bits of products that pack anew, and no copy
 * is ever older than the weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "launch/memory.h"

enum { ALL = 1 << 19, ROWS = 70, MOST = 600, EXPERTS = 3 };

typedef struct fixture {
    kernels k, plain; /* plain holds nothing, ever */
    int uses;         /* after so many products a copy is kept */
    float *weights, *a, *c, *want;
} fixture;

/* A matrix among the weights. */
typedef struct view {
    int64_t at, n, k, pad; /* pad: of its rows */
} view;

static const view views[] = {
    {0, 272, 256, 0},
    {0, 256, 272, 0},
    {8, 64, 128, 0},
    {3, 96, 64, 5},
    {0, 48, 300, 0},
    {0, 33, 257, 0},
    {640, 48, 515, 1},
    {1000, 16, 512, 0},
    {100000, 5, 100, 0},
    {8, 64, 128, 32},
    /* parts of one: its first rows, its first columns */
    {7, 100, 256, 0},
    {7, 200, 256, 0},
    {7, 100, 192, 64},
    {7, 64, 100, 36},
};
enum { VIEWS = sizeof views / sizeof *views };

static float *random_floats(int64_t n, uint64_t seed) {
    float *x = mem_alloc((size_t)n * sizeof *x, "numbers");
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(seed >> 40) * 0x1p-23f - 1;
    }
    return x;
}

/* Few rows in float32, for only then a copy is kept. */
static int64_t rows_of(const kernels *k) {
    return k->dtype == DTYPE_BF16 ? ROWS : 9;
}

static void multiply(kernels *k, const view *v, gemm_form form, const float *weights, const float *a,
                     float *c) {
    const int64_t ld = v->pad + (form == GEMM_NT ? v->k : v->n);
    memset(c, 0xff, sizeof *c * ROWS * MOST);
    k->gemm(k->ctx, form, rows_of(k), v->n, v->k, c, v->n, NULL, a, v->k, weights + v->at, ld);
}

static void multiply_grouped(kernels *k, const view *v, gemm_form form, const float *weights, const float *a,
                             float *c) {
    static const segment s[] = {{0, 1, 0}, {1, 0, 1}, {1, 50, 2}, {51, 9, 0}, {60, ROWS - 60, 1}};
    memset(c, 0xff, sizeof *c * ROWS * MOST);
    k->grouped_gemm(k->ctx, form, 5, s, v->n, v->k, c, a, weights + v->at, v->n * v->k + v->pad);
}

typedef void product(kernels *k, const view *v, gemm_form form, const float *weights, const float *a,
                     float *c);
static product *const products[] = {multiply, multiply_grouped};

/* Whether the product of what f->k holds, or does not hold, is that of `weights`. */
static int is_product(fixture *f, product *p, const view *v, gemm_form form, const float *weights) {
    p(&f->plain, v, form, weights, f->a, f->want);
    p(&f->k, v, form, f->weights, f->a, f->c);
    return !memcmp(f->c, f->want, sizeof *f->c * ROWS * MOST);
}

static void expect_products(fixture *f, const char *when) {
    for (int i = 0; i < 2 * 2 * VIEWS; i++) {
        const view *v = &views[i / 4];
        const gemm_form form = i % 2 ? GEMM_NT : GEMM_NN;
        if (!is_product(f, products[i / 2 % 2], v, form, f->weights))
            fail_msg("%s, %s: product %d, form %d, of view %d", f->k.name, when, i / 2 % 2, (int)form, i / 4);
    }
}

static void products_of_held_weights_have_the_same_bits(fixture *f) {
    for (int again = 0; again < 2; again++) { /* the room is reused */
        f->k.hold(f->k.ctx, ALL, f->weights);
        for (int use = 0; use < f->uses; use++) expect_products(f, "packed");
        expect_products(f, "found");
        f->k.hold(f->k.ctx, 0, NULL);
        expect_products(f, "let go");
    }
}

/* What is held is not read again: to see that, weights are written that should not be.  In float32 only W of
 * x W^T is kept. */
static void weights_are_packed_once(fixture *f) {
    const view *v = &views[0];
    float *old = mem_alloc(ALL * sizeof *old, "weights");
    memcpy(old, f->weights, ALL * sizeof *old);
    for (int p = 0; p < 2; p++) {
        f->k.hold(f->k.ctx, ALL, f->weights);
        for (int use = 0; use < f->uses; use++)
            for (gemm_form form = GEMM_NT; form <= GEMM_NN; form++)
                assert_true(is_product(f, products[p], v, form, old));
        for (int64_t i = 0; i < ALL; i++) f->weights[i] *= 1.5f;
        for (gemm_form form = GEMM_NT; form <= GEMM_NN; form++) {
            const int kept = f->k.dtype == DTYPE_BF16 || form == GEMM_NT;
            assert_true(is_product(f, products[p], v, form, kept ? old : f->weights));
        }
        f->k.hold(f->k.ctx, 0, NULL);
        memcpy(f->weights, old, ALL * sizeof *old);
    }
    mem_free(old);
}

static void no_copy_outlives_its_weights(fixture *f) {
    for (int last = 0; last < 4; last++) {
        const int64_t from = last == 2 ? 5 : ALL - 2000;
        f->k.hold(f->k.ctx, ALL, f->weights);
        for (int use = 0; use < f->uses; use++) expect_products(f, "before an update");
        for (int64_t i = 0; i < ALL; i++) f->weights[i] *= 1.5f;
        if (last == 0) f->k.hold(f->k.ctx, 0, NULL);
        if (last == 1) f->k.hold(f->k.ctx, ALL, f->weights);
        if (last >= 2)
            f->k.hold(f->k.ctx, 1000, f->weights + from); /* matrices lie over both ends, or before */
        expect_products(f, "after an update");
        if (last < 2) continue;
        for (int use = 0; use < f->uses; use++) expect_products(f, "before what is not held changes");
        for (int64_t i = 0; i < ALL; i++) f->weights[i] *= i < from || i >= from + 1000 ? 0.75f : 1;
        expect_products(f, "after it");
    }
}

/* Copies of overlapping matrices, more than there is room for. */
static void without_room_products_pack_anew(fixture *f) {
    f->k.hold(f->k.ctx, 8192, f->weights); /* nor in the list of copies */
    for (int64_t at = 0; at < 40; at++)
        assert_true(is_product(f, multiply, &(view){at, 64, 64, 0}, GEMM_NT, f->weights));
    f->k.hold(f->k.ctx, ALL, f->weights);
    for (int again = 0; again <= f->uses; again++) {
        for (int64_t at = 0; at < 40; at++) {
            const view v = {at, 272, 256, 0};
            if (!is_product(f, multiply, &v, at % 2 ? GEMM_NT : GEMM_NN, f->weights))
                fail_msg("%s: the product of weights from %d on", f->k.name, (int)at);
        }
    }
    f->k.hold(f->k.ctx, 0, NULL);
}

/* In float32 no copy is made for a product or two, and none for many rows. */
static void what_would_not_pay_is_not_kept(fixture *f) {
    const view *v = &views[0];
    for (int64_t rows = 1; rows <= ROWS; rows += ROWS - 1) {
        f->k.hold(f->k.ctx, ALL, f->weights);
        for (int use = 0; use < (rows == 1 ? 2 : 2 * f->uses); use++) {
            for (int64_t i = 0; i < ALL; i++) f->weights[i] *= use % 2 ? 1.5f : 1 / 1.5f;
            f->plain.gemm(f->plain.ctx, GEMM_NT, rows, v->n, v->k, f->want, v->n, NULL, f->a, v->k,
                          f->weights, v->k);
            f->k.gemm(f->k.ctx, GEMM_NT, rows, v->n, v->k, f->c, v->n, NULL, f->a, v->k, f->weights, v->k);
            assert_memory_equal(f->c, f->want, sizeof *f->c * (size_t)(rows * v->n));
        }
    }
}

/* A result too large for the caches, and the same in parts that are not. */
static void a_streamed_result_has_the_same_bits(fixture *f) {
    enum { M = 1024, N = 8192 + 32, K = 3, PARTS = 4 };
    float *c = mem_alloc_pages(sizeof *c * M * N, "a result"),
          *part = mem_alloc(sizeof *c * M * N, "a result");
    for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
        const int64_t lda = form == GEMM_TN ? M : K, ldb = form == GEMM_NT ? K : N;
        f->k.gemm(f->k.ctx, form, M, N, K, c, N, NULL, f->weights, lda, f->weights + 50000, ldb);
        for (int i = 0, rows = M / PARTS; i < PARTS; i++)
            f->k.gemm(f->k.ctx, form, rows, N, K, part + i * rows * N, N, NULL,
                      f->weights + i * rows * (form == GEMM_TN ? 1 : K), lda, f->weights + 50000, ldb);
        assert_memory_equal(c, part, sizeof *c * M * N);
    }
    mem_free(c);
    mem_free(part);
}

typedef void opener(kernels *k, int threads, kernels_dtype dtype);

static void with_backend(opener *open, int threads, kernels_dtype dtype, void (*test)(fixture *)) {
    fixture f = {.uses = dtype == DTYPE_BF16 ? 1 : 16,
                 .weights = random_floats(ALL, 1),
                 .a = random_floats((int64_t)ROWS * MOST, 2),
                 .c = random_floats((int64_t)ROWS * MOST, 3),
                 .want = random_floats((int64_t)ROWS * MOST, 4)};
    open(&f.k, threads, dtype);
    open(&f.plain, 1, dtype);
    test(&f);
    kernels_close(&f.k);
    kernels_close(&f.plain);
    mem_free(f.weights);
    mem_free(f.a);
    mem_free(f.c);
    mem_free(f.want);
}

static void with_backends(kernels_dtype dtype, void (*test)(fixture *)) {
    const int avx512 = __builtin_cpu_supports("avx512vl") &&
                       (dtype == DTYPE_FLOAT32 || __builtin_cpu_supports("avx512bf16"));
    for (int threads = 1; threads <= 3; threads += 2) {
        with_backend(kernels_cpu_avx2, threads, dtype, test);
        if (avx512) with_backend(kernels_cpu_avx512, threads, dtype, test);
    }
}

#define BOTH(name)                                                                                           \
    static void test_##name(void **unused) {                                                                 \
        (void)unused;                                                                                        \
        with_backends(DTYPE_BF16, name);                                                                     \
        with_backends(DTYPE_FLOAT32, name);                                                                  \
    }
BOTH(products_of_held_weights_have_the_same_bits)
BOTH(weights_are_packed_once)
BOTH(no_copy_outlives_its_weights)
BOTH(without_room_products_pack_anew)

static void test_a_streamed_result_has_the_same_bits(void **unused) {
    (void)unused;
    with_backends(DTYPE_BF16, a_streamed_result_has_the_same_bits);
}

static void test_what_would_not_pay_is_not_kept(void **unused) {
    (void)unused;
    with_backends(DTYPE_FLOAT32, what_would_not_pay_is_not_kept);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_of_held_weights_have_the_same_bits),
        cmocka_unit_test(test_weights_are_packed_once),
        cmocka_unit_test(test_no_copy_outlives_its_weights),
        cmocka_unit_test(test_without_room_products_pack_anew),
        cmocka_unit_test(test_what_would_not_pay_is_not_kept),
        cmocka_unit_test(test_a_streamed_result_has_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
