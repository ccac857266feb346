/* The microkernels of bf16: those of float32 whose step of k is a pair. */
#include "kernels/cpu/bf16.h"

#include "kernels/cpu/gemm_rows.h"

#undef FMA
#define FMA dot_pairs

#define STREAM_1(i, q, r)                                                                                    \
    STREAM(c, x##i);                                                                                         \
    c += ldc;
#define STREAM_2(i, q, r)                                                                                    \
    STREAM(c, x##i);                                                                                         \
    STREAM(c + GEMM_LANES, y##i);                                                                            \
    c += ldc;
#undef END_TILE
#define END_TILE(rows, vectors)                                                                              \
    if (d) {                                                                                                 \
        ROWS_##rows(ADD_##vectors)                                                                           \
    } else if (t->stream) {                                                                                  \
        ROWS_##rows(STREAM_##vectors)                                                                        \
    } else {                                                                                                 \
        ROWS_##rows(WRITE_##vectors)                                                                         \
    }

#define KERNEL_FOR CPU_(bf16_kernel_for)
#include "kernels/cpu/gemm_kernels.h"
