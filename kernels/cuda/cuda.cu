/* Opening the cuda backend, and its table. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/matrix.cuh"

/* Each tile of the head's logits adds to a float32 gradient of the whole vocabulary: with 128 rows, moving
 * that to and fro would take longer than the products. */
enum { HEAD_ROWS = 1024 };

static void close_context(kernel_context *ctx) {
    CUDA_OK(cudaStreamSynchronize(ctx->stream));
    matrix_close(ctx);
    CUDA_OK(cudaFree(ctx->scratch));
    mem_free(ctx->owned);
    CUDA_OK(cudaFreeHost(ctx->outbox));
    CUDA_OK(cudaFreeHost(ctx->inbox));
    for (int i = 0; i < 2; i++) CUDA_OK(cudaEventDestroy(ctx->outbox_read[i]));
    CUDA_OK(cudaEventDestroy(ctx->inbox_filled));
    CUDA_OK(cudaStreamDestroy(ctx->stream));
    mem_free(ctx);
}

static void destroy(kernels *k) {
    close_context(k->ctx);
}

extern "C" int kernels_cuda(kernels *k, const kernels_config *c, error *e) {
    int chosen;
    if (cuda_choose(c, &chosen, e)) return e->code;
    kernel_context *ctx = (kernel_context *)mem_alloc(sizeof *ctx, "the cuda backend");
    cudaDeviceProp device;
    ctx->device = chosen;
    CUDA_OK(cudaGetDeviceProperties(&device, ctx->device));
    snprintf(ctx->name, sizeof ctx->name, "cuda (%.50s)", device.name);
    ctx->sets_up_early = device.major >= 9;
    ctx->block_shared = device.sharedMemPerBlockOptin;
    CUDA_OK(cudaStreamCreateWithFlags(&ctx->stream, cudaStreamNonBlocking));
    ctx->host_reaches = !strncmp(c->device, "check:", 6);
    ctx->scratch = (char *)cuda_memory(ctx, CUDA_SCRATCH, "the backend's scratch");
    CUDA_OK(cudaMallocHost(&ctx->outbox, 2 * CUDA_OUTBOX));
    CUDA_OK(cudaMallocHost(&ctx->inbox, CUDA_INBOX));
    CUDA_OK(cudaEventCreateWithFlags(&ctx->inbox_filled, cudaEventDisableTiming));
    for (int i = 0; i < 2; i++)
        CUDA_OK(cudaEventCreateWithFlags(&ctx->outbox_read[i], cudaEventDisableTiming));
    int failed = matrix_open(ctx, (kernels_dtype)c->dtype, e);
    if (failed) {
        close_context(ctx);
        return failed;
    }
    *k = kernels{};
    k->name = ctx->name;
    k->ctx = ctx;
    k->wires = &cuda_wires;
    k->left = cuda_left;
    k->own_bytes = cuda_own_bytes;
    k->fetch = cuda_fetch;
    k->fetched = cuda_fetched;
    k->head_rows = HEAD_ROWS;
    k->alloc = cuda_alloc;
    k->free = cuda_free;
    k->dtype = (kernels_dtype)c->dtype;
    k->zero = cuda_zero;
    k->copy = cuda_copy;
    k->add = cuda_add;
    k->copy_rows = cuda_copy_rows;
    k->rms_norm_forward = cuda_rms_norm_forward;
    k->rms_norm_backward = cuda_rms_norm_backward;
    k->rope = cuda_rope;
    k->swiglu_forward = cuda_swiglu_forward;
    k->swiglu_backward = cuda_swiglu_backward;
    k->embedding_forward = cuda_embedding_forward;
    k->embedding_backward = cuda_embedding_backward;
    k->router_forward = cuda_router_forward;
    k->router_backward = cuda_router_backward;
    k->combine_forward = cuda_combine_forward;
    k->combine_backward = cuda_combine_backward;
    k->cross_entropy = cuda_cross_entropy;
    k->hidden_z = cuda_hidden_z;
    k->hold = cuda_hold;
    k->gemm = cuda_gemm;
    k->gemm_float32 = cuda_gemm_float32;
    k->grouped_gemm = cuda_grouped_gemm;
    k->grouped_gemm_dw = cuda_grouped_gemm_dw;
    k->attention_forward = cuda_attention_forward;
    k->attention_backward = cuda_attention_backward;
    k->adamw = cuda_adamw;
    k->sum_squares = cuda_sum_squares;
    k->digest = cuda_digest;
    k->to_host = cuda_to_host;
    k->to_device = cuda_to_device;
    k->destroy = destroy;
    return 0;
}
