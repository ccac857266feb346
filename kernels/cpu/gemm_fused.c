/* The microkernels of y = x W^T that transpose W as they go.  While eight k of a panel are used, the next
 * eight are transposed, a piece with each step, so that loads and shuffles run beside the multiply-adds; with
 * few rows that is most of the work.  With FUSED_ROWS rows loads are as many as the core can do beside the
 * multiply-adds, so that nothing is asked for (gemm_ahead.h): it would cost 5% where W is near, and gains
 * nothing where it is far. */
#include "kernels/cpu/gemm_rows.h"

#ifdef __AVX512F__
#define A A_by_row

/* Keeps the compiler from moving accumulators to memory between steps. */
#define PIN(i, q, r) __asm__ volatile("" : "+v"(x##i), "+v"(y##i));

#define STEP(rows, piece)                                                                                    \
    {                                                                                                        \
        LOAD_B_2;                                                                                            \
        if (rows < FUSED_ROWS) {                                                                             \
            FETCH;                                                                                           \
        }                                                                                                    \
        piece;                                                                                               \
        ROWS_##rows(STEP_2);                                                                                 \
        ROWS_##rows(PIN);                                                                                    \
        NEXT_A_by_row;                                                                                       \
        b += PANEL;                                                                                          \
    }

#define GATHER(q)                                                                                            \
    gather_8(&r##q, &s##q, next, ldb);                                                                       \
    next += ldb

#define KERNEL(rows)                                                                                         \
    static void fused_##rows(const gemm_tile *t) {                                                           \
        const int64_t k = t->k, a_step = t->a_step, ldb = t->b_step, ldc = t->ldc, mask = t->panel_mask;     \
        const int64_t fetch_step = t->fetch->step;                                                           \
        const float *d = t->d, *fetch = t->fetch->x, *b = t->panel;                                          \
        float *c = t->c;                                                                                     \
        START_A_by_row;                                                                                      \
        ROWS_##rows(START_2);                                                                                \
        transpose_8(t->panel, PANEL, t->b, ldb);                                                             \
        transpose_8(t->panel + GEMM_LANES, PANEL, t->b + GEMM_LANES * ldb, ldb);                             \
        for (int64_t p = 8; p < k; p += 8) {                                                                 \
            gemm_vec r0, r1, r2, r3, s0, s1, s2, s3;                                                         \
            float *out = t->panel + (p & mask) * PANEL;                                                      \
            const float *next = t->b + p;                                                                    \
            STEP(rows, GATHER(0))                                                                            \
            STEP(rows, GATHER(1))                                                                            \
            STEP(rows, GATHER(2))                                                                            \
            STEP(rows, GATHER(3))                                                                            \
            store_4(out, PANEL, r0, r1, r2, r3);                                                             \
            store_4(out + 4 * PANEL, PANEL, s0, s1, s2, s3);                                                 \
            next += (GEMM_LANES - 4) * ldb;                                                                  \
            STEP(rows, GATHER(0))                                                                            \
            STEP(rows, GATHER(1))                                                                            \
            STEP(rows, GATHER(2))                                                                            \
            STEP(rows, GATHER(3))                                                                            \
            store_4(out + GEMM_LANES, PANEL, r0, r1, r2, r3);                                                \
            store_4(out + GEMM_LANES + 4 * PANEL, PANEL, s0, s1, s2, s3);                                    \
            b = out;                                                                                         \
        }                                                                                                    \
        for (int step = 0; step < 8; step++) STEP(rows, )                                                    \
        END_TILE(rows, 2)                                                                                    \
    }

KERNEL(1)
KERNEL(2)
KERNEL(3)
KERNEL(4)
KERNEL(5)
KERNEL(6)
KERNEL(7)
KERNEL(8)

gemm_kernel *CPU_(gemm_fused_kernel_for)(int rows) {
    static gemm_kernel *const kernel[FUSED_ROWS] = {fused_1, fused_2, fused_3, fused_4,
                                                    fused_5, fused_6, fused_7, fused_8};
    return kernel[rows - 1];
}
#else
gemm_kernel *CPU_(gemm_fused_kernel_for)(int rows) { /* sixteen registers are too few */
    (void)rows;
    return NULL;
}
#endif
