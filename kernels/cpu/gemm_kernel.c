/* The microkernels of float32. */
#include "kernels/cpu/gemm_rows.h"

#define KERNEL_FOR CPU_(gemm_kernel_for)
#include "kernels/cpu/gemm_kernels.h"
