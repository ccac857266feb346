/* The microkernels: one tile of C, one block of k, everything in registers.  Included once by each file that
 * makes a set of them, after gemm_rows.h and with KERNEL_FOR defined as the name of the function that chooses
 * among them; what a step of k is, FMA says. */

#define KERNEL(form, rows, vectors)                                                                          \
    static void form##_##rows##x##vectors(const gemm_tile *t) {                                              \
        const int64_t k = t->k, a_step = t->a_step, b_step = t->b_step, ldc = t->ldc;                        \
        const float *b = t->b, *d = t->d;                                                                    \
        const fetched *f = t->fetch;                                                                         \
        float *c = t->c;                                                                                     \
        START_A_##form;                                                                                      \
        START_B;                                                                                             \
        ROWS_##rows(START_##vectors);                                                                        \
        for (int64_t p = 0; p < k; f++) {                                                                    \
            const int64_t fetch_step = f->step, end = f->end;                                                \
            const float *fetch = f->x;                                                                       \
            for (; p < end; p++) {                                                                           \
                LOAD_B_##vectors;                                                                            \
                FETCH;                                                                                       \
                ROWS_##rows(STEP_##vectors);                                                                 \
                NEXT_A_##form;                                                                               \
                b += b_step;                                                                                 \
            }                                                                                                \
        }                                                                                                    \
        END_TILE(rows, vectors)                                                                              \
    }

#define UP_TO_SIX(X, form, v)                                                                                \
    X(form, 1, v)                                                                                            \
    X(form, 2, v)                                                                                            \
    X(form, 3, v)                                                                                            \
    X(form, 4, v)                                                                                            \
    X(form, 5, v)                                                                                            \
    X(form, 6, v)
#ifdef __AVX512F__
#define EACH_SIZE(X, form, v)                                                                                \
    UP_TO_SIX(X, form, v)                                                                                    \
    X(form, 7, v)                                                                                            \
    X(form, 8, v)                                                                                            \
    X(form, 9, v)                                                                                            \
    X(form, 10, v)                                                                                           \
    X(form, 11, v)                                                                                           \
    X(form, 12, v)                                                                                           \
    X(form, 13, v)                                                                                           \
    X(form, 14, v)
#else
#define EACH_SIZE UP_TO_SIX
#endif
#define ENTRY(form, rows, vectors) form##_##rows##x##vectors,

#define A A_by_row
EACH_SIZE(KERNEL, by_row, 1)
EACH_SIZE(KERNEL, by_row, 2)
#undef A
#define A A_by_column
EACH_SIZE(KERNEL, by_column, 1)
EACH_SIZE(KERNEL, by_column, 2)
#undef A

gemm_kernel *KERNEL_FOR(gemm_form form, int rows, int vectors) {
    static gemm_kernel *const kernel[2][2][TILE_ROWS] = {
        {{EACH_SIZE(ENTRY, by_row, 1)}, {EACH_SIZE(ENTRY, by_row, 2)}},
        {{EACH_SIZE(ENTRY, by_column, 1)}, {EACH_SIZE(ENTRY, by_column, 2)}},
    };
    return kernel[form == GEMM_TN][vectors - 1][rows - 1];
}
