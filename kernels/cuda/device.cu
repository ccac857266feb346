/* Which GPU a rank takes, and what is wrong where it can take none. */
#include <dlfcn.h>

#include "kernels/cuda/context.cuh"

/* The kinds of GPU that there is machine code for, and what a block of the bf16 kernels takes at most: an
 * A100 has as much, an RTX of the same generations has not. */
enum { LEAST_MAJOR = 8, LAST_MAJOR = 9, BLOCK_SHARED_KIB = 163 };

static int no_gpu(const kernels_config *c, cudaError_t code, error *e) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (code == cudaErrorInsufficientDriver && driver)
        return error_set(
            e, EXIT_USAGE,
            "device \"%s\": the NVIDIA driver here is for CUDA %d.%d, and this program wants %d.%d or "
            "later: update the driver, or use device: cpu",
            c->device, driver / 1000, driver % 100 / 10, runtime / 1000, runtime % 100 / 10);
    if (!driver) /* not found, or made for another libc than this loader's: dlopen knows */
        return error_set(
            e, EXIT_USAGE,
            "device \"%s\": there is no NVIDIA driver here (%.200s): install it, or use device: cpu",
            c->device,
            dlopen("libcuda.so.1", RTLD_NOW) ? "libcuda.so.1 can be opened and does not work" : dlerror());
    return error_set(
        e, EXIT_USAGE,
        "device \"%s\": no GPU can be used here (%s): nvidia-smi and CUDA_VISIBLE_DEVICES say which "
        "there are; or use device: cpu",
        c->device, code == cudaSuccess ? "there is none" : cudaGetErrorString(code));
}

int cuda_choose(const kernels_config *c, int *device, error *e) {
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || !count) return no_gpu(c, code, e);
    *device = c->local_rank % count;
    cudaDeviceProp p;
    code = cudaSetDevice(*device);
    if (code == cudaSuccess) code = cudaGetDeviceProperties(&p, *device);
    if (code == cudaSuccess) code = cudaFree(NULL); /* here the driver begins to work */
    if (code != cudaSuccess)
        return error_set(e, EXIT_USAGE, "device \"%s\": GPU %d does not start: %s", c->device, *device,
                         cudaGetErrorString(code));
    if (p.major < LEAST_MAJOR || p.major > LAST_MAJOR)
        return error_set(e, EXIT_USAGE,
                         "device \"%s\": GPU %d, %s, is of compute capability %d.%d; this program is "
                         "compiled for 8.0 (A100) "
                         "and 9.0 (H100, H200); or use device: cpu",
                         c->device, *device, p.name, p.major, p.minor);
    if (c->dtype == DTYPE_BF16 && p.sharedMemPerBlockOptin < (size_t)BLOCK_SHARED_KIB << 10)
        return error_set(
            e, EXIT_USAGE,
            "device \"%s\": GPU %d, %s, has %zu KiB of shared memory for a block; dtype bf16 needs "
            "%d (A100, H100, H200); use dtype: float32 or device: cpu",
            c->device, *device, p.name, p.sharedMemPerBlockOptin >> 10, BLOCK_SHARED_KIB);
    return 0;
}

size_t cuda_left(kernel_context *) {
    size_t left = 0, all = 0;
    CUDA_OK(cudaMemGetInfo(&left, &all));
    return left;
}
