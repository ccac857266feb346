/* The products of tensor.cuh as Hopper's wgmma instructions; included by it for sm_90a. */
#ifndef CARACAL_KERNELS_CUDA_WGMMA_CUH
#define CARACAL_KERNELS_CUDA_WGMMA_CUH

#include "kernels/cuda/descriptor.cuh"

/* What was written by ordinary stores and cp.async becomes visible to the tensor cores' own reads. */
static __device__ __forceinline__ void tile_filled() {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

#define FOUR(x)    "+f"((x)[0]), "+f"((x)[1]), "+f"((x)[2]), "+f"((x)[3])
#define SIXTEEN(j) FOUR(acc[j]), FOUR(acc[(j) + 1]), FOUR(acc[(j) + 2]), FOUR(acc[(j) + 3])
#define NAMES_32                                                                                             \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                 \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64                                                                                             \
    NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "            \
             "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

template <tile_order A, tile_order B>
static __device__ __forceinline__ void wgmma(float (&acc)[8][4], uint64_t a, uint64_t b, bool adds) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %36, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32
                 "}, %32, %33, p, 1, 1, %34, %35;\n}\n"
                 : SIXTEEN(0), SIXTEEN(4)
                 : "l"(a), "l"(b), "n"((int)A), "n"((int)B), "r"((int)adds));
}
template <tile_order A, tile_order B>
static __device__ __forceinline__ void wgmma(float (&acc)[16][4], uint64_t a, uint64_t b, bool adds) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %68, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64
                 "}, %64, %65, p, 1, 1, %66, %67;\n}\n"
                 : SIXTEEN(0), SIXTEEN(4), SIXTEEN(8), SIXTEEN(12)
                 : "l"(a), "l"(b), "n"((int)A), "n"((int)B), "r"((int)adds));
}
template <tile_order B>
static __device__ __forceinline__ void wgmma(float (&acc)[8][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, %37;\n"
                 : SIXTEEN(0), SIXTEEN(4)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"((int)B));
}
template <tile_order B>
static __device__ __forceinline__ void wgmma(float (&acc)[16][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, %69;\n"
                 : SIXTEEN(0), SIXTEEN(4), SIXTEEN(8), SIXTEEN(12)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"((int)B));
}
#undef FOUR
#undef SIXTEEN
#undef NAMES_32
#undef NAMES_64

/* The instructions run on while the compiler thinks them done: what it does with their registers must neither
 * come after products_begin nor before products_wait. */
template <int FRAGMENTS> static __device__ __forceinline__ void pin(float (&x)[FRAGMENTS][4]) {
#pragma unroll
    for (int j = 0; j < FRAGMENTS; j++)
        asm volatile("" : "+f"(x[j][0]), "+f"(x[j][1]), "+f"(x[j][2]), "+f"(x[j][3])::"memory");
}
template <int PARTS, int FRAGMENTS>
static __device__ __forceinline__ void pin(float (&x)[PARTS][FRAGMENTS][4]) {
#pragma unroll
    for (int p = 0; p < PARTS; p++) pin(x[p]);
}
template <int FRAGMENTS> static __device__ __forceinline__ void pin(uint32_t (&x)[FRAGMENTS][4]) {
#pragma unroll
    for (int j = 0; j < FRAGMENTS; j++)
        asm volatile("" : "+r"(x[j][0]), "+r"(x[j][1]), "+r"(x[j][2]), "+r"(x[j][3])::"memory");
}
template <class... T> static __device__ __forceinline__ void products_begin(T &...touched) {
    (pin(touched), ...);
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
static __device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

template <int N, tile_order A, tile_order B, int STEPS>
static __device__ __forceinline__ void tile_product_start(float (&acc)[N / 8][4], char *a, int a_panel,
                                                          int a_row, char *b, int b_panel, int b_row,
                                                          bool adds = true) {
    uint32_t left = operand_at<A>(shared_address(a), a_panel) + operand_step<A>(a_panel, a_row, 0);
    uint32_t right = operand_at<B>(shared_address(b), b_panel) + operand_step<B>(b_panel, b_row, 0);
#pragma unroll
    for (int s = 0; s < STEPS; s++)
        wgmma<A, B>(acc, descriptor(left + operand_step<A>(a_panel, 0, s)),
                    descriptor(right + operand_step<B>(b_panel, 0, s)), s || adds);
    wgmma_commit();
}

template <int N, tile_order B, int STEPS, int PARTS>
static __device__ __forceinline__ void fragment_product_start(float (&acc)[PARTS][N / 8][4],
                                                              uint32_t (&a)[STEPS][4], char *b, int b_panel) {
    uint32_t right = operand_at<B>(shared_address(b), b_panel);
#pragma unroll
    for (int p = 0; p < PARTS; p++)
#pragma unroll
        for (int s = 0; s < STEPS; s++)
            wgmma<B>(acc[p], a[s], descriptor(right + operand_step<B>(b_panel, N * p, s)));
    wgmma_commit();
}

template <int LEFT, class... T> static __device__ __forceinline__ void products_wait(T &...touched) {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(LEFT) : "memory");
    (pin(touched), ...);
}

#endif
