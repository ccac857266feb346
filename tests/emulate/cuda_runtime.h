/* Stands where CUDA's header of this name does when g++ compiles kernels/cuda for the emulator: as much of
 * CUDA's language and runtime as the kernels use, with the same meaning.  Streams do everything at once. */
#ifndef CARACAL_TESTS_EMULATE_CUDA_RUNTIME_H
#define CARACAL_TESTS_EMULATE_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tuple>

#include "tests/emulate/emulate.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

/* ---- vectors ---- */

struct __align__(8) float2 {
    float x, y;
};
struct __align__(16) float4 {
    float x, y, z, w;
};
struct __align__(8) int2 {
    int x, y;
};
struct __align__(16) int4 {
    int x, y, z, w;
};
struct __align__(8) uint2 {
    unsigned x, y;
};
struct __align__(16) uint4 {
    unsigned x, y, z, w;
};
struct __align__(16) double2 {
    double x, y;
};
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
static inline int4 make_int4(int x, int y, int z, int w) {
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* ---- launches ---- */

inline int emulate_error; /* of the last call that failed, until cudaGetLastError */

template <class... P, class... A>
static void emulate_launch(const char *name, dim3 grid, dim3 block, size_t shared, bool asked,
                           void (*kernel)(P...), A... arguments) {
    struct call {
        void (*kernel)(P...);
        std::tuple<P...> arguments; /* converted once, as for a real launch */
    } c = {kernel, std::tuple<P...>(arguments...)};
    emulate_run(
        name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared, asked,
        [](void *p) { std::apply(((call *)p)->kernel, ((call *)p)->arguments); }, &c);
    /* LAUNCH asks on a device, and would take an earlier call's error for the launch's */
    if (emulate_error) emulate_bad("an earlier call's error was not cleared by cudaGetLastError");
}

/* ---- collectives ---- */

#define __syncthreads() emulate_barrier(__FILE__, __LINE__)
#define __syncwarp()    ((void)emulate_exchange(0xffffffffu, NULL, 0, __FILE__, __LINE__))
#define __threadfence() ((void)0)

static inline unsigned emulate_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <class T>
static inline T emulate_shuffle(unsigned mask, T v, unsigned from, const char *file, int line) {
    const unsigned char *all = emulate_exchange(mask, &v, sizeof v, file, line);
    memcpy(&v, all + from % 32 * EMULATE_SLOT, sizeof v);
    return v;
}
static inline unsigned emulate_up(unsigned d) {
    return emulate_lane() < d ? emulate_lane() : emulate_lane() - d;
}
static inline unsigned emulate_down(unsigned d) {
    return emulate_lane() + d > 31 ? emulate_lane() : emulate_lane() + d;
}
static inline unsigned emulate_votes(unsigned mask, int predicate, const char *file, int line) {
    const unsigned char *all = emulate_exchange(mask, &predicate, sizeof predicate, file, line);
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; i++) {
        int yes;
        memcpy(&yes, all + i * EMULATE_SLOT, sizeof yes);
        votes |= (unsigned)(yes != 0) << i;
    }
    return votes;
}
#define __shfl_sync(mask, v, lane) emulate_shuffle(mask, v, (unsigned)(lane), __FILE__, __LINE__)
#define __shfl_xor_sync(mask, v, x)                                                                          \
    emulate_shuffle(mask, v, emulate_lane() ^ (unsigned)(x), __FILE__, __LINE__)
#define __shfl_up_sync(mask, v, d)   emulate_shuffle(mask, v, emulate_up(d), __FILE__, __LINE__)
#define __shfl_down_sync(mask, v, d) emulate_shuffle(mask, v, emulate_down(d), __FILE__, __LINE__)
#define __ballot_sync(mask, p)       emulate_votes(mask, p, __FILE__, __LINE__)
#define __any_sync(mask, p)          (emulate_votes(mask, p, __FILE__, __LINE__) != 0)
#define __all_sync(mask, p)          (emulate_votes(mask, p, __FILE__, __LINE__) == 0xffffffffu)

/* ---- numbers ---- */

template <class T> static inline T __ldg(const T *p) {
    return *p;
}
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __int_as_float(int u) {
    return __uint_as_float((unsigned)u);
}
static inline int __float_as_int(float f) {
    return (int)__float_as_uint(f);
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
template <class T> static inline T min(T a, T b) {
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b) {
    return a < b ? b : a;
}

/* Of integers only: the order of atomic additions of floats would decide bits. */
static inline int atomicAdd(int *p, int v) {
    int old = *p;
    *p += v;
    return old;
}
static inline unsigned atomicAdd(unsigned *p, unsigned v) {
    unsigned old = *p;
    *p += v;
    return old;
}
static inline unsigned long long atomicAdd(unsigned long long *p, unsigned long long v) {
    unsigned long long old = *p;
    *p += v;
    return old;
}
static inline int atomicMax(int *p, int v) {
    int old = *p;
    if (v > old) *p = v;
    return old;
}
float atomicAdd(float *, float) = delete;
double atomicAdd(double *, double) = delete;

/* ---- the runtime ---- */

typedef enum {
    cudaSuccess,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNotReady = 600
} cudaError_t;
typedef struct emulate_stream *cudaStream_t;
typedef struct emulate_event *cudaEvent_t;
typedef enum {
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
} cudaMemcpyKind;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostRegisterDefault = 0 };
typedef enum { cudaFuncAttributeMaxDynamicSharedMemorySize } cudaFuncAttribute;
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, l2CacheSize;
    struct {
        char bytes[16];
    } uuid;
};

static inline const char *cudaGetErrorName(cudaError_t e) {
    return e == cudaSuccess             ? "cudaSuccess"
           : e == cudaErrorInvalidValue ? "cudaErrorInvalidValue"
                                        : "cudaErrorMemoryAllocation";
}
static inline const char *cudaGetErrorString(cudaError_t e) {
    return e == cudaSuccess ? "no error" : e == cudaErrorInvalidValue ? "invalid argument" : "out of memory";
}
static inline cudaError_t cudaGetLastError() {
    int e = emulate_error;
    emulate_error = 0;
    return (cudaError_t)e;
}
static inline cudaError_t cudaDriverGetVersion(int *v) {
    *v = 13000;
    return cudaSuccess;
}
static inline cudaError_t cudaRuntimeGetVersion(int *v) {
    *v = 13000;
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    *p = {"emulated", (size_t)16 << 30, EMULATE_BLOCK_SHARED, 9, 0, 4, 1 << 20, {}};
    const long gpu = getenv("CARACAL_EMULATE_ONE_GPU") ? 1 : (long)getpid(); /* else one for each rank */
    snprintf(p->uuid.bytes, sizeof p->uuid.bytes, "%ld", gpu);
    return cudaSuccess;
}
static inline cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *total = (size_t)16 << 30;
    *free_bytes = *total - emulate_given();
    return cudaSuccess;
}
template <class K> static inline cudaError_t cudaFuncSetAttribute(K, cudaFuncAttribute, int bytes) {
    return bytes > EMULATE_BLOCK_SHARED ? cudaErrorInvalidValue : cudaSuccess;
}
template <class T> static inline cudaError_t cudaMalloc(T **p, size_t bytes) {
    *p = (T *)emulate_malloc(bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaFree(void *p) {
    emulate_free(p);
    return cudaSuccess;
}
template <class T> static inline cudaError_t cudaMallocHost(T **p, size_t bytes) {
    return cudaMalloc(p, bytes);
}
static inline cudaError_t cudaFreeHost(void *p) {
    return cudaFree(p);
}
static inline cudaError_t cudaHostRegister(void *, size_t, unsigned) {
    return cudaSuccess;
}
static inline cudaError_t cudaHostUnregister(void *) {
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind,
                                          cudaStream_t = NULL) {
    emulate_count("copy");
    memmove(dst, src, n);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpy(void *dst, const void *src, size_t n, cudaMemcpyKind k) {
    return cudaMemcpyAsync(dst, src, n, k);
}
static inline cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t = NULL) {
    emulate_count("set");
    memset(p, v, n);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    *s = NULL;
    return cudaSuccess;
}
static inline cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = *greatest = 0;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned, int) {
    *s = NULL;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t) {
    return cudaSuccess;
}
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0) {
    return cudaSuccess;
}
static inline cudaError_t cudaDeviceSynchronize() {
    return cudaSuccess;
}
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = NULL;
    return cudaSuccess;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = NULL) {
    return cudaSuccess;
}
static inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
    return cudaSuccess;
}
/* What the event waits for is over when it is asked a second time. */
static inline cudaError_t cudaEventQuery(cudaEvent_t) {
    static int times;
    if (++times % 2 == 0) return cudaSuccess;
    emulate_error = cudaErrorNotReady;
    return cudaErrorNotReady;
}
static inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t) {
    *ms = 0;
    return cudaSuccess;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t) {
    return cudaSuccess;
}

#endif
