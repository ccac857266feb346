/* Matrix products: dense, and grouped by expert. */
#include "kernels/ref/ref.h"

/* Operands are read as they are. */
void ref_hold(kernel_context *ctx, int64_t n, const real *x) {
    (void)ctx, (void)n, (void)x;
}

/* C [m,n] = D + A B with A(i,p) = a[i * ai + p * ap] and B(p,j) = b[p * bp + j * bj]; D may be NULL. */
static void product(int threads, int64_t m, int64_t n, int64_t k, real *c, int64_t ldc, const real *d,
                    const real *a, int64_t ai, int64_t ap, const real *b, int64_t bp, int64_t bj) {
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = d ? d[i * ldc + j] : 0;
            for (int64_t p = 0; p < k; p++) sum += (double)a[i * ai + p * ap] * b[p * bp + j * bj];
            c[i * ldc + j] = (real)sum;
        }
    }
}

void ref_gemm(kernel_context *x, gemm_form form, int64_t m, int64_t n, int64_t k, real *c, int64_t ldc,
              const real *d, const real *a, int64_t lda, const real *b, int64_t ldb) {
    switch (form) {
    case GEMM_NT:
        product(x->threads, m, n, k, c, ldc, d, a, lda, 1, b, 1, ldb);
        break;
    case GEMM_NN:
        product(x->threads, m, n, k, c, ldc, d, a, lda, 1, b, ldb, 1);
        break;
    case GEMM_TN:
        product(x->threads, m, n, k, c, ldc, d, a, 1, lda, b, ldb, 1);
        break;
    }
}

void ref_grouped_gemm(kernel_context *x, gemm_form form, int64_t segments, const segment *s, int64_t n,
                      int64_t k, real *c, const real *a, const real *w, int64_t w_stride) {
    for (int64_t i = 0; i < segments; i++)
        ref_gemm(x, form, s[i].rows, n, k, c + s[i].row * n, n, NULL, a + s[i].row * k, k,
                 w + s[i].expert * w_stride, form == GEMM_NT ? k : n);
}

void ref_grouped_gemm_dw(kernel_context *x, int64_t segments, const segment *s, int64_t m, int64_t n,
                         real *dw, int64_t dw_stride, const real *a, const real *b) {
    for (int64_t i = 0; i < segments; i++) {
        real *c = dw + s[i].expert * dw_stride;
        ref_gemm(x, GEMM_TN, m, n, s[i].rows, c, n, c, a + s[i].row * m, m, b + s[i].row * n, n);
    }
}
