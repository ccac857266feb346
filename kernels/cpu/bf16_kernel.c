/* The microkernels of bf16: those of float32 whose step of k is a pair. */
#include "kernels/cpu/bf16.h"

#include "kernels/cpu/gemm_rows.h"

#undef FMA
#define FMA        dot_pairs
#define KERNEL_FOR CPU_(bf16_kernel_for)
#include "kernels/cpu/gemm_kernels.h"
