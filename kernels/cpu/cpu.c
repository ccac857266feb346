/* The table of the cpu backend. */
#include "kernels/cpu/cpu.h"

#include "kernels/cpu/held.h"
#include "launch/memory.h"

#ifdef __AVX512F__
#define NAME "cpu-avx512"
#else
#define NAME "cpu-avx2"
#endif

static void destroy(kernels *k) {
    mem_free(k->ctx->scratch);
    mem_free(k->ctx->shared);
    CPU_(held_free)(k->ctx->held);
    mem_free(k->ctx->held);
    mem_free(k->ctx->claims);
    mem_free(k->ctx);
}

/* Both forms of every weight in bf16 (held.h); in float32 copies are made only where there is room. */
static size_t own_bytes(kernel_context *ctx, int64_t held, int64_t operand, attention_shape s) {
    (void)operand, (void)s;
    return ctx->dtype == DTYPE_BF16 ? (size_t)held * sizeof(float) : 0;
}

void CPU_(kernels_cpu)(kernels *k, int threads, kernels_dtype dtype) {
    kernel_context *ctx = mem_alloc(sizeof *ctx, "the cpu backend");
    ctx->threads = threads;
    ctx->dtype = dtype;
    ctx->scratch = mem_alloc((size_t)threads * THREAD_SCRATCH, "scratch of the cpu backend's threads");
    ctx->claims = mem_alloc((size_t)threads * sizeof *ctx->claims, "claims of the cpu backend's threads");
    ctx->shared = mem_alloc(SHARED_SCRATCH, "shared scratch of the cpu backend");
    ctx->held = mem_alloc(sizeof *ctx->held, "the cpu backend's held weights");
    *k = (kernels){
        .name = NAME,
        .ctx = ctx,
        .head_rows = HEAD_TILE,
        .dtype = dtype,
        .host_memory = 1,
        .own_bytes = own_bytes,
        .alloc = CPU_(alloc),
        .free = CPU_(free),
        .zero = CPU_(zero),
        .copy = CPU_(copy),
        .add = CPU_(add),
        .copy_rows = CPU_(copy_rows),
        .hold = CPU_(hold),
        .gemm = CPU_(gemm),
        .gemm_float32 = CPU_(gemm_float32),
        .grouped_gemm = CPU_(grouped_gemm),
        .grouped_gemm_dw = CPU_(grouped_gemm_dw),
        .rms_norm_forward = CPU_(rms_norm_forward),
        .rms_norm_backward = CPU_(rms_norm_backward),
        .rope = CPU_(rope),
        .attention_forward = CPU_(attention_forward),
        .attention_backward = CPU_(attention_backward),
        .swiglu_forward = CPU_(swiglu_forward),
        .swiglu_backward = CPU_(swiglu_backward),
        .embedding_forward = CPU_(embedding_forward),
        .embedding_backward = CPU_(embedding_backward),
        .router_forward = CPU_(router_forward),
        .router_backward = CPU_(router_backward),
        .combine_forward = CPU_(combine_forward),
        .combine_backward = CPU_(combine_backward),
        .cross_entropy = CPU_(cross_entropy),
        .hidden_z = CPU_(hidden_z),
        .adamw = CPU_(adamw),
        .sum_squares = CPU_(sum_squares),
        .digest = CPU_(digest),
        .to_host = CPU_(to_host),
        .to_device = CPU_(to_device),
        .destroy = destroy,
    };
}
