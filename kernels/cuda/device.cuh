/* What the kernels of this backend are written with.  The same sources are compiled by nvcc for the device
 * and by g++ for the emulator of tests/emulate, whose cuda_runtime.h and ptx.h stand in for the real ones.
 *
 * Rules that keep both honest, and results the same from run to run:
 *   - block sizes are multiples of 32; every warp collective is of all 32 lanes; no thread returns before a
 * barrier;
 *   - floats are never added atomically; which thread adds what in which order is a function of the sizes
 * alone, and not of how pointers are aligned;
 *   - a kernel begins with kernel_begins(), and before that touches no memory but its parameters;
 *   - fma only where it is written (--fmad=false), no approximate functions but
 *     exp2_approximate, whose results attention rounds to bf16.
 */
#ifndef CARACAL_KERNELS_CUDA_DEVICE_CUH
#define CARACAL_KERNELS_CUDA_DEVICE_CUH

#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>

enum { SHARED_UNASKED = 32 << 10 }; /* of a launch: 16 KiB are left for the kernel's own */

/* How many blocks a launch has, in numbers that nothing has cut off. */
typedef struct launch_grid {
    int64_t x, y, z;
} launch_grid;
static inline launch_grid grid3(int64_t x, int64_t y = 1, int64_t z = 1) {
    return launch_grid{x, y, z};
}
/* launch.cu: the same as the device takes it; ends the program, naming the kernel, where there are more than
 * a launch may have.  Likewise where the GPU has not given a kernel the shared memory that was asked for. */
dim3 grid_within(const char *kernel, launch_grid grid);
void shared_within(const char *kernel, int64_t shared_bytes, bool given);

#define LAUNCHED(kernel) __FILE__ " " #kernel
#define ASK_SHARED(kernel, shared_bytes)                                                                     \
    if ((shared_bytes) > SHARED_UNASKED)                                                                     \
    shared_within(LAUNCHED(kernel), shared_bytes,                                                            \
                  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,                  \
                                       (int)(shared_bytes)) == cudaSuccess)

#ifdef __CUDACC__

#include "kernels/cuda/ptx.cuh"

/* Starts a kernel.  A template's instance stands in parentheses.  A block gets more than 48 KiB of shared
 * memory only if that was asked for, and a kernel's own arrays (SHARED) are counted with the launch's.
 * From Hopper on it may be set up, and its blocks take free places, while the kernel before it comes to its
 * end: the microsecond between two kernels is hidden so; kernel_begins() waits. */
#define LAUNCH(kernel, grid, block, shared_bytes, ctx, ...)                                                  \
    do {                                                                                                     \
        ASK_SHARED(kernel, shared_bytes);                                                                    \
        cudaLaunchAttribute launch_early = {};                                                               \
        launch_early.id = cudaLaunchAttributeProgrammaticStreamSerialization;                                \
        launch_early.val.programmaticStreamSerializationAllowed = 1;                                         \
        cudaLaunchConfig_t launch_config = {grid_within(LAUNCHED(kernel), grid),                             \
                                            (block),                                                         \
                                            (size_t)(shared_bytes),                                          \
                                            (ctx)->stream,                                                   \
                                            &launch_early,                                                   \
                                            (ctx)->sets_up_early};                                           \
        CUDA_OK(cudaLaunchKernelEx(&launch_config, kernel, __VA_ARGS__));                                    \
    } while (0)
/* An array in shared memory: SHARED(float, tile, [32][33]). */
#define SHARED(type, name, dimensions) __shared__ __align__(16) type name dimensions
/* The launch's shared memory, as a pointer. */
#define DYNAMIC_SHARED(type, name)                                                                           \
    extern __shared__ __align__(128) unsigned char dynamic_shared[];                                         \
    type *name = (type *)dynamic_shared

#else

#include <ptx.h> /* tests/emulate */

#define LAUNCH(kernel, grid, block, shared_bytes, ctx, ...)                                                  \
    do {                                                                                                     \
        (void)(ctx);                                                                                         \
        ASK_SHARED(kernel, shared_bytes);                                                                    \
        emulate_launch(LAUNCHED(kernel), grid_within(LAUNCHED(kernel), grid), block, shared_bytes,           \
                       (shared_bytes) > SHARED_UNASKED, kernel, __VA_ARGS__);                                \
    } while (0)
#define SHARED(type, name, dimensions)                                                                       \
    typedef type name##_array dimensions;                                                                    \
    name##_array &name = *(name##_array *)emulate_shared(sizeof(name##_array), __FILE__, __LINE__)
#define DYNAMIC_SHARED(type, name) type *name = (type *)emulate_dynamic_shared()

#endif

enum { WARP = 32 };
#define ALL_LANES 0xffffffffu

/* ---- memory ---- */

/* Whether rows that start at p, ld apart, can be read 16 bytes at a time. */
static inline bool aligned16(const void *p, int64_t ld) {
    return (uintptr_t)p % 16 == 0 && ld % 4 == 0;
}

/* Elements p[0 .. 3] of a row that ends after `left`; zeros beyond.  `whole` says that the row is aligned. */
static __device__ __forceinline__ float4 load4(const float *p, int64_t left, bool whole) {
    if (whole && left >= 4) return *(const float4 *)p;
    return make_float4(left > 0 ? p[0] : 0, left > 1 ? p[1] : 0, left > 2 ? p[2] : 0, left > 3 ? p[3] : 0);
}
static __device__ __forceinline__ void store4(float *p, float4 v, int64_t left, bool whole) {
    if (whole && left >= 4) {
        store16(p, v);
        return;
    }
    if (left > 0) p[0] = v.x;
    if (left > 1) p[1] = v.y;
    if (left > 2) p[2] = v.z;
    if (left > 3) p[3] = v.w;
}

/* v, rounded to bf16; p is a multiple of 8 bytes. */
static __device__ __forceinline__ void store_rounded4(uint16_t *p, float4 v) {
    store8(p, bf16_pair(v.x, v.y), bf16_pair(v.z, v.w));
}

/* ---- rows of any length, for kernels in which a thread has a chunk of one ---- */

/* 1 << `shift` threads of a block beside each other on one row: rows that are shorter than a block share it,
 * of longer ones each has `blocks` of them, beside each other. */
typedef struct row_threads {
    unsigned shift, blocks;
} row_threads;
static inline row_threads threads_of_rows(int64_t chunks, unsigned threads) {
    unsigned shift = 0;
    while (1u << shift < threads && 1u << shift < chunks) shift++;
    return row_threads{shift, (unsigned)(((chunks - 1) >> shift) + 1)};
}
static inline launch_grid grid_of_rows(int64_t rows, row_threads t, unsigned threads) {
    int64_t of_block = threads >> t.shift;
    return grid3((rows + of_block - 1) / of_block * t.blocks);
}
/* This thread's row and chunk, of which either may not be there. */
static __device__ __forceinline__ int64_t thread_row(row_threads t) {
    return (int64_t)(blockIdx.x / t.blocks) * (blockDim.x >> t.shift) + (threadIdx.x >> t.shift);
}
static __device__ __forceinline__ int64_t thread_chunk(row_threads t) {
    return ((int64_t)(blockIdx.x % t.blocks) << t.shift) + (threadIdx.x & ((1u << t.shift) - 1));
}

/* ---- sums: one tree, whatever the sizes ---- */

static __device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int d = WARP / 2; d; d /= 2) v += __shfl_xor_sync(ALL_LANES, v, d);
    return v;
}
static __device__ __forceinline__ double warp_sum(double v) {
#pragma unroll
    for (int d = WARP / 2; d; d /= 2) v += __shfl_xor_sync(ALL_LANES, v, d);
    return v;
}
static __device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int d = WARP / 2; d; d /= 2) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, d));
    return v;
}

/* ---- operations on four ---- */

static __device__ __forceinline__ float4 mul4(float4 a, float4 b) {
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}
static __device__ __forceinline__ float4 add4(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
static __device__ __forceinline__ float4 scale4(float4 a, float b) {
    return make_float4(a.x * b, a.y * b, a.z * b, a.w * b);
}
/* a b + c, each rounded once */
static __device__ __forceinline__ float4 fma4(float4 a, float4 b, float4 c) {
    return make_float4(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}
static __device__ __forceinline__ float4 fma4(float a, float4 b, float4 c) {
    return fma4(make_float4(a, a, a, a), b, c);
}
/* c + the four products, in order */
static __device__ __forceinline__ float dot4(float4 a, float4 b, float c) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, c))));
}
/* sum + the four squares, in double */
static __device__ __forceinline__ double add_squares(double sum, float4 v) {
    sum = fma((double)v.x, (double)v.x, sum);
    sum = fma((double)v.y, (double)v.y, sum);
    sum = fma((double)v.z, (double)v.z, sum);
    return fma((double)v.w, (double)v.w, sum);
}

static inline __host__ __device__ int64_t divide_up(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}

#endif
