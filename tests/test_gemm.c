/* The matrix products of the cpu backend, bit for bit against a scalar emulation of the order of sums that
 * kernels.h promises, and the emulation against double precision.  Padding is NaN: what reads it shows. */
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

/* Random values, NaN between the rows; with_values == 0 leaves NaN everywhere. */
static matrix new_matrix(int64_t rows, int64_t cols, int64_t ld, int with_values, uint64_t *state) {
    matrix a = {rows, cols, ld, mem_alloc((size_t)(rows * ld + 1) * sizeof(float), "a test matrix")};
    for (int64_t i = 0; i < rows * ld; i++) a.x[i] = NAN;
    for (int64_t i = 0; with_values && i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) a.x[i * ld + j] = random_float(state);
    }
    return a;
}

static float element(const float *x, int64_t ld, int transposed, int64_t i, int64_t j) {
    return transposed ? x[j * ld + i] : x[i * ld + j];
}

/* start + A[i,:] B[:,j] in the promised order; has_start == 0 starts with the first block.  *exact is the
 * same in double, *magnitude the sum of the absolute values. */
static float promised_element(gemm_form form, int64_t i, int64_t j, int64_t k, int has_start, float start,
                              const float *a, int64_t lda, const float *b, int64_t ldb, double *exact,
                              double *magnitude) {
    float sum = has_start ? start : 0;
    *exact = has_start ? start : 0;
    *magnitude = fabs(*exact);
    for (int64_t p0 = 0; p0 < k; p0 += GEMM_K_BLOCK) {
        float block = 0;
        for (int64_t p = p0; p < k && p < p0 + GEMM_K_BLOCK; p++) {
            const float x = element(a, lda, form == GEMM_TN, i, p),
                        y = element(b, ldb, form == GEMM_NT, p, j);
            block = fmaf(x, y, block);
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
    if (!(fabs(got - exact) <= longest * 0x1p-24 * magnitude))
        fail_msg("%s: %a is not %a", what, (double)got, exact);
}

static void check_gemm(kernels *kernel, gemm_form form, int64_t m, int64_t n, int64_t k, int64_t pad,
                       d_kind kind, uint64_t *state) {
    const int64_t a_cols = form == GEMM_TN ? m : k, b_cols = form == GEMM_NT ? k : n;
    matrix a = new_matrix(form == GEMM_TN ? k : m, a_cols, a_cols + pad, 1, state);
    matrix b = new_matrix(form == GEMM_NT ? n : k, b_cols, b_cols + 2 * pad, 1, state);
    matrix d = new_matrix(m, n, n + pad, 1, state);
    matrix c = new_matrix(m, n, n + pad, 0, state);
    if (kind == D_SELF) memcpy(c.x, d.x, (size_t)(m * d.ld) * sizeof(float));
    kernel->gemm(kernel->ctx, form, m, n, k, c.x, c.ld,
                 kind == D_NONE   ? NULL
                 : kind == D_SELF ? c.x
                                  : d.x,
                 a.x, a.ld, b.x, b.ld);
    char what[96];
    snprintf(what, sizeof what, "%s form %d d %d m %ld n %ld k %ld pad %ld", kernel->name, (int)form,
             (int)kind, (long)m, (long)n, (long)k, (long)pad);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double exact, magnitude;
            const float promised = promised_element(form, i, j, k, kind != D_NONE, d.x[i * d.ld + j], a.x,
                                                    a.ld, b.x, b.ld, &exact, &magnitude);
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
            check_gemm(kernel, form, m, n, k, pad, (d_kind)(next_random(&state) % 3), &state);
        }
    }
    for (gemm_form form = GEMM_NT; form <= GEMM_TN; form++) {
        for (d_kind kind = D_NONE; kind <= D_OTHER; kind++) {
            check_gemm(kernel, form, 5, 7, 0, 3, kind, &state);
            check_gemm(kernel, form, 0, 7, 5, 3, kind, &state);
        }
        check_gemm(kernel, form, 601, 40, 300, 0, D_NONE, &state); /* more rows than one block keeps in L2 */
        check_gemm(kernel, form, 64, 112, 1024, 0, D_SELF, &state);
        check_gemm(kernel, form, 20, 600, 64, 0, D_OTHER,
                   &state); /* more columns than are packed at one time */
        check_gemm(kernel, form, 70, 48, 48, 488, D_SELF, &state); /* rows of B 4 KiB apart */
        for (int64_t m = 1; m <= 9; m++) check_gemm(kernel, form, m, 64, 264, 0, D_NONE, &state);
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
                const float promised = promised_element(
                    form, row, j, k, 0, 0, a.x, k, w.x + runs[r].expert * stride, ldb, &exact, &magnitude);
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
                    sum = promised_element(GEMM_TN, i, j, runs[r].rows, 1, sum, a.x + runs[r].row * m, m,
                                           b.x + runs[r].row * n, n, &exact, &magnitude);
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

typedef void opener(kernels *k, int threads);

static void check_backend(opener *open, void (*check)(kernels *, uint64_t)) {
    for (int threads = 1; threads <= 3; threads++) {
        kernels kernel = {0};
        open(&kernel, threads);
        check(&kernel, 17u + (uint64_t)threads);
        kernels_close(&kernel);
    }
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
    check_backend(kernels_cpu_avx2, check_all_gemms);
    if (__builtin_cpu_supports("avx512vl")) check_backend(kernels_cpu_avx512, check_all_gemms);
}

static void grouped_gemm_keeps_its_order_of_sums(void **unused) {
    (void)unused;
    check_backend(kernels_cpu_avx2, check_all_grouped);
    if (__builtin_cpu_supports("avx512vl")) check_backend(kernels_cpu_avx512, check_all_grouped);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_keeps_its_order_of_sums),
        cmocka_unit_test(grouped_gemm_keeps_its_order_of_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
