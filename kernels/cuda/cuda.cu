/* Opening the cuda backend, and its table. */
#include <stdio.h>

#include "kernels/cuda/context.cuh"

static void destroy(kernels *k) {
    CUDA_OK(cudaStreamSynchronize(k->ctx->stream));
    CUDA_OK(cudaFree(k->ctx->scratch));
    CUDA_OK(cudaStreamDestroy(k->ctx->stream));
    mem_free(k->ctx);
}

extern "C" int kernels_cuda(kernels *k, const kernels_config *c, error *e) {
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || count == 0)
        return error_set(
            e, EXIT_USAGE,
            "device \"%s\": no NVIDIA GPU can be used here (%s); use device: cpu, or look whether "
            "nvidia-smi finds GPU and driver",
            c->device, code != cudaSuccess ? cudaGetErrorString(code) : "none found");
    kernel_context *ctx = (kernel_context *)mem_alloc(sizeof *ctx, "the cuda backend");
    cudaDeviceProp device;
    CUDA_OK(cudaSetDevice(ctx->device));
    CUDA_OK(cudaGetDeviceProperties(&device, ctx->device));
    snprintf(ctx->name, sizeof ctx->name, "cuda (%.50s)", device.name);
    CUDA_OK(cudaStreamCreateWithFlags(&ctx->stream, cudaStreamNonBlocking));
    CUDA_OK(cudaMalloc(&ctx->scratch, CUDA_SCRATCH));
    *k = kernels{};
    k->name = ctx->name;
    k->ctx = ctx;
    k->zero = cuda_zero;
    k->copy = cuda_copy;
    k->add = cuda_add;
    k->copy_rows = cuda_copy_rows;
    k->adamw = cuda_adamw;
    k->to_host = cuda_to_host;
    k->to_device = cuda_to_device;
    k->destroy = destroy;
    return 0;
}
