/* The microkernels of float32 that read a panel of B where it is and pack it as they go: loads and stores run
 * beside the multiply-adds. */
#include "kernels/cpu/gemm_rows.h"

#undef START_B
#define START_B float *panel = t->panel
#undef LOAD_B_1
#define LOAD_B_1                                                                                             \
    const gemm_vec b0 = LOAD(b);                                                                             \
    STORE(panel, b0);                                                                                        \
    panel += GEMM_LANES;
#undef LOAD_B_2
#define LOAD_B_2                                                                                             \
    const gemm_vec b0 = LOAD(b), b1 = LOAD(b + GEMM_LANES);                                                  \
    gemm_vec s;                                                                                              \
    STORE(panel, b0);                                                                                        \
    STORE(panel + GEMM_LANES, b1);                                                                           \
    panel += PANEL;

#define KERNEL_FOR CPU_(gemm_copying_kernel_for)
#include "kernels/cpu/gemm_kernels.h"
