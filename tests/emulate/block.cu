#include "tests/emulate/block.h"

#include "kernels/cuda/context.cuh"

void *block_alloc(size_t bytes) {
    void *p = NULL;
    CUDA_OK(cudaMallocHost(&p, bytes));
    return p;
}

void block_free(void *p) {
    CUDA_OK(cudaFreeHost(p));
}
