/* The cpu backend.  Every file in kernels/cpu is compiled twice, for AVX2 (-DISA=avx2) and for AVX-512
 * (-DISA=avx512): each symbol that a linker sees is named through CPU_, so that both fit into one program,
 * and both give the same bits, because vec.h makes a vector of 16 floats of either.
 *
 * Threads share out rows, columns, heads or blocks of fixed size; a sum is never split by thread.
 */
#ifndef CARACAL_KERNELS_CPU_CPU_H
#define CARACAL_KERNELS_CPU_CPU_H

#include <omp.h>

#include "kernels/cpu/claims.h"
#include "kernels/kernels.h"

#define CPU_PASTE(name, isa)  name##_##isa
#define CPU_EXPAND(name, isa) CPU_PASTE(name, isa)
#define CPU_(name)            CPU_EXPAND(name, ISA)

enum {
    THREAD_SCRATCH = 5 << 19, /* bytes for each thread: packed panels, accumulators of attention */
    SHARED_SCRATCH = 8 << 20, /* bytes that the threads of one operation share: panels packed together */
    PARALLEL_WORK = 1 << 15,  /* elements below which an operation that streams memory stays on one thread */
};

struct kernel_context {
    int threads;
    kernels_dtype dtype; /* how products and attention read their operands */
    char *scratch;       /* [threads][THREAD_SCRATCH], 64-byte aligned; dirty between operations */
    char *shared;        /* [SHARED_SCRATCH], likewise */
    struct held *held;   /* packed weights: held.h */
    claims *claims;      /* [threads], of the operation under way */
};

/* The calling thread's own scratch, inside a parallel region or outside one. */
static inline void *thread_scratch(const kernel_context *ctx) {
    return ctx->scratch + (size_t)omp_get_thread_num() * THREAD_SCRATCH;
}

/* How many threads an operation over `work` elements gets: a function of size alone.  For num_threads(). */
static inline int threads_for(const kernel_context *ctx, int64_t work) {
    return work < PARALLEL_WORK ? 1 : ctx->threads;
}

/* The table's operations, each in the file that its name suggests. */
#define CPU_OPERATION(name) extern __typeof__(*((kernels *)0)->name) CPU_(name)
CPU_OPERATION(hold);
CPU_OPERATION(gemm);
CPU_OPERATION(gemm_float32);
CPU_OPERATION(grouped_gemm);
CPU_OPERATION(grouped_gemm_dw);
CPU_OPERATION(alloc);
CPU_OPERATION(free);
CPU_OPERATION(zero);
CPU_OPERATION(copy);
CPU_OPERATION(add);
CPU_OPERATION(copy_rows);
CPU_OPERATION(rms_norm_forward);
CPU_OPERATION(rms_norm_backward);
CPU_OPERATION(rope);
CPU_OPERATION(attention_forward);
CPU_OPERATION(attention_backward);
CPU_OPERATION(swiglu_forward);
CPU_OPERATION(swiglu_backward);
CPU_OPERATION(embedding_forward);
CPU_OPERATION(embedding_backward);
CPU_OPERATION(router_forward);
CPU_OPERATION(router_backward);
CPU_OPERATION(combine_forward);
CPU_OPERATION(combine_backward);
CPU_OPERATION(cross_entropy);
CPU_OPERATION(hidden_z);
CPU_OPERATION(adamw);
CPU_OPERATION(sum_squares);
CPU_OPERATION(digest);
CPU_OPERATION(to_host);
CPU_OPERATION(to_device);

/* sum [cols] = or += part[0] + part[1] + ... of part [blocks, cols], in this order. */
void CPU_(sum_blocks)(kernel_context *ctx, int64_t blocks, int64_t cols, int accumulate, float *sum,
                      const float *part);

#endif
