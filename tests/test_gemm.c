/* The matrix products of the cpu backend, bit for bit against a scalar emulation of the order of sums that
 * kernels.h promises, and the emulation against double precision.  Padding is NaN: what reads it shows. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "launch/memory.h"

typedef struct matrix {
    int64_t rows, cols, ld;
    float *x;
} matrix;

typedef enum { D_NONE, D_SELF, D_OTHER } d_kind;

static uint64_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static float random_float(uint64_t *state) {
    return (float)next_random(state) / (float)(1u << 30) - 1.0f;
}

/* Random values below `size`, NaN between the rows; size == 0 leaves NaN everywhere. */
static matrix new_matrix(int64_t rows, int64_t cols, int64_t ld, float size, uint64_t *state) {
    matrix a = {rows, cols, ld, mem_alloc((size_t)(rows * ld + 1) * sizeof(float), "a test matrix")};
    for (int64_t i = 0; i < rows * ld; i++) a.x[i] = NAN;
    for (int64_t i = 0; size != 0 && i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) a.x[i * ld + j] = size * random_float(state);
    }
    return a;
}

/* As an operand of that dtype: to nearest, ties to even, and in bf16 no denormals. */
static float read_as(kernels_dtype dtype, float x) {
    uint32_t bits;
    if (dtype == DTYPE_FLOAT32) return x;
    if (fabsf(x) < FLT_MIN) return 0;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* x y + sum, rounded once.  In bf16 what is then below the least normal number is zero: for small results the
 * sum is made 2^64 times as large, where all bits of it are there. */
static float multiply_add(kernels_dtype dtype, float x, float y, float sum) {
    const float result = fmaf(x, y, sum);
    if (dtype == DTYPE_FLOAT32 || fabsf(result) > FLT_MIN) return result;
    return fabsf(fmaf(x * 0x1p64f, y, sum * 0x1p64f)) < FLT_MIN * 0x1p64f ? copysignf(0, result) : result;
}

/* Two factors of a product, and their sums. */
typedef struct operands {
    kernels_dtype dtype;
    gemm_form form;
    const float *a, *b;
    int64_t lda, ldb;
} operands;

static float factor_a(const operands *o, int64_t i, int64_t p) {
    return read_as(o->dtype, o->form == GEMM_TN ? o->a[p * o->lda + i] : o->a[i * o->lda + p]);
}
static float factor_b(const operands *o, int64_t p, int64_t j) {
    return read_as(o->dtype, o->form == GEMM_NT ? o->b[j * o->ldb + p] : o->b[p * o->ldb + j]);
}

/* start + A[i,:] B[:,j] in the promised order; has_start == 0 starts with the first block.  *exact is the
 * same in double, *magnitude the sum of the absolute values. */
static float promised_element(const operands *o, int64_t i, int64_t j, int64_t k, int has_start, float start,
                              double *exact, double *magnitude) {
    float sum = has_start ? start : 0;
    *exact = has_start ? start : 0;
    *magnitude = fabs(*exact);
    for (int64_t p0 = 0; p0 < k; p0 += GEMM_K_BLOCK) {
        const int64_t end = k < p0 + GEMM_K_BLOCK ? k : p0 + GEMM_K_BLOCK;
        float block = 0;
        for (int64_t q = p0; q < end; q++) {
            /* in bf16 the second of a pair goes first */
            const int64_t p = o->dtype == DTYPE_FLOAT32 ? q : (q ^ 1) < end ? q ^ 1 : q;
            const float x = factor_a(o, i, p), y = factor_b(o, p, j);
            block = multiply_add(o->dtype, x, y, block);
            *exact += (double)x * y;
            *magnitude += fabs((double)x * y);
        }
        sum = p0 == 0 && !has_start ? block : sum + block;
    }
    return sum;
}

static void assert_element(const char *what, float got, float promised, double exact, double magnitude,
                           int64_t k) {
    if (!isfinite(got) || memcmp(&got, &promised, sizeof got) != 0)
        fail_msg("%s: %a where %a was promised", what, (double)got, (double)promised);
    const double longest = (double)(k < GEMM_K_BLOCK ? k : GEMM_K_BLOCK) + (double)k / GEMM_K_BLOCK + 2;
    if (!(fabs(got - exact) <= longest * 0x1p-24 * magnitude + (double)k * FLT_MIN))
        fail_msg("%s: %a is not %a", what, (double)got, exact);
}

static void check_gemm(kernels *kernel, gemm_form form, int64_t m, int64_t n, int64_t k, int64_t pad,
                       d_kind kind, float size, uint64_t *state) {
    const int64_t a_cols = form == GEMM_TN ? m : k, b_cols = form == GEMM_NT ? k : n;
    matrix a = new_matrix(form == GEMM_TN ? k : m, a_cols, a_cols + pad, size, state);
    matrix b = new_matrix(form == GEMM_NT ? n : k, b_cols, b_cols + 2 * pad, size, state);
    matrix d = new_matrix(m, n, n + pad, size * size, state);
    matrix c = new_matrix(m, n, n + pad, 0, state);
    if (kind == D_SELF) memcpy(c.x, d.x, (size_t)(m * d.ld) * sizeof(float));
    kernel->gemm(kernel->ctx, form, m, n, k, c.x, c.ld,
                 kind == D_NONE   ? NULL
                 : kind == D_SELF ? c.x
                                  : d.x,
                 a.x, a.ld, b.x, b.ld);
    char what[96];
    snprintf(what, sizeof what, "%s dtype %d form %d d %d m %ld n %ld k %ld pad %ld", kernel->name,
             (int)kernel->dtype, (int)form, (int)kind, (long)m, (long)n, (long)k, (long)pad);
    const operands o = {kernel->dtype, form, a.x, b.x, a.ld, b.ld};
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double exact, magnitude;
            const float promised =
                promised_element(&o, i, j, k, kind != D_NONE, d.x[i * d.ld + j], &exact, &magnitude);
            assert_element(what, c.x[i * c.ld + j], promised, exact, magnitude, k);
        }
        for (int64_t j = n; j < c.ld; j++) assert_true(isnan(c.x[i * c.ld + j]));
    }
    mem_free(a.x);
    mem_free(b.x);
    mem_free(c.x);
    mem_free(d.x);
}

static void check_all_gemms(kernels *kernel, uint64_t seed) {
    static const int64_t size[] = {0,  1,  2,  3,  5,  6,  7,  8,  13, 14, 15,
                                   16, 17, 29, 31, 32, 33, 48, 61, 97, 130};
    static const int64_t depth[] = {0, 1, 2, 3, 4, 7, 17, 64, 128, 255, 256, 257, 300, 512, 515};
    const int sizes = sizeof size / sizeof *size, depths = sizeof depth / sizeof *depth;
    uint64_t state = seed;
    for (int round = 0; round < 90; round++) {
        const int64_t m = size[next_random(&state) % (uint64_t)sizes],
                      n = size[next_random(&state) % (uint64_t)sizes];
        const int64_t k = depth[next_random(&state) % (uint64_t)depths],
                      pad = (int64_t)next_random(&state) % 3 * 5;
        for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
            check_gemm(kernel, form, m, n, k, pad, (d_kind)(next_random(&state) % 3), 1, &state);
        }
    }
    for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
        for (d_kind kind = D_NONE; kind <= D_OTHER; kind++) {
            check_gemm(kernel, form, 5, 7, 0, 3, kind, 1, &state);
            check_gemm(kernel, form, 0, 7, 5, 3, kind, 1, &state);
        }
        check_gemm(kernel, form, 601, 40, 300, 0, D_NONE, 1,
                   &state); /* more rows than one block keeps in L2 */
        check_gemm(kernel, form, 300, 160, 300, 0, D_SELF, 1, &state); /* and with threads, who help */
        check_gemm(kernel, form, 64, 112, 1024, 0, D_SELF, 1, &state);
        check_gemm(kernel, form, 20, 600, 64, 0, D_OTHER, 1,
                   &state); /* more columns than are packed at one time */
        check_gemm(kernel, form, 15, 1072, 260, 0, D_NONE, 1, &state);   /* the same in bf16 */
        check_gemm(kernel, form, 70, 48, 48, 488, D_SELF, 1, &state);    /* rows of B 4 KiB apart */
        check_gemm(kernel, form, 250, 160, 300, 774, D_SELF, 1, &state); /* columns of A, likewise */
        /* products and sums about the least normal number, 2^-126 */
        for (int64_t k = 1; k < 200; k += 33)
            check_gemm(kernel, form, 15, 33, k, 3, D_OTHER, 0x1p-63f, &state);
        for (int64_t m = 1; m <= 9; m++) check_gemm(kernel, form, m, 64, 264, 0, D_NONE, 1, &state);
    }
}

/* Uneven experts, an empty one, two runs of the same expert, rows that belong to nobody. */
static const segment runs[] = {{0, 8, 2}, {8, 0, 0}, {8, 61, 1}, {70, 1, 4}, {71, 300, 4}, {371, 14, 2}};
enum { RUNS = sizeof runs / sizeof *runs, RUN_ROWS = 390, EXPERTS = 5 };

static void check_grouped(kernels *kernel, gemm_form form, int64_t n, int64_t k, uint64_t *state) {
    const int64_t stride = n * k + 7, ldb = form == GEMM_NT ? k : n;
    matrix a = new_matrix(RUN_ROWS, k, k, 1, state), w = new_matrix(EXPERTS, n * k, stride, 1, state);
    matrix c = new_matrix(RUN_ROWS, n, n, 0, state);
    kernel->grouped_gemm(kernel->ctx, form, RUNS, runs, n, k, c.x, a.x, w.x, stride);
    int64_t row = 0;
    for (int r = 0; r < RUNS; r++) {
        for (; row < runs[r].row; row++) assert_true(n == 0 || isnan(c.x[row * n]));
        for (; row < runs[r].row + runs[r].rows; row++) {
            for (int64_t j = 0; j < n; j++) {
                double exact, magnitude;
                const operands o = {kernel->dtype, form, a.x, w.x + runs[r].expert * stride, k, ldb};
                const float promised = promised_element(&o, row, j, k, 0, 0, &exact, &magnitude);
                assert_element("grouped_gemm", c.x[row * n + j], promised, exact, magnitude, k);
            }
        }
    }
    for (; row < RUN_ROWS; row++) assert_true(n == 0 || isnan(c.x[row * n]));
    mem_free(a.x);
    mem_free(w.x);
    mem_free(c.x);
}

static void check_grouped_dw(kernels *kernel, int64_t m, int64_t n, uint64_t *state) {
    const int64_t stride = m * n + 3;
    matrix a = new_matrix(RUN_ROWS, m, m, 1, state), b = new_matrix(RUN_ROWS, n, n, 1, state);
    matrix before = new_matrix(EXPERTS, m * n, stride, 1, state),
           dw = new_matrix(EXPERTS, m * n, stride, 0, state);
    memcpy(dw.x, before.x, (size_t)(EXPERTS * stride) * sizeof(float));
    kernel->grouped_gemm_dw(kernel->ctx, RUNS, runs, m, n, dw.x, stride, a.x, b.x);
    for (int64_t e = 0; e < EXPERTS; e++) {
        for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < n; j++) {
                const int64_t at = e * stride + i * n + j;
                float sum = before.x[at];
                double total = sum, all = fabs(total);
                for (int r = 0; r < RUNS; r++) {
                    if (runs[r].expert != e) continue;
                    double exact, magnitude;
                    const float was = sum;
                    const operands o = {kernel->dtype,         GEMM_TN, a.x + runs[r].row * m,
                                        b.x + runs[r].row * n, m,       n};
                    sum = promised_element(&o, i, j, runs[r].rows, 1, sum, &exact, &magnitude);
                    total += exact - was;
                    all += magnitude;
                }
                assert_element("grouped_gemm_dw", dw.x[at], sum, total, all, RUN_ROWS);
            }
        }
        for (int64_t i = m * n; i < stride; i++) assert_true(isnan(dw.x[e * stride + i]));
    }
    mem_free(a.x);
    mem_free(b.x);
    mem_free(before.x);
    mem_free(dw.x);
}

typedef void opener(kernels *k, int threads, kernels_dtype dtype);

static void check_backend(opener *open, kernels_dtype dtype, void (*check)(kernels *, uint64_t)) {
    for (int threads = 1; threads <= 3; threads++) {
        kernels kernel = {0};
        open(&kernel, threads, dtype);
        check(&kernel, 17u + (uint64_t)threads);
        kernels_close(&kernel);
    }
}

/* Both dtypes, as far as this processor has them. */
static void check_backends(void (*check)(kernels *, uint64_t)) {
    check_backend(kernels_cpu_avx2, DTYPE_FLOAT32, check);
    check_backend(kernels_cpu_avx2, DTYPE_BF16, check);
    if (!__builtin_cpu_supports("avx512vl")) return;
    check_backend(kernels_cpu_avx512, DTYPE_FLOAT32, check);
    if (__builtin_cpu_supports("avx512bf16")) check_backend(kernels_cpu_avx512, DTYPE_BF16, check);
}

static void check_all_grouped(kernels *kernel, uint64_t seed) {
    static const int64_t shape[][2] = {{128, 128}, {64, 128}, {33, 7}, {16, 300}, {1, 1}, {0, 5}, {5, 0}};
    uint64_t state = seed;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        check_grouped(kernel, GEMM_NT, shape[i][0], shape[i][1], &state);
        check_grouped(kernel, GEMM_NN, shape[i][0], shape[i][1], &state);
        check_grouped_dw(kernel, shape[i][0], shape[i][1], &state);
    }
    kernel->grouped_gemm(kernel->ctx, GEMM_NT, 0, NULL, 5, 5, NULL, NULL, NULL, 25);
    kernel->grouped_gemm_dw(kernel->ctx, 0, NULL, 5, 5, NULL, 25, NULL, NULL);
}

static void gemm_keeps_its_order_of_sums(void **unused) {
    (void)unused;
    check_backends(check_all_gemms);
}

static void grouped_gemm_keeps_its_order_of_sums(void **unused) {
    (void)unused;
    check_backends(check_all_grouped);
}

/* What becomes of single numbers, each an operand in its turn, of either side and at either place of a pair.
 */
static void check_rounding(kernels *kernel, uint64_t unused) {
    (void)unused;
    static const struct {
        float x, bf16;
    } number[] = {
        {0x1.01p0f, 0x1p0f}, /* ties go to the even one */
        {0x1.03p0f, 0x1.04p0f},      {-0x1.010002p0f, -0x1.02p0f},  {0x1.fffffep0f, 0x1p1f},
        {FLT_MAX, INFINITY},         {-INFINITY, -INFINITY},        {NAN, NAN},
        {__builtin_nansf("1"), NAN}, /* a NaN by its last bit */
        {0x1.fffffcp-127f, 0},       /* a denormal, although the nearest is none */
        {-0x1p-126f, -0x1p-126f},    {0x1.018p-126f, 0x1.02p-126f},
    };
    if (kernel->dtype == DTYPE_FLOAT32) return;
    /* 2^-126 - 0.75 2^-150 would be 2^-126 again if denormals were all that lies below it: it is zero */
    const float little[4] = {0x1p-63f, 0, 0x1.8p-75f, 0}, less[4] = {0x1p-63f, 0, -0x1p-76f, 0};
    float none = 1;
    kernel->gemm(kernel->ctx, GEMM_NT, 1, 1, 4, &none, 1, NULL, little, 4, less, 4);
    if (none != 0) fail_msg("%s: %a is not flushed", kernel->name, (double)none);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
            for (int place = 0; place < 4; place++) {
                float x[3] = {0}, one[3] = {1, 1, 1}, c;
                x[place % 3] = number[i].x;
                /* A and B of one row and one column look alike in all forms */
                const int64_t lda = form == GEMM_TN ? 1 : 3, ldb = form == GEMM_NT ? 3 : 1;
                kernel->gemm(kernel->ctx, form, 1, 1, 3, &c, 1, NULL, place < 3 ? x : one, lda,
                             place < 3 ? one : x, ldb);
                const int same = isnan(number[i].bf16) ? isnan(c) : c == number[i].bf16;
                if (!same) fail_msg("%s: %a is read as %a", kernel->name, (double)number[i].x, (double)c);
            }
        }
    }
}

static void bf16_rounds_to_nearest(void **unused) {
    (void)unused;
    check_backends(check_rounding);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_keeps_its_order_of_sums),
        cmocka_unit_test(grouped_gemm_keeps_its_order_of_sums),
        cmocka_unit_test(bf16_rounds_to_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
