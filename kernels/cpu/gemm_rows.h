/* How the microkernels are written out: one function for each number of rows and vectors, by macros, because
 * only named accumulators are sure to stay in registers: gcc spills an array of them.
 *
 * ROWS_n(X) is X(i, q, r) for the rows i = 4 q + r below n; the rows of A are reached from one pointer for
 * each four of them and the offsets 0, 1, 2, 3 a_step, which is what fits into the general registers.
 */
#ifndef CARACAL_KERNELS_CPU_GEMM_ROWS_H
#define CARACAL_KERNELS_CPU_GEMM_ROWS_H

#include "kernels/cpu/gemm_tile.h"

#define ROWS_1(X)  X(0, 0, 0)
#define ROWS_2(X)  ROWS_1(X) X(1, 0, 1)
#define ROWS_3(X)  ROWS_2(X) X(2, 0, 2)
#define ROWS_4(X)  ROWS_3(X) X(3, 0, 3)
#define ROWS_5(X)  ROWS_4(X) X(4, 1, 0)
#define ROWS_6(X)  ROWS_5(X) X(5, 1, 1)
#define ROWS_7(X)  ROWS_6(X) X(6, 1, 2)
#define ROWS_8(X)  ROWS_7(X) X(7, 1, 3)
#define ROWS_9(X)  ROWS_8(X) X(8, 2, 0)
#define ROWS_10(X) ROWS_9(X) X(9, 2, 1)
#define ROWS_11(X) ROWS_10(X) X(10, 2, 2)
#define ROWS_12(X) ROWS_11(X) X(11, 2, 3)
#define ROWS_13(X) ROWS_12(X) X(12, 3, 0)
#define ROWS_14(X) ROWS_13(X) X(13, 3, 1)

/* One row of a tile of one vector: start, one step of k, write back without and with D. */
#define START_1(i, q, r) gemm_vec x##i = ZERO;
#define STEP_1(i, q, r)  x##i = FMA(SPREAD(A(i, q, r)), b0, x##i);
#define WRITE_1(i, q, r)                                                                                     \
    STORE(c, x##i);                                                                                          \
    c += ldc;
#define ADD_1(i, q, r)                                                                                       \
    STORE(c, ADD(LOAD(d), x##i));                                                                            \
    c += ldc;                                                                                                \
    d += ldc;

/* The same of two vectors. */
#define START_2(i, q, r) gemm_vec x##i = ZERO, y##i = ZERO;
#define STEP_2(i, q, r)                                                                                      \
    s = SPREAD(A(i, q, r));                                                                                  \
    x##i = FMA(s, b0, x##i);                                                                                 \
    y##i = FMA(s, b1, y##i);
#define WRITE_2(i, q, r)                                                                                     \
    STORE(c, x##i);                                                                                          \
    STORE(c + GEMM_LANES, y##i);                                                                             \
    c += ldc;
#define ADD_2(i, q, r)                                                                                       \
    STORE(c, ADD(LOAD(d), x##i));                                                                            \
    STORE(c + GEMM_LANES, ADD(LOAD(d + GEMM_LANES), y##i));                                                  \
    c += ldc;                                                                                                \
    d += ldc;

#define START_B  /* B is only read */
#define LOAD_B_1 const gemm_vec b0 = LOAD(b);
#define LOAD_B_2                                                                                             \
    const gemm_vec b0 = LOAD(b), b1 = LOAD(b + GEMM_LANES);                                                  \
    gemm_vec s;

/* A by rows (GEMM_NT, GEMM_NN), and by columns (GEMM_TN). */
#define A_by_row(i, q, r)    a[q][(r)*a_step]
#define START_A_by_row       const float *a[4] = {t->a, t->a + 4 * a_step, t->a + 8 * a_step, t->a + 12 * a_step};
#define NEXT_A_by_row        a[0]++, a[1]++, a[2]++, a[3]++;
#define A_by_column(i, q, r) a[i]
#define START_A_by_column    const float *a = t->a;
#define NEXT_A_by_column     a += a_step;

#define FETCH                                                                                                \
    __builtin_prefetch(fetch);                                                                               \
    fetch += fetch_step;

#define END_TILE(rows, vectors)                                                                              \
    if (d) {                                                                                                 \
        ROWS_##rows(ADD_##vectors)                                                                           \
    } else {                                                                                                 \
        ROWS_##rows(WRITE_##vectors)                                                                         \
    }

#endif
