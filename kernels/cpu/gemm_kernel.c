/* The microkernels: one tile of C, one block of k, everything in registers.
 *
 * They are written out by macros, one function for each number of rows and vectors, because only named
 * accumulators are sure to stay in registers: gcc spills an array of them.
 */
#include "kernels/cpu/gemm_tile.h"

#ifdef __AVX512F__
#define LOAD(p)      _mm512_loadu_ps(p)
#define STORE(p, x)  _mm512_storeu_ps(p, x)
#define ADD(x, y)    _mm512_add_ps(x, y)
#define FMA(x, y, z) _mm512_fmadd_ps(x, y, z)
#define SPREAD(x)    _mm512_set1_ps(x)
#define ZERO         _mm512_setzero_ps()
#else
#define LOAD(p)      _mm256_loadu_ps(p)
#define STORE(p, x)  _mm256_storeu_ps(p, x)
#define ADD(x, y)    _mm256_add_ps(x, y)
#define FMA(x, y, z) _mm256_fmadd_ps(x, y, z)
#define SPREAD(x)    _mm256_set1_ps(x)
#define ZERO         _mm256_setzero_ps()
#endif

/* ROWS_n(X) is X(i, q, r) for the rows i = 4 q + r below n: the rows of A are reached from one pointer for
 * each four of them and the offsets 0, 1, 2, 3 a_step, which is what fits into the general registers. */
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

/* One row of the tile, in one and in two vectors: start, one step of k, write back. */
#define START_1(i, q, r) gemm_vec x##i = ZERO;
#define STEP_1(i, q, r)  x##i = FMA(SPREAD(A(i, q, r)), b0, x##i);
#define WRITE_1(i, q, r)                                                                                     \
    STORE(c, x##i);                                                                                          \
    c += ldc;
#define ADD_1(i, q, r)                                                                                       \
    STORE(c, ADD(LOAD(d), x##i));                                                                            \
    c += ldc;                                                                                                \
    d += ldc;

#define START_2(i, q, r)                                                                                     \
    gemm_vec x##i = ZERO;                                                                                    \
    gemm_vec y##i = ZERO;
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

#define LOAD_B_1 const gemm_vec b0 = LOAD(b);
#define LOAD_B_2                                                                                             \
    const gemm_vec b0 = LOAD(b), b1 = LOAD(b + GEMM_LANES);                                                  \
    gemm_vec s;

#define KERNEL(form, rows, vectors)                                                                          \
    static void form##_##rows##x##vectors(const gemm_tile *t) {                                              \
        const int64_t k = t->k, a_step = t->a_step, b_step = t->b_step, ldc = t->ldc;                        \
        const float *b = t->b, *d = t->d;                                                                    \
        float *c = t->c;                                                                                     \
        START_A_##form;                                                                                      \
        ROWS_##rows(START_##vectors);                                                                        \
        for (int64_t p = 0; p < k; p++) {                                                                    \
            LOAD_B_##vectors;                                                                                \
            ROWS_##rows(STEP_##vectors);                                                                     \
            NEXT_A_##form;                                                                                   \
            b += b_step;                                                                                     \
        }                                                                                                    \
        if (d) {                                                                                             \
            ROWS_##rows(ADD_##vectors);                                                                      \
        } else {                                                                                             \
            ROWS_##rows(WRITE_##vectors);                                                                    \
        }                                                                                                    \
    }

/* A by rows (GEMM_NT, GEMM_NN), and by columns (GEMM_TN). */
#define START_A_by_row    const float *a[4] = {t->a, t->a + 4 * a_step, t->a + 8 * a_step, t->a + 12 * a_step}
#define NEXT_A_by_row     a[0]++, a[1]++, a[2]++, a[3]++
#define START_A_by_column const float *a = t->a
#define NEXT_A_by_column  a += a_step

#ifdef __AVX512F__
#define EACH_SIZE(X, form, v)                                                                                \
    X(form, 1, v)                                                                                            \
    X(form, 2, v)                                                                                            \
    X(form, 3, v)                                                                                            \
    X(form, 4, v)                                                                                            \
    X(form, 5, v)                                                                                            \
    X(form, 6, v)                                                                                            \
    X(form, 7, v)                                                                                            \
    X(form, 8, v)                                                                                            \
    X(form, 9, v)                                                                                            \
    X(form, 10, v)                                                                                           \
    X(form, 11, v)                                                                                           \
    X(form, 12, v)                                                                                           \
    X(form, 13, v)                                                                                           \
    X(form, 14, v)
#else
#define EACH_SIZE(X, form, v)                                                                                \
    X(form, 1, v)                                                                                            \
    X(form, 2, v)                                                                                            \
    X(form, 3, v)                                                                                            \
    X(form, 4, v)                                                                                            \
    X(form, 5, v)                                                                                            \
    X(form, 6, v)
#endif
#define ENTRY(form, rows, vectors) form##_##rows##x##vectors,

#define A(i, q, r) a[q][(r)*a_step]
EACH_SIZE(KERNEL, by_row, 1)
EACH_SIZE(KERNEL, by_row, 2)
#undef A
#define A(i, q, r) a[i]
EACH_SIZE(KERNEL, by_column, 1)
EACH_SIZE(KERNEL, by_column, 2)
#undef A

gemm_kernel *CPU_(gemm_kernel_for)(gemm_form form, int rows, int vectors) {
    static gemm_kernel *const kernel[2][2][TILE_ROWS] = {
        {{EACH_SIZE(ENTRY, by_row, 1)}, {EACH_SIZE(ENTRY, by_row, 2)}},
        {{EACH_SIZE(ENTRY, by_column, 1)}, {EACH_SIZE(ENTRY, by_column, 2)}},
    };
    return kernel[form == GEMM_TN][vectors - 1][rows - 1];
}
